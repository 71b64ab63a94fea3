"""Chronométrer : un seul fil de calcul, et plusieurs calculs tour à tour."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from atelier.hardware import scale, synchronize


@contextmanager
def one_thread() -> Iterator[None]:
    """Un seul fil de calcul, le temps d'un bloc.

    De petites opérations n'ont rien à gagner à s'attendre entre fils, et la mesure dépend moins du reste de la machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleaved_seconds(
    runs: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Durées de chaque appel, en secondes : tous une fois, puis on recommence, `rounds` fois, après l'échauffement.

    Ce qui ralentit la machine un moment les ralentit ainsi tous. À l'échelle d'essai, trois tours au plus.
    """
    rounds = min(rounds, 3) if scale().name == "essai" else rounds
    found: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(warmup + rounds):
        for name, run in runs.items():
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            if i >= warmup:
                found[name].append(time.perf_counter() - start)
    return found
