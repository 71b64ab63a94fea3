"""La façade d'un chapitre : `ch3.nom` cherche le module du chapitre qui définit ce nom, et n'importe que lui.

Rien n'est énuméré : un module ajouté au dossier, une fonction ajoutée au module se trouvent d'eux-mêmes. Les modules
sont lus sans être importés : `from atelier.figures import ch3` ne charge ni torch ni matplotlib.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def facade(package: str, *shared: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` et `__dir__` (PEP 562) du paquet d'un chapitre.

    shared : les modules de `common` dont les noms se lisent aussi dans le chapitre. Un nom que deux modules définissent
    n'appartient à aucun : il se lit dans son module.
    """

    @cache
    def owners() -> dict[str, str]:
        found: dict[str, str | None] = {}
        for module in (*_modules(package), *(f"atelier.figures.common.{name}" for name in shared)):
            for name in public_names(module):
                found[name] = None if name in found else module
        return {name: module for name, module in found.items() if module}

    def read(name: str) -> Any:
        if name.startswith("_") or name not in owners():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(owners()[name]), name)

    return read, lambda: sorted(owners())


def _modules(package: str) -> list[str]:
    """Les modules d'un paquet."""
    folder = Path(_source(package)).parent
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules([str(folder)])]


def public_names(module: str) -> list[str]:
    """Les fonctions, classes et constantes sans « _ » qu'un module définit lui-même, lues dans son texte."""
    names: list[str] = []
    for node in ast.parse(Path(_source(module)).read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
            case ast.Assign(targets=targets):
                names += [part.id for t in targets for part in ast.walk(t) if isinstance(part, ast.Name)]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def _source(module: str) -> str:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    return spec.origin
