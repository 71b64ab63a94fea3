"""Exécuter les cellules d'un carnet de haut en bas, et dire ce qu'elles laissent sous le nom d'un exercice.

Une cellule s'exécute instruction par instruction, comme dans Jupyter, lignes propres à IPython comprises. Ce qui ne
peut pas l'être ici (disque à monter, commande du système, carte, réseau, saisie, boucle trop longue) est passé et dit,
et la suite de la cellule s'exécute : les imports et les fonctions qu'elle contient ne sont pas perdus. Après une erreur
qui aurait aussi arrêté la cellule dans le carnet, la suite ne fait que compléter : elle ne remplace aucun nom.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import dis
import inspect
import linecache
import re
import signal
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

EXTRA_SECONDS_IN_ALL = 30.0
"""Temps de toutes les cellules ajoutées par l'étudiant ; ensuite, seules leurs définitions s'exécutent."""
AFTER_SECONDS = 2.0
"""Temps laissé à la suite d'une cellule quand une de ses instructions a été interrompue."""
MAX_TIMEOUTS = 3
MAX_PASSED = 10
"""Instructions passées dont le compte rendu d'une cellule parle ; les suivantes le sont en silence."""
MAX_STEPS = 200
"""Instructions d'une cellule annoncées avant d'être exécutées : qui surveille saura laquelle a tout arrêté."""

QUIET = ("check", "hint", "progress", "quiz", "bet", "settle", "show", "table", "board", "save_variant")
"""Noms de l'atelier sans effet à la correction : ils affichent ou écrivent, aucun exercice n'en dépend."""

_kept: list[types.ModuleType] = []
"""Modules `__main__` remplacés, gardés en vie parce que leurs fonctions servent encore."""


# ---------------------------------------------------------------------------------------------- limite de temps


class TimeUp(BaseException):
    """Limite douce atteinte. N'hérite pas d'`Exception`, pour traverser un `except Exception` de l'étudiant."""


def waited(pid: int | str = "self") -> float:
    """Secondes qu'un processus a passées à attendre un cœur (0 si le système ne le dit pas)."""
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as f:
            return int(f.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


@contextlib.contextmanager
def interrupt_after(
    seconds: float, error: type[BaseException] = TimeUp, patience: float = 1.0, before: float | None = None
) -> Iterator[Callable[[], bool]]:
    """Interrompt le bloc par `error` après `seconds`, attente d'un cœur non comptée (au plus `patience` fois autant).

    before : l'attente déjà passée au début, si l'appelant la sait. Rend de quoi savoir si la limite a été atteinte.
    """
    fired = False
    clock, late, alarm = time.monotonic, waited, signal.setitimer  # le code du bloc peut remplacer les vrais
    start = clock()
    before = waited() if before is None else before
    if not hasattr(signal, "setitimer"):
        yield lambda: False
        return

    def ring(*_: object) -> None:
        nonlocal fired
        elapsed = clock() - start
        left = seconds - (elapsed - (late() - before))
        if left > 0.01 and elapsed < patience * seconds:
            alarm(signal.ITIMER_REAL, min(left, patience * seconds - elapsed) + 0.01)
            return
        fired = True
        raise error

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield lambda: fired
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# ---------------------------------------------------------------------------------------------- IPython


class NotHere(Exception):
    """Ce que la correction ne peut pas faire. Le texte dit quoi."""


SILENT = ("autoreload", "config", "load_ext", "matplotlib", "pinfo", "pinfo2", "precision", "reload_ext", "timeit")
"""Lignes magiques sans effet sur ce que le carnet définit : passées sans le dire."""
RUN_BODY = ("capture", "prun", "time")
"""Cellules magiques qui exécutent leur contenu dans le carnet."""


class Shell:
    """Ce que `get_ipython()` rend ici : de quoi passer, et dire, les lignes propres à IPython."""

    def __init__(self, space: dict[str, Any]) -> None:
        self.user_ns = space

    def run_line_magic(self, name: str, line: str = "", *_: Any, **__: Any) -> None:
        if name in ("time", "prun"):
            exec(compile(line, "<magie>", "exec"), self.user_ns)
        elif name not in SILENT:
            raise NotHere(f"%{name} n'a pas d'effet à la correction")

    def run_cell_magic(self, name: str, *_: Any, **__: Any) -> None:
        raise NotHere(f"%%{name} n'a pas d'effet à la correction")

    def magic(self, line: str) -> None:
        self.run_line_magic(*line.lstrip("%").split(" ", 1))

    def system(self, *_: Any, **__: Any) -> None:
        raise NotHere("une commande du système ne s'exécute pas à la correction")

    getoutput = system


@cache
def transform() -> Callable[[str], str]:
    """Ce qu'IPython fait d'une cellule avant de la lire. Chargé pour les seules cellules qui en ont besoin."""
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell


_CELL_MAGIC = re.compile(r"%%(\w+)[ \t]*(.*)")


def body_of(source: str) -> str:
    """Ce qu'il faut exécuter d'une cellule magique, ses lignes à leur place. Lève `NotHere` si ce n'en est pas."""
    lines = source.split("\n")
    for i, line in enumerate(lines):
        magic = _CELL_MAGIC.match(line.strip())
        if line.strip() and not magic:
            break
        if magic:
            name, rest = magic.groups()
            if name in ("writefile", "file"):
                *options, path = rest.split() or [""]
                with open(path.strip("\"'"), "a" if "-a" in options else "w", encoding="utf-8") as f:
                    f.write("\n".join(lines[i + 1 :]) + "\n")
                return ""
            if name in SILENT:
                return ""
            if name not in RUN_BODY:
                raise NotHere(f"une cellule %%{name} ne s'exécute pas à la correction")
            lines[i] = ""
    return "\n".join(lines)


def from_ipython(source: str, filename: str) -> ast.Module:
    """Les instructions d'une cellule qui n'est pas du Python, une fois traduites par IPython."""
    body = source.lstrip("\n")
    before = len(source) - len(body)
    try:
        tree = ast.parse(transform()(body), filename)
    except SyntaxError as error:
        error.lineno = (error.lineno or 0) + before
        raise
    return ast.increment_lineno(tree, before)


# ---------------------------------------------------------------------------------------------- instructions

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
_DEFINITIONS_ONLY = re.compile(r"(?:(?:(?:async |def |class |import |from )|[@# \t)\]}])[^\n]*(?:\n|$)|\n)*")
"""Une cellule ordinaire : chacune de ses lignes définit, ou est dans une définition."""
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, *_COMPREHENSIONS)
_WORK = (ast.Call, ast.Await, *_COMPREHENSIONS)


def within(node: ast.AST) -> Iterator[ast.AST]:
    """Une instruction et ce qu'elle contient, sans entrer dans les fonctions ni les classes."""
    yield node
    if not isinstance(node, _SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from within(child)


def is_light(node: ast.stmt) -> bool:
    """Vrai si l'instruction ne fait que définir : fonction, classe, import, constante."""
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return not any(isinstance(part, _WORK) for part in within(node))
    return isinstance(node, _DEFINITIONS)


def bound(node: ast.AST) -> list[str]:
    """Les noms qu'une instruction donne, dans l'ordre, chacun une fois."""
    names: dict[str, None] = {}
    for part in within(node):
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names[part.name] = None
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names[part.id] = None
        elif isinstance(part, ast.alias):
            names[part.asname or part.name.split(".")[0]] = None
    return list(names)


def rest_of(node: ast.stmt, line: int) -> list[ast.stmt]:
    """Ce qui suit, dans un `if` ou un `with`, l'instruction de cette ligne : c'est encore à exécuter."""
    if not isinstance(node, (ast.If, ast.With, ast.AsyncWith)):
        return []
    for block in (node.body, getattr(node, "orelse", [])):
        for i, inner in enumerate(block):
            if inner.lineno <= line <= (inner.end_lineno or 0):
                return rest_of(inner, line) + block[i + 1 :]
    return []


_CARD = re.compile(r"cuda|nvidia|\bmps\b|\bgpu\b|\.to\(device", re.IGNORECASE)


def elsewhere(error: BaseException, text: str, message: str) -> bool:
    """Vrai si l'erreur vient de ce que l'on n'est pas chez l'étudiant, et non de ce qu'il a écrit.

    Un nom inconnu en est une : les cellules de démonstration, qui ne s'exécutent pas ici, le définissaient peut-être.
    """
    if isinstance(error, (NotHere, ImportError, OSError, EOFError, NameError, MemoryError)):
        return True
    return not isinstance(error, SystemExit) and bool(_CARD.search(message) or _CARD.search(text))


def is_stub(value: Any) -> bool:
    """Vrai pour une fonction, ou une classe, qui ne fait jamais rien d'autre que lever NotImplementedError."""
    if isinstance(value, type):
        methods = [m for m in vars(value).values() if isinstance(m, types.FunctionType)]
        return bool(methods) and all(map(is_stub, methods))
    if not isinstance(value, types.FunctionType) or "NotImplementedError" not in value.__code__.co_names:
        return False
    return not any(i.opname.startswith(("RETURN_VALUE", "RETURN_CONST")) for i in dis.get_instructions(value))


_FUTURES = 0
for _name in __future__.all_feature_names:
    _FUTURES |= getattr(__future__, _name).compiler_flag


# ---------------------------------------------------------------------------------------------- carnet


class Notebook:
    """Un carnet que l'on exécute : ses noms, et ce que chaque exercice y a été au fil des cellules."""

    def __init__(self, exercises: list[str], announce: Callable[[str, int], None] = lambda cell, line: None) -> None:
        """announce : appelée (cellule, ligne) avant toute instruction qui fait autre chose que définir."""
        self.announce = announce
        self.space = fresh_namespace()
        self.spent = 0.0
        self.loop: Any = None
        # les annotations ne s'évaluent pas : un type importé dans une démonstration n'arrête pas une réponse
        self.flags = __future__.annotations.compiler_flag
        self.names = exercises
        self.seen: dict[str, Any] = {}
        self.found: dict[str, tuple[str, Any]] = {}
        """Exercice → la dernière cellule qui lui a donné de quoi être appelé, et quoi."""
        self.own: dict[str, Any] = {}
        """Exercice → le dernier objet que sa propre cellule lui a donné."""

    # ------------------------------------------------------------------------------------------ une cellule

    def run(self, cell: dict[str, Any]) -> list[dict[str, Any]]:
        """Exécute une cellule ; rend ce qui en a été passé, quoi que la cellule fasse d'ordinaire."""
        start = time.monotonic()
        extra = cell["kind"] == "extra"
        run = _CellRun(self, cell, cell["light"] or (extra and self.spent > EXTRA_SECONDS_IN_ALL))
        try:
            run.go()
        except (Exception, TimeUp) as error:
            run.passes(error, None)
        self.spent += time.monotonic() - start if extra else 0.0
        return run.passed

    def execute(self, what: ast.stmt | str, filename: str) -> None:
        flags = self.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        source = what if isinstance(what, str) else ast.Module([what], [])
        code = compile(source, filename, "exec", flags, dont_inherit=True)
        self.flags |= code.co_flags & _FUTURES  # `from __future__ import …` vaut pour la suite du carnet
        waiting = eval(code, self.space)
        if code.co_flags & inspect.CO_COROUTINE:
            import asyncio

            if self.loop is None or self.loop.is_running() or self.loop.is_closed():
                self.loop = asyncio.new_event_loop()
            self.loop.run_until_complete(waiting)

    def watch(self, cell: dict[str, Any]) -> None:
        """Note ce que les noms d'exercices viennent de recevoir."""
        for name in self.names:
            value = self.space.get(name)
            if value is not self.seen.get(name):
                self.seen[name] = value
                if callable(value) and not is_stub(value):
                    self.found[name] = (cell["id"], value)
                    if cell["exercise"] == name:
                        self.own[name] = value

    # ------------------------------------------------------------------------------------------ ce qui reste

    def answer(self, name: str) -> tuple[Any, dict[str, Any]]:
        """Ce qui est noté sous ce nom (None si rien ne s'appelle), et d'où il vient : `cell`, `left`, `differs`.

        C'est ce que laissent les cellules. S'il n'en reste rien à appeler (nom effacé : « gone », devenu une valeur :
        « value », énoncé recollé : « stub »), c'est la dernière fonction, ou classe, que le nom a désignée.
        differs : la propre cellule de l'exercice avait donné autre chose.
        """
        value = self.space.get(name)
        cell, last = self.found.get(name, ("", None))
        left = ""
        if last is None:
            return (value if callable(value) else None), {"cell": "", "left": "", "differs": False}
        if value is not last:
            left = "stub" if callable(value) else "value" if name in self.space else "gone"
        return last, {"cell": cell, "left": left, "differs": self.own.get(name, last) is not last}


class _CellRun:
    """L'exécution d'une cellule, instruction par instruction."""

    def __init__(self, notebook: Notebook, cell: dict[str, Any], light: bool) -> None:
        """light : n'exécuter que les définitions."""
        self.notebook, self.cell, self.light = notebook, cell, light
        self.filename = f"<cellule {cell['id']}>"
        self.skip = dict(cell["skip"])
        self.todo: deque[ast.stmt] = deque()
        self.current: ast.stmt | None = None
        self.filling = False
        self.steps = 0
        self.passed: list[dict[str, Any]] = []

    def go(self) -> None:
        source: str = self.cell["source"]
        linecache.cache[self.filename] = (len(source), None, source.splitlines(keepends=True), self.filename)
        if _DEFINITIONS_ONLY.fullmatch(source) and not (self.skip or self.light) and self.at_once(source):
            return
        if source.lstrip().startswith("%%"):
            source = body_of(source)
        try:
            tree = ast.parse(source, self.filename)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            tree = None
            transform()  # se charge hors de la limite de temps
        ready = False
        left = float(self.cell["seconds"])
        for _ in range(MAX_TIMEOUTS):
            fired: Callable[[], bool] = lambda: False  # noqa: E731
            try:
                with interrupt_after(left, patience=1.6) as fired:
                    if tree is None:
                        tree = from_ipython(source, self.filename)
                    if not ready:
                        ready = True
                        self.todo.extend(tree.body)
                    while self.todo and not fired():
                        self.step(self.todo.popleft())
            except BaseException as error:
                if not (isinstance(error, TimeUp) or fired()):
                    raise
            if not fired():
                return
            self.passes(TimeUp(), self.current)
            self.notebook.watch(self.cell)
            left = AFTER_SECONDS

    def at_once(self, source: str) -> bool:
        """Exécute d'un coup une cellule qui ne fait que définir ; faux si elle est à reprendre, sans dommage."""
        try:
            with interrupt_after(float(self.cell["seconds"]), patience=1.6):
                self.notebook.execute(source, self.filename)
        except BaseException:
            return False
        self.notebook.watch(self.cell)
        return True

    def step(self, node: ast.stmt) -> None:
        self.current = node
        light = is_light(node)
        if node.lineno in self.skip:
            self.record(self.skip[node.lineno], "", "", node.lineno, node)
            return
        if self.light and not light:
            if not self.passed:
                self.record("timeout", "", "", 0, None)
            return
        if self.filling and not (light and not any(name in self.notebook.space for name in bound(node))):
            return
        if not light and self.steps < MAX_STEPS:
            self.steps += 1
            self.notebook.announce(self.cell["id"], node.lineno)
        try:
            self.notebook.execute(node, self.filename)
        except TimeUp:
            raise
        except BaseException as error:
            self.passes(error, node)
        self.notebook.watch(self.cell)

    def passes(self, error: BaseException, node: ast.stmt | None) -> None:
        """Passe une instruction, ou toute la cellule, à cause de cette erreur ; prévoit ce qui la suit."""
        message = _text(error)
        line = (error.lineno if isinstance(error, SyntaxError) else _line(error, self.filename)) or 0
        if isinstance(error, TimeUp):
            self.record("timeout", "", "", node.lineno if node else 0, node)
            return
        if node is not None:
            line = line or node.lineno
            self.todo.extendleft(reversed(rest_of(node, line)))
            lines = self.cell["source"].split("\n")
            self.filling = self.filling or not elsewhere(error, "".join(lines[line - 1 : line]), message)
        kind = "" if isinstance(error, NotHere) else type(error).__name__[:100]
        self.record("raised", kind, message, line, node)

    def record(self, status: str, error: str, message: str, line: int, node: ast.stmt | None) -> None:
        if len(self.passed) < MAX_PASSED:
            lost = [name for name in bound(node) if name not in self.notebook.space] if node else []
            about = {"status": status, "error": error, "message": message, "line": line, "lost": lost[:10]}
            self.passed.append(about)


def _text(error: BaseException) -> str:
    try:
        return str(error.msg if isinstance(error, SyntaxError) else error)[:500]
    except BaseException:
        return ""


def _line(error: BaseException, filename: str) -> int:
    """La ligne de la cellule qui s'exécutait, non celle d'une fonction qu'elle appelle."""
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == filename:
            return step.tb_lineno
        step = step.tb_next
    return 0


def fresh_namespace() -> dict[str, Any]:
    """Un module `__main__` neuf, avec les noms que tout carnet importe ; ceux qui affichent n'y font rien."""
    import atelier
    from atelier import hardware

    module = types.ModuleType("__main__")
    _kept.append(sys.modules["__main__"])
    sys.modules["__main__"] = module
    space = vars(module)
    for name in ("display", *QUIET):
        space[name] = lambda *_, **__: None
    space.update(atelier=atelier, device=hardware.device, scale=hardware.scale)
    shell = Shell(space)
    space["get_ipython"] = lambda: shell
    return space
