"""Exercice `absmax_scale` du chapitre 3."""

from __future__ import annotations

import math

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import ONE_DIVISION, code_range


def _with_negative_peak(d: Draw, *shape: int) -> torch.Tensor:
    """Tenseur gaussien dont la valeur la plus grande en valeur absolue est négative et unique."""
    r = d.normal(*shape)
    r.view(-1)[d.integer(0, r.numel() - 1)] = -1.5 * r.abs().max()
    return r


def draw_absmax(d: Draw, group: str) -> Inputs:
    bits, full_range = d.turn([(8, False), (4, True), (3, False), (8, True), (2, False), (6, True)])
    r = _with_negative_peak(d, *d.turn([(4, 5), (9,), (2, 3, 4)])) * d.turn([0.02, 30.0, 1.0])
    if group == "bords":
        zeros = torch.zeros(*d.turn([(3, 2), (3, 2), (4,)]), dtype=d.choice([torch.float32, torch.float64]))
        r = d.turn([-r.abs() - 0.01, zeros, -r.abs().max(), r.abs(), zeros, r.view(-1)[:1]])
    if group == "types":
        r = d.turn([r.double(), r.half(), d.strided(r), r.bfloat16(), d.strided(r.double()), r.T if r.ndim == 2 else r])
    if group == "courant" and d.index == 0:
        return {"r": r}
    return {"r": r, "bits": bits, "full_range": full_range}


exercise = Exercise(
    points=2,
    minutes=6,
    hints=[
        "Combien de pas y a-t-il de 0 au plus grand code positif ?",
        "Sur b bits signés, les codes vont de −2^(b−1) à 2^(b−1) − 1. Lesquels sont symétriques ?",
        "Quel élément doit tomber au bout de la grille, et à quel bout ? Un tenseur nul, lui, est à part.",
    ],
    groups={"courant": 0.5, "bords": 0.3, "types": 0.2},
    draw=draw_absmax,
    cases=6,
    visible=3,
    examples=[
        {"r": torch.tensor([0.5, -2.54, 1.0])},
        {"r": torch.tensor([0.5, -2.56, 1.0]), "bits": 8, "full_range": True},
    ],
    tolerance=ONE_DIVISION,
)


misconceptions = """\
no_abs   r.abs().max() → r.max()
    Testez sur un tenseur dont le plus grand écart à zéro est négatif.

signed_levels   2 ** (bits - 1) - 1 → 2**bits - 1
    Tous vos codes ne servent pas : combien restent d'un seul côté de zéro ?

ranges_exchanged   if full_range else → if not full_range else
    Les deux variantes sont échangées : laquelle permet d'écrire −128 ?

full_range_ignored   2 ** (bits - 1) if full_range else → 2 ** (bits - 1) - 1 if full_range else
    Avec ou sans full_range, votre échelle est la même : combien de pas y a-t-il de 0 à −2^(b−1) ?

always_full_range   2 ** (bits - 1) - 1 → 2 ** (bits - 1)
    Sans full_range, le plus grand code positif est 2^(b−1) − 1 : le maximum de r y tombe-t-il ?

half_step   2 ** (bits - 1) - 1 → (2**bits - 1) / 2
    C'est ce que PyTorch fait par défaut (127,5 pas) ; l'énoncé compte des pas entiers, d'un seul côté.

bits_ignored   2 ** (bits - 1) if full_range else 2 ** (bits - 1) - 1 → 128 if full_range else 127
    Changez le nombre de bits : votre échelle ne bouge pas.

zero_scale   torch.where(peak > 0, peak / levels, torch.ones_like(peak)) → peak / levels
    Un tenseur nul vous donne une échelle par laquelle on ne pourra pas diviser.

peak_to_peak   peak = r.abs().max() → peak = (r.max() - r.min()) / 2
    Le milieu de votre intervalle n'est pas zéro.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def absmax_loops(r, bits=8, full_range=False):
    peak = 0.0
    for v in r.flatten().tolist():
        peak = max(peak, abs(v))
    levels = 2 ** (bits - 1) if full_range else 2 ** (bits - 1) - 1
    return torch.tensor(peak / levels if peak else 1.0, dtype=r.dtype)


def absmax_float64(r, bits=8, full_range=False):
    wide = r.to(torch.float64)
    peak = torch.maximum(wide.amax(), -wide.amin())
    if peak == 0:
        return r.new_ones(())
    return (peak / ((1 << (bits - 1)) - (not full_range))).to(r.dtype)


def absmax_norm(r, bits=8, full_range=False):
    scale = torch.linalg.vector_norm(r, ord=math.inf) / (2 ** (bits - 1) - 1 + int(full_range))
    return scale if scale > 0 else torch.ones_like(scale)


def absmax_numpy(r, bits=8, full_range=False):
    peak = np.abs(r.double().numpy()).max()
    scale = peak / -code_range(bits, True)[0] if full_range else peak / code_range(bits, True)[1]
    return torch.tensor(float(scale) or 1.0).to(r.dtype)


styles = [absmax_loops, absmax_float64, absmax_norm, absmax_numpy]
