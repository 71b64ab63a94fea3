"""Exercice `block_influence` du chapitre 5."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def _states(d: Draw, *shape: int) -> Inputs:
    """Des vecteurs de longueurs très inégales ; le premier jeton est à peu près retourné, les autres tournent peu."""
    before = d.normal(*shape) + 0.4
    turned = torch.ones(shape[:-1])
    turned.view(-1)[0] = -1.0
    after = turned[..., None] * before + 0.4 * d.normal(*shape)
    lengths = torch.exp(0.7 * d.normal(2, *shape[:-1], 1))
    lengths[(0, *(0 for _ in shape[:-1]))] = 6.0  # le plus long : une moyenne qui pèse par la longueur s'y voit
    return {"hidden_in": before * lengths[0], "hidden_out": after * lengths[1]}


def draw_influence(d: Draw, group: str) -> Inputs:
    found = _states(d, *d.turn([(2, 5, 8), (3, 4, 6), (7, 6), (2, 3, 5)]))
    before, after = found.values()
    if group == "courant":
        return found
    if group == "bords":
        return d.turn(
            [
                {"hidden_in": before, "hidden_out": 3.0 * before},
                {"hidden_in": before, "hidden_out": -before},
                {"hidden_in": before[..., 0, :], "hidden_out": after[..., 0, :]},
                {"hidden_in": before, "hidden_out": before + 0.02 * d.normal(*before.shape)},
            ]
        )
    return d.turn(
        [
            {"hidden_in": before.double(), "hidden_out": after.double()},
            {"hidden_in": d.strided(before), "hidden_out": d.strided(after)},
            {"hidden_in": before.flatten(0, -2)[0], "hidden_out": after.flatten(0, -2)[0]},
            {"hidden_in": before.transpose(0, 1), "hidden_out": after.transpose(0, 1)},
        ]
    )


exercise = Exercise(
    points=1,
    minutes=8,
    stars=1,
    hints=[
        "Un bloc qui ne ferait qu'allonger ses vecteurs aurait-il changé quelque chose à leur direction ?",
        "Une ressemblance se mesure jeton par jeton, entre le vecteur qui entre et celui qui sort ; la moyenne "
        "vient après.",
        "Le cosinus de deux vecteurs est leur produit scalaire divisé par leurs deux longueurs ; l'influence "
        "grandit quand "
        "il baisse.",
    ],
    groups={"courant": 0.6, "bords": 0.25, "formes et types": 0.15},
    draw=draw_influence,
    visible=3,
    probe="call_float",
    examples=[
        {
            "hidden_in": torch.tensor([[1.0, 0.0], [0.0, 2.0]]),
            "hidden_out": torch.tensor([[3.0, 0.0], [1.0, 0.0]]),
        }
    ],
    tolerance=Tolerance(rtol=1e-4, atol=2e-6, why="un cosinus moyen en float32, retranché de 1"),
)


misconceptions = """\
similarity   1 - F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean().item()
    → F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean().item()
    C'est la ressemblance : un bloc qui ne fait rien aurait chez vous la plus grande influence.

cosine_of_means   F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean()
    → F.cosine_similarity(hidden_in.reshape(-1, hidden_in.shape[-1]).mean(0), hidden_out.reshape(-1, \
hidden_out.shape[-1]).mean(0), dim=-1)
    Vous comparez le jeton moyen d'avant au jeton moyen d'après : deux jetons peuvent changer en sens contraires.

whole_tensor   F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean()
    → F.cosine_similarity(hidden_in.flatten(), hidden_out.flatten(), dim=0)
    Un seul cosinus pour tout le lot : les jetons aux longs vecteurs y comptent plus que les autres.

squared   F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean()
    → (F.cosine_similarity(hidden_in, hidden_out, dim=-1) ** 2).mean()
    Un vecteur retourné ne ressemble pas à lui-même : le carré efface son signe.

absolute   F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean()
    → F.cosine_similarity(hidden_in, hidden_out, dim=-1).abs().mean()
    Un vecteur retourné a bien changé de direction : la valeur absolue le cache.

first_axis   F.cosine_similarity(hidden_in, hidden_out, dim=-1) → F.cosine_similarity(hidden_in, hidden_out, dim=0)
    Un jeton est un vecteur du dernier axe ; vous comparez des colonnes.

dot_product   F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean() → (hidden_in * hidden_out).sum(-1).mean()
    Il manque la division par les longueurs : seule la direction compte.

one_norm   F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean()
    → ((hidden_in * hidden_out).sum(-1) / hidden_in.norm(dim=-1) ** 2).mean()
    Vous divisez deux fois par la longueur de ce qui entre : et celle de ce qui sort ?

relative_change   1 - F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean().item()
    → ((hidden_out - hidden_in).norm(dim=-1) / hidden_in.norm(dim=-1)).mean().item()
    C'est un changement relatif de longueur : ShortGPT mesure un angle.

summed   F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean().item()
    → F.cosine_similarity(hidden_in, hidden_out, dim=-1).sum().item()
    Votre influence dépend du nombre de jetons lus.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def influence_normalized(hidden_in, hidden_out):
    a, b = F.normalize(hidden_in.double(), dim=-1), F.normalize(hidden_out.double(), dim=-1)
    return float(1 - (a * b).sum(-1).mean())


def influence_angles(hidden_in, hidden_out):
    """La moyenne des 1 − cosinus, plutôt que 1 moins leur moyenne."""
    dots = torch.einsum("...d,...d->...", hidden_in, hidden_out)
    return (1 - dots / (hidden_in.norm(dim=-1) * hidden_out.norm(dim=-1))).mean()


def influence_loops(hidden_in, hidden_out):
    width = hidden_in.shape[-1]
    total, count = 0.0, 0
    for a, b in zip(hidden_in.reshape(-1, width).tolist(), hidden_out.reshape(-1, width).tolist(), strict=True):
        total += sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
        count += 1
    return 1 - total / count


def influence_numpy(hidden_in, hidden_out):
    a, b = hidden_in.double().numpy(), hidden_out.double().numpy()
    cosines = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return float(1 - cosines.mean())


styles = [influence_normalized, influence_angles, influence_loops, influence_numpy]
