"""Réponses justes du chapitre 2, dans d'autres styles que la référence : toutes doivent avoir tous les points."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# --- matmul_flops ---------------------------------------------------------------------------------------------------


def _refuse_sizes(*sizes):
    if any(size < 1 for size in sizes):
        raise ValueError("tailles")


def matmul_one_line(m, k, n):
    if m < 1 or k < 1 or n < 1:
        raise ValueError(f"dimensions invalides : {m}, {k}, {n}")
    return 2 * m * k * n


def matmul_muls_and_adds(m, k, n):
    _refuse_sizes(m, k, n)
    multiplications = math.prod((m, k, n))
    additions = multiplications
    return multiplications + additions


def matmul_shifted(m, k, n):
    if not all(size > 0 for size in (m, k, n)):
        raise ValueError
    return (n * k * m) << 1


def matmul_numpy(m, k, n):
    """numpy tant que cela tient sur 64 bits, Python ensuite."""
    _refuse_sizes(m, k, n)
    if m * k * n < 2**60:
        return int(np.int64(2) * np.int64(m) * np.int64(k) * np.int64(n))
    return sum((m * k * n, m * k * n))


# --- forward_flops_per_token ----------------------------------------------------------------------------------------


def _refuse_model(n_layer, *sizes):
    if n_layer < 0:
        raise ValueError("blocs")
    _refuse_sizes(*sizes)


def forward_formula(n_layer, d_model, n_ctx, n_vocab):
    _refuse_model(n_layer, d_model, n_ctx, n_vocab)
    return float(n_layer * (24 * d_model**2 + 4 * n_ctx * d_model) + 2 * d_model * n_vocab)


def forward_window_then_divide(n_layer, d_model, n_ctx, n_vocab):
    """Toute la fenêtre, produit par produit, puis la division."""
    _refuse_model(n_layer, d_model, n_ctx, n_vocab)
    d, t = d_model, n_ctx
    total = 0
    for _ in range(n_layer):
        for m, k, n in [(t, d, 3 * d), (t, d, t), (t, t, d), (t, d, d), (t, d, 4 * d), (t, 4 * d, d)]:
            total += matmul_one_line(m, k, n)
    total += matmul_one_line(t, d, n_vocab)
    return total / t


def forward_exact_integer(n_layer, d_model, n_ctx, n_vocab):
    """Un entier, puisque le quotient tombe juste."""
    _refuse_model(n_layer, d_model, n_ctx, n_vocab)
    weights = 12 * n_layer * d_model**2 + d_model * n_vocab
    return 2 * weights + 2 * 2 * n_layer * n_ctx * d_model


def forward_fraction(n_layer, d_model, n_ctx, n_vocab):
    _refuse_model(n_layer, d_model, n_ctx, n_vocab)
    block = 2 * n_ctx * 12 * d_model * d_model + 2 * 2 * n_ctx * n_ctx * d_model
    return float(Fraction(n_layer * block + 2 * n_ctx * d_model * n_vocab, n_ctx))


def forward_tensor(n_layer, d_model, n_ctx, n_vocab):
    _refuse_model(n_layer, d_model, n_ctx, n_vocab)
    d = torch.tensor(d_model, dtype=torch.float64)
    per_block = 24 * d.square() + 4 * n_ctx * d
    return n_layer * per_block + 2 * n_vocab * d


def forward_counter(n_layer, d_model, n_ctx, n_vocab):
    """Compté par PyTorch sur des couches sans biais, sur l'appareil « meta »."""
    _refuse_model(n_layer, d_model, n_ctx, n_vocab)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        x = torch.zeros(n_ctx, d_model)
        for _ in range(n_layer):
            q, k, v = nn.Linear(d_model, 3 * d_model, bias=False)(x).chunk(3, dim=-1)
            x = nn.Linear(d_model, d_model, bias=False)(q @ k.T @ v)
            x = nn.Linear(4 * d_model, d_model, bias=False)(nn.Linear(d_model, 4 * d_model, bias=False)(x))
        nn.Linear(d_model, n_vocab, bias=False)(x)
    return counter.get_total_flops() / n_ctx


# --- training_flops -------------------------------------------------------------------------------------------------


def training_forward_backward(n_params, n_tokens):
    if min(n_params, n_tokens) < 0:
        raise ValueError("négatif")
    forward = 2 * n_params * n_tokens
    backward = 2 * forward
    return forward + backward


def training_parenthesis(n_params, n_tokens):
    if n_tokens < 0:
        raise ValueError("jetons")
    if n_params < 0:
        raise ValueError("paramètres")
    return n_tokens * (6 * n_params)


def training_sum(n_params, n_tokens):
    if not (n_params >= 0 <= n_tokens):
        raise ValueError
    return sum(ops * n_params * n_tokens for ops in (2, 2, 2))


# --- tokens_for_budget ----------------------------------------------------------------------------------------------


def _refuse_budget(compute, n_params):
    if n_params <= 0:
        raise ValueError("paramètres")
    if compute < 0:
        raise ValueError("budget")


def budget_two_divisions(compute, n_params):
    return compute / 6 / n_params


def budget_per_token(compute, n_params):
    _refuse_budget(compute, n_params)
    cost_of_a_token = 6.0 * n_params
    return compute * cost_of_a_token**-1


def budget_tensor(compute, n_params):
    _refuse_budget(compute, n_params)
    return torch.tensor(compute, dtype=torch.float64) / (6 * n_params)


# --- compute_optimal ------------------------------------------------------------------------------------------------


def _refuse_ratio(compute, tokens_per_param):
    if compute < 0 or not tokens_per_param > 0:
        raise ValueError("budget ou rapport")


def optimal_power(compute, tokens_per_param=20.0):
    _refuse_ratio(compute, tokens_per_param)
    n = (compute / 6 / tokens_per_param) ** 0.5
    return n, compute / (6 * n)


def optimal_tokens_first(compute, tokens_per_param=20.0):
    d = math.sqrt(compute * tokens_per_param / 6)
    return d / tokens_per_param, d


def optimal_logs(compute, tokens_per_param=20.0):
    _refuse_ratio(compute, tokens_per_param)
    log_n = (math.log(compute) - math.log(6) - math.log(tokens_per_param)) / 2
    return math.exp(log_n), math.exp(log_n + math.log(tokens_per_param))


def optimal_bisection(compute, tokens_per_param=20.0):
    """Cherché, et non calculé ; un n-uplet ou une liste se valent."""
    _refuse_ratio(compute, tokens_per_param)
    low, high = 0.0, max(1.0, compute)
    for _ in range(300):
        middle = (low + high) / 2
        if 6 * middle * tokens_per_param * middle < compute:
            low = middle
        else:
            high = middle
    return [low, tokens_per_param * low]


# --- training_days --------------------------------------------------------------------------------------------------


def days_seconds_first(n_params, n_tokens, n_gpus, peak_flops, mfu):
    if mfu <= 0 or mfu > 1:
        raise ValueError("mfu")
    seconds = 6 * n_params * n_tokens / (n_gpus * (peak_flops * mfu))
    return seconds / (24 * 60 * 60)


def days_token_rate(n_params, n_tokens, n_gpus, peak_flops, mfu):
    if not 0.0 < mfu <= 1.0:
        raise ValueError("mfu")
    tokens_per_day = mfu * peak_flops * n_gpus / (6.0 * n_params) * 86_400
    return n_tokens / tokens_per_day


def days_gpu_days(n_params, n_tokens, n_gpus, peak_flops, mfu):
    if not (mfu > 0 and mfu <= 1):
        raise ValueError("mfu")
    gpu_days = (2 + 4) * float(n_params) * float(n_tokens) / peak_flops / mfu / 3600 / 24
    return gpu_days / n_gpus


# --- fit_power_law --------------------------------------------------------------------------------------------------


def _refuse_points(compute, loss):
    if compute.dim() != 1 or loss.dim() != 1 or len(compute) != len(loss) or len(compute) < 2:
        raise ValueError("formes")
    if bool((compute <= 0).any()) or bool((loss <= 0).any()):
        raise ValueError("valeurs")


def law_polyfit(compute, loss):
    _refuse_points(compute, loss)
    slope, intercept = np.polyfit(np.log(compute.numpy()), np.log(loss.numpy()), 1)
    return float(np.exp(intercept)), float(-slope)


def law_log10(compute, loss):
    """En base 10 d'un bout à l'autre."""
    _refuse_points(compute, loss)
    slope, intercept = np.polyfit(np.log10(compute.double().numpy()), np.log10(loss.double().numpy()), 1)
    return 10**intercept, -slope


def law_lstsq(compute, loss):
    _refuse_points(compute, loss)
    x = torch.log(compute.to(torch.float64))
    design = torch.stack([torch.ones_like(x), -x], dim=1)
    solution = torch.linalg.lstsq(design, torch.log(loss.to(torch.float64))[:, None]).solution[:, 0]
    return solution[0].exp().item(), solution[1].item()


def law_loops(compute, loss):
    _refuse_points(compute, loss)
    xs = [math.log(c) for c in compute.tolist()]
    ys = [math.log(y) for y in loss.tolist()]
    n = len(xs)
    mx, my = sum(xs) / n, sum(ys) / n
    slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / sum((x - mx) ** 2 for x in xs)
    return math.exp(my - slope * mx), -slope


def law_own_dtype(compute, loss):
    """Dans le type reçu, équations normales centrées."""
    _refuse_points(compute, loss)
    x, y = compute.log(), loss.log()
    x0 = x.mean()
    b = -torch.dot(x - x0, y) / torch.dot(x - x0, x - x0)
    return float(torch.exp(y.mean() + b * x0)), float(b)


STYLES = {
    "matmul_flops": [matmul_one_line, matmul_muls_and_adds, matmul_shifted, matmul_numpy],
    "forward_flops_per_token": [
        forward_formula,
        forward_window_then_divide,
        forward_exact_integer,
        forward_fraction,
        forward_tensor,
        forward_counter,
    ],
    "training_flops": [training_forward_backward, training_parenthesis, training_sum],
    "tokens_for_budget": [budget_two_divisions, budget_per_token, budget_tensor],
    "compute_optimal": [optimal_power, optimal_tokens_first, optimal_logs, optimal_bisection],
    "training_days": [days_seconds_first, days_token_rate, days_gpu_days],
    "fit_power_law": [law_polyfit, law_log10, law_lstsq, law_loops, law_own_dtype],
}
