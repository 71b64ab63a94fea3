"""`report` : les notes d'un devoir en CSV (tableur et Moodle) et le bilan de la classe en texte."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nbgrader.api import MissingEntry

from atelier import paths
from atelier.compare import format_number
from grader import UserError
from grader.collect import moodle_numbers
from grader.course import Course
from grader.grading import NB, VERDICTS, Result
from grader.marking import table
from grader.nbglue import results_in

THIN = "\u202f"
MOODLE_COLUMNS = ("Identifiant", "Nom complet", "Note", "Note maximale", "Dernière modification (note)")
"""En-têtes d'une feuille d'évaluation de Moodle en français : les trois que l'import exige (Identifiant, Note, Dernière
modification) et deux pour qui la lit. Moodle les compare mot à mot, dans la langue de l'enseignant."""
ID_COLUMNS = ("Identifiant", "Identifier")
GRADE_COLUMNS = ("Note", "Grade")


@dataclass
class Row:
    """Un étudiant. scores : ceux de la base de nbgrader, corrections à la main comprises ; vide s'il n'a rien rendu."""

    student: str
    name: str
    score: float | None
    scores: dict[str, float]
    results: dict[str, Result]


@dataclass
class Sheet:
    """Les notes d'un devoir."""

    assignment: str
    points: dict[str, float]
    rows: list[Row]

    @property
    def max_score(self) -> float:
        return sum(self.points.values())

    def mark(self, row: Row) -> float | None:
        """Note sur le barème du cours (20), arrondie au centième."""
        out_of = paths.course()["mark_out_of"]
        return None if row.score is None else round(out_of * row.score / self.max_score, 2)

    @property
    def graded(self) -> list[Row]:
        return [row for row in self.rows if row.score is not None]


def read_sheet(course: Course, name: str) -> Sheet:
    """Les notes du devoir `name`, de la base et des copies corrigées."""
    points = course.points(name)
    rows = []
    with course.gradebook() as book:
        for student in sorted(book.students, key=lambda s: s.id):
            full = " ".join(filter(None, (student.first_name, student.last_name)))
            try:
                submission = book.find_submission_notebook(name, name, student.id)
            except MissingEntry:
                rows.append(Row(student.id, full, None, {}, {}))
                continue
            scores = {g.name.removeprefix("test_"): float(g.score) for g in submission.grades}
            path = course.path("autograded", student.id, name) / f"{name}.ipynb"
            results = {r.exercise: r for r in results_in(path)} if path.is_file() else {}
            rows.append(Row(student.id, full, sum(scores.values()), scores, results))
    if not any(row.score is not None for row in rows):
        raise UserError(f"Aucune copie de {name} n'est corrigée. Lancez d'abord\u00a0: python -m grader grade {name}")
    return Sheet(name, points, rows)


# ---------------------------------------------------------------------------------------------- CSV


def decimal(value: float | None) -> str:
    """Nombre à virgule, deux décimales ; vide s'il n'y en a pas."""
    return "" if value is None else f"{value:.2f}".replace(".", ",")


def safe(text: str) -> str:
    """Texte qu'un tableur ne prendra pas pour une formule."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def render_csv(rows: Iterable[Iterable[str]], delimiter: str) -> bytes:
    """CSV en UTF-8 avec sa marque, pour que les tableurs lisent les accents."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode("utf-8-sig")


def marks_csv(sheet: Sheet) -> bytes:
    """Un étudiant par ligne : points, note, puis chaque exercice. Point-virgule et virgule décimale."""
    out_of = paths.course()["mark_out_of"]
    rows = [["étudiant", "nom", "points", "barème", f"note sur {out_of}", *sheet.points]]
    for row in sheet.rows:
        scores = [decimal(row.scores.get(id)) for id in sheet.points]
        total, mark = decimal(row.score), decimal(sheet.mark(row))
        rows.append([safe(row.student), safe(row.name), total, decimal(sheet.max_score), mark, *scores])
    return render_csv(rows, ";")


def moodle_csv(sheet: Sheet, numbers: dict[str, dict[str, str]]) -> bytes:
    """Feuille d'évaluation pour Moodle en français : « Participant4711 », note à virgule entre guillemets."""
    out_of = paths.course()["mark_out_of"]
    rows: list[list[str]] = [list(MOODLE_COLUMNS)]
    for row in sheet.graded:
        if person := numbers.get(row.student):
            id, name = f"Participant{person['number']}", safe(person["name"])
            rows.append([id, name, decimal(sheet.mark(row)), decimal(float(out_of)), "-"])
    return render_csv(rows, ",")


def fill_worksheet(sheet: Sheet, numbers: dict[str, dict[str, str]], worksheet: Path) -> tuple[bytes, int]:
    """La feuille téléchargée de Moodle, avec les notes dans sa colonne. Rend le fichier et le nombre de notes mises."""
    text = worksheet.read_bytes().decode("utf-8-sig")
    delimiter = ";" if text.split("\n", 1)[0].count(";") > text.split("\n", 1)[0].count(",") else ","
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    header = rows[0] if rows else []
    id_column = next((header.index(c) for c in ID_COLUMNS if c in header), None)
    grade_column = next((header.index(c) for c in GRADE_COLUMNS if c in header), None)
    if id_column is None or grade_column is None:
        raise UserError(
            f"{worksheet} n'est pas une feuille d'évaluation de Moodle\u00a0: il y manque la colonne "
            f"«\u00a0{ID_COLUMNS[0]}\u00a0» ou «\u00a0{GRADE_COLUMNS[0]}\u00a0». Dans Moodle\u00a0: "
            "Afficher tous les travaux remis, puis Télécharger la feuille d'évaluation."
        )
    marks = {person["number"]: student for student, person in numbers.items()}
    by_student = {row.student: row for row in sheet.graded}
    filled = 0
    for cells in rows[1:]:
        number = re.search(r"\d+$", cells[id_column]) if len(cells) > max(id_column, grade_column) else None
        row = by_student.get(marks.get(number[0], "")) if number else None
        if row is not None:
            cells[grade_column] = decimal(sheet.mark(row))
            filled += 1
    return render_csv(rows, delimiter), filled


# ---------------------------------------------------------------------------------------------- bilan


def class_report(sheet: Sheet) -> str:
    """Le bilan en texte : notes, exercices du moins au mieux réussi, idées fausses, copies à regarder."""
    out_of = paths.course()["mark_out_of"]
    marks = sorted(m for row in sheet.graded if (m := sheet.mark(row)) is not None)
    middle = (marks[len(marks) // 2] + marks[(len(marks) - 1) // 2]) / 2
    lines = [
        f"{sheet.assignment}{NB}: {count(len(marks), 'copie corrigée', 'copies corrigées')}",
        f"Notes sur {out_of}{NB}: moyenne {decimal(sum(marks) / len(marks))}, médiane {decimal(middle)}, "
        f"de {decimal(marks[0])} à {decimal(marks[-1])}",
        "",
    ]
    rows = []
    for id, points in sheet.points.items():
        results = [row.results[id] for row in sheet.graded if id in row.results]
        full = sum(row.scores.get(id, 0) >= points for row in sheet.graded)
        mean = sum(row.scores.get(id, 0) for row in sheet.graded) / len(sheet.graded)
        counts = Counter(r.verdict for r in results)
        detail = ", ".join(f"{VERDICTS[v]} × {counts[v]}" for v in VERDICTS if counts[v] and v != "correct")
        share = 100 * full / len(sheet.graded)
        rows.append((share, (id, f"{share:.0f}{THIN}%", f"{decimal(mean)} / {format_number(points)}", detail)))
    lines += table(("exercice", "réussi", "moyenne", "sinon"), [row for _, row in sorted(rows, key=lambda r: r[0])])
    lines += misconceptions(sheet)
    refused = [row for row in sheet.graded if any(r.verdict == "refused" for r in row.results.values())]
    absent = [row.student for row in sheet.rows if row.score is None]
    if refused:
        lines += ["", "Copies refusées"]
        lines += [f"  {row.student}{NB}: {next(iter(row.results.values())).message}" for row in refused]
    if absent:
        lines += ["", f"Rien reçu de{NB}: {', '.join(absent)}"]
    return "\n".join(lines) + "\n"


def misconceptions(sheet: Sheet) -> list[str]:
    """Les idées fausses reconnues, de la plus à la moins fréquente, avec leur phrase."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for row in sheet.graded:
        for r in row.results.values():
            if r.misconception:
                seen[r.exercise, r.misconception, r.message] += 1
    if not seen:
        return []
    lines = ["", "Idées fausses reconnues"]
    for (exercise, name, sentence), times in seen.most_common():
        lines += [f"  {times} × {exercise}, {name}", f"      {sentence}"]
    return lines


def count(n: int, one: str, many: str) -> str:
    return f"{n} {many if n >= 2 else one}"


def write_report(course: Course, name: str, folder: Path, worksheet: Path | None) -> list[tuple[Path, str]]:
    """Écrit les fichiers du bilan. Rend (fichier, ce qu'il contient)."""
    sheet = read_sheet(course, name)
    numbers = moodle_numbers(course, name)
    folder.mkdir(parents=True, exist_ok=True)
    written = []

    def write(file: str, data: bytes, what: str) -> None:
        (folder / file).write_bytes(data)
        written.append((folder / file, what))

    write("notes.csv", marks_csv(sheet), "notes, par exercice")
    write("bilan.txt", class_report(sheet).encode(), "bilan de la classe")
    if worksheet is not None:
        data, filled = fill_worksheet(sheet, numbers, worksheet)
        write("moodle.csv", data, f"feuille d'évaluation de Moodle, {count(filled, 'note mise', 'notes mises')}")
    elif numbers:
        write("moodle.csv", moodle_csv(sheet, numbers), "feuille d'évaluation à importer dans Moodle")
    return written
