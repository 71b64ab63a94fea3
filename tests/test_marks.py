"""Toute note montrée est celle de la base, que nbgrader exporte : terminal, JSON, bilan, CSV, Moodle, retours."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from essai import NAME, SOLVED, as_bytes, exported, filled
from nbgrader.api import Gradebook

from grader import UserError
from grader.__main__ import main
from grader.classroom.course import Course, prepare
from grader.classroom.marking import Marked, mark
from grader.classroom.marks import CellMark, points_text, read_marks
from grader.classroom.nbglue import assignment
from grader.report.analysis import read_sheet
from grader.report.feedback import Feedback

PLUGIN = '''
from nbgrader.plugins import BasePlugin


class PerDay(BasePlugin):
    """Un point par jour commencé."""

    def late_submission_penalty(self, student_id, score, total_seconds_late):
        if student_id == "fou":
            raise RuntimeError("greffon cassé")
        return 1.0 + total_seconds_late // 86400
'''
WRONG = {"scale_up": "def scale_up(x, factor):\n    return x + factor"}
PARTIAL = {"scale_up": "def scale_up(x, factor):\n    return x * factor"}
CLASS = {
    "ana": SOLVED,
    "bo": SOLVED | WRONG,
    "cy": {},
    "di": SOLVED,
    "eve": SOLVED,
    "fay": SOLVED | PARTIAL,
    "gil": SOLVED,
}
LATE = {"bo": "2026-11-20 10:00:00 UTC", "di": "2026-11-20 10:00:00 UTC", "gil": "2026-12-25 10:00:00 UTC"}


def put(course: Course, student: str, answers: dict[str, str]) -> Path:
    path = course.path("submitted", student, NAME) / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_bytes(filled(assignment(NAME).template, answers)))
    return path


@pytest.fixture(scope="module")
def graded(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Une classe corrigée : retards, délai accordé, puis notes à la main, bonus, commentaire."""
    folder = tmp_path_factory.mktemp("classe") / "cours"
    prepare(folder)
    (folder / "retard.py").write_text(PLUGIN, encoding="utf-8")
    with open(folder / "nbgrader_config.py", "a", encoding="utf-8") as config:
        config.write('c.AssignLatePenalties.plugin_class = "retard.PerDay"\n')
    course = Course(folder)
    with course.gradebook() as book:
        book.update_or_create_assignment(NAME, duedate="2026-11-19 09:00:00")
        book.update_or_create_student("ana", first_name="Ana", last_name="Silva", email="Ana@ecole.fr")
    for student, answers in CLASS.items():
        path = put(course, student, answers)
        if student in LATE:
            (path.parent / "timestamp.txt").write_text(LATE[student], encoding="utf-8")
    mark(course, NAME, 1, seed=3)
    with course.gradebook() as book:
        book.grant_extension(NAME, "di", days=5)
    mark(course, NAME, 1)
    by_hand(course, "ana", "spread", manual_score=1.5, needs_manual_grade=False)
    by_hand(course, "cy", "count_true", manual_score=1.0, needs_manual_grade=False)
    by_hand(course, "bo", "spread", extra_credit=0.25)
    by_hand(course, "eve", "scale_up", extra_credit=0.5)
    comment(course, "ana", "spread", "vu, <b>mais</b> tard")
    return folder


@pytest.fixture
def course(graded: Path, tmp_path: Path) -> Course:
    shutil.copytree(graded, tmp_path / "cours")
    return Course(tmp_path / "cours")


def by_hand(course: Course, student: str, exercise: str, **values: object) -> None:
    with course.gradebook() as book:
        grade = book.find_grade(f"test_{exercise}", NAME, NAME, student)
        for key, value in values.items():
            setattr(grade, key, value)
        book.db.commit()


def comment(course: Course, student: str, exercise: str, text: str) -> None:
    with course.gradebook() as book:
        book.find_comment(exercise, NAME, NAME, student).manual_comment = text
        book.db.commit()


def number(text: str) -> float:
    return float(text.replace(",", ".").replace("−", "-"))


def grade(course: Course, *options: str) -> tuple[int, list[dict]]:
    out = course.folder / "notes.json"
    options = (*options, "--jobs", "1", "--unsealed", "--json", str(out))
    status = main(["grade", NAME, "--course", str(course.folder), *options])
    return status, json.loads(out.read_text(encoding="utf-8"))


def table(data: bytes, delimiter: str = ";") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig")), delimiter=delimiter))


def page(course: Course, student: str) -> str:
    path = course.path("feedback", student, NAME) / f"{NAME}.html"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


# ── Partout la même note ─────────────────────────────────────────────────────────────────────────────────────────────


def test_every_mark_shown_is_the_one_nbgrader_exports(course, capsys):
    wanted, raw = exported(course), exported(course, "raw_score")
    assert wanted == {"ana": 4.5, "bo": 2.25, "cy": 1.0, "di": 6.0, "eve": 6.5, "fay": 5.4, "gil": 0.0}
    assert raw["bo"] == 4.25 and raw["gil"] == 6.0
    (course.folder / "moodle").mkdir()
    people = {student: {"number": str(i), "name": student} for i, student in enumerate(wanted, 1)}
    (course.folder / "moodle" / f"{NAME}.json").write_text(json.dumps(people), encoding="utf-8")

    status, records = grade(course)
    said = capsys.readouterr().out
    assert status == 0
    lines = re.finditer(r"^(\w+)(?: \(.*\))? +([\d,]+)\u00a0/\u00a06 ", said, re.MULTILINE)
    shown = {line[1]: number(line[2]) for line in lines}
    assert shown == wanted
    assert main(["report", NAME, "--course", str(course.folder)]) == 0
    folder = course.folder / "bilans" / NAME
    rows = table((folder / "notes.csv").read_bytes())
    assert {row["étudiant"]: number(row["points"]) for row in rows} == wanted
    marks = {row["étudiant"]: number(row["note sur 20"]) for row in rows}
    assert marks == pytest.approx({s: 20 * score / 6 for s, score in wanted.items()}, abs=0.006)
    moodle = table((folder / "moodle.csv").read_bytes(), ",")
    capped = {s: min(20.0, m) for s, m in marks.items()}
    assert {row["Nom complet"]: number(row["Note"]) for row in moodle} == pytest.approx(capped)
    html = (folder / "bilan.html").read_text(encoding="utf-8")
    bottom = html[html.index('<section id="tous">') :]
    listed = dict(re.findall(r'<th scope="row">(?:Ana Silva \()?(\w+)\)?</th><td class="n">([\d,]+)</td>', bottom))
    assert {s: number(m) for s, m in listed.items()} == marks

    assert main(["feedback", NAME, "--course", str(course.folder)]) == 0
    for student, score in wanted.items():
        heading = re.search(r"Points\u00a0: <b>([\d,]+)\u00a0/\u00a06</b>", page(course, student))
        assert heading and number(heading[1]) == pytest.approx(score), student
    # chaque exercice aussi, et le total brut dans les fiches
    assert {r["student"]: 0.0 for r in records} == dict.fromkeys(wanted, 0.0)
    for student in wanted:
        mine = {r["exercise"]: r for r in records if r["student"] == student}
        assert sum(r["score"] for r in mine.values()) == pytest.approx(raw[student])
        (row,) = [row for row in rows if row["étudiant"] == student]
        assert {id: number(row[id]) for id in mine} == {id: pytest.approx(r["score"]) for id, r in mine.items()}
        keys = ["student", "assignment", "exercise", "score", "max_score", "verdict", "misconception", "message"]
        assert all(list(r) == keys for r in mine.values())


def test_what_differs_from_the_automatic_mark_is_said_to_all(course, capsys):
    _, records = grade(course)
    said = capsys.readouterr().out
    hand = "note mise à la main, 1,5\u00a0/\u00a03 (la correction automatique donne 3\u00a0/\u00a03)"
    late = "retard\u00a0: 2 points en moins, 2,25\u00a0/\u00a06 au lieu de 4,25"
    assert f"ana (Ana Silva)\u00a0: spread\u00a0: {hand}" in said and f"bo\u00a0: {late}" in said
    assert "di\u00a0:" not in said and "fay\u00a0:" not in said
    messages = {(r["student"], r["exercise"]): r["message"] for r in records}
    assert "à la main, 1,5" in messages["ana", "spread"] and "à la main" not in messages["ana", "scale_up"]
    assert "2 points en moins" in messages["bo", "count_true"] and "0,25 point de plus" in messages["bo", "spread"]
    assert main(["report", NAME, "--course", str(course.folder)]) == 0
    folder = course.folder / "bilans" / NAME
    rows = {row["étudiant"]: row for row in table((folder / "notes.csv").read_bytes())}
    assert rows["bo"]["retard"] == "-2,00" and hand in rows["ana"]["à savoir"] and rows["di"]["à savoir"] == ""
    for file in ("bilan.html", "bilan.txt", "a_regarder.csv"):
        text = (folder / file).read_text(encoding="utf-8-sig")
        assert hand in text and late in text, file
    assert main(["feedback", NAME, "--course", str(course.folder)]) == 0
    assert f"<b>N{hand[1:]}.</b>" in page(course, "ana") and f"<b>R{late[1:]}.</b>" in page(course, "bo")
    assert "automatique" not in page(course, "fay")


def test_a_hand_mark_kept_against_a_later_right_copy_is_said(course, capsys):
    by_hand(course, "fay", "scale_up", manual_score=0.5, needs_manual_grade=False)
    put(course, "fay", SOLVED)
    for options in ((), ("--redo",), ("--refaire",)):  # l'ancien nom vaut encore
        status, records = grade(course, "--only", "fay", *options)
        said = capsys.readouterr().out
        assert status == 0 and exported(course)["fay"] == 4.5
        assert sum(r["score"] for r in records) == 4.5 and "fay       4,5\u00a0/\u00a06" in said
        assert "0,5\u00a0/\u00a02 (la correction automatique donne 2\u00a0/\u00a02)" in said
        assert "recorrigée depuis, à revoir dans formgrader" in said
        assert {r["exercise"]: r["verdict"] for r in records}["scale_up"] == "correct"


def test_a_mark_that_could_not_be_saved_is_not_shown_as_given(course):
    marked = Marked(NAME)
    marked.results = mark(course, NAME, 1, only=["di"]).results
    marked.unsaved = ["di"]
    assert {r["score"] for r in marked.records()} == {0.0}
    assert "n'a pas pu être enregistrée" in marked.records()[0]["message"]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (CellMark(3.0, 3.0, 3.0, None, 0.0, False), ""),
        (CellMark(3.0, 3.0, 3.0, 3.0, 0.0, True), ""),
        (CellMark(0.0, 3.0, 3.0, 0.0, 0.0, False), "note mise à la main, 0\u00a0/\u00a03 (la correction automatique"),
        (CellMark(2.0, 3.0, None, 2.0, 0.0, False), "note mise à la main, 2\u00a0/\u00a03"),
        (CellMark(2.5, 3.0, 3.0, None, -0.5, False), "0,5 point de moins, à la main"),
    ],
)
def test_differences(cell, text):
    assert cell.difference.startswith(text) and bool(cell.difference) == bool(text)


def test_points_are_written_whole():
    assert [points_text(x) for x in (0.0, 10.0, 112.25, 1 / 3, -0.5)] == ["0", "10", "112,25", "0,33", "−0,5"]


# ── Retards ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def penalties(course: Course) -> dict[str, float]:
    with course.gradebook() as book:
        return {s: copy.penalty for s, copy in read_marks(book, NAME).items() if copy.penalty}


def test_a_new_due_date_or_extension_counts_at_the_next_grade(course):
    assert penalties(course) == {"bo": 2.0, "gil": 6.0}
    with course.gradebook() as book:
        book.grant_extension(NAME, "gil", days=34)  # encore deux jours de retard et une heure
    kept = mark(course, NAME, 1)
    assert len(kept.kept) == len(CLASS) and penalties(course) == {"bo": 2.0, "gil": 3.0}
    with course.gradebook() as book:
        book.update_or_create_assignment(NAME, duedate=None)
    mark(course, NAME, 1)
    assert penalties(course) == {}
    assert exported(course)["gil"] == 6.0


def test_the_penalty_is_the_one_nbgrader_itself_would_write(course, tmp_path):
    """Étape « autograde » de nbgrader, greffon et dates compris, contre la nôtre."""
    shutil.copytree(course.folder, tmp_path / "autre")
    other = Course(tmp_path / "autre")
    mark(course, NAME, 1, redo=True)
    for student in CLASS:
        assert other.autograde(NAME, student) == ""
    assert penalties(other) == penalties(course) and exported(other) == exported(course)


def test_a_broken_plugin_or_date_costs_no_one_else_a_mark(course, capsys):
    path = put(course, "fou", SOLVED)
    (path.parent / "timestamp.txt").write_text(LATE["bo"], encoding="utf-8")
    other = put(course, "hier", SOLVED)
    (other.parent / "timestamp.txt").write_text("avant-hier soir", encoding="utf-8")
    status, records = grade(course)
    said = capsys.readouterr().out
    assert status == 1 and "fou\u00a0: NOTE NON ENREGISTRÉE, le greffon de retard échoue" in said
    assert "hier\u00a0: date de remise (timestamp.txt) illisible" in said
    assert exported(course)["hier"] == 6.0 and exported(course)["bo"] == 2.25
    assert {r["score"] for r in records if r["student"] == "fou"} == {0.0}
    path.parent.joinpath("timestamp.txt").unlink()
    assert not mark(course, NAME, 1).unsaved and exported(course)["fou"] == 6.0


def test_a_plugin_that_is_not_there_is_a_sentence(course):
    with open(course.folder / "nbgrader_config.py", "a", encoding="utf-8") as config:
        config.write('c.AssignLatePenalties.plugin_class = "absent.Greffon"\n')
    with pytest.raises(UserError, match="plugin_class"):
        mark(Course(course.folder), NAME, 1)


# ── Barème changé ────────────────────────────────────────────────────────────────────────────────────────────────────


def change_points(course: Course, points: float) -> None:
    with course.gradebook() as book:
        book.find_grade_cell("test_spread", NAME, NAME).max_score = points
        book.db.commit()


def test_points_changed_by_init_are_graded_before_they_are_shown(course, root, capsys):
    path = root / "solutions" / NAME / "exercises" / "spread.py"
    text = path.read_text(encoding="utf-8")
    from grader.authoring.build import build_chapter, write

    try:
        path.write_text(text.replace("points=3,", "points=4,"), encoding="utf-8")
        assert not write(build_chapter(NAME, root), root, execute=False)
        assignment.cache_clear()
        prepare(course.folder)
        for command in ("report", "feedback"):
            assert main([command, NAME, "--course", str(course.folder)]) in (1, 2)
            said = capsys.readouterr()
            assert "spread (3 → 4)" in said.out + said.err and "python -m grader grade" in said.out + said.err
        assert not (course.folder / "bilans").exists() and not page(course, "di")
        mark(course, NAME, 1)
        sheet = read_sheet(course, NAME)
        assert sheet.max_score == 7.0
        assert {row.student: row.score for row in sheet.rows} == exported(course)
        assert exported(course)["di"] == 7.0 and exported(course)["ana"] == 4.5
    finally:
        path.write_text(text, encoding="utf-8")
        write(build_chapter(NAME, root), root, execute=False)
        assignment.cache_clear()


def test_points_changed_in_the_database_are_seen_even_without_the_graded_copy(course):
    shutil.rmtree(course.folder / "autograded")
    assert read_sheet(course, NAME).max_score == 6.0
    change_points(course, 2.0)
    with pytest.raises(UserError, match=r"spread \(3 → 2\)"):
        read_sheet(course, NAME)


# ── Retours ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def written(course: Course) -> list[str]:
    return Feedback(course, NAME).renew().written


def test_only_the_feedback_that_changed_is_written_again(course, capsys):
    assert written(course) == sorted(CLASS)
    assert written(course) == []
    by_hand(course, "di", "spread", manual_score=2.0)
    assert written(course) == ["di"] and "Points\u00a0: <b>5\u00a0/\u00a06</b>" in page(course, "di")
    comment(course, "eve", "spread", "bravo")
    assert written(course) == ["eve"] and "bravo" in page(course, "eve")
    put(course, "cy", SOLVED)
    mark(course, NAME, 1)
    assert "cy" in written(course)
    with course.gradebook() as book:
        book.grant_extension(NAME, "gil", days=60)
    mark(course, NAME, 1)
    assert written(course) == ["gil"] and "Retard" not in page(course, "gil")
    course.path("feedback", "bo", NAME).joinpath(f"{NAME}.html").unlink()
    assert main(["feedback", NAME, "--course", str(course.folder)]) == 0
    assert "1 retour écrit, 6 déjà à jour" in capsys.readouterr().out
    # ce que nbgrader écrit lui-même est à jour aussi
    shutil.rmtree(course.folder / "feedback")
    from nbgrader.converters import GenerateFeedback

    assert course.run_step(GenerateFeedback, NAME, "*") == ""
    assert written(course) == []


def test_the_pages_of_a_template_of_the_teacher_are_renewed_too(course):
    template = course.folder / "gabarits" / "mien" / "index.html.j2"
    template.parent.mkdir(parents=True)
    template.write_text("{% block body %}à moi {{ resources.nbgrader.score }}{% endblock %}", encoding="utf-8")
    with open(course.folder / "nbgrader_config.py", "a", encoding="utf-8") as config:
        config.write('c.GenerateFeedback.HTMLExporter.template_name = "mien"\n')
    course.reload()
    assert written(course) == sorted(CLASS) and "à moi 4.5" in page(course, "ana")
    by_hand(course, "di", "spread", manual_score=2.0)
    assert written(course) == ["di"] and written(course) == []
    template.write_text("{% block body %}encore à moi{% endblock %}", encoding="utf-8")
    assert written(course) == sorted(CLASS)


def test_the_template_that_an_older_version_left_in_the_course_is_not_used(course):
    template = course.folder / "gabarits" / "feedback" / "index.html.j2"
    template.parent.mkdir(parents=True)
    template.write_text("vieux", encoding="utf-8")
    course.reload()
    assert written(course) == sorted(CLASS) and "Votre réponse" in page(course, "ana")


def test_nbgrader_releases_what_we_wrote(root, tmp_path):
    from nbgrader.exchange.default import ExchangeReleaseFeedback

    prepare(tmp_path / "cours")
    (tmp_path / "echange").mkdir(mode=0o777)
    (tmp_path / "echange").chmod(0o777)
    with open(tmp_path / "cours" / "nbgrader_config.py", "a", encoding="utf-8") as config:
        config.write(f"c.Exchange.root = {str(tmp_path / 'echange')!r}\n")
    course = Course(tmp_path / "cours")
    folder = put(course, "ana", SOLVED).parent
    (folder / "timestamp.txt").write_text("2026-11-18 10:00:00 UTC", encoding="utf-8")
    (folder / "submission_secret.txt").write_text("secret", encoding="utf-8")
    mark(course, NAME, 1)
    assert written(course) == ["ana"]
    course.directory.assignment_id = NAME
    course.directory.student_id = "*"
    ExchangeReleaseFeedback(coursedir=course.directory, config=course.config).start()
    (released,) = (tmp_path / "echange" / "cours" / "feedback").glob("*.html")
    assert released.read_text(encoding="utf-8") == page(course, "ana")


def test_feedback_is_french_and_waits_for_no_network(course):
    by_hand(course, "cy", "spread", manual_score=3.0)
    written(course)
    for student in ("ana", "cy", "bo"):
        text = page(course, student)
        assert '<html lang="fr">' in text and "No response" not in text and "Score" not in text
        assert [tag for tag in re.findall(r"<script[^>]* src=[^>]*>", text) if "defer" not in tag] == []
        assert not re.search(r"<(?:link|img)[^>]+(?:href|src)=.https?:", text)
    assert "vu," in page(course, "ana") and "Commentaires" in page(course, "ana")


def test_the_english_comment_is_never_left_in_the_gradebook(course):
    def comments() -> set[str | None]:
        with course.gradebook() as book:
            return {c.auto_comment for s in book.assignment_submissions(NAME) for c in s.notebooks[0].comments}

    assert comments() == {None}
    with course.gradebook() as book:
        book.find_comment("spread", NAME, NAME, "cy").auto_comment = "No response."
        book.db.commit()
    written(course)
    assert "No response" not in page(course, "cy")
    mark(course, NAME, 1)
    assert comments() == {None}
    assert course.autograde(NAME, "cy") == "" and comments() == {None}


def test_a_copy_without_its_mark_gets_no_page_and_a_reason(course, capsys):
    with course.gradebook() as book:
        book.remove_submission(NAME, "bo")
    path = course.path("autograded", "cy", NAME) / f"{NAME}.ipynb"
    path.chmod(0o644)
    path.write_text("{", encoding="utf-8")
    assert main(["feedback", NAME, "--course", str(course.folder)]) == 1
    said = capsys.readouterr().out
    assert "bo\u00a0: sa note n'est pas dans la base" in said and "cy\u00a0: sa copie corrigée est illisible" in said
    assert not page(course, "bo") and not page(course, "cy") and page(course, "di")


# ── Une remarque sur toute la copie ──────────────────────────────────────────────────────────────────────────────────


def test_a_remark_about_the_whole_copy_reaches_teacher_and_student(course, capsys):
    path = course.path("autograded", "di", NAME) / f"{NAME}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"]["atelier"]["notes"][""] = ["deux cellules <i>illisibles</i> ont été laissées de côté."]
    path.chmod(0o644)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    grade(course, "--only", "di")
    assert "di\u00a0: deux cellules <i>" in capsys.readouterr().out
    assert main(["report", NAME, "--course", str(course.folder)]) == 0
    rows = table((course.folder / "bilans" / NAME / "a_regarder.csv").read_bytes())
    assert any(r["étudiant"] == "di" and r["détail"].startswith("deux cellules") for r in rows)
    assert main(["feedback", NAME, "--course", str(course.folder)]) == 0
    assert "<b>deux cellules &lt;i&gt;illisibles&lt;/i&gt;" in page(course, "di")


def test_the_gradebook_of_one_student_is_read_alone(course):
    with Gradebook(course.directory.db_url) as book:
        assert list(read_marks(book, NAME, "ana")) == ["ana"]
