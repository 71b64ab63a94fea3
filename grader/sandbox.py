"""Le côté sûr du processus de l'étudiant : le lancer, lui parler, le surveiller, survivre à sa mort.

Rien de ce qui vient de l'autre côté n'est cru : tailles bornées, ordre vérifié, résultats relus un à un. Une cellule ou
un exercice qui tue, bloque ou trompe le processus est mis de côté et le reste recommence, un nombre borné de fois.

Le scellement (espaces de noms, seccomp, utilisateur sans droits) s'ajoutera en enveloppant `Sandbox.command`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import atelier
from atelier import paths
from atelier.codec import dumps
from atelier.runner import can_fork
from grader import UserError
from grader.dialogue import DIED, START_SECONDS, Cell, CellReport, Report, Stream, Task, TaskReport, follow

MAX_ATTEMPTS = 8
ATTEMPTS_WITH_EXTRAS = 3
"""Au-delà, les cellules ajoutées par l'étudiant ne sont plus essayées."""


class SandboxError(UserError):
    """Le processus qui exécute les copies ne peut pas démarrer."""


class Sandbox:
    """Un processus tiède, démarré au premier usage, partagé par autant de fils que l'on veut.

    `with Sandbox() as sandbox: report = sandbox.run(cells, tasks)`
    """

    def __init__(self, fork: bool | None = None) -> None:
        self.fork = can_fork() if fork is None else fork
        self._lock = threading.RLock()
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
        """Dossier de travail, vide, où chaque copie reçoit le sien."""
        with self._lock:
            if self._home is None:
                self._home = Path(tempfile.mkdtemp(prefix="correction-"))
            return self._home

    def furnish(self) -> None:
        """Pose dans `home()/cours` ce que l'étudiant peut importer : atelier et Colibri, ni grader ni solutions.

        Refait à neuf à chaque démarrage : ce qu'une copie y aurait changé ne sert à personne d'autre.
        """
        library = self.home() / "cours"
        shutil.rmtree(library, ignore_errors=True)
        skip = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(Path(atelier.__file__).parent, library / "atelier", ignore=skip)
        shutil.copy(paths.root() / "course.toml", library)
        if paths.asset("colibri").is_dir():
            (library / "assets").mkdir()
            shutil.copytree(paths.asset("colibri"), library / "assets" / "colibri")

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
        self.furnish()
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
            raise SandboxError(f"Le processus qui exécute les copies n'a pas démarré. Ce qu'il a dit\u00a0:\n{tail}")
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
        sandbox.furnish()
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
