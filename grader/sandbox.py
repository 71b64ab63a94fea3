"""Le côté sûr du processus de l'étudiant : le lancer, lui parler, le surveiller, survivre à sa mort.

Rien de ce qui vient de l'autre côté n'est cru : tailles bornées, ordre vérifié, résultats relus un à un. Une cellule ou
un exercice qui tue, bloque ou trompe le processus est mis de côté et le reste recommence, un nombre borné de fois.

Le scellement (espaces de noms, seccomp, utilisateur sans droits) s'ajoutera en enveloppant `Sandbox.command`.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import atelier
from atelier import paths
from atelier.codec import CodecError, dumps, loads
from atelier.runner import MAX_CASE_BYTES, can_fork
from grader import UserError

SETUP_SECONDS = 60.0
EXTRA_SECONDS = 5.0
SOLUTION_SECONDS = 5.0
GRACE = 5.0
"""Secondes laissées au processus, après sa propre limite, pour le dire lui-même."""
MAX_ATTEMPTS = 8
ATTEMPTS_WITH_EXTRAS = 3
MAX_EVENT_BYTES = 1024 * 1024
MAX_TOTAL_BYTES = 512 * 1024 * 1024
START_SECONDS = 120.0

TIMEOUT: dict[str, Any] = {"status": "timeout"}
DIED: dict[str, Any] = {
    "status": "raised",
    "error": "arrêt du processus",
    "mro": [],
    "message": "l'exécution s'est arrêtée d'un coup (mémoire épuisée, `exit`, erreur dans une bibliothèque…)",
    "where": "",
    "printed": "",
}
"""Le résultat d'un cas dont le processus est mort."""


class SandboxError(UserError):
    """Le processus qui exécute les copies ne peut pas démarrer."""


@dataclass(frozen=True)
class Cell:
    """Une cellule à exécuter. kind : setup, solution ou extra ; exercise : ce qu'elle doit définir."""

    id: str
    source: str
    kind: str
    exercise: str = ""

    @property
    def seconds(self) -> float:
        return {"setup": SETUP_SECONDS, "extra": EXTRA_SECONDS}.get(self.kind, SOLUTION_SECONDS)

    def as_data(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "source": self.source,
            "kind": self.kind,
            "exercise": self.exercise,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Task:
    """Un exercice à essayer sur des entrées : seconds par cas, `budget` pour l'ensemble."""

    id: str
    probe: str
    seconds: float
    cases: Sequence[dict[str, Any]]

    @property
    def budget(self) -> float:
        """Trois cas à la limite, ou une seconde par cas : assez pour un code lent, pas pour une boucle à chaque cas."""
        return max(3 * self.seconds, float(len(self.cases)))

    def as_data(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "probe": self.probe,
            "seconds": self.seconds,
            "budget": self.budget,
            "cases": list(self.cases),
        }


@dataclass
class CellReport:
    """Ce qu'une cellule est devenue. status : ok, raised, timeout ou died."""

    status: str
    error: str = ""
    message: str = ""
    line: int = 0


@dataclass
class TaskReport:
    """Ce qu'un exercice a rendu. status : done, undefined, timeout ou died ; un résultat par cas, dans l'ordre."""

    status: str
    outcomes: list[dict[str, Any]]


@dataclass
class Report:
    """Les cellules et les exercices d'une copie, par identifiant."""

    cells: dict[str, CellReport] = field(default_factory=dict)
    tasks: dict[str, TaskReport] = field(default_factory=dict)


class Broken(Exception):
    """Le processus est mort, trop lent ou dit n'importe quoi. `status` : timeout ou died."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


class Stream:
    """Messages d'un processus, lus par un fil à part pour pouvoir cesser d'attendre."""

    def __init__(self, source: BinaryIO) -> None:
        self.frames: queue.Queue[bytes | None] = queue.Queue(maxsize=4)
        self.source = source
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        total = 0
        try:
            while len(head := self.source.read(8)) == 8:
                (size,) = struct.unpack("<Q", head)
                total += size
                if size > MAX_CASE_BYTES or total > MAX_TOTAL_BYTES:
                    break
                body = self.source.read(size)
                if len(body) < size:
                    break
                self.frames.put(body)
        except (OSError, ValueError):
            pass
        self.frames.put(None)

    def frame(self, deadline: float) -> bytes:
        try:
            body = self.frames.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise Broken("timeout", "plus de réponse") from None
        if body is None:
            raise Broken("died", "processus arrêté")
        return body

    def event(self, deadline: float) -> dict[str, Any]:
        body = self.frame(deadline)
        if len(body) > MAX_EVENT_BYTES:
            raise Broken("died", "message démesuré")
        try:
            message = loads(body)
        except CodecError as error:
            raise Broken("died", str(error)) from None
        if not (isinstance(message, dict) and isinstance(message.get("event"), str)):
            raise Broken("died", "message d'une forme inconnue")
        return message

    def drain(self) -> None:
        """Laisse le fil finir, une fois l'autre bout fermé."""
        while self.thread.is_alive():
            try:
                self.frames.get(timeout=0.05)
            except queue.Empty:
                continue


class Sandbox:
    """Un processus tiède, démarré au premier usage, partagé par autant de fils que l'on veut.

    `with Sandbox() as sandbox: report = sandbox.run(cells, tasks)`
    """

    def __init__(self, fork: bool | None = None) -> None:
        self.fork = can_fork() if fork is None else fork
        self._lock = threading.Lock()
        self._home: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Arrête le processus tiède et efface ses dossiers."""
        with self._lock:
            self._stop()
            if self._home is not None:
                shutil.rmtree(self._home, ignore_errors=True)
                self._home = None

    # ------------------------------------------------------------------------------------------ une copie

    def run(self, cells: Sequence[Cell], tasks: Sequence[Task]) -> Report:
        """Exécute les cellules puis les exercices. Rend toujours un compte rendu complet."""
        report = Report()
        pending = list(tasks)
        for attempt in range(MAX_ATTEMPTS):
            kept = [
                c
                for c in cells
                if report.cells.get(c.id, CellReport("ok")).status not in ("timeout", "died")
                and not (attempt >= ATTEMPTS_WITH_EXTRAS and c.kind == "extra")
            ]
            if self._attempt(kept, pending, report):
                break
            pending = [t for t in pending if t.id not in report.tasks]
        for task in tasks:
            if task.id not in report.tasks:
                report.tasks[task.id] = TaskReport("died", [DIED] * len(task.cases))
        return report

    def _attempt(self, cells: Sequence[Cell], tasks: Sequence[Task], report: Report) -> bool:
        """Un lancement. Vrai si tout a été dit ; sinon le coupable est déjà noté dans `report`."""
        with tempfile.TemporaryDirectory(prefix="copie-", dir=self.home(), ignore_cleanup_errors=True) as folder:
            child = self._launch(folder)
            try:
                child.send({"cells": [c.as_data() for c in cells], "exercises": [t.as_data() for t in tasks]})
                return follow(child.stream, cells, tasks, report)
            finally:
                child.stop()

    def _launch(self, folder: str) -> Child:
        if not self.fork:
            return PlainChild(self, folder)
        try:
            return ForkedChild(self, folder)
        except (OSError, ValueError, KeyError):  # le processus tiède est mort : on en relance un, une fois
            with self._lock:
                self._stop()
            return ForkedChild(self, folder)

    # ------------------------------------------------------------------------------------------ processus tiède

    def home(self) -> Path:
        """Dossier vide de l'étudiant, et à côté la copie d'`atelier` qu'il peut importer ; ni grader ni solutions."""
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="correction-"))
            library = self._home / "cours"
            skip = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(Path(atelier.__file__).parent, library / "atelier", ignore=skip)
            shutil.copy(paths.root() / "course.toml", library)
            if paths.asset("colibri").is_dir():
                (library / "assets").mkdir()
                shutil.copytree(paths.asset("colibri"), library / "assets" / "colibri")
        return self._home

    def environment(self) -> dict[str, str]:
        """Variables du processus : le strict nécessaire, rien de l'instructeur."""
        home = self.home()
        kept = {k: os.environ[k] for k in ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if k in os.environ}
        return {
            **kept,
            "PATH": os.defpath,
            "PYTHONPATH": str(home / "cours"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
            "PYTHONUTF8": "1",
            "HOME": str(home),
            "TMPDIR": str(home),
            "COURS_RACINE": str(home / "cours"),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "MPLBACKEND": "agg",
        }

    def command(self, *arguments: str) -> list[str]:
        """La commande du processus. C'est elle qu'un bac à sable du système enveloppera."""
        return [sys.executable, "-m", "atelier.runner", *arguments]

    def order(self, message: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        """Un ordre au processus tiède, et sa réponse."""
        with self._lock:
            if self._control is None:
                self._start()
            assert self._control is not None
            socket.send_fds(self._control, [json.dumps(message).encode()], list(fds))
            return json.loads(self._control.recv(65536))

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        log = self.home() / "journal.txt"
        with open(log, "wb") as errors:
            self._server = subprocess.Popen(
                self.command("--serve", str(theirs.fileno())),
                env=self.environment(),
                cwd=self.home(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()
        ours.settimeout(START_SECONDS)
        try:
            ready = ours.recv(65536)
        except TimeoutError:
            ready = b""
        self._control = ours
        if b"ready" not in ready:
            self._stop()
            tail = log.read_text(encoding="utf-8", errors="replace")[-1500:]
            raise SandboxError(f"Le processus qui exécute les copies n'a pas démarré. Ce qu'il a dit :\n{tail}")
        ours.settimeout(60.0)

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._server is not None:
            try:
                self._server.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(self._server.pid, signal.SIGKILL)
                self._server.wait()
            self._server = None


class Child:
    """Le processus d'une copie, vu d'ici."""

    stream: Stream
    sink: BinaryIO

    def send(self, job: dict[str, Any]) -> None:
        data = dumps(job)
        try:
            self.sink.write(struct.pack("<Q", len(data)) + data)
            self.sink.flush()
        except OSError:
            pass  # mort avant d'avoir lu : la lecture le dira

    def stop(self) -> None:
        raise NotImplementedError


class ForkedChild(Child):
    """Dédoublement du processus tiède, relié par sa propre paire de prises."""

    def __init__(self, sandbox: Sandbox, folder: str) -> None:
        self.sandbox = sandbox
        ours, theirs = socket.socketpair()
        try:
            self.pid = int(sandbox.order({"op": "start", "folder": folder}, [theirs.fileno()])["pid"])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.socket = ours
        self.sink = ours.makefile("wb")
        self.stream = Stream(ours.makefile("rb"))

    def stop(self) -> None:
        try:
            self.sandbox.order({"op": "kill", "pid": self.pid})
        except (OSError, ValueError):
            pass  # processus tiède mort, ses enfants avec lui : le prochain lancement en démarre un autre
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.stream.drain()
        self.sink.close()
        self.stream.source.close()
        self.socket.close()


class PlainChild(Child):
    """Processus ordinaire, neuf pour chaque copie : là où fork n'existe pas."""

    def __init__(self, sandbox: Sandbox, folder: str) -> None:
        environment = {**sandbox.environment(), "HOME": folder, "TMPDIR": folder, "TEMP": folder, "TMP": folder}
        self.process = subprocess.Popen(
            sandbox.command("--once"),
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.sink = self.process.stdin
        self.stream = Stream(self.process.stdout)

    def stop(self) -> None:
        if hasattr(os, "killpg"):
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.kill()
        self.process.wait()
        self.stream.drain()
        self.sink.close()
        self.stream.source.close()


# ---------------------------------------------------------------------------------------------- suivre une copie


def follow(stream: Stream, cells: Sequence[Cell], tasks: Sequence[Task], report: Report) -> bool:
    """Lit tout ce que dit une copie. Vrai si elle est allée au bout ; sinon note qui l'en a empêchée."""
    wait = START_SECONDS
    for cell in cells:
        try:
            expect(stream.event(time.monotonic() + wait), "start", "cell", cell.id)
            message = expect(stream.event(time.monotonic() + cell.seconds + GRACE), "cell", "cell", cell.id)
            report.cells[cell.id] = cell_report(message)
            wait = GRACE
        except Broken as broken:
            report.cells[cell.id] = CellReport(broken.status)
            return False
    for task in tasks:
        outcomes: list[dict[str, Any]] = []
        try:
            status = follow_task(stream, task, outcomes)
        except Broken as broken:
            report.tasks[task.id] = TaskReport(broken.status, filled(outcomes, task, broken.status))
            return False
        report.tasks[task.id] = TaskReport(status, filled(outcomes, task, status))
    return True


def follow_task(stream: Stream, task: Task, outcomes: list[dict[str, Any]]) -> str:
    """Lit les résultats d'un exercice dans `outcomes` ; rend la façon dont il a fini."""
    end = time.monotonic() + task.budget + task.seconds + 2 * GRACE
    first = expect(stream.event(min(end, time.monotonic() + GRACE)), "exercise", "exercise", task.id)
    if first.get("defined") is not True:
        expect(stream.event(end), "exercise_end", "exercise", task.id)
        return "undefined"
    while True:
        message = stream.event(min(end, time.monotonic() + task.seconds + GRACE))
        if message["event"] == "exercise_end" and message.get("exercise") == task.id:
            status = message.get("status")
            return status if status in ("timeout", "died") or len(outcomes) == len(task.cases) else "died"
        expect(message, "case", "exercise", task.id)
        if message.get("index") != len(outcomes) or len(outcomes) >= len(task.cases):
            raise Broken("died", "résultat hors de son rang")
        outcomes.append(read_outcome(stream.frame(min(end, time.monotonic() + GRACE))))


def filled(outcomes: list[dict[str, Any]], task: Task, status: str) -> list[dict[str, Any]]:
    """Un résultat par cas : ceux qui manquent disent comment l'exercice a fini."""
    missing = TIMEOUT if status == "timeout" else DIED
    return outcomes + [missing] * (len(task.cases) - len(outcomes))


def expect(message: dict[str, Any], event: str, key: str, value: str) -> dict[str, Any]:
    """Le message, s'il est celui attendu ; sinon `Broken`."""
    if message["event"] != event or message.get(key) != value:
        raise Broken("died", f"message inattendu : {str(message['event'])[:40]}")
    return message


def cell_report(message: dict[str, Any]) -> CellReport:
    """Compte rendu d'une cellule, chaque champ ramené à ce qu'il doit être."""
    status = message.get("status")
    line = message.get("line")
    return CellReport(
        status if status in ("ok", "raised", "timeout") else "raised",
        str(message.get("error") or "")[:100],
        str(message.get("message") or "")[:500],
        line if type(line) is int and 0 <= line < 10**6 else 0,
    )


_STATUSES = ("value", "raised", "todo", "untransportable", "timeout")


def read_outcome(body: bytes) -> dict[str, Any]:
    """Le résultat d'un cas, vérifié. Ce qui n'en est pas un devient « untransportable »."""
    try:
        outcome = loads(body)
    except CodecError as error:
        return {"status": "untransportable", "message": str(error)[:300]}
    status = outcome.get("status") if isinstance(outcome, dict) else None
    if status not in _STATUSES:
        return {"status": "untransportable", "message": "résultat d'une forme inconnue"}
    if status == "value":
        if not ("value" in outcome and isinstance(outcome.get("after"), dict)):
            return {"status": "untransportable", "message": "résultat incomplet"}
        clean: dict[str, Any] = {"status": "value", "value": outcome["value"], "after": outcome["after"]}
    elif status == "raised":
        mro = outcome.get("mro")
        names = [x[:100] for x in mro if isinstance(x, str)][:20] if isinstance(mro, list) else []
        clean = {"status": "raised", "error": short(outcome, "error"), "mro": names, "where": short(outcome, "where")}
    else:
        clean = {"status": status}
    if status in ("raised", "todo", "untransportable"):
        clean["message"] = short(outcome, "message")
    return {**clean, "printed": short(outcome, "printed")}


def short(outcome: dict[str, Any], key: str) -> str:
    """Un champ de texte, borné."""
    value = outcome.get(key)
    return value[:2000] if isinstance(value, str) else ""
