"""Chapitre 8, deuxième partie : LoRA, son départ, son facteur, son taux, son rang, ce qu'il n'atteint pas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from statistics import mean
from typing import Any

from atelier.display import note, show, table
from atelier.evidence import perplexity_of
from atelier.figures.ch8.seeds import Parts, Runs, best_rate_of, gap_cell, perplexities, runs_table, seed_gap
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.text import byte_size, number, percent, spread

GPT3_PARAMETERS = 175_255_800_000
"""Tableau 4 de l'article LoRA : 175 255,8 M."""


def drawing(rank: int = 2) -> None:
    """La couche gelée et sa mise à jour : deux chemins entre x et y."""
    from matplotlib.patches import FancyArrowPatch, Polygon

    fig, ax = canvas(7.4, 3.6)
    ax.set(xlim=(0, 10), ylim=(0, 6.2))
    ax.axis("off")
    box: dict[str, Any] = {"edgecolor": BLACK, "linewidth": 1.4}
    ax.add_patch(Polygon([(1.0, 1.6), (4.6, 1.6), (4.6, 4.6), (1.0, 4.6)], facecolor="#D9D9D9", **box))
    ax.text(2.8, 3.1, "W gelée\nd × k", ha="center", va="center", fontsize=12)
    ax.add_patch(Polygon([(6.0, 1.6), (9.4, 1.6), (8.1, 2.9), (7.3, 2.9)], facecolor="#9FC8E3", **box))
    ax.add_patch(Polygon([(7.3, 3.3), (8.1, 3.3), (9.4, 4.6), (6.0, 4.6)], facecolor="#F3C9A5", **box))
    ax.text(7.7, 2.15, "A, r × k\ngaussienne", ha="center", va="center", fontsize=10)
    ax.text(7.7, 4.1, "B, d × r\nzéro", ha="center", va="center", fontsize=10)
    ax.text(8.35, 3.1, f"r nombres (ici r = {rank})", va="center", fontsize=9)
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 14, "color": BLACK, "linewidth": 1.4}
    for start, end in (
        ((5.2, 0.5), (2.8, 1.6)),
        ((5.2, 0.5), (7.7, 1.6)),
        ((7.7, 2.9), (7.7, 3.3)),
        ((2.8, 4.6), (5.1, 5.5)),
        ((7.7, 4.6), (5.3, 5.5)),
    ):
        ax.add_patch(FancyArrowPatch(start, end, **arrow))
    ax.text(5.2, 0.25, "x (k nombres)", ha="center", va="center", fontsize=11)
    ax.text(5.2, 5.85, "y = W x + (α / r) · B (A x)", ha="center", va="center", fontsize=12)
    ax.text(5.2, 5.45, "+", ha="center", va="center", fontsize=14)
    ax.text(6.75, 5.25, "× α / r", fontsize=10)
    show(
        fig,
        alt="Deux chemins entre l'entrée x, k nombres, et la sortie y, d nombres : à gauche la matrice W, gelée ; à "
        "droite A, qui descend à r nombres et part d'une gaussienne, puis B, qui remonte à d nombres et part de zéro. "
        "Le second est multiplié par alpha sur r, puis les deux s'ajoutent.",
    )


# --- Des comptes ------------------------------------------------------------------------------------------------------

SAID = {(2, 1): "4,7 M (tableau 4)", (2, 4): "35 Mo (§ 4.2)", (2, 8): "37,7 M (tableau 4)", (4, 2): "37,7 M (D.4)"}
MATRICES = {2: "W_q et W_v", 4: "W_q, W_k, W_v et W_o"}


def gpt3_table(found: Mapping[tuple[int, int], int]) -> None:
    """LoRA sur GPT-3 175B. found : (matrices par bloc, rang) → paramètres."""
    rows = [
        [
            f"{MATRICES[each]}, r = {r}",
            n,
            percent(n / GPT3_PARAMETERS),
            byte_size(2 * n),
            number(GPT3_PARAMETERS / n, 4, before="×"),
            SAID[each, r],
        ]
        for (each, r), n in found.items()
    ]
    table(
        rows,
        header=["LoRA sur", "paramètres", "de GPT-3", "en FP16", "réduction", "l'article dit"],
        caption="GPT-3 175B : 96 blocs, d = 12 288 ; « réduction » : 175 255,8 M divisé par le compte",
    )


def hundred_tasks(model: float, numbers: Mapping[str, int], tasks: int = 100) -> None:
    """Ce que pèsent cent tâches, en FP16. model : paramètres de la base ; numbers : méthode → nombres par tâche."""
    rows = [["fine-tuning complet", byte_size(2 * model), byte_size(2 * model * tasks)]]
    for name, n in numbers.items():
        rows.append([name, byte_size(2 * n), byte_size(2 * (model + tasks * n))])
    table(rows, header=["", "une tâche", f"{tasks} tâches, base comprise"], caption="En FP16, deux octets par nombre")


def starts_table(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Quatre départs. found : départ → « écart » à la base, « gradients » : un couple (A, B) par pas."""
    rows = []
    for kind, row in found.items():
        (a, b), (last_a, last_b) = row["gradients"][0], row["gradients"][-1]
        rows.append([kind, number(row["écart"], 2), *(number(v, 2) for v in (a, b, last_a, last_b))])
    steps = len(next(iter(found.values()))["gradients"])
    table(
        rows,
        header=["départ", "écart à la base", "∂A, pas 1", "∂B, pas 1", f"∂A, pas {steps}", f"∂B, pas {steps}"],
        caption="Normes des gradients, sur la première couche d'attention de Colibri (données au hasard)",
    )


def sentences_table(said: Sequence[tuple[str, str, str]]) -> None:
    """Ce que chacun écrit. said : (début, qui, suite)."""
    table(
        [[f"{prompt} …", who, text] for prompt, who, text in said],
        header=["début", "modèle", "suite"],
        caption="Mêmes débuts, même tirage (T = 0,8), deux voix",
    )


# --- α/r ou α/√r ------------------------------------------------------------------------------------------------------

FirstSteps = Mapping[int, Sequence[tuple[float, float]]]
"""Rang → par graine, (taille de ΔW, effet au premier ordre)."""


def first_step_table(here: FirstSteps, author: FirstSteps | None) -> str:
    """Taille et effet d'un premier pas, selon le rang. Rend par combien, arrondi, la taille est multipliée."""
    kept = author or here
    ranks = sorted(kept)
    rows = []
    for k, r in enumerate(ranks):
        cells = []
        for j in (0, 1):
            now = mean(run[j] for run in kept[r])
            before = mean(run[j] for run in kept[ranks[k - 1]])
            cells += [number(now, 3), number(now / before, 3, before="×") if k else "—"]
        mine = "—" if here is author else " ; ".join(number(v, 3) for v in here[r][0]) if r in here else "—"
        rows.append([r, *cells, mine])
    seeds = len(kept[ranks[0]])
    table(
        rows,
        header=["r", "‖ΔW‖", "face au rang d'avant", "⟨ΔW, G⟩ (nats)", "face au rang d'avant", "ici"],
        caption=f"Un pas d'AdamW, facteur 2 à tous les rangs, toutes les couches ; moyenne, {seeds} graine(s)",
    )
    ratio = mean(run[0] for run in kept[ranks[1]]) / mean(run[0] for run in kept[ranks[0]])
    return number(round(ratio))


Grid = Mapping[tuple[str, int, float], Sequence[float]]
"""(règle, rang, taux) → perplexité sur le texte de réglage, par graine."""
SHARED = 16
"""Le rang où les trois règles ont le même facteur : il n'y a été mesuré qu'une fois."""


def grid_curves(found: Grid) -> dict[str, dict[int, dict[float, float]]]:
    """Règle → rang → taux → perplexité moyenne ; le rang 16 est le même pour toutes."""
    rules = list(dict.fromkeys(rule for rule, _, _ in found))
    curves: dict[str, dict[int, dict[float, float]]] = {rule: {} for rule in rules}
    for (own, rank, lr), values in found.items():
        for rule in rules if rank == SHARED else [own]:
            curves[rule].setdefault(rank, {})[lr] = mean(values)
    return {rule: dict(sorted(lines.items())) for rule, lines in curves.items()}


def best_rates(found: Grid) -> dict[tuple[str, int], float]:
    """(règle, rang) → le meilleur taux."""
    return {
        (rule, rank): min(line, key=lambda lr: line[lr])
        for rule, lines in grid_curves(found).items()
        for rank, line in lines.items()
    }


def plot_rates_by_rank(found: Grid) -> None:
    """Un panneau par règle : perplexité contre taux, une courbe par rang."""
    curves = grid_curves(found)
    fig, axes = canvas(9.6, 3.6, columns=len(curves), sharey=True)
    told = []
    for ax, (rule, lines) in zip(axes, curves.items(), strict=True):
        for style, (rank, line) in zip(SERIES, lines.items(), strict=False):
            xs = sorted(line)
            ax.plot(xs, [line[lr] for lr in xs], label=f"r = {rank}", **style)
        ax.set(xscale="log", title=rule, xlabel="taux (échelle logarithmique)")
        ticks = sorted({lr for line in lines.values() for lr in line})
        ax.set_xticks(ticks, [number(1000 * lr) for lr in ticks])
        ax.minorticks_off()
        ax.set_xlabel("taux, en millièmes (échelle log.)")
        french(ax, x=False)
        for rank, line in lines.items():
            best = min(line, key=lambda lr: line[lr])
            told.append(f"{rule}, r = {rank} : {number(line[best], 4)} au taux {number(best)}")
    values = [v for lines in curves.values() for line in lines.values() for v in line.values()]
    axes[0].set(ylabel="perplexité (texte de réglage)", ylim=(min(values) - 1, min(max(values), 1.6 * min(values)) + 1))
    axes[-1].legend(fontsize=9)
    show(
        fig,
        alt=f"Perplexité contre taux, selon la règle et le rang. Le meilleur de chaque courbe : {' ; '.join(told)}.",
    )
    chosen = best_rates(found)
    ranks = sorted({rank for _, rank in chosen})
    rows = []
    for rule, lines in curves.items():
        shown = [f"{number(chosen[rule, r])} ({number(min(lines[r].values()), 4)})" for r in ranks]
        rows.append([rule, *shown])
    seeds = len(next(iter(found.values())))
    table(
        rows,
        header=["facteur", *(f"r = {r}" for r in ranks)],
        caption=f"Le meilleur taux, et sa perplexité (moyenne, {seeds} graine(s))",
    )


def grid_note(found: Grid) -> None:
    """Ce que la grille du lecteur a donné."""
    told = ", ".join(f"{rule}, r = {r}, taux {number(lr)} : {number(mean(v), 4)}" for (rule, r, lr), v in found.items())
    note(f"Ici : {told}.")


# --- Où, à quel rang --------------------------------------------------------------------------------------------------


def places_table(here: Mapping[str, Any], author: Mapping[str, Any] | None, against: str) -> None:
    """Où LoRA apprend. here, author : « apprennent » (méthode → nombres) et « pertes » (méthode → parts par graine)."""
    kept = author or here
    runs_table(
        here["pertes"],
        None if author is None else author["pertes"],
        against,
        "Perplexité sur B après une leçon, chaque méthode à son taux",
        more={name: [n] for name, n in kept["apprennent"].items()},
        more_header=["nombres appris"],
    )


def kept_table(here: Runs, author: Runs | None) -> str:
    """Ce que l'on garde d'un fine-tuning complet. Rend le verdict du pari sur la table des jetons."""
    kept = author or here
    before, after = (mean(mean(parts) for parts in kept[name]) for name in ("rien", "tout"))
    shares = {name: [percent((before - mean(map(mean, runs))) / (before - after))] for name, runs in kept.items()}
    runs_table(here, author, "tout", "Perplexité sur B d'un Colibri fine-tuné en entier, dont on ne garde que…",
               first="on garde", more=shares, more_header=["part du gain (en nats)"])  # fmt: skip
    share = (before - mean(map(mean, kept["la table des jetons"]))) / (before - after)
    return "presque rien" if share < 0.25 else "environ la moitié" if share < 0.75 else "presque tout"


def without_regret_table(rates: Any, grid: Any, places: Any) -> None:
    """Les mesures de LoRA Without Regret, et les nôtres."""
    if rates is None or grid is None or places is None:
        note("Il manque un résultat enregistré pour ce tableau.")
        return
    full, lora = best_rate_of(rates, "tout")[0], best_rate_of(rates, "LoRA")[0]
    best = best_rates(grid)
    steady = [number(best["α/r", r]) for r in (4, 16, 64)]
    gap = seed_gap(places["pertes"]["LoRA, attention seule"], places["pertes"]["LoRA"])
    mlp = seed_gap(places["pertes"]["LoRA, MLP seul"], places["pertes"]["LoRA"])
    rows = [
        ["taux de LoRA ÷ taux complet", "10 (15 si très court)", number(lora / full, 2)],
        ["meilleur taux selon le rang, α/r", "presque le même", f"r = 4, 16, 64 : {', '.join(steady)}"],
        ["attention seule, à nombres égaux", "en retrait", f"perplexité {gap_cell(gap)}"],
        ["MLP seul, à nombres égaux", "presque comme partout", f"perplexité {gap_cell(mlp)}"],
        ["opérations d'un pas", "2/3", "comptées en 8.10"],
        ["grands lots, grandes données", "pénalisent LoRA", "non mesuré ici"],
    ]
    table(rows, header=["", "LoRA Without Regret", "Colibri"], caption="Face à LoRA partout, cinq graines [95 %]")


# --- Les cinq méthodes ------------------------------------------------------------------------------------------------


def final_runs(found: Mapping[str, Any], key: str = "B") -> dict[str, list[Parts]]:
    """Méthode → par graine, les parts à la fin de la leçon."""
    return {
        name: [run["B"][max(run["B"])] if key == "B" else run["A"] for run in runs]
        for name, runs in found.items()
        if name != "apprennent"
    }


def contenders_table(here: Mapping[str, Any], author: Mapping[str, Any] | None, before: Mapping[str, Any]) -> None:
    """Les cinq méthodes : nombres appris, perplexité sur A (l'oubli), puis sur B."""
    kept = author or here
    forgotten = final_runs(kept, "A")
    more = {name: [kept["apprennent"][name], spread(perplexities(runs), 3)] for name, runs in forgotten.items()}
    a, b = (number(perplexity_of(before[key]), 3) for key in ("A", "B"))
    runs_table(final_runs(here), None if author is None else final_runs(author), "tout",
               f"Après quarante pas, chaque méthode à son taux (Colibri : {b} sur B, {a} sur A)",
               more=more, more_header=["nombres appris", "perplexité sur A"])  # fmt: skip


def plot_contenders(found: Mapping[str, Any]) -> None:
    """À gauche, la perplexité sur B au fil des pas ; à droite, ce qui est appris contre ce qui est oublié."""
    fig, axes = canvas(9.4, 3.8, columns=2)
    told = []
    forgotten = final_runs(found, "A")
    for style, (name, runs) in zip(SERIES, ((n, r) for n, r in found.items() if n != "apprennent"), strict=False):
        steps = sorted(runs[0]["B"])
        means = [exp(mean(mean(run["B"][i]) for run in runs)) for i in steps]
        axes[0].plot(steps, means, label=name, **style)
        a, b = perplexities(forgotten[name]), perplexities([run["B"][steps[-1]] for run in runs])
        axes[1].plot(a, b, color=style["color"], marker=style["marker"], lw=0, label=name)
        told.append(f"{name} : B {number(mean(b), 3)}, A {number(mean(a), 3)}")
    axes[0].set(xlabel="pas", ylabel="perplexité sur B")
    axes[1].set(xlabel="perplexité sur A, ensuite (à gauche : moins d'oubli)", ylabel="perplexité sur B, ensuite")
    for ax in axes:
        french(ax)
    axes[0].legend(fontsize=9)
    show(
        fig,
        alt=f"Perplexité sur B au fil des pas, et perplexités finales sur B et A, une par graine. {' ; '.join(told)}.",
    )
