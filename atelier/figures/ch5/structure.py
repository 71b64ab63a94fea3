"""Chapitre 5, quatrième partie : retirer des blocs, des neurones, des têtes ; ce qui rétrécit pour de bon."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

import torch

from atelier.display import note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.ch5.importance import log_axis
from atelier.figures.common.style import BLACK, BLUE, ORANGE, canvas, french
from atelier.text import number

Measured = Mapping[str, Any]


def cheapest(measured: Measured) -> int:
    """Le numéro du bloc sans lequel la perplexité est la plus basse."""
    found = {number: losses for number, losses in measured["pertes"].items() if number != "entier"}
    return min(found, key=lambda number: perplexity_of(found[number]))


def plot_influences(measured: Measured) -> None:
    """Influence de chaque bloc, et perplexité sans lui. « influence » : une par bloc ; « pertes » : bloc → pertes."""
    turned, found = measured["influence"], measured["pertes"]
    whole = perplexity_of(found["entier"])
    without = [perplexity_of(found[b]) for b in range(len(turned))]
    fig, axes = canvas(9, 3.4, columns=2)
    axes[0].bar(range(len(turned)), turned, color=BLUE)
    axes[0].set_ylabel("influence (1 − cosinus moyen)")
    axes[1].plot(range(len(turned)), without, "s", color=ORANGE, ms=9)
    axes[1].axhline(whole, color=BLACK, lw=1, ls=":")
    axes[1].text(len(turned) - 1, whole, "Colibri entier", va="bottom", ha="right", fontsize=9)
    log_axis(axes[1], whole, max(without))
    axes[1].set_ylabel("perplexité sans ce bloc (éch. log.)")
    for ax in axes:
        ax.set_xticks(range(len(turned)), [f"bloc {b}" for b in range(len(turned))])
        ax.grid(axis="x", visible=False)
    french(axes[0], x=False)
    for b, value in enumerate(turned):
        axes[0].text(b, value, number(value, decimals=3), ha="center", va="bottom", fontsize=9)
    for b, value in enumerate(without):
        axes[1].annotate(number(value, 3), (b, value), (0, 8), textcoords="offset points", ha="center", fontsize=9)
    show(
        fig,
        alt="À gauche, l'influence de chaque bloc ; à droite, la perplexité de Colibri sans lui. "
        + " ; ".join(
            f"bloc {b} : {number(t, 3)} et {number(p, 4)}" for b, (t, p) in enumerate(zip(turned, without, strict=True))
        )
        + f". Colibri entier : {number(whole, 4)}.",
    )
    note(f"Perplexité sur {number(measured['jetons'])} jetons.")


def plot_head_costs(costs: Mapping[tuple[int, int], float]) -> None:
    """Hausse de la perte quand une tête se tait, seule : une carte. costs : (bloc, tête) → nats."""
    blocks, heads = (1 + max(key[axis] for key in costs) for axis in (0, 1))
    data = torch.tensor([[costs[b, h] for h in range(heads)] for b in range(blocks)])
    fig, ax = canvas(7.2, 3.4)
    image = ax.imshow(data, cmap="cividis_r", aspect="auto")
    dark = data.min() + 0.55 * (data.max() - data.min())
    for b in range(blocks):
        for h in range(heads):
            color = "white" if data[b, h] > dark else BLACK
            told = number(data[b, h].item(), decimals=3)
            ax.text(h, b, told, ha="center", va="center", fontsize=9.5, color=color)
    bar = fig.colorbar(image, ax=ax)
    french(bar.ax, x=False)
    ax.set_xticks(range(heads), [f"tête {h}" for h in range(heads)], fontsize=9.5)
    ax.set_yticks(range(blocks), [f"bloc {b}" for b in range(blocks)], fontsize=9.5)
    ax.set_title("Hausse de la perte quand cette tête se tait (nats par jeton)", fontsize=10.5)
    ax.grid(False)
    low, high = min(costs, key=costs.__getitem__), max(costs, key=costs.__getitem__)
    show(
        fig,
        alt=f"Carte bloc par tête. La moins utile : bloc {low[0]}, tête {low[1]}, {number(costs[low], 2)} nat ; la "
        f"plus utile : bloc {high[0]}, tête {high[1]}, {number(costs[high], 3)} nat.",
    )
    small = sum(cost < 0.02 for cost in costs.values())
    note(f"{number(small)} têtes sur {number(len(costs))} coûtent moins de 0,02 nat, soit 2 % de perplexité, seules.")


def heads_table(measured: Measured) -> None:
    """Colibri sans ses têtes les moins coûteuses. « têtes » : nombre → paramètres, écart, ajoutés, pertes."""
    found = measured["têtes"]
    whole = found[min(found)]["pertes"]
    table(
        [
            [
                count,
                row["paramètres"],
                number(row["écart"], 2),
                number(perplexity_of(row["pertes"]), 4),
                "—" if row["pertes"] is whole else paired(row["pertes"], whole).as_ratio(),
                number(perplexity_of(whole) * exp(row["ajoutés"]), 4),
            ]
            for count, row in found.items()
        ],
        header=[
            "têtes retirées",
            "paramètres",
            "écart aux logits des mêmes têtes muettes",
            "perplexité",
            "rapport [intervalle]",
            "si les coûts s'ajoutaient",
        ],
        caption=f"Colibri, ses têtes les moins coûteuses d'abord ({number(measured['jetons'])} jetons)",
    )


def reload_table(found: Mapping[str, Mapping[str, str]]) -> None:
    """Ce qui revient de chaque modèle aminci. found : version → « tel quel », « forcé » → ce qui revient."""
    table(
        [[name, row["tel quel"], row["forcé"]] for name, row in found.items()],
        header=["retiré", "from_pretrained", "… ignore_mismatched_sizes=True"],
        caption="Écrits par save_pretrained, puis relus",
    )
