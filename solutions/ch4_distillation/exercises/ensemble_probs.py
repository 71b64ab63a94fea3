"""Exercice `ensemble_probs` du chapitre 4."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def draw_ensemble(d: Draw, group: str) -> Inputs:
    shape = d.turn([(3, 2, 5), (2, 2, 3, 4), (4, 3, 6), (3, 4)])
    logits = 2 * d.normal(*shape)
    if group == "courant":
        return {"logits": logits}
    if group == "bords":
        sure = torch.zeros(3, 2, 4)
        sure[0, :, d.integer(0, 3)] = 30.0
        return d.turn(
            [
                {"logits": sure + d.normal(3, 2, 4)},
                {"logits": 1000.0 + 3 * d.normal(2, 3, 4)},
                {"logits": d.normal(1, 3, 5)},
                {"logits": d.normal(5, 2, 1, 3)},
            ]
        )
    return d.turn(
        [
            {"logits": d.strided(logits)},
            {"logits": logits.double().transpose(0, 1)},
            {"logits": d.normal(4, 5)},
            {"logits": d.normal(3, 2, 4).clamp(-2, 2).half()},
        ]
    )


exercise = Exercise(
    points=1,
    minutes=4,
    stars=1,
    hints=[
        "Chaque modèle donne son avis sous forme de logits : à partir de quand ces avis sont-ils comparables ?",
        "D'abord des probabilités, modèle par modèle ; ensuite seulement, une moyenne.",
        "(1/M)·Σ softmax(logits du modèle m), l'axe 0 étant celui des modèles.",
    ],
    groups={"courant": 0.6, "bords": 0.25, "formes et types": 0.15},
    draw=draw_ensemble,
    examples=[{"logits": torch.tensor([[[4.0, 0.0, 0.0]], [[0.0, 1.0, 1.0]]])}],
    tolerance=Tolerance(rtol=1e-4, atol=1e-6, why="exponentielles et moyenne en float32"),
)


misconceptions = """\
mean_of_logits   torch.softmax(logits, dim=-1).mean(dim=0) → torch.softmax(logits.mean(dim=0), dim=-1)
    Un modèle très sûr de lui pèse alors bien plus qu'une voix.

geometric_mean   torch.softmax(logits, dim=-1).mean(dim=0) → torch.log_softmax(logits, dim=-1).mean(dim=0).exp()
    Vos lignes ne somment pas à 1.

raw_mean   torch.softmax(logits, dim=-1).mean(dim=0) → logits.mean(dim=0)
    Vous rendez une moyenne de logits : on attend des probabilités.

softmax_over_models   torch.softmax(logits, dim=-1).mean(dim=0) → torch.softmax(logits, dim=0).mean(dim=0)
    Vous faites concourir les modèles entre eux et non les mots.

vote   torch.softmax(logits, dim=-1).mean(dim=0)
    → torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype).mean(dim=0)
    Un vote jette l'incertitude de chacun.

sum_not_mean   .mean(dim=0) → .sum(dim=0)
    Vous additionnez les lois : à trois modèles, vos lignes somment à 3.

softmax_twice   torch.softmax(logits, dim=-1).mean(dim=0)
    → torch.softmax(torch.softmax(logits, dim=-1).mean(dim=0), dim=-1)
    La moyenne de plusieurs lois est déjà une loi : votre second softmax l'écrase presque à plat.

most_confident   .mean(dim=0) → .amax(dim=0)
    Vous gardez pour chaque mot l'avis le plus favorable : vos lignes dépassent 1.

mean_over_words   .mean(dim=0) → .mean(dim=-1)
    Vous faites la moyenne sur les mots : elle vaut toujours 1/V. Sur quel axe sont les modèles ?

overflow
    - return torch.softmax(logits, dim=-1).mean(dim=0)
    + exp = torch.exp(logits)
    + return (exp / exp.sum(dim=-1, keepdim=True)).mean(dim=0)
    De grands logits donnent nan : qu'est-ce qui ne change pas quand on retranche une constante à tous ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def ensemble_loops(logits):
    total = torch.zeros_like(logits[0])
    for one in logits:
        total = total + one.softmax(-1) / len(logits)
    return total


def ensemble_einsum(logits):
    probs = F.softmax(logits, dim=-1)
    share = logits.new_full((logits.shape[0],), 1 / logits.shape[0])
    return torch.einsum("m,m...->...", share, probs)


def ensemble_logs(logits):
    """La moyenne, calculée sur les logarithmes."""
    log_probs = torch.log_softmax(logits.double(), -1)
    return (log_probs.logsumexp(0) - math.log(len(logits))).exp().to(logits.dtype)


def ensemble_numpy(logits):
    z = logits.double().numpy()
    e = np.exp(z - z.max(-1, keepdims=True))
    return torch.from_numpy((e / e.sum(-1, keepdims=True)).mean(0)).to(logits.dtype)


styles = [ensemble_loops, ensemble_einsum, ensemble_logs, ensemble_numpy]
