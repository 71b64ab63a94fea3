"""Chapitre 7, quatrième partie : ce que coûtent un pas d'adaptateurs, puis leur usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from atelier.display import note, show, table
from atelier.figures.ch7.tools import ratios, spread_ms
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, SKY, canvas, french
from atelier.hardware import card_name
from atelier.text import number, percent, plural

FULL, EVERYWHERE, TOP = "tous les poids", "adaptateurs partout", "adaptateurs en haut"
PARTS = {"passage avant": (BLUE, ""), "passage arrière": (ORANGE, "//"), "optimiseur": (GREEN, "..")}
Steps = Mapping[tuple[str, int], Mapping[str, Sequence[tuple[float, float, float]]]]
"""(modèle, fenêtres du lot) → façon → à chaque tour, secondes des trois morceaux d'un pas."""


# --- Les trois produits d'une couche --------------------------------------------------------------------------------


def three_products() -> None:
    """Les trois produits d'une couche : ceux qu'elle calcule, selon ce qui apprend et où."""
    from matplotlib.patches import Rectangle

    kinds = [
        ("poids entraîné", (True, True, True)),
        ("poids gelé, au-dessus\ndu premier adaptateur", (True, True, False)),
        ("poids gelé, au-dessous\ndu premier adaptateur", (True, False, False)),
    ]
    names = ("Y = X·W\n(passage avant)", "G·Wᵀ\n(gradient de X)", "Xᵀ·G\n(gradient de W)")
    fig, ax = canvas(8.4, 2.9)
    ax.set_axis_off()
    ax.set_xlim(0, 10.4)
    ax.set_ylim(0, 4.3)
    for j, name in enumerate(names):
        ax.text(4.1 + 2.0 * j, 3.9, name, ha="center", va="center", fontsize=9.5)
    ax.text(9.7, 3.9, "FLOP par poids\net par jeton", ha="center", va="center", fontsize=9.5)
    for i, (kind, done) in enumerate(kinds):
        y = 2.75 - 1.15 * i
        ax.text(2.9, y, kind, ha="right", va="center", fontsize=9.5)
        for j, yes in enumerate(done):
            color, hatch = ((BLUE, SKY, ORANGE)[j], ("", "..", "//")[j]) if yes else ("white", "")
            cell: dict[str, Any] = {
                "facecolor": color,
                "hatch": hatch,
                "edgecolor": BLACK,
                "linestyle": "-" if yes else ":",
            }
            ax.add_patch(Rectangle((3.3 + 2.0 * j, y - 0.4), 1.6, 0.8, **cell))
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.9}
            ax.text(4.1 + 2.0 * j, y, "2" if yes else "0", ha="center", va="center", fontsize=11, bbox=box)
        ax.text(9.7, y, str(2 * sum(done)), ha="center", va="center", fontsize=13, fontweight="bold")
    show(
        fig,
        alt="Trois lignes. Poids entraîné : passage avant 2, gradient de l'entrée 2, gradient du poids 2, en tout 6 "
        "opérations par poids et par jeton. Poids gelé au-dessus du premier adaptateur : 2, 2 et 0, en tout 4. Poids "
        "gelé au-dessous : 2, 0 et 0, en tout 2.",
    )


# --- Compter ----------------------------------------------------------------------------------------------------------


def counted_table(found: Mapping[tuple[str, str], Sequence[int]]) -> None:
    """Opérations d'un pas. found : (modèle, façon) → avant, arrière, votre formule, attention, N, jetons."""
    rows = []
    for (shape, name), (forward, backward, yours, attention, n, tokens) in found.items():
        full = found[shape, FULL]
        rows.append(
            [
                f"{shape}, {name}",
                number(forward / n / tokens, decimals=2),
                number(backward / n / tokens, decimals=2),
                number((forward + backward) / 1e9, 4),
                number(yours / 1e9, 4),
                number(attention / 1e9, 3),
                percent((yours + attention) / (forward + backward) - 1, decimals=1, signed=True),
                number((full[0] + full[1]) / (forward + backward), decimals=2, before="÷"),
            ]
        )
    table(
        rows,
        header=[
            "ce qui apprend",
            "avant ÷ N·D",
            "arrière ÷ N·D",
            "GFLOP comptés",
            "votre formule",
            "attention (à part)",
            "écart des deux réunies",
            "gain compté",
        ],
        caption="Un pas de 1 × 128 jetons, compté par torch, tête de sortie comprise ; N : tous les paramètres sauf la "
        "table des positions, adaptateurs compris ; GPT-2 small : poids tirés au hasard",
    )


def overheads_table(found: Mapping[tuple[str, int, int], tuple[float, float | None]]) -> None:
    """Surcoût d'un passage avant. found : (modèle, goulot, contexte) → votre formule, compté par torch."""
    table(
        [
            [shape, m, context, percent(yours, decimals=2), "—" if seen is None else percent(seen, decimals=2)]
            for (shape, m, context), (yours, seen) in found.items()
        ],
        header=["modèle", "goulot m", "contexte", "surcoût d'un bloc (votre formule)", "compté par torch"],
        caption="Opérations ajoutées par deux adaptateurs, rapportées à celles du bloc",
    )


# --- La mémoire -------------------------------------------------------------------------------------------------------


def memory_table(found: Mapping[tuple[str, str], Sequence[int]]) -> None:
    """Octets d'un pas. found : (modèle, façon) → poids, gradients, moments, votre formule, pic au-dessus des poids."""
    rows: list[list[Any]] = []
    for (shape, name), (weights, gradients, moments, yours, peak) in found.items():
        each = (weights, gradients, peak - gradients, weights + peak + moments)
        rows.append([f"{shape}, {name}", yours, moments, *(number(v / 1e6, 4, unit="Mo") for v in each)])
    batches = {"Colibri": "8 × 128 jetons", "GPT-2 small": "1 × 128 jetons, poids tirés au hasard"}
    table(
        rows,
        header=[
            "ce qui apprend",
            "moments, votre formule (octets)",
            "moments, mesurés (octets)",
            "poids",
            "gradients",
            "activations et calculs",
            "total au plus fort",
        ],
        caption="Un pas en FP32. "
        + " ; ".join(f"{s} : {b}" for s, b in batches.items() if any(s == k[0] for k in found)),
    )


# --- Le temps ---------------------------------------------------------------------------------------------------------


def _both(parts: Sequence[tuple[float, float, float]]) -> list[float]:
    return [forward + backward for forward, backward, _ in parts]


def _gain(of: Sequence[float], to: Sequence[float]) -> str:
    low, middle, high = (number(v, decimals=2) for v in ratios(of, to))
    return f"{middle} [{low} ; {high}]"


def _said(of: Sequence[float], to: Sequence[float]) -> str:
    """« 1,42 fois plus court [1,40 ; 1,45] », ou que l'on ne peut pas trancher, d'après les quartiles du rapport."""
    low, middle, high = ratios(of, to)
    if low <= 1 <= high:
        return "ne se départage pas du pas complet (les quartiles du rapport encadrent 1)"
    if middle < 1:
        low, middle, high = 1 / high, 1 / middle, 1 / low
    word = "plus court" if median(of) > median(to) else "plus long"
    return (
        f"est {number(middle, decimals=2)} fois {word} [{number(low, decimals=2)} ; {number(high, decimals=2)}] "
        "que le pas complet"
    )


def step_times_table(found: Steps, where: str, counted: Mapping[tuple[str, str], Sequence[int]]) -> None:
    """Un pas en morceaux, sans l'optimiseur d'abord ; la phrase vient des durées. counted : voir `counted_table`."""
    for (shape, batch), ways in found.items():
        full = ways[FULL]
        rows = []
        for name, parts in ways.items():
            flops = [sum(counted[shape, key][:2]) for key in (FULL, name)] if (shape, FULL) in counted else None
            own = name == FULL
            rows.append(
                [
                    name,
                    spread_ms(_both(parts)),
                    "—" if own else _gain(_both(full), _both(parts)),
                    "—" if flops is None or own else number(flops[0] / flops[1], decimals=2),
                    spread_ms([last for *_, last in parts]),
                    spread_ms([sum(p) for p in parts]),
                    "—" if own else _gain([sum(p) for p in full], [sum(p) for p in parts]),
                ]
            )
        turns = plural(len(full), "tour")
        table(
            rows,
            header=[
                "ce qui apprend",
                "avant + arrière (ms)",
                "gain",
                "gain compté",
                "optimiseur, fusionné (ms)",
                "pas entier (ms)",
                "gain",
            ],
            caption=f"{where}. {shape}, {plural(batch, 'fenêtre')} de 128 jetons, FP32 : {turns}, médiane et quartiles",
        )
        both = _said(_both(full), _both(ways[EVERYWHERE]))
        whole = _said([sum(p) for p in full], [sum(p) for p in ways[EVERYWHERE]])
        note(
            f"{shape}, {plural(batch, 'fenêtre')} : sans l'optimiseur, un pas d'adaptateurs partout {both} ; "
            f"optimiseur compris, il {whole}."
        )
    if card_name():
        note(f"Ces durées sont celles de la carte {card_name()}.")


def plot_step_times(found: Steps) -> None:
    """Barres empilées des médianes : passage avant, passage arrière, optimiseur."""
    fig, axes = canvas(9.4, 1.0 + 1.75 * ((len(found) + 1) // 2), rows=(len(found) + 1) // 2, columns=2, squeeze=False)
    told = []
    for ax, ((shape, batch), ways) in zip(axes.flat, found.items(), strict=False):
        left = [0.0] * len(ways)
        for i, (part, (color, hatch)) in enumerate(PARTS.items()):
            values = [1000 * median([p[i] for p in parts]) for parts in ways.values()]
            ax.barh(range(len(ways)), values, left=left, color=color, hatch=hatch, edgecolor="white", label=part)
            left = [a + b for a, b in zip(left, values, strict=True)]
        ax.set_yticks(range(len(ways)), list(ways), fontsize=9)
        ax.invert_yaxis()
        ax.set_title(f"{shape}, {plural(batch, 'fenêtre')}", fontsize=10)
        ax.set_xlabel("ms par pas (médianes)")
        french(ax, y=False)
        told += [f"{shape}, {plural(batch, 'fenêtre')}, {name} : {number(v, 3, unit='ms')}"
                 for name, v in zip(ways, left, strict=True)]  # fmt: skip
    for ax in list(axes.flat)[len(found) :]:
        ax.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    fig.legend(handles, labels, ncols=3, frameon=False, fontsize=9, loc="outside lower center")
    show(fig, alt=f"Barres empilées, passage avant, passage arrière et optimiseur d'un pas. {' ; '.join(told)}.")


def faster_verdict(found: Steps) -> str:
    """Le verdict du pari, d'après le plus grand lot chronométré, optimiseur compris."""
    ways = found[max(found, key=lambda case: (case[0] == "Colibri", case[1]))]
    low, middle, high = ratios(*([sum(p) for p in ways[name]] for name in (FULL, EVERYWHERE)))
    if low <= 1 <= high or 0.9 < middle < 1.1:
        return "aussi lent"
    return (
        "plus lent" if middle < 1 else "une fois et demie plus rapide" if middle < 10 else "cinquante fois plus rapide"
    )


def adams_table(found: Mapping[str, Mapping[str, Sequence[float]]], steps: Steps) -> None:
    """Deux boucles d'AdamW. found : modèle → boucle → secondes ; steps : les pas, pour dire ce qu'on en croirait."""
    table(
        [
            [
                shape,
                spread_ms(loops["d'office"]),
                spread_ms(loops["fusionnée"]),
                _gain(loops["d'office"], loops["fusionnée"]),
            ]
            for shape, loops in found.items()
        ],
        header=["modèle", "boucle d'office (ms)", "boucle fusionnée (ms)", "rapport [quartiles]"],
        caption="Une mise à jour d'AdamW, tous les poids : médiane [quartiles]",
    )
    for (shape, batch), ways in steps.items():
        if batch == 1 and shape in found:
            bare, own = (median(_both(ways[name])) for name in (FULL, EVERYWHERE))
            ends = {how: median(seconds) for how, seconds in found[shape].items()}
            small = median([last for *_, last in ways[EVERYWHERE]])
            told = [number(v, decimals=2) for v in (
                (bare + ends["d'office"]) / (own + small), (bare + ends["fusionnée"]) / (own + small), bare / own
            )]  # fmt: skip
            note(
                f"{shape}, une fenêtre : avec la boucle d'office, le pas complet paraît {told[0]} fois plus long que "
                f"celui d'adaptateurs ; avec la boucle fusionnée, {told[1]} fois ; sans optimiseur, {told[2]} fois."
            )


def serving_table(found: Mapping[tuple[str, str], Mapping[str, Any]], where: str) -> None:
    """À l'usage. found : (modèle, quoi) → « secondes » (version → durées), « opérations » (version → compte)."""
    rows, unseen, seen = [], [], []
    for (shape, what), both in found.items():
        plain, count = both["secondes"]["sans adaptateur"], both["opérations"]["sans adaptateur"]
        for name, seconds in both["secondes"].items():
            if name == "sans adaptateur":
                rows.append([f"{shape}, {what}, {name}", spread_ms(seconds), "—", "—"])
                continue
            low, middle, high = (v - 1 for v in ratios(seconds, plain))
            extra = both["opérations"][name] / count - 1
            told = [percent(v, decimals=1, signed=True) for v in (middle, low, high)]
            rows.append([f"{shape}, {what}, {name}", spread_ms(seconds), f"{told[0]} [{told[1]} ; {told[2]}]",
                         percent(extra, decimals=1, signed=True)])  # fmt: skip
            if low <= 0 <= high:
                unseen.append(f"{shape}, {what}, {name}")
            else:
                where_it_is = "au-dessus de" if low > extra else "au-dessous de" if high < extra else "autour de"
                seen.append(f"{shape}, {what}, {name} : {told[0]}, {where_it_is} ce que l'on compte ({rows[-1][-1]})")
    table(
        rows,
        header=["", "ms : médiane [quartiles]", "surcoût mesuré [quartiles]", "surcoût compté, tête comprise"],
        caption=f"{where}. Une phrase à la fois, FP32 : un jeton de plus (cache K/V), ou une fenêtre de 128 jetons",
    )
    if seen:
        note(" ; ".join(seen) + ".")
    if unseen:
        note(f"On ne peut pas le voir ici, les quartiles encadrent zéro : {' ; '.join(unseen)}.")
