"""Chapitre 2, quatrième partie : lire la petite étude d'échelle, ajuster sa loi, lui ajouter un point."""

from __future__ import annotations

import math
import statistics
from typing import Any

import torch

from atelier.display import note, recorded, show, table
from atelier.figures.ch2.counts import flops_text
from atelier.figures.ch2.study import VALIDATION_TOKENS, Point, learning_rate, train_point
from atelier.figures.common.style import BLACK, BLUE, RED, SERIES, canvas, french
from atelier.hardware import scale
from atelier.measures import load_measures
from atelier.text import NBSP, long_date, number
from atelier.training import corpus_tokens

CHAPTER = "ch2_flops_6nd"
BUDGETS = ("c1", "c2", "c3")

Record = dict[str, Any]


def _curves() -> tuple[dict[str, Any], dict[str, list[Record]]]:
    """Les mesures enregistrées, et les points de chaque budget mesuré, rangés par taille."""
    measures = load_measures(CHAPTER)
    return measures, {name: sorted(measures[name], key=lambda p: p["params"]) for name in BUDGETS if measures.get(name)}


def _nominal(points: list[Record]) -> float:
    """Le budget d'une courbe : celui que ses points ont dépensé, à l'arrondi d'un pas près."""
    return statistics.median(p["flops"] for p in points)


def _best(points: list[Record]) -> Record:
    return min(points, key=lambda p: p["loss"])


def _is_inside(points: list[Record]) -> bool:
    """La courbe a-t-elle un creux, et non un bord pour meilleur point ?"""
    return points[0] is not _best(points) is not points[-1]


def _valley(points: list[Record]) -> float:
    """La taille du creux : sommet de la parabole, en log N, par le meilleur point et ses deux voisins."""
    at = points.index(_best(points))
    (x0, y0), (x1, y1), (x2, y2) = [(math.log(p["params"]), p["loss"]) for p in points[at - 1 : at + 2]]
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = (right - left) / ((x2 - x0) / 2)
    return math.exp((x0 + x1) / 2 - left / curvature)


def _axes(curves: dict[str, list[Record]]) -> tuple[Any, Any]:
    fig, ax = canvas(8.6, 4.2)
    for points, look in zip(curves.values(), SERIES, strict=False):
        ax.plot(
            [p["params"] for p in points], [p["loss"] for p in points], lw=1.6, ms=6,
            label=flops_text(_nominal(points)), **look,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlabel("N, paramètres, table des jetons comprise (échelle logarithmique)")
    ax.set_ylabel("perte de validation (nats par jeton)")
    french(ax)
    return fig, ax


def isoflop_curves() -> None:
    """Perte contre taille, à trois budgets : les courbes, leur creux, et ce que vaut un écart entre graines."""
    measures, curves = _curves()
    fig, ax = _axes(curves)
    rows, told = [], []
    for points, look in zip(curves.values(), SERIES, strict=False):
        best, budget = _best(points), flops_text(_nominal(points))
        ax.plot([best["params"]], [best["loss"]], "o", mfc="none", mec=BLACK, ms=13, mew=1.4)
        inside = _is_inside(points)
        valley = _valley(points) if inside else None
        if valley:
            ax.axvline(valley, color=look["color"], lw=0.9, ls=":")
        rows.append(
            [budget, len(points), number(best["params"]), number(best["tokens"]),
             number(best["tokens"] / best["params"], 3), number(best["loss"], 4),
             number(round(valley, -3)) if valley else "pas de creux"]
        )  # fmt: skip
        told.append(
            f"à {budget}{NBSP}: "
            + ", ".join(f"{number(p['loss'], 3)} pour {number(p['params'])} paramètres" for p in points)
        )
    ax.legend(title="budget", frameon=False, fontsize=9)
    show(fig, alt=f"Perte selon la taille, à budget constant{NBSP}; {f'{NBSP}; '.join(told)}.")
    table(
        rows,
        header=["budget", "tailles", "meilleure taille", "jetons lus", "jetons par paramètre", "perte", "creux estimé"],
        caption="Le meilleur point de chaque budget. Creux : parabole par ce point et ses deux voisins, en log N",
    )
    note(_recipe_text(measures) + " " + _seed_text(measures, curves["c1"]))


def _recipe_text(measures: dict[str, Any]) -> str:
    recipe = measures["recette"]
    return (
        f"Mesuré par l'auteur le {long_date(measures['date'])} ({measures['machine']}). "
        f"Texte{NBSP}: {recipe['texte']}. Lot{NBSP}: {recipe['lot']}. Perte{NBSP}: {recipe['validation']}."
    )


def _seed_text(measures: dict[str, Any], points: list[Record]) -> str:
    """L'écart entre graines, au plus petit budget."""
    spreads = []
    for first in points:
        others = [p for p in measures.get("graines", []) if p["params"] == first["params"]]
        if others:
            losses = [first["loss"], *(p["loss"] for p in others)]
            spreads.append((max(losses) - min(losses), len(losses)))
    if not spreads:
        return ""
    widest, seeds = max(spreads)
    return (
        f"Une graine par point{NBSP}; au plus petit budget, {seeds} graines sur {len(spreads)} tailles s'écartent "
        f"d'au plus "
        f"{number(widest, 2, unit='nat')}."
    )


@recorded("ch2/power_law", needs=("fit",))
def power_law(fit: Any) -> None:
    """La loi de l'étudiant par le meilleur point de chaque budget, et ce qu'elle prédit pour des points qu'elle n'a pas
    vus : le plus grand budget d'abord tenu à l'écart, puis Colibri."""
    measures, curves = _curves()
    bests = [_best(points) for points in curves.values()]
    compute = torch.tensor([p["flops"] for p in bests], dtype=torch.float64)
    loss = torch.tensor([p["loss"] for p in bests], dtype=torch.float64)
    before, after = fit(compute[:-1], loss[:-1]), fit(compute, loss)
    labels = [f"meilleur à {flops_text(p['flops'])}" for p in bests]
    predicted = [(f"{labels[-1]}, tenu à l'écart", bests[-1], before)]
    predicted += [
        (label, _best(measures[name]), after)
        for name, label in (("plus_loin", "budget plus grand"), ("colibri", "Colibri, autre recette"))
        if name in measures
    ]
    fig, ax = canvas(8.4, 4.0)
    reach = [compute.min().item() / 2, 2 * max(p["flops"] for _, p, _ in predicted)]
    line = [reach[0] * (reach[1] / reach[0]) ** (i / 50) for i in range(51)]
    for (a, b), label, look in (
        (before, f"loi ajustée sur {len(bests) - 1} budgets", {"color": BLUE, "ls": ":", "lw": 2.4}),
        (after, f"loi ajustée sur {len(bests)} budgets", {"color": RED, "ls": "-", "lw": 1.4}),
    ):
        ax.plot(line, [a * c**-b for c in line], label=label, **look)
    for points, style in zip(curves.values(), SERIES, strict=False):
        plain: dict[str, Any] = style | {"linestyle": ""}
        ax.plot([p["flops"] for p in points], [p["loss"] for p in points], alpha=0.35, ms=5, **plain)
    ax.plot(compute.tolist(), loss.tolist(), "o", color=BLACK, ms=7, label="meilleur de chaque budget")
    for (name, point, _), marker in zip(predicted[1:], ("D", "*"), strict=False):
        ax.plot([point["flops"]], [point["loss"]], marker, mfc="white", mec=BLACK, ms=10, ls="", label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_yticks([2, 3, 4, 5, 6, 7])
    ax.set_xlabel("C, opérations comptées (échelle logarithmique)")
    ax.set_ylabel("perte (nats par jeton)")
    french(ax, x=False)
    ax.legend(frameon=False, fontsize=8.5, loc="lower left")
    rows = [_law_row(f"{label}, loi ajustée", point, after) for label, point in zip(labels, bests, strict=True)] + [
        _law_row(*known) for known in predicted
    ]
    told = f"{NBSP}; ".join(f"{r[0]}{NBSP}: {r[4]} mesuré, {r[5]} par la loi" for r in rows)
    law = f"perte ≈ {number(after[0], 4)}·C^(−{number(after[1], 3)})"
    show(fig, alt=f"Perte selon le calcul, axes logarithmiques, et la droite {law}. {told}.")
    table(
        rows,
        header=["point", "C", "N", "D", "perte mesurée", "selon votre loi", "mesurée − loi"],
        caption=f"{law} sur {len(bests)} budgets. Pour le point tenu à l'écart, la loi n'a vu que les autres",
    )
    _sizes_law(fit, curves)


def _law_row(name: str, point: Record, law: tuple[float, float]) -> list[str]:
    """Une ligne du tableau : un point, sa perte, ce que la loi en dit."""
    expected = law[0] * point["flops"] ** -law[1]
    return [
        name, flops_text(point["flops"]), number(point["params"]), number(point["tokens"]), number(point["loss"], 4),
        number(expected, 4), number(point["loss"] - expected, decimals=3, signed=True),
    ]  # fmt: skip


def _sizes_law(fit: Any, curves: dict[str, list[Record]]) -> None:
    """La même fonction, sur la taille du creux : avec quel exposant grandit-elle ?"""
    valleys = {_nominal(points): _valley(points) for points in curves.values() if _is_inside(points)}
    if len(valleys) < 2:
        note("Moins de deux de ces courbes ont un creux : rien à dire de la façon dont la bonne taille grandit.")
        return
    budgets = torch.tensor(list(valleys), dtype=torch.float64)
    _, b = fit(budgets, torch.tensor(list(valleys.values()), dtype=torch.float64))
    note(
        f"La taille du creux, elle, grandit comme C^{number(-b, 2)} sur nos {len(valleys)} budgets (votre fonction "
        f"encore, sur "
        f"les creux{NBSP}; b y est négatif). Hoffmann et al. (2022, tableau 2) trouvent des exposants de 0,46 à "
        f"0,50, Kaplan "
        "et al. (2020) 0,73."
    )


def one_more_point(n_layer: int, d_model: int, compute: float, seed: int = 0) -> None:
    """Entraîne un modèle de plus au plus petit budget, sur l'extrait livré, et le pose parmi les points enregistrés.

    n_layer, d_model : sa taille (d_model multiple de 8) ; compute : budget, en opérations.
    """
    tokens = scale().pick(essai=1024, cpu=VALIDATION_TOKENS, gpu=VALIDATION_TOKENS)
    ids = corpus_tokens("a_train")
    point = train_point(n_layer, d_model, compute, ids, learning_rate(d_model), seed, tokens)
    measures, curves = _curves()
    same_text = sorted(measures.get("extrait", []), key=lambda p: p["params"])
    fig, ax = _axes(curves)
    ax.plot(
        [p["params"] for p in same_text], [p["loss"] for p in same_text], color=BLACK, marker="o", mfc="white", lw=1.1,
        ls=":", label=f"{flops_text(_nominal(curves['c1']))}, extrait livré",
    )  # fmt: skip
    ax.plot([point.params], [point.loss], "*", color=BLACK, ms=17, label="votre point")
    ax.legend(title="budget", frameon=False, fontsize=9)
    where = _where_expected(same_text, point)
    show(
        fig,
        alt=f"Les courbes à budget constant, et votre point{NBSP}: {number(point.params)} paramètres, "
        f"{number(point.loss, 4, unit='nats')}. {where}",
    )
    note(
        f"{number(point.params)} paramètres, {number(point.steps)} pas, {number(point.tokens)} jetons, "
        f"{flops_text(point.flops)}, {number(point.seconds, 3)} s{NBSP}: perte de {number(point.loss, 4)} nats par "
        f"jeton. {where}"
    )


def _where_expected(points: list[Record], point: Point) -> str:
    """Ce que les points enregistrés sur le même texte laissaient attendre de celui-ci."""
    expected = _between(points, point.params)
    if not points or not 0.9 < point.flops / _nominal(points) < 1.1:
        return "Votre point n'est pas au budget de ces points enregistrés."
    if expected is None:
        return "Cette taille est hors des points enregistrés sur l'extrait."
    return (
        f"Les points enregistrés sur le même texte laissaient attendre {number(expected, 4)} à cette taille{NBSP}: "
        f"écart de {number(point.loss - expected, decimals=3, signed=True)}."
    )


def _between(points: list[Record], params: int) -> float | None:
    """La courbe entre deux tailles voisines, en ligne droite selon log N ; None au-delà des bords."""
    for low, high in zip(points, points[1:], strict=False):
        if low["params"] <= params <= high["params"]:
            share = math.log(params / low["params"]) / math.log(high["params"] / low["params"])
            return low["loss"] + share * (high["loss"] - low["loss"])
    return None
