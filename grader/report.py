"""`report` : le bilan d'un devoir en page (report_page.py) et en texte, ses notes en CSV pour tableur et pour Moodle.

Le format de Moodle a été relu dans son code (mod/assign/feedback/offline/importgradeslib.php) : colonnes séparées par
des virgules ; trois sont exigées, reconnues mot à mot dans la langue de l'enseignant (en français « Identifiant »,
« Note », « Dernière modification (note) ») ; l'identifiant est « Participant » suivi du numéro, sans espace dans le
module de langue français, avec une espace en anglais.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from atelier import paths
from atelier.compare import format_number
from grader import UserError
from grader.analysis import Row, Sheet, items, needs, read_sheet
from grader.collect import moodle_numbers
from grader.course import Course
from grader.grading import NB, VERDICTS
from grader.marking import table
from grader.report_page import render_page

THIN = "\u202f"
MOODLE_COLUMNS = ("Identifiant", "Nom complet", "Note", "Note maximale", "Dernière modification (note)")
"""En-têtes d'une feuille d'évaluation de Moodle en français : les trois que l'import exige (Identifiant, Note, Dernière
modification) et deux pour qui la lit. Moodle les compare mot à mot, dans la langue de l'enseignant."""
ID_COLUMNS = ("Identifiant", "Identifier")
GRADE_COLUMNS = ("Note", "Grade")


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


def exercises_csv(sheet: Sheet) -> bytes:
    """Un exercice par ligne, du moins au mieux réussi : réussite, discrimination, verdicts, idée fausse la plus vue."""
    verdicts = list(VERDICTS)
    header = ["exercice", "barème", "moyenne", "facilité", "tout juste", "copies", "discrimination"]
    rows = [[*header, *VERDICTS.values(), "idée fausse la plus fréquente", "fois"]]
    for item in items(sheet):
        first = item.mistakes[0] if item.mistakes else None
        rows.append(
            [item.exercise, decimal(item.points), decimal(item.mean), decimal(item.ease), str(item.full)]
            + [str(item.copies), decimal(item.discrimination), *(str(item.verdicts[v]) for v in verdicts)]
            + ([safe(first.name), str(first.times)] if first else ["", ""])
        )
    return render_csv(rows, ";")


def attention_csv(sheet: Sheet) -> bytes:
    """Qui demande un regard, et pourquoi : rien rendu, copie refusée, réparée, ou moins de la moitié des points."""
    rows = [["étudiant", "nom", "note", "situation", "détail"]]

    def add(row: Row, what: str, detail: str) -> None:
        rows.append([safe(row.student), safe(row.name), decimal(sheet.mark(row)), what, safe(detail)])

    for row in sheet.rows:
        if row.score is None:
            add(row, "rien reçu", "")
        elif row.refused:
            add(row, "copie refusée", row.refused)
        elif row.notes:
            add(row, "copie réparée", " ".join(row.notes))
    for need in needs(sheet):
        add(need.row, "à aider", "\u202f; ".join(need.why))
    return render_csv(rows, ";")


def similarities_csv(sheet: Sheet) -> bytes:
    """Les paires de réponses qui se ressemblent le plus. Une ressemblance n'est pas une preuve."""
    rows = [["étudiant", "autre étudiant", "exercice", "ressemblance"]]
    for pair in sheet.pairs:
        rows += [[safe(pair.first), safe(pair.second), id, decimal(score)] for id, score in pair.exercises.items()]
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
    marks = sheet.marks
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
    write("bilan.html", render_page(sheet).encode(), "bilan de la classe, à ouvrir dans un navigateur ou à imprimer")
    write("bilan.txt", class_report(sheet).encode(), "le même, en texte court")
    write("exercices.csv", exercises_csv(sheet), "réussite et discrimination de chaque exercice")
    write("a_regarder.csv", attention_csv(sheet), "qui demande un regard, et pourquoi")
    write("ressemblances.csv", similarities_csv(sheet), "réponses qui se ressemblent, à lire avant de conclure")
    if worksheet is not None:
        data, filled = fill_worksheet(sheet, numbers, worksheet)
        write("moodle.csv", data, f"feuille d'évaluation de Moodle, {count(filled, 'note mise', 'notes mises')}")
    elif numbers:
        write("moodle.csv", moodle_csv(sheet, numbers), "feuille d'évaluation à importer dans Moodle")
    return written
