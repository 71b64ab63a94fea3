"""Exercice `merge_lora` du chapitre 8."""

from __future__ import annotations

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import PRODUCTS, factors, wide_types
from .lora_delta import delta_outer


def draw_merge(d: Draw, group: str) -> Inputs:
    rank = d.turn([2, 3, 4, 3])
    rows, columns = d.turn([(5, 7), (6, 6), (8, 5), (4, 9)])
    (a, b), w = factors(d, rows, columns, rank), d.normal(rows, columns)
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
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "W x + (α / r)·B A x : quelle matrice faudrait-il appliquer à x pour avoir les deux d'un coup ?",
        "W et la mise à jour ont la même forme, (d, k). Une addition ordinaire rend un nouveau tenseur ; les "
        "opérations dont le nom finit par « _ » écrivent dans celui qu'elles reçoivent.",
        "W + (α / r)·B·A.",
    ],
    groups={"courant": 0.6, "bords": 0.2, "formes et types": 0.2},
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
in_place   weight + (alpha / A.shape[0]) * (B @ A) → weight.add_((alpha / A.shape[0]) * (B @ A))
    Fusionnez deux fois de suite : le second résultat est-il le même ? Votre fonction a changé le poids qu'on lui a
    confié.

transposed   weight + (alpha / A.shape[0]) * (B @ A) → weight + (alpha / A.shape[0]) * (B @ A).T
    Essayez avec une matrice qui n'est pas carrée.

no_scaling   weight + (alpha / A.shape[0]) * (B @ A) → weight + B @ A
    La couche fusionnée et la couche LoRA ne répondent pas pareil : α a disparu.

alpha_not_divided   weight + (alpha / A.shape[0]) * (B @ A) → weight + alpha * (B @ A)
    La couche fusionnée et la couche LoRA ne répondent pas pareil : par quoi α est-il divisé ?

rank_axis   weight + (alpha / A.shape[0]) * (B @ A) → weight + (alpha / A.shape[1]) * (B @ A)
    Laquelle des dimensions de A est le rang ?

ratio_inverted   weight + (alpha / A.shape[0]) * (B @ A) → weight + (A.shape[0] / max(alpha, 1e-9)) * (B @ A)
    Quand α grandit, votre mise à jour rétrécit : lequel des deux divise l'autre ?

delta_only   weight + (alpha / A.shape[0]) * (B @ A) → (alpha / A.shape[0]) * (B @ A)
    Il reste la mise à jour ; où est passé le modèle ?

subtracted   weight + (alpha / A.shape[0]) * (B @ A) → weight - (alpha / A.shape[0]) * (B @ A)
    Vous retirez la mise à jour : c'est ce qu'il faudrait pour défaire une fusion.

base_scaled   weight + (alpha / A.shape[0]) * (B @ A) → (alpha / A.shape[0]) * (weight + B @ A)
    Sans aucune mise à jour, le poids fusionné devrait être celui de la base : que multiplie α / r ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def merge_addmm(weight, A, B, alpha):
    return torch.addmm(weight, B, A, alpha=alpha / A.shape[0])


def merge_clone(weight, A, B, alpha):
    out = weight.clone()
    out += torch.matmul(B, A) * alpha / B.shape[-1]
    return out


def merge_delta(weight, A, B, alpha):
    return weight + delta_outer(A, B, alpha)


def merge_numpy(weight, A, B, alpha):
    w, a, b = (t.double().numpy() for t in (weight, A, B))
    return torch.tensor(w + alpha / len(a) * b.dot(a)).to(weight.dtype)


styles = [merge_addmm, merge_clone, merge_delta, merge_numpy]
