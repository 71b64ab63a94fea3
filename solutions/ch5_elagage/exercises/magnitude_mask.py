"""Exercice `magnitude_mask` du chapitre 5."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import check, distinct, out_of_range, share_off_half


def _tied(d: Draw, *shape: int) -> tuple[Tensor, float]:
    """Des poids ±1 et ±2, et une part qui coupe au milieu des ±1 : seule leur place les départage."""
    n = math.prod(shape)
    small = d.integer(n // 2, 2 * n // 3)
    size = torch.full((n,), 2.0)
    size[:small] = 1.0
    size = size[torch.randperm(n, generator=d.generator)]
    w = size * (2.0 * d.integers(0, 1, n) - 1.0)
    return w.reshape(shape), d.integer(2, small - 2) / n


def draw_magnitude(d: Draw, group: str) -> Inputs:
    shape = d.turn([(5, 7), (4, 6), (3, 4, 3), (23,)])
    if group == "égalités":
        w, amount = _tied(d, *d.turn([(4, 5), (5, 4), (18,), (3, 6)]))
        return {"w": w if d.index % 2 == 0 else w.T.contiguous().T, "amount": amount}
    w = distinct(d, shape)[0]
    if group == "refus":
        return {"w": w, "amount": out_of_range(d)}
    amount = share_off_half(d, w.numel())
    if group == "courant":
        return {"w": w, "amount": amount}
    return d.turn(
        [
            {"w": d.strided(w).double(), "amount": amount},
            {"w": distinct(d, (6, 4))[0].half().T, "amount": share_off_half(d, 24)},
            {"w": w, "amount": float(d.integer(0, 1))},
            {"w": d.turn([w.bfloat16(), w[:1].flatten()[0], w.half(), w[:1].flatten()[0]]), "amount": 0.0},
        ]
    )


exercise = Exercise(
    points=2,
    minutes=12,
    stars=2,
    hints=[
        "Combien de poids faut-il retirer, exactement ? Et lesquels, si deux d'entre eux sont égaux ?",
        "Un seuil ne sait pas départager des poids égaux. Un classement, si : il dit qui est premier, qui est "
        "deuxième, et ainsi de suite.",
        "Un tri stable garde l'ordre de départ entre éléments égaux : regardez les options de argsort.",
        "Classez les |w| du tenseur déroulé ; les round(amount · n) premiers du classement deviennent False.",
    ],
    groups={"courant": 0.5, "égalités": 0.2, "formes et types": 0.2, "refus": 0.1},
    draw=draw_magnitude,
    examples=[
        {"w": torch.tensor([[0.5, -2.0, 0.1], [-0.3, 1.0, -0.05]]), "amount": 0.5},
        {"w": torch.tensor([1.0, -1.0, 1.0, 2.0]), "amount": 0.5},
    ],
)


misconceptions = """\
signed_values   w.abs() → w
    Un grand poids négatif n'est pas un petit poids.

inverted   return mask → return ~mask
    Vous gardez ce qu'il fallait retirer : que veut dire True dans ce masque ?

threshold_ties
    - mask[order[:removed]] = False
    + if removed:
    +     mask = w.abs().flatten() > w.abs().flatten()[order[removed - 1]]
    Avec des valeurs égales, votre seuil en retire trop.

threshold_keeps_ties
    - mask[order[:removed]] = False
    + if removed < w.numel():
    +     mask = w.abs().flatten() >= w.abs().flatten()[order[removed]]
    + else:
    +     mask[:] = False
    Avec des valeurs égales, votre seuil en retire trop peu : compte-t-on les poids ou les seuils ?

ties_last   w.abs().flatten().argsort(stable=True)
    → (w.numel() - 1 - w.abs().flatten().flip(0).argsort(stable=True))
    À égalité, vous retirez le dernier venu : relisez qui doit partir le premier.

amount_kept   round(amount * w.numel()) → round((1 - amount) * w.numel())
    amount est la part retirée ; chez vous, c'est celle qui reste.

quantile_value   mask[order[:removed]] = False → mask = w.abs().flatten() >= amount * w.abs().max()
    Une part du maximum n'est pas une part du nombre de poids.

truncates   round(amount * w.numel()) → int(amount * w.numel())
    Il vous manque parfois un poids : couper la partie décimale n'est pas arrondir.

rounds_up   round(amount * w.numel()) → int(-(-amount * w.numel() // 1))
    Vous en retirez parfois un de trop : arrondir n'est pas toujours arrondir vers le haut.

per_row   = _mask_per_row
    Chaque ligne perd chez vous la même part : qui a demandé de comparer ligne par ligne ?

returns_weights   return mask → return w * mask
    Vous rendez les poids élagués : l'énoncé demande où sont les poids gardés.

no_check   if not 0 <= amount <= 1: → if False:
    Une part de −20 % ou de 120 % ne veut rien dire : votre fonction répond quand même, au lieu de la refuser.
"""


def _mask_per_row(w: Tensor, amount: float) -> Tensor:
    if not 0 <= amount <= 1:
        raise ValueError
    order = w.abs().argsort(dim=-1, stable=True)
    removed = round(amount * (w.shape[-1] if w.ndim else 1))
    return torch.ones_like(w, dtype=torch.bool).scatter(-1, order[..., :removed], False)


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def magnitude_python(w, amount):
    check(amount)
    values = w.reshape(-1).tolist()
    order = sorted(range(len(values)), key=lambda i: abs(values[i]))
    gone = set(order[: round(amount * len(values))])
    return torch.tensor([i not in gone for i in range(len(values))]).reshape(w.shape)


def magnitude_ranks(w, amount):
    check(amount)
    ranks = torch.argsort(torch.argsort(w.detach().abs().reshape(-1), stable=True))
    return (ranks >= int(round(amount * w.numel()))).view(w.shape)


def magnitude_numpy(w, amount):
    check(amount)
    flat = np.abs(w.double().numpy()).ravel()
    mask = np.ones(flat.size, dtype=bool)
    mask[np.argsort(flat, kind="stable")[: int(amount * flat.size + 0.5)]] = False
    return torch.from_numpy(mask.reshape(tuple(w.shape)))


def magnitude_topk_removed(w, amount):
    """Un petit décalage, d'après la place, départage les égalités avant un topk."""
    check(amount)
    k = round(amount * w.numel())
    mask = torch.ones(w.numel(), dtype=torch.bool, device=w.device)
    flat = w.abs().flatten().double()
    flat = flat + torch.arange(len(flat), device=w.device) * 1e-9
    mask[torch.topk(flat, k, largest=False).indices] = False
    return mask.view_as(w)


def magnitude_sort_values(w, amount):
    if not (amount >= 0 and amount <= 1):
        raise ValueError
    k = round(w.numel() * amount)
    _, indices = torch.sort(w.abs().flatten(), stable=True)
    return torch.ones_like(w.flatten(), dtype=torch.bool).index_fill(0, indices[:k], False).reshape(w.shape)


styles = [magnitude_python, magnitude_ranks, magnitude_numpy, magnitude_topk_removed, magnitude_sort_values]
