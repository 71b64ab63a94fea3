"""Un modèle dans un fichier : ce qu'on y écrit, ce qu'il pèse, et la ligne du tableau qui le dit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from atelier.display import note
from atelier.text import number

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


def plain_tensors(model: GPT2LMHeadModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """Les poids du modèle dans un type flottant, la tête liée écrite une fois."""
    return {k: p.detach().to("cpu", dtype).contiguous() for k, p in model.named_parameters()}


def file_bytes(tensors: dict[str, Tensor]) -> int:
    """Octets d'un fichier safetensors qui contient ces tenseurs."""
    return len(save(tensors))


def announce(row: dict[str, Any]) -> None:
    """Dit la ligne qui vient d'être inscrite au tableau."""
    note(
        f"Au tableau : « {row['name']} », perplexité {number(row['perplexity'])}, "
        f"{number(row['bytes'], unit='octets')}, {number(row['ms'], 3, unit='ms')} par fenêtre."
    )


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Des entiers signés de `bits` bits (huit au plus), écrits à la suite sans perdre un bit → uint8."""
    shifted = (codes.flatten().cpu().to(torch.int16) + 2 ** (bits - 1)).to(torch.uint8).numpy()
    return torch.from_numpy(np.packbits(np.unpackbits(shifted[:, None], axis=1)[:, 8 - bits :]))


def unpack_codes(packed: Tensor, bits: int, shape: torch.Size) -> Tensor:
    """L'inverse de `pack_codes` → int64, de cette forme."""
    each = np.unpackbits(packed.numpy(), count=bits * shape.numel()).reshape(-1, bits)
    return torch.from_numpy(each @ (1 << np.arange(bits)[::-1]) - 2 ** (bits - 1)).reshape(shape)
