"""Exercice `combined_loss` du chapitre 4."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from .distillation_loss import distillation_composed, distillation_library


def _labels(d: Draw, batch: int, length: int, vocabulary: int, ignored: int) -> Tensor:
    """Des étiquettes dont `ignored` par ligne sont à −100, ni la première ni toutes (la ligne 0 en a une de plus)."""
    labels = d.integers(0, vocabulary - 1, batch, length)
    for row in range(batch):
        count = ignored + (row == 0) * (ignored > 0)
        places = d.random.sample(range(1, length), min(count, length - 2))
        labels[row, places] = -100
    return labels


def draw_combined(d: Draw, group: str) -> Inputs:
    batch, length, size = d.turn([(2, 6, 5), (3, 5, 4), (2, 7, 6), (2, 5, 7)])

    def logits(spread: float) -> Tensor:
        return spread * d.normal(batch, length, size)

    inputs = {
        "student_logits": logits(1.5),
        "teacher_logits": logits(2.0),
        "labels": _labels(d, batch, length, size, 0 if d.index == 1 else 1 + d.index % 2),
    }
    if group == "courant":
        settings = [
            {},
            {"temperature": d.uniform(2.5, 4.0), "alpha": d.uniform(0.2, 0.4)},
            {"temperature": d.uniform(1.3, 1.8), "alpha": d.uniform(0.6, 0.8)},
            {"temperature": 3.0, "alpha": 0.3},
        ]
        return inputs | d.turn(settings)
    if group == "bords":
        kind = d.turn(["dur", "doux", "première étiquette", "une seule cible"])
        if kind == "dur":
            return inputs | {"temperature": 3.0, "alpha": 0.0}
        if kind == "doux":
            return inputs | {"temperature": 3.0, "alpha": 1.0}
        if kind == "une seule cible":
            inputs["labels"][:] = -100
            inputs["labels"][1, d.integer(1, length - 1)] = 2
            return inputs | {"temperature": 1.5, "alpha": 0.25}
        inputs["labels"][:, 0] = -100  # une première étiquette n'est jamais une cible : elle ne change rien
        return inputs | {"temperature": 2.0, "alpha": 0.4}
    if d.index % 2:
        wide = {k: v.double() for k, v in inputs.items() if k != "labels"}
        return wide | {"labels": inputs["labels"], "temperature": 1.7, "alpha": 0.6}
    thin = {k: d.strided(v) for k, v in inputs.items() if k != "labels"}
    return thin | {"labels": inputs["labels"].T.contiguous().T, "temperature": 2, "alpha": 0.75}


exercise = Exercise(
    points=3,
    minutes=15,
    stars=2,
    hints=[
        "Quelle est la dernière position dont on peut noter la prédiction ? Et la première étiquette, qui la prédit ?",
        "Décalez une fois pour toutes : les logits sans leur dernière position, les étiquettes sans la première. Les "
        "deux termes portent sur les mêmes positions.",
        "Les étiquettes à −100 désignent des positions à retirer, pour l'élève comme pour l'enseignant, avant toute "
        "moyenne.",
        "α·distillation_loss(…) + (1 − α)·entropie croisée, chacun étant une moyenne sur les cibles gardées.",
    ],
    groups={"courant": 0.65, "bords": 0.25, "formes et types": 0.1},
    draw=draw_combined,
    probe="loss_grads",
    stand_ins={"distillation_loss": "odd_soft"},
    visible=4,
    examples=[
        {
            "student_logits": torch.tensor([[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0], [3.0, 0.0, 0.0]]]),
            "teacher_logits": torch.tensor([[[2.0, 1.0, 0.0], [0.0, 1.0, 1.0], [4.0, 0.0, 0.0], [0.0, 3.0, 0.0]]]),
            "labels": torch.tensor([[0, 1, 2, -100]]),
        }
    ],
    tolerance=Tolerance(rtol=5e-4, atol=1e-5, why="arrondis en float32, multipliés par T²"),
)


misconceptions = """\
alpha_exchanged   return alpha * soft + (1 - alpha) * hard → return (1 - alpha) * soft + alpha * hard
    Avec α = 1, que devrait-il rester ?

soft_full_weight   return alpha * soft + (1 - alpha) * hard → return soft + (1 - alpha) * hard
    Le terme doux n'est pas pondéré : avec α = 0, il devrait disparaître.

hard_full_weight   return alpha * soft + (1 - alpha) * hard → return alpha * soft + hard
    Le terme dur n'est pas pondéré : avec α = 1, il devrait disparaître.

no_shift   student_logits[:, :-1] → student_logits
    & teacher_logits[:, :-1] → teacher_logits
    & labels[:, 1:] → labels
    La position t prédit t + 1.

shift_backwards   student_logits[:, :-1] → student_logits[:, 1:]
    & teacher_logits[:, :-1] → teacher_logits[:, 1:]
    & labels[:, 1:] → labels[:, :-1]
    Vous demandez à chaque position le jeton qui la précède, et qu'elle a déjà lu.

soft_on_ignored   soft = distillation_loss(student[kept], teacher[kept], temperature)
    → soft = distillation_loss(student, teacher, temperature)
    L'élève imite l'enseignant jusque dans le remplissage.

soft_on_everything   soft = distillation_loss(student[kept], teacher[kept], temperature)
    → soft = distillation_loss(student_logits, teacher_logits, temperature)
    Votre terme doux compte toutes les positions : la dernière ne prédit rien, et d'autres sont à ignorer.

soft_not_shifted
    - soft = distillation_loss(student[kept], teacher[kept], temperature)
    + real = labels != -100
    + soft = distillation_loss(student_logits[real], teacher_logits[real], temperature)
    Vos deux termes ne portent pas sur les mêmes positions.

hard_not_shifted   hard = F.cross_entropy(student[kept], targets[kept])
    → hard = F.cross_entropy(student_logits.flatten(0, 1), labels.flatten())
    Votre terme dur demande à chaque position le jeton qu'elle vient de lire.

hard_at_temperature   hard = F.cross_entropy(student[kept], targets[kept])
    → hard = F.cross_entropy(student[kept] / temperature, targets[kept])
    Face à la vraie étiquette, l'élève doit répondre sans adoucissement.

t2_on_both   return alpha * soft + (1 - alpha) * hard → return alpha * soft + (1 - alpha) * temperature**2 * hard
    Ce facteur compense la température : y en a-t-il une dans ce terme ?

t2_forgotten
    - soft = distillation_loss(student[kept], teacher[kept], temperature)
    + taught = teacher[kept].detach() / temperature
    + gap = torch.log_softmax(taught, -1) - torch.log_softmax(student[kept] / temperature, -1)
    + soft = (torch.softmax(taught, -1) * gap).sum(-1).mean()
    Votre terme doux pèse T² fois trop peu face à l'autre.

t2_twice   return alpha * soft + (1 - alpha) * hard → return alpha * temperature**2 * soft + (1 - alpha) * hard
    Le facteur T² est déjà dans la perte de distillation : le voici deux fois.

kl_reversed   soft = distillation_loss(student[kept], teacher[kept], temperature)
    → soft = distillation_loss(teacher[kept], student[kept].detach(), temperature)
    Dans votre terme doux, les deux rôles sont échangés : qui imite qui ?

teacher_not_detached
    - soft = distillation_loss(student[kept], teacher[kept], temperature)
    + taught = teacher[kept] / temperature
    + gap = torch.log_softmax(taught, -1) - torch.log_softmax(student[kept] / temperature, -1)
    + soft = temperature**2 * (torch.softmax(taught, -1) * gap).sum(-1).mean()
    L'enseignant reçoit un gradient : qui apprend de qui ?

soft_only   return alpha * soft + (1 - alpha) * hard → return soft
    La vraie étiquette n'entre pas dans votre perte.

hard_only   return alpha * soft + (1 - alpha) * hard → return hard
    L'enseignant n'entre pas dans votre perte.

sum_of_targets   return alpha * soft + (1 - alpha) * hard → return (alpha * soft + (1 - alpha) * hard) * kept.sum()
    Votre perte grandit avec le nombre de cibles : chaque terme est une moyenne.

divides_by_all   return alpha * soft + (1 - alpha) * hard
    → return (alpha * soft + (1 - alpha) * hard) * kept.sum() / kept.numel()
    Vous divisez par toutes les positions, celles à ignorer comprises.

per_sentence   = _per_sentence
    Une phrase qui garde peu de cibles pèse autant qu'une autre : la moyenne se fait sur les jetons.
"""


def _per_sentence(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 2.0, alpha: float = 0.5
) -> Tensor:
    """La moyenne de chaque phrase, puis la moyenne des phrases qui ont une cible."""
    losses = []
    for s, t, y in zip(student_logits[:, :-1], teacher_logits.detach()[:, :-1], labels[:, 1:], strict=True):
        kept = y != -100
        if not kept.any():
            continue
        log_s, log_t = (torch.log_softmax(z[kept] / temperature, -1) for z in (s, t))
        soft = temperature**2 * (log_t.exp() * (log_t - log_s)).sum(-1).mean()
        losses.append(alpha * soft + (1 - alpha) * F.cross_entropy(s[kept], y[kept]))
    return torch.stack(losses).mean()


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def combined_masked(student_logits, teacher_logits, labels, temperature=2.0, alpha=0.5):
    """Rien n'est retiré : un masque pondère les deux sommes."""
    s, t, y = student_logits[:, :-1], teacher_logits[:, :-1].detach(), labels[:, 1:]
    mask = (y != -100).to(s.dtype)
    log_p, log_q = F.log_softmax(t / temperature, -1), F.log_softmax(s / temperature, -1)
    soft = (log_p.exp() * (log_p - log_q)).sum(-1) * temperature**2
    hard = -F.log_softmax(s, -1).gather(-1, y.clamp(min=0)[..., None])[..., 0]
    return ((alpha * soft + (1 - alpha) * hard) * mask).sum() / mask.sum()


def combined_flat(student_logits, teacher_logits, labels, temperature=2.0, alpha=0.5):
    size = student_logits.shape[-1]
    s = student_logits[..., :-1, :].reshape(-1, size)
    t = teacher_logits[..., :-1, :].reshape(-1, size)
    y = labels[..., 1:].reshape(-1)
    hard = F.cross_entropy(s, y, ignore_index=-100)
    index = torch.nonzero(y != -100)[:, 0]
    soft = distillation_library(s[index], t[index], temperature)
    return torch.lerp(hard, soft, alpha)


def combined_shifted_labels(student_logits, teacher_logits, labels, temperature=2.0, alpha=0.5):
    """Ce sont les étiquettes qu'on avance, complétées de −100 : les logits gardent leur longueur."""
    ahead = torch.full_like(labels, -100)
    ahead[:, :-1] = labels[:, 1:]
    real = ahead.ne(-100)
    hard = nn.CrossEntropyLoss()(student_logits.transpose(1, 2), ahead)
    soft = distillation_composed(student_logits[real], teacher_logits[real], temperature)
    return alpha * soft + hard - alpha * hard


def combined_loops(student_logits, teacher_logits, labels, temperature=2.0, alpha=0.5):
    losses = []
    for b in range(labels.shape[0]):
        for i in range(1, labels.shape[1]):
            if labels[b, i] == -100:
                continue
            s, t = student_logits[b, i - 1], teacher_logits[b, i - 1].detach()
            p = (t / temperature).softmax(0)
            soft = temperature**2 * (p * (p.log() - (s / temperature).log_softmax(0))).sum()
            losses.append(alpha * soft - (1 - alpha) * s.log_softmax(0)[labels[b, i]])
    return torch.stack(losses).mean()


styles = [combined_masked, combined_flat, combined_shifted_labels, combined_loops]
