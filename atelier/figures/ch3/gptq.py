"""Chapitre 3, quatrième partie : GPTQ sur Colibri, avec la fonction de l'étudiant, à côté des tableaux de l'article."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atelier.display import note, number, recorded, show, table
from atelier.figures.ch3.models import BITS, GROUP, Sweep
from atelier.figures.common.layers import KINDS, layer_inputs, linear_layers, weight_of
from atelier.figures.common.style import BLACK, BLUE, ORANGE, RED, SERIES, canvas, french, percent, progress_bar
from atelier.perplexity import evaluate_perplexity

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Gptq = Callable[..., Tensor]
"""Le `gptq_quantize` de l'étudiant : (w, x, bits, damp) → ŵ."""


# --- L'idée, avec deux poids --------------------------------------------------------------------------------------


def two_weights(w: Tensor, x: Tensor, bits: int = 3) -> None:
    """Deux vrais poids voisins par leurs activations : le point le plus proche n'est pas celui qui se trompe le moins.

    w : (sortie, entrée) ; x : (n, entrée). On choisit les deux entrées les plus corrélées, et la ligne où compenser
    change le plus l'erreur.
    """
    w, x = w.cpu(), x.cpu()  # deux poids et un dessin : rien qui demande la carte
    corr = torch.corrcoef(x.double().T).abs().nan_to_num().fill_diagonal_(0)
    i, j = divmod(int(corr.argmax()), corr.shape[1])
    h = x[:, [i, j]].double().T @ x[:, [i, j]].double()
    step = w.double().abs().amax(1) / (2 ** (bits - 1) - 1)
    pair = w[:, [i, j]].double() / step[:, None]
    near = pair.round()
    second = pair[:, 1] + (pair[:, 0] - near[:, 0]) * h[0, 1] / h[1, 1]
    chosen = torch.stack([near[:, 0], second.round()], 1)
    cost = [torch.einsum("ra,ab,rb->r", p - pair, h, p - pair) for p in (near, chosen)]
    row = int((cost[0] / cost[1].clamp(min=1e-9) * (near != chosen).any(1)).argmax())
    w0, a, b, moved = pair[row], near[row], chosen[row], second[row].item()

    fig, ax = canvas(6.4, 3.9)
    span = torch.linspace(-1.75, 1.75, 161, dtype=torch.float64)
    gx, gy = torch.meshgrid(w0[0] + span, w0[1] + span, indexing="xy")
    d = torch.stack([gx - w0[0], gy - w0[1]], -1)
    error = torch.einsum("xya,ab,xyb->xy", d, h, d)
    ax.contourf(gx, gy, error.sqrt(), levels=14, cmap="Blues_r", alpha=0.8)
    xs = range(math.ceil(gx.min()), math.floor(gx.max()) + 1)
    ys = range(math.ceil(gy.min()), math.floor(gy.max()) + 1)
    ax.plot(
        [u for u in xs for _ in ys], [v for _ in xs for v in ys], ".", color=BLACK, ms=5, label="points de la grille"
    )
    ax.plot(*w0.tolist(), "*", color="white", mec=BLACK, ms=15, label="les deux poids")
    ax.plot(*a.tolist(), "s", color=RED, ms=10, label="chacun au plus proche")
    ax.plot(*b.tolist(), "o", color=ORANGE, mec=BLACK, ms=11, label="le second compense le premier")
    arrow = {"arrowstyle": "->", "lw": 1.6}
    ax.annotate("", (a[0].item(), w0[1].item()), w0.tolist(), arrowprops=arrow)
    ax.annotate("", (a[0].item(), moved), (a[0].item(), w0[1].item()), arrowprops={**arrow, "linestyle": "--"})
    ax.set_xlabel(f"poids de l'entrée {i} (en pas)")
    ax.set_ylabel(f"poids de l'entrée {j} (en pas)")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    ax.grid(False)
    french(ax)
    ratio = (cost[0][row] / cost[1][row]).item()
    show(
        fig,
        alt=f"Carte de l'erreur autour de deux poids : une vallée en biais, car les entrées {i} et {j} ont une "
        f"corrélation de {number(corr[i, j].item(), 3)}. Le point de la grille le plus proche a une erreur (au carré) "
        f"{number(ratio, 3)} fois plus grande que celui qu'on atteint quand le second poids compense le premier.",
    )
    note(
        f"Entrées {i} et {j}, corrélées à {number(corr[i, j].item(), 3)} ; ligne {row}, choisie pour son gain : "
        f"compenser divise l'erreur au carré par {number(ratio, 3)}."
    )


# --- GPTQ sur tout le modèle --------------------------------------------------------------------------------------


def gptq_in_groups(w: Tensor, x: Tensor, bits: int, gptq: Gptq, group: int = GROUP, damp: float = 0.01) -> Tensor:
    """GPTQ avec une échelle par groupe de colonnes, bâti sur le GPTQ par ligne de l'étudiant.

    Les groupes passent de gauche à droite. Ce que les colonnes encore libres peuvent rattraper est retiré de la
    hessienne du groupe (complément de Schur) : des activations fictives, de même hessienne, sont données à `gptq`.
    Puis les colonnes libres rattrapent, au mieux, ce que le groupe a perdu. w : (sortie, entrée) ; x : (n, entrée).
    """
    x, free, done = x.double(), w.double(), []
    h = 2 * x.T @ x
    h += damp * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype, device=h.device)
    while free.shape[1]:
        g = min(group, free.shape[1])
        own, cross, rest = h[:g, :g], h[:g, g:], h[g:, g:]
        catch_up = torch.linalg.solve(rest, cross.T).T if g < free.shape[1] else cross
        pseudo = torch.linalg.cholesky((own - catch_up @ cross.T) / 2, upper=True)
        rounded = gptq(free[:, :g], pseudo, bits, 0.0)
        free = free[:, g:] + (free[:, :g] - rounded) @ catch_up
        done.append(rounded)
        h = rest
    return torch.cat(done, 1).to(w.dtype)


def gptq_model(model: GPT2LMHeadModel, ids: Tensor, gptq: Gptq, bits: int, group: int | None = None) -> GPT2LMHeadModel:
    """Colibri dont chaque bloc est quantifié à son tour, sur les activations du modèle déjà quantifié avant lui."""
    changed = copy.deepcopy(model)
    layers = linear_layers(changed)
    for block in range(len(changed.transformer.h)):
        names = [f"{block}.{kind}" for kind in KINDS]
        inputs = layer_inputs(changed, ids, names)
        for name in names:
            w, x = weight_of(layers[name]), inputs[name]
            with torch.no_grad(), _one_thread():
                rounded = gptq(w, x, bits) if group is None else gptq_in_groups(w, x, bits, gptq, group)
                layers[name].weight.copy_(rounded.T)
    return changed


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Un seul fil de calcul : des milliers de petites opérations n'ont rien à gagner à s'attendre entre fils."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@recorded("ch3/gptq_layer_errors", needs=("gptq", "per_channel", "quantize", "dequantize"))
def gptq_layer_errors(
    model: GPT2LMHeadModel, ids: Tensor, gptq: Gptq, per_channel: Any, quantize: Any, dequantize: Any, bits: int = 3
) -> None:
    """Ce que GPTQ gagne sur le plus proche, couche par couche : erreur sur les poids, puis erreur sur la sortie.

    La première moitié de ids sert d'étalonnage, la seconde mesure.
    """
    half = len(ids) // 2
    seen, fresh, rows = layer_inputs(model, ids[:half]), layer_inputs(model, ids[half:]), []
    for name, layer in linear_layers(model).items():
        if not name.startswith("0."):
            continue
        w = weight_of(layer)
        s = per_channel(w, bits, 0)
        near = dequantize(quantize(w / s, 1.0, 0, bits), 1.0, 0) * s
        best = gptq(w, seen[name], bits)
        x = fresh[name]
        errors = [
            _relative(w, near),
            _relative(w, best),
            _relative(x @ w.T, x @ near.T),
            _relative(x @ w.T, x @ best.T),
        ]
        rows.append(
            [KINDS[name.split(".", 1)[1]], *(percent(e) for e in errors), f"÷ {number(errors[2] / errors[3], 3)}"]
        )
    table(
        rows,
        header=["couche du premier bloc", "poids, RTN", "poids, GPTQ", "sortie, RTN", "sortie, GPTQ", "gain en sortie"],
        caption=f"Erreur quadratique relative à {bits} bits, une échelle par canal, sur un autre texte",
    )


def _relative(true: Tensor, found: Tensor) -> float:
    return ((true - found).square().sum() / true.square().sum()).item()


@recorded("ch3/gptq_sweep", needs=("gptq",))
def gptq_sweep(
    model: GPT2LMHeadModel,
    ids: Tensor,
    gptq: Gptq,
    rtn: Sweep | None = None,
    bits: Sequence[int] = BITS,
    **evaluation: Any,
) -> Sweep:
    """Perplexité de Colibri passé par GPTQ, par canal et par groupe, à côté des arrondis au plus proche `rtn`."""
    found: Sweep = {"GPTQ, une par canal": {}, f"GPTQ, une par groupe de {GROUP}": {}}
    jobs = [(name, b) for name in found for b in bits]
    for name, b in progress_bar(jobs, "GPTQ"):
        rounded = gptq_model(model, ids, gptq, b, None if "canal" in name else GROUP)
        found[name][b] = evaluate_perplexity(rounded, **evaluation).perplexity
    full = evaluate_perplexity(model, **evaluation).perplexity
    everything = {"FP32": dict.fromkeys(bits, full), **(rtn or {}), **found}
    table(
        [[name, *(number(p, 4) for p in line.values())] for name, line in everything.items()],
        header=["méthode", *(f"{b} bits" for b in bits)],
        caption="Perplexité de Colibri, couches linéaires quantifiées",
    )
    _sweep_figure(everything, full, bits)
    return everything


def _sweep_figure(found: Sweep, full: float, bits: Sequence[int]) -> None:
    from matplotlib.ticker import LogLocator

    fig, ax = canvas(7.6, 4.0)
    xs = list(range(len(bits)))
    for (name, line), look in zip(((n, v) for n, v in found.items() if n != "FP32"), SERIES, strict=False):
        ax.plot(xs, [line[b] for b in bits], label=name, lw=1.8, ms=7, **look)
    ax.axhline(full, color=BLACK, lw=1, linestyle=":")
    ax.annotate("FP32", (0, full), xytext=(0, -12), textcoords="offset points", fontsize=8.5)
    ax.set_xticks(range(len(bits)), [f"{b} bits" for b in bits])
    ax.set_yscale("log")
    ax.set_ylabel("perplexité (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=8.5, loc="upper left")
    few = max(line[b] for line in found.values() for b in bits) < 1000 * full
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    french(ax, x=False)
    told = " ; ".join(
        f"{name} : " + ", ".join(f"{number(p, 4)} à {b} bits" for b, p in line.items())
        for name, line in found.items()
        if name != "FP32"
    )
    show(fig, alt=f"Perplexité contre nombre de bits ; FP32 : {number(full, 4)}. {told}.")


# --- L'article ----------------------------------------------------------------------------------------------------

SOURCE = "Frantar et al., « GPTQ », ICLR 2023, arXiv 2210.17323"
OPT = {
    "taille": "125M 350M 1.3B 2.7B 6.7B 13B 30B 66B 175B".split(),
    "full": "27.65 22.00 14.63 12.47 10.86 10.13 9.56 9.34 8.34".split(),
    "RTN 4": "37.28 25.94 48.17 16.92 12.10 11.32 10.98 110 10.54".split(),
    "GPTQ 4": "31.12 24.24 15.47 12.87 11.39 10.31 9.63 9.55 8.37".split(),
    "RTN 3": "1.3e3 64.57 1.3e4 1.6e4 5.8e3 3.4e3 1.6e3 6.1e3 7.3e3".split(),
    "GPTQ 3": "53.85 33.79 20.97 16.88 14.86 11.61 10.27 14.16 8.68".split(),
}
"""Tableau 3 de l'article : perplexité sur WikiText2 de la famille OPT."""
BLOOM = {
    "taille": "560M 1.1B 1.7B 3B 7.1B 176B".split(),
    "full": "22.42 17.69 15.39 13.48 11.37 8.11".split(),
    "RTN 4": "25.90 22.00 16.97 14.76 12.10 8.37".split(),
    "GPTQ 4": "24.03 19.05 16.48 14.20 11.73 8.21".split(),
    "RTN 3": "57.08 50.19 63.59 39.36 17.38 571".split(),
    "GPTQ 3": "32.31 25.08 21.11 17.40 13.47 8.64".split(),
}
"""Tableau 4 de l'article : perplexité sur WikiText2 de la famille BLOOM."""


def paper_tables() -> None:
    """Les tableaux 3 et 4 de l'article, tels que les diapositives les montrent."""
    for family, values, where in (("OPT", OPT, "tableau 3"), ("BLOOM", BLOOM, "tableau 4")):
        names = {"full": ("sans", "16"), **{k: tuple(k.split()) for k in values if k not in ("taille", "full")}}
        table(
            [[method, bits, *(v.replace(".", ",") for v in values[k])] for k, (method, bits) in names.items()],
            header=[family, "bits", *(s.replace(".", ",") for s in values["taille"])],
            caption=f"{SOURCE}, {where} : perplexité sur WikiText2",
        )


def _ratios(values: dict[str, list[str]], method: str, bits: int) -> list[float]:
    """Perplexité quantifiée ÷ perplexité d'origine, une valeur par taille."""
    return [float(q) / float(full) for q, full in zip(values[f"{method} {bits}"], values["full"], strict=True)]


def _parameters(size: str) -> float:
    return float(size[:-1]) * {"M": 1e6, "B": 1e9}[size[-1]]


def _colibri(results: Sweep | None, method: str, bits: int) -> float | None:
    """Le même rapport pour Colibri, une échelle par canal ; None s'il n'a pas été mesuré."""
    if results is None:
        return None
    line = next((v for n, v in results.items() if n.startswith(method) and "canal" in n), {})
    return line[bits] / results["FP32"][bits] if bits in line else None


@recorded("ch3/verdicts", needs=("gptq",))
def verdicts(results: Sweep | None, gptq: Gptq) -> None:
    """Ce que l'article affirme, ce que montrent ses tableaux, ce que montre Colibri : reproduit, ou non.

    results : ce qu'a rendu `gptq_sweep` avec ce `gptq`.
    """
    rtn, best = ({b: _colibri(results, m, b) for b in (4, 3)} for m in ("RTN", "GPTQ"))
    measured = {b: (ours, plain) for b in (4, 3) if (ours := best[b]) and (plain := rtn[b])}
    if not measured:
        note("Il manque une mesure : relancez les cellules des arrondis au plus proche, puis celle de GPTQ.")
        return
    small = {m: {b: _ratios(OPT, m, b)[0] for b in (4, 3)} for m in ("RTN", "GPTQ")}

    def times(r: float) -> str:
        return f"× {number(r, 4)}"

    rows = [
        [
            f"À {b} bits, GPTQ perd moins que RTN",
            f"OPT 125M : {times(small['RTN'][b])} en RTN, {times(small['GPTQ'][b])} en GPTQ",
            f"{times(plain)} en RTN, {times(ours)} en GPTQ",
            "reproduit" if ours < plain else "non reproduit",
        ]
        for b, (ours, plain) in measured.items()
    ]
    collapse = [sum(r > 10 for r in _ratios(f, "RTN", 3)) for f in (OPT, BLOOM)]
    rows += [
        [
            "À 3 bits, RTN s'effondre (perplexité × 10 ou plus)",
            f"{collapse[0]} OPT sur {len(OPT['full'])}, {collapse[1]} BLOOM sur {len(BLOOM['full'])}",
            times(rtn[3]) if rtn[3] else "non mesuré à cette échelle",
            "—" if not rtn[3] else "reproduit" if rtn[3] > 10 else "non reproduit",
        ],
        [
            "Les grands modèles se quantifient mieux",
            f"OPT, GPTQ 4 bits : {times(small['GPTQ'][4])} à 125M, {times(_ratios(OPT, 'GPTQ', 4)[-1])} à 175B",
            "une seule taille",
            "pas testable ici",
        ],
    ]
    table(rows, header=["affirmation", "dans l'article", "sur Colibri", "verdict"], caption="Reproduit, ou non ?")


@recorded("ch3/beside_the_paper", needs=("gptq",))
def beside_the_paper(results: Sweep | None, n_parameters: int, gptq: Gptq) -> None:
    """Par combien la perplexité est multipliée, à 4 et à 3 bits : OPT et BLOOM d'après l'article, Colibri d'après vous.

    results : ce qu'a rendu `gptq_sweep` avec ce `gptq`. Les étiquettes nomment les cases qui sortent du rang.
    """
    fig, axes = canvas(9.2, 3.9, columns=2)
    told = []
    for ax, bits in zip(axes, (4, 3), strict=True):
        for family, values, marker in (("OPT", OPT, "o"), ("BLOOM", BLOOM, "^")):
            x = [_parameters(s) for s in values["taille"]]
            for method, color, line in (("RTN", RED, "--"), ("GPTQ", BLUE, "-")):
                y = _ratios(values, method, bits)
                ax.plot(x, y, line, marker=marker, color=color, lw=1.3, ms=5, label=f"{family}, {method}")
                for size, u, v, before in zip(values["taille"], x, y, [None, *y], strict=False):
                    if method == "RTN" and before and v > 2 * before and (bits == 4 or family == "BLOOM"):
                        ax.annotate(
                            size.replace(".", ","),
                            (u, v),
                            xytext=(0, 5),
                            textcoords="offset points",
                            ha="center",
                            fontsize=8,
                        )
        for method, color in (("RTN", RED), ("GPTQ", BLUE)):
            ratio = _colibri(results, method, bits)
            if ratio is not None:
                shape = {"RTN": "P", "GPTQ": "*"}[method]
                ax.plot(n_parameters, ratio, shape, color=color, mec=BLACK, ms=13, label=f"Colibri, {method}")
                told.append(f"Colibri {method} à {bits} bits, × {number(ratio, 3)}")
        ax.axhline(1, color=BLACK, lw=0.8, linestyle=":")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_title(f"{bits} bits", fontsize=10)
        ax.set_xlabel("paramètres (échelle logarithmique)")
        french(ax)
    axes[0].set_ylabel("perplexité ÷ perplexité sans quantification")
    axes[1].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    show(
        fig,
        alt="Deux nuages, à 4 et 3 bits, rapport des perplexités contre nombre de paramètres. GPTQ reste près de 1 et "
        f"RTN s'en écarte, beaucoup à 3 bits ; à 4 bits OPT 1,3B et OPT 66B sortent du rang. {' ; '.join(told)}.",
    )
