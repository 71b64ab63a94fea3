"""Chapitre 3, première partie : les nombres à virgule flottante, bit par bit, puis sur les valeurs de Colibri."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from atelier.display import _display, note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.common.controls import Shown, live, show_live
from atelier.figures.common.style import BLACK, BLUE, SERIES, canvas, french, middle
from atelier.hardware import for_float64
from atelier.text import number, percent, power_of_ten, read_number, superscript


@dataclass(frozen=True)
class Format:
    """Un format à virgule flottante : 1 bit de signe, puis l'exposant, puis la fraction."""

    name: str
    exponent_bits: int
    fraction_bits: int
    dtype: torch.dtype
    integer: torch.dtype

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def bias(self) -> int:
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def largest(self) -> float:
        return torch.finfo(self.dtype).max

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def smallest_subnormal(self) -> float:
        return 2.0 ** (1 - self.bias - self.fraction_bits)

    def value(self, pattern: int) -> float:
        """Le nombre écrit par ce motif de bits, tel que torch le lit."""
        signed = pattern - 2**self.bits if self.bits > 8 and pattern >= 2 ** (self.bits - 1) else pattern
        return torch.tensor([signed], dtype=self.integer).view(self.dtype).double().item()

    def pattern(self, value: float) -> int:
        """Le motif de bits du nombre le plus proche de `value`."""
        stored = torch.tensor([value], dtype=torch.float64).to(self.dtype)
        return stored.view(self.integer).item() % 2**self.bits

    def spacing(self, x: float) -> float:
        """Écart entre |x| et le nombre suivant du format ; x est supposé dans l'étendue du format."""
        power = max(math.floor(math.log2(abs(x))) if x else -(10**9), 1 - self.bias)
        return 2.0 ** (power - self.fraction_bits)


FORMATS = {
    f.name: f
    for f in (
        Format("FP32", 8, 23, torch.float32, torch.int32),
        Format("FP16", 5, 10, torch.float16, torch.int16),
        Format("BF16", 8, 7, torch.bfloat16, torch.int16),
        Format("E4M3", 4, 3, torch.float8_e4m3fn, torch.uint8),
    )
}
FIELDS = {"S": ("signe", "#CFE8F7"), "E": ("exposant", "#FBE3B5"), "F": ("fraction", "#BFE6D8")}


# --- Des bits à cliquer -------------------------------------------------------------------------------------------


def _fields(f: Format) -> str:
    return "S" + "E" * f.exponent_bits + "F" * f.fraction_bits


def describe(f: Format, pattern: int) -> tuple[str, list[str]]:
    """Le nombre sous un motif : sa valeur, puis les lignes qui la décomposent."""
    text = f"{pattern:0{f.bits}b}"
    sign, written = text[0], text[1 : 1 + f.exponent_bits]
    fraction = text[1 + f.exponent_bits :]
    e, m, value = int(written, 2), int(fraction, 2), f.value(pattern)
    lines = [f"signe {sign} : nombre {'négatif' if sign == '1' else 'positif'}"]
    if math.isnan(value) or math.isinf(value):
        lines.append(f"exposant {written} : tout en 1, motif réservé")
        return ("nan (pas un nombre)" if math.isnan(value) else "−∞" if sign == "1" else "+∞"), lines
    if e == 0:
        lines.append(f"exposant {written} = 0 : sous-normal, multiplié par 2{superscript(1 - f.bias)} (1 − {f.bias})")
        lines.append(f"fraction {fraction} : 0 + {m}/{2**f.fraction_bits}, pas de 1 caché")
    else:
        lines.append(f"exposant {written} = {e} : multiplié par 2{superscript(e - f.bias)} ({e} − {f.bias})")
        lines.append(f"fraction {fraction} : 1 + {m}/{2**f.fraction_bits}, le 1 n'est pas écrit")
    lines.append(f"écart avec le nombre suivant : {number(f.spacing(value), 4)}")
    return number(value, 17), lines


def _boxes(f: Format, pattern: int) -> str:
    cells = "".join(
        f'<span style="display:inline-block;width:1.15em;text-align:center;border:1px solid #555;margin:0 1px;'
        f'background:{FIELDS[kind][1]};color:#111;font-family:monospace">{bit}<br><small>{kind}</small></span>'
        for bit, kind in zip(f"{pattern:0{f.bits}b}", _fields(f), strict=True)
    )
    return f'<div aria-hidden="true" style="line-height:1.15;margin:.3em 0">{cells}</div>'


def _described(f: Format, pattern: int, with_boxes: bool) -> Shown:
    value, lines = describe(f, pattern)
    body = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    key = " · ".join(
        f'<span style="background:{c};color:#111;padding:0 .3em">{k}</span> {n}' for k, (n, c) in FIELDS.items()
    )
    boxes = _boxes(f, pattern) if with_boxes else ""
    markup = (
        f'<div style="margin:.3em 0">{boxes}<p style="margin:.2em 0">{key}</p>'
        f'<p style="font-size:1.15em;margin:.3em 0"><strong>{f.name} : {value}</strong></p><ul>{body}</ul></div>'
    )
    return markup, f"{f.name}  {pattern:0{f.bits}b}  = {value}\n  " + "\n  ".join(lines)


class _Chosen(TypedDict):
    """Ce que montre `explore_bits` : un format, et les bits d'un de ses nombres."""

    format: Format
    pattern: int


def explore_bits(value: float = 0.1, name: str = "FP16") -> None:
    """Les bits d'un nombre. Dans un carnet vivant, chaque bit se clique ; ailleurs, la décomposition est figée.

    value : le nombre de départ, arrondi au format ; name : FP32, FP16, BF16 ou E4M3.
    """
    if not live():
        _display(*_described(FORMATS[name], FORMATS[name].pattern(value), True))
        return
    import ipywidgets as w

    state: _Chosen = {"format": FORMATS[name], "pattern": FORMATS[name].pattern(value)}
    chosen = w.Dropdown(value=name, options=list(FORMATS), description="Format", layout=w.Layout(width="14em"))
    typed = w.Text(number(value, 15), description="Nombre", continuous_update=False)
    before, after = w.Button(description="◀ précédent"), w.Button(description="suivant ▶")
    bits, text = w.HBox(layout=w.Layout(flex_flow="row wrap")), w.HTML()

    def refresh(rebuild: bool = False) -> None:
        f, pattern = state["format"], state["pattern"]
        if rebuild:
            bits.children = [_bit_button(i, kind) for i, kind in enumerate(_fields(f))]
        for button, bit in zip(bits.children, f"{pattern:0{f.bits}b}", strict=True):
            button.description = bit
        text.value = _described(f, pattern, False)[0]

    def _bit_button(i: int, kind: str) -> Any:
        button = w.Button(
            description="0",
            tooltip=f"{FIELDS[kind][0]}, bit {i}",
            layout=w.Layout(width="1.7em", padding="0", margin="1px"),
        )
        button.style.button_color, button.style.text_color = FIELDS[kind][1], "#111"

        def flip(_: Any) -> None:
            state["pattern"] ^= 1 << (state["format"].bits - 1 - i)
            refresh()

        button.on_click(flip)
        return button

    def new_format(_: Any) -> None:
        kept = state["format"].value(state["pattern"])
        state["format"] = FORMATS[chosen.value]
        state["pattern"] = state["format"].pattern(kept)
        refresh(rebuild=True)

    def new_value(_: Any) -> None:
        try:
            state["pattern"] = state["format"].pattern(read_number(typed.value))
        except ValueError:
            text.value = "<p>Écrivez un nombre : 0,1 ou 1e-7.</p>"
            return
        refresh()

    def step(by: int) -> Callable[[Any], None]:
        def move(_: Any) -> None:
            state["pattern"] = (state["pattern"] + by) % 2 ** state["format"].bits
            refresh()

        return move

    chosen.observe(new_format, "value")
    typed.observe(new_value, "value")
    before.on_click(step(-1))
    after.on_click(step(1))
    refresh(rebuild=True)
    box = w.VBox([w.HBox([chosen, typed, before, after], layout=w.Layout(flex_flow="row wrap")), bits, text])
    show_live(box, _described(state["format"], state["pattern"], True))


# --- Étendue et précision -----------------------------------------------------------------------------------------


def formats_table() -> None:
    """Les quatre formats : bits, étendue, écart après 1. Tout est calculé."""
    table(
        [
            [
                f.name,
                f.bits,
                f.exponent_bits,
                f.fraction_bits,
                f.largest,
                f.smallest_normal,
                f.smallest_subnormal,
                f.spacing(1.0),
            ]
            for f in FORMATS.values()
        ],
        header=[
            "format",
            "bits",
            "exposant",
            "fraction",
            "plus grand",
            "plus petit normal",
            "plus petit sous-normal",
            "écart après 1",
        ],
        caption="Ce que chaque format sait écrire",
    )


def range_and_precision(weights: Tensor) -> None:
    """Étendue (en largeur) contre précision (en hauteur) des quatre formats, avec la bande des poids donnés."""
    fig, ax = canvas(8.4, 4.0)
    low, high = middle(weights.abs())
    ax.axvspan(low, high, color="#999999", alpha=0.35, lw=0)
    ax.annotate("99 % des poids\nde Colibri", (high * 5, 2e-5), va="center", fontsize=9, color=BLACK)
    for f, look in zip(FORMATS.values(), SERIES, strict=False):
        exponents = range(int(math.log2(f.smallest_subnormal)), int(math.log2(f.largest)) + 1)
        x = [2.0**e for e in exponents]
        y = [f.spacing(v) / v for v in x]
        ax.plot(x, y, color=look["color"], linestyle=look["linestyle"], lw=2)
        ax.plot([x[0], x[-1]], [y[0], y[-1]], look["marker"], color=look["color"], ms=6)
        side = {"FP32": (-4, -14, "right"), "BF16": (-4, 6, "right"), "FP16": (5, -3, "left"), "E4M3": (5, -3, "left")}
        dx, dy, where = side[f.name]
        ax.annotate(
            f.name,
            (x[-1], y[-1]),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=where,
            color=look["color"],
            weight="bold",
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(1.5e-8, 2.5)
    ax.set_xlabel("grandeur du nombre (échelle logarithmique)")
    ax.set_ylabel("écart relatif au voisin")
    for axis in (ax.xaxis, ax.yaxis):  # toutes les graduations de la même façon, les petites comme les grandes
        axis.set_major_formatter(lambda v, _: power_of_ten(v, 1))
    ends = " ; ".join(
        f"{f.name} de {number(f.smallest_subnormal, 3)} à {number(f.largest, 3)}, écart {number(f.spacing(1.0), 2)}"
        for f in FORMATS.values()
    )
    show(
        fig,
        alt=f"Quatre lignes horizontales, une par format, qui remontent à gauche dans les sous-normaux : {ends}. "
        f"La bande des poids de Colibri va de {number(low, 2)} à {number(high, 2)}.",
    )


def number_rulers(read: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Tous les nombres d'E4M3 sur deux règles, et combien de motifs sont lus comme par torch.

    read : format (E4M3, FP16) → qui (« vous », « torch ») → valeurs (motifs,).
    """
    finite = sorted({v for v in read["E4M3"]["vous"].tolist() if math.isfinite(v)})
    positive = [v for v in finite if v > 0]
    fig, axes = canvas(8.4, 2.6, rows=2)
    for ax, limit in zip(axes, (448.0, 0.25), strict=True):
        inside = [v for v in finite if abs(v) <= limit]
        ax.vlines(inside, 0, 1, color=BLUE, lw=0.8)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlim(-limit * 1.02, limit * 1.02)
        ax.set_title(f"de −{number(limit)} à {number(limit)} : {len(inside)} nombres", fontsize=9, loc="left")
        french(ax, y=False)
    axes[-1].set_xlabel("valeur")
    show(
        fig,
        alt=f"Deux règles graduées par les {len(finite)} nombres finis d'E4M3, serrés près de zéro, espacés au bord ; "
        f"le plus petit positif est {number(positive[0])}, le plus grand {number(positive[-1])}.",
    )
    told = [
        f"{number(sum(map(_same, both['vous'].tolist(), both['torch'].tolist())))} motifs de {name} sur "
        f"{number(len(both['vous']))}"
        for name, both in read.items()
    ]
    near = sum(1 for v in finite if abs(v) <= 1)
    note(
        f"{' et '.join(told)} sont lus comme par torch. "
        f"{near} des {len(finite)} nombres finis d'E4M3 tiennent dans [−1, 1]."
    )


def _same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


# --- Ce que 16 bits font à Colibri --------------------------------------------------------------------------------


def census_table(found: Mapping[str, Mapping[str, float]]) -> None:
    """Ce que 16 bits font à chaque espèce de valeurs : espèce → la plus grande, des parts, des erreurs médianes."""
    shares = ("débordent", "annulées", "sous-normales", "erreur FP16", "erreur BF16")
    table(
        [[kind, row["plus grande"], *(percent(row[name]) for name in shares)] for kind, row in found.items()],
        header=[
            "valeurs (non nulles)",
            "plus grande",
            "débordent en FP16",
            "annulées par FP16",
            "sous-normales en FP16",
            "erreur relative FP16",
            "erreur relative BF16",
        ],
        caption="Ce que 16 bits font aux valeurs de Colibri (erreurs relatives médianes)",
    )
    ceiling = FORMATS["FP16"].largest
    over = [f"{percent(row['débordent'])} des {kind}" for kind, row in found.items() if row["débordent"]]
    nearest = max(found, key=lambda kind: found[kind]["plus grande"])
    above = f"Au-delà de {number(ceiling, 5)}, FP16 déborde : {', '.join(over)}"
    below = (
        f"Rien ne déborde en FP16 ; au plus près du plafond, {nearest}, "
        f"{number(ceiling / found[nearest]['plus grande'], 2)} fois dessous"
    )
    lost = max(found, key=lambda kind: found[kind]["annulées"])
    zeroed = found[lost]["annulées"]
    note(f"{above if over else below}. " + (f"FP16 annule {percent(zeroed)} des {lost}." if zeroed else ""))


def magnitudes(values: dict[str, Tensor], names: tuple[str, ...]) -> None:
    """Histogrammes de la grandeur des valeurs, sur l'étendue de FP16."""
    f = FORMATS["FP16"]
    fig, ax = canvas(8.4, 3.6)
    for name, look in zip(names, SERIES, strict=False):
        logs = for_float64(values[name]).abs().double().log2()
        heights, edges = torch.histogram(logs.float().cpu(), bins=90, range=(-50.0, 20.0))
        share = 100 * heights / heights.sum()
        centres = 2.0 ** ((edges[:-1] + edges[1:]) / 2)
        ax.plot(centres, share, color=look["color"], linestyle=look["linestyle"], lw=2, label=name)
        ax.fill_between(centres, share, color=look["color"], alpha=0.12)
    marks = {
        "plus petit\nsous-normal": f.smallest_subnormal,
        "plus petit\nnormal": f.smallest_normal,
        "plus grand": f.largest,
    }
    top = ax.get_ylim()[1]
    ax.axvspan(2.0**-50, f.smallest_subnormal / 2, color="#999999", alpha=0.25, lw=0)
    for label, x in marks.items():
        ax.axvline(x, color=BLACK, lw=1, linestyle=":")
        ax.annotate(label, (x, top), xytext=(3, -2), textcoords="offset points", va="top", fontsize=8)
    ax.annotate("FP16 écrit 0", (2.0**-40, top * 0.5), ha="center", fontsize=9)
    ax.set_xscale("log")
    ax.set_xlabel("grandeur |x| (échelle logarithmique ; repères : FP16)")
    ax.set_ylabel("part des valeurs (%)")
    ax.legend(loc="upper left", fontsize=9, frameon=False)
    french(ax)
    medians = " ; ".join(f"{n}, médiane {number(values[n].abs().median().item(), 2)}" for n in names)
    show(
        fig,
        alt=f"Histogrammes en grandeur : {medians}. Repères de FP16 : {number(f.smallest_subnormal, 2)}, "
        f"{number(f.smallest_normal, 2)} et {number(f.largest, 5)}. La zone grise à gauche est arrondie à zéro.",
    )


def to_e4m3(x: Tensor, scaled: bool = False) -> Tensor:
    """x arrondi à E4M3, borné à ±448 ; scaled : étiré d'abord pour que son plus grand élément tombe sur 448."""
    limit = FORMATS["E4M3"].largest
    factor = x.abs().max().clamp(min=1e-30) / limit if scaled else torch.ones((), device=x.device)
    return (x / factor).clamp(-limit, limit).to(torch.float8_e4m3fn).float() * factor


def formats_losses(measured: Mapping[str, Any]) -> None:
    """Perplexité de Colibri dans chaque format, et son rapport à FP32.

    measured : « jetons » de l'extrait, et « pertes » : format → pertes, part à part.
    """
    found = measured["pertes"]
    table(
        [
            [
                name,
                number(perplexity_of(losses), 5),
                paired(losses, found["FP32"]).as_ratio() if name != "FP32" else "—",
            ]
            for name, losses in found.items()
        ],
        header=["format", "perplexité", "rapport à FP32 [intervalle à 95 %]"],
        caption=f"Poids et activations arrondis, produits en FP32 ; {number(measured['jetons'])} jetons",
    )
