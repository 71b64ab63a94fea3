"""Ce qu'un devoir corrigé apprend sur la classe : notes, exercices, idées fausses, qui aider."""

from __future__ import annotations

import ast
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from nbgrader.utils import is_solution

from atelier import paths
from grader import UserError
from grader.classroom.course import Course
from grader.classroom.grading import Result
from grader.classroom.marks import CopyMarks, points_changed, points_when_graded, read_marks
from grader.classroom.record import read_graded
from grader.classroom.submission import KEY, notes_text
from grader.report.similarity import Pair, similar_pairs, without_docstring
from grader.report.syntax import parsed

MIN_FOR_ITEMS = 10
"""En dessous de ce nombre de copies, une discrimination n'est que du bruit."""
UNDERSTOOD = 0.5
"""Part moyenne des points sous laquelle un exercice n'a pas été compris par la classe."""
SHARED = 0.2
"""Part de la classe au-dessus de laquelle une même idée fausse mérite d'être reprise devant tous."""
HELP = 0.5
"""Part des points sous laquelle un étudiant a besoin d'aide."""
EXAMPLE_LINES = 24


@dataclass
class Row:
    """Un étudiant. score, scores : ceux de la base de nbgrader, corrections à la main et retard compris.

    Sans score ni scores : il n'a rien rendu.
    """

    student: str
    name: str
    score: float | None
    scores: dict[str, float]
    results: dict[str, Result]
    sources: dict[str, str] = field(default_factory=dict)
    """Exercice → réponse écrite, absente si c'est encore l'énoncé."""
    refused: str = ""
    notes: list[str] = field(default_factory=list)
    """Ce qui a été réparé dans sa copie."""
    penalty: float = 0.0
    """Points ôtés pour retard : le score est la somme des scores, moins elle."""
    differences: list[str] = field(default_factory=list)
    """Ce qui sépare sa note de la correction automatique."""
    email: str = ""
    pending: list[str] = field(default_factory=list)
    """Ce que personne n'a encore noté à la main ; sa note n'est pas connue tant qu'il en reste."""

    @property
    def raw(self) -> float:
        """Ce qu'il a su faire, retard à part."""
        return sum(self.scores.values())


@dataclass
class Sheet:
    """Les notes d'un devoir."""

    assignment: str
    points: dict[str, float]
    rows: list[Row]

    @property
    def max_score(self) -> float:
        return sum(self.points.values())

    @cached_property
    def worth(self) -> dict[str, float]:
        """Ce que vaut chaque exercice : son barème ou, s'il est un approfondissement, son bonus."""
        found = {id: [row.results[id].max_score for row in self.rows if id in row.results] for id in self.points}
        return {id: points or max(found[id], default=0.0) for id, points in self.points.items()}

    def mark(self, row: Row) -> float | None:
        """Note sur le barème du cours (20), arrondie au centième ; None s'il n'y en a pas, ou pas encore."""
        if row.score is None or row.pending:
            return None
        return round(paths.course()["mark_out_of"] * row.score / self.max_score, 2) if self.max_score else 0.0

    @property
    def graded(self) -> list[Row]:
        return [row for row in self.rows if row.score is not None]

    @property
    def pending(self) -> list[Row]:
        """Les copies que quelqu'un doit encore noter."""
        return [row for row in self.graded if row.pending]

    @property
    def readable(self) -> list[Row]:
        """Les copies notées et lisibles : celles dont on peut apprendre quelque chose."""
        return [row for row in self.graded if not row.refused]

    @cached_property
    def pairs(self) -> list[Pair]:
        """Les paires de réponses qui se ressemblent."""
        rows = self.readable
        return similar_pairs({id: {r.student: r.sources[id] for r in rows if id in r.sources} for id in self.points})

    @property
    def marks(self) -> list[float]:
        """Les notes, de la plus basse à la plus haute."""
        return sorted(mark for row in self.graded if (mark := self.mark(row)) is not None)


def read_sheet(course: Course, name: str) -> Sheet:
    """Les notes du devoir `name`, de la base et des copies corrigées."""
    points = course.points(name)
    rows, changed = [], {}
    with course.gradebook() as book:
        marks = read_marks(book, name)
        people = [(s.id, s.first_name, s.last_name, s.email) for s in sorted(book.students, key=lambda s: s.id)]
    for student, first, last, email in people:
        row = Row(student, " ".join(filter(None, (first, last))), None, {}, {}, email=email or "")
        if copy := marks.get(student):
            row.score, row.penalty, row.pending = copy.score, copy.penalty, copy.pending
            row.scores = {id: score for id, score in copy.scores.items() if id not in row.pending}
            row.differences = copy.differences()
            if found := read_copy(course, name, row, copy):
                changed[student] = found
        rows.append(row)
    again = f"python -m grader grade {name} --course {course.folder}"
    if not any(row.score is not None for row in rows):
        raise UserError(f"Aucune copie de {name} n'est corrigée. Lancez d'abord\u00a0: {again}")
    if changed:
        copies = "1 copie" if len(changed) == 1 else f"{len(changed)} copies"
        what = ", ".join(sorted({text for texts in changed.values() for text in texts}))
        raise UserError(
            f"Le barème de {name} a changé depuis la correction de {copies} ({what})\u00a0: leurs points sont encore "
            f"ceux d'avant. Lancez d'abord\u00a0: {again}"
        )
    return Sheet(name, points, rows)


def read_copy(course: Course, name: str, row: Row, copy: CopyMarks) -> list[str]:
    """Ajoute à `row` ce que dit sa copie corrigée : verdicts, refus, réparations, réponses.

    Rend les exercices dont le barème a changé depuis.
    """
    notebook = read_graded(course.path("autograded", row.student, name) / f"{name}.ipynb")
    if notebook is None:
        return points_changed({}, copy)
    about = notebook.metadata.get(KEY, {})
    row.results = {data["exercise"]: Result.from_data(data) for data in about.get("results", [])}
    row.refused = str(about.get("refused", ""))
    row.notes = notes_text(about.get("notes", {}))
    answered = {id for id, result in row.results.items() if result.verdict not in ("missing", "refused")}
    for cell in notebook.cells:
        id = cell.metadata.get("nbgrader", {}).get("grade_id")
        if is_solution(cell) and id in answered:
            row.sources[id] = cell.source
    return points_changed(points_when_graded(notebook), copy)


# ---------------------------------------------------------------------------------------------- exercices


@dataclass
class Mistake:
    """Une idée fausse rencontrée : combien de fois, sa phrase, et une réponse anonyme qui la commet."""

    name: str
    sentence: str
    times: int
    example: str


@dataclass
class Item:
    """Un exercice vu par la classe. discrimination : None si trop peu de copies."""

    exercise: str
    points: float
    mean: float
    full: int
    copies: int
    verdicts: Counter[str]
    mistakes: list[Mistake]
    discrimination: float | None

    @property
    def ease(self) -> float:
        """Part moyenne des points obtenue, de 0 à 1."""
        return self.mean / self.points if self.points else 0.0

    @property
    def not_understood(self) -> bool:
        shared = self.mistakes and self.mistakes[0].times >= max(2, SHARED * self.copies)
        return bool(self.copies) and (self.ease < UNDERSTOOD or bool(shared))


def items(sheet: Sheet) -> list[Item]:
    """Les exercices, du moins au mieux réussi."""
    found = []
    for id, points in sheet.worth.items():
        rows = [row for row in sheet.readable if id not in row.pending]
        scores = [row.scores.get(id, 0.0) for row in rows]
        rest = [row.raw - score for row, score in zip(rows, scores, strict=True)]
        found.append(
            Item(
                id,
                points,
                sum(scores) / len(scores) if scores else 0.0,
                sum(score >= points for score in scores),
                len(rows),
                Counter(row.results[id].verdict for row in rows if id in row.results),
                mistakes(rows, id),
                discrimination(scores, rest),
            )
        )
    return sorted(found, key=lambda item: (item.ease, item.exercise))


def discrimination(scores: Sequence[float], rest: Sequence[float]) -> float | None:
    """Corrélation entre les points de cet exercice et ceux de tous les autres ; None si elle n'a pas de sens."""
    if len(scores) < MIN_FOR_ITEMS or len(set(scores)) < 2 or len(set(rest)) < 2:
        return None
    return statistics.correlation(scores, rest)


def mistakes(rows: Sequence[Row], id: str) -> list[Mistake]:
    """Les idées fausses d'un exercice, de la plus à la moins fréquente."""
    met: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        result = row.results.get(id)
        if result is not None and result.misconception:
            met.setdefault((result.misconception, result.message), []).append(row)
    found = [
        Mistake(name, sentence, len(who), shortest([anonymous(row, id) for row in who]))
        for (name, sentence), who in met.items()
    ]
    return sorted(found, key=lambda m: (-m.times, m.name))


def anonymous(row: Row, id: str) -> str:
    """La réponse d'un étudiant sans commentaire, sans docstring, sans son nom ; "" si elle n'est pas du Python."""
    tree = parsed(row.sources.get(id, ""))
    if tree is None:
        return ""
    try:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                node.body = without_docstring(node.body) or [ast.Pass()]
        text = ast.unparse(tree)
    except (ValueError, RecursionError, MemoryError):
        return ""
    for word in {row.student, *row.name.split(), *re.split(r"[-._]", row.student)}:
        if len(word) > 2:
            text = re.sub(re.escape(word), "…", text, flags=re.IGNORECASE)
    lines = text.split("\n")
    return "\n".join(lines[:EXAMPLE_LINES] + ["…"] * (len(lines) > EXAMPLE_LINES))


def shortest(texts: Sequence[str]) -> str:
    return min(filter(None, texts), key=len, default="")


# ---------------------------------------------------------------------------------------------- étudiants


@dataclass
class Need:
    """Un étudiant à aider : sa note, et ce qui lui manque."""

    row: Row
    mark: float
    why: list[str]


def needs(sheet: Sheet) -> list[Need]:
    """Qui a besoin d'aide, du plus au moins : moins de la moitié des points, retard à part, copie lisible."""
    found = []
    for row in sheet.readable:
        mark = sheet.mark(row)
        if mark is None or row.raw >= HELP * sheet.max_score:
            continue
        results = [r for r in row.results.values() if r.verdict != "correct"]
        missing = [r.exercise for r in results if r.verdict == "missing"]
        stuck = [r.exercise for r in results if r.verdict in ("error", "timeout")]
        wrong = [r.exercise for r in results if r.verdict in ("misconception", "incorrect", "partial")]
        why = [
            f"{what}\u00a0: {', '.join(ids)}"
            for what, ids in (("non faits", missing), ("en erreur", stuck), ("à reprendre", wrong))
            if ids
        ]
        found.append(Need(row, mark, why))
    return sorted(found, key=lambda need: (need.mark, need.row.student))
