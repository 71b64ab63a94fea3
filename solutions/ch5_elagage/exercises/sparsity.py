"""Exercice `sparsity` du chapitre 5."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def _with_zeros(d: Draw, share: float, *shape: int) -> Tensor:
    """Un tenseur gaussien dont une part environ est nulle, et dont un élément est minuscule."""
    t = d.normal(*shape)
    t[torch.rand(t.shape, generator=d.generator) < share] = 0.0
    t.view(-1)[0], t.view(-1)[-1] = 1e-12 * d.choice([-1, 1]), 0.0
    return t


def draw_sparsity(d: Draw, group: str) -> Inputs:
    some = [
        _with_zeros(d, 0.7, d.integer(2, 3), 3),
        _with_zeros(d, 0.15, d.integer(5, 6), d.integer(6, 8)),
        _with_zeros(d, 0.4, d.integer(9, 12)),
    ]
    if group == "courant":
        return {"tensors": tuple(some[: 2 + d.index % 2])}
    if group == "itérateur":
        return {"tensors": some[d.index % 2 :]}
    few = d.integers(-2, 2, 3, 5)
    few[0, 0] = 0
    return {
        "tensors": d.turn(
            [
                (d.strided(some[0]), some[1].T, torch.tensor(0.0)),
                (few.to(torch.int8), some[1].double()),
                (-torch.zeros(2, 3), some[2].bfloat16(), torch.empty(0, 4)),
                (torch.zeros(d.integer(2, 4)), torch.zeros(3, 2)),
            ]
        )
    }


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Deux nombres suffisent : combien de zéros, et combien d'éléments ? Sur un seul tenseur ou sur tous ?",
        "Additionnez les zéros de tous les tenseurs, puis leurs éléments, dans le même parcours ; divisez à la fin.",
    ],
    groups={"courant": 0.6, "itérateur": 0.2, "formes et types": 0.2},
    draw=draw_sparsity,
    probe="call_iterator",
    examples=[{"tensors": (torch.tensor([0.0, 1.0, 0.0, 2.0]), torch.tensor([[3.0, 4.0], [1e-9, 5.0]]))}],
    tolerance=Tolerance(rtol=1e-6, why="un rapport de deux comptes, peut-être en float32"),
)


misconceptions = """\
mean_of_shares   = wrong_mean_of_shares
    Un petit tenseur compte chez vous autant qu'un grand.

counts_nonzero   (t == 0).sum() → (t != 0).sum()
    Vous mesurez la densité, la part de ce qui reste.

near_zero   (t == 0) → (t.abs() < 1e-8)
    Petit n'est pas nul.

generator_twice   = _zeros_then_total
    Un itérateur ne se parcourt qu'une fois : que reste-t-il à votre second passage ?

last_only   zeros += int → zeros = int
    & total += t → total = t
    Votre réponse ne parle que du dernier tenseur : qu'est devenu le compte des précédents ?

count_not_share   return zeros / total → return float(zeros)
    Vous comptez des zéros : l'énoncé demande leur part.

percent   return zeros / total → return 100 * zeros / total
    Vous répondez en pour cent : une part est entre 0 et 1.
"""


def _zeros_then_total(tensors: Iterable[Tensor]) -> float:
    zeros = sum(int((t == 0).sum()) for t in tensors)
    total = sum(t.numel() for t in tensors)
    return zeros / total


def wrong_mean_of_shares(tensors):
    return sum(s := [float((t == 0).double().mean()) for t in tensors if t.numel()]) / len(s)


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def sparsity_list(tensors):
    kept = list(tensors)
    return sum(int(t.numel() - torch.count_nonzero(t)) for t in kept) / sum(t.numel() for t in kept)


def sparsity_concatenated(tensors):
    flat = torch.cat([t.detach().reshape(-1).double() for t in tensors])
    return (flat == 0).double().mean().item()


def sparsity_float32(tensors):
    zeros, total = torch.tensor(0.0), 0
    for t in tensors:
        zeros = zeros + (t == 0).sum()
        total += t.numel()
    return float(zeros / total)


def sparsity_numpy(tensors):
    a, b = itertools.tee(tensors)
    zeros = sum((t.float().numpy() == 0).sum() for t in a)
    return zeros / sum(t.numel() for t in b)


styles = [sparsity_list, sparsity_concatenated, sparsity_float32, sparsity_numpy]
