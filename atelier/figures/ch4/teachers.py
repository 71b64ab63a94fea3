"""Chapitre 4, troisième partie : plusieurs modèles ensemble, un Colibri réparé, un élève qui écrit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from statistics import mean
from typing import Any

from atelier.display import note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.ch4.lessons import Notes, notes_table
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, RED, canvas, french
from atelier.text import number, percent, spread


def together_table(found: Mapping[str, Any], authors: Mapping[str, Any] | None) -> None:
    """Des élèves seuls, puis consultés ensemble. found : « chacun » (notes), « moyenne des lois », « … des logits »."""
    for whose, result in (("ici", found), ("auteur", authors)):
        if result is None or (whose == "ici" and found == authors):
            continue
        alone = result["chacun"]
        best = min(n["perplexité"] for n in alone)
        rows: list[list[Any]] = [
            ["seul (de … à …)", spread([n["perplexité"] for n in alone], 3), _shares([n["ECE"] for n in alone]), "—"]
        ]
        for name in ("moyenne des lois", "moyenne des logits"):
            n = result[name]
            ratio = number(n["perplexité"] / best, decimals=3, before="×")
            rows.append([f"les {len(alone)} ensemble, {name}", number(n["perplexité"], 3), _shares([n["ECE"]]), ratio])
        table(
            rows,
            header=["élèves d'étiquettes dures", "perplexité", "ECE", "face au meilleur, seul"],
            caption=f"Des élèves qui ne diffèrent que par leur graine ({whose})",
        )


def ensemble_wins(result: Mapping[str, Any]) -> str:
    """« oui » si la moyenne des lois fait mieux que le meilleur de ses membres."""
    best = min(n["perplexité"] for n in result["chacun"])
    return "oui" if result["moyenne des lois"]["perplexité"] < best else "non"


def _shares(values: Sequence[float]) -> str:
    low, high = percent(min(values), decimals=1), percent(max(values), decimals=1)
    return low if low == high else f"{low} à {high}"


def plot_teachers(rows: Mapping[str, Sequence[float]], consulted: float) -> None:
    """Perplexité d'un élève selon qui lui enseigne, un point par graine ; consulted : celle de l'ensemble lui-même."""
    fig, ax = canvas(8.2, 3.2)
    colors = (BLACK, BLACK, ORANGE, GREEN, BLUE)
    for i, (values, color) in enumerate(zip(rows.values(), colors, strict=False)):
        ax.plot(values, [i] * len(values), "o", color=color, ms=6, alpha=0.7)
        ax.plot([mean(values)] * 2, [i - 0.28, i + 0.28], color=color, lw=2)
    ax.axvline(consulted, color=RED, lw=1.2, linestyle="--")
    ax.text(consulted, -0.75, " l'ensemble de cinq, consulté", fontsize=9, color=RED, va="center")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -1.1)
    ax.set_xlabel("perplexité de l'élève (un point par graine, trait : moyenne)")
    french(ax, y=False)
    told = " ; ".join(f"{name} : {spread(values, 3)}" for name, values in rows.items())
    show(
        fig,
        alt=f"Perplexité d'un élève de deux blocs selon qui lui enseigne. {told}. L'ensemble de cinq, consulté : "
        f"{number(consulted, 3)}.",
    )


def repaired_table(found: Mapping[Any, Sequence[float]], authors: Mapping[Any, Sequence[float]] | None) -> float:
    """Un Colibri arrondi, puis réparé. found : « Colibri », « arrondi », ou (étiquettes, graine) → pertes.

    Rend le rapport, à Colibri, de la perplexité moyenne de ceux que les étiquettes douces ont réparés.
    """
    kept = authors or found
    whole = perplexity_of(kept["Colibri"])
    rows: list[list[Any]] = []
    for name in ("Colibri", "arrondi"):
        rows.append([name, number(perplexity_of(kept[name]), 4), number(perplexity_of(kept[name]) / whole, 3)])
    for name in dict.fromkeys(key[0] for key in kept if isinstance(key, tuple)):
        runs = [perplexity_of(kept[key]) for key in kept if isinstance(key, tuple) and key[0] == name]
        rows.append([f"réparé, étiquettes {name}", spread(runs, 4), number(mean(runs) / whole, 3)])
    table(
        rows,
        header=["couches linéaires", "perplexité", "rapport à Colibri"],
        caption="Colibri sur 3 bits, pas choisi par canal" + (" (auteur, cinq graines)" if authors else ""),
    )
    if authors is not None and found != authors:
        here = [f"{key[0]} : {number(perplexity_of(found[key]), 4)}" for key in found if isinstance(key, tuple)]
        note(f"Ici, réparé, étiquettes {', '.join(here)}.")
    soft = [perplexity_of(kept[key]) for key in kept if isinstance(key, tuple) and key[0] == "douces"]
    return mean(soft) / whole


def kept_bytes(vocabulary: int, tokens: int, sizes: Sequence[int]) -> None:
    """Ce que pèsent les réponses d'un enseignant, en FP16, toutes ou les k meilleures (numéros sur deux octets)."""
    from atelier.text import byte_size

    rows = [["toutes", byte_size(vocabulary * tokens * 2)]]
    rows += [[f"les {k} meilleures, et leurs numéros", byte_size(k * tokens * 4)] for k in sizes]
    table(rows, header=["ce que l'on garde", "poids"], caption=f"Pour {number(tokens)} jetons")


def own_sentences_table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Ce qu'un élève écrit, vu par Colibri. found : façon → « divergence », « perte de Colibri », « entropie » et
    « perplexité », une par graine ; « départ » : l'élève d'avant."""
    start, seeds = found["départ"][0], max(map(len, found.values()))
    rows = []
    for way, runs in found.items():
        keys = ("divergence", "perte de Colibri", "entropie")
        cells: list[Any] = [number(mean(r[key] for r in runs), decimals=2) for key in keys]
        gap = "—"
        if len(runs) >= 5:
            change = paired([r["divergence"] for r in runs], [start["divergence"]] * len(runs))
            mean_of, low, high = (number(v, decimals=2) for v in (change.mean, change.low, change.high))
            gap = f"{mean_of} [{low} ; {high}]"
        rows.append([way, *cells, number(mean(r["perplexité"] for r in runs), 3), gap])
    table(
        rows,
        header=[
            "il apprend sur…",
            "divergence à Colibri (nats)",
            "perte de Colibri (nats)",
            "entropie (nats)",
            "perplexité, vrai texte",
            "divergence, face au départ [95 %]",
        ],
        caption=f"Ce qu'écrit l'élève, jugé par Colibri ; {number(seeds)} graine{'s' * (seeds > 1)}",
    )


def kept_table(
    found: Mapping[str, Sequence[Notes]],
    authors: Mapping[str, Sequence[Notes]] | None,
    whole: Sequence[Notes],
) -> None:
    """Les notes d'élèves à qui l'on n'a gardé que quelques probabilités, à côté de ceux qui ont tout reçu (`whole`)."""
    everything = {"toutes les probabilités": whole}
    ours = found if authors is None else {**everything, **authors}
    notes_table(found, ours, "toutes les probabilités", "Ce que l'on garde de l'enseignant, par jeton")


def rest_verdict(found: Mapping[str, Sequence[Notes]]) -> str:
    """Ce que devient l'élève à qui l'on cache le reste : « aussi bon », « moins bon » ou « meilleur »."""
    own, other = ([log(n["perplexité"]) for n in found.get(f"4, {way}", ())] for way in ("renormalisés", "et le reste"))
    if len(own) != len(other) or len(own) < 5 or not (gap := paired(own, other)).told_apart:
        return "aussi bon"
    return "moins bon" if gap.mean > 0 else "meilleur"
