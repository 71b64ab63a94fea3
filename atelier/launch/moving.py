"""Un environnement déplacé ou renommé se répare sur place : seuls ses programmes savent où il était."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

LONGEST_SHEBANG = 127
SHELL = b"#!/bin/sh\n'''exec' "
"""Comment pip commence un programme dont le Python a un nom trop long ou à espaces pour une première ligne."""


def repair(folder: Path, before: Path) -> bool:
    """Rend utilisable un environnement qui était en `before` et se trouve en `folder`. Faux si cela ne se peut."""
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    if not scripts.is_dir():
        return False
    try:
        for link in scripts.iterdir():
            if link.is_symlink() and not link.exists():  # le Python dont il est fait a changé de place
                link.unlink()
        # Sans --clear : activate, pyvenv.cfg et les liens vers Python sont récrits, les paquets restent.
        command: list[str | Path] = [sys.executable, "-m", "venv", "--without-pip", folder]
        if subprocess.run(command, capture_output=True).returncode:
            return False
        for path in scripts.iterdir():
            if path.is_file() and not path.is_symlink():
                move_program(path, before, folder)
    except OSError:
        return False
    return True


def move_program(path: Path, before: Path, after: Path) -> None:
    """Récrit, d'un seul coup, un programme qui nomme le Python de `before`."""
    data = path.read_bytes()
    old, new = os.fsencode(before), os.fsencode(after)
    if old + os.sep.encode() not in data[:1000] + data[-200_000:] or data[:4] == b"\x7fELF":
        return
    if data.startswith(b"#!"):
        data = _header(data, old, new)
    data = data.replace(old + os.sep.encode(), new + os.sep.encode())
    temporary = path.with_name(f".{path.name}.nouveau")
    temporary.write_bytes(data)
    with contextlib.suppress(OSError):
        temporary.chmod(path.stat().st_mode)
    os.replace(temporary, path)


def _header(data: bytes, old: bytes, new: bytes) -> bytes:
    """Le programme, sa première ligne récrite comme pip l'écrirait pour la nouvelle place."""
    if data.startswith(SHELL):
        first, _, body = data[len(SHELL) :].partition(b"\n' '''\n")
        python = first.partition(b' "$0"')[0].strip(b'"')
    else:
        first, _, body = data[2:].partition(b"\n")
        python = first.strip()
    if not python.startswith(old + b"/"):
        return data
    python = new + python[len(old) :]
    if b" " in python or len(python) + 3 > LONGEST_SHEBANG:
        return SHELL + b'"' + python + b'" "$0" "$@"\n' + b"' '''\n" + body
    return b"#!" + python + b"\n" + body
