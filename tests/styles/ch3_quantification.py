"""Réponses justes du chapitre 3, dans d'autres styles que la référence : toutes doivent avoir tous les points."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver

# --- decode_float ---------------------------------------------------------------------------------------------------


def decode_text(bits, exponent_bits, fraction_bits):
    text = format(bits, f"0{1 + exponent_bits + fraction_bits}b")
    sign, exponent, fraction = text[0], text[1 : 1 + exponent_bits], text[1 + exponent_bits :]
    ieee = (exponent_bits, fraction_bits) != (4, 3)
    if "0" not in exponent and (ieee or "0" not in fraction):
        value = math.nan if "1" in fraction else math.inf
    else:
        value, weight = (0.0 if "1" not in exponent else 1.0), 0.5
        for bit in fraction:
            value += weight * (bit == "1")
            weight /= 2
        value *= 2.0 ** (max(int(exponent, 2), 1) - (2 ** (exponent_bits - 1) - 1))
    return -value if sign == "1" else value


def decode_exact(bits, exponent_bits, fraction_bits):
    bits, fraction = divmod(bits, 1 << fraction_bits)
    sign, exponent = divmod(bits, 1 << exponent_bits)
    bias = (1 << exponent_bits - 1) - 1
    if exponent == (1 << exponent_bits) - 1 and (exponent_bits, fraction_bits) != (4, 3):
        magnitude = float("nan") if fraction else float("inf")
    elif (exponent_bits, fraction_bits, exponent, fraction) == (4, 3, 15, 7):
        return float("nan")
    else:
        mantissa = Fraction(fraction, 1 << fraction_bits) + (1 if exponent else 0)
        magnitude = float(mantissa * Fraction(2) ** (max(exponent, 1) - bias))
    return math.copysign(magnitude, -1.0 if sign else 1.0)


def decode_ldexp(bits, exponent_bits, fraction_bits):
    e = (bits >> fraction_bits) % 2**exponent_bits
    f = bits % 2**fraction_bits
    if e == 2**exponent_bits - 1:
        if (exponent_bits, fraction_bits) == (4, 3):
            if f == 7:
                return math.nan
        else:
            return math.nan if f else (-1) ** (bits >> exponent_bits + fraction_bits) * math.inf
    whole = f + (2**fraction_bits if e else 0)
    return (-1.0) ** (bits >> exponent_bits + fraction_bits) * math.ldexp(
        whole, max(e, 1) - 2 ** (exponent_bits - 1) + 1 - fraction_bits
    )


def decode_views(bits, exponent_bits, fraction_bits):
    known = {
        (8, 23): (torch.int32, torch.float32),
        (5, 10): (torch.int16, torch.float16),
        (8, 7): (torch.int16, torch.bfloat16),
        (4, 3): (torch.int8, torch.float8_e4m3fn),
    }
    if (exponent_bits, fraction_bits) not in known:
        return decode_exact(bits, exponent_bits, fraction_bits)
    whole, real = known[exponent_bits, fraction_bits]
    width = 1 + exponent_bits + fraction_bits
    signed = bits - 2**width if bits >= 2 ** (width - 1) else bits
    return torch.tensor(signed, dtype=whole).view(real).double().item()


# --- affine_qparams -------------------------------------------------------------------------------------------------


def _refuse(r_min, r_max, bits):
    if bits < 2 or not (-math.inf < r_min <= r_max < math.inf):
        raise ValueError("intervalle ou nombre de bits refusé")


def qparams_float32(r_min, r_max, bits=8, signed=True):
    _refuse(r_min, r_max, bits)
    low, high = torch.tensor(min(0.0, r_min)), torch.tensor(max(0.0, r_max))
    q_min = -(1 << bits - 1) if signed else 0
    q_max = q_min + (1 << bits) - 1
    if low == high:
        return 1.0, 0
    scale = (high - low) / (q_max - q_min)
    return scale.item(), int((q_min - torch.round(low / scale)).clamp(q_min, q_max))


def qparams_exact(r_min, r_max, bits=8, signed=True):
    _refuse(r_min, r_max, bits)
    low, high = Fraction(min(0.0, r_min)), Fraction(max(0.0, r_max))
    if low == high:
        return 1.0, 0
    scale = (high - low) / (2**bits - 1)
    start = -(2 ** (bits - 1)) if signed else 0
    return float(scale), round(start - low / scale)


def qparams_numpy(r_min, r_max, bits=8, signed=True):
    _refuse(r_min, r_max, bits)
    codes = np.arange(2**bits) - (2 ** (bits - 1) if signed else 0)
    low, high = np.minimum(r_min, 0.0), np.maximum(r_max, 0.0)
    if high - low == 0:
        return 1.0, 0
    scale = (high - low) / (codes[-1] - codes[0])
    return float(scale), int(np.clip(np.rint(codes[-1] - high / scale), codes[0], codes[-1]))


def qparams_observer(r_min, r_max, bits=8, signed=True):
    _refuse(r_min, r_max, bits)
    if bits > 8 or r_min == r_max == 0:
        return qparams_float32(r_min, r_max, bits, signed)
    q_min = -(2 ** (bits - 1)) if signed else 0
    dtype = torch.qint8 if signed else torch.quint8
    observer = MinMaxObserver(dtype=dtype, quant_min=q_min, quant_max=q_min + 2**bits - 1)
    observer(torch.tensor([r_min, r_max]))
    scale, zero_point = observer.calculate_qparams()
    return scale.item(), zero_point.item()


# --- quantize_affine ------------------------------------------------------------------------------------------------


def _bounds(bits, signed):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _storage(bits, signed):
    return torch.int32 if bits > 8 else torch.int8 if signed else torch.uint8


def quantize_loops(r, scale, zero_point, bits=8, signed=True):
    low, high = _bounds(bits, signed)
    codes = [max(low, min(high, round(v / scale) + zero_point)) for v in r.flatten().tolist()]
    return torch.tensor(codes, dtype=_storage(bits, signed)).reshape(r.shape)


def quantize_numpy(r, scale, zero_point, bits=8, signed=True):
    codes = np.rint(r.double().numpy() * (1 / scale)) + zero_point
    return torch.tensor(np.clip(codes, *_bounds(bits, signed))).to(_storage(bits, signed))


def quantize_own_type(r, scale, zero_point, bits=8, signed=True):
    low, high = _bounds(bits, signed)
    whole = torch.round(r * (1 / scale)).to(torch.int64) + zero_point
    return torch.clamp(whole, min=low, max=high).to(_storage(bits, signed))


def quantize_tensor_scale(r, scale, zero_point, bits=8, signed=True):
    low, high = _bounds(bits, signed)
    scale = torch.tensor(scale, dtype=torch.float32)
    return ((r.float() / scale).round() + zero_point).clip(low, high).type(_storage(bits, signed))


def quantize_scale_in_own_type(r, scale, zero_point, bits=8, signed=True):
    low, high = _bounds(bits, signed)
    codes = torch.div(r, r.new_tensor(scale)).round_().add_(zero_point)
    return codes.clamp_(low, high).to(_storage(bits, signed))


def quantize_bounds_first(r, scale, zero_point, bits=8, signed=True):
    low, high = _bounds(bits, signed)
    r = r.double().clamp((low - zero_point) * scale, (high - zero_point) * scale)
    return ((r / scale).round() + zero_point).to(_storage(bits, signed))


def quantize_fake(r, scale, zero_point, bits=8, signed=True):
    low, high = _bounds(bits, signed)
    decoded = torch.fake_quantize_per_tensor_affine(r.float(), scale, zero_point, low, high)
    return ((decoded / scale).round() + zero_point).to(_storage(bits, signed))


def quantize_library(r, scale, zero_point, bits=8, signed=True):
    if bits != 8:
        return quantize_loops(r, scale, zero_point, bits, signed)
    dtype = torch.qint8 if signed else torch.quint8
    return torch.quantize_per_tensor(r.float(), scale, zero_point, dtype).int_repr()


# --- dequantize_affine ----------------------------------------------------------------------------------------------


def dequantize_loops(q, scale, zero_point):
    values = [scale * (v - zero_point) for v in q.flatten().tolist()]
    return torch.tensor(values, dtype=torch.float32).reshape(q.shape)


def dequantize_float64(q, scale, zero_point):
    return ((q.to(torch.float64) - zero_point) * scale).to(torch.float32)


def dequantize_distributed(q, scale, zero_point):
    return q.float() * scale - scale * zero_point


def dequantize_integers(q, scale, zero_point):
    return q.to(torch.int64).sub(zero_point).float().mul(torch.tensor(scale))


def dequantize_numpy(q, scale, zero_point):
    return torch.tensor(scale * (q.numpy().astype(np.int64) - zero_point), dtype=torch.float32)


def dequantize_library(q, scale, zero_point):
    if q.dtype == torch.int32:
        return dequantize_float64(q, scale, zero_point)
    return torch._make_per_tensor_quantized_tensor(q.contiguous(), scale, zero_point).dequantize()


# --- absmax_scale ---------------------------------------------------------------------------------------------------


def absmax_loops(r, bits=8, full_range=False):
    peak = 0.0
    for v in r.flatten().tolist():
        peak = max(peak, abs(v))
    levels = 2 ** (bits - 1) if full_range else 2 ** (bits - 1) - 1
    return torch.tensor(peak / levels if peak else 1.0, dtype=r.dtype)


def absmax_float64(r, bits=8, full_range=False):
    wide = r.to(torch.float64)
    peak = torch.maximum(wide.amax(), -wide.amin())
    if peak == 0:
        return r.new_ones(())
    return (peak / ((1 << (bits - 1)) - (not full_range))).to(r.dtype)


def absmax_norm(r, bits=8, full_range=False):
    scale = torch.linalg.vector_norm(r, ord=math.inf) / (2 ** (bits - 1) - 1 + int(full_range))
    return scale if scale > 0 else torch.ones_like(scale)


def absmax_numpy(r, bits=8, full_range=False):
    peak = np.abs(r.double().numpy()).max()
    scale = peak / -_bounds(bits, True)[0] if full_range else peak / _bounds(bits, True)[1]
    return torch.tensor(float(scale) or 1.0).to(r.dtype)


# --- absmax_per_channel ---------------------------------------------------------------------------------------------


def channel_loops(w, bits=8, axis=0):
    shape = [1] * w.ndim
    shape[axis] = w.shape[axis]
    scales = w.new_ones(shape)
    for i in range(w.shape[axis]):
        peak = w.select(axis, i).abs().max()
        if peak > 0:
            scales.select(axis, i)[...] = peak / (2 ** (bits - 1) - 1)
    return scales


def channel_flat(w, bits=8, axis=0):
    rows = w.movedim(axis, 0).flatten(1).double()
    peak = torch.maximum(rows.max(dim=1).values, -rows.min(dim=1).values)
    scales = (peak / (2 ** (bits - 1) - 1)).masked_fill(peak == 0, 1.0)
    return scales.to(w.dtype).reshape([-1 if d == axis % w.ndim else 1 for d in range(w.ndim)])


def channel_numpy(w, bits=8, axis=0):
    a = np.abs(w.double().numpy())
    axis = axis + a.ndim if axis < 0 else axis
    peak = a.max(axis=tuple(d for d in range(a.ndim) if d != axis), keepdims=True)
    return torch.tensor(np.where(peak == 0, 1.0, peak / (2 ** (bits - 1) - 1))).to(w.dtype)


def channel_observer(w, bits=8, axis=0):
    axis %= w.ndim
    top = 2 ** (bits - 1) - 1
    observer = PerChannelMinMaxObserver(
        ch_axis=axis, dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-top, quant_max=top
    )
    observer(w.float())
    scales, _ = observer.calculate_qparams()
    zero = torch.maximum(observer.max_val, -observer.min_val) == 0
    scales = torch.where(zero, torch.ones_like(scales), scales).to(w.dtype)
    return scales.reshape([-1 if d == axis else 1 for d in range(w.ndim)])


# --- sqnr_db --------------------------------------------------------------------------------------------------------


def sqnr_loops(r, r_hat):
    signal = noise = 0.0
    for a, b in zip(r.flatten().tolist(), r_hat.flatten().tolist(), strict=True):
        signal += a * a
        noise += (a - b) ** 2
    return 10 * math.log10(signal / noise) if noise else float("inf")


def sqnr_norms(r, r_hat):
    return 20 * torch.log10(torch.linalg.vector_norm(r) / torch.linalg.vector_norm(r - r_hat))


def sqnr_numpy(r, r_hat):
    r, r_hat = r.numpy(), r_hat.numpy()
    if (r == r_hat).all():
        return np.inf
    return 10 * np.log10(np.mean(r**2) / np.mean((r - r_hat) ** 2))


def sqnr_dot(r, r_hat):
    error = (r - r_hat).flatten()
    noise = torch.dot(error, error).item()
    if noise == 0:
        return math.inf
    return 10 * (math.log(torch.dot(r.flatten(), r.flatten()).item()) - math.log(noise)) / math.log(10)


# --- int8_linear ----------------------------------------------------------------------------------------------------


def linear_loops(x, w_q, w_scale, bias=None):
    rows, weights = x.double().tolist(), w_q.tolist()
    y = torch.zeros(len(rows), len(weights), dtype=torch.float64)
    for i, row in enumerate(rows):
        scale = max(abs(v) for v in row) / 127 or 1.0
        codes = [round(v / scale) for v in row]
        for o, weight in enumerate(weights):
            total = sum(a * b for a, b in zip(codes, weight, strict=True))
            y[i, o] = total * scale * w_scale[o, 0].item() + (0.0 if bias is None else bias[o].item())
    return y.to(x.dtype)


def linear_float64(x, w_q, w_scale, bias=None):
    wide = x.double()
    scale = wide.abs().max(dim=1).values / 127
    scale[scale == 0] = 1
    codes = (wide / scale[:, None]).round().clamp(-127, 127)
    y = torch.einsum("ni,oi->no", codes, w_q.double()) * torch.outer(scale, w_scale[:, 0].double())
    return (y if bias is None else y + bias.double()).to(x.dtype)


def linear_own_type(x, w_q, w_scale, bias=None):
    peak = x.abs().amax(1, keepdim=True)
    scale = torch.where(peak == 0, 1, peak / 127).to(x.dtype)
    codes = torch.round(x / scale).to(torch.int8)
    total = torch.matmul(codes.int(), w_q.int().t())
    y = total.to(x.dtype) * scale * w_scale.flatten()
    return y if bias is None else y + bias


def linear_int_mm(x, w_q, w_scale, bias=None):
    peak = x.float().abs().amax(1, keepdim=True)
    inverse = torch.where(peak > 0, 127 / peak, torch.ones_like(peak))
    total = torch._int_mm((x.float() * inverse).round().to(torch.int8), w_q.T.contiguous())
    y = total.double() * (1 / inverse.double()) * w_scale.double().view(1, -1)
    y = y + bias if bias is not None else y
    return y.to(x.dtype)


def linear_numpy(x, w_q, w_scale, bias=None):
    a = x.double().numpy()
    peak = np.abs(a).max(axis=1, keepdims=True)
    scale = np.where(peak > 0, peak / 127, 1.0)
    total = np.rint(a / scale).astype(np.int64) @ w_q.numpy().astype(np.int64).T
    y = torch.tensor(total * scale * w_scale.double().numpy().T)
    return (y if bias is None else y + bias).to(x.dtype)


# --- pack_int4, unpack_int4 -----------------------------------------------------------------------------------------


def pack_loops(q):
    rows = q.reshape(-1, q.shape[-1]).tolist()
    packed = []
    for row in rows:
        if min(row) < -8 or max(row) > 7:
            raise ValueError("hors de [−8, 7]")
        row = row + [0] * (len(row) % 2)
        packed.append([(row[i] % 16) + 16 * (row[i + 1] % 16) for i in range(0, len(row), 2)])
    return torch.tensor(packed, dtype=torch.uint8).reshape(*q.shape[:-1], -1)


def pack_arithmetic(q):
    if q.min() < -8 or q.max() > 7:
        raise ValueError("hors de [−8, 7]")
    unsigned = torch.where(q < 0, q.long() + 16, q.long())
    pairs = torch.zeros(*q.shape[:-1], 2 * math.ceil(q.shape[-1] / 2), dtype=torch.long)
    pairs[..., : q.shape[-1]] = unsigned
    pairs = pairs.unflatten(-1, (-1, 2))
    return (pairs[..., 0] + 16 * pairs[..., 1]).to(torch.uint8)


def pack_numpy(q):
    a = q.numpy()
    if not np.isin(a, np.arange(-8, 8)).all():
        raise ValueError("hors de [−8, 7]")
    a = np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, a.shape[-1] % 2)]).astype(np.uint8) & 15
    return torch.from_numpy(a[..., ::2] | (a[..., 1::2] << 4))


def pack_views(q):
    if torch.any(q != q.clamp(-8, 7)):
        raise ValueError("hors de [−8, 7]")
    low, high = q[..., ::2].to(torch.int32), q[..., 1::2].to(torch.int32)
    octets = low % 16
    octets[..., : high.shape[-1]] += (high % 16) * 16
    return octets.to(torch.uint8)


def unpack_loops(p, n):
    rows = p.reshape(-1, p.shape[-1]).tolist()
    unpacked = []
    for row in rows:
        halves = [half for octet in row for half in (octet % 16, octet // 16)]
        unpacked.append([half - 16 if half > 7 else half for half in halves[:n]])
    return torch.tensor(unpacked, dtype=torch.int8).reshape(*p.shape[:-1], n)


def unpack_shifts(p, n):
    low, high = (p << 4).view(torch.int8) >> 4, p.contiguous().view(torch.int8) >> 4
    return torch.stack((low, high), dim=-1).reshape(*p.shape[:-1], -1)[..., :n]


def unpack_table(p, n):
    signed = [*range(8), *range(-8, 0)]
    table = torch.tensor([[signed[i % 16], signed[i // 16]] for i in range(256)], dtype=torch.int8)
    table = table.to(p.device)
    return table[p.long()].flatten(-2)[..., :n].contiguous()


def unpack_numpy(p, n):
    a = p.numpy()
    out = np.empty((*a.shape[:-1], 2 * a.shape[-1]), dtype=np.int16)
    out[..., 0::2], out[..., 1::2] = a & 15, a >> 4
    return torch.tensor(((out + 8) % 16 - 8)[..., :n], dtype=torch.int8)


# --- gptq_quantize --------------------------------------------------------------------------------------------------


def gptq_reduced_hessians(w, x, bits=4, damp=0.01):
    """OBQ : à chaque pas, l'inverse de la hessienne des colonnes encore libres, recalculé."""
    rest, x, top = w.double().clone(), x.double(), 2 ** (bits - 1) - 1
    scale = rest.abs().amax(1, keepdim=True) / top
    scale[scale == 0] = 1
    h = 2 * x.T @ x
    one = torch.eye(len(h)).to(h)
    h = h + damp * torch.diag(h).mean() * one
    done = []
    for j in range(w.shape[1]):
        inverse = torch.linalg.inv(h[j:, j:]) if x.any() else one[j:, j:]
        done.append((rest[:, :1] / scale).round().clamp(-top - 1, top) * scale)
        rest = rest[:, 1:] - (rest[:, :1] - done[-1]) * (inverse[:1, 1:] / inverse[0, 0])
    return torch.cat(done, dim=1).to(w.dtype)


def gptq_loops(w, x, bits=4, damp=0.01):
    n_out, n_in = w.shape
    rows, samples, top = w.double().tolist(), x.double().tolist(), 2 ** (bits - 1) - 1
    h = [[sum(s[a] * s[b] for s in samples) for b in range(n_in)] for a in range(n_in)]
    mean = sum(h[a][a] for a in range(n_in)) / n_in
    for a in range(n_in):
        h[a][a] += damp * mean if mean else 1.0
    upper = torch.linalg.cholesky(torch.linalg.inv(torch.tensor(h, dtype=torch.float64))).T.tolist()
    for row in rows:
        scale = max(abs(v) for v in row) / top or 1.0
        for j in range(n_in):
            rounded = scale * max(-top - 1, min(top, round(row[j] / scale)))
            error, row[j] = (row[j] - rounded) / upper[j][j], rounded
            for k in range(j + 1, n_in):
                row[k] -= error * upper[j][k]
    return torch.tensor(rows, dtype=torch.float64).to(w.dtype)


def gptq_elimination(w, x, bits=4, damp=0.01):
    """L'inverse est réduit par élimination après chaque colonne, sans Cholesky ; H sans son facteur 2."""
    rest, top = w.to(torch.float64, copy=True), 2 ** (bits - 1) - 1
    scale = rest.abs().amax(dim=1) / top
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    h = x.double().T @ x.double()
    mean = h.diagonal().mean()
    one = torch.eye(len(h), dtype=h.dtype, device=h.device)
    inverse = torch.linalg.inv(h + damp * mean * one) if mean > 0 else one
    for j in range(len(h)):
        rounded = torch.clamp(torch.round(rest[:, j] / scale), -top - 1, top) * scale
        step = (rest[:, j] - rounded) / inverse[j, j]
        rest[:, j + 1 :] -= step[:, None] * inverse[j, j + 1 :]
        rest[:, j] = rounded
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return rest.to(w.dtype)


def gptq_numpy(w, x, bits=4, damp=0.01):
    a, s, top = w.double().numpy().copy(), x.double().numpy(), 2 ** (bits - 1) - 1
    scale = np.abs(a).max(axis=1) / top
    scale[scale == 0] = 1.0
    h = 2 * s.T @ s
    if not s.any():
        return torch.tensor(np.rint(a / scale[:, None]).clip(-top - 1, top) * scale[:, None]).to(w.dtype)
    h += damp * np.trace(h) / len(h) * np.eye(len(h))
    upper = np.linalg.cholesky(np.linalg.solve(h, np.eye(len(h)))).T
    for j in range(len(h)):
        column = a[:, j].copy()
        a[:, j] = np.clip(np.rint(column / scale), -top - 1, top) * scale
        later = slice(j + 1, None)
        a[:, later] -= np.outer((column - a[:, j]) / upper[j, j], upper[j, later])
    return torch.tensor(a).to(w.dtype)


STYLES = {
    "decode_float": [decode_text, decode_exact, decode_ldexp, decode_views],
    "affine_qparams": [qparams_float32, qparams_exact, qparams_numpy, qparams_observer],
    "quantize_affine": [
        quantize_loops,
        quantize_numpy,
        quantize_own_type,
        quantize_tensor_scale,
        quantize_scale_in_own_type,
        quantize_bounds_first,
        quantize_fake,
        quantize_library,
    ],
    "dequantize_affine": [
        dequantize_loops,
        dequantize_float64,
        dequantize_distributed,
        dequantize_integers,
        dequantize_numpy,
        dequantize_library,
    ],
    "absmax_scale": [absmax_loops, absmax_float64, absmax_norm, absmax_numpy],
    "absmax_per_channel": [channel_loops, channel_flat, channel_numpy, channel_observer],
    "sqnr_db": [sqnr_loops, sqnr_norms, sqnr_numpy, sqnr_dot],
    "int8_linear": [linear_loops, linear_float64, linear_own_type, linear_int_mm, linear_numpy],
    "pack_int4": [pack_loops, pack_arithmetic, pack_numpy, pack_views],
    "unpack_int4": [unpack_loops, unpack_shifts, unpack_table, unpack_numpy],
    "gptq_quantize": [gptq_reduced_hessians, gptq_loops, gptq_elimination, gptq_numpy],
}
