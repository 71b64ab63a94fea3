"""Une réponse juste a tous ses points, de quelque façon qu'elle soit écrite, quelle que soit la graine.

Les réponses sont les `styles` des exercices ; des transformations en font ce qu'un étudiant remettrait : fonction
d'aide dans une autre cellule, imports en tête ou dans la fonction, identifiants français, objet appelable… Tout passe
par la vraie chaîne : carnet lu, réparé, exécuté dans le bac à sable, comparé. Un chapitre nouveau est pris aussitôt.
"""

from __future__ import annotations

import ast
import builtins
import functools
import keyword
import os
import random
import textwrap
import time
from collections.abc import Callable

import nbformat
import pytest
from essai import filled
from nbformat import NotebookNode
from test_exercises import WITH_EXERCISES, chapter, declaration, each_exercise, judge, mark, messages, styles

from atelier.judging.probes import run_case
from grader.authoring.declarations import Swap
from grader.authoring.rules import strip_solutions
from grader.classroom.grading import Result, fresh_seed
from grader.classroom.nbglue import Assignment, assignment, grade_notebook, open_data, points_of
from grader.jail.outside.sandbox import Sandbox

TURNS = 5
"""Carnets par chapitre : chaque exercice y est écrit de cinq façons. Les autres styles passent par test_exercises."""
GRADINGS = 50
ENOUGH, SECONDS = 10, 2.0
"""Un exercice lent s'arrête à moins de cinquante, passé ce temps (COURS_LENT=1 : jamais)."""


def grade(given: Assignment, sandbox: Sandbox, notebook: NotebookNode) -> dict[str, Result]:
    opened = open_data(nbformat.writes(notebook).encode(), given)
    results = grade_notebook(opened, given, points_of(opened, given.template), sandbox)
    return {r.exercise: r for r in results}


# ── De la fonction d'un fichier de styles à la copie d'un étudiant ───────────────────────────────────────────────────


@functools.cache
def definitions(name: str, id: str) -> list[ast.stmt]:
    """Ce que voit le fichier de l'exercice : lui d'abord, puis les fichiers dont il importe."""
    folder, own, others = chapter(name).folder / "exercises", [], []
    for node in ast.parse((folder / f"{id}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            others += definitions(name, node.module)
        elif not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            own.append(node)
    return own + others


def defined_by(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(a.asname or a.name).split(".")[0] for a in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}


def used_by(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


class Parts:
    """Une réponse : ses imports, ses fonctions d'aide, et la définition elle-même, au nom de l'exercice."""

    def __init__(self, name: str, id: str, style: str) -> None:
        body = definitions(name, id)
        others = set(chapter(name).exercises) - {style}  # une autre réponse du carnet, dont celle-ci se sert
        values = {word for n in body if isinstance(n, ast.Assign) for word in defined_by(n)}
        others |= values & set(chapter(name).namespace)  # ce que la cellule de préparation donne déjà
        wanted, kept = {style}, set()
        while wanted:
            word = wanted.pop()
            for node in body:
                if word in defined_by(node) and node not in kept:
                    kept.add(node)
                    wanted |= used_by(node) - others
        clash = id != style and any(id in defined_by(n) for n in kept)
        names = {style: id} | ({id: f"{id}_aide"} if clash else {})
        nodes = [Renamed(names).visit(copy(n)) for n in body if n in kept]
        self.imports = [n for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom))]
        self.helpers = [n for n in nodes if n not in self.imports and id not in defined_by(n)]
        self.answer = next(n for n in nodes if id in defined_by(n))
        self.id = id


def copy(node: ast.stmt) -> ast.stmt:
    return ast.parse(ast.unparse(node)).body[0]


class Renamed(ast.NodeTransformer):
    """Renomme partout, sauf les noms d'attributs et d'arguments nommés."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.names.get(node.id, node.id)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self.names.get(node.name, node.name)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self.names.get(node.name, node.name)
        return self.generic_visit(node)


def code(nodes: list[ast.stmt]) -> str:
    return "\n\n".join(ast.unparse(node) for node in nodes)


Written = tuple[list[str], str]
"""Cellules ajoutées avant la première réponse, et cellule de la réponse."""


def all_in_the_cell(parts: Parts) -> Written:
    return [], code([*parts.imports, *parts.helpers, parts.answer])


def helper_in_another_cell(parts: Parts) -> Written:
    """Imports en tête du carnet, aide dans sa cellule, exemples et bavardages dans la réponse."""
    noise = f"print('fini')\n{parts.id}"
    return [code(parts.imports), code(parts.helpers), "1 / 0"], f"{code([parts.answer])}\n\n{noise}"


def imports_inside(parts: Parts) -> Written:
    """Chaque fonction importe ce dont elle se sert."""
    nodes = [copy(n) for n in (*parts.helpers, parts.answer)]
    imported = {word for i in parts.imports for word in defined_by(i)}
    outside = False
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and not used_by(node.args) & imported and not node.decorator_list:
            node.returns = None
            needed = [copy(i) for i in parts.imports if defined_by(i) & used_by(node)]
            node.body = needed + node.body
        else:
            outside = True
    return [], code([*(parts.imports if outside else []), *nodes])


def french_names(parts: Parts) -> Written:
    """Variables locales et fonctions d'aide en français, avec accents ; l'aide est écrite après s'en être servi."""
    names = {n: f"aide_{parts.id}_numérotée_{i}" for i, h in enumerate(parts.helpers) for n in sorted(defined_by(h))}
    nodes = []
    for node in (parts.answer, *parts.helpers):
        new = copy(node)
        nodes.append(Renamed({**names, **local_names(new)}).visit(new))
    late = any(isinstance(n, (ast.Assign, ast.ClassDef, ast.AnnAssign)) for n in nodes[1:]) or needs_helpers_now(parts)
    ordered = [*nodes[1:], nodes[0]] if late else nodes
    return [code(parts.imports)], code(ordered)


def needs_helpers_now(parts: Parts) -> bool:
    """Vrai si la définition elle-même (décorateur, valeur par défaut, classe mère) se sert d'une aide."""
    helpers = {name for h in parts.helpers for name in defined_by(h)}
    node = parts.answer
    if not isinstance(node, ast.FunctionDef):
        return True
    now = [*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)]
    return any(used_by(n) & helpers for n in now)


def local_names(node: ast.AST) -> dict[str, str]:
    """Variables affectées dans une fonction, qui ne sont ni ses arguments, ni des noms de Python → nom français."""
    if not isinstance(node, ast.FunctionDef):
        return {}
    scopes = (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.Global, ast.Nonlocal)
    if sum(isinstance(n, scopes) for n in ast.walk(node)) > 1:
        return {}
    arguments = {a.arg for a in ast.walk(node) if isinstance(a, ast.arg)}
    stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    plain = sorted(stored - arguments - {node.name} - set(dir(builtins)) - set(keyword.kwlist))
    return {name: f"donnée_{i}_réelle" for i, name in enumerate(plain)}


def callable_object(parts: Parts) -> Written:
    """Là où une fonction suffit, un objet qu'on appelle ; une classe, elle, reste une classe, mais dérivée."""
    if isinstance(parts.answer, ast.ClassDef):
        base = f"_base_{parts.id}"
        hidden = Renamed({parts.id: base}).visit(copy(parts.answer))
        return [], code([*parts.imports, *parts.helpers, hidden]) + f"\n\nclass {parts.id}({base}):\n    pass"
    hidden = Renamed({parts.id: f"_calcul_{parts.id}"}).visit(copy(parts.answer))
    wrapper = f"""
    class Calcul_{parts.id}:
        def __call__(self, *valeurs, **options):
            return _calcul_{parts.id}(*valeurs, **options)

    {parts.id} = Calcul_{parts.id}()
    """
    return [], code([*parts.imports, *parts.helpers, hidden]) + textwrap.dedent(wrapper)


def bound_otherwise(parts: Parts) -> Written:
    """Le nom demandé désigne une lambda, un `partial`, une fonction décorée ou une autre, selon l'exercice."""
    hidden = Renamed({parts.id: f"_calcul_{parts.id}"}).visit(copy(parts.answer))
    decorator = "def _bavard(f):\n    def enveloppe(*v, **o):\n        return f(*v, **o)\n    return enveloppe\n"
    forms = [
        f"{parts.id} = _calcul_{parts.id}",
        f"import functools\n{parts.id} = functools.partial(_calcul_{parts.id})",
        f"{parts.id} = lambda *v, **o: _calcul_{parts.id}(*v, **o)",
        f"{decorator}\n{parts.id} = _bavard(_calcul_{parts.id})",
    ]
    return [], code([*parts.imports, *parts.helpers, hidden]) + "\n\n" + forms[len(parts.id) % len(forms)]


WAYS: list[Callable[[Parts], Written]] = [
    all_in_the_cell,
    helper_in_another_cell,
    imports_inside,
    french_names,
    callable_object,
    bound_otherwise,
]


def notebook_of(given: Assignment, name: str, turn: int) -> tuple[NotebookNode, dict[str, str]]:
    """Le carnet rendu numéro `turn` : pour chaque exercice un style et une façon de l'écrire."""
    written, extra, said = {}, [], {}
    for rank, id in enumerate(given.chapter.exercises):
        known = styles(name, id)
        style = known[turn % len(known)].__name__
        way = WAYS[(turn + rank) % len(WAYS)]
        cells, written[id] = way(Parts(name, id, style))
        extra += cells
        said[id] = f"{style}, {way.__name__}\n{written[id]}"
    notebook = filled(given.template, written)
    first = next(i for i, c in enumerate(notebook.cells) if c.metadata.get("nbgrader"))
    notebook.cells[first:first] = [nbformat.v4.new_code_cell(source) for source in extra if source.strip()]
    return notebook, said


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_every_style_written_every_way_gets_full_marks(sandbox: Sandbox, name: str, turn: int) -> None:
    given = assignment(name)
    notebook, said = notebook_of(given, name, turn)
    for id, result in grade(given, sandbox, notebook).items():
        assert result.verdict == "correct" and result.score == result.max_score, f"{said[id]}\n{result.feedback}"


def test_there_are_enough_styles_and_ways() -> None:
    """Au moins cinq façons par exercice : trois styles, chacun écrit de plusieurs manières."""
    for name in WITH_EXERCISES:
        for rank, id in enumerate(chapter(name).exercises):
            known = styles(name, id)
            pairs = {(turn % len(known), (turn + rank) % len(WAYS)) for turn in range(TURNS)}
            assert len(pairs) >= 5, (name, id)


@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_near_misses_lose_points_and_are_named(sandbox: Sandbox, name: str) -> None:
    """Les idées fausses qui remplacent du texte, par la vraie chaîne : une par exercice, tirée au sort, deux fois."""
    given = assignment(name)
    rng = random.Random(fresh_seed())
    for _ in range(2):
        written, expected = {}, {}
        for id, source in given.chapter.sources.items():
            if swaps := [m for m in given.chapter.exercises[id].misconceptions if isinstance(m.wrong, Swap)]:
                chosen = rng.choice(swaps)
                written[id], expected[id] = chosen.wrong.apply(source), chosen.name
        results = grade(given, sandbox, filled(given.template, dict(given.chapter.sources) | written))
        for id, wanted in expected.items():
            found = results[id]
            assert found.score < found.max_score, (id, wanted, found.feedback)
            assert found.verdict in ("misconception", "timeout", "error"), (id, wanted, found.feedback)
            assert found.misconception in (wanted, None), (id, wanted, found.feedback)


def used_exercises(given: Assignment) -> dict[str, set[str]]:
    """Chaque exercice dont la solution se sert d'un autre → ceux-là, directement ou de proche en proche."""
    sources = given.chapter.sources
    direct = {id: (used_by(ast.parse(source)) & set(sources)) - {id} for id, source in sources.items()}
    found = {id: set(names) for id, names in direct.items() if names}
    for names in found.values():
        for name in list(names):
            names |= direct[name]
    return found


@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_a_mistake_costs_once(sandbox: Sandbox, name: str) -> None:
    """Un exercice juste garde tous ses points quand celui dont il se sert est faux, s'arrête, ou reste à écrire."""
    given = assignment(name)
    sources, rng = dict(given.chapter.sources), random.Random(fresh_seed())
    for id, names in used_exercises(given).items():
        for used in sorted(names):
            swaps = [m for m in given.chapter.exercises[used].misconceptions if isinstance(m.wrong, Swap)]
            wrongs = {m.name: m.wrong.apply(sources[used]) for m in rng.sample(swaps, min(3, len(swaps)))}
            wrongs["à écrire"] = strip_solutions(sources[used])
            for what, wrong in wrongs.items():
                results = grade(given, sandbox, filled(given.template, sources | {used: wrong}))
                assert results[used].verdict != "correct", (used, what)
                assert results[id].verdict == "correct", (id, used, what, results[id].feedback)


@each_exercise
def test_fifty_gradings_never_change_a_mark(name: str, id: str) -> None:
    """Cinquante graines neuves, les styles à tour de rôle, comparés comme à la correction."""
    exercise, reference = declaration(name, id), chapter(name).reference(id)
    end = time.monotonic() + SECONDS
    for turn in range(GRADINGS):
        if turn >= ENOUGH and time.monotonic() > end and os.environ.get("COURS_LENT") != "1":
            break
        seed = fresh_seed()
        answer = styles(name, id)[turn % len(styles(name, id))]
        drawn = exercise.draw_cases(id, seed, exercise.cases)
        cases = [(group, inputs, run_case(exercise.probe, reference, inputs)) for group, inputs in drawn]
        results = judge(exercise, cases, answer)
        assert mark(exercise, results) == 1.0, f"graine {seed}, {answer.__name__}\n{messages(results)}"
