"""Chapitre 8 : des leçons jugées graine par graine, ici et chez l'auteur, et le tableau qui les compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from atelier.display import note, table
from atelier.evidence import Gap, paired, perplexity_of
from atelier.text import number, setting, spread

Parts = Sequence[float]
"""La perte d'un modèle, en nats par jeton, sur des parts égales d'un extrait."""
Runs = Mapping[str, Sequence[Parts]]
"""Méthode → pour chaque graine, ses parts."""


def perplexities(runs: Sequence[Parts]) -> list[float]:
    """Une perplexité par graine."""
    return [perplexity_of(parts) for parts in runs]


def seed_gap(one: Sequence[Parts], other: Sequence[Parts]) -> Gap | None:
    """L'écart de log-perplexité, graine par graine : un − autre ; None à moins de cinq graines."""
    if len(one) != len(other) or len(one) < 5:
        return None
    return paired([mean(parts) for parts in one], [mean(parts) for parts in other])


def gap_cell(gap: Gap | None) -> str:
    """« × 1,03 [1,01 ; 1,05] », ou un tiret."""
    return "—" if gap is None else gap.as_ratio()


def runs_table(
    here: Runs,
    author: Runs | None,
    against: str,
    caption: str,
    first: str = "méthode",
    more: Mapping[str, Sequence[Any]] | None = None,
    more_header: Sequence[str] = (),
) -> None:
    """Perplexités, moyenne et étendue des graines. more : méthode → cellules de plus, après le nom.

    La dernière colonne compare, graine par graine, les résultats de l'auteur à ceux de `against`.
    """
    kept = author or here
    rows = []
    for name, runs in kept.items():
        mine = number(mean(perplexities(here[name])), 4) if name in here and here is not author else "—"
        gap = None if name == against else seed_gap(runs, kept.get(against, ()))
        rows.append([name, *(more or {}).get(name, ()), mine, spread(perplexities(runs), 4), gap_cell(gap)])
    seeds = max(len(runs) for runs in kept.values())
    whose = f"auteur, {number(seeds)} graines" if author is not None else "ici"
    table(
        rows,
        header=[first, *more_header, "ici", whose, f"face à : {against} [95 %]"],
        caption=caption,
    )


def rates_table(found: Mapping[tuple[str, float], float]) -> None:
    """Perplexité sur le texte de réglage, un taux par colonne de rang. found : (méthode, taux) → perplexité."""
    names = list(dict.fromkeys(name for name, _ in found))
    widest = max(sum(1 for n, _ in found if n == name) for name in names)
    rows = []
    for name in names:
        tried = {lr: value for (n, lr), value in found.items() if n == name}
        best = min(tried, key=lambda lr: tried[lr])
        cells = [f"{setting(lr)} : {number(value, decimals=1)}" for lr, value in sorted(tried.items())]
        inside = "" if min(tried) < best < max(tried) or len(tried) == 1 else ", au bord"
        rows.append([name, *cells, *["—"] * (widest - len(cells)), setting(best) + inside])
    header = ["méthode", *(f"essai {k + 1}" for k in range(widest)), "le meilleur taux"]
    table(rows, header=header, caption="Taux : perplexité sur le texte de réglage, une graine à part")


def best_rate_of(found: Mapping[tuple[str, float], float], name: str) -> tuple[float, bool]:
    """Le meilleur taux d'une méthode, et s'il est à l'intérieur de sa grille."""
    tried = {lr: value for (n, lr), value in found.items() if n == name}
    best = min(tried, key=lambda lr: tried[lr])
    return best, min(tried) < best < max(tried)


def voices_note(found: Mapping[str, Any]) -> None:
    """Les deux perplexités de départ. found : « jetons », « A » et « B » (parts)."""
    a, b = (number(perplexity_of(found[text]), 3) for text in ("A", "B"))
    note(f"Perplexité de Colibri, sur {number(found['jetons'])} jetons : {a} sur l'administration (A), {b} sur la "
         "fantasy (B).")  # fmt: skip


def lesson_note(found: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Ce qu'une leçon de LoRA a changé. found : « apprennent », « en tout », « écart », « B », « A »."""
    table(
        [
            [text, perplexity_of(before[key]), perplexity_of(found[key])]
            for key, text in (("B", "la fantasy (B)"), ("A", "l'administration (A)"))
        ],
        header=["perplexité sur…", "Colibri", "avec votre LoRA"],
        caption=f"{number(found['apprennent'])} nombres ont appris, sur {number(found['en tout'])}",
    )
    note(f"Avant le premier pas, le plus grand écart de logits avec la base : {number(found['écart'], 2)}.")
