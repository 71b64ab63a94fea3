"""Exercice `split_heads` du chapitre 1."""

from __future__ import annotations

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs


def draw_split(d: Draw, group: str) -> Inputs:
    if group == "refus":
        n = d.integer(3, 5)
        width, n_head = d.turn([(2 * n + 1, n), (n, 2 * n), (n * n + n - 1, n), (3 * n + 2, n)])
        return {"x": d.normal(2, 3, width), "n_head": n_head}
    n_head, size = d.turn([(3, 2), (2, 4), (4, 3), (2, 5)])
    if group == "courant":
        return {"x": d.normal(d.integer(2, 3), d.integer(6, 8), n_head * size), "n_head": n_head}
    x = d.normal(2, 6, n_head * size)
    return d.turn(
        [
            {"x": d.strided(x), "n_head": n_head},
            {"x": x.double().transpose(0, 1), "n_head": n_head},
            {"x": x, "n_head": 1},
            {"x": x[:1, :1].half(), "n_head": n_head * size},
        ]
    )


exercise = Exercise(
    points=1,
    minutes=8,
    stars=1,
    hints=[
        "Découpez d'abord la seule dernière dimension : quelle forme à quatre axes obtenez-vous, que dit chaque axe ?",
        "Dans (B, T, n_head, D), les composantes d'une tête sont bien voisines. Il reste à mettre les têtes avant "
        "les jetons : échanger deux axes n'est pas relire la mémoire autrement.",
        "Deux opérations suffisent : l'une coupe le dernier axe en deux, l'autre déplace un axe. Dans quel ordre ?",
    ],
    groups={"courant": 0.65, "formes et types": 0.25, "refus": 0.1},
    draw=draw_split,
    examples=[{"x": torch.arange(12.0).reshape(1, 3, 4), "n_head": 2}],
)


misconceptions = """\
view_direct   x.reshape(batch, length, n_head, width // n_head).transpose(1, 2)
    → x.reshape(batch, n_head, length, width // n_head)
    La forme est bonne, mais vous avez relu la mémoire dans un autre ordre : des jetons différents se retrouvent
    mélangés dans une même tête.

interleaved   x.reshape(batch, length, n_head, width // n_head).transpose(1, 2)
    → x.reshape(batch, length, width // n_head, n_head).permute(0, 3, 1, 2)
    Chaque tête doit recevoir un bloc de composantes voisines ; chez vous elles sont distribuées comme des cartes.

no_transpose   x.reshape(batch, length, n_head, width // n_head).transpose(1, 2)
    → x.reshape(batch, length, n_head, width // n_head)
    Vos valeurs sont découpées correctement, mais l'axe des têtes n'est pas à la place demandée.

transposed_last   x.reshape(batch, length, n_head, width // n_head).transpose(1, 2)
    → x.reshape(batch, length, n_head, width // n_head).permute(0, 2, 3, 1)
    Regardez l'ordre des deux derniers axes : que doit contenir une ligne, un jeton ou une composante ?

heads_first   x.reshape(batch, length, n_head, width // n_head).transpose(1, 2)
    → x.reshape(batch, length, n_head, width // n_head).permute(2, 0, 1, 3)
    Vos têtes sont passées devant les phrases : quel est le premier axe demandé ?

head_size   x.reshape(batch, length, n_head, width // n_head).transpose(1, 2)
    → x.reshape(batch, length, width // n_head, n_head).transpose(1, 2)
    n_head est le nombre de têtes ; vous l'employez comme le nombre de composantes d'une tête.

truncates   if width % n_head: → if False:
    & x.reshape(batch, length, n_head, width // n_head).transpose(1, 2)
    → x[..., : n_head * (width // n_head)].reshape(batch, length, n_head, -1 if width >= n_head else 0).transpose(1, 2)
    Quand la division ne tombe pas juste, vous jetez des composantes en silence.

reshape_fails   if width % n_head: → if False:
    Votre fonction s'arrête bien, mais c'est torch qui se plaint, avec ses mots : l'énoncé demande que ce soit vous,
    avant de découper.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def split_chunks(x, n_head):
    if x.size(-1) % n_head != 0:
        raise ValueError("têtes")
    return torch.stack(x.chunk(n_head, dim=-1), dim=1)


def split_loops(x, n_head):
    batch, length, width = x.shape
    if n_head * (width // n_head) != width:
        raise ValueError("têtes")
    size = width // n_head
    out = torch.empty(batch, n_head, length, size, dtype=x.dtype)
    for h in range(n_head):
        out[:, h] = x[:, :, h * size : (h + 1) * size]
    return out


def split_unflatten(x, n_head):
    if x.shape[2] % n_head > 0:
        raise ValueError("têtes")
    return x.unflatten(2, (n_head, -1)).permute(0, 2, 1, 3).contiguous()


def split_einsum(x, n_head):
    """La permutation écrite comme un produit par des indicatrices."""
    if x.shape[-1] % n_head:
        raise ValueError("têtes")
    size = x.shape[-1] // n_head
    pick = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).reshape(-1, n_head, size)
    return torch.einsum("btw,whd->bhtd", x, pick)


styles = [split_chunks, split_loops, split_unflatten, split_einsum]
