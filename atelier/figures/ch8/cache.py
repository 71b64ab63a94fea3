"""Chapitre 8 : ce que coûte un pas, et le cache de ce que calculent les blocs gelés du bas.

Sert aux cellules du carnet et aux longues mesures ; rien ici ne sait ce qu'est LoRA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from atelier.hardware import beside, card_memory, step_seconds

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


@torch.no_grad()
def hidden_before(model: GPT2LMHeadModel, ids: Tensor, top: int, batch_size: int = 16) -> Tensor:
    """Ce qui entre dans les `top` derniers blocs quand le modèle lit ids (n, T) : le cache, (n, T, d).

    top = 0 : ce qui entre dans le dernier LayerNorm.
    """
    body = model.transformer
    layer = body.h[len(body.h) - top] if top else body.ln_f
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    try:
        for part in ids.split(batch_size):
            body(part, use_cache=False)
    finally:
        handle.remove()
    return torch.cat(seen)


def cached_loss(top: int) -> Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]:
    """La perte d'un modèle dont seuls les `top` derniers blocs (et la tête) sont refaits, à partir du cache.

    Rend loss(model, (cache (B, T, d), ids (B, T))) → entropie croisée moyenne du jeton suivant, en nats.
    """

    def loss(whole: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        model = cast("GPT2LMHeadModel", whole)
        hidden, ids = beside(model, batch)
        mask = _causal_mask(model, hidden)
        for block in model.transformer.h[len(model.transformer.h) - top :]:
            out = block(hidden, attention_mask=mask)
            hidden = out[0] if isinstance(out, tuple) else out
        logits = model.lm_head(model.transformer.ln_f(hidden))
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    return loss


def _causal_mask(model: GPT2LMHeadModel, hidden: Tensor) -> Tensor | None:
    """Le masque que le modèle ferait lui-même : « sdpa » sait déjà cacher le futur, « eager » attend qu'on le dise."""
    if model.config._attn_implementation == "sdpa":
        return None
    length = hidden.shape[1]
    return torch.full((length, length), float("-inf"), dtype=hidden.dtype, device=hidden.device).triu(1)[None, None]


def passes(ids: Tensor, cache: Tensor | None, batch_size: int, seed: int) -> Iterator[Any]:
    """Passages sans fin sur les mêmes fenêtres, mélangées à chaque fois : ids seuls, ou (cache, ids)."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for pick in torch.randperm(len(ids), generator=generator).split(batch_size):
            yield ids[pick] if cache is None else (cache[pick], ids[pick])


def saved_bytes(run: Callable[[], Tensor], model: nn.Module) -> int:
    """Octets que `run()` garde pour le calcul des gradients, paramètres et tampons du modèle non compris.

    Un même tenseur gardé deux fois ne compte qu'une fois.
    """
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()] if t.device.type != "meta"}
    found: dict[int, int] = {}
    kept: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            kept.append(t)  # pour que l'adresse ne resserve pas
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run()
    return sum(found.values())


def step_times(model: nn.Module, batch: Any, loss: Callable[[nn.Module, Any], Tensor], repeats: int = 7) -> dict:
    """Ce que coûte un pas d'apprentissage, le modèle restant tel quel (taux d'apprentissage nul).

    Rend « avant », « arrière », « optimiseur » (ms, médianes après un pas d'échauffement), « entraînés » (paramètres),
    « octets gardés » (activations), « octets d'état » (gradient et deux moments d'Adam, FP32) et, sur CUDA, « pic »
    (octets).
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0)
    with card_memory() as card:
        spent = step_seconds(lambda: loss(model, batch), optimizer, repeats)
    peak = {} if card.peak is None else {"pic": card.peak}
    n = sum(p.numel() for p in trained)
    return {
        "avant": round(1000 * spent["avant"], 2),
        "arrière": round(1000 * spent["arrière"], 2),
        "optimiseur": round(1000 * spent["optimiseur"], 2),
        "entraînés": n,
        "octets gardés": saved_bytes(lambda: loss(model, batch), model),
        "octets d'état": 12 * n,
        **peak,
    }
