"""Écrire les notes d'une copie dans la base de nbgrader : le seul endroit qui le fasse.

La commande `grade` (`record`) et l'étape « autograde » de nbgrader (`nbglue.SaveGrades`) y passent. C'est ce que font
SaveAutoGrades et AssignLatePenalties de nbgrader, en une transaction au lieu d'une centaine ; un test compare ce que
les deux laissent (tests/test_scale.py).
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

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
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import AssignLatePenalties
from sqlalchemy import exc, insert, select, update
from sqlalchemy.engine import make_url
from traitlets.config import Configurable

from grader import UserError, retries
from grader.classroom.course import CONFIG
from grader.classroom.marks import CopyMarks, cuts, read_marks, seconds_late

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


class Ledger:
    """Ce que la base dit d'un carnet d'un devoir, et de quoi y écrire. `with Ledger(…) as ledger: ledger.write(…)`"""

    def __init__(self, directory: CourseDirectory, assignment: str, notebook: str, parent: Configurable) -> None:
        """parent : qui porte les réglages du cours, où se lit le greffon de retard."""
        self.directory, self.name, self.notebook_name = directory, assignment, notebook
        try:
            self.penalties = AssignLatePenalties(parent=parent)
            self.penalties.log = quiet_log()
            self.penalties.init_plugin()
        except Exception as error:  # du code du cours : il peut lever n'importe quoi
            raise UserError(
                f"Le greffon de retard que demande {Path(directory.root) / CONFIG} (AssignLatePenalties.plugin_class) "
                f"ne se charge pas\u00a0: {error}\nCorrigez son nom, ou posez son fichier à côté de {CONFIG}."
            ) from error

    def __enter__(self) -> Self:
        self.book = Gradebook(self.directory.db_url, self.directory.course_id)
        try:
            notebook = self.book.find_notebook(self.notebook_name, self.name)
        except MissingEntry as error:
            self.book.close()
            raise UserError(str(error)) from error
        self.assignment_id, self.notebook_id = notebook.assignment.id, notebook.id
        self.kernelspec = json.loads(notebook.kernelspec) if notebook.kernelspec else None
        marked = [*notebook.grade_cells, *notebook.task_cells]
        points = {c.name: float(c.max_score) for c in marked}
        self.cells = {
            c.name: SourceCell(c.locked, c.source, c.checksum, points.get(c.name)) for c in notebook.source_cells
        }
        self.graded_ids = {c.name: c.id for c in marked}
        self.solution_ids = {c.name: c.id for c in (*notebook.solution_cells, *notebook.task_cells)}
        self.book.db.rollback()
        return self

    def __exit__(self, *_: object) -> None:
        self.book.close()

    def recorded(self) -> dict[str, CopyMarks]:
        """Étudiant → sa note, telle que la base l'a."""
        found = read_marks(self.book, self.name)
        self.book.db.rollback()
        return found

    def write(self, student: str, found: Entries, timestamp: datetime | None = None) -> None:
        """Les notes d'une copie, en une transaction, redemandée tant qu'une base verrouillée peut se libérer.

        timestamp : sa date de remise ; None garde celle que la base connaît.
        """
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
        self._cut_bonus(notebook)
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

    def _cut_bonus(self, notebook: str) -> None:
        """Ôte aux approfondissements (les cellules qui valent 0) ce qui ferait passer la note au-dessus du maximum.

        C'est un crédit négatif : la cellule garde ses points, et le total de nbgrader est la note.
        """
        points = {self.graded_ids[name]: cell.points for name, cell in self.cells.items() if cell.points is not None}
        if all(points.values()):
            return
        columns = (Grade.id, Grade.cell_id, Grade.auto_score, Grade.manual_score, Grade.extra_credit)
        ids, by_hand, scores = {}, {}, {}
        for row in self.book.db.execute(select(*columns).where(Grade.notebook_id == notebook)):
            extra = row.extra_credit or 0.0
            ids[row.cell_id], by_hand[row.cell_id] = row.id, extra if points[row.cell_id] else max(0.0, extra)
            score = row.auto_score if row.manual_score is None else row.manual_score
            scores[row.cell_id] = (score or 0.0) + by_hand[row.cell_id]
        changes = [{"id": ids[c], "extra_credit": by_hand[c] - cut or None} for c, cut in cuts(scores, points).items()]
        self.book.db.execute(update(Grade), changes)

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
        conflicts = 0
        trouble = ""
        for _ in retries.DATABASE:
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
                trouble = str(error.orig)
                conflicts += isinstance(error, exc.IntegrityError)
                if conflicts > retries.CONFLICTS or not retriable(error):
                    break
        raise RecordError(self._trouble(trouble))

    def forget_english(self) -> None:
        """Ôte de la base le commentaire anglais que les corrections d'avant y ont laissé."""
        old = (Comment.auto_comment == ENGLISH_COMMENT, Comment.cell_id.in_(self.solution_ids.values()))
        if self.book.db.execute(select(Comment.id).where(*old).limit(1)).first() is not None:
            clear = update(Comment).where(*old).values(auto_comment=None)
            self.insist(lambda: self.book.db.execute(clear, execution_options={"synchronize_session": False}))

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
        url = make_url(self.directory.db_url)
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            raise RecordError(self._trouble("le fichier n'existe plus"))

    def _trouble(self, reason: str) -> str:
        where = make_url(self.directory.db_url).render_as_string(hide_password=True)
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
    log = logging.getLogger("grader.classroom.ledger")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    log.setLevel(logging.CRITICAL)
    return log
