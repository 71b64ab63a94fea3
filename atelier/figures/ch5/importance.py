"""Chapitre 5, première partie : quels poids retirer ? Au hasard, les plus petits, les moins utiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from atelier.checker import passed
from atelier.display import note, show, table
from atelier.evidence import paired, perplexity_of
from atelier.figures.common.controls import Slider, explore
from atelier.figures.common.layers import KINDS, layer_label
from atelier.figures.common.style import BLACK, BLUE, ORANGE, RED, SERIES, SKY, canvas, french
from atelier.text import number, percent

Magnitude = Callable[[Tensor, float], Tensor]
Measured = Mapping[str, Any]
"""« jetons » : ceux de l'extrait ; « pertes » : (méthode, part retirée), ou « entier » → pertes, part à part."""

LOOKS = {
    "hasard": SERIES[5],
    "magnitude": SERIES[1],
    "magnitude, globale": SERIES[4],
    "Wanda": SERIES[3],
    "Fisher, globale": SERIES[0],
    "Fisher, par couche": {**SERIES[0], "color": SKY, "marker": "P", "linestyle": "--"},
    "SparseGPT": SERIES[2],
}
"""L'aspect d'une méthode, le même sur toutes les figures."""
NAMES = {"hasard": "au hasard", "magnitude": "magnitude, par couche", "Wanda": "Wanda, par ligne"}


def what_is_pruned(total: int, sizes: Mapping[str, int]) -> None:
    """Ce que ce chapitre élague, et ce qu'il laisse, en une phrase. sizes : chemin d'une couche → nombre de poids."""
    n = sum(sizes.values())
    note(
        f"Élagués ici : les poids des {number(len(sizes))} couches linéaires, {number(n)} sur {number(total)} "
        f"paramètres ({percent(n / total)}). Laissés : les deux tables d'entrée, les biais, les LayerNorm."
    )


def census_table(found: Mapping[str, Mapping[str, float]]) -> None:
    """Parts de zéros, et de presque zéros. found : espèce → « nuls », « presque nuls »."""
    table(
        [[kind, percent(row["nuls"]), percent(row["presque nuls"])] for kind, row in found.items()],
        header=["valeurs", "exactement nulles", "au centième du plus grand de leur tenseur, ou moins"],
        caption="La parcimonie de Colibri tel que livré",
    )


# --- La magnitude ---------------------------------------------------------------------------------------------------


def threshold(w: Tensor, magnitude: Magnitude, amount: float = 0.5) -> None:
    """Histogramme des poids d'une couche, ceux que le masque retire étant marqués ; `amount` se règle au curseur."""
    if not passed(magnitude):
        cut = w.abs().flatten().kthvalue(max(1, round(amount * w.numel()))).values
        fig, alt = _threshold(w, w.abs() > cut, amount)
        show(fig, alt=alt)
        return
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
        label=[f"retirés : {percent(amount)} des poids", "gardés"],
    )
    ax.set_xlabel("poids")
    ax.set_ylabel("nombre de poids")
    ax.legend(frameon=False)
    french(ax)
    lost = (gone.double().square().sum() / w.cpu().double().square().sum()).item()
    limit = gone.abs().max().item() if len(gone) else 0.0
    ax.set_title(f"retirés : |w| ≤ {number(limit, 3)}, soit {percent(lost)} de la somme des carrés", fontsize=10)
    return fig, (
        f"Histogramme en cloche de {number(w.numel())} poids. Les {percent(amount)} les plus petits, tous entre "
        f"−{number(limit, 3)} et {number(limit, 3)}, sont marqués : ils portent {percent(lost)} de la somme des carrés."
    )


# --- Perplexité contre part retirée -----------------------------------------------------------------------------------


def plot_sweeps(*sweeps: Measured) -> None:
    """Perplexité de Colibri contre la part retirée, une courbe par méthode ; au hasard, la moyenne des tirages."""
    whole = perplexity_of(next(s["pertes"]["entier"] for s in sweeps if "entier" in s["pertes"]))
    curves: dict[str, dict[float, list[float]]] = {}
    for key, losses in (item for s in sweeps for item in s["pertes"].items()):
        if key != "entier":
            curves.setdefault(key[0], {}).setdefault(key[1], []).append(perplexity_of(losses))
    fig, ax = canvas(8.4, 4.2)
    for name, points in curves.items():
        middle = {100 * a: mean(values) for a, values in points.items()}
        ax.plot(list(middle), list(middle.values()), label=NAMES.get(name, name), lw=1.6, ms=5.5, **LOOKS[name])
        for a, values in points.items():
            ax.plot([100 * a] * len(values), values, ".", color=LOOKS[name]["color"], ms=4)
    ax.axhline(whole, color=BLACK, lw=1, ls=":")
    ax.text(1, whole, "Colibri entier", va="bottom", fontsize=9)
    ax.set_xlim(0, 100 * max(a for points in curves.values() for a in points) + 5)
    log_axis(ax, whole, max(v for points in curves.values() for values in points.values() for v in values))
    ax.set_xlabel("part des poids retirés (%)")
    ax.set_ylabel("perplexité (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=9)
    french(ax, y=False)
    told = (
        f"{NAMES.get(name, name)} : " + ", ".join(f"{number(mean(v), 3)} à {percent(a)}" for a, v in points.items())
        for name, points in curves.items()
    )
    show(fig, alt=f"Perplexité contre part retirée ; Colibri entier : {number(whole, 4)}. " + " ; ".join(told) + ".")
    tokens = sorted({s["jetons"] for s in sweeps})
    if len(tokens) > 1:
        told_tokens = " et ".join(number(n) for n in tokens)
        note(f"Attention : ces courbes viennent d'extraits de longueurs différentes ({told_tokens} jetons).")
    else:
        note(f"Perplexité sur les {number(tokens[0])} premiers jetons de l'extrait de validation.")


def log_axis(ax: Any, low: float, high: float) -> None:
    """Une échelle verticale logarithmique, graduée en nombres ordinaires : 1, 2, 5, 10, 20…"""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    from atelier.text import graduation

    steps = (1, 2, 5) if high / low < 1000 else (1,)
    ticks = [m * 10.0**e for e in range(-4, 8) for m in steps if 0.8 * low <= m * 10.0**e <= 1.3 * high]
    ax.set_yscale("log")
    ax.set_ylim(0.85 * low, 1.2 * high)
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: graduation(v) if v < 10_000 else number(v)))


def how_many_times(measured: Measured, key: tuple[str, float]) -> str:
    """De combien la perplexité est multipliée, dans les mots du premier pari."""
    found = measured["pertes"]
    if key not in found:
        return "une part qui n'a pas été mesurée"
    ratio = perplexity_of(found[key]) / perplexity_of(found["entier"])
    words = {1.4: "à peine plus de 1", 3.3: "à peu près 2", 20: "à peu près 5"}
    return next((said for limit, said in words.items() if ratio < limit), "plus de 100")


def better_of(by_layer: Measured, global_: Measured, amount: float = 0.5) -> str:
    """Le verdict du deuxième pari : le classement global contre la magnitude par couche."""
    gap = paired(global_["pertes"]["magnitude, globale", amount], by_layer["pertes"]["magnitude", amount])
    if not gap.told_apart:
        return "on ne peut pas les départager"
    return "moins bien" if gap.mean > 0 else "mieux que couche par couche"


def what_was_missing(entering: Measured, by_loss: Measured, amount: float = 0.5) -> str:
    """Le verdict du troisième pari : laquelle des deux pistes répare le mieux le classement global."""
    inputs, loss = entering["pertes"]["Wanda, globale"], by_loss["pertes"]["Fisher, globale", amount]
    ahead = perplexity_of(loss) < perplexity_of(inputs)
    return "ce que la perte fait de sa sortie" if ahead else "ce qui entre dans la couche"


def sentences_table(found: Mapping[str, Any]) -> None:
    """La suite d'un début de phrase. found : « début », et « suites » (part retirée → suite)."""
    table(
        [[percent(amount), said] for amount, said in found["suites"].items()],
        header=["retirés", f"« {found['début']} … »"],
        caption="Un même tirage, à T = 0,7",
    )


def versions_table(measured: Measured, caption: str) -> None:
    """Une ligne par version. pertes : nom → pertes ; « paramètres », s'il y est : nom → nombre de paramètres."""
    found, counts = measured["pertes"], measured.get("paramètres", {})
    first = next(iter(found))
    table(
        [
            [
                name,
                *([counts[name]] if counts else []),
                number(perplexity_of(losses), 4),
                "—" if name == first else paired(losses, found[first]).as_ratio(),
            ]
            for name, losses in found.items()
        ],
        header=["version", *(["paramètres"] if counts else []), "perplexité", f"rapport à « {first} »"],
        caption=f"{caption} [intervalle à 95 %]",
    )


def seeds_table(measured: Measured, caption: str) -> None:
    """Une ligne par méthode, une colonne par tirage. pertes : méthode → une suite de pertes par tirage."""
    found = measured["pertes"]
    count = len(next(iter(found.values())))
    table(
        [[name, *(number(perplexity_of(losses), 4) for losses in runs)] for name, runs in found.items()],
        header=["route", *(f"tirage {i}" for i in range(count))],
        caption=f"{caption} ({number(measured['jetons'])} jetons évalués)",
    )


# --- D'une couche à l'autre -----------------------------------------------------------------------------------------


def plot_map(values: Mapping[str, float], title: str, log: bool = False, share: bool = True) -> None:
    """Une carte bloc × nature de couche. values : chemin → nombre ; log : teintes d'après le logarithme.

    share : les nombres sont des parts, écrites en pour cent.
    """
    short = {name.removeprefix("transformer.h."): v for name, v in values.items()}
    blocks = sorted({int(n.split(".", 1)[0]) for n in short})
    data = torch.tensor([[short[f"{b}.{k}"] for k in KINDS] for b in blocks])
    fig, ax = canvas(7.2, 0.9 + 0.5 * len(blocks))
    shown = data.clamp(min=1e-3).log() if log else data
    image = ax.imshow(shown, cmap="cividis_r", aspect="auto")
    dark = shown.min() + 0.55 * (shown.max() - shown.min())

    def said(v: float) -> str:
        return percent(v, decimals=1 if log else 0, signed=log) if share else number(v, decimals=2)

    for i in range(len(blocks)):
        for j in range(len(KINDS)):
            color = "white" if shown[i, j] > dark else BLACK
            ax.text(j, i, said(data[i, j].item()), ha="center", va="center", fontsize=10, color=color)
    bar = fig.colorbar(image, ax=ax, ticks=[shown.min().item(), shown.max().item()])
    low, high = min(short, key=short.__getitem__), max(short, key=short.__getitem__)
    bar.ax.set_yticklabels([said(short[low]), said(short[high])], fontsize=9)
    ax.set_xticks(range(len(KINDS)), KINDS.values(), fontsize=9.5)
    ax.set_yticks(range(len(blocks)), [f"bloc {b}" for b in blocks], fontsize=9.5)
    ax.set_title(title, fontsize=10.5)
    ax.grid(False)
    show(
        fig,
        alt=f"Carte bloc par nature de couche. {title} : de {said(short[low])} ({layer_label(low)}) à "
        f"{said(short[high])} ({layer_label(high)}).",
    )


def rises(measured: Measured) -> dict[str, float]:
    """Chemin → hausse de la perplexité quand cette couche seule est élaguée, en part de celle du modèle entier."""
    found = measured["pertes"]
    return {
        name: perplexity_of(losses) / perplexity_of(found["entier"]) - 1
        for name, losses in found.items()
        if name != "entier"
    }


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Corrélation des rangs (Spearman) : 1, le même rangement ; 0, aucun rapport ; −1, l'inverse."""
    ranks = [torch.tensor(values).argsort().argsort().double() for values in (a, b)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()


def map_against_map(shares: Mapping[str, float], costs: Mapping[str, float]) -> None:
    """La corrélation des rangs des deux cartes, avec et sans le bloc 0, et ce que dit une ligne ou une colonne."""
    rest = [name for name in shares if not name.startswith("transformer.h.0.")]

    def said(names: Sequence[str]) -> str:
        value = rank_correlation([shares[n] for n in names], [costs[n] for n in names])
        return number(value, decimals=2, signed=True)

    note(
        f"Corrélation des rangs entre les deux cartes (1 : même rangement ; 0 : aucun rapport) : {said(list(shares))} "
        f"sur les {number(len(shares))} couches, {said(rest)} sans le bloc 0."
    )


# --- Wanda ------------------------------------------------------------------------------------------------------------


def plot_weight_and_input(found: Mapping[str, Any]) -> None:
    """Des poids d'une couche. found : « taille », « entrée » (norme), et qui les garde, « magnitude » et « Wanda »."""
    size, entering = found["taille"], found["entrée"]
    by_size, by_wanda = found["magnitude"].bool(), found["Wanda"].bool()
    groups = [
        ("gardés par les deux", by_size & by_wanda, BLUE, "o"),
        ("retirés par les deux", ~by_size & ~by_wanda, SKY, "."),
        ("retirés par la magnitude seule", ~by_size & by_wanda, RED, "s"),
        ("retirés par Wanda seul", by_size & ~by_wanda, ORANGE, "^"),
    ]
    fig, ax = canvas(8.4, 4.2)
    for label, group, color, marker in groups:
        legend = f"{label} : {percent(group.float().mean().item())}"
        ax.plot(entering[group], size[group], marker, color=color, ms=3, alpha=0.6, label=legend)
    ax.set_xscale("log")
    low, high = entering.min().item(), entering.max().item()
    ax.set_xticks([m * 10**e for e in range(-1, 4) for m in (1, 2, 5) if low <= m * 10**e <= high])
    ax.minorticks_off()
    log_axis(ax, size.max().item() / 1000, size.max().item())
    ax.set_xlabel("norme de l'entrée, ‖x‖ (échelle logarithmique)")
    ax.set_ylabel("|w| (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=9, markerscale=2.5, loc="upper left", bbox_to_anchor=(1, 1))
    french(ax, y=False)
    shares = " ; ".join(f"{label} : {percent(group.float().mean().item())}" for label, group, _, _ in groups)
    show(
        fig,
        alt=f"Nuage de points, taille du poids contre norme de son entrée, {layer_label(found['couche'])}. {shares}. "
        "La magnitude coupe à l'horizontale, Wanda en biais.",
    )
    note(f"Couche montrée : {layer_label(found['couche'])}.")


def plot_layer_errors(found: Mapping[tuple[str, str, str], float]) -> None:
    """Ce que chaque masque abîme. found : (chemin, méthode, « poids » ou « sortie ») → écart, en part de la norme."""
    names = list(dict.fromkeys(name for name, _, _ in found))
    fig, axes = canvas(9, 3.6, columns=2, sharey=True)
    per_block, means = len(KINDS), {}
    for ax, what in zip(axes, ("poids", "sortie"), strict=True):
        for method, look in (("magnitude", LOOKS["magnitude"]), ("Wanda", LOOKS["Wanda"])):
            line = [found[name, method, what] for name in names]
            means[method, what] = mean(line)
            ax.plot(line, label=method, lw=1.5, ms=5, **look)
        ax.set_title("erreur sur les poids" if what == "poids" else "erreur sur la sortie", fontsize=10.5)
        blocks = range(len(names) // per_block)
        ax.set_xticks([per_block * b + (per_block - 1) / 2 for b in blocks], [f"bloc {b}" for b in blocks])
        for b in list(blocks)[1:]:
            ax.axvline(per_block * b - 0.5, color="#999999", lw=0.8)
        ax.grid(axis="x", visible=False)
        french(ax, x=False)
    axes[0].set_ylabel("norme de l'écart / norme")
    axes[0].set_ylim(0)
    axes[1].legend(frameon=False)
    told = {what: [number(means[m, what], 3) for m in ("magnitude", "Wanda")] for what in ("poids", "sortie")}
    show(
        fig,
        alt="Deux courbes par panneau, couche par couche. Erreur moyenne sur les poids : magnitude "
        f"{told['poids'][0]}, Wanda {told['poids'][1]}. Erreur moyenne sur la sortie : magnitude "
        f"{told['sortie'][0]}, Wanda {told['sortie'][1]}.",
    )
    better = sum(found[n, "Wanda", "sortie"] < found[n, "magnitude", "sortie"] for n in names)
    note(
        f"Sur la sortie, Wanda abîme moins {number(better)} couches sur {number(len(names))}. Dans chaque bloc, de "
        f"gauche à droite : {' ; '.join(KINDS.values())}."
    )
