"""Un petit cours de trois exercices, pour éprouver la correction sans dépendre d'un vrai chapitre."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.plugins import CsvExportPlugin

from atelier import paths
from grader.authoring.build import build_chapter, write
from grader.classroom import nbglue
from grader.classroom.course import Course
from grader.classroom.grading import Result
from grader.classroom.nbglue import Assignment
from grader.classroom.submission import KEY, Template

NAME = "ch1_essai"

COURSE = f"""
title = "Cours d'essai"
language = "fr"
repository = ""
mark_out_of = 20

[[chapters]]
name = "{NAME}"
title = "Essai"
subject = "trois fonctions"
"""

CHAPTER = '''# %% [markdown]
# # Chapitre 1 · Essai

# %% tags=["setup"]
import torch

SHIFT = 3

# %%
print("une démonstration que personne ne note")
raise SystemExit("une démonstration inchangée n'est jamais exécutée à la correction")

# %% [markdown]
# ### ✎ scale_up

# %% exercise="scale_up"
def scale_up(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiplie x par factor. Lève ValueError si factor ≤ 0."""
    ### BEGIN SOLUTION
    if factor <= 0:
        raise ValueError("un facteur strictement positif est attendu")
    return x * factor
    ### END SOLUTION

# %% [markdown]
# ### ✎ count_true

# %% exercise="count_true"
def count_true(values: list[bool]) -> int:
    """Compte les valeurs vraies, plus SHIFT."""
    ### BEGIN SOLUTION
    return sum(1 for value in values if value) + SHIFT
    ### END SOLUTION

# %% [markdown]
# ### ✎ spread

# %% exercise="spread"
def spread(x: torch.Tensor) -> torch.Tensor:
    """Écart entre le plus grand et le plus petit élément de x."""
    ### BEGIN SOLUTION
    return x.max() - x.min()
    ### END SOLUTION
'''

DECLARED = {
    "scale_up": """
from atelier.judging.exercise import Exercise, Tolerance


def draw_scale(rng, group):
    if group == "refus":
        return {"x": rng.normal(3), "factor": -float(rng.index)}
    if group == "zéro":
        return {"x": rng.normal(3) * 0, "factor": 2.0}
    return {"x": rng.normal(2, rng.integer(2, 5)), "factor": rng.uniform(1.5, 3.0)}


exercise = Exercise(
    points=2,
    hints=["Que fait un facteur ?", "C'est un produit."],
    groups={"courant": 0.5, "zéro": 0.2, "refus": 0.3},
    draw=draw_scale,
    tolerance=Tolerance(rtol=1e-6, why="une multiplication"),
    examples=[{"x": __import__("torch").tensor([1.0, 2.0]), "factor": 2.0}],
    seconds=2.0,
)

misconceptions = '''
adds   x * factor → x + factor
    Un facteur multiplie, il ne s'ajoute pas.

squares   x * factor → x * factor * factor
    Combien de fois factor compte-t-il ?
'''

styles = [lambda x, factor: factor * x] * 3
""",
    "count_true": """
from atelier.judging.exercise import Exercise


def draw_count(rng, group):
    return {"values": [rng.random.random() < 0.5 for _ in range(rng.integer(5, 9) if group == "long" else 3)] + [True]}


exercise = Exercise(
    points=1,
    hints=["Qu'est-ce qu'une valeur vraie ?", "On ajoute SHIFT à la fin."],
    groups={"long": 0.5, "court": 0.5},
    draw=draw_count,
    seconds=2.0,
)

misconceptions = '''
no_shift   + SHIFT → ∅
    Relisez la fin de l'énoncé.
'''

styles = [sum] * 3
""",
    "spread": """
from atelier.judging.exercise import Exercise, Tolerance


def draw_spread(rng, group):
    return {"x": rng.normal(6) + 5}


exercise = Exercise(
    points=3,
    hints=["Où est le plus petit ?", "Une différence."],
    groups={"courant": 1.0},
    draw=draw_spread,
    tolerance=Tolerance(rtol=1e-6, why="une soustraction"),
    seconds=2.0,
)

misconceptions = '''
only_max   - x.min() → ∅
    Le plus petit n'est pas toujours nul.
'''

styles = [lambda x: -(x.min() - x.max())] * 3
""",
}
"""Les fichiers d'exercices, par identifiant."""

SOLVED = {
    "scale_up": """
def scale_up(x, factor):
    if factor <= 0:
        raise ValueError('non')
    return factor * x
""",
    "count_true": """
def count_true(values):
    total = SHIFT
    for v in values:
        total += int(v)
    return total
""",
    "spread": """
def spread(x):
    y = x.sort().values
    return y[-1] - y[0]
""",
}
"""Des réponses justes, écrites autrement que la référence."""


def write_course(root: Path) -> Path:
    """Écrit le cours d'essai dans `root`."""
    (root / "solutions").mkdir(parents=True)
    (root / "course.toml").write_text(COURSE, encoding="utf-8")
    write_chapter(root / "solutions" / NAME, CHAPTER, DECLARED)
    return root


def write_chapter(folder: Path, chapter: str, declared: dict[str, str]) -> None:
    """Écrit un chapitre : son texte, et un fichier par exercice."""
    (folder / "exercises").mkdir(parents=True)
    (folder / "chapter.py").write_text(chapter, encoding="utf-8")
    for id, text in declared.items():
        (folder / "exercises" / f"{id}.py").write_text(text.lstrip(), encoding="utf-8")


def load_assignment(root: Path) -> Assignment:
    """Le devoir d'essai, son carnet construit en mémoire."""
    from grader.authoring.chapters import load_chapter

    products = build_chapter(NAME, root)
    assert not products.errors, "\n".join(map(str, products.errors))
    chapter = load_chapter(NAME, root)
    return Assignment(chapter, Template.of(NAME, products.student, chapter.exercises))


def filled(template: Template, answers: dict[str, str]) -> NotebookNode:
    """Le carnet d'un étudiant : celui du devoir, avec ces réponses écrites dans leurs cellules."""
    notebook = template.blank()
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in answers:
            cell.source = answers[name]
    return notebook


def as_bytes(notebook: NotebookNode) -> bytes:
    return json.dumps(notebook, ensure_ascii=False).encode()


def results_in(path: Path) -> list[Result]:
    """Les notes écrites dans une copie corrigée."""
    notebook = nbformat.read(path, as_version=4)
    return [Result.from_data(data) for data in notebook.metadata[KEY]["results"]]


def cell_of(notebook: NotebookNode, grade_id: str) -> NotebookNode:
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


@contextmanager
def course_root(root: Path) -> Iterator[Path]:
    """Fait de `root` la racine du cours, pour ce processus et ses enfants."""
    caches = (paths.root, paths.course, nbglue.assignment)
    before = os.environ.get("COURS_RACINE")
    os.environ["COURS_RACINE"] = str(root)
    for cached in caches:
        cached.cache_clear()
    try:
        yield root
    finally:
        os.environ.pop("COURS_RACINE")
        if before is not None:
            os.environ["COURS_RACINE"] = before
        for cached in caches:
            cached.cache_clear()


def build_root(root: Path) -> Path:
    """Le cours d'essai complet : carnets construits, et de quoi lancer les commandes depuis cette racine."""
    write_course(root)
    code = Path(nbglue.__file__).resolve().parents[2]
    for name in ("atelier", "grader"):
        (root / name).symlink_to(code / name)
    products = build_chapter(NAME, root)
    assert not write(products, root, execute=False)
    return root


def exported(course: Course, column: str = "score") -> dict[str, float]:
    """Ce que `nbgrader export` écrit, par son propre greffon."""
    path = course.folder / "export.csv"
    with course.gradebook() as book:
        CsvExportPlugin(to=str(path)).export(book)
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    return {row["student_id"]: float(row[column]) for row in rows}
