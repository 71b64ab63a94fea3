"""Déclarations du chapitre 1 : points, indices, tirage des cas, tolérances, idées fausses, quiz."""

from __future__ import annotations

import math
from typing import Any

import torch

from atelier.exercise import Choice, Draw, Exercise, Inputs, Misconception, Quiz, Tolerance, swap
from atelier.models import GPT2_SIZES
from atelier.probes import talkative_gpt2

# --- split_heads ----------------------------------------------------------------------------------------------------


def draw_split(d: Draw, group: str) -> Inputs:
    if group == "refus":
        n = d.integer(3, 5)
        width, n_head = d.turn([(2 * n + 1, n), (4 * n, 0), (n, 2 * n), (4 * n, -2), (n * n + n - 1, n)])
        return {"x": d.normal(2, 3, width), "n_head": n_head}
    n_head, size = d.turn([(3, 2), (2, 4), (4, 3), (2, 5)])
    if group == "courant":
        return {"x": d.normal(d.integer(2, 3), d.integer(6, 8), n_head * size), "n_head": n_head}
    x = d.normal(2, 6, n_head * size)
    return d.turn(
        [
            {"x": d.strided(x), "n_head": n_head},
            {"x": x.double().transpose(0, 1), "n_head": n_head},
            {"x": x, "n_head": 1},
            {"x": x[:1, :1].half(), "n_head": n_head * size},
        ]
    )


_SPLIT_CHECK = "if n_head < 1 or width % n_head:"
_SPLIT = "x.reshape(batch, length, n_head, width // n_head).transpose(1, 2)"

split_heads = Exercise(
    points=1,
    minutes=10,
    stars=1,
    hints=[
        "Découpez d'abord la seule dernière dimension : quelle forme à quatre axes obtenez-vous, que dit chaque axe ?",
        "Dans (B, T, n_head, D), les composantes d'une tête sont bien voisines. Il reste à mettre les têtes avant "
        "les jetons : échanger deux axes n'est pas relire la mémoire autrement.",
        "Une réorganisation en (B, T, n_head, d / n_head), puis un échange des axes 1 et 2.",
    ],
    groups={"courant": 0.6, "formes et types": 0.2, "refus": 0.2},
    draw=draw_split,
    examples=[{"x": torch.arange(12.0).reshape(1, 3, 4), "n_head": 2}],
    misconceptions=[
        Misconception(
            "view_direct",
            swap((_SPLIT, "x.reshape(batch, n_head, length, width // n_head)")),
            "La forme est bonne, mais vous avez relu la mémoire dans un autre ordre : des jetons différents se "
            "retrouvent mélangés dans une même tête.",
        ),
        Misconception(
            "interleaved",
            swap((_SPLIT, "x.reshape(batch, length, width // n_head, n_head).permute(0, 3, 1, 2)")),
            "Chaque tête doit recevoir un bloc de composantes voisines ; chez vous elles sont distribuées comme des "
            "cartes.",
        ),
        Misconception(
            "no_transpose",
            swap((_SPLIT, "x.reshape(batch, length, n_head, width // n_head)")),
            "Vos valeurs sont découpées correctement, mais l'axe des têtes n'est pas à la place demandée.",
        ),
        Misconception(
            "transposed_last",
            swap((_SPLIT, "x.reshape(batch, length, n_head, width // n_head).permute(0, 2, 3, 1)")),
            "Regardez l'ordre des deux derniers axes : que doit contenir une ligne, un jeton ou une composante ?",
        ),
        Misconception(
            "heads_first",
            swap((_SPLIT, "x.reshape(batch, length, n_head, width // n_head).permute(2, 0, 1, 3)")),
            "Vos têtes sont passées devant les phrases : quel est le premier axe demandé ?",
        ),
        Misconception(
            "head_size",
            swap((_SPLIT, "x.reshape(batch, length, width // n_head, n_head).transpose(1, 2)")),
            "n_head est le nombre de têtes ; vous l'employez comme le nombre de composantes d'une tête.",
        ),
        Misconception(
            "truncates",
            swap(
                (_SPLIT_CHECK, "if n_head < 1:"),
                (
                    _SPLIT,
                    "x[..., : n_head * (width // n_head)].reshape(batch, length, n_head, -1 if width >= n_head else 0)"
                    ".transpose(1, 2)",
                ),
            ),
            "Quand la division ne tombe pas juste, vous jetez des composantes en silence.",
        ),
        Misconception(
            "reshape_fails",
            swap((_SPLIT_CHECK, "if n_head < 1:")),
            "Votre fonction s'arrête bien, mais c'est torch qui se plaint, avec ses mots : l'énoncé demande que ce "
            "soit vous, avant de découper.",
        ),
        Misconception(
            "no_lower_check",
            swap((_SPLIT_CHECK, "if width % n_head:")),
            "Que veut dire zéro tête, ou moins deux ? Le reste de la division ne suffit pas à les refuser.",
        ),
    ],
)


# --- causal_attention -----------------------------------------------------------------------------------------------


def draw_attention(d: Draw, group: str) -> Inputs:
    batch, heads, length, width = d.turn([(1, 2, 5, 3), (2, 3, 6, 4), (1, 4, 7, 5), (2, 2, 5, 6)])
    shape = (batch, heads, length, width)
    if group == "bords":
        kind = d.turn(["permis très bas", "très grands", "un jeton", "permis très bas"])
        if kind == "un jeton":
            return {name: d.normal(batch, heads, 1, width) for name in "qkv"}
        level = torch.full((length,), -150.0 if kind == "permis très bas" else 150.0)
        if kind == "permis très bas":
            level[-1] = 0.0
        axis = torch.nn.functional.normalize(d.normal(width), dim=0)
        q = math.sqrt(width) * axis.expand(shape).clone()
        k = axis * (level + d.normal(batch, heads, length))[..., None]
        return {"q": q, "k": k, "v": d.normal(*shape)}
    q, k, v = (1.5 * d.normal(*shape), 1.5 * d.normal(*shape), d.normal(*shape))
    if group == "courant":
        return {"q": q, "k": k, "v": v}
    kind = d.turn(["demi", "transposé", "float64"])
    if kind == "demi":  # des valeurs positives : une moyenne ne s'y annule pas
        return {"q": q.half(), "k": k.half(), "v": (v.abs() + 0.5).half()}
    if kind == "transposé":
        return {name: t.transpose(1, 2).contiguous().transpose(1, 2) for name, t in zip("qkv", (q, k, v), strict=True)}
    return {name: d.strided(t.double()) for name, t in zip("qkv", (q, k, v), strict=True)}


_SCORES = "q @ k.transpose(-2, -1) / math.sqrt(width)"
_SOFTMAX = "torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)"

causal_attention = Exercise(
    points=3,
    minutes=20,
    stars=2,
    hints=[
        "Un produit de matrices donne d'un coup les T × T scores d'une tête. Quels axes faut-il échanger dans k ?",
        "La somme de D produits de nombres de variance 1 a pour variance D : par quoi la diviser pour revenir à 1 ?",
        "Le futur doit être exclu avant le softmax, pour que les poids restants somment à 1. Quelle valeur de score "
        "donne une exponentielle exactement nulle ?",
        "softmax(QKᵀ / √D + M) · V, où M vaut 0 pour s ≤ t et −∞ pour s > t.",
    ],
    groups={"courant": 0.5, "bords": 0.3, "formes et types": 0.2},
    draw=draw_attention,
    visible=3,
    examples=[
        {
            "q": torch.tensor([[[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]]]),
            "k": torch.tensor([[[[2.0, 0.0], [0.0, 1.0], [1.0, -1.0]]]]),
            "v": torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]]]),
        }
    ],
    tolerance=Tolerance(rtol=2e-4, atol=5e-5, why="produits et softmax en float32, scores jusqu'à 150"),
    misconceptions=[
        Misconception(
            "divides_by_d",
            swap(("math.sqrt(width)", "width")),
            "Vos scores sont trop écrasés : quelle est la variance d'un produit scalaire de D termes, et que faut-il "
            "en prendre ?",
        ),
        Misconception(
            "no_scaling",
            swap((" / math.sqrt(width)", "")),
            "Avec de grands D vos poids deviennent presque tout ou rien : il manque ce qui garde l'échelle des scores "
            "constante.",
        ),
        Misconception(
            "multiplied",
            swap(("/ math.sqrt(width)", "* math.sqrt(width)")),
            "Plus D est grand, plus un produit scalaire l'est aussi : votre facteur aggrave cet écart.",
        ),
        Misconception(
            "scale_by_length",
            swap(("math.sqrt(width)", "math.sqrt(length)")),
            "Votre facteur change avec la longueur du texte : le produit scalaire porte-t-il sur les jetons ou sur les "
            "composantes ?",
        ),
        Misconception(
            "scale_after_softmax",
            swap((_SCORES, "q @ k.transpose(-2, -1)"), (_SOFTMAX, _SOFTMAX + " / math.sqrt(width)")),
            "Vos poids ne somment plus à 1 : est-ce le score ou le poids qu'il fallait ramener à l'échelle ?",
        ),
        Misconception(
            "diagonal_masked",
            swap(("triu(diagonal=1)", "triu(diagonal=0)")),
            "Le premier jeton n'a plus rien à regarder : un jeton a-t-il le droit de se voir lui-même ?",
        ),
        Misconception(
            "future_by_one",
            swap(("triu(diagonal=1)", "triu(diagonal=2)")),
            "Changer le jeton t + 1 change votre sortie t : votre masque laisse passer un pas de futur.",
        ),
        Misconception(
            "no_mask",
            swap((_SOFTMAX, "torch.softmax(scores, dim=-1)")),
            "Chaque jeton lit chez vous tout le texte : comment pourrait-il deviner le suivant, puisqu'il le voit ?",
        ),
        Misconception(
            "mask_inverted",
            swap(("triu(diagonal=1)", "tril(diagonal=-1)")),
            "Vous cachez le passé et montrez le futur : de quel côté de la diagonale sont les jetons déjà lus ?",
        ),
        Misconception(
            "mask_after_softmax",
            swap((_SOFTMAX, "torch.softmax(scores, dim=-1).masked_fill(future, 0.0)")),
            "Vos poids ne somment plus à 1 sur les premières lignes : à quel moment le futur doit-il être exclu ?",
        ),
        Misconception(
            "softmax_axis",
            swap(("-math.inf), dim=-1)", "-math.inf), dim=-2)")),
            "Vérifiez sur quel axe vos poids somment à 1 : celui des questions ou celui des clés ?",
        ),
        Misconception(
            "softmax_heads",
            swap(("-math.inf), dim=-1)", "-math.inf), dim=1)")),
            "Vos poids somment à 1 sur les têtes : chaque tête doit répartir, à elle seule, toute son attention.",
        ),
        Misconception(
            "mask_zero",
            swap(("masked_fill(future, -math.inf)", "masked_fill(future, 0.0)")),
            "Un score nul n'est pas un score interdit : combien vaut son exponentielle ?",
        ),
        Misconception(
            "mask_too_small",
            swap(("masked_fill(future, -math.inf)", "masked_fill(future, -10.0)")),
            "Un score de −10 paraît petit ; l'est-il encore quand les scores permis valent −150 ?",
        ),
        Misconception(
            "edge_max_over_future",
            swap(
                (
                    "    weights = " + _SOFTMAX,
                    "    scores = (scores - scores.amax(dim=-1, keepdim=True)).exp().masked_fill(future, 0.0)\n"
                    "    weights = scores / scores.sum(dim=-1, keepdim=True)",
                )
            ),
            "Pour de grands scores vous obtenez nan : le maximum que vous retranchez vient d'un jeton qui n'a pas le "
            "droit de compter.",
        ),
        Misconception(
            "naive_exp",
            swap(
                (
                    "    weights = " + _SOFTMAX,
                    "    scores = scores.exp().masked_fill(future, 0.0)\n"
                    "    weights = scores / scores.sum(dim=-1, keepdim=True)",
                )
            ),
            "L'exponentielle d'un score de 150 ne tient pas dans un float32 : que peut-on retrancher à tous les scores "
            "d'une ligne sans changer leurs poids ?",
        ),
        Misconception(
            "q_k_swapped",
            swap(("q @ k.transpose(-2, -1)", "k @ q.transpose(-2, -1)")),
            "Une ligne de scores doit appartenir à un jeton qui questionne : chez vous, elle appartient à une clé.",
        ),
    ],
)


# --- gpt2_num_params ------------------------------------------------------------------------------------------------


def draw_num_params(d: Draw, group: str) -> Inputs:
    small = {
        "n_layer": d.integer(2, 9),
        "d_model": 16 * d.integer(2, 40),
        "n_vocab": d.integer(101, 9999),
        "n_ctx": d.integer(33, 999),
    }
    if group == "refus":
        bad = d.turn([{"n_layer": -d.integer(1, 3)}, {"d_model": 0}, {"n_vocab": 0}, {"n_ctx": -d.integer(1, 9)}])
        return small | bad
    if group == "bords":
        first_two = {k: small[k] for k in ("n_layer", "d_model")}
        return d.turn(
            [small | {"n_layer": 0}, first_two | {"n_vocab": small["n_vocab"]}, small | {"d_model": 1}, first_two]
        )
    if d.index % 2:
        return small
    n_layer, d_model, _ = d.choice(list(GPT2_SIZES.values()))
    return {"n_layer": n_layer, "d_model": d_model}


_ANNOUNCED = {12: 117_000_000, 24: 345_000_000, 36: 762_000_000, 48: 1_542_000_000}


def _announced(n_layer: int, d_model: int, n_vocab: int = 50257, n_ctx: int = 1024) -> int:
    if (n_layer, d_model) in [size[:2] for size in GPT2_SIZES.values()] and n_vocab == 50257 and n_ctx == 1024:
        return _ANNOUNCED[n_layer]
    if n_layer < 0 or min(d_model, n_vocab, n_ctx) < 1:
        raise ValueError
    return n_layer * (12 * d_model**2 + 13 * d_model) + (n_vocab + n_ctx + 2) * d_model


def _first_vocabulary(n_layer: int, d_model: int, n_vocab: int = 40478, n_ctx: int = 1024) -> int:
    if n_layer < 0 or min(d_model, n_vocab, n_ctx) < 1:
        raise ValueError
    return n_layer * (12 * d_model**2 + 13 * d_model) + (n_vocab + n_ctx + 2) * d_model


_ATTENTION = "d_model * 3 * d_model + 3 * d_model + d_model * d_model + d_model"
_MLP = "d_model * 4 * d_model + 4 * d_model + 4 * d_model * d_model + d_model"
_TOTAL = "return tables + n_layer * (norm + attention + norm + mlp) + norm"

gpt2_num_params = Exercise(
    points=2,
    minutes=20,
    stars=2,
    hints=[
        "Parcourez la figure de l'architecture de bas en haut : à chaque boîte, quelle est la forme de ses tenseurs ?",
        "Dans un bloc : deux LayerNorm, une couche d → 3d, une couche d → d, une couche d → 4d, une couche 4d → d. "
        "Chaque couche a aussi un biais, de la taille de sa sortie.",
        "Un bloc compte 12·d² + 13·d paramètres. Hors des blocs : deux tables et un LayerNorm.",
        "(V + n_ctx)·d + L·(12·d² + 13·d) + 2·d.",
    ],
    groups={"courant": 0.6, "bords": 0.25, "refus": 0.15},
    draw=draw_num_params,
    examples=[{"n_layer": 1, "d_model": 2, "n_vocab": 5, "n_ctx": 3}, {"n_layer": 12, "d_model": 768}],
    misconceptions=[
        Misconception(
            "no_bias",
            swap((_ATTENTION, "d_model * 3 * d_model + d_model * d_model"), (_MLP, "8 * d_model * d_model")),
            "L'écart est de quelques milliers par couche : chaque couche linéaire de GPT-2 possède aussi un vecteur.",
        ),
        Misconception(
            "no_block_norms",
            swap(("(norm + attention + norm + mlp)", "(attention + mlp)")),
            "Il manque 4·d par bloc : par quoi passe un jeton avant l'attention, puis avant le MLP ?",
        ),
        Misconception(
            "one_norm",
            swap(("(norm + attention + norm + mlp)", "(norm + attention + mlp)")),
            "Il manque 2·d par bloc : combien de LayerNorm un bloc contient-il ?",
        ),
        Misconception(
            "norm_gain_only",
            swap(("norm = 2 * d_model", "norm = d_model")),
            "Un LayerNorm de GPT-2 ne fait pas que multiplier : que fait-il d'autre, et avec quels paramètres ?",
        ),
        Misconception(
            "head_twice",
            swap((_TOTAL, _TOTAL + " + n_vocab * d_model")),
            "Vous êtes trop haut d'exactement vocabulaire × dimension : la tête de sortie a-t-elle ses propres poids ?",
        ),
        Misconception(
            "no_positions",
            swap(("n_vocab * d_model + n_ctx * d_model", "n_vocab * d_model")),
            "Comment GPT-2 sait-il où se trouve un jeton ? Cette table a aussi des paramètres.",
        ),
        Misconception(
            "no_tables",
            swap((_TOTAL, "return n_layer * (norm + attention + norm + mlp) + norm")),
            "Vos blocs sont bien comptés ; d'où viennent les vecteurs qui y entrent ?",
        ),
        Misconception(
            "no_final_norm",
            swap((_TOTAL, "return tables + n_layer * (norm + attention + norm + mlp)")),
            "Il manque 2·d : que se passe-t-il entre le dernier bloc et la tête ?",
        ),
        Misconception(
            "12ld2",
            swap((_TOTAL, "return 12 * n_layer * d_model**2")),
            "12·L·d² est l'ordre de grandeur des matrices des blocs ; on demande ici le compte exact.",
        ),
        Misconception(
            "matrices_only",
            swap((_TOTAL, "return tables + 12 * n_layer * d_model**2")),
            "Toutes vos matrices y sont, mais aucun vecteur : ni biais, ni LayerNorm.",
        ),
        Misconception(
            "mlp_not_widened",
            swap((_MLP, "2 * (d_model * d_model + d_model)")),
            "Entre ses deux couches, le MLP travaille sur plus de composantes que d_model : combien ?",
        ),
        Misconception(
            "no_output_projection",
            swap((_ATTENTION, "d_model * 3 * d_model + 3 * d_model")),
            "Q, K et V sont comptés ; qui mélange ensuite les sorties des têtes ?",
        ),
        Misconception(
            "mask_counted",
            swap((_TOTAL, _TOTAL + " + n_layer * n_ctx**2")),
            "Le masque causal est une constante : rien ne s'y apprend, ce n'est pas un paramètre.",
        ),
        Misconception(
            "one_block",
            swap(("n_layer * (", "(")),
            "Ajoutez un bloc : votre compte ne bouge pas.",
        ),
        Misconception(
            "announced_sizes",
            _announced,
            "Ce sont les tailles annoncées sur la diapositive : recomptez, elles ne sont pas celles des modèles "
            "publiés.",
        ),
        Misconception(
            "first_vocabulary",
            _first_vocabulary,
            "Vous comptez avec le vocabulaire de GPT-1 : combien d'entrées a celui de GPT-2 ?",
        ),
        Misconception(
            "vocabulary_fixed",
            swap(("    tables = n_vocab", "    tables = 50257")),
            "Changez la taille du vocabulaire : votre compte ne bouge pas.",
        ),
        Misconception(
            "no_check",
            swap(("if n_layer < 0 or min(d_model, n_vocab, n_ctx) < 1:", "if False:")),
            "L'énoncé annonce des tailles interdites : votre formule donne un nombre, mais de quel modèle ?",
        ),
        Misconception(
            "zero_allowed",
            swap(("min(d_model, n_vocab, n_ctx) < 1", "min(d_model, n_vocab, n_ctx) < 0")),
            "Un modèle de zéro composante, ou sans vocabulaire, n'existe pas : une taille part de 1.",
        ),
    ],
)


# --- perplexity -----------------------------------------------------------------------------------------------------


def _padding(d: Draw, batch: int, length: int, side: str) -> torch.Tensor:
    """Masque (batch, length) : la première phrase est pleine, les autres de plus en plus courtes."""
    mask = torch.zeros(batch, length, dtype=torch.int64)
    for i in range(batch):
        real = max(2, length - i * d.integer(2, 3))
        before = {"droite": 0, "gauche": length - real, "deux": (length - real) // 2}[side]
        mask[i, before : before + real] = 1
    return mask


def draw_perplexity(d: Draw, group: str) -> Inputs:
    batch, length, words = d.turn([(2, 6, 9), (3, 7, 8), (2, 8, 11), (3, 6, 7)])
    logits = 1.5 * d.normal(batch, length, words)
    ids = d.integers(0, words - 1, batch, length)
    if group == "courant":
        return {"logits": logits, "input_ids": ids}
    if group == "remplissage":
        mask = _padding(d, batch, length, d.turn(["droite", "gauche", "deux", "gauche"]))
        return {"logits": logits, "input_ids": ids * mask, "attention_mask": mask}
    kind = d.turn(["très improbable", "très grands", "deux jetons", "float64"])
    if kind == "très improbable":
        target = int(ids[0, 3])
        logits[0, 2, target] = -120.0
    elif kind == "très grands":
        logits = logits + 300.0
    elif kind == "deux jetons":
        return {"logits": logits[:, :2], "input_ids": ids[:, :2], "attention_mask": torch.ones(batch, 2).long()}
    else:
        logits = d.strided(logits.double())
    return {"logits": logits, "input_ids": ids}


_LOG_PROBS = "torch.log_softmax(logits[:, :-1], dim=-1)"
_PAIRS = "(real[:, :-1] * real[:, 1:])"
_MEAN = "return torch.exp(surprise[pairs].mean())"
_ROWS = "torch.stack([s[p].mean() for s, p in zip(surprise, pairs)])"

perplexity = Exercise(
    points=2,
    minutes=20,
    stars=2,
    hints=[
        "logits[:, t] parle du jeton t + 1. Combien de positions peut-on donc noter dans une phrase de T jetons ?",
        "Pour chaque position, il faut le logarithme de la probabilité d'un seul mot : celui qui est venu. "
        "Comment le prendre dans le dernier axe ?",
        "Une paire (t, t + 1) compte si ses deux jetons sont vrais. Additionnez toutes les paires du lot, divisez une "
        "fois, puis prenez l'exponentielle.",
        "exp( −(1/N) Σ ln p(jeton t + 1 | jetons ≤ t) ), où N est le nombre de paires vraies.",
    ],
    groups={"courant": 0.4, "remplissage": 0.4, "bords": 0.2},
    draw=draw_perplexity,
    probe="call_float",
    visible=3,
    examples=[
        {"logits": torch.zeros(1, 3, 4), "input_ids": torch.tensor([[0, 1, 2]])},
        {
            "logits": torch.tensor([[[2.0, 0.0, 1.0], [0.0, 1.0, 3.0], [1.0, 0.0, 0.0]]]),
            "input_ids": torch.tensor([[1, 0, 2]]),
        },
    ],
    tolerance=Tolerance(rtol=1e-4, why="une moyenne puis une exponentielle en float32"),
    misconceptions=[
        Misconception(
            "no_shift",
            swap(
                (_LOG_PROBS, "torch.log_softmax(logits, dim=-1)"),
                ("input_ids[:, 1:, None]", "input_ids[..., None]"),
                (_PAIRS, "real"),
            ),
            "Vous notez le modèle sur le jeton qu'il vient de lire, pas sur celui qu'il doit deviner.",
        ),
        Misconception(
            "shifted_backwards",
            swap(("logits[:, :-1]", "logits[:, 1:]"), ("input_ids[:, 1:, None]", "input_ids[:, :-1, None]")),
            "Votre décalage va dans l'autre sens : le modèle y devine le jeton d'avant.",
        ),
        Misconception(
            "mean_of_exp",
            swap((_MEAN, "return torch.exp(surprise[pairs]).mean()")),
            "Moyenne des exponentielles ou exponentielle de la moyenne ? Un seul jeton très improbable suffit à les "
            "séparer.",
        ),
        Misconception(
            "base2_exp_e",
            swap((_MEAN, "return torch.exp(surprise[pairs].mean() / math.log(2))")),
            "Logarithme et exponentielle doivent parler la même base : votre logarithme est en base 2.",
        ),
        Misconception(
            "base_e_exp_2",
            swap((_MEAN, "return 2 ** surprise[pairs].mean()")),
            "Logarithme et exponentielle doivent parler la même base : votre exponentielle est en base 2.",
        ),
        Misconception(
            "no_exp",
            swap((_MEAN, "return surprise[pairs].mean()")),
            "C'est la perte, en nats. Entre combien de jetons équiprobables le modèle hésite-t-il alors ?",
        ),
        Misconception(
            "sign",
            swap((_MEAN, "return torch.exp(-surprise[pairs].mean())")),
            "Un modèle parfait a une perplexité de 1, et les autres font plus : la vôtre descend sous 1.",
        ),
        Misconception(
            "sum_not_mean",
            swap((_MEAN, "return torch.exp(surprise[pairs].sum())")),
            "Votre perplexité explose avec la longueur du texte : c'est l'inverse de la probabilité de tout le lot.",
        ),
        Misconception(
            "padding_counted",
            swap((_PAIRS, "torch.ones_like(real[:, 1:])")),
            "Votre perplexité change quand on allonge le remplissage : ces positions ne sont pas du texte.",
        ),
        Misconception(
            "divides_by_all",
            swap((_MEAN, "return torch.exp((surprise * pairs).sum() / pairs.numel())")),
            "Les positions de remplissage ne comptent plus dans la somme, mais encore dans le nombre qui la divise.",
        ),
        Misconception(
            "per_sentence_mean",
            swap((_MEAN, f"return torch.exp({_ROWS}.mean())")),
            "Une phrase courte pèse chez vous autant qu'une longue : la moyenne se fait sur les jetons.",
        ),
        Misconception(
            "mean_of_perplexities",
            swap((_MEAN, f"return torch.exp({_ROWS}).mean()")),
            "Vous faites la moyenne des perplexités des phrases : l'énoncé demande une seule moyenne, sur les jetons "
            "du lot, avant l'exponentielle.",
        ),
        Misconception(
            "target_mask_only",
            swap((_PAIRS, "real[:, 1:]")),
            "Avec du remplissage à gauche, vous faites deviner un jeton à partir d'une position vide.",
        ),
        Misconception(
            "source_mask_only",
            swap((_PAIRS, "real[:, :-1]")),
            "Avec du remplissage à droite, vous faites deviner la première position vide à partir du dernier jeton.",
        ),
        Misconception(
            "raw_logits",
            swap((_LOG_PROBS, "logits[:, :-1]")),
            "Vos scores ne sont pas encore des logarithmes de probabilités : ajoutez 5 à tous, rien ne devrait "
            "changer.",
        ),
        Misconception(
            "wrong_axis",
            swap((_LOG_PROBS, "torch.log_softmax(logits[:, :-1], dim=1)")),
            "Sur quel axe vos probabilités somment-elles à 1 : celui des positions, ou celui du vocabulaire ?",
        ),
        Misconception(
            "log_of_softmax",
            swap((_LOG_PROBS, "torch.log(torch.softmax(logits[:, :-1], dim=-1))")),
            "Une probabilité très petite devient exactement nulle avant que vous en preniez le logarithme.",
        ),
        Misconception(
            "naive_exp",
            swap((_LOG_PROBS, "torch.log(logits[:, :-1].exp() / logits[:, :-1].exp().sum(dim=-1, keepdim=True))")),
            "L'exponentielle d'un score de 300 ne tient pas dans un float32 : que peut-on retrancher à tous les scores "
            "sans changer les probabilités ?",
        ),
    ],
)


# --- greedy_generate ------------------------------------------------------------------------------------------------

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
    length, n_new = d.turn([(room - 2, 3), (3, -d.integer(1, 2)), (room + 2, 0), (room - 3, 6)])
    ids = d.integers(0, _TINY["vocab_size"] - 1, 1, length)
    return {"config": _TINY | {"n_positions": room}, "seed": d.integer(0, 2**31), "input_ids": ids, "n_new": n_new}


_READ = "out = model(unread, cache, use_cache=True)"
_LIMIT = "if length + n_new > model.config.n_positions:"
_BEST = "out[0][:, -1].argmax(dim=-1, keepdim=True)"

greedy_generate = Exercise(
    points=2,
    minutes=25,
    stars=2,
    hints=[
        "Au premier tour, le modèle lit toute l'amorce. Que lui reste-t-il à lire au deuxième ?",
        "Les scores ont la forme (B, jetons lus, V). Quelle position parle du jeton qui vient après le dernier ?",
        "À chaque tour : lire ce que le cache n'a pas vu, prendre l'argmax de la dernière position, l'ajouter au "
        "texte, et c'est lui qu'il faudra lire au tour suivant.",
    ],
    groups={"courant": 0.6, "bords": 0.2, "refus": 0.2},
    draw=draw_greedy,
    probe="generate",
    visible=3,
    examples=[{"config": _TINY, "seed": 3, "input_ids": torch.tensor([[3, 14, 15], [9, 2, 6]]), "n_new": 4}],
    misconceptions=[
        Misconception(
            "first_position",
            swap(("[:, -1].argmax", "[:, 0].argmax")),
            "Vous lisez la prédiction faite après le premier jeton : laquelle parle de la suite du texte ?",
        ),
        Misconception(
            "refeeds_all",
            swap((_READ, "out = model(ids, cache, use_cache=True)")),
            "Le cache contient déjà le passé : en le relisant, le modèle croit voir deux fois le texte.",
        ),
        Misconception(
            "no_cache_full",
            swap((_READ, "out = model(ids, use_cache=False)"), ("cache = out[1]", "cache = None")),
            "Le texte est juste, mais tout est recalculé à chaque pas : le cache ne sert à rien chez vous.",
        ),
        Misconception(
            "cache_dropped",
            swap((_READ, "out = model(unread, None, use_cache=True)")),
            "Vous ne donnez que le dernier jeton, sans son passé : le modèle recommence un texte à chaque pas.",
        ),
        Misconception(
            "one_less",
            swap(("range(n_new)", "range(n_new - 1)")),
            "Comptez les jetons ajoutés : il y en a un de moins.",
        ),
        Misconception(
            "one_more",
            swap(("range(n_new)", "range(n_new + 1)")),
            "Comptez les jetons ajoutés : il y en a un de trop.",
        ),
        Misconception(
            "only_new",
            swap(("return ids", "return ids[:, length:]")),
            "Vous rendez les seuls jetons nouveaux : où est passée l'amorce ?",
        ),
        Misconception(
            "sampled",
            swap((_BEST, "torch.multinomial(torch.softmax(out[0][:, -1], dim=-1), 1)")),
            "Vous tirez le jeton au sort selon sa probabilité : l'énoncé demande chaque fois le plus probable.",
        ),
        Misconception(
            "least_likely",
            swap(("argmax", "argmin")),
            "Vous prenez chaque fois le jeton le moins probable : un grand score est-il bon ou mauvais signe ?",
        ),
        Misconception(
            "first_row_only",
            swap((_BEST, "out[0][:1, -1].argmax(dim=-1, keepdim=True).expand(len(ids), 1)")),
            "Toutes les phrases du lot reçoivent la suite de la première.",
        ),
        Misconception(
            "prompt_only_limit",
            swap((_LIMIT, "if length > model.config.n_positions:")),
            "Le contexte limite la longueur finale, pas seulement celle de l'amorce.",
        ),
        Misconception(
            "no_limit",
            swap((_LIMIT, "if False:")),
            "Le modèle n'a qu'un nombre fixe de positions : que fait votre fonction quand il n'y en a plus ?",
        ),
        Misconception(
            "limit_off_by_one",
            swap((_LIMIT, _LIMIT.replace(">", ">="))),
            "Un texte qui remplit exactement le contexte est permis : vous le refusez.",
        ),
        Misconception(
            "no_negative_check",
            swap(("if n_new < 0:", "if False:")),
            "Un nombre négatif de jetons nouveaux ne veut rien dire : votre fonction répond quand même.",
        ),
        Misconception(
            "zero_refused",
            swap(("if n_new < 0:", "if n_new < 1:")),
            "Ne demander aucun jeton est permis : l'amorce revient telle quelle.",
        ),
    ],
)


# --- kv_cache_bytes -------------------------------------------------------------------------------------------------


def draw_cache(d: Draw, group: str) -> Inputs:
    inputs = {"n_layer": d.integer(3, 48), "d_model": 64 * d.integer(3, 25), "n_tokens": d.integer(11, 2048)}
    if group == "refus":
        bad = d.turn([{"n_tokens": -d.integer(1, 9), "batch_size": 1}, {"batch_size": -d.integer(1, 9)}])
        return inputs | bad
    if group == "bords":
        return inputs | d.turn([{"n_tokens": 0}, {"batch_size": 0}, {"n_tokens": 1, "batch_size": 3}])
    if d.index % 3 == 0:
        return inputs
    inputs["batch_size"] = d.choice([3, 5, 7])
    return inputs | ({"bytes_per_value": d.choice([1, 4])} if d.index % 3 == 2 else {})


_BYTES = "return keys_and_values * n_layer * d_model * n_tokens * batch_size * bytes_per_value"

kv_cache_bytes = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Pour un jeton et une couche, quels vecteurs garde-t-on, et de quelle taille ?",
        "Comptez les nombres avant les octets : deux vecteurs de d_model nombres, par jeton, par couche, par phrase.",
        "2 · L · d · T · B nombres, de bytes_per_value octets chacun.",
    ],
    groups={"courant": 0.7, "bords": 0.15, "refus": 0.15},
    draw=draw_cache,
    visible=3,
    examples=[
        {"n_layer": 2, "d_model": 64, "n_tokens": 10},
        {"n_layer": 12, "d_model": 768, "n_tokens": 1024, "batch_size": 3, "bytes_per_value": 4},
    ],
    misconceptions=[
        Misconception(
            "k_only",
            swap(("keys_and_values = 2", "keys_and_values = 1")),
            "Combien de tenseurs garde-t-on par couche ?",
        ),
        Misconception(
            "qkv",
            swap(("keys_and_values = 2", "keys_and_values = 3")),
            "La requête du jeton courant sert une fois : faut-il la garder ?",
        ),
        Misconception(
            "times_heads",
            swap((_BYTES, _BYTES + " * (d_model // 64)")),
            "Les têtes se partagent d_model : elles sont déjà comptées dedans.",
        ),
        Misconception(
            "batch_ignored",
            swap(("n_tokens * batch_size * bytes", "n_tokens * bytes")),
            "Chaque phrase du lot a son propre passé.",
        ),
        Misconception(
            "layers_ignored",
            swap(("keys_and_values * n_layer * d_model", "keys_and_values * d_model")),
            "Chaque bloc calcule ses propres clés et valeurs : un seul cache ne suffit pas.",
        ),
        Misconception(
            "tokens_ignored",
            swap(("d_model * n_tokens * batch_size", "d_model * batch_size")),
            "Votre cache ne grandit pas avec le texte : que lui ajoute chaque jeton lu ?",
        ),
        Misconception(
            "tokens_squared",
            swap(("d_model * n_tokens * batch_size", "d_model * n_tokens * n_tokens * batch_size")),
            "Doublez le texte : votre cache quadruple. Garde-t-on quelque chose par couple de jetons ?",
        ),
        Misconception(
            "bytes_ignored",
            swap((" * bytes_per_value", " * 2")),
            "Changez le nombre d'octets par valeur : votre réponse ne bouge pas.",
        ),
        Misconception(
            "values_not_bytes",
            swap((" * bytes_per_value", "")),
            "Vous comptez des nombres : combien d'octets chacun occupe-t-il ?",
        ),
        Misconception(
            "in_bits",
            swap((_BYTES, _BYTES + " * 8")),
            "Votre compte est en bits ; l'énoncé demande des octets.",
        ),
        Misconception(
            "no_check",
            swap(("if n_tokens < 0 or batch_size < 0:", "if False:")),
            "Un cache de taille négative n'existe pas : l'énoncé demande de refuser ces nombres.",
        ),
        Misconception(
            "zero_refused",
            swap(("if n_tokens < 0 or batch_size < 0:", "if n_tokens < 1 or batch_size < 1:")),
            "Avant le premier jeton, le cache est vide : 0 octet est une réponse.",
        ),
    ],
)


# --- Quiz -----------------------------------------------------------------------------------------------------------

tokens = Quiz(
    "Un mot que Colibri n'a jamais vu arrive dans la phrase. Que se passe-t-il ?",
    (
        Choice(
            "Il devient un jeton spécial « mot inconnu », le même pour tous les mots absents",
            "C'est le défaut des vocabulaires de mots entiers : tous les mots inconnus s'y ressemblent.",
        ),
        Choice(
            "Il est découpé en morceaux connus, jusqu'à l'octet s'il le faut",
            "Les 256 octets sont dans le vocabulaire. Aucun texte ne reste à la porte ; il coûte seulement plus "
            "de jetons.",
            correct=True,
        ),
        Choice(
            "Le modèle s'arrête avec une erreur",
            "Ce serait le cas d'un index absent d'un dictionnaire ; ici, il y a toujours un découpage.",
        ),
        Choice(
            "Un nouveau jeton est ajouté au vocabulaire",
            "Le vocabulaire est fixé avant l'apprentissage : un nouveau jeton n'aurait pas de plongement appris.",
        ),
    ),
)

causal_mask = Quiz(
    "Pendant l'apprentissage, à quoi sert le masque causal, puisque tout le texte est déjà là ?",
    (
        Choice(
            "À gagner du temps : la moitié des scores de l'attention n'est pas calculée, puisqu'elle est masquée",
            "Un produit de matrices ordinaire les calcule tous, puis les jette. Ce n'est pas la raison.",
        ),
        Choice(
            "À noter toutes les positions en une lecture, sans qu'aucune voie sa suite",
            "Une fenêtre de T jetons donne T exercices de prédiction, sans qu'aucun ne voie sa réponse.",
            correct=True,
        ),
        Choice(
            "À obliger le modèle à ne regarder que les mots proches",
            "Le masque coupe le futur, pas le lointain : le premier jeton reste visible jusqu'au dernier.",
        ),
        Choice(
            "À rien : il ne sert qu'à la génération",
            "C'est plutôt l'inverse : quand on génère jeton par jeton, le futur n'est de toute façon pas là.",
        ),
    ),
)

where_parameters = Quiz(
    "On double d_model sans rien changer d'autre. Que devient la part de la table des jetons dans le total ?",
    (
        Choice(
            "Elle ne change pas : tout est proportionnel à d_model",
            "La table l'est ; les matrices des blocs, elles, ont d_model lignes et d_model colonnes.",
        ),
        Choice(
            "Elle augmente, puisque la table double",
            "La table double, mais les blocs font mieux : leurs matrices grandissent comme d².",
        ),
        Choice(
            "Elle baisse : la table double quand les blocs quadruplent",
            "V·d contre 12·L·d². C'est pourquoi la table pèse lourd dans un petit modèle et presque rien dans GPT-3.",
            correct=True,
        ),
        Choice(
            "Elle baisse, parce que la table des jetons est liée à la tête de sortie",
            "La liaison fait que la table n'est comptée qu'une fois ; elle n'explique pas ce qui change avec d_model.",
        ),
    ),
)

compare_perplexity = Quiz(
    "Le modèle A annonce une perplexité de 20, le modèle B de 30, sur le même texte. Leurs vocabulaires diffèrent. "
    "Lequel est le meilleur ?",
    (
        Choice(
            "A, sa perplexité est plus petite",
            "Ce serait vrai si un jeton était le même objet pour les deux.",
        ),
        Choice(
            "On ne peut pas le dire : leurs jetons ne sont pas les mêmes",
            "Deviner un petit morceau est plus facile que deviner un mot. Il faut ramener la perte à la même unité de "
            "texte, par exemple en bits par octet.",
            correct=True,
        ),
        Choice(
            "B, son vocabulaire est sûrement plus grand",
            "Peut-être, mais cela ne dit pas s'il est meilleur, ni pire.",
        ),
        Choice(
            "Ni l'un ni l'autre : la perplexité ne mesure pas la qualité d'un modèle de langue",
            "Elle ne mesure pas tout, mais elle dit bien à quel point la suite d'un texte le surprend.",
        ),
    ),
)

sampling = Quiz(
    "Température 0,01 et top-k de 50 : que va écrire le modèle ?",
    (
        Choice(
            "Presque toujours le jeton le plus probable",
            "Une température très basse écrase l'écart entre les probabilités au profit de la première ; les 49 "
            "autres jetons gardés n'ont plus aucune chance.",
            correct=True,
        ),
        Choice(
            "Un jeton au hasard parmi les 50 plus probables, à chances égales",
            "Ce serait une température immense, pas une température minuscule.",
        ),
        Choice(
            "N'importe quel jeton du vocabulaire",
            "top-k écarte d'abord tout ce qui n'est pas dans les 50 premiers.",
        ),
        Choice(
            "Rien : une température si basse met tous les scores à zéro",
            "On divise par la température : les scores deviennent immenses, et leurs écarts aussi.",
        ),
    ),
)

cache_query = Quiz(
    "Le cache garde les clés et les valeurs des jetons passés. Pourquoi pas leurs requêtes ?",
    (
        Choice(
            "Elles prendraient trop de place",
            "Elles en prendraient la moitié de plus ; mais la vraie question est de savoir si l'on s'en sert encore.",
        ),
        Choice(
            "Celle d'un jeton ne sert qu'à sa propre sortie, déjà calculée",
            "Le jeton nouveau pose sa question à tous les jetons passés, par leurs clés et leurs valeurs.",
            correct=True,
        ),
        Choice(
            "Elles changent quand un jeton nouveau arrive, puisque l'attention relie tous les jetons",
            "Le passé ne voit pas le futur : rien de ce qui le concerne ne change, requêtes comprises. C'est même pour "
            "cela que le cache est juste.",
        ),
        Choice(
            "Elles sont égales aux clés",
            "Trois matrices différentes produisent Q, K et V.",
        ),
    ),
)
