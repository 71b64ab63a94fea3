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
# # Chapitre 7 · Adaptateurs
#
# Vous voulez que Colibri raconte des histoires de dragons, et qu'il parle aussi comme Corneille. Faut-il deux
# Colibri ? **Avant d'aller plus loin :** sur ses trois millions de nombres, combien devraient changer pour chaque
# voix ?
#
# Dans ce chapitre, vous gelez le modèle entier, vous y branchez de petits modules, et vous ne touchez qu'à eux. Puis
# vous répondez à la question que posent les diapositives : est-ce que cela va plus vite ? Comptez moins de deux
# heures ; l'exercice marqué « approfondissement » peut attendre. Tant qu'un exercice n'est pas fait, les figures qui
# en dépendent montrent le résultat de l'auteur et le disent.

# %%
import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch7

atelier.describe_machine()

# %% tags=["setup"]
import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2LMHeadModel

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")

# %% [markdown]
# ## 7.1 Un modèle, cent tâches
#
# Le fine-tuning du chapitre 6 déplace tous les poids : une tâche de plus, une copie de plus, et le modèle oublie en
# partie ce qu'il savait. La diapositive fait le compte pour 170 milliards de paramètres et cent tâches : 34 To.
#
# L'idée d'Houlsby et de ses coauteurs (2019) : ne rien réécrire, **ajouter**. Entre les couches d'un modèle **gelé**
# (*frozen*), on glisse de petits modules, les **adaptateurs** (*adapters*), qui seuls apprennent. La diapositive le
# résume : « train small sub-networks and only tune those », et « no need to store a full model for each task, only
# the adapter params ». On appelle **PEFT** (*parameter-efficient fine-tuning*) toute méthode de ce genre.

# %%
ch7.drawing(d_model=colibri.config.n_embd, bottleneck=16)

# %% [markdown]
# Regardez le dessin de droite, et cherchez pourquoi il a cette forme. Chaque jeton, $d$ composantes, est projeté sur
# $m$ nombres seulement : c'est le **goulot** (*bottleneck*). Une non-linéarité, une remontée vers $d$, et le résultat
# s'**ajoute** à l'entrée :
#
# $$ \mathrm{adapter}(x) = x + W_{\mathrm{up}}\,\mathrm{GELU}(W_{\mathrm{down}}\,x + b_{\mathrm{down}}) + b_{\mathrm{up}} . $$
#
# ??? q="why_residual"

# %% [markdown]
# ## 7.2 Commencer par ne rien faire
#
# Colibri sait déjà beaucoup. Un module tiré au hasard au milieu de ses couches brouillerait tout : on veut donc
# partir d'un module qui rend exactement ce qu'il reçoit. **Quels poids mettre à zéro pour cela ?** Il y a plusieurs
# réponses, et une seule bonne.
#
# ??? q="both_zero"

# %% [markdown]
# ### ✎ Adapter


# %% exercise="Adapter"
class Adapter(nn.Module):
    """Adaptateur à goulot : x + up(GELU(down(x))).

    d_model : nombre de composantes d'un jeton ; bottleneck : largeur du goulot, au moins 1.
    Deux attributs, `down` (d_model → bottleneck) et `up` (bottleneck → d_model), des nn.Linear avec biais, et aucun
    autre paramètre. La GELU peut être l'exacte ou son approximation par tanh.
    Au départ, `up` est entièrement nul, poids et biais : le module rend ce qu'il reçoit. `down.weight` n'est pas nul.
    forward(x) : x (…, d_model) flottant, avec un nombre quelconque d'axes ; rend la même forme et le même type.

    Source : Houlsby et al., « Parameter-Efficient Transfer Learning for NLP », 2019, § 2.1 et figure 2.
    """

    def __init__(self, d_model: int, bottleneck: int) -> None:
        ### BEGIN SOLUTION
        super().__init__()
        self.down, self.up = nn.Linear(d_model, bottleneck), nn.Linear(bottleneck, d_model)
        for start in self.up.parameters():
            nn.init.zeros_(start)
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ### BEGIN SOLUTION
        return x + self.up(F.gelu(self.down(x)))
        ### END SOLUTION


# %% [markdown]
# Trois départs, sur le même lot de texte. Lisez la perte au départ, puis la norme du gradient de chaque matrice,
# notée $\|\nabla\|$ : lequel des trois modules n'apprendra presque rien, lequel a déjà abîmé le modèle ?

# %%
ch7.three_starts(colibri, Adapter, steps=atelier.scale().pick(essai=3, cpu=20, gpu=50))

# %% [markdown]
# Si tout est nul, la perte baisse un peu quand même : le biais de la remontée est seul à bouger. L'article tire les
# deux matrices d'une gaussienne d'écart type 0,01 : presque l'identité (et au-delà de 0,01, dit le § 3.6, la qualité
# baisse). La remontée exactement nulle en est la limite, et c'est elle que LoRA reprendra au chapitre 8. Notez le
# prix : au tout premier pas, seule la remontée reçoit un gradient ; la descente doit attendre qu'elle ait bougé.
#
# ## 7.3 Compter ce qu'on ajoute
#
# Deux adaptateurs par bloc. **Devinez** d'abord : avec un goulot de 16, quelle part de Colibri va apprendre ?

# %% [markdown]
# ### ✎ adapter_num_params


# %% exercise="adapter_num_params"
def adapter_num_params(d_model: int, bottleneck: int, n_layer: int, per_layer: int = 2) -> int:
    """Nombre exact de paramètres qu'ajoutent des adaptateurs, biais compris.

    d_model : composantes d'un jeton ; bottleneck : largeur du goulot ; n_layer : nombre de blocs du modèle ;
    per_layer : adaptateurs par bloc.
    Rend un int.

    Source : Houlsby et al., 2019, § 2.1 (« 2md + d + m »).
    """
    ### BEGIN SOLUTION
    down = d_model * bottleneck + bottleneck
    up = bottleneck * d_model + d_model
    return n_layer * per_layer * (down + up)
    ### END SOLUTION


# %%
ch7.count_table(colibri, adapter_num_params)

# %% [markdown]
# À goulot égal, la part baisse quand le modèle grandit : un bloc a environ $12d^2$ poids, ses adaptateurs environ
# $4md$, d'où une part du bloc proche de $m/3d$ (les tables de plongements, qui ne reçoivent rien, la réduisent
# encore). C'est pourquoi un petit modèle comme Colibri est un cas **défavorable** aux adaptateurs : ce qui est
# « presque rien » chez GPT-2 XL est déjà visible chez lui.
#
# ## 7.4 Brancher
#
# Reste à glisser ces modules dans un GPT-2 déjà construit, sans réécrire sa classe. Dans un bloc, la sortie de
# l'attention sort de la projection `attn.c_proj` ; celle du MLP, de `mlp`. Chacune va ensuite s'ajouter au flux
# résiduel : c'est juste avant que l'adaptateur prend place. Et que faut-il geler, et à quel moment ?

# %% [markdown]
# ### ✎ insert_adapters


# %% exercise="insert_adapters"
def insert_adapters(model: GPT2LMHeadModel, bottleneck: int) -> GPT2LMHeadModel:
    """Gèle un GPT-2 et y branche des adaptateurs, sur place.

    model : GPT-2 de transformers ; bottleneck : largeur du goulot, au moins 1.
    Dans chaque bloc, un `Adapter` transforme la sortie de l'attention (après sa projection `attn.c_proj`), un autre
    celle du MLP, chaque fois avant l'addition au flux résiduel. Chacun a ses propres poids. Seuls les adaptateurs
    apprennent : tous les autres paramètres ont requires_grad=False, LayerNorm comprises.
    Rend `model` lui-même. Les logits n'ont pas bougé ; `model.parameters()` contient les adaptateurs.

    Source : Houlsby et al., 2019, figure 2 (l'article entraîne aussi les LayerNorm, pas nous).
    """
    ### BEGIN SOLUTION
    model.requires_grad_(False)
    hidden = model.config.n_embd
    for block in model.transformer.h:
        after_attention, after_mlp = (Adapter(hidden, bottleneck).to(model.device) for _ in range(2))
        block.attn.c_proj = nn.Sequential(block.attn.c_proj, after_attention)
        block.mlp = nn.Sequential(block.mlp, after_mlp)
    return model
    ### END SOLUTION


# %% [markdown]
# Première épreuve : le modèle n'a pas changé. Deuxième : il peut apprendre. Troisième, et c'est elle qui compte :
# après quelques pas, **pas un octet** de la base n'a bougé. Une empreinte (*hash*) de tous les octets gelés le dit
# mieux qu'une promesse.

# %%
ch7.same_start(colibri, insert_adapters)

# %% [markdown]
# ## 7.5 Deux voix dans un seul modèle
#
# Deux textes que Colibri n'a jamais lus : **B**, la narration de fantasy du jeu Wesnoth, et **B′**, des vers de
# Corneille, Racine, Molière. Un jeu d'adaptateurs pour chacun, appris l'un après l'autre dans la même base. **Avant
# d'exécuter :** quelles cases du tableau vont baisser, lesquelles vont monter, et que dira la dernière ligne ?
#
# ??? q="forgetting"

# %%
voice_results = ch7.learn_voices(
    colibri,
    insert_adapters,
    steps=atelier.scale().pick(essai=3, cpu=100, gpu=600),
    max_tokens=atelier.scale().pick(essai=512, cpu=2048, gpu=8192),
)

# %% [markdown]
# Chaque voix améliore la sienne et dégrade A, tant qu'elle est branchée. Regardez aussi les deux cases croisées : une
# voix aide-t-elle l'autre texte ? On la retire : Colibri est intact. Et l'on change de voix sans rien recharger. La
# même amorce, le même tirage, trois fois :

# %%
openings = ["Seigneur, vous", "Les soldats"]
ch7.swap_voices(
    colibri, tokenizer, insert_adapters, voice_results, openings, n_new=atelier.scale().pick(essai=8, cpu=40, gpu=60)
)

# %% [markdown]
# Trois millions de paramètres ne font pas un écrivain. Mais comparez, d'une ligne à l'autre, à qui ces phrases
# pourraient s'adresser, et où tombent les retours à la ligne. Lisez enfin la colonne des empreintes : c'est à chaque
# fois le même Colibri.
#
# Que garde-t-on sur le disque ? **Pariez** sur le rapport entre le fichier d'une voix et une copie du modèle.

# %%
ch7.weigh_voices(colibri, insert_adapters, voice_results)

# %% [markdown]
# Cent tâches tiennent dans la place de quelques copies. Voilà ce que les adaptateurs ont d'incontestable.
#
# ## 7.6 Est-ce aussi bien ?
#
# Même texte, mêmes fenêtres, même nombre de pas, un taux d'apprentissage (*learning rate*) choisi pour chaque méthode
# d'après une petite grille. **Pariez** avant de regarder : les adaptateurs rejoignent-ils l'apprentissage complet ?

# %%
ch7.rates_measured()

# %%
ch7.voices_measured()

# %% [markdown]
# Non, et l'écart n'est pas le même sur les deux voix : comparez les parts du gain. Lisez aussi ce que devient A :
# l'apprentissage complet, qui a appris davantage, l'oublie davantage, et pour de bon, puisqu'il réécrit la base ; les
# adaptateurs, on les débranche. Nous n'avons pas mesuré ce que donnerait un apprentissage bien plus long.

# %% [markdown]
# Leur manque-t-il de la largeur ? La courbe est celle de l'auteur ; l'étoile est la vôtre, apprise maintenant avec
# une autre graine et le même nombre de pas. Changez `bottleneck` et relancez.

# %%
chosen_bottleneck = 24
ch7.widths_measured(
    colibri,
    insert_adapters,
    adapter_num_params,
    chosen_bottleneck,
    steps=atelier.scale().pick(essai=3, cpu=None, gpu=None),
    max_tokens=atelier.scale().pick(essai=512, cpu=4096, gpu=4096),
)

# %% [markdown]
# À côté, ce que l'article annonce : à 0,4 point de l'apprentissage complet sur GLUE, en n'entraînant que 3,6 % des
# paramètres.

# %%
ch7.paper_table()

# %% [markdown]
# Le résumé d'arXiv dit « within 0.4% » ; celui des actes d'ICML, « within 0.8% », ce qui est l'écart de la troisième
# ligne du même tableau, où $m = 64$ partout.
#
# Pourquoi n'en sommes-nous pas là ? Trois différences, dont nous ne savons pas laquelle pèse le plus :
#
# - BERT-large a cent fois plus de paramètres, et sa base contient sans doute presque tout ce que la tâche demande ;
# - une classification ne choisit qu'entre quelques réponses ; ici, il faut toute une loi sur les jetons d'un texte
#   d'un autre genre, et la table de Colibri est gelée ;
# - nous comparons après bien peu de pas.
#
# Et la largeur, qui compte beaucoup chez nous, ne comptait presque pas chez eux : en moyenne 86,2, 85,8 et 85,7 %
# d'exactitude pour $m$ = 8, 64 et 256 (§ 3.6).
#
# Qui travaille, parmi ces adaptateurs ? L'article les retire sans réentraîner (§ 3.6, figure 6 : BERT-base, $m$ =
# 64). Retirer ceux d'une seule couche coûte au plus 2 % d'exactitude, les retirer tous ramène au score de la classe
# majoritaire, et ceux du haut comptent plus que ceux du bas. Refaisons-le.

# %%
ch7.who_works(colibri, insert_adapters, voice_results, max_tokens=atelier.scale().pick(essai=256, cpu=2048, gpu=8192))

# %% [markdown]
# Comparez le bloc du haut aux autres, et le MLP à l'attention. Aucun bloc ne porte la voix à lui seul : en faire
# taire un coûte bien moins que les faire taire tous, et parfois rien du tout.
#
# ## 7.7 Sur une base en 4 bits
#
# Puisque la base ne bouge pas, rien n'oblige à la garder en pleine précision. Reprenons votre Colibri en 4 bits du
# chapitre 3 (à défaut, celui de l'auteur) : poids sur une grille de seize valeurs. Tels quels, on ne les entraîne
# pas : un petit pas n'atteint pas le cran suivant (au chapitre 4, il fallait garder à côté une copie en FP32). Les
# adaptateurs, eux, restent en virgule flottante. **Deux questions :** une voix s'apprend-elle aussi bien sur cette
# base ? Et un adaptateur appris sur A peut-il réparer ce que l'arrondi a abîmé, soit en relisant A, soit en imitant
# Colibri en FP32 (la distillation du chapitre 4) ?

# %%
ch7.quantized_measured()

# %% [markdown]
# Une voix s'apprend sur la base en 4 bits presque aussi bien que sur l'autre, et celle qui a été apprise en FP32 s'y
# pose sans réapprendre, un peu moins bien. C'est l'idée de QLoRA (chapitre 8), avec un autre module. Pour réparer,
# relire A n'apporte rien, sans doute parce que Colibri l'avait déjà appris et que l'erreur d'arrondi se perd dans le
# bruit du texte. Imiter l'original dit, à chaque jeton, ce que l'arrondi a changé, et rattrape une partie de la
# perte. Au tableau du cours, base et adaptateur compris :

# %%
ch7.repair(colibri, insert_adapters, steps=atelier.scale().pick(essai=2, cpu=40, gpu=300))

# %% [markdown]
# ## 7.8 Est-ce plus rapide ? Compter
#
# L'apprentissage économe en paramètres est-il plus rapide que celui du modèle entier ? « It is not faster! You still
# need to do the entire forward and backward pass », répond la diapositive. Quelques pages plus loin, à la même
# question posée de LoRA, une autre dira : « It is faster! » **Votre pari**, pour un pas d'apprentissage :
#
# ??? q="limit_of_speed"

# %% [markdown]
# Revenons au 6 de $6ND$ (chapitre 2). Pour une couche $Y = XW$, un pas fait trois produits de même taille : en avant,
# $XW$ ; en arrière, le gradient $G$ de $Y$ donne celui de l'entrée, $GW^\top$, et celui du poids, $X^\top G$.
#
# ??? q="which_product"

# %%
ch7.three_products()

# %% [markdown]
# ### ✎ peft_training_flops


# %% exercise="peft_training_flops"
def peft_training_flops(n_frozen: int, n_trainable: int, n_tokens: int) -> int:
    """FLOP d'un apprentissage sur n_tokens jetons, dont une partie des paramètres est gelée.

    n_frozen, n_trainable : nombres de paramètres gelés et entraînés ; n_tokens : jetons lus.
    Rend un int : par paramètre et par jeton, 2 FLOP pour le passage avant, 2 pour le gradient des activations, qui doit
    traverser toutes les couches, gelées ou non, et 2 pour le gradient du poids lui-même, s'il apprend.
    L'attention, qui n'a pas de poids, est laissée de côté, comme dans 6ND ; et l'on suppose que le gradient descend
    jusqu'en bas du modèle.

    Source : Kaplan et al., « Scaling Laws for Neural Language Models », 2020, § 2.1, pour les termes en 2N.
    """
    ### BEGIN SOLUTION
    forward, through_activations, for_weights = 2, 2, 2
    crossed = forward + through_activations
    return n_tokens * (crossed * n_frozen + (crossed + for_weights) * n_trainable)
    ### END SOLUTION


# %% [markdown]
# Comptons maintenant, sur un vrai passage avant et un vrai passage arrière de Colibri, chaque produit que torch
# effectue. La dernière ligne n'entraîne que les adaptateurs du dernier tiers du modèle : **que devient alors votre
# formule ?**

# %%
ch7.counted(colibri, insert_adapters, peft_training_flops)

# %% [markdown]
# Le passage arrière n'est donc pas « entire ». Avec des adaptateurs partout, il coûte un passage avant et non deux :
# $4N$ au lieu de $6N$, à l'attention près, qui n'a pas de poids et ne gagne donc rien. Sous le premier adaptateur qui
# apprend, le gradient n'a plus aucune raison de descendre : ces couches ne coûtent que leur passage avant, et la
# formule, qui suppose qu'il va jusqu'en bas, compte trop. C'est déjà un peu le cas à la deuxième ligne : l'attention du
# premier bloc est sous son adaptateur. Le gain possible est donc borné : au plus 1,5 quand on entraîne partout, au plus
# 3 quand on n'entraîne que tout en haut.
#
# ## 7.9 Est-ce plus rapide ? Mesurer
#
# Il reste l'optimiseur. Adam (Kingma et Ba, 2015) garde pour chaque poids entraîné deux moyennes, celle du gradient
# et celle de son carré : ses deux **moments**.

# %% [markdown]
# ### ✎ optimizer_state_bytes


# %% exercise="optimizer_state_bytes"
def optimizer_state_bytes(model: nn.Module, bytes_per_value: int = 4) -> int:
    """Octets qu'Adam retient pour entraîner ce modèle : ses deux moments, pour les seuls paramètres qui apprennent.

    model : module torch dont une partie des paramètres a requires_grad=True ; un tenseur partagé sous deux noms
    ne compte qu'une fois. bytes_per_value : octets d'un nombre (4 en FP32).
    Rend un int ; le compteur de pas d'Adam n'est pas compté. Le modèle n'est pas modifié.

    Source : Kingma et Ba, « Adam », 2015, algorithme 1.
    """
    ### BEGIN SOLUTION
    moments = 2
    return moments * bytes_per_value * sum(p.numel() for p in model.parameters() if p.requires_grad)
    ### END SOLUTION


# %% [markdown]
# Votre formule contre ce qu'Adam a vraiment gardé, et le pic de mémoire mesuré pendant un pas. **Les poids mis à
# part, qu'est-ce qui baisse le moins ?**

# %%
ch7.memory(colibri, insert_adapters, optimizer_state_bytes)

# %% [markdown]
# Gradients et moments fondent : « you only need to keep the optimizer state for parameters that you are
# fine-tuning », dit la diapositive, et c'est exact. Les **activations**, ce que chaque couche a calculé en avant et
# qui doit servir en arrière, restent pour la plupart : le gradient traverse aussi les couches gelées. Elles ne s'en
# vont vraiment que là où il ne descend pas, comme à la troisième ligne. Pour un petit modèle et un grand lot, ce sont
# elles qui dominent ; pour un grand modèle et un petit lot, ce sont les poids et leur suite. « Memory-efficient »
# dépend donc de qui remplit la mémoire.
#
# Enfin, le chronomètre.

# %%
ch7.step_time(
    colibri,
    insert_adapters,
    repeats=atelier.scale().pick(essai=1, cpu=7, gpu=20),
    size=atelier.scale().pick(essai=None, cpu=None, gpu="small"),
)

# %% [markdown]
# Comparez la dernière colonne à la borne : 1,5 avec des adaptateurs partout, 3 en haut seulement. Le passage avant ne
# gagne rien ; le passage arrière gagne. Si la borne est dépassée, cherchez ce que le compte d'opérations ne voit pas :
# écrire le gradient de chaque poids en mémoire prend du temps aussi. Et l'optimiseur disparaît presque : il relit et
# réécrit tous les poids à chaque pas, quel que soit le lot, et pèse donc d'autant plus que le lot est petit, comme les
# 128 jetons de la mesure sur GPT-2. Avec un grand lot, il ne compterait plus guère. Rücklé et ses coauteurs
# (*AdapterDrop*, 2021) mesurent sur carte des pas d'adaptateurs jusqu'à 60 % plus rapides que l'apprentissage complet.

# %%
ch7.verdict()

# %% [markdown]
# Alors, « It is not faster » ? **Par pas, c'est plus rapide**, mais jamais dans le rapport des paramètres entraînés.
# **Par qualité atteinte**, la section 7.6 dit le contraire à notre taille : à pas égaux, les adaptateurs sont
# derrière. À durée égale aussi : retrouvez, sur les courbes, après combien de pas l'apprentissage complet est déjà
# plus bas que les adaptateurs à la fin. La diapositive a raison contre celui qui attendait cinquante fois plus vite,
# et tort si on la lit à la lettre. Le chapitre 8 reprendra les deux réponses ensemble, avec les activations gardées
# en réserve.
#
# ## 7.10 À l'usage, ils ne sont pas gratuits
#
# Une fois l'apprentissage fini, les adaptateurs sont toujours là : chaque jeton les traverse. Combien d'opérations de
# plus ?

# %% [markdown]
# ### ✎ adapter_overhead


# %% exercise="adapter_overhead"
def adapter_overhead(d_model: int, bottleneck: int, n_ctx: int, per_layer: int = 2) -> float:
    """Surcoût d'un passage avant : FLOP des adaptateurs d'un bloc ÷ FLOP de ce bloc de GPT-2 sans eux.

    d_model : composantes d'un jeton ; bottleneck : largeur du goulot ; n_ctx : jetons lus ensemble ;
    per_layer : adaptateurs par bloc.
    Rend un float, sans unité. On ne compte que les produits de matrices, une multiplication et une addition chacun :
    dans le bloc, les quatre couches linéaires et les deux produits de l'attention (QKᵀ, puis A·V), dense : tous les
    couples de jetons sont calculés, futur compris.
    """
    ### BEGIN SOLUTION
    linear = 2 * 12 * d_model**2
    attention = 2 * 2 * n_ctx * d_model
    adapters = per_layer * 2 * 2 * d_model * bottleneck
    return adapters / (linear + attention)
    ### END SOLUTION


# %%
ch7.overheads(colibri, insert_adapters, adapter_overhead)

# %% [markdown]
# Quelques pour cent, davantage pour un goulot large dans un petit modèle. Voyons ce qu'en pense l'horloge, pour un
# jeton généré, puis pour une fenêtre entière.
#
# ??? q="serving"

# %%
ch7.serving_time(colibri, insert_adapters, repeats=atelier.scale().pick(essai=3, cpu=40, gpu=100))

# %% [markdown]
# Le surcoût mesuré sur un jeton dépasse de loin le surcoût compté : ce sont des appels de plus, l'un après l'autre,
# plutôt que des opérations. Sur une fenêtre, où chaque appel traite plus de jetons, celui de Colibri retombe ; voyez
# ce qu'il en est chez GPT-2, où un seul jeton demande déjà beaucoup de calcul. Et un adaptateur ne se replie pas dans
# la couche qu'il suit : sa GELU l'interdit. Un module **linéaire**, lui, pourrait se fondre dans les poids et ne plus
# rien coûter. C'est toute l'idée de LoRA.
#
# ## 7.11 Où en est Colibri
#
# La ligne de ce chapitre est « int4-adapter ». Comparez-la à « int4-gptq », sa base : ce que l'adaptateur rend, ce
# qu'il pèse.

# %%
atelier.board()

# %% [markdown]
# **Ce que vous savez maintenant.** Un adaptateur est une correction à travers un goulot, qui commence par ne rien
# faire. Il ne touche pas à la base : on l'ajoute, on l'échange, on le retire, et son fichier ne pèse presque rien. Il
# épargne les gradients et les moments d'Adam, un tiers des opérations au plus quand il est partout, et guère les
# activations. Il se paie à l'usage. Et à la taille de Colibri, après si peu de pas, il n'égale pas l'apprentissage
# complet ; plus le modèle est grand, moins il pèse en proportion.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Houlsby et al., *Parameter-Efficient Transfer Learning for NLP*, ICML 2019, arXiv 1902.00751 ·
# Rücklé et al., *AdapterDrop: On the Efficiency of Adapters in Transformers*, EMNLP 2021, arXiv 2010.11918 · Hu et
# al., *LoRA*, ICLR 2022, arXiv 2106.09685 · Dettmers et al., *QLoRA*, 2023, arXiv 2305.14314 · Kaplan et al.,
# *Scaling Laws for Neural Language Models*, 2020, arXiv 2001.08361 · Kingma et Ba, *Adam*, ICLR 2015, arXiv 1412.6980
# · Hendrycks et Gimpel, *Gaussian Error Linear Units*, 2016, arXiv 1606.08415
