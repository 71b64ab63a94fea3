"""Exercice `kv_cache_bytes` du chapitre 1."""

from __future__ import annotations

import math

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs


def draw_cache(d: Draw, group: str) -> Inputs:
    inputs = {"n_layer": d.integer(3, 48), "d_model": 64 * d.integer(3, 25), "n_tokens": d.integer(11, 2048)}
    if group == "bords":
        return inputs | d.turn([{"n_tokens": 0}, {"n_tokens": 1, "batch_size": 3}])
    if d.index % 3 == 0:
        return inputs
    inputs["batch_size"] = d.choice([3, 5, 7])
    return inputs | ({"bytes_per_value": d.choice([1, 4])} if d.index % 3 == 2 else {})


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Pour un jeton et une couche, quels vecteurs garde-t-on, et de quelle taille ?",
        "Comptez les nombres avant les octets : deux vecteurs de d_model nombres, par jeton, par couche, par phrase.",
    ],
    groups={"courant": 0.8, "bords": 0.2},
    draw=draw_cache,
    visible=3,
    examples=[
        {"n_layer": 2, "d_model": 64, "n_tokens": 10},
        {"n_layer": 12, "d_model": 768, "n_tokens": 1024, "batch_size": 3, "bytes_per_value": 4},
    ],
)


misconceptions = """\
k_only   keys_and_values = 2 → keys_and_values = 1
    Combien de tenseurs garde-t-on par couche ?

qkv   keys_and_values = 2 → keys_and_values = 3
    La requête du jeton courant sert une fois : faut-il la garder ?

times_heads   return keys_and_values * n_layer * d_model * n_tokens * batch_size * bytes_per_value
    → return keys_and_values * n_layer * d_model * n_tokens * batch_size * bytes_per_value * (d_model // 64)
    Les têtes se partagent d_model : elles sont déjà comptées dedans.

batch_ignored   n_tokens * batch_size * bytes → n_tokens * bytes
    Chaque phrase du lot a son propre passé.

layers_ignored   keys_and_values * n_layer * d_model → keys_and_values * d_model
    Chaque bloc calcule ses propres clés et valeurs : un seul cache ne suffit pas.

tokens_ignored   d_model * n_tokens * batch_size → d_model * batch_size
    Votre cache ne grandit pas avec le texte : que lui ajoute chaque jeton lu ?

tokens_squared   d_model * n_tokens * batch_size → d_model * n_tokens * n_tokens * batch_size
    Doublez le texte : votre cache quadruple. Garde-t-on quelque chose par couple de jetons ?

bytes_ignored   * bytes_per_value → * 2
    Changez le nombre d'octets par valeur : votre réponse ne bouge pas.

values_not_bytes   * bytes_per_value → ∅
    Vous comptez des nombres : combien d'octets chacun occupe-t-il ?

in_bits   return keys_and_values * n_layer * d_model * n_tokens * batch_size * bytes_per_value
    → return keys_and_values * n_layer * d_model * n_tokens * batch_size * bytes_per_value * 8
    Votre compte est en bits ; l'énoncé demande des octets.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def cache_per_token(n_layer, d_model, n_tokens, batch_size=1, bytes_per_value=2):
    per_token = 2 * n_layer * d_model * bytes_per_value
    return per_token * n_tokens * batch_size


def cache_loops(n_layer, d_model, n_tokens, batch_size=1, bytes_per_value=2):
    total = 0
    for _ in range(n_layer):
        for _ in ("K", "V"):
            total += math.prod((batch_size, n_tokens, d_model)) * bytes_per_value
    return total


def cache_tensors(n_layer, d_model, n_tokens, batch_size=1, bytes_per_value=2):
    one = torch.empty(batch_size, 1, n_tokens, d_model, device="meta")
    return 2 * n_layer * one.numel() * bytes_per_value


styles = [cache_per_token, cache_loops, cache_tensors]
