"""Chapitre 8, troisième partie : plus rapide, ou pas ? Pas, passages, qualité, mémoire, cache, inférence ; et GPT-3."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from atelier.display import note, recorded, show, table
from atelier.figures.ch8.cache import cached_loss, hidden_before, step_times
from atelier.figures.ch8.delta import BATCH, LENGTH, from_measures, source
from atelier.figures.ch8.train import everywhere
from atelier.figures.common.style import SERIES, canvas, french
from atelier.hardware import beside, synchronize
from atelier.models import gpt2_shape
from atelier.text import long_date, number, percent
from atelier.training import corpus_tokens, lm_loss, train, windows

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

GPT3 = {"n_layer": 96, "d_model": 12288, "parameters": 175_255_800_000}
"""Brown et al., 2020, tableau 2.1 ; le nombre de paramètres est celui du tableau 4 de l'article LoRA (175 255,8 M)."""
Inject = Callable[..., Any]


def _megabytes(n: float) -> str:
    return number(n / 1e6, 3, unit="Mo")


# --- Ici, maintenant ------------------------------------------------------------------------------------------------


def _only_top(model: GPT2LMHeadModel, top: int) -> GPT2LMHeadModel:
    """LoRA n'apprend plus que dans les `top` derniers blocs."""
    first = len(model.transformer.h) - top
    for name, p in model.named_parameters():
        p.requires_grad_("lora_" in name and int(name.split(".")[2]) >= first)
    return model


@recorded("ch8/step_here", needs=("inject",))
def step_here(model: GPT2LMHeadModel, inject: Inject, rank: int, repeats: int, sizes: Sequence[str] = ()) -> None:
    """Un pas de Colibri, complet puis avec LoRA, chronométré ici ; sur GPU, aussi à des tailles de GPT-2."""
    bases = {"Colibri": model} | {f"GPT-2 {size} (poids au hasard)": gpt2_shape(size) for size in sizes}
    rows = []
    for name, base in bases.items():
        ids = torch.randint(0, base.config.vocab_size, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
        ids = beside(base, ids)
        plans = {
            "tout": lambda base=base: copy.deepcopy(base).requires_grad_(True),
            f"LoRA, r = {rank}, partout": lambda base=base: everywhere(base, inject, rank, 2.0 * rank),
        }
        for label, make in plans.items():
            t = step_times(make(), ids, lm_loss, repeats)
            total = t["avant"] + t["arrière"] + t["optimiseur"]
            kept = [_megabytes(t["octets gardés"]), _megabytes(t["octets d'état"])]
            peak = [_megabytes(t["pic"])] if "pic" in t else []
            rows.append([name, label, t["avant"], t["arrière"], t["optimiseur"], round(total, 1), *kept, *peak])
    table(
        rows,
        header=["modèle", "ce qui apprend", "avant (ms)", "arrière (ms)", "optimiseur (ms)", "pas (ms)",
                "activations gardées", "gradients et Adam", *["pic de mémoire" for _ in peak]],
        caption=f"Un pas de {BATCH} × {LENGTH} jetons, médianes sur cette machine",
    )  # fmt: skip


@recorded("ch8/cache_here", needs=("inject",))
def cache_here(model: GPT2LMHeadModel, inject: Inject, rank: int, n_windows: int, passes_: int, top: int = 2) -> None:
    """Un vrai cache : les blocs du bas sont calculés une fois, puis relus. Mêmes pertes, moins de temps ?"""
    ids = next(windows(corpus_tokens("b_train"), n_windows, LENGTH, seed=7))
    rows, losses = [], {}
    for label, cached in (("tout recalculer", False), ("relire le cache", True)):
        torch.manual_seed(0)
        lora = _only_top(everywhere(model, inject, rank, 2.0 * rank), top)
        synchronize()
        start = time.perf_counter()
        kept = hidden_before(lora, ids, top) if cached else None
        synchronize()
        filled = time.perf_counter() - start
        batches: list[Any] = []
        for part in torch.arange(n_windows).split(BATCH):
            batches.append(ids[part] if kept is None else (kept[part], ids[part]))
        log = train(lora, batches * passes_, len(batches) * passes_, 3e-3, cached_loss(top) if cached else lm_loss)
        losses[label] = log.losses
        size = _megabytes(kept.numel() * kept.element_size()) if kept is not None else _megabytes(0)
        rows.append([label, size, round(1000 * filled if cached else 0), round(1000 * log.step_seconds, 1)])
    gap = max(abs(a - b) for a, b in zip(*losses.values(), strict=True))
    table(
        rows,
        header=["", "cache", "le remplir (ms, une fois)", "un pas (ms)"],
        caption=f"LoRA dans les {top} derniers blocs sur {model.config.n_layer}, {n_windows} fenêtres de {LENGTH} "
        f"jetons lues {passes_} fois",
    )
    note(f"Plus grand écart entre les deux suites de pertes : {number(gap, 2, unit='nat')}.")


# --- Les deux réponses des diapositives, départagées ----------------------------------------------------------------


def count_flops(share_below: float = 0.6) -> None:
    """Opérations par poids et par jeton, selon ce qui apprend et où."""
    rows = [
        ["tout apprend", "2N", "2N", "2N", number(6, unit="N"), percent(1)],
        ["LoRA ou adaptateurs partout", "2N", "2N", "≈ 0", number(4, unit="N"), percent(4 / 6)],
        [
            f"LoRA au-dessus de {percent(share_below)} du modèle",
            "2N",
            f"2 × {number(1 - share_below, 2)} N",
            "≈ 0",
            number(2 + 2 * (1 - share_below), 2, unit="N"),
            percent((2 + 2 * (1 - share_below)) / 6),
        ],
        [
            "… et le bas relu d'un cache",
            f"2 × {number(1 - share_below, 2)} N",
            f"2 × {number(1 - share_below, 2)} N",
            "≈ 0",
            number(4 * (1 - share_below), 2, unit="N"),
            percent(4 * (1 - share_below) / 6),
        ],
    ]
    table(
        rows,
        header=[
            "ce qui apprend",
            "avant",
            "gradient des activations",
            "gradient des poids",
            "un pas",
            "du pas complet",
        ],
        caption="Opérations par jeton pour N poids (attention et tête de sortie laissées de côté)",
    )


def _step(line: dict[str, Any]) -> float:
    return line["avant"] + line["arrière"] + line["optimiseur"]


@from_measures("temps")
def steps_measured(found: dict[str, Any]) -> None:
    """Un pas, décomposé, à deux tailles : les mesures enregistrées, et une barre par méthode."""
    shapes = found["temps"]["pas"]
    fig, axes = canvas(9.4, 4.2, columns=len(shapes))
    told = []
    for ax, (shape, run) in zip(axes, shapes.items(), strict=True):
        lines = run["méthodes"]
        full = _step(lines["tout"])
        left = [0.0] * len(lines)
        hatches = ("", "//", "..")
        for style, part, hatch in zip(SERIES, ("avant", "arrière", "optimiseur"), hatches, strict=False):
            widths = [line[part] for line in lines.values()]
            ax.barh(list(lines), widths, left=left, label=part, color=style["color"], hatch=hatch, edgecolor="white")
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for y, total in enumerate(left):
            ax.text(total, y, f" {percent(total / full)}", va="center", fontsize=8)
        ax.invert_yaxis()
        ax.set(
            xlabel="un pas (ms)",
            title=f"{shape}\n{run['fenêtres']} × {run['jetons']} jetons",
            xlim=(0, 1.25 * max(left)),
        )
        ax.title.set_fontsize(10)
        french(ax, y=False)
        told.append(f"{shape} : " + ", ".join(f"{n} {number(t, 3)} ms" for n, t in zip(lines, left, strict=True)))
    axes[-1].set_yticklabels([])
    axes[0].legend(fontsize=8, loc="lower right")
    show(fig, alt=f"Durée d'un pas, avant, arrière et optimiseur. {' ; '.join(told)}.")
    more = {name: _step(line) for name, line in found["temps"]["quatre fenêtres"].items()}
    note(
        f"GPT-2 small avec quatre fenêtres par pas au lieu d'une : {number(more['tout'], 4)} ms pour le pas complet, "
        f"{number(more['LoRA partout'], 4)} ms pour LoRA partout, soit {percent(more['LoRA partout'] / more['tout'])}. "
        f"(Durées médianes : {source(found)}.)"
    )


def _reach(points: Sequence[float], start: float, wanted: float) -> float | None:
    """Nombre de passages (interpolé) pour que la perplexité descende à `wanted` ; None si elle n'y arrive pas."""
    if start <= wanted:
        return 0.0
    previous = start
    for i, p in enumerate(points):
        if p <= wanted:
            return i + (previous - wanted) / (previous - p)
        previous = p
    return None


@from_measures("temps", "courbes", "delta")
def settle(found: dict[str, Any]) -> None:
    """La question des diapositives en un tableau : par pas, par passage, par qualité atteinte, mémoire, inférence."""
    times, curves, start = found["temps"], found["courbes"], found["delta"]["base"]["B"]
    colibri = times["pas"]["Colibri"]["méthodes"]
    big_name = next(n for n in times["pas"] if n != "Colibri")
    big = times["pas"][big_name]["méthodes"]
    fill = times["remplir le cache"]
    names = [n for n in curves["méthodes"] if n in colibri]
    steps = curves["fenêtres"] // BATCH
    wanted = max(min(curves["méthodes"][n]["B"]) for n in names)

    def passage(name: str) -> float:
        return steps * _step(colibri[name]) / 1000

    def filling(name: str) -> float:
        return steps * fill.get(f"Colibri, {name}", 0.0) / 1000

    def reach(name: str) -> str:
        n = _reach(curves["méthodes"][name]["B"], start, wanted)
        return "jamais" if n is None else number(n * passage(name) + filling(name), 2, unit="s")

    def best(name: str) -> str:
        points = curves["méthodes"][name]["B"]
        return f"{number(min(points), 4)} ({1 + points.index(min(points))})"

    def last(name: str) -> str:
        return number(curves["méthodes"][name]["B"][-1], 4)

    def line(label: str, cell: Callable[[str], str]) -> list[str]:
        return [label, *(cell(n) for n in names)]

    def serving(name: str, ratio: float) -> str:
        if name == "LoRA partout":
            return f"base si fusionné, × {number(ratio, 3)} sinon"
        return "base si fusionné" if "LoRA" in name else "comme la base"

    served = times["inférence"]["Colibri"]
    apart = served["LoRA à part"]["fenêtre"] / served["base, ou LoRA fusionné"]["fenêtre"]
    token = times["inférence"][big_name]
    apart_token = token["LoRA à part"]["un jeton"] / token["base, ou LoRA fusionné"]["un jeton"]
    rows = [
        line("un pas, Colibri (ms)", lambda n: number(_step(colibri[n]), 3)),
        line("… en part du complet", lambda n: percent(_step(colibri[n]) / _step(colibri["tout"]))),
        line(f"un pas, {big_name.split(' (')[0]} (ms)", lambda n: number(_step(big[n]), 3)),
        line("… en part du complet", lambda n: percent(_step(big[n]) / _step(big["tout"]))),
        line(f"un passage sur {curves['fenêtres']} fenêtres (s)", lambda n: number(passage(n), 2)),
        line("… plus le cache, une fois (s)", lambda n: number(filling(n), 2)),
        line("meilleure perplexité sur B (passage)", best),
        line(f"perplexité sur B après {curves['passages']} passages", last),
        line(f"temps pour descendre à {number(wanted, 4)}", reach),
        line("activations gardées, Colibri", lambda n: _megabytes(colibri[n]["octets gardés"])),
        line("gradients et Adam, Colibri", lambda n: _megabytes(colibri[n]["octets d'état"])),
        line("activations gardées, GPT-2 small", lambda n: _megabytes(big[n]["octets gardés"])),
        line("gradients et Adam, GPT-2 small", lambda n: _megabytes(big[n]["octets d'état"])),
        line("le cache lui-même", lambda n: _megabytes(curves["méthodes"][n].get("octets du cache", 0))),
        line(
            "inférence (fenêtre, Colibri)",
            lambda n: serving(n, apart),
        ),
        line(
            "inférence (un jeton, GPT-2 small)",
            lambda n: serving(n, apart_token),
        ),
    ]
    table(
        rows,
        header=["", *names],
        caption=f"« It is not faster » ou « It is faster » ? ({source(found)} ; {long_date(found['date'])} ; "
        "mêmes fenêtres, même ordre, chaque méthode à son meilleur taux d'apprentissage)",
    )


# --- GPT-3 ----------------------------------------------------------------------------------------------------------


@recorded("ch8/gpt3_numbers", needs=("count",))
def gpt3_numbers(count: Any) -> None:
    """Les nombres de LoRA sur GPT-3 175B, refaits avec la formule du lecteur, à côté de ceux de l'article."""
    d, layers, total = GPT3["d_model"], GPT3["n_layer"], GPT3["parameters"]
    qv = [(d, d)] * (2 * layers)
    qkvo = [(d, d)] * (4 * layers)
    plans = [
        ("W_q et W_v, r = 1", qv, 1, "4,7 M (tableau 4)"),
        ("W_q et W_v, r = 4", qv, 4, "35 Mo (§ 4.2)"),
        ("W_q et W_v, r = 8", qv, 8, "37,7 M (tableau 4)"),
        ("W_q, W_k, W_v et W_o, r = 2", qkvo, 2, "37,7 M (annexe D.4)"),
        ("W_q et W_v, r = 64", qv, 64, ""),
    ]
    rows = []
    for label, shapes, r, said in plans:
        n = count(shapes, r)
        rows.append([label, n, percent(n / total), _megabytes(2 * n), number(total / n, 4, unit="×"), said])
    table(
        rows,
        header=["LoRA sur", "paramètres", "de GPT-3", "en FP16", "réduction", "l'article dit"],
        caption="GPT-3 175B : 96 blocs, d = 12 288 ; « réduction » : 175 255,8 M divisé par le compte",
    )


def paper_arithmetic() -> None:
    """Les trois affirmations de § 4.2 et de ses notes, refaites à la main."""
    total = GPT3["parameters"]
    full, lora = 32.5, 43.1
    rows = [
        ["« 350 GB », un modèle", f"175 255,8 M × 2 octets = {number(2 * total / 1e9, 4)} Go", "juste, en FP16"],
        [
            "« 35MB », son LoRA à r = 4",
            f"18,87 M × 2 octets = {number(2 * 18_874_368 / 1e6, 3, unit='Mo')}",
            f"« roughly 10,000× » : {number(total / 18_874_368, 4)}",
        ],
        [
            "« 25% speedup »",
            f"{number(lora, 3)} / {number(full, 3)} jetons/s = {percent(lora / full - 1, signed=True)} de débit",
            f"soit {percent(full / lora - 1)} de temps : 25 % est un gain de temps",
        ],
        [
            "ce que dirait 4N / 6N",
            f"{percent(4 / 6 - 1)} de temps, {percent(6 / 4 - 1, signed=True)} de débit",
            "le plafond, si tout le temps était dans ces produits",
        ],
        [
            "… et en recalculant les activations",
            f"6N / 8N : {percent(6 / 8 - 1)} de temps",
            "l'article ne dit pas s'il le fait : coïncidence, peut-être",
        ],
        [
            "« 1.2TB to 350GB » à l'apprentissage",
            f"3 × 350,5 = {number(3 * 2 * total / 1e12, 3, unit='To')} avec deux moments en FP16",
            "« by up to 2/3 » : un modèle au lieu de trois ; c'est notre lecture",
        ],
        [
            "100 tâches (note 4)",
            f"350 Go + 100 × 35 Mo = {number(350 + 100 * 0.035, 4, unit='Go')}",
            "contre 100 × 350 Go = 35 To",
        ],
    ]
    table(rows, header=["l'article (Hu et al., § 4.2)", "le calcul", "ce qu'il faut lire"])
