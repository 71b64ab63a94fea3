"""Chapitre 6 : les grilles de réglage, ce qu'un modèle écrit, les opérations d'un passage."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atelier.hardware import beside
from atelier.models import load_tokenizer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

_ADAM = (5e-4, 1e-3, 2e-3, 4e-3)
_DESCENT = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
GRIDS: dict[tuple[str, str], tuple[float, ...]] = {
    ("zéro", "dernier"): _ADAM,
    ("tout", "dernier"): (*_ADAM, 8e-3),
    ("tout", "moyenne"): (*_ADAM, 8e-3),
    ("gelé", "dernier"): _DESCENT,
    ("gelé", "moyenne"): _DESCENT,
    ("TF-IDF", "mots"): (1, 3, 10, 30, 100, 300, 1000, 3000),
}
"""(ce qui apprend, lecture) → réglages essayés : taux d'AdamW, taux de la tête, force de la régression."""
TRANSFER_CASES = (
    *((("zéro", "dernier"), n) for n in (50, 200)),
    *((("tout", "dernier"), n) for n in (50, 200, 800)),
    *((("TF-IDF", "mots"), n) for n in (50, 200, 800)),
)
"""((ce qui apprend, lecture), textes) : partir de zéro n'est pas essayé à 800."""
FLOOR_RATES = tuple(
    (floor, lr)
    for floor, rates in {
        "dernier LayerNorm": (1e-2, 3e-2, 1e-1),
        "dernier bloc": (2e-3, 4e-3, 8e-3),
        "table des jetons": (5e-4, 1e-3, 2e-3, 4e-3),
    }.items()
    for lr in rates
)
"""Ce que l'on dégèle, et les taux essayés."""
VOICE_RATES = (
    *(("Colibri", lr) for lr in (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)),
    *(("zéro", lr) for lr in (1e-3, 2e-3, 4e-3)),
)
"""(départ, taux) essayés pour la fantasy."""
CATEGORY_RATES = tuple(("Colibri", lr) for lr in (5e-4, 1e-3, 2e-3, 4e-3))
"""(départ, taux) essayés pour les catégories de Littré."""
FOUR_BITS = {
    "base en NF4, paquets de 64": 4 + 32 / 64,
    "base en NF4, échelles sur 8 bits": 4 + 8 / 64 + 32 / (64 * 256),
    "base en MXFP4, paquets de 32": 4 + 8 / 32,
}
"""Bits par poids d'une base gelée, échelles comprises (QLoRA, 2023, § 3 ; OCP, 2023)."""
TAG_WAYS = (("Colibri", "premier"), ("Colibri", "dernier"))
"""(départ, jeton du mot qui porte l'étiquette)."""


@torch.inference_mode()
def continuation(model: GPT2LMHeadModel, start: str, n_new: int) -> str:
    """La suite d'un début : température 0,8, parmi les quarante jetons les plus probables, toujours la même graine."""
    tokenizer = load_tokenizer("colibri")
    ids: Tensor = beside(model, tokenizer(start, return_tensors="pt")["input_ids"])
    generator, first = torch.Generator().manual_seed(1), ids.shape[1]
    for _ in range(n_new):
        values, indices = (model(ids).logits[0, -1].float().cpu() / 0.8).topk(40)
        chosen = indices[torch.multinomial(values.softmax(-1), 1, generator=generator)]
        ids = torch.cat([ids, chosen[None].to(ids.device)], dim=1)
    said: Any = tokenizer.decode(ids[0, first:].tolist(), skip_special_tokens=True)
    return " / ".join(str(said).strip().splitlines())


def counted_flops(run: Callable[[], object]) -> int:
    """Opérations des produits de matrices d'un appel, comptées par PyTorch."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
