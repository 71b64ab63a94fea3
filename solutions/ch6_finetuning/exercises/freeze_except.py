"""Exercice `freeze_except` du chapitre 6."""

from __future__ import annotations

from atelier.judging.exercise import Draw, Exercise, Inputs

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


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Affichez [nom for nom, _ in model.named_parameters()] : à quoi ressemble le nom d'un poids du bloc 3 ?",
        "Chaque paramètre doit recevoir une décision, oui ou non, quel que soit son état avant l'appel.",
        "Avant de rien changer, assurez-vous que chaque motif, pris seul, se trouve dans au moins un nom.",
    ],
    groups={"courant": 0.7, "bords": 0.2, "refus": 0.1},
    draw=draw_freeze,
    probe="freeze",
    visible=3,
    examples=[{"config": _SMALL | {"n_layer": 2}, "seed": 3, "args": {"patterns": ["h.1.mlp", "ln_f"]}}],
)


misconceptions = """\
never_freezes   parameter.requires_grad_(any(pattern in name for pattern in patterns))
    → parameter.requires_grad |= any(pattern in name for pattern in patterns)
    & return sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    → return sorted(name for name in names if any(pattern in name for pattern in patterns))
    Vous allumez les bons, mais les autres restent allumés.

never_freezes_listed   parameter.requires_grad_(any(pattern in name for pattern in patterns))
    → parameter.requires_grad |= any(pattern in name for pattern in patterns)
    Votre liste contient des paramètres qu'aucun motif ne désigne : ils apprenaient avant l'appel, et apprennent
    encore.

never_unfreezes   parameter.requires_grad_(any(pattern in name for pattern in patterns))
    → parameter.requires_grad &= any(pattern in name for pattern in patterns)
    Un paramètre déjà gelé avant l'appel doit pouvoir se réveiller.

attribute_on_module
    - for name, parameter in model.named_parameters():
    -     parameter.requires_grad_(any(pattern in name for pattern in patterns))
    - return sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    + for name, part in model.named_modules():
    +     part.requires_grad = any(pattern in name for pattern in patterns)
    + return sorted(name for name in names if any(pattern in name for pattern in patterns))
    Poser cet attribut sur un module ne change rien à ses paramètres : torch ne le lira jamais.

full_name_only   parameter.requires_grad_(any(pattern in name for pattern in patterns))
    → parameter.requires_grad_(name in patterns)
    Un motif est un morceau de nom, pas un nom entier.

prefix_only   parameter.requires_grad_(any(pattern in name for pattern in patterns))
    → parameter.requires_grad_(name.removeprefix('transformer.').startswith(tuple(patterns)))
    Un motif peut se trouver n'importe où dans le nom, pas seulement au début.

all_patterns   parameter.requires_grad_(any(pattern in name for pattern in patterns))
    → parameter.requires_grad_(all(pattern in name for pattern in patterns))
    Il suffit qu'un des motifs soit dans le nom ; vous les exigez tous à la fois.

last_pattern   parameter.requires_grad_(any(pattern in name for pattern in patterns))
    → parameter.requires_grad_(any(pattern in name for pattern in patterns[-1:]))
    Seul le dernier motif compte chez vous : chaque tour de boucle défait le précédent.

regular_expression
    - names = [name for name, _ in model.named_parameters()]
    + import re
    +
    + names = [name for name, _ in model.named_parameters()]
    - parameter.requires_grad_(any(pattern in name for pattern in patterns))
    + parameter.requires_grad_(any(re.search(pattern, name) for pattern in patterns))
    Dans une expression régulière, un point veut dire « n'importe quel caractère » : h.1. y désigne aussi h.10 et
    h.11.

inverted   parameter.requires_grad_(any(pattern in name for pattern in patterns))
    → parameter.requires_grad_(not any(pattern in name for pattern in patterns))
    Vous gelez ce qu'il fallait entraîner, et entraînez le reste.

tied_head   names = [name for name, _ in model.named_parameters()]
    → names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    & for name, parameter in model.named_parameters():
    → for name, parameter in model.named_parameters(remove_duplicate=False):
    - return sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    + named = model.named_parameters(remove_duplicate=False)
    + return sorted(name for name, parameter in named if parameter.requires_grad)
    La tête et la table d'entrée sont un seul paramètre sous deux noms : le second nom ne compte pas.

check_any
    - for pattern in patterns:
    -     if not any(pattern in name for name in names):
    + for pattern in patterns[:1]:
    +     if not any(p in name for name in names for p in patterns):
    Un motif mal orthographié passe inaperçu dès qu'un autre est bon.

no_check   if not any(pattern in name for name in names): → if False:
    Un motif qui ne désigne rien est sans doute une faute de frappe : votre fonction n'en dit rien.

unsorted   return sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    → return list(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    Vos noms sont dans l'ordre du modèle : l'énoncé les veut triés.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def freeze_two_passes(model, patterns):
    found = {p: [n for n, _ in model.named_parameters() if p in n] for p in patterns}
    if not all(found.values()):
        raise ValueError("motif inconnu")
    model.requires_grad_(False)
    keep = set().union(*found.values()) if found else set()
    for n, p in model.named_parameters():
        if n in keep:
            p.requires_grad = True
    return sorted(keep)


def freeze_find(model, patterns):
    named = dict(model.named_parameters())
    for pattern in patterns:
        if sum(name.find(pattern) >= 0 for name in named) == 0:
            raise ValueError(pattern)
    out = []
    for name in sorted(named):
        named[name].requires_grad = False
        for pattern in patterns:
            if name.find(pattern) != -1:
                named[name].requires_grad = True
        if named[name].requires_grad:
            out += [name]
    return out


def freeze_counts(model, patterns):
    seen = dict.fromkeys(patterns, 0)
    chosen = []
    for name, parameter in model.named_parameters():
        hits = [p for p in patterns if p in name]
        for p in hits:
            seen[p] += 1
        if hits:
            chosen.append((name, parameter))
    if 0 in seen.values():
        raise ValueError("motif inconnu")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for _, parameter in chosen:
        parameter.requires_grad_(True)
    return sorted(name for name, _ in chosen)


def freeze_escaped_regex(model, patterns):
    import re

    names = [name for name, _ in model.named_parameters()]
    if any(not any(re.search(re.escape(p), n) for n in names) for p in patterns):
        raise ValueError("motif inconnu")
    wanted = re.compile("|".join(map(re.escape, patterns))) if patterns else None
    for name, parameter in model.named_parameters():
        parameter.requires_grad = bool(wanted and wanted.search(name))
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    names.sort()
    return names


styles = [freeze_two_passes, freeze_find, freeze_counts, freeze_escaped_regex]
