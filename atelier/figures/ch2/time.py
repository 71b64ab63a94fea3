"""Chapitre 2, deuxième partie : des opérations aux secondes, le toit de la machine, les jours, l'énergie, l'argent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

import torch

from atelier.display import note, show, table
from atelier.figures.ch2.tools import flops_text, rate_text
from atelier.figures.common.controls import Slider, explore
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, RED, SERIES, canvas, french
from atelier.hardware import card_name, device
from atelier.text import NBSP, number, percent, plural

ANNOUNCED: dict[str, dict[str, float]] = {
    "T4": {"float32": 8.1, "float16": 65},
    "V100": {"float32": 15.7, "float16": 125},
    "L4": {"float32": 30.3, "TF32": 60, "bfloat16": 121, "float16": 121},
    "A100": {"float32": 19.5, "TF32": 156, "bfloat16": 312, "float16": 312},
    "H100 PCIe": {"float32": 51, "TF32": 378, "bfloat16": 756, "float16": 756},
    "H100 HBM3": {"float32": 67, "TF32": 494, "bfloat16": 989, "float16": 989},
    "H200": {"float32": 67, "TF32": 494, "bfloat16": 989, "float16": 989},
}
"""Pointes annoncées par NVIDIA, en TFLOP/s, sans creux 2:4 : fiches techniques. « V100 » et « H100 HBM3 » : les
versions SXM.

Une clé désigne la carte dont le nom contient tous ses mots.
"""


def spread_ms(seconds: Sequence[float]) -> str:
    """« 10,7 (10,5 à 11,2) » : médiane et quartiles, en millisecondes."""
    if len(seconds) < 2:
        return number(1000 * median(seconds), 3)
    low, _, high = quantiles(seconds, n=4)
    return f"{number(1000 * median(seconds), 3)} ({number(1000 * low, 3)} à {number(1000 * high, 3)})"


def where_measured(threads: int | None = None) -> str:
    """« CPU, 2 fils de calcul », ou le nom de la carte. threads : ceux de torch, sinon."""
    if device().type == "cpu":
        return f"CPU, {plural(threads or torch.get_num_threads(), 'fil de calcul', 'fils de calcul')}"
    return card_name() or device().type.upper()


# --- La pointe --------------------------------------------------------------------------------------------------------

Speeds = Mapping[tuple[str, int], Sequence[float]]
"""(format, côté des matrices) → vitesses, en FLOP/s, une par appel."""


def peak_of(found: Speeds) -> dict[str, float]:
    """La pointe de chaque format : la plus grande des vitesses médianes."""
    names = dict.fromkeys(name for name, _ in found)
    return {name: max(median(v) for (label, _), v in found.items() if label == name) for name in names}


def _announced() -> dict[str, float]:
    """Les pointes annoncées de la carte, en FLOP/s, si on la connaît."""
    words = card_name().replace("-", " ").split()
    known = next((peaks for card, peaks in ANNOUNCED.items() if all(word in words for word in card.split())), {})
    return {label: value * 1e12 for label, value in known.items()}


def plot_speeds(found: Speeds) -> None:
    """La vitesse de produits de plus en plus grands, dans les formats de la machine, et la pointe de chacun."""
    peak, announced = peak_of(found), _announced()
    by_name = {name: {size: median(v) for (label, size), v in found.items() if label == name} for name in peak}
    fig, ax = canvas(8.0, 3.4)
    for (name, by_size), look in zip(by_name.items(), SERIES, strict=False):
        ax.plot(list(by_size), [v / 1e9 for v in by_size.values()], label=name, lw=1.7, **look)
    sizes = sorted({size for _, size in found})
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sizes, [number(n) for n in sizes])
    ax.set_xlabel("côté des matrices (échelle logarithmique)")
    ax.set_ylabel("GFLOP/s (échelle logarithmique)")
    french(ax, x=False)
    ax.legend(frameon=False, fontsize=9)
    told = " ; ".join(
        f"{name} : " + ", ".join(f"{rate_text(v)} pour un côté de {n}" for n, v in by_size.items())
        for name, by_size in by_name.items()
    )
    show(fig, alt=f"Vitesse d'un produit de matrices carrées selon leur côté. {told}.")
    rows = [
        [
            name, rate_text(value),
            rate_text(announced[name]) if name in announced else "—",
            percent(value / announced[name], 3) if name in announced else "—",
        ]
        for name, value in peak.items()
    ]  # fmt: skip
    table(
        rows,
        header=["format", "pointe mesurée", "annoncée par le fabricant", "mesurée / annoncée"],
        caption=f"Le plus rapide de ces produits, par format (médiane des appels ; {where_measured()})",
    )


# --- Un pas d'apprentissage -------------------------------------------------------------------------------------------

PARTS = {"avant": (BLUE, ""), "arrière": (ORANGE, "//"), "optimiseur": (GREEN, "..")}


def step_table(found: Mapping[str, Any]) -> float:
    """Un pas d'apprentissage chronométré, et sa MFU ; rend le rapport passage arrière ÷ passage avant, en secondes.

    found : « utiles » (FLOP d'un pas), « jetons », « durées » (format → un triplet avant, arrière, optimiseur par pas),
    « pointe » (format → FLOP/s).
    """
    rows, ratio = [], math.nan
    for name, steps in found["durées"].items():
        parts = [list(column) for column in zip(*steps, strict=True)]
        whole = [sum(step) for step in steps]
        speed = found["utiles"] / median(whole)
        ratio = median(parts[1]) / median(parts[0])
        rows.append(
            [name, *(spread_ms(p) for p in parts), spread_ms(whole), number(round(found["jetons"] / median(whole))),
             rate_text(speed), percent(speed / found["pointe"][name], 3) if name in found["pointe"] else "—"]
        )  # fmt: skip
    table(
        rows,
        header=["format", *PARTS, "pas", "jetons/s", "vitesse utile", "MFU"],
        caption=f"Millisecondes d'un pas : médiane (quartiles) de {len(steps)} pas ({where_measured()})",
    )
    return ratio


def explain_backward(found: Mapping[str, Mapping[str, float]]) -> None:
    """Pourquoi le passage arrière chronométré n'est pas le double du passage avant.

    found : « avant », « arrière » → « produits », « reste » → secondes.
    """
    ratios = {kind: found["arrière"][kind] / found["avant"][kind] for kind in ("produits", "reste")}
    whole = sum(found["arrière"].values()) / sum(found["avant"].values())
    table(
        [
            [kind, *(number(1000 * found[way][kind], 3, unit="ms") for way in ("avant", "arrière")),
             number(ratios[kind], decimals=2)]
            for kind in ratios
        ] + [["total", *(number(1000 * sum(found[way].values()), 3, unit="ms") for way in ("avant", "arrière")),
              number(whole, decimals=2)]],
        header=["temps passé dans", "avant", "arrière", "arrière / avant"],
        caption="D'après le profileur de torch ; « reste » : softmax, LayerNorm, GELU, perte, copies",
    )  # fmt: skip
    share = percent(found["avant"]["reste"] / sum(found["avant"].values()), 2)
    note(
        f"Ici, les produits prennent en arrière {number(ratios['produits'], 2)} fois leur temps du passage avant ; le "
        f"reste, {share} du passage avant, que l'on n'a pas compté, {number(ratios['reste'], 2)} fois : en tout, "
        f"{number(whole, 2)} fois."
    )


def log_table(found: Mapping[str, float]) -> None:
    """L'apprentissage de Colibri : 6ND contre le compte exact, durée, MFU, énergie à une puissance supposée."""
    seconds, speed, joules = found["secondes"], found["compté"] / found["secondes"], found["watts"] * found["secondes"]
    watts = number(found["watts"], 3, unit="W")
    table(
        [
            ["N, paramètres", number(found["N"])],
            ["D, jetons lus", f"{number(found['D'])} ({number(found['passages'], 3)} passages sur le texte)"],
            ["6ND, votre règle", flops_text(found["6ND"])],
            ["compté (trois fois votre passage avant)", flops_text(found["compté"])],
            ["6ND / compté", number(found["6ND"] / found["compté"], 3)],
            ["durée, deux processus d'un fil", f"{number(round(seconds))} s, soit {number(seconds / 60, 3)} minutes"],
            ["vitesse, opérations comptées", rate_text(speed)],
            ["pointe de cette machine-là, deux fils, bfloat16", rate_text(found["pointe"])],
            ["MFU", percent(speed / found["pointe"], 3)],
            [f"énergie, à {watts} supposés : E = P·t",
             f"{number(joules / 1000, 3, unit='kJ')}, soit {number(joules / 3600, 3, unit='Wh')}"],
            ["opérations par joule", number(found["compté"] / joules / 1e9, 3, unit="milliards")],
        ],
        header=["Colibri, apprentissage retenu", ""],
        caption="assets/colibri/recette.json et journal.csv ; pointe : assets/etude/recette.json",
    )  # fmt: skip


def plot_journal(params: int, journal: Mapping[str, Sequence[float]]) -> None:
    """La perte selon le calcul dépensé, et la vitesse au fil du temps."""
    minutes = [s / 60 for s in journal["secondes"]]
    smooth = _windowed(journal["perte"], 10)
    speed = [
        6 * params * (journal["jetons"][i] - journal["jetons"][i - 6]) / (60 * (minutes[i] - minutes[i - 6])) / 1e9
        for i in range(6, len(minutes))
    ]
    fig, (left, right) = canvas(9.4, 3.2, columns=2)
    left.plot([6 * params * t for t in journal["jetons"]], smooth, color=BLUE, lw=1.6)
    left.set_xscale("log")
    left.set_xlabel("calcul dépensé, 6ND (FLOP, échelle logarithmique)")
    left.set_ylabel("perte (nats par jeton)")
    french(left)
    right.plot(minutes[6:], speed, color=ORANGE, lw=1.3)
    right.set_xlabel("minutes")
    right.set_ylabel("GFLOP/s, selon 6ND")
    right.set_ylim(0)
    french(right)
    show(
        fig,
        alt=f"À gauche, perte de Colibri selon le calcul dépensé : de {number(smooth[0], 3)} à {number(smooth[-1], 3)} "
        f"nats, pour {flops_text(6 * params * journal['jetons'][-1])}. À droite, vitesse au fil du temps : entre "
        f"{number(min(speed), 3)} et {number(max(speed), 3, unit='GFLOP/s')}.",
    )


def _windowed(values: Sequence[float], span: int) -> list[float]:
    """Moyenne des `span` dernières valeurs."""
    return [sum(part := values[max(0, i - span + 1) : i + 1]) / len(part) for i in range(len(values))]


# --- Le toit ----------------------------------------------------------------------------------------------------------


def plot_reading(found: Mapping[int, Sequence[float]]) -> None:
    """Octets lus par seconde selon la taille de ce qu'on lit. found : mégaoctets → débits, un par appel."""
    middle = {size: median(v) / 1e9 for size, v in found.items()}
    fig, ax = canvas(7.0, 2.8)
    ax.plot(list(middle), list(middle.values()), lw=1.7, **SERIES[0])
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(middle), [number(n) for n in middle])
    ax.set_ylim(0)
    french(ax, x=False)
    ax.set_xlabel("taille du tenseur (Mo, échelle logarithmique)")
    ax.set_ylabel("Go lus par seconde")
    told = " ; ".join(f"{number(n, unit='Mo')} : {number(v, 3, unit='Go/s')}" for n, v in middle.items())
    show(fig, alt=f"Débit de lecture selon la taille du tenseur. {told}.")
    last = list(middle)[-1]
    note(
        f"Débit de la mémoire : {number(middle[last], 3, unit='Go/s')} (tenseur de {number(last, unit='Mo')}, médiane "
        f"de {len(found[last])} lectures ; {where_measured()})."
    )


def balance_of(found: Mapping[str, Any]) -> float:
    """Le nombre de jetons que l'on doit traiter ensemble pour que le calcul dure autant que la lecture des poids."""
    return found["pointe"] * found["octets par poids"] / (2 * found["débit"])


def plot_roofline(found: Mapping[str, Any]) -> None:
    """Durée d'un passage selon le nombre de jetons traités ensemble : mesurée, et les deux droites prédites.

    found : « pointe » (FLOP/s), « débit » (octets/s), « octets par poids », « paramètres » ; « mesuré » (jetons →
    durées), « prédit » (jetons → secondes).
    """
    tokens = list(found["mesuré"])
    measured = {n: median(v) for n, v in found["mesuré"].items()}
    reading = found["paramètres"] * found["octets par poids"] / found["débit"]
    compute = [2 * found["paramètres"] * n / found["pointe"] for n in tokens]
    fig, (left, right) = canvas(9.4, 3.6, columns=2)
    left.plot(tokens, [1000 * v for v in measured.values()], "o", color=BLACK, ms=6, label="mesuré (médiane)")
    left.plot(tokens, [1000 * v for v in found["prédit"].values()], color=BLUE, lw=2, label="votre decode_seconds")
    left.axhline(1000 * reading, color=ORANGE, lw=1.3, ls="--", label="lire les poids une fois")
    left.plot(tokens, [1000 * c for c in compute], color=RED, lw=1.3, ls=":", label="calculer")
    right.plot(tokens, [n / v for n, v in measured.items()], "o", color=BLACK, ms=6, label="mesuré (médiane)")
    right.plot(tokens, [n / v for n, v in found["prédit"].items()], color=BLUE, lw=2, label="votre decode_seconds")
    balance = balance_of(found)
    for ax, title in ((left, "millisecondes par passage"), (right, "jetons par seconde")):
        ax.axvline(balance, color=GREEN, lw=1.2, ls="-.", label=f"équilibre : {number(balance, 2)} jetons")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(tokens, [number(n) for n in tokens], fontsize=8)
        french(ax, x=False)
        ax.set_xlabel("jetons traités ensemble (échelle logarithmique)")
        ax.set_ylabel(f"{title} (échelle log.)")
    left.legend(frameon=False, fontsize=8)
    told = " ; ".join(
        f"{plural(n, 'jeton')} : {number(1000 * v, 3)} ms, {number(1000 * found['prédit'][n], 3)} prédits"
        for n, v in measured.items()
    )
    show(
        fig,
        alt=f"Le toit : durée d'un passage dans les matrices d'un GPT-2, et jetons par seconde, selon le nombre de "
        f"jetons traités ensemble. {told}. Équilibre vers {number(balance, 2)} jetons.",
    )
    one, most = tokens[0], tokens[-1]
    note(
        f"Pointe : {rate_text(found['pointe'])} en float32 ; débit : {number(found['débit'] / 1e9, 3, unit='Go/s')} ; "
        f"{number(found['paramètres'] / 1e6, 3)} millions de poids ({where_measured(1)}, médiane de "
        f"{len(found['mesuré'][one])} passages). Traiter {number(most)} jetons ensemble prend "
        f"{number(measured[most] / measured[one], 2)} fois le temps d'un seul : "
        f"{number(most * measured[one] / measured[most], 2)} fois plus de jetons par seconde."
    )
    ratios = {n: measured[n] / found["prédit"][n] for n in tokens}
    worst = max(ratios, key=lambda n: ratios[n])
    note(
        f"Mesuré ÷ prédit : {number(ratios[one], 2)} avec un jeton, {number(ratios[most], 2)} avec {number(most)}, au "
        f"pire {number(ratios[worst], 2)} avec {plural(worst, 'jeton')}."
    )


def cache_table(found: Mapping[str, Any]) -> None:
    """Un pas de décodage avec un vrai cache. found : « mesuré », « prédit » (lot, contexte) → durées, secondes."""
    table(
        [
            [number(batch), number(context), spread_ms(seconds), number(1000 * found["prédit"][batch, context], 3),
             number(median(seconds) / found["prédit"][batch, context], decimals=2)]
            for (batch, context), seconds in found["mesuré"].items()
        ],
        header=["suites à la fois", "contexte, jetons", "mesuré, ms", "prédit, ms", "mesuré / prédit"],
        caption=f"Un pas de décodage aux formes de GPT-2, médiane (quartiles) ({where_measured(1)})",
    )  # fmt: skip


# --- GPT-3 ------------------------------------------------------------------------------------------------------------


def bill_table(found: Mapping[str, Any]) -> None:
    """La facture de GPT-3 : opérations, jours, argent, énergie, et la même chose sur deux petites machines."""
    table(
        [
            ["6ND, N = 175 milliards", flops_text(found["6ND"])],
            ["compté, contexte de 2 048, modèle dense (trois fois votre passage avant)", flops_text(found["compté"])],
            ["publié", "3,14·10²³ FLOP"],
        ],
        header=["GPT-3, 300 milliards de jetons", ""],
        caption="Opérations. Publié : Brown et al., 2020, annexe D, tableau D.1, d'après 6ND",
    )
    hours = found["jours"] * 24 * found["cartes"]
    price, watts = found["dollars l'heure"], found["watts"]
    table(
        [
            [f"durée, {number(found['cartes'])} A100 à {percent(found['mfu'], 3)} de leur pointe",
             number(found["jours"], 3, unit="jours")],
            ["heures de carte", number(round(hours))],
            [f"prix, à {number(price, 3)} dollars l'heure de carte (supposé)",
             f"{number(hours * price / 1e6, 3)} millions de dollars"],
            [f"énergie, à {number(watts)} W par carte et {number(found['salle'], 3)} pour la salle (Touvron et al., "
             "2023, § 6)", number(round(hours * watts * found["salle"] / 1e6), unit="MWh")],
            ["la machine qui a entraîné Colibri, à la vitesse de son journal",
             number(round(found["ans, journal"]), unit="ans")],
            ["la même, si elle tenait sa pointe", number(round(found["ans, pointe"]), unit="ans")],
        ],
        header=["GPT-3, 6ND", ""],
        caption="Temps, argent, énergie",
    )  # fmt: skip


def _bill(found: Mapping[str, Any], cards: int, mfu: float, price: float) -> tuple[Any, str]:
    def days(n: int) -> float:
        return found["jours"] * found["cartes"] / n * found["mfu"] / mfu

    grid = [2**p for p in range(4, 16)]
    values = [days(n) for n in grid]
    duration = days(cards)
    cost = duration * 24 * cards * price
    fig, ax = canvas(8.0, 3.2)
    ax.plot(grid, values, lw=1.8, color=BLUE, label="durée")
    ax.plot([cards], [duration], "o", color=BLACK, ms=8, label="votre choix")
    ax.axhline(365.25, color=ORANGE, ls="--", lw=1.2, label="un an")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(grid[::2], [number(n) for n in grid[::2]])
    french(ax, x=False)
    ax.set_xlabel("nombre d'A100 (échelle logarithmique)")
    ax.set_ylabel("jours (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=9)
    ax.set_title(
        f"{number(cards)} cartes à {percent(mfu, 3)}{NBSP}: {number(duration, 3)} jours, "
        f"{number(cost / 1e6, 3)} millions de dollars, à {number(price, 3)} dollars l'heure",
        fontsize=10,
    )
    alt = (
        f"Durée de l'apprentissage de GPT-3 selon le nombre d'A100, à {percent(mfu, 3)} de leur pointe : "
        f"{number(values[0], 3)} jours avec {grid[0]} cartes, {number(duration, 3)} avec {number(cards)}, "
        f"{number(values[-1], 3)} avec {number(grid[-1])}. Prix : {number(cost / 1e6, 3)} millions de dollars."
    )
    return fig, alt


def bill_explorer(found: Mapping[str, Any]) -> None:
    """La durée et le prix de GPT-3 selon les hypothèses, à partir de la facture ; trois curseurs."""

    def draw(power: int, used: float, dollars: float) -> tuple[Any, str]:
        return _bill(found, 2**power, used, dollars)

    explore(
        draw,
        power=Slider(round(math.log2(found["cartes"])), 4, 15, 1, "cartes : 2 puissance"),
        used=Slider(found["mfu"], 0.1, 0.7, 0.05, "MFU"),
        dollars=Slider(found["dollars l'heure"], 0.5, 10.0, 0.5, "dollars l'heure"),
    )
