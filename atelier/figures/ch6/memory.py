"""Chapitre 6, quatrième partie : ce que l'apprentissage garde en mémoire, et ce qu'il faut ranger sur le disque."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from atelier.display import note, show, table
from atelier.figures.common.style import BLUE, GREEN, ORANGE, PURPLE, canvas, french
from atelier.hardware import home
from atelier.models import GPT2_SIZES, load_model
from atelier.text import byte_size, number, percent, plural

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

_PARTS = {"poids": (BLUE, ""), "gradients": (ORANGE, "//"), "Adam": (PURPLE, "xx"), "activations": (GREEN, "\\\\")}
"""Ce qui occupe la mémoire : couleur et hachure."""


def tensor_bytes(tensors: Any) -> int:
    """Octets d'une suite de tenseurs."""
    return sum(t.numel() * t.element_size() for t in tensors)


def saved_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """La perte, et les octets que PyTorch garde du passage avant pour le passage arrière, poids non compris.

    Chaque zone de mémoire compte une fois, même si plusieurs tenseurs en sont des vues.
    """
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()
    return value, sum(storage.nbytes() for storage in kept.values())


def training_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, int]:
    """Octets d'un vrai pas d'AdamW : poids, gradients, Adam, activations. Taux nul : les poids ne bougent pas."""
    value, activations = saved_bytes(model, loss)
    value.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=True)
    optimizer.step()
    found = {
        "poids": tensor_bytes(model.parameters()),
        "gradients": tensor_bytes(p.grad for p in trained if p.grad is not None),
        "Adam": tensor_bytes(t for state in optimizer.state.values() for t in state.values()),
        "activations": activations,
    }
    model.zero_grad(set_to_none=True)
    return found


def without_data(size: str) -> GPT2LMHeadModel:
    """Un GPT-2 de vraie taille sur l'appareil « meta » : PyTorch en connaît formes et types, pas les nombres."""
    from transformers import GPT2Config, GPT2LMHeadModel

    layers, d_model, heads = GPT2_SIZES[size]
    with torch.device("meta"):
        return GPT2LMHeadModel(
            GPT2Config(n_layer=layers, n_embd=d_model, n_head=heads, attn_implementation="eager")  # type: ignore[call-arg]
        ).eval()


def _explicit_loss(model: GPT2LMHeadModel, batch: int, length: int) -> Tensor:
    """Perte du jeton suivant, masque et positions donnés : rien n'est lu dans les tenseurs, ils peuvent être vides."""
    where = home(model)
    ids = torch.zeros(batch, length, dtype=torch.long, device=where)
    causal = torch.ones(batch, 1, length, length, dtype=torch.bool, device=where).tril()
    positions = torch.arange(length, device=where).expand(batch, -1)
    logits = model(ids, attention_mask=causal, position_ids=positions, use_cache=False).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


def mixed_step_bytes(model: GPT2LMHeadModel, batch: int = 1, length: int = 16) -> int:
    """Octets gardés entre deux pas de précision mixte : poids et gradients en BF16, copie et moments en FP32."""
    model = model.to(torch.bfloat16)  # type: ignore[arg-type]
    _explicit_loss(model, batch, length).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    copies = [p.detach().float() for p in trained]
    for copy, p in zip(copies, trained, strict=True):
        copy.grad = None if p.grad is None else p.grad.float()
    optimizer = torch.optim.AdamW(copies, lr=0.0)
    optimizer.step()
    for copy in copies:
        copy.grad = None  # le gradient en FP32 ne sert qu'un instant
    moments = (state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq"))
    gradients = (p.grad for p in trained)
    return tensor_bytes(model.parameters()) + tensor_bytes(gradients) + tensor_bytes(copies) + tensor_bytes(moments)


def eager_colibri() -> GPT2LMHeadModel:
    """Colibri, dont l'attention garde ses scores, comme celle des GPT-2 sans données."""
    return load_model("colibri", attention="eager")


# --- Figures ----------------------------------------------------------------------------------------------------------


def bytes_table(found: Mapping[tuple[str, str], tuple[int, int, int, int]]) -> None:
    """La formule du lecteur contre les octets de tous les tenseurs. found : (modèle, ce qui apprend) → comptes."""
    table(
        [[*names, n, learning, said, seen, seen - said] for names, (n, learning, said, seen) in found.items()],
        header=["modèle", "apprend", "paramètres", "qui apprennent", "votre formule (octets)", "comptés", "écart"],
        caption="Poids, gradients, copie en FP32 et moments d'Adam, en précision mixte, entre deux pas",
    )
    note(
        "Colibri fait un vrai pas. Les GPT-2 sont sur l'appareil « meta » de PyTorch : des tenseurs qui ont une forme "
        "et un type, mais pas de nombres, sans occuper de place ; les gradients et l'optimiseur, eux, sont ceux de "
        "PyTorch."
    )


def plot_activations(found: Mapping[str, Mapping[str, int]]) -> str:
    """Octets d'un vrai pas, selon ce qui apprend. found : étage → octets par poste, et « FLOP ». Rend le verdict."""
    fig, ax = canvas(8.4, 3.4)
    told = []
    for y, (name, row) in enumerate(found.items()):
        left = 0.0
        for part, (color, hatch) in _PARTS.items():
            width = row[part] / 1e6
            ax.barh(y, width, left=left, height=0.6, color=color, hatch=hatch, edgecolor="white", label=part)
            left += width
        ax.annotate(number(left, 3, unit="Mo"), (left, y), xytext=(5, -4), textcoords="offset points")
        told.append(f"{name}, {number(left, 3)} Mo dont {number(row['activations'] / 1e6, 3)} d'activations")
    ax.set_yticks(range(len(found)), list(found))
    ax.invert_yaxis()
    ax.set_xlabel("Mo, un pas d'AdamW en FP32")
    ax.margins(x=0.14)
    french(ax, y=False)
    handles, labels = ax.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    fig.legend(named.values(), named.keys(), loc="outside upper center", ncols=len(named), frameon=False)
    show(fig, alt=f"Barres empilées, octets d'un pas d'apprentissage : {' ; '.join(told)}.")
    whole, again = found["tout"], found.get("tout, refait")
    if again is not None:
        note(
            f"Refaire au lieu de garder : {percent(again['activations'] / whole['activations'])} des activations, pour "
            f"{number(again['FLOP'] / whole['FLOP'], 3)} fois les opérations, comptées par PyTorch."
        )
    return (
        "d'activations"
        if whole["activations"] > sum(whole[p] for p in list(_PARTS)[:3])
        else ("de poids, gradients et Adam")
    )


def recipes_table(found: Mapping[str, tuple[int | None, int]]) -> None:
    """Octets gardés entre deux pas, activations non comprises. found : recette → (si tout apprend, si 1 % apprend)."""
    table(
        [
            [name, "—" if whole is None else byte_size(whole, 3), byte_size(part, 3)]
            for name, (whole, part) in found.items()
        ],
        header=["recette", "tout apprend", "1 % apprend"],
        caption="Sept milliards de paramètres : compté, non mesuré ; activations et échelles d'Adam non comprises",
    )


def storage_table(found: Mapping[str, Sequence[int]], counts: Sequence[int]) -> float:
    """Octets à ranger, selon ce que chaque tâche ajoute. Rend les Go de cent tâches avec LoRA, pour le pari."""
    table(
        [[name, *(byte_size(v, 4) for v in values)] for name, values in found.items()],
        header=["chaque tâche ajoute", *(plural(n, "tâche") for n in counts)],
        caption="170 milliards de paramètres, 2 octets chacun (1 To = 10¹² octets = 1 000 Go)",
    )
    return found["LoRA, 37,7 millions"][-1] / 1e9
