"""Chapitre 9 : des recettes, graine par graine ; des taux essayés. Partagé par toutes les sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atelier.display import note, table
from atelier.evidence import Gap, paired
from atelier.text import number, spread

KINDS = {
    "perplexités": "Perplexité sur l'extrait « a_test »",
    "pertes": "Perte sur l'extrait « a_test », en nats",
    "scores": "Score, sur des images de réglage",
}
"""Ce que mesure un essai de taux, et sur quoi."""
FEW = "Avec une graine, rien n'est départagé : les phrases qui suivent viennent de cinq graines, appariées."


def best_rate(tried: Mapping[float, float], highest: bool = False) -> float:
    """Le taux de plus petite valeur (perte ou perplexité), ou de plus grande (score)."""
    return (max if highest else min)(tried, key=tried.__getitem__)


def by_recipe(found: Mapping[tuple[Any, float], float]) -> dict[Any, dict[float, float]]:
    """(recette, taux) → valeur, rangé recette par recette."""
    told: dict[Any, dict[float, float]] = {}
    for (recipe, rate), value in found.items():
        told.setdefault(recipe, {})[rate] = value
    return told


def rates_table(measured: Mapping[str, Any], what: str, kind_said: str = "") -> None:
    """Une ligne par recette, une colonne par taux. (recette, taux) → valeur, sous l'un des noms de KINDS."""
    kind = next(name for name in KINDS if name in measured)
    found = by_recipe(measured[kind])
    rates = sorted({rate for tried in found.values() for rate in tried})
    several = len(rates) > 1
    rows = []
    for name, tried in found.items():
        told = [number(tried[rate], 4) if rate in tried else "—" for rate in rates]
        rows.append([str(name), *told, *([number(best_rate(tried, kind == "scores"), 2)] if several else [])])
    table(
        rows,
        header=[what, *(f"taux {number(rate, 2)}" for rate in rates), *(["le meilleur"] if several else [])],
        caption=f"{kind_said or KINDS[kind]}, une graine, {number(measured['pas'])} pas",
    )
    if not several:
        note("Un seul taux est essayé ici ; ceux qui suivent viennent de la grille que l'auteur a enregistrée.")


def seed_gap(runs: Mapping[Any, Sequence[float]], first: Any, second: Any) -> Gap | None:
    """L'écart de deux recettes, graine à graine ; None avec moins de cinq graines."""
    a, b = runs[first], runs[second]
    return paired(a, b) if len(a) == len(b) >= 5 else None


def told_gap(gap: Gap | None, decimals: int = 3) -> str:
    """« −0,120 [−0,140 ; −0,100] », ou un tiret."""
    if gap is None:
        return "—"
    mean, low, high = (number(v, decimals=decimals, signed=True) for v in (gap.mean, gap.low, gap.high))
    return f"{mean} [{low} ; {high}]"


def seeds_table(
    runs: Mapping[str, Sequence[float]],
    against: str,
    what: str,
    caption: str,
    extra: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Une ligne par recette : étendue des graines, écart apparié à `against`. extra : colonne → ses cellules."""
    rows = []
    for i, (name, values) in enumerate(runs.items()):
        gap = seed_gap(runs, name, against) if name != against and against in runs else None
        rows.append([name, spread(values), told_gap(gap), *(cells[i] for cells in (extra or {}).values())])
    table(
        rows, header=[what, "moyenne (étendue)", f"écart à « {against} » [intervalle]", *(extra or {})], caption=caption
    )
    if len(next(iter(runs.values()))) < 5:
        note(FEW)
