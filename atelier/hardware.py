"""La machine, l'échelle à laquelle un chapitre tourne, et des mesures de temps honnêtes."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")
SCALES = ("essai", "cpu", "gpu")


@cache
def device() -> torch.device:
    """CUDA, sinon MPS, sinon CPU. `COURS_DEVICE` (« cpu », « cuda:1 ») l'emporte."""
    if given := os.environ.get("COURS_DEVICE"):
        return torch.device(given)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@dataclass(frozen=True)
class Scale:
    """Échelle d'un chapitre : « essai » (les tests), « cpu » (la vôtre), « gpu »."""

    name: str

    def pick(self, *, essai: T, cpu: T, gpu: T) -> T:
        """La valeur prévue pour cette échelle : `scale().pick(essai=2, cpu=16, gpu=256)`."""
        return {"essai": essai, "cpu": cpu, "gpu": gpu}[self.name]


def scale() -> Scale:
    """L'échelle en cours : `COURS_ECHELLE` si elle est donnée, sinon « gpu » avec CUDA, sinon « cpu »."""
    name = os.environ.get("COURS_ECHELLE") or ("gpu" if device().type == "cuda" else "cpu")
    if name not in SCALES:
        raise ValueError(f"COURS_ECHELLE vaut « {name} » ; les échelles sont {', '.join(SCALES)}.")
    return Scale(name)


def machine() -> str:
    """Une ligne : processeur ou carte, mémoire, système, versions."""
    d = device()
    if d.type == "cuda":
        props = torch.cuda.get_device_properties(d)
        what = f"GPU {props.name}, {props.total_memory / 2**30:.0f} Gio"
    elif d.type == "mps":
        what = f"GPU Apple ({platform.machine()})"
    else:
        what = f"CPU {platform.processor() or platform.machine()}, {torch.get_num_threads()} fil(s) de calcul"
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


def synchronize() -> None:
    """Attend la fin des calculs lancés sur la carte ; sans effet sur CPU."""
    if device().type == "cuda":
        torch.cuda.synchronize()
    elif device().type == "mps":
        torch.mps.synchronize()


def median_seconds(run: Callable[[], object], repeats: int = 7, warmup: int = 2) -> float:
    """Durée médiane d'un appel de `run`, en secondes, après échauffement, carte synchronisée."""
    for _ in range(warmup):
        run()
    times = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
