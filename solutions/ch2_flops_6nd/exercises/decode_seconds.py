"""Exercice `decode_seconds` du chapitre 2."""

from __future__ import annotations

from fractions import Fraction

import torch

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import ROUNDING

CARDS = [(1.25e14, 9.0e11), (3.12e14, 2.039e12), (9.89e14, 3.35e12)]
"""Pointe en FLOP/s et débit en octets/s : V100, A100, H100."""


def draw_decode(d: Draw, group: str) -> Inputs:
    """Tour à tour, la mémoire puis le calcul décident ; jamais de près."""
    peak, bandwidth = d.choice(CARDS)
    n_params, bytes_per_param = d.integer(10**9, 10**11), d.choice([1, 2, 4])
    balance = peak * bytes_per_param / (2 * bandwidth)  # le lot où calcul et lecture des poids durent autant
    cache = {"n_ctx": d.integer(512, 4096), "kv_bytes_per_token": d.integer(40_000, 400_000)}
    few = {"batch": d.integer(3, max(4, int(balance / 6)))}
    inputs = {"n_params": n_params, "batch": 1, **cache, "bytes_per_param": bytes_per_param}
    inputs |= {"peak_flops": peak, "bandwidth": bandwidth}
    if group == "bords":
        return inputs | d.turn(
            [
                {"n_ctx": 0, **few},
                {"batch": 1, "n_ctx": 100_000},
                {"bytes_per_param": 0.5, "batch": d.integer(3, 5)},
                {"n_params": d.integer(10**8, 10**9), "n_ctx": 100_000, **few},
            ]
        )
    if d.index % 2 == 0:
        return inputs | few
    batch = int(balance * d.uniform(4, 8))
    per_sequence = 0.2 * 2 * n_params / peak * bandwidth  # ce que la lecture du cache peut prendre sans décider
    return inputs | {"batch": batch, "kv_bytes_per_token": max(1, int(per_sequence / cache["n_ctx"]))}


def _small(batch: int, n_ctx: int, kv_bytes_per_token: int) -> Inputs:
    return {
        "n_params": 1000, "batch": batch, "n_ctx": n_ctx, "kv_bytes_per_token": kv_bytes_per_token,
        "bytes_per_param": 2, "peak_flops": 1000.0, "bandwidth": 100.0,
    }  # fmt: skip


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "Deux durées à calculer : celle des multiplications, comme si la mémoire était instantanée ; celle des "
        "lectures, comme si le calcul l'était.",
        "Que lit-on une seule fois pour tout le lot, et que lit-on une fois pour chacune de ses suites ?",
        "La machine calcule pendant qu'elle lit : quand les deux ont-elles fini ?",
    ],
    groups={"courant": 0.7, "bords": 0.3},
    draw=draw_decode,
    visible=4,
    probe="call_float",
    tolerance=ROUNDING,
    examples=[_small(1, 0, 5), _small(20, 10, 5), _small(4, 100, 10)],
)


misconceptions = """\
summed   return max(compute, (weights + cache) / bandwidth) → return compute + (weights + cache) / bandwidth
    Vous ajoutez les deux durées : la machine attend-elle d'avoir tout lu pour commencer à calculer ?

fastest   return max(compute, (weights + cache) / bandwidth) → return min(compute, (weights + cache) / bandwidth)
    Vous gardez la plus courte des deux durées : le pas est-il fini quand l'autre ne l'est pas ?

compute_only   return max(compute, (weights + cache) / bandwidth) → return compute
    Vous ne comptez que les multiplications : avec une seule suite, qu'attend la machine ?

memory_only   return max(compute, (weights + cache) / bandwidth) → return (weights + cache) / bandwidth
    Vous ne comptez que les lectures : avec mille suites à la fois, que devient le calcul ?

weights_per_sequence   weights = n_params * bytes_per_param → weights = batch * n_params * bytes_per_param
    Vous relisez les poids pour chaque suite du lot : une fois lus, à combien de suites peuvent-ils servir ?

one_cache   cache = batch * n_ctx * kv_bytes_per_token → cache = n_ctx * kv_bytes_per_token
    Toutes vos suites partagent un même cache : chacune a pourtant ses propres clés et ses propres valeurs.

no_cache   cache = batch * n_ctx * kv_bytes_per_token → cache = 0
    Allongez le contexte : votre durée ne bouge pas. Que relit un jeton de tous ceux qui le précèdent ?

one_token_cache   cache = batch * n_ctx * kv_bytes_per_token → cache = batch * kv_bytes_per_token
    Vous ne lisez du cache que le dernier jeton : l'attention regarde tous ceux du contexte.

weights_in_bits   weights = n_params * bytes_per_param → weights = n_params * bytes_per_param / 8
    bytes_per_param est déjà en octets : vous le divisez encore par 8.

bandwidth_in_bits   (weights + cache) / bandwidth → 8 * (weights + cache) / bandwidth
    Le débit est en octets par seconde : vous comptez des bits.

macs   compute = 2 * n_params * batch / peak_flops → compute = n_params * batch / peak_flops
    Une multiplication-addition fait deux opérations, ici comme dans matmul_flops.

training   compute = 2 * n_params * batch / peak_flops → compute = 6 * n_params * batch / peak_flops
    Vous comptez un passage arrière : écrire un jeton n'en demande pas.

per_token   return max(compute, (weights + cache) / bandwidth)
    → return max(compute, (weights + cache) / bandwidth) / batch
    C'est la durée d'un pas partagée entre les suites : l'énoncé demande celle du pas entier.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def decode_by_hand(n_params, batch, n_ctx, kv_bytes_per_token, bytes_per_param, peak_flops, bandwidth):
    seconds_of_compute = batch * (2 * n_params) / peak_flops
    seconds_of_reading = n_params * bytes_per_param / bandwidth + batch * (n_ctx * kv_bytes_per_token / bandwidth)
    if seconds_of_compute > seconds_of_reading:
        return seconds_of_compute
    return seconds_of_reading


def decode_tensor(n_params, batch, n_ctx, kv_bytes_per_token, bytes_per_param, peak_flops, bandwidth):
    read = n_params * bytes_per_param + batch * n_ctx * kv_bytes_per_token
    work = torch.tensor([2.0 * n_params * batch, read], dtype=torch.float64)
    return (work / torch.tensor([peak_flops, bandwidth], dtype=torch.float64)).max()


def decode_fraction(n_params, batch, n_ctx, kv_bytes_per_token, bytes_per_param, peak_flops, bandwidth):
    read = n_params * Fraction(bytes_per_param) + batch * n_ctx * kv_bytes_per_token
    return float(max(Fraction(2 * n_params * batch) / Fraction(peak_flops), read / Fraction(bandwidth)))


def decode_by_intensity(n_params, batch, n_ctx, kv_bytes_per_token, bytes_per_param, peak_flops, bandwidth):
    """Par l'intensité : les opérations par octet lu, contre celles que la machine sait faire pendant qu'elle le lit."""
    flops = 2 * n_params * batch
    read = n_params * bytes_per_param + batch * n_ctx * kv_bytes_per_token
    reached = peak_flops if flops / read >= peak_flops / bandwidth else flops / read * bandwidth
    return flops / reached


styles = [decode_by_hand, decode_tensor, decode_fraction, decode_by_intensity]
