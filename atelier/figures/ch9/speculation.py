"""Chapitre 9 : le décodage spéculatif, ce qui est gardé, la loi, les durées."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median, quantiles
from typing import Any

from atelier.display import note, table
from atelier.hardware import machine
from atelier.text import interval, number, percent, spread

Kept = Mapping[tuple[str, int, int], Mapping[str, Any]]
"""(brouillon, K, graine) → par début : « pareil », un booléen ; « gardés », les jetons gardés à chaque tour."""


def rounds_of(row: Mapping[str, Any]) -> list[int]:
    """Tous les tours, d'un début à l'autre."""
    return [count for rounds in row["gardés"] for count in rounds]


def accepted(row: Mapping[str, Any], ahead: int) -> float:
    """La part de jetons proposés que la cible garde."""
    return mean(rounds_of(row)) / ahead


def written(row: Mapping[str, Any]) -> float:
    """Jetons écrits par lecture de la cible : ceux qu'elle garde, et le sien."""
    return 1 + mean(rounds_of(row))


def by_draft(found: Kept) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """(brouillon, K) → un résultat par graine."""
    told: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for (name, ahead, _), row in found.items():
        told.setdefault((name, ahead), []).append(row)
    return told


def kept_table(found: Kept) -> None:
    """Une ligne par brouillon et par longueur de proposition."""
    rows = []
    for (name, ahead), runs in by_draft(found).items():
        same = [s for row in runs for s in row["pareil"]]
        rows.append(
            [
                name,
                ahead,
                spread([100 * accepted(row, ahead) for row in runs], 3, unit="%"),
                spread([written(row) for row in runs], 3),
                f"{sum(same)} sur {len(same)}",
            ]
        )
    seeds = len(next(iter(by_draft(found).values())))
    table(
        rows,
        header=["brouillon", "K proposés", "part gardée", "jetons par lecture de la cible", "textes identiques"],
        caption=f"Colibri, choix le plus probable, {number(seeds)} graine{'s' * (seeds > 1)} : moyenne (étendue)",
    )


def same_text(found: Kept) -> str:
    """Le verdict du pari."""
    return "est le même, jeton pour jeton" if all(all(r["pareil"]) for r in found.values()) else "diffère par endroits"


def laws_table(found: Mapping[str, Any]) -> None:
    """Les écarts à la loi de la cible, en variation totale. found : « commun », « tirages », « graines »."""
    runs: Sequence[Mapping[str, float]] = found["graines"]
    table(
        [
            [name, spread([run[name] for run in runs], 3)]
            for name in ("spéculatif", "tirages directs", "brouillon seul")
        ],
        header=["ce que l'on écrit", "écart à la loi de la cible, de 0 à 1"],
        caption=f"Variation totale, {number(found['tirages'])} tirages par graine",
    )
    kept = mean(run["gardés"] for run in runs)
    note(
        f"Part gardée : {percent(kept, 3)} ; attendue, la masse commune aux deux lois : {percent(found['commun'], 3)}."
    )


def expected_tokens(alpha: float, ahead: int) -> float:
    """Jetons par tour, si chacun est gardé avec la même chance (Leviathan et al., 2023, équation 1)."""
    return ahead + 1 if alpha >= 1 else (1 - alpha ** (ahead + 1)) / (1 - alpha)


def _share(kept: Sequence[int], ahead: int) -> float:
    """La chance qu'un jeton lu par la cible soit gardé : les gardés, sur ceux qui ont été jugés."""
    judged = sum(min(count + 1, ahead) for count in kept)
    return sum(kept) / judged


def tell_times(found: Mapping[str, Any]) -> None:
    """Les durées, tour à tour, le gain attendu à côté du gain mesuré, et une phrase qui dit lequel des deux gagne."""
    seconds, ahead, kept = found["secondes"], found["avance"], found["gardés"]
    middle = {name: median(times) for name, times in seconds.items()}
    rows = []
    for name, times in seconds.items():
        low, _, high = quantiles([1000 * value for value in times], n=4, method="inclusive")
        rows.append([name, number(1000 * middle[name], 3, unit="ms"), interval(low, high, 3)])
    table(
        rows,
        header=["calcul", "durée médiane", "quartiles (ms)"],
        caption=f"{machine()} ; un seul fil, {number(len(seconds['seule']))} tours ; les lectures, par dix",
    )
    cost = middle["brouillon, 1 jeton"] / middle["cible, 1 jeton"]
    alpha = _share(kept, ahead)
    gains = [a / b for a, b in zip(seconds["seule"], seconds["à deux"], strict=True)]
    expected = expected_tokens(alpha, ahead) / (1 + ahead * cost)
    measured = median(gains)
    low, _, high = quantiles(gains, n=4, method="inclusive")
    verdict = (
        "le décodage spéculatif gagne" if measured > 1.05 else "il perd" if measured < 0.95 else "ni gain, ni perte"
    )
    note(
        f"Ici, c = {number(cost, 2)} et α = {number(alpha, 2)} : avec K = {ahead}, un gain attendu de "
        f"{number(expected, 3, before='×')} ; mesuré, {number(measured, 3, before='×')} (quartiles : {number(low, 3)} "
        f"et {number(high, 3)}) : {verdict}. Lire {ahead + 1} jetons coûte à la cible "
        f"{number(middle['cible, plusieurs'] / middle['cible, 1 jeton'], 3)} fois ce que coûte d'en lire un."
    )
    rates = (0.5, 0.7, 0.9)
    table(
        [
            [
                f"c = {number(c, 2)}",
                *(number(max(expected_tokens(a, k) / (1 + k * c) for k in range(1, 9)), 3, before="×") for a in rates),
            ]
            for c in (0.02, 0.1, 0.3, 0.6)
        ],
        header=["coût du brouillon", *(f"α = {number(a, 2)}" for a in rates)],
        caption="Gain attendu par la formule, au meilleur K de 1 à 8 (un calcul, non une mesure)",
    )
