"""Chapitre 7, première partie : l'adaptateur dessiné, ses départs, son compte, ses voix échangées et pesées."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atelier.display import note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.ch7.tools import spread_ms
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, SKY, canvas
from atelier.text import byte_size, number, percent

TEXTS = {"a": "A", "b": "B", "bprime": "B′"}
"""Préfixe d'un extrait → la voix."""
Losses = Sequence[float]


# --- Le dessin ------------------------------------------------------------------------------------------------------


def drawing(d_model: int = 192, bottleneck: int = 16) -> None:
    """À gauche, un bloc de GPT-2 et ses deux adaptateurs ; à droite, un adaptateur, à l'échelle de ses largeurs."""
    fig, (left, right) = canvas(10.0, 5.4, columns=2)
    for ax in (left, right):
        ax.set_axis_off()
        ax.set_xlim(0, 10)
    left.set_ylim(0, 12.6)
    right.set_ylim(0, 12.6)
    _block(left)
    _zoom(right, d_model, bottleneck)
    show(
        fig,
        alt="À gauche, un bloc de GPT-2, de bas en haut : le flux résiduel monte ; une première branche, LayerNorm, "
        "attention et sa projection, puis un adaptateur entraîné, rejoint le flux par une addition ; une seconde, "
        "LayerNorm, MLP, puis un adaptateur entraîné, le rejoint plus haut. Tout le reste est gelé. À droite, "
        f"l'adaptateur : {d_model} composantes descendent à {bottleneck} (down), passent par une GELU, remontent à "
        f"{d_model} (up, nulle au départ) et s'ajoutent à l'entrée, qui passe aussi tout droit.",
    )


def _box(ax: Any, x: float, y: float, text: str, frozen: bool, width: float = 3.4) -> None:
    from matplotlib.patches import FancyBboxPatch

    color, hatch = ("#EDEDED", "") if frozen else (ORANGE, "//")
    patch = FancyBboxPatch(
        (x - width / 2, y - 0.42), width, 0.84, boxstyle="round,pad=0.05", facecolor=color, hatch=hatch,
        edgecolor=BLACK, linewidth=1.0 if frozen else 2.0,
    )  # fmt: skip
    ax.add_patch(patch)
    box = {"facecolor": color, "edgecolor": "none", "pad": 1.5}
    ax.text(x, y, text, ha="center", va="center", fontsize=9.5, bbox=box, fontweight="normal" if frozen else "bold")


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float], width: float = 1.2) -> None:
    ax.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": BLACK, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    )


def _block(ax: Any) -> None:
    stream, branch = 1.6, 6.2
    _arrow(ax, (stream, 0.2), (stream, 12.2), 3.0)
    ax.text(stream - 0.35, 1.0, "flux résiduel", rotation=90, ha="right", va="bottom", fontsize=9)
    for base, parts in ((0.9, ("LayerNorm", "attention, projection")), (6.7, ("LayerNorm", "MLP"))):
        ax.plot([stream, branch], [base, base], color=BLACK, linewidth=1.2)
        _arrow(ax, (branch, base), (branch, base + 0.5))
        for i, part in enumerate((*parts, "adaptateur")):
            _box(ax, branch, base + 1.0 + 1.35 * i, part, frozen=i < 2)
            _arrow(ax, (branch, base + 1.47 + 1.35 * i), (branch, base + 1.88 + 1.35 * i))
        top = base + 1.88 + 1.35 * 2
        _arrow(ax, (branch, top), (stream + 0.35, top))
        ax.text(
            stream,
            top,
            "+",
            ha="center",
            va="center",
            fontsize=13,
            bbox={"boxstyle": "circle", "facecolor": "white", "edgecolor": BLACK},
        )
    ax.set_title("Un bloc : gris, gelé ; hachuré, entraîné", fontsize=10)


def _zoom(ax: Any, d_model: int, bottleneck: int) -> None:
    from matplotlib.patches import Polygon

    middle, wide = 6.0, 3.4
    low = max(0.35, wide * bottleneck / d_model)
    down = [(middle - wide / 2, 2.2), (middle + wide / 2, 2.2), (middle + low / 2, 4.8), (middle - low / 2, 4.8)]
    up = [(middle - low / 2, 7.0), (middle + low / 2, 7.0), (middle + wide / 2, 9.6), (middle - wide / 2, 9.6)]
    for points, color, hatch, text, y in (
        (down, SKY, "..", "down\nd → m", 3.1), (up, GREEN, "//", "up\nm → d", 9.0),
    ):  # fmt: skip
        ax.add_patch(Polygon(points, facecolor=color, hatch=hatch, edgecolor=BLACK))
        ax.text(
            middle,
            y,
            text,
            ha="center",
            va="center",
            fontsize=9.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.9},
        )
    _box(ax, middle, 5.9, "GELU", frozen=True, width=1.8)
    _arrow(ax, (middle, 4.8), (middle, 5.42))
    _arrow(ax, (middle, 6.37), (middle, 7.0))
    _arrow(ax, (middle, 0.6), (middle, 2.2), 2.0)
    _arrow(ax, (middle, 9.6), (middle, 11.0), 2.0)
    ax.plot([middle, 1.6, 1.6], [1.2, 1.2, 11.3], color=BLUE, linewidth=2.5)
    _arrow(ax, (1.6, 11.3), (middle - 0.4, 11.3), 2.0)
    ax.text(
        middle,
        11.3,
        "+",
        ha="center",
        va="center",
        fontsize=13,
        bbox={"boxstyle": "circle", "facecolor": "white", "edgecolor": BLACK},
    )
    _arrow(ax, (middle, 11.75), (middle, 12.5), 2.0)
    ax.text(1.4, 6.0, "l'entrée passe tout droit", rotation=90, ha="right", va="center", fontsize=9)
    ax.text(middle + wide / 2 + 0.15, 2.2, f"d = {d_model}", fontsize=9, va="center")
    ax.text(middle + wide / 2 + 0.15, 9.6, f"d = {d_model}", fontsize=9, va="center")
    ax.text(middle + 1.0, 8.2, "nulle au départ", fontsize=9, va="center")
    ax.text(middle + 1.1, 5.9, f"m = {bottleneck}", fontsize=9, va="center")
    ax.set_title("Un adaptateur, à l'échelle", fontsize=10)


# --- Les départs, le compte, le branchement ---------------------------------------------------------------------------


def starts_table(found: Mapping[str, Any]) -> None:
    """Ce que fait chaque départ. found : départ → à chaque pas, (perte, ‖∇down‖, ‖∇up‖) ; et « sans adaptateur »."""
    plain, runs = found["sans adaptateur"], {k: v for k, v in found.items() if k != "sans adaptateur"}
    steps = len(next(iter(runs.values()))) - 1
    table(
        [
            [
                name,
                number(run[0][0], decimals=4),
                *(number(v, 3) for v in run[0][1:]),
                *(number(v, 3) for v in run[-1][1:]),
                number(run[-1][0], decimals=4),
            ]
            for name, run in runs.items()
        ],
        header=[
            "départ",
            "perte au départ",
            "‖∇down‖",
            "‖∇up‖",
            f"‖∇down‖ après {steps} pas",
            f"‖∇up‖ après {steps} pas",
            f"perte après {steps} pas",
        ],
        caption=f"Un adaptateur (m = 16) au milieu de Colibri, sur un même lot de fantasy ; sans lui, la perte vaut "
        f"{number(plain, decimals=4)}",
    )


def counts_table(found: Mapping[tuple[str, int], tuple[int, int, int]]) -> None:
    """Paramètres ajoutés. found : (modèle, goulot) → composantes, paramètres du modèle, paramètres ajoutés."""
    table(
        [
            [model, d, m, added, percent(added / total, 3), number(2 * added / 1e6, 3, unit="Mo")]
            for (model, m), (d, total, added) in found.items()
        ],
        header=["modèle", "d", "goulot m", "paramètres ajoutés (votre formule)", "part du modèle", "par voix, en FP16"],
        caption="Deux adaptateurs par bloc",
    )
    d, total, added = found["BERT-large", 64]
    note(
        f"Pour BERT-large et m = 64, l'article imprime 2,1 % ; votre compte donne {percent(added / total, 3)}. "
        "L'article entraîne aussi les LayerNorm (0,03 %) et la tête ; nous n'expliquons pas le reste."
    )


def start_table(found: Mapping[str, tuple[float, int, str]]) -> None:
    """Brancher, puis apprendre. found : étape → plus grand écart d'un logit, paramètres qui apprennent, empreinte."""
    table(
        [[name, number(gap, 3), learning, digest] for name, (gap, learning, digest) in found.items()],
        header=["", "plus grand écart d'un logit", "paramètres qui apprennent", "empreinte des octets gelés"],
        caption="Colibri, et dix adaptateurs de largeur 16",
    )


# --- Deux voix --------------------------------------------------------------------------------------------------------


def voices_table(found: Mapping[str, Mapping[str, Losses]]) -> None:
    """Un modèle, plusieurs voix. found : voix branchée → texte → perte, part à part."""
    base = found["Colibri"]

    def said(losses: Mapping[str, Losses], text: str) -> list[Any]:
        told = number(perplexity_of(losses[text]), decimals=2)
        return [
            told,
            "—" if losses is base else paired(losses[text], base[text]).as_ratio() if len(base[text]) >= 5 else "—",
        ]

    table(
        [[name, *(cell for text in base for cell in said(losses, text))] for name, losses in found.items()],
        header=["branché", *(h for text in base for h in (f"sur {TEXTS[text]}", "rapport à Colibri [intervalle]"))],
        caption="Perplexité, et rapport à celle de Colibri, apparié part à part",
    )


def told_tables(found: Mapping[str, Any]) -> None:
    """Les textes de chaque voix. found : amorce → voix → (texte, empreinte) ; « échanges » → secondes ; « nombres »."""
    for opening, rows in found.items():
        if opening not in ("échanges", "nombres"):
            table(
                [[name, text.replace("\n", " / "), digest] for name, (text, digest) in rows.items()],
                header=["voix", "texte", "empreinte de la base"],
                caption=f"Amorce : « {opening} » (« / » marque un retour à la ligne)",
            )
    swaps: list[float] = [s for seconds in found["échanges"].values() for s in seconds]
    note(
        f"Changer de voix a pris {spread_ms(swaps)} ms (médiane et quartiles de {number(len(swaps))} échanges) : "
        f"recopier {number(found['nombres'])} nombres, sans recharger la base."
    )


def files_table(found: Mapping[Any, Any]) -> float:
    """Ce que pèse une voix. found : (quoi, type) → octets ; « relue » → bool. Rend le rapport, en FP16."""
    kinds = {"torch.float32": "FP32", "torch.float16": "FP16"}
    sizes = {key: size for key, size in found.items() if key != "relue"}
    table(
        [
            [f"{what}, en {kinds[dtype]}", size, percent(size / found["Colibri", dtype], 3)]
            for (what, dtype), size in sizes.items()
        ],
        header=["fichier safetensors", "octets", "part du fichier de Colibri"],
        caption="Écrits, puis pesés",
    )
    return sizes["Colibri", "torch.float16"] / sizes["une voix", "torch.float16"]


def tasks_table(found: Mapping[int, tuple[int, int]], tasks: int = 100, copies: int = 34 * 10**12) -> None:
    """Cent tâches et une base. found : goulot → octets de la base, octets des cent jeux d'adaptateurs."""
    rows: list[list[Any]] = [["cent copies complètes", byte_size(copies), "—", "—", 1]]
    for m, (base, voices) in found.items():
        ratio = round(copies / (base + voices))
        rows.append([f"une base, adaptateurs de m = {m}", byte_size(base + voices), byte_size(base),
                     byte_size(voices), ratio])  # fmt: skip
    table(
        rows,
        header=["", "en tout", "dont la base", f"dont les {tasks} jeux", "fois moins"],
        caption="170 milliards de paramètres en 16 bits, cent tâches",
    )
