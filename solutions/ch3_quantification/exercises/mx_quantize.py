"""Exercice `mx_quantize` du chapitre 3."""

from __future__ import annotations

import math

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

_LEVELS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], dtype=torch.float64)
_EDGES = torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 8.0], dtype=torch.float64)
"""Les milieux de deux voisins ; au-delà de 5, tout va à 6, et le plus grand d'un bloc est sous 8."""


def _blocks(d: Draw, shape: tuple[int, ...], block_size: int, low: int = -6, high: int = 4) -> torch.Tensor:
    """Des réels float64 dont chaque bloc a son échelle, à un dixième d'intervalle au moins de tout milieu."""
    size = (*shape[:-1], shape[-1] // block_size, block_size)
    codes = d.integers(0, 7, *size)
    first = torch.zeros(size[:-1], dtype=torch.int64) + d.integers(0, block_size - 1, *size[:-1])
    top = (d.integers(0, 1, *size[:-1]) + 6)[..., None]  # le plus grand d'un bloc, en pas d'échelle : de 4 à 8
    codes = codes.scatter(-1, first[..., None], top)
    inside = 0.1 + 0.8 * torch.rand(size, generator=d.generator, dtype=torch.float64)
    low_edge = torch.where(codes == 6, 4.0, _EDGES[codes])  # 3,5 s'arrondit à 4, mais ne ferait pas la même échelle
    sizes = low_edge + (_EDGES[codes + 1] - low_edge) * inside
    signs = 2.0 * d.integers(0, 1, *size) - 1.0
    return (signs * sizes * 2.0 ** d.integers(low, high, *size[:-1], 1)).reshape(shape)


def draw_mx(d: Draw, group: str) -> Inputs:
    if group == "courant":
        shape, block_size = d.turn([((2, 64), 32), ((3, 32), 32), ((2, 2, 16), 8), ((96,), 32)])
        x = _blocks(d, shape, block_size).float()
        return {"x": x} if block_size == 32 and d.index % 2 else {"x": x, "block_size": block_size}
    if group == "bords":
        x = _blocks(d, (3, 16), 8, -3, 2).float()
        scale = 2.0 ** d.integer(2, 6)  # juste sous 2⁵, un logarithme en float32 dit 5
        halves = torch.tensor([0.25, -0.75, 1.25, -1.75, 2.5, -3.5, 5.0, 4.0])
        just_under = torch.nextafter(torch.tensor(8.0), torch.tensor(0.0)).item()
        almost = torch.tensor([just_under, 3.2, -2.2, 0.6, 1.4, 0.0, -6.4, 1.1])
        power = torch.tensor([4.0, -3.2, 0.6, -0.1, 2.2, 1.4, 0.0, -0.9])
        special = d.turn([halves, almost, power, torch.zeros(8)])
        x[d.integer(0, 2), :8] = special * scale
        x[d.integer(0, 2), 8:] = torch.zeros(8) if d.index % 2 else special * -scale
        return {"x": x, "block_size": 8}
    if group == "types":
        x = _blocks(d, d.turn([(2, 16), (1, 3, 8), (16,), (4, 8)]), 8, -2, 3)
        return {"x": d.turn([x.half(), x, x.bfloat16(), d.strided(x.float())]), "block_size": 8}
    n, block_size = d.turn([(48, 32), (12, 8), (4, 8), (33, 32)])
    return {"x": d.normal(2, n), "block_size": block_size}


exercise = Exercise(
    points=3,
    minutes=25,
    stars=3,
    hints=[
        "Rangez les valeurs en blocs : quel axe de plus faut-il pour que chacun ait son maximum ?",
        "Un flottant est déjà une mantisse et un exposant : torch.frexp les rend, sans logarithme ni arrondi. Entre "
        "quelles bornes est sa mantisse ?",
        "Entre 2 et 4, les valeurs d'E2M1 sont à distance 1. À quelle distance le sont-elles entre 4 et 6 ? Et sous "
        "2 ? Une fois ce pas connu, arrondir à un de ses multiples, vous savez le faire.",
    ],
    groups={"courant": 0.5, "bords": 0.3, "types": 0.1, "refus": 0.1},
    draw=draw_mx,
    cases=8,
    visible=4,
    examples=[
        {"x": torch.tensor([[0.9, -6.0, 0.2, 5.1], [0.3, 0.1, -0.04, 0.0]]), "block_size": 4},
        {"x": torch.tensor([0.25, 0.75, 2.5, 3.5, -1.25, -1.75, 5.0, 7.9]), "block_size": 8},
    ],
)


misconceptions = """\
max_over_six   torch.ldexp(torch.ones_like(peak), torch.frexp(peak).exponent - 3)
    → torch.where(peak > 0, peak / 6, torch.ones_like(peak))
    Votre plus grande valeur tombe toujours juste : l'échelle d'un bloc n'a que huit bits, tous pour l'exposant.

ceiling   torch.frexp(peak).exponent - 3 → torch.ceil(torch.log2(peak.clamp(min=1e-30))).int() - 2
    Vos échelles sont deux fois trop grandes dans la plupart des blocs : de quel côté tombe la partie entière ?

no_largest_power   torch.frexp(peak).exponent - 3 → torch.frexp(peak).exponent - 1
    Votre plus grande valeur devient 1, parfois 1,5 : E2M1 monte pourtant jusqu'à 6.

frexp_half   torch.frexp(peak).exponent - 3 → torch.frexp(peak).exponent - 2
    Vos échelles sont toutes deux fois trop grandes : entre quelles bornes est la mantisse que rend frexp ?

rounded_exponent   torch.frexp(peak).exponent - 3
    → torch.log2(peak.clamp(min=1e-30)).round().int() - 2
    Vous arrondissez l'exposant : un bloc dont le maximum vaut 7 n'a pas la même échelle qu'un bloc à 8.

log_in_float   torch.frexp(peak).exponent - 3 → torch.log2(peak.clamp(min=1e-30)).float().floor().int() - 2
    Juste sous une puissance de deux, votre logarithme s'arrondit à l'entier du dessus : lisez l'exposant, sans calcul.

uniform_grid   torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0)) → torch.ones_like(size)
    Vos valeurs sont régulièrement espacées, comme des entiers : celles d'E2M1 se resserrent vers zéro.

no_subnormals   torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    → torch.where(size > 0, torch.ldexp(torch.ones_like(size), torch.frexp(size).exponent - 2), 1.0)
    Sous 1, vous inventez des valeurs : un exposant écrit nul ne descend pas plus bas, il ne reste que 0 et 0,5.

one_step_below_four   torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    → torch.where(size < 4, 0.5, 2.0)
    Vous rendez 2,5 ou 3,5, qui n'ont pas de code : avec un bit de fraction, que trouve-t-on entre 2 et 4 ?

one_scale   peak = blocks.abs().amax(dim=-1, keepdim=True)
    → peak = blocks.abs().amax(dim=-1, keepdim=True).clone(); peak[...] = peak.max() if peak.numel() else 0
    Un seul grand bloc décide pour tous : chacun a son échelle.

scale_per_row   peak = blocks.abs().amax(dim=-1, keepdim=True)
    → peak = blocks.abs().amax(dim=(-2, -1), keepdim=True).expand(*blocks.shape[:-1], 1)
    Vous avez une échelle par ligne ; un bloc n'est qu'un morceau de ligne.

no_abs   peak = blocks.abs().amax(dim=-1, keepdim=True) → peak = blocks.amax(dim=-1, keepdim=True)
    Dans certains blocs, la valeur la plus éloignée de zéro est négative.

to_eight   .clamp(max=6) → ∅
    Vous rendez 8, un code que quatre bits n'ont pas : que devient ce qui dépasse 6 ?

to_infinity   (torch.round(size / step) * step).clamp(max=6)
    → (torch.round(size / step) * step).masked_fill(size > 6, math.inf)
    E2M1 n'a pas d'infini : ce qui dépasse la plus grande valeur s'y arrête.

ties_away   torch.round(size / step) → torch.floor(size / step + 0.5)
    À mi-chemin de deux valeurs, vous montez toujours : des deux, laquelle a un bit de fraction nul ?

truncated   torch.round(size / step) → torch.floor(size / step)
    Vous tronquez : la valeur la plus proche est parfois au-dessus.

sign_lost   size.copysign(blocks) → size
    Les signes ont disparu.

codes_only   size.copysign(blocks) * scale → size.copysign(blocks)
    Vous rendez ce qu'il y a dans les codes : il manque l'échelle du bloc.

float_only   .to(x.dtype) → ∅
    Les valeurs sont bonnes ; rendez-les dans le type de x.

no_refusal   raise ValueError(f"des blocs de {block_size} ne tiennent pas dans {x.shape[-1]} valeurs")
    → x = x[..., : x.shape[-1] // block_size * block_size]
    Le dernier bloc est incomplet, et ses valeurs ont disparu sans bruit.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def mx_nearest_code(x, block_size=32):
    """La plus proche des quinze valeurs ; à égalité, celle de code pair."""
    if x.shape[-1] % block_size:
        raise ValueError("dernier axe")
    # fraction nulle d'abord : à égalité, argmin garde la première
    order = torch.tensor([0.0, 1.0, 2.0, 4.0, 0.5, 1.5, 3.0, 6.0], dtype=torch.float64, device=x.device)
    blocks = x.double().reshape(*x.shape[:-1], x.shape[-1] // block_size, block_size)
    peak = blocks.abs().amax(dim=-1, keepdim=True)
    scale = torch.where(peak > 0, 2.0 ** (torch.floor(torch.log2(peak)) - 2), torch.ones_like(peak))
    distances = ((blocks / scale).abs()[..., None] - order).abs()
    return (order[distances.argmin(dim=-1)] * blocks.sign() * scale).reshape(x.shape).to(x.dtype)


def mx_edges(x, block_size=32):
    """Par les milieux, en comptant ceux qui sont dépassés."""
    if x.shape[-1] % block_size != 0:
        raise ValueError("dernier axe")
    pieces = []
    for block in x.float().split(block_size, dim=-1):
        peak = block.abs().amax(dim=-1, keepdim=True)
        scale = torch.exp2((torch.frexp(peak).exponent - 3).float())
        size = block.abs() / scale
        levels = torch.zeros_like(size)
        for edge, level, tie in (
            (0.25, 0.5, False), (0.75, 1.0, True), (1.25, 1.5, False), (1.75, 2.0, True), (2.5, 3.0, False),
            (3.5, 4.0, True), (5.0, 6.0, False),
        ):  # fmt: skip
            levels[(size >= edge) if tie else (size > edge)] = level
        pieces.append(torch.sign(block) * levels * scale)
    return torch.cat(pieces, dim=-1).to(x.dtype) if pieces else x.clone()


def mx_loops(x, block_size=32):
    if x.shape[-1] % block_size:
        raise ValueError("dernier axe")
    levels = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    found = []
    flat = x.double().flatten().tolist()
    for i in range(0, len(flat), block_size):
        block = flat[i : i + block_size]
        peak = max(abs(v) for v in block)
        scale = 2.0 ** (math.frexp(peak)[1] - 3)
        for v in block:
            code = min(range(8), key=lambda k: (abs(abs(v) / scale - levels[k]), k % 2))
            found.append(math.copysign(levels[code] * scale, v))
    return torch.tensor(found, dtype=torch.float64).reshape(x.shape).to(x.dtype)


def mx_numpy(x, block_size=32):
    a = x.double().numpy()
    if a.shape[-1] % block_size:
        raise ValueError("dernier axe")
    blocks = a.reshape(*a.shape[:-1], a.shape[-1] // block_size, block_size)
    _, exponent = np.frexp(np.abs(blocks).max(axis=-1, keepdims=True))
    scaled = np.ldexp(blocks, 3 - exponent)
    step = np.select([np.abs(scaled) < 2, np.abs(scaled) < 4], [0.5, 1.0], 2.0)
    rounded = np.clip(np.round(scaled / step) * step, -6, 6)
    return torch.tensor(np.ldexp(rounded, exponent - 3).reshape(a.shape)).to(x.dtype)


styles = [mx_nearest_code, mx_edges, mx_loops, mx_numpy]
