"""Ce que le chapitre 7 emploie sans l'enseigner : empreintes, ordre des adaptateurs, octets au plus fort, formes."""

from __future__ import annotations

import copy
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import quantiles
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from atelier.experiments import load, result_path
from atelier.figures.common.sizes import shape_only
from atelier.hardware import card_memory, device, home, synchronize
from atelier.models import GPT2_SIZES, gpt2_shape
from atelier.text import long_date, number
from atelier.variants import rows

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

BERT_LARGE = (24, 1024, 330_000_000)
"""Blocs, composantes, paramètres : Houlsby et al., 2019, § 3.1."""


def model_shapes(model: GPT2LMHeadModel) -> dict[str, tuple[int, int, int]]:
    """Modèle → blocs, composantes, paramètres : Colibri, les quatre GPT-2, BERT-large."""
    found = {"Colibri": (model.config.n_layer, model.config.n_embd, model.num_parameters())}
    for name, (layers, d, _) in GPT2_SIZES.items():
        found[f"GPT-2 {name}"] = (layers, d, shape_only(layers, d).num_parameters())
    return found | {"BERT-large": BERT_LARGE}


def base_of(shape: str, colibri: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Colibri, ou un GPT-2 de la vraie taille aux poids tirés au hasard (« GPT-2 small »)."""
    if shape == "Colibri":
        return colibri
    return gpt2_shape(shape.removeprefix("GPT-2 "))


def some_ids(model: GPT2LMHeadModel, batch: int, length: int) -> Tensor:
    """Des jetons quelconques (batch, length) : le temps et la mémoire n'en dépendent pas."""
    ids = torch.arange(batch * length, device=home(model)) * 37 % model.config.vocab_size
    return ids.reshape(batch, length)


def frozen_hash(model: nn.Module) -> str:
    """Empreinte (SHA-256, 12 premiers caractères) de tous les octets gelés, quels que soient leurs noms et leur ordre.

    Si rien n'est gelé, celle du modèle entier.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad] or list(model.parameters())
    digests = sorted(hashlib.sha256(p.detach().cpu().contiguous().numpy().tobytes()).digest() for p in frozen)
    return hashlib.sha256(b"".join(digests)).hexdigest()[:12]


def adapters_of(model: GPT2LMHeadModel) -> list[nn.Module]:
    """Les adaptateurs (modules qui ont `down` et `up`) dans l'ordre où un passage avant les traverse."""
    found: list[nn.Module] = []
    hooks = [
        m.register_forward_hook(lambda m, _x, _y: found.append(m))
        for m in model.modules()
        if hasattr(m, "down") and hasattr(m, "up")
    ]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 1, dtype=torch.long, device=home(model)))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def four_bit_bytes() -> int:
    """Les octets du fichier d'« int4-gptq », d'après le tableau du cours."""
    return next((int(r["bytes"]) for r in rows() if r["name"] == "int4-gptq"), 0)


# --- Compter ----------------------------------------------------------------------------------------------------------


def forward_flops(model: GPT2LMHeadModel, length: int) -> int:
    """Opérations des produits de matrices d'un passage avant, tête de sortie non comprise, comptées par torch."""
    from torch.utils.flop_counter import FlopCounterMode

    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")  # l'attention fusionnée du processeur échappe au compteur
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.transformer(some_ids(model, 1, length), use_cache=False)
    finally:
        model.set_attn_implementation(implementation)
    return counter.get_total_flops()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Le profileur de torch écrit sur la sortie d'erreur du processus, hors de portée de Python."""
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


def countable(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Le modèle, ou sa copie sur le processeur si torch ne sait pas compter les octets de son appareil."""
    return model if home(model).type in ("cpu", "cuda") else copy.deepcopy(model).cpu()


def peak_bytes(run: Callable[[], object]) -> int:
    """Octets alloués au plus fort de `run`, au-dessus de ce qui l'était avant. Mesuré, sur CPU comme sur CUDA."""
    if device().type == "cuda":
        with card_memory() as card:
            run()
        assert card.peak is not None and card.before is not None
        return card.peak - card.before
    from torch.profiler import ProfilerActivity, profile

    with _silent_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak


# --- Chronométrer -----------------------------------------------------------------------------------------------------


def now() -> float:
    """L'heure, en secondes, une fois finis les calculs lancés sur la carte."""
    synchronize()
    return time.perf_counter()


def one_more_token(model: GPT2LMHeadModel, context: int = 32) -> Callable[[], object]:
    """De quoi chronométrer un jeton de plus, avec le cache K/V : le rythme de la génération."""
    ids = some_ids(model, 1, context)
    with torch.inference_mode():
        cache: Any = model(ids, use_cache=True)[1]

    def one() -> None:
        with torch.inference_mode():
            model(ids[:, -1:], cache, use_cache=True)
        cache.crop(-1)

    return one


def one_window(model: GPT2LMHeadModel, length: int = 128) -> Callable[[], object]:
    """De quoi chronométrer une fenêtre lue d'un coup."""
    return torch.inference_mode()(partial(model, some_ids(model, 1, length), use_cache=False))


def call_flops(model: GPT2LMHeadModel, prepare: Callable[[GPT2LMHeadModel], Callable[[], object]]) -> int:
    """Opérations des produits de matrices de l'appel que `prepare` prépare, tête de sortie comprise, comptées."""
    from torch.utils.flop_counter import FlopCounterMode

    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        call = prepare(model)
        with FlopCounterMode(display=False) as counter:
            call()
    finally:
        model.set_attn_implementation(implementation)
    return counter.get_total_flops()


def spread_ms(seconds: Sequence[float]) -> str:
    """« 12,3 [12,1 ; 12,9] » : la médiane et les quartiles, en millisecondes."""
    low, middle, high = quantiles(seconds, n=4, method="inclusive")
    decimals = 0 if middle > 0.3 else 1 if middle > 0.01 else 2 if middle > 0.001 else 3
    told = [number(1000 * v, decimals=decimals) for v in (middle, low, high)]
    return f"{told[0]} [{told[1]} ; {told[2]}]"


def ratios(of: Sequence[float], to: Sequence[float]) -> tuple[float, float, float]:
    """Le rapport de deux durées, tour par tour : premier quartile, médiane, troisième quartile."""
    low, middle, high = quantiles([a / b for a, b in zip(of, to, strict=True)], n=4, method="inclusive")
    return low, middle, high


def recorded_on(name: str) -> str:
    """La machine et la date d'un résultat de l'auteur."""
    path = result_path(name)
    if path is None:
        return ""
    found = load(path)
    return f"{found.machine.split(' · ')[0]}, le {long_date(found.date)}"
