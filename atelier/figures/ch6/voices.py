"""Chapitre 6, première partie : changer la voix de Colibri, ce que cela lui fait oublier, et ce que coûte un pas."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from math import log
from statistics import mean, median, quantiles
from typing import Any

from atelier.display import note, show, table
from atelier.evidence import paired
from atelier.figures.common.style import BLACK, BLUE, GREY, RED, SERIES, canvas, french
from atelier.perplexity import extract
from atelier.text import interval, number, plural, setting

TEXTS = {"a": "A, langue générale", "b": "B, fantasy", "bprime": "B′, vers classiques"}
"""Extraits → ce qu'ils sont."""
WHOLE = 3_060_288
"""Paramètres de Colibri."""
Trace = Sequence[tuple[int, float, float]]
"""(pas, perplexité sur la voix, sur A)."""
Scores = Sequence[tuple[float, float]]
"""(perplexité sur B, sur A), par graine."""


def three_texts(found: Mapping[str, float], tokens: int) -> None:
    """Les trois textes : leurs premiers mots, et la perplexité de Colibri sur chacun. found : texte → perplexité."""
    rows = []
    for name, label in TEXTS.items():
        words = " / ".join(line for line in extract(f"{name}_validation").splitlines()[2:12] if line)[:120]
        rows.append([label, f"{words}…", number(found[name], decimals=1)])
    table(
        rows,
        header=["texte", "un début", "perplexité de Colibri"],
        caption=f"Trois voix : extraits que Colibri n'a pas lus ({number(tokens)} jetons évalués)",
    )


def plot_own_loop(found: Mapping[str, Any]) -> None:
    """La perte et la norme du gradient de chaque pas, sa borne, et ce que la boucle a changé.

    found : « pas » (perte en nats, norme avant la borne), « borne », « avant », « après » (perplexités), « jetons ».
    """
    losses, norms = zip(*found["pas"], strict=True)
    steps, limit = range(1, len(losses) + 1), found["borne"]
    fig, axes = canvas(9.0, 2.9, columns=2)
    for ax, values, title, look in zip(
        axes, (losses, norms), ("perte (nats)", "norme du gradient"), SERIES, strict=False
    ):
        ax.plot(steps, values, lw=1.4, **look | {"ms": 3})
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("pas")
        french(ax)
    axes[1].axhline(limit, color=BLACK, lw=1.0, linestyle=":", label="borne")
    axes[1].legend(frameon=False, fontsize=9)
    bounded = sum(n > limit for n in norms)
    told = f"{bounded} pas sur {len(norms)} dépassent la borne, {number(limit, 2)}"
    show(
        fig,
        alt=f"Deux courbes, {len(losses)} pas. Perte : de {number(losses[0], 3)} à {number(losses[-1], 3)} nats ; "
        f"norme du gradient : de {number(norms[0], 3)} à {number(norms[-1], 3)} ; {told}.",
    )
    before, after = (number(found[when], decimals=1) for when in ("avant", "après"))
    note(f"{told}. Perplexité sur B, {number(found['jetons'])} jetons : {before} avant, {after} après.")


def voices_table(found: Mapping[str, Any]) -> None:
    """Les mêmes débuts, continués par chaque modèle. found : « phrases », modèle → début → suite ; « jetons lus »."""
    said = found["phrases"]
    openings = list(next(iter(said.values())))
    table(
        [[opening, *(f"… {said[who][opening]}" for who in said)] for opening in openings],
        header=["début", *said],
        caption="Même graine, température 0,8, parmi les 40 jetons les plus probables",
    )
    read = found["jetons lus"]
    note(f"Chaque fine-tuning a lu {number(read)} jetons : {number(read / 500, 2)} pages de 500 jetons.")


def perplexity_grid(found: Mapping[str, Mapping[str, float]], tokens: int) -> None:
    """Perplexité de chaque modèle sur chacun des trois textes. found : modèle → texte → perplexité."""
    table(
        [[who, *(number(row[text], decimals=1) for text in TEXTS)] for who, row in found.items()],
        header=["modèle", *TEXTS.values()],
        caption=f"Perplexité, une graine ({number(tokens)} jetons évalués par texte)",
    )


def plot_forgetting(here: Sequence[Trace], author: Sequence[Trace] | None) -> str:
    """Perplexité sur B et sur A, pas après pas ; traits fins : chaque graine. Rend le verdict du pari."""
    runs = author or here
    steps = [step for step, *_ in runs[0]]
    fig, axes = canvas(9.0, 3.6, columns=2)
    told = []
    for ax, column, title, style in zip(
        axes, (1, 2), ("sur la voix apprise (B)", "sur la langue d'origine (A)"), SERIES, strict=False
    ):
        for run in runs:
            ax.plot(steps, [point[column] for point in run], color=style["color"], lw=0.6, alpha=0.5)
        middle = [mean(run[i][column] for run in runs) for i in range(len(steps))]
        ax.plot(steps, middle, **style)
        ax.set(title=title, xlabel="pas de fine-tuning", ylabel="perplexité (échelle logarithmique)")
        _log_ticks(ax)
        told.append(f"{title} : {', '.join(number(v, 3) for v in middle)}")
    seeds = plural(len(runs), "graine")
    show(fig, alt=f"Deux cadres, pas {', '.join(map(str, steps))}, {seeds}. {'. '.join(told)}.")
    note(f"Courbes : moyenne de {seeds}{' (auteur)' if author else ''} ; traits fins : chacune.")
    if author is not None and here is not author:
        _, new, old = here[0][-1]
        note(f"Ici, à la fin, une graine : {number(new, 3)} sur B, {number(old, 3)} sur A.")
    early, final = (mean(log(run[i][2] / run[0][2]) for run in runs) for i in (min(2, len(steps) - 1), -1))
    return "en même temps, dès les premiers pas" if early > 0.3 * final else "après le progrès"


def _log_ticks(ax: Any, x: bool = False, y: bool = True) -> None:
    """Une échelle logarithmique, graduée de nombres ordinaires, assez serrés pour qu'on y lise une valeur."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    for wanted, axis, scale in ((x, ax.xaxis, ax.set_xscale), (y, ax.yaxis, ax.set_yscale)):
        if wanted:
            scale("log")
            low, high = axis.get_data_interval()
            narrow = high < 4 * low
            axis.set_major_locator(MaxNLocator(6) if narrow else LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
            axis.set_minor_locator(NullLocator())
    french(ax, x=x, y=y)


def plot_rates(found: Mapping[tuple[str, float], tuple[float, float]], before: Mapping[str, float]) -> None:
    """Un point par taux : ce que l'on gagne sur la fin de B, ce que l'on perd sur A ; puis le tableau des deux départs.

    found : (départ, taux) → perplexités ; before : celles de Colibri sur l'extrait.
    """
    points = {lr: scores for (start, lr), scores in sorted(found.items()) if start == "Colibri"}
    fig, ax = canvas(6.8, 3.9)
    ax.plot([old for _, old in points.values()], [new for new, _ in points.values()], "-", color=GREY, lw=1)
    places = ((-8, 12), (-8, -18), (8, -16), (10, -4), (10, -4))
    for (lr, (new, old)), place in zip(points.items(), itertools.cycle(places), strict=False):
        ax.plot(old, new, "o", color=BLUE, markersize=8)
        ax.annotate(f"taux {setting(lr)}", (old, new), xytext=place, textcoords="offset points", fontsize=9)
    ax.axvline(before["a"], color=RED, linestyle=":", label="A, avant le fine-tuning")
    ax.set(
        xlabel="perplexité sur A (échelle logarithmique) : l'oubli, vers la droite",
        ylabel="perplexité sur la fin de B\n(échelle logarithmique)",
    )
    _log_ticks(ax, x=True)
    ax.margins(x=0.2, y=0.15)
    ax.legend(frameon=False, fontsize=9)
    told = " ; ".join(
        f"taux {setting(lr)}, B {number(new, 3)}, A {number(old, 3)}" for lr, (new, old) in points.items()
    )
    show(fig, alt=f"Perplexité sur la fin de B contre perplexité sur A, un point par taux. {told}.")
    rows = []
    for start in dict.fromkeys(start for start, _ in found):
        tried = {lr: new for (who, lr), (new, _) in found.items() if who == start}
        best = min(tried, key=lambda lr: tried[lr])
        rows.append([start, " · ".join(f"{setting(lr)} : {number(v, 3)}" for lr, v in tried.items()), setting(best)])
    table(
        rows,
        header=["départ", "taux : perplexité sur la fin de B", "le meilleur"],
        caption="Une graine, quarante pas",
    )


def rehearsal_table(
    here: Mapping[int, Scores], author: Mapping[int, Scores] | None, none: Scores, before: Mapping[str, float]
) -> str:
    """L'ancien texte glissé dans les lots, à nombre de pas égal. found : fenêtres de A sur 4 → par graine ; none : 0.

    Rend le verdict du pari : la part d'oubli que rachète la première fenêtre.
    """
    kept = {0: none} | dict(author or here)
    rows: list[list[Any]] = [["Colibri, avant", number(before["b"], 3), number(before["a"], 3), "—", "—"]]
    for old, scores in kept.items():
        rows.append([f"{4 - old} fenêtres de B, {old} de A" if old else "4 fenêtres de B", *_scores(scores)])
        for column in (0, 1):
            gap = "—"
            if old and len(none) == len(scores) >= 5:
                gap = paired([log(s[column]) for s in scores], [log(s[column]) for s in none]).as_ratio()
            rows[-1].append(gap)
    seeds = plural(max(map(len, kept.values())), "graine")
    table(
        rows,
        header=["un lot", "perplexité sur B", "perplexité sur A", "B, face à rien de A [95 %]", "A, face à rien de A"],
        caption=f"Répétition, à nombre de pas égal, {seeds}{' (auteur)' if author else ''}",
    )
    _said_here(here, author, lambda old: f"{old} fenêtre(s) de A")
    if 1 not in kept:
        return "à peu près la moitié"
    lost, left = (mean(log(a / before["a"]) for _, a in kept[old]) for old in (0, 1))
    share = 1 - left / lost
    return "moins du quart" if share < 0.25 else "presque tout" if share > 0.75 else "à peu près la moitié"


def _scores(scores: Scores) -> list[str]:
    return [number(mean(s[column] for s in scores), decimals=1) for column in (0, 1)]


def _said_here(here: Mapping[Any, Any], author: Mapping[Any, Any] | None, name: Any) -> None:
    if author is None or here is author:
        return
    told = []
    for key, scores in here.items():
        b, a = _scores(scores)
        told.append(f"{name(key)} : B {b}, A {a}")
    note(f"Ici, une graine : {' ; '.join(told)}.")


def plot_depths(
    here: Mapping[str, Any],
    author: Mapping[str, Any] | None,
    whole: Scores,
    before: Mapping[str, float],
    rates: Mapping[tuple[str, float], float],
) -> float:
    """Ce que l'on dégèle : gain sur B contre oubli de A ; barres : l'étendue des graines.

    found : étage → « paramètres », « perplexités » ((sur B, sur A) par graine) ; rates : (étage, taux) → perplexité sur
    la fin de B. Rend la part (%) du progrès de « tout » que fait le dernier bloc.
    """
    kept = dict(author or here) | {"tout": {"paramètres": WHOLE, "perplexités": whole}}
    fig, ax = canvas(7.4, 4.2)
    ax.plot(before["a"], before["b"], "D", color=RED, markersize=8)
    ax.annotate("Colibri, avant", (before["a"], before["b"]), xytext=(9, -4), textcoords="offset points", fontsize=9)
    told, rows = [], []
    for name, found in kept.items():
        new, old = ([s[column] for s in found["perplexités"]] for column in (0, 1))
        x, y = mean(old), mean(new)
        inside = name == "table des jetons"
        ax.errorbar(
            x,
            y,
            xerr=[[x - min(old)], [max(old) - x]],
            yerr=[[y - min(new)], [max(new) - y]],
            marker="^" if inside else "o",
            color=RED if inside else BLUE,
            markersize=7,
            capsize=2,
        )
        ax.annotate(name, (x, y), xytext=(8, 6), textcoords="offset points", fontsize=9)
        told.append(f"{name}, B {number(y, 3)}, A {number(x, 3)}")
        tried = {lr: value for (floor, lr), value in rates.items() if floor == name}
        best = setting(min(tried, key=lambda lr: tried[lr])) if tried else "—"
        gap = "—"
        if name != "tout" and len(whole) == len(new) >= 5:
            gap = paired([log(v) for v in new], [log(s[0]) for s in whole]).as_ratio()
        rows.append([name, found["paramètres"], best, number(y, decimals=1), gap, number(x, decimals=1)])
    ax.set(
        xlabel="perplexité sur A (échelle logarithmique) : l'oubli, vers la droite",
        ylabel="perplexité sur B\n(échelle logarithmique)",
    )
    ax.set_title("Ronds : dégelé depuis le haut ; triangle : la table seule", fontsize=10)
    _log_ticks(ax, x=True)
    ax.margins(x=0.18, y=0.12)
    show(fig, alt=f"Perplexité sur B contre perplexité sur A, selon ce qui apprend : {' ; '.join(told)}.")
    header = ["ce qui apprend", "paramètres", "taux", "perplexité sur B", "B, face à tout [95 %]", "perplexité sur A"]
    seeds = max(len(found["perplexités"]) for found in kept.values())
    said = f"Fantasy, dégelée par étages, quarante pas, {plural(seeds, 'graine')}{' (auteur)' if author else ''}"
    table(rows, header=header, caption=said)
    _said_here({n: f["perplexités"] for n, f in here.items()}, author, str)
    last = kept.get("dernier bloc", {}).get("perplexités")
    if not last:
        return 100.0
    return 100 * mean(log(before["b"] / s[0]) for s in last) / mean(log(before["b"] / s[0]) for s in whole)


def steps_table(found: Mapping[str, tuple[Sequence[float], int]]) -> str:
    """Un pas selon ce qui apprend : opérations comptées et durées. found : étage → (secondes, FLOP).

    Écrit la phrase qui les compare ; rend le verdict du pari.
    """
    whole, all_flops = found["tout"]
    rows = []
    for name, (seconds, flops) in found.items():
        low, _, high = (1000 * q for q in quantiles(seconds, n=4, method="inclusive"))
        rows.append(
            [
                name,
                number(flops / 1e9, decimals=2),
                number(100 * flops / all_flops, decimals=0),
                number(1000 * median(seconds), decimals=1),
                interval(low, high, 3),
                number(100 * median(seconds) / median(whole), decimals=0),
            ]
        )
    header = ["ce qui apprend", "GFLOP", "en % de tout", "un pas (ms)", "quartiles (ms)", "durée, en % de tout"]
    table(
        rows,
        header=header,
        caption="Passages avant et arrière comptés, tête de sortie comprise ; pas entiers chronométrés, un fil de "
        f"calcul, {plural(len(whole), 'tour')}, AdamW fusionné",
    )
    last, first = (median(found[name][0]) / median(whole) for name in ("dernier bloc", "premier bloc"))
    counted = [found[name][1] / all_flops for name in ("dernier bloc", "premier bloc")]
    note(
        f"Ici, le pas du dernier bloc dure {number(100 * last, 2)} % d'un pas entier, celui du premier bloc "
        f"{number(100 * first, 2)} % ; le compte disait {number(100 * counted[0], 2)} et "
        f"{number(100 * counted[1], 2)} %."
    )
    if max(last, first) < 1.1 * min(last, first):
        return "autant"
    return f"moins pour le {'dernier' if last < first else 'premier'} bloc"
