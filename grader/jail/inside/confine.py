"""Enfermer une copie dans le noyau Linux : espaces de noms neufs, dossiers privés, plafonds, appels système refusés.

Ce qui est enfermé ne regarde pas ce module. Le processus tiède des copies (`runner`) s'en sert à l'intérieur de
bubblewrap, que `grader.jail.outside.seal` lance. Tout échec lève `ConfineError` : jamais une protection ne manque en
silence.
"""

from __future__ import annotations

import contextlib
import os
import platform
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from .kernel import (
    NEW_ALL,
    NODEV,
    NOEXEC,
    NOSUID,
    PRIVATE,
    REC,
    ConfineError,
    address_space,
    call,
    close_all_but,
    drop_capabilities,
    mount,
    private_memory,
    set_limits,
)
from .syscalls import filter_calls, seccomp_program

MIB = 1024 * 1024
MEMORY_BYTES = 3 * 1024 * MIB
"""Mémoire adressable accordée à chaque processus d'une copie, en plus de celle du processus tiède."""
TOTAL_BYTES = 2 * 1024 * MIB
"""Mémoire que tous les processus d'une copie peuvent occuper ensemble, en plus de celle du processus tiède."""
PROCESSES = 32
"""Processus et fils d'exécution d'une copie, tous ensemble."""
OPEN_FILES = 128
FILE_BYTES = 64 * MIB
DISK = "size=64m,nr_inodes=4096,mode=1777"
"""Le disque d'une copie : de la mémoire, bornée, qui disparaît avec elle."""
PLACES = ("/tmp", "/dev/shm")
"""Les seuls dossiers où une copie peut écrire."""
CGROUP = "/cgroup"
"""Le cgroup où le processus tiède peut en créer un par copie, si `grader.jail.outside.cgroups` en a obtenu un."""
_dead_cgroups: list[str] = []
WATCH_SECONDS = 0.1
SPAWN_SECONDS = 30.0


def limit_copy(alone: bool = True) -> None:
    """Les plafonds d'une copie qui ne dépendent pas de son travail. alone : elle a son propre espace d'utilisateurs.

    Sans lui, le nombre de processus compterait aussi ceux de la session de l'enseignant : il n'est pas plafonné.
    """
    set_limits(
        {
            "RLIMIT_AS": address_space() + MEMORY_BYTES,
            "RLIMIT_FSIZE": FILE_BYTES,
            "RLIMIT_NOFILE": OPEN_FILES,
            "RLIMIT_CORE": 0,
            **({"RLIMIT_NPROC": PROCESSES} if alone else {}),
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_MEMLOCK": 65536,
            "RLIMIT_SIGPENDING": 512,
            "RLIMIT_RTPRIO": 0,
            "RLIMIT_NICE": 0,
        }
    )


@dataclass
class Confined:
    """Une copie enfermée. guard : son gardien, enfant de ce processus ; pidfd : elle-même ; cgroup : le sien, ou ""."""

    guard: int
    pidfd: int
    cgroup: str = ""

    def kill(self) -> None:
        """Tue la copie et tout ce qu'elle a lancé : le premier processus d'un espace entraîne tous les autres."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.guard, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.guard, 0)
        os.close(self.pidfd)
        if self.cgroup:
            _dead_cgroups.append(self.cgroup)


def spawn(body: Callable[[], None], keep: int) -> Confined:
    """Dédouble ce processus ; l'enfant, enfermé, appelle `body`. keep : le seul descripteur qu'il garde.

    Deux processus naissent : le gardien, hors de l'espace de processus de la copie, compte sa mémoire et ne récolte pas
    sa mort (son numéro ne peut donc pas resservir) ; la copie, premier processus de son espace.
    """
    seccomp_program(platform.machine())  # écrit une fois ici, et non dans chaque copie
    reader, writer = os.pipe()
    cgroup = make_cgroup()
    guard = os.fork()
    if guard == 0:
        try:
            os.close(reader)
            if cgroup:
                _write(f"{cgroup}/cgroup.procs", "0")
            _be_guard(body, keep, writer)
        except BaseException as error:
            _say(writer, f"erreur {error}")
        finally:
            os._exit(1)
    os.close(writer)
    try:
        pid = _hear(reader)
        return Confined(guard, os.pidfd_open(pid), cgroup)
    except (ConfineError, OSError) as error:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(guard, signal.SIGKILL)
            os.waitpid(guard, 0)
        raise ConfineError(str(error)) from None
    finally:
        os.close(reader)


def make_cgroup() -> str:
    """Un cgroup neuf, borné, pour une copie ; "" si cette machine n'en donne pas (les autres plafonds restent)."""
    if not os.path.isdir(CGROUP):
        return ""
    for dead in _dead_cgroups[:]:  # une copie tuée met quelques millisecondes à quitter le sien
        with contextlib.suppress(OSError):
            os.rmdir(dead)
            _dead_cgroups.remove(dead)
    folder = f"{CGROUP}/copie-{time.monotonic_ns()}"
    os.mkdir(folder)
    limits = {"memory.max": TOTAL_BYTES, "memory.swap.max": 0, "memory.oom.group": 1, "pids.max": PROCESSES + 2}
    for name, value in limits.items():
        if os.path.exists(f"{folder}/{name}"):
            _write(f"{folder}/{name}", str(value))
    return folder


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as f:
        f.write(text)


def _say(writer: int, line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(writer, line.replace("\n", " ")[:1000].encode() + b"\n")


def _hear(reader: int) -> int:
    """Attend que la copie se dise enfermée ; rend son numéro vu d'ici."""
    text, end = b"", time.monotonic() + SPAWN_SECONDS
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            raise ConfineError("une copie ne s'est pas enfermée à temps")
        chunk = os.read(reader, 4096)
        text += chunk
        words = dict(line.partition(" ")[::2] for line in text.decode(errors="replace").splitlines())
        if "erreur" in words:
            raise ConfineError(words["erreur"])
        if "pid" in words and "pret" in words:
            return int(words["pid"])
        if not chunk:
            raise ConfineError("une copie est morte avant d'être enfermée")


def _be_guard(body: Callable[[], None], keep: int, writer: int) -> None:
    uid, gid = os.getuid(), os.getgid()
    os.setsid()  # une session à elle : sa part de la machine (autogroup) et non celle d'une voisine
    call("espaces de noms", "unshare", NEW_ALL)
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        _write(f"/proc/self/{name}", line)
    call("montages privés", "mount", None, b"/", None, REC | PRIVATE, None)
    for place in PLACES:
        mount("tmpfs", place, DISK, NOSUID | NODEV)
    if os.path.isdir(CGROUP):
        mount("tmpfs", CGROUP, "size=0,nr_inodes=1,mode=0555", NOSUID | NODEV | NOEXEC)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    for number in signals:
        signal.signal(number, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        try:
            _be_copy(keep, writer)
            _say(writer, "pret oui")
            os.close(writer)
        except BaseException as error:
            _say(writer, f"erreur {error}")
            os._exit(1)
        try:
            body()
        finally:
            os._exit(0)
    _say(writer, f"pid {pid}")
    close_all_but()
    _watch(pid)


def _be_copy(keep: int, writer: int) -> None:
    mount("proc", "/proc", "", NOSUID | NODEV | NOEXEC)
    close_all_but(keep, writer)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    with contextlib.suppress(OSError):
        _write("/proc/self/oom_score_adj", "1000")
    limit_copy()
    drop_capabilities()
    filter_calls()


def _watch(pid: int) -> None:
    """Tue la copie si ses processus occupent ensemble trop de mémoire. Ne rend jamais la main : on l'arrêtera."""
    watched = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    start = 0
    while not poll.poll(WATCH_SECONDS * 1000):
        occupied = private_memory()
        start = start or occupied.get("1", 0)
        if sum(max(0, size - start) for size in occupied.values()) > TOTAL_BYTES:
            signal.pidfd_send_signal(watched, signal.SIGKILL)
            break
    while True:
        signal.pause()
