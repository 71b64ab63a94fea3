"""Les petits modèles de l'étude d'échelle du chapitre 2 : les mêmes dans le carnet et dans le journal de l'étude."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from atelier.figures.ch2.tools import window
from atelier.hardware import device

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

VOCABULARY = 4096
CONTEXT = 128
BATCH = 4
WIDTH_STEP = 4
HEAD_SIZE = 16
VALIDATION_TOKENS = 16384


def study_model(n_layer: int, d_model: int, seed: int = 0) -> GPT2LMHeadModel:
    """Un GPT-2 neuf de l'étude : découpage de Colibri, contexte de 128 jetons, sans dropout ; des têtes de 16
    composantes si la largeur s'y prête, une seule tête sinon.

    Lève `ValueError` si d_model n'est pas un multiple de 4, ou si n_layer est inférieur à 1.
    """
    if d_model % WIDTH_STEP or d_model < WIDTH_STEP or n_layer < 1:
        raise ValueError(f"il faut au moins un bloc, et d_model multiple de {WIDTH_STEP} : pas {n_layer} et {d_model}.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _build(n_layer, d_model).to(device())  # type: ignore[arg-type]


def _build(n_layer: int, d_model: int, attention: str = "sdpa") -> GPT2LMHeadModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    heads = 1 if d_model % HEAD_SIZE else d_model // HEAD_SIZE
    config = GPT2Config(  # type: ignore[call-arg]
        n_layer=n_layer, n_embd=d_model, n_head=heads, vocab_size=VOCABULARY, n_positions=CONTEXT,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, attn_implementation=attention,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


@cache
def training_flops_per_token(n_layer: int, d_model: int) -> float:
    """Opérations d'un jeton d'apprentissage dans l'étude, avant et arrière, comptées sur une fenêtre."""
    with torch.device("meta"):
        model = _build(n_layer, d_model, "eager")
    with FlopCounterMode(display=False) as counter:
        model(**window(model, CONTEXT)).logits.sum().backward()
    return counter.get_total_flops() / CONTEXT
