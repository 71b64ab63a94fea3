"""Chapitre 3, quatrième partie : GPTQ, avec deux poids, couche par couche, puis à côté des tableaux de l'article."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from atelier.display import note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.ch3.models import Sweep
from atelier.figures.common.layers import KINDS
from atelier.figures.common.style import BLACK, BLUE, ORANGE, RED, canvas, french
from atelier.text import number, percent, power_of_ten, read_number

# --- L'idée, avec deux poids --------------------------------------------------------------------------------------


def plot_two_weights(found: Mapping[str, Any]) -> None:
    """L'erreur autour de deux poids d'une ligne : le point le plus proche n'est pas celui qui se trompe le moins.

    found : « entrées » (i, j), leur « corrélation », leur « hessienne » (2, 2) ; et pour chaque ligne de la matrice, en
    pas, les « poids » (n, 2), leurs arrondis « près » et « rattrapé », où va le second « déplacé » (n,) ; « erreurs ».
    La ligne dessinée est celle dont l'erreur est le plus divisée ; la note dit ce qu'il en est des autres.
    """
    near_error, chosen_error = found["erreurs"]["près"], found["erreurs"]["rattrapé"]
    gains = near_error / chosen_error.clamp(min=1e-9)
    differs = (found["près"] != found["rattrapé"]).any(1)
    row = int((gains * differs).argmax())
    (i, j), h, moved = found["entrées"], found["hessienne"], found["déplacé"][row].item()
    w0, a, b = (found[name][row] for name in ("poids", "près", "rattrapé"))

    fig, ax = canvas(6.4, 3.9)
    span = torch.linspace(-1.75, 1.75, 161, dtype=torch.float64)
    gx, gy = torch.meshgrid(w0[0] + span, w0[1] + span, indexing="xy")
    d = torch.stack([gx - w0[0], gy - w0[1]], -1)
    error = torch.einsum("xya,ab,xyb->xy", d, h, d)
    ax.contourf(gx, gy, error.sqrt(), levels=14, cmap="Blues_r", alpha=0.8)
    xs = range(math.ceil(gx.min()), math.floor(gx.max()) + 1)
    ys = range(math.ceil(gy.min()), math.floor(gy.max()) + 1)
    ax.plot(
        [u for u in xs for _ in ys], [v for _ in xs for v in ys], ".", color=BLACK, ms=5, label="points de la grille"
    )
    ax.plot(*w0.tolist(), "*", color="white", mec=BLACK, ms=15, label="les deux poids")
    ax.plot(*a.tolist(), "s", color=RED, ms=10, label="chacun au plus proche")
    ax.plot(*b.tolist(), "o", color=ORANGE, mec=BLACK, ms=11, label="le second compense le premier")
    arrow = {"arrowstyle": "->", "lw": 1.6}
    ax.annotate("", (a[0].item(), w0[1].item()), w0.tolist(), arrowprops=arrow)
    ax.annotate("", (a[0].item(), moved), (a[0].item(), w0[1].item()), arrowprops={**arrow, "linestyle": "--"})
    ax.set_xlabel(f"poids de l'entrée {i} (en pas)")
    ax.set_ylabel(f"poids de l'entrée {j} (en pas)")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    ax.grid(False)
    french(ax)
    link, best = number(found["corrélation"], 3), number(gains[row].item(), 3)
    show(
        fig,
        alt=f"Carte de l'erreur autour de deux poids : une vallée en biais, car les entrées {i} et {j} ont une "
        f"corrélation de {link}. Le point de la grille le plus proche a une erreur (au carré) "
        f"{best} fois plus grande que celui qu'on atteint quand le second poids compense le premier.",
    )
    note(
        f"Entrées {i} et {j}, de corrélation {link}. La ligne {row} est la plus favorable : compenser y divise "
        f"l'erreur au carré par {best}. L'arrondi change pour {int(differs.sum())} lignes sur {len(gains)}, où le gain "
        f"médian est de {number(gains[differs].median().item(), 3)} ; sur toutes ensemble, l'erreur est divisée par "
        f"{number((near_error.sum() / chosen_error.sum()).item(), 3)}."
    )


# --- Couche par couche --------------------------------------------------------------------------------------------


def layer_errors_table(found: Mapping[tuple[str, str, str], float]) -> None:
    """Erreur sur les poids, puis sur la sortie, par RTN et par GPTQ.

    found : (couche, méthode, « poids » ou « sortie ») → erreur quadratique relative.
    """
    rows = []
    for name in dict.fromkeys(layer for layer, _, _ in found):
        block, kind = name.split(".", 1)
        errors = {(m, what): found[name, m, what] for what in ("poids", "sortie") for m in ("RTN", "GPTQ")}
        gain = number(errors["RTN", "sortie"] / errors["GPTQ", "sortie"], 3)
        rows.append([f"{block}, {KINDS[kind]}", *(percent(e) for e in errors.values()), f"÷ {gain}"])
    table(
        rows,
        header=["bloc, couche", "poids, RTN", "poids, GPTQ", "sortie, RTN", "sortie, GPTQ", "gain en sortie"],
        caption="Erreur quadratique relative à 3 bits, une échelle par canal, sur un autre texte",
    )


# --- L'article ----------------------------------------------------------------------------------------------------

SOURCE = "Frantar et al., « GPTQ », ICLR 2023, arXiv 2210.17323"
OPT = {
    "taille": "125M 350M 1,3B 2,7B 6,7B 13B 30B 66B 175B".split(),
    "full": "27.65 22.00 14.63 12.47 10.86 10.13 9.56 9.34 8.34".split(),
    "RTN 4": "37.28 25.94 48.17 16.92 12.10 11.32 10.98 110 10.54".split(),
    "GPTQ 4": "31.12 24.24 15.47 12.87 11.39 10.31 9.63 9.55 8.37".split(),
    "RTN 3": "1.3e3 64.57 1.3e4 1.6e4 5.8e3 3.4e3 1.6e3 6.1e3 7.3e3".split(),
    "GPTQ 3": "53.85 33.79 20.97 16.88 14.86 11.61 10.27 14.16 8.68".split(),
}
"""Tableau 3 de l'article : perplexité sur WikiText2 de la famille OPT."""
BLOOM = {
    "taille": "560M 1,1B 1,7B 3B 7,1B 176B".split(),
    "full": "22.42 17.69 15.39 13.48 11.37 8.11".split(),
    "RTN 4": "25.90 22.00 16.97 14.76 12.10 8.37".split(),
    "GPTQ 4": "24.03 19.05 16.48 14.20 11.73 8.21".split(),
    "RTN 3": "57.08 50.19 63.59 39.36 17.38 571".split(),
    "GPTQ 3": "32.31 25.08 21.11 17.40 13.47 8.64".split(),
}
"""Tableau 4 de l'article : perplexité sur WikiText2 de la famille BLOOM."""


def paper_tables() -> None:
    """Les tableaux 3 et 4 de l'article, tels que les diapositives les montrent."""
    for family, values, where in (("OPT", OPT, "tableau 3"), ("BLOOM", BLOOM, "tableau 4")):
        names = {"full": ("sans", "16"), **{k: tuple(k.split()) for k in values if k not in ("taille", "full")}}
        table(
            [[method, bits, *map(_as_printed, values[k])] for k, (method, bits) in names.items()],
            header=[family, "bits", *values["taille"]],
            caption=f"{SOURCE}, {where} : perplexité sur WikiText2",
        )


def _as_printed(value: str) -> str:
    """Un nombre de l'article, avec les chiffres qu'il imprime : ceux de ses voisins ne lui en ajoutent pas."""
    mantissa, power, _ = value.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return power_of_ten(float(value), decimals=decimals) if power else f"{number(float(value), decimals=decimals)}"


def _ratios(values: dict[str, list[str]], method: str, bits: int) -> list[float]:
    """Perplexité quantifiée ÷ perplexité d'origine, une valeur par taille."""
    return [float(q) / float(full) for q, full in zip(values[f"{method} {bits}"], values["full"], strict=True)]


def _parameters(size: str) -> float:
    return read_number(size[:-1]) * {"M": 1e6, "B": 1e9}[size[-1]]


def _colibri(found: Sweep, method: str, bits: int) -> float | None:
    """Le même rapport pour Colibri, une échelle par canal ; None s'il n'a pas été mesuré."""
    key = method, "canal", bits
    return perplexity_of(found[key]) / perplexity_of(found["FP32"]) if key in found else None


def verdicts(found: Sweep) -> None:
    """Ce que l'article affirme, ce que montrent ses tableaux, ce que montre Colibri : reproduit, ou non.

    found : (méthode, grain, bits) → pertes, part à part.
    """
    rtn, best = ({b: _colibri(found, m, b) for b in (4, 3)} for m in ("RTN", "GPTQ"))
    measured = {b: (ours, plain) for b in (4, 3) if (ours := best[b]) and (plain := rtn[b])}
    small = {m: {b: _ratios(OPT, m, b)[0] for b in (4, 3)} for m in ("RTN", "GPTQ")}

    def times(r: float) -> str:
        return f"× {number(r, 4)}"

    rows = [
        [
            f"À {b} bits, GPTQ perd moins que RTN",
            f"OPT 125M : {times(small['RTN'][b])} en RTN, {times(small['GPTQ'][b])} en GPTQ",
            f"{times(plain)} en RTN, {times(ours)} en GPTQ",
            "reproduit" if paired(found["GPTQ", "canal", b], found["RTN", "canal", b]).high < 0 else "non reproduit",
        ]
        for b, (ours, plain) in measured.items()
    ]
    collapse = [sum(r > 10 for r in _ratios(f, "RTN", 3)) for f in (OPT, BLOOM)]
    rows += [
        [
            "À 3 bits, RTN s'effondre (perplexité × 10 ou plus)",
            f"{collapse[0]} OPT sur {len(OPT['full'])}, {collapse[1]} BLOOM sur {len(BLOOM['full'])}",
            times(rtn[3]) if rtn[3] else "non mesuré à cette échelle",
            "—" if not rtn[3] else "reproduit" if rtn[3] > 10 else "non reproduit",
        ],
        [
            "Les grands modèles se quantifient mieux",
            f"OPT, GPTQ 4 bits : {times(small['GPTQ'][4])} à 125M, {times(_ratios(OPT, 'GPTQ', 4)[-1])} à 175B",
            "une seule taille",
            "pas testable ici",
        ],
    ]
    table(rows, header=["affirmation", "dans l'article", "sur Colibri", "verdict"], caption="Reproduit, ou non ?")


def beside_the_paper(found: Sweep, n_parameters: int) -> None:
    """Par combien la perplexité est multipliée, à 4 et à 3 bits : OPT et BLOOM d'après l'article, Colibri d'après vous.

    found : (méthode, grain, bits) → pertes, part à part. Les étiquettes nomment les cases qui sortent du rang.
    """
    fig, axes = canvas(9.2, 3.9, columns=2)
    told = []
    for ax, bits in zip(axes, (4, 3), strict=True):
        for family, values, marker in (("OPT", OPT, "o"), ("BLOOM", BLOOM, "^")):
            x = [_parameters(s) for s in values["taille"]]
            for method, color, line in (("RTN", RED, "--"), ("GPTQ", BLUE, "-")):
                y = _ratios(values, method, bits)
                ax.plot(x, y, line, marker=marker, color=color, lw=1.3, ms=5, label=f"{family}, {method}")
                for size, u, v, before in zip(values["taille"], x, y, [None, *y], strict=False):
                    if method == "RTN" and before and v > 2 * before and (bits == 4 or family == "BLOOM"):
                        ax.annotate(
                            size,
                            (u, v),
                            xytext=(0, 5),
                            textcoords="offset points",
                            ha="center",
                            fontsize=8,
                        )
        for method, color in (("RTN", RED), ("GPTQ", BLUE)):
            ratio = _colibri(found, method, bits)
            if ratio is not None:
                shape = {"RTN": "P", "GPTQ": "*"}[method]
                ax.plot(n_parameters, ratio, shape, color=color, mec=BLACK, ms=13, label=f"Colibri, {method}")
                told.append(f"Colibri {method} à {bits} bits, × {number(ratio, 3)}")
        ax.axhline(1, color=BLACK, lw=0.8, linestyle=":")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_title(f"{bits} bits", fontsize=10)
        ax.set_xlabel("paramètres (échelle logarithmique)")
        french(ax)
    axes[0].set_ylabel("perplexité ÷ perplexité sans quantification")
    axes[1].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    show(
        fig,
        alt="Deux nuages, à 4 et 3 bits, rapport des perplexités contre nombre de paramètres. GPTQ reste près de 1 et "
        f"RTN s'en écarte, beaucoup à 3 bits ; à 4 bits OPT 1,3B et OPT 66B sortent du rang. {' ; '.join(told)}.",
    )
