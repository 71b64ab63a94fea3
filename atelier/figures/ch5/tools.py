"""Ce que le chapitre 5 emploie sans l'enseigner : un modèle élagué dans un fichier, relu, chronométré."""

from __future__ import annotations

import copy
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from atelier.figures.common.clock import interleaved_seconds
from atelier.figures.common.files import file_bytes, pack_codes
from atelier.figures.common.layers import linear_layers, weight_of
from atelier.hardware import beside, card_capability, device, home
from atelier.models import GPT2_SIZES

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel
    from transformers.pytorch_utils import Conv1D

Packed = dict[str, Tensor]
"""Les tenseurs qu'un format écrit dans le fichier."""


# --- Les formats d'une couche -----------------------------------------------------------------------------------------


def as_list(w: Tensor) -> Packed:
    """Liste de coordonnées : un indice (int32) dans le tenseur déroulé et une valeur (FP16) par poids non nul."""
    index = w.flatten().nonzero()[:, 0]
    return {"indices": index.to(torch.int32), "valeurs": w.flatten()[index].half()}


def as_torch_coo(w: Tensor) -> Packed:
    """La liste de coordonnées de torch : deux indices int64, ligne et colonne, et une valeur (FP16)."""
    sparse = w.half().cpu().to_sparse_coo().coalesce()
    return {"indices": sparse.indices(), "valeurs": sparse.values()}


def as_csr(w: Tensor) -> Packed:
    """CSR : le début de chaque ligne (int32), puis une colonne (16 bits, il y en a moins de 65 536) et une valeur."""
    sparse = to_csr(w.half().cpu())
    return {
        "lignes": sparse.crow_indices().to(torch.int32),
        "colonnes": sparse.col_indices().to(torch.int16),
        "valeurs": sparse.values(),
    }


def to_csr(w: Tensor) -> Tensor:
    """Le même tenseur au format CSR de torch, sans l'avertissement qui dit que ce format peut encore changer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return w.to_sparse_csr()


def as_bitmap(w: Tensor) -> Packed:
    """Bitmap : un bit par poids, qui dit s'il est gardé, et une valeur (FP16) par poids gardé, dans l'ordre."""
    kept = (w != 0).flatten().cpu()
    return {"bits": torch.from_numpy(np.packbits(kept.numpy())), "valeurs": w.flatten().cpu()[kept].half()}


def from_bitmap(packed: Packed, shape: torch.Size) -> Tensor:
    """Le poids (float32) que rend un bitmap."""
    n = shape.numel()
    kept = torch.from_numpy(np.unpackbits(packed["bits"].numpy(), count=n).astype(bool))
    out = torch.zeros(n)
    out[kept] = packed["valeurs"].float()
    return out.reshape(shape)


def as_two_four(w: Tensor) -> Packed:
    """Motif 2:4 : deux valeurs (FP16) par groupe de quatre, et deux bits de place pour chacune.

    Lève ValueError si un groupe a plus de deux poids non nuls.
    """
    groups = w.reshape(-1, 4).cpu()
    if ((groups != 0).sum(1) > 2).any():
        raise ValueError("ce poids ne suit pas le motif 2:4")
    places = (groups != 0).to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :2].sort(dim=1).values
    codes = (places[:, 0] | (places[:, 1] << 2)).to(torch.uint8)
    codes = nn.functional.pad(codes, (0, len(codes) % 2))
    return {"places": codes[0::2] | (codes[1::2] << 4), "valeurs": groups.gather(1, places.long()).half()}


def from_two_four(packed: Packed, shape: torch.Size) -> Tensor:
    """Le poids (float32) que rend un motif 2:4."""
    codes = torch.stack([packed["places"] & 0xF, packed["places"] >> 4], 1).flatten()[: shape.numel() // 4]
    places = torch.stack([codes & 3, codes >> 2], 1).long()
    return torch.zeros(shape.numel() // 4, 4).scatter(1, places, packed["valeurs"].float()).reshape(shape)


FORMATS: dict[str, Callable[[Tensor], Packed]] = {
    "dense, avec ses zéros": lambda w: {"valeurs": w.half().contiguous()},
    "liste (indice de 32 bits)": as_list,
    "liste de torch (deux indices de 64 bits)": as_torch_coo,
    "CSR (colonne de 16 bits)": as_csr,
    "bitmap": as_bitmap,
}


def zipped_bytes(packed: Packed) -> int:
    """Octets du fichier de ces tenseurs, passé par zlib (l'algorithme de zip, niveau 6)."""
    return len(zlib.compress(save({k: v.cpu().contiguous() for k, v in packed.items()}), 6))


# --- Un modèle élagué dans un fichier ---------------------------------------------------------------------------------


def model_file(model: GPT2LMHeadModel, pack: Callable[[Tensor], Packed] = as_bitmap) -> Packed:
    """Le fichier d'un Colibri élagué : couches linéaires au format `pack`, tout le reste en FP16."""
    linear = {f"transformer.h.{n}.weight" for n in linear_layers(model)}
    stored = {k: p.detach().half().cpu() for k, p in model.named_parameters() if k not in linear}
    for name, layer in linear_layers(model).items():
        stored |= {f"{name}.{part}": t.cpu() for part, t in pack(weight_of(layer)).items()}
    return {k: t.contiguous() for k, t in stored.items()}


@torch.no_grad()
def reread(
    model: GPT2LMHeadModel, stored: Packed, unpack: Callable[[Packed, torch.Size], Tensor] = from_bitmap
) -> GPT2LMHeadModel:
    """Le modèle que rend un fichier : c'est lui qu'on évalue, arrondis en FP16 compris."""
    again = copy.deepcopy(model)
    own = dict(again.named_parameters())
    for key, value in stored.items():
        if key in own:
            own[key].copy_(value)
    for name, layer in linear_layers(again).items():
        packed = {key.rpartition(".")[2]: t for key, t in stored.items() if key.rpartition(".")[0] == name}
        layer.weight.copy_(unpack(packed, layer.weight.T.shape).T)
    return again


def coded_bytes(model: GPT2LMHeadModel, bits: int) -> int:
    """Octets du fichier d'un modèle élagué et arrondi : bitmap, un code par poids gardé, un pas (FP16) par sortie."""
    stored = model_file(model, as_bitmap)
    for name, layer in linear_layers(model).items():
        kept = stored.pop(f"{name}.valeurs")
        stored[f"{name}.codes"] = pack_codes(torch.zeros(len(kept), dtype=torch.int8), bits)
        stored[f"{name}.pas"] = torch.zeros(layer.weight.shape[1], dtype=torch.float16)
    return file_bytes(stored)


# --- Écrire et relire par transformers --------------------------------------------------------------------------------


def written_and_read(small: GPT2LMHeadModel, ids: Tensor) -> dict[str, str]:
    """Un modèle aminci, écrit par save_pretrained, puis relu par from_pretrained, de deux façons : ce qui revient."""
    from transformers import GPT2LMHeadModel as GPT2
    from transformers.utils import logging

    def judged(folder: str, **options: Any) -> str:
        torch.manual_seed(0)  # ce qui ne se relit pas est tiré au hasard
        try:
            again: Any = GPT2.from_pretrained(folder, **options)
        except (RuntimeError, ValueError) as error:
            return f"refuse ({type(error).__name__})"
        with torch.no_grad():
            same = again.num_parameters() == small.num_parameters() and torch.allclose(
                again.to(home(small)).eval()(ids).logits, small(ids).logits, atol=1e-4
            )
        return "le même modèle" if same else "un autre modèle, en partie tiré au hasard"

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory() as folder:
            small.save_pretrained(folder)
            return {"tel quel": judged(folder), "forcé": judged(folder, ignore_mismatched_sizes=True)}
    finally:
        logging.set_verbosity(verbosity)


# --- Le temps ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def window_seconds(versions: Mapping[str, nn.Module], rounds: int, tokens: int = 256) -> dict[str, list[float]]:
    """Durées d'une fenêtre de `tokens` jetons, version après version, tour après tour."""
    ids = beside(next(iter(versions.values())), torch.arange(tokens)[None] % 1000)
    return interleaved_seconds({name: partial(m, ids, use_cache=False) for name, m in versions.items()}, rounds)


def paths(model: GPT2LMHeadModel) -> dict[str, Conv1D]:
    """Chemin → couche linéaire."""
    return {f"transformer.h.{name}": layer for name, layer in linear_layers(model).items()}


def csr_place() -> torch.device:
    """L'appareil du chapitre, s'il sait multiplier un CSR ; sinon (MPS) le processeur."""
    try:
        to_csr(torch.eye(2, device=device())) @ torch.ones(2, 1, device=device())
    except (RuntimeError, NotImplementedError):
        return torch.device("cpu")
    return device()


def has_two_four() -> bool:
    """Vrai si la carte a des cœurs 2:4 (Ampere ou plus récente)."""
    return card_capability() >= (8, 0)


def card_width() -> int:
    """La largeur de GPT-2 XL sur une carte qui a des cœurs 2:4, celle de GPT-2 small ailleurs."""
    return GPT2_SIZES["xl" if has_two_four() else "small"][1]


# --- Les têtes --------------------------------------------------------------------------------------------------------


def by_block(heads: Iterable[Sequence[int]]) -> dict[int, list[int]]:
    """Des couples (bloc, tête) rangés par bloc."""
    gone: dict[int, list[int]] = {}
    for block, head in heads:
        gone.setdefault(block, []).append(head)
    return gone
