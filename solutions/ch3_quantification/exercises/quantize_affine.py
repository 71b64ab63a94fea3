"""Exercice `quantize_affine` du chapitre 3."""

from __future__ import annotations

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import code_range, off_grid


def draw_quantize(d: Draw, group: str) -> Inputs:
    if group == "demis":
        scale, bits, signed = d.choice([0.5, 0.25, 2.0]), d.turn([8, 6]), d.turn([True, True, False])
        # Impair, l'ordre des gestes se voit ; sur 8 bits, torch.quantize_per_tensor décale d'abord : pair, il passe.
        zero_point = d.turn([4, -5, 8, 7, -6, 21])
        halves = torch.arange(-6, 6)[torch.randperm(12, generator=d.generator)] + 0.5
        r = (halves * scale).view(3, 4)
        return {"r": r, "scale": scale, "zero_point": zero_point, "bits": bits, "signed": signed}
    casts = [lambda t: t.view(-1)[-1], torch.Tensor.half, lambda t: d.strided(t.double()), torch.Tensor.bfloat16]
    formats, cast, reach = [(8, True), (8, False), (4, True), (16, True), (3, False), (12, False)], None, 0.4
    if group == "formes et types":  # en float16 et bfloat16, peu de bits : calculable dans leur propre type
        formats, cast, reach = [(8, False), (5, True), (16, True), (4, True)], d.turn(casts), 0.25
    bits, signed = d.turn(formats)
    q_min, q_max = code_range(bits, signed)
    zero_point = d.integer(q_min // 2 + 1, q_max // 2) if signed else d.integer(q_max // 4 + 1, q_max // 2)
    zero_point += 1 if zero_point == 0 else 0
    shape = d.turn([(3, 5), (14,), (2, 2, 4)])
    codes = d.integers(q_min, q_max, *shape) - zero_point
    flat = codes.view(-1)
    flat[:4] = torch.tensor([q_min, q_max, q_min + 1, q_max - 1]) - zero_point
    if group == "formes et types":  # la dernière, seule gardée à 0 dimension, ne tient que dans la bonne plage
        flat[-1] = q_max - 1 - zero_point
    if group == "bornes":
        far = [q_max + 1, q_min - 1, q_max + 2**bits // 3, q_min - 2**bits // 3, q_max + 2**bits, q_min - 2**bits]
        flat[4:10] = torch.tensor(far) - zero_point
        flat[10:12] = torch.tensor([d.integer(300, 90_000), -d.integer(300, 90_000)]) + torch.tensor([q_max, q_min])
    scale = d.choice([0.013, 0.11, 0.37, 2.3]) * d.uniform(0.8, 1.2)
    r = (scale * off_grid(d, codes, reach)).float()
    inputs = {"r": cast(r) if cast else r, "scale": scale, "zero_point": zero_point, "bits": bits, "signed": signed}
    if group == "courant" and d.index == 0:
        del inputs["bits"], inputs["signed"]
    return inputs


exercise = Exercise(
    points=2,
    minutes=8,
    stars=2,
    hints=[
        "Combien de pas y a-t-il de 0 à r, et sur quel code tombe le réel 0 ?",
        "Faites-le d'abord à la main, pour un réel : dans r = S·(q − Z), que défait-on en premier, le produit ou le "
        "décalage ? Et que devient un code trop grand si l'on change de type avant de le ramener ?",
        "Un entier trop grand pour son type y revient par l'autre bout. Et de quel côté va un demi exact, si l'on "
        "arrondit avant le décalage, ou après ?",
    ],
    groups={"courant": 0.35, "bornes": 0.25, "demis": 0.15, "formes et types": 0.25},
    draw=draw_quantize,
    cases=6,
    visible=3,
    examples=[
        {"r": torch.tensor([-1.0, 0.0, 0.26, 0.9, 40.0]), "scale": 0.1, "zero_point": 5},
        {"r": torch.tensor([-1.0, 0.0, 0.26, 0.9, 40.0]), "scale": 0.1, "zero_point": 5, "bits": 4, "signed": False},
        {"r": torch.tensor([0.25, 0.75, -0.25, -0.75, 1.25]), "scale": 0.5, "zero_point": 3, "bits": 6},
    ],
)


misconceptions = """\
truncation   torch.round(r / scale) → torch.trunc(r / scale)
    Votre erreur va toujours du même côté, vers zéro : couper n'est pas arrondir.

floor   torch.round(r / scale) → torch.floor(r / scale)
    Votre erreur va toujours du même côté, vers le bas : l'entier du dessous n'est pas le plus proche.

shift_before_round   torch.round(r / scale) + zero_point → torch.round(r / scale + zero_point)
    Sur les demis exacts, vous décalez avant d'arrondir : le pair le plus proche n'est alors plus le même. Dans quel
    ordre l'énoncé met-il ces gestes ?

half_up   torch.round(r / scale) → torch.floor(r / scale + 0.5)
    Sur les demis exacts, vous allez toujours vers le haut : cela crée un biais.

half_away   torch.round(r / scale) → torch.sign(r) * torch.floor(r.abs() / scale + 0.5)
    Sur les demis exacts, vous vous éloignez toujours de zéro : lequel des deux voisins demande l'énoncé ?

cast_before_clamp   codes.clamp(q_min, q_max).to(dtype) → codes.to(torch.int64).to(dtype).clamp(q_min, q_max)
    Une grande valeur positive devient négative : qu'arrive-t-il à un entier trop grand pour son type ?

no_clamp   codes.clamp(q_min, q_max).to(dtype) → codes.to(torch.int64).to(dtype)
    Rien n'arrête vos codes au bord de la plage : le type de stockage a parfois plus de place que `bits` n'en donne.

no_zero_point   torch.round(r / scale) + zero_point → torch.round(r / scale)
    Le zéro réel tombe sur le code 0 au lieu de Z.

minus_zero_point   torch.round(r / scale) + zero_point → torch.round(r / scale) - zero_point
    Le zéro réel tombe sur −Z : reprenez r = S·(q − Z) et isolez q.

zero_point_in_reals   torch.round(r / scale) + zero_point → torch.round((r + zero_point) / scale)
    Z est un code, il ne s'ajoute pas à un réel : dans quelle unité compte-t-il ?

symmetric_clamp   clamp(q_min, q_max) → clamp(q_min + signed, q_max)
    Vous n'utilisez jamais le plus petit code.

clamp_before_shift   torch.round(r / scale) + zero_point → torch.round(r / scale).clamp(q_min, q_max) + zero_point
    & codes.clamp(q_min, q_max).to(dtype) → codes.to(torch.int64).to(dtype)
    Après votre décalage, des codes sortent de nouveau des bornes.

multiplies   torch.round(r / scale) → torch.round(r * scale)
    scale est la longueur d'un pas : combien de pas dans r ?

signed_ignored   if signed else (0 → if True else (0
    Vos bornes sont toujours celles d'un type signé : quels codes un type non signé permet-il ?

bits_ignored
    - q_min, q_max = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    + bits = 8
    + q_min, q_max = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    Vos codes occupent toujours 8 bits : changez `bits` et regardez les bornes.

int32_always   codes.clamp(q_min, q_max).to(dtype) → codes.clamp(q_min, q_max).to(torch.int32)
    Vos codes sont bons, mais chacun occupe quatre octets : quel type entier suffit à 8 bits ?

float_codes   codes.clamp(q_min, q_max).to(dtype) → codes.clamp(q_min, q_max)
    Vos codes ont la bonne valeur mais sont restés des réels : où est le gain de place ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def _storage(bits, signed):
    return torch.int32 if bits > 8 else torch.int8 if signed else torch.uint8


def quantize_loops(r, scale, zero_point, bits=8, signed=True):
    low, high = code_range(bits, signed)
    codes = [max(low, min(high, round(v / scale) + zero_point)) for v in r.flatten().tolist()]
    return torch.tensor(codes, dtype=_storage(bits, signed)).reshape(r.shape)


def quantize_numpy(r, scale, zero_point, bits=8, signed=True):
    codes = np.rint(r.double().numpy() * (1 / scale)) + zero_point
    return torch.tensor(np.clip(codes, *code_range(bits, signed))).to(_storage(bits, signed))


def quantize_own_type(r, scale, zero_point, bits=8, signed=True):
    low, high = code_range(bits, signed)
    whole = torch.round(r * (1 / scale)).to(torch.int64) + zero_point
    return torch.clamp(whole, min=low, max=high).to(_storage(bits, signed))


def quantize_tensor_scale(r, scale, zero_point, bits=8, signed=True):
    low, high = code_range(bits, signed)
    scale = torch.tensor(scale, dtype=torch.float32)
    return ((r.float() / scale).round() + zero_point).clip(low, high).type(_storage(bits, signed))


def quantize_scale_in_own_type(r, scale, zero_point, bits=8, signed=True):
    low, high = code_range(bits, signed)
    codes = torch.div(r, r.new_tensor(scale)).round_().add_(zero_point)
    return codes.clamp_(low, high).to(_storage(bits, signed))


def quantize_bounds_first(r, scale, zero_point, bits=8, signed=True):
    low, high = code_range(bits, signed)
    r = r.double().clamp((low - zero_point) * scale, (high - zero_point) * scale)
    return ((r / scale).round() + zero_point).to(_storage(bits, signed))


def quantize_fake(r, scale, zero_point, bits=8, signed=True):
    low, high = code_range(bits, signed)
    decoded = torch.fake_quantize_per_tensor_affine(r.float(), scale, zero_point, low, high)
    return ((decoded / scale).round() + zero_point).to(_storage(bits, signed))


def quantize_library(r, scale, zero_point, bits=8, signed=True):
    if bits != 8:
        return quantize_loops(r, scale, zero_point, bits, signed)
    dtype = torch.qint8 if signed else torch.quint8
    return torch.quantize_per_tensor(r.float(), scale, zero_point, dtype).int_repr()


styles = [
    quantize_loops,
    quantize_numpy,
    quantize_own_type,
    quantize_tensor_scale,
    quantize_scale_in_own_type,
    quantize_bounds_first,
    quantize_fake,
    quantize_library,
]
