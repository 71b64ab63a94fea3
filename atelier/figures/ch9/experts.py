"""Chapitre 9 : la charge des experts."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from atelier.display import show
from atelier.figures.ch9.runs import seeds_table
from atelier.figures.common.style import BLACK, BLUE, ORANGE, canvas, french
from atelier.text import number, percent

Measured = Mapping[str, Any]
EXPERTS = 8


def heaviest(row: Mapping[str, Any]) -> list[float]:
    """Par graine, la part de l'expert le plus chargé, en moyenne sur les blocs."""
    return [mean(max(load) for load in blocks) for blocks in row["charges"]]


def busiest(measured: Measured) -> float:
    """La réponse au pari, en pour cent."""
    return 100 * mean(heaviest(measured["modèles"]["8 experts, sans équilibrage"]))


def loads_table(measured: Measured) -> None:
    """Perte, paramètres en tout et par jeton, part du plus chargé."""
    models = measured["modèles"]
    plain = models["un MLP"]["paramètres"]
    alone = {
        name: row["paramètres"] if name == "un MLP" else _active(row["paramètres"]) for name, row in models.items()
    }
    seeds_table(
        {name: row["pertes"] for name, row in models.items()},
        against="un MLP" if plain else "",
        what="modèle",
        caption=f"Perte sur l'extrait de validation, en nats par octet ; {number(measured['pas'])} pas",
        extra={
            "paramètres": [number(row["paramètres"]) for row in models.values()],
            "employés par jeton": [number(count) for count in alone.values()],
            "part de l'expert le plus chargé": [
                percent(mean(heaviest(row)), 3) if row["charges"] else "—" for row in models.values()
            ],
        },
    )


def _active(total: int, width: int = 64, inner: int = 256, blocks: int = 2) -> int:
    """Les paramètres qu'emploie un jeton : tout, moins les experts qu'il n'a pas choisis."""
    return total - blocks * (EXPERTS - 1) * 2 * width * inner


def plot_loads(measured: Measured) -> None:
    """La part de chaque expert, du plus au moins chargé, en moyenne sur les graines et les blocs."""
    fig, ax = canvas(7, 3)
    told = []
    pairs = [(name, row) for name, row in measured["modèles"].items() if row["charges"]]
    for rank, (name, row) in enumerate(pairs):
        loads = [sorted(load, reverse=True) for blocks in row["charges"] for load in blocks]
        shares = [100 * mean(values) for values in zip(*loads, strict=True)]
        places = [i + 0.4 * rank - 0.2 for i in range(len(shares))]
        ax.bar(
            places,
            shares,
            width=0.38,
            label=name,
            color=(ORANGE, BLUE)[rank],
            hatch=("//", "")[rank],
            edgecolor="white",
        )
        told.append(f"{name} : " + ", ".join(number(share, 3) for share in shares))
    ax.axhline(100 / EXPERTS, color=BLACK, lw=1, ls=":")
    ax.set_xticks(range(EXPERTS), [f"{i + 1}" for i in range(EXPERTS)])
    ax.set_xlabel("experts, du plus au moins chargé")
    ax.set_ylabel("part des jetons (%)")
    ax.legend(frameon=False)
    french(ax, x=False)
    show(
        fig, alt=f"Part des jetons reçue par chaque expert, en pour cent ; l'égalité serait à 12,5. {' ; '.join(told)}."
    )
