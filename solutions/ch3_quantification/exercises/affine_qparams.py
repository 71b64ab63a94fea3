"""Exercice `affine_qparams` du chapitre 3."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from torch.ao.quantization import MinMaxObserver

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from ._common import code_range


def draw_qparams(d: Draw, group: str) -> Inputs:
    if group == "refus":
        finite, bad = d.uniform(0.5, 3.0), d.choice([8, 4])
        return d.turn(
            [
                {"r_min": finite, "r_max": -finite, "bits": bad},
                {"r_min": -finite, "r_max": math.inf, "bits": bad},
                {"r_min": -finite, "r_max": finite, "bits": 1},
                {"r_min": 2 * finite, "r_max": finite, "bits": bad},
                {"r_min": -finite, "r_max": math.nan, "bits": bad},
                {"r_min": -finite, "r_max": -2 * finite, "bits": bad},
                {"r_min": -math.inf, "r_max": finite, "bits": bad},
                {"r_min": -finite, "r_max": finite, "bits": d.choice([0, -1])},
                {"r_min": math.nan, "r_max": finite, "bits": bad},
            ]
        )
    bits, signed = d.turn([(8, True), (8, False), (4, True), (3, False), (6, True), (16, False), (2, True)])
    q_min, q_max = code_range(bits, signed)
    if group == "un seul côté":
        step = d.integer(33, 95) / 64 / 2 ** (bits - 1)  # pas exact, donc Z aussi, de quelque façon qu'on l'arrondisse
        low, high = step * (q_max - q_min), 3 * step * (q_max - q_min)
        pairs = [(low, high), (-high, -low), (0.0, 0.0), (0.0, high), (-high, 0.0), (low, low), (-low, -low)]
        r_min, r_max = d.turn(pairs)
        return {"r_min": r_min, "r_max": r_max, "bits": bits, "signed": signed}
    scale = d.uniform(0.2, 3.0) / 2 ** (bits - 1)
    code = d.integer(q_min + 1, q_max - 1) if bits > 2 else q_max
    if signed and bits > 2:  # un Z négatif au moins, et jamais trop près de 0
        code = d.integer(3, q_max // 2 + 1) * (1 if d.index % 4 == 2 else -1)
    gap = d.uniform(0.1, 0.4) * (-1 if d.index % 2 else 1)
    zero = min(max(code + gap, q_min + 0.1), q_max - 0.1)
    r_min = (q_min - zero) * scale
    inputs = {"r_min": r_min, "r_max": r_min + scale * (q_max - q_min), "bits": bits, "signed": signed}
    return {"r_min": r_min, "r_max": inputs["r_max"]} if d.index == 0 else inputs


exercise = Exercise(
    points=3,
    minutes=10,
    stars=2,
    hints=[
        "Deux inconnues, deux conditions : sur quels codes doivent tomber r_min et r_max ?",
        "Retranchez les deux équations r = S·(q − Z) écrites aux deux bouts : Z disparaît, il reste S.",
        "Que devient Z si l'intervalle ne contient pas 0 ? Et si r_min / S n'est pas un entier ?",
    ],
    groups={"courant": 0.5, "un seul côté": 0.4, "refus": 0.1},
    draw=draw_qparams,
    cases=9,
    visible=3,
    examples=[
        {"r_min": -1.0, "r_max": 3.0, "bits": 8, "signed": False},
        {"r_min": -3.0, "r_max": 1.0},
        {"r_min": 2.0, "r_max": 6.0, "bits": 4},
        {"r_min": 0.0, "r_max": 0.0},
        {"r_min": -1.5, "r_max": -1.5, "bits": 2},
        {"r_min": 3.0, "r_max": 1.0},
    ],
    tolerance=Tolerance(rtol=1e-5, why="S peut être calculée en float32 ; Z est un entier exact"),
)


misconceptions = """\
no_widen
    - r_min, r_max = min(r_min, 0.0), max(r_max, 0.0)
    Le zéro réel doit tomber sur un entier ; avec cet intervalle il n'y est même pas.

2_pow_bits   (r_max - r_min) / (q_max - q_min) → (r_max - r_min) / 2**bits
    Combien y a-t-il d'intervalles entre 256 valeurs ?

truncated   round(q_min - r_min / scale) → int(q_min - r_min / scale)
    Votre Z est parfois trop grand ou trop petit d'une unité : de quel côté coupez-vous ?

floored   round(q_min - r_min / scale) → math.floor(q_min - r_min / scale)
    Votre Z est souvent trop petit d'une unité, jamais trop grand : l'entier du dessous n'est pas toujours le plus
    proche.

sign_z   round(q_min - r_min / scale) → round(q_min + r_min / scale)
    Vérifiez que r_min retombe bien sur q_min.

z_is_rmin_over_s   round(q_min - r_min / scale) → round(-r_min / scale)
    Votre Z est juste pour un type non signé ; d'où part la grille ici ?

z_in_reals   round(q_min - r_min / scale) → round(q_min - r_min)
    Z est un code : la distance de r_min à zéro s'y compte en pas, pas en unités réelles.

symmetric   = _symmetric_qparams
    Vous imposez Z = 0 : c'est un autre schéma, qui gaspille des codes ici.

signed_exchanged   if signed else → if not signed else
    Les plages signée et non signée sont échangées : laquelle permet d'écrire −1 ?

signed_ignored   if signed else → if True else
    Que le type soit signé ou non, votre Z est le même : d'où part la grille d'un type non signé ?

unsigned_only   if signed else → if False else
    Votre grille part toujours de 0 : combien de codes d'un type signé restent inutilisés ?

bits_ignored
    - q_min, q_max = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    + bits = 8
    + q_min, q_max = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    Changez le nombre de bits : votre réponse ne bouge pas.

zero_range
    - if r_min == r_max:
    -     return 1.0, 0
    Un intervalle réduit à zéro donne une échelle nulle : que demande l'énoncé dans ce cas ?

no_finite_check   if not (math.isfinite(r_min) and math.isfinite(r_max)): → if False:
    Que vaut un pas quand l'intervalle est infini ? L'énoncé demande de refuser une telle borne.

no_bits_check   if bits < 2: → if False:
    Avec un seul bit, ou aucun, la formule n'a plus de sens : l'énoncé demande de refuser.

no_order_check   if r_min > r_max: → if False:
    Un intervalle dont le début dépasse la fin passe chez vous : regardez-vous l'ordre des bornes, et avant de les
    élargir ?
"""


def _symmetric_qparams(r_min: float, r_max: float, bits: int = 8, signed: bool = True) -> tuple[float, int]:
    q_max = code_range(bits, signed)[1]
    return max(abs(r_min), abs(r_max)) / q_max or 1.0, 0


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def _refuse(r_min, r_max, bits):
    if bits < 2 or not (-math.inf < r_min <= r_max < math.inf):
        raise ValueError("intervalle ou nombre de bits refusé")


def qparams_float32(r_min, r_max, bits=8, signed=True):
    _refuse(r_min, r_max, bits)
    low, high = torch.tensor(min(0.0, r_min)), torch.tensor(max(0.0, r_max))
    q_min = -(1 << bits - 1) if signed else 0
    q_max = q_min + (1 << bits) - 1
    if low == high:
        return 1.0, 0
    scale = (high - low) / (q_max - q_min)
    return scale.item(), int((q_min - torch.round(low / scale)).clamp(q_min, q_max))


def qparams_exact(r_min, r_max, bits=8, signed=True):
    _refuse(r_min, r_max, bits)
    low, high = Fraction(min(0.0, r_min)), Fraction(max(0.0, r_max))
    if low == high:
        return 1.0, 0
    scale = (high - low) / (2**bits - 1)
    start = -(2 ** (bits - 1)) if signed else 0
    return float(scale), round(start - low / scale)


def qparams_numpy(r_min, r_max, bits=8, signed=True):
    _refuse(r_min, r_max, bits)
    codes = np.arange(2**bits) - (2 ** (bits - 1) if signed else 0)
    low, high = np.minimum(r_min, 0.0), np.maximum(r_max, 0.0)
    if high - low == 0:
        return 1.0, 0
    scale = (high - low) / (codes[-1] - codes[0])
    return float(scale), int(np.clip(np.rint(codes[-1] - high / scale), codes[0], codes[-1]))


def qparams_observer(r_min, r_max, bits=8, signed=True):
    _refuse(r_min, r_max, bits)
    if bits > 8 or r_min == r_max == 0:
        return qparams_float32(r_min, r_max, bits, signed)
    q_min = -(2 ** (bits - 1)) if signed else 0
    dtype = torch.qint8 if signed else torch.quint8
    observer = MinMaxObserver(dtype=dtype, quant_min=q_min, quant_max=q_min + 2**bits - 1)
    observer(torch.tensor([r_min, r_max]))
    scale, zero_point = observer.calculate_qparams()
    return scale.item(), zero_point.item()


styles = [qparams_float32, qparams_exact, qparams_numpy, qparams_observer]
