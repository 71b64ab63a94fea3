"""Un cgroup (version 2) par copie, là où cette machine l'accorde : la mémoire et les processus comptés par le noyau.

Ailleurs (cgroups de version 1, utilisateur sans délégation), `confine` s'en tient aux plafonds par processus et
à son gardien. Les deux existent toujours : le cgroup s'ajoute, il ne remplace rien.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from grader import retries

NEEDED = frozenset({"memory", "pids"})
INSIDE = "/cgroup"
"""Où le dossier est monté dans le scellé, pour le processus tiède seulement."""


def mount_point() -> Path | None:
    """Où la version 2 est montée."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
            _, where, kind, *_ = line.split()
            if kind == "cgroup2":
                return Path(where)
    return None


def own(mount: Path) -> Path:
    """Le cgroup de ce processus."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        if line.startswith("0::"):
            return mount / line[3:].lstrip("/")
    return mount


def candidates(mount: Path) -> Iterator[Path]:
    """Où en créer un : à la racine pour root ; sinon là, au-dessus de ce processus, où cet utilisateur a la main."""
    if os.geteuid() == 0:
        yield mount
        return
    here = own(mount)
    for folder in reversed([here, *here.parents]):
        if folder.is_relative_to(mount) and os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK):
            yield folder


def create(uid: int | None, needed: frozenset[str] = NEEDED) -> Path | None:
    """Un cgroup neuf, délégué à `uid`, où le processus tiède en créera un par copie. None si ce n'est pas possible."""
    if (mount := mount_point()) is None:
        return None
    for parent in candidates(mount):
        folder = parent / f"correction-{os.getpid()}-{os.urandom(4).hex()}"
        try:
            if not needed <= set((parent / "cgroup.subtree_control").read_text(encoding="ascii").split()):
                continue
            folder.mkdir()
            (folder / "cgroup.subtree_control").write_text(" ".join(f"+{n}" for n in sorted(needed)), encoding="ascii")
            (folder / "tiede").mkdir()
            if uid is not None:
                for path in (folder, folder / "cgroup.procs", folder / "tiede", folder / "tiede" / "cgroup.procs"):
                    os.chown(path, uid, uid)
            return folder
        except OSError:
            remove(folder)
    return None


def remove(folder: Path) -> None:
    """Efface ce cgroup, une fois ses processus morts ; ce qui résiste reste vide et sans effet."""
    for _ in retries.CGROUP:
        for path in [*folder.glob("*/"), folder]:
            with contextlib.suppress(OSError):
                path.rmdir()
        if not folder.is_dir():
            return
