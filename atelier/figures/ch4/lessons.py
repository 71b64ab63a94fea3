"""Chapitre 4, deuxième partie : des élèves avant et après leurs leçons, graine par graine, ici et chez l'auteur."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from math import log
from statistics import mean, median
from typing import Any

from atelier.display import note, show, table
from atelier.evidence import Gap, paired
from atelier.figures.common.style import BLACK, BLUE, RED, SERIES, canvas, french
from atelier.text import number, percent, spread

Labels = tuple[float, float]
"""(T, α) ; α = 0 : étiquettes dures."""
Notes = Mapping[str, Any]
"""« perplexité », « KL », « accord », « ECE », « tranches »."""


def labels_name(labels: Labels) -> str:
    """« douces, T = 2 », d'après (T, α)."""
    temperature, alpha = labels
    if alpha == 0:
        return "dures"
    return f"{'douces' if alpha == 1 else 'les deux'}, T = {number(temperature)}"


# --- Avant d'apprendre ------------------------------------------------------------------------------------------------


def depths_table(found: Mapping[int, Mapping[str, Any]], tokens: int) -> None:
    """Des élèves de toutes les profondeurs. found : blocs → « lesquels », « paramètres », « perplexité »."""
    whole = max(row["paramètres"] for row in found.values())
    table(
        [
            [n, str(list(row["lesquels"])), row["paramètres"], percent(row["paramètres"] / whole), row["perplexité"]]
            for n, row in found.items()
        ],
        header=["blocs", "lesquels", "paramètres", "part de Colibri", "perplexité sans apprendre"],
        caption=f"Élèves taillés dans Colibri ({number(tokens)} jetons évalués)",
    )


def plot_choices(measured: Mapping[str, Any], size: int) -> tuple[int, ...]:
    """Les élèves de `size` blocs, sans aucun apprentissage, du meilleur au pire.

    measured : « jetons », et « perplexités » (blocs gardés → perplexité). Rend les blocs du meilleur.
    """
    tokens = measured["jetons"]
    found: dict[tuple[int, ...], float] = {k: v for k, v in measured["perplexités"].items() if len(k) == size}
    ranked = sorted(found, key=lambda kept: found[kept])
    fig, ax = canvas(7.6, 0.9 + 0.26 * len(ranked))
    spaced = {(0, 4): "le premier et le dernier", (0, 1): "les deux premiers"}
    ax.barh(range(len(ranked)), [found[p] for p in ranked], color=[BLUE if p in spaced else "#BBBBBB" for p in ranked])
    for i, p in enumerate(ranked):
        said = f" ({spaced[p]})" if p in spaced else ""
        ax.text(found[p], i, f" {number(found[p], 3)}{said}", va="center", fontsize=9)
    names = [" ".join(map(str, p)) for p in ranked]
    ax.set_yticks(range(len(ranked)), names)
    ax.set_ylabel("blocs gardés")
    ax.set_xscale("log")
    ax.set_xlabel(f"perplexité sans apprendre, {number(tokens)} jetons (échelle logarithmique)")
    ax.invert_yaxis()
    french(ax, y=False)
    told = ", ".join(f"{name} : {number(found[p], 3)}" for name, p in zip(names, ranked, strict=True))
    show(fig, alt=f"Perplexité selon les blocs gardés, avant tout apprentissage, de la meilleure à la pire. {told}.")
    return ranked[0]


def sentences_table(start: str, said: Mapping[str, str]) -> None:
    """Comment chacun continue un début de phrase. said : qui → sa suite."""
    table(
        [[who, text] for who, text in said.items()],
        header=["qui", f"« {start} … »"],
        caption="Une suite, chaque jeton tiré parmi les vingt plus probables",
    )


def lesson_note(found: Mapping[str, Any]) -> None:
    """Ce qu'une leçon a changé. found : « avant » et « après », des perplexités."""
    note(f"Perplexité de l'élève : {number(found['avant'], 4)} avant sa leçon, {number(found['après'], 4)} après.")


# --- Graine par graine ------------------------------------------------------------------------------------------------


Tried = float | Sequence[float]
"""Ce qu'a donné un taux : une valeur, ou une par graine."""


def rates_table(
    found: Mapping[tuple[Any, float], Tried],
    authors: Mapping[tuple[Any, float], Tried] | None,
    what: str = "Perplexité sur le texte de réglage",
) -> None:
    """Un élève par ligne, un taux par colonne. found : (élève, taux) → valeur, ou une par graine ; taux 0 : avant.

    what : ce qui est mesuré, à rendre le plus petit.
    """
    shown = authors or found
    names = list(dict.fromkeys(name for name, _ in shown))
    rates = sorted({lr for _, lr in shown})
    rows = []
    for name in names:
        tried = {lr: _middle(shown[name, lr]) for lr in rates if lr and (name, lr) in shown}
        best = min(tried, key=lambda lr: tried[lr]) if tried else 0.0
        cells = [number(_middle(shown[name, lr]), 4) if (name, lr) in shown else "—" for lr in rates]
        rows.append([labels_name(name) if isinstance(name, tuple) else name, *cells, number(best) if best else "—"])
    header = ["élève", *(f"taux {number(lr)}" if lr else "avant la leçon" for lr in rates), "le meilleur"]
    seeds = max(1 if isinstance(v, float) else len(v) for v in shown.values())
    counted = "une graine" if seeds == 1 else f"moyenne de {number(seeds)} graines"
    table(rows, header=header, caption=f"{what}, {counted}" + _whose(found, authors))
    if authors is not None and found != authors:
        here = ", ".join(
            f"{labels_name(name) if isinstance(name, tuple) else name}, taux {number(lr)} : {number(_middle(value), 4)}"
            for (name, lr), value in found.items()
            if lr
        )
        note(f"Ici : {here}.")


def _middle(tried: Tried) -> float:
    return tried if isinstance(tried, (int, float)) else mean(tried)


def _whose(found: Any, authors: Any) -> str:
    return "" if authors is None else " (auteur)"


def seeds_table(
    found: Mapping[str, Sequence[float]],
    authors: Mapping[str, Sequence[float]] | None,
    against: str,
    caption: str,
    first: str = "élève",
) -> None:
    """Une perplexité par graine, ici et chez l'auteur. found : élève → perplexités, dans l'ordre des graines.

    La dernière colonne compare, graine par graine, les perplexités de l'auteur à celles de `against`.
    """
    kept = authors or found
    rows = []
    for name in dict.fromkeys([*kept, *found]):
        here = number(mean(found[name]), 4) if name in found and found is not authors else "—"
        own, other = kept.get(name, []), kept.get(against, [])
        ratio = "—"
        if name != against and len(own) == len(other) >= 5:
            ratio = paired([log(v) for v in own], [log(v) for v in other]).as_ratio()
        rows.append([name, here, spread(own, 3) if own else "—", ratio])
    seeds = max((len(v) for v in kept.values()), default=0)
    table(
        rows,
        header=[first, "ici", f"auteur, {seeds} graines", f"auteur, face à : {against} [95 %]"],
        caption=caption,
    )


def notes_table(
    found: Mapping[str, Sequence[Notes]], authors: Mapping[str, Sequence[Notes]] | None, against: str, caption: str
) -> None:
    """Les notes d'élèves, moyennes sur les graines ; deux lignes par élève s'il a aussi appris ici.

    found : élève → notes, une par graine. La dernière colonne compare les perplexités à celles de `against`.
    """
    kept = authors or found
    rows = []
    for name in kept:
        rows.append([name, *_means(kept[name]), _against(kept, name, against)])
        if name in found and authors is not None and found != authors:
            rows.append([f"{name} — ici", *_means(found[name]), "—"])
    seeds = max(len(v) for v in kept.values())
    table(
        rows,
        header=["élève", "perplexité", "KL (nats)", "même premier choix", "ECE", f"perplexité, face à : {against}"],
        caption=f"{caption} ; {'auteur, ' if authors is not None else ''}{number(seeds)} graine{'s' * (seeds > 1)}",
    )


def long_tables(measured: Mapping[str, Any]) -> None:
    """De longues leçons, un tableau par départ. measured : « pas » et « notes » (« départ, étiquettes » → notes)."""
    by_start: dict[str, dict[str, Sequence[Notes]]] = {}
    for name, notes in measured["notes"].items():
        start, labels = name.split(", ", 1)
        by_start.setdefault(start, {})[labels] = notes
    for start, found in by_start.items():
        notes_table(found, None, "dures", f"Élèves de deux blocs ({start}), {number(measured['pas'])} pas")


def _means(notes: Sequence[Notes]) -> list[Any]:
    perplexity, gap, same, ece = (mean(n[key] for n in notes) for key in ("perplexité", "KL", "accord", "ECE"))
    return [number(perplexity, 3), number(gap, decimals=2), percent(same), percent(ece, decimals=1)]


def _against(kept: Mapping[str, Sequence[Notes]], name: str, against: str) -> str:
    if name == against or against not in kept or len(kept[name]) != len(kept[against]) or len(kept[name]) < 5:
        return "—"
    own, other = ([log(n["perplexité"]) for n in kept[who]] for who in (name, against))
    return paired(own, other).as_ratio()


def named(notes: Mapping[Labels, Sequence[Notes]]) -> dict[str, Sequence[Notes]]:
    """Les mêmes notes, rangées par le nom des étiquettes."""
    return {labels_name(labels): found for labels, found in notes.items()}


def labels_gap(result: Mapping[str, Any], one: Labels, other: Labels) -> Gap | None:
    """L'écart de log-perplexité de deux sortes d'étiquettes, graine par graine ; None à moins de cinq graines."""
    notes = result["notes"]
    own, against = ([log(n["perplexité"]) for n in notes.get(labels, ())] for labels in (one, other))
    return paired(own, against) if len(own) == len(against) >= 5 else None


def who_taught_best(result: Mapping[str, Any]) -> str:
    """Le verdict du pari : du texte seul, de Colibri seul (T = 1), ou ni l'un ni l'autre."""
    gap = labels_gap(result, (1.0, 1.0), (1.0, 0.0))
    if gap is None or not gap.told_apart:
        return "on ne pourra pas les départager"
    return "de Colibri seul" if gap.mean < 0 else "du texte seul"


def what_heat_did(result: Mapping[str, Any]) -> str:
    """Le verdict du pari : T = 2 contre T = 1, sans étiquettes dures."""
    gap = labels_gap(result, (2.0, 1.0), (1.0, 1.0))
    if gap is None or not gap.told_apart:
        return "ni meilleur ni pire"
    return "meilleur" if gap.mean < 0 else "moins bon"


def plot_map(notes: Mapping[Labels, Sequence[Notes]]) -> None:
    """Perplexité et ECE selon T et α. notes : (T, α) → notes ; α = 0 n'a pas de température."""
    import numpy as np

    temperatures = sorted({t for t, a in notes if a})
    alphas = sorted({a for _, a in notes})
    fig, axes = canvas(9.2, 3.0, columns=2)
    told = []
    for ax, key, write in ((axes[0], "perplexité", _three), (axes[1], "ECE", percent)):
        cells = {
            (t, a): mean(n[key] for n in notes[(t, a) if a else (1.0, 0.0)])
            for t, a in itertools.product(temperatures, alphas)
        }
        values = np.array([[cells[t, a] for t in temperatures] for a in alphas])
        ax.grid(False)
        ax.imshow(values, cmap="cividis", aspect="auto", origin="lower")
        dark = (values.min() + values.max()) / 2
        for i, j in itertools.product(range(len(alphas)), range(len(temperatures))):
            color = "white" if values[i, j] < dark else "black"
            ax.text(j, i, write(float(values[i, j])), ha="center", va="center", color=color, fontsize=10)
        ax.set_xticks(range(len(temperatures)), [number(t) for t in temperatures])
        ax.set_yticks(range(len(alphas)), [number(a) for a in alphas])
        ax.set_xlabel("température T")
        ax.set_ylabel("α, part du terme doux")
        ax.set_title(key, fontsize=10)
        told.append(
            f"{key} : " + ", ".join(f"T = {number(t)}, α = {number(a)} : {write(v)}" for (t, a), v in cells.items())
        )
    show(fig, alt=f"Deux cartes selon la température et α, plus sombre : plus petit. {' ; '.join(told)}.")


def _three(value: float) -> str:
    return number(value, 3)


def plot_calibration(notes: Mapping[str, Notes]) -> None:
    """Justesse contre confiance, un panneau par modèle. notes : modèle → ses notes."""
    fig, axes = canvas(2.5 * len(notes), 2.9, columns=len(notes), sharey=True)
    looks = itertools.cycle([SERIES[5], *SERIES[:4]])
    told = []
    for ax, (name, found), look in zip(axes if len(notes) > 1 else [axes], notes.items(), looks, strict=False):
        sure, right, share = zip(*found["tranches"], strict=True)
        ax.plot([0, 1], [0, 1], color=BLACK, lw=0.9, linestyle=":")
        ax.scatter(sure, right, s=[8 + 300 * s for s in share], color=look["color"], alpha=0.8)
        ax.plot(sure, right, color=look["color"], lw=1)
        ax.set_title(f"{name}\nECE {percent(found['ECE'], decimals=1)}", fontsize=9)
        ax.set_xlabel("confiance")
        ax.set_xlim(0, 1)
        french(ax)
        told.append(
            f"{name}, ECE {percent(found['ECE'], decimals=1)}, "
            + ", ".join(f"confiance {number(c, 2)} : justesse {number(r, 2)}" for c, r in zip(sure, right, strict=True))
        )
    (axes[0] if len(notes) > 1 else axes).set_ylabel("justesse")
    show(fig, alt=f"Justesse du premier choix contre sa confiance, la diagonale étant l'idéal. {' ; '.join(told)}.")


# --- Le prix d'un pas -------------------------------------------------------------------------------------------------


def step_cost(seconds: Mapping[str, Sequence[float]], student: int, teacher: int) -> float:
    """Le prix d'un pas devant l'enseignant, compté (6N + 2N, chapitre 2) et chronométré, en pas d'étiquettes dures.

    seconds : « dures », « douces », « douces, gardées » → durées. student, teacher : paramètres. Rend le prix
    chronométré.
    """
    counted = (6 * student + 2 * teacher) / (6 * student)
    middle = {name: median(v) for name, v in seconds.items()}
    table(
        [
            ["dures", number(1000 * middle["dures"], 3), number(1, decimals=2), number(1, decimals=2)],
            *(
                [
                    name,
                    number(1000 * middle[name], 3),
                    number(middle[name] / middle["dures"], decimals=2),
                    number(price, decimals=2),
                ]
                for name, price in (("douces", counted), ("douces, gardées", 1.0))
            ),
        ],
        header=["étiquettes", "ms par pas (médiane)", "prix chronométré", "prix compté"],
        caption="Un pas d'un élève de deux blocs ; prix : un pas d'étiquettes dures vaut 1",
    )
    price = middle["douces"] / middle["dures"]
    note(
        f"Ici, un pas devant Colibri coûte {number(price, 3)} pas d'étiquettes dures ; le compte en prévoyait "
        f"{number(counted, 3)}."
    )
    return price


def longer_table(found: Mapping[float, Sequence[float]], notes: Mapping[Labels, Sequence[Notes]]) -> None:
    """Des étiquettes dures à qui l'on donne plus de pas, face aux douces. found : combien de fois → perplexités."""
    soft = {"Colibri, T = 1": [n["perplexité"] for n in notes[1.0, 1.0]]}
    more = {f"texte, {number(k)} fois plus de pas": v for k, v in found.items()} | soft
    seeds_table(more, more, "Colibri, T = 1", "Des étiquettes dures à qui l'on donne plus de pas")


def pairs_table(
    after: Sequence[float], before: Mapping[tuple[int, ...], float], notes: Mapping[Labels, Sequence[Notes]]
) -> None:
    """Les deux premiers blocs, ou le premier et le dernier : avant, puis après une leçon de Colibri."""
    spaced = [n["perplexité"] for n in notes[1.0, 1.0]]
    gap = "—"
    if len(after) == len(spaced) >= 5:
        gap = paired([log(v) for v in after], [log(v) for v in spaced]).as_ratio()
    rows = [
        ["0 et 4", number(before[0, 4], 3), spread(spaced, 3), "—"],
        ["0 et 1", number(before[0, 1], 3), spread(after, 3), gap],
    ]
    table(rows, header=["blocs", "avant la leçon", "après", "après, face à : 0 et 4 [95 %]"], caption="Perplexité")


# --- Tailles ----------------------------------------------------------------------------------------------------------


def sizes_table(
    found: Mapping[str, Any], authors: Mapping[str, Any] | None, two_blocks: Sequence[Notes], two_params: int
) -> None:
    """Ce qu'un élève garde : les articles, puis Colibri. found : « Colibri » et « élèves » (nom → avant, après…)."""
    kept = authors or found
    params, whole = kept["Colibri"]
    rows: list[list[Any]] = [
        [
            "DistilBERT, 6 blocs sur 12",
            "66 M sur 110 M",
            "GLUE (plus haut, mieux)",
            "79,5",
            "—",
            "77,0",
            "97 % de la note",
        ],
        ["DistilGPT2, 6 blocs sur 12", "82 M sur 124 M", "perplexité", "16,3", "—", "21,1", "× 1,29"],
    ]
    ours = [(name, row["paramètres"], row["avant"], row["après"]) for name, row in kept["élèves"].items()]
    ours.append(("2 blocs", two_params, None, [n["perplexité"] for n in two_blocks]))
    for name, size, before, after in sorted(ours, key=lambda row: -row[1]):
        rows.append(
            [
                f"Colibri, {name} sur 5",
                f"{number(size / 1e6, 3)} M sur {number(params / 1e6, 3)} M",
                "perplexité",
                number(whole, 3),
                "—" if before is None else number(before, 3),
                spread(after, 3),
                number(mean(after) / whole, 3, before="×"),
            ]
        )
    table(
        rows,
        header=["élève", "paramètres", "mesure", "enseignant", "avant la leçon", "élève", "rapport"],
        caption="Articles : Sanh et al., 2019, tableau 1, et fiche de distilgpt2 (WikiText-103). "
        "Colibri : 60 pas, cinq graines de l'auteur",
    )
    if authors is not None and found != authors:
        said = ", ".join(f"{name} : {number(mean(row['après']), 3)}" for name, row in found["élèves"].items())
        note(f"Ici : {said}.")


def plot_sizes(found: Mapping[str, Any], two_blocks: Sequence[Notes], two_params: int) -> None:
    """Perplexité contre paramètres, avant et après la leçon."""
    params, whole = found["Colibri"]
    ours = sorted((row["paramètres"], row["avant"], mean(row["après"]), name) for name, row in found["élèves"].items())
    fig, ax = canvas(6.8, 3.2)
    after = [(two_params, mean(n["perplexité"] for n in two_blocks), "2 blocs")]
    after += [(size, value, name) for size, _, value, name in ours] + [(params, whole, "Colibri")]
    ax.plot([x / 1e6 for x, _, _ in after], [y for _, y, _ in after], lw=1.6, label="après la leçon", **SERIES[0])
    ax.plot([x / 1e6 for x, *_ in ours], [y for _, y, *_ in ours], color=RED, marker="s", lw=0, label="avant")
    for x, y, name in after:
        ax.annotate(f"{name} : {number(y, 3)}", (x / 1e6, y), (6, 5), textcoords="offset points", fontsize=9)
    ax.set_yscale("log")
    ax.set_yticks([15, 20, 30, 50])
    ax.set_xlabel("millions de paramètres")
    ax.set_ylabel("perplexité (échelle logarithmique)")
    ax.set_xlim(1.5, 3.6)
    ax.legend(frameon=False, fontsize=9)
    french(ax)
    told = ", ".join(f"{name}, {number(x / 1e6, 3)} M : {number(y, 3)}" for x, y, name in after)
    show(fig, alt=f"Perplexité contre paramètres, après la leçon : {told}.")
