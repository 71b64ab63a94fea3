"""formgrader, dans un vrai navigateur : la page d'une copie s'ouvre, et quatre exposés y sont notés à la main."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from conftest import ROOT, free_port, serving
from essai import exported

from atelier import talk
from grader.__main__ import main
from grader.classroom.course import Course, prepare

matplotlib.use("Agg")
CHAPTER = "ch9_exposes"
CRITERIA = list(talk.CRITERIA)
MARKS = {
    "ana-lopez": (4, 3, 2, 3.5, 1),
    "cy-dor": (2, 2, 2, 0, 2),
    "di-fay": (4, 4, 4, 4, 4),
    "eve-gil": (0, 1, 1.5, 1, 3),
}


def picture() -> str:
    """Une image PNG, en base 64."""
    from matplotlib.figure import Figure

    file = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(file, dpi=20)
    return base64.b64encode(file.getvalue()).decode()


def of(notebook: dict[str, Any], criterion: str) -> dict[str, Any]:
    """La cellule notée d'un critère."""
    return next(c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == criterion)


def talks() -> dict[str, bytes]:
    """Nom de fichier dans l'archive de Moodle → carnet d'exposé, tel que quatre étudiants peuvent le rendre."""
    drawn, cut, inside, colab = (talk.template(s) for s in ("Décodage spéculatif", "RoPE", "Experts", "DETR"))
    concept = next(c for c in drawn["cells"] if c["source"].startswith("## Le concept"))
    concept["source"] += "\n\n![notre dessin](attachment:dessin.png)\n\n<script>alert(1)</script>"
    concept["attachments"] = {"dessin.png": {"image/png": picture()}, "photo.heic": {"image/heic": "AAAA"}}
    code = next(c for c in drawn["cells"] if c["cell_type"] == "code")
    shown = f'<img alt="Une courbe" src="data:image/png;base64,{picture()}" style="max-width:100%">'
    code["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": {"text/html": shown}}]
    cut["cells"].remove(of(cut, "limites"))
    of(inside, "sources")["source"] += "\n\nShazeer et al., 2017, tableau 1."
    for cell in colab["cells"]:
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k == "nbgrader"} | {"id": cell["id"]}
    colab["metadata"] = {"colab": {"provenance": []}}
    given = {
        "Ana Lopez_101_assignsubmission_file_/expose_decodage_speculatif.ipynb": drawn,
        "Cy Dor_102_assignsubmission_file_/expose_rope.ipynb": cut,
        "Di Fay_103_assignsubmission_file_/mon exposé.ipynb": inside,
        "Eve Gil_104_assignsubmission_file_/Copie de expose_detr.ipynb": colab,
    }
    return {name: json.dumps(notebook).encode() for name, notebook in given.items()}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """Un chapitre et l'exposé : une copie blanche de l'un, quatre exposés, corrigés."""
    folder = tmp_path_factory.mktemp("classe") / "cours"
    prepare(folder, [CHAPTER, talk.ASSIGNMENT])
    course = Course(folder)
    copy = course.path("submitted", "ana-lopez", CHAPTER) / f"{CHAPTER}.ipynb"
    copy.parent.mkdir(parents=True)
    copy.write_bytes((ROOT / "notebooks" / f"{CHAPTER}.ipynb").read_bytes())
    archive = folder.parent / "exposes.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for name, data in talks().items():
            out.writestr(name, data)
    assert main(["collect", str(archive), "--course", str(folder)]) == 0
    for name in (CHAPTER, talk.ASSIGNMENT):
        assert main(["grade", name, "--course", str(folder), "--jobs", "1"]) == 0
    return course


@pytest.fixture(scope="module")
def address(course: Course) -> Iterator[str]:
    """Un serveur Jupyter dans le dossier du cours, comme l'enseignant le lance."""
    port = free_port()
    line = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"]
    env = {**os.environ, "JUPYTER_TOKEN": "essai"}
    with serving(line, port, course.folder, env, course.folder.parent / "jupyter.log") as address:
        yield address


@pytest.fixture(scope="module")
def page(browser, address: str):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(f"{address}/lab?token=essai")
    yield page
    page.close()


def submissions(page, address: str, assignment: str) -> list[str]:
    """L'adresse de chaque copie d'un devoir, dans l'onglet « Manual Grading »."""
    page.goto(f"{address}/formgrader/gradebook/{assignment}/{assignment}")
    page.wait_for_selector("a[href*='/formgrader/submissions/']")
    found = page.evaluate("[...document.querySelectorAll('a[href*=\"/formgrader/submissions/\"]')].map(a => a.href)")
    return list(dict.fromkeys(found))


def rows(path: Path) -> dict[str, dict[str, str]]:
    """Un CSV du bilan : première colonne → sa ligne."""
    table = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), delimiter=";"))
    return {next(iter(row.values())): row for row in table}


def test_the_page_of_a_copy_opens_in_formgrader(page, address, course):
    for link in submissions(page, address, CHAPTER):
        assert page.goto(link).status == 200
        page.wait_for_selector("input.score")
        assert page.locator("input.score").count() == len(course.points(CHAPTER))


def test_a_talk_waits_for_its_mark(course, capsys):
    assert main(["grade", talk.ASSIGNMENT, "--course", str(course.folder)]) == 0
    said = capsys.readouterr().out
    assert "À noter à la main, dans formgrader\u00a0: 4 copies." in said and "4 déjà corrigées" in said
    assert main(["report", talk.ASSIGNMENT, "--course", str(course.folder)]) == 0
    folder = course.folder / "bilans" / talk.ASSIGNMENT
    assert {row["note sur 20"] + row["concept"] for row in rows(folder / "notes.csv").values()} == {""}
    assert {row["situation"] for row in rows(folder / "a_regarder.csv").values()} == {"à noter à la main"}
    assert "Participant101,Ana Lopez,," in (folder / "moodle.csv").read_text(encoding="utf-8-sig")
    assert "À noter à la main, dans formgrader" in (folder / "bilan.html").read_text(encoding="utf-8")


def test_four_talks_are_marked_by_hand_and_the_report_and_the_export_say_it(page, address, course, capsys):
    kept = {}
    for link in submissions(page, address, talk.ASSIGNMENT):
        assert page.goto(link).status == 200
        page.wait_for_selector("input.score")
        text = page.inner_text("body")
        student = next(
            s for s, title in zip(MARKS, ("Décodage", "RoPE", "Experts", "DETR"), strict=True) if title in text
        )
        kept[student] = text, page.locator(".output_png img, .output_area img").count()
        fields = page.locator("input.score")
        assert sorted(f.get_attribute("id") for f in fields.all()) == sorted(CRITERIA)
        for criterion, mark in zip(CRITERIA, MARKS[student], strict=True):
            page.locator(f"input.score#{criterion}").fill(str(mark))
            with page.expect_response(lambda r: "/api/grade/" in r.url and r.request.method == "PUT"):
                page.locator(f"input.score#{criterion}").press("Tab")
        page.locator("textarea#question-comment").fill("Bien posée.")
        with page.expect_response(lambda r: "/api/comment/" in r.url and r.request.method == "PUT"):
            page.locator("textarea#question-comment").press("Tab")
    text, pictures = kept["ana-lopez"]
    assert pictures == 2 and "photo.heic" in text and "< script>" in text
    assert "Shazeer et al., 2017" in kept["di-fay"][0]

    folder = course.folder / "bilans" / talk.ASSIGNMENT
    assert main(["report", talk.ASSIGNMENT, "--course", str(course.folder)]) == 0
    assert "À noter à la main" not in capsys.readouterr().out
    notes = rows(folder / "notes.csv")
    for student, marks in MARKS.items():
        shown = [float(notes[student][c].replace(",", ".")) for c in CRITERIA]
        assert shown == list(marks) and float(notes[student]["points"].replace(",", ".")) == sum(marks)
    assert {s: n for s, n in exported(course).items() if n} == {s: sum(m) for s, m in MARKS.items()}
    assert '"20,00"' in (folder / "moodle.csv").read_text(encoding="utf-8-sig")

    # corriger de nouveau ne touche à rien ; le retour porte les notes et les remarques
    assert main(["grade", talk.ASSIGNMENT, "--course", str(course.folder), "--redo"]) == 0
    assert {s: n for s, n in exported(course).items() if n} == {s: sum(m) for s, m in MARKS.items()}
    assert course.autograde(talk.ASSIGNMENT, "cy-dor") == "", "la route de nbgrader, qu'un bouton de formgrader suit"
    assert exported(course)["cy-dor"] == sum(MARKS["cy-dor"])
    assert main(["feedback", talk.ASSIGNMENT, "--course", str(course.folder)]) == 0
    back = (course.path("feedback", "cy-dor", talk.ASSIGNMENT) / f"{talk.ASSIGNMENT}.html").read_text(encoding="utf-8")
    assert "Bien posée." in back and "8 / 20".replace(" ", "\u00a0") in back.replace("\u202f", "\u00a0")
