"""Chapitre 3 : chaque référence face à une mise en œuvre indépendante, et les marges des cas tirés."""

from __future__ import annotations

import functools
import itertools
import math
import struct
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver

from atelier.judging.exercise import Inputs
from grader.authoring.chapters import load_chapter

CHAPTER = load_chapter("ch3_quantification")
MARGIN = 0.01
"""Distance minimale, en pas, entre ce qui est arrondi et un demi (exercises.md)."""


def reference(id: str) -> Any:
    return CHAPTER.reference(id)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- decode_float ---------------------------------------------------------------------------------------------------


def same_number(a: float, b: float) -> bool:
    """Même nombre, zéros signés compris ; tous les nan se valent."""
    return (math.isnan(a) and math.isnan(b)) or struct.pack("<d", a) == struct.pack("<d", b)


@pytest.mark.parametrize(
    ("whole", "real", "exponent_bits", "fraction_bits"),
    [
        (torch.int16, torch.float16, 5, 10),
        (torch.int16, torch.bfloat16, 8, 7),
        (torch.int8, torch.float8_e4m3fn, 4, 3),
        (torch.int8, torch.float8_e5m2, 5, 2),
    ],
)
def test_decode_float_on_every_pattern(
    whole: torch.dtype, real: torch.dtype, exponent_bits: int, fraction_bits: int
) -> None:
    width = 1 + exponent_bits + fraction_bits
    expected = torch.arange(2**width).to(whole).view(real).double().tolist()
    decode = reference("decode_float")
    wrong = [b for b in range(2**width) if not same_number(decode(b, exponent_bits, fraction_bits), expected[b])]
    assert wrong == []


def test_decode_float_on_fp32() -> None:
    edges = [s << 31 | e << 23 | f for s in (0, 1) for e in (0, 1, 127, 254, 255) for f in (0, 1, 2**22, 2**23 - 1)]
    patterns = edges + torch.randint(0, 2**32, (20_000,), generator=generator(0)).tolist()
    decode = reference("decode_float")
    for bits in patterns:
        assert same_number(decode(bits, 8, 23), struct.unpack("<f", struct.pack("<I", bits))[0]), hex(bits)


# --- quantification affine ------------------------------------------------------------------------------------------


def q_range(bits: int, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def from_tie(x: torch.Tensor | float) -> float:
    """Distance du plus proche demi, la plus petite de `x`."""
    x = torch.as_tensor(x, dtype=torch.float64)
    return (x - x.floor() - 0.5).abs().min().item()


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_affine_qparams_against_minmaxobserver(bits: int, signed: bool) -> None:
    g, q_min, q_max = generator(bits), *q_range(bits, signed)
    compared = 0
    for center, half in (torch.rand(60, 2, generator=g) * torch.tensor([6.0, 4.0]) - torch.tensor([3.0, 0.0])).tolist():
        observer = MinMaxObserver(torch.qint8 if signed else torch.quint8, quant_min=q_min, quant_max=q_max)
        ends = torch.tensor([center - half, center + half])
        observer(ends)
        scale, zero_point = observer.calculate_qparams()
        got = reference("affine_qparams")(ends[0].item(), ends[1].item(), bits, signed)
        assert got[0] == pytest.approx(scale.item(), rel=1e-6)
        if from_tie(q_min - min(ends[0].item(), 0.0) / got[0]) > 1e-3:
            assert got[1] == zero_point.item()
            compared += 1
    assert compared > 50


@pytest.mark.parametrize(
    ("r_min", "r_max"), [(-1.0, 3.0), (-0.3, 0.1), (2.0, 5.0), (-5.0, -2.0), (0.0, 1.0), (-1.0, 0.0)]
)
@pytest.mark.parametrize(("bits", "signed"), [(2, True), (4, False), (8, True), (16, False)])
def test_affine_qparams_sends_zero_and_the_ends_on_codes(r_min: float, r_max: float, bits: int, signed: bool) -> None:
    scale, zero_point = reference("affine_qparams")(r_min, r_max, bits, signed)
    q_min, q_max = q_range(bits, signed)
    assert q_min <= zero_point <= q_max
    for end, code in ((min(r_min, 0.0), q_min), (max(r_max, 0.0), q_max)):
        assert abs(scale * (code - zero_point) - end) <= scale / 2 * (1 + 1e-9)


def test_affine_qparams_zero_range() -> None:
    assert reference("affine_qparams")(0.0, 0.0) == (1.0, 0)
    assert reference("affine_qparams")(-0.0, 0.0, 4, False) == (1.0, 0)


@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8])
def test_quantize_affine_against_quantize_per_tensor(dtype: torch.dtype) -> None:
    g, signed = generator(1), dtype == torch.qint8
    for scale, zero_point in [(0.1, 3), (0.037, 20), (2.5, 0), (1e-3, 100)]:
        r = scale * (400 * torch.rand(17, 33, generator=g) - 200)
        r = r[(r / scale - (r / scale).floor() - 0.5).abs() > MARGIN]
        expected = torch.quantize_per_tensor(r, scale, zero_point, dtype).int_repr()
        got = reference("quantize_affine")(r, scale, zero_point, 8, signed)
        assert got.dtype == expected.dtype and torch.equal(got, expected)


def test_quantize_affine_rounds_halves_to_even_like_torch() -> None:
    r = torch.arange(-20, 20) / 2 * 0.25
    expected = torch.quantize_per_tensor(r, 0.25, 4, torch.qint8).int_repr()
    assert torch.equal(reference("quantize_affine")(r, 0.25, 4), expected)


@pytest.mark.parametrize(
    ("bits", "signed", "dtype"), [(9, True, torch.int32), (16, False, torch.int32), (2, False, torch.uint8)]
)
def test_quantize_affine_other_widths_by_hand(bits: int, signed: bool, dtype: torch.dtype) -> None:
    low, high = q_range(bits, signed)
    r = torch.linspace(-1.1 * 2**bits, 1.1 * 2**bits, 401).double() * 0.2
    got = reference("quantize_affine")(r, 0.2, 1, bits, signed)
    assert got.dtype == dtype
    assert got.tolist() == [max(low, min(high, round(v / 0.2) + 1)) for v in r.tolist()]


@pytest.mark.parametrize(
    ("dtype", "zero_point"), [(torch.int8, -128), (torch.int8, 127), (torch.uint8, 255), (torch.uint8, 3)]
)
def test_dequantize_affine_against_torch(dtype: torch.dtype, zero_point: int) -> None:
    low = -128 if dtype == torch.int8 else 0
    q = torch.arange(low, low + 256).to(dtype)
    expected = torch._make_per_tensor_quantized_tensor(q, 0.07, zero_point).dequantize()
    got = reference("dequantize_affine")(q, 0.07, zero_point)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


# --- échelles symétriques -------------------------------------------------------------------------------------------


def symmetric_observer(bits: int, **options: Any) -> dict[str, Any]:
    top = 2 ** (bits - 1) - 1
    return {"dtype": torch.qint8, "quant_min": -top, "quant_max": top} | options


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_absmax_scale_against_minmaxobserver(bits: int) -> None:
    for seed, shift in itertools.product(range(5), (-2.0, 0.0, 2.0)):
        r = torch.randn(6, 7, generator=generator(seed)) + shift
        observer = MinMaxObserver(**symmetric_observer(bits, qscheme=torch.per_tensor_symmetric))
        observer(r)
        expected = observer.calculate_qparams()[0].squeeze()
        torch.testing.assert_close(reference("absmax_scale")(r, bits), expected, rtol=1e-6, atol=0)


def test_absmax_scale_full_range_and_torch_default() -> None:
    """L'échelle que PyTorch choisit par défaut est entre les deux : il compte 127,5 crans."""
    r = torch.tensor([1.0, -4.0])
    observer = MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    observer(r)
    assert observer.calculate_qparams()[0].item() == pytest.approx(4 / 127.5)
    assert reference("absmax_scale")(r).item() == pytest.approx(4 / 127)
    assert reference("absmax_scale")(r, 8, True).item() == 4 / 128


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_absmax_per_channel_against_observer(axis: int) -> None:
    w = torch.randn(3, 4, 5, generator=generator(2))
    observer = PerChannelMinMaxObserver(ch_axis=axis % 3, **symmetric_observer(8, qscheme=torch.per_channel_symmetric))
    observer(w)
    got = reference("absmax_per_channel")(w, 8, axis)
    assert got.shape == torch.Size([w.shape[d] if d == axis % 3 else 1 for d in range(3)])
    torch.testing.assert_close(got.flatten(), observer.calculate_qparams()[0], rtol=1e-6, atol=0)


def test_symmetric_scales_on_zeros() -> None:
    assert reference("absmax_scale")(torch.zeros(3, dtype=torch.float64)).item() == 1.0
    w = torch.tensor([[0.0, 0.0], [0.0, -2.54]])
    torch.testing.assert_close(reference("absmax_per_channel")(w), torch.tensor([[1.0], [0.02]]))


# --- sqnr_db --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_sqnr_gains_six_decibels_per_bit(bits: int) -> None:
    """Signal uniforme, arrondi uniforme : 20·log10(2^bits), soit 6,02 dB par bit."""
    r = torch.rand(200_000, generator=generator(3), dtype=torch.float64) * 2 - 1
    step = 2 / 2**bits
    r_hat = (torch.floor(r / step) + 0.5) * step
    assert reference("sqnr_db")(r, r_hat) == pytest.approx(20 * math.log10(2**bits), abs=0.1)


def test_sqnr_by_hand() -> None:
    assert reference("sqnr_db")(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.5])) == pytest.approx(20.0)
    assert reference("sqnr_db")(torch.tensor([3.0]), torch.tensor([3.0])) == math.inf


# --- int8_linear ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_int8_linear_against_float64_and_int_mm(dtype: torch.dtype) -> None:
    g = generator(4)
    x = (torch.randn(20, 64, generator=g) * torch.logspace(-2, 2, 20)[:, None]).to(dtype)
    x[3] = 0
    w_q = torch.randint(-128, 128, (24, 64), generator=g).to(torch.int8)
    w_scale, bias = (torch.rand(24, 1, generator=g) / 100).to(dtype), torch.randn(24, generator=g).to(dtype)
    wide = x.double() if dtype == torch.float64 else x.float()
    x_scale = wide.abs().amax(dim=1, keepdim=True) / 127
    x_scale[x_scale == 0] = 1
    codes = torch.round(wide / x_scale).to(torch.int8)
    product = codes.double() @ w_q.double().T
    assert torch.equal(product, torch._int_mm(codes, w_q.T.contiguous()).double())
    expected = product * x_scale.double() * w_scale.double().T
    for given, total in ((None, expected), (bias, expected + bias.double())):
        got = reference("int8_linear")(x, w_q, w_scale, given)
        assert got.dtype == dtype
        tolerance = 1e-5 if dtype in (torch.float32, torch.float64) else 1e-2
        torch.testing.assert_close(got.double(), total, rtol=tolerance, atol=tolerance * total.abs().max().item())


# --- pack_int4, unpack_int4 -----------------------------------------------------------------------------------------


def test_pack_every_pair_and_back() -> None:
    pairs = torch.tensor(list(itertools.product(range(-8, 8), repeat=2)), dtype=torch.int8)
    packed = reference("pack_int4")(pairs)
    assert packed.dtype == torch.uint8 and packed.shape == (256, 1)
    for (low, high), octet in zip(pairs.tolist(), packed[:, 0].tolist(), strict=True):
        assert octet == int(format(high % 16, "04b") + format(low % 16, "04b"), 2)
    assert torch.equal(reference("unpack_int4")(packed, 2), pairs)


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 3, 4), (2, 0), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64])
def test_pack_round_trip(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    q = torch.randint(-8, 8, shape, generator=generator(5)).to(dtype)
    packed = reference("pack_int4")(q)
    assert packed.shape == (*shape[:-1], math.ceil(shape[-1] / 2))
    assert torch.equal(reference("unpack_int4")(packed, shape[-1]), q.to(torch.int8))


@pytest.mark.parametrize("value", [-9, 8, 127, -128])
def test_pack_refuses(value: int) -> None:
    with pytest.raises(ValueError):
        reference("pack_int4")(torch.tensor([0, value], dtype=torch.int8))


# --- mse_scale ------------------------------------------------------------------------------------------------------


def best_step(row: list[float], bits: int, ratios: list[float]) -> float:
    """Tous les candidats, l'un après l'autre, en nombres rationnels."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    values = [Fraction(v) for v in row]
    widest = max(map(abs, values)) / -low
    if not widest:
        return 1.0
    tried = {}
    for step in (widest * Fraction(r) for r in ratios):
        tried[step] = sum((max(low, min(high, round(v / step))) * step - v) ** 2 for v in values)
    return float(max(step for step, error in tried.items() if error == min(tried.values())))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_scale_against_brute_force(bits: int) -> None:
    for seed in range(5):
        w = torch.randn(5, 12, generator=generator(seed), dtype=torch.float64)
        w[1] = 0
        ratios = torch.rand(6, generator=generator(seed + 9), dtype=torch.float64) * 0.8 + 0.2
        got = reference("mse_scale")(w, bits, ratios)
        expected = [[best_step(row, bits, ratios.tolist())] for row in w.tolist()]
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_mse_scale_keeps_the_larger_of_two_equals() -> None:
    for seed in range(200):
        w = torch.randint(-16, 17, (3, 4), generator=generator(seed)).float() / 8
        got = reference("mse_scale")(w, 2, torch.tensor([0.25, 1.0, 0.5, 0.75]))
        assert got.flatten().tolist() == [best_step(row, 2, [0.25, 0.5, 0.75, 1.0]) for row in w.tolist()]


# --- mx_quantize ----------------------------------------------------------------------------------------------------


def mx_by_codes(x: torch.Tensor, block_size: int) -> torch.Tensor:
    """Par la table des codes : le plus proche de ceux que lit decode_float, le code pair à égalité ; en rationnels.

    Les deux plus grands, qui seraient un infini et un nan pour l'IEEE, sont 4 et 6.
    """
    levels = [Fraction(reference("decode_float")(code, 2, 1)) for code in range(6)] + [Fraction(4), Fraction(6)]
    found = []
    for block in x.double().reshape(-1, block_size).tolist():
        peak = max(abs(Fraction(v)) for v in block)
        scale = Fraction(1)
        while peak and not 4 <= peak / scale < 8:
            scale = scale / 2 if peak / scale < 4 else scale * 2
        for v in block:
            code = min(range(8), key=lambda k: (abs(abs(Fraction(v)) / scale - levels[k]), k % 2))
            found.append(math.copysign(float(levels[code] * scale), v))
    return torch.tensor(found, dtype=torch.float64).reshape(x.shape).to(x.dtype)


@pytest.mark.parametrize(("shape", "block_size"), [((3, 64), 32), ((2, 3, 16), 4), ((8,), 8), ((0, 32), 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_mx_against_the_table_of_codes(shape: tuple[int, ...], block_size: int, dtype: torch.dtype) -> None:
    x = (torch.randn(shape, generator=generator(7)) * torch.logspace(-2, 2, shape[-1])).to(dtype)
    x[..., -block_size:] *= x.ndim == 1  # des blocs nuls
    got = reference("mx_quantize")(x, block_size)
    assert got.dtype == dtype and got.shape == x.shape and torch.equal(got, mx_by_codes(x, block_size))


def test_mx_on_every_quarter_of_a_step() -> None:
    """Toutes les valeurs, tous les milieux, tout ce qui dépasse, à plusieurs échelles ; et juste sous une puissance."""
    for power in (-9, 0, 5):
        quarters = torch.arange(-31, 32) / 4 * 2.0**power
        x = torch.stack([torch.full_like(quarters, 4 * 2.0**power), quarters], dim=-1)
        assert torch.equal(reference("mx_quantize")(x, 2), mx_by_codes(x, 2))
    just_under = torch.nextafter(torch.tensor(8.0), torch.tensor(0.0))
    assert reference("mx_quantize")(torch.stack([just_under, torch.tensor(3.4)]), 2).tolist() == [6.0, 3.0]


def test_mx_against_torchao() -> None:
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import to_dtype, to_mx

    x = torch.randn(16, 128, generator=generator(8)) * torch.logspace(-3, 3, 16)[:, None]
    scale, data = to_mx(x, torch.float4_e2m1fn_x2, 32, ScaleCalculationMode.FLOOR)
    expected = to_dtype(data, scale, torch.float4_e2m1fn_x2, 32, torch.float32)
    torch.testing.assert_close(reference("mx_quantize")(x), expected, rtol=0, atol=0)


def test_mx_refuses_what_its_blocks_do_not_cover() -> None:
    with pytest.raises(ValueError):
        reference("mx_quantize")(torch.ones(2, 48))


# --- marges des cas tirés -------------------------------------------------------------------------------------------


def margin_quantize(group: str, c: Inputs) -> float:
    steps = c["r"].double() / c["scale"]
    only_ties = bool((steps - steps.floor() == 0.5).all())  # l'exemple dont les demis sont le sujet
    return math.inf if group == "demis" or only_ties else from_tie(steps)


def margin_qparams(group: str, c: Inputs) -> float:
    if group == "refus":
        return math.inf
    q_min, q_max = q_range(c.get("bits", 8), c.get("signed", True))
    low, high = min(c["r_min"], 0.0), max(c["r_max"], 0.0)
    return math.inf if low == high else from_tie(q_min - low * (q_max - q_min) / (high - low))


def margin_int8_linear(group: str, c: Inputs) -> float:
    x = c["x"].double()
    scale = x.abs().amax(dim=1, keepdim=True) / 127
    scale[scale == 0] = 1
    return from_tie(x / scale)


def margin_gptq(group: str, c: Inputs) -> float:
    """Ce qu'il manque à un arrondi pour basculer : on le mesure en déplaçant chaque colonne de la marge."""
    w, x, bits, damp = c["w"].double(), c["x"].double(), c.get("bits", 4), c.get("damp", 0.01)
    scale = c["scale"][:, 0].double()
    h = 2 * x.T @ x
    h += damp * h.diagonal().mean() * torch.eye(len(h))
    h = h if x.any() else torch.eye(len(h)).double()
    w_hat = reference("gptq_quantize")(w, x, c["scale"], bits, damp)
    closest = math.inf
    for j in range(len(h)):
        push = torch.linalg.solve(h[j:, j:], h[j:, :j] @ (w_hat[:, :j] - w[:, :j]).T).T[:, 0]
        closest = min(closest, from_tie((w[:, j] - push) / scale))
    return closest


def margin_mx(group: str, c: Inputs) -> float:
    if group in ("bords", "refus") or len(c["x"]) == c.get("block_size"):  # les égalités y sont le sujet
        return math.inf
    blocks = c["x"].double().unflatten(-1, (-1, c.get("block_size", 32)))
    exponent = torch.frexp(blocks.abs().amax(-1, keepdim=True)).exponent - 3
    size = torch.ldexp(blocks, -exponent).abs()
    return (size[..., None] - torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])).abs().min().item()


MARGINS = {
    "affine_qparams": margin_qparams,
    "quantize_affine": margin_quantize,
    "int8_linear": margin_int8_linear,
    "gptq_quantize": margin_gptq,
    "mx_quantize": margin_mx,
}


@functools.cache
def drawn(id: str) -> list[tuple[str, Inputs]]:
    exercise = CHAPTER.exercises[id]
    first = next(iter(exercise.groups))
    hidden = [case for seed in range(12) for case in exercise.draw_cases(id, seed, exercise.cases)]
    return [*((first, inputs) for inputs in exercise.examples), *hidden]


@pytest.mark.parametrize("id", MARGINS)
def test_cases_keep_away_from_ties(id: str) -> None:
    for group, inputs in drawn(id):
        assert MARGINS[id](group, inputs) >= MARGIN, (group, inputs)


def test_typical_gptq_cases_have_an_effect() -> None:
    """Chaque cas courant distingue GPTQ de l'arrondi simple : sinon il ne prouverait rien."""
    for group, c in drawn("gptq_quantize"):
        if group != "bords":
            w, scale = c["w"].double(), c["scale"].double()
            rtn = torch.round(w / scale) * scale
            assert not torch.allclose(reference("gptq_quantize")(**c).double(), rtn, atol=1e-4)
