"""Charger Colibri, GPT-2 ou un modèle à soi, et bâtir les formes de GPT-2 en vraie grandeur."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from atelier.hardware import device
from atelier.paths import asset

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

HUB = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
"""Noms courts acceptés par `load_model`, et leur adresse sur le hub."""

GPT2_SIZES = {"small": (12, 768, 12), "medium": (24, 1024, 16), "large": (36, 1280, 20), "xl": (48, 1600, 25)}
"""Couches, dimension, têtes des quatre GPT-2 (Radford et al., 2019, tableau 2)."""


def _local(name: str | Path) -> Path | None:
    if str(name) == "colibri":
        return asset("colibri")
    folder = Path(name)
    return folder if folder.is_dir() else None


def _from_hub(loader: Any, name: str, **options: object):
    """Essaie le hub ; rend None, après une phrase en français, s'il est hors d'atteinte."""
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "20")
    try:
        return loader.from_pretrained(HUB[name], **options)
    except (OSError, ValueError) as error:  # hub injoignable, fichiers absents du cache
        cause = str(error).strip().splitlines()[0][:160]
        print(
            f"« {name} » n'est pas sur cette machine et le hub ne répond pas ({type(error).__name__} : {cause}).\n"
            "Le chapitre continue avec Colibri. Avec un réseau, relancez cette cellule."
        )
        return None


def _resolve(loader: Any, name: str | Path, **options: object):
    from transformers.utils import logging

    (logging.enable_progress_bar if str(name) in HUB else logging.disable_progress_bar)()
    if (folder := _local(name)) is not None:
        return loader.from_pretrained(folder, local_files_only=True, **options)
    if str(name) in HUB:
        found = _from_hub(loader, str(name), **options)
        return (
            found if found is not None else loader.from_pretrained(asset("colibri"), local_files_only=True, **options)
        )
    raise ValueError(
        f"« {name} » n'est ni « colibri », ni un dossier, ni un nom connu ({', '.join(HUB)}). "
        "Donnez le chemin d'un dossier qui contient config.json et model.safetensors."
    )


def load_model(
    name: str | Path = "colibri", attention: str = "sdpa", on: str | torch.device | None = None
) -> GPT2LMHeadModel:
    """Un GPT-2 prêt à l'emploi, en float32, en mode évaluation.

    name : « colibri » (livré avec le cours), « gpt2 »… (le hub n'est essayé que si vous le demandez par son nom ;
    sans réseau, une phrase le dit et Colibri est rendu), ou un dossier au format `save_pretrained`.
    attention : « sdpa » (rapide) ou « eager » (donne les poids d'attention). on : appareil, `device()` si omis.
    Lève `ValueError` si le nom est inconnu.
    """
    from transformers import GPT2LMHeadModel

    model = _resolve(GPT2LMHeadModel, name, dtype=torch.float32, attn_implementation=attention)
    return with_causal_loss(model).to(on or device()).eval()  # type: ignore[arg-type]


def with_causal_loss(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Le même modèle, dont `model(ids, labels=…)` ne se plaint pas, en anglais, d'un réglage manquant."""
    model.loss_type = "ForCausalLM"
    return model


def load_tokenizer(name: str | Path = "colibri") -> PreTrainedTokenizerFast:
    """Le découpeur en jetons (*tokenizer*) du même nom ; mêmes règles que `load_model`."""
    from transformers import AutoTokenizer

    return _resolve(AutoTokenizer, name)


@functools.cache
def shared_tokenizer() -> PreTrainedTokenizerFast:
    """Le découpeur de Colibri, lu une fois : pour découper des textes, jamais pour le régler autrement."""
    return load_tokenizer("colibri")


def gpt2_shape(size: str = "small", n_layer: int | None = None, dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    """Un GPT-2 de la vraie taille, aux poids TIRÉS AU HASARD : son texte n'a aucun sens.

    Sert à mesurer temps et mémoire, qui ne dépendent pas des valeurs. size : « small », « medium », « large », « xl » ;
    n_layer réduit le nombre de blocs. Lève `ValueError` sur une taille inconnue.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    if size not in GPT2_SIZES:
        raise ValueError(f"taille « {size} » inconnue ; les tailles sont {', '.join(GPT2_SIZES)}.")
    layers, d_model, heads = GPT2_SIZES[size]
    config = GPT2Config(n_layer=n_layer or layers, n_embd=d_model, n_head=heads)
    with torch.device("meta"):
        model = with_causal_loss(GPT2LMHeadModel(config))
    model = model.to(dtype).to_empty(device=device())  # type: ignore[arg-type]
    model.tie_weights()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(".bias"):
                p.zero_()
            elif ".ln_" in name:
                p.fill_(1.0)
            else:
                p.uniform_(-0.035, 0.035)  # même variance que l'initialisation de GPT-2 (0,02²)
    return model.eval()
