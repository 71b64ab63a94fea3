"""Lire les paquets des chapitres (`assets/packs`) : déclarations publiques, quiz, cas visibles.

La partie JSON se lit sans torch ; les cas ne sont décodés que pour l'exercice demandé.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from atelier import paths


@lru_cache(maxsize=32)
def _read(path: Path, _version: int) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def load_packs() -> dict[str, dict[str, Any]]:
    """Paquets présents, chapitre → contenu, dans l'ordre du cours. Un paquet illisible est passé."""
    folder = paths.asset("packs")
    found = {}
    for chapter in paths.chapter_titles():
        path = folder / f"{chapter}.json"
        try:
            found[chapter] = _read(path, path.stat().st_mtime_ns)
        except (OSError, ValueError):
            continue
    return found


def split_name(name: str) -> tuple[str, str]:
    """« ch3/outliers » → ("ch3", "outliers") ; « outliers » → ("", "outliers")."""
    chapter, slash, short = name.rpartition("/")
    return (chapter, short) if slash else ("", name)


def matches(chapter: str, prefix: str) -> bool:
    """Vrai si « ch3 » ou « ch3_quantification » désigne ce chapitre ; vide les désigne tous."""
    return not prefix or chapter == prefix or chapter.startswith(f"{prefix}_")


def find(section: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    """(chapitre, déclaration) de chaque entrée de ce nom ; section : « exercises » ou « quizzes »."""
    prefix, short = split_name(name)
    return [
        (chapter, pack[section][short])
        for chapter, pack in load_packs().items()
        if matches(chapter, prefix) and short in pack[section]
    ]


def names(section: str) -> list[str]:
    """Tous les noms de cette section, dans l'ordre du cours."""
    return [name for pack in load_packs().values() for name in pack[section]]


@lru_cache(maxsize=4)
def _tensors(path: Path, _version: int) -> dict[str, Any]:
    from safetensors.torch import load

    return load(path.read_bytes())


def load_cases(chapter: str, exercise: str) -> list[dict[str, Any]]:
    """Cas visibles d'un exercice : groupe, entrées, résultat attendu, résultat de chaque idée fausse."""
    from atelier.judging.codec import decode

    path = paths.asset("packs", f"{chapter}.safetensors")
    tree = load_packs()[chapter]["cases"]["v"][exercise]
    return decode(tree, _tensors(path, path.stat().st_mtime_ns), ours=True)
