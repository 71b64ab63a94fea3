"""Exercice `perplexity` du chapitre 1."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def _padding(d: Draw, batch: int, length: int, side: str) -> torch.Tensor:
    """Masque (batch, length) : la première phrase est pleine, les autres de plus en plus courtes."""
    mask = torch.zeros(batch, length, dtype=torch.int64)
    for i in range(batch):
        real = max(2, length - i * d.integer(2, 3))
        before = {"droite": 0, "gauche": length - real, "deux": (length - real) // 2}[side]
        mask[i, before : before + real] = 1
    return mask


def draw_perplexity(d: Draw, group: str) -> Inputs:
    batch, length, words = d.turn([(2, 6, 9), (3, 7, 8), (2, 8, 11), (3, 6, 7)])
    logits = 1.5 * d.normal(batch, length, words)
    ids = d.integers(0, words - 1, batch, length)
    if group == "courant":
        return {"logits": logits, "input_ids": ids}
    if group == "remplissage":
        mask = _padding(d, batch, length, d.turn(["droite", "gauche", "deux", "gauche"]))
        return {"logits": logits, "input_ids": ids * mask, "attention_mask": mask}
    kind = d.turn(["très improbable", "très grands", "deux jetons", "float64"])
    if kind == "très improbable":
        target = int(ids[0, 3])
        logits[0, 2, target] = -120.0
    elif kind == "très grands":
        logits = logits + 300.0
    elif kind == "deux jetons":
        return {"logits": logits[:, :2], "input_ids": ids[:, :2], "attention_mask": torch.ones(batch, 2).long()}
    else:
        logits = d.strided(logits.double())
    return {"logits": logits, "input_ids": ids}


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "logits[:, t] parle du jeton t + 1. Combien de positions peut-on donc noter dans une phrase de T jetons ?",
        "Pour chaque position, il faut le logarithme de la probabilité d'un seul mot : celui qui est venu. "
        "Comment le prendre dans le dernier axe ?",
        "Une paire (t, t + 1) compte si ses deux jetons sont vrais. Additionnez toutes les paires du lot, divisez une "
        "fois, puis prenez l'exponentielle.",
        "Essayez votre fonction sur des logits tous nuls : chaque jeton y est également probable. Que doit valoir la "
        "perplexité ?",
    ],
    groups={"courant": 0.4, "remplissage": 0.4, "bords": 0.2},
    draw=draw_perplexity,
    probe="call_float",
    visible=3,
    examples=[
        {"logits": torch.zeros(1, 3, 4), "input_ids": torch.tensor([[0, 1, 2]])},
        {
            "logits": torch.tensor([[[2.0, 0.0, 1.0], [0.0, 1.0, 3.0], [1.0, 0.0, 0.0]]]),
            "input_ids": torch.tensor([[1, 0, 2]]),
        },
    ],
    tolerance=Tolerance(rtol=1e-4, why="une moyenne puis une exponentielle en float32"),
)


misconceptions = """\
no_shift   torch.log_softmax(logits[:, :-1], dim=-1) → torch.log_softmax(logits, dim=-1)
    & input_ids[:, 1:, None] → input_ids[..., None]
    & (real[:, :-1] * real[:, 1:]) → real
    Vous notez le modèle sur le jeton qu'il vient de lire, pas sur celui qu'il doit deviner.

shifted_backwards   logits[:, :-1] → logits[:, 1:]
    & input_ids[:, 1:, None] → input_ids[:, :-1, None]
    Votre décalage va dans l'autre sens : le modèle y devine le jeton d'avant.

mean_of_exp   return torch.exp(surprise[pairs].mean()) → return torch.exp(surprise[pairs]).mean()
    Moyenne des exponentielles ou exponentielle de la moyenne ? Un seul jeton très improbable suffit à les séparer.

base2_exp_e   return torch.exp(surprise[pairs].mean()) → return torch.exp(surprise[pairs].mean() / math.log(2))
    Logarithme et exponentielle doivent parler la même base : votre logarithme est en base 2.

base_e_exp_2   return torch.exp(surprise[pairs].mean()) → return 2 ** surprise[pairs].mean()
    Logarithme et exponentielle doivent parler la même base : votre exponentielle est en base 2.

no_exp   return torch.exp(surprise[pairs].mean()) → return surprise[pairs].mean()
    C'est la perte, en nats. Entre combien de jetons équiprobables le modèle hésite-t-il alors ?

sign   return torch.exp(surprise[pairs].mean()) → return torch.exp(-surprise[pairs].mean())
    Un modèle parfait a une perplexité de 1, et les autres font plus : la vôtre descend sous 1.

sum_not_mean   return torch.exp(surprise[pairs].mean()) → return torch.exp(surprise[pairs].sum())
    Votre perplexité explose avec la longueur du texte : c'est l'inverse de la probabilité de tout le lot.

padding_counted   (real[:, :-1] * real[:, 1:]) → torch.ones_like(real[:, 1:])
    Votre perplexité change quand on allonge le remplissage : ces positions ne sont pas du texte.

divides_by_all   return torch.exp(surprise[pairs].mean())
    → return torch.exp((surprise * pairs).sum() / pairs.numel())
    Les positions de remplissage ne comptent plus dans la somme, mais encore dans le nombre qui la divise.

per_sentence_mean   return torch.exp(surprise[pairs].mean())
    → return torch.exp(torch.stack([s[p].mean() for s, p in zip(surprise, pairs)]).mean())
    Une phrase courte pèse chez vous autant qu'une longue : la moyenne se fait sur les jetons.

mean_of_perplexities   return torch.exp(surprise[pairs].mean())
    → return torch.exp(torch.stack([s[p].mean() for s, p in zip(surprise, pairs)])).mean()
    Vous faites la moyenne des perplexités des phrases : l'énoncé demande une seule moyenne, sur les jetons du lot,
    avant l'exponentielle.

target_mask_only   (real[:, :-1] * real[:, 1:]) → real[:, 1:]
    Avec du remplissage à gauche, vous faites deviner un jeton à partir d'une position vide.

source_mask_only   (real[:, :-1] * real[:, 1:]) → real[:, :-1]
    Avec du remplissage à droite, vous faites deviner la première position vide à partir du dernier jeton.

raw_logits   torch.log_softmax(logits[:, :-1], dim=-1) → logits[:, :-1]
    Vos logits ne sont pas encore des logarithmes de probabilités : ajoutez 5 à tous, rien ne devrait changer.

wrong_axis   torch.log_softmax(logits[:, :-1], dim=-1) → torch.log_softmax(logits[:, :-1], dim=1)
    Sur quel axe vos probabilités somment-elles à 1 : celui des positions, ou celui du vocabulaire ?

log_of_softmax   torch.log_softmax(logits[:, :-1], dim=-1) → torch.log(torch.softmax(logits[:, :-1], dim=-1))
    Une probabilité très petite devient exactement nulle avant que vous en preniez le logarithme.

naive_exp   torch.log_softmax(logits[:, :-1], dim=-1)
    → torch.log(logits[:, :-1].exp() / logits[:, :-1].exp().sum(dim=-1, keepdim=True))
    L'exponentielle d'un logit de 300 ne tient pas dans un float32 : que peut-on retrancher à tous les logits sans
    changer les probabilités ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def perplexity_loops(logits, input_ids, attention_mask=None):
    total, count = 0.0, 0
    for b in range(input_ids.shape[0]):
        for t in range(input_ids.shape[1] - 1):
            if attention_mask is not None and not (attention_mask[b, t] and attention_mask[b, t + 1]):
                continue
            row = logits[b, t].double()
            total += (torch.logsumexp(row, 0) - row[input_ids[b, t + 1]]).item()
            count += 1
    return math.exp(total / count)


def perplexity_cross_entropy(logits, input_ids, attention_mask=None):
    labels = input_ids[:, 1:].clone()
    if attention_mask is not None:
        labels[attention_mask[:, 1:] == 0] = -100
        labels[attention_mask[:, :-1] == 0] = -100
    loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=-100)
    return loss.exp()


def perplexity_weights(logits, input_ids, attention_mask=None):
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    weight = mask[:, 1:] * mask[:, :-1]
    nll = F.nll_loss(
        F.log_softmax(logits[:, :-1].double(), -1).flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none"
    )
    return torch.exp((nll * weight.flatten()).sum() / weight.sum()).item()


def perplexity_base_two(logits, input_ids, attention_mask=None):
    """Logarithme et puissance en base 2 : la même perplexité."""
    log2 = torch.log_softmax(logits, dim=-1) / math.log(2)
    picked = torch.stack([log2[:, t].gather(1, input_ids[:, t + 1, None])[:, 0] for t in range(logits.shape[1] - 1)], 1)
    keep = torch.ones_like(picked, dtype=torch.bool)
    if attention_mask is not None:
        keep = (attention_mask[:, 1:] + attention_mask[:, :-1]) == 2
    return 2 ** -picked[keep].mean()


styles = [perplexity_loops, perplexity_cross_entropy, perplexity_weights, perplexity_base_two]
