"""Chapitre 7, troisième partie : les longues mesures (voix, largeur, base en 4 bits), un point en direct."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from atelier.display import note, recorded, show, table
from atelier.figures.ch7 import voices
from atelier.figures.ch7.voices import CHAPTER, VOICES, WIDTH, Insert
from atelier.figures.common.style import BLACK, BLUE, GREEN, RED, SERIES, canvas, french
from atelier.measures import load_measures
from atelier.perplexity import evaluate_perplexity
from atelier.text import long_date, number, percent, spread
from atelier.variants import load_variant, rows, save_variant

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

EXPERIMENT = {"B": "fantasy", "B′": "vers"}


def _source(found: dict[str, Any], n_seeds: int | None = 3) -> str:
    seeds = f"{n_seeds} graines, " if n_seeds else ""
    return f"Mesuré par l'auteur, {seeds}{found['machine'].split(' · ')[0]}, le {long_date(found['date'])}"


def _share(runs: dict[str, Any], final: Sequence[float], text: str) -> str:
    """Part du gain de l'apprentissage complet, d'une moyenne à l'autre."""
    start, full = runs["départ"][text], statistics.mean(r["final"] for r in runs["complet"])
    return percent((start - statistics.mean(final)) / (start - full))


# --- Deux façons d'apprendre une voix -------------------------------------------------------------------------------


def voices_measured() -> None:
    """Perplexité de validation au fil des pas, adaptateurs contre apprentissage complet, trois graines ; oubli de A."""
    found = load_measures(CHAPTER)
    fig, axes = canvas(9.0, 3.6, columns=2)
    lines, told = [], []
    before = [f"A {number(found['fantasy']['départ']['a'], 4)}"]
    for ax, (voice, (text, what)) in zip(axes, VOICES.items(), strict=True):
        runs = found[EXPERIMENT[voice]]
        before.append(f"{voice} {number(runs['départ'][text], 4)}")
        for style, (name, label) in zip(
            SERIES, (("adaptateurs", f"adaptateurs, m = {WIDTH}"), ("complet", "tous les poids")), strict=False
        ):
            steps = [int(s) for s in runs[name][0]["courbe"]]
            curves = [[r["courbe"][str(s)] for s in steps] for r in runs[name]]
            middle = [statistics.mean(c) for c in zip(*curves, strict=True)]
            ax.plot(steps, middle, label=label, **style)
            ax.fill_between(
                steps, *([f(c) for c in zip(*curves, strict=True)] for f in (min, max)), color=style["color"], alpha=0.2
            )
            final, kept = [r["final"] for r in runs[name]], [r["A"] for r in runs[name]]
            lines.append([f"{voice} ({what}), {label}", spread(final), _share(runs, final, text), spread(kept)])
            told.append(f"{voice}, {label} : de {number(middle[0], 3)} à {number(middle[-1], 3)}")
        ax.set_title(f"{voice} : {what}", fontsize=10)
        ax.set_xlabel("pas (1 024 jetons chacun)")
        ax.set_yscale("log")
        _ticks(ax, min(runs["complet"][0]["courbe"].values()), runs["départ"][text])
    axes[0].set_ylabel("perplexité de validation (échelle log)")
    axes[0].legend(frameon=False, fontsize=9)
    show(fig, alt=f"Deux courbes de perplexité par voix, en fonction des pas. {' ; '.join(told)}.")
    recipe = found["recette"]
    table(
        lines,
        header=["voix et méthode", "perplexité sur la voix", "part du gain complet", "perplexité sur A, ensuite"],
        caption=f"{_source(found)} ; {recipe['pas']} pas, mêmes fenêtres pour les deux méthodes, moyenne (et étendue). "
        f"Avant : {', '.join(before)}",
    )


def _ticks(ax: Any, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    candidates = [10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 100, 120, 150, 200]
    ax.yaxis.set_major_locator(FixedLocator([t for t in candidates if 0.9 * low <= t <= 1.1 * high]))
    ax.yaxis.set_minor_locator(NullLocator())
    french(ax, x=False)


def rates_measured() -> None:
    """Sensibilité au taux d'apprentissage : perplexité sur B après 100 pas."""
    found = load_measures(CHAPTER)
    grid = sorted({float(lr) for runs in found["pas"].values() for lr in runs})
    lines = [
        [name, *(number(runs[key], 4) if (key := _key(runs, lr)) else "—" for lr in grid)]
        for name, runs in (
            (f"adaptateurs, m = {WIDTH}", found["pas"]["adaptateurs"]),
            ("tous les poids", found["pas"]["complet"]),
        )
    ]
    table(
        lines,
        header=["taux d'apprentissage", *(number(lr, 2) for lr in grid)],
        caption=f"Perplexité sur B (8 192 jetons) après 100 pas. {_source(found, None)}, une graine. Retenus ensuite : "
        f"{number(voices.ADAPTER_LR)} (entre les deux meilleurs) et {number(voices.FULL_LR)}",
    )


def _key(runs: dict[str, float], lr: float) -> str:
    return next((k for k in runs if float(k) == lr), "")


# --- La largeur du goulot -------------------------------------------------------------------------------------------


@recorded("ch7/widths_measured", needs=("insert", "count"))
def widths_measured(
    model: GPT2LMHeadModel,
    insert: Insert,
    count: Callable[..., int],
    bottleneck: int,
    steps: int | None,
    max_tokens: int,
) -> None:
    """Perplexité sur B contre paramètres entraînés : le balayage enregistré, et un point de plus, appris maintenant."""
    found = load_measures(CHAPTER)
    total, runs = model.num_parameters(), dict(found["largeur"])
    runs[str(WIDTH)] = {"B": [r["final"] for r in found["fantasy"]["adaptateurs"]]}
    swept = sorted(int(m) for m in runs)
    sizes = [count(model.config.n_embd, m, model.config.n_layer) for m in swept]
    middle = [statistics.mean(runs[str(m)]["B"]) for m in swept]
    full = [r["final"] for r in found["fantasy"]["complet"]]
    start = found["fantasy"]["départ"]["b"]

    steps = steps or found["recette"]["pas"]
    ready = voices.adapted(model, insert, bottleneck, seed=7)
    voices.teach(ready, "b_train", steps, seed=7)
    mine = evaluate_perplexity(ready, "b_validation", max_tokens=max_tokens).perplexity
    mine_size = count(model.config.n_embd, bottleneck, model.config.n_layer)

    fig, ax = canvas(7.6, 3.8)
    shares = [100 * n / total for n in sizes]
    ax.plot(shares, middle, label="adaptateurs (auteur)", **SERIES[0])
    for share, m in zip(shares, swept, strict=True):
        ax.vlines(share, min(runs[str(m)]["B"]), max(runs[str(m)]["B"]), color=BLUE)
        ax.annotate(
            f"m = {m}",
            (share, statistics.mean(runs[str(m)]["B"])),
            xytext=(4, 6),
            textcoords="offset points",
            fontsize=8.5,
        )
    ax.plot(
        100 * mine_size / total, mine, "*", color=RED, markersize=15, label=f"le vôtre : m = {bottleneck}, {steps} pas"
    )
    ax.axhline(start, color=BLACK, linestyle=":", label="Colibri, sans rien apprendre")
    ax.axhline(statistics.mean(full), color=GREEN, linestyle="--", label="tous les poids (100 %)")
    ax.set_xscale("log")
    french(ax)
    ax.set_xlabel("paramètres entraînés (% du modèle, échelle log)")
    ax.set_ylabel("perplexité sur B")
    ax.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(0.0, 0.06))
    told = ", ".join(
        f"m = {m} ({number(s, 2, unit='%')}) {number(p, 3)}" for m, s, p in zip(swept, shares, middle, strict=True)
    )
    show(
        fig,
        alt=f"Perplexité sur B selon la part de paramètres entraînés : {told} ; votre point, m = {bottleneck}, "
        f"{number(mine, 3)} ; sans apprentissage {number(start, 3)} ; tous les poids "
        f"{number(statistics.mean(full), 3)}.",
    )
    table(
        [
            [
                f"m = {m}",
                n,
                percent(n / total),
                spread(runs[str(m)]["B"]),
                percent((start - p) / (start - statistics.mean(full))),
            ]
            for m, n, p in zip(swept, sizes, middle, strict=True)
        ]
        + [["tous les poids", total, percent(1.0), spread(full), percent(1.0)]],
        header=["goulot", "paramètres", "part du modèle", "perplexité sur B", "part du gain complet"],
        caption=f"{_source(found, None)} ; {found['recette']['pas']} pas, mêmes fenêtres ; étendue s'il y a "
        "plusieurs graines",
    )
    if steps != found["recette"]["pas"]:
        note(f"Votre point n'a fait que {steps} pas : il n'est pas comparable à la courbe.")


PAPER = [
    ["BERT-large, tous les poids", number(9.0, unit="×"), percent(1), 80.4],
    ["adaptateurs, m de 8 à 256 selon la tâche", number(1.3, unit="×"), percent(0.036), 80.0],
    ["adaptateurs, m = 64 partout", number(1.2, unit="×"), percent(0.021), 79.6],
]
"""Houlsby et al., 2019, tableau 1 : GLUE, neuf tâches."""


def paper_table() -> None:
    """Le tableau 1 de l'article : score GLUE moyen, paramètres pour neuf tâches, part entraînée par tâche."""
    table(
        PAPER,
        header=["", "paramètres pour les neuf tâches", "entraînés par tâche", "GLUE, score moyen"],
        caption="Houlsby et al., 2019, tableau 1 (test GLUE ; BERT-large, 330 M de paramètres)",
    )


# --- Une base en 4 bits ---------------------------------------------------------------------------------------------


def quantized_measured() -> None:
    """Adaptateurs sur la base en 4 bits du chapitre 3 : voix apprise dessus, voix transplantée, réparation de A."""
    found = load_measures(CHAPTER)
    q, plain = found["quantifie"], [r["final"] for r in found["fantasy"]["adaptateurs"]]
    start = q["départ"]
    table(
        [
            ["base FP32, sans adaptateur", number(start["fp32"]["a"], 4), number(start["fp32"]["b"], 4)],
            ["base 4 bits, sans adaptateur", number(start["int4"]["a"], 4), number(start["int4"]["b"], 4)],
            ["base FP32, adaptateur appris sur B", "—", spread(plain)],
            ["base 4 bits, adaptateur appris sur B dessus", "—", spread(q["B"])],
            ["base 4 bits, adaptateur appris en FP32 puis posé dessus", "—", spread(q["B transplantée"])],
            ["base 4 bits, adaptateur appris sur A dessus", spread(q["A"]), "—"],
            *(
                [["base 4 bits, adaptateur qui imite la base FP32 sur A", spread(found["imitation"]["A"]), "—"]]
                if "imitation" in found
                else []
            ),
        ],
        header=["", "perplexité sur A", "perplexité sur B"],
        caption=f"{_source(found)} (une seule là où il n'y a pas d'étendue) ; moyenne (et étendue), "
        f"{found['recette']['pas']} pas, m = {WIDTH}",
    )


@recorded("ch7/repair", needs=("insert",))
def repair(model: GPT2LMHeadModel, insert: Insert, steps: int, bottleneck: int = WIDTH) -> None:
    """Inscrit au tableau la base en 4 bits et un adaptateur qui imite Colibri en FP32 : réparer l'arrondi."""
    four = load_variant("int4-gptq")
    ready = voices.adapted(four, insert, bottleneck)
    voices.teach(ready, "a_train", steps, lr=voices.REPAIR_LR, loss=voices.imitate(model))
    base = next((r for r in rows() if r["name"] == "int4-gptq"), {"bytes": 0, "tokens": 0})
    extra = voices.file_bytes(voices.trained_tensors(ready), torch.float16)
    row = save_variant(
        "int4-adapter",
        ready,
        base["bytes"] + extra,
        CHAPTER,
        f"int4-gptq et un adaptateur (m = {bottleneck}) qui imite le modèle FP32, {steps} pas",
    )
    alone = f" (la base seule : {number(base['perplexity'])})" if base["tokens"] == row["tokens"] else ""
    note(
        f"Au tableau : « {row['name']} », perplexité {number(row['perplexity'])}{alone}, "
        f"{number(row['bytes'])} octets (dont {number(extra)} d'adaptateurs), {number(row['ms'], 3)} ms par fenêtre."
    )
