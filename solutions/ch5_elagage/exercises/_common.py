"""Ce que partagent les exercices du chapitre 5.

Règle des tirages : un nombre de poids à retirer reste à 0,1 au moins d'un demi ; deux importances qui décident d'un
masque diffèrent de 3 % au moins, même en demi-précision, sauf dans les cas d'égalité, où elles sont exactement égales.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atelier.judging.exercise import Draw


def distinct(d: Draw, *shapes: Sequence[int], scales: Sequence[float] = (1.0,)) -> list[Tensor]:
    """Des tenseurs de signes mêlés dont toutes les valeurs absolues s'écartent d'au moins 4 %.

    Une suite géométrique est distribuée d'après le rang de tirages gaussiens, chacun d'échelle `scales`.
    """
    raw = [scale * d.normal(*shape) for shape, scale in zip(shapes, scales, strict=True)]
    flat = torch.cat([r.flatten() for r in raw])
    sizes = torch.exp(torch.linspace(-0.025 * len(flat), 0.025 * len(flat), len(flat)))
    values = sizes[flat.abs().argsort().argsort()] * torch.where(flat < 0, -1.0, 1.0)
    return [v.reshape(r.shape) for v, r in zip(values.split([r.numel() for r in raw]), raw, strict=True)]


def share_off_half(d: Draw, n: int, low: bool | None = None) -> float:
    """Une part dont le produit par n tombe à 0,1 à 0,4 d'un entier, et qui n'est pas celle qu'on garde.

    Un cas sur deux, le produit tombe sous l'entier : tronquer n'est pas arrondir.
    """
    few = d.integer(0, 1) == 0 if low is None else low
    count = d.integer(max(1, n // 5), max(1, 2 * n // 5)) if few else d.integer((3 * n + 4) // 5, (4 * n) // 5)
    shift = d.uniform(0.1, 0.4)
    return (count - shift if d.index % 2 == 0 else count + shift) / n


def out_of_range(d: Draw) -> float:
    return d.turn([d.uniform(1.05, 2), -d.uniform(0.05, 0.9), d.uniform(1.01, 1.04), -d.uniform(1.5, 3)])


def lowest_removed(scores: Tensor, removed: int) -> Tensor:
    order = scores.argsort(dim=1, stable=True)
    return torch.ones_like(scores, dtype=torch.bool).scatter(1, order[:, :removed], False)


def check(amount):
    if amount < 0 or amount > 1:
        raise ValueError("part")
