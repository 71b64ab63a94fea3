"""`python cours.py mesures tableau` : toutes les durées du tableau de l'auteur, d'un coup, sur une machine au repos.

Deux lignes de mêmes formes font le même calcul et partagent une durée. Les calculs passent tour à tour, une fenêtre
chacun, et l'on recommence : ce qui ralentit la machine un moment les ralentit tous.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import nn

import atelier
from atelier import variants
from atelier.figures.common.clock import interleaved_seconds
from atelier.text import number
from grader import variables
from grader.authoring.chapters import load_chapter
from grader.authoring.recording import prepared

ROUNDS = 60
DENSE = "celui de Colibri entier"


def main() -> int:
    rows, whole = variants.authors_rows(), variants.shape_of(atelier.load_model("colibri"))
    computed: dict[str, nn.Module] = {}
    whose: dict[str, str] = {}
    for row in rows:
        key = _computation(row, whole)
        try:
            if key not in computed:
                computed[key] = _model(row, key)
            whose[row["name"]] = key
        except LookupError as error:
            print(f"{row['name']} : durée laissée telle quelle ({error}).")
    found = interleaved_seconds({key: variants.window(model) for key, model in computed.items()}, ROUNDS, warmup=3)
    for row in rows:
        if row["name"] in whose:
            row |= variants.timing(found[whose[row["name"]]])
            middle, low, high = (number(v, decimals=2) for v in (row["ms"], *row["quartiles"]))
            print(f"{row['name']} : {middle} ms [{low} ; {high}] ({whose[row['name']]})")
    variants.write_authors_rows(rows)
    return 0


def _computation(row: variants.Row, whole: list[list[int]] | None) -> str:
    """Ce que cette ligne calcule. whole : les formes de Colibri entier."""
    if (shape := row.get("shape")) is not None:
        return DENSE if shape == whole else f"blocs {shape}"
    return row["name"] if row["name"] in OWN or "shape" in row else DENSE


def _model(row: variants.Row, key: str) -> nn.Module:
    if key == DENSE:
        return atelier.load_model("colibri")
    if row.get("shape") is not None:
        return _of_shape(row["shape"])
    if row["name"] not in OWN:
        raise LookupError("son modèle a des modules à lui : dites dans OWN comment le refaire")
    return OWN[row["name"]]().eval()


def _from_experiment(chapter: str, name: str) -> nn.Module:
    """Le modèle qu'une expérience allait inscrire au tableau."""
    seen: list[nn.Module] = []
    with (
        variables(COURS_ENREGISTRER="1"),
        mock.patch.object(atelier, "save_variant", lambda _name, model, *_: seen.append(model)),
    ):
        prepared(load_chapter(chapter), [name])[name].function()
    return seen[0]


@torch.no_grad()
def _of_shape(shape: Any) -> nn.Module:
    """Un Colibri de ces formes : celles de ses poids en sont des morceaux, le temps n'en dépend pas."""
    model: Any = atelier.load_model("colibri")
    blocks = model.transformer.h
    model.transformer.h = nn.ModuleList(copy.deepcopy(blocks[i % len(blocks)]) for i in range(len(shape)))
    model.config.n_layer = len(shape)
    for i, (block, (qkv, inner)) in enumerate(zip(model.transformer.h, shape, strict=True)):
        attention, mlp, width = block.attn, block.mlp, qkv // 3
        attention.layer_idx = i
        attention.split_size, attention.num_heads = width, width // attention.head_dim
        for layer, rows, columns in (
            (attention.c_attn, model.config.n_embd, qkv),
            (attention.c_proj, width, model.config.n_embd),
            (mlp.c_fc, model.config.n_embd, inner),
            (mlp.c_proj, inner, model.config.n_embd),
        ):
            layer.weight = nn.Parameter(layer.weight[:rows, :columns].contiguous())
            layer.bias = nn.Parameter(layer.bias[:columns].contiguous())
            layer.nx, layer.nf = rows, columns
    return model.eval()


OWN: dict[str, Callable[[], nn.Module]] = {
    "int8": lambda: _from_experiment("ch3_quantification", "row_int8"),
    "int4-adapter": lambda: load_chapter("ch7_adapters").reference("insert_adapters")(
        atelier.load_model("colibri"), 16
    ),
    "eleve-2-blocs": lambda: _of_shape([[576, 768]] * 2),
    "eleve-4-blocs": lambda: _of_shape([[576, 768]] * 4),
}
"""Les lignes dont les formes ne disent pas tout, ou qui datent d'avant qu'on les note : comment refaire leur modèle."""
