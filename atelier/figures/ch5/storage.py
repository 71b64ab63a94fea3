"""Chapitre 5, deuxième partie : ce que des zéros font gagner, en octets et en secondes."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from atelier.display import note, recorded, show, table
from atelier.figures.common.layers import linear_layers, weight_of
from atelier.figures.common.style import BLACK, SERIES, canvas, french, progress_bar
from atelier.hardware import device, median_seconds
from atelier.models import GPT2_SIZES
from atelier.text import number, percent, plural

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Magnitude = Callable[[Tensor, float], Tensor]
TIMED = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Parts de zéros des produits chronométrés."""

Packed = dict[str, Tensor]
"""Les tenseurs qu'un format écrit dans le fichier."""


# --- Les formats ------------------------------------------------------------------------------------------------------


def as_list(w: Tensor) -> Packed:
    """Liste de coordonnées : un indice (int32) dans le tenseur déroulé et une valeur (FP16) par poids non nul."""
    index = w.flatten().nonzero()[:, 0]
    return {"indices": index.to(torch.int32), "valeurs": w.flatten()[index].half()}


def as_torch_coo(w: Tensor) -> Packed:
    """La liste de coordonnées de torch : deux indices int64, ligne et colonne, et une valeur (FP16)."""
    sparse = w.half().cpu().to_sparse_coo().coalesce()
    return {"indices": sparse.indices(), "valeurs": sparse.values()}


def as_csr(w: Tensor) -> Packed:
    """CSR : le début de chaque ligne (int32), puis une colonne (16 bits, il y en a moins de 65 536) et une valeur."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sparse = w.half().cpu().to_sparse_csr()
    return {
        "lignes": sparse.crow_indices().to(torch.int32),
        "colonnes": sparse.col_indices().to(torch.int16),
        "valeurs": sparse.values(),
    }


def as_bitmap(w: Tensor) -> Packed:
    """Bitmap : un bit par poids, qui dit s'il est gardé, et une valeur (FP16) par poids gardé, dans l'ordre."""
    kept = (w != 0).flatten().cpu()
    return {"bits": torch.from_numpy(np.packbits(kept.numpy())), "valeurs": w.flatten().cpu()[kept].half()}


def from_bitmap(packed: Packed, shape: torch.Size) -> Tensor:
    """Le poids (float32) que rend un bitmap."""
    n = shape.numel()
    kept = torch.from_numpy(np.unpackbits(packed["bits"].numpy(), count=n).astype(bool))
    out = torch.zeros(n)
    out[kept] = packed["valeurs"].float()
    return out.reshape(shape)


FORMATS: dict[str, Callable[[Tensor], Packed]] = {
    "dense, avec ses zéros": lambda w: {"valeurs": w.half()},
    "liste (indice de 32 bits)": as_list,
    "liste de torch (deux indices de 64 bits)": as_torch_coo,
    "CSR (colonne de 16 bits)": as_csr,
    "bitmap": as_bitmap,
}
ZIP = "dense, zippé"


def stored_bytes(packed: Packed) -> int:
    """Octets d'un fichier safetensors qui contient ces tenseurs."""
    return len(save({k: v.cpu().contiguous() for k, v in packed.items()}))


def zipped_bytes(packed: Packed) -> int:
    """Octets du même fichier, passé par zlib (l'algorithme de zip, niveau 6)."""
    return len(zlib.compress(save({k: v.cpu().contiguous() for k, v in packed.items()}), 6))


def _all_sizes(w: Tensor) -> dict[str, int]:
    sizes = {name: stored_bytes(pack(w)) for name, pack in FORMATS.items()}
    sizes[ZIP] = zipped_bytes(FORMATS["dense, avec ses zéros"](w))
    return sizes


@recorded("ch5/formats", needs=("magnitude", "sparse_bytes"))
def formats(
    w: Tensor,
    magnitude: Magnitude,
    sparse_bytes: Callable[..., int],
    amounts: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
) -> None:
    """La même couche élaguée, écrite de six façons, pesée ; votre formule à côté de la liste."""
    sizes = {a: _all_sizes(w * magnitude(w, a)) for a in amounts}
    dense = sizes[amounts[0]]["dense, avec ses zéros"]
    fig, ax = canvas(8.6, 4.2)
    drawn = [*list(FORMATS)[1:], ZIP]
    for name, look in zip(drawn, SERIES, strict=False):
        ax.plot([100 * a for a in amounts], [sizes[a][name] / dense for a in amounts], label=name, lw=1.5, ms=5, **look)
    ax.axhline(1, color=BLACK, lw=1.2)
    ax.text(15, 1.05, "dense, avec ses zéros", fontsize=8.5)
    predicted = [sparse_bytes(w.numel(), a) / dense for a in amounts]
    ax.plot([100 * a for a in amounts], predicted, "x", color=BLACK, ms=8, label="votre formule")
    ax.set_ylim(0, 3.2)
    ax.set_xlabel("part des poids retirés (%)")
    ax.set_ylabel("octets / fichier dense en FP16")
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1, 1))
    french(ax)
    pays = {name: _crossing([(a, s[name] / dense) for a, s in sizes.items()]) for name in drawn}
    show(
        fig,
        alt="Octets de chaque format, rapportés au fichier dense, contre la part retirée. À 50 % : "
        + ", ".join(f"{n} {number(sizes[0.5][n] / dense, 3)}" for n in drawn)
        + ". Part à partir de laquelle chacun est plus petit que le dense : "
        + ", ".join(f"{n} {_told(p)}" for n, p in pays.items())
        + ".",
    )
    table(
        [[n, _told(pays[n]), sizes[0.5][n], sizes[0.9][n], percent(sizes[0.9][n] / dense)] for n in drawn],
        header=[
            "format",
            "plus petit que le dense à partir de",
            "octets à 50 %",
            "octets à 90 %",
            "part du dense, à 90 %",
        ],
        caption=f"Une couche de {number(w.numel())} poids ; dense en FP16 : {number(dense)} octets, zéros compris",
    )
    worst = max(abs(sparse_bytes(w.numel(), a) / sizes[a]["liste (indice de 32 bits)"] - 1) for a in amounts if a < 0.9)
    again = w * magnitude(w, 0.5)
    same = torch.equal(from_bitmap(as_bitmap(again), again.shape), again.half().float().cpu())
    note(
        f"Votre formule et le fichier de la liste diffèrent de {percent(worst)} au plus (l'en-tête du fichier). Relu, "
        + ("le bitmap rend exactement les mêmes poids." if same else "le bitmap rend d'autres poids !")
    )


def _crossing(points: Sequence[tuple[float, float]]) -> float | None:
    """Abscisse à partir de laquelle la courbe reste sous 1, par interpolation ; None si elle n'y descend pas."""
    for (a, u), (b, v) in zip(reversed(points[:-1]), reversed(points[1:]), strict=True):
        if u > 1 >= v:
            return a + (u - 1) / (u - v) * (b - a)
    return 0.0 if points[-1][1] <= 1 else None


def _told(share: float | None) -> str:
    return "jamais ici" if share is None else percent(round(share, 3)) if share else "toujours"


# --- Le temps ---------------------------------------------------------------------------------------------------------


def _csr_place() -> torch.device:
    """L'appareil du chapitre, s'il sait multiplier un CSR ; sinon (MPS) le processeur."""
    try:
        torch.eye(2, device=device()).to_sparse_csr() @ torch.ones(2, 1, device=device())
    except (RuntimeError, NotImplementedError):
        return torch.device("cpu")
    return device()


@torch.inference_mode()
def products(
    size: str = "small",
    tokens: Sequence[int] = (1, 128),
    amounts: Sequence[float] = TIMED,
    repeats: int = 7,
) -> None:
    """Temps d'un produit couche × activations : dense, zéros compris, contre CSR, selon la part de zéros.

    Les poids sont au hasard, aux tailles de la couche MLP de GPT-2 : seuls comptent leurs zéros.
    """
    d = GPT2_SIZES[size][1]
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4 * d, d, generator=generator)
    order = torch.rand(4 * d, d, generator=generator)
    times: dict[int, dict[float, tuple[float, float]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        where = _csr_place()
    for n in tokens:
        x = torch.randn(d, n, generator=generator).to(where)
        times[n] = {}
        for a in progress_bar(amounts, plural(n, "jeton")):
            w = (base * (order >= a)).to(where)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sparse = w.to_sparse_csr()
            dense_time = median_seconds(partial(torch.matmul, w, x), repeats)
            sparse_time = median_seconds(partial(torch.matmul, sparse, x), repeats)
            times[n][a] = dense_time, sparse_time
    fig, axes = canvas(9, 3.6, columns=len(tokens), squeeze=False)
    told, summary = [], []
    for ax, (n, found) in zip(axes[0], times.items(), strict=True):
        xs = [100 * (1 - a) for a in found]
        ax.plot(xs, [1000 * t[0] for t in found.values()], label="dense, zéros compris", lw=1.5, **SERIES[0])
        ax.plot(xs, [1000 * t[1] for t in found.values()], label="CSR", lw=1.5, **SERIES[1])
        ax.set_xscale("log")
        ax.invert_xaxis()
        ax.set_xticks(xs, [number(100 * a) for a in found], fontsize=8)
        ax.minorticks_off()
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        ax.set_yticks([m * 10**e for e in range(-5, 4) for m in (1, 2, 5) if low <= m * 10**e <= high])
        ax.set_title(plural(n, "jeton"), fontsize=10)
        ax.set_xlabel("part de zéros (%)")
        french(ax, x=False)
        cross = _crossing([(a, s / dt) for a, (dt, s) in found.items()])
        told.append(
            f"{plural(n, 'jeton')} : "
            + ", ".join(
                f"à {percent(a)} dense {number(1000 * t[0], 2, unit='ms')}, CSR {number(1000 * t[1], 2, unit='ms')}"
                for a, t in found.items()
            )
        )
        when = (
            "CSR ne gagne à aucune des parts mesurées"
            if cross is None
            else f"CSR gagne dès {percent(min(found))}"
            if cross == 0
            else f"CSR gagne à partir de {percent(round(cross, 3))} de zéros environ"
        )
        summary.append(f"{plural(n, 'jeton')} : {when}")
    axes[0][0].set_ylabel("ms par produit (échelle logarithmique)")
    axes[0][-1].legend(frameon=False, fontsize=8.5)
    show(fig, alt="Temps d'un produit contre la part de zéros. " + " ; ".join(told) + ".")
    note(" ; ".join(summary) + f". Couche {d} → {4 * d} de GPT-2 {size}, sur cette machine.")


# --- Le fichier entier ------------------------------------------------------------------------------------------------


def model_file(model: GPT2LMHeadModel, pack: Callable[[Tensor], Packed] = as_bitmap) -> Packed:
    """Le fichier d'un Colibri élagué : couches linéaires au format `pack`, tout le reste en FP16."""
    linear = {f"transformer.h.{n}.weight" for n in linear_layers(model)}
    stored = {k: p.detach().half().cpu() for k, p in model.named_parameters() if k not in linear}
    for name, layer in linear_layers(model).items():
        stored |= {f"{name}.{part}": t.cpu() for part, t in pack(weight_of(layer)).items()}
    return stored


def as_two_four(w: Tensor) -> Packed:
    """Motif 2:4 : deux valeurs (FP16) par groupe de quatre, et deux bits de place pour chacune.

    Lève ValueError si un groupe a plus de deux poids non nuls.
    """
    groups = w.reshape(-1, 4).cpu()
    if ((groups != 0).sum(1) > 2).any():
        raise ValueError("ce poids ne suit pas le motif 2:4")
    places = (groups != 0).to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :2].sort(dim=1).values
    codes = (places[:, 0] | (places[:, 1] << 2)).to(torch.uint8)
    codes = torch.nn.functional.pad(codes, (0, len(codes) % 2))
    return {"places": codes[0::2] | (codes[1::2] << 4), "valeurs": groups.gather(1, places.long()).half()}


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Des entiers de `bits` bits, signés, écrits à la suite sans perdre un bit → uint8."""
    shifted = (codes.cpu().to(torch.int16) + 2 ** (bits - 1)).to(torch.uint8).numpy()
    return torch.from_numpy(np.packbits(np.unpackbits(shifted[:, None], axis=1)[:, 8 - bits :]))
