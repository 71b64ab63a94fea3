"""Chapitre 5, dernière partie : élaguer et quantifier le même modèle ; ce que l'élagage vaut, à bits égaux."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atelier.display import note, recorded, show, table
from atelier.figures.ch5.importance import CHAPTER, Wanda, curve
from atelier.figures.ch5.masks import by_blocks, linear_weights, wanda_model
from atelier.figures.ch5.recovery import zero_share
from atelier.figures.ch5.storage import (
    Packed,
    as_bitmap,
    as_two_four,
    from_bitmap,
    model_file,
    pack_codes,
    stored_bytes,
)
from atelier.figures.ch5.structure import fp16_bytes
from atelier.figures.common.files import announce
from atelier.figures.common.layers import linear_layers, replace_weights
from atelier.figures.common.style import BLACK, SERIES, canvas, french
from atelier.measures import load_measures
from atelier.perplexity import evaluate_perplexity
from atelier.text import number, percent
from atelier.variants import load_variant, save_variant

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

NM = Callable[..., Tensor]
RUN_AGAIN = "Relancez d'abord la cellule précédente : elle construit le modèle à inscrire."


def round_to_grid(w: Tensor, bits: int) -> Tensor:
    """Poids (sortie, entrée) arrondis au plus proche sur une grille symétrique par ligne, par la fonction de torch.

    Zéro est sur la grille : un poids élagué le reste.
    """
    top = 2 ** (bits - 1) - 1
    step = (w.abs().amax(dim=1) / top).clamp(min=torch.finfo(w.dtype).tiny)
    zero = torch.zeros_like(step, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(w.contiguous(), step, zero, 0, -top - 1, top)


# --- L'ordre ----------------------------------------------------------------------------------------------------------


@recorded("ch5/orders", needs=("wanda",))
def orders(model: GPT2LMHeadModel, ids: Tensor, wanda: Wanda, tokens: int, amount: float = 0.5) -> None:
    """Élaguer puis arrondir, arrondir puis élaguer : les vôtres, et toutes les combinaisons de l'auteur."""

    def rounded(m: GPT2LMHeadModel) -> GPT2LMHeadModel:
        return replace_weights(m, lambda _, w: round_to_grid(w, 4))

    yours = {
        "Wanda puis 4 bits": rounded(wanda_model(model, ids, wanda, amount)),
        "4 bits puis Wanda": wanda_model(rounded(model), ids, wanda, amount),
        "GPTQ puis Wanda": wanda_model(load_variant("int4-gptq"), ids, wanda, amount),
    }
    mine = {name: evaluate_perplexity(m, max_tokens=tokens).perplexity for name, m in yours.items()}
    rows = [
        [
            name,
            percent(round(found["zéros"], 3)),
            number(bits_of(name, found["zéros"]), 3),
            number(found["perplexité"], 4),
            number(mine[name], 4) if name in mine else "—",
        ]
        for name, found in load_measures(CHAPTER)["ordres"].items()
    ]
    table(
        rows,
        header=["dans cet ordre", "zéros", "bits par poids", "perplexité (auteur)", f"(vous, {number(tokens)} jetons)"],
        caption=f"Colibri, moitié des poids retirés quand il y a élagage (entier : "
        f"{number(load_measures(CHAPTER)['dense']['perplexité'], 4)})",
    )
    note(
        "Bits par poids : s'il y a élagage, un bit de bitmap ; plus les bits des valeurs gardées ; les "
        "échelles, une par ligne, ne sont pas comptées."
    )


def bits_of(name: str, zeros: float) -> float:
    """Bits par poids linéaire d'une recette enregistrée : « 4 bits » ou GPTQ en valent 4, 16 sinon, bitmap compris."""
    value = next(
        (int(n) for n in ("8", "4", "3") if f"{n} bits" in name), 4 if "GPTQ" in name and "Sparse" not in name else 16
    )
    pruned = "Wanda" in name or "SparseGPT" in name
    return 1 + value * (1 - zeros) if pruned else float(value)


def same_bits() -> None:
    """Perplexité contre bits par poids : élaguer en FP16, quantifier, et les deux ensemble."""
    measures = load_measures(CHAPTER)
    dense = measures["dense"]["perplexité"]
    found = measures["ordres"]
    pruned = [(1 + 16 * (1 - a), sorted(v)[len(v) // 2]) for a, v in curve("wanda").items()]
    best = [(1 + 16 * (1 - a), v[0]) for a, v in curve("sparsegpt").items()]

    def points(*names: str) -> list[tuple[float, float]]:
        return [(bits_of(n, found[n]["zéros"]), found[n]["perplexité"]) for n in names]

    groups = [
        ("élagué par Wanda, 10 à 90 %, FP16", pruned or points("Wanda"), SERIES[3]),
        ("élagué par SparseGPT, 10 à 90 %, FP16", best or points("SparseGPT"), SERIES[4]),
        ("quantifié au plus proche, 4 et 3 bits", points("4 bits", "3 bits"), SERIES[0]),
        ("quantifié par GPTQ, 4 et 3 bits", points("4 bits, GPTQ", "3 bits, GPTQ"), SERIES[2]),
        (
            "les deux : moitié élaguée, puis 8 ou 4 bits",
            points("Wanda puis 8 bits", "Wanda puis 4 bits", "SparseGPT et 4 bits ensemble"),
            {**SERIES[1], "linestyle": ""},
        ),
    ]
    fig, ax = canvas(8.4, 4.2)
    for label, line, look in groups:
        ax.plot(*zip(*line, strict=True), label=label, lw=1.5, ms=6, **look)
    for (x, y), text in zip(groups[-1][1], ("Wanda, 8 bits", "Wanda, 4 bits", "SparseGPT, 4 bits"), strict=True):
        ax.annotate(text, (x, y), xytext=(6, 3), textcoords="offset points", fontsize=8)
    ax.axhline(dense, color=BLACK, lw=1, ls=":")
    ax.text(16, dense, "entier", va="bottom", ha="right", fontsize=8.5)
    ax.set_yscale("log")
    ax.set_xlim(2, 16.6)
    ax.set_ylim(0.9 * dense, 30 * dense)
    ax.set_xlabel("bits par poids linéaire, bitmap compris")
    ax.set_ylabel("perplexité (échelle logarithmique)")
    ax.legend(frameon=False, fontsize=8.5)
    french(ax)
    show(
        fig,
        alt=f"Perplexité contre bits par poids, modèle entier {number(dense, 3)} à 16 bits. "
        + " ; ".join(
            f"{label} : " + ", ".join(f"{number(b, 3, unit='bits')} {number(p, 3)}" for b, p in line)
            for label, line, _ in groups
        )
        + ".",
    )


# --- Le tableau du cours ----------------------------------------------------------------------------------------------


@torch.no_grad()
def _reread(model: GPT2LMHeadModel, stored: Packed) -> GPT2LMHeadModel:
    """Le modèle que rend un fichier de bitmaps : c'est lui qu'on évalue, arrondis en FP16 compris."""
    again = copy.deepcopy(model)
    own = dict(again.named_parameters())
    for key, value in stored.items():
        if key in own:
            own[key].copy_(value)
    for name, layer in linear_layers(again).items():
        packed = {part: stored[f"{name}.{part}"] for part in ("bits", "valeurs")}
        layer.weight.copy_(from_bitmap(packed, layer.weight.T.shape).T)
    return again


def _save_bitmap(name: str, pruned: GPT2LMHeadModel, what: str) -> None:
    stored = model_file(pruned, as_bitmap)
    announce(save_variant(name, _reread(pruned, stored), stored_bytes(stored), CHAPTER, what))


@recorded("ch5/row_wanda", needs=("wanda",))
def row_wanda(model: GPT2LMHeadModel, ids: Tensor, wanda: Wanda) -> None:
    """Inscrit au tableau Colibri à moitié élagué par votre Wanda, fichier en bitmap."""
    _save_bitmap("wanda-50", wanda_model(model, ids, wanda, 0.5), "moitié des poids retirés par Wanda, bitmap, FP16")


@recorded("ch5/row_two_four", needs=("nm_mask",))
def row_two_four(model: GPT2LMHeadModel, ids: Tensor, nm_mask: NM) -> None:
    """Inscrit au tableau Colibri en motif 2:4 sur les importances de Wanda."""
    pruned = by_blocks(model, ids, lambda _, w, x: w * nm_mask(w * x.norm(dim=0), 2, 4))
    size = stored_bytes(model_file(pruned, as_two_four))
    announce(save_variant("wanda-2-4", pruned, size, CHAPTER, "motif 2:4 par les importances de Wanda, FP16"))


@recorded("ch5/row_recovered", needs=("magnitude", "schedule"))
def row_recovered(pruned: Any, magnitude: Any, schedule: Any) -> None:
    """Inscrit au tableau le modèle élagué peu à peu et repris."""
    if pruned is None:
        return note(RUN_AGAIN)
    _save_bitmap("repris-80", pruned, "80 % des poids retirés peu à peu, masque gardé, bitmap, FP16")


@recorded("ch5/rows_structure", needs=("prune_heads",))
def rows_structure(made: Any, prune_heads: Any) -> None:
    """Inscrit au tableau les trois modèles amincis pour de bon."""
    if made is None:
        return note(RUN_AGAIN)
    for (what, m), name in zip(made.items(), ("moins-tetes", "moins-neurones", "moins-bloc"), strict=True):
        announce(save_variant(name, m, fp16_bytes(m), CHAPTER, f"retiré : {what}, FP16, sans réapprentissage"))


@recorded("ch5/row_both", needs=("wanda",))
def row_both(model: GPT2LMHeadModel, ids: Tensor, wanda: Wanda) -> None:
    """Inscrit au tableau Colibri élagué par Wanda, puis arrondi : bitmap, codes de 4 bits, échelles en FP16."""
    pruned = wanda_model(model, ids, wanda, 0.5)
    rounded = replace_weights(pruned, lambda _, w: round_to_grid(w, 4))
    stored, weights = model_file(rounded, as_bitmap), linear_weights(pruned)
    for name, w in linear_weights(rounded).items():
        step = weights[name].abs().amax(dim=1) / 7
        del stored[f"{name}.valeurs"]
        stored[f"{name}.codes"] = pack_codes(torch.round(w / step[:, None])[w != 0], 4)
        stored[f"{name}.échelles"] = step.half().cpu()
    size = stored_bytes(stored)
    what = f"moitié retirée par Wanda puis 4 bits par canal, bitmap ({percent(round(zero_share(rounded), 3))} de zéros)"
    announce(save_variant("wanda-50-int4", rounded, size, CHAPTER, what))
