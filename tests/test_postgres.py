"""Les notes dans PostgreSQL : un vrai serveur, deux enseignants à la fois, et le serveur qui s'arrête en route."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import exige
from essai import NAME, SOLVED, as_bytes, build_root, course_root, filled

from grader import retries
from grader.authoring.build import build_chapter, write
from grader.classroom.course import CONFIG, CONFIG_TEXT, Course, prepare
from grader.classroom.ledger import RecordError
from grader.classroom.marking import mark
from grader.classroom.nbglue import assignment

OTHER = "ch2_essai"
COPIES = 8


class Server:
    """Un PostgreSQL à nous, dans un dossier à lui, sur une prise locale."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        os.environ["PATH"] += "".join(f":{p}" for p in Path("/usr/lib/postgresql").glob("*/bin"))
        self.identity: dict = {}
        if os.getuid() == 0:  # PostgreSQL refuse de tourner en root
            entry = pwd.getpwnam(self.user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            self.identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self.run(exige("initdb"), "-D", str(folder / "base"), "-U", "prof", "-A", "trust", "-E", "UTF8", "--no-locale")

    def run(self, *command: str) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **self.identity)

    def start(self) -> None:
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off"]
        line = [exige("postgres"), "-D", str(self.folder / "base"), *options]
        log = subprocess.DEVNULL
        self.process = subprocess.Popen(line, stdout=log, stderr=log, cwd=self.folder, **self.identity)
        end = time.monotonic() + 60
        while subprocess.run([exige("pg_isready"), "-q", "-h", str(self.folder)]).returncode:
            assert time.monotonic() < end and self.process.poll() is None, "PostgreSQL ne démarre pas"
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait()

    def create(self, name: str) -> str:
        self.run(exige("createdb"), "-h", str(self.folder), "-U", "prof", name)
        return f"postgresql+psycopg://prof@/{name}?host={self.folder}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    exige("psql")
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Le cours d'essai, avec un second chapitre semblable au premier."""
    path = build_root(tmp_path_factory.mktemp("racine"))
    shutil.copytree(path / "solutions" / NAME, path / "solutions" / OTHER)
    with open(path / "course.toml", "a", encoding="utf-8") as toml:
        toml.write(f'\n[[chapters]]\nname = "{OTHER}"\ntitle = "Autre"\nsubject = "pareil"\n')
    with course_root(path):
        assert not write(build_chapter(OTHER, path), path, execute=False)
        yield path


@contextmanager
def new_course(server: Server, root: Path, folder: Path, base: str, copies: int = COPIES) -> Iterator[Course]:
    """Un cours dont les notes vont dans la base `base`, et les mêmes étudiants pour les deux devoirs."""
    folder.mkdir(parents=True)
    url = server.create(base)
    text = CONFIG_TEXT.format(root=str(root), course_id="essai")
    (folder / CONFIG).write_text(f"{text}c.CourseDirectory.db_url = {url!r}\n", encoding="utf-8")
    prepare(folder)
    course = Course(folder)
    for name in (NAME, OTHER):
        data = as_bytes(filled(assignment(name).template, SOLVED))
        for i in range(copies):
            path = course.path("submitted", f"e-{i}", name) / f"{name}.ipynb"
            path.parent.mkdir(parents=True)
            path.write_bytes(data)
    yield course


def check(course: Course, name: str) -> None:
    with course.gradebook() as book:
        submissions = book.find_assignment(name).submissions
        assert sorted(s.student.id for s in submissions) == [f"e-{i}" for i in range(COPIES)]
        assert {s.score for s in submissions} == {6.0}


def test_two_instructors_grade_different_assignments_at_once(server, root, tmp_path):
    with new_course(server, root, tmp_path / "cours", "deux") as course:
        options = ["--course", str(course.folder), "--unsealed", "--jobs", "1"]
        line = [sys.executable, "-m", "grader", "grade", *options]
        both = [
            subprocess.Popen([*line, name], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for name in (NAME, OTHER)
        ]
        said = [process.communicate(timeout=200)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        check(course, NAME)
        check(course, OTHER)
        assert sorted(mark(course, NAME, 1).kept) == [f"e-{i}" for i in range(COPIES)]


def test_conflicting_writers_of_the_same_student_both_succeed(server, root, tmp_path):
    from threading import Thread

    from grader.classroom.ledger import Entries
    from grader.classroom.record import Recorder

    with new_course(server, root, tmp_path / "cours", "conflit", 1) as course:
        scores = {"test_scale_up": 2.0, "test_count_true": 1.0, "test_spread": 3.0}
        failures = []

        def write(name: str) -> None:
            try:
                with Recorder(Course(course.folder), name) as recorder:
                    for i in range(COPIES):
                        recorder.write_rows(f"e-{i}", Entries(dict(scores), {}))
            except Exception as error:
                failures.append(error)

        threads = [Thread(target=write, args=(name,)) for name in (NAME, OTHER, NAME, OTHER)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        check(course, NAME)
        check(course, OTHER)


def test_a_server_that_stops_is_waited_for_then_said(server, root, tmp_path, monkeypatch):
    with new_course(server, root, tmp_path / "cours", "panne") as course:
        from threading import Thread

        def graded() -> int:
            return len(list((course.folder / "autograded").rglob("*.ipynb")))

        def restart(seconds: float) -> None:
            while graded() < 3:
                time.sleep(0.02)
            server.stop()
            time.sleep(seconds)
            server.start()

        thread = Thread(target=restart, args=(2.0,))
        thread.start()
        marked = mark(course, NAME, 1)
        thread.join()
        assert not marked.unsaved
        check(course, NAME)

        monkeypatch.setattr(retries, "DATABASE", retries.Retry((0.1,), seconds=0.5))
        shutil.rmtree(course.folder / "autograded")
        thread = Thread(target=restart, args=(4.0,))
        thread.start()
        with pytest.raises(RecordError, match="relancez la même commande") as caught:
            mark(course, NAME, 1, redo=True)
        thread.join()
        assert "prof@" in str(caught.value)
        monkeypatch.undo()
        assert not mark(course, NAME, 1).unsaved
        check(course, NAME)
