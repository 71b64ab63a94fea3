"""Comparer deux modèles part à part : l'écart moyen, et l'intervalle où il se tient.

Deux modèles lisent les mêmes parts d'un texte, ou partent des mêmes graines : on regarde les écarts, part à part, et
non deux moyennes. Quand l'intervalle contient zéro, on ne peut pas les départager.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from atelier.text import number, typeset

EXACT = 14
"""Jusqu'à ce nombre de valeurs, tous les sous-ensembles sont vus ; au-delà, 2 puissance 14 tirés au sort."""


@dataclass(frozen=True)
class Gap:
    """Un écart moyen et son intervalle à 95 %."""

    mean: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Faux si l'intervalle contient zéro."""
        return self.low > 0 or self.high < 0

    def as_ratio(self) -> str:
        """Un écart de pertes, dit en rapport de perplexités : « × 1,180 [1,151 ; 1,212] »."""
        size = math.exp(self.mean)
        decimals = 3 if size < 2 else 2 if size < 10 else 1 if size < 100 else 0
        mean, low, high = (number(math.exp(v), decimals=decimals) for v in (self.mean, self.low, self.high))
        return typeset(f"× {mean} [{low} ; {high}]")


def perplexity_of(losses: Sequence[float]) -> float:
    """La perplexité d'un modèle dont voici la perte, en nats par jeton, sur des parts égales d'un extrait."""
    return math.exp(sum(losses) / len(losses))


def paired(a: Sequence[float], b: Sequence[float]) -> Gap:
    """L'écart moyen a − b, et son intervalle à 95 %, par permutation.

    a, b : les valeurs des deux, part à part ou graine à graine, dans le même ordre, cinq au moins.
    Si les écarts sont symétriques autour de leur vraie moyenne, les moyennes de tous leurs sous-ensembles coupent la
    droite en intervalles où elle a autant de chances d'être (Hartigan, « Using Subsample Values as Typical Values »,
    JASA, 1969) : on garde ceux du milieu. Avec cinq valeurs, l'intervalle ne peut être qu'à 93,75 %.
    Lève `ValueError` si les deux suites n'ont pas la même longueur, ou en ont moins de cinq.
    """
    if len(a) != len(b) or len(a) < 5:
        raise ValueError(f"il faut deux suites appariées d'au moins cinq valeurs, pas {len(a)} et {len(b)}.")
    gaps = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
    if len(gaps) <= EXACT:
        taken = torch.arange(1, 2 ** len(gaps))[:, None] >> torch.arange(len(gaps)) & 1
    else:
        taken = torch.randint(2, (2**EXACT, len(gaps)), generator=torch.Generator().manual_seed(0))
        taken = taken[taken.any(1)]
    means = ((taken * gaps).sum(1) / taken.sum(1)).sort().values.tolist()
    outside = max(1, int(0.025 * (len(means) + 1)))
    return Gap(gaps.mean().item(), means[outside - 1], means[-outside])
