"""Exercice `wanda_mask` du chapitre 5."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import lowest_removed, share_off_half

Norm = Callable[[Tensor], Tensor]


_OTHER_NORMS: dict[str, Norm] = {
    "mean": lambda x: x.mean(0).abs(),
    "mean_abs": lambda x: x.abs().mean(0),
    "max": lambda x: x.abs().amax(0),
    "squared": lambda x: x.square().sum(0),
    "none": lambda x: torch.ones(x.shape[1]),
}


def _layer(d: Draw, out: int, n: int, size: int, amount: float) -> tuple[Tensor, Tensor]:
    """Une couche et des activations où toutes les fausses normes donnent un autre masque, et où rien n'est serré."""
    removed = round(amount * size)
    while True:
        w = d.normal(out, size)
        x = d.normal(n, size) * torch.exp(1.2 * d.normal(size))
        rare = d.integers(0, 1, size).bool()
        x[torch.rand(n, size, generator=d.generator) < torch.where(rare, 0.7, 0.0)] = 0.0
        scores = w.abs() * x.norm(dim=0)
        cut = scores.sort(dim=1).values
        apart = (cut[:, removed] > 1.03 * cut[:, removed - 1]).all() and cut[:, removed - 1].min() > 1e-3
        right = lowest_removed(scores, removed)
        others = [lowest_removed(w.abs() * norm(x), removed) for norm in _OTHER_NORMS.values()]
        if apart and scores.max() < 200 and not any(torch.equal(right, other) for other in others):
            return w, x


def _tied_layer(d: Draw) -> tuple[Tensor, Tensor, float]:
    """Des entrées jumelles (au signe près), des poids ±1 : les importances sont égales par paires ou plus."""
    out, size, n = d.integer(2, 3), 8, 5
    base = d.integers(1, 2, n, 2).float() * torch.tensor([1.0, 2.0])
    which = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])[torch.randperm(size, generator=d.generator)]
    x = base[:, which] * (2.0 * d.integers(0, 1, size) - 1.0)
    if d.index % 2:
        x = x * (which == 1)  # la première moitié des entrées est morte
    w = 2.0 * d.integers(0, 1, out, size) - 1.0
    return w, x, d.integer(1, 3) / size


def draw_wanda(d: Draw, group: str) -> Inputs:
    if group == "égalités":
        w, x, amount = _tied_layer(d)
        return {"w": w, "x": x, "amount": amount}
    out, size = d.turn([(4, 9), (5, 7), (3, 11), (4, 8)])
    n = size if d.index % 2 == 0 else d.integer(5, 6)
    amount = share_off_half(d, size)
    w, x = _layer(d, out, n, size, amount)
    if group == "formes et types":
        w, x, amount = d.turn(
            [
                (d.strided(w), x.T.contiguous().T, amount),
                (w.half(), x.half(), amount),
                (w.double().T.contiguous().T, d.strided(x.double()), amount),
                (w, x, float(d.integer(0, 1))),
            ]
        )
    return {"w": w, "x": x, "amount": amount}


exercise = Exercise(
    points=3,
    minutes=20,
    stars=2,
    hints=[
        "Qu'est-ce qui arrive à la sortie d'un poids énorme dont l'entrée est toujours nulle ?",
        "L'importance est un produit : le poids, et une mesure de son entrée sur tous les jetons. Combien d'entrées, "
        "donc combien de normes ?",
        "La norme réduit l'axe des jetons : (n, in) donne (in,), qui se multiplie à chaque ligne de w.",
        "Dans chaque ligne, un tri stable des importances ; les round(amount · in) premiers du classement sont "
        "retirés : scatter sait écrire False à leurs places.",
    ],
    groups={"courant": 0.55, "égalités": 0.2, "formes et types": 0.25},
    draw=draw_wanda,
    examples=[
        {
            "w": torch.tensor([[0.5, -0.1, 2.0, 1.0], [-0.2, 0.3, 0.9, -3.0]]),
            "x": torch.tensor([[1.0, 8.0, 0.1, -0.5], [-1.0, -6.0, 0.1, 0.5], [1.0, 0.0, -0.1, 0.0]]),
            "amount": 0.5,
        }
    ],
)


misconceptions = """\
global_ranking   = _whole_matrix
    Des sorties entières peuvent disparaître : entre quels poids Wanda compare-t-il ?

norm_axis   x.norm(dim=0) → x.norm(dim=1)
    Chaque entrée doit avoir une norme : combien en avez-vous ?

mean_activation   x.norm(dim=0) → x.mean(dim=0).abs()
    Des activations de signes opposés s'annulent dans votre mesure.

mean_abs   x.norm(dim=0) → x.abs().mean(dim=0)
    La moyenne des valeurs absolues et la norme 2 ne classent pas les entrées pareil : que dit la norme d'une entrée
    rarement grande ?

max_activation   x.norm(dim=0) → x.abs().amax(dim=0)
    Un seul jeton décide chez vous de l'importance d'une entrée : que font les autres ?

norm_squared   x.norm(dim=0) → x.square().sum(dim=0)
    L'activation compte chez vous au carré, et le poids non : que faut-il prendre de la somme des carrés ?

magnitude_only   w.abs() * x.norm(dim=0) → w.abs()
    Les données n'ont aucune influence sur votre masque.

activation_only   w.abs() * x.norm(dim=0) → x.norm(dim=0).expand(w.shape)
    Toutes vos lignes perdent les mêmes entrées : où sont passés les poids ?

signed_weight   w.abs() * → w *
    Un poids négatif peut compter beaucoup.

per_column   = _per_column
    Vous comparez les sorties entre elles, entrée par entrée : dans quel sens Wanda classe-t-il ?

inverted   torch.ones_like(w, dtype=torch.bool).scatter(1, order[:, :removed], False)
    → ~torch.ones_like(w, dtype=torch.bool).scatter(1, order[:, :removed], False)
    Vous gardez ce qu'il fallait retirer : que veut dire True dans ce masque ?

amount_kept   round(amount * w.shape[1]) → round((1 - amount) * w.shape[1])
    amount est la part retirée ; chez vous, c'est celle qui reste.

truncates   round(amount * w.shape[1]) → int(amount * w.shape[1])
    Il vous manque parfois un poids : couper la partie décimale n'est pas arrondir.

threshold_ties
    - return torch.ones_like(w, dtype=torch.bool).scatter(1, order[:, :removed], False)
    + cut = scores.sort(dim=1).values[:, max(removed - 1, 0)]
    + return scores > cut[:, None] if removed else torch.ones_like(w, dtype=torch.bool)
    Avec des importances égales, votre seuil en retire trop.

ties_last   scores.argsort(dim=1, stable=True) → w.shape[1] - 1 - scores.flip(1).argsort(dim=1, stable=True)
    À égalité, vous retirez le dernier venu : relisez qui doit partir le premier.

returns_weights   torch.ones_like(w, dtype=torch.bool).scatter(1, order[:, :removed], False)
    → w * torch.ones_like(w, dtype=torch.bool).scatter(1, order[:, :removed], False)
    Vous rendez les poids élagués : l'énoncé demande où sont les poids gardés.
"""


def _whole_matrix(w: Tensor, x: Tensor, amount: float) -> Tensor:
    scores = w.abs() * x.norm(dim=0)
    return lowest_removed(scores.reshape(1, -1), round(amount * w.numel())).reshape(w.shape)


def _per_column(w: Tensor, x: Tensor, amount: float) -> Tensor:
    scores = (w.abs() * x.norm(dim=0)).T
    return lowest_removed(scores, round(amount * w.shape[0])).T


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def wanda_loops(w, x, amount):
    mask = torch.ones(w.shape, dtype=torch.bool)
    norms = [sum(v * v for v in x[:, j].tolist()) ** 0.5 for j in range(w.shape[1])]
    for i, row in enumerate(w.tolist()):
        scores = [abs(v) * norm for v, norm in zip(row, norms, strict=True)]
        for j in sorted(range(len(row)), key=scores.__getitem__)[: round(amount * len(row))]:
            mask[i, j] = False
    return mask


def wanda_squares(w, x, amount):
    """Le carré de l'importance classe pareil, et la moyenne des carrés aussi."""
    scores = w.double() ** 2 * (x.double() ** 2).mean(0, keepdim=True)
    ranks = scores.argsort(dim=-1, stable=True).argsort(dim=-1)
    return ranks >= round(amount * w.size(1))


def wanda_hessian(w, x, amount):
    diagonal = (x.double().T @ x.double()).diagonal()
    order = torch.sort(w.double().abs() * diagonal.sqrt(), dim=1, stable=True).indices
    mask = torch.full(w.shape, True, device=w.device)
    for row, gone in zip(mask, order[:, : round(amount * w.shape[1])], strict=True):
        row[gone] = False
    return mask


def wanda_numpy(w, x, amount):
    scores = np.abs(w.float().numpy()) * np.linalg.norm(x.float().numpy(), axis=0)
    mask = np.ones(scores.shape, dtype=bool)
    gone = np.argsort(scores, axis=1, kind="stable")[:, : round(amount * scores.shape[1])]
    np.put_along_axis(mask, gone, False, axis=1)
    return torch.from_numpy(mask)


def wanda_own_type(w, x, amount):
    scores = w.abs() * torch.linalg.vector_norm(x, dim=0).unsqueeze(0)
    order = torch.argsort(scores, dim=1, stable=True)
    mask = torch.zeros_like(w).bool()
    mask.scatter_(1, order[:, round(amount * w.shape[1]) :], True)
    return mask


styles = [wanda_loops, wanda_squares, wanda_hessian, wanda_numpy, wanda_own_type]
