"""Exercice `lora_delta` du chapitre 8."""

from __future__ import annotations

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import PRODUCTS, factors, wide_types


def draw_delta(d: Draw, group: str) -> Inputs:
    rank = d.turn([2, 3, 4, 3])
    rows, columns = d.turn([(5, 7), (6, 6), (8, 5), (4, 9)])
    a, b = factors(d, rows, columns, rank)
    if group == "courant":
        return {"A": a, "B": b, "alpha": d.turn([d.uniform(4, 9), 8, d.uniform(0.5, 1.5), 16])}
    if group == "formes et types":
        return {**wide_types(d, a, b), "alpha": d.turn([d.uniform(4, 9), 6, 1.5, 2])}
    if group == "bords":
        thin = factors(d, rows, columns, 1)
        return d.turn(
            [
                {"A": a, "B": b, "alpha": 1},
                {"A": thin[0], "B": thin[1], "alpha": d.uniform(2, 9)},
                {"A": a, "B": torch.zeros_like(b), "alpha": 8.0},
                {"A": a, "B": b, "alpha": rank},
            ]
        )
    other = rank + d.turn([1, -1, 2, 1])
    return {"A": a, "B": d.normal(rows, other), "alpha": 8.0}


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "W a la forme (d, k), et ΔW aussi. Dans quel ordre multiplier B, (d, r), et A, (r, k) ?",
        "Le rang est la dimension que A et B ont en commun : laquelle des deux dimensions de A ?",
        "(α / r)·B·A, après avoir vérifié que les deux rangs sont le même.",
    ],
    groups={"courant": 0.5, "bords": 0.15, "formes et types": 0.15, "refus": 0.2},
    draw=draw_delta,
    examples=[
        {
            "A": torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]),
            "B": torch.tensor([[1.0, 1.0], [2.0, 0.0]]),
            "alpha": 4.0,
        }
    ],
    tolerance=PRODUCTS,
)


misconceptions = """\
ab   (alpha / rank) * (B @ A) → (alpha / rank) * (A.T @ B.T)
    Vos dimensions ne donnent pas d × k : qui multiplie l'entrée en premier, A ou B ?

alpha_not_divided   (alpha / rank) * (B @ A) → alpha * (B @ A)
    Changez r : la taille de ΔW change d'un facteur qu'on voulait éviter.

no_scaling   (alpha / rank) * (B @ A) → B @ A
    α ne change rien chez vous : où intervient-il ?

ratio_inverted   (alpha / rank) * (B @ A) → (rank / alpha) * (B @ A)
    Quand α grandit, votre mise à jour rétrécit : lequel des deux divise l'autre ?

rank_axis   (alpha / rank) * (B @ A) → (alpha / A.shape[1]) * (B @ A)
    Laquelle des dimensions de A est le rang ?

output_axis   (alpha / rank) * (B @ A) → (alpha / B.shape[0]) * (B @ A)
    Laquelle des dimensions de B est le rang ? Vous divisez par la taille de la sortie.

integer_division   (alpha / rank) * (B @ A) → (alpha // rank) * (B @ A)
    Avec α plus petit que r, ΔW disparaît : de quelle division avez-vous besoin ?

square_root   (alpha / rank) * (B @ A) → (alpha / rank**0.5) * (B @ A)
    α/√r est la règle d'un autre article, rsLoRA ; celle de LoRA divise par r.

no_check   if B.shape[1] != rank: → if False:
    Votre fonction s'arrête bien, mais c'est torch qui se plaint, avec ses mots : l'énoncé demande que ce soit vous,
    avant de multiplier.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def _same_rank(A, B):
    if A.size(0) != B.size(-1):
        raise ValueError("rangs")


def delta_einsum(A, B, alpha):
    _same_rank(A, B)
    return torch.einsum("dr,rk->dk", B, A) * alpha / len(A)


def delta_scaled_first(A, B, alpha):
    _same_rank(A, B)
    return (B * (alpha / B.shape[1])) @ A


def delta_outer(A, B, alpha):
    r = A.shape[0]
    if r != B.shape[1]:
        raise ValueError("rangs")
    total = sum(torch.outer(B[:, i], A[i]) for i in range(r))
    return alpha * total / r


def delta_float64(A, B, alpha):
    _same_rank(A, B)
    return (B.double() @ A.double() * alpha / A.shape[0]).to(A.dtype)


styles = [delta_einsum, delta_scaled_first, delta_outer, delta_float64]
