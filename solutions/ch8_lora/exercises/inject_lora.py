"""Exercice `inject_lora` du chapitre 8."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from ._common import refuse_rank
from .LoRALinear import LinearFunctional

_SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 23, "n_positions": 16}


def _injection(d: Draw, rank: int, alpha: float, target: str | None, **config: int) -> Inputs:
    args: dict[str, Any] = {"rank": rank, "alpha": alpha} | ({} if target is None else {"target": target})
    return {
        "config": _SMALL | config,
        "seed": d.integer(0, 2**31),
        "args": args,
        "input_ids": d.integers(0, _SMALL["vocab_size"] - 1, 2, 6),
    }


def draw_inject(d: Draw, group: str) -> Inputs:
    if group == "refus":
        return _injection(d, d.turn([0, -1, 0, -d.integer(2, 5)]), 8.0, d.turn(["c_attn", "c_proj", "c_fc", None]))
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
    minutes=35,
    stars=3,
    hints=[
        "Remplacer une couche, c'est donner un autre module à l'attribut de celui qui la contient. Comment parcourir "
        "tous les modules d'un modèle avec, pour chacun, ses enfants et leurs noms ?",
        "Le module qui enveloppe garde la couche d'origine, ajoute A et B, et répond base(x) plus la mise à jour. "
        "Dans un Conv1D, quelle dimension du poids est l'entrée ?",
        "L'ordre compte : gelez tout le modèle d'abord, posez les nouveaux paramètres ensuite ; et faites la liste des "
        "modules avant de les remplacer.",
        "Pour un Conv1D, (entrée, sortie) = weight.shape. A : (r, entrée), B : (sortie, r), "
        "y = base(x) + (α / r)·(x·Aᵀ)·Bᵀ.",
    ],
    groups={"courant": 0.65, "bords": 0.2, "refus": 0.15},
    draw=draw_inject,
    probe="gpt2_transform",
    visible=4,
    seconds=20.0,
    tolerance=Tolerance(rtol=1e-3, atol=2e-4, why="un petit modèle entier en float32"),
)


misconceptions = """\
as_linear   d_in, d_out = base.weight.shape → d_out, d_in = base.weight.shape
    Conv1D de GPT-2 range (entrée, sortie) : seule une cible carrée survit à votre lecture.

base_not_frozen
    - model.requires_grad_(False)
    Vous entraînez tout le modèle en plus de LoRA : peft annonce 0,3 % de paramètres entraînés ; et vous ?

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

alpha_only   self.base(h) + (alpha / rank) * (h @ self.lora_A.T @ self.lora_B.T)
    → self.base(h) + alpha * (h @ self.lora_A.T @ self.lora_B.T)
    Doublez r sans toucher α : votre mise à jour double aussi.

no_scaling   self.base(h) + (alpha / rank) * (h @ self.lora_A.T @ self.lora_B.T)
    → self.base(h) + (h @ self.lora_A.T @ self.lora_B.T)
    α ne change rien.

shared_factors
    - self.lora_A = nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
    - self.lora_B = nn.Parameter(torch.zeros(d_out, rank).to(base.weight))
    + kept = model.__dict__
    + new_A = nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
    + self.lora_A = kept.setdefault(('A', d_in), new_A)
    + self.lora_B = kept.setdefault(('B', d_out), nn.Parameter(torch.zeros(d_out, rank).to(base.weight)))
    Les couches se partagent une matrice : chacune doit avoir la sienne.

b_random   nn.Parameter(torch.zeros(d_out, rank).to(base.weight))
    → nn.Parameter(torch.randn(d_out, rank).to(base.weight))
    Avant tout pas, les logits ont déjà changé : l'une des deux matrices doit être nulle.

base_forgotten   self.base(h) + (alpha / rank) * (h @ self.lora_A.T @ self.lora_B.T)
    → (alpha / rank) * (h @ self.lora_A.T @ self.lora_B.T)
    Il ne reste que la mise à jour : où est passée la couche d'origine ?

bias_twice   self.base(h) + (alpha / rank) * (h @ self.lora_A.T @ self.lora_B.T)
    → self.base(h) + (alpha / rank) * (h @ self.lora_A.T @ self.lora_B.T) + self.base.bias
    Votre écart est une constante par sortie : qu'ajoutez-vous deux fois ?

not_registered   nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
    → (torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in)).requires_grad_()
    & nn.Parameter(torch.zeros(d_out, rank).to(base.weight))
    → (torch.zeros(d_out, rank).to(base.weight)).requires_grad_()
    L'optimiseur ne verra jamais vos matrices : model.parameters() les trouve-t-il ?

not_the_model   return model → return None
    L'énoncé demande de rendre le modèle reçu lui-même, modifié : ni rien, ni une copie.

no_check   if rank < 1: → if False:
    L'énoncé annonce un rang interdit : votre fonction l'accepte, ou laisse torch ou Python s'en plaindre.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


class _Wrapped(nn.Module):
    def __init__(self, conv, rank, alpha):
        super().__init__()
        n_in, n_out = conv.weight.shape
        self.conv, self.scale = conv, alpha / rank
        self.lora_A = nn.Parameter(0.02 * torch.randn(rank, n_in))
        self.lora_B = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, x):
        return self.conv(x) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)


def inject_by_name(model, rank, alpha, target="c_attn"):
    refuse_rank(rank)
    for p in model.parameters():
        p.requires_grad = False
    names = [n for n, m in model.named_modules() if isinstance(m, Conv1D) and n.split(".")[-1] == target]
    for name in names:
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, child, _Wrapped(getattr(owner, child), rank, alpha))
    return model


def inject_by_blocks(model, rank, alpha, target="c_attn"):
    refuse_rank(rank)
    model.requires_grad_(False)
    for block in model.transformer.h:
        for owner in (block.attn, block.mlp):
            if hasattr(owner, target):
                setattr(owner, target, _Wrapped(getattr(owner, target), rank, alpha))
    return model


def inject_through_linear(model, rank, alpha, target="c_attn"):
    """Chaque Conv1D devient un nn.Linear transposé, puis une couche LoRA ordinaire."""
    refuse_rank(rank)
    model.requires_grad_(False)
    for block in model.transformer.h:
        for owner in (block.attn, block.mlp):
            conv = owner._modules.get(target)
            if conv is None:
                continue
            n_in, n_out = conv.weight.shape
            linear = nn.Linear(n_in, n_out)
            linear.weight.data = conv.weight.data.T.contiguous()
            linear.bias.data = conv.bias.data
            owner._modules[target] = LinearFunctional(linear, rank, alpha)
    return model


def inject_hooks(model, rank, alpha, target="c_attn"):
    """Rien n'est remplacé : deux paramètres ajoutés au Conv1D, et un crochet sur sa sortie."""
    if rank < 1:
        raise ValueError("rang")
    model.requires_grad_(False)

    def add(module, inputs, output):
        return output + (inputs[0] @ module.lora_A.T @ module.lora_B.T) * alpha / rank

    for name, module in model.named_modules():
        if name.endswith("." + target):
            n_in, n_out = module.weight.shape
            module.lora_A = nn.Parameter(torch.randn(rank, n_in))
            module.lora_B = nn.Parameter(torch.zeros(n_out, rank))
            module.register_forward_hook(add)
    return model


def inject_peft_layers(model, rank, alpha, target="c_attn"):
    """Les couches de peft, posées une à une dans le modèle reçu."""
    from peft.tuners.lora import Linear as PeftLinear
    from peft.tuners.lora import LoraConfig

    refuse_rank(rank)
    model.requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name == target and isinstance(child, Conv1D):
                config = LoraConfig(r=rank, lora_alpha=alpha, fan_in_fan_out=True)
                wrapped = PeftLinear(
                    child, "default", config=config, r=rank, lora_alpha=alpha, is_target_conv_1d_layer=True
                )
                setattr(parent, name, wrapped)
    return model


styles = [inject_by_name, inject_by_blocks, inject_through_linear, inject_hooks, inject_peft_layers]
