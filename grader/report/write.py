"""`report` : le bilan d'un devoir en page (report_page.py) et en texte, ses notes en CSV et pour Moodle (moodle.py)."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path

from atelier import paths
from atelier.paths import write_atomically
from atelier.text import NBSP, THIN, grid, legible, number, percent, plural
from grader.classroom.collect import moodle_numbers
from grader.classroom.course import Course
from grader.classroom.grading import VERDICTS
from grader.classroom.marks import points_text
from grader.classroom.people import People
from grader.report.analysis import Row, Sheet, items, needs, read_sheet
from grader.report.moodle import decimal, fill_worksheet, moodle_csv, render_csv, safe
from grader.report.page import render_page

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
        scores = [decimal(None if id in row.pending else row.scores.get(id)) for id in sheet.points]
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
    """Le bilan en texte : notes, exercices du moins au mieux réussi, idées fausses, copies à regarder."""
    out_of = paths.course()["mark_out_of"]
    marks = sheet.marks
    lines = [f"{sheet.assignment}{NBSP}: {plural(len(sheet.graded), 'copie corrigée', 'copies corrigées')}"]
    if marks:
        shown = (statistics.fmean(marks), statistics.median(marks), marks[0], marks[-1])
        mean, median, low, high = (number(mark, decimals=2) for mark in shown)
        lines.append(f"Notes sur {out_of}{NBSP}: moyenne {mean}, médiane {median}, de {low} à {high}")
    if sheet.pending:
        lines.append(f"À noter à la main, dans formgrader{NBSP}: {', '.join(full_name(row) for row in sheet.pending)}")
    lines.append("")
    rows = []
    for id, points in sheet.worth.items():
        results = [row.results[id] for row in sheet.graded if id in row.results]
        graded = [row for row in sheet.graded if id not in row.pending]
        if not graded:
            continue
        points_each = sum(row.scores.get(id, 0) for row in graded) / len(graded)
        counts = Counter(r.verdict for r in results)
        silent = ("correct", "manual")
        detail = ", ".join(f"{VERDICTS[v]} × {counts[v]}" for v in VERDICTS if counts[v] and v not in silent)
        share = sum(row.scores.get(id, 0) >= points for row in graded) / len(graded)
        average = number(points_each, decimals=2, unit=f"/{NBSP}{points_text(points)}")
        rows.append((share, (id, percent(share, decimals=0), average, detail)))
    if rows:
        lines += grid(("exercice", "réussi", "moyenne", "sinon"), [row for _, row in sorted(rows, key=lambda r: r[0])])
    lines += misconceptions(sheet)
    refused = [row for row in sheet.graded if any(r.verdict == "refused" for r in row.results.values())]
    absent = [row for row in sheet.rows if row.score is None]
    if refused:
        lines += ["", "Copies refusées"]
        for row in refused:
            name = f"{legible(row.name)}, " if row.name else ""
            reason = legible(next(iter(row.results.values())).message)
            lines.append(f"  {name}{row.student}{NBSP}: {reason}")
    if changed := [f"  {row.student}{NBSP}: {text}" for row in sheet.graded for text in row.differences]:
        lines += ["", "Notes changées après la correction automatique", *changed]
    if absent:
        lines += ["", f"Rien reçu de{NBSP}: {', '.join(full_name(row) for row in absent)}"]
    return "\n".join(lines) + "\n"


def full_name(row: Row) -> str:
    """L'identifiant, et le nom s'il est connu."""
    return f"{row.student} ({legible(row.name)})" if row.name else row.student


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
    write("bilan.txt", class_report(sheet).encode(), "le même, en texte court")
    write("exercices.csv", exercises_csv(sheet), "réussite et discrimination de chaque exercice")
    write("a_regarder.csv", attention_csv(sheet), "qui demande un regard, et pourquoi")
    write("ressemblances.csv", similarities_csv(sheet), "réponses qui se ressemblent, à lire avant de conclure")
    if filled is not None:
        what = [f"feuille d'évaluation de Moodle, {plural(filled.filled, 'note mise', 'notes mises')}", *filled.remarks]
        write("moodle.csv", filled.data, f"{THIN}; ".join(what))
    elif numbers:
        write("moodle.csv", moodle_csv(sheet, numbers), "feuille d'évaluation à importer dans Moodle")
    return written
