"""Exercice `training_flops` du chapitre 2."""

from __future__ import annotations

from atelier.judging.exercise import Draw, Exercise, Inputs


def draw_training(d: Draw, group: str) -> Inputs:
    inputs = {"n_params": d.integer(10**6, 10**12) | 1, "n_tokens": d.integer(10**9, 10**13) | 1}
    if group == "bords":
        return inputs | d.turn([{"n_tokens": 0}, {"n_tokens": 1}, {"n_params": 0}, {"n_params": 1}])
    return inputs


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Un paramètre sert une fois par jeton, à une multiplication et à une addition. Combien de fois dans le passage "
        "arrière ?",
        "Le passage arrière fait deux produits là où le passage avant en fait un : combien d'opérations en tout, par "
        "paramètre et par jeton ?",
    ],
    groups={"courant": 0.75, "bords": 0.25},
    draw=draw_training,
    visible=4,
    examples=[{"n_params": 10, "n_tokens": 100}],
)


misconceptions = """\
2nd   return 6 * n_params * n_tokens → return 2 * n_params * n_tokens
    C'est le prix du passage avant ; l'apprentissage en fait un autre.

3nd   return 6 * n_params * n_tokens → return 3 * n_params * n_tokens
    Avant et arrière sont là, mais une multiplication-addition fait deux opérations.

4nd   return 6 * n_params * n_tokens → return 4 * n_params * n_tokens
    C'est l'arrière seul.

8nd   return 6 * n_params * n_tokens → return 8 * n_params * n_tokens
    Vous ajoutez un second passage avant : c'est le cas avec recalcul des activations, pas ici.

12nd   return 6 * n_params * n_tokens → return 12 * n_params * n_tokens
    Le 6 compte déjà deux opérations par multiplication-addition : vous les comptez une seconde fois.

float_path   return 6 * n_params * n_tokens → return int(6.0 * n_params * n_tokens)
    Vos derniers chiffres sont faux : le calcul est passé par un flottant, qui n'a que 53 bits pour eux.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def training_forward_backward(n_params, n_tokens):
    forward = 2 * n_params * n_tokens
    backward = 2 * forward
    return forward + backward


def training_parenthesis(n_params, n_tokens):
    return n_tokens * (6 * n_params)


def training_sum(n_params, n_tokens):
    return sum(ops * n_params * n_tokens for ops in (2, 2, 2))


styles = [training_forward_backward, training_parenthesis, training_sum]
