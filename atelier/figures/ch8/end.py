"""Chapitre 8, fin : toutes les méthodes d'adaptation, les deux mêmes tâches, un tableau et une figure."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from atelier.display import note, recorded, show, table
from atelier.figures.ch8.delta import CHAPTER, from_measures, source
from atelier.figures.ch8.train import TARGETS, factors, merged_copy
from atelier.figures.common.style import SERIES, canvas, french
from atelier.text import number, percent, spread
from atelier.variants import save_variant

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

METHODS = ("tout", "tête", "adaptateurs", "LoRA", "QLoRA")
IN_TIMES = {"LoRA": "LoRA partout", "QLoRA": "QLoRA (NF4 relu à chaque pas)"}


def _mean(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.mean(r[key] for r in runs)


def _range(runs: list[dict[str, Any]], key: str, factor: float = 1.0) -> str:
    values = [factor * r[key] for r in runs]
    return spread(values, 3)


def _lines(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Ce que les mesures disent de chaque méthode."""
    times = found["temps"]["pas"]["Colibri"]["méthodes"]
    lines = {}
    for m in METHODS:
        language = found["qlora"]["NF4"]["après"] if m == "QLoRA" else found["langue"][m]
        t = times[IN_TIMES.get(m, m)]
        lines[m] = {
            "langue": language,
            "classes": found["classes"][m],
            "octets": 4 * language[0]["entraînés"],
            "octets classes": 4 * found["classes"][m][0]["entraînés"],
            "ms": t["avant"] + t["arrière"] + t["optimiseur"],
        }
    return lines


@from_measures("langue", "qlora", "classes", "temps", "delta")
def final_table(found: dict[str, Any]) -> None:
    """Qualité, octets entraînés, durée d'un pas et oubli, pour les deux tâches."""
    lines = _lines(found)
    base = found["delta"]["base"]
    rows = [
        [
            m,
            line["octets"],
            round(line["ms"], 1),
            _range(line["langue"], "B"),
            number(_mean(line["langue"], "A"), 4),
            _range(line["classes"], "exactitude", 100),
            line["octets classes"],
            number(_mean(line["classes"], "A"), 4),
        ]
        for m, line in lines.items()
    ]
    table(
        rows,
        header=[
            "méthode",
            "octets entraînés (B)",
            "un pas (ms)",
            "perplexité sur B",
            "puis sur A",
            "classification (% justes)",
            "octets entraînés (classes)",
            "puis perplexité sur A",
        ],
        caption=f"Moyenne de trois graines (étendue) ; {found['recette']['pas']} pas pour tous ; textes de validation "
        f"pour A et B ; avant : B "
        f"{number(base['B'], 4)}, A {number(base['A'], 4)} ({source(found)})",
    )


@from_measures("langue", "qlora", "classes", "temps", "delta")
def final_figure(found: dict[str, Any]) -> None:
    """Qualité contre octets entraînés, et contre oubli, pour les deux tâches ; l'aire du repère dit le temps."""
    lines = _lines(found)
    base = found["delta"]["base"]
    fig, axes = canvas(9.4, 7.0, rows=2, columns=2)
    plots = [
        ("langue", "B", 1, "perplexité sur B (plus bas : mieux)"),
        ("classes", "exactitude", 100, "classification (% justes, plus haut : mieux)"),
    ]
    for (task, key, factor, label), line_axes in zip(plots, axes, strict=True):
        size_key = "octets" if task == "langue" else "octets classes"
        above = 1 if _mean(lines["LoRA"][task], key) > _mean(lines["QLoRA"][task], key) else -1
        for style, (m, line) in zip(SERIES, lines.items(), strict=False):
            y = factor * _mean(line[task], key)
            area = 40 + 1.2 * line["ms"]
            lift = {"LoRA": 5, "QLoRA": -5}.get(m, 0) * above  # leurs repères se touchent : les noms s'écartent
            for ax, x in zip(line_axes, (line[size_key] / 1e6, _mean(line[task], "A")), strict=True):
                ax.scatter(x, y, s=area, color=style["color"], marker=style["marker"], zorder=3)
                side = -1 if m == "adaptateurs" and ax is line_axes[1] else 1  # à droite, il couvrirait LoRA
                where = {"xytext": (side * (4 + (area / 3.1) ** 0.5), lift), "ha": "left" if side > 0 else "right"}
                ax.annotate(m, (x, y), textcoords="offset points", va="center", fontsize=9, **where)
        line_axes[0].set(xscale="log", xlabel="nombres entraînés (Mo, échelle logarithmique)", ylabel=label)
        line_axes[1].axvline(base["A"], color="#666666", linestyle=":")
        line_axes[1].set(xlabel=f"perplexité sur A ensuite (pointillé : {number(base['A'], 4)}, avant)", ylabel=label)
        forgotten = [base["A"], *(_mean(line[task], "A") for line in lines.values())]
        if max(forgotten) > 4 * min(forgotten):
            line_axes[1].set_xscale("log")
            line_axes[1].set_xticks([t for t in (10, 20, 50, 100, 200, 500) if t <= 1.5 * max(forgotten)])
        for ax in line_axes:
            ax.margins(0.22)
            french(ax)
    told = " ; ".join(
        f"{m} : {number(line['octets'] / 1e6, 3, unit='Mo')}, {number(line['ms'], 3, unit='ms')} par pas, "
        f"B {number(_mean(line['langue'], 'B'), 4)} (A {number(_mean(line['langue'], 'A'), 4)}), "
        f"{percent(_mean(line['classes'], 'exactitude'), 3)} de "
        f"justes (A {number(_mean(line['classes'], 'A'), 4)})"
        for m, line in lines.items()
    )
    show(fig, alt=f"Quatre nuages : qualité contre octets entraînés, puis contre oubli, pour deux tâches. {told}.")
    note("Repère plus grand : un pas plus long. Les nombres sont ceux du tableau.")


@recorded("ch8/row_lora", needs=("inject", "merge"))
def row_lora(model: GPT2LMHeadModel, lora: GPT2LMHeadModel, inject: Any, merge: Any, rank: int, n_bytes: int) -> None:
    """Inscrit au tableau Colibri adapté à la fantasy par le LoRA du lecteur, fusionné."""
    merged = model
    parameters = dict(lora.named_parameters())
    for target in TARGETS:
        chosen = _Subset({n: p for n, p in parameters.items() if f".{target}." in n})
        merged = merged_copy(merged, factors(chosen, rank), 2.0 * rank, merge, target)
    row = save_variant(
        "lora-b",
        merged,
        n_bytes,
        CHAPTER,
        "adapté à la fantasy par LoRA, fusionné (perplexité sur A : ce qu'il en a oublié)",
    )
    note(f"« lora-b » : perplexité {number(row['perplexity'], 4)} sur A, {number(row['bytes'], unit='octets')}.")


class _Subset:
    """Une partie des paramètres d'un modèle, vue comme un modèle."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters

    def named_parameters(self) -> Any:
        return self._parameters.items()
