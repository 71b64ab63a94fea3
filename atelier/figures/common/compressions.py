"""Le dessin des trois compressions, montré à l'ouverture des chapitres 3, 4 et 5 : où l'on est, ce qui se combine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from atelier.display import show
from atelier.figures.common.style import BLUE, GREEN, GREY, ORANGE, RED, SKY, canvas
from atelier.text import number

_COLUMNS = (
    (3, 4.0, "Quantification", "mêmes poids, moins de bits"),
    (4, 13.2, "Distillation", "un petit modèle en imite un grand"),
    (5, 22.0, "Élagage", "des poids disparaissent"),
)


def three_compressions(here: int = 3) -> None:
    """Un dessin des trois façons de réduire un modèle, et de ce qui se combine avec quoi.

    here : chapitre où l'on est (3, 4 ou 5), marqué sur le dessin.
    """
    from matplotlib.patches import Rectangle

    fig, ax = canvas(9.2, 4.6)
    ax.axis("off")
    ax.set_xlim(0, 26)
    ax.set_ylim(-5.2, 7)
    weights = torch.tensor([[0.9, -0.4, 0.15], [-0.7, 0.32, 0.55], [0.08, -0.95, 0.41]])
    _matrix(ax, weights, (0.2, 1.6), [[number(v, 2) for v in row] for row in weights.tolist()])
    _matrix(ax, torch.round(weights * 3) / 3, (4.8, 1.6), [["3", "−1", "0"], ["−2", "1", "2"], ["0", "−3", "1"]])
    _network(ax, 9.8, (4, 5, 5, 4))
    _network(ax, 14.6, (3, 3, 3), spread=0.8)
    _network(ax, 18.8, (4, 5, 4))
    _network(ax, 23.2, (4, 5, 4), keep=0.35)
    for start, stop in ((3.5, 4.6), (13.1, 14.2), (21.2, 22.7)):
        ax.annotate("", (stop, 3.1), (start, 3.1), arrowprops={"arrowstyle": "->", "lw": 1.6})
    for chapter, x, title, text in _COLUMNS:
        if chapter == here:
            ax.add_patch(Rectangle((x - 4.2, 0.15), 8.4, 7.1, facecolor=SKY, alpha=0.18, zorder=0))
        where = "ce chapitre" if chapter == here else f"chapitre {chapter}"
        ax.text(x, 6.6, title, ha="center", fontsize=12, weight="bold")
        ax.text(x, 5.85, f"({where})", ha="center", fontsize=9)
        ax.text(x, 0.55, text, ha="center", fontsize=9.5)
    for left, right, y, text, color in (
        (4.0, 12.6, -1.1, "ensemble : ZeroQuant (Yao et al., 2022)", BLUE),
        (13.8, 22.0, -1.1, "ensemble : Sanh et al. (2020)", GREEN),
        (3.6, 22.4, -3.4, "ensemble : SparseGPT, sur l'algorithme de GPTQ (Frantar et Alistarh, 2023)", RED),
    ):
        ax.plot([left, left, right, right], [0.1, y, y, 0.1], color=color, lw=1.8)
        ax.text((left + right) / 2, y - 0.25, text, ha="center", va="top", fontsize=9)
    show(
        fig,
        alt="Trois dessins. Quantification : une matrice de nombres à virgule devient une matrice de petits entiers. "
        "Distillation : un grand réseau, une flèche, un petit réseau. Élagage : un réseau, puis le même avec moins de "
        "liens. Dessous, des accolades disent ce qui se combine : quantification et distillation (ZeroQuant), "
        "distillation et élagage (Sanh et al.), quantification et élagage (SparseGPT). "
        f"Ce chapitre-ci : {next(title.lower() for chapter, _, title, _ in _COLUMNS if chapter == here)}.",
    )


def _matrix(ax: Any, values: Tensor, corner: tuple[float, float], texts: Sequence[Sequence[str]]) -> None:
    from matplotlib.patches import Rectangle

    n = len(values)
    for i in range(n):
        for j in range(n):
            v = values[i, j].item()
            x, y = corner[0] + j, corner[1] + (n - 1 - i)
            ax.add_patch(Rectangle((x, y), 0.94, 0.94, facecolor=BLUE if v > 0 else ORANGE, alpha=0.12 + 0.5 * abs(v)))
            ax.text(x + 0.47, y + 0.47, texts[i][j], ha="center", va="center", fontsize=8)


def _network(ax: Any, x0: float, sizes: Sequence[int], spread: float = 0.95, keep: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(4)
    columns = [[(x0 + i, 3.1 + spread * (k - (n - 1) / 2)) for k in range(n)] for i, n in enumerate(sizes)]
    for left, right in zip(columns, columns[1:], strict=False):
        for a in left:
            for b in right:
                if torch.rand((), generator=generator).item() < keep:
                    ax.plot((a[0], b[0]), (a[1], b[1]), color=GREY, lw=0.6, zorder=1)
    for column in columns:
        ax.plot([p[0] for p in column], [p[1] for p in column], "o", color=BLUE, ms=6, zorder=2)
