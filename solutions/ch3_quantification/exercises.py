"""Déclarations du chapitre 3 : points, indices, tirage des cas, tolérances, idées fausses, quiz.

Règle des tirages : un réel à arrondir reste à 0,01 pas au moins d'un demi (0,05 presque partout), sauf quand le
demi est le sujet ; une réponse juste, en float32 ou en float64, par division ou par produit avec l'inverse, tombe
donc sur les mêmes entiers.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from atelier.exercise import Choice, Draw, Exercise, Inputs, Misconception, Quiz, Tolerance, swap

# --- Outils des tirages ---------------------------------------------------------------------------------------------


def _code_range(bits: int, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _off_grid(d: Draw, codes: torch.Tensor, reach: float = 0.4) -> torch.Tensor:
    """Des réels qui s'arrondissent à `codes`, à une distance de 0,05 à `reach` de chacun, des deux côtés."""
    gap = 0.05 + (reach - 0.05) * torch.rand(codes.shape, generator=d.generator, dtype=torch.float64)
    side = 2.0 * d.integers(0, 1, *codes.shape) - 1.0
    return codes + side * gap


def _with_negative_peak(d: Draw, *shape: int) -> torch.Tensor:
    """Tenseur gaussien dont la valeur la plus grande en valeur absolue est négative et unique."""
    r = d.normal(*shape)
    r.view(-1)[d.integer(0, r.numel() - 1)] = -1.5 * r.abs().max()
    return r


# --- decode_float ---------------------------------------------------------------------------------------------------

_FORMATS = ((5, 10), (8, 23), (8, 7), (5, 2), (4, 5), None)
_OTHERS = ((3, 4), (6, 9), (7, 4), (2, 5), (8, 3))


def draw_decode(d: Draw, group: str) -> Inputs:
    exponent_bits, fraction_bits = (4, 3) if group == "e4m3" else d.turn(_FORMATS) or d.choice(_OTHERS)
    top, one = 2**exponent_bits - 1, 2**fraction_bits
    exponents = [1, top - 1, *(d.integer(1, top - 1) for _ in range(3))]  # à côté des exposants à part, toujours
    normal = [exponent * one + d.integer(1, one - 1) for exponent in exponents]
    if group == "normaux":
        patterns = [(top // 2) * one, *normal]
    elif group == "bords":
        subnormal, special = [1, d.integer(1, one - 1), one - 1], [top * one, top * one + 1, (top + 1) * one - 1]
        patterns = [0, *subnormal, one, top * one - 1, *special]
    else:
        patterns = [0, d.integer(1, 6), 7, 8, 0x78, d.integer(0x79, 0x7D), 0x7E, 0x7F, *normal[:2]]
    sign = one * (top + 1)
    if group == "normaux":
        bits = [p + sign * (i % 2) for i, p in enumerate(patterns)]
    else:
        bits = patterns + [p + sign for p in patterns]
    return {"bits": bits, "exponent_bits": exponent_bits, "fraction_bits": fraction_bits}


_DECODE_WRONG = [
    Misconception(
        "no_implicit_one",
        swap(("(1 + fraction / 2**fraction_bits)", "(fraction / 2**fraction_bits)")),
        "Vos nombres normaux sont trop petits, et les puissances de deux valent zéro : quel bit de la mantisse "
        "n'est jamais écrit ?",
    ),
    Misconception(
        "bias_2e",
        swap(("bias = 2 ** (exponent_bits - 1) - 1", "bias = 2 ** (exponent_bits - 1)")),
        "Votre décalage d'exposant n'est pas celui de ce format : que donne chez vous le motif de 1,0 ?",
    ),
    Misconception(
        "bias_127",
        swap(("bias = 2 ** (exponent_bits - 1) - 1", "bias = 127")),
        "127 est le décalage de FP32 et de BF16 : de quoi dépend-il quand l'exposant a 5 ou 4 bits ?",
    ),
    Misconception(
        "no_bias",
        swap(("bias = 2 ** (exponent_bits - 1) - 1", "bias = 0")),
        "L'exposant écrit n'est jamais négatif : comment un format note-t-il alors les nombres plus petits que 1 ?",
    ),
    Misconception(
        "no_subnormals",
        swap(("if exponent == 0:", "if exponent == 0 and fraction == 0:")),
        "Près de zéro, l'exposant nul a un sens à part : ces nombres n'ont pas de 1 caché.",
    ),
    Misconception(
        "flush_to_zero",
        swap(("return sign * fraction / 2**fraction_bits * 2.0 ** (1 - bias)", "return sign * 0.0")),
        "Un exposant écrit nul ne veut pas dire que le nombre est nul : à quoi sert alors sa fraction ?",
    ),
    Misconception(
        "subnormal_exponent",
        swap(("2.0 ** (1 - bias)", "2.0 ** (-bias)")),
        "Le plus grand sous-normal doit toucher le plus petit normal : chez vous il y a un saut.",
    ),
    Misconception(
        "e4m3_ieee",
        swap(("if (exponent_bits, fraction_bits) != (4, 3):", "if True:")),
        "E4M3 n'a pas d'infini : que fait-il des motifs que l'IEEE réserverait à l'infini et aux nan ?",
    ),
    Misconception(
        "e4m3_no_nan",
        swap(("if fraction == 2**fraction_bits - 1:", "if False:")),
        "En E4M3 le plus grand nombre est 448 : qu'est devenu le motif suivant ?",
    ),
    Misconception(
        "fp8_no_infinity",
        swap(("(exponent_bits, fraction_bits) != (4, 3)", "exponent_bits + fraction_bits != 7")),
        "Tous les formats de 8 bits ne suivent pas la règle d'E4M3 : E5M2, par exemple, garde ses infinis.",
    ),
    Misconception(
        "no_infinity",
        swap(("if (exponent_bits, fraction_bits) != (4, 3):", "if False:")),
        "Vous appliquez à tous les formats la règle d'E4M3 : dans l'IEEE, un exposant tout en 1 est réservé.",
    ),
    Misconception(
        "nan_is_inf",
        swap(("math.nan if fraction else sign * math.inf", "sign * math.inf")),
        "Un exposant tout en 1 a deux sens : qui décide entre l'infini et « pas un nombre » ?",
    ),
    Misconception(
        "sign_ignored",
        swap(("sign = -1.0 if (bits >> (exponent_bits + fraction_bits)) & 1 else 1.0", "sign = 1.0")),
        "Vous ne rendez jamais de négatif : à quoi sert le bit le plus à gauche ?",
    ),
    Misconception(
        "negative_zero",
        swap(("if exponent == 0:", "if exponent == fraction == 0:\n        return 0.0\n    if exponent == 0:")),
        "Zéro a un signe : deux motifs différents le représentent, et ils ne sont pas le même nombre.",
    ),
    Misconception(
        "infinity_unsigned",
        swap(("sign * math.inf", "math.inf")),
        "L'infini a un signe, comme tous les autres nombres du format.",
    ),
    Misconception(
        "fraction_denominator",
        swap(("fraction / 2**fraction_bits", "fraction / (2**fraction_bits - 1)")),
        "Une fraction toute en 1 reste plus petite que 1 : que vaut son premier bit, un demi ou un peu plus ?",
    ),
]

decode_float = Exercise(
    points=3,
    minutes=20,
    stars=2,
    hints=[
        "Écrivez le motif de 1,0 en FP16 : que valent son exposant écrit et sa fraction ?",
        "Un décalage vers la droite et un ET binaire isolent chacun des trois champs. Lesquels des exposants écrits "
        "ont un sens à part ?",
        "Nombre ordinaire : (−1)^s · (1 + f/2^m) · 2^(e − décalage). Exposant écrit nul : (−1)^s · (f/2^m) · "
        "2^(1 − décalage).",
        "Exposant écrit tout en 1 : infini si f = 0, nan sinon ; en E4M3, un nombre ordinaire, sauf S.1111.111.",
    ],
    groups={"normaux": 0.4, "bords": 0.35, "e4m3": 0.25},
    draw=draw_decode,
    probe="call_many",
    hexadecimal=("bits",),
    cases=6,
    tolerance=Tolerance(signed_zero=True, why="valeurs exactes, signe de zéro compris : il fait partie du motif"),
    examples=[
        {"bits": [0x3C00, 0xC000, 0x3555], "exponent_bits": 5, "fraction_bits": 10},
        {"bits": [0x0000, 0x8000, 0x0001, 0x03FF, 0x7C00, 0xFC00, 0x7E00], "exponent_bits": 5, "fraction_bits": 10},
        {"bits": [0x38, 0x01, 0x78, 0x7E, 0x7F, 0xFE], "exponent_bits": 4, "fraction_bits": 3},
        {"bits": [0x3D, 0x01, 0x7B, 0x7C, 0xFC, 0x7F], "exponent_bits": 5, "fraction_bits": 2},
    ],
    misconceptions=_DECODE_WRONG,
)


# --- affine_qparams -------------------------------------------------------------------------------------------------


def draw_qparams(d: Draw, group: str) -> Inputs:
    if group == "refus":
        finite, bad = d.uniform(0.5, 3.0), d.choice([8, 4])
        return d.turn(
            [
                {"r_min": finite, "r_max": -finite, "bits": bad},
                {"r_min": -finite, "r_max": math.inf, "bits": bad},
                {"r_min": -finite, "r_max": finite, "bits": 1},
                {"r_min": 2 * finite, "r_max": finite, "bits": bad},
                {"r_min": -finite, "r_max": math.nan, "bits": bad},
                {"r_min": -finite, "r_max": -2 * finite, "bits": bad},
                {"r_min": -math.inf, "r_max": finite, "bits": bad},
                {"r_min": -finite, "r_max": finite, "bits": d.choice([0, -1])},
                {"r_min": math.nan, "r_max": finite, "bits": bad},
            ]
        )
    bits, signed = d.turn([(8, True), (8, False), (4, True), (3, False), (6, True), (16, False), (2, True)])
    q_min, q_max = _code_range(bits, signed)
    if group == "un seul côté":
        step = d.integer(33, 95) / 64 / 2 ** (bits - 1)  # pas exact, donc Z aussi, de quelque façon qu'on l'arrondisse
        low, high = step * (q_max - q_min), 3 * step * (q_max - q_min)
        pairs = [(low, high), (-high, -low), (0.0, 0.0), (0.0, high), (-high, 0.0), (low, low), (-low, -low)]
        r_min, r_max = d.turn(pairs)
        return {"r_min": r_min, "r_max": r_max, "bits": bits, "signed": signed}
    scale = d.uniform(0.2, 3.0) / 2 ** (bits - 1)
    code = d.integer(q_min + 1, q_max - 1) if bits > 2 else q_max
    if signed and bits > 2:  # un Z négatif au moins, et jamais trop près de 0
        code = d.integer(3, q_max // 2 + 1) * (1 if d.index % 4 == 2 else -1)
    gap = d.uniform(0.1, 0.4) * (-1 if d.index % 2 else 1)
    zero = min(max(code + gap, q_min + 0.1), q_max - 0.1)
    r_min = (q_min - zero) * scale
    inputs = {"r_min": r_min, "r_max": r_min + scale * (q_max - q_min), "bits": bits, "signed": signed}
    return {"r_min": r_min, "r_max": inputs["r_max"]} if d.index == 0 else inputs


def _symmetric_qparams(r_min: float, r_max: float, bits: int = 8, signed: bool = True) -> tuple[float, int]:
    q_max = _code_range(bits, signed)[1]
    return max(abs(r_min), abs(r_max)) / q_max or 1.0, 0


_QPARAMS_WRONG = [
    Misconception(
        "no_widen",
        swap(("    r_min, r_max = min(r_min, 0.0), max(r_max, 0.0)\n", "")),
        "Le zéro réel doit tomber sur un entier ; avec cet intervalle il n'y est même pas.",
    ),
    Misconception(
        "2_pow_bits",
        swap(("(r_max - r_min) / (q_max - q_min)", "(r_max - r_min) / 2**bits")),
        "Combien y a-t-il d'intervalles entre 256 valeurs ?",
    ),
    Misconception(
        "truncated",
        swap(("round(q_min - r_min / scale)", "int(q_min - r_min / scale)")),
        "Votre Z est parfois trop grand ou trop petit d'une unité : de quel côté coupez-vous ?",
    ),
    Misconception(
        "floored",
        swap(("round(q_min - r_min / scale)", "math.floor(q_min - r_min / scale)")),
        "Votre Z est souvent trop petit d'une unité, jamais trop grand : l'entier du dessous n'est pas toujours "
        "le plus proche.",
    ),
    Misconception(
        "sign_z",
        swap(("round(q_min - r_min / scale)", "round(q_min + r_min / scale)")),
        "Vérifiez que r_min retombe bien sur q_min.",
    ),
    Misconception(
        "z_is_rmin_over_s",
        swap(("round(q_min - r_min / scale)", "round(-r_min / scale)")),
        "Votre Z est juste pour un type non signé ; d'où part la grille ici ?",
    ),
    Misconception(
        "z_in_reals",
        swap(("round(q_min - r_min / scale)", "round(q_min - r_min)")),
        "Z est un code : la distance de r_min à zéro s'y compte en pas, pas en unités réelles.",
    ),
    Misconception(
        "symmetric", _symmetric_qparams, "Vous imposez Z = 0 : c'est un autre schéma, qui gaspille des codes ici."
    ),
    Misconception(
        "signed_exchanged",
        swap(("if signed else", "if not signed else")),
        "Les plages signée et non signée sont échangées : laquelle permet d'écrire −1 ?",
    ),
    Misconception(
        "signed_ignored",
        swap(("if signed else", "if True else")),
        "Que le type soit signé ou non, votre Z est le même : d'où part la grille d'un type non signé ?",
    ),
    Misconception(
        "unsigned_only",
        swap(("if signed else", "if False else")),
        "Votre grille part toujours de 0 : combien de codes d'un type signé restent inutilisés ?",
    ),
    Misconception(
        "bits_ignored",
        swap(("    q_min, q_max = (", "    bits = 8\n    q_min, q_max = (")),
        "Changez le nombre de bits : votre réponse ne bouge pas.",
    ),
    Misconception(
        "zero_range",
        swap(("    if r_min == r_max:\n        return 1.0, 0\n", "")),
        "Un intervalle réduit à zéro donne une échelle nulle : que demande l'énoncé dans ce cas ?",
    ),
    Misconception(
        "no_finite_check",
        swap(("if not (math.isfinite(r_min) and math.isfinite(r_max)):", "if False:")),
        "Que vaut un pas quand l'intervalle est infini ? L'énoncé demande de refuser une telle borne.",
    ),
    Misconception(
        "no_bits_check",
        swap(("if bits < 2:", "if False:")),
        "Avec un seul bit, ou aucun, la formule n'a plus de sens : l'énoncé demande de refuser.",
    ),
    Misconception(
        "no_order_check",
        swap(("if r_min > r_max:", "if False:")),
        "Un intervalle dont le début dépasse la fin passe chez vous : regardez-vous l'ordre des bornes, et avant de "
        "les élargir ?",
    ),
]

affine_qparams = Exercise(
    points=3,
    minutes=15,
    stars=2,
    hints=[
        "Deux inconnues, deux conditions : sur quels codes doivent tomber r_min et r_max ?",
        "Retranchez les deux équations r = S·(q − Z) écrites aux deux bouts : Z disparaît, il reste S.",
        "S = (r_max − r_min)/(q_max − q_min), puis Z = q_min − r_min/S, arrondi puis gardé parmi les codes. "
        "Si 0 n'est pas dans l'intervalle, élargissez celui-ci avant.",
    ],
    groups={"courant": 0.4, "un seul côté": 0.3, "refus": 0.3},
    draw=draw_qparams,
    cases=9,
    visible=3,
    examples=[
        {"r_min": -1.0, "r_max": 3.0, "bits": 8, "signed": False},
        {"r_min": -3.0, "r_max": 1.0},
        {"r_min": 2.0, "r_max": 6.0, "bits": 4},
        {"r_min": 0.0, "r_max": 0.0},
        {"r_min": -1.5, "r_max": -1.5, "bits": 2},
        {"r_min": 3.0, "r_max": 1.0},
    ],
    tolerance=Tolerance(rtol=1e-5, why="S peut être calculée en float32 ; Z est un entier exact"),
    misconceptions=_QPARAMS_WRONG,
)


# --- quantize_affine ------------------------------------------------------------------------------------------------


def draw_quantize(d: Draw, group: str) -> Inputs:
    if group == "demis":
        scale, bits, signed = d.choice([0.5, 0.25, 2.0]), d.turn([8, 6]), d.turn([True, True, False])
        # Impair, l'ordre des gestes se voit ; sur 8 bits, torch.quantize_per_tensor décale d'abord : pair, il passe.
        zero_point = d.turn([4, -5, 8, 7, -6, 21])
        halves = torch.arange(-6, 6)[torch.randperm(12, generator=d.generator)] + 0.5
        r = (halves * scale).view(3, 4)
        return {"r": r, "scale": scale, "zero_point": zero_point, "bits": bits, "signed": signed}
    casts = [lambda t: t.view(-1)[-1], torch.Tensor.half, lambda t: d.strided(t.double()), torch.Tensor.bfloat16]
    formats, cast, reach = [(8, True), (8, False), (4, True), (16, True), (3, False), (12, False)], None, 0.4
    if group == "formes et types":  # en float16 et bfloat16, peu de bits : calculable dans leur propre type
        formats, cast, reach = [(8, False), (5, True), (16, True), (4, True)], d.turn(casts), 0.25
    bits, signed = d.turn(formats)
    q_min, q_max = _code_range(bits, signed)
    zero_point = d.integer(q_min // 2 + 1, q_max // 2) if signed else d.integer(q_max // 4 + 1, q_max // 2)
    zero_point += 1 if zero_point == 0 else 0
    shape = d.turn([(3, 5), (14,), (2, 2, 4)])
    codes = d.integers(q_min, q_max, *shape) - zero_point
    flat = codes.view(-1)
    flat[:4] = torch.tensor([q_min, q_max, q_min + 1, q_max - 1]) - zero_point
    if group == "formes et types":  # la dernière, seule gardée à 0 dimension, ne tient que dans la bonne plage
        flat[-1] = q_max - 1 - zero_point
    if group == "bornes":
        far = [q_max + 1, q_min - 1, q_max + 2**bits // 3, q_min - 2**bits // 3, q_max + 2**bits, q_min - 2**bits]
        flat[4:10] = torch.tensor(far) - zero_point
        flat[10:12] = torch.tensor([d.integer(300, 90_000), -d.integer(300, 90_000)]) + torch.tensor([q_max, q_min])
    scale = d.choice([0.013, 0.11, 0.37, 2.3]) * d.uniform(0.8, 1.2)
    r = (scale * _off_grid(d, codes, reach)).float()
    inputs = {"r": cast(r) if cast else r, "scale": scale, "zero_point": zero_point, "bits": bits, "signed": signed}
    if group == "courant" and d.index == 0:
        del inputs["bits"], inputs["signed"]
    return inputs


_QUANTIZE_WRONG = [
    Misconception(
        "truncation",
        swap(("torch.round(r / scale)", "torch.trunc(r / scale)")),
        "Votre erreur va toujours du même côté, vers zéro : couper n'est pas arrondir.",
    ),
    Misconception(
        "floor",
        swap(("torch.round(r / scale)", "torch.floor(r / scale)")),
        "Votre erreur va toujours du même côté, vers le bas : l'entier du dessous n'est pas le plus proche.",
    ),
    Misconception(
        "shift_before_round",
        swap(("torch.round(r / scale) + zero_point", "torch.round(r / scale + zero_point)")),
        "Sur les demis exacts, vous décalez avant d'arrondir : le pair le plus proche n'est alors plus le même. "
        "Dans quel ordre l'énoncé met-il ces gestes ?",
    ),
    Misconception(
        "half_up",
        swap(("torch.round(r / scale)", "torch.floor(r / scale + 0.5)")),
        "Sur les demis exacts, vous allez toujours vers le haut : cela crée un biais.",
    ),
    Misconception(
        "half_away",
        swap(("torch.round(r / scale)", "torch.sign(r) * torch.floor(r.abs() / scale + 0.5)")),
        "Sur les demis exacts, vous vous éloignez toujours de zéro : lequel des deux voisins demande l'énoncé ?",
    ),
    Misconception(
        "cast_before_clamp",
        swap(("codes.clamp(q_min, q_max).to(dtype)", "codes.to(torch.int64).to(dtype).clamp(q_min, q_max)")),
        "Une grande valeur positive devient négative : qu'arrive-t-il à un entier trop grand pour son type ?",
    ),
    Misconception(
        "no_clamp",
        swap(("codes.clamp(q_min, q_max).to(dtype)", "codes.to(torch.int64).to(dtype)")),
        "Rien n'arrête vos codes au bord de la plage : le type de stockage a parfois plus de place que `bits` n'en "
        "donne.",
    ),
    Misconception(
        "no_zero_point",
        swap(("torch.round(r / scale) + zero_point", "torch.round(r / scale)")),
        "Le zéro réel tombe sur le code 0 au lieu de Z.",
    ),
    Misconception(
        "minus_zero_point",
        swap(("torch.round(r / scale) + zero_point", "torch.round(r / scale) - zero_point")),
        "Le zéro réel tombe sur −Z : reprenez r = S·(q − Z) et isolez q.",
    ),
    Misconception(
        "zero_point_in_reals",
        swap(("torch.round(r / scale) + zero_point", "torch.round((r + zero_point) / scale)")),
        "Z est un code, il ne s'ajoute pas à un réel : dans quelle unité compte-t-il ?",
    ),
    Misconception(
        "symmetric_clamp",
        swap(("clamp(q_min, q_max)", "clamp(q_min + signed, q_max)")),
        "Vous n'utilisez jamais le plus petit code.",
    ),
    Misconception(
        "clamp_before_shift",
        swap(
            ("torch.round(r / scale) + zero_point", "torch.round(r / scale).clamp(q_min, q_max) + zero_point"),
            ("codes.clamp(q_min, q_max).to(dtype)", "codes.to(torch.int64).to(dtype)"),
        ),
        "Après votre décalage, des codes sortent de nouveau des bornes.",
    ),
    Misconception(
        "multiplies",
        swap(("torch.round(r / scale)", "torch.round(r * scale)")),
        "scale est la longueur d'un pas : combien de pas dans r ?",
    ),
    Misconception(
        "signed_ignored",
        swap(("if signed else (0", "if True else (0")),
        "Vos bornes sont toujours celles d'un type signé : quels codes un type non signé permet-il ?",
    ),
    Misconception(
        "bits_ignored",
        swap(("    q_min, q_max = (", "    bits = 8\n    q_min, q_max = (")),
        "Vos codes occupent toujours 8 bits : changez `bits` et regardez les bornes.",
    ),
    Misconception(
        "int32_always",
        swap(("codes.clamp(q_min, q_max).to(dtype)", "codes.clamp(q_min, q_max).to(torch.int32)")),
        "Vos codes sont bons, mais chacun occupe quatre octets : quel type entier suffit à 8 bits ?",
    ),
    Misconception(
        "float_codes",
        swap(("codes.clamp(q_min, q_max).to(dtype)", "codes.clamp(q_min, q_max)")),
        "Vos codes ont la bonne valeur mais sont restés des réels : où est le gain de place ?",
    ),
]

quantize_affine = Exercise(
    points=2,
    minutes=10,
    stars=2,
    hints=[
        "Combien de pas y a-t-il de 0 à r, et sur quel code tombe le réel 0 ?",
        "Trois gestes, dans cet ordre : arrondir, décaler, ramener dans les bornes. Le changement de type vient en "
        "dernier.",
        "q = borne(round(r/S) + Z, q_min, q_max), où round choisit le pair le plus proche sur un demi exact.",
    ],
    groups={"courant": 0.35, "bornes": 0.25, "demis": 0.15, "formes et types": 0.25},
    draw=draw_quantize,
    cases=6,
    visible=3,
    examples=[
        {"r": torch.tensor([-1.0, 0.0, 0.26, 0.9, 40.0]), "scale": 0.1, "zero_point": 5},
        {"r": torch.tensor([-1.0, 0.0, 0.26, 0.9, 40.0]), "scale": 0.1, "zero_point": 5, "bits": 4, "signed": False},
        {"r": torch.tensor([0.25, 0.75, -0.25, -0.75, 1.25]), "scale": 0.5, "zero_point": 3, "bits": 6},
    ],
    misconceptions=_QUANTIZE_WRONG,
)


# --- dequantize_affine ----------------------------------------------------------------------------------------------


def draw_dequantize(d: Draw, group: str) -> Inputs:
    bits, signed = d.turn([(8, True), (8, False), (16, True)] if group == "types" else [(8, True), (8, False)])
    dtype = torch.int32 if bits > 8 else torch.int8 if signed else torch.uint8
    q_min, q_max = _code_range(bits, signed)
    zero_point = d.integer(q_min // 4 + 1, q_max // 4) if signed else d.integer(q_max // 4, 3 * q_max // 4)
    zero_point += 3 if abs(zero_point) < 3 else 0
    q = d.integers(q_min, q_max, *d.turn([(3, 4), (7,), (2, 3, 2)]))
    if group == "extrêmes":
        zero_point = d.turn([q_max, q_max, q_min]) + d.integer(0, 9) * (1 if d.index % 3 == 2 else -1)
        q.view(-1)[:3] = torch.tensor([q_min, q_max, zero_point])
    q = q.to(dtype)
    if group == "types":
        q = d.turn([lambda t: t.view(-1)[0], d.strided, lambda t: t, lambda t: t.to(torch.int32)])(q)
    scale = d.uniform(0.01, 0.4) if bits == 8 else d.uniform(0.0005, 0.002)
    return {"q": q, "scale": scale, "zero_point": zero_point}


_DEQUANTIZE_WRONG = [
    Misconception(
        "sq_minus_z",
        swap(("scale * (q.to(torch.float32) - zero_point)", "scale * q.to(torch.float32) - zero_point")),
        "Z est compté en pas, pas en unités réelles.",
    ),
    Misconception(
        "overflow_int8",
        swap(("q.to(torch.float32) - zero_point", "q - torch.tensor(zero_point, dtype=q.dtype)")),
        "Dans quel type faites-vous la soustraction ? −128 − 127 ne tient pas sur 8 bits.",
    ),
    Misconception(
        "plus",
        swap(("q.to(torch.float32) - zero_point", "q.to(torch.float32) + zero_point")),
        "Le code Z doit redonner exactement zéro.",
    ),
    Misconception(
        "no_zero_point",
        swap(("q.to(torch.float32) - zero_point", "q.to(torch.float32)")),
        "Chez vous c'est le code 0 qui rend zéro : de quel code la grille est-elle comptée ?",
    ),
    Misconception(
        "divides",
        swap(("scale * (q.to(torch.float32) - zero_point)", "(q.to(torch.float32) - zero_point) / scale")),
        "Un code compte des pas ; un pas a une longueur. Comment passe-t-on d'un nombre de pas à une distance ?",
    ),
    Misconception(
        "float64",
        swap(("q.to(torch.float32)", "q.to(torch.float64)")),
        "Les valeurs sont bonnes, le type demandé est float32.",
    ),
]

dequantize_affine = Exercise(
    points=1,
    minutes=5,
    hints=[
        "Quel réel doit rendre le code Z ? Et le code Z + 1 ?",
        "r = S·(q − Z) ; demandez-vous dans quel type la soustraction se fait.",
    ],
    groups={"courant": 0.5, "extrêmes": 0.25, "types": 0.25},
    draw=draw_dequantize,
    examples=[{"q": torch.tensor([-128, 0, 5, 127], dtype=torch.int8), "scale": 0.1, "zero_point": 5}],
    tolerance=Tolerance(rtol=1e-5, atol=3e-5, why="S·q et S·Z calculés à part en float32 ; un pas vaut 5e-4 au moins"),
    misconceptions=_DEQUANTIZE_WRONG,
)


# --- absmax_scale ---------------------------------------------------------------------------------------------------

_ONE_DIVISION = Tolerance(rtol=1e-5, why="une division en float32")


def draw_absmax(d: Draw, group: str) -> Inputs:
    bits, full_range = d.turn([(8, False), (4, True), (3, False), (8, True), (2, False), (6, True)])
    r = _with_negative_peak(d, *d.turn([(4, 5), (9,), (2, 3, 4)])) * d.turn([0.02, 30.0, 1.0])
    if group == "bords":
        zeros = torch.zeros(*d.turn([(3, 2), (3, 2), (4,)]), dtype=d.choice([torch.float32, torch.float64]))
        r = d.turn([-r.abs() - 0.01, zeros, -r.abs().max(), r.abs(), zeros, r.view(-1)[:1]])
    if group == "types":
        r = d.turn([r.double(), r.half(), d.strided(r), r.bfloat16(), d.strided(r.double()), r.T if r.ndim == 2 else r])
    if group == "courant" and d.index == 0:
        return {"r": r}
    return {"r": r, "bits": bits, "full_range": full_range}


_ABSMAX_WRONG = [
    Misconception(
        "no_abs",
        swap(("r.abs().max()", "r.max()")),
        "Testez sur un tenseur dont le plus grand écart à zéro est négatif.",
    ),
    Misconception(
        "signed_levels",
        swap(("2 ** (bits - 1) - 1", "2**bits - 1")),
        "Tous vos codes ne servent pas : combien restent d'un seul côté de zéro ?",
    ),
    Misconception(
        "ranges_exchanged",
        swap(("if full_range else", "if not full_range else")),
        "Les deux variantes sont échangées : laquelle permet d'écrire −128 ?",
    ),
    Misconception(
        "full_range_ignored",
        swap(("2 ** (bits - 1) if full_range else", "2 ** (bits - 1) - 1 if full_range else")),
        "Avec ou sans full_range, votre échelle est la même : combien de crans y a-t-il de 0 à −2^(b−1) ?",
    ),
    Misconception(
        "always_full_range",
        swap(("2 ** (bits - 1) - 1", "2 ** (bits - 1)")),
        "Sans full_range, le plus grand code positif est 2^(b−1) − 1 : le maximum de r y tombe-t-il ?",
    ),
    Misconception(
        "half_step",
        swap(("2 ** (bits - 1) - 1", "(2**bits - 1) / 2")),
        "C'est ce que PyTorch fait par défaut (127,5 crans) ; l'énoncé compte des crans entiers d'un seul côté.",
    ),
    Misconception(
        "bits_ignored",
        swap(("2 ** (bits - 1) if full_range else 2 ** (bits - 1) - 1", "128 if full_range else 127")),
        "Changez le nombre de bits : votre échelle ne bouge pas.",
    ),
    Misconception(
        "zero_scale",
        swap(("torch.where(peak > 0, peak / levels, torch.ones_like(peak))", "peak / levels")),
        "Un tenseur nul vous donne une échelle par laquelle on ne pourra pas diviser.",
    ),
    Misconception(
        "peak_to_peak",
        swap(("peak = r.abs().max()", "peak = (r.max() - r.min()) / 2")),
        "Le milieu de votre intervalle n'est pas zéro.",
    ),
]

absmax_scale = Exercise(
    points=2,
    minutes=10,
    hints=[
        "Combien de crans y a-t-il entre 0 et le plus grand code positif ?",
        "Sur b bits signés, les codes vont de −2^(b−1) à 2^(b−1) − 1. Lesquels sont symétriques ?",
        "S est l'écart à zéro le plus grand, divisé par le nombre de crans d'un seul côté ; un tenseur nul est à part.",
    ],
    groups={"courant": 0.5, "bords": 0.3, "types": 0.2},
    draw=draw_absmax,
    cases=6,
    visible=3,
    examples=[
        {"r": torch.tensor([0.5, -2.54, 1.0])},
        {"r": torch.tensor([0.5, -2.56, 1.0]), "bits": 8, "full_range": True},
    ],
    tolerance=_ONE_DIVISION,
    misconceptions=_ABSMAX_WRONG,
)


# --- absmax_per_channel ---------------------------------------------------------------------------------------------


def draw_per_channel(d: Draw, group: str) -> Inputs:
    bits = d.turn([8, 4, 6, 3])
    if group == "courant":
        shape, axis = d.turn([((3, 5), 0), ((3, 5), 1), ((6, 2), 0), ((4, 7), 1)])
    elif group == "formes":
        shape, axis = d.turn(
            [((4, 4), 1), ((2, 3, 4), 1), ((3, 5), -1), ((3, 2, 2, 2), -2), ((2, 3, 4), 2), ((4, 4), 0), ((2, 4, 3), 0)]
        )
    else:
        shape, axis = d.turn([((3, 4), 0), ((4, 3), 1), ((2, 5), 0), ((3, 3), 1)])
    w = d.normal(*shape)
    for i, part in enumerate(w.movedim(axis, 0)):
        part *= (0.3 + i) / part.abs().max()
        if (part.max() > -part.min()) == (i % 2 == 0):  # une tranche sur deux a son extrême du côté négatif
            part *= -1
    if group == "bords":
        w.select(axis, d.integer(0, shape[axis] - 1)).zero_()
        w = d.turn([w, d.strided(w), w.double(), w.half(), w.T.contiguous().T, w.bfloat16()])
    if group == "courant" and d.index == 0:
        return {"w": w}
    return {"w": w, "bits": bits, "axis": axis}


_PER_CHANNEL_WRONG = [
    Misconception(
        "reduces_axis",
        swap(("if d != axis % w.ndim", "if d == axis % w.ndim")),
        "Vous avez fait disparaître l'axe qu'il fallait garder.",
    ),
    Misconception(
        "not_broadcastable",
        swap(("keepdim=True", "keepdim=False")),
        "Divisez le poids par votre résultat : la forme ne s'aligne pas, ou s'aligne sur le mauvais axe.",
    ),
    Misconception(
        "single_scale",
        swap(
            (
                "w.abs().amax(dim=others, keepdim=True)",
                "w.abs().amax(dim=others, keepdim=True).clone().fill_(w.abs().max())",
            )
        ),
        "Toutes vos échelles sont égales : une seule ligne décide pour toutes.",
    ),
    Misconception(
        "only_2d",
        swap(("w.abs().amax(dim=others, keepdim=True)", "w.abs().amax(dim=1 - axis % w.ndim, keepdim=True)")),
        "Il peut y avoir plus de deux axes : lesquels doivent disparaître dans le maximum ?",
    ),
    Misconception(
        "axis_ignored",
        swap(("if d != axis % w.ndim", "if d != 0")),
        "Vos tranches sont toujours des lignes : changez `axis` et regardez la forme du résultat.",
    ),
    Misconception(
        "negative_axis",
        swap(("if d != axis % w.ndim", "if d != axis")),
        "Un axe peut être compté depuis la fin : quel axe est −1 ?",
    ),
    Misconception(
        "no_abs",
        swap(("w.abs().amax(dim=others, keepdim=True)", "w.amax(dim=others, keepdim=True)")),
        "Dans certaines tranches, le plus grand écart à zéro est négatif.",
    ),
    Misconception(
        "zero_scale",
        swap(
            (
                "torch.where(peak > 0, peak / (2 ** (bits - 1) - 1), torch.ones_like(peak))",
                "peak / (2 ** (bits - 1) - 1)",
            )
        ),
        "Une tranche nulle vous donne une échelle par laquelle on ne pourra pas diviser.",
    ),
    Misconception(
        "full_range",
        swap(("(2 ** (bits - 1) - 1)", "2 ** (bits - 1)")),
        "Le plus grand code positif est 2^(b−1) − 1 : combien de crans y a-t-il de 0 à lui ?",
    ),
    Misconception(
        "signed_levels",
        swap(("(2 ** (bits - 1) - 1)", "(2**bits - 1)")),
        "Tous vos codes ne servent pas : combien restent d'un seul côté de zéro ?",
    ),
    Misconception(
        "bits_ignored",
        swap(("(2 ** (bits - 1) - 1)", "127")),
        "Changez le nombre de bits : vos échelles ne bougent pas.",
    ),
]

absmax_per_channel = Exercise(
    points=2,
    minutes=10,
    stars=2,
    hints=[
        "Combien d'échelles voulez-vous ? Quels axes doivent donc disparaître dans le maximum ?",
        "Un maximum peut porter sur plusieurs axes à la fois et les garder avec la taille 1.",
        "max|w| sur tous les axes sauf `axis`, divisé par 2^(b−1) − 1 ; une tranche nulle reçoit 1.",
    ],
    groups={"courant": 0.4, "formes": 0.35, "bords": 0.25},
    draw=draw_per_channel,
    cases=7,
    visible=3,
    examples=[{"w": torch.tensor([[0.5, -1.27], [2.54, 0.0], [0.0, 0.0]])}],
    tolerance=_ONE_DIVISION,
    misconceptions=_PER_CHANNEL_WRONG,
)


# --- sqnr_db --------------------------------------------------------------------------------------------------------


def draw_sqnr(d: Draw, group: str) -> Inputs:
    shape = d.turn([(4, 5), (12,), (2, 3, 4)])
    r = d.normal(*shape, dtype=torch.float64) * d.choice([0.05, 1.0, 20.0]) * (1 + 2 * d.integers(0, 1, *shape))
    noise = d.normal(*shape, dtype=torch.float64)
    noise *= d.uniform(0.02, 0.3) * r.norm() / noise.norm()
    r_hat = d.uniform(0.6, 0.85) * r + noise
    if group == "bords":
        exact, one = r.float().clone(), r.flatten()[0]
        pairs = [(r, r_hat), (exact, exact.clone()), (d.strided(r), d.strided(r_hat)), (one, 0.8 * one)]
        r, r_hat = d.turn([*pairs, (r.float(), torch.zeros(shape)), (r, r.clone())])
        return {"r": r, "r_hat": r_hat}
    return {"r": r.float(), "r_hat": r_hat.float()}


def _sqnr_no_inf(r: torch.Tensor, r_hat: torch.Tensor) -> float:
    noise = ((r.double() - r_hat.double()) ** 2).sum().item()
    return 10 * math.log10((r.double() ** 2).sum().item() / noise)


_SQNR_WRONG = [
    Misconception(
        "20log",
        swap(("10 * torch.log10", "20 * torch.log10")),
        "Vous traitez un rapport de puissances comme un rapport d'amplitudes.",
    ),
    Misconception("natural_log", swap(("torch.log10", "torch.log")), "Le décibel a sa base."),
    Misconception(
        "amplitude_ratio",
        swap(("r.square().sum() / noise", "(r.square().sum() / noise).sqrt()")),
        "Votre rapport est celui des amplitudes ; le décibel compare des puissances.",
    ),
    Misconception(
        "bels",
        swap(("10 * torch.log10", "torch.log10")),
        "Votre nombre est juste en bels : combien de décibels y a-t-il dans un bel ?",
    ),
    Misconception(
        "no_log",
        swap(("10 * torch.log10(r.square().sum() / noise)", "r.square().sum() / noise")),
        "Vous rendez le rapport lui-même : le décibel en est un logarithme.",
    ),
    Misconception(
        "signal_is_r_hat",
        swap(("r.square().sum() / noise", "r_hat.square().sum() / noise")),
        "Le signal est ce qu'on voulait garder, pas ce qu'on a obtenu.",
    ),
    Misconception(
        "squares_difference",
        swap(("(r - r_hat).square().sum()", "(r.square() - r_hat.square()).sum().abs()")),
        "Le bruit est l'énergie de l'écart, pas l'écart des énergies.",
    ),
    Misconception(
        "absolute_values",
        swap(("(r - r_hat).square().sum()", "(r - r_hat).abs().sum()"), ("r.square().sum()", "r.abs().sum()")),
        "Une puissance est une somme de carrés, pas une somme de valeurs absolues.",
    ),
    Misconception(
        "psnr",
        swap(("r.square().sum() / noise", "r.numel() * r.square().max() / noise")),
        "Le signal se mesure sur toutes les valeurs, pas sur la plus grande seulement.",
    ),
    Misconception(
        "inverted",
        swap(("r.square().sum() / noise", "noise / r.square().sum()")),
        "Quand l'erreur diminue, votre rapport diminue aussi : qui est au numérateur ?",
    ),
    Misconception(
        "no_inf", _sqnr_no_inf, "Quand rien n'a été perdu, le bruit est nul : que devient alors votre division ?"
    ),
]

sqnr_db = Exercise(
    points=1,
    minutes=5,
    hints=[
        "Qu'est-ce qui est le signal, qu'est-ce qui est le bruit ? Une puissance est une somme de carrés.",
        "Le décibel est dix fois le logarithme, en base dix, d'un rapport de puissances. Et si le bruit est nul ?",
    ],
    groups={"courant": 0.6, "bords": 0.4},
    draw=draw_sqnr,
    probe="call_float",
    cases=6,
    examples=[
        {"r": torch.tensor([3.0, -4.0]), "r_hat": torch.tensor([3.0, -3.5])},
        {"r": torch.tensor([3.0, -4.0]), "r_hat": torch.tensor([3.0, -4.0])},
    ],
    tolerance=Tolerance(rtol=1e-4, atol=1e-3, why="sommes en float32 ; un millième de décibel ne s'entend pas"),
    misconceptions=_SQNR_WRONG,
)


# --- int8_linear ----------------------------------------------------------------------------------------------------


def draw_int8_linear(d: Draw, group: str) -> Inputs:
    kind = (
        d.turn(["float64", "exactitude", "float16", "float64", "bfloat16", "float16"])
        if group == "types"
        else "float32"
    )
    if kind == "exactitude":
        return _draw_cancelling(d)
    small = kind in ("float16", "bfloat16")  # calculable dans leur propre type : petits codes, aucune compensation
    n, fan_in, fan_out = d.turn([(3, 40, 5), (4, 60, 4), (1, 64, 3), (5, 48, 5), (2, 30, 6), (6, 32, 6)])
    fan_in = 10 if small else fan_in
    codes = _off_grid(d, d.integers(1, 12, n, fan_in) if small else d.integers(-126, 126, n, fan_in), 0.25)
    codes[torch.arange(n), d.integers(0, fan_in - 1, n)] = 127.0 * (1 if small or d.index % 2 else -1)
    sizes = torch.tensor([2.0 ** d.integer(-6, 2) for _ in range(n)]) * (1.0 if small else d.uniform(1.0, 2.0) / 127)
    x = codes * sizes[:, None]
    w_q = d.integers(1 if small else -127, 7 if small else 127, fan_out, fan_in, dtype=torch.int8)
    w_scale = 0.001 + 0.02 * torch.rand(fan_out, 1, generator=d.generator)
    bias = d.normal(fan_out).abs() if small else d.normal(fan_out)
    if group == "lignes":
        x[d.integer(0, n - 1)] = 0.0
    dtype = getattr(torch, kind)
    x, w_scale, bias = x.to(dtype), w_scale.to(dtype), bias.to(dtype)
    if d.index % 2:
        x, w_q = d.strided(x), d.strided(w_q)
    inputs = {"x": x, "w_q": w_q, "w_scale": w_scale, "bias": bias}
    if d.index % 3 == 2:
        del inputs["bias"]
    return inputs


def _draw_cancelling(d: Draw) -> Inputs:
    """Des sommes qui montent très au-delà de 2²⁴ avant de se compenser presque : en float32, il n'en reste rien.

    Un produit en float32 peut y tomber juste, ou presque, par chance : le tirage recommence alors.
    """
    half = 32_000
    for _ in range(50):
        up, w = d.integers(100, 127, half), d.integers(102, 124, 2, half)
        up[:3] = torch.tensor([127, d.integer(103, 109), 100])
        down = w.clone()
        for row, step in zip(down, (1, 2), strict=True):  # ce qui reste de la somme : quelques unités
            row[1:3] += torch.tensor([-step, step])
        other = torch.randperm(half, generator=d.generator)  # dans un autre ordre, les arrondis ne se compensent pas
        x, w = torch.cat([up, -up[other]])[None], torch.cat([w, down[:, other]], dim=1)
        exact = (x * w).sum(1)
        if (((x.float() @ w.float().T)[0] - exact).abs() > 0.1 * exact).any():
            break
    return {"x": x.half(), "w_q": w.to(torch.int8), "w_scale": torch.full((2, 1), 0.5).half()}


_INT8_WRONG = [
    Misconception(
        "int8_accumulator",
        swap(("x_q.to(wide) @ w_q.to(wide).T", "x_q @ w_q.T")),
        "Le produit de deux int8 tient déjà à peine sur 16 bits ; et leur somme ?",
    ),
    Misconception(
        "int16_accumulator",
        swap(("x_q.to(wide) @ w_q.to(wide).T", "x_q.to(torch.int16) @ w_q.to(torch.int16).T")),
        "Un produit tient sur 16 bits, mais vous en ajoutez beaucoup : jusqu'où va la somme ?",
    ),
    Misconception(
        "float32_accumulator",
        swap(("x_q.to(wide) @ w_q.to(wide).T", "x_q.to(torch.float32) @ w_q.to(torch.float32).T")),
        "Sur de très longues lignes votre somme perd des unités : au-delà de quel entier float32 en saute-t-il ?",
        portable=False,  # l'ordre de la somme dépend de la machine et du nombre de fils
    ),
    Misconception(
        "no_activation_scale",
        swap(("accumulator * x_scale * w_scale.T", "accumulator * w_scale.T")),
        "Vous revenez à l'échelle des poids, mais x aussi avait été mis à l'échelle.",
    ),
    Misconception(
        "no_weight_scale",
        swap(("accumulator * x_scale * w_scale.T", "accumulator * x_scale")),
        "Vous revenez à l'échelle de x, mais les poids aussi étaient des codes.",
    ),
    Misconception(
        "one_scale_all_rows",
        swap(("real.abs().amax(dim=1, keepdim=True)", "real.abs().amax().expand(len(x), 1)")),
        "Une ligne très grande écrase les codes des autres.",
    ),
    Misconception(
        "weight_scale_axis",
        swap(("w_scale.T", "w_scale")),
        "Chaque échelle de poids appartient à une sortie : sur quel axe s'étend-elle ?",
    ),
    Misconception(
        "bias_scaled",
        swap(
            ("y = accumulator * x_scale * w_scale.T\n", "y = accumulator\n"),
            ("y = y + bias\n", "y = y + bias\n    y = y * x_scale * w_scale.T\n"),
        ),
        "Le biais est déjà en unités réelles.",
    ),
    Misconception(
        "bias_forgotten",
        swap(("if bias is not None:", "if False:")),
        "Votre écart est une constante par sortie : quel terme de la couche ne dépend pas de x ?",
    ),
    Misconception(
        "no_quantization",
        swap(
            ("torch.round(real / x_scale).to(torch.int8)", "real / x_scale"),
            ("x_q.to(wide) @ w_q.to(wide).T", "x_q.double() @ w_q.double().T"),
        ),
        "Votre résultat est trop juste : x n'est jamais passé par des entiers.",
    ),
    Misconception(
        "truncation",
        swap(("torch.round(real / x_scale)", "torch.trunc(real / x_scale)")),
        "Vos codes d'activation sont tous tirés vers zéro : couper n'est pas arrondir.",
    ),
    Misconception(
        "levels_128",
        swap(
            ("peak / 127", "peak / 128"),
            ("torch.round(real / x_scale)", "torch.round(real / x_scale).clamp(-128, 127)"),
        ),
        "Le plus grand code positif est 127 : avec votre échelle, où tombe le maximum d'une ligne ?",
    ),
]

int8_linear = Exercise(
    points=3,
    minutes=25,
    stars=3,
    hints=[
        "Si x ≈ s·a et w ≈ t·b avec a et b entiers, que vaut à peu près la somme des produits x·w ? Qu'est-ce qui "
        "sort de la somme ?",
        "Une échelle par ligne de x, une par ligne de w_q : la case (i, o) du résultat a besoin des deux.",
        "Le produit de deux int8 va jusqu'à 16 129, et l'on en ajoute `in` : dans quel type ?",
        "y[i, o] = s_x[i] · s_w[o] · Σ a[i, k]·b[o, k] + biais[o], où a = round(x / s_x) et s_x[i] = max|x[i]| / 127.",
    ],
    groups={"courant": 0.5, "lignes": 0.25, "types": 0.25},
    draw=draw_int8_linear,
    cases=5,
    examples=[
        {
            "x": torch.tensor([[1.27, -0.5], [0.0, 0.0]]),
            "w_q": torch.tensor([[100, 20], [-3, 127], [50, 50]], dtype=torch.int8),
            "w_scale": torch.tensor([[0.01], [0.02], [0.1]]),
            "bias": torch.tensor([1.0, 0.0, -1.0]),
        }
    ],
    tolerance=Tolerance(rtol=1e-4, atol=2e-5, why="deux échelles multipliées dans un ordre libre, en float32"),
    misconceptions=_INT8_WRONG,
)


# --- pack_int4 ------------------------------------------------------------------------------------------------------

_PAIRS = torch.cartesian_prod(torch.arange(-8, 8), torch.arange(-8, 8))


def draw_pack(d: Draw, group: str) -> Inputs:
    dtype = d.turn([torch.int8, torch.int64, torch.int32])
    if group == "paires":
        pairs = _PAIRS[torch.randperm(256, generator=d.generator)]
        if d.index % 2:  # sans −8, pour qui ne refuse que lui
            return {"q": pairs[(pairs > -8).all(dim=1)].reshape(15, 30).to(dtype)}
        return {"q": pairs.flatten().to(dtype)}
    if group == "refus":
        q = d.integers(-7, 6, *d.turn([(6,), (2, 4), (3, 5)]))
        q.view(-1)[d.integer(0, q.numel() - 1)] = d.turn([8, -9, d.integer(9, 100), d.integer(-100, -10), 16, -16])
        return {"q": q.to(dtype)}
    q = d.integers(-8, 7, *d.turn([(7,), (3, 5), (2, 3, 3), (1,), (4, 6), (2, 1)]))
    q.view(-1)[-1] = d.turn([-8, 7, -1])
    return {"q": d.turn([lambda t: t, d.strided])(q.to(dtype))}


_PACK_WRONG = [
    Misconception(
        "nibbles_swapped",
        swap(("nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)", "nibbles[..., 1::2] | (nibbles[..., 0::2] << 4)")),
        "Chaque octet contient les bonnes valeurs dans l'autre ordre.",
    ),
    Misconception(
        "sign_spills",
        swap(("(q & 0xF).to(torch.uint8)", "q.to(torch.uint8)")),
        "Un nombre négatif déborde sur son voisin : combien de bits de lui voulez-vous garder ?",
    ),
    Misconception(
        "offset_binary",
        swap(("(q & 0xF)", "(q + 8)")),
        "Vous décalez les valeurs ; le complément à deux ne décale pas, il replie.",
    ),
    Misconception(
        "sign_magnitude",
        swap(("(q & 0xF)", "(torch.where(q < 0, 8 - q, q) & 0xF)")),
        "Un bit de signe et une valeur absolue, c'est une autre écriture : que devient −8 dans la vôtre ?",
    ),
    Misconception(
        "odd_dropped",
        swap(("torch.nn.functional.pad(nibbles, (0, 1))", "nibbles[..., :-1]")),
        "Avec un nombre impair de valeurs, la dernière disparaît.",
    ),
    Misconception(
        "odd_pad_front",
        swap(("pad(nibbles, (0, 1))", "pad(nibbles, (1, 0))")),
        "Le zéro de remplissage est arrivé devant : tous vos couples sont décalés d'une valeur.",
    ),
    Misconception(
        "halves",
        swap(
            (
                "nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)",
                "nibbles.chunk(2, dim=-1)[0] | (nibbles.chunk(2, dim=-1)[1] << 4)",
            )
        ),
        "Vos voisins dans l'octet viennent des deux moitiés du tenseur.",
    ),
    Misconception(
        "first_axis",
        swap(
            ("(q & 0xF).to(torch.uint8)", "(q & 0xF).to(torch.uint8).movedim(0, -1)"),
            ("q.shape[-1] % 2", "q.shape[0] % 2"),
            (
                "nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)",
                "(nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)).movedim(-1, 0)",
            ),
        ),
        "Vos couples sont verticaux : sur quel axe deux valeurs sont-elles voisines ?",
    ),
    Misconception(
        "no_check",
        swap(("if ((q < -8) | (q > 7)).any():", "if False:")),
        "Une valeur hors de [−8, 7] est rangée sans bruit, et elle en sortira fausse.",
    ),
    Misconception(
        "lower_check_only",
        swap(("if ((q < -8) | (q > 7)).any():", "if (q < -8).any():")),
        "Vous ne surveillez qu'un des deux bords : 8 s'écrit comme −8.",
    ),
    Misconception(
        "symmetric_range",
        swap(("(q < -8)", "(q < -7)")),
        "Quatre bits donnent seize valeurs : vous en refusez une qui est permise.",
    ),
]

pack_int4 = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Écrivez −1 et 3 sur quatre bits, en complément à deux. Quel octet font-ils ensemble ?",
        "De quels bits d'un entier négatif plus large avez-vous besoin ? Que faire des autres ?",
        "octet = (q₀ modulo 16) + 16 · (q₁ modulo 16), pour chaque couple de voisins (q₀, q₁) ; q₁ = 0 s'il manque.",
    ],
    groups={"paires": 0.45, "impairs et formes": 0.3, "refus": 0.25},
    draw=draw_pack,
    cases=6,
    examples=[
        {"q": torch.tensor([-1, 3], dtype=torch.int8)},
        {"q": torch.tensor([[1, 2, -8], [7, -1, 0]], dtype=torch.int8)},
        {"q": torch.tensor([0, 8], dtype=torch.int8)},
    ],
    misconceptions=_PACK_WRONG,
)


# --- unpack_int4 ----------------------------------------------------------------------------------------------------


def draw_unpack(d: Draw, group: str) -> Inputs:
    if group == "octets":
        p = torch.randperm(256, generator=d.generator).to(torch.uint8)
        return {"p": p.view(4, 64) if d.index % 2 else p, "n": 128 if d.index % 2 else 512}
    n = d.turn([5, 3, 6, 1, 7, 2])
    p = d.integers(0, 255, *d.turn([(2,), (), (2, 3)]), (n + 1) // 2)
    if n % 2 and d.index % 4 < 2:  # remplissage nul une fois sur deux, sinon quelconque : il est ignoré
        p[..., -1] &= 0xF
    return {"p": d.turn([lambda t: t, d.strided])(p.to(torch.uint8)), "n": n}


_UNPACK_WRONG = [
    Misconception(
        "sign_lost",
        swap(("torch.where(nibbles >= 8, nibbles - 16, nibbles)", "nibbles")),
        "Vous ne rendez jamais de négatif : comment reconnaître celui qui l'était ?",
    ),
    Misconception(
        "threshold", swap(("nibbles >= 8", "nibbles > 8")), "Vérifiez la valeur frontière entre positif et négatif."
    ),
    Misconception(
        "threshold_low",
        swap(("nibbles >= 8", "nibbles >= 7")),
        "Le plus grand positif est devenu négatif : combien de motifs commencent par 0 ?",
    ),
    Misconception(
        "ones_complement",
        swap(("nibbles - 16", "nibbles - 15")),
        "Vos négatifs sont trop grands d'une unité : que doit rendre le motif 1111 ?",
    ),
    Misconception(
        "sign_magnitude",
        swap(("nibbles - 16", "8 - nibbles")),
        "Vous lisez un bit de signe et une valeur absolue : que vaut alors 1000, et combien y a-t-il de zéros ?",
    ),
    Misconception(
        "offset_binary",
        swap(("torch.where(nibbles >= 8, nibbles - 16, nibbles)", "nibbles - 8")),
        "Vous décalez toutes les valeurs ; le complément à deux ne touche qu'aux négatives.",
    ),
    Misconception("n_ignored", swap(("[..., :n]", "")), "La valeur de remplissage est restée au bout."),
    Misconception(
        "high_not_shifted", swap(("p >> 4", "p & 0xF0")), "La moitié haute est encore à la place des seizaines."
    ),
    Misconception(
        "nibbles_swapped",
        swap(("[p & 0xF, p >> 4]", "[p >> 4, p & 0xF]")),
        "Vos valeurs sont justes, mais dans chaque octet la seconde sort avant la première.",
    ),
    Misconception(
        "halves",
        swap(("torch.stack([p & 0xF, p >> 4], dim=-1).flatten(-2)", "torch.cat([p & 0xF, p >> 4], dim=-1)")),
        "Vous rendez d'abord toutes les moitiés basses, puis toutes les hautes : où étaient les voisins ?",
    ),
    Misconception(
        "unsigned",
        swap((".to(torch.int8)", "")),
        "Un octet non signé n'a pas de négatif : −1 y revient sous la forme 255.",
    ),
]

unpack_int4 = Exercise(
    points=2,
    minutes=10,
    stars=2,
    hints=[
        "Un octet vaut 0x3F : quelles sont ses deux moitiés, et dans quel ordre les rendez-vous ?",
        "Sur quatre bits en complément à deux, quels motifs représentent des négatifs ?",
        "Une moitié m de 0 à 15 vaut m si m < 8, m − 16 sinon ; on ne garde que les n premières.",
    ],
    groups={"octets": 0.6, "impairs et formes": 0.4},
    draw=draw_unpack,
    cases=6,
    examples=[
        {"p": torch.tensor([0x3F, 0x80], dtype=torch.uint8), "n": 4},
        {"p": torch.tensor([[0x21, 0x08]], dtype=torch.uint8), "n": 3},
    ],
    misconceptions=_UNPACK_WRONG,
)


# --- gptq_quantize --------------------------------------------------------------------------------------------------


def _gptq_positions(
    w: torch.Tensor, x: torch.Tensor, bits: int, damp: float, mistake: str = "", absolute: bool = False
) -> np.ndarray:
    """Ce que chaque poids, corrigé, vaut en pas au moment d'être arrondi (mise à jour OBQ).

    mistake : « inverse » pour qui ne met pas H⁻¹ à jour, « erreur » pour qui mesure celle-ci sur w.
    En NumPy : sur d'aussi petites matrices, dix fois plus vite qu'en torch, et un tirage en demande des dizaines.
    """
    plain, q_max = w.double().numpy(), 2 ** (bits - 1) - 1
    rest, scale = plain.copy(), _row_scale(plain, q_max)
    activations = x.double().numpy()
    hessian = 2 * activations.T @ activations
    hessian += damp * (1.0 if absolute else hessian.diagonal().mean()) * np.eye(len(hessian))
    inverse = np.linalg.inv(hessian if hessian.any() else np.eye(len(hessian)))
    for j in range(w.shape[1]):
        codes = np.clip(np.rint(rest[:, j] / scale[:, 0]), -q_max - 1, q_max)
        error = (plain if mistake == "erreur" else rest)[:, j] - codes * scale[:, 0]
        rest[:, j + 1 :] -= np.outer(error / inverse[j, j], inverse[j, j + 1 :])
        if mistake != "inverse":
            inverse = inverse - np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return rest / scale


def _row_scale(w: np.ndarray, q_max: int) -> np.ndarray:
    peak = np.abs(w).max(axis=1, keepdims=True)
    return np.where(peak > 0, peak / q_max, 1.0)


def _correlated(d: Draw, n: int, width: int) -> torch.Tensor:
    """n activations dont les colonnes se ressemblent, d'amplitudes inégales."""
    mix = d.normal(width, width) + 1.5 * d.normal(width, 1)
    return d.normal(n, width) @ mix * torch.tensor([d.uniform(0.5, 2.0) for _ in range(width)])


def draw_gptq(d: Draw, group: str) -> Inputs:
    """Chaque groupe dit toujours la même chose d'une même faute : les bornes des codes ne comptent que sur deux bits,
    l'amortissement que s'il y a peu d'exemples.
    """
    few = group == "peu d'exemples"
    edge = d.turn(["x nul", "deux bits", "ligne et colonne nulles", "float16"]) if group == "bords" else ""
    for _ in range(1000):
        bits, damp, rows, width = d.turn([4, 3, 3, 4]), 0.01, d.integer(2, 3), d.integer(5, 6)
        x, w = _correlated(d, d.integer(2, width - 3) if few else 24, width), d.normal(rows, width)
        if few:
            x, damp = 4 * x, d.turn([0.01, 0.3, 0.1])
        elif edge:
            if edge == "ligne et colonne nulles":
                w[d.integer(0, rows - 1)] = 0.0
                x[:, d.integer(1, width - 2)] = 0.0
            if edge == "deux bits":  # de petits poids, arrondis à zéro, poussent le dernier hors des codes
                bits = 2
                for row, sign in ((0, 1.0), (1, -1.0)):
                    small = [d.uniform(0.3, 0.45) for _ in range(width - 1)]
                    w[row] = sign * d.uniform(0.5, 2.0) * torch.tensor([*small, 1.0])
            x = x * 0.0 if edge == "x nul" else x
            w = w.half() if edge == "float16" else d.strided(w)
        elif d.index % 2:
            w, x = w.double(), 0.02 * x.double()  # l'échelle de x ne change rien à ŵ, sauf à qui oublie un diviseur
        position = _gptq_positions(w, x, bits, damp)
        if (np.abs(position - np.floor(position) - 0.5) <= 0.015).any():
            continue
        if _tells(w, x, bits, damp, position, few, edge):
            break
    inputs = {"w": w, "x": x, "bits": bits, "damp": damp}
    if damp == 0.01:
        del inputs["damp"]
        if group == "courant" and bits == 4:
            del inputs["bits"]
    return inputs


def _tells(
    w: torch.Tensor, x: torch.Tensor, bits: int, damp: float, position: np.ndarray, few: bool, edge: str
) -> bool:
    """Ce cas sépare-t-il les fautes que son groupe doit séparer, et elles seules ?"""
    q_max = 2 ** (bits - 1) - 1

    def same(other: np.ndarray) -> bool:
        return np.array_equal(*(np.rint(p).clip(-q_max - 1, q_max) for p in (position, other)))

    if edge == "deux bits" and not _leaves_grid(position):
        return False
    if edge != "deux bits" and not (np.abs(position) < q_max + 0.4).all():
        return False
    if not edge or edge == "float16":
        plain = w.double().numpy()
        wrong = [plain / _row_scale(plain, q_max)]
        wrong += [_gptq_positions(w, x, bits, damp, mistake) for mistake in ("inverse", "erreur")]
        if any(same(p) for p in wrong):
            return False
    if edge == "x nul":
        return True
    damped = [_gptq_positions(w, x, bits, w.shape[1] * damp), _gptq_positions(w, x, bits, damp, absolute=True)]
    if few:
        damped += [_gptq_positions(w, x, bits, 0.01)] if damp != 0.01 else []
        return not any(same(p) for p in damped)
    if edge != "ligne et colonne nulles":  # sans amortissement, H n'y est pas inversible
        damped.append(_gptq_positions(w, x, bits, 0.0))
    return all(same(p) for p in damped)


def _leaves_grid(position: np.ndarray) -> bool:
    """Sur 2 bits : un poids corrigé sort au-dessus du plus grand code, un autre tombe sur le plus petit."""
    return bool((position > 1.5).any() and (position < -1.5).any())


_CHOLESKY = "torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)"
_UPDATE = "        w_hat[:, j + 1 :] -= torch.outer(error, upper[j, j + 1 :])\n"

_GPTQ_WRONG = [
    Misconception(
        "plain_rtn", swap((_UPDATE, "")), "Vous arrondissez chaque colonne sans que les suivantes en sachent rien."
    ),
    Misconception(
        "hessian_not_updated",
        swap((_CHOLESKY, "torch.linalg.inv(hessian)")),
        "Après la première colonne, l'inverse doit être celui des colonnes encore libres.",
    ),
    Misconception(
        "diagonal_of_hinv",
        swap(("/ upper[j, j]", "/ torch.linalg.inv(hessian)[j, j]")),
        "Le diviseur et la ligne que vous étalez ne viennent pas de la même matrice.",
    ),
    Misconception(
        "no_divisor",
        swap((" / upper[j, j]", "")),
        "La correction doit être rapportée à ce que vaut, dans l'inverse, la colonne que vous venez d'arrondir.",
    ),
    Misconception(
        "cholesky_of_h",
        swap((_CHOLESKY, "torch.linalg.cholesky(hessian, upper=True)")),
        "Vous factorisez H : la correction des colonnes libres se lit dans son inverse.",
    ),
    Misconception(
        "sign",
        swap(("] -= torch.outer", "] += torch.outer")),
        "Vos colonnes suivantes aggravent l'erreur au lieu de la compenser.",
    ),
    Misconception(
        "spreads_everywhere",
        swap(
            (_CHOLESKY, "torch.linalg.inv(hessian)"),
            (
                _UPDATE,
                "        others = [k for k in range(w.shape[1]) if k != j]\n"
                "        w_hat[:, others] -= torch.outer(error, upper[j, others])\n",
            ),
        ),
        "Vous corrigez aussi les colonnes déjà arrondies : restent-elles sur la grille ?",
    ),
    Misconception(
        "error_of_original",
        swap(("(column - w_hat[:, j])", "(w[:, j].double() - w_hat[:, j])")),
        "L'erreur d'une colonne se mesure sur la colonne corrigée, pas sur celle du début.",
    ),
    Misconception(
        "right_to_left",
        swap(
            (_CHOLESKY, "torch.linalg.cholesky(torch.linalg.inv(hessian.flip(0, 1)), upper=True).flip(0, 1)"),
            ("for j in range(w.shape[1]):", "for j in reversed(range(w.shape[1])):"),
            (_UPDATE, "        w_hat[:, :j] -= torch.outer(error, upper[j, :j])\n"),
        ),
        "Vous parcourez les colonnes de droite à gauche : l'ordre change le résultat, et l'énoncé le fixe.",
    ),
    Misconception(
        "no_damp",
        swap(("    hessian.diagonal().add_(damp * hessian.diagonal().mean())\n", "")),
        "Avec moins d'exemples que d'entrées, votre matrice n'a pas d'inverse.",
    ),
    Misconception(
        "damp_absolute",
        swap(("damp * hessian.diagonal().mean()", "damp")),
        "Multipliez x par dix : l'effet de votre amortissement change. À quoi devait-il être proportionnel ?",
    ),
    Misconception(
        "damp_ignored",
        swap(("damp * hessian.diagonal().mean()", "0.01 * hessian.diagonal().mean()")),
        "Changez `damp` : votre réponse ne bouge pas.",
    ),
    Misconception(
        "scale_recomputed",
        swap(
            (
                "        column = w_hat[:, j].clone()\n",
                "        column = w_hat[:, j].clone()\n"
                "        peak = w_hat.abs().amax(dim=1)\n"
                "        scale = torch.where(peak > 0, peak / q_max, torch.ones_like(peak))\n",
            )
        ),
        "L'échelle doit être choisie une fois, avant de corriger les colonnes.",
    ),
    Misconception(
        "one_scale",
        swap(("peak = w_hat.abs().amax(dim=1)", "peak = w_hat.abs().amax().expand(len(w))")),
        "Toutes vos lignes ont la même échelle : chaque sortie devait avoir la sienne.",
    ),
    Misconception(
        "symmetric_clamp",
        swap(("clamp(-q_max - 1, q_max)", "clamp(-q_max, q_max)")),
        "Une valeur corrigée peut descendre sous −q_max : vous vous privez du plus petit code.",
    ),
    Misconception(
        "no_clamp",
        swap((".clamp(-q_max - 1, q_max)", "")),
        "Corrigé, un poids peut sortir de la grille : aucun code ne lui correspond plus.",
    ),
    Misconception(
        "truncation",
        swap(("torch.round(column / scale)", "torch.trunc(column / scale)")),
        "Vous tirez chaque poids vers zéro : la correction se bat ensuite contre vous. Couper n'est pas arrondir.",
    ),
    Misconception(
        "zero_row",
        swap(("torch.where(peak > 0, peak / q_max, torch.ones_like(peak))", "peak / q_max")),
        "Une ligne nulle vous donne une échelle nulle, par laquelle vous divisez ensuite.",
    ),
    Misconception(
        "zero_x",
        swap(
            (
                "    if not hessian.any():  # x nul\u00a0: aucune erreur à compenser\n"
                "        hessian = torch.eye(w.shape[1], dtype=torch.float64, device=w.device)\n",
                "",
            )
        ),
        "Quand x est nul, H est nulle, amortissement compris : qu'y a-t-il à compenser dans ce cas ?",
    ),
]

gptq_quantize = Exercise(
    points=4,
    minutes=40,
    stars=3,
    hints=[
        "Un poids arrondi trop haut déplace la sortie. Quels poids pouvez-vous encore bouger pour la ramener ?",
        "Ce qui compte n'est pas l'erreur sur w mais l'erreur sur x·wᵀ : sa dérivée seconde par rapport aux poids "
        "d'une ligne est H, la même pour toutes les lignes.",
        "Avec H⁻¹ = UᵀU, la ligne j de U décrit l'inverse restreint aux colonnes encore libres : rien à recalculer.",
        "e = (w_j − ŵ_j) / U[j, j], puis w_k ← w_k − e · U[j, k] pour tout k > j.",
    ],
    groups={"courant": 0.5, "peu d'exemples": 0.25, "bords": 0.25},
    draw=draw_gptq,
    visible=3,
    examples=[
        {
            "w": torch.tensor([[0.34, 0.32, 0.70], [-0.21, 0.70, 0.13]]),
            "x": torch.tensor([[1.0, 0.9, 0.2], [0.5, 0.6, -1.0], [-1.0, -1.1, 0.3], [0.2, 0.1, 0.8]]),
        }
    ],
    tolerance=Tolerance(rtol=1e-5, atol=1e-6, why="chaque valeur est un entier exact fois une échelle de float32"),
    misconceptions=_GPTQ_WRONG,
)


# --- Quiz -----------------------------------------------------------------------------------------------------------

formats = Quiz(
    "Une activation vaut 70 000. Que devient-elle en FP16, puis en BF16 ?",
    (
        Choice("70 000 dans les deux cas", "FP16 s'arrête à 65 504, et BF16 n'a que 8 bits de précision en tout."),
        Choice(
            "inf en FP16, 70 144 en BF16",
            "FP16 manque d'étendue, BF16 de précision. Vers 70 000, deux BF16 voisins sont distants de 512.",
            correct=True,
        ),
        Choice(
            "70 000 en FP16, inf en BF16",
            "C'est l'inverse : BF16 a les 8 bits d'exposant de FP32, donc la même étendue que lui.",
        ),
        Choice(
            "65 504 en FP16, 70 000 en BF16",
            "Un dépassement donne l'infini, il ne s'arrête pas au plus grand nombre ; et 70 000 demande plus de 8 bits "
            "de mantisse.",
        ),
    ),
)

zero_point = Quiz(
    "Pourquoi veut-on que le réel 0 tombe exactement sur un code ?",
    (
        Choice(
            "Parce que 0 est la valeur moyenne des poids, donc la plus fréquente de toutes",
            "Elle en est proche, mais ce n'est pas la raison : une grille décalée d'un quart de pas représenterait "
            "aussi bien ces poids.",
        ),
        Choice(
            "Parce que les zéros exacts abondent (remplissage, ReLU, masques)",
            "La même petite erreur, répétée à chaque zéro, ne se compense pas, elle s'ajoute.",
            correct=True,
        ),
        Choice(
            "Parce que la division par l'échelle serait sinon impossible",
            "La division ne demande qu'une échelle non nulle ; Z n'y joue aucun rôle.",
        ),
        Choice(
            "Parce que le code 0 doit représenter le réel 0",
            "Ce n'est vrai que de la quantification symétrique : dans l'affine, le réel 0 a le code Z.",
        ),
    ),
)

outliers = Quiz(
    "Un seul poids d'une matrice devient dix fois plus grand que tous les autres. Avec absmax sur 8 bits, que se "
    "passe-t-il ?",
    (
        Choice(
            "Il est tronqué au plus grand code, les autres ne bougent pas",
            "Ce serait le cas si l'échelle restait fixe ; mais c'est justement le maximum qui la choisit.",
        ),
        Choice(
            "Le pas devient dix fois plus grand, et presque tous se partagent une vingtaine de codes",
            "Les 127 crans d'un côté vont jusqu'à lui, et il n'en reste que 12 ou 13 pour les autres.",
            correct=True,
        ),
        Choice(
            "Seule sa propre ligne perd en précision",
            "Ce serait vrai avec une échelle par ligne ; ici une seule échelle sert à toute la matrice.",
        ),
        Choice(
            "Rien de grave : 8 bits suffisent toujours à représenter 256 valeurs différentes de poids",
            "256 codes, oui, mais également espacés jusqu'au maximum : ce qui compte est la longueur d'un pas.",
        ),
    ),
)

per_channel = Quiz(
    "Dans un produit entre entiers, pourquoi donner une échelle à chaque sortie des poids plutôt qu'à chaque entrée ?",
    (
        Choice(
            "Parce qu'il y a moins de sorties que d'entrées",
            "Souvent c'est l'inverse, et cela n'y change rien : regardez ce qui peut sortir de la somme.",
        ),
        Choice(
            "Parce que les entrées ont toutes la même amplitude",
            "Au contraire, quelques entrées sont bien plus grandes que les autres. La raison est dans le calcul.",
        ),
        Choice(
            "La somme porte sur les entrées : l'échelle d'une sortie s'y met en facteur, pas celle d'une entrée",
            "Σₖ xₖ·(s·qₖ) = s·Σₖ xₖ·qₖ. Avec un sₖ par entrée, la somme ne serait plus une somme d'entiers.",
            correct=True,
        ),
        Choice(
            "Parce que PyTorch ne sait pas faire autrement",
            "C'est une limite de l'arithmétique, pas d'une bibliothèque.",
        ),
    ),
)

static_dynamic = Quiz(
    "Quantification dynamique ou statique des activations : qu'est-ce qui change ?",
    (
        Choice(
            "En dynamique, les poids sont requantifiés à chaque appel, pour suivre les activations",
            "Les poids ne changent pas : ils sont quantifiés une fois pour toutes dans les deux cas.",
        ),
        Choice(
            "En statique, les échelles des activations sont fixées d'avance sur des exemples",
            "La statique est plus rapide mais mise sur des exemples représentatifs ; la dynamique s'adapte et "
            "paie un maximum par appel. int8_linear est dynamique.",
            correct=True,
        ),
        Choice(
            "La dynamique demande un nouvel apprentissage, pas la statique",
            "Aucune des deux : c'est la quantification pendant l'apprentissage (QAT) qui en demande un.",
        ),
        Choice(
            "La statique ne quantifie que les poids",
            "Quantifier les seuls poids est un troisième cas (« weight-only ») : les activations y restent réelles.",
        ),
    ),
)

packing = Quiz(
    "Des codes de 4 bits sont gardés dans un tenseur int8, sans autre traitement. Quelle place prennent-ils ?",
    (
        Choice(
            "La moitié de la place de codes de 8 bits",
            "Ce serait vrai s'ils étaient deux par octet ; ici la moitié de chaque octet ne dit rien.",
        ),
        Choice(
            "Autant que des codes de 8 bits",
            "Un élément d'un tenseur int8 occupe un octet, quelle que soit sa valeur. D'où pack_int4.",
            correct=True,
        ),
        Choice(
            "Autant que des réels de 32 bits",
            "Un int8 occupe un octet, quatre fois moins qu'un float32 : c'est déjà cela.",
        ),
        Choice(
            "Cela dépend des valeurs : les petites prennent moins de place",
            "Un tenseur donne la même place à chaque élément ; seul un fichier compressé ferait la différence.",
        ),
    ),
)

int8_speed = Quiz(
    "Les poids sont stockés en int8 mais reconvertis en float32 juste avant chaque produit. Que gagne-t-on ?",
    (
        Choice(
            "De la mémoire seulement ; le calcul, lui, fait un travail de plus",
            "Le produit reste en float32, précédé d'une conversion. Seul un produit entre entiers, ou une mémoire"
            " trop lente pour le calcul, peut rendre du temps.",
            correct=True,
        ),
        Choice(
            "Le produit est quatre fois plus rapide, les nombres étant quatre fois plus petits",
            "Au moment du produit ce sont de nouveau des float32 : rien n'est plus petit.",
        ),
        Choice(
            "Rien du tout, puisque les valeurs redeviennent des réels",
            "Au repos les poids occupent bien quatre fois moins de place, sur le disque comme en mémoire.",
        ),
        Choice(
            "De la précision, car les activations restent réelles",
            "On perd moins qu'en quantifiant aussi les activations, mais on n'en gagne pas par rapport à float32.",
        ),
    ),
)

gptq = Quiz(
    "GPTQ corrige les colonnes situées à droite de celle qu'il vient d'arrondir. Pourquoi pas celles de gauche ?",
    (
        Choice(
            "Parce que leur erreur est déjà nulle",
            "Elles ont bien une erreur d'arrondi : c'est elle que les colonnes suivantes ont tenté de compenser.",
        ),
        Choice(
            "Parce qu'elles sont déjà sur la grille : les déplacer les en ferait sortir",
            "On ne compense qu'avec ce qui est encore libre. C'est aussi pourquoi la dernière colonne garde toute"
            " son erreur.",
            correct=True,
        ),
        Choice(
            "Parce que H est triangulaire",
            "H = 2XᵀX est symétrique ; c'est le facteur de Cholesky de son inverse qui est triangulaire, et il traduit "
            "justement cet ordre.",
        ),
        Choice(
            "Parce que les colonnes de gauche sont moins importantes pour la sortie de la couche",
            "L'ordre est ici celui des colonnes, sans rapport avec leur importance.",
        ),
    ),
)

rtn_66b = Quiz(
    "Table 3 de GPTQ, OPT sur 4 bits : l'arrondi simple donne 110 à 66 milliards de paramètres, contre 10,98 à 30 "
    "milliards et 10,54 à 175. Que peut-on en conclure ?",
    (
        Choice(
            "Plus un modèle est grand, moins il supporte d'être quantifié sur peu de bits",
            "Le modèle de 175 milliards dit le contraire : une case isolée ne fait pas une tendance.",
        ),
        Choice(
            "4 bits ne suffisent pas à ce modèle de 66 milliards",
            "GPTQ le quantifie sur les mêmes 4 bits et obtient 9,55 : l'information y tient.",
        ),
        Choice(
            "L'arrondi simple peut tomber très mal sur un modèle particulier",
            "Arrondir chaque poids au plus près ignore l'effet sur les sorties. Sur le même modèle et la même "
            "grille, GPTQ reste près du modèle d'origine.",
            correct=True,
        ),
        Choice(
            "C'est une faute de frappe, on peut l'ignorer",
            "La case est bien dans l'article : on ne l'écarte pas sans raison, on cherche ce qu'elle dit.",
        ),
    ),
)
