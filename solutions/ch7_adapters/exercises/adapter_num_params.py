"""Exercice `adapter_num_params` du chapitre 7."""

from __future__ import annotations

import math

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from .Adapter import Adapter


def draw_num_params(d: Draw, group: str) -> Inputs:
    inputs = {"d_model": 16 * d.integer(3, 60), "bottleneck": d.integer(5, 130), "n_layer": d.integer(4, 40)}
    if group == "bords":
        return inputs | d.turn([{"n_layer": 0}, {"bottleneck": 1}, {"per_layer": 0}, {"d_model": 1}])
    return inputs if d.index % 2 == 0 else inputs | {"per_layer": d.choice([1, 3, 4])}


exercise = Exercise(
    points=1,
    minutes=10,
    stars=1,
    hints=[
        "Écrivez la forme des quatre tenseurs d'un adaptateur.",
        "Deux matrices de d × m nombres ; un biais à la taille de chaque sortie.",
        "(2·m·d + d + m) par adaptateur, autant de fois qu'il y a d'adaptateurs.",
    ],
    groups={"courant": 0.8, "bords": 0.2},
    draw=draw_num_params,
    examples=[
        {"d_model": 4, "bottleneck": 2, "n_layer": 1, "per_layer": 1},
        {"d_model": 192, "bottleneck": 16, "n_layer": 5},
    ],
)


misconceptions = """\
no_bias   down = d_model * bottleneck + bottleneck → down = d_model * bottleneck
    & up = bottleneck * d_model + d_model → up = bottleneck * d_model
    Chaque projection a un vecteur, en plus de sa matrice.

one_projection   return n_layer * per_layer * (down + up) → return n_layer * per_layer * down
    On descend, puis on remonte : combien de matrices ?

per_layer_ignored   return n_layer * per_layer * (down + up) → return n_layer * 2 * (down + up)
    Changez le nombre d'adaptateurs par couche : rien ne bouge.

one_per_layer   return n_layer * per_layer * (down + up) → return n_layer * (down + up)
    Vous comptez un seul adaptateur par bloc : combien d'endroits d'un bloc en reçoivent un ?

layers_ignored   return n_layer * per_layer * (down + up) → return per_layer * (down + up)
    Chaque bloc a les siens : votre compte ne grandit pas avec le modèle.

narrow_biases   up = bottleneck * d_model + d_model → up = bottleneck * d_model + bottleneck
    Un biais a la taille de ce qui sort de sa couche : que rend la remontée ?

wide_biases   down = d_model * bottleneck + bottleneck → down = d_model * bottleneck + d_model
    Un biais a la taille de ce qui sort de sa couche : que rend la descente ?

with_norm   up = bottleneck * d_model + d_model → up = bottleneck * d_model + d_model + 2 * d_model
    Vous ajoutez un LayerNorm par adaptateur : les nôtres n'en ont pas.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def params_formula(d_model, bottleneck, n_layer, per_layer=2):
    return n_layer * per_layer * (2 * bottleneck * d_model + d_model + bottleneck)


def params_module(d_model, bottleneck, n_layer, per_layer=2):
    with torch.device("meta"):
        one = Adapter(d_model, bottleneck)
    return sum(p.numel() for p in one.parameters()) * n_layer * per_layer


def params_loops(d_model, bottleneck, n_layer, per_layer=2):
    total = 0
    for _ in range(n_layer):
        for _ in range(per_layer):
            for shape in ((bottleneck, d_model), (bottleneck,), (d_model, bottleneck), (d_model,)):
                total += math.prod(shape)
    return total


def params_numpy(d_model, bottleneck, n_layer, per_layer=2):
    matrices = np.int64(d_model) * np.int64(bottleneck) * 2
    return int((matrices + d_model + bottleneck) * per_layer * n_layer)


styles = [params_formula, params_module, params_loops, params_numpy]
