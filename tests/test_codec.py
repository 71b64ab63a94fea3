"""Le transport des valeurs : les données passent, rien d'autre, et des octets quelconques ne font rien tomber."""

import math

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.judging import codec
from atelier.judging.exercise import Draw

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20), st.just(2**80)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_trees_come_back_with_their_types(value):
    back = codec.loads(codec.dumps(value))
    assert back == value
    assert repr(back) == repr(value)  # distingue True de 1, 1 de 1.0, un n-uplet d'une liste, -0.0 de 0.0


def test_special_floats():
    back = codec.loads(codec.dumps([math.inf, -math.inf, math.nan, -0.0]))
    assert back[0] == math.inf and back[1] == -math.inf and math.isnan(back[2])
    assert math.copysign(1, back[3]) == -1


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.int8,
        torch.bool,
        *(dtype for dtype, _ in codec._VIEWS.values()),
    ],
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 1, 4)])
def test_tensors_keep_dtype_shape_values(dtype, shape):
    x = torch.arange(math.prod(shape)).reshape(shape).to(dtype)
    back = codec.loads(codec.dumps({"x": x}))["x"]
    assert back.dtype == dtype and back.shape == x.shape and torch.equal(back, x)


def test_non_contiguous_stays_non_contiguous():
    x = Draw(0).strided(torch.randn(3, 4))
    back = codec.loads(codec.dumps(x))
    assert not back.is_contiguous() and torch.equal(back, x)


class Lying(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "bad",
    [
        object(),
        {1: 2},
        {1, 2},
        (x for x in ()),
        torch.randn(2).to_sparse(),
        torch.randn(2, device="meta"),
        torch.zeros(2, dtype=torch.complex64),
        torch.Tensor._make_subclass(Lying, torch.zeros(2)),
        type("Int", (int,), {})(3),
    ],
)
def test_what_is_not_data_is_refused(bad):
    with pytest.raises(codec.CodecError):
        codec.dumps([bad])


def test_deep_structures_are_refused():
    deep: list = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(codec.CodecError):
        codec.dumps(deep)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_codec_error(data):
    try:
        codec.loads(data)
    except codec.CodecError:
        pass


@pytest.mark.parametrize(
    "tree", [{"$": "tensor", "v": "absent"}, {"$": "int", "v": "zz"}, {"$": "float", "v": "1e999"}, {"a": 1}, {"$": 3}]
)
def test_malformed_nodes(tree):
    with pytest.raises(codec.CodecError):
        codec.decode(tree, {})


def test_draws_replay_and_differ():
    a, b = (Draw(5, "x/courant", 0).normal(4) for _ in range(2))
    assert torch.equal(a, b)
    others = [Draw(6, "x/courant", 0), Draw(5, "x/bords", 0), Draw(5, "x/courant", 1)]
    assert all(not torch.equal(a, d.normal(4)) for d in others)
    assert [Draw(0, "x", i).turn("ab") for i in range(4)] == list("abab")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.uint8, torch.uint16, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
def test_tensors_are_the_safetensors_of_the_library(dtype, shape):
    tensors = {"t0": torch.ones(shape).to(dtype), "t1": torch.zeros(2)}
    assert codec.dumps(list(tensors.values())).endswith(safetensors.torch.save(tensors))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fnuz, torch.complex64])
def test_kinds_of_numbers_no_exercise_uses_are_refused_by_name(dtype):
    with pytest.raises(codec.CodecError, match=str(dtype)):
        codec.dumps(torch.zeros(2).to(dtype))


@pytest.mark.parametrize("lie", ["float32", "float8_e5m2", 3, None])
def test_a_kind_of_numbers_that_the_bytes_cannot_hold_is_refused(lie):
    with pytest.raises(codec.CodecError):
        codec.decode({"$": "tensor", "v": "t0", "dtype": lie}, {"t0": torch.zeros(2, dtype=torch.int16)})


def test_a_lazily_negated_tensor_keeps_its_values():
    x = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert x.is_neg() and codec.loads(codec.dumps(x)).tolist() == [-2.0, 4.0]
