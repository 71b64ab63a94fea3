"""Où sont les choses : la racine du cours, ses ressources, et le dossier où le noyau a commencé."""

from __future__ import annotations

import os
import sys
import tomllib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

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
    """Racine du cours : `COURS_RACINE`, sinon le dossier qui contient `atelier`, sinon un parent du dossier
    où le noyau a commencé.

    Lève `FileNotFoundError` si aucun de ces dossiers ne contient `course.toml`.
    """
    given = os.environ.get("COURS_RACINE")
    here = started_in()
    candidates = [here / given] if given else [Path(__file__).resolve().parent.parent, here, *here.parents]
    for folder in candidates:
        if (folder / "course.toml").is_file():
            return folder.resolve()
    raise FileNotFoundError(
        "course.toml est introuvable : ouvrez le carnet depuis le dossier du cours, "
        "ou donnez ce dossier dans la variable d'environnement COURS_RACINE."
    )


@cache
def course() -> dict[str, Any]:
    """Le contenu de course.toml."""
    return tomllib.loads((root() / "course.toml").read_text(encoding="utf-8"))


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
