"""Ce que l'atelier retient de vous : progression, tableau, variantes. Un seul dossier, une seule façon d'y écrire.

Le dossier est choisi une fois par noyau, d'après le carnet et non d'après le dossier courant. On y écrit sous un verrou
que le système rend si le noyau meurt, d'un seul coup, en gardant la version précédente. Un fichier abîmé est mis de
côté et la version précédente reprise ; un dossier où l'on ne peut pas écrire n'empêche que de se souvenir.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from atelier import paths, settings
from atelier.text import number

PROGRESS, BOARD, VARIANTS = "progression.json", "tableau.json", "variantes"
"""Les fichiers du dossier d'état (les variantes en sont un sous-dossier)."""
FOLDER = ".atelier"
DRIVE = Path("/content/drive/MyDrive")
"""Où Colab monte le Drive de qui le demande."""
LOCK = "verrou"
LOCK_SECONDS = 10.0
"""Attente, au plus, d'un autre noyau en train d'écrire."""

Data = Any
Clean = Callable[[Any], tuple[Data, bool]]
"""Ce qu'un fichier lu contient de valable, et si quelque chose en a été laissé. Lève `ValueError` s'il n'y a rien."""
Change = Callable[[Data], None]

_pending: dict[str, list[Change]] = {}
"""Par fichier, les changements qui n'ont pas encore pu être écrits ; rejoués à l'écriture suivante."""
_waiting: dict[str, bytes] = {}
"""De même pour les autres fichiers (poids d'une variante)."""
_said: set[str] = set()


def say_once(key: str, text: str) -> None:
    """Affiche une phrase, une fois par noyau."""
    if key not in _said:
        _said.add(key)
        print(text)


# --- Où --------------------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Le dossier d'état (pas forcément créé), le même du début à la fin d'un noyau.

    `COURS_ETAT` s'il est donné. Sinon, d'après le dossier du carnet : `notebooks/.atelier` dans le dossier du cours ;
    ailleurs (devoir récupéré par nbgrader), `.atelier` à côté des dossiers de devoirs. Un dossier d'état qui existe
    déjà un cran plus haut ou plus bas est repris. Dans Colab, le Drive, s'il est monté.
    """
    if given := settings.state_folder():
        return paths.started_in() / Path(given).expanduser()
    return _located()


@cache
def _located() -> Path:
    if (drive := drive_folder()) is not None:
        return drive / FOLDER
    starts = list(dict.fromkeys(_starts()))
    for start in starts:
        for place in _places(start):
            if _is_store(place):
                return place
    return next(_places(starts[0]))


def in_colab() -> bool:
    """Vrai dans Google Colab, dont la machine s'efface à la fin de la séance."""
    return "google.colab" in sys.modules


def drive_folder() -> Path | None:
    """Le dossier du cours dans le Drive de Colab, s'il est monté."""
    return DRIVE / "cours" if in_colab() and DRIVE.is_dir() else None


def volatile() -> str:
    """Ce qui se perdra à la fin de la séance, et comment le garder ; vide si rien ne se perd."""
    if not in_colab() or settings.state_folder() or drive_folder() is not None:
        return ""
    return (
        "Colab efface cette machine à la fin de la séance\u00a0: progression, tableau et variantes avec elle. Pour les "
        "garder, montez votre Drive (l'icône de dossier, à gauche) et redémarrez le noyau\u202f; ou exécutez "
        "atelier.save_work() avant de partir, atelier.restore_work() en revenant."
    )


def _starts() -> Iterator[Path]:
    """Le dossier du carnet s'il se laisse connaître, puis celui où le noyau a commencé."""
    shell = paths.shell()
    for name in (shell and shell.user_ns.get("__vsc_ipynb_file__"), os.environ.get("JPY_SESSION_NAME")):
        if isinstance(name, str) and os.path.isabs(name):
            notebook = Path(os.path.realpath(name))
            place = notebook if notebook.is_dir() else notebook.parent
            if place.is_dir():
                yield place
    yield paths.started_in()


def _places(start: Path) -> Iterator[Path]:
    """Où l'état peut être pour un noyau qui commence en `start` : d'abord sa place, puis celles où il serait déjà."""
    for course in _courses(start):
        notebooks = course / "notebooks"
        if start.is_relative_to(course) or (course.is_relative_to(start) and os.access(notebooks, os.W_OK)):
            yield notebooks / FOLDER
            break
    else:
        if any(start.name in (title, title.partition("_")[0]) for title in paths.chapter_titles()):
            yield start.parent / FOLDER
    yield start / FOLDER
    yield start.parent / FOLDER
    with suppress(OSError):
        below = [p for p in sorted(start.iterdir()) if not p.name.startswith(".") and _is_store(p / FOLDER)]
        if len(below) == 1:
            yield below[0] / FOLDER


def _courses(start: Path) -> Iterator[Path]:
    """Les dossiers de cours où ce noyau peut être : d'où vient l'atelier, et, s'il est installé, où est le carnet."""
    yield paths.root()
    for place in (Path(sys.prefix).parent, start, *start.parents):
        if (place / "cours.py").is_file() and (place / "notebooks").is_dir():
            yield place


def _is_store(place: Path) -> bool:
    """Vrai si quelqu'un a déjà travaillé ici, et que c'est nous."""
    try:
        found = [place / name for name in (PROGRESS, BOARD, VARIANTS) if (place / name).exists()]
        return bool(found) and (not hasattr(os, "getuid") or place.stat().st_uid == os.getuid())
    except OSError:
        return False


# --- Lire ------------------------------------------------------------------------------------------------------------


def read(name: str, clean: Clean) -> Data:
    """Le contenu d'un fichier d'état, y compris ce qui n'a pas encore pu être écrit."""
    return _replayed(name, _load(name, clean))


def read_file(relative: str) -> bytes | None:
    """Les octets d'un autre fichier du dossier d'état ; None s'il n'y est pas."""
    if relative in _waiting:
        return _waiting[relative]
    path = folder() / relative
    return path.read_bytes() if path.is_file() else None


def _replayed(name: str, data: Data) -> Data:
    for change in _pending.get(name, ()):
        change(data)
    return data


def _load(name: str, clean: Clean, locked: bool = False) -> Data:
    """Ce que dit le disque. Un fichier abîmé est mis de côté, et dit ; la version précédente est reprise."""
    path = folder() / name
    try:
        found = _parsed(path, clean)
    except ValueError:
        if not locked:  # un autre noyau le répare peut-être en ce moment
            with suppress(OSError), _locked():
                return _load(name, clean, locked=True)
        _put_aside(path, name)
        found = None
    except OSError as error:
        found = None
        _unreadable.add(name)
        say_once(
            f"unread {name}",
            f"Le fichier {path} ne se laisse pas lire ({error.strerror})\u00a0: il n'est pas touché, "
            "et ce qu'il contient manquera à cette séance.",
        )
    else:
        _unreadable.discard(name)
    if found is None:
        with suppress(OSError, ValueError):
            found = _parsed(_previous(path), clean)
        if found is not None and name not in _unreadable:
            say_once(
                f"restored {name}",
                f"La version précédente de {name} est reprise\u00a0: il n'y manque que votre dernière action.",
            )
    data, dropped = found or (clean(None)[0], False)
    if dropped:
        _put_aside(path, name, keep=True)
    return data


def _parsed(path: Path, clean: Clean) -> tuple[Data, bool] | None:
    """Le contenu d'un fichier ; None s'il n'existe pas. Lève `ValueError` s'il est abîmé."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return None
    try:
        return clean(json.loads(text))
    except RecursionError:
        raise ValueError("trop d'emboîtements") from None


_unreadable: set[str] = set()
"""Fichiers présents mais illisibles (droits, disque) : on ne les remplace pas."""


def _previous(path: Path) -> Path:
    """Où la version précédente d'un fichier est gardée."""
    return path.with_name(f"{path.stem}.precedente{path.suffix}")


def _put_aside(path: Path, name: str, keep: bool = False) -> None:
    """Met de côté un fichier abîmé (sa copie, si une partie en reste valable), une fois, et le dit."""
    content = _bytes(path)
    stem, suffix = os.path.splitext(name)
    asides = (path.with_name(f"{stem}.abimee-{n}{suffix}") for n in itertools.count(1))
    aside = next(p for p in asides if not p.exists() or (keep and _bytes(p) == content))
    if aside.exists():
        return
    try:
        shutil.copyfile(path, aside) if keep else os.replace(path, aside)
    except OSError:
        where = f"il reste tel quel dans {path.parent}"
    else:
        where = f"il est gardé sous {aside.name}"
    what = "contenait des parties illisibles" if keep else "était illisible"
    then = "le reste est repris" if keep else "l'atelier continue sans lui"
    say_once(f"damaged {name}", f"Le fichier {name} {what}\u00a0: {where}, et {then}.")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# --- Écrire ----------------------------------------------------------------------------------------------------------


def update(name: str, clean: Clean, change: Change, files: dict[str, bytes] | None = None) -> Data:
    """Relit `name`, lui applique `change`, l'écrit d'un seul coup, avec les autres fichiers donnés, sous le verrou.

    Ce qui n'a pas pu être écrit est gardé en mémoire, une phrase le dit, et la prochaine écriture le reprendra.
    """
    _waiting.update(files or {})
    try:
        with _locked():
            data = _replayed(name, _load(name, clean, locked=True))
            change(data)
            if name in _unreadable:
                raise PermissionError(errno.EACCES, "fichier illisible")
            for relative in list(_waiting):
                _write(folder() / relative, _waiting[relative])
                del _waiting[relative]
            _write(folder() / name, json.dumps(data, ensure_ascii=False, indent=1).encode(errors="replace"), keep=True)
    except OSError as error:
        _pending.setdefault(name, []).append(change)
        _say_unwritten(error)
        return read(name, clean)
    _pending.pop(name, None)
    return data


def _say_unwritten(error: OSError) -> None:
    full = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    if error.errno in full:
        why = f"Il n'y a plus de place pour écrire dans {folder()} (disque plein, ou quota atteint)"
    elif isinstance(error, TimeoutError):
        why = f"Un autre carnet retient {folder() / LOCK} depuis {number(LOCK_SECONDS, decimals=0)} secondes"
    else:
        why = f"Le dossier {folder()} n'accepte pas d'écriture (lecture seule\u202f?)"
    say_once(
        f"unwritten {why}",
        f"{why}\u00a0: tout fonctionne, mais ce que vous faites maintenant sera oublié à la fermeture du carnet.",
    )


@contextmanager
def _locked() -> Iterator[None]:
    """Un seul noyau écrit à la fois. Le système rend le verrou d'un noyau mort ; là où il n'en sait pas poser
    (certains dossiers de réseau), on écrit sans : chaque fichier reste entier."""
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    handle = os.open(place / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if _acquire(handle):
            for left in (*place.glob(".partiel-*"), *place.glob("*/.partiel-*")):  # ce qu'un noyau tué écrivait
                with suppress(OSError):
                    left.unlink()
        yield
    finally:
        os.close(handle)  # rend le verrou


def _acquire(handle: int) -> bool:
    """Attend le verrou. Faux si ce système de fichiers n'en a pas ; `TimeoutError` si un autre le retient."""
    busy = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            if sys.platform == "win32":
                import msvcrt

                os.lseek(handle, 0, os.SEEK_SET)
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in busy:
                return False
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "verrou retenu")
        time.sleep(0.01)


def _write(path: Path, content: bytes, keep: bool = False, durable: bool = True) -> None:
    """Remplace un fichier, jamais à moitié, et attend qu'il soit sur le disque ; `keep` garde sa version précédente."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if keep and path.exists():
        if _bytes(path) == content:
            return
        _write(_previous(path), _bytes(path), durable=False)
    handle, temporary = tempfile.mkstemp(prefix=".partiel-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content)
            f.flush()
            if durable:
                os.fsync(f.fileno())
        _replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        _sync_folder(path.parent)


def _sync_folder(place: Path) -> None:
    """Le nom d'un fichier écrit survit ainsi à une coupure de courant (sans objet sous Windows)."""
    with suppress(OSError, AttributeError):
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _replace(temporary: str, path: Path) -> None:
    """Sous Windows, un fichier que quelqu'un lit ne se remplace pas : on réessaie une seconde."""
    for attempt in range(100):
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if sys.platform != "win32" or attempt == 99:
                raise
            time.sleep(0.01)
