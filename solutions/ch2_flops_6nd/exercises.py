"""Déclarations du chapitre 2 : points, indices, tirage des cas, tolérances, idées fausses, quiz."""

from __future__ import annotations

import torch

from atelier.exercise import Choice, Draw, Exercise, Inputs, Misconception, Quiz, Tolerance, swap

ROUNDING = Tolerance(rtol=1e-6, why="quelques multiplications et divisions en double précision")

# --- matmul_flops ---------------------------------------------------------------------------------------------------


def _three_sizes(d: Draw, low: int, high: int) -> list[int]:
    """Trois tailles différentes, dans un ordre quelconque."""
    first = d.integer(low, high)
    sizes = [first, first + d.integer(2, high), 2 * first + high + d.integer(1, high)]
    d.random.shuffle(sizes)
    return sizes


def draw_matmul(d: Draw, group: str) -> Inputs:
    sizes = _three_sizes(d, 3, 60)
    if group == "bords":
        big = 2**31 + d.integer(1, 10**6)
        sizes = d.turn([[1, *sizes[1:]], [sizes[0], sizes[1], 1], [sizes[0], 1, sizes[2]], [big, 2 * big + 1, big - 7]])
    if group == "refus":
        sizes[d.index % 3] = d.turn([0, -d.integer(1, 9)])
    return dict(zip(("m", "k", "n"), sizes, strict=True))


_ENTRY = "per_entry = 2 * k"
_MATMUL_CHECK = "if min(m, k, n) < 1:"

matmul_flops = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Combien de nombres compte le résultat, et combien de multiplications chacun demande-t-il ?",
        "Une case du résultat est un produit scalaire de k termes : k multiplications, et autant d'additions si l'on "
        "part de zéro.",
        "Le nombre de cases du résultat, fois deux opérations, fois la longueur de la dimension sommée.",
    ],
    groups={"courant": 0.6, "bords": 0.2, "refus": 0.2},
    draw=draw_matmul,
    visible=4,
    examples=[{"m": 2, "k": 3, "n": 4}],
    misconceptions=[
        Misconception(
            "macs",
            swap((_ENTRY, "per_entry = k")),
            "Vous comptez les multiplications-additions ; chacune fait deux opérations.",
        ),
        Misconception(
            "exact_adds",
            swap((_ENTRY, "per_entry = 2 * k - 1")),
            "C'est le compte exact des additions, mais la convention du domaine compte une addition par "
            "multiplication.",
        ),
        Misconception(
            "no_inner",
            swap((_ENTRY, "per_entry = 2")),
            "Vous comptez les cases du résultat : combien de travail faut-il pour chacune ?",
        ),
        Misconception(
            "inputs_read",
            swap(("return m * n * per_entry", "return 2 * (m * k + k * n)")),
            "Vous comptez les nombres lus ; chaque nombre lu sert pourtant à plusieurs cases du résultat.",
        ),
        Misconception(
            "square",
            swap(("return m * n * per_entry", "return 2 * m**3")),
            "Essayez avec trois dimensions différentes.",
        ),
        Misconception(
            "float_path",
            swap(("return m * n * per_entry", "return int(2.0 * m * k * n)")),
            "Sur de très grandes matrices, vos derniers chiffres sont faux : un flottant n'a que 53 bits pour eux.",
        ),
        Misconception(
            "no_check",
            swap((_MATMUL_CHECK, "if False:")),
            "Une matrice de largeur nulle ou négative n'existe pas : l'énoncé demande de la refuser.",
        ),
        Misconception(
            "only_negative",
            swap((_MATMUL_CHECK, "if min(m, k, n) < 0:")),
            "Zéro n'est pas négatif, et pourtant une dimension nulle doit être refusée.",
        ),
        Misconception(
            "one_refused",
            swap((_MATMUL_CHECK, "if min(m, k, n) < 2:")),
            "Une dimension de 1 est permise : un vecteur est une matrice comme une autre.",
        ),
    ],
)


# --- forward_flops_per_token ----------------------------------------------------------------------------------------


def draw_forward(d: Draw, group: str) -> Inputs:
    inputs = {
        "n_layer": d.integer(2, 12),
        "d_model": 16 * d.integer(2, 40),
        "n_ctx": d.integer(33, 999),
        "n_vocab": d.integer(1001, 9999),
    }
    if group == "refus":
        bad = d.turn([{"n_layer": -1}, {"d_model": 0}, {"n_ctx": 0}, {"n_vocab": -d.integer(1, 9)}])
        return inputs | bad
    if group == "bords":
        return inputs | d.turn([{"n_layer": 0}, {"n_ctx": 1}, {"d_model": 1}, {"n_vocab": 1, "n_layer": 1}])
    if d.index % 2:
        return inputs
    n_layer, d_model = d.choice([(12, 768), (24, 1024), (36, 1280), (48, 1600)])
    return {"n_layer": n_layer, "d_model": d_model, "n_ctx": d.choice([512, 768, 2048]), "n_vocab": 50257}


_PROJECTIONS = "projections = 2 * d_model * (3 * d_model + d_model)"
_SCORES = "scores = 2 * n_ctx * d_model"
_MIXING = "mixing = 2 * n_ctx * d_model"
_MLP = "mlp = 2 * d_model * 4 * d_model + 2 * 4 * d_model * d_model"
_HEAD = "head = 2 * d_model * n_vocab"
_FORWARD = "return float(n_layer * (projections + scores + mixing + mlp) + head)"
_FORWARD_CHECK = "if n_layer < 0 or min(d_model, n_ctx, n_vocab) < 1:"

forward_flops_per_token = Exercise(
    points=3,
    minutes=25,
    stars=2,
    hints=[
        "Suivez un jeton dans un bloc : par quelles matrices passe-t-il, et de quelles dimensions ?",
        "Quatre couches linéaires par bloc : d → 3d, d → d, d → 4d, 4d → d. Et l'attention fait deux produits de plus, "
        "sans aucun paramètre : lesquels ?",
        "Pour un jeton, comparer sa question à n_ctx clés, puis mélanger n_ctx valeurs, coûte deux fois 2·n_ctx·d.",
        "L·(24·d² + 4·n_ctx·d) + 2·d·V.",
    ],
    groups={"courant": 0.6, "bords": 0.2, "refus": 0.2},
    draw=draw_forward,
    visible=4,
    probe="call_float",
    tolerance=Tolerance(rtol=1e-6, why="une somme de produits, peut-être en float32"),
    examples=[
        {"n_layer": 1, "d_model": 2, "n_ctx": 3, "n_vocab": 5},
        {"n_layer": 12, "d_model": 768, "n_ctx": 1024, "n_vocab": 50257},
    ],
    misconceptions=[
        Misconception(
            "no_attention",
            swap((_SCORES, "scores = 0"), (_MIXING, "mixing = 0")),
            "Doublez la longueur du contexte : votre coût par jeton ne bouge pas. Qui grandit avec le contexte ?",
        ),
        Misconception(
            "only_qk",
            swap((_MIXING, "mixing = 0")),
            "Un seul des deux produits de l'attention est compté : à quoi servent les scores, une fois calculés ?",
        ),
        Misconception(
            "causal_half",
            swap((_SCORES, "scores = (n_ctx + 1) * d_model"), (_MIXING, "mixing = (n_ctx + 1) * d_model")),
            "Vous ne comptez que les paires permises ; un calcul dense fait aussi la moitié qui sera masquée.",
        ),
        Misconception(
            "attention_not_shared",
            swap((_SCORES, "scores = 2 * n_ctx * n_ctx * d_model"), (_MIXING, "mixing = 2 * n_ctx * n_ctx * d_model")),
            "Le carré de la longueur est le prix de toute la fenêtre : l'énoncé demande celui d'un seul jeton.",
        ),
        Misconception(
            "no_head",
            swap((_HEAD, "head = 0")),
            "Passer de d composantes à un score par mot du vocabulaire coûte aussi un produit.",
        ),
        Misconception(
            "head_per_layer",
            swap((_FORWARD, "return float(n_layer * (projections + scores + mixing + mlp + head))")),
            "La tête de sortie n'est appelée qu'une fois, au-dessus du dernier bloc.",
        ),
        Misconception(
            "head_once",
            swap((_HEAD, "head = 2 * d_model * n_vocab / n_ctx")),
            "Vous ne faites prédire que le dernier jeton : ici, la tête donne des scores après chacun.",
        ),
        Misconception(
            "embedding_counted",
            swap((_HEAD, "head = 2 * d_model * n_vocab * 2")),
            "Lire une ligne d'une table n'est pas un produit de matrices.",
        ),
        Misconception(
            "macs",
            swap((_FORWARD, _FORWARD + " / 2")),
            "Vous êtes exactement à la moitié : une multiplication-addition fait deux opérations.",
        ),
        Misconception(
            "whole_window",
            swap((_FORWARD, _FORWARD + " * n_ctx")),
            "C'est le prix de toute la fenêtre : combien de jetons se le partagent ?",
        ),
        Misconception(
            "no_output_projection",
            swap((_PROJECTIONS, "projections = 2 * d_model * 3 * d_model")),
            "Quand les têtes ont fait leurs moyennes, quelle couche remet leurs résultats dans le flux ?",
        ),
        Misconception(
            "no_qkv",
            swap((_PROJECTIONS, "projections = 2 * d_model * d_model")),
            "D'où viennent les questions, les clés et les valeurs ? Les fabriquer est aussi un produit.",
        ),
        Misconception(
            "one_mlp_layer",
            swap((_MLP, "mlp = 2 * d_model * 4 * d_model")),
            "Le MLP élargit puis resserre : combien de matrices ?",
        ),
        Misconception(
            "mlp_not_widened",
            swap((_MLP, "mlp = 2 * 2 * d_model * d_model")),
            "Le MLP de GPT-2 passe par quatre fois plus de composantes : vos deux matrices sont carrées.",
        ),
        Misconception(
            "biases_counted",
            swap((_FORWARD, "return float(n_layer * (projections + scores + mixing + mlp + 9 * d_model) + head)")),
            "Ajouter un biais n'est pas un produit de matrices : la convention ne compte que ceux-ci.",
        ),
        Misconception(
            "with_backward",
            swap((_FORWARD, "return 3 " + "* float(n_layer * (projections + scores + mixing + mlp) + head)")),
            "Vous êtes au triple : c'est le prix d'un jeton d'apprentissage, passage arrière compris.",
        ),
        Misconception(
            "no_check",
            swap((_FORWARD_CHECK, "if False:")),
            "Un modèle de taille négative, ou de largeur nulle, n'existe pas : l'énoncé demande de le refuser.",
        ),
        Misconception(
            "zero_layers_refused",
            swap((_FORWARD_CHECK, "if min(n_layer, d_model, n_ctx, n_vocab) < 1:")),
            "Zéro bloc est permis : il reste la tête.",
        ),
    ],
)


# --- training_flops -------------------------------------------------------------------------------------------------


def draw_training(d: Draw, group: str) -> Inputs:
    inputs = {"n_params": d.integer(10**6, 10**12) | 1, "n_tokens": d.integer(10**9, 10**13) | 1}
    if group == "refus":
        return inputs | {"n_tokens": -d.integer(1, 10**9)}
    if group == "bords":
        return inputs | d.turn([{"n_tokens": 0}, {"n_tokens": 1}, {"n_params": 0}, {"n_params": 1}])
    return inputs


_6ND = "return 6 * n_params * n_tokens"

training_flops = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Un paramètre sert une fois par jeton, à une multiplication et à une addition. Combien de fois dans le passage "
        "arrière ?",
        "Deux opérations à l'aller, quatre au retour, par paramètre et par jeton.",
        "C ≈ 6·N·D, gardé en entier.",
    ],
    groups={"courant": 0.7, "bords": 0.2, "refus": 0.1},
    draw=draw_training,
    visible=4,
    examples=[{"n_params": 10, "n_tokens": 100}],
    misconceptions=[
        Misconception(
            "2nd",
            swap((_6ND, "return 2 * n_params * n_tokens")),
            "C'est le prix du passage avant ; l'apprentissage en fait un autre.",
        ),
        Misconception(
            "3nd",
            swap((_6ND, "return 3 * n_params * n_tokens")),
            "Avant et arrière sont là, mais une multiplication-addition fait deux opérations.",
        ),
        Misconception("4nd", swap((_6ND, "return 4 * n_params * n_tokens")), "C'est l'arrière seul."),
        Misconception(
            "8nd",
            swap((_6ND, "return 8 * n_params * n_tokens")),
            "Vous ajoutez un second passage avant : c'est le cas avec recalcul des activations, pas ici.",
        ),
        Misconception(
            "12nd",
            swap((_6ND, "return 12 * n_params * n_tokens")),
            "Le 6 compte déjà deux opérations par multiplication-addition : vous les comptez une seconde fois.",
        ),
        Misconception(
            "float_path",
            swap((_6ND, "return int(6.0 * n_params * n_tokens)")),
            "Vos derniers chiffres sont faux : le calcul est passé par un flottant, qui n'a que 53 bits pour eux.",
        ),
        Misconception(
            "no_check",
            swap(("if n_tokens < 0:", "if False:")),
            "Un nombre négatif de jetons ne veut rien dire : l'énoncé demande de le refuser.",
        ),
        Misconception(
            "zero_refused",
            swap(("if n_tokens < 0:", "if n_tokens < 1:")),
            "Ne rien apprendre ne coûte rien : 0 est une réponse, pas une erreur.",
        ),
    ],
)


# --- tokens_for_budget ----------------------------------------------------------------------------------------------


def _few_tokens(d: Draw, n_params: int) -> Inputs:
    """Quelques jetons et un ou deux tiers : ni la partie entière ni quelques décimales n'y suffisent."""
    return {"compute": 2.0 * n_params * (3 * d.integer(2, 8) + d.choice([1, 2])), "n_params": n_params}


def draw_budget(d: Draw, group: str) -> Inputs:
    n_params = d.integer(10**6, 10**11)
    if group == "bords":
        small = _few_tokens(d, d.choice([4, 5, 7]))
        return d.turn(
            [
                small,
                {"compute": 6.0 * 7 * n_params, "n_params": n_params},
                small | {"n_params": 1},
                small | {"compute": 0.0},
            ]
        )
    if d.index == 0:
        return _few_tokens(d, n_params)
    return {"compute": 10.0 ** d.uniform(17, 24), "n_params": n_params}


_BUDGET = "return compute / (6 * n_params)"

tokens_for_budget = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Dans C ≈ 6ND, deux des trois nombres sont donnés.",
        "À budget fixé, doubler le modèle divise par deux ce qu'il peut lire.",
        "D = C / (6N). Vérifiez en remettant D dans la formule.",
    ],
    groups={"courant": 0.75, "bords": 0.25},
    draw=draw_budget,
    visible=4,
    probe="call_float",
    tolerance=ROUNDING,
    examples=[{"compute": 600.0, "n_params": 4}, {"compute": 100.0, "n_params": 3}],
    misconceptions=[
        Misconception(
            "no_6",
            swap((_BUDGET, "return compute / n_params")),
            "Vérifiez en remettant votre D dans C ≈ 6ND : retrouvez-vous le budget ?",
        ),
        Misconception(
            "forward_only",
            swap((_BUDGET, "return compute / (2 * n_params)")),
            "Votre budget ne paie que le passage avant : que coûte l'apprentissage d'un jeton ?",
        ),
        Misconception(
            "precedence",
            swap((_BUDGET, "return compute / 6 * n_params")),
            "Relisez l'ordre des opérations de votre division.",
        ),
        Misconception(
            "multiplied",
            swap((_BUDGET, "return 6 * compute * n_params")),
            "À budget fixé, un modèle plus gros doit voir moins de jetons : chez vous, c'est l'inverse.",
        ),
        Misconception(
            "inverted",
            swap((_BUDGET, "return 6 * n_params / compute if compute else 0.0")),
            "Votre fraction est à l'envers : avec un plus gros budget, vous liriez moins.",
        ),
        Misconception(
            "chinchilla",
            swap((_BUDGET, "return 20.0 * n_params")),
            "Ce rapport donne un optimum ; ici le budget est imposé.",
        ),
        Misconception(
            "floored",
            swap((_BUDGET, "return compute // (6 * n_params)")),
            "Votre division arrondit : l'énoncé demande le quotient exact, même fractionnaire.",
        ),
    ],
)


# --- compute_optimal ------------------------------------------------------------------------------------------------


def draw_optimal(d: Draw, group: str) -> Inputs:
    compute = 10.0 ** d.uniform(18, 25)
    if group == "bords":
        return d.turn(
            [
                {"compute": compute, "tokens_per_param": 1.0},
                {"compute": d.uniform(700, 900), "tokens_per_param": d.uniform(2, 3)},
                {"compute": d.uniform(700, 900)},
                {"compute": compute, "tokens_per_param": d.uniform(0.1, 0.4)},
            ]
        )
    if d.index % 2 == 0:
        return {"compute": compute}
    return {"compute": compute, "tokens_per_param": d.uniform(30.0, 300.0)}


_N = "n_params = math.sqrt(compute / (6 * tokens_per_param))"
_D = "return n_params, tokens_per_param * n_params"

compute_optimal = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Deux équations, deux inconnues : 6·N·D = C, et un rapport imposé entre D et N.",
        "Remplacez D par tokens_per_param·N dans la première. Quelle puissance de N y reste-t-il ?",
        "6·ρ·N² = C, où ρ est le nombre de jetons par paramètre ; D s'en déduit.",
    ],
    groups={"courant": 0.7, "bords": 0.3},
    draw=draw_optimal,
    visible=4,
    tolerance=ROUNDING,
    examples=[{"compute": 12000.0}, {"compute": 12000.0, "tokens_per_param": 5.0}],
    misconceptions=[
        Misconception(
            "no_6",
            swap((_N, "n_params = math.sqrt(compute / tokens_per_param)")),
            "Vos N et D ne redonnent pas le budget : que coûte un paramètre, par jeton ?",
        ),
        Misconception(
            "forward_only",
            swap((_N, "n_params = math.sqrt(compute / (2 * tokens_per_param))")),
            "Vos N et D coûtent trois fois le budget : vous n'avez payé que le passage avant.",
        ),
        Misconception(
            "no_sqrt",
            swap((_N, "n_params = compute / (6 * tokens_per_param)")),
            "N apparaît deux fois dans le budget, car D en dépend aussi.",
        ),
        Misconception(
            "ratio_outside",
            swap((_N, "n_params = math.sqrt(compute / 6)")),
            "Le rapport allonge D après coup, et le budget est dépassé : il doit entrer dans l'équation de N.",
        ),
        Misconception(
            "sqrt_of_budget_only",
            swap((_N, "n_params = math.sqrt(compute) / (6 * tokens_per_param)")),
            "La racine porte sur tout ce qui vaut N², pas sur le budget seul.",
        ),
        Misconception(
            "swapped",
            swap((_D, "return tokens_per_param * n_params, n_params")),
            "Avec vingt jetons par paramètre, lequel des deux nombres doit être le plus grand ?",
        ),
        Misconception(
            "ratio_fixed",
            swap(("6 * tokens_per_param", "6 * 20"), ("tokens_per_param * n_params", "20 * n_params")),
            "Changez le rapport : votre réponse ne bouge pas.",
        ),
        Misconception(
            "params_only",
            swap((_D, "return n_params, compute / n_params")),
            "N est juste ; remettez votre D dans 6·N·D : vous en trouverez six fois trop.",
        ),
        Misconception(
            "rounded",
            swap((_D, "return float(round(n_params)), float(round(tokens_per_param * n_params))")),
            "Vous arrondissez : l'énoncé demande deux nombres réels dont le produit redonne exactement le budget.",
        ),
    ],
)


# --- training_days --------------------------------------------------------------------------------------------------


def draw_days(d: Draw, group: str) -> Inputs:
    short = (
        group == "bords" or group == "courant" and d.index == 0
    )  # quelques secondes : rien ne s'y arrondit sans bruit
    inputs = {
        "n_params": d.integer(10**7, 10**8) if short else d.integer(10**8, 10**12),
        "n_tokens": d.integer(10**8, 10**9) if short else d.integer(10**10, 10**13),
        "n_gpus": d.integer(8, 99 if short else 16384),
        "peak_flops": d.choice([1.25e14, 3.12e14, 9.89e14]),
        "mfu": d.uniform(0.2, 0.6),
    }
    if group == "refus":
        return inputs | d.turn([{"mfu": d.uniform(20, 60)}, {"mfu": 0.0}, {"mfu": -0.3}, {"mfu": 1.5}])
    if group == "bords":
        return inputs | d.turn([{"mfu": 1.0}, {"n_gpus": 1}, {"n_tokens": 0}, {"mfu": d.uniform(0.01, 0.02)}])
    return inputs


_FLOPS = "flops = 6 * n_params * n_tokens"
_RATE = "rate = n_gpus * peak_flops * mfu"
_DAYS = "return flops / rate / 86400"
_MFU_CHECK = "if not 0 < mfu <= 1:"

training_days = Exercise(
    points=1,
    minutes=10,
    stars=1,
    hints=[
        "Une durée est un travail divisé par une vitesse. Quel est le travail ?",
        "La vitesse réelle : toutes les cartes, chacune à sa vitesse de pointe, et de celle-ci la part mfu seulement.",
        "6·N·D / (cartes · pointe · mfu) est en secondes ; un jour en compte 86 400.",
    ],
    groups={"courant": 0.6, "bords": 0.2, "refus": 0.2},
    draw=draw_days,
    visible=4,
    probe="call_float",
    tolerance=ROUNDING,
    examples=[{"n_params": 10**9, "n_tokens": 2 * 10**10, "n_gpus": 8, "peak_flops": 3.12e14, "mfu": 0.4}],
    misconceptions=[
        Misconception(
            "mfu_multiplied",
            swap((_DAYS, "return flops * mfu / (n_gpus * peak_flops) / 86400")),
            "Une moins bonne utilisation des cartes raccourcit votre entraînement ?",
        ),
        Misconception(
            "mfu_ignored",
            swap((_RATE, "rate = n_gpus * peak_flops")),
            "Vos cartes tournent toujours à leur vitesse de pointe : à quoi sert mfu ?",
        ),
        Misconception(
            "hours", swap(("86400", "3600")), "Votre nombre est juste dans une autre unité : ce sont des heures."
        ),
        Misconception(
            "seconds", swap((" / 86400", "")), "Votre nombre est juste dans une autre unité : ce sont des secondes."
        ),
        Misconception(
            "one_hour_days",
            swap(("86400", "24")),
            "Vous divisez des secondes par 24 : combien de secondes dans un jour ?",
        ),
        Misconception(
            "gpus_ignored",
            swap((_RATE, "rate = peak_flops * mfu")),
            "Avec mille cartes ou une seule, votre durée est la même.",
        ),
        Misconception(
            "gpus_multiplied",
            swap((_DAYS, "return flops * n_gpus / (peak_flops * mfu) / 86400")),
            "Chez vous, ajouter des cartes allonge l'entraînement : c'est la durée, ou le total des heures de carte ?",
        ),
        Misconception(
            "percent",
            swap((_RATE, "rate = n_gpus * peak_flops * mfu / 100")),
            "mfu est une fraction, pas un pourcentage.",
        ),
        Misconception(
            "forward_only",
            swap((_FLOPS, "flops = 2 * n_params * n_tokens")),
            "Vous ne payez que le passage avant : l'apprentissage en demande trois fois plus.",
        ),
        Misconception(
            "no_check",
            swap((_MFU_CHECK, "if mfu == 0:")),
            "Une utilisation de 40, ou négative, est impossible : l'énoncé demande de la refuser.",
        ),
        Misconception(
            "no_upper_check",
            swap((_MFU_CHECK, "if not 0 < mfu:")),
            "Une carte ne dépasse pas sa vitesse de pointe : qui vous donne 40 pense sans doute à un pourcentage.",
        ),
        Misconception(
            "no_lower_check",
            swap((_MFU_CHECK, "if mfu > 1:")),
            "À utilisation nulle ou négative, l'entraînement ne finit jamais : l'énoncé demande de la refuser.",
        ),
        Misconception(
            "one_refused",
            swap((_MFU_CHECK, "if not 0 < mfu < 1:")),
            "Une utilisation de 1 est un idéal, mais elle est permise.",
        ),
    ],
)


# --- fit_power_law --------------------------------------------------------------------------------------------------


def _law(d: Draw, count: int, low: float, high: float, noise: float) -> Inputs:
    """Des points bruités d'une loi de puissance, dans le désordre ; la courbure évite qu'une droite par deux points
    ou par l'origine ne tombe juste."""
    log_c = low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.3 * d.normal(count).double()) / count
    log_c = log_c[torch.randperm(count, generator=d.generator)]
    a, b = d.uniform(8, 30), d.uniform(0.04, 0.15)
    bumps = noise * torch.where(torch.arange(count) % 2 == 0, 1.0, -0.6).double() + noise * d.normal(count).double() / 3
    compute = 10.0**log_c
    return {"compute": compute, "loss": a * compute**-b * torch.exp(bumps)}


def draw_power_law(d: Draw, group: str) -> Inputs:
    count = d.integer(5, 8)
    points = _law(d, count, 12, 18, 0.05)
    if group == "refus":
        compute, loss = points["compute"].clone(), points["loss"].clone()
        compute[d.integer(0, count - 1)], loss[d.integer(0, count - 1)] = 0.0, -0.5
        return d.turn(
            [
                points | {"compute": compute},
                {"compute": points["compute"][:1], "loss": points["loss"][:1]},
                points | {"loss": loss},
                {"compute": points["compute"], "loss": points["loss"][:-1]},
            ]
        )
    if group == "bords":
        return d.turn(
            [
                {name: t[:2] for name, t in points.items()},
                _law(d, count, 0.2, 2.0, 0.05),
                points
                | {"loss": points["loss"].flip(0).sort().values[torch.argsort(torch.argsort(points["compute"]))]},
                _law(d, count, 20, 25, 0.05),
            ]
        )
    if group == "types":
        near = _law(d, count, 0.5, 3, 0.05)
        return d.turn(
            [
                {name: d.strided(t) for name, t in points.items()},
                {name: t.float() for name, t in near.items()},
                {name: t.flip(0)[::2] for name, t in _law(d, 2 * count, 12, 18, 0.05).items()},
            ]
        )
    return points


_SLOPE = "slope = (dx * dy).sum() / (dx * dx).sum()"
_LOGS = "x, y = compute.double().log(), loss.double().log()"
_LAW = "return math.exp(intercept), -slope.item()"
_INTERCEPT = "intercept = (y.mean() - slope * x.mean()).item()"
_POSITIVE = "if (compute <= 0).any() or (loss <= 0).any():"
_SHAPES = "if compute.ndim != 1 or compute.shape != loss.shape or len(compute) < 2:"

fit_power_law = Exercise(
    points=2,
    minutes=20,
    stars=2,
    hints=[
        "Prenez le logarithme des deux côtés de loss = a·compute^(−b) : que devient la formule ?",
        "log loss = log a − b·log compute : une droite, dont l'ordonnée à l'origine est log a et la pente −b.",
        "La pente des moindres carrés est Σ(x − x̄)(y − ȳ) / Σ(x − x̄)², et la droite passe par le point moyen.",
        "b est l'opposé de la pente ; a est l'exponentielle de l'ordonnée à l'origine, dans la base du logarithme "
        "pris.",
    ],
    groups={"courant": 0.5, "bords": 0.2, "types": 0.1, "refus": 0.2},
    draw=draw_power_law,
    visible=4,
    tolerance=Tolerance(rtol=2e-4, atol=1e-6, why="moindres carrés, parfois en float32"),
    examples=[
        {
            "compute": torch.tensor([1e12, 1e13, 1e14, 1e15], dtype=torch.float64),
            "loss": torch.tensor([5.1, 4.3, 3.7, 3.0], dtype=torch.float64),
        }
    ],
    misconceptions=[
        Misconception(
            "linear_fit",
            swap((_LOGS, "x, y = compute.double(), loss.double()"), (_LAW, "return intercept, -slope.item()")),
            "Une loi de puissance n'est une droite qu'après un changement d'axes.",
        ),
        Misconception(
            "semilog",
            swap((_LOGS, "x, y = compute.double().log(), loss.double()"), (_LAW, "return intercept, -slope.item()")),
            "Un seul de vos deux axes est logarithmique.",
        ),
        Misconception(
            "exponential",
            swap((_LOGS, "x, y = compute.double(), loss.double().log()")),
            "Vous ajustez une exponentielle : dans une loi de puissance, le calcul aussi passe par le logarithme.",
        ),
        Misconception(
            "mixed_bases",
            swap((_LOGS, "x, y = compute.double().log10(), loss.double().log10()")),
            "L'exposant est bon, pas le facteur : dans quelle base revenez-vous du logarithme ?",
        ),
        Misconception(
            "log_a",
            swap((_LAW, "return intercept, -slope.item()")),
            "Votre premier nombre est le logarithme du facteur : comment en revenir ?",
        ),
        Misconception(
            "sign_b",
            swap((_LAW, "return math.exp(intercept), slope.item()")),
            "La perte baisse quand le calcul augmente : quel signe porte déjà la formule ?",
        ),
        Misconception(
            "swapped",
            swap((_LAW, "return -slope.item(), math.exp(intercept)")),
            "Vos deux nombres sont justes et dans l'autre ordre : le facteur d'abord, l'exposant ensuite.",
        ),
        Misconception(
            "two_points",
            swap(
                (
                    _SLOPE,
                    "first, last = x.argmin(), x.argmax()\n    slope = (y[last] - y[first]) / (x[last] - x[first])",
                ),
                (_INTERCEPT, "intercept = (y[first] - slope * x[first]).item()"),
            ),
            "Vous tirez la droite par deux points : les autres mesures doivent compter.",
        ),
        Misconception(
            "first_and_last",
            swap(
                (_SLOPE, "slope = (y[-1] - y[0]) / (x[-1] - x[0])"),
                (_INTERCEPT, "intercept = (y[0] - slope * x[0]).item()"),
            ),
            "Vous ne regardez que la première et la dernière mesure de la liste, qui n'est pas rangée : les autres "
            "doivent compter.",
        ),
        Misconception(
            "through_origin",
            swap((_SLOPE, "slope = (x * y).sum() / (x * x).sum()"), (_INTERCEPT, "intercept = 0.0")),
            "Votre droite passe par l'origine : le facteur a n'a aucune raison de valoir 1.",
        ),
        Misconception(
            "axes_swapped",
            swap(
                (_LOGS, "y, x = compute.double().log(), loss.double().log()"),
                (_LAW, "return math.exp(-intercept / slope.item()), -1 / slope.item()"),
            ),
            "Vous expliquez le calcul par la perte : les moindres carrés doivent porter sur l'écart des pertes.",
        ),
        Misconception(
            "no_check",
            swap((_SHAPES, "if compute.shape != loss.shape:"), (_POSITIVE, "if False:")),
            "Le logarithme d'un nombre négatif, une droite par un seul point : votre fonction rend nan au lieu de "
            "refuser.",
        ),
        Misconception(
            "one_point",
            swap((_SHAPES, "if compute.shape != loss.shape:")),
            "Par un seul point passent toutes les droites : l'énoncé demande de le refuser.",
        ),
        Misconception(
            "no_positive_check",
            swap((_POSITIVE, "if False:")),
            "Une valeur nulle ou négative n'a pas de logarithme : l'énoncé demande de la refuser.",
        ),
        Misconception(
            "only_compute_checked",
            swap((_POSITIVE, "if (compute <= 0).any():")),
            "Vous surveillez le calcul, pas la perte : elle aussi passe par le logarithme.",
        ),
    ],
)


# --- Quiz -----------------------------------------------------------------------------------------------------------

flops_words = Quiz(
    "Un article annonce « 3,14·10²³ FLOPs » pour un apprentissage ; la fiche d'une carte, « 312 TFLOPS ». Que donne le "
    "quotient des deux ?",
    (
        Choice(
            "Rien : on ne divise pas des FLOPS par des FLOPS",
            "L'écriture se ressemble, les grandeurs non : l'une est un nombre d'opérations, l'autre une vitesse.",
        ),
        Choice(
            "Une durée, celle d'une carte qui ne s'arrêterait jamais",
            "Des opérations divisées par des opérations par seconde. C'est pourquoi ce cours écrit FLOP pour un "
            "compte et FLOP/s pour une vitesse.",
            correct=True,
        ),
        Choice(
            "Le nombre de cartes nécessaires",
            "Il faudrait dire en combien de temps : le quotient est déjà en secondes.",
        ),
        Choice(
            "Le nombre de jetons lus",
            "Rien dans ces deux nombres ne parle de jetons : il faudrait la taille du modèle.",
        ),
    ),
)

context_twice = Quiz(
    "On double le contexte d'un GPT-2. Que devient le coût d'un passage avant, **par jeton** ?",
    (
        Choice(
            "Il double",
            "Seul le terme de l'attention double ; les couches linéaires et la tête ne savent pas où est le jeton.",
        ),
        Choice(
            "Il ne change pas : deux fois plus d'opérations, divisées par deux fois plus de jetons",
            "Diviser par la longueur n'efface pas un terme qui grandit comme son carré.",
        ),
        Choice(
            "Il quadruple, comme la table des scores",
            "La table entière quadruple, mais deux fois plus de jetons se la partagent.",
        ),
        Choice(
            "Il augmente d'un terme proportionnel au contexte, le reste ne bouge pas",
            "Chaque jeton compare sa question à deux fois plus de clés. Dans un petit contexte, cela se voit à "
            "peine ; dans un très long, c'est presque tout.",
            correct=True,
        ),
    ),
)

backward_twice = Quiz(
    "Pourquoi le passage arrière coûte-t-il deux fois le passage avant ?",
    (
        Choice(
            "Il faut refaire le passage avant, en entier, pour retrouver les activations qu'il avait produites",
            "Elles ont été gardées en mémoire. Les recalculer est un choix, qui coûte un passage de plus : 8ND.",
        ),
        Choice(
            "Chaque produit en appelle deux : le gradient de son entrée et celui de ses poids",
            "Ils ont les mêmes trois dimensions que lui, dans un autre ordre, donc le même prix.",
            correct=True,
        ),
        Choice(
            "L'optimiseur lit et écrit tous les paramètres",
            "Il le fait une fois par pas, pas une fois par jeton : quelques opérations par paramètre, négligeables "
            "devant "
            "celles de tout un lot.",
        ),
        Choice(
            "Une dérivée est toujours deux fois plus chère que sa fonction",
            "Ce n'est pas une loi : geler une couche ou une entrée supprime un des deux produits, et le rapport "
            "change.",
        ),
    ),
)

what_6nd_forgets = Quiz(
    "Pour lequel de ces modèles 6ND, N ne comptant ni table ni tête, se trompe-t-il le plus ?",
    (
        Choice(
            "Un grand modèle, au contexte court",
            "C'est là que la règle est la meilleure : les matrices des blocs, en d², écrasent tout le reste.",
        ),
        Choice(
            "Un grand modèle, appris sur très peu de jetons",
            "Le nombre de jetons multiplie les deux membres : il ne change pas l'erreur relative.",
        ),
        Choice(
            "Un petit modèle, au vocabulaire et au contexte grands",
            "La tête (2·d·V) et l'attention (4·T·d) ne grandissent que comme d, et l'emportent quand d est petit.",
            correct=True,
        ),
    ),
)

mfu_meaning = Quiz(
    "Deux équipes entraînent le même modèle sur les mêmes cartes. L'une annonce une MFU de 45 %, l'autre de 30 %. Que "
    "peut-on conclure ?",
    (
        Choice(
            "La première finit en un tiers de temps de moins",
            "À travail et pointe égaux, la durée est en 1/MFU, et 30/45 fait deux tiers.",
            correct=True,
        ),
        Choice(
            "La première aura un meilleur modèle",
            "Les opérations utiles sont les mêmes : la MFU dit combien de temps elles prennent, pas ce qu'elles "
            "valent.",
        ),
        Choice(
            "La première consomme une fois et demie plus d'électricité",
            "Plutôt moins : une carte qui attend reste allumée, et plus longtemps.",
        ),
        Choice(
            "La seconde a des cartes en panne",
            "Rien ne le dit : attendre la mémoire, le réseau ou un petit lot suffit à perdre de la vitesse.",
        ),
    ),
)

hundred_times = Quiz(
    "On vous donne cent fois plus de calcul. Que faire de Colibri, d'après la règle des 20 jetons par paramètre ?",
    (
        Choice(
            "Un modèle cent fois plus gros, sur le même texte",
            "C'est dépenser tout le budget en paramètres : il n'aurait plus, pour chacun, qu'un centième des jetons.",
        ),
        Choice(
            "Le même modèle, sur cent fois plus de texte",
            "C'est dépenser tout le budget en jetons : un si petit modèle n'a plus guère de quoi apprendre.",
        ),
        Choice(
            "Un modèle dix fois plus gros, sur dix fois plus de texte",
            "N et D croissent tous deux comme la racine du budget.",
            correct=True,
        ),
        Choice(
            "Un modèle cinquante fois plus gros, sur deux fois plus de texte",
            "Le produit est le bon, le partage non : le rapport entre D et N doit rester le même.",
        ),
    ),
)

past_optimum = Quiz(
    "Llama 3 8B a lu 15 000 milliards de jetons : près de cent fois ce que veut la règle. Est-ce du calcul perdu ?",
    (
        Choice(
            "Oui : passé l'optimum, la perte ne descend plus",
            "Elle descend encore, plus lentement : l'optimum dit où le même calcul aurait servi davantage.",
        ),
        Choice(
            "Non : la règle des 20 jetons ne vaut que pour des modèles bien plus gros",
            "Elle n'est pas réservée aux gros ; elle répond seulement à une autre question, celle du budget "
            "d'apprentissage.",
        ),
        Choice(
            "Oui pour l'apprentissage ; non si le modèle doit servir longtemps",
            "Un modèle plus petit coûte moins à chaque jeton produit. On paie une fois plus cher pour payer moins"
            " ensuite, tous les jours.",
            correct=True,
        ),
        Choice(
            "Non : il fallait cela pour lire tout le Web",
            "On peut lire autant de texte avec un plus gros modèle ; c'est le budget qui s'y oppose.",
        ),
    ),
)

isoflop_right = Quiz(
    "Sur une courbe à budget fixe, la perte remonte quand on va vers la droite, vers les gros modèles. Pourquoi ?",
    (
        Choice(
            "Ils surapprennent : ils récitent le texte au lieu d'en tirer des règles",
            "Ils n'en ont pas le temps : ce sont eux qui lisent le moins de jetons, et rarement deux fois les mêmes.",
        ),
        Choice(
            "Chaque jeton leur coûte cher : ils n'en lisent plus assez",
            "À gauche, il manque des paramètres ; à droite, il manque des jetons. Le creux est entre les deux.",
            correct=True,
        ),
        Choice(
            "Un gros modèle est plus difficile à évaluer",
            "Tous sont notés sur le même extrait, avec le même protocole.",
        ),
        Choice(
            "Le taux d'apprentissage est trop petit pour eux",
            "Il a été choisi selon la largeur ; un mauvais choix déplacerait la courbe, il ne la creuserait pas "
            "partout.",
        ),
    ),
)
