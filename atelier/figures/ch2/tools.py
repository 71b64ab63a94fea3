"""Chapitre 2 : ce que ses expériences emploient sans que ce soit leur sujet, modèles, formats, horloge, journaux."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from atelier.figures.common.sizes import GPT3, shape_only
from atelier.hardware import card_capability, device, home, synchronize
from atelier.models import GPT2_SIZES
from atelier.paths import asset
from atelier.text import number, scaled

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

T = TypeVar("T")

GPT3_PARAMS, GPT3_TOKENS = 175 * 10**9, 300 * 10**9
"""Brown et al., 2020, tableau 2.1."""

A100_PEAK, A100_BANDWIDTH = 312e12, 2.039e12
"""A100 de 80 Go (SXM) : FLOP/s en bfloat16, sans creux, et octets par seconde ; fiche de NVIDIA."""


# --- Écrire -----------------------------------------------------------------------------------------------------------


def short(n: float) -> str:
    """« 3,06 M », « 175 Md » : millions et milliards, trois chiffres."""
    return scaled(n, {"Md": 1e9, "M": 1e6})


def flops_text(value: float, unit: str = "FLOP") -> str:
    """« 6,98 MFLOP », « 3,14·10²³ FLOP » ; unit : « FLOP/s » pour une vitesse."""
    if value >= 1e15:
        return number(float(value), unit=unit)
    return scaled(value, {f"T{unit}": 1e12, f"G{unit}": 1e9, f"M{unit}": 1e6, f"k{unit}": 1e3, unit: 1})


def rate_text(value: float) -> str:
    """« 82,5 GFLOP/s »."""
    return flops_text(value, "FLOP/s")


# --- Les modèles que l'on compte --------------------------------------------------------------------------------------


def known_models(colibri: GPT2LMHeadModel) -> dict[str, GPT2LMHeadModel]:
    """Colibri ; les quatre GPT-2 et un modèle dense de la forme de GPT-3, sans aucun nombre dedans (« meta »)."""
    sizes = {f"GPT-2 {name}": shape_only(layers, d) for name, (layers, d, _) in GPT2_SIZES.items()}
    return {"Colibri": colibri, **sizes, "GPT-3": shape_only(**GPT3)}


def window(model: GPT2LMHeadModel, n_tokens: int) -> dict[str, Any]:
    """Une fenêtre à lire, masque compris : il est donné tout fait, pour qu'un modèle sans nombres (appareil « meta »)
    puisse aussi être compté."""
    where = home(model)
    return {
        "input_ids": torch.zeros(1, n_tokens, dtype=torch.long, device=where),
        "attention_mask": torch.zeros(1, 1, n_tokens, n_tokens, device=where),
        "use_cache": False,
    }


def by_kind(counter: Any) -> dict[str, int]:
    """Le compte d'un `FlopCounterMode`, rangé par poste de GPT-2, et le total."""
    found = counter.get_flop_counts()

    def of(*endings: str) -> int:
        return sum(sum(ops.values()) for name, ops in found.items() if name.endswith(endings))

    return {
        "Q, K, V et sortie": of(".attn.c_attn", ".attn.c_proj"),
        "scores et mélange": sum(n for op, n in found["Global"].items() if "bmm" in str(op)),
        "MLP": of(".mlp"),
        "tête": of("lm_head"),
        "total": counter.get_total_flops(),
    }


def gpt2_matrices(size: str = "small", n_layer: int | None = None, head: bool = True) -> list[Tensor]:
    """Les matrices qu'un jeton rencontre dans GPT-2, de forme (sortie, entrée), aux valeurs TIRÉES AU HASARD.

    size : « small », « medium »… ; n_layer réduit le nombre de blocs ; head : avec la tête.
    """
    layers, d, _ = GPT2_SIZES[size]
    shapes = [(3 * d, d), (d, d), (4 * d, d), (d, 4 * d)] * (n_layer or layers) + [(50257, d)] * head
    return [torch.randn(*shape, device=device()) for shape in shapes]


# --- Les formats de la machine ----------------------------------------------------------------------------------------

FORMATS = {
    "cpu": {"float32": (torch.float32, "highest"), "bfloat16": (torch.bfloat16, "highest")},
    "cuda": {
        "float32": (torch.float32, "highest"),
        "TF32": (torch.float32, "high"),
        "bfloat16": (torch.bfloat16, "highest"),
        "float16": (torch.float16, "highest"),
    },
    "mps": {"float32": (torch.float32, "highest"), "float16": (torch.float16, "highest")},
}
"""Formats mesurés sur chaque appareil : type des nombres, précision des produits de float32."""


def formats() -> dict[str, tuple[torch.dtype, str]]:
    """Les formats de cette machine. Une carte d'avant Ampere n'a ni TF32 ni bfloat16 : torch les imite, lentement."""
    found = FORMATS.get(device().type, FORMATS["cpu"])
    old = device().type == "cuda" and card_capability() < (8, 0)
    return {name: f for name, f in found.items() if not (old and name in ("TF32", "bfloat16"))}


@contextmanager
def precision(name: str) -> Iterator[None]:
    """La précision des produits de float32 (« highest », « high »), le temps d'un bloc."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def too_slow(found: dict[tuple[str, int], list[float]], name: str, size: int, seconds: float = 2.0) -> bool:
    """Vrai si le dernier produit de ce format laisse attendre plus de `seconds` pour celui-ci, répété."""
    known = [speeds for (label, _), speeds in found.items() if label == name]
    return bool(known) and 10 * 2 * size**3 / max(known[-1]) > seconds


def step_formats() -> dict[str, Any]:
    """Format d'un pas d'apprentissage → le bloc où le faire ; bfloat16 seulement là où la carte le connaît."""
    found: dict[str, Any] = {"float32": nullcontext}
    if device().type == "cuda" and "bfloat16" in formats():
        found["bfloat16"] = lambda: torch.autocast("cuda", torch.bfloat16)
    return found


# --- L'horloge --------------------------------------------------------------------------------------------------------


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """Ce que rend `run`, et sa durée en secondes, carte synchronisée."""
    import time

    synchronize()
    start = time.perf_counter()
    value = run()
    synchronize()
    return value, time.perf_counter() - start


@contextmanager
def _hushed() -> Iterator[None]:
    """Fait taire ce que le profileur écrit, hors de Python, sur la sortie des erreurs."""
    import os
    import sys

    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


def seconds_by_kind(run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Ce que rend `run`, et ses secondes dans les produits de matrices et ailleurs, d'après le profileur de torch."""
    from torch.profiler import ProfilerActivity, profile

    on_card = device().type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]
    with _hushed(), profile(activities=activities) as seen:
        value = run()
        synchronize()
    spent = {"produits": 0.0, "reste": 0.0}
    for event in seen.key_averages():
        microseconds = event.self_device_time_total if on_card else event.self_cpu_time_total
        spent["produits" if event.key in PRODUCTS else "reste"] += microseconds / 1e6
    return value, spent


# --- Les journaux -----------------------------------------------------------------------------------------------------


@cache
def colibri_journal() -> tuple[dict[str, Any], dict[str, list[float]]]:
    """La recette de Colibri, et les colonnes de son journal d'apprentissage."""
    recipe = json.loads(asset("colibri", "recette.json").read_text(encoding="utf-8"))
    with asset("colibri", "journal.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return recipe, {name: [float(row[name]) for row in rows] for name in rows[0]}


@cache
def study_recipe() -> dict[str, Any]:
    """Ce que fut l'étude d'échelle : texte, lot, optimiseur, machine ; Colibri sous son protocole."""
    return json.loads(asset("etude", "recette.json").read_text(encoding="utf-8"))


def training_peak() -> float:
    """La pointe en bfloat16 de la machine qui a entraîné Colibri, en FLOP/s, telle qu'elle fut mesurée."""
    return study_recipe()["pointe"]["flops_par_s"]["bfloat16"]


def study_points(series: str) -> list[dict[str, Any]]:
    """Les apprentissages d'une série du journal de l'étude, rangés par nombre de paramètres.

    series : « c1 », « c2 », « c3 » (trois budgets), « graines » (le premier, à d'autres graines) ou « taux ».
    """
    with asset("etude", "points.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("serie") == series]
    whole = ("n_layer", "d_model", "params", "tokens", "steps", "flops", "seed")
    points = [{name: int(v) if name in whole else float(v) for name, v in row.items()} for row in rows]
    return sorted(points, key=lambda p: p["params"])
