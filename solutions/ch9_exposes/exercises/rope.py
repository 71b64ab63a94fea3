"""Exercice `rope` du chapitre 9."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

SMALL = 0.12
"""Aucune valeur rendue n'est plus petite, en demi-précision : une soustraction n'y efface pas tous les chiffres."""


def _turned(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Chaque couple est un nombre complexe, multiplié par un nombre de module 1."""
    d = x.shape[-1]
    speeds = torch.tensor([base ** (-2 * i / d) for i in range(d // 2)], dtype=torch.float64)
    angles = positions.double()[:, None] * speeds
    pairs = torch.complex(x.double()[..., 0::2], x.double()[..., 1::2]) * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(pairs).flatten(-2)


def _positions(d: Draw, count: int, high: int = 40) -> Tensor:
    """Des rangs tous différents, ni consécutifs, ni comptés depuis 0."""
    return torch.tensor(d.random.sample(range(3, high), count))


def draw_rope(d: Draw, group: str) -> Inputs:
    if group == "refus":
        width = d.turn([5, 3, 7, 1])
        return {"x": d.normal(2, width), "positions": torch.tensor([1, 2])}
    if group == "courant":
        t, width = d.turn([(3, 4), (4, 6), (5, 8), (3, 6)])
        return {"x": d.normal(t, width), "positions": _positions(d, t)}
    if group == "formes et bases":
        shape = d.turn([(2, 3, 4), (2, 2, 3, 6), (4, 2), (1, 5, 8)])
        base = d.turn([500.0, 10000.0, 100.0, 500000.0])
        return {"x": d.normal(*shape), "positions": _positions(d, shape[-2]), "base": base}
    x, positions = d.normal(2, 3, 6), _positions(d, 3)
    kind = d.turn(["half", "double", "strided", "transposed"])
    if kind == "half":
        positions = 2 * _positions(d, 3, 1000).sort(descending=True).values + 2047  # aucun ne s'écrit en FP16
        while _turned(x.half(), positions, 10000.0).abs().min() < SMALL:
            x = 2 * d.normal(2, 3, 4)
        return {"x": x.half(), "positions": positions}
    if kind == "double":
        return {"x": x.double(), "positions": positions, "base": 1000.0}
    if kind == "strided":
        return {"x": d.strided(x), "positions": d.strided(positions)}
    return {"x": x.transpose(0, 1).contiguous().transpose(0, 1), "positions": positions}


exercise = Exercise(
    points=2,
    minutes=15,
    stars=3,
    hints=[
        "Un couple (a, b) est un point du plan. Où va-t-il quand on le tourne d'un angle θ ?",
        "Il y a un angle par rang et par couple : quel produit de deux vecteurs les donne tous, en (T, d/2) ?",
        "Les colonnes paires d'un côté, les impaires de l'autre, séparent les couples ; pour les remettre côte à côte, "
        "empilez-les sur un dernier axe de taille 2, puis aplatissez les deux derniers.",
        "Le couple (a, b) devient (a·cos θ − b·sin θ, a·sin θ + b·cos θ), et le couple i tourne à la vitesse "
        "base^(−2i/d).",
    ],
    groups={"courant": 0.45, "formes et bases": 0.25, "types et mémoire": 0.2, "refus": 0.1},
    draw=draw_rope,
    examples=[
        {"x": torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]]), "positions": torch.tensor([0, 1])},
        {"x": torch.tensor([[1.0, 2.0, 3.0, 4.0]]), "positions": torch.tensor([7]), "base": 100.0},
        {"x": torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]), "positions": torch.tensor([3])},
    ],
    tolerance=Tolerance(rtol=5e-4, atol=2e-5, why="un angle de quelques dizaines de radians en float32"),
)


misconceptions = """\
halves
    - even, odd = x[..., 0::2].to(angles), x[..., 1::2].to(angles)
    - pairs = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    - return pairs.flatten(-2).to(x.dtype)
    + low, high = x.to(angles).chunk(2, dim=-1)
    + return torch.cat([low * cos - high * sin, low * sin + high * cos], dim=-1).to(x.dtype)
    Vos couples unissent la première moitié à la seconde (bien des modèles le font) : ici, deux voisins font un couple.

sign   even * cos - odd * sin, even * sin + odd * cos
    → even * cos + odd * sin, odd * cos - even * sin
    Vous tournez dans l'autre sens : un rang plus grand doit tourner du premier axe vers le second.

half_speed   torch.arange(0, width, 2, device=x.device) / width → torch.arange(width // 2, device=x.device) / width
    Vos couples tournent trop vite, sauf le premier : comptez bien le rang i d'un couple et ce qui le multiplie.

over_half   torch.arange(0, width, 2, device=x.device) / width
    → torch.arange(0, width, 2, device=x.device) / (width // 2)
    Vos couples tournent trop lentement, sauf le premier : par quoi divisez-vous 2i ?

faster_and_faster   base ** -( → base ** (
    Chez vous, les couples tournent de plus en plus vite ; c'est l'inverse.

positions_forgotten   positions[:, None] → torch.arange(x.shape[-2], device=x.device)[:, None]
    Vous comptez les rangs depuis 0 : ils sont donnés, et peuvent commencer ailleurs ou sauter.

positions_from_one   positions[:, None] → (positions[:, None] + 1)
    Le rang 0 ne tourne pas : chez vous, si.

one_speed   * speeds → * speeds[:1]
    Tous vos couples tournent à la même vitesse.

base_ignored   base ** -( → 10000.0 ** -(
    Vous ne vous servez pas de base.

swapped   even * cos - odd * sin, even * sin + odd * cos
    → even * sin + odd * cos, even * cos - odd * sin
    Vos deux composantes sont dans l'autre ordre : au rang 0, rien ne doit changer.

not_interleaved   pairs.flatten(-2) → pairs.transpose(-1, -2).flatten(-2)
    Vos valeurs sont justes, mais les couples ne sont plus côte à côte.

half_angles   positions[:, None].to(torch.float32) * speeds → (positions[:, None] * speeds).to(x.dtype)
    Au rang 2 000, un angle de demi-précision ne vaut plus rien : dans quel type faut-il le compter ?

odd_width   if width % 2: → if False:
    Avec un nombre impair de composantes, il en reste une seule : votre fonction ne le dit pas.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def rope_complex(x, positions, base=10000.0):
    if x.shape[-1] % 2:
        raise ValueError("impair")
    return _turned(x.cpu(), positions.cpu(), base).to(x)


def rope_loops(x, positions, base=10000.0):
    d = x.shape[-1]
    if d % 2 == 1:
        raise ValueError("un nombre pair de composantes")
    out = x.double().clone()
    for t, m in enumerate(positions.tolist()):
        for i in range(d // 2):
            theta = m / base ** (2 * i / d)
            a, b = x[..., t, 2 * i].double(), x[..., t, 2 * i + 1].double()
            out[..., t, 2 * i] = a * math.cos(theta) - b * math.sin(theta)
            out[..., t, 2 * i + 1] = a * math.sin(theta) + b * math.cos(theta)
    return out.to(x.dtype)


def rope_rotate_half(x, positions, base=10000.0):
    """x·cos + x'·sin, où x' est x dont chaque couple (a, b) est devenu (−b, a)."""
    d = x.shape[-1]
    if d % 2:
        raise ValueError
    i = torch.arange(d // 2, device=x.device, dtype=torch.float32)
    angles = torch.outer(positions.float(), torch.exp(-2 * i / d * math.log(base))).repeat_interleave(2, dim=-1)
    y = x.float()
    crossed = torch.stack([-y[..., 1::2], y[..., 0::2]], -1).reshape(y.shape)
    return (y * angles.cos() + crossed * angles.sin()).to(x.dtype)


def rope_matrices(x, positions, base=10000.0):
    """Une matrice de rotation 2 × 2 par rang et par couple, et einsum."""
    d = x.shape[-1]
    if d % 2 != 0:
        raise ValueError("d impair")
    angles = torch.tensor([[m * base ** (-2 * i / d) for i in range(d // 2)] for m in positions.tolist()])
    c, s = angles.cos(), angles.sin()
    turn = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2).to(x.device)
    pairs = x.float().reshape(*x.shape[:-1], d // 2, 2)
    return torch.einsum("tiab,...tib->...tia", turn, pairs).reshape(x.shape).to(x.dtype)


styles = [rope_complex, rope_loops, rope_rotate_half, rope_matrices]
