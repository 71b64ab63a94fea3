"""`feedback` : les pages de retour, refaites par nbgrader pour les seules copies dont quelque chose a changé.

nbgrader saute un retour qui existe déjà, ou les refait tous (`--force`). Chaque page porte donc l'empreinte de ce dont
elle est tirée : copie corrigée, notes, commentaires, gabarit. Qui l'écrit n'importe pas (cette commande,
`nbgrader generate_feedback`, formgrader) : elle est à jour si son empreinte est celle d'aujourd'hui.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.converters import GenerateFeedback
from nbgrader.preprocessors import GetGrades
from nbgrader.utils import is_grade

from atelier import paths
from atelier.text import plural
from grader import UserError
from grader.classroom.collect import moodle_numbers
from grader.classroom.course import Course, title_of
from grader.classroom.marks import (
    NBSP,
    CopyMarks,
    decimal,
    exercise_of,
    out_of,
    points_changed,
    points_when_graded,
    read_comments,
    read_marks,
    sentence,
)
from grader.classroom.record import read_graded
from grader.report.moodle import feedback_zip

KEY = "atelier"
_FINGERPRINT = re.compile(rb'content="([0-9a-f]{32})"')
"""nbconvert range les attributs d'une balise par ordre alphabétique : seul celui-là est cherché."""


def fingerprint(graded: bytes, copy: CopyMarks, comments: dict[str, str], template: bytes) -> str:
    """Empreinte de tout ce qu'une page de retour montre."""
    shown = (copy.raw, copy.penalty, copy.max_score, sorted(copy.cells.items()), sorted(comments.items()))
    return hashlib.sha256(b"\0".join((graded, repr(shown).encode(), template))).hexdigest()[:32]


def template_file(settings: Mapping[str, Any]) -> Path:
    """Le gabarit des retours du cours. settings : ses réglages de `GenerateFeedback.HTMLExporter`."""
    places = [Path(base) / settings["template_name"] / "index.html.j2" for base in settings["extra_template_basedirs"]]
    return next((path for path in places if path.is_file()), Path())


def read_bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


class FeedbackGrades(GetGrades):
    """`GetGrades`, plus ce qui sépare une note de la correction automatique, et ce qui concerne toute la copie."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        about, graded = nb.metadata.get(KEY, {}), points_when_graded(nb)
        nb, resources = super().preprocess(nb, resources)
        with Gradebook(self.db_url) as book:
            copy = read_marks(book, self.assignment_id, self.student_id)[self.student_id]
            comments = read_comments(book, self.assignment_id, self.student_id).get(self.student_id, {})
        for cell in nb.cells:
            if is_grade(cell) and (mark := copy.cells.get(exercise_of(cell.metadata.nbgrader["grade_id"]))):
                cell.metadata.nbgrader["remark"] = sentence(mark.difference)
        shown = resources["nbgrader"]
        shown |= {"title": title_of(self.assignment_id)}
        shown |= {"out_of": out_of, "decimal": decimal}
        shown["score"] = max(0.0, shown["score"])  # comme `nbgrader export`
        shown["remarks"] = remarks(about, copy, points_changed(graded, copy))
        source = Path(resources["metadata"]["path"]) / f"{resources['metadata']['name']}.ipynb"
        template = template_file(self.config.GenerateFeedback.HTMLExporter)
        shown["fingerprint"] = fingerprint(read_bytes(source), copy, comments, read_bytes(template))
        return nb, resources

    def _get_comment(self, cell: NotebookNode, resources: dict) -> None:
        key = (cell.metadata["nbgrader"]["grade_id"], self.notebook_id, self.assignment_id, self.student_id)
        cell.metadata.nbgrader["comment"] = self.gradebook.find_comment(*key).manual_comment


def remarks(about: dict[str, Any], copy: CopyMarks, changed: Sequence[str]) -> list[str]:
    """Ce que l'étudiant doit savoir de toute sa copie. about : ce que la correction a écrit dans son carnet."""
    said = [str(text) for text in about.get("notes", {}).get("", [])]
    if about.get("refused"):
        said.append(f"Copie refusée{NBSP}: {about['refused']}.")
    if copy.lateness:
        said.append(sentence(copy.lateness))
    if changed:
        said.append(f"Le barème a changé depuis cette correction{NBSP}: {', '.join(changed)}.")
    return said


# ---------------------------------------------------------------------------------------------- la commande


def written_in(page: bytes) -> str:
    """L'empreinte qu'une page porte, dans son en-tête ou à sa fin ; "" si elle n'en a pas."""
    found = _FINGERPRINT.search(page[:4000]) or _FINGERPRINT.search(page[-200:])
    return found[1].decode() if found else ""


class Renew(GenerateFeedback):
    """`GenerateFeedback` de nbgrader, pour quelques étudiants : students, étudiant → empreinte que sa page aura."""

    students: Mapping[str, str] = {}
    assignments: dict[str, list[str]]

    def init_notebooks(self) -> None:
        super().init_notebooks()
        self.assignments = {
            folder: notebooks
            for folder, notebooks in self.assignments.items()
            if self.init_single_notebook_resources(notebooks[0])["nbgrader"]["student"] in self.students
        }

    def write_single_notebook(self, output: str, resources: dict) -> None:
        wanted = self.students[resources["nbgrader"]["student"]]
        if written_in(output.encode()) != wanted:  # un gabarit qui n'est pas le nôtre
            output += f'\n<!-- empreinte content="{wanted}" -->\n'
        super().write_single_notebook(output, resources)


@dataclass
class Renewed:
    """Ce qu'il est advenu des retours d'un devoir. failed : étudiant → ce qui a empêché le sien."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Feedback:
    """Les retours d'un devoir."""

    def __init__(self, course: Course, name: str) -> None:
        self.course, self.name = course, name
        course.points(name)  # ce devoir est-il dans le cours ?
        self.template = read_bytes(template_file(course.config.GenerateFeedback.HTMLExporter))
        with course.gradebook() as book:
            self.marks, self.comments = read_marks(book, name), read_comments(book, name)

    @cached_property
    def students(self) -> list[str]:
        """Les étudiants dont la copie est corrigée."""
        excluded = self.course.directory.student_id_exclude.split(",")
        return [s for s in self.course.students(self.name, "autograded") if s not in excluded]

    def graded(self, student: str) -> Path:
        return self.course.path("autograded", student, self.name) / f"{self.name}.ipynb"

    def page(self, student: str) -> Path:
        return self.course.path("feedback", student, self.name) / f"{self.name}.html"

    def current(self, student: str) -> bool:
        """Vrai si la page de cet étudiant dit ce que la copie corrigée et la base disent maintenant."""
        return written_in(read_bytes(self.page(student))) == self.wanted(student)

    def wanted(self, student: str) -> str:
        """L'empreinte que sa page doit avoir."""
        shown = (self.marks[student], self.comments.get(student, {}), self.template)
        return fingerprint(read_bytes(self.graded(student)), *shown)

    def problem(self, student: str) -> str:
        """Pourquoi cette copie ne peut pas avoir de retour juste ; "" si elle le peut."""
        again = f"relancez «{NBSP}python -m grader grade {self.name} --course {self.course.folder}{NBSP}»"
        if student not in self.marks:
            return f"sa note n'est pas dans la base{NBSP}: {again}"
        notebook = read_graded(self.graded(student))
        if notebook is None:
            return f"sa copie corrigée est illisible{NBSP}: {again}"
        if changed := points_changed(points_when_graded(notebook), self.marks[student]):
            return f"le barème a changé depuis sa correction ({', '.join(changed)}){NBSP}: {again}"
        return ""

    def renew(self) -> Renewed:
        """Refait, par nbgrader, les pages qui ne sont plus à jour."""
        if not self.students:
            raise UserError(
                f"Aucune copie de {self.name} n'est corrigée. Lancez d'abord{NBSP}: "
                f"python -m grader grade {self.name} --course {self.course.folder}"
            )
        done = Renewed()
        todo = {}
        for student in self.students:
            if problem := self.problem(student):
                done.failed[student] = problem
            elif self.current(student):
                done.kept.append(student)
            else:
                todo[student] = self.wanted(student)
        problem = self.course.run_step(Renew, self.name, "*", students=todo) if todo else ""
        for student in todo:
            if self.current(student):
                done.written.append(student)
            else:
                done.failed[student] = f"nbgrader n'a pas pu l'écrire{NBSP}: {problem or 'raison inconnue'}"
        return done

    def for_moodle(self) -> Path | None:
        """L'archive des pages à jour, telle que Moodle la reprend ; None si personne n'est venu de Moodle."""
        numbers = moodle_numbers(self.course, self.name)
        known = [s for s in self.students if s in numbers and s in self.marks and self.current(s)]
        if not known:
            return None
        pages = {(numbers[s]["number"], numbers[s]["name"]): read_bytes(self.page(s)) for s in known}
        path = self.course.folder / "bilans" / self.name / "retours_moodle.zip"
        paths.write_atomically(path, feedback_zip(pages))
        return path


def summary(done: Renewed, folder: Path) -> str:
    """Ce qui a été fait, en quelques lignes."""
    lines = [f"  {student}{NBSP}: {problem}." for student, problem in sorted(done.failed.items())]
    if lines:
        lines = ["Sans retour à jour\u00a0:", *lines, ""]
    written, kept = len(done.written), len(done.kept)
    said = f"{plural(written, 'retour écrit', 'retours écrits')}"
    said += f", {kept} déjà à jour" if kept else ""
    return "\n".join([*lines, f"{said}, dans {folder}."])
