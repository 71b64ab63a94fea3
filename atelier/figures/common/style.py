"""Un même aspect pour toutes les figures : sûr pour un daltonien, lisible en gris, nombres à la française."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from atelier import settings
from atelier.text import graduation, number

T = TypeVar("T")

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#222222",
)
"""Palette d'Okabe et Ito."""
GREY = "#888888"

SERIES = [
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": RED, "marker": "s", "linestyle": "--"},
    {"color": GREEN, "marker": "^", "linestyle": "-."},
    {"color": ORANGE, "marker": "D", "linestyle": ":"},
    {"color": PURPLE, "marker": "v", "linestyle": "-"},
    {"color": BLACK, "marker": "x", "linestyle": "--"},
]
"""Couleur, repère et trait d'une série : chacun des trois suffit à la reconnaître."""


def canvas(width: float = 8.0, height: float = 3.6, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """Une figure matplotlib et ses axes, sans cadre superflu, avec une grille discrète."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)
    for ax in getattr(axes, "flat", [axes]):
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
        ax.set_axisbelow(True)
    return fig, axes


def stacked_shares(
    counts: Mapping[str, Mapping[str, float]], parts: Mapping[str, tuple[str, str]], labels: Sequence[str]
) -> tuple[Any, Any]:
    """Barres empilées, une par ligne de `counts` : la part de chaque poste, en pour cent, écrite dès 4 %.

    counts : ligne → poste → quantité positive ; parts : poste → (couleur, hachure) ; labels : étiquettes des lignes.
    """
    fig, ax = canvas(9.0, 3.8)
    left = dict.fromkeys(counts, 0.0)
    for part, (color, hatch) in parts.items():
        shares = {name: 100 * row[part] / sum(row.values()) for name, row in counts.items()}
        ax.barh(
            list(counts), list(shares.values()), left=list(left.values()), color=color, hatch=hatch,
            edgecolor="white", label=part,
        )  # fmt: skip
        for i, (name, share) in enumerate(shares.items()):
            if share >= 4:
                box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.2}
                written = number(share, decimals=0)
                ax.text(left[name] + share / 2, i, written, ha="center", va="center", fontsize=9, bbox=box)
            left[name] += share
    ax.invert_yaxis()
    ax.set_yticks(range(len(counts)), labels, fontsize=9)
    ax.set_xlim(0, 100)
    return fig, ax


def french(ax: Any, x: bool = True, y: bool = True) -> None:
    """Graduations écrites à la française (virgule décimale), même sur une échelle logarithmique."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    formatter = FuncFormatter(lambda v, _: graduation(v))
    for wanted, axis in ((x, ax.xaxis), (y, ax.yaxis)):
        if wanted:
            axis.set_major_formatter(formatter)
            axis.set_minor_formatter(NullFormatter())


def middle(values: Any, share: float = 0.99) -> tuple[float, float]:
    """Les bornes de la part centrale `share` des valeurs (d'après un million d'entre elles au plus)."""
    flat = values.detach().float().flatten()
    flat = flat[:: max(1, flat.numel() // 10**6)].cpu()
    return flat.quantile((1 - share) / 2).item(), flat.quantile((1 + share) / 2).item()


def progress_bar(items: Sequence[T], label: str) -> Iterable[T]:
    """Barre d'avancement autour de `items` ; absente quand l'auteur enregistre, pour ne rien laisser dans la page."""
    from tqdm.auto import tqdm

    quiet = settings.recording() or settings.given_scale() == "essai"
    return tqdm(items, desc=label, leave=False, disable=quiet)
