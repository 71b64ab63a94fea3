"""Exercice `global_magnitude_masks` du chapitre 5."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import distinct, share_off_half

_LAYERS = ("2.mlp.c_fc", "0.attn.c_attn", "3.mlp.c_proj", "1.attn.c_proj")


def draw_global(d: Draw, group: str) -> Inputs:
    shapes = d.turn([((4, 5), (3, 4), (2, 6)), ((3, 3), (5, 3), (9,)), ((2, 7), (4, 4)), ((6, 2), (3, 5), (2, 3, 2))])
    scales = (1.0, 0.25, 3.0)[: len(shapes)]
    tensors = distinct(d, *shapes, scales=scales)
    total = sum(t.numel() for t in tensors)
    names = list(_LAYERS[: len(shapes)])
    amount = share_off_half(d, total)
    if group == "formes et types":
        tensors, amount = d.turn(
            [
                ([d.strided(t) for t in tensors], amount),
                ([t.double().T if t.ndim == 2 else t.double() for t in tensors], amount),
                ([t.half() for t in tensors], amount),
                (tensors[:1], float(d.integer(0, 1))),
            ]
        )
    return {"weights": dict(zip(names, tensors, strict=False)), "amount": amount}


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Un seul classement pour tous les tenseurs : comment comparer des poids rangés dans des tenseurs différents ?",
        "Déroulez chaque |w| et mettez-les bout à bout : le problème devient celui d'un seul tenseur.",
        "Le masque obtenu se recoupe ensuite aux tailles de départ, dans le même ordre, et chaque morceau reprend sa "
        "forme.",
    ],
    groups={"courant": 0.75, "formes et types": 0.25},
    draw=draw_global,
    examples=[
        {
            "weights": {"petit": torch.tensor([0.1, -0.2, 0.3]), "grand": torch.tensor([[1.0, -5.0], [2.0, -0.15]])},
            "amount": 0.43,
        }
    ],
)


misconceptions = """\
same_per_layer   = _same_share
    Chaque couche perd la même part : où est la comparaison entre couches ?

normalised_per_layer   = _normalised
    En remettant chaque couche à la même échelle, vous changez la question.

count_off   round(amount * scores.numel()) → int(amount * scores.numel())
    Le total retiré n'est pas celui demandé : où arrondissez-vous ?

sorted_names   = _sorted_names
    Les masques sont justes mais attribués à d'autres couches.

whole_tensors   = _whole_tensors
    Vous retirez des tenseurs entiers : ce sont les poids qu'il faut classer, un par un.

signed_values   w.abs() → w
    Un grand poids négatif n'est pas un petit poids.

inverted   piece.reshape(w.shape) → ~piece.reshape(w.shape)
    Vous gardez ce qu'il fallait retirer : que veut dire True dans ce masque ?

amount_kept   round(amount * scores.numel()) → round((1 - amount) * scores.numel())
    amount est la part retirée ; chez vous, c'est celle qui reste.

returns_weights   piece.reshape(w.shape) → w * piece.reshape(w.shape)
    Vous rendez les poids élagués : l'énoncé demande où sont les poids gardés.
"""


def _ranked_together(weights: dict[str, Tensor], removed: int, score: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    flat = torch.cat([score(w).flatten() for w in weights.values()])
    kept = flat.argsort().argsort() >= removed
    pieces = kept.split([w.numel() for w in weights.values()])
    return {n: p.reshape(w.shape) for (n, w), p in zip(weights.items(), pieces, strict=True)}


def _total_removed(weights: dict[str, Tensor], amount: float) -> int:
    return round(amount * sum(w.numel() for w in weights.values()))


def _sorted_names(weights: dict[str, Tensor], amount: float) -> dict[str, Tensor]:
    masks = _ranked_together(weights, _total_removed(weights, amount), torch.abs)
    return dict(zip(weights, (masks[n] for n in sorted(weights)), strict=True))


def _normalised(weights: dict[str, Tensor], amount: float) -> dict[str, Tensor]:
    return _ranked_together(weights, _total_removed(weights, amount), lambda w: w.abs() / w.abs().mean())


def _same_share(weights: dict[str, Tensor], amount: float) -> dict[str, Tensor]:
    _total_removed(weights, amount)
    return {n: _ranked_together({n: w}, round(amount * w.numel()), torch.abs)[n] for n, w in weights.items()}


def _whole_tensors(weights: dict[str, Tensor], amount: float) -> dict[str, Tensor]:
    _total_removed(weights, amount)
    order = sorted(weights, key=lambda n: float(weights[n].abs().mean()))
    gone = set(order[: round(amount * len(order))])
    return {n: torch.full(w.shape, n not in gone) for n, w in weights.items()}


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def global_python(weights, amount):
    entries = [(abs(v), name, i) for name, w in weights.items() for i, v in enumerate(w.flatten().tolist())]
    gone = {(name, i) for _, name, i in sorted(entries, key=lambda e: e[0])[: round(amount * len(entries))]}
    return {
        name: torch.tensor([(name, i) not in gone for i in range(w.numel())]).reshape(w.shape)
        for name, w in weights.items()
    }


def global_threshold(weights, amount):
    flat = torch.cat([w.abs().reshape(-1) for w in weights.values()]).sort().values
    k = round(amount * len(flat))
    if k == 0:
        return {n: torch.ones(w.shape, dtype=torch.bool) for n, w in weights.items()}
    return {n: w.abs() > flat[k - 1] for n, w in weights.items()}


def global_numpy(weights, amount):
    flat = np.concatenate([np.abs(w.double().numpy()).ravel() for w in weights.values()])
    kept = np.ones(len(flat), dtype=bool)
    kept[np.argsort(flat, kind="stable")[: round(amount * len(flat))]] = False
    out, at = {}, 0
    for name in reversed(list(weights)):
        out[name] = None  # l'ordre des noms rendus est libre
    for name, w in weights.items():
        out[name] = torch.from_numpy(kept[at : at + w.numel()].copy()).reshape(w.shape)
        at += w.numel()
    return out


def global_kthvalue(weights, amount):
    names = sorted(weights)
    flat = torch.hstack([weights[n].abs().flatten() for n in names])
    k = int(round(amount * flat.numel()))
    limit = flat.kthvalue(k).values if k else torch.tensor(-1.0)
    return {n: torch.gt(weights[n].abs(), limit) for n in names}


styles = [global_python, global_threshold, global_numpy, global_kthvalue]
