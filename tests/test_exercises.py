"""Tous les exercices de tous les chapitres : ce qui est juste passe, ce qui est faux est refusé et nommé.

Générique : un chapitre nouveau est pris en compte dès qu'il est dans `solutions/` et dans course.toml ; ses réponses
justes dans d'autres styles sont les `styles` du fichier de l'exercice (trois au moins : `build` le vérifie).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from atelier.judging.compare import CaseResult, Outcome, compare
from atelier.judging.diagnose import diagnose
from atelier.judging.exercise import Exercise, Inputs
from atelier.judging.probes import run_case
from grader.authoring.chapters import Chapter, chapter_names, load_chapter
from grader.authoring.packing import PUBLIC_SEED
from grader.classroom.grading import earned, score_groups

SEEDS = [2**61 + 977 * i for i in range(int(os.environ.get("COURS_GRAINES", "20")))]
"""Graines rejouées pour chaque style juste ; COURS_GRAINES=60 en rejoue davantage."""
DIAGNOSED = SEEDS[: max(10, len(SEEDS) // 2)]
"""Celles où chaque idée fausse est reconnue."""

Answer = Callable[..., Any]
Cases = Sequence[tuple[str, Inputs, Outcome]]


@functools.cache
def chapter(name: str) -> Chapter:
    return load_chapter(name)


EXERCISES = [(name, id) for name in chapter_names() for id in chapter(name).exercises]
WITH_EXERCISES = sorted({name for name, _ in EXERCISES})
each_exercise = pytest.mark.parametrize(("name", "id"), EXERCISES, scope="module")
"""« module » : pytest enchaîne les essais d'un même exercice, dont les cas sont gardés."""


def plain_functions() -> list[tuple[str, str]]:
    """Les exercices dont la sonde rend telle quelle la réponse de la fonction."""
    return [(name, id) for name, id in EXERCISES if chapter(name).exercises[id].probe == "call"]


def functions_of_tensors() -> list[tuple[str, str]]:
    """Les exercices qui sont une fonction d'au moins un tenseur."""
    plain = {"call", "call_float"}
    return [
        (name, id)
        for name, id in EXERCISES
        if chapter(name).exercises[id].probe in plain
        and any(isinstance(v, torch.Tensor) for _, inputs in _some_cases(name, id) for v in inputs.values())
    ]


def _some_cases(name: str, id: str) -> list[tuple[str, Inputs]]:
    return chapter(name).exercises[id].draw_cases(id, SEEDS[0], 1)


def declaration(name: str, id: str) -> Exercise:
    return chapter(name).exercises[id]


@functools.cache
def hidden(name: str, id: str, seed: int) -> Cases:
    """Les cas d'une correction, avec la réponse de la référence."""
    exercise = declaration(name, id)
    return _with_reference(name, id, exercise.draw_cases(id, seed, exercise.cases))


@functools.cache
def visible(name: str, id: str) -> Cases:
    """Les cas de `check`, comme le paquet du chapitre les contient."""
    exercise = declaration(name, id)
    first = next(iter(exercise.groups))
    drawn = exercise.draw_cases(id, PUBLIC_SEED, exercise.visible)
    return _with_reference(name, id, [*((first, inputs) for inputs in exercise.examples), *drawn])


def _with_reference(name: str, id: str, cases: Sequence[tuple[str, Inputs]]) -> Cases:
    probe, reference = declaration(name, id).probe, chapter(name).reference(id)
    return [(group, inputs, run_case(probe, reference, inputs)) for group, inputs in cases]


def judge(exercise: Exercise, cases: Cases, answer: Answer) -> list[CaseResult]:
    results = []
    for group, inputs, expected in cases:
        got = run_case(exercise.probe, answer, inputs)
        results.append(CaseResult(group, inputs, expected, got, compare(expected, got, inputs, exercise.tolerance)))
    return results


def mark(exercise: Exercise, results: Sequence[CaseResult]) -> float:
    """Part des points obtenue, comme à la correction."""
    return earned(score_groups(exercise, results), 100.0) / 100


def messages(results: Sequence[CaseResult]) -> str:
    return "\n".join(f"{r.group}: {r.verdict.kind} {r.verdict.message}" for r in results if not r.verdict.ok)


@each_exercise
def test_reference_passes_its_own_cases(name: str, id: str) -> None:
    exercise = declaration(name, id)
    for cases in (visible(name, id), *(hidden(name, id, seed) for seed in SEEDS)):
        for group, _, expected in cases:
            assert expected["status"] in ("value", "raised"), (group, expected)
            assert expected["status"] == "value" or "ValueError" in expected["mro"], (group, expected)
        verdicts = [compare(expected, expected, inputs, exercise.tolerance) for _, inputs, expected in cases]
        assert all(verdict.ok for verdict in verdicts), verdicts
    results = judge(exercise, hidden(name, id, SEEDS[0]), chapter(name).reference(id))
    assert mark(exercise, results) == 1.0, messages(results)


@each_exercise
def test_cases_are_replayed_from_their_seed_and_differ_between_seeds(name: str, id: str) -> None:
    exercise = declaration(name, id)
    first, again, other = (exercise.draw_cases(id, seed, exercise.cases) for seed in (SEEDS[0], SEEDS[0], SEEDS[1]))
    typical = next(iter(exercise.groups))

    def same(a: Sequence[tuple[str, Inputs]], b: Sequence[tuple[str, Inputs]]) -> bool:
        pairs = zip(a, b, strict=True)
        return all(compare({"status": "value", "value": x}, {"status": "value", "value": y}, {}).ok for x, y in pairs)

    assert same(first, again)
    assert not same([c for c in first if c[0] == typical], [c for c in other if c[0] == typical])


@each_exercise
def test_every_misconception_is_refused_and_named(name: str, id: str) -> None:
    """Sur les cas visibles et sur ceux de dix corrections, chaque idée fausse est reconnue, et pour elle-même.

    Elle a la même note quelle que soit la graine.
    """
    marks: dict[str, dict[float, Any]] = {}
    exercise, sentences = declaration(name, id), {m.name: m.message for m in declaration(name, id).misconceptions}
    answers = {known: chapter(name).wrong(id, known) for known in sentences}
    for where, cases in [("visibles", visible(name, id)), *((s, hidden(name, id, s)) for s in DIAGNOSED)]:
        outcomes = [
            {known: run_case(exercise.probe, wrong, inputs) for known, wrong in answers.items()}
            for _, inputs, _ in cases
        ]
        for known in answers:
            results = [
                CaseResult(group, inputs, expected, all_wrong[known],
                           compare(expected, all_wrong[known], inputs, exercise.tolerance), all_wrong)
                for (group, inputs, expected), all_wrong in zip(cases, outcomes, strict=True)
            ]  # fmt: skip
            assert not all(r.verdict.ok for r in results), f"{known} n'est pas refusée ({where})"
            found = diagnose(results, sentences, exercise.tolerance)
            assert found is not None and found.name == known, f"{known} passe pour {found} ({where})"
            if where != "visibles":
                marks.setdefault(known, {}).setdefault(mark(exercise, results), where)
                typical = [r for r in results if r.group == next(iter(exercise.groups))]
                stopped = all(r.verdict.kind == "raised" for r in typical)
                assert not stopped, f"{known} s'arrête sur tous les cas courants ({where})"
    assert {known: found for known, found in marks.items() if len(found) > 1} == {}


def styles(name: str, id: str) -> list[Answer]:
    return chapter(name).styles(id)


@each_exercise
def test_right_answers_in_other_styles_get_full_marks(name: str, id: str) -> None:
    exercise = declaration(name, id)
    for answer in styles(name, id):
        for where, cases in [("visibles", visible(name, id)), *((s, hidden(name, id, s)) for s in SEEDS)]:
            results = judge(exercise, cases, answer)
            assert mark(exercise, results) == 1.0, f"{answer.__name__}, {where}\n{messages(results)}"


def _refuses(*_: Any) -> Any:
    raise ValueError("non")


def _returns_nothing(*_: Any) -> Any:
    return None


def _returns_its_input(first: Any, *_: Any) -> Any:
    return first


def _first_answer(name: str, id: str) -> Answer:
    """Rend toujours la réponse du premier cas visible."""
    return lambda *_: visible(name, id)[0][2]["value"]


def _only_visible(name: str, id: str) -> Answer:
    """A retenu les réponses des cas visibles, et ne sait rien d'autre."""
    exercise = declaration(name, id)

    def answer(*arguments: Any) -> Any:
        for _, inputs, expected in visible(name, id):
            known = {"status": "value", "value": list(inputs.values())}
            if compare(known, {"status": "value", "value": list(arguments)}, {}).ok:
                if expected["status"] == "raised":
                    raise ValueError
                return expected["value"]
        raise ValueError

    assert mark(exercise, judge(exercise, visible(name, id), answer)) == 1.0 or exercise.probe != "call"
    return answer


@each_exercise
def test_answers_without_thought_earn_nothing(name: str, id: str) -> None:
    exercise = declaration(name, id)
    lazy = [_refuses, _returns_nothing, _returns_its_input, _first_answer(name, id), _only_visible(name, id)]
    for answer in lazy:
        for seed in SEEDS[:5]:
            results = judge(exercise, hidden(name, id, seed), answer)
            assert mark(exercise, results) == 0.0, f"{answer} obtient {mark(exercise, results)}"


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_changed(v, change) for v in value)
    if isinstance(value, dict):
        return {k: _changed(v, change) for k, v in value.items()}
    return change(value)


def _int_to_float(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and not value.is_floating_point() and value.dtype != torch.bool:
        return value.float()
    return float(value) if type(value) is int else value


def _other_width(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.float() if value.dtype == torch.float64 else value.double()
    return value


def _to_list(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value


def _to_numpy(value: Any) -> Any:
    return value.float().numpy() if isinstance(value, torch.Tensor) else value


def _one_axis_more(value: Any) -> Any:
    return value[None] if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize(("name", "id"), plain_functions())
@pytest.mark.parametrize("change", [_int_to_float, _other_width, _to_list, _to_numpy, _one_axis_more])
def test_right_values_of_the_wrong_kind_are_refused(name: str, id: str, change: Callable[[Any], Any]) -> None:
    """Un flottant pour un entier, un autre type, une liste ou un tableau pour un tenseur, un axe de trop."""
    exercise, reference = declaration(name, id), chapter(name).reference(id)
    kinds = {"type", "dtype", "untransportable", "shape"}
    for group, inputs, expected in hidden(name, id, SEEDS[0]):
        if expected["status"] != "value":
            continue
        touched: list[bool] = []

        def note(v: Any, touched: list[bool] = touched) -> Any:
            new = change(v)
            touched.append(new is not v)
            return new

        got = run_case(exercise.probe, lambda *a: _changed(reference(*a), note), inputs)  # noqa: B023
        verdict = compare(expected, got, inputs, exercise.tolerance)
        assert verdict.kind in kinds if any(touched) else verdict.ok, (group, verdict)


def _int_to_tensor(value: Any) -> Any:
    return torch.tensor(value) if type(value) is int and abs(value) < 2**63 else value


def _int_to_numpy(value: Any) -> Any:
    return np.int64(value) if type(value) is int and abs(value) < 2**63 else value


def _float_to_numpy(value: Any) -> Any:
    return np.float32(value) if type(value) is float else value


def _number_to_python(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) and value.ndim == 0 else value


@pytest.mark.parametrize(("name", "id"), plain_functions())
@pytest.mark.parametrize("change", [_int_to_tensor, _int_to_numpy, _float_to_numpy, _number_to_python])
def test_right_numbers_of_another_kind_are_told_by_their_kind(name: str, id: str, change: Callable[[Any], Any]) -> None:
    """Un entier juste, dans un tenseur ou de NumPy : c'est le genre qui est nommé, jamais une unité de trop."""
    exercise, reference = declaration(name, id), chapter(name).reference(id)
    for cases in (visible(name, id), hidden(name, id, SEEDS[0])):
        results = judge(exercise, cases, lambda *a: _changed(reference(*a), change))
        if all(r.verdict.ok for r in results):
            continue
        found = diagnose(results, {m.name: m.message for m in exercise.misconceptions}, exercise.tolerance)
        assert found is not None and found.name in ("container", "numpy"), (found, messages(results))


@pytest.mark.parametrize(("name", "id"), functions_of_tensors())
def test_in_place_damage_is_seen(name: str, id: str) -> None:
    exercise, reference = declaration(name, id), chapter(name).reference(id)
    cases = visible(name, id)

    def damages(*arguments: Any) -> Any:
        value = reference(*arguments)
        value = value.clone() if isinstance(value, torch.Tensor) else value
        for v in arguments:
            if isinstance(v, torch.Tensor):
                v.add_(1)
        return value

    for some in (cases, hidden(name, id, SEEDS[0])):
        results = judge(exercise, some, damages)
        answered = [r for r in results if r.expected["status"] == "value"]
        assert {r.verdict.kind for r in answered} == {"in_place"}, messages(results)
        found = diagnose(results, {m.name: m.message for m in exercise.misconceptions}, exercise.tolerance)
        assert found is not None and found.name == "in_place", found


@each_exercise
def test_declarations_never_give_the_line(name: str, id: str) -> None:
    """Indices et phrases : aucun morceau de la solution."""
    exercise = declaration(name, id)
    code = [line.strip() for line in chapter(name).sources[id].partition("BEGIN SOLUTION")[2].splitlines()]
    for text in [*exercise.hints, *(m.message for m in exercise.misconceptions)]:
        assert not any(len(line) > 20 and line in text for line in code), text


@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_quizzes_answer_every_choice(name: str) -> None:
    """Une phrase par réponse proposée, et jamais la bonne toujours à la même place."""
    quizzes = chapter(name).quizzes
    for quiz in quizzes.values():
        assert len(quiz.choices) >= 3 and quiz.question.endswith("?"), quiz.question
        assert len({choice.text for choice in quiz.choices}) == len(quiz.choices), quiz.question
    places = {next(i for i, choice in enumerate(quiz.choices) if choice.correct) for quiz in quizzes.values()}
    assert len(places) >= min(3, len(quizzes))
