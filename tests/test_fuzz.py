"""Des milliers de carnets que personne n'écrirait : le côté sûr ne tombe jamais et reste borné.

Un carnet devient un carnet propre et un plan, ou `Unreadable`. Toute autre exception est un défaut.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import time
from collections.abc import Callable

import nbformat
import pytest
from essai import SOLVED, as_bytes, filled
from fuzzing import EXAMPLES, IDS, LEAF, TEXT, fuzz
from hypothesis import given
from hypothesis import strategies as st

from atelier.judging.codec import count_values, dumps, loads
from atelier.text import legible
from grader.classroom import submission
from grader.classroom.display import harmless, shortened
from grader.classroom.grading import answer_of, draw, judge
from grader.classroom.nbglue import Assignment, open_data
from grader.classroom.submission import Unreadable, claimed, definitions, plan, read_notebook
from grader.jail.outside.dialogue import CellReport, CodeCell, Report, TaskReport, cell_report, read_outcome, shown
from grader.report.similarity import words

# --- des carnets ------------------------------------------------------------------------------------------------------


JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
METADATA = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {
            "nbgrader": st.one_of(
                JSON,
                st.fixed_dictionaries(
                    {"grade_id": st.one_of(st.sampled_from(IDS), JSON)},
                    optional={
                        k: LEAF for k in ("grade", "solution", "locked", "points", "schema_version", "cell_type")
                    },
                ),
            )
        },
        optional={"tags": JSON},
    ),
)
DATA = st.dictionaries(st.sampled_from(["text/plain", "text/html", "image/png", "image/svg+xml"]), JSON, max_size=3)
OUTPUT = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"output_type": st.sampled_from(["stream", "error", "display_data", "execute_result", "rien"])},
        optional={"text": JSON, "name": JSON, "data": st.one_of(JSON, DATA), "ename": JSON, "evalue": JSON}
        | {"traceback": JSON, "metadata": JSON, "execution_count": JSON},
    ),
)
CELL = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {
            "cell_type": st.one_of(st.sampled_from(["code", "markdown", "raw", "heading"]), LEAF),
            "source": st.one_of(TEXT, st.lists(TEXT, max_size=3), JSON),
        },
        optional={"metadata": METADATA, "outputs": st.one_of(JSON, st.lists(OUTPUT, max_size=3)), "id": JSON}
        | {"execution_count": JSON, "attachments": JSON, "input": TEXT},
    ),
)
NOTEBOOK = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"cells": st.one_of(st.lists(CELL, max_size=6), JSON)},
        optional={"metadata": JSON, "nbformat": LEAF, "nbformat_minor": LEAF, "worksheets": JSON},
    ),
    st.fixed_dictionaries(
        {
            "worksheets": st.lists(
                st.one_of(JSON, st.fixed_dictionaries({"cells": st.lists(CELL, max_size=3)})), max_size=2
            )
        }
    ),
)


def read_everything(essai: Assignment, data: bytes) -> None:
    """Ce que la correction fait d'une copie avant de l'exécuter, et ce qui doit en être vrai."""
    nb = open_data(data, essai)
    assert [claimed(c) for c in nb.cells if claimed(c)].count("test_spread") == 1
    assert {claimed(c) for c in nb.cells} - {""} == {c.grade_id for c in essai.template.graded}
    todo = plan(nb, essai.template)
    assert {c.exercise for c in todo.cells if c.kind == "solution"} == set(todo.answers)
    text = nbformat.writes(nb)
    text.encode()
    nbformat.validate(nb)
    assert "text/html" not in text


@fuzz(EXAMPLES)
@given(NOTEBOOK)
def test_any_json_is_read_or_refused(essai, tree):
    read_everything(essai, json.dumps(tree).encode())


@fuzz(EXAMPLES)
@given(st.lists(CELL, max_size=4), st.randoms(use_true_random=False))
def test_an_honest_notebook_with_anything_in_it(essai, cells, rng):
    tree = json.loads(as_bytes(filled(essai.template, SOLVED)))
    for cell in cells:
        tree["cells"].insert(rng.randrange(len(tree["cells"]) + 1), cell)
    if tree["cells"] and rng.random() < 0.5:
        victim = rng.choice([c for c in tree["cells"] if isinstance(c, dict)])
        victim[rng.choice(["source", "metadata", "cell_type", "outputs"])] = rng.choice([None, 3, [], {}, "x", [[]]])
    read_everything(essai, json.dumps(tree).encode())


@fuzz(EXAMPLES)
@given(st.data())
def test_an_honest_file_with_damaged_bytes(essai, data):
    octets = bytearray(as_bytes(filled(essai.template, SOLVED)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(octets)))
        octets[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=12))
    read_everything(essai, bytes(octets))


@fuzz(500)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda t: t.encode("utf-16"))))
def test_any_bytes_are_read_or_refused(essai, data):
    read_everything(essai, data)


@fuzz(500)
@given(st.text(alphabet="<>![]()\\:&;#/ \nahref jvscript.x{}\"'=-", max_size=60))
def test_harmless_text_is_harmless_and_stays_so(text):
    clean = harmless(text)
    assert harmless(clean) == clean and clean.replace(" ", "") == text.replace(" ", "")
    for at, letter in enumerate(clean[:-1]):
        assert not (letter == "<" and (clean[at + 1].isalpha() or clean[at + 1] in "/!?"))
    assert "](javascript" not in clean and "![" not in clean


@fuzz(300)
@given(JSON)
def test_counting_values_never_undercounts_much(tree):
    def values(v) -> int:
        inner = v.values() if isinstance(v, dict) else v if isinstance(v, list) else ()
        return 1 + sum(map(values, inner))

    assert count_values(json.dumps([tree] * 3)) >= values([tree] * 3)


# --- du temps linéaire ------------------------------------------------------------------------------------------------


def seconds(work: Callable[[str], object], text: str) -> float:
    """Le temps de calcul le plus court de cinq essais."""
    found = []
    gc.disable()  # le ramasse-miettes parcourt aussi tout ce que les autres essais ont laissé
    try:
        for _ in range(5):
            definitions.cache_clear()
            start = time.process_time()
            work(text)
            found.append(time.process_time() - start)
    finally:
        gc.enable()
    return min(found)


def refused(text: str) -> None:
    with contextlib.suppress(Unreadable):
        read_notebook(text.encode())


OPEN = '{"cells": [{"cell_type": "code", "source": "'
WORKS: dict[str, tuple[Callable[[str], object], tuple[str, ...]]] = {
    "lire": (
        refused,
        (OPEN + '@\\"', OPEN + "@\\\\", '{"cells": [@"a",', "[@[],", '@{"a":', OPEN + '"@"', "@\\u0041", '{"a": "@é'),
    ),
    "compter": (count_values, ('"@\\"', '@"\\', '@"', "@\\", "@[")),
    "définitions": (
        definitions,
        (
            "f'@{a}",
            "@a;",
            "@def ",
            "@def \n",
            "def @ ",
            "@async ",
            "@(",
            "@a.",
            "@a,",
            "a@ ",
            "@a:",
            "@import ",
            "@'\\",
            "@not ",
            "@[],",
            "@'a",
        ),
    ),
    "ressemblances": (lambda text: words(text), ("@'\\", '"""@"', "@\\'", "@# ", "@a.", "@1.", "'@\\\n", "@''")),
    "texte": (harmless, ("@](", "](@ ", "](@a", "@](a", "@<a", "@![", "@\\href", "@]:", "](@a/.")),
    "montrer": (shown, ("@\n", "@\u0301", "@\u202e", "@a", "@/root")),
    "couper": (shortened, ("@a.", "@\n", "@a\n")),
}
SHAPES = [(name, shape) for name, (_, shapes) in WORKS.items() for shape in shapes]


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_time_grows_like_the_text(name, shape):
    """Huit fois plus long prend huit fois plus de temps, pas soixante-quatre. L'arobase : ce qui est répété.

    Un texte court peut être refusé dès ses premiers signes, un long être lu autrement (sans ses sorties) : alors, deux
    fois plus long que le long ne doit pas prendre quatre fois plus de temps.
    """
    work = WORKS[name][0]
    before, _, again = shape.partition("@")

    def cost(size: int) -> float:
        return max(seconds(work, before + again * (size // len(again))), 0.001)

    size = 50_000
    while (small := cost(size)) < 0.004 and size < 400_000:
        size *= 4
    found = []
    for _ in range(3):  # sur une machine très chargée, même le temps de calcul s'étire
        long = cost(8 * size)
        if long < 24 * small or cost(16 * size) < 3 * long:
            return
        found.append(long / small)
        small = max(small, cost(size))
    pytest.fail(f"huit fois plus long prend {min(found):.0f} fois plus de temps")


def test_an_honest_figure_is_read_whole_and_refused_cut():
    figure = {"application/vnd.plotly.v1+json": {"data": [{"y": [i / 7 for i in range(700_000)], "name": 'a "b"'}]}}
    output = {"output_type": "display_data", "data": figure | {"text/plain": "Figure"}, "metadata": {}}
    data = json.dumps(
        {"cells": [{"cell_type": "code", "source": "x = 1", "metadata": {}, "outputs": [output]}]}
    ).encode()
    (cell,) = read_notebook(data).cells
    assert cell.source == "x = 1" and cell.outputs[0].data == {"text/plain": "Figure"}
    with pytest.raises(Unreadable, match="coupé"):
        read_notebook(data[: len(data) * 9 // 10])


@pytest.mark.parametrize("many", ["{},", "[],", '{"a":0},', '"a",'])
def test_a_file_that_would_fill_memory_is_refused_before_it_is_read(many, monkeypatch):
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("lu"))
    monkeypatch.setattr(submission, "MAX_TREE", 6_000_000)
    text = '{"cells": [' + many * 200_000 + "0]}"
    with pytest.raises(Unreadable, match="trop de valeurs"):
        read_notebook(text.encode())


# --- ce qui est montré ------------------------------------------------------------------------------------------------

NASTY = (
    "Erreur\n✔ spread\u00a0: 3 / 3\r\n\x1b[2J\x1b[32m\u202e\u200b\u2066\x85\u2028\u3164"
    + "\u0301" * 40
    + f" {sys.prefix}/x"
)


def clean(text: str) -> None:
    """Rien de ce qu'une copie peut vouloir dire de plus que des mots sur une ligne."""
    assert not set(text) & set("\r\x1b\u202e\u200b\u2066\x85\u2028\u3164\0")
    assert "\u0301" * 4 not in text and sys.prefix not in text
    assert not [line for line in text.split("\n") if line.lstrip().startswith("✔ spread\u00a0: 3")]


ENTRIES: dict[str, dict] = {
    "erreur": {"status": "raised", "error": NASTY, "mro": [NASTY], "message": NASTY, "where": NASTY, "printed": NASTY},
    "à faire": {"status": "todo", "message": NASTY, "printed": NASTY},
    "intransportable": {"status": "untransportable", "message": NASTY, "printed": NASTY},
    "texte": {"status": "value", "value": NASTY, "modified": [NASTY], "printed": NASTY},
    "clé": {"status": "value", "value": {NASTY: NASTY}, "modified": [], "printed": NASTY},
    "liste": {"status": "value", "value": [NASTY, [NASTY]], "modified": [], "printed": NASTY},
}


@pytest.mark.parametrize("name", ENTRIES)
def test_what_a_copy_says_never_stages_its_feedback(essai, name):
    outcome = read_outcome(dumps(ENTRIES[name]))
    drawn = next(d for d in draw(essai.chapter, 3) if d.id == "spread")
    report = Report({"a": CellReport()}, {"spread": TaskReport("done", [outcome] * len(drawn.cases))})
    answer = answer_of("spread", [CodeCell("a", NASTY, "solution", "spread")], report, {})
    result = judge(drawn, answer, 3.0)
    assert result.score == 0 and "\n" not in result.message
    clean(result.message)
    clean(result.feedback)
    assert not [line for line in result.feedback.split("\n")[1:] if line[:1] not in (" ", "")]


def test_what_a_cell_says_never_stages_its_feedback(essai):
    passed = {"status": "raised", "error": NASTY, "message": NASTY, "line": 1, "lost": [NASTY, "spread", "é" * 99]}
    said = dumps({"event": "cell", "cell": "a", "passed": [passed] * 9})
    drawn = next(d for d in draw(essai.chapter, 3) if d.id == "spread")
    report = Report({"a": cell_report(loads(said))}, {"spread": TaskReport("undefined", [])})
    answer = answer_of("spread", [CodeCell("a", NASTY, "solution", "spread")], report, {})
    result = judge(drawn, answer, 3.0)
    for text in answer.telling.copy({"spread": "correct"}):
        clean(text)
    assert result.verdict == "error" and "\n" not in result.message
    clean(result.message)
    clean(result.feedback)


def test_the_reason_of_a_refusal_written_in_a_copy_is_cleaned(essai):
    blank = essai.template.blank()
    blank.metadata["atelier_refus"] = NASTY
    clean(open_data(as_bytes(blank), essai).metadata["atelier"]["refused"])


@fuzz(500)
@given(st.text(max_size=80))
def test_legible_text_is_one_line_and_stays_so(text):
    once = legible(text)
    assert legible(once) == once and len(once.splitlines()) <= 1
    assert all(c.isprintable() or c in "\u00a0\u202f\u2009\ufffd" for c in once)
