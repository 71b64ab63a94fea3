"""Chapitre 2, troisième partie : un budget de calcul, et comment d'autres l'ont partagé entre taille et texte."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atelier import passed
from atelier.display import note, show, table
from atelier.figures.ch2.tools import colibri_journal, flops_text, rate_text, short
from atelier.figures.common.controls import Slider, explore
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, RED, SERIES, canvas, french
from atelier.text import NBSP, byte_size, number, percent


@dataclass(frozen=True)
class Known:
    """Un modèle connu : paramètres, jetons lus, source ; place de son nom sur la carte (points typographiques).

    total : paramètres en tout d'un mélange d'experts ; params ne compte alors que ceux qui servent à un jeton.
    """

    params: float
    tokens: float
    source: str
    place: tuple[float, float] = (7, -3)
    total: float | None = None


KNOWN = {
    "GPT-2 XL": Known(1_557_611_200, 9.0e9, "un passage sur OpenWebText (nanoGPT) ; le vrai nombre n'est pas publié"),
    "GPT-3": Known(175e9, 300e9, "Brown et al., 2020, tableau 2.1", (-36, -9)),
    "Gopher": Known(280e9, 300e9, "Hoffmann et al., 2022, tableau 1", (7, -8)),
    "PaLM": Known(540e9, 780e9, "Chowdhery et al., 2022, § 3 et tableau 1"),
    "Chinchilla": Known(70e9, 1.4e12, "Hoffmann et al., 2022, tableau 1", (8, -6)),
    "LLaMA 7B": Known(6.7e9, 1.0e12, "Touvron et al., 2023, tableau 2", (-54, -9)),
    "LLaMA 65B": Known(65.2e9, 1.4e12, "Touvron et al., 2023, tableau 2", (-62, -12)),
    "Llama 3 8B": Known(8.0e9, 15e12, "Meta, avril 2024", (-60, -3)),
    "Llama 3 70B": Known(70e9, 15e12, "Meta, avril 2024", (4, -14)),
    "Llama 3.1 405B": Known(405e9, 15.6e12, "Grattafiori et al., 2024, § 1", (-28, 8)),
    "DeepSeek-V3": Known(37e9, 14.8e12, "DeepSeek-AI, 2024, résumé", (-52, -15), 671e9),
    "Kimi K2": Known(32e9, 15.5e12, "Kimi Team, 2025, résumé", (-26, 8), 1e12),
}
"""Modèles dont le nombre de jetons est publié. Ceux qui ont un `total` sont des mélanges d'experts."""

RULE = 20.0
"""Jetons par paramètre : Hoffmann et al., 2022, tableau 3."""


def known_runs() -> dict[str, Known]:
    """Colibri, puis les modèles connus."""
    recipe, _ = colibri_journal()
    return {"Colibri": Known(recipe["parametres"], recipe["jetons"], "assets/colibri/recette.json", (8, -4))} | KNOWN


def _budget_map(budget: float, sizes: list[float], tokens: list[float]) -> tuple[Any, str]:
    fig, ax = canvas(8.8, 5.4)
    low, high = 1e6, 1e13
    for power in range(15, 28, 2):
        ax.plot([low, high], [10.0**power / 6 / low, 10.0**power / 6 / high], color="#999999", lw=0.6, ls=":")
        where = (1.4e6, 10.0**power / 6 / 1.4e6) if power <= 21 else (10.0**power / 6 / 5e13, 5e13)
        ax.text(*where, f"$10^{{{power}}}$", fontsize=8, color="#555555", rotation=-38, ha="center", va="center")
    ax.plot([low, high], [RULE * low, RULE * high], color=GREEN, ls="-.", lw=1.6, label="20 jetons par paramètre")
    ax.plot(sizes, tokens, color=RED, lw=2, label=f"6ND = {flops_text(budget)}")
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}
    runs = known_runs()
    for name, known in runs.items():
        style = {"mfc": "white", "mec": BLUE} if name == "GPT-2 XL" else {"color": BLUE}
        ax.plot([known.params], [known.tokens], "o", ms=6, **style)
        label = "GPT-2 XL, un passage au moins" if name == "GPT-2 XL" else name
        ax.annotate(
            label, (known.params, known.tokens), xytext=known.place, textcoords="offset points", fontsize=8.5, bbox=box
        )
        if known.total:
            ax.plot([known.params, known.total], [known.tokens] * 2, color=ORANGE, lw=1, ls="--")
            ax.plot([known.total], [known.tokens], "s", ms=6, mfc="white", mec=ORANGE, zorder=4)
    ax.plot([], [], "o", color=BLUE, label="un modèle connu (mélange d'experts : N actif)")
    ax.plot([], [], "s", mfc="white", mec=ORANGE, ls="--", color=ORANGE, label="le même, N total")
    ax.plot([], [], color="#999999", lw=0.8, ls=":", label="budgets de 10¹⁵ à 10²⁷ FLOP")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(1e7, 1e14)
    ax.set_xlabel("N, paramètres (échelle logarithmique)")
    ax.set_ylabel("D, jetons (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=8.5, loc="lower right")
    told = " ; ".join(
        f"{name} {short(k.params)} de paramètres{f' actifs sur {short(k.total)}' if k.total else ''}, "
        f"{short(k.tokens)} de jetons, soit {number(k.tokens / k.params, 3)} par paramètre"
        for name, k in runs.items()
    )
    alt = (
        f"Carte des apprentissages, taille en abscisse et jetons en ordonnée. La droite du budget de "
        f"{flops_text(budget)} passe par {short(tokens[len(tokens) // 2])} de jetons pour "
        f"{short(sizes[len(sizes) // 2])} de paramètres. {told}."
    )
    return fig, alt


def budget_map(found: Mapping[str, Any], tokens_for_budget: Callable[[float, int], float]) -> None:
    """La droite d'un budget dans le plan taille-texte, et les modèles connus ; un curseur quand la page est vivante.

    found : « budget » (FLOP), et ce que `tokens_for_budget` en fait, « tailles » et « jetons ».
    """
    sizes = [float(n) for n in found["tailles"]]
    if passed(tokens_for_budget):

        def draw(power: float) -> tuple[Any, str]:
            moved = abs(power - math.log10(found["budget"])) > 0.005
            budget = 10.0**power if moved else found["budget"]
            return _budget_map(budget, sizes, [tokens_for_budget(budget, round(n)) for n in sizes])

        explore(draw, power=Slider(round(math.log10(found["budget"]), 2), 14.0, 27.0, 0.01, "budget : 10 puissance"))
    else:
        fig, alt = _budget_map(found["budget"], sizes, found["jetons"])
        show(fig, alt=alt)
    table(
        [
            [
                name + (" (actifs)" if k.total else ""), short(k.params), short(k.tokens), _ratio(k),
                flops_text(6 * k.params * k.tokens), k.source,
            ]
            for name, k in known_runs().items()
        ],
        header=["modèle", "N", "D, jetons", "D / N", "6ND", "source"],
        caption="Ce qu'ils ont choisi",
    )  # fmt: skip


def _ratio(known: Known) -> str:
    """Jetons par paramètre."""
    return number(known.tokens / known.params, decimals=1)


def optimal_table(found: Mapping[str, tuple[float, float, float]]) -> None:
    """Ce que la règle de Chinchilla aurait fait du budget de quelques modèles. found : modèle → budget, N, D."""
    runs = known_runs()
    table(
        [
            [name, flops_text(compute), short(runs[name].params), short(runs[name].tokens), short(n), short(d),
             number(n / runs[name].params, decimals=2, before="×")]
            for name, (compute, n, d) in found.items()
        ],
        header=["budget de", "6ND", "N choisi", "D choisi", "N de la règle", "D de la règle", "N règle / N choisi"],
        caption="Le même budget, à 20 jetons par paramètre",
    )  # fmt: skip


def mixture_table(found: Mapping[str, Mapping[str, float]]) -> None:
    """Un mélange d'experts, selon le N que l'on compte. found : N compté → « N », « 6ND », « vitesse », « MFU »."""
    table(
        [
            [
                name,
                short(row["N"]),
                flops_text(row["6ND"]),
                rate_text(row["vitesse"]),
                percent(row["MFU"], decimals=0),
            ]
            for name, row in found.items()
        ],
        header=["N compté", "N", "6ND", "par carte, d'après les heures publiées", "part de la pointe en bfloat16"],
        caption="DeepSeek-V3 : 14 800 milliards de jetons en 2,788 millions d'heures de H800",
    )


# --- La mémoire de l'apprentissage ------------------------------------------------------------------------------------


def memory_table(found: Mapping[str, Any]) -> None:
    """Ce qui ne dépend pas du lot. found : « paramètres », « octets » (poste → octets)."""
    n = found["paramètres"]
    rows = [[kind, byte_size(size), number(size / n, decimals=2)] for kind, size in found["octets"].items()]
    whole = sum(found["octets"].values())
    table(
        [*rows, ["total", byte_size(whole), number(whole / n, decimals=2)]],
        header=["poste", "octets", "octets par paramètre"],
        caption=f"Un pas d'AdamW sur Colibri, en float32 ({number(n)} paramètres)",
    )


def plot_saved(found: Mapping[tuple[str, int, int], int]) -> None:
    """Ce que le passage avant garde pour le passage arrière. found : (attention, lot, contexte) → octets."""
    fig, ax = canvas(8.0, 3.4)
    names = list(dict.fromkeys(name for name, _, _ in found))
    largest = max(batch for _, batch, _ in found)
    for name, look in zip(names, SERIES, strict=False):
        line = {
            context: size / largest / context
            for (who, b, context), size in found.items()
            if (who, b) == (name, largest)
        }
        ax.plot(list(line), [v / 1e3 for v in line.values()], label=f"attention « {name} »", lw=1.7, **look)
    ax.set_ylim(0)
    ax.set_xlabel("contexte (jetons)")
    ax.set_ylabel("ko gardés par jeton")
    french(ax)
    ax.legend(frameon=False, fontsize=9)
    told = " ; ".join(
        f"{name}, lot de {b}, contexte de {t} : {byte_size(size)}" for (name, b, t), size in found.items()
    )
    show(fig, alt=f"Octets que le passage avant garde pour le passage arrière, par jeton, selon le contexte. {told}.")


# --- Toute une vie ----------------------------------------------------------------------------------------------------

E, A, ALPHA, B, BETA = 1.8172, 482.01, 0.3478, 2085.43, 0.3658
"""L(N, D) = E + A/N^α + B/D^β : Besiroglu et al., 2024."""


def chinchilla_loss(n_params: float, tokens: float) -> float:
    """La perte, en nats, que la loi de Chinchilla donne à cette taille et à ce texte (constantes de Besiroglu)."""
    return E + A / n_params**ALPHA + B / tokens**BETA


def tokens_for_loss(n_params: float, loss: float) -> float:
    """Les jetons qu'il faut à cette taille pour atteindre cette perte, d'après la même loi ; inf si elle n'y arrive
    jamais."""
    room = loss - E - A / n_params**ALPHA
    return (B / room) ** (1 / BETA) if room > 0 else math.inf


Life = Mapping[str, list[tuple[float, float, float]]]
"""usage → (N, D, jours d'une carte), une ligne par taille."""


def best_sizes(found: Life) -> dict[str, float]:
    """La taille qui coûte le moins, par usage."""
    return {use: min(points, key=lambda point: point[2])[0] for use, points in found.items()}


def plot_lifetime(found: Life) -> None:
    """Le coût d'une vie, apprentissage et service, selon la taille, à perte égale : un creux par usage."""
    fig, ax = canvas(8.4, 3.8)
    rows, told = [], []
    for (use, points), look in zip(found.items(), SERIES, strict=False):
        n, tokens, days = min(points, key=lambda point: point[2])
        plain = look | {"marker": ""}
        ax.plot([p[0] for p in points], [p[2] for p in points], lw=1.8, label=use, **plain)
        ax.plot([n], [days], marker=look["marker"], color=look["color"], ms=9, mec=BLACK, mew=1.2)
        rows.append([use, short(n), short(tokens), number(tokens / n, decimals=1), number(round(days))])
        told.append(
            f"{use} : creux à {number(n / 1e9, 3)} milliards de paramètres, {number(round(days))} jours de carte"
        )
    ax.plot([], [], "o", mfc="white", mec=BLACK, ls="", label="le moins cher")
    ax.set_xscale("log")
    ax.set_yscale("log")
    low = min(min(p[2] for p in points) for points in found.values())
    ax.set_ylim(low / 1.5, 300 * low)
    ticks = (2, 5, 10, 20, 50, 100)
    ax.set_xticks([n * 1e9 for n in ticks], [f"{n}{NBSP}Md" for n in ticks])
    ax.minorticks_off()
    ax.set_xlabel("N, paramètres (échelle logarithmique)")
    ax.set_ylabel("jours d'une carte (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    show(fig, alt=f"Coût d'une vie selon la taille, à perte égale. {' ; '.join(told)}.")
    table(
        rows,
        header=["usage prévu", "N", "D, jetons", "D / N", "jours d'une carte"],
        caption="Le moins cher, à la perte d'un modèle de 13 milliards de paramètres et 260 milliards de jetons",
    )
    note(
        "Constantes de Besiroglu et al. (2024), tirées d'autres textes et d'autres recettes que les nôtres : à lire "
        "pour le sens des flèches, pas pour les décimales."
    )
