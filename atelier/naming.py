"""De quel exercice un objet du carnet est-il la réponse ? De celui dont il porte le nom, quel que soit son genre."""

from __future__ import annotations

import ast
import contextlib
import linecache
import sys
from types import FrameType
from typing import Any

from atelier import packs, paths


def exercise_of(value: Any) -> str | None:
    """Le nom de l'exercice dont `value` est la réponse, ou None.

    C'est, comme à la correction, le nom qui désigne cet objet dans le carnet : fonction, classe, lambda, `partial`,
    autre nom d'une fonction, objet appelable. S'il en porte plusieurs, celui que l'appel en cours écrit, sinon celui de
    sa définition. S'il n'en porte aucun, celui de sa définition.
    """
    if not callable(value):
        return None
    known = packs.names("exercises")
    own = getattr(value, "__name__", None)
    frame = _caller()
    for scope in _scopes(frame):
        bound = [name for name in known if scope.get(name) is value]
        if bound:
            return next((n for n in (_written(frame), own) if n in bound), bound[0]) if len(bound) > 1 else bound[0]
    return own if isinstance(own, str) and own in known else None


def _caller() -> FrameType | None:
    """Le premier appelant qui n'est pas de l'atelier : la cellule, d'ordinaire."""
    package = __name__.rpartition(".")[0]
    frame: FrameType | None = sys._getframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == package:
        frame = frame.f_back
    return frame


def _scopes(frame: FrameType | None) -> list[dict[str, Any]]:
    """Là où chercher des noms : chez l'appelant, puis dans le carnet (d'un bouton, l'appelant est une bibliothèque)."""
    found = [frame.f_locals, frame.f_globals] if frame else []
    shell = paths.shell()
    return [*found, shell.user_ns] if shell else found


def written() -> str:
    """Le nom que l'appel en cours écrit : « f » pour `check(f)` ; vide si l'on n'en sait rien."""
    return _written(_caller())


def _written(frame: FrameType | None) -> str:
    """« f » quand l'appel en cours est écrit `check(f)` ; vide si l'on n'en sait rien."""
    with contextlib.suppress(Exception):  # un code sans source, une position inconnue
        assert frame is not None
        first, last, start, end = list(frame.f_code.co_positions())[frame.f_lasti // 2]
        assert first is not None
        lines = [line.encode() for line in linecache.getlines(frame.f_code.co_filename)[first - 1 : last]]
        lines[-1] = lines[-1][:end]
        lines[0] = lines[0][start:]
        call = ast.parse(b"".join(lines), mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.args[0], ast.Name):
            return call.args[0].id
    return ""
