"""Chapitre 3, troisième partie : ce que l'on a mesuré de Colibri quantifié, perplexités, phrases, octets, durées."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median, quantiles
from typing import Any

from atelier.display import note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.ch3.tools import GROUP
from atelier.figures.common.layers import KINDS
from atelier.figures.common.style import SERIES, canvas, french
from atelier.text import number, percent

GRAINS = {"tenseur": "un par tenseur", "canal": "un par canal", "groupe": f"un par groupe de {GROUP}"}
Measured = Mapping[str, Any]
"""« jetons » : ceux de l'extrait ; « pertes » : version de Colibri (ou « FP32 ») → pertes, part à part."""
GRIDS = {
    "restreinte": "restreinte : max|ligne| ÷ (2^(b−1) − 1)",
    "diapositive": "diapositive : max|ligne| ÷ 2^(b−1)",
    "affine": "affine, de min à max",
    "choisie": "symétrique, pas choisi",
}


def portrait(config: Any, total: int, linear: int) -> None:
    """Ce qu'est Colibri, en une phrase. total : ses paramètres ; linear : ceux des poids de ses couches linéaires."""
    note(
        f"Colibri : {config.n_layer} blocs, dimension {config.n_embd}, contexte {config.n_positions}, {number(total)} "
        f"paramètres, dont {percent(linear / total)} dans les poids de ses {len(KINDS) * config.n_layer} couches "
        "linéaires."
    )


def layers_table(shapes: Mapping[str, tuple[int, int]]) -> None:
    """Les couches linéaires d'un bloc. shapes : chemin → (sortie, entrée), de tout le modèle."""
    rows = [
        [path, KINDS[path.split(".", 3)[-1]], outputs, inputs, outputs * inputs]
        for path, (outputs, inputs) in list(shapes.items())[: len(KINDS)]
    ]
    table(
        rows,
        header=["chemin", "ce qu'elle calcule", "sorties", "entrées", "poids"],
        caption=f"Les couches linéaires du bloc 0 ; il y en a {number(len(shapes))} en tout",
    )


# --- Perplexités ------------------------------------------------------------------------------------------------------


def _about(measured: Measured) -> str:
    """« FP32 : 11,6 ; 8 192 jetons » : à quoi comparer, et sur quel extrait."""
    full = number(perplexity_of(measured["pertes"]["FP32"]), 4)
    return f"FP32 : {full} ; {number(measured['jetons'])} jetons"


def grids_table(measured: Measured, chosen: str) -> None:
    """Perplexité de Colibri sur chaque grille, puis ce que vaut `chosen` face aux autres. pertes : (grille, bits)."""
    found = measured["pertes"]
    bits = list(dict.fromkeys(key[1] for key in found if key != "FP32"))
    names = list(dict.fromkeys(key[0] for key in found if key != "FP32"))
    table(
        [[GRIDS[grid], *(number(perplexity_of(found[grid, b]), 4) for b in bits)] for grid in names],
        header=["grille de chaque canal", *(f"{b} bits" for b in bits)],
        caption=f"Perplexité de Colibri arrondi au plus proche ({_about(measured)})",
    )
    table(
        [
            [GRIDS[grid], *(paired(found[chosen, b], found[grid, b]).as_ratio() for b in bits)]
            for grid in names
            if grid != chosen
        ],
        header=["face à", *(f"{b} bits" for b in bits)],
        caption="Perplexité au pas choisi ÷ perplexité sur l'autre grille [intervalle à 95 %]",
    )


def sweep_table(measured: Measured) -> None:
    """Perplexité de Colibri, une ligne par grain, une colonne par nombre de bits. pertes : (méthode, grain, bits)."""
    found = measured["pertes"]
    cells = [key for key in found if key != "FP32"]
    bits = list(dict.fromkeys(b for *_, b in cells))
    table(
        [
            [GRAINS[grain], *(number(perplexity_of(found["RTN", grain, b]), 4) for b in bits)]
            for grain in dict.fromkeys(grain for _, grain, _ in cells)
        ],
        header=["pas", *(f"{b} bits" for b in bits)],
        caption=f"Perplexité de Colibri arrondi au plus proche ({_about(measured)})",
    )


def sentences_table(found: Mapping[str, Any]) -> None:
    """La suite la plus probable d'un début de phrase. found : « début », et « suites » (poids → suite)."""
    table(
        [[weights, said] for weights, said in found["suites"].items()],
        header=["poids", f"« {found['début']} … »"],
        caption="La phrase la plus probable, jeton après jeton",
    )


_IN_WORDS = {"8 bits": "huit", "4 bits": "quatre", "2 bits": "deux"}


def fewest_bits(found: Mapping[str, Any]) -> str:
    """« huit » : le plus petit nombre de bits, parmi huit, quatre et deux, qui rend la même suite que FP32."""
    same = [name for name, said in found["suites"].items() if said == found["suites"]["FP32"]]
    return next((_IN_WORDS[name] for name in reversed(same) if name in _IN_WORDS), "seize")


# --- W8A8 ---------------------------------------------------------------------------------------------------------


def plot_w8a8_errors(found: Mapping[str, Mapping[str, float]]) -> str:
    """SQNR de la sortie de chaque couche. found : couche → « poids seuls », « dynamique », « statique » → dB.

    Rend l'espèce de couche la plus abîmée en dynamique, en moyenne sur les blocs.
    """
    labels = {
        "poids seuls": "poids seuls",
        "dynamique": "W8A8 dynamique, une échelle par jeton",
        "statique": "W8A8 statique, une échelle par couche",
    }
    fig, ax = canvas(8.4, 3.6)
    for (how, label), look in zip(labels.items(), SERIES, strict=False):
        ax.plot([row[how] for row in found.values()], label=label, lw=1.6, **look)
    ax.set_xticks(
        range(len(found)),
        [name.removeprefix("transformer.h.") for name in found],
        rotation=60,
        fontsize=7.5,
        ha="right",
        rotation_mode="anchor",
    )
    ax.set_ylabel("SQNR de la sortie (dB)")
    ax.set_xlabel("couche (bloc.nom)")
    ax.legend(frameon=False, fontsize=8.5)
    ax.set_ylim(0)
    french(ax, x=False)
    worst = {how: min(found, key=lambda name: found[name][how]) for how in labels}
    told = (f"{label} : au pire {number(found[worst[how]][how], 3)} dB, {worst[how]}" for how, label in labels.items())
    show(fig, alt=f"Rapport signal sur bruit en sortie de chaque couche. {' ; '.join(told)}.")
    means = [number(mean(row[how] for row in found.values()), 3) for how in labels]
    note(f"En moyenne : {means[0]} dB avec les poids seuls, {means[1]} dB en dynamique, {means[2]} dB en statique.")
    kinds = {kind: mean(row["dynamique"] for name, row in found.items() if name.endswith(kind)) for kind in KINDS}
    return KINDS[min(kinds, key=lambda kind: kinds[kind])]


# --- Le temps -----------------------------------------------------------------------------------------------------


def spread_ms(seconds: Sequence[float]) -> str:
    """« 10,7 (10,5 à 11,2) » : médiane et quartiles, en millisecondes."""
    if len(seconds) < 2:
        return number(1000 * median(seconds), 3)
    low, _, high = quantiles(seconds, n=4)
    return f"{number(1000 * median(seconds), 3)} ({number(1000 * low, 3)} à {number(1000 * high, 3)})"


def own_product_time(found: Mapping[str, Any]) -> None:
    """Le int8_linear de l'étudiant contre la couche en fp32. found : « jetons » ; durées « vous » et « fp32 » (s)."""
    ratio = median(found["vous"]) / median(found["fp32"])
    verdict = f"{number(ratio, 2)} fois plus lent" if ratio > 1 else f"{number(1 / ratio, 2)} fois plus rapide"
    note(
        f"int8_linear, {found['jetons']} jetons sur une couche MLP de GPT-2 small : {spread_ms(found['vous'])} "
        f"ms, contre {spread_ms(found['fp32'])} ms en fp32 (médiane et quartiles) : {verdict}."
    )


Times = Mapping[tuple[str, int, str], Sequence[float]]
"""(taille de GPT-2, jetons, noyau) → durées, en secondes."""


def plot_kernel_times(found: Times) -> None:
    """Durée d'une couche MLP aux vraies tailles de GPT-2, par de vrais noyaux."""
    cases = list(dict.fromkeys((size, n) for size, n, _ in found))
    names = list(dict.fromkeys(name for *_, name in found))
    middle = {key: median(seconds) for key, seconds in found.items()}
    fig, axes = canvas(0.8 + 2.1 * len(cases), 2.6, columns=len(cases))
    hatches = ["", "//", "..", "xx", "++"]
    for ax, (size, n) in zip(axes if len(cases) > 1 else [axes], cases, strict=True):
        for i, name in enumerate(names):
            if (size, n, name) in middle:
                height = 1000 * middle[size, n, name]
                ax.bar(i, height, color=SERIES[i]["color"], hatch=hatches[i % 5], edgecolor="white")
        ax.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7.5, rotation_mode="anchor")
        ax.set_title(f"GPT-2 {size}, {_tokens(n)}", fontsize=9)
        french(ax, x=False)
    (axes if len(cases) == 1 else axes[0]).set_ylabel("ms par appel")
    told = " ; ".join(
        f"{size}, {_tokens(n)} : "
        + ", ".join(f"{k} {number(1000 * middle[size, n, k], 3)} ms" for k in names if (size, n, k) in middle)
        for size, n in cases
    )
    show(fig, alt=f"Barres du temps d'une couche MLP. {told}.")
    table(
        [
            [f"{size}, {_tokens(n)}", *(spread_ms(found[size, n, k]) if (size, n, k) in found else "—" for k in names)]
            for size, n in cases
        ],
        header=["couche MLP de GPT-2", *names],
        caption="Millisecondes par appel : médiane (quartiles)",
    )
    _explain_times(middle, cases)


def _tokens(n: int) -> str:
    return f"{n} jeton{'s' if n > 1 else ''}"


def _explain_times(middle: Mapping[tuple[str, int, str], float], cases: Sequence[tuple[str, int]]) -> None:
    for n in sorted({n for _, n in cases}):
        gains = [
            middle[size, n, "fp32"] / min(seconds for key, seconds in middle.items() if _is_int8(key, size, n))
            for size, m in cases
            if m == n and any(_is_int8(key, size, n) for key in middle)
        ]
        if gains:
            said = f"de {number(min(gains), 2)} à {number(max(gains), 2)}" if len(gains) > 1 else number(gains[0], 2)
            note(f"Avec {_tokens(n)} à la fois, le meilleur int8 va {said} fois aussi vite que fp32 sur cette machine.")

    slower = {
        size: middle[size, 1, "bf16"] / middle[size, 1, "fp32"]
        for size, n in cases
        if n == 1 and (size, 1, "bf16") in middle
    }
    if slower and min(slower.values()) > 1:
        said = " et ".join(f"{number(ratio, 2)} fois ({size})" for size, ratio in slower.items())
        note(
            f"Avec un jeton, bf16 lit deux fois moins d'octets que fp32, et met pourtant {said} son temps : moins "
            "d'octets ne suffisent pas, il faut un noyau qui en profite."
        )


def _is_int8(key: tuple[str, int, str], size: str, n: int) -> bool:
    return key[:2] == (size, n) and key[2].startswith("int8")


# --- Les octets ---------------------------------------------------------------------------------------------------


def files_table(found: Mapping[str, Any]) -> None:
    """Le même modèle dans plusieurs fichiers.

    found : « fichiers » (nom → « octets », dont « linéaires »), « poids linéaires », « relu à l'identique ».
    """
    n, files = found["poids linéaires"], found["fichiers"]
    table(
        [
            [
                name,
                f["octets"],
                f["octets"] / files["FP32"]["octets"],
                number(8 * f["linéaires"] / n, decimals=2),
                percent(1 - f["linéaires"] / f["octets"]),
            ]
            for name, f in files.items()
        ],
        header=["fichier", "octets", "part du FP32", "bits par poids linéaire", "part des tables et biais"],
        caption=f"Colibri sur le disque : {number(n)} poids linéaires",
    )
    same = "exactement les mêmes codes." if found["relu à l'identique"] else "d'autres codes que ceux écrits !"
    note(f"Relu et déplié, le fichier rend {same}")
