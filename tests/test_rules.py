"""Ce que `build` refuse, et ce que dit la ligne de commande."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import plain
from scratch_chapter import (
    NAME,
    ROOT,
    course_fixture,  # noqa: F401
    edit,
    run,
)

from atelier import paths
from atelier.lexicon import TERMS, _plain
from grader import __main__ as command_line
from grader.authoring import build
from grader.authoring.chapters import load_chapter
from grader.authoring.rules import check_shared_lines
from grader.authoring.words import WORDS, misused, misused_in_code

# --- Les défauts d'un chapitre ---------------------------------------------------------------------------------------

END = 'print("fin")'
DOUBLE_FILE, QUIZ_FILE = "exercises/double.py", "quiz.md"
ILL_WRITTEN = [
    ("chapter.py", ('exercise="double"', 'exercise="triple"'), "def double( (triple)", "n'est pas déclaré"),
    ("chapter.py", ('exercise="double"', 'exercise="triple"'), "(double)", "ne le montre nulle part"),
    ("chapter.py", ('exercise="Shift"', 'exercise="double"'), "class Shift (double)", "deux cellules portent le nom"),
    (
        "chapter.py",
        ("    ### END SOLUTION\n    return scaled", "    return scaled"),
        "### BEGIN",
        "sans « END SOLUTION »",
    ),
    ("chapter.py", ("    ### BEGIN SOLUTION\n    if times", "    if times"), "### END", "sans « BEGIN SOLUTION »"),
    ("chapter.py", ("    scaled_copy =", "    # BEGIN SOLUTION\n    scaled_copy ="), "    # BEGIN", "déjà ouverte"),
    ("chapter.py", ("# La suite.", "# ### BEGIN SOLUTION"), "# ### BEGIN", "hors d'une cellule d'exercice"),
    ("chapter.py", (END, "print('BEGIN SOLUTION')"), "print('BEGIN", "hors d'une cellule d'exercice"),
    ("chapter.py", ('    """Ajoute `amount`, qui part de 1."""\n', ""), "class Shift (Shift)", "docstring"),
    ("chapter.py", ("def double(", "def doubled("), "def doubled( (double)", "ne définit"),
    ("chapter.py", (', alt="Une courbe qui monte."', ""), 'show("courbe"', "sans texte de remplacement"),
    ("chapter.py", ("Une courbe qui monte.", ""), 'show("courbe"', "sans texte de remplacement"),
    ("chapter.py", ('show("courbe", alt="Une courbe qui monte.")', "plt.show()"), "plt.show()", "plt.show()"),
    ("chapter.py", ("# La suite.", "# Voici :\n# ![](image.png)"), "# ![]", "image sans texte de remplacement"),
    ("chapter.py", ("# La suite.", '# <img src="image.png">'), "# <img", "image sans texte de remplacement"),
    ("chapter.py", ('q="steps"', 'q="stops"'), "# ??? (stops)", "n'est pas dans"),
    ("chapter.py", ('q="steps"', 'q="stops"'), "(steps)", "ne le montre nulle part"),
    ("chapter.py", ('q="steps"', "steps"), "# ???", "ligne de quiz illisible"),
    ("chapter.py", (END, 'quiz("steps")'), 'quiz("steps")', "se montre par une ligne"),
    ("chapter.py", (END, "# lisez solutions/ch3"), "# lisez", "« solutions/ » resterait"),
    ("chapter.py", ("# La suite.", "# Voir le grader."), "# Voir", "« grader » resterait"),
    (
        "chapter.py",
        (END, "print(scaled_copy := x * float(times))\nscaled_copy = x * float(times)"),
        "print(sc",
        "de `double`",
    ),
    ("chapter.py", (END, "x = 1\nété = 1"), "été = 1", "l'identifiant « été »"),
    ("chapter.py", (END, "%matplotlib inline"), "%matplotlib", "pas du Python"),
    ("chapter.py", ("### ✎ double", "### Exercice : `double` · 2 points"), "# ### Exer", "écrivez « ### ✎ nom »"),
    ("chapter.py", ("### ✎ double", "### ✎ triple"), "# ### ✎ triple", "écrivez « ### ✎ nom »"),
    ("chapter.py", ("### ✎ double", "### Doubler"), "def double( (double)", "aucun titre"),
    ("chapter.py", ("# La suite.", "# La suite.\n# ### ✎ double"), "(markdown)", "est déjà annoncé"),
    ("chapter.py", ("# La suite.", "# La suite..."), "# La suite", "trois points"),
    ("chapter.py", ("# La suite.", "# Une «suite»."), "# Une «", "il manque une espace"),
    ("chapter.py", ("# La suite.", "# La suite\u202f!"), "# La suite", "une espace insécable est tapée"),
    ("chapter.py", ("# La suite.", "# La suite" + " encore" * 20), "# La suite", "colonnes, 120 au plus"),
    ("chapter.py", ("# La suite.", "# Un batch de plus."), "# Un batch", "écrivez « lot »"),
    ("chapter.py", (END, 'print("au learning rate")'), "learning", "écrivez « taux d'apprentissage »"),
    (DOUBLE_FILE, ('"Multipliez."', '"Multipliez chaque token."'), "(double)", "écrivez « jeton »"),
    (QUIZ_FILE, ("Un seul suffit.", "Un seul prompt suffit."), "## steps (steps)", "écrivez « amorce »"),
    ("chapter.py", (END, "ch3.no_such_figure()"), "ch3.no", "`ch3.no_such_figure` n'existe pas"),
    ("chapter.py", ("import torch\n\n\ndef check", "import torche\n\n\ndef check"), "import torche", "torche"),
    (DOUBLE_FILE, ("points=1.5", "points=0"), "(double)", "vaut plus de 0 point"),
    (DOUBLE_FILE, ("x * float(times)", "x ** float(times)"), "adds (double)", "« x ** float(times) » n'est pas"),
    (DOUBLE_FILE, ("→ False", "→ 0 > times"), "never_refuses (double)", "`never_refuses` de la référence"),
    (DOUBLE_FILE, ('"times": -1 - rng.index', '"times": "a"'), "(double)", "la référence échoue"),
    ("chapter.py", ("x * float(times)", "x.mul_(float(times))"), "(double)", "la référence rate un cas"),
    (DOUBLE_FILE, ('"x": rng.normal(2, 3)', '"x": rng.normal(2, "a")'), "(double)", "le tirage des cas échoue"),
    ("exercises/Shift.py", ('probe="module"', 'probe="modul"'), "(Shift)", "la sonde « modul » n'existe pas"),
    (DOUBLE_FILE, ("  = twice", "  x * float(times) → times + x"), "always_two (double)", "partout"),
    (DOUBLE_FILE, ('"Multipliez."', '"Multipliez"'), "(double)", "n'a pas de point"),
    (DOUBLE_FILE, ("un sens ?", "un sens"), "never_refuses (double)", "n'a pas de point"),
    (DOUBLE_FILE, ('"Multipliez."', '"scaled_copy = x * float(times)."'), "(double)", "un indice ou un message"),
    (DOUBLE_FILE, ("\nadds", "\najouté"), "(double)", "lettres ASCII"),
    (DOUBLE_FILE, ("\nalways_two", "\nadds"), "(double)", "2 idées fausses portent"),
    (DOUBLE_FILE, ("= twice", "= thrice"), "always_two (double)", "que ce fichier ne définit pas"),
    (DOUBLE_FILE, ("   = twice", ""), "always_two (double)", "remplace du texte, ou désigne une fonction"),
    (DOUBLE_FILE, ("    Et si times vaut 3 ?\n", ""), "always_two (double)", "n'a pas de phrase"),
    (DOUBLE_FILE, ("x * float(times) → x + times", "x * float(times)"), "adds (double)", "n'est remplacé par rien"),
    (DOUBLE_FILE, ("torch.mul, torch.mul]", "torch.mul]"), "(double)", "il en faut 3"),
    (DOUBLE_FILE, ("exercise = Exercise(", "exercice = Exercise("), "(double)", "exercise = Exercise(…)"),
    (DOUBLE_FILE, ("def twice", "1 / 0\n\n\ndef twice"), "1 / 0 (double)", "ZeroDivisionError"),
    (QUIZ_FILE, ("Un seul suffit.", "Oui : un seul."), "## steps (steps)", "que le quiz dit déjà"),
    (QUIZ_FILE, ("- [x]", "- [ ]"), "## steps", "exactement une bonne réponse"),
    (QUIZ_FILE, ("- [ ] Deux", "Deux"), "Deux", "attendu « - [ ] réponse »"),
    (QUIZ_FILE, ("## steps", "## steps\n\n## steps"), "## steps", "bonne réponse"),
]


@pytest.mark.parametrize(("file", "change", "where", "what"), ILL_WRITTEN)
def test_an_ill_written_chapter_is_refused(
    course: Path, monkeypatch, capsys, file: str, change: tuple[str, str], where: str, what: str
) -> None:
    """where : un morceau de la ligne fautive, puis la cellule entre parenthèses."""
    edit(course, file, change)
    assert run(course, monkeypatch) == 2
    text, cell = re.fullmatch(r"(.*?) ?(\(\w+\))?", where).groups()
    lines = (course / "solutions" / NAME / file).read_text(encoding="utf-8").splitlines()
    place = f"{file}:{next(i for i, line in enumerate(lines, 1) if text in line)} " if text else ".py"
    errors = [plain(line) for line in capsys.readouterr().err.splitlines()]
    assert [e for e in errors if place in e and (cell or "") in e and what in e], (place, errors)
    assert not (course / "notebooks").exists()


def test_a_line_of_a_solution_elsewhere_is_refused(course: Path, monkeypatch, capsys) -> None:
    """Dans l'atelier, ou dans une cellule d'un autre chapitre : ce que `publish` refuserait, `build` le dit."""
    secret = "scaled_copy = x * float(times)"
    chapter = load_chapter(NAME, course)
    shown = [cell for cell in chapter.cells if cell.kind == "code"][-1]
    other = replace(chapter, name="ch4_autre", cells=[replace(shown, source=f"print(1)\n{secret}")])
    (problem,) = check_shared_lines([chapter, other], course)
    assert problem.line == shown.line + 1 and "`double`" in problem.message
    (course / "atelier").mkdir(exist_ok=True)
    (course / "atelier" / "tool.py").write_text(f"def tool(x, times):\n    {secret}\n", encoding="utf-8")
    assert run(course, monkeypatch) == 2
    assert "atelier/tool.py:2" in plain(capsys.readouterr().err)


def test_all_errors_are_reported_at_once(course: Path, monkeypatch, capsys) -> None:
    edit(course, "chapter.py", ("# La suite.", "# ![](a.png)"), (', alt="Une courbe qui monte."', ""))
    edit(course, "exercises/Shift.py", ("points=2", "points=0"))
    edit(course, DOUBLE_FILE, ("→ False", "→ 0 > times"))
    assert run(course, monkeypatch) == 2
    error = capsys.readouterr().err
    for what in ("image sans texte", "figure", "plus de 0 point", "never_refuses"):
        assert what in error


def test_misconceptions_that_only_hidden_cases_tell_apart_are_a_warning(course: Path, monkeypatch, capsys) -> None:
    rare = "rare   x * float(times) → x + (times if times < 6 else 0)"
    edit(course, DOUBLE_FILE, ("always_two   = twice", rare), ("rng.integer(3, 5)", "3 + rng.index"))
    assert run(course, monkeypatch) == 0
    out = capsys.readouterr().out
    assert "avertissement" in out and "`adds` et `rare`" in out


def test_a_new_exercise_builds_at_once(course: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(paths, "root", lambda: course)
    assert command_line.main(["exercise", "new", NAME, "triple"]) == 0
    assert run(course, monkeypatch) == 0
    assert "3 exercices, 4,5 points" in plain(capsys.readouterr().out)
    chapter = load_chapter(NAME, course)
    assert list(chapter.exercises) == ["double", "Shift", "triple"]
    assert [answer(4.0) for answer in (chapter.reference("triple"), *chapter.styles("triple"))] == [8.0] * 4
    for name in ("triple", "double", "été", "def", "_x", "a b"):
        assert command_line.main(["exercise", "new", NAME, name]) == 2
    assert command_line.main(["exercise", "new", "ch9", "x"]) == 2
    assert "déjà un exercice de ch3_quantification" in capsys.readouterr().err


def test_unknown_and_undeclared_chapters(course: Path, monkeypatch, capsys) -> None:
    assert run(course, monkeypatch, "ch3") == 2
    assert plain(capsys.readouterr().err) == "Chapitre inconnu : ch3. Chapitres écrits : ch3_quantification.\n"
    stray = course / "solutions" / "ch10_moe"
    stray.mkdir()
    (stray / "chapter.py").write_text("# %%\n1\n", encoding="utf-8")
    assert run(course, monkeypatch) == 2
    assert "solutions/ch10_moe/chapter.py" in capsys.readouterr().err


# --- Un mot pour une chose ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "La **requête** $q$ (*query*), le *fine-tuning* et `loss` ; « batch », dit l'article.",
        "Une question se pose. On va à la ligne, sans aller plus loin ; la droite est ajustée aux points.",
    ],
)
def test_an_english_word_in_italics_or_a_quotation_is_allowed(text: str) -> None:
    assert not list(misused(text))


def test_each_word_to_write_is_in_the_glossary() -> None:
    assert {word.write.partition(" (")[0] for word in WORDS} <= set(TERMS)
    assert list(TERMS) == sorted(TERMS, key=_plain)
    assert [rank for rank, _ in misused("Un mot.\n\nSa question,\ncomparée aux clés.")] == [2]


@pytest.mark.parametrize("path", sorted((ROOT / "atelier" / "figures").rglob("*.py")), ids=lambda path: path.stem)
def test_a_figure_says_one_word_for_one_thing(path: Path) -> None:
    found = list(misused_in_code(ast.parse(path.read_text(encoding="utf-8")), consignes=False))
    assert not found, f"{path} : {found}"


# --- La ligne de commande --------------------------------------------------------------------------------------------


def test_help_lists_every_command_without_loading_any() -> None:
    code = "import sys, grader.__main__ as m; m.main([]); print([x for x in ('torch', 'nbgrader') if x in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.startswith("Usage") and out.endswith("[]\n")
    for command in ("build", "init", "publish", "collect", "grade", "report", "corpus", "colibri"):
        assert re.search(rf"^  {command} ", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["buidl"], "Commande inconnue : buidl."),
        (["build", "--vite"], "mots inconnus : --vite"),
        (["build", "--check", "--execute"], "ne vont pas ensemble"),
    ],
)
def test_command_line_errors_are_french(capsys, arguments: list[str], expected: str) -> None:
    try:
        code = command_line.main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and expected in plain(capsys.readouterr().err)


def test_a_missing_file_is_one_sentence(monkeypatch, capsys) -> None:
    def missing(arguments: list[str]) -> int:
        return len(Path(arguments[0]).read_bytes())

    monkeypatch.setattr(build, "main", missing)
    assert command_line.main(["build", "absent.toml"]) == 2
    assert (
        plain(capsys.readouterr().err) == "absent.toml : ce fichier ou ce dossier n'existe pas. Vérifiez le chemin.\n"
    )
