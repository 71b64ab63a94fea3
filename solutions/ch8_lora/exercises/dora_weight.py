"""Exercice `dora_weight` du chapitre 8."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import PRODUCTS, factors


def draw_dora(d: Draw, group: str) -> Inputs:
    rank = d.turn([2, 3, 1, 2])
    rows, columns = d.turn([(5, 7), (6, 6), (8, 5), (4, 9)])
    (a, b), w = factors(d, rows, columns, rank), d.normal(rows, columns)
    magnitude = 0.5 + 3.0 * torch.rand(rows, 1, generator=d.generator)
    found = {"weight": w, "A": a, "B": b, "magnitude": magnitude, "scaling": d.uniform(0.5, 3.0)}
    if group == "courant":
        return found
    if group == "bords":
        return found | d.turn(
            [
                {"B": torch.zeros_like(b), "magnitude": w.norm(dim=1, keepdim=True)},  # le départ : W lui-même
                {"scaling": 0.0},
                {"magnitude": -magnitude},
                {"magnitude": torch.ones_like(magnitude), "scaling": 5},
            ]
        )
    return d.turn(
        [
            {name: v.double() if isinstance(v, torch.Tensor) else v for name, v in found.items()},
            {name: d.strided(v) if isinstance(v, torch.Tensor) else v for name, v in found.items()},
            found | {"weight": w.T.contiguous().T},
            {name: v.abs().bfloat16() if isinstance(v, torch.Tensor) else 1.0 for name, v in found.items()},
        ]
    )


exercise = Exercise(
    points=2,
    minutes=15,
    stars=3,
    hints=[
        "Un vecteur a une longueur et une direction : laquelle des deux LoRA apprend-elle ici, et qui apprend "
        "l'autre ?",
        "La direction est celle de la matrice déjà mise à jour, ligne par ligne : une ligne est ce qui produit "
        "une sortie.",
        "Divisez chaque ligne de W + facteur·B·A par sa longueur, puis donnez-lui celle de `magnitude`.",
    ],
    groups={"courant": 0.6, "bords": 0.2, "formes et types": 0.2},
    draw=draw_dora,
    examples=[
        {
            "weight": torch.tensor([[3.0, 0.0], [0.0, 1.0]]),
            "A": torch.tensor([[0.0, 2.0]]),
            "B": torch.tensor([[2.0], [1.0]]),
            "magnitude": torch.tensor([[10.0], [2.0]]),
            "scaling": 1.0,
        }
    ],
    tolerance=PRODUCTS,
)


misconceptions = """\
norm_by_column   v.norm(dim=1, keepdim=True) → v.norm(dim=0, keepdim=True)
    La longueur à rendre est celle d'une sortie : une ligne de la matrice, non une colonne.

norm_of_base   v.norm(dim=1, keepdim=True) → weight.norm(dim=1, keepdim=True)
    Vous divisez par la longueur d'avant la mise à jour : la direction apprise n'est plus de longueur 1.

norm_of_all   v.norm(dim=1, keepdim=True) → v.norm()
    Une seule longueur pour toute la matrice : `magnitude` en a une par ligne.

magnitude_inside   magnitude * v / v.norm(dim=1, keepdim=True)
    → magnitude * weight / weight.norm(dim=1, keepdim=True) + scaling * (B @ A)
    Vous normalisez la base seule, puis ajoutez la mise à jour : les lignes n'ont plus la longueur apprise.

magnitude_forgotten   magnitude * v / v.norm(dim=1, keepdim=True) → v / v.norm(dim=1, keepdim=True)
    Il reste la direction ; qui donne la longueur ?

not_normalised   magnitude * v / v.norm(dim=1, keepdim=True) → magnitude * v
    La longueur de v compte encore : `magnitude` devrait la remplacer, non s'y multiplier.

squared_norm   v.norm(dim=1, keepdim=True) → (v * v).sum(dim=1, keepdim=True)
    C'est le carré de la longueur : il manque une racine.

mean_square   v.norm(dim=1, keepdim=True) → (v * v).mean(dim=1, keepdim=True).sqrt()
    C'est une moyenne quadratique (comme RMSNorm) : une longueur est une somme.

l1_norm   v.norm(dim=1, keepdim=True) → v.abs().sum(dim=1, keepdim=True)
    La longueur est celle de la géométrie : la racine d'une somme de carrés.

scaling_forgotten   scaling * (B @ A) → B @ A
    La mise à jour a un facteur, comme dans LoRA.

base_forgotten   weight + scaling * (B @ A) → scaling * (B @ A) + 0 * weight
    Où est passé le poids de départ ? La direction est celle de W mis à jour.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def dora_normalize(weight, A, B, magnitude, scaling):
    return F.normalize(weight + scaling * torch.matmul(B, A), dim=1) * magnitude


def dora_addmm(weight, A, B, magnitude, scaling):
    v = torch.addmm(weight, B, A, alpha=scaling)
    return v * (magnitude / torch.linalg.vector_norm(v, dim=-1, keepdim=True))


def dora_rows(weight, A, B, magnitude, scaling):
    rows = []
    for i in range(weight.shape[0]):
        row = weight[i] + scaling * (B[i] @ A)
        rows.append(magnitude[i] * row / row.pow(2).sum().sqrt())
    return torch.stack(rows)


def dora_weight_norm(weight, A, B, magnitude, scaling):
    return (
        torch._weight_norm((weight + scaling * (B @ A)).float(), magnitude.float(), 0).to(weight.dtype)
        if (weight.dtype != torch.float64)
        else magnitude * F.normalize(weight + scaling * (B @ A), dim=-1)
    )


styles = [dora_normalize, dora_addmm, dora_rows, dora_weight_norm]
