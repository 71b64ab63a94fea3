"""Les affirmations du chapitre 2, sur les résultats enregistrés. Les pertes sont en nats par jeton."""

from __future__ import annotations

import itertools
from statistics import median

from atelier.evidence import paired
from atelier.figures.ch2.budget import best_sizes
from atelier.figures.ch2.curves import interval_of
from atelier.figures.ch2.study import CONTEXT, VOCABULARY
from atelier.figures.ch2.tools import study_points

# --- 2.1 à 2.4 : compter ----------------------------------------------------------------------------------------------


def the_formula_is_exact(results):
    """Aucun écart avec le compteur de PyTorch ; un jeton de Colibri, de 2 à 2,5 opérations par paramètre."""
    rows = [*results("product_counts").values(), *results("forward_counts").values()]
    ours = results("forward_counts")["Colibri"]
    return all(r["vous"] == r["FlopCounterMode"] for r in rows) and 2 < ours["par jeton"] / ours["paramètres"] < 2.5


def the_head_vanishes(results):
    found = results("flop_shares")
    share = {name: terms["tête"] / sum(terms.values()) for name, terms in found.items()}
    return share["Colibri"] > 0.2 and share["GPT-3"] < 0.01


def backward_is_two_forwards(results):
    found = results("backward_counts")
    return all(found["arrière"][kind] == 2 * n for kind, n in found["avant"].items())


def freezing_spares_only_a_part(results):
    """Cinq produits quand tout apprend ; trois pour la couche du bas seule, un pour celle du haut seule."""
    back = {name: pair[1] for name, pair in results("backward_cases").items()}
    kinds = (
        "tout apprend, l'entrée est une donnée",
        "seule la couche du bas apprend",
        "seule la couche du haut apprend",
    )
    return [back[name] for name in kinds] == [5, 3, 1]


def the_rule_is_for_large_models(results):
    gap = {name: 1 - row["6·N′"] / row["compte exact"] for name, row in results("convention_counts").items()}
    return 1 / 3 < gap["Colibri"] < 0.4 and 0.025 < gap["GPT-3"] < 0.035 and min(gap, key=gap.get) == "GPT-3"


# --- 2.5 à 2.7 : secondes et octets -----------------------------------------------------------------------------------


def large_tensors_read_slower(results):
    """Le plus grand tenseur se lit à moins des trois quarts du meilleur débit."""
    found = [median(v) for v in results("reading_speeds").values()]
    return found[-1] < 0.75 * max(found)


def small_products_are_far_from_the_peak(results):
    """En float32, à côté 64, moins de la moitié de la pointe."""
    found = {key: median(v) for key, v in results("product_speeds").items()}
    peak = max(v for (name, _), v in found.items() if name == "float32")
    return found["float32", 64] < 0.5 * peak


def sixteen_bytes_a_parameter(results):
    found = results("training_memory")
    return abs(sum(found["octets"].values()) / found["paramètres"] - 16) < 0.01


def the_roof_is_a_bound(results):
    """Jamais moins de 0,8 fois la prévision ; moins du double avec un jeton ; 64 jetons : moins de 32 fois un seul."""
    found = results("roofline")
    measured = {n: median(v) for n, v in found["mesuré"].items()}
    ratio = {n: v / found["prédit"][n] for n, v in measured.items()}
    middle = max(ratio[n] for n in (2, 4, 8, 16))
    return min(ratio.values()) > 0.8 and ratio[1] < 2 and middle > ratio[1] and measured[64] < 32 * measured[1]


def caches_outweigh_weights(results):
    """Huit suites de 1 024 jetons : plus d'octets de cache que de poids, et plus de temps qu'avec 64 jetons."""
    found = {key: median(v) for key, v in results("decode_with_cache")["mesuré"].items()}
    cache, weights = 8 * 1024 * 2 * 12 * 768 * 4, 4 * results("roofline")["paramètres"]
    return cache > weights and found[8, 1024] > 1.2 * found[8, 64] and found[1, 1024] > found[1, 64]


def eager_attention_keeps_its_tables(results):
    """Par jeton : « sdpa » garde autant à tout contexte, « eager » davantage quand il s'allonge ; le lot multiplie."""
    found = {key: size / key[1] / key[2] for key, size in results("saved_activations").items()}
    flat = [v for (how, _, _), v in found.items() if how == "sdpa"]
    batch = [found[how, 4, t] / found[how, 1, t] for how in ("eager", "sdpa") for t in (32, 64, 128, 256)]
    grown = found["eager", 4, 256] / found["eager", 4, 32]
    return max(flat) < 1.01 * min(flat) and grown > 1.1 and all(abs(r - 1) < 0.01 for r in batch)


def narayanan_in_our_units(results):
    """34 jours à 8ND et 140 TFLOP/s par carte ; en 6ND, 34 % de la pointe."""
    n, d = 175e9, 300e9
    return abs(8 * n * d / (1024 * 140e12) / 86400 - 34) < 0.5 and abs(140 / 312 * 6 / 8 - 0.34) < 0.005


def patterson_is_four_times_ours(results):
    bill = results("gpt3_bill")
    ours = bill["jours"] * 24 * bill["cartes"] * bill["watts"] * bill["salle"] / 1e6
    return 3.5 < 1287 / ours < 4.5


# --- 2.8 : un budget --------------------------------------------------------------------------------------------------


def only_active_parameters_fit(results):
    found = results("mixture_of_experts")
    return 5.9 < found["les paramètres en tout"]["MFU"] < 6.1 and 0.3 < found["les paramètres actifs"]["MFU"] < 0.36


def small_batches_want_small_models(results):
    """Le creux recule avec le lot ; 256 vaut 2N par jeton ; un par un, servir coûte plus de cent fois plus."""
    found = results("lifetime")
    sizes = best_sizes(found)
    order = [sizes[use] for use in ("rien à servir", "par lots de 256", "par lots de 16", "par lots de 1")]
    nothing, many, one = (found[use][0][2] for use in ("rien à servir", "par lots de 256", "par lots de 1"))
    same = all(
        abs(a[2] / b[2] - 1) < 1e-9 for a, b in zip(found["2N par jeton servi"], found["par lots de 256"], strict=True)
    )
    return all(a > b for a, b in itertools.pairwise(order)) and same and one - nothing > 100 * (many - nothing)


# --- 2.9 : l'étude d'échelle ------------------------------------------------------------------------------------------


def the_small_one_wins_when_compute_is_scarce(results):
    """Un bloc de dimension 8 contre deux de 32, aux mêmes graines, cinq."""
    found = results("small_study")
    seeds = sorted({seed for *_, seed in found})
    small, large = ([found[*size, seed]["perte"] for seed in seeds] for size in ((1, 8), (2, 32)))
    return paired(small, large).high < 0 and max(a - b for a, b in zip(small, large, strict=True)) < 0


def the_valley_moves_right(results):
    bests = [min(study_points(series), key=lambda p: p["loss"])["params"] for series in ("c1", "c2", "c3")]
    return bests == sorted(set(bests))


def the_law_holds_near_and_misses_far(results):
    points = results("power_law")["points"]
    gap = {name: p["perte"] - p["prédite"] for name, p in points.items()}
    return abs(gap["meilleur, budget 3, tenu à l'écart"]) < 0.1 and gap["Colibri, autre recette"] < -0.5


def one_study_two_exponents(results):
    """0,47 et 0,96 ; les deux intervalles sont disjoints, et presque tous les tirages gardent leurs creux."""
    found = results("two_conventions")
    kept = {name: [v for v in row["tirages"] if v is not None] for name, row in found.items()}
    everything, blocks = (interval_of(kept[name]) for name in ("tous les paramètres", "hors table et positions"))
    rounded = [round(row["exposant"], 2) for row in found.values()]
    return rounded == [0.47, 0.96] and everything[1] < blocks[0] and len(kept["tous les paramètres"]) > 0.9 * 2000


def seventeen_points_are_not_enough(results):
    """L'intervalle de l'exposant contient 0,50 et 0,73 ; celui de chaque constante va du simple au double, ou plus."""
    draws = results("chinchilla_fit")["tirages"]
    low, high = interval_of(draws["exposant de N"])
    wide = [interval_of(draws[name]) for name in ("E", "α", "β")]
    return low < 0.5 and 0.73 < high and all(high > 2 * low for low, high in wide)


def the_table_is_most_of_a_small_model(results):
    bests = [min(study_points(series), key=lambda p: p["loss"]) for series in ("c1", "c2", "c3")]
    shares = [(VOCABULARY + CONTEXT) * p["d_model"] / p["params"] for p in bests]
    return 0.69 < min(shares) and max(shares) < 0.96
