"""Exercice `training_days` du chapitre 2."""

from __future__ import annotations

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import ROUNDING


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


exercise = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Une durée est un travail divisé par une vitesse. Quel est le travail ?",
        "La vitesse réelle : toutes les cartes, chacune à sa vitesse de pointe, et de celle-ci la part mfu seulement.",
        "Ce quotient est en secondes. Combien un jour en compte-t-il ?",
    ],
    groups={"courant": 0.7, "bords": 0.2, "refus": 0.1},
    draw=draw_days,
    visible=4,
    probe="call_float",
    tolerance=ROUNDING,
    examples=[{"n_params": 10**9, "n_tokens": 2 * 10**10, "n_gpus": 8, "peak_flops": 3.12e14, "mfu": 0.4}],
)


misconceptions = """\
mfu_multiplied   return flops / rate / 86400 → return flops * mfu / (n_gpus * peak_flops) / 86400
    Une moins bonne utilisation des cartes raccourcit votre apprentissage ?

mfu_ignored   rate = n_gpus * peak_flops * mfu → rate = n_gpus * peak_flops
    Vos cartes tournent toujours à leur vitesse de pointe : à quoi sert mfu ?

hours   86400 → 3600
    Votre nombre est juste dans une autre unité : ce sont des heures.

seconds   / 86400 → ∅
    Votre nombre est juste dans une autre unité : ce sont des secondes.

one_hour_days   86400 → 24
    Vous divisez des secondes par 24 : combien de secondes dans un jour ?

gpus_ignored   rate = n_gpus * peak_flops * mfu → rate = peak_flops * mfu
    Avec mille cartes ou une seule, votre durée est la même.

gpus_multiplied   return flops / rate / 86400 → return flops * n_gpus / (peak_flops * mfu) / 86400
    Chez vous, ajouter des cartes allonge l'apprentissage : c'est la durée, ou le total des heures de carte ?

percent   rate = n_gpus * peak_flops * mfu → rate = n_gpus * peak_flops * mfu / 100
    mfu est une fraction, pas un pourcentage.

forward_only   flops = 6 * n_params * n_tokens → flops = 2 * n_params * n_tokens
    Vous ne payez que le passage avant : l'apprentissage en demande trois fois plus.

no_check   if not 0 < mfu <= 1: → if mfu == 0:
    Une utilisation de 40, ou négative, est impossible : l'énoncé demande de la refuser.

no_upper_check   if not 0 < mfu <= 1: → if not 0 < mfu:
    Une carte ne dépasse pas sa vitesse de pointe : qui vous donne 40 pense sans doute à un pourcentage.

no_lower_check   if not 0 < mfu <= 1: → if mfu > 1:
    À utilisation nulle ou négative, l'apprentissage ne finit jamais : l'énoncé demande de la refuser.

one_refused   if not 0 < mfu <= 1: → if not 0 < mfu < 1:
    Une utilisation de 1 est un idéal, mais elle est permise.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def days_seconds_first(n_params, n_tokens, n_gpus, peak_flops, mfu):
    if mfu <= 0 or mfu > 1:
        raise ValueError("mfu")
    seconds = 6 * n_params * n_tokens / (n_gpus * (peak_flops * mfu))
    return seconds / (24 * 60 * 60)


def days_token_rate(n_params, n_tokens, n_gpus, peak_flops, mfu):
    if not 0.0 < mfu <= 1.0:
        raise ValueError("mfu")
    tokens_per_day = mfu * peak_flops * n_gpus / (6.0 * n_params) * 86_400
    return n_tokens / tokens_per_day


def days_gpu_days(n_params, n_tokens, n_gpus, peak_flops, mfu):
    if not (mfu > 0 and mfu <= 1):
        raise ValueError("mfu")
    gpu_days = (2 + 4) * float(n_params) * float(n_tokens) / peak_flops / mfu / 3600 / 24
    return gpu_days / n_gpus


styles = [days_seconds_first, days_token_rate, days_gpu_days]
