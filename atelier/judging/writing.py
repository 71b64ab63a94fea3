"""Écrire une valeur pour qui lit : nombre, forme, type, tenseur, ou deux valeurs côte à côte.

Ce qui est écrit peut venir d'un processus qui ment : le texte reste court et lisible, quelle que soit la valeur.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from atelier.text import NBSP, legible, number


def format_pair(expected: Any, got: Any) -> tuple[str, str]:
    """Les deux nombres, avec assez de chiffres pour qu'on les voie différer."""
    for digits in (4, 6, 9, 12, 17):
        pair = number(expected, digits), number(got, digits)
        if pair[0] != pair[1]:
            return pair
    if type(expected) is not type(got):
        return f"{pair[0]} ({type_name(expected)})", f"{pair[1]} ({type_name(got)})"
    return pair


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def format_shape(shape: Sequence[int]) -> str:
    if len(shape) > SHAPE_MAX:
        return f"({', '.join(map(str, shape[:SHAPE_MAX]))}, …) ({len(shape)} dimensions)"
    return str(tuple(shape)) if len(shape) else "() (0 dimension)"


DESCRIBED_MAX = 400
SHAPE_MAX = 8


def describe(value: Any, limit: int = 6) -> str:
    """Une valeur en quelques mots : les petits tenseurs sont écrits, les grands résumés. Toujours court et lisible."""
    text = legible(_describe(value, limit), 2 * DESCRIBED_MAX)
    return text if len(text) <= DESCRIBED_MAX else text[: DESCRIBED_MAX - 1] + "…"


def _describe(value: Any, limit: int) -> str:
    if isinstance(value, torch.Tensor):
        if value.ndim == 0:
            return f"{_tensor_text(value)} ({dtype_name(value.dtype)}, 0 dimension)"
        if value.ndim == 1 and 0 < value.numel() <= limit:
            return f"{_tensor_text(value)} ({dtype_name(value.dtype)})"
        return f"un tenseur de forme {format_shape(value.shape)}, {dtype_name(value.dtype)}"
    if isinstance(value, (list, tuple)):
        brackets = "()" if isinstance(value, tuple) else "[]"
        shown = f"{NBSP}; ".join(describe(v, limit) for v in value[:limit])
        return brackets[0] + shown + (f"{NBSP}; … {len(value)} éléments" if len(value) > limit else "") + brackets[1]
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{str(k)[:60]}{NBSP}: {describe(v, limit)}" for k, v in list(value.items())[:limit]) + "}"
        )
    if isinstance(value, str):
        return f"«{NBSP}{value if len(value) <= 60 else value[:57] + '…'}{NBSP}»"
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, float)):
        return number(value)
    return type(value).__name__


def _tensor_text(x: torch.Tensor) -> str:
    values = numbers(x).tolist()
    if not isinstance(values, list):
        return number(values)
    return "[" + f"{NBSP}; ".join(number(v) for v in values) + "]"


def numbers(x: torch.Tensor) -> torch.Tensor:
    """Valeurs comparables : booléens et entiers tels quels, tout flottant (même float8) en float64."""
    return x.detach().to(torch.float64) if x.dtype.is_floating_point else x.detach()


def type_name(value: Any) -> str:
    names = {bool: "un booléen", int: "un entier", float: "un flottant", str: "un texte", dict: "un dictionnaire"}
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        return f"un tenseur de forme {format_shape(value.shape)}, {dtype_name(value.dtype)}"
    if isinstance(value, (list, tuple)):
        return f"une liste ou un n-uplet de {len(value)} éléments"
    return names.get(type(value), type(value).__name__)


def both(expected: str, got: str, place: str = "") -> str:
    """« attendu : …      obtenu : … », précédé de l'endroit s'il y en a un ; sur deux lignes si c'est long."""
    gap = "      " if len(expected) + len(got) < 70 else "\n"
    return f"{place}attendu{NBSP}: {expected}{gap}obtenu{NBSP}: {got}"


def conversion(wanted: Any) -> str:
    """Ce qui fait d'un nombre, d'un tableau ou d'un tenseur une valeur du genre attendu."""
    if isinstance(wanted, torch.Tensor):
        return f"torch.tensor(…, dtype=torch.{dtype_name(wanted.dtype)}) en fait un"
    if isinstance(wanted, (list, tuple)):
        return "list(…) ou .tolist() en fait une"
    return f"{type(wanted).__name__}(…) en fait un"
