"""Chapitre 2, quatrième partie : la petite étude d'échelle, ses creux, ses lois, et ce qu'elles valent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from atelier.display import note, show, table
from atelier.figures.ch2.tools import flops_text, study_recipe
from atelier.figures.common.style import BLACK, BLUE, RED, SERIES, canvas, french
from atelier.text import interval, long_date, number

Point = Mapping[str, Any]
"""Un apprentissage du journal de l'étude : « params », « tokens », « flops », « loss »…"""


def nominal(points: Sequence[Point]) -> float:
    """Le budget d'une courbe : celui que ses points ont dépensé, à l'arrondi d'un pas près."""
    return median(p["flops"] for p in points)


def interval_of(draws: Sequence[float]) -> tuple[float, float]:
    """Les bornes des 95 % du milieu."""
    ranked = sorted(draws)
    cut = round(0.025 * (len(ranked) - 1))
    return ranked[cut], ranked[-1 - cut]


# --- Les courbes à budget constant ------------------------------------------------------------------------------------


def plot_small_study(found: Mapping[tuple[int, int, int], Mapping[str, float]]) -> str:
    """Perte contre taille, à un seul budget, une croix par graine.

    found : (blocs, d, graine) → « N », « D », « perte ». Rend la taille gagnante, « 1 bloc, d = 8 ».
    """
    sizes = sorted({key[:2] for key in found}, key=lambda size: next(v["N"] for k, v in found.items() if k[:2] == size))
    by_size = {size: [v["perte"] for k, v in found.items() if k[:2] == size] for size in sizes}
    params = {size: next(v["N"] for k, v in found.items() if k[:2] == size) for size in sizes}
    tokens = {size: next(v["D"] for k, v in found.items() if k[:2] == size) for size in sizes}
    fig, ax = canvas(8.0, 3.6)
    means = [mean(by_size[s]) for s in sizes]
    ax.plot([params[s] for s in sizes], means, lw=1.6, label="moyenne des graines", **SERIES[0])
    for i, size in enumerate(sizes):
        label = "une graine" if i == 0 else None
        ax.plot([params[size]] * len(by_size[size]), by_size[size], "x", color=BLACK, ms=6, ls="", label=label)
    ax.set_xscale("log")
    ax.set_xticks([params[s] for s in sizes], [number(params[s]) for s in sizes])
    ax.minorticks_off()
    ax.set_xlabel("N, paramètres, table des jetons comprise (échelle logarithmique)")
    ax.set_ylabel("perte de validation (nats par jeton)")
    french(ax, x=False)
    ax.legend(frameon=False, fontsize=9)
    told = " ; ".join(f"{size_text(s)}, {number(params[s])} paramètres : {number(mean(by_size[s]), 3)}" for s in sizes)
    show(fig, alt=f"Perte selon la taille, à budget constant. {told}.")
    table(
        [
            [size_text(s), params[s], tokens[s], number(tokens[s] / params[s], decimals=1),
             number(mean(by_size[s]), decimals=3), len(by_size[s])]
            for s in sizes
        ],
        header=["taille", "N", "D, jetons lus", "D / N", "perte moyenne", "graines"],
        caption="Le même calcul pour toutes",
    )  # fmt: skip
    winner, _ = min(zip(sizes, means, strict=True), key=lambda pair: pair[1])
    return size_text(winner)


def size_text(size: Sequence[int]) -> str:
    """« 2 blocs, d = 32 »."""
    return f"{size[0]} bloc{'s' if size[0] > 1 else ''}, d = {size[1]}"


def plot_isoflops(curves: Sequence[Sequence[Point]], valleys: Sequence[float | None]) -> None:
    """Perte contre taille, à trois budgets ; cercles : meilleurs points ; pointillés : creux de la parabole."""
    fig, ax = canvas(8.6, 4.2)
    rows, told = [], []
    for points, valley, look in zip(curves, valleys, SERIES, strict=False):
        best, budget = min(points, key=lambda p: p["loss"]), flops_text(nominal(points))
        ax.plot([p["params"] for p in points], [p["loss"] for p in points], lw=1.6, ms=6, label=budget, **look)
        ax.plot([best["params"]], [best["loss"]], "o", mfc="none", mec=BLACK, ms=13, mew=1.4)
        if valley:
            ax.axvline(valley, color=look["color"], lw=1.1, ls=":")
        rows.append(
            [budget, len(points), best["params"], best["tokens"], number(best["tokens"] / best["params"], decimals=1),
             number(best["loss"], decimals=3), number(round(valley, -3)) if valley else "pas de creux"]
        )  # fmt: skip
        told.append(
            f"à {budget} : "
            + ", ".join(f"{number(p['loss'], 3)} pour {number(p['params'])} paramètres" for p in points)
            + (f" ; creux à {number(round(valley, -3))}" if valley else "")
        )  # fmt: skip
    ax.plot([], [], "o", mfc="none", mec=BLACK, ms=11, ls="", label="meilleur point")
    ax.plot([], [], color=BLACK, lw=1.1, ls=":", label="creux de la parabole")
    ax.set_xscale("log")
    ax.set_xlabel("N, paramètres, table des jetons comprise (échelle logarithmique)")
    ax.set_ylabel("perte de validation (nats par jeton)")
    french(ax)
    ax.legend(title="budget", frameon=False, fontsize=9)
    show(
        fig,
        alt="Perte selon la taille, à budget constant ; le meilleur point de chaque budget est cerclé, le creux estimé "
        f"marqué d'un pointillé vertical ; {' ; '.join(told)}.",
    )
    table(
        rows,
        header=["budget", "tailles", "meilleure taille", "jetons lus", "D / N", "perte", "creux estimé"],
        caption="Le meilleur point de chaque budget. Creux : parabole par ce point et ses deux voisins, en log N",
    )
    about = study_recipe()
    note(
        f"Journal de l'auteur, du {long_date(about['date'])}. Texte : {about['recette']['texte']}. Lot : "
        f"{about['recette']['lot']}. Perte : {about['recette']['validation']}. Une graine par point."
    )


# --- Les lois ---------------------------------------------------------------------------------------------------------


def plot_power_law(found: Mapping[str, Any], curves: Sequence[Sequence[Point]]) -> None:
    """La loi, ajustée sans puis avec le plus grand budget, et ce qu'elle dit des points qu'elle n'a pas vus.

    found : « sans », « avec » → (a, b) ; « points » : nom → « C », « perte », « prédite ».
    """
    fig, ax = canvas(8.4, 4.0)
    points = found["points"]
    reach = [min(p["C"] for p in points.values()) / 2, 2 * max(p["C"] for p in points.values())]
    line = [reach[0] * (reach[1] / reach[0]) ** (i / 50) for i in range(51)]
    for law, label, look in (
        ("sans", "loi ajustée sur deux budgets", {"color": BLUE, "ls": ":", "lw": 2.4}),
        ("avec", "loi ajustée sur trois budgets", {"color": RED, "ls": "-", "lw": 1.4}),
    ):
        a, b = found[law]
        ax.plot(line, [a * c**-b for c in line], label=label, **look)
    for curve, style in zip(curves, SERIES, strict=False):
        plain: dict[str, Any] = style | {"linestyle": ""}
        ax.plot([p["flops"] for p in curve], [p["loss"] for p in curve], alpha=0.35, ms=5, **plain)
    bests = [p for name, p in points.items() if name.startswith("meilleur")]
    ax.plot(
        [p["C"] for p in bests], [p["perte"] for p in bests], "o", color=BLACK, ms=7, label="meilleur de chaque budget"
    )
    far = points["Colibri, autre recette"]
    ax.plot([far["C"]], [far["perte"]], "*", mfc="white", mec=BLACK, ms=12, ls="", label="Colibri, autre recette")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_yticks([2, 3, 4, 5, 6, 7])
    ax.set_xlabel("C, opérations comptées (échelle logarithmique)")
    ax.set_ylabel("perte (nats par jeton, échelle logarithmique)")
    french(ax, x=False)
    ax.legend(frameon=False, fontsize=8.5, loc="lower left")
    a, b = found["avec"]
    law = f"perte ≈ {number(a, 3)}·C^(−{number(b, 2)})"
    told = " ; ".join(
        f"{n} : {number(p['perte'], 3)} mesuré, {number(p['prédite'], 3)} par la loi" for n, p in points.items()
    )
    show(fig, alt=f"Perte selon le calcul, axes logarithmiques, et la droite {law}. {told}.")
    table(
        [
            [name, flops_text(p["C"]), number(p["perte"], decimals=3), number(p["prédite"], decimals=3),
             number(p["perte"] - p["prédite"], decimals=3, signed=True)]
            for name, p in points.items()
        ],
        header=["point", "C", "perte mesurée", "selon votre loi", "mesurée − loi"],
        caption=f"{law} sur trois budgets. Pour le point tenu à l'écart, la loi n'a vu que les deux autres",
    )  # fmt: skip
    note(
        f"Kaplan et al. (2020, équation 1.3) trouvent un exposant de 0,050, sur des modèles et des budgets bien plus "
        f"grands ; ici, {number(b, 2)}."
    )


PUBLISHED = {"tous les paramètres": "Hoffmann et al. : 0,46 à 0,50", "hors table et positions": "Kaplan et al. : 0,73"}


def plot_exponents(found: Mapping[str, Mapping[str, Any]]) -> None:
    """L'exposant de la taille du creux, selon ce que l'on compte dans N, et son intervalle.

    found : convention → « exposant », « tirages » (None : un budget n'avait plus de creux).
    """
    fig, ax = canvas(8.0, 2.6)
    rows, told = [], []
    for i, ((name, row), look) in enumerate(zip(found.items(), SERIES, strict=False)):
        kept = [v for v in row["tirages"] if v is not None]
        low, high = interval_of(kept)
        ax.plot([low, high], [i, i], color=look["color"], lw=3, solid_capstyle="butt")
        ax.plot([row["exposant"]], [i], marker=look["marker"], color=look["color"], ms=9, mec=BLACK, ls="")
        rows.append(
            [name, number(row["exposant"], decimals=2), interval(round(low, 2), round(high, 2)),
             f"{number(len(row['tirages']) - len(kept))} sur {number(len(row['tirages']))}", PUBLISHED[name]]
        )  # fmt: skip
        told.append(
            f"{name} : {number(row['exposant'], decimals=2)}, de {number(low, decimals=2)} à {number(high, decimals=2)}"
        )
    for value, label, style in ((0.50, "Hoffmann (N total)", ":"), (0.73, "Kaplan (N hors table)", "--")):
        ax.axvline(value, color=BLACK, lw=1.1, ls=style, label=label)
    ax.set_yticks(range(len(found)), list(found))
    ax.set_ylim(-0.6, len(found) - 0.4)
    ax.set_xlabel("exposant e de : taille du creux ∝ C puissance e")
    french(ax, y=False)
    ax.legend(frameon=False, fontsize=8.5, loc="upper right")
    show(fig, alt=f"Exposant de la taille du creux et intervalle à 95 %, selon ce que N compte. {' ; '.join(told)}.")
    table(
        rows,
        header=["N compte", "exposant", "intervalle à 95 %", "tirages sans creux", "publié, même N"],
        caption="Les mêmes apprentissages, la même parabole ; chaque perte retirée au sort avec l'écart entre graines",
    )


def law_table(found: Mapping[str, Any]) -> None:
    """La loi de Chinchilla ajustée sur l'étude. found : « loi » (nom → valeur), « tirages » (nom → valeurs)."""
    rows = []
    for name, value in found["loi"].items():
        low, high = interval_of(found["tirages"][name])
        rows.append([name, number(value, decimals=2), interval(round(low, 2), round(high, 2)), PUBLISHED_LAW[name]])
    table(
        rows,
        header=["constante", "sur notre étude", "intervalle à 95 %", "Besiroglu et al., 2024"],
        caption="La loi L(N, D) = E + A/N^α + B/D^β, ajustée sur dix-sept apprentissages ; les points retirés au sort",
    )


PUBLISHED_LAW = {"E": "1,82", "α": "0,348", "β": "0,366", "exposant de N": "0,513"}
"""Besiroglu et al., 2024 ; exposant de N : β / (α + β)."""
