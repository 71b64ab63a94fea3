"""Les affirmations d'un chapitre : un prédicat sur des résultats enregistrés, et une phrase qui porte son nom.

`claims.py` définit une fonction par affirmation ; elle reçoit `results`, qui donne la valeur enregistrée d'une
expérience, et rend vrai ou faux. Dans la prose, la phrase finit par `<!-- claim: nom -->`, que la construction retire.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.experiments import load
from grader.authoring.declarations import ChapterError, Problem, line_of

if TYPE_CHECKING:
    from grader.authoring.chapters import Chapter

MARKER = re.compile(r"[ \t]*<!-- claim: *(\w+) *-->")
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

    def results(name: str) -> Any:
        return load(root / "assets" / "results" / chapter.name / f"{name}.json").value

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
    if claims:
        yield from _bare_conclusions(chapter)


def _bare_conclusions(chapter: Chapter) -> Iterator[Problem]:
    experiments = {cell.id for cell in chapter.cells if cell.kind == "experiment"}
    after = False
    for cell in chapter.cells:
        if cell.kind == "markdown" and after:
            first = cell.source.split("\n\n")[0]
            if (word := _COMPARES.search(first)) and not cell.claims and not first.startswith("#"):
                message = f"ce paragraphe conclut d'une expérience (« {word[0]} ») : il y faut <!-- claim: nom -->."
                yield Problem(chapter.file, cell.line, "markdown", message)
        after = cell.kind == "code" and any(re.search(rf"\b{name}\(", cell.source) for name in experiments)


def taken_out(text: str) -> tuple[str, tuple[str, ...]]:
    """Le texte sans ses marques, et les affirmations qu'il porte."""
    return MARKER.sub("", text), tuple(MARKER.findall(text))
