"""Chapitre 3, sur des couches et des modèles entiers : ce qui y est observé, remplacé, calculé par un noyau."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

CHAPTER = "ch3_quantification"


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- gptq_quantize --------------------------------------------------------------------------------------------------


def row_scale(w: torch.Tensor, bits: int, longer: float = 1.0) -> torch.Tensor:
    """Le pas prudent de chaque ligne, forme restreinte, allongé d'un facteur ; 1 pour une ligne nulle."""
    peak = w.abs().amax(dim=1, keepdim=True)
    return torch.where(peak > 0, longer * peak / (2 ** (bits - 1) - 1), torch.ones_like(peak))


def optimal_brain_quantizer(
    w: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, bits: int, damp: float
) -> torch.Tensor:
    """Définition directe : après chaque arrondi, les colonnes libres minimisent l'erreur, les autres étant fixées.

    (w′ − w)ᵀ H (w′ − w) est minimal, colonnes F libres et Q fixées, en w′_F = w_F − H_FF⁻¹ H_FQ (ŵ_Q − w_Q).
    """
    w, x, scale, top = w.double(), x.double(), scale[:, 0].double(), 2 ** (bits - 1) - 1
    h = 2 * x.T @ x
    h += damp * h.diagonal().mean() * torch.eye(len(h))
    w_hat = w.clone()
    for j in range(len(h)):
        free, fixed = slice(j, None), slice(0, j)
        push = torch.linalg.solve(h[free, free], h[free, fixed] @ (w_hat[:, fixed] - w[:, fixed]).T).T
        current = w[:, j] - push[:, 0]
        w_hat[:, j] = torch.round(current / scale).clamp(-top - 1, top) * scale
    return w_hat


@pytest.mark.parametrize(("n", "bits", "damp"), [(40, 4, 0.01), (5, 4, 0.01), (40, 3, 0.0), (3, 2, 0.1)])
def test_gptq_against_direct_obq(reference: Any, n: int, bits: int, damp: float) -> None:
    for seed in range(4):
        g = generator(seed)
        x = torch.randn(n, 9, generator=g) @ torch.randn(9, 9, generator=g)
        w = torch.randn(6, 9, generator=g)
        w[2], x[:, 4] = 0.0, x[:, 4] * (damp == 0)
        scale = row_scale(w, bits, 0.7 + seed / 5)
        got = reference("gptq_quantize")(w, x, scale, bits, damp)
        expected = optimal_brain_quantizer(w, x, scale, bits, damp)
        torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_gptq_beats_plain_rounding_on_the_outputs(reference: Any, bits: int) -> None:
    for seed in range(5):
        g = generator(seed)
        x = torch.randn(200, 16, generator=g) @ torch.randn(16, 16, generator=g)
        w = torch.randn(64, 16, generator=g)
        scale = reference("absmax_per_channel")(w, bits)
        rtn = torch.round(w / scale) * scale
        gptq = reference("gptq_quantize")(w, x, scale, bits)
        assert (x @ (gptq - w).T).norm() < 0.9 * (x @ (rtn - w).T).norm()
        assert (gptq - w).norm() > (rtn - w).norm()


def test_gptq_on_zero_activations_is_plain_rounding(reference: Any) -> None:
    w = torch.randn(3, 4, generator=generator(6))
    scale = reference("absmax_per_channel")(w, 4)
    torch.testing.assert_close(reference("gptq_quantize")(w, torch.zeros(5, 4), scale), torch.round(w / scale) * scale)


def test_gptq_shifted_weights_make_an_affine_grid(reference: Any) -> None:
    """Décaler une ligne d'un nombre entier de pas revient à décaler ses codes : le chapitre s'en sert."""
    g = generator(8)
    w, x = torch.randn(6, 9, generator=g), torch.randn(40, 9, generator=g) @ torch.randn(9, 9, generator=g)
    scale, zero = row_scale(w, 4), torch.tensor([[3.0], [-2.0], [0.0], [1.0], [-4.0], [2.0]])
    got = reference("gptq_quantize")(w + scale * zero, x, scale, 4) / scale - zero
    assert torch.allclose(got, got.round(), atol=1e-4)
    assert ((got.round() >= -8 - zero) & (got.round() <= 7 - zero)).all()


# --- layer_inputs, quantize_linears ---------------------------------------------------------------------------------


def small_gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(3)
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=23, n_positions=16)).eval()


def test_layer_inputs_against_hidden_states(reference: Any) -> None:
    """Ce qui entre dans Q, K, V est le flux d'avant le bloc, normalisé : la bibliothèque rend ce flux."""
    model, ids = small_gpt2(), torch.randint(0, 23, (3, 7), generator=generator(1))
    names = [f"transformer.h.{i}.attn.c_attn" for i in range(2)]
    got = reference("layer_inputs")(model, ids, names)
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
        for i, name in enumerate(names):
            torch.testing.assert_close(got[name], model.transformer.h[i].ln_1(states[i]).reshape(21, 8))


def test_quantize_linears_by_hand(reference: Any) -> None:
    model, ids = small_gpt2(), torch.randint(0, 23, (2, 6), generator=generator(2))
    by_hand = copy.deepcopy(model)
    for i, block in enumerate(by_hand.transformer.h):
        for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
            layer.weight.data = layer.weight.data * (1 + i) + torch.arange(layer.nf)
    rounded = reference("quantize_linears")(
        model, lambda name, w: w * (1 + int(name.split(".")[2])) + torch.arange(len(w))[:, None]
    )
    assert torch.equal(rounded(ids).logits, by_hand(ids).logits)
    assert rounded.lm_head.weight is rounded.transformer.wte.weight


# --- les noyaux d'un jeton (atelier) --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fp32", "bf16", "int4, torch", "int8, onnxruntime", "int4, onnxruntime"])
def test_a_kernel_of_one_token_computes_the_layer(reference: Any, name: str) -> None:
    """Chaque noyau chronométré calcule bien x·Wᵀ, à l'arrondi de ses poids près ; ceux d'ONNX, sans le biais."""
    from atelier.figures.ch3.one_token import token_kernels

    kernels = token_kernels()
    if name not in kernels:
        pytest.skip(f"« {name} » n'existe pas sur cette machine")
    torch.manual_seed(0)
    layer = torch.nn.Linear(256, 128)
    torch.manual_seed(1)
    out = kernels[name]([layer, layer])()
    torch.manual_seed(1)
    x = torch.randn(1, 256)
    assert len(out) == 2, "une couche répétée est calculée chaque fois"
    y = torch.as_tensor(out[0][0] if isinstance(out[0], list) else out[0]).float()
    expected = (layer(x) - ("onnx" in name) * layer.bias).detach()
    assert y.shape == expected.shape and reference("sqnr_db")(expected, y) > (18 if "int4" in name else 30)
