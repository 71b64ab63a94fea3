"""La ligne de l'étudiant par où passe une erreur, et celle-là seulement."""

from __future__ import annotations

import linecache
import opcode
import os
import re
import sysconfig
from pathlib import Path
from types import CodeType, TracebackType

_LIBRARY = tuple(
    {
        str(Path(__file__).resolve().parents[1]),
        os.path.dirname(os.__file__),
        *(sysconfig.get_path(p) for p in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)
_GENERATED = re.compile(r"<(?:frozen|__array_function__|attrs|eval_with_key|decorator-gen|torch_package|unknown)")
"""Noms de fichier de code écrit par une bibliothèque."""
_CELL = re.compile(r"<|.*[/\\]ipykernel_\d+[/\\]")
"""Noms de fichier d'une cellule de carnet."""


def ignore(folder: Path) -> None:
    """Ce dossier aussi est à nous : ce qui s'y passe n'est pas de l'étudiant."""
    global _LIBRARY
    _LIBRARY = (*_LIBRARY, str(folder))


def is_student_code(code: CodeType) -> bool:
    """Faux pour le code d'une bibliothèque, compilé (« mtrand.pyx », chemin relatif) ou engendré compris."""
    name = code.co_filename
    if name.startswith("<"):
        return not _GENERATED.match(name)
    inside_library = name.startswith(_LIBRARY) or "site-packages" in name or "dist-packages" in name
    return os.path.isabs(name) and not inside_library


def raised_by_statement(trace: TracebackType | None) -> bool:
    """Vrai si l'erreur vient d'une instruction `raise` écrite par l'étudiant, et non de ce qu'il appelle."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return is_student_code(code) and code.co_code[trace.tb_lasti] == opcode.opmap["RAISE_VARARGS"]


def source_line(trace: TracebackType | None) -> str:
    """« ligne 4 : return x / 0 », la dernière par où l'erreur est passée dans le code de l'étudiant ; vide si aucune.

    Le numéro est celui de la cellule ; pour un fichier à lui, son nom est dit : « outils.py, ligne 4 : … ».
    """
    found = ""
    while trace is not None:
        name, number = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        if is_student_code(trace.tb_frame.f_code) and (text := linecache.getline(name, number).strip()):
            place = "" if _CELL.match(name) else f"{os.path.basename(name)}, "
            found = f"{place}ligne {number}\u00a0: {text}"[:200]
        trace = trace.tb_next
    return found
