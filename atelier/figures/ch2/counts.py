"""Chapitre 2, première partie : compter les opérations d'un passage avant et d'un passage arrière, terme à terme."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from atelier.display import note, recorded, show, table
from atelier.figures.common.controls import Pick, Slider, explore
from atelier.figures.common.sizes import GPT3, shape_only
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SERIES, canvas, french, stacked_shares
from atelier.hardware import home
from atelier.models import GPT2_SIZES
from atelier.text import NBSP, number, percent, scaled

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

TERMS = {
    "Q, K, V et sortie": (BLUE, ""),
    "scores et mélange": (ORANGE, "//"),
    "MLP": (GREEN, ".."),
    "tête": (PURPLE, "xx"),
}
"""Les quatre postes d'un passage avant : couleur et hachures."""

Shape = tuple[int, int, int, int]
"""Blocs, dimension, contexte, vocabulaire."""


# --- Le compteur -----------------------------------------------------------------------------------------------------


@contextmanager
def _counting() -> Iterator[Any]:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        yield counter


def _window(model: GPT2LMHeadModel, n_tokens: int) -> dict[str, Any]:
    """Une fenêtre à lire, masque compris : il est donné tout fait, pour qu'un modèle sans nombres (appareil « meta »)
    puisse aussi être compté."""
    where = home(model)
    return {
        "input_ids": torch.zeros(1, n_tokens, dtype=torch.long, device=where),
        "attention_mask": torch.zeros(1, 1, n_tokens, n_tokens, device=where),
        "use_cache": False,
    }


def count_flops(model: GPT2LMHeadModel, n_tokens: int) -> tuple[int, int]:
    """Opérations d'une fenêtre de n_tokens jetons, comptées par `FlopCounterMode` : passage avant, passage arrière.

    model : GPT-2 à l'attention « eager » (les noyaux d'attention fusionnés sont comptés autrement).
    """
    window = _window(model, n_tokens)
    with _counting() as forward:
        logits = model(**window).logits
    with _counting() as backward:
        logits.sum().backward()
    model.zero_grad(set_to_none=True)
    return forward.get_total_flops(), backward.get_total_flops()


def short(n: float) -> str:
    """« 3,06 M », « 175 Md » : millions et milliards, trois chiffres."""
    return scaled(n, {"Md": 1e9, "M": 1e6})


def shapes(model: GPT2LMHeadModel) -> dict[str, Shape]:
    """Colibri, les quatre GPT-2 et GPT-3."""
    c = model.config
    known = {"Colibri": (c.n_layer, c.n_embd, c.n_positions, c.vocab_size)}
    known |= {f"GPT-2 {name}": (layers, d, 1024, 50257) for name, (layers, d, _) in GPT2_SIZES.items()}
    known["GPT-3"] = (GPT3["n_layer"], GPT3["d_model"], GPT3["n_ctx"], GPT3["n_vocab"])
    return known


def _terms(counter: Any) -> dict[str, int]:
    """Le compte d'un modèle d'un seul bloc, rangé par poste."""
    found = counter.get_flop_counts()

    def of(ending: str) -> int:
        return sum(sum(ops.values()) for name, ops in found.items() if name.endswith(ending))

    return {
        "Q, K, V et sortie": of(".attn.c_attn") + of(".attn.c_proj"),
        "scores et mélange": sum(n for op, n in found["Global"].items() if "bmm" in str(op)),
        "MLP": of(".mlp"),
        "tête": of("lm_head"),
    }


@cache
def terms_per_token(n_layer: int, d_model: int, n_ctx: int, n_vocab: int) -> tuple[dict[str, float], dict[str, float]]:
    """Opérations par jeton de chaque poste, comptées : passage avant, puis passage arrière.

    Un seul bloc est compté, sur l'appareil « meta », puis multiplié : tous se ressemblent.
    """
    model = shape_only(1, d_model, n_vocab, n_ctx)
    window = _window(model, n_ctx)
    with _counting() as forward:
        model(**window)
    with _counting() as both:
        model(**window).logits.sum().backward()
    model.zero_grad(set_to_none=True)
    there, total = _terms(forward), _terms(both)
    times = {term: 1 if term == "tête" else n_layer for term in TERMS}
    return (
        {term: times[term] * there[term] / n_ctx for term in TERMS},
        {term: times[term] * (total[term] - there[term]) / n_ctx for term in TERMS},
    )


# --- Compter un produit, puis un passage avant -----------------------------------------------------------------------


@recorded("ch2/product_counts", needs=("product",))
def product_counts(product: Any) -> None:
    """La formule de l'étudiant contre le compteur, sur quelques produits rencontrés dans un modèle."""
    products = {
        "deux petites matrices": (2, 3, 4),
        "Colibri, entrée du MLP, 256 jetons": (256, 192, 768),
        "Colibri, tête, 256 jetons": (256, 192, 4096),
        "GPT-3, entrée du MLP, 2 048 jetons": (2048, 12288, 49152),
    }
    rows = []
    for name, (m, k, n) in products.items():
        with torch.device("meta"), _counting() as counter:
            torch.zeros(m, k) @ torch.zeros(k, n)
        mine, theirs = product(m, k, n), counter.get_total_flops()
        rows.append([name.replace("2 048", "2\u202f048"), m, k, n, mine, theirs, mine - theirs])
    table(
        rows,
        header=["produit", "m", "k", "n", "votre formule", "FlopCounterMode", "écart"],
        caption="Opérations d'un produit (m × k)·(k × n)",
    )


@recorded("ch2/forward_check", needs=("forward",))
def forward_check(model: GPT2LMHeadModel, forward: Any) -> None:
    """La formule de l'étudiant contre `FlopCounterMode`, fenêtre entière, pour Colibri, les GPT-2 et GPT-3."""
    cases: dict[str, tuple[GPT2LMHeadModel, Shape]] = {}
    for name, (layers, d, n_ctx, vocabulary) in shapes(model).items():
        if name == "Colibri":
            cases |= {f"Colibri, {n} jetons": (model, (layers, d, n, vocabulary)) for n in (n_ctx // 4, n_ctx)}
        else:
            text = f"{name}, {number(n_ctx)} jetons"
            cases[text] = (shape_only(layers, d, vocabulary, n_ctx), (layers, d, n_ctx, vocabulary))
    rows = []
    for name, (counted, (layers, d, n_ctx, vocabulary)) in cases.items():
        with torch.no_grad(), _counting() as counter:
            counted(**_window(counted, n_ctx))
        per_token = forward(layers, d, n_ctx, vocabulary)
        mine, theirs = round(per_token * n_ctx), counter.get_total_flops()
        params = counted.num_parameters()
        rows.append([name, flops_text(per_token), round(per_token / params, 2), mine, theirs, mine - theirs])
    table(
        rows,
        header=[
            "modèle et fenêtre",
            "par jeton",
            "par paramètre",
            "fenêtre, votre formule",
            "FlopCounterMode",
            "écart",
        ],
        caption="Passage avant. MFLOP, GFLOP : million, milliard d'opérations",
    )


def where_flops(model: GPT2LMHeadModel) -> None:
    """La part de chaque poste dans un passage avant : une barre empilée par modèle."""
    known = shapes(model)
    counts = {name: terms_per_token(*shape)[0] for name, shape in known.items()}
    totals = {name: sum(terms.values()) for name, terms in counts.items()}
    labels = [f"{name}\n{flops_text(total)} par jeton" for name, total in totals.items()]
    fig, ax = stacked_shares(counts, TERMS, labels)
    ax.set_xlabel("part des opérations d'un passage avant, contexte plein (%)")
    ax.legend(ncols=4, fontsize=9, frameon=False, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    told = f"{NBSP}; ".join(
        f"{name} ({flops_text(totals[name])} par jeton){NBSP}: "
        + ", ".join(f"{term} {percent(n / totals[name], 3)}" for term, n in terms.items())
        for name, terms in counts.items()
    )
    show(fig, alt=f"Barres empilées, part des opérations d'un passage avant par poste. {told}.")


def flops_text(value: float, unit: str = "FLOP") -> str:
    """« 6,98 MFLOP », « 3,14·10²³ FLOP » ; unit : « FLOP/s » pour une vitesse."""
    if value >= 1e15:
        return number(float(value), unit=unit)
    return scaled(value, {f"T{unit}": 1e12, f"G{unit}": 1e9, f"M{unit}": 1e6, f"k{unit}": 1e3, unit: 1})


def _context_cost(model: GPT2LMHeadModel, context: int, name: str) -> tuple[Any, str]:
    layers, d, _, vocabulary = shapes(model)[name]
    grid = [2**p for p in range(6, 21)]
    attention, rest = [], []
    for n in grid:
        terms, _ = terms_per_token(layers, d, n, vocabulary)
        attention.append(terms["scores et mélange"])
        rest.append(sum(terms.values()) - terms["scores et mélange"])
    at = grid.index(context)
    share = 100 * attention[at] / (attention[at] + rest[at])
    fig, ax = canvas(8.0, 3.6)
    total = [a + b for a, b in zip(attention, rest, strict=True)]
    for label, values, look in (
        ("total", total, SERIES[5] | {"marker": "", "linestyle": ":"}),
        ("couches linéaires et tête", rest, SERIES[0] | {"marker": ""}),
        ("scores et mélange (attention)", attention, SERIES[1] | {"marker": ""}),
    ):
        ax.plot(grid, values, label=label, lw=1.9, **look)
    ax.axvline(context, color=BLACK, lw=1, ls=":")
    ax.plot([context], [total[at]], "o", color=BLACK, ms=7)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ticks = grid[::2]
    ax.set_xticks(ticks, [number(n) for n in ticks], fontsize=8)
    french(ax, x=False)
    ax.set_xlabel("contexte T (jetons, échelle logarithmique)")
    ax.set_ylabel("FLOP par jeton, passage avant")
    ax.set_title(
        f"{name}, contexte de {number(context)} jetons{NBSP}: l'attention fait {number(share, 3, unit='%')} du passage",
        fontsize=10,
    )
    ax.legend(frameon=False, fontsize=9)
    crossing = rest[0] / (attention[0] / grid[0])
    alt = (
        f"Coût par jeton d'un passage avant de {name} selon le contexte. Les couches linéaires et la tête ne "
        f"changent pas "
        f"({flops_text(rest[0])}){NBSP}; l'attention double avec le contexte et les rejoint vers "
        f"{number(round(crossing))} "
        f"jetons. À {number(context)} jetons, elle fait {number(share, 3, unit='%')} de {flops_text(total[at])}."
    )
    return fig, alt


def context_cost(model: GPT2LMHeadModel, context: int = 1024, name: str = "GPT-2 small") -> None:
    """Le coût d'un jeton selon le contexte ; un curseur et un choix de modèle quand la page est vivante.

    context : une puissance de 2, de 64 à 2²⁰.
    """

    def draw(power: int, who: str) -> tuple[Any, str]:
        return _context_cost(model, 2**power, who)

    explore(
        draw,
        power=Slider(context.bit_length() - 1, 6, 20, 1, "contexte : 2 puissance"),
        who=Pick(name, list(shapes(model)), "modèle"),
    )


# --- Le passage arrière ----------------------------------------------------------------------------------------------


def backward_ops(model: GPT2LMHeadModel) -> None:
    """Passage avant et passage arrière de Colibri, poste par poste, et leur rapport."""
    forward, backward = terms_per_token(*shapes(model)["Colibri"])
    lines = [(term, forward[term], backward[term]) for term in TERMS]
    lines.append(("total", sum(forward.values()), sum(backward.values())))
    table(
        [[term, round(there), round(back), number(back / there, 6)] for term, there, back in lines],
        header=["poste", "avant, FLOP par jeton", "arrière, FLOP par jeton", "arrière / avant"],
        caption=f"Colibri, fenêtre de {model.config.n_positions} jetons, compté par FlopCounterMode",
    )


def backward_cases(n_tokens: int = 64, width: int = 32) -> None:
    """Trois couches linéaires l'une sur l'autre : les produits du retour, selon ce qui doit apprendre."""
    cases = {
        "tout apprend, et il y a encore des couches en dessous": ((True, True, True), True),
        "tout apprend, l'entrée est une donnée": ((True, True, True), False),
        "seule la couche du bas apprend": ((True, False, False), False),
        "seule la couche du haut apprend": ((False, False, True), False),
        "rien n'apprend ici, mais une couche en dessous": ((False, False, False), True),
    }
    rows = []
    for name, (learns, below) in cases.items():
        with torch.device("meta"):
            layers = [torch.nn.Linear(width, width, bias=False).requires_grad_(wanted) for wanted in learns]
            x = torch.zeros(n_tokens, width, requires_grad=below)
        y = x
        with _counting() as forward:
            for layer in layers:
                y = layer(y)
        with _counting() as backward:
            y.sum().backward()
        one = forward.get_total_flops() / 3
        there, back = forward.get_total_flops(), backward.get_total_flops()
        rows.append([name, round(there / one), round(back / one), number(back / there, 3)])
    table(
        rows,
        header=["trois couches linéaires", "produits en avant", "produits en arrière", "arrière / avant"],
        caption="Compté par FlopCounterMode ; tous ces produits ont le même prix",
    )


# --- Les conventions -------------------------------------------------------------------------------------------------

CONVENTIONS = {
    "6N, tous les paramètres": "6·N",
    "6N, hors table et positions": "6·N′",
    "… plus l'attention de Kaplan": "6·N′ + 6·L·d·T",
    "6N sans positions, plus l'attention de PaLM": "6·N″ + 12·L·d·T",
}
"""Ce que valent, par jeton d'apprentissage, les conventions comparées : nom → formule."""


def _by_convention(params: GPT2LMHeadModel, shape: Shape) -> list[float]:
    layers, d, n_ctx, _ = shape
    everything = params.num_parameters()
    positions = params.transformer.wpe.weight.numel()
    blocks = everything - positions - params.transformer.wte.weight.numel()
    return [
        6 * everything,
        6 * blocks,
        6 * blocks + 6 * layers * d * n_ctx,
        6 * (everything - positions) + 12 * layers * d * n_ctx,
    ]


@recorded("ch2/conventions", needs=("forward",))
def conventions(model: GPT2LMHeadModel, forward: Any) -> None:
    """L'écart de quatre conventions au compte exact (trois fois le passage avant de l'étudiant)."""
    rows = []
    errors: dict[str, list[float]] = {name: [] for name in CONVENTIONS}
    known = shapes(model)
    for name, shape in known.items():
        layers, d, n_ctx, vocabulary = shape
        exact = 3 * forward(layers, d, n_ctx, vocabulary)
        counted = model if name == "Colibri" else shape_only(layers, d, vocabulary, n_ctx)
        gaps = [value / exact - 1 for value in _by_convention(counted, shape)]
        for convention, gap in zip(CONVENTIONS, gaps, strict=True):
            errors[convention].append(100 * gap)
        rows.append([name, flops_text(exact), *(percent(g, 3, signed=True) for g in gaps)])
    table(
        rows,
        header=["modèle, contexte plein", "compte exact", *CONVENTIONS],
        caption="Par jeton d'apprentissage : compte exact (trois fois votre passage avant), et écart des conventions",
    )
    fig, ax = canvas(8.4, 3.6)
    x = range(len(known))
    for (name, gaps), look in zip(errors.items(), SERIES, strict=False):
        ax.plot(x, gaps, label=f"{name}{NBSP}: {CONVENTIONS[name]}", lw=1.4, ms=7, **look)
    ax.axhline(0, color=BLACK, lw=1)
    ax.set_xticks(list(x), list(known), fontsize=9)
    ax.set_ylabel("écart au compte exact (%)")
    french(ax, x=False)
    ax.legend(frameon=False, fontsize=8.5, loc="lower right")
    told = f"{NBSP}; ".join(
        f"{name}{NBSP}: "
        + ", ".join(f"{number(g, 3, unit='%', signed=True)} pour {who}" for g, who in zip(gaps, known, strict=True))
        for name, gaps in errors.items()
    )
    show(fig, alt=f"Écart de quatre conventions au compte exact, de Colibri à GPT-3. {told}.")
    note(
        f"N compte tout{NBSP}; N′ ne compte ni table des jetons ni positions{NBSP}; N″ compte tout sauf les positions, "
        "comme nanoGPT. Les biais et les LayerNorm, qui ne font aucun produit, expliquent ce qui reste."
    )
