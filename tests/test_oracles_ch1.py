"""Les références du chapitre 1, contre des bibliothèques qui ne leur doivent rien."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from atelier.judging.probes_models import tiny_gpt2
from atelier.models import GPT2_SIZES, load_model, load_tokenizer
from atelier.perplexity import encode_documents, evaluate_perplexity, extract
from grader.authoring.chapters import load_chapter

TINY = {"n_layer": 3, "n_head": 4, "n_embd": 16, "vocab_size": 40, "n_positions": 32}
CHAPTER = "ch1_rappel_gpt2"


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(0, 40, (3, 11), generator=torch.Generator().manual_seed(1))


# --- split_heads et causal_attention, contre GPT2Attention et F.scaled_dot_product_attention --------------------------


@pytest.mark.parametrize("seed", range(4))
def test_attention_inside_hf_gpt2attention(reference: Any, ids: torch.Tensor, seed: int) -> None:
    """Toute la couche d'attention de transformers, refaite avec split_heads et causal_attention."""
    split_heads, causal_attention = reference("split_heads"), reference("causal_attention")
    model = tiny_gpt2(TINY, seed)
    seen: dict[str, torch.Tensor] = {}
    layer = model.transformer.h[1].attn

    def keep(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        seen["x"], seen["y"] = (args[0] if args else kwargs["hidden_states"]), out[0]

    handle = layer.register_forward_hook(keep, with_kwargs=True)
    with torch.no_grad():
        model(ids)
        handle.remove()
        q, k, v = (split_heads(t, 4) for t in layer.c_attn(seen["x"]).split(16, dim=-1))
        mixed = causal_attention(q, k, v).transpose(1, 2).flatten(2)
        torch.testing.assert_close(layer.c_proj(mixed), seen["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 7, 5), (1, 6, 64, 32)])
def test_causal_attention_is_scaled_dot_product(reference: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(reference("causal_attention")(q, k, v), expected, rtol=1e-4, atol=1e-5)


def test_the_past_does_not_depend_on_the_future(reference: Any) -> None:
    q, k, v = torch.randn(3, 1, 2, 8, 4, generator=torch.Generator().manual_seed(3))
    before = reference("causal_attention")(q, k, v)
    for t in (q, k, v):
        t[:, :, 5:] += 10
    after = reference("causal_attention")(q, k, v)
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    assert not torch.allclose(before[:, :, 5:], after[:, :, 5:])


# --- gpt2_num_params --------------------------------------------------------------------------------------------------


def _counted_by_hf(n_layer: int, d_model: int, n_vocab: int, n_ctx: int) -> int:
    config = GPT2Config(n_layer=n_layer, n_embd=d_model, n_head=1, vocab_size=n_vocab, n_positions=n_ctx)
    with torch.device("meta"):
        return GPT2LMHeadModel(config).num_parameters()


@pytest.mark.parametrize("sizes", [(0, 8, 5, 3), (1, 1, 1, 1), (5, 192, 4096, 256), (7, 96, 333, 77)])
def test_num_params_is_hf_count(reference: Any, sizes: tuple[int, int, int, int]) -> None:
    assert reference("gpt2_num_params")(*sizes) == _counted_by_hf(*sizes)


def test_num_params_of_the_published_models(reference: Any) -> None:
    count = reference("gpt2_num_params")
    found = {name: count(layers, d) for name, (layers, d, _) in GPT2_SIZES.items()}
    assert found == {"small": 124_439_808, "medium": 354_823_168, "large": 774_030_080, "xl": 1_557_611_200}
    assert found == {name: _counted_by_hf(layers, d, 50257, 1024) for name, (layers, d, _) in GPT2_SIZES.items()}


def test_first_vocabulary_gives_the_announced_sizes(reference: Any) -> None:
    """Ce que le chapitre présente comme notre déduction : 40 478 entrées redonnent 117, 345, 762 et 1 542 M."""
    count = reference("gpt2_num_params")
    millions = [round(count(layers, d, 40478) / 1e6) for layers, d, _ in GPT2_SIZES.values()]
    assert millions == [117, 345, 762, 1542]


def test_num_params_of_colibri(reference: Any) -> None:
    model = load_model("colibri", on="cpu")
    c = model.config
    assert reference("gpt2_num_params")(c.n_layer, c.n_embd, c.vocab_size, c.n_positions) == model.num_parameters()


# --- perplexity -------------------------------------------------------------------------------------------------------


def test_perplexity_is_exp_of_hf_loss(reference: Any, ids: torch.Tensor) -> None:
    model = tiny_gpt2(TINY, 0)
    with torch.no_grad():
        out = model(ids, labels=ids)
    assert float(reference("perplexity")(out.logits, ids)) == pytest.approx(math.exp(out.loss), rel=1e-5)


def test_perplexity_with_right_padding_is_hf_loss_on_labels(reference: Any, ids: torch.Tensor) -> None:
    model = tiny_gpt2(TINY, 1)
    mask = torch.ones_like(ids)
    mask[1, 4:], mask[2, 9:] = 0, 0
    with torch.no_grad():
        out = model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100))
    assert float(reference("perplexity")(out.logits, ids, mask)) == pytest.approx(math.exp(out.loss), rel=1e-5)


def test_perplexity_with_left_padding_is_a_loop(reference: Any, ids: torch.Tensor) -> None:
    logits = torch.randn(3, 11, 40, generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    mask[0, :3], mask[2, :7] = 0, 0
    losses = [
        F.cross_entropy(logits[b, t], ids[b, t + 1]).item()
        for b in range(3)
        for t in range(10)
        if mask[b, t] and mask[b, t + 1]
    ]
    expected = math.exp(sum(losses) / len(losses))
    assert float(reference("perplexity")(logits, ids, mask)) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_perplexity_of_one_window_is_the_protocol_of_the_course(reference: Any) -> None:
    model, tokenizer = load_model("colibri", on="cpu"), load_tokenizer("colibri")
    context = min(model.config.n_positions, 128)
    ids = encode_documents(extract("a_validation"), tokenizer, context - 1)[:context][None]
    found = float(reference("perplexity")(model(ids).logits, ids))
    protocol = evaluate_perplexity(model, max_tokens=context - 1, context=context, stride=context)
    assert protocol.tokens == context - 1
    assert found == pytest.approx(protocol.perplexity, rel=1e-4)


# --- kv_cache_bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_kv_cache_bytes_is_the_size_of_hf_cache(reference: Any, ids: torch.Tensor, dtype: torch.dtype) -> None:
    model = tiny_gpt2(TINY, 0).to(dtype)
    with torch.no_grad():
        cache = model(ids, use_cache=True)[1]
    held = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    c = model.config
    assert reference("kv_cache_bytes")(c.n_layer, c.n_embd, ids.shape[1], len(ids), dtype.itemsize) == held


# --- greedy_generate --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_greedy_is_hf_generate(reference: Any, ids: torch.Tensor, seed: int) -> None:
    model = tiny_gpt2(TINY, seed, 0.25)
    expected = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8, pad_token_id=0
    )
    assert torch.equal(reference("greedy_generate")(model, ids, 8), expected)


def test_greedy_on_colibri_is_hf_generate(reference: Any) -> None:
    model, tokenizer = load_model("colibri", on="cpu"), load_tokenizer("colibri")
    prompt = tokenizer("Le salarié peut demander", return_tensors="pt")["input_ids"]
    options = {"do_sample": False, "min_new_tokens": 20, "max_new_tokens": 20, "pad_token_id": 0, "eos_token_id": None}
    expected = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    assert torch.equal(reference("greedy_generate")(model, prompt, 20), expected)


# --- sampling_probs, contre les traitements de transformers -----------------------------------------------------------


def _warped(logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float | None) -> torch.Tensor:
    scores = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k is not None:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p is not None:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return torch.softmax(scores, dim=-1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 7, 500])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.6, 0.95])
def test_sampling_probs_is_hf_warpers(
    reference: Any, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    logits = 3 * torch.randn(4, 100, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    found = reference("sampling_probs")(logits, temperature, top_k, top_p)
    torch.testing.assert_close(found, _warped(logits, temperature, top_k, top_p))


def test_sampling_probs_of_colibri_are_what_generate_draws_from(reference: Any) -> None:
    """Un tirage de `generate` est possible pour la fonction, et un jeton qu'elle écarte n'est jamais tiré."""
    model, tokenizer = load_model("colibri", on="cpu"), load_tokenizer("colibri")
    ids = tokenizer("Le salarié peut demander à son", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        probs = reference("sampling_probs")(model(ids).logits[0, -1], 1.3, 20, 0.9)
    torch.manual_seed(0)
    out = model.generate(
        ids.expand(400, -1), attention_mask=torch.ones_like(ids).expand(400, -1), do_sample=True, temperature=1.3,
        top_k=20, top_p=0.9, max_new_tokens=1, pad_token_id=0,
    )  # fmt: skip
    drawn = out[:, -1].bincount(minlength=len(probs)) / 400
    assert not drawn[probs == 0].any()
    assert (drawn - probs).abs().max() < 0.1


# --- L'assemblage du chapitre, par les références ---------------------------------------------------------------------


def test_the_forward_of_the_chapter_is_the_library_s(reference: Any) -> None:
    """Les cellules `block_forward` et `gpt2_forward`, telles que le lecteur les a, sur un autre GPT-2."""
    cells = [cell.source for cell in load_chapter(CHAPTER).cells if cell.kind == "code"]
    space: dict[str, Any] = {"math": math, "torch": torch}
    space |= {name: reference(name) for name in ("split_heads", "causal_attention")}
    for source in cells:
        if source.startswith(("def linear(", "def block_forward(")):
            exec(source, space)
    model, ids = tiny_gpt2(TINY, 3), torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(space["gpt2_forward"](model, ids), model(ids).logits, rtol=1e-4, atol=1e-5)
