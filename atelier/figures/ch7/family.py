"""Chapitre 7, troisième partie : la carte des méthodes PEFT, où chacune pose ses poids."""

from __future__ import annotations

from typing import Any

from atelier.display import show, table
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, canvas

ADDITIVE, SELECTIVE, REPARAMETRIZED = "additive", "sélective", "reparamétrisée"
_LOOKS = {ADDITIVE: (ORANGE, "circle"), SELECTIVE: (BLUE, "square"), REPARAMETRIZED: (GREEN, "sawtooth")}
"""Famille → couleur et forme de son numéro."""
METHODS = (
    ("1", ADDITIVE, "amorce apprise (« prompt tuning »)", "des vecteurs devant ceux des jetons, à l'entrée",
     "un contexte plus long", "Lester et al., 2021"),
    ("2", ADDITIVE, "préfixe (prefix-tuning)", "des clés et des valeurs de plus, dans chaque attention",
     "un cache K/V plus long", "Li et Liang, 2021"),
    ("3", ADDITIVE, "(IA)³", "un facteur par composante des clés, des valeurs et du milieu du MLP",
     "rien : se fond dans les poids", "Liu et al., 2022"),
    ("4", ADDITIVE, "adaptateurs", "deux petits modules par bloc, après l'attention et après le MLP",
     "un calcul de plus à chaque jeton", "Houlsby et al., 2019"),
    ("5", SELECTIVE, "LayerNorm", "les gains et les biais des LayerNorm", "rien", "ici"),
    ("6", SELECTIVE, "BitFit", "tous les biais", "rien", "Ben Zaken et al., 2022"),
    ("7", SELECTIVE, "tête seule", "la dernière couche", "rien", "chapitre 6"),
    ("8", REPARAMETRIZED, "LoRA, rsLoRA, DoRA, PiSSA, VeRA…", "ΔW = BA, à côté d'une matrice W gelée",
     "rien : se fond dans W", "chapitre 8"),
)  # fmt: skip
"""Numéro sur la figure, famille, nom, où sont ses poids, ce qu'il en reste à l'usage, source."""


def plot_family() -> None:
    """Un bloc de GPT-2, et le numéro de chaque méthode là où elle pose ses poids."""
    fig, ax = canvas(8.8, 5.4)
    ax.set_axis_off()
    ax.set_xlim(0.8, 15)
    ax.set_ylim(-0.6, 13.4)
    parts = {
        "table des jetons": 0.6, "LayerNorm": 2.3, "Q, K, V (c_attn)": 3.7, "attention": 5.1,
        "projection (c_proj)": 6.5, "LayerNorm ": 8.1, "MLP, entrée (c_fc), GELU": 9.5,
        "MLP, sortie (c_proj)": 10.9, "tête de sortie": 12.6,
    }  # fmt: skip
    for name, y in parts.items():
        ax.text(
            5, y, name.strip(), ha="center", va="center", fontsize=9.5,
            bbox={"boxstyle": "round,pad=0.45", "facecolor": "#EDEDED", "edgecolor": BLACK},
        )  # fmt: skip
    heights = list(parts.values())
    for low, high in zip(heights, heights[1:], strict=False):
        ax.annotate("", (5, high - 0.42), (5, low + 0.42), arrowprops={"arrowstyle": "-|>", "color": BLACK})
    ax.text(1.1, 6.6, "un bloc", rotation=90, ha="center", va="center", fontsize=9)
    ax.plot([1.6, 1.4, 1.4, 1.6], [1.8, 1.8, 11.5, 11.5], color=BLACK, linewidth=1)
    places = {
        "1": [0.6], "5": [2.3, 8.1], "6": [2.3, 3.7, 6.5, 8.1, 9.5, 10.9], "8": [3.7, 6.5, 9.5, 10.9],
        "2": [5.1], "3": [5.1, 9.5], "4": [6.5, 10.9], "7": [12.6],
    }  # fmt: skip
    family = {number: kind for number, kind, *_ in METHODS}
    slots: dict[float, int] = {}
    for badge, ys in places.items():
        for y in ys:
            _badge(ax, 7.4 + 0.75 * slots.get(y, 0), y, badge, family[badge])
            slots[y] = slots.get(y, 0) + 1
    for i, (badge, kind, name, *_) in enumerate(METHODS):
        y = 11.7 - 1.25 * i
        _badge(ax, 10.9, y, badge, kind)
        ax.text(11.35, y, f"{name.split(',')[0].split(' (« ')[0].split(' (p')[0]}, {kind}", fontsize=9, va="center")
    show(
        fig,
        alt="Un bloc de GPT-2, de bas en haut, et les numéros des méthodes à l'endroit de leurs poids. "
        + " ".join(f"{badge} : {name} ({kind}), {where}." for badge, kind, name, where, *_ in METHODS),
    )


def _badge(ax: Any, x: float, y: float, text: str, kind: str) -> None:
    color, shape = _LOOKS[kind]
    ax.text(
        x, y, text, ha="center", va="center", fontsize=9.5, fontweight="bold",
        bbox={"boxstyle": f"{shape},pad=0.3", "facecolor": "white", "edgecolor": color, "linewidth": 2},
    )  # fmt: skip


def family_table() -> None:
    """Chaque méthode : sa famille, où elle pose ses poids, ce qu'il en reste à l'usage, d'où elle vient."""
    table(
        [list(row) for row in METHODS],
        header=["", "famille", "méthode", "où sont les poids qui apprennent", "ce qu'il en reste à l'usage", "source"],
        caption="Une carte des méthodes PEFT (les trois familles : Lialin et al., 2023)",
    )
