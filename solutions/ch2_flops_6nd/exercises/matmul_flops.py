"""Exercice `matmul_flops` du chapitre 2."""

from __future__ import annotations

import math

import numpy as np

from atelier.judging.exercise import Draw, Exercise, Inputs


def _three_sizes(d: Draw, low: int, high: int) -> list[int]:
    """Trois tailles différentes, dans un ordre quelconque."""
    first = d.integer(low, high)
    sizes = [first, first + d.integer(2, high), 2 * first + high + d.integer(1, high)]
    d.random.shuffle(sizes)
    return sizes


def draw_matmul(d: Draw, group: str) -> Inputs:
    sizes = _three_sizes(d, 3, 60)
    if group == "bords":
        big = 2**31 + d.integer(1, 10**6)
        sizes = d.turn([[1, *sizes[1:]], [sizes[0], sizes[1], 1], [sizes[0], 1, sizes[2]], [big, 2 * big + 1, big - 7]])
    return dict(zip(("m", "k", "n"), sizes, strict=True))


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Combien de nombres compte le résultat, et combien de multiplications chacun demande-t-il ?",
        "Une case du résultat est un produit scalaire de k termes : k multiplications, et autant d'additions si l'on "
        "part de zéro.",
        "Pour (2 × 3)·(3 × 4) : huit cases, et six opérations pour chacune. Qu'est-ce qui, ici, vaut 8, et qu'est-ce "
        "qui vaut 6 ?",
    ],
    groups={"courant": 0.75, "bords": 0.25},
    draw=draw_matmul,
    visible=4,
    examples=[{"m": 2, "k": 3, "n": 4}],
)


misconceptions = """\
macs   per_entry = 2 * k → per_entry = k
    Vous comptez les multiplications-additions ; chacune fait deux opérations.

exact_adds   per_entry = 2 * k → per_entry = 2 * k - 1
    C'est le compte exact des additions, mais la convention du domaine compte une addition par multiplication.

no_inner   per_entry = 2 * k → per_entry = 2
    Vous comptez les cases du résultat : combien de travail faut-il pour chacune ?

inputs_read   return m * n * per_entry → return 2 * (m * k + k * n)
    Vous comptez les nombres lus ; chaque nombre lu sert pourtant à plusieurs cases du résultat.

square   return m * n * per_entry → return 2 * m**3
    Essayez avec trois dimensions différentes.

float_path   return m * n * per_entry → return int(2.0 * m * k * n)
    Sur de très grandes matrices, vos derniers chiffres sont faux : un flottant n'a que 53 bits pour eux.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def matmul_one_line(m, k, n):
    return 2 * m * k * n


def matmul_muls_and_adds(m, k, n):
    multiplications = math.prod((m, k, n))
    additions = multiplications
    return multiplications + additions


def matmul_shifted(m, k, n):
    return (n * k * m) << 1


def matmul_numpy(m, k, n):
    """numpy tant que cela tient sur 64 bits, Python ensuite."""
    if m * k * n < 2**60:
        return int(np.int64(2) * np.int64(m) * np.int64(k) * np.int64(n))
    return sum((m * k * n, m * k * n))


styles = [matmul_one_line, matmul_muls_and_adds, matmul_shifted, matmul_numpy]
