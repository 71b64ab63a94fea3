"""Exercice `batched_lora` du chapitre 8."""

from __future__ import annotations

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import PRODUCTS


def draw_batched(d: Draw, group: str) -> Inputs:
    n, length, width, out, rank, pairs = d.turn(
        [(4, 3, 6, 5, 2, 3), (5, 2, 4, 4, 3, 2), (3, 4, 5, 7, 2, 4), (6, 1, 8, 3, 1, 3)]
    )
    x, a, b = d.normal(n, length, width), d.normal(pairs, rank, width), d.normal(pairs, out, rank)
    tasks = torch.tensor([*range(pairs), *(d.integer(0, pairs - 1) for _ in range(n))][:n])
    tasks = tasks[torch.randperm(n, generator=d.generator)]
    if group == "courant":
        return {"x": x, "A": a, "B": b, "tasks": tasks, "scaling": d.uniform(0.5, 4.0)}
    if group == "bords":
        return d.turn(
            [
                {"x": x, "A": a, "B": b, "tasks": torch.full((n,), pairs - 1), "scaling": 2.0},
                {"x": x[:1], "A": a, "B": b, "tasks": torch.tensor([pairs - 1]), "scaling": 1.5},
                {"x": x, "A": a[:1], "B": b[:1], "tasks": torch.zeros(n, dtype=torch.int64), "scaling": 0.5},
                {"x": x, "A": a, "B": b, "tasks": tasks.flip(0), "scaling": 0.0},
            ]
        )
    return d.turn(
        [
            {"x": x.double(), "A": a.double(), "B": b.double(), "tasks": tasks, "scaling": 2.0},
            {"x": d.strided(x), "A": d.strided(a), "B": d.strided(b), "tasks": tasks, "scaling": 2},
            {"x": x.abs().bfloat16(), "A": a.abs().bfloat16(), "B": b.abs().bfloat16(), "tasks": tasks, "scaling": 1.0},
            {"x": x.transpose(0, 1).contiguous().transpose(0, 1), "A": a, "B": b, "tasks": tasks.int(), "scaling": 3.0},
        ]
    )


exercise = Exercise(
    points=2,
    minutes=20,
    stars=3,
    hints=[
        "Chaque ligne du lot a sa tâche, et chaque tâche sa paire (A, B). Que donne A[tasks], et de quelle forme ?",
        "Un produit de matrices par lot multiplie la i-ième matrice par la i-ième : (n, T, in) par (n, in, r), "
        "puis par "
        "(n, r, out).",
        "Comme pour une seule paire, x·Aᵀ·Bᵀ : les deux derniers axes se transposent, le premier ne bouge pas.",
    ],
    groups={"courant": 0.6, "bords": 0.2, "formes et types": 0.2},
    draw=draw_batched,
    examples=[
        {
            "x": torch.tensor([[[1.0, 2.0]], [[1.0, 2.0]]]),
            "A": torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]),
            "B": torch.tensor([[[1.0], [1.0]], [[2.0], [0.0]]]),
            "tasks": torch.tensor([1, 0]),
            "scaling": 0.5,
        }
    ],
    tolerance=PRODUCTS,
)


misconceptions = """\
first_pair   a, b = A[tasks], B[tasks] → a, b = A[:1].expand(len(x), -1, -1), B[:1].expand(len(x), -1, -1)
    Toutes les lignes passent par la première paire : que dit `tasks` ?

mean_of_pairs   a, b = A[tasks], B[tasks] → a, b = A.mean(0).expand(len(x), -1, -1), B.mean(0).expand(len(x), -1, -1)
    La moyenne de plusieurs tâches n'est aucune d'elles : chaque ligne a la sienne.

all_pairs_summed   scaling * (x @ a.transpose(1, 2) @ b.transpose(1, 2))
    → scaling * sum(x @ a.T @ b.T for a, b in zip(A, B, strict=True)) * (a[:, :1, :1] * 0 + 1)
    Chaque ligne reçoit toutes les paires à la fois : `tasks` n'en désigne qu'une.

row_number   a, b = A[tasks], B[tasks] → a, b = A[torch.arange(len(x)) % len(A)], B[torch.arange(len(x)) % len(B)]
    La ligne i n'est pas forcément de la tâche i : deux lignes peuvent partager la même.

mixed_pair   a, b = A[tasks], B[tasks] → a, b = A[tasks], B[tasks.flip(0)]
    Le A d'une tâche et le B d'une autre : les deux moitiés d'une paire vont ensemble.

scaling_forgotten   scaling * (x @ a.transpose(1, 2) @ b.transpose(1, 2)) → x @ a.transpose(1, 2) @ b.transpose(1, 2)
    Avec un facteur nul, la mise à jour devrait l'être aussi.

scaling_twice   scaling * (x @ a.transpose(1, 2) @ b.transpose(1, 2))
    → scaling * (scaling * (x @ a.transpose(1, 2)) @ b.transpose(1, 2))
    Le facteur compte deux fois chez vous : une fois pour A, une fois pour B ?

base_added   scaling * (x @ a.transpose(1, 2) @ b.transpose(1, 2))
    → scaling * (x @ a.transpose(1, 2) @ b.transpose(1, 2)) + x.mean()
    On demande la seule mise à jour, rien n'y est ajouté.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def batched_einsum(x, A, B, tasks, scaling):
    tasks = tasks.long()
    return scaling * torch.einsum("nti,nri,nor->nto", x, A[tasks], B[tasks])


def batched_loop(x, A, B, tasks, scaling):
    rows = [(row @ A[task].T) @ B[task].T for row, task in zip(x, tasks.tolist(), strict=True)]
    return torch.stack(rows) * scaling


def batched_groups(x, A, B, tasks, scaling):
    """Une passe par tâche présente, sur les lignes qui en sont."""
    out = x.new_zeros(*x.shape[:2], B.shape[1])
    for task in tasks.unique().tolist():
        mine = tasks == task
        out[mine] = (x[mine] @ A[task].mT) @ (B[task].mT * scaling)
    return out


def batched_bmm(x, A, B, tasks, scaling):
    index = tasks.to(torch.int64)
    low = torch.bmm(x, A.index_select(0, index).mT)
    return torch.bmm(low, B.index_select(0, index).mT).mul(scaling)


styles = [batched_einsum, batched_loop, batched_groups, batched_bmm]
