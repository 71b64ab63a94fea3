"""`check` : essayer une fonction sur les cas visibles d'un exercice et dire, en français, ce qui ne va pas.

Une aide, jamais la note : celle-ci se calcule sur d'autres cas, tirés à chaque correction.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from atelier import glosses, journal, packs
from atelier.display import WIDTH, wrapped
from atelier.judging import calls
from atelier.judging.compare import CaseResult, Outcome, compare
from atelier.judging.diagnose import diagnose
from atelier.judging.exercise import Tolerance, is_bonus
from atelier.judging.frames import source_line
from atelier.judging.probes import Interruption, run_case
from atelier.judging.writing import describe
from atelier.limits import time_limit
from atelier.naming import exercise_of, written
from atelier.text import number, plural

SECONDS = 5.0
"""Limite de temps d'un cas dans le carnet."""
EXTRA_SECONDS = 1.0
"""Temps accordé, après le premier cas raté, à ceux qui ne servent qu'à reconnaître l'erreur."""
MARGIN = "   "
_NOTHING = object()


class CheckFailed(Exception):
    """L'exercice ne passe pas son `check`. Le carnet n'en affiche que le message."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


CheckFailed.__module__ = "atelier"


@dataclass(frozen=True)
class _Target:
    chapter: str
    name: str
    declaration: Mapping[str, Any]

    @property
    def tolerance(self) -> Tolerance:
        return Tolerance(**self.declaration["tolerance"])


# --- De quelle fonction s'agit-il ? ----------------------------------------------------------------------------------


def _target(fn: Any) -> _Target | None:
    name = exercise_of(fn)
    found = packs.find("exercises", name) if name else []
    return _Target(found[0][0], name, found[0][1]) if name and found else None


def _refuse(fn: Any) -> CheckFailed:
    """Pourquoi `fn` n'est pas un exercice, et quoi écrire à la place."""
    if isinstance(fn, str):
        known = fn in packs.names("exercises")
        advice = f"check attend la fonction elle-même, sans guillemets\u00a0: check({fn})."
        return CheckFailed(advice if known else journal.unknown_name(fn, "exercises"))
    if not callable(fn):
        name = written()
        if name in packs.names("exercises"):
            return CheckFailed(
                f"«\u00a0{name}\u00a0» désigne maintenant {describe(fn)}, et non plus votre fonction\u00a0: exécutez à "
                f"nouveau la cellule qui définit {name}, et donnez un autre nom à votre variable."
            )
        return CheckFailed(
            f"check attend la fonction elle-même, sans parenthèses, par exemple check(absmax_scale)\u202f; "
            f"il a reçu {describe(fn)}."
        )
    name = getattr(fn, "__name__", type(fn).__name__)
    return CheckFailed(
        f"{journal.unknown_name(str(name), 'exercises')}\n{MARGIN}check reconnaît une réponse au nom qui la désigne "
        "dans le carnet\u00a0: gardez celui de l'énoncé."
    )


# --- Essayer ---------------------------------------------------------------------------------------------------------


def _run(target: _Target, fn: Any, case: Mapping[str, Any], seconds: float) -> Outcome:
    """Le résultat d'un cas, « timeout » compris (avec la ligne où le temps s'est écoulé)."""
    try:
        with time_limit(seconds, Interruption) as fired:
            outcome = run_case(target.declaration["probe"], fn, case["inputs"])
    except Interruption as error:
        return {"status": "timeout", "where": source_line(error.__traceback__)}
    return {"status": "timeout", "where": ""} if fired() else outcome


def _judge(target: _Target, case: Mapping[str, Any], got: Outcome) -> CaseResult:
    verdict = compare(case["expected"], got, case["inputs"], target.tolerance)
    return CaseResult(case["group"], case["inputs"], case["expected"], got, verdict, case["wrong"])


def _try_all(target: _Target, fn: Any, cases: Sequence[Mapping[str, Any]]) -> list[CaseResult]:
    """Juge les cas dans l'ordre. Après un échec, on n'en essaie d'autres que s'ils sont rapides."""
    results: list[CaseResult] = []
    deadline = None
    for case in cases:
        seconds = SECONDS if deadline is None else deadline - time.monotonic()
        if seconds <= 0:
            break
        result = _judge(target, case, _run(target, fn, case, seconds))
        if result.verdict.kind == "timeout" and deadline is not None:
            break
        results.append(result)
        if result.verdict.kind in ("todo", "timeout"):
            break
        if not result.verdict.ok and deadline is None:
            deadline = time.monotonic() + EXTRA_SECONDS
    return results


def check(fn: Any = _NOTHING, *others: Any) -> None:
    """Essaie `fn` sur les cas visibles de l'exercice dont elle porte le nom dans le carnet (`naming.exercise_of`).

    Lève `CheckFailed` si l'un d'eux échoue.
    """
    if fn is _NOTHING or others:
        raise CheckFailed(
            "check essaie une fonction à la fois\u00a0: écrivez son nom entre les parenthèses, par exemple "
            "check(absmax_scale)."
        )
    target = _target(fn)
    if target is None:
        raise _refuse(fn)
    cases = packs.load_cases(target.chapter, target.name)
    try:
        results = _try_all(target, fn, cases)
    except KeyboardInterrupt:
        raise CheckFailed(f"○ {target.name}\u00a0: check interrompu à votre demande.") from None
    failed = next((i for i, r in enumerate(results) if not r.verdict.ok), None)
    if failed is None or results[failed].verdict.kind != "todo":
        journal.record_check(target.chapter, target.name, failed is None)
    if failed is None:
        print(_success(target, results))
        return
    if results[failed].verdict.kind == "todo":
        raise CheckFailed(_todo(target, results[failed].verdict.message))
    raise CheckFailed(_failure(target, fn, results, failed, len(cases)))


_known: dict[tuple[Any, ...], bool] = {}


def passed(fn: Any) -> bool:
    """Vrai si `fn` passe son `check`, sans rien afficher. Une fonction qui n'est pas un exercice passe toujours.

    Pour une fonction ou une classe, le résultat est retenu tant que son code, et celui des fonctions qu'elle appelle,
    ne change pas ; d'un autre objet, on ne sait pas ce qui le fait changer.
    """
    target = _target(fn)
    if target is None:
        return callable(fn)
    key = (target.chapter, target.name, _fingerprint(fn))
    if key not in _known or not isinstance(fn, (FunctionType, type)):
        cases = packs.load_cases(target.chapter, target.name)
        _known[key] = all(_judge(target, c, _run(target, fn, c, SECONDS)).verdict.ok for c in cases)
    return _known[key]


def _fingerprint(fn: Any) -> tuple[Any, ...]:
    """Le code de `fn` et, de proche en proche, celui des fonctions et classes du carnet qu'il nomme."""
    seen: dict[int, tuple[Any, ...]] = {}

    def of_code(code: CodeType) -> tuple[Any, ...]:
        consts = tuple(of_code(c) if isinstance(c, CodeType) else (type(c), repr(c)) for c in code.co_consts)
        return (code.co_code, code.co_names, code.co_varnames, consts)

    def used(code: CodeType) -> set[str]:
        inner = (used(c) for c in code.co_consts if isinstance(c, CodeType))
        return set(code.co_names).union(code.co_freevars, *inner)

    def visit(value: Any) -> None:
        if id(value) in seen:
            return
        if isinstance(value, type):
            seen[id(value)] = (value.__name__,)
            for member in vars(value).values():
                visit(getattr(member, "__func__", member))
        elif isinstance(value, FunctionType):
            code, defaults = value.__code__, (value.__defaults__, value.__kwdefaults__)
            seen[id(value)] = (of_code(code), repr(defaults))
            held = dict(zip(code.co_freevars, value.__closure__ or (), strict=True))
            for name in sorted(used(code)):
                other = _cell_value(held[name]) if name in held else value.__globals__.get(name)
                if isinstance(other, (FunctionType, type)) and other.__module__ == value.__module__:
                    visit(other)
                elif isinstance(other, (bool, int, float, str, tuple)):
                    seen[id(value)] += (name, repr(other))
                elif callable(other):  # un `partial`, un objet appelable : au moins, celui-ci et non un autre
                    seen[id(value)] += (name, id(other))

    visit(fn)
    return tuple(seen.values())


def _cell_value(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


# --- Dire ------------------------------------------------------------------------------------------------------------


def _points(declaration: Mapping[str, Any]) -> str:
    return plural(declaration["points"], "point") + (" de bonus" if is_bonus(declaration["stars"]) else "")


def _hint_line(target: _Target) -> str:
    opened, count = journal.hints_opened(journal.read(), target.chapter, target.name), len(target.declaration["hints"])
    where = f"Dans une cellule à vous (bouton +)\u00a0: hint({target.name})"
    return f"Un indice\u202f? {where}   ({plural(opened, 'ouvert')} sur {count})"


def _printed(results: Sequence[CaseResult]) -> list[str]:
    """Ce que le code de l'étudiant a affiché, gardé à part : celui du premier cas bavard."""
    for i, result in enumerate(results, 1):
        lines = str(result.got.get("printed", "")).splitlines()
        if lines:
            more = ["…"] if len(lines) > 8 else []
            return [f"Affiché par votre code (cas {i})\u00a0:", *(f"| {line[:200]}" for line in lines[:8]), *more]
    return []


def _success(target: _Target, results: Sequence[CaseResult]) -> str:
    lines = [f"✔ {target.name}\u00a0: {len(results)} cas sur {len(results)}"]
    state = journal.read()
    exercises = packs.load_packs()[target.chapter]["exercises"]
    left = [name for name in exercises if not journal.is_passed(state, target.chapter, name)]
    if left:
        after = list(exercises)[list(exercises).index(target.name) :]
        following = next((name for name in after if name in left), left[0])
        done = len(exercises) - len(left)
        lines.append(
            f"{MARGIN}{plural(done, 'exercice')} sur {len(exercises)}. "
            f"À suivre\u00a0: {following} ({_points(exercises[following])})."
        )
    else:
        lines.append(f"{MARGIN}Tous les exercices du chapitre passent. La note se calculera sur d'autres cas.")
    return "\n".join([*lines, *(MARGIN + line for line in _printed(results))])


def _todo(target: _Target, message: str) -> str:
    d = target.declaration
    lines = [f"○ {target.name} reste à écrire ({_points(d)}, environ {d['minutes']} minutes)."]
    if message:
        lines.append(MARGIN + message)
    return "\n".join([*lines, MARGIN + _hint_line(target)])


def _failure(target: _Target, fn: Any, results: Sequence[CaseResult], failed: int, total: int) -> str:
    result = results[failed]
    inputs, what = _shown(target, fn, result)
    lines = [*_head(target, failed, total, inputs), *(MARGIN + line for line in what.splitlines())]
    if result.verdict.kind == "raised":
        gloss = explain_error(result.got, target.declaration["signature"])
        if gloss:
            lines.append(wrapped(f"{MARGIN}Autrement dit\u00a0: ", gloss))
    elif result.verdict.kind == "wrong_error" and result.got.get("where"):
        lines.append(MARGIN + result.got["where"])
    found = diagnose(results, target.declaration["messages"], target.tolerance)
    if found:
        lines.append(wrapped(f"{MARGIN}Piste\u00a0: ", found.sentence))
    lines += [wrapped(MARGIN, text) for text in _unfinished(target)]
    lines.append(MARGIN + _hint_line(target))
    lines += [MARGIN + line for line in _printed([result])]
    return "\n".join(lines)


def _unfinished(target: _Target) -> Iterator[str]:
    """Ce dont l'exercice peut se servir, et qui ne passe pas encore."""
    state = journal.read()
    for name in target.declaration.get("builds_on", ()):
        if not journal.is_passed(state, target.chapter, name):
            yield (
                f"Si vous vous servez ici de {name}, commencez par check({name})\u00a0: il ne passe pas encore. (À la "
                "correction, sa faute ne compterait qu'une fois.)"
            )


def _head(target: _Target, failed: int, total: int, inputs: Mapping[str, Any]) -> list[str]:
    """La première ligne, et une par argument s'ils n'y tiennent pas tous."""
    start = f"✗ {target.name}, cas {failed + 1} sur {total}\u00a0:"
    hexadecimal = target.declaration.get("hexadecimal", ())
    shown = calls.case_text(target.name, target.declaration["probe"], inputs, hexadecimal)
    if len(start) + len(shown) < WIDTH:
        return [f"{start} {shown}"]
    return [start, *(f"{MARGIN}{calls.describe_input(k, v, k in hexadecimal)}" for k, v in inputs.items())]


def _shown(target: _Target, fn: Any, result: CaseResult) -> tuple[Mapping[str, Any], str]:
    """Les entrées à montrer, et ce qui ne va pas : avec `call_many`, du seul appel qui est faux, ou qui s'arrête."""
    probe, message = target.declaration["probe"], _what(result)
    if probe == "call_many" and result.verdict.kind == "raised":
        for index in range(len(next(iter(result.inputs.values())))):
            single = calls.one_item(result.inputs, index)
            if run_case("call", fn, single)["status"] == "raised":
                return single, message
    return calls.failing_item(probe, result.inputs, message)


def _what(result: CaseResult) -> str:
    """Ce qui était attendu et ce qui est venu."""
    kind, message = result.verdict.kind, result.verdict.message
    if kind == "timeout":
        where = f"\n{result.got['where']}" if result.got.get("where") else ""
        return (
            f"pas de réponse en {number(SECONDS)} secondes\u00a0: une boucle qui ne finit pas, "
            f"ou un calcul élément par élément\u202f?{where}"
        )
    return message


def explain_error(got: Outcome, signature: str = "") -> str:
    """Une erreur courante dite en français ; vide si elle n'est pas dans la liste."""
    names = got.get("mro") or [str(got.get("error", ""))]
    return glosses.explain(names, str(got.get("message", "")), signature, own=bool(got.get("own")))


# --- Un nom inconnu dans une cellule de check ------------------------------------------------------------------------

_CALL = re.compile(r"\s*(?:atelier\.)?(check|hint)\s*\(\s*([^\W\d]\w*)\s*\)\s*;?\s*(?:#.*)?")


def explain_unknown_name(cell: str, name: str, known: Sequence[str]) -> str:
    """Ce qu'on dit quand `check(nom)` est exécuté sans que ce nom existe. Vide si la cellule n'est pas un check.

    known : noms définis dans le carnet.
    """
    calls = [m for line in cell.splitlines() if line.strip() and (m := _CALL.fullmatch(line))]
    if name not in [m.group(2) for m in calls]:
        return ""
    if not packs.find("exercises", name):
        return f"✗ {journal.unknown_name(name, 'exercises')}"
    import difflib

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    renamed = f" Vous avez défini {near[0]}\u00a0: l'auriez-vous renommée\u202f?" if near else ""
    return (
        f"✗ {name} n'existe pas encore\u00a0: exécutez d'abord la cellule qui la définit (Maj + Entrée). "
        f"Si le noyau vient d'être redémarré, toutes celles du haut aussi.{renamed}"
    )
