"""Exercice `optimizer_state_bytes` du chapitre 7."""

from __future__ import annotations

import copy
import math
import random

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs


def draw_optimizer(d: Draw, group: str) -> Inputs:
    config = {"n_layer": d.integer(1, 3), "n_embd": d.choice([8, 12, 16]), "vocab_size": d.integer(17, 60)}
    seed = d.integer(0, 2**31)
    while (random.Random(seed).random() < 0.5) != (d.index % 2 == 0):  # la table des jetons apprend un cas sur deux
        seed = d.integer(0, 2**31)
    case = {"config": config, "seed": seed}
    if group == "courant" and d.index % 2 == 0:
        return case | {"args": {}}
    return case | {"args": {"bytes_per_value": d.turn([2, 1, 8, 2])}}


exercise = Exercise(
    points=1,
    minutes=10,
    stars=1,
    hints=[
        "Relisez l'algorithme d'Adam : que garde-t-il, d'un pas au suivant, pour chaque poids qu'il déplace ?",
        "Un poids gelé n'a pas de gradient : qu'y a-t-il à moyenner ?",
        "Deux nombres par paramètre dont requires_grad est vrai, de bytes_per_value octets chacun.",
    ],
    groups={"courant": 0.7, "octets": 0.3},
    draw=draw_optimizer,
    probe="gpt2_call",
    examples=[{"config": {"n_layer": 1}, "seed": 4, "args": {}}],
)


misconceptions = """\
all_parameters   if p.requires_grad) → )
    Adam ne retient rien pour un poids gelé.

frozen_only   if p.requires_grad) → if not p.requires_grad)
    Vous comptez justement les poids qui ne bougent pas.

one_moment   moments = 2 → moments = 1
    Adam garde la moyenne du gradient, et quoi d'autre ?

with_gradient   moments = 2 → moments = 3
    Le gradient n'appartient pas à l'optimiseur : combien de nombres lui reste-t-il en propre ?

with_master_copy   moments = 2 → moments = 4
    Vous comptez aussi le gradient et une copie du poids : l'énoncé ne demande que les moments.

tied_twice
    - return moments * bytes_per_value * sum(p.numel() for p in model.parameters() if p.requires_grad)
    + everything = model.state_dict(keep_vars=True).values()
    + return moments * bytes_per_value * sum(p.numel() for p in everything if p.requires_grad)
    Deux noms, un seul tenseur : la tête est liée à la table des jetons.

bytes_ignored   moments * bytes_per_value * → moments * 4 *
    Changez le nombre d'octets par valeur : votre réponse ne bouge pas.

values_not_bytes   moments * bytes_per_value * → moments *
    Vous comptez des nombres : combien d'octets chacun occupe-t-il ?

tensors_not_values   sum(p.numel() for → sum(1 for
    Vous comptez les tenseurs : combien de nombres chacun contient-il ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def state_loop(model, bytes_per_value=4):
    total = 0
    for _, p in model.named_parameters():
        if p.requires_grad:
            total += p.nelement() * bytes_per_value
    return total * 2


def state_measured(model, bytes_per_value=4):
    """Un vrai pas d'Adam, sur une copie."""
    trial = copy.deepcopy(model)
    trained = [p for p in trial.parameters() if p.requires_grad]
    if not trained:
        return 0
    optimizer = torch.optim.Adam(trained)
    for p in trained:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    values = [v for s in optimizer.state.values() for k, v in s.items() if k != "step"]
    return sum(v.numel() for v in values) * bytes_per_value


def state_unique(model, bytes_per_value=4):
    """Tous les noms, puis un seul par tenseur."""
    everything = {id(p): p for p in model.state_dict(keep_vars=True).values() if p.requires_grad}
    return bytes_per_value * sum(2 * math.prod(p.shape) for p in everything.values())


styles = [state_loop, state_measured, state_unique]
