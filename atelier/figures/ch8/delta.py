"""Chapitre 8, première partie : ce qu'un fine-tuning change dans les poids, direction par direction."""

from __future__ import annotations

import copy
import functools
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atelier.display import note, recorded, show, table
from atelier.figures.common.layers import KINDS, linear_layers, weight_of
from atelier.figures.common.measured import measured
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.hardware import for_float64
from atelier.perplexity import evaluate_perplexity
from atelier.text import number, percent
from atelier.training import corpus_tokens, train, windows

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

CHAPTER = "ch8_lora"
LENGTH, BATCH = 64, 8
RANKS = (1, 2, 4, 8, 16, 32, 64, 128)


def from_measures(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Décore une fonction dont le premier argument est le dictionnaire des mesures enregistrées.

    names : les expériences qu'elle lit. S'il en manque une, une phrase le dit et rien n'est montré.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            found = measured(CHAPTER, *names)
            return None if found is None else function(found, *args, **kwargs)

        return wrapper

    return decorate


def source(found: dict[str, Any]) -> str:
    """D'où viennent des mesures enregistrées, en quelques mots."""
    return f"mesuré par l'auteur, {found['machine'].split(' · ')[0]}"


def fine_tune(model: GPT2LMHeadModel, steps: int, lr: float = 1e-3, seed: int = 0) -> GPT2LMHeadModel:
    """Une copie du modèle dont les couches linéaires ont appris la fantasy (B) pendant `steps` pas de 512 jetons.

    Tables, biais et LayerNorm restent gelés : tout le changement est dans des matrices.
    """
    tuned = copy.deepcopy(model).requires_grad_(False)
    for layer in linear_layers(tuned).values():
        layer.weight.requires_grad_(True)
    log = train(tuned, windows(corpus_tokens("b_train"), BATCH, LENGTH, seed=seed), steps, lr, what="fine-tuning")
    note(
        f"{steps} pas de {BATCH} × {LENGTH} jetons : perte {number(log.losses[0], 3)} au premier pas, "
        f"{number(log.smoothed(5)[-1], 3)} à la fin (moyenne des cinq derniers)."
    )
    return tuned


def changes(before: GPT2LMHeadModel, after: GPT2LMHeadModel) -> dict[str, Tensor]:
    """ΔW de chaque couche linéaire : nom → (sortie, entrée)."""
    olds, news = linear_layers(before), linear_layers(after)
    return {name: weight_of(news[name]) - weight_of(olds[name]) for name in olds}


def size_of_change(before: GPT2LMHeadModel, after: GPT2LMHeadModel) -> None:
    """De combien les poids ont bougé, par genre de couche, en part de leur norme."""
    deltas, olds = changes(before, after), linear_layers(before)
    rows = []
    for kind, label in KINDS.items():
        names = [n for n in deltas if n.endswith(kind)]
        moved = sum(float(deltas[n].norm() ** 2) for n in names) ** 0.5
        total = sum(float(weight_of(olds[n]).norm() ** 2) for n in names) ** 0.5
        shape = "×".join(map(str, weight_of(olds[names[0]]).shape))
        rows.append([label, shape, percent(moved / total)])
    table(
        rows,
        header=["couches", "forme (sortie×entrée)", "‖ΔW‖ / ‖W‖"],
        caption="De combien les poids ont bougé (tous les blocs réunis)",
    )


# --- Énergie ----------------------------------------------------------------------------------------------------------


def energy(values: Tensor) -> Tensor:
    """Part de ‖·‖² que portent les 1, 2, 3… premières valeurs singulières ; (n,) → (n,)."""
    squares = for_float64(values).double() ** 2
    return torch.cumsum(squares, 0) / squares.sum()


def rank_for(share: float, curve: Tensor) -> int:
    """Le plus petit rang dont l'énergie atteint `share`."""
    return int((curve < share).sum()) + 1


def _by_kind(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Courbe d'énergie moyenne des blocs, par genre de couche."""
    return {
        label: torch.stack([energy(v) for n, v in values.items() if n.endswith(kind)]).mean(0)
        for kind, label in KINDS.items()
    }


def _random_curve(shapes: Iterable[tuple[int, ...]]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([energy(torch.linalg.svdvals(torch.randn(s, generator=generator))) for s in shapes]).mean(0)


@from_measures("delta")
def spectra(found: dict[str, Any], model: GPT2LMHeadModel) -> None:
    """Énergie contre rang : ΔW d'un vrai fine-tuning (enregistré), W de Colibri, et une matrice au hasard."""
    weights = {n: weight_of(layer).cpu() for n, layer in linear_layers(model).items()}
    noise = _random_curve([tuple(weights[f"0.{k}"].shape) for k in KINDS])
    panels = {
        f"ΔW ({found['recette']['pas']} pas sur la fantasy)": _by_kind(
            {n: torch.tensor(v) for n, v in found["delta"]["couches linéaires"]["valeurs singulières"].items()}
        ),
        "W (Colibri avant)": _by_kind({n: torch.linalg.svdvals(w) for n, w in weights.items()}),
    }
    fig, axes = canvas(9.2, 3.9, columns=2, sharey=True)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for style, (label, curve) in zip(SERIES, curves.items(), strict=False):
            ax.plot(range(1, len(curve) + 1), 100 * curve, label=label, markevery=[0, 3, 15, 63, 127], **style)
        ax.plot(range(1, len(noise) + 1), 100 * noise, color=BLACK, linestyle=":", label="hasard (gaussienne)")
        ax.set(xscale="log", title=title, xlabel="rang gardé (échelle logarithmique)")
        ax.axvline(8, color="#999999", linewidth=0.8)
        french(ax)
    axes[0].set_ylabel("énergie gardée (%)")
    axes[1].legend(fontsize=8)
    told = " ; ".join(
        f"{title} : {', '.join(f'{label} {percent(float(c[7]))}' for label, c in curves.items())}"
        for title, curves in panels.items()
    )
    show(fig, alt=f"Énergie gardée au rang 8. {told} ; matrice gaussienne : {percent(float(noise[7]))}.")
    first, second = panels.values()
    table(
        [
            [label, len(first[label]), rank_for(0.9, first[label]), rank_for(0.9, second[label]), rank_for(0.9, noise)]
            for label in first
        ],
        header=["couches", "rang plein", "ΔW", "W", "hasard"],
        caption=f"Rang qu'il faut pour garder 90 % de l'énergie (ΔW : {source(found)}, une graine)",
    )


# --- Tronquer -------------------------------------------------------------------------------------------------------


def _truncated(before: GPT2LMHeadModel, after: GPT2LMHeadModel, cut: Callable[[Tensor], Tensor]) -> GPT2LMHeadModel:
    model = copy.deepcopy(after)
    olds = linear_layers(before)
    with torch.no_grad():
        for name, layer in linear_layers(model).items():
            layer.weight.copy_((weight_of(olds[name]) + cut(weight_of(layer) - weight_of(olds[name]))).T)
    return model


@recorded("ch8/truncate", needs=("low_rank",))
def truncate(
    before: GPT2LMHeadModel, after: GPT2LMHeadModel, low_rank: Any, ranks: Sequence[int], max_tokens: int
) -> None:
    """Perplexité sur B quand on ne garde que r directions de chaque ΔW, avec le `low_rank` du lecteur."""
    rows = []
    for r in ranks:
        errors: list[float] = []

        def cut(d: Tensor, r: int = r, errors: list[float] = errors) -> Tensor:
            approximation, error = low_rank(d, r)
            errors.append(error)
            return approximation

        model = _truncated(before, after, cut)
        ppl = evaluate_perplexity(model, "b_validation", max_tokens=max_tokens).perplexity
        rows.append([f"ΔW de rang {r}", percent(sum(e**2 for e in errors) / len(errors)), ppl])
    ends = {"sans ΔW (Colibri avant)": _truncated(before, after, torch.zeros_like), "ΔW entier": after}
    for label, model in ends.items():
        ppl = evaluate_perplexity(model, "b_validation", max_tokens=max_tokens).perplexity
        rows.append([label, percent("sans" in label), ppl])
    table(
        rows,
        header=["ce que l'on garde", "énergie perdue", "perplexité sur B"],
        caption="Le fine-tuning que vous venez de faire, tronqué",
    )


def _curve(points: dict[str, float]) -> tuple[list[int], list[float]]:
    return [int(r) for r in points], list(points.values())


def learned_ranks(found: dict[str, Any]) -> dict[int, list[float]]:
    """Rang → perplexités sur B, une par graine, de LoRA appris sur toutes les couches (α = 2r)."""
    runs = {int(r): [x["B"] for x in line] for r, line in found["rangs"].items()}
    runs[8] = [x["B"] for x in found["langue"]["LoRA"]]
    return {r: runs[r] for r in sorted(runs)}


@from_measures("delta", "rangs", "langue")
def rank_and_perplexity(found: dict[str, Any]) -> None:
    """Perplexité contre rang : ΔW tronqué après coup, et LoRA appris d'emblée à ce rang (mesures enregistrées)."""
    delta, learned = found["delta"], learned_ranks(found)
    series = {
        "ΔW tronqué (seules les couches linéaires ont appris)": _curve(delta["couches linéaires"]["ΔW de rang r"]),
        "ΔW tronqué (tout a appris ; le reste gardé entier)": _curve(delta["tout"]["ΔW de rang r"]),
        "LoRA, appris à ce rang": (list(learned), [statistics.mean(v) for v in learned.values()]),
    }
    lines = {
        "Colibri avant": delta["base"]["B"],
        "couches linéaires": delta["couches linéaires"]["après"]["B"],
        "tout": delta["tout"]["après"]["B"],
    }
    fig, ax = canvas(8.6, 4.2)
    for style, (label, (x, y)) in zip(SERIES, series.items(), strict=False):
        ax.plot(x, y, label=label, **style)
    for linestyle, (label, value) in zip(("-", "--", ":"), lines.items(), strict=True):
        ax.axhline(value, color=BLACK, linestyle=linestyle, linewidth=1.1)
        ax.text(
            1.01, value, f"{label} :\n{number(value, 4)}", transform=ax.get_yaxis_transform(), va="center", fontsize=8
        )
    ax.set(xscale="log", xlabel="rang r (échelle logarithmique)", ylabel="perplexité sur B", xlim=(0.9, 200))
    ax.set_xticks(list(RANKS), [str(r) for r in RANKS])
    french(ax, x=False)
    ax.minorticks_off()
    ax.legend(fontsize=8, loc="lower left")
    told = " ; ".join(
        f"{label} : " + ", ".join(f"rang {r}, {number(p, 4)}" for r, p in zip(x, y, strict=True))
        for label, (x, y) in series.items()
    )
    ends = ", ".join(f"{label} {number(value, 4)}" for label, value in lines.items())
    show(fig, alt=f"Perplexité sur B contre rang. {told}. Repères : {ends}.")
    cut = ", ".join(f"{number(p, 4)} au rang {r}" for r, p in delta["W de rang r"].items())
    alone = delta["tout"]["sans ΔW"]
    note(f"Tout a appris, mais sans aucun ΔW dans les couches linéaires (le rang 0 des carrés) : {number(alone, 4)}.")
    note(
        f"Les poids W eux-mêmes, tronqués de la même façon, sans ΔW : {cut}. ({source(found)}, "
        f"{found['recette']['pas']} pas pour tous ; une graine, trois pour LoRA.)"
    )
