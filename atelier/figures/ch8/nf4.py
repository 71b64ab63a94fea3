"""Chapitre 8, quatrième partie : les niveaux de NF4, la base sur 4 bits, et LoRA par-dessus."""

from __future__ import annotations

import copy
import math
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from atelier.display import note, recorded, show, table
from atelier.figures.ch8.delta import CHAPTER, from_measures, source
from atelier.figures.common.layers import KINDS, linear_layers, weight_of
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.perplexity import evaluate_perplexity
from atelier.text import byte_size, interval, number, percent
from atelier.variants import save_variant

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

BLOCK = 64
PUBLISHED = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Les niveaux publiés : annexe E de l'article QLoRA, et bibliothèque bitsandbytes."""


def levels(mine: Tensor) -> None:
    """La loi normale, les niveaux dérivés dans le carnet et les régions dont chacun est le plus proche."""
    last = 1.8481308  # quantile normal de la dernière probabilité gardée : l'unité de l'axe
    x = torch.linspace(-1.35, 1.35, 500)
    density = torch.exp(-0.5 * (x * last) ** 2)
    fig, ax = canvas(8.4, 3.3)
    ax.plot(x, density, color=BLACK, linewidth=1.2, label="densité normale (sans unité)")
    middles = (mine[1:] + mine[:-1]) / 2
    edges = [-1.35, *middles.tolist(), 1.35]
    for i, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
        inside = (x >= a) & (x <= b)
        ax.fill_between(x[inside], density[inside], color=SERIES[i % 2]["color"], alpha=0.25)
    ax.vlines(mine, 0, torch.exp(-0.5 * (mine * last) ** 2), color=SERIES[0]["color"], linewidth=2)
    ax.plot(mine, [-0.06] * 16, "^", color=SERIES[0]["color"], label="niveaux de NF4")
    ax.plot(torch.linspace(-1, 1, 15), [-0.14] * 15, "|", color=SERIES[1]["color"], markersize=9, label="grille int4")
    ax.set(xlabel="poids / plus grand |poids| de son bloc", yticks=[])
    ax.legend(fontsize=8)
    french(ax, y=False)
    told = ", ".join(number(float(v), 3) for v in mine)
    show(
        fig, alt=f"Seize niveaux sous la courbe en cloche, serrés près de zéro : {told} ; dessous, 15 crans réguliers."
    )
    gap = max(abs(float(a) - b) for a, b in zip(mine, PUBLISHED, strict=True))
    note(f"Plus grand écart entre vos seize niveaux et ceux que publie bitsandbytes : {number(gap, 1)}.")


def restore(codes: Tensor, absmax: Tensor, table_: Tensor, like: Tensor) -> Tensor:
    """Le poids relu de ses codes : niveau × échelle du bloc, à la forme de `like`."""
    return (table_.to(like)[codes.long()].reshape(len(absmax), -1) * absmax.to(like)[:, None]).reshape(like.shape)


@torch.no_grad()
def on_four_bits(model: GPT2LMHeadModel, quantize: Any, table_: Tensor) -> GPT2LMHeadModel:
    """Une copie du modèle dont chaque couche linéaire a été écrite en NF4, puis relue."""
    copied = copy.deepcopy(model)
    for layer in linear_layers(copied).values():
        w = weight_of(layer)
        codes, absmax = quantize(w, BLOCK)
        layer.weight.copy_(restore(codes, absmax, table_, w).T)
    return copied


@recorded("ch8/four_bits", needs=("quantize",))
def four_bits(model: GPT2LMHeadModel, quantize: Any, table_: Tensor, max_tokens: int) -> None:
    """NF4 par la fonction du lecteur, à côté de la grille régulière : erreur par genre de couche, perplexité, codes."""
    _four_bits(model, quantize, table_, max_tokens)


@from_measures("qlora", "delta")
def _four_bits(
    measures: dict[str, Any], model: GPT2LMHeadModel, quantize: Any, table_: Tensor, max_tokens: int
) -> None:
    found = measures["qlora"]
    rounded = linear_layers(on_four_bits(model, quantize, table_))
    errors = {
        n: float((weight_of(rounded[n]) - weight_of(layer)).norm() / weight_of(layer).norm())
        for n, layer in linear_layers(model).items()
    }
    rows = []
    for kind, label in KINDS.items():
        mine = statistics.mean(e for n, e in errors.items() if n.endswith(kind))
        other = statistics.mean(e for n, e in found["int4"]["erreur relative"].items() if n.endswith(kind))
        rows.append([label, percent(mine), percent(other)])
    ppl = evaluate_perplexity(on_four_bits(model, quantize, table_), max_tokens=max_tokens).perplexity
    base = evaluate_perplexity(model, max_tokens=max_tokens).perplexity
    table(
        rows,
        header=["couches", "NF4 (vous)", "int4 régulier (auteur)"],
        caption=f"Erreur relative des poids, quatre bits par blocs de {BLOCK}",
    )
    note(
        f"Perplexité sur A : {number(base, 4)} en FP32, {number(ppl, 4)} en NF4 avec votre fonction. L'auteur, sur son "
        f"extrait : {number(measures['delta']['base']['A'], 4)} en FP32, "
        f"{number(found['NF4']['avant']['A'], 4)} en NF4, {number(found['int4']['avant']['A'], 4)} en int4."
    )
    _usage(
        found["int4"]["emploi des codes"],
        torch.cat([quantize(weight_of(layer), BLOCK)[0] for layer in linear_layers(model).values()]),
    )


def _usage(regular: list[float], codes: Tensor) -> None:
    """La part des poids qui prend chaque code, NF4 et int4."""
    mine = (torch.bincount(codes.long(), minlength=16) / len(codes)).tolist()
    fig, ax = canvas(7.6, 3.2)
    ax.bar([i - 0.2 for i in range(16)], [100 * v for v in mine], 0.4, label="NF4", color=SERIES[0]["color"])
    ax.bar(
        [i + 0.2 for i in range(15)],
        [100 * v for v in regular[:15]],
        0.4,
        label="int4 régulier",
        color=SERIES[1]["color"],
        hatch="//",
        edgecolor="white",
    )
    ax.axhline(100 / 16, color=BLACK, linestyle=":", label="1/16 : tous servis également")
    ax.set(xlabel="code", ylabel="part des poids de Colibri (%)", xticks=range(16))
    ax.legend(fontsize=8)
    bits = [-sum(v * math.log2(v) for v in line if v) for line in (mine, regular)]
    show(
        fig,
        alt=f"Part des poids par code. NF4 : de {percent(min(mine))} à {percent(max(mine))} ; int4 : de "
        f"{percent(min(regular[:15]))} à {percent(max(regular))}. Entropie : {number(bits[0], 3)} bits sur 4 pour NF4, "
        f"{number(bits[1], 3)} pour int4.",
    )
    note(f"Entropie des codes : {number(bits[0], 3)} bits par poids pour NF4, {number(bits[1], 3)} pour int4, sur 4.")


def double_quantization(block: int = BLOCK, second: int = 256) -> None:
    """Ce que coûtent les échelles, avec et sans double quantification, et ce que l'on y gagne à trois tailles."""
    once, twice = 32 / block, 8 / block + 32 / (block * second)
    sums = f"32 / {block} = {number(once, 3)}", f"8 / {block} + 32 / ({block} × {second}) = {number(twice, 3)}"
    table(
        [
            ["codes", 4, 4],
            ["échelles", *sums],
            ["total", number(4 + once, 4), number(4 + twice, 4)],
        ],
        header=["bits par poids", "NF4", "NF4 + double quantification"],
        caption="Une échelle FP32 par bloc ; ou ces échelles elles-mêmes sur 8 bits, avec une échelle FP32 pour 256",
    )
    saved = once - twice
    sizes = {"les couches de Colibri": 2_211_840, "7 milliards": 7e9, "65 milliards": 65e9}
    told = " ; ".join(f"{name} : {byte_size(saved * n / 8)}" for name, n in sizes.items())
    note(f"Gain : {number(once, 3)} − {number(twice, 3)} = {number(saved, 3, unit='bit')} par poids, soit pour {told}.")


@from_measures("qlora", "delta", "langue")
def qlora(found: dict[str, Any]) -> None:
    """LoRA sur une base FP32, NF4 ou int4 : perplexités avant et après, trois graines."""
    lines: dict[str, tuple[dict[str, float], Sequence[dict[str, Any]], float]] = {
        "FP32": (found["delta"]["base"], found["langue"]["LoRA"], 32.0),
        "NF4, blocs de 64": (found["qlora"]["NF4"]["avant"], found["qlora"]["NF4"]["après"], 4.5),
        "int4 régulier, blocs de 64": (found["qlora"]["int4"]["avant"], found["qlora"]["int4"]["après"], 4.5),
    }
    rows = []
    for name, (before, runs, bits) in lines.items():
        values = [r["B"] for r in runs]
        rows.append(
            [
                name,
                bits,
                before["A"],
                before["B"],
                statistics.mean(values),
                interval(min(values), max(values)),
            ]
        )
    table(
        rows,
        header=["base", "bits par poids", "A, avant", "B, avant", "B, après LoRA", "étendue de 3 graines"],
        caption=f"Perplexités ; r = 8, toutes les couches, mêmes lots ({source(found)})",
    )  # fmt: skip


@from_measures("temps")
def qlora_cost(found: dict[str, Any]) -> None:
    """Durée d'un pas et mémoire, base FP32 ou base NF4 relue à chaque passage, à deux tailles."""
    rows = []
    for shape, run in found["temps"]["pas"].items():
        for name in ("LoRA partout", "QLoRA (NF4 relu à chaque pas)"):
            line = run["méthodes"][name]
            total = line["avant"] + line["arrière"] + line["optimiseur"]
            rows.append([shape, name, round(total), number(line["octets gardés"] / 1e6, 3, unit="Mo")])
    table(
        rows,
        header=["modèle", "méthode", "un pas (ms)", "tenseurs gardés pour l'arrière"],
        caption=f"Le même LoRA, sur une base FP32 ou NF4 ({source(found)})",
    )


@recorded("ch8/row_nf4", needs=("quantize",))
def row_nf4(model: GPT2LMHeadModel, quantize: Any, table_: Tensor) -> None:
    """Inscrit Colibri en NF4 au tableau du cours, avec la taille d'un fichier vraiment écrit."""
    content: dict[str, Tensor] = {}
    layers = {id(layer.weight): name for name, layer in linear_layers(model).items()}
    for name, p in model.named_parameters():
        if id(p) not in layers:
            content[name] = p.detach().cpu().half()
            continue
        codes, absmax = quantize(p.detach().T, BLOCK)
        bits = np.unpackbits(codes.cpu().numpy()[:, None], axis=1)[:, 4:]
        content[f"{name}.codes"] = torch.from_numpy(np.packbits(bits))
        content[f"{name}.absmax"] = absmax.cpu().contiguous()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nf4.safetensors"
        save_file(content, path)
        size = os.path.getsize(path)
    row = save_variant(
        "nf4",
        on_four_bits(model, quantize, table_),
        size,
        CHAPTER,
        "poids sur 4 bits en NF4, par blocs de 64, calcul en FP32",
    )
    note(f"« nf4 » : perplexité {number(row['perplexity'], 4)}, {number(size, unit='octets')}.")
