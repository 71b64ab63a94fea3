"""Ressemblances entre réponses : le corps de chaque fonction, noms remplacés, comparé à celui des autres.

Ce que l'énoncé donne (signature, docstring) ne compte pas, ni les commentaires, ni les noms choisis. Une réponse
courte, ou que beaucoup ont écrite, ne prouve rien : les unes sont laissées de côté, les autres pèsent moins.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

from grader.report.syntax import parsed

MIN_TOKENS = 40
"""En dessous, deux réponses justes se ressemblent d'elles-mêmes."""
THRESHOLD = 0.9
COMMON = 0.15
"""Une réponse partagée par plus de cette part de la classe est la réponse naturelle, pas une copie."""
MAX_PAIRS = 20
MAX_TOKENS = 5000
"""Mots comparés, au plus : le temps d'une comparaison croît comme leur carré."""
_WORD = re.compile(
    r"""(?P<comment>\#[^\n]*+)
    | \'\'\'(?:[^\\']|\\.|\'(?!\'\'))*+(?:\'\'\')?+
    | \"\"\"(?:[^\\"]|\\.|\"(?!\"\"))*+(?:\"\"\")?+
    | \'(?:[^\\'\n]|\\.)*+\'?+
    | \"(?:[^\\"\n]|\\.)*+\"?+
    | \w++(?:\.\d++)?+
    | \S""",
    re.VERBOSE | re.DOTALL,
)
"""Un mot de Python, lu d'un trait : `tokenize` met un temps carré sur un texte jamais refermé."""


@dataclass
class Pair:
    """Deux étudiants dont des réponses se ressemblent. exercises : exercice → ressemblance (0 à 1)."""

    first: str
    second: str
    exercises: dict[str, float] = field(default_factory=dict)
    weight: float = 0.0


def normalized(source: str, name: str) -> list[str]:
    """Les mots du corps de `name` : noms choisis remplacés par leur ordre d'apparition, textes et nombres gardés."""
    tree = parsed(source)
    if tree is None:
        return words(source)
    kept: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            kept += without_docstring(node.body)
        else:
            kept.append(node)
    module = ast.Module(kept, [])
    for inner in ast.walk(module):
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inner.body = without_docstring(inner.body) or [ast.Pass()]
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inner.returns = None
        if isinstance(inner, ast.arg):
            inner.annotation = None
    try:
        text = ast.unparse(module)
    except (RecursionError, ValueError):
        return words(source)
    return words(text, chosen_names(tree))


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:]
    return body


def chosen_names(tree: ast.AST) -> set[str]:
    """Les noms que l'auteur a choisis : ce qu'il affecte, ses arguments, ses fonctions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
    return names


def words(text: str, chosen: set[str] | None = None) -> list[str]:
    """Les mots d'un texte Python. chosen : les noms à remplacer (tous ceux qui ne sont pas du langage, sinon)."""
    seen: dict[str, str] = {}
    found = []
    for token in islice(_WORD.finditer(text), MAX_TOKENS):
        word = token[0]
        ours = word in chosen if chosen is not None else not keyword.iskeyword(word)
        if word[0].isidentifier() and word.isidentifier() and ours:
            word = seen.setdefault(word, f"n{len(seen)}")
        if token.lastgroup != "comment":
            found.append(word)
    return found


def similar_pairs(answers: Mapping[str, Mapping[str, str]]) -> list[Pair]:
    """Les paires les plus ressemblantes. answers : exercice → étudiant → source de sa réponse."""
    pairs: dict[tuple[str, str], Pair] = {}
    for exercise, sources in answers.items():
        bodies = {student: normalized(source, exercise) for student, source in sources.items()}
        students = [student for student in sorted(bodies) if len(bodies[student]) >= MIN_TOKENS]
        if len(students) < 2:
            continue
        codes: dict[str, int] = {}
        numbers = [[codes.setdefault(word, len(codes)) for word in bodies[student]] for student in students]
        scores = process.cdist(
            numbers, numbers, scorer=Indel.normalized_similarity, score_cutoff=THRESHOLD, dtype=np.float32
        )
        alike = (scores >= THRESHOLD).sum(axis=1)  # chacun se ressemble à lui-même
        for i, j in np.argwhere(np.triu(scores >= THRESHOLD, 1)):
            shared = max(alike[i], alike[j])
            if shared > max(2, COMMON * len(students)):
                continue
            pair = pairs.setdefault((students[i], students[j]), Pair(students[i], students[j]))
            pair.exercises[exercise] = float(scores[i, j])
            pair.weight += float(scores[i, j]) * math.log(len(students) / shared + 1) * math.sqrt(len(numbers[i]))
    return sorted(pairs.values(), key=lambda p: (-p.weight, p.first, p.second))[:MAX_PAIRS]
