"""Chapitre 1, troisième partie : les paramètres comptés, où ils sont, et ce qui change de GPT-2 à GPT-3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atelier.display import note, show, table
from atelier.figures.common.style import BLUE, GREEN, ORANGE, PURPLE, SKY, stacked_shares
from atelier.models import GPT2_SIZES
from atelier.text import number, percent

ANNOUNCED = {"GPT-2 small": 117, "GPT-2 medium": 345, "GPT-2 large": 762, "GPT-2 xl": 1542}
"""Millions de paramètres de la diapositive : Radford et al., 2019, tableau 2."""

PARTS = {
    "table des jetons (et tête)": (BLUE, ""),
    "positions": (PURPLE, "xx"),
    "attention": (ORANGE, "//"),
    "MLP": (GREEN, ".."),
    "LayerNorm": (SKY, ""),
}


def counts_table(sizes: Mapping[str, tuple[int, int, int, int]], found: Mapping[str, Mapping[str, int]]) -> None:
    """La formule du lecteur contre `num_parameters()`. sizes : modèle → (blocs, d, vocabulaire, positions)."""
    rows = [
        [name, *sizes[name], row["vous"], row["num_parameters()"], row["vous"] - row["num_parameters()"]]
        for name, row in found.items()
    ]
    table(
        rows,
        header=["modèle", "blocs", "d", "vocabulaire", "positions", "votre formule", "num_parameters()", "écart"],
        caption="Nombre de paramètres",
    )


def deck_table(found: Mapping[str, Mapping[str, int]]) -> None:
    """Les tailles de la diapositive, celles des modèles publiés, et celles que redonne un autre vocabulaire."""
    rows = [
        [
            name,
            number(announced, unit="M"),
            found[name]["vous"],
            number(found[name]["vous"] / 1e6, decimals=1, unit="M"),
            number(found[name]["avec 40 478 jetons"] / 1e6, decimals=1, unit="M"),
        ]
        for name, announced in ANNOUNCED.items()
    ]
    table(
        rows,
        header=["modèle", "diapositive", "modèle publié (votre formule)", "soit", "avec 40 478 jetons"],
        caption="Les mêmes modèles, comptés trois fois",
    )


def plot_parts(counts: Mapping[str, Mapping[str, int]]) -> None:
    """Où sont les paramètres : une barre empilée par modèle. counts : modèle → partie → nombre."""
    totals = {name: sum(parts.values()) for name, parts in counts.items()}
    fig, ax = stacked_shares(counts, PARTS, [f"{name}\n{_short(n)}" for name, n in totals.items()])
    ax.set_xlabel("part des paramètres (%)")
    ax.legend(ncols=5, fontsize=8.5, frameon=False, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    told = " ; ".join(
        f"{name} ({_short(totals[name])}) : "
        + ", ".join(f"{part} {percent(n / totals[name], decimals=1)}" for part, n in parts.items())
        for name, parts in counts.items()
    )
    show(fig, alt=f"Barres empilées, part des paramètres dans chaque composant. {told}.")


def _short(n: int) -> str:
    """« 124 M », « 175 Md »."""
    return number(n / 1e9, 3, unit="Md") if n >= 1e9 else number(n / 1e6, 3, unit="M")


def gpt2_to_gpt3(found: Mapping[str, int]) -> None:
    """De GPT-2 à GPT-3 : ce qui a changé, chiffres des deux articles et compte du lecteur."""
    layers, d, heads = GPT2_SIZES["xl"]
    two, three = found["GPT-2 xl"], found["GPT-3"]

    def times(ratio: float) -> str:
        return number(ratio, decimals=1, before="×")

    rows: list[list[Any]] = [
        ["blocs", number(layers), number(96), times(96 / layers)],
        ["dimension d", number(d), number(12288), times(12288 / d)],
        ["têtes par bloc", number(heads), number(96), times(96 / heads)],
        ["composantes par tête", number(d // heads), number(128), times(128 * heads / d)],
        ["contexte (jetons)", number(1024), number(2048), times(2)],
        ["vocabulaire", number(50257), number(50257), "le même"],
        ["texte", "40 Go, 8 millions de documents", "300 milliards de jetons lus", "—"],
        ["calcul d'apprentissage", "non publié", "3,14·10²³ FLOP (annexe D)", "—"],
        ["paramètres, annoncés", "1 542 M", "175 Md", "—"],
        ["paramètres, votre formule", number(two), number(three), times(three / two)],
    ]
    table(
        rows,
        header=["", "GPT-2 (le plus grand)", "GPT-3", "rapport"],
        caption="GPT-2 : Radford et al., 2019, § 2.1 et tableau 2. GPT-3 : Brown et al., 2020, § 2 et tableau 2.1",
    )
    note(
        f"Les seules matrices des blocs font {percent(12 * 96 * 12288**2 / three, decimals=1)} de GPT-3. Le texte de "
        "GPT-2 est donné en octets, celui de GPT-3 en jetons lus pendant l'apprentissage : les deux ne se divisent pas."
    )
