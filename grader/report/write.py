"""`report` : le bilan d'un devoir en page (report_page.py) et en texte, ses notes en CSV et pour Moodle (moodle.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atelier import paths
from atelier.display import wrapped
from atelier.paths import write_atomically
from atelier.text import NBSP, THIN, drawn, legible, plural
from grader.classroom.collect import moodle_numbers
from grader.classroom.course import Course
from grader.classroom.grading import VERDICTS
from grader.classroom.people import People
from grader.report.analysis import Row, Sheet, items, needs, read_sheet
from grader.report.moodle import decimal, fill_worksheet, moodle_csv, render_csv, safe
from grader.report.page import render_page
from grader.report.view import ALL_READABLE, NO_CHANGE, NO_HELP, NO_LESSON, NOTHING_AGAIN, SECTIONS, Table, view, who

# ---------------------------------------------------------------------------------------------- CSV


def marks_csv(sheet: Sheet) -> bytes:
    """Un étudiant par ligne : points, note, puis chaque exercice. Point-virgule et virgule décimale.

    Deux colonnes de plus, quand une note s'écarte de la correction automatique : points ôtés pour retard, et pourquoi.
    """
    out_of = paths.course()["mark_out_of"]
    rows = [["étudiant", "nom", "points", "barème", f"note sur {out_of}", *sheet.points]]
    changed = any(row.differences for row in sheet.rows)
    rows[0] += ["retard", "à savoir"] if changed else []
    for row in sheet.rows:
        scores = [decimal(row.scores.get(id)) for id in sheet.points]
        total, mark = decimal(None if row.pending else row.score), decimal(sheet.mark(row))
        why = [decimal(-row.penalty) if row.penalty else "", f"{THIN}; ".join(row.differences)] if changed else []
        rows.append([safe(row.student), safe(row.name), total, decimal(sheet.max_score), mark, *scores, *why])
    return render_csv(rows, ";")


def exercises_csv(sheet: Sheet) -> bytes:
    """Un exercice par ligne, du moins au mieux réussi : réussite, discrimination, verdicts, idée fausse la plus vue."""
    found = items(sheet)
    verdicts = [v for v in VERDICTS if v != "manual" or any(item.verdicts[v] for item in found)]
    header = ["exercice", "barème", "moyenne", "facilité", "tout juste", "copies", "discrimination"]
    rows = [[*header, *(VERDICTS[v] for v in verdicts), "idée fausse la plus fréquente", "fois"]]
    for item in found:
        first = item.mistakes[0] if item.mistakes else None
        rows.append(
            [item.exercise, decimal(item.points), decimal(item.mean), decimal(item.ease), str(item.full)]
            + [str(item.copies), decimal(item.discrimination), *(str(item.verdicts[v]) for v in verdicts)]
            + ([safe(first.name), str(first.times)] if first else ["", ""])
        )
    return render_csv(rows, ";")


def attention_csv(sheet: Sheet) -> bytes:
    """Qui demande un regard, et pourquoi : rien rendu, copie refusée ou réparée, note changée, étudiant à aider."""
    rows = [["étudiant", "nom", "note", "situation", "détail"]]

    def add(row: Row, what: str, detail: str) -> None:
        rows.append([safe(row.student), safe(row.name), decimal(sheet.mark(row)), what, safe(detail)])

    for row in sheet.rows:
        if row.score is None:
            add(row, "rien reçu", "")
        elif row.refused:
            add(row, "copie refusée", row.refused)
        elif row.notes:
            add(row, "à savoir", " ".join(row.notes))
        if row.pending:
            add(row, "à noter à la main", ", ".join(row.pending))
        for text in row.differences:
            add(row, "note changée", text)
    for need in needs(sheet):
        add(need.row, "à aider", "\u202f; ".join(need.why))
    return render_csv(rows, ";")


def similarities_csv(sheet: Sheet) -> bytes:
    """Les paires de réponses qui se ressemblent le plus. Une ressemblance n'est pas une preuve."""
    rows = [["étudiant", "autre étudiant", "exercice", "ressemblance"]]
    for pair in sheet.pairs:
        rows += [[safe(pair.first), safe(pair.second), id, decimal(score)] for id, score in pair.exercises.items()]
    return render_csv(rows, ";")


# ---------------------------------------------------------------------------------------------- bilan


def class_report(sheet: Sheet) -> str:
    """Le bilan en texte : ce que dit la page, dans le même ordre, sans les réponses d'étudiants."""
    said = view(sheet)
    lines = [f"{said.title} ({sheet.assignment})"]

    def part(id: str, found: Sequence[str], otherwise: str = "") -> None:
        if shown := found or [otherwise] * bool(otherwise):
            lines.extend(["", SECTIONS[id], *shown])

    def pairs(found: Sequence[tuple[str, str]]) -> list[str]:
        return [f"  {name}{NBSP}: {text}" for name, text in found]

    again = [wrapped(f"  {id}{NBSP}: ", f"{points} {sentence}", 6) for id, points, sentence in said.again]
    part("reprendre", [*again, *filter(None, [said.also])], NOTHING_AGAIN)
    part("exercices", [*table(said.exercises), *filter(None, [said.weak])])
    part("notes", [line for line in (said.pending, said.marks) if line])
    part("idees", [line for x in said.lessons for line in (f"  {x.head}", wrapped("      ", x.sentence))], NO_LESSON)
    part("aide", table(said.help) if said.help.rows else [], NO_HELP)
    absent = [f"  Rien reçu ({len(said.absent)}){NBSP}: {', '.join(said.absent)}"] if said.absent else []
    part("copies", [*pairs(said.refused), *absent, *pairs(said.repaired)], ALL_READABLE)
    part("changees", pairs(said.changed), NO_CHANGE)
    if sheet.pairs:
        known = {row.student: who(row) for row in sheet.rows}
        likely = [f"{known[p.first]} et {known[p.second]}{NBSP}: {', '.join(p.exercises)}" for p in sheet.pairs]
        part("ressemblances", ["Une ressemblance n'est pas une preuve.", *(f"  {text}" for text in likely)])
    return "\n".join(legible(line) for text in lines for line in text.split("\n")) + "\n"


def table(shown: Table) -> list[str]:
    """Un tableau de texte, colonnes alignées comme dans la page."""
    cells = [list(column) for column in zip(*shown.rows, strict=True)] or [[] for _ in shown.header]
    return drawn(shown.header, [(column, rank in shown.right) for rank, column in enumerate(cells)])


def write_report(course: Course, name: str, folder: Path, worksheet: Path | None) -> list[tuple[Path, str]]:
    """Écrit les fichiers du bilan. Rend (fichier, ce qu'il contient)."""
    sheet = read_sheet(course, name)
    numbers = moodle_numbers(course, name)
    filled = fill_worksheet(sheet, numbers, worksheet) if worksheet is not None else None
    if filled is not None and filled.absent:
        sure = 2 * filled.filled >= len(numbers)
        People(course).enrol(name, filled.absent, sure)
        numbers = moodle_numbers(course, name)
    known = {row.student for row in sheet.rows}
    sheet.rows += [Row(id, person["name"], None, {}, {}) for id, person in numbers.items() if id not in known]
    sheet.rows.sort(key=lambda row: row.student)
    written = []

    def write(file: str, data: bytes, what: str) -> None:
        write_atomically(folder / file, data)
        written.append((folder / file, what))

    write("notes.csv", marks_csv(sheet), "notes, par exercice")
    write("bilan.html", render_page(sheet).encode(), "bilan de la classe, à ouvrir dans un navigateur ou à imprimer")
    write("bilan.txt", class_report(sheet).encode(), "le même, en texte")
    write("exercices.csv", exercises_csv(sheet), "réussite et discrimination de chaque exercice")
    write("a_regarder.csv", attention_csv(sheet), "qui demande un regard, et pourquoi")
    write("ressemblances.csv", similarities_csv(sheet), "réponses qui se ressemblent, à lire avant de conclure")
    if filled is not None:
        what = [f"feuille d'évaluation de Moodle, {plural(filled.filled, 'note mise', 'notes mises')}", *filled.remarks]
        write("moodle.csv", filled.data, f"{THIN}; ".join(what))
    elif numbers:
        write("moodle.csv", moodle_csv(sheet, numbers), "feuille d'évaluation à importer dans Moodle")
    return written
