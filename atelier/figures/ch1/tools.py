"""Ce que le chapitre 1 emploie sans l'enseigner : l'extrait, l'attention en toutes lettres, les genres de jetons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atelier.figures.ch1.tokens import token_text
from atelier.perplexity import encode_documents, extract

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

SETTLED = 16
"""Premières positions d'une fenêtre laissées de côté dans les mesures : elles ont trop peu de passé."""


def extract_ids(tokenizer: Any, n_tokens: int) -> Tensor:
    """Les n_tokens premiers jetons de l'extrait de validation, celui de toutes les perplexités du chapitre."""
    return encode_documents(extract("a_validation"), tokenizer, n_tokens)[:n_tokens]


@contextmanager
def eager(model: GPT2LMHeadModel) -> Iterator[None]:
    """Le temps du bloc, l'attention du modèle est calculée de façon à rendre ses poids ; puis tout est remis."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def kinds_of_tokens(tokenizer: Any, ids: Tensor) -> dict[str, Tensor]:
    """Genre → masque (B, T, T) des jetons de ce genre que peut regarder chaque jeton, passé les premiers."""
    batch, n = ids.shape
    rows, columns = torch.arange(n)[:, None], torch.arange(n)[None]
    past = (columns <= rows) & (rows >= SETTLED)
    same = (ids[:, :, None] == ids[:, None, :]) & (columns < rows) & past
    after_same = torch.zeros_like(same)
    after_same[:, :, 1:] = ((ids[:, :, None] == ids[:, None, :]) & (columns < rows))[:, :, :-1]
    last_close = torch.where(torch.isin(ids, _closing(tokenizer)), torch.arange(n), -1).cummax(dim=1).values
    return {
        "lui-même": ((columns == rows) & past).expand(batch, n, n),
        "le jeton précédent": ((columns == rows - 1) & past).expand(batch, n, n),
        "le premier jeton de la fenêtre": ((columns == 0) & past).expand(batch, n, n),
        "la dernière fin de phrase": (columns == last_close[:, :, None]) & past,
        "le même jeton, plus tôt": same,
        "ce qui suivait le même jeton": after_same & (columns < rows) & past,
    }


def _closing(tokenizer: Any) -> Tensor:
    """Les jetons qui ferment une phrase ou une ligne."""
    texts = {i: token_text(tokenizer, i) for i in range(len(tokenizer))}
    return torch.tensor([i for i, t in texts.items() if t.rstrip("⏎␣⍽")[-1:] in (".", "!", "?", "…") or "⏎" in t])
