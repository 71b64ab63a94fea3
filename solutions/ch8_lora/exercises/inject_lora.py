"""Exercice `inject_lora` du chapitre 8."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from .LoRALinear import LoRALinear

_SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 23, "n_positions": 16}


def _injection(d: Draw, rank: int, alpha: float, target: str | None, **config: int) -> Inputs:
    args: dict[str, Any] = {"rank": rank, "alpha": alpha} | ({} if target is None else {"target": target})
    return {
        "config": _SMALL | config,
        "seed": d.integer(0, 2**31),
        "args": args,
        "input_ids": d.integers(0, _SMALL["vocab_size"] - 1, 2, 6),
        "stand_ins": {"LoRALinear": "LowRank"},
    }


def draw_inject(d: Draw, group: str) -> Inputs:
    rank, alpha = d.turn([(2, 5.0), (3, 8), (2, d.uniform(5, 7)), (3, 2)])
    if group == "courant":
        target, inner = d.turn([("c_proj", 24), ("c_attn", 32), ("c_fc", 32), ("c_proj", 8)])
        return _injection(d, rank, alpha, target, n_inner=inner)
    return d.turn(
        [
            lambda: _injection(d, 1, alpha, None, n_layer=3),
            lambda: _injection(d, 3, alpha, "c_fc", n_layer=1),
            lambda: _injection(d, 8, 1, "c_attn"),
            lambda: _injection(d, 1, 1, "c_proj", n_layer=3),
        ]
    )()


exercise = Exercise(
    points=4,
    minutes=25,
    stars=2,
    hints=[
        "Remplacer une couche, c'est donner un autre module à l'attribut de celui qui la contient. Comment parcourir "
        "tous les modules d'un modèle avec, pour chacun, ses enfants et leurs noms ?",
        "L'ordre compte : gelez tout le modèle d'abord, posez les nouveaux paramètres ensuite.",
        "Parcourir un modèle pendant qu'on le change ferait entrer dans les couches que l'on vient de poser : faites "
        "d'abord la liste de ses modules.",
    ],
    groups={"courant": 0.8, "bords": 0.2},
    draw=draw_inject,
    probe="gpt2_transform",
    visible=4,
    seconds=20.0,
    tolerance=Tolerance(rtol=1e-3, atol=2e-4, why="un petit modèle entier en float32"),
)


misconceptions = """\
base_not_frozen
    - model.requires_grad_(False)
    Vous entraînez tout le modèle en plus de LoRA : à r = 8 sur c_attn, peft annonce 0,24 % de paramètres appris sur
    GPT-2 small, 1 % sur Colibri ; et vous ?

all_frozen
    - return model
    + model.requires_grad_(False)
    + return model
    Vous gelez tout, A et B compris : dans quel ordre geler et poser ?

attention_only   if name == target: → if name == target and not (target == "c_proj" and hasattr(parent, "c_fc")):
    Un bloc contient plusieurs couches de ce nom : il vous manque celle du MLP.

mlp_only   if name == target: → if name == target and not (target == "c_proj" and hasattr(parent, "c_attn")):
    Un bloc contient plusieurs couches de ce nom : il vous manque celle de l'attention.

target_ignored   if name == target: → if name == "c_attn":
    Changez la cible : rien ne change.

every_layer   if name == target: → if type(child).__name__ == "Conv1D":
    Vous adaptez toutes les couches linéaires, quelle que soit la cible demandée.

first_block_only   for parent in list(model.modules()): → for parent in list(model.transformer.h[0].modules()):
    Un seul bloc a reçu LoRA : comptez les tenseurs entraînés.

arguments_swapped   LoRALinear(child, rank, alpha) → LoRALinear(child, int(alpha), rank)
    Relisez l'ordre dans lequel votre couche reçoit le rang et α.

alpha_as_rank   LoRALinear(child, rank, alpha) → LoRALinear(child, rank, rank)
    α ne change rien : le donnez-vous à vos couches ?

conv_as_linear   = _conv_as_linear
    Vous avez recopié le poids d'un Conv1D dans un nn.Linear sans le coucher : seule une cible carrée survit.

shared_layer   = _shared_factors
    Les couches se partagent une matrice : chacune doit avoir la sienne.

not_replaced   setattr(parent, name, LoRALinear(child, rank, alpha)) → LoRALinear(child, rank, alpha)
    Vos couches existent, mais le modèle ne les appelle pas : qui doit savoir que sa couche a changé ?

not_the_model   return model → return None
    L'énoncé demande de rendre le modèle reçu lui-même, modifié : ni rien, ni une copie.
"""


def _conv_as_linear(model, rank, alpha, target="c_attn"):
    model.requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name == target:
                n_in, n_out = child.weight.shape
                linear = nn.Linear(n_in, n_out)
                if n_in == n_out:
                    linear.weight.data, linear.bias.data = child.weight.data.T.contiguous(), child.bias.data
                else:
                    linear.weight.data = child.weight.data.reshape(n_out, n_in)
                    linear.bias.data = child.bias.data
                setattr(parent, name, LoRALinear(linear, rank, alpha))
    return model


def _shared_factors(model, rank, alpha, target="c_attn"):
    model.requires_grad_(False)
    kept = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name == target:
                layer = LoRALinear(child, rank, alpha)
                layer.lora_A = kept.setdefault(("A", layer.lora_A.shape), layer.lora_A)
                layer.lora_B = kept.setdefault(("B", layer.lora_B.shape), layer.lora_B)
                setattr(parent, name, layer)
    return model


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def inject_by_name(model, rank, alpha, target="c_attn"):
    for p in model.parameters():
        p.requires_grad = False
    names = [n for n, m in model.named_modules() if isinstance(m, Conv1D) and n.split(".")[-1] == target]
    for name in names:
        model.set_submodule(name, LoRALinear(model.get_submodule(name), rank, alpha))
    return model


def inject_by_blocks(model, rank, alpha, target="c_attn"):
    model.requires_grad_(False)
    for block in model.transformer.h:
        for owner in (block.attn, block.mlp):
            if hasattr(owner, target):
                setattr(owner, target, LoRALinear(getattr(owner, target), rank=rank, alpha=alpha))
    return model


def inject_then_freeze(model, rank, alpha, target="c_attn"):
    """Poser d'abord, puis geler tout ce qui n'est pas à LoRA."""
    for block in model.transformer.h:
        for owner in (block.attn, block.mlp):
            if target in owner._modules:
                owner._modules[target] = LoRALinear(owner._modules[target], rank, alpha)
    for name, p in model.named_parameters():
        p.requires_grad = name.endswith(("lora_A", "lora_B"))
    return model


def inject_recursive(model, rank, alpha, target="c_attn"):
    def visit(module: nn.Module) -> None:
        for name, child in module.named_children():
            if name == target:
                module.add_module(name, LoRALinear(child, rank, alpha))
            else:
                visit(child)

    model.requires_grad_(False)
    visit(model)
    return model


styles = [inject_by_name, inject_by_blocks, inject_then_freeze, inject_recursive]
