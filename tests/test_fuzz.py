"""Des milliers de carnets et de messages que personne n'écrirait : le côté sûr ne tombe jamais et reste borné.

Un carnet devient un carnet propre et un plan, ou `Unreadable` ; un message devient un compte rendu. Toute autre
exception est un défaut.
"""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import json
import math
import socket
import struct
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import torch
from essai import SOLVED, as_bytes, filled, load_assignment, write_course
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atelier.judging.codec import CodecError, count_values, dumps, loads
from atelier.judging.compare import compare
from atelier.judging.diagnose import diagnose
from atelier.judging.writing import describe
from atelier.text import legible
from grader.classroom import submission
from grader.classroom.display import harmless, shortened
from grader.classroom.grading import answer_of, draw, judge
from grader.classroom.nbglue import Assignment, open_data
from grader.classroom.submission import Unreadable, claimed, definitions, plan, read_notebook
from grader.jail.inside import framing
from grader.jail.outside import dialogue
from grader.jail.outside.dialogue import (
    Broken,
    CellReport,
    CodeCell,
    PipeStream,
    Report,
    Stream,
    Task,
    TaskReport,
    cell_report,
    follow,
    read_outcome,
    shown,
)
from grader.report.similarity import words

EXAMPLES = 1000


def fuzz(examples: int):
    """Réglages communs : toujours les mêmes cas, pour qu'un échec se rejoue."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=quiet)


@pytest.fixture(scope="module")
def essai(tmp_path_factory: pytest.TempPathFactory) -> Assignment:
    return load_assignment(write_course(Path(tmp_path_factory.mktemp("essai"))))


# --- des carnets ------------------------------------------------------------------------------------------------------

IDS = ["spread", "test_spread", "scale_up", "count_true", "inconnu", "ѕpread", "a b", "", "x" * 70]
TEXT = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [*SOLVED.values(), "def spread(x):\n    return x", "spread = 3", "%%bash\nls", "def spread(", "\0"]
    ),
    st.sampled_from(["<script>", "[x](javascript:a)", "\ud800", "$$\\href{a}{b}$$", "((((" * 50, "é" * 40, "\r\n\r\n"]),
)
LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.sampled_from(IDS))
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


# --- des messages -----------------------------------------------------------------------------------------------------

FIELDS = ["status", "value", "modified", "error", "mro", "message", "printed", "where", "event", "cell", "exercise"]
WORDS = st.sampled_from(["value", "raised", "todo", "timeout", "untransportable", "start", "cell", "exercise", "case"])
SMALL = st.sampled_from(
    [
        torch.zeros(2),
        torch.ones(2, 3),
        torch.tensor(True),
        torch.tensor([float("nan")]),
        torch.zeros(0, 4),
        torch.arange(3),
    ]
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS | SMALL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=8,
)
NODE = st.recursive(
    LEAF | st.sampled_from(["t0", "nan", "0x10", "dict", "tuple"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries({"$": st.sampled_from(["int", "float", "tensor", "tuple", "dict", "x"]), "v": inner})
        | st.fixed_dictionaries(
            {"$": st.just("dict"), "v": st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)}
        )
    ),
    max_leaves=8,
)


def message(tree: object, tail: bytes = b"") -> bytes:
    head = json.dumps(tree).encode()
    return struct.pack("<Q", len(head)) + head + tail


def heard(outcome: dict) -> None:
    """Ce qu'un résultat relu garantit à la comparaison et au retour."""
    assert outcome["status"] in ("value", "raised", "todo", "untransportable", "timeout")
    for expected in ({"status": "value", "value": torch.zeros(2), "modified": []}, {"status": "raised", "error": "E"}):
        verdict = compare(expected, outcome, {"x": torch.ones(2)})
        verdict.message.encode()
        assert len(verdict.message) < 5000
    diagnose([], {})
    text = describe(outcome.get("value"))
    assert len(text) <= 400 and "\n" not in text


@fuzz(EXAMPLES)
@given(NODE, st.binary(max_size=40))
def test_any_tree_is_an_outcome_or_untransportable(tree, tail):
    heard(read_outcome(message(tree, tail)))


@fuzz(EXAMPLES)
@given(VALUE, st.data())
def test_a_true_message_with_damaged_bytes(value, data):
    octets = bytearray(dumps({"status": "value", "value": value, "modified": []}))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(octets)))
        octets[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    heard(read_outcome(bytes(octets)))


@fuzz(500)
@given(st.binary(max_size=120))
def test_random_bytes_are_a_codec_error(data):
    try:
        loads(data)
    except CodecError:
        pass


TASKS = [Task("f", "call", 0.05, [{"x": 1}, {"x": 2}]), Task("g", "call", 0.05, [{"x": 1}])]
CELLS = [CodeCell("a", "", "extra"), CodeCell("b", "", "solution", "f")]
RIGHT: list[dict | None] = [
    {"event": "start", "cell": "a"},
    {"event": "step", "cell": "a", "line": 1},
    {"event": "cell", "cell": "a", "passed": []},
    {"event": "start", "cell": "b"},
    {
        "event": "cell",
        "cell": "b",
        "passed": [{"status": "raised", "error": "E", "message": "\x1b[1m", "line": -3, "lost": ["x", "a b", 3]}],
    },
    {"event": "exercise", "exercise": "f", "defined": True, "cell": "b", "left": "gone", "differs": True},
    {"status": "value", "value": 1, "modified": []},
    {"status": "todo", "message": ""},
    None,  # un message vide
    {"event": "exercise_end", "exercise": "f", "status": "done"},
    {"event": "exercise", "exercise": "g", "defined": False},
    None,
    {"event": "exercise_end", "exercise": "g", "status": "undefined"},
]


def heard_on_socket(flow: bytes) -> Stream:
    ours, theirs = socket.socketpair()

    def speak() -> None:
        with theirs, contextlib.suppress(OSError):
            theirs.sendall(flow)

    threading.Thread(target=speak, daemon=True).start()
    return Stream(ours)


def heard_on_pipe(flow: bytes) -> Stream:
    return PipeStream(io.BytesIO(flow))


@fuzz(EXAMPLES)
@given(st.data())
def test_any_conversation_ends_in_a_report(data):
    """Une vraie conversation, où des messages manquent, se répètent, changent de place, ou sont remplacés."""
    said: list[bytes] = [dumps(m) if m else b"" for m in RIGHT]
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(said)))
        new = data.draw(
            st.one_of(
                st.sampled_from(said or [b""]),
                VALUE.map(lambda v: dumps({"event": "exercise_end", "exercise": "f", "status": v})),
                NODE.map(message),
                st.binary(max_size=20),
            )
        )
        said[at : at + data.draw(st.integers(0, 2))] = [new] * data.draw(st.integers(0, 2))
    flow = b"".join(struct.pack("<Q", len(body)) + body for body in said)
    flow = flow[: data.draw(st.integers(0, len(flow)))] if data.draw(st.booleans()) else flow
    report = Report()
    flow += data.draw(st.sampled_from([b"", b"\xff" * 8, b"\0" * 64]))
    stream = data.draw(st.sampled_from([heard_on_socket, heard_on_pipe]))(flow)
    finished = follow(stream, CELLS, TASKS, report)
    stream.close()
    assert set(report.cells) <= {"a", "b"} and set(report.tasks) <= {"f", "g"}
    assert not finished or set(report.tasks) == {"f", "g"}
    for task in TASKS:
        if task.id in report.tasks:
            found = report.tasks[task.id]
            assert found.status in ("done", "undefined", "timeout", "died")
            assert len(found.outcomes) == len(task.cases)
            for outcome in found.outcomes:
                heard(outcome)
    for cell in report.cells.values():
        for passed in cell.passed:
            assert passed.status in ("raised", "timeout", "died") and legible(passed.message) == passed.message
            assert passed.line >= 0 and all(name.isidentifier() for name in passed.lost)


@settings(deadline=None)
@given(said=st.lists(st.binary(max_size=50)), cuts=st.lists(st.integers(0, 400)))
def test_messages_come_out_as_they_went_in_wherever_the_bytes_are_cut(said, cuts):
    flow = b"".join(map(framing.framed, said))
    assert flow == b"".join(struct.pack("<Q", len(body)) + body for body in said)
    frames, found = framing.Frames(50, math.inf), []
    for start, end in itertools.pairwise([0, *sorted(min(c, len(flow)) for c in cuts), len(flow)]):
        frames.feed(flow[start:end])
        while (body := frames.take()) is not None:
            found.append(body)
    assert found == said
    stream = io.BytesIO(flow)
    assert [framing.read(stream) for _ in said] == said
    for lost in range(1, len(flow[-20:]) + 1) if said else ():
        cut = io.BytesIO(flow[:-lost])
        with pytest.raises(EOFError):
            for _ in said:
                framing.read(cut)


@pytest.mark.parametrize("heard_on", [heard_on_socket, heard_on_pipe])
def test_a_flood_is_cut_before_it_fills_memory(heard_on, monkeypatch):
    monkeypatch.setattr(dialogue, "MAX_TOTAL_BYTES", 10_000)
    body = dumps({"event": "start", "cell": "a"})
    stream = heard_on((struct.pack("<Q", len(body)) + body) * 100_000)
    read = 0
    with pytest.raises(Broken, match="démesurées"):
        while True:
            read += len(stream.frame(time.monotonic() + 5))
    assert read <= 10_000 and len(stream.frames.buffer) <= 1 << 19
    stream.close()
    for size in (2**40, 2**63, dialogue.MAX_CASE_BYTES + 1):
        stream = heard_on(struct.pack("<Q", size) + b"x")
        with pytest.raises(Broken, match="démesurées"):
            stream.frame(time.monotonic() + 5)
        stream.close()


def test_silence_and_trickle_end_at_the_hour_said():
    ours, theirs = socket.socketpair()
    done = threading.Event()

    def trickle() -> None:
        with theirs, contextlib.suppress(OSError):
            for octet in struct.pack("<Q", 1000) + bytes(1000):
                theirs.send(bytes([octet]))
                if done.wait(0.05):
                    return

    speaker = threading.Thread(target=trickle)
    speaker.start()
    with pytest.raises(Broken) as broken:
        Stream(ours).frame(time.monotonic() + 1.0)
    assert broken.value.status == "timeout" and speaker.is_alive(), "la limite est tombée avant la fin du message"
    done.set()
    speaker.join()
    ours.close()
    ours, theirs = socket.socketpair()
    with theirs, ours, pytest.raises(Broken) as broken:
        Stream(ours, end=time.monotonic() + 0.2).frame(math.inf)
    assert broken.value.status == "timeout"


def tensor_table(names: dict, body: bytes = b"") -> bytes:
    head = json.dumps(names).encode()
    return struct.pack("<Q", len(head)) + head + body


U8 = {"t0": {"dtype": "U8", "shape": [1 << 20], "data_offsets": [0, 1 << 20]}}
BOMBS = {
    "listes": message([[]] * 1_300_000),
    "dictionnaires": message([{"$": "dict", "v": {}}] * 100_000),
    "clés": message({"$": "dict", "v": {str(i): 0 for i in range(100_000)}}),
    "nombres": message([0] * 100_000),
    "profond": struct.pack("<Q", 10**6) + b"[" * 10**6,
    "jamais refermé": struct.pack("<Q", 2 * 10**6 + 1) + b'"' + b'\\"' * 10**6,
    "entier": struct.pack("<Q", 10**6) + b"1" * 10**6,
    "entier en texte": message({"$": "int", "v": "f" * 10**6}),
    "même tenseur": message([{"$": "tensor", "v": "t0"}] * 15_000, tensor_table(U8, bytes(1 << 20))),
    "dimensions": message(
        {"$": "tensor", "v": "t0"},
        tensor_table({"t0": {"dtype": "F32", "shape": [1] * 300_000, "data_offsets": [0, 4]}}, bytes(4)),
    ),
    "vide immense": message(
        {"$": "tensor", "v": "t0", "strided": True},
        tensor_table({"t0": {"dtype": "F32", "shape": [0, 2**62, 4], "data_offsets": [0, 0]}}),
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_built(name):
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            loads(BOMBS[name])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(BOMBS[name]) + (16 << 20)
    assert read_outcome(BOMBS[name])["status"] == "untransportable"


def test_an_answer_is_counted_where_it_is_written_too():
    with pytest.raises(CodecError, match="valeurs"):
        dumps([[]] * 1_300_000)
    assert loads(dumps([0] * 10_000)) == [0] * 10_000


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
    result = judge(essai.chapter, drawn, answer, 3.0)
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
    result = judge(essai.chapter, drawn, answer, 3.0)
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


def test_a_small_json_cannot_become_a_big_value():
    bomb = message({"$": "dict", "v": {"status": "value", "value": [[]] * 3_000_000, "modified": []}})
    assert read_outcome(bomb)["status"] == "untransportable"
    names = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(40_000)}
    head = json.dumps(names).encode()
    assert read_outcome(message([], struct.pack("<Q", len(head)) + head))["status"] == "untransportable"
