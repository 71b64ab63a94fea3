"""Chapitre 1, deuxième partie : les cartes d'attention, ce que regardent les têtes, ce qu'il en coûte de les taire."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from torch import Tensor

from atelier.display import note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.common.controls import Slider, explore
from atelier.figures.common.style import SERIES, canvas, french
from atelier.text import number, percent


def plot_frozen_softmax(found: Mapping[tuple[str, int], float]) -> None:
    """Le plus grand poids d'une requête selon la largeur de la tête. found : (façon, largeur) → poids moyen."""
    names, widths = list(dict.fromkeys(n for n, _ in found)), sorted({w for _, w in found})
    fig, ax = canvas(7.0, 3.2)
    for name, look in zip(names, SERIES, strict=False):
        ax.plot(widths, [100 * found[name, w] for w in widths], label=name, lw=1.7, **look)
    ax.set_xscale("log", base=2)
    ax.set_xticks(widths, [number(w) for w in widths])
    ax.set_xlabel("composantes par tête, D (échelle logarithmique)")
    ax.set_ylabel("plus grand poids (%)")
    ax.set_ylim(0, 100)
    french(ax, x=False)
    ax.legend(frameon=False, fontsize=9)
    told = " ; ".join(
        f"{name} : " + ", ".join(f"{percent(found[name, w], decimals=0)} pour {w}" for w in widths) for name in names
    )
    show(fig, alt=f"Le plus grand poids d'attention d'une requête, parmi 32 clés, selon la largeur de la tête. {told}.")


def own_table(found: Mapping[str, float]) -> None:
    """L'écart du GPT-2 du lecteur à celui de la bibliothèque. found : où → plus grand écart relatif."""
    gaps = {name: gap for name, gap in found.items() if name != "même jeton préféré"}
    rows = [[name, f"{number(gap, 2)}"] for name, gap in gaps.items()]
    table(
        rows,
        header=["votre GPT-2, à la sortie", "plus grand écart / plus grande valeur"],
        caption="Votre attention dans chaque bloc, contre la bibliothèque",
    )
    note(
        f"Le jeton préféré est le même à {percent(found['même jeton préféré'], decimals=2)} des positions ; le plus "
        f"grand écart est {'sous' if max(gaps.values()) < 1e-5 else 'AU-DESSUS de'} un cent millième."
    )


# --- Les cartes -------------------------------------------------------------------------------------------------------


def attention_map(weights: Tensor, names: Sequence[str], layer: int = 0, head: int = 0) -> None:
    """Qui regarde qui, dans une tête d'un bloc. weights : (blocs, H, T, T) ; bloc et tête se règlent au curseur."""

    def draw(layer: int, head: int) -> tuple[Any, str]:
        return _map(weights[layer, head], names, layer, head)

    explore(
        draw,
        layer=Slider(layer, 0, weights.shape[0] - 1, 1, "bloc"),
        head=Slider(head, 0, weights.shape[1] - 1, 1, "tête"),
    )


def _map(weights: Tensor, names: Sequence[str], layer: int, head: int) -> tuple[Any, str]:
    from matplotlib.patches import Polygon

    n = len(names)
    size = min(0.42 * n + 2.2, 9.0)
    fig, ax = canvas(size, size * 0.86)
    ax.grid(False)
    image = ax.imshow(100 * weights, cmap="Blues", vmin=0, vmax=100)
    stairs = [(-0.5, -0.5), *((j + 0.5, i + 0.5 + k) for j, i in zip(range(n), range(n), strict=True) for k in (-1, 0))]
    future = [*stairs, (n - 0.5, -0.5)]
    ax.add_patch(Polygon(future, facecolor="#EEEEEE", edgecolor="#999999", hatch="////", lw=0.6))
    ax.set_xticks(range(n), names, rotation=60, ha="right", rotation_mode="anchor", family="monospace", fontsize=8.5)
    ax.set_yticks(range(n), names, family="monospace", fontsize=8.5)
    ax.set_xlabel("jeton regardé (sa clé)")
    ax.set_ylabel("jeton qui regarde (sa requête)")
    ax.set_title(f"bloc {layer}, tête {head} (hachuré : le futur, interdit)", fontsize=11)
    for i in range(n if n <= 20 else 0):
        for j in range(i + 1):
            p = 100 * weights[i, j].item()
            if p >= 5:
                color = "white" if p > 55 else "black"
                ax.text(j, i, number(p, decimals=0), ha="center", va="center", fontsize=7, color=color)
    fig.colorbar(image, ax=ax, label="poids (%)", shrink=0.75)
    strongest = weights[-1].topk(min(3, n))
    told = ", ".join(
        f"« {names[j]} » {percent(v, decimals=0)}"
        for j, v in zip(strongest.indices.tolist(), strongest.values.tolist(), strict=True)
    )
    alt = (
        f"Carte d'attention du bloc {layer}, tête {head} : une ligne par jeton qui regarde, une colonne par jeton "
        f"regardé ; au-dessus de la diagonale, le futur, hachuré. Le dernier jeton regarde surtout {told}. En moyenne, "
        f"{percent(weights.diagonal().mean().item(), decimals=0)} du poids va au jeton lui-même, "
        f"{percent(weights.diagonal(-1).mean().item(), decimals=0)} au précédent et "
        f"{percent(weights[1:, 0].mean().item(), decimals=0)} au premier."
    )
    return fig, alt


# --- Ce que font les têtes --------------------------------------------------------------------------------------------


def plot_habits(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Six grilles, une case par tête. found : genre de jetons → « têtes » (blocs, H) et « hasard », des parts."""
    shares = {kind: entry["têtes"] for kind, entry in found.items()}
    layers, heads = next(iter(shares.values())).shape
    top = 100 * max(share.max().item() for share in shares.values())
    fig, axes = canvas(9.4, 1.7 + 0.62 * layers, rows=2, columns=3)
    for ax, (kind, share) in zip(axes.flat, shares.items(), strict=True):
        ax.grid(False)
        image = ax.imshow(100 * share, cmap="Blues", vmin=0, vmax=top, aspect="auto")
        for i in range(layers):
            for j in range(heads):
                p = 100 * share[i, j].item()
                color = "white" if p > 0.55 * top else "black"
                ax.text(j, i, number(p, decimals=0), ha="center", va="center", fontsize=7.5, color=color)
        ax.set_title(f"{kind}\n(au hasard : {percent(found[kind]['hasard'], decimals=1)})", fontsize=8.5)
        ax.set_xticks(range(heads))
        ax.set_yticks(range(layers))
    for ax in axes[1]:
        ax.set_xlabel("tête", fontsize=8.5)
    for ax in axes[:, 0]:
        ax.set_ylabel("bloc", fontsize=8.5)
    fig.colorbar(image, ax=axes, label="part de l'attention (%)", shrink=0.7)
    told = " ; ".join(
        f"{kind} : au plus {percent(share.max().item(), decimals=0)} (bloc {int(share.argmax()) // heads}, tête "
        f"{int(share.argmax()) % heads}), en moyenne {percent(share.mean().item(), decimals=1)}, au hasard "
        f"{percent(found[kind]['hasard'], decimals=1)}"
        for kind, share in shares.items()
    )
    show(fig, alt=f"Six grilles, une case par tête, qui donnent en % la part d'attention portée à… {told}.")


def silence_table(habits: Mapping[str, Mapping[str, Any]], found: Mapping[Any, Any]) -> float:
    """Ce que coûte chaque tête typée, à côté de toutes les autres. Rend le pire coût, en pour cent de perplexité.

    habits : ce que reçoit `plot_habits` ; found : « entier » ou (façon de taire, bloc, tête) → pertes part à part ;
    « jetons », la longueur de l'extrait.
    """
    whole = found["entier"]
    silent = {key: losses for key, losses in found.items() if isinstance(key, tuple)}
    kinds = list(dict.fromkeys(kind for kind, _, _ in silent))
    costs = {key: 100 * math.expm1(paired(losses, whole).mean) for key, losses in silent.items()}
    ranked = {kind: sorted((c for key, c in costs.items() if key[0] == kind), reverse=True) for kind in kinds}
    rows = []
    for what, entry in habits.items():
        block, head = divmod(int(entry["têtes"].argmax()), entry["têtes"].shape[1])
        share = entry["têtes"][block, head].item()
        row = [what, f"bloc {block}, tête {head}", percent(share, decimals=0)]
        row.append(number(share / entry["hasard"], decimals=1, before="×"))
        for kind in kinds:
            row.append(number(costs[kind, block, head], decimals=1, unit="%", signed=True))
        rank = ranked[kinds[0]].index(costs[kinds[0], block, head]) + 1
        row.append(f"{rank}{'re' if rank == 1 else 'e'} sur {len(ranked[kinds[0]])}")
        rows.append(row)
    table(
        rows,
        header=["ce qui est regardé", "la tête qui le regarde le plus", "part", "part / hasard"]
        + [f"sans elle ({k})" for k in kinds]
        + ["rang"],
        caption=f"Hausse de la perplexité ({number(perplexity_of(whole), decimals=2)} pour le modèle entier, "
        f"{number(found['jetons'])} jetons de l'extrait) quand une tête est remplacée par sa moyenne ou par zéro",
    )
    for kind in kinds:
        values = ranked[kind]
        note(
            f"Témoin ({kind}), toutes les têtes, une à une : hausse moyenne "
            f"{number(mean(values), decimals=1, unit='%', signed=True)}, médiane "
            f"{number(values[len(values) // 2], decimals=1, unit='%', signed=True)}, la pire "
            f"{number(values[0], decimals=1, unit='%', signed=True)}."
        )
    return ranked[kinds[0]][0]
