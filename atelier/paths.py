"""Où sont les choses : la racine du cours, ses ressources, et le dossier où l'atelier retient ce que vous avez fait."""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def root() -> Path:
    """Racine du cours : `COURS_RACINE`, sinon le dossier qui contient `atelier`, sinon un parent du dossier courant.

    Lève `FileNotFoundError` si aucun de ces dossiers ne contient `course.toml`.
    """
    given = os.environ.get("COURS_RACINE")
    here = Path.cwd().resolve()
    candidates = [Path(given)] if given else [Path(__file__).resolve().parent.parent, here, *here.parents]
    for folder in candidates:
        if (folder / "course.toml").is_file():
            return folder
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


def state_dir() -> Path:
    """Dossier où sont gardés progression, tableau et variantes (pas forcément créé).

    `COURS_ETAT` s'il est donné ; sinon `notebooks/.atelier` du cours ; si le carnet est ouvert ailleurs
    (devoir récupéré par nbgrader), `.atelier` à côté des dossiers de devoirs.
    """
    if given := os.environ.get("COURS_ETAT"):
        return Path(given)
    here = Path.cwd().resolve()
    if here.is_relative_to(root()):
        return root() / "notebooks" / ".atelier"
    return (here.parent if here.name in chapter_titles() else here) / ".atelier"


def write_state(relative: str, data: bytes | str | dict | list) -> bool:
    """Écrit un fichier d'état d'un seul coup, jamais à moitié. Rend False si le dossier est en lecture seule."""
    if isinstance(data, (dict, list)):
        data = json.dumps(data, ensure_ascii=False, indent=1)
    if isinstance(data, str):
        data = data.encode()
    target = state_dir() / relative
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent)
        with os.fdopen(handle, "wb") as f:
            f.write(data)
        os.replace(temporary, target)
    except OSError:
        return False
    return True
