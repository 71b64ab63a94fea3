"""Là où le cours s'installe : ce que cette machine et ce dossier permettent, dit avant de rien télécharger."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from atelier.text import number

FOLDER = ".venv"
LOCK = ".venv.verrou"
NEEDED_BYTES = 3 * 10**9
OLDEST, NEWEST = (3, 11), (3, 13)
OLDEST_MACOS, OLDEST_GLIBC = (14, 0), (2, 28)
LINUX_MACHINES = ("x86_64", "aarch64")

COLAB = (
    "Le cours se suit dans Google Colab, sans rien installer\u00a0: voyez «\u00a0Vous êtes seul dans Colab\u00a0» "
    "dans README.md. Sinon, prenez une machine sous Linux, un Mac à puce Apple, ou Windows sur processeur Intel ou AMD."
)
OTHER_PYTHON = "Prenez un Python ordinaire, 3.11, 3.12 ou 3.13, en 64 bits, et relancez cette commande avec lui."


class Trouble(Exception):
    """Un souci prévu : ce qui ne va pas, où, et quoi faire, en français."""


# ── La machine ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Machine:
    """Ce qui décide des paquets tout faits qui existent pour ce Python. target : la plate-forme, comme pip la nomme."""

    version: tuple[int, int]
    bits: int
    target: str
    system: str = ""
    kind: str = "cpython"
    translated: bool = False
    """Vrai pour un Python Intel qu'un Mac à puce Apple traduit."""


def this_machine() -> Machine:
    """Cette machine, et le Python en cours."""
    target, system = sysconfig.get_platform(), ""
    if sys.platform == "darwin":  # un Python « universal2 » est l'un ou l'autre, selon le processeur
        target, system = f"macosx-{platform.machine()}", platform.mac_ver()[0]
    elif sys.platform == "win32":  # un Python x86-64 reste x86-64 sur un processeur ARM
        target = target if target.startswith("win") else f"win-{platform.machine().lower()}"
    elif sys.platform == "linux":
        libc, version = platform.libc_ver()
        musl = "musl" in str(sysconfig.get_config_var("HOST_GNU_TYPE"))
        system = "musl" if musl else version if libc == "glibc" else ""
    kind = sys.implementation.name + ("-t" if "t" in getattr(sys, "abiflags", "") else "")
    bits = 64 if sys.maxsize > 2**32 else 32
    return Machine(sys.version_info[:2], bits, target, system, kind, _is_translated())


def _is_translated() -> bool:
    if sys.platform != "darwin":
        return False
    with contextlib.suppress(OSError):
        done = subprocess.run(["sysctl", "-n", "sysctl.proc_translated"], capture_output=True, text=True)
        return done.stdout.strip() == "1"
    return False


def unsupported(machine: Machine) -> str:
    """Pourquoi aucun paquet tout fait n'existe pour cette machine, et quoi faire ; "" s'il y en a."""
    name, _, processor = machine.target.rpartition("-")
    version = ".".join(map(str, machine.version))
    if machine.kind not in ("cpython", "cpython-t"):
        return f"Ce Python est un {machine.kind}\u202f; les paquets du cours n'existent pas pour lui. {OTHER_PYTHON}"
    if machine.version > NEWEST:
        return f"Ce Python {version} est trop récent pour les paquets du cours, qui vont jusqu'à 3.13. {OTHER_PYTHON}"
    if machine.kind == "cpython-t":
        return f"Ce Python {version} est la variante «\u00a0t\u00a0», sans paquets tout faits. {OTHER_PYTHON}"
    if machine.bits < 64:
        return f"Ce Python est en 32 bits\u202f; torch n'existe qu'en 64 bits. {OTHER_PYTHON}"
    if name.startswith("macosx"):
        if machine.translated:
            return (
                "Ce Python est celui des Mac Intel, traduit sur votre Mac à puce Apple\u202f; torch n'existe plus pour "
                "lui. Prenez un Python pour puce Apple (arm64), et relancez cette commande avec lui."
            )
        if processor == "x86_64":
            return f"torch n'a plus de paquet pour les Mac Intel. {COLAB}"
        if machine.system and _numbers(machine.system) < OLDEST_MACOS:
            return f"onnxruntime n'a pas de paquet pour macOS {machine.system}\u00a0: il en faut 14 ou plus. {COLAB}"
    elif machine.target.startswith("win-arm"):
        return f"torch et onnxruntime n'ont pas de paquet pour Windows sur ARM. {COLAB}"
    elif machine.target.startswith("linux"):
        if processor not in LINUX_MACHINES:
            return f"torch n'a pas de paquet pour le processeur de cette machine ({processor}). {COLAB}"
        if machine.system == "musl":
            return f"torch n'a pas de paquet pour les systèmes à musl (Alpine). {COLAB}"
        if machine.system and _numbers(machine.system) < OLDEST_GLIBC:
            return f"Ce système est trop ancien pour torch\u00a0: sa glibc est {machine.system}, il faut 2.28. {COLAB}"
    elif not machine.target.startswith("win"):
        return f"Les paquets du cours n'existent pas pour ce système ({machine.target}). {COLAB}"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


# ── Le dossier ───────────────────────────────────────────────────────────────────────────────────────────────────────


def wheel(root: Path) -> Path | None:
    """La roue d'atelier que ce dossier donne à installer ; None dans le dépôt, où l'atelier s'emploie sur place."""
    if (root / "grader").is_dir():
        return None
    return max(root.glob("atelier-*.whl"), default=None)


def wheel_content(wheel: Path) -> str:
    """Le nom et l'empreinte de chaque fichier d'une roue ; lève `Trouble` si elle est abîmée."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
            return archive.read(record).decode()
    except (zipfile.BadZipFile, StopIteration, ValueError) as error:
        raise Trouble(f"Le fichier {wheel} est abîmé\u00a0: reprenez le dossier du cours en entier.") from error


def check_place(root: Path) -> None:
    """Lève `Trouble` si le dossier ne convient pas ou ne s'écrit pas, si la place ou un module de Python manque."""
    if os.pathsep in str(root):
        raise Trouble(
            f"Le nom du dossier {root} contient «\u00a0{os.pathsep}\u00a0», qui sépare les dossiers entre eux dans les "
            "réglages du système\u00a0: Python ne peut rien y installer. Renommez ce dossier, puis relancez depuis là."
        )
    probe = root / f"{FOLDER}.essai"
    try:
        probe.mkdir(exist_ok=True)
        probe.rmdir()
    except OSError as error:
        raise not_writable(root, error) from error
    free = shutil.disk_usage(root).free
    if free < NEEDED_BYTES:
        raise Trouble(
            f"Il reste {number(free / 1e9, decimals=1, unit='Go')} sur le disque de {root}\u202f; "
            "il en faut environ 3. Faites de la place, puis relancez."
        )
    missing = [name for name in ("venv", "ensurepip") if not has_module(name)]
    if missing:
        raise Trouble(
            f"Il manque à ce Python ({sys.executable}) le module {' et '.join(missing)}.\n"
            "Sous Debian ou Ubuntu\u00a0: sudo apt install python3-venv. Ailleurs, réinstallez Python, puis relancez."
        )


def not_writable(root: Path, error: OSError) -> Trouble:
    """Le souci d'un dossier où l'on ne peut pas écrire."""
    return Trouble(
        f"Le dossier {root} ne peut pas être écrit ({error.strerror}).\n"
        "Copiez le cours dans un dossier à vous (par exemple «\u00a0Documents\u00a0»), puis relancez depuis là."
    )


def has_module(name: str) -> bool:
    """Vrai si ce Python sait importer le module `name`."""
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def temporary(folder: Path) -> dict[str, str]:
    """Où pip dépliera ce qu'il télécharge : le dossier temporaire du système s'il est assez grand, sinon `folder`."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(usual := tempfile.gettempdir()).free >= NEEDED_BYTES:
            return {}
        print(f"Le dossier temporaire {usual} est trop petit pour l'installation\u00a0: {folder} servira à sa place.")
    folder.mkdir(parents=True, exist_ok=True)
    return dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))


def writable(folder: Path) -> bool:
    """Vrai si l'on peut écrire dans ce dossier, ou le créer."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def sentence(error: OSError) -> str:
    """Ce que le système a refusé, et quoi faire."""
    where = f" ({error.filename})" if error.filename else ""
    what = f"Le système a refusé une opération{where}\u00a0: {error.strerror or error}."
    if error.errno == 28:
        return f"{what}\nLe disque est plein. Faites de la place (3 Go environ), puis relancez."
    if error.errno in (1, 13, 30):
        return f"{what}\nVérifiez que ce dossier est à vous et peut être écrit, puis relancez."
    return f"{what}\nRelancez une fois. Si cela recommence, envoyez ces lignes à la personne qui enseigne."


# ── Un seul à la fois ────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def alone(root: Path) -> Iterator[int | None]:
    """Le temps du bloc, aucun autre `python cours.py` n'installe dans ce dossier ; le second attend, en le disant.

    Le verrou est celui du système : il tombe avec le dernier processus qui le tient, tué ou non. Rend de quoi le
    confier à un processus lancé (None là où cela ne se peut), pour qu'un pip orphelin le tienne encore.
    """
    try:
        file = open(root / LOCK, "ab")  # noqa: SIM115
    except OSError as error:
        raise not_writable(root, error) from error
    with file:
        if not _lock(file, wait=False):
            print(
                "Une autre fenêtre installe le cours dans ce dossier\u00a0: j'attends qu'elle ait fini "
                "(Ctrl+C pour renoncer)."
            )
            _lock(file, wait=True)
        yield file.fileno() if os.name != "nt" else None


def _lock(file: BinaryIO, wait: bool) -> bool:
    """Prend le verrou ; faux si un autre le tient. Un système de fichiers qui n'en a pas laisse passer."""
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return True
            except OSError:  # LK_LOCK n'attend que dix secondes
                if not wait:
                    return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
