"""Les affirmations du chapitre 4, sur les résultats enregistrés. Les écarts sont ceux de log-perplexités appariées."""

from __future__ import annotations

import json
import math
from math import log
from statistics import mean, median

from atelier.evidence import paired, perplexity_of
from atelier.experiments import load
from atelier.paths import asset

HARD, SOFT, WARM, HOT = (1.0, 0.0), (1.0, 1.0), (2.0, 1.0), (4.0, 1.0)


def _gap(one, other):
    """Écart de log-perplexité, graine par graine : un − autre."""
    return paired([log(v) for v in one], [log(v) for v in other])


def _board(name):
    """La ligne de ce nom, au tableau de l'auteur."""
    rows = json.loads(asset("results", "tableau.json").read_text(encoding="utf-8"))
    return next(row for row in rows if row["name"] == name)


def _notes(results, labels, key="perplexité"):
    return [n[key] for n in results("labels_compared")["notes"][labels]]


def _best(found, name):
    """Le meilleur taux d'un élève, et s'il n'est pas au bord de la grille."""
    tried = {lr: value for (who, lr), value in found.items() if who == name and lr}
    best = min(tried, key=tried.get)
    return best, min(tried) < best < max(tried)


# --- 4.4 à 4.6 : des lois, un élève, un gradient ----------------------------------------------------------------------


def a_divergence_is_not_a_distance(results):
    rows = {name: (one, other) for name, _, _, one, other in results("divergences")}
    differ = rows["un peu différentes"]
    excluded = rows["P croit possible ce que Q exclut"]
    return (
        min(v for pair in rows.values() for v in pair) >= 0
        and max(map(abs, rows["les mêmes"])) < 1e-9 < min(differ)
        and abs(differ[0] - differ[1]) > 1e-4
        and math.isinf(excluded[0])
        and math.isfinite(excluded[1])
    )


def one_direction_covers_the_other_chooses(results):
    """Directe : une cloche large, entre les bosses (−2 et 2,5) ; inverse : une cloche étroite, sur l'une d'elles."""
    (c1, w1, _), (c2, w2, _) = results("two_directions").values()
    return -1.5 < c1 < 2 and w1 > 1.5 and w2 < 1 and min(abs(c2 + 2), abs(c2 - 2.5)) < 0.3


def perplexity_soars_as_blocks_go(results):
    scores = [row["perplexité"] for _, row in sorted(results("depths_before").items(), reverse=True)]
    return all(b > 1.5 * a for a, b in zip(scores, scores[1:], strict=False))


def the_first_and_the_last_are_the_best_pair(results):
    pairs = sorted((v, kept) for kept, v in results("choices_before")["perplexités"].items() if len(kept) == 2)
    return pairs[0][1] == (0, 4) and pairs[1][0] > 1.5 * pairs[0][0]


def block_3_costs_the_least(results):
    fours = sorted((v, kept) for kept, v in results("choices_before")["perplexités"].items() if len(kept) == 4)
    return fours[0][1] == (0, 1, 2, 4) and fours[0][0] < results("choices_before")["perplexités"][0, 1, 3, 4] * 0.97


def t_squared_keeps_the_order_of_magnitude(results):
    """À 1,5 près jusqu'à T = 2, à 1,2 près dès T = 8 ; entre, de 5 à 20 ; sans T², plus de 10 000 de T = 1 à 32."""
    size = {t: norm for t, (norm, _) in results("gradient_sizes").items()}
    low, high = ([size[t] for t in size if inside(t)] for inside in (lambda t: t <= 2, lambda t: t >= 8))
    flat = max(low) / min(low) < 1.5 and max(high) / min(high) < 1.2
    return flat and 5 < size[2] / size[8] < 20 and size[1] / size[32] * 32**2 > 10_000


def hot_gradients_match_logits(results):
    found = results("gradient_sizes")
    return found[32][1] > 0.95 and found[0.5][1] < 0.5


def adam_does_not_see_t_squared(results):
    found = results("adam_hides_it")
    gap = paired(found["sans T²"], found["avec T²"])
    return max(abs(gap.low), abs(gap.high)) < 0.005


def one_lesson_changes_the_student(results):
    found = results("first_lesson")
    return found["avant"] > 100 and 20 < found["après"] < 100


# --- 4.8 : dures ou douces --------------------------------------------------------------------------------------------


def soft_labels_want_a_larger_rate(results):
    found = results("label_rates")
    hard, inside = _best(found, HARD)
    soft = [_best(found, labels) for labels in (SOFT, WARM, HOT)]
    return inside and all(ok and rate == 2 * hard for rate, ok in soft)


def soft_beats_hard_at_equal_steps(results):
    return _gap(_notes(results, SOFT), _notes(results, HARD)).high < log(0.93)


def heat_hurts(results):
    """Sans étiquettes dures, T = 2 perd sur T = 1, et T = 4 aussi."""
    one, two, four = (_notes(results, labels) for labels in (SOFT, WARM, HOT))
    return _gap(two, one).low > 0 and _gap(four, one).low > 0


def at_t_2_soft_and_hard_cannot_be_told_apart(results):
    return not _gap(_notes(results, WARM), _notes(results, HARD)).told_apart


def soft_imitates_better(results):
    """KL plus petite et plus de premiers choix communs que les étiquettes dures, et qu'à T = 2."""
    kl = [paired(_notes(results, SOFT, "KL"), _notes(results, other, "KL")).high < 0 for other in (HARD, WARM)]
    same = paired(_notes(results, SOFT, "accord"), _notes(results, HARD, "accord")).low > 0
    return all(kl) and same


def students_stay_far_from_their_teacher(results):
    return min(_notes(results, SOFT, "KL")) > 1 and 0.3 < mean(_notes(results, SOFT, "accord")) < 0.35


def heat_spoils_calibration(results):
    """À T = 1, l'ECE ne se départage pas de celle des dures ; à T = 2, plus du double, à chaque graine."""
    soft, hard, warm = (_notes(results, labels, "ECE") for labels in (SOFT, HARD, WARM))
    double = all(w > 2 * max(s, h) for s, h, w in zip(soft, hard, warm, strict=True))
    return not paired(soft, hard).told_apart and double


def heat_is_harmless_beside_text(results):
    one = _notes(results, (1.0, 0.5))
    return all(_gap(_notes(results, (t, 0.5)), one).low < 0 for t in (2.0, 4.0))


def hard_labels_are_noisy_soft_ones(results):
    """L'accord grandit avec le nombre de tirages ; celui d'un seul est plus bas après la leçon qu'avant."""
    found = results("draws_from_teacher")
    draws = sorted(n for when, n in found if when == "après" and n != "texte")
    growing = all(
        [found[when, n] for n in draws] == sorted(found[when, n] for n in draws) for when in ("avant", "après")
    )
    return growing and found["après", 1] < 0.9 < 0.95 < found["avant", 1] and found["après", draws[-1]] > 0.99


def a_word_of_the_text_is_like_one_draw(results):
    found = results("draws_from_teacher")
    return all(abs(found[when, "texte"] - found[when, 1]) < 0.01 for when in ("avant", "après"))


def a_taught_step_costs_less_than_two(results):
    """Au chronomètre, médiane contre médiane ; par le compte, (6 × 1,73 + 2 × 3,06) / (6 × 1,73) = 1,59."""
    times = results("step_times")
    return 1 < median(times["douces"]) / median(times["dures"]) < 2


def twice_the_steps_catch_up(results):
    return not _gap(_notes(results, SOFT), results("hard_for_longer")[2.0]).told_apart


# --- 4.9 et 4.10 : le départ, la taille -------------------------------------------------------------------------------


def soft_wins_from_scratch_at_t_1(results):
    found = results("random_start")["perplexités"]
    return _gap(found["douces, T = 1"], found["dures"]).high < 0


def t_2_was_the_culprit(results):
    found = results("random_start")["perplexités"]
    return _gap(found["douces, T = 2"], found["dures"]).low > 0


def _long(results, labels, key):
    return [n[key] for n in results("longer_lessons")["notes"][f"hasard, {labels}"]]


def longer_lessons_keep_the_order(results):
    """En 150 pas, chacun à un taux qui n'est pas au bord de sa grille."""
    rates = results("longer_rates")
    inside = all(_best(rates, f"hasard, {labels}")[1] for labels in ("dures", "douces, T = 1", "douces, T = 2"))
    hard, soft, warm = (_long(results, labels, "perplexité") for labels in ("dures", "douces, T = 1", "douces, T = 2"))
    return inside and _gap(soft, hard).high < 0 < _gap(warm, hard).low


def longer_lessons_keep_the_calibration(results):
    hard, soft, warm = (_long(results, labels, "ECE") for labels in ("dures", "douces, T = 1", "douces, T = 2"))
    return not paired(soft, hard).told_apart and min(warm) > 3 * max(*hard, *soft)


def inheriting_counts_more_than_labels(results):
    found = results("random_start")["perplexités"]
    return min(min(v) for v in found.values()) > 3 * max(_notes(results, HARD))


def a_better_start_still_shows(results):
    return _gap(results("pairs_after"), _notes(results, SOFT)).low > 0


def larger_students_want_smaller_rates(results):
    """Des taux au moins deux fois plus petits ; à celui de deux blocs, quatre blocs ne gagnent pas 3 %."""
    two, _ = _best(results("label_rates"), SOFT)
    found = results("size_rates")
    best = [_best(found, name) for name in ("3 blocs", "4 blocs")]
    return (
        all(inside and rate <= two / 2 for rate, inside in best)
        and found["4 blocs", two] > 0.97 * found["4 blocs", 0.0]
    )


def four_blocks_come_close(results):
    found = results("sizes_compared")
    _, whole = found["Colibri"]
    four = found["élèves"]["4 blocs"]
    return max(four["après"]) < 0.95 * four["avant"] and mean(four["après"]) / whole < 1.5


# --- 4.11 : ensembles -------------------------------------------------------------------------------------------------


def an_ensemble_beats_its_best_member(results):
    found = results("consulted_together")
    return found["moyenne des lois"]["perplexité"] < 0.98 * min(n["perplexité"] for n in found["chacun"])


def a_peer_teaches_less_than_the_text(results):
    return _gap(results("who_teaches")["un pareil"], _notes(results, HARD)).low > 0


def three_peers_beat_one_not_the_text(results):
    found = results("who_teaches")
    beat_one = _gap(found["trois pareils"], found["un pareil"]).high < 0
    return beat_one and _gap(found["trois pareils"], _notes(results, HARD)).high > 0


def only_colibri_beats_the_text(results):
    peers = results("who_teaches").values()
    return soft_beats_hard_at_equal_steps(results) and all(
        _gap(_notes(results, SOFT), scores).high < 0 for scores in peers
    )


# --- 4.12 à 4.14 : pour aller plus loin -------------------------------------------------------------------------------


def _kept(results, way, key="perplexité"):
    return [n[key] for n in results("kept_scores")[way]]


def four_and_the_rest_are_worth_hard_labels(results):
    """Pires que toutes les probabilités ; à moins de 6 % des étiquettes dures, d'un côté ou de l'autre."""
    found = _kept(results, "4, et le reste")
    gap = _gap(found, _notes(results, HARD))
    return _gap(found, _notes(results, SOFT)).low > log(1.05) and log(0.94) < gap.low and gap.high < log(1.06)


def keeping_four_costs_calibration(results):
    return paired(_kept(results, "4, et le reste", "ECE"), _notes(results, SOFT, "ECE")).low > 0.02


def forgetting_the_rest_is_far_worse(results):
    return _gap(_kept(results, "4, renormalisés"), _kept(results, "4, et le reste")).low > log(3)


def reading_colibri_or_the_book_cannot_be_told_apart(results):
    found = results("colibris_own_text")
    score, kl = ([[n[key] for n in found[who]] for who in ("Colibri", "livre")] for key in ("perplexité", "KL"))
    return not _gap(*score).told_apart and not paired(*kl).told_apart


READ, COVER, CHOOSE = "le texte, couvrir", "ses phrases, couvrir", "ses phrases, choisir"
TURNS = "tour à tour, choisir"


def _own(results, way, key="divergence", against=None):
    """L'écart d'une façon à une autre, graine à graine, ou au point de départ."""
    found = results("own_sentences")
    runs = [run[key] for run in found[way]]
    other = [run[key] for run in found[against]] if against else [found["départ"][0][key]] * len(runs)
    return paired(runs, other)


def own_sentences_bring_the_student_closer(results):
    """Plus près que le départ et que la lecture ; au moins le double de ce que la lecture a gagné."""
    read = _own(results, READ).mean
    return all(
        _own(results, way).high < 0 and _own(results, way, against=READ).high < 0 and _own(results, way).mean < 2 * read
        for way in (COVER, CHOOSE, TURNS)
    )


def the_direction_decides_on_own_sentences(results):
    """Couvrir : perte de Colibri et entropie montent ; choisir : l'une et l'autre baissent."""
    keys = ("perte de Colibri", "entropie")
    return all(_own(results, COVER, k).low > 0 and _own(results, CHOOSE, k).high < 0 for k in keys)


def own_sentences_alone_cost_perplexity(results):
    found = results("own_sentences")
    rise = mean(r["perplexité"] for r in found[CHOOSE]) / found["départ"][0]["perplexité"]
    return 1.4 < rise < 1.5 and all(_own(results, way, "perplexité").low > 0 for way in (COVER, CHOOSE))


def taking_turns_keeps_both(results):
    """Ni sa divergence de celle de qui choisit, ni sa perplexité de celle de qui lit : rien ne les départage."""
    closer, reads = _own(results, TURNS, against=CHOOSE), _own(results, TURNS, "perplexité", READ)
    return not closer.told_apart and not reads.told_apart and _own(results, TURNS).high < 0


def a_wrong_rate_hides_the_gain(results):
    """À chaque façon d'écrire, le meilleur taux n'est pas au bord ; à 4·10⁻³ et à 10⁻⁴, moins du tiers du gain."""
    tried = {key: mean(values) for key, values in results("own_rates").items()}
    read = min(v for (way, _), v in tried.items() if way == READ)
    for way in (COVER, CHOOSE, TURNS):
        found = {lr: v for (who, lr), v in tried.items() if who == way}
        gain = read - min(found.values())
        if min(found, key=found.get) in (1e-4, 4e-3) or max(read - found[1e-4], read - found[4e-3]) > gain / 3:
            return False
    return True


def soft_repairs_better_than_hard(results):
    found = results("repaired")
    scores = {name: [perplexity_of(v) for k, v in found.items() if k[0] == name] for name in ("dures", "douces")}
    return _gap(scores["douces"], scores["dures"]).high < 0


def a_repair_gives_back_some(results):
    """Des nats que l'arrondi avait pris, de 30 à 50 % sont rendus, à chaque graine."""
    found = results("repaired")
    lost = paired(found["arrondi"], found["Colibri"]).mean
    return all(0.5 < paired(v, found["Colibri"]).mean / lost < 0.7 for k, v in found.items() if k[0] == "douces")


def gptq_still_does_better(results):
    """En rapport à Colibri, chacun sur l'extrait de son chapitre : GPTQ sur 3 bits, au pas choisi, est plus bas."""
    path = asset("results", "ch3_quantification", "gptq_sweep.json")
    gptq, found = load(path).value["pertes"], results("repaired")
    whole = perplexity_of(found["Colibri"])
    repaired = min(perplexity_of(v) / whole for k, v in found.items() if k[0] == "douces")
    return perplexity_of(gptq["choisie", 3]) / perplexity_of(gptq["FP32"]) < repaired - 0.05


# --- 4.16 : le tableau ------------------------------------------------------------------------------------------------


def bits_beat_blocks_at_equal_bytes(results):
    bits, blocks = _board("int4-gptq"), _board("eleve-2-blocs")
    same = bits["tokens"] == blocks["tokens"] and 0.8 < bits["bytes"] / blocks["bytes"] < 1.25
    return same and bits["perplexity"] < blocks["perplexity"] / 2
