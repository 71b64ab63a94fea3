"""Ce que le noyau Linux offre pour tenir un processus : la libc appelée par son nom, droits, plafonds, mémoire.

Ne connaît que la bibliothèque standard. Tout échec qui retirerait une protection lève `ConfineError`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
from functools import cache

NEW_MOUNT, NEW_CGROUP, NEW_UTS, NEW_IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEW_USER, NEW_PID, NEW_NET = 0x10000000, 0x20000000, 0x40000000
NEW_ALL = NEW_MOUNT | NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_USER | NEW_PID | NEW_NET
NOSUID, NODEV, NOEXEC, REC, PRIVATE = 2, 4, 8, 0x4000, 0x40000
SET_PDEATHSIG, SET_DUMPABLE, SET_NO_NEW_PRIVS, SET_SECCOMP, CAP_AMBIENT = 1, 4, 38, 22, 47
_COLLAPSE = 25


class ConfineError(Exception):
    """Le noyau a refusé une des protections. Le texte dit laquelle."""


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def call(what: str, function: str, *arguments: object) -> None:
    """Appelle la libc ; lève `ConfineError` si elle refuse."""
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    if getattr(_libc(), function)(*wide) != 0:
        raise ConfineError(f"{what} : {os.strerror(ctypes.get_errno())}")


def mount(kind: str, target: str, options: str, flags: int) -> None:
    name = kind.encode()
    call(f"monter {kind} sur {target}", "mount", name, target.encode(), name, flags, options.encode())


# ---------------------------------------------------------------------------------------------- droits


def become(uid: int) -> None:
    """De root, dans un bubblewrap sans /proc, à un utilisateur sans droits, pour toujours."""
    mount("proc", "/proc", "", NOSUID | NODEV | NOEXEC)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    call("no_new_privs", "prctl", SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("dumpable", "prctl", SET_DUMPABLE, 1, 0, 0, 0)  # sans quoi /proc/self reste à root


def drop_capabilities() -> None:
    """Rend tous les privilèges que donne un espace d'utilisateurs neuf ; aucun programme lancé ne les retrouve."""
    call("no_new_privs", "prctl", SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("privilèges ambiants", "prctl", CAP_AMBIENT, 4, 0, 0, 0)
    header = struct.pack("<Ii", 0x20080522, 0)
    call("privilèges", "capset", header, bytes(24))


# ---------------------------------------------------------------------------------------------- plafonds


def set_limits(limits: dict[str, int]) -> None:
    """Plafonds du système sur ce processus et ses enfants, abaissés pour toujours. Un nom inconnu ici est ignoré."""
    for name, value in limits.items():
        if (kind := getattr(resource, name, None)) is not None:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (value, value))


def die_with_parent() -> None:
    """Ce processus mourra avec celui dont il est né, même tué d'un coup. Sans effet ailleurs que sous Linux."""
    parent = os.getppid()
    with contextlib.suppress(ConfineError, AttributeError, OSError):
        call("fin avec le parent", "prctl", SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # mort entre-temps
        os._exit(1)


def address_space() -> int:
    """Mémoire adressable de ce processus, en octets (0 si le système ne le dit pas)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as f:
            return int(f.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def close_all_but(*kept: int) -> None:
    """Ferme tous les descripteurs au-delà de 2, sauf ceux-là."""
    start = 3
    for fd in sorted(kept):
        os.closerange(start, fd)
        start = max(start, fd + 1)
    os.closerange(start, 65536)


# ---------------------------------------------------------------------------------------------- mémoire


def private_memory() -> dict[str, int]:
    """Numéro → octets de mémoire anonyme ou partagée, pour les processus que montre /proc."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/status", "rb") as f:
                text = f.read()
                sizes = [text.split(key, 1)[1].split(None, 1)[0] for key in (b"RssAnon:", b"RssShmem:")]
                found[name] = 1024 * sum(map(int, sizes))
    return found


def gather_memory() -> None:
    """Réunit la mémoire du processus tiède en grandes pages : le dédoubler coûte dix fois moins (dès Linux 6.1)."""
    advise = _libc().madvise
    huge = 2 * 1024 * 1024
    with contextlib.suppress(OSError, ValueError), open("/proc/self/maps", encoding="utf-8") as f:
        for line in f.read().splitlines():
            span, rights, *_ = line.split()
            low, high = (int(x, 16) for x in span.split("-"))
            low, high = -(-low // huge) * huge, high // huge * huge
            if rights == "rw-p" and high > low:
                advise(ctypes.c_void_p(low), ctypes.c_size_t(high - low), _COLLAPSE)
