"""Accueil : Colibri qui écrit, la carte du cours, ses chapitres, et `check` montré sur une fonction pour rire."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from atelier import packs, paths
from atelier.display import _display, show
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, canvas
from atelier.hardware import home
from atelier.judging.calls import case_text
from atelier.judging.compare import CaseResult, compare
from atelier.judging.diagnose import diagnose
from atelier.judging.exercise import Tolerance
from atelier.judging.probes import run_case
from atelier.text import number, plural

PARTS = {
    "Connaître": (BLUE, ("ch1_rappel_gpt2", "ch2_flops_6nd")),
    "Réduire": (GREEN, ("ch3_quantification", "ch4_distillation", "ch5_elagage")),
    "Adapter": (ORANGE, ("ch6_finetuning", "ch7_adapters", "ch8_lora")),
    "À votre tour": (PURPLE, ("ch9_exposes",)),
}
"""Les parties du cours : couleur, chapitres."""


def written_parts() -> dict[str, tuple[str, list[str]]]:
    """Les parties, sans les chapitres qui n'existent pas encore."""
    known = packs.load_packs()
    kept = {part: (color, [c for c in chapters if c in known]) for part, (color, chapters) in PARTS.items()}
    return {part: (color, chapters) for part, (color, chapters) in kept.items() if chapters}


def address(chapter: str) -> str:
    """Le carnet du chapitre, vu de l'accueil ; "" s'il n'est pas dans cette copie du cours.

    nbgrader met chaque devoir dans un dossier à son nom.
    """
    alone, fetched = f"{chapter}.ipynb", f"{chapter}/{chapter}.ipynb"
    if (paths.root() / "notebooks" / alone).is_file():
        return alone
    return next((path for path in (alone, fetched) if (paths.started_in() / path).is_file()), "")


def label(chapter: str) -> str:
    """« ch3 » pour « ch3_quantification »."""
    return chapter.split("_")[0]


def chapter_map() -> None:
    """Dessine la carte du cours : une colonne par partie, une case par chapitre, en tirets s'il n'est pas ici."""
    titles, parts = paths.chapter_titles(), written_parts()
    fig, ax = canvas(2.5 * len(parts), 4.2)
    ax.axis("off")
    ax.set(xlim=(-0.1, len(parts) * 2.6 - 0.1), ylim=(-0.35, 4))
    for column, (part, (color, chapters)) in enumerate(parts.items()):
        left = column * 2.6
        ax.text(left + 1.1, 3.75, part, ha="center", va="center", fontsize=15, fontweight="bold", color=BLACK)
        for row, chapter in enumerate(chapters):
            _draw_chapter(ax, left, 2.55 - row * 1.2, chapter, titles[chapter], color)
        if column:
            arrow = {"arrowstyle": "-|>", "color": BLACK, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", xy=(left - 0.02, 3.0), xytext=(left - 0.38, 3.0), arrowprops=arrow)
    if not all(address(chapter) for _, chapters in parts.values() for chapter in chapters):
        legend = "trait plein\u00a0: dans cette copie du cours     tirets\u00a0: pas encore"
        ax.text(0, -0.2, legend, fontsize=11, color=BLACK)
    show(fig, alt=map_alt())


def _draw_chapter(ax: Any, left: float, bottom: float, chapter: str, title: str, color: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    written = bool(address(chapter))
    box = FancyBboxPatch(
        (left, bottom),
        2.2,
        0.9,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=color + ("40" if written else "10"),
        edgecolor=color,
        linewidth=2,
        linestyle="-" if written else (0, (4, 3)),
    )
    ax.add_patch(box)
    ax.text(left + 1.1, bottom + 0.64, label(chapter), ha="center", va="center", fontsize=11, color=BLACK)
    ax.text(left + 1.1, bottom + 0.3, title, ha="center", va="center", fontsize=12.5, fontweight="bold", color=BLACK)


def map_alt() -> str:
    """Ce que la carte montre, en mots."""
    titles = paths.chapter_titles()

    def cell(chapter: str) -> str:
        return f"{label(chapter)} {titles[chapter]}" + ("" if address(chapter) else " (pas encore)")

    parts = written_parts()
    told = [f"«\u00a0{part}\u00a0»\u00a0: {', '.join(map(cell, chapters))}" for part, (_, chapters) in parts.items()]
    return f"Carte du cours, {len(parts)} parties qui se suivent. " + "\u202f; ".join(told) + "."


def chapter_links() -> None:
    """Les chapitres qui suivent, ce qu'ils demandent ; ceux qui sont dans cette copie s'ouvrent d'un clic."""
    items, lines, known = [], [], packs.load_packs()
    for chapter in paths.course()["chapters"][1:]:
        if chapter["name"] not in known:
            continue
        asked = [e for e in known[chapter["name"]]["exercises"].values() if e["stars"] < 3]  # sans les bonus
        points, minutes = (sum(exercise[what] for exercise in asked) for what in ("points", "minutes"))
        work = f"{plural(len(asked), 'exercice')}, {plural(points, 'point')}, {number(minutes, unit='min')}"
        name, title = chapter["name"], html.escape(chapter["title"])
        subject = html.escape(f"{chapter['subject']} ({work})")
        head = f"{label(name)} · {title}"
        if link := address(name):
            items.append(f'<li><a href="{link}">{head}</a>\u00a0: {subject}</li>')
        else:
            items.append(f"<li>{head}\u00a0: {subject} <em>pas encore dans cette copie</em></li>")
        lines.append(
            f"{label(name)} · {chapter['title']}\u00a0: {chapter['subject']} ({work})"
            + ("" if link else ", pas encore dans cette copie")
        )
    _display(f'<ul style="list-style:none;padding-left:0">{"".join(items)}</ul>', "\n".join(lines))


# --- Colibri ----------------------------------------------------------------------------------------------------------


def write_on(beginning: str, tokens: int = 40, seed: int = 0) -> None:
    """Affiche la suite que Colibri donne à un début de texte, et ce que Colibri pèse.

    Chaque jeton est tiré parmi les 40 plus probables, à la température 0,8 ; une autre graine donne une autre suite.
    """
    import torch

    from atelier.models import load_model, load_tokenizer
    from atelier.perplexity import END

    model, tokenizer = load_model("colibri"), load_tokenizer("colibri")
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(END), *tokenizer(beginning)["input_ids"]], device=home(model))
    torch.manual_seed(seed)
    written = model.generate(
        ids[None],
        attention_mask=torch.ones_like(ids)[None],
        max_new_tokens=tokens,
        do_sample=True,
        top_k=40,
        temperature=0.8,
        pad_token_id=int(ids[0]),
    )
    print(f"{tokenizer.decode(written[0, 1:], skip_special_tokens=True)} …")
    count = sum(p.numel() for p in model.parameters())
    print(f"\n[{number(count)} paramètres, {number(count * 4 / 1e6, 3, unit='Mo')} à quatre octets par paramètre]")


# --- `check`, montré sans exercice -----------------------------------------------------------------------------------

CASES = ({"a": 2.0, "b": 2.0}, {"a": 0.0, "b": 10.0}, {"a": 4.0, "b": 6.0}, {"a": -1.0, "b": 2.0})
TOLERANCE = Tolerance(rtol=1e-9, why="une addition et une division de flottants")
MESSAGES = {
    "precedence": "dans a + b / 2, quelle opération Python fait-il en premier\u202f?",
    "sum": "la somme est juste\u202f; il reste à la partager en deux.",
}
MISTAKES: dict[str, Callable[[float, float], float]] = {
    "precedence": lambda a, b: a + b / 2,
    "sum": lambda a, b: a + b,
}


def demonstrate_check(fn: Callable[..., Any]) -> None:
    """Dit de `fn(a, b)`, qui devrait rendre le milieu de a et b, ce que `check` en dirait."""
    results = []
    for inputs in CASES:
        expected = run_case("call", lambda a, b: (a + b) / 2, inputs)
        got = run_case("call", fn, inputs)
        wrong = {name: run_case("call", mistake, inputs) for name, mistake in MISTAKES.items()}
        results.append(CaseResult("courant", inputs, expected, got, compare(expected, got, inputs, TOLERANCE), wrong))
    failed = next((i for i, result in enumerate(results) if not result.verdict.ok), None)
    name = getattr(fn, "__name__", "votre fonction")
    if failed is None:
        print(f"✔ {name}\u00a0: {len(results)} cas sur {len(results)}")
        return
    result = results[failed]
    print(f"✗ {name}, cas {failed + 1} sur {len(results)}\u00a0: {case_text(name, 'call', result.inputs)}")
    print("\n".join(f"   {line}" for line in result.verdict.message.splitlines()))
    found = diagnose(results, MESSAGES, TOLERANCE)
    if found:
        print(f"   Piste\u00a0: {found.sentence}")
