"""La boucle d'apprentissage du cours, écrite une seule fois : fenêtres tirées d'un extrait, AdamW, journal.

Les chapitres 2 et 4 à 8 comparent des méthodes, pas des boucles : à `steps`, `seed` et fenêtres égaux, deux modèles
voient exactement les mêmes jetons dans le même ordre.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from atelier.hardware import beside, device, scale, synchronize
from atelier.models import shared_tokenizer
from atelier.perplexity import encode_documents, extract


def corpus_tokens(name: str, max_tokens: int | None = None, tokenizer: Any = None) -> Tensor:
    """Jetons d'un extrait livré (« a_train », « b_train », « bprime_train »…) → (n,) int64, sur CPU.

    max_tokens : par défaut tout l'extrait, ou vingt mille jetons à l'échelle d'essai.
    Lève `ValueError` si l'extrait n'existe pas.
    """
    if max_tokens is None:
        max_tokens = scale().pick(essai=20_000, cpu=None, gpu=None)
    return encode_documents(extract(name), tokenizer or shared_tokenizer(), max_tokens)


def windows(ids: Tensor, batch_size: int = 8, length: int = 128, seed: int = 0) -> Iterator[Tensor]:
    """Lots sans fin de fenêtres tirées au hasard dans `ids` (n,) → (batch_size, length) int64, sur `device()`.

    Une même graine redonne les mêmes lots. Lève `ValueError` si `ids` est plus court qu'une fenêtre.
    """
    if len(ids) < length:
        raise ValueError(f"il faut au moins {length} jetons pour une fenêtre, l'extrait n'en compte que {len(ids)}.")
    return _windows(ids, batch_size, length, seed)


def _windows(ids: Tensor, batch_size: int, length: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.arange(length)
    while True:
        starts = torch.randint(0, len(ids) - length + 1, (batch_size, 1), generator=generator)
        yield ids[starts + offsets].to(device())


def lm_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Entropie croisée moyenne du jeton suivant ; ids (B, T), où qu'ils soient → scalaire, en nats."""
    ids = beside(model, ids)
    logits = model(ids, use_cache=False).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@dataclass
class Log:
    """Journal d'un apprentissage : une perte par pas ; secondes de la boucle et durée médiane d'un pas."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    step_seconds: float = 0.0

    def smoothed(self, span: int = 10) -> list[float]:
        """Moyenne glissante des pertes sur les `span` derniers pas."""
        return [sum(part := self.losses[max(0, i - span + 1) : i + 1]) / len(part) for i in range(len(self.losses))]


def train(
    model: nn.Module,
    batches: Iterable[Any],
    steps: int,
    lr: float = 1e-3,
    loss: Callable[[nn.Module, Any], Tensor] = lm_loss,
    what: str = "apprentissage",
    warmup: int = 10,
    weight_decay: float = 0.0,
    after_step: Callable[[int], None] | None = None,
) -> Log:
    """Entraîne sur place les paramètres de `model` qui ont `requires_grad`, et rend le journal.

    batches : au moins `steps` lots ; loss(model, lot) → scalaire. AdamW fusionné (β = 0,9 et 0,95), montée linéaire du
    taux sur `warmup` pas puis descente en cosinus jusqu'à 10 % de `lr`, norme du gradient bornée à 1. after_step(i) est
    appelé après chaque mise à jour (réappliquer un masque, mesurer). Le modèle est rendu en mode évaluation.
    Lève `ValueError` si aucun paramètre n'apprend, ou si `batches` s'arrête avant la fin.
    """
    from tqdm.auto import tqdm

    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("aucun paramètre du modèle n'a requires_grad=True : il n'y a rien à entraîner.")
    optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True)
    log, durations, source = Log(), [], iter(batches)
    model.train()
    quiet = os.environ.get("TQDM_DISABLE") == "1"
    start = time.perf_counter()
    for i in tqdm(range(steps), desc=what, unit="pas", disable=quiet, leave=False):
        try:
            batch = next(source)
        except StopIteration:
            raise ValueError(f"les lots s'arrêtent au pas {i}, il en faut {steps}.") from None
        began = time.perf_counter()
        progress = (i - warmup) / max(1, steps - warmup)
        shape = (i + 1) / warmup if i < warmup else 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = lr * shape
        optimizer.zero_grad(set_to_none=True)
        value = loss(model, batch)
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if after_step is not None:
            after_step(i)
        log.losses.append(value.item())
        durations.append(time.perf_counter() - began)
    synchronize()
    log.seconds = time.perf_counter() - start
    log.step_seconds = sorted(durations)[len(durations) // 2] if durations else 0.0
    model.eval()
    return log
