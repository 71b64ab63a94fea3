"""Comparer et diagnostiquer : formes et types d'abord, jamais d'exception, l'idée fausse plutôt que le symptôme."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.judging.compare import CaseResult, compare, unchanged
from atelier.judging.diagnose import GENERIC, diagnose
from atelier.judging.exercise import EXACT, Tolerance
from atelier.judging.probes import run_case
from atelier.judging.writing import describe, format_pair

CLOSE = Tolerance(rtol=1e-6, atol=1e-9)


def value(v):
    return {"status": "value", "value": v}


def raised(error, *parents, message=""):
    return {"status": "raised", "error": error, "mro": [error, *parents, "Exception"], "message": message, "where": ""}


def kind(expected, got, tolerance=CLOSE):
    return compare(value(expected), value(got), {}, tolerance).kind


# --- Juger -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "got", "wanted"),
    [
        (torch.ones(2, 3), torch.ones(2, 3), "ok"),
        (torch.ones(2, 3), torch.ones(3, 2), "shape"),
        (torch.ones(2), torch.ones(2, 1), "shape"),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), "dtype"),
        (torch.ones(2), torch.ones(3, dtype=torch.float64), "shape"),
        (torch.ones(2), 1.0, "type"),
        (1.0, torch.tensor(1.0), "type"),
        (1.0, 1, "ok"),
        (1, 1.0, "type"),
        (1, True, "type"),
        (True, 1, "type"),
        (2**60 + 1, 2**60 + 1, "ok"),
        (2**60 + 1, 2**60, "value"),
        (0.1, 10**400, "value"),
        (float("inf"), 10**400, "value"),
        (float("inf"), float("inf"), "ok"),
        (float("inf"), float("-inf"), "value"),
        (float("inf"), 1e308, "value"),
        (float("nan"), float("nan"), "ok"),
        (float("nan"), 0.0, "value"),
        (0.0, float("nan"), "value"),
        (0.0, -0.0, "ok"),
        (-0.0, 0.0, "ok"),
        (-0.0, 0, "ok"),
        ([1.0, -0.0], (1.0, 0.0), "ok"),
        (torch.tensor(0.0), torch.tensor(-0.0), "ok"),
        (torch.tensor([float("nan"), float("inf")]), torch.tensor([float("nan"), float("inf")]), "ok"),
        (torch.tensor([float("inf")]), torch.tensor([float("-inf")]), "value"),
        (torch.tensor([1.0]), torch.tensor([float("nan")]), "value"),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), "value"),
        (torch.tensor([True, False]), torch.tensor([True, True]), "value"),
        (torch.tensor([True]), torch.tensor([1]), "dtype"),
        (torch.tensor([200], dtype=torch.uint8), torch.tensor([200], dtype=torch.uint8), "ok"),
        (torch.zeros(0, 3), torch.zeros(0, 3), "ok"),
        (torch.zeros(0, 3), torch.zeros(0, 4), "shape"),
        ((1.0, 3), [1.0, 3], "ok"),
        ((1.0, 3), (1.0, 3, 4), "shape"),
        ((1.0, 3), (2.0, 3.0), "type"),
        ({"a": 1}, {"a": 1, "b": 2}, "shape"),
        ({"a": 1, "b": 2}, {"a": 1}, "type"),
        ({"a": 1}, {"b": 1}, "shape"),
        ("oui", "non", "value"),
        (None, None, "ok"),
        (None, 0, "type"),
        ([1, None], [1, None], "ok"),
    ],
)
def test_kinds(expected, got, wanted):
    assert kind(expected, got) == wanted


@pytest.mark.parametrize(("expected", "got"), [(0.0, -0.0), (-0.0, 0.0), (-0.0, 0), ([0.0, 1.0], [-0.0, 1.0])])
def test_the_sign_of_zero_counts_only_where_it_is_the_subject(expected, got):
    assert kind(expected, got) == kind(expected, got, Tolerance()) == "ok"
    assert kind(expected, got, Tolerance(signed_zero=True)) == "value"
    assert kind(expected, expected, Tolerance(signed_zero=True)) == "ok"


def test_results_with_a_gradient_and_strides_compare_by_value():
    x = torch.arange(6.0).reshape(2, 3)
    assert kind(x.t(), x.t().contiguous().requires_grad_(True)) == "ok"


def test_tolerance_is_relative_to_the_reference():
    tolerance = Tolerance(rtol=1e-3)
    assert kind(1000.0, 1000.9, tolerance) == "ok"
    assert kind(1000.0, 1001.1, tolerance) == "value"
    assert kind(torch.tensor([0.0]), torch.tensor([1e-12]), tolerance) == "value"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_may_be_computed_either_way_but_keeps_its_type(dtype):
    exact = torch.tensor([1.0 / 3], dtype=torch.float32)
    rough = (torch.tensor(1.0, dtype=dtype) / torch.tensor(3.0, dtype=dtype)).reshape(1)
    assert kind(exact.to(dtype), rough) == "ok"
    assert kind(exact.to(dtype), exact) == "dtype"
    assert kind(exact.to(dtype), (exact * 1.1).to(dtype)) == "value"


def test_shapes_and_types_are_told_before_values_everywhere_in_the_tree():
    verdict = compare(value((1.0, torch.ones(2))), value((9.0, torch.ones(3))), {}, CLOSE)
    assert verdict.kind == "shape"
    assert "résultat[1]" in verdict.message


def test_a_missing_measure_is_told_after_what_explains_it():
    expected = {"paramètres": {"a": [2, 3]}, "sortie": torch.ones(2)}
    verdict = compare(value(expected), value({"paramètres": {"a": [3, 2]}}), {}, CLOSE)
    assert "paramètres" in verdict.message and "sortie" not in verdict.message


def test_message_names_the_first_differing_place_in_french():
    a = torch.full((2, 3), 0.3124)
    b = a.clone()
    b[1, 2] = 0.1458
    message = compare(value(a), value(b), {}, CLOSE).message
    assert message == "à l'indice (1, 2)\u00a0: attendu\u00a0: 0,3124      obtenu\u00a0: 0,1458"


def test_pairs_show_enough_digits_to_differ():
    assert format_pair(1.0000001, 1.0000002) == ("1,0000001", "1,0000002")
    assert format_pair(3, 3.0) == ("3 (un entier)", "3 (un flottant)")


def test_errors():
    assert compare(raised("ValueError"), raised("MonErreur", "ValueError"), {}, CLOSE).ok
    assert compare(raised("ValueError"), raised("TypeError"), {}, CLOSE).kind == "wrong_error"
    assert compare(raised("ValueError"), raised("Exception"), {}, CLOSE).kind == "wrong_error"
    assert compare(raised("ValueError"), value(3), {}, CLOSE).kind == "not_raised"
    assert compare(value(3), raised("ValueError"), {}, CLOSE).kind == "raised"


@pytest.mark.parametrize("status", ["todo", "timeout", "untransportable"])
def test_other_statuses_keep_their_name(status):
    assert compare(value(3), {"status": status}, {}, CLOSE).kind == status
    assert compare(raised("ValueError"), {"status": status}, {}, CLOSE).kind == status


def test_damage_is_told_only_when_the_value_is_right():
    inputs = {"x": torch.ones(2), "bits": 8}
    right = compare(value(1.0), value(1.0) | {"modified": ["x", "inconnu"]}, inputs, CLOSE)
    assert right.kind == "in_place" and "x" in right.message and "inconnu" not in right.message
    assert "bits" not in right.message
    assert compare(value(1.0), value(2.0) | {"modified": ["x"]}, inputs, CLOSE).kind == "value"
    assert compare(value(1.0), value(1.0) | {"modified": []}, inputs, CLOSE).ok


HALF = torch.ones(2, dtype=torch.float16)
NAN = torch.tensor([float("nan"), 1.0])


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (HALF, HALF.clone(), True),
        (HALF, HALF * 1.001, False),
        (NAN, NAN.clone(), True),
        (torch.ones(3), torch.ones(3, 1), False),
        (torch.ones(3), torch.ones(3).to_sparse(), False),
        (torch.ones(3), torch.ones(3, device="meta"), False),
        ([1, {"a": (2.0, None)}], [1, {"a": (2.0, None)}], True),
        ([1, {"a": (2.0, None)}], [1, {"a": (2.0, object())}], False),
        ([1], [1, 2], False),
        (1, True, False),
        (0.0, -0.0, True),
    ],
)
def test_an_input_is_unchanged_or_not(before, after, same):
    assert unchanged(before, after) is same


LIES = [
    {},
    {"status": "value"},
    {"status": 3},
    {"status": "raised"},
    {"status": "raised", "error": None, "mro": None},
    {"status": "value", "value": 1.0, "modified": 3},
    {"status": "value", "value": 1.0, "modified": None},
    {"status": "value", "value": torch.ones(2, dtype=torch.float8_e4m3fn)},
    {"status": "value", "value": torch.ones(2, dtype=torch.complex64)},
    {"status": "value", "value": {1: 2}},
    {"status": "todo", "message": ["x"]},
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: str(list(lie.values()))[:30])
@pytest.mark.parametrize("truth", [value(1.0), value(torch.ones(2)), value({"a": [1]}), raised("ValueError")])
def test_a_lying_process_is_refused_without_an_exception(lie, truth):
    assert not compare(truth, lie, {"x": torch.ones(2)}, CLOSE).ok
    assert isinstance(describe(lie.get("value")), str)


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.builds(lambda n: torch.arange(n, dtype=torch.float32), st.integers(0, 3)),
    st.builds(lambda n: torch.tensor(n), st.integers(-5, 5)),
)
trees = st.recursive(
    leaves, lambda t: st.one_of(st.lists(t, max_size=3), st.dictionaries(st.text(max_size=2), t, max_size=3))
)


@settings(max_examples=200, deadline=None)
@given(trees, trees)
def test_any_two_trees_compare(a, b):
    assert compare(value(a), value(a), {}, EXACT).ok
    verdict = compare(value(a), value(b), {}, EXACT)
    assert verdict.ok or verdict.message
    assert verdict.kind != "untransportable"


# --- Reconnaître -----------------------------------------------------------------------------------------------------


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
