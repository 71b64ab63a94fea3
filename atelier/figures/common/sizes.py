"""Les tailles des modèles dont parlent les articles, et des GPT-2 de ces tailles qui ne prennent pas de mémoire."""

from __future__ import annotations

from functools import cache

import torch
from transformers import GPT2LMHeadModel

GPT3 = {"n_layer": 96, "d_model": 12288, "n_vocab": 50257, "n_ctx": 2048}
"""GPT-3 175B : Brown et al., 2020, tableau 2.1."""


@cache
def shape_only(n_layer: int, d_model: int, n_vocab: int = 50257, n_ctx: int = 1024) -> GPT2LMHeadModel:
    """Un GPT-2 de cette taille, sans aucun nombre dedans (appareil « meta ») : il ne prend ni mémoire ni temps."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(  # type: ignore[call-arg]
        n_layer=n_layer, n_embd=d_model, n_head=1, vocab_size=n_vocab, n_positions=n_ctx, bos_token_id=0,
        eos_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    with torch.device("meta"):
        return GPT2LMHeadModel(config)
