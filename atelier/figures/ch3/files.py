"""Chapitre 3, cinquième partie : Colibri quantifié écrit dans un fichier, pesé, relu, inscrit au tableau."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.display import note, number, recorded, table
from atelier.figures.ch3.gptq import gptq_model
from atelier.figures.ch3.models import CHAPTER, GROUP, by_grain, to_int8
from atelier.figures.common.files import announce, file_bytes, plain_tensors
from atelier.figures.common.layers import KINDS, linear_layers, weight_of
from atelier.figures.common.style import percent
from atelier.variants import save_variant

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

# --- Le fichier ---------------------------------------------------------------------------------------------------


def _others(model: GPT2LMHeadModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tout ce qui n'est pas un poids de couche linéaire : tables, biais, normalisations."""
    linear = {f"transformer.h.{n}.weight" for n in linear_layers(model)}
    return {k: p.detach().to("cpu", dtype) for k, p in model.named_parameters() if k not in linear}


def code_tensors(model: GPT2LMHeadModel, codes: Callable[[str, Tensor], tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Le fichier d'un modèle quantifié : codes et échelles (FP16) des couches linéaires, le reste en FP16."""
    stored = _others(model, torch.float16)
    for name, layer in linear_layers(model).items():
        q, s = codes(name, weight_of(layer))
        stored[f"{name}.q"], stored[f"{name}.s"] = q.cpu().contiguous(), s.to("cpu", torch.float16).contiguous()
    return {k: v.contiguous() for k, v in stored.items()}


def _codes(bits: int, grain: str, per_tensor: Any, per_channel: Any, quantize: Any) -> Callable[[str, Tensor], Any]:
    def make(_: str, w: Tensor) -> tuple[Tensor, Tensor]:
        blocks, s = by_grain(w, bits, grain, per_tensor, per_channel)
        return quantize(blocks / s, 1.0, 0, bits).reshape(w.shape), s

    return make


@recorded("ch3/weigh_files", needs=("per_channel", "quantize", "pack", "unpack"))
def weigh_files(model: GPT2LMHeadModel, per_channel: Any, quantize: Any, pack: Any, unpack: Any) -> None:
    """Le même Colibri dans plusieurs fichiers, écrits puis pesés ; celui de 4 bits est relu et comparé."""
    n = sum(w.weight.numel() for w in linear_layers(model).values())
    eight, four = (_codes(b, "canal", None, per_channel, quantize) for b in (8, 4))
    grouped = _codes(4, "groupe", None, per_channel, quantize)
    packed = code_tensors(model, lambda k, w: _packed(four(k, w), pack))
    files = {
        "FP32": plain_tensors(model, torch.float32),
        "FP16": plain_tensors(model, torch.float16),
        "codes 8 bits": code_tensors(model, eight),
        "codes 4 bits, un par octet": code_tensors(model, four),
        "codes 4 bits, deux par octet": packed,
        f"… et une échelle par groupe de {GROUP}": code_tensors(model, lambda k, w: _packed(grouped(k, w), pack)),
    }
    rest = {name: sum(t.nbytes for k, t in f.items() if not _is_linear(k)) for name, f in files.items()}
    sizes = {name: file_bytes(f) for name, f in files.items()}
    rows = [
        [name, size, size / sizes["FP32"], 8 * (size - rest[name]) / n, percent(rest[name] / size)]
        for name, size in sizes.items()
    ]
    table(
        rows,
        header=["fichier", "octets", "part du FP32", "bits par poids linéaire", "part des tables et biais"],
        caption=f"Colibri sur le disque : {number(n)} poids linéaires",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quatre_bits.safetensors"
        save_file(packed, path)
        again = load_file(path)
        same = all(
            torch.equal(unpack(again[f"{k}.q"], layer.weight.shape[0]), four(k, weight_of(layer))[0].cpu())
            for k, layer in linear_layers(model).items()
        )
    note(
        "Relu et déplié, le fichier rend "
        + ("exactement les mêmes codes." if same else "d'autres codes que ceux écrits !")
    )


def _packed(pair: tuple[Tensor, Tensor], pack: Any) -> tuple[Tensor, Tensor]:
    return pack(pair[0]), pair[1]


def _is_linear(key: str) -> bool:
    return key.endswith((".q", ".s")) or any(key.endswith(f"{kind}.weight") for kind in KINDS)


# --- Les lignes du tableau de bord --------------------------------------------------------------------------------


def row_plain(model: GPT2LMHeadModel, name: str, dtype: torch.dtype, what: str) -> None:
    """Inscrit au tableau Colibri dans un type flottant (l'arrondi est réel, le calcul reste en FP32)."""
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for p in rounded.parameters():
            p.copy_(p.to(dtype))
    announce(save_variant(name, rounded, file_bytes(plain_tensors(model, dtype)), CHAPTER, what))


@recorded("ch3/row_int8", needs=("int8_linear", "per_channel", "quantize"))
def row_int8(model: GPT2LMHeadModel, int8_linear: Any, per_channel: Any, quantize: Any) -> None:
    """Inscrit au tableau Colibri en W8A8, avec le produit de l'étudiant."""
    size = file_bytes(code_tensors(model, _codes(8, "canal", None, per_channel, quantize)))
    eight = to_int8(model, int8_linear, per_channel, quantize)
    announce(
        save_variant("int8", eight, size, CHAPTER, "W8A8, une échelle par canal et par jeton, produit écrit en Python")
    )


@recorded("ch3/row_int4", needs=("per_channel", "quantize", "dequantize", "pack", "unpack"))
def row_int4(model: GPT2LMHeadModel, per_channel: Any, quantize: Any, dequantize: Any, pack: Any, unpack: Any) -> None:
    """Inscrit au tableau Colibri arrondi au plus proche sur 4 bits, une échelle par canal, calcul en FP32."""
    four = _codes(4, "canal", None, per_channel, quantize)
    stored = code_tensors(model, lambda k, w: _packed(four(k, w), pack))
    rounded = from_file(model, stored, dequantize, unpack)
    what = "poids sur 4 bits au plus proche, par canal, calcul en FP32"
    announce(save_variant("int4", rounded, file_bytes(stored), CHAPTER, what))


@recorded("ch3/row_gptq", needs=("gptq", "per_channel", "quantize", "dequantize", "pack", "unpack"))
def row_gptq(
    model: GPT2LMHeadModel,
    ids: Tensor,
    gptq: Any,
    per_channel: Any,
    quantize: Any,
    dequantize: Any,
    pack: Any,
    unpack: Any,
) -> None:
    """Inscrit au tableau Colibri passé par GPTQ sur 4 bits, et garde ses poids pour les chapitres suivants."""
    scales = {k: per_channel(weight_of(layer), 4, 0) for k, layer in linear_layers(model).items()}
    compensated = gptq_model(model, ids, gptq, 4)
    stored = code_tensors(compensated, lambda k, w: (pack(quantize(w / scales[k], 1.0, 0, 4)), scales[k]))
    rounded = from_file(model, stored, dequantize, unpack)
    what = "poids sur 4 bits par GPTQ, par canal, calcul en FP32"
    announce(save_variant("int4-gptq", rounded, file_bytes(stored), CHAPTER, what, keep_weights=True))


def from_file(model: GPT2LMHeadModel, stored: dict[str, Tensor], dequantize: Any, unpack: Any) -> GPT2LMHeadModel:
    """Le modèle que rend un fichier de codes sur 4 bits : c'est lui qu'on évalue, arrondis en FP16 compris."""
    rounded = copy.deepcopy(model)
    own = dict(rounded.named_parameters())
    with torch.no_grad():
        for key, value in stored.items():
            if not _is_linear(key):
                own[key].copy_(value)
        for name, layer in linear_layers(rounded).items():
            codes = unpack(stored[f"{name}.q"], layer.weight.shape[0])
            layer.weight.copy_((dequantize(codes, 1.0, 0) * stored[f"{name}.s"].float()).T)
    return rounded
