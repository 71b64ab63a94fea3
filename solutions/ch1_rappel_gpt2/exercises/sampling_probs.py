"""Exercice `sampling_probs` du chapitre 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

MARGIN = 0.02
"""Ni deux probabilités voisines, ni une masse près du seuil : un arrondi ne doit rien décider."""


def _clear(probs: torch.Tensor, top_k: int | None, top_p: float | None) -> bool:
    """Vrai si aucune ligne n'hésite, ni sur le k-ième jeton, ni sur celui qui franchit le seuil."""
    ordered = probs.sort(dim=-1, descending=True).values
    if top_k is not None and top_k < ordered.shape[-1]:
        if (ordered[..., top_k - 1] - ordered[..., top_k]).min() < MARGIN / 2:
            return False
        ordered = ordered[..., :top_k] / ordered[..., :top_k].sum(-1, keepdim=True)
    return top_p is None or bool((ordered.cumsum(-1) - top_p).abs().min() > MARGIN)


def _case(d: Draw, shape: tuple[int, ...], temperature: float, top_k: int | None, top_p: float | None) -> Inputs:
    while True:
        logits = 1.2 * d.normal(*shape)
        if _clear(torch.softmax(logits.double() / temperature, -1), top_k, top_p):
            return {"logits": logits, "temperature": temperature, "top_k": top_k, "top_p": top_p}


def draw_probs(d: Draw, group: str) -> Inputs:
    if group == "refus":
        bad = d.turn([0.0, -d.uniform(0.3, 2.0), 0, -1])
        return {"logits": d.normal(2, 5), "temperature": bad}
    cold, hot = round(d.uniform(0.6, 0.85), 2), round(d.uniform(1.2, 1.8), 2)
    if group == "courant":
        both = _case(d, (2, 6), hot, 3, d.choice([0.6, 0.7]))
        return d.turn(
            [
                both,
                _case(d, (2, 4, 6), hot, 2, None),
                _case(d, (3, 5), cold, None, d.choice([0.75, 0.85])),
                _case(d, (3, 7), hot, 4, d.choice([0.7, 0.8])),
            ]
        )
    if group == "bords":
        near = _case(d, (2, 5), 1.0, 8, 0.01)
        one = _case(d, (3, 6), hot, 1, 0.9)
        frozen = {"logits": 60 + d.normal(2, 5), "temperature": 0.5}
        return d.turn([near, frozen, one, _case(d, (2, 6), hot, 9, None)])
    case = _case(d, d.turn([(2, 5), (3, 2, 4), (6,), (2, 2, 5)]), hot, 3, 0.75)
    kind = d.turn(["strided", "double", "half", "transposed"])
    if kind == "strided":
        return case | {"logits": d.strided(case["logits"])}
    if kind == "double":
        return case | {"logits": case["logits"].double()}
    if kind == "half":
        return case | {"logits": case["logits"].half()}
    return case | {"logits": case["logits"].transpose(0, 1).contiguous().transpose(0, 1)}


exercise = Exercise(
    points=2,
    minutes=12,
    stars=2,
    hints=[
        "Commencez sans top_k ni top_p : que fait une température de 0,5 aux écarts entre les logits ?",
        "Pour top-k, il suffit de connaître la k-ième plus grande probabilité. Une fois les autres effacées, que "
        "faut-il refaire avant de passer à top-p ?",
        "Pour top-p, rangez les probabilités de la plus grande à la plus petite. Quelle masse est déjà réunie avant "
        "chacune d'elles ? C'est cette masse-là, et non celle qui la compte, qui dit si on la garde.",
        "Vos probabilités sont rangées ; le vocabulaire, lui, garde son ordre. Que rend `sort` en plus des valeurs, et "
        "quelle opération défait un rangement ?",
    ],
    groups={"courant": 0.55, "bords": 0.2, "formes et types": 0.15, "refus": 0.1},
    draw=draw_probs,
    examples=[
        {"logits": torch.tensor([1.0, 3.0, 0.0, 2.0]), "temperature": 0.5},
        {"logits": torch.tensor([1.0, 3.0, 0.0, 2.0]), "temperature": 1.0, "top_k": None, "top_p": 0.7},
        {"logits": torch.tensor([1.0, 3.0, 0.0, 2.0]), "temperature": 1.0, "top_k": 2, "top_p": 0.7},
    ],
    tolerance=Tolerance(
        rtol=2e-4, atol=1e-6, why="exponentielles et sommes en float32, logits jusqu'à 120 après température"
    ),
)


misconceptions = """\
multiplies   logits / temperature → logits * temperature
    Une température de 2 devrait rapprocher les probabilités ; chez vous, elle les écarte.

after_softmax   torch.softmax(logits / temperature, dim=-1) → torch.softmax(logits, dim=-1) / temperature
    Vos probabilités ne somment plus à 1 : la température agit sur les logits, avant l'exponentielle.

temperature_ignored   logits / temperature → logits
    Changez la température : vos probabilités ne bougent pas.

crossing_dropped   already < top_p → (already + ordered < top_p) | (already == 0)
    Le jeton qui fait franchir le seuil doit rester : sans lui, la masse réunie n'atteint pas top_p.

one_too_many   already < top_p → (already - ordered.roll(1, -1) < top_p)
    Vous gardez un jeton de trop : dès que la masse atteint top_p, on s'arrête.

nothing_left   already < top_p → already + ordered < top_p
    Quand le premier jeton dépasse à lui seul top_p, il ne vous reste rien : il en faut au moins un.

top_p_first
    - if top_k is not None:
    + if top_p is not None:
    +     ordered, order = probs.sort(dim=-1, descending=True)
    +     kept = torch.where(ordered.cumsum(dim=-1) - ordered < top_p, ordered, 0.0)
    +     probs = torch.zeros_like(probs).scatter(-1, order, kept)
    +     probs = probs / probs.sum(dim=-1, keepdim=True)
    +     top_p = None
    + if top_k is not None:
    Vous appliquez top-p avant top-k : la masse à réunir se compte parmi les jetons que top-k a gardés.

not_renormalised
    - probs = torch.zeros_like(probs).scatter(-1, order, kept)
    - probs = probs / probs.sum(dim=-1, keepdim=True)
    + probs = torch.zeros_like(probs).scatter(-1, order, kept)
    Après top-p, vos probabilités ne somment plus à 1 : comment tirerait-on un jeton ?

top_k_not_renormalised
    - probs = torch.where(probs >= smallest, probs, 0.0)
    - probs = probs / probs.sum(dim=-1, keepdim=True)
    + probs = torch.where(probs >= smallest, probs, 0.0)
    Après top-k, vos probabilités ne somment plus à 1 : on efface, puis on remet à l'échelle, avant top-p.

left_sorted   torch.zeros_like(probs).scatter(-1, order, kept) → kept
    Vos probabilités sont restées rangées : la première n'est plus celle du premier jeton du vocabulaire.

gathered_back   torch.zeros_like(probs).scatter(-1, order, kept) → kept.gather(-1, order)
    `order` dit d'où vient chaque valeur rangée, pas où elle doit aller : refaire le rangement ne le défait pas.

keeps_above_p   torch.where(already < top_p, ordered, 0.0)
    → torch.where((ordered >= top_p) | (already == 0), ordered, 0.0)
    Vous gardez les jetons dont la probabilité dépasse top_p : c'est leur somme qui doit l'atteindre.

least_likely_first   descending=True → descending=False
    Vous réunissez la masse en partant des jetons les moins probables.

one_threshold_for_all   smallest = probs.topk(min(top_k, probs.shape[-1]), dim=-1).values[..., -1:]
    → smallest = probs.flatten().topk(min(top_k, probs.numel())).values[-1]
    Vous gardez k jetons pour tout le lot : chaque ligne a ses k jetons.

k_plus_one   probs >= smallest → probs >= probs.topk(min(top_k + 1, probs.shape[-1]), dim=-1).values[..., -1:]
    Comptez les jetons qui restent après top-k : il y en a un de trop.

k_too_large   min(top_k, probs.shape[-1]) → top_k
    Que fait votre fonction quand k dépasse la taille du vocabulaire ? Il n'y a alors rien à effacer.

naive_exp   torch.softmax(logits / temperature, dim=-1)
    → (logits / temperature).exp() / (logits / temperature).exp().sum(dim=-1, keepdim=True)
    L'exponentielle d'un grand logit, divisé par une petite température, ne tient pas dans un float32.

no_check   if temperature <= 0: → if False:
    À la température 0, on divise par zéro ; en dessous, le moins probable devient le plus probable : l'énoncé demande
    de refuser.

zero_allowed   if temperature <= 0: → if temperature < 0:
    À la température 0, on divise par zéro : l'énoncé demande de la refuser aussi.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def probs_library(logits, temperature=1.0, top_k=None, top_p=None):
    """Les traitements de transformers, dans l'ordre de `generate`."""
    if temperature <= 0:
        raise ValueError("température")
    scores = logits.reshape(-1, logits.shape[-1]).float() if logits.dtype != torch.float64 else logits.flatten(0, -2)
    steps: list[Any] = [TemperatureLogitsWarper(float(temperature))]
    steps += [TopKLogitsWarper(top_k)] if top_k is not None else []
    steps += [TopPLogitsWarper(float(top_p))] if top_p is not None else []
    for step in steps:
        scores = step(None, scores)
    return torch.softmax(scores, -1).reshape(logits.shape).to(logits.dtype)


def probs_loops(logits, temperature=1.0, top_k=None, top_p=None):
    if not temperature > 0:
        raise ValueError("température")
    rows = logits.detach().cpu().double().reshape(-1, logits.shape[-1]).tolist()
    out = []
    for row in rows:
        peak = max(row)
        weights = {i: np.exp((z - peak) / temperature) for i, z in enumerate(row)}
        best = sorted(weights, key=weights.__getitem__, reverse=True)
        best = best if top_k is None else best[:top_k]
        mass, total, kept = 0.0, sum(weights[i] for i in best), []
        for i in best:
            kept.append(i)
            mass += weights[i] / total
            if top_p is not None and mass >= top_p:
                break
        whole = sum(weights[i] for i in kept)
        out.append([weights[i] / whole if i in kept else 0.0 for i in range(len(row))])
    return torch.tensor(out, dtype=torch.float64).reshape(logits.shape).to(logits)


def probs_masked_logits(logits, temperature=1.0, top_k=None, top_p=None):
    """Tout se joue sur les logits : ce qui part reçoit moins l'infini, et un seul softmax conclut."""
    if temperature <= 0:
        raise ValueError("température")
    z = logits / temperature
    if top_k is not None and top_k < z.shape[-1]:
        z = z.masked_fill(z < torch.kthvalue(z, z.shape[-1] - top_k + 1, dim=-1, keepdim=True).values, -torch.inf)
    if top_p is not None:
        ordered, order = z.sort(dim=-1, descending=True)
        reached = torch.softmax(ordered, -1).cumsum(-1) >= top_p
        gone = torch.cat([torch.zeros_like(reached[..., :1]), reached[..., :-1]], -1)
        z = z.masked_fill(torch.empty_like(gone).scatter(-1, order, gone), -torch.inf)
    return torch.softmax(z, -1)


def probs_ranks(logits, temperature=1.0, top_k=None, top_p=None):
    """Pour chaque jeton, la masse de ceux qui le précèdent, par comparaison deux à deux."""
    if temperature <= 0:
        raise ValueError("température")
    p = torch.softmax(logits.double() / temperature, -1)
    above = p[..., None, :] > p[..., :, None]
    if top_k is not None:
        p = p * (above.sum(-1) < top_k)
        p = p / p.sum(-1, keepdim=True)
    if top_p is not None:
        p = p * ((above * p[..., None, :]).sum(-1) < top_p)
        p = p / p.sum(-1, keepdim=True)
    return p.to(logits.dtype)


styles = [probs_library, probs_loops, probs_masked_logits, probs_ranks]
