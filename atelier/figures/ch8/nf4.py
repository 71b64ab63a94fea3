"""Chapitre 8, cinquième partie : les niveaux de NF4, la base sur 4 bits, et LoRA par-dessus."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from atelier.display import note, show, table
from atelier.evidence import perplexity_of
from atelier.figures.ch8.seeds import Runs, runs_table
from atelier.figures.ch8.speed import quartiles, whole_step
from atelier.figures.common.layers import KINDS
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.text import byte_size, number, percent

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
        fig,
        alt=f"Seize niveaux sous la courbe en cloche, serrés près de zéro : {told} ; dessous, quinze, réguliers.",
    )
    gap = max(abs(float(a) - b) for a, b in zip(mine, PUBLISHED, strict=True))
    note(f"Plus grand écart entre vos seize niveaux et ceux que publie bitsandbytes : {number(gap, 1)}.")


def entropy(shares: Sequence[float]) -> float:
    """L'entropie des codes, en bits par poids."""
    return -sum(v * math.log2(v) for v in shares if v)


def four_bits_table(found: Mapping[str, Any]) -> None:
    """NF4 à côté de la grille régulière. found : « erreurs » (grille → couche → part), « pertes », « codes »."""
    rows = []
    for kind, label in KINDS.items():
        means = [mean(e for n, e in found["erreurs"][grid].items() if n.endswith(kind)) for grid in ("NF4", "int4")]
        rows.append([label, *(percent(v, decimals=1) for v in means)])
    table(
        rows,
        header=["couches", "NF4", "int4 régulier"],
        caption=f"Erreur relative des poids, quatre bits par blocs de {BLOCK}",
    )
    told = ", ".join(f"{number(perplexity_of(parts), 4)} en {name}" for name, parts in found["pertes"].items())
    note(f"Perplexité sur A : {told}.")
    plot_codes(found["codes"])


def plot_codes(codes: Mapping[str, Sequence[float]]) -> None:
    """La part des poids qui prend chaque code, NF4 et int4."""
    mine, regular = codes["NF4"], codes["int4"]
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
    ax.legend(fontsize=9)
    bits = [entropy(line) for line in (mine, regular)]
    show(
        fig,
        alt=f"Part des poids par code. NF4 : de {percent(min(mine))} à {percent(max(mine))} ; int4 : de "
        f"{percent(min(regular[:15]))} à {percent(max(regular))}. Entropie : {number(bits[0], 3)} bits sur 4 pour NF4, "
        f"{number(bits[1], 3)} pour int4.",
    )
    note(f"Entropie des codes : {number(bits[0], 3)} bits par poids pour NF4, {number(bits[1], 3)} pour int4, sur 4.")


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


def merges_table(here: Runs, author: Runs | None, descents: Mapping[str, Any] | None) -> str:
    """LoRA appris sur une base NF4, puis fusionné de trois façons. Rend le verdict du pari : la pire fusion."""
    kept = dict(author or here)
    shown = dict(kept)
    if author is not None and descents is not None:
        shown["LoRA, base FP32"] = [run["B"][max(run["B"])] for run in descents["LoRA"]]
    runs_table(here, shown, "à part", "Perplexité sur B ; LoRA appris sur une base NF4, puis fusionné…", first="fusion")
    ways = {
        "dans la base relue": "dans la base relue",
        "dans la base d'origine": "dans la base d'origine",
        "relue, puis requantifiée": "relue, puis requantifiée",
    }
    return ways[max(ways, key=lambda name: mean(mean(parts) for parts in kept[name]))]


def memory_table(found: Mapping[str, tuple[int, int, int]]) -> None:
    """Octets d'un pas. found : version → (poids tenus, gradients et Adam, gardé pour le passage arrière)."""
    rows = [[name, *(byte_size(v) for v in row), byte_size(sum(row))] for name, row in found.items()]
    table(
        rows,
        header=["version", "poids tenus", "gradients et Adam", "gardé pour l'arrière", "en tout"],
        caption="Octets d'un pas de Colibri, comptés tenseur par tenseur",
    )


def packed_note(found: Mapping[str, Any]) -> None:
    """Tout Colibri sur 4 bits. found : « avant », « après » (parts), « pas » (version → partie → durées)."""
    before, after = (number(perplexity_of(found[key]), 3) for key in ("avant", "après"))
    note(f"Colibri tout entier sur 4 bits : perplexité sur B de {before} avant la leçon, {after} après.")
    base = whole_step(found["pas"]["base FP32"])
    told = []
    for name in list(found["pas"])[1:]:
        low, middle, high = quartiles([a / b for a, b in zip(whole_step(found["pas"][name]), base, strict=True)])
        told.append(f"{name}, × {number(middle, 3)} (quartiles {number(low, 3)} et {number(high, 3)})")
    note(f"Un pas, face à une base FP32 ({len(base)} tours, un fil) : {' ; '.join(told)}.")
