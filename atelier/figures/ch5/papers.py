"""Chapitre 5 : les tableaux des articles, cités, et les nôtres à côté ; les motifs N:M."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from atelier.display import note, show, table
from atelier.evidence import perplexity_of
from atelier.figures.ch5.importance import LOOKS
from atelier.figures.common.style import canvas, french
from atelier.text import number, percent

Measured = Mapping[str, Any]
Key = tuple[str, str]
"""(motif, méthode), comme dans le tableau cité."""

LLAMA2_DENSE = {"7B": 5.12, "13B": 4.57, "70B": 3.12}
LLAMA2 = {
    ("50 %, libre", "magnitude"): (14.89, 6.37, 4.98),
    ("50 %, libre", "SparseGPT"): (6.51, 5.63, 3.98),
    ("50 %, libre", "Wanda"): (6.42, 5.56, 3.98),
    ("4:8", "magnitude"): (16.48, 6.76, 5.58),
    ("4:8", "SparseGPT"): (8.12, 6.60, 4.59),
    ("4:8", "Wanda"): (7.97, 6.55, 4.47),
    ("2:4", "magnitude"): (54.59, 8.33, 6.33),
    ("2:4", "SparseGPT"): (10.17, 8.32, 5.40),
    ("2:4", "Wanda"): (11.02, 8.27, 5.16),
}
"""Perplexité de LLaMA-2 élagué (7B, 13B, 70B) : dépôt locuslab/wanda, README, tableau « LLaMA-2 results »."""

METHODS = ("magnitude", "Wanda", "SparseGPT")
FREE = "50 %, libre"


def ours(*sweeps: Measured) -> dict[Key, float]:
    """Nos perplexités, rangées comme le tableau cité, et celle du modèle entier sous ("", "") ; sans ce qui manque.

    sweeps : pertes rangées par (méthode, part retirée) ou par (méthode, motif).
    """
    found: dict[Key, float] = {}
    for key, losses in (item for sweep in sweeps for item in sweep["pertes"].items()):
        if key == "entier":
            found["", ""] = perplexity_of(losses)
        elif key[0] in METHODS and (key[1] == 0.5 or isinstance(key[1], str)):
            found[FREE if key[1] == 0.5 else key[1], key[0]] = perplexity_of(losses)
    return found


def ratios(*sweeps: Measured) -> dict[Key, list[float]]:
    """(motif, méthode) → perplexité rapportée au modèle entier : Colibri (nan si non mesuré), LLaMA-2 7B, 13B, 70B."""
    mine = ours(*sweeps)
    whole = [mine["", ""], *LLAMA2_DENSE.values()]
    return {
        key: [v / w for v, w in zip((mine.get(key, float("nan")), *theirs), whole, strict=True)]
        for key, theirs in LLAMA2.items()
    }


CLAIMS: list[tuple[str, list[Key], Callable[[list[float]], bool]]] = [
    ("à 50 %, libre, Wanda bat la magnitude", [(FREE, "Wanda"), (FREE, "magnitude")], lambda v: v[0] < v[1]),
    ("à 2:4, Wanda bat la magnitude", [("2:4", "Wanda"), ("2:4", "magnitude")], lambda v: v[0] < v[1]),
    (
        "à 50 %, libre, Wanda vaut SparseGPT, à 2 % près",
        [(FREE, "Wanda"), (FREE, "SparseGPT")],
        lambda v: abs(v[0] / v[1] - 1) < 0.02,
    ),
    ("à 2:4, SparseGPT bat Wanda", [("2:4", "SparseGPT"), ("2:4", "Wanda")], lambda v: v[0] < v[1]),
    (
        "4:8 coûte moins que 2:4, par les trois méthodes",
        [(pattern, m) for m in METHODS for pattern in ("4:8", "2:4")],
        lambda v: all(a < b for a, b in zip(v[::2], v[1::2], strict=True)),
    ),
]
"""Ce que disent les articles, et ce qu'il faut lire pour en juger."""


def paper_table() -> None:
    """Le tableau LLaMA-2 du dépôt de Wanda, tel quel."""
    rows = [["—", "modèle entier", *LLAMA2_DENSE.values()]]
    rows += [[where, method, *values] for (where, method), values in LLAMA2.items()]
    table(
        rows,
        header=["motif", "méthode", *(f"LLaMA-2 {s}" for s in LLAMA2_DENSE)],
        caption="Perplexité sur WikiText-2, en anglais (dépôt locuslab/wanda, README)",
    )


def beside_the_papers(*sweeps: Measured) -> None:
    """Rapports de perplexité à celle du modèle entier : Colibri et LLaMA-2, puis ce qui est, ou non, reproduit."""
    found = ratios(*sweeps)
    models = ["Colibri", *(f"LLaMA-2 {s}" for s in LLAMA2_DENSE)]
    fig, axes = canvas(9, 3.6, columns=3, sharey=True)
    for ax, where in zip(axes, (FREE, "4:8", "2:4"), strict=True):
        for method in METHODS:
            ax.plot(range(len(models)), found[where, method], label=method, lw=1.5, **LOOKS[method])
        ax.set_title(where, fontsize=10.5)
        ax.set_yscale("log")
        ax.set_yticks([1, 2, 5, 10])
        ax.minorticks_off()
        ax.set_xticks(range(len(models)), ["Colibri", *LLAMA2_DENSE], fontsize=9)
        ax.set_xlabel("Colibri, puis LLaMA-2", fontsize=9.5)
        french(ax, x=False)
    axes[0].set_ylabel("perplexité / modèle entier (éch. log.)")
    axes[2].legend(frameon=False, fontsize=9)
    show(
        fig,
        alt="Perplexité rapportée à celle du modèle entier. "
        + " ; ".join(
            f"{where}, {method} : " + ", ".join(f"{m} {_told(r, 3)}" for m, r in zip(models, line, strict=True))
            for (where, method), line in found.items()
        )
        + ".",
    )

    def verdict(keys: list[Key], holds: Callable[[list[float]], bool], k: int) -> str:
        values = [found[key][k] for key in keys]
        if any(v != v for v in values):  # pas mesuré ici
            return "—"
        return "oui" if holds(values) else "non"

    table(
        [[text, *(verdict(keys, holds, k) for k in range(4))] for text, keys, holds in CLAIMS],
        header=["affirmation", *models],
        caption="Ce qui tient, et où",
    )


def _told(value: float, digits: int = 4) -> str:
    return number(value, digits) if value == value else "—"


# --- N:M --------------------------------------------------------------------------------------------------------------


def plot_patterns(found: Mapping[str, Any]) -> None:
    """Un coin de couche, élagué de moitié de trois façons. found : « poids », et « gardés » (motif → masque)."""
    corner, chosen = found["poids"], found["gardés"]
    fig, axes = canvas(8.4, 4.4, rows=3)
    energy = {}
    for ax, (name, kept) in zip(axes, chosen.items(), strict=True):
        step = {"4:8": 8, "2:4": 4}.get(name, corner.shape[1])
        energy[name] = (corner[kept].square().sum() / corner.square().sum()).item()
        ax.imshow(torch.where(kept, corner.abs(), float("nan")), cmap="Blues", vmin=-0.05, vmax=corner.abs().max())
        for x in range(step, corner.shape[1], step):
            ax.axvline(x - 0.5, color="black", lw=1.2)
        ax.set_title(f"{name} : il reste {percent(energy[name])} de la somme des carrés", fontsize=10)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
    show(
        fig,
        alt=f"Trois grilles de {corner.shape[0]} sur {corner.shape[1]} poids, la moitié en blanc. Somme des carrés qui "
        "reste : " + ", ".join(f"{n} {percent(e)}" for n, e in energy.items()) + ".",
    )


def patterns_table(by_pattern: Measured, *free: Measured) -> None:
    """Perplexité de Colibri par motif et par méthode. free : les mêmes méthodes, sans motif."""
    mine = ours(by_pattern, *free)
    patterns = list(dict.fromkeys(pattern for _, pattern in by_pattern["pertes"]))
    table(
        [
            [method, *(_told(mine.get((where, method), float("nan"))) for where in (FREE, *patterns))]
            for method in METHODS
        ],
        header=["méthode", FREE, *(f"{p}, soit 75 %" if p == "1:4" else p for p in patterns)],
        caption=f"Perplexité de Colibri ({number(by_pattern['jetons'])} jetons ; entier : {_told(mine['', ''])})",
    )
    if len({m["jetons"] for m in (by_pattern, *free)}) > 1:
        note("Attention : ces colonnes viennent d'extraits de longueurs différentes.")
