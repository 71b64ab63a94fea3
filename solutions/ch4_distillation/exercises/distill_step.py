"""Exercice `distill_step` du chapitre 4."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from .combined_loss import combined_flat
from .distillation_loss import distillation_library


def draw_step(d: Draw, group: str) -> Inputs:
    width, heads = d.turn([(8, 2), (12, 3), (8, 1), (6, 2)])
    sizes = {"n_embd": width, "n_head": heads, "vocab_size": d.integer(13, 19)}
    inputs = {
        "student": sizes | {"n_layer": 1},
        "teacher": sizes | {"n_layer": d.integer(2, 3)},
        "seed": d.integer(0, 2**31),
        "input_ids": d.integers(0, 12, 10, d.integer(5, 8)),
    }
    if group == "le seul enseignant":
        return inputs | {"args": d.turn([{}, {"temperature": d.uniform(2.0, 4.0)}, {}, {"temperature": 3.0}])}
    temperature, alpha = d.uniform(1.5, 3.0), d.uniform(0.3, 0.7)
    settings = [(temperature, alpha), (3.0, 0.0), (1.0, 0.4), (temperature, 0.25)]
    return inputs | {"args": d.turn([{"temperature": t, "alpha": a} for t, a in settings])}


exercise = Exercise(
    points=3,
    minutes=15,
    stars=2,
    hints=[
        "Deux modèles lisent le même lot : lequel apprend ? À lequel ne faut-il ni gradient, ni mode apprentissage ?",
        "Votre combined_loss attend des étiquettes : dans un modèle de langue, ce sont les jetons du lot lui-même.",
        "Trois appels font un pas : effacer les gradients du pas d'avant, calculer ceux de ce lot, bouger les poids. "
        "Lequel rend inutile de relire le lot pour dire la perte ?",
    ],
    groups={"le seul enseignant": 0.5, "les deux étiquettes": 0.5},
    draw=draw_step,
    probe="gpt2_distill",
    stand_ins={"combined_loss": "odd_mix"},
    cases=4,
    visible=2,
    examples=[
        {
            "student": {"n_layer": 1, "vocab_size": 7},
            "teacher": {"n_layer": 2, "vocab_size": 7},
            "seed": 3,
            "input_ids": torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 3, 5], [1, 4, 1, 4, 2], [1, 3, 5, 6, 2]]),
            "args": {"temperature": 2.0, "alpha": 0.5},
        }
    ],
    tolerance=Tolerance(rtol=2e-3, atol=2e-4, why="cinq pas de descente en float32"),
)


misconceptions = """\
gradients_accumulated
    - optimizer.zero_grad()
    + pass
    Les gradients du pas d'avant sont encore là, et ceux de ce lot s'y ajoutent.

teacher_training   teacher.eval() → teacher.train()
    Votre enseignant lit en mode apprentissage : s'il avait un dropout, il ne dirait jamais deux fois la même chose.

student_in_eval   student.train() → student.eval()
    L'élève apprend en mode évaluation : un dropout n'y ferait rien.

teacher_learns
    - with torch.no_grad():
    -     target = teacher(input_ids).logits
    - loss = combined_loss(student(input_ids).logits, target, input_ids, temperature, alpha)
    + gap = torch.log_softmax(teacher(input_ids).logits / temperature, -1)[:, :-1]
    + own = torch.log_softmax(student(input_ids).logits / temperature, -1)[:, :-1]
    + soft = temperature**2 * (gap.exp() * (gap - own)).sum(-1).mean()
    + hard = F.cross_entropy(student(input_ids).logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())
    + loss = alpha * soft + (1 - alpha) * hard
    Un gradient arrive jusqu'à l'enseignant : de quoi le passage arrière doit-il se souvenir ?

hard_not_shifted
    - loss = combined_loss(student(input_ids).logits, target, input_ids, temperature, alpha)
    + given = student(input_ids).logits
    + soft = distillation_loss(given[:, :-1], target[:, :-1], temperature)
    + loss = alpha * soft + (1 - alpha) * F.cross_entropy(given.flatten(0, 1), input_ids.flatten())
    Votre terme dur demande à chaque position le jeton qu'elle vient de lire.

last_position_counted
    - loss = combined_loss(student(input_ids).logits, target, input_ids, temperature, alpha)
    + given = student(input_ids).logits
    + hard = F.cross_entropy(given[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())
    + loss = alpha * distillation_loss(given, target, temperature) + (1 - alpha) * hard
    Votre terme doux compte aussi la dernière position de chaque suite : l'énoncé la laisse de côté.

loss_after
    - return loss.item()
    + with torch.no_grad():
    +     return combined_loss(student(input_ids).logits, target, input_ids, temperature, alpha).item()
    Vous rendez la perte d'après le pas : celle d'avant était demandée.

no_step   optimizer.step() → pass
    Aucun poids ne bouge : un gradient n'est qu'une direction.

two_steps
    - optimizer.step()
    + optimizer.step()
    + optimizer.step()
    Le gradient d'un lot sert à un seul pas.

kl_reversed
    - loss = combined_loss(student(input_ids).logits, target, input_ids, temperature, alpha)
    + given = student(input_ids).logits[:, :-1]
    + log_q, log_p = ((z / temperature).log_softmax(-1) for z in (given, target[:, :-1]))
    + soft = temperature**2 * (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    + hard = F.cross_entropy(given.flatten(0, 1), input_ids[:, 1:].flatten())
    + loss = alpha * soft + (1 - alpha) * hard
    Votre terme doux pondère par l'élève : laquelle des deux lois l'énoncé met-il devant ?

settings_ignored   temperature, alpha) → 1.0, 1.0)
    Votre pas n'emploie ni la température ni le mélange qu'on lui donne.

temperature_ignored   temperature, alpha) → 1.0, alpha)
    La température reçue ne sert à rien dans votre pas.

alpha_ignored   temperature, alpha) → temperature, 1.0)
    Votre pas n'écoute que l'enseignant, quel que soit alpha.

optimizer_rebuilt
    - optimizer.zero_grad()
    + optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    + optimizer.zero_grad()
    Vous fabriquez un optimiseur à chaque pas : celui que l'on vous donne avait de la mémoire.

returns_tensor   return loss.item() → return loss
    La perte rendue traîne tout le graphe du pas : un nombre suffit.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def step_by_library(student, teacher, input_ids, optimizer, temperature=1.0, alpha=1.0):
    """Tout par torch, sans les exercices précédents ; l'enseignant lu sous inference_mode."""
    with torch.inference_mode():
        target = torch.softmax(teacher.eval()(input_ids).logits / temperature, -1)
    target = target.clone()[:, :-1].flatten(0, 1)
    given = student.train()(input_ids=input_ids, use_cache=False).logits[:, :-1].flatten(0, 1)
    soft = F.kl_div(F.log_softmax(given / temperature, -1), target, reduction="batchmean")
    loss = alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(given, input_ids[:, 1:].flatten())
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def step_detached(student, teacher, input_ids, optimizer, temperature=1.0, alpha=1.0):
    """Un enseignant détaché après coup, la perte dure de transformers, le mode rendu à la fin."""
    was_training = teacher.training
    teacher.eval()
    target = teacher(input_ids).logits.detach()
    teacher.train(was_training)
    student.train()
    student.zero_grad()
    out = student(input_ids, labels=input_ids)
    soft = distillation_library(out.logits[:, :-1], target[:, :-1], temperature)
    total = alpha * soft + (1 - alpha) * out.loss
    total.backward()
    before = total.item()
    optimizer.step()
    return before


def step_in_two_backwards(student, teacher, input_ids, optimizer, temperature=1.0, alpha=1.0):
    """Les deux termes passent l'un après l'autre : leurs gradients s'ajoutent, c'est ce que l'on veut."""
    optimizer.zero_grad()
    with torch.no_grad():
        target = teacher.eval()(input_ids).logits
    given = student.train()(input_ids).logits
    soft = alpha * distillation_library(given[:, :-1], target[:, :-1], temperature)
    hard = (1 - alpha) * F.cross_entropy(given[:, :-1].transpose(1, 2), input_ids[:, 1:])
    soft.backward(retain_graph=True)
    hard.backward()
    optimizer.step()
    return (soft + hard).item()


def step_frozen_teacher(student, teacher, input_ids, optimizer, temperature=1.0, alpha=1.0):
    """L'enseignant gelé, les positions mises à plat par combined_flat, la perte rendue par NumPy."""
    teacher.requires_grad_(False).eval()
    student.train()
    optimizer.zero_grad()
    loss = combined_flat(student(input_ids).logits, teacher(input_ids).logits, input_ids, temperature, alpha)
    loss.backward()
    optimizer.step()
    return loss.detach().cpu().numpy().item()


styles = [step_by_library, step_detached, step_in_two_backwards, step_frozen_teacher]
