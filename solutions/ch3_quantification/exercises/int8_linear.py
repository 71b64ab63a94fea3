"""Exercice `int8_linear` du chapitre 3."""

from __future__ import annotations

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from ._common import off_grid


def draw_int8_linear(d: Draw, group: str) -> Inputs:
    kind = (
        d.turn(["float64", "exactitude", "float16", "float64", "bfloat16", "float16"])
        if group == "types"
        else "float32"
    )
    if kind == "exactitude":
        return _draw_cancelling(d)
    small = kind in ("float16", "bfloat16")  # calculable dans leur propre type : petits codes, aucune compensation
    n, fan_in, fan_out = d.turn([(3, 40, 5), (4, 60, 4), (1, 64, 3), (5, 48, 5), (2, 30, 6), (6, 32, 6)])
    fan_in = 10 if small else fan_in
    codes = off_grid(d, d.integers(1, 12, n, fan_in) if small else d.integers(-126, 126, n, fan_in), 0.25)
    codes[torch.arange(n), d.integers(0, fan_in - 1, n)] = 127.0 * (1 if small or d.index % 2 else -1)
    sizes = torch.tensor([2.0 ** d.integer(-6, 2) for _ in range(n)]) * (1.0 if small else d.uniform(1.0, 2.0) / 127)
    x = codes * sizes[:, None]
    w_q = d.integers(1 if small else -127, 7 if small else 127, fan_out, fan_in, dtype=torch.int8)
    w_scale = 0.001 + 0.02 * torch.rand(fan_out, 1, generator=d.generator)
    bias = d.normal(fan_out).abs() if small else d.normal(fan_out)
    if group == "lignes":
        x[d.integer(0, n - 1)] = 0.0
    dtype = getattr(torch, kind)
    x, w_scale, bias = x.to(dtype), w_scale.to(dtype), bias.to(dtype)
    if d.index % 2:
        x, w_q = d.strided(x), d.strided(w_q)
    inputs = {"x": x, "w_q": w_q, "w_scale": w_scale, "bias": bias}
    if d.index % 3 == 2:
        del inputs["bias"]
    return inputs


def _draw_cancelling(d: Draw) -> Inputs:
    """Des sommes qui montent très au-delà de 2²⁴ avant de se compenser presque : en float32, il n'en reste rien.

    Un produit en float32 peut y tomber juste, ou presque, par chance : le tirage recommence alors.
    """
    half = 32_000
    for _ in range(50):
        up, w = d.integers(100, 127, half), d.integers(102, 124, 2, half)
        up[:3] = torch.tensor([127, d.integer(103, 109), 100])
        down = w.clone()
        for row, step in zip(down, (1, 2), strict=True):  # ce qui reste de la somme : quelques unités
            row[1:3] += torch.tensor([-step, step])
        other = torch.randperm(half, generator=d.generator)  # dans un autre ordre, les arrondis ne se compensent pas
        x, w = torch.cat([up, -up[other]])[None], torch.cat([w, down[:, other]], dim=1)
        exact = (x * w).sum(1)
        if (((x.float() @ w.float().T)[0] - exact).abs() > 0.1 * exact).any():
            break
    return {"x": x.half(), "w_q": w.to(torch.int8), "w_scale": torch.full((2, 1), 0.5).half()}


exercise = Exercise(
    points=3,
    minutes=25,
    stars=3,
    hints=[
        "Si x ≈ s·a et w ≈ t·b avec a et b entiers, que vaut à peu près la somme des produits x·w ? Qu'est-ce qui "
        "sort de la somme ?",
        "Une échelle par ligne de x, une par ligne de w_q : la case (i, o) du résultat a besoin des deux.",
        "Le produit de deux int8 va jusqu'à 16 129, et l'on en ajoute `in` : dans quel type ?",
        "Écrivez la version en réels, où chaque facteur est une échelle fois un code : qu'est-ce qui dépend de k ? "
        "Le biais, lui, n'a pas d'échelle.",
    ],
    groups={"courant": 0.5, "lignes": 0.25, "types": 0.25},
    draw=draw_int8_linear,
    cases=5,
    examples=[
        {
            "x": torch.tensor([[1.27, -0.5], [0.0, 0.0]]),
            "w_q": torch.tensor([[100, 20], [-3, 127], [50, 50]], dtype=torch.int8),
            "w_scale": torch.tensor([[0.01], [0.02], [0.1]]),
            "bias": torch.tensor([1.0, 0.0, -1.0]),
        }
    ],
    tolerance=Tolerance(rtol=1e-4, atol=2e-5, why="deux échelles multipliées dans un ordre libre, en float32"),
)


misconceptions = """\
int8_accumulator   x_q.to(wide) @ w_q.to(wide).T → x_q @ w_q.T
    Le produit de deux int8 tient déjà à peine sur 16 bits ; et leur somme ?

int16_accumulator   x_q.to(wide) @ w_q.to(wide).T → x_q.to(torch.int16) @ w_q.to(torch.int16).T
    Un produit tient sur 16 bits, mais vous en ajoutez beaucoup : jusqu'où va la somme ?

float32_accumulator *   x_q.to(wide) @ w_q.to(wide).T → x_q.to(torch.float32) @ w_q.to(torch.float32).T
    Sur de très longues lignes votre somme perd des unités : au-delà de quel entier float32 en saute-t-il ?

no_activation_scale   accumulator * x_scale * w_scale.T → accumulator * w_scale.T
    Vous revenez à l'échelle des poids, mais x aussi avait été mis à l'échelle.

no_weight_scale   accumulator * x_scale * w_scale.T → accumulator * x_scale
    Vous revenez à l'échelle de x, mais les poids aussi étaient des codes.

one_scale_all_rows   real.abs().amax(dim=1, keepdim=True) → real.abs().amax().expand(len(x), 1)
    Une ligne très grande écrase les codes des autres.

weight_scale_axis   w_scale.T → w_scale
    Chaque échelle de poids appartient à une sortie : sur quel axe s'étend-elle ?

bias_scaled
    - y = accumulator * x_scale * w_scale.T
    + y = accumulator
    - return y.to(x.dtype)
    + y = y * x_scale * w_scale.T
    + return y.to(x.dtype)
    Le biais est déjà en unités réelles.

bias_forgotten   if bias is not None: → if False:
    Votre écart est une constante par sortie : quel terme de la couche ne dépend pas de x ?

no_quantization   torch.round(real / x_scale).to(torch.int8) → real / x_scale
    & x_q.to(wide) @ w_q.to(wide).T → x_q.double() @ w_q.double().T
    Votre résultat est trop juste : x n'est jamais passé par des entiers.

truncation   torch.round(real / x_scale) → torch.trunc(real / x_scale)
    Vos codes d'activation sont tous tirés vers zéro : couper n'est pas arrondir.

levels_128   peak / 127 → peak / 128
    & torch.round(real / x_scale) → torch.round(real / x_scale).clamp(-128, 127)
    Le plus grand code positif est 127 : avec votre échelle, où tombe le maximum d'une ligne ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def linear_loops(x, w_q, w_scale, bias=None):
    rows, weights = x.double().tolist(), w_q.tolist()
    y = torch.zeros(len(rows), len(weights), dtype=torch.float64)
    for i, row in enumerate(rows):
        scale = max(abs(v) for v in row) / 127 or 1.0
        codes = [round(v / scale) for v in row]
        for o, weight in enumerate(weights):
            total = sum(a * b for a, b in zip(codes, weight, strict=True))
            y[i, o] = total * scale * w_scale[o, 0].item() + (0.0 if bias is None else bias[o].item())
    return y.to(x.dtype)


def linear_float64(x, w_q, w_scale, bias=None):
    wide = x.double()
    scale = wide.abs().max(dim=1).values / 127
    scale[scale == 0] = 1
    codes = (wide / scale[:, None]).round().clamp(-127, 127)
    y = torch.einsum("ni,oi->no", codes, w_q.double()) * torch.outer(scale, w_scale[:, 0].double())
    return (y if bias is None else y + bias.double()).to(x.dtype)


def linear_own_type(x, w_q, w_scale, bias=None):
    peak = x.abs().amax(1, keepdim=True)
    scale = torch.where(peak == 0, 1, peak / 127).to(x.dtype)
    codes = torch.round(x / scale).to(torch.int8)
    total = torch.matmul(codes.int(), w_q.int().t())
    y = total.to(x.dtype) * scale * w_scale.flatten()
    return y if bias is None else y + bias


def linear_int_mm(x, w_q, w_scale, bias=None):
    peak = x.float().abs().amax(1, keepdim=True)
    inverse = torch.where(peak > 0, 127 / peak, torch.ones_like(peak))
    total = torch._int_mm((x.float() * inverse).round().to(torch.int8), w_q.T.contiguous())
    y = total.double() * (1 / inverse.double()) * w_scale.double().view(1, -1)
    y = y + bias if bias is not None else y
    return y.to(x.dtype)


def linear_numpy(x, w_q, w_scale, bias=None):
    a = x.double().numpy()
    peak = np.abs(a).max(axis=1, keepdims=True)
    scale = np.where(peak > 0, peak / 127, 1.0)
    total = np.rint(a / scale).astype(np.int64) @ w_q.numpy().astype(np.int64).T
    y = torch.tensor(total * scale * w_scale.double().numpy().T)
    return (y if bias is None else y + bias).to(x.dtype)


styles = [linear_loops, linear_float64, linear_own_type, linear_int_mm, linear_numpy]
