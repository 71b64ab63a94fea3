"""Où sont les choses : la racine du cours, ses ressources, et le dossier où le noyau a commencé."""

from __future__ import annotations

import os
import sys
import tomllib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from atelier import settings

try:
    _FIRST_FOLDER = os.getcwd()
except OSError:  # le dossier courant a été effacé
    _FIRST_FOLDER = os.path.expanduser("~")


def shell() -> Any:
    """Le noyau du carnet (ou IPython) où l'on tourne ; None ailleurs."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def started_in() -> Path:
    """Le dossier où le noyau a commencé, quoi que `os.chdir` ait fait depuis."""
    return Path(getattr(shell(), "starting_dir", None) or _FIRST_FOLDER).resolve()


@cache
def root() -> Path:
    """Le dossier qui contient course.toml et assets/ : le dépôt d'où vient `atelier`, ou `atelier` lui-même, quand il
    est installé. `COURS_RACINE` en désigne un autre ; le dossier courant n'y est pour rien.

    Lève `FileNotFoundError` si course.toml n'y est pas.
    """
    package = Path(__file__).resolve().parent
    given = settings.course_folder()
    candidates = [started_in() / given] if given else [package, package.parent]
    for folder in candidates:
        if (folder / "course.toml").is_file():
            return folder.resolve()
    if given:
        raise FileNotFoundError(
            f"Il n'y a pas de course.toml dans {candidates[0]}, le dossier que donne la variable d'environnement "
            "COURS_RACINE\u00a0: corrigez-la, ou retirez-la pour lire le cours d'où vient l'atelier."
        )
    raise FileNotFoundError(
        f"L'atelier de {package} est incomplet\u00a0: course.toml n'y est pas. Installez-le de nouveau."
    )


@cache
def course() -> dict[str, Any]:
    """Le contenu de course.toml."""
    return read_course(root())


def read_course(folder: Path) -> dict[str, Any]:
    """Le contenu du course.toml de ce dossier. Lève `OSError`, qui dit ce qui ne va pas, s'il ne se lit pas."""
    path = folder / "course.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OSError(f"Le fichier {path} ne se lit pas\u00a0: {error}.") from error


def chapter_titles() -> dict[str, str]:
    """Nom de chaque chapitre → titre, dans l'ordre du cours."""
    return {c["name"]: c["title"] for c in course()["chapters"]}


def asset(*parts: str) -> Path:
    """Chemin d'une ressource : `asset("colibri")`, `asset("corpora", "a_test.txt")`."""
    return root().joinpath("assets", *parts)


def write_atomically(path: Path, data: bytes) -> None:
    """Écrit un fichier entier, ou laisse l'ancien : personne n'en voit jamais la moitié. Crée son dossier."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partiel")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
