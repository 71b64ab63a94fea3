"""Une variable de l'étudiant peut porter n'importe quel nom naturel : les cellules qui suivent tournent encore."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from test_gpu import plain_run

import atelier
from grader.authoring.chapters import Chapter, chapter_names, load_chapter

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = chapter_names(ROOT)

COMMON = """a b c d e f g h i j k l m n p q r s t u v w x y z B C D H K L N P Q R S T V X Y
axis base batch best bias bits board calc check column config corpus count data dataset delta device dim dtype
embedding epoch error errors factor first function grad gradient group groups head heads hidden hint ids importance
index inputs k_top kept key keys labels last layer layers length levels limit lines logits lora loss losses lr mask
masks matrix max_value mean mine model models module n_tokens name names norm norms number numbers optimizer out
output outputs parameters params part parts pattern peak perplexities position positions pred predictions prob
probabilities probs progress prompt query quiz rank ranks ratio result results row rows sample scale scales score
scores seed seeds sentence sequence shape show signs size sizes sorted_values start state std step steps student sum_
table target targets teacher temperature tensor test text texts threshold token tokens total train values variance
vocab weight weights width widths window windows word words zero zeros""".split()
"""Ce qu'un étudiant écrit sans y penser, en plus des noms de son exercice."""


def bound(tree: ast.AST) -> set[str]:
    """Les noms que ce code lie : arguments, variables, fonctions, imports."""
    names = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    names |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names


def natural(chapter: Chapter) -> set[str]:
    """Les noms qu'un étudiant de ce chapitre emploie sans y penser : ceux-ci, et ceux des fonctions à écrire."""
    inside = set().union(*(bound(ast.parse(cell.source)) for cell in chapter.exercise_cells.values()), COMMON)
    return inside | set(atelier.__all__) - set(chapter.exercises)


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_cell_of_ours_reads_a_name_that_a_student_would_take(name):
    chapter = load_chapter(name, ROOT)
    taken, earlier, found = natural(chapter), set(), []
    for cell in chapter.cells:
        if cell.kind not in ("code", "setup", "experiment"):
            continue
        tree = ast.parse(cell.source)
        own = bound(tree) | {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        if cell.kind != "setup":
            read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
            found += [(cell.line, n) for n in sorted(read & taken & earlier - own)]
        imports = (a for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names)
        earlier |= own | {a.asname or a.name for a in imports}
    assert not found, f"solutions/{name}/chapter.py, (ligne, nom) : {found}"


def run_solved(name, folder, taking):
    """Le carnet résolu, exécuté par Jupyter, chaque `check` suivi de la cellule `taking`. Rend ses cellules de code."""
    notebook = nbformat.read(ROOT / "solutions" / name / f"{name}.ipynb", as_version=4)
    pairs = [
        (cell, nbformat.v4.new_code_cell(taking)) if cell.source.startswith("check(") else (cell,)
        for cell in notebook.cells
    ]
    notebook.cells = [cell for pair in pairs for cell in pair]
    env = {**os.environ, "COURS_ECHELLE": "essai", "COURS_ETAT": str(folder), "PYTHONPATH": str(ROOT)}
    NotebookClient(notebook, kernel_name="python3", timeout=600, allow_errors=True).execute(env=env)
    return [c for c in notebook.cells if c.cell_type == "code"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_solved_notebook_runs_even_when_the_student_took_these_names(name, tmp_path):
    """Aucune cellule du carnet résolu n'échoue, chaque check y passe.

    Qu'aucune ne doive son nom à ceux que prend l'étudiant, c'est ruff (F821) qui le dit, sur chapter.py.
    """
    chapter = load_chapter(name, ROOT)
    taking = "import torch\n" + " = ".join(sorted(natural(chapter))) + " = torch.tensor(0.5)"
    cells = run_solved(name, tmp_path, taking)
    assert all(c.execution_count for c in cells)
    assert not [(c.source, o.evalue) for c in cells for o in c.outputs if o.output_type == "error"]
    ticks = ["".join(o.get("text", "") for o in c.outputs) for c in cells if c.source.startswith("check(")]
    assert len(ticks) == len(chapter.exercises) and all(text.startswith("✔") for text in ticks)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_figure_goes_back_to_the_author_when_a_variable_took_the_exercises_name(name, tmp_path):
    assert not plain_run(name, tmp_path, "--short", "--taken", COURS_DEVICE="cpu")["échecs"]


def test_a_command_alone_in_its_cell_is_the_courses(tmp_path):
    cells = [
        "import atelier\ncheck = hint = progress = quiz = 3",
        "check('absmax_scale')",
        "hint('absmax_scale')",
        "progress()",
        "check + hint",
        "def check(x):\n    return 'la mienne'",
        "check('absmax_scale')",
        "print(check('absmax_scale'))",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    env = {**os.environ, "COURS_ETAT": str(tmp_path), "PYTHONPATH": str(ROOT)}
    NotebookClient(notebook, kernel_name="python3", timeout=120, allow_errors=True).execute(env=env)
    outputs = [c.outputs for c in notebook.cells]
    assert outputs[1][0].ename == outputs[6][0].ename == "CheckFailed"
    assert "indice 1" in outputs[2][0].text and outputs[3] and outputs[3][0].output_type != "error"
    assert outputs[4][0].data["text/plain"] == "6" and outputs[7][0].text == "la mienne\n"
