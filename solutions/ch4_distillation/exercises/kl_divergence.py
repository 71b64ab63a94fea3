"""Exercice `kl_divergence` du chapitre 4."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def _law(d: Draw, *shape: int, sharp: float = 1.5) -> Tensor:
    """Des lois strictement positives, bien distinctes les unes des autres."""
    return torch.softmax(sharp * d.normal(*shape, dtype=torch.float64), dim=-1).float()


def _with_zero(law: Tensor, *columns: int) -> Tensor:
    """Les mêmes lois, des événements devenus impossibles."""
    law = law.clone()
    law[..., list(columns)] = 0.0
    return law / law.sum(-1, keepdim=True)


def draw_kl(d: Draw, group: str) -> Inputs:
    shape = d.turn([(2, 4), (2, 3, 5), (3, 6), (4,)])
    p, q = _law(d, *shape), _law(d, *shape)
    if group == "courant":
        return {"p": p, "q": q}
    if group == "zéros":
        p, q = _law(d, 3, 5), _law(d, 3, 5)
        return d.turn(
            [
                {"p": _with_zero(p, 1), "q": q},
                {"p": p, "q": torch.cat([q[:1], _with_zero(q[1:], 2)])},
                {"p": _with_zero(p, 0, 3), "q": _with_zero(q, 0)},
                {"p": torch.eye(5)[[d.integer(0, 1), 2, 3]], "q": torch.cat([q[:2], torch.eye(5)[4:]])},
            ]
        )
    wide = torch.softmax(1.5 * d.normal(4, 3, dtype=torch.float64), dim=-1)
    return d.turn(
        [
            {"p": d.strided(p), "q": d.strided(q)},
            {"p": wide, "q": torch.softmax(d.normal(4, 3, dtype=torch.float64), dim=-1)},
            {"p": p, "q": p.clone()},
            {"p": _law(d, 5, 3).T.contiguous().T, "q": _law(d, 5, 3)},
        ]
    )


exercise = Exercise(
    points=2,
    minutes=12,
    stars=2,
    hints=[
        "La formule est une moyenne : de quelle quantité, et avec quels poids ?",
        "Chaque terme vaut P(x)·(ln P(x) − ln Q(x)). Que doit-il valoir quand P(x) = 0 ? Et que vaut-il, calculé tel "
        "quel ?",
        "torch.xlogy(a, b) vaut a·ln b, et 0 dès que a vaut 0. Combien de fois vous le faut-il ? L'infini, lui, vient "
        "tout seul.",
    ],
    groups={"courant": 0.5, "zéros": 0.35, "formes et types": 0.15},
    draw=draw_kl,
    visible=4,
    examples=[
        {"p": torch.tensor([0.5, 0.25, 0.25]), "q": torch.tensor([0.25, 0.5, 0.25])},
        {"p": torch.tensor([[1.0, 0.0], [0.5, 0.5]]), "q": torch.tensor([[0.5, 0.5], [0.125, 0.875]])},
    ],
    tolerance=Tolerance(rtol=2e-4, atol=2e-6, why="logarithmes et sommes en float32, des termes se compensent"),
)


misconceptions = """\
exchanged   terms = torch.xlogy(p, p) - torch.xlogy(p, q)
    → terms = torch.xlogy(q, q) - torch.xlogy(q, p)
    La divergence n'est pas symétrique : laquelle des deux lois pondère la somme ?

log_exchanged   torch.xlogy(p, p) - torch.xlogy(p, q) → torch.xlogy(p, q) - torch.xlogy(p, p)
    Vos divergences sont négatives : regardez quelle loi est au numérateur du rapport.

nan_on_zeros   torch.xlogy(p, p) - torch.xlogy(p, q) → p * (torch.log(p) - torch.log(q))
    Un événement impossible pour P ne doit rien coûter.

epsilon_hides_inf   torch.xlogy(p, p) - torch.xlogy(p, q) → p * (torch.log(p + 1e-9) - torch.log(q + 1e-9))
    Votre petite constante cache un vrai infini.

inf_ignored   torch.xlogy(p, p) - torch.xlogy(p, q)
    → torch.where((p > 0) & (q > 0), p * (torch.log(p) - torch.log(q)), torch.zeros_like(p))
    Vous sautez les événements que Q croit impossibles : ce sont pourtant eux qui coûtent le plus.

base2   torch.xlogy(p, p) - torch.xlogy(p, q)
    → torch.where(p > 0, p * (torch.log2(p) - torch.log2(q)), torch.zeros_like(p))
    Le résultat est juste en bits ; le cours compte en nats.

absolute   torch.xlogy(p, p) - torch.xlogy(p, q) → (torch.xlogy(p, p) - torch.xlogy(p, q)).abs()
    Des termes ont le droit d'être négatifs ; c'est la somme qui ne l'est jamais.

clamped_terms   torch.xlogy(p, p) - torch.xlogy(p, q) → (torch.xlogy(p, p) - torch.xlogy(p, q)).clamp(min=0)
    Vous effacez les termes négatifs : seule la somme est assurée de ne pas l'être.

mean_over_classes   terms.sum(dim=-1) → terms.mean(dim=-1)
    Vous divisez par le nombre de classes : la définition est une espérance sous P.

cross_entropy   torch.xlogy(p, p) - torch.xlogy(p, q) → -torch.xlogy(p, q)
    C'est l'entropie croisée : une loi comparée à elle-même devrait donner zéro.

unweighted   torch.xlogy(p, p) - torch.xlogy(p, q)
    → torch.where(p > 0, torch.log(p) - torch.log(q), torch.zeros_like(p))
    Un événement rare pour P compte chez vous autant qu'un événement fréquent.

symmetrised   torch.xlogy(p, p) - torch.xlogy(p, q)
    → torch.where(p > 0, (p - q) * (torch.log(p) - torch.log(q)) / 2, torch.zeros_like(p))
    Vous avez rendu la divergence symétrique : la formule, elle, ne moyenne que sous P.

all_rows   terms.sum(dim=-1) → terms.sum()
    Vous additionnez toutes les lignes : on attend une divergence par loi.

mean_of_rows   terms.sum(dim=-1) → terms.sum(dim=-1).mean()
    Vous faites la moyenne des lignes : on attend une divergence par loi.

first_axis   terms.sum(dim=-1) → terms.sum(dim=0)
    Une loi occupe le dernier axe ; vous sommez le long du premier.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def kl_xlogy(p, q):
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1)


def kl_where(p, q):
    terms = torch.where(p > 0, p * (torch.log(p) - torch.log(q)), torch.zeros_like(p))
    return terms.sum(dim=-1)


def kl_loops(p, q):
    out = []
    for a, b in zip(p.reshape(-1, p.shape[-1]).tolist(), q.reshape(-1, q.shape[-1]).tolist(), strict=True):
        total = 0.0
        for x, y in zip(a, b, strict=True):
            if x > 0:
                total += x * math.log(x / y) if y > 0 else math.inf
        out.append(total)
    return torch.tensor(out, dtype=p.dtype).reshape(p.shape[:-1])


def kl_masked_ratio(p, q):
    terms = p * torch.log(p / q)
    terms[p == 0] = 0
    return torch.sum(terms, -1)


def kl_entropies(p, q):
    """Entropie croisée moins entropie, en float64."""
    a, b = p.double(), q.double()
    cross = torch.where(a > 0, -a * b.log(), 0.0).sum(-1)
    return (cross + torch.xlogy(a, a).sum(-1)).to(p.dtype)


def kl_library(p, q):
    terms = F.kl_div(q.log(), p, reduction="none")
    return torch.where(p == 0, torch.zeros_like(terms), terms).sum(dim=-1)


def kl_numpy(p, q):
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = p.double().numpy(), q.double().numpy()
        terms = np.where(a > 0, a * np.log(a / b), 0.0)
    return torch.as_tensor(terms.sum(-1)).to(p.dtype)


def kl_nan_to_num(p, q):
    """Seuls les 0·(−inf) deviennent des zéros ; l'infini reste."""
    terms = torch.nan_to_num(p * (p.log() - q.log()), nan=0.0, posinf=math.inf)
    return terms.sum(-1)


styles = [kl_xlogy, kl_where, kl_loops, kl_masked_ratio, kl_entropies, kl_library, kl_numpy, kl_nan_to_num]
