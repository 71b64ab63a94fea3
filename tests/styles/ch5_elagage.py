"""Réponses justes du chapitre 5, dans d'autres styles que la référence : toutes doivent avoir tous les points."""

from __future__ import annotations

import itertools

import numpy as np
import torch

# --- sparsity -------------------------------------------------------------------------------------------------------


def sparsity_list(tensors):
    kept = list(tensors)
    return sum(int(t.numel() - torch.count_nonzero(t)) for t in kept) / sum(t.numel() for t in kept)


def sparsity_concatenated(tensors):
    flat = torch.cat([t.detach().reshape(-1).double() for t in tensors])
    return (flat == 0).double().mean().item()


def sparsity_float32(tensors):
    zeros, total = torch.tensor(0.0), 0
    for t in tensors:
        zeros = zeros + (t == 0).sum()
        total += t.numel()
    return float(zeros / total)


def sparsity_numpy(tensors):
    a, b = itertools.tee(tensors)
    zeros = sum((t.float().numpy() == 0).sum() for t in a)
    return zeros / sum(t.numel() for t in b)


# --- magnitude_mask -------------------------------------------------------------------------------------------------


def _check(amount):
    if amount < 0 or amount > 1:
        raise ValueError("part")


def magnitude_python(w, amount):
    _check(amount)
    values = w.reshape(-1).tolist()
    order = sorted(range(len(values)), key=lambda i: abs(values[i]))
    gone = set(order[: round(amount * len(values))])
    return torch.tensor([i not in gone for i in range(len(values))]).reshape(w.shape)


def magnitude_ranks(w, amount):
    _check(amount)
    ranks = torch.argsort(torch.argsort(w.detach().abs().reshape(-1), stable=True))
    return (ranks >= int(round(amount * w.numel()))).view(w.shape)


def magnitude_numpy(w, amount):
    _check(amount)
    flat = np.abs(w.double().numpy()).ravel()
    mask = np.ones(flat.size, dtype=bool)
    mask[np.argsort(flat, kind="stable")[: int(amount * flat.size + 0.5)]] = False
    return torch.from_numpy(mask.reshape(tuple(w.shape)))


def magnitude_topk_removed(w, amount):
    """Un petit décalage, d'après la place, départage les égalités avant un topk."""
    _check(amount)
    k = round(amount * w.numel())
    mask = torch.ones(w.numel(), dtype=torch.bool, device=w.device)
    flat = w.abs().flatten().double()
    flat = flat + torch.arange(len(flat), device=w.device) * 1e-9
    mask[torch.topk(flat, k, largest=False).indices] = False
    return mask.view_as(w)


def magnitude_sort_values(w, amount):
    if not (amount >= 0 and amount <= 1):
        raise ValueError
    k = round(w.numel() * amount)
    _, indices = torch.sort(w.abs().flatten(), stable=True)
    return torch.ones_like(w.flatten(), dtype=torch.bool).index_fill(0, indices[:k], False).reshape(w.shape)


# --- global_magnitude_masks -----------------------------------------------------------------------------------------


def global_python(weights, amount):
    _check(amount)
    entries = [(abs(v), name, i) for name, w in weights.items() for i, v in enumerate(w.flatten().tolist())]
    gone = {(name, i) for _, name, i in sorted(entries, key=lambda e: e[0])[: round(amount * len(entries))]}
    return {
        name: torch.tensor([(name, i) not in gone for i in range(w.numel())]).reshape(w.shape)
        for name, w in weights.items()
    }


def global_threshold(weights, amount):
    _check(amount)
    flat = torch.cat([w.abs().reshape(-1) for w in weights.values()]).sort().values
    k = round(amount * len(flat))
    if k == 0:
        return {n: torch.ones(w.shape, dtype=torch.bool) for n, w in weights.items()}
    return {n: w.abs() > flat[k - 1] for n, w in weights.items()}


def global_numpy(weights, amount):
    _check(amount)
    flat = np.concatenate([np.abs(w.double().numpy()).ravel() for w in weights.values()])
    kept = np.ones(len(flat), dtype=bool)
    kept[np.argsort(flat, kind="stable")[: round(amount * len(flat))]] = False
    out, at = {}, 0
    for name in reversed(list(weights)):
        out[name] = None  # l'ordre des noms rendus est libre
    for name, w in weights.items():
        out[name] = torch.from_numpy(kept[at : at + w.numel()].copy()).reshape(w.shape)
        at += w.numel()
    return out


def global_kthvalue(weights, amount):
    _check(amount)
    names = sorted(weights)
    flat = torch.hstack([weights[n].abs().flatten() for n in names])
    k = int(round(amount * flat.numel()))
    limit = flat.kthvalue(k).values if k else torch.tensor(-1.0)
    return {n: torch.gt(weights[n].abs(), limit) for n in names}


# --- wanda_mask -----------------------------------------------------------------------------------------------------


def wanda_loops(w, x, amount):
    _check(amount)
    mask = torch.ones(w.shape, dtype=torch.bool)
    norms = [sum(v * v for v in x[:, j].tolist()) ** 0.5 for j in range(w.shape[1])]
    for i, row in enumerate(w.tolist()):
        scores = [abs(v) * norm for v, norm in zip(row, norms, strict=True)]
        for j in sorted(range(len(row)), key=scores.__getitem__)[: round(amount * len(row))]:
            mask[i, j] = False
    return mask


def wanda_squares(w, x, amount):
    """Le carré de l'importance classe pareil, et la moyenne des carrés aussi."""
    _check(amount)
    scores = w.double() ** 2 * (x.double() ** 2).mean(0, keepdim=True)
    ranks = scores.argsort(dim=-1, stable=True).argsort(dim=-1)
    return ranks >= round(amount * w.size(1))


def wanda_hessian(w, x, amount):
    _check(amount)
    diagonal = (x.double().T @ x.double()).diagonal()
    order = torch.sort(w.double().abs() * diagonal.sqrt(), dim=1, stable=True).indices
    mask = torch.full(w.shape, True, device=w.device)
    for row, gone in zip(mask, order[:, : round(amount * w.shape[1])], strict=True):
        row[gone] = False
    return mask


def wanda_numpy(w, x, amount):
    _check(amount)
    scores = np.abs(w.float().numpy()) * np.linalg.norm(x.float().numpy(), axis=0)
    mask = np.ones(scores.shape, dtype=bool)
    gone = np.argsort(scores, axis=1, kind="stable")[:, : round(amount * scores.shape[1])]
    np.put_along_axis(mask, gone, False, axis=1)
    return torch.from_numpy(mask)


def wanda_own_type(w, x, amount):
    _check(amount)
    scores = w.abs() * torch.linalg.vector_norm(x, dim=0).unsqueeze(0)
    order = torch.argsort(scores, dim=1, stable=True)
    mask = torch.zeros_like(w).bool()
    mask.scatter_(1, order[:, round(amount * w.shape[1]) :], True)
    return mask


# --- nm_mask --------------------------------------------------------------------------------------------------------


def nm_loops(w, n=2, m=4):
    if n > m or w.size(-1) % m:
        raise ValueError("motif")
    flat, out = w.reshape(-1, w.shape[-1]).tolist(), []
    for row in flat:
        for g in range(0, len(row), m):
            order = sorted(range(m), key=lambda i, g=g, row=row: -abs(row[g + i]))
            out += [i in order[:n] for i in range(m)]
    return torch.tensor(out).reshape(w.shape)


def nm_ranks(w, n=2, m=4):
    if not n <= m or w.shape[-1] % m != 0:
        raise ValueError
    groups = w.abs().unflatten(-1, (-1, m))
    ranks = torch.argsort(torch.argsort(-groups, dim=-1, stable=True), dim=-1)
    return (ranks < n).flatten(-2)


def nm_pairwise(w, n=2, m=4):
    """Un poids est gardé si moins de n voisins le battent : plus grands, ou égaux et placés avant."""
    if n > m or w.shape[-1] % m:
        raise ValueError
    a = w.double().abs().reshape(*w.shape[:-1], -1, m)
    before = torch.ones(m, m, dtype=torch.bool, device=w.device).tril(-1)
    beats = (a[..., None, :] > a[..., :, None]) | ((a[..., None, :] == a[..., :, None]) & before)
    return (beats.sum(-1) < n).reshape(w.shape)


def nm_numpy(w, n=2, m=4):
    if n > m or w.shape[-1] % m > 0:
        raise ValueError
    a = -np.abs(w.double().numpy()).reshape(-1, m)
    order = np.argsort(a, axis=1, kind="stable")
    mask = np.zeros(a.shape, dtype=bool)
    np.put_along_axis(mask, order[:, :n], True, axis=1)
    return torch.from_numpy(mask).reshape(w.shape)


# --- sparse_bytes ---------------------------------------------------------------------------------------------------


def bytes_by_removed(numel, amount, value_bytes=2, index_bytes=4):
    if numel < 0 or amount < 0.0 or amount > 1.0:
        raise ValueError("arguments")
    entry = value_bytes + index_bytes
    return numel * entry - round(numel * amount) * entry


def bytes_two_parts(numel, amount, value_bytes=2, index_bytes=4):
    _check(amount)
    if numel < 0:
        raise ValueError
    n = int(numel - int(amount * numel + 0.5))
    return n * value_bytes + n * index_bytes


def bytes_of_the_kept_share(numel, amount, value_bytes=2, index_bytes=4):
    _check(amount)
    if not numel >= 0:
        raise ValueError
    return round((1 - amount) * numel) * (value_bytes + index_bytes)


# --- prune_heads ----------------------------------------------------------------------------------------------------


def heads_reshape(c_attn_weight, c_attn_bias, c_proj_weight, heads, n_head):
    d = c_attn_weight.shape[0]
    size = d // n_head
    keep = [h for h in range(n_head) if h not in set(heads)]
    attn = c_attn_weight.reshape(d, 3, n_head, size)[:, :, keep].reshape(d, -1)
    bias = c_attn_bias.reshape(3, n_head, size)[:, keep].reshape(-1)
    proj = c_proj_weight.reshape(n_head, size, -1)[keep].reshape(-1, c_proj_weight.shape[1])
    return attn, bias, proj


def heads_mask(c_attn_weight, c_attn_bias, c_proj_weight, heads, n_head):
    keep = torch.ones(n_head, dtype=torch.bool)
    if heads:
        keep[torch.tensor(heads)] = False
    rows = keep.repeat_interleave(len(c_proj_weight) // n_head)
    return c_attn_weight[:, rows.repeat(3)], c_attn_bias[rows.repeat(3)], c_proj_weight[rows]


def heads_split(c_attn_weight, c_attn_bias, c_proj_weight, heads, n_head):
    d = c_proj_weight.shape[1]
    size = d // n_head
    keep = torch.tensor([i for i in range(d) if i // size not in heads], dtype=torch.long, device=c_attn_bias.device)
    parts = [part.index_select(1, keep) for part in c_attn_weight.split(d, dim=1)]
    biases = [part.index_select(0, keep) for part in c_attn_bias.chunk(3)]
    return [torch.cat(parts, 1), torch.cat(biases), c_proj_weight.index_select(0, keep)]


def heads_slices(c_attn_weight, c_attn_bias, c_proj_weight, heads, n_head):
    d = c_attn_weight.size(0)
    size = d // n_head
    keep = sorted(set(range(n_head)) - set(heads))
    empty = c_attn_weight[:, :0]
    columns = [c_attn_weight[:, p * d + h * size : p * d + (h + 1) * size] for p in range(3) for h in keep]
    biases = [c_attn_bias[p * d + h * size : p * d + (h + 1) * size] for p in range(3) for h in keep]
    rows = [c_proj_weight[h * size : (h + 1) * size] for h in keep]
    return (
        torch.cat([empty, *columns], dim=1),
        torch.cat([c_attn_bias[:0], *biases]),
        torch.cat([c_proj_weight[:0], *rows]),
    )


def heads_one_at_a_time(c_attn_weight, c_attn_bias, c_proj_weight, heads, n_head):
    """De la dernière à la première : les numéros de celles qui restent ne bougent pas."""
    size = c_proj_weight.shape[0] // n_head
    for h in sorted(heads, reverse=True):
        width = c_proj_weight.shape[0]
        for part in (2, 1, 0):
            a = part * width + h * size
            c_attn_weight = torch.cat([c_attn_weight[:, :a], c_attn_weight[:, a + size :]], 1)
            c_attn_bias = torch.cat([c_attn_bias[:a], c_attn_bias[a + size :]])
        c_proj_weight = torch.cat([c_proj_weight[: h * size], c_proj_weight[(h + 1) * size :]])
    return c_attn_weight, c_attn_bias, c_proj_weight


# --- cubic_schedule -------------------------------------------------------------------------------------------------


def _check_schedule(start, end, *parts):
    if end <= start or any(p < 0 or p > 1 for p in parts):
        raise ValueError("programme")


def cubic_cases(step, start, end, final_sparsity, initial_sparsity=0.0):
    _check_schedule(start, end, final_sparsity, initial_sparsity)
    if step <= start:
        return initial_sparsity
    if step >= end:
        return final_sparsity
    left = (end - step) / (end - start)
    return final_sparsity - (final_sparsity - initial_sparsity) * left**3


def cubic_torch(step, start, end, final_sparsity, initial_sparsity=0.0):
    _check_schedule(start, end, final_sparsity, initial_sparsity)
    p = torch.tensor((step - start) / (end - start), dtype=torch.float64).clamp(0, 1)
    return torch.lerp(
        torch.tensor(initial_sparsity, dtype=torch.float64),
        torch.tensor(final_sparsity, dtype=torch.float64),
        1 - (1 - p) ** 3,
    ).item()


def cubic_numpy(step, start, end, final_sparsity, initial_sparsity=0.0):
    _check_schedule(start, end, final_sparsity, initial_sparsity)
    return np.interp(step, [start, end], [0.0, 1.0]) * 0 + (
        final_sparsity + (initial_sparsity - final_sparsity) * (1 - np.clip((step - start) / (end - start), 0, 1)) ** 3
    )


STYLES = {
    "sparsity": [sparsity_list, sparsity_concatenated, sparsity_float32, sparsity_numpy],
    "magnitude_mask": [
        magnitude_python, magnitude_ranks, magnitude_numpy, magnitude_topk_removed, magnitude_sort_values,
    ],
    "global_magnitude_masks": [global_python, global_threshold, global_numpy, global_kthvalue],
    "wanda_mask": [wanda_loops, wanda_squares, wanda_hessian, wanda_numpy, wanda_own_type],
    "nm_mask": [nm_loops, nm_ranks, nm_pairwise, nm_numpy],
    "sparse_bytes": [bytes_by_removed, bytes_two_parts, bytes_of_the_kept_share],
    "prune_heads": [heads_reshape, heads_mask, heads_split, heads_slices, heads_one_at_a_time],
    "cubic_schedule": [cubic_cases, cubic_torch, cubic_numpy],
}  # fmt: skip
