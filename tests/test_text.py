"""Un seul écrivain du français : ses nombres, contre Babel et `decimal` ; ses colonnes ; personne d'autre n'écrit."""

from __future__ import annotations

import ast
import math
import pickle
import re
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from babel.dates import format_date
from babel.numbers import format_decimal
from hypothesis import given
from hypothesis import strategies as st

from atelier.text import (
    NBSP,
    THIN,
    byte_size,
    column,
    grid,
    interval,
    long_date,
    number,
    percent,
    plural,
    power_of_ten,
    read_number,
    scaled,
    spread,
    typeset,
)

ROOT = Path(__file__).resolve().parents[1]

# ── Un nombre ────────────────────────────────────────────────────────────────────────────────────────────────────────

SUPERSCRIPTS = dict(zip("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", strict=True))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ORDINARY = st.floats(1e-3, 1e9, exclude_max=True).flatmap(lambda v: st.sampled_from([v, -v])) | st.just(0.0)


def babel(exact: Decimal, pattern: str = "#,##0.#################") -> str:
    """Le nombre exact, écrit par Babel ; nous mettons le vrai signe moins."""
    return format_decimal(exact, format=pattern, locale="fr", decimal_quantization=False).replace("-", "−")


def rounded(exact: Decimal, digits: int) -> Decimal:
    """Le nombre à `digits` chiffres significatifs, sa partie entière gardée entière."""
    return exact.quantize(Decimal(1).scaleb(min(0, exact.adjusted() - digits + 1)))


@given(ORDINARY, st.integers(1, 15))
def test_a_number_is_babel_s(value: float, digits: int) -> None:
    assert number(value, digits) == babel(rounded(Decimal(value), digits))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_written_whole_is_read_back(value: float) -> None:
    assert read_number(number(value, 17)) == value


@given(st.integers(-(10**18), 10**18))
def test_an_integer_is_written_whole(value: int) -> None:
    assert number(value) == number(value, 1) == babel(Decimal(value), "#,##0")
    assert read_number(number(value)) == float(value)


@given(ORDINARY, st.integers(0, 8))
def test_decimals_are_babel_s_zeros_included(value: float, decimals: int) -> None:
    shown = Decimal(value).quantize(Decimal(1).scaleb(-decimals))
    pattern = "#,##0" + "." * bool(decimals) + "0" * decimals
    assert number(value, decimals=decimals) == babel(abs(shown) if shown == 0 else shown, pattern)


@given(FLOATS.filter(lambda v: v and not 1e-3 <= abs(v) < 1e9), st.integers(1, 15))
def test_far_from_one_a_power_of_ten(value: float, digits: int) -> None:
    exact = Decimal(value)
    power = exact.adjusted()
    mantissa = Decimal(f"{exact.scaleb(-power):.{digits - 1}f}")
    if abs(mantissa) == 10:
        mantissa, power = mantissa / 10, power + 1
    ten = "10" + "".join(SUPERSCRIPTS[c] for c in str(power))
    sign = "−" if value < 0 else ""
    assert number(value, digits) == sign + (ten if abs(mantissa) == 1 else f"{babel(abs(mantissa))}·{ten}")


@given(FLOATS)
def test_seventeen_digits_tell_every_float_apart(value: float) -> None:
    after = math.nextafter(value, math.inf)
    assert number(value, 17) != number(after, 17)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (number(0.5), "0,5"),
        (number(1234567), f"1{THIN}234{THIN}567"),
        (number(12345.6), f"12{THIN}346"),
        (number(999.96), f"1{THIN}000"),
        (number(-0.0), "−0"),
        (number(math.inf), "∞"),
        (number(-math.inf), "−∞"),
        (number(math.nan), "nan"),
        (number(True), "True"),
        (number(None), "None"),
        (number("bf16"), "bf16"),
        (number(np.float32(0.5)), "0,5"),
        (number(np.int64(12345)), f"12{THIN}345"),
        (number(Fraction(1, 8)), "0,125"),
        (number(torch.tensor(0.5)), "0,5"),
        (number(np.array(3)), "3"),
        (number(1 << 300), "un entier de 301 bits"),
        (number(-(1 << 100_000)), "un entier de 100001 bits"),
        (number(6.1e-5), "6,1·10⁻⁵"),
        (number(1e-9), "10⁻⁹"),
        (number(-1e-9), "−10⁻⁹"),
        (number(2.5, unit="Mo"), f"2,5{NBSP}Mo"),
        (number(2.5, before="×"), f"×{NBSP}2,5"),
        (number(0.26, signed=True), "+0,26"),
        (number(-0.26, signed=True), "−0,26"),
        (number(0, signed=True), "0"),
        (number(0.001, decimals=2, signed=True), "0,00"),
        (number(-0.001, decimals=2), "0,00"),
        (power_of_ten(1e5), "10⁵"),
        (power_of_ten(2e5, 2), "2·10⁵"),
        (percent(0.5), f"50{NBSP}%"),
        (percent(0.12345, 3), f"12,3{NBSP}%"),
        (percent(0.333, decimals=0), f"33{NBSP}%"),
        (percent(-0.034, signed=True), f"−3,4{NBSP}%"),
        (percent(0.26, signed=True), f"+26{NBSP}%"),
        (percent(0), f"0{NBSP}%"),
        (percent(1e-7), f"<{NBSP}0,001{NBSP}%"),
        (percent(-1e-7), f">{NBSP}−0,001{NBSP}%"),
        (byte_size(512), f"512{NBSP}octets"),
        (byte_size(346_000), f"346{NBSP}ko"),
        (byte_size(8_192_000_000), f"8,19{NBSP}Go"),
        (byte_size(2.72e12), f"2,72{NBSP}To"),
        (scaled(175e9, {"Md": 1e9, "M": 1e6}), f"175{NBSP}Md"),
        (scaled(0.5e6, {"Md": 1e9, "M": 1e6}), f"0,5{NBSP}M"),
        (plural(0, "copie"), "0 copie"),
        (plural(1, "copie"), "1 copie"),
        (plural(2, "copie"), "2 copies"),
        (plural(1.5, "point"), "1,5 point"),
        (plural(-2, "point"), "−2 points"),
        (plural(0.1 + 0.2, "point"), "0,3 point"),
        (plural(12345, "retour écrit", "retours écrits"), f"12{THIN}345 retours écrits"),
        (interval(34.8, 35.03), "34,80 à 35,03"),
        (spread([40.82, 41.0, 42.2]), "41,34 (40,82 à 42,20)"),
        (spread([88.7, 89.0], 3, unit="%"), f"88,8{NBSP}% (88,7 à 89,0)"),
        (spread([2.0, 3.0, 10.0], middle=3.0), "3 (2 à 10)"),
        (spread([41.5]), "41,5"),
    ],
)
def test_what_is_written(written: str, text: str) -> None:
    assert written == text


def test_an_already_written_number_is_already_typeset() -> None:
    for written in (number(1234567), number(3.1, unit="Mo"), percent(0.5), byte_size(1e6), number(5, unit="dB")):
        assert typeset(written) == written
        assert typeset(written.replace(NBSP, " ").replace(THIN, " ")) == written


def test_a_written_number_survives_a_process() -> None:
    there = pickle.loads(pickle.dumps(number(2.5, unit="Mo")))
    assert column([there, number(10, unit="Mo")]) == ([f"2,5{NBSP}Mo", f"10,0{NBSP}Mo"], True)


@given(st.dates())
def test_a_date_is_babel_s(day: date) -> None:
    assert long_date(day) == format_date(day, "d MMMM y", locale="fr").replace("1 ", "1er ", day.day == 1)
    assert long_date(day.isoformat()) == long_date(day)


@pytest.mark.parametrize("text", ["1,5", "1.5", f"1{THIN}500,25", "−3", "-3", " 2 ", "+4,0"])
def test_a_number_is_read_back(text: str) -> None:
    plain = text.replace(THIN, "").replace(" ", "").replace(",", ".").replace("−", "-")
    assert read_number(text) == float(plain)


# ── Une colonne, un tableau ──────────────────────────────────────────────────────────────────────────────────────────


def decimals(text: str) -> int:
    return len(text.split(NBSP)[0].partition(",")[2])


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        ([79.6, 80.0], ["79,6", "80,0"]),
        ([79.6, 80], ["79,6", "80,0"]),
        ([80, 79], ["80", "79"]),
        ([11.634, 2301.2, None], ["11,63", f"2{THIN}301,20", "—"]),
        ([percent(0.034, signed=True), percent(-0.26, signed=True)], [f"+3,4{NBSP}%", f"−26,0{NBSP}%"]),
        ([number(3, before="×"), number(2.25, before="×")], [f"×{NBSP}3,00", f"×{NBSP}2,25"]),
        ([0.5, 3.2, 1e12], ["0,5", "3,2", "10¹²"]),
        ([3.14e23, 1e12, 0.0], ["3,14·10²³", "1,00·10¹²", "0"]),
        ([math.inf, 1.5, 2.0, math.nan], ["∞", "1,5", "2,0", "nan"]),
        ([math.inf, math.nan], ["∞", "nan"]),
        ([number(5, unit="Mo"), number(2.5, unit="Go")], [f"5{NBSP}Mo", f"2,5{NBSP}Go"]),
        ([3063104, 11.63], [f"3{THIN}063{THIN}104", "11,63"]),
        ([number(1.5, decimals=2), number(1.25, 4)], ["1,50", "1,25"]),
        ([], []),
    ],
)
def test_a_column_shares_its_decimals(cells: list[object], shown: list[str]) -> None:
    assert column(cells)[0] == shown


@pytest.mark.parametrize(
    ("cells", "right"),
    [
        ([1, 2, None], True),
        ([1, "—", "hors cadre"], False),
        (["a", "b"], False),
        ([1, 2, "hors cadre"], True),
        ([], False),
    ],
)
def test_a_column_of_numbers_aligns_right(cells: list[object], right: bool) -> None:
    assert column(cells)[1] is right


@given(st.lists(ORDINARY | st.integers(-(10**12), 10**12), min_size=1, max_size=8), st.integers(2, 6))
def test_a_column_never_lies(values: list[float], digits: int) -> None:
    """Chaque nombre garde son signe, n'est à zéro que s'il l'est, et se relit à l'arrondi de ce qui est montré."""
    cells, right = column([number(v, digits) for v in values])
    assert right
    for value, cell in zip(values, cells, strict=True):
        assert (value == 0) == (not cell.strip("0,−")), (value, cell)
        assert cell.startswith("−") == (value < 0)
        assert abs(Decimal(cell_text(cell)) - Decimal(value)) <= Decimal("0.5").scaleb(-decimals(cell))


def cell_text(cell: str) -> str:
    return cell.replace(THIN, "").replace(",", ".").replace("−", "-")


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=8), st.integers(2, 5))
def test_numbers_of_one_size_share_their_decimals(values: list[float], digits: int) -> None:
    cells, _ = column([number(v, digits) for v in values])
    assert len({decimals(c) for c in cells}) == 1
    assert decimals(cells[0]) <= max(decimals(number(v, digits)) for v in values)


def test_a_grid_is_aligned() -> None:
    assert grid(["nom", "points"], [["ana", number(10.5, unit="/ 11")], ["bo", number(9, unit="/ 11")]]) == [
        "nom     points",
        "───  ─────────",
        f"ana  10,5{NBSP}/ 11",
        f"bo    9,0{NBSP}/ 11",
    ]
    assert grid(["a", "b"], []) == ["a  b", "─  ─"]


# ── Personne d'autre n'écrit ─────────────────────────────────────────────────────────────────────────────────────────

FOR_MACHINES = {
    "grader/report/moodle.py": "les feuilles de notes, que relisent Moodle et les tableurs",
    "colibri/run.py": "le journal de l'entraînement, un CSV",
}
"""Où un nombre s'écrit à la main, et pourquoi."""


def hand_written(source: str) -> list[tuple[int, str]]:
    """Ce qui écrit un nombre à la main : (ligne, code). Un nombre que `float(…)` relit n'est pas montré."""
    tree = ast.parse(source)
    read_back = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in read_back:
            continue
        if (
            (isinstance(node, ast.FormattedValue) and node.format_spec and numeric(specification(node.format_spec)))
            or (isinstance(node, ast.Call) and (swaps_a_comma(node) or formats(node)))
            or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and percent_format(node.left))
        ):
            found.append((node.lineno, ast.unparse(node)))
    return found


def specification(node: ast.expr) -> str:
    """« .0f » pour `{x:.{digits}f}`."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(str(p.value) if isinstance(p, ast.Constant) else "0" for p in parts)


def numeric(spec: str) -> bool:
    """Vrai pour « .2f », « , », « +.1f », « .0% » ; ni un alignement, ni des zéros devant, ni une base, ni une date."""
    shape = re.fullmatch(r"(.?[<>=^])?[-+ ]?[z#]*\d*([,_]?)(\.\d+)?([eEfFgGn%]?)", spec)
    return shape is not None and any(shape.groups()[1:])


def swaps_a_comma(call: ast.Call) -> bool:
    if not (isinstance(call.func, ast.Attribute) and call.func.attr == "replace" and len(call.args) == 2):
        return False
    old, new = (a.value if isinstance(a, ast.Constant) else None for a in call.args)
    return {old, new} == {".", ","} or (old == "-" and new == "−") or (old == "−" and new == "-")


def formats(call: ast.Call) -> bool:
    """format(x, ".2f") ; "{:.2f}".format(x)."""
    if isinstance(call.func, ast.Name) and call.func.id == "format" and len(call.args) == 2:
        return numeric(specification(call.args[1]))
    target = call.func.value if isinstance(call.func, ast.Attribute) and call.func.attr == "format" else None
    return isinstance(target, ast.Constant) and isinstance(target.value, str) and ":." in target.value


def percent_format(left: ast.expr) -> bool:
    return isinstance(left, ast.Constant) and isinstance(left.value, str) and "%." in left.value


def test_only_text_py_writes_numbers() -> None:
    """Hors d'atelier/text.py et des fichiers de machine, ni virgule mise à la main, ni flottant formaté."""
    said = []
    for folder in ("atelier", "grader", "colibri", "solutions"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            if place == "atelier/text.py":
                continue
            found = hand_written(path.read_text(encoding="utf-8"))
            assert (place in FOR_MACHINES) <= bool(found), f"{place} n'a plus besoin d'exception"
            if place not in FOR_MACHINES:
                said += [f"{place}, ligne {line} : {code}" for line, code in found]
    assert not said, "écrivez par atelier.text :\n" + "\n".join(said)


@pytest.mark.parametrize(
    "code",
    [
        'f"{x:.2f}"', 'f"{x:,}"', 'f"{x:+.1f} %"', 'f"{x:.0%}"', 'f"{x:.{digits}f}"', 'f"{x:>9.3g}"',
        'format(x, ".2f")', '"{:.2f}".format(x)', '"%.2f" % x', 'str(x).replace(".", ",")', "text.replace(',', '.')",
        'text.replace("-", "−")',
    ],
)  # fmt: skip
def test_what_is_written_by_hand_is_seen(code: str) -> None:
    assert hand_written(code)


@pytest.mark.parametrize(
    "code",
    [
        'f"{b:02X}"', 'f"{name:<12}"', 'f"{i:04}"', 'f"{day:%Y-%m-%d}"', 'f"{x}"', 'name.replace("-", "_")',
        'float(f"{x:.4g}")',
    ],
)  # fmt: skip
def test_what_is_not_a_shown_number_is_left(code: str) -> None:
    assert not hand_written(code)
