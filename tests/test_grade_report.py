"""Le bilan : nombres à la française, tableur sans formule, feuille de Moodle, exercices du moins au mieux réussi."""

from __future__ import annotations

import csv
import io

import pytest

from grader.grading import Result
from grader.report import Row, Sheet, class_report, decimal, marks_csv, moodle_csv, safe


def result(exercise: str, score: float, verdict: str, misconception: str | None = None) -> Result:
    return Result(exercise, score, 2.0, verdict, f"phrase de {misconception or verdict}", misconception)


@pytest.fixture
def sheet() -> Sheet:
    def row(student: str, name: str, first: Result, second: Result) -> Row:
        results = {"facile": first, "difficile": second}
        return Row(student, name, first.score + second.score, {k: r.score for k, r in results.items()}, results)

    right, wrong = result("facile", 2.0, "correct"), result("difficile", 0.5, "misconception", "no_abs")
    rows = [
        row("ana", "Ana Silva", right, wrong),
        row("bo", '=HYPERLINK("x")', right, wrong),
        row("cy", "Cy Dé", result("facile", 0.0, "refused"), result("difficile", 0.0, "refused")),
        Row("di", "Di Absente", None, {}, {}),
    ]
    return Sheet("ch3_quantification", {"facile": 2.0, "difficile": 2.0}, rows)


def read(data: bytes, delimiter: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig")), delimiter=delimiter))


def test_marks_are_out_of_the_course_mark_with_a_decimal_comma(sheet):
    rows = read(marks_csv(sheet), ";")
    assert rows[0] == ["étudiant", "nom", "points", "barème", "note sur 20", "facile", "difficile"]
    assert rows[1] == ["ana", "Ana Silva", "2,50", "4,00", "12,50", "2,00", "0,50"]
    assert rows[4] == ["di", "Di Absente", "", "4,00", "", "", ""]


def test_a_name_is_never_a_formula(sheet):
    assert read(marks_csv(sheet), ";")[2][1] == '\'=HYPERLINK("x")'
    assert [safe(t) for t in ("+1", "-1", "@x", "Ana", "")] == ["'+1", "'-1", "'@x", "Ana", ""]


def test_moodle_gets_only_those_it_knows(sheet):
    rows = read(moodle_csv(sheet, {"ana": {"number": "4711", "name": "Ana Silva"}}), ",")
    assert rows == [
        ["Identifiant", "Nom complet", "Note", "Note maximale", "Dernière modification (note)"],
        ["Participant4711", "Ana Silva", "12,50", "20,00", "-"],
    ]


def test_the_class_report_puts_what_was_not_understood_first(sheet):
    text = class_report(sheet)
    assert text.index("difficile") < text.index("facile")
    assert "moyenne 8,33, médiane 12,50, de 0,00 à 12,50" in text
    assert "2 × difficile, no_abs" in text and "phrase de no_abs" in text
    assert "cy\u00a0: phrase de refused" in text
    assert "Rien reçu de\u00a0: di" in text


def test_decimals():
    assert [decimal(x) for x in (None, 0.0, 1.005, 20.0)] == ["", "0,00", "1,00", "20,00"]
