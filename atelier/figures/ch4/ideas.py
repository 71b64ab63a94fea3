"""Chapitre 4, première partie : ce que sait un enseignant, la température, les deux sens d'une divergence, T²."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from atelier.display import note, recorded, show, table
from atelier.figures.ch4.students import SPACED, held_out
from atelier.figures.common.controls import Slider, explore
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, RED, canvas, french
from atelier.hardware import beside, device, home
from atelier.text import number, percent

SHOWN = 12
"""Mots montrés dans une barre de probabilités."""


# --- Ce que disent les étiquettes ---------------------------------------------------------------------------------


@torch.inference_mode()
def _next_logits(model: GPT2LMHeadModel, tokenizer: Any, text: str) -> tuple[list[int], Tensor]:
    """Les jetons du texte, et les scores (n, V) de ce qui suit chacun."""
    ids = tokenizer(text)["input_ids"]
    return ids, model(torch.tensor([ids], device=home(model))).logits[0].float().cpu()


def _word(tokenizer: Any, token: int) -> str:
    text = tokenizer.decode([int(token)]).replace("\n", "↵")
    return f"«\u00a0{text.strip()}\u00a0»" if text.startswith(" ") or not text.strip() else f"«\u00a0…{text}\u00a0»"


def dark_knowledge(model: GPT2LMHeadModel, tokenizer: Any, text: str, rank: int) -> None:
    """L'étiquette dure et l'étiquette douce d'un même jeton ; `rank` est son rang dans la phrase, réglable."""
    ids, logits = _next_logits(model, tokenizer, text)

    def draw(rank: int) -> tuple[Any, str]:
        probs, truth = logits[rank - 1].softmax(-1), ids[rank]
        best = probs.topk(SHOWN).indices.tolist()
        shown = best if truth in best else [*best[:-1], truth]
        words = [_word(tokenizer, i) for i in shown]
        values = probs[shown].tolist()
        fig, (left, right) = canvas(9.0, 4.0, columns=2, sharey=True)
        for ax, bars, title in (
            (left, [float(i == truth) for i in shown], "Étiquette dure : ce que dit le texte"),
            (right, values, "Étiquette douce : ce que dit Colibri"),
        ):
            colors = [ORANGE if i == truth else BLUE for i in shown]
            ax.barh(range(len(shown)), bars, color=colors, edgecolor=BLACK, linewidth=0.4)
            ax.set_title(title, fontsize=10)
            ax.set_xlabel("probabilité")
            french(ax, y=False)
            for i, v in enumerate(bars):
                mark = " ← le mot du texte" if shown[i] == truth else ""
                ax.text(v, i, f" {percent(v)}{mark}", va="center", fontsize=7.5)
        left.set_yticks(range(len(shown)), words, fontsize=8.5)
        left.invert_yaxis()
        left.set_xlim(0, 1.6)
        right.set_xlim(0, max(values) * 1.4)
        left.set_xticks([0, 0.25, 0.5, 0.75, 1])
        right.locator_params(axis="x", nbins=5)
        before = tokenizer.decode(ids[:rank]).replace("\n", " ")
        fig.suptitle(f"… {before[-60:].strip()} ▢", fontsize=10, x=0.02, ha="left")
        told = ", ".join(f"{w} {percent(v)}" for w, v in zip(words, values, strict=True))
        alt = (
            f"Suite de « {before.strip()} ». Étiquette dure : {_word(tokenizer, truth)}, probabilité 1, tous les "
            "autres 0. "
            f"Étiquette douce, d'après Colibri : {told}."
        )
        return fig, alt

    explore(draw, rank=Slider(rank, 1, len(ids) - 1, 1, "rang du jeton"))


@torch.inference_mode()
def what_labels_say(model: GPT2LMHeadModel, tokens: int) -> None:
    """En moyenne, sur un texte que Colibri n'a pas lu : combien de mots une étiquette douce tient pour possibles."""
    rows: dict[str, list[Tensor]] = {}
    for ids in held_out(tokens).split(8):
        probs = model(beside(model, ids[:, :-1])).logits.softmax(-1).cpu()
        truth = ids[:, 1:, None]
        rank = (probs > probs.gather(-1, truth)).sum(-1)
        for name, value in (
            ("le mot du texte est le plus probable", (rank == 0).float()),
            ("… est parmi les dix plus probables", (rank < 10).float()),
            ("mots à plus de 1 % de probabilité", (probs > 0.01).sum(-1).float()),
            ("entropie (nats)", -torch.xlogy(probs, probs).sum(-1)),
        ):
            rows.setdefault(name, []).append(value.flatten())
    means = {name: torch.cat(values).mean().item() for name, values in rows.items()}
    table(
        [
            [name, percent(v) if i < 2 else number(v, 3), (percent(1), percent(1), number(1), number(0))[i]]
            for i, (name, v) in enumerate(means.items())
        ],
        header=["sur un texte jamais lu, en moyenne", "étiquette douce", "étiquette dure"],
    )


# --- La température -----------------------------------------------------------------------------------------------


def _entropy(p: Tensor) -> float:
    return -torch.xlogy(p, p).sum(-1).item()


@recorded("ch4/temperature", needs=("softmax",))
def temperature(
    model: GPT2LMHeadModel,
    tokenizer: Any,
    text: str,
    softmax: Callable[[Tensor, float], Tensor],
    start: float = 1.0,
) -> None:
    """La même étiquette douce à plusieurs températures, et son entropie ; T se règle au curseur."""
    logits = _next_logits(model, tokenizer, text)[1][-1]
    best = logits.topk(SHOWN).indices
    words = [_word(tokenizer, i) for i in best.tolist()]
    grid = [0.1 * 1.25**k for k in range(25)]
    entropies = [_entropy(softmax(logits, t)) for t in grid]
    top = math.log(len(logits))

    def draw(T: float) -> tuple[Any, str]:  # noqa: N803 : c'est le nom affiché du réglage
        p = softmax(logits, T)
        values, h = p[best].tolist(), _entropy(p)
        fig, (left, right) = canvas(9.0, 3.6, columns=2, width_ratios=(3, 2))
        left.bar(range(SHOWN), values, color=BLUE)
        left.set_xticks(range(SHOWN), words, rotation=45, ha="right", fontsize=8, rotation_mode="anchor")
        left.set_ylabel("probabilité")
        left.set_title(f"T = {number(T, 3)}", fontsize=10)
        french(left, x=False)
        right.semilogx(grid, entropies, color=BLUE, lw=1.6)
        right.axhline(top, color=BLACK, lw=0.9, linestyle=":")
        right.text(grid[0], top - 0.1, "ln V : tout est possible", va="top", fontsize=8)
        right.plot([T], [h], "o", color=RED, ms=8)
        right.annotate(number(h, 3, unit="nats"), (T, h), (6, -12), textcoords="offset points", fontsize=9)
        right.set_xlabel("température T")
        right.set_ylabel("entropie (nats)")
        french(right)
        told = ", ".join(f"{w} {percent(v)}" for w, v in zip(words[:5], values, strict=False))
        return fig, (
            f"Suite de « {text} » à la température {number(T, 3)} : {told}. Entropie {number(h, 3, unit='nats')}, "
            f"sur {number(top, 3)} au plus ; elle croît avec la température."
        )

    explore(draw, T=Slider(start, 0.2, 10.0, 0.2, "température T"))


# --- Les deux sens d'une divergence -------------------------------------------------------------------------------

_GRID = torch.linspace(-6, 6, 121, dtype=torch.float64)


def _bell(centre: float, width: float) -> Tensor:
    p = torch.exp(-0.5 * ((_GRID - centre) / width) ** 2)
    return p / p.sum()


_BUMPS = 0.6 * _bell(-2.0, 0.7) + 0.4 * _bell(2.5, 0.6)


def _bumps(ax: Any, q: Tensor, title: str) -> None:
    ax.fill_between(_GRID, _BUMPS, color=BLUE, alpha=0.25, lw=0)
    ax.plot(_GRID, _BUMPS, color=BLUE, lw=1.4, label="P, l'enseignant")
    ax.plot(_GRID, q, color=RED, lw=1.8, linestyle="--", label="Q, l'élève")
    ax.set_title(title, fontsize=10)
    ax.set_yticks([])
    ax.set_ylabel("probabilité")
    ax.set_xlabel("x, sans unité")
    french(ax, y=False)


@recorded("ch4/fit_by_hand", needs=("kl",))
def fit_by_hand(kl: Callable[[Tensor, Tensor], Tensor], centre: float = 0.0, width: float = 1.0) -> None:
    """Un enseignant à deux bosses, un élève à une seule : placez-le, les deux divergences se lisent."""

    def draw(centre: float, width: float) -> tuple[Any, str]:
        q = _bell(centre, width)
        forward, backward = kl(_BUMPS, q).item(), kl(q, _BUMPS).item()
        fig, ax = canvas(7.2, 3.0)
        _bumps(ax, q, f"D(P ‖ Q) = {number(forward, 3)} nats        D(Q ‖ P) = {number(backward, 3)} nats")
        ax.legend(frameon=False, fontsize=9)
        alt = (
            f"Loi P à deux bosses, en −2 et 2,5 ; loi Q en cloche, centrée en {number(centre, 3)}, de largeur "
            f"{number(width, 3)}. D(P ‖ Q) = {number(forward, 3)}, D(Q ‖ P) = {number(backward, 3, unit='nats')}."
        )
        return fig, alt

    explore(
        draw,
        centre=Slider(centre, -4.0, 4.0, 0.1, "centre de Q"),
        width=Slider(width, 0.4, 4.0, 0.1, "largeur de Q"),
    )


@recorded("ch4/two_directions", needs=("kl",))
def two_directions(kl: Callable[[Tensor, Tensor], Tensor]) -> None:
    """La meilleure cloche dans chaque sens, cherchée sur une grille de centres et de largeurs."""
    settings = [(c / 10, w / 10) for c in range(-40, 41) for w in range(4, 41)]
    laws = torch.stack([_bell(c, w) for c, w in settings])
    teacher = _BUMPS.expand_as(laws)
    forward, backward = kl(teacher, laws), kl(laws, teacher)
    fig, axes = canvas(9.0, 3.0, columns=2, sharey=True)
    told = []
    for ax, values, name in ((axes[0], forward, "D(P ‖ Q)"), (axes[1], backward, "D(Q ‖ P)")):
        k = int(values.argmin())
        centre, width = settings[k]
        _bumps(ax, laws[k], f"le plus petit {name} : {number(values[k].item(), 3, unit='nat')}")
        told.append(
            f"{name} est le plus petit, {number(values[k].item(), 3, unit='nat')}, pour une cloche centrée en "
            f"{number(centre, 3)} et de largeur {number(width, 3)}"
        )
    axes[0].legend(frameon=False, fontsize=8.5)
    show(fig, alt=f"Deux ajustements d'une cloche à une loi à deux bosses. {' ; '.join(told)}.")
    note(f"{' ; '.join(told)}.")


@recorded("ch4/kl_facts", needs=("kl",))
def kl_facts(kl: Callable[[Tensor, Tensor], Tensor], pairs: int = 2000) -> None:
    """Quatre couples de lois à calculer de tête, puis des milliers au hasard : signe, symétrie, infini."""
    couples = {
        "les mêmes": ([0.5, 0.25, 0.25], [0.5, 0.25, 0.25]),
        "un peu différentes": ([0.5, 0.25, 0.25], [0.4, 0.3, 0.3]),
        "P croit possible ce que Q exclut": ([0.98, 0.01, 0.01], [0.5, 0.5, 0.0]),
        "Q croit possible ce que P exclut": ([0.5, 0.5, 0.0], [0.98, 0.01, 0.01]),
    }
    rows = []
    for name, couple in couples.items():
        p, q = map(torch.tensor, couple)
        rows.append([name, _law(p), _law(q), number(kl(p, q).item(), 3), number(kl(q, p).item(), 3)])
    table(rows, header=["couple", "P", "Q", "D(P ‖ Q)", "D(Q ‖ P)"], caption="Divergences, en nats")
    laws = torch.randn(2, pairs, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64).softmax(-1)
    one, other = kl(laws[0], laws[1]), kl(laws[1], laws[0])
    note(
        f"Sur {number(pairs)} couples de lois tirés au hasard : la plus petite divergence vaut "
        f"{number(one.min().item(), 2)} "
        "nat, aucune n'est négative ; les deux sens diffèrent en moyenne de "
        f"{number((one - other).abs().mean().item(), 2, unit='nat')}."
    )


def _law(p: Tensor) -> str:
    return "(" + "\u202f; ".join(number(round(v, 3), 3) for v in p.tolist()) + ")"


# --- Pourquoi T² --------------------------------------------------------------------------------------------------


@recorded("ch4/gradients", needs=("build", "loss"))
def gradients(
    teacher: GPT2LMHeadModel,
    build: Callable[[GPT2LMHeadModel, Sequence[int]], GPT2LMHeadModel],
    loss: Callable[[Tensor, Tensor, float], Tensor],
    temperatures: Sequence[float] = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32),
) -> None:
    """Taille du gradient de la perte douce, avec et sans T², et vers quoi il pointe, sur du vrai texte."""
    ids = held_out(1024)[:4].to(device())
    student = build(teacher, SPACED)
    with torch.no_grad():
        target, given = (m(ids, use_cache=False).logits.flatten(0, 1).float() for m in (teacher, student))
    matching = given - target
    matching = matching - matching.mean(-1, keepdim=True)
    sizes, pointing = [], []
    for t in temperatures:
        z = given.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(loss(z, target, float(t)), z)
        sizes.append(g.norm().item())
        pointing.append(torch.nn.functional.cosine_similarity(g.flatten(), matching.flatten(), dim=0).item())
    raw = [s / t**2 for s, t in zip(sizes, temperatures, strict=True)]
    late = [k for k, t in enumerate(temperatures) if t >= 8]
    slope = math.log(raw[late[-1]] / raw[late[0]]) / math.log(temperatures[late[-1]] / temperatures[late[0]])

    fig, (left, right) = canvas(9.0, 3.5, columns=2)
    left.loglog(temperatures, raw, color=RED, marker="s", linestyle="--", label="divergence seule")
    left.loglog(temperatures, sizes, color=BLUE, marker="o", label="divergence × T²")
    left.set_xlabel("température T")
    left.set_ylabel("norme du gradient (logits)")
    left.legend(frameon=False, fontsize=9)
    french(left)
    right.semilogx(temperatures, pointing, color=GREEN, marker="^")
    right.set_ylim(0, 1.05)
    right.set_xlabel("température T")
    right.set_ylabel("cosinus avec l'écart des logits")
    french(right)
    told = ", ".join(f"T = {number(float(t), 3)} : {number(r, 2)} et {number(s, 2)}"
                     for t, r, s in zip(temperatures, raw, sizes, strict=True))  # fmt: skip
    show(
        fig,
        alt="À gauche, norme du gradient de la divergence seule, puis multipliée par T² ; "
        f"{told}. À droite, cosinus entre ce gradient et l'écart des logits : "
        f"{number(pointing[0], 2)} à T = {number(float(temperatures[0]), 2)}, {number(pointing[-1], 3)} à "
        f"T = {number(float(temperatures[-1]), 2)}.",
    )
    note(
        f"À partir de T = 8, le gradient de la divergence seule décroît comme T à la puissance {number(slope, 3)}. "
        "De T = 1 à "
        f"T = {number(float(temperatures[-1]), 2)}, il est divisé par "
        f"{number(raw[list(temperatures).index(1)] / raw[-1], 3)} ; avec le facteur T², par "
        f"{number(sizes[list(temperatures).index(1)] / sizes[-1], 2)}."
    )
