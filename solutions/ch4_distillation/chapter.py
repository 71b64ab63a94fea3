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
# # Chapitre 4 · Distillation
#
# On ne garde que deux des cinq blocs de Colibri. Il n'écrit plus rien de bon. **Avant d'aller plus loin :** pour le
# remettre d'aplomb, vaut-il mieux lui faire lire du texte, ou le laisser écouter Colibri ?
#
# Dans ce chapitre, un petit modèle, l'**élève** (*student*), en imite un grand, l'**enseignant** (*teacher*). Vous
# écrivez sa perte, vous le taillez, vous le faites apprendre, et vous comparez ce qui doit l'être : à nombre de pas
# égal, puis à durée égale. Comptez deux heures ; les exercices marqués « approfondissement » sont un bonus.
# Tant qu'un exercice n'est pas fait, les figures qui en dépendent montrent le résultat de l'auteur et le disent :
# rien ne vous arrête.

# %%
import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch4
from atelier.text import byte_size

atelier.describe_machine()

# %% tags=["setup"]
import copy

import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
extract_tokens = atelier.scale().pick(essai=1024, cpu=8192, gpu=65536)

# %% [markdown]
# ## 4.1 Où nous en sommes
#
# Au chapitre 3, Colibri a gardé tous ses poids et perdu des bits. Ici, il perd des couches.

# %%
ch4.three_compressions(4)

# %% [markdown]
# Les trois se combinent. Avec la quantification, c'est ZeroQuant (Yao et al., 2022), que citent les diapositives : un
# modèle arrondi, réparé par l'original. Vous le ferez à la fin de ce chapitre. Avec l'élagage, ce sera au chapitre
# suivant.
#
# ## 4.2 Ce qu'un texte ne dit pas
#
# « La demande doit être » : le texte continue par un mot, un seul (un jeton, en toute rigueur, parfois un simple
# début de mot). C'est l'**étiquette dure** (*hard label*) : 1 pour ce mot, 0 pour les autres. Colibri, lui, donne une
# probabilité à chacun : c'est l'**étiquette douce** (*soft label*). **Avant de bouger le curseur :** à quel endroit
# de la phrase les deux se ressembleront-elles le plus ?

# %%
sentence = "La demande doit être adressée par lettre recommandée avec accusé de réception."
ch4.dark_knowledge(colibri, tokenizer, sentence, rank=4)

# %% [markdown]
# Au milieu d'un mot ou d'une formule toute faite, l'étiquette douce n'hésite guère. Ailleurs, elle dit ce que le
# texte tait : que d'autres suites étaient possibles, lesquelles, et combien. Hinton appelle cela la **connaissance
# cachée** (*dark knowledge*). Une phrase n'est pas une preuve ; voici la moyenne sur des milliers de positions. La
# dernière ligne est l'**entropie**, $-\sum_i p_i \ln p_i$, qui mesure l'hésitation : elle va de 0, une certitude, à
# $\ln V$ pour $V$ mots également probables. Elle se compte ici en **nats**, l'unité du logarithme naturel, comme le
# bit est celle du logarithme de base 2.

# %%
ch4.what_labels_say(colibri, extract_tokens)

# %% [markdown]
# ??? q="soft_label"
#
# ## 4.3 La température
#
# L'étiquette douce est parfois presque dure : un mot y prend 99 %, et ce que l'enseignant pense des autres se joue à la
# troisième décimale. Pour l'entendre, on divise tous les scores $z_i$ par une **température** $T$ avant le softmax :
#
# $$ p_i(T) = \frac{e^{z_i/T}}{\sum_j e^{z_j/T}} . $$

# %% [markdown]
# ??? q="temperature_limits"

# %% [markdown]
# ### ✎ softmax_temperature


# %% exercise="softmax_temperature"
def softmax_temperature(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Softmax adouci (ou durci) par une température, sur le dernier axe.

    logits : (…, V) flottant, un score par mot, sans unité, éventuellement très grands (1 000 ou −1 000).
    temperature : T > 0, sans unité ; entière ou non.
    Rend (…, V), du type de logits : exp(z_i / T) / Σ_j exp(z_j / T), positif, de somme 1 sur le dernier axe, sans nan.
    Lève ValueError si temperature ≤ 0.

    Source : Hinton, Vinyals et Dean, « Distilling the Knowledge in a Neural Network », 2015, équation (1).
    """
    ### BEGIN SOLUTION
    if temperature <= 0:
        raise ValueError(f"une température est strictement positive, pas {temperature}")
    return torch.softmax(logits / temperature, dim=-1)
    ### END SOLUTION


# %%
ch4.temperature(colibri, tokenizer, "La demande doit être adressée par", softmax_temperature)

# %% [markdown]
# L'ordre des mots ne change jamais, seulement leurs écarts : à droite, l'entropie passe de la certitude à l'ignorance
# complète. Au chapitre 1, la température servait à écrire ; ici, elle sert à écouter.
#
# ## 4.4 Comparer deux lois
#
# L'élève doit dire ce que dit l'enseignant. Il faut un nombre qui mesure leur désaccord. La diapositive donne la
# **divergence de Kullback-Leibler** :
#
# $$ D_{\mathrm{KL}}(P \,\|\, Q) = \sum_{x} P(x) \ln \frac{P(x)}{Q(x)} . $$
#
# Lisez-la ainsi : le nombre moyen de nats que l'on perd à croire $Q$ quand $P$ est vraie.
#
# ??? q="kl_infinite"

# %% [markdown]
# ### ✎ kl_divergence


# %% exercise="kl_divergence"
def kl_divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Divergence de Kullback-Leibler de P à Q, D(P ‖ Q), sur le dernier axe, en nats.

    p, q : (…, V) flottants de même forme, des probabilités (positives ou nulles, de somme 1 sur le dernier axe).
    Rend (…), du type de p : Σ_x p(x)·ln(p(x) / q(x)), une valeur par loi.
    Là où p(x) = 0, le terme vaut 0, même si q(x) = 0 aussi ; là où p(x) > 0 et q(x) = 0, la somme vaut +inf.

    Source : Kullback et Leibler, « On Information and Sufficiency », 1951.
    """
    ### BEGIN SOLUTION
    terms = torch.where(p > 0, p * (torch.log(p) - torch.log(q)), torch.zeros_like(p))
    return terms.sum(dim=-1)
    ### END SOLUTION


# %% [markdown]
# **Calculez de tête** le signe et l'ordre de grandeur de chaque ligne avant d'exécuter.

# %%
ch4.kl_facts(kl_divergence)

# %% [markdown]
# Jamais négative, nulle seulement entre deux lois égales, pas symétrique, et infinie quand $Q$ exclut ce que $P$ croit
# possible. Un softmax ne donne jamais zéro tout à fait, mais un mot presque exclu coûte déjà très cher.
#
# Le sens compte-t-il vraiment ? L'enseignant $P$ a deux façons de parler ; l'élève $Q$, trop simple, n'en peut avoir
# qu'une. **Placez-le** pour rendre la première divergence la plus petite possible, puis la seconde.

# %%
ch4.fit_by_hand(kl_divergence)

# %%
ch4.two_directions(kl_divergence)

# %% [markdown]
# Avec $D(P \,\|\, Q)$, l'élève **couvre** tout ce que l'enseignant croit possible (*mode covering*), quitte à croire
# aussi ce qui est entre les deux. Avec $D(Q \,\|\, P)$, il **choisit** une façon de parler et ignore l'autre (*mode
# seeking*). La distillation de Hinton prend la première. Pour faire écrire un petit modèle, d'autres ont défendu la
# seconde (MiniLLM, Gu et al., 2024).
#
# ??? q="cover_or_seek"
#
# ## 4.5 Tailler l'élève
#
# On pourrait partir de poids tirés au hasard. Plus économe : **hériter**. L'élève reçoit les tables de Colibri, sa
# dernière normalisation, et quelques-uns de ses blocs. DistilBERT (Sanh et al., 2019) prend un bloc sur deux.
# **Lesquels garderiez-vous**, s'il n'en faut que deux sur cinq ?

# %% [markdown]
# ### ✎ student_layers


# %% exercise="student_layers"
def student_layers(n_teacher: int, n_student: int) -> list[int]:
    """Couches de l'enseignant données à l'élève : la première, la dernière, les autres régulièrement entre les deux.

    n_teacher, n_student : nombres de couches.
    Rend n_student numéros croissants, comptés à partir de 0 : la couche i de l'élève vient de
    round(i·(n_teacher − 1) / (n_student − 1)) ; à mi-chemin exact entre deux couches, on prend celle de numéro pair
    (c'est ce que fait round en Python). Un élève d'une seule couche reçoit [0].
    Lève ValueError si n_student < 1 ou n_student > n_teacher.

    Source : Sanh et al., « DistilBERT », 2019, § 3 (une couche sur deux) ; la règle arrondie est celle du cours.
    """
    ### BEGIN SOLUTION
    if not 1 <= n_student <= n_teacher:
        raise ValueError(f"un élève de {n_student} couches ne se taille pas dans un enseignant de {n_teacher}")
    if n_student == 1:
        return [0]
    return [round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]
    ### END SOLUTION


# %% [markdown]
# ### ✎ build_student


# %% exercise="build_student"
def build_student(teacher: GPT2LMHeadModel, layers: list[int]) -> GPT2LMHeadModel:
    """Nouveau GPT-2 fait de quelques blocs d'un autre.

    teacher : GPT-2 de transformers, qui n'est pas modifié.
    layers : numéros (à partir de 0) des blocs à garder, tous différents, dans l'ordre où l'élève les aura.
    Rend un GPT2LMHeadModel en mode évaluation, à len(layers) blocs : ces blocs, les plongements des jetons et des
    positions et le dernier LayerNorm de l'enseignant, **copiés** (aucun tenseur n'est partagé avec lui) ; sa
    configuration annonce le bon nombre de blocs (n_layer) ; sa tête est liée à sa propre table des jetons, comme dans
    tout GPT-2 ; il sait se servir d'un cache K/V.

    Source : Sanh et al., « DistilBERT », 2019, § 3 (un élève initialisé avec les couches de son enseignant).
    """
    ### BEGIN SOLUTION
    config = copy.deepcopy(teacher.config)
    config.n_layer = len(layers)
    student = GPT2LMHeadModel(config).to(teacher.device, teacher.dtype).eval()
    weights = {name: w for name, w in teacher.state_dict().items() if ".h." not in name}
    for i, j in enumerate(layers):
        for name, w in teacher.transformer.h[j].state_dict().items():
            weights[f"transformer.h.{i}.{name}"] = w
    student.load_state_dict(weights)
    return student
    ### END SOLUTION


# %% [markdown]
# Rien n'a encore appris. Que reste-t-il de Colibri, bloc après bloc ?

# %%
ch4.depths_before(colibri, build_student, student_layers, tokens=atelier.scale().pick(essai=512, cpu=2048, gpu=8192))

# %% [markdown]
# Avec tous ses blocs, l'élève est Colibri : c'est votre vérification. Le nombre de paramètres baisse peu à peu, la
# perplexité s'envole. Les tables, elles, ne rétrécissent pas : dans un si petit modèle, elles pèsent lourd (chapitre
# 1).
#
# Et parmi les dix façons de garder deux blocs ?

# %%
ch4.pairs_before(colibri, build_student, tokens=atelier.scale().pick(essai=512, cpu=2048, gpu=8192))

# %% [markdown]
# Un bloc ne sert pas seul : il lit ce que les précédents ont écrit. Le premier écrit ce que tous les autres lisent,
# le dernier ce que lit la tête. Cette figure dit d'où l'on part, pas où l'on arrive : nous y reviendrons après
# l'apprentissage.
#
# ## 4.6 La perte douce
#
# L'objectif de la diapositive, « minimizing KL divergence between teacher output and student output », à une
# température $T$ :
#
# $$ \mathcal L_{\text{doux}} = T^2 \cdot D_{\mathrm{KL}}\big(p^{\text{enseignant}}(T) \,\|\, p^{\text{élève}}(T)\big) . $$
#
# D'où sort $T^2$ ? Sans lui, le gradient par rapport au score $z_i$ de l'élève est $(q_i - p_i)/T$, où $p$ et $q$
# sont les lois adoucies de l'enseignant et de l'élève : une division par $T$. La seconde se cache dans $q_i - p_i$ :
# quand $T$ est grand, les deux lois se rapprochent de la loi uniforme, et leur écart devient proportionnel à $1/T$.
# **Pariez :** sans ce facteur, par combien le gradient est-il divisé entre $T = 1$ et $T = 32$ ? Par 32, par 1 000,
# par plus ?

# %% [markdown]
# ### ✎ distillation_loss


# %% exercise="distillation_loss"
def distillation_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 2.0
) -> torch.Tensor:
    """Perte douce : T² fois la divergence de l'enseignant à l'élève, l'un et l'autre adoucis à la température T.

    student_logits, teacher_logits : (…, V) flottants de même forme, au moins deux axes ; des scores, pas des
        probabilités. temperature : T > 0, sans unité.
    Rend un tenseur à 0 dimension, en nats : T²·moyenne, sur **toutes** les positions (tous les axes sauf le dernier),
    de D(softmax(teacher / T) ‖ softmax(student / T)). Il se dérive par rapport à student_logits ; aucun gradient ne va
    à teacher_logits.
    Lève ValueError si temperature ≤ 0.

    Source : Hinton, Vinyals et Dean, « Distilling the Knowledge in a Neural Network », 2015, § 2.
    """
    ### BEGIN SOLUTION
    if temperature <= 0:
        raise ValueError(f"une température est strictement positive, pas {temperature}")
    teacher = torch.log_softmax(teacher_logits.detach() / temperature, dim=-1)
    student = torch.log_softmax(student_logits / temperature, dim=-1)
    divergence = (teacher.exp() * (teacher - student)).sum(dim=-1)
    return temperature**2 * divergence.mean()
    ### END SOLUTION


# %%
ch4.gradients(colibri, build_student, distillation_loss)

# %% [markdown]
# Aux deux bouts, la courbe bleue est plate : $T^2$ compense ce que la division avait pris. Entre les deux, elle
# descend une marche : la probabilité quitte quelques mots pour s'étaler sur les 4 096, et le gradient avec elle. Le
# facteur $T^2$ ne fait donc pas tout, mais sans lui changer $T$ changerait le gradient de plusieurs ordres de
# grandeur, et $\alpha$ ne voudrait plus rien dire.
#
# À droite, une seconde chose : quand $T$ grandit, le gradient finit par pointer vers l'écart des **logits**
# eux-mêmes. À haute température, distiller, c'est recopier les logits (Hinton et al., 2015, § 2.1) ; à basse
# température, c'est écouter surtout les mots probables.
#
# ??? q="t_squared"
#
# On n'a pas à choisir entre le texte et l'enseignant :
#
# $$ \mathcal L = \alpha\, \mathcal L_{\text{doux}} + (1 - \alpha)\, \mathcal L_{\text{dur}} . $$
#
# Dans un modèle de langue, deux détails font échouer : le décalage d'un jeton, et les positions à ignorer, qui ne
# doivent compter dans **aucun** des deux termes.

# %% [markdown]
# ### ✎ combined_loss


# %% exercise="combined_loss"
def combined_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 2.0,
    alpha: float = 0.5,
) -> torch.Tensor:
    """Perte d'un élève qui apprend du texte et de son enseignant à la fois.

    student_logits, teacher_logits : (B, T, V) flottants, un score par mot après chaque jeton lu ;
    labels : (B, T) entiers, les jetons du texte, −100 là où il n'y a rien à prédire (une cible au moins est gardée).
        Les scores du rang t sont ceux du jeton t + 1 : la perte fait le décalage, pour ses deux termes.
    temperature : T > 0, sans unité ; alpha : part du terme doux, entre 0 et 1.
    Rend un tenseur à 0 dimension, en nats : alpha·doux + (1 − alpha)·dur, deux moyennes sur les mêmes positions,
    celles dont la cible labels[:, t + 1] n'est pas −100 ; doux est la perte de distillation (T² compris), dur
    l'entropie croisée, sans température. Aucun gradient ne va à teacher_logits.
    Lève ValueError si temperature ≤ 0.

    Source : Hinton, Vinyals et Dean, 2015, § 2 ; Sanh et al., « DistilBERT », 2019, § 2.
    """
    ### BEGIN SOLUTION
    targets = labels[:, 1:]
    kept = targets != -100
    student, teacher = student_logits[:, :-1], teacher_logits[:, :-1]
    soft = distillation_loss(student[kept], teacher[kept], temperature)
    hard = F.cross_entropy(student[kept], targets[kept])
    return alpha * soft + (1 - alpha) * hard
    ### END SOLUTION


# %% [markdown]
# ## 4.7 Trois élèves, mêmes fenêtres, mêmes pas
#
# Trois élèves faits des blocs 0 et 4, partis des mêmes poids, lisent les mêmes fenêtres du texte de Colibri. L'un n'a
# que les étiquettes dures ($\alpha = 0$), l'un que les douces ($\alpha = 1$), le troisième les deux ($\alpha =
# 0{,}5$), avec $T = 2$. Vos fonctions calculent les pertes. Le taux d'apprentissage est le même pour tous : le
# meilleur de trois essayés avec les étiquettes dures, à qui l'avantage est donc laissé. **Pariez sur l'ordre
# d'arrivée.**

# %%
lesson_results = ch4.three_lessons(
    colibri, build_student, combined_loss, steps=atelier.scale().pick(essai=3, cpu=75, gpu=150), tokens=extract_tokens
)

# %% [markdown]
# Les bandes sont celles de trois graines de l'auteur (l'ordre des fenêtres change) : un écart plus petit qu'une bande
# ne prouve rien. Le dessin suit le début du texte de validation, plus facile que le reste : ne comparez ses hauteurs
# qu'entre elles, et les chiffres du tableau de même. Regardez aussi la dernière colonne du tableau : un pas avec
# enseignant coûte plus cher, puisque Colibri lit le lot, lui aussi. Une comparaison à nombre de pas égal lui fait
# cadeau de ce temps. La voici à **durée** égale : les étiquettes dures ont droit à plus de pas.

# %%
ch4.equal_cost(lesson_results, build_student, combined_loss)

# %% [markdown]
# Deux élèves dont les graines se mêlent ne sont pas départagés, quel que soit l'ordre de leurs moyennes. C'est la
# question à poser à toute courbe de distillation : qu'est-ce qui est tenu égal ? Les pas, les jetons, la durée, ou
# rien ?
#
# On pourrait ne calculer les étiquettes douces qu'une fois et les garder sur disque : l'enseignant ne coûterait plus
# rien aux élèves suivants. Colibri donne 4 096 scores par jeton. **Combien pèserait**, en FP16, un texte d'un million
# de jetons ?

# %%
vocabulary, text_tokens, kept = colibri.config.vocab_size, 10**6, 20
print("toutes les étiquettes :", byte_size(vocabulary * text_tokens * 2))
print(f"les {kept} plus probables, et leurs numéros :", byte_size(kept * text_tokens * (2 + 2)))

# %% [markdown]
# On n'en garde donc souvent que les plus probables. Que faire alors de tous les autres ? On ne sait plus ce que
# l'enseignant pensait de chacun, mais on sait ce qu'il leur donnait **ensemble** : ce qui manque à la somme. Cela fait
# $k + 1$ événements, les $k$ jetons gardés et « un autre », et l'élève en a autant.

# %% [markdown]
# ### ✎ topk_kl


# %% exercise="topk_kl"
def topk_kl(student_logits: torch.Tensor, top_log_probs: torch.Tensor, top_ids: torch.Tensor) -> torch.Tensor:
    """Divergence de l'enseignant à l'élève, quand on n'a gardé de l'enseignant que ses k jetons les plus probables.

    student_logits : (…, V) flottants, tous les scores de l'élève ;
    top_log_probs : (…, k) flottants, les log-probabilités (en nats) des k jetons gardés, k < V ;
    top_ids : (…, k) entiers, leurs numéros dans le vocabulaire.
    Les événements comparés sont ces k jetons et un dernier, « n'importe quel autre », des deux côtés.
    Rend un tenseur à 0 dimension, en nats, du type de student_logits : la moyenne sur toutes les positions (tous les
    axes sauf le dernier). Il se dérive par rapport à student_logits.
    """
    ### BEGIN SOLUTION
    log_q = torch.log_softmax(student_logits, dim=-1)
    kept = log_q.gather(-1, top_ids)
    p = top_log_probs.exp()
    rest_p = (1 - p.sum(-1)).clamp(min=0)
    rest_q = (1 - kept.exp().sum(-1)).clamp(min=1e-12)
    terms = (p * (top_log_probs - kept)).sum(-1)
    rest = torch.xlogy(rest_p, rest_p) - rest_p * torch.log(rest_q)
    return (terms + rest).mean()
    ### END SOLUTION


# %% [markdown]
# Ici, Colibri relit chaque lot, et son temps est compté.
#
# **Bien dire son doute.** Un modèle est bien **calibré** (*calibrated*) si, parmi les fois où il annonce 70 %, il a
# raison 70 fois sur 100. L'**ECE** (*expected calibration error*, Guo et al., 2017) est l'écart moyen entre
# confiance, la probabilité du premier choix, et justesse, la part des fois où ce choix est le bon. Sur la figure,
# plus un disque est grand, plus de jetons y tombent.

# %%
ch4.calibrations(colibri, lesson_results, build_student, combined_loss, extract_tokens)

# %% [markdown]
# Un point sous la diagonale : le modèle se croyait plus sûr qu'il ne l'est ; au-dessus, il était trop modeste. Lisez
# surtout la dernière colonne, trois graines par recette : les étiquettes qui donnent la meilleure perplexité ne
# donnent pas forcément la meilleure calibration. Une explication possible : à $T = 2$, l'élève est noté sur des lois
# adoucies ; rien ne l'oblige à être juste à $T = 1$, où on le consulte. Le terme dur, lui, n'a pas de température.
#
# ## 4.8 Deux témoins
#
# **Les blocs.** Après apprentissage, le choix des blocs compte-t-il encore ?

# %%
ch4.layers_compared()

# %% [markdown]
# L'écart de départ est immense ; regardez ce qu'il en reste, et comparez-le à l'écart entre graines.
#
# **Le départ.** Et si l'élève n'hérite de rien ?
#
# ??? q="random_start"

# %%
ch4.random_start()

# %% [markdown]
# L'avantage des étiquettes douces n'est pas une loi : il a été mesuré sur un élève qui hérite. Regardez aussi l'écart
# entre graines, à droite. Notre lecture, qui n'est pas une preuve : pour qui part de rien, le plus pressé est
# d'apprendre quels mots sont fréquents, et le texte le dit aussi bien. Le taux d'apprentissage a été choisi pour
# l'élève qui hérite, et cent fois plus de pas pourraient tout changer : nous ne l'avons pas mesuré.
#
# ## 4.9 Régler T et α
#
# Deux réglages, donc une carte. Chaque case est la moyenne de trois apprentissages courts de l'auteur, trois graines.
# **Avant d'exécuter**, choisissez un point qui n'y est pas : il sera calculé ici, avec votre perte et une seule
# graine, et posé sur la carte.

# %%
my_temperature, my_alpha = 3.0, 0.8
ch4.grid(
    colibri,
    build_student,
    combined_loss,
    my_temperature,
    my_alpha,
    steps=atelier.scale().pick(essai=2, cpu=75, gpu=75),
    tokens=extract_tokens,
)

# %% [markdown]
# La ligne du bas n'a pas d'enseignant : $T$ n'y change rien. Cherchez une région, pas une case : des cases voisines
# diffèrent souvent de moins que deux graines. Et ce réglage vaut pour cet élève, ce texte et cette durée.
#
# ## 4.10 « Distillation = model ensembling »
#
# La diapositive l'affirme, et en tire que l'on peut distiller vers un modèle de même architecture
# (*self-distillation*). Prenons l'affirmation au sérieux. Un **ensemble**, ce sont plusieurs modèles que l'on
# consulte tous, et dont on fait la moyenne. La moyenne de quoi ?

# %% [markdown]
# ### ✎ ensemble_probs


# %% exercise="ensemble_probs"
def ensemble_probs(logits: torch.Tensor) -> torch.Tensor:
    """Loi d'un ensemble de modèles : la moyenne de leurs probabilités.

    logits : (M, …, V) flottant, les scores de M modèles pour les mêmes positions, éventuellement très grands.
    Rend (…, V), du type de logits : (1/M)·Σ_m softmax(logits[m]), de somme 1 sur le dernier axe, sans nan.

    Source : Hinton, Vinyals et Dean, 2015, § 1 ; Dietterich, « Ensemble Methods in Machine Learning », 2000.
    """
    ### BEGIN SOLUTION
    return torch.softmax(logits, dim=-1).mean(dim=0)
    ### END SOLUTION


# %% [markdown]
# Vos trois élèves, consultés ensemble. **Pariez :** l'ensemble fait-il mieux que le meilleur des trois ?

# %%
ch4.live_ensemble(lesson_results, build_student, combined_loss, ensemble_probs, extract_tokens)

# %% [markdown]
# Son avance sur le meilleur est-elle plus grande que l'écart entre deux graines ? Et ces trois-là n'ont pas eu les
# mêmes étiquettes. Plus proprement : trois élèves d'étiquettes dures, qui ne diffèrent que par la graine. Deux façons
# de les rendre différents : l'ordre des fenêtres seulement, ou aussi leurs poids de départ.

# %%
ch4.ensembles()

# %% [markdown]
# Comparez les gains relatifs, pas les hauteurs : à droite, les élèves partent de rien. On attendrait plus de gain là
# où les membres diffèrent davantage ; est-ce le cas ? Notre lecture : après si peu de pas, une bonne part de l'erreur
# d'un élève est le bruit de ses derniers lots, et une moyenne l'efface. La moyenne des logits, elle, est une autre
# loi : le produit des avis, normalisé.
#
# L'ensemble coûte trois passages à chaque usage. D'où l'idée de 2015 : le **distiller** dans un seul élève. Et le cas
# extrême : un élève dont l'enseignant est son pareil, ni plus grand ni meilleur. Tous partent ici des blocs 0 et 4.

# %%
ch4.who_teaches()

# %% [markdown]
# Lisez la figure en gardant les témoins en vue : la première ligne n'a aucun enseignant, la deuxième non plus, mais
# deux fois plus de pas. Un enseignant plus grand, un ensemble, un pareil : lesquels battent la première ? Lesquels
# battent la deuxième ?
#
# Ce que disent les articles :
#
# - Hinton et al. (2015, tableau 1) : un ensemble de dix réseaux acoustiques reconnaît 61,1 % des trames, un seul 58,9
#   %, un seul distillé de l'ensemble 60,8 % : l'essentiel du gain tient dans un seul réseau.
# - *Born-again networks* (Furlanello et al., 2018) : un élève de même architecture que son enseignant peut le
#   dépasser, en vision et en modélisation de la langue.
# - Allen-Zhu et Li (2023) : pour des réseaux partis de poids **différents**, sur des données où une classe se
#   reconnaît à plusieurs indices (« multi-view »), ils démontrent que l'ensemble gagne, qu'un élève peut en hériter,
#   et que l'auto-distillation revient à combiner implicitement un ensemble et une distillation.
#
# Aucun ne dit « = ». Chez nous, à pas égaux, un enseignant qui n'en sait pas plus que l'élève l'aide déjà ; mais
# doubler les pas sans enseignant en fait au moins autant, et l'enseignant, lui aussi, a coûté des pas.
#
# ??? q="ensemble_claim"
#
# ## 4.11 Les grands élèves, et les nôtres
#
# DistilBERT et DistilGPT2 ont appris bien plus longtemps, d'enseignants bien plus grands. Mettez leurs chiffres et
# les nôtres côte à côte, en comparant des **rapports** : l'avant-dernière colonne.

# %%
ch4.beside_the_papers(colibri)

# %% [markdown]
# Retirer la moitié des blocs n'a pas le même prix. Deux raisons au moins, que cette figure ne sépare pas : Colibri
# n'a que cinq blocs, et chacun compte, quand BERT en a douze, sans doute plus redondants ; et nos élèves n'ont appris
# que quelques dizaines de pas.
#
# ## 4.12 Réparer un Colibri trop arrondi
#
# À 3 bits par poids, l'arrondi au plus proche du chapitre 3 abîmait Colibri ; à 2 bits, il n'en restait rien.
# L'enseignant est pourtant là, intact. ZeroQuant répare ainsi un modèle arrondi, bloc par bloc. Nous le ferons d'un
# coup, sur tout le modèle : à chaque passage, les poids sont arrondis ; à chaque pas, ce sont les poids gardés en
# FP32 qui bougent.
#
# ??? q="straight_through"

# %%
ch4.straight_through()

# %% [markdown]
# L'**estimateur direct** (*straight-through estimator*, Bengio et al., 2013) emploie l'escalier en avant et lui
# prête une pente de 1 en arrière. En PyTorch, une ligne : `w + (rounded(w) - w).detach()`. La valeur est celle de
# l'arrondi, le gradient celui de `w`.
#
# **Pariez :** en quarante pas, un Colibri sur 3 bits retrouve-t-il la perplexité de GPTQ sur 4 bits ?

# %%
repaired_student = ch4.repair(
    colibri, combined_loss, bits=3, steps=atelier.scale().pick(essai=2, cpu=40, gpu=40), tokens=extract_tokens, lr=5e-4
)

# %% [markdown]
# À 3 bits, quelques dizaines de pas rendent la plus grande part de ce que l'arrondi avait pris, et GPTQ sur 4 bits
# reste loin devant. Comparez aussi les deux colonnes réparées : à pas égaux, les étiquettes douces rendent un peu
# plus que les dures, le passage de l'enseignant n'étant pas compté.
#
# À 2 bits, un poids n'a plus que trois valeurs : mettez le curseur de l'escalier sur 2. Les mêmes quarante pas font
# tomber la perplexité de plusieurs milliers à quelques centaines ; le modèle reste hors d'usage. Combien de pas
# faudrait-il ? Nous ne l'avons pas mesuré.
#
# Enfin, retournez au tableau de GPTQ, au chapitre 3 : sur 3 bits par canal, sans un seul pas d'apprentissage, quel
# rapport à Colibri atteignait-il ? Mieux arrondir vaut mieux, ici, que réparer si peu de temps un arrondi grossier.
# On peut faire les deux, arrondir par GPTQ puis réparer ; nous ne l'avons pas mesuré non plus.
#
# ## 4.13 Où en est Colibri
#
# Deux lignes de plus au tableau : l'élève de deux blocs, et le Colibri réparé, dont le fichier serre ses codes de 3
# bits les uns contre les autres.

# %%
ch4.row_student(lesson_results, build_student, combined_loss)
ch4.row_repaired(repaired_student, combined_loss, bits=3)

# %%
atelier.board()

# %% [markdown]
# À octets comparables, qui l'emporte ici ? La quantification, et nettement : cinq blocs arrondis valent mieux que
# deux blocs exacts. Mais regardez la colonne du temps : un poids sur 3 bits calculé en FP32 ne va pas plus vite,
# alors que l'élève a vraiment moins de travail. Sur GPT-2 et au-delà, où les blocs sont plus nombreux et plus
# redondants, on fait souvent les deux.
#
# **Ce que vous savez maintenant.** Une étiquette douce dit tout ce qu'un texte tait. La température ouvre l'écoute,
# et $T^2$ garde aux gradients leur taille. Le sens de la divergence décide entre couvrir et choisir. Hériter des
# blocs compte plus que les étiquettes, et l'avantage des douces se juge à durée égale, avec un témoin et plusieurs
# graines. Un ensemble, ou même un pareil, enseigne ; mais il faut compter ce qu'il a coûté. Et la distillation sait
# aussi réparer, jusqu'à un certain point.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Hinton, Vinyals et Dean, *Distilling the Knowledge in a Neural Network*, 2015, arXiv 1503.02531 ·
# Kullback et Leibler, *On Information and Sufficiency*, 1951 · Sanh et al., *DistilBERT*, 2019, arXiv 1910.01108, et
# fiche de `distilgpt2` · Gu et al., *MiniLLM*, 2024, arXiv 2306.08543 · Guo et al., *On Calibration of Modern Neural
# Networks*, 2017, arXiv 1706.04599 · Dietterich, *Ensemble Methods in Machine Learning*, 2000 · Furlanello et al.,
# *Born-Again Neural Networks*, 2018, arXiv 1805.04770 · Allen-Zhu et Li, *Towards Understanding Ensemble, Knowledge
# Distillation and Self-Distillation in Deep Learning*, 2023, arXiv 2012.09816 · Bengio et al., *Estimating or
# Propagating Gradients Through Stochastic Neurons*, 2013, arXiv 1308.3432 · Yao et al., *ZeroQuant*, 2022, arXiv
# 2206.01861
