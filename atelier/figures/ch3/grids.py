"""Chapitre 3, deuxième partie : des dessins et des mesures sur les grilles d'entiers, couche par couche."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from atelier.display import note, number, recorded, show, table
from atelier.figures.common.controls import Pick, Slider, explore
from atelier.figures.common.style import BLACK, BLUE, ORANGE, RED, SKY, canvas, french, middle, percent

GREY = "#888888"


# --- Quantifier, c'est choisir le plus proche --------------------------------------------------------------------


def staircase(bits: int = 3) -> None:
    """La quantification est un escalier : 2^bits valeurs permises entre −1 et 1. `bits` se règle au curseur."""
    explore(_staircase, bits=Slider(bits, 1, 8, 1, "bits"))


def _staircase(bits: int) -> tuple[Any, str]:
    levels = torch.linspace(-1, 1, 2**bits)
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
    inside = (nearest - x)[(x >= -1) & (x <= 1)].abs().max().item()
    alt = (
        f"Un escalier de {2**bits} marches, hautes de {number(step, 3)}, suit la diagonale entre −1 et 1 puis reste "
        f"plat ; dessous, l'erreur en dents de scie, au plus {number(inside, 3)} dedans, grandit sans limite au-dehors."
    )
    return fig, alt


def methods_map() -> None:
    """La carte des méthodes : trois questions indépendantes, deux réponses à chacune, une phrase et une référence."""
    table(
        [
            [
                "Quand ?",
                "après l'entraînement (PTQ)",
                "on arrondit un modèle fini, avec au plus quelques textes pour régler les échelles",
                "Nagel et al., 2021, arXiv 2106.08295",
                "tout ce chapitre",
            ],
            [
                "Quand ?",
                "pendant l'entraînement (QAT)",
                "l'arrondi est simulé à chaque pas, et les poids apprennent à le supporter",
                "Jacob et al., 2018, arXiv 1712.05877",
                "pas ici : il faut réentraîner",
            ],
            [
                "Quoi ?",
                "les poids seuls",
                "moins d'octets à garder et à lire ; le calcul reste en flottants",
                "GPTQ, Frantar et al., 2023, arXiv 2210.17323",
                "3.10 et 3.11",
            ],
            [
                "Quoi ?",
                "poids et activations",
                "le produit lui-même se fait entre entiers",
                "LLM.int8(), Dettmers et al., 2022, arXiv 2208.07339",
                "3.9",
            ],
            [
                "Échelle des activations ?",
                "statique",
                "fixée d'avance sur des textes d'étalonnage : rien à calculer ensuite, mais gare aux surprises",
                "SmoothQuant, Xiao et al., 2023, arXiv 2211.10438",
                "comparée en 3.9",
            ],
            [
                "Échelle des activations ?",
                "dynamique",
                "recalculée à chaque passage, souvent par jeton : plus juste, un peu plus cher",
                "ZeroQuant, Yao et al., 2022, arXiv 2206.01861",
                "3.9",
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


@recorded("ch3/number_line", needs=("qparams",))
def number_line(qparams: QParams, r_min: float = -0.8, r_max: float = 2.0, bits: int = 4, signed: bool = True) -> None:
    """La grille que votre `affine_qparams` pose sur [r_min, r_max] ; les quatre arguments se règlent."""

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
        (low, f"q_min = {q_min}"),
        (high, f"q_max = {q_max}"),
    ]
    for x, text in ends:
        ax.annotate(
            text.replace("-", "−"), (x, -0.14), xytext=(0, -3), textcoords="offset points", ha="center", va="top"
        )
    if q_min < zero < q_max:
        ax.plot([0, 0], [-0.3, 1], color=RED, lw=1.5)
        ax.annotate(f"Z = {zero}".replace("-", "−"), (0, -0.6), ha="center", va="top", color=RED, weight="bold")
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


@recorded("ch3/affine_or_symmetric", needs=("qparams", "quantize", "dequantize", "sqnr"))
def affine_or_symmetric(
    tensors: dict[str, Tensor], qparams: QParams, quantize: Any, dequantize: Any, sqnr: Any, bits: int = 8
) -> None:
    """La grille ajustée à [min, max], contre la grille symétrique [−m, m] : rapport signal sur bruit de chacune."""
    rows = []
    for name, x in tensors.items():
        low, high = x.min().item(), x.max().item()
        peak = max(abs(low), abs(high))
        found = []
        for interval in ((low, high), (-peak, peak)):
            s, z = qparams(*interval, bits)
            found.append(sqnr(x, dequantize(quantize(x, s, z, bits), s, z)))
        rows.append([name, low, high, *(f"{number(f, 3)} dB" for f in found), f"{number(found[0] - found[1], 2)} dB"])
    table(
        rows,
        header=["valeurs", "r_min", "r_max", "grille ajustée", "grille symétrique", "gain"],
        caption=f"Rapport signal sur bruit à {bits} bits, une seule échelle",
    )


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
    ax.set_ylabel("combien (échelle log.)")
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


def _nearest(w: Tensor, scale: Tensor | float, bits: int, quantize: Any, dequantize: Any) -> Tensor:
    """w passé par les codes de l'étudiant. On divise d'abord par l'échelle : `quantize` voit alors S = 1 et Z = 0."""
    return dequantize(quantize(w / scale, 1.0, 0, bits), 1.0, 0) * scale


@recorded("ch3/explore_outliers", needs=("scale",))
def explore_outliers(w: Tensor, scale: Callable[..., Tensor], k: Sequence[int] = (0, 1, 10, 100, 1000)) -> None:
    """L'échelle quand on écarte les k plus grands poids, et l'erreur d'arrondi typique de tous les autres."""
    order = w.flatten().abs().argsort(descending=True)
    rows: list[list[Any]] = []
    for count in k:
        rest = w.flatten().clone()
        rest[order[:count]] = 0
        s = scale(rest).item()
        rows.append([count, f"{percent(count / w.numel())}", s, s / math.sqrt(12), s / w.std().item()])
    table(
        rows,
        header=["poids écartés", "part", "échelle S", "erreur typique S/√12", "S / écart-type"],
        caption=f"Ce que coûtent les plus grands poids (8 bits, {number(w.numel())} poids)",
    )
    gain = rows[0][2] / rows[-1][2]
    note(
        f"Écarter {number(rows[-1][0])} poids sur {number(w.numel())} divise le pas, donc l'erreur de tous les autres, "
        f"par {number(gain, 3)}."
    )


@recorded("ch3/full_range_or_not", needs=("scale", "quantize", "dequantize", "sqnr"))
def full_range_or_not(
    layers: dict[str, Tensor], scale: Any, quantize: Any, dequantize: Any, sqnr: Any, bits: Sequence[int] = (8, 4, 3, 2)
) -> None:
    """La forme de la diapositive (÷ 2^(b−1)) contre la forme restreinte (÷ (2^(b−1) − 1)), sur toutes les couches."""
    rows = []
    for b in bits:
        found = []
        for full in (False, True):
            values = [sqnr(w, _nearest(w, scale(w, b, full), b, quantize, dequantize)) for w in layers.values()]
            found.append(sum(values) / len(values))
        rows.append([b, 2 ** (b - 1) - 1, 2 ** (b - 1), found[0], found[1], found[1] - found[0]])
    table(
        rows,
        header=["bits", "restreinte : ÷", "diapositive : ÷", "SQNR restreinte", "SQNR diapositive", "écart (dB)"],
        caption=f"Rapport signal sur bruit moyen des {len(layers)} couches linéaires, en décibels",
    )


@recorded("ch3/six_db_per_bit", needs=("scale", "quantize", "dequantize", "sqnr"))
def six_db_per_bit(layers: dict[str, Tensor], scale: Any, quantize: Any, dequantize: Any, sqnr: Any) -> None:
    """SQNR de chaque couche contre le nombre de bits, avec la règle des 6 dB par bit."""
    bits = list(range(2, 13))
    fig, ax = canvas(7.2, 3.4)
    curves = [[sqnr(w, _nearest(w, scale(w, b), b, quantize, dequantize)) for b in bits] for w in layers.values()]
    for curve in curves:
        ax.plot(bits, curve, color=BLUE, lw=1, alpha=0.5)
    mean = [sum(c) / len(c) for c in zip(*curves, strict=True)]
    ax.plot(bits, mean, "o-", color=BLUE, label="vos couches (moyenne en gras)")
    slope = 20 * math.log10(2)
    ax.plot(
        bits,
        [mean[-1] + slope * (b - bits[-1]) for b in bits],
        "--",
        color=BLACK,
        label=f"{number(slope, 3)} dB par bit",
    )
    ax.set_xlabel("bits par poids")
    ax.set_ylabel("SQNR (dB)")
    ax.legend(frameon=False, fontsize=9)
    french(ax)
    show(
        fig,
        alt=f"{len(curves)} courbes presque droites : le SQNR moyen monte de {number(mean[0], 3)} dB "
        f"à 2 bits à {number(mean[6], 3)} dB à 8 bits, et de {number((mean[-1] - mean[4]) / 6, 3)} dB par bit ensuite.",
    )


# --- Une échelle pour combien de poids ? --------------------------------------------------------------------------


@recorded("ch3/channel_scales", needs=("scale", "per_channel"))
def channel_scales(w: Tensor, scale: Any, per_channel: Any, title: str) -> None:
    """Échelle de chaque canal de sortie, rangées par taille, contre l'échelle unique de la couche."""
    each = per_channel(w).flatten().sort(descending=True).values
    one = scale(w).item()
    fig, ax = canvas(7.6, 3.0)
    ax.fill_between(range(len(each)), 1000 * each.cpu(), 1000 * one, color=ORANGE, alpha=0.25, label="pas gaspillé")
    ax.plot(1000 * each.cpu(), color=BLUE, lw=2, label="une échelle par canal")
    ax.axhline(1000 * one, color=RED, lw=1.6, linestyle="--", label="une échelle pour tous")
    ax.set_xlabel("canal de sortie (rangés par échelle)")
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


def channel_peaks(inputs: dict[str, Tensor], names: Sequence[str]) -> None:
    """Le plus grand |x| de chaque composante en entrée de quelques couches, les composantes rangées par taille."""
    fig, axes = canvas(9.0, 2.7, columns=len(names), sharey=False)
    told = []
    for ax, name in zip(axes, names, strict=True):
        peaks = inputs[name].abs().amax(0).cpu().sort(descending=True).values
        ax.plot(peaks, color=BLUE, lw=2)
        ax.axhline(peaks.median(), color=BLACK, lw=1, linestyle=":")
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("composante (rangées)")
        ax.set_ylim(0)
        french(ax)
        told.append(f"{name} : plus grande {number(peaks[0].item(), 3)}, médiane {number(peaks.median().item(), 3)}")
    axes[0].set_ylabel("plus grand |x|")
    show(fig, alt="Plus grande valeur absolue par composante, rangée par taille ; " + " ; ".join(told) + ".")


# --- Les bibliothèques --------------------------------------------------------------------------------------------


@recorded("ch3/library_scales", needs=("scale", "quantize"))
def library_scales(w: Tensor, scale: Any, quantize: Any) -> None:
    """Les mêmes poids par vos fonctions, torch.ao, torchao et onnxruntime : échelles et codes côte à côte."""
    w = w.detach().float().cpu().contiguous()
    peak, extreme = w.abs().max().item(), int(w.flatten().abs().argmax())
    found: list[tuple[str, float, Tensor]] = []
    for name, full in (("vous, forme restreinte", False), ("vous, forme de la diapositive", True)):
        s = scale(w, 8, full)
        found.append((name, s.item(), quantize(w, s.item(), 0)))
    found += [*_torch_ao(w), *_torchao(w), *_onnxruntime(w)]
    columns = [extreme, *range(6)]
    rows = [
        [name, 1000 * s, f"{peak / s:.1f}".replace(".", ","), *(int(q.flatten()[i]) for i in columns)]
        for name, s, q in found
    ]
    table(
        rows,
        header=["qui", "S (millièmes)", "max|w| / S", "code de l'extrême", *(f"w[{i}]" for i in range(6))],
        caption=f"8 bits symétriques, une échelle par couche ; l'extrême vaut {number(w.flatten()[extreme].item(), 4)}",
    )
    mine = found[0][2].flatten().int()
    moved = {name: int((q.flatten().int() != mine).sum()) for name, _, q in found[1:]}
    told = " ; ".join(f"{name}, {number(n)}" for name, n in moved.items())
    note(f"Codes qui diffèrent de la forme restreinte, sur {number(w.numel())} : {told}.")


def _torch_ao(w: Tensor) -> list[tuple[str, float, Tensor]]:
    import warnings

    from torch.ao.quantization.observer import MinMaxObserver

    warnings.filterwarnings("ignore", message=".*quantize_per_tensor.*deprecated")
    warnings.filterwarnings("ignore", message=".*quantized tensor creation.*")
    found = []
    for name, bounds in (
        ("torch.ao, par défaut", {}),
        ("torch.ao, quant_min=−127", {"quant_min": -127, "quant_max": 127}),
    ):
        observer = MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric, **bounds)
        observer(w)
        s, zero = observer.calculate_qparams()
        found.append((name, s.item(), torch.quantize_per_tensor(w, s.item(), int(zero), torch.qint8).int_repr()))
    return found


def _torchao(w: Tensor) -> list[tuple[str, float, Tensor]]:
    try:
        from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine, quantize_affine
    except ImportError:
        note("torchao n'est pas installé sur cette machine : sa ligne manque.")
        return []
    found = []
    block = tuple(w.shape)
    for name, kind in (
        ("torchao, SYMMETRIC", MappingType.SYMMETRIC),
        ("torchao, SYMMETRIC_NO_CLIPPING_ERR", MappingType.SYMMETRIC_NO_CLIPPING_ERR),
    ):
        s, zero = choose_qparams_affine(w, kind, block, torch.int8)
        found.append((name, s.item(), quantize_affine(w, block, s, zero, torch.int8)))
    return found


def _onnxruntime(w: Tensor) -> list[tuple[str, float, Tensor]]:
    try:
        from onnx import TensorProto
        from onnxruntime.quantization.quant_utils import quantize_data
    except ImportError:
        note("onnxruntime n'est pas installé sur cette machine : sa ligne manque.")
        return []
    *_, s, q = quantize_data(w.flatten().numpy(), TensorProto.INT8, symmetric=True)
    return [("onnxruntime", float(s), torch.from_numpy(q.copy()))]
