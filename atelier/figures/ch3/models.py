"""Chapitre 3, troisième partie : Colibri entier quantifié avec les fonctions de l'étudiant, chronométré."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from atelier.display import note, number, recorded, show, table
from atelier.figures.common.layers import layer_inputs, linear_layers, replace_weights, weight_of
from atelier.figures.common.style import SERIES, canvas, french, percent, progress_bar
from atelier.hardware import beside, card_capability, card_name, device, for_float64, has_float64, home, median_seconds
from atelier.models import GPT2_SIZES
from atelier.perplexity import evaluate_perplexity

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel
    from transformers.pytorch_utils import Conv1D

CHAPTER = "ch3_quantification"
GROUP = 64
BITS = (8, 4, 3, 2)
GRAINS = {"tenseur": "une échelle par tenseur", "canal": "une par canal", "groupe": f"une par groupe de {GROUP}"}
Rounder = Callable[[Tensor, int], Tensor]
"""(poids (sortie, entrée), bits) → poids arrondis de même forme."""


def portrait(model: GPT2LMHeadModel) -> None:
    """Ce qu'est Colibri, en une phrase : couches, dimension, paramètres, et part des couches linéaires."""
    c, layers = model.config, linear_layers(model)
    n, linear = model.num_parameters(), sum(layer.weight.numel() for layer in layers.values())
    note(
        f"Colibri : {c.n_layer} blocs, dimension {c.n_embd}, contexte {c.n_positions}, {number(n)} paramètres, dont "
        f"{percent(linear / n)} dans les poids de ses {len(layers)} couches linéaires."
    )


# --- Arrondir au plus proche (RTN), à trois grains -----------------------------------------------------------------


def by_grain(w: Tensor, bits: int, grain: str, per_tensor: Any, per_channel: Any) -> tuple[Tensor, Tensor]:
    """Le poids découpé en lignes qui partagent une échelle, et ces échelles."""
    if grain == "tenseur":
        return w, per_tensor(w, bits).reshape(1, 1)
    blocks = w if grain == "canal" else w.reshape(-1, GROUP)
    return blocks, per_channel(blocks, bits, 0)


def rounder(grain: str, per_tensor: Any, per_channel: Any, quantize: Any, dequantize: Any) -> Rounder:
    """Arrondi au plus proche par les fonctions de l'étudiant. On divise d'abord par S, puis S = 1 et Z = 0."""

    def apply(w: Tensor, bits: int) -> Tensor:
        blocks, s = by_grain(w, bits, grain, per_tensor, per_channel)
        return (dequantize(quantize(blocks / s, 1.0, 0, bits), 1.0, 0) * s).reshape(w.shape)

    return apply


def _on_every_weight(use: Callable[[Tensor, int], Tensor], bits: int) -> Callable[[str, Tensor], Tensor]:
    """Ce que `replace_weights` attend : le même arrondi pour toutes les couches, quel que soit leur nom."""
    return lambda _, w: use(w, bits)


Sweep = dict[str, dict[int, float]]


@recorded("ch3/rtn_sweep", needs=("per_tensor", "per_channel", "quantize", "dequantize"))
def rtn_sweep(
    model: GPT2LMHeadModel,
    per_tensor: Any,
    per_channel: Any,
    quantize: Any,
    dequantize: Any,
    bits: Sequence[int] = BITS,
    **evaluation: Any,
) -> Sweep:
    """Perplexité de Colibri dont toutes les couches linéaires sont arrondies au plus proche, à trois grains."""
    full = evaluate_perplexity(model, **evaluation).perplexity
    jobs = [(grain, b) for grain in GRAINS for b in bits]
    found: Sweep = {f"RTN, {GRAINS[g]}": {} for g in GRAINS}
    for grain, b in progress_bar(jobs, "RTN"):
        use = rounder(grain, per_tensor, per_channel, quantize, dequantize)
        rounded = replace_weights(model, _on_every_weight(use, b))
        found[f"RTN, {GRAINS[grain]}"][b] = evaluate_perplexity(rounded, **evaluation).perplexity
    _sweep_table(found, full, bits)
    return {"FP32": dict.fromkeys(bits, full), **found}


def _sweep_table(found: Sweep, full: float, bits: Sequence[int]) -> None:
    table(
        [[name, *(number(p, 4) for p in line.values())] for name, line in found.items()],
        header=["poids arrondis", *(f"{b} bits" for b in bits)],
        caption=f"Perplexité de Colibri (FP32 : {number(full, 4)}), couches linéaires seules quantifiées",
    )


@recorded("ch3/sentences", needs=("per_tensor", "per_channel", "quantize", "dequantize"))
def sentences(
    model: GPT2LMHeadModel,
    tokenizer: Any,
    prompt: str,
    per_tensor: Any,
    per_channel: Any,
    quantize: Any,
    dequantize: Any,
    bits: Sequence[int] = BITS,
    n_new: int = 24,
) -> None:
    """La suite la plus probable que Colibri donne à `prompt`, une fois arrondi au plus proche, par canal."""
    use = rounder("canal", per_tensor, per_channel, quantize, dequantize)
    ids = beside(model, tokenizer(prompt, return_tensors="pt")["input_ids"])
    options = {"do_sample": False, "max_new_tokens": n_new, "pad_token_id": model.config.eos_token_id}
    rows = []
    for b in (None, *bits):
        m = model if b is None else replace_weights(model, _on_every_weight(use, b))
        out = m.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :]
        rows.append(
            ["FP32" if b is None else f"{b} bits", " ".join(tokenizer.decode(out, skip_special_tokens=True).split())]
        )
    table(rows, header=["poids", f"« {prompt} … »"], caption="La phrase la plus probable, jeton après jeton")


# --- W8A8 ---------------------------------------------------------------------------------------------------------


class Int8Layer(nn.Module):
    """Une couche de Colibri dont le produit passe par le `int8_linear` de l'étudiant."""

    def __init__(self, layer: Conv1D, int8_linear: Any, per_channel: Any, quantize: Any) -> None:
        super().__init__()
        w = weight_of(layer)
        self.w_scale = per_channel(w, 8, 0)
        self.w_q = quantize(w / self.w_scale, 1.0, 0, 8)
        self.bias = for_float64(layer.bias.detach())
        self.product = int8_linear

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(for_float64(x.flatten(0, -2)), self.w_q, self.w_scale, self.bias)
        return y.to(x.device).reshape(*x.shape[:-1], -1)


def to_int8(model: GPT2LMHeadModel, int8_linear: Any, per_channel: Any, quantize: Any) -> GPT2LMHeadModel:
    """Une copie du modèle dont les couches linéaires calculent en W8A8."""
    changed = copy.deepcopy(model)
    for name, layer in linear_layers(changed).items():
        _set(changed, name, Int8Layer(layer, int8_linear, per_channel, quantize))
    return changed


def _set(model: GPT2LMHeadModel, name: str, module: nn.Module) -> None:
    block, kind = name.split(".", 1)
    part, attribute = kind.split(".")
    setattr(getattr(model.transformer.h[int(block)], part), attribute, module)


@recorded("ch3/w8a8_errors", needs=("int8_linear", "per_channel", "quantize", "sqnr"))
def w8a8_errors(
    model: GPT2LMHeadModel, ids: Tensor, int8_linear: Any, per_channel: Any, quantize: Any, sqnr: Any
) -> None:
    """Erreur en sortie de chaque couche : poids seuls, W8A8 dynamique (par jeton), W8A8 statique (fixé d'avance).

    ids : fenêtres (B, contexte) ; la première moitié règle les échelles statiques, la seconde sert à mesurer.
    """
    half = len(ids) // 2
    known, inputs = layer_inputs(model, ids[:half]), layer_inputs(model, ids[half:])
    rows: list[tuple[Any, ...]] = []
    for name, layer in linear_layers(model).items():
        w, x, b = weight_of(layer), inputs[name], for_float64(layer.bias.detach())
        s = per_channel(w, 8, 0)
        codes = quantize(w / s, 1.0, 0, 8)
        exact = x @ w.T + b
        weights_only = x @ (codes.float() * s).T + b
        one = known[name].abs().max() / 127
        static = quantize(x / one, 1.0, 0, 8).float() * one
        rows.append(
            (
                name,
                sqnr(exact, weights_only),
                sqnr(exact, int8_linear(x, codes, s, b)),
                sqnr(exact, static @ (codes.float() * s).T + b),
            )
        )
    fig, ax = canvas(8.4, 3.6)
    labels = ("poids seuls", "W8A8 dynamique, une échelle par jeton", "W8A8 statique, une échelle par couche")
    for k, (label, look) in enumerate(zip(labels, SERIES, strict=False), 1):
        ax.plot([r[k] for r in rows], label=label, lw=1.6, **look)
    ax.set_xticks(range(len(rows)), [r[0] for r in rows], rotation=60, fontsize=7.5, ha="right", rotation_mode="anchor")
    ax.set_ylabel("SQNR de la sortie (dB)")
    ax.set_xlabel("couche (bloc.nom)")
    ax.legend(frameon=False, fontsize=8.5)
    ax.set_ylim(0)
    french(ax, x=False)
    worst = [min(rows, key=itemgetter(k)) for k in (1, 2, 3)]
    show(
        fig,
        alt="Rapport signal sur bruit en sortie de chaque couche. "
        + " ; ".join(
            f"{label} : au pire {number(r[k], 3)} dB, couche {r[0]}"
            for k, (label, r) in enumerate(zip(labels, worst, strict=True), 1)
        )
        + ".",
    )
    gap = [sum(r[k] for r in rows) / len(rows) for k in (1, 2, 3)]
    note(
        f"En moyenne : {number(gap[0], 3)} dB avec les poids seuls, {number(gap[1], 3)} dB en dynamique, "
        f"{number(gap[2], 3)} dB en statique. La plus abîmée, en dynamique, est {worst[1][0]}."
    )


# --- Le temps, sur de vrais noyaux --------------------------------------------------------------------------------


def _cpu_contenders(x: Tensor, layer: nn.Linear) -> dict[str, Callable[[], Any]]:
    brain = copy.deepcopy(layer).bfloat16()
    xb, a = x.bfloat16(), _random_int8(*x.shape)
    b = _random_int8(*layer.weight.shape).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engines = torch.backends.quantized.supported_engines
        torch.backends.quantized.engine = "onednn" if "onednn" in engines else "qnnpack"
        dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear}, dtype=torch.qint8)
    return {
        "fp32": lambda: layer(x),
        "bf16": lambda: brain(xb),
        "int8, torch.ao": lambda: dynamic(x),
        "int8, produit nu": lambda: torch._int_mm(a, b),
    }


def _gpu_contenders(x: Tensor, layer: nn.Linear) -> dict[str, Callable[[], Any]]:
    """Les noyaux d'une carte : ceux de CUDA selon sa génération ; sur MPS ou ailleurs, fp32 et fp16 seulement."""
    half, xh = copy.deepcopy(layer).half(), x.half()
    found: dict[str, Callable[[], Any]] = {"fp32": lambda: layer(x), "fp16": lambda: half(xh)}
    if card_capability() >= (8, 0):  # Turing (T4) ne fait qu'imiter bfloat16
        brain, xb = copy.deepcopy(layer).bfloat16(), x.bfloat16()
        found["bf16"] = lambda: brain(xb)
    if card_name() and len(x) > 16:  # torch._int_mm : plus de 16 lignes, les autres côtés multiples de 8
        a, b = _random_int8(*x.shape), _random_int8(*layer.weight.shape).T
        found["int8, produit nu"] = lambda: torch._int_mm(a, b)
    if card_capability() >= (8, 9) and len(x) > 16:
        x8, w8 = x.to(torch.float8_e4m3fn), layer.weight.detach().to(torch.float8_e4m3fn).T
        one = torch.ones((), device=x.device)
        found["fp8 E4M3, produit nu"] = lambda: torch._scaled_mm(x8, w8, one, one, out_dtype=torch.bfloat16)
    return found


def _random_int8(rows: int, columns: int) -> Tensor:
    return torch.randint(-127, 128, (rows, columns), dtype=torch.int8, device=device())


@torch.inference_mode()
def linear_times(sizes: Sequence[str] = ("small", "xl"), tokens: Sequence[int] = (1, 512), repeats: int = 7) -> None:
    """Temps d'une couche MLP aux vraies tailles de GPT-2, par de vrais noyaux.

    Les poids sont tirés au hasard : le temps ne dépend pas de leurs valeurs.
    """
    cases = [(size, n) for size in sizes for n in tokens]
    results: dict[tuple[str, int], dict[str, float]] = {}
    for size, n in progress_bar(cases, "chronomètre"):
        d = GPT2_SIZES[size][1]
        layer = nn.Linear(d, 4 * d, device=device())
        x = torch.randn(n, d, device=device())
        contenders = _cpu_contenders(x, layer) if device().type == "cpu" else _gpu_contenders(x, layer)
        results[size, n] = {}
        for name, run in contenders.items():
            try:
                results[size, n][name] = median_seconds(run, repeats=repeats)
            except (RuntimeError, NotImplementedError) as error:
                note(f"« {name} » n'existe pas sur cette machine : {str(error).splitlines()[0][:100]}")
    names = list(dict.fromkeys(k for r in results.values() for k in r))
    _time_figure(results, names)
    rows = []
    for (size, n), found in results.items():
        d = GPT2_SIZES[size][1]
        base = found["fp32"]
        rows.append(
            [f"{size}, {n} jeton{'s' if n > 1 else ''}", *(_speed(found.get(k), base) for k in names)]
            + [number(4 * d * d * 4 / base / 1e9, 3), number(2 * n * 4 * d * d / base / 1e9, 3)]
        )
    table(
        rows,
        header=["couche MLP de GPT-2", *names, "Go/s lus en fp32", "GFLOP/s en fp32"],
        caption="Milliseconde par appel (et gain sur fp32)",
    )
    _explain_times(results, tokens)


def _speed(seconds: float | None, base: float) -> str:
    return "—" if seconds is None else f"{number(1000 * seconds, 3)} (×\u202f{number(base / seconds, 2)})"


def _time_figure(results: dict[tuple[str, int], dict[str, float]], names: Sequence[str]) -> None:
    fig, axes = canvas(0.8 + 2.1 * len(results), 2.6, columns=len(results))
    hatches = ["", "//", "..", "xx", "++"]
    for ax, ((size, n), found) in zip(axes, results.items(), strict=True):
        for i, name in enumerate(names):
            if name in found:
                ax.bar(i, 1000 * found[name], color=SERIES[i]["color"], hatch=hatches[i % 5], edgecolor="white")
        ax.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7.5, rotation_mode="anchor")
        ax.set_title(f"GPT-2 {size}, {n} jeton{'s' if n > 1 else ''}", fontsize=9)
        french(ax, x=False)
    axes[0].set_ylabel("ms par appel")
    told = " ; ".join(
        f"{size}, {n} jeton{'s' if n > 1 else ''} : "
        + ", ".join(f"{k} {number(1000 * v, 3)} ms" for k, v in found.items())
        for (size, n), found in results.items()
    )
    show(fig, alt=f"Barres du temps d'une couche MLP. {told}.")


def _explain_times(results: dict[tuple[str, int], dict[str, float]], tokens: Sequence[int]) -> None:
    for n in (min(tokens), max(tokens)):
        gains = [
            found["fp32"] / min(v for k, v in found.items() if k.startswith("int8"))
            for (_, m), found in results.items()
            if m == n and any(k.startswith("int8") for k in found)
        ]
        if not gains:
            continue
        what = (
            "un seul jeton, où l'on attend surtout la mémoire"
            if n == 1
            else f"{n} jetons à la fois, où l'on attend les calculs"
        )
        verdict = f"va {number(max(gains), 2)} fois plus vite" if max(gains) > 1.1 else "ne va pas plus vite"
        note(f"Avec {what}, le meilleur int8 {verdict} que fp32 sur cette machine.")


@recorded("ch3/own_product_time", needs=("int8_linear", "per_channel", "quantize"))
def own_product_time(int8_linear: Any, per_channel: Any, quantize: Any, size: str = "small", tokens: int = 512) -> None:
    """Votre int8_linear contre la couche en fp32, à une vraie taille de GPT-2."""
    d = GPT2_SIZES[size][1]
    layer = nn.Linear(d, 4 * d, device=device() if has_float64(device()) else "cpu")
    x = torch.randn(tokens, d, device=home(layer))
    with torch.inference_mode():
        s = per_channel(layer.weight, 8, 0)
        codes = quantize(layer.weight / s, 1.0, 0, 8)
        mine = median_seconds(lambda: int8_linear(x, codes, s, layer.bias), repeats=3, warmup=1)
        base = median_seconds(lambda: layer(x), repeats=3, warmup=1)
    ratio = mine / base
    verdict = f"{number(ratio, 2)} fois plus lent" if ratio > 1 else f"{number(1 / ratio, 2)} fois plus rapide"
    note(
        f"Votre int8_linear, {tokens} jetons sur une couche MLP de GPT-2 {size} : {number(1000 * mine, 3)} ms, "
        f"contre {number(1000 * base, 3)} ms en fp32, {verdict}."
    )
