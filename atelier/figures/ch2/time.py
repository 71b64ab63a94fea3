"""Chapitre 2, deuxième partie : des opérations aux secondes, aux jours, à l'énergie et à l'argent."""

from __future__ import annotations

import copy
import csv
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from atelier.display import note, recorded, show, table
from atelier.figures.ch2.counts import flops_text
from atelier.figures.common.controls import Slider, explore
from atelier.figures.common.sizes import GPT3, shape_only
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, SERIES, canvas, french
from atelier.hardware import card_capability, card_memory, card_name, device, median_seconds, step_seconds
from atelier.measures import load_measures
from atelier.models import gpt2_shape
from atelier.paths import asset
from atelier.text import NBSP, number, percent, plural
from atelier.training import lm_loss

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

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

ANNOUNCED: dict[str, dict[str, float]] = {
    "T4": {"float32": 8.1, "float16": 65},
    "V100": {"float32": 15.7, "float16": 125},
    "L4": {"float32": 30.3, "TF32": 60, "bfloat16": 121, "float16": 121},
    "A100": {"float32": 19.5, "TF32": 156, "bfloat16": 312, "float16": 312},
    "H100 PCIe": {"float32": 51, "TF32": 378, "bfloat16": 756, "float16": 756},
    "H100 HBM3": {"float32": 67, "TF32": 494, "bfloat16": 989, "float16": 989},
    "H200": {"float32": 67, "TF32": 494, "bfloat16": 989, "float16": 989},
}
"""Pointes annoncées par NVIDIA, en TFLOP/s, sans creux 2:4 : fiches techniques. « H100 HBM3 » : la version SXM.

Une clé désigne la carte dont le nom contient tous ses mots.
"""

GPT3_PARAMS, GPT3_TOKENS = 175 * 10**9, 300 * 10**9
"""Brown et al., 2020, tableau 2.1."""

A100_PEAK = 312e12
"""FLOP/s en bfloat16, sans creux : fiche de NVIDIA."""

Peak = dict[str, float]
"""Format → FLOP/s."""


# --- La pointe -------------------------------------------------------------------------------------------------------


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def product_speed(size: int, dtype: torch.dtype, precision: str = "highest", repeats: int = 5) -> float:
    """Vitesse d'un produit carré de côté `size`, en FLOP/s : médiane de `repeats` durées, après échauffement."""
    a, b = torch.randn(2, size, size, device=device()).to(dtype)
    loops = max(1, round(2e6 / size**3))  # un petit produit est trop court pour l'horloge
    with _precision(precision):
        seconds = median_seconds(lambda: [a @ b for _ in range(loops)], repeats=repeats, warmup=1) / loops
    return 2 * size**3 / seconds


def formats() -> dict[str, tuple[torch.dtype, str]]:
    """Les formats de cette machine. Une carte d'avant Ampere n'a ni TF32 ni bfloat16 : torch les imite, lentement."""
    found = FORMATS.get(device().type, FORMATS["cpu"])
    old = device().type == "cuda" and card_capability() < (8, 0)
    return {name: f for name, f in found.items() if not (old and name in ("TF32", "bfloat16"))}


def speeds(sizes: Sequence[int], repeats: int = 5, budget: float = 2.0) -> dict[str, dict[int, float]]:
    """Format → côté → FLOP/s. Un format trop lent (plus de `budget` secondes) s'arrête avant."""
    found: dict[str, dict[int, float]] = {}
    for name, (dtype, precision) in formats().items():
        found[name] = {}
        for size in sizes:
            known = list(found[name].values())
            if known and 2 * size**3 / known[-1] * (repeats + 1) > budget:
                break
            found[name][size] = product_speed(size, dtype, precision, repeats)
    return found


def rate_text(value: float) -> str:
    """« 82,5 GFLOP/s »."""
    return flops_text(value, "FLOP/s")


def _announced() -> dict[str, float]:
    """Les pointes annoncées de la carte, en FLOP/s, si on la connaît."""
    words = card_name().replace("-", " ").split()
    found = next((peaks for card, peaks in ANNOUNCED.items() if all(word in words for word in card.split())), {})
    return {label: value * 1e12 for label, value in found.items()}


def measure_peak(sizes: Sequence[int], repeats: int = 5) -> Peak:
    """La vitesse de produits de plus en plus grands, dans les formats de la machine ; rend la pointe de chacun."""
    found, announced = speeds(sizes, repeats), _announced()
    peak = {name: max(by_size.values()) for name, by_size in found.items()}
    fig, ax = canvas(8.0, 3.4)
    for (name, by_size), look in zip(found.items(), SERIES, strict=False):
        ax.plot(list(by_size), [v / 1e9 for v in by_size.values()], label=name, lw=1.7, **look)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(list(sizes), [number(n) for n in sizes])
    ax.set_xlabel("côté des matrices (échelle logarithmique)")
    ax.set_ylabel("GFLOP/s")
    french(ax, x=False)
    ax.legend(frameon=False, fontsize=9)
    told = f"{NBSP}; ".join(
        f"{name}{NBSP}: " + ", ".join(f"{rate_text(v)} pour un côté de {n}" for n, v in by_size.items())
        for name, by_size in found.items()
    )
    show(fig, alt=f"Vitesse d'un produit de matrices carrées selon leur côté. {told}.")
    rows = [
        [
            name,
            rate_text(value),
            rate_text(announced[name]) if name in announced else "—",
            percent(value / announced[name], 3) if name in announced else "—",
        ]
        for name, value in peak.items()
    ]
    threads = (
        f", {plural(torch.get_num_threads(), 'fil de calcul', 'fils de calcul')}" if device().type == "cpu" else ""
    )
    table(
        rows,
        header=["format", "pointe mesurée", "annoncée par le fabricant", "mesurée / annoncée"],
        caption=f"Le plus rapide de ces produits, par format ({device().type.upper()}{threads})",
    )
    return peak


# --- Un pas d'apprentissage ------------------------------------------------------------------------------------------


def step_times(model: GPT2LMHeadModel, batch_size: int, steps: int, half: bool = False) -> dict[str, float]:
    """Durées médianes d'un pas d'apprentissage, en secondes : aller, retour, optimiseur, et le pas entier.

    Le modèle apprend sur des jetons tirés au hasard : les durées n'en dépendent pas. half : produits en bfloat16.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    context = min(model.config.n_positions, 1024)
    ids = torch.randint(0, model.config.vocab_size, (batch_size, context), device=device())

    def loss() -> torch.Tensor:
        with torch.autocast(device().type, torch.bfloat16) if half else nullcontext():
            return lm_loss(model, ids)

    model.train()
    found = step_seconds(loss, optimizer, steps)
    model.eval()
    return found


@recorded("ch2/training_step", needs=("forward",))
def training_step(
    model: GPT2LMHeadModel, forward: Any, peak: Peak, batch_size: int, steps: int, size: str | None = None
) -> None:
    """Un pas d'apprentissage chronométré, et sa MFU. size : une forme de GPT-2 à la place de Colibri (sur GPU)."""
    learner = gpt2_shape(size) if size else copy.deepcopy(model)
    c = learner.config
    context = min(c.n_positions, 1024)
    tokens = batch_size * context
    useful = 3 * forward(c.n_layer, c.n_embd, context, c.vocab_size) * tokens
    asked = {"float32": False} | ({"bfloat16": True} if device().type == "cuda" and "bfloat16" in peak else {})
    rows, bars = [], {}
    for name, half in asked.items():
        with card_memory() as card, _precision("highest"):
            times = step_times(learner, batch_size, steps, half)
        bars[name] = times
        speed = useful / times["pas"]
        rows.append(
            [name, number(1000 * times["pas"], 3), number(round(tokens / times["pas"])), rate_text(speed),
             rate_text(peak[name]), percent(speed / peak[name], 3)]
        )  # fmt: skip
    who = f"GPT-2 {size}, poids au hasard" if size else "Colibri"
    table(
        rows,
        header=["format", "un pas, ms", "jetons par seconde", "opérations utiles", "pointe mesurée", "MFU"],
        caption=f"{who}, un pas de {number(tokens)} jetons{NBSP}: {flops_text(useful)} utiles (trois fois votre "
        "passage avant, par jeton)",
    )
    if card.peak is not None:
        note(f"Mémoire de la carte, au plus haut, en {name}{NBSP}: {number(card.peak / 2**30, 3, unit='Gio')}.")
    fig, ax = canvas(8.0, 0.9 + 0.6 * len(bars))
    parts = {"avant": (BLUE, ""), "arrière": (ORANGE, "//"), "optimiseur": (GREEN, "..")}
    for i, times in enumerate(bars.values()):
        left = 0.0
        for part, (color, hatch) in parts.items():
            width = 1000 * times[part]
            ax.barh(i, width, left=left, color=color, hatch=hatch, edgecolor="white", label=part if i == 0 else None)
            left += width
    ax.set_yticks(range(len(bars)), list(bars))
    ax.set_xlabel("durée (ms)")
    french(ax, y=False)
    ax.legend(ncols=3, frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    told = f"{NBSP}; ".join(
        f"{name}{NBSP}: " + ", ".join(f"{part} {number(1000 * times[part], 3, unit='ms')}" for part in parts)
        for name, times in bars.items()
    )
    show(fig, alt=f"Durée d'un pas d'apprentissage, découpée en passage avant, passage arrière et optimiseur. {told}.")


# --- Le journal de Colibri -------------------------------------------------------------------------------------------


def colibri_journal() -> tuple[dict[str, Any], dict[str, list[float]]]:
    """La recette de Colibri, et les colonnes de son journal d'apprentissage."""
    recipe = json.loads(asset("colibri", "recette.json").read_text(encoding="utf-8"))
    with asset("colibri", "journal.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return recipe, {name: [float(row[name]) for row in rows] for name in rows[0]}


@recorded("ch2/colibri_log", needs=("training", "forward"))
def colibri_log(model: GPT2LMHeadModel, training: Any, forward: Any, watts: float = 30.0) -> None:
    """L'apprentissage de Colibri : 6ND contre le compte exact, durée, MFU, énergie à une puissance supposée.

    watts : puissance supposée de deux cœurs de serveur et de leur mémoire. La pointe est celle que l'auteur a mesurée
    après coup sur la même machine (`cours.py mesures`, expérience « temps »).
    """
    recipe, journal = colibri_journal()
    c = model.config
    params, tokens, seconds = recipe["parametres"], recipe["jetons"], recipe["secondes"]
    rule = training(params, tokens)
    counted = 3 * forward(c.n_layer, c.n_embd, c.n_positions, c.vocab_size) * tokens
    rows = [
        ["N, paramètres", number(params)],
        ["D, jetons lus", f"{number(tokens)} ({number(recipe['epoques'], 3)} passages sur le texte)"],
        ["6ND, votre règle", flops_text(rule)],
        ["compté (trois fois votre passage avant)", flops_text(counted)],
        ["6ND / compté", number(rule / counted, 4)],
        ["durée, deux processus d'un fil", f"{number(round(seconds))} s, soit {number(seconds / 60, 3)} minutes"],
        ["vitesse, opérations comptées", rate_text(counted / seconds)],
    ]
    if peak := _author_peak():
        rows.append(["pointe des deux cœurs en bfloat16, mesurée après coup", rate_text(peak)])
        rows.append(["MFU", percent(counted / seconds / peak, 3)])
    joules = watts * seconds
    rows += [
        [f"énergie, à {number(watts, 3, unit='W')} supposés{NBSP}: E = P·t",
         f"{number(joules / 1000, 3, unit='kJ')}, soit {number(joules / 3600, 3, unit='Wh')}"],
        ["opérations par joule", number(counted / joules / 1e9, 3, unit="milliards")],
    ]  # fmt: skip
    table(rows, header=["Colibri, apprentissage retenu", ""], caption="assets/colibri/recette.json et journal.csv")
    _journal_figure(params, journal)


def _author_peak(threads: int = 2, name: str = "bfloat16") -> float | None:
    """La pointe enregistrée de la machine de l'auteur, en FLOP/s ; None si elle n'a pas été mesurée."""
    found = [t["pointe"] for t in load_measures("ch2_flops_6nd").get("temps", []) if t["fils"] == threads]
    return found[0].get(name) if found else None


def _journal_figure(params: int, journal: dict[str, list[float]]) -> None:
    minutes = [s / 60 for s in journal["secondes"]]
    smooth = _windowed(journal["perte"], 10)
    speed = [
        6 * params * (journal["jetons"][i] - journal["jetons"][i - 6]) / (60 * (minutes[i] - minutes[i - 6])) / 1e9
        for i in range(6, len(minutes))
    ]
    fig, (left, right) = canvas(9.4, 3.2, columns=2)
    left.plot([6 * params * t for t in journal["jetons"]], smooth, color=BLUE, lw=1.6)
    left.set_xscale("log")
    left.set_xlabel("calcul dépensé, 6ND (FLOP, échelle logarithmique)")
    left.set_ylabel("perte (nats par jeton)")
    french(left)
    right.plot(minutes[6:], speed, color=ORANGE, lw=1.3)
    right.set_xlabel("minutes")
    right.set_ylabel("GFLOP/s, selon 6ND")
    right.set_ylim(0)
    french(right)
    show(
        fig,
        alt=f"À gauche, perte de Colibri selon le calcul dépensé{NBSP}: de {number(smooth[0], 3)} à "
        f"{number(smooth[-1], 3)} nats, pour {flops_text(6 * params * journal['jetons'][-1])}. À droite, vitesse au "
        f"fil du "
        f"temps{NBSP}: entre {number(min(speed), 3)} et {number(max(speed), 3, unit='GFLOP/s')}.",
    )


def _windowed(values: Sequence[float], span: int) -> list[float]:
    """Moyenne des `span` dernières valeurs."""
    return [sum(part := values[max(0, i - span + 1) : i + 1]) / len(part) for i in range(len(values))]


# --- GPT-3 -----------------------------------------------------------------------------------------------------------


@recorded("ch2/gpt3_bill", needs=("training", "forward", "days"))
def gpt3_bill(
    training: Any,
    forward: Any,
    days: Any,
    peak: Peak,
    n_gpus: int = 1024,
    mfu: float = 0.4,
    price: float = 2.0,
    watts: float = 400.0,
    overhead: float = 1.1,
) -> None:
    """La facture de GPT-3 : opérations, jours, argent, énergie, et la même chose sur cette machine.

    n_gpus cartes A100 à la part mfu de leur pointe ; price : dollars par heure de carte (supposé) ; watts : puissance
    d'une carte et overhead : ce que la salle ajoute (*power usage effectiveness*), valeurs de LLaMA.
    """
    model = shape_only(**GPT3)
    rule = training(GPT3_PARAMS, GPT3_TOKENS)
    shape = (GPT3["n_layer"], GPT3["d_model"], GPT3["n_ctx"], GPT3["n_vocab"])
    counted = 3 * forward(*shape) * GPT3_TOKENS
    table(
        [
            ["6ND, N = 175 milliards", flops_text(rule)],
            [f"compté, contexte de {number(GPT3['n_ctx'])} (trois fois votre passage avant)", flops_text(counted)],
            ["publié", f"3,14·10²³{NBSP}FLOP"],
            ["paramètres, comptés", number(model.num_parameters())],
        ],
        header=["GPT-3, 300 milliards de jetons", ""],
        caption="Opérations. Publié : Brown et al., 2020, annexe D, tableau D.1, d'après 6ND",
    )
    duration = days(GPT3_PARAMS, GPT3_TOKENS, n_gpus, A100_PEAK, mfu)
    hours = duration * 24 * n_gpus
    best = max(peak, key=lambda name: peak[name])
    alone = days(GPT3_PARAMS, GPT3_TOKENS, 1, peak[best], 1.0) / 365.25
    table(
        [
            [
                f"durée, {number(n_gpus)} A100 à {percent(mfu, 3)} de leur pointe",
                number(duration, 3, unit="jours"),
            ],
            ["heures de carte", number(round(hours))],
            [
                f"prix, à {number(price, 3)} dollars l'heure de carte (supposé)",
                f"{number(hours * price / 1e6, 3)} millions de dollars",
            ],
            [
                f"énergie, à {number(watts)} W par carte et {number(overhead, 3)} pour la salle (Touvron et al., "
                f"2023, § 6)",
                number(round(hours * watts * overhead / 1e6), unit="MWh"),
            ],
            [f"sur cette machine, à sa pointe ({best}, {rate_text(peak[best])})", number(round(alone), unit="ans")],
        ],
        header=["GPT-3, 6ND", ""],
        caption="Temps, argent, énergie",
    )


def _bill(days: Any, cards: int, mfu: float, price: float) -> tuple[Any, str]:
    grid = [2**p for p in range(4, 16)]
    values = [days(GPT3_PARAMS, GPT3_TOKENS, n, A100_PEAK, mfu) for n in grid]
    duration = days(GPT3_PARAMS, GPT3_TOKENS, cards, A100_PEAK, mfu)
    cost = duration * 24 * cards * price
    fig, ax = canvas(8.0, 3.2)
    ax.plot(grid, values, lw=1.8, color=BLUE)
    ax.plot([cards], [duration], "o", color=BLACK, ms=8)
    ax.axhline(365.25, color=ORANGE, ls="--", lw=1.2)
    ax.text(grid[-1], 390, "un an", ha="right", va="bottom", fontsize=9)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(grid[::2], [number(n) for n in grid[::2]])
    french(ax, x=False)
    ax.set_xlabel("nombre d'A100 (échelle logarithmique)")
    ax.set_ylabel("jours")
    ax.set_title(
        f"{number(cards)} cartes à {percent(mfu, 3)}{NBSP}: {number(duration, 3)} jours, "
        f"{number(cost / 1e6, 3)} millions de dollars, à {number(price, 3)} dollars l'heure",
        fontsize=10,
    )
    alt = (
        f"Durée de l'apprentissage de GPT-3 selon le nombre d'A100, à {percent(mfu, 3)} de leur "
        f"pointe{NBSP}: "
        f"{number(values[0], 3)} jours avec {grid[0]} cartes, {number(duration, 3)} avec {number(cards)}, "
        f"{number(values[-1], 3)} avec {number(grid[-1])}. Prix{NBSP}: {number(cost / 1e6, 3)} millions de dollars."
    )
    return fig, alt


@recorded("ch2/bill_explorer", needs=("days",))
def bill_explorer(days: Any, cards: int = 1024, mfu: float = 0.4, price: float = 2.0) -> None:
    """La durée et le prix de GPT-3 selon les hypothèses ; trois curseurs quand la page est vivante."""

    def draw(power: int, used: float, dollars: float) -> tuple[Any, str]:
        return _bill(days, 2**power, used, dollars)

    explore(
        draw,
        power=Slider(round(math.log2(cards)), 4, 15, 1, "cartes : 2 puissance"),
        used=Slider(mfu, 0.1, 0.7, 0.05, "MFU"),
        dollars=Slider(price, 0.5, 10.0, 0.5, "dollars l'heure"),
    )
