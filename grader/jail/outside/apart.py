"""Faire à part, dans un autre processus de ce côté-ci, ce qui lit ou juge les octets d'une copie.

Lire et juger se font en temps linéaire ; ceci est le filet dessous. Le processus tient dans un temps de calcul et une
mémoire : au-delà il meurt, un autre le remplace, et l'appel est redemandé une fois, seul, dans un processus neuf. Ce
qui dépasse encore lève `Exceeded`, dont le texte est la raison du refus de la copie ; les autres n'en savent rien.

Le noyau tient ces limites, même pendant une expression rationnelle ou une comparaison de tenseurs qui ne rend pas la
main. Le processus ne survit ni à la fermeture de son tuyau, ni à la mort, même brutale, de qui l'a lancé.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from atelier.text import number
from grader import PRELOADED, retries
from grader.classroom.submission import Unreadable

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

CPU_SECONDS = 60.0
"""Calcul accordé, de ce côté-ci, à une copie entière : dix fois ce que demande la plus lente."""
WALL_SECONDS = 2400.0
"""Durée d'un appel, l'exécution de la copie dans son bac à sable comprise."""
MEMORY_BYTES = 3 * 1024**3 // 2
"""Mémoire accordée à un appel, en plus de ce que le processus occupe déjà."""

REASONS = {
    "time": f"la lire ou la juger demande plus de {number(CPU_SECONDS, unit='secondes')} de calcul",
    "memory": f"la lire ou la juger demande plus de {number(MEMORY_BYTES / 1024**3, unit='Gio')} de mémoire",
}


class Exceeded(Unreadable):
    """L'appel a dépassé sa limite de temps ou de mémoire, deux fois, la seconde seul dans un processus neuf."""


class Died(Exception):
    """Le processus est mort à chaque essai sans avoir atteint de limite."""


@dataclass(frozen=True)
class Reply:
    """Ce qu'un appel est devenu. kind : done, raised (value : l'exception), time, memory ou died."""

    kind: str
    value: Any = None


# ---------------------------------------------------------------------------------------------- d'ici


class Worker:
    """Un processus, relié par un tuyau."""

    def __init__(self) -> None:
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:  # un processus qui a tout importé, et dont les autres naissent en un instant
            context.set_forkserver_preload(list(PRELOADED))
        self.scratch = tempfile.TemporaryDirectory(prefix="correcteur-", ignore_cleanup_errors=True)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.scratch.name), name="correcteur")
        with childbearing():
            self.process.start()
        theirs.close()
        self.deadline = 0.0

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.deadline = time.monotonic() + WALL_SECONDS
        try:
            self.pipe.send((function, arguments, dict(os.environ), CPU_SECONDS, MEMORY_BYTES))
        except OSError:
            pass  # déjà mort : la lecture le dira

    def receive(self) -> Reply:
        """La réponse, attendue jusqu'à l'heure dite."""
        try:
            if not self.pipe.poll(max(0.0, self.deadline - time.monotonic())):
                return Reply("time")
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(10)
            return Reply("time" if self.process.exitcode == -getattr(signal, "SIGPROF", 0) else "died")

    def stop(self, patience: float = 10.0) -> None:
        self.pipe.close()
        self.process.join(patience)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.scratch.cleanup()


@contextmanager
def childbearing() -> Iterator[None]:
    """Laisse un processus « démon » (un travailleur de dask) en lancer d'autres : les nôtres meurent avec lui."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    before = config.get("daemon")
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = before


_idle: list[Worker] = []
_lock = threading.Lock()


def hire() -> Worker:
    """Un processus prêt : celui qui attend, s'il peut encore servir, sinon un neuf."""
    with _lock:
        waiting = _idle.pop() if _idle else None
    if waiting is not None and not waiting.process.is_alive():
        waiting.stop()
        waiting = None
    return waiting or Worker()


def release(worker: Worker) -> None:
    """Garde ce processus pour le prochain appel, ou l'arrête s'il y en a déjà un."""
    with _lock:
        if not _idle and worker.process.is_alive():
            _idle.append(worker)
            return
    worker.stop()


@atexit.register
def dismiss() -> None:
    """Arrête celui qui attend."""
    with _lock:
        waiting = _idle[:]
        _idle.clear()
    for worker in waiting:
        worker.stop()


def apart(function: Callable[..., Any], *arguments: Any, fresh: bool = False) -> Any:
    """`function(*arguments)`, à part. Lève ce qu'elle lève, `Exceeded` ou `Died`.

    fresh : seulement dans un processus neuf (cet appel a déjà échoué une fois).
    """
    for attempt in islice(retries.APART, fresh, None):
        worker = Worker() if attempt else hire()
        try:
            worker.start(function, *arguments)
            reply = worker.receive()
        except BaseException:  # Ctrl-C
            worker.stop(0.0)
            raise
        if reply.kind in ("done", "raised"):
            release(worker)
            if reply.kind == "raised":
                raise reply.value
            return reply.value
        worker.stop(0.0)
        if attempt and reply.kind in REASONS:
            raise Exceeded(REASONS[reply.kind])
    raise Died(f"le processus qui la corrige s'est arrêté {retries.APART.tries} fois (mémoire épuisée\u202f?)")


# ---------------------------------------------------------------------------------------------- là-bas


def work(pipe: Connection, scratch: str) -> None:
    """Le processus : fait ce qu'on lui demande jusqu'à ce que le tuyau se ferme."""
    from grader.classroom.nbglue import close_sandboxes
    from grader.jail.inside.kernel import die_with_parent

    let_go_of_forkserver()
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C : c'est l'autre bout qui ferme
    tempfile.tempdir = scratch
    try:
        while True:
            function, arguments, environment, seconds, memory = pipe.recv()
            surround(environment)
            pipe.send(limited(function, arguments, seconds, memory))
    except (EOFError, OSError):
        pass
    finally:
        close_sandboxes()


def let_go_of_forkserver() -> None:
    """Ferme le tube qui dit au père de ce processus qu'on a encore besoin de lui.

    `multiprocessing` le donne à chacun de ceux qu'il engendre : après la mort de qui a tout lancé, eux et lui se
    garderaient en vie l'un l'autre.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    from multiprocessing.forkserver import _forkserver

    if (fd := getattr(_forkserver, "_forkserver_alive_fd", None)) is not None:
        os.close(fd)
        _forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]


def surround(environment: dict[str, str]) -> None:
    """Prend les variables de qui appelle ; la racine du cours change : ce qui en venait est oublié."""
    from atelier import paths
    from grader.classroom.nbglue import assignment, close_sandboxes

    moved = os.environ.get("COURS_RACINE") != environment.get("COURS_RACINE")
    os.environ.clear()
    os.environ.update(environment)
    if moved:
        close_sandboxes()
        for cached in (paths.root, paths.course, assignment):
            cached.cache_clear()


def limited(function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float, memory: int) -> Reply:
    """L'appel, sous ses deux limites. Le temps dépassé, le noyau tue ce processus."""
    timer = getattr(signal, "setitimer", None)
    before = limit_memory(memory)
    if timer:
        timer(signal.ITIMER_PROF, seconds)
    try:
        return Reply("done", function(*arguments))
    except MemoryError:
        return Reply("memory")
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}\u00a0: {error}")
        return Reply("raised", error)
    finally:
        if timer:
            timer(signal.ITIMER_PROF, 0)
        set_memory(before)


_before: list[tuple[int, int]] = []
"""La limite de mémoire à remettre, pendant un appel."""


def limit_memory(more: int) -> tuple[int, int] | None:
    """Borne ce que ce processus peut encore prendre de mémoire adressable ; rend ce qu'était la borne."""
    from grader.jail.inside.kernel import address_space

    if resource is None or not (now := address_space()):
        return None
    before = resource.getrlimit(resource.RLIMIT_AS)
    asked = now + more
    if before[0] != resource.RLIM_INFINITY:
        asked = min(asked, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (asked, before[1]))
    _before[:] = [before]
    return before


def set_memory(limits: tuple[int, int] | None) -> None:
    if limits is not None:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        _before.clear()


@contextmanager
def lifted() -> Iterator[None]:
    """Le temps du bloc, sans la limite de mémoire : un processus lancé d'ici n'en hérite pas."""
    if not _before:
        yield
        return
    now, before = resource.getrlimit(resource.RLIMIT_AS), _before[0]
    resource.setrlimit(resource.RLIMIT_AS, before)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, now)
