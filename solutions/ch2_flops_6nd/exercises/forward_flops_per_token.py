"""Exercice `forward_flops_per_token` du chapitre 2."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from .matmul_flops import matmul_one_line


def draw_forward(d: Draw, group: str) -> Inputs:
    inputs = {
        "n_layer": d.integer(2, 12),
        "d_model": 16 * d.integer(2, 40),
        "n_ctx": d.integer(33, 999),
        "n_vocab": d.integer(1001, 9999),
    }
    if group == "bords":
        return inputs | d.turn([{"n_layer": 0}, {"n_ctx": 1}, {"d_model": 1}, {"n_vocab": 1, "n_layer": 1}])
    if d.index % 2:
        return inputs
    n_layer, d_model = d.choice([(12, 768), (24, 1024), (36, 1280), (48, 1600)])
    return {"n_layer": n_layer, "d_model": d_model, "n_ctx": d.choice([512, 768, 2048]), "n_vocab": 50257}


exercise = Exercise(
    points=3,
    minutes=20,
    stars=2,
    hints=[
        "Suivez un jeton dans un bloc : par quelles matrices passe-t-il, et de quelles dimensions ?",
        "Quatre couches linéaires par bloc : d → 3d, d → d, d → 4d, 4d → d. Et l'attention fait deux produits de plus, "
        "sans aucun paramètre : lesquels ?",
        "Pour un jeton, comparer sa requête à n_ctx clés, puis mélanger n_ctx valeurs, coûte deux fois 2·n_ctx·d.",
        "Vérifiez morceau par morceau : sans bloc, il reste la tête ; en doublant n_ctx, seule l'attention bouge.",
    ],
    groups={"courant": 0.75, "bords": 0.25},
    draw=draw_forward,
    visible=4,
    probe="call_float",
    tolerance=Tolerance(rtol=1e-6, why="une somme de produits, peut-être en float32"),
    examples=[
        {"n_layer": 1, "d_model": 2, "n_ctx": 3, "n_vocab": 5},
        {"n_layer": 12, "d_model": 768, "n_ctx": 1024, "n_vocab": 50257},
    ],
)


misconceptions = """\
no_attention   scores = 2 * n_ctx * d_model → scores = 0
    & mixing = 2 * n_ctx * d_model → mixing = 0
    Doublez la longueur du contexte : votre coût par jeton ne bouge pas. Qui grandit avec le contexte ?

only_qk   mixing = 2 * n_ctx * d_model → mixing = 0
    Un seul des deux produits de l'attention est compté : à quoi servent les scores, une fois calculés ?

causal_half   scores = 2 * n_ctx * d_model → scores = (n_ctx + 1) * d_model
    & mixing = 2 * n_ctx * d_model → mixing = (n_ctx + 1) * d_model
    Vous ne comptez que les paires permises ; un calcul dense fait aussi la moitié qui sera masquée.

attention_not_shared   scores = 2 * n_ctx * d_model → scores = 2 * n_ctx * n_ctx * d_model
    & mixing = 2 * n_ctx * d_model → mixing = 2 * n_ctx * n_ctx * d_model
    Le carré de la longueur est le prix de toute la fenêtre : l'énoncé demande celui d'un seul jeton.

no_head   head = 2 * d_model * n_vocab → head = 0
    Passer de d composantes à un logit par entrée du vocabulaire coûte aussi un produit.

head_per_layer   return float(n_layer * (projections + scores + mixing + mlp) + head)
    → return float(n_layer * (projections + scores + mixing + mlp + head))
    La tête de sortie n'est appelée qu'une fois, au-dessus du dernier bloc.

head_once   head = 2 * d_model * n_vocab → head = 2 * d_model * n_vocab / n_ctx
    Vous ne faites prédire que le dernier jeton : ici, la tête donne des logits après chacun.

embedding_counted   head = 2 * d_model * n_vocab → head = 2 * d_model * n_vocab * 2
    Lire une ligne d'une table n'est pas un produit de matrices.

macs   return float(n_layer * (projections + scores + mixing + mlp) + head)
    → return float(n_layer * (projections + scores + mixing + mlp) + head) / 2
    Vous êtes exactement à la moitié : une multiplication-addition fait deux opérations.

whole_window   return float(n_layer * (projections + scores + mixing + mlp) + head)
    → return float(n_layer * (projections + scores + mixing + mlp) + head) * n_ctx
    C'est le prix de toute la fenêtre : combien de jetons se le partagent ?

no_output_projection   projections = 2 * d_model * (3 * d_model + d_model) → projections = 2 * d_model * 3 * d_model
    Quand les têtes ont fait leurs moyennes, quelle couche remet leurs résultats dans le flux ?

no_qkv   projections = 2 * d_model * (3 * d_model + d_model) → projections = 2 * d_model * d_model
    D'où viennent les requêtes, les clés et les valeurs ? Les fabriquer est aussi un produit.

one_mlp_layer   mlp = 2 * d_model * 4 * d_model + 2 * 4 * d_model * d_model → mlp = 2 * d_model * 4 * d_model
    Le MLP élargit puis resserre : combien de matrices ?

mlp_not_widened   mlp = 2 * d_model * 4 * d_model + 2 * 4 * d_model * d_model → mlp = 2 * 2 * d_model * d_model
    Le MLP de GPT-2 passe par quatre fois plus de composantes : vos deux matrices sont carrées.

biases_counted   return float(n_layer * (projections + scores + mixing + mlp) + head)
    → return float(n_layer * (projections + scores + mixing + mlp + 9 * d_model) + head)
    Ajouter un biais n'est pas un produit de matrices : la convention ne compte que ceux-ci.

with_backward   return float(n_layer * (projections + scores + mixing + mlp) + head)
    → return 3 * float(n_layer * (projections + scores + mixing + mlp) + head)
    Vous êtes au triple : c'est le prix d'un jeton d'apprentissage, passage arrière compris.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def forward_formula(n_layer, d_model, n_ctx, n_vocab):
    return float(n_layer * (24 * d_model**2 + 4 * n_ctx * d_model) + 2 * d_model * n_vocab)


def forward_window_then_divide(n_layer, d_model, n_ctx, n_vocab):
    """Toute la fenêtre, produit par produit, puis la division."""
    d, t = d_model, n_ctx
    total = 0
    for _ in range(n_layer):
        for m, k, n in [(t, d, 3 * d), (t, d, t), (t, t, d), (t, d, d), (t, d, 4 * d), (t, 4 * d, d)]:
            total += matmul_one_line(m, k, n)
    total += matmul_one_line(t, d, n_vocab)
    return total / t


def forward_exact_integer(n_layer, d_model, n_ctx, n_vocab):
    """Un entier, puisque le quotient tombe juste."""
    weights = 12 * n_layer * d_model**2 + d_model * n_vocab
    return 2 * weights + 2 * 2 * n_layer * n_ctx * d_model


def forward_fraction(n_layer, d_model, n_ctx, n_vocab):
    block = 2 * n_ctx * 12 * d_model * d_model + 2 * 2 * n_ctx * n_ctx * d_model
    return float(Fraction(n_layer * block + 2 * n_ctx * d_model * n_vocab, n_ctx))


def forward_tensor(n_layer, d_model, n_ctx, n_vocab):
    d = torch.tensor(d_model, dtype=torch.float64)
    per_block = 24 * d.square() + 4 * n_ctx * d
    return n_layer * per_block + 2 * n_vocab * d


def forward_counter(n_layer, d_model, n_ctx, n_vocab):
    """Compté par PyTorch sur des couches sans biais, sur l'appareil « meta »."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        x = torch.zeros(n_ctx, d_model)
        for _ in range(n_layer):
            q, k, v = nn.Linear(d_model, 3 * d_model, bias=False)(x).chunk(3, dim=-1)
            x = nn.Linear(d_model, d_model, bias=False)(q @ k.T @ v)
            x = nn.Linear(4 * d_model, d_model, bias=False)(nn.Linear(d_model, 4 * d_model, bias=False)(x))
        nn.Linear(d_model, n_vocab, bias=False)(x)
    return counter.get_total_flops() / n_ctx


styles = [
    forward_formula,
    forward_window_then_divide,
    forward_exact_integer,
    forward_fraction,
    forward_tensor,
    forward_counter,
]
