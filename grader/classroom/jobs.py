"""Noter une copie loin de la base : les octets rendus entrent, le carnet corrigé et ses notes sortent.

Le même travail se fait dans des processus de cette machine (`--jobs`, même s'il n'y en a qu'un) ou sur une grappe
(`--dask`, grader/classroom/cluster.py). Aucun n'ouvre la base ni les dossiers du cours : un seul écrit,
`grader.classroom.record`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import Any, Protocol

from atelier.text import NBSP
from grader import UserError
from grader.classroom.grading import Result
from grader.classroom.ledger import Entries, SourceCell
from grader.classroom.record import entries, overwrite, render
from grader.jail.outside.apart import Died, Exceeded, Worker, apart, hire, release
from grader.jail.outside.dialogue import shown


@dataclass(frozen=True)
class Setup:
    """Ce qui est commun à toutes les copies d'un devoir."""

    assignment: str
    fingerprint: str
    points: Mapping[str, float]
    cells: Mapping[str, SourceCell]
    kernelspec: Mapping[str, Any] | None
    seed: int


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

    def run(self, setup: Setup, jobs: Iterable[Job]) -> Generator[Graded | Failed]: ...


def grade_job(setup: Setup, job: Job) -> Graded | Failed | Fatal:
    """Note une copie. Ne lève rien : toute défaillance devient un résultat."""
    from grader.classroom.nbglue import (
        current_assignment,
        grade_notebook,
        one_thread,
        open_data,
        shared_sandbox,
        write_results,
    )
    from grader.classroom.submission import KEY
    from grader.jail.outside.sandbox import SandboxError

    try:
        one_thread()
        given = current_assignment(setup.assignment, setup.fingerprint)
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
    except MemoryError:  # `grader.jail.outside.apart` en fait une limite dépassée
        raise
    except Exception as error:  # une copie imprévue ne doit pas arrêter les autres
        return Failed(job.student, shown(f"{type(error).__name__}{NBSP}: {error}", 300))


def checked(outcome: Graded | Failed | Fatal) -> Graded | Failed:
    """Le résultat d'une copie ; lève `UserError` si aucune ne peut être notée."""
    if isinstance(outcome, Fatal):
        raise UserError(outcome.reason)
    return outcome


# ---------------------------------------------------------------------------------------------- processus


def grade_apart(setup: Setup, job: Job, fresh: bool = False) -> Graded | Failed | Fatal:
    """Note une copie dans un processus à part ; refusée par son nom si elle n'y tient pas, deux fois."""
    try:
        return apart(grade_job, setup, job, fresh=fresh)
    except Exceeded as error:
        return grade_job(setup, replace(job, refused=str(error)))
    except Died as error:
        return Failed(job.student, str(error))


class Processes:
    """`count` processus de cette machine. L'un d'eux meurt : un autre le remplace ; sa copie attend son tour, seule."""

    def __init__(self, count: int) -> None:
        self.count = count

    def run(self, setup: Setup, jobs: Iterable[Job]) -> Generator[Graded | Failed]:
        source = iter(jobs)
        idle: list[Worker] = []
        busy: dict[Worker, Job] = {}
        again: list[Job] = []

        def occupy() -> None:
            while len(busy) < self.count and (job := next(source, None)) is not None:
                worker = idle.pop() if idle else hire()
                worker.start(grade_job, setup, job)
                busy[worker] = job

        try:
            while True:
                occupy()
                if not busy:
                    break
                left = min(worker.deadline for worker in busy) - time.monotonic()
                ready = wait([worker.pipe for worker in busy], max(0.0, left))
                for worker in [w for w in busy if w.pipe in ready or w.deadline <= time.monotonic()]:
                    job, reply = busy.pop(worker), worker.receive()
                    if reply.kind != "done":
                        worker.stop(0.0)
                        again.append(job)
                        continue
                    idle.append(worker)
                    occupy()  # avant de rendre celle-ci : l'écrire ne fait attendre personne
                    yield checked(reply.value)
            for worker in idle[1:]:
                worker.stop()
            del idle[1:]
            for job in again:  # aucune mort, aucune limite n'est retenue contre une copie qui n'était pas seule
                yield checked(grade_apart(setup, job, fresh=True))
        finally:
            for worker in busy:
                worker.stop()
            for worker in idle:
                release(worker)
