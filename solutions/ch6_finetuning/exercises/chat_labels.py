"""Exercice `chat_labels` du chapitre 6."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

END = 2
"""La fin de tour, dans les cas tirés : un jeton comme un autre, dernier de chaque tour."""


def _turn(d: Draw, role: str, low: int = 1, high: int = 4) -> tuple[str, list[int]]:
    return role, [d.integer(10, 99) for _ in range(d.integer(low, high))] + [END]


def draw_chat(d: Draw, group: str) -> Inputs:
    if group == "courant":
        rounds = [_turn(d, role) for _ in range(d.integer(2, 3)) for role in ("user", "assistant")]
        return {"turns": [_turn(d, "system"), *rounds] if d.index % 2 else rounds}
    if group == "rôles":
        return d.turn(
            [
                {"turns": [_turn(d, "user"), _turn(d, "assistant"), _turn(d, "tool"), _turn(d, "assistant")]},
                {"turns": [_turn(d, "system"), _turn(d, "user"), _turn(d, "assistant"), _turn(d, "user")]},
                {"turns": [_turn(d, "system"), _turn(d, "user")]},
                {"turns": [_turn(d, "assistant"), _turn(d, "user"), _turn(d, "assistant"), _turn(d, "tool")]},
            ]
        )
    return d.turn(
        [
            {"turns": [_turn(d, "assistant", 0, 0)]},
            {"turns": [_turn(d, "user"), ("assistant", []), _turn(d, "user"), _turn(d, "assistant")]},
            {"turns": [_turn(d, "user"), _turn(d, "assistant"), _turn(d, "assistant")]},
            {"turns": [("user", [END]), ("assistant", [END, END])]},
        ]
    )


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Le modèle lit toute la conversation. Que doit-il apprendre à écrire ?",
        "Une position à ne pas apprendre porte −100. Une réponse du milieu de la conversation est-elle moins une "
        "réponse "
        "que la dernière ?",
        "Qui n'a jamais appris à finir son tour ne s'arrête pas : la fin de tour d'une réponse s'apprend aussi. "
        "Le décalage "
        "d'un jeton, le modèle s'en charge.",
    ],
    groups={"courant": 0.5, "rôles": 0.3, "bords": 0.2},
    draw=draw_chat,
    visible=4,
    examples=[
        {"turns": [("system", [11, 2]), ("user", [12, 13, 2]), ("assistant", [14, 15, 2])]},
        {"turns": [("user", [21, 2]), ("assistant", [22, 2]), ("user", [23, 2]), ("assistant", [24, 25, 2])]},
    ],
)


misconceptions = """\
user_learned   role == "assistant" → role != "system"
    Le modèle apprendrait aussi à poser les questions : à qui laisse-t-on la parole ?

tool_learned   role == "assistant" → role in ("assistant", "tool")
    Ce que rend un outil est lu, non écrit par le modèle.

everything_learned   labels += ids if role == "assistant" else [-100] * len(ids) → labels += ids
    Tout est appris, questions comprises : c'est un modèle de texte, pas encore un assistant.

end_not_learned   labels += ids if role == "assistant" else [-100] * len(ids)
    → labels += ids[:-1] + [-100] * len(ids[-1:]) if role == "assistant" else [-100] * len(ids)
    La fin de tour n'est jamais apprise : à l'usage, la réponse ne s'arrêtera pas.

last_answer_only   input_ids += ids
    → labels = [-100] * len(labels) if role == "assistant" else labels; input_ids += ids
    Seule la dernière réponse est apprise : les précédentes en étaient aussi.

first_answer_only   role == "assistant" → role == "assistant" and not any(x != -100 for x in labels)
    Seule la première réponse est apprise : les suivantes en sont aussi.

shifted   torch.tensor(labels, dtype=torch.int64) → torch.tensor([*labels[1:], -100][: len(labels)], dtype=torch.int64)
    Le modèle décale lui-même les étiquettes : chez vous elles le sont deux fois.

masked_inputs   input_ids += ids → input_ids += ids if role == "assistant" else [-100] * len(ids)
    Vous masquez aussi ce que le modèle lit : sans la question, à quoi répondrait-il ?

answers_only   for role, ids in turns: → for role, ids in [t for t in turns if t[0] == "assistant"]:
    Vous retirez les questions au lieu de les masquer : le modèle doit les lire pour répondre.

zeros   [-100] * len(ids) → [0] * len(ids)
    0 est le numéro d'un jeton : le modèle apprendrait à l'écrire. Quelle étiquette la perte ignore-t-elle ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def chat_cat(turns):
    pieces = [torch.tensor(ids, dtype=torch.long) for _, ids in turns]
    masks = [torch.full((len(ids),), role == "assistant") for role, ids in turns]
    ids = torch.cat(pieces)
    return ids, torch.where(torch.cat(masks), ids, -100)


def chat_chain(turns):
    ids = list(itertools.chain.from_iterable(ids for _, ids in turns))
    roles = list(itertools.chain.from_iterable([role] * len(ids) for role, ids in turns))
    labels = [i if role == "assistant" else -100 for i, role in zip(ids, roles, strict=True)]
    return torch.tensor(ids, dtype=torch.int64), torch.tensor(labels, dtype=torch.int64)


def chat_clone(turns):
    ids = torch.LongTensor([i for _, tour in turns for i in tour])
    labels, start = ids.clone(), 0
    for role, tour in turns:
        if role != "assistant":
            labels[start : start + len(tour)] = -100
        start += len(tour)
    return ids, labels


def chat_numpy(turns):
    lengths = [len(ids) for _, ids in turns]
    spoken = np.repeat([role == "assistant" for role, _ in turns], lengths)
    ids = np.array([i for _, tour in turns for i in tour], dtype=np.int64)
    return torch.from_numpy(ids), torch.from_numpy(np.where(spoken, ids, -100))


styles = [chat_cat, chat_chain, chat_clone, chat_numpy]
