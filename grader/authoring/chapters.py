"""Lire un chapitre : `solutions/<chapitre>/chapter.py`, le texte résolu, et ce qu'il déclare (`declarations`).

Rien n'est exécuté à la lecture. Une référence n'est calculée que quand on la demande, à partir des seules cellules
de préparation et d'exercice : les démonstrations ne tournent jamais ici.
"""

from __future__ import annotations

import ast
import contextlib
import io
import linecache
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from atelier import paths
from atelier.judging.exercise import Exercise, Quiz
from atelier.text import typeset
from grader.authoring.claims import taken_out
from grader.authoring.declarations import (
    ChapterError,
    Declared,
    Problem,
    Swap,
    heading,
    line_of,
    load_exercises,
    load_quizzes,
)

BEGIN = "BEGIN SOLUTION"
END = "END SOLUTION"

_TITLE = re.compile(r"### ✎ (\w+)")
_MARKER = re.compile(r"# %%")
_QUIZ_LINE = re.compile(r"\?\?\?(.*)")
_QUIZ_NAME = re.compile(r"""\s+q=["']([^"']+)["']\s*(#.*)?""")


@dataclass(frozen=True)
class Cell:
    """Une cellule d'un chapitre.

    kind : "markdown", "code" (démonstration), "setup" (préparation, exécutée aussi à la correction),
    "exercise", "quiz" ou "experiment". id : l'exercice, le quiz ou l'expérience, sinon "". line : ligne de `source`
    dans chapter.py.
    """

    kind: str
    source: str
    id: str = ""
    tags: tuple[str, ...] = ()
    line: int = 0
    claims: tuple[str, ...] = ()
    """Les affirmations que portent les phrases de cette cellule de texte."""
    bare: tuple[int, ...] = ()
    """Les rangs de ses paragraphes qui n'en portent pas."""


def chapter_names(root: Path | None = None) -> list[str]:
    """Les chapitres de course.toml qui ont un dossier dans solutions/, dans l'ordre du cours."""
    root = root or paths.root()
    declared = [c["name"] for c in paths.read_course(root).get("chapters", [])]
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
    declared = load_exercises(name, folder / "exercises")
    return Chapter(
        name=name,
        title=title.strip(),
        folder=folder,
        cells=[_with_heading(cell, declared) for cell in cells],
        declared=declared,
        asked=load_quizzes(name, folder / "quiz.md"),
    )


def _with_heading(cell: Cell, declared: dict[str, Declared]) -> Cell:
    """La cellule de texte, où « ### ✎ nom » est devenu le titre complet de l'exercice."""
    if cell.kind != "markdown" or not any(_TITLE.fullmatch(line) for line in cell.source.split("\n")):
        return cell
    lines = [
        heading(found[1], declared[found[1]].exercise)
        if (found := _TITLE.fullmatch(line)) and found[1] in declared
        else line
        for line in cell.source.split("\n")
    ]
    return replace(cell, source="\n".join(lines))


@dataclass
class Chapter:
    """Un chapitre lu. `declared` : ses fichiers d'exercices ; `asked` : ses quiz, et leur ligne."""

    name: str
    title: str
    folder: Path
    cells: list[Cell]
    declared: dict[str, Declared]
    asked: dict[str, tuple[Quiz, int]]
    _wrong: dict[tuple[str, str], Callable[..., Any]] = field(default_factory=dict, repr=False)

    @property
    def file(self) -> str:
        """Chemin de chapter.py tel qu'on le montre dans un message."""
        return f"solutions/{self.name}/chapter.py"

    @cached_property
    def exercises(self) -> dict[str, Exercise]:
        """Identifiant → déclaration, dans l'ordre du carnet (puis celles qu'il ne montre pas)."""
        shown = [id for id in self.exercise_cells if id in self.declared]
        return {id: self.declared[id].exercise for id in (*shown, *(id for id in self.declared if id not in shown))}

    @cached_property
    def quizzes(self) -> dict[str, Quiz]:
        """Nom → quiz, dans l'ordre de quiz.md."""
        return {name: quiz for name, (quiz, _) in self.asked.items()}

    @property
    def quiz_file(self) -> str:
        """Chemin de quiz.md tel qu'on le montre dans un message."""
        return f"solutions/{self.name}/quiz.md"

    def exercise_file(self, id: str) -> str:
        """Chemin du fichier de l'exercice tel qu'on le montre dans un message."""
        return f"solutions/{self.name}/exercises/{id}.py"

    def problem(self, id: str, message: str, misconception: str = "", warning: bool = False) -> Problem:
        """Un défaut de la déclaration `id`, à la ligne de l'idée fausse s'il s'agit d'elle."""
        line = self.declared[id].line_of(misconception) if misconception else 0
        return Problem(self.exercise_file(id), line, id, message, warning)

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

    def styles(self, id: str) -> list[Callable[..., Any]]:
        """Les autres réponses justes de l'exercice ; un nom laissé à `...` vient des cellules de préparation."""
        for module in (declared.module for declared in self.declared.values()):  # l'un emploie les réponses d'un autre
            for name in [name for name, value in vars(module).items() if value is ...]:
                setattr(module, name, self.namespace[name])
        return list(self.declared[id].styles)

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
        return self.execute(cell for cell in self.cells if cell.kind in ("setup", "exercise"))

    def execute(self, cells: Iterable[Cell]) -> dict[str, Any]:
        """Exécute ces cellules dans un module neuf, et rend son espace de noms."""
        module = ModuleType(f"chapitre_{self.name}")
        module.__file__ = str(self.folder / "chapter.py")
        sys.modules[module.__name__] = module
        for cell in cells:
            self._execute(cell.source, cell, vars(module), module.__file__, cell.line)
        return vars(module)

    def _build_wrong(self, id: str, misconception: str) -> Callable[..., Any]:
        found = next(m for m in self.exercises[id].misconceptions if m.name == misconception)
        if not isinstance(found.wrong, Swap):
            return found.wrong
        cell = self.exercise_cells[id]
        try:
            source = found.wrong.apply(cell.source)
        except ValueError as error:
            message = f"idée fausse `{misconception}` : le texte à remplacer « {error} » n'est pas dans la solution."
            raise ChapterError([self.problem(id, message, misconception)]) from error
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
            at = line_of(error, filename) or cell.line
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
        id = raw.metadata.get("exercise") or raw.metadata.get("experiment", "")
        if raw.cell_type == "markdown":
            problems += _split_quizzes(raw.source, tags, line, file, cells)
        elif raw.cell_type == "code":
            named = next((kind for kind in ("exercise", "experiment") if kind in raw.metadata), "")
            kind = named or ("setup" if "setup" in tags else "code")
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
            text, claims, bare = taken_out(text)
            cells.append(Cell("markdown", typeset(text), "", tags, start + leading, claims, bare))
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
