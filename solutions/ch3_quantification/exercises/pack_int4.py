"""Exercice `pack_int4` du chapitre 3."""

from __future__ import annotations

import math

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

_PAIRS = torch.cartesian_prod(torch.arange(-8, 8), torch.arange(-8, 8))


def draw_pack(d: Draw, group: str) -> Inputs:
    dtype = d.turn([torch.int8, torch.int64, torch.int32])
    if group == "paires":
        pairs = _PAIRS[torch.randperm(256, generator=d.generator)]
        if d.index % 2:  # sans −8, pour qui ne refuse que lui
            return {"q": pairs[(pairs > -8).all(dim=1)].reshape(15, 30).to(dtype)}
        return {"q": pairs.flatten().to(dtype)}
    if group == "refus":
        q = d.integers(-7, 6, *d.turn([(6,), (2, 4), (3, 5)]))
        q.view(-1)[d.integer(0, q.numel() - 1)] = d.turn([8, -9, d.integer(9, 100), d.integer(-100, -10), 16, -16])
        return {"q": q.to(dtype)}
    q = d.integers(-8, 7, *d.turn([(7,), (3, 5), (2, 3, 3), (1,), (4, 6), (2, 1)]))
    q.view(-1)[-1] = d.turn([-8, 7, -1])
    return {"q": d.turn([lambda t: t, d.strided])(q.to(dtype))}


exercise = Exercise(
    points=2,
    minutes=15,
    stars=3,
    hints=[
        "Écrivez −1 et 3 sur quatre bits, en complément à deux. Quel octet font-ils ensemble ?",
        "De quels bits d'un entier négatif plus large avez-vous besoin ? Que faire des autres ?",
        "Un ET binaire garde quatre bits, un décalage les monte dans l'octet. Que faire du dernier, s'il est seul ?",
    ],
    groups={"paires": 0.55, "impairs et formes": 0.35, "refus": 0.1},
    draw=draw_pack,
    cases=6,
    examples=[
        {"q": torch.tensor([-1, 3], dtype=torch.int8)},
        {"q": torch.tensor([[1, 2, -8], [7, -1, 0]], dtype=torch.int8)},
        {"q": torch.tensor([0, 8], dtype=torch.int8)},
    ],
)


misconceptions = """\
nibbles_swapped   nibbles[..., 0::2] | (nibbles[..., 1::2] << 4) → nibbles[..., 1::2] | (nibbles[..., 0::2] << 4)
    Chaque octet contient les bonnes valeurs dans l'autre ordre.

sign_spills   (q & 0xF).to(torch.uint8) → q.to(torch.uint8)
    Un nombre négatif déborde sur son voisin : combien de bits de lui voulez-vous garder ?

offset_binary   (q & 0xF) → (q + 8)
    Vous décalez les valeurs ; le complément à deux ne décale pas, il replie.

sign_magnitude   (q & 0xF) → (torch.where(q < 0, 8 - q, q) & 0xF)
    Un bit de signe et une valeur absolue, c'est une autre écriture : que devient −8 dans la vôtre ?

odd_dropped   torch.nn.functional.pad(nibbles, (0, 1)) → nibbles[..., :-1]
    Avec un nombre impair de valeurs, la dernière disparaît.

odd_pad_front   pad(nibbles, (0, 1)) → pad(nibbles, (1, 0))
    Le zéro de remplissage est arrivé devant : tous vos couples sont décalés d'une valeur.

halves   nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
    → nibbles.chunk(2, dim=-1)[0] | (nibbles.chunk(2, dim=-1)[1] << 4)
    Vos voisins dans l'octet viennent des deux moitiés du tenseur.

first_axis   (q & 0xF).to(torch.uint8) → (q & 0xF).to(torch.uint8).movedim(0, -1)
    & q.shape[-1] % 2 → q.shape[0] % 2
    & nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
    → (nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)).movedim(-1, 0)
    Vos couples sont verticaux : sur quel axe deux valeurs sont-elles voisines ?

no_check   if ((q < -8) | (q > 7)).any(): → if False:
    Une valeur hors de [−8, 7] est rangée sans bruit, et elle en sortira fausse.

lower_check_only   if ((q < -8) | (q > 7)).any(): → if (q < -8).any():
    Vous ne surveillez qu'un des deux bords : 8 s'écrit comme −8.

symmetric_range   (q < -8) → (q < -7)
    Quatre bits donnent seize valeurs : vous en refusez une qui est permise.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def pack_loops(q):
    rows = q.reshape(-1, q.shape[-1]).tolist()
    packed = []
    for row in rows:
        if min(row) < -8 or max(row) > 7:
            raise ValueError("hors de [−8, 7]")
        row = row + [0] * (len(row) % 2)
        packed.append([(row[i] % 16) + 16 * (row[i + 1] % 16) for i in range(0, len(row), 2)])
    return torch.tensor(packed, dtype=torch.uint8).reshape(*q.shape[:-1], -1)


def pack_arithmetic(q):
    if q.min() < -8 or q.max() > 7:
        raise ValueError("hors de [−8, 7]")
    unsigned = torch.where(q < 0, q.long() + 16, q.long())
    pairs = torch.zeros(*q.shape[:-1], 2 * math.ceil(q.shape[-1] / 2), dtype=torch.long)
    pairs[..., : q.shape[-1]] = unsigned
    pairs = pairs.unflatten(-1, (-1, 2))
    return (pairs[..., 0] + 16 * pairs[..., 1]).to(torch.uint8)


def pack_numpy(q):
    a = q.numpy()
    if not np.isin(a, np.arange(-8, 8)).all():
        raise ValueError("hors de [−8, 7]")
    a = np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, a.shape[-1] % 2)]).astype(np.uint8) & 15
    return torch.from_numpy(a[..., ::2] | (a[..., 1::2] << 4))


def pack_views(q):
    if torch.any(q != q.clamp(-8, 7)):
        raise ValueError("hors de [−8, 7]")
    low, high = q[..., ::2].to(torch.int32), q[..., 1::2].to(torch.int32)
    octets = low % 16
    octets[..., : high.shape[-1]] += (high % 16) * 16
    return octets.to(torch.uint8)


styles = [pack_loops, pack_arithmetic, pack_numpy, pack_views]
