"""Les expériences d'un chapitre : du code que le lecteur voit, des résultats qui sont des données.

Une expérience est une fonction du carnet. Quand les exercices dont elle se sert passent, elle tourne ici ; sinon le
résultat que l'auteur a enregistré (`assets/results/CHAPITRE/NOM.json`) en tient lieu, et c'est dit. Un exercice pas
encore fait n'arrête donc personne. `python cours.py mesures CHAPITRE [NOM…]` enregistre.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import re
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from atelier import paths
from atelier.text import long_date, typeset


@dataclass(frozen=True)
class Result:
    """Un résultat enregistré, et comment il a été obtenu.

    arguments : ceux de l'appel (graines comprises) ; scale : l'échelle ; machine, date (AAAA-MM-JJ) ; seconds : durée ;
    code : empreinte du texte de l'expérience.
    """

    value: Any
    arguments: dict[str, Any]
    scale: str
    machine: str
    date: str
    seconds: float
    code: str

    def better_than(self, other: Result) -> bool:
        """Vrai s'il ne faut pas le remplacer par `other` sans qu'on le demande : plus grande échelle, autre machine."""
        from atelier.hardware import SCALES  # de la plus petite à la plus grande

        elsewhere = self.machine.split() != other.machine.split()  # une espace insécable n'en fait pas une autre
        return SCALES.index(self.scale) > SCALES.index(other.scale) or elsewhere


class Experiment:
    """Une fonction du carnet devenue expérience. S'appelle comme elle."""

    def __init__(
        self, function: Callable[..., Any], needs: Sequence[Any], full: Mapping[str, Any] | None = None
    ) -> None:
        functools.update_wrapper(self, function)
        self.function, self.needs, self.full = function, needs, dict(full or {})
        self.name = function.__name__

    def __call__(self, **changes: Any) -> Any:
        """Le résultat, mesuré ici si tout ce qu'il faut est écrit, sinon celui de l'auteur.

        changes : des arguments autres que ceux de la définition ; le résultat de l'auteur n'en tient pas compte, et le
        dit. Lève `LookupError` s'il n'y a ni de quoi la faire tourner, ni résultat enregistré.
        """
        from atelier.display import note
        from atelier.text import number

        if missing := self._missing():
            return self._recorded(missing, changes)
        start = time.perf_counter()
        value = self.function(**changes)
        seconds = time.perf_counter() - start
        note(f"Mesuré ici, en {number(seconds, 2, unit='s')}." if seconds >= 1 else "Mesuré ici.")
        return value

    def authors(self) -> Any:
        """Le résultat enregistré par l'auteur, à mettre à côté du vôtre ; None s'il n'y en a pas, ou s'il est abîmé."""
        path = result_path(self.name)
        try:
            return None if path is None else load(path).value
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _missing(self) -> list[str]:
        """Les exercices qui ne passent pas encore, tels qu'ils sont dans le carnet au moment de l'appel."""
        from atelier import passed
        from atelier.naming import exercise_of

        names = [getattr(f, "__name__", "") for f in self.needs]
        current = [self.function.__globals__.get(name, f) for name, f in zip(names, self.needs, strict=True)]
        return [exercise_of(f) or name or str(f) for name, f in zip(names, current, strict=True) if not passed(f)]

    def _recorded(self, missing: Sequence[str], changes: Mapping[str, Any]) -> Any:
        from atelier.display import authors_result

        path = result_path(self.name)
        waiting = f"{self.name} attend {' et '.join(missing)}, et"
        if path is None:
            raise LookupError(typeset(f"{waiting} l'auteur n'en a pas enregistré de résultat."))
        try:
            found = load(path)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LookupError(typeset(f"{waiting} le résultat de l'auteur est abîmé ({path} : {error}).")) from error
        about = f"{found.machine}, le {long_date(found.date)}"
        authors_result(missing, about + f" ; sans votre {' ni votre '.join(changes)}" * bool(changes))
        return found.value

    def record(self, chapter: str, code: str = "", redo: bool = False) -> tuple[Path, Result | None]:
        """Fait tourner l'expérience avec ses arguments complets et enregistre son résultat.

        code : l'empreinte de son texte.
        Rend le fichier, et le résultat gardé à sa place s'il est meilleur et que `redo` est faux (None sinon).
        """
        from atelier.hardware import machine, scale

        path = paths.asset("results", chapter, f"{self.name}.json")
        bound = inspect.signature(self.function).bind_partial(**self.full)
        bound.apply_defaults()
        kept = load(path) if path.is_file() else None
        new = Result(None, dict(bound.arguments), scale().name, machine(), date.today().isoformat(), 0.0, code)
        if kept is not None and not redo and kept.better_than(new):
            return path, kept
        start = time.perf_counter()
        value = self.function(*bound.args, **bound.kwargs)
        save(path, replace(new, value=value, seconds=time.perf_counter() - start))
        return path, None


def fingerprint(source: str, name: str) -> str:
    """Empreinte de la fonction `name` d'un texte : ni commentaires, ni mise en page, ni titre n'y comptent.

    Vide si le texte ne la définit pas.
    """
    try:
        body = ast.parse(textwrap.dedent(source)).body
    except SyntaxError:
        return ""
    definition = next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if definition is None:
        return ""
    if ast.get_docstring(definition) is not None and len(definition.body) > 1:
        del definition.body[0]
    return hashlib.sha256(ast.unparse(definition).encode()).hexdigest()[:12]


def experiment(
    needs: Sequence[Any] = (), full: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., Any]], Experiment]:
    """Décore l'expérience d'un chapitre.

    needs : les exercices sans lesquels elle ne tourne pas. full : les arguments de l'enregistrement (plus de graines,
    une grille plus fine), quand ce ne sont pas ceux de la définition.
    """
    return lambda function: Experiment(function, needs, full)


def result_path(name: str) -> Path | None:
    """Le résultat enregistré de ce nom, quel que soit son chapitre (les noms sont uniques) ; None s'il n'y en a pas."""
    return next(iter(sorted(paths.asset("results").glob(f"*/{name}.json"))), None)


# --- Sur le disque ----------------------------------------------------------------------------------------------------

PAIRS = "$paires"
_BREAK = re.compile(r"\n\s*")
_FLAT = re.compile(r"\[\n\s*([^\[\]{}]*)\n\s*\]")
"""Une liste de nombres ou de mots, que l'on écrit sur une ligne ; un retour à la ligne n'est jamais dans une chaîne."""


def save(path: Path, result: Result) -> None:
    """Écrit le résultat : JSON, et à côté safetensors s'il contient des tenseurs."""
    from safetensors.torch import save as pack

    from atelier.judging.codec import encode

    tree, tensors = encode(_with_text_keys(result.value))
    about = {k: v for k, v in vars(result).items() if k not in ("value", "arguments")}
    arguments, _ = encode(_with_text_keys(result.arguments))
    text = json.dumps(about | {"arguments": arguments, "value": tree}, ensure_ascii=False, indent=1, allow_nan=False)
    text = _FLAT.sub(lambda found: f"[{_BREAK.sub(' ', found[1])}]", text)
    beside = path.with_suffix(".safetensors")
    if tensors:
        paths.write_atomically(beside, pack(tensors))
    paths.write_atomically(path, (text + "\n").encode())
    if not tensors:
        beside.unlink(missing_ok=True)


def load(path: Path) -> Result:
    """Lit un résultat enregistré. Lève `OSError` ou `ValueError` s'il manque ou ne se lit pas."""
    from safetensors.torch import load as unpack

    from atelier.judging.codec import decode

    content = json.loads(path.read_text(encoding="utf-8"))
    beside = path.with_suffix(".safetensors")
    tensors = unpack(beside.read_bytes()) if beside.is_file() else {}
    value = _with_keys(decode(content.pop("value"), tensors, ours=True))
    return Result(value=value, arguments=_with_keys(decode(content.pop("arguments"), {}, ours=True)), **content)


def _with_text_keys(value: Any) -> Any:
    """Les dictionnaires dont une clé n'est pas un texte, en listes de paires ; les suites, en listes."""
    if isinstance(value, Mapping):
        items = [[k, _with_text_keys(v)] for k, v in value.items()]
        return dict(items) if all(type(k) is str for k, _ in items) else {PAIRS: items}
    if isinstance(value, (list, range)):
        return [_with_text_keys(v) for v in value]
    return tuple(map(_with_text_keys, value)) if isinstance(value, tuple) else value


def _with_keys(value: Any) -> Any:
    if isinstance(value, dict):
        if list(value) == [PAIRS]:
            return {k: _with_keys(v) for k, v in value[PAIRS]}
        return {k: _with_keys(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_keys(v) for v in value]
    return tuple(map(_with_keys, value)) if isinstance(value, tuple) else value
