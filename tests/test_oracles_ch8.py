"""Les références du chapitre 8, contre peft, torch.linalg et des définitions brutes ; et le cache d'activations."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.pytorch_utils import Conv1D

from atelier.figures.ch8.lora import best_rates, grid_curves
from atelier.figures.ch8.nf4 import PUBLISHED, entropy
from atelier.figures.ch8.spectra import energy, rank_for
from atelier.figures.ch8.speed import crossings, durable_crossing, quartiles
from atelier.figures.ch8.tools import (
    cached_loss,
    code_shares,
    counted_flops,
    hidden_before,
    learning_count,
    nf4_file_bytes,
    restore,
    saved_bytes,
    step_parts,
)
from atelier.figures.common.layers import linear_layers, replace_weights, weight_of
from atelier.judging.probes_models import tiny_gpt2
from atelier.models import gpt2_shape, load_model
from atelier.training import lm_loss
from grader.authoring.chapters import load_chapter

TINY = {"n_layer": 3, "n_head": 4, "n_embd": 16, "vocab_size": 40, "n_positions": 32}
Reference = Callable[[str], Callable[..., Any]]
CHAPTER = "ch8_lora"


@pytest.fixture(scope="module")
def levels() -> torch.Tensor:
    return load_chapter("ch8_lora").namespace["NF4_LEVELS"]


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(0, 40, (3, 11), generator=torch.Generator().manual_seed(1))


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def everywhere(model: Any, inject: Callable[..., Any], rank: int, alpha: float) -> Any:
    """Une copie du modèle où LoRA est posé sur toutes les couches linéaires, une cible après l'autre."""
    adapted = copy.deepcopy(model)
    for target in ("c_attn", "c_proj", "c_fc"):
        inject(adapted, rank, alpha, target)
    for name, p in adapted.named_parameters():
        p.requires_grad_("lora_" in name)
    return adapted


def factors(model: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Les couples (A, B) d'un modèle, dans l'ordre de ses couches."""
    a, b = ([p for n, p in model.named_parameters() if kind in n] for kind in ("lora_A", "lora_B"))
    return list(zip(a, b, strict=True))


# --- low_rank ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (7, 7)])
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_low_rank_has_the_rank_and_no_neighbour_does_better(reference: Any, shape: Any, rank: int) -> None:
    w = _noise(*shape, seed=3).double()
    best, error = reference("low_rank")(w, rank)
    assert torch.linalg.matrix_rank(best) == min(rank, *shape)
    dropped = torch.linalg.svdvals(w)[rank:]
    assert error == pytest.approx(float(dropped.norm() / w.norm()), abs=1e-12)
    for seed in range(20):
        left, right = _noise(shape[0], rank, seed=seed).double(), _noise(rank, shape[1], seed=seed + 99).double()
        right = torch.linalg.lstsq(left, w).solution if seed % 2 else right
        assert (w - left @ right).norm() >= (w - best).norm() - 1e-9


# --- Comptes, contre peft ---


def _with_peft(model: nn.Module, rank: int, alpha: float, targets: list[str]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, fan_in_fan_out=True)
        return get_peft_model(model, config)


@pytest.mark.parametrize(("targets", "known"), [(["c_attn"], 294_912), (["c_attn", "c_proj", "c_fc"], None)])
def test_count_is_what_peft_trains_on_gpt2_small(reference: Any, targets: list[str], known: int | None) -> None:
    model = gpt2_shape("small")
    shapes = [tuple(m.weight.shape) for n, m in model.named_modules() if n.split(".")[-1] in targets]
    adapted = _with_peft(model, 8, 16, targets)
    count = reference("lora_num_params")(shapes, 8)
    assert count == adapted.get_nb_trainable_parameters()[0]
    assert known is None or count == known


def test_gpt3_numbers_of_the_paper(reference: Any) -> None:
    qv = [(12288, 12288)] * 192
    assert [reference("lora_num_params")(qv, r) for r in (1, 4, 8)] == [4_718_592, 18_874_368, 37_748_736]


# --- ΔW, couche, fusion, contre peft ---


def _peft_linear(base: nn.Linear, rank: int, alpha: float) -> nn.Module:
    wrapped = _with_peft_linear(base, rank, alpha)
    layer = wrapped.base_model.model[0]
    with torch.no_grad():
        layer.lora_B["default"].weight.copy_(_noise(base.out_features, rank, seed=5))
    return wrapped


def _with_peft_linear(base: nn.Linear, rank: int, alpha: float) -> Any:
    return get_peft_model(nn.Sequential(base), LoraConfig(r=rank, lora_alpha=alpha, target_modules=["0"]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rank", "alpha"), [(1, 4), (3, 8), (5, 2)])
def test_layer_delta_and_merge_are_those_of_peft(reference: Any, rank: int, alpha: int, bias: bool) -> None:
    base = nn.Linear(7, 5, bias=bias)
    theirs = _peft_linear(copy.deepcopy(base), rank, alpha)
    layer = theirs.base_model.model[0]
    a, b = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
    mine = reference("LoRALinear")(copy.deepcopy(base), rank, alpha)
    assert sum(p.numel() for p in mine.parameters() if p.requires_grad) == theirs.get_nb_trainable_parameters()[0]
    with torch.no_grad():
        mine.lora_A.copy_(a)
        mine.lora_B.copy_(b)
    x = _noise(4, 3, 7, seed=8)
    torch.testing.assert_close(mine(x), theirs(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        reference("merge_lora")(torch.zeros(5, 7), a, b, alpha), layer.get_delta_weight("default")
    )
    merged = theirs.merge_and_unload()[0].weight
    torch.testing.assert_close(reference("merge_lora")(base.weight.detach(), a, b, alpha), merged)


def test_layer_starts_as_its_base_and_never_touches_it(reference: Any) -> None:
    base = nn.Linear(6, 9)
    before = copy.deepcopy(base.state_dict())
    x = _noise(5, 6)
    expected = base(x).detach()
    layer = reference("LoRALinear")(base, 2, 4.0)
    assert torch.equal(layer(x), expected)
    optimizer = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(before[k], v) for k, v in base.state_dict().items())
    assert not torch.allclose(layer(x), expected)


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
def test_layer_on_a_conv1d_is_the_layer_on_the_same_weights_turned(reference: Any, shape: tuple[int, int]) -> None:
    n_in, n_out = shape
    conv, linear = Conv1D(n_out, n_in), nn.Linear(n_in, n_out)
    linear.load_state_dict({"weight": conv.weight.T.contiguous(), "bias": conv.bias})
    layers = [reference("LoRALinear")(base, 2, 6.0) for base in (conv, linear)]
    with torch.no_grad():
        for i, ps in enumerate(zip(*(layer.parameters() for layer in layers), strict=True)):
            for p in ps:
                if p.requires_grad:
                    p.copy_(_noise(*p.shape, seed=i))
    x = _noise(4, n_in)
    torch.testing.assert_close(layers[0](x), layers[1](x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError):
        reference("LoRALinear")(Conv1D(n_out, n_in), min(shape) + 1, 1.0)


def test_merge_refuses_two_ranks(reference: Any) -> None:
    with pytest.raises(ValueError):
        reference("merge_lora")(torch.zeros(5, 7), torch.zeros(2, 7), torch.zeros(5, 3), 4.0)


# --- inject_lora, contre peft avec fan_in_fan_out ---


@pytest.mark.parametrize("target", ["c_attn", "c_proj", "c_fc"])
@pytest.mark.parametrize("seed", [0, 1])
def test_injected_gpt2_is_that_of_peft(reference: Any, ids: torch.Tensor, target: str, seed: int) -> None:
    model = tiny_gpt2(TINY, seed)
    mine = reference("inject_lora")(copy.deepcopy(model), 3, 6.0, target)
    theirs = _with_peft(copy.deepcopy(model), 3, 6, [target])
    assert torch.equal(mine(ids).logits, model(ids).logits)
    assert learning_count(mine) == learning_count(theirs)
    with torch.no_grad():
        for i, ((a, b), (a2, b2)) in enumerate(zip(factors(mine), factors(theirs), strict=True)):
            for p, q in ((a, a2), (b, b2)):
                p.copy_(0.3 * _noise(*p.shape, seed=i))
                q.copy_(p)
    torch.testing.assert_close(mine(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)
    lm_loss(mine, ids).backward()
    lm_loss(theirs, ids).backward()
    for (a, b), (a2, b2) in zip(factors(mine), factors(theirs), strict=True):
        torch.testing.assert_close(a.grad, a2.grad, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(b.grad, b2.grad, rtol=1e-3, atol=1e-5)
    pairs = dict(zip((n for n in linear_layers(model) if n.endswith(target)), factors(mine), strict=True))
    fused = replace_weights(
        model, lambda n, w: reference("merge_lora")(w, *(p.detach() for p in pairs[n]), 6.0) if n in pairs else w
    )
    torch.testing.assert_close(fused(ids).logits, theirs.merge_and_unload()(ids).logits, rtol=1e-4, atol=1e-4)


def test_three_injections_reach_every_linear_layer(reference: Any, ids: torch.Tensor) -> None:
    model = tiny_gpt2(TINY, 2)
    adapted = everywhere(model, reference("inject_lora"), 2, 4.0)
    assert len(factors(adapted)) == 4 * TINY["n_layer"]
    assert learning_count(adapted) == learning_count(_with_peft(model, 2, 4, ["c_attn", "c_proj", "c_fc"]))


# --- NF4 ---


def test_levels_are_those_published_by_bitsandbytes(levels: torch.Tensor) -> None:
    torch.testing.assert_close(levels, torch.tensor(PUBLISHED), rtol=0, atol=1e-6)
    assert levels[7] == 0 and levels[0] == -1 and levels[15] == 1


@pytest.mark.parametrize("block", [1, 16, 64])
def test_nf4_is_the_nearest_level_of_each_block(reference: Any, levels: torch.Tensor, block: int) -> None:
    w = 0.02 * _noise(24, 64, seed=block)
    codes, absmax = reference("nf4_quantize")(w, block)
    flat = w.flatten()
    for i in range(0, flat.numel(), 37):
        peak = flat[i // block * block : (i // block + 1) * block].abs().max()
        assert absmax[i // block] == peak
        distance = (flat[i] / peak - levels).abs()
        assert distance[codes[i].long()] <= distance.min() + 1e-7
    back = restore(codes, absmax, levels, w)
    widest = float(levels.diff().max()) / 2
    assert ((back - w).abs().reshape(-1, block) <= widest * absmax[:, None] + 1e-7).all()


def test_colibri_survives_four_bits(reference: Any, levels: torch.Tensor) -> None:
    model = load_model("colibri")
    copied = replace_weights(model, lambda _, w: restore(*reference("nf4_quantize")(w, 64), levels, w))
    window = torch.arange(64)[None]
    with torch.no_grad():
        assert (copied(window).logits - model(window).logits).abs().max() > 0
        assert (copied(window).logits - model(window).logits).norm() < 0.3 * model(window).logits.norm()


# --- Énergie, cache, coût d'un pas ---


def test_energy_and_rank() -> None:
    curve = energy(torch.tensor([3.0, 2.0, 1.0]))
    torch.testing.assert_close(curve, torch.tensor([9.0, 13.0, 14.0]).double() / 14)
    assert [rank_for(share, curve) for share in (0.5, 0.9, 0.95, 1.0)] == [1, 2, 3, 3]


@pytest.mark.parametrize("top", [0, 1, 2, 3])
def test_cache_gives_the_same_loss_and_gradients(reference: Any, ids: torch.Tensor, top: int) -> None:
    model = everywhere(tiny_gpt2(TINY, 4), reference("inject_lora"), 2, 4.0)
    first = TINY["n_layer"] - top
    for name, p in model.named_parameters():
        p.requires_grad_(("lora_" in name and int(name.split(".")[2]) >= first) or "ln_f" in name)
        if "lora_B" in name:
            nn.init.normal_(p, std=0.2)
    plain = lm_loss(model, ids)
    kept = hidden_before(model, ids, top)
    cached = cached_loss(top)(model, (kept, ids))
    torch.testing.assert_close(cached, plain, rtol=1e-5, atol=1e-5)
    trained = [p for p in model.parameters() if p.requires_grad]
    for a, b in zip(torch.autograd.grad(plain, trained), torch.autograd.grad(cached, trained), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_saved_bytes_of_a_linear_layer() -> None:
    layer, x = nn.Linear(10, 4), torch.randn(8, 10)
    assert saved_bytes(lambda: layer(x).square().sum(), layer) == 4 * (8 * 10 + 8 * 4)
    assert saved_bytes(lambda: layer.requires_grad_(False)(x), layer) == 0


def test_a_step_costs_a_third_less_with_everything_frozen_above(reference: Any) -> None:
    """Le compte du chapitre, 4N contre 6N, par FlopCounterMode sur une pile de couches linéaires."""
    stack = nn.Sequential(*(nn.Linear(64, 64) for _ in range(6)))
    x = torch.randn(32, 64, requires_grad=True)

    def flops() -> int:
        with FlopCounterMode(display=False) as counter:
            stack(x).sum().backward()
        return counter.get_total_flops()

    full = flops()
    stack.requires_grad_(False)
    assert flops() / full == pytest.approx(4 / 6)


def test_steps_are_timed_in_turn_and_change_nothing(ids: torch.Tensor) -> None:
    models = {name: tiny_gpt2(TINY, seed) for seed, name in enumerate(("un", "deux"))}
    before = {name: copy.deepcopy(model.state_dict()) for name, model in models.items()}
    found = step_parts({name: (m, lambda m=m: lm_loss(m, ids)) for name, m in models.items()}, rounds=2)
    assert {name: {part: len(v) for part, v in parts.items()} for name, parts in found.items()} == dict.fromkeys(
        models, {"avant": 2, "arrière": 2, "optimiseur": 2}
    )
    for name, model in models.items():
        assert all(torch.equal(before[name][k], v) for k, v in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())


def test_flops_are_counted_with_the_head(reference: Any) -> None:
    """Six opérations par poids de matrice et par jeton, tête comprise, attention en plus ; quatre quand tout gèle."""
    model = tiny_gpt2(TINY, 6)
    window = torch.arange(10)[None] % TINY["vocab_size"]
    products = sum(m.weight.numel() for m in linear_layers(model).values()) + model.lm_head.weight.numel()
    full = counted_flops(lambda: lm_loss(model, window))
    assert 6 * products * 10 <= full < 1.3 * 6 * products * 10
    frozen = everywhere(model, reference("inject_lora"), 1, 1.0)
    assert 0.6 < counted_flops(lambda: lm_loss(frozen, window)) / full < 0.85


def test_a_crossing_counts_only_when_it_lasts() -> None:
    curve = {0: [5.0], 8: [3.9], 16: [4.1], 24: [3.8], 32: [3.7]}
    assert durable_crossing(curve, 4.0) == 24
    assert durable_crossing(curve, 3.0) is None
    runs = {"LoRA": [{"B": curve, "A": [1.0]}], "tout": [{"B": {0: [5.0], 8: [3.6], 32: [3.6]}, "A": [1.0]}]}
    assert crossings(runs | {"apprennent": {}}) == {"LoRA": [32], "tout": [8]}


def test_the_shared_rank_belongs_to_every_rule() -> None:
    grid = {("α/r", 16, 1.0): [5.0, 7.0], ("α/r", 4, 1.0): [9.0], ("α/√r", 4, 1.0): [8.0], ("α/√r", 4, 2.0): [4.0]}
    assert grid_curves(grid)["α/√r"] == {4: {1.0: 8.0, 2.0: 4.0}, 16: {1.0: 6.0}}
    assert best_rates(grid)["α/√r", 4] == 2.0


def test_quartiles_entropy_and_codes() -> None:
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)
    assert entropy([1 / 16] * 16) == pytest.approx(4) and entropy([1.0]) == 0
    assert code_shares(torch.tensor([0, 0, 3, 15]))[:4] == [0.5, 0, 0, 0.25]


def test_nf4_file_holds_half_a_byte_a_weight_and_a_scale_a_block(reference: Any) -> None:
    model = load_model("colibri")
    weights = sum(weight_of(layer).numel() for layer in linear_layers(model).values())
    rest = model.num_parameters() - weights
    size = nf4_file_bytes(model, reference("nf4_quantize"))
    assert 0 < size - (weights // 2 + weights // 64 * 4 + 2 * rest) < 20_000


# --- après LoRA -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3])
def test_dora_weight_is_the_weight_that_peft_merges(reference: Any, rank: int) -> None:
    torch.manual_seed(rank)
    base = nn.Sequential(nn.Linear(7, 5, bias=False))
    start = base[0].weight.detach().clone()
    config = LoraConfig(r=rank, lora_alpha=6, target_modules=["0"], use_dora=True, lora_dropout=0.0)
    model = get_peft_model(base, config)
    layer = model.base_model.model[0]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    magnitude = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(reference("dora_weight")(start, a, b, magnitude.detach()[:, None], 6 / rank), start)
    with torch.no_grad():
        b.copy_(_noise(*b.shape))
        magnitude.copy_(1 + _noise(*magnitude.shape).abs())
        expected = model.merge_and_unload()[0].weight
        found = reference("dora_weight")(start, a, b, magnitude[:, None], 6 / rank)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.norm(dim=1), magnitude.detach())


def test_batched_lora_is_one_pass_of_peft_for_each_row(reference: Any) -> None:
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(6, 4)), LoraConfig(r=2, lora_alpha=3, target_modules=["0"]), "0")
    for task in ("1", "2"):
        model.add_adapter(task, LoraConfig(r=2, lora_alpha=3, target_modules=["0"]))
    layer = model.base_model.model[0]
    names = ["0", "1", "2"]
    for name in names:
        nn.init.normal_(layer.lora_B[name].weight)
    x, tasks = _noise(5, 3, 6), torch.tensor([2, 0, 1, 2, 0])
    a, b = (torch.stack([part[name].weight.detach() for name in names]) for part in (layer.lora_A, layer.lora_B))
    found = reference("batched_lora")(x, a, b, tasks, 1.5)
    for row, task in enumerate(tasks.tolist()):
        model.set_adapter(names[task])
        with torch.no_grad():
            torch.testing.assert_close(found[row], layer(x[row]) - layer.base_layer(x[row]))


def test_dpo_loss_is_the_bradley_terry_likelihood_and_pushes_the_right_way(reference: Any) -> None:
    chosen, rejected, ref_chosen, ref_rejected = (-30 + 5 * _noise(8, seed=s).double() for s in range(4))
    beta = 0.3
    reward = torch.stack([beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)])
    likelihood = torch.softmax(reward, dim=0)[0]  # que la choisie l'emporte, sous la récompense implicite (éq. 5 et 6)
    found = reference("dpo_loss")(chosen, rejected, ref_chosen, ref_rejected, beta)
    torch.testing.assert_close(found, -likelihood.log().mean())
    chosen.requires_grad_(), rejected.requires_grad_()
    reference("dpo_loss")(chosen, rejected, ref_chosen, ref_rejected, beta).backward()
    torch.testing.assert_close(chosen.grad, -beta * (1 - likelihood) / 8)
    torch.testing.assert_close(rejected.grad, -chosen.grad)
    far = reference("dpo_loss")(chosen.detach() - 1e5, rejected.detach(), ref_chosen, ref_rejected, 1.0)
    assert torch.isfinite(far) and far > 9e4


# --- QLoRALinear ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "block"), [((64, 24), 64), ((48, 32), 128), ((16, 80), 16)])
def test_a_packed_layer_is_peft_on_the_nearest_levels(
    reference: Any, levels: torch.Tensor, shape: tuple[int, int], block: int, tmp_path: Path
) -> None:
    """La base relue, au niveau le plus proche, sous une LoRA de peft ; puis un fichier, relu par une autre."""
    base = nn.Linear(*shape)
    blocks = base.weight.detach().reshape(-1, block)
    peak = blocks.abs().amax(1, keepdim=True)
    near = levels[(blocks[..., None] / peak[..., None] - levels).abs().argmin(-1)] * peak
    rounded = copy.deepcopy(base)
    rounded.weight.data = near.reshape(base.weight.shape)
    theirs = _peft_linear(rounded, 3, 6)
    mine = reference("QLoRALinear")(base, 3, 6, block)
    theirs_layer = theirs.base_model.model[0]
    with torch.no_grad():
        for i, (p, q) in enumerate(
            ((mine.lora_A, theirs_layer.lora_A["default"].weight), (mine.lora_B, theirs_layer.lora_B["default"].weight))
        ):
            p.copy_(_noise(*p.shape, seed=i))
            q.copy_(p)
    x = _noise(5, shape[0])
    torch.testing.assert_close(mine(x), theirs(x), rtol=1e-5, atol=1e-5)
    save_file(mine.state_dict(), tmp_path / "couche.safetensors")
    again = reference("QLoRALinear")(nn.Linear(*shape), 3, 6, block)
    again.load_state_dict(load_file(tmp_path / "couche.safetensors"))
    assert torch.equal(again(x), mine(x))
    frozen = [t for n, t in mine.state_dict().items() if "lora" not in n and n != "bias"]
    assert sum(t.numel() * t.element_size() for t in frozen) == base.weight.numel() // 2 + 4 * len(blocks)
