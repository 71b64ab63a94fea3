"""Exercice `fisher_importance` du chapitre 5."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def draw_batches(d: Draw, group: str) -> Inputs:
    n_layer, width, heads = d.turn([(2, 8, 2), (1, 12, 3), (2, 12, 2), (3, 8, 4)])
    case = {"config": {"n_layer": n_layer, "n_embd": width, "n_head": heads}, "seed": d.integer(0, 2**31)}
    if group == "bords":
        sizes = d.turn([[(1, 5)], [(2, 4), (1, 6)], [(1, 2), (3, 5)], [(1, 7)]])
        return case | {"batches": [d.integers(0, 22, *size) for size in sizes], "training": d.index % 2 == 0}
    size = d.integer(1, 3), d.integer(4, 7)
    return case | {"batches": [d.integers(0, 22, *size) for _ in range(d.integer(2, 3))]}


exercise = Exercise(
    points=3,
    minutes=20,
    stars=2,
    hints=[
        "Qui sait dire de combien la perte bouge quand un poids bouge ? PyTorch le calcule pour tous les poids à la "
        "fois : où le range-t-il ?",
        "backward() ajoute au gradient déjà rangé. Pour le carré de chaque gradient, et non celui de leur somme, que "
        "faut-il faire entre deux lots ?",
        "Les couches à noter sont les Conv1D que rend named_modules() ; leur poids est en (entrée, sortie).",
        "Un dictionnaire de zéros ; pour chaque lot : effacer les gradients, perte, backward(), ajouter le carré de "
        "chaque weight.grad. À la fin, multiplier par le carré du poids, transposer, et ne rien laisser derrière soi.",
    ],
    groups={"courant": 0.7, "bords": 0.3},
    draw=draw_batches,
    probe="gpt2_importance",
    cases=4,
    visible=2,
    examples=[
        {
            "config": {"n_layer": 1, "n_embd": 6, "n_head": 1},
            "seed": 4,
            "batches": [torch.tensor([[3, 1, 4, 1]]), torch.tensor([[5, 9, 2, 6]])],
        }
    ],
    tolerance=Tolerance(rtol=2e-3, atol=1e-7, why="les gradients d'un petit GPT-2 en float32, au carré"),
)


misconceptions = """\
summed_first
    - squares[path] += layer.weight.grad.square()
    + squares[path] += layer.weight.grad
    & layer.weight.detach() ** 2 * squares[name] → (layer.weight.detach() * squares[name]) ** 2
    C'est le carré de la somme : deux lots qui tirent en sens contraires s'y annulent. Le carré vient avant la somme.

never_cleared
    - model.zero_grad()
    - guesses = model(ids).logits
    + guesses = model(ids).logits
    Le gradient du premier lot compte encore dans le deuxième : backward ajoute, il ne remplace pas.

last_batch   squares[path] += layer → squares[path] = layer
    Seul le dernier lot compte chez vous.

averaged
    - squares[path] += layer.weight.grad.square()
    + squares[path] += layer.weight.grad.square() / len(batches)
    Vous faites la moyenne sur les lots : l'énoncé demande leur somme.

no_weight   layer.weight.detach() ** 2 * squares[name] → squares[name]
    Il manque le poids : un poids presque nul ne perd presque rien à le devenir tout à fait.

weight_not_squared   layer.weight.detach() ** 2 → layer.weight.detach().abs()
    Le gradient est au carré, et le poids non : dans quelle unité est votre importance ?

gradient_not_squared   layer.weight.grad.square() → layer.weight.grad.abs()
    Le poids est au carré, et le gradient non : dans quelle unité est votre importance ?

transposed   squares[name]).T → squares[name])
    Vos matrices sont en (entrée, sortie) : ce chapitre les veut en (sortie, entrée).

no_shift   guesses[:, :-1].flatten(0, 1), ids[:, 1:].flatten() → guesses.flatten(0, 1), ids.flatten()
    Chaque position prédit le jeton suivant, et non celui qu'elle vient de lire.

summed_loss   ids[:, 1:].flatten()) → ids[:, 1:].flatten(), reduction="sum")
    Votre perte est une somme sur les jetons : on attend leur moyenne.

gradients_left
    - model.zero_grad()
    - return {name: (layer.weight.detach() ** 2 * squares[name]).T for name, layer in layers.items()}
    + return {name: (layer.weight.detach() ** 2 * squares[name]).T for name, layer in layers.items()}
    Un gradient reste rangé dans le modèle, et le prochain backward s'y ajoutera : l'énoncé demande None partout.

left_in_train   guesses = model(ids).logits → guesses = model.train()(ids).logits
    Vous changez le mode du modèle, et ne le rendez pas comme vous l'avez reçu.

parameter_names   return {name: → return {name + ".weight":
    Le nom attendu est le chemin du module, non celui de son paramètre.

short_names   return {name: → return {name.removeprefix("transformer.h."):
    Le nom attendu est le chemin du module, depuis le modèle.

graph_kept   layer.weight.detach() ** 2 → layer.weight**2
    Ce que vous rendez traîne un graphe de calcul : personne n'en demandera le gradient.

first_block_only   isinstance(m, Conv1D) → isinstance(m, Conv1D) and name.startswith("transformer.h.0.")
    Un seul bloc est noté.

mlp_only   isinstance(m, Conv1D) → isinstance(m, Conv1D) and ".mlp." in name
    Il manque des couches : un bloc en a quatre, deux dans le MLP, et deux dans l'attention.

learns
    - squares[path] += layer.weight.grad.square()
    + squares[path] += layer.weight.grad.square()
    + layer.weight.data -= 1e-3 * layer.weight.grad
    Vos poids bougent : il ne s'agit pas d'apprendre, seulement de noter.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def fisher_by_autograd(model, batches):
    """Rien n'est rangé dans .grad : torch.autograd.grad rend les gradients."""
    layers = [(name, m) for name, m in model.named_modules() if m.__class__.__name__ == "Conv1D"]
    total = [0.0] * len(layers)
    for ids in batches:
        found = torch.autograd.grad(model(input_ids=ids, labels=ids).loss, [m.weight for _, m in layers])
        total = [t + g * g for t, g in zip(total, found, strict=True)]
    return {name: (m.weight.detach().pow(2) * t).t().contiguous() for (name, m), t in zip(layers, total, strict=True)}


def fisher_on_a_copy(model, batches):
    twin, found = copy.deepcopy(model), {}
    for ids in batches:
        for p in twin.parameters():
            p.grad = None
        log_probs = twin(ids, use_cache=False).logits[:, :-1].log_softmax(-1)
        (-log_probs.gather(-1, ids[:, 1:, None]).mean()).backward()
        for i, block in enumerate(twin.transformer.h):
            for kind in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
                g, name = block.get_submodule(kind).weight.grad.T, f"transformer.h.{i}.{kind}"
                found[name] = found.get(name, torch.zeros_like(g)) + g**2
    with torch.no_grad():
        return {name: s * model.get_submodule(name).weight.T ** 2 for name, s in found.items()}


def fisher_of_products(model, batches):
    """(w·g)², lot après lot ; les paramètres plutôt que les modules."""
    weights = {n.removesuffix(".weight"): p for n, p in model.named_parameters() if p.ndim == 2 and ".h." in n}
    found = {name: torch.zeros(p.shape[::-1], dtype=p.dtype, device=p.device) for name, p in weights.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for ids in batches:
        logits = model(ids).logits
        F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:]).backward()
        with torch.no_grad():
            for name, p in weights.items():
                found[name].add_((p * p.grad).square().T)
        optimizer.zero_grad()
    return found


def fisher_by_hooks(model, batches):
    squares, hooks = {}, []
    layers = {name: m for name, m in model.named_modules() if isinstance(m, Conv1D) and isinstance(m, nn.Module)}
    for name, layer in layers.items():
        squares[name] = 0

        def keep(g, name=name):
            squares[name] = squares[name] + g.detach() ** 2

        hooks.append(layer.weight.register_hook(keep))
    for ids in batches:
        model(ids, labels=ids).loss.backward()
    for hook in hooks:
        hook.remove()
    for p in model.parameters():
        p.grad = None
    return {name: (layer.weight.data**2 * squares[name]).T for name, layer in layers.items()}


styles = [fisher_by_autograd, fisher_on_a_copy, fisher_of_products, fisher_by_hooks]
