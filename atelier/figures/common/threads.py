"""Les fils de calcul, le temps d'une mesure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
