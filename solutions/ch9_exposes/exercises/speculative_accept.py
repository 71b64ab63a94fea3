"""Exercice `speculative_accept` du chapitre 9."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

MARGIN = 0.05
"""Écart minimal entre u et le rapport auquel on le compare : un arrondi, même en demi-précision, ne décide de rien."""


def _laws(d: Draw, rows: int, v: int) -> Tensor:
    return torch.softmax(1.2 * d.normal(rows, v), -1)


def _case(d: Draw, k: int, v: int, kept: int, gap: float = 0.01) -> Inputs:
    """Des lois et des tirages dont exactement `kept` jetons sont gardés ; après le refus, les autres passeraient.

    gap : l'écart minimal des deux lois, là où l'on corrige.
    """
    while True:
        target, draft = _laws(d, k + 1, v), _laws(d, k, v)
        tokens = torch.tensor([d.integer(0, v - 1) for _ in range(k)])
        ratios = [(target[i, t] / draft[i, t]).item() for i, t in enumerate(tokens.tolist())]
        u = []
        for i, ratio in enumerate(ratios):
            wanted = i != kept
            low, high = (0.0, min(ratio - MARGIN, 0.98)) if wanted else (ratio + MARGIN, 0.98)
            if low >= high:
                break
            u.append(d.uniform(low, high))
        apart = kept == k or (target[kept] - draft[kept]).abs().min() > gap
        if len(u) == k and apart and _telling(ratios, kept):
            return {"p_target": target, "p_draft": draft, "draft_tokens": tokens, "u": torch.tensor(u)}


def _telling(ratios: list[float], kept: int) -> bool:
    """Vrai si les premiers rapports sont, pour l'un au moins, sous 1 parmi ceux que l'on garde."""
    return kept == 0 or min(ratios[:kept]) < 0.9


def draw_accept(d: Draw, group: str) -> Inputs:
    k, v = d.turn([(4, 5), (3, 6), (5, 4), (4, 7)])
    if group == "faute en route":
        return _case(d, k, v, d.turn([1, 2, 3, 0]) % k)
    if group == "tous gardés":
        return _case(d, k, v, k)
    if group == "bords":
        case = _case(d, k, v, 2) if d.index % 2 else _case(d, 1, v, d.turn([0, 0, 1]))
        if d.index % 2:  # un jeton que la cible n'écrirait jamais, et un tirage nul
            target, tokens = case["p_target"], case["draft_tokens"]
            target[1, tokens[1]] = 0
            target[1] /= target[1].sum()
            case["u"][1] = 0.0
        return case
    case = _case(d, k, 4, d.turn([2, 1, 1, k]), gap=0.05)
    laws = ("p_target", "p_draft", "u")
    return d.turn(
        [
            case | {name: case[name].double() for name in laws},
            case | {name: d.strided(case[name]) for name in (*laws, "draft_tokens")},
            case | {name: case[name].half() for name in laws},
            case | {"draft_tokens": case["draft_tokens"].int()},
        ]
    )


_TARGET = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]])
_DRAFT = torch.tensor([[0.25, 0.5, 0.25], [0.4, 0.4, 0.2]])

exercise = Exercise(
    points=2,
    minutes=15,
    stars=3,
    hints=[
        "Pour chaque jeton proposé, il ne faut que deux nombres : ce que la cible en pensait, ce que le brouillon en "
        "pensait. Comment les prendre tous d'un coup dans les deux tableaux ?",
        "Un seul refus compte, le premier : tout ce qui suit a été écrit après un jeton qui n'existe plus.",
        "Après un refus, le brouillon a déjà donné à chaque jeton sa part. Que lui doit-on encore pour arriver à la "
        "loi de la cible ? Une dette ne peut pas être négative.",
        "Rien n'a été refusé ? La cible a lu les K jetons : elle a aussi calculé la loi du suivant.",
    ],
    groups={"faute en route": 0.5, "tous gardés": 0.2, "bords": 0.15, "types et mémoire": 0.15},
    draw=draw_accept,
    examples=[
        {"p_target": _TARGET, "p_draft": _DRAFT, "draft_tokens": torch.tensor([1, 2]), "u": torch.tensor([0.5, 0.9])},
        {"p_target": _TARGET, "p_draft": _DRAFT, "draft_tokens": torch.tensor([1, 2]), "u": torch.tensor([0.7, 0.9])},
        {"p_target": _TARGET, "p_draft": _DRAFT, "draft_tokens": torch.tensor([0, 0]), "u": torch.tensor([0.9, 0.5])},
    ],
    tolerance=Tolerance(rtol=1e-4, atol=1e-5, why="une soustraction et une division en float32"),
)


misconceptions = """\
inverted   ratios = (of_target / of_draft)[:, 0] → ratios = (of_draft / of_target)[:, 0]
    Vous gardez le plus volontiers les jetons que la cible aime le moins : lequel des deux modèles est au dénominateur ?

goes_on   n = int(refused[0]) → n = int((u < ratios).sum())
    Vous comptez des jetons venus après un refus : de quel texte sont-ils la suite ?

draft_law   left = (p_target[n] - p_draft[n]).clamp(min=0) → left = p_draft[n]
    Après un refus, vous retirez dans la loi du brouillon : c'est celle de la cible qu'il faut rejoindre.

target_law   left = (p_target[n] - p_draft[n]).clamp(min=0) → left = p_target[n]
    Après un refus, vous retirez dans la loi de la cible : les jetons que le brouillon propose souvent ont déjà eu leur
    part, et la reçoivent deux fois.

not_renormalised   left / left.sum() → left
    Votre loi ne somme pas à 1 : comment y tirer un jeton ?

no_clamp *   .clamp(min=0) →  * 1.0
    Une probabilité ne peut pas être négative : que doit-on à un jeton qui a déjà trop reçu ?

absolute   .clamp(min=0) → .abs()
    Un jeton que le brouillon propose trop souvent n'a plus rien à recevoir : pourquoi lui en rendre autant ?

bonus_forgotten   p_target[-1] → p_target[-2]
    Tout est gardé, et vous rendez la loi d'une place déjà écrite : la cible en sait une de plus.

bonus_is_residual   return len(draft_tokens), p_target[-1]
    → last = (p_target[-2] - p_draft[-1]).clamp(min=0); return len(draft_tokens), last / last.sum()
    Tout est gardé : il n'y a rien à corriger, et la loi du jeton suivant est déjà dans p_target.

no_chance   refused = (u >= ratios).nonzero() → refused = (ratios < 1).nonzero()
    Vous ne vous servez pas de u : un jeton que la cible aime un peu moins n'est pas toujours refusé.

counts_the_refused   return n, left → return n + 1, left
    Le jeton refusé ne fait pas partie de ceux que l'on garde.

next_row   left = (p_target[n] - p_draft[n]).clamp(min=0)
    → left = (p_target[n + 1] - p_draft[min(n + 1, len(p_draft) - 1)]).clamp(min=0)
    La loi que vous corrigez est celle d'une place plus loin : le jeton à remplacer est celui qu'on vient de refuser.

kept_at_zero   refused = (u >= ratios).nonzero() → refused = (u > ratios).nonzero()
    Un jeton que la cible n'écrit jamais est passé, parce que le tirage valait 0 : relisez l'inégalité.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def accept_loop(p_target, p_draft, draft_tokens, u):
    n = 0
    while n < len(u):
        token = int(draft_tokens[n])
        if not float(u[n]) < float(p_target[n, token]) / float(p_draft[n, token]):
            break
        n += 1
    if n == len(u):
        return n, p_target[n].clone()
    rest = torch.relu(p_target[n] - p_draft[n])
    return n, rest / rest.sum()


def accept_products(p_target, p_draft, draft_tokens, u):
    """Sans division, et sans boucle : le produit cumulé des « oui » s'annule au premier « non »."""
    k = len(draft_tokens)
    rows = torch.arange(k, device=p_draft.device)
    ids = draft_tokens.long()
    yes = u * p_draft[rows, ids] < p_target[rows, ids]
    n = yes.int().cumprod(0).sum().item()
    owed = torch.cat([p_draft, torch.zeros_like(p_draft[:1])])
    rest = (p_target[n] - owed[n]).clamp_min(0.0)
    return n, rest / rest.sum()


def accept_numpy(p_target, p_draft, draft_tokens, u):
    target, draft = p_target.double().cpu().numpy(), p_draft.double().cpu().numpy()
    n = len(draft)
    for i, (token, chance) in enumerate(zip(draft_tokens.tolist(), u.double().tolist(), strict=True)):
        if chance >= target[i, token] / draft[i, token]:
            n = i
            break
    law = target[n] if n == len(draft) else np.maximum(target[n] - draft[n], 0)
    return n, torch.from_numpy(law / law.sum()).to(p_target)


def accept_minimum(p_target, p_draft, draft_tokens, u):
    """Ce qui reste de la cible une fois ôtée la part commune aux deux lois."""
    tokens = draft_tokens.to(torch.int64).unsqueeze(1)
    odds = p_target[: len(tokens)].gather(1, tokens).div(p_draft.gather(1, tokens)).squeeze(1)
    n = next((i for i, (a, b) in enumerate(zip(u.tolist(), odds.tolist(), strict=True)) if a >= b), len(tokens))
    if n == len(tokens):
        return n, p_target[n]
    common = torch.minimum(p_target[n], p_draft[n])
    rest = p_target[n] - common
    return n, rest / rest.sum()


styles = [accept_loop, accept_products, accept_numpy, accept_minimum]
