"""Exercice `dequantize_affine` du chapitre 3."""

from __future__ import annotations

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from ._common import code_range


def draw_dequantize(d: Draw, group: str) -> Inputs:
    bits, signed = d.turn([(8, True), (8, False), (16, True)] if group == "types" else [(8, True), (8, False)])
    dtype = torch.int32 if bits > 8 else torch.int8 if signed else torch.uint8
    q_min, q_max = code_range(bits, signed)
    zero_point = d.integer(q_min // 4 + 1, q_max // 4) if signed else d.integer(q_max // 4, 3 * q_max // 4)
    zero_point += 3 if abs(zero_point) < 3 else 0
    q = d.integers(q_min, q_max, *d.turn([(3, 4), (7,), (2, 3, 2)]))
    if group == "extrêmes":
        zero_point = d.turn([q_max, q_max, q_min]) + d.integer(0, 9) * (1 if d.index % 3 == 2 else -1)
        q.view(-1)[:3] = torch.tensor([q_min, q_max, zero_point])
    q = q.to(dtype)
    if group == "types":
        q = d.turn([lambda t: t.view(-1)[0], d.strided, lambda t: t, lambda t: t.to(torch.int32)])(q)
    scale = d.uniform(0.01, 0.4) if bits == 8 else d.uniform(0.0005, 0.002)
    return {"q": q, "scale": scale, "zero_point": zero_point}


exercise = Exercise(
    points=1,
    minutes=3,
    hints=[
        "Quel réel doit rendre le code Z ? Et le code Z + 1 ?",
        "Un code et Z peuvent être aux deux bouts de leur type : dans lequel la soustraction se fait-elle ?",
    ],
    groups={"courant": 0.5, "extrêmes": 0.25, "types": 0.25},
    draw=draw_dequantize,
    examples=[{"q": torch.tensor([-128, 0, 5, 127], dtype=torch.int8), "scale": 0.1, "zero_point": 5}],
    tolerance=Tolerance(rtol=1e-5, atol=3e-5, why="S·q et S·Z calculés à part en float32 ; un pas vaut 5e-4 au moins"),
)


misconceptions = """\
sq_minus_z   scale * (q.to(torch.float32) - zero_point) → scale * q.to(torch.float32) - zero_point
    Z est compté en pas, pas en unités réelles.

overflow_int8   q.to(torch.float32) - zero_point → q - torch.tensor(zero_point, dtype=q.dtype)
    Dans quel type faites-vous la soustraction ? −128 − 127 ne tient pas sur 8 bits.

plus   q.to(torch.float32) - zero_point → q.to(torch.float32) + zero_point
    Le code Z doit redonner exactement zéro.

no_zero_point   q.to(torch.float32) - zero_point → q.to(torch.float32)
    Chez vous c'est le code 0 qui rend zéro : de quel code la grille est-elle comptée ?

divides   scale * (q.to(torch.float32) - zero_point) → (q.to(torch.float32) - zero_point) / scale
    Un code compte des pas ; un pas a une longueur. Comment passe-t-on d'un nombre de pas à une distance ?

float64   q.to(torch.float32) → q.to(torch.float64)
    Les valeurs sont bonnes, le type demandé est float32.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def dequantize_loops(q, scale, zero_point):
    values = [scale * (v - zero_point) for v in q.flatten().tolist()]
    return torch.tensor(values, dtype=torch.float32).reshape(q.shape)


def dequantize_float64(q, scale, zero_point):
    return ((q.to(torch.float64) - zero_point) * scale).to(torch.float32)


def dequantize_distributed(q, scale, zero_point):
    return q.float() * scale - scale * zero_point


def dequantize_integers(q, scale, zero_point):
    return q.to(torch.int64).sub(zero_point).float().mul(torch.tensor(scale))


def dequantize_numpy(q, scale, zero_point):
    return torch.tensor(scale * (q.numpy().astype(np.int64) - zero_point), dtype=torch.float32)


def dequantize_library(q, scale, zero_point):
    if q.dtype == torch.int32:
        return dequantize_float64(q, scale, zero_point)
    return torch._make_per_tensor_quantized_tensor(q.contiguous(), scale, zero_point).dequantize()


styles = [
    dequantize_loops,
    dequantize_float64,
    dequantize_distributed,
    dequantize_integers,
    dequantize_numpy,
    dequantize_library,
]
