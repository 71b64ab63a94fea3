"""La page du bilan, l'analyse des exercices et les ressemblances, sur une classe inventée."""

from __future__ import annotations

import csv
import html.parser
import io
import random
import re
import time
from pathlib import Path

import pytest
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from traitlets.config import Config

from grader.classroom.course import configure
from grader.classroom.grading import Result
from grader.classroom.marks import decimal, out_of
from grader.report.analysis import Row, Sheet, anonymous, discrimination, items, needs
from grader.report.feedback import written_in
from grader.report.page import clean, render_page
from grader.report.similarity import normalized, similar_pairs
from grader.report.view import ALL_READABLE, NO_LESSON, NOTHING_AGAIN, SECTIONS, view
from grader.report.write import attention_csv, class_report, exercises_csv, similarities_csv

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'
SENTENCE = "Vous divisez par le nombre de pas d'une plage non signée."
LONG = '''
def gptq(w, x, bits, damp=0.01):
    """Docstring de l'énoncé, {name}."""
    # commentaire de {name}
    levels = 2 ** (bits - 1) - 1
    hessian = 2 * x.T @ x
    hessian = hessian + damp * hessian.diagonal().mean() * torch.eye(len(hessian))
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    for column in range(w.shape[1]):
        error = (w[:, column] - quantize(w[:, column], levels)) / upper[column, column]
        w[:, column + 1 :] -= torch.outer(error, upper[column, column + 1 :])
    return w
'''
RENAMED = LONG.replace("hessian", "hessienne").replace("column", "j").replace("error", "écart").replace("levels", "n")
OTHER = """
def gptq(w, x, bits, damp=0.01):
    rows = []
    inverse = torch.linalg.inv(2 * x.T @ x + damp * torch.eye(x.shape[1]))
    for row in w:
        done = []
        for value, weight in zip(row.tolist(), inverse.diagonal().tolist()):
            done.append(round(value * 2**bits) / 2**bits if weight > {n} else value + {n})
        rows.append(done)
    return torch.tensor(rows).reshape(w.shape) + {n}
"""
SHORT = "def facile(x):\n    return x.abs().max()"


def row(i: int, name: str, easy: float, hard: float, mistake: bool = False, gptq: str = "") -> Row:
    verdict = "correct" if hard == 3 else "misconception" if mistake else "incorrect" if hard == 0 else "partial"
    results = {
        "facile": Result("facile", easy, 2.0, "correct" if easy == 2 else "missing", "…"),
        "gptq": Result("gptq", hard, 3.0, verdict, SENTENCE if mistake else "…", "unsigned" if mistake else None),
    }
    sources = {"gptq": gptq or OTHER.replace("{n}", f"(x.sum() * {i} + w[{i}] - x.mean() * {i * 7 % 5})" * (1 + i % 4))}
    if easy == 2:
        sources["facile"] = SHORT
    return Row(f"e-{i:02}", name, easy + hard, {"facile": easy, "gptq": hard}, results, sources)


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    rows = [
        row(i, f"Élève {i}", 2.0 if i > 3 else 0.0, 3.0 if i > 11 else 0.0, i in (4, 5, 6, 7, 8)) for i in range(20)
    ]
    rows.append(row(20, EVIL, 2.0, 0.0, True, LONG.replace("{name}", "Zoé")))
    rows.append(row(21, "Zoé Ødegård", 2.0, 0.0, True, RENAMED.replace("{name}", "Bob")))
    rows.append(Row("broken", "Cy Dé", 0.0, {"facile": 0, "gptq": 0}, {}, {}, refused=f"fichier abîmé {EVIL}"))
    rows.append(Row("absent", "", None, {}, {}))
    rows[15].notes = ["gptq : sa cellule avait perdu son identifiant."]
    return Sheet("ch3_quantification", {"facile": 2.0, "gptq": 3.0}, rows)


class Strict(html.parser.HTMLParser):
    """Compte les balises, refuse ce qu'une page sans script ne peut pas contenir, vérifie qu'elles se ferment."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        assert tag not in ("script", "img", "iframe", "object", "link", "form", "base"), tag
        for name, value in attrs:
            assert not name.startswith("on") and not (value or "").lower().startswith(("http", "javascript")), attrs
        if tag not in ("meta", "rect", "line", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_offline_and_runs_nothing(sheet):
    page = render_page(sheet)
    parser = Strict()
    parser.feed(page)
    assert not parser.open and parser.seen.count("table") == 3 and "svg" in parser.seen
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'" in page and "@media print" in page and 'lang="fr"' in page


def test_the_page_says_what_a_teacher_asks(sheet):
    page = render_page(sheet)
    assert "À reprendre devant la classe" in page and "<b>gptq</b>" in page and "<b>facile</b>" not in page
    assert SENTENCE.replace("'", "&#39;") in page and "7 copies sur 22" in page
    assert "Rien reçu (1)" in page and "fichier abîmé" in page and "perdu son identifiant" in page
    assert "n'est pas une preuve" in page and "Zoé Ødegård" in page
    assert "Répartition des notes" in page


class Sections(html.parser.HTMLParser):
    """Ce que montre chaque partie de la page : son titre, les cellules de ses tableaux, son texte."""

    def __init__(self) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: dict[str, str] = {}
        self.tag = self.id = ""

    def handle_starttag(self, tag, attrs):
        self.tag = tag
        if tag == "section":
            self.id = dict(attrs)["id"]
            self.tables[self.id], self.texts[self.id] = [], ""
        elif tag == "tr":
            self.tables[self.id].append([])
        elif tag in ("td", "th"):
            self.tables[self.id][-1].append("")

    def handle_data(self, data):
        if self.tag == "h2" and data.strip():
            self.titles.append(data.strip())
        elif self.tag in ("td", "th", "span") and self.id and self.tables[self.id] and data.strip():
            self.tables[self.id][-1][-1] += data.strip()
        if self.id:
            self.texts[self.id] += data


def told(text: str) -> dict[str, str]:
    """Le bilan en texte, partie par partie : titre → ce qui le suit."""
    parts = text.split("\n\n")[1:]
    return {part.split("\n")[0]: part.partition("\n")[2] for part in parts}


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("rows", [slice(None), slice(12, 20)], ids=["classe", "sans rien à signaler"])
def test_the_terminal_says_what_the_page_says(sheet, rows):
    """Mêmes parties, dans le même ordre, mêmes tableaux cellule par cellule, mêmes phrases."""
    small = Sheet(sheet.assignment, sheet.points, [r for r in sheet.rows[rows] if r.name != EVIL])
    page, text = Sections(), told(class_report(small))
    page.feed(render_page(small))
    assert page.titles == list(SECTIONS.values())
    assert list(text) == [title for title in page.titles if title in text]
    assert set(page.titles) - set(text) <= {SECTIONS["tous"], SECTIONS["ressemblances"]}
    for id in ("exercices", "aide"):
        lines = text[SECTIONS[id]].split("\n")
        ruled = [re.split(r"\s{2,}", line.strip()) for line in lines if "  " in line.strip() and "──" not in line]
        assert [[flat(cell) for cell in row] for row in page.tables[id]] == [[flat(c) for c in row] for row in ruled]
    said = view(small)
    for id, sentences in {
        "reprendre": [part for told in said.again for part in told] or [NOTHING_AGAIN],
        "notes": [said.marks],
        "idees": [part for lesson in said.lessons for part in (lesson.head, lesson.sentence)] or [NO_LESSON],
        "copies": [*said.absent, *(part for pair in (*said.refused, *said.repaired) for part in pair)]
        or [ALL_READABLE],
    }.items():
        for sentence in sentences:
            assert flat(sentence) in flat(page.texts[id]), (id, sentence)
            assert flat(sentence) in flat(text[SECTIONS[id]]), (id, sentence)


def test_the_page_escapes_direction_marks_and_controls():
    assert clean("a\u202eb\x00c<\n") == "abc<\n" and clean("3\u202f%\u00a0") == "3\u202f%\u00a0"
    sheet = Sheet("ch3_quantification", {"gptq": 3.0}, [Row("e-0", "a\u202eb\x00c<\n", 3.0, {"gptq": 3.0}, {})])
    assert "abc&lt;\n (e-0)" in render_page(sheet) and "\u202e" not in render_page(sheet)


def test_items_are_ordered_and_analysed(sheet):
    hard, easy = items(sheet)
    assert (hard.exercise, easy.exercise) == ("gptq", "facile")
    assert hard.not_understood and not easy.not_understood
    assert hard.copies == 22 and hard.full == 8 and hard.ease == pytest.approx(8 / 22)
    assert hard.mistakes[0].times == 7 and "def gptq" in hard.mistakes[0].example
    assert 0 < hard.discrimination < 1


def test_discrimination_needs_enough_copies_and_some_variety():
    assert discrimination([0, 1] * 4, [0, 1] * 4) is None
    assert discrimination([1] * 20, list(range(20))) is None
    assert discrimination([0, 1] * 10, [0, 5] * 10) == pytest.approx(1)
    assert discrimination([0, 1] * 10, [5, 0] * 10) == pytest.approx(-1)


def test_examples_are_anonymous(sheet):
    one = Row("zoe-odegard", "Zoé Ødegård", 0, {}, {}, {"gptq": LONG.replace("{name}", "Zoé") + "\nauteur = 'Zoé'\n"})
    text = anonymous(one, "gptq")
    assert "Zoé" not in text and "commentaire" not in text and "Docstring" not in text and "hessian" in text
    one.sources["gptq"] = "def gptq(:"
    assert anonymous(one, "gptq") == ""


def test_who_needs_help(sheet):
    helped = needs(sheet)
    assert [need.mark for need in helped] == sorted(need.mark for need in helped)
    assert {need.row.student for need in helped} == {"e-20", "e-21", *(f"e-{i:02}" for i in range(12))}
    assert "non faits" in helped[0].why[0]


def test_renamed_copies_are_found_and_the_natural_answer_is_not(sheet):
    (pair,) = similar_pairs({"gptq": {r.student: r.sources["gptq"] for r in sheet.readable if r.sources}})[:1]
    assert (pair.first, pair.second) == ("e-20", "e-21") and pair.exercises["gptq"] == 1.0
    assert normalized(LONG, "gptq") == normalized(RENAMED, "gptq") != normalized(OTHER, "gptq")
    assert not similar_pairs({"facile": {f"e-{i}": SHORT for i in range(30)}})
    assert not similar_pairs({"gptq": {f"e-{i}": LONG for i in range(30)}})
    assert not similar_pairs({"gptq": {"a": "def (", "b": "\x00", "c": "x" * 200_000}})


def test_a_class_of_a_thousand_costs_no_more_than_its_pairs():
    """Une paire d'une grande classe ne coûte pas plus qu'une paire d'une petite (la durée même est à `bench`)."""
    source = random.Random(0)
    lines = [f"    y{i} = torch.{name}(x, {i}) + w[{i}]" for i, name in enumerate(["add", "mul", "sum", "max"] * 15)]
    made = {f"e-{i}": "def gptq(w, x):\n" + "\n".join(source.sample(lines, 20)) for i in range(1000)}
    made["e-0"] = made["e-1"]

    def cost(count: int) -> float:
        start = time.process_time()
        pairs = similar_pairs({"gptq": dict(list(made.items())[:count])})
        assert [(p.first, p.second) for p in pairs] == [("e-0", "e-1")]
        return (time.process_time() - start) / count**2

    assert cost(1000) < 3 * cost(250)


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig")), delimiter=";"))


def test_the_tables_say_the_same_as_the_page(sheet):
    exercises = read(exercises_csv(sheet))
    assert exercises[0][:4] == ["exercice", "barème", "moyenne", "facilité"] and exercises[1][0] == "gptq"
    assert exercises[1][-2:] == ["unsigned", "7"]
    attention = {(r[0], r[3]) for r in read(attention_csv(sheet))[1:]}
    assert {("absent", "rien reçu"), ("broken", "copie refusée"), ("e-15", "à savoir"), ("e-00", "à aider")} <= (
        attention
    )
    assert read(similarities_csv(sheet))[1] == ["e-20", "e-21", "gptq", "1,00"]


def everything() -> NotebookNode:
    """Un carnet corrigé où il y a de tout, et où chaque texte essaie d'être une balise."""
    answer = new_code_cell(
        "def spread(x):\n    return '<b>'  # <i>", outputs=[new_output("stream", text="<u>\x1b[31mx")]
    )
    error = new_output("error", ename="<s>", evalue="<s>", traceback=["\x1b[0;31m<s>", "<s>"])
    figure = {"image/png": "iVBORw0K\nGgo=", "text/plain": "<q>"}
    answer.outputs += [
        error,
        new_output("display_data", data=figure),
        new_output("display_data", {"text/plain": "<q>"}),
    ]
    answer.metadata.nbgrader = {"solution": True, "grade_id": "spread", "comment": "**vu**"}
    graded = new_code_cell("check(spread)", outputs=[new_output("stream", text="✗ <a> & <a>")])
    graded.outputs.append(new_output("execute_result", data={"text/plain": "1.4"}))
    graded.metadata.nbgrader = {"grade": True, "grade_id": "test_spread", "score": 1.4, "points": 3.0, "remark": "<em>"}
    return new_notebook(cells=[new_markdown_cell("# Titre\n\n`<p>` $x<y$ $\\text{&lt;u&gt;}$"), answer, graded])


def test_the_page_of_feedback_is_ours_and_escapes_all_it_shows():
    """Aussi ce que le gabarit demande à nbconvert : un filtre qui change de nom, ou de sens, se voit ici."""
    config = Config()
    configure(config, Path("absent"))
    about = {
        "title": "<h6>",
        "out_of": out_of,
        "decimal": decimal,
        "score": 2.25,
        "max_score": 6.0,
        "late_penalty": 2.0,
    }
    about |= {"fingerprint": "a" * 32, "remarks": ["<dd>"]}
    resources = {"nbgrader": about, "metadata": {"name": "x", "path": ""}}
    pages = Config(HTMLExporter=config.GenerateFeedback.HTMLExporter)
    text, _ = HTMLExporter(config=pages).from_notebook_node(everything(), resources)
    body = text[text.index("<body>") :]
    assert {tag for tag in re.findall(r"<([a-z0-9]+)", body)} == {
        *("body", "header", "h1", "p", "b", "table", "tr", "td", "a", "main", "div", "code", "section", "span", "pre"),
        *("img", "strong", "math", "mrow", "mi", "mo", "mtext"),
        *("svg", "base"),  # voir le gabarit : c'est là que JupyterLab écrit une adresse, sans effet
    }
    assert re.search(r"<svg [^>]*hidden[^>]*>\s*<base", body) and text.count("<base") == 1
    for shown in (
        "&lt;h6&gt;",
        "&lt;dd&gt;",
        "&lt;u&gt;",
        "&lt;s&gt;",
        "&lt;q&gt;",
        "✗ &lt;a&gt; &amp;",
        "&lt;em&gt;",
        "&lt;p",
    ):
        assert shown in body, shown
    for shown in (
        "2,25\u00a0/\u00a06",
        "1,40",
        "/\u00a03,00",
        "−2,00",
        "<strong>vu</strong>",
        'class="k">def<',
        "ansi-red-fg",
    ):
        assert shown in body, shown
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in body and "1.4" not in body and "check(spread)" not in body
    assert "<script" not in text and not re.search(r"https?://(?!www\.w3\.org)", text)
    assert written_in(text.encode()) == "a" * 32
