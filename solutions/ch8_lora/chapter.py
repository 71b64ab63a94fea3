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
# # Chapitre 8 · LoRA
#
# Pour apprendre la fantasy, un fine-tuning complet déplace les trois millions de nombres de Colibri. **Avant d'aller
# plus loin :** combien de ces déplacements sont vraiment différents les uns des autres ? Si presque tous se
# ressemblaient, combien de nombres suffiraient à les décrire ?
#
# Dans ce chapitre, vous regardez ce qu'un fine-tuning change, vous écrivez LoRA, vous le posez dans Colibri, et vous
# tranchez par la mesure une contradiction des diapositives. Comptez deux heures pour l'essentiel ; les exercices
# marqués « approfondissement » sont un bonus. Tant qu'un exercice n'est pas fait, les figures qui en dépendent
# montrent le résultat de l'auteur et le disent.

# %%
import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch8

atelier.describe_machine()

# %% tags=["setup"]
import math
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
extract_tokens = atelier.scale().pick(essai=512, cpu=2048, gpu=65536)
training_steps = atelier.scale().pick(essai=4, cpu=80, gpu=80)

print("sur la langue générale (A) :", atelier.evaluate_perplexity(colibri, max_tokens=extract_tokens))
print("sur la fantasy (B)         :", atelier.evaluate_perplexity(colibri, "b_validation", max_tokens=extract_tokens))

# %% [markdown]
# Colibri n'a jamais lu de fantasy, et cela se voit. Tout le chapitre tient dans cet écart : le réduire, avec le moins
# de nombres possible, et sans abîmer la première ligne.
#
# ## 8.1 Ce qu'un fine-tuning change
#
# Un vrai fine-tuning, court. Pour que tout le changement soit dans des matrices, seules les quatre couches linéaires de
# chaque bloc apprennent ; tables, biais et LayerNorm restent gelés.

# %%
fully_tuned = ch8.fine_tune(colibri, steps=atelier.scale().pick(essai=4, cpu=60, gpu=80))
ch8.size_of_change(colibri, fully_tuned)

# %% [markdown]
# Appelons $\Delta W$ ce changement, une matrice par couche. La dernière colonne dit sa taille ; est-il **riche**, ou
# pauvre ? On le mesure en le décomposant. Toute matrice s'écrit comme une somme de matrices de **rang** 1, rangées de
# la plus forte à la plus faible : c'est la **décomposition en valeurs singulières** (*singular value decomposition*,
# SVD),
#
# $$ M = \sum_i \sigma_i\, u_i v_i^\top, \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0, $$
#
# où les $u_i$ sont orthogonaux entre eux, et les $v_i$ aussi. Garder les $r$ premiers termes donne la meilleure
# approximation de rang $r$ (Eckart et Young, 1936).

# %% [markdown]
# ### ✎ low_rank


# %% exercise="low_rank"
def low_rank(w: torch.Tensor, rank: int) -> tuple[torch.Tensor, float]:
    """Meilleure approximation de w par une matrice de rang au plus `rank`, et l'erreur qu'elle commet.

    w : (d, k) flottant (float32 ou float64), non nul, de forme quelconque ; rank : entier.
    Rend (w_r, erreur) : w_r, (d, k) du type de w, la matrice de rang ≤ rank la plus proche de w pour la norme de
    Frobenius ; erreur, un float de Python sans unité : ‖w − w_r‖ / ‖w‖, entre 0 et 1.

    Source : Eckart et Young, « The approximation of one matrix by another of lower rank », 1936.
    """
    ### BEGIN SOLUTION
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    w_r = (u[:, :rank] * s[:rank]) @ vt[:rank]
    error = torch.linalg.norm(s[rank:]) / torch.linalg.norm(s)
    return w_r, float(error)
    ### END SOLUTION


# %% [markdown]
# `check` essaie de petites matrices. Voici l'épreuve qui compte : on garde, de chaque $\Delta W$ que vous venez de
# produire, les $r$ directions les plus fortes, et l'on remet le tout dans Colibri. **Pariez :** à partir de quel rang
# la perplexité ne s'en aperçoit-elle plus ? Une couche d'attention peut aller jusqu'à 192.

# %%
ch8.truncate(
    colibri,
    fully_tuned,
    low_rank,
    ranks=atelier.scale().pick(essai=(1, 8), cpu=(1, 4, 16, 64), gpu=(1, 2, 4, 8, 16, 32, 64)),
    max_tokens=extract_tokens,
)

# %% [markdown]
# Regardez les deux colonnes ensemble : l'**énergie** est la part de $\sum_i \sigma_i^2$, et elle ne dit pas tout. Le
# même essai par l'auteur, à tous les rangs, avec deux fine-tunings : l'un des seules couches linéaires, comme le vôtre,
# l'autre de tout le modèle. La troisième courbe annonce la suite du chapitre : au lieu de tronquer à la fin, on apprend
# d'emblée au rang $r$.

# %%
ch8.rank_and_perplexity()

# %% [markdown]
# Trois choses à lire.
#
# - Tronquer après coup n'a pas de palier : suivez les ronds, chaque doublement du rang apporte encore quelque chose. À
#   notre échelle, $\Delta W$ **n'est pas** de rang très faible. L'article trouve mieux sur GPT-3, où $r = 1$ suffit
#   déjà à $W_q$ et $W_v$ (§ 7.2).
# - **Apprendre** sous la contrainte vaut mieux que tronquer, dans les mêmes couches : à rang égal, comparez les
#   triangles aux ronds, puis au trait des couches linéaires. Ne lisez pas tout l'écart comme le prix du rang : LoRA a
#   son propre taux d'apprentissage, alors que le fine-tuning des seules couches linéaires a pris celui de « tout ».
# - Les carrés sont déjà bas au rang 1, et ce n'est pas grâce au rang : là, la table des jetons, les biais et les
#   LayerNorm ont appris aussi, et leur changement est gardé en entier. La première phrase sous la figure ôte même tout
#   $\Delta W$ : à cette échelle, une bonne part de ce que gagne un fine-tuning complet est **hors** des couches
#   linéaires, donc hors de portée de LoRA. La section 8.8 le redira autrement.
#
# La dernière phrase sous la figure inflige le même traitement aux poids $W$ eux-mêmes. Eux ne se tronquent pas.
#
# ??? q="full_rank"

# %% [markdown]
# Voici l'énergie gardée en fonction du rang, pour $\Delta W$ et pour $W$. Le trait pointillé est une matrice gaussienne
# de mêmes dimensions : ce que l'on verrait s'il n'y avait rien à voir. Le trait gris vertical est le rang 8.

# %%
ch8.spectra(colibri)

# %% [markdown]
# $\Delta W$ est bien plus concentré que le hasard, et que $W$, qui lui ressemble presque ; mais il faut encore des
# dizaines de directions pour 90 % de son énergie. La diapositive écrit « the intrinsic rank of the weight matrices in a
# large language model is low » ; l'article dit autre chose, « the change in weights during model adaptation also has a
# low "intrinsic rank" » (Hu et al., 2022, § 1). C'est une hypothèse sur le **changement**, et elle n'est vraie ici qu'à
# moitié : pas au sens d'un rang que l'on pourrait lire dans $\Delta W$, mais au sens où n'apprendre que peu de
# directions d'une couche fait presque aussi bien que les apprendre toutes.
#
# ## 8.2 N'apprendre que ce que l'on garderait
#
# Pour apprendre d'emblée un $\Delta W$ de rang $r$, il suffit de l'écrire comme un produit. On gèle $W$, on pose
#
# $$ \Delta W = \frac{\alpha}{r}\, B A, \qquad B \in \mathbb{R}^{d \times r},\ A \in \mathbb{R}^{r \times k}, $$
#
# et l'on n'apprend que $A$ et $B$. C'est **LoRA** (*low-rank adaptation*). Les diapositives le rangent parmi les
# méthodes de **reparamétrisation** (*reparametrization*) : mêmes poids à l'arrivée, écrits autrement pendant
# l'apprentissage.

# %%
ch8.drawing()

# %% [markdown]
# **Comptez d'abord :** la matrice `c_attn` de Colibri est de forme 576 × 192. Combien de nombres pour $\Delta W$
# écrit en entier, et combien pour $r = 4$ ?

# %% [markdown]
# ### ✎ lora_num_params


# %% exercise="lora_num_params"
def lora_num_params(shapes: list[tuple[int, int]], rank: int) -> int:
    """Nombre de paramètres que LoRA entraîne.

    shapes : liste de formes (d, k), une par matrice adaptée, toutes différentes peut-être ; une liste vide est
        permise ; rank : le rang r, le même pour toutes.
    Rend un int : pour chaque matrice, les nombres de B, (d, r), et de A, (r, k).

    Source : Hu et al., « LoRA », ICLR 2022, § 4.2.
    """
    ### BEGIN SOLUTION
    return sum(rank * (d + k) for d, k in shapes)
    ### END SOLUTION


# %% [markdown]
# L'article adapte GPT-3, 175 milliards de paramètres. Sa phrase la plus citée promet **10 000 fois** moins de
# paramètres à entraîner. Votre formule, avec ses nombres à lui :

# %%
ch8.gpt3_numbers(lora_num_params)

# %% [markdown]
# Le « 10 000 » est un arrondi, et il dépend de ce que l'on adapte : cherchez à quelle ligne il correspond. Une autre
# ligne ne tombe pas juste : l'annexe D.4 donne 37,7 M pour quatre matrices à $r = 2$, et la formule de l'article n'en
# donne que la moitié. Nous ne savons pas d'où vient l'écart.

# %% [markdown]
# ## 8.3 Par où commencer
#
# Le modèle adapté doit partir du modèle de base, pas d'ailleurs : au début, $BA$ doit être nul. Il y a trois façons de
# l'obtenir. La diapositive dit « A is initialized with random Gaussian Initialization, B is initialized to zero ».
# Pourquoi pas l'inverse ? Pourquoi pas deux zéros ?
#
# ??? q="both_factors_zero"

# %% [markdown]
# ### ✎ LoRALinear


# %% exercise="LoRALinear"
class LoRALinear(nn.Module):
    """Une couche linéaire gelée, et sa mise à jour de rang faible.

    base : nn.Linear, avec ou sans biais, ou Conv1D de transformers, qui range son poids en (entrée, sortie) ; elle
        est gelée ici, ses valeurs ne changent jamais.
    rank : le rang r ; alpha : nombre sans unité, la mise à jour est multipliée par alpha / rank.
    Les deux seuls paramètres qui apprennent sont lora_A, (r, entrée), tiré d'une loi normale centrée, et lora_B,
    (sortie, r), nul au départ : la couche répond alors exactement comme la base.
    forward(x) : x (…, entrée) → (…, sortie), soit base(x) + (alpha / rank) · B(A x), calculé sans jamais former
    la matrice B·A.
    Lève ValueError si rank < 1 ou si rank dépasse la plus petite dimension de la base.

    Source : Hu et al., « LoRA », ICLR 2022, § 4.1 et figure 1.
    """

    def __init__(self, base: nn.Linear | Conv1D, rank: int, alpha: float) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        d_out, d_in = base.weight.shape
        if isinstance(base, Conv1D):
            d_in, d_out = base.weight.shape
        if not 1 <= rank <= min(d_in, d_out):
            raise ValueError(f"le rang doit être entre 1 et {min(d_in, d_out)}, pas {rank}")
        self.base = base.requires_grad_(False)
        self.scaling = alpha / rank
        self.lora_A = nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
        self.lora_B = nn.Parameter(torch.zeros(d_out, rank).to(base.weight))
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ### BEGIN SOLUTION
        return self.base(x) + self.scaling * (x @ self.lora_A.T @ self.lora_B.T)
        ### END SOLUTION


# %% [markdown]
# Quatre départs de **votre** couche. La première colonne dit si la sortie a déjà bougé avant tout pas ; les
# suivantes, qui reçoit un gradient.

# %%
ch8.starts(colibri, LoRALinear)

# %% [markdown]
# Dans les titres des colonnes, $\partial A$ est le gradient de la perte par rapport à $A$. Il est proportionnel à $B$,
# et celui de $B$ à $A$ : $\partial A = B^\top G$ et $\partial B = G A^\top$, à un facteur près, où $G$ est le gradient
# par rapport à $\Delta W$. Avec deux zéros, plus rien ne bouge. Avec un seul, un des deux bouge au premier pas, l'autre
# dès le deuxième : les deux choix du milieu se valent-ils ? Sur Colibri entier :

# %%
ch8.start_curves()

# %% [markdown]
# Deux zéros n'apprennent rien, deux gaussiennes partent d'un modèle abîmé. Entre les deux départs légitimes, les
# courbes disent ce que devient la perte sur les lots, la phrase dit la perplexité sur des textes que le modèle n'a pas
# lus, en fenêtres plus longues : les étendues des graines se recouvrent-elles ? Ce que le second apprend de ses lots
# lui sert-il ailleurs ?
#
# Ne condamnez pas trop vite le départ inverse. Hayou et al. (2024, arXiv 2406.08447) montrent sur de plus grands
# modèles que le choix de la diapositive supporte des taux d'apprentissage plus grands ; ici, nous n'en essayons qu'un,
# réglé pour le départ de la diapositive, et chaque gaussienne a pour écart-type l'inverse de la racine de son nombre de
# colonnes : celle de $B$ est donc bien plus large que celle de $A$.
#
# **Et $\alpha / r$ ?** Sans lui, doubler $r$ ferait à peu près doubler $\Delta W$ à chaque pas, et il faudrait régler
# de nouveau le taux d'apprentissage (*learning rate*).
#
# ??? q="alpha_role"

# %%
ch8.alphas()

# %% [markdown]
# La règle de l'article n'est pas la seule : en divisant par $\sqrt r$ (rsLoRA, Kalajdzievski, 2023, arXiv
# 2312.03732), les grands rangs ne sont plus écrasés. Ce tableau n'a qu'une graine et qu'un taux d'apprentissage : il
# montre que le facteur compte, pas quelle règle est la meilleure.
#
# ## 8.4 Dans GPT-2
#
# Reste à poser votre `LoRALinear` dans un vrai modèle. Un piège attendait : les couches de GPT-2 sont des `Conv1D`, qui
# rangent leurs poids en (entrée, sortie), à l'envers de `nn.Linear`. Se tromper de sens ne lève une erreur que si la
# matrice n'est pas carrée ; votre couche, elle, connaît les deux.

# %% [markdown]
# ### ✎ inject_lora


# %% exercise="inject_lora"
def inject_lora(model: GPT2LMHeadModel, rank: int, alpha: float, target: str = "c_attn") -> GPT2LMHeadModel:
    """Pose votre LoRALinear, sur place, sur les couches d'un GPT-2 qui portent un certain nom.

    model : GPT-2 de transformers, dont les couches linéaires sont des Conv1D (poids rangé en (entrée, sortie)).
    rank, alpha : ceux de LoRALinear, les mêmes partout.
    target : le nom des couches à adapter dans leur module, « c_attn », « c_fc » ou « c_proj ». Chaque bloc contient
        deux « c_proj », celle de l'attention et celle du MLP : toutes deux sont adaptées.
    Rend le modèle reçu, modifié : chaque couche visée est enveloppée dans une LoRALinear à elle ; lora_A et lora_B
    seules apprennent, tout le reste du modèle est gelé. Au départ, les logits n'ont pas changé.

    Source : Hu et al., « LoRA », ICLR 2022, § 4.2.
    """
    ### BEGIN SOLUTION
    model.requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name == target:
                setattr(parent, name, LoRALinear(child, rank, alpha))
    return model
    ### END SOLUTION


# %% [markdown]
# Votre LoRA, entraîné sur la fantasy avec le même protocole que les mesures de l'auteur ; votre point se pose sur sa
# courbe. Changez `chosen_rank` et recommencez. (La perplexité est prise sur un texte qui a déjà servi à choisir le taux
# d'apprentissage, comme tous les points de cette figure.)

# %%
chosen_rank = 16
lora_colibri = ch8.train_lora(
    colibri, inject_lora, chosen_rank, training_steps, max_tokens=atelier.scale().pick(essai=512, cpu=4096, gpu=4096)
)

# %%
ch8.ranks_table()

# %% [markdown]
# Du rang 1 au rang 64, soixante-quatre fois plus de paramètres. Combien de perplexité ? Et cette courbe dépend aussi de
# $\alpha$ : au rang 64, comparez-la au tableau de la section 8.3. Votre étoile est une seule graine, les ronds une
# moyenne de trois : lisez-la avec les barres de ses voisins. Le fine-tuning complet, en pointillé, change en plus la
# table des jetons.
#
# **Où le poser ?** L'article n'adapte que $W_q$ et $W_v$ ; QLoRA trouve qu'il faut adapter toutes les couches
# (Dettmers et al., 2023, § 4). À nombre de paramètres égal :

# %%
ch8.targets()

# %% [markdown]
# Quelle ligne se détache des autres, étendue comprise ? Pour les trois restantes, ce tableau ne permet pas de choisir.
#
# Entendez-vous la différence ? Les mêmes débuts, continués par les deux modèles. Ni l'un ni l'autre n'a beaucoup de
# sens, à trois millions de paramètres : cherchez de quel genre de livre chaque suite a l'air de sortir.

# %%
prompts = ["Le vieux mage leva son bâton et", "La nuit tombait sur", "« Qui êtes-vous ? » demanda"]
ch8.voices(
    colibri, lora_colibri, tokenizer, prompts, n_new=atelier.scale().pick(essai=6, cpu=24, gpu=48), inject=inject_lora
)

# %% [markdown]
# ## 8.5 Fusionner
#
# Un adaptateur du chapitre 7 reste à jamais dans le modèle, et chaque jeton le traverse. Une mise à jour linéaire,
# elle, peut se fondre dans le poids. **Que devient le temps d'une fenêtre ?**

# %% [markdown]
# ### ✎ merge_lora


# %% exercise="merge_lora"
def merge_lora(weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    """Poids qui donne à lui seul la même réponse que la couche et sa mise à jour.

    weight : (d, k) flottant, le poids W de la base ; A : (r, k) ; B : (d, r), du même type ; alpha : sans unité.
    Rend un nouveau tenseur (d, k), du type de weight ; r est le rang. Aucun argument n'est modifié.
    Lève ValueError si A et B n'ont pas le même rang.

    Source : Hu et al., « LoRA », ICLR 2022, équation (3) et § 4.1, « No Additional Inference Latency ».
    """
    ### BEGIN SOLUTION
    rank = A.shape[0]
    if B.shape[1] != rank:
        raise ValueError(f"A est de rang {rank} et B de rang {B.shape[1]}")
    return weight + (alpha / rank) * (B @ A)
    ### END SOLUTION


# %%
example_windows = ch8.calibration_ids(colibri, tokenizer, 2)
ch8.merged_speed(
    colibri, example_windows, inject_lora, merge_lora, rank=8, repeats=atelier.scale().pick(essai=1, cpu=7, gpu=15)
)

# %% [markdown]
# Fusionné, c'est un Colibri ordinaire : mêmes formes, mêmes opérations, donc même vitesse ; l'écart entre la première
# et la dernière ligne est votre bruit de mesure. À part, deux petits produits de plus par couche ; ils sont minuscules
# en opérations, pas en temps, car une machine attend aussi entre deux produits.
#
# ??? q="merged_tasks"

# %% [markdown]
# Et la bibliothèque d'usage, **peft** ? Mettez-y les mêmes $A$ et $B$ : elle doit répondre la même chose.

# %%
ch8.beside_peft(colibri, example_windows, inject_lora, merge_lora)

# %% [markdown]
# Les écarts sont ceux des arrondis en FP32 : comparez-les à l'écart-type des logits. Remarquez l'option
# `fan_in_fan_out=True` dans le code de la figure : c'est ainsi que peft apprend que `Conv1D` range ses poids à
# l'envers.
#
# **Servir cent tâches à la fois.** Fusionner, c'est choisir une tâche. Un serveur reçoit dans le même lot des demandes
# de tâches différentes : il garde la base commune et donne à chaque ligne sa propre mise à jour (S-LoRA, Sheng et al.,
# 2023 ; Punica, Chen et al., 2023).

# %% [markdown]
# ### ✎ batched_lora


# %% exercise="batched_lora"
def batched_lora(
    x: torch.Tensor, A: torch.Tensor, B: torch.Tensor, tasks: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Mises à jour LoRA d'un lot dont chaque ligne a sa tâche.

    x : (n, T, in) flottant, n lignes de T jetons ; A : (K, r, in) et B : (K, out, r), une paire par tâche, du même type
    et sur le même appareil ; tasks : (n,) entiers de 0 à K − 1, la tâche de chaque ligne ; scaling : le facteur α / r.
    Rend (n, T, out), du type de x : pour chaque ligne, ce que sa paire, et elle seule, ajoute à la sortie de la couche.

    Source : Sheng et al., « S-LoRA: Serving Thousands of Concurrent LoRA Adapters », 2023, arXiv 2311.03285.
    """
    ### BEGIN SOLUTION
    tasks = tasks.long()
    a, b = A[tasks], B[tasks]
    return scaling * (x @ a.transpose(1, 2) @ b.transpose(1, 2))
    ### END SOLUTION


# %% [markdown]
# **Longueur et direction.** DoRA (Liu et al., 2024) sépare ce que LoRA apprend d'un bloc : la direction de chaque ligne
# du poids est celle de la matrice mise à jour ; sa longueur est un nombre appris à part.

# %% [markdown]
# ### ✎ dora_weight


# %% exercise="dora_weight"
def dora_weight(
    weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, magnitude: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Poids d'une couche DoRA : la direction d'un poids mis à jour par LoRA, des longueurs apprises.

    weight : (out, in) flottant, le poids W de la base ; A : (r, in) ; B : (out, r) ; magnitude : (out, 1), la longueur
    à donner à chaque ligne ; tous du même type ; scaling : le facteur α / r.
    Rend (out, in), du type de weight : chaque ligne a la direction de la même ligne de W + scaling·B·A, et pour
    longueur (euclidienne) son nombre de `magnitude`. Aucune ligne de W + scaling·B·A n'est nulle.

    Source : Liu et al., « DoRA: Weight-Decomposed Low-Rank Adaptation », ICML 2024, arXiv 2402.09353, équation (5).
    """
    ### BEGIN SOLUTION
    v = weight + scaling * (B @ A)
    return magnitude * v / v.norm(dim=1, keepdim=True)
    ### END SOLUTION


# %% [markdown]
# ## 8.6 « It is not faster! », « It is faster! »
#
# Les diapositives posent deux fois la même question : le fine-tuning économe est-il plus efficace (1) en calcul, (2) en
# mémoire ? Après les adaptateurs, elles répondent :
#
# > *It is not faster! You still need to do the entire forward and backward pass.*
#
# et après LoRA :
#
# > *It is faster! You only need to do the entire forward and backward pass of much less parameters + Caching.*
#
# Sur la mémoire, elles sont d'accord ; sur la vitesse, elles se contredisent. **Pariez** avant de compter : laquelle a
# raison ?
#
# ??? q="saved_flops"

# %% [markdown]
# Comptons. Un pas complet coûte $6N$ opérations par jeton (chapitre 2) : $2N$ à l'avant, $2N$ pour le gradient des
# activations, $2N$ pour celui des poids. Que reste-t-il de chacun ? Dans les deux dernières lignes, LoRA n'est posé
# que dans les 40 % du haut.

# %%
ch8.count_flops()

# %% [markdown]
# Les deux diapositives se trompent à moitié. La première oublie le gradient des poids : un produit sur trois
# disparaît. La seconde oublie que les poids gelés travaillent encore, à l'avant et à l'arrière. Un tiers au mieux,
# donc, tant que LoRA est partout ; davantage quand rien n'apprend en bas. Et sur une machine ?

# %%
ch8.step_here(
    colibri,
    inject_lora,
    rank=8,
    repeats=atelier.scale().pick(essai=1, cpu=9, gpu=15),
    sizes=atelier.scale().pick(essai=(), cpu=(), gpu=("small", "medium")),
)

# %% [markdown]
# L'arrière et l'optimiseur raccourcissent ; l'avant **s'allonge**, à cause des petits produits de LoRA, et il faut
# garder presque autant d'activations : pour faire passer le gradient, on a besoin de ce que chaque couche a vu.
#
# Et le **cache** ? Si les blocs du bas sont gelés **et** que rien n'apprend sous eux, ce qu'ils calculent sur une
# phrase ne change jamais : on peut le calculer une fois, le garder, et le relire aux passages suivants.
#
# ??? q="where_to_cache"

# %%
ch8.cache_here(
    colibri,
    inject_lora,
    rank=8,
    n_windows=atelier.scale().pick(essai=8, cpu=64, gpu=512),
    passes_=atelier.scale().pick(essai=1, cpu=3, gpu=5),
)

# %% [markdown]
# Les pertes sont les mêmes, à l'arrondi près : ce n'est pas une approximation. Le cache coûte un vecteur par jeton,
# qu'il faut garder tant que dure l'apprentissage, et des données qui ne changent pas d'un passage à l'autre.
#
# Toutes les méthodes, décomposées, sur Colibri et sur un GPT-2 small aux poids tirés au hasard (le temps n'en dépend
# pas). « En haut » veut dire : dans les deux derniers blocs sur cinq de Colibri, les trois derniers sur douze de GPT-2.
# « Tête » veut dire : seuls le dernier LayerNorm et une matrice de sortie à part apprennent. QLoRA vous attend à la
# section 8.7 ; laissez-le pour l'instant.

# %%
ch8.steps_measured()

# %% [markdown]
# Sur GPT-2, LoRA peut gagner **plus** que le tiers que l'on a compté. C'est que le temps n'est pas fait que
# d'opérations : avec peu de jetons par pas, écrire des millions de gradients et remettre à jour Adam, c'est surtout
# attendre la mémoire, et LoRA s'en dispense. Avec un lot plus grand, les opérations reprennent le dessus : la phrase
# sous la figure revient-elle vers les deux tiers comptés ?
#
# Puis le tableau qui départage. Lisez-le de haut en bas : par pas, par passage, par qualité atteinte, mémoire, usage.
# Un passage relit toujours les mêmes fenêtres, puisque c'est ce qu'il faut au cache ; à la section 8.8, chaque pas lira
# du texte neuf, et les perplexités de l'une ne se comparent pas à celles de l'autre.

# %%
ch8.settle()

# %% [markdown]
# Ce que chaque diapositive voulait dire, et ce qui est vrai :
#
# - « *not faster* » : l'avant et le gradient des activations restent entiers, c'est **vrai** ; mais le gradient des
#   poids et leur mise à jour disparaissent, et un pas raccourcit : d'un tiers en opérations, de moins ou de plus sur
#   une machine, selon la taille du modèle et celle du lot ;
# - « *much less parameters* » : **faux** pour le calcul, puisque les poids gelés travaillent encore ; **vrai** pour
#   l'optimiseur, en temps comme en mémoire ;
# - « *+ caching* » : **vrai** quand rien n'apprend en bas, donc pas avec LoRA posé partout. Le cache seul ne change
#   rien à ce que l'on apprend ; n'adapter que le haut, si : comparez la ligne de perplexité ;
# - par **qualité atteinte**, les écarts se resserrent : comparez la ligne « temps pour descendre » à celle d'un pas. Un
#   pas plus court qui apprend moins demande plus de pas, et remplir un cache ne se rembourse qu'au fil des passages. Le
#   premier arrivé à ce seuil n'est pas non plus celui qui descend le plus bas : le seuil est la meilleure perplexité de
#   la moins bonne des méthodes ;
# - le cache veut que l'on relise les mêmes phrases : l'écart entre la meilleure perplexité et la dernière dit qui les a
#   apprises par cœur, d'autant plus que l'on entraîne plus de nombres ;
# - la mémoire : l'état de l'optimiseur fond, les activations presque pas. Sur un grand modèle et de petits lots, c'est
#   le premier qui domine.
#
# **En une phrase :** LoRA raccourcit chaque pas, mais jamais dans le rapport des paramètres entraînés ; peu sur
# Colibri, beaucoup sur GPT-2 à petit lot, environ du tiers compté quand le lot grandit. Ce qu'il épargne à coup sûr,
# c'est la mémoire de l'optimiseur.
#
# L'article, lui, annonce « a 25% speedup » sur GPT-3, et 10 000 fois moins de place. Refaisons ses divisions.

# %%
ch8.paper_arithmetic()

# %% [markdown]
# Vous savez maintenant lire ce 25 % : un gain de **temps**, soit un tiers de débit en plus, « as we do not need to
# calculate the gradient for the vast majority of the parameters » (§ 4.2). C'est bien l'argument du $4N/6N$, et un peu
# moins que lui.
#
# ## 8.7 QLoRA : geler sur quatre bits
#
# La base est gelée : rien n'oblige à la garder en 32 bits. **QLoRA** (Dettmers et al., 2023) l'écrit sur 4 bits, la
# relit à chaque passage, et entraîne LoRA par-dessus en pleine précision. Quels 16 niveaux choisir ? Au chapitre 3,
# ils étaient réguliers. Mais les poids suivent à peu près une loi normale.
#
# ??? q="nf4_grid"

# %% [markdown]
# L'idée de **NF4** (*4-bit NormalFloat*) : prendre des quantiles de la loi normale, à probabilités régulièrement
# espacées. Trois difficultés, trois choix du code publié : le dernier quantile serait infini, donc on s'arrête à une
# probabilité un peu inférieure à 1 (`OFFSET`) ; zéro doit être un niveau ; il en reste 15, que l'on partage en 7
# négatifs et 8 positifs. On divise enfin par le plus grand.


# %% tags=["setup"]
def normal_levels(n: int, last: float) -> list[float]:
    """n quantiles de la loi normale, de la probabilité 1/2 (exclue) à `last` (comprise), régulièrement espacés."""
    return [NormalDist().inv_cdf(0.5 + (last - 0.5) * i / n) for i in range(1, n + 1)]


OFFSET = 1 - (1 / 32 + 1 / 30) / 2
_negative, _positive = normal_levels(7, OFFSET), normal_levels(8, OFFSET)
NF4_LEVELS = torch.tensor([-v for v in reversed(_negative)] + [0.0] + _positive) / _positive[-1]

# %%
ch8.levels(NF4_LEVELS)

# %% [markdown]
# ### ✎ nf4_quantize


# %% exercise="nf4_quantize"
def nf4_quantize(w: torch.Tensor, block_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes NF4 d'un tenseur, et l'échelle de chaque bloc.

    w : flottant de forme quelconque, de n éléments, pas forcément contigu ; il est lu à plat, ligne après ligne, et
        coupé en blocs de block_size éléments voisins.
    Rend (codes, absmax). absmax, (n / block_size,) du type de w : le plus grand |w| de chaque bloc.
    codes, (n,) uint8 : pour chaque élément, l'indice, de 0 à 15, du niveau de NF4_LEVELS le plus proche de
    w / absmax du bloc ; à égalité, le niveau le plus bas. Un bloc entièrement nul a pour absmax 0 et pour codes 7,
    le niveau 0.
    Lève ValueError si block_size ne divise pas n.

    Source : Dettmers et al., « QLoRA », NeurIPS 2023, § 3 et annexe E.
    """
    ### BEGIN SOLUTION
    if w.numel() % block_size:
        raise ValueError(f"{w.numel()} éléments ne se coupent pas en blocs de {block_size}")
    blocks = w.reshape(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    scale = torch.where(absmax > 0, absmax, torch.ones_like(absmax))
    x = (blocks / scale[:, None]).contiguous()
    levels = NF4_LEVELS.to(x.device, torch.promote_types(x.dtype, torch.float32))
    middles = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(x.to(levels.dtype), middles)
    return codes.flatten().to(torch.uint8), absmax
    ### END SOLUTION


# %%
ch8.four_bits(colibri, nf4_quantize, NF4_LEVELS, max_tokens=extract_tokens)

# %% [markdown]
# Les codes servent plus également avec NF4 qu'avec une grille régulière, sans que ce soit parfait : diviser par le plus
# grand poids du bloc n'est pas diviser par l'écart-type, et Yoshida (2023, arXiv 2306.06965) montre que les niveaux
# optimaux dépendent de la taille du bloc.
#
# Le fichier, lui, compte aussi les échelles : une par bloc de 64. **Calculez d'abord :** combien de bits de plus par
# poids, si elles sont en FP32 ? L'article les quantifie à leur tour : c'est la **double quantification**.

# %%
ch8.double_quantization()

# %% [markdown]
# L'article annonce 0,373 bit et « environ 3 Go pour un modèle de 65 milliards » (§ 1 et 3). Puis la question qui
# décide : LoRA rattrape-t-il ce que l'arrondi a coûté ?

# %%
ch8.qlora()

# %% [markdown]
# Comparez les écarts **avant** et **après** : si LoRA compense l'arrondi, ils doivent se resserrer. Et regardez
# l'étendue des graines avant de dire que NF4 bat int4 une fois LoRA appris.
#
# Le prix est ailleurs : relire les codes à chaque passage prend du temps.

# %%
ch8.qlora_cost()

# %% [markdown]
# Regardez la dernière colonne sur GPT-2 : notre base NF4 tient sur 4,5 bits au repos, mais, écrite naïvement, elle
# garde pour l'arrière chaque poids qu'elle vient de relire. La bibliothèque bitsandbytes évite cela (classe
# `MatMul4Bit`) : à l'arrière, elle relit les codes une seconde fois. À côté de LoRA, QLoRA n'accélère donc rien ; il
# fait entrer dans une carte un modèle qui n'y entrait pas : d'après l'article, 65 milliards de paramètres sur 48 Go.

# %% [markdown]
# Les figures qui précèdent arrondissent le poids et le gardent en FP32 : elles mesurent la qualité, pas la place. Voici
# la couche que l'on mettrait dans un modèle : ses poids n'existent que le temps d'un passage.

# %% [markdown]
# ### ✎ QLoRALinear


# %% exercise="QLoRALinear"
class QLoRALinear(nn.Module):
    """Une couche linéaire gelée, gardée sur quatre bits, et sa mise à jour de rang faible.

    base : nn.Linear en float32, avec ou sans biais ; son nombre de poids est pair, et block_size le divise. La base
        n'est pas modifiée, et la couche n'en garde que ce qui suit.
    rank, alpha : ceux de LoRALinear ; block_size : la taille des blocs, celle de nf4_quantize.
    Le poids est gardé en codes NF4, deux par octet, avec un absmax par bloc : environ un demi-octet par poids en tout,
    que state_dict() écrit et que load_state_dict() rend à une autre couche de même forme. Le biais, s'il y en a un, est
    gardé, gelé. Seuls apprennent lora_A, (r, entrée), tiré d'une loi normale centrée, et lora_B, (sortie, r), nul au
    départ.
    forward(x) : x (…, entrée) → (…, sortie), la réponse du poids relu, plus le biais et la mise à jour de LoRA, sans
    jamais former B·A ni garder le poids relu.

    Source : Dettmers et al., « QLoRA », NeurIPS 2023, § 3, équation (5) ; sans la double quantification.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, block_size: int = 64) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        codes, absmax = nf4_quantize(base.weight.detach(), block_size)
        self.register_buffer("packed", codes[0::2] * 16 + codes[1::2])
        self.register_buffer("absmax", absmax)
        self.size = d_out, d_in = base.weight.shape
        self.bias = None if base.bias is None else nn.Parameter(base.bias.detach().clone(), requires_grad=False)
        self.scaling = alpha / rank
        self.lora_A = nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
        self.lora_B = nn.Parameter(torch.zeros(d_out, rank).to(base.weight))
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ### BEGIN SOLUTION
        codes = torch.stack([self.packed >> 4, self.packed & 15], dim=1).reshape(len(self.absmax), -1)
        w = (NF4_LEVELS.to(x)[codes.long()] * self.absmax[:, None]).reshape(self.size)
        return F.linear(x, w, self.bias) + self.scaling * (x @ self.lora_A.T @ self.lora_B.T)
        ### END SOLUTION


# %%
ch8.row_nf4(colibri, nf4_quantize, NF4_LEVELS)

# %% [markdown]
# ## 8.8 La fin de l'histoire
#
# Cinq façons d'adapter Colibri, les deux mêmes tâches : parler comme un récit de fantasy (B), et dire de quoi traite
# une fiche administrative (douze sujets). Même nombre de pas, trois graines, et pour chaque méthode le meilleur taux
# d'apprentissage d'une petite grille. « Tête » veut dire le dernier LayerNorm et une matrice de sortie à part, pour la
# langue ; la seule couche de classement, pour les fiches. **Avant d'exécuter :** laquelle préféreriez-vous, si vous
# aviez cent tâches ? Et si vous n'en aviez qu'une ?

# %%
ch8.final_table()

# %%
ch8.final_figure()

# %% [markdown]
# Trois choses à chercher. **Qui gagne** change d'une tâche à l'autre : une tête suffit-elle à parler ? suffit-elle à
# classer ? **L'oubli** : lisez-le à côté de ce qui a été appris. Biderman et al. (2024, arXiv 2405.09673) résument
# ainsi de plus grandes mesures : « LoRA learns less and forgets less ». Et pour LoRA et les adaptateurs, l'oubli s'en
# va quand on les ôte : la base n'a pas bougé d'un octet (celle de QLoRA, arrondie, partait d'un peu plus haut : section
# 8.7). **Le temps** d'un pas sépare bien moins les méthodes que les octets.
#
# Revenez enfin à la section 8.1 : la « tête » ne touche à aucune couche linéaire des blocs. Que dit sa perplexité sur B
# de ce que LoRA ne peut pas atteindre ? Et que dit son oubli du prix payé ?
#
# N'en tirez pas un classement pour toujours : avec si peu de pas, rien ne dit que personne ait fini d'apprendre, et la
# classification a chaque fois choisi le plus grand taux de sa grille. Ce tableau dit qui apprend vite, et à quel prix.
#
# **Apprendre une préférence.** On n'a pas toujours la bonne réponse ; on sait souvent laquelle de deux est meilleure.
# DPO (Rafailov et al., 2023) en fait une perte, sans modèle de récompense : la politique, le modèle qui apprend, doit
# préférer la réponse choisie **plus que ne le faisait** la référence, le modèle d'où elle est partie. Avec LoRA, la
# référence ne coûte rien : c'est la base, adaptateur ôté.

# %% [markdown]
# ### ✎ dpo_loss


# %% exercise="dpo_loss"
def dpo_loss(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    beta: float = 0.1,
) -> torch.Tensor:
    """Perte DPO d'un lot de préférences.

    policy_chosen, policy_rejected, ref_chosen, ref_rejected : (B,) flottants, la log-probabilité (en nats) de la
    réponse choisie, ou rejetée, de chaque paire, sous la politique et sous la référence. beta : sans unité, > 0.
    Rend un tenseur à 0 dimension : la moyenne, sur les paires, de −ln σ(β·marge), où la marge est ce que l'écart entre
    choisie et rejetée a gagné de la référence à la politique. Finie même pour de grands écarts ; aucun gradient ne va
    à la référence.

    Source : Rafailov et al., « Direct Preference Optimization », NeurIPS 2023, arXiv 2305.18290, équation (7).
    """
    ### BEGIN SOLUTION
    policy = policy_chosen - policy_rejected
    reference = (ref_chosen - ref_rejected).detach()
    return -F.logsigmoid(beta * (policy - reference)).mean()
    ### END SOLUTION


# %% [markdown]
# Votre LoRA fusionné rejoint le tableau du cours, sur la langue générale : c'est son oubli que l'on y lit.

# %%
ch8.row_lora(colibri, lora_colibri, inject_lora, merge_lora, chosen_rank, n_bytes=4 * colibri.num_parameters())

# %%
atelier.board()

# %% [markdown]
# **Ce que vous savez maintenant.** Un fine-tuning bouge toutes les directions, et à cette échelle on ne peut pas en
# jeter beaucoup ; mais n'en **apprendre** que quelques-unes vaut presque autant que d'apprendre toutes celles des mêmes
# couches. LoRA le fait : $r(d + k)$ nombres au lieu de $dk$, zéro d'un côté pour partir de la base, hasard de l'autre
# pour pouvoir en partir. Fusionné, il ne coûte rien à l'usage. Il économise la mémoire de l'optimiseur et la place sur
# le disque ; du temps, moins qu'on ne le dit, et davantage seulement si le bas du modèle ne change pas et se met en
# cache. Et sa base peut tenir sur quatre bits.
#
# Il reste tout ce que ce cours n'a pas dit : c'est à vous de l'exposer, au chapitre 9.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, ICLR 2022, arXiv 2106.09685 · Eckart
# et Young, *The approximation of one matrix by another of lower rank*, Psychometrika, 1936 · Aghajanyan et al.,
# *Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning*, 2020, arXiv 2012.13255 · Hayou et
# al., *The Impact of Initialization on LoRA Finetuning Dynamics*, 2024, arXiv 2406.08447 · Kalajdzievski, *A Rank
# Stabilization Scaling Factor for Fine-Tuning with LoRA*, 2023, arXiv 2312.03732 · Dettmers et al., *QLoRA: Efficient
# Finetuning of Quantized LLMs*, NeurIPS 2023, arXiv 2305.14314 · bibliothèque bitsandbytes, `functional.py`,
# `create_normal_map` · Yoshida, *NF4 Isn't Information Theoretically Optimal (and that's Good)*, 2023, arXiv 2306.06965
# · Biderman et al., *LoRA Learns Less and Forgets Less*, 2024, arXiv 2405.09673 · bibliothèque peft, Hugging Face ·
# Houlsby et al., *Parameter-Efficient Transfer Learning for NLP*, ICML 2019, arXiv 1902.00751
