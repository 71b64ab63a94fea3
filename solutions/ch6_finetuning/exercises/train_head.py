"""Exercice `train_head` du chapitre 6."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def draw_head(d: Draw, group: str) -> Inputs:
    n, width, classes = d.integer(7, 12), d.turn([4, 5, 4, 6]), 3
    features = d.normal(n, width) + 0.5
    labels = torch.cat([torch.tensor([0, 0, 1, 2]), d.integers(0, 1, n - 4)])
    inputs = {"features": features, "labels": labels, "n_classes": classes}
    if group == "courant":
        lr = round(d.uniform(0.2, 0.6), 2)
        return d.turn(
            [
                inputs | {"lr": lr, "steps": 1},
                inputs | {"lr": lr, "steps": d.integer(5, 9)},
                inputs,
                inputs | {"lr": lr},
            ]
        )
    return d.turn(
        [
            inputs | {"lr": 0.3, "steps": 0},
            inputs | {"n_classes": classes + 2, "lr": 0.3, "steps": 6},
            inputs | {"features": d.strided(features).double(), "lr": 0.3, "steps": 6},
            inputs | {"features": features.T.contiguous().T[:1], "labels": labels[:1], "lr": 0.3, "steps": 6},
        ]
    )


exercise = Exercise(
    points=3,
    minutes=25,
    stars=2,
    hints=[
        "Pour un seul exemple, le gradient de −ln p(bonne classe) par rapport aux scores s'écrit très simplement : "
        "lequel ?",
        "C'est p − y : les probabilités, moins 1 sur la bonne classe. Un score vaut W·x + b : que devient ce gradient "
        "pour W, et pour b ?",
        "Sur n exemples, avec E la matrice (n, C) des p − y et X celle des entrées : la perte est une moyenne, donc "
        "les "
        "deux gradients aussi.",
        "∂W = Eᵀ·X / n et ∂b = moyenne des lignes de E ; les deux pas se font depuis les mêmes W et b.",
    ],
    groups={"courant": 0.75, "bords et types": 0.25},
    draw=draw_head,
    visible=3,
    cases=4,
    examples=[
        {
            "features": torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
            "labels": torch.tensor([0, 1, 2]),
            "n_classes": 3,
            "lr": 0.5,
            "steps": 1,
        }
    ],
    tolerance=Tolerance(rtol=1e-3, atol=2e-5, why="cent pas de descente en float32, sommes dans un autre ordre"),
)


misconceptions = """\
sum_loss   error.T @ features / len(features) → error.T @ features
    & error.mean(dim=0) → error.sum(dim=0)
    Doublez les données, et votre pas double : la perte est une moyenne.

sum_for_bias   error.mean(dim=0) → error.sum(dim=0)
    W suit une moyenne sur les exemples, b une somme : c'est pourtant la même perte.

mean_over_classes   error.T @ features / len(features) → error.T @ features / error.numel()
    & error.mean(dim=0) → error.mean(dim=0) / n_classes
    Vous divisez aussi par le nombre de classes : la perte est une moyenne sur les exemples seulement.

new_b_in_grad
    - grad_weight, grad_bias = error.T @ features / len(features), error.mean(dim=0)
    - weight, bias = weight - lr * grad_weight, bias - lr * grad_bias
    + bias = bias - lr * error.mean(dim=0)
    + error = torch.softmax(features @ weight.T + bias, dim=-1) - target
    + weight = weight - lr * error.T @ features / len(features)
    Un pas de gradient met tout à jour depuis le même point : W voit chez vous un b déjà déplacé.

random_start   torch.zeros(n_classes, width, dtype=features.dtype, device=features.device)
    → 0.01 * torch.randn(n_classes, width, dtype=features.dtype, device=features.device)
    Votre tête part du hasard : l'énoncé la fait partir de zéro, et sans aucun pas elle doit y rester.

grad_accumulates   = _accumulates
    Votre gradient se souvient des pas précédents : qui l'efface ?

stochastic   = _stochastic
    Vous mettez à jour après chaque exemple : un pas, ici, voit tous les exemples à la fois.

sigmoid   torch.softmax(features @ weight.T + bias, dim=-1) - target
    → torch.sigmoid(features @ weight.T + bias) - target
    Vos classes ne se disputent pas la même probabilité : leur somme doit valoir 1.

squared_error   torch.softmax(features @ weight.T + bias, dim=-1) - target → features @ weight.T + bias - target
    Vous comparez des scores à 0 et 1, comme pour une erreur quadratique : où sont les probabilités ?

softmax_axis   bias, dim=-1) → bias, dim=0)
    Vos probabilités somment à 1 sur les exemples : c'est sur les classes d'un exemple qu'elles doivent le faire.

ascent   weight, bias = weight - lr * grad_weight, bias - lr * grad_bias
    → weight, bias = weight + lr * grad_weight, bias + lr * grad_bias
    Votre perte monte : dans quel sens faut-il suivre le gradient ?

bias_frozen   weight, bias = weight - lr * grad_weight, bias - lr * grad_bias → weight = weight - lr * grad_weight
    Votre biais ne bouge pas : il apprend lui aussi.

one_less   range(steps) → range(steps - 1)
    Comptez les mises à jour : il en manque une.

transposed   return weight, bias → return weight.T, bias
    Votre matrice est couchée : l'énoncé veut une ligne par classe.
"""


def _stochastic(features: Tensor, labels: Tensor, n_classes: int, lr: float = 0.1, steps: int = 100) -> Any:
    weight = torch.zeros(n_classes, features.shape[1], dtype=features.dtype)
    bias = torch.zeros(n_classes, dtype=features.dtype)
    for _ in range(steps):
        for x, y in zip(features, labels, strict=True):
            error = torch.softmax(weight @ x + bias, dim=-1)
            error[y] -= 1
            weight, bias = weight - lr * torch.outer(error, x), bias - lr * error
    return weight, bias


def _accumulates(features: Tensor, labels: Tensor, n_classes: int, lr: float = 0.1, steps: int = 100) -> Any:
    weight = torch.zeros(n_classes, features.shape[1], dtype=features.dtype, requires_grad=True)
    bias = torch.zeros(n_classes, dtype=features.dtype, requires_grad=True)
    for _ in range(steps):
        torch.nn.functional.cross_entropy(features @ weight.T + bias, labels).backward()
        with torch.no_grad():
            weight -= lr * weight.grad
            bias -= lr * bias.grad
    return weight, bias


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def head_autograd(features, labels, n_classes, lr=0.1, steps=100):
    head = torch.nn.Linear(features.shape[1], n_classes).to(features)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD(head.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(head(features), labels).backward()
        optimizer.step()
    return head.weight.detach(), head.bias.detach()


def head_grad_function(features, labels, n_classes, lr=0.1, steps=100):
    w = features.new_zeros(n_classes, features.shape[1]).requires_grad_()
    b = features.new_zeros(n_classes).requires_grad_()
    for _ in range(steps):
        loss = -(features @ w.T + b).log_softmax(1)[torch.arange(len(labels)), labels].mean()
        gw, gb = torch.autograd.grad(loss, (w, b))
        w, b = (w - lr * gw).detach().requires_grad_(), (b - lr * gb).detach().requires_grad_()
    return w, b


def head_bias_in_features(features, labels, n_classes, lr=0.1, steps=100):
    """Le biais est le poids d'une composante toujours égale à 1 ; tout en float64."""
    x = torch.cat([features.double(), torch.ones_like(features[:, :1]).double()], dim=1)
    w = x.new_zeros(n_classes, x.shape[1])
    y = torch.eye(n_classes).to(x)[labels]
    for _ in range(steps):
        w -= lr * ((x @ w.T).softmax(1) - y).T @ x / x.shape[0]
    return w[:, :-1].to(features.dtype), w[:, -1].to(features.dtype)


def head_loops(features, labels, n_classes, lr=0.1, steps=100):
    w = features.new_zeros(n_classes, features.shape[1])
    b = features.new_zeros(n_classes)
    for _ in range(steps):
        gw, gb = torch.zeros_like(w), torch.zeros_like(b)
        for x, y in zip(features, labels.tolist(), strict=True):
            p = torch.softmax(w @ x + b, 0)
            for c in range(n_classes):
                g = p[c] - (1.0 if c == y else 0.0)
                gw[c] += g * x / len(features)
                gb[c] += g / len(features)
        w -= lr * gw
        b -= lr * gb
    return w, b


def head_numpy(features, labels, n_classes, lr=0.1, steps=100):
    x, y = features.double().numpy(), np.eye(n_classes)[labels.numpy()]
    w, b = np.zeros((n_classes, x.shape[1])), np.zeros(n_classes)
    for _ in range(steps):
        z = x @ w.T + b
        p = np.exp(z - z.max(1, keepdims=True))
        error = p / p.sum(1, keepdims=True) - y
        w, b = w - lr * error.T @ x / len(x), b - lr * error.mean(0)
    return torch.tensor(w, dtype=features.dtype), torch.tensor(b, dtype=features.dtype)


styles = [head_autograd, head_grad_function, head_bias_in_features, head_loops, head_numpy]
