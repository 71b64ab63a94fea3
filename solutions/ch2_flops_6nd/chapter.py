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
# Colibri a été entraîné en une heure et quart, sur deux cœurs. **Avant d'aller plus loin, pariez :** combien
# d'opérations lui faut-il pour deviner un seul jeton ? Combien pour tout son apprentissage ? Et combien d'années la
# même machine mettrait-elle à entraîner GPT-3 ?
#
# À la fin de ce chapitre, trois multiplications vous suffiront pour répondre, et vous saurez de combien elles se
# trompent. Vous compterez un passage dans le modèle, opération par opération ; vous verrez d'où vient la règle
# $C \approx 6ND$ et ce qu'elle oublie ; puis vous chercherez comment dépenser un budget, sur de vrais apprentissages.
# Comptez deux heures.

# %%
import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch2
from atelier.text import plural

atelier.describe_machine()

# %% tags=["setup"]
import math

import torch

# %%
colibri = atelier.load_model("colibri", attention="eager")
print("Colibri :", plural(colibri.num_parameters(), "paramètre"))

# %% [markdown]
# ## 2.1 Le prix d'un produit
#
# Presque tout ce que calcule un modèle de langue est un produit de matrices. On compte donc des **opérations en virgule
# flottante** (*floating-point operations*, FLOP) : une addition, une multiplication. Ce cours écrit **FLOP** pour un
# nombre d'opérations, **FLOP/s** pour une vitesse ; ailleurs, « FLOPs » et « FLOPS » disent parfois l'un, parfois
# l'autre.
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

    m, k, n : dimensions, entiers d'au moins 1.
    Rend un int, exact même au-delà de 2^53 : une multiplication et une addition par terme de chaque somme.
    Lève ValueError si l'une des dimensions est inférieure à 1.

    Source : convention de Kaplan et al., « Scaling Laws for Neural Language Models », 2020, § 2.1 et tableau 1.
    """
    ### BEGIN SOLUTION
    if min(m, k, n) < 1:
        raise ValueError("une matrice a au moins une ligne et une colonne")
    per_entry = 2 * k
    return m * n * per_entry
    ### END SOLUTION


# %% [markdown]
# PyTorch sait compter, lui aussi. `FlopCounterMode` regarde passer chaque opération et note celles qu'il connaît : les
# produits.

# %%
ch2.product_counts(matmul_flops)

# %% [markdown]
# ## 2.2 Un passage avant, jeton par jeton
#
# Un jeton entre dans Colibri et en ressort en 4 096 scores. **Quelles matrices a-t-il rencontrées ?** Reprenez le
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

    n_layer : nombre de blocs (0 est permis) ; d_model : composantes d'un jeton, toutes têtes réunies ;
    n_ctx : jetons de la fenêtre ; n_vocab : taille du vocabulaire.
    Rend un float, en FLOP par jeton. Seuls comptent les produits de matrices, deux opérations par
    multiplication-addition ; le MLP élargit d_model à 4·d_model ; l'attention est dense (les scores du futur sont
    calculés, puis masqués) ; la tête donne des scores après chaque jeton.
    Lève ValueError si n_layer est négatif, ou si d_model, n_ctx ou n_vocab est inférieur à 1.

    Source : Hoffmann et al., « Training Compute-Optimal Large Language Models », 2022, annexe F, moins la lecture
    de la table des jetons et le softmax.
    """
    ### BEGIN SOLUTION
    if n_layer < 0 or min(d_model, n_ctx, n_vocab) < 1:
        raise ValueError("il faut des tailles d'au moins 1, et un nombre de blocs positif ou nul")
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
ch2.forward_check(colibri, forward_flops_per_token)

# %% [markdown]
# Voilà la réponse au premier pari : quelques millions d'opérations pour un jeton de Colibri, un peu plus de deux par
# paramètre. **Où vont-elles ?** Le compteur sait aussi les ranger.

# %%
ch2.where_flops(colibri)

# %% [markdown]
# Comparez les deux extrémités. Dans un petit modèle, la tête pèse lourd ; dans GPT-3, il ne reste que les blocs. Et
# l'attention proprement dite, ces deux produits sans paramètres ? Tout dépend de la longueur du contexte : bougez le
# curseur.

# %%
ch2.context_cost(colibri, context=1024)

# %% [markdown]
# ??? q="context_twice"

# %% [markdown]
# ## 2.3 Le passage arrière : d'où vient le 4
#
# Apprendre, c'est refaire le chemin à l'envers pour savoir comment chaque poids influe sur la perte. **À votre avis,
# combien coûte ce passage arrière : autant que l'autre, deux fois plus, dix fois plus ?** Ne devinez plus, comptez.

# %%
ch2.backward_ops(colibri)

# %% [markdown]
# Deux fois, exactement, ligne par ligne. La raison tient en deux formules. Pour un produit $Y = XW$, la règle de la
# chaîne demande deux gradients, et chacun est un produit aux mêmes trois dimensions :
#
# $$ \frac{\partial \mathcal L}{\partial W} = X^\top \frac{\partial \mathcal L}{\partial Y}, \qquad
# \frac{\partial \mathcal L}{\partial X} = \frac{\partial \mathcal L}{\partial Y}\, W^\top . $$
#
# Le premier sert à corriger les poids, le second à continuer plus bas.
#
# Un paramètre coûte donc, par jeton, 2 opérations en avant et 4 en arrière. Si l'une des deux dérivées ne sert à
# personne, son produit disparaît. **Prédisez chaque ligne avant d'exécuter :**

# %%
ch2.backward_cases()

# %% [markdown]
# Retenez la troisième et la quatrième ligne : elles reviendront aux chapitres 6 à 8, quand on ne voudra plus corriger
# que quelques poids. Geler un modèle n'épargne pas tout le passage arrière, tant qu'il faut le traverser.
#
# ??? q="backward_twice"

# %% [markdown]
# ### ✎ training_flops


# %% exercise="training_flops"
def training_flops(n_params: int, n_tokens: int) -> int:
    """Opérations d'un apprentissage, par la règle C ≈ 6ND.

    n_params : nombre N de paramètres ; n_tokens : nombre D de jetons lus, répétitions comprises (0 est permis).
    Rend un int, exact même au-delà de 2^53 : par paramètre et par jeton, passage avant et passage arrière.
    Lève ValueError si n_tokens est négatif.

    Source : Kaplan et al., « Scaling Laws for Neural Language Models », 2020, § 2.1.
    """
    ### BEGIN SOLUTION
    if n_tokens < 0:
        raise ValueError("un nombre de jetons n'est pas négatif")
    return 6 * n_params * n_tokens
    ### END SOLUTION


# %% [markdown]
# ## 2.4 Ce que 6ND oublie
#
# La règle est commode : deux nombres, un produit. Mais **lesquels des paramètres faut-il mettre dans $N$ ?** La table
# des jetons est lue, pas multipliée ; liée à la tête, elle sert pourtant à un produit. Les positions ne servent à
# aucun. Et l'attention multiplie des matrices qui ne sont pas des paramètres. Voici le compte exact, et quatre
# conventions qu'on rencontre.

# %%
ch2.conventions(colibri, forward_flops_per_token)

# %% [markdown]
# Lisez la colonne « hors table et positions » de haut en bas : la règle est mauvaise pour un petit modèle, bonne pour
# un grand. Kaplan et al. le disaient dès le départ : elle vaut quand $d$ est grand devant $T/12$, et ils ne comptaient
# pas la tête.
#
# Un détail surprend. Pour le terme de l'attention, par jeton d'apprentissage :
#
# - Kaplan et al. (2020, tableau 1) comptent $2\,L\,T\,d$ en avant, donc $6\,L\,d\,T$ en tout ;
# - PaLM (Chowdhery et al., 2022, annexe B) et nanoGPT comptent $12\,L\,d\,T$.
#
# **Qui se trompe ? Relisez votre propre formule avant de continuer.**

# %% [markdown]
# Vous avez compté deux produits, $QK^\top$ et le mélange, de $2\,T\,d$ opérations chacun : c'est la convention de PaLM,
# celle d'un calcul dense. Le terme de Kaplan en vaut la moitié, et se lit de deux façons. Ou bien un seul des deux
# produits est compté ; ou bien les deux le sont, mais limités aux paires permises, puisqu'un jeton ne voit en moyenne
# que la moitié de la fenêtre. Leur tableau, qui appelle cette ligne « Mask », ne tranche pas.
#
# Un calcul dense fait l'autre moitié et la jette. FlashAttention-2 (Dao, 2023) saute les blocs entièrement interdits,
# près de la moitié d'une longue fenêtre : son coût réel est plus près du nombre de Kaplan.
#
# ??? q="what_6nd_forgets"

# %% [markdown]
# ## 2.5 Des opérations aux secondes
#
# Compter ne dit pas encore combien de temps attendre. Une machine a une **pointe** (*peak*) : ce qu'elle tient de mieux
# sur un grand produit bien rangé. Mesurons la vôtre. **Pariez :** combien de milliards d'opérations par seconde ?

# %%
machine_peak = ch2.measure_peak(
    sizes=atelier.scale().pick(
        essai=(128, 512), cpu=(64, 128, 256, 512, 1024, 1536), gpu=(512, 1024, 2048, 4096, 8192)
    ),
    repeats=atelier.scale().pick(essai=2, cpu=5, gpu=20),
)

# %% [markdown]
# Les petits produits sont loin de la pointe : la machine passe son temps à s'y préparer, ou à attendre la mémoire.
# C'est une première raison pour qu'un modèle n'atteigne jamais la pointe. Les autres : tout ce que nous n'avons pas
# compté, et qui prend pourtant du temps (softmax, LayerNorm, optimiseur, lecture des données).
#
# La part de la pointe que l'on tient vraiment, en ne comptant que les opérations **utiles** du modèle, s'appelle la
# **MFU** (*model FLOPs utilization*, Chowdhery et al., 2022) :
#
# $$ \mathrm{MFU} = \frac{\text{opérations utiles par seconde}}{\text{pointe}} . $$
#
# Un vrai pas d'apprentissage de Colibri, chronométré :

# %%
ch2.training_step(
    colibri,
    forward_flops_per_token,
    machine_peak,
    batch_size=atelier.scale().pick(essai=2, cpu=8, gpu=4),
    steps=atelier.scale().pick(essai=2, cpu=6, gpu=30),
    size=atelier.scale().pick(essai=None, cpu=None, gpu="small"),
)

# %% [markdown]
# ??? q="mfu_meaning"

# %% [markdown]
# ### Le journal de Colibri
#
# L'apprentissage de Colibri a tenu un journal (`assets/colibri/journal.csv`). De quoi vérifier la règle sur un cas que
# vous avez entre les mains. **Avant d'exécuter :** $N$ = 3 060 288 et $D$ = 54 468 608 ; posez la multiplication.

# %%
ch2.colibri_log(colibri, training_flops, forward_flops_per_token, watts=30)

# %% [markdown]
# La vitesse n'est pas constante : la machine servait à d'autres en même temps, et le journal le montre. Quant à
# l'énergie, personne ne l'a mesurée. On l'**estime**, puissance × durée :
#
# $$ E = P \cdot t , $$
#
# avec une puissance supposée, écrite dans le tableau pour que vous puissiez en mettre une autre. Un chiffre d'énergie
# sans sa puissance ni sa durée ne se vérifie pas.

# %% [markdown]
# ### ✎ training_days


# %% exercise="training_days"
def training_days(n_params: int, n_tokens: int, n_gpus: int, peak_flops: float, mfu: float) -> float:
    """Durée d'un apprentissage, en jours, pour C = 6ND opérations.

    n_params : paramètres ; n_tokens : jetons lus ; n_gpus : nombre de cartes ; peak_flops : pointe d'une carte, en
    FLOP/s ; mfu : part de la pointe réellement tenue, entre 0 (exclu) et 1.
    Rend un float, en jours de 24 heures.
    Lève ValueError si mfu n'est pas dans ]0, 1].

    Source : Chowdhery et al., « PaLM: Scaling Language Modeling with Pathways », 2022, § 4.1 et annexe B.
    """
    ### BEGIN SOLUTION
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu vaut {mfu} ; c'est une fraction, entre 0 et 1")
    flops = 6 * n_params * n_tokens
    rate = n_gpus * peak_flops * mfu
    return flops / rate / 86400
    ### END SOLUTION


# %% [markdown]
# ## 2.6 Un budget, deux façons de le dépenser
#
# Vous avez un budget $C$. Un plus gros modèle, ou plus de texte ? Les deux se paient dans la même monnaie : à $C$ fixé,
# $N$ et $D$ sont liés par $6ND = C$.

# %% [markdown]
# ### ✎ tokens_for_budget


# %% exercise="tokens_for_budget"
def tokens_for_budget(compute: float, n_params: int) -> float:
    """Nombre de jetons qu'un budget de calcul permet de faire lire à un modèle, par la règle C = 6ND.

    compute : budget C, en FLOP (0 est permis) ; n_params : nombre N de paramètres, au moins 1.
    Rend un float, sans arrondir.

    Source : Kaplan et al., « Scaling Laws for Neural Language Models », 2020, § 2.1.
    """
    ### BEGIN SOLUTION
    return compute / (6 * n_params)
    ### END SOLUTION


# %% [markdown]
# Sur deux axes logarithmiques, l'hyperbole $ND = C/6$ devient une droite. Bougez le budget, et regardez où se sont
# posés quelques modèles connus. **Lesquels ont choisi la taille, lesquels le texte ?**

# %%
ch2.budget_map(tokens_for_budget, budget=3.14e23)

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
    """Taille et nombre de jetons optimaux pour un budget, à rapport fixé.

    compute : budget C, en FLOP ; tokens_per_param : nombre de jetons par paramètre, 20 dans la règle de Chinchilla.
    Rend (N, D), deux float sans arrondi, tels que 6·N·D = C et D = tokens_per_param·N.

    Source : Hoffmann et al., « Training Compute-Optimal Large Language Models », 2022, § 3.4 et tableau 3.
    """
    ### BEGIN SOLUTION
    n_params = math.sqrt(compute / (6 * tokens_per_param))
    return n_params, tokens_per_param * n_params
    ### END SOLUTION


# %%
ch2.optimal_table(compute_optimal)

# %% [markdown]
# ??? q="hundred_times"

# %% [markdown]
# ### Ce qui a changé depuis
#
# Chinchilla répond à **une** question : comment dépenser un budget d'apprentissage. Or un modèle qui sert produit des
# jetons tous les jours, à environ $2N$ opérations chacun. Sur toute une vie, le compte est
#
# $$ C_{\text{vie}} \approx 6\,N\,D + 2\,N\,D_{\text{servis}} . $$
#
# À qualité égale, un modèle plus petit que l'optimum doit lire plus, mais coûte moins ensuite. Où est le creux, si l'on
# prévoit de servir mille milliards de jetons ? Et dix mille ?

# %%
ch2.lifetime_cost()

# %% [markdown]
# C'est l'argument de Sardana et al. (2024) : au-delà d'un certain usage, il faut des modèles plus petits, entraînés
# plus longtemps. Les courbes reposent sur la loi de Chinchilla, $L(N, D) = E + A/N^\alpha + B/D^\beta$, avec les
# constantes réestimées par Besiroglu et al. (2024), qui ont montré que celles du premier article étaient mal estimées.
# Elles disent un sens, pas une promesse.
#
# ??? q="past_optimum"

# %% [markdown]
# ## 2.7 Une vraie petite étude
#
# Les lois qu'on vient de citer ont été tirées de centaines d'apprentissages. Peut-on en voir quelque chose avec deux
# cœurs ? Nous avons entraîné des GPT-2 minuscules, sur le texte de Colibri et avec son découpage, à trois budgets. À
# chaque budget, les petits modèles lisent beaucoup, les gros lisent peu : le nombre de jetons est ce que le budget
# permet, compté avec le passage avant exact de la section 2.2 et non avec 6ND.
#
# **Avant de regarder :** à budget fixé, quelle forme attendez-vous pour la perte en fonction de la taille ?

# %%
ch2.isoflop_curves()

# %% [markdown]
# Chaque trait est un budget constant (*isoFLOP*). Suivez-en un : à gauche, le modèle manque de paramètres ; à droite,
# il manque de jetons. Le creux est le bon partage **pour cette recette** et ce budget, et il se déplace vers la droite
# quand le budget monte. Si le meilleur point d'une courbe est à son bord, son creux est hors des tailles essayées : on
# n'en sait pas plus.
#
# ??? q="isoflop_right"

# %% [markdown]
# Reste à savoir comment le meilleur point descend quand le budget monte. Kaplan et al. (2020) proposent une **loi de
# puissance** :
#
# $$ \text{perte} \approx a \cdot C^{-b} . $$
#
# Elle est une droite quand on prend le logarithme des deux axes, et une droite s'ajuste par les moindres carrés.

# %% [markdown]
# ### ✎ fit_power_law


# %% exercise="fit_power_law"
def fit_power_law(compute: torch.Tensor, loss: torch.Tensor) -> tuple[float, float]:
    """Loi de puissance loss ≈ a·compute^(−b), par les moindres carrés entre logarithmes.

    compute : (n,) flottants strictement positifs, dans un ordre quelconque ; loss : (n,), de même ; n ≥ 2.
    Rend (a, b), deux float : la droite qui rend minimale la somme des carrés des écarts entre log(loss) et
    log(a) − b·log(compute). b est positif quand la perte baisse.
    Lève ValueError si une valeur est négative ou nulle, s'il y a moins de deux points, si les longueurs diffèrent ou
    si un tenseur n'a pas une seule dimension.

    Source : Kaplan et al., « Scaling Laws for Neural Language Models », 2020, § 1.2 et équation (1.3).
    """
    ### BEGIN SOLUTION
    if compute.ndim != 1 or compute.shape != loss.shape or len(compute) < 2:
        raise ValueError("il faut deux tenseurs à une dimension, de même longueur, d'au moins deux points")
    if (compute <= 0).any() or (loss <= 0).any():
        raise ValueError("une loi de puissance ne passe que par des valeurs strictement positives")
    x, y = compute.double().log(), loss.double().log()
    dx, dy = x - x.mean(), y - y.mean()
    slope = (dx * dy).sum() / (dx * dx).sum()
    intercept = (y.mean() - slope * x.mean()).item()
    return math.exp(intercept), -slope.item()
    ### END SOLUTION


# %% [markdown]
# D'abord une épreuve honnête : la loi est ajustée sans le plus grand budget, puis on regarde si elle le prédit.
# Ensuite, on lui donne tous les budgets, et on l'envoie beaucoup plus loin, jusqu'à Colibri. **Pariez avant
# d'exécuter :** où tombera-t-elle juste ?

# %%
ch2.power_law(fit_power_law)

# %% [markdown]
# Une droite tirée par si peu de points passe forcément près d'eux : ce n'est pas une preuve. Ce qui compte est le point
# qu'elle n'a pas vu, et la distance à laquelle on le cherche. Colibri, bien plus loin, a été appris avec un autre
# optimiseur, un autre contexte et un autre plan : changer de recette ne déplace pas seulement un point, cela change la
# droite.
#
# Trois réserves sur notre étude. Le taux d'apprentissage n'a été cherché que sur trois largeurs, au plus petit budget.
# Chaque point n'a qu'une graine : comparez la profondeur des creux à l'écart entre graines donné sous les courbes. Et
# dans de si petits modèles, la table et la tête sont presque tout : compter $N$ sans elles déplacerait les creux. C'est
# l'une des raisons pour lesquelles Kaplan et Hoffmann ne trouvaient pas le même exposant (Pearce et Song, 2024 ; Porian
# et al., 2024).

# %% [markdown]
# À vous d'ajouter un point. Choisissez une taille que nous n'avons pas entraînée, dites **d'abord** où vous l'attendez,
# puis lancez l'apprentissage. Il lit l'extrait livré avec le cours, et non le grand texte : quelques points du plus
# petit budget ont été refaits sur cet extrait (ronds vides), pour que la comparaison soit juste. L'extrait est plus
# court, donc relu, et un peu plus facile ; voyez ce que cela déplace.

# %%
n_layer, d_model = 2, 48  # d_model : un multiple de 8
ch2.one_more_point(n_layer, d_model, compute=atelier.scale().pick(essai=1e10, cpu=5e11, gpu=5e11))

# %% [markdown]
# ## 2.8 GPT-3, en entier
#
# Vous avez tous les outils. Prenons GPT-3 (Brown et al., 2020) : 175 milliards de paramètres, 300 milliards de jetons ;
# et 1 024 cartes A100, dont la pointe est de 312 TFLOP/s en bfloat16 (fiche de NVIDIA). **Posez-le avant de lire :**
# combien d'opérations, combien de jours à 40 % de la pointe, combien d'argent à 2 dollars l'heure de carte ?

# %%
ch2.gpt3_bill(training_flops, forward_flops_per_token, training_days, machine_peak)

# %% [markdown]
# Un point de comparaison : Narayanan et al. (2021, § 5.1) prévoyaient **34 jours** pour ce même cas, à 140 TFLOP/s par
# carte, soit 45 % de la pointe. Leur formule compte $8ND$ et non $6ND$ : pour tenir en mémoire, ils recalculent les
# activations, c'est-à-dire un passage avant de plus. Ces 45 % sont une utilisation du **matériel** (HFU) ; en ne
# gardant que les opérations utiles, la MFU n'en est que de 34 %.
#
# Quant à l'énergie du vrai GPT-3, Patterson et al. (2021, tableau 4) l'estiment à 1 287 MWh, sur des V100 : quatre fois
# le nombre du tableau. Une autre carte, une autre utilisation, et les mêmes opérations. La réponse au dernier pari du
# chapitre est dans la dernière ligne.
#
# Bougez les hypothèses. Laquelle pèse le plus sur la facture ? Laquelle ne la change pas du tout ?

# %%
ch2.bill_explorer(training_days)

# %% [markdown]
# ## 2.9 Ce que vous savez maintenant
#
# Un produit $(m \times k)(k \times n)$ coûte $2mkn$. Un jeton coûte en avant un peu plus de deux opérations par
# paramètre, le double en arrière ; d'où 6, à l'attention et à la tête près, et vous savez ce qu'elles pèsent. Les
# secondes viennent ensuite : pointe, MFU, nombre de cartes. Un budget se partage entre $N$ et $D$ ; l'optimum
# d'apprentissage n'est pas celui d'un modèle qui doit servir. Et une loi d'échelle est une droite tirée par quelques
# points : on sait maintenant ce qu'elle vaut entre eux, et ce qu'elle vaut au-delà.
#
# Ce chapitre a compté des opérations ; les suivants cherchent à en faire moins, ou à les faire sur moins de bits.
# D'abord, les bits : c'est le chapitre 3.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Kaplan et al., *Scaling Laws for Neural Language Models*, 2020, arXiv 2001.08361 · Hoffmann et al.,
# *Training Compute-Optimal Large Language Models*, 2022, arXiv 2203.15556 · Chowdhery et al., *PaLM: Scaling Language
# Modeling with Pathways*, 2022, arXiv 2204.02311 · Narayanan et al., *Efficient Large-Scale Language Model Training on
# GPU Clusters Using Megatron-LM*, 2021, arXiv 2104.04473 · Brown et al., *Language Models are Few-Shot Learners*, 2020,
# arXiv 2005.14165 · Touvron et al., *LLaMA: Open and Efficient Foundation Language Models*, 2023, arXiv 2302.13971 ·
# Grattafiori et al., *The Llama 3 Herd of Models*, 2024, arXiv 2407.21783 · Meta, *Introducing Meta Llama 3*, avril
# 2024 · Besiroglu et al., *Chinchilla Scaling: A replication attempt*, 2024, arXiv 2404.10102 · Sardana et al., *Beyond
# Chinchilla-Optimal: Accounting for Inference in Language Model Scaling Laws*, 2024, arXiv 2401.00448 · Dao,
# *FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning*, 2023, arXiv 2307.08691 · Pearce et
# Song, *Reconciling Kaplan and Chinchilla Scaling Laws*, 2024, arXiv 2406.12907 · Porian et al., *Resolving
# Discrepancies in Compute-Optimal Scaling of Language Models*, 2024, arXiv 2406.19146 · Patterson et al., *Carbon
# Emissions and Large Neural Network Training*, 2021, arXiv 2104.10350 · Karpathy, *nanoGPT*, `model.py` et
# `transformer_sizing.ipynb` · NVIDIA, *A100 Tensor Core GPU*, fiche technique
