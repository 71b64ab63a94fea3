"""Les affirmations du chapitre 1, sur les résultats enregistrés. Les écarts de pertes sont en nats par jeton."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import mean

from atelier.evidence import paired
from atelier.figures.ch1.counts import ANNOUNCED

# --- 1.1 et 1.2 : jetons et flux --------------------------------------------------------------------------------------


def tokens_are_shorter_far_from_the_corpus(results):
    """Octets par jeton de la prose d'apprentissage, divisés par ceux de l'anglais, de Python, des chiffres."""
    each = {name: n_bytes / tokens for name, (n_bytes, tokens) in results("bytes_per_token").items()}
    home = each["prose d'apprentissage (A)"]
    ratios = {name: home / value for name, value in each.items()}
    return (
        home == max(each.values())
        and 1.3 < ratios["anglais"] < 1.7
        and 1.9 < ratios["Python"] < 2.5
        and 2.7 < ratios["chiffres"] < 3.3
    )


def each_block_lengthens_the_stream(results):
    """De bloc en bloc, fenêtre à fenêtre ; et, sur l'amorce montrée, la préférence finale monte."""
    found = [*results("stream_lengths").values()]
    chosen = [*results("block_by_block").values()]
    winner = int(chosen[-1]["probabilités"].argmax())
    odds = [stage["probabilités"][winner].item() for stage in chosen]
    return all(paired(b, a).low > 0 for a, b in pairwise(found)) and odds[0] < 0.01 and odds[-1] == max(odds)


# --- 1.3 : l'attention ------------------------------------------------------------------------------------------------


def the_root_keeps_attention_alike(results):
    """Le plus grand poids : presque 1 sans diviser, presque 1/32 en divisant par D ; à 1 point près avec √D."""
    found = results("frozen_softmax")
    root = [value for (name, _), value in found.items() if name == "divisé par √D"]
    return found["sans diviser", 1024] > 0.9 and found["divisé par D", 1024] < 1.1 / 32 and max(root) - min(root) < 0.01


def own_blocks_are_the_library_s(results):
    found = results("own_gpt2")
    return max(gap for name, gap in found.items() if name != "même jeton préféré") < 1e-5


# --- 1.4 : compter ----------------------------------------------------------------------------------------------------


def first_vocabulary_gives_the_announced_sizes(results):
    """Les quatre nombres annoncés, au million près ; les vrais comptes, eux, sont ceux de la bibliothèque."""
    found = results("counted_models")
    same = all(row["vous"] == row["num_parameters()"] for row in found.values())
    return same and {name: round(found[name]["avec 40 478 jetons"] / 1e6) for name in ANNOUNCED} == ANNOUNCED


# --- 1.5 : perte et perplexité ----------------------------------------------------------------------------------------


def thirty_tokens_give_most_of_the_context(results):
    """De 1 jeton lu à plus de 32, la surprise baisse de plus de 2,5 bits ; au-delà, de moins d'un quart de bit."""
    found = results("surprise_by_rank")
    first, after = paired(found[1, 1], found[32, 63]), paired(found[32, 63], found[128, 255])
    return first.low > 2.5 and after.high < 0.25


def own_perplexity_is_the_protocol_s(results):
    """À moins de 2 % partout ; plus la fenêtre est longue, moins compte le jeton de différence."""
    found = results("protocols")
    contexts = [key[1] for key in found if key[0] == "vous"]
    gaps = [math.log(found["vous", n, n]) - mean(found["protocole", n, n]["pertes"]) for n in contexts]
    return max(map(abs, gaps)) < 0.02 and abs(gaps[-1]) < 0.005


def a_shorter_stride_soon_pays_nothing(results):
    found = results("protocols")
    one, half, quarter = (found["protocole", 256, stride]["pertes"] for stride in (256, 128, 64))
    first, second = paired(half, one), paired(quarter, half)
    return -0.16 < first.low and first.high < -0.05 and not second.told_apart


# --- 1.6 : les têtes --------------------------------------------------------------------------------------------------


def _costs(results, kind):
    """(bloc, tête) → écart de perte quand elle se tait."""
    found = results("silent_heads")
    return {key[1:]: paired(found[key], found["entier"]) for key in found if key[0] == kind}


def _most(results, what):
    """La tête qui regarde le plus ce genre de jetons, et combien de fois plus que le hasard."""
    entry = results("head_habits")[what]
    place = divmod(int(entry["têtes"].argmax()), entry["têtes"].shape[1])
    return place, entry["têtes"][place].item() / entry["hasard"]


def a_typed_head_may_cost_little(results):
    """Jeton précédent : la première des trente, trois fois la moyenne ; fin de phrase : parmi les cinq moindres."""
    costs = _costs(results, "moyenne")
    ranked = sorted(costs, key=lambda place: costs[place].mean)
    (previous, _), (closing, times) = _most(results, "le jeton précédent"), _most(results, "la dernière fin de phrase")
    average = mean(gap.mean for gap in costs.values())
    dear = previous == ranked[-1] and costs[previous].low > 2 * average and costs[previous].mean > 3 * average
    return len(costs) == 30 and dear and times > 25 and closing in ranked[:5]


def zero_overstates_the_first_block(results):
    """Les deux têtes les plus chères du bloc 0 : par zéro, de 1,4 à 2,2 fois l'écart que fait la moyenne."""
    found, costs = results("silent_heads"), {kind: _costs(results, kind) for kind in ("moyenne", "zéro")}
    dear = [(0, 3), (0, 4)]
    more = [paired(found["zéro", *place], found["moyenne", *place]).low > 0 for place in dear]
    ratios = [costs["zéro"][place].mean / costs["moyenne"][place].mean for place in dear]
    return all(more) and 1.4 < min(ratios) and max(ratios) < 2.2


def induction_stands_above_and_costs_the_usual(results):
    """Bloc 3 au-dessus du bloc 2 ; son coût, 2 à 6 %, contient la moyenne des trente."""
    costs = _costs(results, "moyenne")
    (previous, _), (induction, _) = _most(results, "le jeton précédent"), _most(results, "ce qui suivait le même jeton")
    average = mean(gap.mean for gap in costs.values())
    return (previous[0], induction[0]) == (2, 3) and costs[induction].low < average < costs[induction].high


# --- 1.7 et 1.8 : générer ---------------------------------------------------------------------------------------------


def own_greedy_is_the_library_s(results):
    return all(entry["le même"] for entry in results("greedy_texts").values())


def _losses(results):
    return {name: [math.log(p) for p in e["perplexités"]] for name, e in results("four_settings").items()}


def greedy_flatters_itself_and_repeats(results):
    """Par début : la perte du glouton est sous celle de tous les autres textes, et sa variété aussi."""
    found, losses = results("four_settings"), _losses(results)
    others = [name for name in found if name != "glouton"]
    lower = all(paired(losses["glouton"], losses[name]).high < 0 for name in others)
    return lower and all(paired(found["glouton"]["variété"], found[name]["variété"]).high < 0 for name in others)


def usual_settings_flatter_too(results):
    losses = _losses(results)
    return paired(losses["température 0,7, top-p 0,9"], losses["le vrai texte"]).high < 0


def a_hot_model_surprises_itself(results):
    """À 1, l'intervalle contient zéro ; à 1,5, deux nats de plus que le vrai texte."""
    losses = _losses(results)
    gaps = {name: paired(losses[name], losses["le vrai texte"]) for name in ("température 1", "température 1,5")}
    return not gaps["température 1"].told_apart and gaps["température 1,5"].low > 1.5


def the_cache_is_counted_exactly(results):
    found = results("cache_sizes")
    exact = all(entry["compté"] == entry["mesuré"] for entry in found["Colibri"].values())
    return exact and 1e6 < found["grands"]["GPT-3"]["octets"][0] < 1e7
