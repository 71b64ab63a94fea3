"""Exercice `sparse_bytes` du chapitre 5."""

from __future__ import annotations

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import share_off_half


def draw_bytes(d: Draw, group: str) -> Inputs:
    numel = d.integer(1_000, 90_000) * d.turn([1, 10, 3, 100])
    if group == "bords":
        return d.turn(
            [
                {"numel": numel, "amount": 1.0},
                {"numel": numel, "amount": 0.0, "value_bytes": 4},
                {"numel": 0, "amount": 0.5, "value_bytes": 2, "index_bytes": 2},
                {"numel": 10 * d.integer(11, 99), "amount": 0.9},
            ]
        )
    inputs = {"numel": numel, "amount": share_off_half(d, numel)}
    if d.index % 4 == 0:
        return inputs
    inputs["value_bytes"] = d.choice([1, 4])
    return inputs if d.index % 4 == 1 else inputs | {"index_bytes": d.choice([2, 3, 8])}


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Que faut-il écrire, pour chaque poids qui reste, afin de pouvoir reconstruire le tenseur ?",
        "Comptez d'abord les poids gardés, un entier ; chacun apporte une valeur et un indice.",
        "(numel − round(amount · numel)) · (value_bytes + index_bytes).",
    ],
    groups={"courant": 0.8, "bords": 0.2},
    draw=draw_bytes,
    visible=3,
    examples=[{"numel": 1000, "amount": 0.9}, {"numel": 1000, "amount": 0.25, "value_bytes": 4, "index_bytes": 2}],
)


misconceptions = """\
no_indices   return kept * (value_bytes + index_bytes) → return kept * value_bytes
    Comment saurez-vous où remettre les valeurs ?

counts_removed   numel - round(amount * numel) → round(amount * numel)
    On stocke ce qui reste, pas ce qui est parti.

bitmap   return kept * (value_bytes + index_bytes) → return kept * value_bytes + (numel + 7) // 8
    C'est un autre format, souvent meilleur : l'énoncé demande une liste d'indices.

indices_for_all   return kept * (value_bytes + index_bytes) → return kept * value_bytes + numel * index_bytes
    Un poids retiré n'a pas besoin d'indice : son absence suffit.

values_for_all   return kept * (value_bytes + index_bytes) → return numel * value_bytes + kept * index_bytes
    Vous écrivez encore les zéros : que devient la valeur d'un poids retiré ?

two_indices   return kept * (value_bytes + index_bytes) → return kept * (value_bytes + 2 * index_bytes)
    Dans un tenseur déroulé, un seul indice suffit à dire où l'on est.

truncates   numel - round(amount * numel) → numel - int(amount * numel)
    Il vous manque parfois un poids : couper la partie décimale n'est pas arrondir.

truncates_kept   numel - round(amount * numel) → int((1 - amount) * numel)
    Il vous manque parfois un poids : couper la partie décimale n'est pas arrondir.

value_bytes_ignored   return kept * (value_bytes + index_bytes) → return kept * (2 + index_bytes)
    Changez le nombre d'octets par valeur : votre réponse ne bouge pas.

index_bytes_ignored   return kept * (value_bytes + index_bytes) → return kept * (value_bytes + 4)
    Changez le nombre d'octets par indice : votre réponse ne bouge pas.

in_bits   return kept * (value_bytes + index_bytes) → return kept * (value_bytes + index_bytes) * 8
    Votre compte est en bits ; l'énoncé demande des octets.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def bytes_by_removed(numel, amount, value_bytes=2, index_bytes=4):
    entry = value_bytes + index_bytes
    return numel * entry - round(numel * amount) * entry


def bytes_two_parts(numel, amount, value_bytes=2, index_bytes=4):
    n = int(numel - int(amount * numel + 0.5))
    return n * value_bytes + n * index_bytes


def bytes_of_the_kept_share(numel, amount, value_bytes=2, index_bytes=4):
    return round((1 - amount) * numel) * (value_bytes + index_bytes)


styles = [bytes_by_removed, bytes_two_parts, bytes_of_the_kept_share]
