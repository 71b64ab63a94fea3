"""Exercice `quantize_linears` du chapitre 3."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def draw_model(d: Draw, group: str) -> Inputs:
    n_layer, width, heads = d.turn([(2, 8, 2), (1, 12, 3), (3, 8, 4), (2, 6, 1)])
    config = {"n_layer": n_layer, "n_embd": width, "n_head": heads, "vocab_size": d.integer(17, 29)}
    ids = d.integers(0, 16, d.integer(1, 2), d.integer(4, 8))
    return {"config": config, "seed": d.integer(0, 2**31), "input_ids": ids}


exercise = Exercise(
    points=2,
    minutes=12,
    stars=2,
    hints=[
        "Trois gestes : copier le modèle, trouver ses couches, changer leurs poids. Lequel de vos outils rend à la "
        "fois un module et son chemin ?",
        "isinstance(module, Conv1D) ne retient que les couches des blocs : la tête, elle, est un nn.Linear, qui "
        "partage son poids avec la table des jetons.",
        "Conv1D range son poids en (entrée, sortie). Combien de fois faut-il donc le transposer ? Et l'on ne recopie "
        "dans un paramètre que sous torch.no_grad().",
    ],
    groups={"courant": 1.0},
    draw=draw_model,
    probe="gpt2_rounded",
    cases=4,
    visible=2,
    examples=[{"config": {"n_layer": 1}, "seed": 4, "input_ids": torch.tensor([[3, 1, 4, 1, 5]])}],
    tolerance=Tolerance(rtol=1e-3, atol=1e-3, why="logits d'un petit GPT-2 en float32"),
)


misconceptions = """\
transposed   layer.weight.copy_(round_weight(name, layer.weight.T).T)
    → layer.weight.copy_(round_weight(name, layer.weight))
    Une ligne de ce que vous donnez à arrondir ne calcule pas une sortie : dans quel sens Conv1D range-t-elle un poids ?

original_changed   copy.deepcopy(model) → model
    Le modèle reçu est arrondi lui aussi : qui voudra comparer n'aura plus à quoi.

shallow_copy   copy.deepcopy(model) → copy.copy(model)
    Votre copie et le modèle reçu sont deux objets, mais leurs poids sont les mêmes tenseurs.

head_rounded   isinstance(layer, Conv1D) → isinstance(layer, (Conv1D, torch.nn.Linear))
    & layer.weight.T).T → layer.weight.T if isinstance(layer, Conv1D) else layer.weight).reshape(layer.weight.T.shape).T
    Vous arrondissez aussi la tête. De quelle table est-elle l'autre nom ?

tables_rounded   isinstance(layer, Conv1D) → isinstance(layer, (Conv1D, torch.nn.Embedding))
    & layer.weight.T).T → layer.weight.T).T.reshape(layer.weight.shape)
    Les tables des jetons et des positions ne sont pas des couches linéaires : on y lit une ligne, on ne multiplie rien.

tie_broken
    - return rounded
    + rounded.lm_head.weight = torch.nn.Parameter(rounded.lm_head.weight.detach().clone())
    + return rounded
    Dans votre copie, la tête et la table des jetons sont devenues deux tenseurs.

biases_rounded
    - layer.weight.copy_(round_weight(name, layer.weight.T).T)
    + layer.weight.copy_(round_weight(name, layer.weight.T).T)
    + layer.bias.copy_(round_weight(name, layer.bias[:, None])[:, 0])
    Le biais devait rester tel quel : il compte peu de nombres, et s'ajoute à une somme exacte.

short_name   round_weight(name, → round_weight(name.removeprefix("transformer.h."),
    Le nom attendu est le chemin du module, depuis le modèle.

parameter_name   round_weight(name, → round_weight(name + ".weight",
    Vous donnez le nom du paramètre ; on attend celui du module qui le porte.

first_block_only   isinstance(layer, Conv1D) → isinstance(layer, Conv1D) and name.startswith("transformer.h.0.")
    Un seul bloc est arrondi.

mlp_only   isinstance(layer, Conv1D) → isinstance(layer, Conv1D) and ".mlp." in name
    Il manque des couches : un bloc en a quatre, deux dans le MLP, et deux dans l'attention.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def linears_by_blocks(model, round_weight):
    made = copy.deepcopy(model)
    for i, block in enumerate(made.transformer.h):
        for kind in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            layer = block.get_submodule(kind)
            w = round_weight(f"transformer.h.{i}.{kind}", layer.weight.detach().t().contiguous())
            layer.weight = nn.Parameter(w.t().contiguous())
    return made


@torch.no_grad()
def linears_by_parameters(model, round_weight):
    made = copy.deepcopy(model)
    for name, p in made.named_parameters():
        if p.ndim == 2 and ".h." in name:
            p[:] = round_weight(name.removesuffix(".weight"), p.T).T
    return made


def linears_by_state(model, round_weight):
    state = {name: t.clone() for name, t in model.state_dict().items()}
    for name, layer in model.named_modules():
        if type(layer) is Conv1D:
            state[name + ".weight"] = round_weight(name, layer.weight.detach().T).T
    made = GPT2LMHeadModel(model.config).to(model.device)
    made.load_state_dict(state)
    return made.eval()


@torch.no_grad()
def linears_new_modules(model, round_weight):
    made = copy.deepcopy(model)
    layers = {name: m for name, m in made.named_modules() if m.__class__.__name__ == "Conv1D"}
    for name, old in layers.items():
        new = Conv1D(old.nf, old.weight.shape[0]).to(old.weight.device)
        new.weight.copy_(round_weight(name, old.weight.transpose(0, 1)).transpose(0, 1))
        new.bias.copy_(old.bias)
        made.set_submodule(name, new)
    return made


styles = [linears_by_blocks, linears_by_parameters, linears_by_state, linears_new_modules]
