"""Exercice `fit_power_law` du chapitre 2."""

from __future__ import annotations

import math

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def _law(d: Draw, count: int, low: float, high: float, noise: float) -> Inputs:
    """Des points bruités d'une loi de puissance, dans le désordre ; la courbure évite qu'une droite par deux points
    ou par l'origine ne tombe juste."""
    log_c = low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.3 * d.normal(count).double()) / count
    log_c = log_c[torch.randperm(count, generator=d.generator)]
    a, b = d.uniform(8, 30), d.uniform(0.04, 0.15)
    bumps = noise * torch.where(torch.arange(count) % 2 == 0, 1.0, -0.6).double() + noise * d.normal(count).double() / 3
    compute = 10.0**log_c
    return {"compute": compute, "loss": a * compute**-b * torch.exp(bumps)}


def draw_power_law(d: Draw, group: str) -> Inputs:
    count = d.integer(5, 8)
    points = _law(d, count, 12, 18, 0.05)
    if group == "refus":
        compute, loss = points["compute"].clone(), points["loss"].clone()
        compute[d.integer(0, count - 1)], loss[d.integer(0, count - 1)] = 0.0, -0.5
        return d.turn(
            [
                points | {"compute": compute},
                {"compute": points["compute"][:1], "loss": points["loss"][:1]},
                points | {"loss": loss},
            ]
        )
    if group == "bords":
        return d.turn(
            [
                {name: t[:2] for name, t in points.items()},
                _law(d, count, 0.2, 2.0, 0.05),
                points
                | {"loss": points["loss"].flip(0).sort().values[torch.argsort(torch.argsort(points["compute"]))]},
                _law(d, count, 20, 25, 0.05),
            ]
        )
    if group == "types":
        near = _law(d, count, 0.5, 3, 0.05)
        return d.turn(
            [
                {name: d.strided(t) for name, t in points.items()},
                {name: t.float() for name, t in near.items()},
                {name: t.flip(0)[::2] for name, t in _law(d, 2 * count, 12, 18, 0.05).items()},
            ]
        )
    return points


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Prenez le logarithme des deux côtés de loss = a·compute^(−b) : que devient la formule ?",
        "log loss = log a − b·log compute : une droite, dont l'ordonnée à l'origine est log a et la pente −b.",
        "La pente des moindres carrés est Σ(x − x̄)(y − ȳ) / Σ(x − x̄)², et la droite passe par le point moyen.",
        "b est l'opposé de la pente ; a est l'exponentielle de l'ordonnée à l'origine, dans la base du logarithme "
        "pris.",
    ],
    groups={"courant": 0.55, "bords": 0.2, "types": 0.15, "refus": 0.1},
    draw=draw_power_law,
    visible=4,
    tolerance=Tolerance(rtol=2e-4, atol=1e-6, why="moindres carrés, parfois en float32"),
    examples=[
        {
            "compute": torch.tensor([1e12, 1e13, 1e14, 1e15], dtype=torch.float64),
            "loss": torch.tensor([5.1, 4.3, 3.7, 3.0], dtype=torch.float64),
        }
    ],
)


misconceptions = """\
linear_fit   x, y = compute.double().log(), loss.double().log() → x, y = compute.double(), loss.double()
    & return math.exp(intercept), -slope.item() → return intercept, -slope.item()
    Une loi de puissance n'est une droite qu'après un changement d'axes.

semilog   x, y = compute.double().log(), loss.double().log() → x, y = compute.double().log(), loss.double()
    & return math.exp(intercept), -slope.item() → return intercept, -slope.item()
    Un seul de vos deux axes est logarithmique.

exponential   x, y = compute.double().log(), loss.double().log() → x, y = compute.double(), loss.double().log()
    Vous ajustez une exponentielle : dans une loi de puissance, le calcul aussi passe par le logarithme.

mixed_bases   x, y = compute.double().log(), loss.double().log()
    → x, y = compute.double().log10(), loss.double().log10()
    L'exposant est bon, pas le facteur : dans quelle base revenez-vous du logarithme ?

log_a   return math.exp(intercept), -slope.item() → return intercept, -slope.item()
    Votre premier nombre est le logarithme du facteur : comment en revenir ?

sign_b   return math.exp(intercept), -slope.item() → return math.exp(intercept), slope.item()
    La perte baisse quand le calcul augmente : quel signe porte déjà la formule ?

swapped   return math.exp(intercept), -slope.item() → return -slope.item(), math.exp(intercept)
    Vos deux nombres sont justes et dans l'autre ordre : le facteur d'abord, l'exposant ensuite.

two_points
    - slope = (dx * dy).sum() / (dx * dx).sum()
    - intercept = (y.mean() - slope * x.mean()).item()
    + first, last = x.argmin(), x.argmax()
    + slope = (y[last] - y[first]) / (x[last] - x[first])
    + intercept = (y[first] - slope * x[first]).item()
    Vous tirez la droite par deux points : les autres mesures doivent compter.

first_and_last   slope = (dx * dy).sum() / (dx * dx).sum() → slope = (y[-1] - y[0]) / (x[-1] - x[0])
    & intercept = (y.mean() - slope * x.mean()).item() → intercept = (y[0] - slope * x[0]).item()
    Vous ne regardez que la première et la dernière mesure de la liste, qui n'est pas rangée : les autres doivent
    compter.

through_origin   slope = (dx * dy).sum() / (dx * dx).sum() → slope = (x * y).sum() / (x * x).sum()
    & intercept = (y.mean() - slope * x.mean()).item() → intercept = 0.0
    Votre droite passe par l'origine : le facteur a n'a aucune raison de valoir 1.

axes_swapped   x, y = compute.double().log(), loss.double().log()
    → y, x = compute.double().log(), loss.double().log()
    & return math.exp(intercept), -slope.item() → return math.exp(-intercept / slope.item()), -1 / slope.item()
    Vous expliquez le calcul par la perte : les moindres carrés doivent porter sur l'écart des pertes.

no_check   if len(compute) < 2 or (compute <= 0).any() or (loss <= 0).any(): → if False:
    Le logarithme d'un nombre négatif, une droite par un seul point : votre fonction rend nan au lieu de refuser.

one_point   if len(compute) < 2 or (compute <= 0).any() → if (compute <= 0).any()
    Par un seul point passent toutes les droites : l'énoncé demande de le refuser.

no_positive_check   if len(compute) < 2 or (compute <= 0).any() or (loss <= 0).any(): → if len(compute) < 2:
    Une valeur nulle ou négative n'a pas de logarithme : l'énoncé demande de la refuser.

only_compute_checked   or (compute <= 0).any() or (loss <= 0).any(): → or (compute <= 0).any():
    Vous surveillez le calcul, pas la perte : elle aussi passe par le logarithme.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def _refuse_points(compute, loss):
    if len(compute) < 2:
        raise ValueError("trop peu de points")
    if bool((compute <= 0).any()) or bool((loss <= 0).any()):
        raise ValueError("valeurs")


def law_polyfit(compute, loss):
    _refuse_points(compute, loss)
    slope, intercept = np.polyfit(np.log(compute.numpy()), np.log(loss.numpy()), 1)
    return float(np.exp(intercept)), float(-slope)


def law_log10(compute, loss):
    """En base 10 d'un bout à l'autre."""
    _refuse_points(compute, loss)
    slope, intercept = np.polyfit(np.log10(compute.double().numpy()), np.log10(loss.double().numpy()), 1)
    return 10**intercept, -slope


def law_lstsq(compute, loss):
    _refuse_points(compute, loss)
    x = torch.log(compute.to(torch.float64))
    design = torch.stack([torch.ones_like(x), -x], dim=1)
    solution = torch.linalg.lstsq(design, torch.log(loss.to(torch.float64))[:, None]).solution[:, 0]
    return solution[0].exp().item(), solution[1].item()


def law_loops(compute, loss):
    _refuse_points(compute, loss)
    xs = [math.log(c) for c in compute.tolist()]
    ys = [math.log(y) for y in loss.tolist()]
    n = len(xs)
    mx, my = sum(xs) / n, sum(ys) / n
    slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / sum((x - mx) ** 2 for x in xs)
    return math.exp(my - slope * mx), -slope


def law_own_dtype(compute, loss):
    """Dans le type reçu, équations normales centrées."""
    _refuse_points(compute, loss)
    x, y = compute.log(), loss.log()
    x0 = x.mean()
    b = -torch.dot(x - x0, y) / torch.dot(x - x0, x - x0)
    return float(torch.exp(y.mean() + b * x0)), float(b)


styles = [law_polyfit, law_log10, law_lstsq, law_loops, law_own_dtype]
