"""Chapitre 9 : têtes partagées, fenêtres, rangs tournés."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from statistics import mean
from typing import Any

from atelier.display import note, show, table
from atelier.evidence import perplexity_of
from atelier.figures.ch9.runs import FEW, seed_gap
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.text import byte_size, interval, number, spread

Measured = Mapping[str, Any]


def recovered_gap(measured: Measured, count: int) -> Any:
    """L'écart entre `count` têtes, reprises, et Colibri tel quel, graine à graine ; None avec moins de cinq graines."""
    runs = [mean(losses) for losses in measured["après"][count]]
    whole = mean(measured["avant"][max(measured["avant"])])
    return seed_gap({"après": runs, "tel quel": [whole] * len(runs)}, "après", "tel quel")


def pooled_table(measured: Measured) -> None:
    """Cache et perplexité selon le nombre de têtes de clés. « octets », « avant », « après » : têtes → …"""
    before, after = measured["avant"], measured["après"]
    rows = []
    for count in before:
        row = [str(count), byte_size(measured["octets"][count]), number(perplexity_of(before[count]), 4), "—", "—"]
        if count in after:
            gap = recovered_gap(measured, count)
            row[3:] = [
                number(perplexity_of([mean(losses) for losses in after[count]]), 4),
                gap.as_ratio() if gap else "—",
            ]
        rows.append(row)
    table(
        rows,
        header=[
            "têtes de clés",
            "cache de 256 jetons",
            "perplexité avant",
            "après reprise",
            "rapport à Colibri [intervalle]",
        ],
        caption=f"Colibri, {number(measured['pas'])} pas de reprise, {number(measured['jetons'])} jetons évalués",
    )
    if len(next(iter(after.values()))) < 5:
        note(FEW)


def times_worse(measured: Measured) -> float:
    """De combien la perplexité est multipliée, avant reprise, avec une seule tête de clés."""
    before = measured["avant"]
    return exp(mean(before[min(before)]) - mean(before[max(before)]))


def plot_windows(measured: Measured) -> None:
    """Perplexité contre portée. pertes : (portée, premiers jetons gardés) → pertes, part à part."""
    found = measured["pertes"]
    anchors = sorted({first for _, first in found})
    fig, ax = canvas(7, 3.4)
    told = []
    for first, look in zip(anchors, SERIES, strict=False):
        line = sorted((reach, perplexity_of(losses)) for (reach, kept), losses in found.items() if kept == first)
        name = f"les derniers, et les {first} premiers" if first else "les derniers seulement"
        ax.plot(*zip(*line, strict=True), label=name, **look)
        told.append(f"{name} : " + ", ".join(f"{reach} jetons, {number(value, 3)}" for reach, value in line))
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_yticks([level for level in (10, 15, 20, 30, 40, 60, 80, 120) if level < 1.2 * max(ax.get_ylim())])
    ax.minorticks_off()
    ax.set_xlabel("derniers jetons vus, au plus (échelle logarithmique)")
    ax.set_ylabel("perplexité (échelle logarithmique)")
    ax.legend(frameon=False)
    french(ax)
    show(
        fig,
        alt=f"Perplexité de Colibri contre portée de l'attention ({number(measured['jetons'])} jetons). "
        f"{' ; '.join(told)}.",
    )


def plot_scores(found: Mapping[str, Any]) -> None:
    """Le score d'une requête et d'une clé contre leur distance. scores : rang de la clé → un score par distance."""
    fig, ax = canvas(7, 3)
    for (place, scores), look in zip(found["scores"].items(), SERIES, strict=False):
        ax.plot(found["distances"], scores, label=f"clé au rang {place}", lw=1.5, ms=3, **look)
    ax.set_xlabel("distance (rangs)")
    ax.set_ylabel("score, en parts du plus grand")
    ax.legend(frameon=False)
    french(ax)
    widest = max(max(column) - min(column) for column in zip(*found["scores"].values(), strict=True))
    first = next(iter(found["scores"].values()))
    show(
        fig,
        alt=f"Le score vaut 1 à distance nulle, puis oscille et descend ({interval(min(first), max(first), 3)}). D'une "
        f"place à l'autre, l'écart est d'au plus {number(widest, 2)}.",
    )


def spans(losses: Sequence[float], learned: int = 64) -> dict[str, float]:
    """La perte moyenne d'une graine, par tranches de rangs. losses : rang − 1 → perte."""
    edges = {"13 à 64": (12, learned), "65 à 96": (learned, 96), "97 à 128": (96, 128), "193 à 256": (192, 256)}
    return {name: mean(losses[low - 1 : high - 1]) for name, (low, high) in edges.items()}


def plot_ranks(measured: Measured) -> None:
    """Perte contre rang. pertes : façon → une courbe par graine."""
    fig, ax = canvas(7.4, 3.6)
    rows, told = [], []
    for (way, runs), look in zip(measured["pertes"].items(), SERIES, strict=False):
        curve = [mean(values) for values in zip(*runs, strict=True)]
        name = {"table": "table de rangs", "rien": "ni l'un ni l'autre"}.get(way, way)
        ax.plot(range(2, len(curve) + 2), curve, label=name, color=look["color"], linestyle=look["linestyle"], lw=1.6)
        parts = [spans(run) for run in runs]
        rows.append([name, *(spread([part[span] for part in parts], 3) for span in parts[0])])
        told.append(f"{name} : " + ", ".join(f"{number(mean(p[s] for p in parts), 3)} ({s})" for s in parts[0]))
    ax.axvline(64, color=BLACK, lw=1, ls=":")
    ax.text(66, ax.get_ylim()[1], "appris jusqu'ici", va="top", fontsize=9)
    ax.axhline(log(32), color=BLACK, lw=0.8, ls="--")
    ax.text(256, log(32), "au hasard", va="bottom", ha="right", fontsize=9)
    ax.set_xlabel("rang du symbole prédit")
    ax.set_ylabel("perte (nats par symbole)")
    ax.legend(frameon=False)
    french(ax)
    show(fig, alt=f"Perte moyenne contre rang. {' ; '.join(told)}.")
    table(
        rows,
        header=["rangs", *(f"perte, rangs {span}" for span in spans([0.0] * 255))],
        caption=f"Moyenne (étendue) des graines, en nats ; {number(measured['pas'])} pas d'apprentissage",
    )
    if len(next(iter(measured["pertes"].values()))) < 5:
        note(FEW)


def far_ranks(measured: Measured) -> str:
    """Le verdict du pari : chez qui la perte monte, du 65e au 96e rang, et chez qui le plus."""
    told = {way: [spans(run) for run in runs] for way, runs in measured["pertes"].items()}
    rises = {way: mean(p["65 à 96"] - p["13 à 64"] for p in parts) for way, parts in told.items()}
    if rises["RoPE"] <= 0.05 < rises["table"]:
        return "elle ne monte qu'avec la table"
    return f"elle monte chez les deux, plus avec {'la table' if rises['table'] > rises['RoPE'] else 'RoPE'}"
