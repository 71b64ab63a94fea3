"""Les affirmations du chapitre 5, sur les résultats enregistrés. Les écarts de pertes sont en nats par jeton."""

from __future__ import annotations

from math import log
from statistics import mean, median

from atelier.evidence import paired, perplexity_of
from atelier.figures.ch5.importance import rank_correlation, rises
from atelier.figures.ch5.papers import FREE, ratios
from atelier.figures.ch5.recovery import best_rate, bits_of

FIVE_PERCENT = log(1.05)


# --- 5.1 à 5.3 : les plus petits, couche par couche, puis ensemble ----------------------------------------------------


def training_makes_no_zeros(results):
    found = results("zeros_census")
    return found["poids des couches linéaires"]["nuls"] == 0 and (
        found["poids des couches linéaires"]["presque nuls"] > 0.03
    )


def one_in_ten_at_random_costs_more_than_four_in_ten(results):
    """Pour chacun des cinq tirages au hasard."""
    found = results("magnitude_sweep")["pertes"]
    return all(paired(found["hasard", 0.1, seed], found["magnitude", 0.4]).low > 0 for seed in range(5))


def one_in_five_is_cheap(results):
    found = results("magnitude_sweep")["pertes"]
    return 0 < paired(found["magnitude", 0.2], found["entier"]).high < log(1.07) and (
        paired(found["magnitude", 0.4], found["entier"]).low > log(1.5)
    )


def one_ranking_by_size_is_worse(results):
    by_layer, together = results("magnitude_sweep")["pertes"], results("global_sweep")["pertes"]
    return all(
        paired(together["magnitude, globale", a], by_layer["magnitude", a]).low > 0 for a in (0.2, 0.3, 0.4, 0.5, 0.6)
    )


def _block(values, number):
    return mean(v for name, v in values.items() if name.startswith(f"transformer.h.{number}."))


def size_does_not_tell_what_a_layer_bears(results):
    """Le bloc 0, en moyenne le plus dégarni et le plus cher ; sans lui, la corrélation des rangs est proche de zéro."""
    shares, costs = results("global_shares"), rises(results("one_layer_at_a_time"))
    rest = [name for name in shares if not name.startswith("transformer.h.0.")]
    first = all(max(range(5), key=lambda b: _block(values, b)) == 0 for values in (shares, costs))
    return first and abs(rank_correlation([shares[n] for n in rest], [costs[n] for n in rest])) < 0.3


# --- 5.4 : Wanda ------------------------------------------------------------------------------------------------------


def wanda_spares_outputs(results):
    found = results("layer_errors")
    names = {name for name, _, _ in found}
    worse = sum(found[n, "Wanda", "poids"] > found[n, "magnitude", "poids"] for n in names)
    spared = sum(found[n, "Wanda", "sortie"] < found[n, "magnitude", "sortie"] for n in names)
    return worse == len(names) == 20 and spared >= 17


def wanda_beats_magnitude(results):
    wanda = results("wanda_sweep")["pertes"]
    others = results("magnitude_sweep")["pertes"] | results("global_sweep")["pertes"]
    return all(
        paired(wanda["Wanda", a], others[way, a]).high < 0
        for a in (0.3, 0.5, 0.6)
        for way in ("magnitude", "magnitude, globale")
    )


def wanda_loses_at_the_far_end(results):
    wanda, size = results("wanda_sweep")["pertes"], results("magnitude_sweep")["pertes"]
    return paired(wanda["Wanda", 0.8], size["magnitude", 0.8]).low > 0 and all(
        perplexity_of(found) > 100 for found in (wanda["Wanda", 0.7], size["magnitude", 0.7])
    )


def what_enters_does_not_mend_the_global_ranking(results):
    """Un peu mieux que la magnitude globale, plus du double de Wanda par ligne."""
    found = results("what_enters")["pertes"]
    return -log(1.35) < paired(found["Wanda, globale"], found["magnitude, globale"]).mean < 0 and (
        paired(found["Wanda, globale"], found["Wanda, par ligne"]).low > log(2)
    )


def inputs_of_block_0_are_not_large(results):
    sizes = results("what_enters")["entrées"]
    first = [v for name, v in sizes.items() if name.startswith("transformer.h.0.")]
    return mean(first) < mean(v for name, v in sizes.items() if not name.startswith("transformer.h.0."))


# --- 5.5 et 5.6 : la perte, la compensation ---------------------------------------------------------------------------


def the_loss_mends_the_global_ranking(results):
    fisher, wanda = results("fisher_sweep")["pertes"], results("wanda_sweep")["pertes"]
    several = (0.3, 0.5, 0.6)
    beats = all(paired(fisher["Fisher, globale", a], wanda["Wanda", a]).high < 0 for a in several)
    turns = all(paired(fisher["Fisher, globale", a], fisher["Fisher, par couche", a]).high < 0 for a in several)
    return beats and turns


def sparsegpt_beats_wanda(results):
    best, wanda = results("sparsegpt_sweep")["pertes"], results("wanda_sweep")["pertes"]
    return all(paired(best["SparseGPT", a], wanda["Wanda", a]).high < 0 for a in (0.3, 0.5, 0.7))


def fisher_and_sparsegpt_tie_at_half(results):
    fisher, best = results("fisher_sweep")["pertes"], results("sparsegpt_sweep")["pertes"]
    return not paired(fisher["Fisher, globale", 0.5], best["SparseGPT", 0.5]).told_apart


def other_texts_keep_the_order(results):
    """D'un tirage à l'autre, Wanda bouge de moins de 5 %, Fisher de 8 à 12 % ; Wanda est derrière aux cinq tirages."""
    found = {way: [perplexity_of(run) for run in runs] for way, runs in results("other_texts")["pertes"].items()}
    moved = {way: max(values) / min(values) - 1 for way, values in found.items()}
    behind = all(w > f for w, f in zip(found["Wanda"], found["Fisher, globale"], strict=True))
    return behind and moved["Wanda"] < 0.05 and 0.08 < moved["Fisher, globale"] < 0.12


# --- 5.7 et 5.8 : N:M, les articles -----------------------------------------------------------------------------------


def smaller_groups_cost_more(results):
    """2:4 coûte plus que 4:8 par les trois méthodes ; et l'écart de Wanda à SparseGPT grandit du libre au 2:4."""
    found = results("pattern_prices")["pertes"]
    free = results("wanda_sweep")["pertes"] | results("sparsegpt_sweep")["pertes"]
    ordered = all(paired(found[way, "2:4"], found[way, "4:8"]).low > 0 for way in ("magnitude", "Wanda", "SparseGPT"))
    gaps = [paired(free["Wanda", 0.5], free["SparseGPT", 0.5]).mean]
    gaps += [paired(found["Wanda", p], found["SparseGPT", p]).mean for p in ("4:8", "2:4")]
    return ordered and gaps == sorted(gaps)


def _beside(results):
    return ratios(*(results(name) for name in ("magnitude_sweep", "wanda_sweep", "sparsegpt_sweep", "pattern_prices")))


def pruning_costs_less_up_to_13b_but_once(results):
    """Magnitude et Wanda : une hausse de Colibri à 13B. SparseGPT, N:M : à 5 % près. Les hausses de 13B à 70B."""
    found = _beside(results)
    up = [key for key, line in found.items() if key[1] != "SparseGPT" for k in (0, 1) if line[k + 1] > line[k]]
    alike = all(abs(found[where, "SparseGPT"][0] / found[where, "SparseGPT"][1] - 1) < 0.05 for where in ("4:8", "2:4"))
    later = {key for key, line in found.items() if line[3] > line[2]}
    free = {(FREE, way) for way in ("magnitude", "Wanda", "SparseGPT")}
    rising = {(where, "magnitude") for where in (FREE, "4:8", "2:4")}
    return up == [("2:4", "magnitude")] and alike and free | rising <= later


def here_wanda_does_not_match_sparsegpt(results):
    found = _beside(results)
    return found["50 %, libre", "Wanda"][0] > 1.2 * found["50 %, libre", "SparseGPT"][0] and all(
        found[where, "Wanda"][k] < found[where, "magnitude"][k] for where in ("50 %, libre", "2:4") for k in range(4)
    )


def colibri_has_no_immense_input(results):
    """D'une couche à l'autre, la plus grande norme d'entrée vaut de 2 à 15 fois la médiane."""
    peaks = results("what_enters")["pointes"].values()
    return 1.2 < min(peaks) and 10 < max(peaks) < 16


# --- 5.9 et 5.10 : la place, le temps ---------------------------------------------------------------------------------


def at_half_only_bitmap_and_zip_gain(results):
    found = results("file_formats")["octets"]
    dense, half = found[0.0]["dense, avec ses zéros"], found[0.5]
    small = {name for name, size in half.items() if size < dense and name != "votre formule"}
    return small == {"bitmap", "dense, zippé"} and all(0.5 < half[name] / dense < 0.7 for name in small)


# --- 5.11 : retirer pour de bon ---------------------------------------------------------------------------------------


def influence_reverses_the_middle_blocks(results):
    found = results("influences")
    turned = found["influence"]
    without = [perplexity_of(found["pertes"][b]) for b in range(5)]
    ends = max(range(5), key=turned.__getitem__) == max(range(5), key=without.__getitem__) == 0
    second = sorted(range(5), key=turned.__getitem__)[-2] == sorted(range(5), key=without.__getitem__)[-2] == 4
    middle = turned[1] < turned[2] < turned[3] and all(
        paired(found["pertes"][b], found["pertes"][b + 1]).low > 0 for b in (1, 2)
    )
    return ends and second and middle and min(range(5), key=without.__getitem__) == 3


def neurons_cost_less_than_a_block_at_first(results):
    found, counts = results("one_fifth_less")["pertes"], results("one_fifth_less")["paramètres"]
    _, block, neurons = found
    return paired(found[neurons], found[block]).high < 0 and abs(counts[neurons] / counts[block] - 1) < 0.01


def removed_heads_are_silent_heads(results):
    return all(row["écart"] < 1e-3 for row in results("fewer_heads")["têtes"].values())


def costs_of_heads_do_not_add_up(results):
    found = results("fewer_heads")["têtes"]
    return paired(found[15]["pertes"], found[0]["pertes"]).low > found[15]["ajoutés"]


def heads_do_not_reload(results):
    found = results("reloaded")
    plain = {"100 neurones par MLP", "un bloc"}
    return all((row["tel quel"] == "le même modèle") == (name in plain) for name, row in found.items())


# --- 5.12 : réapprendre -----------------------------------------------------------------------------------------------


def one_step_erases_the_zeros(results):
    shares = results("forgotten")
    return abs(shares[0] - 0.8) < 1e-3 and shares[1] < 0.02


def bigger_damage_wants_a_bigger_rate(results):
    """À 80 %, le meilleur taux est plus grand qu'à 50 % ; ni l'un ni l'autre n'est au bord de la grille."""
    found = results("recovery_rates")["perplexités"]
    grid = sorted({lr for _, lr in found})
    best = {a: best_rate({lr: found[a, lr] for lr in grid}) for a in (0.5, 0.8)}
    return best[0.8] > best[0.5] and all(grid[0] < lr < grid[-1] for lr in best.values())


def two_soft_steps_last_three_hard_ones(results):
    found = results("step_costs")
    return 1.3 < median(s / h for s, h in zip(found["douces"], found["dures"], strict=True)) < 1.7


def _seeds(results, experiment):
    """Recette → perte moyenne, graine par graine."""
    return {name: [mean(r) for r in runs] for name, runs in results(experiment)["pertes"].items()}


def recovery_mends_a_lot(results):
    before = mean(results("recovered")["avant"]["élagué, non repris"])
    return all(max(runs) < before - log(3) for runs in _seeds(results, "recovered").values())


def gradual_does_not_win_in_few_steps(results):
    found = _seeds(results, "recovered")
    return paired(found["peu à peu"], found["d'un coup"]).low > 0


def soft_labels_recover_better(results):
    """Un écart de plus du double de celui qui sépare, sur l'extrait de réglage, les deux meilleurs taux des dures."""
    found = _seeds(results, "recovered")
    tried = sorted(v for (amount, _), v in results("recovery_rates")["perplexités"].items() if amount == 0.8)
    return paired(found["d'un coup, étiquettes douces"], found["d'un coup"]).high < -2 * log(tried[1] / tried[0])


# --- 5.13 : élaguer, puis distiller -----------------------------------------------------------------------------------

DEEP, WIDE = "un bloc de moins, étiquettes douces", "neurones en moins, étiquettes douces"
HARD, WARM = "un bloc de moins, étiquettes dures", "un bloc de moins, étiquettes douces, T = 2"


def teaching_mends_the_missing_block(results):
    """Plus du tiers de ce que le bloc avait coûté, en nats."""
    before = results("thinned_then_taught")["avant"]
    whole, cut = mean(before["entier"]), mean(before["un bloc de moins, tel quel"])
    return max(_seeds(results, "thinned_then_taught")[DEEP]) < cut - (cut - whole) / 3


def the_teacher_beats_the_text(results):
    found = _seeds(results, "thinned_then_taught")
    return all(paired(found[soft], found[HARD]).high < 0 for soft in (DEEP, WARM))


def here_t_2_does_a_little_better(results):
    """De moins de 3 %, sur cinq graines ; et à chaque taux de la grille, sur l'extrait de réglage."""
    found, tried = _seeds(results, "thinned_then_taught"), results("thinner_tuned")["perplexités"]
    gap = paired(found[WARM], found[DEEP])
    return gap.high < 0 and gap.low > log(0.97) and all(tried[WARM][lr] < v for lr, v in tried[DEEP].items())


def width_stays_ahead(results):
    found = _seeds(results, "thinned_then_taught")
    return all(paired(found[WIDE], found[deep]).high < 0 for deep in (DEEP, WARM))


def the_rate_does_not_decide(results):
    """Le second meilleur taux des douces contre le meilleur des dures ; celui des neurones, contre celui d'un bloc."""
    tried = {name: sorted(found.values()) for name, found in results("thinner_tuned")["perplexités"].items()}
    return all(tried[soft][1] < tried[HARD][0] for soft in (DEEP, WARM)) and all(
        tried[WIDE][1] < tried[deep][0] for deep in (DEEP, WARM)
    )


# --- 5.14 : élaguer et quantifier -------------------------------------------------------------------------------------


def prune_first(results):
    found, zeros = results("orders")["pertes"], results("orders")["zéros"]
    nearest = paired(found["Wanda puis 4 bits"], found["4 bits puis Wanda"]).high < 0
    compensated = paired(found["Wanda puis GPTQ"], found["GPTQ puis Wanda"]).high < 0
    return nearest and compensated and zeros["4 bits"] > 0.1


def gptq_wakes_few_zeros(results):
    zeros = results("orders")["zéros"]
    return 0.47 < zeros["Wanda puis GPTQ"] < 0.52


def sparsegpt_is_the_best_mixture(results):
    found = results("orders")["pertes"]
    mixtures = [name for name in found if "Wanda" in name and ("bits" in name or "GPTQ" in name)]
    together = found["SparseGPT et 4 bits ensemble"]
    return len(mixtures) == 4 and all(paired(together, found[name]).high < -FIVE_PERCENT for name in mixtures)


def at_equal_bits_quantizing_wins(results):
    found, zeros = results("orders")["pertes"], results("orders")["zéros"]
    three = abs(bits_of("SparseGPT et 4 bits ensemble", zeros["SparseGPT et 4 bits ensemble"]) - 3) < 0.1
    return three and paired(found["3 bits, GPTQ"], found["SparseGPT et 4 bits ensemble"]).high < 0
