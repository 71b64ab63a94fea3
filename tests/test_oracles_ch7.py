"""Les références du chapitre 7, contre des calculs qui ne leur doivent rien."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from atelier.figures.ch7 import tools
from atelier.judging.probes_models import tiny_gpt2
from atelier.models import load_model

TINY = {"n_layer": 3, "n_head": 4, "n_embd": 16, "vocab_size": 40, "n_positions": 32}
CHAPTER = "ch7_adapters"


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(0, 40, (2, 11), generator=torch.Generator().manual_seed(1))


def learning(model: nn.Module) -> int:
    """Paramètres qui apprennent."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def counted(model: Any, tokens: torch.Tensor) -> int:
    """Opérations d'un vrai pas, comptées par torch."""
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(tokens, labels=tokens).loss.backward()
    return counter.get_total_flops()


# --- Adapter --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6,), (0, 6), (2, 3, 6), (1, 2, 3, 6)])
def test_adapter_is_the_formula(reference: Any, shape: tuple[int, ...]) -> None:
    made = reference("Adapter")(6, 3)
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(2))
    assert torch.equal(made(x), x)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_()
        low = torch.einsum("...d,md->...m", x, made.down.weight) + made.down.bias
        expected = x + torch.einsum("...m,dm->...d", F.gelu(low), made.up.weight) + made.up.bias
    torch.testing.assert_close(made(x), expected)


def test_both_zero_never_leaves_the_constant(reference: Any) -> None:
    """Ce que dit le quiz : parties de zéro toutes deux, les matrices ne bougent jamais ; seul le biais apprend."""
    made = reference("Adapter")(6, 3)
    for p in made.parameters():
        nn.init.zeros_(p)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    x, target = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(3))
    for _ in range(100):
        optimizer.zero_grad()
        F.mse_loss(made(x), target).backward()
        optimizer.step()
    moved = {name for name, p in made.named_parameters() if p.any()}
    assert moved == {"up.bias"}


# --- adapter_num_params ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "m", "layers", "per_layer"), [(4, 2, 1, 1), (192, 16, 5, 2), (7, 11, 3, 4), (8, 1, 0, 2)]
)
def test_count_is_the_modules(reference: Any, d: int, m: int, layers: int, per_layer: int) -> None:
    stack = nn.ModuleList(reference("Adapter")(d, m) for _ in range(layers * per_layer))
    assert reference("adapter_num_params")(d, m, layers, per_layer) == sum(p.numel() for p in stack.parameters())


def test_count_of_the_paper(reference: Any) -> None:
    """BERT-large, m = 64 : 6,34 M, 1,92 % de 330 M (l'article, LayerNorm et tête comprises, imprime 2,1 %)."""
    n = reference("adapter_num_params")(1024, 64, 24)
    assert n == 6_343_680 and 0.019 < n / 330e6 < 0.0195


# --- insert_adapters ------------------------------------------------------------------------------------------------


def test_insertion_changes_nothing_then_only_adapters_learn(reference: Any, ids: torch.Tensor) -> None:
    model = tiny_gpt2(TINY, 5)
    plain, before = model(ids).logits.detach(), tools.frozen_hash(model)
    made = reference("insert_adapters")(model, 4)
    assert made is model and torch.equal(made(ids).logits, plain)
    assert learning(made) == reference("adapter_num_params")(16, 4, 3)
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        made(ids, labels=ids).loss.backward()
        optimizer.step()
    assert not torch.allclose(made(ids).logits, plain, atol=1e-2)
    assert tools.frozen_hash(made) == before
    assert all((p.grad is not None) == p.requires_grad for p in made.parameters())


def test_adapters_act_before_the_residual_sum(reference: Any, ids: torch.Tensor) -> None:
    """Avec les mêmes poids partout, le modèle branché égale le même GPT-2 écrit à la main."""
    model = tiny_gpt2(TINY, 6)
    plain = copy.deepcopy(model)
    made = reference("insert_adapters")(model, 4)
    torch.manual_seed(0)
    shared = reference("Adapter")(16, 4)
    with torch.no_grad():
        for p in shared.parameters():
            p.normal_(std=0.3)
        for module in tools.adapters_of(made):
            module.load_state_dict(shared.state_dict())

        core = plain.transformer
        h = core.wte(ids) + core.wpe(torch.arange(ids.shape[1]))
        for block in core.h:
            x = block.ln_1(h)
            q, k, v = (t.unflatten(-1, (4, 4)).transpose(1, 2) for t in block.attn.c_attn(x).chunk(3, dim=-1))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            h = h + shared(block.attn.c_proj(mixed))
            h = h + shared(block.mlp(block.ln_2(h)))
        expected = core.ln_f(h) @ core.wte.weight.T
    torch.testing.assert_close(made(ids).logits, expected, rtol=1e-3, atol=1e-4)


def test_swapping_voices_in_one_base(reference: Any, ids: torch.Tensor) -> None:
    made = reference("insert_adapters")(tiny_gpt2(TINY, 7), 4)
    silent = {name: p.detach().clone() for name, p in made.named_parameters() if p.requires_grad}
    first, frozen = made(ids).logits, tools.frozen_hash(made)
    made.load_state_dict({k: torch.randn_like(v) for k, v in silent.items()}, strict=False)
    assert not torch.allclose(made(ids).logits, first) and tools.frozen_hash(made) == frozen
    made.load_state_dict(silent, strict=False)
    assert torch.equal(made(ids).logits, first)


# --- adapter_overhead et peft_training_flops, contre FlopCounterMode -------------------------------------------------


@pytest.mark.parametrize(("m", "length"), [(4, 32), (7, 9), (1, 1)])
def test_overhead_is_counted_by_torch(reference: Any, m: int, length: int) -> None:
    model = tiny_gpt2(TINY, 8)
    tokens = torch.zeros(1, length, dtype=torch.long)

    def forward(some: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            some.transformer(tokens, use_cache=False)
        return counter.get_total_flops()

    base = forward(model)
    more = forward(reference("insert_adapters")(model, m))
    assert reference("adapter_overhead")(16, m, length) == pytest.approx((more - base) / base, rel=1e-9)


@pytest.mark.parametrize("way", ["tous", "partout", "en haut"])
def test_peft_flops_are_counted_by_torch(reference: Any, way: str) -> None:
    """À moins de 5 %, attention ôtée : l'entrée du tout premier adaptateur n'a pas besoin de gradient."""
    model = load_model("colibri", on="cpu")
    if way != "tous":
        reference("insert_adapters")(model, 16)
    if way == "en haut":
        for module in tools.adapters_of(model)[:-4]:
            module.requires_grad_(False)
    config, positions = model.config, model.transformer.wpe.weight
    trained = learning(model) - positions.requires_grad * positions.numel()
    frozen = sum(p.numel() for p in model.parameters()) - positions.numel() - trained
    attention = 3 * 4 * 64 * config.n_embd * config.n_layer * 64
    measured = counted(model, tools.some_ids(model, 1, 64)) - attention
    predicted = reference("peft_training_flops")(frozen, trained, 64)
    if way == "en haut":
        assert measured < 0.9 * predicted
    else:
        assert measured == pytest.approx(predicted, rel=0.05)


def test_full_training_is_six_n_d(reference: Any) -> None:
    assert reference("peft_training_flops")(0, 124_439_808, 1000) == 6 * 124_439_808 * 1000
    assert reference("peft_training_flops")(175 * 10**9, 0, 300 * 10**9) == 4 * 175 * 300 * 10**18


# --- optimizer_state_bytes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [True, False])
def test_state_is_what_adam_keeps(reference: Any, ids: torch.Tensor, frozen: bool) -> None:
    model = tiny_gpt2(TINY, 9)
    if frozen:
        reference("insert_adapters")(model, 4)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained)
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    kept = sum(v.nbytes for s in optimizer.state.values() for k, v in s.items() if k != "step")
    assert reference("optimizer_state_bytes")(model) == kept
    assert 2 * reference("optimizer_state_bytes")(model, 2) == kept
