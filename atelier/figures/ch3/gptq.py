"""Chapitre 3, quatrième partie : GPTQ, avec deux poids, couche par couche, puis à côté des tableaux de l'article."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from atelier.display import note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.ch3.models import GRIDS, Measured
from atelier.figures.common.layers import KINDS
from atelier.figures.common.style import BLACK, BLUE, ORANGE, RED, canvas, french
from atelier.text import number, percent, plural, power_of_ten, read_number

# --- L'idée, avec deux poids --------------------------------------------------------------------------------------


def plot_two_weights(found: Mapping[str, Any]) -> None:
    """À gauche, l'erreur autour de deux poids d'une ligne ; à droite, le gain de toutes celles où l'arrondi change.

    found : « entrées » (i, j), leur « corrélation », leur « hessienne » (2, 2) ; et pour chaque ligne de la matrice, en
    pas, les « poids » (n, 2), leurs arrondis « près » et « rattrapé », où va le second « déplacé » (n,) ; « erreurs ».
    La ligne dessinée est celle du gain médian, parmi celles où l'arrondi change.
    """
    near_error, chosen_error = found["erreurs"]["près"], found["erreurs"]["rattrapé"]
    differs = (found["près"] != found["rattrapé"]).any(1).nonzero().flatten()
    gains = near_error[differs] / chosen_error[differs].clamp(min=1e-12)
    row = int(differs[gains.argsort()[len(gains) // 2]])
    fig, (ax, beside) = canvas(9.6, 4.2, columns=2, width_ratios=(3, 2))
    _valley(ax, found, row)
    _gains(beside, gains)
    (i, j), link = found["entrées"], number(found["corrélation"], 3)
    middle, best = (number(v, 2) for v in (gains.median().item(), gains.max().item()))
    show(
        fig,
        alt=f"À gauche, une vallée en biais, car les entrées {i} et {j} ont une corrélation de {link} : de la ligne "
        f"{row}, le point le plus proche se trompe {number((near_error / chosen_error)[row].item(), 2)} fois plus, au "
        "carré, que celui qu'on atteint quand le second poids rattrape le premier. À droite, les gains de "
        f"{len(gains)} lignes : médiane {middle}, le plus grand {best}.",
    )
    note(
        f"Entrées {i} et {j}, de corrélation {link}. L'arrondi change pour {len(gains)} lignes sur {len(near_error)} : "
        f"l'erreur au carré y est divisée par {middle} (médiane), et par {best} au mieux. Sur toutes les lignes "
        f"ensemble, elle est divisée par "
        f"{number((near_error.sum() / chosen_error.sum()).item(), 3)}."
    )


def _valley(ax: Any, found: Mapping[str, Any], row: int) -> None:
    (i, j), h, moved = found["entrées"], found["hessienne"], found["déplacé"][row].item()
    w0, a, b = (found[name][row] for name in ("poids", "près", "rattrapé"))
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
    ax.plot(*b.tolist(), "o", color=ORANGE, mec=BLACK, ms=11, label="le second rattrape")
    arrow = {"arrowstyle": "->", "lw": 1.6}
    ax.annotate("", (a[0].item(), w0[1].item()), w0.tolist(), arrowprops=arrow)
    ax.annotate("", (a[0].item(), moved), (a[0].item(), w0[1].item()), arrowprops={**arrow, "linestyle": "--"})
    ax.set_xlabel(f"poids de l'entrée {i} (en pas)")
    ax.set_ylabel(f"poids de l'entrée {j} (en pas)")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False, ncols=2)
    ax.set_title(f"ligne {row}", fontsize=10)
    ax.grid(False)
    french(ax)


def _gains(ax: Any, gains: torch.Tensor) -> None:
    edges = torch.logspace(math.log10(gains.min().item()), math.log10(gains.max().item()), 24).tolist()
    ax.hist(gains.tolist(), bins=edges, color=BLUE, alpha=0.8)
    ax.axvline(1, color=BLACK, lw=1, linestyle=":", label="rien de gagné")
    ax.axvline(gains.median().item(), color=ORANGE, lw=2, label="médiane")
    ax.set_xscale("log")
    ax.set_xlabel("erreur divisée par (échelle logarithmique)")
    ax.set_ylabel("nombre de lignes")
    ax.set_title("lignes où l'arrondi change", fontsize=10)
    ax.legend(fontsize=8, frameon=False)
    french(ax)


# --- Couche par couche --------------------------------------------------------------------------------------------


def layer_errors_table(found: Mapping[tuple[str, str, str], float]) -> None:
    """Erreur sur les poids, puis sur la sortie, par RTN et par GPTQ.

    found : (couche, méthode, « poids » ou « sortie ») → erreur quadratique relative.
    """
    rows = []
    for name in dict.fromkeys(layer for layer, _, _ in found):
        block, kind = name.removeprefix("transformer.h.").split(".", 1)
        errors = {(m, what): found[name, m, what] for what in ("poids", "sortie") for m in ("RTN", "GPTQ")}
        gain = number(errors["RTN", "sortie"] / errors["GPTQ", "sortie"], 3)
        rows.append([f"{block}, {KINDS[kind]}", *(percent(e) for e in errors.values()), f"÷ {gain}"])
    table(
        rows,
        header=["bloc, couche", "poids, RTN", "poids, GPTQ", "sortie, RTN", "sortie, GPTQ", "gain en sortie"],
        caption="Erreur quadratique relative à 3 bits, un pas choisi par canal, sur un autre texte",
    )


# --- Tout le modèle -----------------------------------------------------------------------------------------------

METHODS = {"RTN": (RED, "s"), "GPTQ": (BLUE, "o")}


def plot_methods(on_grids: Measured, rtn: Measured, gptq: Measured) -> None:
    """Perplexité sur chaque grille, avec et sans compensation, puis ce que la compensation gagne.

    on_grids, gptq : pertes par (grille, bits), gptq ayant aussi « choisie, par groupe » ; rtn : pertes par (« RTN »,
    grain, bits).
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    bits = list(dict.fromkeys(key[1] for key in gptq["pertes"] if key != "FP32"))
    rows = [grid for grid in (*GRIDS, "choisie, par groupe") if (grid, bits[0]) in gptq["pertes"]]
    plain = {grid: {b: on_grids["pertes"].get((grid, b)) for b in bits} for grid in rows}
    plain["choisie, par groupe"] = {b: rtn["pertes"].get(("RTN", "groupe", b)) for b in bits}
    full = perplexity_of(gptq["pertes"]["FP32"])
    fig, axes = canvas(3.2 + 2.3 * len(bits), 3.2, columns=len(bits), sharey=True)
    told = []
    for ax, b in zip(axes if len(bits) > 1 else [axes], bits, strict=True):
        found = {
            "RTN": {grid: perplexity_of(losses) for grid in rows if (losses := plain[grid][b])},
            "GPTQ": {grid: perplexity_of(gptq["pertes"][grid, b]) for grid in rows},
        }
        for method, line in found.items():
            color, marker = METHODS[method]
            heights = [rows.index(grid) for grid in line]
            ax.plot(list(line.values()), heights, marker, color=color, ms=8, label=method)
            told += [f"{b} bits, {method}, {grid} : {number(p, 4)}" for grid, p in line.items()]
        ax.axvline(full, color=BLACK, lw=1, linestyle=":", label="FP32")
        widest = max(found["RTN"].values()) / full
        if widest > 2:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if widest < 50 else (1,)))
        else:
            ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(f"{b} bits", fontsize=10)
        ax.set_xlabel("perplexité (échelle log.)" if widest > 2 else "perplexité")
        french(ax, y=False)
    first = axes[0] if len(bits) > 1 else axes
    first.set_yticks(range(len(rows)), rows, fontsize=9)
    first.set_ylim(len(rows) - 0.5, -0.5)
    (axes[-1] if len(bits) > 1 else axes).legend(fontsize=8.5, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    show(fig, alt=f"Perplexité de Colibri, grille par grille ; FP32 : {number(full, 4)}. {' ; '.join(told)}.")
    _gaps_table(plain, on_grids["jetons"], rtn["jetons"], gptq, bits)


def _gaps_table(
    plain: Mapping[str, Any], grid_tokens: int, rtn_tokens: int, gptq: Measured, bits: Sequence[int]
) -> None:
    """Par combien GPTQ multiplie la perplexité de RTN, grille par grille, quand l'extrait est le même."""

    def told(grid: str, b: int) -> str:
        same = gptq["jetons"] == (rtn_tokens if "groupe" in grid else grid_tokens)
        return paired(gptq["pertes"][grid, b], plain[grid][b]).as_ratio() if plain[grid][b] and same else "—"

    table(
        [
            [grid, *(cell for b in bits for cell in (number(perplexity_of(gptq["pertes"][grid, b]), 4), told(grid, b)))]
            for grid in plain
        ],
        header=["grille", *(head for b in bits for head in (f"GPTQ, {b} bits", "÷ RTN [à 95 %]"))],
        caption=f"Perplexité de Colibri par GPTQ, et ce qu'elle devient face à RTN ({number(gptq['jetons'])} jetons)",
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


Ratios = dict[str, dict[int, float]]


def _colibri(on_grids: Measured, gptq: Measured) -> Ratios:
    """Les mêmes rapports pour Colibri, sur la grille de l'article : méthode → bits → rapport ; ce qui a été mesuré."""
    return {
        method: {
            b: perplexity_of(measured["pertes"]["affine", b]) / perplexity_of(measured["pertes"]["FP32"])
            for b in (4, 3)
            if ("affine", b) in measured["pertes"]
        }
        for method, measured in (("RTN", on_grids), ("GPTQ", gptq))
    }


def verdicts(on_grids: Measured, gptq: Measured) -> None:
    """Ce que l'article affirme, ce que montrent ses tableaux, ce que montre Colibri sur sa grille : reproduit, ou non.

    on_grids, gptq : pertes par (grille, bits), sans et avec compensation.
    """
    ours = _colibri(on_grids, gptq)
    small = {m: {b: _ratios(OPT, m, b)[0] for b in (4, 3)} for m in ("RTN", "GPTQ")}

    def times(r: float) -> str:
        return f"× {number(r, 4)}"

    def less(b: int) -> str:
        if on_grids["jetons"] != gptq["jetons"]:
            return "deux extraits différents : à refaire"
        gap = paired(gptq["pertes"]["affine", b], on_grids["pertes"]["affine", b])
        return "reproduit" if gap.high < 0 else "non reproduit"

    rows = [
        [
            f"À {b} bits, GPTQ perd moins que RTN",
            f"OPT 125M : {times(small['RTN'][b])} en RTN, {times(small['GPTQ'][b])} en GPTQ",
            f"{times(ours['RTN'][b])} en RTN, {times(ours['GPTQ'][b])} en GPTQ",
            less(b),
        ]
        for b in (4, 3)
        if b in ours["RTN"] and b in ours["GPTQ"]
    ]
    collapse = [sum(r > 10 for r in _ratios(f, "RTN", 3)) for f in (OPT, BLOOM)]
    rows += [
        [
            "À 3 bits, RTN s'effondre (perplexité × 10 ou plus)",
            f"{collapse[0]} OPT sur {len(OPT['full'])}, {collapse[1]} BLOOM sur {len(BLOOM['full'])}",
            times(ours["RTN"][3]) if 3 in ours["RTN"] else "non mesuré à cette échelle",
            "—" if 3 not in ours["RTN"] else "reproduit" if ours["RTN"][3] > 10 else "non reproduit",
        ],
        [
            "Les grands modèles se quantifient mieux",
            f"OPT, GPTQ 4 bits : {times(small['GPTQ'][4])} à 125M, {times(_ratios(OPT, 'GPTQ', 4)[-1])} à 175B",
            "une seule taille",
            "pas testable ici",
        ],
    ]
    table(rows, header=["affirmation", "dans l'article", "sur Colibri", "verdict"], caption="Reproduit, ou non ?")


def beside_the_paper(on_grids: Measured, gptq: Measured, n_parameters: int) -> None:
    """Par combien la perplexité est multipliée, à 4 et à 3 bits : OPT et BLOOM d'après l'article, Colibri d'après vous.

    on_grids, gptq : pertes par (grille, bits) ; c'est la grille affine, celle de l'article, que l'on dessine. Les
    étiquettes nomment les cases qui sortent du rang.
    """
    ours = _colibri(on_grids, gptq)
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
            ratio = ours[method].get(bits)
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


# --- Un autre modèle ----------------------------------------------------------------------------------------------


def other_table(measured: Mapping[str, Any]) -> None:
    """Un modèle que le cours n'a pas préparé. measured : « pertes » par version, « jetons », « octets » par fichier."""
    found, plain = measured["pertes"], measured["pertes"]["tel quel"]
    table(
        [
            [name, number(perplexity_of(losses), 4), paired(losses, plain).as_ratio() if name != "tel quel" else "—"]
            for name, losses in found.items()
        ],
        header=["version", "perplexité", "÷ tel quel [à 95 %]"],
        caption=f"Un petit Llama sur 3 bits, {number(measured['jetons'])} jetons, par fenêtres de 128",
    )
    sizes = {name: number(size / 1e6, decimals=2, unit="Mo") for name, size in measured["octets"].items()}
    note(
        f"{plural(measured['couches'], 'couche remplacée', 'couches remplacées')}. Le fichier d'origine pèse "
        f"{sizes['model.safetensors']}, celui des codes, d'un octet chacun, {sizes['codes.safetensors']}."
    )
