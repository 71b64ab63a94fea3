"""Exercice `build_student` du chapitre 4."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def draw_student(d: Draw, group: str) -> Inputs:
    n_layer, width = d.turn([(4, 8), (5, 12), (6, 8), (4, 16)])
    config = {"n_layer": n_layer, "n_head": 2 if width != 12 else 3, "n_embd": width, "vocab_size": d.integer(19, 29)}
    if group == "courant":
        middle = d.integer(1, n_layer - 2)
        layers = d.turn([[0, middle, n_layer - 1], [0, n_layer - 1], [middle, n_layer - 1], [0, middle, n_layer - 1]])
    else:
        layers = d.turn([[n_layer - 1, 1], list(range(n_layer)), [n_layer - 1], [d.integer(1, n_layer - 2)]])
    ids = d.integers(0, config["vocab_size"] - 1, 2, 2 * d.integer(3, 5))
    return {"config": config, "seed": d.integer(0, 2**31), "args": {"layers": layers}, "input_ids": ids}


exercise = Exercise(
    points=3,
    minutes=18,
    stars=2,
    hints=[
        "Un GPT-2 neuf se construit à partir d'une configuration : laquelle de ses valeurs change, et lesquelles non ?",
        "copy.deepcopy(teacher.config), où l'on change n_layer, puis GPT2LMHeadModel(config). Il reste à recopier des "
        "valeurs : quels modules de transformer faut-il visiter ?",
        "Chaque sous-module sait rendre ses poids (state_dict) et en recevoir (load_state_dict, qui copie) : wte, wpe, "
        "ln_f, et chaque bloc h[i] depuis le bloc choisi de l'enseignant.",
    ],
    groups={"courant": 0.7, "bords": 0.3},
    draw=draw_student,
    probe="gpt2_new_model",
    visible=2,
    cases=4,
    examples=[
        {
            "config": {"n_layer": 3, "vocab_size": 11},
            "seed": 5,
            "args": {"layers": [0, 2]},
            "input_ids": torch.tensor([[3, 1, 4, 1, 5, 9]]),
        }
    ],
    tolerance=Tolerance(rtol=1e-3, atol=2e-4, why="logits d'un petit GPT-2 en float32, avec et sans cache"),
)


misconceptions = """\
shares_blocks
    - return student
    + for i, j in enumerate(layers):
    +     for name, p in teacher.transformer.h[j].named_parameters():
    +         student.transformer.h[i].get_parameter(name).data = p.data
    + return student
    Entraînez l'élève : l'enseignant change aussi.

shares_embeddings
    - return student
    + student.transformer.wte.weight.data = teacher.transformer.wte.weight.data
    + return student
    Les blocs sont bien copiés, mais la table des jetons est celle de l'enseignant : elle apprendrait avec l'élève.

config_kept   = _config_kept
    Le modèle a moins de blocs que ce que sa fiche annonce : que se passera-t-il au rechargement ?

edge_stale_layer_idx   = _stale_layer_idx
    Sans cache tout va bien ; avec, un bloc cherche sa mémoire à son ancienne place.

in_place   = _in_place
    Vous avez taillé dans l'enseignant lui-même : il n'en reste plus rien pour enseigner.

random_embeddings
    - student.load_state_dict(weights)
    + blocks = {k.removeprefix('transformer.h.'): v for k, v in weights.items() if '.h.' in k}
    + student.transformer.h.load_state_dict(blocks)
    L'élève a les blocs de l'enseignant mais pas sa façon de lire les mots.

random_positions   student.load_state_dict(weights)
    → student.load_state_dict({k: v for k, v in weights.items() if 'wpe' not in k}, strict=False)
    Votre élève reconnaît les mots, mais pas leur place dans la phrase.

final_norm_forgotten   student.load_state_dict(weights)
    → student.load_state_dict({k: v for k, v in weights.items() if 'ln_f' not in k}, strict=False)
    Que se passe-t-il, chez l'enseignant, entre le dernier bloc et la tête ?

random_blocks   student.load_state_dict(weights)
    → student.load_state_dict({k: v for k, v in weights.items() if '.h.' not in k}, strict=False)
    Vos blocs sont tirés au hasard : l'élève n'hérite que de la façon de lire les mots.

first_blocks   enumerate(layers) → enumerate(range(len(layers)))
    Vous prenez toujours les premiers blocs, quels que soient ceux qu'on demande.

sorted_blocks   enumerate(layers) → enumerate(sorted(layers))
    L'élève reçoit les blocs dans l'ordre demandé, qui n'est pas toujours croissant.

head_untied
    - student = GPT2LMHeadModel(config).to(teacher.device, teacher.dtype).eval()
    + config.tie_word_embeddings = False
    + student = GPT2LMHeadModel(config).to(teacher.device, teacher.dtype).eval()
    Votre élève a plus de paramètres que prévu : la tête et la table d'entrée devaient être le même tenseur.
"""


def _kept_blocks(teacher: Any, layers: list[int]) -> Any:
    """Une copie entière, dont on ne garde que ces blocs, sans renuméroter leur cache."""
    student = copy.deepcopy(teacher)
    student.transformer.h = torch.nn.ModuleList(student.transformer.h[i] for i in layers)
    return student


def _stale_layer_idx(teacher: Any, layers: list[int]) -> Any:
    student = _kept_blocks(teacher, layers)
    student.config.n_layer = len(layers)
    return student


def _config_kept(teacher: Any, layers: list[int]) -> Any:
    student = _kept_blocks(teacher, layers)
    for i, block in enumerate(student.transformer.h):
        block.attn.layer_idx = i
    return student


def _in_place(teacher: Any, layers: list[int]) -> Any:
    teacher.transformer.h = torch.nn.ModuleList(teacher.transformer.h[i] for i in layers)
    teacher.config.n_layer = len(layers)
    for i, block in enumerate(teacher.transformer.h):
        block.attn.layer_idx = i
    return teacher


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def student_deepcopy(teacher, layers):
    """Une copie entière, dont on retire des blocs ; chaque bloc restant apprend sa nouvelle place dans le cache."""
    student = copy.deepcopy(teacher)
    student.transformer.h = nn.ModuleList(student.transformer.h[i] for i in layers)
    for i, block in enumerate(student.transformer.h):
        block.attn.layer_idx = i
    student.config.n_layer = len(layers)
    return student.eval()


def student_module_by_module(teacher, layers):
    config = GPT2Config(**{**teacher.config.to_dict(), "n_layer": len(layers)})
    config._attn_implementation = teacher.config._attn_implementation
    student = GPT2LMHeadModel(config)
    old, new = teacher.transformer, student.transformer
    pairs = [(new.wte, old.wte), (new.wpe, old.wpe), (new.ln_f, old.ln_f)]
    pairs += [(new.h[i], old.h[j]) for i, j in enumerate(layers)]
    for mine, theirs in pairs:
        mine.load_state_dict(theirs.state_dict())
    student.eval()
    return student


def student_parameter_by_parameter(teacher, layers):
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(layers)
    student = GPT2LMHeadModel(config).eval()
    source = dict(teacher.named_parameters())
    with torch.no_grad():
        for name, p in student.named_parameters():
            parts = name.split(".")
            if parts[1] == "h":
                parts[2] = str(layers[int(parts[2])])
            p.copy_(source[".".join(parts)])
    return student


def student_cloned_data(teacher, layers):
    config = type(teacher.config).from_dict(teacher.config.to_dict() | {"n_layer": len(layers)})
    student = type(teacher)._from_config(config)
    student.transformer.wte.weight.data = teacher.transformer.wte.weight.detach().clone()
    student.transformer.wpe.weight.data = teacher.transformer.wpe.weight.detach().clone()
    student.transformer.ln_f = copy.deepcopy(teacher.transformer.ln_f)
    for i, layer in enumerate(layers):
        student.transformer.h[i].load_state_dict(teacher.transformer.h[layer].state_dict())
    student.tie_weights()
    return student.eval()


styles = [student_deepcopy, student_module_by_module, student_parameter_by_parameter, student_cloned_data]
