"""Les affirmations du chapitre 9, sur les résultats enregistrés. Les écarts de pertes sont en nats."""

from __future__ import annotations

import itertools
from math import log
from statistics import mean

from atelier.evidence import paired
from atelier.figures.ch9.attention import recovered_gap, spans
from atelier.figures.ch9.experts import heaviest
from atelier.figures.ch9.runs import best_rate, by_recipe
from atelier.figures.ch9.speculation import accepted, by_draft, written


def _inside(tried):
    """Vrai si le meilleur taux n'est pas au bord de la grille."""
    return min(tried) < best_rate(tried) < max(tried)


# --- 9.1 : le décodage spéculatif -------------------------------------------------------------------------------------


def drafts_never_change_the_text(results):
    return all(all(row["pareil"]) for row in results("kept_by_the_target").values())


def deeper_drafts_are_kept_more(results):
    """À chaque K, un bloc de plus, une plus grande part gardée ; cinq graines, appariées."""
    found = by_draft(results("kept_by_the_target"))
    share = {(name, k): [accepted(row, k) for row in runs] for (name, k), runs in found.items()}
    pairs = (("3 blocs", "2 blocs"), ("2 blocs", "1 bloc"))
    return all(paired(share[more, k], share[less, k]).low > 0 for more, less in pairs for k in (1, 2, 4))


def longer_proposals_pay_less_and_less(results):
    """De K = 1 à 2, puis à 4 : chaque jeton proposé de plus ajoute moins de jetons écrits."""
    found = by_draft(results("kept_by_the_target"))
    told = {key: mean(written(row) for row in runs) for key, runs in found.items()}
    return all(
        told[name, 1] - 1 > told[name, 2] - told[name, 1] > (told[name, 4] - told[name, 2]) / 2 > 0
        for name in ("1 bloc", "2 blocs", "3 blocs")
    )


def speculation_keeps_the_law(results):
    runs = results("drawn_tokens")["graines"]
    told = {name: [run[name] for run in runs] for name in ("spéculatif", "tirages directs", "brouillon seul")}
    same = abs(mean(told["spéculatif"]) - mean(told["tirages directs"])) < 0.01
    return same and paired(told["brouillon seul"], told["spéculatif"]).low > 0.05


def the_kept_share_is_the_common_mass(results):
    """À deux centièmes près, pour chaque graine."""
    found = results("drawn_tokens")
    return all(abs(run["gardés"] - found["commun"]) < 0.02 for run in found["graines"])


# --- 9.2 : moins de clés, moins loin ----------------------------------------------------------------------------------


def pooling_hurts_the_more_heads_are_tied(results):
    """De trois têtes à deux, puis à une, la perte monte, part à part ; à trois, déjà de plus d'un nat."""
    found = results("pooled_heads")
    before, sizes = found["avant"], found["octets"]
    proportional = all(sizes[count] * 6 == sizes[6] * count for count in sizes)
    ordered = all(paired(before[less], before[more]).low > 0 for less, more in ((1, 2), (2, 3)))
    return proportional and ordered and paired(before[3], before[6]).low > 1


def a_short_recovery_is_not_enough(results):
    """Même à trois têtes, la perplexité reste plus de quatre fois celle de Colibri ; les taux sont réglés."""
    found = results("pooled_heads")
    tuned = all(_inside(tried) for tried in by_recipe(results("pooled_rates")["perplexités"]).values())
    whole = mean(found["avant"][6])
    mended = [1 - recovered_gap(found, n).mean / (mean(found["avant"][n]) - whole) for n in (3, 2, 1)]
    return tuned and all(1 / 4 < share < 1 / 3 for share in mended) and recovered_gap(found, 3).low > log(4)


def narrower_windows_cost_more(results):
    found = results("narrow_windows")["pertes"]
    reaches = sorted({reach for reach, _ in found})
    return all(paired(found[a, 0], found[b, 0]).low > 0 for a, b in itertools.pairwise(reaches))


def the_first_tokens_help(results):
    """De 4 à 128 jetons, quatre premiers jetons de plus font mieux, et de moins en moins."""
    found = results("narrow_windows")["pertes"]
    gaps = [paired(found[reach, 4], found[reach, 0]) for reach in (4, 8, 16, 32, 64, 128)]
    return all(gap.high < 0 for gap in gaps) and [gap.mean for gap in gaps] == sorted(gap.mean for gap in gaps)


def the_last_tokens_are_worth_more(results):
    found = results("narrow_windows")["pertes"]
    return paired(found[4, 4], found[8, 0]).low > 0


# --- 9.3 : RoPE -------------------------------------------------------------------------------------------------------


def scores_see_the_distance(results):
    scores = results("turned_scores")["scores"].values()
    return max(max(column) - min(column) for column in zip(*scores, strict=True)) < 1e-3


def _spans(results):
    return {way: [spans(run) for run in runs] for way, runs in results("past_the_end")["pertes"].items()}


def ranks_are_needed(results):
    """Aux rangs appris, table et RoPE sous 0,1 nat ; sans rangs, plus d'un nat de plus, à chaque graine."""
    told = {way: [part["13 à 64"] for part in parts] for way, parts in _spans(results).items()}
    tuned = all(_inside(tried) for tried in by_recipe(results("rank_rates")["pertes"]).values())
    return tuned and max(told["table"] + told["RoPE"]) < 0.1 and min(told["rien"]) > 1


def rope_lasts_longer_than_the_table(results):
    """Du 65e au 96e rang, RoPE est devant, et la table plus mauvaise que le hasard ; à la fin, RoPE aussi est perdu."""
    found = _spans(results)
    near = {way: [part["65 à 96"] for part in parts] for way, parts in found.items()}
    ends = [part["193 à 256"] - part["65 à 96"] for part in found["RoPE"]]
    return paired(near["RoPE"], near["table"]).high < -1 and min(near["table"]) > log(32) and min(ends) > 0.5


def rope_is_lost_in_the_end(results):
    far = {way: [part["193 à 256"] for part in parts] for way, parts in _spans(results).items()}
    return paired(far["RoPE"], far["table"]).low > 0


# --- 9.4 : le mélange d'experts ---------------------------------------------------------------------------------------


def balancing_spreads_the_load(results):
    """La part de l'expert le plus chargé, graine à graine ; sans équilibrage, elle passe le double de la part égale."""
    models = results("expert_loads")["modèles"]
    free, fair = (heaviest(models[f"8 experts, {way} équilibrage"]) for way in ("sans", "avec"))
    return paired(free, fair).low > 0 and min(free) > 2 / 8 and max(fair) < 2 / 8


def experts_have_not_paid_yet(results):
    models = results("expert_loads")["modèles"]
    tuned = all(_inside(tried) for tried in by_recipe(results("mixture_rates")["pertes"]).values())
    pairs = itertools.combinations([row["pertes"] for row in models.values()], 2)
    counts = [row["paramètres"] for row in models.values()]
    return tuned and counts[1] > 4 * counts[0] and not any(paired(a, b).told_apart for a, b in pairs)


# --- 9.5 : DETR -------------------------------------------------------------------------------------------------------


def greedy_pays_at_the_end(results):
    found = results("two_matchings")
    extra = [mean(greedy / best - 1 for greedy, best in found[n]) for n in sorted(found)]
    return extra == sorted(extra) and extra[-1] > 0.05


def no_matching_learns_little(results):
    scores = results("sets_learned")["scores"]
    return paired(scores["optimal"], scores["aucun"]).low > 0.3


def greedy_learns_as_well_here(results):
    scores = results("sets_learned")["scores"]
    return not paired(scores["optimal"], scores["glouton"]).told_apart


# --- 9.6 : RLHF -------------------------------------------------------------------------------------------------------


def best_of_n_pleases_the_judge(results):
    """La note de la suite choisie parmi 16, contre une suite au hasard ; cinq graines, appariées."""
    notes = results("best_of")["notes"]
    return paired(notes["récompense", 16], notes["récompense", 1]).low > 0


def the_reward_model_is_not_the_judge(results):
    notes = results("best_of")["notes"]
    return all(paired(notes["juge", n], notes["récompense", n]).low > 0 for n in (4, 8, 16, 32))


def more_than_sixteen_brings_nothing_sure(results):
    notes = results("best_of")["notes"]
    told = paired(notes["récompense", 32], notes["récompense", 16]).told_apart
    return not told and paired(notes["juge", 32], notes["juge", 16]).low > 0


# --- 9.7 : une image et du texte --------------------------------------------------------------------------------------


def captions_come_from_the_image(results):
    """Légendes entières : plus de huit sur dix avec l'image, moins d'une sur dix avec une autre."""
    found = results("captions_learned")["justes"]
    return min(row[4] for row in found[False, "vues"]) > 0.8 and max(row[4] for row in found[True, "vues"]) < 0.1


def new_mixtures_are_harder(results):
    found = results("captions_learned")["justes"]
    seen, new = ([row[4] for row in found[False, kind]] for kind in ("vues", "jamais vues"))
    return paired(seen, new).low > 0.2
