"""Exercice `train_step` du chapitre 6."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def draw_step(d: Draw, group: str) -> Inputs:
    width, heads, layers = d.turn([(8, 2, 1), (12, 3, 2), (8, 1, 2), (6, 2, 1)])
    vocabulary = d.integer(13, 19)
    inputs = {
        "config": {"n_embd": width, "n_head": heads, "n_layer": layers, "vocab_size": vocabulary},
        "seed": d.integer(0, 2**31),
        "input_ids": d.integers(0, vocabulary - 1, 10, d.integer(5, 8)),
    }
    if group == "norme par défaut":
        return inputs | {"args": {}}
    return inputs | {"args": {"max_norm": d.turn([0.05, d.uniform(0.1, 0.3), 1000.0, 0.5])}}


exercise = Exercise(
    points=3,
    minutes=15,
    stars=2,
    hints=[
        "Que fait PyTorch des gradients d'un lot quand ceux du lot d'avant sont encore là ?",
        "La perte d'un modèle de langue compare, à chaque position, ce que le modèle prédit au jeton suivant : qui se "
        "charge de décaler, vous ou le modèle ?",
        "Cinq gestes, dans l'ordre : lire le lot, effacer, revenir en arrière, borner, faire le pas. "
        "torch.nn.utils.clip_grad_norm_ rend quelque chose : quoi ?",
    ],
    groups={"courant": 0.7, "norme par défaut": 0.3},
    draw=draw_step,
    probe="gpt2_train",
    cases=4,
    visible=2,
    tolerance=Tolerance(rtol=2e-3, atol=2e-4, why="cinq pas de descente en float32"),
)


misconceptions = """\
gradients_accumulated
    - optimizer.zero_grad()
    + pass
    Les gradients du lot d'avant sont encore là, et ceux de ce lot s'y ajoutent.

clip_after_step
    - norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    - optimizer.step()
    + optimizer.step()
    + norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    Vos poids bougent comme si rien n'était borné. Si vous bornez bien, est-ce avant le pas, ou après ?

eval_mode   model.train() → model.eval()
    Votre modèle apprend en mode évaluation : un dropout n'y ferait rien.

shifted_twice   labels=input_ids) → labels=input_ids.roll(-1, dims=1))
    Vous décalez, et le modèle décale encore : chaque position apprend le jeton d'après le suivant.

not_shifted
    - loss = model(input_ids, labels=input_ids).loss
    + loss = nn.functional.cross_entropy(model(input_ids).logits.flatten(0, 1), input_ids.flatten())
    Chaque position apprend chez vous à redire le jeton qu'elle vient de lire.

norm_after_clipping   return loss.item(), norm.item() → return loss.item(), min(norm.item(), max_norm)
    Votre norme ne dépasse jamais la borne : c'est celle d'après. L'énoncé demande celle d'avant.

loss_after
    - return loss.item(), norm.item()
    + with torch.no_grad():
    +     return model(input_ids, labels=input_ids).loss.item(), norm.item()
    Vous rendez la perte d'après le pas : celle d'avant était demandée.

clip_by_value
    - optimizer.step()
    + nn.utils.clip_grad_value_(model.parameters(), max_norm)
    + optimizer.step()
    & nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    → nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
    Vous bornez chaque nombre du gradient : sa direction change. C'est la norme de l'ensemble que l'on borne.

each_tensor_clipped
    - norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    + norm = nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
    + for p in model.parameters():
    +     nn.utils.clip_grad_norm_([p], max_norm)
    Vous bornez chaque tenseur à part : la borne porte sur la norme de tous les gradients ensemble.

no_step   optimizer.step() → pass
    Aucun poids ne bouge : un gradient n'est qu'une direction.

order_swapped   return loss.item(), norm.item() → return norm.item(), loss.item()
    La perte d'abord, la norme ensuite.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def step_by_hand(model, input_ids, optimizer, max_norm=1.0):
    """Le décalage et la borne, écrits à la main."""
    model.train()
    for p in model.parameters():
        p.grad = None
    logits = model(input_ids).logits
    loss = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), input_ids[:, 1:].reshape(-1))
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.sqrt(sum(g.pow(2).sum() for g in grads))
    if norm > max_norm:
        for g in grads:
            g.mul_(max_norm / norm)
    optimizer.step()
    return loss.detach().item(), float(norm)


def step_zero_last(model, input_ids, optimizer, max_norm=1.0):
    """Effacer en partant aussi bien qu'en arrivant : le lot suivant trouve la place nette."""
    model.train()
    optimizer.zero_grad(set_to_none=False)
    loss = model(input_ids=input_ids, labels=input_ids).loss
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], max_norm)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach().item(), norm.item()


def step_log_softmax(model, input_ids, optimizer, max_norm=1.0):
    """La perte en log-probabilités, les gradients par torch.autograd.grad."""
    model.train()
    log_p = model(input_ids, use_cache=False).logits[:, :-1].log_softmax(-1)
    loss = -log_p.gather(-1, input_ids[:, 1:, None]).mean()
    parameters = list(model.parameters())
    grads = torch.autograd.grad(loss, parameters)
    norm = torch.stack([g.norm() for g in grads]).norm().item()
    for p, g in zip(parameters, grads, strict=True):
        p.grad = g * min(1.0, max_norm / (norm + 1e-6))
    optimizer.step()
    return loss.item(), norm


styles = [step_by_hand, step_zero_last, step_log_softmax]
