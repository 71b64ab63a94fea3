"""Chapitre 4 : un Colibri sur 2 ou 3 bits, réparé par une courte distillation."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import GPT2LMHeadModel

from atelier.figures.layers import linear_layers


class Rounded(nn.Module):
    """Le poids (entrée, sortie) d'une couche, arrondi à chaque usage, avec une échelle par sortie (absmax).

    `torch.fake_quantize_per_channel_affine` rend au poids le gradient de sa valeur arrondie, sans le changer : c'est
    l'estimateur direct (*straight-through estimator*).
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.top = 2 ** (bits - 1) - 1

    def forward(self, w: Tensor) -> Tensor:
        peak = torch.linalg.vector_norm(w.detach(), torch.inf, dim=0)
        steps = torch.where(peak > 0, peak / self.top, 1.0)
        zeros = torch.zeros_like(steps, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(w, steps, zeros, 1, -self.top - 1, self.top)


def rounded_copy(model: GPT2LMHeadModel, bits: int) -> GPT2LMHeadModel:
    """Une copie dont les couches linéaires calculent sur `bits` bits ; les poids qui apprennent restent en FP32."""
    copied = copy.deepcopy(model)
    for layer in linear_layers(copied).values():
        parametrize.register_parametrization(layer, "weight", Rounded(bits))
    return copied


def settle(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Remplace, sur place, chaque poids par sa valeur arrondie : de nouveau un GPT-2 ordinaire."""
    for layer in linear_layers(model).values():
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return model
