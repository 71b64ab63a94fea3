"""Le filet du côté sûr : temps, mémoire, mort d'un processus. Une copie y est refusée par son nom, pas les autres."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from essai import NAME, SOLVED, as_bytes, filled

from grader.classroom.course import Course, prepare
from grader.classroom.marking import Marked, mark
from grader.classroom.nbglue import assignment, open_apart
from grader.classroom.submission import KEY
from grader.jail.outside import apart as limits
from grader.jail.outside.apart import Died, Exceeded, apart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="les limites sont celles du noyau Linux")

ENDLESS = (re.fullmatch, r"(a+)+", "a" * 64 + "b")
"""Un appel sans fin, en C, qui ne rend jamais la main à Python."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CPU_SECONDS", 2.0)


def worker_pid() -> int:
    return apart(os.getpid)


# ── Un appel ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_is_answered_by_a_process_that_is_kept():
    first = worker_pid()
    assert first != os.getpid() and worker_pid() == first
    with pytest.raises(ZeroDivisionError):
        apart(divmod, 1, 0)
    assert worker_pid() == first


def test_a_call_that_never_ends_is_stopped_by_its_name_and_the_process_replaced():
    first = worker_pid()
    with pytest.raises(Exceeded, match="secondes de calcul"):
        apart(*ENDLESS)
    assert not psutil.pid_exists(first) and worker_pid() != first


def test_a_call_that_waits_is_stopped_too(monkeypatch):
    monkeypatch.setattr(limits, "WALL_SECONDS", 0.5)
    with pytest.raises(Exceeded):
        apart(time.sleep, 3600)
    monkeypatch.undo()
    assert worker_pid()


@pytest.mark.parametrize("more", [(bytearray, 8 << 30), (list, range(400_000_000)), ("[[]]".__mul__, 1 << 31)])
def test_a_call_that_fills_memory_is_stopped_before_the_machine_is(more):
    with pytest.raises(Exceeded, match="mémoire"):
        apart(*more)
    assert len(apart(bytearray, 64 << 20)) == 64 << 20


def test_a_death_is_asked_again_and_only_believed_when_it_repeats(tmp_path):
    die = "import os; os.kill(os.getpid(), 9)"
    once = f"import pathlib\np = pathlib.Path({str(tmp_path / 'vu')!r})\nif not p.exists():\n    p.touch()\n    {die}"
    apart(exec, once)
    assert (tmp_path / "vu").exists()
    with pytest.raises(Died, match="3 fois"):
        apart(exec, die)


def test_what_a_process_launches_does_not_inherit_its_memory_limit():
    ask = "import resource, sys; print(resource.getrlimit(resource.RLIMIT_AS)[0])"
    code = f"""
import os, resource, subprocess, sys
from grader.jail.outside.apart import lifted
inside = resource.getrlimit(resource.RLIMIT_AS)[0]
with lifted():
    said = subprocess.run([sys.executable, "-c", {ask!r}], capture_output=True, text=True).stdout
raise ValueError(inside, int(said), resource.getrlimit(resource.RLIMIT_AS)[0])
"""
    import resource

    with pytest.raises(ValueError) as raised:
        apart(exec, code)
    inside, child, after = raised.value.args
    assert child == resource.getrlimit(resource.RLIMIT_AS)[0] and after == inside != child


# ── Qui l'a lancé meurt ──────────────────────────────────────────────────────────────────────────────────────────────

PARENT = """
import re, sys, threading, time
from grader.jail.outside.apart import hire
if __name__ == "__main__":
    worker = hire()
    worker.start(re.fullmatch, "(a+)+", "a" * 64 + "b")
    print(worker.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_busy_process_does_not_outlive_its_parent(tmp_path, number):
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pid = int(parent.stdout.readline())
        children = psutil.Process(parent.pid).children(recursive=True)
        assert pid in [child.pid for child in children]
        parent.send_signal(number)
    gone, alive = psutil.wait_procs(
        children, timeout=120
    )  # finir prend deux secondes de calcul, bien plus sur une machine chargée
    assert not alive


# ── Un devoir ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def course(root: Path, tmp_path: Path) -> Course:
    """Deux copies justes, et une dont la lecture prend des centaines de Mio : une figure démesurée."""
    folder = tmp_path / "cours"
    prepare(folder)
    given = Course(folder)
    solved = filled(assignment(NAME).template, SOLVED)
    big = json.loads(as_bytes(solved))
    data = {"application/vnd.plotly.v1+json": {"data": [[i + 0.5 for i in range(2_000_000)]]}}
    figure = {"output_type": "display_data", "data": data, "metadata": {}}
    big["cells"].append({"cell_type": "code", "source": "figure", "metadata": {}, "outputs": [figure]})
    for student, tree in {"ada": solved, "bob": big, "eve": solved}.items():
        path = given.path("submitted", student, NAME) / f"{NAME}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(json.dumps(tree).encode())
    return given


def totals(marked: Marked) -> dict[str, float]:
    return {student: sum(r.score for r in results) for student, results in marked.results.items()}


@pytest.mark.parametrize("count", [1, 2])
def test_a_copy_too_big_is_refused_by_name_and_the_others_are_graded(course, monkeypatch, count):
    monkeypatch.setattr(limits, "CPU_SECONDS", 60.0)
    assert totals(mark(course, NAME, count, seed=1)) == {"ada": 6.0, "bob": 6.0, "eve": 6.0}
    monkeypatch.setattr(limits, "MEMORY_BYTES", 40 << 20)
    marked = mark(course, NAME, count, seed=1)
    assert totals(marked) == {"ada": 6.0, "bob": 0.0, "eve": 6.0} and not marked.unsaved
    assert marked.refused == ["bob"] and "mémoire" in marked.remarks["bob"][-1]
    assert all("mémoire" in r.message for r in marked.results["bob"])


def test_nbgrader_typed_by_hand_is_under_the_same_limits(course, monkeypatch):
    path = course.path("submitted", "bob", NAME) / f"{NAME}.ipynb"
    monkeypatch.setattr(limits, "MEMORY_BYTES", 40 << 20)
    assert "mémoire" in open_apart(path, assignment(NAME)).metadata[KEY]["refused"]
    assert course.autograde(NAME, "bob") == ""
    with course.gradebook() as book:
        assert book.find_submission(NAME, "bob").score == 0.0
