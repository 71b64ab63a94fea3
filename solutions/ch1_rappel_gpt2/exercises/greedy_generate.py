"""Exercice `greedy_generate` du chapitre 1."""

from __future__ import annotations

from typing import Any

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs
from atelier.judging.probes_models import talkative_gpt2

_TINY = {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 23, "n_positions": 64}


@torch.no_grad()
def _telling(model: Any, ids: torch.Tensor, n_new: int) -> list[int]:
    """Les amorces dont la suite la plus probable est sans ambiguïté, variée, et différente des autres."""
    length, sure = ids.shape[1], torch.ones(len(ids), dtype=torch.bool)
    for step in range(n_new):
        logits = model(ids, use_cache=False).logits
        best = logits[:, -1].topk(2, dim=-1)
        if step == 0 and length > 1:  # la première position ne dit pas la même chose que la dernière
            sure &= logits[:, 0].argmax(dim=-1) != best.indices[:, 0]
        sure &= best.values[:, 0] - best.values[:, 1] > 0.02
        ids = torch.cat([ids, best.indices[:, :1]], dim=1)
    first: dict[tuple[int, ...], int] = {}
    for i, new in enumerate(ids[:, length:].tolist()):
        if sure[i] and len(set(new)) >= min(3, n_new):
            first.setdefault(tuple(new), i)
    return list(first.values())


def _generation(d: Draw, batch: int, length: int, n_new: int, **config: int) -> Inputs:
    while True:
        inputs: Inputs = {"config": _TINY | config, "seed": d.integer(0, 2**31), "n_new": n_new}
        ids = d.integers(0, _TINY["vocab_size"] - 1, 16 * batch, length)
        rows = _telling(talkative_gpt2(inputs), ids, n_new) if n_new > 0 else list(range(batch))
        if len(rows) >= batch:
            return inputs | {"input_ids": ids[rows[:batch]]}


def draw_greedy(d: Draw, group: str) -> Inputs:
    if group == "courant":
        return _generation(d, *d.turn([(2, 4, 4), (1, 3, 5), (3, 2, 4), (2, 5, 3)]))
    if group == "bords":
        room = d.integer(7, 9)
        return d.turn(
            [
                lambda: _generation(d, 1, room - 4, 4, n_positions=room),
                lambda: _generation(d, 2, 3, 0),
                lambda: _generation(d, 2, 1, 4),
                lambda: _generation(d, 1, room, 0, n_positions=room),
            ]
        )()
    room = d.integer(6, 8)
    length, n_new = d.turn([(room - 2, 3), (room + 2, 0), (room, 1), (room - 3, 6)])
    ids = d.integers(0, _TINY["vocab_size"] - 1, 1, length)
    return {"config": _TINY | {"n_positions": room}, "seed": d.integer(0, 2**31), "input_ids": ids, "n_new": n_new}


exercise = Exercise(
    points=2,
    minutes=18,
    stars=2,
    hints=[
        "Au premier tour, le modèle lit toute l'amorce. Que lui reste-t-il à lire au deuxième ?",
        "Les logits ont la forme (B, jetons lus, V). Quelle position parle du jeton qui vient après le dernier ?",
        "À chaque tour, le jeton choisi a deux usages : il s'ajoute au texte, et… qu'est-ce que le modèle n'a pas "
        "encore lu ?",
    ],
    groups={"courant": 0.65, "bords": 0.25, "refus": 0.1},
    draw=draw_greedy,
    probe="generate",
    visible=3,
    examples=[{"config": _TINY, "seed": 3, "input_ids": torch.tensor([[3, 14, 15], [9, 2, 6]]), "n_new": 4}],
)


misconceptions = """\
first_position   [:, -1].argmax → [:, 0].argmax
    Vous lisez la prédiction faite après le premier jeton : laquelle parle de la suite du texte ?

refeeds_all   out = model(unread, cache, use_cache=True) → out = model(ids, cache, use_cache=True)
    Le cache contient déjà le passé : en le relisant, le modèle croit voir deux fois le texte.

no_cache_full   out = model(unread, cache, use_cache=True) → out = model(ids, use_cache=False)
    & cache = out[1] → cache = None
    Le texte est juste, mais tout est recalculé à chaque pas : le cache ne sert à rien chez vous.

cache_dropped   out = model(unread, cache, use_cache=True) → out = model(unread, None, use_cache=True)
    Vous ne donnez que le dernier jeton, sans son passé : le modèle recommence un texte à chaque pas.

one_less   range(n_new) → range(n_new - 1)
    Comptez les jetons ajoutés : il y en a un de moins.

one_more   range(n_new) → range(n_new + 1)
    Comptez les jetons ajoutés : il y en a un de trop.

only_new   return ids → return ids[:, length:]
    Vous rendez les seuls jetons nouveaux : où est passée l'amorce ?

sampled   out[0][:, -1].argmax(dim=-1, keepdim=True) → torch.multinomial(torch.softmax(out[0][:, -1], dim=-1), 1)
    Vous tirez le jeton au sort selon sa probabilité : l'énoncé demande chaque fois le plus probable.

least_likely   argmax → argmin
    Vous prenez chaque fois le jeton le moins probable : un grand logit est-il bon ou mauvais signe ?

first_row_only   out[0][:, -1].argmax(dim=-1, keepdim=True)
    → out[0][:1, -1].argmax(dim=-1, keepdim=True).expand(len(ids), 1)
    Toutes les phrases du lot reçoivent la suite de la première.

prompt_only_limit   if length + n_new > model.config.n_positions: → if length > model.config.n_positions:
    Le contexte limite la longueur finale, pas seulement celle de l'amorce.

no_limit   if length + n_new > model.config.n_positions: → if False:
    Le modèle n'a qu'un nombre fixe de positions : que fait votre fonction quand il n'y en a plus ?

limit_off_by_one   if length + n_new > model.config.n_positions: → if length + n_new >= model.config.n_positions:
    Un texte qui remplit exactement le contexte est permis : vous le refusez.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def _refuse_length(model, input_ids, n_new):
    if input_ids.shape[-1] + n_new > model.config.n_positions:
        raise ValueError("longueur")


def greedy_library(model, input_ids, n_new):
    _refuse_length(model, input_ids, n_new)
    if n_new == 0:
        return input_ids
    return model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        do_sample=False,
        min_new_tokens=n_new,
        max_new_tokens=n_new,
        pad_token_id=0,
    )


@torch.inference_mode()
def greedy_token_by_token(model, input_ids, n_new):
    """L'amorce aussi est lue jeton par jeton."""
    _refuse_length(model, input_ids, n_new)
    ids, cache = input_ids.clone(), None
    for t in range(input_ids.shape[1] + n_new - 1):
        out = model(ids[:, t : t + 1], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        if t + 1 >= input_ids.shape[1] and n_new:
            ids = torch.cat([ids, out.logits[:, -1:].argmax(-1)], dim=1)
    return ids


def greedy_with_gradients(model, input_ids, n_new):
    """Sans no_grad, une liste de colonnes, la dernière position seule calculée."""
    _refuse_length(model, input_ids, n_new)
    columns, cache = [input_ids], None
    while len(columns) <= n_new:
        out = model(columns[-1], cache, use_cache=True, logits_to_keep=1)
        cache = out[1]
        columns.append(torch.topk(out[0][:, -1], 1).indices)
    return torch.cat(columns, dim=1)


def greedy_one_sentence_at_a_time(model, input_ids, n_new):
    _refuse_length(model, input_ids, n_new)
    done = []
    for row in input_ids:
        row, cache, unread = row[None], None, row[None]
        for _ in range(n_new):
            with torch.no_grad():
                logits, cache = model(unread, cache, use_cache=True).to_tuple()[:2]
            unread = torch.tensor([[int(logits[0, -1].argmax())]], device=row.device)
            row = torch.cat((row, unread), 1)
        done.append(row)
    return torch.cat(done)


styles = [greedy_library, greedy_token_by_token, greedy_with_gradients, greedy_one_sentence_at_a_time]
