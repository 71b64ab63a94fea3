"""Exercice `lora_num_params` du chapitre 8."""

from __future__ import annotations

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs


def draw_num_params(d: Draw, group: str) -> Inputs:
    shapes = [(d.integer(5, 60), d.integer(61, 300)) for _ in range(d.integer(2, 4))]
    shapes = [shape if d.index % 2 else shape[::-1] for shape in shapes] + [(d.integer(5, 40), d.integer(41, 90))]
    if group == "bords":
        square = d.integer(30, 90)
        d_model = 2 * d.integer(3000, 6200)
        return d.turn(
            [
                {"shapes": [], "rank": d.integer(1, 9)},
                {"shapes": [(d_model, d_model)] * 12, "rank": d.integer(2, 9)},
                {"shapes": [(square, square + 1)] * 3, "rank": 1},
                {"shapes": [shapes[0]], "rank": d.integer(100, 400)},
            ]
        )
    return {"shapes": [*shapes, shapes[0]], "rank": d.integer(2, 9)}


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Pour une matrice de forme (d, k) et un rang r, quelles sont les formes de B et de A ?",
        "B compte d·r nombres, A en compte r·k. Les matrices d'un bloc n'ont pas toutes la même forme.",
        "La somme, sur toutes les matrices, de r·(d + k).",
    ],
    groups={"courant": 0.8, "bords": 0.2},
    draw=draw_num_params,
    examples=[
        {"shapes": [(3, 5), (4, 7)], "rank": 2},
        {"shapes": [(12288, 12288)] * 2, "rank": 8},
        {"shapes": [(576, 192), (192, 192), (768, 192), (192, 768)] * 2, "rank": 4},
    ],
)


misconceptions = """\
r_d_k   sum(rank * (d + k) for d, k in shapes) → sum(rank * d * k for d, k in shapes)
    Vous dépassez la matrice complète : LoRA servirait à l'inverse de ce qu'il promet.

full_matrices   sum(rank * (d + k) for d, k in shapes) → sum(d * k for d, k in shapes)
    C'est le nombre de poids des matrices elles-mêmes, donc ce qu'un fine-tuning complet entraîne.

base_counted   sum(rank * (d + k) for d, k in shapes) → sum(d * k + rank * (d + k) for d, k in shapes)
    La base est gelée : elle n'est pas entraînée, donc pas comptée ici.

one_factor   sum(rank * (d + k) for d, k in shapes) → sum(rank * d for d, k in shapes)
    ΔW est un produit de deux matrices : vous ne comptez que B.

only_a   sum(rank * (d + k) for d, k in shapes) → sum(rank * k for d, k in shapes)
    ΔW est un produit de deux matrices : vous ne comptez que A.

twice_d   sum(rank * (d + k) for d, k in shapes) → sum(2 * rank * d for d, k in shapes)
    Toutes les matrices ne sont pas carrées : regardez c_attn.

product   sum(rank * (d + k) for d, k in shapes) → sum(rank * d * rank * k for d, k in shapes)
    Les nombres de B et ceux de A se gardent les uns à côté des autres : multiplie-t-on leurs comptes ?

same_shape_all   sum(rank * (d + k) for d, k in shapes) → len(shapes) * rank * sum(shapes[0]) if shapes else 0
    Chaque matrice a sa forme : vous comptez partout celle de la première.

distinct_shapes   sum(rank * (d + k) for d, k in shapes) → sum(rank * (d + k) for d, k in set(shapes))
    Deux matrices de même forme ont chacune leurs facteurs : rien n'est partagé.

rank_forgotten   sum(rank * (d + k) for d, k in shapes) → sum(d + k for d, k in shapes)
    Doublez le rang : votre compte ne bouge pas.

core_matrix   sum(rank * (d + k) for d, k in shapes) → sum(rank * (d + k) + rank * rank for d, k in shapes)
    Entre B et A, LoRA ne met rien : une matrice r × r de plus se fondrait dans l'une ou l'autre.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def count_loop(shapes, rank):
    total = 0
    for shape in shapes:
        d, k = shape
        total += d * rank
        total += rank * k
    return total


def count_factored(shapes, rank):
    return rank * sum(map(sum, shapes))


def count_tensors(shapes, rank):
    with torch.device("meta"):
        return sum(torch.empty(d, rank).numel() + torch.empty(rank, k).numel() for d, k in shapes)


styles = [count_loop, count_factored, count_tensors]
