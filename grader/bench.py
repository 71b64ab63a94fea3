"""Ce que coûte la correction d'une copie : notre chaîne et celle de nbgrader, sur les mêmes carnets, à la suite."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from atelier import paths
from grader.chapters import chapter_names, load_chapter
from grader.course import CONFIG, Course, prepare
from grader.dialogue import Cell
from grader.marking import mark
from grader.nbglue import Assignment, assignment, shared_sandbox

COPIES = 12
STOCK_CONFIG = """
c = get_config()
c.CourseDirectory.course_id = "mesure"
c.CourseDirectory.root = {root!r}
c.ExecutePreprocessor.timeout = 900
c.ExecutePreprocessor.iopub_timeout = 60
"""


def measure_grading(chapter: str = "", copies: int = COPIES, whole: bool = True) -> list[dict[str, Any]]:
    """Mesure sur un chapitre (le premier qui a des exercices), copies justes.

    Rend des lignes {"name", "value", "unit", "detail"}. whole : mesurer aussi nbgrader sur le carnet entier.
    """
    name = chapter or next(n for n in chapter_names() if load_chapter(n).exercises)
    given = assignment(name)
    full = solved(given)
    rows = []
    with tempfile.TemporaryDirectory(prefix="mesure-", ignore_cleanup_errors=True) as scratch:
        start = time.perf_counter()
        shared_sandbox().run([Cell("rien", "", "extra")], [])
        rows.append(row("correction, démarrage", time.perf_counter() - start, "s", "une fois par session"))
        ours = ours_seconds(Path(scratch, "notre"), name, full, copies)
        detail = f"{name}, {len(given.chapter.exercises)} exercices, moyenne de {copies} copies, base nbgrader comprise"
        rows.append(row("correction d'une copie", ours, "s", detail))
        kinds = {"cellules d'exercices": exercises_only(full, given)}
        if whole:
            kinds["carnet entier"] = full
        for what, notebook in kinds.items():
            stock = stock_seconds(Path(scratch, f"origine-{len(rows)}"), name, notebook)
            rows.append(row(f"nbgrader autograde, {what}", stock, "s", "une copie, même machine, à la suite"))
            rows.append(row(f"rapport, {what}", stock / ours, "fois", "nbgrader autograde / notre correction"))
    return rows


def row(name: str, value: float, unit: str, detail: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "detail": detail}


def solved(given: Assignment) -> NotebookNode:
    """La copie d'un étudiant qui a tout juste."""
    notebook = given.template.blank()
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = given.chapter.sources.get(grade_id, cell.source)
    return notebook


def exercises_only(notebook: NotebookNode, given: Assignment) -> NotebookNode:
    """La même copie, réduite aux cellules de préparation, de réponse et de vérification, et à l'import de `check`."""
    kept = {c.index for c in given.template.cells if c.role != "other"}
    small = nbformat.from_dict(notebook)
    small.cells = [nbformat.v4.new_code_cell("from atelier import check")]
    small.cells += [cell for i, cell in enumerate(notebook.cells) if i in kept]
    return small


def ours_seconds(folder: Path, name: str, notebook: NotebookNode, copies: int) -> float:
    """Secondes par copie, le processus tiède déjà démarré."""
    prepare(folder, [name])
    course = Course(folder)
    for i in range(copies):
        submit(course, name, f"etudiant-{i:02}", notebook)
    start = time.perf_counter()
    marked = mark(course, name, jobs=os.cpu_count() or 1)
    seconds = (time.perf_counter() - start) / copies
    unsure = [s for s, results in marked.results.items() if any(r.verdict != "correct" for r in results)]
    if unsure or marked.unsaved:
        raise RuntimeError(f"une copie juste n'a pas tous ses points\u00a0: {unsure or marked.unsaved}")
    return seconds


def stock_seconds(folder: Path, name: str, notebook: NotebookNode) -> float:
    """Secondes d'une copie par nbgrader tel qu'il est livré, noyau compris."""
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(STOCK_CONFIG.format(root=str(folder)), encoding="utf-8")
    course = Course(folder)
    source = course.path("source", assignment=name) / f"{name}.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(notebook, source)
    if problem := course.generate(name):
        raise RuntimeError(problem)
    submit(course, name, "etudiant", notebook)
    with kernel_environment(folder):
        start = time.perf_counter()
        if problem := course.autograde(name, "etudiant"):
            raise RuntimeError(problem)
        seconds = time.perf_counter() - start
    graded = nbformat.read(course.path("autograded", "etudiant", name) / f"{name}.ipynb", as_version=4)
    errors = [o for cell in graded.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    if errors:
        raise RuntimeError(f"nbgrader n'a pas pu tout exécuter\u00a0: {errors[0].ename}, {errors[0].evalue}")
    return seconds


@contextmanager
def kernel_environment(folder: Path) -> Iterator[None]:
    """Les variables dont un noyau lancé par nbgrader a besoin pour trouver l'atelier, et un état à part."""
    root = str(paths.root())
    wanted = {
        "COURS_RACINE": root,
        "COURS_ETAT": str(folder / "etat"),
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def submit(course: Course, name: str, student: str, notebook: NotebookNode) -> None:
    path = course.path("submitted", student, name) / f"{name}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
