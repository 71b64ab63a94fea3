"""Le côté sûr du processus de l'étudiant : le lancer, lui parler, le surveiller, survivre à sa mort.

Rien de ce qui vient de l'autre côté n'est cru : tailles bornées, ordre vérifié, résultats relus un à un. Une cellule ou
un exercice qui tue, bloque ou trompe le processus est mis de côté et le reste recommence, un nombre borné de fois.

Le processus est scellé par le système (`seal`), ou rien ne s'exécute ; seul `Sandbox(sealed=False)`, que demande
`grade --unsealed` pour son propre code, s'en passe.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from atelier.judging.codec import dumps
from grader import UserError, retries
from grader.jail.inside.framing import framed
from grader.jail.inside.runner import can_fork
from grader.jail.outside import apart, cgroups, seal
from grader.jail.outside.dialogue import (
    COPY_SECONDS,
    DIED,
    START_SECONDS,
    TIMEOUT,
    CellReport,
    CodeCell,
    PipeStream,
    Report,
    Stream,
    Task,
    TaskReport,
    follow,
)

QUIET = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    **{"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "TOKENIZERS_PARALLELISM": "false"},
    **{"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"},
}
"""Réglages de calcul du processus : un fil, le processeur, pas de réseau, rien d'écrit."""


class Unconfined(Exception):
    """Le processus tiède n'a pas pu enfermer une copie : elle n'a pas été exécutée."""


class SandboxError(UserError):
    """Le processus qui exécute les copies ne peut pas démarrer."""


class Sandbox:
    """Un processus tiède, démarré au premier usage, où naissent les copies, l'une après l'autre.

    `with Sandbox() as sandbox: report = sandbox.run(cells, tasks)`
    """

    def __init__(self, sealed: bool | None = None, fork: bool | None = None) -> None:
        """sealed : scellé par le système, ou refus (ce qu'il est sans autre avis que `--unsealed`).

        fork : ne sert qu'aux essais, et sans scellé.
        """
        self.sealed = seal.wanted() if sealed is None else sealed
        self.fork = can_fork() if fork is None else fork
        self._home: Path | None = None
        self._cgroup: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Arrête le processus tiède et efface ses dossiers."""
        self._stop()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    # ------------------------------------------------------------------------------------------ une copie

    def run(self, cells: Sequence[CodeCell], tasks: Sequence[Task], shared: bool = False) -> Report:
        """Exécute les cellules puis les exercices. Rend toujours un compte rendu complet.

        shared : d'abord tous les exercices dans un même processus, le plus loin possible ; puis, et sinon, un chacun.
        """
        report = Report()
        pending = list(tasks)
        if (self.sealed or self.fork) and self._control is None:
            self._start()
        end = time.monotonic() + COPY_SECONDS
        todo = list(cells)
        for attempt in retries.COPY:
            if time.monotonic() >= end:
                break
            if attempt == retries.COPY_LIGHT:
                todo = [replace(c, light=True) if c.kind == "extra" else c for c in todo]
            elif attempt == retries.COPY_BARE:
                todo = [c for c in todo if c.kind != "extra"]
            if self._attempt(todo, pending, report, end, shared and attempt == 0):
                break
            pending = [t for t in pending if t.id not in report.tasks]
            todo = [kept for c in todo if (kept := relaunched(c, report.cells.get(c.id)))]
        status, missing = ("timeout", TIMEOUT) if time.monotonic() >= end else ("died", DIED)
        for task in tasks:
            if task.id not in report.tasks:
                report.tasks[task.id] = TaskReport(status, [missing] * len(task.cases))
        return report

    def _attempt(
        self, cells: Sequence[CodeCell], tasks: Sequence[Task], report: Report, end: float, shared: bool
    ) -> bool:
        """Un lancement. Vrai si tout a été dit ; sinon le coupable est déjà noté dans `report`."""
        with self._folder() as folder:
            child = self._launch(folder)
            child.stream.end = end
            try:
                exercises = [t.as_data() for t in tasks]
                child.send({"cells": [c.as_data() for c in cells], "exercises": exercises, "shared": shared})
                return follow(child.stream, cells, tasks, report, shared)
            finally:
                child.stop()

    @contextlib.contextmanager
    def _folder(self) -> Iterator[str]:
        """Le dossier d'une copie : dans le scellé, le sien est en mémoire et n'existe pas ici."""
        if self.sealed:
            yield ""
            return
        with tempfile.TemporaryDirectory(prefix="copie-", dir=self.home(), ignore_cleanup_errors=True) as folder:
            yield folder

    def _launch(self, folder: str) -> Child:
        if not self.sealed and not self.fork:
            return PlainChild(self, folder)
        why = ""
        for _ in retries.LAUNCH:
            try:
                return ForkedChild(self, folder)
            except (OSError, ValueError, KeyError, Unconfined) as error:
                why = str(error)
                self._stop()
        raise SandboxError(seal.refusal(seal.explain(why)) if self.sealed else why)

    # ------------------------------------------------------------------------------------------ processus tiède

    def home(self) -> Path:
        """Dossier de travail, vide, où chaque copie reçoit le sien."""
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="correction-"))
        return self._home

    def furnish(self) -> None:
        """Sans scellé : pose dans `home()/cours` ce que l'étudiant peut importer, ni grader ni solutions.

        Refait à neuf à chaque démarrage : ce qu'une copie y aurait changé ne sert à personne d'autre.
        """
        library = self.home() / "cours"
        shutil.rmtree(library, ignore_errors=True)
        skip = shutil.ignore_patterns("__pycache__", "*.pyc")
        for source, target in seal.shown():
            relative = os.path.relpath(target, seal.COURSE)
            if relative.startswith(".."):
                continue
            if source.is_dir():
                shutil.copytree(source, library / relative, ignore=skip)
            else:
                (library / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, library / relative)

    def environment(self) -> dict[str, str]:
        """Variables du processus : le strict nécessaire, rien de l'enseignant."""
        if self.sealed:
            return {**seal.environment(), **QUIET}
        home = self.home()
        kept = {k: os.environ[k] for k in ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if k in os.environ}
        return {
            **kept,
            **QUIET,
            "PATH": os.defpath,
            "PYTHONPATH": str(home / "cours"),
            "PYTHONNOUSERSITE": "1",
            "HOME": str(home),
            "TMPDIR": str(home),
        }

    def command(self, *arguments: str) -> list[str]:
        """La commande du processus tiède (ou d'une copie, sans fork ni scellé)."""
        if self.sealed:
            return seal.command([*arguments, "--sealed"], self._cgroup)
        return [sys.executable, "-m", "inside.runner", *arguments]

    def order(self, message: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        """Un ordre au processus tiède, et sa réponse."""
        if self._control is None:
            self._start()
        assert self._control is not None
        socket.send_fds(self._control, [json.dumps(message).encode()], list(fds))
        return json.loads(self._control.recv(65536))

    def _start(self) -> None:
        if not self.sealed:
            self.furnish()
        elif why := seal.missing():
            raise SandboxError(seal.refusal(why))
        else:
            self._cgroup = cgroups.create(seal.UID if os.geteuid() == 0 else None)
        ours, theirs = socket.socketpair()
        log = self.home() / "journal.txt"
        with open(log, "wb") as errors, apart.lifted():
            self._server = subprocess.Popen(
                self.command("--serve", str(theirs.fileno())),
                env=self.environment(),
                cwd="/" if self.sealed else self.home(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()
        ours.settimeout(START_SECONDS)
        try:
            ready = json.loads(ours.recv(65536) or b"{}")
        except (TimeoutError, ValueError, OSError):
            ready = {}
        self._control = ours
        if not ready.get("ready"):
            self._stop()
            said = log.read_text(encoding="utf-8", errors="replace")[-1500:]
            if "error" in ready or said.startswith("bwrap:"):
                raise SandboxError(seal.refusal(seal.explain(ready.get("error") or said)))
            text = f"Le processus qui exécute les copies n'a pas démarré. Ce qu'il a dit\u00a0:\n{said}"
            if os.geteuid() == 0 and ("No module named" in said or "Permission denied" in said):
                text += (
                    f"\nEn root, ce processus devient l'utilisateur {seal.UID}\u00a0: les fichiers de ce Python et du "
                    f"cours doivent être lisibles par tous (chmod -R go+rX {sys.prefix})."
                )
            raise SandboxError(text)
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
        if self._cgroup is not None:
            cgroups.remove(self._cgroup)
            self._cgroup = None


def relaunched(cell: CodeCell, report: CellReport | None) -> CodeCell | None:
    """La cellule à essayer de nouveau, sans l'instruction où tout s'est arrêté ; None si cela ne suffit pas."""
    if report is None or not report.stopped:
        return cell
    line = report.first.line
    if not line or line in dict(cell.skip) or len(cell.skip) == retries.COPY_SKIPPED:
        return None
    return replace(cell, skip=(*cell.skip, (line, report.status)))


class Child:
    """Le processus d'une copie, vu d'ici."""

    stream: Stream

    def send(self, job: dict[str, Any]) -> None:
        try:
            self.write(framed(dumps(job)))
        except OSError:
            pass  # mort avant d'avoir lu, ou ne lit pas : la lecture le dira

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError


class ForkedChild(Child):
    """Dédoublement du processus tiède, relié par sa propre paire de prises."""

    def __init__(self, sandbox: Sandbox, folder: str) -> None:
        self.sandbox = sandbox
        ours, theirs = socket.socketpair()
        try:
            reply = sandbox.order({"op": "start", "folder": folder}, [theirs.fileno()])
            if "error" in reply:
                raise Unconfined(reply["error"])
            self.pid = int(reply["pid"])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.socket = ours
        self.stream = Stream(ours)

    def write(self, data: bytes) -> None:
        self.socket.settimeout(START_SECONDS)
        self.socket.sendall(data)

    def stop(self) -> None:
        try:
            self.sandbox.order({"op": "kill", "pid": self.pid})
        except (OSError, ValueError):
            pass  # processus tiède mort, ses enfants avec lui : le prochain lancement en démarre un autre
        self.stream.close()


class PlainChild(Child):
    """Processus ordinaire, neuf pour chaque copie : là où fork n'existe pas."""

    def __init__(self, sandbox: Sandbox, folder: str) -> None:
        sandbox.furnish()
        environment = {**sandbox.environment(), "HOME": folder, "TMPDIR": folder, "TEMP": folder, "TMP": folder}
        with apart.lifted():
            self.process = subprocess.Popen(
                sandbox.command("--once"),
                env=environment,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        assert self.process.stdin is not None and isinstance(self.process.stdout, io.BufferedReader)
        self.sink = self.process.stdin
        self.stream = PipeStream(self.process.stdout)

    def write(self, data: bytes) -> None:
        self.sink.write(data)
        self.sink.flush()

    def stop(self) -> None:
        if hasattr(os, "killpg"):
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.kill()
        self.process.wait()
        self.stream.close()
        self.sink.close()
