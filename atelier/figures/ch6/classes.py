"""Chapitre 6, deuxième partie : classer des textes, de zéro, de Colibri, ou avec une tête seule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from torch import Tensor

from atelier.display import note, show, table
from atelier.figures.ch6 import tasks
from atelier.figures.ch6.compare import gaps, points, said, verdict
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.text import number, percent, setting

Way = tuple[str, str]
"""(ce qui apprend, lecture)."""
Right = Mapping[tuple[str, str, int], Tensor]
"""(ce qui apprend, lecture, textes) → (graines, textes de test) : 1 si la réponse est juste."""
_NAMES = {
    ("zéro", "dernier"): "de zéro, dernier jeton",
    ("tout", "dernier"): "Colibri fine-tuné, dernier jeton",
    ("tout", "moyenne"): "Colibri fine-tuné, moyenne",
    ("gelé", "dernier"): "Colibri gelé, dernier jeton",
    ("gelé", "moyenne"): "Colibri gelé, moyenne",
    ("TF-IDF", "mots"): "TF-IDF et régression",
}
_LOOKS = {
    ("zéro", "dernier"): SERIES[5],
    ("tout", "dernier"): SERIES[0],
    ("tout", "moyenne"): SERIES[0] | {"linestyle": "--", "marker": "s"},
    ("gelé", "dernier"): SERIES[1] | {"linestyle": "-", "marker": "o"},
    ("gelé", "moyenne"): SERIES[1],
    ("TF-IDF", "mots"): SERIES[2],
}
UNDECIDED = "on ne pourra pas les départager"


def subjects_sample(parts: Mapping[str, tuple[list[str], tasks.Examples]]) -> None:
    """Un texte par sujet pour six sujets, coupé comme le modèle le lit, et le nombre de textes de chaque partie."""
    (texts, examples), names, rows = parts["train"], tasks.subject_names(), []
    for label in range(0, len(names), 2):
        found = (examples.labels == label).nonzero()
        if len(found):
            rows.append([names[label], texts[int(found[-1])].strip() + "…", len(found)])
    table(
        rows,
        header=["sujet", f"les {tasks.LENGTH} premiers jetons", "textes"],
        caption="Six des douze sujets (guides de la DILA, service-public.fr)",
    )
    share = examples.labels.bincount().max().item() / len(examples)
    sizes = {name: number(len(part[1])) for name, part in parts.items()}
    note(
        f"{sizes['train']} textes d'apprentissage, {sizes['validation']} de validation, {sizes['test']} de test. "
        f"Répondre toujours le sujet le plus fréquent donne {percent(share, 2)} : voilà le plancher."
    )


def _curves(here: Right, author: Right | None, ways: Sequence[Way]) -> None:
    """Justesse contre nombre de textes, une courbe par façon, un tiret par graine ; étoiles : mesuré ici."""
    kept = author or here
    sizes = sorted({n for *_, n in kept})
    fig, ax = canvas(8.0, 4.2)
    told = []
    for way in ways:
        own = [n for n in sizes if (*way, n) in kept]
        if not own:
            continue
        rows = [100 * kept[*way, n].float().mean(1) for n in own]
        ax.plot(own, [r.mean().item() for r in rows], label=_NAMES[way], **_LOOKS[way])
        for n, row in zip(own, rows, strict=True):
            ax.plot([n] * len(row), row.tolist(), "_", color=_LOOKS[way]["color"], markersize=9)
        told.append(f"{_NAMES[way]} : {', '.join(number(r.mean().item(), 3) for r in rows)} %")
        for n in own if author is not None and here is not author else ():
            if (*way, n) in here and here[*way, n].shape != kept[*way, n].shape:
                ax.plot(n, points(here[*way, n]), "*", color=_LOOKS[way]["color"], markeredgecolor=BLACK, markersize=14)
    ax.set(xscale="log", xlabel="textes étiquetés (échelle logarithmique)", ylabel="bonnes réponses (%)", ylim=(0, 70))
    ax.set_xticks(sizes, [number(n) for n in sizes])
    ax.minorticks_off()
    french(ax, x=False)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    show(
        fig, alt=f"Justesse sur le test contre nombre de textes ({', '.join(map(number, sizes))}). {' ; '.join(told)}."
    )
    seeds = max(len(rows) for rows in kept.values())
    table(
        [[_NAMES[way], *(_cell(kept, way, n) for n in sizes)] for way in ways],
        header=["façon d'apprendre", *(number(n, unit="textes") for n in sizes)],
        caption=f"Bonnes réponses sur les textes de test (%), moyenne de {number(seeds)} graine{'s' * (seeds > 1)}"
        + (" (auteur)" if author is not None else ""),
    )
    if author is not None and here is not author:
        live = ", ".join(
            f"{_NAMES[what, reading]}, {number(n)} textes : {number(points(v), decimals=1)} %"
            for (what, reading, n), v in here.items()
            if v.shape != kept[what, reading, n].shape
        )
        if live:
            note(f"Étoiles, ici, une graine : {live}.")


def _cell(kept: Right, way: Way, n: int) -> Any:
    return number(points(kept[*way, n]), decimals=1) if (*way, n) in kept else "—"


def plot_transfer(here: Right, author: Right | None) -> str:
    """De zéro, de Colibri, par TF-IDF. Rend qui l'emporte avec le moins de textes, pour le pari."""
    ways: list[Way] = [("zéro", "dernier"), ("tout", "dernier"), ("TF-IDF", "mots")]
    _curves(here, author, ways)
    kept = author or here
    n = min(n for *_, n in kept)
    own = sorted((w for w in ways if (*w, n) in kept), key=lambda w: -points(kept[*w, n]))
    both = gaps(kept[*own[0], n], kept[*own[1], n]) if len(own) > 1 else None
    names = {"zéro": "de zéro", "tout": "de Colibri", "TF-IDF": "TF-IDF"}
    return names[own[0][0]] if both is not None and both.told_apart else UNDECIDED


def plot_factors(here: Right, author: Right | None) -> None:
    """Gelé ou fine-tuné, dernier jeton ou moyenne, et la méthode simple."""
    _curves(here, author or None, [w for w in _NAMES if w[0] != "zéro"])


PAIRS: tuple[tuple[str, Way, Way], ...] = (
    ("la moyenne au lieu du dernier jeton, corps gelé", ("gelé", "moyenne"), ("gelé", "dernier")),
    ("la moyenne au lieu du dernier jeton, tout fine-tuné", ("tout", "moyenne"), ("tout", "dernier")),
    ("geler au lieu de tout fine-tuner, dernier jeton", ("gelé", "dernier"), ("tout", "dernier")),
    ("geler au lieu de tout fine-tuner, moyenne", ("gelé", "moyenne"), ("tout", "moyenne")),
    ("tout fine-tuné, moyenne, au lieu de TF-IDF", ("tout", "moyenne"), ("TF-IDF", "mots")),
    ("tout fine-tuné, dernier jeton, au lieu de TF-IDF", ("tout", "dernier"), ("TF-IDF", "mots")),
)
"""Ce que l'on compare : un seul choix change."""


def factors_table(kept: Right) -> str:
    """Les écarts, un choix à la fois. Rend le choix qui pèse le plus avec le moins de textes, pour le pari."""
    rows, effects = [], {}
    for n in sorted({n for *_, n in kept}):
        for name, one, other in PAIRS:
            if (*one, n) not in kept or (*other, n) not in kept:
                continue
            both = gaps(kept[*one, n], kept[*other, n])
            effects[name, n] = both
            gap = points(kept[*one, n]) - points(kept[*other, n])
            cells = [number(gap, decimals=1), "—"] if both is None else [said(both.by_seed), said(both.by_item)]
            rows.append([number(n), name, *cells, verdict(both)])
    table(
        rows,
        header=["textes", "ce qui change", "par graine [95 %]", "par texte de test [95 %]", "départagés ?"],
        caption="Ce que rapporte un choix, l'autre étant gardé : points de justesse",
    )
    least = min(n for *_, n in kept)
    sizes = {}
    for choice, pairs in {"la lecture": PAIRS[:2], "geler ou non": PAIRS[2:4]}.items():
        known = [both for name, *_ in pairs if (both := effects.get((name, least))) is not None and both.told_apart]
        sizes[choice] = mean(abs(both.by_seed.mean) for both in known) if known else 0.0
    best = max(sizes, key=lambda choice: sizes[choice])
    return best if sizes[best] else "ni l'un ni l'autre ne se voit"


def autograd_table(found: Mapping[int, tuple[float, float, float]]) -> None:
    """La tête écrite à la main contre l'autograd. found : pas → (perte, plus grand poids, plus grand écart)."""
    table(
        [
            [n, number(loss, decimals=4), number(largest, 3), number(gap, 2)]
            for n, (loss, largest, gap) in found.items()
        ],
        header=["pas", "perte au dernier pas", "plus grand poids", "plus grand écart, votre tête contre la sienne"],
        caption="200 vecteurs au hasard, 5 classes",
    )


def settings_table(found: Mapping[tuple[str, str, int, float], Sequence[float]]) -> None:
    """Justesse de validation selon le réglage. found : (ce qui apprend, lecture, textes, réglage) → une par graine."""
    rows = []
    for way in dict.fromkeys((a, b) for a, b, *_ in found):
        for n in sorted({n for a, b, n, _ in found if (a, b) == way}):
            tried = {value: mean(found[*way, n, value]) for *own, m, value in found if tuple(own) == way and m == n}
            best = max(tried, key=lambda value: tried[value])
            every = " · ".join(f"{setting(v)} : {number(100 * right, decimals=1)}" for v, right in tried.items())
            rows.append([_NAMES[way], n, every, setting(best)])
    table(
        rows,
        header=["façon d'apprendre", "textes", "réglage : bonnes réponses sur la validation (%)", "le meilleur"],
        caption="Taux d'apprentissage ; pour TF-IDF, l'inverse de la régularisation",
    )
