"""Ce qu'un enseignant peut afficher d'un texte d'étudiant : ni page piégée, ni ligne qui fige l'affichage."""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_LINE, MAX_SHOWN = 2000, 20_000
"""Caractères d'une ligne et d'une cellule montrées : la coloration du code lit une longue ligne en temps carré."""


def shortened(source: str) -> str:
    """Une cellule telle que la copie corrigée la montre ; la copie rendue, elle, reste entière."""
    if len(source) <= MAX_LINE:
        return source
    cut = " … ligne coupée à la correction"
    text = "\n".join(x if len(x) <= MAX_LINE else x[:MAX_LINE] + cut for x in source.split("\n"))
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "\n… cellule coupée à la correction"


_HARMFUL = (
    (re.compile(r"<(?=[A-Za-z/!?])"), "< "),  # balise HTML, ou lien entre chevrons
    (re.compile(r"!(?=\[)"), "! "),  # image, qui irait se chercher sur le réseau
    (re.compile(r"\](?=\()(?!\(\s*(?:https?://|mailto:|#|[\w./-]+[)\s]))"), "] "),  # lien à script
    (re.compile(r"\](?=:)(?!:\s*https?://)"), "] "),  # le même, défini plus loin
    (re.compile(r"\\(?=(?:href|require|class|cssId|style|data|unicode|def|let|newcommand)\b)"), "\\ "),  # MathJax
)


def _literally(mark: str) -> Callable[[re.Match[str]], str]:
    """Ce qui remplace par `mark` tel quel, une contre-oblique y étant un caractère comme un autre."""
    return lambda _: mark


def harmless(text: str) -> str:
    """Un texte d'étudiant que l'enseignant peut afficher : ni balise HTML, ni lien à script, ni image du réseau.

    Une espace y suffit : « < script> » n'est une balise dans aucun navigateur, et se lit encore.
    """
    for pattern, mark in _HARMFUL:
        text = pattern.sub(_literally(mark), text)
    return text
