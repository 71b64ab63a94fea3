"""Chapitre 9 : un dessin par sujet, quelques boîtes et quelques flèches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atelier.display import show
from atelier.figures.common.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, canvas

PALE = "#F2F2F2"


def _page(width: float, height: float) -> tuple[Any, Any]:
    """Une page blanche, en unités de boîte."""
    fig, ax = canvas(width, height)
    ax.set_axis_off()
    ax.grid(False)
    return fig, ax


def _box(ax: Any, x: float, y: float, text: str, color: str = PALE, wide: float = 0.9, high: float = 0.6) -> None:
    """Une boîte centrée en (x, y)."""
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x - wide / 2, y - high / 2), wide, high, facecolor=color, edgecolor="#444444", alpha=0.9))
    ax.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if color in (BLUE, RED, GREEN) else "black")


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float], color: str = "#444444") -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": color, "lw": 1.2})


def _frame(ax: Any, x: Sequence[float], y: Sequence[float]) -> None:
    ax.set_xlim(*x)
    ax.set_ylim(*y)


def draw_speculation() -> None:
    """Un tour de décodage spéculatif : quatre jetons proposés, deux gardés, un corrigé."""
    fig, ax = _page(8.2, 2.7)
    written, proposed = ["Le", "chat"], ["dort", "sur", "un", "toit"]
    for i, word in enumerate(written):
        _box(ax, i, 2, word)
    for i, word in enumerate(proposed):
        _box(ax, 2.3 + i, 2, word, ORANGE)
    for i, word in enumerate(["dort", "sur", "le", "…", "…"]):
        _box(ax, 2.3 + i, 1, word, (GREEN, GREEN, BLUE, PALE, PALE)[i])
    for i, mark in enumerate(["=", "=", "≠"]):
        ax.text(2.3 + i, 1.5, mark, ha="center", va="center", fontsize=13, color="#222222")
    ax.text(6.95, 2, "le brouillon propose 4 jetons", va="center", fontsize=9)
    ax.text(6.95, 1, "la cible les lit d'un coup", va="center", fontsize=9)
    for i, word in enumerate([*written, "dort", "sur", "le"]):
        _box(ax, i + 0.3 * (i > 1), 0, word, PALE if i < 2 else BLUE if i == 4 else GREEN)
    ax.text(6.95, 0, "gardés : 2, plus celui de la cible", va="center", fontsize=9)
    _frame(ax, (-0.6, 10.2), (-0.5, 2.5))
    show(
        fig,
        alt="Un tour. Après « Le chat », le brouillon propose « dort sur un toit ». La cible aurait écrit « dort sur "
        "le » : les deux premiers jetons sont gardés, le troisième est remplacé par le sien, le quatrième est jeté.",
    )


def draw_shared_keys() -> None:
    """Six têtes de requêtes, et six, trois ou une tête de clés et de valeurs."""
    fig, ax = _page(8.4, 2.5)
    for part, (name, groups) in enumerate(
        {"une chacune (GPT-2)": 6, "trois pour six (GQA)": 3, "une (MQA)": 1}.items()
    ):
        left = 7 * part
        for head in range(6):
            _box(ax, left + head, 1.4, "q", SKY, 0.8, 0.5)
            _arrow(ax, (left + head, 1.12), (left + (head // (6 // groups) + 0.5) * 6 / groups - 0.5, 0.28))
        for group in range(groups):
            _box(ax, left + (group + 0.5) * 6 / groups - 0.5, 0, "k, v", ORANGE, 0.85, 0.5)
        ax.text(left + 2.5, 2.0, name, ha="center", fontsize=10)
    _frame(ax, (-0.7, 19.7), (-0.4, 2.3))
    show(
        fig,
        alt="Six têtes de requêtes, trois fois : chacune avec ses clés et ses valeurs ; deux par deux, trois têtes de "
        "clés et de valeurs ; toutes sur une seule.",
    )


def draw_experts() -> None:
    """Trois jetons, un aiguilleur, quatre experts : chaque jeton n'en emploie qu'un."""
    fig, ax = _page(7.4, 2.8)
    for i, (token, expert) in enumerate((("Le", 2), ("chat", 0), ("dort", 2))):
        y = 2 - i
        _box(ax, 0, y, token)
        _arrow(ax, (0.5, y), (1.5, 1 + 0.2 * (1 - i)))
        _arrow(ax, (3.1, 1 + 0.2 * (1 - i)), (4.8, 2.1 - 0.75 * expert + 0.1 * (1 - i)), (BLUE, RED, GREEN)[i])
    _box(ax, 2.3, 1, "aiguilleur", ORANGE, 1.5, 0.9)
    for expert in range(4):
        _box(ax, 5.6, 2.1 - 0.75 * expert, f"expert {expert + 1}", SKY if expert in (0, 2) else PALE, 1.5, 0.55)
    ax.text(6.6, 1.0, "deux travaillent,\ndeux ne coûtent rien\nqu'en mémoire", va="center", fontsize=9)
    _frame(ax, (-0.7, 9.2), (-0.6, 2.6))
    show(
        fig,
        alt="Trois jetons passent par un aiguilleur : deux vont à l'expert 3, un à l'expert 1 ; les experts 2 et 4 "
        "ne font rien.",
    )


def draw_matching() -> None:
    """Des objets rendus et des objets présents : trois couples, le reste vaut « rien »."""
    fig, ax = _page(7.4, 2.6)
    told, there = ["requête 1", "requête 2", "requête 3", "requête 4"], ["chat", "tasse"]
    for i, name in enumerate(told):
        _box(ax, 0, 2.1 - 0.7 * i, name, SKY, 1.6, 0.5)
    for i, name in enumerate([*there, "rien", "rien"]):
        _box(ax, 4.5, 2.1 - 0.7 * i, name, ORANGE if i < 2 else PALE, 1.4, 0.5)
    for a, b in ((0, 2), (1, 1), (2, 0), (3, 3)):
        _arrow(ax, (0.85, 2.1 - 0.7 * a), (3.75, 2.1 - 0.7 * b), "#444444" if b < 2 else GREY)
    ax.text(5.5, 1.05, "chaque objet, une seule requête ;\nchaque requête, un objet ou rien", va="center", fontsize=9)
    _frame(ax, (-1, 9.4), (-0.4, 2.5))
    show(
        fig,
        alt="Quatre requêtes d'objet, deux objets : la requête 3 est appariée au chat, la 2 à la tasse, les deux "
        "autres à rien.",
    )


def draw_preferences() -> None:
    """De deux textes préférés l'un à l'autre à une note, puis au meilleur de n."""
    fig, ax = _page(8.6, 2.0)
    steps = ["deux suites", "un juge\npréfère", "modèle de\nrécompense", "n suites\nneuves", "la mieux\nnotée"]
    colors = [PALE, ORANGE, SKY, PALE, GREEN]
    for i, (text, color) in enumerate(zip(steps, colors, strict=True)):
        _box(ax, 2 * i, 0, text, color, 1.5, 0.9)
        if i:
            _arrow(ax, (2 * i - 1.22, 0), (2 * i - 0.78, 0))
    _frame(ax, (-1, 9), (-0.7, 0.7))
    show(
        fig,
        alt="Deux suites, un juge en préfère une ; on en apprend un modèle de récompense, qui choisit la mieux notée "
        "de n suites neuves.",
    )


def draw_one_sequence() -> None:
    """Des morceaux d'image, puis des mots, dans une même suite."""
    fig, ax = _page(8.4, 2.2)
    for i in range(4):
        _box(ax, 0.95 * i, 1, "morceau\nd'image", PURPLE, 0.9, 0.8)
    for i, word in enumerate(["début", "un petit", "carré", "en haut"]):
        _box(ax, 4.4 + 1.05 * i, 1, word, SKY, 1.0, 0.8)
    _box(ax, 3.75, -0.1, "les mêmes blocs, la même attention", PALE, 8.6, 0.6)
    for i in range(4):
        _arrow(ax, (4.4 + 1.05 * i, -0.4), (4.4 + 1.05 * i, -0.95))
        ax.text(4.4 + 1.05 * i, -1.2, ["un petit", "carré", "en haut", "à gauche"][i], ha="center", fontsize=9)
    _frame(ax, (-0.7, 8.4), (-1.4, 1.5))
    show(
        fig,
        alt="Une suite : quatre morceaux d'image, puis les mots « début, un petit, carré, en haut ». Les mêmes blocs "
        "lisent tout, et prédisent à chaque mot le suivant.",
    )
