"""Comparer une réponse à la référence : le jugement d'un cas.

Sert à `check` (cas visibles) et à la correction (cas cachés, du côté sûr). Ce qui est comparé peut venir d'un
processus qui ment : rien ici ne lève d'exception à cause de données étranges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from atelier.judging.exercise import EXACT, Tolerance
from atelier.judging.writing import (
    both,
    conversion,
    describe,
    dtype_name,
    format_pair,
    format_shape,
    numbers,
    type_name,
)
from atelier.text import NBSP, NEWLINE, THIN, number

Outcome = Mapping[str, Any]
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Verdict:
    """Jugement d'un cas.

    kind : ok, todo, raised, not_raised, wrong_error, untransportable, in_place, type, shape, dtype, value, timeout.
    """

    ok: bool
    kind: str
    message: str = ""


@dataclass(frozen=True)
class CaseResult:
    """Un cas jugé. wrong : ce que chaque idée fausse connue y aurait répondu (None : on ne le sait pas)."""

    group: str
    inputs: Mapping[str, Any]
    expected: Outcome
    got: Outcome
    verdict: Verdict
    wrong: Mapping[str, Outcome | None] = field(default_factory=dict)


OK = Verdict(True, "ok")


def compare(expected: Outcome, got: Outcome, inputs: Mapping[str, Any], tolerance: Tolerance = EXACT) -> Verdict:
    """Juge le résultat `got` d'un cas face à celui de la référence. Formes et types d'abord, puis valeurs."""
    try:
        return _compare(expected, got, inputs, tolerance)
    except MemoryError:  # ce n'est pas dire que la réponse est fausse
        raise
    except Exception as error:  # `got` peut venir d'un processus qui ment
        return Verdict(False, "untransportable", f"réponse illisible ({type(error).__name__})")


def _compare(expected: Outcome, got: Outcome, inputs: Mapping[str, Any], tolerance: Tolerance) -> Verdict:
    status = got.get("status")
    if status == "todo":
        return Verdict(False, "todo", str(got.get("message", "")))
    if status == "timeout":
        return Verdict(False, "timeout", "pas de réponse dans le temps imparti")
    if status == "untransportable":
        return _not_data(expected, got)
    if status not in ("value", "raised"):
        raise ValueError(status)
    if expected["status"] == "raised":
        if status == "value":
            message = both(f"une erreur {expected['error']}", describe(got.get("value")))
            return Verdict(False, "not_raised", message)
        if expected["error"] in got["mro"]:
            return OK
        message = both(f"une erreur {expected['error']}", f"{got['error']} ({_first_line(got)})")
        return Verdict(False, "wrong_error", message)
    if status == "raised":
        where = f"\n{got['where']}" if got.get("where") else ""
        return Verdict(False, "raised", f"votre code s'arrête sur {got['error']}{NBSP}: {_first_line(got)}{where}")
    pairs = list(leaves(expected["value"], got["value"]))
    present = [pair for pair in pairs if not isinstance(pair[2], _Missing)]
    for place, a, b in present:
        if problem := structure_gap(a, b):
            kind, text = problem
            return Verdict(False, kind, _at(place) + text)
    for place, a, b in present:
        if text := value_gap(a, b, tolerance):
            return Verdict(False, "value", _at(place) + text)
    for place, a, b in pairs:  # une mesure manque souvent à cause d'une autre, fausse, qu'il valait mieux montrer
        if isinstance(b, _Missing):
            return Verdict(False, "type", _at(place) + both(type_name(a), "rien"))
    if damaged := [name for name in inputs if name in got.get("modified", ())]:
        return Verdict(False, "in_place", f"votre fonction a modifié {', '.join(damaged)}, qui ne lui appartient pas")
    return OK


def _not_data(expected: Outcome, got: Outcome) -> Verdict:
    """Ce qui est rendu n'est pas une donnée : ce que c'est, ce qu'on attendait à cet endroit, comment l'obtenir."""
    message = str(got.get("message", ""))
    if "place" not in got:
        return Verdict(False, "untransportable", message)
    if expected["status"] == "raised":
        return Verdict(False, "not_raised", f"{message}{THIN}; on attend une erreur {expected['error']}")
    place, found = str(got["place"]), dict(_nodes(expected["value"]))
    wanted = found.get(place, expected["value"])
    advice = f"{NBSP}: {conversion(wanted)}" if place in found and wanted is not None else ""
    where = f" ({place})" if place else ""
    return Verdict(False, "untransportable", f"{message}{where}{THIN}; on attend {type_name(wanted)}{advice}")


def _nodes(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Tous les nœuds d'un arbre, feuilles et autres, avec leur place écrite comme par `leaves`."""
    yield place, value
    if isinstance(value, (list, tuple)):
        for i, v in enumerate(value):
            yield from _nodes(v, f"{place or 'résultat'}[{i}]")
    elif isinstance(value, dict):
        for key, v in value.items():
            yield from _nodes(v, f"{place} → {key}" if place else str(key))


def _first_line(got: Outcome) -> str:
    return (str(got.get("message", "")).splitlines() or [""])[0].partition(NEWLINE)[0][:200]


def _at(place: str) -> str:
    return f"{place}{NBSP}: " if place else ""


class _Missing:
    """Marque une valeur absente."""


def leaves(a: Any, b: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Feuilles appariées de deux arbres ; s'arrête là où leur structure diffère et rend ce nœud entier."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from leaves(x, y, f"{place or 'résultat'}[{i}]")
    elif isinstance(a, dict) and isinstance(b, dict) and b.keys() <= a.keys():
        for key in a:
            where = f"{place} → {key}" if place else str(key)
            if key in b:
                yield from leaves(a[key], b[key], where)
            else:
                yield where, a[key], _Missing()
    else:
        yield place, a, b


def structure_gap(a: Any, b: Any) -> tuple[str, str] | None:
    """Différence de type, de forme ou de type d'éléments : (genre, texte), ou None."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor):
            return "type", both(type_name(a), type_name(b))
        if a.shape != b.shape:
            return "shape", both(f"un tenseur de forme {format_shape(a.shape)}", f"de forme {format_shape(b.shape)}")
        if a.dtype != b.dtype:
            return "dtype", both(f"un tenseur {dtype_name(a.dtype)}", dtype_name(b.dtype))
        return None
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return "shape", both(f"{len(a)} élément{'s' * (len(a) > 1)}", f"{len(b)}")
    if isinstance(a, dict) and isinstance(b, dict):
        extra = ", ".join(sorted(describe(k) for k in b.keys() - a.keys())[:5])
        missing = ", ".join(sorted(describe(k) for k in a.keys() - b.keys())[:5])
        return "shape", " ; ".join(
            f"{n}{NBSP}: {names}" for n, names in (("noms en trop", extra), ("noms absents", missing)) if names
        )
    if type(a) is type(b) or (type(a) is float and type(b) is int):
        return None
    return "type", both(_described_type(a), _described_type(b))


def _described_type(value: Any) -> str:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return f"{type_name(value)} ({describe(value)})"
    return type_name(value)


def same_number(a: Any, b: Any, tolerance: Tolerance) -> bool:
    """Deux nombres Python : a attendu, b obtenu."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if abs(b) > 1e308:  # couvre l'infini et les entiers qui ne tiennent pas dans un flottant
        return a == b
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    if math.isinf(a):
        return False
    if tolerance.signed_zero and a == 0 and b == 0:
        return math.copysign(1, a) == math.copysign(1, b)
    return abs(a - b) <= tolerance.atol + tolerance.rtol * abs(a)


def different(a: torch.Tensor, b: torch.Tensor, tolerance: Tolerance) -> torch.Tensor:
    """Masque des éléments qui diffèrent ; mêmes formes supposées, types quelconques."""
    if not a.dtype.is_floating_point and not b.dtype.is_floating_point:
        return a.to(torch.int64) != b.to(torch.int64)
    rtol = max(tolerance.rtol, tolerance.half_rtol) if a.dtype in HALF else tolerance.rtol
    x, y = a.detach().to(torch.float64), b.detach().to(torch.float64)
    near = (x - y).abs() <= tolerance.atol + rtol * x.abs()
    both_finite = x.isfinite() & y.isfinite()
    return ~torch.where(both_finite, near, (x == y) | (x.isnan() & y.isnan()))


def value_gap(a: Any, b: Any, tolerance: Tolerance) -> str:
    """Différence de valeur entre deux feuilles de même structure ; texte vide si elles s'accordent."""
    if isinstance(a, torch.Tensor):
        if a.dtype == b.dtype and torch.equal(a, b):  # le cas ordinaire, dix fois plus vite
            return ""
        wrong = different(a, b, tolerance)
        count = int(wrong.sum())
        if not count:
            return ""
        index = tuple(int(i) for i in torch.nonzero(wrong)[0])
        x, y = format_pair(numbers(a)[index].item(), numbers(b)[index].item())
        if not index:
            return both(x, y)
        where = f"à l'indice {index if len(index) > 1 else index[0]}{NBSP}: "
        many = f"\n({number(count)} valeurs sur {number(a.numel())} diffèrent)" if count > 1 else ""
        return both(x, y, where) + many
    if a is None or isinstance(a, (bool, str)):
        return "" if a == b else both(describe(a), describe(b))
    if isinstance(a, (list, tuple, dict)):
        return ""
    return "" if same_number(a, b, tolerance) else both(*format_pair(a, b))


def unchanged(before: Any, after: Any) -> bool:
    """Égalité exacte, types et formes compris (nan égale nan) ; faux devant ce qui ne se compare pas."""
    try:
        return all(structure_gap(x, y) is None and not value_gap(x, y, EXACT_HALF) for _, x, y in leaves(before, after))
    except Exception:  # `after` est passé entre les mains de l'étudiant
        return False


EXACT_HALF = replace(EXACT, half_rtol=0.0)
