"""Chapitre 7, première partie : l'adaptateur dessiné, ses trois départs possibles, son compte de paramètres."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from atelier.display import note, recorded, show, table
from atelier.figures.common.layers import blocks
from atelier.figures.common.sizes import shape_only
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, SKY, canvas
from atelier.hardware import home
from atelier.models import GPT2_SIZES
from atelier.text import number, percent
from atelier.training import corpus_tokens, lm_loss, windows

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

BERT_LARGE = (24, 1024, 330_000_000)
"""Blocs, dimension, paramètres : Houlsby et al., 2019, § 3.1."""


# --- Le dessin ------------------------------------------------------------------------------------------------------


def drawing(d_model: int = 192, bottleneck: int = 16) -> None:
    """À gauche, un bloc de GPT-2 et ses deux adaptateurs ; à droite, un adaptateur, à l'échelle de ses largeurs."""
    fig, (left, right) = canvas(10.0, 5.4, columns=2)
    for ax in (left, right):
        ax.set_axis_off()
        ax.set_xlim(0, 10)
    left.set_ylim(0, 12.6)
    right.set_ylim(0, 12.6)
    _block(left)
    _zoom(right, d_model, bottleneck)
    show(
        fig,
        alt="À gauche, un bloc de GPT-2, de bas en haut : le flux résiduel monte ; une première branche, LayerNorm, "
        "attention et sa projection, puis un adaptateur entraîné, rejoint le flux par une addition ; une seconde, "
        "LayerNorm, MLP, puis un adaptateur entraîné, le rejoint plus haut. Tout le reste est gelé. À droite, "
        f"l'adaptateur : {d_model} composantes descendent à {bottleneck} (down), passent par une GELU, remontent à "
        f"{d_model} (up, nulle au départ) et s'ajoutent à l'entrée, qui passe aussi tout droit.",
    )


def _box(ax: Any, x: float, y: float, text: str, frozen: bool, width: float = 3.4) -> None:
    from matplotlib.patches import FancyBboxPatch

    color, hatch = ("#EDEDED", "") if frozen else (ORANGE, "//")
    patch = FancyBboxPatch(
        (x - width / 2, y - 0.42), width, 0.84, boxstyle="round,pad=0.05", facecolor=color, hatch=hatch,
        edgecolor=BLACK, linewidth=1.0 if frozen else 2.0,
    )  # fmt: skip
    ax.add_patch(patch)
    box = {"facecolor": color, "edgecolor": "none", "pad": 1.5}
    ax.text(x, y, text, ha="center", va="center", fontsize=9.5, bbox=box, fontweight="normal" if frozen else "bold")


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float], width: float = 1.2) -> None:
    ax.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": BLACK, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    )


def _block(ax: Any) -> None:
    stream, branch = 1.6, 6.2
    _arrow(ax, (stream, 0.2), (stream, 12.2), 3.0)
    ax.text(stream - 0.35, 1.0, "flux résiduel", rotation=90, ha="right", va="bottom", fontsize=9)
    for base, parts in ((0.9, ("LayerNorm", "attention, projection")), (6.7, ("LayerNorm", "MLP"))):
        ax.plot([stream, branch], [base, base], color=BLACK, linewidth=1.2)
        _arrow(ax, (branch, base), (branch, base + 0.5))
        for i, part in enumerate((*parts, "adaptateur")):
            _box(ax, branch, base + 1.0 + 1.35 * i, part, frozen=i < 2)
            _arrow(ax, (branch, base + 1.47 + 1.35 * i), (branch, base + 1.88 + 1.35 * i))
        top = base + 1.88 + 1.35 * 2
        _arrow(ax, (branch, top), (stream + 0.35, top))
        ax.text(
            stream,
            top,
            "+",
            ha="center",
            va="center",
            fontsize=13,
            bbox={"boxstyle": "circle", "facecolor": "white", "edgecolor": BLACK},
        )
    ax.set_title("Un bloc : gris, gelé ; hachuré, entraîné", fontsize=10)


def _zoom(ax: Any, d_model: int, bottleneck: int) -> None:
    from matplotlib.patches import Polygon

    middle, wide = 6.0, 3.4
    low = max(0.35, wide * bottleneck / d_model)
    down = [(middle - wide / 2, 2.2), (middle + wide / 2, 2.2), (middle + low / 2, 4.8), (middle - low / 2, 4.8)]
    up = [(middle - low / 2, 7.0), (middle + low / 2, 7.0), (middle + wide / 2, 9.6), (middle - wide / 2, 9.6)]
    for points, color, hatch, text, y in (
        (down, SKY, "..", "down\nd → m", 3.1), (up, GREEN, "//", "up\nm → d", 9.0),
    ):  # fmt: skip
        ax.add_patch(Polygon(points, facecolor=color, hatch=hatch, edgecolor=BLACK))
        ax.text(
            middle,
            y,
            text,
            ha="center",
            va="center",
            fontsize=9.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.9},
        )
    _box(ax, middle, 5.9, "GELU", frozen=True, width=1.8)
    _arrow(ax, (middle, 4.8), (middle, 5.42))
    _arrow(ax, (middle, 6.37), (middle, 7.0))
    _arrow(ax, (middle, 0.6), (middle, 2.2), 2.0)
    _arrow(ax, (middle, 9.6), (middle, 11.0), 2.0)
    ax.plot([middle, 1.6, 1.6], [1.2, 1.2, 11.3], color=BLUE, linewidth=2.5)
    _arrow(ax, (1.6, 11.3), (middle - 0.4, 11.3), 2.0)
    ax.text(
        middle,
        11.3,
        "+",
        ha="center",
        va="center",
        fontsize=13,
        bbox={"boxstyle": "circle", "facecolor": "white", "edgecolor": BLACK},
    )
    _arrow(ax, (middle, 11.75), (middle, 12.5), 2.0)
    ax.text(1.4, 6.0, "l'entrée passe tout droit", rotation=90, ha="right", va="center", fontsize=9)
    ax.text(middle + wide / 2 + 0.15, 2.2, f"d = {d_model}", fontsize=9, va="center")
    ax.text(middle + wide / 2 + 0.15, 9.6, f"d = {d_model}", fontsize=9, va="center")
    ax.text(middle + 1.0, 8.2, "nulle au départ", fontsize=9, va="center")
    ax.text(middle + 1.1, 5.9, f"m = {bottleneck}", fontsize=9, va="center")
    ax.set_title("Un adaptateur, à l'échelle", fontsize=10)


# --- Trois départs --------------------------------------------------------------------------------------------------


@recorded("ch7/three_starts", needs=("adapter",))
def three_starts(
    model: GPT2LMHeadModel, adapter: Callable[[int, int], nn.Module], bottleneck: int = 16, steps: int = 10
) -> None:
    """Un adaptateur après un MLP de Colibri, parti de trois façons : perte, gradients, perte après quelques pas."""
    ids = next(windows(corpus_tokens("b_train", 8192), 4, 64))
    starts: dict[str, Callable[[nn.Module], None]] = {
        "remontée nulle (le vôtre)": lambda m: None,
        "les deux nulles": _zero_all,
        "les deux au hasard": _random_up,
    }
    rows = []
    with torch.no_grad():
        plain = lm_loss(model, ids).item()
    for name, prepare in starts.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = adapter(model.config.n_embd, bottleneck).to(home(model))
            prepare(module)
        rows.append((name, *_try_start(model, module, ids, steps)))
    table(
        [[name, number(loss, 5), *(number(g, 3) for g in grads), number(end, 5)] for name, loss, grads, end in rows],
        header=[
            "départ",
            "perte au départ",
            "‖∇down‖",
            "‖∇up‖",
            f"‖∇down‖ après {steps} pas",
            f"perte après {steps} pas",
        ],
        caption=f"Un adaptateur (m = {bottleneck}) au milieu de Colibri, sur un lot de B ; sans lui, perte "
        f"{number(plain, 5)}",
    )


def _zero_all(module: nn.Module) -> None:
    for p in module.parameters():
        nn.init.zeros_(p)


def _random_up(module: nn.Module) -> None:
    nn.init.normal_(module.get_parameter("up.weight"), std=module.get_parameter("down.weight").std().item())


def _try_start(
    model: GPT2LMHeadModel, module: nn.Module, ids: torch.Tensor, steps: int
) -> tuple[float, tuple[float, ...], float]:
    frozen = copy.deepcopy(model).requires_grad_(False)
    blocks(frozen)[len(frozen.transformer.h) // 2].mlp.register_forward_hook(lambda _m, _x, out: module(out))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    losses, norms = [], []
    for _ in range(steps + 1):
        optimizer.zero_grad()
        loss = lm_loss(frozen, ids)
        loss.backward()
        losses.append(loss.item())
        weights = module.get_parameter("down.weight"), module.get_parameter("up.weight")
        norms.append([0.0 if p.grad is None else p.grad.norm().item() for p in weights])
        optimizer.step()
    return losses[0], (*norms[0], norms[-1][0]), losses[-1]


# --- Combien de paramètres ? ----------------------------------------------------------------------------------------


@recorded("ch7/count_table", needs=("count",))
def count_table(model: GPT2LMHeadModel, count: Any) -> None:
    """Paramètres ajoutés et leur part, de Colibri à BERT-large, avec la formule de l'étudiant."""
    c = model.config
    cases = [("Colibri", c.n_layer, c.n_embd, model.num_parameters(), m) for m in (4, 16, 64)]
    for name, (layers, d, _) in GPT2_SIZES.items():
        cases.append((f"GPT-2 {name}", layers, d, shape_only(layers, d).num_parameters(), 64))
    layers, d, total = BERT_LARGE
    cases += [("BERT-large", layers, d, total, m) for m in (8, 64, 256)]
    rows = []
    for name, layers, d, total, m in cases:
        n = count(d, m, layers)
        rows.append([name, d, m, n, percent(n / total), number(2 * n / 1e6, 3)])
    table(
        rows,
        header=[
            "modèle",
            "d",
            "goulot m",
            "paramètres ajoutés (votre formule)",
            "part du modèle",
            "Mo par voix, en FP16",
        ],
        caption="Deux adaptateurs par bloc",
    )
    shown = percent(count(1024, 64, 24) / BERT_LARGE[2])
    note(
        f"Pour BERT-large et m = 64, l'article imprime 2,1 % ; votre compte donne {shown}. L'article entraîne "
        "aussi les "
        "LayerNorm (0,03 % de plus) et la tête de chaque tâche ; nous n'expliquons pas le reste."
    )
