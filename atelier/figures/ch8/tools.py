"""Ce que le chapitre 8 emploie sans l'enseigner : un cache d'activations, des comptes, des durées, des codes relus."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from atelier.figures.common.files import file_bytes, plain_tensors
from atelier.figures.common.layers import linear_layers
from atelier.hardware import beside, scale, synchronize

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel
    from transformers.pytorch_utils import Conv1D

PARTS = ("avant", "arrière", "optimiseur")
"""Ce dont un pas est fait."""


# --- Le cache des blocs gelés -----------------------------------------------------------------------------------------


@torch.no_grad()
def hidden_before(model: GPT2LMHeadModel, ids: Tensor, top: int, batch_size: int = 16) -> Tensor:
    """Ce qui entre dans les `top` derniers blocs quand le modèle lit ids (n, T) : le cache, (n, T, d).

    top = 0 : ce qui entre dans le dernier LayerNorm.
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
    """Le masque que le modèle ferait lui-même : « sdpa » sait déjà cacher le futur, « eager » attend qu'on le dise."""
    if model.config._attn_implementation == "sdpa":
        return None
    length = hidden.shape[1]
    return torch.full((length, length), float("-inf"), dtype=hidden.dtype, device=hidden.device).triu(1)[None, None]


# --- Compter, chronométrer --------------------------------------------------------------------------------------------


def learning_count(model: nn.Module) -> int:
    """Nombre de paramètres qui apprennent."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def held_bytes(model: nn.Module) -> int:
    """Octets des paramètres et des tampons d'un modèle ; un tenseur partagé (la tête liée) compte une fois."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def state_bytes(model: nn.Module) -> int:
    """Octets du gradient et des deux moments d'Adam de ce qui apprend."""
    return sum(3 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


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


def counted_flops(loss: Callable[[], Tensor]) -> int:
    """Opérations d'un pas, passage avant et passage arrière : tous les produits de matrices, tête comprise."""
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return int(counter.get_total_flops())


def step_parts(
    steps: Mapping[str, tuple[nn.Module, Callable[[], Tensor]]], rounds: int, warmup: int = 1
) -> dict[str, dict[str, list[float]]]:
    """Durées, en secondes, d'un pas de chaque modèle : tous une fois, tour à tour, puis on recommence.

    steps : nom → (modèle, sa perte sur un lot). Rend nom → « avant », « arrière », « optimiseur » → une durée par tour.
    AdamW fusionné, taux nul : les poids ne bougent pas. À l'échelle d'essai, trois tours au plus.
    """
    rounds = min(rounds, 3) if scale().name == "essai" else rounds
    optimizers = {
        name: torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, fused=True)
        for name, (model, _) in steps.items()
    }
    found: dict[str, dict[str, list[float]]] = {name: {part: [] for part in PARTS} for name in steps}
    for i in range(warmup + rounds):
        for name, (_, loss) in steps.items():
            optimizer = optimizers[name]
            marks = [_now()]
            value = loss()
            marks.append(_now())
            value.backward()
            marks.append(_now())
            optimizer.step()
            marks.append(_now())
            optimizer.zero_grad(set_to_none=True)
            del value
            for k, part in enumerate(PARTS):
                if i >= warmup:
                    found[name][part].append(marks[k + 1] - marks[k])
    return found


def _now() -> float:
    synchronize()
    return time.perf_counter()


# --- Quatre bits ------------------------------------------------------------------------------------------------------


def restore(codes: Tensor, absmax: Tensor, levels: Tensor, like: Tensor) -> Tensor:
    """Le poids relu de ses codes : niveau × échelle du bloc, à la forme de `like`."""
    return (levels.to(like)[codes.long()].reshape(len(absmax), -1) * absmax.to(like)[:, None]).reshape(like.shape)


def code_shares(codes: Tensor, n: int = 16) -> list[float]:
    """La part des poids qui prend chaque code, de 0 à n − 1."""
    counts = torch.bincount(codes.flatten().long().cpu(), minlength=n)
    return [v / codes.numel() for v in counts.tolist()]


# --- Chemins et fichiers ----------------------------------------------------------------------------------------------


def conv_paths(model: GPT2LMHeadModel) -> dict[str, Conv1D]:
    """Chemin complet → couche linéaire des blocs, dans l'ordre de calcul."""
    return {f"transformer.h.{name}": layer for name, layer in linear_layers(model).items()}


def nf4_file_bytes(model: GPT2LMHeadModel, quantize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> int:
    """Octets du modèle en NF4 : codes serrés deux par octet, échelles en FP32, le reste en FP16."""
    content = plain_tensors(model, torch.float16)
    for path, layer in conv_paths(model).items():
        codes, absmax = quantize(layer.weight.detach().T)
        codes = codes.cpu()
        content[f"{path}.weight"] = codes[0::2] * 16 + codes[1::2]
        content[f"{path}.absmax"] = absmax.cpu().contiguous()
    return file_bytes(content)
