"""Chapitre 5, première partie : quels poids retirer ? Au hasard, les plus petits, les moins utiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atelier.display import note, recorded, show, table
from atelier.figures.ch5.masks import linear_weights, magnitude_model, masked, random_model, wanda_model
from atelier.figures.common.controls import Slider, explore
from atelier.figures.common.layers import KINDS, calibration_ids, layer_inputs, layer_label, linear_layers, weight_of
from atelier.figures.common.style import BLACK, BLUE, ORANGE, RED, SERIES, SKY, canvas, french, progress_bar
from atelier.hardware import beside
from atelier.measures import load_measures
from atelier.models import load_tokenizer
from atelier.perplexity import evaluate_perplexity
from atelier.text import number, percent

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

CHAPTER = "ch5_elagage"
CURVES = {
    "aleatoire": "au hasard",
    "magnitude": "magnitude, par couche",
    "globale": "magnitude, globale",
    "wanda": "Wanda",
    "sparsegpt": "SparseGPT",
}
"""Méthodes enregistrées, et leur nom sur les figures."""

Magnitude = Callable[[Tensor, float], Tensor]
Wanda = Callable[[Tensor, Tensor, float], Tensor]


def what_is_pruned(model: GPT2LMHeadModel) -> None:
    """Ce que ce chapitre élague, et ce qu'il laisse, en une phrase."""
    layers, total = linear_layers(model), model.num_parameters()
    n = sum(layer.weight.numel() for layer in layers.values())
    note(
        f"Élagués ici : les poids des {len(layers)} couches linéaires, {number(n)} sur {number(total)} paramètres "
        f"({percent(n / total)}). Laissés : les deux tables d'entrée, les biais, les LayerNorm."
    )


@recorded("ch5/zeros_of", needs=("sparsity",))
def zeros_of(model: GPT2LMHeadModel, sparsity: Callable[..., float]) -> None:
    """La parcimonie de Colibri tel que livré, par nature de tenseur, et celle de ce qui circule dans son MLP."""
    weights = linear_weights(model)
    ids = calibration_ids(model, load_tokenizer("colibri"), 1)
    hidden = layer_inputs(model, ids, [f"{b}.mlp.c_proj" for b in range(model.config.n_layer)])
    n = sum(w.numel() for w in weights.values())
    small = sum(int((w.abs() < 0.01 * w.abs().max()).sum()) for w in weights.values())
    note(
        f"Part de zéros : poids des couches linéaires, {percent(sparsity(weights.values()))}, mais "
        f"{percent(small / n)} sont au centième du plus grand de leur couche, ou moins ; tous les paramètres, "
        f"{percent(sparsity(model.parameters()))} ; sorties de la GELU, {percent(sparsity(hidden.values()))}."
    )


# --- La magnitude ---------------------------------------------------------------------------------------------------


@recorded("ch5/threshold", needs=("magnitude",))
def threshold(w: Tensor, magnitude: Magnitude, amount: float = 0.5) -> None:
    """Histogramme des poids d'une couche, ceux que le masque retire étant marqués ; `amount` se règle au curseur."""
    explore(
        lambda amount: _threshold(w, magnitude(w, amount), amount),
        amount=Slider(amount, 0.0, 1.0, 0.05, "part retirée"),
    )


def _threshold(w: Tensor, mask: Tensor, amount: float) -> tuple[Any, str]:
    fig, ax = canvas(8, 3.2)
    low, high = w.quantile(0.001).item(), w.quantile(0.999).item()
    bins = torch.linspace(low, high, 81).tolist()
    kept, gone = w[mask].flatten().cpu(), w[~mask].flatten().cpu()
    ax.hist(
        [gone.numpy(), kept.numpy()],
        bins=bins,
        stacked=True,
        color=[ORANGE, BLUE],
        label=[f"retirés : {percent(amount)} des poids", "gardés"],
    )
    ax.set_xlabel("poids")
    ax.set_ylabel("nombre de poids")
    ax.legend(frameon=False)
    french(ax)
    lost = (gone.double().square().sum() / w.cpu().double().square().sum()).item()
    limit = gone.abs().max().item() if len(gone) else 0.0
    ax.set_title(f"retirés : |w| ≤ {number(limit, 3)}, soit {percent(lost)} de la somme des carrés", fontsize=10)
    return fig, (
        f"Histogramme en cloche de {number(w.numel())} poids. Les {percent(amount)} les plus petits, tous entre "
        f"−{number(limit, 3)} et {number(limit, 3)}, sont marqués : ils portent {percent(lost)} de la somme des carrés."
    )


# --- Les courbes enregistrées, et le point du lecteur ---------------------------------------------------------------


def curve(name: str) -> dict[float, list[float]]:
    """Une courbe enregistrée : part retirée → perplexités, une par graine (une seule si rien n'y est au hasard).

    Vide si elle n'a pas été mesurée.
    """
    points = load_measures(CHAPTER).get(name, {})
    return {float(k): v if isinstance(v, list) else [v] for k, v in sorted(points.items())}


def _draw_curves(names: Sequence[str], live: dict[str, dict[float, float]], tokens: int) -> None:
    measures = load_measures(CHAPTER)
    dense = measures["dense"]["perplexité"]
    fig, ax = canvas(8.4, 4.2)
    for name, look in zip(CURVES, SERIES, strict=False):
        if name not in names:
            continue
        points = curve(name)
        if name in live:
            xs, ys = [100 * x for x in live[name]], list(live[name].values())
            ax.plot(xs, ys, look["marker"], color=look["color"], ms=10, mec=BLACK, label=f"{CURVES[name]} (vous)")
        if not points:
            continue
        xs = [100 * x for x in points]
        middle = [sorted(v)[len(v) // 2] for v in points.values()]
        ax.plot(xs, middle, label=f"{CURVES[name]} (auteur)", lw=1.5, ms=5, markerfacecolor="white", **look)
        low, high = [min(v) for v in points.values()], [max(v) for v in points.values()]
        ax.fill_between(xs, low, high, color=look["color"], alpha=0.2)
    ax.axhline(dense, color=BLACK, lw=1, ls=":")
    ax.text(90, dense, "modèle entier", va="bottom", ha="right", fontsize=8.5)
    ax.set_yscale("log")
    ax.set_xlabel("part des poids retirés (%)")
    ax.set_ylabel("perplexité (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=8.5)
    french(ax)
    told = []
    for name in names:
        if not (points := curve(name)):
            continue
        told.append(
            f"{CURVES[name]} : "
            + ", ".join(
                f"{number(sorted(points[a])[len(points[a]) // 2], 3)} à {percent(a)}"
                for a in (0.3, 0.5, 0.7)
                if a in points
            )
        )
    yours = [f"{CURVES[n]} à {percent(a)} : {number(p, 3)}" for n, points in live.items() for a, p in points.items()]
    show(
        fig,
        alt=f"Perplexité contre part des poids retirés, modèle entier : {number(dense, 3)}. Courbes de l'auteur : "
        + " ; ".join(told)
        + (". Vos points, " + ", ".join(yours) if yours else "")
        + ".",
    )
    if tokens != 4096:
        note(f"Vos points sont mesurés sur {number(tokens)} jetons, la courbe sur 4 096 : ils ne se comparent pas.")


def _source(names: Sequence[str]) -> None:
    measures = load_measures(CHAPTER)
    seeds = len(measures["recette"]["graines"])
    bands = [CURVES[n] for n in names if n in ("aleatoire", "wanda") and curve(n)]
    spread = f" ; {' et '.join(bands)} : {seeds} graines, médiane et étendue" if bands else ""
    note(f"Courbes mesurées par l'auteur ({measures['machine']}){spread}.")


@recorded("ch5/sweep_magnitude", needs=("magnitude",))
def sweep_magnitude(model: GPT2LMHeadModel, magnitude: Magnitude, amounts: Sequence[float], tokens: int) -> None:
    """Colibri élagué couche par couche, au hasard (une graine) puis avec votre masque, sur les courbes de l'auteur."""
    live: dict[str, dict[float, float]] = {"aleatoire": {}, "magnitude": {}}
    for a in progress_bar(amounts, "élagage"):
        for name, pruned in (
            ("aleatoire", random_model(model, a, 0)),
            ("magnitude", magnitude_model(model, magnitude, a)),
        ):
            live[name][a] = evaluate_perplexity(pruned, max_tokens=tokens).perplexity
    _draw_curves(("aleatoire", "magnitude"), live, tokens)
    _source(("aleatoire", "magnitude"))


@recorded("ch5/sweep_global", needs=("global_masks",))
def sweep_global(
    model: GPT2LMHeadModel,
    global_masks: Callable[[dict[str, Tensor], float], dict[str, Tensor]],
    amounts: Sequence[float],
    tokens: int,
) -> None:
    """Colibri élagué d'après un seul classement, le vôtre, à côté de la magnitude par couche."""
    weights = linear_weights(model)
    live = {
        a: evaluate_perplexity(masked(model, global_masks(weights, a)), max_tokens=tokens).perplexity
        for a in progress_bar(amounts, "élagage")
    }
    _draw_curves(("magnitude", "globale"), {"globale": live}, tokens)
    _source(("magnitude", "globale"))


@recorded("ch5/sweep_wanda", needs=("wanda",))
def sweep_wanda(model: GPT2LMHeadModel, ids: Tensor, wanda: Wanda, amounts: Sequence[float], tokens: int) -> None:
    """Colibri élagué par votre Wanda, à côté de la magnitude et de SparseGPT."""
    live = {
        a: evaluate_perplexity(wanda_model(model, ids, wanda, a), max_tokens=tokens).perplexity
        for a in progress_bar(amounts, "élagage")
    }
    names = ("magnitude", "globale", "wanda", "sparsegpt")
    _draw_curves(names, {"wanda": live}, tokens)
    _source(names)


@recorded("ch5/sentences", needs=("magnitude",))
def sentences(
    model: GPT2LMHeadModel,
    tokenizer: Any,
    prompt: str,
    magnitude: Magnitude,
    amounts: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
    n_new: int = 24,
) -> None:
    """La suite la plus probable que Colibri donne à `prompt`, une fois élagué."""
    ids = beside(model, tokenizer(prompt, return_tensors="pt")["input_ids"])
    options = {"do_sample": False, "max_new_tokens": n_new, "pad_token_id": model.config.eos_token_id}
    rows = []
    for a in (0.0, *amounts):
        pruned = magnitude_model(model, magnitude, a) if a else model
        out = pruned.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :]
        rows.append([percent(a), " ".join(tokenizer.decode(out, skip_special_tokens=True).split())])
    table(rows, header=["retirés", f"« {prompt} … »"], caption="La phrase la plus probable, jeton après jeton")


# --- D'une couche à l'autre -----------------------------------------------------------------------------------------


def _grid(values: dict[str, float], title: str, text: Callable[[float], str], log: bool = False) -> tuple[Any, Any]:
    """Une carte bloc × nature de couche ; log : teintes d'après le logarithme, à partir d'un millième."""
    blocks = sorted({int(n.split(".", 1)[0]) for n in values})
    data = torch.tensor([[values[f"{b}.{k}"] for k in KINDS] for b in blocks])
    fig, ax = canvas(7.2, 0.9 + 0.5 * len(blocks))
    shown = data.clamp(min=1e-3).log() if log else data
    ax.imshow(shown, cmap="cividis_r", aspect="auto")
    dark = shown.min() + 0.55 * (shown.max() - shown.min())
    for i in range(len(blocks)):
        for j in range(len(KINDS)):
            color = "white" if shown[i, j] > dark else BLACK
            ax.text(j, i, text(data[i, j].item()), ha="center", va="center", fontsize=9, color=color)
    ax.set_xticks(range(len(KINDS)), KINDS.values(), fontsize=9)
    ax.set_yticks(range(len(blocks)), [f"bloc {b}" for b in blocks], fontsize=9)
    ax.set_title(title, fontsize=10)
    ax.grid(False)
    return fig, ax


@recorded("ch5/global_shares", needs=("global_masks",))
def global_shares(
    model: GPT2LMHeadModel, global_masks: Callable[[dict[str, Tensor], float], dict[str, Tensor]], amount: float = 0.5
) -> None:
    """Ce que chaque couche perd quand toutes sont classées ensemble."""
    weights = linear_weights(model)
    masks = global_masks(weights, amount)
    gone = {n: 1 - m.float().mean().item() for n, m in masks.items()}
    fig, _ = _grid(gone, f"Part retirée de chaque couche, {percent(amount)} en tout", lambda v: percent(v, decimals=0))
    worst, best = max(gone, key=gone.__getitem__), min(gone, key=gone.__getitem__)
    size = {n: w.abs().mean().item() for n, w in weights.items()}
    show(
        fig,
        alt=f"Carte bloc par nature de couche de la part retirée : de {percent(gone[best])} ({layer_label(best)}) "
        f"à {percent(gone[worst])} ({layer_label(worst)}).",
    )
    note(
        f"La plus dégarnie ({layer_label(worst)}) a des poids de taille moyenne {number(size[worst], 2)} ; la plus "
        f"épargnée ({layer_label(best)}), de {number(size[best], 2)}."
    )


@recorded("ch5/sensitivity", needs=("magnitude",))
def sensitivity(model: GPT2LMHeadModel, magnitude: Magnitude, tokens: int, amount: float = 0.5) -> None:
    """Chaque couche élaguée seule : de combien la perplexité monte-t-elle ?"""
    dense = evaluate_perplexity(model, max_tokens=tokens).perplexity
    weights, rise = linear_weights(model), {}
    for name in progress_bar(list(weights), "une couche à la fois"):
        only = masked(model, {name: magnitude(weights[name], amount)})
        rise[name] = evaluate_perplexity(only, max_tokens=tokens).perplexity / dense - 1
    fig, _ = _grid(
        rise,
        f"Hausse de la perplexité, une seule couche élaguée à {percent(amount)}",
        lambda v: percent(v, decimals=1, signed=True),
        log=True,
    )
    order = sorted(rise, key=rise.__getitem__)
    kinds = {k: sum(v for n, v in rise.items() if n.endswith(k)) / model.config.n_layer for k in KINDS}
    show(
        fig,
        alt=f"Carte bloc par nature de couche de la hausse de perplexité : de {percent(max(rise[order[0]], 0))} "
        f"({layer_label(order[0])}) à {percent(rise[order[-1]])} ({layer_label(order[-1])}).",
    )
    table(
        [[KINDS[k], weights[f"0.{k}"].numel(), percent(kinds[k], decimals=1)] for k in KINDS],
        header=["nature de la couche", "poids par bloc", "hausse moyenne"],
        caption=f"Les mêmes, par nature ({number(tokens)} jetons évalués)",
    )


# --- Wanda ------------------------------------------------------------------------------------------------------------


@recorded("ch5/weight_and_input", needs=("magnitude", "wanda"))
def weight_and_input(w: Tensor, x: Tensor, magnitude: Magnitude, wanda: Wanda, name: str, amount: float = 0.5) -> None:
    """Chaque poids d'une couche : sa taille, et la norme de ce qu'il multiplie ; qui retire quoi."""
    small, useless = ~magnitude(w, amount), ~wanda(w, x, amount)
    norms = x.norm(dim=0).expand(w.shape)
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(w.numel(), generator=generator)[:4000].to(w.device)
    groups = [
        ("gardés par les deux", ~small & ~useless, BLUE, "o"),
        ("retirés par les deux", small & useless, SKY, "."),
        ("retirés par la magnitude seule", small & ~useless, RED, "s"),
        ("retirés par Wanda seul", ~small & useless, ORANGE, "^"),
    ]
    fig, ax = canvas(7.6, 4.2)
    for label, group, color, marker in groups:
        chosen = some[group.flatten()[some]]
        share = group.float().mean().item()
        ax.plot(
            norms.flatten()[chosen].cpu(), w.abs().flatten()[chosen].cpu(), marker, color=color, ms=3, alpha=0.6,
            label=f"{label} : {percent(share)}",
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xticks([m * 10**e for e in range(-1, 4) for m in (1, 2, 5) if norms.min() <= m * 10**e <= norms.max()])
    ax.set_yscale("log")
    ax.set_ylim(bottom=w.abs().max().item() / 2000)
    ax.set_xlabel("norme de l'entrée, ‖x‖ (échelle logarithmique)")
    ax.set_ylabel("|w| (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=8.5, markerscale=2.5, loc="upper left", bbox_to_anchor=(1, 1))
    french(ax)
    one = x.norm(dim=0)
    show(
        fig,
        alt=f"Nuage de points, taille du poids contre norme de son entrée, {layer_label(name)}. "
        + " ; ".join(f"{label} : {percent(group.float().mean().item())}" for label, group, _, _ in groups)
        + ". La magnitude coupe à l'horizontale, Wanda en biais.",
    )
    note(
        f"Couche montrée : {layer_label(name)}. La plus grande entrée a une norme "
        f"{number((one.max() / one.median()).item(), 3)} fois la médiane, la plus petite "
        f"{number((one.median() / one.min()).item(), 3)} fois moins."
    )


@recorded("ch5/layer_errors", needs=("magnitude", "wanda"))
def layer_errors(model: GPT2LMHeadModel, ids: Tensor, magnitude: Magnitude, wanda: Wanda, amount: float = 0.5) -> None:
    """Ce que chaque critère abîme : les poids d'un côté, la sortie de la couche de l'autre.

    La première moitié de ids sert d'étalonnage, la seconde mesure.
    """
    half = len(ids) // 2
    known, new, rows = layer_inputs(model, ids[:half]), layer_inputs(model, ids[half:]), []
    for name, layer in linear_layers(model).items():
        w, x = weight_of(layer), new[name]
        output = x @ w.T
        line = []
        for mask in (magnitude(w, amount), wanda(w, known[name], amount)):
            gone = w * ~mask
            line += [(gone.norm() / w.norm()).item(), ((x @ gone.T).norm() / output.norm()).item()]
        rows.append((name, *line))
    fig, axes = canvas(9, 3.6, columns=2, sharey=True)
    for ax, (first, second), title in (
        (axes[0], (1, 3), "erreur sur les poids"),
        (axes[1], (2, 4), "erreur sur la sortie"),
    ):
        for k, label, look in ((first, "magnitude", SERIES[1]), (second, "Wanda", SERIES[3])):
            ax.plot([r[k] for r in rows], label=label, lw=1.5, ms=5, **look)
        ax.set_title(title, fontsize=10)
        per_block, blocks = len(KINDS), len(rows) // len(KINDS)
        ax.set_xticks(
            [per_block * b + (per_block - 1) / 2 for b in range(blocks)], [f"bloc {b}" for b in range(blocks)]
        )
        for b in range(1, blocks):
            ax.axvline(per_block * b - 0.5, color="#999999", lw=0.8)
        ax.grid(axis="x", visible=False)
        french(ax, x=False)
    axes[0].set_ylabel("norme de l'écart / norme")
    axes[0].set_ylim(0)
    axes[1].legend(frameon=False)
    mean = [sum(r[k] for r in rows) / len(rows) for k in range(1, 5)]
    better = sum(r[4] < r[2] for r in rows)
    show(
        fig,
        alt="Deux courbes par panneau, couche par couche. Erreur moyenne sur les poids : magnitude "
        f"{number(mean[0], 3)}, Wanda {number(mean[2], 3)}. Erreur moyenne sur la sortie : magnitude "
        f"{number(mean[1], 3)}, Wanda {number(mean[3], 3)}.",
    )
    note(
        f"Erreur moyenne sur les poids : {number(mean[0], 3)} pour la magnitude, {number(mean[2], 3)} pour Wanda. Sur "
        f"la sortie : {number(mean[1], 3)} et {number(mean[3], 3)} ; Wanda y fait mieux sur {better} couches sur "
        f"{len(rows)}. Dans chaque bloc, de gauche à droite : {' ; '.join(KINDS.values())}."
    )
