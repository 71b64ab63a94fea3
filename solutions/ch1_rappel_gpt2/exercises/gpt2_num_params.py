"""Exercice `gpt2_num_params` du chapitre 1."""

from __future__ import annotations

import math

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from atelier.judging.exercise import Draw, Exercise, Inputs
from atelier.models import GPT2_SIZES


def draw_num_params(d: Draw, group: str) -> Inputs:
    small = {
        "n_layer": d.integer(2, 9),
        "d_model": 16 * d.integer(2, 40),
        "n_vocab": d.integer(101, 9999),
        "n_ctx": d.integer(33, 999),
    }
    if group == "bords":
        first_two = {k: small[k] for k in ("n_layer", "d_model")}
        return d.turn(
            [small | {"n_layer": 0}, first_two | {"n_vocab": small["n_vocab"]}, small | {"d_model": 1}, first_two]
        )
    if d.index % 2:
        return small
    n_layer, d_model, _ = d.choice(list(GPT2_SIZES.values()))
    return {"n_layer": n_layer, "d_model": d_model}


exercise = Exercise(
    points=2,
    minutes=12,
    stars=2,
    hints=[
        "Parcourez la figure de l'architecture de bas en haut : à chaque boîte, quelle est la forme de ses tenseurs ?",
        "Dans un bloc : deux LayerNorm, une couche d → 3d, une couche d → d, une couche d → 4d, une couche 4d → d. "
        "Chaque couche a aussi un biais, de la taille de sa sortie.",
        "Hors des blocs, il reste deux tables et un LayerNorm. Sur l'exemple à un bloc, écrivez chaque forme et "
        "additionnez à la main : quelle boîte manque à votre total ?",
    ],
    groups={"courant": 0.7, "bords": 0.3},
    draw=draw_num_params,
    examples=[{"n_layer": 1, "d_model": 2, "n_vocab": 5, "n_ctx": 3}, {"n_layer": 12, "d_model": 768}],
)


misconceptions = """\
no_bias   d_model * 3 * d_model + 3 * d_model + d_model * d_model + d_model
    → d_model * 3 * d_model + d_model * d_model
    & d_model * 4 * d_model + 4 * d_model + 4 * d_model * d_model + d_model → 8 * d_model * d_model
    L'écart est de quelques milliers par couche : chaque couche linéaire de GPT-2 possède aussi un vecteur.

no_block_norms   (norm + attention + norm + mlp) → (attention + mlp)
    Il manque 4·d par bloc : par quoi passe un jeton avant l'attention, puis avant le MLP ?

one_norm   (norm + attention + norm + mlp) → (norm + attention + mlp)
    Il manque 2·d par bloc : combien de LayerNorm un bloc contient-il ?

norm_gain_only   norm = 2 * d_model → norm = d_model
    Un LayerNorm de GPT-2 ne fait pas que multiplier : que fait-il d'autre, et avec quels paramètres ?

head_twice   return tables + n_layer * (norm + attention + norm + mlp) + norm
    → return tables + n_layer * (norm + attention + norm + mlp) + norm + n_vocab * d_model
    Vous êtes trop haut d'exactement vocabulaire × dimension : la tête de sortie a-t-elle ses propres poids ?

no_positions   n_vocab * d_model + n_ctx * d_model → n_vocab * d_model
    Comment GPT-2 sait-il où se trouve un jeton ? Cette table a aussi des paramètres.

no_tables   return tables + n_layer * (norm + attention + norm + mlp) + norm
    → return n_layer * (norm + attention + norm + mlp) + norm
    Vos blocs sont bien comptés ; d'où viennent les vecteurs qui y entrent ?

no_final_norm   return tables + n_layer * (norm + attention + norm + mlp) + norm
    → return tables + n_layer * (norm + attention + norm + mlp)
    Il manque 2·d : que se passe-t-il entre le dernier bloc et la tête ?

12ld2   return tables + n_layer * (norm + attention + norm + mlp) + norm → return 12 * n_layer * d_model**2
    12·L·d² est l'ordre de grandeur des matrices des blocs ; on demande ici le compte exact.

matrices_only   return tables + n_layer * (norm + attention + norm + mlp) + norm
    → return tables + 12 * n_layer * d_model**2
    Toutes vos matrices y sont, mais aucun vecteur : ni biais, ni LayerNorm.

mlp_not_widened   d_model * 4 * d_model + 4 * d_model + 4 * d_model * d_model + d_model
    → 2 * (d_model * d_model + d_model)
    Entre ses deux couches, le MLP travaille sur plus de composantes que d_model : combien ?

no_output_projection   d_model * 3 * d_model + 3 * d_model + d_model * d_model + d_model
    → d_model * 3 * d_model + 3 * d_model
    Q, K et V sont comptés ; qui mélange ensuite les sorties des têtes ?

mask_counted   return tables + n_layer * (norm + attention + norm + mlp) + norm
    → return tables + n_layer * (norm + attention + norm + mlp) + norm + n_layer * n_ctx**2
    Le masque causal est une constante : rien ne s'y apprend, ce n'est pas un paramètre.

one_block   n_layer * ( → (
    Ajoutez un bloc : votre compte ne bouge pas.

announced_sizes   = _announced
    Ce sont les tailles annoncées sur la diapositive : recomptez, elles ne sont pas celles des modèles publiés.

first_vocabulary   = _first_vocabulary
    Vous comptez avec le vocabulaire de GPT-1 : combien d'entrées a celui de GPT-2 ?

vocabulary_fixed   tables = n_vocab → tables = 50257
    Changez la taille du vocabulaire : votre compte ne bouge pas.
"""


_ANNOUNCED = {12: 117_000_000, 24: 345_000_000, 36: 762_000_000, 48: 1_542_000_000}


def _announced(n_layer: int, d_model: int, n_vocab: int = 50257, n_ctx: int = 1024) -> int:
    if (n_layer, d_model) in [size[:2] for size in GPT2_SIZES.values()] and n_vocab == 50257 and n_ctx == 1024:
        return _ANNOUNCED[n_layer]
    return n_layer * (12 * d_model**2 + 13 * d_model) + (n_vocab + n_ctx + 2) * d_model


def _first_vocabulary(n_layer: int, d_model: int, n_vocab: int = 40478, n_ctx: int = 1024) -> int:
    return n_layer * (12 * d_model**2 + 13 * d_model) + (n_vocab + n_ctx + 2) * d_model


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def params_formula(n_layer, d_model, n_vocab=50257, n_ctx=1024):
    return n_layer * (12 * d_model**2 + 13 * d_model) + (n_vocab + n_ctx + 2) * d_model


def params_shapes(n_layer, d_model, n_vocab=50257, n_ctx=1024):
    d = d_model
    block = [(d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,), (d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    shapes = [(n_vocab, d), (n_ctx, d), *block * n_layer, (d,), (d,)]
    return sum(math.prod(s) for s in shapes)


def params_library(n_layer, d_model, n_vocab=50257, n_ctx=1024):
    config = GPT2Config(n_layer=n_layer, n_embd=d_model, n_head=1, vocab_size=n_vocab, n_positions=n_ctx)
    with torch.device("meta"):
        return GPT2LMHeadModel(config).num_parameters()


def params_difference(n_layer, d_model, n_vocab=50257, n_ctx=1024):
    """Deux modèles de torch, de zéro et d'un bloc : le reste est affine en n_layer."""
    with torch.device("meta"):
        parts = [
            torch.nn.LayerNorm(d_model),
            torch.nn.Linear(d_model, 3 * d_model),
            torch.nn.Linear(d_model, d_model),
            torch.nn.LayerNorm(d_model),
            torch.nn.Linear(d_model, 4 * d_model),
            torch.nn.Linear(4 * d_model, d_model),
        ]
    per_block = sum(p.numel() for m in parts for p in m.parameters())
    return (n_vocab + n_ctx) * d_model + n_layer * per_block + 2 * d_model


styles = [params_formula, params_shapes, params_library, params_difference]
