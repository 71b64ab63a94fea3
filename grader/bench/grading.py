"""Ce que coûte la correction : notre chaîne et celle de nbgrader sur les mêmes carnets ; puis mille copies."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any

import nbformat
from nbformat import NotebookNode

from atelier import paths
from atelier.text import number
from grader import variables
from grader.authoring.chapters import chapter_names, load_chapter
from grader.classroom.course import CONFIG, Course, prepare
from grader.classroom.jobs import Failed, Graded, Job, Pool, Processes, Setup
from grader.classroom.marking import mark
from grader.classroom.nbglue import Assignment, assignment

CHAPTER = "ch3_quantification"
COPIES = 40
ROUNDS = 3
"""Tours d'une mesure : la vitesse d'une machine partagée change d'une minute à l'autre."""
CROWD = 1000
STOCK_CONFIG = """
c = get_config()
c.CourseDirectory.course_id = "mesure"
c.CourseDirectory.root = {root!r}
c.ExecutePreprocessor.timeout = 900
c.ExecutePreprocessor.iopub_timeout = 60
"""


def measure_grading(chapter: str = "", copies: int = COPIES, whole: bool = True) -> list[dict[str, Any]]:
    """Mesure sur un chapitre (le troisième, s'il est là), copies justes.

    Rend des lignes {"name", "value", "unit", "detail"}. whole : mesurer aussi nbgrader sur le carnet entier.
    """
    written = [n for n in chapter_names() if load_chapter(n).exercises]
    name = chapter or (CHAPTER if CHAPTER in written else written[0])
    given = assignment(name)
    full = solved(given)
    cores = os.cpu_count() or 1
    one: list[Paced] = []
    ours: list[Paced] = []
    stock: list[float] = []
    with tempfile.TemporaryDirectory(prefix="mesure-", ignore_cleanup_errors=True) as scratch:
        course = crowd(Path(scratch, "notre"), name, full, copies)
        for i in range(ROUNDS):
            for kind, pool in ((one, Processes(1)), (ours, Processes(cores))):
                kind.append(Paced(pool))
                grade_all(course, name, kind[-1])
            stock.append(stock_seconds(Path(scratch, f"origine-{i}"), name, exercises_only(full, given)))
        alone, pace, usual = median(p.pace for p in one), median(p.pace for p in ours), median(stock)
        detail = f"{name}, {len(given.chapter.exercises)} exercices, {copies} copies, base nbgrader comprise"
        often = f"médiane de {ROUNDS} tours, chacun avec nbgrader à la suite"
        gain = f"débit de {cores} processus / {cores} fois celui d'un"
        rows = [
            row("correction, première copie", ours[0].first, "s", "démarrage des processus compris"),
            row("correction d'une copie", pace, "s", f"{detail}, {cores} processus\u202f; {often}"),
            row("correction d'une copie, un processus", alone, "s", detail),
            row("rendement des processus", alone / pace / cores, "fois", gain),
            row("nbgrader autograde, cellules d'exercices", usual, "s", f"une copie, médiane de {ROUNDS}"),
            row("rapport, cellules d'exercices", usual / pace, "fois", "nbgrader autograde / notre correction"),
        ]
        if whole:
            entire = stock_seconds(Path(scratch, "entier"), name, full)
            rows.append(row("nbgrader autograde, carnet entier", entire, "s", "une copie, même machine, à la suite"))
            rows.append(row("rapport, carnet entier", entire / pace, "fois", "nbgrader autograde / notre correction"))
    return rows


def measure_crowd(chapter: str = "", copies: int = CROWD) -> list[dict[str, Any]]:
    """Mille copies : durée, et mémoire du correcteur et de ses processus en route et à la fin ; puis une reprise."""
    written = [n for n in chapter_names() if load_chapter(n).exercises]
    name = chapter or written[0]
    rows = []
    with tempfile.TemporaryDirectory(prefix="mesure-", ignore_cleanup_errors=True) as scratch:
        course = crowd(Path(scratch, "notre"), name, solved(assignment(name)), copies)
        pool = Paced(Processes(os.cpu_count() or 1), (100, copies))
        start = time.perf_counter()
        grade_all(course, name, pool)
        rows.append(row(f"{copies} copies", time.perf_counter() - start, "s", f"{name}, tout compris"))
        for count, (mine, theirs) in pool.memory.items():
            detail = f"le plus gros de ses processus\u202f: {number(theirs / 2**20, decimals=0, unit='Mio')}"
            rows.append(row(f"mémoire du correcteur, {count} copies", mine / 2**20, "Mio", detail))
        start = time.perf_counter()
        kept = len(mark(course, name).kept)
        rows.append(row(f"reprise de {copies} copies", time.perf_counter() - start, "s", f"{kept} déjà corrigées"))
    return rows


class Paced:
    """Note comme `pool`, en relevant la cadence et, à certains nombres de copies, la mémoire.

    first : secondes jusqu'à la première copie ; pace : secondes par copie, une fois tous les processus au travail.
    """

    def __init__(self, pool: Pool, samples: Iterable[int] = ()) -> None:
        self.pool, self.samples = pool, set(samples)
        self.times: list[float] = []
        self.memory: dict[int, tuple[int, int]] = {}

    def run(self, setup: Setup, jobs: Iterable[Job]) -> Generator[Graded | Failed]:
        self.start = time.perf_counter()
        for outcome in self.pool.run(setup, jobs):
            yield outcome
            self.times.append(time.perf_counter())
            if len(self.times) in self.samples:
                workers = [child.pid for child in multiprocessing.active_children() if child.pid]
                self.memory[len(self.times)] = (resident(), max(map(resident, workers), default=0))

    @property
    def first(self) -> float:
        return self.times[0] - self.start

    @property
    def pace(self) -> float:
        warm = min(2 * (os.cpu_count() or 1), len(self.times) // 2)
        return (self.times[-1] - self.times[warm]) / (len(self.times) - 1 - warm)


def resident(pid: int | str = "self") -> int:
    """Mémoire résidente d'un processus, en octets ; 0 si le système ne le dit pas."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


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


def crowd(folder: Path, name: str, notebook: NotebookNode, copies: int) -> Course:
    """Un cours où `copies` étudiants ont rendu ce carnet."""
    prepare(folder, [name])
    course = Course(folder)
    for i in range(copies):
        submit(course, name, f"etudiant-{i:04}", notebook)
    return course


def grade_all(course: Course, name: str, pool: Pool) -> None:
    """Corrige tout ; lève `RuntimeError` si une copie juste n'a pas tous ses points."""
    marked = mark(course, name, redo=True, pool=pool)
    unsure = [s for s, results in marked.results.items() if any(r.verdict != "correct" for r in results)]
    if unsure or marked.unsaved:
        raise RuntimeError(f"une copie juste n'a pas tous ses points\u00a0: {unsure or marked.unsaved}")


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


def kernel_environment(folder: Path) -> AbstractContextManager[None]:
    """Les variables dont un noyau lancé par nbgrader a besoin pour trouver l'atelier, et un état à part."""
    found = os.pathsep.join(filter(None, (str(paths.root()), os.environ.get("PYTHONPATH"))))
    return variables(COURS_ETAT=str(folder / "etat"), PYTHONPATH=found)


def submit(course: Course, name: str, student: str, notebook: NotebookNode) -> None:
    path = course.path("submitted", student, name) / f"{name}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
