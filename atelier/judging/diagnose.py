"""Reconnaître l'idée fausse derrière une réponse fausse : celles que l'exercice connaît, puis les erreurs communes.

Sert à `check` et à la correction, après `compare` ; comme lui, ne lève pas d'exception à cause de données étranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from atelier.judging.compare import (
    CaseResult,
    Outcome,
    compare,
    different,
    leaves,
    same_number,
    structure_gap,
    value_gap,
)
from atelier.judging.exercise import EXACT, Tolerance
from atelier.judging.writing import conversion, type_name
from atelier.text import number


@dataclass(frozen=True)
class Diagnosis:
    """L'erreur reconnue, et la phrase qui désigne la pensée à revoir."""

    name: str
    sentence: str


def _scalar_view(value: Any) -> Any:
    """Oublie ce qui sépare un nombre Python d'un tenseur sans dimension : seule compte la valeur."""
    if isinstance(value, (bool, int, float)):
        return torch.tensor(float(value), dtype=torch.float64)
    return value


def _values_agree(a: Any, b: Any, tolerance: Tolerance) -> bool:
    """Mêmes valeurs et mêmes formes, sans regarder le type des nombres."""
    for _, x, y in leaves(a, b):
        if isinstance(x, (int, float)) and isinstance(y, (int, float)):
            if not same_number(x, y, tolerance):
                return False
            continue
        x, y = _scalar_view(x), _scalar_view(y)
        if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
            if x.shape != y.shape or bool(different(x, y, tolerance).any()):
                return False
        elif isinstance(x, (list, tuple, dict)):  # nœud entier : longueurs ou clés diffèrent
            return False
        elif type(x) is not type(y) or value_gap(x, y, tolerance):
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
        self.name = name
        self.explained = self.contradicted = self.agreements = 0
        self.has_first = False
        hits = [c for c in failing if _agree(c.wrong.get(name), c, loose)]
        if not hits:  # le cas de presque toutes : savoir où elle se trompe ne servirait à rien
            return
        telling = [c for c in cases if (w := c.wrong.get(name)) and not compare(c.expected, w, c.inputs, tolerance).ok]
        failed = [c for c in telling if not c.verdict.ok]
        hits = [c for c in failed if any(c is hit for hit in hits)]
        if len(hits) < len(failed):
            # Deux codes qui s'arrêtent sur la même erreur n'ont pas pour autant la même idée : une erreur commune
            # ne compte que si l'idée fausse explique aussi tout le reste.
            hits = [c for c in hits if c.got["status"] != "raised"]
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
    pairs = [(a, b) for c in failing for _, a, b in leaves(c.expected["value"], c.got["value"])]
    for a, b in pairs:
        x, y = _only(a), _only(b)
        same = type(a) is type(b) and isinstance(a, (bool, str)) and a == b
        if not same and (x is None or y is None or x.shape != y.shape or bool(different(x, y, _NEAR).any())):
            return False
    other = [a for a, b in pairs if (problem := structure_gap(a, b)) and problem[0] == "type"]
    return f"{type_name(other[0])}\u00a0: {conversion(other[0])}" if other else False


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
    return a.shape == b.shape and not bool(different(a, b, EXACT).any())


def _visible_only(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    others = [c for c in cases[1:] if c.expected["status"] == "value"]
    return cases[0].verdict.ok and len(others) >= 3 and all(c.verdict.kind == "value" for c in others)


def _square_only(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    def square(case: CaseResult) -> bool:
        return all(t.shape[-1] == t.shape[-2] for t in _tensors(case.inputs) if t.ndim >= 2)

    with_matrix = [c for c in cases if any(t.ndim >= 2 for t in _tensors(c.inputs))]
    squares = sum(square(c) for c in with_matrix)  # une seule, juste, peut l'être par chance
    both_sorts = squares >= 2 and len(with_matrix) - squares >= 2
    return both_sorts and all(square(c) == c.verdict.ok for c in with_matrix)


def _transposed(cases: Sequence[CaseResult], failing: Sequence[CaseResult]) -> bool:
    pairs = _answers(failing)
    close = Tolerance(rtol=1e-4, atol=1e-9)
    return bool(pairs) and all(
        a.ndim >= 2 and a.shape == b.mT.shape and not bool(different(a, b.mT, close).any())
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
    return f"1/{number(round(inverse))}" if simple else number(ratio)


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
