"""Exercice `absmax_per_channel` du chapitre 3."""

from __future__ import annotations

import numpy as np
import torch
from torch.ao.quantization import PerChannelMinMaxObserver

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import ONE_DIVISION


def draw_per_channel(d: Draw, group: str) -> Inputs:
    bits = d.turn([8, 4, 6, 3])
    if group == "courant":
        shape, axis = d.turn([((3, 5), 0), ((3, 5), 1), ((6, 2), 0), ((4, 7), 1)])
    elif group == "formes":
        shape, axis = d.turn(
            [((4, 4), 1), ((2, 3, 4), 1), ((3, 5), -1), ((3, 2, 2, 2), -2), ((2, 3, 4), 2), ((4, 4), 0), ((2, 4, 3), 0)]
        )
    else:
        shape, axis = d.turn([((3, 4), 0), ((4, 3), 1), ((2, 5), 0), ((3, 3), 1)])
    w = d.normal(*shape)
    for i, part in enumerate(w.movedim(axis, 0)):
        part *= (0.3 + i) / part.abs().max()
        if (part.max() > -part.min()) == (i % 2 == 0):  # une tranche sur deux a son extrême du côté négatif
            part *= -1
    if group == "bords":
        w.select(axis, d.integer(0, shape[axis] - 1)).zero_()
        w = d.turn([w, d.strided(w), w.double(), w.half(), w.T.contiguous().T, w.bfloat16()])
    if group == "courant" and d.index == 0:
        return {"w": w}
    return {"w": w, "bits": bits, "axis": axis}


exercise = Exercise(
    points=2,
    minutes=8,
    stars=2,
    hints=[
        "Combien d'échelles voulez-vous ? Quels axes doivent donc disparaître dans le maximum ?",
        "Un maximum peut porter sur plusieurs axes à la fois et les garder avec la taille 1.",
        "Une tranche nulle n'a pas de maximum dont on puisse faire un pas ; et un axe peut se compter depuis la fin.",
    ],
    groups={"courant": 0.4, "formes": 0.35, "bords": 0.25},
    draw=draw_per_channel,
    cases=7,
    visible=3,
    examples=[{"w": torch.tensor([[0.5, -1.27], [2.54, 0.0], [0.0, 0.0]])}],
    tolerance=ONE_DIVISION,
)


misconceptions = """\
reduces_axis   if d != axis % w.ndim → if d == axis % w.ndim
    Vous avez fait disparaître l'axe qu'il fallait garder.

not_broadcastable   keepdim=True → keepdim=False
    Divisez le poids par votre résultat : la forme ne s'aligne pas, ou s'aligne sur le mauvais axe.

single_scale   w.abs().amax(dim=others, keepdim=True)
    → w.abs().amax(dim=others, keepdim=True).clone().fill_(w.abs().max())
    Toutes vos échelles sont égales : une seule ligne décide pour toutes.

only_2d   w.abs().amax(dim=others, keepdim=True) → w.abs().amax(dim=1 - axis % w.ndim, keepdim=True)
    Il peut y avoir plus de deux axes : lesquels doivent disparaître dans le maximum ?

axis_ignored   if d != axis % w.ndim → if d != 0
    Vos tranches sont toujours des lignes : changez `axis` et regardez la forme du résultat.

negative_axis   if d != axis % w.ndim → if d != axis
    Un axe peut être compté depuis la fin : quel axe est −1 ?

no_abs   w.abs().amax(dim=others, keepdim=True) → w.amax(dim=others, keepdim=True)
    Dans certaines tranches, le plus grand écart à zéro est négatif.

zero_scale   torch.where(peak > 0, peak / (2 ** (bits - 1) - 1), torch.ones_like(peak))
    → peak / (2 ** (bits - 1) - 1)
    Une tranche nulle vous donne une échelle par laquelle on ne pourra pas diviser.

full_range   (2 ** (bits - 1) - 1) → 2 ** (bits - 1)
    Le plus grand code positif est 2^(b−1) − 1 : combien de pas y a-t-il de 0 à lui ?

signed_levels   (2 ** (bits - 1) - 1) → (2**bits - 1)
    Tous vos codes ne servent pas : combien restent d'un seul côté de zéro ?

bits_ignored   (2 ** (bits - 1) - 1) → 127
    Changez le nombre de bits : vos échelles ne bougent pas.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def channel_loops(w, bits=8, axis=0):
    shape = [1] * w.ndim
    shape[axis] = w.shape[axis]
    scales = w.new_ones(shape)
    for i in range(w.shape[axis]):
        peak = w.select(axis, i).abs().max()
        if peak > 0:
            scales.select(axis, i)[...] = peak / (2 ** (bits - 1) - 1)
    return scales


def channel_flat(w, bits=8, axis=0):
    rows = w.movedim(axis, 0).flatten(1).double()
    peak = torch.maximum(rows.max(dim=1).values, -rows.min(dim=1).values)
    scales = (peak / (2 ** (bits - 1) - 1)).masked_fill(peak == 0, 1.0)
    return scales.to(w.dtype).reshape([-1 if d == axis % w.ndim else 1 for d in range(w.ndim)])


def channel_numpy(w, bits=8, axis=0):
    a = np.abs(w.double().numpy())
    axis = axis + a.ndim if axis < 0 else axis
    peak = a.max(axis=tuple(d for d in range(a.ndim) if d != axis), keepdims=True)
    return torch.tensor(np.where(peak == 0, 1.0, peak / (2 ** (bits - 1) - 1))).to(w.dtype)


def channel_observer(w, bits=8, axis=0):
    axis %= w.ndim
    top = 2 ** (bits - 1) - 1
    observer = PerChannelMinMaxObserver(
        ch_axis=axis, dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-top, quant_max=top
    )
    observer(w.float())
    scales, _ = observer.calculate_qparams()
    zero = torch.maximum(observer.max_val, -observer.min_val) == 0
    scales = torch.where(zero, torch.ones_like(scales), scales).to(w.dtype)
    return scales.reshape([-1 if d == axis else 1 for d in range(w.ndim)])


styles = [channel_loops, channel_flat, channel_numpy, channel_observer]
