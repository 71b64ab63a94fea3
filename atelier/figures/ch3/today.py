"""Chapitre 3, « ce qui se fait aujourd'hui » : formats par blocs, étirements, rotations, cache, noyaux d'un jeton."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from atelier.display import note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.ch3.models import spread_ms
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.text import number, percent

Losses = Sequence[float]

# --- Quatre bits et une échelle ---------------------------------------------------------------------------------------


def four_bit_rulers() -> None:
    """Les seize codes d'int4 et les quinze valeurs d'E2M1, étirés pour que le plus grand tombe au même endroit."""
    sizes = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    rulers = {
        "int4": [code / 8 for code in range(-8, 8)],
        "E2M1": [sign * v / 6 for v in sizes for sign in (-1, 1)],
    }
    fig, ax = canvas(7.6, 1.7)
    for i, values in enumerate(rulers.values()):
        ax.plot(values, [-i] * len(values), "|", color=SERIES[i]["color"], ms=20, mew=2.2)
        ax.plot([-1, 1], [-i, -i], color=SERIES[i]["color"], lw=0.8)
    ax.set_yticks([0, -1], list(rulers))
    ax.set_ylim(-1.6, 0.6)
    ax.grid(False)
    ax.set_xlabel("valeur, en parts de la plus grande du bloc")
    french(ax, y=False)
    show(
        fig,
        alt="Deux règles de −1 à 1. Int4 : seize traits à égale distance, de −1 à 0,875. E2M1 : quinze traits, serrés "
        f"près de zéro (le premier à {number(0.5 / 6, 2)}), puis de plus en plus écartés (de {number(4 / 6, 2)} à 1).",
    )


def recipes_table(measured: Mapping[str, Any]) -> None:
    """Perplexité de Colibri dans chaque format. measured : « jetons », « bits » par poids, « pertes » (et « FP32 »)."""
    found, bits = measured["pertes"], measured["bits"]
    table(
        [
            [
                name,
                number(bits.get(name, 32), decimals=2),
                number(perplexity_of(losses), decimals=2),
                paired(losses, found["FP32"]).as_ratio() if name in bits else "—",
            ]
            for name, losses in found.items()
        ],
        header=["poids", "bits par poids", "perplexité", "rapport à FP32 [intervalle à 95 %]"],
        caption=f"Poids des couches linéaires arrondis, échelles comptées ({_extract(measured)})",
    )


def _extract(measured: Mapping[str, Any]) -> str:
    """« 8 192 jetons » : sur quel extrait."""
    return f"{number(measured['jetons'])} jetons"


def better_of(measured: Mapping[str, Any], first: str, second: str) -> str:
    """Celui des deux formats dont la perplexité est la plus basse, si l'intervalle permet de le dire."""
    gap = paired(measured["pertes"][first], measured["pertes"][second])
    if not gap.told_apart:
        return "on ne peut pas les départager"
    return first if gap.mean < 0 else second


def fp8_table(found: Mapping[tuple[str, str], Mapping[str, float]]) -> None:
    """Ce que deviennent les gradients. found : (format, « tels quels » ou « étirés ») → « annulés », « erreur »…"""
    table(
        [
            [
                f"{name}, {how}",
                percent(row["annulés"], 3),
                percent(row["erreur"], 3),
                number(row["sqnr"], decimals=1, unit="dB"),
            ]
            for (name, how), row in found.items()
        ],
        header=["format", "annulés", "erreur relative médiane", "SQNR"],
        caption="Les gradients non nuls des poids de Colibri, sur huit bits flottants",
    )


# --- Étirer les entrées -----------------------------------------------------------------------------------------------


def plot_alphas(measured: Mapping[str, Any]) -> float:
    """L'erreur en sortie contre α, et ce qu'AWQ change à la perplexité. Rend le meilleur α commun, au pas choisi.

    measured : « jetons », « alphas », « erreurs » (pas → couche → une par α), « pertes » ((pas, « sans » ou « AWQ »)).
    """
    alphas, found, steps = measured["alphas"], measured["pertes"], ("prudent", "choisi")
    still = alphas.index(0.0)
    curves = {
        step: [mean(math.log(e[i] / e[still]) for e in measured["erreurs"][step].values()) for i in range(len(alphas))]
        for step in steps
    }
    fig, ax = canvas(6.4, 3.2)
    for (step, curve), look in zip(curves.items(), SERIES, strict=False):
        ax.plot(alphas, [math.exp(v) for v in curve], label=f"pas {step}", lw=1.8, **look)
    ax.axhline(1, color=BLACK, lw=0.8, linestyle=":", label="sans AWQ")
    ax.set_xlabel("α, le même pour toutes les couches")
    ax.set_ylabel("erreur en sortie ÷ sans AWQ")
    ax.legend(frameon=False, fontsize=8.5)
    french(ax)
    best = {step: alphas[min(range(len(alphas)), key=curve.__getitem__)] for step, curve in curves.items()}
    told = " ; ".join(f"pas {step}, le creux est à α = {number(v, 2)}" for step, v in best.items())
    show(fig, alt=f"Deux courbes en creux, moyenne géométrique sur les couches. {told} ; à droite, elles montent vite.")
    table(
        [
            [
                f"pas {step}",
                number(perplexity_of(found[step, "sans"]), decimals=2),
                number(perplexity_of(found[step, "AWQ"]), decimals=2),
                paired(found[step, "AWQ"], found[step, "sans"]).as_ratio(),
            ]
            for step in steps
        ],
        header=["3 bits, groupes de 64", "sans AWQ", "AWQ, un α par couche", "rapport [intervalle à 95 %]"],
        caption=f"Perplexité de Colibri ({_extract(measured)})",
    )
    return best["choisi"]


def smoothing_note(found: Mapping[str, Losses]) -> None:
    """Ce que SmoothQuant change au SQNR des sorties. found : « sans » et « avec » → une valeur par couche."""
    gap = paired(found["avec"], found["sans"])
    bounds = " à ".join(number(v, decimals=1, signed=True) for v in (gap.low, gap.high))
    note(
        f"SQNR moyen des {len(found['sans'])} couches qui suivent un LayerNorm, W8A8 statique : "
        f"{number(mean(found['sans']), decimals=1)} dB sans SmoothQuant, {number(mean(found['avec']), decimals=1)} dB "
        f"avec ({number(gap.mean, decimals=1, signed=True)} dB, intervalle à 95 % : {bounds})."
    )


# --- Tourner ----------------------------------------------------------------------------------------------------------


def turns_table(on_weights: Mapping[str, Any], on_inputs: Mapping[str, Any]) -> str:
    """Perplexité avec et sans rotation. pertes : (quoi, « tels quels » ou « tournés »), et « sans arrondi ».

    Rend, dans les mots du pari, ce qui gagne le plus quand le pas est choisi.
    """
    found = on_weights["pertes"] | on_inputs["pertes"]
    rows, gains = [], {}
    for what in dict.fromkeys(key[0] for key in found if key != "sans arrondi"):
        gap = paired(found[what, "tournés"], found[what, "tels quels"])
        gains[what] = gap.mean
        label = "W4A4 : pas choisi par canal, activations par jeton" if what == "W4A4" else f"poids seuls, {what}"
        both = [number(perplexity_of(found[what, how]), 4) for how in ("tels quels", "tournés")]
        rows.append([label, *both, gap.as_ratio()])
    table(
        rows,
        header=["sur 4 bits", "tels quels", "tournés", "rapport [intervalle à 95 %]"],
        caption=f"Perplexité de Colibri (poids tournés deux fois, sans arrondi : "
        f"{number(perplexity_of(found['sans arrondi']), 4)} ; {_extract(on_weights)})",
    )
    words = {
        "un pas par tenseur, choisi": "les poids, un pas par tenseur",
        "un pas par canal, choisi": "les poids, un pas par canal",
        "W4A4": "les activations, un pas par jeton",
    }
    return words[min(words, key=gains.__getitem__)]


def plot_peaks_when_turned(found: Mapping[str, Sequence[float]]) -> None:
    """Le plus grand élément, en écarts types. found : « un tenseur, tels quels »… → une valeur par couche linéaire."""
    kinds = list(dict.fromkeys(key.split(", ")[0] for key in found))
    fig, axes = canvas(9.0, 2.9, columns=len(kinds), sharey=True)
    told = []
    for ax, kind in zip(axes, kinds, strict=True):
        for how, look in zip(("tels quels", "tournés"), SERIES, strict=False):
            values = found[f"{kind}, {how}"]
            ax.plot(range(len(values)), values, label=how, lw=1.2, ms=5, **look)
            told.append(f"{kind}, {how} : {number(mean(values), 3)}")
        ax.set_title(f"{kind}", fontsize=10)
        ax.set_xlabel("couche linéaire")
        french(ax, x=False)
    axes[0].set_ylabel("plus grand ÷ écart type")
    axes[0].set_ylim(0)
    axes[1].legend(frameon=False, fontsize=8.5)
    show(fig, alt=f"Le plus grand élément, en écarts types, de chaque couche ; en moyenne, {' ; '.join(told)}.")


# --- Le cache ---------------------------------------------------------------------------------------------------------


def plot_rounded_cache(measured: Mapping[str, Any]) -> None:
    """Perplexité contre nombre de bits du cache. pertes : « exact », (« par jeton » ou « par canal », bits)."""
    found = measured["pertes"]
    lines: dict[str, dict[int, Losses]] = {}
    for key, losses in found.items():
        if key != "exact":
            lines.setdefault(key[0], {})[key[1]] = losses
    bits = list(next(iter(lines.values())))
    exact = perplexity_of(found["exact"])
    fig, ax = canvas(6.0, 3.0)
    for (name, line), look in zip(lines.items(), SERIES, strict=False):
        ax.plot(range(len(bits)), [perplexity_of(line[b]) for b in bits], label=f"clés {name}", lw=1.8, ms=7, **look)
    ax.axhline(exact, color=BLACK, lw=1, linestyle=":", label="cache exact")
    ax.set_xticks(range(len(bits)), [f"{b} bits" for b in bits])
    ax.set_ylabel("perplexité")
    ax.legend(frameon=False, fontsize=8.5)
    french(ax, x=False)
    told = " ; ".join(
        f"clés {name} : " + ", ".join(f"{number(perplexity_of(v), 4)} à {b} bits" for b, v in line.items())
        for name, line in lines.items()
    )
    show(fig, alt=f"Perplexité contre nombre de bits du cache ; exact : {number(exact, 4)}. {told}.")
    table(
        [
            [
                f"{b} bits",
                number(b + 1),
                *(number(perplexity_of(line[b]), decimals=2) for line in lines.values()),
                paired(lines["par canal"][b], lines["par jeton"][b]).as_ratio(),
            ]
            for b in bits
        ],
        header=["cache", "bits par nombre, bornes comptées", *(f"clés {name}" for name in lines), "canal ÷ jeton"],
        caption=f"Perplexité de Colibri (cache exact : {number(exact, decimals=2)} ; {_extract(measured)})",
    )


def ranges_table(found: Mapping[tuple[str, str], Sequence[float]]) -> None:
    """L'étendue de ce qui partage un pas. found : (« keys » ou « values », « par jeton »…) → une par bloc."""
    rows = []
    for what, name in {"keys": "clés", "values": "valeurs"}.items():
        token, channel = (mean(found[what, how]) for how in ("par jeton", "par canal"))
        rows.append([name, *(number(v, decimals=2) for v in (token, channel)), number(token / channel, decimals=2)])
    table(
        rows,
        header=["cache", "étendue, par jeton", "étendue, par canal", "rapport"],
        caption="Étendue moyenne de 32 nombres qui partagent un pas, moyenne sur les blocs",
    )


# --- Un jeton ---------------------------------------------------------------------------------------------------------


def plot_one_token(found: Mapping[tuple[str, str], Sequence[float]]) -> None:
    """Durée d'un jeton. found : (d'où viennent les poids, noyau) → durées, en secondes. La phrase vient des durées."""
    places = list(dict.fromkeys(place for place, _ in found))
    kernels = list(dict.fromkeys(name for _, name in found))
    middle = {key: median(seconds) for key, seconds in found.items()}
    fig, ax = canvas(8.0, 3.2)
    for i, (place, hatch) in enumerate(zip(places, ("", "//"), strict=True)):
        where = [k + 0.4 * (i - 0.5) for k in range(len(kernels))]
        heights = [1000 * middle[place, name] for name in kernels]
        color = SERIES[i]["color"]
        ax.bar(where, heights, 0.38, color=color, hatch=hatch, edgecolor="white", label=f"poids venus {place}")
    ax.set_xticks(range(len(kernels)), kernels)
    ax.set_ylabel("ms par jeton")
    ax.legend(frameon=False, fontsize=8.5)
    french(ax, x=False)
    told = " ; ".join(f"{name}, {place} : {number(1000 * middle[place, name], 3)} ms" for place, name in middle)
    show(fig, alt=f"Barres du temps d'un jeton par noyau. {told}.")
    table(
        [[name, *(spread_ms(found[place, name]) for place in places)] for name in kernels],
        header=["noyau", *(f"poids venus {place}" for place in places)],
        caption="Millisecondes par jeton, couches linéaires de GPT-2 small : médiane (quartiles)",
    )
    for place in places:
        base = middle[place, "fp32"]
        others = {name: base / middle[place, name] for name in kernels if name != "fp32"}
        if others:
            said = ", ".join(f"{name} × {number(ratio, 2)}" for name, ratio in others.items())
            note(f"Poids venus {place}, vitesse par rapport à fp32, sur cette machine : {said}.")


# --- L'industrie ------------------------------------------------------------------------------------------------------


def industry_table() -> None:
    """Les formats que lisent les outils d'aujourd'hui, et des modèles publiés en peu de bits, d'après leurs auteurs."""
    table(
        [
            ["llama.cpp", "k-quants (Q4_K, Q6_K…), MXFP4, NVFP4, ternaire (TQ1_0, TQ2_0)", "ggml-common.h"],
            ["vLLM", "GPTQ et AWQ en int4, W8A8 en int8 ou FP8, cache FP8", "docs.vllm.ai, « Quantization »"],
            ["TensorRT-LLM", "FP8 et NVFP4, cache compris ; AWQ et GPTQ (W4A16, W4A8)", "sa page « Quantization »"],
            ["torchao", "int4, int8 et float8 par quantize_, QAT ; MX et NVFP4 en prototype", "docs.pytorch.org/ao"],
            ["MLX", "affine de 2 à 8 bits (4 bits par groupes de 64, par défaut), MXFP4, NVFP4", "mlx.core.quantize"],
            ["ONNX Runtime", "int8 dynamique ; int4 par blocs (MatMulNBits)", "opérateurs com.microsoft"],
        ],
        header=["outil", "ce qu'il lit", "source"],
        caption="Les outils, en 2026",
    )
    table(
        [
            [
                "DeepSeek-V3 (2024)",
                "appris et publié en FP8 E4M3, une échelle par bloc de 128 × 128",
                "README_WEIGHTS.md",
            ],
            ["gpt-oss (2025)", "experts en MXFP4", "arXiv 2508.10925"],
            ["Kimi K2 Thinking (2025)", "experts en int4, par QAT", "Moonshot AI"],
        ],
        header=["modèle", "ses poids, tels que publiés", "source"],
        caption="Des modèles publiés en peu de bits",
    )
