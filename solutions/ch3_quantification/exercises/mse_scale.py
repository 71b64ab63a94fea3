"""Exercice `mse_scale` du chapitre 3.

Un demi n'est pas un piège ici : de part et d'autre, l'erreur est la même. Ce qui ne doit pas hésiter est le choix entre
deux candidats : le meilleur devance les autres de 1 % au moins (de 6 % en demi-précision), sauf quand l'égalité est le
sujet, et elle y est exacte.
"""

from __future__ import annotations

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import ONE_DIVISION, code_range


def _errors(w: torch.Tensor, bits: int, ratios: torch.Tensor, how: str = "") -> np.ndarray:
    """L'erreur de chaque ligne de w pour chaque candidat, (out, R), en float64. how : une façon de se tromper."""
    plain, low, high = w.double().numpy(), *code_range(bits, signed=True)
    widest = np.abs(plain).max(1, keepdims=True) / (high if how == "restreinte" else -low)
    steps = np.where(widest > 0, widest * ratios.double().numpy(), 1.0)
    codes = np.rint(plain[:, :, None] / steps[:, None])
    if how == "sans borne":
        return np.square(codes * steps[:, None] - plain[:, :, None]).sum(1)
    codes = codes.clip(low, high)
    gaps = codes - plain[:, :, None] / steps[:, None] if how == "codes" else codes * steps[:, None] - plain[:, :, None]
    return (np.abs(gaps) if how == "absolue" else np.square(gaps)).sum(1)


def _clear(errors: np.ndarray, margin: float) -> bool:
    """Le meilleur candidat de chaque ligne devance les autres de `margin`, relativement."""
    first, second = np.sort(errors, 1)[:, :2].T
    return bool((second > (1 + margin) * first).all())


_MISTAKES = ("sans borne", "codes", "absolue")
"""Les façons de se tromper que chaque cas courant sépare de la bonne."""


def _rows(d: Draw, width: int) -> torch.Tensor:
    """Trois lignes dont le meilleur pas n'est pas le même : sans extrême, avec un extrême, avec un plus grand.

    La dernière est aussi la plus grande : un choix commun à toutes serait le sien.
    """
    flat = 2 * torch.rand(width, generator=d.generator) - 1
    bells = d.normal(2, width)
    for bell, far in zip(bells, (d.uniform(3.0, 4.5), d.uniform(5.0, 7.0)), strict=True):
        bell[d.integer(0, width - 1)] = far * d.choice([-1, 1])
    w = torch.stack([flat, *bells]) * torch.tensor(
        [[d.uniform(0.2, 0.5)], [d.uniform(0.4, 0.8)], [d.uniform(1.0, 3.0)]]
    )
    return w[torch.randperm(3, generator=d.generator)]


def draw_steps(d: Draw, group: str) -> Inputs:
    edge = d.turn(["ligne nulle", "égalité", "un seul candidat", "égalité"]) if group == "bords" else ""
    for _ in range(5000):
        bits = 3 if edge else d.turn([3, 2, 3, 2])
        width = d.integer(12, 16) if bits == 2 else d.integer(40, 48)
        ratios = torch.tensor([1.0, *(round(r + d.uniform(-0.03, 0.03), 2) for r in (0.3, 0.42, 0.55, 0.7, 0.85))])
        ratios = ratios[torch.randperm(6, generator=d.generator)]
        w = _rows(d, width)
        if edge == "égalité":
            return _tied(d)
        if edge == "un seul candidat":
            return {"w": d.strided(w), "bits": 8, "ratios": torch.tensor([round(d.uniform(0.4, 0.9), 2)])}
        if edge == "ligne nulle":
            w[d.integer(0, 2)] = 0.0
            if _all_wrong(w[w.any(1)], bits, ratios, 0.01):
                return {"w": d.strided(w), "bits": bits, "ratios": ratios}
            continue
        if group == "types":
            w = d.turn([w.double(), w.half(), w.bfloat16(), w.double()])
        if _tells(w, bits, ratios, 0.01 if w.dtype.itemsize > 2 else 0.06):
            return {"w": w, "bits": bits, "ratios": ratios}
    raise AssertionError("aucun tirage ne convient")


def _all_wrong(w: torch.Tensor, bits: int, ratios: torch.Tensor, margin: float) -> bool:
    """Chaque faute choisit-elle, pour une de ces lignes au moins, un autre candidat, avec de la marge ?"""
    right = _errors(w, bits, ratios)
    found = [right.sum(0, keepdims=True), *(_errors(w, bits, ratios, how) for how in _MISTAKES)]
    if not all(_clear(errors, margin) for errors in (right, *found)):
        return False
    return all((errors.argmin(1) != right.argmin(1)).any() for errors in found)


def _tells(w: torch.Tensor, bits: int, ratios: torch.Tensor, margin: float) -> bool:
    """Ce cas sépare-t-il chaque faute de la bonne réponse, avec de la marge des deux côtés ?"""
    right = _errors(w, bits, ratios)
    best, together = right.argmin(1), right.sum(0, keepdims=True)
    if not _clear(right, margin) or not _clear(together, margin):
        return False
    choices = {"": tuple(best), "ensemble": (int(together.argmin()),) * len(w)}
    for how in _MISTAKES:
        wrong = _errors(w, bits, ratios, how)
        if not _clear(wrong, margin):
            return False
        choices[how] = tuple(wrong.argmin(1))
    return len(set(choices.values())) == len(choices)


def _tied(d: Draw) -> Inputs:
    """Sur 2 bits, des lignes dont deux candidats font exactement la même erreur, la plus petite ; nombres dyadiques.

    Le plus grand poids vaut 1 : au pas 1/2, il est écrêté de 1/2 et les neuf autres, de 3/8, vont à 1/2 ; au pas
    3/8, ceux-ci tombent juste et lui est écrêté de 5/8. Les deux sommes font 25/64.
    """
    rows = []
    for size in d.random.sample([0.25, 0.5, 1.0, 2.0], 3):
        row = torch.tensor([1.0] + [0.375] * 9)
        row[1:] *= 2.0 * d.integers(0, 1, 9) - 1.0
        rows.append(size * row[torch.randperm(10, generator=d.generator)])
    ratios = d.turn([[0.5, 0.75, 0.25, 1.0], [0.75, 0.25, 1.0, 0.5], [0.25, 0.75, 1.0, 0.5]])
    return {"w": torch.stack(rows), "bits": 2, "ratios": torch.tensor(ratios)}


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Pour un seul candidat, écrivez les codes, puis les valeurs rendues, puis l'erreur. Que reste-t-il à répéter ?",
        "Un axe de plus, de taille R, remplace la boucle : où le mettre pour que chaque ligne ait son propre creux ?",
        "À erreur égale, argmin garde le premier : dans quel ordre ranger les candidats ?",
    ],
    groups={"courant": 0.6, "bords": 0.25, "types": 0.15},
    draw=draw_steps,
    visible=2,
    examples=[
        {
            "w": torch.tensor([[0.5, -0.4, 0.3, 2.0], [1.0, -1.0, 0.75, 0.25]]),
            "bits": 3,
            "ratios": torch.tensor([0.5, 1.0]),
        }
    ],
    tolerance=ONE_DIVISION,
)


misconceptions = """\
one_for_all   errors.argmin(dim=1, keepdim=True)
    → errors.sum(dim=0, keepdim=True).argmin(dim=1, keepdim=True).expand(len(w), 1)
    Toutes vos lignes reçoivent le même candidat : chacune a pourtant son propre creux.

code_error   (codes * steps[:, None] - w[:, :, None]) → (codes - w[:, :, None] / steps[:, None])
    Vous comparez des erreurs en pas, et les pas diffèrent : dans quelle unité un poids se trompe-t-il ?

no_clamp   .clamp(-levels, levels - 1) → ∅
    Sans écrêter, un pas court paraît toujours meilleur : que deviennent les poids hors des codes ?

absolute_error   .square().sum(dim=1) → .abs().sum(dim=1)
    Vous additionnez des écarts, non leurs carrés : une grande erreur n'y compte pas plus que dix petites.

first_kept   ratios.sort(descending=True).values → ratios
    À erreur égale, votre choix dépend de l'ordre où les candidats sont donnés.

restricted   widest = w.abs().amax(dim=1, keepdim=True) / levels
    → widest = w.abs().amax(dim=1, keepdim=True) / (levels - 1)
    Vos pas sont tous trop grands : de combien de codes dispose-t-on sous zéro ?

ratio_returned   return steps.gather(1, errors.argmin(dim=1, keepdim=True))
    → return ratios[errors.argmin(dim=1, keepdim=True)]
    Vous rendez le candidat, une part sans unité ; on attend un pas, dans l'unité de w.

zero_row   torch.where(widest > 0, widest * ratios, torch.ones_like(widest)) → widest * ratios
    Une ligne nulle vous donne un pas nul, par lequel on divisera ensuite.

flat   return steps.gather(1, errors.argmin(dim=1, keepdim=True))
    → return steps.gather(1, errors.argmin(dim=1, keepdim=True)).flatten()
    Divisez w par votre résultat : la forme ne s'aligne pas, ou s'aligne sur le mauvais axe.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def steps_by_loops(w, bits, ratios):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    steps = []
    for row in w.double().tolist():
        widest, kept = max(map(abs, row)) / -low, None
        for ratio in sorted(ratios.tolist(), reverse=True):
            step = widest * ratio or 1.0
            error = sum((step * max(low, min(high, round(v / step))) - v) ** 2 for v in row)
            if kept is None or error < kept[0]:
                kept = error, step
        steps.append([kept[1]])
    return torch.tensor(steps, dtype=torch.float64).to(w)


def steps_candidate_by_candidate(w, bits, ratios):
    """Un passage par candidat, le meilleur gardé ligne par ligne ; tout en float64."""
    plain, top = w.to(torch.float64), 2 ** (bits - 1)
    peak = plain.abs().max(1, keepdim=True).values
    kept = torch.ones_like(peak)
    least = torch.full_like(peak, float("inf"))
    for ratio in torch.sort(ratios)[0].flip(0).to(plain):
        step = torch.where(peak > 0, peak * ratio / top, torch.ones_like(peak))
        error = ((plain / step).round().clamp(-top, top - 1) * step - plain).pow(2).sum(1, keepdim=True)
        better = error < least
        kept, least = torch.where(better, step, kept), torch.where(better, error, least)
    return kept.to(w.dtype)


def steps_numpy(w, bits, ratios):
    a, r = w.float().numpy(), np.sort(ratios.numpy())[::-1]
    q = 2 ** (bits - 1)
    s = np.abs(a).max(1)[:, None] / q * r[None]
    s[s == 0] = 1
    e = ((np.clip(np.rint(a[..., None] / s[:, None]), -q, q - 1) * s[:, None] - a[..., None]) ** 2).sum(1)
    return torch.from_numpy(np.take_along_axis(s, e.argmin(1)[:, None], 1).copy()).to(w.dtype)


styles = [steps_by_loops, steps_candidate_by_candidate, steps_numpy]
