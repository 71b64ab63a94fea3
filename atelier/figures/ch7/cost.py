"""Chapitre 7, quatrième partie : ce que coûtent un pas d'adaptateurs, puis leur usage."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atelier.display import note, recorded, show, table
from atelier.figures.ch7.curves import _source
from atelier.figures.ch7.voices import CHAPTER, WIDTH, Insert, adapted, adapters_of, all_trained, trained_count
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, SKY, canvas, french
from atelier.hardware import card_memory, device, home, median_seconds, step_seconds
from atelier.measures import load_measures
from atelier.models import GPT2_SIZES, gpt2_shape
from atelier.text import number, percent
from atelier.training import lm_loss

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

FULL, EVERYWHERE, TOP = "tous les poids", "adaptateurs dans tous les blocs", "adaptateurs dans le dernier tiers"
PARTS = {
    "avant": ("passage avant", BLUE, ""),
    "arrière": ("passage arrière", ORANGE, "//"),
    "optimiseur": ("optimiseur", GREEN, ".."),
}


def cases(model: GPT2LMHeadModel, insert: Insert, bottleneck: int = WIDTH) -> Iterator[tuple[str, GPT2LMHeadModel]]:
    """Trois façons d'entraîner, l'une après l'autre : tous les poids, adaptateurs partout, adaptateurs en haut."""
    yield FULL, all_trained(model)
    yield EVERYWHERE, adapted(model, insert, bottleneck)
    top = adapted(model, insert, bottleneck)
    modules = adapters_of(top)
    for module in modules[: 2 * (len(modules) // 3)]:
        module.requires_grad_(False)
    yield TOP, top


def token_ids(model: GPT2LMHeadModel, batch: int, length: int) -> Tensor:
    """Des jetons quelconques (batch, length) : le temps et la mémoire n'en dépendent pas."""
    ids = torch.arange(batch * length, device=home(model)) * 37 % model.config.vocab_size
    return ids.reshape(batch, length)


# --- Les trois produits d'une couche --------------------------------------------------------------------------------


def three_products() -> None:
    """Aller, gradient de l'entrée, gradient du poids : ce que chaque couche calcule, selon ce qui apprend et où."""
    from matplotlib.patches import Rectangle

    kinds = [
        ("poids entraîné", (True, True, True)),
        ("poids gelé, au-dessus\ndu premier adaptateur", (True, True, False)),
        ("poids gelé, au-dessous\ndu premier adaptateur", (True, False, False)),
    ]
    names = ("Y = X·W\n(aller)", "G·Wᵀ\n(gradient de X)", "Xᵀ·G\n(gradient de W)")
    fig, ax = canvas(8.4, 2.9)
    ax.set_axis_off()
    ax.set_xlim(0, 10.4)
    ax.set_ylim(0, 4.3)
    for j, name in enumerate(names):
        ax.text(4.1 + 2.0 * j, 3.9, name, ha="center", va="center", fontsize=9.5)
    ax.text(9.7, 3.9, "FLOP par poids\net par jeton", ha="center", va="center", fontsize=9.5)
    for i, (kind, done) in enumerate(kinds):
        y = 2.75 - 1.15 * i
        ax.text(2.9, y, kind, ha="right", va="center", fontsize=9.5)
        for j, yes in enumerate(done):
            color, hatch = ((BLUE, SKY, ORANGE)[j], ("", "..", "//")[j]) if yes else ("white", "")
            cell: dict[str, Any] = {
                "facecolor": color,
                "hatch": hatch,
                "edgecolor": BLACK,
                "linestyle": "-" if yes else ":",
            }
            ax.add_patch(Rectangle((3.3 + 2.0 * j, y - 0.4), 1.6, 0.8, **cell))
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.9}
            ax.text(4.1 + 2.0 * j, y, "2" if yes else "0", ha="center", va="center", fontsize=11, bbox=box)
        ax.text(9.7, y, str(2 * sum(done)), ha="center", va="center", fontsize=13, fontweight="bold")
    show(
        fig,
        alt="Trois lignes. Poids entraîné : aller 2, gradient de l'entrée 2, gradient du poids 2, en tout 6 opérations "
        "par poids et par jeton. Poids gelé au-dessus du premier adaptateur : 2, 2 et 0, en tout 4. Poids gelé "
        "au-dessous : 2, 0 et 0, en tout 2.",
    )


# --- Compter --------------------------------------------------------------------------------------------------------


def count_flops(model: GPT2LMHeadModel, ids: Tensor) -> tuple[int, int]:
    """FLOP des produits de matrices d'un vrai aller et d'un vrai retour, comptés par torch : (aller, retour)."""
    from torch.utils.flop_counter import FlopCounterMode

    model.set_attn_implementation("eager")  # l'attention fusionnée du CPU échappe au compteur
    with FlopCounterMode(display=False) as counter:
        loss = lm_loss(model, ids)
        forward = counter.get_total_flops()
        loss.backward()
    model.zero_grad(set_to_none=True)
    return forward, counter.get_total_flops() - forward


def attention_flops(model: GPT2LMHeadModel, length: int) -> int:
    """FLOP par jeton des deux produits de l'attention, à l'aller, tous blocs réunis."""
    return 4 * length * model.config.n_embd * model.config.n_layer


@recorded("ch7/counted", needs=("insert", "formula"))
def counted(
    model: GPT2LMHeadModel, insert: Insert, formula: Callable[[int, int, int], int], batch: int = 2, length: int = 128
) -> None:
    """FlopCounterMode sur un vrai pas, contre la formule de l'étudiant, pour trois façons d'entraîner."""
    rows = []
    for name, ready in cases(model, insert):
        ids = token_ids(ready, batch, length)
        forward, backward = count_flops(ready, ids)
        n_tokens, total, positions = (
            ids.numel(),
            sum(p.numel() for p in ready.parameters()),
            ready.transformer.wpe.weight,
        )
        # la table des positions est lue, jamais multipliée
        trained = trained_count(ready) - positions.requires_grad * positions.numel()
        predicted = formula(total - positions.numel() - trained, trained, n_tokens)
        attention = 3 * attention_flops(ready, length) * n_tokens
        rows.append(
            [
                name,
                number(forward / total / n_tokens, 3),
                number(backward / total / n_tokens, 3),
                number((forward + backward) / 1e9, 4),
                number(predicted / 1e9, 4),
                number(attention / 1e9, 3),
                percent((predicted + attention) / (forward + backward) - 1, 2),
            ]
        )
    table(
        rows,
        header=[
            "ce qui apprend",
            "passage avant ÷ N·D",
            "passage arrière ÷ N·D",
            "GFLOP mesurés",
            "votre formule",
            "attention (à part)",
            "écart des deux réunies",
        ],
        caption=f"Colibri, {batch} × {length} jetons ; N compte tous les paramètres, adaptateurs compris",
    )


@recorded("ch7/overheads", needs=("insert", "overhead"))
def overheads(model: GPT2LMHeadModel, insert: Insert, overhead: Callable[..., float]) -> None:
    """Surcoût d'un aller, formule de l'étudiant : Colibri (vérifié par torch) et les GPT-2."""
    c, length = model.config, 128
    rows = []
    for m in (WIDTH, 64):
        base, more = (
            count_flops(r, token_ids(r, 1, length))[0] for r in (all_trained(model), adapted(model, insert, m))
        )
        head = 2 * length * c.vocab_size * c.n_embd
        rows.append(
            ["Colibri", m, length, percent(overhead(c.n_embd, m, length)), percent((more - base) / (base - head))]
        )
    for size, length in (("small", 128), ("small", 1024), ("xl", 1024)):
        _, d, _ = GPT2_SIZES[size]
        rows.append([f"GPT-2 {size}", 64, length, percent(overhead(d, 64, length)), "—"])
    table(
        rows,
        header=["modèle", "goulot m", "contexte", "surcoût d'un bloc (votre formule)", "compté par torch"],
        caption="Opérations ajoutées par deux adaptateurs, rapportées à celles du bloc",
    )


# --- La mémoire -----------------------------------------------------------------------------------------------------


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


def step_memory(model: GPT2LMHeadModel, ids: Tensor) -> dict[str, int]:
    """Octets d'un pas d'Adam : poids, gradients, moments, pic de l'aller et du retour au-dessus des poids."""
    if home(model).type not in ("cpu", "cuda"):
        model = copy.deepcopy(model).cpu()  # les seuls appareils où torch compte les octets ; ils y sont les mêmes
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-5)
    model.train()
    peak = peak_bytes(lambda: lm_loss(model, ids).backward())
    gradients = sum(p.grad.nbytes for p in trained if p.grad is not None)
    optimizer.step()
    moments = sum(v.nbytes for s in optimizer.state.values() for k, v in s.items() if k != "step")
    optimizer.zero_grad(set_to_none=True)
    model.eval()
    return {
        "poids": sum(p.nbytes for p in model.parameters()),
        "gradients": gradients,
        "moments": moments,
        "pic": peak,
    }


@recorded("ch7/memory", needs=("insert", "state_bytes"))
def memory(
    model: GPT2LMHeadModel, insert: Insert, state_bytes: Callable[..., int], batch: int = 8, length: int = 128
) -> None:
    """Octets mesurés d'un pas, à côté de la formule de l'étudiant : Colibri ici, GPT-2 small enregistré."""
    rows = []
    for name, ready in cases(model, insert):
        found = step_memory(ready, token_ids(ready, batch, length))
        rows.append(_memory_row(f"Colibri, {name}", found, number(state_bytes(ready))))
    measured = load_measures(CHAPTER)
    for name, found in measured["memoire"].items():
        rows.append(_memory_row(f"GPT-2 small, {name}", found, "—"))
    table(
        rows,
        header=[
            "ce qui apprend",
            "Adam, votre formule (octets)",
            "Adam, mesuré (octets)",
            "poids (Mo)",
            "gradients (Mo)",
            "activations et calculs (Mo)",
            "total au plus fort (Mo)",
        ],
        caption=f"Un pas en FP32 ; Colibri : {batch} × {length} jetons, mesuré ici ; GPT-2 small "
        f"(poids au hasard) : 1 × 128 jetons. {_source(measured, None)}",
    )


def _memory_row(name: str, found: dict[str, int], mine: str) -> list[Any]:
    activations = found["pic"] - found["gradients"]
    total = found["poids"] + found["pic"] + found["moments"]
    return [
        name,
        mine,
        found["moments"],
        *(number(v / 1e6, 4) for v in (found["poids"], found["gradients"], activations, total)),
    ]


# --- Le temps -------------------------------------------------------------------------------------------------------


def step_times(model: GPT2LMHeadModel, ids: Tensor, repeats: int, warmup: int = 1) -> dict[str, float]:
    """Millisecondes médianes de l'aller, du retour, de l'optimiseur (Adam) et du pas entier, appareil synchronisé."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-6)
    model.train()
    found = step_seconds(lambda: lm_loss(model, ids), optimizer, repeats, warmup)
    model.eval()
    return {name: 1000 * seconds for name, seconds in found.items()}


@torch.inference_mode()
def token_ms(model: GPT2LMHeadModel, context: int = 32, repeats: int = 30) -> float:
    """Millisecondes médianes pour lire un jeton de plus, avec le cache K/V : le rythme de la génération."""
    ids = token_ids(model, 1, context)
    out = model(ids, use_cache=True)
    cache, last = out[1], ids[:, -1:]

    def one() -> None:
        nonlocal cache
        cache = model(last, cache, use_cache=True)[1]

    return 1000 * median_seconds(one, repeats=repeats, warmup=5)


def times_of(
    model: GPT2LMHeadModel, insert: Insert, batch: int, length: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Durées d'un pas pour les trois façons d'entraîner."""
    return {name: step_times(ready, token_ids(ready, batch, length), repeats) for name, ready in cases(model, insert)}


def inference_of(model: GPT2LMHeadModel, insert: Insert, repeats: int = 30) -> dict[str, dict[str, float]]:
    """Millisecondes par jeton généré et par fenêtre de 128 jetons, sans adaptateurs puis avec (m = 16 et 64)."""
    found = {}
    for name, ready in (
        ("sans adaptateur", model), *((f"adaptateurs, m = {m}", adapted(model, insert, m)) for m in (16, 64)),
    ):  # fmt: skip
        window = token_ids(ready, 1, 128)
        with torch.inference_mode():
            whole = 1000 * median_seconds(partial(ready, window, use_cache=False), repeats=max(3, repeats // 4))
        found[name] = {"jeton": token_ms(ready, repeats=repeats), "fenêtre": whole}
    return found


@recorded("ch7/step_time", needs=("insert",))
def step_time(model: GPT2LMHeadModel, insert: Insert, repeats: int, size: str | None = None) -> None:
    """Un pas chronométré : Colibri ici, et GPT-2 small par l'auteur (ou ici, sur carte)."""
    measured = load_measures(CHAPTER)
    here = {"Colibri, ici": times_of(model, insert, 8, 128, repeats)}
    if size:
        here[f"GPT-2 {size}, ici"] = times_of(gpt2_shape(size), insert, 8, 256, repeats)
    groups = here | {"GPT-2 small, auteur": measured["temps"]["pas"]["GPT-2 small"]}
    _time_bars(groups)
    rows = []
    for where, group in groups.items():
        for name, t in group.items():
            both = [g["avant"] + g["arrière"] for g in (group[FULL], t)]
            spans = [number(t[k], 3) for k in ("avant", "arrière", "optimiseur", "pas")]
            gains = [number(r, 3, before="×") for r in (group[FULL]["pas"] / t["pas"], both[0] / both[1])]
            rows.append([f"{where}, {name}", *spans, *gains])
    table(
        rows,
        header=[
            "ce qui apprend",
            "avant (ms)",
            "arrière (ms)",
            "optimiseur (ms)",
            "pas entier (ms)",
            "gain sur le pas",
            "gain sans l'optimiseur",
        ],
        caption="Médianes d'un pas d'Adam en FP32. Colibri : 8 × 128 jetons ; GPT-2 small : 1 × 128 jetons, "
        "poids au hasard. "
        f"{_source(measured, None)}",
    )


def _time_bars(groups: dict[str, dict[str, dict[str, float]]]) -> None:
    fig, axes = canvas(4.6 * len(groups), 2.7, columns=len(groups))
    told = []
    for ax, (where, group) in zip(getattr(axes, "flat", [axes]), groups.items(), strict=True):
        left = [0.0] * len(group)
        for part, (label, color, hatch) in PARTS.items():
            widths = [t[part] for t in group.values()]
            ax.barh(range(len(group)), widths, left=left, color=color, hatch=hatch, edgecolor="white", label=label)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        ax.set_yticks(range(len(group)), [n.replace(" dans ", "\ndans ") for n in group], fontsize=8.5)
        ax.invert_yaxis()
        ax.set_title(where, fontsize=9.5)
        ax.set_xlabel("ms par pas")
        french(ax, y=False)
        told += [f"{where}, {n} : {number(t['pas'], 3, unit='ms')}" for n, t in group.items()]
    fig.legend(
        *getattr(axes, "flat", [axes])[0].get_legend_handles_labels(),
        ncols=3,
        frameon=False,
        fontsize=9,
        loc="outside lower center",
    )
    show(fig, alt=f"Barres empilées, passage avant, passage arrière et optimiseur d'un pas. {' ; '.join(told)}.")


@recorded("ch7/serving_time", needs=("insert",))
def serving_time(model: GPT2LMHeadModel, insert: Insert, repeats: int) -> None:
    """Ce que coûtent les adaptateurs à l'usage : un jeton généré, une fenêtre lue."""
    measured = load_measures(CHAPTER)
    groups = {"Colibri, ici": inference_of(model, insert, repeats)}
    groups |= {f"{name}, auteur": found for name, found in measured["temps"]["usage"].items()}
    rows = []
    for where, group in groups.items():
        base = group["sans adaptateur"]
        for name, t in group.items():
            more = ["—", "—"] if t is base else [percent(t[k] / base[k] - 1, signed=True) for k in ("jeton", "fenêtre")]
            rows.append([f"{where}, {name}", number(t["jeton"], 3), more[0], number(t["fenêtre"], 3), more[1]])
    table(
        rows,
        header=["", "un jeton généré (ms)", "surcoût", "fenêtre de 128 jetons (ms)", "surcoût"],
        caption=f"Médianes, une phrase à la fois, FP32. {_source(measured, None)}",
    )
    note(
        "Dans l'article de LoRA (Hu et al., 2022, tableau 1 : GPT-2 medium, carte Quadro RTX 8000, une "
        "phrase de 128 jetons), un "
        "passage prend 19,8 ms sans adaptateurs, 23,9 ou 25,8 ms avec, selon le modèle d'adaptateur (11 M de "
        "paramètres)."
    )


def verdict() -> None:
    """La réponse, ligne par ligne, d'après les mesures enregistrées."""
    measured = load_measures(CHAPTER)
    step = measured["temps"]["pas"]
    rows = []
    for model, group in step.items():
        times = (group[FULL]["pas"] / group[k]["pas"] for k in (FULL, EVERYWHERE, TOP))
        rows.append([f"{model}\u00a0: un pas", *(number(t, decimals=2, before="×") for t in times)])
    m = measured["memoire"]
    for what, key in (("gradients", "gradients"), ("moments d'Adam", "moments")):
        rows.append(
            [
                f"GPT-2 small : octets des {what}",
                *(number(m[FULL][key] / m[k][key], 3, before="÷") for k in (FULL, EVERYWHERE, TOP)),
            ]
        )
    totals = {k: v["poids"] + v["pic"] + v["moments"] for k, v in m.items()}
    rows.append(
        [
            "GPT-2 small : total au plus fort",
            *(number(totals[FULL] / totals[k], 3, before="÷") for k in (FULL, EVERYWHERE, TOP)),
        ]
    )
    table(
        rows,
        header=["", FULL, EVERYWHERE, TOP],
        caption=f"Vitesse (×) et mémoire (÷) par rapport à l'apprentissage complet. {_source(measured, None)}",
    )
