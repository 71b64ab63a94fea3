"""Chapitre 6 : comparer deux façons de répondre aux mêmes questions, graine par graine, et question par question."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from atelier.evidence import Gap, paired
from atelier.text import number


class Both(NamedTuple):
    """L'écart de deux justesses, et ses deux intervalles : d'autres textes appris, d'autres questions."""

    by_seed: Gap
    by_item: Gap

    @property
    def told_apart(self) -> bool:
        """Vrai si les deux intervalles excluent zéro."""
        return self.by_seed.told_apart and self.by_item.told_apart


def gaps(one: Tensor, other: Tensor) -> Both | None:
    """L'écart de justesse un − autre ; None s'il y a moins de cinq graines.

    one, other : (graines, questions), 1 pour une réponse juste, 0 pour une fausse ; une façon sans graine a une ligne.
    """
    seeds = max(len(one), len(other))
    if seeds < 5:
        return None
    one, other = (right.float().expand(seeds, -1) for right in (one, other))
    by_seed = paired(one.mean(1).tolist(), other.mean(1).tolist())
    return Both(by_seed, paired(one.mean(0).tolist(), other.mean(0).tolist()))


def points(right: Tensor) -> float:
    """Bonnes réponses, en pour cent."""
    return 100 * right.float().mean().item()


def said(gap: Gap) -> str:
    """Un écart de justesse en points : « +6,2 [2,0 ; 9,9] »."""
    mean, low, high = (number(100 * v, decimals=1) for v in (gap.mean, gap.low, gap.high))
    return f"{'+' if gap.mean > 0 else ''}{mean} [{low} ; {high}]"


def verdict(both: Both | None) -> str:
    """« oui » si les deux intervalles excluent zéro."""
    return "—" if both is None else "oui" if both.told_apart else "non"
