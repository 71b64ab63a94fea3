"""Les doublures : ce qui remplace, le temps d'un cas, un exercice dont un autre se sert.

Une faute ne coûte ainsi qu'une fois (DESIGN §2). Une doublure a la signature de ce qu'elle remplace, mais une autre
formule : elle ne dit rien de la réponse, et la référence, jugée avec elle, sert d'étalon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from atelier.judging.frames import is_student_code

# --- Modules ---------------------------------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """Doublure d'un adaptateur : mêmes attributs et mêmes formes, même identité au départ, autre formule."""

    down: nn.Linear
    up: nn.Linear

    def __init__(self, d_model: int, bottleneck: int) -> None:
        super().__init__()
        sizes = {"down": (d_model, bottleneck), "up": (bottleneck, d_model)}
        for name, size in sizes.items():
            setattr(self, name, nn.Linear(*size))
        for p in self.up.parameters():
            p.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(torch.sin(3 * self.down(x)))


class LowRank(nn.Module):
    """Doublure d'une couche LoRA : mêmes paramètres, mêmes formes, même départ, autre formule."""

    def __init__(self, base: nn.Module, rank: int, alpha: float) -> None:
        super().__init__()
        weight = base.get_parameter("weight")
        d_out, d_in = weight.shape if isinstance(base, nn.Linear) else reversed(weight.shape)
        self.base, self.alpha = base.requires_grad_(False), float(alpha)
        self.lora_A = nn.Parameter(torch.randn(rank, d_in).to(weight))
        self.lora_B = nn.Parameter(torch.zeros(d_out, rank).to(weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + torch.tanh(self.alpha * nn.functional.linear(x, self.lora_A)) @ self.lora_B.mT


# --- Fonctions -------------------------------------------------------------------------------------------------------


def odd_soft(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """Doublure d'une perte de distillation : une moyenne sur tout, sans gradient vers l'enseignant."""
    return temperature * torch.sin((student_logits - teacher_logits.detach()) / temperature).square().mean()


def odd_mix(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 2.0, alpha: float = 0.5
) -> Tensor:
    """Doublure d'une perte à deux termes, sur les logits et les étiquettes tels qu'ils sont donnés."""
    read = student_logits.gather(-1, labels.clamp_min(0)[..., None])
    return alpha * odd_soft(student_logits, teacher_logits, temperature) + (1 - alpha) * torch.cos(read).mean()


def odd_codes(w: Tensor, block_size: int = 64) -> tuple[Tensor, Tensor]:
    """Doublure d'une quantification par blocs sur seize niveaux : mêmes formes, mêmes types, d'autres codes."""
    rows = w.reshape(w.numel() // block_size, block_size)
    scale = rows.abs().mean(1) + 0.5
    return ((rows / scale[:, None]).sin() * 7.5 + 7.5).round().to(torch.uint8).flatten(), scale


STAND_INS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (Bottleneck, LowRank, odd_soft, odd_mix, odd_codes)}


# --- Remplacer -------------------------------------------------------------------------------------------------------


def _scopes_of(fn: Callable[..., Any]) -> list[dict[str, Any]]:
    """Les noms globaux de l'étudiant que voit `fn` : fonction, décorée ou non, `partial`, classe, méthode, objet."""
    found: dict[int, dict[str, Any]] = {}
    seen: dict[int, Any] = {}
    waiting: list[Any] = [fn]
    while waiting and len(seen) < 100:
        value = waiting.pop()
        if value is None or id(value) in seen:
            continue
        seen[id(value)] = value
        code = getattr(value, "__code__", None)
        if isinstance(code, CodeType):
            if is_student_code(code):
                found[id(value.__globals__)] = value.__globals__
            cells = value.__closure__ or ()
            waiting += [held for cell in cells if callable(held := _content(cell))]
        elif isinstance(value, type):
            waiting += vars(value).values()
        else:
            waiting.append(getattr(type(value), "__call__", None))  # noqa: B004
        waiting += [getattr(value, name, None) for name in ("__wrapped__", "func", "__func__")]
    return list(found.values())


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # pas encore rempli
        return None


@contextmanager
def replaced(fn: Callable[..., Any], stand_ins: Mapping[str, str]) -> Iterator[None]:
    """Le temps de l'appel, des noms globaux de `fn` désignent des doublures : une faute ne coûte qu'une fois."""
    missing = object()
    scopes = _scopes_of(fn) if stand_ins else []
    kept = [(scope, {name: scope.get(name, missing) for name in stand_ins}) for scope in scopes]
    for scope in scopes:
        scope.update({name: STAND_INS[double] for name, double in stand_ins.items()})
    try:
        yield
    finally:
        for scope, names in kept:
            for name, value in names.items():
                if value is missing:
                    scope.pop(name, None)
                else:
                    scope[name] = value
