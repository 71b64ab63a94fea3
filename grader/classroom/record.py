"""Écrire les notes d'une copie là où nbgrader les écrit : le carnet corrigé, puis la base.

C'est l'étape « autograde » de nbgrader sans l'exécution, en une transaction au lieu d'une centaine ; un test compare ce
que les deux laissent (tests/test_scale.py). Le fichier d'abord, la base ensuite : qui s'arrête entre les deux retrouve
le fichier la fois suivante et n'a plus que la base à écrire. Rien n'est perdu, rien n'est écrit deux fois.
"""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import reads_json, writes_json
from nbgrader import utils
from nbgrader.api import (
    Comment,
    Grade,
    Gradebook,
    MissingEntry,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
    new_uuid,
)
from nbgrader.converters import Autograde
from nbgrader.converters.base import BaseConverter
from nbgrader.preprocessors import AssignLatePenalties
from sqlalchemy import exc, insert, select, update
from sqlalchemy.engine import make_url
from traitlets.config import Config

from atelier.paths import write_atomically
from grader import UserError
from grader.classroom.course import CONFIG, Course, configure
from grader.classroom.marks import CopyMarks, read_marks, seconds_late

PATIENCE = 60.0
"""Secondes pendant lesquelles une base verrouillée ou absente est redemandée avant d'arrêter la correction."""
CONFLICTS = 5


ENGLISH_COMMENT = "No response."
"""Le commentaire que nbgrader pose de lui-même, en anglais, sur une cellule restée vide."""


class RecordError(UserError):
    """Les notes ne peuvent pas être écrites : base verrouillée, disparue, disque plein. La correction s'arrête là."""


class PenaltyError(Exception):
    """Le greffon de retard du cours n'a pas su dire la pénalité d'une copie ; les autres continuent."""


@dataclass(frozen=True)
class SourceCell:
    """Une cellule notée, telle que la base la connaît. points : None si elle ne vaut rien."""

    locked: bool
    source: str
    checksum: str
    points: float | None


@dataclass
class Entries:
    """Ce que la base retient d'un carnet corrigé : points et commentaires automatiques, par cellule."""

    scores: dict[str, float | None] = field(default_factory=dict)
    comments: dict[str, str | None] = field(default_factory=dict)


def overwrite(notebook: NotebookNode, cells: Mapping[str, SourceCell], kernelspec: Mapping[str, Any] | None) -> None:
    """Ce que font OverwriteKernelspec et OverwriteCells de nbgrader, d'après ce que la base a dit une fois."""
    if kernelspec:
        notebook.metadata["kernelspec"] = NotebookNode(kernelspec)
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader")
        known = cells.get(meta.get("grade_id")) if meta else None
        if known is None:
            continue
        if known.points is not None:
            meta["points"] = known.points
        meta["checksum"] = known.checksum
        if known.locked:
            meta["locked"] = True
            cell.source = known.source


def entries(notebook: NotebookNode) -> Entries:
    """Ce que `nbglue.SaveGrades` lirait dans ce carnet."""
    found = Entries()
    for cell in notebook.cells:
        if utils.is_grade(cell):
            found.scores[cell.metadata.nbgrader["grade_id"]] = utils.determine_grade(cell)[0]
        if utils.is_solution(cell):
            found.comments[cell.metadata.nbgrader["grade_id"]] = None  # le retour dit déjà, en français, « non fait »
    return found


def render(notebook: NotebookNode) -> str:
    """Le texte du carnet corrigé."""
    return writes_json(notebook) + "\n"


def follows_nbgrader(course: Course, name: str) -> bool:
    """Vrai si le cours n'a rien ajouté à l'étape « autograde » ; sinon c'est à nbgrader d'écrire, copie par copie."""
    wanted = Config()
    configure(wanted, course.folder)
    given = course.config.get("Autograde", {})
    same = all(list(given.get(key, [])) == list(wanted.Autograde[key]) for key in wanted.Autograde if "preproc" in key)
    plain = not set(given) - set(wanted.Autograde) - {"create_student", "force", "permissions"}
    hooks = {"pre_convert_hook", "post_convert_hook"} & {key for part in course.config.values() for key in part}
    with course.gradebook() as book:
        only = [n.name for n in book.find_assignment(name).notebooks] == [name]
    return bool(same and plain and only and not hooks and given.get("create_student", True))


class Recorder:
    """Le seul qui écrive les notes d'un devoir. `with Recorder(course, name) as recorder: recorder.save(…)`"""

    def __init__(self, course: Course, name: str) -> None:
        self.course, self.name, self.patience = course, name, PATIENCE
        self.converter = Autograde(coursedir=course.directory, config=course.config)
        self.converter.log = quiet_log()
        try:
            self.penalties = AssignLatePenalties(parent=self.converter)
            self.penalties.log = self.converter.log
            self.penalties.init_plugin()
        except Exception as error:  # du code du cours : il peut lever n'importe quoi
            raise UserError(
                f"Le greffon de retard que demande {course.folder / CONFIG} (AssignLatePenalties.plugin_class) ne se "
                f"charge pas\u00a0: {error}\nCorrigez son nom, ou posez son fichier à côté de {CONFIG}."
            ) from error

    def __enter__(self) -> Recorder:
        self.book = Gradebook(self.course.directory.db_url, self.course.directory.course_id)
        try:
            notebook = self.book.find_notebook(self.name, self.name)
        except MissingEntry as error:
            self.book.close()
            raise UserError(str(error)) from error
        self.assignment_id, self.notebook_id = notebook.assignment.id, notebook.id
        self.kernelspec = json.loads(notebook.kernelspec) if notebook.kernelspec else None
        points = {c.name: float(c.max_score) for c in notebook.grade_cells}
        self.cells = {
            c.name: SourceCell(c.locked, c.source, c.checksum, points.get(c.name)) for c in notebook.source_cells
        }
        self.graded_ids = {c.name: c.id for c in notebook.grade_cells}
        self.solution_ids = {c.name: c.id for c in notebook.solution_cells}
        source = self.course.path("source", assignment=self.name)
        ignored = [*self.course.directory.ignore, "*.ipynb"]
        self.extra_files = [Path(p) for p in utils.find_all_files(str(source), ignored)]
        self.source_folder = source
        self.book.db.rollback()
        return self

    def __exit__(self, *_: object) -> None:
        self.book.close()

    def forget_english(self) -> None:
        """Ôte de la base le commentaire anglais que les corrections d'avant y ont laissé."""
        old = (Comment.auto_comment == ENGLISH_COMMENT, Comment.cell_id.in_(self.solution_ids.values()))
        if self.book.db.execute(select(Comment.id).where(*old).limit(1)).first() is not None:
            clear = update(Comment).where(*old).values(auto_comment=None)
            self.insist(lambda: self.book.db.execute(clear, execution_options={"synchronize_session": False}))

    # ------------------------------------------------------------------------------------------ relire

    def recorded(self) -> dict[str, CopyMarks]:
        """Étudiant → sa note, telle que la base l'a."""
        found = read_marks(self.book, self.name)
        self.book.db.rollback()
        return found

    def timestamp(self, student: str) -> datetime | None:
        """La date de remise écrite à côté de la copie ; None s'il n'y en a pas, ou si elle est illisible."""
        folder = str(self.course.path("submitted", student, self.name))
        try:
            return self.course.directory.get_existing_timestamp(folder)
        except (Exception, SystemExit):  # nbgrader arrête tout devant une date qu'il ne comprend pas
            return None

    def unreadable_timestamp(self, student: str) -> bool:
        """Vrai si `timestamp.txt` dit quelque chose qui n'est pas une date."""
        path = self.course.path("submitted", student, self.name) / "timestamp.txt"
        return path.is_file() and bool(path.read_bytes().strip()) and self.timestamp(student) is None

    def file(self, student: str) -> Path:
        """Le carnet corrigé d'un étudiant."""
        return self.course.path("autograded", student, self.name) / f"{self.name}.ipynb"

    # ------------------------------------------------------------------------------------------ écrire

    def save(self, student: str, text: str, found: Entries) -> None:
        """Écrit le carnet corrigé, puis la base. Lève `RecordError` si l'un des deux est impossible."""
        self.write_files(student, text)
        self.write_rows(student, found)

    def write_files(self, student: str, text: str) -> None:
        """Le carnet corrigé, entier ou pas du tout, et les fichiers qui l'accompagnent."""
        path = self.file(student)
        try:
            write_atomically(path, text.encode())
            for other in path.parent.rglob("*"):
                if other.is_file() and other != path:
                    other.unlink()
            BaseConverter.init_assignment(self.converter, self.name, student)
            for file in self.extra_files:
                target = path.parent / file.relative_to(self.source_folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
            self.converter.set_permissions(self.name, student)
        except OSError as error:
            raise RecordError(
                f"La copie corrigée de {student} ne peut pas être écrite dans {path.parent} ({error.strerror}). "
                "Libérez de la place ou rendez ce dossier inscriptible, puis relancez la même commande\u00a0: "
                "les copies déjà corrigées ne seront pas reprises."
            ) from error

    def write_rows(self, student: str, found: Entries) -> None:
        """Les lignes de la base, en une transaction, redemandée tant qu'une base verrouillée peut se libérer."""
        timestamp = self.timestamp(student)
        self.insist(lambda: self._rows(student, timestamp, found))

    def _rows(self, student: str, timestamp: datetime | None, found: Entries) -> None:
        db = self.book.db
        if db.execute(select(Student.id).where(Student.id == student)).first() is None:
            db.execute(insert(Student).values(id=student))
        submission, notebook = self._submission(student, timestamp)
        manual = select(Grade.cell_id).where(Grade.notebook_id == notebook, Grade.manual_score.is_not(None))
        by_hand = set(db.execute(manual).scalars())
        grades = {}
        for cell, score in found.scores.items():
            id = self.graded_ids[cell]
            grades[id] = {"auto_score": score, "needs_manual_grade": score is None or id in by_hand}
        comments = {self.solution_ids[cell]: {"auto_comment": text} for cell, text in found.comments.items()}
        blank = {"auto_score": None, "needs_manual_grade": True}
        self._upsert(Grade, notebook, self.graded_ids.values(), blank, grades)
        self._upsert(Comment, notebook, self.solution_ids.values(), {"auto_comment": None}, comments)
        self._late(student, submission, notebook)

    def _upsert(self, table: Any, notebook: str, cells: Iterable[str], blank: Mapping, found: Mapping) -> None:
        """Une ligne par cellule d'un carnet : créée si elle manque, mise à jour si la correction en dit quelque chose.

        blank : les colonnes d'une ligne neuve, à défaut ; found : cellule → colonnes.
        """
        db = self.book.db
        rows = db.execute(select(table.cell_id, table.id).where(table.notebook_id == notebook))
        known = {cell: id for cell, id in rows}
        if old := [{"id": known[cell], **columns} for cell, columns in found.items() if cell in known]:
            db.execute(update(table), old)
        always = {"notebook_id": notebook, **blank}
        missing = [cell for cell in cells if cell not in known]
        if new := [{"id": new_uuid(), "cell_id": cell, **always, **found.get(cell, {})} for cell in missing]:
            db.execute(insert(table), new)

    def _submission(self, student: str, timestamp: datetime | None) -> tuple[str, str]:
        """Identifiants de la remise et de son carnet dans la base ; créés s'il le faut."""
        db = self.book.db
        mine = (SubmittedAssignment.assignment_id == self.assignment_id, SubmittedAssignment.student_id == student)
        submission = db.execute(select(SubmittedAssignment.id).where(*mine)).scalar()
        if submission is None:
            submission = new_uuid()
            values = {"id": submission, "assignment_id": self.assignment_id, "student_id": student}
            db.execute(insert(SubmittedAssignment).values(**values, timestamp=timestamp))
        elif timestamp is not None:
            where = SubmittedAssignment.id == submission
            db.execute(update(SubmittedAssignment).where(where).values(timestamp=timestamp))
        its = (SubmittedNotebook.assignment_id == submission, SubmittedNotebook.notebook_id == self.notebook_id)
        notebook = db.execute(select(SubmittedNotebook.id).where(*its)).scalar()
        if notebook is None:
            notebook = new_uuid()
            values = {"id": notebook, "assignment_id": submission, "notebook_id": self.notebook_id, "flagged": False}
            db.execute(insert(SubmittedNotebook).values(**values))
        return submission, notebook

    def _late(self, student: str, submission: str, notebook: str) -> None:
        """La pénalité de retard que demande le greffon du cours."""
        db = self.book.db
        penalty = None
        late = seconds_late(db.get(SubmittedAssignment, submission))
        if late > 0:
            row = db.get(SubmittedNotebook, notebook)
            db.refresh(row)
            penalty = self.penalty(student, row, late)
        where = SubmittedNotebook.id == notebook
        db.execute(update(SubmittedNotebook).where(where).values(late_submission_penalty=penalty))

    def penalty(self, student: str, scored: Any, late: float) -> float | None:
        """Ce que le greffon ôte à une copie en retard, borné comme nbgrader le borne. scored : ce qui a un `score`."""
        try:
            penalty = self.penalties.plugin_inst.late_submission_penalty(student, scored.score, late)
            if penalty is None:
                return None
            penalty = float(self.penalties._check_late_penalty(scored, float(penalty)))
        except Exception as error:  # du code du cours : il peut lever n'importe quoi
            raise PenaltyError(f"le greffon de retard échoue ({type(error).__name__}\u00a0: {error})") from error
        if not math.isfinite(penalty):
            raise PenaltyError(f"le greffon de retard rend {penalty}, qui n'est pas un nombre de points")
        return penalty

    def penalty_changed(self, copy: CopyMarks) -> bool:
        """Vrai si la date limite, un délai accordé ou le greffon ont changé depuis que la pénalité est écrite.

        Une note à la main a pu changer le score depuis, ce que nbgrader n'ajuste pas : alors seulement si la copie
        devient, ou n'est plus, en retard.
        """
        expected = self.penalty(copy.student, SimpleNamespace(score=copy.raw), copy.late) if copy.late > 0 else None
        if copy.by_hand:
            return bool(expected) != bool(copy.penalty)
        return not math.isclose(expected or 0.0, copy.penalty, abs_tol=1e-9)

    def insist(self, action: Callable[[], None]) -> None:
        """Exécute `action` en une transaction ; recommence après un conflit ou un verrou, un temps borné."""
        end = time.monotonic() + self.patience
        conflicts = 0
        wait = 0.1
        while True:
            try:
                self._check_file()
                action()
                self.book.db.commit()
                self.book.db.expunge_all()
                return
            except PenaltyError:
                self._forget()
                raise
            except exc.DBAPIError as error:
                self._forget()
                conflicts += isinstance(error, exc.IntegrityError)
                if conflicts > CONFLICTS or time.monotonic() > end or not retriable(error):
                    raise RecordError(self._trouble(str(error.orig))) from error
            time.sleep(wait)
            wait = min(2 * wait, 2.0)

    def _forget(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.book.db.rollback()
            except exc.SQLAlchemyError:
                self.book.db.remove()
            self.book.engine.dispose()

    def _check_file(self) -> None:
        """Une base SQLite effacée garderait, le temps de la session, des notes que personne ne relirait."""
        url = make_url(self.course.directory.db_url)
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            raise RecordError(self._trouble("le fichier n'existe plus"))

    def _trouble(self, reason: str) -> str:
        where = make_url(self.course.directory.db_url).render_as_string(hide_password=True)
        what, then = "ne répond plus", "Quand la base est de retour"
        if "is full" in reason:
            what, then = "ne peut plus être écrite, le disque est plein", "Quand vous aurez fait de la place"
        return (
            f"La base des notes ({where}) {what}\u00a0: {reason.strip().splitlines()[0]}.\n"
            f"Les copies déjà corrigées sont dans autograded/. {then}, relancez la même commande\u00a0: "
            "elle reprendra où elle s'est arrêtée."
        )


def retriable(error: exc.DBAPIError) -> bool:
    """Vrai si recommencer peut réussir : verrou, conflit entre deux enseignants, connexion perdue."""
    if error.connection_invalidated or isinstance(error, (exc.IntegrityError, exc.InterfaceError)):
        return True
    text = str(error.orig).lower()
    lasting = ("disk is full", "disk i/o", "readonly", "read-only", "malformed", "not a database", "no such table")
    return isinstance(error, exc.OperationalError) and not any(word in text for word in lasting)


def quiet_log() -> logging.Logger:
    """Un journal qui ne dit rien : ce que nbgrader annonce copie par copie n'intéresse personne."""
    log = logging.getLogger("grader.classroom.record")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    log.setLevel(logging.CRITICAL)
    return log


def read_graded(path: Path) -> NotebookNode | None:
    """Un carnet corrigé ; None s'il est absent ou illisible."""
    try:
        return reads_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, AttributeError):
        return None
