"""Ce qu'un chapitre doit respecter avant d'être construit. Chaque règle rend tous les défauts qu'elle trouve."""

from __future__ import annotations

import ast
import importlib
import io
import keyword
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from atelier.text import plural
from grader.authoring.chapters import BEGIN, END, Cell, Chapter, Problem, find_definition
from grader.authoring.declarations import heading
from grader.authoring.words import misused, misused_in_code, typography

STUB = 'raise NotImplementedError("Cet exercice reste à écrire : remplacez cette ligne par votre code.")'
"""Ce que l'étudiant trouve à la place de chaque région de solution ; la configuration nbgrader dit la même chose."""

LEAK = re.compile(r"HIDDEN TESTS|\bsolutions/|\bgrader\b")
"""Mots qui n'ont rien à faire chez l'étudiant."""

MIN_DISTINCTIVE = 25

_IMAGE = re.compile(r"!\[\s*\]\(|<img(?![^>]*\balt=[\"'][^\"'])[^>]*>", re.IGNORECASE)
_HEADING = re.compile(r"^#+ .*(?:✎|Exercice\s*:).*$", re.MULTILINE)
_FIGURES = re.compile(r"ch\d+")
MIN_STYLES = 3
"""Réponses justes écrites autrement que la référence, au moins, par exercice."""
MAX_COLUMNS = 120
STATEMENT_COLUMNS = 100
"""Colonnes d'un énoncé, tel que l'étudiant le lit dans JupyterLab."""
MAX_EXPERIMENT_LINES = 18
"""Décorateur, titre et consigne compris : quinze lignes de mesure."""


def strip_solutions(source: str) -> str:
    """La cellule telle que l'étudiant la reçoit : une phrase à la place de chaque région de solution."""
    lines: list[str] = []
    inside = False
    for line in source.split("\n"):
        if BEGIN in line:
            inside = True
            lines.append(line[: len(line) - len(line.lstrip())] + STUB)
        elif END in line:
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def distinctive_lines(source: str) -> list[str]:
    """Les lignes d'une solution qui la trahiraient ailleurs : du code, assez long pour ne pas se répéter par hasard."""
    found: list[str] = []
    inside = False
    for line in source.split("\n"):
        if BEGIN in line:
            inside = True
        elif END in line:
            inside = False
        elif inside and len(line.strip()) >= MIN_DISTINCTIVE and not line.strip().startswith("#"):
            found.append(line.strip())
    return found


def secret_lines(chapters: Iterable[Chapter]) -> dict[str, str]:
    """Chaque ligne qui trahirait une solution de ces chapitres → l'exercice à qui elle est."""
    return {
        line: id for chapter in chapters for id, source in chapter.sources.items() for line in distinctive_lines(source)
    }


def check_structure(chapter: Chapter) -> list[Problem]:
    """Défauts visibles sans rien exécuter."""
    rules = (
        *(_pairing, _declarations, _solutions, _headings, _code_cells, _experiments, _figures),
        *(_images, _quizzes, _prose, _words, _lines, _leaks),
    )
    return sorted(problem for rule in rules for problem in rule(chapter))


def check_shared_lines(chapters: Sequence[Chapter], root: Path) -> list[Problem]:
    """Les lignes d'une solution que montrerait un autre de ces chapitres, ou l'atelier : `publish` les refuserait."""
    secrets, found = secret_lines(chapters), []
    for chapter in chapters:
        for cell in chapter.cells:
            student = strip_solutions(cell.source) if cell.kind == "exercise" else cell.source
            for offset, line in enumerate(student.split("\n")):
                owner = secrets.get(line.strip())
                if owner and owner not in chapter.sources:  # celles du chapitre : check_structure les a dites
                    found.append(
                        _at(
                            chapter,
                            cell,
                            f"c'est une ligne de la solution de `{owner}` : écrivez-la autrement.",
                            offset,
                        )
                    )
    for path in sorted((root / "atelier").rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if owner := secrets.get(line.strip()):
                shown = path.relative_to(root).as_posix()
                found.append(
                    Problem(shown, number, "", f"c'est une ligne de la solution de `{owner}` : écrivez-la autrement.")
                )
    return found


def _at(chapter: Chapter, cell: Cell, message: str, offset: int = 0) -> Problem:
    return Problem(chapter.file, cell.line + offset, cell.id or cell.kind, message)


def _pairing(chapter: Chapter) -> Iterator[Problem]:
    """À chaque cellule d'exercice sa déclaration, et l'inverse ; pas deux cellules pour un même nom."""
    seen: dict[tuple[str, str], Cell] = {}
    for cell in chapter.cells:
        if cell.kind not in ("exercise", "quiz"):
            continue
        if first := seen.get((cell.kind, cell.id)):
            yield _at(chapter, cell, f"deux cellules portent le nom `{cell.id}` (l'autre est ligne {first.line}).")
        seen[cell.kind, cell.id] = cell
        if cell.kind == "exercise" and cell.id not in chapter.exercises:
            yield _at(chapter, cell, f"l'exercice n'est pas déclaré : il manque {chapter.exercise_file(cell.id)}.")
        if cell.kind == "quiz" and cell.id not in chapter.quizzes:
            yield _at(chapter, cell, f"le quiz n'est pas dans {chapter.quiz_file}.")
    for kind, names in (("exercise", chapter.exercises), ("quiz", chapter.quizzes)):
        for name in names:
            if (kind, name) not in seen:
                marker = f'# %% exercise="{name}"' if kind == "exercise" else f'??? q="{name}"'
                message = f"déclaré, mais {chapter.file} ne le montre nulle part (attendu : {marker})."
                if kind == "exercise":
                    yield chapter.problem(name, message)
                else:
                    yield Problem(chapter.quiz_file, chapter.asked[name][1], name, message)


def _declarations(chapter: Chapter) -> Iterator[Problem]:
    problem = chapter.problem
    for id, exercise in chapter.exercises.items():
        if not exercise.points > 0:
            yield problem(id, f"un exercice vaut plus de 0 point, pas {exercise.points}.")
        if not exercise.misconceptions:
            yield problem(id, "aucune idée fausse n'est déclarée.")
        counts = Counter(m.name for m in exercise.misconceptions)
        for name, count in counts.items():
            if count > 1:
                yield problem(id, f"{count} idées fausses portent le nom `{name}`.", name)
            if not re.fullmatch(r"\w+", name, re.ASCII):
                yield problem(id, f"le nom d'idée fausse « {name} » s'écrit en lettres ASCII, chiffres et tirets bas.")
        if (found := len(chapter.declared[id].styles)) < MIN_STYLES:
            message = f"{plural(found, 'autre réponse juste', 'autres réponses justes')} dans `styles`"
            yield problem(id, f"{message} : il en faut {MIN_STYLES}, écrites autrement que la référence.")
        if not id.isascii():
            yield problem(id, "un identifiant s'écrit en lettres ASCII, sans accent.")
    for name, (_, line) in chapter.asked.items():
        if not name.isascii():
            yield Problem(chapter.quiz_file, line, name, "un identifiant s'écrit en lettres ASCII, sans accent.")


def _solutions(chapter: Chapter) -> Iterator[Problem]:
    """Marques appariées, et seulement dans les exercices ; une consigne ; une cellule d'étudiant qui se tient."""
    for cell in chapter.cells:
        balanced, regions = True, 0
        opened: int | None = None
        for offset, line in enumerate(cell.source.split("\n")):
            if BEGIN in line and cell.kind != "exercise":
                balanced = False
                yield _at(chapter, cell, f"« {BEGIN} » hors d'une cellule d'exercice.", offset)
            elif BEGIN in line:
                regions += 1
                if opened is not None:
                    balanced = False
                    message = f"« {BEGIN} » dans une région déjà ouverte ligne {cell.line + opened}."
                    yield _at(chapter, cell, message, offset)
                opened = offset
            elif END in line:
                if opened is None:
                    balanced = False
                    yield _at(chapter, cell, f"« {END} » sans « {BEGIN} ».", offset)
                opened = None
        if opened is not None:
            balanced = False
            yield _at(chapter, cell, f"« {BEGIN} » sans « {END} ».", opened)
        if cell.kind != "exercise" or not balanced:
            continue
        if not regions:
            message = f"aucune région « ### {BEGIN} » … « ### {END} » : l'étudiant recevrait la solution."
            yield _at(chapter, cell, message)
            continue
        yield from _student_cell(chapter, cell)


def _student_cell(chapter: Chapter, cell: Cell) -> Iterator[Problem]:
    if _parse(cell.source) is None:
        return  # déjà dit par _code_cells
    if find_definition(cell.source, cell.id) is None:
        yield _at(chapter, cell, f"la cellule ne définit ni fonction ni classe `{cell.id}`.")
        return
    student = strip_solutions(cell.source)
    kept = find_definition(student, cell.id) if _parse(student) is not None else None
    if kept is None:
        yield _at(chapter, cell, "une fois la solution retirée, la cellule ne définit plus l'exercice.")
    elif not ast.get_docstring(kept):
        yield _at(chapter, cell, f"`{cell.id}` n'a pas de consigne (docstring) hors de la région de solution.")


def _headings(chapter: Chapter) -> Iterator[Problem]:
    """Le titre d'un exercice est posé par la construction, à la ligne « ### ✎ nom », une fois et avant sa cellule."""
    announced: set[str] = set()
    for cell in chapter.cells:
        if cell.kind == "markdown":
            titles = {heading(id, chapter.exercises[id]): id for id in chapter.exercises}
            for found in _HEADING.finditer(cell.source):
                if (id := titles.get(found[0])) and id not in announced:
                    announced.add(id)
                    continue
                message = f"« {found[0]} » est déjà annoncé." if id else f"« {found[0]} » : écrivez « ### ✎ nom »."
                yield _at(chapter, cell, message, cell.source.count("\n", 0, found.start()))
        elif cell.kind == "exercise" and cell.id in chapter.exercises and cell.id not in announced:
            yield _at(chapter, cell, f"aucun titre ne précède l'exercice : écrivez « ### ✎ {cell.id} » au-dessus.")


def _code_cells(chapter: Chapter) -> Iterator[Problem]:
    """Du Python lisible, aux identifiants ASCII, dont chaque figure a son texte de remplacement."""
    for cell in chapter.cells:
        if cell.kind == "markdown":
            continue
        tree = _parse(cell.source)
        if tree is None:
            yield _at(chapter, cell, "ce n'est pas du Python (les commandes magiques de Jupyter n'en sont pas).")
            continue
        for token in tokenize.generate_tokens(io.StringIO(cell.source).readline):
            if token.type == tokenize.NAME and not token.string.isascii() and not keyword.iskeyword(token.string):
                message = f"l'identifiant « {token.string} » n'est pas en lettres ASCII."
                yield _at(chapter, cell, message, token.start[0] - 1)
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            match call.func:
                case ast.Name("show") | ast.Attribute(ast.Name("atelier"), "show"):
                    alt = next((k.value for k in call.keywords if k.arg == "alt"), None)
                    empty = isinstance(alt, ast.Constant) and not str(alt.value or "").strip()
                    if alt is None or empty:
                        message = 'une figure est montrée sans texte de remplacement : show(…, alt="…").'
                        yield _at(chapter, cell, message, call.lineno - 1)
                case ast.Attribute(ast.Name("plt"), "show"):
                    message = 'plt.show() n\'a pas de texte de remplacement : utilisez show(fig, alt="…").'
                    yield _at(chapter, cell, message, call.lineno - 1)


def _experiments(chapter: Chapter) -> Iterator[Problem]:
    """Une expérience est une fonction courte, de même nom que sa cellule ; ce qui est enregistré vient de son texte."""
    for cell in chapter.cells:
        if cell.kind != "experiment" or (tree := _parse(cell.source)) is None:
            continue
        found = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == cell.id), None)
        if found is None or not any("experiment" in ast.unparse(d) for d in found.decorator_list):
            yield _at(chapter, cell, f"la cellule ne définit pas d'expérience `{cell.id}` (`@experiment`, puis `def`).")
            continue
        length = sum(1 for line in cell.source.split("\n") if line.strip())
        if length > MAX_EXPERIMENT_LINES:
            yield _at(
                chapter, cell, f"{length} lignes, {MAX_EXPERIMENT_LINES} au plus : on doit la lire d'un coup d'œil."
            )
        if cell.id in chapter.exercises:
            yield _at(chapter, cell, "un exercice porte déjà ce nom.")


def _figures(chapter: Chapter) -> Iterator[Problem]:
    """`ch3.nom` existe dans `atelier.figures.ch3`."""
    for cell in chapter.cells:
        tree = _parse(cell.source) if cell.kind in ("code", "setup", "experiment") else None
        for node in ast.walk(tree) if tree else ():
            match node:
                case ast.Attribute(ast.Name(module), name) if _FIGURES.fullmatch(module):
                    if not hasattr(importlib.import_module(f"atelier.figures.{module}"), name):
                        message = f"`{module}.{name}` n'existe pas dans atelier/figures."
                        yield _at(chapter, cell, message, node.lineno - 1)


def _images(chapter: Chapter) -> Iterator[Problem]:
    for cell in chapter.cells:
        for image in _IMAGE.finditer(cell.source) if cell.kind == "markdown" else ():
            offset = cell.source.count("\n", 0, image.start())
            yield _at(chapter, cell, f"image sans texte de remplacement : {image[0][:40]}", offset)


def _prose(chapter: Chapter) -> Iterator[Problem]:
    """La typographie : les espaces insécables sont posées par la construction, le reste est à écrire juste."""
    for cell in chapter.cells:
        for offset, message in _faults(cell.source) if cell.kind == "markdown" else ():
            yield _at(chapter, cell, message, offset)
    for id, exercise in chapter.exercises.items():
        told = [(hint, "") for hint in exercise.hints] + [(m.message, m.name) for m in exercise.misconceptions]
        for text, name in told:
            for _, message in (*_faults(text), *_unfinished(text)):
                yield chapter.problem(id, message, name)
    for name, (quiz, line) in chapter.asked.items():
        texts = [quiz.question, *(c.text for c in quiz.choices)]
        faults = [fault for text in texts for fault in _faults(text)]
        for _, message in (*faults, *(f for c in quiz.choices for f in (*_faults(c.why), *_unfinished(c.why)))):
            yield Problem(chapter.quiz_file, line, name, message)


def _faults(text: str) -> Iterator[tuple[int, str]]:
    """Ce qui est mal composé : (rang de la ligne, phrase)."""
    for rank, fault, around in typography(text):
        yield rank, f"{fault} : {around}"


def _unfinished(text: str) -> Iterator[tuple[int, str]]:
    if not text.endswith((".", "?", "!")):
        yield 0, f"cette phrase n'a pas de point : {text[-60:]}"


def _words(chapter: Chapter) -> Iterator[Problem]:
    """Un mot pour une chose, dans tout ce que lit l'étudiant."""
    for cell in chapter.cells:
        if cell.kind == "markdown":
            yield from (_at(chapter, cell, message, rank) for rank, message in misused(cell.source))
        elif (tree := _parse(cell.source)) is not None:
            yield from (_at(chapter, cell, message, line - 1) for line, message in misused_in_code(tree))
    for id, exercise in chapter.exercises.items():
        names = set(re.findall(r"\w+", chapter.sources.get(id, "")))
        for text, name in [
            *((hint, "") for hint in exercise.hints),
            *((m.message, m.name) for m in exercise.misconceptions),
        ]:
            yield from (chapter.problem(id, message, name) for _, message in misused(text, names))
    for name, (quiz, line) in chapter.asked.items():
        for text in (quiz.question, *(c.text for c in quiz.choices), *(c.why for c in quiz.choices)):
            yield from (Problem(chapter.quiz_file, line, name, message) for _, message in misused(text))


def _lines(chapter: Chapter) -> Iterator[Problem]:
    """Ni ligne trop longue, ni espace insécable tapée dans la prose."""
    folder = chapter.folder
    for path in (folder / "chapter.py", *sorted(folder.glob("exercises/*.py")), folder / "quiz.md"):
        shown = f"solutions/{chapter.name}/{path.relative_to(folder).as_posix()}"
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_COLUMNS and path.suffix == ".py" and not line.startswith(("# |", "# $$")):
                yield Problem(shown, number, "", f"{len(line)} colonnes, {MAX_COLUMNS} au plus.")
            if re.search("[\u00a0\u202f]", line) and (path.name != "chapter.py" or line.startswith("# ")):
                yield Problem(shown, number, "", "une espace insécable est tapée : écrivez une espace, build la pose.")
    for cell in chapter.exercise_cells.values():
        statement = strip_solutions(cell.source).split("\n")
        for number, line in enumerate(cell.source.split("\n")):
            if len(line) > STATEMENT_COLUMNS and line in statement:
                message = f"{len(line)} colonnes dans un énoncé, {STATEMENT_COLUMNS} au plus."
                yield _at(chapter, cell, message, number)


def _quizzes(chapter: Chapter) -> Iterator[Problem]:
    """Un quiz se montre par une ligne `??? q="…"`, pas par un appel écrit à la main ; « ✔ Oui. » est déjà dit."""
    for name, quiz in chapter.quizzes.items():
        for choice in quiz.choices:
            if found := re.match(r"(Oui|Non)\b", choice.why):
                message = f"l'explication de « {choice.text} » commence par « {found[1]} », que le quiz dit déjà."
                yield Problem(chapter.quiz_file, chapter.asked[name][1], name, message)
    for cell in chapter.cells:
        tree = _parse(cell.source) if cell.kind in ("code", "setup") else None
        for call in ast.walk(tree) if tree else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "quiz":
                message = 'un quiz se montre par une ligne « ??? q="nom" » dans une cellule de texte.'
                yield _at(chapter, cell, message, call.lineno - 1)


def _leaks(chapter: Chapter) -> Iterator[Problem]:
    """Rien de la solution ni de la correction dans ce que l'étudiant reçoit."""
    secrets = secret_lines([chapter])
    for cell in chapter.cells:
        student = strip_solutions(cell.source) if cell.kind == "exercise" else cell.source
        if found := LEAK.search(student):
            yield _at(chapter, cell, f"« {found[0]} » resterait dans le carnet de l'étudiant.")
        for line, id in secrets.items():
            if line in student:
                yield _at(chapter, cell, f"cette ligne de la solution de `{id}` resterait chez l'étudiant : {line}")
    for id, exercise in chapter.exercises.items():
        texts = [*exercise.hints, *(m.message for m in exercise.misconceptions)]
        for line, owner in secrets.items():
            if any(line in text for text in texts):
                message = f"un indice ou un message donne une ligne de la solution de `{owner}` : {line}"
                yield chapter.problem(id, message)


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None
