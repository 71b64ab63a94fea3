"""Un mot pour une chose : les mots que le cours n'écrit pas, et celui qui dit la chose (atelier/lexicon.py)."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from atelier.text import prose


class Forbidden(NamedTuple):
    """Ce qui ne s'écrit pas, le mot du glossaire à écrire ; dans une phrase qui contient `unless`, c'est permis."""

    pattern: str
    write: str
    unless: str = ""


WORDS = (
    Forbidden(r"questions?(?=\W+\$q)|questions?(?=[^.?!]*\bclés?\b)|clés [^.?!]*\bquestions?", "requête"),
    Forbidden(
        r"(?:l'|un |son |leur |vrai |cet )aller|aller(?=,| et| ou| ÷| \(| /)|(?:la|une|de) passe avant|passes avant",
        "passage avant",
    ),
    Forbidden(r"(?:au|le|du|ce|un|vrai|de) retour(?! à la ligne)|retour(?= ÷| \(| /)", "passage arrière"),
    Forbidden(r"(?:la|une|de) passe arrière|passes arrière|rétropropag\w+", "passage arrière"),
    Forbidden(r"finetun\w*|affin(?:er|age|ée?s?)", "fine-tuning (fine-tuner, fine-tuné)"),
    Forbidden(r"ajust\w+", "fine-tuning (fine-tuner, fine-tuné)", "loi|droite|courbe|grille|parabole|exposant|creux"),
    Forbidden(r"embeddings?", "plongement"),
    Forbidden(r"prompts?|invite", "amorce"),
    Forbidden(r"padding(?!:)|rembourrage", "remplissage"),
    Forbidden(r"tokens?", "jeton"),
    Forbidden(r"token[iy][sz]\w+", "découpeur"),
    Forbidden(r"(?:mini-?)?batch(?:e?s)?|mini-?lots?", "lot"),
    Forbidden(r"entraînements?", "apprentissage"),
    Forbidden(r"loss(?:es)?|fonctions? de coût", "perte"),
    Forbidden(r"learning rates?", "taux d'apprentissage"),
    Forbidden(r"adapters|(?:un|cet|chaque) adapter", "adaptateur"),
    Forbidden(r"pruning", "élagage"),
    Forbidden(r"cache (?:KV|clés?-valeurs?)|KV cache", "cache K/V"),
    Forbidden(r"professeurs?|modèles? maîtres?", "enseignant"),
    Forbidden(r"modèles? étudiants?", "élève"),
    Forbidden(r"normalisations? de couche", "LayerNorm"),
    Forbidden(r"features?|caractéristiques?", "composante"),
    Forbidden(r"seeds?", "graine"),
)
"""Ne sont pas regardés : un nom de variable, un mot en italique (*fine-tuning*), une citation entre guillemets."""

_COMPILED = [(re.compile(rf"(?<![\w-])(?:{word.pattern})(?![\w-])", re.IGNORECASE), word) for word in WORDS]
_QUOTED = re.compile(r"(?<![*\w])\*(?![*\s])[^*]+\*(?!\*)|«[^»]*»")
_SENTENCE = re.compile(r"[^.?!;]+")

ILL_SET = [
    (r"\.\.\.", "trois points s'écrivent d'un seul signe, « … »"),
    (r"«(?![\u00a0\u202f])|(?<![\u00a0\u202f])»", "il manque une espace"),
]
ILL_SIGNS = [
    (r"(?<=[^\W\d_])[;?!](?=\s|$)|(?<=[^\W\d_]):(?=\s)", "il manque une espace"),
    (r"(?<=[^\W\d_])[ \u00a0][,.](?=\s|$)", "une espace est de trop"),
]
"""Ce à quoi on reconnaît une faute de composition, et ce qu'on en dit."""


def misused(text: str, names: Collection[str] = ()) -> Iterator[tuple[int, str]]:
    """Les mots d'un texte Markdown que le cours n'écrit pas : (rang de la ligne, phrase). names : les variables."""
    shown = _QUOTED.sub(lambda found: "…" + "\n" * found[0].count("\n"), prose(text).replace("\u2019", "'"))
    for sentence in _SENTENCE.finditer(shown):
        for pattern, word in _COMPILED:
            for found in pattern.finditer(sentence[0]):
                if found[0] in names or (word.unless and re.search(word.unless, sentence[0], re.IGNORECASE)):
                    continue
                rank = shown.count("\n", 0, sentence.start() + found.start())
                said = " ".join(found[0].split())
                yield rank, f"« {said} » : écrivez « {word.write} » (un mot pour une chose : atelier.glossary)."


def misused_in_code(tree: ast.AST, consignes: bool = True) -> Iterator[tuple[int, str]]:
    """De même dans les phrases d'un code : (ligne, phrase). consignes : celles des fonctions comprises."""
    names = {str(getattr(node, "id", getattr(node, "arg", ""))) for node in ast.walk(tree)}
    skipped = set() if consignes else {docstring(node) for node in ast.walk(tree)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or node in skipped or not isinstance(node.value, str):
            continue
        if " " in node.value:
            yield from ((node.lineno + rank, message) for rank, message in misused(node.value, names))


def typography(text: str, signs: bool = True) -> Iterator[tuple[int, str, str]]:
    """Ce qui est mal composé dans un texte Markdown que `typeset` a composé : (rang de la ligne, faute, autour).

    signs : regarder aussi les signes de ponctuation, hors des citations, des italiques et des accolades.
    """
    text = prose(text)
    faults = [(found.start(), fault) for pattern, fault in ILL_SET for found in re.finditer(pattern, text)]
    if signs:
        outside = re.sub(rf"{_QUOTED.pattern}|{{[^{{}}]*}}", lambda found: "…" * len(found[0]), text)
        faults += [(found.start(), fault) for pattern, fault in ILL_SIGNS for found in re.finditer(pattern, outside)]
    for start, fault in sorted(faults):
        around = text[max(0, start - 25) : start + 25].replace("\n", " ")
        yield text.count("\n", 0, start), fault, around


def docstring(node: ast.AST) -> ast.expr | None:
    """La docstring de ce module, de cette classe ou de cette fonction ; None s'il n'y en a pas."""
    body = getattr(node, "body", None)
    first = body[0] if isinstance(body, list) and body else None
    return first.value if isinstance(first, ast.Expr) else None
