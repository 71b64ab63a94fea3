"""Les références du chapitre 2, contre des bibliothèques et des calculs qui ne leur doivent rien."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from atelier.figures.ch2 import budget, tools
from atelier.figures.ch2.study import CONTEXT, VOCABULARY, study_model, training_flops_per_token
from atelier.hardware import median_seconds
from atelier.models import GPT2_SIZES, load_model

CHAPTER = "ch2_flops_6nd"


def shape_only(n_layer: int, d_model: int, n_vocab: int = 50257, n_ctx: int = 1024) -> GPT2LMHeadModel:
    config = GPT2Config(
        n_layer=n_layer, n_embd=d_model, n_head=1, vocab_size=n_vocab, n_positions=n_ctx, attn_implementation="eager"
    )
    with torch.device("meta"):
        return GPT2LMHeadModel(config)


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (2, 3, 4), (7, 1, 5), (513, 255, 31)])
def test_matmul_flops_is_the_counter(reference: Any, m: int, k: int, n: int) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        torch.zeros(m, k) @ torch.zeros(k, n)
    assert reference("matmul_flops")(m, k, n) == counter.get_total_flops()


@pytest.mark.parametrize("n_ctx", [1, 17, 256])
def test_forward_is_the_counter_on_colibri(reference: Any, n_ctx: int) -> None:
    model = load_model("colibri", attention="eager", on="cpu")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, n_ctx, dtype=torch.long), use_cache=False)
    assert reference("forward_flops_per_token")(5, 192, n_ctx, 4096) * n_ctx == counter.get_total_flops()


@pytest.mark.parametrize("size", GPT2_SIZES)
def test_forward_and_backward_are_the_counter_on_gpt2(reference: Any, size: str) -> None:
    n_layer, d_model, _ = GPT2_SIZES[size]
    model = shape_only(n_layer, d_model)
    with FlopCounterMode(display=False) as counter:
        model(**tools.window(model, 1024)).logits.sum().backward()
    expected = reference("forward_flops_per_token")(n_layer, d_model, 1024, 50257) * 1024
    found = tools.by_kind(counter)
    assert found.pop("total") == 3 * expected == sum(found.values())


def test_forward_is_nanogpt_sizing(reference: Any) -> None:
    """nanoGPT, transformer_sizing.ipynb : 874 944 921 600 opérations, avant et arrière, pour 1 024 jetons de GPT-2."""
    assert 3 * 1024 * reference("forward_flops_per_token")(12, 768, 1024, 50257) == 874_944_921_600


def test_training_flops_of_known_models(reference: Any) -> None:
    """GPT-3 : 3,14·10²³ (Brown et al., annexe D) ; Llama 3 405B : 3,8·10²⁵ (Grattafiori et al., § 1)."""
    training_flops = reference("training_flops")
    assert training_flops(174_600_000_000, 300_000_000_000) == pytest.approx(3.14e23, rel=2e-3)
    assert training_flops(405_000_000_000, 15_600_000_000_000) == pytest.approx(3.8e25, rel=5e-3)


def test_budget_and_training_flops_are_inverse(reference: Any) -> None:
    for n_params in (1, 12_345_678, 175 * 10**9):
        for compute in (1.0, 7.5e13, 3.14e23):
            tokens = reference("tokens_for_budget")(compute, n_params)
            assert 6 * n_params * tokens == pytest.approx(compute, rel=1e-12)


@pytest.mark.parametrize("ratio", [0.5, 20.0, 180.0])
def test_compute_optimal_is_a_grid_search(reference: Any, ratio: float) -> None:
    compute = 5.76e23
    grid = np.logspace(6, 14, 400_001)
    best = grid[np.abs(np.log(compute / (6 * grid) / grid) - math.log(ratio)).argmin()]
    n_params, tokens = reference("compute_optimal")(compute, ratio)
    assert n_params == pytest.approx(best, rel=1e-4) and tokens == pytest.approx(ratio * best, rel=1e-4)


def test_chinchilla_is_its_own_optimum(reference: Any) -> None:
    """70 milliards de paramètres, 1 400 milliards de jetons : exactement 20 jetons par paramètre."""
    n_params, tokens = reference("compute_optimal")(6 * 70e9 * 1.4e12)
    assert n_params == pytest.approx(70e9) and tokens == pytest.approx(1.4e12)


def test_training_days_against_published_ones(reference: Any) -> None:
    """Narayanan et al., 2021, § 5.1 : 34 jours, à 8ND ; LLaMA 65B, § 2.4 : 21 jours, 380 jetons/s par carte."""
    days = reference("training_days")
    assert days(175 * 10**9, 300 * 10**9, 1024, 312e12, 140 / 312 * 6 / 8) == pytest.approx(34, rel=0.02)
    mfu = 6 * 65.2e9 * 380 / 312e12
    assert days(65_200_000_000, 1_400_000_000_000, 2048, 312e12, mfu) == pytest.approx(21, rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_fit_power_law_is_numpy_polyfit(reference: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    compute = 10 ** rng.uniform(12, 24, size=9)
    loss = 17 * compute**-0.05 * np.exp(rng.normal(0, 0.1, size=9))
    slope, intercept = np.polyfit(np.log(compute), np.log(loss), 1)
    a, b = reference("fit_power_law")(torch.from_numpy(compute), torch.from_numpy(loss))
    assert a == pytest.approx(math.exp(intercept), rel=1e-9) and b == pytest.approx(-slope, rel=1e-9)


# --- L'étude d'échelle : ce qui compte les points et lit les courbes ------------------------------------------------


@pytest.mark.parametrize(("n_layer", "d_model"), [(1, 8), (2, 48), (4, 96)])
def test_study_counts_a_token_as_three_forwards(reference: Any, n_layer: int, d_model: int) -> None:
    expected = 3 * reference("forward_flops_per_token")(n_layer, d_model, CONTEXT, VOCABULARY)
    assert training_flops_per_token(n_layer, d_model) == expected


def test_study_model_depends_on_its_seed_only() -> None:
    first, again, other = (study_model(1, 16, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["transformer.wte.weight"], other["transformer.wte.weight"])


def test_study_model_refuses_other_widths() -> None:
    for n_layer, d_model in ((1, 18), (1, 0), (0, 16)):
        with pytest.raises(ValueError, match="multiple de 4"):
            study_model(n_layer, d_model)


def test_the_journal_of_the_study_counts_what_it_spent(reference: Any) -> None:
    """Chaque point du journal a dépensé son budget, à un pas près ; ses paramètres sont ceux du modèle."""
    for series, compute in (("c1", 5e11), ("c2", 1.7e12), ("c3", 6e12), ("graines", 5e11)):
        points = tools.study_points(series)
        assert points == sorted(points, key=lambda p: p["params"])
        for p in points:
            per_token = 3 * reference("forward_flops_per_token")(p["n_layer"], p["d_model"], CONTEXT, VOCABULARY)
            assert p["flops"] == p["tokens"] * per_token == pytest.approx(compute, rel=5e-3)
    assert {p["params"] for p in tools.study_points("c1")} >= {study_model(1, 8).num_parameters()}


def test_the_law_of_chinchilla_is_inverted() -> None:
    loss = budget.chinchilla_loss(13e9, 260e9)
    assert budget.tokens_for_loss(13e9, loss) == pytest.approx(260e9)
    assert budget.tokens_for_loss(1e6, loss) == math.inf


# --- Le toit ----------------------------------------------------------------------------------------------------------


def test_decode_seconds_by_hand(reference: Any) -> None:
    """GPT-2 XL en 16 bits sur une A100 : seul, 3,1 Go à lire ; à mille, deux mille milliards d'opérations."""
    decode_seconds = reference("decode_seconds")
    n, peak, bandwidth = 1_557_611_200, 312e12, 2.039e12
    assert decode_seconds(n, 1, 0, 0, 2, peak, bandwidth) == pytest.approx(1.5278e-3, rel=1e-3)
    assert decode_seconds(n, 1000, 0, 0, 2, peak, bandwidth) == pytest.approx(9.9847e-3, rel=1e-3)
    kv = 2 * 48 * 1600 * 2
    assert decode_seconds(n, 100, 1024, kv, 2, peak, bandwidth) == pytest.approx((2 * n + 102_400 * kv) / bandwidth)


def test_decode_seconds_is_the_upper_envelope(reference: Any) -> None:
    """Le maximum de deux droites du lot, égales là où on l'attend : convexe, croissant, jamais sous l'une d'elles."""
    decode_seconds = reference("decode_seconds")
    n, peak, bandwidth = 10**9, 1e12, 1e10
    balance = round(peak * 2 / (2 * bandwidth))
    seconds = [decode_seconds(n, b, 0, 0, 2, peak, bandwidth) for b in range(1, 3 * balance)]
    assert seconds[balance - 1] == pytest.approx(2 * n / bandwidth) == seconds[0]
    assert seconds[2 * balance - 1] == pytest.approx(2 * seconds[0])
    steps = np.diff(seconds)
    assert (steps >= 0).all() and (np.diff(steps) >= -1e-12).all()


@pytest.mark.lent
def test_decode_seconds_foretells_real_products(reference: Any) -> None:
    """Deux grandes matrices, lues par un jeton puis par beaucoup : l'ordre de grandeur est celui du toit."""
    weights = [torch.randn(4096, 2048) for _ in range(8)]
    n = sum(w.numel() for w in weights)
    reading = 4 * n / median_seconds(lambda: [w.sum() for w in weights])
    a = torch.randn(1024, 1024)
    peak = 2 * 1024**3 / median_seconds(lambda: a @ a)
    for tokens in (1, 512):
        x = torch.randn(tokens, 2048)
        measured = median_seconds(lambda x=x: [x @ w.T for w in weights], repeats=5)
        assert 0.3 < measured / reference("decode_seconds")(n, tokens, 0, 0, 4, peak, reading) < 4
