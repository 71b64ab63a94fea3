"""Le processus des copies, qui survit à tout, et dont rien n'est cru."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.judging.codec import dumps
from grader import retries
from grader.jail.outside.dialogue import CodeCell, Task, read_outcome
from grader.jail.outside.sandbox import Sandbox

LINUX = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="regarde dans /proc, absent de ce système")

HONEST = "def h(x):\n    return x * 2\n"
INPUTS = [{"x": torch.ones(3)}, {"x": torch.zeros(2)}]
HOSTILE = {
    "exit": "import os\ndef f(x):\n    os._exit(0)",
    "exit in cell": "import os\nos._exit(0)",
    "segfault": "import ctypes\ndef f(x):\n    ctypes.string_at(0)",
    "sys.exit": "import sys\ndef f(x):\n    sys.exit(0)",
    "swallows interruptions": (
        "def f(x):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass"
    ),
    "memory": "def f(x):\n    return bytearray(10**12)",
    "prints": "def f(x):\n    for _ in range(200): print('a' * 10**6)\n    return 3",
    "writes everywhere": (
        "import os\ndef f(x):\n    for fd in range(64):\n"
        "        try: os.write(fd, b'\\xff' * 10000)\n        except OSError: pass\n    return 3"
    ),
    "writes everywhere in cell": (
        "import os\nfor fd in range(64):\n    try: os.write(fd, b'\\xff' * 10000)\n    except OSError: pass"
    ),
    "default dtype and patched torch": (
        "import torch\ndef f(x):\n    torch.set_default_dtype(torch.float64)\n"
        "    torch.Tensor.__mul__ = None\n    return 3"
    ),
    "raises from a lying exception": (
        "class E(Exception):\n    def __str__(self): raise RuntimeError\ndef f(x):\n    raise E"
    ),
    "answers a generator": "def f(x):\n    yield 1",
    "answers something huge": "import torch\ndef f(x):\n    return torch.zeros(20_000_000)",
    "signals its parent": "import os, signal\ndef f(x):\n    os.kill(os.getppid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_exercise_costs_only_itself(sandbox, attack, shared):
    cells = [CodeCell("a", HONEST, "solution", "h"), CodeCell("b", HOSTILE[attack], "solution", "f"),
             CodeCell("c", HONEST.replace("def h", "def g"), "solution", "g")]  # fmt: skip
    tasks = [Task(name, "call", 1.0, INPUTS) for name in ("h", "f", "g")]
    report = sandbox.run(cells, tasks, shared)
    for name in ("h", "g"):
        assert report.tasks[name].status == "done"
        assert [torch.equal(o["value"], i["x"] * 2) for o, i in zip(report.tasks[name].outcomes, INPUTS, strict=True)]
        assert all(o["value"].dtype == torch.float32 for o in report.tasks[name].outcomes)
    assert len(report.tasks["f"].outcomes) == len(INPUTS)


WHERE = "import os\ndef {name}(x):\n    {before}\n    return os.getpid()\n"
TRACES = {
    "thread": "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()",
    "child": "os.fork() or os._exit(0)",
    "descriptor": "os.dup(1)",
    "patched torch": "import torch; torch.Tensor.__mul__ = None",
    "float32 precision": "import torch; torch.set_float32_matmul_precision('medium')",
    "folder": "os.chdir('/')",
    "numpy errors": "import numpy; numpy.seterr(all='raise')",
    "memory": "import mmap; globals()['kept'] = mmap.mmap(-1, 1 << 28)",
}


def pids(sandbox: Sandbox, before: str, alone: list[bool], shared: bool = True, cell: str = "") -> set[int]:
    """Les processus de trois exercices, le premier faisant aussi `before`, après cette cellule.

    alone : lesquels doivent être dits seuls dans le leur.
    """
    texts = {"f": before, "g": "pass", "h": "pass"}
    cells = [CodeCell("avant", cell, "extra")]
    cells += [CodeCell(n, WHERE.format(name=n, before=text), "solution", n) for n, text in texts.items()]
    report = sandbox.run(cells, [Task(n, "call", 1.0, INPUTS) for n in texts], shared)
    assert {t.status for t in report.tasks.values()} == {"done"}
    assert [report.tasks[n].alone for n in texts] == alone
    return {report.tasks[n].outcomes[0]["value"] for n in texts}


def test_exercises_share_a_process_only_when_asked(sandbox):
    assert len(pids(sandbox, "pass", [False] * 3)) == 1
    assert len(pids(sandbox, "pass", [True] * 3, shared=False)) == 3


@LINUX
@pytest.mark.parametrize("trace", TRACES)
def test_a_trace_ends_the_sharing(sandbox, trace):
    assert len(pids(sandbox, TRACES[trace], [False, True, True])) == 3


@LINUX
@pytest.mark.parametrize("trace", ["thread", "child"])
def test_nothing_is_shared_with_what_a_cell_left_running(sandbox, trace):
    """Ni fil ni enfant dans les processus des exercices, chacun neuf."""
    assert len(pids(sandbox, "pass", [True] * 3, cell=f"import os\n{TRACES[trace]}")) == 3


def test_many_hanging_cells_end_after_a_bounded_number_of_launches(sandbox, monkeypatch):
    launches, launch = [], sandbox._launch
    monkeypatch.setattr(sandbox, "_launch", lambda folder: launches.append(folder) or launch(folder))
    hang = "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    cells = [CodeCell(f"e{i}", "import os\nos._exit(1)", "extra") for i in range(6)]
    cells += [CodeCell("s", hang, "solution", "f"), CodeCell("a", HONEST, "solution", "h")]
    report = sandbox.run(cells, [Task("h", "call", 1.0, INPUTS), Task("f", "call", 1.0, INPUTS)])
    assert report.tasks["h"].status == "done"
    assert report.cells["s"].status == "timeout" and report.tasks["f"].status == "undefined"
    assert 1 < len(launches) <= retries.COPY.tries


LOOK = """
import os, sys, importlib.util
def f(x):
    def here(name):
        try:
            return importlib.util.find_spec(name) is not None
        except ValueError:
            return True
    from atelier import paths
    return {
        "grader": here("grader"), "solutions": here("solutions"),
        "secret": "COURS_SECRET" in os.environ, "home": os.path.expanduser("~") == os.getcwd(),
        "files": os.listdir("."), "packs": os.path.exists(paths.asset("packs")),
        "stdin": sys.stdin.read(), "descriptors": len(os.listdir("/proc/self/fd")),
    }
"""


@LINUX
def test_the_process_holds_no_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("COURS_SECRET", "42")
    with Sandbox() as box:
        seen = (
            box.run([CodeCell("a", LOOK, "solution", "f")], [Task("f", "call", 2.0, INPUTS[:1])]).tasks["f"].outcomes[0]
        )
    value = seen["value"]
    assert not (value["grader"] or value["solutions"] or value["secret"] or value["packs"])
    assert value["home"] and value["files"] == [] and value["stdin"] == ""
    assert value["descriptors"] <= 6  # 0, 1, 2, stdin relu, le tuyau de l'exercice, /proc/self/fd lui-même


@LINUX
def test_files_and_processes_left_behind_disappear(sandbox):
    leave = (
        "import os, subprocess, sys\nopen('trace', 'w').write('x')\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(61.25)'])\n"
        "def f(x):\n    return os.listdir('.')"
    )
    tasks = [Task("f", "call", 5.0, INPUTS[:1])]
    report = sandbox.run([CodeCell("a", leave, "solution", "f")], tasks)
    assert report.tasks["f"].outcomes[0]["value"] == ["trace"]
    deadline = time.monotonic() + 10
    while running("time.sleep(61.25)") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running("time.sleep(61.25)")
    look = "import os\ndef f(x):\n    return os.listdir('.')"
    report = sandbox.run([CodeCell("a", look, "solution", "f")], tasks)
    assert report.tasks["f"].outcomes[0]["value"] == []


def running(text: str) -> bool:
    """Vrai si un processus de cette machine a ce texte dans sa commande."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False


def test_a_poisoned_library_is_replaced_when_the_warm_process_restarts(sandbox):
    poison = (
        "import atelier, pathlib\n"
        "(pathlib.Path(atelier.__file__).parent / 'judging' / 'probes.py').write_text('raise SystemExit')\n"
        "def h(x):\n    return x * 2"
    )
    tasks = [Task("h", "call", 2.0, INPUTS)]
    sandbox.run([CodeCell("a", poison, "solution", "h")], tasks)
    os.kill(sandbox._server.pid, signal.SIGKILL)
    assert sandbox.run([CodeCell("a", HONEST, "solution", "h")], tasks).tasks["h"].status == "done"


def test_the_warm_process_is_restarted_if_it_dies(sandbox):
    cells, tasks = [CodeCell("a", HONEST, "solution", "h")], [Task("h", "call", 1.0, INPUTS)]
    assert sandbox.run(cells, tasks).tasks["h"].status == "done"
    os.kill(sandbox._server.pid, signal.SIGKILL)
    assert sandbox.run(cells, tasks).tasks["h"].status == "done"


def test_without_fork_a_plain_process_gives_the_same_answers():
    cells = [CodeCell("a", HONEST, "solution", "h"), CodeCell("b", "def f(x):\n    while True: pass", "solution", "f")]
    with Sandbox(sealed=False, fork=False) as box:
        report = box.run(cells, [Task("h", "call", 1.0, INPUTS), Task("f", "call", 1.0, INPUTS)])
    assert report.tasks["h"].status == "done"
    assert {o["status"] for o in report.tasks["f"].outcomes} == {"timeout"}


# --- rien de ce qui vient du processus n'est cru ----------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_never_an_outcome(data):
    assert read_outcome(data)["status"] == "untransportable"


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["status", "value", "modified", "error", "mro", "message", "printed"]), JSONISH))
def test_any_transported_value_is_read_as_a_well_formed_outcome(outcome):
    read = read_outcome(dumps(outcome))
    assert read["status"] in ("value", "raised", "todo", "untransportable", "timeout")
    assert isinstance(read.get("message", ""), str) and isinstance(read.get("printed", ""), str)
    if read["status"] == "raised":
        assert isinstance(read["error"], str) and all(isinstance(n, str) for n in read["mro"])
