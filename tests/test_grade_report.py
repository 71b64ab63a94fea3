"""Le bilan : nombres à la française, tableur sans formule, feuille de Moodle, exercices du moins au mieux réussi."""

from __future__ import annotations

import csv
import io
import zipfile
from xml.etree import ElementTree

import pytest
from conftest import ROOT, plain

from grader import UserError
from grader.__main__ import main
from grader.authoring.chapters import chapter_names, load_chapter
from grader.classroom.grading import Result
from grader.report.analysis import Row, Sheet
from grader.report.moodle import comment_of, decimal, feedback_zip, fill_worksheet, moodle_csv, safe
from grader.report.write import class_report, marks_csv


def result(exercise: str, score: float, verdict: str, misconception: str | None = None) -> Result:
    return Result(exercise, score, 2.0, verdict, f"phrase de {misconception or verdict}", misconception)


@pytest.fixture
def sheet() -> Sheet:
    def row(student: str, name: str, first: Result, second: Result) -> Row:
        results = {"facile": first, "difficile": second}
        scores, refused = {k: r.score for k, r in results.items()}, first.verdict == "refused"
        return Row(student, name, sum(scores.values()), scores, results, refused=first.message if refused else "")

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


# ── La feuille d'évaluation de Moodle ────────────────────────────────────────────────────────────────────────────────

FRENCH = ["Identifiant", "Nom complet", "Adresse de courriel", "Statut", "Note", "Note maximale"]
FRENCH += ["Dernière modification (note)", "Feedback par commentaires"]
ENGLISH = ["Identifier", "Full name", "Email address", "Status", "Grade", "Maximum Grade"]
ENGLISH += ["Last modified (grade)", "Feedback comments"]
NUMBERS = {"ana": {"number": "4711", "name": "Ana Silva"}, "cy": {"number": "12", "name": "Cy Dé"}}


def worksheet(header: list[str], lines: list[tuple[str, ...]], delimiter: str = ",", quoting: int = 0) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator="\r\n")
    writer.writerows([header, *([*line, *[""] * (len(header) - len(line))] for line in lines)])
    return out.getvalue()


def filled(sheet: Sheet, path, data: bytes, numbers=NUMBERS) -> tuple[list[list[str]], list[str]]:
    """La feuille remplie, lue comme Moodle la lira (UTF-8, virgules, autant de cellules partout), et les remarques."""
    path.write_bytes(data)
    done = fill_worksheet(sheet, numbers, path)
    rows = read(done.data, ",")
    assert len({len(row) for row in rows}) == 1
    return rows, done.remarks


LINES = [
    ("Participant4711", "Ana Silva", "ana@ecole.fr", 'Remis, "à l\'heure"', "", "20,00"),
    ("Participant9999", "Zoë Ødegård", "", "Non remis", "", "20,00"),
    ("Participant12", "Cy Dé", "", "Remis", "7,50", "20,00", "lundi 1 décembre 2026, 10:12", "été\nnoël"),
]


@pytest.mark.parametrize(
    ("encoding", "delimiter", "quoting"),
    [
        ("utf-8", ",", csv.QUOTE_MINIMAL),  # telle que Moodle la donne
        ("utf-8-sig", ";", csv.QUOTE_MINIMAL),  # « CSV UTF-8 » d'Excel
        ("cp1252", ";", csv.QUOTE_MINIMAL),  # « CSV », Windows en français
        ("cp1252", ",", csv.QUOTE_ALL),  # LibreOffice
        ("mac_roman", ";", csv.QUOTE_MINIMAL),  # « CSV », Excel pour Mac
        ("cp850", ";", csv.QUOTE_MINIMAL),  # « CSV (MS-DOS) »
        ("utf-16", "\t", csv.QUOTE_MINIMAL),  # « Texte Unicode »
        ("utf-16-be", "\t", csv.QUOTE_ALL),
        ("utf-8", "\t", csv.QUOTE_MINIMAL),
    ],
)
def test_a_worksheet_saved_by_a_spreadsheet_is_read_and_given_back_as_moodle_wants(
    sheet, tmp_path, encoding, delimiter, quoting
):
    lines = [tuple(c.replace("Ø", "O") for c in line) for line in LINES] if encoding == "mac_roman" else LINES
    text = worksheet(FRENCH, lines, delimiter, quoting)
    rows, remarks = filled(sheet, tmp_path / "f.csv", text.encode(encoding))
    assert rows[0] == FRENCH
    assert rows[1] == [*lines[0][:4], "12,50", "20,00", "", "difficile\u00a0: 0,50 sur 2,00. phrase de no_abs"]
    assert rows[2] == [*lines[1][:4], "", "20,00", "", ""]
    assert rows[3] == [*LINES[2][:4], "0,00", *LINES[2][5:]]
    assert remarks == ["sans ligne dans la feuille\u00a0: bo"]


def test_a_worksheet_keeps_its_language_and_its_scale(sheet, tmp_path):
    lines = [("Participant 4711", "Ana Silva", "", "", "", "20.00"), ("Participant 12", "Cy Dé", "", "", "", "100.00")]
    rows, _ = filled(sheet, tmp_path / "f.csv", worksheet(ENGLISH, lines).encode())
    assert [row[4] for row in rows[1:]] == ["12.50", "0.00"]  # un Moodle anglais lirait « 12,50 » comme 12
    lines = [("Participant 4711", "Ana Silva", "", "", "", "100"), ("Participant 12", "Cy Dé", "", "", "", "10")]
    rows, _ = filled(sheet, tmp_path / "f.csv", worksheet(FRENCH, lines, ";").encode("cp1252"))
    assert [row[4] for row in rows[1:]] == ["62,50", "0,00"]


def test_a_worksheet_of_a_spreadsheet_may_have_empty_lines_and_a_sep_line(sheet, tmp_path):
    text = "sep=;\r\n" + worksheet(FRENCH, LINES, ";") + ";;;;;;;\r\n\r\nParticipant4711;Ana Silva\r\n"
    rows, _ = filled(sheet, tmp_path / "f.csv", text.encode("cp1252"))
    assert [row[0] for row in rows[1:]] == ["Participant4711", "Participant9999", "Participant12", "Participant4711"]
    assert rows[1][4] == rows[4][4] == "12,50"


def test_participants_are_found_by_number_then_by_address_then_by_name(sheet, tmp_path):
    sheet.rows[0].email, sheet.rows[1].name = "Ana@Ecole.fr", "Bo Lé"
    lines = [("Participant1", "Quelqu'un", "ana@ecole.fr"), ("Participant2", "LÉ Bo"), ("Participant12", "Cy Dé")]
    rows, remarks = filled(sheet, tmp_path / "f.csv", worksheet(FRENCH, lines).encode(), {"cy": NUMBERS["cy"]})
    assert [row[4] for row in rows[1:]] == ["12,50", "12,50", "0,00"] and remarks == []
    # deux homonymes, d'un côté ou de l'autre : personne n'est choisi
    rows, remarks = filled(
        sheet, tmp_path / "f.csv", worksheet(FRENCH, [*lines, ("Participant3", "Bo Lé")]).encode(), {}
    )
    assert [row[4] for row in rows[1:]] == ["12,50", "", "0,00", ""] and "bo" in remarks[0]
    sheet.rows[2].name = "Lé Bo"
    rows, _ = filled(sheet, tmp_path / "f.csv", worksheet(FRENCH, lines).encode(), {})
    assert [row[4] for row in rows[1:]] == ["12,50", "", ""]
    # qui a un numéro n'est jamais pris pour son homonyme qui en a un autre
    rows, remarks = filled(sheet, tmp_path / "f.csv", worksheet(FRENCH, [("Participant7", "Ana Silva")]).encode())
    assert rows[1][4] == "" and "ana" in remarks[0]


def test_a_number_that_names_someone_else_gives_no_mark(sheet, tmp_path):
    lines = [("Participant4711", "Zoë Roy"), ("Participant12", "DÉ Cy")]
    rows, remarks = filled(sheet, tmp_path / "f.csv", worksheet(FRENCH, lines).encode())
    assert [row[4] for row in rows[1:]] == ["", "0,00"]
    assert any("autre nom" in text and "ana" in text for text in remarks)


def test_a_mark_above_the_maximum_is_brought_back_to_it_and_said(sheet, tmp_path):
    sheet.rows[0].score = 4.5
    rows, remarks = filled(sheet, tmp_path / "f.csv", worksheet(FRENCH, LINES).encode())
    assert rows[1][4] == "20,00" and "note ramenée au maximum, que Moodle ne laisse pas dépasser\u00a0: ana" in remarks
    assert read(moodle_csv(sheet, NUMBERS), ",")[1][2] == "20,00"
    assert sheet.mark(sheet.rows[0]) == 22.5  # partout ailleurs, la note de la base


@pytest.mark.parametrize(
    "data", [b"", b"a,b\n1,2\n", b"PK\x03\x04...", b"\xff\xfe", b"\0\0\0", b'"' * 9999, b"\x81" * 99]
)
def test_what_is_not_a_worksheet_is_said(sheet, tmp_path, data):
    (tmp_path / "f.csv").write_bytes(data)
    with pytest.raises(UserError, match="feuille d'évaluation|classeur"):
        fill_worksheet(sheet, {}, tmp_path / "f.csv")


def test_the_class_report_puts_what_was_not_understood_first(sheet):
    text = class_report(sheet)
    assert text.index("À reprendre") < text.index("difficile") < text.index("facile") < text.index("Les notes")
    assert "moyenne 8,33, médiane 12,50, de 0,00 à 12,50" in text
    assert "difficile, no_abs\u00a0: 2 copies sur 2" in text and "phrase de no_abs" in text
    assert "Cy Dé (cy)\u00a0: phrase de refused" in text
    assert "Rien reçu (1)\u00a0: Di Absente (di)" in text


def test_decimals():
    assert [decimal(x) for x in (None, 0.0, 1.005, 20.0)] == ["", "0,00", "1,00", "20,00"]


# ── Les retours et les questions ─────────────────────────────────────────────────────────────────────────────────────


def received_by(path: str, participants: set[int]) -> tuple[int, str] | None:
    """(participant, nom du fichier) que lit `is_valid_filename_for_import` de Moodle ; None s'il passe ce fichier."""
    if path.rsplit("/", 1)[-1].startswith((".", "~")):
        return None
    parts = f"/import/{path}".split("/")
    while parts:
        info = parts.pop(0).split("_", 4)
        if len(info) < 4 or not info[1].isdigit() or int(info[1]) not in participants:
            continue
        if info[2:4] != ["assignsubmission", "file"]:
            continue
        return int(info[1]), "/".join([*info[4:], *parts])
    return None


def test_moodle_takes_every_feedback_page_back():
    """Noms à accents, à « _ », à « / », à points, homonymes : chacun reçoit sa page, et seulement la sienne."""
    names = ["Ana Silva", "Ana Silva", "Zoë_12_Ødegård", "a/b\\c", ".caché", "~", "", "Jean_4711_X"]
    pages = {(str(4711 + i), name): f"<p>{i}</p>".encode() for i, name in enumerate(names)}
    data = feedback_zip(pages)
    assert data == feedback_zip(dict(reversed(pages.items())))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = {received_by(path, {4711 + i for i in range(8)}): archive.read(path) for path in archive.namelist()}
    assert {owner[0]: page for owner, page in found.items()} == {4711 + i: f"<p>{i}</p>".encode() for i in range(8)}
    assert {owner[1].lstrip("/") for owner in found} == {"retour.html"}


def test_a_comment_says_what_was_lost_and_the_delay(sheet):
    row = sheet.rows[0]
    row.penalty = 1.5
    assert plain(comment_of(row)) == "difficile : 0,50 sur 2,00. phrase de no_abs — Retard : 1,50 de moins."
    assert comment_of(Row("x", "X", 2.0, {"facile": 2.0}, {"facile": row.results["facile"]})).startswith("Tous")


def test_the_quizzes_are_a_question_bank_for_moodle(tmp_path):
    """Lu comme le fait l'importateur de Moodle : une bonne réponse, une phrase par réponse, un nom, une catégorie."""
    target = tmp_path / "questions.xml"
    assert main(["quiz", "--to", str(target)]) == 0
    questions = ElementTree.parse(target).getroot().findall("question")
    kinds = [q.get("type") for q in questions]
    asked = [q for q in questions if q.get("type") == "multichoice"]
    chapters = [load_chapter(name, ROOT) for name in chapter_names(ROOT)]
    assert kinds[0] == "category" and len(asked) == sum(len(c.quizzes) for c in chapters) > 50
    ids = [q.findtext("idnumber") for q in asked]
    assert len(set(ids)) == len(ids) and all(len(id) <= 100 for id in ids)
    for question in asked:
        chapter, name = question.findtext("idnumber").split(".")
        quiz = next(c for c in chapters if c.name == chapter).quizzes[name]
        assert [a.get("fraction") for a in question.findall("answer")] == [
            "100" if c.correct else "0" for c in quiz.choices
        ]
        assert all(a.findtext("feedback/text") and a.findtext("text") for a in question.findall("answer"))
        assert question.findtext("name/text") and question.find("questiontext").get("format") == "html"
        assert (question.findtext("single"), question.findtext("shuffleanswers")) == ("true", "true")
