"""Chapitre 9 : appariements, préférences, légendes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from atelier.display import note, show, table
from atelier.figures.ch9.runs import FEW, seed_gap, seeds_table
from atelier.figures.common.style import SERIES, canvas, french
from atelier.text import number, percent, spread


def plot_matchings(found: Mapping[int, Sequence[Sequence[float]]]) -> None:
    """found : nombre de points → (distance gloutonne, distance optimale), scène par scène."""
    sizes = sorted(found)
    extra = {n: [100 * (greedy / best - 1) for greedy, best in found[n]] for n in sizes}
    worse = {n: mean(value > 1e-4 for value in extra[n]) for n in sizes}
    fig, ax = canvas(6.4, 3)
    ax.boxplot([extra[n] for n in sizes], tick_labels=[str(n) for n in sizes], showfliers=False)
    ax.plot(range(1, len(sizes) + 1), [mean(extra[n]) for n in sizes], **SERIES[1], label="moyenne")
    ax.set_xlabel("points à apparier")
    ax.set_ylabel("surcoût du glouton (%)")
    ax.legend(frameon=False)
    french(ax, x=False)
    show(
        fig,
        alt="Surcoût de l'appariement glouton, en pour cent de l'optimal. "
        + " ; ".join(
            f"{n} points : {number(mean(extra[n]), 3)} en moyenne, {percent(worse[n], 2)} des scènes" for n in sizes
        )
        + ".",
    )


def scores_table(measured: Mapping[str, Any]) -> None:
    """Un score F1 par appariement. scores : appariement → un score par graine."""
    seeds_table(
        measured["scores"],
        against="optimal",
        what="appariement",
        caption=f"Score F1 sur 200 scènes neuves, {number(measured['pas'])} pas ; chacun à son taux",
    )


def best_matching(measured: Mapping[str, Any]) -> str:
    """Le verdict du pari."""
    runs = measured["scores"]
    if "glouton" not in runs:
        return "l'optimal et le glouton, à égalité"  # ce que disent les cinq graines
    gaps = {way: seed_gap(runs, "optimal", way) for way in ("glouton", "aucun") if way in runs}
    told = {way: gap is None or gap.told_apart for way, gap in gaps.items()}
    if not any(told.values()):
        return "les trois, à égalité"
    return "l'optimal, seul" if told["glouton"] else "l'optimal et le glouton, à égalité"


def plot_best_of(measured: Mapping[str, Any]) -> None:
    """La note du juge contre n. notes : (qui choisit, n) → une note par graine."""
    found = measured["notes"]
    fig, ax = canvas(6.6, 3.2)
    told = []
    names = {"récompense": "choisie par le modèle de récompense", "juge": "choisie par le juge"}
    for (who, name), look in zip(names.items(), SERIES, strict=False):
        line = sorted((n, mean(values)) for (w, n), values in found.items() if w == who)
        ax.plot(*zip(*line, strict=True), label=name, **look)
        told.append(f"{name} : " + ", ".join(f"n = {n}, {number(value, 3)}" for n, value in line))
    ax.set_xscale("log", base=2)
    ax.set_xlabel("suites tirées, n (échelle logarithmique)")
    ax.set_ylabel("note du juge (lettres par mot)")
    ax.legend(frameon=False)
    french(ax)
    show(fig, alt=f"Note du juge contre le nombre de suites parmi lesquelles on choisit. {' ; '.join(told)}.")
    if len(next(iter(found.values()))) < 5:
        note(FEW)


def captions_table(measured: Mapping[str, Any]) -> None:
    """Mots justes, place par place. justes : (aveugle, sorte) → taille, forme, hauteur, côté, tout ; par graine."""
    rows = []
    for (blind, kind), runs in measured["justes"].items():
        columns = [[100 * v for v in values] for values in zip(*runs, strict=True)]
        name = f"{kind}, {'avec une autre image' if blind else 'avec leur image'}"
        rows.append([name, *(number(mean(column), decimals=0) for column in columns[:4]), spread(columns[4], 3)])
    table(
        rows,
        header=["descriptions", "taille", "forme", "hauteur", "côté", "légende entière (étendue)"],
        caption=f"Mots justes, en pour cent, sur 200 images neuves ; {number(measured['pas'])} pas d'apprentissage",
    )


def gained_share(measured: Mapping[str, Any], count: int = 16) -> float:
    """Ce que le modèle de récompense fait gagner au meilleur de `count`, en pour cent de ce que le juge y gagne."""
    found = measured["notes"]
    start = mean(found["juge", 1])
    return 100 * (mean(found["récompense", count]) - start) / (mean(found["juge", count]) - start)


def new_mixtures(measured: Mapping[str, Any]) -> float:
    """La réponse au pari : part de légendes entières justes, en pour cent, sur les descriptions jamais vues."""
    return 100 * mean(row[4] for row in measured["justes"][False, "jamais vues"])
