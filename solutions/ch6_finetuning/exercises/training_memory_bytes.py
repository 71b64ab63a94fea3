"""Exercice `training_memory_bytes` du chapitre 6."""

from __future__ import annotations

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs


def draw_memory(d: Draw, group: str) -> Inputs:
    n = d.integer(10**5, 10**9)
    if group == "bords":
        return {"n_params": n, "n_trainable": d.turn([0, 0, n, 1])}
    if d.index % 4 == 2:
        return {"n_params": n}
    return {"n_params": n, "n_trainable": d.integer(10**3, n // 3)}


exercise = Exercise(
    points=2,
    minutes=10,
    stars=1,
    hints=[
        "Faites deux listes : ce qu'il faut garder pour tout poids, et ce qu'il faut de plus pour un poids qui "
        "apprend.",
        "Un poids qui apprend a un gradient (2 octets), une copie précise (4 octets) et deux moments d'Adam (4 octets "
        "chacun).",
        "Un modèle entièrement entraîné coûte 16 octets par paramètre ; un modèle gelé, 2.",
    ],
    groups={"courant": 0.85, "bords": 0.15},
    draw=draw_memory,
    visible=4,
    examples=[{"n_params": 1000}, {"n_params": 1000, "n_trainable": 10}, {"n_params": 1000, "n_trainable": 0}],
)


misconceptions = """\
trainable_ignored   return 2 * n_params + (2 + 4 + 8) * trainable → return 16 * n_params + 0 * trainable
    Un poids gelé n'a ni gradient, ni copie, ni mémoire d'Adam : il ne coûte que ses 2 octets.

moments_for_all   return 2 * n_params + (2 + 4 + 8) * trainable → return 10 * n_params + 6 * trainable
    Adam ne garde rien d'un poids gelé : vous comptez ses deux moments pour tous.

four_bytes_frozen   return 2 * n_params + (2 + 4 + 8) * trainable → return 4 * n_params + 12 * trainable
    Un poids gelé ne coûte que 2 octets ; vous lui en donnez 4 : un gradient qu'il ne reçoit pas, ou une écriture en
    FP32 que la précision mixte évite ?

four_bytes_short   return 2 * n_params + (2 + 4 + 8) * trainable → return 2 * n_params + 10 * trainable
    Il manque quatre octets par poids entraîné : la copie en FP32, où s'accumulent les petites mises à jour, ou l'un
    des deux moments d'Adam ?

no_moments   return 2 * n_params + (2 + 4 + 8) * trainable → return 2 * n_params + 6 * trainable
    Que retient Adam d'un pas à l'autre ? Votre compte est celui d'une descente de gradient sans mémoire.

no_gradient   return 2 * n_params + (2 + 4 + 8) * trainable → return 2 * n_params + 12 * trainable
    Entre le passage arrière et la mise à jour, il faut bien que les gradients soient quelque part.

gradient_in_fp32   return 2 * n_params + (2 + 4 + 8) * trainable → return 2 * n_params + 16 * trainable
    Les gradients ont ici le type des poids, 2 octets : vous les comptez en FP32.

frozen_forgotten   return 2 * n_params + (2 + 4 + 8) * trainable → return 16 * trainable
    Les poids gelés ne s'entraînent pas, mais il faut bien les avoir en mémoire pour calculer.

in_bits   return 2 * n_params + (2 + 4 + 8) * trainable → return 8 * (2 * n_params + 14 * trainable)
    Votre compte est en bits ; l'énoncé demande des octets.

truthiness   n_params if n_trainable is None else n_trainable → n_trainable or n_params
    Que rend votre fonction quand rien n'est entraîné ? Zéro n'est pas une absence de réponse.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def memory_lists(n_params, n_trainable=None):
    if n_trainable is None:
        n_trainable = n_params
    per_trained = sum({"gradient": 2, "copie": 4, "moment 1": 4, "moment 2": 4}.values())
    return n_params * 2 + n_trainable * per_trained


def memory_frozen(n_params, n_trainable=None):
    trained = n_params if n_trainable is None else n_trainable
    frozen = n_params - trained
    return 16 * trained + 2 * frozen


def memory_dtypes(n_params, n_trainable=None):
    half, full = torch.bfloat16.itemsize, torch.float32.itemsize
    learning = n_params if n_trainable is None else n_trainable
    return half * (n_params + learning) + 3 * full * learning


styles = [memory_lists, memory_frozen, memory_dtypes]
