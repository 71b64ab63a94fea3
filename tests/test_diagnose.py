"""Reconnaître une idée fausse, ou en dire la nature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from outcomes import CLOSE, LIES, value

from atelier.judging.compare import CaseResult, compare
from atelier.judging.diagnose import GENERIC, diagnose
from atelier.judging.exercise import Tolerance
from atelier.judging.probes import run_case


def peak(r, bits=8):
    """Référence de ces tests : max|r| / (2^(bits−1) − 1), 1 pour un tenseur nul."""
    top = r.abs().max()
    return torch.where(top > 0, top / (2 ** (bits - 1) - 1), torch.ones_like(top))


WRONG = {
    "no_abs": lambda r, bits=8: r.max() / (2 ** (bits - 1) - 1),
    "signed_levels": lambda r, bits=8: peak(r, bits) * (2 ** (bits - 1) - 1) / (2**bits - 1),
    "zero_scale": lambda r, bits=8: r.abs().max() / (2 ** (bits - 1) - 1),
}
MESSAGES = {name: f"phrase de {name}" for name in WRONG}


def peak_inputs():
    g = torch.Generator().manual_seed(3)
    tensors = [torch.randn(4, 5, generator=g) for _ in range(4)]
    tensors += [-torch.rand(3, generator=g), torch.zeros(2, 2), -torch.rand(2, 3, generator=g)]
    return [{"r": t, "bits": b} for t, b in zip(tensors, (8, 4, 3, 6, 8, 5, 4), strict=True)]


def judge(reference, wrong, student, cases, tolerance=CLOSE):
    results = []
    for inputs in cases:
        expected, got = (run_case("call", f, inputs) for f in (reference, student))
        outcomes = {name: run_case("call", f, inputs) for name, f in wrong.items()}
        verdict = compare(expected, got, inputs, tolerance)
        results.append(CaseResult("g", inputs, expected, got, verdict, outcomes))
    return results


def name_of(student, reference=peak, wrong=WRONG, cases=None, messages=MESSAGES, tolerance=CLOSE):
    found = diagnose(judge(reference, wrong, student, cases or peak_inputs(), tolerance), messages, tolerance)
    return found and found.name


def test_nothing_to_say_when_all_passes():
    assert name_of(peak) is None


@pytest.mark.parametrize("name", WRONG)
def test_each_misconception_is_recognised(name):
    assert name_of(WRONG[name]) == name


def test_a_misconception_written_another_way():
    def with_python_lists(r, bits=8):
        return torch.tensor(max(r.flatten().tolist()) / (2 ** (bits - 1) - 1), dtype=torch.float32)

    def in_float64(r, bits=8):
        return r.double().max() / (2 ** (bits - 1) - 1)

    def as_a_python_number(r, bits=8):
        return float(r.max()) / (2 ** (bits - 1) - 1)

    for student in (with_python_lists, in_float64, as_a_python_number):
        assert name_of(student) == "no_abs"


def test_two_mistakes_the_one_that_explains_most_is_named():
    def student(r, bits=8):
        if r.ndim == 1:
            return r.abs().max()
        return r.max() / (2 ** (bits - 1) - 1)

    assert name_of(student) == "no_abs"


def test_two_mistakes_one_of_which_sometimes_shows_alone():
    """bits n'est jamais lu (pas de phrase pour cela) et la valeur absolue manque : les cas à 8 bits le montrent."""
    minus = [{"r": -torch.rand(4, generator=torch.Generator().manual_seed(b)), "bits": b} for b in (8, 4, 8, 3, 5, 6)]
    assert name_of(lambda r, bits=8: r.max() / 127, cases=minus) == "no_abs"


def test_two_mistakes_mixed_everywhere_are_not_blamed_on_a_wrong_cause():
    assert name_of(lambda r, bits=8: r.max() / (2**bits - 1) + 0.01 * r.min()) is None


def test_agreement_counts_only_where_the_misconception_is_wrong():
    # Juste partout, sauf une erreur que rien n'explique : aucune idée fausse n'est accusée d'avoir été juste ailleurs.
    def student(r, bits=8):
        return torch.tensor(7.0) if not r.any() else peak(r, bits)

    assert name_of(student) is None


def test_a_tie_goes_to_the_one_that_agrees_on_more_cases_then_to_declaration_order():
    cases = [{"n": n} for n in (1, 2, 3, 4)]
    twins = {"far": lambda n: 0 if n > 2 else -1, "near": lambda n: 0 if n > 2 else n * n}
    student = twins["near"]
    assert name_of(student, lambda n: n * n, twins, cases, dict.fromkeys(twins, "…")) == "near"
    same = {"first": student, "second": student}
    assert name_of(student, lambda n: n * n, same, cases, dict.fromkeys(same, "…")) == "first"


def test_a_coincidence_contradicted_elsewhere_is_no_explanation():
    def strict(r, bits=8):
        if bits < 2:
            raise ValueError
        return peak(r, bits)

    def lenient(r, bits=8):
        return peak(r, max(bits, 2))

    cases = [*peak_inputs()[:4], {"r": torch.ones(2), "bits": 1}]
    same_by_chance = {"signed_levels": lambda r, bits=8: r.abs().max() / (2**bits - 1)}
    assert name_of(lenient, strict, same_by_chance, cases, {"signed_levels": "…"}) == "no_check"
    assert name_of(same_by_chance["signed_levels"], strict, same_by_chance, cases, {"signed_levels": "…"}) != "no_check"


def test_the_same_crash_is_not_the_same_idea():
    def wrong_axis(x, scale):
        return x * scale.t()

    def crashes(x, scale):
        return x @ scale.reshape(1, -1, 1, 1, 1) @ x

    def reference(x, scale):
        return x * scale

    cases = [{"x": x, "scale": torch.arange(1.0, 1 + len(x)).reshape(-1, 1)} for x in MATRICES]
    wrong = {"wrong_axis": wrong_axis}
    statuses = {r.got["status"] for r in judge(reference, {}, wrong_axis, cases)}
    assert statuses == {"value", "raised"}
    assert name_of(wrong_axis, reference, wrong, cases, {"wrong_axis": "…"}) == "wrong_axis"
    assert name_of(crashes, reference, wrong, cases, {"wrong_axis": "…"}) is None


def test_unknown_outcomes_of_a_misconception_are_no_agreement():
    results = judge(peak, {"no_abs": WRONG["no_abs"]}, WRONG["no_abs"], peak_inputs())
    blind = [CaseResult(r.group, r.inputs, r.expected, r.got, r.verdict, {"no_abs": None}) for r in results]
    assert diagnose(blind, {"no_abs": "…"}, CLOSE) is None


def test_a_misconception_of_type_needs_the_same_type():
    wrong = {"float64": lambda r, bits=8: peak(r, bits).double()}
    messages = {"float64": "…"}
    assert name_of(wrong["float64"], wrong=wrong, messages=messages) == "float64"
    assert name_of(lambda r, bits=8: peak(r, bits).bfloat16(), wrong=wrong, messages=messages) == "dtype"


def test_a_misconception_that_damages_is_recognised_by_the_damage():
    def damaging(r, bits=8):
        found = peak(r, bits)
        r.mul_(2)
        return found

    wrong = {"twice": damaging}
    cases = [c for c in peak_inputs() if c["r"].any()]
    assert name_of(damaging, wrong=wrong, messages={"twice": "…"}, cases=cases) == "twice"
    assert name_of(damaging, wrong={}, messages={}, cases=cases) == "in_place"


MATRICES = [torch.arange(1.0, 1 + r * c).reshape(r, c) for r, c in ((2, 2), (3, 3), (2, 3), (4, 2), (1, 3))]
INTEGERS = [{"n": n, "d": d} for n, d in ((3, 7), (12, 768), (24, 1024), (5, 9))]


def _by_matrix(student, reference):
    return name_of(student, reference, {}, [{"x": x} for x in MATRICES], {})


def _by_integer(student, reference=lambda n, d: n * d):
    return name_of(student, reference, {}, INTEGERS, {})


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("no_return", lambda: _by_integer(lambda n, d: None)),
        ("float_count", lambda: _by_integer(lambda n, d: n * d / 1)),
        ("constant_factor", lambda: _by_integer(lambda n, d: 2 * n * d)),
        ("constant_factor", lambda: _by_integer(lambda n, d: n * d, lambda n, d: 8 * n * d)),
        ("opposite", lambda: _by_integer(lambda n, d: -n * d)),
        ("off_by_one", lambda: _by_integer(lambda n, d: n * d + 1)),
        ("container", lambda: _by_integer(lambda n, d: torch.tensor(n * d))),
        ("numpy", lambda: _by_integer(lambda n, d: np.int64(n * d))),
        (None, lambda: _by_matrix(lambda x: x > 2, lambda x: x > 3)),
        ("hardcoded", lambda: _by_integer(lambda n, d: 21)),
        ("visible_only", lambda: _by_integer(lambda n, d: d + 14)),
        ("dtype", lambda: _by_matrix(lambda x: (2 * x).double(), lambda x: 2 * x)),
        ("asked_dtype", lambda: _by_matrix(lambda x: x.to(torch.int32), lambda x: x.to(torch.int8))),
        ("transposed", lambda: _by_matrix(lambda x: _ramp(x).T, lambda x: _ramp(x))),
        ("square_only", lambda: _by_matrix(lambda x: x.sum() / x.shape[0], lambda x: x.sum() / x.shape[1])),
        ("nan", lambda: _by_matrix(lambda x: (x - x) / (x - x), lambda x: x)),
        ("no_check", lambda: name_of(lambda r, bits=8: 1.0, _refuses, {}, [{"r": 1.0}, {"r": 2.0}], {})),
        (
            "non_contiguous",
            lambda: name_of(
                lambda x: x.view(-1), lambda x: x.reshape(-1), {}, [{"x": MATRICES[2]}, {"x": MATRICES[2].t()}], {}
            ),
        ),
    ],
)  # fmt: skip
def test_generic_rules(name, found):
    assert found() == name


def test_one_lucky_square_matrix_is_not_a_square_only_answer():
    """Juste par hasard sur la seule matrice carrée tirée : on ne dit pas « tout va bien pour une matrice carrée »."""
    shapes = ((2, 2), (2, 3), (2, 5), (2, 4))
    cases = [{"x": torch.ones(shape) if shape == (2, 2) else -torch.ones(shape)} for shape in shapes]
    assert name_of(lambda x: torch.where(x > 0, 2 * x, x), lambda x: 2 * x, {}, cases, {}) != "square_only"


# Un genre attendu, ce qu'un étudiant rend à la place, et l'appel que la phrase conseille.
KINDS = [
    (lambda n, d: n * d, lambda v: torch.tensor(v), "container", int),
    (lambda n, d: n * d, lambda v: torch.tensor(float(v)), "container", int),
    (lambda n, d: n * d, lambda v: torch.tensor([v]), None, None),
    (lambda n, d: n * d, np.int64, "numpy", int),
    (lambda n, d: n * d, np.float32, "numpy", int),
    (lambda n, d: n / d, torch.tensor, "container", float),
    (lambda n, d: n / d, np.float32, "numpy", float),
    (lambda n, d: torch.tensor(n / d), float, "container", "torch.tensor(…, dtype=torch.float32)"),
    (lambda n, d: torch.tensor(n / d), lambda v: np.float32(v.item()), "numpy", "torch.tensor(…, dtype=torch.float32)"),
    (lambda n, d: torch.tensor([n, d]), lambda v: v.numpy(), "numpy", "torch.tensor(…, dtype=torch.int64)"),
    (lambda n, d: torch.tensor([n, d]), lambda v: v.tolist(), "container", "torch.tensor(…, dtype=torch.int64)"),
    (lambda n, d: [n, d], np.array, "numpy", list),
    (lambda n, d: [n, d], torch.tensor, "container", list),
    (lambda n, d: [n, d], lambda v: list(np.array(v)), "numpy", int),
    (lambda n, d: (n / d, n), lambda v: (v[0], torch.tensor(v[1])), "container", int),
    (lambda n, d: (n / d, n), lambda v: (torch.tensor(v[0]), v[1]), "container", float),
    (lambda n, d: (n / d, n), lambda v: (v[0], np.int64(v[1])), "numpy", int),
]


@pytest.mark.parametrize(("reference", "change", "name", "advice"), KINDS)
def test_a_right_value_of_another_kind_is_told_by_its_kind_and_the_advice_passes(reference, change, name, advice):
    """Ni « il vous manque une unité », ni un conseil qui serait refusé à son tour."""
    results = judge(reference, {}, lambda n, d: change(reference(n, d)), INTEGERS)
    found = diagnose(results, {})
    assert (found and found.name) == name
    assert {r.verdict.kind for r in results} <= {"type", "shape", "untransportable"}
    if name is None:
        return
    said = found.sentence + "".join(r.verdict.message for r in results)
    call = advice.__name__ + "(…)" if isinstance(advice, type) else advice
    assert call in said, said

    def advised(n, d):
        got = change(reference(n, d))
        if isinstance(advice, str):
            return torch.tensor(got, dtype=getattr(torch, advice.rpartition(".")[2].rstrip(")")))
        if advice is list:
            return got.tolist()
        if isinstance(got, tuple):
            return tuple(advice(v) if type(v) not in (int, float) else v for v in got)
        return [advice(v) for v in got] if isinstance(got, list) else advice(got)

    assert all(r.verdict.ok for r in judge(reference, {}, advised, INTEGERS, Tolerance(rtol=1e-6)))


@pytest.mark.parametrize("wrong", [lambda n, d: torch.tensor(n * d + 1), lambda n, d: n * d + 0.5])
def test_a_number_that_is_wrong_and_of_another_kind_is_not_said_to_be_right(wrong):
    found = diagnose(judge(lambda n, d: n * d, {}, wrong, INTEGERS), {})
    assert found is None or found.name not in ("container", "float_count"), found


def test_a_value_that_is_no_data_where_a_refusal_is_expected():
    results = judge(_refuses, {}, lambda r, bits=8: np.float32(1), [{"r": 1.0}, {"r": 2.0}])
    assert diagnose(results, {}).name == "no_check"
    assert "NumPy" in results[0].verdict.message and "une erreur ValueError" in results[0].verdict.message


def _ramp(x):
    return x.sum() + torch.arange(1.0, 1 + (2 * len(x)) ** 2).reshape(2 * len(x), 2 * len(x))


def test_a_huge_integer_is_no_trouble():
    verdict = compare(value(1), value(10**5000), {}, CLOSE)
    assert verdict.kind == "value" and "16610 bits" in verdict.message


def _refuses(r, bits=8):
    raise ValueError("entrée interdite")


def test_the_factor_is_said():
    results = judge(lambda n, d: 8 * n * d, {}, lambda n, d: n * d, INTEGERS)
    assert "1/8 fois" in diagnose(results, {}).sentence


def test_generic_sentences_are_french_typography():
    for sentence in GENERIC.values():
        assert sentence.rstrip()[-1] in ".?" and not any(f" {mark}" in sentence for mark in ":;?!")


def test_diagnosing_lies_does_not_fail():
    truth = value(torch.ones(2))
    results = [
        CaseResult("g", {}, truth, lie, compare(truth, lie, {}, CLOSE), {"a": {}, "b": {"status": "value"}})
        for lie in LIES
    ]
    assert diagnose(results, {"a": "…", "b": "…"}, CLOSE) is None


def test_lists_of_other_lengths_are_other_answers():
    """Deux listes de longueurs différentes ne sont pas la même erreur, quoi qu'elles contiennent."""
    wrong = {"zeros": value([0, 1, 0]), "dropped": value([1])}
    results = [
        CaseResult(
            "courant", {}, value([-100, 1, -100]), value([1]), compare(value([-100, 1, -100]), value([1]), {}), wrong
        )
    ]
    assert diagnose(results, {"zeros": "…", "dropped": "…"}).name == "dropped"
