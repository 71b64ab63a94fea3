"""Ce que partagent les exercices du chapitre 8."""

from __future__ import annotations

import torch

from atelier.judging.exercise import Draw, Tolerance

PRODUCTS = Tolerance(rtol=1e-4, atol=1e-5, why="des produits de matrices en float32")


def factors(d: Draw, rows: int, columns: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    return d.normal(rank, columns), d.normal(rows, rank)


def wide_types(d: Draw, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
    """Les mêmes facteurs en float64 non contigus, en demi-précision (positifs : rien ne s'y annule), transposés."""
    return d.turn(
        [
            {"A": d.strided(a.double()), "B": d.strided(b.double())},
            {"A": a.abs().half(), "B": b.abs().half()},
            {"A": a.T.contiguous().T, "B": b.T.contiguous().T},
            {"A": (a.abs() + 0.1).bfloat16(), "B": (b.abs() + 0.1).bfloat16()},
        ]
    )
