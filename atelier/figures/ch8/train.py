"""Chapitre 8, deuxième partie : LoRA au départ, à l'apprentissage, à côté de peft, puis fusionné."""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from atelier import settings
from atelier.display import note, recorded, show, table
from atelier.figures.ch8.delta import BATCH, LENGTH, from_measures, learned_ranks, source
from atelier.figures.common.layers import linear_layers, weight_of
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.hardware import beside, for_float64, home, median_seconds
from atelier.perplexity import evaluate_perplexity
from atelier.text import interval, number, percent, plural
from atelier.training import corpus_tokens, train, windows

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

TARGETS = ("c_attn", "c_proj", "c_fc")
"""Les noms des couches linéaires d'un bloc de GPT-2 ; il y a deux c_proj."""
Inject = Callable[..., Any]


# --- Le dessin ------------------------------------------------------------------------------------------------------


def drawing(rank: int = 2) -> None:
    """La couche gelée et sa mise à jour : deux chemins entre x et y."""
    from matplotlib.patches import FancyArrowPatch, Polygon

    fig, ax = canvas(7.4, 3.6)
    ax.set(xlim=(0, 10), ylim=(0, 6.2))
    ax.axis("off")
    box: dict[str, Any] = {"edgecolor": BLACK, "linewidth": 1.4}
    ax.add_patch(Polygon([(1.0, 1.6), (4.6, 1.6), (4.6, 4.6), (1.0, 4.6)], facecolor="#D9D9D9", **box))
    ax.text(2.8, 3.1, "W gelée\nd × k", ha="center", va="center", fontsize=12)
    ax.add_patch(Polygon([(6.0, 1.6), (9.4, 1.6), (8.1, 2.9), (7.3, 2.9)], facecolor="#9FC8E3", **box))
    ax.add_patch(Polygon([(7.3, 3.3), (8.1, 3.3), (9.4, 4.6), (6.0, 4.6)], facecolor="#F3C9A5", **box))
    ax.text(7.7, 2.15, "A, r × k\ngaussienne", ha="center", va="center", fontsize=10)
    ax.text(7.7, 4.1, "B, d × r\nzéro", ha="center", va="center", fontsize=10)
    ax.text(8.35, 3.1, f"r nombres (ici r = {rank})", va="center", fontsize=9)
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 14, "color": BLACK, "linewidth": 1.4}
    for start, end in (
        ((5.2, 0.5), (2.8, 1.6)),
        ((5.2, 0.5), (7.7, 1.6)),
        ((7.7, 2.9), (7.7, 3.3)),
        ((2.8, 4.6), (5.1, 5.5)),
        ((7.7, 4.6), (5.3, 5.5)),
    ):
        ax.add_patch(FancyArrowPatch(start, end, **arrow))
    ax.text(5.2, 0.25, "x (k nombres)", ha="center", va="center", fontsize=11)
    ax.text(5.2, 5.85, "y = W x + (α / r) · B (A x)", ha="center", va="center", fontsize=12)
    ax.text(5.2, 5.45, "+", ha="center", va="center", fontsize=14)
    ax.text(6.75, 5.25, "× α / r", fontsize=10)
    show(
        fig,
        alt="Deux chemins entre l'entrée x, k nombres, et la sortie y, d nombres : à gauche la matrice W, gelée ; à "
        "droite A, qui descend à r nombres et part d'une gaussienne, puis B, qui remonte à d nombres et part de zéro. "
        "Le second est multiplié par alpha sur r, puis les deux s'ajoutent.",
    )


# --- Le départ ------------------------------------------------------------------------------------------------------

STARTS = {
    "A gaussienne, B = 0 (LoRA)": (False, True),
    "A = 0, B gaussienne": (True, False),
    "A = 0, B = 0": (True, True),
    "A et B gaussiennes": (False, False),
}


def _set(p: Tensor, zero: bool) -> None:
    if zero:
        p.zero_()
    else:
        p.normal_(std=p.shape[1] ** -0.5, generator=torch.Generator().manual_seed(1))


@recorded("ch8/starts", needs=("lora_linear",))
def starts(model: GPT2LMHeadModel, lora_linear: Any, rank: int = 8, steps: int = 3) -> None:
    """Quatre départs d'une même couche : l'écart à la base avant tout pas, puis les gradients de A et de B."""
    w = weight_of(linear_layers(model)["0.attn.c_attn"]).cpu()
    generator = torch.Generator().manual_seed(0)
    x, target = torch.randn(64, w.shape[1], generator=generator), torch.randn(64, w.shape[0], generator=generator)
    rows = []
    for label, zeros in STARTS.items():
        base = nn.Linear(w.shape[1], w.shape[0], bias=False)
        base.weight.data = w.clone()
        layer = lora_linear(base, rank, 2.0 * rank)
        with torch.no_grad():
            for p, zero in zip((layer.lora_A, layer.lora_B), zeros, strict=True):
                _set(p.cpu(), zero)
            moved = float((layer(x) - base(x)).norm() / base(x).norm())
        optimizer = torch.optim.SGD([layer.lora_A, layer.lora_B], lr=0.05)
        norms = []
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.mse_loss(layer(x), base(x).detach() + target).backward()
            norms.append((float(layer.lora_A.grad.norm()), float(layer.lora_B.grad.norm())))
            optimizer.step()
        rows.append([label, percent(moved), *(number(g, 2) for pair in (norms[0], norms[-1]) for g in pair)])
    table(
        rows,
        header=["départ", "écart à la base", "∂A, pas 1", "∂B, pas 1", f"∂A, pas {steps}", f"∂B, pas {steps}"],
        caption="Normes des gradients, sur la première couche d'attention de Colibri (données au hasard)",
    )


@from_measures("departs")
def start_curves(found: dict[str, Any]) -> None:
    """Perte pendant l'apprentissage de Colibri, selon le départ de A et de B (mesures enregistrées)."""
    fig, ax = canvas(7.6, 3.8)
    told = []
    for style, (label, runs) in zip(SERIES, found["departs"].items(), strict=False):
        curve = [statistics.mean(point) for point in zip(*(r["pertes"] for r in runs), strict=True)]
        steps = [5 * (i + 1) for i in range(len(curve))]
        end = statistics.mean(r["B"] for r in runs)
        if min(curve) > 5:  # un modèle abîmé dès le départ écraserait les autres courbes
            beyond = f"{label} : hors cadre, de {number(curve[0], 3)} à {number(curve[-1], 3, unit='nats')}"
            ax.text(0.98, 0.98, beyond, transform=ax.transAxes, ha="right", va="top", fontsize=9)
        else:
            ax.plot(steps, curve, label=f"{label} ({plural(len(runs), 'graine')})", **style)
        spread = f" (de {interval(min(r['B'] for r in runs), max(r['B'] for r in runs))})"
        told.append(f"{label} : perplexité finale {number(end, 4)}{spread if len(runs) > 1 else ''}")
    ax.set(xlabel="pas d'apprentissage", ylabel="perte sur B (nats, moyenne glissante)")
    french(ax)
    ax.legend(fontsize=9)
    show(fig, alt=f"Perte contre pas. {' ; '.join(told)}.")
    note(". ".join(told) + f". ({source(found)}.)")


# --- Entraîner ------------------------------------------------------------------------------------------------------


def everywhere(model: GPT2LMHeadModel, inject: Inject, rank: int, alpha: float) -> GPT2LMHeadModel:
    """Une copie du modèle où LoRA est posé sur toutes les couches linéaires, une cible après l'autre."""
    adapted = copy.deepcopy(model)
    for target in TARGETS:
        inject(adapted, rank, alpha, target)
    for name, p in adapted.named_parameters():
        p.requires_grad_("lora_" in name)
    return adapted.to(home(model))  # type: ignore[arg-type]


def trained_count(model: nn.Module) -> int:
    """Nombre de paramètres qui apprennent."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@recorded("ch8/train_lora", needs=("inject",))
def train_lora(
    model: GPT2LMHeadModel, inject: Inject, rank: int, steps: int, max_tokens: int, lr: float = 3e-3, seed: int = 0
) -> GPT2LMHeadModel:
    """Entraîne LoRA sur la fantasy, et place le point obtenu sur la courbe enregistrée des rangs."""
    torch.manual_seed(seed)
    adapted = everywhere(model, inject, rank, 2.0 * rank)
    before = evaluate_perplexity(adapted, "b_validation", max_tokens=max_tokens).perplexity
    window = torch.arange(64, device=home(model))[None]
    with torch.inference_mode():
        gap = float((adapted(window).logits - model(window).logits).abs().max())
    batches = windows(corpus_tokens("b_train"), BATCH, LENGTH, seed=seed)
    log = train(adapted, batches, steps, lr=lr, what=f"LoRA, r = {rank}")
    after = evaluate_perplexity(adapted, "b_validation", max_tokens=max_tokens).perplexity
    count = trained_count(adapted)
    general = [evaluate_perplexity(m, "a_validation", max_tokens=max_tokens).perplexity for m in (model, adapted)]
    table(
        [
            ["avant", 0, before, general[0]],
            [f"après {steps} pas", f"{number(count)} ({percent(count / model.num_parameters())})", after, general[1]],
        ],
        header=["LoRA", "paramètres entraînés", "perplexité sur B", "perplexité sur A"],
        caption=f"Votre LoRA, r = {rank}, sur toutes les couches linéaires de Colibri",
    )
    note(f"Avant le premier pas, plus grand écart de logits avec la base : {number(gap, 2)}.")
    _rank_figure(rank, after, steps)
    if not settings.recording():
        note(f"{steps} pas en {number(log.seconds, 2, unit='s')}.")
    return adapted


def _band(ax: Any, points: Mapping[int, list[float]], label: str, style: dict[str, Any]) -> None:
    """Moyenne des graines, et leur étendue en barres."""
    xs = list(points)
    means = [statistics.mean(v) for v in points.values()]
    low = [m - min(v) for m, v in zip(means, points.values(), strict=True)]
    high = [max(v) - m for m, v in zip(means, points.values(), strict=True)]
    ax.errorbar(xs, means, yerr=[low, high], capsize=3, label=label, **style)


@from_measures("rangs", "langue")
def _rank_figure(found: dict[str, Any], rank: int, ppl: float, steps: int) -> None:
    """La courbe enregistrée des rangs et, si le nombre de pas est le même, le point du lecteur."""
    mine = (rank, ppl) if steps == found["recette"]["pas"] else None
    runs = learned_ranks(found)
    full = statistics.mean(r["B"] for r in found["langue"]["tout"])
    fig, ax = canvas(7.6, 3.9)
    _band(ax, runs, "LoRA, toutes les couches (auteur ; barres : étendue des graines)", SERIES[0])
    ax.axhline(full, color=BLACK, linestyle=":", label=f"fine-tuning complet, trois graines : {number(full, 4)}")
    if mine:
        ax.plot(
            *mine, "*", markersize=15, color=SERIES[1]["color"], label=f"le vôtre, une graine : {number(mine[1], 4)}"
        )
    ax.set(xscale="log", xlabel="rang r (échelle logarithmique)", ylabel="perplexité sur B")
    ax.set_xticks(list(runs), [str(r) for r in runs])
    ax.minorticks_off()
    french(ax, x=False)
    ax.legend(fontsize=9)
    told = ", ".join(f"r = {r} : {number(statistics.mean(v), 4)}" for r, v in runs.items())
    own = f" Le point du lecteur, r = {mine[0]} : {number(mine[1], 4)}." if mine else ""
    show(fig, alt=f"Perplexité sur B contre rang. {told} ; fine-tuning complet : {number(full, 4)}.{own}")


@from_measures("rangs", "langue")
def ranks_table(found: dict[str, Any]) -> None:
    """Le balayage du rang, en nombres : paramètres, perplexité, étendue des graines."""
    count = {int(r): line[0]["entraînés"] for r, line in found["rangs"].items()}
    count[8] = found["langue"]["LoRA"][0]["entraînés"]
    rows = [
        [r, count[r], statistics.mean(v), interval(min(v), max(v)) if len(v) > 1 else "1 graine"]
        for r, v in learned_ranks(found).items()
    ]
    steps = found["recette"]["pas"]
    table(
        rows,
        header=["r", "paramètres entraînés", "perplexité sur B", "étendue de 3 graines"],
        caption=f"LoRA sur toutes les couches, α = 2r, {steps} pas, même taux d'apprentissage ({source(found)})",
    )


@from_measures("alphas", "rangs", "langue")
def alphas(found: dict[str, Any]) -> None:
    """Ce que fait α / r quand r change, à taux d'apprentissage égal."""
    at_eight = found["langue"]["LoRA"][0]["B"]
    lines = {rule: {int(r): p for r, p in line.items()} for rule, line in found["alphas"].items()}
    lines["2, quel que soit r"] = {r: found["rangs"][str(r)][0]["B"] for r in (1, 64)}
    table(
        [[rule, line[1], at_eight, line[64]] for rule, line in lines.items()],
        header=["facteur devant BA", "r = 1", "r = 8 (les trois coïncident)", "r = 64"],
        caption=f"Perplexité sur B, même taux d'apprentissage, α réglé pour r = 8 ({source(found)}, une graine)",
    )


@from_measures("cibles", "rangs")
def targets(found: dict[str, Any]) -> None:
    """Où poser LoRA, à nombre de paramètres égal."""
    names = {"c_attn": "Q, K, V (c_attn)", "c_proj": "sorties (les deux c_proj)", "c_fc": "entrée du MLP (c_fc)"}
    places = {names[k]: runs for k, runs in found["cibles"].items()}
    places["toutes les couches"] = [r | {"rang": 4} for r in found["rangs"]["4"]]
    rows = []
    for label, runs in places.items():
        values = [r["B"] for r in runs]
        spread = interval(min(values), max(values))
        rows.append([label, runs[0]["rang"], runs[0]["entraînés"], statistics.mean(values), spread])
    table(
        rows,
        header=["LoRA sur", "r", "paramètres entraînés", "perplexité sur B", "étendue de 3 graines"],
        caption=f"Même nombre de paramètres, à 2 % près, placé ailleurs ({source(found)})",
    )


# --- À côté de peft, et fusion ----------------------------------------------------------------------------------------


class Named(Protocol):
    """Ce dont on sait nommer les paramètres : un modèle, ou une partie d'un modèle."""

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]: ...


def factors(model: Named, rank: int) -> list[tuple[Tensor, Tensor]]:
    """Les couples (A, B) d'un modèle, dans l'ordre de ses couches."""
    a = [p for n, p in model.named_parameters() if "lora_A" in n]
    b = [p for n, p in model.named_parameters() if "lora_B" in n]
    if len(a) != len(b) or any(p.shape[0] != rank for p in a):
        raise ValueError("les paramètres lora_A et lora_B de votre modèle ne vont pas par deux.")
    return list(zip(a, b, strict=True))


def merged_copy(
    model: GPT2LMHeadModel, pairs: Sequence[tuple[Tensor, Tensor]], alpha: float, merge: Any, target: str
) -> GPT2LMHeadModel:
    """Une copie de la base où chaque couche `target` porte le poids fusionné."""
    copied = copy.deepcopy(model)
    layers = [layer for name, layer in linear_layers(copied).items() if name.endswith(target)]
    with torch.no_grad():
        for layer, (a, b) in zip(layers, pairs, strict=True):
            layer.weight.copy_(merge(weight_of(layer), for_float64(a.detach()), for_float64(b.detach()), alpha).T)
    return copied


@recorded("ch8/beside_peft", needs=("inject", "merge"))
def beside_peft(
    model: GPT2LMHeadModel, ids: Tensor, inject: Inject, merge: Any, rank: int = 8, target: str = "c_attn"
) -> None:
    """Le LoRA du lecteur et celui de peft, avec les mêmes poids : comptes, logits, logits après fusion."""
    from peft import LoraConfig, get_peft_model

    ids, alpha = beside(model, ids), 2.0 * rank
    mine = inject(copy.deepcopy(model), rank, alpha, target).to(home(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=rank, lora_alpha=int(alpha), target_modules=[target], fan_in_fan_out=True)
        theirs = get_peft_model(copy.deepcopy(model), config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for (a, b), (a2, b2) in zip(factors(mine, rank), factors(theirs, rank), strict=True):
            for p, q in ((a, a2), (b, b2)):
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
                q.copy_(p)
        logits = {"vous": mine(ids).logits, "peft": theirs(ids).logits}
        counts = {"vous": trained_count(mine), "peft": trained_count(theirs)}
        fused = {
            "vous": merged_copy(model, factors(mine, rank), alpha, merge, target)(ids).logits,
            "peft": theirs.merge_and_unload()(ids).logits,
        }
    spread = float(logits["peft"].std())

    def gap(a: Tensor, b: Tensor) -> str:
        return number(float((a - b).abs().max()), 2)

    table(
        [
            ["paramètres entraînés", *map(number, counts.values()), number(counts["vous"] - counts["peft"])],
            ["logits, LoRA à part", "", "", gap(logits["vous"], logits["peft"])],
            ["logits, LoRA fusionné", "", "", gap(fused["vous"], fused["peft"])],
            ["votre fusion contre votre LoRA à part", "", "", gap(fused["vous"], logits["vous"])],
        ],
        header=["", "vous", "peft", "plus grand écart"],
        caption=f"Mêmes A et B (au hasard), r = {rank}, cible {target} ; écart-type des logits : {number(spread, 3)}",
    )


@recorded("ch8/merged_speed", needs=("inject", "merge"))
def merged_speed(model: GPT2LMHeadModel, ids: Tensor, inject: Inject, merge: Any, rank: int, repeats: int) -> None:
    """Durée d'une fenêtre et d'un jeton : base, LoRA à part, LoRA fusionné."""
    ids = beside(model, ids)
    apart = everywhere(model, inject, rank, 2.0 * rank)
    first = inject(copy.deepcopy(model), rank, 2.0 * rank, "c_attn").to(home(model))
    fused = merged_copy(model, factors(first, rank), 2.0 * rank, merge, "c_attn")
    models = {"base": model, "LoRA à part, partout": apart, "LoRA fusionné": fused}
    spent: dict[str, tuple[list[float], list[float]]] = {label: ([], []) for label in models}
    with torch.inference_mode():
        for _ in range(repeats):  # les trois tour à tour : si la machine ralentit, elle ralentit pour tous
            for label, m in models.items():
                window, token = spent[label]
                window.append(median_seconds(partial(m, ids[:1], use_cache=False), 1, warmup=1))
                token.append(median_seconds(partial(m, ids[:1, :1], use_cache=False), 3, warmup=1))
    rows = [
        [label, *(1000 * statistics.median(times) for times in spent[label]), m.num_parameters()]
        for label, m in models.items()
    ]
    table(
        rows,
        header=["modèle", f"fenêtre de {ids.shape[1]} jetons (ms)", "un jeton (ms)", "paramètres"],
        caption="Inférence : durées médianes sur cette machine, les trois modèles mesurés tour à tour",
    )


@recorded("ch8/voices", needs=("inject",))
def voices(
    base: GPT2LMHeadModel, adapted: GPT2LMHeadModel, tokenizer: Any, prompts: Sequence[str], n_new: int, inject: Inject
) -> None:
    """Les mêmes débuts, continués par la base et par le modèle adapté (tirage fixé) ; inject dit d'où vient LoRA."""
    rows = []
    for prompt in prompts:
        ids = beside(base, tokenizer(prompt, return_tensors="pt")["input_ids"])
        options = {"do_sample": True, "temperature": 0.8, "top_k": 40, "max_new_tokens": n_new, "min_new_tokens": n_new}
        for label, m in (("Colibri", base), ("avec LoRA", adapted)):
            torch.manual_seed(3)
            out = m.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=base.config.eos_token_id, **options)
            text = " ".join(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).split())
            rows.append([f"{prompt} …", label, text])
    table(rows, header=["début", "modèle", "suite"], caption="Mêmes débuts, même graine, deux voix")
