"""Le processus où tourne le code de l'étudiant à la correction. Il ne détient aucune réponse.

Il reçoit un travail (des cellules, puis pour chaque exercice les entrées des cas), exécute les cellules dans un espace
de noms neuf, appelle la sonde de chaque exercice et renvoie ce qu'elle rend. La comparaison se fait ailleurs,
dans `grader.jail.outside.sandbox` et `grader.classroom.grading`. Ce qui sort d'ici est une donnée à vérifier, jamais
une parole de confiance.

`python -m inside.runner --serve FD [--uid N] --sealed` : processus tiède (torch déjà chargé), qui se dédouble pour
chaque copie en l'enfermant (`confine`) ; il est lui-même dans le bubblewrap de `grader.jail.outside.seal`, déjà sans
droits ou en root qui devient l'utilisateur N.
`python -m inside.runner --serve FD` : le même, sans rien enfermer (`grade --unsealed`, Unix) ;
`python -m inside.runner --once` : une seule copie, sur l'entrée et la sortie standard (sans isolement ni fork).

Le travail est un message de `atelier.judging.codec` :
    {"cells": [{"id", "source", "kind": "setup|solution|extra", "exercise", "seconds", "light", "skip"}],
     "exercises": [{"id", "probe", "seconds", "budget", "cases": [entrées]}], "shared"}
Les réponses, dans l'ordre, sont des messages précédés de leur longueur :
    {"event": "start", "cell"}, {"event": "step", "cell", "line"} avant chaque instruction qui ne fait pas que définir,
    {"event": "cell", "cell", "passed": [{"status": "raised|timeout|died", "error", "message", "line", "lost"}]},
    {"event": "exercise", "exercise", "defined", "cell", "left", "differs"}, les résultats des cas, un par message, un
    message vide,
    {"event": "exercise_end", "exercise", "status": "done|undefined|timeout|died|again"}, {"event": "end"}.
`light` : n'exécuter que les définitions de la cellule ; `skip` : [ligne, raison] des instructions à passer.
`shared` : les exercices s'exécutent dans le processus des cellules tant qu'aucun n'y laisse de trace, et le premier qui
n'y aboutit pas est « again », à redemander ; sinon, chacun a le sien, né de l'état que laissent les cellules.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import gc
import io
import json
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from .baseline import Baseline, held
from .cells import QUIET, Notebook, interrupt_after, waited
from .framing import Frames, TooLong, framed, read

MAX_CASE_BYTES = 32 * 1024 * 1024
HARD_GRACE = 2.0
"""Secondes entre la limite douce (une exception dans le code) et la limite dure (le processus est tué)."""
SHARED_SECONDS = 1.0
"""Durée, au plus, d'un exercice dans un processus partagé ; au-delà, il recommence dans le sien."""
PATIENCE = 5.0
"""Sur une machine chargée, attendre un cœur ne compte pas dans la durée d'un cas, jusqu'à ce multiple de sa limite."""


def can_fork() -> bool:
    """Vrai là où le processus tiède peut se dédoubler."""
    return hasattr(os, "fork") and hasattr(socket, "AF_UNIX")


class Channel:
    """Écrit des messages précédés de leur longueur."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.pid = os.getpid()

    def keep(self, data: bytes) -> None:
        """Un message, qui peut attendre le suivant pour partir. Un `os.fork` de l'étudiant s'arrête ici."""
        if os.getpid() != self.pid:
            os._exit(0)
        self.stream.write(framed(data))

    def raw(self, data: bytes) -> None:
        """Un message, envoyé aussitôt avec ceux qui attendaient."""
        self.keep(data)
        self.stream.flush()

    def send(self, event: str, **fields: Any) -> None:
        """Un événement : celui qui annonce du travail part aussitôt, celui qui en rend compte, avec le suivant."""
        from atelier.judging.codec import dumps

        self.keep(dumps({"event": event, **fields}))
        if event in ("start", "step", "exercise", "end"):
            self.stream.flush()


class Mute(io.TextIOBase):
    """Une sortie qui oublie tout."""

    def write(self, text: str) -> int:
        return len(text)

    def writable(self) -> bool:
        return True


# ---------------------------------------------------------------------------------------------- cellules


def run_cells(cells: list[dict[str, Any]], exercises: list[str], channel: Channel) -> Notebook:
    """Exécute les cellules dans l'ordre, en rendant compte de chacune."""
    notebook = Notebook(exercises, lambda cell, line: channel.send("step", cell=cell, line=line))
    for cell in cells:
        channel.send("start", cell=cell["id"])
        channel.send("cell", cell=cell["id"], passed=notebook.run(cell))
    return notebook


# ---------------------------------------------------------------------------------------------- exercices


def run_one_case(exercise: dict[str, Any], function: Any, inputs: dict[str, Any], before: float) -> bytes:
    """Le résultat d'un cas, encodé. Toute défaillance devient un résultat. before : attente d'un cœur déjà passée."""
    from atelier.judging.codec import CodecError, dumps
    from atelier.judging.probes import Interruption, run_case

    fired: Callable[[], bool] = lambda: False  # noqa: E731
    try:
        with interrupt_after(exercise["seconds"], Interruption, PATIENCE, before) as fired:
            outcome = run_case(exercise["probe"], function, inputs)
    except Interruption:
        return dumps({"status": "timeout"})
    if fired():
        return dumps({"status": "timeout"})
    try:
        data = dumps(outcome)
    except CodecError as error:
        data = dumps({"status": "untransportable", "message": str(error)[:500]})
    if len(data) > MAX_CASE_BYTES:
        return dumps({"status": "untransportable", "message": "le résultat pèse plus de 32 Mio"})
    return data


def run_cases(exercise: dict[str, Any], function: Any, write: Callable[[bytes], None]) -> str:
    """Tous les cas d'un exercice, chaque résultat remis à `write`, dans des réglages connus.

    S'arrête quand le budget de temps est dépensé, ou après deux cas de suite trop longs.
    """
    from atelier.judging.probes import clean_room

    clock, late = time.monotonic, waited
    start, first = clock(), late()
    before = first
    slow = 0
    with clean_room():
        for inputs in exercise["cases"]:
            begin = clock()
            if slow == 2 or (
                begin - start > exercise["budget"] and begin - start - late() + first > exercise["budget"]
            ):
                return "timeout"
            write(run_one_case(exercise, function, inputs, before))
            spent = clock() - begin
            slow = slow + 1 if spent >= exercise["seconds"] and spent - late() + before >= exercise["seconds"] else 0
            if spent > 0.05:  # l'attente ne se relit que si elle a pu compter
                before = late()
    return "done"


class Lost(Exception):
    """Le processus d'un exercice est mort ou trop lent. L'argument : timeout ou died."""


class Fork:
    """Un processus né de celui-ci, où un exercice s'exécute seul avec ce que les cellules ont défini."""

    def __init__(self, exercise: dict[str, Any], function: Any, channel: Channel, baseline: Baseline) -> None:
        self.exercise = exercise
        self.granted = 0.0
        self.frames = Frames(MAX_CASE_BYTES, math.inf)
        self.reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.reader)
                channel.stream.close()
                mine = Channel(os.fdopen(writer, "wb"))
                baseline.restore()
                ended = run_cases(exercise, function, mine.raw)
                mine.raw(ended.encode())
            finally:
                os._exit(0)
        os.close(writer)

    def relay(self, channel: Channel) -> str:
        """Transmet les résultats, sans les ouvrir, en surveillant l'heure. Rend comment l'exercice a fini."""
        index = 0
        per_case = self.exercise["seconds"] + HARD_GRACE
        limit = self.exercise["budget"] + per_case
        start = time.monotonic()
        while True:
            try:
                body = self._message(min(time.monotonic() + per_case, start + limit), PATIENCE * limit)
            except Lost as lost:
                return str(lost)
            if body in (b"done", b"timeout"):
                return body.decode()
            if index == len(self.exercise["cases"]):
                return "died"
            channel.raw(body)
            index += 1

    def _message(self, until: float, patience: float) -> bytes:
        """Le message suivant. L'attente d'un cœur repousse l'heure, jusqu'à `patience` secondes accordées en tout."""
        while (body := self._arrived()) is None:
            left = until - time.monotonic()
            if left <= 0:
                more = min(waited(self.pid), patience) - self.granted
                if more < 0.01:
                    raise Lost("timeout")
                self.granted += more
                until += more
            elif select.select([self.reader], [], [], left)[0]:
                chunk = os.read(self.reader, 1 << 20)
                if not chunk:
                    raise Lost("died")
                self.frames.feed(chunk)
        return body

    def _arrived(self) -> bytes | None:
        try:
            return self.frames.take()
        except TooLong:
            raise Lost("died") from None

    def close(self) -> None:
        os.close(self.reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def run_exercises_forked(
    exercises: list[dict[str, Any]], notebook: Notebook, channel: Channel, baseline: Baseline
) -> None:
    """Les exercices, chacun dans un processus né de l'état que laissent les cellules."""
    for exercise in exercises:
        name = exercise["id"]
        function, about = notebook.answer(name)
        channel.send("exercise", exercise=name, defined=function is not None, **about)
        status = "undefined"
        if function is not None:
            fork = Fork(exercise, function, channel, baseline)
            status = fork.relay(channel)
            fork.close()
        channel.keep(b"")
        channel.send("exercise_end", exercise=name, status=status)


def run_exercises_here(
    exercises: list[dict[str, Any]], notebook: Notebook, channel: Channel, baseline: Baseline, shared: bool
) -> None:
    """Les exercices, l'un après l'autre, dans ce processus même.

    shared : l'autre bout sait les redemander. Le premier qui n'aboutit pas, ou qui suit celui qui a laissé une trace,
    est « again », et rien ne vient plus après lui. Sans fork ni autre bout, tous passent.
    """
    clock = time.monotonic
    baseline.restore()
    before = held()
    over = shared and (before[0] > 1 or before[2])  # les cellules ont laissé un fil ou un enfant
    for exercise in exercises:
        name = exercise["id"]
        function, about = notebook.answer(name)
        channel.send("exercise", exercise=name, defined=function is not None, **about)
        status = "again" if over else "undefined"
        if function is not None and not over:
            limits = {"seconds": min(SHARED_SECONDS, exercise["seconds"]), "budget": SHARED_SECONDS} if shared else {}
            start = clock()
            write = channel.keep if shared else channel.raw  # un résultat partagé ne compte que si tout aboutit
            status = run_cases({**exercise, **limits}, function, write)
            spoiled = baseline.restore() or held() != before
            over = shared and spoiled
            if shared and (status != "done" or clock() - start > SHARED_SECONDS):
                status = "again"
        channel.keep(b"")
        channel.send("exercise_end", exercise=name, status=status)
        if status == "again":
            return


def run_job(job: dict[str, Any], channel: Channel) -> None:
    """Un travail entier : les cellules, puis les exercices."""
    sys.stdout = sys.stderr = Mute()
    baseline = Baseline()
    notebook = run_cells(job["cells"], [exercise["id"] for exercise in job["exercises"]], channel)
    if job["shared"] or not can_fork():
        run_exercises_here(job["exercises"], notebook, channel, baseline, job["shared"])
    else:
        run_exercises_forked(job["exercises"], notebook, channel, baseline)
    channel.send("end")


# ---------------------------------------------------------------------------------------------- processus


def warm_up() -> None:
    """Charge ce que tout carnet charge, avec un seul fil, et rend muettes les fonctions d'affichage de l'atelier."""
    import torch
    import transformers

    import atelier
    import atelier.judging.codec
    import atelier.judging.probes
    import atelier.models
    from atelier import paths

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    # Premiers appels : ce qu'ils initialisent (modules paresseux, autograd, Colibri) n'est plus à payer par copie.
    if paths.asset("colibri").is_dir():
        atelier.models.load_model("colibri")(torch.zeros(1, 2, dtype=torch.long)).logits.sum().backward()
    (torch.ones(4, 4, requires_grad=True) @ torch.ones(4, 4)).softmax(-1).sum().backward()
    for name in QUIET:
        setattr(atelier, name, lambda *_, **__: None)
    Baseline().restore()
    forget_project()
    gc.collect()
    gc.freeze()


def forget_project() -> None:
    """Retire du chemin d'import tout ce qui mènerait à `grader` ou à `solutions` (installation modifiable comprise)."""
    sys.path[:] = [
        p for p in sys.path if p and not any(os.path.isdir(os.path.join(p, name)) for name in ("grader", "solutions"))
    ]
    sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable__")]


def enter_child(keep: int) -> None:
    """Sans isolement : prépare un processus tout neuf à recevoir une copie, dans son groupe et dans son dossier."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, keep)
    os.closerange(keep + 1, 65536)


def settle(folder: str) -> None:
    """Installe la copie dans son dossier, vide et à elle seule."""
    import tempfile

    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - vit autant que le processus
    os.chdir(folder)
    tempfile.tempdir = folder
    os.environ.update(HOME=folder, TMPDIR=folder, COURS_ETAT=os.path.join(folder, "etat"))


def serve(control: socket.socket, sealed: bool) -> None:
    """Boucle du processus tiède. Un ordre, une réponse ; meurt quand l'autre côté ferme.

    {"op": "start", "folder"} accompagné d'un descripteur → {"pid"} ou {"error"} ; {"op": "kill", "pid"} → {}.
    `pid` ne sert qu'à désigner la copie. Prêt, il le dit par {"ready": true} ; incapable d'enfermer, par {"error"}.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm_up()
    start = confined if sealed else forked
    children: dict[int, Callable[[], None]] = {}
    if sealed:
        from .confine import spawn
        from .kernel import ConfineError, gather_memory

        gather_memory()
        try:
            spawn(lambda: None, control.fileno()).kill()
        except ConfineError as error:
            control.sendall(json.dumps({"error": str(error)}).encode())
            return
    control.sendall(b'{"ready": true}')
    while True:
        data, fds = receive(control)
        if not data:
            break
        order = json.loads(data)
        reply: dict[str, Any] = {}
        if order["op"] == "start":
            try:
                pid, children[pid] = start(order["folder"], fds[0])
                reply = {"pid": pid}
            except Exception as error:
                reply = {"error": f"{type(error).__name__} : {error}"[:1000]}
        elif order["op"] == "kill" and order["pid"] in children:
            children.pop(order["pid"])()
        control.sendall(json.dumps(reply).encode())
        for fd in fds:
            os.close(fd)
    for kill in children.values():
        kill()


def confined(folder: str, fd: int) -> tuple[int, Callable[[], None]]:
    """Lance une copie enfermée ; rend son numéro et de quoi la tuer."""
    from .confine import PLACES, spawn

    child = spawn(lambda: work(PLACES[0], fd), fd)
    return child.guard, child.kill


def forked(folder: str, fd: int) -> tuple[int, Callable[[], None]]:
    """Lance une copie sans l'enfermer ; rend son numéro et de quoi la tuer."""
    from .confine import limit_copy

    pid = os.fork()
    if pid == 0:
        try:
            enter_child(fd)
            limit_copy(alone=False)
            work(folder, fd)
        finally:
            os._exit(0)
    return pid, lambda: reap(pid)


def work(folder: str, fd: int) -> None:
    """Reçoit un travail sur ce descripteur, le fait, et répond."""
    from atelier.judging.codec import loads

    from .kernel import set_limits

    settle(folder)
    stream = os.fdopen(fd, "rb", closefd=False)
    job = loads(read(stream))
    total = sum(c["seconds"] for c in job["cells"]) + sum(e["budget"] + e["seconds"] for e in job["exercises"])
    set_limits({"RLIMIT_CPU": int(total) + 30})
    run_job(job, Channel(os.fdopen(fd, "wb", 1 << 16)))


def reap(pid: int) -> None:
    """Tue le groupe d'une copie non enfermée."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Un ordre et les descripteurs qui l'accompagnent."""
    fds = array.array("i")
    try:
        data, ancillary, _, _ = control.recvmsg(65536, socket.CMSG_LEN(8 * fds.itemsize))
    except ConnectionError:
        return b"", []
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(body[: len(body) - len(body) % fds.itemsize])
    return data, list(fds)


def once() -> None:
    """Une copie, lue sur l'entrée standard, réponses sur la sortie standard."""
    from atelier.judging.codec import loads

    channel = Channel(os.fdopen(os.dup(1), "wb"))
    job = loads(read(sys.stdin.buffer))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    warm_up()
    run_job(job, channel)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m inside.runner")
    parser.add_argument("--serve", metavar="FD", type=int)
    parser.add_argument("--uid", metavar="N", type=int)
    parser.add_argument("--sealed", action="store_true")
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args(arguments)
    if options.once:
        once()
        return
    control = socket.socket(fileno=options.serve)
    if options.uid is not None:
        from .kernel import become

        become(options.uid)
    serve(control, options.sealed)


if __name__ == "__main__":
    main(sys.argv[1:])
