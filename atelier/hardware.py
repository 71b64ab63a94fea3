"""La machine, l'échelle à laquelle un chapitre tourne, et des mesures de temps honnêtes."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from atelier import settings, state
from atelier.text import number, plural

T = TypeVar("T")
SCALES = ("essai", "cpu", "gpu")
LARGE_CARD = 7 * 2**30
"""Octets qu'il faut à une carte pour l'échelle « gpu » (une carte dite de 8 Go en montre un peu moins)."""


@cache
def device() -> torch.device:
    """CUDA, sinon MPS, sinon CPU. `COURS_DEVICE` (« cpu », « cuda:1 ») l'emporte.

    Lève `ValueError` si cet appareil n'existe pas ici.
    """
    if given := settings.given_device():
        return _asked(given)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _asked(name: str) -> torch.device:
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        cause = (str(error).splitlines() or [""])[0][:120]
        raise ValueError(
            f"COURS_DEVICE vaut «\u00a0{name}\u00a0», un appareil dont torch ne peut pas se servir ici ({cause}). "
            "Écrivez cpu, cuda, cuda:1 ou mps, ou n'écrivez rien\u00a0: l'atelier choisira."
        ) from None
    return found


def home(model: nn.Module) -> torch.device:
    """L'appareil où sont les poids d'un modèle : là où vont ses lots, et ce qu'on lui ajoute."""
    return next(model.parameters()).device


def beside(model: nn.Module, batch: Any) -> Any:
    """Le lot, mis sur l'appareil des poids de `model` : tenseur, liste, n-uplet, dictionnaire, ou objet qui a `.to`."""
    if isinstance(batch, (list, tuple)):
        return type(batch)(beside(model, part) for part in batch)
    if isinstance(batch, dict):
        return {name: beside(model, part) for name, part in batch.items()}
    return batch.to(home(model)) if hasattr(batch, "to") else batch


@cache
def has_float64(where: torch.device) -> bool:
    """Faux sur la carte d'un Mac (MPS), que les exercices du chapitre 3 prendraient en défaut."""
    try:
        torch.zeros(0, dtype=torch.float64, device=where)
    except TypeError:
        return False
    return True


def for_float64(x: torch.Tensor) -> torch.Tensor:
    """Le tenseur, ramené sur le processeur si son appareil ne connaît pas float64."""
    return x if has_float64(x.device) else x.cpu()


@dataclass(frozen=True)
class Scale:
    """Échelle d'un chapitre : « essai » (les tests), « cpu » (la vôtre), « gpu »."""

    name: str

    def pick(self, *, essai: T, cpu: T, gpu: T) -> T:
        """La valeur prévue pour cette échelle : `scale().pick(essai=2, cpu=16, gpu=256)`."""
        return {"essai": essai, "cpu": cpu, "gpu": gpu}[self.name]


def scale() -> Scale:
    """L'échelle en cours : `COURS_ECHELLE` si elle est donnée, sinon « gpu » sur une carte assez grande, ou « cpu »."""
    name = settings.given_scale() or ("gpu" if card_bytes() >= LARGE_CARD else "cpu")
    if name not in SCALES:
        raise ValueError(f"COURS_ECHELLE vaut « {name} » ; les échelles sont {', '.join(SCALES)}.")
    return Scale(name)


def smaller_scale() -> bool:
    """Passe de l'échelle « gpu » à « cpu », et rend la mémoire que torch garde en réserve ; faux si l'on y est déjà."""
    if scale().name != "gpu":
        return False
    settings.set_scale("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True


@cache
def processor() -> str:
    """Le nom du processeur, si le système le dit."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def machine() -> str:
    """Une ligne : processeur ou carte, mémoire, système, versions."""
    d = device()
    if d.type == "cuda":
        what = f"GPU {card_name()}, {number(card_bytes() / 2**30, decimals=0, unit='Gio')}"
    elif d.type == "mps":
        what = f"GPU Apple ({platform.machine()})"
    else:
        what = f"CPU {processor()}, {plural(torch.get_num_threads(), 'fil')} de calcul"
    return f"{what} · {platform.system()} · Python {platform.python_version()} · torch {torch.__version__}"


def describe_machine() -> None:
    """Affiche la machine trouvée et l'échelle à laquelle le chapitre va tourner."""
    sense = {
        "essai": "extraits très courts, pour vérifier que tout tourne",
        "cpu": "extraits courts : chaque cellule répond en quelques secondes",
        "gpu": "extraits longs et formats réels de la carte",
    }
    print(f"Machine : {machine()}")
    print(f"Échelle : « {scale().name} » ({sense[scale().name]})")
    print('Un mot, une lettre : atelier.glossary("lot"), atelier.notations()')
    if lost := state.volatile():
        print(lost)


def card_name() -> str:
    """Le nom de la carte CUDA en service ; vide s'il n'y en a pas."""
    return torch.cuda.get_device_name(device()) if device().type == "cuda" else ""


def card_bytes() -> int:
    """La mémoire de la carte CUDA en service, en octets ; 0 s'il n'y en a pas."""
    return torch.cuda.get_device_properties(device()).total_memory if device().type == "cuda" else 0


def card_capability() -> tuple[int, int]:
    """La génération de la carte CUDA : (7, 5) Turing (T4), (8, 0) Ampere, (8, 9) Ada, (9, 0) Hopper ; (0, 0) sans."""
    return torch.cuda.get_device_capability(device()) if device().type == "cuda" else (0, 0)


def synchronize() -> None:
    """Attend la fin des calculs lancés sur la carte ; sans effet sur CPU."""
    if device().type == "cuda":
        torch.cuda.synchronize(device())
    elif device().type == "mps":
        torch.mps.synchronize()


@dataclass
class CardMemory:
    """Octets pris sur la carte avant, après et au plus haut ; None là où torch ne les compte pas (CPU, MPS)."""

    before: int | None = None
    after: int | None = None
    peak: int | None = None


@contextmanager
def card_memory() -> Iterator[CardMemory]:
    """La mémoire de la carte autour du bloc, poids déjà en place compris ; à lire une fois le bloc fini."""
    found, counted = CardMemory(), device().type == "cuda"
    if counted:
        synchronize()
        torch.cuda.reset_peak_memory_stats(device())
        found.before = torch.cuda.memory_allocated(device())
    yield found
    if counted:
        synchronize()
        found.after = torch.cuda.memory_allocated(device())
        found.peak = torch.cuda.max_memory_allocated(device())


def median_seconds(run: Callable[[], object], repeats: int = 7, warmup: int = 2) -> float:
    """Durée médiane d'un appel de `run`, en secondes, après échauffement, carte synchronisée."""
    return statistics.median(call_seconds(run, repeats, warmup))


def call_seconds(run: Callable[[], object], repeats: int = 7, warmup: int = 2) -> list[float]:
    """Durées de `repeats` appels de `run`, en secondes, rangées, après échauffement, carte synchronisée.

    À l'échelle d'essai, où personne ne lit la durée, trois appels au plus, après un d'échauffement.
    """
    if scale().name == "essai":
        repeats, warmup = min(repeats, 3), min(warmup, 1)
    for _ in range(warmup):
        run()
    times = []
    for _ in range(repeats):
        start = _now()
        run()
        times.append(_now() - start)
    return sorted(times)


def _now() -> float:
    synchronize()
    return time.perf_counter()
