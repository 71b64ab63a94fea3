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
# # Chapitre 2 · FLOPs et 6ND
#
# Colibri a été entraîné en une heure et quart, sur deux cœurs. À la fin de ce chapitre, un produit de trois nombres
# vous suffira pour dire ce qu'un apprentissage coûte, et vous saurez de combien il se trompe.
#
# Vous compterez un passage dans le modèle, opération par opération ; vous verrez d'où vient la règle $C \approx 6ND$ et
# ce qu'elle oublie ; vous mesurerez le **toit** de votre machine, celui du calcul et celui de la mémoire ; puis vous
# chercherez comment dépenser un budget, sur de vrais apprentissages. Comptez deux heures, dont quatre-vingts minutes
# d'exercices ; les sections marquées « pour aller plus loin » viennent en plus.

# %%
import copy
import itertools
import statistics

from torch.utils.flop_counter import FlopCounterMode

import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch2
from atelier.text import plural
from atelier.training import lm_loss

atelier.describe_machine()

# %% tags=["setup"]
import math

import torch

# %% [markdown]
# Deux paris, à garder pour la suite. Une opération est une addition ou une multiplication.

# %%
atelier.bet("one_token", "Combien d'opérations Colibri fait-il, par paramètre, pour deviner un seul jeton ?")
atelier.bet("gpt3_years", "Combien d'années la machine qui a entraîné Colibri mettrait-elle à entraîner GPT-3 ?")

# %%
colibri = atelier.load_model("colibri", attention="eager")
print("Colibri :", plural(colibri.num_parameters(), "paramètre"))

# %% [markdown]
# ## 2.1 Le prix d'un produit
#
# Presque tout ce que calcule un modèle de langue est un produit de matrices. On compte donc des **opérations en virgule
# flottante** (*floating-point operations*, FLOP). Ce cours écrit **FLOP** pour un nombre d'opérations, **FLOP/s** pour
# une vitesse ; ailleurs, « FLOPs » et « FLOPS » disent parfois l'un, parfois l'autre.
#
# ??? q="flops_words"

# %% [markdown]
# Une matrice $(m \times k)$ multipliée par une matrice $(k \times n)$. **Combien de cases à remplir, et combien
# d'opérations par case ?**
#
# La convention, partout dans ce domaine : une multiplication et une addition vont ensemble (*multiply-accumulate*, MAC)
# et comptent pour **deux** opérations, même la première, où il n'y avait encore rien à quoi ajouter.

# %% [markdown]
# ### ✎ matmul_flops


# %% exercise="matmul_flops"
def matmul_flops(m: int, k: int, n: int) -> int:
    """Opérations d'un produit de matrices (m × k)·(k × n).

    m, k, n : dimensions, entiers d'au moins 1.
    Rend un int, exact même au-delà de 2^53 : une multiplication et une addition par terme de chaque
    somme.

    Source : convention de Kaplan et al., « Scaling Laws for Neural Language Models », 2020, § 2.1
    et tableau 1.
    """
    ### BEGIN SOLUTION
    per_entry = 2 * k
    return m * n * per_entry
    ### END SOLUTION


# %% [markdown]
# PyTorch sait compter, lui aussi. `FlopCounterMode` regarde passer chaque opération et note celles qu'il connaît : les
# produits. Sur l'appareil `meta`, un tenseur n'a qu'une forme, et aucun nombre : compter ne prend ni temps ni mémoire.


# %%
def counted(run):
    """Les opérations des produits que fait `run`, comptées par PyTorch."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


# %% experiment="product_counts"
@atelier.experiment(needs=[matmul_flops])
def product_counts():
    """Votre formule et le compteur, sur quelques produits rencontrés dans un modèle."""
    products = {
        "deux petites matrices": (2, 3, 4),
        "Colibri, entrée du MLP, 256 jetons": (256, 192, 768),
        "Colibri, tête, 256 jetons": (256, 192, 4096),
        "GPT-3, entrée du MLP, 2 048 jetons": (2048, 12288, 49152),
    }
    found = {}
    for name, (m, k, n) in products.items():
        a, b = torch.empty(m, k, device="meta"), torch.empty(k, n, device="meta")
        found[name] = {"formes": (m, k, n), "vous": matmul_flops(m, k, n), "FlopCounterMode": counted(lambda: a @ b)}
    return found


# %%
ch2.product_table(product_counts())

# %% [markdown]
# ## 2.2 Un passage avant, jeton par jeton
#
# Un jeton entre dans Colibri et en ressort en 4 096 logits. **Quelles matrices a-t-il rencontrées ?** Reprenez le
# dessin du chapitre 1 : dans chaque bloc, quatre couches linéaires ; au-dessus, la tête. Aux matrices de paramètres
# s'ajoutent, dans l'attention, deux produits entre activations, sans aucun paramètre : les scores $QK^\top$, puis le
# mélange des valeurs.
#
# Notre convention est celle de tout le domaine : on ne compte que les produits de matrices. Biais, LayerNorm, GELU et
# softmax sont laissés de côté. Lire la ligne d'une table n'est pas un produit.

# %% [markdown]
# ### ✎ forward_flops_per_token


# %% exercise="forward_flops_per_token"
def forward_flops_per_token(n_layer: int, d_model: int, n_ctx: int, n_vocab: int) -> float:
    """Opérations d'un passage avant de GPT-2 sur une fenêtre de n_ctx jetons, divisées par n_ctx.

    n_layer : nombre de blocs (0 est permis) ; d_model : composantes d'un jeton, toutes têtes
    réunies ;
    n_ctx : jetons de la fenêtre ; n_vocab : taille du vocabulaire.
    Rend un float, en FLOP par jeton. Seuls comptent les produits de matrices ; le MLP élargit
    d_model à 4·d_model ; l'attention est dense (les scores du futur sont calculés, puis masqués) ;
    la tête donne des logits après chaque jeton.

    Source : Hoffmann et al., « Training Compute-Optimal Large Language Models », 2022, annexe F,
    moins la lecture de la table des jetons et le softmax.
    """
    ### BEGIN SOLUTION
    projections = 2 * d_model * (3 * d_model + d_model)
    scores = 2 * n_ctx * d_model
    mixing = 2 * n_ctx * d_model
    mlp = 2 * d_model * 4 * d_model + 2 * 4 * d_model * d_model
    head = 2 * d_model * n_vocab
    return float(n_layer * (projections + scores + mixing + mlp) + head)
    ### END SOLUTION


# %% [markdown]
# Votre formule contre le compteur, sur les vraies formes des modèles. Il ne s'agit pas d'être proche : l'écart doit
# être **nul**.

# %%
counted_models = ch2.known_models(colibri)


def shape_of(model):
    """Blocs, dimension, contexte, vocabulaire : les arguments de votre fonction."""
    c = model.config
    return c.n_layer, c.n_embd, c.n_positions, c.vocab_size


# %% experiment="forward_counts"
@atelier.experiment(needs=[forward_flops_per_token])
def forward_counts():
    """Une fenêtre pleine de chaque modèle : votre formule, et le compteur."""
    found = {}
    for name, model in counted_models.items():
        n_ctx, window = model.config.n_positions, ch2.window(model, model.config.n_positions)
        with torch.no_grad():
            theirs = counted(lambda: model(**window))
        per_token = forward_flops_per_token(*shape_of(model))
        about = {"contexte": n_ctx, "paramètres": model.num_parameters(), "par jeton": per_token}
        found[name] = about | {"vous": round(per_token * n_ctx), "FlopCounterMode": theirs}
    return found


# %%
forward_found = forward_counts()
ch2.forward_table(forward_found)
atelier.settle("one_token", forward_found["Colibri"]["par jeton"] / forward_found["Colibri"]["paramètres"])

# %% [markdown]
# L'écart est nul pour tous, et l'on trouve quelques millions d'opérations pour un jeton de Colibri : un peu plus de
# deux par paramètre.
# <!-- claim: the_formula_is_exact -->
#
# Une réserve sur GPT-3 : ses couches alternent une attention dense et une attention clairsemée (Brown et al., 2020,
# § 2.1). Dans ce chapitre, ses opérations et son cache sont ceux d'un modèle **dense** de la même forme.

# %% [markdown]
# **Où vont ces opérations ?** Votre fonction le sait déjà ; il suffit de l'interroger. Sans aucun bloc, il reste la
# tête. En doublant le contexte, seule l'attention bouge.


# %%
def shares_of(n_layer, d_model, n_ctx, n_vocab):
    """Les opérations d'un jeton, rangées en trois postes, par votre fonction seule."""
    whole = forward_flops_per_token(n_layer, d_model, n_ctx, n_vocab)
    head = forward_flops_per_token(0, d_model, n_ctx, n_vocab)
    attention = forward_flops_per_token(n_layer, d_model, 2 * n_ctx, n_vocab) - whole
    return {"couches linéaires": whole - head - attention, "scores et mélange": attention, "tête": head}


# %% experiment="flop_shares"
@atelier.experiment(needs=[forward_flops_per_token])
def flop_shares():
    """Les trois postes de chaque modèle, à son contexte."""
    return {name: shares_of(*shape_of(model)) for name, model in counted_models.items()}


# %%
ch2.plot_shares(flop_shares())

# %% [markdown]
# Comparez les deux extrémités : la tête fait plus du cinquième d'un jeton de Colibri, et moins d'un centième d'un jeton
# de GPT-3.
# <!-- claim: the_head_vanishes -->

# %% [markdown]
# Et l'attention proprement dite, ces deux produits sans paramètres ? Tout dépend de la longueur du contexte : bougez le
# curseur.


# %% experiment="context_sweep"
@atelier.experiment(needs=[forward_flops_per_token])
def context_sweep(powers=range(6, 21)):
    """Les mêmes postes, quand le contexte va de 2⁶ à 2²⁰ jetons."""
    found = {}
    for name, model in counted_models.items():
        n_layer, d_model, _, n_vocab = shape_of(model)
        found[name] = {2**p: shares_of(n_layer, d_model, 2**p, n_vocab) for p in powers}
    return found


# %%
ch2.context_cost(context_sweep(), context=1024)

# %% [markdown]
# ??? q="context_twice"

# %% [markdown]
# ## 2.3 Le passage arrière : d'où vient le 4
#
# Apprendre, c'est refaire le chemin à l'envers pour savoir comment chaque poids influe sur la perte.

# %%
atelier.bet(
    "backward_cost",
    "Combien coûte ce passage arrière ?",
    options=("autant que le passage avant", "deux fois plus", "dix fois plus"),
)


# %% experiment="backward_counts"
@atelier.experiment()
def backward_counts():
    """Les produits d'une fenêtre de Colibri, passage avant puis passage arrière."""
    window = ch2.window(colibri, colibri.config.n_positions)
    with FlopCounterMode(display=False) as there:
        colibri(**window)
    with FlopCounterMode(display=False) as both:
        colibri(**window).logits.sum().backward()
    colibri.zero_grad(set_to_none=True)
    forward, whole = ch2.by_kind(there), ch2.by_kind(both)
    return {"avant": forward, "arrière": {kind: whole[kind] - forward[kind] for kind in whole}}


# %%
backward_found = backward_counts()
ch2.backward_table(backward_found, colibri.config.n_positions)
ratio = backward_found["arrière"]["total"] / backward_found["avant"]["total"]
atelier.settle("backward_cost", {1: "autant que le passage avant", 2: "deux fois plus"}.get(ratio, "dix fois plus"))

# %% [markdown]
# Deux fois, exactement, ligne par ligne.
# <!-- claim: backward_is_two_forwards -->
# La raison tient en deux formules. Pour un produit $Y = XW$, la règle de la chaîne demande deux gradients, et chacun
# est un produit aux mêmes trois dimensions :
#
# $$ \frac{\partial \mathcal L}{\partial W} = X^\top \frac{\partial \mathcal L}{\partial Y}, \qquad
# \frac{\partial \mathcal L}{\partial X} = \frac{\partial \mathcal L}{\partial Y}\, W^\top . $$

# %% [markdown]
# Le premier sert à corriger les poids, le second à continuer plus bas. Un paramètre coûte donc, par jeton, 2 opérations
# en avant et 4 en arrière. Si l'une des deux dérivées ne sert à personne, son produit disparaît.

# %%
atelier.bet(
    "bottom_only",
    "Trois couches l'une sur l'autre, et seule celle du bas apprend (l'entrée est une donnée). Combien de produits "
    "au passage arrière ?",
)


# %% experiment="backward_cases"
@atelier.experiment()
def backward_cases(width=32):
    """Produits, en avant et en arrière, de trois couches linéaires, selon celles qui apprennent."""
    cases = {
        "tout apprend, et il y a encore des couches en dessous": ((True, True, True), True),
        "tout apprend, l'entrée est une donnée": ((True, True, True), False),
        "seule la couche du bas apprend": ((True, False, False), False),
        "seule la couche du haut apprend": ((False, False, True), False),
        "rien n'apprend ici, mais une couche en dessous": ((False, False, False), True),
    }
    found, one = {}, 2 * width**3
    for name, (learning, below) in cases.items():
        layers = [torch.nn.Linear(width, width, bias=False, device="meta").requires_grad_(on) for on in learning]
        x = torch.empty(width, width, device="meta", requires_grad=below)
        chain = torch.nn.Sequential(*layers)
        there, both = counted(lambda: chain(x)), counted(lambda: chain(x).sum().backward())
        found[name] = there // one, (both - there) // one
    return found


# %%
cases_found = backward_cases()
ch2.cases_table(cases_found)
atelier.settle("bottom_only", cases_found["seule la couche du bas apprend"][1])

# %% [markdown]
# Retenez la troisième et la quatrième ligne : elles reviendront aux chapitres 6 à 8, quand on ne voudra plus corriger
# que quelques poids. Geler un modèle n'épargne pas tout le passage arrière, tant qu'il faut le traverser.
# <!-- claim: freezing_spares_only_a_part -->
#
# ??? q="backward_twice"

# %% [markdown]
# ### ✎ training_flops


# %% exercise="training_flops"
def training_flops(n_params: int, n_tokens: int) -> int:
    """Opérations d'un apprentissage, d'après le seul nombre de paramètres et de jetons.

    n_params : nombre N de paramètres ; n_tokens : nombre D de jetons lus, répétitions comprises
    (0 est permis).
    Rend un int, exact même au-delà de 2^53 : passage avant et passage arrière, sans recalcul des
    activations.

    Source : Kaplan et al., « Scaling Laws for Neural Language Models », 2020, § 2.1.
    """
    ### BEGIN SOLUTION
    return 6 * n_params * n_tokens
    ### END SOLUTION


# %% [markdown]
# ## 2.4 Ce que 6ND oublie
#
# La diapositive « Transformer FLOPs: The Quick Estimate » s'arrête ici : $N$ y est « the sum of size of all matrices »,
# $D$ le nombre de jetons, et $C \approx 6ND$. Mais **lesquelles de ces matrices faut-il compter ?** La table des jetons
# est lue, pas multipliée ; liée à la tête, elle sert pourtant à un produit. Les positions ne servent à
# aucun. Et l'attention multiplie des matrices qui ne sont pas des paramètres. Voici le compte exact, et quatre
# conventions que l'on rencontre.


# %% experiment="convention_counts"
@atelier.experiment(needs=[forward_flops_per_token])
def convention_counts():
    """Opérations d'un jeton d'apprentissage : compte exact (trois passages avant), et quatre conventions."""
    found = {}
    for name, model in counted_models.items():
        n_layer, d, n_ctx, n_vocab = shape_of(model)
        everything, positions = model.num_parameters(), n_ctx * d
        blocks = everything - positions - n_vocab * d
        found[name] = {
            "compte exact": 3 * forward_flops_per_token(n_layer, d, n_ctx, n_vocab),
            "6·N": 6 * everything,
            "6·N′": 6 * blocks,
            "6·N′ + 6·L·d·T (Kaplan)": 6 * blocks + 6 * n_layer * d * n_ctx,
            "6·N″ + 12·L·d·T (PaLM)": 6 * (everything - positions) + 12 * n_layer * d * n_ctx,
        }
    return found


# %%
ch2.plot_conventions(convention_counts())

# %% [markdown]
# Suivez $6N'$, sans table ni positions : la règle oublie plus du tiers du compte de Colibri, et 3 % de celui de GPT-3.
# <!-- claim: the_rule_is_for_large_models -->
# Kaplan et al. le disaient dès le départ : elle vaut quand $d$ est grand devant $T/12$, et ils ne comptaient pas la
# tête.

# %% [markdown]
# Un détail surprend. Pour le terme de l'attention, par jeton d'apprentissage :
#
# - Kaplan et al. (2020, tableau 1) comptent $2\,L\,T\,d$ en avant, donc $6\,L\,d\,T$ en tout ;
# - PaLM (Chowdhery et al., 2022, annexe B) et nanoGPT comptent $12\,L\,d\,T$.

# %%
atelier.bet(
    "who_is_wrong",
    "L'un est le double de l'autre. Qui se trompe ? Relisez votre propre formule avant de répondre.",
    options=("Kaplan", "PaLM", "aucun des deux : ils ne comptent pas le même calcul"),
)

# %%
attention_term = 3 * backward_found["avant"]["scores et mélange"] / colibri.config.n_positions
per_unit = attention_term / (colibri.config.n_layer * colibri.config.n_embd * colibri.config.n_positions)
print(f"Colibri, attention dense, compté par PyTorch : {atelier.text.number(per_unit)}·L·d·T")
atelier.settle("who_is_wrong", "aucun des deux : ils ne comptent pas le même calcul")

# %% [markdown]
# Pourquoi deux comptes ?

# %% [markdown]
# <details><summary>La réponse</summary>
#
# Vous avez compté deux produits, $QK^\top$ et le mélange, de $2\,T\,d$ opérations chacun : c'est la convention de PaLM,
# celle d'un calcul dense. Le terme de Kaplan en vaut la moitié, et se lit de deux façons : ou bien un seul des deux
# produits est compté ; ou bien les deux le sont, mais limités aux paires permises, puisqu'un jeton ne voit en moyenne
# que la moitié de la fenêtre. Leur tableau, qui appelle cette ligne « Mask », ne tranche pas.
#
# Un calcul dense fait l'autre moitié et la jette. FlashAttention-2 (Dao, 2023) saute les blocs entièrement interdits :
# son coût réel est plus près du nombre de Kaplan.
#
# </details>
#
# ??? q="what_6nd_forgets"

# %% [markdown]
# ## 2.5 Des opérations aux secondes
#
# Compter ne dit pas encore combien de temps attendre. Une machine a une **pointe** (*peak*) : ce qu'elle tient de mieux
# sur un grand produit bien rangé. Mesurons la vôtre.

# %%
atelier.bet("machine_peak", "Combien de milliards d'opérations par seconde votre machine tient-elle en float32 ?")
product_sizes = atelier.scale().pick(
    essai=(128, 512), cpu=(64, 128, 256, 512, 1024, 1536), gpu=(512, 1024, 2048, 4096, 8192)
)


def product_speeds_at(size, dtype):
    """Vitesses, en FLOP/s, de sept produits de deux matrices carrées."""
    a, b = torch.randn(2, size, size, device=atelier.device()).to(dtype)
    loops = max(1, round(2e6 / size**3))  # un petit produit est trop court pour l'horloge
    return [2 * size**3 * loops / s for s in atelier.call_seconds(lambda: [a @ b for _ in range(loops)])]


# %% experiment="product_speeds"
@atelier.experiment(full={"sizes": (64, 128, 256, 512, 1024, 1536, 2048)})
def product_speeds(sizes=product_sizes):
    """La vitesse de produits de plus en plus grands, dans les formats de cette machine."""
    found = {}
    for name, (dtype, precision) in ch2.formats().items():
        for size in sizes:
            if ch2.too_slow(found, name, size):
                break
            with ch2.precision(precision):
                found[name, size] = product_speeds_at(size, dtype)
    return found


# %%
speeds_found = product_speeds()
ch2.plot_speeds(speeds_found)
machine_peak = ch2.peak_of(speeds_found)
atelier.settle("machine_peak", machine_peak["float32"] / 1e9)

# %% [markdown]
# Les plus petits produits sont loin de la pointe : la machine passe son temps à s'y préparer, ou à attendre la mémoire.
# <!-- claim: small_products_are_far_from_the_peak -->
# C'est une première raison pour qu'un modèle n'atteigne pas la pointe. Les autres : tout ce que nous n'avons pas
# compté, et qui prend pourtant du temps (softmax, LayerNorm, optimiseur, lecture des données).

# %% [markdown]
# La part de la pointe que l'on tient vraiment, en ne comptant que les opérations **utiles** du modèle, s'appelle la
# **MFU** (*model FLOPs utilization*, Chowdhery et al., 2022) :
#
# $$ \mathrm{MFU} = \frac{\text{opérations utiles par seconde}}{\text{pointe}} . $$
#
# Un vrai pas d'apprentissage de Colibri, chronométré :

# %%
step_batch = atelier.scale().pick(essai=2, cpu=4, gpu=64)


# %% experiment="training_step"
@atelier.experiment(needs=[forward_flops_per_token])
def training_step(batch=step_batch, repeats=7):
    """Sept pas d'apprentissage, sur des jetons tirés au hasard : les durées n'en dépendent pas."""
    learner = copy.deepcopy(colibri).train()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-4)
    ids = torch.randint(0, 4096, (batch, learner.config.n_positions), device=learner.device)
    spent = {}
    for name, precision in ch2.step_formats().items():
        for i in range(repeats + 1):  # le premier pas échauffe
            with precision():
                loss, forward = ch2.timed(lambda: lm_loss(learner, ids))
            _, backward = ch2.timed(loss.backward)
            _, update = ch2.timed(optimizer.step)
            optimizer.zero_grad()
            spent[name] = [*spent.get(name, []), (forward, backward, update)] if i else []
    useful = 3 * forward_flops_per_token(*shape_of(learner)) * ids.numel()
    return {"utiles": useful, "jetons": ids.numel(), "durées": spent, "pointe": machine_peak}


# %%
backward_ratio = ch2.step_table(training_step())
print(f"Passage arrière ÷ passage avant : 2 compté, {atelier.text.number(backward_ratio, 2)} chronométré.")

# %% [markdown]
# Le compte annonçait deux ; d'où vient l'écart ? Le **profileur** de PyTorch note le temps de chaque opération :
# séparons les produits, que l'on a comptés, du reste, que l'on n'a pas compté.


# %% experiment="where_seconds_go"
@atelier.experiment()
def where_seconds_go(batch=step_batch, repeats=3):
    """Secondes d'un passage avant et d'un passage arrière, dans les produits et ailleurs, en moyenne."""
    learner = copy.deepcopy(colibri).train()
    ids = torch.randint(0, 4096, (batch, learner.config.n_positions), device=learner.device)
    lm_loss(learner, ids).backward()  # échauffe
    found = {way: {"produits": 0.0, "reste": 0.0} for way in ("avant", "arrière")}
    for _ in range(repeats):
        loss, forward = ch2.seconds_by_kind(lambda: lm_loss(learner, ids))
        _, backward = ch2.seconds_by_kind(loss.backward)
        for way, spent in (("avant", forward), ("arrière", backward)):
            for kind, seconds in spent.items():
                found[way][kind] += seconds / repeats
    return found


# %%
ch2.explain_backward(where_seconds_go())

# %% [markdown]
# ??? q="mfu_meaning"

# %% [markdown]
# ### Le journal de Colibri
#
# L'apprentissage de Colibri a tenu un journal (`assets/colibri/journal.csv`). De quoi vérifier la règle sur un cas que
# vous avez entre les mains. **Avant d'exécuter :** $N$ = 3 060 288 et $D$ = 54 468 608 ; posez la multiplication.


# %% experiment="colibri_account"
@atelier.experiment(needs=[training_flops, forward_flops_per_token])
def colibri_account(watts=30.0):
    """L'apprentissage de Colibri, compté ; watts : puissance supposée de deux cœurs de serveur et de leur mémoire."""
    recipe, _ = ch2.colibri_journal()
    n_params, n_tokens = recipe["parametres"], recipe["jetons"]
    about = {"N": n_params, "D": n_tokens, "passages": recipe["epoques"], "watts": watts}
    return about | {
        "6ND": training_flops(n_params, n_tokens),
        "compté": 3 * forward_flops_per_token(*shape_of(colibri)) * n_tokens,
        "secondes": recipe["secondes"],
        "pointe": ch2.training_peak(),
    }


# %%
account = colibri_account()
ch2.log_table(account)
ch2.plot_journal(account["N"], ch2.colibri_journal()[1])

# %% [markdown]
# Un chiffre d'énergie sans sa puissance ni sa durée ne se vérifie pas : la puissance est ici supposée, $E = P \cdot t$,
# et vous pouvez la changer.

# %% [markdown]
# La pointe du tableau est celle de la machine qui a entraîné Colibri (un Xeon d'Intel), mesurée en bfloat16 sur ses
# deux cœurs ; la vôtre n'a pas à lui ressembler : autre puce, autre format, autre pointe. Et une vitesse n'est pas
# constante : celle du journal varie, car la machine servait à d'autres en même temps.

# %% [markdown]
# ### ✎ training_days


# %% exercise="training_days"
def training_days(
    n_params: int,
    n_tokens: int,
    n_gpus: int,
    peak_flops: float,
    mfu: float,
) -> float:
    """Durée d'un apprentissage, en jours, pour C = 6ND opérations.

    n_params : paramètres ; n_tokens : jetons lus ; n_gpus : nombre de cartes ; peak_flops : pointe
    d'une carte, en FLOP/s ; mfu : part de la pointe réellement tenue, entre 0 (exclu) et 1.
    Rend un float, en jours de 24 heures.
    Lève ValueError si mfu n'est pas dans ]0, 1].

    Source : Chowdhery et al., « PaLM: Scaling Language Modeling with Pathways », 2022, § 4.1 et
    annexe B.
    """
    ### BEGIN SOLUTION
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu vaut {mfu} ; c'est une fraction, entre 0 et 1")
    flops = 6 * n_params * n_tokens
    rate = n_gpus * peak_flops * mfu
    return flops / rate / 86400
    ### END SOLUTION


# %% [markdown]
# ## 2.6 Servir : deux toits
#
# Un modèle appris sert ensuite. Au passage avant, un jeton coûte $2N$ opérations : divisez par la pointe, et vous
# aurez… presque toujours un temps bien trop court. Pour écrire **un** jeton, la machine doit aussi **lire** chaque
# poids, une fois. Combien d'octets lit-elle par seconde ?


# %%
read_sizes = atelier.scale().pick(essai=(1, 4), cpu=(1, 4, 16, 64, 256), gpu=(1, 16, 256, 2048))


# %% experiment="reading_speeds"
@atelier.experiment()
def reading_speeds(megabytes=read_sizes):
    """Octets lus par seconde : sept sommes de tenseurs de plus en plus longs, en float32."""
    found = {}
    for size in megabytes:
        x = torch.ones(size * 2**18, device=atelier.device())
        found[size] = [x.numel() * 4 / s for s in atelier.call_seconds(x.sum)]
    return found


# %%
ch2.plot_reading(reading_speeds())

# %% [markdown]
# Un tenseur qui tient dans les caches de la puce se relit plus vite qu'un grand.
# <!-- claim: large_tensors_read_slower -->
# Des poids de plusieurs centaines de mégaoctets n'y tiennent pas : c'est le **débit** (*bandwidth*) de la mémoire qui
# compte.

# %% [markdown]
# Les deux toits, maintenant. On écrit un jeton de plus à chacune des suites d'un **lot**, d'un seul passage. Posez deux
# durées : celle du calcul, si la mémoire était instantanée ; celle de la lecture, si le calcul l'était. **Que lit-on
# une seule fois pour tout le lot, et que lit-on pour chacune de ses suites ?** Le cache du chapitre 1 est du voyage.
#
# Une machine lit pendant qu'elle calcule. Combien de temps met-elle alors ? C'est le modèle du **toit** (*roofline*,
# Williams et al., 2009).

# %% [markdown]
# ### ✎ decode_seconds


# %% exercise="decode_seconds"
def decode_seconds(
    n_params: int,
    batch: int,
    n_ctx: int,
    kv_bytes_per_token: int,
    bytes_per_param: float,
    peak_flops: float,
    bandwidth: float,
) -> float:
    """Durée d'un pas de décodage : un jeton de plus pour chacune des suites d'un lot, sur le toit
    d'une machine.

    n_params : paramètres du modèle ; batch : suites du lot ; n_ctx : jetons déjà dans le cache de
    chaque suite (0 est permis) ; kv_bytes_per_token : octets de clés et de valeurs d'un jeton,
    toutes couches réunies ;
    bytes_per_param : octets d'un poids ; peak_flops : pointe, en FLOP/s ; bandwidth : débit de la
    mémoire, en octets par seconde.
    Rend un float, en secondes, pour le lot entier. La lecture et le calcul se recouvrent
    parfaitement ; les opérations propres à l'attention ne sont pas comptées, ni ce que l'on écrit
    en mémoire.

    Source : Williams et al., « Roofline », 2009 ; Pope et al., « Efficiently Scaling Transformer
    Inference », 2022.
    """
    ### BEGIN SOLUTION
    compute = 2 * n_params * batch / peak_flops
    weights = n_params * bytes_per_param
    cache = batch * n_ctx * kv_bytes_per_token
    return max(compute, (weights + cache) / bandwidth)
    ### END SOLUTION


# %% [markdown]
# La plus lente des deux décide. Pour $B$ suites de $T$ jetons :
#
# $$ \text{durée} = \max\left(\frac{2\,N\,B}{\text{pointe}},\ \frac{N \cdot \text{octets par poids} + B\,T \cdot \text{octets de cache par jeton}}{\text{débit}}\right). $$
#
# Les poids se partagent, les caches non.

# %% [markdown]
# Votre prévision contre une vraie machine. Voici les matrices de GPT-2 small, aux valeurs tirées au hasard (le temps
# n'en dépend pas), et de vrais produits : un passage lit toutes les matrices, pour 1, 2, 4… jetons à la fois. Peu
# importe d'où viennent ces jetons : 64 suites qui écrivent chacune un jeton, ou une seule suite qui lit d'un coup 64
# jetons de son amorce (le **préremplissage**, *prefill*) font les mêmes produits.

# %%
gpt2_weights = ch2.gpt2_matrices("small", **atelier.scale().pick(essai={"n_layer": 1, "head": False}, cpu={}, gpu={}))
n_weights = sum(w.numel() for w in gpt2_weights)
together = atelier.scale().pick(essai=(1, 16), cpu=(1, 4, 16, 64), gpu=(1, 4, 16, 64, 256, 1024))


def one_pass(tokens):
    """Les produits que font `tokens` jetons dans toutes les matrices."""
    x = {width: torch.randn(tokens, width, device=atelier.device()) for width in {w.shape[1] for w in gpt2_weights}}
    return lambda: [x[w.shape[1]] @ w.T for w in gpt2_weights]


def two_roofs():
    """La pointe en float32 et le débit de cette machine, mesurés sur de grands tenseurs."""
    speeds = product_speeds_at(max(product_sizes), torch.float32)
    large = gpt2_weights[-1]
    reading = [4 * large.numel() / s for s in atelier.call_seconds(large.sum)]
    return {"pointe": statistics.median(speeds), "débit": statistics.median(reading)}


# %%
atelier.bet("balance", "À partir de combien de jetons traités ensemble le calcul dure-t-il plus que la lecture ?")


# %% experiment="roofline"
@atelier.experiment(needs=[decode_seconds], full={"tokens": (1, 2, 4, 8, 16, 32, 64)})
def roofline(tokens=together):
    """Durées d'un passage dans les matrices de GPT-2 small, mesurées, et prédites par votre fonction."""
    with ch2.one_thread():  # un seul fil : deux fils s'attendent dès que la machine est occupée
        found = two_roofs() | {"octets par poids": 4, "paramètres": n_weights, "mesuré": {}, "prédit": {}}
        for n in tokens:
            found["mesuré"][n] = atelier.call_seconds(one_pass(n), warmup=1)
            found["prédit"][n] = decode_seconds(n_weights, n, 0, 0, 4, found["pointe"], found["débit"])
    return found


# %%
roof = roofline()
ch2.plot_roofline(roof)
atelier.settle("balance", ch2.balance_of(roof))

# %% [markdown]
# Le toit est une borne : aucune durée n'est nettement plus courte que la prévision. Avec un seul jeton, la machine y
# est presque : elle lit. Entre les deux régimes, elle met plus de temps que prévu : le toit suppose que l'on tient la
# pointe, et quelques lignes n'y suffisent pas. Mais l'essentiel demeure : soixante-quatre jetons ensemble coûtent bien
# moins que soixante-quatre fois un seul.
# <!-- claim: the_roof_is_a_bound -->

# %% [markdown]
# **Et sur une A100 de 80 Go ?** Sa fiche annonce 312 TFLOP/s en bfloat16 et 2 039 Go/s. Cherchez le lot à partir
# duquel le calcul l'emporte, sans machine : deux octets par poids.
#
# <details><summary>La réponse</summary>
#
# Les deux durées sont égales quand $2NB/\text{pointe} = 2N/\text{débit}$, soit
# $B = \text{pointe}/\text{débit} \approx 153$ : la taille du modèle n'y est pour rien. Avec une seule suite à la fois,
# cette carte attend la mémoire plus de 99 % du temps.
#
# </details>
#
# ??? q="fewer_bits"

# %% [markdown]
# Reste le cache. Chaque suite a le sien, que personne d'autre ne lit : grossir le lot partage la lecture des poids,
# jamais celle des caches. Mesurons un pas de décodage complet aux formes de GPT-2 small, attention comprise.


# %%
gpt2_blocks = len(gpt2_weights) // 4
cache_contexts = atelier.scale().pick(essai=(16,), cpu=(64, 1024), gpu=(64, 1024))


def one_decoding_step(batch, context):
    """Un jeton de plus pour chaque suite : les mêmes matrices, et l'attention sur un vrai cache, bloc par bloc."""
    caches = [torch.ones(2, batch, 12, context, 64, device=atelier.device()) for _ in range(gpt2_blocks)]
    query = torch.randn(batch, 12, 1, 64, device=atelier.device())
    matrices = one_pass(batch)

    def run():
        matrices()
        for keys, values in caches:
            torch.nn.functional.scaled_dot_product_attention(query, keys, values)

    return run


# %% experiment="decode_with_cache"
@atelier.experiment(needs=[decode_seconds])
def decode_with_cache(batches=(1, 8), contexts=cache_contexts):
    """Durées d'un pas de décodage selon le lot et le contexte, mesurées, et prédites par votre fonction."""
    found, kv_bytes = {"mesuré": {}, "prédit": {}}, 2 * gpt2_blocks * 768 * 4
    with ch2.one_thread():
        roofs = two_roofs()
        for b, n_ctx in itertools.product(batches, contexts):
            found["mesuré"][b, n_ctx] = atelier.call_seconds(one_decoding_step(b, n_ctx), warmup=1)
            predicted = decode_seconds(n_weights, b, n_ctx, kv_bytes, 4, roofs["pointe"], roofs["débit"])
            found["prédit"][b, n_ctx] = predicted
    return found


# %%
ch2.cache_table(decode_with_cache())

# %% [markdown]
# Avec huit suites et mille jetons de contexte, lire les caches coûte plus que lire les poids.
# <!-- claim: caches_outweigh_weights -->

# %% [markdown]
# ## 2.7 La mémoire qu'il faut pour apprendre
#
# Les opérations ne sont pas tout : avant d'aller vite, il faut tenir en mémoire. Combien d'octets **par paramètre**
# faut-il pour un pas d'AdamW, sans compter ce qui dépend du texte ?

# %%
atelier.bet("training_memory", "Combien d'octets par paramètre, en float32, pour apprendre avec AdamW ?")


# %% experiment="training_memory"
@atelier.experiment()
def training_memory():
    """Octets des poids, des gradients et de l'état d'AdamW, après un pas de Colibri."""
    learner = copy.deepcopy(colibri)
    optimizer = torch.optim.AdamW(learner.parameters())
    lm_loss(learner, torch.zeros(1, 16, dtype=torch.long)).backward()
    optimizer.step()
    weights = list(learner.parameters())
    states = [t for p in weights for t in optimizer.state[p].values()]
    tensors = {"poids": weights, "gradients": [p.grad for p in weights], "AdamW, deux moyennes": states}
    sizes = {kind: sum(t.numel() * t.element_size() for t in some) for kind, some in tensors.items()}
    return {"paramètres": learner.num_parameters(), "octets": sizes}


# %%
memory = training_memory()
ch2.memory_table(memory)
atelier.settle("training_memory", sum(memory["octets"].values()) / memory["paramètres"])

# %% [markdown]
# Seize octets par paramètre, quatre fois le modèle.
# <!-- claim: sixteen_bytes_a_parameter -->
# En précision mixte, le compte est le même : deux octets de poids et deux de gradients, mais AdamW garde douze octets
# en float32 (une copie des poids et deux moyennes). Les auteurs de ZeRO (Rajbhandari et al., 2020, § 3.1) en tirent
# qu'un GPT-2 de 1,5 milliard de paramètres demande au moins 24 Go, et proposent de les répartir entre les cartes. Pour
# un modèle de 70 milliards de paramètres : plus de mille gigaoctets, avant d'avoir lu un mot.
#
# S'y ajoute tout ce que le passage avant garde pour le passage arrière : les **activations**. PyTorch permet de
# regarder passer chaque tenseur gardé.


# %%
def saved_bytes(model, ids):
    """Octets que le passage avant garde pour l'autre, paramètres non compris ; chaque tenseur compte une fois."""
    own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = lm_loss(model, ids)
    return sum(kept.values()) * bool(loss.requires_grad)


# %%
atelier.bet(
    "longer_context",
    "On double le contexte, à nombre de jetons égal : que deviennent les activations, l'attention étant dense ?",
    options=("elles ne changent pas", "elles augmentent", "elles diminuent"),
)


# %% experiment="saved_activations"
@atelier.experiment()
def saved_activations(batches=(1, 4), contexts=(32, 64, 128, 256)):
    """Octets gardés par le passage avant de Colibri, selon le lot, le contexte et la façon d'écrire l'attention."""
    found = {}
    for attention in ("eager", "sdpa"):
        learner = atelier.load_model("colibri", attention=attention, on="cpu").train()
        for b in batches:
            for n_ctx in contexts:
                found[attention, b, n_ctx] = saved_bytes(learner, torch.zeros(b, n_ctx, dtype=torch.long))
    return found


# %%
saved = saved_activations()
ch2.plot_saved(saved)
grown = saved["eager", 4, 256] / 256 - saved["eager", 4, 128] / 128
atelier.settle("longer_context", "elles augmentent" if grown > 0 else "elles ne changent pas")

# %% [markdown]
# Deux fois plus de suites, deux fois plus d'octets. Mais l'attention « eager » garde ses tables de scores, qui
# grandissent comme le carré du contexte ; `sdpa`, qui ne les garde pas, tient la même place par jeton à tout contexte.
# <!-- claim: eager_attention_keeps_its_tables -->
# Korthikanti et al. (2022, équation 1) les comptent pour un bloc, en 16 bits et dropout compris : dans nos lettres,
# $B\,T\,d\,(34 + 5\,H\,T/d)$ octets, où l'on reconnaît le terme en $T^2$, celui des tables. Ne pas garder, c'est
# recalculer.

# %% [markdown]
# ## 2.8 Un budget, deux façons de le dépenser
#
# Vous avez un budget $C$. Un plus gros modèle, ou plus de texte ? Les deux se paient dans la même monnaie : à $C$ fixé,
# $N$ et $D$ sont liés par $6ND = C$. La diapositive le dit : « increasing D means decreasing N (and vice versa) ».

# %% [markdown]
# ### ✎ tokens_for_budget


# %% exercise="tokens_for_budget"
def tokens_for_budget(compute: float, n_params: int) -> float:
    """Nombre de jetons qu'un budget de calcul permet de faire lire à un modèle.

    compute : budget C, en FLOP (0 est permis) ; n_params : nombre N de paramètres, au moins 1.
    Rend un float, sans arrondir.

    Source : Kaplan et al., « Scaling Laws for Neural Language Models », 2020, § 2.1.
    """
    ### BEGIN SOLUTION
    return compute / (6 * n_params)
    ### END SOLUTION


# %% [markdown]
# Sur deux axes logarithmiques, l'hyperbole $ND = C/6$ devient une droite. Bougez le budget, et regardez où se sont
# posés quelques modèles connus.


# %% experiment="budget_line"
@atelier.experiment(needs=[tokens_for_budget])
def budget_line(budget=3.14e23):
    """Les jetons que le budget de GPT-3 paie à des modèles de toutes les tailles."""
    sizes = [round(10 ** (6 + 7 * i / 60)) for i in range(61)]
    return {"budget": budget, "tailles": sizes, "jetons": [tokens_for_budget(budget, n) for n in sizes]}


# %%
ch2.budget_map(budget_line(), tokens_for_budget)

# %% [markdown]
# **Lesquels ont choisi la taille, lesquels le texte ?**

# %% [markdown]
# GPT-3 et Chinchilla ont été entraînés à des budgets voisins (un facteur 2), et très différemment. Lequel des deux
# avait raison ?
#
# Hoffmann et al. (2022) ont entraîné plus de 400 modèles pour le savoir. Leur réponse : quand le budget grandit, $N$ et
# $D$ doivent grandir **du même facteur**, et à l'optimum chaque paramètre a droit à environ **20 jetons**. Ils ont
# entraîné Chinchilla, 70 milliards de paramètres et 1 400 milliards de jetons, avec le budget de Gopher (280 milliards,
# 300 milliards de jetons) : Chinchilla fait mieux.

# %% [markdown]
# ### ✎ compute_optimal


# %% exercise="compute_optimal"
def compute_optimal(compute: float, tokens_per_param: float = 20.0) -> tuple[float, float]:
    """Taille et nombre de jetons qui épuisent un budget, à rapport fixé.

    compute : budget C, en FLOP ; tokens_per_param : nombre de jetons par paramètre, 20 dans la
    règle de Chinchilla.
    Rend (N, D), deux float sans arrondi : leur coût, par la règle de ce chapitre, est exactement C.

    Source : Hoffmann et al., « Training Compute-Optimal Large Language Models », 2022, § 3.4 et
    tableau 3.
    """
    ### BEGIN SOLUTION
    n_params = math.sqrt(compute / (6 * tokens_per_param))
    return n_params, tokens_per_param * n_params
    ### END SOLUTION


# %% experiment="rule_of_twenty"
@atelier.experiment(needs=[compute_optimal])
def rule_of_twenty(names=("Colibri", "GPT-3", "Gopher", "Chinchilla", "Llama 3 8B", "Llama 3.1 405B")):
    """Le budget de quelques modèles, et ce que la règle en aurait fait."""
    runs = ch2.known_runs()
    budgets = {name: 6 * runs[name].params * runs[name].tokens for name in names}
    return {name: (compute, *compute_optimal(compute)) for name, compute in budgets.items()}


# %%
ch2.optimal_table(rule_of_twenty())

# %% [markdown]
# ??? q="hundred_times"

# %% [markdown]
# ### Un mélange d'experts : quel N ?
#
# DeepSeek-V3 (2024) a 671 milliards de paramètres, mais chaque jeton n'en rencontre que 37 : dans presque tous ses
# blocs, un aiguillage choisit quelques **experts** parmi beaucoup. Il a lu 14 800 milliards de jetons, et tout son
# apprentissage a pris 2,788 millions d'heures de H800, une H100 aux liaisons bridées.

# %%
atelier.bet("which_n", "Quel N mettre dans 6ND ?", options=("les paramètres en tout", "les paramètres actifs"))


# %% experiment="mixture_of_experts"
@atelier.experiment(needs=[training_flops])
def mixture_of_experts(peak=989e12, hours=2.788e6):
    """6ND et la vitesse par carte qu'il suppose, selon le N compté ; peak : pointe d'une H100 en bfloat16."""
    found = {}
    for counted_as, n in {"les paramètres en tout": 671 * 10**9, "les paramètres actifs": 37 * 10**9}.items():
        flops = training_flops(n, 14_800 * 10**9)
        speed = flops / (hours * 3600)
        found[counted_as] = {"N": n, "6ND": flops, "vitesse": speed, "MFU": speed / peak}
    return found


# %%
mixture = mixture_of_experts()
ch2.mixture_table(mixture)
atelier.settle("which_n", next(name for name, row in mixture.items() if row["MFU"] < 1))

# %% [markdown]
# Avec tous les paramètres, chaque carte aurait tenu six fois sa pointe en bfloat16, et encore trois fois celle de FP8,
# deux fois plus haute, dont DeepSeek s'est servi : c'est impossible. Avec les actifs, c'est un tiers de la pointe.
# <!-- claim: only_active_parameters_fit -->
# Les opérations suivent donc les paramètres **actifs** ; la mémoire, elle, doit les contenir **tous**, et c'est entre
# les deux points de la carte que se joue l'intérêt du mélange.

# %% [markdown]
# ### Ce qui a changé depuis
#
# Chinchilla répond à **une** question : comment dépenser un budget d'apprentissage. Or un modèle qui sert produit des
# jetons tous les jours. On lit souvent que, sur toute une vie,
#
# $$ C_{\text{vie}} \approx 6\,N\,D + 2\,N\,D_{\text{servis}} . $$
#
# À qualité égale, un modèle plus petit que l'optimum doit lire plus, mais coûte moins ensuite. C'est l'argument de
# Sardana et al. (2024). Mais cette formule compte des opérations, et vous venez de voir qu'en écrivant un jeton on
# attend d'ordinaire la **mémoire**. Refaisons le compte en temps de carte, avec vos deux fonctions.


# %% experiment="lifetime"
@atelier.experiment(needs=[training_days, decode_seconds])
def lifetime(served=1e12, batches=(256, 16, 1), mfu=0.4):
    """Jours d'une A100 pour apprendre puis écrire mille milliards de jetons, selon la taille, à perte égale."""
    target = ch2.chinchilla_loss(13e9, 260e9)
    found = {use: [] for use in ("rien à servir", "2N par jeton servi", *(f"par lots de {b}" for b in batches))}
    for n in (2.2e9 * 1.03**i for i in range(130)):
        tokens = ch2.tokens_for_loss(n, target)
        if tokens > 1e14:
            continue
        learning = training_days(n, tokens, 1, ch2.A100_PEAK, mfu)
        writing = [0, 2 * n * served / ch2.A100_PEAK]
        writing += [served / b * decode_seconds(n, b, 0, 0, 2, ch2.A100_PEAK, ch2.A100_BANDWIDTH) for b in batches]
        for use, seconds in zip(found, writing, strict=True):
            found[use].append((n, tokens, learning + seconds / 86400))
    return found


# %%
ch2.plot_lifetime(lifetime())

# %% [markdown]
# Plus le lot est petit, plus servir pèse, et plus le meilleur modèle est petit. Par lots de 256, le calcul décide, et
# l'on retrouve $2N$ par jeton ; un par un, servir coûte plus de cent fois plus.
# <!-- claim: small_batches_want_small_models -->
# Une formule en FLOP n'est donc juste que pour qui remplit ses lots ; encore avons-nous laissé de côté le cache, et les
# amorces, qui, elles, se lisent d'un bloc.
#
# Les courbes reposent sur la loi de Chinchilla, $L(N, D) = E + A/N^\alpha + B/D^\beta$, avec les constantes réestimées
# par Besiroglu et al. (2024), qui ont montré que celles du premier article étaient mal estimées.
#
# ??? q="past_optimum"

# %% [markdown]
# ## 2.9 Une vraie petite étude
#
# Les lois que l'on vient de citer ont été tirées de centaines d'apprentissages. Peut-on en voir quelque chose avec deux
# cœurs ? Une perte, ici, est celle du chapitre 1 : en **nats** par jeton, et la perplexité est son exponentielle.
#
# Voici des GPT-2 minuscules, au découpage de Colibri. Ils ont tous le même budget : les petits lisent beaucoup, les
# gros lisent peu. Le nombre de pas est ce que le budget permet, compté par votre passage avant, et non par 6ND. (Pour
# aller vite, la cellule n'apprend que le plus petit et le plus gros des trois.)

# %%
study_sizes = ((1, 8), (1, 16), (2, 32))  # (blocs, dimension)
study_budget = atelier.scale().pick(essai=1e9, cpu=2e10, gpu=2e10)
study_text, validation_tokens = atelier.corpus_tokens("a_train"), atelier.scale().pick(essai=512, cpu=8192, gpu=8192)
atelier.bet("small_study", "Avec 2·10¹⁰ opérations, quelle taille l'emporte ?", [ch2.size_text(s) for s in study_sizes])


# %%
def train_small(n_layer, d_model, compute, seed=0):
    """Un GPT-2 neuf, entraîné jusqu'à épuiser `compute` opérations, puis noté sur la validation."""
    per_token = 3 * forward_flops_per_token(n_layer, d_model, ch2.CONTEXT, ch2.VOCABULARY)
    steps = max(2, round(compute / per_token / (ch2.BATCH * ch2.CONTEXT)))
    model = ch2.study_model(n_layer, d_model, seed)
    batches = atelier.windows(study_text, ch2.BATCH, ch2.CONTEXT, seed)
    with ch2.one_thread():  # de si petits produits ne se partagent pas
        atelier.train(model, batches, steps, lr=0.256 / d_model, warmup=max(2, min(100, steps // 10)))
        found = atelier.evaluate_perplexity(model, max_tokens=validation_tokens, context=ch2.CONTEXT, stride=64)
    return {"N": model.num_parameters(), "D": steps * ch2.BATCH * ch2.CONTEXT, "perte": math.log(found.perplexity)}


# %% experiment="small_study"
@atelier.experiment(needs=[forward_flops_per_token], full={"sizes": study_sizes, "seeds": range(5)})
def small_study(sizes=study_sizes[::2], compute=study_budget, seeds=(0,)):
    """Plusieurs tailles au même budget, à chaque graine."""
    return {(layers, d, seed): train_small(layers, d, compute, seed) for layers, d in sizes for seed in seeds}


# %%
atelier.settle("small_study", ch2.plot_small_study(small_study()))

# %% [markdown]
# Avec si peu de calcul, le plus petit l'emporte sur le plus gros, pour toutes les graines de l'auteur.
# <!-- claim: the_small_one_wins_when_compute_is_scarce -->
# Ajoutez une taille de votre choix : dites **d'abord** où vous l'attendez, puis changez l'appel en
# `small_study(sizes=(*study_sizes, (2, 24)))`.

# %% [markdown]
# L'auteur a fait la même chose à trois budgets plus grands, de vingt-cinq à trois cents fois le vôtre, sur le grand
# texte dont vient l'extrait : trois quarts d'heure de calcul, dont le journal est `assets/etude/points.csv`. Chaque
# trait est un budget constant (*isoFLOP*). À gauche, le modèle manque de paramètres ; à droite, il manque de jetons. Où
# est le creux ? On fait passer une parabole par le meilleur point et ses deux voisins.

# %%
study = [ch2.study_points(series) for series in ("c1", "c2", "c3")]


def valley(points, size_of):
    """La taille au fond de la parabole, en log N, par le meilleur point et ses deux voisins ; None s'il est au bord."""
    points = sorted(points, key=size_of)
    best = min(range(len(points)), key=lambda i: points[i]["loss"])
    if best in (0, len(points) - 1):
        return None
    (x0, y0), (x1, y1), (x2, y2) = [(math.log(size_of(p)), p["loss"]) for p in points[best - 1 : best + 2]]
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    return math.exp((x0 + x1) / 2 - left * (x2 - x0) / (2 * (right - left)))


ch2.plot_isoflops(study, [valley(points, lambda p: p["params"]) for points in study])

# %% [markdown]
# Le creux est le bon partage **pour cette recette** et ce budget ; plus le budget est grand, plus il est à droite.
# <!-- claim: the_valley_moves_right -->
#
# ??? q="isoflop_right"

# %% [markdown]
# Reste à savoir comment la meilleure perte descend. Kaplan et al. (2020) proposent une **loi de puissance** :
#
# $$ \text{perte} \approx a \cdot C^{-b} . $$
#
# Elle est une droite quand on prend le logarithme des deux axes, et une droite s'ajuste par les moindres carrés.

# %% [markdown]
# ### ✎ fit_power_law


# %% exercise="fit_power_law"
def fit_power_law(compute: torch.Tensor, loss: torch.Tensor) -> tuple[float, float]:
    """Loi de puissance loss ≈ a·compute^(−b), par les moindres carrés entre logarithmes.

    compute : (n,) flottants, dans un ordre quelconque ; loss : (n,), de même.
    Rend (a, b), deux float ; b est positif quand la perte baisse. Les écarts que l'on rend les plus
    petits sont ceux des pertes.
    Lève ValueError s'il y a moins de deux points, ou si une valeur est négative ou nulle.

    Source : Kaplan et al., « Scaling Laws for Neural Language Models », 2020, § 1.2 et
    équation (1.3).
    """
    ### BEGIN SOLUTION
    if len(compute) < 2 or (compute <= 0).any() or (loss <= 0).any():
        raise ValueError("il faut au moins deux points, strictement positifs")
    x, y = compute.double().log(), loss.double().log()
    dx, dy = x - x.mean(), y - y.mean()
    slope = (dx * dy).sum() / (dx * dx).sum()
    intercept = (y.mean() - slope * x.mean()).item()
    return math.exp(intercept), -slope.item()
    ### END SOLUTION


# %% [markdown]
# D'abord une épreuve honnête : la loi est ajustée sans le plus grand budget, puis on regarde si elle le prédit.
# Ensuite, on lui donne les trois, et on l'envoie beaucoup plus loin, jusqu'à Colibri.

# %%
atelier.bet(
    "law_reach",
    "Colibri a dépensé près de deux cents fois le plus grand de ces budgets, et d'une autre recette. Sa perte sera…",
    options=("au-dessus de la loi", "sur la loi, à 0,1 nat près", "au-dessous de la loi"),
)


# %% experiment="power_law"
@atelier.experiment(needs=[fit_power_law])
def power_law():
    """La loi par le meilleur point de chaque budget, sans le dernier puis avec lui, et ce qu'elle dit des autres."""
    bests = [min(points, key=lambda p: p["loss"]) for points in study]
    compute = torch.tensor([p["flops"] for p in bests], dtype=torch.float64)
    loss = torch.tensor([p["loss"] for p in bests], dtype=torch.float64)
    before, after = fit_power_law(compute[:-1], loss[:-1]), fit_power_law(compute, loss)
    asked = [(f"meilleur, budget {i}", p, after) for i, p in enumerate(bests, 1)]
    asked.append(("meilleur, budget 3, tenu à l'écart", bests[-1], before))
    asked.append(("Colibri, autre recette", ch2.study_recipe()["colibri"], after))
    points = {name: {"C": p["flops"], "perte": p["loss"], "prédite": a * p["flops"] ** -b} for name, p, (a, b) in asked}
    return {"sans": before, "avec": after, "points": points}


# %%
law = power_law()
ch2.plot_power_law(law, study)
far = law["points"]["Colibri, autre recette"]
surprise = far["perte"] - far["prédite"]
where = "au-dessus de la loi" if surprise > 0.1 else "au-dessous de la loi"
atelier.settle("law_reach", where if abs(surprise) > 0.1 else "sur la loi, à 0,1 nat près")

# %% [markdown]
# La loi prédit le budget qu'elle n'a pas vu, trois fois et demie plus grand, à moins de 0,1 nat ; elle manque Colibri
# de plusieurs dixièmes.
# <!-- claim: the_law_holds_near_and_misses_far -->
# Une droite par si peu de points passe forcément près d'eux : ce n'est pas une preuve. Colibri a été appris avec un
# autre optimiseur, un autre contexte et un autre plan : changer de recette change la droite.

# %% [markdown]
# **Pourquoi cette loi n'a-t-elle pas de plancher, alors que $L(N, D)$, plus haut, en avait un, $E$ ?**
#
# <details><summary>La réponse</summary>
#
# $E$ est la perte qu'il resterait à un modèle infini qui aurait lu un texte infini : ce que le texte a d'imprévisible.
# Une loi de puissance seule promet zéro, ce qui ne peut pas être vrai jusqu'au bout. Kaplan et al. n'en mettent pas :
# loin du plancher, une droite suffit à décrire les points. Près de lui, elle devient trop optimiste.
#
# </details>

# %% [markdown]
# ### Le même creux, deux exposants
#
# Une dernière question à ces courbes, et c'est la plus instructive : **comment la bonne taille grandit-elle avec le
# budget ?** Votre `fit_power_law` y répond aussi, appliquée aux creux. Hoffmann et al. trouvent $N \propto C^{0{,}46}$
# à $C^{0{,}50}$, Kaplan et al. $C^{0{,}73}$. Mais les premiers comptent tous les paramètres, les seconds laissent la
# table et les positions. Prenez **les mêmes apprentissages** et comptez $N$ des deux façons.

# %%
atelier.bet("own_exponent", "Sans table ni positions, quel exposant donneront nos creux ?")
conventions = {
    "tous les paramètres": lambda p: p["params"],
    "hors table et positions": lambda p: p["params"] - (ch2.VOCABULARY + ch2.CONTEXT) * p["d_model"],
}


def exponent(curves, size_of):
    """L'exposant e de « taille du creux ∝ C puissance e » ; None si une courbe n'a plus de creux."""
    valleys = [valley(points, size_of) for points in curves]
    if None in valleys:
        return None
    budgets = torch.tensor([ch2.nominal(points) for points in curves], dtype=torch.float64)
    return -fit_power_law(budgets, torch.tensor(valleys, dtype=torch.float64))[1]


# %% [markdown]
# Et l'incertitude ? Au plus petit budget, trois tailles ont été apprises à trois graines : leurs pertes ont un
# écart-type. On retire alors au sort toutes les pertes, avec cet écart, et l'on recommence tout, quelques centaines de
# fois (un *bootstrap* paramétrique).

# %%
again = ch2.study_points("graines")
families = [[p["loss"] for p in (*study[0], *again) if p["params"] == n] for n in {p["params"] for p in again}]
seed_spread = math.sqrt(sum(torch.tensor(f).var().item() for f in families) / len(families))


# %% experiment="two_conventions"
@atelier.experiment(needs=[fit_power_law], full={"draws": 2000})
def two_conventions(draws=200):
    """L'exposant de la taille du creux, selon ce que compte N ; puis les mêmes, les pertes retirées au sort."""
    noise = torch.Generator().manual_seed(0)
    found = {name: {"exposant": exponent(study, size_of), "tirages": []} for name, size_of in conventions.items()}
    for _ in range(draws):
        shaken = []
        for points in study:
            moves = (seed_spread * torch.randn(len(points), generator=noise)).tolist()
            shaken.append([p | {"loss": p["loss"] + move} for p, move in zip(points, moves, strict=True)])
        for name, size_of in conventions.items():
            found[name]["tirages"].append(exponent(shaken, size_of))
    return found


# %%
exponents = two_conventions()
ch2.plot_exponents(exponents)
atelier.settle("own_exponent", exponents["hors table et positions"]["exposant"])

# %% [markdown]
# Les mêmes points donnent deux exposants, du simple au double, et leurs intervalles ne se touchent pas.
# <!-- claim: one_study_two_exponents -->
# Aux creux de ces petits modèles, la table et les positions font de 70 à 95 % des paramètres.
# <!-- claim: the_table_is_most_of_a_small_model -->
# Comparer notre 0,47 au 0,73 de Kaplan, ou y voir une confirmation de Hoffmann, serait comparer deux comptes
# différents. C'est ce qu'ont montré Pearce et Song (2024) : une grande part du désaccord entre Kaplan et Chinchilla
# vient de là, et de ce que les modèles de Kaplan étaient petits. (Porian et al., 2024, l'attribuent au coût de la tête,
# à la durée de l'échauffement et à des réglages de l'optimiseur qui devraient suivre la taille.)

# %% [markdown]
# Restent nos propres réserves : le taux d'apprentissage n'a été cherché que sur trois largeurs, au plus petit budget,
# et l'écart entre graines n'est connu que là.

# %% [markdown]
# ### Pour aller plus loin : la loi de Chinchilla, ajustée sur nos points
#
# $L(N, D) = E + A/N^\alpha + B/D^\beta$ a cinq constantes ; nous avons dix-sept apprentissages. Comme Hoffmann et al.
# (2022, § 3.3), la loi est ajustée sur le logarithme de la perte avec un coût de **Huber**, sourd aux points aberrants,
# depuis plusieurs départs ; puis on retire au sort les points eux-mêmes, pour savoir ce que valent les constantes.

# %%
every_point = [p for points in study for p in points]
log_n, log_d, log_loss = (
    torch.tensor([p[k] for p in every_point], dtype=torch.float64).log() for k in ("params", "tokens", "loss")
)
exponents_tried = [(e, alpha, beta) for e in (0.0, 1.0) for alpha in (0.3, 0.6) for beta in (0.3, 0.6)]
starts = torch.tensor([(0.0, 0.0, *tried) for tried in exponents_tried], dtype=torch.float64)


def log_law(theta, n, d):
    """log L(N, D) pour des constantes (log A, log B, log E, α, β), sur le dernier axe de theta."""
    a, b, e, alpha, beta = theta[..., None].unbind(-2)
    centered = a - alpha * (n - log_n.mean()), b - beta * (d - log_d.mean()), e.expand_as(alpha * n)
    return torch.logsumexp(torch.stack(centered), 0)


# %% experiment="chinchilla_fit"
@atelier.experiment(full={"draws": 500})
def chinchilla_fit(draws=100, steps=1000):
    """Les cinq constantes, puis les mêmes sur des points retirés au sort, toutes à la fois, depuis tous les départs."""
    some = torch.randint(len(every_point), (draws + 1, 1, len(every_point)), generator=torch.Generator().manual_seed(0))
    some[0] = torch.arange(len(every_point))  # d'abord les points tels quels
    theta = starts.expand(draws + 1, -1, -1).clone().requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=0.05)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        said, seen = log_law(theta, log_n[some], log_d[some]), log_loss[some].expand(-1, len(starts), -1)
        cost = torch.nn.functional.huber_loss(said, seen, delta=1e-3, reduction="none").sum(-1)
        optimizer.zero_grad()
        cost.sum().backward()
        optimizer.step()
        plan.step()
    best = theta.detach()[torch.arange(draws + 1), cost.argmin(1)]
    found = {"E": best[:, 2].exp(), "α": best[:, 3], "β": best[:, 4], "exposant de N": best[:, 4] / best[:, 3:].sum(1)}
    return {"loi": {k: v[0].item() for k, v in found.items()}, "tirages": {k: v[1:].tolist() for k, v in found.items()}}


# %%
ch2.law_table(chinchilla_fit())

# %% [markdown]
# Les intervalles sont immenses : l'exposant qui s'en déduit, $\beta/(\alpha + \beta)$, pourrait être celui de Hoffmann
# comme celui de Kaplan. Dix-sept points ne suffisent pas à cinq constantes.
# <!-- claim: seventeen_points_are_not_enough -->
# Il en fallut plus de deux cents à Besiroglu et al. pour montrer que celles de Chinchilla étaient mal estimées.

# %% [markdown]
# ## 2.10 GPT-3, en entier
#
# Vous avez tous les outils. Prenons GPT-3 (Brown et al., 2020) : 175 milliards de paramètres, 300 milliards de jetons ;
# et 1 024 cartes A100, dont la pointe est de 312 TFLOP/s en bfloat16 (fiche de NVIDIA). **Posez-le avant de lire :**
# combien d'opérations, combien de jours à 40 % de la pointe, combien d'argent à 2 dollars l'heure de carte ?


# %% experiment="gpt3_bill"
@atelier.experiment(needs=[training_flops, forward_flops_per_token, training_days])
def gpt3_bill(cards=1024, mfu=0.4, price=2.0, watts=400.0, room=1.1):
    """La facture de GPT-3 ; watts par carte, et room pour la salle (power usage effectiveness) : valeurs de LLaMA."""
    n, d = ch2.GPT3_PARAMS, ch2.GPT3_TOKENS
    recipe, _ = ch2.colibri_journal()
    colibri_speed = 3 * forward_flops_per_token(*shape_of(colibri)) * recipe["jetons"] / recipe["secondes"]
    return {
        **{"cartes": cards, "mfu": mfu, "dollars l'heure": price, "watts": watts, "salle": room},
        "6ND": training_flops(n, d),
        "compté": 3 * forward_flops_per_token(*shape_of(counted_models["GPT-3"])) * d,
        "jours": training_days(n, d, cards, ch2.A100_PEAK, mfu),
        "ans, journal": training_days(n, d, 1, colibri_speed, 1.0) / 365.25,
        "ans, pointe": training_days(n, d, 1, ch2.training_peak(), 1.0) / 365.25,
    }


# %%
bill = gpt3_bill()
ch2.bill_table(bill)
atelier.settle("gpt3_years", bill["ans, journal"])

# %% [markdown]
# Un point de comparaison : Narayanan et al. (2021, § 5.1) prévoyaient **34 jours** pour ce même cas, à 140 TFLOP/s par
# carte, soit 45 % de la pointe. Leur formule compte $8ND$ et non $6ND$ : pour tenir en mémoire, ils recalculent les
# activations, c'est-à-dire un passage avant de plus. Ces 45 % sont une utilisation du **matériel** (HFU) ; en ne
# gardant que les opérations utiles, la MFU n'est que de 34 %.
# <!-- claim: narayanan_in_our_units -->
#
# Quant à l'énergie du vrai GPT-3, Patterson et al. (2021, tableau 4) l'estiment à 1 287 MWh, sur des V100 : quatre fois
# le nombre du tableau. Une autre carte, une autre utilisation, et les mêmes opérations.
# <!-- claim: patterson_is_four_times_ours -->
# Les deux dernières lignes répondent au pari du début, à la vitesse que Colibri a vraiment tenue, et à celle qu'il
# n'a jamais tenue.

# %% [markdown]
# Bougez les hypothèses. Laquelle pèse sur la durée et non sur le prix ?

# %%
ch2.bill_explorer(bill)

# %% [markdown]
# ## 2.11 Ce que vous savez maintenant
#
# Un produit $(m \times k)(k \times n)$ coûte $2mkn$. Un jeton coûte en avant un peu plus de deux opérations par
# paramètre, le double en arrière ; d'où 6, à l'attention et à la tête près, et vous savez ce qu'elles pèsent. Les
# secondes viennent ensuite : pointe et MFU pour apprendre, débit et taille du lot pour servir, seize octets par
# paramètre avant de commencer. Un budget se partage entre $N$ et $D$ ; l'optimum d'apprentissage n'est pas celui d'un
# modèle qui doit servir. Et une loi d'échelle est une droite tirée par quelques points, dont l'exposant dépend de ce
# que l'on a compté.
#
# Ce chapitre a compté des opérations et des octets ; les suivants cherchent à en faire moins, ou à les écrire sur moins
# de bits. D'abord, les bits : c'est le chapitre 3.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Kaplan et al., *Scaling Laws for Neural Language Models*, 2020, arXiv 2001.08361 · Hoffmann et al.,
# *Training Compute-Optimal Large Language Models*, 2022, arXiv 2203.15556 · Chowdhery et al., *PaLM: Scaling Language
# Modeling with Pathways*, 2022, arXiv 2204.02311 · Williams, Waterman et Patterson, *Roofline: An Insightful Visual
# Performance Model for Multicore Architectures*, CACM, 2009 · Pope et al., *Efficiently Scaling Transformer Inference*,
# 2022, arXiv 2211.05102 · Rajbhandari et al., *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*,
# 2020, arXiv 1910.02054 · Korthikanti et al., *Reducing Activation Recomputation in Large Transformer Models*, 2022,
# arXiv 2205.05198 · Narayanan et al., *Efficient Large-Scale Language Model Training on GPU Clusters Using
# Megatron-LM*, 2021, arXiv 2104.04473 · Brown et al., *Language Models are Few-Shot Learners*, 2020, arXiv 2005.14165 ·
# Touvron et al., *LLaMA: Open and Efficient Foundation Language Models*, 2023, arXiv 2302.13971 · Grattafiori et al.,
# *The Llama 3 Herd of Models*, 2024, arXiv 2407.21783 · Meta, *Introducing Meta Llama 3*, avril 2024 · DeepSeek-AI,
# *DeepSeek-V3 Technical Report*, 2024, arXiv 2412.19437 · Kimi Team, *Kimi K2: Open Agentic Intelligence*, 2025, arXiv
# 2507.20534 · Besiroglu et al., *Chinchilla Scaling: A replication attempt*, 2024, arXiv 2404.10102 · Sardana et al.,
# *Beyond Chinchilla-Optimal: Accounting for Inference in Language Model Scaling Laws*, 2024, arXiv 2401.00448 · Dao,
# *FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning*, 2023, arXiv 2307.08691 · Pearce et
# Song, *Reconciling Kaplan and Chinchilla Scaling Laws*, 2024, arXiv 2406.12907 · Porian et al., *Resolving
# Discrepancies in Compute-Optimal Scaling of Language Models*, 2024, arXiv 2406.19146 · Patterson et al., *Carbon
# Emissions and Large Neural Network Training*, 2021, arXiv 2104.10350 · Karpathy, *nanoGPT*, `model.py` et
# `transformer_sizing.ipynb` · NVIDIA, *A100 Tensor Core GPU* et *H100 Tensor Core GPU*, fiches techniques
