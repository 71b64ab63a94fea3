"""Déclarations du chapitre 8 : points, indices, tirage des cas, tolérances, idées fausses, quiz."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import torch

from atelier.exercise import Choice, Draw, Exercise, Inputs, Misconception, Quiz, Tolerance, swap

_PRODUCTS = Tolerance(rtol=1e-4, atol=1e-5, why="des produits de matrices en float32")

# --- low_rank -------------------------------------------------------------------------------------------------------


def _spectrum(d: Draw, rows: int, columns: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Une matrice dont les valeurs singulières sont bien séparées : sa meilleure approximation est unique."""
    n = min(rows, columns)
    u, _ = torch.linalg.qr(d.normal(rows, n, dtype=torch.float64))
    v, _ = torch.linalg.qr(d.normal(columns, n, dtype=torch.float64))
    s = d.uniform(2.0, 5.0) * d.uniform(0.55, 0.75) ** torch.arange(n, dtype=torch.float64)
    return ((u * s) @ v.T).to(dtype)


def draw_low_rank(d: Draw, group: str) -> Inputs:
    if group == "refus":
        return {"w": _spectrum(d, 4, 3, torch.float32), "rank": d.turn([0, -1, 0, -d.integer(2, 4)])}
    rows, columns = d.turn([(7, 4), (4, 6), (5, 5), (3, 8)])
    n = min(rows, columns)
    if group == "courant":
        return {"w": _spectrum(d, rows, columns, torch.float32), "rank": d.integer(1, n - 2) if n > 3 else 2}
    if group == "bords":
        w = _spectrum(d, rows, columns, torch.float32)
        return {"w": w, "rank": d.turn([n, 1, n - 1, n])}
    return d.turn(
        [
            {"w": d.strided(_spectrum(d, rows, columns)), "rank": 2},
            {"w": _spectrum(d, rows, columns, torch.float32).T, "rank": n - 1},
        ]
    )


_BEST = "(u[:, :rank] * s[:rank]) @ vt[:rank]"
_ERROR = "torch.linalg.norm(s[rank:]) / torch.linalg.norm(s)"

low_rank = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "La décomposition en valeurs singulières écrit w comme une somme de termes de rang 1, du plus fort au plus "
        "faible. Lesquels garder ?",
        "Dans w = U·diag(s)·Vᵀ, chaque valeur singulière multiplie une colonne de U et une ligne de Vᵀ. Que rend "
        "torch.linalg.svd à la troisième place ?",
        "Les termes sont orthogonaux : le carré de la norme de Frobenius est la somme des carrés de toutes les s. "
        "Celui de l'erreur est la somme des carrés des s abandonnées.",
    ],
    groups={"courant": 0.5, "bords": 0.2, "formes et types": 0.15, "refus": 0.15},
    draw=draw_low_rank,
    examples=[
        {"w": torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]), "rank": 1},
        {"w": torch.tensor([[2.0, 4.0, 6.0], [1.0, 2.0, 3.0]]), "rank": 1},
    ],
    tolerance=Tolerance(rtol=1e-3, atol=3e-5, why="une décomposition en float32, et une racine près de zéro"),
    misconceptions=[
        Misconception(
            "squared_s",
            swap((_BEST, "(u[:, :rank] * s[:rank] ** 2) @ vt[:rank]")),
            "Reconstruisez à rang plein : retrouvez-vous w ?",
        ),
        Misconception(
            "no_s",
            swap((_BEST, "u[:, :rank] @ vt[:rank]")),
            "Vos directions sont les bonnes, mais toutes ont la même force : qui dit combien chacune compte ?",
        ),
        Misconception(
            "smallest",
            swap(
                (_BEST, "(u[:, -rank:] * s[-rank:]) @ vt[-rank:]"),
                ("s[rank:]) /", "s[:-rank]) /"),
            ),
            "Vous gardez ce que la matrice a de moins important : dans quel ordre les valeurs singulières sont-elles "
            "rendues ?",
        ),
        Misconception(
            "one_less",
            swap((_BEST, "(u[:, : rank - 1] * s[: rank - 1]) @ vt[: rank - 1]"), ("s[rank:]) /", "s[rank - 1 :]) /")),
            "Comptez les directions gardées : il en manque une.",
        ),
        Misconception(
            "absolute_error",
            swap((_ERROR, "torch.linalg.norm(s[rank:])")),
            "Multipliez w par dix : une erreur relative ne bouge pas.",
        ),
        Misconception(
            "squared_error",
            swap((_ERROR, f"({_ERROR}) ** 2")),
            "C'est la part d'énergie perdue, un rapport de carrés : l'énoncé demande un rapport de normes.",
        ),
        Misconception(
            "nuclear_error",
            swap((_ERROR, "s[rank:].sum() / s.sum()")),
            "La norme de Frobenius n'additionne pas les valeurs singulières : des termes orthogonaux s'ajoutent comme "
            "les côtés d'un triangle rectangle.",
        ),
        Misconception(
            "kept_share",
            swap((_ERROR, "torch.linalg.norm(s[:rank]) / torch.linalg.norm(s)")),
            "C'est la part gardée ; plus le rang est grand, plus une erreur doit être petite.",
        ),
        Misconception(
            "error_over_kept",
            swap((_ERROR, "torch.linalg.norm(s[rank:]) / torch.linalg.norm(s[:rank])")),
            "Relative à quoi ? Vous divisez par la norme de l'approximation, pas par celle de w.",
        ),
        Misconception(
            "v_not_transposed",
            swap((_BEST, "(u[:, :rank] * s[:rank]) @ vt.T[:rank]")),
            "Relisez ce que rend la bibliothèque : V ou sa transposée ?",
            portable=False,  # le signe d'une paire (u, v) est libre : il change u·s·v, jamais u·s·vᵀ
        ),
        Misconception(
            "no_check",
            swap(("if rank < 1:", "if False:")),
            "Que serait une matrice de rang zéro, ou moins un ? L'énoncé demande de refuser, votre fonction répond.",
        ),
        Misconception(
            "zero_allowed",
            swap(("if rank < 1:", "if rank < 0:")),
            "Le rang zéro est refusé lui aussi : une approximation garde au moins une direction.",
        ),
    ],
)

# --- lora_num_params ------------------------------------------------------------------------------------------------


def draw_num_params(d: Draw, group: str) -> Inputs:
    shapes = [(d.integer(5, 60), d.integer(61, 300)) for _ in range(d.integer(2, 4))]
    shapes = [shape if d.index % 2 else shape[::-1] for shape in shapes] + [(d.integer(5, 40), d.integer(41, 90))]
    if group == "refus":
        return {"shapes": shapes, "rank": d.turn([0, -1, 0, -d.integer(2, 8)])}
    if group == "bords":
        square = d.integer(30, 90)
        d_model = 2 * d.integer(3000, 6200)
        return d.turn(
            [
                {"shapes": [], "rank": d.integer(1, 9)},
                {"shapes": [(d_model, d_model)] * 12, "rank": d.integer(2, 9)},
                {"shapes": [(square, square + 1)] * 3, "rank": 1},
                {"shapes": [shapes[0]], "rank": d.integer(100, 400)},
            ]
        )
    return {"shapes": [*shapes, shapes[0]], "rank": d.integer(2, 9)}


_COUNT = "sum(rank * (d + k) for d, k in shapes)"

lora_num_params = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Pour une matrice de forme (d, k) et un rang r, quelles sont les formes de B et de A ?",
        "B compte d·r nombres, A en compte r·k. Les matrices d'un bloc n'ont pas toutes la même forme.",
        "La somme, sur toutes les matrices, de r·(d + k).",
    ],
    groups={"courant": 0.6, "bords": 0.2, "refus": 0.2},
    draw=draw_num_params,
    examples=[
        {"shapes": [(3, 5), (4, 7)], "rank": 2},
        {"shapes": [(12288, 12288)] * 2, "rank": 8},
        {"shapes": [(576, 192), (192, 192), (768, 192), (192, 768)] * 2, "rank": 4},
    ],
    misconceptions=[
        Misconception(
            "r_d_k",
            swap((_COUNT, "sum(rank * d * k for d, k in shapes)")),
            "Vous dépassez la matrice complète : LoRA servirait à l'inverse de ce qu'il promet.",
        ),
        Misconception(
            "full_matrices",
            swap((_COUNT, "sum(d * k for d, k in shapes)")),
            "C'est le nombre de poids des matrices elles-mêmes, donc ce qu'un fine-tuning complet entraîne.",
        ),
        Misconception(
            "base_counted",
            swap((_COUNT, "sum(d * k + rank * (d + k) for d, k in shapes)")),
            "La base est gelée : elle n'est pas entraînée, donc pas comptée ici.",
        ),
        Misconception(
            "one_factor",
            swap((_COUNT, "sum(rank * d for d, k in shapes)")),
            "ΔW est un produit de deux matrices : vous ne comptez que B.",
        ),
        Misconception(
            "only_a",
            swap((_COUNT, "sum(rank * k for d, k in shapes)")),
            "ΔW est un produit de deux matrices : vous ne comptez que A.",
        ),
        Misconception(
            "twice_d",
            swap((_COUNT, "sum(2 * rank * d for d, k in shapes)")),
            "Toutes les matrices ne sont pas carrées : regardez c_attn.",
        ),
        Misconception(
            "product",
            swap((_COUNT, "sum(rank * d * rank * k for d, k in shapes)")),
            "Les nombres de B et ceux de A se gardent les uns à côté des autres : multiplie-t-on leurs comptes ?",
        ),
        Misconception(
            "same_shape_all",
            swap((_COUNT, "len(shapes) * rank * sum(shapes[0]) if shapes else 0")),
            "Chaque matrice a sa forme : vous comptez partout celle de la première.",
        ),
        Misconception(
            "distinct_shapes",
            swap((_COUNT, "sum(rank * (d + k) for d, k in set(shapes))")),
            "Deux matrices de même forme ont chacune leurs facteurs : rien n'est partagé.",
        ),
        Misconception(
            "rank_forgotten",
            swap((_COUNT, "sum(d + k for d, k in shapes)")),
            "Doublez le rang : votre compte ne bouge pas.",
        ),
        Misconception(
            "core_matrix",
            swap((_COUNT, "sum(rank * (d + k) + rank * rank for d, k in shapes)")),
            "Entre B et A, LoRA ne met rien : une matrice r × r de plus se fondrait dans l'une ou l'autre.",
        ),
        Misconception(
            "no_check",
            swap(("if rank < 1:", "if False:")),
            "L'énoncé annonce un rang interdit : votre formule donne un nombre, mais de quelles matrices ?",
        ),
        Misconception(
            "zero_allowed",
            swap(("if rank < 1:", "if rank < 0:")),
            "Un rang nul est refusé lui aussi : il n'y aurait rien à entraîner.",
        ),
    ],
)

# --- lora_delta -----------------------------------------------------------------------------------------------------


def _factors(d: Draw, rows: int, columns: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    return d.normal(rank, columns), d.normal(rows, rank)


def _wide_types(d: Draw, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
    """Les mêmes facteurs en float64 non contigus, en demi-précision (positifs : rien ne s'y annule), transposés."""
    return d.turn(
        [
            {"A": d.strided(a.double()), "B": d.strided(b.double())},
            {"A": a.abs().half(), "B": b.abs().half()},
            {"A": a.T.contiguous().T, "B": b.T.contiguous().T},
            {"A": (a.abs() + 0.1).bfloat16(), "B": (b.abs() + 0.1).bfloat16()},
        ]
    )


def draw_delta(d: Draw, group: str) -> Inputs:
    rank = d.turn([2, 3, 4, 3])
    rows, columns = d.turn([(5, 7), (6, 6), (8, 5), (4, 9)])
    a, b = _factors(d, rows, columns, rank)
    if group == "courant":
        return {"A": a, "B": b, "alpha": d.turn([d.uniform(4, 9), 8, d.uniform(0.5, 1.5), 16])}
    if group == "formes et types":
        return {**_wide_types(d, a, b), "alpha": d.turn([d.uniform(4, 9), 6, 1.5, 2])}
    if group == "bords":
        thin = _factors(d, rows, columns, 1)
        return d.turn(
            [
                {"A": a, "B": b, "alpha": 1},
                {"A": thin[0], "B": thin[1], "alpha": d.uniform(2, 9)},
                {"A": a, "B": torch.zeros_like(b), "alpha": 8.0},
                {"A": a, "B": b, "alpha": rank},
            ]
        )
    other = rank + d.turn([1, -1, 2, 1])
    return {"A": a, "B": d.normal(rows, other), "alpha": 8.0}


_DELTA = "(alpha / rank) * (B @ A)"
_RANKS = "if B.shape[1] != rank:"

lora_delta = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "W a la forme (d, k), et ΔW aussi. Dans quel ordre multiplier B, (d, r), et A, (r, k) ?",
        "Le rang est la dimension que A et B ont en commun : laquelle des deux dimensions de A ?",
        "(α / r)·B·A, après avoir vérifié que les deux rangs sont le même.",
    ],
    groups={"courant": 0.5, "bords": 0.15, "formes et types": 0.15, "refus": 0.2},
    draw=draw_delta,
    examples=[
        {
            "A": torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]),
            "B": torch.tensor([[1.0, 1.0], [2.0, 0.0]]),
            "alpha": 4.0,
        }
    ],
    tolerance=_PRODUCTS,
    misconceptions=[
        Misconception(
            "ab",
            swap((_DELTA, "(alpha / rank) * (A.T @ B.T)")),
            "Vos dimensions ne donnent pas d × k : qui multiplie l'entrée en premier, A ou B ?",
        ),
        Misconception(
            "alpha_not_divided",
            swap((_DELTA, "alpha * (B @ A)")),
            "Changez r : la taille de ΔW change d'un facteur qu'on voulait éviter.",
        ),
        Misconception(
            "no_scaling",
            swap((_DELTA, "B @ A")),
            "α ne change rien chez vous : où intervient-il ?",
        ),
        Misconception(
            "ratio_inverted",
            swap((_DELTA, "(rank / alpha) * (B @ A)")),
            "Quand α grandit, votre mise à jour rétrécit : lequel des deux divise l'autre ?",
        ),
        Misconception(
            "rank_axis",
            swap((_DELTA, "(alpha / A.shape[1]) * (B @ A)")),
            "Laquelle des dimensions de A est le rang ?",
        ),
        Misconception(
            "output_axis",
            swap((_DELTA, "(alpha / B.shape[0]) * (B @ A)")),
            "Laquelle des dimensions de B est le rang ? Vous divisez par la taille de la sortie.",
        ),
        Misconception(
            "integer_division",
            swap((_DELTA, "(alpha // rank) * (B @ A)")),
            "Avec α plus petit que r, ΔW disparaît : de quelle division avez-vous besoin ?",
        ),
        Misconception(
            "square_root",
            swap((_DELTA, "(alpha / rank**0.5) * (B @ A)")),
            "α/√r est la règle d'un autre article, rsLoRA ; celle de LoRA divise par r.",
        ),
        Misconception(
            "no_check",
            swap((_RANKS, "if False:")),
            "Votre fonction s'arrête bien, mais c'est torch qui se plaint, avec ses mots : l'énoncé demande que ce "
            "soit vous, avant de multiplier.",
        ),
    ],
)

# --- LoRALinear -----------------------------------------------------------------------------------------------------


def _linear(d: Draw, n_in: int, n_out: int, bias: bool) -> dict[str, Any]:
    weights = {"weight": d.normal(n_out, n_in)} | ({"bias": d.normal(n_out)} if bias else {})
    return {"module": "Linear", "args": [n_in, n_out, bias], "weights": weights}


def _lora_case(d: Draw, x: torch.Tensor, n_out: int, rank: int, alpha: float, bias: bool = True) -> Inputs:
    n_in = x.shape[-1]
    return {
        "init": {"base": _linear(d, n_in, n_out, bias), "rank": rank, "alpha": alpha},
        "x": x,
        "weights": {"lora_A": d.normal(rank, n_in), "lora_B": d.normal(n_out, rank)},
        "out_grad": d.normal(*x.shape[:-1], n_out),
        "watch": ["lora_A", "lora_B"],
    }


def draw_linear(d: Draw, group: str) -> Inputs:
    n_in, n_out, rank = d.turn([(5, 7, 2), (6, 4, 3), (5, 5, 2), (4, 8, 3)])
    if group == "refus":
        too_much = min(n_in, n_out) + 1
        case = _lora_case(d, d.normal(2, n_in), n_out, 1, 4.0)
        case["init"]["rank"] = d.turn([too_much, 0, -1, too_much + d.integer(0, 2)])
        return case
    alpha = d.turn([d.uniform(5, 9), 8, 1, d.uniform(0.4, 0.9)])
    if group == "courant":
        return _lora_case(d, d.normal(3, n_in), n_out, rank, alpha, bias=d.index % 4 != 1)
    return d.turn(
        [
            lambda: _lora_case(d, d.normal(2, 3, n_in), n_out, rank, alpha),
            lambda: _lora_case(d, d.strided(d.normal(4, n_in)), n_out, min(n_in, n_out), alpha),
            lambda: _lora_case(d, d.normal(n_in), n_out, 1, alpha),
            lambda: _lora_case(d, d.normal(n_in, 3).T, n_out, 1, alpha, bias=False),
        ]
    )()


_A = "nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))"
_B = "nn.Parameter(torch.zeros(d_out, rank).to(base.weight))"
_RANDOM_B = "nn.Parameter(torch.randn(d_out, rank).to(base.weight))"
_ZERO_A = "nn.Parameter(torch.zeros(rank, d_in).to(base.weight))"
_FORWARD = "self.base(x) + self.scaling * (x @ self.lora_A.T @ self.lora_B.T)"
_BOUNDS = "if not 1 <= rank <= min(d_in, d_out):"

LoRALinear = Exercise(
    points=3,
    minutes=25,
    stars=2,
    hints=[
        "Un tenseur ne s'entraîne que si l'optimiseur le trouve : sous quelle forme le ranger dans un module ?",
        "Geler la base, c'est dire de ses paramètres qu'ils n'ont pas besoin de gradient.",
        "Pour ne jamais former B·A, faites passer x par A, ce qui donne r nombres par exemple, puis par B. Les poids "
        "sont rangés en (sortie, entrée) : il faut les transposer.",
        "y = base(x) + (α / r)·(x·Aᵀ)·Bᵀ, avec A de forme (r, entrée) et B de forme (sortie, r).",
    ],
    groups={"courant": 0.6, "formes": 0.2, "refus": 0.2},
    draw=draw_linear,
    probe="module",
    visible=2,
    examples=[
        {
            "init": {
                "base": {
                    "module": "Linear",
                    "args": [3, 2],
                    "weights": {
                        "weight": torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]),
                        "bias": torch.tensor([0.5, -0.5]),
                    },
                },
                "rank": 1,
                "alpha": 2.0,
            },
            "x": torch.tensor([[1.0, 2.0, 3.0]]),
            "weights": {"lora_A": torch.tensor([[1.0, 1.0, 0.0]]), "lora_B": torch.tensor([[1.0], [2.0]])},
            "out_grad": torch.tensor([[1.0, 1.0]]),
            "watch": ["lora_A", "lora_B"],
        }
    ],
    tolerance=_PRODUCTS,
    misconceptions=[
        Misconception(
            "b_random",
            swap((_B, _RANDOM_B)),
            "Avant tout pas, votre couche ne répond déjà plus comme la base.",
        ),
        Misconception(
            "a_zero_too",
            swap((_A, _ZERO_A)),
            "Deux zéros : quel gradient reçoit chacun ?",
        ),
        Misconception(
            "init_swapped",
            swap((_A, _ZERO_A), (_B, _RANDOM_B)),
            "Départ correct, mais la diapositive dit laquelle des deux est nulle.",
        ),
        Misconception(
            "no_scaling",
            swap(("self.scaling = alpha / rank", "self.scaling = 1.0")),
            "α ne change rien.",
        ),
        Misconception(
            "alpha_only",
            swap(("self.scaling = alpha / rank", "self.scaling = alpha")),
            "Doublez r sans toucher α : votre mise à jour double aussi.",
        ),
        Misconception(
            "ratio_inverted",
            swap(("self.scaling = alpha / rank", "self.scaling = rank / alpha")),
            "Quand α grandit, votre mise à jour rétrécit : lequel des deux divise l'autre ?",
        ),
        Misconception(
            "square_root",
            swap(("self.scaling = alpha / rank", "self.scaling = alpha / rank**0.5")),
            "α/√r est la règle d'un autre article, rsLoRA ; celle de LoRA divise par r.",
        ),
        Misconception(
            "base_trainable",
            swap(("base.requires_grad_(False)", "base")),
            "Comptez ce qui s'entraîne : la base en fait encore partie.",
        ),
        Misconception(
            "a_frozen",
            swap((_A, _A[:-1] + ", requires_grad=False)")),
            "A part du hasard, mais elle ne doit pas y rester : comptez ce qui s'entraîne.",
        ),
        Misconception(
            "not_parameters",
            swap((_A, _A.removeprefix("nn.Parameter")), (_B, _B.removeprefix("nn.Parameter"))),
            "L'optimiseur ne verra jamais vos deux matrices : module.parameters() les trouve-t-il ?",
        ),
        Misconception(
            "bias_twice",
            swap((_FORWARD, _FORWARD + " + (0 if self.base.bias is None else self.base.bias)")),
            "Votre écart est une constante par sortie : qu'ajoutez-vous deux fois ?",
        ),
        Misconception(
            "base_forgotten",
            swap((_FORWARD, "self.scaling * (x @ self.lora_A.T @ self.lora_B.T)")),
            "Au départ votre couche rend zéro : la mise à jour s'ajoute à quelque chose.",
        ),
        Misconception(
            "shapes_transposed",
            swap(
                (_A, "nn.Parameter(torch.randn(d_in, rank) / math.sqrt(d_in))"),
                (_B, "nn.Parameter(torch.zeros(rank, d_out))"),
                (_FORWARD, "self.base(x) + self.scaling * (x @ self.lora_A @ self.lora_B)"),
            ),
            "Vos deux matrices sont rangées en (entrée, sortie) ; l'énoncé les veut en (sortie, entrée), comme un "
            "nn.Linear.",
        ),
        Misconception(
            "no_check",
            swap((_BOUNDS, "if False:")),
            "L'énoncé annonce des rangs interdits : votre couche les accepte, ou laisse torch s'en plaindre.",
        ),
        Misconception(
            "no_upper_check",
            swap((_BOUNDS, "if rank < 1:")),
            "Un rang plus grand que la matrice ne décrit rien de plus : jusqu'où peut-il aller ?",
        ),
        Misconception(
            "no_lower_check",
            swap((_BOUNDS, "if rank > min(d_in, d_out):")),
            "Que serait une mise à jour de rang nul, ou négatif ? Elle est à refuser elle aussi.",
        ),
    ],
)

# --- inject_lora ----------------------------------------------------------------------------------------------------

_SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 23, "n_positions": 16}


def _injection(d: Draw, rank: int, alpha: float, target: str | None, **config: int) -> Inputs:
    args: dict[str, Any] = {"rank": rank, "alpha": alpha} | ({} if target is None else {"target": target})
    return {
        "config": _SMALL | config,
        "seed": d.integer(0, 2**31),
        "args": args,
        "input_ids": d.integers(0, _SMALL["vocab_size"] - 1, 2, 6),
    }


def draw_inject(d: Draw, group: str) -> Inputs:
    if group == "refus":
        return _injection(d, d.turn([0, -1, 0, -d.integer(2, 5)]), 8.0, d.turn(["c_attn", "c_proj", "c_fc", None]))
    rank, alpha = d.turn([(2, 5.0), (3, 8), (2, d.uniform(5, 7)), (3, 2)])
    if group == "courant":
        target, inner = d.turn([("c_proj", 24), ("c_attn", 32), ("c_fc", 32), ("c_proj", 8)])
        return _injection(d, rank, alpha, target, n_inner=inner)
    return d.turn(
        [
            lambda: _injection(d, 1, alpha, None, n_layer=3),
            lambda: _injection(d, 3, alpha, "c_fc", n_layer=1),
            lambda: _injection(d, 8, 1, "c_attn"),
            lambda: _injection(d, 1, 1, "c_proj", n_layer=3),
        ]
    )()


_TARGET = "if name == target:"
_MODULES = "for parent in list(model.modules()):"
_CONV_FORWARD = "self.base(h) + (alpha / rank) * (h @ self.lora_A.T @ self.lora_B.T)"
_DIMS = "d_in, d_out = base.weight.shape"

inject_lora = Exercise(
    points=4,
    minutes=35,
    stars=3,
    hints=[
        "Remplacer une couche, c'est donner un autre module à l'attribut de celui qui la contient. Comment parcourir "
        "tous les modules d'un modèle avec, pour chacun, ses enfants et leurs noms ?",
        "Le module qui enveloppe garde la couche d'origine, ajoute A et B, et répond base(x) plus la mise à jour. "
        "Dans un Conv1D, quelle dimension du poids est l'entrée ?",
        "L'ordre compte : gelez tout le modèle d'abord, posez les nouveaux paramètres ensuite ; et faites la liste des "
        "modules avant de les remplacer.",
        "Pour un Conv1D, (entrée, sortie) = weight.shape. A : (r, entrée), B : (sortie, r), "
        "y = base(x) + (α / r)·(x·Aᵀ)·Bᵀ.",
    ],
    groups={"courant": 0.65, "bords": 0.2, "refus": 0.15},
    draw=draw_inject,
    probe="gpt2_transform",
    visible=4,
    seconds=20.0,
    tolerance=Tolerance(rtol=1e-3, atol=2e-4, why="un petit modèle entier en float32"),
    misconceptions=[
        Misconception(
            "as_linear",
            swap((_DIMS, "d_out, d_in = base.weight.shape")),
            "Conv1D de GPT-2 range (entrée, sortie) : seule une cible carrée survit à votre lecture.",
        ),
        Misconception(
            "base_not_frozen",
            swap(("    model.requires_grad_(False)\n", "")),
            "Vous entraînez tout le modèle en plus de LoRA : peft annonce 0,3 % de paramètres entraînés ; et vous ?",
        ),
        Misconception(
            "all_frozen",
            swap(("    return model", "    model.requires_grad_(False)\n    return model")),
            "Vous gelez tout, A et B compris : dans quel ordre geler et poser ?",
        ),
        Misconception(
            "attention_only",
            swap((_TARGET, 'if name == target and not (target == "c_proj" and hasattr(parent, "c_fc")):')),
            "Un bloc contient plusieurs couches de ce nom : il vous manque celle du MLP.",
        ),
        Misconception(
            "mlp_only",
            swap((_TARGET, 'if name == target and not (target == "c_proj" and hasattr(parent, "c_attn")):')),
            "Un bloc contient plusieurs couches de ce nom : il vous manque celle de l'attention.",
        ),
        Misconception(
            "target_ignored",
            swap((_TARGET, 'if name == "c_attn":')),
            "Changez la cible : rien ne change.",
        ),
        Misconception(
            "every_layer",
            swap((_TARGET, 'if type(child).__name__ == "Conv1D":')),
            "Vous adaptez toutes les couches linéaires, quelle que soit la cible demandée.",
        ),
        Misconception(
            "first_block_only",
            swap((_MODULES, "for parent in list(model.transformer.h[0].modules()):")),
            "Un seul bloc a reçu LoRA : comptez les tenseurs entraînés.",
        ),
        Misconception(
            "alpha_only",
            swap((_CONV_FORWARD, _CONV_FORWARD.replace("(alpha / rank)", "alpha"))),
            "Doublez r sans toucher α : votre mise à jour double aussi.",
        ),
        Misconception(
            "no_scaling",
            swap((_CONV_FORWARD, _CONV_FORWARD.replace("(alpha / rank) * ", ""))),
            "α ne change rien.",
        ),
        Misconception(
            "shared_factors",
            swap(
                ("            self.base = base\n", "            self.base = base\n            kept = model.__dict__\n"),
                (_A, "kept.setdefault(('A', d_in), " + _A + ")"),
                (_B, "kept.setdefault(('B', d_out), " + _B + ")"),
            ),
            "Les couches se partagent une matrice : chacune doit avoir la sienne.",
        ),
        Misconception(
            "b_random",
            swap((_B, _RANDOM_B)),
            "Avant tout pas, les logits ont déjà changé : l'une des deux matrices doit être nulle.",
        ),
        Misconception(
            "base_forgotten",
            swap((_CONV_FORWARD, "(alpha / rank) * (h @ self.lora_A.T @ self.lora_B.T)")),
            "Il ne reste que la mise à jour : où est passée la couche d'origine ?",
        ),
        Misconception(
            "bias_twice",
            swap((_CONV_FORWARD, _CONV_FORWARD + " + self.base.bias")),
            "Votre écart est une constante par sortie : qu'ajoutez-vous deux fois ?",
        ),
        Misconception(
            "not_registered",
            swap(
                (_A, _A.removeprefix("nn.Parameter") + ".requires_grad_()"),
                (_B, _B.removeprefix("nn.Parameter") + ".requires_grad_()"),
            ),
            "L'optimiseur ne verra jamais vos matrices : model.parameters() les trouve-t-il ?",
        ),
        Misconception(
            "not_the_model",
            swap(("    return model", "    return None")),
            "L'énoncé demande de rendre le modèle reçu lui-même, modifié : ni rien, ni une copie.",
        ),
        Misconception(
            "no_check",
            swap(("if rank < 1:", "if False:")),
            "L'énoncé annonce un rang interdit : votre fonction l'accepte, ou laisse torch ou Python s'en plaindre.",
        ),
    ],
)  # fmt: skip

# --- merge_lora -----------------------------------------------------------------------------------------------------


def draw_merge(d: Draw, group: str) -> Inputs:
    rank = d.turn([2, 3, 4, 3])
    rows, columns = d.turn([(5, 7), (6, 6), (8, 5), (4, 9)])
    (a, b), w = _factors(d, rows, columns, rank), d.normal(rows, columns)
    if group == "courant":
        return {"weight": w, "A": a, "B": b, "alpha": d.turn([d.uniform(4, 9), 8, d.uniform(0.5, 1.5), 16])}
    if group == "bords":
        thin = _factors(d, rows, columns, 1)
        return d.turn(
            [
                {"weight": w, "A": thin[0], "B": thin[1], "alpha": 1},
                {"weight": w, "A": a, "B": torch.zeros_like(b), "alpha": 8.0},
                {"weight": w, "A": a, "B": b, "alpha": 0.0},
                {"weight": torch.zeros_like(w), "A": a, "B": b, "alpha": rank},
            ]
        )
    cast = _wide_types(d, a, b)
    w = w.abs().to(cast["A"].dtype)
    return {"weight": d.strided(w), **cast, "alpha": d.turn([d.uniform(4, 9), 6, 1.5, 2])}


_MERGED = "weight + (alpha / A.shape[0]) * (B @ A)"

merge_lora = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "W x + (α / r)·B A x : quelle matrice faudrait-il appliquer à x pour avoir les deux d'un coup ?",
        "W et la mise à jour ont la même forme, (d, k). Une addition ordinaire rend un nouveau tenseur ; les "
        "opérations dont le nom finit par « _ » écrivent dans celui qu'elles reçoivent.",
        "W + (α / r)·B·A.",
    ],
    groups={"courant": 0.6, "bords": 0.2, "formes et types": 0.2},
    draw=draw_merge,
    examples=[
        {
            "weight": torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]]),
            "A": torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]),
            "B": torch.tensor([[1.0, 1.0], [2.0, 0.0]]),
            "alpha": 4.0,
        }
    ],
    tolerance=_PRODUCTS,
    misconceptions=[
        Misconception(
            "in_place",
            swap((_MERGED, "weight.add_((alpha / A.shape[0]) * (B @ A))")),
            "Fusionnez deux fois de suite : le second résultat est-il le même ? Votre fonction a changé le poids qu'on "
            "lui a confié.",
        ),
        Misconception(
            "transposed",
            swap((_MERGED, "weight + (alpha / A.shape[0]) * (B @ A).T")),
            "Essayez avec une matrice qui n'est pas carrée.",
        ),
        Misconception(
            "no_scaling",
            swap((_MERGED, "weight + B @ A")),
            "La couche fusionnée et la couche LoRA ne répondent pas pareil : α a disparu.",
        ),
        Misconception(
            "alpha_not_divided",
            swap((_MERGED, "weight + alpha * (B @ A)")),
            "La couche fusionnée et la couche LoRA ne répondent pas pareil : par quoi α est-il divisé ?",
        ),
        Misconception(
            "rank_axis",
            swap((_MERGED, "weight + (alpha / A.shape[1]) * (B @ A)")),
            "Laquelle des dimensions de A est le rang ?",
        ),
        Misconception(
            "ratio_inverted",
            swap((_MERGED, "weight + (A.shape[0] / max(alpha, 1e-9)) * (B @ A)")),
            "Quand α grandit, votre mise à jour rétrécit : lequel des deux divise l'autre ?",
        ),
        Misconception(
            "delta_only",
            swap((_MERGED, "(alpha / A.shape[0]) * (B @ A)")),
            "Il reste la mise à jour ; où est passé le modèle ?",
        ),
        Misconception(
            "subtracted",
            swap((_MERGED, "weight - (alpha / A.shape[0]) * (B @ A)")),
            "Vous retirez la mise à jour : c'est ce qu'il faudrait pour défaire une fusion.",
        ),
        Misconception(
            "base_scaled",
            swap((_MERGED, "(alpha / A.shape[0]) * (weight + B @ A)")),
            "Sans aucune mise à jour, le poids fusionné devrait être celui de la base : que multiplie α / r ?",
        ),
    ],
)

# --- nf4_quantize ---------------------------------------------------------------------------------------------------

_PUBLISHED = torch.tensor(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    dtype=torch.float64,
)  # fmt: skip
"""Niveaux publiés par bitsandbytes (create_normal_map) : ils ne servent ici qu'à tirer des valeurs loin des seuils."""


def _near_levels(d: Draw, blocks: int, size: int) -> torch.Tensor:
    """(blocks, size) : chaque valeur est près d'un niveau, et le plus grand écart à zéro de chaque bloc vaut 1."""
    codes = d.integers(1, 14, blocks, size)
    gaps = torch.minimum(_PUBLISHED[codes] - _PUBLISHED[codes - 1], _PUBLISHED[codes + 1] - _PUBLISHED[codes])
    noise = 2 * torch.rand(blocks, size, generator=d.generator, dtype=torch.float64) - 1
    values = _PUBLISHED[codes] + 0.3 * gaps * noise
    peaks = d.integers(0, size - 1, blocks)
    values[torch.arange(blocks), peaks] = d.integers(0, 1, blocks).double() * 2 - 1
    return values


def _scaled(d: Draw, blocks: int, size: int) -> torch.Tensor:
    """Les mêmes, chaque bloc à son échelle."""
    return _near_levels(d, blocks, size) * torch.exp(d.normal(blocks, 1).double()).clamp(0.05, 20)


def _tie() -> float:
    """Le niveau qui suit 0, tel que la cellule de préparation du chapitre le calcule en float32."""
    last = 1 - (1 / 32 + 1 / 30) / 2
    top = NormalDist().inv_cdf(last)
    return float(torch.tensor([NormalDist().inv_cdf(0.5 + (last - 0.5) / 8)]) / top)


def draw_nf4(d: Draw, group: str) -> Inputs:
    size = d.turn([8, 4, 16, 8])
    if group == "courant":
        blocks = d.turn([6, 8, 2, 4])
        return {"w": _scaled(d, blocks, size).reshape(4, -1).float(), "block_size": size}
    if group == "bords":
        w = _scaled(d, 4, size).float()
        kind = d.turn(["égalité", "bloc nul", "extrême", "un par bloc"])
        if kind == "égalité":
            half = torch.tensor([_tie() / 2])
            w[:2] = 0
            w[0, 0], w[0, 1:3] = 1.0, half
            w[1, 1], w[1, 0], w[1, 2] = -2.0, 2 * half[0], half[0]
        elif kind == "bloc nul":
            w[d.integer(1, 2)] = 0
        elif kind == "extrême":
            w[2, 0] = 1000.0 * w[2].abs().max()
        else:
            return {"w": w.flatten()[:12], "block_size": 1}
        return {"w": w, "block_size": size}
    if group == "formes et types":
        blocks = d.turn([4, 6, 8, 8])
        base = _scaled(d, blocks, size)
        return d.turn(
            [
                {"w": base.T.contiguous().T, "block_size": size},
                {"w": base.half(), "block_size": size},
                {"w": d.strided(base.float().reshape(2, 2, -1)), "block_size": size},
                {"w": _near_levels(d, 2, 64).float().flatten()},
            ]
        )
    n = 4 * size
    return {"w": d.normal(2, n // 2), "block_size": d.turn([size + 1 if n % (size + 1) else size + 3, 0, n + 1, -size])}


_SPLIT = "if block_size < 1 or w.numel() % block_size:"
_PEAK = "absmax = blocks.abs().amax(dim=1)"
_CODES = "codes = torch.bucketize(x.to(levels.dtype), middles)"
_LEVELS = "levels = NF4_LEVELS.to(x.device, torch.promote_types(x.dtype, torch.float32))"

nf4_quantize = Exercise(
    points=3,
    minutes=25,
    stars=3,
    hints=[
        "Après la coupe en blocs, une ligne par bloc : que vaut le plus grand écart à zéro de chaque ligne, et que "
        "deviennent les valeurs une fois divisées par lui ?",
        "Les niveaux ne sont pas réguliers : arrondir ne suffit pas. Comment trouver le plus proche de seize nombres ?",
        "Entre deux niveaux voisins, la frontière est leur milieu : il y en a quinze, et torch.bucketize sait dire "
        "entre lesquels tombe une valeur. La distance aux seize niveaux, puis son minimum, convient aussi.",
        "Un bloc nul ferait une division par zéro : divisez-le par 1, ses valeurs tomberont sur le niveau 0.",
    ],
    groups={"courant": 0.45, "bords": 0.25, "formes et types": 0.15, "refus": 0.15},
    draw=draw_nf4,
    visible=2,
    examples=[
        {"w": torch.tensor([[0.0, 2.0, -1.0, 0.3], [-0.5, 0.1, 0.02, 0.0]]), "block_size": 4},
        {"w": torch.tensor([1.0, _tie() / 2, 0.0, -0.1]), "block_size": 2},
    ],
    misconceptions=[
        Misconception(
            "uniform_levels",
            swap((_LEVELS, "levels = torch.linspace(-1, 1, 16).to(torch.promote_types(x.dtype, torch.float32))")),
            "Vos niveaux sont régulièrement espacés : les poids le sont-ils ?",
        ),
        Misconception(
            "one_absmax",
            swap((_PEAK, "absmax = blocks.abs().amax().expand(len(blocks)).clone()")),
            "Un seul poids extrême écrase tous les blocs : chacun doit avoir son échelle.",
        ),
        Misconception(
            "floor_level",
            swap((_CODES, "codes = torch.bucketize(x.to(levels.dtype), levels, right=True) - 1")),
            "Le niveau du dessous n'est pas toujours le plus proche.",
        ),
        Misconception(
            "ceil_level",
            swap((_CODES, "codes = torch.bucketize(x.to(levels.dtype), levels)")),
            "Le niveau du dessus n'est pas toujours le plus proche.",
        ),
        Misconception(
            "ties_up",
            swap((_CODES, "codes = torch.bucketize(x.to(levels.dtype), middles, right=True)")),
            "À égale distance de deux niveaux, lequel l'énoncé demande-t-il ?",
        ),
        Misconception(
            "columns",
            swap(("w.reshape(-1, block_size)", "w.movedim(0, -1).reshape(-1, block_size)")),
            "Les blocs suivent l'ordre des poids à plat, ligne après ligne : les vôtres descendent les colonnes.",
        ),
        Misconception(
            "row_blocks",
            swap(("w.reshape(-1, block_size)", "w.reshape(w.shape[0], -1)")),
            "Vous prenez une échelle par ligne : que devient block_size ?",
        ),
        Misconception(
            "scale_l2",
            swap((_PEAK, "absmax = blocks.float().norm(dim=1).to(w.dtype)")),
            "Après division, le plus grand poids du bloc doit toucher ±1.",
        ),
        Misconception(
            "max_without_abs",
            swap((_PEAK, "absmax = blocks.amax(dim=1)")),
            "Dans un bloc, le plus grand écart à zéro est souvent du côté négatif.",
        ),
        Misconception(
            "zero_scale_one",
            swap(("to(torch.uint8), absmax", "to(torch.uint8), scale")),
            "Pour diviser, un bloc nul peut se contenter de 1 ; mais son plus grand écart à zéro, lui, vaut 0.",
        ),
        Misconception(
            "zero_block",
            swap(("blocks / scale[:, None]", "blocks / absmax[:, None]")),
            "Un bloc entièrement nul : par quoi divisez-vous ?",
        ),
        Misconception(
            "int4_codes",
            swap((_CODES, "codes = torch.round(x.to(levels.dtype) * 7.5 + 7.5)")),
            "Vous arrondissez sur une grille régulière : les niveaux de NF4 n'en forment pas une.",
        ),
        Misconception(
            "codes_reversed",
            swap((_CODES, _CODES.replace("codes = ", "codes = 15 - "))),
            "Le code 0 est celui du plus petit niveau, −1.",
        ),
        Misconception(
            "inverse_scale",
            swap(("to(torch.uint8), absmax", "to(torch.uint8), 1 / absmax")),
            "Vos échelles sont inversées : par quoi faudra-t-il multiplier un niveau pour retrouver le poids ?",
        ),
        Misconception(
            "no_check",
            swap((_SPLIT, "if False:")),
            "Quand les blocs ne tombent pas juste, c'est torch qui se plaint, avec ses mots : l'énoncé demande que ce "
            "soit vous.",
        ),
        Misconception(
            "truncates",
            swap(
                (_SPLIT, "if block_size < 1:"),
                ("w.reshape(-1, block_size)", "w.flatten()[: w.numel() // block_size * block_size].reshape(-1, block_size)"),  # noqa: E501
            ),
            "Quand les blocs ne tombent pas juste, vous jetez les derniers poids en silence.",
        ),
    ],
)  # fmt: skip

# --- Quiz -----------------------------------------------------------------------------------------------------------

full_rank = Quiz(
    "Une matrice de poids de Colibri est de rang plein, ou presque. Que peut-on en déduire pour sa mise à jour ΔW ?",
    (
        Choice(
            "ΔW est de rang plein elle aussi, sinon W + ΔW perdrait du rang",
            "Une mise à jour de rang 1 laisse en général le rang de la somme où il était : les deux n'ont pas à se "
            "ressembler.",
        ),
        Choice(
            "Rien : c'est une autre matrice, il faut la regarder",
            "L'hypothèse de LoRA porte sur le changement, pas sur les poids. La diapositive parle du rang des "
            "matrices de poids, l'article de celui de leur changement.",
            correct=True,
        ),
        Choice(
            "ΔW est forcément de rang faible, puisque l'apprentissage est court",
            "Chaque pas d'Adam ajoute une matrice qui peut être de rang plein : rien ne l'impose, il faut mesurer.",
        ),
    ),
)

both_factors_zero = Quiz(
    "A et B partent toutes deux de zéro. Que se passe-t-il pendant l'apprentissage ?",
    (
        Choice(
            "Il est plus lent au début, puis rattrape",
            "Pour rattraper, il faudrait un premier pas : cherchez le gradient de A quand B vaut zéro, et l'inverse.",
        ),
        Choice(
            "Il diverge, faute d'asymétrie",
            "Rien ne diverge : regardez plutôt quels nombres bougent.",
        ),
        Choice(
            "Rien : les deux gradients sont nuls, à tous les pas",
            "Le gradient de A contient B, celui de B contient A. Deux zéros se gardent l'un l'autre à zéro.",
            correct=True,
        ),
        Choice(
            "La même chose qu'avec A gaussienne, puisque le départ est le même",
            "La sortie de départ est la même, pas les gradients.",
        ),
    ),
)

alpha_role = Quiz(
    "Vous passez de r = 8 à r = 16 sans toucher à α, et vous gardez le même taux d'apprentissage. Que change la "
    "division par r ?",
    (
        Choice(
            "Chaque direction compte deux fois moins : leur somme reste du même ordre",
            "C'est ce que vise l'article, ne pas avoir à régler de nouveau le taux quand on change r. La mesure "
            "dira si c'est atteint.",
            correct=True,
        ),
        Choice(
            "La mise à jour est bornée par α",
            "Rien ne borne B ni A : α / r n'est qu'un facteur fixe.",
        ),
        Choice(
            "Le nombre de paramètres reste le même",
            "Il double avec r ; α n'y est pour rien.",
        ),
        Choice(
            "Rien, puisque α se simplifie avec le taux d'apprentissage dès que l'on emploie Adam",
            "Avec un gradient ordinaire ou avec Adam, changer le facteur change bien la vitesse à laquelle ΔW bouge.",
        ),
    ),
)

saved_flops = Quiz(
    "Pour un poids gelé situé au-dessus d'une couche LoRA, quel calcul de l'arrière disparaît ?",
    (
        Choice(
            "Tout l'arrière : un poids gelé n'a besoin ni de gradient, ni de ce qui y mène",
            "Le gradient doit traverser cette couche pour atteindre LoRA, plus bas.",
        ),
        Choice(
            "Le gradient de l'activation, 2 opérations par poids et par jeton",
            "C'est justement celui qui transmet le gradient vers le bas : il reste.",
        ),
        Choice(
            "Rien : avant et arrière sont les mêmes",
            "C'est la première réponse des diapositives ; il manque pourtant un produit de matrices sur trois.",
        ),
        Choice(
            "Le gradient du poids lui-même, 2 opérations par poids et par jeton sur 6",
            "6N devient 4N. Et sous la première couche qui apprend, le gradient de l'activation disparaît aussi : 2N.",
            correct=True,
        ),
    ),
)

where_to_cache = Quiz(
    "LoRA est posé sur c_attn dans tous les blocs. Peut-on garder en cache ce que calculent les blocs gelés ?",
    (
        Choice(
            "Oui, puisque leurs poids ne changent jamais",
            "Leurs poids, non ; mais leur entrée dépend de LoRA, qui change à chaque pas, dès le premier bloc.",
        ),
        Choice(
            "Seulement ce qui est calculé avant la première couche qui apprend",
            "Le cache ne vaut que sous le premier paramètre entraîné. Avec LoRA partout, il ne reste que les "
            "plongements.",
            correct=True,
        ),
        Choice(
            "Oui, mais il faut le recalculer à chaque passage",
            "S'il faut le recalculer, ce n'est plus un cache.",
        ),
    ),
)

merged_tasks = Quiz(
    "Un serveur reçoit, dans un même lot, des phrases pour dix tâches, chacune avec son LoRA. Que vaut-il mieux "
    "faire ?",
    (
        Choice(
            "Fusionner les dix LoRA dans un seul poids",
            "La somme des dix mises à jour n'est celle d'aucune tâche.",
        ),
        Choice(
            "Charger dix modèles fusionnés",
            "C'est possible, mais on paie dix fois la mémoire que LoRA devait épargner.",
        ),
        Choice(
            "Garder la base seule et ajouter à chaque phrase la mise à jour de sa tâche",
            "C'est le prix à payer, deux petits produits de plus par couche. L'article le signale parmi ses limites.",
            correct=True,
        ),
    ),
)

nf4_grid = Quiz(
    "Pourquoi les niveaux de NF4 sont-ils serrés près de zéro ?",
    (
        Choice(
            "Parce que des poids distribués comme une loi normale y sont les plus nombreux",
            "Chaque niveau doit servir à peu près autant de poids que les autres.",
            correct=True,
        ),
        Choice(
            "Parce que les petits poids comptent davantage que les grands pour ce que le modèle calcule",
            "Rien ne le dit, et l'élagage du chapitre 5 suggère plutôt le contraire.",
        ),
        Choice(
            "Pour que zéro soit représenté exactement",
            "Zéro est bien un niveau, et c'est un choix à part : une grille régulière peut aussi le contenir.",
        ),
        Choice(
            "Parce qu'un flottant de 4 bits les place ainsi",
            "NF4 n'est pas un format flottant : ni signe, ni exposant, seulement un numéro dans une table.",
        ),
    ),
)
