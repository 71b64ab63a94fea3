"""Chapitre 5 : entraîner un modèle élagué, masque gardé, d'un coup ou peu à peu."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atelier.display import note, recorded, show, table
from atelier.figures.ch5.importance import CHAPTER, curve
from atelier.figures.ch5.masks import Masks, linear_weights
from atelier.figures.common.layers import linear_layers, weight_of
from atelier.figures.common.style import BLACK, BLUE, ORANGE, SERIES, canvas, french
from atelier.measures import load_measures
from atelier.perplexity import evaluate_perplexity
from atelier.text import number, percent, spread
from atelier.training import Log, train, windows

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

STEPS, LR = 100, 1e-3
"""Pas d'apprentissage d'une reprise (8 fenêtres de 128 jetons chacun), et pas d'AdamW."""
RAMP, EVERY = 70, 5
"""Élagage progressif : la part retirée monte jusqu'au pas RAMP, et le masque est revu tous les EVERY pas."""

ONCE, SLOWLY = "d'un coup", "peu à peu"

Magnitude = Callable[[Tensor, float], Tensor]
Schedule = Callable[..., float]


@torch.no_grad()
def apply_masks(model: GPT2LMHeadModel, masks: Masks) -> None:
    """Remet à zéro, sur place, les poids masqués."""
    for name, layer in linear_layers(model).items():
        layer.weight.mul_(masks[name].T)


def magnitude_masks(model: GPT2LMHeadModel, magnitude: Magnitude, amount: float) -> dict[str, Tensor]:
    """Un masque par couche : les plus petits poids du moment n'en sont pas."""
    return {name: magnitude(w, amount) for name, w in linear_weights(model).items()}


def one_shot(
    model: GPT2LMHeadModel,
    ids: Tensor,
    magnitude: Magnitude,
    amount: float,
    steps: int = STEPS,
    seed: int = 0,
    lr: float = LR,
) -> tuple[GPT2LMHeadModel, Log]:
    """Une copie élaguée d'un coup, puis entraînée `steps` pas sous son masque. ids : jetons du texte (n,)."""
    pruned = copy.deepcopy(model)
    masks = magnitude_masks(pruned, magnitude, amount)
    apply_masks(pruned, masks)
    log = train(
        pruned, windows(ids, seed=seed), steps, lr, what="d'un coup", after_step=lambda _: apply_masks(pruned, masks)
    )
    return pruned, log


def gradual(
    model: GPT2LMHeadModel,
    ids: Tensor,
    magnitude: Magnitude,
    schedule: Schedule,
    amount: float,
    steps: int = STEPS,
    seed: int = 0,
) -> tuple[GPT2LMHeadModel, Log, list[float]]:
    """Une copie élaguée pendant l'apprentissage : la part retirée suit `schedule`. Rend aussi cette part, pas par pas.

    Un poids retiré vaut zéro, donc il reste parmi les plus petits : les masques successifs s'emboîtent.
    """
    pruned = copy.deepcopy(model)
    end = max(1, round(RAMP / STEPS * steps))
    every = max(1, round(EVERY / STEPS * steps))
    masks: dict[str, Tensor] = {}
    shares: list[float] = []

    def prune(i: int) -> None:
        nonlocal masks
        if i % every == 0 or i == end:
            masks = magnitude_masks(pruned, magnitude, schedule(i, 0, end, amount))
        apply_masks(pruned, masks)
        shares.append(1 - sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values()))

    log = train(pruned, windows(ids, seed=seed), steps, LR, what="peu à peu", after_step=prune)
    return pruned, log, shares


def unmasked(
    model: GPT2LMHeadModel, ids: Tensor, magnitude: Magnitude, amount: float, steps: int, seed: int = 0
) -> tuple[GPT2LMHeadModel, list[float]]:
    """La même reprise d'un coup, masque oublié : rend la part de zéros avant le premier pas, puis après chacun."""
    pruned = copy.deepcopy(model)
    apply_masks(pruned, magnitude_masks(pruned, magnitude, amount))
    shares = [zero_share(pruned)]
    train(
        pruned, windows(ids, seed=seed), steps, LR, what="masque oublié",
        after_step=lambda _: shares.append(zero_share(pruned)),
    )  # fmt: skip
    return pruned, shares


def zero_share(model: GPT2LMHeadModel) -> float:
    """Part de zéros dans les couches linéaires."""
    weights = [weight_of(layer) for layer in linear_layers(model).values()]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


# --- Ce que le lecteur en voit ----------------------------------------------------------------------------------------


@recorded("ch5/schedule", needs=("schedule",))
def schedule_plot(schedule: Schedule, amount: float = 0.8) -> None:
    """Votre programme cubique, et une montée linéaire ; ce qu'il reste de poids."""
    steps = list(range(STEPS + 1))
    cubic = [100 * schedule(i, 0, RAMP, amount) for i in steps]
    straight = [100 * amount * min(i / RAMP, 1) for i in steps]
    fig, ax = canvas(7, 3)
    ax.plot(steps, cubic, label="cubique (le vôtre)", color=BLUE, lw=2)
    ax.plot(steps, straight, "--", label="linéaire", color=ORANGE, lw=2)
    ax.axvline(RAMP, color=BLACK, lw=0.8, ls=":")
    ax.text(RAMP + 1, 8, "fin de l'élagage", fontsize=9)
    ax.set_xlabel("pas d'apprentissage")
    ax.set_ylabel("part retirée (%)")
    ax.legend(frameon=False)
    french(ax)
    half = next(i for i in steps if cubic[i] >= 50 * amount)
    show(
        fig,
        alt=f"Part retirée contre pas : la courbe cubique atteint la moitié de {percent(amount)} dès le pas {half}, la "
        f"droite au pas {RAMP // 2} ; toutes deux arrivent au pas {RAMP}.",
    )


@recorded("ch5/forgotten", needs=("magnitude",))
def forgotten(model: GPT2LMHeadModel, ids: Tensor, magnitude: Magnitude, steps: int = 5, amount: float = 0.8) -> None:
    """Quelques pas d'apprentissage après un élagage, sans reposer le masque : que deviennent les zéros ?"""
    _, shares = unmasked(model, ids, magnitude, amount, steps)
    table(
        [[i, percent(s)] for i, s in enumerate(shares)],
        header=["pas", "zéros dans les couches linéaires"],
        caption="Masque posé une fois, puis oublié",
    )
    measured = load_measures(CHAPTER).get("oubli", {}).get("0.8")
    if measured is None:
        return
    note(
        f"Mesuré par l'auteur : après {STEPS} pas sans masque, part de zéros {percent(measured['zéros'])}, et la "
        f"perplexité est de {number(measured['perplexité'], 4)}."
    )


def _recorded_recovery(name: str = "reprise") -> dict[tuple[str, float], list[float]]:
    """(façon, part) → une perplexité par graine."""
    found: dict[tuple[str, float], list[float]] = {}
    for key, value in load_measures(CHAPTER).get(name, {}).items():
        way, amount, _ = key.rsplit(" ", 2)
        found.setdefault((way, float(amount)), []).append(value)
    return found


@recorded("ch5/recover", needs=("magnitude", "schedule"))
def recover(
    model: GPT2LMHeadModel,
    ids: Tensor,
    magnitude: Magnitude,
    schedule: Schedule,
    steps: int,
    tokens: int,
    amount: float = 0.8,
    seed: int = 0,
) -> GPT2LMHeadModel:
    """Les deux reprises en direct, mêmes jetons et mêmes pas, posées sur celles de l'auteur. Rend la progressive."""
    at_once, first_log = one_shot(model, ids, magnitude, amount, steps, seed)
    pruned, log, shares = gradual(model, ids, magnitude, schedule, amount, steps, seed)
    mine = {way: evaluate_perplexity(m, max_tokens=tokens).perplexity for way, m in ((ONCE, at_once), (SLOWLY, pruned))}
    points, dense = _recorded_recovery(), load_measures(CHAPTER)["dense"]["perplexité"]
    before = {a: v[0] for a, v in curve("magnitude").items()}

    fig, axes = canvas(9.4, 3.8, columns=2, width_ratios=(1, 1.15))
    axes[0].plot(first_log.smoothed(), color=SERIES[1]["color"], ls=":", label="perte, d'un coup")
    axes[0].plot(log.smoothed(), color=BLUE, label="perte, peu à peu")
    axes[0].set_xlabel("pas")
    axes[0].set_ylabel("perte (nats par jeton, moyenne sur 10 pas)")
    right = axes[0].twinx()
    right.plot([100 * s for s in shares], color=ORANGE, ls="--", label="part retirée, peu à peu (%)")
    right.set_ylim(0, 100)
    right.spines[["top"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8.5, loc="upper right")
    right.legend(frameon=False, fontsize=8.5, loc="lower right")
    french(axes[0])

    ax = axes[1]
    amounts = sorted(before)
    ax.plot([100 * a for a in amounts], [before[a] for a in amounts], label="élagué, non repris", **SERIES[5])
    for way, look, shift in ((ONCE, SERIES[1], -0.6), (SLOWLY, SERIES[0], 0.6)):
        xs = [100 * a + shift for a in amounts for _ in points.get((way, a), [])]
        dots: dict[str, Any] = {**look, "linestyle": "", "mfc": "white"}
        ax.plot(xs, [p for a in amounts for p in points.get((way, a), [])], label=f"{way} (auteur)", **dots)
        dots = {**look, "linestyle": "", "mec": BLACK, "ms": 10}
        ax.plot([100 * amount + shift], [mine[way]], label=f"{way} (vous)", **dots)
    ax.axhline(dense, color=BLACK, lw=1, ls=":")
    ax.set_yscale("log")
    ax.set_xlabel("part retirée (%)")
    ax.set_ylabel("perplexité (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=8.5)
    french(ax)
    told = " ; ".join(f"{way} à {percent(a)} : " + ", ".join(number(p, 3) for p in v) for (way, a), v in points.items())
    show(
        fig,
        alt=f"À gauche, les pertes de vos deux reprises, à la fin {number(first_log.smoothed()[-1], 3)} d'un coup et "
        f"{number(log.smoothed()[-1], 3)} peu à peu. À droite, perplexité contre part retirée : {told or 'rien'} ; "
        f"vous, à {percent(amount)} : d'un coup {number(mine[ONCE], 3)}, peu à peu {number(mine[SLOWLY], 3)}.",
    )
    seeds = len(points.get((SLOWLY, amount), []))
    theirs = f" Auteur : {STEPS} pas, {seeds} graines, sur 4 096 jetons." if seeds else ""
    note(
        f"Vous, à {percent(amount)} : {number(steps)} pas chacun, perplexité {number(mine[ONCE], 4)} d'un coup, "
        f"{number(mine[SLOWLY], 4)} peu à peu, sur {number(tokens)} jetons.{theirs}"
    )
    return pruned


def recovery_table() -> None:
    """Toutes les reprises enregistrées : mêmes jetons, mêmes pas, à 100 puis 300 pas."""
    short, long = _recorded_recovery(), _recorded_recovery("reprise_longue")
    before = {a: v[0] for a, v in curve("magnitude").items()}
    if not short:
        return note("Ces reprises n'ont pas encore été mesurées : python cours.py mesures ch5_elagage")
    whole = number(load_measures(CHAPTER)["dense"]["perplexité"], 4)
    rows = [["entier, entraîné d'autant", "0 %", whole, _spread(short.get(("sans élagage", 0.0))), "—"]]
    for a in sorted({a for way, a in short if way != "sans élagage"}):
        for way in (ONCE, SLOWLY):
            values = _spread(short.get((way, a))), _spread(long.get((way, a)))
            rows.append([way, percent(a), number(before[a], 4), *values])
    table(
        rows,
        header=["élagué", "part retirée", "avant la reprise", f"après {STEPS} pas", f"après {3 * STEPS} pas"],
        caption="Perplexité, mesurée par l'auteur : médiane de trois graines, et étendue",
    )


def recovery_rates() -> None:
    """Perplexité après une reprise d'un coup, selon la part retirée et le taux d'apprentissage."""
    measured = load_measures(CHAPTER).get("reprise_taux", {})
    if not measured:
        return note("Ces reprises n'ont pas encore été mesurées : python cours.py mesures ch5_elagage")
    found = {tuple(map(float, key.split())): value for key, value in measured.items()}
    for (way, amount), values in _recorded_recovery().items():
        if way != SLOWLY:
            found[amount, LR] = values[0]
    rates = sorted({lr for _, lr in found})
    amounts = [a for a in sorted({a for a, _ in found}) if all((a, lr) in found for lr in rates)]
    table(
        [[percent(a), *(found[a, lr] for lr in rates)] for a in amounts],
        header=["part retirée", *(f"taux {number(lr, 2)}" for lr in rates)],
        caption=f"Perplexité après {STEPS} pas de reprise, d'un coup, une graine, mesurée par l'auteur (recette du "
        f"tableau précédent : taux {number(LR, 2)})",
    )


def _spread(values: list[float] | None) -> str:
    if not values:
        return "—"
    return spread(values, middle=sorted(values)[len(values) // 2])
