"""Exercice `merge_lora` du chapitre 8."""

from __future__ import annotations

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import PRODUCTS, factors, wide_types


def draw_merge(d: Draw, group: str) -> Inputs:
    rank = d.turn([2, 3, 4, 3])
    rows, columns = d.turn([(5, 7), (6, 6), (8, 5), (4, 9)])
    (a, b), w = factors(d, rows, columns, rank), d.normal(rows, columns)
    if group == "refus":
        return {"weight": w, "A": a, "B": d.normal(rows, rank + d.turn([1, -1, 2, 1])), "alpha": 8.0}
    if group == "courant":
        return {"weight": w, "A": a, "B": b, "alpha": d.turn([d.uniform(4, 9), 8, d.uniform(0.5, 1.5), 16])}
    if group == "bords":
        thin = factors(d, rows, columns, 1)
        return d.turn(
            [
                {"weight": w, "A": thin[0], "B": thin[1], "alpha": 1},
                {"weight": w, "A": a, "B": torch.zeros_like(b), "alpha": 8.0},
                {"weight": w, "A": a, "B": b, "alpha": 0.0},
                {"weight": torch.zeros_like(w), "A": a, "B": b, "alpha": rank},
            ]
        )
    cast = wide_types(d, a, b)
    w = w.abs().to(cast["A"].dtype)
    return {"weight": d.strided(w), **cast, "alpha": d.turn([d.uniform(4, 9), 6, 1.5, 2])}


exercise = Exercise(
    points=2,
    minutes=10,
    stars=1,
    hints=[
        "La couche répond W x + (α / r)·B A x : quelle matrice faudrait-il appliquer à x pour avoir les deux d'un "
        "coup ?",
        "W a la forme (d, k), et la mise à jour aussi. Dans quel ordre multiplier B, (d, r), et A, (r, k) ? Le rang "
        "est la dimension qu'elles ont en commun.",
        "Une addition ordinaire rend un nouveau tenseur ; les opérations dont le nom finit par « _ » écrivent dans "
        "celui qu'elles reçoivent. Et les deux rangs se comparent avant de multiplier.",
    ],
    groups={"courant": 0.6, "bords": 0.15, "formes et types": 0.15, "refus": 0.1},
    draw=draw_merge,
    examples=[
        {
            "weight": torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]]),
            "A": torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]),
            "B": torch.tensor([[1.0, 1.0], [2.0, 0.0]]),
            "alpha": 4.0,
        }
    ],
    tolerance=PRODUCTS,
)


misconceptions = """\
in_place   weight + (alpha / rank) * (B @ A) → weight.add_((alpha / rank) * (B @ A))
    Fusionnez deux fois de suite : le second résultat est-il le même ? Votre fonction a changé le poids qu'on lui a
    confié.

transposed   weight + (alpha / rank) * (B @ A) → weight + (alpha / rank) * (B @ A).T
    Essayez avec une matrice qui n'est pas carrée.

no_scaling   weight + (alpha / rank) * (B @ A) → weight + B @ A
    La couche fusionnée et la couche LoRA ne répondent pas pareil : α a disparu.

alpha_not_divided   weight + (alpha / rank) * (B @ A) → weight + alpha * (B @ A)
    La couche fusionnée et la couche LoRA ne répondent pas pareil : par quoi α est-il divisé ?

rank_axis   weight + (alpha / rank) * (B @ A) → weight + (alpha / A.shape[1]) * (B @ A)
    Laquelle des dimensions de A est le rang ?

ratio_inverted   weight + (alpha / rank) * (B @ A) → weight + (rank / max(alpha, 1e-9)) * (B @ A)
    Quand α grandit, votre mise à jour rétrécit : lequel des deux divise l'autre ?

delta_only   weight + (alpha / rank) * (B @ A) → (alpha / rank) * (B @ A)
    Il reste la mise à jour ; où est passé le modèle ?

subtracted   weight + (alpha / rank) * (B @ A) → weight - (alpha / rank) * (B @ A)
    Vous retirez la mise à jour : c'est ce qu'il faudrait pour défaire une fusion.

output_axis   (alpha / rank) * (B @ A) → (alpha / B.shape[0]) * (B @ A)
    Laquelle des dimensions de B est le rang ? Vous divisez par la taille de la sortie.

integer_division   (alpha / rank) * (B @ A) → (alpha // rank) * (B @ A)
    Avec α plus petit que r, la mise à jour disparaît : de quelle division avez-vous besoin ?

square_root   (alpha / rank) * (B @ A) → (alpha / rank**0.5) * (B @ A)
    α/√r est la règle d'un autre article, rsLoRA ; celle de LoRA divise par r.

no_check   if B.shape[1] != rank: → if False:
    Votre fonction s'arrête bien, mais c'est torch qui se plaint, avec ses mots : l'énoncé demande que ce soit vous,
    avant de multiplier.

base_scaled   weight + (alpha / rank) * (B @ A) → (alpha / rank) * (weight + B @ A)
    Sans aucune mise à jour, le poids fusionné devrait être celui de la base : que multiplie α / r ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def _same_rank(A, B):
    if A.size(0) != B.size(-1):
        raise ValueError("rangs")


def merge_addmm(weight, A, B, alpha):
    _same_rank(A, B)
    return torch.addmm(weight, B, A, alpha=alpha / A.shape[0])


def merge_clone(weight, A, B, alpha):
    _same_rank(A, B)
    out = weight.clone()
    out += torch.matmul(B * (alpha / B.shape[-1]), A)
    return out


def merge_outer(weight, A, B, alpha):
    r = A.shape[0]
    if r != B.shape[1]:
        raise ValueError("rangs")
    total = sum(torch.outer(B[:, i], A[i]) for i in range(r))
    return weight + alpha * total / r


def merge_einsum(weight, A, B, alpha):
    _same_rank(A, B)
    return weight + torch.einsum("dr,rk->dk", B, A) * alpha / len(A)


def merge_numpy(weight, A, B, alpha):
    _same_rank(A, B)
    w, a, b = (t.double().numpy() for t in (weight, A, B))
    return torch.tensor(w + alpha / len(a) * b.dot(a)).to(weight.dtype)


styles = [merge_addmm, merge_clone, merge_outer, merge_einsum, merge_numpy]
