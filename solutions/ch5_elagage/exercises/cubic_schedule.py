"""Exercice `cubic_schedule` du chapitre 5."""

from __future__ import annotations

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def draw_cubic(d: Draw, group: str) -> Inputs:
    start, length = d.integer(20, 90), d.integer(100, 200)
    end = start + length
    parts = {"final_sparsity": round(d.uniform(0.6, 0.95), 3)}
    if d.index % 2 or group == "bords":
        parts["initial_sparsity"] = round(d.uniform(0.1, 0.4), 3)
    if group == "courant":
        return {"step": start + d.integer(length // 6, 5 * length // 6), "start": start, "end": end, **parts}
    if group == "bords":
        step = d.turn([start - d.integer(5, 19), end + d.integer(5, 60), start, end])
        return {"step": step, "start": start, "end": end, **parts}
    step = start + length // 2
    return d.turn(
        [
            {"step": step, "start": end, "end": start, **parts},
            {"step": step, "start": start, "end": start, **parts},
        ]
    )


exercise = Exercise(
    points=1,
    minutes=10,
    stars=3,
    hints=[
        "À mi-chemin, il reste la moitié du temps : quelle part de ce qu'il y avait à retirer reste-t-il à retirer ?",
        "De start à end, quelle part du temps reste-t-il au pas step ? Combien vaut-elle avant start, et après end ?",
        "Ce qui est retiré, c'est ce qui le sera à la fin, moins ce qui reste à retirer.",
    ],
    groups={"courant": 0.65, "bords": 0.25, "refus": 0.1},
    draw=draw_cubic,
    examples=[
        {"step": 50, "start": 0, "end": 100, "final_sparsity": 0.8},
        {"step": 50, "start": 50, "end": 50, "final_sparsity": 0.8},
    ],
    tolerance=Tolerance(rtol=1e-6, atol=1e-9, why="un cube, peut-être en float32"),
)


misconceptions = """\
linear   (1 - progress) ** 3 → (1 - progress)
    Le vrai programme retire beaucoup tôt et peu à la fin : le vôtre va toujours à la même allure.

quadratic   ** 3 → ** 2
    La forme est bonne, l'exposant non : relisez le nom de la fonction.

exponent_misplaced   final_sparsity + (initial_sparsity - final_sparsity) * (1 - progress) ** 3
    → initial_sparsity + (final_sparsity - initial_sparsity) * progress**3
    Votre courbe part lentement et finit vite.

swapped   final_sparsity + (initial_sparsity - final_sparsity) * (1 - progress) ** 3
    → initial_sparsity + (final_sparsity - initial_sparsity) * (1 - progress) ** 3
    Votre courbe redescend : où doit-elle arriver ?

not_clamped   min(max((step - start) / (end - start), 0.0), 1.0) → (step - start) / (end - start)
    Après la fin, la parcimonie continue de bouger.

not_clamped_before   min(max((step - start) / (end - start), 0.0), 1.0) → min((step - start) / (end - start), 1.0)
    Avant le début, votre courbe a déjà bougé.

not_clamped_after   min(max((step - start) / (end - start), 0.0), 1.0) → max((step - start) / (end - start), 0.0)
    Votre courbe se retourne après la fin : que vaut un cube négatif ?

start_ignored   min(max((step - start) / (end - start), 0.0), 1.0) → min(max(step / end, 0.0), 1.0)
    Au premier pas vous n'êtes déjà plus au point de départ.

end_as_duration   min(max((step - start) / (end - start), 0.0), 1.0) → min(max((step - start) / end, 0.0), 1.0)
    end est un pas, pas une durée : au pas end, votre courbe n'est pas arrivée.

initial_ignored   (initial_sparsity - final_sparsity) → (-final_sparsity)
    Votre courbe part toujours de zéro : un modèle peut être déjà un peu élagué.

no_order_check   if start >= end: → if False:
    Un élagage qui finit avant de commencer : votre fonction répond quand même, au lieu de refuser.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def _check_schedule(start, end, *parts):
    if end <= start or any(p < 0 or p > 1 for p in parts):
        raise ValueError("programme")


def cubic_cases(step, start, end, final_sparsity, initial_sparsity=0.0):
    _check_schedule(start, end, final_sparsity, initial_sparsity)
    if step <= start:
        return initial_sparsity
    if step >= end:
        return final_sparsity
    left = (end - step) / (end - start)
    return final_sparsity - (final_sparsity - initial_sparsity) * left**3


def cubic_torch(step, start, end, final_sparsity, initial_sparsity=0.0):
    _check_schedule(start, end, final_sparsity, initial_sparsity)
    p = torch.tensor((step - start) / (end - start), dtype=torch.float64).clamp(0, 1)
    return torch.lerp(
        torch.tensor(initial_sparsity, dtype=torch.float64),
        torch.tensor(final_sparsity, dtype=torch.float64),
        1 - (1 - p) ** 3,
    ).item()


def cubic_numpy(step, start, end, final_sparsity, initial_sparsity=0.0):
    _check_schedule(start, end, final_sparsity, initial_sparsity)
    return np.interp(step, [start, end], [0.0, 1.0]) * 0 + (
        final_sparsity + (initial_sparsity - final_sparsity) * (1 - np.clip((step - start) / (end - start), 0, 1)) ** 3
    )


styles = [cubic_cases, cubic_torch, cubic_numpy]
