"""Les affirmations d'un chapitre : un résultat enregistré, un prédicat, une phrase qui porte son nom.

`claims.py` définit une fonction par affirmation ; elle reçoit `results`, qui donne la valeur enregistrée d'une
expérience, et rend vrai ou faux. Dans la prose, la phrase finit par `<!-- claim: nom -->`, que la construction retire.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier import paths
from atelier.experiments import fingerprint, load
from atelier.text import prose
from grader.authoring.declarations import ChapterError, Problem, line_of

if TYPE_CHECKING:
    from grader.authoring.chapters import Cell, Chapter

MARKER = re.compile(r"\s*<!-- claim: *(\w+) *-->")
_COMPARES = re.compile(
    r"\b(?:plus|moins|mieux|pire|meilleure?s?|autant|davantage|dépasse\w*|gagne\w*|perd\w*|domine\w*|suffi\w+|fois"
    r"|deux fois|aucun\w*|toujours|jamais|donc)\b",
    re.IGNORECASE,
)
"""Les mots d'une phrase qui compare ou conclut."""


@dataclass(frozen=True)
class Claim:
    """Une affirmation : son prédicat, sa ligne dans claims.py."""

    holds: Callable[[Callable[[str], Any]], bool]
    line: int


def load_claims(chapter: str, path: Path) -> dict[str, Claim]:
    """Nom → affirmation, dans l'ordre du fichier. Lève `ChapterError` s'il ne s'exécute pas."""
    if not path.is_file():
        return {}
    spec = importlib.util.spec_from_file_location(f"affirmations_{chapter}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        message = f"l'exécution échoue : {type(error).__name__} : {error}"
        raise ChapterError(
            [Problem(f"solutions/{chapter}/claims.py", line_of(error, str(path)), "", message)]
        ) from error
    own = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    return {name: Claim(function, function.__code__.co_firstlineno) for name, function in own.items()}


def check_claims(chapter: Chapter, root: Path) -> Iterator[Problem]:
    """Chaque affirmation tient et a sa phrase ; chaque phrase qui conclut d'une expérience a son affirmation."""
    file = f"solutions/{chapter.name}/claims.py"
    folder = root / "assets" / "results" / chapter.name
    yield from _recordings(chapter, folder)

    @cache
    def results(name: str) -> Any:
        return load(folder / f"{name}.json").value

    try:
        claims = load_claims(chapter.name, chapter.folder / "claims.py")
    except ChapterError as error:
        yield from error.problems
        return
    said = {name: cell for cell in chapter.cells for name in cell.claims}
    for name, cell in said.items():
        if name not in claims:
            yield Problem(chapter.file, cell.line, "markdown", f"l'affirmation `{name}` n'est pas dans {file}.")
    for name, claim in claims.items():
        if name not in said:
            yield Problem(file, claim.line, name, f"aucune phrase ne la dit (attendu : <!-- claim: {name} -->).")
        try:
            holds = bool(claim.holds(results))
        except FileNotFoundError as error:
            needed = Path(str(error.filename)).stem
            message = f"le résultat `{needed}` n'est pas enregistré : python cours.py mesures {chapter.name} {needed}"
            yield Problem(file, claim.line, name, message)
        except Exception as error:
            yield Problem(file, claim.line, name, f"le prédicat échoue : {type(error).__name__} : {error}")
        else:
            if not holds:
                message = "cette affirmation est fausse sur les résultats enregistrés : corrigez la phrase."
                place = said.get(name)
                yield Problem(chapter.file if place else file, place.line if place else claim.line, name, message)
    yield from _bare_conclusions(chapter)


def result_state(chapter: Chapter, cell: Cell) -> str:
    """Ce qu'il en est du résultat enregistré d'une expérience : « à jour », ou ce qui ne va pas."""
    try:
        found = load(paths.asset("results", chapter.name, f"{cell.id}.json"))
    except FileNotFoundError:
        return "aucun résultat n'est enregistré"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"le résultat enregistré ne se lit pas ({error})"
    return "à jour" if found.code == fingerprint(cell.source, cell.id) else STALE


STALE = "le résultat enregistré vient d'un autre texte de cette expérience"


def _recordings(chapter: Chapter, folder: Path) -> Iterator[Problem]:
    """Chaque expérience a son résultat, qui vient de son texte d'aujourd'hui ; chaque résultat, son expérience."""
    experiments = {cell.id: cell for cell in chapter.cells if cell.kind == "experiment"}
    for name, cell in experiments.items():
        if (state := result_state(chapter, cell)) != "à jour":
            message = f"{state} : python cours.py mesures {chapter.name} {name}"
            yield Problem(chapter.file, cell.line, name, message, warning=state == STALE)
    for path in sorted(folder.glob("*.json")):
        if path.stem not in experiments:
            shown = f"assets/results/{chapter.name}/{path.name}"
            yield Problem(shown, 0, "", "aucune expérience du chapitre ne porte ce nom : effacez ce résultat.")


def _bare_conclusions(chapter: Chapter) -> Iterator[Problem]:
    """Les paragraphes de la cellule qui suit une expérience, avant tout titre, et concluent sans affirmation."""
    showing = {cell.id for cell in chapter.cells if cell.kind == "experiment"}
    for cell, following in itertools.pairwise(chapter.cells):
        names = {node.id for node in ast.walk(_parsed(cell)) if isinstance(node, ast.Name)}
        if cell.kind != "code" or not names & showing:
            continue
        showing |= _assigned(cell)
        paragraphs = following.source.split("\n\n") if following.kind == "markdown" else []
        for rank, paragraph in enumerate(itertools.takewhile(lambda text: not text.startswith("#"), paragraphs)):
            word = _COMPARES.search(prose(paragraph))
            if word and rank in following.bare and not paragraph.endswith("?"):
                message = f"ce paragraphe conclut d'une expérience (« {word[0]} ») : il y faut <!-- claim: nom -->."
                yield Problem(chapter.file, following.line, "markdown", message)


def _parsed(cell: Cell) -> ast.Module:
    try:
        return ast.parse(cell.source if cell.kind == "code" else "")
    except SyntaxError:  # déjà dit par les règles
        return ast.Module([], [])


def _assigned(cell: Cell) -> set[str]:
    """Les noms qu'une cellule affecte au premier niveau : ils portent le résultat qu'elle montre."""
    targets = [target for node in _parsed(cell).body if isinstance(node, ast.Assign) for target in node.targets]
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def taken_out(text: str) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    """Le texte sans ses marques, les affirmations qu'il porte, et les rangs de ses paragraphes qui n'en portent pas."""
    bare = tuple(rank for rank, paragraph in enumerate(text.split("\n\n")) if not MARKER.search(paragraph))
    return MARKER.sub("", text), tuple(MARKER.findall(text)), bare
