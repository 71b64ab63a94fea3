"""Le texte que l'on montre : celui qui vient d'ailleurs, rendu lisible ; le nôtre, composé à la française."""

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


# --- La typographie ---------------------------------------------------------------------------------------------------

_VERBATIM = re.compile(
    r"^ *(`{3,}|~{3,}).*?^ *\1`*[ \t]*$"  # bloc de code
    r"|(`+)(?!`).+?(?<!`)\2(?!`)"  # code dans la phrase
    r"|\$\$.+?\$\$|\$(?:[^$\n]|\n(?!\n))+\$"  # formule
    r"|^ *\|[ :|-]+\|? *$"  # ligne de tirets d'un tableau
    r"|https?://\S+",
    re.MULTILINE | re.DOTALL,
)
"""Ce qui n'est pas de la prose, dans un texte Markdown."""
_CODE = "\ufffc"
"""Tient la place du code ou de la formule au bord d'un morceau de prose."""
_THIN = re.compile(r"(?<=\S)[ \u00a0](?=[;?]|!(?![\[=]))|(?<=\d) (?=\d{3}(?!\d))")
_UNITS = r"%|(?:bits?|octets?|dB|ko|Mo|Go|To|ms|µs|millions?|milliards?)\b"
_WIDE = re.compile(rf"(?<=\S) (?=:(?!-)|»)|(?<=«) (?=\S)|(?<=\d) (?={_UNITS})|(?<=§) (?=\d)")


def typeset(text: str) -> str:
    """Le texte Markdown, ses espaces insécables mises : devant « : ; ? ! », les unités, dans les guillemets et les
    milliers.

    Le code, les formules et les adresses restent tels quels ; un texte déjà composé ne change plus.
    """
    pieces, end = [], 0
    for kept in _VERBATIM.finditer(text):
        pieces += [_spaced(text[end : kept.start()], end > 0, True), kept[0]]
        end = kept.end()
    return "".join(pieces) + _spaced(text[end:], end > 0, False)


def prose(text: str) -> str:
    """Le texte Markdown, où un signe tient la place de chaque code, formule ou adresse ; autant de lignes qu'avant."""
    return _VERBATIM.sub(lambda kept: _CODE + "\n" * kept[0].count("\n"), text)


def _spaced(prose: str, after_code: bool, before_code: bool) -> str:
    """`prose`, composée : un signe tient au code qui le précède, un guillemet à celui qui le suit."""
    left, right = _CODE * after_code, _CODE * before_code
    found = _WIDE.sub("\u00a0", _THIN.sub("\u202f", left + prose + right))
    return found[len(left) : len(found) - len(right)]
