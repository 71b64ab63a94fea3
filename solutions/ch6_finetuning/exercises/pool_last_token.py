"""Exercice `pool_last_token` du chapitre 6."""

from __future__ import annotations

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import padding_mask, padding_sides


def _lengths(d: Draw, rows: int, longest: int) -> list[int]:
    """Longueurs de phrases : une pleine, une d'au moins trois jetons de moins, les autres au hasard ; mélangées."""
    lengths = [longest, d.integer(2, longest - 3), *(d.integer(2, longest - 1) for _ in range(rows - 2))]
    d.random.shuffle(lengths)
    return lengths


def _mixed_lengths(d: Draw, rows: int, longest: int) -> list[int]:
    """Toutes les phrases sont plus courtes que le lot : chacune montre de quel côté est son remplissage."""
    return [d.integer(2, longest - 2) for _ in range(rows)]


def draw_pool(d: Draw, group: str) -> Inputs:
    rows, longest, width = d.integer(3, 5), d.integer(6, 8), d.integer(3, 5)
    kind = d.turn(["droite", "gauche", "mêlé", "droite"]) if group == "courant" else d.turn(["gauche", "droite"])
    lengths = _mixed_lengths(d, rows, longest) if kind == "mêlé" else _lengths(d, rows, longest)
    mask = padding_mask(lengths, longest, padding_sides(d, rows, kind))
    hidden = d.normal(rows, longest, width)
    if group == "refus":
        mask[d.turn([0, rows - 1, 1, 0])] = 0
        if d.index == 3:
            hidden, mask = hidden[:1], mask[:1]
    if group == "formes et types":
        return d.turn(
            [
                {"hidden": d.strided(hidden), "attention_mask": d.strided(mask)},
                {"hidden": hidden.double(), "attention_mask": mask},
                {"hidden": hidden[:, :1].half(), "attention_mask": torch.ones_like(mask[:, :1])},
                {"hidden": hidden.transpose(0, 1).contiguous().transpose(0, 1), "attention_mask": mask},
            ]
        )
    return {"hidden": hidden, "attention_mask": mask}


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Écrivez sur papier le masque d'une phrase courte, remplie à droite, puis à gauche. Où est son dernier 1 ?",
        "Le nombre de 1 d'une ligne dit combien elle a de jetons. Il ne dit pas où ils sont.",
        "Donnez à chaque colonne son rang, effacez les rangs du remplissage, et gardez le plus grand de la ligne.",
        "Il reste à choisir, dans chaque ligne, une seule colonne : deux listes d'indices, les lignes et les colonnes.",
    ],
    groups={"courant": 0.7, "formes et types": 0.2, "refus": 0.1},
    draw=draw_pool,
    visible=3,
    examples=[
        {
            "hidden": torch.arange(16.0).reshape(2, 4, 2),
            "attention_mask": torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]]),
        }
    ],
)


misconceptions = """\
minus_one   hidden[torch.arange(len(hidden), device=hidden.device), last] → hidden[:, -1]
    La dernière colonne peut être du remplissage : qu'y a-t-il au bout d'une phrase courte ?

mask_sum   torch.where(real, positions, -1).amax(dim=1) → real.sum(dim=1) - 1
    Compter les jetons donne leur nombre, pas la place du dernier : regardez un remplissage à gauche.

first_padding   torch.where(real, positions, -1).amax(dim=1) → ((~real).int().argmax(dim=1) - 1).clamp(min=0)
    Vous cherchez où commence le remplissage : et quand une ligne n'en a pas, ou quand il est devant ?

one_side_for_all   torch.where(real, positions, -1).amax(dim=1)
    → torch.where(real[:, -1].all(), positions[-1], real.sum(dim=1) - 1)
    Vous décidez du côté pour tout le lot : chaque ligne a le sien.

first_token   torch.where(real, positions, -1).amax(dim=1) → real.int().argmax(dim=1)
    Vous rendez le premier vrai jeton : lequel a pu lire tous les autres ?

one_before   torch.where(real, positions, -1).amax(dim=1)
    → (torch.where(real, positions, -1).amax(dim=1) - 1).clamp(min=0)
    Vous rendez l'avant-dernier jeton : il n'a pas lu le dernier.

mean   hidden[torch.arange(len(hidden), device=hidden.device), last]
    → ((hidden * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)).to(hidden.dtype)
    On demande l'état d'un jeton, pas la moyenne de tous.

mean_all   hidden[torch.arange(len(hidden), device=hidden.device), last] → hidden.mean(dim=1)
    Vous faites une moyenne, et le remplissage y compte : on demande l'état d'un seul jeton.

keeps_axis   hidden[torch.arange(len(hidden), device=hidden.device), last]
    → hidden[torch.arange(len(hidden), device=hidden.device), last][:, None]
    Il reste chez vous un axe de taille 1 : une phrase donne un vecteur, pas une liste d'un vecteur.

no_check   if not real.any(dim=1).all(): → if False:
    Une ligne sans aucun vrai jeton n'a pas de dernier jeton : votre fonction en invente un.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def pool_loops(hidden, attention_mask):
    out = []
    for row, mask in zip(hidden, attention_mask, strict=True):
        real = [t for t in range(len(mask)) if mask[t] == 1]
        if not real:
            raise ValueError("ligne vide")
        out.append(row[real[-1]])
    return torch.stack(out)


def pool_gather(hidden, attention_mask):
    if (attention_mask.sum(1) == 0).any():
        raise ValueError("ligne vide")
    last = (attention_mask * torch.arange(attention_mask.size(1), device=hidden.device)).argmax(1)
    return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.size(2))).squeeze(1)


def pool_flip(hidden, attention_mask):
    if torch.any(attention_mask.sum(dim=-1) < 1):
        raise ValueError("ligne vide")
    back = attention_mask.flip(1).argmax(1)
    return hidden[range(hidden.shape[0]), hidden.shape[1] - 1 - back]


def pool_start_and_length(hidden, attention_mask):
    """Début de la phrase plus sa longueur : vaut pour les deux côtés."""
    length = attention_mask.sum(1)
    if length.min() == 0:
        raise ValueError("ligne vide")
    last = attention_mask.int().argmax(1) + length - 1
    return torch.cat([hidden[b : b + 1, t] for b, t in enumerate(last.tolist())])


def pool_argmin(hidden, attention_mask):
    """Une ancienne façon : juste avant le premier 0 ; l'indice −1 sauve les lignes pleines ou à gauche."""
    if not attention_mask.any(1).all():
        raise ValueError("ligne vide")
    return hidden[torch.arange(hidden.shape[0]), attention_mask.argmin(1) - 1]


def pool_numpy(hidden, attention_mask):
    mask = attention_mask.numpy()
    if (mask.max(axis=1) == 0).any():
        raise ValueError("ligne vide")
    last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
    return torch.from_numpy(hidden.numpy()[np.arange(len(mask)), last])


styles = [pool_loops, pool_gather, pool_flip, pool_start_and_length, pool_argmin, pool_numpy]
