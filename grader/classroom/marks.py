"""Les notes d'un devoir, telles que la base de nbgrader les a : toute note montrée ou exportée est lue ici.

Les points sont ceux du modèle de nbgrader (`Grade.score`, `SubmittedAssignment.score`, pénalité de retard) : note à la
main d'abord, sinon note automatique, bonus en plus, retard en moins, comme `nbgrader export`. Ce qui s'écarte de la
correction automatique est dit en une phrase, la même pour qui enseigne et pour l'étudiant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from nbformat import NotebookNode
from nbgrader.api import (
    BaseCell,
    Comment,
    Grade,
    Gradebook,
    SubmittedAssignment,
    SubmittedNotebook,
)
from sqlalchemy import Select, select
from sqlalchemy.orm import undefer

from atelier.text import NBSP, THIN, number, plural

SAME = 1e-9
"""Écart sous lequel deux nombres de points sont les mêmes."""


def points_text(value: float) -> str:
    """Un nombre de points : au plus deux décimales, virgule."""
    return number(round(value, 2), 12)


def decimal(value: float | None) -> str:
    """Un nombre d'une colonne de points : deux décimales ; « — » s'il n'y en a pas."""
    return "—" if value is None else number(value, decimals=2)


def out_of(score: float, max_score: float) -> str:
    """« 10,5 / 11 » ; « 2 points de bonus » pour ce qui ne compte pas dans le maximum."""
    if not max_score:
        return f"{plural(round(score, 2), 'point')} de bonus"
    return number(round(score, 2), 12, unit=f"/{NBSP}{points_text(max_score)}")


def sentence(text: str) -> str:
    """Une remarque, en phrase : majuscule et point."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


@dataclass(frozen=True)
class CellMark:
    """La note d'un exercice. auto, manual : None si personne n'en a mis ; review : à revoir à la main.

    Un approfondissement a un max_score de 0 : ses points sont un bonus. cut : ce qui en est ôté dans le total de la
    copie, qui ne dépasse pas le maximum.
    """

    score: float
    max_score: float
    auto: float | None
    manual: float | None
    extra: float
    review: bool
    cut: float = 0.0
    task: bool = False
    """Vrai pour ce que seul quelqu'un note : une note à la main n'y change rien."""

    @property
    def by_hand(self) -> bool:
        return self.manual is not None or bool(self.extra)

    @property
    def pending(self) -> bool:
        """Vrai si personne ne l'a encore notée."""
        return self.task and self.manual is None

    @property
    def difference(self) -> str:
        """Ce qui sépare cette note de la correction automatique, en une phrase ; "" si rien."""
        parts = []
        other = self.auto is None or self.manual is None or abs(self.manual - self.auto) > SAME
        if self.manual is not None and other and not self.task:
            parts.append(f"note mise à la main, {out_of(self.manual, self.max_score)}")
            if self.auto is not None:
                parts[0] += f" (la correction automatique donne {out_of(self.auto, self.max_score)})"
        if self.extra:
            what = "de plus" if self.extra > 0 else "de moins"
            parts.append(f"{plural(round(abs(self.extra), 2), 'point')} {what}, à la main")
        return f"{THIN}; ".join(parts)


@dataclass
class CopyMarks:
    """La note d'une copie. raw : somme des exercices ; penalty : points ôtés ; late : retard, en secondes."""

    student: str
    raw: float
    penalty: float
    max_score: float
    timestamp: datetime | None = None
    late: float = 0.0
    cells: dict[str, CellMark] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Le total que `nbgrader export` donne : jamais sous zéro."""
        return max(0.0, self.raw - self.penalty)

    @property
    def excess_changed(self) -> bool:
        """Vrai si ce qui est ôté aux bonus n'est plus ce qu'il faudrait : une note à la main a changé le reste."""
        expected = cuts(self.scores, {exercise: cell.max_score for exercise, cell in self.cells.items()})
        return abs(sum(cell.cut for cell in self.cells.values()) - sum(expected.values())) > SAME

    @property
    def by_hand(self) -> bool:
        return any(cell.by_hand for cell in self.cells.values())

    @property
    def pending(self) -> list[str]:
        """Ce que personne n'a encore noté à la main."""
        return [exercise for exercise, cell in self.cells.items() if cell.pending]

    @property
    def scores(self) -> dict[str, float]:
        return {exercise: cell.score for exercise, cell in self.cells.items()}

    @property
    def lateness(self) -> str:
        """La pénalité de retard, en une phrase ; "" s'il n'y en a pas."""
        if not self.penalty:
            return ""
        less = plural(round(self.penalty, 2), "point")
        what = f"retard{NBSP}: {less} en moins" if self.penalty > 0 else "retard compté en plus"
        return f"{what}, {out_of(self.score, self.max_score)} au lieu de {points_text(self.raw)}"

    def differences(self) -> list[str]:
        """Tout ce qui sépare ces notes de la correction automatique, pour qui enseigne."""
        said = []
        for exercise, cell in self.cells.items():
            if text := cell.difference:
                if cell.review:
                    text += f"{THIN}; copie recorrigée depuis, à revoir dans formgrader"
                said.append(f"{exercise}{NBSP}: {text}")
            elif cell.task and cell.review and not cell.pending:
                said.append(f"{exercise}{NBSP}: noté avant que la copie change, à revoir dans formgrader")
        return said + ([self.lateness] if self.lateness else [])


def cuts(scores: Mapping[str, float], points: Mapping[str, float]) -> dict[str, float]:
    """Bonus (ce qui vaut 0 au barème) → ce qu'il faut en ôter pour que le total ne passe pas le maximum."""
    room = sum(points.values()) - sum(scores[id] for id, value in points.items() if value)
    found = {}
    for id in (id for id, value in points.items() if not value):
        kept = min(scores[id], max(0.0, room))
        room -= kept
        found[id] = scores[id] - kept
    return found


def exercise_of(cell: str) -> str:
    """L'exercice que note la cellule `test_<exercice>`."""
    return cell.removeprefix("test_")


def read_marks(book: Gradebook, name: str, student: str | None = None) -> dict[str, CopyMarks]:
    """Étudiant → sa note au devoir `name`, pour tous ceux qui ont une copie dans la base (ou pour `student`)."""
    assignment = book.find_assignment(name)
    query = (
        select(SubmittedAssignment)
        .where(SubmittedAssignment.assignment_id == assignment.id)
        .options(undefer(SubmittedAssignment.score), undefer(SubmittedAssignment.late_submission_penalty))
    )
    found = {}
    for row in book.db.execute(_only(query, student)).scalars():
        score, penalty = float(row.score), float(row.late_submission_penalty)
        max_score, late = float(assignment.max_score), seconds_late(row)
        found[row.student_id] = CopyMarks(row.student_id, score, penalty, max_score, row.timestamp, late)
    columns = (Grade.score, Grade.max_score, Grade.auto_score, Grade.manual_score, Grade.extra_credit)
    about = (BaseCell.type, Grade.needs_manual_grade)
    for who, cell, *values, kind, review in book.db.execute(
        _only(_by_cell(Grade, assignment.id, *columns, *about), student)
    ):
        score, max_score, auto, manual, extra = values
        extra = extra or 0.0
        cut = max(0.0, -extra) if not max_score else 0.0
        task = kind == "TaskCell"
        mark = CellMark(score + cut, float(max_score), auto, manual, extra + cut, bool(review), cut, task)
        found[who].cells[exercise_of(cell)] = mark
    return found


def read_comments(book: Gradebook, name: str, student: str | None = None) -> dict[str, dict[str, str]]:
    """Étudiant → {cellule: commentaire écrit à la main}, pour le devoir `name`."""
    query = _by_cell(Comment, book.find_assignment(name).id, Comment.manual_comment)
    found: dict[str, dict[str, str]] = {}
    for who, cell, text in book.db.execute(_only(query.where(Comment.manual_comment.is_not(None)), student)):
        found.setdefault(who, {})[cell] = text
    return found


def _by_cell(table: type[Grade] | type[Comment], assignment_id: str, *columns: object) -> Select:
    """(étudiant, cellule, colonnes) pour les copies d'un devoir."""
    return (
        select(SubmittedAssignment.student_id, BaseCell.name, *columns)
        .select_from(table)
        .join(SubmittedNotebook, SubmittedNotebook.id == table.notebook_id)
        .join(SubmittedAssignment, SubmittedAssignment.id == SubmittedNotebook.assignment_id)
        .join(BaseCell, BaseCell.id == table.cell_id)
        .where(SubmittedAssignment.assignment_id == assignment_id)
    )


def _only(query: Select, student: str | None) -> Select:
    return query if student is None else query.where(SubmittedAssignment.student_id == student)


def seconds_late(submission: SubmittedAssignment) -> float:
    """Le retard d'une copie, délai accordé compris ; nul sans date limite, ce que nbgrader ne prévoit pas toujours."""
    return 0.0 if submission.assignment.duedate is None else float(submission.total_seconds_late)


# ---------------------------------------------------------------------------------------------- barème changé


def points_when_graded(notebook: NotebookNode) -> dict[str, float]:
    """Le barème d'un carnet corrigé, par exercice : celui qui valait quand il l'a été."""
    cells = (cell.metadata.get("nbgrader", {}) for cell in notebook.cells)
    graded = (meta for meta in cells if meta.get("grade") or meta.get("task"))
    return {exercise_of(meta["grade_id"]): float(meta["points"]) for meta in graded}


def points_changed(graded: Mapping[str, float], copy: CopyMarks) -> list[str]:
    """Les exercices dont le barème a changé depuis que cette copie est corrigée : « spread (3 → 4) ».

    graded : `points_when_graded` ; vide si le carnet corrigé manque.
    """
    said = []
    for exercise, cell in copy.cells.items():
        then = graded.get(exercise, max(cell.max_score, cell.auto or 0.0) if cell.max_score else 0.0)
        if abs(then - cell.max_score) > SAME:
            said.append(f"{exercise} ({points_text(then)} → {points_text(cell.max_score)})")
    return said
