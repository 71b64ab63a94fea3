"""Comparer une réponse à celle de la référence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from outcomes import CLOSE, LIES, kind, raised, value

from atelier.judging.compare import compare, unchanged
from atelier.judging.exercise import EXACT, Tolerance
from atelier.judging.writing import describe, format_pair

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
