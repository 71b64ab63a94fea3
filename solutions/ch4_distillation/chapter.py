# %% [markdown]
# # Chapitre 4 · Distillation

# %% tags=["setup"]
import copy

import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel

# %% [markdown]
# ??? q="soft_label"
#
# ??? q="temperature_limits"
#
# ??? q="kl_infinite"
#
# ??? q="cover_or_seek"
#
# ??? q="t_squared"
#
# ??? q="random_start"
#
# ??? q="ensemble_claim"
#
# ??? q="straight_through"

# %% [markdown]
# ### ✎ Exercice : `softmax_temperature` · 1 point · 5 minutes


# %% exercise="softmax_temperature"
def softmax_temperature(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Softmax adouci (ou durci) par une température, sur le dernier axe.

    logits : (…, V) flottant, un score par mot, sans unité, éventuellement très grands (1 000 ou −1 000).
    temperature : T > 0, sans unité ; entière ou non.
    Rend (…, V), du type de logits : exp(z_i / T) / Σ_j exp(z_j / T), positif, de somme 1 sur le dernier axe, sans nan.
    Lève ValueError si temperature ≤ 0.

    Source : Hinton, Vinyals et Dean, « Distilling the Knowledge in a Neural Network », 2015, équation (1).
    """
    ### BEGIN SOLUTION
    if temperature <= 0:
        raise ValueError(f"une température est strictement positive, pas {temperature}")
    return torch.softmax(logits / temperature, dim=-1)
    ### END SOLUTION


# %% [markdown]
# ### ✎ Exercice : `kl_divergence` · 2 points · 15 minutes


# %% exercise="kl_divergence"
def kl_divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Divergence de Kullback-Leibler de P à Q, D(P ‖ Q), sur le dernier axe, en nats.

    p, q : (…, V) flottants de même forme, des probabilités (positives ou nulles, de somme 1 sur le dernier axe).
    Rend (…), du type de p : Σ_x p(x)·ln(p(x) / q(x)), une valeur par loi.
    Là où p(x) = 0, le terme vaut 0, même si q(x) = 0 aussi ; là où p(x) > 0 et q(x) = 0, la somme vaut +inf.

    Source : Kullback et Leibler, « On Information and Sufficiency », 1951.
    """
    ### BEGIN SOLUTION
    terms = torch.where(p > 0, p * (torch.log(p) - torch.log(q)), torch.zeros_like(p))
    return terms.sum(dim=-1)
    ### END SOLUTION


# %% [markdown]
# ### ✎ Exercice : `student_layers` · 1 point · 10 minutes


# %% exercise="student_layers"
def student_layers(n_teacher: int, n_student: int) -> list[int]:
    """Couches de l'enseignant données à l'élève : la première, la dernière, les autres régulièrement entre les deux.

    n_teacher, n_student : nombres de couches.
    Rend n_student numéros croissants, comptés à partir de 0 : la couche i de l'élève vient de
    round(i·(n_teacher − 1) / (n_student − 1)) ; à mi-chemin exact entre deux couches, on prend celle de numéro pair
    (c'est ce que fait round en Python). Un élève d'une seule couche reçoit [0].
    Lève ValueError si n_student < 1 ou n_student > n_teacher.

    Source : Sanh et al., « DistilBERT », 2019, § 3 (une couche sur deux) ; la règle arrondie est celle du cours.
    """
    ### BEGIN SOLUTION
    if not 1 <= n_student <= n_teacher:
        raise ValueError(f"un élève de {n_student} couches ne se taille pas dans un enseignant de {n_teacher}")
    if n_student == 1:
        return [0]
    return [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    ### END SOLUTION


# %% [markdown]
# ### ✎ Exercice : `build_student` · 3 points · 25 minutes · approfondissement


# %% exercise="build_student"
def build_student(teacher: GPT2LMHeadModel, layers: list[int]) -> GPT2LMHeadModel:
    """Nouveau GPT-2 fait de quelques blocs d'un autre.

    teacher : GPT-2 de transformers, qui n'est pas modifié.
    layers : numéros (à partir de 0) des blocs à garder, tous différents, dans l'ordre où l'élève les aura.
    Rend un GPT2LMHeadModel en mode évaluation, à len(layers) blocs : ces blocs, les plongements des jetons et des
    positions et le dernier LayerNorm de l'enseignant, **copiés** (aucun tenseur n'est partagé avec lui) ; sa
    configuration annonce le bon nombre de blocs (n_layer) ; sa tête est liée à sa propre table des jetons, comme dans
    tout GPT-2 ; il sait se servir d'un cache K/V.

    Source : Sanh et al., « DistilBERT », 2019, § 3 (un élève initialisé avec les couches de son enseignant).
    """
    ### BEGIN SOLUTION
    config = copy.deepcopy(teacher.config)
    config.n_layer = len(layers)
    student = GPT2LMHeadModel(config).to(teacher.device, teacher.dtype).eval()
    weights = {name: w for name, w in teacher.state_dict().items() if ".h." not in name}
    for i, j in enumerate(layers):
        for name, w in teacher.transformer.h[j].state_dict().items():
            weights[f"transformer.h.{i}.{name}"] = w
    student.load_state_dict(weights)
    return student
    ### END SOLUTION


# %% [markdown]
# ### ✎ Exercice : `distillation_loss` · 3 points · 20 minutes


# %% exercise="distillation_loss"
def distillation_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 2.0
) -> torch.Tensor:
    """Perte douce : T² fois la divergence de l'enseignant à l'élève, l'un et l'autre adoucis à la température T.

    student_logits, teacher_logits : (…, V) flottants de même forme, au moins deux axes ; des scores, pas des
        probabilités. temperature : T > 0, sans unité.
    Rend un tenseur à 0 dimension, en nats : T²·moyenne, sur **toutes** les positions (tous les axes sauf le dernier),
    de D(softmax(teacher / T) ‖ softmax(student / T)). Il se dérive par rapport à student_logits ; aucun gradient ne va
    à teacher_logits.
    Lève ValueError si temperature ≤ 0.

    Source : Hinton, Vinyals et Dean, « Distilling the Knowledge in a Neural Network », 2015, § 2.
    """
    ### BEGIN SOLUTION
    if temperature <= 0:
        raise ValueError(f"une température est strictement positive, pas {temperature}")
    teacher = torch.log_softmax(teacher_logits.detach() / temperature, dim=-1)
    student = torch.log_softmax(student_logits / temperature, dim=-1)
    divergence = (teacher.exp() * (teacher - student)).sum(dim=-1)
    return temperature**2 * divergence.mean()
    ### END SOLUTION


# %% [markdown]
# ### ✎ Exercice : `combined_loss` · 3 points · 25 minutes · approfondissement


# %% exercise="combined_loss"
def combined_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 2.0,
    alpha: float = 0.5,
) -> torch.Tensor:
    """Perte d'un élève qui apprend du texte et de son enseignant à la fois.

    student_logits, teacher_logits : (B, T, V) flottants, un score par mot après chaque jeton lu ;
    labels : (B, T) entiers, les jetons du texte, −100 là où il n'y a rien à prédire (une cible au moins est gardée).
        Les scores du rang t sont ceux du jeton t + 1 : la perte fait le décalage, pour ses deux termes.
    temperature : T > 0, sans unité ; alpha : part du terme doux, entre 0 et 1.
    Rend un tenseur à 0 dimension, en nats : alpha·doux + (1 − alpha)·dur, deux moyennes sur les mêmes positions,
    celles dont la cible labels[:, t + 1] n'est pas −100 ; doux est la perte de distillation (T² compris), dur
    l'entropie croisée, sans température. Aucun gradient ne va à teacher_logits.
    Lève ValueError si temperature ≤ 0.

    Source : Hinton, Vinyals et Dean, 2015, § 2 ; Sanh et al., « DistilBERT », 2019, § 2.
    """
    ### BEGIN SOLUTION
    targets = labels[:, 1:]
    kept = targets != -100
    student, teacher = student_logits[:, :-1], teacher_logits[:, :-1]
    soft = distillation_loss(student[kept], teacher[kept], temperature)
    hard = F.cross_entropy(student[kept], targets[kept])
    return alpha * soft + (1 - alpha) * hard
    ### END SOLUTION


# %% [markdown]
# ### ✎ Exercice : `ensemble_probs` · 1 point · 5 minutes


# %% exercise="ensemble_probs"
def ensemble_probs(logits: torch.Tensor) -> torch.Tensor:
    """Loi d'un ensemble de modèles : la moyenne de leurs probabilités.

    logits : (M, …, V) flottant, les scores de M modèles pour les mêmes positions, éventuellement très grands.
    Rend (…, V), du type de logits : (1/M)·Σ_m softmax(logits[m]), de somme 1 sur le dernier axe, sans nan.

    Source : Hinton, Vinyals et Dean, 2015, § 1 ; Dietterich, « Ensemble Methods in Machine Learning », 2000.
    """
    ### BEGIN SOLUTION
    return torch.softmax(logits, dim=-1).mean(dim=0)
    ### END SOLUTION
