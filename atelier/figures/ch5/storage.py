"""Chapitre 5, deuxième partie : ce que des zéros font gagner, en octets et en secondes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from atelier.display import note, show, table
from atelier.figures.ch5.importance import log_axis
from atelier.figures.ch5.tools import has_two_four
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.hardware import card_name
from atelier.text import number, percent, plural

TIMED = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Parts de zéros des produits chronométrés."""
DENSE, FORMULA = "dense, avec ses zéros", "votre formule"
Seconds = Mapping[str, Sequence[float]]
"""Ce que l'on chronomètre → ses durées, en secondes, tour après tour."""


def spread_ms(seconds: Sequence[float]) -> str:
    """« 12,3 [12,1 ; 12,9] » : la médiane et les quartiles, en millisecondes."""
    low, middle, high = quantiles(seconds, n=4, method="inclusive")
    decimals = 1 if middle > 0.01 else 2 if middle > 0.001 else 3
    told = [number(1000 * v, decimals=decimals) for v in (middle, low, high)]
    return f"{told[0]} [{told[1]} ; {told[2]}]"


def faster(run: Sequence[float], than: Sequence[float]) -> str:
    """« 1,21 fois plus vite [1,18 ; 1,25] » : le rapport des durées, tour par tour, médiane et quartiles.

    Quand les quartiles encadrent 1, on ne peut pas les départager.
    """
    low, middle, high = quantiles([b / a for a, b in zip(run, than, strict=True)], n=4, method="inclusive")
    if low <= 1 <= high:
        return "pas départagés"
    if middle < 1:
        low, middle, high = 1 / high, 1 / middle, 1 / low
        word = "moins vite"
    else:
        word = "plus vite"
    told = [number(v, decimals=2) for v in (middle, low, high)]
    return f"{told[0]} fois {word} [{told[1]} ; {told[2]}]"


# --- La place ---------------------------------------------------------------------------------------------------------


def plot_formats(found: Mapping[str, Any]) -> None:
    """Octets de chaque format contre la part retirée. found : « poids », et « octets » (part → format → octets)."""
    sizes: Mapping[float, Mapping[str, int]] = found["octets"]
    amounts = list(sizes)
    dense = sizes[amounts[0]][DENSE]
    drawn = [name for name in sizes[amounts[0]] if name not in (DENSE, FORMULA)]
    fig, ax = canvas(8.8, 4.2)
    for name, look in zip(drawn, SERIES, strict=False):
        ax.plot([100 * a for a in amounts], [sizes[a][name] / dense for a in amounts], label=name, lw=1.5, ms=5, **look)
    ax.axhline(1, color=BLACK, lw=1.2)
    ax.text(12, 1.05, DENSE, fontsize=9)
    predicted = [sizes[a][FORMULA] / dense for a in amounts]
    ax.plot([100 * a for a in amounts], predicted, "x", color=BLACK, ms=8, label=FORMULA)
    ax.set_ylim(0, 3.2)
    ax.set_xlabel("part des poids retirés (%)")
    ax.set_ylabel("octets / fichier dense en FP16")
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    french(ax)
    pays = {name: crossing([(a, s[name] / dense) for a, s in sizes.items()]) for name in drawn}
    show(
        fig,
        alt="Octets de chaque format, rapportés au fichier dense, contre la part retirée. À 50 % : "
        + ", ".join(f"{n} {number(sizes[0.5][n] / dense, 3)}" for n in drawn)
        + ". Part à partir de laquelle chacun est plus petit que le dense : "
        + ", ".join(f"{n} {_told(p)}" for n, p in pays.items())
        + ".",
    )
    table(
        [[n, _told(pays[n]), sizes[0.5][n], sizes[0.9][n], percent(sizes[0.9][n] / dense)] for n in drawn],
        header=["format", "plus petit que le dense dès", "octets à 50 %", "octets à 90 %", "part du dense, à 90 %"],
        caption=f"Une couche de {number(found['poids'])} poids ; dense en FP16 : {number(dense)} octets",
    )
    listed = "liste (indice de 32 bits)"
    worst = max(abs(sizes[a][FORMULA] / sizes[a][listed] - 1) for a in amounts if a < 0.9)
    note(f"Votre formule et le fichier de la liste diffèrent de {percent(worst)} au plus (l'en-tête du fichier).")


def crossing(points: Sequence[tuple[float, float]]) -> float | None:
    """Abscisse à partir de laquelle la courbe reste sous 1, par interpolation ; None si elle n'y descend pas."""
    for (a, u), (b, v) in zip(reversed(points[:-1]), reversed(points[1:]), strict=True):
        if u > 1 >= v:
            return a + (u - 1) / (u - v) * (b - a)
    return 0.0 if points[-1][1] <= 1 else None


def _told(share: float | None) -> str:
    return "jamais ici" if share is None else percent(round(share, 3)) if share else "toujours"


# --- Le temps d'un produit --------------------------------------------------------------------------------------------


def break_even(found: Mapping[tuple[int, float], Seconds], tokens: int) -> float:
    """La part de zéros à partir de laquelle le produit CSR l'emporte (1 s'il ne l'emporte jamais)."""
    ratios = [(a, median(s["CSR"]) / median(s["dense"])) for (n, a), s in found.items() if n == tokens]
    share = crossing(ratios)
    return 1.0 if share is None else share


def plot_products(found: Mapping[tuple[int, float], Seconds]) -> None:
    """Durée d'un produit contre la part de zéros. found : (jetons, part de zéros) → « dense », « CSR » → durées."""
    counts = list(dict.fromkeys(n for n, _ in found))
    fig, axes = canvas(9, 3.8, columns=len(counts), squeeze=False)
    told, summary = [], []
    for ax, n in zip(axes[0], counts, strict=True):
        points = {a: s for (m, a), s in found.items() if m == n}
        xs = list(range(len(points)))
        for way, look in (("dense", SERIES[0]), ("CSR", SERIES[1])):
            low, middle, high = zip(
                *(quantiles([1000 * v for v in s[way]], n=4, method="inclusive") for s in points.values()), strict=True
            )
            ax.plot(xs, middle, label="dense, zéros compris" if way == "dense" else way, lw=1.5, **look)
            ax.fill_between(xs, low, high, color=look["color"], alpha=0.2)
        every = [1000 * median(s[way]) for s in points.values() for way in s]
        log_axis(ax, min(every), max(every))
        ax.set_xticks(xs, [number(100 * a) for a in points], fontsize=9)
        ax.set_title(plural(n, "jeton"), fontsize=10.5)
        ax.set_xlabel("part de zéros (%)")
        share = break_even(found, n)
        when = (
            "CSR ne gagne à aucune des parts mesurées"
            if share == 1
            else f"CSR gagne dès {percent(min(points))}"
            if share == 0
            else f"CSR gagne à partir de {percent(round(share, 3))} de zéros environ"
        )
        summary.append(f"{plural(n, 'jeton')} : {when}")
        told += [
            f"{plural(n, 'jeton')}, {percent(a)} de zéros : dense {spread_ms(s['dense'])} ms, CSR "
            f"{spread_ms(s['CSR'])} ms"
            for a, s in points.items()
        ]
    axes[0][0].set_ylabel("ms par produit (échelle logarithmique)")
    axes[0][-1].legend(frameon=False, fontsize=9)
    show(fig, alt="Temps d'un produit contre la part de zéros. " + " ; ".join(told) + ".")
    note(" ; ".join(summary) + ". Médianes de produits chronométrés tour à tour ; la bande va d'un quartile à l'autre.")


def two_four_table(measure: Callable[[], Seconds]) -> None:
    """Les durées d'une couche dense et de la même au motif 2:4, si la carte a les noyaux ; sinon, dit pourquoi."""
    if not has_two_four():
        note(
            "Pas de cœurs 2:4 sur cette machine : il faut une carte NVIDIA Ampere (2020) ou plus récente. Rien n'est "
            "chronométré."
        )
        return
    try:
        found = measure()
    except (RuntimeError, NotImplementedError) as error:  # torch sans cuSPARSELt (Windows), noyau absent de cette carte
        note(f"{card_name()} a des cœurs 2:4, mais ce torch n'a pas leurs noyaux : {str(error).splitlines()[0][:100]}")
        return
    table(
        [[way, spread_ms(seconds)] for way, seconds in found.items()],
        header=["couche", "ms : médiane [quartiles]"],
        caption=f"{card_name()}, FP16",
    )
    note(f"Le noyau 2:4 va {number(median(found['dense']) / median(found['2:4']), 3)} fois aussi vite que le dense.")


# --- Le temps d'un modèle ---------------------------------------------------------------------------------------------


def times_table(found: Mapping[str, Seconds]) -> None:
    """Durée d'une fenêtre de chaque version, chronométrées tour à tour ; la phrase vient des durées."""
    for shape, versions in found.items():
        whole = versions["entier"]
        table(
            [[name, spread_ms(s), "—" if name == "entier" else faster(s, whole)] for name, s in versions.items()],
            header=["version", "ms par fenêtre : médiane [quartiles]", "face au modèle entier [quartiles]"],
            caption=f"{shape} : {plural(len(whole), 'tour')}",
        )


def step_costs_note(found: Seconds) -> None:
    """Ce que coûte un pas à étiquettes douces, en pas à étiquettes dures : prévu, et mesuré."""
    low, middle, high = quantiles(
        [soft / hard for soft, hard in zip(found["douces"], found["dures"], strict=True)], n=4, method="inclusive"
    )
    told = [number(v, decimals=2) for v in (middle, low, high)]
    note(
        f"Un pas à étiquettes douces dure {told[0]} fois un pas à étiquettes dures (quartiles : {told[1]} et "
        f"{told[2]}) ; les produits de matrices en prévoyaient {number(4 / 3, decimals=2)}. Le reste est "
        "la divergence elle-même, et ce que le compte des produits ne voit pas."
    )
