"""Lire un chapitre : `solutions/<chapitre>/chapter.py` (le texte résolu) et `exercises.py` (les déclarations).

Rien n'est exécuté à la lecture. Une référence n'est calculée que quand on la demande, à partir des seules cellules
de préparation et d'exercice : les démonstrations ne tournent jamais ici.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import linecache
import re
import sys
import tomllib
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from atelier import paths
from atelier.exercise import Choice, Exercise, Quiz, Swap
from atelier.text import typeset
from grader import UserError

BEGIN = "BEGIN SOLUTION"
END = "END SOLUTION"

_MARKER = re.compile(r"# %%")
_QUIZ_LINE = re.compile(r"\?\?\?(.*)")
_QUIZ_NAME = re.compile(r"""\s+q=["']([^"']+)["']\s*(#.*)?""")


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
        kind = "avertissement : " if self.warning else ""
        return f"{where} ({self.cell}) : {kind}{self.message}" if self.cell else f"{where} : {kind}{self.message}"


class ChapterError(UserError):
    """Un chapitre mal écrit. `problems` en donne tous les défauts."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


@dataclass(frozen=True)
class Cell:
    """Une cellule d'un chapitre.

    kind : "markdown", "code" (démonstration), "setup" (préparation, exécutée aussi à la correction),
    "exercise" ou "quiz". id : l'exercice ou le quiz, sinon "". line : ligne de `source` dans chapter.py.
    """

    kind: str
    source: str
    id: str = ""
    tags: tuple[str, ...] = ()
    line: int = 0


def chapter_names(root: Path | None = None) -> list[str]:
    """Les chapitres de course.toml qui ont un dossier dans solutions/, dans l'ordre du cours."""
    root = root or paths.root()
    with open(root / "course.toml", "rb") as f:
        declared = [c["name"] for c in tomllib.load(f).get("chapters", [])]
    return [name for name in declared if (root / "solutions" / name / "chapter.py").is_file()]


def load_chapter(name: str, root: Path | None = None) -> Chapter:
    """Lit le chapitre `name`. Lève `ChapterError` s'il est introuvable ou illisible."""
    root = root or paths.root()
    folder = root / "solutions" / name
    source = folder / "chapter.py"
    shown = f"solutions/{name}/chapter.py"
    if not source.is_file():
        known = ", ".join(chapter_names(root)) or "aucun"
        raise ChapterError([Problem(shown, 0, "", f"ce fichier n'existe pas. Chapitres écrits : {known}.")])
    cells, problems = parse_cells(source.read_text(encoding="utf-8"), shown)
    if problems:
        raise ChapterError(problems)
    title = next((m[1] for c in cells if c.kind == "markdown" and (m := re.match(r"#\s+(.+)", c.source))), name)
    declarations = _load_declarations(name, folder / "exercises.py")
    return Chapter(
        name=name,
        title=title.strip(),
        folder=folder,
        cells=cells,
        exercises={k: _typeset_exercise(v) for k, v in declarations.items() if isinstance(v, Exercise)},
        quizzes={k: _typeset_quiz(v) for k, v in declarations.items() if isinstance(v, Quiz)},
    )


def _typeset_exercise(exercise: Exercise) -> Exercise:
    told = [replace(m, message=typeset(m.message)) for m in exercise.misconceptions]
    return replace(exercise, hints=[typeset(hint) for hint in exercise.hints], misconceptions=told)


def _typeset_quiz(quiz: Quiz) -> Quiz:
    choices = [Choice(typeset(c.text), typeset(c.why), c.correct) for c in quiz.choices]
    return Quiz(typeset(quiz.question), choices)


@dataclass
class Chapter:
    """Un chapitre lu. `exercises` et `quizzes` sont dans l'ordre où exercises.py les déclare."""

    name: str
    title: str
    folder: Path
    cells: list[Cell]
    exercises: dict[str, Exercise]
    quizzes: dict[str, Quiz]
    _wrong: dict[tuple[str, str], Callable[..., Any]] = field(default_factory=dict, repr=False)

    @property
    def file(self) -> str:
        """Chemin de chapter.py tel qu'on le montre dans un message."""
        return f"solutions/{self.name}/chapter.py"

    @property
    def declarations_file(self) -> str:
        """Chemin de exercises.py tel qu'on le montre dans un message."""
        return f"solutions/{self.name}/exercises.py"

    @cached_property
    def exercise_cells(self) -> dict[str, Cell]:
        """Identifiant → cellule résolue, dans l'ordre du carnet."""
        return {cell.id: cell for cell in self.cells if cell.kind == "exercise"}

    @property
    def sources(self) -> dict[str, str]:
        """Identifiant → source résolue (avec les marques BEGIN et END SOLUTION), dans l'ordre du carnet."""
        return {id: cell.source for id, cell in self.exercise_cells.items()}

    def reference(self, id: str) -> Callable[..., Any]:
        """La fonction ou la classe de référence de l'exercice `id`."""
        return self._defined(self.exercise_cells[id], self.namespace)

    def wrong(self, id: str, misconception: str) -> Callable[..., Any]:
        """La réponse fausse nommée `misconception` de l'exercice `id`."""
        if (id, misconception) not in self._wrong:
            self._wrong[id, misconception] = self._build_wrong(id, misconception)
        return self._wrong[id, misconception]

    def signature(self, id: str) -> str:
        """`absmax_scale(r, bits=8, full_range=False)` : noms, ordre et valeurs par défaut, sans annotations."""
        definition = find_definition(self.exercise_cells[id].source, id)
        if isinstance(definition, ast.ClassDef):
            inits = (n for n in definition.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
            definition = next(inits, None)
        if definition is None:
            return f"{id}()"
        arguments = definition.args
        if definition.name == "__init__":
            del (arguments.posonlyargs or arguments.args)[0]
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            argument.annotation = None
        return f"{id}({ast.unparse(arguments)})"

    @cached_property
    def namespace(self) -> dict[str, Any]:
        """L'espace de noms où les cellules de préparation et d'exercice ont été exécutées, dans l'ordre."""
        module = ModuleType(f"chapitre_{self.name}")
        module.__file__ = str(self.folder / "chapter.py")
        sys.modules[module.__name__] = module
        for cell in self.cells:
            if cell.kind in ("setup", "exercise"):
                self._execute(cell.source, cell, vars(module), module.__file__, cell.line)
        return vars(module)

    def _build_wrong(self, id: str, misconception: str) -> Callable[..., Any]:
        found = next(m for m in self.exercises[id].misconceptions if m.name == misconception)
        if not isinstance(found.wrong, Swap):
            return found.wrong
        cell = self.exercise_cells[id]
        source = cell.source
        for old, new in found.wrong.pairs:
            if old not in source:
                message = f"idée fausse `{misconception}` : le texte à remplacer « {old} » n'est pas dans la solution."
                raise ChapterError([Problem(self.declarations_file, 0, id, message)])
            source = source.replace(old, new)
        namespace = dict(self.namespace)
        filename = f"<chapitre_{self.name}: {id}, {misconception}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        self._execute(source, cell, namespace, filename, 1)
        return self._defined(cell, namespace)

    def _defined(self, cell: Cell, namespace: dict[str, Any]) -> Callable[..., Any]:
        if cell.id not in namespace:
            raise ChapterError([Problem(self.file, cell.line, cell.id, f"la cellule ne définit pas `{cell.id}`.")])
        return namespace[cell.id]

    def _execute(self, source: str, cell: Cell, namespace: dict[str, Any], filename: str, line: int) -> None:
        """Exécute `source` comme si elle commençait à la ligne `line` de `filename` ; les impressions sont tues."""
        try:
            tree = ast.increment_lineno(ast.parse(source, filename), line - 1)
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(tree, filename, "exec"), namespace)
        except Exception as error:
            at = _line_of(error, filename) or cell.line
            where = cell.id or "cellule de préparation"
            message = f"l'exécution échoue : {type(error).__name__} : {error}"
            raise ChapterError([Problem(self.file, at, where, message)]) from error


def find_definition(source: str, id: str) -> ast.FunctionDef | ast.ClassDef | None:
    """Le `def` ou la `class` de nom `id`, au premier niveau de `source`."""
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == id:
            return node
    return None


def parse_cells(text: str, file: str) -> tuple[list[Cell], list[Problem]]:
    """Texte py:percent → cellules et défauts de forme."""
    import jupytext

    parsed = jupytext.reads(text, fmt="py:percent").cells
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines, 1) if _MARKER.match(line)]
    if len(parsed) != len(starts):
        message = (
            f"{len(parsed)} cellules pour {len(starts)} lignes « # %% » : du texte précède la première, "
            "ou l'une d'elles est dans une chaîne."
        )
        return [], [Problem(file, starts[0] if starts else 1, "", message)]
    cells: list[Cell] = []
    problems: list[Problem] = []
    for raw, start in zip(parsed, starts, strict=True):
        line = start + 1
        while line <= len(lines) and not lines[line - 1].strip():
            line += 1
        tags = tuple(raw.metadata.get("tags", ()))
        id = raw.metadata.get("exercise", "")
        if raw.cell_type == "markdown":
            problems += _split_quizzes(raw.source, tags, line, file, cells)
        elif raw.cell_type == "code":
            kind = "exercise" if "exercise" in raw.metadata else "setup" if "setup" in tags else "code"
            cells.append(Cell(kind, raw.source.strip("\n"), id, tags, line))
        else:
            problems.append(Problem(file, line, "", f"genre de cellule inconnu : {raw.cell_type}."))
    return cells, problems


def _split_quizzes(source: str, tags: tuple[str, ...], line: int, file: str, cells: list[Cell]) -> list[Problem]:
    """Ajoute à `cells` le texte d'une cellule markdown, coupé à chaque ligne `??? q="…"`."""
    problems: list[Problem] = []
    pending: list[str] = []
    start = line

    def flush() -> None:
        if text := "\n".join(pending).strip("\n"):
            leading = next(i for i, part in enumerate(pending) if part.strip())
            cells.append(Cell("markdown", typeset(text), "", tags, start + leading))
        pending.clear()

    for offset, part in enumerate(source.split("\n")):
        if not (quiz := _QUIZ_LINE.fullmatch(part)):
            pending.append(part)
            continue
        flush()
        start = line + offset + 1
        if name := _QUIZ_NAME.fullmatch(quiz[1]):
            cells.append(Cell("quiz", f'quiz("{name[1]}")', name[1], (), line + offset))
        else:
            problems.append(
                Problem(file, line + offset, "", f'ligne de quiz illisible : {part} (attendu : ??? q="nom").')
            )
    flush()
    return problems


def _load_declarations(name: str, path: Path) -> dict[str, Any]:
    """Les noms définis par exercises.py, ou rien si le chapitre n'a pas d'exercices."""
    if not path.is_file():
        return {}
    spec = importlib.util.spec_from_file_location(f"exercices_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        message = f"l'exécution échoue : {type(error).__name__} : {error}"
        raise ChapterError(
            [Problem(f"solutions/{name}/exercises.py", _line_of(error, str(path)), "", message)]
        ) from error
    return {k: v for k, v in vars(module).items() if not k.startswith("_")}


def _line_of(error: Exception, filename: str) -> int:
    """Dernière ligne de `filename` par où l'erreur est passée ; 0 si aucune."""
    if isinstance(error, SyntaxError) and error.filename == filename:
        return error.lineno or 0
    frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == filename]
    return frames[-1] or 0 if frames else 0
