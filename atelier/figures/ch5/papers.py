"""Chapitre 5 : les tableaux des articles, cités, et les nôtres à côté ; les motifs N:M et leurs noyaux."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from atelier.display import note, recorded, show, table
from atelier.figures.ch5.importance import CHAPTER, curve
from atelier.figures.ch5.masks import by_blocks
from atelier.figures.common.style import SERIES, canvas, french, progress_bar
from atelier.hardware import card_capability, card_name, device, median_seconds
from atelier.measures import load_measures
from atelier.models import GPT2_SIZES
from atelier.perplexity import evaluate_perplexity
from atelier.text import number, percent

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

LLAMA2_DENSE = {"7B": 5.12, "13B": 4.57, "70B": 3.12}
LLAMA2 = {
    ("50 %, libre", "magnitude"): (14.89, 6.37, 4.98),
    ("50 %, libre", "SparseGPT"): (6.51, 5.63, 3.98),
    ("50 %, libre", "Wanda"): (6.42, 5.56, 3.98),
    ("4:8", "magnitude"): (16.48, 6.76, 5.58),
    ("4:8", "SparseGPT"): (8.12, 6.60, 4.59),
    ("4:8", "Wanda"): (7.97, 6.55, 4.47),
    ("2:4", "magnitude"): (54.59, 8.33, 6.33),
    ("2:4", "SparseGPT"): (10.17, 8.32, 5.40),
    ("2:4", "Wanda"): (11.02, 8.27, 5.16),
}
"""Perplexité de LLaMA-2 élagué (7B, 13B, 70B) : dépôt locuslab/wanda, README, tableau « LLaMA-2 results »."""

PATTERNS = {"4:8": (4, 8), "2:4": (2, 4), "1:4": (1, 4)}
"""Motifs comparés : n poids gardés sur m voisins."""

NM = Callable[..., Tensor]
Wanda = Callable[[Tensor, Tensor, float], Tensor]


def paper_table() -> None:
    """Le tableau LLaMA-2 du dépôt de Wanda, tel quel."""
    rows = [["—", "modèle entier", *LLAMA2_DENSE.values()]]
    rows += [[where, method, *values] for (where, method), values in LLAMA2.items()]
    table(
        rows,
        header=["motif", "méthode", *(f"LLaMA-2 {s}" for s in LLAMA2_DENSE)],
        caption="Perplexité sur WikiText-2, en anglais (dépôt locuslab/wanda, README)",
    )


def _ours() -> dict[tuple[str, str], float]:
    """Nos perplexités enregistrées, rangées comme le tableau cité ; nan pour ce qui n'a pas été mesuré."""
    measures = load_measures(CHAPTER)
    patterns, found = measures.get("motifs", {}), {}
    for method, name in (("magnitude", "magnitude"), ("SparseGPT", "sparsegpt"), ("Wanda", "wanda")):
        known = measures["ordres"].get(method, {}).get("perplexité", float("nan"))
        values = sorted(curve(name).get(0.5, [known]))
        found["50 %, libre", method] = values[len(values) // 2]
        for pattern in ("4:8", "2:4"):
            found[pattern, method] = patterns.get(f"{method} {pattern}", float("nan"))
    return found


def _told(value: float) -> str:
    return number(value, 4) if value == value else "—"


def beside_the_papers() -> None:
    """Rapports de perplexité à celle du modèle entier : Colibri et LLaMA-2, puis ce qui est, ou non, reproduit."""
    dense, ours = load_measures(CHAPTER)["dense"]["perplexité"], _ours()
    whole = [dense, *LLAMA2_DENSE.values()]
    ratios = {key: [v / d for v, d in zip((ours[key], *theirs), whole, strict=True)] for key, theirs in LLAMA2.items()}
    models = ["Colibri", *(f"LLaMA-2 {s}" for s in LLAMA2_DENSE)]
    fig, axes = canvas(9, 3.4, columns=3, sharey=True)
    for ax, where in zip(axes, ("50 %, libre", "4:8", "2:4"), strict=True):
        for method, look in zip(("magnitude", "Wanda", "SparseGPT"), (SERIES[1], SERIES[3], SERIES[4]), strict=True):
            ax.plot(range(len(models)), ratios[where, method], label=method, lw=1.5, **look)
        ax.set_title(where, fontsize=10)
        ax.set_yscale("log")
        ax.set_yticks([1, 2, 5, 10])
        ax.set_xticks(range(len(models)), ["Colibri", *(f"{s}" for s in LLAMA2_DENSE)], fontsize=9)
        ax.set_xlabel("Colibri, puis LLaMA-2", fontsize=9)
        french(ax, x=False)
    axes[0].set_ylabel("perplexité / modèle entier (éch. log.)")
    axes[2].legend(frameon=False, fontsize=8.5)
    show(
        fig,
        alt="Perplexité rapportée à celle du modèle entier. "
        + " ; ".join(
            f"{where}, {method} : " + ", ".join(f"{m} {number(r, 3)}" for m, r in zip(models, line, strict=True))
            for (where, method), line in ratios.items()
        )
        + ".",
    )
    free, pattern = "50 %, libre", "2:4"
    methods = ("magnitude", "Wanda", "SparseGPT")
    four_eight = [(where, m) for m in methods for where in ("4:8", pattern)]
    claims: list[tuple[str, list[tuple[str, str]], Callable[[list[float]], bool]]] = [
        ("à 50 %, libre, Wanda bat la magnitude", [(free, "Wanda"), (free, "magnitude")], lambda v: v[0] < v[1]),
        ("à 2:4, Wanda bat la magnitude", [(pattern, "Wanda"), (pattern, "magnitude")], lambda v: v[0] < v[1]),
        (
            "à 50 %, libre, Wanda vaut SparseGPT, à 2 % près",
            [(free, "Wanda"), (free, "SparseGPT")],
            lambda v: abs(v[0] / v[1] - 1) < 0.02,
        ),
        ("à 2:4, SparseGPT bat Wanda", [(pattern, "SparseGPT"), (pattern, "Wanda")], lambda v: v[0] < v[1]),
        (
            "4:8 coûte moins que 2:4, par les trois méthodes",
            four_eight,
            lambda v: all(a < b for a, b in zip(v[::2], v[1::2], strict=True)),
        ),
    ]

    def verdict(keys: list[tuple[str, str]], holds: Callable[[list[float]], bool], k: int) -> str:
        values = [ratios[key][k] for key in keys]
        if any(v != v for v in values):  # pas encore mesuré
            return "—"
        return "oui" if holds(values) else "non"

    table(
        [[text, *(verdict(keys, holds, k) for k in range(4))] for text, keys, holds in claims],
        header=["affirmation", *models],
        caption="Ce qui tient, et où",
    )


# --- N:M --------------------------------------------------------------------------------------------------------------


@recorded("ch5/nm_picture", needs=("nm_mask", "magnitude"))
def nm_picture(
    w: Tensor, nm_mask: NM, magnitude: Callable[[Tensor, float], Tensor], rows: int = 6, columns: int = 24
) -> None:
    """Le même coin de couche, élagué de moitié librement, puis par 4:8, puis par 2:4."""
    corner = w[:rows, :columns].cpu()
    masks = {
        "50 %, libre": magnitude(corner, 0.5),
        "4:8": nm_mask(corner, 4, 8),
        "2:4": nm_mask(corner, 2, 4),
    }
    fig, axes = canvas(8.4, 4.4, rows=3)
    energy = {}
    for ax, (name, mask), step in zip(axes, masks.items(), (columns, 8, 4), strict=True):
        energy[name] = (corner[mask].square().sum() / corner.square().sum()).item()
        ax.imshow(torch.where(mask, corner.abs(), float("nan")), cmap="Blues", vmin=-0.05, vmax=corner.abs().max())
        for x in range(step, columns, step):
            ax.axvline(x - 0.5, color="black", lw=1.2)
        ax.set_title(f"{name} : il reste {percent(energy[name])} de la somme des carrés", fontsize=9.5)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
    show(
        fig,
        alt=f"Trois grilles de {rows} sur {columns} poids, la moitié en blanc. Somme des carrés qui reste : "
        + ", ".join(f"{n} {percent(e)}" for n, e in energy.items())
        + ".",
    )


@recorded("ch5/nm_price", needs=("nm_mask",))
def nm_price(model: GPT2LMHeadModel, ids: Tensor, nm_mask: NM, tokens: int) -> None:
    """Ce que coûte un motif imposé : votre masque sur les poids, puis sur les importances de Wanda."""
    rows: list[list[str]] = []
    for method in ("magnitude", "Wanda"):
        line = [f"{method} (vous)", "—"]
        for n, m in progress_bar(tuple(PATTERNS.values()), f"motifs, {method}"):

            def change(_: str, w: Tensor, x: Tensor, n: int = n, m: int = m, by: str = method) -> Tensor:
                return w * nm_mask(w if by == "magnitude" else w * x.norm(dim=0), n, m)

            line.append(_told(evaluate_perplexity(by_blocks(model, ids, change), max_tokens=tokens).perplexity))
        rows.append(line)
    measures, ours = load_measures(CHAPTER), _ours()
    recorded_patterns = measures.get("motifs", {})
    for method in ("magnitude", "Wanda", "SparseGPT"):
        values = [recorded_patterns.get(f"{method} {name}", float("nan")) for name in PATTERNS]
        rows.append([f"{method} (auteur)", _told(ours["50 %, libre", method]), *map(_told, values)])
    table(
        rows,
        header=["méthode", "50 %, libre", "4:8", "2:4", "1:4, soit 75 %"],
        caption=f"Perplexité de Colibri : la vôtre sur {number(tokens)} jetons, celle de l'auteur sur 4 096 (modèle "
        f"entier : {number(measures['dense']['perplexité'], 4)})",
    )


def nm_kernels(size: str = "small", tokens: int = 2048, repeats: int = 20) -> None:
    """Temps d'une couche MLP aux tailles de GPT-2 : dense contre 2:4, si la carte a les noyaux (Ampere ou plus récent).

    Sans carte qui convienne, dit ce qui tournerait.
    """
    d = GPT2_SIZES[size][1]
    if card_capability() < (8, 0):
        note(
            "Pas de cœurs 2:4 sur cette machine : il faut une carte NVIDIA Ampere (2020) ou plus récente. Cette "
            "cellule "
            f"y chronométrerait une couche {d} → {4 * d} de GPT-2 {size} en FP16, {number(tokens)} jetons, dense puis "
            "convertie par torch.sparse.to_sparse_semi_structured, qui garde les valeurs non nulles et deux bits de "
            "position par valeur. Sur processeur, un masque 2:4 ne fait gagner aucun temps : vous le verrez plus bas."
        )
        return
    from torch.sparse import to_sparse_semi_structured

    half: dict[str, Any] = {"device": device(), "dtype": torch.float16}
    w, x = torch.randn(4 * d, d, **half), torch.randn(tokens, d, **half)  # le temps ne dépend pas des valeurs
    pruned = w * torch.tensor([1.0, 0.0, 0.0, 1.0], **half).repeat(d // 4)
    try:
        compressed = to_sparse_semi_structured(pruned)
        nn.functional.linear(x, compressed)
    except (RuntimeError, NotImplementedError) as error:  # torch sans cuSPARSELt (Windows), noyau absent de cette carte
        note(f"{card_name()} a des cœurs 2:4, mais ce torch n'a pas leurs noyaux : {str(error).splitlines()[0][:100]}")
        return
    with torch.inference_mode():
        dense = median_seconds(lambda: nn.functional.linear(x, pruned), repeats)
        sparse = median_seconds(lambda: nn.functional.linear(x, compressed), repeats)
        exact = nn.functional.linear(x, pruned).float()
        gap = ((nn.functional.linear(x, compressed).float() - exact).norm() / exact.norm()).item()
    flops = 2 * tokens * d * 4 * d
    table(
        [
            ["dense", 1000 * dense, flops / dense / 1e12, w.numel() * 2],
            ["2:4", 1000 * sparse, flops / sparse / 1e12, w.numel() * 2 // 2 + w.numel() // 8],
        ],
        header=["couche", "ms", "TFLOP/s utiles, zéros comptés", "octets"],
        caption=f"{card_name()} : {d} → {4 * d}, {number(tokens)} jetons, FP16",
    )
    note(f"Le noyau 2:4 va {number(dense / sparse, 3)} fois plus vite ; écart relatif des sorties {number(gap, 2)}.")
