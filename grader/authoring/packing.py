"""Le paquet d'un chapitre : ce que `check`, `hint`, `quiz` et `progress` lisent chez l'étudiant.

`assets/packs/<chapitre>.json` porte les déclarations publiques et l'arbre des cas visibles (`atelier.judging.codec`),
`assets/packs/<chapitre>.safetensors` leurs tenseurs. Pour chaque cas visible : les entrées, ce que répond la référence,
et ce que répondrait chaque idée fausse. Ni la référence ni les idées fausses elles-mêmes n'y sont.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from atelier.judging.codec import decode, encode
from atelier.judging.compare import compare
from atelier.judging.exercise import Exercise, Inputs
from atelier.judging.probes import PROBES, run_case, without_source
from grader.authoring.chapters import Chapter, ChapterError, Problem

PUBLIC_SEED = 20_261_124
"""Graine des cas visibles : publique, donc jamais celle d'une correction."""
PROOF_SEED = 7
PROOF_CASES = 8
"""Cas tirés en plus pour savoir si deux idées fausses confondues par les cas visibles sont en fait la même."""
MAX_BYTES = 1_000_000

INPUT_RTOL, RTOL, HALF_RTOL, ATOL = 1e-4, 5e-4, 2e-2, 1e-6
"""Écart admis par `build --check` entre un paquet archivé et le même paquet recalculé sur une autre machine.

Les produits de matrices, les sommes et le tirage gaussien n'arrondissent pas pareil selon le processeur, ses
instructions vectorielles et le nombre de fils. Une entrée, tirée, se retrouve élément par élément :
|a − b| ≤ ATOL + INPUT_RTOL·|b|. Une réponse, calculée, ne se retrouve qu'à la taille de son tenseur près (un gradient
est une somme de termes qui se compensent) : |a − b| ≤ ATOL + RTOL·max|b|. HALF_RTOL remplace les deux en float16 et
bfloat16. Entiers, booléens, formes, types et textes se comparent exactement. Ce qui ne se retrouve pas même ainsi
(l'ordre d'une somme que l'erreur rend visible, les vecteurs libres d'une SVD) se déclare `portable=False`."""

Case = dict[str, Any]


def build_cases(chapter: Chapter) -> tuple[dict[str, list[Case]], list[Problem]]:
    """Les cas visibles de chaque exercice, et les défauts qu'ils révèlent."""
    cases: dict[str, list[Case]] = {}
    problems: list[Problem] = []
    for id in (id for id in chapter.sources if id in chapter.exercises):
        try:
            builder = _Builder(chapter, id)
            found = builder.visible()
            builder.check_misconceptions(found)
        except ChapterError as error:
            problems += error.problems
        else:
            problems += builder.problems
            kept = _messages(chapter.exercises[id])
            cases[id] = [_public(case, kept) for case in found]
    return cases, list(dict.fromkeys(problems))


def _messages(exercise: Exercise) -> dict[str, str]:
    """Nom → phrase des idées fausses que le paquet peut faire reconnaître sur toute machine."""
    return {m.name: m.message for m in exercise.misconceptions if m.portable}


def _public(case: Case, kept: Container[str]) -> Case:
    """Le cas sans rien du texte de la solution ni des idées fausses."""
    wrong = {name: without_source(outcome) for name, outcome in case["wrong"].items() if name in kept}
    return case | {"expected": without_source(case["expected"]), "wrong": wrong}


class _Builder:
    """Calcule les cas d'un exercice en notant les défauts au passage."""

    def __init__(self, chapter: Chapter, id: str) -> None:
        self.chapter = chapter
        self.id = id
        self.exercise: Exercise = chapter.exercises[id]
        self.problems: list[Problem] = []
        self.usable = [m.name for m in self.exercise.misconceptions if self._resolves(m.name)]

    def visible(self) -> list[Case]:
        """Les exemples écrits à la main (ils sont du premier groupe), puis `visible` tirages par groupe."""
        if self.exercise.probe not in PROBES:
            self._report(f"la sonde « {self.exercise.probe} » n'existe pas. Sondes connues : {', '.join(PROBES)}.")
            return []
        first = next(iter(self.exercise.groups))
        drawn = self._guard("le tirage des cas échoue", self._draw, PUBLIC_SEED, self.exercise.visible) or []
        found = [self._case(g, inputs) for g, inputs in [*((first, e) for e in self.exercise.examples), *drawn]]
        if not found:
            self._report("aucun cas visible : donnez `examples`, ou `visible` supérieur à 0.")
        return [case for case in found if case is not None]

    def check_misconceptions(self, cases: list[Case]) -> None:
        """Chaque idée fausse se distingue de la référence ; deux idées fausses se distinguent l'une de l'autre."""
        if not cases:
            return
        told = []
        for name in self.usable:
            if any(not self._same(c, c["expected"], c["wrong"][name]) for c in cases):
                told.append(name)
            else:
                message = f"aucun des {len(cases)} cas visibles ne distingue l'idée fausse `{name}` de la référence."
                self._report(message, name)
        for i, left in enumerate(told):
            for right in told[i + 1 :]:
                if all(self._twins(c, left, right) for c in cases):
                    self._report_twins(left, right)

    def _report_twins(self, left: str, right: str) -> None:
        drawn = self._guard("le tirage des cas échoue", self._draw, PROOF_SEED, PROOF_CASES) or []
        hidden = [case for group, inputs in drawn if (case := self._case(group, inputs, (left, right))) is not None]
        pair = f"les idées fausses `{left}` et `{right}`"
        if all(self._twins(c, left, right) for c in hidden):
            self._report(f"{pair} répondent la même chose partout : n'en gardez qu'une.", right)
        else:
            self._report(f"aucun cas visible ne distingue {pair}.", right, warning=True)

    def _draw(self, seed: int, count: int) -> list[tuple[str, Inputs]]:
        return self.exercise.draw_cases(self.id, seed, count)

    def _case(self, group: str, inputs: Inputs, names: tuple[str, ...] | None = None) -> Case | None:
        """Un cas complet, ou None (et un défaut noté) si la référence n'y répond pas comme elle doit."""
        reference = self.chapter.reference(self.id)
        expected = self._outcome(reference, inputs)
        status = expected["status"]
        if status not in ("value", "raised") or (status == "raised" and "ValueError" not in expected["mro"]):
            reason = f"{expected.get('error') or status}, « {expected.get('message', '')} »"
            self._report(f"la référence échoue sur un cas du groupe « {group} » ({_brief(inputs)}) : {reason}.")
            return None
        case: Case = {"group": group, "inputs": inputs, "expected": expected, "wrong": {}}
        itself = compare(expected, expected, inputs, self.exercise.tolerance)
        if not itself.ok:
            self._report(f"la référence rate un cas du groupe « {group} » ({_brief(inputs)}) : {itself.message}.")
            return None
        for name in self.usable if names is None else names:
            case["wrong"][name] = self._outcome(self.chapter.wrong(self.id, name), inputs)
        if self._guard(f"un cas du groupe « {group} » ne peut pas être archivé", encode, case) is None:
            return None
        return case

    def _outcome(self, fn: Any, inputs: Inputs) -> dict[str, Any]:
        return run_case(self.exercise.probe, fn, inputs)

    def _same(self, case: Case, expected: dict[str, Any], got: dict[str, Any]) -> bool:
        return compare(expected, got, case["inputs"], self.exercise.tolerance).ok

    def _twins(self, case: Case, left: str, right: str) -> bool:
        """Mêmes valeurs : le paquet ne garde pas ce qu'une réponse a fait subir à ses entrées."""
        return self._same(case, without_source(case["wrong"][left]), without_source(case["wrong"][right]))

    def _resolves(self, name: str) -> bool:
        try:
            self.chapter.wrong(self.id, name)
        except ChapterError as error:
            self.problems += error.problems
            return False
        return True

    def _guard(self, what: str, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            self._report(f"{what} : {type(error).__name__} : {error}")
            return None

    def _report(self, message: str, misconception: str = "", warning: bool = False) -> None:
        self.problems.append(self.chapter.problem(self.id, message, misconception, warning))


def render_pack(chapter: Chapter, cases: dict[str, list[Case]]) -> tuple[str, bytes]:
    """Le texte JSON et les octets safetensors du paquet."""
    tree, tensors = encode(cases)
    tree, tensors = _share_equal_tensors(tree, tensors)
    exercises = {}
    for id in cases:
        exercise = chapter.exercises[id]
        exercises[id] = {
            "points": exercise.points,
            "minutes": exercise.minutes,
            "stars": exercise.stars,
            "hints": list(exercise.hints),
            "groups": dict(exercise.groups),
            "probe": exercise.probe,
            "tolerance": asdict(exercise.tolerance),
            "signature": chapter.signature(id),
            "hexadecimal": list(exercise.hexadecimal),
            "messages": _messages(exercise),
            **({"builds_on": list(exercise.stand_ins)} if exercise.stand_ins else {}),
        }
    shown = [cell.id for cell in chapter.cells if cell.kind == "quiz" and cell.id in chapter.quizzes]
    pack = {
        "chapter": chapter.name,
        "title": chapter.title,
        "exercises": exercises,
        "quizzes": {name: asdict(chapter.quizzes[name]) for name in shown},
    }
    head = json.dumps(pack, ensure_ascii=False, indent=1).removesuffix("\n}")
    lines = [f"   {_line(id)}: {_line(node)}" for id, node in tree["v"].items()]
    body = ',\n "cases": {\n  "$": "dict",\n  "v": {\n' + ",\n".join(lines) + "\n  }\n }\n}\n"
    return head + body, save(tensors)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def pack_difference(json_path: Path, tensors_path: Path, text: str, tensors: bytes) -> str:
    """Où le paquet archivé dit autre chose que `text` et `tensors`, aux arrondis près (voir `RTOL`) ; "" sinon."""
    try:
        old, new = json.loads(json_path.read_text(encoding="utf-8")), json.loads(text)
        old_cases = decode(old.pop("cases"), load(tensors_path.read_bytes()), ours=True)
        new_cases = decode(new.pop("cases"), load(tensors), ours=True)
    except (OSError, ValueError, LookupError, AttributeError, SafetensorError):
        return "fichier absent ou illisible"
    if _ordered(old) != _ordered(new):
        return "déclarations"
    return next(_gaps(old_cases, new_cases), "")


def _ordered(value: Any) -> str:
    """Texte canonique où l'ordre des clés compte."""
    return json.dumps(value, ensure_ascii=False)


def _gaps(a: Any, b: Any, place: str = "", drawn: bool = False) -> Iterator[str]:
    """Les endroits où deux arbres de cas diffèrent plus que ne l'explique l'arrondi. drawn : ce sont des entrées."""
    if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
        for key in a:
            yield from _gaps(a[key], b[key], f"{place} → {key}" if place else str(key), drawn or key == "inputs")
    elif isinstance(a, (list, tuple)) and type(a) is type(b) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _gaps(x, y, f"{place}[{i}]", drawn)
    elif not _close(a, b, drawn):
        yield place


def _close(a: Any, b: Any, drawn: bool) -> bool:
    """Deux feuilles égales, aux arrondis près."""
    rtol = INPUT_RTOL if drawn else RTOL
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or a.shape != b.shape or a.dtype != b.dtype or a.stride() != b.stride():
            return False
        if not a.is_floating_point():
            return torch.equal(a, b)
        x, y = a.double(), b.double()
        exact = (x == y) | (x.isnan() & y.isnan())
        finite = x.isfinite() & y.isfinite()
        size = y.abs() if drawn else torch.where(finite, y.abs(), 0.0).max() if y.numel() else y
        rtol = HALF_RTOL if a.dtype.itemsize <= 2 else rtol
        return bool((exact | (finite & ((x - y).abs() <= ATOL + rtol * size))).all())
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=rtol, abs_tol=ATOL)
    return bool(a == b)


def _share_equal_tensors(tree: Any, tensors: dict[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor]]:
    """Un seul exemplaire de chaque tenseur : une entrée rendue intacte ne pèse pas deux fois."""
    kept: dict[tuple[Any, ...], str] = {}
    names = {key: kept.setdefault((x.dtype, x.shape, _raw(x)), key) for key, x in tensors.items()}

    def rename(node: Any) -> Any:
        if isinstance(node, list):
            return [rename(x) for x in node]
        if isinstance(node, dict):
            if node.get("$") == "tensor":
                return {**node, "v": names[node["v"]]}
            return {k: rename(v) for k, v in node.items()}
        return node

    return rename(tree), {key: tensors[key] for key in kept.values()}


def _raw(x: torch.Tensor) -> bytes:
    return save({"x": x})


def _brief(inputs: Inputs) -> str:
    """Les entrées d'un cas en une ligne."""

    def show(value: Any) -> str:
        if isinstance(value, torch.Tensor) and value.numel() > 8:
            return f"tenseur {value.dtype} de forme {tuple(value.shape)}"
        return str(value)[:80]

    return ", ".join(f"{k}={show(v)}" for k, v in inputs.items())
