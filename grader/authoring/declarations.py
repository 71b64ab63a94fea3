"""Lire ce qu'un chapitre déclare : un fichier par exercice (`exercises/<id>.py`) et ses quiz (`quiz.md`).

Un fichier d'exercice définit `exercise`, `misconceptions` (du texte, voir `read_misconceptions`) et `styles`, les
autres réponses justes. Ce que plusieurs exercices partagent est dans `exercises/_common.py`.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from atelier.judging.exercise import Choice, Exercise, Misconception, Quiz
from atelier.text import plural, typeset
from grader import UserError


@dataclass(frozen=True, order=True)
class Problem:
    """Un défaut d'un chapitre : où (fichier, ligne, cellule) et quoi."""

    file: str
    line: int
    cell: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        where = self.file + (f":{self.line}" if self.line else "")
        kind = "avertissement : " if self.warning else ""
        return f"{where} ({self.cell}) : {kind}{self.message}" if self.cell else f"{where} : {kind}{self.message}"


class ChapterError(UserError):
    """Un chapitre mal écrit. `problems` en donne tous les défauts."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


class Malformed(Exception):
    """Du texte déclaré qui ne suit pas sa forme : (ligne dans ce texte, depuis 1 ; ce qui ne va pas)."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line, self.message = line, message


@dataclass
class Change:
    """Un texte qui en remplace un autre. lines : des lignes entières, à n'importe quelle indentation."""

    old: str
    new: str
    lines: bool


@dataclass
class Swap:
    """Une réponse fausse : la solution de référence, ainsi changée, dans l'ordre."""

    changes: Sequence[Change] = ()

    def apply(self, source: str) -> str:
        """La source changée. Lève `ValueError` (le texte absent) si la solution ne contient pas l'un d'eux."""
        for c in self.changes:
            changed = _replace_lines(source, c.old, c.new) if c.lines else source.replace(c.old, c.new)
            if changed == source:
                raise ValueError(c.old)
            source = changed
        return source


def _replace_lines(source: str, old: str, new: str) -> str:
    lines, wanted, found, i = source.split("\n"), old.split("\n"), [], 0
    while i < len(lines):
        indent = lines[i][: len(lines[i]) - len(lines[i].lstrip())] if lines[i].strip() else ""
        head = len(wanted[0]) - len(wanted[0].lstrip())
        shift = indent[: len(indent) - head] if len(indent) >= head else None
        if shift is not None and lines[i : i + len(wanted)] == [textwrap.indent(w, shift) for w in wanted]:
            found += textwrap.indent(new, shift).split("\n") if new else []
            i += len(wanted)
        else:
            found.append(lines[i])
            i += 1
    return "\n".join(found)


# --- Les idées fausses ------------------------------------------------------------------------------------------------

_HEAD = re.compile(r"(\w+)( \*)?(?:   +(.+))?")
_NOTHING = "∅"


@dataclass(frozen=True)
class Written:
    """Une idée fausse telle qu'elle est écrite : son nom, ce qu'elle change (ou le nom de sa fonction), sa phrase."""

    name: str
    wrong: Swap | str
    message: str
    portable: bool
    line: int


def read_misconceptions(text: str) -> list[Written]:
    """Les idées fausses d'un exercice, un paragraphe chacune.

    ::

        no_zero_point   torch.round(r / scale) + zero_point → torch.round(r / scale)
            Le zéro réel tombe sur le code 0 au lieu de Z.

    La première ligne donne le nom et le remplacement ; le reste, en retrait, est la phrase. Un remplacement long
    continue à la ligne par « → » ; un second s'annonce par « & » ; « ∅ » est un texte vide. Des lignes entières
    s'écrivent comme un diff (« - » puis « + », en retrait, à n'importe quelle indentation). « = nom » désigne une
    fonction du fichier. Une étoile après le nom : ce que répond cette idée fausse dépend de la machine.
    """
    found: list[Written] = []
    lines = text.split("\n")
    start = 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        end = next((i for i in range(start, len(lines)) if not lines[i].strip()), len(lines))
        found.append(_misconception(lines[start:end], start + 1))
        start = end
    return found


def _misconception(lines: Sequence[str], first: int) -> Written:
    head = _HEAD.fullmatch(lines[0].rstrip())
    if head is None:
        raise Malformed(first, f"« {lines[0].strip()} » : attendu « nom   ancien → nouveau ».")
    changes: list[Change] = []
    function = ""
    sentence: list[str] = []
    body = [(first + i, line[4:].rstrip() if line.startswith("    ") else line.strip()) for i, line in enumerate(lines)]
    if head[3]:
        body[0] = (first, head[3] if head[3].startswith("= ") else f"& {head[3]}")
    else:
        del body[0]
    previous = ""
    for number, line in body:
        mark, rest = line[:1], line[2:]
        if sentence or line[1:2] not in ("", " ") or mark not in ("&", "=", "→", "-", "+"):
            sentence.append(line.strip())
        elif mark == "=":
            function = rest.strip()
        elif mark == "&":
            old, arrow, new = rest.partition(" → ")
            changes.append(Change(old.strip(), new.strip() if arrow else "", False))
        elif mark == "→" and changes and not changes[-1].new and not changes[-1].lines:
            changes[-1].new = rest.strip()
        elif mark == "-" and previous == "-":
            changes[-1].old += f"\n{rest}"
        elif mark == "-":
            changes.append(Change(rest, "", True))
        elif mark == "+" and previous in ("-", "+"):
            changes[-1].new += f"\n{rest}" if changes[-1].new else rest
        else:
            raise Malformed(number, f"« {line} » ne suit rien qu'il puisse remplacer.")
        previous = mark
    if not sentence:
        raise Malformed(first, f"l'idée fausse `{head[1]}` n'a pas de phrase.")
    if bool(function) == bool(changes):
        raise Malformed(first, f"l'idée fausse `{head[1]}` remplace du texte, ou désigne une fonction (= nom).")
    for change in changes:
        if not change.lines and not change.new:
            said = f"« {change.old} » n'est remplacé par rien : écrivez « → {_NOTHING} » pour l'effacer."
            raise Malformed(first, said)
        change.new = "" if change.new == _NOTHING else change.new
    return Written(head[1], function or Swap(changes), typeset(" ".join(sentence)), not head[2], first)


# --- Les quiz ---------------------------------------------------------------------------------------------------------

_CHOICE = re.compile(r"- \[([ x])\] (.+)")


def read_quizzes(text: str) -> dict[str, tuple[Quiz, int]]:
    """Nom → (quiz, ligne de son titre).

    « ## nom », la question, puis une liste à cocher : chaque réponse sur sa ligne, la bonne cochée, et dessous, en
    retrait, ce qu'on dit à qui la choisit.
    """
    found: dict[str, tuple[Quiz, int]] = {}
    lines = text.split("\n")
    starts = [i for i, line in enumerate(lines) if line.startswith("## ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        name = lines[start][3:].strip()
        if name in found:
            raise Malformed(start + 1, f"deux quiz portent le nom `{name}`.")
        question: list[str] = []
        choices: list[tuple[str, bool, list[str]]] = []
        for number, line in enumerate(lines[start + 1 : end], start + 2):
            if choice := _CHOICE.fullmatch(line.rstrip()):
                choices.append((choice[2], choice[1] == "x", []))
            elif choices and line.startswith("  "):
                choices[-1][2].append(line.strip())
            elif not choices:
                question.append(line.strip())
            elif line.strip():
                message = f"« {line.strip()} » : attendu « - [ ] réponse », ou son explication en retrait."
                raise Malformed(number, message)
        told = [Choice(typeset(text), typeset(" ".join(why)), correct) for text, correct, why in choices]
        paragraphs = "\n".join(question).strip().split("\n\n")
        asked = "\n\n".join(" ".join(p.split("\n")) for p in paragraphs)
        try:
            found[name] = (Quiz(typeset(asked), told), start + 1)
        except ValueError as error:
            raise Malformed(start + 1, f"{error}.") from error
    return found


def heading(id: str, exercise: Exercise) -> str:
    """Le titre d'un exercice : « ### ✎ Exercice : `double` · 2 points · 10 minutes »."""
    points, optional = plural(exercise.points, "point"), ""
    if exercise.bonus:
        points, optional = f"{points} de bonus", " · approfondissement ★"
    return typeset(f"### ✎ Exercice : `{id}` · {points} · {exercise.minutes} minutes{optional}")


# --- Les fichiers d'un chapitre ---------------------------------------------------------------------------------------


@dataclass
class Declared:
    """Un fichier d'exercice, lu."""

    exercise: Exercise
    module: ModuleType
    written: list[Written] = field(default_factory=list)
    line: int = 0
    """Ligne où commence le texte de `misconceptions`."""

    @property
    def styles(self) -> Sequence[Callable[..., Any]]:
        """Les autres réponses justes."""
        return getattr(self.module, "styles", ())

    def line_of(self, misconception: str) -> int:
        return next((self.line + w.line - 1 for w in self.written if w.name == misconception), 0)


def load_exercises(chapter: str, folder: Path) -> dict[str, Declared]:
    """Identifiant → déclaration, par ordre alphabétique. Lève `ChapterError` au premier fichier illisible."""
    if not folder.is_dir():
        return {}
    package = f"exercices_{chapter}"
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]
    spec = importlib.util.spec_from_loader(package, None, is_package=True)
    assert spec is not None and spec.submodule_search_locations is not None
    spec.submodule_search_locations.append(str(folder))
    sys.modules[package] = importlib.util.module_from_spec(spec)
    paths = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
    return {path.stem: _load(package, path, f"solutions/{chapter}/exercises/{path.name}") for path in paths}


def _load(package: str, path: Path, shown: str) -> Declared:
    def problem(line: int, message: str) -> ChapterError:
        return ChapterError([Problem(shown, line, path.stem, message)])

    try:
        module = importlib.import_module(f"{package}.{path.stem}")
    except Exception as error:
        raise problem(line_of(error, str(path)), f"l'exécution échoue : {type(error).__name__} : {error}") from error
    exercise = getattr(module, "exercise", None)
    if not isinstance(exercise, Exercise):
        raise problem(1, "ce fichier doit définir `exercise = Exercise(…)`.")
    declared = Declared(exercise, module, line=_line_of_text(path, "misconceptions"))
    try:
        declared.written = read_misconceptions(getattr(module, "misconceptions", ""))
    except Malformed as error:
        raise problem(declared.line + error.line - 1, error.message) from error
    told = []
    for written in declared.written:
        wrong = written.wrong if isinstance(written.wrong, Swap) else getattr(module, written.wrong, None)
        if wrong is None:
            message = f"l'idée fausse `{written.name}` désigne `{written.wrong}`, que ce fichier ne définit pas."
            raise problem(declared.line_of(written.name), message)
        told.append(Misconception(written.name, wrong, written.message, written.portable))
    hints = [typeset(hint) for hint in exercise.hints]
    tolerance = replace(exercise.tolerance, why=typeset(exercise.tolerance.why))
    declared.exercise = replace(exercise, hints=hints, misconceptions=told, tolerance=tolerance)
    return declared


def _line_of_text(path: Path, name: str) -> int:
    """Ligne de la première ligne du texte affecté à `name`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node.value.lineno
    return 0


def load_quizzes(chapter: str, path: Path) -> dict[str, tuple[Quiz, int]]:
    """Les quiz du chapitre. Lève `ChapterError` si le fichier ne se lit pas."""
    if not path.is_file():
        return {}
    try:
        return read_quizzes(path.read_text(encoding="utf-8"))
    except Malformed as error:
        shown = f"solutions/{chapter}/{path.name}"
        raise ChapterError([Problem(shown, error.line, "", error.message)]) from error


def line_of(error: Exception, filename: str) -> int:
    """Dernière ligne de `filename` par où l'erreur est passée ; 0 si aucune."""
    if isinstance(error, SyntaxError) and error.filename == filename:
        return error.lineno or 0
    frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == filename]
    return frames[-1] or 0 if frames else 0
