"""Exercice `tokens_for_budget` du chapitre 2."""

from __future__ import annotations

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import ROUNDING


def _few_tokens(d: Draw, n_params: int) -> Inputs:
    """Quelques jetons et un ou deux tiers : ni la partie entière ni quelques décimales n'y suffisent."""
    return {"compute": 2.0 * n_params * (3 * d.integer(2, 8) + d.choice([1, 2])), "n_params": n_params}


def draw_budget(d: Draw, group: str) -> Inputs:
    n_params = d.integer(10**6, 10**11)
    if group == "bords":
        small = _few_tokens(d, d.choice([4, 5, 7]))
        return d.turn(
            [
                small,
                {"compute": 6.0 * 7 * n_params, "n_params": n_params},
                small | {"n_params": 1},
                small | {"compute": 0.0},
            ]
        )
    if d.index == 0:
        return _few_tokens(d, n_params)
    return {"compute": 10.0 ** d.uniform(17, 24), "n_params": n_params}


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Dans C ≈ 6ND, deux des trois nombres sont donnés.",
        "À budget fixé, doubler le modèle divise par deux ce qu'il peut lire.",
        "Isolez D, puis vérifiez : votre D, remis dans la règle, redonne-t-il le budget ?",
    ],
    groups={"courant": 0.75, "bords": 0.25},
    draw=draw_budget,
    visible=4,
    probe="call_float",
    tolerance=ROUNDING,
    examples=[{"compute": 600.0, "n_params": 4}, {"compute": 100.0, "n_params": 3}],
)


misconceptions = """\
no_6   return compute / (6 * n_params) → return compute / n_params
    Vérifiez en remettant votre D dans C ≈ 6ND : retrouvez-vous le budget ?

forward_only   return compute / (6 * n_params) → return compute / (2 * n_params)
    Votre budget ne paie que le passage avant : que coûte l'apprentissage d'un jeton ?

precedence   return compute / (6 * n_params) → return compute / 6 * n_params
    Relisez l'ordre des opérations de votre division.

multiplied   return compute / (6 * n_params) → return 6 * compute * n_params
    À budget fixé, un modèle plus gros doit voir moins de jetons : chez vous, c'est l'inverse.

inverted   return compute / (6 * n_params) → return 6 * n_params / compute if compute else 0.0
    Votre fraction est à l'envers : avec un plus gros budget, vous liriez moins.

chinchilla   return compute / (6 * n_params) → return 20.0 * n_params
    Ce rapport donne un optimum ; ici le budget est imposé.

floored   return compute / (6 * n_params) → return compute // (6 * n_params)
    Votre division arrondit : l'énoncé demande le quotient exact, même fractionnaire.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def budget_two_divisions(compute, n_params):
    return compute / 6 / n_params


def budget_per_token(compute, n_params):
    cost_of_a_token = 6.0 * n_params
    return compute * cost_of_a_token**-1


def budget_tensor(compute, n_params):
    return torch.tensor(compute, dtype=torch.float64) / (6 * n_params)


styles = [budget_two_divisions, budget_per_token, budget_tensor]
