"""Corriger vite et reprendre : ce que la base et les dossiers gardent, les processus, les copies déjà corrigées."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from essai import NAME, SOLVED, as_bytes, filled, results_in

from grader import UserError
from grader.__main__ import main
from grader.classroom import marking
from grader.classroom.course import Course, prepare
from grader.classroom.marking import Marked, mark
from grader.classroom.nbglue import assignment

FULL = {"scale_up": 2.0, "count_true": 1.0, "spread": 3.0}
WRONG = {"scale_up": "def scale_up(x, factor):\n    return x + factor"}
ANSWERS = {
    "juste": SOLVED,
    "faux": SOLVED | WRONG,
    "vide": {},
    "meurt": SOLVED | {"spread": "import os\ndef spread(x):\n    os._exit(1)"},
    "en-retard": SOLVED | WRONG,
}


@pytest.fixture
def course(root: Path, tmp_path: Path) -> Course:
    """Un cours et quelques copies, dont une abîmée."""
    folder = tmp_path / "cours"
    prepare(folder)
    given = Course(folder)
    for student, answers in ANSWERS.items():
        submit(given, student, as_bytes(filled(assignment(NAME).template, answers)))
    submit(given, "abime", b'{"cells": [')
    return given


def submit(course: Course, student: str, data: bytes) -> Path:
    path = course.path("submitted", student, NAME) / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def file_of(course: Course, student: str) -> Path:
    return course.path("autograded", student, NAME) / f"{NAME}.ipynb"


def totals(marked: Marked) -> dict[str, float]:
    return {student: sum(r.score for r in results) for student, results in marked.results.items()}


# ── La base et les dossiers ──────────────────────────────────────────────────────────────────────────────────────────

TABLES = {
    "student": ("id", "first_name", "last_name", "email"),
    "submitted_assignment": ("student_id", "timestamp", "extension"),
    "submitted_notebook": ("flagged", "late_submission_penalty"),
    "grade": ("auto_score", "manual_score", "extra_credit", "needs_manual_grade"),
    "comment": ("auto_comment", "manual_comment"),
}
OWNERS = {
    "submitted_notebook": "JOIN submitted_assignment s ON s.id = t.assignment_id",
    "grade": "JOIN submitted_notebook n ON n.id = t.notebook_id JOIN submitted_assignment s ON s.id = n.assignment_id "
    "JOIN base_cell c ON c.id = t.cell_id",
}
OWNERS["comment"] = OWNERS["grade"]
STOCK_ROWS = """
c.Autograde.autograde_preprocessors = [
    "grader.classroom.nbglue.GradeCells",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
"""
"""Un cours où nbgrader écrit lui-même dans la base ; seul son commentaire anglais n'est pas ce que nous laissons."""


def database(course: Course) -> dict[str, list[tuple]]:
    """Tout ce que la base dit des copies, sans les identifiants tirés au hasard."""
    found = {}
    with sqlite3.connect(course.folder / "gradebook.db") as db:
        for table, columns in TABLES.items():
            who = ["s.student_id"] if table in OWNERS else []
            who += ["c.name"] if "base_cell" in OWNERS.get(table, "") else []
            wanted = ", ".join([*who, *(f"t.{c}" for c in columns)])
            rows = db.execute(f"SELECT {wanted} FROM {table} t {OWNERS.get(table, '')}")
            found[table] = sorted((tuple(None if v == "No response." else v for v in row) for row in rows), key=repr)
    return found


def files(course: Course) -> dict[str, tuple[bytes, int]]:
    folder = course.folder / "autograded"
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mode) for p in paths}


def test_what_is_written_is_what_nbgrader_would_have_written(course, tmp_path, monkeypatch):
    late = course.path("submitted", "en-retard", NAME)
    (late / "timestamp.txt").write_text("2026-11-20 10:00:00 UTC", encoding="utf-8")
    (late / "figures").mkdir()
    (late / "figures" / "a.txt").write_text("un fichier joint", encoding="utf-8")
    (course.path("source", assignment=NAME) / "données.csv").write_text("1;2", encoding="utf-8")
    with course.gradebook() as book:
        book.update_or_create_assignment(NAME, duedate="2026-11-19 10:00:00")
    with open(course.folder / "nbgrader_config.py", "a", encoding="utf-8") as config:
        config.write('c.LateSubmissionPlugin.penalty_method = "zero"\n')
    ours, theirs = Course(course.folder), []
    for name, added in (("ses-etapes", ""), ("ses-ecritures", STOCK_ROWS)):
        shutil.copytree(course.folder, tmp_path / name)
        with open(tmp_path / name / "nbgrader_config.py", "a", encoding="utf-8") as config:
            config.write(added)
        theirs.append(Course(tmp_path / name))

    def compare(seed: int) -> None:
        first = mark(ours, NAME, 1, seed=seed)
        for other in theirs:
            with monkeypatch.context() as patch:
                patch.setattr(marking, "follows_nbgrader", lambda *_: False)
                second = mark(other, NAME, 1, seed=seed)
            assert totals(first) == totals(second) and not first.unsaved and not second.unsaved
            assert database(ours) == database(other)
            assert files(ours) == files(other)

    compare(5)
    # une seconde fois, par-dessus : rien ne s'ajoute, et la main de l'enseignant reste
    for one in (ours, *theirs):
        with one.gradebook() as book:
            book.find_grade("test_spread", NAME, NAME, "juste").manual_score = 1.5
            book.find_comment("spread", NAME, NAME, "juste").manual_comment = "vu"
            book.db.commit()
    compare(6)
    assert any(row[:3] == ("en-retard", 0, 4.0) for row in database(ours)["submitted_notebook"])


def test_a_course_that_adds_to_autograde_is_written_by_nbgrader(course):
    assert marking.follows_nbgrader(course, NAME)
    with open(course.folder / "nbgrader_config.py", "a", encoding="utf-8") as config:
        config.write('c.Autograde.autograde_preprocessors.append("nbgrader.preprocessors.LimitOutput")\n')
    changed = Course(course.folder)
    assert not marking.follows_nbgrader(changed, NAME)
    marked = mark(changed, NAME, 1)
    assert not marked.unsaved and totals(marked)["juste"] == 6.0


# ── Processus ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_processes_give_the_same_marks_as_here(course):
    here = mark(course, NAME, 1, seed=11)
    apart = mark(course, NAME, 2, seed=11)
    assert here.records() == apart.records()
    assert here.remarks == apart.remarks
    assert totals(apart) == {"juste": 6.0, "faux": 4.0, "vide": 0.0, "meurt": 3.0, "en-retard": 4.0, "abime": 0.0}
    assert apart.refused == ["abime"] and not apart.unsaved


def test_a_killed_process_is_replaced_and_its_copy_graded(course):
    for i in range(8):
        submit(course, f"autre-{i}", as_bytes(filled(assignment(NAME).template, SOLVED)))
    killed = []

    def kill() -> None:
        while not list((course.folder / "autograded").rglob("*.ipynb")):
            time.sleep(0.05)
        for process in multiprocessing.active_children():
            if process.name == "correcteur":
                killed.append(process.pid)
                os.kill(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    marked = mark(course, NAME, 2)
    thread.join()
    assert killed and not marked.unsaved
    assert {totals(marked)[f"autre-{i}"] for i in range(8)} == {6.0}


# ── Reprendre ────────────────────────────────────────────────────────────────────────────────────────────────────────


def seeds(marked: Marked, student: str) -> list[str]:
    return [r.seed for r in marked.results[student]]


def test_what_is_graded_is_not_graded_again(course):
    first = mark(course, NAME, 1)
    before, kept = files(course), database(course)
    second = mark(course, NAME, 1)
    assert sorted(second.kept) == sorted(first.results) and not first.kept
    assert second.records() == first.records() and second.remarks == first.remarks
    assert (files(course), database(course)) == (before, kept)


def test_a_new_submission_a_missing_row_and_a_request_are_graded(course):
    first = mark(course, NAME, 1)
    submit(course, "vide", as_bytes(filled(assignment(NAME).template, SOLVED)))
    with course.gradebook() as book:
        book.remove_submission(NAME, "faux")
    second = mark(course, NAME, 1)
    assert sorted(set(second.results) - set(second.kept)) == ["vide"]
    assert seeds(second, "faux") == seeds(first, "faux")  # la base seule manquait : rien n'est noté deux fois
    with course.gradebook() as book:
        assert book.find_submission(NAME, "faux").score == 4.0 and book.find_submission(NAME, "vide").score == 6.0
    file_of(course, "faux").unlink()
    third = mark(course, NAME, 1, only=["faux"])
    assert list(third.results) == ["faux"] and not third.kept and seeds(third, "faux") != seeds(first, "faux")
    fourth = mark(course, NAME, 1, only=["juste"], redo=True)
    assert seeds(fourth, "juste") != seeds(first, "juste")
    with pytest.raises(UserError, match="inconnu"):
        mark(course, NAME, 1, only=["inconnu"])


def test_a_changed_chapter_is_graded_again(course, root):
    mark(course, NAME, 1, only=["juste"])
    path = root / "solutions" / NAME / "exercises" / "spread.py"
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(text + "\n# une tolérance corrigée\n", encoding="utf-8")
        assignment.cache_clear()
        assert not mark(course, NAME, 1, only=["juste"]).kept
    finally:
        path.write_text(text, encoding="utf-8")
        assignment.cache_clear()


def test_the_command_says_whether_someone_must_look(course, tmp_path, capsys):
    out = tmp_path / "notes.json"
    command = ["grade", NAME, "--course", str(course.folder), "--unsealed", "--json", str(out)]
    assert main([*command, "--only", "juste", "--only", "vide"]) == 0
    assert {r["student"] for r in json.loads(out.read_text(encoding="utf-8"))} == {"juste", "vide"}
    assert main([*command, "--jobs", "1"]) == 1
    said = capsys.readouterr().out
    assert "6 copies, dont 2 déjà corrigées" in said and "copie refusée × 3" in said
    assert len(json.loads(out.read_text(encoding="utf-8"))) == 18
    assert main([*command, "--only", "personne"]) == 2
    assert "personne" in capsys.readouterr().err


def test_autograde_typed_by_hand_is_not_done_again(course):
    course.autograde(NAME, "faux")
    marked = mark(course, NAME, 1, only=["faux"])
    assert marked.kept == ["faux"]
    assert [r.score for r in results_in(file_of(course, "faux"))] == [0.0, 1.0, 3.0]


@pytest.mark.lent
def test_three_hundred_copies_five_percent_of_them_mangled(root, tmp_path):
    """Trois cents notes ou raisons nommées, sans personne ; les honnêtes n'y perdent rien."""
    import test_mangled

    folder = tmp_path / "cours"
    prepare(folder)
    course = Course(folder)
    template = test_mangled.TEMPLATE = assignment(NAME).template
    kinds = [kind for kind in test_mangled.MANGLED if not kind.startswith(("honnete", "sorties-50"))]
    expected = {}
    for i in range(300):
        change, render, points, spread = test_mangled.MANGLED[kinds[i // 20] if i % 20 == 7 else "honnete-1"]
        submit(course, f"e-{i:03}", render(change(filled(template, SOLVED))))
        expected[f"e-{i:03}"] = (points, spread)
    marked = mark(course, NAME)
    assert not marked.unsaved
    found = {
        student: ({r.exercise: r.score for r in results}, next(r.verdict for r in results if r.exercise == "spread"))
        for student, results in marked.results.items()
    }
    assert found == expected
    with course.gradebook() as book:
        assert len(book.find_assignment(NAME).submissions) == 300
