"""Exercice `causal_attention` du chapitre 1."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def draw_attention(d: Draw, group: str) -> Inputs:
    batch, heads, length, width = d.turn([(1, 2, 5, 3), (2, 3, 6, 4), (1, 4, 7, 5), (2, 2, 5, 6)])
    shape = (batch, heads, length, width)
    if group == "bords":
        kind = d.turn(["permis très bas", "très grands", "un jeton", "permis très bas"])
        if kind == "un jeton":
            return {name: d.normal(batch, heads, 1, width) for name in "qkv"}
        level = torch.full((length,), -150.0 if kind == "permis très bas" else 150.0)
        if kind == "permis très bas":
            level[-1] = 0.0
        axis = torch.nn.functional.normalize(d.normal(width), dim=0)
        q = math.sqrt(width) * axis.expand(shape).clone()
        k = axis * (level + d.normal(batch, heads, length))[..., None]
        return {"q": q, "k": k, "v": d.normal(*shape)}
    q, k, v = (1.5 * d.normal(*shape), 1.5 * d.normal(*shape), d.normal(*shape))
    if group == "courant":
        return {"q": q, "k": k, "v": v}
    kind = d.turn(["demi", "transposé", "float64"])
    if kind == "demi":  # des valeurs positives : une moyenne ne s'y annule pas
        return {"q": q.half(), "k": k.half(), "v": (v.abs() + 0.5).half()}
    if kind == "transposé":
        return {name: t.transpose(1, 2).contiguous().transpose(1, 2) for name, t in zip("qkv", (q, k, v), strict=True)}
    return {name: d.strided(t.double()) for name, t in zip("qkv", (q, k, v), strict=True)}


exercise = Exercise(
    points=3,
    minutes=20,
    stars=2,
    hints=[
        "Un produit de matrices donne d'un coup les T × T scores d'une tête. Quels axes faut-il échanger dans k ?",
        "La somme de D produits de nombres de variance 1 a pour variance D : par quoi la diviser pour revenir à 1 ?",
        "Le futur doit être exclu avant le softmax, pour que les poids restants somment à 1. Quelle valeur de score "
        "donne une exponentielle exactement nulle ?",
        "Trois lignes : les scores, les poids, la moyenne. Sur laquelle agit le masque, et quelle est sa forme ?",
    ],
    groups={"courant": 0.5, "bords": 0.3, "formes et types": 0.2},
    draw=draw_attention,
    visible=3,
    examples=[
        {
            "q": torch.tensor([[[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]]]),
            "k": torch.tensor([[[[2.0, 0.0], [0.0, 1.0], [1.0, -1.0]]]]),
            "v": torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]]]),
        }
    ],
    tolerance=Tolerance(rtol=2e-4, atol=5e-5, why="produits et softmax en float32, scores jusqu'à 150"),
)


misconceptions = """\
divides_by_d   math.sqrt(width) → width
    Vos scores sont trop écrasés : quelle est la variance d'un produit scalaire de D termes, et que faut-il en
    prendre ?

no_scaling   / math.sqrt(width) → ∅
    Avec de grands D vos poids deviennent presque tout ou rien : il manque ce qui garde l'échelle des scores
    constante.

multiplied   / math.sqrt(width) → * math.sqrt(width)
    Plus D est grand, plus un produit scalaire l'est aussi : votre facteur aggrave cet écart.

scale_by_length   math.sqrt(width) → math.sqrt(length)
    Votre facteur change avec la longueur du texte : le produit scalaire porte-t-il sur les jetons ou sur les
    composantes ?

scale_after_softmax   q @ k.transpose(-2, -1) / math.sqrt(width) → q @ k.transpose(-2, -1)
    & torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
    → torch.softmax(scores.masked_fill(future, -math.inf), dim=-1) / math.sqrt(width)
    Vos poids ne somment plus à 1 : est-ce le score ou le poids qu'il fallait ramener à l'échelle ?

diagonal_masked   triu(diagonal=1) → triu(diagonal=0)
    Le premier jeton n'a plus rien à regarder : un jeton a-t-il le droit de se voir lui-même ?

future_by_one   triu(diagonal=1) → triu(diagonal=2)
    Changer le jeton t + 1 change votre sortie t : votre masque laisse passer un pas de futur.

no_mask   torch.softmax(scores.masked_fill(future, -math.inf), dim=-1) → torch.softmax(scores, dim=-1)
    Chaque jeton lit chez vous tout le texte : comment pourrait-il deviner le suivant, puisqu'il le voit ?

mask_inverted   triu(diagonal=1) → tril(diagonal=-1)
    Vous cachez le passé et montrez le futur : de quel côté de la diagonale sont les jetons déjà lus ?

mask_after_softmax   torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
    → torch.softmax(scores, dim=-1).masked_fill(future, 0.0)
    Vos poids ne somment plus à 1 sur les premières lignes : à quel moment le futur doit-il être exclu ?

softmax_axis   -math.inf), dim=-1) → -math.inf), dim=-2)
    Vérifiez sur quel axe vos poids somment à 1 : celui des requêtes ou celui des clés ?

softmax_heads   -math.inf), dim=-1) → -math.inf), dim=1)
    Vos poids somment à 1 sur les têtes : chaque tête doit répartir, à elle seule, toute son attention.

mask_zero   masked_fill(future, -math.inf) → masked_fill(future, 0.0)
    Un score nul n'est pas un score interdit : combien vaut son exponentielle ?

mask_too_small   masked_fill(future, -math.inf) → masked_fill(future, -10.0)
    Un score de −10 paraît petit ; l'est-il encore quand les scores permis valent −150 ?

edge_max_over_future
    - weights = torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
    + scores = (scores - scores.amax(dim=-1, keepdim=True)).exp().masked_fill(future, 0.0)
    + weights = scores / scores.sum(dim=-1, keepdim=True)
    Pour de grands scores vous obtenez nan : le maximum que vous retranchez vient d'un jeton qui n'a pas le droit de
    compter.

naive_exp
    - weights = torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
    + scores = scores.exp().masked_fill(future, 0.0)
    + weights = scores / scores.sum(dim=-1, keepdim=True)
    L'exponentielle d'un score de 150 ne tient pas dans un float32 : que peut-on retrancher à tous les scores d'une
    ligne sans changer leurs poids ?

q_k_swapped   q @ k.transpose(-2, -1) → k @ q.transpose(-2, -1)
    Une ligne de scores doit appartenir à une requête : chez vous, elle appartient à une clé.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def attention_library(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def attention_loops(q, k, v):
    out = torch.empty_like(v)
    for t in range(q.shape[2]):
        past = slice(0, t + 1)
        scores = (q[:, :, t : t + 1] * k[:, :, past]).sum(-1) * q.shape[-1] ** -0.5
        weights = F.softmax(scores, dim=-1)
        out[:, :, t] = (weights[..., None] * v[:, :, past]).sum(2)
    return out


def attention_additive(q, k, v):
    wide = [t.to(torch.float64) for t in (q, k, v)]
    mask = torch.full((q.shape[-2],) * 2, float("-inf"), dtype=torch.float64, device=q.device).triu(1)
    scores = torch.einsum("bhtd,bhsd->bhts", wide[0], wide[1]) / wide[0].shape[-1] ** 0.5 + mask
    return torch.einsum("bhts,bhsd->bhtd", scores.softmax(-1), wide[2]).to(q.dtype)


def attention_by_hand(q, k, v):
    """Softmax écrit à la main, sur les seuls scores permis ; q est ramené à l'échelle avant le produit."""
    length = q.shape[-2]
    places = torch.arange(length, device=q.device)
    allowed = places[:, None] >= places
    scores = torch.where(allowed, (q.float() / math.sqrt(q.shape[-1])) @ k.float().mT, torch.tensor(-1e9))
    exp = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
    exp = exp * allowed
    return (
        (exp @ v.float() / exp.sum(-1, keepdim=True)).to(q.dtype)
        if q.dtype != torch.float64
        else (attention_additive(q, k, v))
    )


def attention_numpy(q, k, v):
    a, b, c = (t.double().numpy() for t in (q, k, v))
    scores = a @ np.swapaxes(b, -1, -2) / np.sqrt(a.shape[-1])
    scores[..., ~np.tri(a.shape[-2], dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return torch.tensor(weights @ c).to(q.dtype)


styles = [attention_library, attention_loops, attention_additive, attention_by_hand, attention_numpy]
