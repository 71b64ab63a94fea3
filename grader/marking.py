"""`grade` : corriger toutes les copies d'un devoir, sans qu'aucune ne puisse arrêter les autres."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

from atelier.compare import format_number
from grader import UserError
from grader.course import Course
from grader.grading import NB, THIN, VERDICTS, Result, grade_refused
from grader.nbglue import Assignment, assignment, blank_copy, grade_notebook, hooks, open_copy, shared_sandbox
from grader.sandbox import SandboxError
from grader.submission import KEY


@dataclass
class Marked:
    """Ce qu'un devoir corrigé a donné. results : étudiant → notes ; remarks : étudiant → ce qu'il faut savoir."""

    assignment: str
    results: dict[str, list[Result]] = field(default_factory=dict)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    unsaved: list[str] = field(default_factory=list)
    """Étudiants dont la note n'a pas pu être écrite par nbgrader."""

    def remark(self, student: str, text: str) -> None:
        self.remarks.setdefault(student, []).append(text)

    def records(self) -> list[dict]:
        return [r.record(student, self.assignment) for student in sorted(self.results) for r in self.results[student]]

    @property
    def refused(self) -> list[str]:
        return [s for s, results in self.results.items() if any(r.verdict == "refused" for r in results)]


def mark(course: Course, name: str, jobs: int = 0, seed: int | None = None) -> Marked:
    """Corrige le devoir `name` : chaque copie dans un processus à part, chaque note écrite par nbgrader."""
    points = course.points(name)
    given = assignment(name)
    if missing := sorted(given.chapter.exercises.keys() ^ points.keys()):
        raise UserError(
            f"Le devoir «\u00a0{name}\u00a0» a changé depuis la préparation du cours ({', '.join(missing)}). "
            f"Relancez «\u00a0python -m grader init {course.folder}\u00a0», ou revenez à la version publiée."
        )
    students = course.students(name)
    if not students:
        raise UserError(
            f"Aucune copie de {name} dans {course.path('submitted').parent / 'submitted'}. "
            "Rangez-les d'abord\u00a0: python -m grader collect ARCHIVE --course …"
        )
    given.chapter.namespace  # noqa: B018 - exécute les références une fois, avant les fils
    marked = Marked(name)
    jobs = jobs or min(4, os.cpu_count() or 1)
    hooks.seed = seed
    try:
        with ThreadPoolExecutor(jobs) as pool:
            waiting = {s: pool.submit(grade_student, course, given, points, s, marked, seed) for s in students}
            for student in progress(students):
                finish(course, name, student, waiting[student], marked)
    finally:
        hooks.seed = None
        hooks.ready.clear()
    return marked


def progress(students: Sequence[str]) -> Iterator[str]:
    bar = tqdm(students, desc="Correction", unit="copie", disable=None)
    for student in bar:
        bar.set_postfix_str(student[:24])
        yield student


def grade_student(
    course: Course, given: Assignment, points: dict[str, float], student: str, marked: Marked, seed: int | None
) -> tuple[NotebookNode, list[Result]]:
    """La copie réparée d'un étudiant et ses notes, prêtes avant que nbgrader ne la lise."""
    path, remarks = expected_file(course.path("submitted", student, marked.assignment), given)
    notebook = open_copy(path, given.template)
    about = notebook.metadata[KEY]
    repaired = [f"{exercise}{NB}: {text}" for exercise, texts in about["notes"].items() for text in texts]
    refused = [f"copie refusée{NB}: {about['refused']}."] if about.get("refused") else []
    for text in (*remarks, *repaired, *refused):
        marked.remark(student, text)
    return notebook, grade_notebook(notebook, given, points, shared_sandbox(), seed)


def expected_file(folder: Path, given: Assignment) -> tuple[Path, list[str]]:
    """Le carnet que nbgrader lira dans ce dossier ; copié ou remplacé par une copie blanche s'il n'a pas le bon nom."""
    name = given.template.name
    path = folder / f"{name}.ipynb"
    if path.exists():
        others = sorted(p.name for p in folder.glob("*.ipynb") if p != path)
        return path, [f"autres carnets laissés de côté{NB}: {', '.join(others)}."] if others else []
    candidates = sorted(folder.glob("*.ipynb"), key=lambda p: (p.lstat().st_mtime, p.name))
    for candidate in reversed(candidates):
        if not open_copy(candidate, given.template).metadata[KEY].get("refused"):
            path.write_bytes(candidate.read_bytes())
            return path, [f"carnet rendu sous le nom «{NB}{candidate.name}{NB}», corrigé comme {path.name}."]
    if candidates:
        reason = open_copy(candidates[-1], given.template).metadata[KEY]["refused"]
        reason = f"{candidates[-1].name}{NB}: {reason}"
    else:
        files = sorted(p.name for p in folder.iterdir() if p.is_file())
        reason = "le dossier rendu ne contient aucun carnet" + (f" ({', '.join(files[:5])})" if files else "")
    nbformat.write(blank_copy(given.template, reason), path)
    return path, [f"{reason}{THIN}; une copie blanche a été déposée à la place."]


def finish(
    course: Course, name: str, student: str, waiting: Future[tuple[NotebookNode, list[Result]]], marked: Marked
) -> None:
    """Remet les notes d'un étudiant à nbgrader, qui les écrit. Aucune défaillance n'en sort."""
    results: list[Result] = []
    try:
        hooks.ready[name, student] = waiting.result()
        results = hooks.ready[name, student][1]
        problem = course.autograde(name, student)
    except SandboxError:  # le processus des copies ne démarre pas : aucune copie ne pourrait être corrigée
        raise
    except Exception as error:  # une copie imprévue ne doit pas arrêter les autres
        problem = f"{type(error).__name__}{NB}: {error}"
    finally:
        hooks.ready.pop((name, student), None)
    if problem:
        marked.unsaved.append(student)
        marked.remark(student, f"NOTE NON ENREGISTRÉE, {problem}")
        given = assignment(name)
        results = results or grade_refused(given.chapter, course.points(name), f"la correction a échoué ({problem})")
    marked.results[student] = results


# ---------------------------------------------------------------------------------------------- dire


def write_records(marked: Marked, path: Path) -> None:
    """Le tableau JSON des notes, une fiche par étudiant et par exercice."""
    path.write_text(json.dumps(marked.records(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def summary(marked: Marked) -> str:
    """Le tableau des notes et ce qui demande un regard, en texte."""
    rows = []
    for student in sorted(marked.results):
        results = marked.results[student]
        counts = Counter(r.verdict for r in results)
        total = f"{format_number(sum(r.score for r in results))} / {format_number(sum(r.max_score for r in results))}"
        detail = ", ".join(f"{VERDICTS[v]} × {counts[v]}" for v in VERDICTS if counts[v])
        rows.append((student, total, detail))
    lines = table(("étudiant", "points", "exercices"), rows)
    if marked.remarks:
        lines += ["", "À savoir\u00a0:"]
        lines += [f"  {student}{NB}: {text}" for student in sorted(marked.remarks) for text in marked.remarks[student]]
    return "\n".join(lines)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Des colonnes alignées."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, ["─" * w for w in widths], *rows]
    ]


def check_destination(path: Path) -> None:
    """Vérifie, avant de corriger, que l'on pourra écrire `path` à la fin."""
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} n'existe pas\u00a0: le résultat ne pourrait pas y être écrit.")
    if path.is_dir():
        raise UserError(f"{path} est un dossier\u00a0: donnez un nom de fichier à --json.")
