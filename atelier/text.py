"""Un texte venu d'ailleurs (message d'erreur, nom de classe, affichage, nom de fichier), rendu montrable."""

from __future__ import annotations

import re
import unicodedata

NEWLINE = " ⏎ "
"""Ce qui remplace un retour à la ligne : un texte montré n'écrit jamais de ligne à lui."""
_SPACES = frozenset("\u00a0\u202f\u2009")
_BREAKS = re.compile("\r\n|[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Lettres et marques qu'Unicode dit imprimables et qui ne se voient pas."""
MAX_MARKS = 3
"""Accents empilés sur une même lettre ; au-delà, ils débordent sur les lignes voisines."""


def legible(text: str, limit: int | None = None) -> str:
    """Le texte, coupé à `limit`, sur une seule ligne, sans ce qui efface, colore, retourne, cache ou déborde.

    Une copie ne met ainsi pas en scène son propre retour, ni un nom de fichier le terminal de qui corrige.
    """
    text = text if limit is None else text[:limit]
    if text.isascii() and text.isprintable():
        return text
    text = _INVISIBLE.sub("", _BREAKS.sub(NEWLINE, text).replace("\t", " "))
    kept, marks = [], 0
    for c in text:
        marks = marks + 1 if unicodedata.combining(c) else 0
        if marks <= MAX_MARKS:
            kept.append(c if c.isprintable() or c in _SPACES else "\ufffd")
    return "".join(kept)
