"""Exercice `sqnr_db` du chapitre 3."""

from __future__ import annotations

import math

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def draw_sqnr(d: Draw, group: str) -> Inputs:
    shape = d.turn([(4, 5), (12,), (2, 3, 4)])
    r = d.normal(*shape, dtype=torch.float64) * d.choice([0.05, 1.0, 20.0]) * (1 + 2 * d.integers(0, 1, *shape))
    noise = d.normal(*shape, dtype=torch.float64)
    noise *= d.uniform(0.02, 0.3) * r.norm() / noise.norm()
    r_hat = d.uniform(0.6, 0.85) * r + noise
    if group == "bords":
        exact, one = r.float().clone(), r.flatten()[0]
        pairs = [(r, r_hat), (exact, exact.clone()), (d.strided(r), d.strided(r_hat)), (one, 0.8 * one)]
        r, r_hat = d.turn([*pairs, (r.float(), torch.zeros(shape)), (r, r.clone())])
        return {"r": r, "r_hat": r_hat}
    return {"r": r.float(), "r_hat": r_hat.float()}


exercise = Exercise(
    points=1,
    minutes=4,
    hints=[
        "Qu'est-ce qui est le signal, qu'est-ce qui est le bruit ? Une puissance est une somme de carrés.",
        "Le décibel est dix fois le logarithme, en base dix, d'un rapport de puissances. Et si le bruit est nul ?",
    ],
    groups={"courant": 0.6, "bords": 0.4},
    draw=draw_sqnr,
    probe="call_float",
    cases=6,
    examples=[
        {"r": torch.tensor([3.0, -4.0]), "r_hat": torch.tensor([3.0, -3.5])},
        {"r": torch.tensor([3.0, -4.0]), "r_hat": torch.tensor([3.0, -4.0])},
    ],
    tolerance=Tolerance(rtol=1e-4, atol=1e-3, why="sommes en float32 ; un millième de décibel ne s'entend pas"),
)


misconceptions = """\
20log   10 * torch.log10 → 20 * torch.log10
    Vous traitez un rapport de puissances comme un rapport d'amplitudes.

natural_log   torch.log10 → torch.log
    Le décibel a sa base.

amplitude_ratio   r.square().sum() / noise → (r.square().sum() / noise).sqrt()
    Votre rapport est celui des amplitudes ; le décibel compare des puissances.

bels   10 * torch.log10 → torch.log10
    Votre nombre est juste en bels : combien de décibels y a-t-il dans un bel ?

no_log   10 * torch.log10(r.square().sum() / noise) → r.square().sum() / noise
    Vous rendez le rapport lui-même : le décibel en est un logarithme.

signal_is_r_hat   r.square().sum() / noise → r_hat.square().sum() / noise
    Le signal est ce qu'on voulait garder, pas ce qu'on a obtenu.

squares_difference   (r - r_hat).square().sum() → (r.square() - r_hat.square()).sum().abs()
    Le bruit est l'énergie de l'écart, pas l'écart des énergies.

absolute_values   (r - r_hat).square().sum() → (r - r_hat).abs().sum()
    & r.square().sum() → r.abs().sum()
    Une puissance est une somme de carrés, pas une somme de valeurs absolues.

psnr   r.square().sum() / noise → r.numel() * r.square().max() / noise
    Le signal se mesure sur toutes les valeurs, pas sur la plus grande seulement.

inverted   r.square().sum() / noise → noise / r.square().sum()
    Quand l'erreur diminue, votre rapport diminue aussi : qui est au numérateur ?

no_inf   = _sqnr_no_inf
    Quand rien n'a été perdu, le bruit est nul : que devient alors votre division ?
"""


def _sqnr_no_inf(r: torch.Tensor, r_hat: torch.Tensor) -> float:
    noise = ((r.double() - r_hat.double()) ** 2).sum().item()
    return 10 * math.log10((r.double() ** 2).sum().item() / noise)


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def sqnr_loops(r, r_hat):
    signal = noise = 0.0
    for a, b in zip(r.flatten().tolist(), r_hat.flatten().tolist(), strict=True):
        signal += a * a
        noise += (a - b) ** 2
    return 10 * math.log10(signal / noise) if noise else float("inf")


def sqnr_norms(r, r_hat):
    return 20 * torch.log10(torch.linalg.vector_norm(r) / torch.linalg.vector_norm(r - r_hat))


def sqnr_numpy(r, r_hat):
    r, r_hat = r.numpy(), r_hat.numpy()
    if (r == r_hat).all():
        return np.inf
    return 10 * np.log10(np.mean(r**2) / np.mean((r - r_hat) ** 2))


def sqnr_dot(r, r_hat):
    error = (r - r_hat).flatten()
    noise = torch.dot(error, error).item()
    if noise == 0:
        return math.inf
    return 10 * (math.log(torch.dot(r.flatten(), r.flatten()).item()) - math.log(noise)) / math.log(10)


styles = [sqnr_loops, sqnr_norms, sqnr_numpy, sqnr_dot]
