"""Les pages que l'on ouvre hors de JupyterLab : bilan d'une classe de 300, retour d'un étudiant, carnet exporté.

Dans un vrai navigateur : axe-core n'y trouve rien de sérieux dans aucun thème, rien n'y déborde d'un téléphone ni d'un
zoom à 200 %, rien n'est coupé sur une feuille, et tout se lit sans réseau.
"""

from __future__ import annotations

import random
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, axe_faults
from nbconvert.exporters import HTMLExporter
from test_report_page import everything
from traitlets.config import Config

from atelier import export
from grader.classroom.course import configure
from grader.classroom.grading import VERDICTS, Result
from grader.classroom.marks import decimal, out_of
from grader.report.analysis import Row, Sheet
from grader.report.page import render_page

CHAPTER, SOLVED = "ch3_quantification", "ch1_rappel_gpt2"
PAPER = {"width": 702, "height": 1031}
"""Une feuille A4, marges ôtées, en pixels de CSS."""

OVERFLOWING = """
() => {
  const wide = document.documentElement.clientWidth + 1;
  const cut = e => /^T[DH]$/.test(e.tagName) || /hidden|auto|scroll|clip/.test(getComputedStyle(e).overflowX);
  const out = e => e.getBoundingClientRect().right > wide;
  const held = e => { for (let p = e.parentElement; p; p = p.parentElement) if (cut(p)) return true; return false; };
  return [...document.querySelectorAll("body *")]
    .filter(e => e.getClientRects().length && (cut(e) ? e.scrollWidth > e.clientWidth + 1 : out(e) && !held(e)))
    .map(e => `${e.tagName}.${e.className} : ${e.textContent.trim().slice(0, 60)}`);
}
"""
"""Ce qui sort de la feuille ou de sa cellule, ou y est coupé (une barre de défilement ne s'imprime pas)."""


def class_of_300() -> Sheet:
    """Quinze exercices, trois cents étudiants : absents, refusés, en retard, et toutes les façons de se tromper."""
    source, names = random.Random(300), nbformat.read(ROOT / "notebooks" / f"{CHAPTER}.ipynb", as_version=4)
    found = [c.metadata.nbgrader["grade_id"] for c in names.cells if c.metadata.get("nbgrader", {}).get("solution")]
    points, rows = {id: 1.0 + (i % 3) for i, id in enumerate(found)}, []
    for i in range(300):
        student, name = f"jean-baptiste-etudiant-{i:03}", f"Jean-Baptiste Étudiant-Lefèvre {i}"
        if i % 60 == 7:
            rows.append(Row(student, name, None, {}, {}))
            continue
        results = {}
        for id, worth in points.items():
            verdict = source.choices(list(VERDICTS)[1:8], [1, 0, 1, 5, 2, 1, 1])[0]
            mistake = f"idee_{source.randint(1, 4)}" if verdict == "misconception" else None
            results[id] = Result(id, worth * (verdict == "correct"), worth, verdict, f"Phrase de {mistake}.", mistake)
        answers = {id: f"def {id}(x):\n    return x.{'very_long_name.' * 8}sum({i})" for id in points}
        scores = {id: result.score for id, result in results.items()}
        rows.append(Row(student, name, sum(scores.values()), scores, results, answers))
    rows[1].refused, rows[2].notes, rows[3].differences = "fichier abîmé", ["une cellule réparée."], ["retard"]
    return Sheet(CHAPTER, points, rows)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """Nom → page écrite."""
    folder = tmp_path_factory.mktemp("pages")
    course, reader = Config(), Config()
    configure(course, folder)
    export.configure(reader)
    about = {"title": "Quantification", "out_of": out_of, "decimal": decimal, "score": 2.25, "max_score": 6.0}
    about |= {"late_penalty": 2.0, "fingerprint": "a" * 32, "remarks": ["Deux jours de retard."]}
    resources = {"nbgrader": about, "metadata": {"name": "x", "path": ""}}
    feedback = HTMLExporter(config=Config(HTMLExporter=course.GenerateFeedback.HTMLExporter))
    solved = ROOT / "solutions" / SOLVED / f"{SOLVED}.ipynb"
    written = {
        "bilan": render_page(class_of_300()),
        "retour": feedback.from_notebook_node(everything(), resources)[0],
        "carnet": HTMLExporter(config=reader).from_filename(str(solved))[0],
    }
    for name, text in written.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in written}


@pytest.fixture
def opened(browser, pages):
    """Ouvre une page, sans réseau : (nom, réglages de la fenêtre) → la page."""
    found, outside = [], []

    def go(name: str, **settings):
        page = browser.new_page(**settings)
        page.on("request", lambda r: outside.append(r.url) if r.url.startswith("http") else None)
        page.goto(pages[name].as_uri())
        found.append(page)
        return page

    yield go
    for page in found:
        page.close()
    assert not outside, "une page se lit sans réseau"


NAMES = ("bilan", "retour", "carnet")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_serious_stops_a_reader(opened, name):
    for theme in ("light", "dark") if name != "carnet" else ("light",):  # un carnet exporté n'a qu'un thème
        page = opened(name, color_scheme=theme, viewport={"width": 1300, "height": 900})
        assert page.evaluate("document.documentElement.lang") == "fr"
        assert not axe_faults(page, exclude=["#tous tr:nth-child(n + 10)"]), theme  # 300 lignes pareilles


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_on_paper(opened, name):
    page = opened(name, viewport=PAPER)
    page.emulate_media(media="print")
    assert not page.evaluate(OVERFLOWING)


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_phone_and_a_zoom_of_200_percent_scroll_one_way(opened, name):
    for width in (390, 650):
        page = opened(name, viewport={"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_report_of_300_begins_with_one_sheet_that_sums_it_up(opened):
    """Ce qui n'a pas été compris, les exercices et les notes tiennent sur la première feuille."""
    page = opened("bilan", viewport=PAPER)
    page.emulate_media(media="print")
    titles = page.locator("h2").all_inner_texts()
    assert titles[:4] == [
        "À reprendre devant la classe",
        "Les exercices, du moins au mieux réussi",
        "Les notes",
        "Les idées fausses",
    ]
    assert page.evaluate("document.querySelector('#notes').getBoundingClientRect().bottom") < PAPER["height"]
    assert page.evaluate("getComputedStyle(document.querySelector('#idees')).breakBefore") == "page"
    heads = page.locator("#tous thead th").all_inner_texts()
    assert len(heads) == 17 and all(head.strip() for head in heads)


def test_the_report_is_read_with_the_keyboard(opened):
    page = opened("bilan", viewport={"width": 1300, "height": 900})
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
    assert {"A.", "DIV.large", "SUMMARY."} <= reached
    page.keyboard.press("Enter")
    assert page.locator("details[open] pre").first.is_visible()


def test_formulas_are_composed_without_a_network(opened):
    page = opened("carnet", viewport={"width": 1300, "height": 900})
    boxes = page.locator("math").evaluate_all("all => all.map(m => m.getBoundingClientRect().width)")
    assert len(boxes) > 30 and all(boxes)
    shown = page.locator(".jp-MarkdownOutput").all_inner_texts()
    assert not [text for text in shown if "\\frac" in text or "$$" in text]
