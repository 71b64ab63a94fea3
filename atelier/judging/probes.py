"""Sondes : faire tourner du code d'étudiant et n'en rapporter que des données.

Une sonde reçoit une fonction (ou une classe) et les entrées d'un cas, et rend une valeur que l'on ne peut pas
deviner : tenseurs, nombres, noms. Elle ne contient aucune réponse ; `check`, la correction, la référence et
les réponses fausses connues passent toutes par `run_case`. Les clés des valeurs rendues sont en français :
elles sont montrées telles quelles à qui lit le résultat.

Sondes et entrées (les noms en capitales sont ceux du chapitre, dans l'ordre de la signature) :

| sonde | entrées | valeur |
|---|---|---|
| `call` | ARGUMENTS | ce que rend `fn(*ARGUMENTS)` |
| `call_float` | ARGUMENTS | le même résultat, un nombre ou un tenseur d'un seul élément, en flottant Python |
| `call_many` | ARGUMENTS, le premier étant une liste | la liste des `fn(élément, *autres)` |
| `call_iterator` | ARGUMENTS | `fn(iter(liste), *autres)` si le premier est une liste, tel quel si c'est un n-uplet |
| `loss_grads` | ARGUMENTS | valeur et gradient de sa somme pour chaque tenseur flottant (zéros s'il n'en reçoit pas) |
| `module` | `init`, `x`, `weights`, `out_grad`, `watch` | voir `module` |
| `packed_module` | ceux de `module`, et `other` | voir `packed_module` |
| `train_steps` | `init`, `weights`, `x`, `target`, `lr`, `steps` | voir `train_steps` |
| `gpt2_transform` | `config`, `seed`, `args`, `input_ids` | voir `gpt2_transform` |
| `gpt2_new_model` | `config`, `seed`, `args`, `input_ids` | voir `gpt2_new_model` |
| `gpt2_train` | `config`, `seed`, `input_ids`, `args` | voir `gpt2_train` |
| `gpt2_distill` | `student`, `teacher`, `seed`, `input_ids`, `args` | voir `gpt2_distill` |
| `gpt2_call` | `config`, `seed`, `args` | `fn(model, *args)`, le modèle ayant des paramètres gelés |
| `generate` | `config`, `seed`, `input_ids`, `n_new` | jetons produits, jetons lus en trop |
| `freeze` | `config`, `seed`, `args` | valeur rendue, noms des paramètres qui apprennent |
| `gpt2_observe` | `config`, `seed`, `input_ids`, `names`, `training`, `unknown` | voir `gpt2_observe` |
| `gpt2_importance` | `config`, `seed`, `batches`, `training` | voir `gpt2_importance` |
| `gpt2_rounded` | `config`, `seed`, `input_ids` | voir `gpt2_rounded` |

Là où une sonde bâtit un module ou un modèle, une entrée de plus, `device`, peut dire sur quel appareil. Une autre,
`stand_ins` (nom global de la fonction → doublure, voir `stand_ins.py`), vaut pour toutes.
"""

from __future__ import annotations

import copy
import io
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch

from atelier.judging.compare import unchanged
from atelier.judging.data import NotData, name_of, to_data
from atelier.judging.frames import raised_by_statement, source_line
from atelier.judging.probes_layers import gpt2_importance, gpt2_observe, gpt2_rounded
from atelier.judging.probes_models import (
    freeze,
    generate,
    gpt2_call,
    gpt2_distill,
    gpt2_new_model,
    gpt2_train,
    gpt2_transform,
    gradients,
    module,
    packed_module,
    train_steps,
)
from atelier.judging.stand_ins import replaced

Outcome = dict[str, Any]
"""Ce qu'une exécution a donné. « status » vaut value, raised, todo, untransportable ou timeout."""

PRINTED_MAX = 2000
MESSAGE_MAX = 500


class Interruption(BaseException):
    """Levée, de l'extérieur, par qui limite le temps d'un cas : jamais comptée comme une erreur de l'étudiant."""


# --- Ce qui entoure un cas ------------------------------------------------------------------------------------------


class _Tail(io.TextIOBase):
    """Sortie texte qui ne garde que les premiers caractères : un `print` sans fin ne remplit pas la mémoire."""

    def __init__(self) -> None:
        self.text = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if len(self.text) < PRINTED_MAX:
            self.text = (self.text + str(text))[:PRINTED_MAX]
        return len(text)


_SEED_0 = random.Random(0).getstate()
"""L'état de `random` après `random.seed(0)`, remis deux fois plus vite qu'il ne se calcule."""
_rooms = 0
"""Combien de `clean_room` sont ouverts, l'un dans l'autre."""


@contextmanager
def clean_room() -> Iterator[None]:
    """Réglages connus pendant le bloc (graines, type par défaut, gradients) ; ceux de l'appelant rendus ensuite.

    Dans un autre, il ne retient rien du hasard : qui enchaîne cent cas n'en garde l'état qu'une fois.
    """
    global _rooms
    numpy_random = getattr(sys.modules.get("numpy"), "random", None)
    outer = _rooms == 0
    kept = (torch.get_rng_state(), random.getstate(), numpy_random and numpy_random.get_state()) if outer else None
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    device = torch.empty(0).device  # get_default_device le dit aussi, quatre fois moins vite
    torch.default_generator.manual_seed(0)  # torch.manual_seed lit toute la pile d'appels, à chaque cas
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)
    random.setstate(_SEED_0)
    if numpy_random:
        numpy_random.seed(0)
    torch.set_grad_enabled(True)
    if dtype != torch.float32:  # un réglage laissé par une autre cellule ne change pas l'énoncé
        torch.set_default_dtype(torch.float32)
    _rooms += 1
    try:
        yield
    finally:
        _rooms -= 1
        if kept:
            torch.set_rng_state(kept[0])
            random.setstate(kept[1])
            if numpy_random and kept[2]:
                numpy_random.set_state(kept[2])
        torch.set_default_dtype(dtype)
        if torch.empty(0).device != device:
            torch.set_default_device(device)
        torch.set_grad_enabled(grad)


def _error_name(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _error_text(error: BaseException) -> str:
    try:
        return str(error)[:MESSAGE_MAX]
    except BaseException:  # un __str__ d'étudiant peut lever n'importe quoi
        return ""


# --- Un cas ----------------------------------------------------------------------------------------------------------


def copied(value: Any, seen: dict[int, Any]) -> Any:
    """`copy.deepcopy`, plus vite sur ce dont les entrées sont faites. seen : id → copie déjà faite."""
    if id(value) in seen:
        return seen[id(value)]
    if type(value) is dict:
        made: Any = {k: copied(v, seen) for k, v in value.items()}
    elif type(value) is list:
        made = [copied(v, seen) for v in value]
    elif type(value) is tuple:
        made = tuple(copied(v, seen) for v in value)
    elif type(value) is torch.Tensor and not value.requires_grad and value.is_contiguous():
        made = value.clone()
    elif value is None or type(value) in (bool, int, float, str):
        return value
    else:
        made = copy.deepcopy(value, seen)
    seen[id(value)] = made
    return made


def run_case(probe: str, fn: Callable[..., Any], inputs: dict[str, Any]) -> Outcome:
    """Applique la sonde à `fn` sur une copie des entrées. Rend toujours des données, sauf si l'on interrompt.

    « modified » : les noms des entrées que l'appel a changées.

    Seules traversent `Interruption` (la limite de temps) et un `KeyboardInterrupt` venu du clavier.
    """
    run = PROBES[probe]
    given = copied(inputs, {})
    stand_ins = given.pop("stand_ins", {})
    out = _Tail()
    try:
        with clean_room(), redirect_stdout(out), replaced(fn, stand_ins):
            value = run(fn, given)
        outcome = {"status": "value", "value": to_data(value)}
    except Interruption:
        raise
    except NotData as error:
        place = {} if error.place is None else {"place": error.place}
        return {"status": "untransportable", "message": f"votre fonction rend {error}", **place, "printed": out.text}
    except BaseException as error:
        trace = error.__traceback__
        by_statement = raised_by_statement(trace)
        if isinstance(error, KeyboardInterrupt) and not by_statement:
            raise
        if isinstance(error, NotImplementedError) and by_statement:
            return {"status": "todo", "message": _error_text(error), "printed": out.text}
        return {
            "status": "raised",
            "error": _error_name(type(error)),
            "mro": [_error_name(c) for c in type(error).__mro__ if c is not object],
            "message": _error_text(error),
            "where": source_line(trace),
            "own": by_statement,
            "printed": out.text,
        }
    outcome["modified"] = [n for n, value in inputs.items() if n != "stand_ins" and not unchanged(value, given[n])]
    return outcome | {"printed": out.text}


def without_source(outcome: Outcome) -> Outcome:
    """Le résultat sans rien du texte de qui a répondu (ligne, message, affichages) : ce qu'un paquet peut contenir."""
    kept = ("status", "value", "error", "mro")
    return {k: v for k, v in outcome.items() if k in kept}


# --- Fonctions -------------------------------------------------------------------------------------------------------


def call(fn: Callable[..., Any], inputs: dict[str, Any]) -> Any:
    """Les entrées par position."""
    return fn(*inputs.values())


def call_float(fn: Callable[..., Any], inputs: dict[str, Any]) -> float:
    """Le résultat en flottant Python, qu'il vienne en nombre ou en tenseur d'un seul élément."""
    value = fn(*inputs.values())
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise NotData(f"un tenseur de forme {tuple(value.shape)} ; on attend un seul nombre")
        return float(value.detach())
    if isinstance(value, bool) or not hasattr(type(value), "__float__"):
        name = name_of(value) if not isinstance(value, (type(None), str, bool)) else repr(value)
        raise NotData(f"{name} ; on attend un seul nombre")
    return float(value)


def call_many(fn: Callable[..., Any], inputs: dict[str, Any]) -> list[Any]:
    """Le premier argument est une liste : la fonction est appelée sur chaque élément, les autres restant fixes."""
    first, *others = inputs.values()
    return [fn(item, *others) for item in first]


def call_iterator(fn: Callable[..., Any], inputs: dict[str, Any]) -> Any:
    """Le premier argument est donné tel quel si c'est un n-uplet ; une liste devient un itérateur, à lire une fois."""
    first, *others = inputs.values()
    return fn(first if isinstance(first, tuple) else iter(first), *others)


def loss_grads(fn: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Valeur, puis gradient pour chaque entrée flottante. Un gradient absent compte comme nul."""
    wanted = {k: v.requires_grad_(True) for k, v in inputs.items() if _is_float_tensor(v)}
    value = fn(*inputs.values())
    result: dict[str, Any] = {"valeur": value}
    if isinstance(value, torch.Tensor):
        result["gradients"] = gradients(value.sum(), wanted)
    for tensor in wanted.values():
        tensor.requires_grad_(False)
    return result


def _is_float_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


PROBES: dict[str, Callable[[Callable[..., Any], dict[str, Any]], Any]] = {
    f.__name__: f
    for f in (
        call,
        call_float,
        call_many,
        call_iterator,
        loss_grads,
        module,
        packed_module,
        train_steps,
        gpt2_transform,
        gpt2_new_model,
        gpt2_train,
        gpt2_distill,
        gpt2_call,
        generate,
        freeze,
        gpt2_observe,
        gpt2_importance,
        gpt2_rounded,
    )
}
