"""Chapitre 3, deuxième partie : des dessins et des mesures sur les grilles d'entiers, couche par couche."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from atelier import passed
from atelier.display import note, show, table
from atelier.evidence import Gap, paired
from atelier.figures.common.controls import Pick, Slider, explore
from atelier.figures.common.layers import layer_label
from atelier.figures.common.style import BLACK, BLUE, ORANGE, RED, SERIES, SKY, canvas, french, middle
from atelier.text import number, percent

GREY = "#888888"


# --- Quantifier, c'est choisir le plus proche --------------------------------------------------------------------


def staircase(bits: int = 3) -> None:
    """La quantification est un escalier : 2^bits valeurs permises à partir de −1, zéro compris. `bits` : un curseur."""
    explore(_staircase, bits=Slider(bits, 1, 8, 1, "bits"))


def _staircase(bits: int) -> tuple[Any, str]:
    levels = torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)) / 2 ** (bits - 1)
    x = torch.linspace(-1.25, 1.25, 2001)
    nearest = levels[(x[:, None] - levels).abs().argmin(1)]
    fig, (ax, below) = canvas(7.2, 4.4, rows=2, sharex=True, height_ratios=(2, 1))
    ax.plot(x, x, color=GREY, lw=1, linestyle="--", label="réel de départ")
    ax.plot(x, nearest, color=BLUE, lw=2, label="valeur permise la plus proche")
    ax.set_ylabel("valeur rendue")
    ax.legend(frameon=False, fontsize=9)
    below.plot(x, nearest - x, color=RED, lw=1.4)
    below.set_ylabel("erreur")
    below.set_xlabel("réel de départ")
    for a in (ax, below):
        french(a)
    step = (levels[1] - levels[0]).item()
    inside = (nearest - x)[(x >= -1) & (x <= levels[-1])].abs().max().item()
    alt = (
        f"Un escalier de {2**bits} marches, hautes de {number(step, 3)}, suit la diagonale de −1 à "
        f"{number(levels[-1].item(), 3)} en passant par zéro, puis reste plat ; dessous, l'erreur en dents de scie, au "
        f"plus {number(inside, 3)} dedans, grandit sans limite au-dehors."
    )
    return fig, alt


def methods_map() -> None:
    """La carte des méthodes : trois questions indépendantes, deux réponses à chacune, une phrase et une référence."""
    table(
        [
            [
                "Quand ?",
                "après l'apprentissage (PTQ)",
                "on arrondit un modèle fini, avec au plus quelques textes pour régler les échelles",
                "Nagel et al., 2021, arXiv 2106.08295",
                "tout ce chapitre",
            ],
            [
                "Quand ?",
                "pendant l'apprentissage (QAT)",
                "l'arrondi est simulé à chaque pas, et les poids apprennent à le supporter",
                "Jacob et al., 2018, arXiv 1712.05877",
                "pas ici : il faut réentraîner",
            ],
            [
                "Quoi ?",
                "les poids seuls",
                "moins d'octets à garder et à lire ; le calcul reste en flottants",
                "GPTQ, Frantar et al., 2023, arXiv 2210.17323",
                "3.8, 3.12 et 3.13",
            ],
            [
                "Quoi ?",
                "poids et activations",
                "le produit lui-même se fait entre entiers",
                "LLM.int8(), Dettmers et al., 2022, arXiv 2208.07339",
                "3.11",
            ],
            [
                "Échelle des activations ?",
                "statique",
                "fixée d'avance sur des textes d'étalonnage : rien à calculer ensuite, mais gare aux surprises",
                "SmoothQuant (réglage O3), Xiao et al., 2023, arXiv 2211.10438",
                "comparée en 3.11",
            ],
            [
                "Échelle des activations ?",
                "dynamique",
                "recalculée à chaque passage, souvent par jeton : plus juste, un peu plus cher",
                "ZeroQuant, Yao et al., 2022, arXiv 2206.01861",
                "3.11",
            ],
        ],
        header=["question", "réponse", "en une phrase", "référence", "dans ce chapitre"],
        caption="Trois questions indépendantes : une méthode répond à chacune",
    )


# --- La droite affine ---------------------------------------------------------------------------------------------

QParams = Callable[..., tuple[float, int]]


def place_by_hand(r_min: float = -0.8, r_max: float = 2.0, bits: int = 4) -> None:
    """Placez vous-même la grille : deux curseurs, le pas S et le code Z du zéro, et ce qui dépasse."""

    def draw(scale: float, zero_point: int) -> tuple[Any, str]:
        return _number_line(r_min, r_max, bits, True, scale, zero_point)

    explore(
        draw,
        scale=Slider(0.1, 0.02, 0.5, 0.005, "S"),
        zero_point=Slider(0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 1, "Z"),
    )


def number_line(found: Mapping[str, Any], qparams: QParams) -> None:
    """La grille posée sur un intervalle ; ses quatre arguments se règlent quand `qparams` passe son check.

    found : r_min, r_max, bits, signed, et ce que `qparams` en a fait, S et Z.
    """
    r_min, r_max, bits, signed = (found[name] for name in ("r_min", "r_max", "bits", "signed"))
    if not passed(qparams):
        fig, alt = _number_line(r_min, r_max, bits, signed, found["S"], found["Z"])
        show(fig, alt=alt)
        return

    def draw(r_min: float, r_max: float, bits: int, signed: bool) -> tuple[Any, str]:
        low, high = min(r_min, r_max), max(r_min, r_max)
        return _number_line(low, high, bits, signed, *qparams(low, high, bits, signed))

    explore(
        draw,
        r_min=Slider(r_min, -4.0, 4.0, 0.1, "r_min"),
        r_max=Slider(r_max, -4.0, 4.0, 0.1, "r_max"),
        bits=Slider(bits, 2, 8, 1, "bits"),
        signed=Pick(signed, [("avec signe", True), ("sans signe", False)], "codes"),
    )


def _number_line(r_min: float, r_max: float, bits: int, signed: bool, scale: float, zero: int) -> tuple[Any, str]:
    codes = range(2**bits) if not signed else range(-(2**bits) // 2, 2**bits // 2)
    q_min, q_max = codes[0], codes[-1]
    low, high = scale * (q_min - zero), scale * (q_max - zero)
    left, right = min(r_min, low, 0), max(r_max, high, 0)
    fig, ax = canvas(8.6, 2.7)
    ax.grid(False)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    values = [scale * (q - zero) for q in codes]
    ax.plot([r_min, r_max], [1, 1], color=SKY, lw=9, solid_capstyle="butt", alpha=0.8)
    ax.plot([low, high], [0, 0], color=BLACK, lw=1)
    ax.vlines(values, -0.12, 0.12, color=BLUE, lw=1.2)
    ax.vlines(values, 0.12, 1, color=GREY, lw=0.4, alpha=0.6)
    ends = [
        (low, f"q_min = {number(q_min)}"),
        (high, f"q_max = {number(q_max)}"),
    ]
    for x, text in ends:
        ax.annotate(text, (x, -0.14), xytext=(0, -3), textcoords="offset points", ha="center", va="top")
    if q_min < zero < q_max:
        ax.plot([0, 0], [-0.3, 1], color=RED, lw=1.5)
        ax.annotate(f"Z = {number(zero)}", (0, -0.6), ha="center", va="top", color=RED, weight="bold")
    for x, name in ((r_min, "r_min"), (r_max, "r_max")):
        ax.annotate(f"{name} = {number(float(x), 3)}", (x, 1.12), ha="center", va="bottom")
    half = scale / 2 * (1 + 1e-9)  # à moins d'un demi-pas du bord, l'arrondi suffit
    lost = [(a, b) for a, b in ((r_min, min(r_max, low)), (max(r_min, high), r_max)) if b - a > half]
    for a, b in lost:
        ax.plot([a, b], [1, 1], color=RED, lw=9, solid_capstyle="butt")
        ax.annotate("hors de la grille", ((a + b) / 2, 0.82), ha="center", va="top", color=RED, fontsize=8.5)
    used = sum(r_min - scale / 2 < v < r_max + scale / 2 for v in values)
    margin = 0.1 * (right - left)
    ax.set_xlim(left - margin, right + margin)
    ax.set_ylim(-0.95, 1.55)
    ax.set_xlabel("réel r")
    ax.set_title(f"S = {number(float(scale), 4)}   ·   {used} codes servent sur {len(values)}", fontsize=10)
    french(ax, y=False)
    alt = (
        f"Droite des réels avec {len(values)} graduations de {number(low, 3)} (code {number(q_min)}) à "
        f"{number(high, 3)} (code {q_max}) ; pas S = {number(float(scale), 4)}, zéro au code {number(zero)}. "
        f"L'intervalle demandé va de {number(float(r_min), 3)} à {number(float(r_max), 3)} : {used} codes servent"
        + (", une partie est hors de la grille." if lost else ", tout y tient.")
    )
    return fig, alt


def grid_gains(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Le SQNR de la grille ajustée à [min, max] et de la grille symétrique, et ce que la première gagne, en dB.

    found : « valeurs, grille … » → SQNR, un par bloc. Rend le gain moyen de chaque espèce de valeurs.
    """
    rows, gains = [], {}
    for what in dict.fromkeys(name.rpartition(", grille")[0] for name in found):
        fitted, symmetric = (found[f"{what}, grille {grid}"] for grid in ("ajustée", "symétrique"))
        gain = paired(fitted, symmetric)
        rows.append(
            [
                what,
                number(mean(fitted), decimals=2),
                number(mean(symmetric), decimals=2),
                number(gain.mean, decimals=2),
                _within(gain),
            ]
        )
        gains[what] = gain.mean
    table(
        rows,
        header=["valeurs", "grille ajustée", "grille symétrique", "gain", "à 95 %, entre"],
        caption=f"Rapport signal sur bruit moyen des {len(fitted)} blocs, en décibels",
    )
    return gains


def _within(gap: Gap) -> str:
    return f"{number(gap.low, decimals=2)} et {number(gap.high, decimals=2)}"


# --- Histogrammes et valeurs extrêmes -----------------------------------------------------------------------------


def histogram(values: Tensor, title: str, levels: Tensor | None = None) -> Any:
    """Une figure : histogramme des valeurs, en échelle logarithmique, le plus grand écart à zéro repéré."""
    flat = values.detach().float().flatten().cpu()
    fig, ax = canvas(7.6, 3.0)
    heights, edges, _ = ax.hist(flat.numpy(), bins=120, color=BLUE, alpha=0.75)
    ax.set_yscale("log")
    ax.set_ylim(0.7, heights.max() * 2)
    peak = flat[flat.abs().argmax()].item()
    ax.annotate(
        f"le plus extrême : {number(peak, 3)}",
        (peak, 1),
        xytext=(0.99 if peak > 0 else 0.01, 0.85),
        textcoords="axes fraction",
        ha="right" if peak > 0 else "left",
        arrowprops={"arrowstyle": "->", "color": RED},
        color=RED,
    )
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("valeur")
    ax.set_ylabel("nombre de valeurs (échelle log.)")
    french(ax)
    return fig


def spread_alt(values: Tensor, what: str) -> str:
    """Texte alternatif d'un histogramme : bornes, cœur, forme."""
    flat = values.detach().float().flatten().cpu()
    low, high = middle(flat)
    return (
        f"Histogramme : {what}, de {number(flat.min().item(), 3)} à {number(flat.max().item(), 3)} ; "
        f"99 % des valeurs sont entre {number(low, 3)} et {number(high, 3)}."
    )


def outlier_table(found: Mapping[str, Any]) -> None:
    """Ce que coûtent les plus grands poids. found : « échelles » (poids écartés → S), « poids », « écart-type »."""
    scales, n, spread = found["échelles"], found["poids"], found["écart-type"]
    table(
        [[count, percent(count / n), s, s / math.sqrt(12), s / spread] for count, s in scales.items()],
        header=["poids écartés", "part", "échelle S", "erreur typique S/√12", "S / écart-type"],
        caption=f"Ce que coûtent les plus grands poids (8 bits, {number(n)} poids)",
    )
    first, last = list(scales)[0], list(scales)[-1]
    note(
        f"Écarter {number(last)} poids sur {number(n)} divise le pas, donc l'erreur de tous les autres, "
        f"par {number(scales[first] / scales[last], 3)}."
    )


def forms_table(found: Mapping[tuple[str, int], Sequence[float]]) -> None:
    """La forme de la diapositive (÷ 2^(b−1)) contre la forme restreinte (÷ (2^(b−1) − 1)).

    found : (forme, bits) → SQNR de chaque couche.
    """
    rows = []
    for b in dict.fromkeys(bits for _, bits in found):
        plain, full = found["restreinte", b], found["diapositive", b]
        gap = paired(full, plain)
        told = [number(x, decimals=2) for x in (mean(plain), mean(full), gap.mean)]
        rows.append([b, 2 ** (b - 1) - 1, 2 ** (b - 1), *told, _within(gap)])
    table(
        rows,
        header=["bits", "restreinte : ÷", "diapositive : ÷", "restreinte", "diapositive", "écart", "à 95 %, entre"],
        caption=f"Rapport signal sur bruit moyen des {len(plain)} couches linéaires, en décibels",
    )


def plot_bits_and_decibels(found: Mapping[tuple[str, int], Sequence[float]]) -> None:
    """SQNR moyen des couches contre le nombre de bits : deux formes, la droite des 6 dB, et ce qu'annonce S²/12.

    found : (quoi, bits) → une valeur par couche ; quoi : « diapositive », « restreinte », « S²/12 » (en décibels), et
    « pas / écart-type ».
    """
    bits = list(dict.fromkeys(b for _, b in found))
    means = {what: [mean(found[what, b]) for b in bits] for what in dict.fromkeys(what for what, _ in found)}
    shapes = {
        "diapositive": "diapositive",
        "restreinte": "restreinte",
        "S²/12": "restreinte, si l'erreur valait S²/12",
    }
    slope = 20 * math.log10(2)
    rule = [means["diapositive"][-1] + slope * (b - bits[-1]) for b in bits]
    fig, ax = canvas(7.2, 3.8)
    ax.plot(bits, rule, "--", color=BLACK, lw=1.2, label=f"{number(slope, 3)} dB par bit")
    for (what, label), look in zip(shapes.items(), SERIES, strict=False):
        ax.plot(bits, means[what], lw=1.8, ms=6, label=label, **look)
    ax.set_xlabel("bits par poids")
    ax.set_ylabel("SQNR (dB)")
    ax.legend(frameon=False, fontsize=9)
    french(ax)
    shown = ", ".join(f"{number(v, decimals=1)} dB à {b} bits" for b, v in zip(bits, means["diapositive"], strict=True))
    show(fig, alt=f"Le SQNR moyen des couches suit une droite. Forme de la diapositive : {shown}.")
    table(
        [
            [
                b,
                number(means["pas / écart-type"][k], decimals=2),
                *(number(means[what][k] - rule[k], decimals=2) for what in shapes),
            ]
            for k, b in enumerate(bits)
            if b <= 6
        ],
        header=["bits", "pas / écart-type", *(f"{what} − droite" for what in shapes)],
        caption="Écart à la droite des 6 dB, calée sur le plus grand nombre de bits (décibels, moyenne des couches)",
    )


# --- Choisir le pas -----------------------------------------------------------------------------------------------


def plot_clipping(found: Mapping[float, Mapping[str, float]]) -> None:
    """L'erreur d'une ligne contre son pas. found : part du pas le plus prudent → erreurs « écrêtés » et « autres »."""
    ratios = list(found)
    sums = [row["écrêtés"] + row["autres"] for row in found.values()]
    best = min(range(len(sums)), key=sums.__getitem__)
    fig, ax = canvas(7.2, 3.4)
    for name, look in zip(("écrêtés", "autres"), SERIES[1:], strict=False):
        label = f"{'poids' if name == 'écrêtés' else 'tous les'} {name}"
        ax.plot(
            ratios, [row[name] for row in found.values()], color=look["color"], linestyle=look["linestyle"], label=label
        )
    ax.plot(ratios, sums, color=BLUE, lw=2.4, label="leur somme")
    ax.plot(ratios[best], sums[best], "o", color=BLACK, ms=7, label="le creux")
    ax.set_xlabel("pas, en parts du plus prudent")
    ax.set_ylabel("erreur quadratique de la ligne")
    ax.set_ylim(0, 1.15 * max(sums[-1], min(sums) * 3))
    ax.legend(frameon=False, fontsize=9)
    french(ax)
    show(
        fig,
        alt="Trois courbes contre le pas : celle des poids écrêtés descend, celle des autres monte, leur somme a un "
        f"creux à {number(ratios[best], 2)} fois le pas le plus prudent, où elle vaut "
        f"{number(sums[best] / sums[-1], 2)} fois ce qu'elle vaut au bout.",
    )


# --- Une échelle pour combien de poids ? --------------------------------------------------------------------------


def plot_channel_scales(found: Mapping[str, Any], title: str) -> None:
    """Échelles des canaux de sortie, rangées, contre celle de toute la couche. found : « canaux » (n,), « couche »."""
    each = found["canaux"].cpu().sort(descending=True).values
    one = found["couche"]
    fig, ax = canvas(7.6, 3.0)
    ax.fill_between(range(len(each)), 1000 * each, 1000 * one, color=ORANGE, alpha=0.25, label="précision perdue")
    ax.plot(1000 * each, color=BLUE, lw=2, label="une échelle par canal")
    ax.axhline(1000 * one, color=RED, lw=1.6, linestyle="--", label="une échelle pour tous")
    ax.set_xlabel("canaux de sortie, rangés par échelle")
    ax.set_ylabel("échelle S (millièmes)")
    ax.set_ylim(0)
    ax.set_title(title, fontsize=10)
    ax.legend(frameon=False, fontsize=9)
    french(ax)
    median = each.median().item()
    show(
        fig,
        alt=f"Échelles des {len(each)} canaux, décroissantes de {number(1000 * each[0].item(), 3)} à "
        f"{number(1000 * each[-1].item(), 3)} millièmes, médiane {number(1000 * median, 3)} ; l'échelle "
        f"unique, en tirets, vaut {number(1000 * one, 3)}.",
    )
    note(
        f"Le canal médian se contenterait d'un pas {number(one / median, 3)} fois plus petit, "
        f"soit {number(20 * math.log10(one / median), 2)} dB."
    )


def plot_component_peaks(found: Mapping[str, Tensor]) -> None:
    """Le plus grand |x| de chaque composante en entrée de quelques couches. found : couche → valeurs, rangées."""
    fig, axes = canvas(9.0, 2.7, columns=len(found), sharey=False)
    told = []
    for ax, (name, values) in zip(axes, found.items(), strict=True):
        peaks = values.cpu()
        ax.plot(peaks, color=BLUE, lw=2)
        ax.axhline(peaks.median(), color=BLACK, lw=1, linestyle=":", label="médiane")
        ax.set_title(layer_label(name), fontsize=9)
        ax.set_xlabel("composantes, rangées")
        ax.set_ylim(0)
        french(ax)
        top, middle_one = number(peaks[0].item(), 3), number(peaks.median().item(), 3)
        told.append(f"{layer_label(name)} : plus grande {top}, médiane {middle_one}")
    axes[0].set_ylabel("plus grand |x|")
    axes[0].legend(frameon=False, fontsize=9)
    show(fig, alt="Plus grande valeur absolue par composante, rangée par taille ; " + " ; ".join(told) + ".")


# --- Les bibliothèques --------------------------------------------------------------------------------------------


def library_table(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Les mêmes poids par vos fonctions et par des bibliothèques : échelles et codes côte à côte.

    found : qui → « S », « max|w| / S », « codes » (de l'extrême, puis des premiers poids), combien de codes changent.
    """
    moved = "autres codes que la forme restreinte"
    shown = {name: number(row["max|w| / S"], decimals=1) for name, row in found.items()}
    n_codes = len(next(iter(found.values()))["codes"]) - 1
    table(
        [[name, 1000 * row["S"], shown[name], *row["codes"], row[moved]] for name, row in found.items()],
        header=[
            *("qui", "S (millièmes)", "max|w| / S", "code de l'extrême"),
            *(f"w[{i}]" for i in range(n_codes)),
            "codes changés",
        ],
        caption="8 bits symétriques, une échelle par couche ; « changés » : par rapport à la forme restreinte",
    )
