"""Ce que partagent les exercices du chapitre 6."""

from __future__ import annotations

import torch
from torch import Tensor

from atelier.judging.exercise import Draw


def padding_mask(lengths: list[int], longest: int, sides: list[str]) -> Tensor:
    """(B, T) : 1 sur les vrais jetons de chaque ligne, du côté opposé au remplissage."""
    mask = torch.zeros(len(lengths), longest, dtype=torch.int64)
    for row, n, side in zip(mask, lengths, sides, strict=True):
        row[:n] = 1
        if side == "gauche":
            row.copy_(row.flip(0))
    return mask


def padding_sides(d: Draw, rows: int, kind: str) -> list[str]:
    if kind != "mêlé":
        return [kind] * rows
    sides = ["gauche", "droite", *(d.choice(["gauche", "droite"]) for _ in range(rows - 2))]
    d.random.shuffle(sides)
    return sides
