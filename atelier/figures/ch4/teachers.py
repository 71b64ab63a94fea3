"""Chapitre 4, troisième partie : plusieurs modèles ensemble, un élève pour enseignant, et les chiffres des articles."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

from torch import nn
from transformers import GPT2LMHeadModel

from atelier.display import note, recorded, show, table
from atelier.figures.ch4 import students as st
from atelier.figures.ch4.lessons import (
    Build,
    Lessons,
    final,
    measures,
    missing,
    recorded_by_author,
    source,
)
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, SERIES, canvas, french
from atelier.perplexity import evaluate_perplexity
from atelier.text import number, percent, plural, spread


@recorded("ch4/live_ensemble", needs=("build", "combined", "ensemble"))
def live_ensemble(
    lessons: Lessons | None, build: Build, combined: st.Combined, ensemble: Callable[..., Any], tokens: int
) -> None:
    """Les trois élèves de tout à l'heure, consultés ensemble avec votre `ensemble_probs`."""
    if missing(lessons):
        return
    members: list[nn.Module] = [student for student, _ in lessons.values()]
    together = st.Ensemble(members, ensemble)
    score, shape = evaluate_perplexity(together, max_tokens=tokens).perplexity, st.calibration(together, tokens)
    rows = [
        [f"{st.label(name)}, seul", lesson.perplexity, percent(lesson.calibration.gap)]
        for name, (_, lesson) in lessons.items()
    ]
    rows.append(["les trois ensemble", score, percent(shape.gap)])
    table(rows, header=["élève", "perplexité", "ECE"], caption=f"Mesuré ici, sur {number(tokens)} jetons")


@recorded_by_author("ensemble")
def ensembles() -> None:
    """Des ensembles de 1, 2 et 3 élèves d'étiquettes dures, deux sortes de départ, deux sortes de moyenne."""
    kept = measures("ensemble")
    fig, axes = canvas(9.0, 3.5, columns=2)
    told, gains = [], []
    for ax, (start, title) in zip(
        axes,
        {"couches": "départ hérité de Colibri", "hasard": "départs au hasard, tous différents"}.items(),
        strict=True,
    ):
        groups = kept[start]["ensembles"]
        sizes = sorted({g["k"] for g in groups})
        for key, label, look in (
            ("probabilités", "moyenne des probabilités", SERIES[0]),
            ("logits", "moyenne des logits", SERIES[1]),
        ):
            means = [mean(g[key] for g in groups if g["k"] == k) for k in sizes]
            ax.plot(sizes, means, label=label, lw=1.6, **look)
            if key == "probabilités":
                gains.append(f"{title}, {percent(1 - means[-1] / means[0])}")
            ax.plot([g["k"] for g in groups], [g[key] for g in groups], ".", color=look["color"], ms=4)
            told.append(
                f"{title}, {label} : " + ", ".join(f"{k} → {number(m, 3)}" for k, m in zip(sizes, means, strict=True))
            )
        ax.set_title(title, fontsize=10)
        ax.set_xticks(sizes)
        ax.set_xlabel("élèves dans l'ensemble")
        french(ax, x=False)
    axes[0].set_ylabel("perplexité")
    axes[0].legend(frameon=False, fontsize=8.5)
    show(fig, alt=f"Perplexité d'un ensemble selon le nombre d'élèves. {' ; '.join(told)}.")
    note(f"Ce que gagne l'ensemble de trois sur un élève seul, en moyenne des probabilités : {' ; '.join(gains)}.")


@recorded_by_author("ensemble", "temps")
def who_teaches() -> None:
    """Le même élève devant plusieurs enseignants, à pas égaux : personne, un pareil, un ensemble, Colibri."""
    kept, seconds = measures("ensemble"), measures("temps")
    trio = next(g["probabilités"] for g in kept["couches"]["ensembles"] if g["k"] == 3)
    rows = {
        "personne (étiquettes dures)": (final("dures", st.SHORT), seconds["dures"]),
        f"personne, {2 * st.SHORT} pas": (final("dures", 2 * st.SHORT), 2 * seconds["dures"]),
        "un élève pareil à lui": ([r["perplexité"] for r in kept["élève de pareil"]], seconds["élève de pareil"]),
        "un ensemble de trois": ([r["perplexité"] for r in kept["élève de ensemble"]], seconds["élève de ensemble"]),
        "Colibri, cinq blocs": (final("les deux", st.SHORT), seconds["les deux"]),
    }
    fig, ax = canvas(7.8, 3.2)
    colors = (BLACK, BLACK, ORANGE, GREEN, BLUE)
    for i, ((_, (values, _)), color) in enumerate(zip(rows.items(), colors, strict=True)):
        ax.plot(values, [i] * len(values), "o", color=color, ms=6, alpha=0.7)
        ax.plot([mean(values)] * 2, [i - 0.28, i + 0.28], color=color, lw=2)
    ax.axvline(trio, color=GREEN, lw=1.2, linestyle="--")
    ax.text(trio, -0.75, " l'ensemble de trois, consulté", fontsize=8.5, color=GREEN, va="center")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -1.1)
    ax.set_xlabel("perplexité de l'élève (un point par graine, trait : moyenne)")
    french(ax, y=False)
    told = " ; ".join(f"{name} : {spread(values, 3)}" for name, (values, _) in rows.items())
    show(
        fig,
        alt=f"Perplexité d'un élève de deux blocs selon qui lui enseigne. {told}. L'ensemble de trois, consulté : "
        f"{number(trio, 3)}.",
    )
    table(
        [[name, spread(values, 3), number(cost / seconds["dures"], 2)] for name, (values, cost) in rows.items()],
        header=["qui enseigne", "perplexité de l'élève", "durée (1 : étiquettes dures)"],
        caption=f"Élève de blocs {st.SPACED}, {st.SHORT} pas, T = {number(st.TEMPERATURE, 2)}, "
        f"α = {number(st.ALPHA, 2)} "
        f"({source()}) ; "
        "la durée ne compte pas l'apprentissage des enseignants",
    )


# --- Plus grand que Colibri ---------------------------------------------------------------------------------------


@recorded_by_author("profondeur")
def beside_the_papers(teacher: GPT2LMHeadModel) -> None:
    """Ce qu'un élève garde : les chiffres des articles, et les nôtres."""
    kept = measures("profondeur")
    whole = evaluate_perplexity(teacher, max_tokens=8192).perplexity
    params = teacher.num_parameters()
    ours = {int(n): (r["paramètres"], [r["perplexité"]]) for n, r in kept.items()}
    two = (ours[1][0] + ours[3][0]) // 2
    ours[2] = two, final("les deux", st.SHORT)
    rows = [
        [
            "DistilBERT, 6 blocs sur 12",
            "66 M sur 110 M",
            percent(0.6),
            "GLUE 77,0 contre 79,5",
            number(77.0 / 79.5, 2, before="×"),
            "410 s contre 668 s",
        ],
        [
            "DistilGPT2, 6 blocs sur 12",
            "82 M sur 124 M",
            percent(81_912_576 / 124_439_808),
            "perplexité 21,1 contre 16,3",
            number(21.1 / 16.3, 3, before="×"),
            "—",
        ],
    ]  # fmt: skip
    for n in sorted(ours, reverse=True):
        size, scores = ours[n]
        rows.append(
            [f"Colibri, {plural(n, 'bloc')} sur 5", f"{number(size / 1e6, 3)} M sur {number(params / 1e6, 3)} M",
             percent(size / params), f"perplexité {number(mean(scores), 3)} contre {number(whole, 3)}",
             number(mean(scores) / whole, 3, before="×"), "—"]
        )  # fmt: skip
    table(
        rows,
        header=["élève", "paramètres", "part gardée", "qualité", "rapport", "temps"],
        caption="Articles : Sanh et al., 2019, tableaux 1 et 3 (GLUE : plus haut, c'est mieux ; temps d'un passage sur "
        "STS-B, CPU) ; fiche de distilgpt2 (après fine-tuning sur WikiText-103). "
        f"Colibri : {st.SHORT} pas, {source()} (une graine hors de 2 blocs)",
    )
    fig, ax = canvas(6.8, 3.2)
    sizes = [ours[n][0] / 1e6 for n in sorted(ours)] + [params / 1e6]
    scores = [mean(ours[n][1]) for n in sorted(ours)] + [whole]
    ax.semilogy(sizes, scores, lw=1.6, ms=6, **SERIES[0])
    for n, x, y in zip([*sorted(ours), 5], sizes, scores, strict=True):
        name = "Colibri" if n == 5 else plural(n, "bloc")
        ax.annotate(f"{name} : {number(y, 3)}", (x, y), (6, 4), textcoords="offset points", fontsize=8.5)
    ax.set_xlabel("millions de paramètres")
    ax.set_ylabel("perplexité")
    ax.set_yticks([10, 20, 50, 100, 200])
    ax.set_xlim(1.0, 3.6)
    french(ax)
    show(
        fig,
        alt="Perplexité contre paramètres : "
        + ", ".join(f"{number(x, 3)} M : {number(y, 3)}" for x, y in zip(sizes, scores, strict=True))
        + ".",
    )
