"""Les références du chapitre 2, contre des bibliothèques et des calculs qui ne leur doivent rien."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from atelier.figures.ch2.counts import count_flops, terms_per_token
from atelier.figures.ch2.curves import _between, _valley
from atelier.figures.ch2.study import CONTEXT, VOCABULARY, study_model, training_flops_per_token
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
    forward, backward = count_flops(shape_only(n_layer, d_model), 1024)
    expected = reference("forward_flops_per_token")(n_layer, d_model, 1024, 50257) * 1024
    assert forward == expected and backward == 2 * expected


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
    for n_layer, d_model in ((1, 20), (1, 0), (0, 16)):
        with pytest.raises(ValueError, match="multiple de 8"):
            study_model(n_layer, d_model)


def test_terms_are_the_whole_forward_pass(reference: Any) -> None:
    forward, backward = terms_per_token(5, 192, 256, 4096)
    assert sum(forward.values()) == reference("forward_flops_per_token")(5, 192, 256, 4096)
    assert {term: 2 * n for term, n in forward.items()} == backward


def test_valley_is_the_bottom_of_a_parabola() -> None:
    bottom = math.log(250_000)
    points = [
        {"params": n, "loss": 5 + 0.3 * (math.log(n) - bottom) ** 2} for n in (50_000, 160_000, 400_000, 2_000_000)
    ]
    assert _valley(points) == pytest.approx(250_000)


def test_between_two_sizes() -> None:
    points = [{"params": 100, "loss": 6.0}, {"params": 10_000, "loss": 5.0}]
    assert _between(points, 1000) == pytest.approx(5.5)
    assert _between(points, 99) is None and _between(points, 20_000) is None
