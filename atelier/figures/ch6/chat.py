"""Chapitre 6 : des conversations tirées de Littré, et les réponses d'un modèle qui les a apprises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from atelier.display import note, table
from atelier.figures.ch6 import tasks
from atelier.figures.ch6.words import pieces
from atelier.hardware import beside
from atelier.text import number, plural, spread

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Messages = list[dict[str, str]]
"""« role » et « content » de chaque tour, comme transformers les veut."""
CONSIGNE = "Donnez la catégorie du mot."


def _asked(word: str, definition: str) -> str:
    return f"{word} : {' '.join(definition.split()[:8])}"


def conversations(part: str, n: int) -> list[Messages]:
    """n conversations de deux questions : un mot et le début de sa définition ; la réponse est sa catégorie."""
    lines = tasks.rows("categories_littre", part)
    found = []
    for i in range(n):
        messages = [{"role": "system", "content": CONSIGNE}]
        for word, category, definition in (lines[2 * i], lines[2 * i + 1]):
            messages.append({"role": "user", "content": _asked(word, definition)})
            messages.append({"role": "assistant", "content": category})
        found.append(messages)
    return found


@torch.inference_mode()
def chat_answers(model: GPT2LMHeadModel, tokenizer: Any, n: int, n_new: int = 12) -> list[tuple[bool, bool, str]]:
    """Ce que répond le modèle à n questions neuves, le plus probable à chaque pas : (finie ?, juste ?, texte)."""
    lines = tasks.rows("categories_littre", "test")[:n]
    end = cast(int, tokenizer.eos_token_id)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "system", "content": CONSIGNE}, {"role": "user", "content": _asked(word, definition)}],
            add_generation_prompt=True,
            return_dict=True,
        )["input_ids"]
        for word, _, definition in lines
    ]
    ids, mask = beside(model, tasks.padded(prompts, side="left"))
    made = model.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=n_new, pad_token_id=end, eos_token_id=end
    )
    found = []
    for (_, category, _), row in zip(lines, made[:, ids.shape[1] :].tolist(), strict=True):
        said = tasks.decoded(tokenizer, row[: row.index(end)] if end in row else row).strip()
        found.append((end in row, said == category, said))
    return found


# --- Figures ----------------------------------------------------------------------------------------------------------


def chat_sample(tokenizer: Any, messages: Messages) -> None:
    """Une conversation, en messages, puis en texte."""
    table([[m["role"], m["content"]] for m in messages], header=["rôle", "message"], caption="Les messages")
    written = tokenizer.apply_chat_template(messages, tokenize=False)
    table([[line] for line in written.strip().split("\n")], header=["ce que lit le modèle"], caption="Le gabarit")


def template_note(found: Mapping[str, int]) -> None:
    """L'accord de chat_labels et du masque de transformers."""
    agreed = found["d'accord"]
    note(
        f"{number(agreed)} conversations d'accord sur {number(found['conversations'])} ; "
        f"{number(found['appris'])} jetons appris sur {number(found['jetons'])}."
    )


def collated(tokenizer: Any, ids: Sequence[int], labels: Tensor) -> None:
    """Les fins de tour d'une conversation, avant et après l'assembleur de lots."""
    end, kept = tokenizer.eos_token_id, labels.tolist()
    rows = [
        [piece, str(label) if label == tasks.IGNORED else "apprise"]
        for i, piece, label in zip(ids, pieces(ids, tokenizer), kept, strict=True)
        if i == end
    ]
    table(
        [[f"fin du tour {rank}", *row] for rank, row in enumerate(rows, 1)],
        header=["où", "jeton", "étiquette"],
        caption="Ce que DataCollatorForLanguageModeling fait des fins de tour",
    )
    learned = sum(label != tasks.IGNORED for label in kept)
    note(f"Les {number(learned)} autres jetons gardent leur étiquette : la question s'apprend, la fin non.")


Answers = Mapping[str, Sequence[Sequence[tuple[bool, bool, str]]]]
"""Façon → graines → réponses : (finie ?, juste ?, texte)."""


def share_of(runs: Sequence[Sequence[tuple[bool, bool, str]]], column: int) -> list[float]:
    """La part des réponses finies (0) ou justes (1), par graine, en pour cent."""
    return [100 * mean(bool(answer[column]) for answer in run) for run in runs]


def ends_table(here: Answers, author: Answers | None) -> float:
    """Réponses qui finissent, et qui sont justes. Rend la part de réponses finies sans fin de tour apprise."""
    kept = author or here
    table(
        [
            [name, *(spread(share_of(runs, column), 3) for column in (0, 1)), " / ".join(runs[0][1][2].splitlines())]
            for name, runs in kept.items()
        ],
        header=["façon", "finies en douze jetons (%)", "justes (%)", "une réponse"],
        caption=f"{number(len(next(iter(kept.values()))[0]))} questions neuves, "
        f"{plural(max(map(len, kept.values())), 'graine')}{' (auteur)' if author else ''}",
    )
    if author is not None and here is not author:
        told = [f"{name} : {number(share_of(runs, 0)[0], 3)} % finies" for name, runs in here.items()]
        note(f"Ici, une graine : {' ; '.join(told)}.")
    return mean(share_of(kept["pad = eos"], 0))
