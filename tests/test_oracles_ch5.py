"""Les références du chapitre 5, contre des bibliothèques qui ne leur doivent rien ; fichiers et modèles amincis."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import prune
from transformers import GPT2LMHeadModel

from atelier.figures.ch5 import tools
from atelier.judging.probes_models import tiny_gpt2
from atelier.models import load_model
from atelier.training import corpus_tokens
from grader.authoring.chapters import load_chapter
from grader.authoring.recording import needed

TINY = {"n_layer": 3, "n_head": 4, "n_embd": 16, "vocab_size": 40, "n_positions": 32}
CHAPTER = "ch5_elagage"


NAMES = "sparsegpt gptq rounded best_steps without_block without_neurons without_heads silenced relearn"
NAMES += " masked smallest_gone block_by_block some_text hard_loss soft_loss gradually at_once linear_layers"


@pytest.fixture(scope="module")
def chapter() -> dict[str, Any]:
    """Ce que définissent les cellules ordinaires du chapitre, et ses exercices."""
    read = load_chapter(CHAPTER)
    return read.execute(needed(read, lambda _: False, NAMES.split()))


@pytest.fixture(scope="module")
def colibri() -> GPT2LMHeadModel:
    return load_model("colibri")


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- Masques ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.37, 0.5, 0.93, 1.0])
@pytest.mark.parametrize("shape", [(40,), (13, 7), (2, 3, 11)])
def test_magnitude_is_torch_pruning(reference: Any, shape: tuple[int, ...], amount: float) -> None:
    w = _random(*shape)
    oracle = prune.L1Unstructured(amount).compute_mask(w, torch.ones_like(w)).bool()
    assert torch.equal(reference("magnitude_mask")(w, amount), oracle)


def test_magnitude_ties_go_in_order_and_the_count_is_exact(reference: Any) -> None:
    for w in (torch.ones(3, 4), torch.zeros(12), -torch.ones(4, 3).T):
        for k in range(w.numel() + 1):
            mask = reference("magnitude_mask")(w, k / w.numel()).flatten()
            assert mask.tolist() == [False] * k + [True] * (w.numel() - k)


@pytest.mark.parametrize("amount", [0.0, 0.2, 0.55, 0.9, 1.0])
def test_global_is_torch_global_pruning(reference: Any, amount: float) -> None:
    layers = {"b": torch.nn.Linear(9, 7), "a": torch.nn.Linear(4, 11), "c": torch.nn.Conv1d(3, 5, 2)}
    weights = {n: m.weight.detach().clone() * (1 + i) for i, (n, m) in enumerate(layers.items())}
    for name, m in layers.items():
        m.weight.data = weights[name].clone()
    masks = reference("global_magnitude_masks")(weights, amount)
    prune.global_unstructured([(m, "weight") for m in layers.values()], prune.L1Unstructured, amount=amount)
    for name, m in layers.items():
        oracle = m.weight_mask.bool() if hasattr(m, "weight_mask") else torch.ones_like(m.weight, dtype=torch.bool)
        assert torch.equal(masks[name], oracle)


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 4), (4, 8), (3, 5), (0, 3), (4, 4)])
def test_nm_is_the_best_choice_of_every_group(reference: Any, n: int, m: int) -> None:
    w = _random(3, 2, 3 * m)
    mask = reference("nm_mask")(w, n, m)
    for group, kept in zip(w.reshape(-1, m), mask.reshape(-1, m), strict=True):
        best = max(itertools.combinations(range(m), n), key=lambda c, g=group: g[list(c)].abs().sum())
        assert kept.nonzero()[:, 0].tolist() == sorted(best)


def test_wanda_is_the_formula_of_the_paper(reference: Any) -> None:
    w, x = _random(6, 10), _random(17, 10, seed=1) * torch.logspace(-1, 1, 10)
    for amount in (0.0, 0.3, 0.5, 1.0):
        scores = np.abs(w.numpy()) * np.sqrt((x.numpy().astype(np.float64) ** 2).sum(0))
        mask = reference("wanda_mask")(w, x, amount).numpy()
        for row, kept in zip(scores, mask, strict=True):
            assert kept.sum() == 10 - round(amount * 10)
            assert kept.all() or not kept.any() or row[kept].min() > row[~kept].max()


def test_sparsity_counts_entries(reference: Any) -> None:
    tensors = [torch.nn.functional.relu(_random(5, 7)), torch.zeros(3), _random(2, 2).half()]
    flat = np.concatenate([t.float().numpy().ravel() for t in tensors])
    assert reference("sparsity")(iter(tensors)) == pytest.approx(1 - np.count_nonzero(flat) / flat.size)


# --- Formats, programme -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0.0, 0.3, 0.5, 0.97, 1.0])
def test_sparse_bytes_is_what_the_list_weighs(reference: Any, amount: float) -> None:
    w = _random(31, 40)
    w = w * reference("magnitude_mask")(w, amount)
    packed = tools.as_list(w)
    assert reference("sparse_bytes")(w.numel(), amount) == sum(t.nbytes for t in packed.values())


def test_the_cube_is_that_of_torch(reference: Any) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    decay = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=40, power=3)
    for step in range(10, 70):
        left = decay.get_last_lr()[0]
        expected = 0.85 + (0.2 - 0.85) * left
        assert reference("cubic_schedule")(step, 10, 50, 0.85, 0.2) == pytest.approx(expected, abs=1e-7)
        optimizer.step()
        decay.step()
    assert reference("cubic_schedule")(0, 10, 50, 0.85, 0.2) == pytest.approx(0.2)


def test_files_are_read_back(reference: Any) -> None:
    w = _random(24, 37).half().float()
    w = w * reference("magnitude_mask")(w, 0.6)
    assert torch.equal(tools.from_bitmap(tools.as_bitmap(w), w.shape), w)
    listed = tools.as_list(w)
    again = torch.zeros(w.numel())
    again[listed["indices"].long()] = listed["valeurs"].float()
    assert torch.equal(again.reshape(w.shape), w)
    csr = tools.as_csr(w)
    sparse = torch.sparse_csr_tensor(
        csr["lignes"], csr["colonnes"].int(), csr["valeurs"].float(), w.shape, check_invariants=True
    )
    assert torch.equal(sparse.to_dense(), w)


def test_two_four_is_packed_on_nine_bits_a_weight(reference: Any) -> None:
    w = _random(6, 40).half().float()
    with pytest.raises(ValueError, match="2:4"):
        tools.as_two_four(w)
    w = w * reference("nm_mask")(w, 2, 4)
    packed = tools.as_two_four(w)
    assert 8 * sum(t.nbytes for t in packed.values()) == 9 * w.numel()
    codes = torch.stack([packed["places"] & 0xF, packed["places"] >> 4], 1).flatten()
    places = torch.stack([codes & 3, codes >> 2], 1).long()
    again = torch.zeros(w.numel() // 4, 4).scatter(1, places, packed["valeurs"].float())
    assert torch.equal(again.reshape(w.shape), w)


def test_packed_codes_are_read_back() -> None:
    codes = torch.arange(-8, 8).repeat(3)[:37]
    packed = tools.pack_codes(codes, 4)
    assert packed.numel() == 19
    bits = np.unpackbits(packed.numpy())[: 4 * 37].reshape(37, 4)
    assert (bits @ np.array([8, 4, 2, 1]) - 8).tolist() == codes.tolist()


def test_two_four_is_read_back(reference: Any) -> None:
    w = _random(6, 40).half().float()
    w = w * reference("nm_mask")(w, 2, 4)
    assert torch.equal(tools.from_two_four(tools.as_two_four(w), w.shape), w)


def test_the_grid_keeps_zeros_and_rounds_to_nearest(reference: Any, chapter: dict[str, Any]) -> None:
    w = _random(5, 12)
    w = w * reference("magnitude_mask")(w, 0.5)
    step = chapter["best_steps"](w, 4)
    torch.testing.assert_close(chapter["rounded"](w, 4), torch.round(w / step).clamp(-8, 7) * step)
    assert not chapter["rounded"](w, 4)[w == 0].any() and not chapter["rounded"](torch.zeros(2, 3), 4).any()
    mse_scale = load_chapter("ch3_quantification").reference("mse_scale")
    torch.testing.assert_close(step, mse_scale(w, 4, torch.linspace(0.3, 1, 29)))


# --- Structure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [{0: [1]}, {0: [3, 0], 2: [1]}, {1: [0, 1, 2]}, {2: []}])
def test_removed_heads_are_silenced_heads(chapter: dict[str, Any], gone: dict[int, list[int]]) -> None:
    model = tiny_gpt2(TINY, 5)
    ids = torch.randint(0, 40, (3, 11), generator=torch.Generator().manual_seed(1))
    small = chapter["without_heads"](model, gone)
    with torch.no_grad():
        torch.testing.assert_close(
            small(ids).logits, chapter["silenced"](model, gone)(ids).logits, rtol=1e-4, atol=1e-5
        )
        cached = small.generate(ids, do_sample=False, max_new_tokens=6, pad_token_id=0)
        plain = small.generate(ids, do_sample=False, max_new_tokens=6, pad_token_id=0, use_cache=False)
    assert torch.equal(cached, plain)
    lost = sum(map(len, gone.values())) * (4 * 4 * 16 + 3 * 4)
    assert model.num_parameters() - small.num_parameters() == lost


def test_thinned_models_are_saved_and_read_back(
    reference: Any, chapter: dict[str, Any], colibri: GPT2LMHeadModel, tmp_path: Any
) -> None:
    ids = corpus_tokens("a_train", 128)[None]
    by_loss = reference("fisher_importance")(colibri, [ids])
    plain = {
        "neurones": chapter["without_neurons"](colibri, by_loss, 100),
        "bloc": chapter["without_block"](colibri, 2),
    }
    for name, small in plain.items():
        small.save_pretrained(tmp_path / name)
        again = GPT2LMHeadModel.from_pretrained(tmp_path / name).eval()
        with torch.no_grad():
            torch.testing.assert_close(again(ids).logits, small(ids).logits)
            cached = small.generate(ids[:, :8], do_sample=False, max_new_tokens=4)
            assert torch.equal(cached, small.generate(ids[:, :8], do_sample=False, max_new_tokens=4, use_cache=False))
        assert tools.written_and_read(small, ids) == {"tel quel": "le même modèle", "forcé": "le même modèle"}
    heads = tools.written_and_read(chapter["without_heads"](colibri, {0: [1, 4], 3: [2]}), ids)
    assert heads["tel quel"] == "refuse (RuntimeError)" and "hasard" in heads["forcé"]


def test_neurons_kept_all_change_nothing(reference: Any, chapter: dict[str, Any], colibri: GPT2LMHeadModel) -> None:
    ids = corpus_tokens("a_train", 64)[None]
    by_loss = reference("fisher_importance")(colibri, [ids])
    with torch.no_grad():
        same = chapter["without_neurons"](colibri, by_loss, 0)
        torch.testing.assert_close(same(ids).logits, colibri(ids).logits)


# --- Reprise ----------------------------------------------------------------------------------------------------------


def _zeros(reference: Any, model: GPT2LMHeadModel, layers: Any) -> float:
    return float(reference("sparsity")(model.get_submodule(name).weight for name in layers))


def test_masks_survive_training(reference: Any, chapter: dict[str, Any], colibri: GPT2LMHeadModel) -> None:
    before = copy.deepcopy(chapter["colibri"].state_dict())
    for way, loss in (("at_once", {"loss_of": chapter["hard_loss"]}), ("gradually", {})):
        pruned = chapter[way](1e-3, 0, 4, amount=0.6, **loss)
        assert _zeros(reference, pruned, chapter["linear_layers"]) == pytest.approx(0.6, abs=1e-4)
    assert all(torch.equal(v, before[k]) for k, v in chapter["colibri"].state_dict().items())
    forgotten = chapter["masked"](colibri, chapter["smallest_gone"](colibri, 0.6))
    chapter["relearn"](forgotten, chapter["hard_loss"], 1, 1e-3)
    assert _zeros(reference, forgotten, chapter["linear_layers"]) < 0.05


def test_soft_labels_are_those_of_chapter_4(chapter: dict[str, Any]) -> None:
    pupil, ids = chapter["without_block"](chapter["colibri"], 3), chapter["some_text"](2)[:, :40]
    distillation_loss = load_chapter("ch4_distillation").reference("distillation_loss")
    with torch.no_grad():
        logits = [m(ids).logits[:, :-1] for m in (pupil, chapter["colibri"])]
        for temperature in (1.0, 2.0):
            found = chapter["soft_loss"](pupil, ids, temperature)
            torch.testing.assert_close(found, distillation_loss(*logits, temperature), rtol=1e-4, atol=1e-6)


# --- SparseGPT, écrit dans le chapitre --------------------------------------------------------------------------------


def test_sparsegpt_without_pruning_is_gptq(chapter: dict[str, Any]) -> None:
    w, x = _random(5, 20), _random(60, 20, seed=1)
    ch3 = load_chapter("ch3_quantification")
    scale = ch3.reference("mse_scale")(w, 4, torch.linspace(0.3, 1, 29))
    torch.testing.assert_close(chapter["gptq"](w, x, 4), ch3.reference("gptq_quantize")(w, x, scale, 4))


def test_sparsegpt_compensates(chapter: dict[str, Any], reference: Any) -> None:
    x = _random(200, 24, seed=1) @ _random(24, 24, seed=2)
    w = _random(8, 24)
    found = chapter["sparsegpt"](w, x, lambda scores: reference("magnitude_mask")(scores, 0.5))
    assert reference("sparsity")([found]) == pytest.approx(0.5)
    errors = [(x @ (v - w).T).norm() for v in (found, w * reference("wanda_mask")(w, x, 0.5))]
    assert errors[0] < 0.8 * errors[1]
    pattern = chapter["sparsegpt"](w, x, reference("nm_mask"), width=4)
    assert ((pattern.reshape(8, 6, 4) != 0).sum(-1) == 2).all()


def test_the_mask_of_a_group_is_chosen_on_corrected_weights(chapter: dict[str, Any], reference: Any) -> None:
    """Groupe après groupe (Frantar et Alistarh, § 3.3), l'erreur est plus petite qu'avec un masque de 64 colonnes."""
    x = _random(300, 64, seed=1) @ _random(64, 64, seed=2)
    w = _random(16, 64)
    by_group, by_block = (chapter["sparsegpt"](w, x, reference("nm_mask"), width=width) for width in (4, 64))
    assert ((by_block.reshape(16, 16, 4) != 0).sum(-1) == 2).all()
    assert (x @ (by_group - w).T).norm() < (x @ (by_block - w).T).norm()


def test_wanda_prunes_every_layer_by_rows(reference: Any, chapter: dict[str, Any]) -> None:
    pruned = chapter["block_by_block"](
        corpus_tokens("a_train", 128)[None], lambda w, x: w * reference("wanda_mask")(w, x, 0.5)
    )
    for name in chapter["linear_layers"]:
        w = pruned.get_submodule(name).weight.T
        assert ((w != 0).sum(1) == w.shape[1] // 2).all()


# --- La perte, les blocs ----------------------------------------------------------------------------------------------


def test_fisher_is_autograd_by_hand(reference: Any) -> None:
    """Lot par lot, la dérivée de la perte par différences finies, en float64."""
    model = tiny_gpt2({"n_layer": 1, "n_head": 2, "n_embd": 6, "vocab_size": 11, "n_positions": 8}, 3).double()
    batches = [torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(i)) for i in range(2)]
    found = reference("fisher_importance")(model, batches)
    assert list(found) == [f"transformer.h.0.{k}" for k in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")]

    def loss(ids: torch.Tensor) -> float:
        with torch.no_grad():
            log_probs = model(ids).logits[:, :-1].log_softmax(-1)
            return -log_probs.gather(-1, ids[:, 1:, None]).mean().item()

    for name, (i, j) in zip(found, [(0, 3), (2, 1), (5, 17), (9, 4)], strict=True):
        w, total, step = model.get_submodule(name).weight.data, 0.0, 1e-5
        original = w[i, j].item()
        for ids in batches:
            w[i, j] = original + step
            above = loss(ids)
            w[i, j] = original - step
            total += ((above - loss(ids)) / (2 * step)) ** 2
            w[i, j] = original
        assert found[name][j, i].item() == pytest.approx(original**2 * total, rel=1e-4)


def test_block_influence_measures_angles_alone(reference: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, 2, generator=generator, dtype=torch.float64)
    angles = torch.rand(4, 6, generator=generator, dtype=torch.float64) * math.pi
    turned = torch.view_as_real(torch.view_as_complex(x) * torch.polar(1 + angles, angles))
    found = reference("block_influence")(x, turned)
    assert isinstance(found, float) and found == pytest.approx(1 - angles.cos().mean().item(), abs=1e-12)
