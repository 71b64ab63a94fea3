"""Lire le code d'une copie comme du Python, du côté sûr, sans plus de travail que ne vaut une cellule écrite à la main.

`ast.parse` n'est pas linéaire (une chaîne f"{a}{a}…" se lit en temps carré) et construit des centaines d'octets par
caractère : un texte plus long que `MAX_PARSED` n'est pas lu, et qui appelle s'en tient à son texte.
"""

from __future__ import annotations

import ast
import warnings

MAX_PARSED = 20_000
"""Caractères d'une cellule lue comme du Python : dix fois la plus longue des réponses."""


def parsed(source: str) -> ast.Module | None:
    """L'arbre de ce code ; None si ce n'est pas du Python, ou si c'en est trop."""
    if len(source) > MAX_PARSED:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # « invalid escape sequence » d'un étudiant n'a pas à s'afficher ici
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
