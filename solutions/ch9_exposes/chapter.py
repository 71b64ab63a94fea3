# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Chapitre 9 · Exposés
#
# À vous. La dernière diapositive, « To go further », propose des sujets d'exposé : ce qui entoure la compression et
# l'adaptation d'un modèle de langue, et que les huit chapitres n'ont fait que frôler. Ce chapitre en ouvre la porte,
# sujet par sujet : la question qu'il pose, l'idée en dix lignes, une petite expérience qui tourne ici, ce qu'elle
# montre, ce qu'elle ne montre pas, trois lectures et une question ouverte. Le reste de l'exposé est à vous.
#
# Lisez une section, ou toutes : elles ne dépendent pas les unes des autres. Les deux exercices portent une étoile :
# leurs points sont un bonus, et tant qu'ils ne sont pas faits, les expériences qui en dépendent montrent le résultat de
# l'auteur et le disent.

# %%
import atelier
from atelier import check, hint, quiz
from atelier.figures import ch9

atelier.describe_machine()

# %% tags=["setup"]
import copy
import math
import re
import statistics

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn
from transformers import DynamicCache

# %% [markdown]
# ## 9.1 Le décodage spéculatif
#
# **La question.** Un grand modèle écrit un jeton à la fois, et relit tous ses poids pour chacun : au chapitre 2, c'est
# la mémoire qui l'attend, non le calcul. Lire cinq jetons d'un coup ne lui coûterait guère plus qu'en lire un. Mais
# comment lui en donner cinq, puisqu'il ne les a pas encore écrits ?
#
# **L'idée.** On les fait deviner. Un petit modèle, le **brouillon** (*draft model*), écrit $K$ jetons ; le grand, la
# **cible** (*target model*), les lit tous en un passage avant, et en garde le début, jusqu'à la première faute. À cette
# place, il a calculé ce qu'il fallait écrire : il l'écrit. Un tour donne donc de 1 à $K + 1$ jetons, pour une seule
# lecture de la cible.

# %%
ch9.draw_speculation()

# %%
atelier.bet(
    "same_text",
    "Le brouillon est un Colibri de deux blocs, bien plus mauvais. Le texte que la cible écrit avec lui, en prenant "
    "toujours le jeton le plus probable…",
    options=("est le même, jeton pour jeton", "diffère par endroits", "est moins bon"),
)

# %% [markdown]
# Le brouillon sera un Colibri dont on ne garde que quelques blocs, et qui réapprend de Colibri entier : l'élagage du
# chapitre 5, puis la distillation du chapitre 4.

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
train_tokens = atelier.corpus_tokens("a_train")
few_steps = atelier.scale().pick(essai=2, cpu=40, gpu=40)
extract_tokens = atelier.scale().pick(essai=512, cpu=1024, gpu=4096)


def fewer_blocks(kept):
    """Une copie de Colibri qui n'a que ces blocs."""
    small = copy.deepcopy(colibri)
    small.transformer.h = nn.ModuleList(small.transformer.h[number] for number in kept)
    for place, block in enumerate(small.transformer.h):
        block.attn.layer_idx = place  # son rang dans le cache K/V
    small.config.n_layer = len(kept)
    return small


def imitation_loss(pupil, ids):
    """Ce que coûte, en nats par jeton, de lire la loi de l'élève à la place de celle de Colibri."""
    with torch.no_grad():
        wanted = colibri(ids, use_cache=False).logits.log_softmax(-1)
    said = pupil(ids, use_cache=False).logits.log_softmax(-1)
    return F.kl_div(said.flatten(0, 1), wanted.flatten(0, 1), reduction="batchmean", log_target=True)


def make_draft(kept, steps, seed):
    """Un brouillon : quelques blocs de Colibri, instruits par lui."""
    small = fewer_blocks(kept)
    atelier.train(small, atelier.windows(train_tokens, 4, 128, seed), steps, lr=1e-3, loss=imitation_loss)
    return small


@torch.no_grad()
def write_alone(reader, ids, n_new):
    """Le jeton le plus probable, n_new fois."""
    done, memory = ids, DynamicCache()
    for _ in range(n_new):
        seen = reader(done[:, memory.get_seq_length() :], memory, use_cache=True).logits
        done = torch.cat([done, seen[:, -1:].argmax(-1)], dim=1)
    return done


@torch.no_grad()
def write_together(reader, helper, ids, n_new, ahead):
    """Le même texte, `helper` proposant `ahead` jetons à la fois. Rend le texte, et ce que chaque tour a gardé."""
    done, rounds = ids, []
    memory = {"cible": DynamicCache(), "brouillon": DynamicCache()}

    def read(who, text):
        unread = text[:, memory[who].get_seq_length() :]
        return (reader if who == "cible" else helper)(unread, memory[who], use_cache=True).logits.argmax(-1)

    while done.shape[1] < ids.shape[1] + n_new:
        proposed = done
        for _ in range(ahead):
            proposed = torch.cat([proposed, read("brouillon", proposed)[:, -1:]], dim=1)
        wanted = read("cible", proposed)[:, -ahead - 1 :]  # ce que la cible écrirait à chaque place, et après
        rounds.append(int((wanted[:, :-1] == proposed[:, -ahead:]).int().cumprod(1).sum()))
        good = proposed[:, : done.shape[1] + rounds[-1]]
        done = torch.cat([good, wanted[:, rounds[-1], None]], dim=1)
        for past in memory.values():
            if (extra := past.get_seq_length() + 1 - done.shape[1]) > 0:
                past.crop(-extra)  # on oublie ce qui a été refusé
    return done[:, : ids.shape[1] + n_new], rounds


# %% [markdown]
# Le cache K/V rend l'affaire délicate : après un refus, il faut y effacer les jetons jetés, chez les deux. C'est
# `crop`. Essayons plusieurs brouillons, et plusieurs longueurs de proposition.

# %%
blocks_of = {"1 bloc": (0,), "2 blocs": (0, 4), "3 blocs": (0, 2, 4)}
validation_tokens = atelier.corpus_tokens("a_validation", 10000)


def some_starts(count, source=validation_tokens):
    """Des débuts de 64 jetons, pris tous les 600 jetons d'un extrait."""
    return [source[600 * i : 600 * i + 64][None].to(colibri.device) for i in range(count)]


# %% experiment="kept_by_the_target"
@atelier.experiment(full={"names": tuple(blocks_of), "aheads": (1, 2, 4), "seeds": range(5), "starts": 3, "steps": 40})
def kept_by_the_target(names=("2 blocs",), aheads=(2,), seeds=(0,), starts=3, n_new=32, steps=few_steps):
    """Ce que la cible garde à chaque tour, et si le texte est le sien, jeton pour jeton."""
    found = {}
    alone = [write_alone(colibri, start, n_new) for start in some_starts(starts)]
    for name in names:
        for seed in seeds:
            helper = make_draft(blocks_of[name], steps, seed)
            for ahead in aheads:
                told = [write_together(colibri, helper, start, n_new, ahead) for start in some_starts(starts)]
                same = [torch.equal(a, b) for a, (b, _) in zip(alone, told, strict=True)]
                found[name, ahead, seed] = {"pareil": same, "gardés": [rounds for _, rounds in told]}
    return found


# %%
kept_shares = kept_by_the_target()
ch9.kept_table(kept_shares)
atelier.settle("same_text", ch9.same_text(kept_shares))

# %% [markdown]
# Le même texte, jeton pour jeton, quel que soit le brouillon : un mauvais brouillon ralentit la cible, il ne la trompe
# pas. <!-- claim: drafts_never_change_the_text -->
# Plus le brouillon a de blocs, plus la cible garde de ses jetons. <!-- claim: deeper_drafts_are_kept_more -->
# Et proposer davantage rapporte de moins en moins : chaque jeton de plus n'est lu que si tous ceux d'avant ont passé.
# <!-- claim: longer_proposals_pay_less_and_less -->

# %% [markdown]
# Et quand la cible ne prend pas le jeton le plus probable, mais en **tire** un ? Il faut alors que le texte suive
# exactement sa loi. Supposons que le brouillon ait tiré le jeton $x$, auquel il donnait $q(x)$ et la cible $p(x)$. Si
# $p(x) \ge q(x)$, on peut le garder : le brouillon n'en propose pas trop. Sinon, il en propose trop, et il faut en
# refuser une part. Reste à rendre aux autres jetons ce que l'on a refusé à celui-là.

# %% [markdown]
# ### ✎ speculative_accept


# %% exercise="speculative_accept"
def speculative_accept(
    p_target: torch.Tensor, p_draft: torch.Tensor, draft_tokens: torch.Tensor, u: torch.Tensor
) -> tuple[int, torch.Tensor]:
    """Combien de jetons du brouillon la cible garde, et la loi du jeton suivant.

    p_target : (K + 1, V) flottant, les lois de la cible à chacune des K places proposées, puis à
    celle qui les suit.
    p_draft : (K, V) du même type, les lois dont le brouillon a tiré draft_tokens (K,), des
        entiers ; K ≥ 1, et un jeton proposé n'y a jamais une probabilité nulle.
    u : (K,) flottants de [0, 1), un tirage par jeton.
    Le jeton de la place i est gardé si u_i est strictement inférieur au rapport de ce que lui
    donnent, dans l'ordre, la cible et le brouillon ; au premier refus, lui et tous les suivants
    sont jetés.
    Rend (n, loi) : n, un int de Python, le nombre de jetons gardés ; loi, (V,), du type de
    p_target, la loi où tirer le suivant, telle que le texte écrit suive exactement la loi de la
    cible.

    Source : Leviathan et al., « Fast Inference from Transformers via Speculative Decoding », 2023,
    algorithme 1.
    """
    ### BEGIN SOLUTION
    drawn = draft_tokens.long()[:, None]
    of_target, of_draft = p_target[:-1].gather(1, drawn), p_draft.gather(1, drawn)
    ratios = (of_target / of_draft)[:, 0]
    refused = (u >= ratios).nonzero()
    if not len(refused):
        return len(draft_tokens), p_target[-1].clone()
    n = int(refused[0])
    left = (p_target[n] - p_draft[n]).clamp(min=0)
    return n, left / left.sum()
    ### END SOLUTION


# %% [markdown]
# Deux nombres font la méthode : on garde $x$ avec la probabilité $\min(1, p(x)/q(x))$ ; après un refus, on tire dans
# $\max(0, p - q)$, remis à somme 1. La part de jetons gardés, en moyenne, s'en déduit : c'est $\sum_x \min(p(x),
# q(x))$, ce que les deux lois ont en commun.
#
# Vérifions les deux, sur une vraie loi de Colibri : `speculative_accept`, des milliers de fois, à une même place.

# %%
few_draws = atelier.scale().pick(essai=50, cpu=2000, gpu=4000)


# %% experiment="drawn_tokens"
@atelier.experiment(needs=[speculative_accept], full={"seeds": range(5), "draws": 2000, "steps": 40})
def drawn_tokens(seeds=(0,), draws=few_draws, steps=few_steps):
    """Les fréquences de ce que l'on écrit, et celles de tirages directs, à côté de la loi de la cible."""
    start, helper, found = some_starts(1)[0], make_draft((0, 4), steps, 0), []
    with torch.no_grad():
        p, q = (m(start, use_cache=False).logits[0, -1].softmax(-1).cpu().double() for m in (colibri, helper))
    for seed in seeds:
        random, written, kept = torch.Generator().manual_seed(seed), torch.zeros(len(p)).double(), 0
        proposed = q.multinomial(draws, replacement=True, generator=random)
        for token, chance in zip(proposed, torch.rand(draws, generator=random).double(), strict=True):
            count, law = speculative_accept(torch.stack([p, p]), q[None], token[None], chance[None])
            kept += count
            written[token if count else law.multinomial(1, generator=random)] += 1 / draws
        direct = p.multinomial(draws, replacement=True, generator=random).bincount(minlength=len(p)) / draws
        gaps = {"spéculatif": written, "tirages directs": direct, "brouillon seul": q}
        found.append({"gardés": kept / draws} | {name: ((f - p).abs().sum() / 2).item() for name, f in gaps.items()})
    return {"commun": torch.minimum(p, q).sum().item(), "tirages": draws, "graines": found}


# %%
ch9.laws_table(drawn_tokens())

# %% [markdown]
# L'écart à la loi de la cible est celui qu'ont des tirages directs, en même nombre : le hasard, et rien d'autre. Le
# brouillon seul, lui, en est loin. <!-- claim: speculation_keeps_the_law -->
# La part gardée est celle que l'on attendait. <!-- claim: the_kept_share_is_the_common_mass -->

# %% [markdown]
# **Et le temps ?** Si chaque jeton est gardé avec la même chance $\alpha$, un tour en écrit en moyenne
# $(1 - \alpha^{K+1})/(1 - \alpha)$ (Leviathan et al., 2023, équation 1). Il coûte une lecture de la cible et $K$ du
# brouillon ; si l'une vaut 1 et l'autre $c$, le gain attendu est ce nombre divisé par $1 + Kc$ (théorème 3.8). Tout
# tient donc à $c$. Un brouillon cent fois plus petit que sa cible a un $c$ de quelques centièmes. Le nôtre ?


# %%
few_words = atelier.scale().pick(essai=6, cpu=32, gpu=32)


# %% experiment="spoken_times"
@atelier.experiment(full={"rounds": 7, "starts": 4, "steps": 40})
def spoken_times(ahead=2, rounds=3, starts=2, n_new=few_words, steps=few_steps):
    """Durées, tour à tour : écrire seul, écrire à deux, et une lecture de chacun, d'un jeton et de plusieurs."""
    helper, texts = make_draft((0, 4), steps, 0), some_starts(starts)
    kept = [r for text in texts for r in write_together(colibri, helper, text, n_new, ahead)[1]]
    one, several = texts[0][:, :1], texts[0][:, : ahead + 1]
    runs = {
        "seule": lambda: [write_alone(colibri, text, n_new) for text in texts],
        "à deux": lambda: [write_together(colibri, helper, text, n_new, ahead) for text in texts],
        "cible, 1 jeton": lambda: [colibri(one, use_cache=False) for _ in range(10)],
        "cible, plusieurs": lambda: [colibri(several, use_cache=False) for _ in range(10)],
        "brouillon, 1 jeton": lambda: [helper(one, use_cache=False) for _ in range(10)],
    }
    with ch9.one_thread(), torch.no_grad():
        return {"avance": ahead, "gardés": kept, "secondes": ch9.interleaved_seconds(runs, rounds)}


# %%
ch9.tell_times(spoken_times())

# %% [markdown]
# Ces phrases sont écrites par le code qui vient de chronométrer : sur une autre machine, elles changent.

# %% [markdown]
# ??? q="draft_is_target"

# %% [markdown]
# **Ce que l'on n'a pas montré.** Une cible de trois millions de poids n'attend pas sa mémoire comme un grand modèle :
# ni le $c$ ni le gain ne disent rien d'un modèle de plusieurs milliards de poids sur une carte. Le texte, lui, serait
# le même, aux arrondis près : lire plusieurs jetons d'un coup n'additionne pas toujours dans le même ordre.
#
# **Où cela perd.** Quand le brouillon coûte trop, quand il devine mal (un domaine qu'il n'a pas vu), et quand le lot
# est grand : la cible calcule alors à plein, et lire des jetons de trop n'est plus gratuit.
#
# **Qui s'en sert.** transformers (`generate(…, assistant_model=…)`), vLLM et TensorRT-LLM. DeepSeek-V3 apprend
# aussi à deviner un jeton plus loin, ce qui peut lui servir de brouillon.
#
# **À lire.** Leviathan et al., *Fast Inference from Transformers via Speculative Decoding*, ICML 2023, arXiv
# 2211.17192 · Chen et al., *Accelerating Large Language Model Decoding with Speculative Sampling*, 2023, arXiv
# 2302.01318 · Cai et al., *Medusa*, ICML 2024, arXiv 2401.10774.
#
# **Une question ouverte.** Comment choisir $K$ à chaque tour, selon ce que le brouillon croit savoir ?

# %% [markdown]
# ## 9.2 Moins de clés, moins loin : GQA et attention à fenêtre
#
# **La question.** Au chapitre 1, le cache K/V garde, pour chaque jeton, une clé et une valeur par tête et par bloc. Sur
# un long texte, il finit par peser plus que le modèle. Faut-il vraiment une clé par tête ? Et faut-il garder celles de
# tous les jetons passés ?
#
# **L'idée.** Deux coupes. La première, **GQA** (*grouped-query attention*, Ainslie et al., 2023) : plusieurs têtes de
# requêtes se partagent une même tête de clés et de valeurs. S'il n'en reste qu'une pour toutes, c'est **MQA**
# (*multi-query attention*, Shazeer, 2019). Un modèle déjà entraîné se convertit : on moyenne les têtes d'un groupe,
# puis l'on reprend un peu l'apprentissage. La seconde, l'**attention à fenêtre** (*sliding-window attention*) : un
# jeton ne regarde que les $w$ derniers, et le cache oublie le reste.

# %%
ch9.draw_shared_keys()


# %%
class GroupedAttention(nn.Module):
    """L'attention d'un bloc de GPT-2, aux têtes de clés et de valeurs moyennées par groupes, et à fenêtre."""

    def __init__(self, usual, groups, reach=10**6, anchors=0):
        super().__init__()
        self.heads, self.groups, self.reach, self.anchors = usual.num_heads, groups, reach, anchors
        self.rank, self.out = usual.layer_idx, usual.c_proj

        def pooled(rows):  # (sortie, …) → une tête par groupe, la moyenne des siennes
            return rows.unflatten(0, (groups, self.heads // groups, -1)).mean(1).flatten(0, 1)

        width, (weights_q, weights_k, weights_v) = usual.embed_dim, usual.c_attn.weight.T.chunk(3)
        bias_q, bias_k, bias_v = usual.c_attn.bias.chunk(3)
        self.to_q, self.to_kv = nn.Linear(width, width), nn.Linear(width, 2 * groups * width // self.heads)
        with torch.no_grad():
            self.to_q.weight.copy_(weights_q)
            self.to_q.bias.copy_(bias_q)
            self.to_kv.weight.copy_(torch.cat([pooled(weights_k), pooled(weights_v)]))
            self.to_kv.bias.copy_(torch.cat([pooled(bias_k), pooled(bias_v)]))
        self.to(usual.c_proj.weight.device)

    def forward(self, x, cache=None, attention_mask=None, past_key_values=None, **_):
        q = self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.to_kv(x).unflatten(-1, (2, self.groups, -1)).permute(2, 0, 3, 1, 4)
        memory = past_key_values if cache is None else cache  # son nom dépend de la version de transformers
        if memory is not None:
            k, v = memory.update(k, v, self.rank)
        place = torch.arange(k.shape[2], device=x.device)
        behind = place[-q.shape[2] :, None] - place
        seen = (behind >= 0) & ((behind < self.reach) | (place < self.anchors))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        return self.out(mixed.transpose(1, 2).flatten(2)), None


def with_groups(groups, **limits):
    """Une copie de Colibri dont chaque attention a `groups` têtes de clés et de valeurs."""
    changed = copy.deepcopy(colibri)
    for block in changed.transformer.h:
        block.attn = GroupedAttention(block.attn, groups, **limits)
    return changed


def losses_of(version, tokens):
    """La perte, part à part, sur les premiers jetons de l'extrait de validation."""
    return atelier.evaluate_perplexity(version, max_tokens=tokens).losses


def relearned(groups, lr, seed, steps):
    """Le même, après quelques pas sur le texte."""
    changed = with_groups(groups)
    atelier.train(changed, atelier.windows(train_tokens, 4, 128, seed), steps, lr=lr)
    return changed


# %% [markdown]
# Les six têtes de Colibri deviennent trois, deux, puis une. Le taux d'apprentissage de chaque reprise se choisit sur un
# autre extrait que celui qui juge.

# %%
atelier.bet(
    "pooled_heads",
    "Une seule tête de clés et de valeurs, moyenne des six, sans reprise : la perplexité est multipliée par…",
)

# %%
pool_steps = atelier.scale().pick(essai=2, cpu=20, gpu=30)


# %% experiment="pooled_rates"
@atelier.experiment(full={"groups": (3, 2, 1), "rates": (3e-4, 1e-3, 3e-3, 1e-2), "steps": 30, "tokens": 2048})
def pooled_rates(groups=(1,), rates=(3e-3,), steps=pool_steps, tokens=extract_tokens):
    """La perplexité de chaque Colibri repris, taux par taux, sur l'extrait « a_test »."""
    found = {}
    for count in groups:
        for lr in rates:
            told = atelier.evaluate_perplexity(relearned(count, lr, 0, steps), "a_test", max_tokens=tokens)
            found[count, lr] = told.perplexity
    return {"pas": steps, "perplexités": found}


# %%
ch9.rates_table(pooled_rates(), "têtes de clés")

# %%
rate_of = {3: 1e-3, 2: 1e-3, 1: 1e-3}


# %% experiment="pooled_heads"
@atelier.experiment(full={"groups": (6, 3, 2, 1), "seeds": range(5), "steps": 30, "tokens": 4096})
def pooled_heads(groups=(6, 1), seeds=(0,), steps=pool_steps, tokens=extract_tokens):
    """Octets du cache de 256 jetons, perte avant, et perte après une courte reprise, graine par graine."""
    before, after, cached = {}, {}, {}
    for count in groups:
        version, memory = with_groups(count), DynamicCache()
        with torch.no_grad():
            version(train_tokens[:256][None].to(colibri.device), memory, use_cache=True)
        cached[count] = sum(t.nbytes for layer in memory.layers for t in (layer.keys, layer.values))
        before[count] = losses_of(version, tokens)
        if count in rate_of:  # à six têtes, rien n'a changé : il n'y a rien à reprendre
            after[count] = [losses_of(relearned(count, rate_of[count], seed, steps), tokens) for seed in seeds]
    return {"pas": steps, "jetons": tokens, "octets": cached, "avant": before, "après": after}


# %%
pooled = pooled_heads()
ch9.pooled_table(pooled)
atelier.settle("pooled_heads", ch9.times_worse(pooled))

# %% [markdown]
# Le cache fond en proportion des têtes. Mais moyenner des têtes qui n'ont pas appris à se ressembler abîme tout, et
# plus on en réunit, pire c'est. <!-- claim: pooling_hurts_the_more_heads_are_tied -->
# Trente pas rendent entre un quart et un tiers de ce qui était perdu, en nats, et sont loin de suffire.
# <!-- claim: a_short_recovery_is_not_enough -->

# %% [markdown]
# Passons à la fenêtre. Rien n'est réappris : Colibri, qui a appris en voyant tout, ne voit plus que les derniers
# jetons ; puis ceux-là et les quatre premiers de son contexte.


# %% experiment="narrow_windows"
@atelier.experiment(full={"reaches": (4, 8, 16, 32, 64, 128, 256), "anchors": (0, 4), "tokens": 4096})
def narrow_windows(reaches=(8, 32, 256), anchors=(0, 4), tokens=extract_tokens):
    """La perte de Colibri, part à part, selon les jetons qu'il voit : les derniers, et parfois les tout premiers."""
    found = {}
    for reach in reaches:
        for first in anchors:
            found[reach, first] = losses_of(with_groups(6, reach=reach, anchors=first), tokens)
    return {"jetons": tokens, "pertes": found}


# %%
windowed = narrow_windows()
ch9.plot_windows(windowed)

# %% [markdown]
# Plus la fenêtre est étroite, plus la perplexité monte. <!-- claim: narrower_windows_cost_more -->
# Garder en plus les quatre premiers jetons en rend une part, d'autant plus grande que la fenêtre est étroite.
# <!-- claim: the_first_tokens_help -->
# Mais, à huit jetons vus en tout, les huit derniers valent mieux que quatre et quatre.
# <!-- claim: the_last_tokens_are_worth_more -->

# %% [markdown]
# Sur de grands modèles, Xiao et al. (2024) ont vu bien pire : ôter les tout premiers jetons les fait s'effondrer, parce
# que beaucoup de têtes s'en servent comme d'un puits (*attention sink*) où verser l'attention dont elles n'ont que
# faire. Rien de tel ici : Colibri baisse, et ne tombe pas.

# %% [markdown]
# **Ce que l'on n'a pas montré.** Nos groupes sont faits de têtes voisines, choisies par leur seul rang ; notre reprise
# dure quelques dizaines de pas, celle d'Ainslie et al. 5 % de l'apprentissage d'origine. Et personne n'a appris ici à
# se passer du texte lointain : un modèle qui apprend dès le départ avec une fenêtre y perd sans doute moins. Enfin, sur
# 256 jetons, le lointain est encore tout près.
#
# **Qui s'en sert.** GQA : Llama 2 70B, tous les Llama 3, Mistral 7B, Gemma 3, Qwen3. L'attention à fenêtre : Mistral 7B
# (4 096 jetons), et, un bloc sur deux ou cinq sur six, gpt-oss et Gemma 3. DeepSeek-V2 et V3 compriment autrement :
# clés et valeurs s'y déduisent d'un même petit vecteur, seul gardé (MLA).
#
# **À lire.** Ainslie et al., *GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints*,
# EMNLP 2023, arXiv 2305.13245 · Beltagy et al., *Longformer*, 2020, arXiv 2004.05150 · Xiao et al., *Efficient
# Streaming Language Models with Attention Sinks*, ICLR 2024, arXiv 2309.17453.
#
# **Une question ouverte.** Quelles têtes réunir ? Les plus semblables, ou celles dont la moyenne abîme le moins la
# sortie ?

# %% [markdown]
# ## 9.3 RoPE : tourner au lieu d'ajouter
#
# **La question.** L'attention ne sait pas dans quel ordre viennent les jetons. GPT-2 ajoute à chacun le vecteur de son
# rang, lu dans une table : Colibri en a 256, et ne peut rien faire d'un 257e jeton. Et au-delà de ce qu'il a appris ?
#
# **L'idée.** Ne rien ajouter : **tourner** (*rotary position embedding*, RoPE, Su et al., 2021). On range les
# composantes d'une requête, ou d'une clé, par couples ; chaque couple est un point du plan, que l'on tourne d'un angle
# proportionnel au rang du jeton. Le premier couple tourne vite, les suivants de plus en plus lentement, comme les
# aiguilles d'une horloge. Tournées toutes deux, une requête du rang $m$ et une clé du rang $n$ ont un produit scalaire
# qui ne dépend que de $m - n$ : la distance, et non la place.

# %% [markdown]
# ### ✎ rope


# %% exercise="rope"
def rope(x: torch.Tensor, positions: torch.Tensor, base: float = 10000.0) -> torch.Tensor:
    """Requêtes ou clés, tournées d'après leur rang.

    x : (…, T, d) flottant, pas forcément contigu en mémoire ; positions : (T,) entiers, le rang de
    chaque jeton (ils ne commencent pas forcément à 0, ni ne se suivent).
    Rend un tenseur de la forme et du type de x. Les composantes vont par couples de voisines,
    (2i, 2i + 1), i = 0, 1… ; au rang m, le couple i tourne de m·base^(−2i/d) radians, du premier
    axe vers le second. Les angles se comptent en float32 ou mieux, quel que soit le type de x.
    Lève ValueError si d est impair.

    Source : Su et al., « RoFormer: Enhanced Transformer with Rotary Position Embedding », 2021,
    § 3.
    """
    ### BEGIN SOLUTION
    width = x.shape[-1]
    if width % 2:
        raise ValueError(f"il faut un nombre pair de composantes, pas {width}")
    speeds = base ** -(torch.arange(0, width, 2, device=x.device) / width)
    angles = positions[:, None].to(torch.float32) * speeds
    cos, sin = angles.cos(), angles.sin()
    even, odd = x[..., 0::2].to(angles), x[..., 1::2].to(angles)
    pairs = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return pairs.flatten(-2).to(x.dtype)
    ### END SOLUTION


# %% [markdown]
# En nombres complexes, c'est une ligne : $(a + ib)\,e^{i m \theta}$. Et le produit scalaire de $q\,e^{im\theta}$ et de
# $k\,e^{in\theta}$ est la partie réelle de $q \bar{k}\, e^{i(m-n)\theta}$.
#
# ??? q="turned_values"
#
# Voyez-le : le score d'une même requête et d'une même clé, à plusieurs places.


# %% experiment="turned_scores"
@atelier.experiment(needs=[rope])
def turned_scores(gaps=tuple(range(0, 64)), places=(0, 50, 500)):
    """Le score d'une requête et d'une clé égales, selon leur distance, et selon la place de la clé."""
    vector, found = torch.ones(1, 32), {}
    for place in places:
        key = rope(vector, torch.tensor([place]))
        found[place] = [float((rope(vector, torch.tensor([place + gap])) * key).sum()) / 32 for gap in gaps]
    return {"distances": list(gaps), "scores": found}


# %%
ch9.plot_scores(turned_scores())

# %% [markdown]
# Les courbes se confondent. <!-- claim: scores_see_the_distance -->

# %% [markdown]
# Passons à l'apprentissage, sur une tâche où seule la distance compte. Douze symboles au hasard, répétés jusqu'au bout
# de la fenêtre : passé les douze premiers, chacun est celui d'il y a douze rangs. Trois petits modèles, pareils en
# tout, l'apprennent sur des fenêtres de 64 : l'un avec une table de rangs, l'autre avec votre `rope`, le dernier avec
# rien. Puis on leur donne des fenêtres de 256.

# %%
atelier.bet(
    "far_ranks",
    "Du 65e au 96e rang, jamais vus, que devient la perte ?",
    options=(
        "elle monte chez les deux, plus avec la table",
        "elle monte chez les deux, plus avec RoPE",
        "elle ne monte qu'avec la table",
    ),
)


# %%
class SmallBlock(nn.Module):
    """Un bloc de Transformer. turn : ce que l'on fait aux requêtes et aux clés (B, têtes, T, D) ; feed : le MLP."""

    def __init__(self, width, turn, feed):
        super().__init__()
        self.turn, self.feed = turn, feed
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x):
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(self.turn(q), self.turn(k), v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.feed(self.between(x))


class SmallModel(nn.Module):
    """Deux blocs de quatre têtes, 256 symboles. ranks : « table », « RoPE » ou « rien »."""

    def __init__(self, ranks="RoPE", feed=None, width=64):
        super().__init__()
        turned = {"RoPE": lambda x: rope(x, torch.arange(x.shape[-2], device=x.device))}.get(ranks, lambda x: x)
        feed = feed or (lambda: nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, width)))
        self.table = nn.Embedding(256, width)
        self.places = nn.Embedding(256, width) if ranks == "table" else None
        self.blocks = nn.Sequential(*(SmallBlock(width, turned, feed()) for _ in range(2)))
        self.last, self.guess = nn.LayerNorm(width), nn.Linear(width, 256)
        for some in (self.table, self.places):
            if some is not None:
                nn.init.normal_(some.weight, std=0.02)

    def forward(self, ids):
        x = self.table(ids)
        if self.places is not None:
            x = x + self.places.weight[: ids.shape[1]]
        return self.guess(self.last(self.blocks(x)))


def next_loss(reader, ids):
    """Entropie croisée du symbole suivant, en nats."""
    return F.cross_entropy(reader(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def small_model(make, batches, lr, seed, steps, loss=next_loss):
    """Un petit modèle, appris de rien."""
    torch.manual_seed(seed)
    made = make().to(atelier.device())
    atelier.train(made, batches, steps, lr=lr, loss=loss)
    return made


@torch.no_grad()
def by_rank(reader, ids):
    """La perte moyenne à chaque rang d'un lot de fenêtres (B, T) → (T − 1,)."""
    each = F.cross_entropy(reader(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return each.view(len(ids), -1).mean(0)


def repeated(length, count, random, period=12):
    """Des suites de 32 symboles, tirées au sort puis répétées → (count, length)."""
    once = torch.randint(32, (count, period), generator=random)
    return once.repeat(1, length // period + 1)[:, :length].to(atelier.device())


def rank_model(way, lr, seed, steps):
    random = torch.Generator().manual_seed(seed)
    return small_model(lambda: SmallModel(way), (repeated(64, 32, random) for _ in range(steps)), lr, seed, steps)


rank_steps = atelier.scale().pick(essai=2, cpu=150, gpu=150)


# %% experiment="rank_rates"
@atelier.experiment(needs=[rope], full={"ways": ("table", "RoPE", "rien"), "rates": (1e-3, 3e-3, 1e-2, 3e-2)})
def rank_rates(ways=("RoPE",), rates=(3e-3,), steps=rank_steps):
    """La perte de chaque modèle, une fois le motif passé, sur des fenêtres de 64 qu'il n'a pas vues."""
    found, fresh = {}, repeated(64, 64, torch.Generator().manual_seed(1001))
    for way in ways:
        for lr in rates:
            found[way, lr] = by_rank(rank_model(way, lr, 0, steps), fresh)[12:].mean().item()
    return {"pas": steps, "pertes": found}


# %%
ch9.rates_table(rank_rates(), "rangs", "Perte sur des suites de réglage, en nats")

# %%
rank_rate = {"table": 1e-2, "RoPE": 1e-2, "rien": 3e-3}


# %% experiment="past_the_end"
@atelier.experiment(needs=[rope], full={"ways": ("table", "RoPE", "rien"), "seeds": range(5)})
def past_the_end(ways=("table", "RoPE"), seeds=(0,), steps=rank_steps):
    """La perte à chaque rang, de 1 à 255, de modèles qui n'ont vu que des fenêtres de 64 ; graine par graine."""
    found, longer = {way: [] for way in ways}, repeated(256, 64, torch.Generator().manual_seed(1002))
    for seed in seeds:
        for way in ways:
            found[way].append(by_rank(rank_model(way, rank_rate[way], seed, steps), longer).tolist())
    return {"pas": steps, "pertes": found}


# %%
beyond = past_the_end()
ch9.plot_ranks(beyond)
atelier.settle("far_ranks", ch9.far_ranks(beyond))

# %% [markdown]
# Jusqu'au 64e rang, la table et RoPE réussissent tous deux, à moins d'un dixième de nat ; sans rangs, on n'y arrive
# pas. <!-- claim: ranks_are_needed --> Au 65e, la table s'effondre aussitôt, et fait pire que le hasard : ces lignes-là
# n'ont jamais appris. RoPE tient mieux, puis se perd à son tour. <!-- claim: rope_lasts_longer_than_the_table --> Tout
# au bout, il est même plus mauvais qu'elle. <!-- claim: rope_is_lost_in_the_end --> « Relatif » ne veut pas dire « sans
# limite ».

# %% [markdown]
# **Ce que l'on n'a pas montré.** Deux blocs, et une tâche faite pour que la distance décide de tout : un texte n'est
# pas ainsi. Et nous n'avons rien fait pour aider : ni rangs resserrés (*position interpolation*), ni base changée.
#
# **Qui s'en sert.** Presque tous les modèles de langue ouverts depuis 2023 : Llama, Mistral, Qwen, Gemma, DeepSeek.
# Llama 3 prend une base de 500 000, au lieu de 10 000, en vue de longs contextes.
#
# **À lire.** Su et al., *RoFormer: Enhanced Transformer with Rotary Position Embedding*, 2021, arXiv 2104.09864 · Press
# et al., *Train Short, Test Long* (ALiBi), ICLR 2022, arXiv 2108.12409 · Chen et al., *Extending Context Window of
# Large Language Models via Positional Interpolation*, 2023, arXiv 2306.15595.
#
# **Une question ouverte.** Les couples qui tournent le plus lentement n'ont jamais fait un tour entier pendant
# l'apprentissage : est-ce d'eux que vient la perte, au-delà ?

# %% [markdown]
# ## 9.4 Le mélange d'experts
#
# **La question.** Un modèle plus gros sait plus de choses, et coûte plus cher à chaque jeton. Peut-on grossir l'un sans
# l'autre ?
#
# **L'idée.** Remplacer le MLP d'un bloc par $E$ MLP, les **experts**, et un **aiguilleur** (*router*) : une petite
# couche linéaire qui, jeton par jeton, en choisit $k$ (*mixture of experts*). Les paramètres croissent avec $E$, le
# calcul avec $k$. La sortie d'un expert est multipliée par la probabilité que l'aiguilleur lui donnait : c'est par là
# que le gradient l'atteint. Mais rien n'oblige l'aiguilleur à partager : un expert choisi apprend, donc devient
# meilleur, donc est choisi. D'où la **perte d'équilibrage** (Switch Transformer, Fedus et al., 2022, équation 4) :
# $E \sum_e f_e P_e$, où $f_e$ est la part des jetons que reçoit l'expert $e$, et $P_e$ la probabilité moyenne que
# l'aiguilleur lui donne. Elle vaut 1 quand tout est partagé également, davantage sinon.

# %%
ch9.draw_experts()


# %%
class Experts(nn.Module):
    """`count` MLP, dont chaque jeton emploie les `chosen` plus probables."""

    def __init__(self, width=64, inner=256, count=8, chosen=1):
        super().__init__()
        self.chosen, self.route = chosen, nn.Linear(width, count, bias=False)
        self.up = nn.Parameter(torch.randn(count, width, inner) / width**0.5)
        self.down = nn.Parameter(torch.randn(count, inner, width) / inner**0.5)

    def forward(self, x):
        flat = x.flatten(0, -2)
        odds = self.route(flat).softmax(-1)  # (jetons, experts)
        best, names = odds.topk(self.chosen, dim=-1)
        out = torch.zeros_like(flat)
        for expert in range(len(self.up)):
            who, place = (names == expert).nonzero(as_tuple=True)
            inside = F.gelu(flat[who] @ self.up[expert]) @ self.down[expert]
            out = out.index_add(0, who, inside * best[who, place, None])
        self.load = F.one_hot(names, len(self.up)).float().mean((0, 1))  # la part que reçoit chaque expert
        self.unfair = len(self.up) * (self.load * odds.mean(0)).sum()
        return out.view_as(x)


def text_windows(extract, count, seed, length=64):
    """Des lots de fenêtres d'octets d'un extrait."""
    return atelier.windows(torch.tensor(list(atelier.extract(extract).encode()[:500_000])), count, length, seed)


def loss_with_balance(balance):
    """La perte d'un modèle d'octets, plus `balance` fois la perte d'équilibrage de chaque bloc."""

    def loss(reader, ids):
        told = next_loss(reader, ids)
        return told + balance * sum(block.feed.unfair for block in reader.blocks)

    return loss


mixtures = {
    "un MLP": (lambda: SmallModel("table"), next_loss),
    "8 experts, sans équilibrage": (lambda: SmallModel("table", Experts), loss_with_balance(0.0)),
    "8 experts, avec équilibrage": (lambda: SmallModel("table", Experts), loss_with_balance(0.01)),
}


def mixture(name, lr, seed, steps):
    make, loss = mixtures[name]
    return small_model(make, text_windows("a_train", 32, seed), lr, seed, steps, loss)


mixture_steps = atelier.scale().pick(essai=2, cpu=60, gpu=120)

# %%
atelier.bet(
    "busiest_expert",
    "Huit experts, sans perte d'équilibrage : quelle part des jetons, en pour cent, va au plus chargé ?",
)


# %% experiment="mixture_rates"
@atelier.experiment(full={"names": tuple(mixtures), "rates": (3e-3, 1e-2, 3e-2), "steps": 120})
def mixture_rates(names=("un MLP",), rates=(3e-3,), steps=mixture_steps):
    """La perte de chaque modèle sur l'extrait « a_test », taux par taux."""
    found, fresh = {}, next(text_windows("a_test", 192, 0))
    for name in names:
        for lr in rates:
            found[name, lr] = by_rank(mixture(name, lr, 0, steps), fresh).mean().item()
    return {"pas": steps, "pertes": found}


# %%
ch9.rates_table(mixture_rates(), "modèle")

# %%
mixture_rate = dict.fromkeys(mixtures, 1e-2)


# %% experiment="expert_loads"
@atelier.experiment(full={"seeds": range(5), "steps": 120, "names": tuple(mixtures)})
def expert_loads(seeds=(0,), steps=mixture_steps, names=tuple(mixtures)):
    """La perte sur l'extrait de validation, et la part de jetons que reçoit chaque expert de chaque bloc."""
    found = {name: {"pertes": [], "charges": []} for name in names}
    fresh = next(text_windows("a_validation", 192, 0))
    for seed in seeds:
        for name in names:
            made = mixture(name, mixture_rate[name], seed, steps)
            found[name]["pertes"].append(by_rank(made, fresh).mean().item())
            if name != "un MLP":
                found[name]["charges"].append([block.feed.load.tolist() for block in made.blocks])
            found[name]["paramètres"] = sum(p.numel() for p in made.parameters())
    return {"pas": steps, "modèles": found}


# %%
loads = expert_loads()
ch9.loads_table(loads)
ch9.plot_loads(loads)
atelier.settle("busiest_expert", ch9.busiest(loads))

# %% [markdown]
# Sans équilibrage, la charge se creuse : le plus chargé des huit experts reçoit plus du double de sa part. La perte
# d'équilibrage, à un centième, la ramène près de l'égalité. <!-- claim: balancing_spreads_the_load -->
# Quant à la perte du modèle, on ne peut départager aucun des trois : en si peu de pas, quatre fois plus de paramètres
# n'ont encore rien rapporté. <!-- claim: experts_have_not_paid_yet -->

# %% [markdown]
# ??? q="fair_router"

# %% [markdown]
# **Ce que l'on n'a pas montré.** Ni le temps (huit petits produits de matrices n'en valent pas un grand, et répartir
# les experts sur plusieurs machines fait voyager les jetons), ni ce que chaque expert apprend. Et l'on compare à pas
# égaux, sur quelques centaines de milliers d'octets : ce que les experts sauraient de plus, à la longue, n'est pas là.
#
# **Qui s'en sert.** Mixtral 8×7B (2 experts sur 8 ; 47 milliards de paramètres, 13 par jeton), DeepSeek-V3 (8 experts
# sur 256, et un que tous emploient ; 671 milliards, 37 par jeton), Qwen3-235B-A22B, Llama 4, gpt-oss. DeepSeek-V3
# équilibre surtout sans perte, par un biais que l'on corrige à chaque pas.
#
# **À lire.** Shazeer et al., *Outrageously Large Neural Networks*, ICLR 2017, arXiv 1701.06538 · Fedus et al., *Switch
# Transformers*, JMLR 2022, arXiv 2101.03961 · Jiang et al., *Mixtral of Experts*, 2024, arXiv 2401.04088.
#
# **Une question ouverte.** Un expert a-t-il un sujet, ou seulement des sortes de jetons ?

# %% [markdown]
# ## 9.5 DETR : un ensemble, et non une suite
#
# **La question.** Un modèle de langue écrit une suite. Mais ce que l'on cherche dans une image, les objets, n'a pas
# d'ordre : si le modèle répond « la tasse, le chat » quand l'étiquette dit « le chat, la tasse », a-t-il deux fois
# tort ?
#
# **L'idée.** **DETR** (*detection transformer*, Carion et al., 2020) lit l'image par morceaux, comme des jetons, puis
# $N$ vecteurs appris, ses requêtes d'objet, interrogent ces morceaux ; chacune rend un objet, ou « rien ». La perte ne
# suit aucun ordre : elle cherche d'abord le meilleur **appariement** entre ce qui est rendu et ce qui est là, un contre
# un, au coût total le plus petit ; puis elle compare deux à deux. Trouver cet appariement, c'est le problème
# d'affectation, que l'algorithme hongrois résout exactement. Plus besoin de retirer les doublons après coup.

# %%
ch9.draw_matching()


# %%
def closest_first(costs):
    """Un appariement glouton : le couple le moins cher d'abord, parmi ce qui reste. costs : (rendus, présents)."""
    left, pairs = costs.clone(), []
    for _ in range(costs.shape[1]):
        row, column = divmod(int(left.argmin()), costs.shape[1])
        pairs.append((row, column))
        left[row], left[:, column] = math.inf, math.inf
    return tuple(zip(*sorted(pairs), strict=True))


# %% experiment="two_matchings"
@atelier.experiment(full={"sizes": (2, 3, 5, 8, 12), "scenes": 300})
def two_matchings(sizes=(2, 5, 8), scenes=100):
    """Autant de points rendus que de points présents, au hasard : la distance totale, gloutonne puis optimale."""
    random, found = torch.Generator().manual_seed(0), {}
    for count in sizes:
        found[count] = []
        for _ in range(scenes):
            costs = torch.cdist(torch.rand(count, 2, generator=random), torch.rand(count, 2, generator=random))
            ways = closest_first(costs), linear_sum_assignment(costs)
            found[count].append([sum(float(costs[r, c]) for r, c in zip(*way, strict=True)) for way in ways])
    return found


# %%
ch9.plot_matchings(two_matchings())

# %% [markdown]
# Prendre d'abord ce qui est le plus près se paie à la fin : les derniers n'ont plus le choix. Le surcoût grandit avec
# le nombre de points. <!-- claim: greedy_pays_at_the_end -->

# %% [markdown]
# Pour apprendre, est-ce que cela change quelque chose ? De petites scènes de 16 × 16 points, de une à quatre taches
# claires. Le même modèle apprend trois fois, avec trois appariements : l'optimal ; le glouton ; et aucun, la requête
# $j$ devant rendre la $j$-ième tache.

# %%
atelier.bet(
    "which_matching",
    "Qui trouvera le plus de taches, après les mêmes pas ?",
    options=("l'optimal, seul", "l'optimal et le glouton, à égalité", "les trois, à égalité"),
)


# %%
def some_scenes(count, random):
    """Des images (count, 16, 16) et, pour chacune, les centres de ses taches (de 1 à 4, 2), entre 0 et 1."""
    axis_points = (torch.arange(16) + 0.5) / 16
    centers = [
        0.1 + 0.8 * torch.rand(int(torch.randint(1, 5, (), generator=random)), 2, generator=random)
        for _ in range(count)
    ]
    blots = [
        (-((axis_points[None, :] - c[:, :1]) ** 2)[:, None, :] - ((axis_points[None, :] - c[:, 1:]) ** 2)[:, :, None])
        / 0.01
        for c in centers
    ]
    return torch.stack([b.exp().sum(0).clamp(max=1) for b in blots]).to(atelier.device()), centers


class SetPredictor(nn.Module):
    """Un très petit DETR : seize morceaux d'image, six requêtes d'objet."""

    def __init__(self, width=64, slots=6):
        super().__init__()
        layer = dict(dim_feedforward=128, dropout=0.0, batch_first=True, norm_first=True)
        self.patch, self.places = nn.Linear(16, width), nn.Parameter(0.5 * torch.randn(16, width))
        self.encoder = nn.TransformerEncoderLayer(width, 4, **layer)
        self.wanted = nn.Parameter(torch.randn(slots, width))
        self.decoder = nn.ModuleList(nn.TransformerDecoderLayer(width, 4, **layer) for _ in range(2))
        self.answer = nn.Linear(width, 3)

    def forward(self, images):
        pieces = images.unfold(1, 4, 4).unfold(2, 4, 4).flatten(1, 2).flatten(2)  # (B, 16 morceaux, 16 points)
        seen = self.encoder(self.patch(pieces) + self.places)
        asked = self.wanted.expand(len(images), -1, -1)
        for layer in self.decoder:
            asked = layer(asked, seen)
        told = self.answer(asked)
        return told[..., 0], told[..., 1:].sigmoid()  # un logit de présence, un centre


matchings = {
    "optimal": linear_sum_assignment,
    "glouton": closest_first,
    "aucun": lambda costs: (range(costs.shape[1]),) * 2,
}


def set_loss(matching):
    """La perte de DETR : apparier, puis comparer."""

    def loss(reader, batch):
        images, centers = batch
        presence, where = reader(images)
        wanted, gaps = torch.zeros_like(presence), []
        with torch.no_grad():
            chance, spots = presence.sigmoid().cpu(), where.cpu()
            pairs = [
                matching(5 * torch.cdist(s, c, p=1) - p[:, None])
                for p, s, c in zip(chance, spots, centers, strict=True)
            ]
        for image, (rows, columns) in enumerate(pairs):
            rows, columns = list(rows), list(columns)
            wanted[image, rows] = 1
            gaps.append((where[image, rows] - centers[image][columns].to(where)).abs().sum(-1))
        return F.binary_cross_entropy_with_logits(presence, wanted) + 5 * torch.cat(gaps).mean()

    return loss


@torch.no_grad()
def found_share(reader, scenes, near=0.08, count=200):
    """Part de taches trouvées à moins de `near`, doublons et taches inventées déduits (un score F1)."""
    images, centers = some_scenes(count, torch.Generator().manual_seed(scenes))
    presence, where = (t.cpu() for t in reader(images))
    good = told = there = 0
    for p, spots, c in zip(presence, where, centers, strict=True):
        gaps = torch.cdist(spots[p > 0], c)
        good += sum(float(gaps[r, k]) < near for r, k in zip(*linear_sum_assignment(gaps), strict=True))
        told, there = told + len(gaps), there + len(c)
    return 2 * good / (told + there)


def learned_sets(way, lr, seed, steps):
    """Un petit DETR, appris de rien sur des scènes tirées à mesure."""
    torch.manual_seed(seed)
    made, random = SetPredictor().to(atelier.device()), torch.Generator().manual_seed(seed)
    scenes = (some_scenes(32, random) for _ in range(steps))
    atelier.train(made, scenes, steps, lr=lr, loss=set_loss(matchings[way]))
    return made


TUNING_SCENES, TEST_SCENES = 1001, 1002
scene_steps = atelier.scale().pick(essai=2, cpu=150, gpu=200)


# %% experiment="set_rates"
@atelier.experiment(full={"ways": tuple(matchings), "rates": (1e-3, 3e-3, 1e-2, 3e-2), "steps": 200})
def set_rates(ways=("optimal",), rates=(3e-3,), steps=scene_steps):
    """Le score de chaque appariement, taux par taux, sur des scènes de réglage."""
    found = {}
    for way in ways:
        for lr in rates:
            found[way, lr] = found_share(learned_sets(way, lr, 0, steps), TUNING_SCENES)
    return {"pas": steps, "scores": found}


# %%
ch9.rates_table(set_rates(), "appariement")

# %%
set_rate = dict.fromkeys(matchings, 1e-2)


# %% experiment="sets_learned"
@atelier.experiment(full={"ways": tuple(matchings), "seeds": range(5), "steps": 200})
def sets_learned(ways=("optimal", "aucun"), seeds=(0,), steps=scene_steps):
    """Le score de chaque appariement, à son taux, sur d'autres scènes, graine par graine."""
    found = {way: [] for way in ways}
    for seed in seeds:
        for way in ways:
            found[way].append(found_share(learned_sets(way, set_rate[way], seed, steps), TEST_SCENES))
    return {"pas": steps, "scores": found}


# %%
set_scores = sets_learned()
ch9.scores_table(set_scores)
atelier.settle("which_matching", ch9.best_matching(set_scores))

# %% [markdown]
# Sans appariement, le modèle se perd : rien, dans l'image, ne dit laquelle des taches est la $j$-ième.
# <!-- claim: no_matching_learns_little -->
# Entre l'optimal et le glouton, on ne peut pas les départager. <!-- claim: greedy_learns_as_well_here -->
# Il fallait apparier un contre un ; que ce soit au mieux ne se voit pas, sur ces scènes.

# %% [markdown]
# **Ce que l'on n'a pas montré.** Des taches rondes, d'une seule sorte, sans boîte ni classe : rien de ce qui rend la
# détection difficile. Et un score à un nombre de pas donné : celui qui apprend le moins vite pourrait finir par
# rejoindre l'autre.
#
# **Qui s'en sert.** RT-DETR pour la détection en temps réel, Mask2Former pour la segmentation ; DETR est dans
# transformers (`DetrForObjectDetection`). L'appariement sert partout où la réponse est un ensemble.
#
# **À lire.** Carion et al., *End-to-End Object Detection with Transformers*, ECCV 2020, arXiv 2005.12872 · Zhu et al.,
# *Deformable DETR*, ICLR 2021, arXiv 2010.04159 · Li et al., *DN-DETR*, CVPR 2022, arXiv 2203.01305.
#
# **Une question ouverte.** D'un pas à l'autre, l'appariement change, et une requête court après plusieurs taches :
# combien de pas y perd-on ? (C'est ce que DN-DETR mesure.)

# %% [markdown]
# ## 9.6 RLHF : préférer
#
# **La question.** On ne sait pas écrire la perte d'une « bonne réponse ». Mais on sait dire, de deux réponses, laquelle
# est la meilleure. Comment en faire un apprentissage ?
#
# **L'idée.** En deux temps (*reinforcement learning from human feedback*, RLHF). D'abord un **modèle de récompense**,
# qui donne une note $r$ à un texte : on le règle pour que le préféré ait la meilleure note, par la perte $-\ln
# \sigma(r_{\text{préféré}} - r_{\text{autre}})$. Puis une **politique**, le modèle qui écrit, que l'on pousse vers les
# textes bien notés, sans trop l'éloigner de ce qu'il était. La façon la plus simple n'apprend rien : on tire $n$
# suites, on garde la mieux notée (*best-of-n*). InstructGPT fait mieux, par PPO ; DPO, que vous avez écrit au chapitre
# 8, se passe du modèle de récompense ; GRPO note un groupe de suites, et pousse vers celles qui dépassent la moyenne.
#
# Des humains coûtent cher. Notre juge sera une règle : il préfère la suite dont les mots sont les plus longs. Personne
# ne la dira au modèle de récompense : il n'en verra que des préférences. Comme nous la connaissons, nous pourrons voir
# ce qu'il en a compris.

# %%
ch9.draw_preferences()

# %%
atelier.bet(
    "reward_share",
    "Laisser le modèle de récompense choisir parmi 16 suites donne quelle part, en pour cent, de ce que le juge y "
    "gagnerait lui-même ?",
)


# %%
def judged(ids):
    """La note du juge : le nombre moyen de lettres par mot."""
    return statistics.mean([len(word) for word in re.findall(r"\w+", tokenizer.decode(ids.tolist()))] or [0])


suite_length = atelier.scale().pick(essai=4, cpu=24, gpu=24)


def continuations(writer, start, count, n_new=suite_length):
    """`count` suites tirées au sort → (count, n_new)."""
    ids = start.repeat(count, 1)
    length = {"min_new_tokens": n_new, "max_new_tokens": n_new}
    told = writer.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, pad_token_id=0, **length)
    return told[:, start.shape[1] :]


@torch.no_grad()
def described(ids):
    """Ce que Colibri pense d'une suite : la moyenne de ses derniers vecteurs → (B, 192)."""
    return colibri.transformer(ids).last_hidden_state.mean(1)


def reward_model(pairs, seed):
    """Une couche linéaire, apprise sur des couples de suites dont le juge a préféré l'une."""
    torch.manual_seed(seed)
    starts = some_starts(8, train_tokens)
    told = torch.cat([continuations(colibri, start, pairs // 4) for start in starts]).view(-1, 2, suite_length)
    vectors = torch.stack([described(told[:, 0]), described(told[:, 1])], dim=1)
    notes = torch.tensor([[judged(ids) for ids in pair] for pair in told])
    order = notes.argsort(dim=1, descending=True).to(vectors.device)
    preferred, other = (vectors[torch.arange(len(vectors), device=vectors.device), order[:, side]] for side in (0, 1))
    reward = nn.Linear(vectors.shape[-1], 1, bias=False).to(vectors.device)
    optimizer_of_taste = torch.optim.AdamW(reward.parameters(), lr=1e-2, weight_decay=0.1, fused=True)
    for _ in range(200):
        optimizer_of_taste.zero_grad()
        F.softplus(reward(other) - reward(preferred)).mean().backward()
        optimizer_of_taste.step()
    return reward


# %% experiment="best_of"
from statistics import mean


@atelier.experiment(full={"counts": (1, 2, 4, 8, 16, 32), "seeds": range(5), "starts": 12, "pairs": 100})
def best_of(counts=(1, 4, 16), seeds=(0,), starts=4, pairs=100):
    """La note du juge, en moyenne : la suite que choisit le modèle de récompense parmi n, et celle du juge lui-même."""
    found = {(who, n): [] for who in ("récompense", "juge") for n in counts}
    for seed in seeds:
        reward = reward_model(pairs, seed)
        told = [continuations(colibri, start, max(counts)) for start in some_starts(starts)]
        notes = [[judged(ids) for ids in group] for group in told]
        liked = [reward(described(group))[:, 0].tolist() for group in told]
        for n in counts:
            best = [max(range(n), key=scores.__getitem__) for scores in liked]
            found["récompense", n].append(mean(row[i] for row, i in zip(notes, best, strict=True)))
            found["juge", n].append(mean(max(row[:n]) for row in notes))
    return {"couples": pairs, "notes": found}


# %%
chosen_best = best_of()
ch9.plot_best_of(chosen_best)
atelier.settle("reward_share", ch9.gained_share(chosen_best))

# %% [markdown]
# Choisie parmi seize, la suite plaît davantage au juge qu'une suite au hasard : d'une centaine de préférences, le
# modèle de récompense a compris quelque chose. <!-- claim: best_of_n_pleases_the_judge --> Mais pas tout : parmi les
# mêmes suites, le juge aurait mieux choisi. <!-- claim: the_reward_model_is_not_the_judge --> Et de 16 à 32, il n'y a
# plus rien que l'on sache départager, quand le juge, lui, trouverait encore mieux.
# <!-- claim: more_than_sixteen_brings_nothing_sure -->

# %% [markdown]
# **Ce que l'on n'a pas montré.** Un pas de politique : ici, Colibri n'apprend rien, on choisit parmi ce qu'il écrit, et
# choisir parmi seize coûte seize fois. Ni un juge qui change d'avis, ni un modèle de récompense qui serait lui-même un
# modèle de langue.
#
# **Qui s'en sert.** InstructGPT puis ChatGPT, par PPO ; Llama 3, par DPO, après un tri par un modèle de récompense ;
# DeepSeek-R1, par GRPO, où la récompense est une règle (la réponse est-elle juste ?) et non un modèle.
#
# **À lire.** Ouyang et al., *Training Language Models to Follow Instructions with Human Feedback*, NeurIPS 2022, arXiv
# 2203.02155 · Rafailov et al., *Direct Preference Optimization*, NeurIPS 2023, arXiv 2305.18290 · Gao et al., *Scaling
# Laws for Reward Model Overoptimization*, ICML 2023, arXiv 2210.10760.
#
# **Une question ouverte.** À force de choisir parmi de plus en plus de suites, finit-on par plaire au modèle de
# récompense et déplaire au juge ?

# %% [markdown]
# ## 9.7 Une image et du texte dans une même suite
#
# **La question.** Un modèle de langue lit des jetons. Comment lui montrer une image ?
#
# **L'idée.** En faire des vecteurs de la même taille, et les mettre dans la suite. On découpe l'image en morceaux
# (*patches*) ; une couche linéaire fait de chacun un vecteur, comme le plongement en fait un d'un jeton (ViT,
# Dosovitskiy et al., 2021). Le reste du modèle ne fait pas la différence : l'attention va des mots aux morceaux, et la
# perte ne compte que les mots. Les grands modèles placent d'ordinaire devant un encodeur d'images déjà appris, et une
# petite couche qui traduit ses vecteurs (LLaVA) ; ici, tout s'apprend ensemble.

# %%
ch9.draw_one_sequence()

# %%
atelier.bet(
    "new_mixtures",
    "Le modèle n'a jamais vu, par exemple, de petit carré en haut à gauche, mais tous ces mots, ailleurs. De ces "
    "descriptions-là, quelle part, en pour cent, dira-t-il sans une faute ?",
)

# %%
WORDS = (
    "début",
    "un petit",
    "un grand",
    "carré",
    "triangle",
    "croix",
    "en haut",
    "en bas",
    "à gauche",
    "à droite",
    "fin",
)
descriptions = [(a, b, c, d) for a in (1, 2) for b in (3, 4, 5) for c in (6, 7) for d in (8, 9)]
unseen = [descriptions[i] for i in (0, 9, 14, 23)]  # quatre descriptions que l'apprentissage ne montre pas
shown = [what for what in descriptions if what not in unseen]


def drawn(what, random):
    """L'image (16, 16) d'une description : une forme, à un point près au hasard dans son quart, sur un fond bruité."""
    size, shape, up, side = what
    half = 1.6 if size == 1 else 3.2
    jitter = torch.randint(-1, 2, (2,), generator=random)
    y, x = (
        torch.arange(16.0)[:, None] - (4 if up == 6 else 11) - jitter[0],
        torch.arange(16.0) - (4 if side == 8 else 11) - jitter[1],
    )
    inside = {
        3: (x.abs() <= half) & (y.abs() <= half),
        4: (y.abs() <= half) & (x.abs() <= (y + half) / 2),
        5: ((x.abs() < 1) & (y.abs() <= half)) | ((y.abs() < 1) & (x.abs() <= half)),
    }
    return inside[shape].float() + 0.1 * torch.randn(16, 16, generator=random)


class Captioner(nn.Module):
    """Seize morceaux d'image puis des mots, dans une même suite, lus par les mêmes blocs."""

    def __init__(self, width=64):
        super().__init__()
        self.patch, self.words = nn.Linear(16, width), nn.Embedding(len(WORDS), width)
        self.places = nn.Parameter(0.02 * torch.randn(16 + 6, width))
        self.blocks = nn.Sequential(
            *(
                SmallBlock(width, lambda x: x, nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Linear(256, width)))
                for _ in range(2)
            )
        )
        self.last, self.guess = nn.LayerNorm(width), nn.Linear(width, len(WORDS))

    def forward(self, images, ids):
        pieces = images.unfold(1, 4, 4).unfold(2, 4, 4).flatten(1, 2).flatten(2)
        suite = torch.cat([self.patch(pieces), self.words(ids)], dim=1)
        return self.guess(self.last(self.blocks(suite + self.places[: suite.shape[1]])))[:, 16:]


def some_images(which, count, random):
    """`count` images au hasard parmi ces descriptions, et leurs légendes (count, 6)."""
    picked = [which[i] for i in torch.randint(len(which), (count,), generator=random)]
    ids = torch.tensor([(0, size, shape, up, side, 10) for size, shape, up, side in picked])
    return torch.stack([drawn(what, random) for what in picked]).to(atelier.device()), ids.to(atelier.device())


def caption_loss(reader, batch):
    """Entropie croisée du mot suivant, sachant l'image et les mots d'avant."""
    images, ids = batch
    return F.cross_entropy(reader(images, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def captions(reader, images):
    """Les légendes qu'écrit le modèle, mot après mot, au plus probable → (B, 6)."""
    ids = torch.zeros(len(images), 1, dtype=torch.long, device=images.device)
    for _ in range(5):
        ids = torch.cat([ids, reader(images, ids)[:, -1:].argmax(-1)], dim=1)
    return ids


def learned_captions(lr, seed, steps, blind=False):
    """Un modèle appris de rien, sur des images dessinées à mesure ; blind : chaque légende va avec une autre image."""
    torch.manual_seed(seed)
    made, random = Captioner().to(atelier.device()), torch.Generator().manual_seed(seed)
    batches = (some_images(shown, 64, random) for _ in range(steps))
    shuffled = ((images.roll(1, 0), ids) for images, ids in batches) if blind else batches
    atelier.train(made, shuffled, steps, lr=lr, loss=caption_loss)
    return made


caption_steps = atelier.scale().pick(essai=2, cpu=150, gpu=150)


def right_words(made, which, drawn_from):
    """Sur 200 images : la part de mots justes, place par place, puis celle de légendes entières."""
    images, ids = some_images(which, 200, torch.Generator().manual_seed(drawn_from))
    right = (captions(made, images) == ids).float()
    return [*right[:, 1:5].mean(0).tolist(), right.all(1).float().mean().item()]


TUNING_IMAGES, TEST_IMAGES = 2001, 2002


# %% experiment="caption_rates"
@atelier.experiment(full={"rates": (1e-3, 3e-3, 1e-2, 3e-2), "steps": 150})
def caption_rates(rates=(3e-3,), steps=caption_steps):
    """La part de légendes entières, sur des images de réglage de descriptions vues, taux par taux."""
    found = {}
    for lr in rates:
        found["image et texte", lr] = right_words(learned_captions(lr, 0, steps), shown, TUNING_IMAGES)[-1]
    return {"pas": steps, "scores": found}


# %%
ch9.rates_table(caption_rates(), "modèle")


# %% experiment="captions_learned"
@atelier.experiment(full={"seeds": range(5), "steps": 150, "blinds": (False, True)})
def captions_learned(seeds=(0,), lr=1e-2, steps=caption_steps, blinds=(False,)):
    """Les mots justes sur des descriptions vues, puis jamais vues, graine par graine ; avec l'image, ou une autre."""
    found = {}
    for blind in blinds:
        for seed in seeds:
            made = learned_captions(lr, seed, steps, blind)
            for kind, which in (("vues", shown), ("jamais vues", unseen)):
                found.setdefault((blind, kind), []).append(right_words(made, which, TEST_IMAGES))
    return {"pas": steps, "justes": found}


# %%
captioned = captions_learned()
ch9.captions_table(captioned)
atelier.settle("new_mixtures", ch9.new_mixtures(captioned))

# %% [markdown]
# Ce qu'il a vu ailleurs, il le dit presque toujours ; avec l'image d'un autre, il ne peut que deviner.
# <!-- claim: captions_come_from_the_image -->
# Ce qu'il n'a jamais vu ensemble, il le dit bien moins souvent, alors qu'il connaît chacun des mots.
# <!-- claim: new_mixtures_are_harder -->

# %% [markdown]
# **Ce que l'on n'a pas montré.** Onze mots, trois formes, une image de 256 points : rien n'est à savoir, tout est à
# voir. Un vrai modèle apporte aussi ce qu'il sait du monde, et c'est ce qui le fait parfois décrire ce qui n'est pas
# sur l'image.
#
# **Qui s'en sert.** LLaVA, Qwen2-VL et Gemma 3 mettent les morceaux d'image dans la suite ; Llama 3.2 Vision les fait
# lire par une attention à part ; Fuyu, comme nous, n'a pas d'encodeur d'images.
#
# **À lire.** Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021, arXiv 2010.11929 · Radford et al.,
# *Learning Transferable Visual Models From Natural Language Supervision* (CLIP), ICML 2021, arXiv 2103.00020 · Liu et
# al., *Visual Instruction Tuning* (LLaVA), NeurIPS 2023, arXiv 2304.08485.
#
# **Une question ouverte.** Combien de morceaux par image ? Deux fois plus fin, c'est quatre fois plus de jetons à lire.

# %% [markdown]
# ## 9.8 Votre exposé
#
# Choisissez un sujet, et suivez le « Plan type » de la diapositive :
#
# | partie | ce qu'on y attend | minutes |
# |---|---|---|
# | Introduction | le contexte, l'importance du sujet, et pourquoi vous l'avez choisi | 2 |
# | Le concept clé | la question, l'idée, un dessin ; où cela se place dans un Transformer | 5 |
# | Applications et exemples | qui s'en sert, pour quoi ; une expérience **à vous**, exécutée devant nous | 5 |
# | Avantages et limites | ce qui est mesuré, ce qui est cité, ce que l'on ne sait pas ; perspectives | 3 |
#
# Deux commandes, à taper dans un terminal, là où est ce carnet. La première écrit un carnet à vous, qui suit ce plan ;
# la seconde en fait des diapositives et un PDF (par Chromium ou Chrome) :
#
# ```
# python -m atelier.talk nouveau "Le décodage spéculatif"
# python -m atelier.talk exporter expose_le_decodage_speculatif.ipynb
# ```
#
# Le barème y est, sous chaque partie : cinq critères de quatre points, la question, le concept, l'expérience, les
# limites, les sources. C'est ce carnet que vous remettez ; quelqu'un le lira et le notera, là même.
#
# Partez de l'expérience de la section, et changez-en **une** chose : une taille, un réglage, une mesure. Pariez avant.
# Ce que vous affirmez, montrez-le, ou dites d'où cela vient : papier, tableau, ligne. Une expérience qui contredit ce
# que vous attendiez fait un bon exposé.


# %%
atelier.progress()
