"""Chapitre 6, quatrième partie : ce que l'apprentissage garde en mémoire, et ce qu'il faut ranger sur le disque."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from atelier.display import note, recorded, show, table
from atelier.figures.ch6.voices import CHAPTER, DEPTHS, SHOWN_DEPTHS, trainable
from atelier.figures.common.style import BLUE, GREEN, ORANGE, PURPLE, SKY, canvas, french
from atelier.hardware import card_memory, home
from atelier.models import GPT2_SIZES, load_model
from atelier.text import byte_size, number, plural
from atelier.training import corpus_tokens, lm_loss, windows
from atelier.variants import save_variant

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

HUGE = 170_000_000_000
"""Le modèle de la diapositive : « 170 B »."""
PARTS = {
    "poids": (BLUE, ""),
    "gradients": (ORANGE, "//"),
    "copie en FP32": (SKY, ".."),
    "Adam": (PURPLE, "xx"),
    "activations": (GREEN, "\\\\"),
}
"""Ce qui occupe la mémoire : couleur et hachure."""
CARD = 80e9
"""Octets d'une carte de centre de calcul (A100 ou H100 de 80 Go)."""


def tensor_bytes(tensors: Any) -> int:
    """Octets d'une suite de tenseurs."""
    return sum(t.numel() * t.element_size() for t in tensors)


def saved_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """La perte, et les octets que PyTorch garde de l'aller pour le retour, poids non compris.

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
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)
    optimizer.step()
    found = {
        "poids": tensor_bytes(model.parameters()),
        "gradients": tensor_bytes(p.grad for p in trained if p.grad is not None),
        "Adam": tensor_bytes(t for state in optimizer.state.values() for t in state.values()),
        "activations": activations,
    }
    model.zero_grad(set_to_none=True)
    return found


def _without_data(size: str) -> GPT2LMHeadModel:
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


def _mixed_step(model: GPT2LMHeadModel, batch: int, length: int) -> int:
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


@recorded("ch6/formula_against_bytes", needs=("formula", "freeze"))
def formula_against_bytes(formula: Any, freeze: Any) -> None:
    """La formule de l'étudiant contre la somme des octets de tous les tenseurs d'un pas de précision mixte."""
    rows = []
    models: dict[str, Callable[[], GPT2LMHeadModel]] = {"Colibri": lambda: load_model("colibri", attention="eager")}
    models |= {f"GPT-2 {size}": partial(_without_data, size) for size in ("small", "xl")}
    for name, make in models.items():
        layers = make().config.n_layer
        for what, patterns in (("tout", ["transformer"]), ("dernier bloc", [f"h.{layers - 1}.", "ln_f"])):
            model = make()
            freeze(model, patterns)
            expected = formula(model.num_parameters(), trainable(model))
            seen = _mixed_step(model, 1, 16)
            rows.append([name, what, model.num_parameters(), trainable(model), expected, seen, seen - expected])
    table(
        rows,
        header=["modèle", "apprend", "paramètres", "qui apprennent", "votre formule (octets)", "mesuré", "écart"],
        caption="Poids, gradients, copie en FP32 et moments d'Adam, en précision mixte",
    )
    note(
        "Colibri fait un vrai pas. Les GPT-2 sont sur l'appareil « meta » de PyTorch : des tenseurs qui ont une forme "
        "et un type, mais pas de nombres, sans occuper de place ; les gradients et l'optimiseur, eux, sont ceux de "
        "PyTorch."
    )


def _bar(ax: Any, y: int, parts: Mapping[str, float], unit: float, height: float = 0.6) -> float:
    left = 0.0
    for part, (color, hatch) in PARTS.items():
        if width := parts.get(part, 0) / unit:
            ax.barh(y, width, left=left, height=height, color=color, hatch=hatch, edgecolor="white", label=part)
            left += width
    ax.annotate(number(left, 3), (left, y), xytext=(5, -4), textcoords="offset points")
    return left


def _legend(fig: Any, axes: Any) -> None:
    found: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    fig.legend(found.values(), found.keys(), loc="outside upper center", ncols=len(found), frameon=False)


@recorded("ch6/activation_bytes", needs=("freeze",))
def activation_bytes(model: GPT2LMHeadModel, freeze: Any, batch: int = 8, length: int = 128) -> None:
    """Octets d'un pas de Colibri en FP32, selon ce qui apprend ; et d'un GPT-2 selon la longueur du texte."""
    ids = next(windows(corpus_tokens("b_train", 20_000), batch, length))
    chosen = ("tout", "3 derniers", "dernier bloc", "ln_f", "premier bloc")
    fig, axes = canvas(9.4, 3.6, columns=2)
    told: list[str] = []
    shown: list[str] = []
    for y, name in enumerate(chosen):
        freeze(model, DEPTHS[name])
        with card_memory() as card:
            found = training_bytes(model, lambda: lm_loss(model, ids))
        total = _bar(axes[0], y, found, 1e6)
        shown.append(SHOWN_DEPTHS.get(name, name))
        told.append(f"{shown[-1]}, {number(total, 3)} Mo dont {number(found['activations'] / 1e6, 3)} d'activations")
        if card.peak is not None:
            note(f"{shown[-1]} : pic mesuré sur la carte, {number(card.peak / 1e6, 4, unit='Mo')}.")
    model.requires_grad_(True)
    axes[0].set_yticks(range(len(chosen)), shown)
    axes[0].invert_yaxis()
    axes[0].set(xlabel="Mo", title=f"Colibri, FP32, lot de {batch} × {length} jetons")
    lengths = (128, 512, 1024)
    for y, n in enumerate(lengths):
        shape = _without_data("small").to(torch.bfloat16)  # type: ignore[arg-type]
        _, kept = saved_bytes(shape, partial(_explicit_loss, shape, 1, n))
        weights, count = tensor_bytes(shape.parameters()), shape.num_parameters()
        parts = {"poids": weights, "gradients": 2 * count, "copie en FP32": 4 * count, "Adam": 8 * count}
        total = _bar(axes[1], y, parts | {"activations": kept}, 1e9)
        told.append(f"GPT-2 small, {n} jetons, {number(total, 3)} Go dont {number(kept / 1e9, 3)} d'activations")
    axes[1].set_yticks(range(len(lengths)), [number(n, unit="jetons") for n in lengths])
    axes[1].invert_yaxis()
    axes[1].set(xlabel="Go", title="GPT-2 small, précision mixte, un seul texte")
    for ax in axes:
        french(ax, y=False)
        ax.margins(x=0.14)
    _legend(fig, axes)
    show(fig, alt=f"Barres empilées, octets d'un pas d'apprentissage : {' ; '.join(told)}.")
    note(
        "Activations comptées par un crochet sur les tenseurs gardés, chaque zone de mémoire une fois. À droite, "
        "attention ordinaire, qui garde ses scores : ils grandissent comme le carré de la longueur. FlashAttention "
        "(Dao et al., 2022) les recalcule au lieu de les garder."
    )


@recorded("ch6/memory_bars", needs=("formula",))
def memory_bars(formula: Any) -> None:
    """Octets, activations non comprises : utiliser, entraîner 1 % ou tout, pour GPT-2 XL et pour 170 milliards."""
    xl = _without_data("xl").num_parameters()
    fig, axes = canvas(9.4, 3.0, columns=2)
    told, ways = [], ("utiliser", "entraîner 1 %", "tout entraîner")
    for ax, (name, n) in zip(axes, {"GPT-2 XL": xl, "170 milliards de paramètres": HUGE}.items(), strict=True):
        for y, (way, count) in enumerate(zip(ways, (0, n // 100, n), strict=True)):
            parts = {"poids": 2 * n, "gradients": 2 * count, "copie en FP32": 4 * count, "Adam": 8 * count}
            total = formula(n, count)
            _bar(ax, y, parts, 1e9)
            told.append(
                f"{name}, {way}, {byte_size(total, 4)}, soit {plural(round(total / CARD, 3), 'carte')} de 80 Go"
            )
        ax.axvline(CARD / 1e9, color="black", linestyle="--", linewidth=1)
        ax.set_yticks(range(3), ways)
        ax.invert_yaxis()
        ax.set(xlabel="Go (tirets : une carte de 80 Go)", title=name)
        french(ax, y=False)
        ax.margins(x=0.16)
    _legend(fig, axes)
    show(fig, alt=f"Barres empilées : {' ; '.join(told)}.")
    table(
        [
            [name, *(byte_size(formula(n, count), 4) for count in (0, n // 100, n))]
            for name, n in {"Colibri": 3_060_288, "GPT-2 XL": xl, "170 milliards": HUGE}.items()
        ],
        header=["modèle", *ways],
        caption="Votre formule, activations non comprises (1 Mo = 10⁶ octets)",
    )


@recorded("ch6/storage", needs=("formula",))
def storage(formula: Any) -> None:
    """Octets à ranger pour 1, 10 et 100 tâches : copies complètes, ou base partagée et 1 % par tâche."""
    counts = (1, 10, 100)
    one_percent = HUGE // 100
    lines = {
        "une copie par tâche": [formula(HUGE, n) for n in counts],
        "base partagée, 1 % par tâche": [formula(HUGE, n, 2, one_percent) for n in counts],
    }
    table(
        [[name, *(byte_size(v, 4) for v in values)] for name, values in lines.items()],
        header=["170 milliards de paramètres, 2 octets chacun", *(plural(n, "tâche") for n in counts)],
        caption="Octets à ranger (1 To = 10¹² octets = 1 000 Go)",
    )
    full, shared = (values[-1] for values in lines.values())
    note(f"Pour cent tâches, la base partagée demande {number(full / shared, 3)} fois moins de place.")


def board_row(model: GPT2LMHeadModel, steps: int) -> None:
    """Inscrit au tableau le Colibri ajusté sur la fantasy : sa perplexité sur A dit ce qu'il a oublié."""
    from safetensors.torch import save

    n_bytes = len(save({name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}))
    row = save_variant("fantasy", model, n_bytes, CHAPTER, f"fine-tuné en entier sur la fantasy (B), {steps} pas")
    note(f"Perplexité sur A : {number(row['perplexity'], 4)} ; {number(row['bytes'], unit='octets')}, ceux de Colibri.")
