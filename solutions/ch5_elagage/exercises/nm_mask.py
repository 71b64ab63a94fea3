"""Exercice `nm_mask` du chapitre 5."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import distinct, lowest_removed


def draw_nm(d: Draw, group: str) -> Inputs:
    if group == "égalités":
        w = d.integers(1, 2, *d.turn([(3, 8), (16,), (2, 12), (4, 8)])).float() * d.choice([-1.0, 1.0])
        w.view(-1)[:4] = torch.tensor([-1.0, 1.0, -1.0, 1.0])  # le signe n'y est jamais indifférent
        n = d.integer(1, 3)
        return {"w": w, "n": n, "m": 4}
    if group == "refus":
        shape, n, m = d.turn([((2, 6), 2, 4), ((3, 8), 5, 4), ((3, 5), 1, 2), ((4, 6), 1, 8)])
        return {"w": distinct(d, shape)[0], "n": n, "m": m}
    shape, pattern = d.turn(
        [((4, 8), {}), ((4, 12), {"n": 1, "m": 4}), ((8, 8), {"n": 3, "m": 8}), ((4, 2, 8), {"n": 3})]
    )
    w = distinct(d, shape)[0]
    if group == "courant":
        return {"w": w, **pattern}
    return d.turn(
        [
            {"w": d.strided(w), "n": 1},
            {"w": distinct(d, (8, 5))[0].double().T, "n": 2, "m": 8},
            {"w": distinct(d, (12,))[0].half(), "n": 1, "m": 3},
            {"w": w, "n": 4},
        ]
    )


exercise = Exercise(
    points=2,
    minutes=15,
    stars=3,
    hints=[
        "Quelle forme donner à w pour que chaque groupe soit une ligne à lui seul ?",
        "En (…, k/m, m), le dernier axe est un groupe. Il reste à y trouver les n plus grands |w|.",
        "Un tri stable et décroissant place, à égalité, le premier venu devant ; ses n premiers indices sont gardés.",
    ],
    groups={"courant": 0.5, "égalités": 0.2, "formes et types": 0.2, "refus": 0.1},
    draw=draw_nm,
    examples=[
        {"w": torch.tensor([[0.1, -3.0, 2.0, 0.5, 1.0, 0.2, -0.3, 0.4]])},
        {"w": torch.tensor([[0.1, -3.0, 2.0, 0.5], [1.0, 0.2, -0.3, 0.4]]), "n": 1, "m": 4},
        {"w": torch.tensor([[0.1, -3.0], [2.0, 0.5]]), "n": 2, "m": 2},
    ],
)


misconceptions = """\
first_axis   = _nm_first_axis
    Vos groupes sont verticaux.

keeps_m_minus_n   order[..., :n] → order[..., : m - n]
    2:4 cache l'erreur ; essayez 1:4.

strided   = _nm_strided
    Les membres d'un groupe doivent être voisins.

unstructured   = _nm_unstructured
    Le compte total est bon, mais certains groupes gardent tout et d'autres rien.

per_row   = _nm_per_row
    Chaque ligne garde la bonne part, mais pas chaque groupe : où comparez-vous les poids ?

signed_values   w.abs() → w
    Un grand poids négatif n'est pas un petit poids.

inverted   return mask → return ~mask
    Vous gardez ce qu'il fallait retirer : que veut dire True dans ce masque ?

threshold_ties
    - return mask.reshape(w.shape)
    + if n:
    +     mask = groups >= groups.sort(dim=-1, descending=True).values[..., n - 1 : n]
    + return mask.reshape(w.shape)
    Avec des valeurs égales, votre seuil garde plus de n poids par groupe.

ties_last   groups.argsort(dim=-1, descending=True, stable=True)
    → (m - 1 - groups.flip(-1).argsort(dim=-1, descending=True, stable=True))
    À égalité, vous gardez le dernier venu : relisez lequel doit rester.

returns_weights   return mask → return w * mask
    Vous rendez les poids élagués : l'énoncé demande où sont les poids gardés.

crosses_rows   = wrong_crosses_rows
    Un groupe ne passe pas d'une ligne à la suivante : quelle taille m doit-il diviser ?

reshape_fails   if n > m or w.shape[-1] % m: → if n > m:
    Votre fonction s'arrête bien, mais c'est torch qui se plaint, avec ses mots : l'énoncé demande que ce soit vous,
    avant de découper.

no_n_check   if n > m or w.shape[-1] % m: → if w.shape[-1] % m:
    Garder 5 poids sur 4 ne veut rien dire : votre fonction répond quand même.
"""


def _nm_first_axis(w: Tensor, n: int = 2, m: int = 4) -> Tensor:
    return _nm(w.transpose(0, -1), n, m).transpose(0, -1)


def _nm_checked(w: Tensor, n: int, m: int) -> None:
    if n > m or w.shape[-1] % m:
        raise ValueError


def _nm(w: Tensor, n: int, m: int) -> Tensor:
    _nm_checked(w, n, m)
    groups = w.abs().reshape(*w.shape[:-1], -1, m)
    order = groups.argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, order[..., :n], True).reshape(w.shape)


def _nm_strided(w: Tensor, n: int = 2, m: int = 4) -> Tensor:
    _nm_checked(w, n, m)
    gathered = w.reshape(*w.shape[:-1], m, -1).transpose(-1, -2)
    return _nm(gathered.reshape(w.shape), n, m).reshape(gathered.shape).transpose(-1, -2).reshape(w.shape)


def _nm_unstructured(w: Tensor, n: int = 2, m: int = 4) -> Tensor:
    _nm_checked(w, n, m)
    flat = w.abs().flatten()
    removed = flat.numel() * (m - n) // m
    return (flat.argsort(stable=True).argsort() >= removed).reshape(w.shape)


def _nm_per_row(w: Tensor, n: int = 2, m: int = 4) -> Tensor:
    _nm_checked(w, n, m)
    rows = w.abs().reshape(-1, w.shape[-1])
    return lowest_removed(rows, w.shape[-1] * (m - n) // m).reshape(w.shape)


def wrong_crosses_rows(w, n=2, m=4):
    return _nm(w.reshape(1, -1), n, m).reshape(w.shape)


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def nm_loops(w, n=2, m=4):
    if n > m or w.size(-1) % m:
        raise ValueError("motif")
    flat, out = w.reshape(-1, w.shape[-1]).tolist(), []
    for row in flat:
        for g in range(0, len(row), m):
            order = sorted(range(m), key=lambda i, g=g, row=row: -abs(row[g + i]))
            out += [i in order[:n] for i in range(m)]
    return torch.tensor(out).reshape(w.shape)


def nm_ranks(w, n=2, m=4):
    if not n <= m or w.shape[-1] % m != 0:
        raise ValueError
    groups = w.abs().unflatten(-1, (-1, m))
    ranks = torch.argsort(torch.argsort(-groups, dim=-1, stable=True), dim=-1)
    return (ranks < n).flatten(-2)


def nm_pairwise(w, n=2, m=4):
    """Un poids est gardé si moins de n voisins le battent : plus grands, ou égaux et placés avant."""
    if n > m or w.shape[-1] % m:
        raise ValueError
    a = w.double().abs().reshape(*w.shape[:-1], -1, m)
    before = torch.ones(m, m, dtype=torch.bool, device=w.device).tril(-1)
    beats = (a[..., None, :] > a[..., :, None]) | ((a[..., None, :] == a[..., :, None]) & before)
    return (beats.sum(-1) < n).reshape(w.shape)


def nm_numpy(w, n=2, m=4):
    if n > m or w.shape[-1] % m > 0:
        raise ValueError
    a = -np.abs(w.double().numpy()).reshape(-1, m)
    order = np.argsort(a, axis=1, kind="stable")
    mask = np.zeros(a.shape, dtype=bool)
    np.put_along_axis(mask, order[:, :n], True, axis=1)
    return torch.from_numpy(mask).reshape(w.shape)


styles = [nm_loops, nm_ranks, nm_pairwise, nm_numpy]
