"""Chapitre 2, troisième partie : un budget de calcul, et comment d'autres l'ont partagé entre taille et texte."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from atelier.display import note, recorded, show, table
from atelier.figures.ch2.counts import flops_text, short
from atelier.figures.ch2.time import colibri_journal
from atelier.figures.common.controls import Slider, explore
from atelier.figures.common.style import BLACK, BLUE, GREEN, RED, SERIES, canvas
from atelier.text import NBSP, number


@dataclass(frozen=True)
class Known:
    """Un modèle connu : paramètres, jetons lus, source ; place de son nom sur la carte (points typographiques)."""

    params: float
    tokens: float
    source: str
    place: tuple[float, float] = (6, -3)


KNOWN = {
    "GPT-3": Known(175e9, 300e9, "Brown et al., 2020, tableau 2.1", (-38, -8)),
    "Gopher": Known(280e9, 300e9, "Hoffmann et al., 2022, tableau 1", (7, -3)),
    "PaLM": Known(540e9, 780e9, "Chowdhery et al., 2022, § 3 et tableau 1"),
    "Chinchilla": Known(70e9, 1.4e12, "Hoffmann et al., 2022, tableau 1", (8, -5)),
    "LLaMA 7B": Known(6.7e9, 1.0e12, "Touvron et al., 2023, tableau 2", (-52, -10)),
    "LLaMA 65B": Known(65.2e9, 1.4e12, "Touvron et al., 2023, tableau 2", (-58, 3)),
    "Llama 3 8B": Known(8.0e9, 15e12, "Meta, avril 2024", (-26, -14)),
    "Llama 3 70B": Known(70e9, 15e12, "Meta, avril 2024", (-30, 8)),
    "Llama 3.1 405B": Known(405e9, 15.6e12, "Grattafiori et al., 2024, § 1", (-30, 8)),
}
"""Modèles denses dont le nombre de jetons est publié."""

GPT2_XL = (1_557_611_200, 9.0e9)
"""Paramètres de GPT-2 XL ; jetons d'un passage sur OpenWebText, la copie publique de son texte (nanoGPT). Le nombre de
passages n'est pas publié."""

RULE = 20.0
"""Jetons par paramètre : Hoffmann et al., 2022, tableau 3."""


def _ratio(known: Known) -> str:
    """Jetons par paramètre."""
    return number(known.tokens / known.params, 3)


def _with_colibri() -> dict[str, Known]:
    recipe, _ = colibri_journal()
    ours = Known(recipe["parametres"], recipe["jetons"], "assets/colibri/recette.json", (8, -4))
    return {"Colibri": ours} | KNOWN


def _budget_map(tokens: Any, budget: float) -> tuple[Any, str]:
    fig, ax = canvas(8.8, 5.2)
    low, high = 1e6, 1e13
    ax.plot([low, high], [RULE * low, RULE * high], color=GREEN, ls="-.", lw=1.6, label="20 jetons par paramètre")
    sizes = [low * (high / low) ** (i / 60) for i in range(61)]
    ax.plot(sizes, [tokens(budget, round(n)) for n in sizes], color=RED, lw=2, label=f"6ND = {flops_text(budget)}")
    for power in range(15, 28, 2):
        ax.plot([low, high], [10.0**power / 6 / low, 10.0**power / 6 / high], color="#999999", lw=0.6, ls=":")
        where = (1.4e6, 10.0**power / 6 / 1.4e6) if power <= 21 else (10.0**power / 6 / 3.2e13, 3.2e13)
        ax.text(*where, f"$10^{{{power}}}$", fontsize=8, color="#555555", rotation=-38, ha="center", va="center")
    for name, known in _with_colibri().items():
        ax.plot([known.params], [known.tokens], "o", color=BLUE, ms=6)
        ax.annotate(name, (known.params, known.tokens), xytext=known.place, textcoords="offset points", fontsize=8.5)
    ax.annotate(
        "", (GPT2_XL[0], 10 * GPT2_XL[1]), (GPT2_XL[0], GPT2_XL[1]),
        arrowprops={"arrowstyle": "->", "color": BLUE, "lw": 1.4},
    )  # fmt: skip
    ax.plot([GPT2_XL[0]], [GPT2_XL[1]], "o", mfc="white", mec=BLUE, ms=6)
    ax.annotate("GPT-2 XL, un passage au moins", GPT2_XL, xytext=(8, -4), textcoords="offset points", fontsize=8.5)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(1e7, 1e14)
    ax.set_xlabel("N, paramètres (échelle logarithmique)")
    ax.set_ylabel("D, jetons (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=9, loc="lower right")
    told = f"{NBSP}; ".join(
        f"{name} {short(k.params)} de paramètres, {short(k.tokens)} de jetons, soit {_ratio(k)} par paramètre"
        for name, k in _with_colibri().items()
    )
    alt = (
        f"Carte des apprentissages, taille en abscisse et jetons en ordonnée. La droite du budget de "
        f"{flops_text(budget)} "
        f"passe par {short(float(tokens(budget, 10**9)))} de jetons pour un milliard de paramètres. {told}."
    )
    return fig, alt


@recorded("ch2/budget_map", needs=("tokens",))
def budget_map(tokens: Any, budget: float = 3.14e23) -> None:
    """La droite d'un budget dans le plan taille-texte, et les modèles connus ; un curseur quand la page est vivante."""

    def draw(power: float) -> tuple[Any, str]:
        return _budget_map(tokens, 10.0**power)

    explore(draw, power=Slider(round(math.log10(budget), 1), 14.0, 27.0, 0.1, "budget : 10 puissance"))
    table(
        [
            [name, short(k.params), short(k.tokens), _ratio(k), flops_text(6 * k.params * k.tokens), k.source]
            for name, k in _with_colibri().items()
        ],
        header=["modèle", "N", "D, jetons", "D / N", "6ND", "source"],
        caption="Ce qu'ils ont choisi",
    )  # fmt: skip


@recorded("ch2/optimal_table", needs=("optimal",))
def optimal_table(optimal: Any) -> None:
    """Ce que la règle de Chinchilla aurait fait du budget de quelques modèles."""
    known = _with_colibri()
    rows = []
    for name in ("Colibri", "GPT-3", "Gopher", "Chinchilla", "Llama 3 8B", "Llama 3.1 405B"):
        k = known[name]
        compute = 6 * k.params * k.tokens
        n_params, tokens = optimal(compute)
        rows.append(
            [name, flops_text(compute), short(k.params), short(k.tokens), short(n_params), short(tokens),
             number(n_params / k.params, 2, before="×")]
        )  # fmt: skip
    table(
        rows,
        header=["budget de", "6ND", "N choisi", "D choisi", "N de la règle", "D de la règle", "N règle / N choisi"],
        caption="Le même budget, à 20 jetons par paramètre",
    )


# --- Toute une vie ---------------------------------------------------------------------------------------------------

E, A, ALPHA, B, BETA = 1.8172, 482.01, 0.3478, 2085.43, 0.3658
"""L(N, D) = E + A/N^α + B/D^β : Besiroglu et al., 2024, tableau 1."""


def _loss(n_params: float, tokens: float) -> float:
    return E + A / n_params**ALPHA + B / tokens**BETA


def _tokens_for_loss(n_params: float, loss: float) -> float:
    """Les jetons qu'il faut à cette taille pour atteindre cette perte ; inf si elle n'y arrive jamais."""
    room = loss - E - A / n_params**ALPHA
    return (B / room) ** (1 / BETA) if room > 0 else math.inf


def lifetime_cost(
    served: tuple[float, ...] = (0.0, 1e12, 1e13), reference: tuple[float, float] = (13e9, 260e9)
) -> None:
    """Le coût d'une vie (apprentissage et service) selon la taille, à perte égale.

    served : jetons servis ; reference : taille et jetons du modèle dont on veut la perte. D'après la loi de Chinchilla.
    """
    loss = _loss(*reference)
    sizes = [1e9 * 1.012**i for i in range(400)]
    fig, ax = canvas(8.4, 3.8)
    rows, told = [], []
    for amount, look in zip(served, SERIES, strict=False):
        points = [(n, _tokens_for_loss(n, loss)) for n in sizes]
        costs = [(n, d, 6 * n * d + 2 * n * amount) for n, d in points if d < 1e14]
        best = min(costs, key=lambda point: point[2])
        name = f"{number(round(amount / 1e9))} milliards de jetons servis" if amount else "rien à servir"
        ax.plot([c[0] for c in costs], [c[2] for c in costs], lw=1.8, label=name, **(look | {"marker": ""}))
        ax.plot([best[0]], [best[2]], marker=look["marker"], color=look["color"], ms=9, mec=BLACK)
        rows.append([name, short(best[0]), short(best[1]), number(best[1] / best[0], 3), flops_text(best[2])])
        told.append(f"{name}{NBSP}: creux à {number(best[0] / 1e9, 3)} milliards de paramètres")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(1e22, 3e24)
    ticks = (2, 5, 10, 20, 50, 100)
    ax.set_xticks([n * 1e9 for n in ticks], [f"{n}{NBSP}Md" for n in ticks])
    ax.minorticks_off()
    ax.set_xlabel("N, paramètres (échelle logarithmique)")
    ax.set_ylabel("FLOP d'une vie")
    ax.legend(frameon=False, fontsize=9)
    show(
        fig,
        alt=f"Coût d'une vie selon la taille, à perte égale ({number(loss, 3)} nats). {f'{NBSP}; '.join(told)}.",
    )
    table(
        rows,
        header=["usage prévu", "N", "D, jetons", "D / N", "FLOP d'une vie"],
        caption=f"Le moins cher, à la perte d'un modèle de {number(reference[0] / 1e9, 3)} milliards de paramètres et "
        f"{number(reference[1] / 1e9, 3)} milliards de jetons, selon L(N, D)",
    )
    note(
        "Constantes de Besiroglu et al. (2024), tirées d'autres textes et d'autres recettes que les nôtres"
        f"{NBSP}: à lire pour le sens des flèches, pas pour les décimales."
    )
