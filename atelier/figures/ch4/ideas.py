"""Chapitre 4, première partie : ce que sait un enseignant, la température, les deux sens d'une divergence, T²."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from atelier import passed
from atelier.display import note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.common.controls import Slider, explore
from atelier.figures.common.style import BLACK, BLUE, GREEN, ORANGE, RED, canvas, french
from atelier.hardware import home
from atelier.text import number, percent, plural

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
        fig, (left, right) = canvas(9.0, 4.0, columns=2, sharey=True, sharex=True)
        for ax, bars, title in (
            (left, [float(i == truth) for i in shown], "Étiquette dure : ce que dit le texte"),
            (right, values, "Étiquette douce : ce que dit Colibri"),
        ):
            colors = [ORANGE if i == truth else BLUE for i in shown]
            ax.barh(range(len(shown)), bars, color=colors, edgecolor=BLACK, linewidth=0.4)
            ax.set_title(title, fontsize=10)
            ax.set_xlabel("probabilité")
            french(ax, y=False)
            for i, v in enumerate(bars):
                mark = " ← le mot du texte" if shown[i] == truth else ""
                if v or mark:
                    ax.text(v, i, f" {percent(v)}{mark}", va="center", fontsize=8.5)
        left.set_yticks(range(len(shown)), words, fontsize=9)
        left.invert_yaxis()
        left.set_xlim(0, 1.65)
        left.set_xticks([0, 0.25, 0.5, 0.75, 1])
        before = tokenizer.decode(ids[:rank]).replace("\n", " ")
        fig.suptitle(f"… {before[-60:].strip()} ___", fontsize=10, x=0.02, ha="left")
        told = ", ".join(f"{w} {percent(v)}" for w, v in zip(words, values, strict=True))
        alt = (
            f"Suite de « {before.strip()} ». Étiquette dure : {_word(tokenizer, truth)}, probabilité 1, tous les "
            "autres 0. "
            f"Étiquette douce, d'après Colibri : {told}."
        )
        return fig, alt

    explore(draw, rank=Slider(rank, 1, len(ids) - 1, 1, "rang du jeton"))


def labels_table(found: Mapping[str, float]) -> None:
    """Ce que disent les étiquettes, en moyenne. found : « premier », « dix premiers », « mots », « entropie »."""
    rows = {
        "le mot du texte est le plus probable": (percent(found["premier"]), percent(1)),
        "… est parmi les dix plus probables": (percent(found["dix premiers"]), percent(1)),
        "mots à plus de 1 % de probabilité": (number(found["mots"], 3), number(1)),
        "entropie (nats)": (number(found["entropie"], 3), number(0)),
    }
    table(
        [[name, *cells] for name, cells in rows.items()],
        header=["sur un texte jamais lu, en moyenne", "étiquette douce", "étiquette dure"],
    )


# --- La température -----------------------------------------------------------------------------------------------


def _entropy(p: Tensor) -> float:
    return -torch.xlogy(p, p).sum(-1).item()


def _instead(ready_made: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Ce que torch calcule, le temps que la fonction du lecteur passe son check ; et le dit."""
    note("Calculé par torch. Votre fonction prendra sa place quand son check passera ; relancez alors cette cellule.")
    return ready_made


def temperature(
    model: GPT2LMHeadModel,
    tokenizer: Any,
    text: str,
    softmax: Callable[[Tensor, float], Tensor],
    start: float = 1.0,
) -> None:
    """La même étiquette douce à plusieurs températures, et son entropie ; T se règle au curseur."""
    softmax = softmax if passed(softmax) else _instead(lambda z, t: torch.softmax(z / t, -1))
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


def fit_by_hand(kl: Callable[[Tensor, Tensor], Tensor], centre: float = 0.0, width: float = 1.0) -> None:
    """Un enseignant à deux bosses, un élève à une seule : placez-le, les deux divergences se lisent."""
    kl = kl if passed(kl) else _instead(lambda p, q: torch.nn.functional.kl_div(q.log(), p, reduction="sum"))

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


def bells(centres: Sequence[float], widths: Sequence[float]) -> tuple[Tensor, Tensor]:
    """L'enseignant à deux bosses (1, X), et les élèves en cloche (centres × largeurs, X), en probabilités."""
    return _BUMPS[None], torch.stack([_bell(c, w) for c in centres for w in widths])


def plot_two_directions(found: Mapping[str, tuple[float, float, float]]) -> None:
    """La meilleure cloche dans chaque sens. found : sens → (centre, largeur, divergence en nats)."""
    fig, axes = canvas(9.0, 3.0, columns=2, sharey=True)
    told = []
    for ax, (name, (centre, width, value)) in zip(axes, found.items(), strict=True):
        _bumps(ax, _bell(centre, width), f"le plus petit {name} : {number(value, 3, unit='nat')}")
        told.append(
            f"{name} est le plus petit, {number(value, 3, unit='nat')}, pour une cloche centrée en "
            f"{number(centre, 3)} et de largeur {number(width, 3)}"
        )
    axes[0].legend(frameon=False, fontsize=8.5)
    show(fig, alt=f"Deux ajustements d'une cloche à une loi à deux bosses. {' ; '.join(told)}.")
    note(f"{' ; '.join(told)}.")


def divergences_table(rows: Sequence[tuple[str, Tensor, Tensor, float, float]]) -> None:
    """Des couples de lois et leurs deux divergences. rows : (couple, P, Q, D(P ‖ Q), D(Q ‖ P)), en nats."""
    table(
        [[name, _law(p), _law(q), number(one, 3), number(other, 3)] for name, p, q, one, other in rows],
        header=["couple", "P", "Q", "D(P ‖ Q)", "D(Q ‖ P)"],
        caption="Divergences, en nats",
    )


def _law(p: Tensor) -> str:
    return "(" + "\u202f; ".join(number(round(v, 3), 3) for v in p.tolist()) + ")"


# --- Pourquoi T² --------------------------------------------------------------------------------------------------


def plot_gradients(found: Mapping[float, tuple[float, float]]) -> None:
    """Le gradient de la perte douce. found : T → (norme, T² compris ; cosinus avec l'écart des logits centrés)."""
    temperatures = list(found)
    sizes, pointing = [size for size, _ in found.values()], [cosine for _, cosine in found.values()]
    raw = [s / t**2 for s, t in zip(sizes, temperatures, strict=True)]
    fig, (left, right) = canvas(9.0, 3.5, columns=2)
    left.loglog(temperatures, raw, color=RED, marker="s", linestyle="--", label="divergence seule")
    left.loglog(temperatures, sizes, color=BLUE, marker="o", label="divergence × T²")
    left.set_xlabel("température T (échelle logarithmique)")
    left.set_ylabel("norme du gradient (logits ; éch. log.)")
    left.legend(frameon=False, fontsize=9)
    french(left)
    right.semilogx(temperatures, pointing, color=GREEN, marker="^")
    right.set_ylim(0, 1.05)
    right.set_xlabel("température T (échelle logarithmique)")
    right.set_ylabel("cosinus avec l'écart des logits")
    french(right)
    told = ", ".join(f"T = {number(float(t), 3)} : {number(r, 2)} et {number(s, 2)}"
                     for t, r, s in zip(temperatures, raw, sizes, strict=True))  # fmt: skip
    show(
        fig,
        alt="À gauche, norme du gradient de la divergence seule, puis multipliée par T² ; "
        f"{told}. À droite, cosinus entre ce gradient et l'écart des logits centrés : "
        f"{number(pointing[0], 2)} à T = {number(float(temperatures[0]), 2)}, {number(pointing[-1], 3)} à "
        f"T = {number(float(temperatures[-1]), 2)}.",
    )
    first, last = temperatures.index(1), -1
    note(
        f"De T = 1 à T = {number(float(temperatures[last]), 2)}, le gradient de la divergence seule est divisé par "
        f"{number(raw[first] / raw[last], 3)} ; avec le facteur T², par {number(sizes[first] / sizes[last], 2)}."
    )


def adam_note(found: Mapping[str, Sequence[float]]) -> None:
    """Deux élèves, avec et sans T². found : « avec T² », « sans T² » → pertes, part à part."""
    one, other = (perplexity_of(found[name]) for name in ("avec T²", "sans T²"))
    note(
        f"Après dix pas d'Adam : perplexité {number(one, 4)} avec T², {number(other, 4)} sans ; rapport "
        f"{paired(found['sans T²'], found['avec T²']).as_ratio()}."
    )


def reductions_table(found: Mapping[str, float]) -> None:
    """La même divergence, de plusieurs façons. found : façon → valeur, en nats."""
    own = found["votre perte"]
    table(
        [[name, number(value, 4), number(value / own, 3, before="×")] for name, value in found.items()],
        header=["façon", "valeur (nats)", "face à la vôtre"],
    )


def draws_table(found: Mapping[tuple[str, int | str], float]) -> None:
    """Cosinus avec le gradient de l'étiquette douce. found : (« avant » ou « après », mots tirés ou « texte »)."""
    rows = []
    for n in dict.fromkeys(n for _, n in found):
        name = "le mot du texte" if n == "texte" else f"{plural(float(n), 'mot tiré', 'mots tirés')} de Colibri"
        rows.append([name, *(number(found[when, n], decimals=3) for when in ("avant", "après"))])
    table(
        rows,
        header=["étiquette, à chaque position", "élève avant sa leçon", "élève après sa leçon"],
        caption="Cosinus avec le gradient de l'étiquette douce",
    )


# --- L'escalier -------------------------------------------------------------------------------------------------------


def straight_through(bits: int = 3) -> None:
    """L'escalier de l'arrondi, sa vraie pente, et celle qu'on lui prête ; `bits` se règle au curseur."""
    x = torch.linspace(-1, 1, 801)

    def draw(bits: int) -> tuple[Any, str]:
        top = 2 ** (bits - 1)
        y = torch.round(x * top).clamp(-top, top - 1) / top
        fig, (left, right) = canvas(8.4, 2.9, columns=2)
        left.plot(x, x, color=BLACK, lw=1, linestyle=":", label="poids gardé")
        left.plot(x, y, color=BLUE, lw=1.8, drawstyle="steps-mid", label="poids employé")
        left.legend(frameon=False, fontsize=8.5)
        right.plot(x, torch.zeros_like(x), color=BLUE, lw=1.8, label="vraie dérivée, presque partout")
        right.plot(x, torch.ones_like(x), color=RED, lw=1.8, linestyle="--", label="dérivée prêtée")
        right.set_ylim(-0.2, 1.6)
        right.legend(frameon=False, fontsize=8.5, loc="upper center", ncols=1)
        for ax in (left, right):
            ax.set_xlabel("poids (1 : le plus grand)")
            french(ax)
        left.set_ylabel("valeur")
        right.set_ylabel("dérivée")
        return fig, (
            f"À gauche, un escalier de {2 * top} marches pour {bits} bits, autour de la diagonale. À droite, sa "
            "dérivée : 0 presque partout ; celle que l'estimateur direct lui prête : 1."
        )

    explore(draw, bits=Slider(bits, 2, 6, 1, "bits"))
