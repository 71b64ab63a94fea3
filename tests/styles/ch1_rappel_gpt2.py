"""Réponses justes du chapitre 1, dans d'autres styles que la référence : toutes doivent avoir tous les points."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

# --- split_heads ----------------------------------------------------------------------------------------------------


def split_chunks(x, n_head):
    if n_head <= 0 or x.size(-1) % n_head != 0:
        raise ValueError("têtes")
    return torch.stack(x.chunk(n_head, dim=-1), dim=1)


def split_loops(x, n_head):
    batch, length, width = x.shape
    if not (n_head >= 1 and n_head * (width // n_head) == width):
        raise ValueError("têtes")
    size = width // n_head
    out = torch.empty(batch, n_head, length, size, dtype=x.dtype)
    for h in range(n_head):
        out[:, h] = x[:, :, h * size : (h + 1) * size]
    return out


def split_unflatten(x, n_head):
    if n_head < 1 or x.shape[2] % n_head > 0:
        raise ValueError("têtes")
    return x.unflatten(2, (n_head, -1)).permute(0, 2, 1, 3).contiguous()


def split_einsum(x, n_head):
    """La permutation écrite comme un produit par des indicatrices."""
    if n_head < 1 or x.shape[-1] % n_head:
        raise ValueError("têtes")
    size = x.shape[-1] // n_head
    pick = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).reshape(-1, n_head, size)
    return torch.einsum("btw,whd->bhtd", x, pick)


# --- causal_attention -----------------------------------------------------------------------------------------------


def attention_library(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def attention_loops(q, k, v):
    out = torch.empty_like(v)
    for t in range(q.shape[2]):
        past = slice(0, t + 1)
        scores = (q[:, :, t : t + 1] * k[:, :, past]).sum(-1) * q.shape[-1] ** -0.5
        weights = F.softmax(scores, dim=-1)
        out[:, :, t] = (weights[..., None] * v[:, :, past]).sum(2)
    return out


def attention_additive(q, k, v):
    wide = [t.to(torch.float64) for t in (q, k, v)]
    mask = torch.full((q.shape[-2],) * 2, float("-inf"), dtype=torch.float64, device=q.device).triu(1)
    scores = torch.einsum("bhtd,bhsd->bhts", wide[0], wide[1]) / wide[0].shape[-1] ** 0.5 + mask
    return torch.einsum("bhts,bhsd->bhtd", scores.softmax(-1), wide[2]).to(q.dtype)


def attention_by_hand(q, k, v):
    """Softmax écrit à la main, sur les seuls scores permis ; q est ramené à l'échelle avant le produit."""
    length = q.shape[-2]
    places = torch.arange(length, device=q.device)
    allowed = places[:, None] >= places
    scores = torch.where(allowed, (q.float() / math.sqrt(q.shape[-1])) @ k.float().mT, torch.tensor(-1e9))
    exp = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
    exp = exp * allowed
    return (
        (exp @ v.float() / exp.sum(-1, keepdim=True)).to(q.dtype)
        if q.dtype != torch.float64
        else (attention_additive(q, k, v))
    )


def attention_numpy(q, k, v):
    a, b, c = (t.double().numpy() for t in (q, k, v))
    scores = a @ np.swapaxes(b, -1, -2) / np.sqrt(a.shape[-1])
    scores[..., ~np.tri(a.shape[-2], dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return torch.tensor(weights @ c).to(q.dtype)


# --- gpt2_num_params ------------------------------------------------------------------------------------------------


def _refuse_sizes(n_layer, d_model, n_vocab, n_ctx):
    if n_layer < 0 or d_model < 1 or n_vocab < 1 or n_ctx < 1:
        raise ValueError("tailles")


def params_formula(n_layer, d_model, n_vocab=50257, n_ctx=1024):
    _refuse_sizes(n_layer, d_model, n_vocab, n_ctx)
    return n_layer * (12 * d_model**2 + 13 * d_model) + (n_vocab + n_ctx + 2) * d_model


def params_shapes(n_layer, d_model, n_vocab=50257, n_ctx=1024):
    _refuse_sizes(n_layer, d_model, n_vocab, n_ctx)
    d = d_model
    block = [(d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,), (d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    shapes = [(n_vocab, d), (n_ctx, d), *block * n_layer, (d,), (d,)]
    return sum(math.prod(s) for s in shapes)


def params_library(n_layer, d_model, n_vocab=50257, n_ctx=1024):
    _refuse_sizes(n_layer, d_model, n_vocab, n_ctx)
    config = GPT2Config(n_layer=n_layer, n_embd=d_model, n_head=1, vocab_size=n_vocab, n_positions=n_ctx)
    with torch.device("meta"):
        return GPT2LMHeadModel(config).num_parameters()


def params_difference(n_layer, d_model, n_vocab=50257, n_ctx=1024):
    """Deux modèles de torch, de zéro et d'un bloc : le reste est affine en n_layer."""
    _refuse_sizes(n_layer, d_model, n_vocab, n_ctx)
    with torch.device("meta"):
        parts = [
            torch.nn.LayerNorm(d_model),
            torch.nn.Linear(d_model, 3 * d_model),
            torch.nn.Linear(d_model, d_model),
            torch.nn.LayerNorm(d_model),
            torch.nn.Linear(d_model, 4 * d_model),
            torch.nn.Linear(4 * d_model, d_model),
        ]
    per_block = sum(p.numel() for m in parts for p in m.parameters())
    return (n_vocab + n_ctx) * d_model + n_layer * per_block + 2 * d_model


# --- perplexity -----------------------------------------------------------------------------------------------------


def perplexity_loops(logits, input_ids, attention_mask=None):
    total, count = 0.0, 0
    for b in range(input_ids.shape[0]):
        for t in range(input_ids.shape[1] - 1):
            if attention_mask is not None and not (attention_mask[b, t] and attention_mask[b, t + 1]):
                continue
            row = logits[b, t].double()
            total += (torch.logsumexp(row, 0) - row[input_ids[b, t + 1]]).item()
            count += 1
    return math.exp(total / count)


def perplexity_cross_entropy(logits, input_ids, attention_mask=None):
    labels = input_ids[:, 1:].clone()
    if attention_mask is not None:
        labels[attention_mask[:, 1:] == 0] = -100
        labels[attention_mask[:, :-1] == 0] = -100
    loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=-100)
    return loss.exp()


def perplexity_weights(logits, input_ids, attention_mask=None):
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    weight = mask[:, 1:] * mask[:, :-1]
    nll = F.nll_loss(
        F.log_softmax(logits[:, :-1].double(), -1).flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none"
    )
    return torch.exp((nll * weight.flatten()).sum() / weight.sum()).item()


def perplexity_base_two(logits, input_ids, attention_mask=None):
    """Logarithme et puissance en base 2 : la même perplexité."""
    log2 = torch.log_softmax(logits, dim=-1) / math.log(2)
    picked = torch.stack([log2[:, t].gather(1, input_ids[:, t + 1, None])[:, 0] for t in range(logits.shape[1] - 1)], 1)
    keep = torch.ones_like(picked, dtype=torch.bool)
    if attention_mask is not None:
        keep = (attention_mask[:, 1:] + attention_mask[:, :-1]) == 2
    return 2 ** -picked[keep].mean()


# --- greedy_generate ------------------------------------------------------------------------------------------------


def _refuse_length(model, input_ids, n_new):
    if n_new < 0 or input_ids.shape[-1] + n_new > model.config.n_positions:
        raise ValueError("longueur")


def greedy_library(model, input_ids, n_new):
    _refuse_length(model, input_ids, n_new)
    if n_new == 0:
        return input_ids
    return model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        do_sample=False,
        min_new_tokens=n_new,
        max_new_tokens=n_new,
        pad_token_id=0,
    )


@torch.inference_mode()
def greedy_token_by_token(model, input_ids, n_new):
    """L'amorce aussi est lue jeton par jeton."""
    _refuse_length(model, input_ids, n_new)
    ids, cache = input_ids.clone(), None
    for t in range(input_ids.shape[1] + n_new - 1):
        out = model(ids[:, t : t + 1], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        if t + 1 >= input_ids.shape[1] and n_new:
            ids = torch.cat([ids, out.logits[:, -1:].argmax(-1)], dim=1)
    return ids


def greedy_with_gradients(model, input_ids, n_new):
    """Sans no_grad, une liste de colonnes, la dernière position seule calculée."""
    _refuse_length(model, input_ids, n_new)
    columns, cache = [input_ids], None
    while len(columns) <= n_new:
        out = model(columns[-1], cache, use_cache=True, logits_to_keep=1)
        cache = out[1]
        columns.append(torch.topk(out[0][:, -1], 1).indices)
    return torch.cat(columns, dim=1)


def greedy_one_sentence_at_a_time(model, input_ids, n_new):
    _refuse_length(model, input_ids, n_new)
    done = []
    for row in input_ids:
        row, cache, unread = row[None], None, row[None]
        for _ in range(n_new):
            with torch.no_grad():
                logits, cache = model(unread, cache, use_cache=True).to_tuple()[:2]
            unread = torch.tensor([[int(logits[0, -1].argmax())]], device=row.device)
            row = torch.cat((row, unread), 1)
        done.append(row)
    return torch.cat(done)


# --- kv_cache_bytes -------------------------------------------------------------------------------------------------


def _refuse_counts(n_tokens, batch_size):
    if min(n_tokens, batch_size) < 0:
        raise ValueError("comptes")


def cache_per_token(n_layer, d_model, n_tokens, batch_size=1, bytes_per_value=2):
    _refuse_counts(n_tokens, batch_size)
    per_token = 2 * n_layer * d_model * bytes_per_value
    return per_token * n_tokens * batch_size


def cache_loops(n_layer, d_model, n_tokens, batch_size=1, bytes_per_value=2):
    _refuse_counts(n_tokens, batch_size)
    total = 0
    for _ in range(n_layer):
        for _ in ("K", "V"):
            total += math.prod((batch_size, n_tokens, d_model)) * bytes_per_value
    return total


def cache_tensors(n_layer, d_model, n_tokens, batch_size=1, bytes_per_value=2):
    _refuse_counts(n_tokens, batch_size)
    one = torch.empty(batch_size, 1, n_tokens, d_model, device="meta")
    return 2 * n_layer * one.numel() * bytes_per_value


STYLES = {
    "split_heads": [split_chunks, split_loops, split_unflatten, split_einsum],
    "causal_attention": [
        attention_library,
        attention_loops,
        attention_additive,
        attention_by_hand,
        attention_numpy,
    ],
    "gpt2_num_params": [params_formula, params_shapes, params_library, params_difference],
    "perplexity": [perplexity_loops, perplexity_cross_entropy, perplexity_weights, perplexity_base_two],
    "greedy_generate": [
        greedy_library,
        greedy_token_by_token,
        greedy_with_gradients,
        greedy_one_sentence_at_a_time,
    ],
    "kv_cache_bytes": [cache_per_token, cache_loops, cache_tensors],
}
