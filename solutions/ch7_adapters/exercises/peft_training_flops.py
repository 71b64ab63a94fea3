"""Exercice `peft_training_flops` du chapitre 7."""

from __future__ import annotations

from atelier.judging.exercise import Draw, Exercise, Inputs


def draw_flops(d: Draw, group: str) -> Inputs:
    inputs = {
        "n_frozen": d.integer(1_000_000, 400_000_000),
        "n_trainable": d.integer(10_000, 900_000),
        "n_tokens": d.integer(100_000, 90_000_000),
    }
    if group == "bords":
        return inputs | d.turn(
            [
                {"n_trainable": 0},
                {"n_frozen": 0},
                {"n_tokens": 0},
                {"n_frozen": 175_255_800_001, "n_tokens": 10**12 + 7},
            ]
        )
    return inputs


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Pour une couche Y = XW, écrivez les trois produits d'un pas d'apprentissage : lequel n'a lieu que "
        "si W apprend ?",
        "Le premier adaptateur est en bas du modèle : par quelles couches son gradient passe-t-il pour y descendre ?",
        "Chaque produit coûte 2 FLOP par paramètre et par jeton : deux produits pour un poids gelé, trois sinon.",
        "4·N_gelés·D + 6·N_entraînés·D.",
    ],
    groups={"courant": 0.85, "bords": 0.15},
    draw=draw_flops,
    visible=3,
    examples=[{"n_frozen": 100, "n_trainable": 10, "n_tokens": 3}],
)


misconceptions = """\
6_everywhere   return n_tokens * (crossed * n_frozen + (crossed + for_weights) * n_trainable)
    → return 6 * n_tokens * (n_frozen + n_trainable)
    Faut-il le gradient d'un poids qui ne bougera pas ?

2_on_frozen   crossed * n_frozen → forward * n_frozen
    Pour atteindre le premier adaptateur, par où passe le gradient ?

frozen_ignored   crossed * n_frozen + → ∅
    Un poids gelé travaille encore.

4_everywhere   (crossed + for_weights) * n_trainable → crossed * n_trainable
    Un poids qui apprend demande un produit de plus qu'un poids gelé : lequel ?

swapped   return n_tokens * (crossed * n_frozen + (crossed + for_weights) * n_trainable)
    → return n_tokens * (crossed * n_trainable + (crossed + for_weights) * n_frozen)
    Vous avez donné aux poids gelés ce que coûtent les autres.

in_macs   forward, through_activations, for_weights = 2, 2, 2 → forward, through_activations, for_weights = 1, 1, 1
    Une multiplication et une addition font deux opérations.

inference_only   return n_tokens * (crossed * n_frozen + (crossed + for_weights) * n_trainable)
    → return 2 * n_tokens * (n_frozen + n_trainable)
    Vous ne comptez que le passage avant : un apprentissage revient aussi sur ses pas.

tokens_ignored   return n_tokens * (crossed * n_frozen + (crossed + for_weights) * n_trainable)
    → return (crossed * n_frozen + (crossed + for_weights) * n_trainable)
    Votre coût ne dépend pas du texte lu : tout se paie à chaque jeton.

total_includes_trainable   return n_tokens * (crossed * n_frozen + (crossed + for_weights) * n_trainable)
    → return n_tokens * (crossed * (n_frozen - n_trainable) + (crossed + for_weights) * n_trainable)
    Vous avez ôté les paramètres entraînés des gelés : les deux nombres reçus sont déjà séparés.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def flops_formula(n_frozen, n_trainable, n_tokens):
    return 4 * n_frozen * n_tokens + 6 * n_trainable * n_tokens


def flops_saved(n_frozen, n_trainable, n_tokens):
    """6ND pour tout, moins le produit épargné aux poids gelés."""
    return 6 * (n_frozen + n_trainable) * n_tokens - 2 * n_frozen * n_tokens


def flops_products(n_frozen, n_trainable, n_tokens):
    products = {"aller": n_frozen + n_trainable, "activations": n_frozen + n_trainable, "poids": n_trainable}
    return sum(2 * n * n_tokens for n in products.values())


styles = [flops_formula, flops_saved, flops_products]
