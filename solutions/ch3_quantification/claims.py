"""Les affirmations du chapitre 3, sur les résultats enregistrés. Les écarts de pertes sont en nats par jeton."""

from __future__ import annotations

from statistics import mean, median

from atelier.evidence import paired, perplexity_of
from atelier.figures.ch3.gptq import BLOOM, OPT

ONE_PERCENT = 0.00995  # ln 1,01 : un pour cent de perplexité


# --- 3.3 : les formats flottants --------------------------------------------------------------------------------------


def sums_come_closest_to_overflow(results):
    """Rien ne déborde ; les sommes de carrés approchent du plafond, à moins de deux fois, loin devant le reste."""
    census = results("half_census")
    sums = census["sommes de carrés d'un LayerNorm"]["plus grande"]
    others = [row["plus grande"] for kind, row in census.items() if kind != "sommes de carrés d'un LayerNorm"]
    return all(row["débordent"] == 0 for row in census.values()) and 65504 / 2 < sums and max(others) < sums / 100


def bf16_errs_eight_times_more(results):
    """Huit fois l'erreur relative médiane de FP16, pour les poids et les activations."""
    census = results("half_census")
    return all(7 < census[k]["erreur BF16"] / census[k]["erreur FP16"] < 9 for k in ("poids", "entrées des couches"))


def fp16_zeroes_some_gradients(results):
    census = results("half_census")
    return census["gradients des poids"]["annulées"] > 0.001 and census["poids"]["annulées"] == 0


def sixteen_bits_are_enough(results):
    found = results("float_formats")
    gaps = [paired(found[name], found["FP32"]) for name in ("FP16", "BF16")]
    return all(-0.001 < gap.low and gap.high < 0.001 or not gap.told_apart for gap in gaps)


def eight_float_bits_cost_a_few_percent(results):
    found = results("float_formats")
    gaps = [paired(found[name], found["FP32"]) for name in ("E4M3, tel quel", "E4M3, étiré à 448")]
    return all(0.01 < gap.low and gap.high < 0.06 for gap in gaps)


def stretching_e4m3_cannot_be_told_apart(results):
    found = results("float_formats")
    return not paired(found["E4M3, étiré à 448"], found["E4M3, tel quel"]).told_apart


# --- 3.5 et 3.6 : les grilles -----------------------------------------------------------------------------------------


def fitting_pays_off_center(results):
    """Un bit vaut 6,02 dB : l'intervalle le contient à la sortie de la GELU ; ailleurs, moins d'un quart de bit."""
    found = results("fitted_or_symmetric")

    def gain(what):
        return paired(found[f"{what}, grille ajustée"], found[f"{what}, grille symétrique"])

    gelu = gain("sortie de la GELU")
    others = [gain(what) for what in ("entrée de Q, K, V", "poids de Q, K, V")]
    return 4.5 < gelu.low < 6.02 < gelu.high < 7.5 and all(other.high < 6.02 / 4 for other in others)


def full_range_pays_when_codes_are_few(results):
    found = results("full_range_or_not")
    gaps = {b: paired(found["diapositive", b], found["restreinte", b]) for b in (8, 4, 3, 2)}
    return gaps[8].high < 0.1 and all(gaps[b].low > 0.9 and gaps[b].high < 2.4 for b in (4, 3, 2))


def six_decibels_a_bit(results):
    """À partir de 5 bits, de 5,9 à 6,7 dB par bit ; à 3 et 4 bits, la moyenne est sous la droite calée sur 12 bits."""
    found = {b: mean(values) for b, values in results("six_db_per_bit").items()}
    below = {b: found[12] - 6.0206 * (12 - b) - found[b] for b in (3, 4)}
    return all(5.9 < found[b + 1] - found[b] < 6.7 for b in range(5, 12)) and all(0.5 < v < 3 for v in below.values())


def some_components_stand_out(results):
    return all(peaks[0] > 2 * peaks.median() for peaks in results("component_peaks").values())


# --- 3.7 : une échelle pour combien de poids --------------------------------------------------------------------------


def eight_bits_cost_less_than_one_percent(results):
    found = results("rtn_sweep")
    return all(paired(found["RTN", g, 8], found["FP32"]).high < ONE_PERCENT for g in ("tenseur", "canal", "groupe"))


def grain_matters_when_bits_are_few(results):
    """À 4, 3 et 2 bits, plus l'échelle est fine, plus la perte est basse ; par tenseur, à 4 bits, plus de dix fois."""
    found = results("rtn_sweep")
    finer = [("tenseur", "canal"), ("canal", "groupe")]
    ordered = all(paired(found["RTN", a, b], found["RTN", c, b]).low > 0 for a, c in finer for b in (4, 3, 2))
    return ordered and perplexity_of(found["RTN", "tenseur", 4]) > 10 * perplexity_of(found["FP32"])


# --- 3.8 : les bibliothèques ------------------------------------------------------------------------------------------


def libraries_use_three_scales(results):
    found = results("library_scales")
    divisors = {round(row["max|w| / S"], 1) for row in found.values()}
    changed = [row["autres codes que la forme restreinte"] for row in found.values()]
    libraries = {name.partition(",")[0] for name in found} - {"vous"}
    return divisors == {127, 127.5, 128} and max(changed) > 0 and libraries == {"torch.ao", "torchao", "onnxruntime"}


# --- 3.9 : un produit entre entiers -----------------------------------------------------------------------------------


def activations_cost_more_than_weights(results):
    """Sur chaque couche, le dynamique perd sur les poids seuls ; le statique perd sur le dynamique, en moyenne."""
    found = list(results("w8a8_errors").values())
    every = all(row["poids seuls"] > row["dynamique"] for row in found)
    return every and paired([row["dynamique"] for row in found], [row["statique"] for row in found]).low > 0


def w8a8_hardly_moves_perplexity(results):
    gap = paired(results("row_int8")["losses"], results("row_fp32")["losses"])
    return max(abs(gap.low), abs(gap.high)) < ONE_PERCENT


def own_product_is_slower_than_fp32(results):
    """L'int8_linear de l'auteur, sur la machine de l'auteur ; un vrai noyau int8, lui, y va plus vite que fp32."""
    own, times = results("own_product"), results("kernel_times")
    kernel = min(median(v) for (size, n, name), v in times.items() if n == 512 and size == "small" and "int8" in name)
    return min(own["vous"]) > max(own["fp32"]) and kernel < median(times["small", 512, "fp32"])


# --- 3.10 : les octets ------------------------------------------------------------------------------------------------


def the_file_is_less_than_eight_times_smaller(results):
    found = results("file_sizes")["fichiers"]
    small = found["codes 4 bits, deux par octet"]
    return found["FP32"]["octets"] < 8 * small["octets"] and small["linéaires"] < small["octets"] / 2


def tables_weigh_little_in_gpt3(results):
    """Dans Colibri, plus de la moitié du fichier ; dans GPT-3, sur 4 bits, moins de 2 %, tables en FP16 comprises."""
    found = results("file_sizes")["fichiers"]["codes 4 bits, deux par octet"]
    tables, linear = (50257 + 2048) * 12288, 96 * 12 * 12288**2
    return found["linéaires"] < found["octets"] / 2 and 2 * tables < 0.02 * (2 * tables + linear / 2)


# --- 3.11 et 3.12 : GPTQ ----------------------------------------------------------------------------------------------


def the_second_weight_makes_up(results):
    errors = results("two_weights")["erreurs"]
    return (errors["rattrapé"].sum() < errors["près"].sum()).item()


def gptq_trades_weights_for_outputs(results):
    """Sur les poids, GPTQ perd partout ; sur la sortie, il gagne, sauf à la sortie du MLP des blocs 1 à 4."""
    found = results("gptq_layer_errors")
    layers = {name for name, _, _ in found}
    lost = {name for name in layers if found[name, "GPTQ", "sortie"] > found[name, "RTN", "sortie"]}
    weights = all(found[name, "GPTQ", "poids"] > found[name, "RTN", "poids"] for name in layers)
    return len(layers) == 20 and weights and lost == {f"{block}.mlp.c_proj" for block in (1, 2, 3, 4)}


def gptq_beats_rtn_below_8_bits(results):
    rtn, gptq = results("rtn_sweep"), results("gptq_sweep")
    gaps = {(g, b): paired(gptq["GPTQ", g, b], rtn["RTN", g, b]) for g in ("canal", "groupe") for b in (8, 4, 3, 2)}
    return all(gap.high < 0 if b < 8 else abs(gap.mean) < 0.001 for (_, b), gap in gaps.items())


def rtn_collapses_in_opt_only(results):
    """× 10 ou plus : huit OPT sur neuf, un BLOOM sur six (176B) ; les autres BLOOM et Colibri, moins de dix."""

    def ratios(family):
        return [float(q) / float(full) for q, full in zip(family["RTN 3"], family["full"], strict=True)]

    found = results("rtn_sweep")
    ours = perplexity_of(found["RTN", "canal", 3]) / perplexity_of(found["FP32"])
    return sum(r > 10 for r in ratios(OPT)) == 8 and max(ratios(BLOOM)[:-1]) < 10 < ratios(BLOOM)[-1] and ours < 10
