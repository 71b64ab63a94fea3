"""Exercice `distillation_loss` du chapitre 4."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from .kl_divergence import kl_xlogy
from .softmax_temperature import softmax_by_hand


def draw_distillation(d: Draw, group: str) -> Inputs:
    shape = d.turn([(2, 3, 5), (4, 6), (3, 2, 4), (2, 5, 7)])
    logits = {"student_logits": 1.5 * d.normal(*shape), "teacher_logits": 2 * d.normal(*shape)}
    if group == "courant":
        temperature = d.turn([{}, {"temperature": d.uniform(2.5, 5.0)}, {"temperature": d.uniform(0.5, 0.8)}, {}])
        return logits | temperature
    if group == "bords":
        same = d.normal(2, 3, 4)
        return d.turn(
            [
                {"student_logits": same + 3.0, "teacher_logits": same, "temperature": 3.0},
                {k: 1.5 * d.normal(1, 1, 6) for k in logits} | {"temperature": 1.0},
                {"student_logits": d.normal(3, 5), "teacher_logits": 5 * torch.eye(5)[:3], "temperature": 4.0},
                {k: d.normal(2, 6, 3) for k in logits} | {"temperature": 20.0},
            ]
        )
    kind = d.turn(["float64", "non contigu", "quatre axes", "transposé"])
    if kind == "quatre axes":
        return {k: d.normal(2, 2, 3, 4) for k in logits} | {"temperature": 3.0}
    if kind == "non contigu":
        return {k: d.strided(v) for k, v in logits.items()} | {"temperature": 2}
    if kind == "float64":
        return {k: v.double() for k, v in logits.items()} | {"temperature": 1.5}
    return {k: d.normal(3, 2, 5).transpose(0, 1) for k in logits}


exercise = Exercise(
    points=3,
    minutes=15,
    stars=2,
    hints=[
        "Deux lois adoucies à la même température, une divergence par position : laquelle des deux pondère la somme ?",
        "Travaillez avec les logarithmes des probabilités (log_softmax) : leur différence ne perd rien.",
        "Une somme sur le dernier axe donne une divergence par position ; il reste à faire la moyenne de toutes.",
        "T²·moyenne(KL(softmax(enseignant / T) ‖ softmax(élève / T))), l'enseignant étant détaché du graphe.",
    ],
    groups={"courant": 0.65, "bords": 0.2, "formes et types": 0.15},
    draw=draw_distillation,
    probe="loss_grads",
    visible=3,
    examples=[
        {
            "student_logits": torch.tensor([[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]]),
            "teacher_logits": torch.tensor([[[2.0, 1.0, 0.0], [0.0, 1.0, 1.0]]]),
        }
    ],
    tolerance=Tolerance(rtol=5e-4, atol=2e-5, why="arrondis en float32, multipliés par T², T jusqu'à 20"),
)


misconceptions = """\
no_t2   temperature**2 * divergence → divergence
    Doublez T : vos gradients fondent. Qu'est-ce qui doit les compenser ?

t_not_t2   temperature**2 * divergence → temperature * divergence
    Deux divisions par T se cachent dans ce gradient.

divided_by_t2   temperature**2 * divergence.mean() → divergence.mean() / temperature**2
    Le gradient fond déjà comme 1/T² : votre facteur le fait fondre deux fois.

kl_reversed   (teacher.exp() * (teacher - student)).sum(dim=-1) → (student.exp() * (student - teacher)).sum(dim=-1)
    Votre élève peut se contenter d'une des façons de parler de l'enseignant ; l'énoncé pondère par l'enseignant.

sign   (teacher - student) → (student - teacher)
    Votre perte est négative : elle pousserait l'élève à s'éloigner de l'enseignant.

cross_entropy   (teacher.exp() * (teacher - student)).sum(dim=-1) → -(teacher.exp() * student).sum(dim=-1)
    Vos gradients sont justes, mais un élève parfait n'aurait pas une perte nulle : il y manque l'entropie de
    l'enseignant.

batchmean_3d   divergence.mean() → divergence.sum() / len(student_logits)
    Votre perte grandit avec la longueur des phrases : que compte PyTorch comme un exemple ?

sum_over_positions   divergence.mean() → divergence.sum()
    Votre perte grandit avec le nombre de positions : on en demande la moyenne.

mean_over_classes   (teacher.exp() * (teacher - student)).sum(dim=-1)
    → (teacher.exp() * (teacher - student)).mean(dim=-1)
    Votre moyenne porte aussi sur le vocabulaire : une divergence est une somme sur les mots.

probs_given_to_kl_div   (teacher.exp() * (teacher - student)).sum(dim=-1)
    → (teacher.exp() * (teacher - student.exp())).sum(dim=-1)
    Relisez ce que cette fonction attend pour l'élève : une probabilité ou son logarithme ?

log_target_forgotten   (teacher.exp() * (teacher - student)).sum(dim=-1)
    → F.kl_div(student, teacher, reduction='none').sum(dim=-1)
    Vous donnez à cette fonction le logarithme de l'enseignant : l'avez-vous prévenue ?

teacher_not_detached   .detach() → ∅
    L'enseignant reçoit un gradient : qui apprend de qui ?

student_detached   student_logits / temperature → student_logits.detach() / temperature
    La valeur est bonne, mais aucun gradient n'arrive à l'élève : il n'apprendra rien.

temperature_teacher_only   torch.log_softmax(student_logits / temperature, dim=-1)
    → torch.log_softmax(student_logits, dim=-1)
    Une loi adoucie comparée à une loi qui ne l'est pas : même à la perfection, l'écart reste.

temperature_student_only   torch.log_softmax(teacher_logits.detach() / temperature, dim=-1)
    → torch.log_softmax(teacher_logits.detach(), dim=-1)
    Vous n'adoucissez que l'élève : l'enseignant doit parler à la même température.

temperature_multiplied   student_logits / temperature → student_logits * temperature
    & teacher_logits.detach() / temperature → teacher_logits.detach() * temperature
    Vos deux lois deviennent plus pointues quand T monte : une température fait l'inverse.

squared_error   (teacher.exp() * (teacher - student)).sum(dim=-1)
    → (teacher.exp() - student.exp()).square().sum(dim=-1)
    C'est un écart quadratique entre probabilités ; on demande une divergence.

logit_matching   (teacher.exp() * (teacher - student)).sum(dim=-1)
    → (teacher_logits.detach() - student_logits).square().mean(dim=-1)
    Vous comparez les logits eux-mêmes : ajouter 3 à tous les logits de l'élève ne change pas ce qu'il dit.

hard_teacher   (teacher.exp() * (teacher - student)).sum(dim=-1)
    → -student.gather(-1, teacher.argmax(dim=-1, keepdim=True))[..., 0]
    Vous ne gardez de l'enseignant que son mot préféré : tout le reste de ce qu'il sait est perdu.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def distillation_library(student_logits, teacher_logits, temperature=2.0):
    size = student_logits.shape[-1]
    student = F.log_softmax(student_logits / temperature, -1).reshape(-1, size)
    teacher = F.softmax(teacher_logits.detach() / temperature, -1).reshape(-1, size)
    return F.kl_div(student, teacher, reduction="batchmean") * temperature * temperature


def distillation_composed(student_logits, teacher_logits, temperature=2.0):
    """Les deux exercices précédents, mis bout à bout."""
    with torch.no_grad():
        p = softmax_by_hand(teacher_logits, temperature)
    return temperature**2 * kl_xlogy(p, softmax_by_hand(student_logits, temperature)).mean()


def distillation_cross_entropy(student_logits, teacher_logits, temperature=2.0):
    """Entropie croisée contre une loi, moins l'entropie de cette loi."""
    size = student_logits.size(-1)
    target = (teacher_logits.detach() / temperature).softmax(-1).flatten(0, -2)
    cross = F.cross_entropy((student_logits / temperature).flatten(0, -2), target)
    entropy = -(target * target.log()).sum(-1).mean()
    assert target.shape[-1] == size
    return (cross - entropy) * temperature**2


def distillation_loops(student_logits, teacher_logits, temperature=2.0):
    size = student_logits.shape[-1]
    total, count = 0.0, 0
    for s, t in zip(student_logits.reshape(-1, size), teacher_logits.reshape(-1, size), strict=True):
        p = torch.softmax(t.detach().double() / temperature, 0)
        log_q = torch.log_softmax(s.double() / temperature, 0)
        total, count = total + (p * (p.log() - log_q)).sum(), count + 1
    return (total / count * temperature**2).to(student_logits.dtype)


def distillation_log_target(student_logits, teacher_logits, temperature=2.0):
    loss = nn.KLDivLoss(reduction="sum", log_target=True)
    value = loss(
        torch.log_softmax(student_logits / temperature, dim=-1),
        torch.log_softmax(teacher_logits / temperature, dim=-1).detach(),
    )
    return value / student_logits[..., 0].numel() * temperature**2


styles = [
    distillation_library,
    distillation_composed,
    distillation_cross_entropy,
    distillation_loops,
    distillation_log_target,
]
