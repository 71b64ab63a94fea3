"""Exercice `topk_kl` du chapitre 4."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def _kept(teacher: Tensor, k: int) -> dict[str, Tensor]:
    """Ce qu'on a gardé de l'enseignant : ses k meilleurs jetons et leurs log-probabilités."""
    values, ids = torch.log_softmax(teacher.double(), dim=-1).topk(k)
    return {"top_log_probs": values.to(teacher.dtype), "top_ids": ids}


def draw_topk(d: Draw, group: str) -> Inputs:
    shape, k = d.turn([((2, 3, 9), 3), ((4, 8), 2), ((2, 2, 12), 5), ((3, 7), 4)])
    student, teacher = d.normal(*shape), 1.5 * d.normal(*shape)
    if group == "courant":
        return {"student_logits": student, **_kept(teacher, k)}
    if group == "le reste":
        flat = 0.5 * d.normal(*shape)  # presque tout est dans le reste
        return d.turn(
            [
                {"student_logits": student, **_kept(flat, 1)},
                {"student_logits": student, **_kept(teacher, shape[-1] - 1)},
                {"student_logits": student + 30.0, **_kept(flat, 2)},
                {"student_logits": 0.3 * student, **_kept(3.0 * teacher, 1)},
            ]
        )
    wide = d.normal(*shape, dtype=torch.float64)
    return d.turn(
        [
            {"student_logits": wide, **_kept(teacher.double(), k)},
            {"student_logits": d.strided(student), **_kept(teacher, k)},
            {"student_logits": student[0], **{name: t[0] for name, t in _kept(teacher, k).items()}},
            {"student_logits": student, **_kept(student, k)},
        ]
    )


exercise = Exercise(
    points=2,
    minutes=20,
    stars=3,
    hints=[
        "Combien d'événements y a-t-il, quand on sait quels jetons ont été gardés et que l'on ne sait rien des "
        "autres ?",
        "La masse du reste, chez l'enseignant, se déduit de ce qu'on a gardé. Chez l'élève, on a tous les logits "
        ": quelle "
        "masse donne-t-il aux mêmes jetons, ceux de l'enseignant ?",
        "`torch.gather` lit les log-probabilités de l'élève aux numéros gardés, position par position. Attention "
        "à 0·ln 0 "
        "quand il ne reste rien.",
    ],
    groups={"courant": 0.5, "le reste": 0.35, "formes et types": 0.15},
    draw=draw_topk,
    visible=3,
    examples=[
        {
            "student_logits": torch.tensor([[0.0, 1.0, 2.0, 0.0]]),
            "top_log_probs": torch.tensor([[0.5, 0.25]]).log(),
            "top_ids": torch.tensor([[2, 0]]),
        }
    ],
    tolerance=Tolerance(rtol=1e-3, atol=1e-4, why="1 moins une somme, en float32, puis un logarithme"),
)


misconceptions = """\
rest_forgotten   (terms + rest).mean() → terms.mean()
    Les jetons qui n'ont pas été gardés n'ont pas une probabilité nulle : ensemble, ils font un événement de plus.

renormalised   (terms + rest).mean()
    → ((terms - p.sum(-1) * (p.sum(-1).log() - kept.exp().sum(-1).log())) / p.sum(-1)).mean()
    Vous refaites une loi des k jetons gardés : l'élève peut alors donner ce qu'il veut au reste sans que cela coûte.

rest_of_logits   rest_q = (1 - kept.exp().sum(-1)).clamp(min=1e-12)
    → rest_q = torch.softmax(torch.cat([student_logits.gather(-1, top_ids), (student_logits.sum(-1) - \
student_logits.gather(-1, top_ids).sum(-1))[..., None]], -1), -1)[..., -1]
    La probabilité de plusieurs jetons réunis est une somme de probabilités, non celle d'une somme de logits.

first_columns   log_q.gather(-1, top_ids) → log_q[..., : top_ids.shape[-1]]
    Les k premières colonnes sont les k premiers jetons du vocabulaire : lesquels l'enseignant a-t-il gardés ?

own_top   log_q.gather(-1, top_ids) → log_q.topk(top_ids.shape[-1], dim=-1).values
    Vous comparez le premier choix de l'élève au premier choix de l'enseignant : parlent-ils du même jeton ?

gathers_logits   log_q.gather(-1, top_ids) → student_logits.gather(-1, top_ids)
    Un logit n'est pas une log-probabilité : il lui manque la normalisation, sur tout le vocabulaire.

reversed   (terms + rest).mean()
    → ((kept.exp() * (kept - top_log_probs)).sum(-1) + torch.xlogy(rest_q, rest_q) - rest_q * \
rest_p.clamp(min=1e-12).log()).mean()
    C'est la divergence de l'élève à l'enseignant : laquelle des deux lois pondère la somme ?

rest_of_student_only   torch.xlogy(rest_p, rest_p) - rest_p * torch.log(rest_q) → -rest_p * torch.log(rest_q)
    Votre reste est une entropie croisée : un élève pareil à l'enseignant devrait coûter zéro.

sum_of_positions   (terms + rest).mean() → (terms + rest).sum()
    Deux fois plus de positions, deux fois plus de perte : l'énoncé en demande la moyenne.

mean_over_outcomes   (p * (top_log_probs - kept)).sum(-1) → (p * (top_log_probs - kept)).mean(-1)
    Vous divisez par k : une divergence est une somme sur les événements.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def topk_cat(student_logits, top_log_probs, top_ids):
    """Les k + 1 probabilités des deux côtés, puis la divergence de la bibliothèque."""
    q = torch.softmax(student_logits.double(), -1).gather(-1, top_ids)
    p = top_log_probs.double().exp()
    p = torch.cat([p, (1 - p.sum(-1, keepdim=True)).clamp(min=0)], -1)
    q = torch.cat([q, (1 - q.sum(-1, keepdim=True)).clamp(min=1e-300)], -1)
    total = F.kl_div(q.log(), p, reduction="sum") / p[..., 0].numel()
    return total.to(student_logits.dtype)


def topk_masked(student_logits, top_log_probs, top_ids):
    """Le reste de l'élève par un logsumexp sur les jetons non gardés."""
    others = student_logits.scatter(-1, top_ids, -math.inf)
    norm = student_logits.logsumexp(-1, keepdim=True)
    log_rest = others.logsumexp(-1, keepdim=True) - norm
    log_q = torch.cat([student_logits.gather(-1, top_ids) - norm, log_rest], -1)
    p = top_log_probs.exp()
    p = torch.cat([p, (1 - p.sum(-1, keepdim=True)).clamp(min=0)], -1)
    return (torch.xlogy(p, p) - p * log_q).sum(-1).mean()


def topk_loops(student_logits, top_log_probs, top_ids):
    width, k = student_logits.shape[-1], top_ids.shape[-1]
    losses = []
    rows = zip(
        student_logits.reshape(-1, width).tolist(),
        top_log_probs.reshape(-1, k).tolist(),
        top_ids.reshape(-1, k).tolist(),
        strict=True,
    )
    for scores, logs, ids in rows:
        high = max(scores)
        norm = sum(math.exp(s - high) for s in scores)
        q = [math.exp(scores[i] - high) / norm for i in ids]
        p = [math.exp(x) for x in logs]
        q.append(sum(math.exp(s - high) / norm for i, s in enumerate(scores) if i not in ids))
        p.append(max(0.0, 1 - sum(p)))
        losses.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))
    return torch.tensor(sum(losses) / len(losses), dtype=student_logits.dtype)


styles = [topk_cat, topk_masked, topk_loops]
