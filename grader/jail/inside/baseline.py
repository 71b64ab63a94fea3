"""L'état d'avant la copie : y remettre les bibliothèques et leurs réglages, voir ce qu'un exercice a laissé."""

from __future__ import annotations

import builtins
import contextlib
import copy
import gc
import math
import os
import random
import sys
import threading
import time
from typing import Any

_MISSING = object()


class Baseline:
    """Les bibliothèques et leurs réglages tels qu'avant la première cellule, à remettre avant chaque exercice.

    Une cellule qui change le type par défaut, une graine ou `torch.Tensor.__mul__` ne coûte ainsi rien aux exercices
    des autres cellules. Ce qu'elle ajoute reste : seul ce qu'elle a changé, caché ou effacé est remis.
    """

    def __init__(self) -> None:
        import numpy
        import torch

        from atelier.judging import codec, compare, data, probes, probes_models, stand_ins, writing

        functional, linear = torch.nn.functional, torch.nn.Linear
        places: list[Any] = [builtins, math, random, time, copy, numpy, numpy.random, numpy.linalg]
        places += [codec, compare, data, probes, probes_models, stand_ins, writing]
        places += [torch, torch.Tensor, torch.nn, functional, linear, torch.nn.Module, torch.nn.Parameter]
        places += [torch.nn.init, torch.linalg, torch.autograd, torch.optim, torch.Generator]
        self.kept = [(place, dict(vars(place))) for place in places]
        self.folder = os.getcwd()
        self.errors = numpy.geterr()

    def restore(self) -> bool:
        """Remet tout. Vrai si une bibliothèque ou un de ses réglages avait changé."""
        import numpy
        import torch
        from torch.nn.modules import module as hooks

        sys.settrace(None)
        sys.setprofile(None)
        gc.enable()
        changed = False
        for place, names in self.kept:
            now = vars(place)
            spoiled = [n for n, value in names.items() if now.get(n, _MISSING) is not value]
            if not spoiled and len(now) == len(names):
                continue
            for name in spoiled:
                with contextlib.suppress(AttributeError, TypeError):
                    setattr(place, name, names[name])
            bases: tuple[type, ...] = place.__mro__[1:] if isinstance(place, type) else ()
            hiding = [n for n in now if n not in names and any(n in vars(base) for base in bases)]
            for name in hiding:
                with contextlib.suppress(AttributeError, TypeError):
                    delattr(place, name)  # cachait la méthode d'une classe dont celle-ci hérite
            changed = changed or bool(spoiled or hiding)
        for name in [n for n in vars(hooks) if n.startswith("_global_") and isinstance(vars(hooks)[n], dict)]:
            changed = changed or bool(vars(hooks)[name])
            vars(hooks)[name].clear()
        before = self.settings()
        torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            torch.set_default_device(None)
        torch.set_num_threads(1)
        if torch.are_deterministic_algorithms_enabled():  # l'appel, même inutile, charge tout torch._inductor
            torch.use_deterministic_algorithms(False)
        torch.autograd.set_detect_anomaly(False)
        torch.set_flush_denormal(False)
        torch.set_float32_matmul_precision("highest")
        torch.set_grad_enabled(True)
        numpy.seterr(**self.errors)
        os.chdir(self.folder)
        return changed or before != self.settings()

    def settings(self) -> tuple[Any, ...]:
        """Les réglages de ce processus qui se lisent."""
        import numpy
        import torch

        return (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_anomaly_enabled(),
            torch.get_float32_matmul_precision(),
            torch.is_grad_enabled(),
            numpy.geterr(),
            os.getcwd(),
        )


def held() -> tuple[int, int, bool, int]:
    """Ce que ce processus tient : fils, descripteurs, enfants ou non, mémoire adressée en centaines de Mio."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        children = True
    except (ChildProcessError, AttributeError):  # waitid manque à macOS avant Python 3.13
        children = False
    try:
        with open("/proc/self/statm", encoding="ascii") as f:
            size = int(f.read().split()[0]) * 4096
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), children, size >> 27
    except OSError:  # pas de /proc : seuls les fils de Python se comptent
        return threading.active_count(), 0, children, 0
