"""Chapitre 8, première partie : ce qu'un fine-tuning change dans les poids, direction par direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from atelier.display import note, show, table
from atelier.evidence import perplexity_of
from atelier.figures.common.layers import KINDS
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.hardware import for_float64
from atelier.text import number, percent

Spectra = Mapping[str, Mapping[str, Tensor]]
"""« bloc.couche » → « ΔW » et « W » → valeurs singulières, de la plus forte à la plus faible."""
FULL = 192
"""Le rang plein d'une couche linéaire de Colibri."""


def energy(values: Tensor) -> Tensor:
    """Part de ‖·‖² que portent les 1, 2, 3… premières valeurs singulières ; (n,) → (n,)."""
    squares = for_float64(values).double() ** 2
    return torch.cumsum(squares, 0) / squares.sum()


def rank_for(share: float, curve: Tensor) -> int:
    """Le plus petit rang dont l'énergie atteint `share`."""
    return int((curve < share).sum()) + 1


def moved_table(found: Spectra) -> None:
    """De combien les poids ont bougé, par genre de couche, en part de leur norme."""
    rows = []
    for kind, label in KINDS.items():
        own = [values for name, values in found.items() if name.endswith(kind)]
        moved, total = (sum(float(v[what].square().sum()) for v in own) ** 0.5 for what in ("ΔW", "W"))
        rows.append([label, len(own[0]["W"]), percent(moved / total)])
    table(
        rows,
        header=["couches", "rang plein", "‖ΔW‖ / ‖W‖"],
        caption="De combien les poids ont bougé, tous les blocs réunis",
    )


def mean_curves(found: Spectra, what: str) -> dict[str, Tensor]:
    """Courbe d'énergie moyenne des blocs, par genre de couche."""
    return {
        label: torch.stack([energy(v[what]) for name, v in found.items() if name.endswith(kind)]).mean(0)
        for kind, label in KINDS.items()
    }


def random_curve(shapes: Iterable[tuple[int, int]] = ((576, 192), (192, 192), (768, 192), (192, 768))) -> Tensor:
    """La même courbe pour des matrices gaussiennes de ces formes."""
    draw = torch.Generator().manual_seed(0)
    return torch.stack([energy(torch.linalg.svdvals(torch.randn(s, generator=draw))) for s in shapes]).mean(0)


def plot_spectra(found: Spectra) -> None:
    """Énergie contre rang : ΔW d'une leçon, W de Colibri, et une matrice au hasard."""
    noise = random_curve()
    panels = {"ΔW, après la leçon": mean_curves(found, "ΔW"), "W, Colibri avant": mean_curves(found, "W")}
    fig, axes = canvas(9.2, 3.9, columns=2, sharey=True)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for style, (label, curve) in zip(SERIES, curves.items(), strict=False):
            ax.plot(range(1, len(curve) + 1), 100 * curve, label=label, markevery=[0, 3, 15, 63, 127], **style)
        ax.plot(range(1, len(noise) + 1), 100 * noise, color=BLACK, linestyle=":", label="hasard (gaussienne)")
        ax.set(xscale="log", title=title, xlabel="rang gardé (échelle logarithmique)")
        ax.set_xticks([1, 4, 16, 64, 192], ["1", "4", "16", "64", "192"])
        ax.minorticks_off()
        ax.axvline(8, color="#999999", linewidth=0.8)
        french(ax, x=False)
    axes[0].set_ylabel("énergie gardée (%)")
    axes[1].legend(fontsize=9)
    told = " ; ".join(
        f"{title} : {', '.join(f'{label} {percent(float(c[7]))}' for label, c in curves.items())}"
        for title, curves in panels.items()
    )
    show(fig, alt=f"Énergie gardée au rang 8. {told} ; matrice gaussienne : {percent(float(noise[7]))}.")
    first, second = panels.values()
    table(
        [
            [label, len(first[label]), rank_for(0.9, first[label]), rank_for(0.9, second[label]), rank_for(0.9, noise)]
            for label in first
        ],
        header=["couches", "rang plein", "ΔW", "W", "hasard"],
        caption="Rang qu'il faut pour garder 90 % de l'énergie",
    )


Cuts = Mapping[tuple[str, int], Any]
"""(« ΔW » ou « W », rang) → parts ; ΔW de rang 0 : rien ; de rang 192 : entier."""


def truncated_table(here: Cuts, author: Cuts | None) -> str:
    """Perplexité sur B selon ce que l'on garde. Rend le verdict du pari : le rang qui suffit, à 1 % près."""
    kept = author or here
    names = {("ΔW", 0): "rien (Colibri)", ("ΔW", FULL): "ΔW entier"}
    rows = []
    for key in sorted(kept, key=lambda key: (key[0] == "W", key[1])):
        what, r = key
        label = names.get(key, f"{what} tronqué au rang {r}" + ", sans ΔW" * (what == "W"))
        mine = number(perplexity_of(here[key]), 4) if key in here and here is not author else "—"
        rows.append([label, mine, perplexity_of(kept[key])])
    table(rows, header=["ce que l'on garde", "ici", "auteur"], caption="Perplexité sur B ; une leçon, une graine")
    whole = perplexity_of(kept["ΔW", FULL])
    enough = [r for what, r in kept if what == "ΔW" and 0 < r < FULL and perplexity_of(kept[what, r]) < 1.01 * whole]
    best = min(enough, default=FULL)
    note(f"À 1 % de la perplexité du ΔW entier : rang {number(best)}." if enough else "Aucun de ces rangs n'y suffit.")
    return str(best) if str(best) in ("4", "16", "64") else "plus de 64"
