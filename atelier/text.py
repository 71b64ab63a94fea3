"""Le texte que l'on montre : celui qui vient d'ailleurs, rendu lisible ; le nôtre, composé à la française."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

NBSP, THIN = "\u00a0", "\u202f"
"""Les espaces insécables : la large (unités, « : », guillemets), la fine (milliers, « ; », « ? », « ! »)."""
NEWLINE = " ⏎ "
"""Ce qui remplace un retour à la ligne : un texte montré n'écrit jamais de ligne à lui."""
_SPACES = frozenset("\u00a0\u202f\u2009")
_BREAKS = re.compile("\r\n|[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Lettres et marques qu'Unicode dit imprimables et qui ne se voient pas."""
MAX_MARKS = 3
"""Accents empilés sur une même lettre ; au-delà, ils débordent sur les lignes voisines."""


def legible(text: str, limit: int | None = None) -> str:
    """Le texte, coupé à `limit`, sur une seule ligne, sans ce qui efface, colore, retourne, cache ou déborde.

    Une copie ne met ainsi pas en scène son propre retour, ni un nom de fichier le terminal de qui corrige.
    """
    text = text if limit is None else text[:limit]
    if text.isascii() and text.isprintable():
        return text
    text = _INVISIBLE.sub("", _BREAKS.sub(NEWLINE, text).replace("\t", " "))
    kept, marks = [], 0
    for c in text:
        marks = marks + 1 if unicodedata.combining(c) else 0
        if marks <= MAX_MARKS:
            kept.append(c if c.isprintable() or c in _SPACES else "\ufffd")
    return "".join(kept)


# --- La typographie ---------------------------------------------------------------------------------------------------

_VERBATIM = re.compile(
    r"^ *(`{3,}|~{3,}).*?^ *\1`*[ \t]*$"  # bloc de code
    r"|(`+)(?!`).+?(?<!`)\2(?!`)"  # code dans la phrase
    r"|\$\$.+?\$\$|\$(?:[^$\n]|\n(?!\n))+\$"  # formule
    r"|^ *\|[ :|-]+\|? *$"  # ligne de tirets d'un tableau
    r"|https?://\S+",
    re.MULTILINE | re.DOTALL,
)
"""Ce qui n'est pas de la prose, dans un texte Markdown."""
_CODE = "\ufffc"
"""Tient la place du code ou de la formule au bord d'un morceau de prose."""
_THIN = re.compile(r"(?<=\S)[ \u00a0](?=[;?]|!(?![\[=]))|(?<=\d) (?=\d{3}(?!\d))")
_UNITS = r"%|(?:bits?|octets?|dB|ko|Mo|Go|To|ms|µs|millions?|milliards?)\b"
_WIDE = re.compile(rf"(?<=\S) (?=:(?!-)|»)|(?<=«) (?=\S)|(?<=\d) (?={_UNITS})|(?<=§) (?=\d)")


def typeset(text: str) -> str:
    """Le texte Markdown, ses espaces insécables mises : devant « : ; ? ! », les unités, dans les guillemets et les
    milliers.

    Le code, les formules et les adresses restent tels quels ; un texte déjà composé ne change plus.
    """
    pieces, end = [], 0
    for kept in _VERBATIM.finditer(text):
        pieces += [_spaced(text[end : kept.start()], end > 0, True), kept[0]]
        end = kept.end()
    return "".join(pieces) + _spaced(text[end:], end > 0, False)


def prose(text: str) -> str:
    """Le texte Markdown, où un signe tient la place de chaque code, formule ou adresse ; autant de lignes qu'avant."""
    return _VERBATIM.sub(lambda kept: _CODE + "\n" * kept[0].count("\n"), text)


def _spaced(prose: str, after_code: bool, before_code: bool) -> str:
    """`prose`, composée : un signe tient au code qui le précède, un guillemet à celui qui le suit."""
    left, right = _CODE * after_code, _CODE * before_code
    found = _WIDE.sub("\u00a0", _THIN.sub("\u202f", left + prose + right))
    return found[len(left) : len(found) - len(right)]


# --- Les nombres ------------------------------------------------------------------------------------------------------

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_FRENCH = str.maketrans({",": THIN, ".": ",", "-": "−"})
_FLAT = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_POWER = re.compile("(?:(?P<mantissa>.+)·|(?P<sign>-?))10(?P<power>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_HUGE_BITS = 200
"""Un entier plus long ne se lit plus, et s'écrit en un temps carré : on dit sa longueur."""


class Written(str):
    """Un nombre écrit, qui se souvient de ce qu'il vaut : une colonne le récrit avec les décimales de ses voisins."""

    value: float
    digits: int
    decimals: int | None
    unit: str
    before: str
    signed: bool


def number(
    value: Any, digits: int = 4, *, decimals: int | None = None, unit: str = "", before: str = "", signed: bool = False
) -> str:
    """Un nombre à la française : « 12 345,6 », « −0,5 », « 3,14·10²³ ».

    - Virgule décimale, milliers séparés par une espace fine ; ce qui n'est pas un nombre est rendu tel quel.
    - digits : chiffres significatifs d'un flottant, sans zéros superflus. Sa partie entière est toujours écrite en
      entier ; à partir de 10⁹ et sous 10⁻³, il s'écrit avec une puissance de dix. Un entier est écrit en entier.
    - decimals : autant de décimales, zéros compris, à la place de chiffres significatifs.
    - unit, before : ce qui suit (« % », « Mo ») et ce qui précède (« × »), après une espace insécable.
    - Le signe vient du nombre : « − » (U+2212) s'il est négatif, « + » s'il est positif et que `signed` est vrai.
      Arrondi à zéro par `decimals`, il n'en a plus.
    """
    if getattr(value, "ndim", None) == 0:  # un scalaire de torch ou de numpy
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    value = int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, int) and value.bit_length() > _HUGE_BITS:
        return f"un entier de {value.bit_length()} bits"
    text = _plain(value, digits, decimals)
    if signed and value > 0 and text.strip("0,"):
        text = "+" + text
    written = Written(f"{before}{NBSP}" * bool(before) + text + f"{NBSP}{unit}" * bool(unit))
    written.value, written.digits, written.decimals = value, digits, decimals
    written.unit, written.before, written.signed = unit, before, signed
    return written


def _plain(value: float, digits: int, decimals: int | None) -> str:
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if decimals is None and _is_extreme(value):
        return power_of_ten(value, digits)
    shown = _decimals(value, digits) if decimals is None else decimals
    text = f"{Decimal(value):,.{shown}f}"
    if decimals is not None and not text.strip("-0.,"):
        text = text.removeprefix("-")
    return text.translate(_FRENCH)


def _is_extreme(value: float) -> bool:
    """Vrai pour un flottant qui s'écrit avec une puissance de dix."""
    return isinstance(value, float) and value != 0 and not 1e-3 <= abs(value) < 1e9


def _decimals(value: float, digits: int) -> int:
    """Les décimales d'un nombre écrit avec `digits` chiffres significatifs, sans zéros superflus."""
    if isinstance(value, int):
        return 0
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return max(0, _fraction(mantissa) - int(exponent))


def _fraction(mantissa: str) -> int:
    return len(mantissa.partition(".")[2].rstrip("0"))


def power_of_ten(value: float, digits: int = 4, decimals: int | None = None) -> str:
    """« 3,14·10²³ », « −10⁻⁵ » : une mantisse de 1 ne s'écrit pas, sauf avec les `decimals` qu'on lui donne."""
    mantissa, exponent = f"{value:.{digits - 1 if decimals is None else decimals}e}".split("e")
    if decimals is None and "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    factor = mantissa.translate(_FRENCH) + "·" if mantissa not in ("1", "-1") else mantissa[:-1].translate(_FRENCH)
    return f"{factor}10{superscript(int(exponent))}"


def graduation(value: float) -> str:
    """« 0,05 », « 1 000 », ou, plus tôt que dans une phrase, une puissance de dix."""
    return number(float(value), 5) if value == 0 or 1e-3 <= abs(value) < 1e5 else power_of_ten(value, 2)


def superscript(n: int) -> str:
    """Un exposant : −14 donne « ⁻¹⁴ »."""
    return str(n).translate(_SUPERSCRIPTS)


def percent(share: float, digits: int = 2, *, decimals: int | None = None, signed: bool = False) -> str:
    """Une part en pour cent, sans jamais arrondir à zéro ce qui ne l'est pas (à moins que `decimals` ne le demande)."""
    if decimals is None and 0 < abs(share) < 1e-5:
        return f"{'<' if share > 0 else '>'}{NBSP}{number(math.copysign(1e-3, share), unit='%')}"
    return number(100 * share, digits, decimals=decimals, unit="%", signed=signed)


def scaled(value: float, units: Mapping[str, float], digits: int = 3) -> str:
    """Une grandeur dans la plus grande unité qui y tient. units : nom → valeur, de la plus grande à la plus petite."""
    unit = next((u for u, worth in units.items() if abs(value) >= worth), list(units)[-1])
    return number(value / units[unit], digits, unit=unit)


def setting(value: float) -> str:
    """Un réglage, toujours sans puissance de dix : « 0,0005 », « 30 ».

    Un texte, non un nombre : dans une colonne, un taux et une constante ne partagent pas leurs décimales.
    """
    return str(number(value, decimals=next(d for d in range(12) if round(value, d) == value)))


def byte_size(n_bytes: float, digits: int = 3) -> str:
    """« 512 octets », « 13,2 ko », « 2,83 Mo » : un ko fait 1 000 octets."""
    return scaled(n_bytes, {"To": 1e12, "Go": 1e9, "Mo": 1e6, "ko": 1e3, "octets": 1}, digits)


def interval(low: float, high: float, digits: int = 4) -> str:
    """« 34,80 à 35,03 »."""
    return " à ".join(column([number(v, digits) for v in (low, high)])[0])


def spread(values: Sequence[float], digits: int = 4, *, unit: str = "", middle: float | None = None) -> str:
    """La moyenne (ou `middle`) et l'étendue, aux mêmes décimales : « 35,03 (34,80 à 35,20) »."""
    center = sum(values) / len(values) if middle is None else middle
    if len(values) == 1:
        return number(center, digits, unit=unit)
    shown, _ = column([number(v, digits) for v in (center, min(values), max(values))])
    return f"{shown[0]}{NBSP * bool(unit)}{unit} ({shown[1]} à {shown[2]})"


def plural(n: float, one: str, many: str = "") -> str:
    """« 1 copie », « 12 copies », « 1,5 point » : le pluriel commence à deux. many : `one` + « s », sinon."""
    return f"{number(n, 12)} {(many or one + 's') if abs(n) >= 2 else one}"


def long_date(day: date | str) -> str:
    """« 1er décembre 2026 ». day : une date, ou son écriture ISO."""
    day = date.fromisoformat(day) if isinstance(day, str) else day
    months = "janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split()
    return f"{day.day}{'er' if day.day == 1 else ''} {months[day.month - 1]} {day.year}"


def read_number(text: str) -> float:
    """Le nombre qu'une personne a écrit, à virgule ou à point, ou que `number` a écrit.

    Lève `ValueError` si ce n'en est pas un.
    """
    plain = re.sub(r"\s", "", text).replace(",", ".").replace("−", "-")
    if found := _POWER.fullmatch(plain):
        plain = f"{found['mantissa'] or found['sign'] + '1'}e{found['power'].translate(_FLAT)}"
    return float(plain)


# --- Les tableaux -----------------------------------------------------------------------------------------------------


def column(cells: Sequence[Any]) -> tuple[list[str], bool]:
    """Les cellules d'une colonne, écrites, et si elle s'aligne à droite : quand la plupart sont des nombres.

    Les nombres d'une même unité partagent leurs décimales (« 80,0 » à côté de « 79,6 »), à moins que du plus petit au
    plus grand il n'y ait trop loin ; si tous ont une puissance de dix, leurs mantisses les partagent. Des unités
    différentes font une colonne de grandeurs différentes : chacune reste écrite comme elle l'est. None est un tiret.
    """
    written = ["—" if c is None else c if isinstance(c, str) else number(c) for c in cells]
    found = [c for c in written if isinstance(c, Written)]
    if len({(c.unit, c.before) for c in found}) == 1:
        finite = [c for c in found if math.isfinite(c.value)]
        if finite and all(_is_extreme(c.value) or not c.value for c in finite) and any(c.value for c in finite):
            shared = max(_fraction(f"{c.value:.{c.digits - 1}e}".split("e")[0]) for c in finite)
            written = [_with_mantissa(c, shared) for c in written]
        elif finite and (decimals := _shared_decimals(finite)) is not None:
            written = [_with_decimals(c, decimals) for c in written]
    filled = [c for c in written if c not in ("", "—", "–")]
    return written, bool(found) and 2 * len(found) > len(filled)


def _shared_decimals(found: Sequence[Written]) -> int | None:
    """Les décimales de la colonne ; None si le plus grand aurait trop de chiffres, ou le plus petit pas assez."""
    needed = max(_decimals(c.value, c.digits) if c.decimals is None else c.decimals for c in found)
    sizes = [abs(c.value) for c in found if c.value]
    if not sizes or any(c.decimals is not None for c in found):
        return needed
    if any(_is_extreme(c.value) and abs(c.value) > 1 for c in found):
        return None
    digits = max(c.digits for c in found)
    room = max(0, digits + 2 - len(str(round(max(sizes)))))
    if needed <= room:
        return needed
    return room if room + math.floor(math.log10(min(sizes))) + 1 >= digits - 1 else None


def _with_decimals(cell: str, decimals: int) -> str:
    if not isinstance(cell, Written):
        return cell
    return number(cell.value, decimals=decimals, unit=cell.unit, before=cell.before, signed=cell.signed)


def _with_mantissa(cell: str, decimals: int) -> str:
    if not isinstance(cell, Written) or not cell.value or not math.isfinite(cell.value):
        return cell
    natural = _plain(cell.value, cell.digits, cell.decimals)
    return cell.replace(natural, power_of_ten(cell.value, decimals=decimals))


Columns = list[tuple[list[str], bool]]
"""Les colonnes d'un tableau, comme `column` les rend."""


def columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Columns:
    """Les colonnes de ces lignes, écrites ; vides, mais toutes là, s'il n'y a pas de ligne."""
    return [column(cells) for cells in zip(*rows, strict=True)] or [([], False) for _ in header]


def grid(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Un tableau de texte, en lignes : en-têtes, filet, colonnes alignées."""
    return drawn(header, columns(header, rows))


def drawn(header: Sequence[str], columns: Columns) -> list[str]:
    """Le même, de colonnes déjà écrites."""
    lines = []
    for title, (cells, right) in zip(header, columns, strict=True):
        width = max(map(len, [title, *cells]))
        lines.append([c.rjust(width) if right else c.ljust(width) for c in (title, "─" * width, *cells)])
    return ["  ".join(line).rstrip() for line in zip(*lines, strict=True)]
