"""Exercice `decode_float` du chapitre 3."""

from __future__ import annotations

import math
from fractions import Fraction

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

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


exercise = Exercise(
    points=3,
    minutes=15,
    stars=2,
    hints=[
        "Écrivez le motif de 1,0 en FP16 : que valent son exposant écrit et sa fraction ?",
        "Un décalage vers la droite et un ET binaire isolent chacun des trois champs. Lesquels des exposants écrits "
        "ont un sens à part ?",
        "La formule de la diapositive vaut pour un nombre normal, à son décalage près. Que devient le 1 dans un "
        "sous-normal, et quel exposant y remplace celui qui est écrit ?",
        "Restent les exposants écrits tout en 1 : deux cas, selon la fraction. Lequel des deux E4M3 garde-t-il, et "
        "pour quelle seule fraction ?",
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
)


misconceptions = """\
no_implicit_one   (1 + fraction / 2**fraction_bits) → (fraction / 2**fraction_bits)
    Vos nombres normaux sont trop petits, et les puissances de deux valent zéro : quel bit de la mantisse n'est
    jamais écrit ?

bias_2e   bias = 2 ** (exponent_bits - 1) - 1 → bias = 2 ** (exponent_bits - 1)
    Votre décalage d'exposant n'est pas celui de ce format : que donne chez vous le motif de 1,0 ?

bias_127   bias = 2 ** (exponent_bits - 1) - 1 → bias = 127
    127 est le décalage de FP32 et de BF16 : de quoi dépend-il quand l'exposant a 5 ou 4 bits ?

no_bias   bias = 2 ** (exponent_bits - 1) - 1 → bias = 0
    L'exposant écrit n'est jamais négatif : comment un format note-t-il alors les nombres plus petits que 1 ?

no_subnormals   if exponent == 0: → if exponent == 0 and fraction == 0:
    Près de zéro, l'exposant nul a un sens à part : ces nombres n'ont pas de 1 caché.

flush_to_zero   return sign * fraction / 2**fraction_bits * 2.0 ** (1 - bias) → return sign * 0.0
    Un exposant écrit nul ne veut pas dire que le nombre est nul : à quoi sert alors sa fraction ?

subnormal_exponent   2.0 ** (1 - bias) → 2.0 ** (-bias)
    Le plus grand sous-normal doit toucher le plus petit normal : chez vous il y a un saut.

e4m3_ieee   if (exponent_bits, fraction_bits) != (4, 3): → if True:
    E4M3 n'a pas d'infini : que fait-il des motifs que l'IEEE réserverait à l'infini et aux nan ?

e4m3_no_nan   if fraction == 2**fraction_bits - 1: → if False:
    En E4M3 le plus grand nombre est 448 : qu'est devenu le motif suivant ?

fp8_no_infinity   (exponent_bits, fraction_bits) != (4, 3) → exponent_bits + fraction_bits != 7
    Tous les formats de 8 bits ne suivent pas la règle d'E4M3 : E5M2, par exemple, garde ses infinis.

no_infinity   if (exponent_bits, fraction_bits) != (4, 3): → if False:
    Vous appliquez à tous les formats la règle d'E4M3 : dans l'IEEE, un exposant tout en 1 est réservé.

nan_is_inf   math.nan if fraction else sign * math.inf → sign * math.inf
    Un exposant tout en 1 a deux sens : qui décide entre l'infini et « pas un nombre » ?

sign_ignored   sign = -1.0 if (bits >> (exponent_bits + fraction_bits)) & 1 else 1.0 → sign = 1.0
    Vous ne rendez jamais de négatif : à quoi sert le bit le plus à gauche ?

negative_zero
    - if exponent == 0:
    + if exponent == fraction == 0:
    +     return 0.0
    + if exponent == 0:
    Zéro a un signe : deux motifs différents le représentent, et ils ne sont pas le même nombre.

infinity_unsigned   sign * math.inf → math.inf
    L'infini a un signe, comme tous les autres nombres du format.

fraction_denominator   fraction / 2**fraction_bits → fraction / (2**fraction_bits - 1)
    Une fraction toute en 1 reste plus petite que 1 : que vaut son premier bit, un demi ou un peu plus ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def decode_text(bits, exponent_bits, fraction_bits):
    text = format(bits, f"0{1 + exponent_bits + fraction_bits}b")
    sign, exponent, fraction = text[0], text[1 : 1 + exponent_bits], text[1 + exponent_bits :]
    ieee = (exponent_bits, fraction_bits) != (4, 3)
    if "0" not in exponent and (ieee or "0" not in fraction):
        value = math.nan if "1" in fraction else math.inf
    else:
        value, weight = (0.0 if "1" not in exponent else 1.0), 0.5
        for bit in fraction:
            value += weight * (bit == "1")
            weight /= 2
        value *= 2.0 ** (max(int(exponent, 2), 1) - (2 ** (exponent_bits - 1) - 1))
    return -value if sign == "1" else value


def decode_exact(bits, exponent_bits, fraction_bits):
    bits, fraction = divmod(bits, 1 << fraction_bits)
    sign, exponent = divmod(bits, 1 << exponent_bits)
    bias = (1 << exponent_bits - 1) - 1
    if exponent == (1 << exponent_bits) - 1 and (exponent_bits, fraction_bits) != (4, 3):
        magnitude = float("nan") if fraction else float("inf")
    elif (exponent_bits, fraction_bits, exponent, fraction) == (4, 3, 15, 7):
        return float("nan")
    else:
        mantissa = Fraction(fraction, 1 << fraction_bits) + (1 if exponent else 0)
        magnitude = float(mantissa * Fraction(2) ** (max(exponent, 1) - bias))
    return math.copysign(magnitude, -1.0 if sign else 1.0)


def decode_ldexp(bits, exponent_bits, fraction_bits):
    e = (bits >> fraction_bits) % 2**exponent_bits
    f = bits % 2**fraction_bits
    if e == 2**exponent_bits - 1:
        if (exponent_bits, fraction_bits) == (4, 3):
            if f == 7:
                return math.nan
        else:
            return math.nan if f else (-1) ** (bits >> exponent_bits + fraction_bits) * math.inf
    whole = f + (2**fraction_bits if e else 0)
    return (-1.0) ** (bits >> exponent_bits + fraction_bits) * math.ldexp(
        whole, max(e, 1) - 2 ** (exponent_bits - 1) + 1 - fraction_bits
    )


def decode_views(bits, exponent_bits, fraction_bits):
    known = {
        (8, 23): (torch.int32, torch.float32),
        (5, 10): (torch.int16, torch.float16),
        (8, 7): (torch.int16, torch.bfloat16),
        (4, 3): (torch.int8, torch.float8_e4m3fn),
    }
    if (exponent_bits, fraction_bits) not in known:
        return decode_exact(bits, exponent_bits, fraction_bits)
    whole, real = known[exponent_bits, fraction_bits]
    width = 1 + exponent_bits + fraction_bits
    signed = bits - 2**width if bits >= 2 ** (width - 1) else bits
    return torch.tensor(signed, dtype=whole).view(real).double().item()


styles = [decode_text, decode_exact, decode_ldexp, decode_views]
