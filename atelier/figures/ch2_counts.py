"""Chapitre 2, première partie : compter les opérations d'un passage avant, d'un passage arrière, et leurs termes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


def count_flops(model: GPT2LMHeadModel, n_tokens: int) -> tuple[int, int]:
    """Opérations d'une fenêtre de n_tokens jetons, comptées par `FlopCounterMode` : passage avant, passage arrière.

    Le masque est donné tout fait, pour qu'un modèle sans nombres (appareil « meta ») puisse aussi être compté.
    """
    from torch.utils.flop_counter import FlopCounterMode

    where = next(model.parameters()).device
    ids = torch.zeros(1, n_tokens, dtype=torch.long, device=where)
    mask = torch.zeros(1, 1, n_tokens, n_tokens, device=where)
    with FlopCounterMode(display=False) as forward:
        logits = model(ids, attention_mask=mask, use_cache=False).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    model.zero_grad(set_to_none=True)
    return forward.get_total_flops(), backward.get_total_flops()
