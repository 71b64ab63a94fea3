"""Exercice `softmax_temperature` du chapitre 4."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from ._common import refuse


def draw_softmax(d: Draw, group: str) -> Inputs:
    shape = d.turn([(2, 5), (3, 2, 4), (2, 7), (2, 3, 2, 5)])
    if group == "refus":
        return {"logits": d.normal(2, 4), "temperature": d.turn([0.0, -1.0, -0.5, 0])}
    if group == "bords":
        kind = d.turn(["grands", "très négatifs", "un seul logit", "basse température"])
        if kind == "un seul logit":
            return {"logits": d.normal(3, 1), "temperature": d.uniform(0.5, 3.0)}
        if kind == "basse température":
            return {"logits": d.normal(2, 6), "temperature": 0.01}
        level = 1000.0 if kind == "grands" else -1000.0
        return {"logits": level + 3 * d.normal(2, 5), "temperature": d.uniform(1.2, 4.0)}
    temperature = d.uniform(1.5, 6.0) if d.index % 2 else d.uniform(0.3, 0.8)
    logits = 2 * d.normal(*shape)
    if group == "courant":
        return {"logits": logits, "temperature": temperature}
    return d.turn(
        [
            {"logits": d.strided(logits), "temperature": 2},
            {"logits": logits.double().transpose(0, 1), "temperature": temperature},
            {"logits": d.normal(6), "temperature": 2.5},
            {"logits": d.normal(3, 4).clamp(-2, 2).half(), "temperature": 2.0},
        ]
    )


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Une température haute doit rapprocher les probabilités les unes des autres : que faut-il faire aux écarts "
        "entre les logits ?",
        "La température agit sur les logits, avant l'exponentielle, et la somme reste 1 sur le dernier axe.",
        "softmax(z / T), en laissant la bibliothèque retrancher le plus grand logit.",
    ],
    groups={"courant": 0.55, "bords": 0.2, "formes et types": 0.15, "refus": 0.1},
    draw=draw_softmax,
    examples=[{"logits": torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 4.0]]), "temperature": 2.0}],
    tolerance=Tolerance(rtol=1e-4, atol=1e-6, why="exponentielles en float32, logits jusqu'à 1 000"),
)


misconceptions = """\
multiplies   logits / temperature → logits * temperature
    Quand T monte, votre distribution devient plus pointue : est-ce ce qu'une température fait ?

after_softmax   torch.softmax(logits / temperature, dim=-1) → torch.softmax(logits, dim=-1) / temperature
    Vos probabilités ne somment plus à 1 : la température doit agir avant qu'on ne les normalise.

power_not_normalised   torch.softmax(logits / temperature, dim=-1)
    → torch.softmax(logits, dim=-1) ** (1 / temperature)
    Vous adoucissez bien chaque probabilité, mais leur somme n'est plus 1.

overflow
    - return torch.softmax(logits / temperature, dim=-1)
    + exp = torch.exp(logits / temperature)
    + return exp / exp.sum(dim=-1, keepdim=True)
    De grands logits donnent nan : qu'est-ce qui ne change pas quand on retranche une constante à tous ?

axis   dim=-1 → dim=0
    Quelles valeurs doivent sommer à 1 : celles d'une même position.

no_temperature   logits / temperature → logits
    Votre réponse est la même à toutes les températures.

squared   logits / temperature → logits / temperature**2
    Le carré de la température viendra plus tard, dans la perte : ici, par quoi divise-t-on les logits ?

log_probs   torch.softmax(logits / temperature, dim=-1) → torch.log_softmax(logits / temperature, dim=-1)
    Vous rendez des logarithmes : une probabilité est positive.

negative_accepted   if temperature <= 0: → if temperature == 0:
    Une température négative renverserait l'ordre des mots : l'énoncé demande de la refuser aussi.

zero_accepted   if temperature <= 0: → if temperature < 0:
    Que vaut un logit divisé par une température nulle ? L'énoncé demande de la refuser.

no_check   if temperature <= 0: → if False:
    L'énoncé annonce des températures interdites : votre fonction répond quand même, au lieu de les refuser.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def softmax_by_hand(logits, temperature):
    refuse(temperature)
    z = logits / temperature
    e = (z - z.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def softmax_of_logs(logits, temperature):
    refuse(temperature)
    scaled = logits * (1 / temperature)
    return (scaled - scaled.logsumexp(dim=-1, keepdim=True)).exp()


def softmax_power(logits, temperature):
    """Les probabilités élevées à la puissance 1/T, puis renormalisées, en passant par leurs logarithmes."""
    refuse(temperature)
    return F.log_softmax(logits.double(), -1).div(temperature).softmax(-1).to(logits.dtype)


def softmax_numpy(logits, temperature):
    refuse(temperature)
    z = logits.double().numpy() / temperature
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return torch.from_numpy(e / e.sum(axis=-1, keepdims=True)).to(logits.dtype)


def softmax_loops(logits, temperature):
    refuse(temperature)
    rows = []
    for row in logits.reshape(-1, logits.shape[-1]).tolist():
        top = max(row)
        e = [math.exp((z - top) / temperature) for z in row]
        rows.append([x / sum(e) for x in e])
    return torch.tensor(rows, dtype=logits.dtype).reshape(logits.shape)


styles = [softmax_by_hand, softmax_of_logs, softmax_power, softmax_numpy, softmax_loops]
