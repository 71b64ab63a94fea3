"""Ce que nbgrader appelle : lire une copie quelle qu'elle soit, et noter au lieu d'exécuter.

`nbgrader autograde` tapé à la main, cliqué dans formgrader ou lancé par `python -m grader grade` passe par ces deux
classes, que `grader.classroom.course.configure` désigne. Tout le reste (base, copies corrigées, retours, exports) est
à nbgrader.
"""

from __future__ import annotations

import atexit
import hashlib
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbformat.v4 import reads_json, writes_json
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import NbGraderPreprocessor

from atelier import paths, talk
from grader.authoring.chapters import Chapter, load_chapter
from grader.classroom.course import given_notebook
from grader.classroom.display import shortened
from grader.classroom.grading import (
    Drawn,
    GradingError,
    Result,
    by_hand,
    draw,
    fresh_seed,
    grade_copy,
    grade_refused,
    worth,
)
from grader.classroom.ledger import Ledger
from grader.classroom.record import entries
from grader.classroom.submission import (
    KEY,
    Notes,
    Template,
    Unreadable,
    claimed,
    plan,
    read_data,
    read_json,
    read_notebook,
    repair,
)
from grader.jail.outside import seal
from grader.jail.outside.apart import Died, Exceeded, apart
from grader.jail.outside.dialogue import shown
from grader.jail.outside.sandbox import Sandbox

REFUSED_KEY = "atelier_refus"
"""Dans une copie blanche écrite à la place d'une copie absente : la raison du refus."""


@dataclass
class Assignment:
    """Un devoir : son chapitre et le carnet que les étudiants ont reçu."""

    chapter: Chapter
    template: Template
    _subject: tuple[int, list[Drawn]] | None = field(default=None, repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """Empreinte de l'énoncé, de la solution et des cas cachés : qu'ils changent, et les copies sont à reprendre."""
        files = (self.chapter.folder / "chapter.py", *sorted(self.chapter.folder.glob("exercises/*.py")))
        parts = [path.read_bytes() if path.is_file() else b"" for path in files]
        parts.append(writes_json(self.template.notebook).encode())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def subject(self, seed: int) -> list[Drawn]:
        """Les cas cachés de cette graine et ce qu'on doit y répondre, gardés jusqu'à ce qu'une autre soit demandée.

        Toutes les copies d'une correction ont ainsi le même sujet : au même code, la même note.
        """
        if self._subject is None or self._subject[0] != seed:
            self._subject = seed, draw(self.chapter, seed)
        return self._subject[1]


@cache
def assignment(name: str) -> Assignment:
    """Le devoir `name`, lu une fois. Lève `ChapterError` si ce n'est ni un chapitre écrit, ni l'exposé."""
    if name == talk.ASSIGNMENT:
        template = Template.of(name, given_notebook(name, paths.root()), ())
        return Assignment(Chapter(name, talk.TITLE, Path(), [], {}, {}), template)
    chapter = load_chapter(name)
    path = paths.root() / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        raise GradingError(f"Il manque {path}. Construisez-le d'abord\u00a0: python -m grader build {name}")
    template = Template.read(path, chapter.exercises)
    missing = [
        id
        for id in chapter.exercises
        if {"solution", "test"} - {cell.role for cell in template.cells if cell.exercise == id}
    ]
    if missing:
        text = f"{path} n'a pas les cellules de {', '.join(missing)}."
        raise GradingError(f"{text} Reconstruisez-le\u00a0: python -m grader build {name}")
    return Assignment(chapter, template)


def current_assignment(name: str, fingerprint: str) -> Assignment:
    """Le devoir `name`, relu si celui que ce processus a gardé n'est plus celui-là."""
    if assignment(name).fingerprint != fingerprint:
        assignment.cache_clear()
    return assignment(name)


def shared_sandbox() -> Sandbox:
    """Le processus tiède de cette session, arrêté à la sortie."""
    return _sandbox(seal.wanted())


@cache
def _sandbox(sealed: bool) -> Sandbox:
    sandbox = Sandbox(sealed)
    _started.append(sandbox)
    atexit.register(sandbox.close)
    return sandbox


def close_sandboxes() -> None:
    """Arrête le processus tiède, s'il y en a un ; le prochain usage en lancera un autre."""
    for sandbox in _started:
        sandbox.close()


_started: list[Sandbox] = []


def one_thread() -> None:
    """Les références tiennent dans le cache d'un cœur : plusieurs fils s'y attendraient plus qu'ils ne calculent."""
    import torch

    torch.set_num_threads(1)


# ---------------------------------------------------------------------------------------------- lire


class TolerantExporter(NotebookExporter):
    """Lit une copie même abîmée. Illisible, elle devient une copie blanche, marquée refusée avec la raison."""

    def from_filename(self, filename: str, resources: dict | None = None, **kw: Any) -> tuple[Any, dict]:
        path = Path(filename)
        if getattr(self.parent, "_sanitizing", False) and resources and "nbgrader" in resources:
            given = assignment(resources["nbgrader"]["assignment"])
            graded = already_graded(self.parent)
            notebook = reads_json(graded) if graded else open_apart(path, given)
        else:
            notebook = nbformat.read(path, as_version=4)
        return self.from_notebook_node(notebook, resources=resources, **kw)


def already_graded(converter: Any) -> str:
    """Le carnet corrigé que `Course.autograde` donne à nbgrader pour qu'il l'écrive ; "" si c'est à lui de noter."""
    return getattr(converter, "graded", "")


def open_copy(path: Path, given: Assignment) -> NotebookNode:
    """Le carnet rendu, réparé ; ou une copie blanche qui dit pourquoi il est refusé. Le fichier n'est pas touché."""
    try:
        return open_data(read_data(path), given)
    except Unreadable as error:
        return open_data(b"", given, str(error))


def read_apart(data: bytes) -> NotebookNode:
    """`read_notebook`, à part : `Unreadable` aussi pour ce qui n'y tient pas."""
    try:
        return reads_json(apart(_read, data))
    except Died as error:
        raise Unreadable(str(error)) from None


def _read(data: bytes) -> str:
    return writes_json(read_notebook(data))


def open_apart(path: Path, given: Assignment) -> NotebookNode:
    """Comme `open_copy`, à part : ce que lit un processus qui a une base ou un serveur à tenir."""
    try:
        return reads_json(apart(_opened, path.absolute(), given.chapter.name, given.fingerprint))
    except (Exceeded, Died) as error:
        return open_data(b"", given, str(error))


def _opened(path: Path, name: str, fingerprint: str) -> str:
    return writes_json(open_copy(path, current_assignment(name, fingerprint)))


def open_data(data: bytes, given: Assignment, refused: str = "") -> NotebookNode:
    """Comme `open_copy`, à partir des octets rendus. refused : la raison, déjà connue, d'un refus."""
    template = given.template
    notes: Notes = {}
    try:
        if refused or (refused := refusal(data)):
            raise Unreadable(refused)
        notebook = read_notebook(data, pictures=bool(template.tasks))
        if not related(notebook, template):
            raise Unreadable(f"le carnet rendu n'est pas celui de {template.name}")
        notebook, notes = repair(notebook, template)
    except Unreadable as error:
        notebook, refused = template.blank(), str(error)
    about = {"notes": notes, "source": hashlib.sha256(data).hexdigest(), "chapter": given.fingerprint}
    notebook.metadata[KEY] = about | ({"refused": refused} if refused else {})
    return notebook


def related(notebook: NotebookNode, template: Template) -> bool:
    """Vrai si ce carnet a quelque chose du devoir : une cellule notée, ou le nom d'un exercice."""
    known = {c.grade_id for c in template.graded}
    if not known or any(claimed(c) in known for c in notebook.cells):
        return True
    names = "|".join(re.escape(c.exercise) for c in template.cells if c.role == "solution")
    return any(re.search(rf"\b(?:{names})\b", cell.source) for cell in notebook.cells)


def refusal(data: bytes) -> str:
    """La raison écrite dans une copie blanche par `grade`, ou ""."""
    if REFUSED_KEY.encode() not in data[-5000:]:
        return ""
    try:
        return shown(str(read_json(data)["metadata"].get(REFUSED_KEY, "")), 500)
    except (Unreadable, LookupError, TypeError, AttributeError):  # une copie peut porter ce mot sans en être une
        return ""


def blank_copy(template: Template, reason: str) -> NotebookNode:
    """La copie blanche que `grade` dépose quand un dossier rendu ne contient pas le carnet attendu."""
    notebook = template.blank()
    notebook.metadata[REFUSED_KEY] = reason
    return notebook


# ---------------------------------------------------------------------------------------------- noter


class GradeCells(NbGraderPreprocessor):
    """À la place d'`Execute` : note la copie et écrit retour et points dans ses cellules de vérification."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        if not already_graded(self.parent.parent):
            write_results(nb, judge_apart(nb, assignment(resources["nbgrader"]["assignment"])))
        return nb, resources


class SaveGrades(NbGraderPreprocessor):
    """À la place de `SaveAutoGrades` et d'`AssignLatePenalties` : la base, comme `grade` l'écrit."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        about = resources["nbgrader"]
        directory = CourseDirectory(config=self.config, db_url=about["db_url"])
        with Ledger(directory, about["assignment"], about["notebook"], self.parent) as ledger:
            ledger.write(about["student"], entries(nb))
        return nb, resources


def grade_notebook(
    nb: NotebookNode, given: Assignment, points: dict[str, float], sandbox: Sandbox, seed: int | None = None
) -> list[Result]:
    """Les notes d'une copie réparée, où s'ajoute ce que l'exécution apprend. points : barème, par exercice."""
    about = nb.metadata.get(KEY, {})
    if about.get("refused"):
        return grade_refused(given.chapter, points, about["refused"])
    cells = plan(nb, given.template).cells
    notes: Notes = {exercise: list(texts) for exercise, texts in about.get("notes", {}).items()}
    run = lambda tasks, shared: sandbox.run(cells, tasks, shared)  # noqa: E731
    chosen = fresh_seed() if seed is None else seed
    full = worth(given.chapter, points)
    results = grade_copy(lambda: given.subject(chosen), run, cells, full, notes) if given.chapter.exercises else []
    results += [by_hand(id, full[id]) for id in given.template.tasks]
    nb.metadata[KEY] = {**about, "notes": notes}
    return results


def judge_apart(nb: NotebookNode, given: Assignment) -> list[Result]:
    """Les notes d'une copie réparée, jugée à part ; refusée si elle ne tient pas dans ses limites."""
    points = points_of(nb, given.template)
    try:
        text = writes_json(nb)
        results, nb.metadata[KEY] = apart(_judged, text, given.chapter.name, given.fingerprint, points)
        return results
    except (Exceeded, Died) as error:
        nb.metadata[KEY] = {**nb.metadata.get(KEY, {}), "refused": str(error)}
        return grade_refused(given.chapter, points, str(error))


def _judged(text: str, name: str, fingerprint: str, points: dict[str, float]) -> tuple[list[Result], dict[str, Any]]:
    """Les notes, et ce que les métadonnées de la copie en disent."""
    one_thread()
    nb = reads_json(text)
    results = grade_notebook(nb, current_assignment(name, fingerprint), points, shared_sandbox())
    return results, nb.metadata.get(KEY, {})


def points_of(nb: NotebookNode, template: Template) -> dict[str, float]:
    """Le barème : celui des cellules de vérification, que nbgrader a remises d'après sa base."""
    points = {c.exercise: float(c.node.metadata["nbgrader"]["points"]) for c in template.cells if c.role == "test"}
    points |= template.tasks
    for cell in nb.cells:
        meta = cell.metadata.get("nbgrader", {})
        exercise = str(meta.get("grade_id", "")).removeprefix("test_")
        if (meta.get("grade") or meta.get("task")) and exercise in points:
            points[exercise] = float(meta["points"])
    return points


def write_results(nb: NotebookNode, results: list[Result]) -> None:
    """Chaque cellule de vérification reçoit le retour (texte) puis les points (ce que lit nbgrader)."""
    by_test = {f"test_{result.exercise}": result for result in results}
    for cell in nb.cells:
        cell.source = shortened(cell.source)
        result = by_test.get(claimed(cell))
        if result is None or cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.outputs = [
            NotebookNode(output_type="stream", name="stdout", text=result.feedback + "\n"),
            NotebookNode(
                output_type="execute_result",
                data=NotebookNode({"text/plain": repr(result.score)}),
                execution_count=None,
                metadata=NotebookNode(),
            ),
        ]
    nb.metadata[KEY] = {**nb.metadata.get(KEY, {}), "results": [r.as_data() for r in results]}
