"""Chapitre 7, deuxième partie : ce qu'une voix vaut, selon la façon de l'apprendre, la largeur, la base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from atelier.display import note, show, table
from atelier.evidence import Gap, paired, perplexity_of
from atelier.figures.ch7.adapter import TEXTS, Losses
from atelier.figures.common.style import BLACK, GREEN, SERIES, canvas, french
from atelier.text import number, percent, plural, spread

Runs = Sequence[tuple[Losses, Losses]]
"""Graine par graine : la perte sur la voix apprise, puis sur A."""
FULL, ADAPTERS = "tous les poids", "adaptateurs, m = 16"


def told(runs: Runs, which: int = 0) -> list[float]:
    """Une perplexité par graine : sur la voix (0), ou sur A (1)."""
    return [perplexity_of(run[which]) for run in runs]


def seeds_gap(a: Sequence[Losses], b: Sequence[Losses]) -> Gap | None:
    """L'écart de log-perplexité, graine à graine ; None s'il y en a moins de cinq, ou pas autant."""
    if len(a) != len(b) or len(a) < 5:
        return None
    return paired([mean(losses) for losses in a], [mean(losses) for losses in b])


def _ratio(a: Runs, b: Runs, which: int = 0) -> str:
    gap = seeds_gap([run[which] for run in a], [run[which] for run in b])
    return "—" if gap is None else gap.as_ratio()


# --- Les taux ---------------------------------------------------------------------------------------------------------


def rates_table(found: Mapping[tuple[str, str, float], float]) -> None:
    """Perplexité de réglage. found : (façon, texte, taux) → perplexité ; un taux nul est un rappel, sans leçon."""
    tried: dict[tuple[str, str], dict[float, float]] = {}
    for (name, text, lr), perplexity in found.items():
        tried.setdefault((name, text), {})[lr] = perplexity
    rates = sorted({lr for (*_, lr) in found if lr})
    rows: list[list[Any]] = []
    for (name, text), by_rate in tried.items():
        best = min(by_rate, key=by_rate.__getitem__)
        shown = [number(by_rate[lr], decimals=2) if lr in by_rate else "—" for lr in rates]
        rows.append([name, TEXTS[text], *shown, number(best, 2) if best else number(by_rate[0.0], decimals=2)])
    table(
        [row for row in rows if any(cell != "—" for cell in row[2:-1])],
        header=["ce qui apprend", "texte", *(f"taux {number(lr, 2)}" for lr in rates), "le meilleur taux"],
        caption="Perplexité après une leçon, sur l'extrait de réglage, une graine",
    )
    for row in rows:
        if all(cell == "—" for cell in row[2:-1]):
            note(f"{row[0].capitalize()} : {row[-1]}.")


# --- Aussi bien ? -----------------------------------------------------------------------------------------------------


def plot_as_good(found: Mapping[Any, Any]) -> None:
    """Ce qui est appris contre ce qui est oublié, un point par graine. found : (façon, texte) → graines."""
    texts = list(dict.fromkeys(key[1] for key in found if key != "avant"))
    fig, axes = canvas(4.6 * len(texts), 3.8, columns=len(texts), squeeze=False)
    said = []
    before = found["avant"]
    for ax, text in zip(axes[0], texts, strict=True):
        start = perplexity_of(before[text]), perplexity_of(before["a"])
        ax.plot(*start, "*", color=BLACK, markersize=13, label="Colibri, avant", linestyle="")
        said.append(f"{TEXTS[text]} : Colibri {number(start[0], 3)} et {number(start[1], 3)}")
        for look, (name, runs) in zip(SERIES, ((n, r) for (n, t), r in _ways(found) if t == text), strict=False):
            points = told(runs), told(runs, 1)
            ax.plot(*points, label=name, **{**look, "linestyle": ""})
            said.append(f"{name} {number(mean(points[0]), 3)} et {number(mean(points[1]), 3)}")
        ax.set_title(f"voix {TEXTS[text]}", fontsize=10.5)
        ax.set_xlabel("perplexité sur la voix (à gauche : mieux apprise)")
        ax.margins(0.12)
        french(ax)
    axes[0][0].set_ylabel("perplexité sur A (en bas : moins oublié)")
    axes[0][0].legend(frameon=False, fontsize=9)
    show(fig, alt=f"Perplexité sur la voix, puis sur A, un point par graine. {' ; '.join(said)}.")


def _ways(found: Mapping[Any, Any]) -> list[tuple[tuple[str, str], Runs]]:
    return [(key, runs) for key, runs in found.items() if key != "avant"]


def _share(start: Losses, runs: Runs, full: Runs) -> float:
    """Nats gagnés sur la voix, en part de ceux que gagnent tous les poids."""
    own, whole = (mean(start) - mean(mean(losses) for losses, _ in some) for some in (runs, full))
    return own / whole


def as_good_table(found: Mapping[Any, Any], here: Mapping[Any, Any]) -> None:
    """Une ligne par façon et par voix ; `here` : ce que vous venez de mesurer, à côté."""
    rows = []
    for (name, text), runs in _ways(found):
        full = found.get((FULL, text), runs)
        yours = here.get((name, text))
        rows.append(
            [
                f"{TEXTS[text]}, {name}",
                spread(told(runs)),
                "—" if runs is full else _ratio(runs, full),
                "—" if runs is full else percent(_share(found["avant"][text], runs, full), decimals=0),
                spread(told(runs, 1)),
                "—" if yours is None else number(told(yours)[0], decimals=2),
            ]
        )
    count = len(_ways(found)[0][1])
    before = ", ".join(f"{TEXTS[text]} {number(perplexity_of(v), decimals=2)}" for text, v in found["avant"].items())
    table(
        rows,
        header=["voix, façon", "perplexité sur la voix", "rapport à « tous les poids » [intervalle]",
                "part du chemin", "perplexité sur A, ensuite", "la vôtre, sur la voix"],
        caption=f"{plural(count, 'graine')}, moyenne et étendue ; Colibri, avant : {before}. "
        "Part du chemin : des nats que gagnent tous les poids",
    )  # fmt: skip


def as_good_verdict(found: Mapping[Any, Any]) -> str:
    """Le verdict du pari, sur la voix B."""
    one, whole = found.get((ADAPTERS, "b")), found.get((FULL, "b"))
    gap = seeds_gap([r[0] for r in one], [r[0] for r in whole]) if one and whole else None
    if gap is None:
        return "nettement moins bien"
    if not gap.told_apart:
        return "aussi bien que tous les poids"
    return "mieux" if gap.high < 0 else "nettement moins bien" if gap.low > 0.1 else "un peu moins bien"


def longer_table(found: Mapping[str, Sequence[Losses]], good: Mapping[Any, Any]) -> None:
    """Une fois et demie plus de pas. found : texte → une perte par graine ; good : ce que rend `as_good`."""
    rows = []
    for text, longer in found.items():
        runs = [(losses, losses) for losses in longer]
        for name, some in ((ADAPTERS, good.get((ADAPTERS, text))), (f"{ADAPTERS}, 1,5 fois plus de pas", runs),
                           (FULL, good.get((FULL, text)))):  # fmt: skip
            if some:
                full = good.get((FULL, text), some)
                rows.append([f"{TEXTS[text]}, {name}", spread(told(some)), "—" if some is full else _ratio(some, full)])
    table(
        rows,
        header=["voix, façon", "perplexité sur la voix", "rapport à « tous les poids » [intervalle]"],
        caption="Des adaptateurs à qui l'on donne tout ce que le compte leur fait gagner",
    )


# --- Les largeurs -----------------------------------------------------------------------------------------------------


def _by_width(
    found: Mapping[int, Mapping[str, Any]], good: Mapping[Any, Any], sixteen: int
) -> dict[int, tuple[int, Runs]]:
    """Goulot → paramètres, graines ; ceux de 16 viennent de `as_good`. sixteen : ses paramètres."""
    swept = {m: (row["paramètres"], row["pertes"]) for m, row in found.items()}
    return dict(sorted((swept | {16: (sixteen, good[ADAPTERS, "b"])}).items()))


def plot_widths(found: Mapping[int, Mapping[str, Any]], good: Mapping[Any, Any], total: int, sixteen: int) -> None:
    """Perplexité sur B et sur A contre la part de Colibri qui apprend. found : goulot → paramètres, graines.

    good : ce que rend `as_good` ; total, sixteen : paramètres de Colibri, et d'adaptateurs de largeur 16.
    """
    swept, full = _by_width(found, good, sixteen), good.get((FULL, "b"))
    shares = [100 * n / total for n, _ in swept.values()]
    fig, axes = canvas(9.4, 3.7, columns=2)
    for which, (ax, title) in enumerate(zip(axes, ("sur la voix B", "sur A, ensuite"), strict=True)):
        values = [told(runs, which) for _, runs in swept.values()]
        ax.plot(shares, [mean(v) for v in values], label="adaptateurs", **SERIES[0])
        ax.vlines(shares, [min(v) for v in values], [max(v) for v in values], color=SERIES[0]["color"])
        for m, share, v in zip(swept, shares, values, strict=True):
            ax.annotate(f"m = {m}", (share, mean(v)), xytext=(5, 6), textcoords="offset points", fontsize=9)
        if full:
            ax.axhline(mean(told(full, which)), color=GREEN, linestyle="--", label="tous les poids (100 %)")
        ax.axhline(
            perplexity_of(good["avant"]["b" if which == 0 else "a"]), color=BLACK, linestyle=":", label="Colibri, avant"
        )
        ax.set_xscale("log")
        ax.set_xticks([0.3, 1, 3, 10])
        ax.set_xlabel("ce qui apprend (% de Colibri, échelle logarithmique)")
        ax.set_title(f"Perplexité {title}", fontsize=10.5)
        ax.margins(0.1)
        french(ax)
    axes[0].legend(frameon=False, fontsize=9)
    show(
        fig,
        alt="Perplexité sur B, puis sur A, selon la largeur du goulot : "
        + " ; ".join(
            f"m = {m} ({number(s, 2, unit='%')}) {number(mean(told(r)), 3)} et {number(mean(told(r, 1)), 3)}"
            for (m, (_, r)), s in zip(swept.items(), shares, strict=True)
        )
        + (f" ; tous les poids {number(mean(told(full)), 3)} et {number(mean(told(full, 1)), 3)}." if full else "."),
    )
    table(
        [
            [
                f"m = {m}",
                n,
                percent(n / total, decimals=2),
                spread(told(runs)),
                _ratio(runs, full or runs),
                spread(told(runs, 1)),
            ]
            for m, (n, runs) in swept.items()
        ],
        header=[
            "goulot",
            "paramètres",
            "part",
            "perplexité sur B",
            "rapport à « tous les poids » [intervalle]",
            "sur A",
        ],
        caption=f"{plural(len(next(iter(swept.values()))[1]), 'graine')}, mêmes pas, chaque largeur à son taux",
    )


PAPER = (
    ("BERT-large, tous les poids", 9.0, 1.0, 80.4),
    ("adaptateurs, m de 8 à 256 selon la tâche", 1.3, 0.036, 80.0),
    ("adaptateurs, m = 64 partout", 1.2, 0.021, 79.6),
)
"""Houlsby et al., 2019, tableau 1 : GLUE, neuf tâches."""


def paper_table() -> None:
    """Le tableau 1 de l'article : score GLUE moyen, paramètres pour neuf tâches, part entraînée par tâche."""
    table(
        [
            [name, number(times, decimals=1, before="×"), percent(share, decimals=1), number(score, decimals=1)]
            for name, times, share, score in PAPER
        ],
        header=["", "paramètres pour les neuf tâches", "entraînés par tâche", "GLUE, score moyen"],
        caption="Houlsby et al., 2019, tableau 1 (test GLUE ; BERT-large, 330 M de paramètres)",
    )


def silence_table(found: Mapping[str, Mapping[str, Losses]]) -> None:
    """Qui travaille. found : texte → adaptateurs réduits au silence → perte, part à part."""
    texts = list(found)
    whole = {text: found[text]["aucun"] for text in texts}

    def said(text: str, name: str) -> list[Any]:
        losses = found[text][name]
        ratio = paired(losses, whole[text]).as_ratio() if name != "aucun" and len(losses) >= 5 else "—"
        return [number(perplexity_of(losses), decimals=2), ratio]

    table(
        [[name, *(cell for text in texts for cell in said(text, name))] for name in found[texts[0]]],
        header=["adaptateurs réduits au silence",
                *(h for text in texts for h in (f"voix {TEXTS[text]}", "rapport [intervalle]"))],
        caption="Perplexité de chaque voix sur son texte, sans réentraîner ; rapport apparié part à part",
    )  # fmt: skip


# --- La famille, mesurée ----------------------------------------------------------------------------------------------


def family_measured(
    selected: Mapping[str, Mapping[str, Any]],
    widths: Mapping[int, Mapping[str, Any]],
    good: Mapping[Any, Any],
    total: int,
    sixteen: int,
) -> None:
    """Les sélectives à côté des adaptateurs et du fine-tuning complet, aux mêmes pas, chacune à son taux."""
    rows: list[tuple[str, int, Runs]] = [(name, row["paramètres"], row["pertes"]) for name, row in selected.items()]
    rows += [(f"adaptateurs, m = {m}", n, runs) for m, (n, runs) in _by_width(widths, good, sixteen).items() if m < 64]
    if good.get((FULL, "b")):
        rows.append((FULL, total, good[FULL, "b"]))
    against = next((runs for name, _, runs in rows if name == "adaptateurs, m = 2"), None)
    table(
        [
            [name, n, percent(n / total, decimals=2), spread(told(runs)),
             "—" if against is None or runs is against else _ratio(runs, against), spread(told(runs, 1))]
            for name, n, runs in rows
        ],
        header=["ce qui apprend", "paramètres", "part", "perplexité sur B", "rapport à m = 2 [intervalle]", "sur A"],
        caption=f"{plural(len(rows[0][2]), 'graine')}, mêmes pas, mêmes fenêtres, chacun à son taux",
    )  # fmt: skip


def selective_verdict(selected: Mapping[str, Mapping[str, Any]], widths: Mapping[int, Mapping[str, Any]]) -> str:
    """Le verdict du pari : adaptateurs de largeur 2, ou BitFit."""
    one, other = ([run[0] for run in row["pertes"]] for row in (widths[2], selected["BitFit"]))
    gap = seeds_gap(one, other)
    if gap is None or not gap.told_apart:
        return "on ne pourra pas les départager"
    return "les adaptateurs, m = 2" if gap.high < 0 else "BitFit"


# --- Une base en 4 bits -----------------------------------------------------------------------------------------------


def four_bit_table(found: Mapping[str, Any], good: Mapping[Any, Any]) -> None:
    """La voix B sur la base en 4 bits. found : façon → une perte par graine ; « sans voix » → la perte de la base."""
    plain = [run[0] for run in good.get((ADAPTERS, "b"), [])]
    rows: list[list[Any]] = [
        ["Colibri, sans voix", number(perplexity_of(good["avant"]["b"])), "—"],
        ["base en 4 bits, sans voix", number(perplexity_of(found["sans voix"])), "—"],
        ["Colibri, et sa voix", spread([perplexity_of(v) for v in plain]), "—"],
    ]
    for name, runs in found.items():
        if name != "sans voix":
            gap = seeds_gap(runs, plain)
            rows.append([f"base en 4 bits, voix {name}", spread([perplexity_of(v) for v in runs]),
                         gap.as_ratio() if gap else "—"])  # fmt: skip
    table(rows, header=["", "perplexité sur B", "rapport à « Colibri, et sa voix » [intervalle]"],
          caption=f"{plural(len(found['apprise dessus']), 'graine')}, m = 16")  # fmt: skip
