"""Déclarations du chapitre 5 : points, indices, tirage des cas, tolérances, idées fausses, quiz.

Règle des tirages : un nombre de poids à retirer reste à 0,1 au moins d'un demi ; deux importances qui décident d'un
masque diffèrent de 3 % au moins, même en demi-précision, sauf dans les cas d'égalité, où elles sont exactement égales.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from atelier.exercise import Choice, Draw, Exercise, Inputs, Misconception, Quiz, Tolerance, swap

# --- Outils des tirages ---------------------------------------------------------------------------------------------


def _distinct(d: Draw, *shapes: Sequence[int], scales: Sequence[float] = (1.0,)) -> list[Tensor]:
    """Des tenseurs de signes mêlés dont toutes les valeurs absolues s'écartent d'au moins 4 %.

    Une suite géométrique est distribuée d'après le rang de tirages gaussiens, chacun d'échelle `scales`.
    """
    raw = [scale * d.normal(*shape) for shape, scale in zip(shapes, scales, strict=True)]
    flat = torch.cat([r.flatten() for r in raw])
    sizes = torch.exp(torch.linspace(-0.025 * len(flat), 0.025 * len(flat), len(flat)))
    values = sizes[flat.abs().argsort().argsort()] * torch.where(flat < 0, -1.0, 1.0)
    return [v.reshape(r.shape) for v, r in zip(values.split([r.numel() for r in raw]), raw, strict=True)]


def _share(d: Draw, n: int, low: bool | None = None) -> float:
    """Une part dont le produit par n tombe à 0,1 à 0,4 d'un entier, et qui n'est pas celle qu'on garde.

    Un cas sur deux, le produit tombe sous l'entier : tronquer n'est pas arrondir.
    """
    few = d.integer(0, 1) == 0 if low is None else low
    count = d.integer(max(1, n // 5), max(1, 2 * n // 5)) if few else d.integer((3 * n + 4) // 5, (4 * n) // 5)
    shift = d.uniform(0.1, 0.4)
    return (count - shift if d.index % 2 == 0 else count + shift) / n


def _out_of_range(d: Draw) -> float:
    return d.turn([d.uniform(1.05, 2), -d.uniform(0.05, 0.9), d.uniform(1.01, 1.04), -d.uniform(1.5, 3)])


_BAD_AMOUNT = "if not 0 <= amount <= 1:"
_NO_CHECK = "Une part de −20 % ou de 120 % ne veut rien dire : votre fonction répond quand même, au lieu de la refuser."
_TRUNCATES = "Il vous manque parfois un poids : couper la partie décimale n'est pas arrondir."
_RETURNS_WEIGHTS = "Vous rendez les poids élagués : l'énoncé demande où sont les poids gardés."
_INVERTED = "Vous gardez ce qu'il fallait retirer : que veut dire True dans ce masque ?"


# --- sparsity -------------------------------------------------------------------------------------------------------


def _with_zeros(d: Draw, share: float, *shape: int) -> Tensor:
    """Un tenseur gaussien dont une part environ est nulle, et dont un élément est minuscule."""
    t = d.normal(*shape)
    t[torch.rand(t.shape, generator=d.generator) < share] = 0.0
    t.view(-1)[0], t.view(-1)[-1] = 1e-12 * d.choice([-1, 1]), 0.0
    return t


def draw_sparsity(d: Draw, group: str) -> Inputs:
    some = [
        _with_zeros(d, 0.7, d.integer(2, 3), 3),
        _with_zeros(d, 0.15, d.integer(5, 6), d.integer(6, 8)),
        _with_zeros(d, 0.4, d.integer(9, 12)),
    ]
    if group == "courant":
        return {"tensors": tuple(some[: 2 + d.index % 2])}
    if group == "itérateur":
        return {"tensors": some[d.index % 2 :]}
    few = d.integers(-2, 2, 3, 5)
    few[0, 0] = 0
    return {
        "tensors": d.turn(
            [
                (d.strided(some[0]), some[1].T, torch.tensor(0.0)),
                (few.to(torch.int8), some[1].double()),
                (-torch.zeros(2, 3), some[2].bfloat16(), torch.empty(0, 4)),
                (torch.zeros(d.integer(2, 4)), torch.zeros(3, 2)),
            ]
        )
    }


def _zeros_then_total(tensors: Iterable[Tensor]) -> float:
    zeros = sum(int((t == 0).sum()) for t in tensors)
    total = sum(t.numel() for t in tensors)
    return zeros / total


sparsity = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Deux nombres suffisent : combien de zéros, et combien d'éléments ? Sur un seul tenseur ou sur tous ?",
        "Additionnez les zéros de tous les tenseurs, puis leurs éléments, dans le même parcours ; divisez à la fin.",
    ],
    groups={"courant": 0.6, "itérateur": 0.2, "formes et types": 0.2},
    draw=draw_sparsity,
    probe="call_iterator",
    examples=[{"tensors": (torch.tensor([0.0, 1.0, 0.0, 2.0]), torch.tensor([[3.0, 4.0], [1e-9, 5.0]]))}],
    tolerance=Tolerance(rtol=1e-6, why="un rapport de deux comptes, peut-être en float32"),
    misconceptions=[
        Misconception(
            "mean_of_shares",
            lambda tensors: sum(s := [float((t == 0).double().mean()) for t in tensors if t.numel()]) / len(s),
            "Un petit tenseur compte chez vous autant qu'un grand.",
        ),
        Misconception(
            "counts_nonzero",
            swap(("(t == 0).sum()", "(t != 0).sum()")),
            "Vous mesurez la densité, la part de ce qui reste.",
        ),
        Misconception("near_zero", swap(("(t == 0)", "(t.abs() < 1e-8)")), "Petit n'est pas nul."),
        Misconception(
            "generator_twice",
            _zeros_then_total,
            "Un itérateur ne se parcourt qu'une fois : que reste-t-il à votre second passage ?",
        ),
        Misconception(
            "last_only",
            swap(("zeros += int", "zeros = int"), ("total += t", "total = t")),
            "Votre réponse ne parle que du dernier tenseur : qu'est devenu le compte des précédents ?",
        ),
        Misconception(
            "count_not_share",
            swap(("return zeros / total", "return float(zeros)")),
            "Vous comptez des zéros : l'énoncé demande leur part.",
        ),
        Misconception(
            "percent",
            swap(("return zeros / total", "return 100 * zeros / total")),
            "Vous répondez en pour cent : une part est entre 0 et 1.",
        ),
    ],
)


# --- magnitude_mask -------------------------------------------------------------------------------------------------


def _tied(d: Draw, *shape: int) -> tuple[Tensor, float]:
    """Des poids ±1 et ±2, et une part qui coupe au milieu des ±1 : seule leur place les départage."""
    n = math.prod(shape)
    small = d.integer(n // 2, 2 * n // 3)
    size = torch.full((n,), 2.0)
    size[:small] = 1.0
    size = size[torch.randperm(n, generator=d.generator)]
    w = size * (2.0 * d.integers(0, 1, n) - 1.0)
    return w.reshape(shape), d.integer(2, small - 2) / n


def draw_magnitude(d: Draw, group: str) -> Inputs:
    shape = d.turn([(5, 7), (4, 6), (3, 4, 3), (23,)])
    if group == "égalités":
        w, amount = _tied(d, *d.turn([(4, 5), (5, 4), (18,), (3, 6)]))
        return {"w": w if d.index % 2 == 0 else w.T.contiguous().T, "amount": amount}
    w = _distinct(d, shape)[0]
    if group == "refus":
        return {"w": w, "amount": _out_of_range(d)}
    amount = _share(d, w.numel())
    if group == "courant":
        return {"w": w, "amount": amount}
    return d.turn(
        [
            {"w": d.strided(w).double(), "amount": amount},
            {"w": _distinct(d, (6, 4))[0].half().T, "amount": _share(d, 24)},
            {"w": w, "amount": float(d.integer(0, 1))},
            {"w": d.turn([w.bfloat16(), w[:1].flatten()[0], w.half(), w[:1].flatten()[0]]), "amount": 0.0},
        ]
    )


def _mask_per_row(w: Tensor, amount: float) -> Tensor:
    if not 0 <= amount <= 1:
        raise ValueError
    order = w.abs().argsort(dim=-1, stable=True)
    removed = round(amount * (w.shape[-1] if w.ndim else 1))
    return torch.ones_like(w, dtype=torch.bool).scatter(-1, order[..., :removed], False)


_REMOVED = "round(amount * w.numel())"
_DROP = "mask[order[:removed]] = False"
_FLAT = "w.abs().flatten().argsort(stable=True)"

magnitude_mask = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Combien de poids faut-il retirer, exactement ? Et lesquels, si deux d'entre eux sont égaux ?",
        "Un seuil ne sait pas départager des poids égaux. Un classement, si : il dit qui est premier, qui est "
        "deuxième, et ainsi de suite.",
        "Un tri stable garde l'ordre de départ entre éléments égaux : regardez les options de argsort.",
        "Classez les |w| du tenseur déroulé ; les round(amount · n) premiers du classement deviennent False.",
    ],
    groups={"courant": 0.5, "égalités": 0.2, "formes et types": 0.2, "refus": 0.1},
    draw=draw_magnitude,
    examples=[
        {"w": torch.tensor([[0.5, -2.0, 0.1], [-0.3, 1.0, -0.05]]), "amount": 0.5},
        {"w": torch.tensor([1.0, -1.0, 1.0, 2.0]), "amount": 0.5},
    ],
    misconceptions=[
        Misconception("signed_values", swap(("w.abs()", "w")), "Un grand poids négatif n'est pas un petit poids."),
        Misconception("inverted", swap(("return mask", "return ~mask")), _INVERTED),
        Misconception(
            "threshold_ties",
            swap((_DROP, "if removed:\n        mask = w.abs().flatten() > w.abs().flatten()[order[removed - 1]]")),
            "Avec des valeurs égales, votre seuil en retire trop.",
        ),
        Misconception(
            "threshold_keeps_ties",
            swap(
                (
                    _DROP,
                    "if removed < w.numel():\n        mask = w.abs().flatten() >= w.abs().flatten()[order[removed]]\n"
                    "    else:\n        mask[:] = False",
                )
            ),
            "Avec des valeurs égales, votre seuil en retire trop peu : compte-t-on les poids ou les seuils ?",
        ),
        Misconception(
            "ties_last",
            swap((_FLAT, "(w.numel() - 1 - w.abs().flatten().flip(0).argsort(stable=True))")),
            "À égalité, vous retirez le dernier venu : relisez qui doit partir le premier.",
        ),
        Misconception(
            "amount_kept",
            swap((_REMOVED, "round((1 - amount) * w.numel())")),
            "amount est la part retirée ; chez vous, c'est celle qui reste.",
        ),
        Misconception(
            "quantile_value",
            swap((_DROP, "mask = w.abs().flatten() >= amount * w.abs().max()")),
            "Une part du maximum n'est pas une part du nombre de poids.",
        ),
        Misconception("truncates", swap((_REMOVED, "int(amount * w.numel())")), _TRUNCATES),
        Misconception(
            "rounds_up",
            swap((_REMOVED, "int(-(-amount * w.numel() // 1))")),
            "Vous en retirez parfois un de trop : arrondir n'est pas toujours arrondir vers le haut.",
        ),
        Misconception(
            "per_row",
            _mask_per_row,
            "Chaque ligne perd chez vous la même part : qui a demandé de comparer ligne par ligne ?",
        ),
        Misconception("returns_weights", swap(("return mask", "return w * mask")), _RETURNS_WEIGHTS),
        Misconception("no_check", swap((_BAD_AMOUNT, "if False:")), _NO_CHECK),
    ],
)


# --- global_magnitude_masks -----------------------------------------------------------------------------------------

_LAYERS = ("2.mlp.c_fc", "0.attn.c_attn", "3.mlp.c_proj", "1.attn.c_proj")


def draw_global(d: Draw, group: str) -> Inputs:
    shapes = d.turn([((4, 5), (3, 4), (2, 6)), ((3, 3), (5, 3), (9,)), ((2, 7), (4, 4)), ((6, 2), (3, 5), (2, 3, 2))])
    scales = (1.0, 0.25, 3.0)[: len(shapes)]
    tensors = _distinct(d, *shapes, scales=scales)
    total = sum(t.numel() for t in tensors)
    names = list(_LAYERS[: len(shapes)])
    amount = _share(d, total)
    if group == "refus":
        amount = _out_of_range(d)
    elif group == "formes et types":
        tensors, amount = d.turn(
            [
                ([d.strided(t) for t in tensors], amount),
                ([t.double().T if t.ndim == 2 else t.double() for t in tensors], amount),
                ([t.half() for t in tensors], amount),
                (tensors[:1], float(d.integer(0, 1))),
            ]
        )
    return {"weights": dict(zip(names, tensors, strict=False)), "amount": amount}


def _ranked_together(weights: dict[str, Tensor], removed: int, score: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    flat = torch.cat([score(w).flatten() for w in weights.values()])
    kept = flat.argsort().argsort() >= removed
    pieces = kept.split([w.numel() for w in weights.values()])
    return {n: p.reshape(w.shape) for (n, w), p in zip(weights.items(), pieces, strict=True)}


def _checked_total(weights: dict[str, Tensor], amount: float) -> int:
    if not 0 <= amount <= 1:
        raise ValueError
    return round(amount * sum(w.numel() for w in weights.values()))


def _sorted_names(weights: dict[str, Tensor], amount: float) -> dict[str, Tensor]:
    masks = _ranked_together(weights, _checked_total(weights, amount), torch.abs)
    return dict(zip(weights, (masks[n] for n in sorted(weights)), strict=True))


def _normalised(weights: dict[str, Tensor], amount: float) -> dict[str, Tensor]:
    return _ranked_together(weights, _checked_total(weights, amount), lambda w: w.abs() / w.abs().mean())


def _same_share(weights: dict[str, Tensor], amount: float) -> dict[str, Tensor]:
    _checked_total(weights, amount)
    return {n: _ranked_together({n: w}, round(amount * w.numel()), torch.abs)[n] for n, w in weights.items()}


def _whole_tensors(weights: dict[str, Tensor], amount: float) -> dict[str, Tensor]:
    _checked_total(weights, amount)
    order = sorted(weights, key=lambda n: float(weights[n].abs().mean()))
    gone = set(order[: round(amount * len(order))])
    return {n: torch.full(w.shape, n not in gone) for n, w in weights.items()}


_TOTAL = "round(amount * scores.numel())"

global_magnitude_masks = Exercise(
    points=2,
    minutes=20,
    stars=2,
    hints=[
        "Un seul classement pour tous les tenseurs : comment comparer des poids rangés dans des tenseurs différents ?",
        "Déroulez chaque |w| et mettez-les bout à bout : le problème devient celui d'un seul tenseur.",
        "Le masque obtenu se recoupe ensuite aux tailles de départ, dans le même ordre, et chaque morceau reprend sa "
        "forme.",
    ],
    groups={"courant": 0.7, "formes et types": 0.2, "refus": 0.1},
    draw=draw_global,
    examples=[
        {
            "weights": {"petit": torch.tensor([0.1, -0.2, 0.3]), "grand": torch.tensor([[1.0, -5.0], [2.0, -0.15]])},
            "amount": 0.43,
        }
    ],
    misconceptions=[
        Misconception(
            "same_per_layer",
            _same_share,
            "Chaque couche perd la même part : où est la comparaison entre couches ?",
        ),
        Misconception(
            "normalised_per_layer",
            _normalised,
            "En remettant chaque couche à la même échelle, vous changez la question.",
        ),
        Misconception(
            "count_off",
            swap((_TOTAL, "int(amount * scores.numel())")),
            "Le total retiré n'est pas celui demandé : où arrondissez-vous ?",
        ),
        Misconception("sorted_names", _sorted_names, "Les masques sont justes mais attribués à d'autres couches."),
        Misconception(
            "whole_tensors",
            _whole_tensors,
            "Vous retirez des tenseurs entiers : ce sont les poids qu'il faut classer, un par un.",
        ),
        Misconception("signed_values", swap(("w.abs()", "w")), "Un grand poids négatif n'est pas un petit poids."),
        Misconception("inverted", swap(("piece.reshape(w.shape)", "~piece.reshape(w.shape)")), _INVERTED),
        Misconception(
            "amount_kept",
            swap((_TOTAL, "round((1 - amount) * scores.numel())")),
            "amount est la part retirée ; chez vous, c'est celle qui reste.",
        ),
        Misconception(
            "returns_weights", swap(("piece.reshape(w.shape)", "w * piece.reshape(w.shape)")), _RETURNS_WEIGHTS
        ),
        Misconception("no_check", swap((_BAD_AMOUNT, "if False:")), _NO_CHECK),
    ],
)


# --- wanda_mask -----------------------------------------------------------------------------------------------------

Norm = Callable[[Tensor], Tensor]


def _lowest_removed(scores: Tensor, removed: int) -> Tensor:
    order = scores.argsort(dim=1, stable=True)
    return torch.ones_like(scores, dtype=torch.bool).scatter(1, order[:, :removed], False)


_OTHER_NORMS: dict[str, Norm] = {
    "mean": lambda x: x.mean(0).abs(),
    "mean_abs": lambda x: x.abs().mean(0),
    "max": lambda x: x.abs().amax(0),
    "squared": lambda x: x.square().sum(0),
    "none": lambda x: torch.ones(x.shape[1]),
}


def _layer(d: Draw, out: int, n: int, size: int, amount: float) -> tuple[Tensor, Tensor]:
    """Une couche et des activations où toutes les fausses normes donnent un autre masque, et où rien n'est serré."""
    removed = round(amount * size)
    while True:
        w = d.normal(out, size)
        x = d.normal(n, size) * torch.exp(1.2 * d.normal(size))
        rare = d.integers(0, 1, size).bool()
        x[torch.rand(n, size, generator=d.generator) < torch.where(rare, 0.7, 0.0)] = 0.0
        scores = w.abs() * x.norm(dim=0)
        cut = scores.sort(dim=1).values
        apart = (cut[:, removed] > 1.03 * cut[:, removed - 1]).all() and cut[:, removed - 1].min() > 1e-3
        right = _lowest_removed(scores, removed)
        others = [_lowest_removed(w.abs() * norm(x), removed) for norm in _OTHER_NORMS.values()]
        if apart and scores.max() < 200 and not any(torch.equal(right, other) for other in others):
            return w, x


def _tied_layer(d: Draw) -> tuple[Tensor, Tensor, float]:
    """Des entrées jumelles (au signe près), des poids ±1 : les importances sont égales par paires ou plus."""
    out, size, n = d.integer(2, 3), 8, 5
    base = d.integers(1, 2, n, 2).float() * torch.tensor([1.0, 2.0])
    which = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])[torch.randperm(size, generator=d.generator)]
    x = base[:, which] * (2.0 * d.integers(0, 1, size) - 1.0)
    if d.index % 2:
        x = x * (which == 1)  # la première moitié des entrées est morte
    w = 2.0 * d.integers(0, 1, out, size) - 1.0
    return w, x, d.integer(1, 3) / size


def draw_wanda(d: Draw, group: str) -> Inputs:
    if group == "égalités":
        w, x, amount = _tied_layer(d)
        return {"w": w, "x": x, "amount": amount}
    out, size = d.turn([(4, 9), (5, 7), (3, 11), (4, 8)])
    n = size if d.index % 2 == 0 else d.integer(5, 6)
    amount = _share(d, size)
    w, x = _layer(d, out, n, size, amount)
    if group == "refus":
        amount = _out_of_range(d)
    elif group == "formes et types":
        w, x, amount = d.turn(
            [
                (d.strided(w), x.T.contiguous().T, amount),
                (w.half(), x.half(), amount),
                (w.double().T.contiguous().T, d.strided(x.double()), amount),
                (w, x, float(d.integer(0, 1))),
            ]
        )
    return {"w": w, "x": x, "amount": amount}


def _whole_matrix(w: Tensor, x: Tensor, amount: float) -> Tensor:
    if not 0 <= amount <= 1:
        raise ValueError
    scores = w.abs() * x.norm(dim=0)
    return _lowest_removed(scores.reshape(1, -1), round(amount * w.numel())).reshape(w.shape)


def _per_column(w: Tensor, x: Tensor, amount: float) -> Tensor:
    if not 0 <= amount <= 1:
        raise ValueError
    scores = (w.abs() * x.norm(dim=0)).T
    return _lowest_removed(scores, round(amount * w.shape[0])).T


_SCORES = "w.abs() * x.norm(dim=0)"
_PER_ROW = "round(amount * w.shape[1])"
_SCATTER = "torch.ones_like(w, dtype=torch.bool).scatter(1, order[:, :removed], False)"

wanda_mask = Exercise(
    points=3,
    minutes=25,
    stars=3,
    hints=[
        "Qu'est-ce qui arrive à la sortie d'un poids énorme dont l'entrée est toujours nulle ?",
        "L'importance est un produit : le poids, et une mesure de son entrée sur tous les jetons. Combien d'entrées, "
        "donc combien de normes ?",
        "La norme réduit l'axe des jetons : (n, in) donne (in,), qui se multiplie à chaque ligne de w.",
        "Dans chaque ligne, classez |w[i, j]|·‖x[:, j]‖₂ par un tri stable et retirez les round(amount · in) premiers.",
    ],
    groups={"courant": 0.5, "égalités": 0.2, "formes et types": 0.2, "refus": 0.1},
    draw=draw_wanda,
    examples=[
        {
            "w": torch.tensor([[0.5, -0.1, 2.0, 1.0], [-0.2, 0.3, 0.9, -3.0]]),
            "x": torch.tensor([[1.0, 8.0, 0.1, -0.5], [-1.0, -6.0, 0.1, 0.5], [1.0, 0.0, -0.1, 0.0]]),
            "amount": 0.5,
        }
    ],
    misconceptions=[
        Misconception(
            "global_ranking",
            _whole_matrix,
            "Des sorties entières peuvent disparaître : entre quels poids Wanda compare-t-il ?",
        ),
        Misconception(
            "norm_axis",
            swap(("x.norm(dim=0)", "x.norm(dim=1)")),
            "Chaque entrée doit avoir une norme : combien en avez-vous ?",
        ),
        Misconception(
            "mean_activation",
            swap(("x.norm(dim=0)", "x.mean(dim=0).abs()")),
            "Des activations de signes opposés s'annulent dans votre mesure.",
        ),
        Misconception(
            "mean_abs",
            swap(("x.norm(dim=0)", "x.abs().mean(dim=0)")),
            "La moyenne des valeurs absolues et la norme 2 ne classent pas les entrées pareil : que dit la norme d'une "
            "entrée rarement grande ?",
        ),
        Misconception(
            "max_activation",
            swap(("x.norm(dim=0)", "x.abs().amax(dim=0)")),
            "Un seul jeton décide chez vous de l'importance d'une entrée : que font les autres ?",
        ),
        Misconception(
            "norm_squared",
            swap(("x.norm(dim=0)", "x.square().sum(dim=0)")),
            "L'activation compte chez vous au carré, et le poids non : que faut-il prendre de la somme des carrés ?",
        ),
        Misconception(
            "magnitude_only", swap((_SCORES, "w.abs()")), "Les données n'ont aucune influence sur votre masque."
        ),
        Misconception(
            "activation_only",
            swap((_SCORES, "x.norm(dim=0).expand(w.shape)")),
            "Toutes vos lignes perdent les mêmes entrées : où sont passés les poids ?",
        ),
        Misconception("signed_weight", swap(("w.abs() *", "w *")), "Un poids négatif peut compter beaucoup."),
        Misconception(
            "per_column",
            _per_column,
            "Vous comparez les sorties entre elles, entrée par entrée : dans quel sens Wanda classe-t-il ?",
        ),
        Misconception("inverted", swap((_SCATTER, "~" + _SCATTER)), _INVERTED),
        Misconception(
            "amount_kept",
            swap((_PER_ROW, "round((1 - amount) * w.shape[1])")),
            "amount est la part retirée ; chez vous, c'est celle qui reste.",
        ),
        Misconception("truncates", swap((_PER_ROW, "int(amount * w.shape[1])")), _TRUNCATES),
        Misconception(
            "threshold_ties",
            swap(
                (
                    "    return " + _SCATTER,
                    "    cut = scores.sort(dim=1).values[:, max(removed - 1, 0)]\n"
                    "    return scores > cut[:, None] if removed else torch.ones_like(w, dtype=torch.bool)",
                )
            ),
            "Avec des importances égales, votre seuil en retire trop.",
        ),
        Misconception(
            "ties_last",
            swap(
                (
                    "scores.argsort(dim=1, stable=True)",
                    "w.shape[1] - 1 - scores.flip(1).argsort(dim=1, stable=True)",
                )
            ),
            "À égalité, vous retirez le dernier venu : relisez qui doit partir le premier.",
        ),
        Misconception("returns_weights", swap((_SCATTER, "w * " + _SCATTER)), _RETURNS_WEIGHTS),
        Misconception("no_check", swap((_BAD_AMOUNT, "if False:")), _NO_CHECK),
    ],
)


# --- nm_mask --------------------------------------------------------------------------------------------------------


def draw_nm(d: Draw, group: str) -> Inputs:
    if group == "égalités":
        w = d.integers(1, 2, *d.turn([(3, 8), (16,), (2, 12), (4, 8)])).float() * d.choice([-1.0, 1.0])
        w.view(-1)[:4] = torch.tensor([-1.0, 1.0, -1.0, 1.0])  # le signe n'y est jamais indifférent
        n = d.integer(1, 3)
        return {"w": w, "n": n, "m": 4}
    if group == "refus":
        shape, n, m = d.turn([((2, 6), 2, 4), ((3, 8), 5, 4), ((3, 5), 1, 2), ((4, 6), 1, 8)])
        return {"w": _distinct(d, shape)[0], "n": n, "m": m}
    shape, pattern = d.turn(
        [((4, 8), {}), ((4, 12), {"n": 1, "m": 4}), ((8, 8), {"n": 3, "m": 8}), ((4, 2, 8), {"n": 3})]
    )
    w = _distinct(d, shape)[0]
    if group == "courant":
        return {"w": w, **pattern}
    return d.turn(
        [
            {"w": d.strided(w), "n": 1},
            {"w": _distinct(d, (8, 5))[0].double().T, "n": 2, "m": 8},
            {"w": _distinct(d, (12,))[0].half(), "n": 1, "m": 3},
            {"w": w, "n": 4},
        ]
    )


def _nm_first_axis(w: Tensor, n: int = 2, m: int = 4) -> Tensor:
    return _nm(w.transpose(0, -1), n, m).transpose(0, -1)


def _nm_checked(w: Tensor, n: int, m: int) -> None:
    if n > m or w.shape[-1] % m:
        raise ValueError


def _nm(w: Tensor, n: int, m: int) -> Tensor:
    _nm_checked(w, n, m)
    groups = w.abs().reshape(*w.shape[:-1], -1, m)
    order = groups.argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, order[..., :n], True).reshape(w.shape)


def _nm_strided(w: Tensor, n: int = 2, m: int = 4) -> Tensor:
    _nm_checked(w, n, m)
    gathered = w.reshape(*w.shape[:-1], m, -1).transpose(-1, -2)
    return _nm(gathered.reshape(w.shape), n, m).reshape(gathered.shape).transpose(-1, -2).reshape(w.shape)


def _nm_unstructured(w: Tensor, n: int = 2, m: int = 4) -> Tensor:
    _nm_checked(w, n, m)
    flat = w.abs().flatten()
    removed = flat.numel() * (m - n) // m
    return (flat.argsort(stable=True).argsort() >= removed).reshape(w.shape)


def _nm_per_row(w: Tensor, n: int = 2, m: int = 4) -> Tensor:
    _nm_checked(w, n, m)
    rows = w.abs().reshape(-1, w.shape[-1])
    return _lowest_removed(rows, w.shape[-1] * (m - n) // m).reshape(w.shape)


_ORDER = "groups.argsort(dim=-1, descending=True, stable=True)"
_KEEP = "order[..., :n]"
_NM_CHECK = "if n > m or w.shape[-1] % m:"

nm_mask = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Quelle forme donner à w pour que chaque groupe soit une ligne à lui seul ?",
        "En (…, k/m, m), le dernier axe est un groupe. Il reste à y trouver les n plus grands |w|.",
        "Un tri stable et décroissant place, à égalité, le premier venu devant ; ses n premiers indices sont gardés.",
    ],
    groups={"courant": 0.5, "égalités": 0.2, "formes et types": 0.15, "refus": 0.15},
    draw=draw_nm,
    examples=[
        {"w": torch.tensor([[0.1, -3.0, 2.0, 0.5, 1.0, 0.2, -0.3, 0.4]])},
        {"w": torch.tensor([[0.1, -3.0, 2.0, 0.5], [1.0, 0.2, -0.3, 0.4]]), "n": 1, "m": 4},
        {"w": torch.tensor([[0.1, -3.0], [2.0, 0.5]]), "n": 2, "m": 2},
    ],
    misconceptions=[
        Misconception("first_axis", _nm_first_axis, "Vos groupes sont verticaux."),
        Misconception("keeps_m_minus_n", swap((_KEEP, "order[..., : m - n]")), "2:4 cache l'erreur ; essayez 1:4."),
        Misconception("strided", _nm_strided, "Les membres d'un groupe doivent être voisins."),
        Misconception(
            "unstructured",
            _nm_unstructured,
            "Le compte total est bon, mais certains groupes gardent tout et d'autres rien.",
        ),
        Misconception(
            "per_row",
            _nm_per_row,
            "Chaque ligne garde la bonne part, mais pas chaque groupe : où comparez-vous les poids ?",
        ),
        Misconception("signed_values", swap(("w.abs()", "w")), "Un grand poids négatif n'est pas un petit poids."),
        Misconception("inverted", swap(("return mask", "return ~mask")), _INVERTED),
        Misconception(
            "threshold_ties",
            swap(
                (
                    "    return mask.reshape",
                    "    if n:\n        mask = groups >= groups.sort(dim=-1, descending=True).values[..., n - 1 : n]\n"
                    "    return mask.reshape",
                )
            ),
            "Avec des valeurs égales, votre seuil garde plus de n poids par groupe.",
        ),
        Misconception(
            "ties_last",
            swap((_ORDER, "(m - 1 - groups.flip(-1).argsort(dim=-1, descending=True, stable=True))")),
            "À égalité, vous gardez le dernier venu : relisez lequel doit rester.",
        ),
        Misconception("returns_weights", swap(("return mask", "return w * mask")), _RETURNS_WEIGHTS),
        Misconception(
            "crosses_rows",
            lambda w, n=2, m=4: _nm(w.reshape(1, -1), n, m).reshape(w.shape),
            "Un groupe ne passe pas d'une ligne à la suivante : quelle taille m doit-il diviser ?",
        ),
        Misconception(
            "reshape_fails",
            swap((_NM_CHECK, "if n > m:")),
            "Votre fonction s'arrête bien, mais c'est torch qui se plaint, avec ses mots : l'énoncé demande que ce "
            "soit vous, avant de découper.",
        ),
        Misconception(
            "no_n_check",
            swap((_NM_CHECK, "if w.shape[-1] % m:")),
            "Garder 5 poids sur 4 ne veut rien dire : votre fonction répond quand même.",
        ),
    ],
)


# --- sparse_bytes ---------------------------------------------------------------------------------------------------


def draw_bytes(d: Draw, group: str) -> Inputs:
    numel = d.integer(1_000, 90_000) * d.turn([1, 10, 3, 100])
    if group == "refus":
        return d.turn(
            [
                {"numel": numel, "amount": _out_of_range(d)},
                {"numel": numel, "amount": -d.uniform(0.05, 0.9)},
                {"numel": -d.integer(1, 99), "amount": 0.5},
            ]
        )
    if group == "bords":
        return d.turn(
            [
                {"numel": numel, "amount": 1.0},
                {"numel": numel, "amount": 0.0, "value_bytes": 4},
                {"numel": 0, "amount": 0.5, "value_bytes": 2, "index_bytes": 2},
                {"numel": 10 * d.integer(11, 99), "amount": 0.9},
            ]
        )
    inputs = {"numel": numel, "amount": _share(d, numel)}
    if d.index % 4 == 0:
        return inputs
    inputs["value_bytes"] = d.choice([1, 4])
    return inputs if d.index % 4 == 1 else inputs | {"index_bytes": d.choice([2, 3, 8])}


_KEPT = "numel - round(amount * numel)"
_BYTES = "return kept * (value_bytes + index_bytes)"

sparse_bytes = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Que faut-il écrire, pour chaque poids qui reste, afin de pouvoir reconstruire le tenseur ?",
        "Comptez d'abord les poids gardés, un entier ; chacun apporte une valeur et un indice.",
        "(numel − round(amount · numel)) · (value_bytes + index_bytes).",
    ],
    groups={"courant": 0.7, "bords": 0.15, "refus": 0.15},
    draw=draw_bytes,
    visible=3,
    examples=[{"numel": 1000, "amount": 0.9}, {"numel": 1000, "amount": 0.25, "value_bytes": 4, "index_bytes": 2}],
    misconceptions=[
        Misconception(
            "no_indices", swap((_BYTES, "return kept * value_bytes")), "Comment saurez-vous où remettre les valeurs ?"
        ),
        Misconception(
            "counts_removed", swap((_KEPT, "round(amount * numel)")), "On stocke ce qui reste, pas ce qui est parti."
        ),
        Misconception(
            "bitmap",
            swap((_BYTES, "return kept * value_bytes + (numel + 7) // 8")),
            "C'est un autre format, souvent meilleur : l'énoncé demande une liste d'indices.",
        ),
        Misconception(
            "indices_for_all",
            swap((_BYTES, "return kept * value_bytes + numel * index_bytes")),
            "Un poids retiré n'a pas besoin d'indice : son absence suffit.",
        ),
        Misconception(
            "values_for_all",
            swap((_BYTES, "return numel * value_bytes + kept * index_bytes")),
            "Vous écrivez encore les zéros : que devient la valeur d'un poids retiré ?",
        ),
        Misconception(
            "two_indices",
            swap((_BYTES, "return kept * (value_bytes + 2 * index_bytes)")),
            "Dans un tenseur déroulé, un seul indice suffit à dire où l'on est.",
        ),
        Misconception("truncates", swap((_KEPT, "numel - int(amount * numel)")), _TRUNCATES),
        Misconception("truncates_kept", swap((_KEPT, "int((1 - amount) * numel)")), _TRUNCATES),
        Misconception(
            "value_bytes_ignored",
            swap((_BYTES, "return kept * (2 + index_bytes)")),
            "Changez le nombre d'octets par valeur : votre réponse ne bouge pas.",
        ),
        Misconception(
            "index_bytes_ignored",
            swap((_BYTES, "return kept * (value_bytes + 4)")),
            "Changez le nombre d'octets par indice : votre réponse ne bouge pas.",
        ),
        Misconception(
            "in_bits", swap((_BYTES, _BYTES + " * 8")), "Votre compte est en bits ; l'énoncé demande des octets."
        ),
        Misconception("no_amount_check", swap((" or not 0 <= amount <= 1", "")), _NO_CHECK),
        Misconception(
            "no_numel_check",
            swap(("numel < 0 or not", "not")),
            "Un tenseur n'a pas un nombre négatif d'éléments : votre fonction répond quand même.",
        ),
    ],
)


# --- prune_heads ----------------------------------------------------------------------------------------------------


def _attention(d: Draw, n_head: int, size: int, heads: list[int]) -> Inputs:
    width = n_head * size
    return {
        "c_attn_weight": d.normal(width, 3 * width),
        "c_attn_bias": d.normal(3 * width),
        "c_proj_weight": d.normal(width, width),
        "heads": heads,
        "n_head": n_head,
    }


def draw_heads(d: Draw, group: str) -> Inputs:
    n_head, size = d.turn([(4, 2), (5, 3), (6, 2), (4, 3)])
    heads = d.random.sample(range(n_head - 1), d.turn([2, 3, 1, 2]))
    heads.sort(reverse=d.index % 2 == 0)  # croissantes, qui les retire une à une sans renuméroter se trompe toujours
    if group == "bords":
        return d.turn(
            [
                _attention(d, n_head, size, []),
                _attention(d, n_head, size, list(range(n_head))),
                _attention(d, 3, 1, [d.integer(0, 2)]),
                _attention(d, 1, 4, []),
            ]
        )
    inputs = _attention(d, n_head, size, heads)
    if group == "courant":
        return inputs
    change = d.turn(
        [d.strided, lambda t: t.double(), lambda t: t.half(), lambda t: t.T.contiguous().T if t.ndim == 2 else t]
    )
    return {k: change(v) if isinstance(v, Tensor) else v for k, v in inputs.items()}


Parts = tuple[Tensor, Tensor, Tensor]


def _as_linear(c_attn: Tensor, bias: Tensor, c_proj: Tensor, heads: list[int], n_head: int) -> Parts:
    """(sortie, entrée) : Q, K et V sont cherchés le long des lignes de c_attn, les têtes sur les colonnes de c_proj."""
    width = c_proj.shape[0]
    size = width // n_head
    kept = [h for h in range(n_head) if h not in heads]
    rows = c_attn.reshape(3, n_head, size, width)[:, kept].reshape(-1, width)
    short = bias.reshape(3, n_head, size)[:, kept].reshape(-1)
    return rows, short, c_proj.reshape(width, n_head, size)[:, kept].reshape(width, -1)


def _per_head(c_attn: Tensor, bias: Tensor, c_proj: Tensor, heads: list[int], n_head: int) -> Parts:
    """Comme si les colonnes étaient rangées tête par tête : (q, k, v) de la première, puis de la deuxième…"""
    size = c_proj.shape[0] // n_head
    kept = [h for h in range(n_head) if h not in heads]
    qkv = [h * 3 * size + i for h in kept for i in range(3 * size)]
    return c_attn[:, qkv], bias[qkv], c_proj[[h * size + i for h in kept for i in range(size)]]


def _zeroed(c_attn: Tensor, bias: Tensor, c_proj: Tensor, heads: list[int], n_head: int) -> Parts:
    size = c_proj.shape[0] // n_head
    gone = torch.tensor([h in heads for h in range(n_head)]).repeat_interleave(size)
    wide = gone.repeat(3)
    return c_attn.masked_fill(wide, 0), bias.masked_fill(wide, 0), c_proj.masked_fill(gone[:, None], 0)


def _one_by_one(c_attn: Tensor, bias: Tensor, c_proj: Tensor, heads: list[int], n_head: int) -> Parts:
    size = c_proj.shape[0] // n_head
    for h in heads:
        width = c_proj.shape[0]
        kept = [i for i in range(width) if not h * size <= i < (h + 1) * size]
        qkv = [part * width + i for part in range(3) for i in kept]
        c_attn, bias, c_proj = c_attn[:, qkv], bias[qkv], c_proj[kept]
    return c_attn, bias, c_proj


_HEAD_COLUMNS = "[h * size + i for h in range(n_head) if h not in heads for i in range(size)]"
_QKV = "torch.cat([columns, width + columns, 2 * width + columns])"

prune_heads = Exercise(
    points=4,
    minutes=30,
    stars=3,
    hints=[
        "Dessinez c_attn avec ses 3d colonnes : où sont les requêtes de la tête 1 ? Et ses clés, et ses valeurs ?",
        "Une tête occupe D colonnes dans chacun des trois tiers de c_attn, et autant d'éléments du biais. De quel côté "
        "de c_proj ses D sorties entrent-elles ?",
        "Faites la liste des composantes gardées, de 0 à d − 1. Décalée de d, puis de 2d, elle sert aussi aux clés et "
        "aux valeurs ; telle quelle, elle sert aux lignes de c_proj.",
    ],
    groups={"courant": 0.6, "bords": 0.2, "formes et types": 0.2},
    draw=draw_heads,
    examples=[
        {
            "c_attn_weight": torch.arange(12.0).reshape(2, 6),
            "c_attn_bias": torch.arange(6.0),
            "c_proj_weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
            "heads": [0],
            "n_head": 2,
        }
    ],
    misconceptions=[
        Misconception(
            "q_only",
            swap((_QKV, "torch.cat([columns, torch.arange(width, 3 * width)])")),
            "Une tête a une requête, mais aussi deux autres parts.",
        ),
        Misconception(
            "proj_axis",
            swap(("c_proj_weight[columns]", "c_proj_weight[:, columns]")),
            "La projection reçoit les têtes : de quel côté d'une matrice (entrée, sortie) les retirer ?",
        ),
        Misconception("as_linear", _as_linear, "Conv1D range ses poids à l'envers de nn.Linear."),
        Misconception("qkv_per_head", _per_head, "Les colonnes sont rangées Q, puis K, puis V, et non tête par tête."),
        Misconception("zeroed_not_removed", _zeroed, "Des zéros prennent autant de place."),
        Misconception(
            "keeps_instead",
            swap(("if h not in heads", "if h in heads")),
            "heads sont les têtes qui partent : vous gardez celles-là.",
        ),
        Misconception(
            "interleaved",
            swap((_HEAD_COLUMNS, "[i for i in range(width) if i % n_head not in heads]")),
            "Les composantes d'une tête sont voisines ; chez vous, elles sont distribuées comme des cartes.",
        ),
        Misconception(
            "one_column",
            swap((_HEAD_COLUMNS, "[i for i in range(width) if i not in heads]")),
            "Vous retirez une composante par tête : combien une tête en a-t-elle ?",
        ),
        Misconception(
            "indices_shift",
            _one_by_one,
            "Après un premier retrait, les têtes suivantes ont changé de place : leurs numéros aussi.",
        ),
        Misconception(
            "first_head_only",
            swap(("not in heads", "not in heads[:1]")),
            "Vous ne retirez que la première tête de la liste.",
        ),
        Misconception(
            "bias_forgotten",
            swap(("c_attn_bias[qkv]", "c_attn_bias")),
            "Une sortie retirée emporte aussi son biais.",
        ),
        Misconception(
            "proj_forgotten",
            swap(("c_proj_weight[columns]", "c_proj_weight")),
            "La projection attend encore les sorties des têtes retirées : qui les lui donnera ?",
        ),
    ],
)


# --- cubic_schedule -------------------------------------------------------------------------------------------------


def draw_cubic(d: Draw, group: str) -> Inputs:
    start, length = d.integer(20, 90), d.integer(100, 200)
    end = start + length
    parts = {"final_sparsity": round(d.uniform(0.6, 0.95), 3)}
    if d.index % 2 or group == "bords":
        parts["initial_sparsity"] = round(d.uniform(0.1, 0.4), 3)
    if group == "courant":
        return {"step": start + d.integer(length // 6, 5 * length // 6), "start": start, "end": end, **parts}
    if group == "bords":
        step = d.turn([start - d.integer(5, 19), end + d.integer(5, 60), start, end])
        return {"step": step, "start": start, "end": end, **parts}
    step = start + length // 2
    return d.turn(
        [
            {"step": step, "start": end, "end": start, **parts},
            {"step": step, "start": start, "end": end, "final_sparsity": d.uniform(1.05, 2)},
            {"step": step, "start": start, "end": start, **parts},
            {"step": step, "start": start, "end": end, "final_sparsity": 0.8, "initial_sparsity": -d.uniform(0.05, 1)},
        ]
    )


_PROGRESS = "min(max((step - start) / (end - start), 0.0), 1.0)"
_CUBIC = "final_sparsity + (initial_sparsity - final_sparsity) * (1 - progress) ** 3"

cubic_schedule = Exercise(
    points=1,
    minutes=10,
    stars=1,
    hints=[
        "De start à end, quelle part du chemin a-t-on faite au pas step ? Combien vaut-elle avant, et après ?",
        "Appelez p cette part, ramenée entre 0 et 1. La courbe part de s_i quand p = 0 et arrive à s_f quand p = 1.",
        "s_f + (s_i − s_f)·(1 − p)³.",
    ],
    groups={"courant": 0.6, "bords": 0.25, "refus": 0.15},
    draw=draw_cubic,
    examples=[
        {"step": 50, "start": 0, "end": 100, "final_sparsity": 0.8},
        {"step": 50, "start": 50, "end": 50, "final_sparsity": 0.8},
    ],
    tolerance=Tolerance(rtol=1e-6, atol=1e-9, why="un cube, peut-être en float32"),
    misconceptions=[
        Misconception(
            "linear",
            swap(("(1 - progress) ** 3", "(1 - progress)")),
            "Le vrai programme retire beaucoup tôt et peu à la fin : le vôtre va toujours à la même allure.",
        ),
        Misconception(
            "quadratic", swap(("** 3", "** 2")), "La forme est bonne, l'exposant non : relisez le nom de la fonction."
        ),
        Misconception(
            "exponent_misplaced",
            swap((_CUBIC, "initial_sparsity + (final_sparsity - initial_sparsity) * progress**3")),
            "Votre courbe part lentement et finit vite.",
        ),
        Misconception(
            "swapped",
            swap((_CUBIC, "initial_sparsity + (final_sparsity - initial_sparsity) * (1 - progress) ** 3")),
            "Votre courbe redescend : où doit-elle arriver ?",
        ),
        Misconception(
            "not_clamped",
            swap((_PROGRESS, "(step - start) / (end - start)")),
            "Après la fin, la parcimonie continue de bouger.",
        ),
        Misconception(
            "not_clamped_before",
            swap((_PROGRESS, "min((step - start) / (end - start), 1.0)")),
            "Avant le début, votre courbe a déjà bougé.",
        ),
        Misconception(
            "not_clamped_after",
            swap((_PROGRESS, "max((step - start) / (end - start), 0.0)")),
            "Votre courbe se retourne après la fin : que vaut un cube négatif ?",
        ),
        Misconception(
            "start_ignored",
            swap((_PROGRESS, "min(max(step / end, 0.0), 1.0)")),
            "Au premier pas vous n'êtes déjà plus au point de départ.",
        ),
        Misconception(
            "end_as_duration",
            swap((_PROGRESS, "min(max((step - start) / end, 0.0), 1.0)")),
            "end est un pas, pas une durée : au pas end, votre courbe n'est pas arrivée.",
        ),
        Misconception(
            "initial_ignored",
            swap(("(initial_sparsity - final_sparsity)", "(-final_sparsity)")),
            "Votre courbe part toujours de zéro : un modèle peut être déjà un peu élagué.",
        ),
        Misconception(
            "no_order_check",
            swap(("if start >= end:", "if False:")),
            "Un élagage qui finit avant de commencer : votre fonction répond quand même, au lieu de refuser.",
        ),
        Misconception(
            "no_sparsity_check",
            swap(("if not (0 <= final_sparsity <= 1 and 0 <= initial_sparsity <= 1):", "if False:")),
            "On ne retire pas 120 % des poids : votre fonction répond quand même, au lieu de refuser.",
        ),
    ],
)


# --- Quiz -----------------------------------------------------------------------------------------------------------

why_magnitude = Quiz(
    "Retirer un poids de 0,001 et retirer un poids de 1 : pourquoi le premier devrait-il coûter moins ?",
    (
        Choice(
            "Parce qu'il a moins servi pendant l'apprentissage",
            "Un poids peut être petit et très sollicité : sa taille ne dit pas combien de fois on l'a lu.",
        ),
        Choice(
            "Parce que, à entrée égale, il change mille fois moins la sortie",
            "Mais tout est dans « à entrée égale » : rien ne dit que les entrées se ressemblent. Gardez cette réserve.",
            correct=True,
        ),
        Choice(
            "Parce qu'il est plus rapide à multiplier",
            "Un produit coûte autant quelle que soit la valeur des nombres.",
        ),
        Choice(
            "Parce qu'il sera de toute façon arrondi à zéro",
            "En FP16, 0,001 s'écrit très bien : rien ne l'arrondit à zéro.",
        ),
    ),
)

global_collapse = Quiz(
    "Un classement global retire 80 % d'une couche et 20 % d'une autre. De quoi est-ce le signe ?",
    (
        Choice(
            "La première couche est inutile au modèle, et l'on pourrait la retirer tout entière",
            "C'est ce qu'il faudrait vérifier, couche par couche : la cellule suivante le fait.",
        ),
        Choice(
            "La seconde a plus de poids",
            "Une part ne dépend pas du nombre de poids, mais de leur taille.",
        ),
        Choice(
            "Les poids de la première sont plus petits, et rien de plus à ce stade",
            "Une couche dont les entrées sont grandes peut se contenter de petits poids.",
            correct=True,
        ),
    ),
)

wanda_row = Quiz(
    "Wanda compare les poids d'une même ligne, donc d'une même sortie. Que se passerait-il pour une sortie dont tous "
    "les "
    "poids sont petits, si l'on comparait toute la matrice ?",
    (
        Choice(
            "Elle pourrait perdre tous ses poids, et devenir constante",
            "Comparer par ligne garantit que chaque sortie garde sa part d'entrées. Sun et al. mesurent que, pour"
            " les modèles de langue, cela compte.",
            correct=True,
        ),
        Choice(
            "Rien : l'importance tient déjà compte des activations",
            "Les activations sont les mêmes pour toutes les lignes : elles ne corrigent pas leur différence de taille.",
        ),
        Choice(
            "Elle garderait tous ses poids, qui sont tous semblables",
            "Semblables entre eux, mais tous plus petits que ceux des autres lignes : ils partiraient ensemble.",
        ),
    ),
)

nm_or_free = Quiz(
    "À 50 %, un masque 2:4 peut-il garder une plus grande somme de |w| qu'un masque libre ?",
    (
        Choice(
            "Oui, s'il est bien choisi",
            "Tout masque 2:4 est aussi un masque libre à 50 % : le meilleur masque libre fait au moins aussi bien.",
        ),
        Choice(
            "Cela dépend de la matrice : il suffit que ses grands poids soient bien répartis",
            "L'écart dépend de la matrice, son signe non.",
        ),
        Choice(
            "Non, au mieux autant : c'est le même choix avec une contrainte de plus",
            "On paie la contrainte en perplexité, et l'on espère être remboursé en temps.",
            correct=True,
        ),
    ),
)

list_pays = Quiz(
    "Valeurs en FP16, indices de 32 bits : à partir de quelle part de zéros la liste est-elle plus petite que la "
    "matrice ?",
    (
        Choice(
            "Dès le premier zéro",
            "Chaque poids gardé coûte alors trois fois plus cher qu'avant : il faut d'abord rattraper cela.",
        ),
        Choice("La moitié", "À 50 %, la liste compte moitié moins de poids, à six octets chacun au lieu de deux."),
        Choice(
            "Les deux tiers",
            "Un poids gardé pèse six octets au lieu de deux ; il faut n'en garder qu'un sur trois. À 50 %, la "
            "liste est une fois et demie plus grosse que la matrice pleine de zéros.",
            correct=True,
        ),
        Choice(
            "Neuf dixièmes", "C'est à peu près le seuil de la liste de torch, dont les deux indices occupent 16 octets."
        ),
    ),
)

zeros_time = Quiz(
    "La moitié des poids d'une couche sont nuls, dans une matrice ordinaire. Le produit est-il deux fois plus rapide ?",
    (
        Choice(
            "Oui : le processeur voit le zéro et saute la multiplication, qui ne coûte rien",
            "Le processeur ne regarde pas la valeur avant de multiplier : il lit le zéro et le multiplie comme un "
            "autre.",
        ),
        Choice(
            "Non, aussi lent : un zéro se lit et se multiplie comme le reste",
            "Pour gagner, il faut un autre rangement, donc un autre noyau ; et des indices à lire.",
            correct=True,
        ),
        Choice(
            "Un peu plus rapide, selon la chance",
            "Le nombre d'opérations d'un produit dense ne dépend que des formes.",
        ),
    ),
)

reload = Quiz(
    "La configuration d'un GPT-2 ne connaît qu'un n_head, le même pour tous les blocs. Que va faire from_pretrained "
    "d'un "
    "fichier où certains blocs ont moins de têtes ?",
    (
        Choice(
            "Lire les formes dans le fichier et s'y adapter",
            "Il bâtit d'abord le modèle d'après la configuration, puis y verse les poids : les formes doivent "
            "correspondre.",
        ),
        Choice(
            "Compléter les têtes absentes par des zéros",
            "Ce serait juste, mais rien dans le fichier ne dit quelles têtes manquent.",
        ),
        Choice(
            "Refuser, ou, si l'on insiste, tirer ces couches au hasard",
            "« ignore_mismatched_sizes » ne répare rien, il remplace ce qui ne rentre pas par du hasard, et un "
            "avertissement le dit.",
            correct=True,
        ),
    ),
)

mask_or_not = Quiz(
    "On élague 80 % des poids, puis on reprend l'apprentissage comme d'habitude. Que deviennent les zéros ?",
    (
        Choice(
            "Ils restent : un poids nul ne reçoit pas de gradient",
            "Le gradient d'un poids dépend de son entrée et de l'erreur, pas de sa valeur.",
        ),
        Choice(
            "Ils disparaissent dès le premier pas",
            "Chaque poids reçoit un gradient, et Adam donne à tous un pas de taille semblable. Il faut reposer le"
            " masque après chaque mise à jour.",
            correct=True,
        ),
        Choice(
            "Ils reviennent peu à peu, les plus utiles d'abord",
            "Ce serait une belle façon de choisir ; mais dès le premier pas, presque aucun n'est plus exactement nul.",
        ),
    ),
)
