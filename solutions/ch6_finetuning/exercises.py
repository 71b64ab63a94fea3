"""Déclarations du chapitre 6 : points, indices, tirage des cas, tolérances, idées fausses, quiz."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from atelier.exercise import Choice, Draw, Exercise, Inputs, Misconception, Quiz, Tolerance, swap


def _lengths(d: Draw, rows: int, longest: int) -> list[int]:
    """Longueurs de phrases : une pleine, une d'au moins trois jetons de moins, les autres au hasard ; mélangées."""
    lengths = [longest, d.integer(2, longest - 3), *(d.integer(2, longest - 1) for _ in range(rows - 2))]
    d.random.shuffle(lengths)
    return lengths


def _mask(lengths: list[int], longest: int, sides: list[str]) -> Tensor:
    """(B, T) : 1 sur les vrais jetons de chaque ligne, du côté opposé au remplissage."""
    mask = torch.zeros(len(lengths), longest, dtype=torch.int64)
    for row, n, side in zip(mask, lengths, sides, strict=True):
        row[:n] = 1
        if side == "gauche":
            row.copy_(row.flip(0))
    return mask


def _sides(d: Draw, rows: int, kind: str) -> list[str]:
    if kind != "mêlé":
        return [kind] * rows
    sides = ["gauche", "droite", *(d.choice(["gauche", "droite"]) for _ in range(rows - 2))]
    d.random.shuffle(sides)
    return sides


def _mixed_lengths(d: Draw, rows: int, longest: int) -> list[int]:
    """Toutes les phrases sont plus courtes que le lot : chacune montre de quel côté est son remplissage."""
    return [d.integer(2, longest - 2) for _ in range(rows)]


# --- pool_last_token ------------------------------------------------------------------------------------------------


def draw_pool(d: Draw, group: str) -> Inputs:
    rows, longest, width = d.integer(3, 5), d.integer(6, 8), d.integer(3, 5)
    kind = d.turn(["droite", "gauche", "mêlé", "droite"]) if group == "courant" else d.turn(["gauche", "droite"])
    lengths = _mixed_lengths(d, rows, longest) if kind == "mêlé" else _lengths(d, rows, longest)
    mask = _mask(lengths, longest, _sides(d, rows, kind))
    hidden = d.normal(rows, longest, width)
    if group == "refus":
        mask[d.turn([0, rows - 1, 1, 0])] = 0
        if d.index == 3:
            hidden, mask = hidden[:1], mask[:1]
    if group == "formes et types":
        return d.turn(
            [
                {"hidden": d.strided(hidden), "attention_mask": d.strided(mask)},
                {"hidden": hidden.double(), "attention_mask": mask},
                {"hidden": hidden[:, :1].half(), "attention_mask": torch.ones_like(mask[:, :1])},
                {"hidden": hidden.transpose(0, 1).contiguous().transpose(0, 1), "attention_mask": mask},
            ]
        )
    return {"hidden": hidden, "attention_mask": mask}


_LAST = "torch.where(real, positions, -1).amax(dim=1)"
_PICKED = "hidden[torch.arange(len(hidden), device=hidden.device), last]"

pool_last_token = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Écrivez sur papier le masque d'une phrase courte, remplie à droite, puis à gauche. Où est son dernier 1 ?",
        "Le nombre de 1 d'une ligne dit combien elle a de jetons. Il ne dit pas où ils sont.",
        "Donnez à chaque colonne son rang, effacez les rangs du remplissage, et gardez le plus grand de la ligne.",
        "Il reste à choisir, dans chaque ligne, une seule colonne : deux listes d'indices, les lignes et les colonnes.",
    ],
    groups={"courant": 0.6, "formes et types": 0.2, "refus": 0.2},
    draw=draw_pool,
    visible=3,
    examples=[
        {
            "hidden": torch.arange(16.0).reshape(2, 4, 2),
            "attention_mask": torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]]),
        }
    ],
    misconceptions=[
        Misconception(
            "minus_one",
            swap((_PICKED, "hidden[:, -1]")),
            "La dernière colonne peut être du remplissage : qu'y a-t-il au bout d'une phrase courte ?",
        ),
        Misconception(
            "mask_sum",
            swap((_LAST, "real.sum(dim=1) - 1")),
            "Compter les jetons donne leur nombre, pas la place du dernier : regardez un remplissage à gauche.",
        ),
        Misconception(
            "first_padding",
            swap((_LAST, "((~real).int().argmax(dim=1) - 1).clamp(min=0)")),
            "Vous cherchez où commence le remplissage : et quand une ligne n'en a pas, ou quand il est devant ?",
        ),
        Misconception(
            "one_side_for_all",
            swap((_LAST, "torch.where(real[:, -1].all(), positions[-1], real.sum(dim=1) - 1)")),
            "Vous décidez du côté pour tout le lot : chaque ligne a le sien.",
        ),
        Misconception(
            "first_token",
            swap((_LAST, "real.int().argmax(dim=1)")),
            "Vous rendez le premier vrai jeton : lequel a pu lire tous les autres ?",
        ),
        Misconception(
            "one_before",
            swap((_LAST, "(torch.where(real, positions, -1).amax(dim=1) - 1).clamp(min=0)")),
            "Vous rendez l'avant-dernier jeton : il n'a pas lu le dernier.",
        ),
        Misconception(
            "mean",
            swap((_PICKED, "((hidden * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)).to(hidden.dtype)")),
            "On demande l'état d'un jeton, pas la moyenne de tous.",
        ),
        Misconception(
            "mean_all",
            swap((_PICKED, "hidden.mean(dim=1)")),
            "Vous faites une moyenne, et le remplissage y compte : on demande l'état d'un seul jeton.",
        ),
        Misconception(
            "keeps_axis",
            swap((_PICKED, _PICKED + "[:, None]")),
            "Il reste chez vous un axe de taille 1 : une phrase donne un vecteur, pas une liste d'un vecteur.",
        ),
        Misconception(
            "no_check",
            swap(("if not real.any(dim=1).all():", "if False:")),
            "Une ligne sans aucun vrai jeton n'a pas de dernier jeton : votre fonction en invente un.",
        ),
    ],
)


# --- train_head -----------------------------------------------------------------------------------------------------


def draw_head(d: Draw, group: str) -> Inputs:
    n, width, classes = d.integer(7, 12), d.turn([4, 5, 4, 6]), 3
    features = d.normal(n, width) + 0.5
    labels = torch.cat([torch.tensor([0, 0, 1, 2]), d.integers(0, 1, n - 4)])
    inputs = {"features": features, "labels": labels, "n_classes": classes}
    if group == "courant":
        lr = round(d.uniform(0.2, 0.6), 2)
        return d.turn(
            [
                inputs | {"lr": lr, "steps": 1},
                inputs | {"lr": lr, "steps": d.integer(5, 9)},
                inputs,
                inputs | {"lr": lr},
            ]
        )
    if group == "refus":
        return inputs | {"lr": 0.1, "steps": -d.integer(1, 9)}
    return d.turn(
        [
            inputs | {"lr": 0.3, "steps": 0},
            inputs | {"n_classes": classes + 2, "lr": 0.3, "steps": 6},
            inputs | {"features": d.strided(features).double(), "lr": 0.3, "steps": 6},
            inputs | {"features": features.T.contiguous().T[:1], "labels": labels[:1], "lr": 0.3, "steps": 6},
        ]
    )


_ERROR = "torch.softmax(features @ weight.T + bias, dim=-1) - target"
_GRAD_W = "error.T @ features / len(features)"
_GRAD_B = "error.mean(dim=0)"
_UPDATE = "weight, bias = weight - lr * grad_weight, bias - lr * grad_bias"
_INIT_W = "torch.zeros(n_classes, width, dtype=features.dtype, device=features.device)"


def _stochastic(features: Tensor, labels: Tensor, n_classes: int, lr: float = 0.1, steps: int = 100) -> Any:
    if steps < 0:
        raise ValueError
    weight = torch.zeros(n_classes, features.shape[1], dtype=features.dtype)
    bias = torch.zeros(n_classes, dtype=features.dtype)
    for _ in range(steps):
        for x, y in zip(features, labels, strict=True):
            error = torch.softmax(weight @ x + bias, dim=-1)
            error[y] -= 1
            weight, bias = weight - lr * torch.outer(error, x), bias - lr * error
    return weight, bias


def _accumulates(features: Tensor, labels: Tensor, n_classes: int, lr: float = 0.1, steps: int = 100) -> Any:
    if steps < 0:
        raise ValueError
    weight = torch.zeros(n_classes, features.shape[1], dtype=features.dtype, requires_grad=True)
    bias = torch.zeros(n_classes, dtype=features.dtype, requires_grad=True)
    for _ in range(steps):
        torch.nn.functional.cross_entropy(features @ weight.T + bias, labels).backward()
        with torch.no_grad():
            weight -= lr * weight.grad
            bias -= lr * bias.grad
    return weight, bias


train_head = Exercise(
    points=3,
    minutes=25,
    stars=2,
    hints=[
        "Pour un seul exemple, le gradient de −ln p(bonne classe) par rapport aux scores s'écrit très simplement : "
        "lequel ?",
        "C'est p − y : les probabilités, moins 1 sur la bonne classe. Un score vaut W·x + b : que devient ce gradient "
        "pour W, et pour b ?",
        "Sur n exemples, avec E la matrice (n, C) des p − y et X celle des entrées : la perte est une moyenne, donc "
        "les "
        "deux gradients aussi.",
        "∂W = Eᵀ·X / n et ∂b = moyenne des lignes de E ; les deux pas se font depuis les mêmes W et b.",
    ],
    groups={"courant": 0.6, "bords et types": 0.25, "refus": 0.15},
    draw=draw_head,
    visible=3,
    cases=4,
    examples=[
        {
            "features": torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
            "labels": torch.tensor([0, 1, 2]),
            "n_classes": 3,
            "lr": 0.5,
            "steps": 1,
        }
    ],
    tolerance=Tolerance(rtol=1e-3, atol=2e-5, why="cent pas de descente en float32, sommes dans un autre ordre"),
    misconceptions=[
        Misconception(
            "sum_loss",
            swap((_GRAD_W, "error.T @ features"), (_GRAD_B, "error.sum(dim=0)")),
            "Doublez les données, et votre pas double : la perte est une moyenne.",
        ),
        Misconception(
            "sum_for_bias",
            swap((_GRAD_B, "error.sum(dim=0)")),
            "W suit une moyenne sur les exemples, b une somme : c'est pourtant la même perte.",
        ),
        Misconception(
            "mean_over_classes",
            swap((_GRAD_W, "error.T @ features / error.numel()"), (_GRAD_B, "error.mean(dim=0) / n_classes")),
            "Vous divisez aussi par le nombre de classes : la perte est une moyenne sur les exemples seulement.",
        ),
        Misconception(
            "new_b_in_grad",
            swap(
                (
                    f"        grad_weight, grad_bias = {_GRAD_W}, {_GRAD_B}\n        {_UPDATE}",
                    f"        bias = bias - lr * {_GRAD_B}\n"
                    f"        error = {_ERROR}\n"
                    f"        weight = weight - lr * {_GRAD_W}",
                )
            ),
            "Un pas de gradient met tout à jour depuis le même point : W voit chez vous un b déjà déplacé.",
        ),
        Misconception(
            "random_start",
            swap((_INIT_W, "0.01 * torch.randn(n_classes, width, dtype=features.dtype, device=features.device)")),
            "Votre tête part du hasard : l'énoncé la fait partir de zéro, et sans aucun pas elle doit y rester.",
        ),
        Misconception(
            "grad_accumulates",
            _accumulates,
            "Votre gradient se souvient des pas précédents : qui l'efface ?",
        ),
        Misconception(
            "stochastic",
            _stochastic,
            "Vous mettez à jour après chaque exemple : un pas, ici, voit tous les exemples à la fois.",
        ),
        Misconception(
            "sigmoid",
            swap((_ERROR, "torch.sigmoid(features @ weight.T + bias) - target")),
            "Vos classes ne se disputent pas la même probabilité : leur somme doit valoir 1.",
        ),
        Misconception(
            "squared_error",
            swap((_ERROR, "features @ weight.T + bias - target")),
            "Vous comparez des scores à 0 et 1, comme pour une erreur quadratique : où sont les probabilités ?",
        ),
        Misconception(
            "softmax_axis",
            swap(("bias, dim=-1)", "bias, dim=0)")),
            "Vos probabilités somment à 1 sur les exemples : c'est sur les classes d'un exemple qu'elles doivent le "
            "faire.",
        ),
        Misconception(
            "ascent",
            swap((_UPDATE, "weight, bias = weight + lr * grad_weight, bias + lr * grad_bias")),
            "Votre perte monte : dans quel sens faut-il suivre le gradient ?",
        ),
        Misconception(
            "bias_frozen",
            swap((_UPDATE, "weight = weight - lr * grad_weight")),
            "Votre biais ne bouge pas : il apprend lui aussi.",
        ),
        Misconception(
            "one_less",
            swap(("range(steps)", "range(steps - 1)")),
            "Comptez les mises à jour : il en manque une.",
        ),
        Misconception(
            "transposed",
            swap(("return weight, bias", "return weight.T, bias")),
            "Votre matrice est couchée : l'énoncé veut une ligne par classe.",
        ),
        Misconception(
            "no_check",
            swap(("if steps < 0:", "if False:")),
            "Un nombre de pas négatif ne veut rien dire : votre fonction répond quand même.",
        ),
    ],
)


# --- freeze_except --------------------------------------------------------------------------------------------------

_SMALL = {"n_layer": 3, "n_head": 2, "n_embd": 8, "vocab_size": 23, "n_positions": 16}
_DEEP = _SMALL | {"n_layer": 12, "n_embd": 4, "n_head": 1}


def draw_freeze(d: Draw, group: str) -> Inputs:
    layer = d.integer(0, 2)
    if group == "courant":
        config, patterns = d.turn(
            [
                (_SMALL, [f"h.{layer}.", "ln_f", "wte"]),
                (_DEEP, ["h.1.", "wte.weight"]),
                (_SMALL, [".mlp.", "wte"]),
                (_SMALL, [f"h.{layer}.attn", "ln_f", "wte"]),
            ]
        )
    elif group == "bords":
        config, patterns = d.turn(
            [
                (_SMALL, []),
                (_SMALL, ["transformer"]),
                (_SMALL, [f"transformer.h.{layer}.ln_1.bias"]),
                (_SMALL, ["bias", ".attn."]),
            ]
        )
    else:
        config = _SMALL
        patterns = d.turn([["lm_head"], ["h.7.", "ln_f"], ["ln_f", "c_atn"], ["wte", "lm_head"]])
    return {"config": config, "seed": d.integer(0, 2**31), "args": {"patterns": patterns}}


_MATCH = "parameter.requires_grad_(any(pattern in name for pattern in patterns))"
_UNKNOWN = "if not any(pattern in name for name in names):"
_NAMES = "names = [name for name, _ in model.named_parameters()]"
_LOOP = "for name, parameter in model.named_parameters():"
_RETURN = "return sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)"
_WANTED = "return sorted(name for name in names if any(pattern in name for pattern in patterns))"

freeze_except = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Affichez [nom for nom, _ in model.named_parameters()] : à quoi ressemble le nom d'un poids du bloc 3 ?",
        "Chaque paramètre doit recevoir une décision, oui ou non, quel que soit son état avant l'appel.",
        "Avant de rien changer, assurez-vous que chaque motif, pris seul, se trouve dans au moins un nom.",
    ],
    groups={"courant": 0.6, "bords": 0.2, "refus": 0.2},
    draw=draw_freeze,
    probe="freeze",
    visible=3,
    examples=[{"config": _SMALL | {"n_layer": 2}, "seed": 3, "args": {"patterns": ["h.1.mlp", "ln_f"]}}],
    misconceptions=[
        Misconception(
            "never_freezes",
            swap(
                (_MATCH, "parameter.requires_grad |= any(pattern in name for pattern in patterns)"),
                (_RETURN, _WANTED),
            ),
            "Vous allumez les bons, mais les autres restent allumés.",
        ),
        Misconception(
            "never_freezes_listed",
            swap((_MATCH, "parameter.requires_grad |= any(pattern in name for pattern in patterns)")),
            "Votre liste contient des paramètres qu'aucun motif ne désigne : ils apprenaient avant l'appel, et "
            "apprennent encore.",
        ),
        Misconception(
            "never_unfreezes",
            swap((_MATCH, "parameter.requires_grad &= any(pattern in name for pattern in patterns)")),
            "Un paramètre déjà gelé avant l'appel doit pouvoir se réveiller.",
        ),
        Misconception(
            "attribute_on_module",
            swap(
                (
                    f"{_LOOP}\n        {_MATCH}",
                    "for name, part in model.named_modules():\n"
                    "        part.requires_grad = any(pattern in name for pattern in patterns)",
                ),
                (_RETURN, _WANTED),
            ),
            "Poser cet attribut sur un module ne change rien à ses paramètres : torch ne le lira jamais.",
        ),
        Misconception(
            "full_name_only",
            swap((_MATCH, "parameter.requires_grad_(name in patterns)")),
            "Un motif est un morceau de nom, pas un nom entier.",
        ),
        Misconception(
            "prefix_only",
            swap((_MATCH, "parameter.requires_grad_(name.removeprefix('transformer.').startswith(tuple(patterns)))")),
            "Un motif peut se trouver n'importe où dans le nom, pas seulement au début.",
        ),
        Misconception(
            "all_patterns",
            swap((_MATCH, "parameter.requires_grad_(all(pattern in name for pattern in patterns))")),
            "Il suffit qu'un des motifs soit dans le nom ; vous les exigez tous à la fois.",
        ),
        Misconception(
            "last_pattern",
            swap((_MATCH, "parameter.requires_grad_(any(pattern in name for pattern in patterns[-1:]))")),
            "Seul le dernier motif compte chez vous : chaque tour de boucle défait le précédent.",
        ),
        Misconception(
            "regular_expression",
            swap(
                ("    names =", "    import re\n\n    names ="),
                (_MATCH, "parameter.requires_grad_(any(re.search(pattern, name) for pattern in patterns))"),
            ),
            "Dans une expression régulière, un point veut dire « n'importe quel caractère » : h.1. y désigne aussi "
            "h.10 "
            "et h.11.",
        ),
        Misconception(
            "inverted",
            swap((_MATCH, _MATCH.replace("any(", "not any("))),
            "Vous gelez ce qu'il fallait entraîner, et entraînez le reste.",
        ),
        Misconception(
            "tied_head",
            swap(
                (_NAMES, _NAMES.replace("named_parameters()", "named_parameters(remove_duplicate=False)")),
                (_LOOP, _LOOP.replace("named_parameters()", "named_parameters(remove_duplicate=False)")),
                (_RETURN, _RETURN.replace("named_parameters()", "named_parameters(remove_duplicate=False)")),
            ),
            "La tête et la table d'entrée sont un seul paramètre sous deux noms : le second nom ne compte pas.",
        ),
        Misconception(
            "check_any",
            swap(
                (
                    "for pattern in patterns:\n        " + _UNKNOWN,
                    "for pattern in patterns[:1]:\n        if not any(p in name for name in names for p in patterns):",
                )
            ),
            "Un motif mal orthographié passe inaperçu dès qu'un autre est bon.",
        ),
        Misconception(
            "no_check",
            swap((_UNKNOWN, "if False:")),
            "Un motif qui ne désigne rien est sans doute une faute de frappe : votre fonction n'en dit rien.",
        ),
        Misconception(
            "unsorted",
            swap((_RETURN, _RETURN.replace("sorted(", "list("))),
            "Vos noms sont dans l'ordre du modèle : l'énoncé les veut triés.",
        ),
    ],
)


# --- align_labels ---------------------------------------------------------------------------------------------------


def draw_align(d: Draw, group: str) -> Inputs:
    words = d.integer(5, 7)
    labels = [d.integer(0, 4) for _ in range(words)]
    silent = d.integer(1, words - 2)
    twin = d.choice([i for i in range(words - 1) if silent not in (i, i + 1)])
    labels[twin + 1] = labels[twin]
    labels[silent] = (labels[silent + 1] + d.integer(1, 4)) % 5
    pieces = [d.integer(1, 3) for _ in range(words)]
    long, short = d.random.sample([i for i in range(words) if i != silent], 2)
    pieces[long], pieces[short] = 3, 2
    if group == "courant":
        pieces[silent] = d.turn([1, 0, 0, 1])
    ids = [i for i, n in enumerate(pieces) for _ in range(n)]
    if group == "courant":
        return {"word_ids": [None, *ids, *[None] * d.integer(0, 2)], "word_labels": labels}
    return d.turn(
        [
            {"word_ids": ids, "word_labels": labels},
            {"word_ids": [None, *ids[: d.integer(3, 5)]], "word_labels": labels},
            {"word_ids": [None, *ids, None], "word_labels": [0] * words},
            {"word_ids": [[], [None] * d.integer(1, 4)][d.integer(0, 1)], "word_labels": labels},
        ]
    )


_SKIP = "if word is None or word == previous:"
_IGNORED = _SKIP + "\n            labels.append(-100)"

align_labels = Exercise(
    points=2,
    minutes=10,
    stars=1,
    hints=[
        "Prenez ['in', 'constitu', 'tion', 'nel'] : quatre jetons, un mot. Combien d'étiquettes à apprendre ?",
        "Un jeton commence un mot quand son numéro de mot n'est pas celui du jeton d'avant.",
        "L'étiquette se lit dans word_labels, à la place que donne le numéro du mot. Attention : le premier numéro "
        "est 0, "
        "et un mot peut n'avoir donné aucun jeton.",
    ],
    groups={"courant": 0.7, "bords": 0.3},
    draw=draw_align,
    visible=4,
    examples=[{"word_ids": [None, 0, 1, 1, 1, 2, None], "word_labels": [3, 0, 0]}],
    misconceptions=[
        Misconception(
            "all_subwords",
            swap((_SKIP, "if word is None:")),
            "Un mot long compte chez vous plusieurs fois dans la perte.",
        ),
        Misconception(
            "last_subword",
            swap(
                ("for word in word_ids:", "for word, after in zip(word_ids, word_ids[1:] + [None]):"),
                (_SKIP, "if word is None or word == after:"),
            ),
            "Votre étiquette est sur le dernier morceau de chaque mot ; l'énoncé la veut sur le premier.",
        ),
        Misconception(
            "specials_zero",
            swap((_SKIP, "if word is None:\n            labels.append(0)\n        elif word == previous:")),
            "0 est une vraie étiquette : sur un jeton qui n'appartient à aucun mot, il n'y a rien à apprendre.",
        ),
        Misconception(
            "zeros_everywhere",
            swap(("labels.append(-100)", "labels.append(0)")),
            "0 est une vraie étiquette : la perte ne saura pas qu'il faut l'ignorer.",
        ),
        Misconception(
            "falsy_zero",
            swap((_SKIP, "if not word or word == previous:")),
            "Le premier mot porte le numéro 0 : que vaut 0 dans une condition ?",
        ),
        Misconception(
            "label_change",
            swap(
                ("labels, previous = [], None", "labels, previous = [], -1"),
                (_SKIP, "if word is None or word_labels[word] == previous:"),
                ("previous = word", "previous = -1 if word is None else word_labels[word]"),
            ),
            "Deux mots voisins peuvent avoir la même étiquette : ce sont les numéros de mots qu'il faut comparer.",
        ),
        Misconception(
            "restarts",
            swap(
                (
                    _SKIP + "\n            labels.append(-100)",
                    _SKIP + "\n            labels.append(-100)\n            word = None",
                )
            ),
            "Un mot en trois morceaux reçoit chez vous deux étiquettes : votre mémoire du mot précédent s'efface en "
            "route.",
        ),
        Misconception(
            "counts_words",
            swap(
                ("labels, previous = [], None", "labels, previous, following = [], None, iter(word_labels)"),
                ("labels.append(word_labels[word])", "labels.append(next(following))"),
            ),
            "Vous distribuez les étiquettes dans l'ordre : un mot qui n'a donné aucun jeton décale toutes les "
            "suivantes.",
        ),
        Misconception(
            "specials_dropped",
            swap((_SKIP, "if word is None:\n            continue\n        if word == previous:")),
            "La sortie doit rester alignée avec les jetons : une valeur pour chacun, même spécial.",
        ),
        Misconception(
            "subwords_dropped",
            swap((_SKIP, "if word is not None and word == previous:\n            continue\n        if word is None:")),
            "Vous rendez une étiquette par mot : il en faut une par jeton.",
        ),
    ],
)


# --- lm_labels ------------------------------------------------------------------------------------------------------


def draw_labels(d: Draw, group: str) -> Inputs:
    rows, longest = d.integer(3, 4), d.integer(8, 10)
    kind = d.turn(["droite", "gauche", "mêlé", "gauche"])
    lengths = [d.integer(5, longest - 2) for _ in range(rows)]
    mask = _mask(lengths, longest, _sides(d, rows, kind))
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


_RANK = "attention_mask.cumsum(dim=1)"
_LEARNED = "attention_mask.bool() & (rank > prompt_lengths[:, None])"

lm_labels = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Parmi les jetons d'une ligne, lesquels le modèle doit-il apprendre à écrire ? Rayez l'amorce, rayez le "
        "remplissage.",
        "Une amorce de trois jetons, ce sont les trois premiers vrais jetons de la ligne. Où commencent-ils quand le "
        "remplissage est à gauche ?",
        "La somme cumulée du masque numérote les vrais jetons : 1 pour le premier, 2 pour le deuxième, et ainsi de "
        "suite.",
        "On garde ce qui est vrai et dont le rang dépasse la longueur de l'amorce ; le reste vaut −100.",
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
    misconceptions=[
        Misconception(
            "shifted",
            swap(("torch.where(learned, input_ids, -100)", "torch.where(learned, input_ids, -100).roll(-1, dims=1)")),
            "Le modèle décale déjà : en décalant aussi, vous lui faites apprendre le jeton d'après le suivant.",
        ),
        Misconception(
            "prompt_from_zero",
            swap((_RANK, "torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)")),
            "Avec du remplissage à gauche, l'amorce ne commence pas à l'indice 0.",
        ),
        Misconception(
            "pad_token_id",
            swap((_LEARNED, "(input_ids != 0) & (rank > prompt_lengths[:, None])")),
            "Le jeton de remplissage peut aussi apparaître dans le texte : qui dit la vérité, lui ou le masque ?",
        ),
        Misconception(
            "padding_kept",
            swap((_LEARNED, "rank > prompt_lengths[:, None]")),
            "Le modèle apprend chez vous à écrire du remplissage après la fin.",
        ),
        Misconception(
            "prompt_kept",
            swap((_LEARNED, "attention_mask.bool()")),
            "Le modèle apprend chez vous à écrire l'amorce, qu'on lui donnera toujours.",
        ),
        Misconception(
            "first_answer_lost",
            swap(("rank > prompt_lengths[:, None]", "rank > prompt_lengths[:, None] + 1")),
            "Le premier jeton de la réponse doit être appris, lui aussi : c'est le plus difficile.",
        ),
        Misconception(
            "prompt_leaks",
            swap(("rank > prompt_lengths[:, None]", "rank >= prompt_lengths[:, None]")),
            "Le dernier jeton de l'amorce est appris chez vous : combien de jetons faut-il cacher ?",
        ),
        Misconception(
            "inverted",
            swap(("rank > prompt_lengths[:, None]", "rank <= prompt_lengths[:, None]")),
            "Vous gardez l'amorce et cachez la réponse.",
        ),
        Misconception(
            "one_length",
            swap(("prompt_lengths[:, None]", "prompt_lengths[0]")),
            "Toutes vos lignes ont l'amorce de la première : chacune a sa longueur.",
        ),
        Misconception(
            "zeros",
            swap(("input_ids, -100)", "input_ids, 0)")),
            "0 est un jeton comme un autre : la perte n'ignore que −100.",
        ),
    ],
)


# --- training_memory_bytes ------------------------------------------------------------------------------------------


def draw_memory(d: Draw, group: str) -> Inputs:
    n = d.integer(10**5, 10**9)
    if group == "refus":
        return {"n_params": n, "n_trainable": -d.integer(1, 10**5)}
    if group == "bords":
        return {"n_params": n, "n_trainable": d.turn([0, 0, n, 1])}
    if d.index % 4 == 2:
        return {"n_params": n}
    return {"n_params": n, "n_trainable": d.integer(10**3, n // 3)}


_MEMORY = "return 2 * n_params + (2 + 4 + 8) * trainable"


def _memory(formula: str) -> Any:
    return swap((_MEMORY, f"return {formula}"))


training_memory_bytes = Exercise(
    points=2,
    minutes=10,
    stars=1,
    hints=[
        "Faites deux listes : ce qu'il faut garder pour tout poids, et ce qu'il faut de plus pour un poids qui "
        "apprend.",
        "Un poids qui apprend a un gradient (2 octets), une copie précise (4 octets) et deux moments d'Adam (4 octets "
        "chacun).",
        "Un modèle entièrement entraîné coûte 16 octets par paramètre ; un modèle gelé, 2.",
    ],
    groups={"courant": 0.7, "bords": 0.15, "refus": 0.15},
    draw=draw_memory,
    visible=4,
    examples=[{"n_params": 1000}, {"n_params": 1000, "n_trainable": 10}, {"n_params": 1000, "n_trainable": 0}],
    misconceptions=[
        Misconception(
            "trainable_ignored",
            _memory("16 * n_params + 0 * trainable"),
            "Un poids gelé n'a ni gradient, ni copie, ni mémoire d'Adam : il ne coûte que ses 2 octets.",
        ),
        Misconception(
            "moments_for_all",
            _memory("10 * n_params + 6 * trainable"),
            "Adam ne garde rien d'un poids gelé : vous comptez ses deux moments pour tous.",
        ),
        Misconception(
            "four_bytes_frozen",
            _memory("4 * n_params + 12 * trainable"),
            "Un poids gelé ne coûte que 2 octets ; vous lui en donnez 4 : un gradient qu'il ne reçoit pas, ou une "
            "écriture "
            "en FP32 que la précision mixte évite ?",
        ),
        Misconception(
            "four_bytes_short",
            _memory("2 * n_params + 10 * trainable"),
            "Il manque quatre octets par poids entraîné : la copie en FP32, où s'accumulent les petites mises à jour, "
            "ou "
            "l'un des deux moments d'Adam ?",
        ),
        Misconception(
            "no_moments",
            _memory("2 * n_params + 6 * trainable"),
            "Que retient Adam d'un pas à l'autre ? Votre compte est celui d'une descente de gradient sans mémoire.",
        ),
        Misconception(
            "no_gradient",
            _memory("2 * n_params + 12 * trainable"),
            "Entre le passage arrière et la mise à jour, il faut bien que les gradients soient quelque part.",
        ),
        Misconception(
            "gradient_in_fp32",
            _memory("2 * n_params + 16 * trainable"),
            "Les gradients ont ici le type des poids, 2 octets : vous les comptez en FP32.",
        ),
        Misconception(
            "frozen_forgotten",
            _memory("16 * trainable"),
            "Les poids gelés ne s'entraînent pas, mais il faut bien les avoir en mémoire pour calculer.",
        ),
        Misconception(
            "in_bits",
            _memory("8 * (2 * n_params + 14 * trainable)"),
            "Votre compte est en bits ; l'énoncé demande des octets.",
        ),
        Misconception(
            "truthiness",
            swap(("n_params if n_trainable is None else n_trainable", "n_trainable or n_params")),
            "Que rend votre fonction quand rien n'est entraîné ? Zéro n'est pas une absence de réponse.",
        ),
        Misconception(
            "no_check",
            swap(("if trainable < 0:", "if False:")),
            "Un nombre négatif de paramètres ne veut rien dire : votre fonction répond quand même.",
        ),
        Misconception(
            "zero_refused",
            swap(("if trainable < 0:", "if trainable < 1:")),
            "Ne rien entraîner est permis : le modèle tient alors dans ses seuls poids.",
        ),
    ],
)


# --- finetuning_storage_bytes ---------------------------------------------------------------------------------------


def draw_storage(d: Draw, group: str) -> Inputs:
    inputs = {"n_params": d.integer(10**6, 10**11), "n_tasks": d.integer(3, 200)}
    small = d.integer(10**4, 10**6 - 1)
    if group == "refus":
        return inputs | {"n_tasks": -d.integer(1, 9)} | d.turn([{}, {"bytes_per_param": 2, "n_task_params": small}])
    if group == "bords":
        return inputs | d.turn(
            [
                {"bytes_per_param": 2, "n_task_params": 0},
                {"n_tasks": 0, "bytes_per_param": 4, "n_task_params": small},
                {"n_tasks": 0},
                {"n_tasks": 1, "bytes_per_param": 1},
            ]
        )
    return inputs | d.turn(
        [
            {},
            {"bytes_per_param": 4, "n_task_params": small},
            {"bytes_per_param": 4},
            {"bytes_per_param": 2, "n_task_params": small},
        ]
    )


_COPIES = "return n_params * n_tasks * bytes_per_param"
_SHARED = "return (n_params + n_tasks * n_task_params) * bytes_per_param"

finetuning_storage_bytes = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Ajuster tout le modèle change tous ses poids : combien de fichiers complets faut-il pour T tâches ?",
        "Si les tâches partagent une base, combien de fois est-elle sur le disque ?",
        "Copies : N·T poids. Base partagée : N + T·n poids. Le tout en octets.",
    ],
    groups={"courant": 0.7, "bords": 0.15, "refus": 0.15},
    draw=draw_storage,
    visible=4,
    examples=[
        {"n_params": 1000, "n_tasks": 3},
        {"n_params": 1000, "n_tasks": 3, "bytes_per_param": 2, "n_task_params": 10},
        {"n_params": 1000, "n_tasks": 3, "bytes_per_param": 2, "n_task_params": 0},
    ],
    misconceptions=[
        Misconception(
            "base_per_task",
            swap((_SHARED, "return (n_params + n_task_params) * n_tasks * bytes_per_param")),
            "Si la base est partagée, combien de fois est-elle sur le disque ?",
        ),
        Misconception(
            "base_forgotten",
            swap((_SHARED, "return n_tasks * n_task_params * bytes_per_param")),
            "Les petits modules ne servent à rien sans le modèle sur lequel ils se posent.",
        ),
        Misconception(
            "tasks_forgotten",
            swap((_SHARED, "return (n_params + n_task_params) * bytes_per_param")),
            "Chaque tâche a son propre module : vous n'en comptez qu'un.",
        ),
        Misconception(
            "base_besides_copies",
            swap((_COPIES, "return n_params * (n_tasks + 1) * bytes_per_param")),
            "Chaque tâche a sa copie complète : faut-il encore garder l'original à côté ?",
        ),
        Misconception(
            "one_copy",
            swap((_COPIES, "return n_params * bytes_per_param")),
            "Une copie pour toutes les tâches ? Elles ont changé les poids chacune à leur façon.",
        ),
        Misconception(
            "truthiness",
            swap(("if n_task_params is None:", "if not n_task_params:")),
            "Zéro paramètre par tâche et « pas de base partagée » ne sont pas la même demande.",
        ),
        Misconception(
            "bytes_fixed",
            swap(
                (_COPIES, "return n_params * n_tasks * 2"), (_SHARED, "return (n_params + n_tasks * n_task_params) * 2")
            ),
            "Changez le nombre d'octets par paramètre : votre réponse ne bouge pas.",
        ),
        Misconception(
            "base_only_in_bytes",
            swap((_SHARED, "return n_params * bytes_per_param + n_tasks * n_task_params")),
            "Vous additionnez des octets et des paramètres.",
        ),
        Misconception(
            "parameters",
            swap((_COPIES, "return n_params * n_tasks"), (_SHARED, "return n_params + n_tasks * n_task_params")),
            "Vous comptez des paramètres : combien d'octets chacun occupe-t-il ?",
        ),
        Misconception(
            "in_bits",
            swap((_COPIES, _COPIES + " * 8"), (_SHARED, _SHARED + " * 8")),
            "Octets ou bits ?",
        ),
        Misconception(
            "no_check",
            swap(("if n_tasks < 0:", "if False:")),
            "Un nombre négatif de tâches ne veut rien dire : votre fonction répond quand même.",
        ),
        Misconception(
            "zero_refused",
            swap(("if n_tasks < 0:", "if n_tasks < 1:")),
            "Sans aucune tâche, il reste la base si elle est partagée, et rien sinon : les deux sont des réponses.",
        ),
    ],
)


# --- Quiz -----------------------------------------------------------------------------------------------------------

catastrophic_forgetting = Quiz(
    "Ajusté sur la fantasy, Colibri devient mauvais sur les guides de l'administration. Pourquoi ?",
    (
        Choice(
            "Il n'a plus assez de paramètres pour contenir les deux sortes de textes à la fois",
            "Peut-être, mais rien ne l'a encore obligé à choisir : entraîné sur les deux à la fois, il garderait les "
            "deux.",
        ),
        Choice(
            "Le taux d'apprentissage était trop grand",
            "Un taux plus petit oublie moins, et apprend moins aussi : il ralentit l'oubli sans en être la cause.",
        ),
        Choice(
            "Plus rien dans la perte ne demande aux poids de servir les guides",
            "Le gradient ne connaît que le lot présent. Ce que l'ancien texte exigeait n'y est plus écrit nulle part.",
            correct=True,
        ),
        Choice(
            "Les deux textes se contredisent",
            "Il ne s'agit pas de faits : le modèle a surtout déplacé ses habitudes de mots vers une autre langue.",
        ),
    ),
)

which_token = Quiz(
    "Colibri est causal : chaque jeton ne voit que ceux qui le précèdent. Lequel a pu lire tout le texte ?",
    (
        Choice(
            "Le premier, comme le [CLS] de BERT",
            "Chez BERT, l'attention va dans les deux sens ; ici, le premier jeton n'a vu que lui-même.",
        ),
        Choice(
            "Le dernier",
            "C'est le seul. C'est le choix de GPT dès 2018.",
            correct=True,
        ),
        Choice(
            "Tous, puisque l'attention les relie",
            "Le masque causal interdit le futur : le jeton du milieu ignore la seconde moitié.",
        ),
        Choice(
            "Aucun : il faut faire la moyenne",
            "On peut faire la moyenne, et nous l'essaierons ; mais un jeton au moins a tout lu.",
        ),
    ),
)

transfer_gain = Quiz(
    "Colibri n'a jamais vu les douze sujets. D'où vient son avance sur le même modèle parti de zéro ?",
    (
        Choice(
            "Il sait déjà quels mots vont ensemble : il ne lui reste qu'à nommer les groupes",
            "Prédire le jeton suivant l'a obligé à rapprocher « loyer », « bail » et « locataire ».",
            correct=True,
        ),
        Choice(
            "Il a appris par cœur les textes de test, qui se trouvaient dans son texte d'entraînement",
            "Les documents de test et de validation ont été retirés de son texte d'entraînement ; ceux d'entraînement "
            "peuvent s'y trouver, sans leurs sujets.",
        ),
        Choice(
            "Il a plus de paramètres",
            "Le modèle parti de zéro a exactement la même taille.",
        ),
        Choice(
            "Ses poids sont plus grands, donc ses gradients aussi",
            "La taille des poids n'est pas ce qui manque au modèle tiré au hasard : il apprend, mais à partir de rien.",
        ),
    ),
)

frozen_features = Quiz(
    "La tête apprend pendant cent passages sur 3 200 textes. Combien de fois le corps gelé lit-il chaque texte ?",
    (
        Choice(
            "Cent fois : une par passage",
            "C'est ce que ferait une boucle naïve ; mais le corps rendrait cent fois exactement le même vecteur.",
        ),
        Choice(
            "Deux cents fois : un aller et un retour par passage",
            "Le gradient s'arrête à la tête : le corps gelé n'a pas de retour à faire.",
        ),
        Choice(
            "Une fois, si l'on garde ce qu'il a rendu",
            "Ses poids ne changent pas, sa réponse non plus. Nous retrouverons ce cache aux chapitres 7 et 8.",
            correct=True,
        ),
        Choice(
            "Jamais : la tête lit directement les jetons",
            "La tête lit les vecteurs que le corps a fabriqués.",
        ),
    ),
)

silver_tags = Quiz(
    "Le modèle qui a posé ces étiquettes se trompe sur environ 4 mots sur 100. Que mesure une justesse calculée "
    "contre elles ?",
    (
        Choice(
            "L'accord avec ce modèle, fautes comprises",
            "Retrouver une de ses erreurs rapporte, la corriger coûte. C'est utile, si on le dit.",
            correct=True,
        ),
        Choice(
            "La justesse vraie, à 4 points près",
            "Les erreurs des deux modèles peuvent se ressembler ou se croiser : on ne peut pas simplement soustraire.",
        ),
        Choice(
            "Rien : il faut jeter ces étiquettes",
            "Elles apprennent bel et bien la grammaire ; c'est leur usage comme vérité qui est trompeur.",
        ),
        Choice(
            "La justesse vraie, car l'apprentissage corrige les erreurs au hasard",
            "Il en lisse certaines, mais un score contre des étiquettes fausses ne peut pas le montrer.",
        ),
    ),
)

first_subword = Quiz(
    "Pourquoi le dernier jeton d'un mot s'étiquette-t-il mieux que le premier, chez Colibri et pas chez BERT ?",
    (
        Choice(
            "Le dernier jeton est plus long, donc plus facile à reconnaître que le premier",
            "Sa longueur importe peu ; demandez-vous plutôt ce que chaque jeton a déjà lu.",
        ),
        Choice(
            "Les derniers jetons sont moins nombreux",
            "Il y en a exactement autant : un par mot.",
        ),
        Choice(
            "Colibri a appris à lire de droite à gauche",
            "C'est le contraire : il ne voit que la gauche.",
        ),
        Choice(
            "Au premier jeton, un modèle causal n'a pas encore vu la fin du mot",
            "« constitu… » est peut-être un verbe. BERT, lui, voit les deux côtés, et le premier jeton lui suffit.",
            correct=True,
        ),
    ),
)

mask_source = Quiz(
    "On met −100 sur l'amorce. Que se passerait-il sans cela ?",
    (
        Choice(
            "Le modèle verrait la réponse en lisant l'amorce",
            "Le masque causal l'en empêche de toute façon ; −100 ne cache rien au modèle, il ne parle qu'à la perte.",
        ),
        Choice(
            "Une part de l'apprentissage servirait à écrire de l'anglais, que l'on fournira toujours",
            "La perte ferait la moyenne de deux tâches. Le modèle lit l'amorce dans les deux cas.",
            correct=True,
        ),
        Choice(
            "Rien : la perte d'un jeton donné est toujours nulle",
            "Donné au modèle ne veut pas dire prévu par lui : sa surprise devant l'anglais est immense.",
        ),
        Choice(
            "L'apprentissage échouerait",
            "Il marcherait aussi, parfois à peine moins bien : c'est à mesurer, pas à croire.",
        ),
    ),
)

activations_kept = Quiz(
    "On n'entraîne que le premier bloc, et l'on gèle tous les autres. Quelles activations faut-il garder ?",
    (
        Choice(
            "Celles du premier bloc seulement",
            "Et comment le gradient y arriverait-il ? Il vient de la perte, tout en haut.",
        ),
        Choice(
            "Aucune, puisque presque tout est gelé",
            "Geler un poids dispense de son gradient à lui, pas de celui qui le traverse.",
        ),
        Choice(
            "Celles du premier bloc, et de quoi faire traverser au gradient tous ceux du dessus",
            "Geler le haut n'économise presque rien ici. C'est le bas qu'il faut geler.",
            correct=True,
        ),
        Choice(
            "Deux fois plus, car il faut recalculer le haut",
            "On peut choisir de recalculer au lieu de garder, mais rien n'y oblige.",
        ),
    ),
)
