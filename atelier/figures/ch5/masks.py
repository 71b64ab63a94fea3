"""Chapitre 5 : poser des masques sur les couches linéaires d'un GPT-2, d'un coup ou bloc après bloc."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atelier.figures.common.layers import KINDS, layer_inputs, linear_layers, replace_weights, weight_of

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Masks = Mapping[str, Tensor]
"""« bloc.nom » → masque booléen (sortie, entrée) d'une couche, True = poids gardé."""

Change = Callable[[str, Tensor, Tensor], Tensor]
"""(nom, poids (sortie, entrée), activations (n, entrée)) → poids élagués, de même forme."""


def linear_weights(model: GPT2LMHeadModel) -> dict[str, Tensor]:
    """« bloc.nom » → poids (sortie, entrée) de chaque couche linéaire : ce que ce chapitre élague."""
    return {name: weight_of(layer) for name, layer in linear_layers(model).items()}


def masked(model: GPT2LMHeadModel, masks: Masks) -> GPT2LMHeadModel:
    """Une copie du modèle où les poids masqués valent zéro ; une couche absente de `masks` reste entière."""
    return replace_weights(model, lambda name, w: w * masks[name] if name in masks else w)


def magnitude_model(
    model: GPT2LMHeadModel, magnitude: Callable[[Tensor, float], Tensor], amount: float
) -> GPT2LMHeadModel:
    """Une copie du modèle dont chaque couche perd la part `amount` de ses poids les plus petits."""
    return replace_weights(model, lambda _, w: w * magnitude(w, amount))


def random_model(model: GPT2LMHeadModel, amount: float, seed: int) -> GPT2LMHeadModel:
    """Une copie du modèle dont chaque couche perd la part `amount` de ses poids, tirés au hasard."""
    generator = torch.Generator().manual_seed(seed)

    def drop(_: str, w: Tensor) -> Tensor:
        order = torch.randperm(w.numel(), generator=generator)
        mask = torch.ones(w.numel(), dtype=torch.bool)
        mask[order[: round(amount * w.numel())]] = False
        return w * mask.reshape(w.shape).to(w.device)

    return replace_weights(model, drop)


def by_blocks(model: GPT2LMHeadModel, ids: Tensor, change: Change) -> GPT2LMHeadModel:
    """Une copie du modèle élaguée bloc après bloc, chacun sur les activations du modèle déjà élagué avant lui.

    C'est l'ordre de Wanda et de SparseGPT. ids : fenêtres d'étalonnage (B, contexte).
    """
    changed = copy.deepcopy(model)
    layers = linear_layers(changed)
    for block in range(len(changed.transformer.h)):
        names = [f"{block}.{kind}" for kind in KINDS]
        inputs = layer_inputs(changed, ids, names)
        with torch.no_grad():
            for name in names:
                layers[name].weight.copy_(change(name, weight_of(layers[name]), inputs[name]).T)
    return changed


def wanda_model(
    model: GPT2LMHeadModel, ids: Tensor, wanda: Callable[[Tensor, Tensor, float], Tensor], amount: float
) -> GPT2LMHeadModel:
    """Une copie du modèle élaguée par Wanda, bloc après bloc, comme dans l'article."""
    return by_blocks(model, ids, lambda _, w, x: w * wanda(w, x, amount))
