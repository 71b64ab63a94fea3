"""Chapitre 2, première partie : ce que l'on a compté d'un passage avant et d'un passage arrière."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atelier.display import note, show, table
from atelier.figures.ch2.tools import flops_text
from atelier.figures.common.controls import Pick, Slider, explore
from atelier.figures.common.style import BLACK, BLUE, ORANGE, PURPLE, SERIES, canvas, french, stacked_shares
from atelier.text import NBSP, number, percent

TERMS = {"couches linéaires": (BLUE, ""), "scores et mélange": (ORANGE, "//"), "tête": (PURPLE, "xx")}
"""Les trois postes d'un passage avant : couleur et hachures."""


def product_table(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Votre formule contre le compteur. found : produit → « formes » (m, k, n), « vous », « FlopCounterMode »."""
    table(
        [
            [name, *row["formes"], row["vous"], row["FlopCounterMode"], row["vous"] - row["FlopCounterMode"]]
            for name, row in found.items()
        ],
        header=["produit", "m", "k", "n", "votre formule", "FlopCounterMode", "écart"],
        caption="Opérations d'un produit (m × k)·(k × n)",
    )


def forward_table(found: Mapping[str, Mapping[str, Any]]) -> None:
    """La même chose, pour une fenêtre entière.

    found : modèle → « contexte », « paramètres », « par jeton », « vous », « FlopCounterMode ».
    """
    table(
        [
            [
                name, row["contexte"], flops_text(row["par jeton"]),
                number(row["par jeton"] / row["paramètres"], decimals=2),
                row["vous"], row["FlopCounterMode"], row["vous"] - row["FlopCounterMode"],
            ]
            for name, row in found.items()
        ],
        header=["modèle", "jetons", "par jeton", "par paramètre", "fenêtre, votre formule", "FlopCounterMode", "écart"],
        caption="Passage avant. MFLOP, GFLOP : million, milliard d'opérations",
    )  # fmt: skip


def plot_shares(found: Mapping[str, Mapping[str, float]]) -> None:
    """La part de chaque poste dans un passage avant : une barre empilée par modèle. found : modèle → poste → FLOP."""
    totals = {name: sum(terms.values()) for name, terms in found.items()}
    fig, ax = stacked_shares(found, TERMS, [f"{name}\n{flops_text(n)} par jeton" for name, n in totals.items()])
    ax.set_xlabel("part des opérations d'un passage avant, contexte plein (%)")
    ax.legend(ncols=3, fontsize=9, frameon=False, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    told = " ; ".join(
        f"{name} ({flops_text(totals[name])} par jeton) : "
        + ", ".join(f"{term} {percent(n / totals[name], 3)}" for term, n in terms.items())
        for name, terms in found.items()
    )
    show(fig, alt=f"Barres empilées, part des opérations d'un passage avant par poste. {told}.")


# --- Le contexte ------------------------------------------------------------------------------------------------------

Sweep = Mapping[str, Mapping[int, Mapping[str, float]]]
"""modèle → contexte (une puissance de 2) → poste → FLOP par jeton."""


def _context_cost(found: Sweep, context: int, name: str) -> tuple[Any, str]:
    by_context = found[name]
    grid = list(by_context)
    attention = [terms["scores et mélange"] for terms in by_context.values()]
    rest = [sum(terms.values()) - terms["scores et mélange"] for terms in by_context.values()]
    total = [a + b for a, b in zip(attention, rest, strict=True)]
    at = grid.index(context)
    fig, ax = canvas(8.0, 3.6)
    for label, values, look in (
        ("total", total, SERIES[5] | {"marker": "", "linestyle": ":"}),
        ("couches linéaires et tête", rest, SERIES[0] | {"marker": ""}),
        ("scores et mélange (attention)", attention, SERIES[1] | {"marker": ""}),
    ):
        ax.plot(grid, values, label=label, lw=1.9, **look)
    ax.plot([context], [total[at]], "o", color=BLACK, ms=7, label="le contexte choisi")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(grid[::2], [number(n) for n in grid[::2]], fontsize=8)
    french(ax, x=False)
    ax.set_xlabel("contexte T (jetons, échelle logarithmique)")
    ax.set_ylabel("FLOP par jeton, passage avant\n(échelle logarithmique)")
    share = percent(attention[at] / total[at], 3)
    ax.set_title(
        f"{name}, contexte de {number(context)} jetons{NBSP}: l'attention fait {share} du passage", fontsize=10
    )
    ax.legend(frameon=False, fontsize=9)
    crossing = rest[0] / (attention[0] / grid[0])
    alt = (
        f"Coût par jeton d'un passage avant de {name} selon le contexte. Les couches linéaires et la tête ne changent "
        f"pas ({flops_text(rest[0])}) ; l'attention double avec le contexte et les rejoint vers "
        f"{number(round(crossing))} jetons. À {number(context)} jetons, elle fait {share} de {flops_text(total[at])}."
    )
    return fig, alt


def context_cost(found: Sweep, context: int = 1024, name: str = "GPT-2 small") -> None:
    """Le coût d'un jeton selon le contexte ; un curseur et un choix de modèle quand la page est vivante."""

    def draw(power: int, who: str) -> tuple[Any, str]:
        return _context_cost(found, 2**power, who)

    powers = [n.bit_length() - 1 for n in found[name]]
    explore(
        draw,
        power=Slider(context.bit_length() - 1, min(powers), max(powers), 1, "contexte : 2 puissance"),
        who=Pick(name, list(found), "modèle"),
    )


# --- Le passage arrière -----------------------------------------------------------------------------------------------


def backward_table(found: Mapping[str, Mapping[str, float]], n_tokens: int) -> None:
    """Passage avant et passage arrière, poste par poste, et leur rapport. found : « avant », « arrière » → poste."""
    table(
        [
            [kind, round(n / n_tokens), round(found["arrière"][kind] / n_tokens), found["arrière"][kind] / n]
            for kind, n in found["avant"].items()
        ],
        header=["poste", "avant, FLOP par jeton", "arrière, FLOP par jeton", "arrière / avant"],
        caption=f"Colibri, fenêtre de {n_tokens} jetons, compté par FlopCounterMode",
    )


def cases_table(found: Mapping[str, tuple[int, int]]) -> None:
    """Les produits du passage arrière selon ce qui doit apprendre. found : cas → produits en avant, en arrière."""
    table(
        [[name, there, back, number(back / there, decimals=2)] for name, (there, back) in found.items()],
        header=["trois couches linéaires", "produits en avant", "produits en arrière", "arrière / avant"],
        caption="Compté par FlopCounterMode ; tous ces produits ont le même prix",
    )


# --- Les conventions --------------------------------------------------------------------------------------------------


def plot_conventions(found: Mapping[str, Mapping[str, float]]) -> None:
    """L'écart de quatre conventions au compte exact.

    found : modèle → « compte exact » et convention → opérations d'un jeton d'apprentissage.
    """
    names = [name for name in next(iter(found.values())) if name != "compte exact"]
    gaps = {name: [row[name] / row["compte exact"] - 1 for row in found.values()] for name in names}
    table(
        [
            [who, flops_text(row["compte exact"]), *(percent(gaps[n][i], decimals=1, signed=True) for n in names)]
            for i, (who, row) in enumerate(found.items())
        ],
        header=["modèle, contexte plein", "compte exact", *names],
        caption="Par jeton d'apprentissage : compte exact (trois fois votre passage avant), et écart des conventions",
    )
    fig, ax = canvas(8.4, 3.6)
    x = range(len(found))
    for (name, values), look in zip(gaps.items(), SERIES, strict=False):
        ax.plot(x, [100 * v for v in values], label=name, lw=1.4, ms=7, **look)
    ax.axhline(0, color=BLACK, lw=1)
    ax.set_xticks(list(x), list(found), fontsize=9)
    ax.set_ylabel("écart au compte exact (%)")
    french(ax, x=False)
    ax.legend(frameon=False, fontsize=8.5, loc="lower right")
    told = " ; ".join(
        f"{name} : "
        + ", ".join(f"{percent(v, 3, signed=True)} pour {who}" for v, who in zip(values, found, strict=True))
        for name, values in gaps.items()
    )
    show(fig, alt=f"Écart de quatre conventions au compte exact, de Colibri à GPT-3. {told}.")
    note(
        "N compte tout ; N′ ne compte ni table des jetons ni positions ; N″ compte tout sauf les positions, comme "
        "nanoGPT. Les biais et les LayerNorm, qui ne font aucun produit, expliquent ce qui reste."
    )
