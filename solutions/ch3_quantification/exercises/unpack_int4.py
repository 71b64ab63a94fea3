"""Exercice `unpack_int4` du chapitre 3."""

from __future__ import annotations

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs


def draw_unpack(d: Draw, group: str) -> Inputs:
    if group == "octets":
        p = torch.randperm(256, generator=d.generator).to(torch.uint8)
        return {"p": p.view(4, 64) if d.index % 2 else p, "n": 128 if d.index % 2 else 512}
    n = d.turn([5, 3, 6, 1, 7, 2])
    p = d.integers(0, 255, *d.turn([(2,), (), (2, 3)]), (n + 1) // 2)
    if n % 2 and d.index % 4 < 2:  # remplissage nul une fois sur deux, sinon quelconque : il est ignoré
        p[..., -1] &= 0xF
    return {"p": d.turn([lambda t: t, d.strided])(p.to(torch.uint8)), "n": n}


exercise = Exercise(
    points=2,
    minutes=10,
    stars=3,
    hints=[
        "Un octet vaut 0x3F : quelles sont ses deux moitiés, et dans quel ordre les rendez-vous ?",
        "Sur quatre bits en complément à deux, quels motifs représentent des négatifs ?",
        "De combien faut-il reculer pour retrouver le négatif qu'une moitié représentait ? Et que devient la valeur de "
        "remplissage ?",
    ],
    groups={"octets": 0.6, "impairs et formes": 0.4},
    draw=draw_unpack,
    cases=6,
    examples=[
        {"p": torch.tensor([0x3F, 0x80], dtype=torch.uint8), "n": 4},
        {"p": torch.tensor([[0x21, 0x08]], dtype=torch.uint8), "n": 3},
    ],
)


misconceptions = """\
sign_lost   torch.where(nibbles >= 8, nibbles - 16, nibbles) → nibbles
    Vous ne rendez jamais de négatif : comment reconnaître celui qui l'était ?

threshold   nibbles >= 8 → nibbles > 8
    Vérifiez la valeur frontière entre positif et négatif.

threshold_low   nibbles >= 8 → nibbles >= 7
    Le plus grand positif est devenu négatif : combien de motifs commencent par 0 ?

ones_complement   nibbles - 16 → nibbles - 15
    Vos négatifs sont trop grands d'une unité : que doit rendre le motif 1111 ?

sign_magnitude   nibbles - 16 → 8 - nibbles
    Vous lisez un bit de signe et une valeur absolue : que vaut alors 1000, et combien y a-t-il de zéros ?

offset_binary   torch.where(nibbles >= 8, nibbles - 16, nibbles) → nibbles - 8
    Vous décalez toutes les valeurs ; le complément à deux ne touche qu'aux négatives.

n_ignored   [..., :n] → ∅
    La valeur de remplissage est restée au bout.

high_not_shifted   p >> 4 → p & 0xF0
    La moitié haute est encore à la place des seizaines.

nibbles_swapped   [p & 0xF, p >> 4] → [p >> 4, p & 0xF]
    Vos valeurs sont justes, mais dans chaque octet la seconde sort avant la première.

halves   torch.stack([p & 0xF, p >> 4], dim=-1).flatten(-2) → torch.cat([p & 0xF, p >> 4], dim=-1)
    Vous rendez d'abord toutes les moitiés basses, puis toutes les hautes : où étaient les voisins ?

unsigned   .to(torch.int8) → ∅
    Un octet non signé n'a pas de négatif : −1 y revient sous la forme 255.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def unpack_loops(p, n):
    rows = p.reshape(-1, p.shape[-1]).tolist()
    unpacked = []
    for row in rows:
        halves = [half for octet in row for half in (octet % 16, octet // 16)]
        unpacked.append([half - 16 if half > 7 else half for half in halves[:n]])
    return torch.tensor(unpacked, dtype=torch.int8).reshape(*p.shape[:-1], n)


def unpack_shifts(p, n):
    low, high = (p << 4).view(torch.int8) >> 4, p.contiguous().view(torch.int8) >> 4
    return torch.stack((low, high), dim=-1).reshape(*p.shape[:-1], -1)[..., :n]


def unpack_table(p, n):
    signed = [*range(8), *range(-8, 0)]
    table = torch.tensor([[signed[i % 16], signed[i // 16]] for i in range(256)], dtype=torch.int8)
    table = table.to(p.device)
    return table[p.long()].flatten(-2)[..., :n].contiguous()


def unpack_numpy(p, n):
    a = p.numpy()
    out = np.empty((*a.shape[:-1], 2 * a.shape[-1]), dtype=np.int16)
    out[..., 0::2], out[..., 1::2] = a & 15, a >> 4
    return torch.tensor(((out + 8) % 16 - 8)[..., :n], dtype=torch.int8)


styles = [unpack_loops, unpack_shifts, unpack_table, unpack_numpy]
