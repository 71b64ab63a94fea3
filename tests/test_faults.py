"""Pannes : processus tués, disque plein, base verrouillée ou partie. Rien n'est perdu, rien n'est fait deux fois."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from essai import NAME, SOLVED, as_bytes, filled, results_in

from grader import retries
from grader.classroom.cluster import Cluster
from grader.classroom.course import Course, prepare
from grader.classroom.ledger import RecordError
from grader.classroom.marking import Marked, mark
from grader.classroom.nbglue import assignment
from grader.classroom.record import Recorder

COPIES = 8
SLOW = SOLVED | {"spread": "import time\ndef spread(x):\n    time.sleep(0.1)\n    return x.max() - x.min()"}


@pytest.fixture
def course(root: Path, tmp_path: Path) -> Course:
    """Un cours et huit copies justes, un peu lentes pour que les pannes tombent pendant la correction."""
    folder = tmp_path / "cours"
    prepare(folder)
    given = Course(folder)
    data = as_bytes(filled(assignment(NAME).template, SLOW))
    for i in range(COPIES):
        path = given.path("submitted", f"e-{i}", NAME) / f"{NAME}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    return given


def graded(course: Course) -> list[Path]:
    return sorted((course.folder / "autograded").rglob(f"{NAME}.ipynb"))


def seeds(course: Course) -> dict[str, list[str]]:
    return {path.parent.parent.name: [r.seed for r in results_in(path)] for path in graded(course)}


def check_complete(course: Course, marked: Marked) -> None:
    """Tout le monde a ses six points, une fois, dans le carnet comme dans la base ; aucun débris."""
    assert not marked.unsaved and len(marked.results) == COPIES
    assert {sum(r.score for r in results) for results in marked.results.values()} == {6.0}
    assert len(graded(course)) == COPIES and not list(course.folder.rglob("*.partiel"))
    with course.gradebook() as book:
        submissions = book.find_assignment(NAME).submissions
        assert sorted(s.student.id for s in submissions) == [f"e-{i}" for i in range(COPIES)]
        assert {s.score for s in submissions} == {6.0}
        assert {len(s.notebooks[0].grades) for s in submissions} == {3}


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Exécute `action` dans un autre fil pendant le bloc."""
    thread = threading.Thread(target=action)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "l'attente a dépassé sa limite"
        time.sleep(0.02)


def descendants(word: str, of: int | None = None) -> list[psutil.Process]:
    """Les processus nés d'ici dont la ligne de commande contient ce mot."""
    found = []
    for process in psutil.Process(of).children(recursive=True):
        try:
            if word in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


# ── Processus tués ───────────────────────────────────────────────────────────────────────────────────────────────────


def kill_some(course: Course, pick: Callable[[list[psutil.Process]], list[psutil.Process]]) -> Callable[[], None]:
    """Tue, à deux moments de la correction, des processus du bac à sable choisis par `pick`."""

    def kill() -> None:
        for count in (2, 5):
            until(lambda count=count: len(graded(course)) >= count)
            for process in pick(descendants("inside.runner")):
                try:
                    process.kill()
                except psutil.Error:
                    pass

    return kill


def test_the_process_of_a_copy_is_killed(course):
    with meanwhile(kill_some(course, lambda found: found[-2:])):
        check_complete(course, mark(course, NAME, 1))


def test_the_warm_process_is_killed(course):
    with meanwhile(kill_some(course, lambda found: found)):
        check_complete(course, mark(course, NAME, 1))


def command(course: Course, *arguments: str) -> list[str]:
    line = [sys.executable, "-m", "grader", "grade", NAME, "--course", str(course.folder)]
    return [*line, *arguments]


def test_the_grader_is_killed_in_the_middle_and_the_next_one_goes_on(course, root):
    first = subprocess.Popen(command(course, "--jobs", "2"), cwd=root, stdout=subprocess.DEVNULL)
    until(lambda: len(graded(course)) >= 3)
    born = psutil.Process(first.pid).children(recursive=True)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = seeds(course)
    assert 3 <= len(before) < COPIES
    marked = mark(course, NAME, 1)
    check_complete(course, marked)
    after = seeds(course)
    assert {student: after[student] for student in before} == before and sorted(marked.kept) == sorted(before)
    until(lambda: not [p for p in born if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], 30)


def test_killed_between_the_file_and_the_database(course, monkeypatch):
    class Stop(BaseException):
        pass

    def write_rows(self: Recorder, student: str, found: object) -> None:
        if student == "e-3":
            raise Stop
        original(self, student, found)

    original = Recorder.write_rows
    monkeypatch.setattr(Recorder, "write_rows", write_rows)
    with pytest.raises(Stop):
        mark(course, NAME, 1)
    monkeypatch.undo()
    before = seeds(course)
    assert sorted(before) == ["e-0", "e-1", "e-2", "e-3"]
    with course.gradebook() as book:
        assert len(book.find_assignment(NAME).submissions) == 3
    marked = mark(course, NAME, 1)
    check_complete(course, marked)
    assert sorted(marked.kept) == sorted(before) and {s: seeds(course)[s] for s in before} == before


def test_what_is_asked_again_waits_between_two_tries_and_ends(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(retries.time, "monotonic", lambda: sum(slept))
    monkeypatch.setattr(retries.time, "sleep", slept.append)
    assert list(retries.Retry((0.0, 0.5, 2.0))) == [0, 1, 2, 3] and slept == [0.0, 0.5, 2.0]
    slept.clear()
    assert list(retries.Retry((1.0, 2.0), seconds=6.5)) == [0, 1, 2, 3, 4] and slept == [1.0, 2.0, 2.0, 2.0]
    slept.clear()
    assert [slept.append(10.0) or n for n in retries.Retry((1.0, 2.0), seconds=6.5)] == [0], (
        "un essai plus long que tout"
    )


# ── Disque et base ───────────────────────────────────────────────────────────────────────────────────────────────────

FULL_DISK = """
cp -r "$1/." "$2"; cd "$3"
head -c 60M /dev/zero > "$2/bourrage" 2>/dev/null; truncate -s -40K "$2/bourrage"
"$4" -m grader grade "$5" --course "$2" --jobs 1 --unsealed > "$2.dit" 2>&1; echo "premier $?"
cat "$2.dit"; ls -A "$2"/autograded/*/*/ | grep -c partiel
rm "$2/bourrage"
"$4" -m grader grade "$5" --course "$2" --jobs 1 --unsealed 2>&1; echo "second $?"
"""


def test_a_full_disk(course, root, exige, tmp_path):
    bwrap = exige("bwrap")
    small = tmp_path / "petit"
    small.mkdir()
    seal = [bwrap, "--dev-bind", "/", "/", "--size", str(8 * 1024**2), "--tmpfs", str(small)]
    script = ["bash", "-c", FULL_DISK, "bash", str(course.folder), str(small), str(root), sys.executable, NAME]
    done = subprocess.run([*seal, *script], capture_output=True, text=True, timeout=200)
    first, _, second = done.stdout.partition("premier 2")
    assert second, done.stdout + done.stderr
    assert "place" in second and "Traceback" not in done.stdout
    assert f"{COPIES} copies" in second and "second 0" in second and f"juste × {3 * COPIES}" in second
    assert "\n0\n" in second  # aucun débris


def hold(course: Course, seconds: float, ready: threading.Event) -> None:
    """Verrouille la base comme le ferait une autre commande."""
    with sqlite3.connect(course.folder / "gradebook.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        ready.set()
        time.sleep(seconds)
        other.execute("ROLLBACK")


def locked_after_three(course: Course, seconds: float) -> Callable[[], None]:
    def lock() -> None:
        until(lambda: len(graded(course)) >= 3)
        hold(course, seconds, threading.Event())

    return lock


def test_a_locked_database_is_waited_for(course):
    with meanwhile(locked_after_three(course, 6)):
        check_complete(course, mark(course, NAME, 1))


def test_a_database_locked_too_long_stops_and_the_next_run_goes_on(course, monkeypatch):
    monkeypatch.setattr(retries, "DATABASE", retries.Retry((0.1,), seconds=1.0))
    with meanwhile(locked_after_three(course, 7)):
        with pytest.raises(RecordError, match="relancez la même commande"):
            mark(course, NAME, 1)
    before = seeds(course)
    check_complete(course, mark(course, NAME, 1))
    assert {s: seeds(course)[s] for s in before} == before


def test_a_database_that_disappears(course, tmp_path):
    database = course.folder / "gradebook.db"
    aside = tmp_path / "ailleurs.db"

    def remove() -> None:
        until(lambda: len(graded(course)) >= 3)
        shutil.move(database, aside)

    with meanwhile(remove), pytest.raises(RecordError, match="relancez la même commande"):
        mark(course, NAME, 1)
    shutil.move(aside, database)
    before = seeds(course)
    check_complete(course, mark(course, NAME, 1))
    assert {s: seeds(course)[s] for s in before} == before


# ── Grappe ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def cluster(root: Path, folder: Path, workers: int) -> Iterator[str]:
    """Un ordonnanceur et des travailleurs, chacun un vrai processus."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    code = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "COURS_RACINE": str(root), "PYTHONPATH": str(code)}
    line = [sys.executable, "-m", "distributed.cli"]
    options = ["--no-dashboard", "--host", "127.0.0.1"]
    commands = [[sys.executable, "-m", "distributed.cli.dask_scheduler", *options, "--port", str(port)]]
    line = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options, "--nthreads", "1", "--no-nanny"]
    commands += [[*line, "--local-directory", str(folder)]] * workers
    running = []
    try:
        for command in commands:
            process = subprocess.Popen(
                command, env=environment, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            running.append(process)
        import distributed

        with distributed.Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)
        yield address
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_cluster_of_two_workers_one_of_which_is_killed(course, root, tmp_path):
    pytest.importorskip("distributed")
    with cluster(root, tmp_path, 2) as address:

        def kill() -> None:
            until(lambda: len(graded(course)) >= 2)
            descendants("dask_worker")[0].kill()

        with meanwhile(kill):
            check_complete(course, mark(course, NAME, pool=Cluster(address)))


def test_no_cluster_is_said(course):
    pytest.importorskip("distributed")
    from grader import UserError
    from grader.classroom import cluster

    cluster.CONNECT_SECONDS, kept = 1, cluster.CONNECT_SECONDS
    try:
        with pytest.raises(UserError, match="Aucune grappe"):
            mark(course, NAME, pool=Cluster("127.0.0.1:9"))
    finally:
        cluster.CONNECT_SECONDS = kept
