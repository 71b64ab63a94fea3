"""Noter une copie loin de la base : les octets rendus entrent, le carnet corrigé et ses notes sortent.

Le même travail se fait ici même, dans des processus de cette machine (`--jobs`) ou sur une grappe (`--dask`,
grader/cluster.py). Aucun de ceux qui le font n'ouvre la base ni les dossiers du cours : un seul écrit, `grader.record`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from grader import PRELOADED, UserError
from grader.grading import NB, Result
from grader.record import Entries, SourceCell, entries, overwrite, render

ATTEMPTS = 3
"""Essais d'une même copie quand le processus qui la corrige meurt."""


@dataclass(frozen=True)
class Setup:
    """Ce qui est commun à toutes les copies d'un devoir."""

    assignment: str
    fingerprint: str
    points: Mapping[str, float]
    cells: Mapping[str, SourceCell]
    kernelspec: Mapping[str, Any] | None
    seed: int | None


@dataclass(frozen=True)
class Job:
    """Une copie à noter. refused : la raison, déjà connue, de son refus."""

    student: str
    data: bytes
    refused: str = ""


@dataclass
class Graded:
    """Une copie notée. text : son carnet corrigé ; about : ce que ses métadonnées en disent (réparations, refus)."""

    student: str
    text: str
    results: list[Result]
    entries: Entries
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Failed:
    """Une copie que la correction n'a pas pu noter ; ce n'est pas la faute de l'étudiant."""

    student: str
    reason: str


@dataclass
class Fatal:
    """Aucune copie ne peut être notée (bac à sable impossible, versions différentes)."""

    reason: str


class Pool(Protocol):
    """Qui note les copies. `run` les rend comme elles finissent, chacune une fois."""

    def run(self, setup: Setup, jobs: Iterable[Job]) -> Iterator[Graded | Failed]: ...


def grade_job(setup: Setup, job: Job) -> Graded | Failed | Fatal:
    """Note une copie. Ne lève rien : toute défaillance devient un résultat."""
    from grader.nbglue import assignment, grade_notebook, one_thread, open_data, shared_sandbox, write_results
    from grader.sandbox import SandboxError
    from grader.submission import KEY

    try:
        one_thread()
        given = assignment(setup.assignment)
        if given.fingerprint != setup.fingerprint:
            return Fatal(
                f"Le chapitre {setup.assignment} n'est pas le même sur la machine qui corrige\u00a0: mettez le dépôt "
                "du cours à la même version partout."
            )
        notebook = open_data(job.data, given, job.refused)
        results = grade_notebook(notebook, given, dict(setup.points), shared_sandbox(), setup.seed)
        overwrite(notebook, setup.cells, setup.kernelspec)
        write_results(notebook, results)
        about = {k: v for k, v in notebook.metadata[KEY].items() if k != "results"}
        return Graded(job.student, render(notebook), results, entries(notebook), about)
    except SandboxError as error:
        return Fatal(str(error))
    except Exception as error:  # une copie imprévue ne doit pas arrêter les autres
        return Failed(job.student, f"{type(error).__name__}{NB}: {error}")


def checked(outcome: Graded | Failed | Fatal) -> Graded | Failed:
    """Le résultat d'une copie ; lève `UserError` si aucune ne peut être notée."""
    if isinstance(outcome, Fatal):
        raise UserError(outcome.reason)
    return outcome


class Here:
    """Une copie après l'autre, dans ce processus."""

    def run(self, setup: Setup, jobs: Iterable[Job]) -> Iterator[Graded | Failed]:
        for job in jobs:
            yield checked(grade_job(setup, job))


# ---------------------------------------------------------------------------------------------- processus


class Processes:
    """`count` processus de cette machine. L'un d'eux meurt : un autre le remplace et reprend sa copie."""

    def __init__(self, count: int) -> None:
        self.count = count
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:  # un processus qui a tout importé, et dont les autres naissent en un instant
            self.context.set_forkserver_preload(list(PRELOADED))

    def run(self, setup: Setup, jobs: Iterable[Job]) -> Iterator[Graded | Failed]:
        source = iter(jobs)
        idle: list[Worker] = []
        busy: list[Worker] = []

        def occupy() -> None:
            while idle or len(busy) < self.count:
                if (job := next(source, None)) is None:
                    return
                worker = idle.pop() if idle else Worker(self.context, setup)
                worker.start(job)
                busy.append(worker)

        try:
            while True:
                occupy()
                if not busy:
                    return
                ready = wait([worker.pipe for worker in busy])
                for worker in [w for w in busy if w.pipe in ready]:
                    busy.remove(worker)
                    outcome = worker.receive()
                    if outcome is not None:
                        idle.append(worker)
                        occupy()  # avant de rendre celle-ci : l'écrire ne fait attendre personne
                        yield checked(outcome)
                        continue
                    worker.stop()
                    if worker.attempts == ATTEMPTS:
                        why = f"le processus qui la corrige s'est arrêté {ATTEMPTS} fois (mémoire épuisée\u202f?)"
                        yield Failed(worker.job.student, why)
                        continue
                    other = Worker(self.context, setup)
                    other.start(worker.job, worker.attempts + 1)
                    busy.append(other)
        finally:
            for worker in (*idle, *busy):
                worker.stop()


class Worker:
    """Un processus, relié par un tuyau : il meurt quand le tuyau se ferme."""

    job: Job

    def __init__(self, context: Any, setup: Setup) -> None:
        self.attempts = 0
        self.scratch = tempfile.TemporaryDirectory(prefix="correcteur-", ignore_cleanup_errors=True)
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, setup, dict(os.environ), self.scratch.name)
        self.process = context.Process(target=work, args=arguments, name="correcteur")
        self.process.start()
        theirs.close()

    def start(self, job: Job, attempts: int = 1) -> None:
        self.job, self.attempts = job, attempts
        try:
            self.pipe.send(job)
        except OSError:
            pass  # déjà mort : la lecture le dira

    def receive(self) -> Graded | Failed | Fatal | None:
        """Ce que le processus a répondu ; None s'il est mort."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def stop(self) -> None:
        self.pipe.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.scratch.cleanup()


def work(pipe: Connection, setup: Setup, environment: dict[str, str], scratch: str) -> None:
    """Le processus : note les copies reçues jusqu'à ce que le tuyau se ferme."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C : c'est l'autre bout qui ferme
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = scratch
    from atelier import paths
    from grader.nbglue import assignment, shared_sandbox

    for cached in (paths.root, paths.course, assignment):
        cached.cache_clear()
    try:
        while True:
            pipe.send(grade_job(setup, pipe.recv()))
    except (EOFError, OSError):
        pass
    finally:
        shared_sandbox().close()
