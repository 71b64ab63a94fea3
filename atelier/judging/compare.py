"""Comparer une réponse à la référence, et reconnaître l'idée fausse derrière une réponse fausse.

Sert à `check` (cas visibles) et à la correction (cas cachés, du côté sûr). Ce qui est comparé peut venir d'un
processus qui ment : rien ici ne lève d'exception à cause de données étranges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from atelier.judging.exercise import EXACT, Tolerance
from atelier.text import NEWLINE, legible

Outcome = Mapping[str, Any]
NBSP, THIN = "\u00a0", "\u202f"
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


@dataclass(frozen=True)
class Diagnosis:
    """L'erreur reconnue, et la phrase qui désigne la pensée à revoir."""

    name: str
    sentence: str


OK = Verdict(True, "ok")


# --- Écrire les valeurs ----------------------------------------------------------------------------------------------


def format_number(value: Any, digits: int = 4) -> str:
    """Nombre à la française : virgule décimale, milliers séparés par une espace fine insécable."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        if value.bit_length() > 200:
            return f"un entier de {value.bit_length()} bits"
        return _sign(f"{value:,}".replace(",", THIN))
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "−inf"
    text = f"{value:.{digits}g}"
    mantissa, mark, exponent = text.partition("e")
    mantissa = mantissa.replace(".", ",")
    return _sign(f"{mantissa}·10^{int(exponent)}" if mark else mantissa)


def _sign(text: str) -> str:
    return text.replace("-", "−")


def format_pair(expected: Any, got: Any) -> tuple[str, str]:
    """Les deux nombres, avec assez de chiffres pour qu'on les voie différer."""
    for digits in (4, 6, 9, 12, 17):
        pair = format_number(expected, digits), format_number(got, digits)
        if pair[0] != pair[1]:
            return pair
    if type(expected) is not type(got):
        return f"{pair[0]} ({_type_name(expected)})", f"{pair[1]} ({_type_name(got)})"
    return pair


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def format_shape(shape: Sequence[int]) -> str:
    if len(shape) > SHAPE_MAX:
        return f"({', '.join(map(str, shape[:SHAPE_MAX]))}, …) ({len(shape)} dimensions)"
    return str(tuple(shape)) if len(shape) else "() (0 dimension)"


DESCRIBED_MAX = 400
SHAPE_MAX = 8


def describe(value: Any, limit: int = 6) -> str:
    """Une valeur en quelques mots : les petits tenseurs sont écrits, les grands résumés. Toujours court et lisible."""
    text = legible(_describe(value, limit), 2 * DESCRIBED_MAX)
    return text if len(text) <= DESCRIBED_MAX else text[: DESCRIBED_MAX - 1] + "…"


def _describe(value: Any, limit: int) -> str:
    if isinstance(value, torch.Tensor):
        if value.ndim == 0:
            return f"{_tensor_text(value)} ({dtype_name(value.dtype)}, 0 dimension)"
        if value.ndim == 1 and 0 < value.numel() <= limit:
            return f"{_tensor_text(value)} ({dtype_name(value.dtype)})"
        return f"un tenseur de forme {format_shape(value.shape)}, {dtype_name(value.dtype)}"
    if isinstance(value, (list, tuple)):
        brackets = "()" if isinstance(value, tuple) else "[]"
        shown = f"{NBSP}; ".join(describe(v, limit) for v in value[:limit])
        return brackets[0] + shown + (f"{NBSP}; … {len(value)} éléments" if len(value) > limit else "") + brackets[1]
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{str(k)[:60]}{NBSP}: {describe(v, limit)}" for k, v in list(value.items())[:limit]) + "}"
        )
    if isinstance(value, str):
        return f"«{NBSP}{value if len(value) <= 60 else value[:57] + '…'}{NBSP}»"
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, float)):
        return format_number(value)
    return type(value).__name__


def _tensor_text(x: torch.Tensor) -> str:
    values = _numbers(x).tolist()
    if not isinstance(values, list):
        return format_number(values)
    return "[" + f"{NBSP}; ".join(format_number(v) for v in values) + "]"


def _numbers(x: torch.Tensor) -> torch.Tensor:
    """Valeurs comparables : booléens et entiers tels quels, tout flottant (même float8) en float64."""
    return x.detach().to(torch.float64) if x.dtype.is_floating_point else x.detach()


def _type_name(value: Any) -> str:
    names = {bool: "un booléen", int: "un entier", float: "un flottant", str: "un texte", dict: "un dictionnaire"}
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        return f"un tenseur de forme {format_shape(value.shape)}, {dtype_name(value.dtype)}"
    if isinstance(value, (list, tuple)):
        return f"une liste ou un n-uplet de {len(value)} éléments"
    return names.get(type(value), type(value).__name__)


def both(expected: str, got: str, place: str = "") -> str:
    """« attendu : …      obtenu : … », précédé de l'endroit s'il y en a un ; sur deux lignes si c'est long."""
    gap = "      " if len(expected) + len(got) < 70 else "\n"
    return f"{place}attendu{NBSP}: {expected}{gap}obtenu{NBSP}: {got}"


# --- Comparer --------------------------------------------------------------------------------------------------------


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
    pairs = list(_leaves(expected["value"], got["value"]))
    present = [pair for pair in pairs if not isinstance(pair[2], _Missing)]
    for place, a, b in present:
        if problem := _structure(a, b):
            kind, text = problem
            return Verdict(False, kind, _at(place) + text)
    for place, a, b in present:
        if text := _value(a, b, tolerance):
            return Verdict(False, "value", _at(place) + text)
    for place, a, b in pairs:  # une mesure manque souvent à cause d'une autre, fausse, qu'il valait mieux montrer
        if isinstance(b, _Missing):
            return Verdict(False, "type", _at(place) + both(_type_name(a), "rien"))
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
    advice = f"{NBSP}: {_conversion(wanted)}" if place in found and wanted is not None else ""
    where = f" ({place})" if place else ""
    return Verdict(False, "untransportable", f"{message}{where}{THIN}; on attend {_type_name(wanted)}{advice}")


def _nodes(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Tous les nœuds d'un arbre, feuilles et autres, avec leur place écrite comme par `_leaves`."""
    yield place, value
    if isinstance(value, (list, tuple)):
        for i, v in enumerate(value):
            yield from _nodes(v, f"{place or 'résultat'}[{i}]")
    elif isinstance(value, dict):
        for key, v in value.items():
            yield from _nodes(v, f"{place} → {key}" if place else str(key))


def _conversion(wanted: Any) -> str:
    """Ce qui fait d'un nombre, d'un tableau ou d'un tenseur une valeur du genre attendu."""
    if isinstance(wanted, torch.Tensor):
        return f"torch.tensor(…, dtype=torch.{dtype_name(wanted.dtype)}) en fait un"
    if isinstance(wanted, (list, tuple)):
        return "list(…) ou .tolist() en fait une"
    return f"{type(wanted).__name__}(…) en fait un"


def _first_line(got: Outcome) -> str:
    return (str(got.get("message", "")).splitlines() or [""])[0].partition(NEWLINE)[0][:200]


def _at(place: str) -> str:
    return f"{place}{NBSP}: " if place else ""


class _Missing:
    """Marque une valeur absente."""


def _leaves(a: Any, b: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Feuilles appariées de deux arbres ; s'arrête là où leur structure diffère et rend ce nœud entier."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _leaves(x, y, f"{place or 'résultat'}[{i}]")
    elif isinstance(a, dict) and isinstance(b, dict) and b.keys() <= a.keys():
        for key in a:
            where = f"{place} → {key}" if place else str(key)
            if key in b:
                yield from _leaves(a[key], b[key], where)
            else:
                yield where, a[key], _Missing()
    else:
        yield place, a, b


def _structure(a: Any, b: Any) -> tuple[str, str] | None:
    """Différence de type, de forme ou de type d'éléments : (genre, texte), ou None."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor):
            return "type", both(_type_name(a), _type_name(b))
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
        return f"{_type_name(value)} ({describe(value)})"
    return _type_name(value)


def _close(a: Any, b: Any, tolerance: Tolerance) -> bool:
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


def _different(a: torch.Tensor, b: torch.Tensor, tolerance: Tolerance) -> torch.Tensor:
    """Masque des éléments qui diffèrent ; mêmes formes supposées, types quelconques."""
    if not a.dtype.is_floating_point and not b.dtype.is_floating_point:
        return a.to(torch.int64) != b.to(torch.int64)
    rtol = max(tolerance.rtol, tolerance.half_rtol) if a.dtype in HALF else tolerance.rtol
    x, y = a.detach().to(torch.float64), b.detach().to(torch.float64)
    near = (x - y).abs() <= tolerance.atol + rtol * x.abs()
    both_finite = x.isfinite() & y.isfinite()
    return ~torch.where(both_finite, near, (x == y) | (x.isnan() & y.isnan()))


def _value(a: Any, b: Any, tolerance: Tolerance) -> str:
    """Différence de valeur entre deux feuilles de même structure ; texte vide si elles s'accordent."""
    if isinstance(a, torch.Tensor):
        if a.dtype == b.dtype and torch.equal(a, b):  # le cas ordinaire, dix fois plus vite
            return ""
        wrong = _different(a, b, tolerance)
        count = int(wrong.sum())
        if not count:
            return ""
        index = tuple(int(i) for i in torch.nonzero(wrong)[0])
        x, y = format_pair(_numbers(a)[index].item(), _numbers(b)[index].item())
        if not index:
            return both(x, y)
        where = f"à l'indice {index if len(index) > 1 else index[0]}{NBSP}: "
        many = f"\n({format_number(count)} valeurs sur {format_number(a.numel())} diffèrent)" if count > 1 else ""
        return both(x, y, where) + many
    if a is None or isinstance(a, (bool, str)):
        return "" if a == b else both(describe(a), describe(b))
    if isinstance(a, (list, tuple, dict)):
        return ""
    return "" if _close(a, b, tolerance) else both(*format_pair(a, b))


def unchanged(before: Any, after: Any) -> bool:
    """Égalité exacte, types et formes compris (nan égale nan) ; faux devant ce qui ne se compare pas."""
    try:
        return all(_structure(x, y) is None and not _value(x, y, EXACT_HALF) for _, x, y in _leaves(before, after))
    except Exception:  # `after` est passé entre les mains de l'étudiant
        return False


EXACT_HALF = replace(EXACT, half_rtol=0.0)


# --- Reconnaître une idée fausse -------------------------------------------------------------------------------------


def _scalar_view(value: Any) -> Any:
    """Oublie ce qui sépare un nombre Python d'un tenseur sans dimension : seule compte la valeur."""
    if isinstance(value, (bool, int, float)):
        return torch.tensor(float(value), dtype=torch.float64)
    return value


def _values_agree(a: Any, b: Any, tolerance: Tolerance) -> bool:
    """Mêmes valeurs et mêmes formes, sans regarder le type des nombres."""
    for _, x, y in _leaves(a, b):
        if isinstance(x, (int, float)) and isinstance(y, (int, float)):
            if not _close(x, y, tolerance):
                return False
            continue
        x, y = _scalar_view(x), _scalar_view(y)
        if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
            if x.shape != y.shape or bool(_different(x, y, tolerance).any()):
                return False
        elif isinstance(x, (list, tuple, dict)):  # nœud entier : longueurs ou clés diffèrent
            return False
        elif type(x) is not type(y) or _value(x, y, tolerance):
            return False
    return True


def _agree(wrong: Outcome | None, case: CaseResult, tolerance: Tolerance) -> bool:
    """La réponse de l'étudiant est-elle celle de cette idée fausse ?

    Le type des nombres n'entre en compte que si l'idée fausse ne se trompe que de type.
    """
    got, expected = case.got, case.expected
    if not wrong or wrong.get("status") != got.get("status"):
        return False
    if wrong["status"] == "raised":
        return wrong["error"] == got["error"]
    if wrong["status"] != "value":
        return False
    if not _values_agree(wrong["value"], got["value"], tolerance):
        return False
    if expected["status"] == "value" and _values_agree(wrong["value"], expected["value"], tolerance):
        # Les valeurs sont justes : l'idée fausse est une erreur de type, ou abîme les entrées.
        if compare(expected, wrong, case.inputs, tolerance).kind == "in_place":
            return case.verdict.kind == "in_place"
        return compare(wrong, got, case.inputs, tolerance).kind in ("ok", "in_place")
    return True


def diagnose(
    cases: Sequence[CaseResult], messages: Mapping[str, str], tolerance: Tolerance = EXACT
) -> Diagnosis | None:
    """L'idée fausse qui explique le mieux les cas ratés, ou une erreur générique reconnue par règle, ou None.

    Une idée fausse est retenue si elle donne les mêmes réponses que l'étudiant sur au moins la moitié des cas
    ratés, dont le premier (ou plus de la moitié d'entre eux). Un accord ne compte que là où elle se trompe ; elle est
    écartée si l'étudiant répond juste à plus de cas où elle se trompe qu'elle n'en explique.

    À défaut de règle générique, deux erreurs mêlées : on nomme celle qui explique seule le premier cas raté et un
    autre, si l'étudiant n'a jamais répondu juste là où elle se trompe.
    """
    try:
        failing = [c for c in cases if not c.verdict.ok]
        if not failing:
            return None
        evidence = [_Evidence(name, cases, failing, tolerance) for name in messages]
        known = _best([e for e in evidence if e.is_enough(len(failing))])
        if known:
            return Diagnosis(known, messages[known])
        if generic := _generic(cases, failing):
            return generic
        mixed = _best([e for e in evidence if e.has_first and e.explained >= 2 and not e.contradicted])
        return Diagnosis(mixed, messages[mixed]) if mixed else None
    except MemoryError:
        raise
    except Exception:  # comme `compare` : des données étranges ne font rien échouer
        return None


class _Evidence:
    """Ce que les cas disent d'une idée fausse, en ne regardant que ceux où elle se trompe."""

    def __init__(
        self, name: str, cases: Sequence[CaseResult], failing: Sequence[CaseResult], tolerance: Tolerance
    ) -> None:
        loose = replace(tolerance, rtol=max(tolerance.rtol, 1e-5), atol=max(tolerance.atol, 1e-9))
        telling = [c for c in cases if (w := c.wrong.get(name)) and not compare(c.expected, w, c.inputs, tolerance).ok]
        failed = [c for c in telling if not c.verdict.ok]
        hits = [c for c in failed if _agree(c.wrong[name], c, loose)]
        if len(hits) < len(failed):
            # Deux codes qui s'arrêtent sur la même erreur n'ont pas pour autant la même idée : une erreur commune
            # ne compte que si l'idée fausse explique aussi tout le reste.
            hits = [c for c in hits if c.got["status"] != "raised"]
        self.name = name
        self.explained = len(hits)
        self.contradicted = sum(c.verdict.ok for c in telling)
        self.has_first = bool(hits) and hits[0] is failing[0]
        self.agreements = sum(_agree(c.wrong.get(name), c, loose) for c in cases) if hits else 0

    def is_enough(self, failing: int) -> bool:
        """Explique-t-elle assez de cas ratés, sans être démentie par davantage de cas justes ?"""
        twice = 2 * self.explained
        many = twice > failing or (twice == failing and self.has_first)
        return many and self.contradicted <= self.explained


def _best(evidence: Sequence[_Evidence]) -> str:
    """Le nom de la plus probable : plus de cas ratés expliqués, puis plus d'accords, puis l'ordre de déclaration."""
    ranked = sorted(evidence, key=lambda e: (-e.explained, -e.agreements))
    return ranked[0].name if ranked else ""


GENERIC = {
    "no_return": "Votre fonction travaille peut-être, mais ne rend rien à qui l'appelle.",
    "in_place": "Votre fonction rend le bon résultat mais modifie le tenseur qu'on lui a confié\u00a0: "
    "l'appelant retrouvera ses données abîmées.",
    "dtype": "Les valeurs sont proches, mais le type du résultat n'est plus celui de l'entrée\u00a0: "
    "qui l'a changé en route\u202f?",
    "asked_dtype": "Les valeurs sont bonnes, mais le type du résultat n'est pas celui que demande l'énoncé.",
    "container": "La valeur est juste, mais pas l'objet qui la porte. L'énoncé demande {detail}.",
    "numpy": "NumPy a ses propres nombres et ses propres tableaux, qui ne sont ni des nombres Python ni des tenseurs "
    "torch\u00a0: convertissez ce que vous rendez.",
    "float_count": "Un nombre d'octets ou d'opérations est un entier exact\u00a0: "
    "un flottant perd ses derniers chiffres au-delà de 2⁵³.",
    "no_check": "L'énoncé annonce une entrée interdite\u00a0: votre fonction répond quand même, au lieu de la refuser.",
    "non_contiguous": "Votre fonction suppose que les valeurs se suivent en mémoire\u00a0: "
    "un tenseur transposé ou découpé ne le garantit pas.",
    "hardcoded": "Votre réponse ne bouge pas quand les arguments changent\u00a0: "
    "lequel d'entre eux oubliez-vous\u202f?",
    "visible_only": "Le résultat est juste pour l'exemple de l'énoncé et faux ailleurs\u00a0: "
    "lequel de vos nombres devrait venir des arguments\u202f?",
    "square_only": "Tout va bien pour une matrice carrée\u202f; essayez avec deux dimensions différentes et regardez "
    "quelle dimension vous utilisez.",
    "transposed": "Votre résultat est le transposé de celui qu'on attend\u00a0: que doit contenir une ligne\u202f?",
    "nan": "Un nan apparaît\u00a0: quelle division par zéro, quel logarithme ou quelle différence d'infinis "
    "l'a produit\u202f?",
    "opposite": "Vos valeurs ont la bonne taille et le mauvais signe\u00a0: "
    "dans quel sens se fait la différence\u202f?",
    "constant_factor": "Tous vos résultats sont {detail} fois le bon\u00a0: quel facteur manque, "
    "ou compte deux fois\u202f?",
    "off_by_one": "Il vous manque toujours une unité, ou vous en avez une de trop\u00a0: "
    "que se passe-t-il au bord de l'intervalle\u202f?",
}


def _generic(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> Diagnosis | None:
    for name, rule in _RULES.items():
        found = rule(cases, failing)
        if found:
            detail = found if isinstance(found, str) else ""
            if name == "dtype" and not all(_expects_input_dtype(c) for c in failing):
                name = "asked_dtype"
            return Diagnosis(name, GENERIC[name].format(detail=detail))
    return None


def _kinds(cases: Sequence[CaseResult]) -> set[str]:
    return {c.verdict.kind for c in cases}


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _tensors(v)
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from _tensors(v)


def _only(value: Any) -> torch.Tensor | None:
    """La valeur en un tenseur float64, si elle n'est faite que d'un nombre, d'une liste de nombres ou d'un tenseur."""
    if isinstance(value, (list, tuple)) and value and all(type(v) in (int, float) for v in value):
        value = torch.tensor([float(v) for v in value], dtype=torch.float64)
    value = _scalar_view(value)
    return value.detach().to(torch.float64) if isinstance(value, torch.Tensor) else None


SIZE_MAX = 100_000
"""Éléments d'une réponse bien plus grande que celle qu'on attend, au-delà desquels aucune règle ne l'examine."""


def _size(value: Any) -> int:
    return value.numel() if isinstance(value, torch.Tensor) else len(value) if isinstance(value, (list, tuple)) else 1


def _answers(cases: Sequence[CaseResult]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(attendu, obtenu) des cas où les deux se lisent comme un tenseur ; liste vide si un seul y échappe."""
    pairs = []
    for c in cases:
        if c.expected["status"] != "value" or c.got.get("status") != "value":
            return []
        a = _only(c.expected["value"])
        if a is None or _size(c.got["value"]) > max(2 * a.numel(), SIZE_MAX):
            return []
        b = _only(c.got["value"])
        if b is None:
            return []
        pairs.append((a, b))
    return pairs


def _expects_input_dtype(case: CaseResult) -> bool:
    given = {t.dtype for t in _tensors(case.inputs)}
    return all(t.dtype in given for t in _tensors(case.expected.get("value")))


def _no_return(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    silent = all(c.got.get("status") == "value" and c.got["value"] is None for c in failing)
    return silent and _kinds(failing) <= {"type", "not_raised"} and "type" in _kinds(failing)


def _dtype(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    close = Tolerance(rtol=0.02, atol=1e-6)
    return _kinds(failing) == {"dtype"} and all(
        _values_agree(c.expected["value"], c.got["value"], close) for c in failing
    )


_NEAR = Tolerance(rtol=1e-5, atol=1e-9)


def _float_count(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    return _kinds(failing) == {"type"} and all(
        type(c.expected["value"]) is int
        and type(c.got["value"]) is float
        and _values_agree(c.expected["value"], c.got["value"], _NEAR)
        for c in failing
    )


def _container(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> str | bool:
    """Un nombre rendu dans un tenseur, un tenseur rendu en nombre ou en liste : juste, au genre près."""
    if _kinds(failing) != {"type"}:
        return False
    pairs = [(a, b) for c in failing for _, a, b in _leaves(c.expected["value"], c.got["value"])]
    for a, b in pairs:
        x, y = _only(a), _only(b)
        same = type(a) is type(b) and isinstance(a, (bool, str)) and a == b
        if not same and (x is None or y is None or x.shape != y.shape or bool(_different(x, y, _NEAR).any())):
            return False
    other = [a for a, b in pairs if (problem := _structure(a, b)) and problem[0] == "type"]
    return f"{_type_name(other[0])}\u00a0: {_conversion(other[0])}" if other else False


def _numpy(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    return _kinds(failing) == {"untransportable"} and all("NumPy" in c.verdict.message for c in failing)


def _non_contiguous(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    def strided(case: CaseResult) -> bool:
        return any(not t.is_contiguous() for t in _tensors(case.inputs))

    return _kinds(failing) <= {"raised", "value"} and all(strided(c) == (not c.verdict.ok) for c in cases)


def _hardcoded(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    pairs = _answers([c for c in cases if c.expected["status"] == "value"])
    if len(pairs) < 3:
        return False
    first = pairs[0]
    return all(_equal(b, first[1]) for _, b in pairs) and sum(not _equal(a, first[0]) for a, _ in pairs) >= 2


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and not bool(_different(a, b, EXACT).any())


def _visible_only(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    others = [c for c in cases[1:] if c.expected["status"] == "value"]
    return cases[0].verdict.ok and len(others) >= 3 and all(c.verdict.kind == "value" for c in others)


def _square_only(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    def square(case: CaseResult) -> bool:
        return all(t.shape[-1] == t.shape[-2] for t in _tensors(case.inputs) if t.ndim >= 2)

    with_matrix = [c for c in cases if any(t.ndim >= 2 for t in _tensors(c.inputs))]
    both_sorts = {square(c) for c in with_matrix} == {True, False}
    return both_sorts and len(failing) >= 2 and all(square(c) == c.verdict.ok for c in with_matrix)


def _transposed(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    pairs = _answers(failing)
    close = Tolerance(rtol=1e-4, atol=1e-9)
    return bool(pairs) and all(
        a.ndim >= 2 and a.shape == b.mT.shape and not bool(_different(a, b.mT, close).any())
        for a, b in pairs
        if b.ndim >= 2 or a.ndim >= 2
    ) and any(b.ndim >= 2 for _, b in pairs)  # fmt: skip


def _nan(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    pairs = _answers(failing)
    return bool(pairs) and all(bool(b.isnan().any()) and not bool(a.isnan().any()) for a, b in pairs)


def _ratio(failing: Sequence[CaseResult]) -> float | None:
    """Rapport obtenu / attendu s'il est le même pour toutes les valeurs non nulles d'au moins deux cas."""
    pairs = _answers(failing)
    if len(pairs) < 2 or any(a.shape != b.shape for a, b in pairs):
        return None
    a, b = (torch.cat([p[i].flatten() for p in pairs]) for i in (0, 1))
    kept = (a != 0) | (b != 0)
    a, b = a[kept], b[kept]
    if a.numel() < 2 or not bool((a.isfinite() & b.isfinite()).all()) or bool((a == 0).any()):
        return None
    ratios = b / a
    middle = float(ratios.median())
    return middle if bool(((ratios - middle).abs() <= 1e-4 * abs(middle)).all()) and middle else None


def _opposite(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    ratio = _ratio(failing)
    return ratio is not None and abs(ratio + 1) < 1e-3


def _constant_factor(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> str | bool:
    ratio = _ratio(failing)
    if ratio is None or abs(ratio - 1) < 1e-2:
        return False
    inverse = 1 / ratio
    simple = abs(ratio) < 1 and abs(inverse - round(inverse)) < 1e-3 * abs(inverse)
    return f"1/{format_number(round(inverse))}" if simple else format_number(ratio)


def _off_by_one(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    pairs = _answers(failing)
    whole = all(
        type(c.expected["value"]) is int
        or isinstance(c.expected["value"], torch.Tensor)
        and not c.expected["value"].dtype.is_floating_point
        and c.expected["value"].dtype != torch.bool
        for c in failing
        if c.expected["status"] == "value"
    )
    if len(pairs) < 2 or not whole or any(a.shape != b.shape for a, b in pairs):
        return False
    gaps = torch.cat([(b - a).flatten() for a, b in pairs])
    gaps = gaps[gaps != 0]
    return gaps.numel() > 0 and (bool((gaps == 1).all()) or bool((gaps == -1).all()))


_RULES = {
    "no_return": _no_return,
    "in_place": lambda cases, failing: _kinds(failing) == {"in_place"},
    "dtype": _dtype,
    "float_count": _float_count,
    "container": _container,
    "numpy": _numpy,
    "no_check": lambda cases, failing: _kinds(failing) == {"not_raised"},
    "non_contiguous": _non_contiguous,
    "hardcoded": _hardcoded,
    "transposed": _transposed,
    "nan": _nan,
    "opposite": _opposite,
    "constant_factor": _constant_factor,
    "off_by_one": _off_by_one,
    "square_only": _square_only,
    "visible_only": _visible_only,
}
