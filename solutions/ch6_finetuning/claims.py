"""Les affirmations du chapitre 6, sur les résultats enregistrés.

Les écarts de perplexités sont ceux de leurs logarithmes, graine par graine ; ceux de justesses se départagent si deux
intervalles excluent zéro : graine par graine, et question par question.
"""

from __future__ import annotations

from math import log
from statistics import mean

from atelier.evidence import paired
from atelier.figures.ch6.chat import share_of
from atelier.figures.ch6.compare import gaps, points


def _gap(one, other):
    """Écart de log-perplexité, graine par graine : un − autre."""
    return paired([log(v) for v in one], [log(v) for v in other])


def _inside(tried, best=min):
    """Le meilleur réglage, et s'il n'est pas au bord de la grille. tried : réglage → note."""
    found = best(tried, key=tried.get)
    return found, min(tried) < found < max(tried)


# --- 6.1 : changer de voix --------------------------------------------------------------------------------------------


def new_texts_are_harder(results):
    found = results("before_tuning")
    return found["b"] > 4 * found["a"] and found["bprime"] > 10 * found["a"]


def every_voice_gains_and_forgets(results):
    found = results("new_voices")["perplexités"]
    before = found["Colibri"]
    pairs = {"b": found["fine-tuné sur B"], "bprime": found["fine-tuné sur B′"]}
    gained = all(after[voice] < 0.9 * before[voice] for voice, after in pairs.items())
    return gained and all(after["a"] > 1.05 * before["a"] for after in pairs.values())


def _ends(results):
    """(sur B, sur A) à la fin du fine-tuning de tous les poids, par graine."""
    return [tuple(trace[-1][1:]) for trace in results("forgetting")]


def the_rate_is_a_compromise(results):
    """Le meilleur pour B n'est pas au bord ; la moitié oublie moins ; le double perd moins de 3 % et oublie plus."""
    found = {lr: scores for (start, lr), scores in results("voice_rates").items() if start == "Colibri"}
    best, inside = _inside({lr: new for lr, (new, _) in found.items()})
    (half, half_old), (new, old), (double, double_old) = (found[lr] for lr in (best / 2, best, 2 * best))
    worst_new, worst_old = found[max(found)]
    return (
        inside
        and half_old < old < double_old
        and new < half < 1.05 * new
        and new < double < 1.03 * new
        and worst_new > 1.5 * new
        and worst_old > 5 * old
    )


def forty_steps_from_scratch_are_nothing(results):
    return min(new for (start, _), (new, _) in results("voice_rates").items() if start == "zéro") > 500


# --- 6.8 et 6.9 : octets ----------------------------------------------------------------------------------------------


def freezing_the_bottom_frees_activations(results):
    kept = {name: row["activations"] for name, row in results("activation_bytes").items()}
    return kept["dernier bloc"] < 0.35 * kept["tout"] and kept["premier bloc"] > 0.8 * kept["tout"]


def checkpointing_trades_bytes_for_flops(results):
    whole, again = (results("activation_bytes")[name] for name in ("tout", "tout, refait"))
    return 5.5 < whole["activations"] / again["activations"] < 6.5 and 1.14 < again["FLOP"] / whole["FLOP"] < 1.19


def the_base_weighs_when_little_learns(results):
    found = results("counted_recipes")
    (whole, part), (small, small_part) = list(found.values())[:2]
    four_bits = [last for _, last in list(found.values())[2:]]
    return small < 0.65 * whole and small_part > 0.95 * part and max(four_bits) < 0.4 * part


def a_shared_base_takes_a_hundredth(results):
    found = results("hundred_tasks")
    copies, base = found["une copie entière"][-1], found["une copie entière"][0]
    kept = [found[name][-1] for name in found if name.startswith(("adaptateurs", "LoRA"))]
    return all(90 < copies / v < 101 and v - base < base for v in kept)


def forgetting_comes_with_progress(results):
    """Au vingtième pas, plus de la moitié du progrès et de l'oubli de la fin, en log-perplexité, en moyenne."""
    shares = {1: [], 2: []}
    for trace in results("forgetting"):
        at = {point[0]: point for point in trace}
        for column, found in shares.items():
            found.append(log(at[20][column] / at[0][column]) / log(at[40][column] / at[0][column]))
    return all(mean(found) > 0.5 for found in shares.values())


def every_seed_gains_and_forgets(results):
    pairs = [(trace[0], trace[-1]) for trace in results("forgetting")]
    return all(after[1] < 0.95 * before[1] and after[2] > 1.02 * before[2] for before, after in pairs)


def rehearsal_buys_back_some(results):
    """Sur A, moins de perplexité ; sur B, un peu plus."""
    one, none = results("rehearsal")[1], _ends(results)
    old, new = (_gap([s[c] for s in one], [s[c] for s in none]) for c in (1, 0))
    return old.high < 0 < new.low and new.high < log(1.06)


# --- 6.3 et 6.4 : classer ---------------------------------------------------------------------------------------------


def _right(results):
    return results("transfer") | results("two_factors")


def transfer_beats_scratch(results):
    found = _right(results)
    every = [gaps(found["tout", "dernier", n], found["zéro", "dernier", n]) for n in (50, 200)]
    return all(both.told_apart and both.by_seed.mean > 0 for both in every)


def last_token_does_not_beat_words(results):
    found = _right(results)
    every = [gaps(found["tout", "dernier", n], found["TF-IDF", "mots", n]) for n in (50, 200, 800)]
    return not any(both.told_apart and both.by_seed.mean > 0 for both in every)


def reading_decides_when_frozen(results):
    """Moyenne − dernier, gelé : de 13 à 15 points à 50 textes, de 18 à 23 ensuite ; geler, sur la moyenne : rien."""
    found = _right(results)
    reading = {n: gaps(found["gelé", "moyenne", n], found["gelé", "dernier", n]) for n in (50, 200, 800)}
    freezing = [gaps(found["gelé", "moyenne", n], found["tout", "moyenne", n]) for n in (50, 200, 800)]
    sizes = 0.13 < reading[50].by_seed.mean < 0.15 and all(0.18 < reading[n].by_seed.mean < 0.23 for n in (200, 800))
    return sizes and all(both.told_apart for both in reading.values()) and not any(b.told_apart for b in freezing)


def reading_decides_at_50(results):
    found = _right(results)
    both = gaps(found["tout", "moyenne", 50], found["tout", "dernier", 50])
    return both.told_apart and both.by_seed.mean > 0


def reading_fades_as_texts_come(results):
    found = _right(results)
    later = [gaps(found["tout", "moyenne", n], found["tout", "dernier", n]) for n in (200, 800)]
    words = {n: gaps(found["tout", "moyenne", n], found["TF-IDF", "mots", n]) for n in (50, 200, 800)}
    beats = words[50].told_apart and words[50].by_seed.mean > 0
    return beats and not any(both.told_apart for both in later) and all(words[n].by_seed.mean < 0 for n in (200, 800))


def three_million_weights_learn_from_50_texts(results):
    """Tout fine-tuné, lu par la moyenne, à moins de trois points du corps gelé lu de même."""
    found = _right(results)
    return points(found["tout", "moyenne", 50]) > points(found["gelé", "moyenne", 50]) - 3


def best_settings_are_inside(results):
    """Au bord, la note du meilleur ne dépasse pas celle de son voisin de plus d'un point et demi."""
    found = results("class_settings")
    for way, n in dict.fromkeys((key[:2], key[2]) for key in found):
        tried = {key[3]: mean(v) for key, v in found.items() if key[:2] == way and key[2] == n}
        best, inside = _inside(tried, max)
        rest = sorted(tried, key=lambda value: abs(log(value / best)))
        if not inside and tried[best] - tried[rest[1]] > 0.015:
            return False
    return True


def _floor(results, name, column):
    return [s[column] for s in results("depths")[name]["perplexités"]]


def _share(results, floor):
    """Part du progrès de « tout » sur la fantasy, en log-perplexité, que fait cet étage seul."""
    before = results("before_tuning")["b"]
    mine = mean(log(before / v) for v in _floor(results, floor, 0))
    return mine / mean(log(before / end[0]) for end in _ends(results))


def _forgets(results, floor):
    return _gap(_floor(results, floor, 1), [end[1] for end in _ends(results)])


def the_last_block_does_most_and_forgets_more(results):
    return _share(results, "dernier bloc") > 0.5 and _forgets(results, "dernier bloc").low > 0


def the_table_forgets_least(results):
    table, block = ([_floor(results, name, k) for k in (0, 1)] for name in ("table des jetons", "dernier bloc"))
    less = _gap(table[1], block[1]).high < 0 and _forgets(results, "table des jetons").high < 0
    return _share(results, "table des jetons") > 0.75 and less and not _gap(table[0], block[0]).told_apart


def a_layernorm_goes_a_third(results):
    count = results("depths")["dernier LayerNorm"]["paramètres"]
    return count == 384 and 0.28 < _share(results, "dernier LayerNorm") < 0.34


# --- 6.5 à 6.7 : des mots, des textes, des conversations --------------------------------------------------------------


def the_last_piece_reads_better(results):
    found = results("tagging")
    both = gaps(found["Colibri", "dernier"], found["Colibri", "premier"])
    each = found["Colibri", "dernier"].float().mean(1) > found["Colibri", "premier"].float().mean(1)
    return both.told_apart and both.by_seed.mean > 0 and bool(each.all())


def littre_words_win_at_this_budget(results):
    found = results("littre")
    both = gaps(found["Colibri"], found["TF-IDF"])
    return not (both.told_apart and both.by_seed.mean > 0)


def the_memory_is_not_beaten(results):
    found = results("translation")
    memory = found["phrase connue la plus proche"][0]["chrf"]
    return all(n["chrf"] < memory for way in ("réponse seule", "amorce aussi") for n in found[way])


def the_right_prompt_helps(results):
    return all(n["autre amorce"] > 1.5 * n["bonne amorce"] for n in results("translation")["réponse seule"])


def masking_the_prompt_helps(results):
    found = results("translation")
    masked, read = ([n["chrf"] for n in found[way]] for way in ("réponse seule", "amorce aussi"))
    return paired(masked, read).low > 0 and all(a > b for a, b in zip(masked, read, strict=True))


def pad_as_end_never_ends(results):
    found = results("padding_is_end")
    return max(share_of(found["pad = eos"], 0)) < 5 and min(share_of(found["fin de tour apprise"], 0)) > 90
