"""Exercice `nf4_quantize` du chapitre 8."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

_PUBLISHED = torch.tensor(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    dtype=torch.float64,
)  # fmt: skip
"""Niveaux publiés par bitsandbytes (create_normal_map) : ils ne servent ici qu'à tirer des valeurs loin des seuils."""


def _near_levels(d: Draw, blocks: int, size: int) -> torch.Tensor:
    """(blocks, size) : chaque valeur est près d'un niveau, et le plus grand écart à zéro de chaque bloc vaut 1."""
    codes = d.integers(1, 14, blocks, size)
    gaps = torch.minimum(_PUBLISHED[codes] - _PUBLISHED[codes - 1], _PUBLISHED[codes + 1] - _PUBLISHED[codes])
    noise = 2 * torch.rand(blocks, size, generator=d.generator, dtype=torch.float64) - 1
    values = _PUBLISHED[codes] + 0.3 * gaps * noise
    peaks = d.integers(0, size - 1, blocks)
    values[torch.arange(blocks), peaks] = d.integers(0, 1, blocks).double() * 2 - 1
    return values


def _scaled(d: Draw, blocks: int, size: int) -> torch.Tensor:
    """Les mêmes, chaque bloc à son échelle."""
    return _near_levels(d, blocks, size) * torch.exp(d.normal(blocks, 1).double()).clamp(0.05, 20)


def _tie() -> float:
    """Le niveau qui suit 0, tel que la cellule de préparation du chapitre le calcule en float32."""
    last = 1 - (1 / 32 + 1 / 30) / 2
    top = NormalDist().inv_cdf(last)
    return float(torch.tensor([NormalDist().inv_cdf(0.5 + (last - 0.5) / 8)]) / top)


def draw_nf4(d: Draw, group: str) -> Inputs:
    size = d.turn([8, 4, 16, 8])
    if group == "courant":
        blocks = d.turn([6, 8, 2, 4])
        return {"w": _scaled(d, blocks, size).reshape(4, -1).float(), "block_size": size}
    if group == "bords":
        w = _scaled(d, 4, size).float()
        kind = d.turn(["égalité", "bloc nul", "extrême", "un par bloc"])
        if kind == "égalité":
            half = torch.tensor([_tie() / 2])
            w[:2] = 0
            w[0, 0], w[0, 1:3] = 1.0, half
            w[1, 1], w[1, 0], w[1, 2] = -2.0, 2 * half[0], half[0]
        elif kind == "bloc nul":
            w[d.integer(1, 2)] = 0
        elif kind == "extrême":
            w[2, 0] = 1000.0 * w[2].abs().max()
        else:
            return {"w": w.flatten()[:12], "block_size": 1}
        return {"w": w, "block_size": size}
    if group == "formes et types":
        blocks = d.turn([4, 6, 8, 8])
        base = _scaled(d, blocks, size)
        return d.turn(
            [
                {"w": base.T.contiguous().T, "block_size": size},
                {"w": base.half(), "block_size": size},
                {"w": d.strided(base.float().reshape(2, 2, -1)), "block_size": size},
                {"w": _near_levels(d, 2, 64).float().flatten()},
            ]
        )
    n = 4 * size
    return {"w": d.normal(2, n // 2), "block_size": d.turn([size + 1 if n % (size + 1) else size + 3, n + 1, n - 1, 3])}


exercise = Exercise(
    points=3,
    minutes=25,
    stars=2,
    hints=[
        "Après la coupe en blocs, une ligne par bloc : que vaut le plus grand écart à zéro de chaque ligne, et que "
        "deviennent les valeurs une fois divisées par lui ?",
        "Les niveaux ne sont pas réguliers : arrondir ne suffit pas. Comment trouver le plus proche de seize nombres ?",
        "Entre deux niveaux voisins, la frontière est leur milieu : il y en a quinze, et torch.bucketize sait dire "
        "entre lesquels tombe une valeur. La distance aux seize niveaux, puis son minimum, convient aussi.",
        "Un bloc nul ferait une division par zéro : divisez-le par 1, ses valeurs tomberont sur le niveau 0.",
    ],
    groups={"courant": 0.45, "bords": 0.25, "formes et types": 0.2, "refus": 0.1},
    draw=draw_nf4,
    visible=2,
    examples=[
        {"w": torch.tensor([[0.0, 2.0, -1.0, 0.3], [-0.5, 0.1, 0.02, 0.0]]), "block_size": 4},
        {"w": torch.tensor([1.0, _tie() / 2, 0.0, -0.1]), "block_size": 2},
    ],
)


misconceptions = """\
uniform_levels   levels = NF4_LEVELS.to(x.device, torch.promote_types(x.dtype, torch.float32))
    → levels = torch.linspace(-1, 1, 16).to(torch.promote_types(x.dtype, torch.float32))
    Vos niveaux sont régulièrement espacés : les poids le sont-ils ?

one_absmax   absmax = blocks.abs().amax(dim=1) → absmax = blocks.abs().amax().expand(len(blocks)).clone()
    Un seul poids extrême écrase tous les blocs : chacun doit avoir son échelle.

floor_level   codes = torch.bucketize(x.to(levels.dtype), middles)
    → codes = torch.bucketize(x.to(levels.dtype), levels, right=True) - 1
    Le niveau du dessous n'est pas toujours le plus proche.

ceil_level   codes = torch.bucketize(x.to(levels.dtype), middles)
    → codes = torch.bucketize(x.to(levels.dtype), levels)
    Le niveau du dessus n'est pas toujours le plus proche.

ties_up   codes = torch.bucketize(x.to(levels.dtype), middles)
    → codes = torch.bucketize(x.to(levels.dtype), middles, right=True)
    À égale distance de deux niveaux, lequel l'énoncé demande-t-il ?

columns   w.reshape(-1, block_size) → w.movedim(0, -1).reshape(-1, block_size)
    Les blocs suivent l'ordre des poids à plat, ligne après ligne : les vôtres descendent les colonnes.

row_blocks   w.reshape(-1, block_size) → w.reshape(w.shape[0], -1)
    Vous prenez une échelle par ligne : que devient block_size ?

scale_l2   absmax = blocks.abs().amax(dim=1) → absmax = blocks.float().norm(dim=1).to(w.dtype)
    Après division, le plus grand poids du bloc doit toucher ±1.

max_without_abs   absmax = blocks.abs().amax(dim=1) → absmax = blocks.amax(dim=1)
    Dans un bloc, le plus grand écart à zéro est souvent du côté négatif.

zero_scale_one   to(torch.uint8), absmax → to(torch.uint8), scale
    Pour diviser, un bloc nul peut se contenter de 1 ; mais son plus grand écart à zéro, lui, vaut 0.

zero_block   blocks / scale[:, None] → blocks / absmax[:, None]
    Un bloc entièrement nul : par quoi divisez-vous ?

int4_codes   codes = torch.bucketize(x.to(levels.dtype), middles)
    → codes = torch.round(x.to(levels.dtype) * 7.5 + 7.5)
    Vous arrondissez sur une grille régulière : les niveaux de NF4 n'en forment pas une.

codes_reversed   codes = torch.bucketize(x.to(levels.dtype), middles)
    → codes = 15 - torch.bucketize(x.to(levels.dtype), middles)
    Le code 0 est celui du plus petit niveau, −1.

inverse_scale   to(torch.uint8), absmax → to(torch.uint8), 1 / absmax
    Vos échelles sont inversées : par quoi faudra-t-il multiplier un niveau pour retrouver le poids ?

no_check   if w.numel() % block_size: → if False:
    Quand les blocs ne tombent pas juste, c'est torch qui se plaint, avec ses mots : l'énoncé demande que ce soit
    vous.

truncates   if w.numel() % block_size: → if False:
    & w.reshape(-1, block_size) → w.flatten()[: w.numel() // block_size * block_size].reshape(-1, block_size)
    Quand les blocs ne tombent pas juste, vous jetez les derniers poids en silence.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


NF4_LEVELS = ...  # donnés par une cellule de préparation, comme à l'étudiant


def _refuse_blocks(w, block_size):
    if w.numel() % block_size != 0:
        raise ValueError("blocs")


def nf4_nearest(w, block_size=64):
    _refuse_blocks(w, block_size)
    flat = w.flatten().reshape(-1, block_size)
    absmax = flat.abs().max(dim=1).values
    safe = absmax.clone()
    safe[safe == 0] = 1
    distance = (flat / safe[:, None])[..., None] - NF4_LEVELS.to(w.device)
    return distance.abs().argmin(-1).flatten().to(torch.uint8), absmax


def nf4_loops(w, block_size=64):
    if w.numel() % block_size:
        raise ValueError("blocs")
    values, levels, codes, absmax = w.double().flatten().tolist(), NF4_LEVELS.double().tolist(), [], []
    for start in range(0, len(values), block_size):
        block = values[start : start + block_size]
        peak = max(abs(v) for v in block)
        absmax.append(peak)
        for v in block:
            x = v / peak if peak else 0.0
            codes.append(min(range(16), key=lambda i, x=x: abs(x - levels[i])))
    return torch.tensor(codes, dtype=torch.uint8), torch.tensor(absmax, dtype=w.dtype)


def nf4_numpy(w, block_size=64):
    _refuse_blocks(w, block_size)
    blocks = w.contiguous().float().numpy().astype(np.float64).reshape(-1, block_size)
    if w.dtype == torch.float64:
        blocks = w.contiguous().numpy().reshape(-1, block_size)
    peak = np.abs(blocks).max(axis=1)
    x = np.divide(blocks, peak[:, None], out=np.zeros_like(blocks), where=peak[:, None] > 0)
    levels = NF4_LEVELS.double().numpy()
    codes = np.searchsorted((levels[1:] + levels[:-1]) / 2, x, side="left")
    return torch.tensor(codes.ravel(), dtype=torch.uint8), torch.tensor(peak).to(w.dtype)


def nf4_thresholds(w, block_size=64):
    """Le nombre de frontières que la valeur dépasse."""
    _refuse_blocks(w, block_size)
    blocks = w.reshape(w.numel() // block_size, block_size)
    absmax = blocks.abs().amax(1)
    x = torch.nan_to_num(blocks.double() / absmax.double()[:, None], nan=0.0)
    middles = ((NF4_LEVELS[1:].double() + NF4_LEVELS[:-1].double()) / 2).to(w.device)
    return (x[..., None] > middles).sum(-1).reshape(-1).type(torch.uint8), absmax


styles = [nf4_nearest, nf4_loops, nf4_numpy, nf4_thresholds]
