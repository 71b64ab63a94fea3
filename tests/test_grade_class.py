"""Une classe qui réunit tous les cas, de l'archive au bilan : personne n'y disparaît ni n'y prend un autre nom."""

from __future__ import annotations

import csv
import io
import zipfile
from types import SimpleNamespace

import pytest
from essai import NAME, SOLVED, as_bytes, build_root, course_root, filled, load_assignment

from grader.__main__ import main
from grader.classroom.course import Course, prepare
from grader.classroom.marking import mark, summary
from grader.jail.outside import seal

if seal.missing():
    pytest.skip(seal.missing(), allow_module_level=True)

HALF = {"count_true": SOLVED["count_true"]}
EARLY, LATE = (2026, 3, 4, 5, 6, 8), (2026, 3, 9, 5, 6, 8)
TOTAL = 6.0


@pytest.fixture(scope="module")
def classe(tmp_path_factory: pytest.TempPathFactory):
    """L'archive d'une classe, relevée, corrigée, et son bilan avec la feuille de Moodle."""
    folder = tmp_path_factory.mktemp("classe")
    root = build_root(tmp_path_factory.mktemp("racine"))
    with course_root(root), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        course_folder = folder / "cours"
        prepare(course_folder)
        template = load_assignment(root).template
        right, half, blank = (as_bytes(n) for n in (filled(template, SOLVED), filled(template, HALF), template.blank()))

        def zipped(data: bytes) -> bytes:
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w") as archive:
                archive.writestr("dossier/x.ipynb", data)
            return out.getvalue()

        sent = [
            ("Ana Silva_11", "x.ipynb", right, EARLY),
            ("Ana Silva_12", "x.ipynb", half, EARLY),
            ("Ana Silva 12_13", "x.ipynb", right, EARLY),
            ("李 X_14", "x.ipynb", right, EARLY),
            ("王 X_15", "x.ipynb", half, EARLY),
            ("Zip Dans_16", "rendu.zip", zipped(right), EARLY),
            ("Texte Un_17", "x.ipynb.txt", right, EARLY),
            ("Json Un_18", "x.json", right, EARLY),
            ("Prog Un_19", "x.py", b"x = 1", EARLY),
            ("Pdf Un_20", "x.pdf", b"%PDF", EARLY),
            ("Vide Un_21", "x.ipynb", b"", EARLY),
            ("Coupé Un_22", "x.ipynb", right[:-80], EARLY),
            ("Deux Fois_23", "ancien.ipynb", right, EARLY),
            ("Deux Fois_23", "blanc.ipynb", blank, EARLY),
            ("Tard Un_24", "x.ipynb", right, LATE),
            ("=1+1\x1b[2J\u202e_25", "x\x1b[31m.ipynb", right, EARLY),
            ("＝SOMME(A1)_26", "x.pdf", b"%PDF", EARLY),
        ]
        archive = folder / "depot.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for person, name, data, when in sent:
                out.writestr(zipfile.ZipInfo(f"{person}_assignsubmission_file_/{name}", when), data)
            text = "En Ligne_27_assignsubmission_onlinetext_/onlinetext.html"
            out.writestr(zipfile.ZipInfo(text, EARLY), b"<p>bonjour</p>")
        course = Course(course_folder)
        assert main(["collect", str(archive), "--course", str(course_folder)]) == 0
        with course.gradebook() as book:
            book.update_or_create_assignment(NAME, duedate="2026-03-08 00:00:00")
        marked = mark(course, NAME, jobs=1)
        people = {person.rsplit("_", 1)[1]: person.rsplit("_", 1)[0] for person, *_ in sent} | {"27": "En Ligne"}
        rows = [["Identifiant", "Nom complet", "Note", "Note maximale", "Dernière modification (note)"]]
        rows += [[f"Participant{n}", name, "", "20,00", "-"] for n, name in people.items()]
        rows += [["Participant99", "Rien Envoyé", "", "20,00", "-"]]
        sheet = folder / "feuille.csv"
        with sheet.open("w", encoding="utf-8-sig", newline="") as out:
            csv.writer(out).writerows(rows)
        assert main(["report", NAME, "--course", str(course_folder), "--worksheet", str(sheet)]) == 0
        reports = course_folder / "bilans" / NAME
        yield SimpleNamespace(course=course, marked=marked, reports=reports, people=people)


def table(classe, name: str, delimiter: str = ";") -> list[list[str]]:
    text = (classe.reports / name).read_text(encoding="utf-8-sig")
    return list(csv.reader(io.StringIO(text), delimiter=delimiter))


def test_everyone_has_a_mark_under_a_name_of_their_own(classe):
    assert len(classe.marked.results) == len(classe.people) == 17
    totals = sorted(classe.marked.total(student)[0] for student in classe.marked.results)
    assert totals == [0.0] * 6 + [1.0] * 2 + [TOTAL] * 9
    assert len(classe.marked.refused) == 6


def test_the_worksheet_has_every_mark_on_its_own_line(classe):
    rows = {row[0]: row for row in table(classe, "moodle.csv", ",")[1:]}
    marks = {n: rows[f"Participant{n}"][2] for n in classe.people}
    full = {"11", "13", "14", "16", "17", "18", "23", "24", "25"}
    assert {n for n, mark in marks.items() if mark == "20,00"} == full
    assert marks["12"] == marks["15"] == "3,33"
    assert all(marks[n] == "0,00" for n in ("19", "20", "21", "22", "26", "27"))
    assert rows["Participant99"][2] == ""


def test_what_became_of_everyone_is_said_by_name(classe):
    attention = "\n".join(";".join(row) for row in table(classe, "a_regarder.csv"))
    text = (classe.reports / "bilan.txt").read_text(encoding="utf-8")
    page = (classe.reports / "bilan.html").read_text(encoding="utf-8")
    for name in ("Prog Un", "Pdf Un", "Vide Un", "Coupé Un", "En Ligne", "SOMME(A1)", "Rien Envoyé"):
        assert all(name in where for where in (attention, text, page)), name
    for word in ("x.py", "x.pdf", "le fichier est vide", "texte écrit dans Moodle"):
        assert word in attention and word in text and word in summary(classe.marked), word
    assert "Rien reçu (1)\u00a0: Rien Envoyé (rien-envoye)" in text
    assert "rien-envoye" in summary(mark(classe.course, NAME, jobs=1))
    names = [row[1] for row in table(classe, "notes.csv")[1:]]
    assert len(names) == 18 and "李 X" in names and "王 X" in names


def test_nothing_a_name_holds_commands_a_terminal_or_a_spreadsheet(classe):
    files = ("notes.csv", "a_regarder.csv", "bilan.txt", "moodle.csv")
    texts = [(classe.reports / name).read_text(encoding="utf-8-sig") for name in files]
    for text in (*texts, summary(classe.marked)):
        assert all(c.isprintable() or c in "\n\u00a0\u202f" for c in text)
    for name, delimiter in (("notes.csv", ";"), ("a_regarder.csv", ";"), ("moodle.csv", ",")):
        for row in table(classe, name, delimiter):
            assert not any(cell[:1] in "=+@＝＋＠" for cell in row if cell)


def test_dates_reach_the_gradebook(classe):
    with classe.course.gradebook() as book:
        late = {s.student_id: s.total_seconds_late for s in book.assignment_submissions(NAME)}
    assert [student for student, seconds in late.items() if seconds > 0] == ["tard-un"]
