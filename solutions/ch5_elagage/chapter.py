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
# # Chapitre 5 · Élagage
#
# Colibri a trois millions de poids. Combien peut-on en remplacer par zéro sans que ses phrases changent ? Un sur dix ?
# La moitié ? Et une fois qu'ils sont nuls, qu'y gagne-t-on : de la place, du temps, rien ?
#
# Dans ce chapitre, vous écrivez de quoi choisir les poids à retirer, puis vous mesurez ce que cela coûte et ce que cela
# rapporte. À la fin, vous savez prendre un modèle, en retirer un morceau, et lui réapprendre le reste.
#
# Comptez deux heures pour l'essentiel ; ce qui porte une étoile, sections, cellules ou exercices, est un bonus et peut
# attendre. Rien ne vous arrête : tant qu'un exercice n'est pas fait, les expériences qui en dépendent montrent le
# résultat de l'auteur et le disent.

# %%
import itertools

import atelier
from atelier import check, hint, quiz
from atelier.figures import ch5

atelier.describe_machine()

# %% tags=["setup"]
import copy
import functools
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

# %%
atelier.bet(
    "half_gone",
    "On met à zéro la moitié des poids de chaque couche, les plus petits. La perplexité de Colibri est multipliée par…",
    options=("à peine plus de 1", "à peu près 2", "à peu près 5", "plus de 100"),
)

# %% [markdown]
# ## 5.1 Où nous en sommes
#
# Le chapitre 3 écrivait chaque poids sur moins de bits. Le chapitre 4 faisait apprendre un petit modèle d'un grand.
# Ici, l'on garde le modèle et l'on en **retire**. Suivez les accolades : aucune de ces voies n'interdit les autres, et
# nous en parcourrons deux ensemble.

# %%
ch5.three_compressions(here=5)

# %% [markdown]
# La diapositive dit deux choses de l'élagage. Il a « cultivated different routes of estimating importances » : c'est la
# moitié de ce chapitre, quatre routes, de la plus simple à la plus exacte. Et « a lot of the work are done solely for
# research purposes » : c'est l'autre moitié, ce que les zéros font gagner pour de bon.

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
linear_layers = {name: module for name, module in colibri.named_modules() if isinstance(module, Conv1D)}
layer_weights = {name: layer.weight.detach().T for name, layer in linear_layers.items()}
ch5.what_is_pruned(colibri.num_parameters(), {name: w.numel() for name, w in layer_weights.items()})

# %% [markdown]
# Comme au chapitre 3, `Conv1D` est la couche linéaire de GPT-2 et range son poids en (entrée, sortie). D'où le `.T` :
# dans tout le chapitre, une matrice de poids est en (sortie, entrée), et une de ses lignes calcule une sortie.
#
# La part de poids nuls s'appelle la **parcimonie** (*sparsity*). Elle se mesure sur plusieurs tenseurs à la fois.

# %% [markdown]
# ### ✎ sparsity


# %% exercise="sparsity"
def sparsity(tensors: Iterable[torch.Tensor]) -> float:
    """Parcimonie : part des éléments exactement nuls, tous tenseurs confondus.

    tensors : itérable de tenseurs de formes et de types quelconques (liste, n-uplet, générateur…),
        qui compte au moins un élément ; on ne peut parfois le parcourir qu'une fois.
    Rend un float de Python, entre 0 (aucun zéro) et 1 (que des zéros). Chaque élément compte
    autant, quelle que soit la taille de son tenseur ; un élément très petit n'est pas nul, −0
    l'est.
    """
    ### BEGIN SOLUTION
    zeros, total = 0, 0
    for t in tensors:
        zeros += int((t == 0).sum())
        total += t.numel()
    return zeros / total
    ### END SOLUTION


# %% [markdown]
# Un modèle entraîné contient-il déjà des zéros ? Et de très petits poids ? Voici de quoi regarder aussi ce qui circule
# dans ses couches : c'est votre `layer_inputs` du chapitre 3.


# %%
train_tokens = atelier.corpus_tokens("a_train")
extract_tokens = atelier.scale().pick(essai=512, cpu=1024, gpu=65536)
long_extract = {"tokens": max(extract_tokens, 4096)}


def some_text(count, seed=0):
    """`count` fenêtres de 256 jetons, tirées de l'extrait d'apprentissage → (count, 256)."""
    return next(atelier.windows(train_tokens, count, 256, seed))


def inputs_of(reader, ids, names):
    """Ce qui entre dans ces couches quand le modèle lit ids : chemin → (jetons, entrée)."""
    seen, hooks = {}, []
    for name in names:

        def keep(_, given, name=name):
            seen[name] = given[0].flatten(0, -2)

        hooks.append(reader.get_submodule(name).register_forward_pre_hook(keep))
    with torch.no_grad():
        reader.transformer(ids)  # la tête ne nous apprendrait rien
    for hook in hooks:
        hook.remove()
    return seen


def losses_of(version, tokens):
    """La perte d'une version de Colibri, part à part, sur les premiers jetons de l'extrait de validation."""
    return atelier.evaluate_perplexity(version, max_tokens=tokens).losses


def hard_loss(pupil, ids):
    """Entropie croisée du jeton suivant, en nats : ce qu'un modèle apprend d'un texte (les étiquettes dures)."""
    logits = pupil(ids, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


# %% experiment="zeros_census"
@atelier.experiment(needs=[sparsity])
def zeros_census():
    """Parts de zéros dans Colibri, et parts de ce qui est au centième du plus grand, ou moins."""
    after_gelu = [name for name in linear_layers if name.endswith("mlp.c_proj")]
    kinds = {
        "poids des couches linéaires": list(layer_weights.values()),
        "tous les paramètres": list(colibri.parameters()),
        "sorties de la GELU": list(inputs_of(colibri, some_text(2), after_gelu).values()),
    }
    found = {}
    for kind, values in kinds.items():
        almost = [(t.abs() > 0.01 * t.abs().max()).float() for t in values]
        found[kind] = {"nuls": sparsity(values), "presque nuls": sparsity(almost)}
    return found


# %%
ch5.census_table(zeros_census())

# %% [markdown]
# Aucun zéro dans les poids : un apprentissage n'en fait pas tout seul. Mais beaucoup de poids presque nuls.
# <!-- claim: training_makes_no_zeros -->

# %% [markdown]
# ## 5.2 Les plus petits d'abord
#
# Il faut donc choisir. Une **importance** (*importance estimate*) est un nombre par poids ; on retire ceux qui en ont
# le moins. La plus simple est la taille : $|w|$, la **magnitude** (Han et al., 2015).
#
# ??? q="why_magnitude"

# %% [markdown]
# Un **masque** est un tenseur de booléens, un par poids : True, il reste ; False, il devient zéro. Il se multiplie au
# poids.

# %% [markdown]
# ### ✎ magnitude_mask


# %% exercise="magnitude_mask"
def magnitude_mask(w: torch.Tensor, amount: float) -> torch.Tensor:
    """Masque qui retire les poids de plus petite valeur absolue.

    w : tenseur flottant de forme quelconque, pas forcément contigu en mémoire.
    amount : part des poids à retirer, entre 0 (aucun) et 1 (tous).
    Rend un tenseur de booléens de la forme de w, True = poids gardé. Exactement
    round(amount · nombre de poids) sont retirés, les plus petits |w| d'abord ; à égalité, celui qui
    vient le premier quand on déroule w ligne après ligne.
    Lève ValueError si amount n'est pas entre 0 et 1.

    Source : Han et al., « Learning both Weights and Connections for Efficient Neural Networks »,
    2015.
    """
    ### BEGIN SOLUTION
    if not 0 <= amount <= 1:
        raise ValueError(f"la part à retirer est entre 0 et 1, pas {amount}")
    removed = round(amount * w.numel())
    order = w.abs().flatten().argsort(stable=True)
    mask = torch.ones(w.numel(), dtype=torch.bool, device=w.device)
    mask[order[:removed]] = False
    return mask.reshape(w.shape)
    ### END SOLUTION


# %% [markdown]
# Votre masque, sur une couche de Colibri. **Bougez le curseur :** quand la moitié des poids est partie, quelle part de
# la somme des carrés est partie avec eux ?

# %%
ch5.threshold(layer_weights["transformer.h.0.mlp.c_fc"], magnitude_mask)

# %% [markdown]
# La moitié des poids porte bien peu. Voilà l'espoir de l'élagage. Pour savoir ce qu'en dit la perplexité, il reste à
# poser les masques sur un modèle ; ces fonctions serviront jusqu'à la fin. Un masque au hasard donnera un point de
# comparaison : c'est votre `magnitude_mask`, sur des nombres tirés au sort.


# %%
@torch.no_grad()
def apply_masks(pruned, kept):
    """Met à zéro, sur place, les poids masqués. kept : chemin → booléens (sortie, entrée)."""
    for name, kept_here in kept.items():
        pruned.get_submodule(name).weight.mul_(kept_here.T)


def masked(original, kept):
    """Une copie du modèle où les poids masqués valent zéro."""
    pruned = copy.deepcopy(original)
    apply_masks(pruned, kept)
    return pruned


def smallest_gone(pupil, amount):
    """Un masque par couche : les plus petits poids du moment n'en sont pas."""
    return {name: magnitude_mask(pupil.get_submodule(name).weight.detach().T, amount) for name in linear_layers}


def at_random(amount, seed):
    """Un masque par couche, tiré au sort."""
    draw = torch.Generator().manual_seed(seed)
    noise = {name: torch.rand(w.shape, generator=draw).to(w.device) for name, w in layer_weights.items()}
    return {name: magnitude_mask(values, amount) for name, values in noise.items()}


# %%
every_tenth = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
some_amounts = atelier.scale().pick(essai=(0.5,), cpu=(0.3, 0.5, 0.7), gpu=every_tenth)
few_words = atelier.scale().pick(essai=4, cpu=16, gpu=24)


# %% experiment="magnitude_sweep"
@atelier.experiment(needs=[magnitude_mask], full=long_extract | {"amounts": every_tenth, "seeds": range(5)})
def magnitude_sweep(amounts=some_amounts, seeds=(0,), tokens=extract_tokens):
    """Perte de Colibri, part à part, quand chaque couche perd ses plus petits poids, ou des poids au hasard."""
    found = {"entier": losses_of(colibri, tokens)}
    for amount in ch5.progress_bar(amounts, "élagage"):
        found["magnitude", amount] = losses_of(masked(colibri, smallest_gone(colibri, amount)), tokens)
        for seed in seeds if amount <= 0.5 else ():
            found["hasard", amount, seed] = losses_of(masked(colibri, at_random(amount, seed)), tokens)
    return {"jetons": tokens, "pertes": found}


# %%
by_magnitude = magnitude_sweep()
ch5.plot_sweeps(by_magnitude)
atelier.settle("half_gone", ch5.how_many_times(by_magnitude, ("magnitude", 0.5)))

# %% [markdown]
# L'axe vertical est logarithmique. Un poids sur dix retiré au hasard coûte plus cher que quatre sur dix parmi les plus
# petits.
# <!-- claim: one_in_ten_at_random_costs_more_than_four_in_ten -->
# Jusqu'à un sur cinq, les plus petits se laissent prendre pour quelques pour cent de perplexité ; ensuite, cela va
# vite.
# <!-- claim: one_in_five_is_cheap -->

# %% [markdown]
# Et les phrases ? Celles-ci sont tirées au sort, avec le même tirage pour toutes : le choix le plus probable, jeton
# après jeton, tourne en rond même sur Colibri entier, et ne montrerait que cela.


# %% experiment="pruned_sentences"
@atelier.experiment(needs=[magnitude_mask], full={"n_new": 24})
def pruned_sentences(amounts=(0.0, 0.2, 0.4, 0.6), n_new=few_words):
    """Ce que Colibri, élagué, écrit après un même début, par un même tirage (T = 0,7)."""
    start = "Le salarié peut demander"
    ids = tokenizer(start, return_tensors="pt")["input_ids"].to(colibri.device)
    found = {}
    for amount in amounts:
        torch.manual_seed(1)
        writer = masked(colibri, smallest_gone(colibri, amount))
        said = writer.generate(ids, do_sample=True, temperature=0.7, max_new_tokens=n_new, pad_token_id=0)
        found[amount] = " ".join(tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True).split())
    return {"début": start, "suites": found}


# %%
ch5.sentences_table(pruned_sentences())

# %% [markdown]
# ## 5.3 Un seul classement pour tout le modèle
#
# Jusqu'ici, chaque couche perdait la même part. Mais pourquoi ? Si une couche n'a que de petits poids, ne devrait-elle
# pas en perdre davantage ? Classons-les tous ensemble.

# %%
atelier.bet(
    "one_ranking",
    "À 50 %, un seul classement pour tout le modèle fait…",
    options=("mieux que couche par couche", "moins bien", "on ne peut pas les départager"),
)

# %% [markdown]
# ### ✎ global_magnitude_masks


# %% exercise="global_magnitude_masks"
def global_magnitude_masks(
    weights: dict[str, torch.Tensor],
    amount: float,
) -> dict[str, torch.Tensor]:
    """Masques qui retirent les plus petits poids de tout un modèle, d'après un seul classement.

    weights : nom → tenseur flottant de forme quelconque, pas forcément contigu en mémoire.
    amount : part des poids à retirer, entre 0 (aucun) et 1 (tous), sur l'ensemble des tenseurs.
    Rend un dictionnaire aux mêmes noms : nom → tenseur de booléens de la forme du poids,
    True = poids gardé. Exactement round(amount · nombre total de poids) sont retirés, les plus
    petits |w| de tous d'abord : un tenseur peut en perdre beaucoup, un autre aucun.
    """
    ### BEGIN SOLUTION
    scores = torch.cat([w.abs().flatten() for w in weights.values()])
    removed = round(amount * scores.numel())
    kept = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    kept[scores.argsort(stable=True)[:removed]] = False
    pieces = kept.split([w.numel() for w in weights.values()])
    return {name: piece.reshape(w.shape) for (name, w), piece in zip(weights.items(), pieces, strict=True)}
    ### END SOLUTION


# %% experiment="global_sweep"
@atelier.experiment(needs=[global_magnitude_masks], full=long_extract | {"amounts": every_tenth})
def global_sweep(amounts=some_amounts, tokens=extract_tokens):
    """La même perte, quand tous les poids sont classés ensemble."""
    found = {}
    for amount in ch5.progress_bar(amounts, "élagage"):
        kept = global_magnitude_masks(layer_weights, amount)
        found["magnitude, globale", amount] = losses_of(masked(colibri, kept), tokens)
    return {"jetons": tokens, "pertes": found}


# %%
by_one_ranking = global_sweep()
ch5.plot_sweeps(by_magnitude, by_one_ranking)
atelier.settle("one_ranking", ch5.better_of(by_magnitude, by_one_ranking))

# %% [markdown]
# Moins bien, de 20 à 60 %, là où Colibri parle encore.
# <!-- claim: one_ranking_by_size_is_worse -->
# Regardez qui paie, à 50 % :


# %% experiment="global_shares"
@atelier.experiment(needs=[global_magnitude_masks])
def global_shares(amount=0.5):
    """Ce que chaque couche perd quand toutes sont classées ensemble."""
    kept = global_magnitude_masks(layer_weights, amount)
    return {name: 1 - kept_here.double().mean().item() for name, kept_here in kept.items()}


# %%
shares_lost = global_shares()
ch5.plot_map(shares_lost, "Part retirée de chaque couche, 50 % en tout")

# %% [markdown]
# ??? q="global_collapse"

# %% [markdown]
# Vérifions. On élague **une seule** couche à la fois, de moitié, et l'on regarde la perplexité. Les plus dégarnies
# étaient-elles les moins utiles ?


# %% experiment="one_layer_at_a_time"
@atelier.experiment(needs=[magnitude_mask], full=long_extract)
def one_layer_at_a_time(amount=0.5, tokens=extract_tokens):
    """Perte de Colibri quand une seule couche perd la moitié de ses poids."""
    found = {"entier": losses_of(colibri, tokens)}
    for name, w in ch5.progress_bar(list(layer_weights.items()), "une couche à la fois"):
        found[name] = losses_of(masked(colibri, {name: magnitude_mask(w, amount)}), tokens)
    return {"jetons": tokens, "pertes": found}


# %%
alone = one_layer_at_a_time()
ch5.plot_map(ch5.rises(alone), "Hausse de la perplexité, une seule couche élaguée de moitié", log=True)
ch5.map_against_map(shares_lost, ch5.rises(alone))

# %% [markdown]
# Comparez les deux cartes. Le bloc 0 est le plus dégarni, et c'est lui qui le supporte le moins ; mais d'une couche à
# l'autre, les deux rangements ne se ressemblent guère.
# <!-- claim: size_does_not_tell_what_a_layer_bears -->
# La taille des poids dit donc mal ce qu'une couche supporte. Que manque-t-il à notre importance ? Deux pistes. Ce qui
# **entre** dans la couche : c'est la réserve « à entrée égale » du premier quiz. Et ce que le reste du modèle **fait**
# de sa sortie.

# %%
atelier.bet(
    "what_is_missing",
    "Que faut-il ajouter à |w| pour que le classement global cesse d'être le plus mauvais ?",
    options=("ce qui entre dans la couche", "ce que la perte fait de sa sortie"),
)

# %% [markdown]
# ## 5.4 Wanda : ce qu'un poids multiplie
#
# Première piste. Un neurone reçoit deux entrées : la première vaut d'ordinaire 100, la seconde 0,1. Leurs poids sont
# 0,1 et 1. Lequel retirer ? Calculez ce que chacun apporte à la sortie.
#
# <details><summary>Réponse</summary>
#
# 10 et 0,1 : le plus petit poids est cent fois plus important. C'est le second qu'il faut retirer.
#
# </details>
#
# **Wanda** (*pruning by Weights and activations*, Sun et al., 2023) s'en tient là. Un poids est aussi important que ce
# qu'il apporte : sa taille, multipliée par une mesure de son entrée sur quelques textes d'étalonnage. Cette mesure est
# une longueur, celle du vecteur que forment toutes les valeurs de l'entrée : une norme 2. Et l'on ne compare que les
# poids d'une même sortie.
#
# ??? q="wanda_row"

# %% [markdown]
# ### ✎ wanda_mask


# %% exercise="wanda_mask"
def wanda_mask(w: torch.Tensor, x: torch.Tensor, amount: float) -> torch.Tensor:
    """Masque de Wanda : chaque poids pèse autant que ce qu'il apporte.

    w : (out, in) flottant, les poids d'une couche ; x : (n, in) du même type, n jetons vus à
    l'entrée de la couche.
    amount : part des poids à retirer dans chaque ligne, entre 0 (aucun) et 1 (tous).
    Rend un tenseur de booléens (out, in), True = poids gardé. L'importance d'un poids est le
    produit de sa valeur absolue et de la norme 2 de son entrée sur les n jetons. Dans chaque ligne,
    exactement round(amount · in) poids sont retirés, les moins importants d'abord ; à égalité,
    celui du plus petit indice.

    Source : Sun et al., « A Simple and Effective Pruning Approach for Large Language Models »,
    2023, § 3.
    """
    ### BEGIN SOLUTION
    scores = w.abs() * x.norm(dim=0)
    removed = round(amount * w.shape[1])
    order = scores.argsort(dim=1, stable=True)
    return torch.ones_like(w, dtype=torch.bool).scatter(1, order[:, :removed], False)
    ### END SOLUTION


# %% [markdown]
# Un point par poids d'une couche. La magnitude coupe à l'horizontale ; comment Wanda coupe-t-il ?

# %%
few_windows = atelier.scale().pick(essai=2, cpu=8, gpu=16)


# %% experiment="weight_and_input"
@atelier.experiment(needs=[magnitude_mask, wanda_mask])
def weight_and_input(name="transformer.h.1.attn.c_attn", amount=0.5, points=3000):
    """Trois mille poids d'une couche : leur taille, la norme de ce qu'ils multiplient, et qui les garde."""
    w, x = layer_weights[name], inputs_of(colibri, some_text(16), [name])[name]
    chosen = torch.randperm(w.numel(), generator=torch.Generator().manual_seed(0))[:points].to(w.device)
    columns = {
        "taille": w.abs(),
        "entrée": x.norm(dim=0).expand(w.shape),
        "magnitude": magnitude_mask(w, amount).float(),
        "Wanda": wanda_mask(w, x, amount).float(),
    }
    return {"couche": name} | {what: values.flatten()[chosen].cpu() for what, values in columns.items()}


# %%
ch5.plot_weight_and_input(weight_and_input())

# %% [markdown]
# En biais : Wanda garde de petits poids dont l'entrée est grande, et les paie de poids moyens dont l'entrée est faible.
# Il abîme donc davantage les **poids**. Et la **sortie** de la couche, sur un texte qui n'a pas servi à régler ?


# %% experiment="layer_errors"
@atelier.experiment(needs=[magnitude_mask, wanda_mask])
def layer_errors(amount=0.5):
    """Ce que chaque masque abîme, en parts de la norme : les poids, puis la sortie, sur un autre texte."""
    known, fresh = (inputs_of(colibri, some_text(8, seed), list(linear_layers)) for seed in (0, 1))
    found = {}
    for name, w in layer_weights.items():
        x = fresh[name]
        masks_of = {"magnitude": magnitude_mask(w, amount), "Wanda": wanda_mask(w, known[name], amount)}
        for method, kept in masks_of.items():
            lost = w * ~kept
            found[name, method, "poids"] = (lost.norm() / w.norm()).item()
            found[name, method, "sortie"] = ((x @ lost.T).norm() / (x @ w.T).norm()).item()
    return found


# %%
ch5.plot_layer_errors(layer_errors())

# %% [markdown]
# Sur toutes les couches, Wanda abîme plus les poids ; sur presque toutes, il abîme moins la sortie.
# <!-- claim: wanda_spares_outputs -->
# C'est la même leçon qu'avec GPTQ : ce qui compte n'est pas l'erreur sur les poids.
#
# Puis tout le modèle, bloc après bloc, comme dans l'article : chacun est élagué sur ce qui lui vient du modèle déjà
# élagué avant lui.


# %%
def block_by_block(ids, change):
    """Une copie de Colibri, élaguée bloc après bloc. change : (poids, ce qui y entre) → poids."""
    pruned = copy.deepcopy(colibri)
    for number in range(len(pruned.transformer.h)):
        own = [name for name in linear_layers if name.startswith(f"transformer.h.{number}.")]
        for name, x in inputs_of(pruned, ids, own).items():
            layer = pruned.get_submodule(name)
            with torch.no_grad():
                layer.weight.copy_(change(layer.weight.T, x).T)
    return pruned


@functools.cache
def pruned_by_wanda(amount, windows, seed):
    """Colibri élagué par Wanda, étalonné sur ces fenêtres ; gardé pour la suite."""
    return block_by_block(some_text(windows, seed), lambda w, x: w * wanda_mask(w, x, amount))


# %% experiment="wanda_sweep"
@atelier.experiment(needs=[wanda_mask], full=long_extract | {"amounts": (0.3, 0.5, 0.6, 0.7, 0.8), "windows": 16})
def wanda_sweep(amounts=some_amounts, tokens=extract_tokens, windows=few_windows):
    """Perte de Colibri élagué par Wanda, bloc après bloc."""
    found = {}
    for amount in ch5.progress_bar(amounts, "Wanda"):
        found["Wanda", amount] = losses_of(pruned_by_wanda(amount, windows, 0), tokens)
    return {"jetons": tokens, "pertes": found}


# %%
by_wanda = wanda_sweep()
ch5.plot_sweeps(by_magnitude, by_one_ranking, by_wanda)

# %% [markdown]
# De 30 à 60 %, Wanda fait mieux que la magnitude, couche par couche ou globale.
# <!-- claim: wanda_beats_magnitude -->
# Passé 70 %, en revanche, il fait pire qu'elle ; à ces perplexités, aucun de ces modèles ne parle plus.
# <!-- claim: wanda_loses_at_the_far_end -->

# %% [markdown]
# Et le classement global ? Si ce qui entre était ce qui manquait, il suffirait de donner à votre
# `global_magnitude_masks` les importances de Wanda à la place des poids. Elle ne sait pas ce que sont les nombres
# qu'on lui donne.


# %% experiment="what_enters"
@atelier.experiment(needs=[global_magnitude_masks, wanda_mask], full=long_extract | {"windows": 16})
def what_enters(amount=0.5, tokens=extract_tokens, windows=few_windows):
    """Les importances de Wanda, rangées globalement, puis ligne par ligne, sur ce que voit Colibri entier."""
    seen = inputs_of(colibri, some_text(windows), list(linear_layers))
    of_wanda = {name: w.abs() * seen[name].norm(dim=0) for name, w in layer_weights.items()}
    recipes = {
        "magnitude, globale": global_magnitude_masks(layer_weights, amount),
        "Wanda, globale": global_magnitude_masks(of_wanda, amount),
        "Wanda, par ligne": {name: wanda_mask(w, seen[name], amount) for name, w in layer_weights.items()},
    }
    about = {
        "entrées": {name: x.square().mean().sqrt().item() for name, x in seen.items()},
        "pointes": {name: (x.norm(dim=0).max() / x.norm(dim=0).median()).item() for name, x in seen.items()},
    }
    found = {name: losses_of(masked(colibri, kept), tokens) for name, kept in recipes.items()}
    return {"jetons": tokens, "pertes": found, **about}


# %%
entering = what_enters()
ch5.versions_table(entering, f"Colibri, moitié des poids retirés ({entering['jetons']} jetons)")
ch5.plot_map(entering["entrées"], "Taille moyenne (quadratique) de ce qui entre dans chaque couche", share=False)

# %% [markdown]
# Ce n'est pas cela. Rangées globalement, les importances de Wanda font à peine mieux que la magnitude, et bien moins
# bien que ligne par ligne.
# <!-- claim: what_enters_does_not_mend_the_global_ranking -->
# Et voyez le bloc 0, celui que l'on dégarnit trop : ce qui entre dans ses couches n'a rien de grand.
# <!-- claim: inputs_of_block_0_are_not_large -->

# %% [markdown]
# ## 5.5 Ce que la perte en dit
#
# Seconde piste : demander à la perte elle-même. Si l'on ajoute $\delta$ au poids $w$, elle change de
#
# $$ \delta\,g + \tfrac12\,\delta^2\,h, $$
#
# où $g$ est sa pente et $h$ sa courbure pour ce poids. Retirer le poids, c'est $\delta = -w$. Sur un modèle déjà
# entraîné, les pentes se compensent d'un texte à l'autre : le premier terme est petit en moyenne. Reste
# $\tfrac12 w^2 h$. C'est l'importance d'**Optimal Brain Damage** (LeCun, Denker et Solla, 1990), l'une des plus
# anciennes : ce qui coûte, c'est un grand poids à un endroit où la perte est très courbe.
#
# Mais une courbure par poids, cela se calcule mal. On la remplace d'ordinaire par la somme des carrés des pentes, lot
# après lot : pour une perte qui est l'opposé d'un logarithme de probabilité, et un modèle qui prédit bien, l'une
# approche l'autre (c'est l'information de **Fisher**, ici dans sa forme empirique). Attention à l'ordre des
# opérations : des pentes de signes opposés s'annulent si on les ajoute avant de les mettre au carré.

# %% [markdown]
# ### ✎ fisher_importance


# %% exercise="fisher_importance"
def fisher_importance(
    model: GPT2LMHeadModel,
    batches: list[torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Importance de chaque poids des couches linéaires d'un GPT-2, d'après les pentes de sa perte.

    batches : une liste de (B, T) entiers, les jetons de chaque lot, sur l'appareil du modèle.
    Rend un dictionnaire : chemin du module → (sortie, entrée) flottant, pour chaque Conv1D des
    blocs, et rien d'autre.
    L'importance d'un poids w est w²·Σ g², où g est, lot après lot, la dérivée par rapport à w de la
    perte du lot : l'entropie croisée moyenne du jeton suivant, en nats.
    Le modèle est rendu comme il a été reçu : mêmes poids, même mode, et aucun gradient gardé
    (.grad vaut None partout).

    Source : LeCun, Denker et Solla, « Optimal Brain Damage », NeurIPS 1989, où la courbure est
    remplacée par Σ g².
    """
    ### BEGIN SOLUTION
    layers = {name: m for name, m in model.named_modules() if isinstance(m, Conv1D)}
    squares = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
    for ids in batches:
        model.zero_grad()
        guesses = model(ids).logits
        F.cross_entropy(guesses[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        for path, layer in layers.items():
            squares[path] += layer.weight.grad.square()
    model.zero_grad()
    return {name: (layer.weight.detach() ** 2 * squares[name]).T for name, layer in layers.items()}
    ### END SOLUTION


# %% [markdown]
# Vos importances, données à **votre** `global_magnitude_masks`, puis couche par couche à votre `magnitude_mask`. Un lot
# est une fenêtre de texte.


# %%
@functools.cache
def importances(windows, seed):
    """Vos importances, sur ces fenêtres ; calculées une fois, pour toutes les expériences qui s'en servent."""
    return fisher_importance(colibri, list(some_text(windows, seed).split(1)))


# %% experiment="fisher_sweep"
@atelier.experiment(
    needs=[fisher_importance, global_magnitude_masks, magnitude_mask],
    full=long_extract | {"amounts": every_tenth, "windows": 16},
)
def fisher_sweep(amounts=some_amounts, tokens=extract_tokens, windows=few_windows):
    """Perte de Colibri élagué d'après les pentes de la perte : un seul classement, ou un par couche."""
    by_loss, found = importances(windows, 0), {}
    for amount in ch5.progress_bar(amounts, "Fisher"):
        ranked = global_magnitude_masks(by_loss, amount)
        each = {name: magnitude_mask(scores_here, amount) for name, scores_here in by_loss.items()}
        found["Fisher, globale", amount] = losses_of(masked(colibri, ranked), tokens)
        found["Fisher, par couche", amount] = losses_of(masked(colibri, each), tokens)
    return {"jetons": tokens, "pertes": found}


# %%
by_fisher = fisher_sweep()
ch5.plot_sweeps(by_magnitude, by_one_ranking, by_wanda, by_fisher)
atelier.settle("what_is_missing", ch5.what_was_missing(entering, by_fisher))

# %% [markdown]
# Voilà ce qui manquait. Le classement global, le plus mauvais de tous avec la taille des poids, passe devant Wanda avec
# les pentes de la perte, de 30 à 60 %. Et la conclusion de la section 5.3 se retourne : un seul classement fait
# maintenant mieux qu'un par couche.
# <!-- claim: the_loss_mends_the_global_ranking -->
# Une couche dont la perte se soucie peu en laisse davantage, et c'est ce qu'il fallait.

# %% [markdown]
# Pourquoi Wanda n'y suffisait-il pas ? Son importance, mise au carré, est aussi un $\tfrac12 w^2 h$ : la courbure y est
# celle de l'erreur de **sa couche**, $\lVert x_j \rVert^2$ à un facteur près. Cela range bien les poids d'une ligne.
# Cela ne dit pas ce que le modèle fera de cette ligne, et deux couches ne se comparent pas.

# %% [markdown]
# Les routes de la diapositive, dans l'ordre de ce qu'elles regardent :
#
# | importance d'un poids | ce qu'il faut avoir vu | source |
# |---|---|---|
# | sa taille, $\lvert w \rvert$ | rien | Han et al., 2015 |
# | ce qu'il apporte, $\lvert w \rvert \cdot \lVert x \rVert$ | ce qui entre dans la couche | Wanda : Sun et al., 2023 |
# | la pente qu'il voit, $(g\,w)^2$ | un aller-retour par texte | Molchanov et al., 2019 ; LLM-Pruner : Ma et al., 2023 |
# | la courbure, $\tfrac12 h\,w^2$ | une courbure par poids | Optimal Brain Damage : LeCun et al., 1990 |
# | la courbure, et ce que les autres rattrapent, $\tfrac12 w^2 / [H^{-1}]$ | toutes les courbures croisées | Optimal Brain Surgeon : Hassibi et Stork, 1993 ; SparseGPT : Frantar et Alistarh, 2023 |
#
# Votre `fisher_importance` est à la fois la troisième ligne, sommée lot après lot, et la quatrième, approchée. La
# dernière change de nature : elle ne choisit pas seulement mieux, elle **corrige** les poids qui restent.

# %% [markdown]
# ## 5.6 SparseGPT : corriger ceux qui restent
#
# Vous avez déjà écrit cet algorithme. C'est votre `gptq_quantize` du chapitre 3, où « arrondir » devient « arrondir à
# zéro, ou garder » : colonne après colonne, un poids part, et les suivants se déplacent pour que la sortie de la couche
# change le moins possible. Lisez-le à côté du vôtre.


# %%
def sparsegpt(w, x, choose, width=64, grid=None, damp=0.01):
    """w (sortie, entrée) élagué pour les activations x (n, entrée), les colonnes suivantes rattrapant chaque erreur.

    choose : les importances de `width` colonnes voisines → leur masque. grid : de quoi arrondir une colonne au passage.
    """
    free, x = atelier.for_float64(w).double().clone(), atelier.for_float64(x).double()
    curvature = 2 * x.T @ x
    curvature += damp * curvature.diagonal().mean() * torch.eye(len(curvature)).to(curvature)
    factor = torch.linalg.cholesky(curvature.inverse(), upper=True)
    spread, pull = factor.diagonal(), factor / factor.diagonal()[:, None]  # pull[j] : ce que j déplace à sa droite
    for start in range(0, len(factor), width):  # les importances se lisent sur les poids déjà corrigés
        kept = choose((free[:, start : start + width] / spread[start : start + width]).abs())
        for j, mask in enumerate(kept.T, start):
            wanted = mask * (free[:, j] if grid is None else grid(free[:, j]))
            free[:, j:] -= (free[:, j] - wanted)[:, None] * pull[j, j:]  # pull[j, j] = 1 : j devient wanted
    return free.to(w.dtype)


# %% experiment="sparsegpt_sweep"
@atelier.experiment(needs=[magnitude_mask], full=long_extract | {"amounts": (0.3, 0.5, 0.7), "windows": 16})
def sparsegpt_sweep(amounts=some_amounts[:2][-1:], tokens=extract_tokens, windows=few_windows):
    """Perte de Colibri élagué par SparseGPT, bloc après bloc ; le masque de 64 colonnes est votre magnitude_mask."""
    ids, found = some_text(windows), {}
    for amount in ch5.progress_bar(amounts, "SparseGPT"):
        with ch5.one_thread():
            pruned = block_by_block(ids, lambda w, x: sparsegpt(w, x, lambda s: magnitude_mask(s, amount)))
        found["SparseGPT", amount] = losses_of(pruned, tokens)
    return {"jetons": tokens, "pertes": found}


# %%
by_sparsegpt = sparsegpt_sweep()
ch5.plot_sweeps(by_magnitude, by_wanda, by_fisher, by_sparsegpt)

# %% [markdown]
# À 30, 50 et 70 %, SparseGPT fait mieux que Wanda, sans rien voir de plus : les mêmes textes, et une hessienne par
# couche au lieu d'une norme par entrée.
# <!-- claim: sparsegpt_beats_wanda -->
# Face à Fisher, à 50 %, on ne peut pas les départager sur cet extrait ; l'un choisit d'après la perte et ne corrige
# rien, l'autre choisit couche par couche et corrige.
# <!-- claim: fisher_and_sparsegpt_tie_at_half -->
#
# Reste un doute : ces routes n'ont lu que quelques fenêtres de texte. D'autres donneraient-elles le même ordre ?


# %% experiment="other_texts"
@atelier.experiment(
    needs=[wanda_mask, fisher_importance, global_magnitude_masks],
    full=long_extract | {"seeds": range(5), "windows": 8},
)
def other_texts(seeds=(0,), amount=0.5, tokens=extract_tokens, windows=few_windows):
    """À 50 %, la perte de deux routes, étalonnées sur d'autres fenêtres : une graine, un tirage."""
    found = {"Wanda": [], "Fisher, globale": []}
    for seed in seeds:
        ranked = global_magnitude_masks(importances(windows, seed), amount)
        versions = (pruned_by_wanda(amount, windows, seed), masked(colibri, ranked))
        for way, pruned in zip(found, versions, strict=True):
            found[way].append(losses_of(pruned, tokens))
    return {"jetons": tokens, "pertes": found}


# %%
ch5.seeds_table(other_texts(), "Colibri, moitié des poids retirés : cinq tirages des textes d'étalonnage")

# %% [markdown]
# Le tirage déplace la perplexité de Wanda de quelques pour cent, celle de Fisher de dix ; il ne change pas l'ordre :
# Wanda est derrière, à chaque fois. Des pentes sont plus bruitées que des normes : mieux vaut les mesurer sur assez de
# texte.
# <!-- claim: other_texts_keep_the_order -->


# %% experiment="row_fisher"
@atelier.experiment(needs=[fisher_importance, global_magnitude_masks], full={"windows": 16})
def row_fisher(windows=few_windows):
    """Colibri à moitié élagué d'après la perte, relu de son fichier (un bit par poids, et les valeurs gardées)."""
    ranked = global_magnitude_masks(importances(windows, 0), 0.5)
    stored = ch5.model_file(masked(colibri, ranked))
    what = "moitié des poids retirés d'après la perte (Fisher), bitmap, FP16"
    return atelier.save_variant("fisher-50", ch5.reread(colibri, stored), ch5.file_bytes(stored), "ch5_elagage", what)


# %% experiment="row_wanda"
@atelier.experiment(needs=[wanda_mask], full={"windows": 16})
def row_wanda(windows=few_windows):
    """Colibri à moitié élagué par Wanda, relu de son fichier."""
    stored = ch5.model_file(pruned_by_wanda(0.5, windows, 0))
    what = "moitié des poids retirés par Wanda, bitmap, FP16"
    return atelier.save_variant("wanda-50", ch5.reread(colibri, stored), ch5.file_bytes(stored), "ch5_elagage", what)


# %%
ch5.announce(row_fisher())
ch5.announce(row_wanda())

# %% [markdown]
# ## 5.7 ★ Des zéros bien rangés : N:M
#
# Un masque libre est un désordre, et le désordre se paie, vous allez le voir. Un motif **N:M** impose une règle : N
# poids gardés dans chaque groupe de M voisins. Les cartes NVIDIA, depuis Ampere (2020), savent sauter les zéros d'un
# motif **2:4** (Mishra et al., 2021).
#
# ??? q="nm_or_free"

# %% [markdown]
# ### ✎ nm_mask


# %% exercise="nm_mask"
def nm_mask(w: torch.Tensor, n: int = 2, m: int = 4) -> torch.Tensor:
    """Masque N:M : n poids gardés dans chaque groupe de m voisins.

    w : tenseur flottant (…, k), pas forcément contigu en mémoire ; les groupes sont les m premiers
        éléments du dernier axe, puis les m suivants, et ainsi de suite.
    n, m : poids gardés par groupe, et taille d'un groupe.
    Rend un tenseur de booléens de la forme de w, True = poids gardé : dans chaque groupe, les n
    plus grands |w| ; à égalité, celui qui vient le premier est gardé.
    Lève ValueError si n > m, ou si m ne divise pas la taille k du dernier axe.

    Source : Mishra et al., « Accelerating Sparse Deep Neural Networks », 2021.
    """
    ### BEGIN SOLUTION
    if n > m or w.shape[-1] % m:
        raise ValueError(f"pas de motif {n}:{m} sur un axe de taille {w.shape[-1]}")
    groups = w.abs().reshape(*w.shape[:-1], -1, m)
    order = groups.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter(-1, order[..., :n], True)
    return mask.reshape(w.shape)
    ### END SOLUTION


# %% [markdown]
# Tout motif 2:4 est aussi un 4:8, et tout 4:8 un masque libre : c'est une contrainte de plus à chaque fois.


# %% experiment="nm_choices"
@atelier.experiment(needs=[nm_mask, magnitude_mask])
def nm_choices(name="transformer.h.0.mlp.c_fc"):
    """Un coin de couche, élagué de moitié librement, puis par 4:8, puis par 2:4."""
    corner = layer_weights[name][:6, :24].cpu().contiguous()
    chosen = {"50 %, libre": magnitude_mask(corner, 0.5), "4:8": nm_mask(corner, 4, 8), "2:4": nm_mask(corner, 2, 4)}
    return {"poids": corner, "gardés": chosen}


# %%
ch5.plot_patterns(nm_choices())

# %% [markdown]
# Votre fonction ne sait pas ce que sont les nombres qu'on lui donne :
# avec les importances de Wanda à la place des poids, elle fait un Wanda 2:4. Pour SparseGPT, le choix se fait groupe
# après groupe, sur des poids déjà corrigés.

# %%
nm_patterns = {"4:8": (4, 8), "2:4": (2, 4)}


@functools.cache
def with_pattern(method, pattern, windows):
    """Colibri à ce motif, par l'une des trois méthodes ; gardé pour la suite."""
    n, m = nm_patterns[pattern]
    changes = {
        "magnitude": lambda w, x: w * nm_mask(w, n, m),
        "Wanda": lambda w, x: w * nm_mask(w * x.norm(dim=0), n, m),
        "SparseGPT": lambda w, x: sparsegpt(w, x, lambda s: nm_mask(s, n, m), width=m),
    }
    with ch5.one_thread():
        return block_by_block(some_text(windows), changes[method])


# %% experiment="pattern_prices"
@atelier.experiment(needs=[nm_mask], full=long_extract | {"patterns": tuple(nm_patterns), "windows": 16})
def pattern_prices(patterns=("2:4",), tokens=extract_tokens, windows=few_windows):
    """Perte de Colibri quand un motif est imposé, par magnitude, par Wanda et par SparseGPT."""
    found = {}
    for pattern in ch5.progress_bar(patterns, "motifs"):
        for method in ("magnitude", "Wanda", "SparseGPT"):
            found[method, pattern] = losses_of(with_pattern(method, pattern, windows), tokens)
    return {"jetons": tokens, "pertes": found}


# %%
by_pattern = pattern_prices()
ch5.patterns_table(by_pattern, by_magnitude, by_wanda, by_sparsegpt)

# %% [markdown]
# Voilà le prix. Le motif coûte d'autant plus cher que ses groupes sont petits ; et ne pas corriger ceux qui restent
# coûte alors plus encore.
# <!-- claim: smaller_groups_cost_more -->

# %% [markdown]
# Ce qu'il achète : le fabricant annonce, pour le produit seul, jusqu'à deux fois plus d'opérations par seconde (Mishra
# et al., 2021). Voici de quoi le vérifier sur une carte, si vous en avez une ; sur un processeur, un masque 2:4 ne fait
# gagner aucun temps, puisqu'aucun noyau ne saute ses zéros.


# %%
def two_four_times(width, tokens=2048):
    """Durées, en secondes, d'une couche (width → 4·width) en FP16 : dense, puis convertie au motif 2:4."""
    from torch.sparse import to_sparse_semi_structured

    half = {"device": atelier.device(), "dtype": torch.float16}
    x, w = torch.randn(tokens, width, **half), torch.randn(4 * width, width, **half)
    w = w * torch.tensor([1.0, 0.0, 0.0, 1.0], **half).repeat(width // 4)  # un motif quelconque : seul compte le temps
    packed_weight = to_sparse_semi_structured(w)  # deux valeurs sur quatre, et deux bits de place pour chacune
    with torch.inference_mode():
        dense = atelier.call_seconds(lambda: F.linear(x, w))
        return {"dense": dense, "2:4": atelier.call_seconds(lambda: F.linear(x, packed_weight))}


ch5.two_four_table(lambda: two_four_times(ch5.card_width()))


# %% experiment="row_two_four"
@atelier.experiment(needs=[nm_mask], full={"windows": 16})
def row_two_four(windows=few_windows):
    """Colibri au motif 2:4 par SparseGPT, relu de son fichier : deux valeurs sur quatre, et leurs places."""
    pruned = with_pattern("SparseGPT", "2:4", windows)
    stored, what = ch5.model_file(pruned, ch5.as_two_four), "motif 2:4 par SparseGPT, FP16"
    again = ch5.reread(colibri, stored, ch5.from_two_four)
    return atelier.save_variant("sparsegpt-2-4", again, ch5.file_bytes(stored), "ch5_elagage", what)


# %%
ch5.announce(row_two_four())

# %% [markdown]
# ## 5.8 À côté des articles
#
# Voici ce que donnent ces méthodes sur LLaMA-2, de deux mille à vingt mille fois plus grand que Colibri. Le protocole :
# WikiText-2, en anglais, par fenêtres du contexte entier (4 096 jetons), et 128 extraits de C4 pour l'étalonnage.
# D'autres articles affichent 5,47 pour le même 7B entier, avec des fenêtres de 2 048 : encore une affaire de protocole.
# **Lisez en ligne :** que devient l'écart entre les méthodes quand le modèle grandit ?

# %%
ch5.paper_table()

# %% [markdown]
# <details><summary>Réponse</summary>
#
# Il se referme. À 50 %, la magnitude coûte 2,9 fois la perplexité du modèle entier à 7B, 1,6 fois à 70B ; et à 70B,
# SparseGPT et Wanda font jeu égal.
#
# </details>

# %% [markdown]
# Un texte, une langue, un contexte, un vocabulaire différents : nous ne comparons donc que des **rapports** à la
# perplexité du modèle entier.

# %%
ch5.beside_the_papers(by_magnitude, by_wanda, by_sparsegpt, by_pattern)

# %% [markdown]
# De Colibri à LLaMA-2 13B, la magnitude et Wanda coûtent en rapport de moins en moins, à une exception près ; de 13B à
# 70B, ce n'est plus toujours vrai. SparseGPT, lui, coûte aux motifs N:M le même rapport à Colibri qu'à LLaMA-2 7B.
# <!-- claim: pruning_costs_less_up_to_13b_but_once -->

# %% [markdown]
# <details><summary>Quelles exceptions ?</summary>
#
# Jusqu'à 13B, la magnitude au motif 2:4, qui coûte plus cher à 7B qu'à Colibri. De 13B à 70B, la magnitude remonte à
# tous les motifs ; et à 50 % libre, les trois méthodes.
#
# </details>

# %% [markdown]
# Et l'on ne retrouve pas tout : Wanda bat la magnitude, ici comme là-bas, mais n'égale pas SparseGPT, que ses
# corrections avantagent nettement sur Colibri.
# <!-- claim: here_wanda_does_not_match_sparsegpt -->
# Sun et al. ont imaginé Wanda pour les quelques entrées immenses des grands modèles. Chez Colibri, d'une couche à
# l'autre, la plus grande entrée vaut de quelques fois à une douzaine de fois la médiane.
# <!-- claim: colibri_has_no_immense_input -->

# %% [markdown]
# Un autre chiffre, de SparseGPT cette fois : OPT-125M, 27,66 entier, 193 à 50 % par magnitude, 36,85 par SparseGPT, sur
# WikiText-2 (Frantar et Alistarh, 2023, tableau 1). C'est le plus petit de leurs modèles, encore quarante fois plus
# grand que Colibri.

# %% [markdown]
# ## 5.9 Ce que cela fait gagner : de la place ?
#
# Un Colibri à moitié nul, écrit comme d'habitude, occupe… autant qu'avant. Un zéro est un nombre comme un autre. Pour
# gagner, il faut ne pas l'écrire, et alors il faut dire où sont les autres.

# %% [markdown]
# ### ✎ sparse_bytes


# %% exercise="sparse_bytes"
def sparse_bytes(numel: int, amount: float, value_bytes: int = 2, index_bytes: int = 4) -> int:
    """Octets d'un tenseur élagué, rangé comme une liste des poids qui restent.

    numel : nombre d'éléments du tenseur entier (0 est permis) ; amount : part des poids retirés,
        entre 0 et 1 : round(amount · numel) d'entre eux ; value_bytes : octets d'une valeur ;
        index_bytes : octets de l'indice, un entier qui dit où la remettre dans le tenseur déroulé.
    Rend un int : les octets des valeurs et des indices des éléments gardés, et rien d'autre.
    """
    ### BEGIN SOLUTION
    kept = numel - round(amount * numel)
    return kept * (value_bytes + index_bytes)
    ### END SOLUTION


# %% [markdown]
# ??? q="list_pays"

# %% [markdown]
# D'autres rangements disent la même chose en moins de bits. **CSR** (*compressed sparse row*) note, ligne par ligne, la
# colonne de chaque valeur. Le **bitmap** écrit un bit par poids : gardé ou non. Et zip ne sait rien, mais voit les
# répétitions. Même couche, votre masque, six fichiers, pesés :


# %% experiment="file_formats"
@atelier.experiment(needs=[magnitude_mask, sparse_bytes])
def file_formats(name="transformer.h.0.mlp.c_fc", amounts=(0.0, *every_tenth, 0.9, 0.95)):
    """Octets de la même couche, élaguée, dans chaque format de fichier ; et ce que prévoit votre formule."""
    w, found = layer_weights[name].cpu(), {}
    for amount in amounts:
        pruned = w * magnitude_mask(w, amount)
        found[amount] = {form: ch5.file_bytes(pack(pruned)) for form, pack in ch5.FORMATS.items()}
        found[amount]["dense, zippé"] = ch5.zipped_bytes(ch5.FORMATS["dense, avec ses zéros"](pruned))
        found[amount]["votre formule"] = sparse_bytes(w.numel(), amount)
    return {"poids": w.numel(), "octets": found}


# %%
ch5.plot_formats(file_formats())

# %% [markdown]
# À 50 %, seuls le bitmap et zip sont plus petits que le dense, et ils approchent de la moitié sans l'atteindre.
# <!-- claim: at_half_only_bitmap_and_zip_gain -->
# Huit bits par poids y arrivent tout juste, sans rien retirer : gardez cela en tête.
#
# ## 5.10 Ce que cela fait gagner : du temps ?
#
# ??? q="zeros_time"

# %% [markdown]
# Un produit dense ne gagne rien. Un produit CSR ne touche que les poids gardés, mais doit lire où ils vont.

# %%
atelier.bet("csr_pays", "À partir de quel pourcentage de zéros le produit CSR d'un jeton va-t-il plus vite, ici ?")

# %%
timed_amounts = atelier.scale().pick(essai=(0.5, 0.99), cpu=ch5.TIMED, gpu=ch5.TIMED)


# %% experiment="product_times"
@atelier.experiment(full={"amounts": ch5.TIMED, "repeats": 15})
def product_times(amounts=timed_amounts, tokens=(1, 128), width=768, repeats=7):
    """Durées, en secondes, d'une couche de GPT-2 small (poids au hasard) : dense, zéros compris, puis CSR."""
    draw, found = torch.Generator().manual_seed(0), {}
    w, order = torch.randn(4 * width, width, generator=draw), torch.rand(4 * width, width, generator=draw)
    for n, amount in itertools.product(tokens, amounts):
        x, pruned = torch.randn(width, n).to(ch5.csr_place()), (w * (order >= amount)).to(ch5.csr_place())
        ways_to_multiply = {"dense": pruned, "CSR": ch5.to_csr(pruned)}
        runs_of = {way: lambda m=m: m @ x for way, m in ways_to_multiply.items()}
        found[n, amount] = ch5.interleaved_seconds(runs_of, repeats)
    return found


# %%
products = product_times()
ch5.plot_products(products)
atelier.settle("csr_pays", 100 * ch5.break_even(products, 1))

# %% [markdown]
# Comparez cette part à celle où la perplexité s'envole, dans les sections 5.4 à 5.6.

# %% [markdown]
# C'est pourquoi la diapositive écrit de l'élagage « A lot of the work are done solely for research purposes. » Le
# jugement vaut ce que valent ces mesures : des zéros libres pèsent leurs indices ; ils ne font gagner du temps qu'en
# très grand nombre, ou avec le bon motif et la bonne carte ; et nous verrons (5.14) ce qu'en dit la quantification, à
# octets égaux. Mais il y a d'abord une autre façon de retirer, et celle-là rétrécit vraiment les matrices.

# %% [markdown]
# ## 5.11 Retirer pour de bon
#
# Au lieu de poids isolés, retirons des morceaux entiers : une tête, un neurone, un bloc. C'est l'élagage **structuré**.
# Les matrices deviennent plus petites, et n'importe quel produit dense en profite, sans noyau spécial.
#
# Un bloc, d'abord. Lequel ? On peut les essayer tous. **ShortGPT** (Men et al., 2024) propose de ne rien essayer : un
# bloc qui ne fait presque pas tourner les vecteurs qui le traversent serait un bloc dont on peut se passer.

# %% [markdown]
# ### ✎ block_influence


# %% exercise="block_influence"
def block_influence(hidden_in: torch.Tensor, hidden_out: torch.Tensor) -> float:
    """Influence d'un bloc : combien il change la direction de ce qui le traverse.

    hidden_in, hidden_out : (…, d) flottants de même forme, les vecteurs des mêmes jetons, à
    l'entrée et à la sortie du bloc ; aucun n'est nul.
    Rend un flottant Python, de 0 (aucun vecteur ne tourne) à 2 (tous sont retournés) : 1 moins la
    moyenne, sur les jetons, du cosinus entre les deux vecteurs d'un jeton.

    Source : Men et al., « ShortGPT », 2024, arXiv 2403.03853, équation (1), *Block Influence*.
    """
    ### BEGIN SOLUTION
    return 1 - F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean().item()
    ### END SOLUTION


# %%
atelier.bet(
    "which_block",
    "Lequel des cinq blocs de Colibri coûte le moins cher à retirer ?",
    options=("le bloc 0", "le bloc 1", "le bloc 2", "le bloc 3", "le bloc 4"),
)


# %%
def through_blocks(ids):
    """Ce qui entre dans chaque bloc de Colibri, puis ce qui sort du dernier, avant le LayerNorm final."""
    seen, hooks = [], []
    for module in (*colibri.transformer.h, colibri.transformer.ln_f):
        hooks.append(module.register_forward_pre_hook(lambda _, given: seen.append(given[0])))
    with torch.no_grad():
        colibri.transformer(ids)
    for hook in hooks:
        hook.remove()
    return seen


def without_block(original, number):
    """Une copie du modèle, un bloc de moins : un GPT-2 comme un autre."""
    small = copy.deepcopy(original)
    del small.transformer.h[number]
    small.config.n_layer -= 1
    for i, block in enumerate(small.transformer.h):
        block.attn.layer_idx = i  # le numéro d'un bloc désigne sa place dans le cache
    return small


# %% experiment="influences"
@atelier.experiment(needs=[block_influence], full=long_extract)
def influences(tokens=extract_tokens):
    """L'influence de chaque bloc sur seize fenêtres, et la perte de Colibri sans lui."""
    stream = through_blocks(some_text(16))
    turned = [block_influence(before, after) for before, after in itertools.pairwise(stream)]
    found = {number: losses_of(without_block(colibri, number), tokens) for number in range(len(turned))}
    return {"jetons": tokens, "influence": turned, "pertes": {"entier": losses_of(colibri, tokens), **found}}


# %%
blocks_tried = influences()
ch5.plot_influences(blocks_tried)
atelier.settle("which_block", f"le bloc {ch5.cheapest(blocks_tried)}")

# %% [markdown]
# L'influence voit juste aux deux bouts : le bloc 0 fait tout tourner, et sans lui il ne reste rien ; le bloc 4 vient
# ensuite. Mais elle range les trois blocs du milieu à l'envers : le 3 est celui qui tourne le plus des trois, et celui
# qui coûte le moins.
# <!-- claim: influence_reverses_the_middle_blocks -->
# ShortGPT l'a proposée pour des modèles de dizaines de blocs ; avec cinq, les essayer tous prend quelques secondes, et
# la perplexité tranche. Le chapitre 4 retirait le bloc 2, pour garder des blocs à égale distance : le 3 coûtait moins.

# %% [markdown]
# Les neurones du MLP, ensuite. Un neurone est une ligne de `c_fc` et une colonne de `c_proj`. Son importance : celle de
# tous ses poids, ajoutée. Vous avez déjà de quoi la calculer, c'est l'idée de LLM-Pruner (Ma et al., 2023), qui retire
# ainsi des groupes de poids liés.


# %%
def without_neurons(original, by_loss, removed):
    """Une copie du modèle dont chaque MLP a perdu ses `removed` neurones les moins importants ; n_inner le dit."""
    small = copy.deepcopy(original)
    for i, block in enumerate(small.transformer.h):
        path = f"transformer.h.{i}.mlp"
        of_neuron = by_loss[f"{path}.c_fc"].sum(1) + by_loss[f"{path}.c_proj"].sum(0)
        stay = of_neuron.argsort(descending=True)[: len(of_neuron) - removed].sort().values
        fc, proj = block.mlp.c_fc, block.mlp.c_proj
        fc.weight, fc.bias = torch.nn.Parameter(fc.weight[:, stay]), torch.nn.Parameter(fc.bias[stay])
        proj.weight = torch.nn.Parameter(proj.weight[stay])
        fc.nf = proj.nx = len(stay)
    small.config.n_inner = len(stay)
    return small


# %% [markdown]
# Un bloc de Colibri pèse autant que 224 neurones dans chacun de ses cinq MLP, à 3 % près : un cinquième de ce qui
# calcule. Profondeur ou largeur, à nombre de paramètres égal ?

# %%
SPARE_BLOCK, SPARE_NEURONS = 3, 224


# %% experiment="one_fifth_less"
@atelier.experiment(needs=[fisher_importance], full=long_extract)
def one_fifth_less(tokens=extract_tokens):
    """Colibri sans un bloc, ou sans autant de neurones : paramètres, et perte, sans rien réapprendre."""
    versions = {
        "entier": colibri,
        f"sans le bloc {SPARE_BLOCK}": without_block(colibri, SPARE_BLOCK),
        f"{SPARE_NEURONS} neurones de moins par MLP": without_neurons(colibri, importances(16, 0), SPARE_NEURONS),
    }
    counts = {name: version.num_parameters() for name, version in versions.items()}
    found = {name: losses_of(version, tokens) for name, version in versions.items()}
    return {"jetons": tokens, "paramètres": counts, "pertes": found}


# %%
thinned = one_fifth_less()
ch5.versions_table(thinned, f"Sans réapprentissage ({thinned['jetons']} jetons)")

# %% [markdown]
# Sans réapprentissage, retirer des neurones coûte moins que retirer un bloc.
# <!-- claim: neurons_cost_less_than_a_block_at_first -->
# Et le temps ? On chronomètre les versions tour à tour, une fenêtre chacune, puis on recommence : ce qui ralentit la
# machine les ralentit toutes. Un modèle à moitié nul, mais de même forme, sert de témoin. Et comme Colibri est trop
# petit pour occuper un processeur, voici les mêmes coupes sur un GPT-2 small, aux poids tirés au hasard : le temps n'en
# dépend pas.


# %% experiment="thinner_times"
@atelier.experiment(full={"rounds": 9, "shapes": ("Colibri", "GPT-2 small")})
def thinner_times(rounds=7, shapes=("Colibri",), tokens=256):
    """Durées, en secondes, d'une fenêtre : entier, à moitié nul, un cinquième des blocs ou des MLP en moins."""
    found = {}
    for shape in shapes:
        whole = colibri if shape == "Colibri" else atelier.gpt2_shape("small")
        count, inner = whole.config.n_layer, whole.transformer.h[0].mlp.c_fc.nf
        even = {name: torch.ones(m.nf, m.nx, device=whole.device) for name, m in ch5.paths(whole).items()}
        halved = masked(whole, {name: (torch.rand_like(t) > 0.5) for name, t in even.items()})
        shorter, fewer = whole, round(count / 5)
        for _ in range(fewer):
            shorter = without_block(shorter, shorter.config.n_layer // 2)
        narrower = without_neurons(whole, even, round(fewer * 1.5 * inner / count / 32) * 32)
        versions = {"entier": whole, "à moitié nul": halved, "blocs en moins": shorter, "neurones en moins": narrower}
        found[shape] = ch5.window_seconds(versions, rounds, tokens)
    return found


# %%
ch5.times_table(thinner_times())

# %% [markdown]
# ★ Les têtes d'attention, enfin. « Are Sixteen Heads Really Better than One? », demandaient Michel et al. (2019) : dans
# leurs modèles, beaucoup de têtes ne coûtent presque rien, prises une à une. Colibri n'en a que trente. On les fait
# taire une à une, en mettant à zéro leurs lignes de `c_proj`.


# %%
def silenced(original, gone):
    """Une copie où ces têtes se taisent : rien ne rétrécit. gone : bloc → numéros de têtes."""
    quiet = copy.deepcopy(original)
    for number, which in gone.items():
        attention = quiet.transformer.h[number].attn
        for h in which:
            attention.c_proj.weight.data[h * attention.head_dim : (h + 1) * attention.head_dim] = 0
    return quiet


# %% experiment="heads_one_by_one"
@atelier.experiment()
def heads_one_by_one(windows=few_windows // 2):
    """Hausse de la perte, en nats, quand une tête se tait, seule : (bloc, tête) → hausse, sur un texte d'étalonnage."""
    ids = some_text(windows)
    with torch.no_grad():
        base = hard_loss(colibri, ids).item()
        every = itertools.product(range(colibri.config.n_layer), range(colibri.config.n_head))
        return {(b, h): hard_loss(silenced(colibri, {b: [h]}), ids).item() - base for b, h in every}


# %%
head_costs = heads_one_by_one()
ch5.plot_head_costs(head_costs)

# %% [markdown]
# Faites-les maintenant disparaître.

# %% [markdown]
# ### ✎ prune_heads


# %% exercise="prune_heads"
def prune_heads(
    c_attn_weight: torch.Tensor,
    c_attn_bias: torch.Tensor,
    c_proj_weight: torch.Tensor,
    heads: list[int],
    n_head: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Retire pour de bon des têtes d'attention d'un bloc de GPT-2 : des matrices plus petites, sans
    zéros.

    c_attn_weight : (d, 3d) et c_attn_bias : (3d,), la couche qui fabrique Q, K et V ;
        c_proj_weight : (d, d), la projection de sortie. Ce sont des Conv1D : une couche calcule x @
        poids + biais, ses poids sont (entrée, sortie).
    Les 3d sorties de c_attn sont rangées Q, puis K, puis V, d colonnes chacun ; avec
        D = d / n_head, la tête h occupe les composantes h·D à (h + 1)·D − 1 de chacun des trois, et
        les mêmes à l'entrée de c_proj.
    heads : numéros des têtes à retirer, de 0 à n_head − 1, sans répétition, dans un ordre
    quelconque (vide : aucune).
    Rend (c_attn_weight, c_attn_bias, c_proj_weight) sans ces têtes, de formes (d, 3d′), (3d′,) et
    (d′, d), où d′ vaut D fois le nombre de têtes gardées ; les têtes gardées restent dans le même
    ordre. Les arguments ne changent pas.

    Source : Michel et al., « Are Sixteen Heads Really Better than One? », NeurIPS 2019.
    """
    ### BEGIN SOLUTION
    width = c_proj_weight.shape[0]
    size = width // n_head
    kept = [h * size + i for h in range(n_head) if h not in heads for i in range(size)]
    columns = torch.tensor(kept, dtype=torch.long, device=c_attn_weight.device)
    qkv = torch.cat([columns, width + columns, 2 * width + columns])
    return c_attn_weight[:, qkv], c_attn_bias[qkv], c_proj_weight[columns]
    ### END SOLUTION


# %% [markdown]
# L'épreuve : faire taire des têtes et les retirer doivent donner les mêmes logits. Puis l'on va plus loin, les moins
# coûteuses d'abord. **Attention :** leurs coûts ont été mesurés une à une. S'additionnent-ils ?


# %%
def without_heads(original, gone):
    """Une copie plus petite, sans ces têtes. gone : bloc → numéros de têtes."""
    small = copy.deepcopy(original)
    for number, which in gone.items():
        attention = small.transformer.h[number].attn
        wide, out = attention.c_attn, attention.c_proj
        parts = prune_heads(wide.weight.data, wide.bias.data, out.weight.data, list(which), original.config.n_head)
        wide.weight, wide.bias, out.weight = (torch.nn.Parameter(t.contiguous()) for t in parts)
        wide.nf, out.nx = wide.weight.shape[1], out.weight.shape[0]
        attention.split_size, attention.num_heads = out.nx, out.nx // attention.head_dim
    return small


# %% experiment="fewer_heads"
@atelier.experiment(needs=[prune_heads], full=long_extract | {"counts": (0, 3, 6, 10, 15, 18)})
def fewer_heads(counts=(0, 6, 15), tokens=extract_tokens):
    """Colibri sans ses têtes les moins coûteuses : paramètres, perte, écart aux mêmes têtes muettes, coûts ajoutés."""
    ids, found = some_text(1), {}
    ranking = sorted(head_costs, key=head_costs.get)
    for count in ch5.progress_bar(counts, "têtes retirées"):
        gone = ch5.by_block(ranking[:count])
        small, quiet = without_heads(colibri, gone), silenced(colibri, gone)
        with torch.no_grad():
            gap = (small(ids).logits - quiet(ids).logits).abs().max().item()
        about = {"paramètres": small.num_parameters(), "écart": gap}
        about |= {"ajoutés": sum(head_costs[head] for head in ranking[:count])}
        found[count] = about | {"pertes": losses_of(small, tokens)}
    return {"jetons": tokens, "têtes": found}


# %%
ch5.heads_table(fewer_heads())

# %% [markdown]
# Retirées ou muettes, ces têtes donnent les mêmes logits, aux arrondis près.
# <!-- claim: removed_heads_are_silent_heads -->
# Les coûts, eux, ne s'ajoutent pas : quinze têtes ensemble coûtent plus que la somme de leurs coûts. Deux têtes qui
# font le même travail, par exemple, ne coûtent presque rien chacune, et beaucoup ensemble.
# <!-- claim: costs_of_heads_do_not_add_up -->

# %% [markdown]
# Un modèle élagué reste-t-il un GPT-2 ordinaire, que n'importe qui peut relire ?
#
# ??? q="reload"


# %% experiment="reloaded"
@atelier.experiment(needs=[prune_heads, fisher_importance])
def reloaded():
    """Chaque modèle aminci, écrit par save_pretrained puis relu par from_pretrained : ce qui revient, ou non."""
    by_loss, ids = importances(1, 0), some_text(1)
    versions = {
        "huit têtes, ici et là": without_heads(colibri, ch5.by_block(sorted(head_costs, key=head_costs.get)[:8])),
        "une tête par bloc": without_heads(colibri, {number: [0] for number in range(colibri.config.n_layer)}),
        "100 neurones par MLP": without_neurons(colibri, by_loss, 100),
        "un bloc": without_block(colibri, SPARE_BLOCK),
    }
    return {name: ch5.written_and_read(version, ids) for name, version in versions.items()}


# %%
ch5.reload_table(reloaded())

# %% [markdown]
# Neurones et blocs ont leur mot dans la configuration (`n_inner`, `n_layer`) : le fichier se relit partout, à condition
# que tous les blocs se ressemblent. Les têtes, non, même une par bloc : `n_head` fixe aussi la taille d'une tête,
# `n_embd / n_head`.
# <!-- claim: heads_do_not_reload -->
# Il faut alors quelques lignes de code à joindre au fichier : c'est un coût, lui aussi, et une des raisons pour
# lesquelles les modèles que l'on publie ont perdu des blocs et des neurones, de la même façon partout.

# %% [markdown]
# ## 5.12 Réapprendre, masque gardé
#
# Un modèle élagué n'est pas perdu : on peut reprendre l'apprentissage (*recovery*), en gardant les zéros.
#
# ??? q="mask_or_not"

# %% [markdown]
# Voici la boucle, entière. Elle servira à tout ce qui suit : seuls changent l'élève, la perte et les masques.


# %%
def relearn(pupil, loss_of, steps, lr, seed=0, masks_at=None):
    """Réapprend, sur place. masks_at(pas, élève) : les masques que l'on repose après ce pas."""
    optimizer = torch.optim.AdamW(pupil.requires_grad_(True).parameters(), lr, betas=(0.9, 0.95), weight_decay=0.0)
    batches = atelier.windows(train_tokens, seed=seed)
    pupil.train()
    for step in ch5.progress_bar(range(steps), "réapprentissage"):
        for group in optimizer.param_groups:  # le taux monte pendant dix pas, puis descend jusqu'à zéro
            group["lr"] = lr * min(1, (step + 1) / 10) * (1 - step / steps)
        optimizer.zero_grad()
        loss_of(pupil, next(batches)).backward()
        torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimizer.step()
        if masks_at is not None:
            apply_masks(pupil, masks_at(step, pupil))
    return pupil.eval()


# %% experiment="forgotten"
@atelier.experiment(needs=[magnitude_mask, sparsity], full={"steps": 4})
def forgotten(steps=2, amount=0.8):
    """Part de zéros dans les couches linéaires, pas après pas, masque posé une fois, puis oublié."""
    pupil, found = masked(colibri, smallest_gone(colibri, amount)), []

    def look(*_):
        found.append(sparsity([pupil.get_submodule(name).weight for name in linear_layers]))
        return {}

    look()
    relearn(pupil, hard_loss, steps, 1e-3, masks_at=look)
    return found


# %%
ch5.zeros_by_step(forgotten())

# %% [markdown]
# Un seul pas d'Adam, et il ne reste presque plus un zéro.
# <!-- claim: one_step_erases_the_zeros -->
# On repose donc le masque après chaque pas. Et faut-il tout retirer d'un coup ? Zhu et Gupta (2017) retirent
# **peu à peu**, pendant l'apprentissage, pour que les poids qui restent aient le temps de s'y faire : beaucoup au
# début, quand il y a de quoi ; peu à la fin, quand chaque poids compte. Ce qui reste à retirer fond comme le **cube**
# du temps qui reste.

# %% [markdown]
# ### ✎ cubic_schedule


# %% exercise="cubic_schedule"
def cubic_schedule(
    step: int,
    start: int,
    end: int,
    final_sparsity: float,
    initial_sparsity: float = 0.0,
) -> float:
    """Part des poids retirés à un pas de l'apprentissage : vite d'abord, doucement ensuite.

    step : pas courant ; start, end : pas où l'élagage commence et finit.
    final_sparsity, initial_sparsity : parts retirées à la fin et au début, entre 0 et 1.
    Rend un float : initial_sparsity jusqu'à start, final_sparsity à partir de end. Entre les deux,
    ce qui reste à retirer, en part de tout ce qu'il y avait à retirer, est le cube de la part du
    temps qui reste.
    Lève ValueError si start ≥ end.

    Source : Zhu et Gupta, « To prune, or not to prune », 2017, équation (1).
    """
    ### BEGIN SOLUTION
    if start >= end:
        raise ValueError(f"l'élagage finit au pas {end}, il ne peut pas commencer au pas {start}")
    progress = min(max((step - start) / (end - start), 0.0), 1.0)
    return final_sparsity + (initial_sparsity - final_sparsity) * (1 - progress) ** 3
    ### END SOLUTION


# %% experiment="schedule_points"
@atelier.experiment(needs=[cubic_schedule])
def schedule_points(steps=60, amount=0.8):
    """La part retirée à chaque pas, par votre programme."""
    end = round(0.7 * steps)
    shares = [cubic_schedule(i, 0, end, amount) for i in range(steps + 1)]
    return {"fin": end, "part": amount, "retirée": shares}


# %%
ch5.plot_schedule(schedule_points())

# %% [markdown]
# Les deux façons, dans la même boucle : tout d'un coup, ou un masque que l'on revoit au fil des pas. (`cache` garde
# chaque modèle repris : celui qui sert à choisir un taux servira encore en 5.12.)


# %%
few_steps = atelier.scale().pick(essai=2, cpu=12, gpu=60)


@functools.cache
def at_once(lr, seed, steps, loss_of, amount):
    """Colibri élagué d'un coup, puis `steps` pas sous son masque."""
    kept = smallest_gone(colibri, amount)
    return relearn(masked(colibri, kept), loss_of, steps, lr, seed, lambda *_: kept)


@functools.cache
def gradually(lr, seed, steps, amount=0.8):
    """Colibri élagué pendant les sept premiers dixièmes des pas ; le masque est revu vingt fois."""
    kept, end = {}, max(1, round(0.7 * steps))

    def masks_at(step, pupil):
        if step % max(1, steps // 20) == 0 or step == end:
            kept.update(smallest_gone(pupil, cubic_schedule(step, 0, end, amount)))
        return kept

    return relearn(copy.deepcopy(colibri), hard_loss, steps, lr, seed, masks_at)


# %% [markdown]
# À quel **taux d'apprentissage** (*learning rate*) ? Il faut le choisir, et pas sur l'extrait qui jugera : nous prenons
# un autre extrait, `a_test`, pour régler, et gardons celui de validation pour juger.

# %%
atelier.bet(
    "best_rate",
    "Un modèle à qui l'on a retiré 80 % de ses poids, plutôt que 50 %, demande un taux…",
    options=("plus petit", "le même", "plus grand"),
)
tuning_tokens = atelier.scale().pick(essai=512, cpu=4096, gpu=4096)


def tuning_perplexity(pupil):
    """Sur un autre extrait que celui qui juge : c'est là que les taux se choisissent."""
    return atelier.evaluate_perplexity(pupil, "a_test", max_tokens=tuning_tokens).perplexity


# %% experiment="recovery_rates"
@atelier.experiment(
    needs=[magnitude_mask], full={"steps": 60, "amounts": (0.5, 0.8), "rates": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)}
)
def recovery_rates(steps=few_steps, amounts=(0.8,), rates=(1e-2,)):
    """Perplexité après une reprise, selon la part retirée et le taux, sur l'extrait de réglage."""
    found = {}
    for amount, lr in itertools.product(amounts, rates):
        found[amount, lr] = tuning_perplexity(at_once(lr, 0, steps, hard_loss, amount))
    return {"pas": steps, "perplexités": found}


# %%
rates_tried, rates_author = recovery_rates(), recovery_rates.authors()
ch5.rates_table(rates_tried, rates_author)
atelier.settle("best_rate", ch5.rate_verdict(rates_author or rates_tried))

# %% [markdown]
# Plus on a retiré, plus il faut bouger les poids qui restent : le taux d'une reprise se règle sur l'étendue des dégâts.
# <!-- claim: bigger_damage_wants_a_bigger_rate -->

# %% [markdown]
# Reste à savoir de qui réapprendre : du texte, comme ici, ou de Colibri entier, qui donne à chaque jeton toute une loi
# (ce sont les étiquettes douces du chapitre 4, à T = 1) ? Un pas coûte alors plus cher, puisque l'enseignant lit aussi
# le texte. De combien ? Le chapitre 2 le prévoit : un pas, c'est trois passages de l'élève ; l'enseignant en ajoute un.


# %%
def soft_loss(pupil, ids, T=1.0):
    """Étiquettes douces : la divergence de Colibri entier à l'élève, à la température T."""
    with torch.no_grad():
        wanted = colibri(ids, use_cache=False).logits[:, :-1] / T
    given = pupil(ids, use_cache=False).logits[:, :-1] / T
    gaps = F.kl_div(given.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="none")
    return T**2 * gaps.sum(-1).mean()


# %% experiment="step_costs"
@atelier.experiment(full={"rounds": 11})
def step_costs(rounds=5):
    """Durées, en secondes, d'un pas à étiquettes dures et d'un pas à étiquettes douces, tour à tour."""
    pupils = {"dures": copy.deepcopy(colibri), "douces": copy.deepcopy(colibri)}
    steps_of = {
        "dures": lambda: relearn(pupils["dures"], hard_loss, 1, 1e-5),
        "douces": lambda: relearn(pupils["douces"], soft_loss, 1, 1e-5),
    }
    return ch5.interleaved_seconds(steps_of, rounds)


# %%
ch5.step_costs_note(step_costs())

# %% [markdown]
# Nous donnons aux étiquettes douces deux pas quand les dures en font trois : à peu près la même durée.
# <!-- claim: two_soft_steps_last_three_hard_ones -->

# %% [markdown]
# Chaque recette reçoit son taux.


# %%
ways = {
    "d'un coup": lambda lr, seed, steps: at_once(lr, seed, steps, hard_loss, 0.8),
    "peu à peu": gradually,
    "d'un coup, étiquettes douces": lambda lr, seed, steps: at_once(lr, seed, 2 * steps // 3, soft_loss, 0.8),
}


def tuned(recipes, steps, rates):
    """Recette → taux → perplexité sur l'extrait de réglage."""
    return {name: {lr: tuning_perplexity(make(lr, 0, steps)) for lr in rates} for name, make in recipes.items()}


def judged(recipes, rates, steps, seeds, tokens):
    """Recette → pour chaque graine, la perte part à part sur l'extrait qui juge. rates : recette → taux."""
    found = {name: [] for name in recipes}
    for seed, name in itertools.product(seeds, recipes):
        found[name].append(losses_of(recipes[name](rates[name], seed, steps), tokens))
    return {"pas": steps, "jetons": tokens, "pertes": found}


# %% experiment="ways_tuned"
@atelier.experiment(
    needs=[magnitude_mask, cubic_schedule],
    full={"steps": 60, "rates": (1e-3, 3e-3, 1e-2, 3e-2), "names": ("peu à peu", "d'un coup, étiquettes douces")},
)
def ways_tuned(steps=few_steps, rates=(3e-3,), names=("peu à peu",)):
    """Le taux qui va aux autres façons de reprendre, à 80 % de poids retirés, sur l'extrait de réglage."""
    return {"pas": steps, "perplexités": tuned({name: ways[name] for name in names}, steps, rates)}


# %%
ch5.tuned_table(ways_tuned(), ways_tuned.authors())

# %%
chosen_rates = {"d'un coup": 1e-2, "peu à peu": 3e-3, "d'un coup, étiquettes douces": 1e-2}

# %%
atelier.bet(
    "best_recovery",
    "80 % des poids retirés, même durée pour tous. Le meilleur sera…",
    options=list(ways),
)


# %% experiment="recovered"
@atelier.experiment(
    needs=[magnitude_mask, cubic_schedule], full=long_extract | {"steps": 60, "seeds": range(5), "names": tuple(ways)}
)
def recovered(steps=few_steps, seeds=(0,), tokens=extract_tokens, names=tuple(ways)):
    """Colibri sans 80 % de ses poids, repris de chaque façon, à son taux."""
    found = judged({name: ways[name] for name in names}, chosen_rates, steps, seeds, tokens)
    before = losses_of(masked(colibri, smallest_gone(colibri, 0.8)), tokens)
    return found | {"avant": {"élagué, non repris": before, "entier": losses_of(colibri, tokens)}}


# %%
recoveries, recoveries_author = recovered(), recovered.authors()
ch5.runs_table(recoveries, recoveries_author, against="d'un coup")
atelier.settle("best_recovery", ch5.best_of(recoveries_author or recoveries))

# %% [markdown]
# La reprise répare énormément : comparez avec « élagué, non repris ».
# <!-- claim: recovery_mends_a_lot -->
# « Peu à peu » ne bat pas « d'un coup » : en si peu de pas, il n'a que les derniers pour se remettre de la dernière
# coupe. Zhu et Gupta élaguent sur des milliers de pas ; nous ne l'avons pas mesuré à cette longueur.
# <!-- claim: gradual_does_not_win_in_few_steps -->
# Et les étiquettes douces font mieux que les dures, à durée égale, d'un écart bien plus grand que celui qui sépare les
# deux meilleurs taux des dures.
# <!-- claim: soft_labels_recover_better -->


# %% experiment="row_recovered"
@atelier.experiment(needs=[magnitude_mask], full={"steps": 60})
def row_recovered(steps=few_steps):
    """La meilleure de ces reprises, relue de son fichier : 80 % de zéros, en bitmap."""
    pruned = ways["d'un coup, étiquettes douces"](chosen_rates["d'un coup, étiquettes douces"], 0, steps)
    stored, what = ch5.model_file(pruned), f"80 % des poids retirés, {2 * steps // 3} pas d'étiquettes douces, bitmap"
    return atelier.save_variant("repris-80", ch5.reread(colibri, stored), ch5.file_bytes(stored), "ch5_elagage", what)


# %%
ch5.announce(row_recovered())

# %% [markdown]
# ## 5.13 Élaguer, puis distiller
#
# Le chapitre 4 l'annonçait : la distillation « can be combined with pruning ». C'est même ainsi que l'on fait
# aujourd'hui de petits modèles de langue. Les **Minitron** (Muralidharan et al., 2024) partent d'un modèle entraîné, en
# retirent des neurones, des têtes, des dimensions ou des blocs, et laissent l'original enseigner le reste, sur bien
# moins de jetons qu'un apprentissage à neuf. **Llama 3.2** 1B et 3B ont été tirés de Llama 3.1 8B par élagage
# structuré, puis distillés des modèles 8B et 70B (Meta, 2024). **Sheared LLaMA** (Xia et al., 2024) élague LLaMA-2 7B
# vers 1,3 et 2,7 milliards de paramètres, et reprend l'apprentissage sur le texte seul.
#
# Les auteurs de Minitron ont retenu, aux tailles qu'ils ont étudiées, la largeur plutôt que la profondeur, et
# l'enseignant plutôt que le texte. Et ici ? Trois questions : réapprendre du texte ou de l'enseignant ? retirer en
# profondeur ou en largeur ? à quel taux ? Reprenons nos deux modèles d'un cinquième plus petits. Rien de neuf à
# écrire : c'est votre boucle, sans masque. La température est à 1, comme au chapitre 4 ; T = 2 sert de témoin, à un
# taux réglé pour elle.


# %%
def warm_loss(pupil, ids):
    """Les étiquettes douces, à T = 2 : le témoin."""
    return soft_loss(pupil, ids, T=2.0)


def one_block_less():
    return without_block(colibri, SPARE_BLOCK)


def fewer_neurons():
    return without_neurons(colibri, importances(16, 0), SPARE_NEURONS)


@functools.cache
def taught_again(cut, loss_of, lr, seed, steps):
    """Un Colibri aminci, puis instruit ; gardé pour la suite."""
    return relearn(cut(), loss_of, steps, lr, seed)


thinner = {
    "un bloc de moins, étiquettes douces": functools.partial(taught_again, one_block_less, soft_loss),
    "un bloc de moins, étiquettes douces, T = 2": functools.partial(taught_again, one_block_less, warm_loss),
    "un bloc de moins, étiquettes dures": lambda lr, seed, steps: taught_again(
        one_block_less, hard_loss, lr, seed, 3 * steps // 2
    ),
    "neurones en moins, étiquettes douces": functools.partial(taught_again, fewer_neurons, soft_loss),
}


# %% experiment="thinner_tuned"
@atelier.experiment(
    needs=[fisher_importance], full={"steps": 50, "rates": (1e-4, 3e-4, 1e-3, 3e-3), "names": tuple(thinner)}
)
def thinner_tuned(steps=few_steps, rates=(1e-3,), names=tuple(thinner)[:1]):
    """Le taux qui va à chaque modèle aminci et à chaque façon de l'instruire, sur l'extrait de réglage."""
    return {"pas": steps, "perplexités": tuned({name: thinner[name] for name in names}, steps, rates)}


# %%
ch5.tuned_table(thinner_tuned(), thinner_tuned.authors())

# %%
thinner_rates = dict(zip(thinner, (1e-3, 1e-3, 3e-4, 1e-3), strict=True))

# %%
atelier.bet(
    "depth_or_width",
    "Une fois distillé, à paramètres et à pas égaux, mieux vaut avoir retiré…",
    options=("un bloc", "des neurones", "on ne peut pas les départager"),
)


# %% experiment="thinned_then_taught"
@atelier.experiment(
    needs=[fisher_importance], full=long_extract | {"steps": 50, "seeds": range(5), "names": tuple(thinner)}
)
def thinned_then_taught(steps=few_steps, seeds=(0,), tokens=extract_tokens, names=tuple(thinner)[::3]):
    """Colibri aminci d'un cinquième, puis instruit, chaque recette à son taux."""
    found = judged({name: thinner[name] for name in names}, thinner_rates, steps, seeds, tokens)
    before = {
        "entier": losses_of(colibri, tokens),
        "un bloc de moins, tel quel": losses_of(without_block(colibri, SPARE_BLOCK), tokens),
    }
    return found | {"avant": before}


# %%
taught, taught_author = thinned_then_taught(), thinned_then_taught.authors()
ch5.runs_table(taught, taught_author, against="un bloc de moins, étiquettes douces")
atelier.settle("depth_or_width", ch5.depth_or_width(taught_author or taught))

# %% [markdown]
# Quelques dizaines de pas rendent au modèle d'un bloc de moins une bonne part de ce qu'il avait perdu.
# <!-- claim: teaching_mends_the_missing_block -->
# À durée égale, l'enseignant fait mieux que le texte, à T = 1 comme à T = 2.
# <!-- claim: the_teacher_beats_the_text -->
# T = 2 fait même un peu mieux que T = 1, à chacun des quatre taux essayés : l'inverse de ce que montrait, au
# chapitre 4, l'élève de deux blocs. La température n'est donc bonne ou mauvaise que pour un élève et une leçon donnés.
# <!-- claim: here_t_2_does_a_little_better -->
# Profondeur ou largeur ? Les neurones gardent leur avance.
# <!-- claim: width_stays_ahead -->
# Ni l'enseignant ni la largeur ne doivent leur avance au taux : sur l'extrait de réglage, les étiquettes douces, à leur
# second taux, passent encore devant les dures au meilleur des leurs, et les neurones devant un bloc.
# <!-- claim: the_rate_does_not_decide -->


# %% experiment="row_thinner"
@atelier.experiment(needs=[fisher_importance], full={"steps": 50})
def row_thinner(steps=few_steps):
    """Le meilleur de ces modèles, au tableau : des neurones en moins, puis distillé, en FP16."""
    recipe = "neurones en moins, étiquettes douces"
    small = thinner[recipe](thinner_rates[recipe], 0, steps)
    size = ch5.file_bytes(ch5.plain_tensors(small, torch.float16))
    what = f"{SPARE_NEURONS} neurones de moins par MLP, puis {steps} pas d'étiquettes douces, FP16"
    return atelier.save_variant("moins-neurones", small, size, "ch5_elagage", what)


# %%
ch5.announce(row_thinner())

# %% [markdown]
# ## 5.14 Élaguer et quantifier
#
# La moitié des poids, sur 4 bits : dans quel ordre ? **Réfléchissez avant d'exécuter.** Si l'on arrondit d'abord, que
# devient le classement ? Si l'on élague d'abord, un zéro reste-t-il un zéro ? Et GPTQ, qui déplace les poids suivants,
# respecte-t-il les zéros ?
#
# `sparsegpt` sait déjà tout faire : avec un masque qui garde tout et une grille, c'est votre `gptq_quantize` du
# chapitre 3. Il ne manque que la grille : vos codes signés, et le pas de chaque ligne que choisissait `mse_scale`.


# %%
def nearest(column, steps_of_rows, bits):
    """Les valeurs d'une colonne, ou d'une matrice, arrondies à la grille de leur ligne."""
    return (column / steps_of_rows).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * steps_of_rows


def best_steps(w, bits):
    """Le pas de chaque ligne qui fait la plus petite erreur quadratique (votre mse_scale) → (sortie, 1)."""
    tries = w.abs().amax(1, keepdim=True).clamp(min=1e-8) / 2 ** (bits - 1) * torch.linspace(1, 0.3, 29).to(w.device)
    errors = torch.stack([(nearest(w, s[:, None], bits) - w).square().sum(1) for s in tries.T])
    return tries.gather(1, errors.argmin(0)[:, None])


def rounded(w, bits):
    return nearest(w, best_steps(w, bits), bits)


def gptq(w, x, bits, choose=torch.ones_like):
    """Votre gptq_quantize, ou, si choose retire des poids, SparseGPT qui arrondit en même temps."""
    steps_of_rows = atelier.for_float64(best_steps(w, bits)).double()[:, 0]
    return sparsegpt(w, x, choose, grid=lambda column: nearest(column, steps_of_rows, bits))


# %%
both_orders = {
    "4 bits": lambda w, x: rounded(w, 4),
    "4 bits, GPTQ": lambda w, x: gptq(w, x, 4),
    "3 bits": lambda w, x: rounded(w, 3),
    "3 bits, GPTQ": lambda w, x: gptq(w, x, 3),
    "Wanda": lambda w, x: w * wanda_mask(w, x, 0.5),
    "Wanda puis 4 bits": lambda w, x: rounded(w * wanda_mask(w, x, 0.5), 4),
    "4 bits puis Wanda": lambda w, x: rounded(w, 4) * wanda_mask(rounded(w, 4), x, 0.5),
    "Wanda puis GPTQ": lambda w, x: gptq(w * wanda_mask(w, x, 0.5), x, 4),
    "GPTQ puis Wanda": lambda w, x: (q := gptq(w, x, 4)) * wanda_mask(q, x, 0.5),
    "SparseGPT et 4 bits ensemble": lambda w, x: gptq(w, x, 4, lambda s: magnitude_mask(s, 0.5)),
}


one_order = ("Wanda puis 4 bits", "4 bits puis Wanda")
few_orders = atelier.scale().pick(essai=("4 bits",), cpu=one_order, gpu=tuple(both_orders))


# %% experiment="orders"
@atelier.experiment(
    needs=[wanda_mask, magnitude_mask, sparsity], full=long_extract | {"names": tuple(both_orders), "windows": 16}
)
def orders(names=few_orders, tokens=extract_tokens, windows=few_windows):
    """Élaguer la moitié des poids et les écrire sur peu de bits : perte, et part de zéros."""
    found = {"entier": losses_of(colibri, tokens)}
    zeros = {}
    for name in ch5.progress_bar(names, "recettes"):
        with ch5.one_thread():
            made = block_by_block(some_text(windows), both_orders[name])
        found[name] = losses_of(made, tokens)
        zeros[name] = sparsity(made.get_submodule(layer).weight for layer in linear_layers)
    return {"jetons": tokens, "pertes": found, "zéros": zeros}


# %%
mixed = orders()
ch5.orders_table(mixed)

# %% [markdown]
# Quatre lectures :
#
# - **élaguer d'abord** fait mieux que d'arrondir d'abord, au plus proche comme par GPTQ ; l'arrondi brouille le
#   classement, et crée à lui seul bien des zéros (deuxième colonne) ; l'élagage, lui, ne gêne pas l'arrondi, puisque
#   zéro est sur la grille ; <!-- claim: prune_first -->
# - GPTQ déplace les poids suivants, et pourrait réveiller ceux qu'on a retirés. Il le fait peu : une correction plus
#   petite qu'un demi-pas s'arrondit à zéro ; <!-- claim: gptq_wakes_few_zeros -->
# - **SparseGPT** élague et arrondit en une passe, chaque erreur corrigée par les suivants : c'est de loin le meilleur
#   des mélanges ; <!-- claim: sparsegpt_is_the_best_mixture -->
# - moitié élaguée sur 4 bits, bitmap compris, fait trois bits par poids : à **bits égaux**, c'est aux lignes « 3 bits »
#   qu'il faut comparer, et GPTQ sur 3 bits fait mieux. <!-- claim: at_equal_bits_quantizing_wins -->

# %%
ch5.same_bits(by_wanda, by_sparsegpt, mixed)

# %% [markdown]
# Lisez la figure à la verticale, puis à l'horizontale : pour une même perplexité, combien de bits en plus faut-il à
# l'élagage ?


# %% experiment="row_both"
@atelier.experiment(needs=[magnitude_mask])
def row_both():
    """Colibri passé par SparseGPT, moitié retirée et 4 bits ensemble : bitmap, codes de 4 bits, pas en FP16."""
    with ch5.one_thread():
        made = block_by_block(some_text(16), both_orders["SparseGPT et 4 bits ensemble"])
    size = ch5.coded_bytes(made, bits=4)
    what = "moitié retirée et 4 bits en une passe (SparseGPT), bitmap"
    return atelier.save_variant("sparsegpt-50-int4", made, size, "ch5_elagage", what)


# %%
ch5.announce(row_both())

# %% [markdown]
# ## 5.15 ★ Ce que ce chapitre n'a pas mesuré
#
# **Le billet de loterie.** Frankle et Carbin (2019) élaguent un réseau entraîné, gardent le masque, remettent les poids
# restants à leur valeur de départ, et réapprennent : de petits réseaux de vision retrouvent ainsi leur justesse, et le
# même masque, sur d'autres valeurs de départ, n'y arrive pas aussi bien. Le masque et le tirage forment un « billet
# gagnant ». Pour de plus grands réseaux, il a fallu remettre les poids non à leur départ, mais à leur valeur après
# quelques pas (Frankle et al., 2020). Il faut donc avoir entraîné le grand réseau pour trouver le petit : c'est une
# leçon sur l'apprentissage plus qu'une économie.
#
# **OWL.** Si chaque couche ne supporte pas la même coupe, et si classer tout ensemble demande des pentes, peut-on
# choisir la part de chaque couche à moindres frais ? OWL (Yin et al., 2024) la tire de la part d'importances très
# grandes qu'a chaque couche, au sens de Wanda : plus elle en a, moins on lui retire. À 70 %, la perplexité de
# LLaMA 7B élagué par Wanda passe ainsi de 85,8 à 24,6 ; celle de LLaMA 65B, de 15,2 à 8,6 seulement.
#
# **Le mouvement** (*Movement Pruning*). Pendant un fine-tuning, un petit poids qui s'éloigne de zéro compte plus qu'un
# grand qui y revient. Sanh et al. (2020) prennent pour importance ce mouvement, $-g\,w$ ajouté pas après pas, et
# l'associent à la distillation : c'est l'accolade de droite, sur la figure de la section 5.1. C'est une importance de
# **tâche** : elle gagne surtout quand on retire presque tout.
#
# **Élaguer des experts.** Dans un mélange d'experts, chaque jeton n'emploie que quelques MLP sur beaucoup. On peut en
# retirer d'entiers, choisis d'après ce que la couche y perd (Lu et al., 2024, sur Mixtral 8×7B) : ni masque ni indice,
# et de la mémoire en moins. C'est de l'élagage structuré, à une maille que ces modèles offrent d'eux-mêmes.

# %% [markdown]
# ## 5.16 Où en est Colibri

# %%
atelier.board("ch5_elagage")

# %% [markdown]
# **Ce que vous savez maintenant.** Retirer les plus petits poids coûte peu d'abord, beaucoup ensuite ; regarder ce
# qu'ils multiplient coûte moins ; demander à la perte permet enfin de les comparer d'une couche à l'autre ; et corriger
# ceux qui restent fait mieux encore que bien choisir. Des zéros libres ne font gagner ni temps, à moins d'être très
# nombreux, ni place, sans bon rangement ; une structure, si. Un élagage se répare en partie par un peu d'apprentissage,
# masque gardé, et mieux encore par celui qu'on a élagué. À octets égaux, sur un modèle de cette taille, mieux vaut
# d'abord quantifier.
#
# Il reste une chose qu'aucun des trois ne fait : apprendre à Colibri ce qu'il ne sait pas. C'est le chapitre 6.

# %%
atelier.progress()

# %% [markdown]
# **Références.** LeCun, Denker et Solla, *Optimal Brain Damage*, NeurIPS 1989 · Hassibi et Stork, *Second Order
# Derivatives for Network Pruning: Optimal Brain Surgeon*, NeurIPS 1992 · Han et al., *Learning both Weights and
# Connections for Efficient Neural Networks*, 2015, arXiv 1506.02626 · Zhu et Gupta, *To prune, or not to prune*, 2017,
# arXiv 1710.01878 · Frankle et Carbin, *The Lottery Ticket Hypothesis*, ICLR 2019, arXiv 1803.03635 · Frankle et al.,
# *Linear Mode Connectivity and the Lottery Ticket Hypothesis*, 2020, arXiv 1912.05671 · Molchanov et al., *Importance
# Estimation for Neural Network Pruning*, 2019, arXiv 1906.10771 · Michel et al., *Are Sixteen Heads Really Better than
# One?*, 2019, arXiv 1905.10650 · Sanh et al., *Movement Pruning*, 2020, arXiv 2005.07683 · Mishra et al., *Accelerating
# Sparse Deep Neural Networks*, 2021, arXiv 2104.08378 · Yao et al., *ZeroQuant*, 2022, arXiv 2206.01861 · Frantar et
# Alistarh, *SparseGPT*, 2023, arXiv 2301.00774 · Frantar et al., *GPTQ*, ICLR 2023, arXiv 2210.17323 · Sun et al., *A
# Simple and Effective Pruning Approach for Large Language Models* (Wanda), 2023, arXiv 2306.11695, et dépôt
# `locuslab/wanda`, README (tableau LLaMA-2) · Ma et al., *LLM-Pruner*, 2023, arXiv 2305.11627 · Men et al., *ShortGPT*,
# 2024, arXiv 2403.03853 · Muralidharan et al., *Compact Language Models via Pruning and Knowledge Distillation*
# (Minitron), 2024, arXiv 2407.14679 · Meta, *Llama 3.2: Revolutionizing edge AI and vision*, billet, septembre 2024 ·
# Xia et al., *Sheared LLaMA*, ICLR 2024, arXiv 2310.06694 · Yin et al., *Outlier Weighed Layerwise Sparsity* (OWL),
# ICML 2024, arXiv 2310.05175 · Lu et al., *Not All Experts are Equal*, 2024, arXiv 2402.14800
