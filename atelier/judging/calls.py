"""Un cas tel que l'étudiant l'écrirait : l'appel à recopier dans une cellule, ou ses entrées en quelques mots."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from atelier.judging.writing import describe, dtype_name, format_shape
from atelier.text import NBSP, number

CALLED = ("call", "call_float", "call_many", "loss_grads")
"""Les sondes qui appellent la réponse avec les entrées du cas, dans l'ordre."""
LIST_SHOWN = 8


def case_text(name: str, probe: str, inputs: Mapping[str, Any], hexadecimal: Collection[str] = ()) -> str:
    """« decode_float(0x3C00, 5, 10) » si tout s'écrit en Python ; sinon « r de forme (4, 5), float32, bits=4 ».

    hexadecimal : noms des arguments écrits en base seize, comme dans leur énoncé.
    """
    inputs = {key: value for key, value in inputs.items() if key != "stand_ins"}
    literals = [literal(value, key in hexadecimal) for key, value in inputs.items()]
    if probe in CALLED and literals and all(literals):
        return f"{name}({', '.join(literals)})"
    return describe_inputs(inputs, hexadecimal)


def literal(value: Any, hexadecimal: bool = False) -> str:
    """La valeur en Python, ou "" si elle ne s'écrit pas en quelques mots (tenseur, longue liste, module)."""
    if isinstance(value, (list, tuple)):
        parts = [literal(v, hexadecimal) for v in value]
        if len(parts) > LIST_SHOWN or not all(parts):
            return ""
        tail = "," if isinstance(value, tuple) and len(parts) == 1 else ""
        return f"({', '.join(parts)}{tail})" if isinstance(value, tuple) else f"[{', '.join(parts)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if hexadecimal and type(value) is int and value >= 0:
        digits = f"{value:X}"
        return f"0x{digits:0>{len(digits) + len(digits) % 2}}"
    if value is None or isinstance(value, (bool, float, str)) or isinstance(value, int) and value.bit_length() <= 200:
        text = repr(value)
        return text if len(text) <= 60 else ""
    return ""


def failing_item(probe: str, inputs: Mapping[str, Any], message: str) -> tuple[dict[str, Any], str]:
    """Avec `call_many`, les entrées du seul appel dont le résultat est faux, et le message sans sa place."""
    place = re.match(rf"résultat\[(\d+)\]{NBSP}: ", message)
    if probe != "call_many" or not place:
        return dict(inputs), message
    return one_item(inputs, int(place[1])), message[place.end() :]


def one_item(inputs: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Les entrées de l'appel numéro `index` de `call_many` : le premier argument est la liste des éléments."""
    first = next(iter(inputs))
    return {**inputs, first: inputs[first][index]}


def describe_inputs(inputs: Mapping[str, Any], hexadecimal: Collection[str] = ()) -> str:
    """« r de forme (4, 5), float32, bits=4 » : les petits tenseurs sont écrits, les grands résumés."""
    return ", ".join(describe_input(name, value, name in hexadecimal) for name, value in inputs.items())


def describe_input(name: str, value: Any, hexadecimal: bool = False) -> str:
    """Un argument en quelques mots : « r = [0,5 ; 1] (float32) », « bits=4 », « config : {n_layer=2} »."""
    kind = type(value).__name__
    if kind in ("Tensor", "Parameter"):
        layout = "" if value.is_contiguous() else ", non contigu"
        if value.ndim <= 1 and 0 < value.numel() <= 6 or value.ndim == 2 and value.numel() <= 6:
            return f"{name} = {_small_tensor(value)} ({dtype_name(value.dtype)}{layout})"
        return f"{name} de forme {format_shape(value.shape)}, {dtype_name(value.dtype)}{layout}"
    if isinstance(value, dict) and "module" in value:
        return f"{name}={value['module']}({', '.join(map(str, value.get('args', ())))})"
    if isinstance(value, dict) and value:
        return f"{name}{NBSP}: {{{describe_inputs(value)}}}"
    if hexadecimal and isinstance(value, list):
        shown = [literal(v, True) for v in value[:LIST_SHOWN]]
        if all(shown):
            return f"{name}=[{', '.join(shown)}{', …' if len(value) > LIST_SHOWN else ''}]"
    return f"{name}={describe(value, LIST_SHOWN)}"


def _small_tensor(x: Any) -> str:
    def show(values: Any) -> str:
        if isinstance(values, list):
            return "[" + f"{NBSP}; ".join(show(v) for v in values) + "]"
        return number(values)

    return show((x.double() if x.is_floating_point() else x).tolist())
