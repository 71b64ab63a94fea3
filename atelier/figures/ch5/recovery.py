"""Chapitre 5, cinquième partie : réapprendre, masque gardé ; élaguer, puis distiller ; élaguer et quantifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from atelier.display import note, show, table
from atelier.evidence import Gap, paired, perplexity_of
from atelier.figures.ch5.importance import LOOKS, log_axis
from atelier.figures.common.style import BLACK, BLUE, ORANGE, SERIES, canvas, french
from atelier.text import number, percent

Measured = Mapping[str, Any]


def zeros_by_step(shares: Sequence[float]) -> None:
    """Part de zéros, avant le premier pas puis après chacun."""
    table(
        [[i, percent(share, decimals=2)] for i, share in enumerate(shares)],
        header=["pas", "zéros dans les couches linéaires"],
        caption="Masque posé une fois, puis oublié",
    )


def plot_schedule(found: Mapping[str, Any]) -> None:
    """Votre programme cubique, et une montée linéaire. found : « fin » (pas), « part », « retirée » (à chaque pas)."""
    end, amount = found["fin"], found["part"]
    cubic = [100 * share for share in found["retirée"]]
    xs = list(range(len(cubic)))
    straight = [100 * amount * min(i / end, 1) for i in xs]
    fig, ax = canvas(7, 3)
    ax.plot(xs, cubic, label="cubique (le vôtre)", color=BLUE, lw=2)
    ax.plot(xs, straight, "--", label="linéaire", color=ORANGE, lw=2)
    ax.axvline(end, color=BLACK, lw=0.8, ls=":")
    ax.text(end + 1, 8, "fin de l'élagage", fontsize=9)
    ax.set_xlabel("pas d'apprentissage")
    ax.set_ylabel("part retirée (%)")
    ax.legend(frameon=False)
    french(ax)
    half = next(i for i in xs if cubic[i] >= 50 * amount)
    show(
        fig,
        alt=f"Part retirée contre pas : la courbe cubique atteint la moitié de {percent(amount)} dès le pas {half}, la "
        f"droite au pas {end // 2} ; toutes deux arrivent au pas {end}.",
    )


# --- Les taux ---------------------------------------------------------------------------------------------------------


def best_rate(tried: Mapping[float, float]) -> float:
    """Le taux de plus basse perplexité."""
    return min(tried, key=tried.__getitem__)


def _by_amount(measured: Measured) -> dict[float, dict[float, float]]:
    found: dict[float, dict[float, float]] = {}
    for (amount, lr), perplexity in measured["perplexités"].items():
        found.setdefault(amount, {})[lr] = perplexity
    return found


def _by_share(measured: Measured) -> dict[str, dict[float, float]]:
    return {percent(amount): tried for amount, tried in _by_amount(measured).items()}


def rates_table(measured: Measured, authors: Measured | None = None) -> None:
    """Perplexité après une reprise. perplexités : (part retirée, taux) → perplexité, sur l'extrait de réglage."""
    kept = _by_share(authors) if authors else None
    _rates_table(_by_share(measured), kept, "part retirée", measured["pas"], (authors or measured)["pas"])


def tuned_table(measured: Measured, authors: Measured | None = None) -> None:
    """Perplexité de chaque recette. perplexités : recette → taux → perplexité, sur l'extrait de réglage."""
    kept = authors and authors["perplexités"]
    _rates_table(measured["perplexités"], kept, "recette", measured["pas"], (authors or measured)["pas"])


Tried = Mapping[str, Mapping[float, float]]


def _rates_table(found: Tried, authors: Tried | None, what: str, steps: int, authors_steps: int) -> None:
    """Le tableau de l'auteur, s'il y en a un, et une note qui dit ce qu'on a trouvé ici."""
    shown = authors or found
    rates = sorted({lr for tried in shown.values() for lr in tried})
    table(
        [
            [name, *(number(tried[lr], 4) if lr in tried else "—" for lr in rates), number(best_rate(tried), 2)]
            for name, tried in shown.items()
        ],
        header=[what, *(f"taux {number(lr, 2)}" for lr in rates), "le meilleur"],
        caption=f"Perplexité sur l'extrait de réglage, une graine ({number(authors_steps)} pas)"
        + (" ; auteur" if authors else ""),
    )
    if authors and found != authors:
        here = [
            f"{name}, taux {number(lr, 2)} : {number(v, 4)}" for name, tried in found.items() for lr, v in tried.items()
        ]
        note(f"Ici, en {number(steps)} pas : {' ; '.join(here)}.")


def rate_verdict(measured: Measured) -> str:
    """Le verdict du pari : à 80 %, un taux plus petit, égal ou plus grand qu'à 50 % ; s'il n'y a pas les deux, la règle
    que suivent les résultats de l'auteur."""
    found = _by_amount(measured)
    if not {0.5, 0.8} <= found.keys():
        return "plus grand"
    small, big = best_rate(found[0.5]), best_rate(found[0.8])
    return "plus grand" if big > small else "le même" if big == small else "plus petit"


# --- Les recettes -----------------------------------------------------------------------------------------------------


def seed_gap(runs: Mapping[str, Sequence[Sequence[float]]], first: str, second: str) -> Gap | None:
    """L'écart de deux recettes, graine à graine ; avec moins de cinq graines, part à part de la première."""
    a, b = runs[first], runs[second]
    if len(a) >= 5:
        return paired([mean(losses) for losses in a], [mean(losses) for losses in b])
    return None


def runs_table(measured: Measured, authors: Measured | None, against: str) -> None:
    """Une ligne par recette, chez l'auteur s'il y a son résultat ; puis une note, ce qu'on a trouvé ici.

    pertes : recette → pertes, graine par graine ; avant : version → pertes.
    """
    kept = authors or measured
    found: Mapping[str, Sequence[Sequence[float]]] = kept["pertes"]
    rows = [[name, "—", number(perplexity_of(losses), 4), "—"] for name, losses in kept["avant"].items()]
    for name, runs in found.items():
        told = [perplexity_of(losses) for losses in runs]
        gap = seed_gap(found, name, against) if against in found and name != against else None
        spread = f"{number(min(told), 4)} à {number(max(told), 4)}" if len(told) > 1 else "—"
        rows.append([name, spread, number(perplexity_of([mean(r) for r in runs]), 4), gap.as_ratio() if gap else "—"])
    count = len(next(iter(found.values())))
    table(
        rows,
        header=["version", "d'une graine à l'autre", "perplexité", f"rapport à « {against} » [intervalle]"],
        caption=f"{number(kept['pas'])} pas, {number(count)} graine{'s' * (count > 1)}, "
        f"{number(kept['jetons'])} jetons évalués" + (" ; auteur" if authors else ""),
    )
    if authors and measured != authors:
        here = [f"{name} : {number(perplexity_of([mean(r) for r in v]), 4)}" for name, v in measured["pertes"].items()]
        note(f"Ici, en {number(measured['pas'])} pas, sur {number(measured['jetons'])} jetons : {' ; '.join(here)}.")
    if count < 5:
        note("Avec une graine, rien n'est départagé : les phrases qui suivent viennent de cinq graines, appariées.")


def best_of(measured: Measured) -> str:
    """La recette de plus basse perplexité moyenne."""
    found = measured["pertes"]
    return min(found, key=lambda name: mean(mean(losses) for losses in found[name]))


def depth_or_width(measured: Measured) -> str:
    """Le verdict du pari : un bloc, des neurones, ou pas départagés."""
    found = measured["pertes"]
    deep, wide = "un bloc de moins, étiquettes douces", "neurones en moins, étiquettes douces"
    gap = seed_gap(found, wide, deep)
    if gap is not None and not gap.told_apart:
        return "on ne peut pas les départager"
    ahead = mean(mean(r) for r in found[wide]) < mean(mean(r) for r in found[deep])
    return "des neurones" if ahead else "un bloc"


# --- Élaguer et quantifier --------------------------------------------------------------------------------------------


def bits_of(name: str, zeros: float) -> float:
    """Bits par poids linéaire d'une recette, lus dans son nom ; 16 par défaut, bitmap compris s'il le faut."""
    value = next(
        (int(n) for n in ("8", "4", "3") if f"{n} bits" in name), 4 if "GPTQ" in name.split("Sparse")[0] else 16
    )
    pruned = "Wanda" in name or "SparseGPT" in name
    return 1 + value * (1 - zeros) if pruned else float(value)


def orders_table(measured: Measured) -> None:
    """Une ligne par recette. pertes : recette → pertes ; zéros : recette → part de zéros."""
    found, zeros = measured["pertes"], measured["zéros"]
    table(
        [
            [
                name,
                percent(round(zeros[name], 3)),
                number(bits_of(name, zeros[name]), 3),
                number(perplexity_of(found[name]), 4),
                paired(found[name], found["entier"]).as_ratio(),
            ]
            for name in zeros
        ],
        header=["dans cet ordre", "zéros", "bits par poids", "perplexité", "rapport à Colibri entier [intervalle]"],
        caption=f"Colibri, moitié des poids retirés quand il y a élagage ({number(measured['jetons'])} jetons ; "
        f"entier : {number(perplexity_of(found['entier']), 4)})",
    )
    note(
        "Bits par poids : s'il y a élagage, un bit de bitmap ; plus les bits des valeurs gardées ; les pas, un par "
        "ligne, ne sont pas comptés."
    )


def same_bits(by_wanda: Measured, by_sparsegpt: Measured, mixed: Measured) -> None:
    """Perplexité contre bits par poids : élaguer en FP16, quantifier, et les deux ensemble."""
    found, zeros = mixed["pertes"], mixed["zéros"]
    whole = perplexity_of(found["entier"])

    def swept(measured: Measured) -> list[tuple[float, float]]:
        return [(1 + 16 * (1 - a), perplexity_of(v)) for (_, a), v in measured["pertes"].items()]

    def points(*names: str) -> list[tuple[float, float]]:
        return [(bits_of(n, zeros[n]), perplexity_of(found[n])) for n in names if n in zeros]

    both = {"Wanda puis 4 bits": "Wanda, 4 bits", "SparseGPT et 4 bits ensemble": "SparseGPT, 4 bits"}
    groups = [
        ("élagué par Wanda, FP16", swept(by_wanda), LOOKS["Wanda"]),
        ("élagué par SparseGPT, FP16", swept(by_sparsegpt), LOOKS["SparseGPT"]),
        ("quantifié au plus proche, 4 et 3 bits", points("4 bits", "3 bits"), SERIES[0]),
        ("quantifié par GPTQ, 4 et 3 bits", points("4 bits, GPTQ", "3 bits, GPTQ"), SERIES[4]),
        ("les deux : moitié élaguée, 4 bits", points(*both), {**SERIES[1], "linestyle": ""}),
    ]
    fig, ax = canvas(8.6, 4.4)
    for label, line, look in groups:
        if line:
            ax.plot(*zip(*line, strict=True), label=label, lw=1.5, ms=6, **look)
    for (x, y), text in zip(points(*both), [t for n, t in both.items() if n in zeros], strict=True):
        ax.annotate(text, (x, y), xytext=(7, 3), textcoords="offset points", fontsize=9)
    ax.axhline(whole, color=BLACK, lw=1, ls=":")
    ax.text(16, whole, "Colibri entier", va="bottom", ha="right", fontsize=9)
    ax.set_xlim(2, 16.6)
    log_axis(ax, whole, 25 * whole)
    ax.set_xlabel("bits par poids linéaire, bitmap compris")
    ax.set_ylabel("perplexité (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=9)
    french(ax, y=False)
    show(
        fig,
        alt=f"Perplexité contre bits par poids ; Colibri entier, {number(whole, 3)}. "
        + " ; ".join(
            f"{label} : " + ", ".join(f"{number(b, 3, unit='bits')} {number(p, 3)}" for b, p in line)
            for label, line, _ in groups
        )
        + ".",
    )
