"""Exercice `compute_optimal` du chapitre 2."""

from __future__ import annotations

import math

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import ROUNDING


def draw_optimal(d: Draw, group: str) -> Inputs:
    compute = 10.0 ** d.uniform(18, 25)
    if group == "bords":
        return d.turn(
            [
                {"compute": compute, "tokens_per_param": 1.0},
                {"compute": d.uniform(700, 900), "tokens_per_param": d.uniform(2, 3)},
                {"compute": d.uniform(700, 900)},
                {"compute": compute, "tokens_per_param": d.uniform(0.1, 0.4)},
            ]
        )
    if d.index % 2 == 0:
        return {"compute": compute}
    return {"compute": compute, "tokens_per_param": d.uniform(30.0, 300.0)}


exercise = Exercise(
    points=2,
    minutes=10,
    stars=2,
    hints=[
        "Deux équations, deux inconnues : 6·N·D = C, et un rapport imposé entre D et N.",
        "Remplacez D par tokens_per_param·N dans la première. Quelle puissance de N y reste-t-il ?",
        "N apparaît au carré : une racine le rend, et D s'en déduit par le rapport. Remettez les deux dans 6·N·D.",
    ],
    groups={"courant": 0.7, "bords": 0.3},
    draw=draw_optimal,
    visible=4,
    tolerance=ROUNDING,
    examples=[{"compute": 12000.0}, {"compute": 12000.0, "tokens_per_param": 5.0}],
)


misconceptions = """\
no_6   n_params = math.sqrt(compute / (6 * tokens_per_param)) → n_params = math.sqrt(compute / tokens_per_param)
    Vos N et D ne redonnent pas le budget : que coûte un paramètre, par jeton ?

forward_only   n_params = math.sqrt(compute / (6 * tokens_per_param))
    → n_params = math.sqrt(compute / (2 * tokens_per_param))
    Vos N et D coûtent trois fois le budget : vous n'avez payé que le passage avant.

no_sqrt   n_params = math.sqrt(compute / (6 * tokens_per_param)) → n_params = compute / (6 * tokens_per_param)
    N apparaît deux fois dans le budget, car D en dépend aussi.

ratio_outside   n_params = math.sqrt(compute / (6 * tokens_per_param)) → n_params = math.sqrt(compute / 6)
    Le rapport allonge D après coup, et le budget est dépassé : il doit entrer dans l'équation de N.

sqrt_of_budget_only   n_params = math.sqrt(compute / (6 * tokens_per_param))
    → n_params = math.sqrt(compute) / (6 * tokens_per_param)
    La racine porte sur tout ce qui vaut N², pas sur le budget seul.

swapped   return n_params, tokens_per_param * n_params → return tokens_per_param * n_params, n_params
    Avec vingt jetons par paramètre, lequel des deux nombres doit être le plus grand ?

ratio_fixed   6 * tokens_per_param → 6 * 20
    & tokens_per_param * n_params → 20 * n_params
    Changez le rapport : votre réponse ne bouge pas.

params_only   return n_params, tokens_per_param * n_params → return n_params, compute / n_params
    N est juste ; remettez votre D dans 6·N·D : vous en trouverez six fois trop.

rounded   return n_params, tokens_per_param * n_params
    → return float(round(n_params)), float(round(tokens_per_param * n_params))
    Vous arrondissez : l'énoncé demande deux nombres réels dont le produit redonne exactement le budget.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def optimal_power(compute, tokens_per_param=20.0):
    n = (compute / 6 / tokens_per_param) ** 0.5
    return n, compute / (6 * n)


def optimal_tokens_first(compute, tokens_per_param=20.0):
    d = math.sqrt(compute * tokens_per_param / 6)
    return d / tokens_per_param, d


def optimal_logs(compute, tokens_per_param=20.0):
    log_n = (math.log(compute) - math.log(6) - math.log(tokens_per_param)) / 2
    return math.exp(log_n), math.exp(log_n + math.log(tokens_per_param))


def optimal_bisection(compute, tokens_per_param=20.0):
    """Cherché, et non calculé ; un n-uplet ou une liste se valent."""
    low, high = 0.0, max(1.0, compute)
    for _ in range(300):
        middle = (low + high) / 2
        if 6 * middle * tokens_per_param * middle < compute:
            low = middle
        else:
            high = middle
    return [low, tokens_per_param * low]


styles = [optimal_power, optimal_tokens_first, optimal_logs, optimal_bisection]
