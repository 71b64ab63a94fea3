"""Les affirmations du chapitre 7, sur les résultats enregistrés. Les écarts sont ceux de log-perplexités appariées."""

from __future__ import annotations

import json
from math import isclose, log
from statistics import mean

from atelier.evidence import paired, perplexity_of
from atelier.paths import asset

FULL, ADAPTERS = "tous les poids", "adaptateurs, m = 16"


def _gap(one, other):
    """Écart de perte moyenne, graine par graine : un − autre."""
    return paired([mean(losses) for losses in one], [mean(losses) for losses in other])


def _seeds(runs, which=0):
    return [run[which] for run in runs]


def _good(results, name, text, which=0):
    return _seeds(results("as_good")[name, text], which)


def _best_inside(found, name, text):
    """Le meilleur taux n'est pas au bord de sa grille."""
    tried = {lr: value for (who, what, lr), value in found.items() if (who, what) == (name, text)}
    return min(tried) < min(tried, key=tried.get) < max(tried)


def the_board_reads_further(results):
    rows = json.loads(asset("results", "tableau.json").read_text(encoding="utf-8"))
    board = next(row["perplexity"] for row in rows if row["name"] == "fp32")
    return (round(perplexity_of(results("voices_swapped")["Colibri"]["a"]), 2), round(board, 2)) == (10.42, 11.58)


# --- 7.2 à 7.5 : un adaptateur, deux voix -----------------------------------------------------------------------------


def a_null_up_starts_from_colibri(results):
    found = results("three_starts")
    return found["remontée nulle (le vôtre)"][0][0] == found["sans adaptateur"]


def two_null_matrices_never_learn(results):
    """Les gradients des deux matrices sont nuls à chaque pas ; la perte, elle, baisse (le biais)."""
    run = results("three_starts")["les deux nulles"]
    return all(down == up == 0 for _, down, up in run) and run[-1][0] < run[0][0]


def two_null_matrices_learn_less(results):
    found = results("three_starts")
    one, other = found["remontée nulle (le vôtre)"], found["les deux nulles"]
    return one[0][0] - one[-1][0] > 2 * (other[0][0] - other[-1][0])


def a_random_start_harms(results):
    found = results("three_starts")
    return found["les deux au hasard"][0][0] > found["sans adaptateur"] + 0.001


def the_down_waits_one_step(results):
    (_, first_down, first_up), (_, second_down, _) = results("three_starts")["remontée nulle (le vôtre)"][:2]
    return first_down == 0 < min(first_up, second_down)


def the_share_falls_as_models_grow(results):
    """À m = 64 : Colibri, puis les GPT-2, du plus petit au plus grand ; plus de 5 % chez lui, moins de 2 % chez XL."""
    shares = [added / total for (name, m), (_, total, added) in results("adapter_counts").items()
              if m == 64 and name != "BERT-large"]  # fmt: skip
    return shares == sorted(shares, reverse=True) and shares[0] > 0.05 > 0.02 > shares[-1]


def not_a_byte_of_the_base_moved(results):
    base, plugged, learned = results("same_start").values()
    return plugged[0] < 1e-4 < learned[0] and base[2] == plugged[2] == learned[2]


def each_voice_helps_its_text_and_harms_a(results):
    found = results("voices_swapped")
    base = found["Colibri"]
    helps = all(paired(found[v][t], base[t]).high < 0 for v, t in (("voix B", "b"), ("voix B′", "bprime")))
    return helps and all(paired(found[v]["a"], base["a"]).low > 0 for v in ("voix B", "voix B′"))


def silenced_adapters_leave_colibri_intact(results):
    found = results("voices_swapped")
    return all(
        isclose(one, other, abs_tol=1e-5)
        for text, losses in found["Colibri"].items()
        for one, other in zip(losses, found["voix retirée"][text], strict=True)
    )


def fantasy_helps_verse_and_verse_harms_fantasy(results):
    found = results("voices_swapped")
    base = found["Colibri"]
    return paired(found["voix B"]["bprime"], base["bprime"]).high < 0 < paired(found["voix B′"]["b"], base["b"]).low


def the_same_base_under_every_voice(results):
    told = [rows for opening, rows in results("voices_told").items() if opening not in ("échanges", "nombres")]
    return len({digest for rows in told for _, digest in rows.values()}) == 1


def a_reread_voice_is_the_same(results):
    return results("voice_files")["relue"]


def a_hundred_tasks_in_two_copies(results):
    """Cent tâches et la base, m = 64 : moins de 1,3 copie ; m = 256 : moins de deux."""
    found = results("hundred_adapters")
    return all((base + voices) / base < limit for (base, voices), limit in ((found[64], 1.3), (found[256], 2)))


# --- 7.6 : est-ce aussi bien ? ----------------------------------------------------------------------------------------


def adapters_learn_less_at_equal_steps(results):
    """Chacun à un taux qui n'est pas au bord ; l'intervalle entier est au-dessus de 2 %, sur les deux voix."""
    rates = results("adapter_voice_rates")
    fair = all(_best_inside(rates, name, text) for name in (FULL, ADAPTERS) for text in ("b", "bprime"))
    gaps = [_gap(_good(results, ADAPTERS, text), _good(results, FULL, text)) for text in ("b", "bprime")]
    return fair and all(gap.low > log(1.02) for gap in gaps)


def two_thirds_of_the_way_then_nine_tenths(results):
    """Nats gagnés par les adaptateurs, en part de ceux que gagnent tous les poids, moyennes de cinq graines."""
    found = results("as_good")
    share = {}
    for text in ("b", "bprime"):
        start = mean(found["avant"][text])
        own, full = (start - mean(map(mean, _good(results, name, text))) for name in (ADAPTERS, FULL))
        share[text] = own / full
    return 0.58 < share["b"] < 0.72 and 0.87 < share["bprime"] < 0.95


def full_forgets_more(results):
    gaps = [_gap(_good(results, FULL, text, 1), _good(results, ADAPTERS, text, 1)) for text in ("b", "bprime")]
    return all(gap.low > 0 for gap in gaps)


def more_steps_do_not_catch_up(results):
    """Une fois et demie plus de pas : toujours derrière tous les poids, sur les deux voix."""
    longer = results("adapters_for_longer")
    return all(_gap(longer[text], _good(results, FULL, text)).low > 0 for text in ("b", "bprime"))


def the_extra_steps_do_not_show(results):
    """Pas départagés des quarante pas, sur les deux voix ; sur la fantasy, une graine à plus de 20 % des autres."""
    longer = results("adapters_for_longer")
    apart = [_gap(longer[text], _good(results, ADAPTERS, text)).told_apart for text in ("b", "bprime")]
    worst, second = sorted(map(mean, longer["b"]), reverse=True)[:2]
    return not any(apart) and worst > second + log(1.2)


def _width(results, m, which=0):
    if m == 16:
        return _good(results, ADAPTERS, "b", which)
    return _seeds(results("widths_compared")[m]["pertes"], which)


def wider_learns_more_up_to_sixteen(results):
    rates = results("width_rates")
    fair = all(_best_inside(rates, f"adaptateurs, m = {m}", "b") for m in (2, 8, 64))
    return fair and all(_gap(_width(results, w), _width(results, t)).high < 0 for w, t in ((8, 2), (16, 8)))


def sixty_four_is_not_told_apart_and_forgets_more(results):
    learns, forgets = (_gap(_width(results, 64, which), _width(results, 16, which)) for which in (0, 1))
    return not learns.told_apart and forgets.low > log(1.05)


def its_rate_is_next_to_the_cliff(results):
    """Au taux double, plus de 1,5 fois la perplexité ; l'étendue des graines, plus du double de celle de 16."""
    rates = {lr: v for (name, _, lr), v in results("width_rates").items() if name == "adaptateurs, m = 64"}
    best = min(rates, key=rates.get)
    spans = [max(means) - min(means) for means in ([*map(mean, _width(results, m))] for m in (64, 16))]
    return rates[2 * best] > 1.5 * rates[best] and spans[0] > 2 * spans[1]


def no_width_catches_up(results):
    return all(_gap(_width(results, m), _good(results, FULL, "b")).low > 0 for m in (2, 8, 16, 64))


def no_block_holds_the_voice_alone(results):
    """Un bloc qui se tait prend moins de la moitié de ce que prennent tous, quel qu'il soit, sur les deux voix."""
    for found in results("silenced_adapters").values():
        cost = {name: mean(losses) - mean(found["aucun"]) for name, losses in found.items()}
        if any(cost[name] > 0.5 * cost["tous"] for name in cost if name.startswith("bloc")):
            return False
    return True


def the_first_block_is_not_missed_on_fantasy(results):
    found = results("silenced_adapters")["b"]
    return not paired(found["bloc 0"], found["aucun"]).told_apart


def the_top_and_the_mlp_work_most(results):
    """Le bloc du haut coûte plus que chaque autre, et le MLP plus que l'attention, apparié part à part."""
    for found in results("silenced_adapters").values():
        others = [f"bloc {i}" for i in range(4)]
        if not all(paired(found["bloc 4"], found[name]).low > 0 for name in others):
            return False
        if paired(found["après le MLP"], found["après l'attention"]).low <= 0:
            return False
    return True


# --- 7.7 : la famille -------------------------------------------------------------------------------------------------


def _selective(results, name, which=0):
    return _seeds(results("selective_ways")[name]["pertes"], which)


def selective_ways_are_not_told_apart_from_m_2(results):
    """Chacune à un taux qui n'est pas au bord."""
    rates, found = results("family_rates"), results("selective_ways")
    fair = all(_best_inside(rates, name, "b") for name in found)
    few = found["LayerNorm"]["paramètres"] == 4224 < results("widths_compared")[2]["paramètres"] / 2
    return fair and few and not any(_gap(_selective(results, name), _width(results, 2)).told_apart for name in found)


def bitfit_forgets_more(results):
    own = _selective(results, "BitFit", 1)
    return all(_gap(own, other).low > 0 for other in (_selective(results, "LayerNorm", 1), _width(results, 2, 1)))


def sixteen_beats_the_selective_ways(results):
    return all(_gap(_width(results, 16), _selective(results, n)).high < 0 for n in ("BitFit", "LayerNorm"))


# --- 7.8 : une base en 4 bits -----------------------------------------------------------------------------------------


def a_voice_learns_on_four_bits(results):
    """De 1 à 8 % au-dessus de la voix apprise sur la base exacte ; loin sous la base sans voix, qui perd de 1 à 4 %."""
    found, plain = results("four_bit_voices"), results("as_good")["avant"]["b"]
    gap = _gap(found["apprise dessus"], _good(results, ADAPTERS, "b"))
    helps = max(map(mean, found["apprise dessus"])) < mean(found["sans voix"]) - 0.05
    return helps and log(1.01) < gap.low < gap.high < log(1.08) and 0.01 < mean(found["sans voix"]) - mean(plain) < 0.04


def a_moved_voice_is_not_told_apart(results):
    found = results("four_bit_voices")
    return not _gap(found["apprise en FP32, posée dessus"], found["apprise dessus"]).told_apart


def forty_steps_mend_next_to_nothing(results):
    """Sur l'extrait de réglage : relire A, jamais mieux que la base ; imiter, moins de 0,2 % de perplexité gagnée."""
    found = results("mending_rates")
    base = found["sans réparer", "a", 0.0]
    best = {who: min(v for (name, *_), v in found.items() if name == who) for who, *_ in found}
    return best["relire A"] >= base > best["imiter Colibri sur A"] > 0.998 * base


# --- 7.9 à 7.11 : compter, mesurer ------------------------------------------------------------------------------------


def _per_token(row):
    forward, backward, _, attention, n, tokens = row
    return (forward - attention / 3) / n / tokens, (backward - 2 * attention / 3) / n / tokens


def six_becomes_four(results):
    """Attention ôtée, à 7 % près : 2N en avant ; en arrière, 4N pour tous les poids, 2N pour les adaptateurs."""
    found = results("counted_adapter_steps")
    wanted = {"tous les poids": (2, 4), "adaptateurs partout": (2, 2)}
    return all(
        all(isclose(seen, told, rel_tol=0.07) for seen, told in zip(_per_token(row), wanted[name], strict=True))
        for (_, name), row in found.items()
        if name in wanted
    )


def attention_gains_nothing(results):
    """Attention comprise, le pas d'adaptateurs garde de 66,7 à 70 % des opérations."""
    found = results("counted_adapter_steps")
    shapes = {shape for shape, _ in found}
    kept = [sum(found[s, "adaptateurs partout"][:2]) / sum(found[s, "tous les poids"][:2]) for s in shapes]
    return all(2 / 3 < share < 0.7 for share in kept)


def the_formula_counts_too_much_at_the_top(results):
    found = results("counted_adapter_steps")
    rows = [row for (_, name), row in found.items() if name == "adaptateurs en haut"]
    return all(row[2] + row[3] > 1.2 * (row[0] + row[1]) for row in rows)


def moments_melt_and_your_formula_is_exact(results):
    found = results("adapter_memory")
    exact = all(moments == yours for _, _, moments, yours, _ in found.values())
    pairs = [(found[s, "tous les poids"], found[s, "adaptateurs partout"]) for s in {shape for shape, _ in found}]
    return exact and all(full[i] > 40 * few[i] for full, few in pairs for i in (1, 2))


def activations_stay_unless_the_gradient_stops(results):
    """Pic moins gradients : plus de 60 % restent avec des adaptateurs partout, moins de 60 % en haut."""
    found = results("adapter_memory")

    def share(shape, name):
        own, full = ((peak - gradients) for _, gradients, *_, peak in (found[shape, name], found[shape, FULL]))
        return own / full

    shapes = {shape for shape, _ in found}
    return all(share(s, "adaptateurs partout") > 0.6 > share(s, "adaptateurs en haut") for s in shapes)


def who_fills_the_memory(results):
    """Tous les poids : les activations dominent chez Colibri (8 × 128), les poids et la suite chez GPT-2 (1 × 128)."""
    found = results("adapter_memory")
    sizes = {}
    for shape in ("Colibri", "GPT-2 small"):
        weights, gradients, moments, _, peak = found[shape, FULL]
        sizes[shape] = (peak - gradients) / (weights + gradients + moments)
    return sizes["Colibri"] > 1 > sizes["GPT-2 small"]


def the_overhead_is_counted_exactly(results):
    rows = [row for row in results("counted_overheads").values() if row[1] is not None]
    return bool(rows) and all(isclose(yours, seen, rel_tol=1e-6) for yours, seen in rows)


def the_overhead_is_a_few_percent(results):
    found = {key: yours for key, (yours, _) in results("counted_overheads").items()}
    return max(found.values()) == found["Colibri", 64, 128] < 0.12 and found["GPT-2 XL", 64, 1024] < 0.02
