"""Les expériences d'un chapitre : du code que le lecteur voit, des résultats qui sont des données.

Une expérience est une fonction du carnet. Quand les exercices dont elle se sert passent, elle tourne ici ; sinon le
résultat que l'auteur a enregistré (`assets/results/CHAPITRE/NOM.json`) en tient lieu, et c'est dit. Un exercice pas
encore fait n'arrête donc personne. `python cours.py mesures CHAPITRE [NOM…]` enregistre.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
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

        return SCALES.index(self.scale) > SCALES.index(other.scale) or self.machine != other.machine


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

        changes : des arguments autres que ceux de la définition ; l'expérience ne tourne alors qu'ici. Lève
        `LookupError` s'il n'y a ni de quoi la faire tourner, ni résultat enregistré.
        """
        from atelier import passed
        from atelier.display import note
        from atelier.naming import exercise_of
        from atelier.text import number

        missing = [exercise_of(f) or str(getattr(f, "__name__", f)) for f in self.needs if not passed(f)]
        if missing:
            return self._recorded(missing)
        start = time.perf_counter()
        value = self.function(**changes)
        note(f"Mesuré ici, en {number(time.perf_counter() - start, 2, unit='s')}.")
        return value

    def _recorded(self, missing: Sequence[str]) -> Any:
        from atelier.display import note

        waiting = " et ".join(missing)
        path = result_path(self.name)
        if path is None:
            raise LookupError(typeset(f"{self.name} attend {waiting}, et l'auteur n'en a pas enregistré de résultat."))
        found = load(path)
        note(f"Résultat de l'auteur ({found.machine} ; {long_date(found.date)}), en attendant {waiting}.")
        return found.value

    def record(self, chapter: str, redo: bool = False) -> tuple[Path, Result | None]:
        """Fait tourner l'expérience avec ses arguments complets et enregistre son résultat.

        Rend le fichier, et le résultat gardé à sa place s'il est meilleur et que `redo` est faux (None sinon).
        """
        from atelier.hardware import machine, scale

        path = paths.asset("results", chapter, f"{self.name}.json")
        bound = inspect.signature(self.function).bind_partial(**self.full)
        bound.apply_defaults()
        kept = load(path) if path.is_file() else None
        new = Result(None, dict(bound.arguments), scale().name, machine(), date.today().isoformat(), 0.0, self.code)
        if kept is not None and not redo and kept.better_than(new):
            return path, kept
        start = time.perf_counter()
        value = self.function(*bound.args, **bound.kwargs)
        save(path, replace(new, value=value, seconds=time.perf_counter() - start))
        return path, None

    @property
    def code(self) -> str:
        """Empreinte du texte de la fonction : un résultat enregistré dit de quel texte il vient."""
        return hashlib.sha256(inspect.getsource(self.function).encode()).hexdigest()[:12]


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


def save(path: Path, result: Result) -> None:
    """Écrit le résultat : JSON, et à côté safetensors s'il contient des tenseurs."""
    from safetensors.torch import save as pack

    from atelier.judging.codec import encode

    tree, tensors = encode(_with_text_keys(result.value))
    about = {k: v for k, v in vars(result).items() if k not in ("value", "arguments")}
    arguments, _ = encode(_with_text_keys(result.arguments))
    text = json.dumps(about | {"arguments": arguments, "value": tree}, ensure_ascii=False, indent=1, allow_nan=False)
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
