"""Chapitre 4, deuxième partie : des élèves taillés dans Colibri, et ce que leur apprennent leurs étiquettes."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from transformers import GPT2LMHeadModel

from atelier.display import note, recorded, show, table
from atelier.figures.ch4 import students as st
from atelier.figures.common.measured import measured
from atelier.figures.common.style import BLACK, BLUE, RED, SERIES, canvas, french
from atelier.measures import load_measures
from atelier.perplexity import evaluate_perplexity
from atelier.text import number, percent, spread
from atelier.training import lm_loss

if TYPE_CHECKING:
    from typing_extensions import TypeIs

CHAPTER = "ch4_distillation"
Build = Callable[[GPT2LMHeadModel, Sequence[int]], GPT2LMHeadModel]
Lessons = dict[str, tuple[GPT2LMHeadModel, st.Lesson]]
"""Étiquettes → l'élève et son apprentissage."""
KEPT = {"dures": "dures", "douces": "douces", "les deux": "melange"}
"""Étiquettes → nom de l'expérience dans les mesures enregistrées."""
LOOKS = dict(zip(KEPT, SERIES, strict=False))


def measures(name: str) -> Any:
    """Une expérience enregistrée par l'auteur."""
    return load_measures(CHAPTER)[name]


def recorded_by_author(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Décore une figure qui lit ces expériences : s'il en manque une, une phrase le dit, et rien n'est dessiné."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return None if measured(CHAPTER, *names) is None else function(*args, **kwargs)

        return wrapper

    return decorate


def source() -> str:
    """D'où viennent les mesures enregistrées : graines et machine."""
    kept = load_measures(CHAPTER)
    return f"mesuré par l'auteur, {len(kept['recette']['graines'])} graines, {kept['machine'].split(' · ')[0]}"


def final(name: str, steps: int = st.STEPS) -> list[float]:
    """Les perplexités finales enregistrées d'une sorte d'étiquettes, une par graine."""
    return [r["perplexité"] for r in measures(KEPT[name])[str(steps)]]


def kept_steps(lessons: Lessons) -> int:
    """Le nombre de pas des mesures enregistrées à mettre à côté d'élèves d'ici : le leur, s'il a été mesuré."""
    steps = len(lessons["dures"][1].log.losses)
    return steps if str(steps) in measures(KEPT["douces"]) else st.STEPS


def missing(lessons: Lessons | None) -> TypeIs[None]:
    """Vrai, et une phrase le dit, si la cellule qui entraîne les élèves n'a pas tourné avec les exercices faits."""
    if lessons is None:
        note("Les élèves n'ont pas encore appris : relancez d'abord la cellule qui les entraîne.")
    return lessons is None


# --- Avant d'apprendre --------------------------------------------------------------------------------------------


@recorded("ch4/depths_before", needs=("build", "layers"))
def depths_before(
    teacher: GPT2LMHeadModel, build: Build, layers: Callable[[int, int], list[int]], tokens: int = 2048
) -> None:
    """Des élèves de toutes les profondeurs, sans aucun apprentissage."""
    depth, whole, rows = teacher.config.n_layer, teacher.num_parameters(), []
    for n in range(depth, 0, -1):
        kept = layers(depth, n)
        student = build(teacher, kept)
        size, score = student.num_parameters(), evaluate_perplexity(student, max_tokens=tokens).perplexity
        rows.append([n, str(kept), size, percent(size / whole), score])
    table(
        rows,
        header=["blocs", "lesquels", "paramètres", "part de Colibri", "perplexité sans apprendre"],
        caption=f"Élèves taillés dans Colibri ({number(tokens)} jetons évalués)",
    )


@recorded("ch4/pairs_before", needs=("build",))
def pairs_before(teacher: GPT2LMHeadModel, build: Build, tokens: int = 2048) -> None:
    """Les dix élèves de deux blocs, sans aucun apprentissage."""
    pairs = list(itertools.combinations(range(teacher.config.n_layer), 2))
    scores = {p: evaluate_perplexity(build(teacher, list(p)), max_tokens=tokens).perplexity for p in pairs}
    ranked = sorted(scores, key=scores.__getitem__)
    colors = {tuple(st.SPACED): BLUE, tuple(st.FIRST): RED}
    fig, ax = canvas(7.6, 3.4)
    said = {tuple(st.SPACED): " (le premier et le dernier)", tuple(st.FIRST): " (les deux premiers)"}
    ax.barh(range(len(ranked)), [scores[p] for p in ranked], color=[colors.get(p, "#BBBBBB") for p in ranked])
    for i, p in enumerate(ranked):
        ax.text(scores[p], i, f" {number(scores[p], 3)}{said.get(p, '')}", va="center", fontsize=8.5)
    ax.set_yticks(range(len(ranked)), [f"{a} et {b}" for a, b in ranked])
    ax.set_ylabel("blocs gardés")
    ax.set_xscale("log")
    ax.set_xlabel("perplexité sans apprendre (échelle logarithmique)")
    ax.invert_yaxis()
    french(ax, y=False)
    told = ", ".join(f"{a} et {b} : {number(scores[a, b], 3)}" for a, b in ranked)
    show(
        fig,
        alt=f"Perplexité des dix élèves de deux blocs, avant tout apprentissage, de la meilleure à la pire. {told}.",
    )


# --- Trois sortes d'étiquettes ------------------------------------------------------------------------------------


@recorded("ch4/three_lessons", needs=("build", "combined"))
def three_lessons(
    teacher: GPT2LMHeadModel, build: Build, combined: st.Combined, steps: int, tokens: int, seed: int = 7
) -> Lessons:
    """Trois élèves partis des mêmes poids, sur les mêmes fenêtres : étiquettes dures, douces, les deux. Les rend."""
    lessons: Lessons = {}
    for name, alpha in st.OBJECTIVES.items():
        student = build(teacher, st.SPACED)
        loss = lm_loss if alpha == 0 else st.taught(teacher, combined, st.TEMPERATURE, alpha)
        every = max(1, steps // 5)
        lessons[name] = student, st.teach(student, loss, steps, seed, st.label(name), every, tokens=tokens)
    kept = kept_steps(lessons)
    _curves(lessons, tokens)
    rows = []
    hard_step = lessons["dures"][1].log.step_seconds
    for name, (_, lesson) in lessons.items():
        step = lesson.log.step_seconds
        costs = number(1000 * step, 3), number(step / hard_step, 2)
        rows.append([st.label(name), lesson.perplexity, spread(final(name, kept), 3), *costs])
    table(
        rows,
        header=["élève", "perplexité, ici", "perplexité, trois graines", "ms par pas, ici", "fois un pas dur"],
        caption=f"Élèves de blocs {st.SPACED}, {steps} pas de {number(st.BATCH * st.LENGTH)} jetons ici ; perplexité "
        f"sur {number(tokens)} jetons jamais lus ; trois graines : {source()}, {kept} pas",
    )
    return lessons


def unread(tokens: int = st.CURVE_TOKENS) -> str:
    """L'axe d'une courbe d'apprentissage : ce qui y est évalué."""
    return f"perplexité, {number(min(st.CURVE_TOKENS, tokens))} jetons jamais lus"


def _curves(lessons: Lessons, tokens: int) -> None:
    fig, ax = canvas(7.6, 3.8)
    kept = str(kept_steps(lessons))
    for name, (_, lesson) in lessons.items():
        look = LOOKS[name]
        runs = [r["courbe"] for r in measures(KEPT[name])[kept]]
        steps = [i for i, _ in runs[0]]
        values = list(zip(*([p for _, p in run] for run in runs), strict=True))
        ax.fill_between(
            steps, [min(v) for v in values], [max(v) for v in values], color=look["color"], alpha=0.18, lw=0
        )
        ax.plot(*zip(*lesson.curve, strict=True), lw=1.6, ms=5, label=st.label(name), **look)
    ax.set_yscale("log")
    ax.set_yticks([40, 50, 60, 80, 100, 150])
    ax.set_ylim(35, 160)
    ax.set_xlabel("pas")
    ax.set_ylabel(unread(tokens))
    ax.legend(frameon=False, fontsize=9, title="trait : ici ; bande : trois graines de l'auteur", title_fontsize=8.5)
    french(ax)
    told = " ; ".join(
        f"{st.label(name)}, de {number(lesson.curve[0][1], 3)} à {number(lesson.curve[-1][1], 3)}"
        for name, (_, lesson) in lessons.items()
    )
    show(fig, alt=f"Trois élèves pendant l'apprentissage, {unread(tokens)}. {told}.")


@recorded("ch4/equal_cost", needs=("build", "combined"))
@recorded_by_author("temps")
def equal_cost(lessons: Lessons | None, build: Build, combined: st.Combined) -> None:
    """Les mêmes élèves, à nombre de pas égal puis à durée égale, l'unité de durée étant un pas d'étiquettes dures."""
    if missing(lessons):
        return
    seconds = measures("temps")
    fig, axes = canvas(9.2, 3.7, columns=2, sharey=True)
    reached: dict[str, list[tuple[int, float]]] = {}
    for name, key in KEPT.items():
        look, ratio = LOOKS[name], seconds[name] / seconds["dures"]
        points = [(int(n), mean(r["perplexité"] for r in runs)) for n, runs in measures(key).items()]
        reached[name] = points
        student_log = lessons[name][1]
        live = student_log.log.step_seconds / lessons["dures"][1].log.step_seconds
        for ax, factor, mine in ((axes[0], 1.0, 1.0), (axes[1], ratio, live)):
            ax.plot(
                [factor * n for n, _ in points],
                [p for _, p in points],
                lw=1.4,
                ms=6,
                label=st.label(name),
                **look,
            )
            for n, runs in measures(key).items():
                ax.plot([factor * int(n)] * len(runs), [r["perplexité"] for r in runs], ".", color=look["color"], ms=3)
            ax.plot(
                [mine * len(student_log.log.losses)],
                [student_log.perplexity],
                "*",
                color=look["color"],
                ms=13,
                mec=BLACK,
            )
    axes[0].set_xlabel("pas")
    axes[1].set_xlabel("durée, en pas d'étiquettes dures")
    axes[0].set_ylabel("perplexité finale")
    axes[0].set_title("à nombre de pas égal", fontsize=10)
    axes[1].set_title("à durée égale", fontsize=10)
    axes[0].legend(
        frameon=False, fontsize=8.5, title="★ : ici ; points : graines de l'auteur et leur moyenne", title_fontsize=8
    )
    for ax in axes:
        ax.set_xlim(0)
        french(ax)
    ratios = {name: seconds[name] / seconds["dures"] for name in KEPT}
    told = " ; ".join(
        f"{st.label(name)}, un pas coûte {number(ratios[name], 3)}, "
        + ", ".join(f"{n} pas : {number(p, 3)}" for n, p in points)
        for name, points in reached.items()
    )
    show(fig, alt=f"Perplexité finale contre le nombre de pas, puis contre la durée. {told}.")
    _say_equal_cost(ratios)


def _say_equal_cost(ratios: dict[str, float]) -> None:
    """À durée égale : les étiquettes dures, graine par graine, lues entre deux durées (linéaire en log du pas).

    Le verdict ne départage que des graines qui ne se mêlent pas. Si la durée dépasse la plus longue mesure, c'est elle
    qui est lue, et la phrase le dit.
    """
    hard = {int(n): [r["perplexité"] for r in runs] for n, runs in measures("dures").items()}
    longest = max(hard)
    for name in ("douces", "les deux"):
        own, budget = final(name), st.STEPS * ratios[name]
        low = max((n for n in hard if n <= budget), default=min(hard))
        high = min((n for n in hard if n >= budget), default=longest)
        share = 0.0 if low == high else math.log(budget / low) / math.log(high / low)
        same = [(1 - share) * a + share * b for a, b in zip(hard[low], hard[high], strict=True)]
        read = "lue entre deux mesures" if budget <= longest else f"à {longest} pas, notre plus longue mesure"
        verdict = "leurs graines se mêlent : rien ne les départage"
        if min(same) > max(own):
            verdict = "les étiquettes dures restent derrière"
        elif max(same) < min(own):
            verdict = "les étiquettes dures passent devant"
        note(
            f"{st.label(name).capitalize()}, {st.STEPS} pas : {spread(own, 3)}. Dans la même durée, un élève "
            f"d'étiquettes dures fait {number(budget, 3)} pas ; sa perplexité, {read} : {spread(same, 3)}. "
            f"À durée égale, {verdict}."
        )


@recorded("ch4/calibrations", needs=("build", "combined"))
def calibrations(
    teacher: GPT2LMHeadModel, lessons: Lessons | None, build: Build, combined: st.Combined, tokens: int
) -> None:
    """Confiance contre justesse, pour Colibri et ses trois élèves."""
    if missing(lessons):
        return
    models = {"Colibri": st.calibration(teacher, tokens)}
    models |= {name: lesson.calibration for name, (_, lesson) in lessons.items()}
    fig, axes = canvas(10.0, 2.9, columns=4, sharey=True)
    rows = []
    kept = str(kept_steps(lessons))
    for ax, (name, found), look in zip(axes, models.items(), (SERIES[5], *SERIES), strict=False):
        ax.plot([0, 1], [0, 1], color=BLACK, lw=0.9, linestyle=":")
        sizes = [8 + 300 * share for _, _, share in found.bins]
        ax.scatter(
            [c for c, _, _ in found.bins], [r for _, r, _ in found.bins], s=sizes, color=look["color"], alpha=0.8
        )
        ax.plot([c for c, _, _ in found.bins], [r for _, r, _ in found.bins], color=look["color"], lw=1)
        title = name if name == "Colibri" else st.label(name)
        ax.set_title(f"{title}\nECE {percent(found.gap)}", fontsize=9)
        ax.set_xlabel("confiance")
        french(ax)
        authors = [r["ece"] for r in measures(KEPT[name])[kept]] if name in KEPT else []
        told = spread([100 * a for a in authors], 2, unit="%") if authors else "—"
        rows.append([title, percent(found.right), percent(found.gap), told])
    axes[0].set_ylabel("justesse")
    show(
        fig,
        alt="Quatre diagrammes de calibration : justesse du premier choix contre confiance annoncée, l'idéal "
        "étant la diagonale. "
        + " ; ".join(f"{row[0]}, ECE {row[2]}, premier choix juste {row[1]}" for row in rows)
        + ".",
    )
    table(
        rows,
        header=["modèle", "premier choix juste", "ECE, ici", "ECE, trois graines de l'auteur"],
        caption=f"Calibration sur {number(tokens)} jetons jamais lus ; trois graines : {source()}, {kept} pas",
    )


# --- Témoins ------------------------------------------------------------------------------------------------------


@recorded_by_author("couches")
def layers_compared() -> None:
    """Premiers blocs contre blocs espacés, avant et après apprentissage (mesures enregistrées)."""
    kept = measures("couches")
    before = {tuple(r["couches"]): r["perplexité"] for r in kept["avant"]}
    after = {
        tuple(st.SPACED): final("les deux", st.SHORT),
        tuple(st.FIRST): [r["perplexité"] for r in kept["premières"]],
    }
    table(
        [[f"blocs {list(pair)}", before[pair], spread(runs, 3), max(runs) - min(runs)] for pair, runs in after.items()],
        header=["élève", "avant d'apprendre", f"après {st.SHORT} pas", "écart entre graines"],
        caption="Perplexité sur 8 192 jetons jamais lus, étiquettes dures et douces ensemble, mêmes fenêtres "
        f"({source()})",
    )


@recorded_by_author("hasard")
def random_start() -> None:
    """Le témoin : les mêmes étiquettes, un élève qui part de poids tirés au hasard (mesures enregistrées)."""
    kept = measures("hasard")
    fig, axes = canvas(9.2, 3.6, columns=2)
    told = []
    for ax, runs_of, title in (
        (axes[0], {n: measures(KEPT[n])[str(st.STEPS)] for n in ("dures", "douces")}, "l'élève hérite de deux blocs"),
        (axes[1], kept, "l'élève part du hasard"),
    ):
        for name, runs in runs_of.items():
            for k, run in enumerate(runs):
                look = LOOKS[name] | {"marker": ""}
                ax.plot(*zip(*run["courbe"], strict=True), lw=1.3, label=st.label(name) if k == 0 else None, **look)
            told.append(f"{title}, {st.label(name)} : {spread([r['perplexité'] for r in runs], 3)}")
        ax.set_yscale("log")
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("pas")
        french(ax)
    axes[0].set_ylabel(unread())
    axes[0].set_yticks([50, 70, 100, 150])
    axes[1].set_yticks([200, 500, 1000, 2000, 4000])
    axes[0].legend(frameon=False, fontsize=9)
    show(fig, alt=f"Courbes d'apprentissage, trois graines chacune. {' ; '.join(told)}.")
    table(
        [[t.rpartition(" : ")[0], t.rpartition(" : ")[2]] for t in told],
        header=["départ et étiquettes", f"perplexité après {st.STEPS} pas"],
        caption=f"Perplexité sur 8 192 jetons jamais lus ; mêmes fenêtres, même recette ({source()})",
    )


# --- Température et mélange ---------------------------------------------------------------------------------------


@recorded("ch4/grid", needs=("build", "combined"))
@recorded_by_author("grille")
def grid(
    teacher: GPT2LMHeadModel,
    build: Build,
    combined: st.Combined,
    temperature: float,
    alpha: float,
    steps: int,
    tokens: int,
) -> None:
    """Perplexité selon T et α : la carte de l'auteur, et votre point."""
    import numpy as np

    student = build(teacher, st.SPACED)
    loss = st.taught(teacher, combined, temperature, alpha)
    lesson = st.teach(student, loss, steps, 7, f"T = {number(temperature)}, α = {number(alpha, 2)}", 0, tokens=tokens)
    kept = measures("grille")
    length = kept["pas"]
    hard = [r["perplexité"] for r in measures("dures")[str(length)]]
    temperatures = sorted({c["T"] for c in kept["cases"]})
    alphas = [0.0, *sorted({c["alpha"] for c in kept["cases"]})]
    runs = {(c["T"], c["alpha"]): c["perplexités"] for c in kept["cases"]}
    found = {at: sum(v) / len(v) for at, v in runs.items()}
    without = sum(hard) / len(hard)
    values = np.array([[found.get((t, a), without) for t in temperatures] for a in alphas])

    fig, ax = canvas(7.0, 3.8)
    ax.grid(False)
    image = ax.imshow(values, cmap="cividis", aspect="auto", origin="lower")
    fig.colorbar(image, label="perplexité", format=lambda v, _: number(float(v), 3))
    for i, j in itertools.product(range(len(alphas)), range(len(temperatures))):
        v = values[i, j]
        dark = v < (values.min() + values.max()) / 2
        ax.text(j, i, number(float(v), 3), ha="center", va="center", color="white" if dark else "black", fontsize=9)
    x = float(np.interp(np.log(temperature), np.log(temperatures), range(len(temperatures))))
    y = float(np.interp(alpha, alphas, range(len(alphas))))
    ax.plot([x], [y], "*", color=RED, ms=20, mec="white")
    ax.set_xticks(range(len(temperatures)), [number(t, 3) for t in temperatures])
    ax.set_yticks(range(len(alphas)), [number(a, 2) for a in alphas])
    ax.set_xlabel("température T")
    ax.set_ylabel("α, part du terme doux")
    best = min(found, key=found.__getitem__)
    show(
        fig,
        alt=f"Carte de la perplexité selon T et α, {length} pas. Sans terme doux (α = 0) : {number(hard[0], 3)}. "
        "Meilleure "
        f"case : T = {number(best[0], 2)}, α = {number(best[1], 2)}, {number(found[best], 3)}. Une étoile marque le "
        "point "
        f"essayé ici, T = {number(temperature, 2)}, α = {number(alpha, 2)} : {number(lesson.perplexity, 3)}.",
    )
    note(
        f"Votre point, T = {number(temperature, 2)} et α = {number(alpha, 2)}, {steps} pas : perplexité "
        f"{number(lesson.perplexity, 3)}. Carte : moyenne de trois graines, {length} pas, "
        f"{load_measures(CHAPTER)['machine'].split(' · ')[0]}. "
        f"Pour juger d'un écart : trois graines d'étiquettes dures, à cette durée, vont de {number(min(hard), 3)} à "
        f"{number(max(hard), 3)}."
    )
