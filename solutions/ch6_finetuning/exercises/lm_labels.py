"""Exercice `lm_labels` du chapitre 6."""

from __future__ import annotations

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import padding_mask, padding_sides


def draw_labels(d: Draw, group: str) -> Inputs:
    rows, longest = d.integer(3, 4), d.integer(8, 10)
    kind = d.turn(["droite", "gauche", "mêlé", "gauche"])
    lengths = [d.integer(5, longest - 2) for _ in range(rows)]
    mask = padding_mask(lengths, longest, padding_sides(d, rows, kind))
    ids = d.integers(2, 60, rows, longest)
    prompts = torch.tensor([d.integer(1, 2), *(d.integer(2, n - 2) for n in lengths[1:])])
    prompts[1] = 3 if prompts[0] == 2 else 2
    for b in range(rows):
        real = mask[b].nonzero()[:, 0]
        ids[b, real[-1]] = 0  # le jeton de remplissage, au milieu d'une vraie réponse
    ids[mask == 0] = 0
    if group == "bords":
        special = d.turn(["réponse vide", "sans amorce", "sans remplissage", "non contigu"])
        if special == "réponse vide":
            prompts[0] = lengths[0]
        if special == "sans amorce":
            prompts[:2] = 0
        if special == "sans remplissage":
            mask = torch.ones_like(mask)
        if special == "non contigu":
            ids, mask = d.strided(ids), mask.T.contiguous().T
    return {"input_ids": ids, "attention_mask": mask, "prompt_lengths": prompts}


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Parmi les jetons d'une ligne, lesquels le modèle doit-il apprendre à écrire ? Rayez l'amorce, rayez le "
        "remplissage.",
        "Une amorce de trois jetons, ce sont les trois premiers vrais jetons de la ligne. Où commencent-ils quand le "
        "remplissage est à gauche ?",
        "La somme cumulée du masque numérote les vrais jetons : 1 pour le premier, 2 pour le deuxième, et ainsi de "
        "suite.",
        "On garde ce qui est vrai et dont le rang dépasse la longueur de l'amorce ; le reste vaut −100.",
    ],
    groups={"courant": 0.7, "bords": 0.3},
    draw=draw_labels,
    visible=3,
    examples=[
        {
            "input_ids": torch.tensor([[7, 8, 9, 5, 0, 0], [0, 0, 7, 4, 0, 6]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]),
            "prompt_lengths": torch.tensor([2, 1]),
        }
    ],
)


misconceptions = """\
shifted   torch.where(learned, input_ids, -100) → torch.where(learned, input_ids, -100).roll(-1, dims=1)
    Le modèle décale déjà : en décalant aussi, vous lui faites apprendre le jeton d'après le suivant.

prompt_from_zero   attention_mask.cumsum(dim=1) → torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)
    Avec du remplissage à gauche, l'amorce ne commence pas à l'indice 0.

pad_token_id   attention_mask.bool() & (rank > prompt_lengths[:, None])
    → (input_ids != 0) & (rank > prompt_lengths[:, None])
    Le jeton de remplissage peut aussi apparaître dans le texte : qui dit la vérité, lui ou le masque ?

padding_kept   attention_mask.bool() & (rank > prompt_lengths[:, None]) → rank > prompt_lengths[:, None]
    Le modèle apprend chez vous à écrire du remplissage après la fin.

prompt_kept   attention_mask.bool() & (rank > prompt_lengths[:, None]) → attention_mask.bool()
    Le modèle apprend chez vous à écrire l'amorce, qu'on lui donnera toujours.

first_answer_lost   rank > prompt_lengths[:, None] → rank > prompt_lengths[:, None] + 1
    Le premier jeton de la réponse doit être appris, lui aussi : c'est le plus difficile.

prompt_leaks   rank > prompt_lengths[:, None] → rank >= prompt_lengths[:, None]
    Le dernier jeton de l'amorce est appris chez vous : combien de jetons faut-il cacher ?

inverted   rank > prompt_lengths[:, None] → rank <= prompt_lengths[:, None]
    Vous gardez l'amorce et cachez la réponse.

one_length   prompt_lengths[:, None] → prompt_lengths[0]
    Toutes vos lignes ont l'amorce de la première : chacune a sa longueur.

zeros   input_ids, -100) → input_ids, 0)
    0 est un jeton comme un autre : la perte n'ignore que −100.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def labels_loops(input_ids, attention_mask, prompt_lengths):
    out = torch.full_like(input_ids, -100)
    for b in range(input_ids.shape[0]):
        seen = 0
        for t in range(input_ids.shape[1]):
            if attention_mask[b, t]:
                if seen >= prompt_lengths[b]:
                    out[b, t] = input_ids[b, t]
                seen += 1
    return out


def labels_start(input_ids, attention_mask, prompt_lengths):
    """Indice de la première colonne vraie, puis comparaison des indices."""
    start = attention_mask.argmax(1, keepdim=True)
    positions = torch.arange(input_ids.size(1), device=input_ids.device).unsqueeze(0)
    out = input_ids.clone()
    out[positions < start + prompt_lengths.unsqueeze(1)] = -100
    out[attention_mask == 0] = -100
    return out


def labels_indices(input_ids, attention_mask, prompt_lengths):
    out = torch.full_like(input_ids, -100)
    for b, n in enumerate(prompt_lengths.tolist()):
        where = attention_mask[b].nonzero().flatten()[n:]
        out[b, where] = input_ids[b, where]
    return out


def labels_masked_fill(input_ids, attention_mask, prompt_lengths):
    rank = torch.cumsum(attention_mask, -1) - 1
    hidden = (rank < prompt_lengths.view(-1, 1)) | ~attention_mask.bool()
    return input_ids.masked_fill(hidden, -100)


styles = [labels_loops, labels_start, labels_indices, labels_masked_fill]
