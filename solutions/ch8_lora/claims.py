"""Les affirmations du chapitre 8, sur les résultats enregistrés. Les écarts de pertes sont en nats par jeton."""

from __future__ import annotations

from statistics import mean

from atelier.evidence import paired, perplexity_of
from atelier.figures.ch8.lora import best_rates, final_runs, grid_curves
from atelier.figures.ch8.nf4 import entropy
from atelier.figures.ch8.seeds import best_rate_of, seed_gap
from atelier.figures.ch8.spectra import FULL, mean_curves, random_curve, rank_for
from atelier.figures.ch8.speed import crossings
from atelier.figures.ch8.verse import reward_rates, shares


def fantasy_is_foreign(results):
    found = results("before_lora")
    return mean(found["B"]) > mean(found["A"]) + 1


# --- 8.1 : ΔW ---------------------------------------------------------------------------------------------------------


def every_direction_counts(results):
    """Du rang 4 au rang plein, chaque troncature fait mieux que la précédente ; au rang 16, un tiers du gain manque."""
    found = results("truncated")
    ranks = (4, 16, 64, 128, FULL)
    better = all(paired(found["ΔW", b], found["ΔW", a]).high < 0 for a, b in zip(ranks, ranks[1:], strict=False))
    gain = mean(found["ΔW", 0]) - mean(found["ΔW", FULL])
    return better and mean(found["ΔW", 0]) - mean(found["ΔW", 16]) < 0.72 * gain


def weights_do_not_truncate(results):
    found = results("truncated")
    return all(perplexity_of(found["W", r]) > 5 * perplexity_of(found["ΔW", 0]) for r in (32, 64, 128))


def change_is_concentrated(results):
    """Rang qui garde 90 % de l'énergie : moins pour ΔW que pour W ; W près du hasard, sauf la sortie de l'attention."""
    found = results("what_moved")
    change, weights = (mean_curves(found, what) for what in ("ΔW", "W"))
    noise = rank_for(0.9, random_curve())
    ranks = {name: (rank_for(0.9, change[name]), rank_for(0.9, weights[name])) for name in change}
    near = {name for name, (_, w) in ranks.items() if 0.9 * noise < w < 1.1 * noise}
    return all(20 < c < 0.8 * w for c, w in ranks.values()) and set(ranks) - near == {"sortie de l'attention"}


# --- 8.2 à 8.4 --------------------------------------------------------------------------------------------------------


def ten_thousand_is_rank_four(results):
    found = results("gpt3_counts")
    return 9000 < 175_255_800_000 / found[2, 4] < 10_000 and found[4, 2] == found[2, 4] == found[2, 8] // 2


def two_zeros_never_move(results):
    found = results("four_starts")
    still = found["A = 0, B = 0"]
    first = {kind: row["gradients"][0] for kind, row in found.items()}
    second = {kind: row["gradients"][1] for kind, row in found.items()}
    return (
        all(g == (0, 0) for g in still["gradients"])
        and first["A gaussienne, B = 0"][0] == 0 < first["A gaussienne, B = 0"][1]
        and first["A = 0, B gaussienne"][1] == 0 < first["A = 0, B gaussienne"][0]
        and all(min(second[kind]) > 0 for kind in ("A gaussienne, B = 0", "A = 0, B gaussienne"))
        and found["A et B gaussiennes"]["écart"] > 0.1
    )


# --- 8.5 : α/r ou α/√r ------------------------------------------------------------------------------------------------


def size_grows_as_root_effect_as_rank(results):
    found = results("first_step")
    for a, b in ((4, 16), (16, 64)):
        sizes = [one[0] / other[0] for one, other in zip(found[b], found[a], strict=True)]
        effects = [one[1] / other[1] for one, other in zip(found[b], found[a], strict=True)]
        if not (1.8 < mean(sizes) < 2.3 and 3.4 < mean(effects) < 4.6):
            return False
    return len(found[4]) == 5


def size_sets_the_rate(results):
    """Le meilleur taux, moyenne de deux graines : constant, 8, 4, 2 millièmes ; α/√r, le même aux trois rangs."""
    best = best_rates(results("rates_by_rank"))
    moving = [best["constant (α = 2r)", r] for r in (4, 16, 64)]
    return moving == [8e-3, 4e-3, 2e-3] and len({best["α/√r", r] for r in (4, 16, 64)}) == 1


def one_over_r_keeps_it_from_16_to_64(results):
    """Et au rang 4, chaque graine a son meilleur taux ; de 1 à 4 millièmes, la moyenne bouge de moins de 2 %."""
    found = results("rates_by_rank")
    best, four = best_rates(found), {lr: v for (rule, r, lr), v in found.items() if (rule, r) == ("α/r", 4)}
    each = {min(four, key=lambda lr: four[lr][seed]) for seed in (0, 1)}
    flat = [mean(four[lr]) for lr in (1e-3, 2e-3, 4e-3)]
    return best["α/r", 16] == best["α/r", 64] and len(each) == 2 and max(flat) < 1.02 * min(flat)


def rules_tie_at_their_best(results):
    """À son meilleur taux, au rang 64, aucune règle ne fait 3 % de mieux qu'une autre."""
    curves = grid_curves(results("rates_by_rank"))
    bottoms = [min(lines[64].values()) for lines in curves.values()]
    return max(bottoms) < 1.03 * min(bottoms)


# --- 8.6 : taux, places, rangs ----------------------------------------------------------------------------------------


def _runs(results, experiment):
    return results(experiment)["pertes"]


def lora_wants_a_larger_rate(results):
    """Le meilleur taux de LoRA est plusieurs fois celui du fine-tuning complet ; aucun n'est au bord de sa grille."""
    found = results("method_rates")
    names = {name for name, _ in found}
    inside = all(best_rate_of(found, name)[1] for name in names)
    return inside and best_rate_of(found, "LoRA")[0] >= 4 * best_rate_of(found, "tout")[0]


def attention_lags_mlp_leads(results):
    found = _runs(results, "places")
    counts = results("places")["apprennent"]
    equal = all(abs(counts[name] / counts["LoRA"] - 1) < 0.02 for name in counts if name != "couches linéaires")
    lags = seed_gap(found["LoRA, attention seule"], found["LoRA"]).low > 0
    return equal and lags and seed_gap(found["LoRA, MLP seul"], found["LoRA"]).high < 0


def linear_layers_and_lora(results):
    found, counts = _runs(results, "places"), results("places")["apprennent"]
    tied = not seed_gap(found["LoRA"], found["couches linéaires"]).told_apart
    return tied and counts["couches linéaires"] > 8.9 * counts["LoRA"] and every_direction_counts(results)


# --- 8.7 à 8.9 : peft, voix, table ------------------------------------------------------------------------------------


def peft_gives_back(results):
    found = results("saved_and_reloaded")
    same = found["relu"] == found["débranché"] == 0 and found["fusionné"] < 1e-3
    return same and found["fichiers"]["adapter_model.safetensors"] < found["base"] / 10


def peft_says_the_same(results):
    found = results("beside_peft")
    one, other = found["apprennent"]
    return one == other and max(found["à part"], found["fusionnés"]) < 1e-4 * found["taille"]


def a_sum_is_nobody(results):
    """Sur chaque voix, moins bien que la mise à jour de cette voix ; sur A, plus mal que Colibri et que les deux."""
    found = results("mixed_voices")
    one, other, both, none = (found[name] for name in ("λ = 1.0", "λ = 0.0", "somme", "rien"))
    worse = paired(both["b_test"], one["b_test"]).low > 0 and paired(both["bprime_test"], other["bprime_test"]).low > 0
    return worse and all(paired(both["a_validation"], who["a_validation"]).low > 0 for who in (none, one, other))


def half_and_half_speaks_both(results):
    """À mi-chemin, les deux voix y gagnent face à Colibri ; chacune moins qu'avec sa mise à jour entière."""
    found = results("mixed_voices")
    half, none = found["λ = 0.5"], found["rien"]
    gains = all(paired(half[t], none[t]).high < 0 for t in ("b_test", "bprime_test"))
    return gains and all(
        paired(half[t], found[own][t]).low > 0 for t, own in (("b_test", "λ = 1.0"), ("bprime_test", "λ = 0.0"))
    )


def one_batch_answers_the_same(results):
    found = results("ten_voices")
    return found["écart"] < 1e-3 and found["octets"]["un lot"] < found["octets"]["dix passages"] / 4


def _shares(results):
    found = {name: mean(map(mean, runs)) for name, runs in results("where_it_is").items()}
    return {name: (found["rien"] - v) / (found["rien"] - found["tout"]) for name, v in found.items()}


def much_is_in_the_table(results):
    shares = _shares(results)
    table, layers = shares["la table des jetons"], shares["les couches linéaires"]
    return 0.37 < table < 0.43 and 0.68 < layers < 0.75 and table + layers > 1.05


def _ends(results):
    found = results("descents")
    return final_runs(found), final_runs(found, "A")


def lora_learns_less_and_forgets_less(results):
    learned, forgotten = _ends(results)
    return seed_gap(learned["LoRA"], learned["tout"]).low > 0 and (
        seed_gap(forgotten["LoRA"], forgotten["tout"]).high < 0
    )


def table_beside_lora(results):
    learned, forgotten = _ends(results)
    name = "LoRA et table"
    on_b = not seed_gap(learned[name], learned["tout"]).told_apart and seed_gap(learned[name], learned["LoRA"]).high < 0
    on_a = seed_gap(forgotten[name], forgotten["tout"]).high < 0
    return on_b and on_a and not seed_gap(forgotten[name], forgotten["LoRA"]).told_apart


def the_table_alone_forgets_more(results):
    learned, forgotten = _ends(results)
    one, other = "table seule", "LoRA et table"
    return not seed_gap(learned[one], learned[other]).told_apart and seed_gap(forgotten[one], forgotten[other]).low > 0


def top_blocks_cannot_be_told_apart(results):
    learned, _ = _ends(results)
    counts = results("descents")["apprennent"]
    fewer = counts["LoRA"] == 2.5 * counts["LoRA en haut"]
    return fewer and not seed_gap(learned["LoRA en haut"], learned["LoRA"]).told_apart


# --- 8.10 : plus rapide ? ---------------------------------------------------------------------------------------------


def two_thirds_half_and_a_third(results):
    found = results("counted_steps")
    share = {name: flops / found["tout"][0] for name, (flops, _) in found.items()}
    return (
        0.65 < share["LoRA"] < 0.75
        and 0.48 < share["LoRA en haut"] < 0.58
        and (0.35 < share["LoRA en haut, cache"] < 0.42)
    )


def same_quality_same_operations(results):
    """« tout » : avant la fin, aux cinq graines ; en opérations de « tout », 40 pas de LoRA ne s'en départagent pas."""
    steps, counted = crossings(results("descents")), results("counted_steps")
    each = counted["LoRA"][0] / counted["tout"][0]
    before = all(i is not None and i < end for i, end in zip(steps["tout"], steps["LoRA"], strict=True))
    gap = paired(steps["tout"], [each * i for i in steps["LoRA"]])
    return before and not gap.told_apart and None in steps["LoRA en haut"]


# --- 8.11 : la carte des méthodes -------------------------------------------------------------------------------------


def _map(results):
    """Ce que la carte a mesuré ; le taux de chaque méthode est bien le meilleur de sa grille, et à l'intérieur."""
    found, tuned = results("peft_map"), results("peft_tuned")
    assert all(best_rate_of(tuned, name) == (lr, True) for name, lr in found["taux"].items())
    return found


def no_variant_clearly_beats_lora(results):
    found = _map(results)["B"]
    gaps = {name: seed_gap(found[name], found["LoRA"]) for name in ("DoRA", "rsLoRA", "LoRA+", "PiSSA")}
    behind = all(0 < gaps[name].low and gaps[name].mean < 0.04 for name in ("LoRA+", "PiSSA"))
    return -0.01 < gaps["DoRA"].mean and gaps["DoRA"].high < 0 and not gaps["rsLoRA"].told_apart and behind


def pissa_wants_a_smaller_rate(results):
    rates = _map(results)["taux"]
    return rates["LoRA"] == 8 * rates["PiSSA"]


def small_ones_go_half_way(results):
    found = _map(results)
    nothing, lora = mean(found["rien"]["B"]), mean(map(mean, found["B"]["LoRA"]))
    small = ("BitFit", "LayerNorm", "(IA)³", "VeRA")
    fewer = all(20 * found["apprennent"][name] < found["apprennent"]["LoRA"] for name in small)
    return fewer and all(nothing - mean(map(mean, found["B"][name])) > 0.5 * (nothing - lora) for name in small)


def forgetting_is_not_a_count(results):
    found = _map(results)["A"]
    gaps = {name: seed_gap(runs, found["LoRA"]) for name, runs in found.items() if name != "LoRA"}
    less = all(gaps[name].high < -0.15 for name in ("(IA)³", "VeRA"))
    return less and not gaps["BitFit"].told_apart and all(gaps[name].low > 0 for name in ("LoRA+", "rsLoRA"))


def a_prefix_needs_more_steps(results):
    found = _map(results)
    return all(paired(parts, found["rien"]["B"]).low > 0 for parts in found["B"]["prefix"])


# --- 8.12 à 8.14 : quatre bits, préférence, récompense ---------------------------------------------------------------


def nf4_serves_its_codes(results):
    found = results("four_bits")
    kinds = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")

    def error(grid, kind):
        return mean(e for name, e in found["erreurs"][grid].items() if name.endswith(kind))

    smaller = all(error("NF4", kind) < error("int4", kind) for kind in kinds)
    return smaller and entropy(found["codes"]["int4"]) < entropy(found["codes"]["NF4"]) < 4


def _merges(results):
    return results("onto_four_bits")


def requantizing_is_the_worst_merge(results):
    found = _merges(results)
    worst = "relue, puis requantifiée"
    last = all(seed_gap(found[worst], found[n]).low > 0 for n in ("dans la base relue", "dans la base d'origine"))
    gain = mean(map(mean, found["NF4, sans LoRA"])) - mean(map(mean, found["à part"]))
    return last and seed_gap(found[worst], found["à part"]).mean > 0.25 * gain


def the_original_base_is_the_best_merge(results):
    found = _merges(results)
    same = abs(seed_gap(found["dans la base relue"], found["à part"]).mean) < 1e-4
    return same and seed_gap(found["dans la base d'origine"], found["à part"]).high < 0


def lora_mends_some_of_the_rounding(results):
    """Écart d'une base NF4 à une base FP32 : avant LoRA, puis après, graine par graine."""
    found, learned = _merges(results), final_runs(results("descents"))["LoRA"]
    before = mean(found["NF4, sans LoRA"][0]) - mean(results("where_it_is")["rien"][0])
    after = seed_gap(found["à part"], learned)
    return 0 < after.low and after.high < before


def lora_melts_the_optimizer(results):
    found = results("memory_held")
    return 12 < found["tout, FP32"][1] / found["LoRA, base FP32"][1] < 13


def nf4_halves_the_base(results):
    found = results("memory_held")
    return found["LoRA, base NF4"][0] < 0.5 * found["LoRA, base FP32"][0]


def naive_nf4_keeps_its_weights(results):
    found = results("memory_held")
    kept = {name: row[2] for name, row in found.items()}
    same = abs(kept["LoRA, base FP32"] / kept["tout, FP32"] - 1) < 0.02
    return (
        same
        and kept["LoRA, base NF4"] > 1.1 * kept["LoRA, base FP32"]
        and (kept["LoRA, base NF4, activations refaites"] < 0.2 * kept["LoRA, base FP32"])
    )


def packed_colibri_still_learns(results):
    found = results("packed_lesson")
    return paired(found["après"], found["avant"]).high < 0


def dpo_learns_the_preference(results):
    found = results("preferences")
    return len(found) == 5 and all(run["pertes"][0] > 0.69 and run["pertes"][-1] < 0.05 for run in found)


def chosen_answers_fall_too(results):
    """Par graine : l'administration perd, les vers aussi, et moins qu'elle (en nats par jeton)."""
    before = results("mixed_voices")["rien"]
    moved = {t: [paired(run[t], before[t]) for run in results("preferences")] for t in ("a_validation", "bprime_test")}
    told = sum(gap.low > 0 for gap in moved["bprime_test"])
    less = all(v.mean < a.mean for v, a in zip(moved["bprime_test"], moved["a_validation"], strict=True))
    return (
        all(gap.low > 0 for gap in moved["a_validation"])
        and all(g.mean > 0 for g in moved["bprime_test"])
        and (told >= 2 and less)
    )


def sixteen_tries_pay(results):
    found = results("best_of_n")
    one, many = (shares(found["a lu des vers"], n) for n in (1, 16))
    rare = paired(shares(found["Colibri"], 1), [0.02] * len(one)).high < 0
    return rare and 0.055 < mean(one) < 0.07 and mean(many) > 0.5 and paired(many, one).low > 0


def a_graded_reward_teaches_a_little(results):
    lessons = results("twelve_lesson")["leçons"]
    before, after = (reward_rates(lessons, when) for when in ("avant", "après"))
    near = 0.055 < mean(before) < 0.07 and 0.075 < mean(after) < 0.09
    return len(lessons) == 5 and near and paired(after, before).low > 0


def a_reward_asks_only_what_it_counts(results):
    found = results("twelve_lesson")
    little = all(0 < lesson["après"]["KL"] < 0.15 for lesson in found["leçons"])
    return little and all(paired(lesson["B′"], found["B′ avant"]).low > 0 for lesson in found["leçons"])


def searching_pays_more_than_sixteen_steps(results):
    many = shares(results("best_of_n")["a lu des vers"], 16)
    return mean(many) > 0.5 > 5 * mean(reward_rates(results("twelve_lesson")["leçons"], "après"))
