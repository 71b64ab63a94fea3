"""Ce qui se dit avec le processus d'une copie : le travail envoyé, les réponses lues sans les croire.

Tailles bornées, ordre vérifié, résultats relus un à un : ce qui n'a pas la forme attendue ne coûte que son exercice.
"""

from __future__ import annotations

import io
import math
import os
import platform
import queue
import socket
import sys
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from atelier import paths
from atelier.judging.codec import CodecError, loads
from atelier.text import legible
from grader.jail.inside.cells import MAX_PASSED, MAX_STEPS
from grader.jail.inside.framing import Frames, TooLong
from grader.jail.inside.runner import MAX_CASE_BYTES, PATIENCE, SHARED_SECONDS

SETUP_SECONDS = 60.0
EXTRA_SECONDS = 5.0
SOLUTION_SECONDS = 5.0
GRACE = 5.0
"""Secondes laissées au processus, après sa propre limite, pour le dire lui-même."""
MAX_EVENT_BYTES = 1024 * 1024
MAX_TOTAL_BYTES = 128 * 1024 * 1024
MAX_CASE_JSON = 4 * 1024 * 1024
COPY_SECONDS = 300.0
"""Durée d'une copie, tous ses recommencements compris. Au-delà, ce qui reste est « trop long »."""
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


@dataclass(frozen=True)
class CodeCell:
    """Une cellule à exécuter. kind : setup, solution ou extra ; exercise : ce qu'elle doit définir.

    light : n'en exécuter que les définitions ; skip : [ligne, raison] de ce qui, déjà essayé, arrête tout.
    """

    id: str
    source: str
    kind: str
    exercise: str = ""
    light: bool = False
    skip: tuple[tuple[int, str], ...] = ()

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
            "light": self.light,
            "skip": [list(pair) for pair in self.skip],
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


@dataclass(frozen=True)
class Passed:
    """Une instruction qui ne s'est pas exécutée. status : raised, timeout ou died.

    line : 0 pour toute la cellule ; error : vide si Python n'a rien levé ; lost : les noms qu'elle aurait donnés.
    """

    status: str
    error: str = ""
    message: str = ""
    line: int = 0
    lost: tuple[str, ...] = ()


@dataclass
class CellReport:
    """Ce qu'une cellule est devenue : ce qui en a été passé. stopped : tout s'est arrêté à la dernière."""

    passed: list[Passed] = field(default_factory=list)
    stopped: bool = False

    @property
    def first(self) -> Passed:
        return self.passed[0] if self.passed else Passed("ok")

    @property
    def status(self) -> str:
        """ok, ou la première raison : raised, timeout, died."""
        return self.first.status

    @property
    def message(self) -> str:
        return self.first.message


@dataclass
class TaskReport:
    """Ce qu'un exercice a rendu. status : done, undefined, timeout ou died ; un résultat par cas, dans l'ordre.

    alone : faux si d'autres exercices ont pu s'exécuter avant lui dans son processus. cell : la cellule qui a donné ce
    qui est noté ; left : ce que le nom est devenu ensuite, si ce n'est plus elle (gone, value, stub) ; differs : vrai
    si la propre cellule de l'exercice avait donné autre chose.
    """

    status: str
    outcomes: list[dict[str, Any]]
    alone: bool = True
    cell: str = ""
    left: str = ""
    differs: bool = False


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
    """Messages d'un processus, lus sur sa prise sans jamais attendre au-delà d'une heure dite."""

    def __init__(self, source: socket.socket, end: float = math.inf) -> None:
        """end : heure (`time.monotonic`) au-delà de laquelle plus rien n'est attendu."""
        self.source = source
        self.end = end
        self.frames = Frames(MAX_CASE_BYTES, MAX_TOTAL_BYTES)

    def frame(self, deadline: float) -> bytes:
        """Le message suivant. Lève `Broken`."""
        deadline = min(deadline, self.end)
        try:
            while (body := self.frames.take()) is None:
                if not (chunk := self._more(deadline)):
                    raise Broken("died", "processus arrêté")
                self.frames.feed(chunk)
        except TooLong:
            raise Broken("died", "réponses démesurées") from None
        return body

    def _more(self, deadline: float) -> bytes:
        """Des octets, ou aucun si l'autre bout est fermé."""
        try:
            self.source.settimeout(max(1e-3, deadline - time.monotonic()) if deadline < math.inf else None)
            return self.source.recv(1 << 18)
        except TimeoutError:
            raise Broken("timeout", "plus de réponse") from None
        except (OSError, ValueError):
            return b""

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

    def close(self) -> None:
        self.source.close()


class PipeStream(Stream):
    """Les mêmes messages, d'un tube que ce système ne sait pas attendre (Windows) : un fil à part le lit."""

    def __init__(self, source: io.BufferedReader | io.BytesIO, end: float = math.inf) -> None:
        self.pipe = source
        self.end = end
        self.frames = Frames(MAX_CASE_BYTES, MAX_TOTAL_BYTES)
        self.chunks: queue.Queue[bytes] = queue.Queue(maxsize=4)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        chunk = b"-"
        while chunk:
            try:
                chunk = self.pipe.read1(1 << 18)
            except (OSError, ValueError):
                chunk = b""
            self.chunks.put(chunk)

    def _more(self, deadline: float) -> bytes:
        left = max(0.0, deadline - time.monotonic()) if deadline < math.inf else None
        try:
            return self.chunks.get(timeout=left)
        except queue.Empty:
            raise Broken("timeout", "plus de réponse") from None

    def close(self) -> None:
        """Laisse le fil finir, une fois l'autre bout fermé."""
        while self.thread.is_alive():
            try:
                self.chunks.get(timeout=0.05)
            except queue.Empty:
                continue
        self.pipe.close()


# ---------------------------------------------------------------------------------------------- suivre une copie


def follow(
    stream: Stream, cells: Sequence[CodeCell], tasks: Sequence[Task], report: Report, shared: bool = False
) -> bool:
    """Lit tout ce que dit une copie. Vrai si elle est allée au bout ; sinon note qui l'en a empêchée.

    shared : ses exercices sont dans un même processus ; celui qui n'y aboutit pas n'est pas noté, il est à redemander.
    """
    wait = START_SECONDS
    for cell in cells:
        line = 0
        try:
            expect(stream.event(time.monotonic() + wait), "start", "cell", cell.id)
            end = time.monotonic() + 2 * cell.seconds + GRACE
            for _ in range(MAX_STEPS + 1):
                message = stream.event(min(end, time.monotonic() + cell.seconds + GRACE))
                if message["event"] != "step":
                    break
                line = line_of(expect(message, "step", "cell", cell.id))
            report.cells[cell.id] = cell_report(expect(message, "cell", "cell", cell.id))
            wait = GRACE
        except Broken as broken:
            report.cells[cell.id] = CellReport([Passed(broken.status, line=line)], stopped=True)
            return False
    known = {cell.id for cell in cells}
    for task in tasks:
        outcomes: list[dict[str, Any]] = []
        about: dict[str, Any] = {}
        try:
            status = follow_task(stream, task, outcomes, about, shared)
        except Broken as broken:
            if not shared:
                missing = filled(outcomes, task, broken.status)
                report.tasks[task.id] = TaskReport(broken.status, missing, **origin(about, known))
            return False
        if shared and status not in ("done", "undefined"):
            return False
        alone = not shared or status == "undefined"
        report.tasks[task.id] = TaskReport(status, filled(outcomes, task, status), alone, **origin(about, known))
    return True


def follow_task(
    stream: Stream, task: Task, outcomes: list[dict[str, Any]], about: dict[str, Any], shared: bool = False
) -> str:
    """Lit les résultats d'un exercice dans `outcomes`, son annonce dans `about` ; rend la façon dont il a fini."""
    allowed = PATIENCE * SHARED_SECONDS if shared else PATIENCE * (task.budget + task.seconds) + 2 * GRACE
    end = time.monotonic() + allowed
    about |= expect(stream.event(min(end, time.monotonic() + GRACE)), "exercise", "exercise", task.id)
    while body := stream.frame(min(end, time.monotonic() + PATIENCE * task.seconds + GRACE)):
        if about.get("defined") is not True or len(outcomes) == len(task.cases):
            raise Broken("died", "un résultat de trop")
        outcomes.append(read_outcome(body))
    message = expect(stream.event(min(end, time.monotonic() + GRACE)), "exercise_end", "exercise", task.id)
    if message.get("status") == "again":
        return "again"
    if about.get("defined") is not True:
        return "undefined"
    if message.get("status") == "timeout":
        return "timeout"
    return "done" if len(outcomes) == len(task.cases) else "died"


def origin(about: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """D'où vient ce qui est noté, tel que la copie le dit : de quoi écrire une phrase, rien d'autre."""
    cell, left = about.get("cell"), about.get("left")
    return {
        "cell": cell if isinstance(cell, str) and cell in known else "",
        "left": left if left in ("gone", "value", "stub") else "",
        "differs": about.get("differs") is True,
    }


def filled(outcomes: list[dict[str, Any]], task: Task, status: str) -> list[dict[str, Any]]:
    """Un résultat par cas : ceux qui manquent disent comment l'exercice a fini."""
    missing = TIMEOUT if status == "timeout" else DIED
    return outcomes + [missing] * (len(task.cases) - len(outcomes))


def expect(message: dict[str, Any], event: str, key: str, value: str) -> dict[str, Any]:
    """Le message, s'il est celui attendu ; sinon `Broken`."""
    if message["event"] != event or message.get(key) != value:
        raise Broken("died", f"message inattendu\u00a0: {str(message['event'])[:40]}")
    return message


def line_of(message: dict[str, Any]) -> int:
    line = message.get("line")
    return line if type(line) is int and 0 <= line < 10**6 else 0


def cell_report(message: dict[str, Any]) -> CellReport:
    """Compte rendu d'une cellule, chaque champ ramené à ce qu'il doit être."""
    found = message.get("passed")
    report = CellReport()
    for entry in found[:MAX_PASSED] if isinstance(found, list) else []:
        if isinstance(entry, dict):
            status, lost = entry.get("status"), entry.get("lost")
            names = [n for n in lost[:10] if isinstance(n, str)] if isinstance(lost, list) else []
            report.passed.append(
                Passed(
                    status if status in ("raised", "timeout", "died") else "raised",
                    short(entry, "error", 100),
                    short(entry, "message", 500),
                    line_of(entry),
                    tuple(n[:40] for n in names if n.isidentifier()),
                )
            )
    return report


_STATUSES = ("value", "raised", "todo", "untransportable", "timeout")


def read_outcome(body: bytes) -> dict[str, Any]:
    """Le résultat d'un cas, vérifié. Ce qui n'en est pas un devient « untransportable »."""
    try:
        outcome = loads(body, MAX_CASE_JSON)
    except CodecError as error:
        return {"status": "untransportable", "message": shown(str(error), 300)}
    status = outcome.get("status") if isinstance(outcome, dict) else None
    if status not in _STATUSES:
        return {"status": "untransportable", "message": "résultat d'une forme inconnue"}
    if status == "value":
        modified = outcome.get("modified")
        if not ("value" in outcome and isinstance(modified, list)):
            return {"status": "untransportable", "message": "résultat incomplet"}
        names = [x for x in modified[:100] if isinstance(x, str)]
        clean: dict[str, Any] = {"status": "value", "value": outcome["value"], "modified": names}
    elif status == "raised":
        mro = outcome.get("mro")
        names = [x[:100] for x in mro[:20] if isinstance(x, str)] if isinstance(mro, list) else []
        name, where = short(outcome, "error", 200), short(outcome, "where", 300)
        clean = {"status": "raised", "error": name, "mro": names, "where": where}
    else:
        clean = {"status": status}
    if status in ("raised", "todo", "untransportable"):
        clean["message"] = short(outcome, "message")
    if status == "untransportable" and isinstance(outcome.get("place"), str):
        clean["place"] = short(outcome, "place", 200)
    return {**clean, "printed": short(outcome, "printed")}


def short(outcome: dict[str, Any], key: str, limit: int = 2000) -> str:
    """Un champ de texte, montrable."""
    value = outcome.get(key)
    return shown(value, limit) if isinstance(value, str) else ""


def shown(text: str, limit: int = 2000) -> str:
    """Un texte venu d'une copie, tel qu'il entre dans une note, une remarque ou un bilan : court, sur une ligne, sans
    rien qui commande l'affichage, ni chemin ni nom de la machine qui corrige."""
    text = text[: 2 * limit]
    for word in _of_this_machine():
        text = text.replace(word, "…")
    return legible(text, limit)


@cache
def _of_this_machine() -> tuple[str, ...]:
    """Ce qu'une erreur de bibliothèque, ou `/proc`, peut dire de la machine qui corrige ; le plus long d'abord."""
    places = {str(paths.root()), sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path.home()), os.getcwd()}
    places |= {os.path.realpath(place) for place in places}
    own = {place for place in places if place.count("/") >= 2 and place != "/usr/local" or place == "/root"}
    own |= {platform.version(), platform.release(), platform.node()}
    return tuple(sorted((word for word in own if len(word) > 4), key=len, reverse=True))
