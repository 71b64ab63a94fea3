"""Les couches linéaires d'un GPT-2, vues par les exercices : poids (sortie, entrée), activations (n, entrée)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from atelier.hardware import beside, for_float64
from atelier.perplexity import encode_documents, extract

if TYPE_CHECKING:
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block

KINDS = {
    "attn.c_attn": "Q, K, V",
    "attn.c_proj": "sortie de l'attention",
    "mlp.c_fc": "MLP, entrée",
    "mlp.c_proj": "MLP, sortie",
}
"""Les quatre couches linéaires d'un bloc de GPT-2."""


def layer_label(name: str) -> str:
    """« 0.attn.c_proj », ou son chemin entier, dit au lecteur : « bloc 0, sortie de l'attention »."""
    block, kind = name.removeprefix("transformer.h.").split(".", 1)
    return f"bloc {block}, {KINDS[kind]}"


def blocks(model: GPT2LMHeadModel) -> list[GPT2Block]:
    """Les blocs d'un GPT-2, du bas vers le haut ; torch ne dit pas ce que contient une `ModuleList`."""
    return cast("list[GPT2Block]", list(model.transformer.h))


def linear_layers(model: GPT2LMHeadModel) -> dict[str, Conv1D]:
    """« bloc.nom » → couche, dans l'ordre de calcul. Les tables d'entrée et la tête liée n'en font pas partie."""
    return {
        f"{i}.{kind}": cast(Conv1D, block.get_submodule(kind))
        for i, block in enumerate(model.transformer.h)
        for kind in KINDS
    }


def weight_of(layer: Conv1D) -> Tensor:
    """Poids (sortie, entrée) d'une couche : GPT-2 les range à l'envers, en (entrée, sortie). Prêt pour float64."""
    return for_float64(layer.weight.detach()).T


def replace_weights(model: GPT2LMHeadModel, change: Callable[[str, Tensor], Tensor]) -> GPT2LMHeadModel:
    """Une copie du modèle où le poids (sortie, entrée) de chaque couche linéaire devient change(nom, poids)."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for name, layer in linear_layers(changed).items():
            layer.weight.copy_(change(name, weight_of(layer)).T)
    return changed


@torch.inference_mode()
def layer_inputs(model: GPT2LMHeadModel, ids: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Ce qui entre dans chaque couche linéaire quand le modèle lit ids (B, T) : nom → (B·T, entrée), float64 permis."""
    layers = linear_layers(model)
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
        return lambda _, inputs: seen.__setitem__(name, for_float64(inputs[0].flatten(0, -2)))

    hooks = [layers[n].register_forward_pre_hook(keep(n)) for n in (names or layers)]
    try:
        model.transformer(beside(model, ids))  # la tête ne nous apprendrait rien
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def calibration_ids(model: GPT2LMHeadModel, tokenizer: Any, windows: int) -> Tensor:
    """Des fenêtres de texte (windows, contexte), sur l'appareil du modèle, pour observer ses activations.

    Jamais l'extrait qui sert à évaluer.
    """
    context = min(model.config.n_positions, 1024)
    ids = encode_documents(extract("a_train"), tokenizer, windows * context)
    return beside(model, ids[: len(ids) // context * context].reshape(-1, context)[:windows])
