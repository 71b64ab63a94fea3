"""Un approfondissement (★) est un bonus : ses points s'ajoutent, et la note ne dépasse jamais le maximum."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import plain
from essai import NAME, SOLVED, as_bytes, build_root, course_root, exported, filled

from grader.__main__ import main
from grader.authoring.build import build_chapter, write
from grader.classroom.course import Course, prepare
from grader.classroom.marking import mark
from grader.classroom.nbglue import assignment
from grader.report.analysis import items, read_sheet

WRONG = {
    "scale_up": "def scale_up(x, factor):\n    return x + factor",
    "count_true": "def count_true(values):\n    return -1",
    "spread": "def spread(x):\n    return x.max()",
}
CLASS = {
    "tout": (SOLVED, 3.0),
    "sans": (SOLVED | {"spread": WRONG["spread"]}, 3.0),
    "aide": (SOLVED | {"count_true": WRONG["count_true"]}, 3.0),
    "seul": (WRONG | {"spread": SOLVED["spread"]}, 3.0),
    "peu": (WRONG | {"count_true": SOLVED["count_true"]}, 1.0),
    "rien": (WRONG, 0.0),
}
"""Étudiant → ses réponses et sa note : scale_up vaut 2, count_true 1, et spread 3 de bonus."""


def starred(root: Path, stars: int) -> None:
    """Fait de `spread` un approfondissement, ou non."""
    path = root / "solutions" / NAME / "exercises" / "spread.py"
    text = path.read_text(encoding="utf-8").replace("    stars=3,\n", "")
    text = text.replace("    points=3,\n", f"    points=3,\n{'    stars=3,' if stars == 3 else ''}\n")
    path.write_text(text.replace("\n\n    hints", "\n    hints"), encoding="utf-8")
    products = build_chapter(NAME, root)
    assert not products.errors and (products.points, products.bonus) == ((3.0, 3.0) if stars == 3 else (6.0, 0.0))
    write(products, root, execute=False)
    assignment.cache_clear()


@pytest.fixture
def course(tmp_path):
    root = build_root(tmp_path / "racine")
    with course_root(root):
        starred(root, 3)
        prepare(tmp_path / "cours")
        found = Course(tmp_path / "cours")
        template = assignment(NAME).template
        for student, (answers, _) in CLASS.items():
            path = found.path("submitted", student, NAME) / f"{NAME}.ipynb"
            path.parent.mkdir(parents=True)
            path.write_bytes(as_bytes(filled(template, answers)))
        yield found


def grade(course: Course, *options: str) -> dict[str, dict[str, dict]]:
    """Étudiant → exercice → fiche de `--json`."""
    out = course.folder / "notes.json"
    line = ["grade", NAME, "--course", str(course.folder), "--jobs", "1", "--unsealed", "--json", str(out), *options]
    assert main(line) == 0
    found: dict[str, dict[str, dict]] = {}
    for record in json.loads(out.read_text(encoding="utf-8")):
        found.setdefault(record["student"], {})[record["exercise"]] = record
    return found


def test_a_bonus_adds_up_to_the_maximum_and_no_further(course, capsys):
    records = grade(course)
    marks = {student: mark for student, (_, mark) in CLASS.items()}
    assert exported(course) == marks and set(exported(course, "max_score").values()) == {3.0}
    said = plain(capsys.readouterr().out)
    assert "tout 3 / 3" in " ".join(said.split()) and "peu 1 / 3" in " ".join(said.split())
    for student, exercises in records.items():  # l'exercice, lui, garde ses points, et sa faute se voit
        right = "spread" in CLASS[student][0] and CLASS[student][0]["spread"] == SOLVED["spread"]
        assert (exercises["spread"]["score"], exercises["spread"]["max_score"]) == (3.0 * right, 3.0)
    sheet = read_sheet(course, NAME)
    assert {row.student: row.score for row in sheet.rows} == marks and sheet.max_score == 3.0
    assert not any(row.differences for row in sheet.rows), "un bonus plafonné n'est pas une note mise à la main"
    (item,) = [item for item in items(sheet) if item.exercise == "spread"]
    assert (item.points, item.full, item.mean) == (3.0, 3, 1.5)


def test_nbgrader_s_own_road_and_a_second_grading_leave_the_same(course):
    mark(course, NAME, 1, seed=5)
    ours = exported(course)
    assert not grade_again(course), "rien à refaire"
    for student in CLASS:
        assert course.autograde(NAME, student) == ""
    assert exported(course) == ours


def grade_again(course: Course) -> list[str]:
    marked = mark(course, NAME, 1)
    return sorted(set(marked.results) - set(marked.kept))


def test_a_hand_mark_moves_what_the_bonus_fills(course):
    mark(course, NAME, 1)
    with course.gradebook() as book:
        book.find_grade("test_scale_up", NAME, NAME, "tout").manual_score = 0.0
        book.find_grade("test_spread", NAME, NAME, "rien").manual_score = 2.0
        book.db.commit()
    records = grade(course)
    assert exported(course)["tout"] == 3.0 and exported(course)["rien"] == 2.0
    assert "Note mise à la main, 2 points de bonus" in plain(records["rien"]["spread"]["message"])


def test_an_exercise_that_becomes_a_bonus_is_graded_again(course):
    root = course.folder.parent / "racine"
    starred(root, 2)
    prepare(course.folder)
    mark(course, NAME, 1)
    assert exported(course)["seul"] == 3.0 and exported(course, "max_score")["seul"] == 6.0
    starred(root, 3)
    prepare(course.folder)
    assert main(["report", NAME, "--course", str(course.folder)]) == 2
    grade(course)
    assert exported(course) == {student: mark for student, (_, mark) in CLASS.items()}
    assert main(["report", NAME, "--course", str(course.folder)]) == 0
    assert main(["feedback", NAME, "--course", str(course.folder)]) == 0
    page = (course.path("feedback", "aide", NAME) / f"{NAME}.html").read_text(encoding="utf-8")
    assert "bonus" in page and "3\u00a0/\u00a03" in plain(page).replace(" ", "\u00a0")
