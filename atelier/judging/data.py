"""Ce qu'une sonde rapporte : des données, et rien d'autre.

Ce qu'une fonction d'étudiant a rendu est copié en nombres, textes, tenseurs, listes et dictionnaires, les seuls types
que `codec` transporte ; le reste lève `NotData`, qui dit en français ce que c'était.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class NotData(Exception):
    """La fonction a rendu quelque chose qui n'est pas une donnée.

    place : où dans le résultat, écrit comme par `compare`, qui dira ce qu'il y attendait ; None si le message le dit.
    """

    def __init__(self, message: str, place: str | None = None) -> None:
        super().__init__(message)
        self.place = place


def name_of(value: Any) -> str:
    """Nom français d'un objet qui n'est pas une donnée."""
    kind = type(value)
    module = str(getattr(kind, "__module__", "")).split(".")[0]
    if module == "numpy":
        if kind.__name__ == "ndarray":
            return "un tableau NumPy (ndarray)"
        return f"un nombre NumPy ({kind.__name__})"
    if kind.__name__ in ("generator", "map", "filter", "zip", "range", "dict_keys", "dict_values", "dict_items"):
        return f"un itérateur ({kind.__name__}) et non les valeurs elles-mêmes"
    if kind.__name__ in ("function", "method", "builtin_function_or_method", "type"):
        return f"une fonction ou une classe ({getattr(value, '__name__', kind.__name__)}), peut-être jamais appelée"
    if isinstance(value, nn.Module):
        return f"un module ({kind.__name__})"
    return f"un objet de type {kind.__name__}, qui n'est pas une donnée (nombre, tenseur, liste…)"


def to_data(value: Any, place: str = "", depth: int = 0) -> Any:
    """Copie de `value` faite des seuls types que `codec` transporte ; lève `NotData` sinon."""
    if depth > 20:
        raise NotData("une structure qui s'emboîte sans fin")
    if value is None or type(value) in (bool, int, float, str):
        return value
    # np.float64 est un float de Python, np.str_ un texte, et valent la même chose
    ordinary: dict[type, Callable[[Any], Any]] = {int: int.__int__, float: float.__float__, str: str.__str__}
    for kind, make in ordinary.items():
        if isinstance(value, kind):
            return make(value)
    if isinstance(value, torch.Tensor):
        if value.device.type not in ("cpu", "meta"):  # calculé sur une carte : on n'en juge que les valeurs
            value = value.detach().cpu()
        if type(value) not in (torch.Tensor, nn.Parameter):
            raise NotData(f"un tenseur d'un genre particulier ({type(value).__name__}) ; on attend un torch.Tensor")
        odd = {
            "creux": value.layout != torch.strided,
            "quantifié": value.is_quantized,
            "complexe": value.is_complex(),
            "sans données": value.device.type == "meta",
        }
        if any(odd.values()):
            raise NotData(f"un tenseur {next(k for k, v in odd.items() if v)} ; on attend un tenseur ordinaire")
        return value.detach().to("cpu", copy=True)
    if isinstance(value, (list, tuple)):
        sequence = tuple if isinstance(value, tuple) else list
        return sequence(to_data(v, f"{place or 'résultat'}[{i}]", depth + 1) for i, v in enumerate(value))
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise NotData("un dictionnaire dont les clés ne sont pas toutes du texte")
        return {
            str.__str__(k): to_data(v, f"{place} → {k}" if place else str.__str__(k), depth + 1)
            for k, v in value.items()
        }
    raise NotData(name_of(value), place)
