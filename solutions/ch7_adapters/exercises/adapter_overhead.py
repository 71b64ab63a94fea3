"""Exercice `adapter_overhead` du chapitre 7."""

from __future__ import annotations

import math
from fractions import Fraction

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def draw_overhead(d: Draw, group: str) -> Inputs:
    inputs = {"d_model": 16 * d.integer(3, 60), "bottleneck": d.integer(5, 130), "n_ctx": d.integer(33, 2048)}
    if group == "bords":
        return inputs | d.turn([{"n_ctx": 1}, {"per_layer": 0}, {"bottleneck": 1}, {"n_ctx": 8192, "bottleneck": 1}])
    return inputs if d.index % 2 == 0 else inputs | {"per_layer": d.choice([1, 3, 4])}


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Comptez par jeton : combien de produits de matrices un adaptateur fait-il, et de quelles tailles ?",
        "Les couches linéaires d'un bloc ont en tout 12·d² poids ; chacun sert à une multiplication et une addition.",
        "L'attention ajoute, par jeton, deux produits de n_ctx × d multiplications et additions.",
        "4·m·d par adaptateur, contre 24·d² + 4·n_ctx·d pour le bloc.",
    ],
    groups={"courant": 0.85, "bords": 0.15},
    draw=draw_overhead,
    probe="call_float",
    examples=[
        {"d_model": 4, "bottleneck": 2, "n_ctx": 8, "per_layer": 1},
        {"d_model": 768, "bottleneck": 64, "n_ctx": 1024},
    ],
    tolerance=Tolerance(rtol=1e-6, why="un quotient, float32 admis"),
)


misconceptions = """\
no_attention   return adapters / (linear + attention) → return adapters / linear
    Votre rapport ne dépend pas du contexte : l'attention ne fait-elle aucun produit ?

params_ratio   return adapters / (linear + attention)
    → return per_layer * (2 * d_model * bottleneck + d_model + bottleneck) / (12 * d_model**2 + 13 * d_model)
    Vous comparez des paramètres, pas des opérations.

half   adapters = per_layer * 2 * 2 * d_model * bottleneck → adapters = per_layer * 2 * d_model * bottleneck
    Votre numérateur est deux fois trop petit : une projection oubliée, ou une addition non comptée d'un côté ?

macs_in_block   return adapters / (linear + attention) → return 2 * adapters / (linear + attention)
    Numérateur et dénominateur ne comptent pas de la même façon : l'un en opérations, l'autre en multiplications.

one_attention_product   attention = 2 * 2 * n_ctx * d_model → attention = 2 * n_ctx * d_model
    L'attention fait deux produits, et l'énoncé la veut dense : lequel manque, ou quelle moitié avez-vous ôtée ?

attention_in_macs   linear = 2 * 12 * d_model**2 → linear = 2 * 2 * 12 * d_model**2
    Les couches linéaires pèsent deux fois trop dans votre bloc : comptez-vous partout de la même façon ?

denominator_total   return adapters / (linear + attention) → return adapters / (linear + attention + adapters)
    Le surcoût se mesure par rapport au bloc seul, sans les adaptateurs.

total_over_block   return adapters / (linear + attention) → return 1 + adapters / (linear + attention)
    Vous rendez le coût total rapporté au bloc : on demande seulement ce qui s'ajoute.

percent   return adapters / (linear + attention) → return 100 * adapters / (linear + attention)
    Votre réponse est en pour cent : l'énoncé veut un rapport sans unité.

per_layer_ignored   adapters = per_layer * 2 * 2 * d_model * bottleneck
    → adapters = 2 * 2 * 2 * d_model * bottleneck
    Changez le nombre d'adaptateurs par bloc : votre surcoût reste le même.

no_mlp   linear = 2 * 12 * d_model**2 → linear = 2 * 4 * d_model**2
    Un bloc n'est pas fait que d'attention : où est le MLP ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def overhead_closed(d_model, bottleneck, n_ctx, per_layer=2):
    return per_layer * bottleneck / (6 * d_model + n_ctx)


def overhead_whole_window(d_model, bottleneck, n_ctx, per_layer=2):
    """Les deux comptes pour toute la fenêtre, matrice par matrice."""
    d, t, m = d_model, n_ctx, bottleneck
    linear = [(t, d, 3 * d), (t, d, d), (t, d, 4 * d), (t, 4 * d, d)]
    scores = [(t, d, t), (t, t, d)]
    block = sum(2 * math.prod(p) for p in linear + scores)
    extra = per_layer * sum(2 * math.prod(p) for p in ((t, d, m), (t, m, d)))
    return extra / block


def overhead_macs(d_model, bottleneck, n_ctx, per_layer=2):
    return float(Fraction(2 * d_model * bottleneck * per_layer, 12 * d_model**2 + 2 * n_ctx * d_model))


def overhead_tensor(d_model, bottleneck, n_ctx, per_layer=2):
    d = torch.tensor(float(d_model), dtype=torch.float64)
    return (4 * d * bottleneck * per_layer) / (24 * d**2 + 4 * n_ctx * d)


styles = [overhead_closed, overhead_whole_window, overhead_macs, overhead_tensor]
