"""Les affirmations du chapitre 3, sur les résultats enregistrés. Les écarts de pertes sont en nats par jeton."""

from __future__ import annotations

from math import log
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
    found = results("float_formats")["pertes"]
    gaps = [paired(found[name], found["FP32"]) for name in ("FP16", "BF16")]
    return all(-0.001 < gap.low and gap.high < 0.001 or not gap.told_apart for gap in gaps)


def eight_float_bits_cost_a_few_percent(results):
    found = results("float_formats")["pertes"]
    gaps = [paired(found[name], found["FP32"]) for name in ("E4M3, tel quel", "E4M3, étiré à 448")]
    return all(0.01 < gap.low and gap.high < 0.06 for gap in gaps)


def stretching_e4m3_cannot_be_told_apart(results):
    found = results("float_formats")["pertes"]
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


def _from_the_line(results, form):
    """Écart du SQNR moyen à la droite des 6,02 dB par bit, calée sur 12 bits, forme de la diapositive : bits → dB."""
    found = results("six_db_per_bit")
    top = mean(found["diapositive", 12])
    return {b: mean(found[form, b]) - (top - 6.0206 * (12 - b)) for b in range(2, 13)}


def six_decibels_a_bit_down_to_3(results):
    """Forme de la diapositive : à 0,1 dB de la droite dès 4 bits, à 0,5 dB à 3 bits, où le pas vaut 2,2 à 2,8 σ."""
    off, wide = _from_the_line(results, "diapositive"), results("six_db_per_bit")["pas / écart-type", 3]
    return all(abs(off[b]) < 0.1 for b in range(4, 13)) and abs(off[3]) < 0.5 and mean(wide) * 3 / 4 > 1.8


def the_missing_code_costs_the_gap(results):
    """Restreinte contre diapositive : 20·log10(8/7) = 1,16 dB à 4 bits ; 20·log10(4/3) = 2,5 dB à 3 bits, à 0,5."""
    found = results("six_db_per_bit")
    gap = {b: paired(found["diapositive", b], found["restreinte", b]) for b in (4, 3)}
    below = _from_the_line(results, "restreinte")
    return abs(gap[4].mean - 1.16) < 0.1 and abs(gap[3].mean - 2.5) < 0.5 and below[4] < -1 and below[3] < -1


def error_is_bounded_by_the_signal(results):
    found = results("six_db_per_bit")
    return paired(found["restreinte", 2], found["S²/12", 2]).low > 3


def some_components_stand_out(results):
    return all(peaks[0] > 2 * peaks.median() for peaks in results("component_peaks").values())


# --- 3.8 et 3.9 : le pas, le grain --------------------------------------------------------------------------


def most_channels_need_a_smaller_step(results):
    found = results("channel_scales")
    return (found["canaux"] < found["couche"] / 2).double().mean().item() > 0.9


def the_best_step_clips(results):
    errors = {ratio: row["écrêtés"] + row["autres"] for ratio, row in results("clipping").items()}
    best = min(errors, key=errors.get)
    return 0.35 < best < 0.9 and errors[best] < 0.95 * errors[1.0] and results("clipping")[best]["écrêtés"] > 0


def _chosen_against(results, grid, experiment="rtn_grids"):
    """Bits → perte au pas choisi moins perte sur cette grille."""
    found = results(experiment)["pertes"]
    return {b: paired(found["choisie", b], found[grid, b]) for b in (4, 3, 2)}


def the_restricted_grid_is_the_worst(results):
    found = results("rtn_grids")["pertes"]
    others = ("diapositive", "affine", "choisie")
    return all(paired(found["restreinte", b], found[grid, b]).low > 0 for grid in others for b in (4, 3, 2))


def grids_tie_at_4_bits(results):
    return not any(_chosen_against(results, grid)[4].told_apart for grid in ("diapositive", "affine"))


def the_chosen_step_wins_below_4_bits(results):
    """À 3 bits, un dixième de perplexité en moins, et davantage, que sur chacune des trois autres ; à 2 bits aussi."""
    gaps = [_chosen_against(results, grid)[b] for grid in ("restreinte", "diapositive", "affine") for b in (3, 2)]
    return all(gap.high < log(0.9) for gap in gaps)


def worse_than_chance(results):
    return perplexity_of(results("rtn_grids")["pertes"]["restreinte", 2]) > 4096


def eight_bits_cost_less_than_one_percent(results):
    found = results("rtn_sweep")["pertes"]
    return all(paired(found["RTN", g, 8], found["FP32"]).high < ONE_PERCENT for g in ("tenseur", "canal", "groupe"))


def grain_matters_when_bits_are_few(results):
    """À 4, 3 et 2 bits, plus le grain est fin, plus la perte est basse ; du tenseur au canal, de plus en plus."""
    found = results("rtn_sweep")["pertes"]
    gaps = {
        (a, c, b): paired(found["RTN", c, b], found["RTN", a, b])
        for a, c in (("tenseur", "canal"), ("canal", "groupe"))
        for b in (4, 3, 2)
    }
    growing = all(gaps["tenseur", "canal", b - 1].high < gaps["tenseur", "canal", b].low for b in (4, 3))
    return growing and all(gap.high < 0 for gap in gaps.values())


# --- 3.10 : les bibliothèques -----------------------------------------------------------------------------------------


def libraries_use_three_scales(results):
    found = results("library_scales")
    divisors = {round(row["max|w| / S"], 1) for row in found.values()}
    changed = [row["autres codes que la forme restreinte"] for row in found.values()]
    libraries = {name.partition(",")[0] for name in found} - {"vous"}
    known = {"torch.ao (ancien)", "torchao", "onnxruntime"}
    return divisors == {127, 127.5, 128} and max(changed) > 0 and libraries == known


# --- 3.11 : un produit entre entiers ----------------------------------------------------------------------------------


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


# --- 3.12 : les octets ------------------------------------------------------------------------------------------------


def the_file_is_less_than_eight_times_smaller(results):
    found = results("file_sizes")["fichiers"]
    small = found["codes 4 bits, deux par octet"]
    return found["FP32"]["octets"] < 8 * small["octets"] and small["linéaires"] < small["octets"] / 2


def tables_weigh_little_in_gpt3(results):
    """Dans Colibri, plus de la moitié du fichier ; dans GPT-3, sur 4 bits, moins de 2 %, tables en FP16 comprises."""
    found = results("file_sizes")["fichiers"]["codes 4 bits, deux par octet"]
    tables, linear = (50257 + 2048) * 12288, 96 * 12 * 12288**2
    return found["linéaires"] < found["octets"] / 2 and 2 * tables < 0.02 * (2 * tables + linear / 2)


# --- 3.13 et 3.14 : GPTQ ----------------------------------------------------------------------------------------------


def opposed_inputs_move_together(results):
    """Les deux entrées s'opposent ; là où le second poids change de code, il bouge du même côté que le premier."""
    found = results("two_weights")
    first, second = (found["près"] - found["poids"])[:, 0], found["déplacé"] - found["poids"][:, 1]
    return found["corrélation"] < -0.9 and bool((first * second >= 0).all())


def the_gain_is_very_uneven(results):
    """L'arrondi change pour 15 à 25 % des lignes ; le plus grand gain vaut plus de dix fois le gain médian."""
    found = results("two_weights")
    changes = (found["près"] != found["rattrapé"]).any(1)
    gains = (found["erreurs"]["près"] / found["erreurs"]["rattrapé"])[changes]
    return 0.15 < changes.double().mean() < 0.25 and (gains.max() > 10 * gains.median()).item()


def the_second_weight_makes_up(results):
    errors = results("two_weights")["erreurs"]
    return (errors["rattrapé"].sum() < errors["près"].sum()).item()


def gptq_trades_weights_for_outputs(results):
    """Sur les poids, GPTQ perd partout ; sur la sortie, il gagne, sauf à la sortie du MLP des blocs 1 à 3."""
    found = results("gptq_layer_errors")
    layers = {name for name, _, _ in found}
    lost = {name for name in layers if found[name, "GPTQ", "sortie"] > found[name, "RTN", "sortie"]}
    weights = all(found[name, "GPTQ", "poids"] > found[name, "RTN", "poids"] for name in layers)
    exceptions = {f"transformer.h.{block}.mlp.c_proj" for block in (1, 2, 3)}
    return len(layers) == 20 and weights and lost == exceptions


def _gptq_against_rtn(results):
    """(grille, bits) → perte par GPTQ moins perte par RTN."""
    gptq, grids, sweep = (results(name)["pertes"] for name in ("gptq_sweep", "rtn_grids", "rtn_sweep"))
    found = {key: paired(gptq[key], grids[key]) for key in grids if key != "FP32"}
    groups = {
        ("choisie, par groupe", b): paired(gptq["choisie, par groupe", b], sweep["RTN", "groupe", b]) for b in (4, 3, 2)
    }
    return found | groups


def gptq_beats_rtn_on_every_grid(results):
    """Et, par GPTQ, un pas par groupe fait mieux qu'un par canal."""
    gptq = results("gptq_sweep")["pertes"]
    groups = [paired(gptq["choisie, par groupe", b], gptq["choisie", b]) for b in (4, 3, 2)]
    return all(gap.high < 0 for gap in (*_gptq_against_rtn(results).values(), *groups))


def a_bad_grid_flatters_gptq(results):
    gaps = _gptq_against_rtn(results)
    return gaps["restreinte", 3].high < -log(3) and gaps["choisie", 3].low > -log(1.5)


def compensation_levels_the_grids(results):
    close = [_chosen_against(results, grid, "gptq_sweep")[b] for grid in ("diapositive", "affine") for b in (4, 3)]
    behind = [_chosen_against(results, "restreinte", "gptq_sweep")[b] for b in (4, 3)]
    return not any(gap.told_apart for gap in close) and all(gap.high < 0 for gap in behind)


def weight_error_is_not_the_goal(results):
    gap = _chosen_against(results, "diapositive", "gptq_sweep")[2]
    return 0 < gap.low and gap.high < log(1.15)


def rtn_collapses_in_opt_only(results):
    """× 10 ou plus : huit OPT sur neuf, un BLOOM sur six (176B) ; les autres BLOOM et Colibri, moins de dix."""

    def ratios(family):
        return [float(q) / float(full) for q, full in zip(family["RTN 3"], family["full"], strict=True)]

    found = results("rtn_grids")["pertes"]
    ours = perplexity_of(found["affine", 3]) / perplexity_of(found["FP32"])
    return sum(r > 10 for r in ratios(OPT)) == 8 and max(ratios(BLOOM)[:-1]) < 10 < ratios(BLOOM)[-1] and ours < 10


# --- 3.15 : un autre modèle -------------------------------------------------------------------------------------------


def the_same_gestures_serve_another_model(results):
    """GPTQ contre RTN, et chacun contre le modèle d'origine ; relu, exactement les mêmes pertes."""
    found = results("other_model")["pertes"]
    plain = {method: paired(found[method], found["tel quel"]).mean for method in ("RTN", "GPTQ")}
    gain = paired(found["GPTQ"], found["RTN"])
    return gain.high < 0 and plain["GPTQ"] < plain["RTN"] / 3 < log(1.05) and found["GPTQ, relu"] == found["GPTQ"]


# --- 3.16 : ce qui se fait aujourd'hui --------------------------------------------------------------------------------


def int4_beats_mxfp4_at_equal_bits(results):
    found = results("four_bit_formats")["pertes"]
    floats = ("MXFP4", "MXFP4, échelle choisie")
    return all(paired(found["int4, groupes de 64"], found[name]).high < 0 for name in floats)


def nvfp4_with_its_scale_beats_int4(results):
    found = results("four_bit_formats")["pertes"]
    plain, chosen = (paired(found[name], found["int4, groupes de 32"]) for name in ("NVFP4", "NVFP4, échelle choisie"))
    return not plain.told_apart and chosen.high < 0


def e5m2_keeps_small_gradients_e4m3_writes_finer(results):
    found = results("fp8_gradients")
    lost = {key: row["annulés"] for key, row in found.items()}
    kept = lost["E4M3", "tels quels"] > 0.5 > 2 * lost["E5M2", "tels quels"] and lost["E5M2", "étirés"] < 0.001
    return kept and found["E4M3", "étirés"]["sqnr"] > found["E5M2", "étirés"]["sqnr"] + 3


def the_best_alpha_is_small_and_inside(results):
    """Sur la moyenne des couches : le creux est entre 0 et 0,4 exclus ou non, et à 0,6 l'erreur dépasse celle de 0."""
    found = results("awq_search")
    alphas = found["alphas"]

    def curve(step):
        return [mean(log(errors[i]) for errors in found["erreurs"][step].values()) for i in range(len(alphas))]

    curves = [curve(step) for step in ("prudent", "choisi")]
    still, last = alphas.index(0.0), alphas.index(0.6)
    return all(0 < alphas[c.index(min(c))] <= 0.4 and c[last] > c[still] for c in curves)


def awq_pays_with_the_careful_step_only(results):
    found = results("awq_search")["pertes"]
    careful, chosen = (paired(found[step, "AWQ"], found[step, "sans"]) for step in ("prudent", "choisi"))
    return careful.high < 0 and not chosen.told_apart


def smoothing_helps_static_activations(results):
    found = results("smoothed_layers")
    return paired(found["avec"], found["sans"]).low > 1


def turning_alone_changes_nothing(results):
    turned, plain = results("rotations")["pertes"]["sans arrondi"], results("four_bit_formats")["pertes"]["FP32"]
    return max(abs(a - b) for a, b in zip(turned, plain, strict=True)) < 1e-4


def most_of_the_miracle_was_the_step(results):
    """Par tenseur, pas prudent : plus de deux fois moins ; le pas choisi sans rotation fait déjà mieux que cela."""
    found = results("rotations")["pertes"]
    careful, chosen, channel = (
        f"un pas par {grain}" for grain in ("tenseur, prudent", "tenseur, choisi", "canal, choisi")
    )
    miracle = paired(found[careful, "tournés"], found[careful, "tels quels"]).high < -log(2)
    step = paired(found[chosen, "tels quels"], found[careful, "tournés"]).high < 0
    return miracle and step and not paired(found[channel, "tournés"], found[channel, "tels quels"]).told_apart


def activations_need_the_turn(results):
    found = results("turned_activations")["pertes"]
    return paired(found["W4A4", "tournés"], found["W4A4", "tels quels"]).high < -log(2)


def rows_have_no_peak_to_spread(results):
    """En moyenne : par tenseur et par jeton, la rotation rapproche l'extrême ; par canal, à moins de 5 % près, non."""
    found = {key: mean(values) for key, values in results("peaks_when_turned").items()}
    change = {
        what: found[f"{what}, tournés"] / found[f"{what}, tels quels"]
        for what in ("un tenseur", "un canal", "un jeton")
    }
    return change["un tenseur"] < 0.9 and change["un jeton"] < 0.75 and 0.95 < change["un canal"] < 1.01


def keys_are_better_per_channel(results):
    found = results("rounded_cache")["pertes"]
    gaps = {b: paired(found["par canal", b], found["par jeton", b]) for b in (4, 3, 2)}
    return all(gap.high < 0 for gap in gaps.values()) and gaps[2].high < -log(1.1)


def key_channels_are_narrow(results):
    """Les clés, bloc à bloc : moins étendues par canal ; les valeurs : à moins de 15 % près, pareil."""
    found = results("shared_ranges")
    ratio = {what: mean(found[what, "par canal"]) / mean(found[what, "par jeton"]) for what in ("keys", "values")}
    return ratio["keys"] < 0.75 and 0.85 < ratio["values"] < 1.15


def quantizing_the_scales_is_free(results):
    found = results("downloaded_recipes")["pertes"]
    symmetric, both = "int4, groupes de 32, un pas FP16", "int4, groupes de 32, pas et minimum FP16"
    return paired(found["Q4_K"], found[symmetric]).high < 0 and not paired(found["Q4_K"], found[both]).told_apart


def ternary_after_training_collapses(results):
    found = results("downloaded_recipes")["pertes"]
    return perplexity_of(found["ternaire, règle de BitNet"]) > 20 * perplexity_of(found["FP32"])
