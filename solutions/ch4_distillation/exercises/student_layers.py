"""Exercice `student_layers` du chapitre 4."""

from __future__ import annotations

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs


def _is_tie(n_teacher: int, n_student: int) -> bool:
    """Un rang tombe-t-il juste à mi-chemin de deux couches ?"""
    return any((2 * i * (n_teacher - 1)) % (2 * (n_student - 1)) == n_student - 1 for i in range(n_student))


def draw_layers(d: Draw, group: str) -> Inputs:
    if group == "refus":
        n = d.integer(3, 12)
        return d.turn(
            [
                {"n_teacher": n, "n_student": n + d.integer(1, 3)},
                {"n_teacher": n, "n_student": 0},
                {"n_teacher": n, "n_student": -d.integer(1, 3)},
                {"n_teacher": 4, "n_student": 5},
            ]
        )
    if group == "bords":
        n = d.integer(4, 24)
        pairs = [(n, 1), (n, 2), (n, n), (1, 1)]
        return dict(zip(("n_teacher", "n_student"), d.turn(pairs), strict=True))
    if group == "mi-chemin":  # un pas de k/2 ou k/4, exact en binaire
        pairs = [(6, 3), (4 * d.integer(2, 5) + 2, 3), (4 * d.integer(2, 5) + 3, 5), (4 * d.integer(2, 6), 3)]
        return dict(zip(("n_teacher", "n_student"), d.turn(pairs), strict=True))
    while True:
        n_teacher = d.integer(8, 48)
        n_student = d.integer(3, n_teacher // 2)
        uneven = (n_teacher - 1) % (n_student - 1)
        if uneven and not _is_tie(n_teacher, n_student):
            return {"n_teacher": n_teacher, "n_student": n_student}


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Entre la première et la dernière couche, combien d'intervalles un élève de n couches laisse-t-il ?",
        "Placez les couches de l'élève sur le chemin qui va de 0 à n_enseignant − 1, à égale distance, sans arrondir : "
        "où tombe la couche i ?",
        "Il reste à arrondir : à mi-chemin, round de Python va au pair. Et s'il n'y a qu'une couche, par quoi "
        "diviseriez-vous ?",
    ],
    groups={"courant": 0.55, "bords": 0.2, "mi-chemin": 0.15, "refus": 0.1},
    draw=draw_layers,
    visible=3,
    examples=[{"n_teacher": 12, "n_student": 6}, {"n_teacher": 5, "n_student": 2}],
)


misconceptions = """\
first_n   [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)] → list(range(n_student))
    La fin du réseau n'a aucun héritier.

last_n   [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    → list(range(n_teacher - n_student, n_teacher))
    Le début du réseau n'a aucun héritier.

stride_misses_last   [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    → [i * (n_teacher // n_student) for i in range(n_student)]
    Première et dernière couches sont demandées.

even_misses_last   [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    → [round(i * n_teacher / n_student) for i in range(n_student)]
    Vous partagez en autant de morceaux que l'élève a de couches : la dernière couche n'est jamais atteinte.

truncated   [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    → [i * (n_teacher - 1) // (n_student - 1) for i in range(n_student)]
    Vos couches glissent toutes vers le début.

rounded_up   [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    → [-(-i * (n_teacher - 1) // (n_student - 1)) for i in range(n_student)]
    Vos couches glissent toutes vers la fin.

half_up   [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    → [int(i * (n_teacher - 1) / (n_student - 1) + 0.5) for i in range(n_student)]
    À mi-chemin de deux couches, l'énoncé demande la paire ; vous montez toujours.

half_down   [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    → [-int(0.5 - i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    À mi-chemin de deux couches, l'énoncé demande la paire ; vous descendez toujours.

one_based   [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    → [1 + round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    Vos numéros commencent à 1 : la première couche porte le numéro 0.

division_by_zero   if n_student == 1: → if False:
    Et pour un élève d'une seule couche ?

single_is_last   return [0] → return [n_teacher - 1]
    Un élève d'une seule couche hérite, dans cet énoncé, de la première.

no_upper_check   if not 1 <= n_student <= n_teacher: → if n_student < 1:
    Un élève plus profond que son enseignant recevrait deux fois la même couche : il faut le refuser.

no_lower_check   if not 1 <= n_student <= n_teacher: → if n_student > n_teacher:
    Un élève sans couche, ou qui en a moins que zéro, n'existe pas : l'énoncé demande de le refuser.

same_depth_refused   if not 1 <= n_student <= n_teacher: → if not 1 <= n_student < n_teacher:
    Un élève aussi profond que son enseignant est permis : il en reprend toutes les couches.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def _refuse_depth(n_teacher, n_student):
    if n_student < 1 or n_student > n_teacher:
        raise ValueError("couches")


def layers_linspace(n_teacher, n_student):
    _refuse_depth(n_teacher, n_student)
    return np.linspace(0, n_teacher - 1, n_student).round().astype(int).tolist()


def layers_torch(n_teacher, n_student):
    _refuse_depth(n_teacher, n_student)
    return torch.linspace(0, n_teacher - 1, n_student).round().long().tolist()


def layers_step(n_teacher, n_student):
    _refuse_depth(n_teacher, n_student)
    step = (n_teacher - 1) / max(n_student - 1, 1)
    kept = []
    for i in range(n_student):
        kept.append(int(round(i * step)))
    return kept


def layers_integers(n_teacher, n_student):
    """L'arrondi au pair, en entiers seulement."""
    _refuse_depth(n_teacher, n_student)
    if n_student == 1:
        return [0]
    kept = []
    for i in range(n_student):
        low, rest = divmod(i * (n_teacher - 1), n_student - 1)
        up = 2 * rest > n_student - 1 or (2 * rest == n_student - 1 and low % 2 == 1)
        kept.append(low + up)
    return [int(k) for k in kept]


styles = [layers_linspace, layers_torch, layers_step, layers_integers]
