"""Ce que partagent les exercices du chapitre 3.

Règle des tirages : un réel à arrondir reste à 0,01 pas au moins d'un demi (0,05 presque partout), sauf quand le
demi est le sujet ; une réponse juste, en float32 ou en float64, par division ou par produit avec l'inverse, tombe
donc sur les mêmes entiers.
"""

from __future__ import annotations

import torch

from atelier.judging.exercise import Draw, Tolerance


def code_range(bits: int, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def off_grid(d: Draw, codes: torch.Tensor, reach: float = 0.4) -> torch.Tensor:
    """Des réels qui s'arrondissent à `codes`, à une distance de 0,05 à `reach` de chacun, des deux côtés."""
    gap = 0.05 + (reach - 0.05) * torch.rand(codes.shape, generator=d.generator, dtype=torch.float64)
    side = 2.0 * d.integers(0, 1, *codes.shape) - 1.0
    return codes + side * gap


ONE_DIVISION = Tolerance(rtol=1e-5, why="une division en float32")
