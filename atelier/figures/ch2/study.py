"""La petite étude d'échelle du chapitre 2 : une taille, un budget de calcul, un point. Le carnet et les mesures
enregistrées emploient la même fonction `train_point`."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atelier.figures.ch2.counts import count_flops
from atelier.hardware import device
from atelier.perplexity import evaluate_perplexity
from atelier.training import train, windows

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

VOCABULARY = 4096
CONTEXT = 128
BATCH = 4
WIDTH_STEP = 8
HEAD_SIZE = 16
VALIDATION_TOKENS = 16384


@dataclass(frozen=True)
class Point:
    """Un apprentissage de l'étude : le modèle, ce qu'il a reçu, ce qu'il a atteint.

    flops : opérations de l'apprentissage, avant et arrière, comptées par `FlopCounterMode` ; loss : nats par jeton
    sur la validation de A ; params compte tout, la table des jetons une fois.
    """

    n_layer: int
    d_model: int
    params: int
    tokens: int
    steps: int
    flops: int
    lr: float
    seed: int
    loss: float
    seconds: float

    def record(self) -> dict[str, float | int]:
        """Le point, prêt à écrire en JSON."""
        return asdict(self) | {"loss": round(self.loss, 4), "seconds": round(self.seconds, 1)}


def study_model(n_layer: int, d_model: int, seed: int = 0) -> GPT2LMHeadModel:
    """Un GPT-2 neuf de l'étude : découpage de Colibri, contexte de 128 jetons, sans dropout ; des têtes de 16
    composantes si la largeur s'y prête, une seule tête sinon.

    Lève `ValueError` si d_model n'est pas un multiple de 8, ou si n_layer est inférieur à 1.
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
    forward, backward = count_flops(model, CONTEXT)
    return (forward + backward) / CONTEXT


def steps_for(n_layer: int, d_model: int, compute: float) -> int:
    """Nombre de pas que paie un budget de `compute` opérations (au moins 2)."""
    return max(2, round(compute / training_flops_per_token(n_layer, d_model) / (BATCH * CONTEXT)))


def learning_rate(d_model: int) -> float:
    """Le pas d'apprentissage de l'étude : inversement proportionnel à la largeur (recherche « taux » des mesures)."""
    return 0.256 / d_model


def train_point(
    n_layer: int,
    d_model: int,
    compute: float,
    ids: Tensor,
    lr: float,
    seed: int = 0,
    validation_tokens: int = VALIDATION_TOKENS,
) -> Point:
    """Entraîne un modèle neuf jusqu'à épuiser un budget de calcul, et le note sur la validation de A.

    compute : budget en opérations ; ids (n,) : jetons d'apprentissage, dont on tire des fenêtres au hasard.
    """
    began = time.perf_counter()
    steps = steps_for(n_layer, d_model, compute)
    model = study_model(n_layer, d_model, seed)
    train(
        model, windows(ids, BATCH, CONTEXT, seed), steps, lr=lr, warmup=max(2, min(100, steps // 10)),
        what=f"{n_layer} blocs, d = {d_model}",
    )  # fmt: skip
    tokens = steps * BATCH * CONTEXT
    evaluation = evaluate_perplexity(model, max_tokens=validation_tokens, context=CONTEXT, stride=CONTEXT // 2)
    return Point(
        n_layer, d_model, model.num_parameters(), tokens, steps,
        round(tokens * training_flops_per_token(n_layer, d_model)), lr, seed, math.log(evaluation.perplexity),
        time.perf_counter() - began,
    )  # fmt: skip
