"""Des milliers de messages que personne n'écrirait : un message devient un compte rendu, ou rien.

Toute autre exception est un défaut.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import socket
import struct
import threading
import time
import tracemalloc

import pytest
import torch
from fuzzing import EXAMPLES, LEAF, fuzz
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.judging.codec import CodecError, dumps, loads
from atelier.judging.compare import compare
from atelier.judging.diagnose import diagnose
from atelier.judging.writing import describe
from atelier.text import legible
from grader.jail.inside import framing
from grader.jail.outside import dialogue
from grader.jail.outside.dialogue import Broken, CodeCell, PipeStream, Report, Stream, Task, follow, read_outcome

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


def test_a_small_json_cannot_become_a_big_value():
    bomb = message({"$": "dict", "v": {"status": "value", "value": [[]] * 3_000_000, "modified": []}})
    assert read_outcome(bomb)["status"] == "untransportable"
    names = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(40_000)}
    head = json.dumps(names).encode()
    assert read_outcome(message([], struct.pack("<Q", len(head)) + head))["status"] == "untransportable"
