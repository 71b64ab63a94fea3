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
# Colibri a trois millions de poids. **Avant d'aller plus loin :** combien peut-on en remplacer par zéro sans que ses
# phrases changent ? Un sur dix ? La moitié ? Et une fois qu'ils sont nuls, qu'y gagne-t-on : de la place, du temps,
# rien ?
#
# Dans ce chapitre, vous écrivez de quoi choisir les poids à retirer, puis vous mesurez ce que cela coûte et ce que cela
# rapporte. Comptez moins de deux heures pour l'essentiel ; les deux exercices marqués « approfondissement » peuvent
# attendre. Tant qu'un exercice n'est pas fait, les figures qui en dépendent montrent le résultat de l'auteur et le
# disent.

# %%
import atelier
from atelier import check, hint, quiz
from atelier.figures import ch5

atelier.describe_machine()

# %% tags=["setup"]
from collections.abc import Iterable

import torch
import torch.nn.functional as F

# %% [markdown]
# ## 5.1 Où nous en sommes
#
# Le chapitre 3 écrivait chaque poids sur moins de bits. Le chapitre 4 faisait apprendre un petit modèle d'un grand.
# Ici, l'on garde le modèle et l'on en **retire**. Suivez les accolades : aucune de ces voies n'interdit les autres.

# %%
ch5.three_compressions(here=5)

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
calibration = ch5.calibration_ids(colibri, tokenizer, atelier.scale().pick(essai=2, cpu=8, gpu=32))
extract_tokens = atelier.scale().pick(essai=512, cpu=4096, gpu=4096)
short_extract = atelier.scale().pick(essai=512, cpu=1536, gpu=4096)
ch5.what_is_pruned(colibri)

# %% [markdown]
# La part de poids nuls s'appelle la **parcimonie** (*sparsity*). Elle se mesure sur plusieurs tenseurs à la fois.

# %% [markdown]
# ### ✎ sparsity


# %% exercise="sparsity"
def sparsity(tensors: Iterable[torch.Tensor]) -> float:
    """Parcimonie : part des éléments exactement nuls, tous tenseurs confondus.

    tensors : itérable de tenseurs de formes et de types quelconques (liste, n-uplet, générateur…), qui compte au moins
        un élément ; on ne peut parfois le parcourir qu'une fois.
    Rend un float de Python, entre 0 (aucun zéro) et 1 (que des zéros). Chaque élément compte autant, quelle que soit la
    taille de son tenseur ; un élément très petit n'est pas nul, −0 l'est.
    """
    ### BEGIN SOLUTION
    zeros, total = 0, 0
    for t in tensors:
        zeros += int((t == 0).sum())
        total += t.numel()
    return zeros / total
    ### END SOLUTION


# %% [markdown]
# Un modèle entraîné contient-il déjà des zéros ?

# %%
ch5.zeros_of(colibri, sparsity)

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

    w : tenseur flottant de forme quelconque, pas forcément contigu en mémoire.
    amount : part des poids à retirer, entre 0 (aucun) et 1 (tous).
    Rend un tenseur de booléens de la forme de w, True = poids gardé. Exactement round(amount · nombre de poids) sont
    retirés, les plus petits |w| d'abord ; à égalité, celui qui vient le premier quand on déroule w ligne après ligne.
    Lève ValueError si amount n'est pas entre 0 et 1.

    Source : Han et al., « Learning both Weights and Connections for Efficient Neural Networks », 2015.
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
layer_weights = ch5.linear_weights(colibri)
ch5.threshold(layer_weights["0.mlp.c_fc"], magnitude_mask)

# %% [markdown]
# La moitié des poids porte bien peu. Voilà l'espoir de l'élagage. Que dit la perplexité ? **Pariez :** à 50 %, de
# combien monte-t-elle ? Et si l'on tirait les poids au hasard ?

# %%
sparsity_levels = atelier.scale().pick(
    essai=(0.5,), cpu=(0.35, 0.5, 0.65), gpu=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
)
ch5.sweep_magnitude(colibri, magnitude_mask, sparsity_levels, extract_tokens)

# %% [markdown]
# L'axe vertical est logarithmique. Au hasard, un poids sur dix coûte déjà plus que les plus petits à quatre sur dix.
# Les plus petits, eux, se laissent prendre jusqu'à un sur cinq presque sans rien dire ; ensuite, cela va vite. Et les
# phrases ?

# %%
ch5.sentences(
    colibri, tokenizer, "Le salarié peut demander", magnitude_mask, n_new=atelier.scale().pick(essai=6, cpu=20, gpu=40)
)

# %% [markdown]
# ## 5.3 Un seul classement pour tout le modèle
#
# Jusqu'ici, chaque couche perdait la même part. Mais pourquoi ? Si une couche n'a que de petits poids, ne devrait-elle
# pas en perdre davantage ? Classons-les tous ensemble. **Pariez :** mieux, ou moins bien ?

# %% [markdown]
# ### ✎ global_magnitude_masks


# %% exercise="global_magnitude_masks"
def global_magnitude_masks(weights: dict[str, torch.Tensor], amount: float) -> dict[str, torch.Tensor]:
    """Masques qui retirent les plus petits poids de tout un modèle, d'après un seul classement.

    weights : nom → tenseur flottant de forme quelconque, pas forcément contigu en mémoire.
    amount : part des poids à retirer, entre 0 (aucun) et 1 (tous), sur l'ensemble des tenseurs.
    Rend un dictionnaire aux mêmes noms : nom → tenseur de booléens de la forme du poids, True = poids gardé. Exactement
    round(amount · nombre total de poids) sont retirés, les plus petits |w| de tous d'abord : un tenseur peut en perdre
    beaucoup, un autre aucun.
    Lève ValueError si amount n'est pas entre 0 et 1.
    """
    ### BEGIN SOLUTION
    if not 0 <= amount <= 1:
        raise ValueError(f"la part à retirer est entre 0 et 1, pas {amount}")
    scores = torch.cat([w.abs().flatten() for w in weights.values()])
    removed = round(amount * scores.numel())
    kept = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    kept[scores.argsort(stable=True)[:removed]] = False
    pieces = kept.split([w.numel() for w in weights.values()])
    return {name: piece.reshape(w.shape) for (name, w), piece in zip(weights.items(), pieces, strict=True)}
    ### END SOLUTION


# %%
ch5.sweep_global(colibri, global_magnitude_masks, sparsity_levels, extract_tokens)

# %% [markdown]
# Moins bien, dans toute la zone où Colibri parle encore. Regardez qui paie :

# %%
ch5.global_shares(colibri, global_magnitude_masks)

# %% [markdown]
# ??? q="global_collapse"

# %% [markdown]
# Vérifions. On élague **une seule** couche à la fois, de moitié, et l'on regarde la perplexité. Les plus dégarnies
# étaient-elles les moins utiles ?

# %%
ch5.sensitivity(colibri, magnitude_mask, tokens=short_extract)

# %% [markdown]
# Comparez les deux cartes, ligne par ligne. Quel bloc le classement global dégarnit-il le plus ? Lequel le supporte le
# moins ? C'est le même. La taille des poids dit mal ce qu'une couche supporte : il manque à notre importance ce qui
# **entre** dans la couche. C'est la réserve « à entrée égale », qu'il est temps de lever.
#
# ## 5.4 Wanda : ce qu'un poids multiplie
#
# Un neurone reçoit deux entrées : la première vaut d'ordinaire 100, la seconde 0,1. Leurs poids sont 0,1 et 1. Lequel
# retirer ? Calculez ce que chacun apporte à la sortie : 10 et 0,1. Le plus petit poids est cent fois plus important.
#
# **Wanda** (*pruning by Weights and activations*, Sun et al., 2023) s'en tient là : l'importance d'un poids est
#
# $$ S_{ij} = |w_{ij}| \cdot \lVert x_j \rVert_2 , $$
#
# où $x_j$ réunit les valeurs de l'entrée $j$ sur quelques textes d'étalonnage, et l'on ne compare que les poids d'une
# même sortie.
#
# ??? q="wanda_row"

# %% [markdown]
# ### ✎ wanda_mask


# %% exercise="wanda_mask"
def wanda_mask(w: torch.Tensor, x: torch.Tensor, amount: float) -> torch.Tensor:
    """Masque de Wanda : chaque poids pèse autant que ce qu'il multiplie.

    w : (out, in) flottant, les poids d'une couche ; x : (n, in) du même type, n jetons vus à l'entrée de la couche.
    amount : part des poids à retirer dans chaque ligne, entre 0 (aucun) et 1 (tous).
    Rend un tenseur de booléens (out, in), True = poids gardé. L'importance du poids (i, j) est |w[i, j]|·‖x[:, j]‖₂, où
    la norme porte sur les n jetons. Dans chaque ligne i, exactement round(amount · in) poids sont retirés, les moins
    importants d'abord ; à égalité, celui du plus petit j.
    Lève ValueError si amount n'est pas entre 0 et 1.

    Source : Sun et al., « A Simple and Effective Pruning Approach for Large Language Models », 2023, § 3.
    """
    ### BEGIN SOLUTION
    if not 0 <= amount <= 1:
        raise ValueError(f"la part à retirer est entre 0 et 1, pas {amount}")
    scores = w.abs() * x.norm(dim=0)
    removed = round(amount * w.shape[1])
    order = scores.argsort(dim=1, stable=True)
    return torch.ones_like(w, dtype=torch.bool).scatter(1, order[:, :removed], False)
    ### END SOLUTION


# %% [markdown]
# Un point par poids d'une couche. La magnitude coupe à l'horizontale ; comment Wanda coupe-t-il ?

# %%
inputs = ch5.layer_inputs(colibri, calibration)
layer = "1.attn.c_attn"
ch5.weight_and_input(layer_weights[layer], inputs[layer], magnitude_mask, wanda_mask, layer)

# %% [markdown]
# Wanda garde de petits poids dont l'entrée est grande, et les paie de poids moyens dont l'entrée est faible. Il abîme
# donc **davantage** les poids. Et la sortie de la couche, sur un texte qui n'a pas servi à régler ?

# %%
ch5.layer_errors(colibri, calibration, magnitude_mask, wanda_mask)

# %% [markdown]
# C'est la même leçon qu'avec GPTQ : ce qui compte n'est pas l'erreur sur les poids mais l'erreur sur la sortie.
# Regardez aussi **où** Wanda gagne : surtout dans le premier bloc, celui-là même que la section 5.3 avait désigné. Puis
# tout le modèle, bloc après bloc, comme dans l'article.

# %%
ch5.sweep_wanda(colibri, calibration, wanda_mask, sparsity_levels, extract_tokens)

# %% [markdown]
# La dernière courbe, **SparseGPT** (Frantar et Alistarh, 2023), fait à l'élagage ce que GPTQ fait à l'arrondi : quand
# un poids part, les suivants se déplacent pour compenser. C'est l'algorithme que vous avez écrit au chapitre 3, où
# « arrondir » devient « arrondir à zéro ». Il coûte une hessienne par couche ; Wanda, une norme.
#
# Regardez enfin la droite de la figure : passé les trois quarts, Wanda reste-t-il devant la magnitude ? À ces
# perplexités, le classement des méthodes n'a plus guère de sens.

# %%
ch5.row_wanda(colibri, calibration, wanda_mask)

# %% [markdown]
# ## 5.5 À côté des articles
#
# Voici ce que donnent ces méthodes sur LLaMA-2, de deux mille à vingt mille fois plus grand que Colibri. Le protocole :
# WikiText-2, en anglais, par fenêtres du contexte entier (4 096 jetons), et 128 extraits de C4 pour l'étalonnage.
# D'autres articles affichent 5,47 pour le même 7B entier, avec des fenêtres de 2 048 : encore une affaire de protocole.
# **Lisez en ligne :** que devient l'écart entre les méthodes quand le modèle grandit ?

# %%
ch5.paper_table()

# %% [markdown]
# Un texte, une langue, un contexte, un vocabulaire différents : nous ne comparons donc que des **rapports** à la
# perplexité du modèle entier.

# %%
ch5.beside_the_papers()

# %% [markdown]
# Deux faits. De Colibri à LLaMA-2 13B, l'élagage coûte en rapport de moins en moins, à une exception près que vous
# trouverez ; de 13B à 70B, ce n'est plus toujours vrai : cherchez les courbes qui remontent. Et l'on ne retrouve pas
# tout : Wanda bat la magnitude, ici comme là-bas, mais n'égale pas SparseGPT, que ses corrections avantagent nettement
# sur Colibri. Sun et al. ont imaginé Wanda pour les quelques entrées immenses des grands modèles ; dans la couche que
# vous avez regardée, la plus grande entrée de Colibri ne dépasse la médiane que de quelques fois.
#
# Un autre chiffre, de SparseGPT cette fois : OPT-125M, 27,66 entier, 193 à 50 % par magnitude, 36,85 par SparseGPT, sur
# WikiText-2 (Frantar et Alistarh, 2023). C'est le plus petit de leurs modèles, encore quarante fois plus grand que
# Colibri.

# %% [markdown]
# ## 5.6 Des zéros bien rangés : N:M
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
    """Masque N:M : n poids gardés dans chaque groupe de m voisins.

    w : tenseur flottant (…, k), pas forcément contigu en mémoire ; les groupes sont les m premiers éléments du dernier
        axe, puis les m suivants, et ainsi de suite.
    n, m : poids gardés par groupe, et taille d'un groupe.
    Rend un tenseur de booléens de la forme de w, True = poids gardé : dans chaque groupe, les n plus grands |w| ; à
    égalité, celui qui vient le premier est gardé.
    Lève ValueError si n > m, ou si m ne divise pas la taille k du dernier axe.

    Source : Mishra et al., « Accelerating Sparse Deep Neural Networks », 2021, § 3.
    """
    ### BEGIN SOLUTION
    if n > m or w.shape[-1] % m:
        raise ValueError(f"pas de motif {n}:{m} sur un axe de taille {w.shape[-1]}")
    groups = w.abs().reshape(*w.shape[:-1], -1, m)
    order = groups.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter(-1, order[..., :n], True)
    return mask.reshape(w.shape)
    ### END SOLUTION


# %%
ch5.nm_picture(layer_weights["0.mlp.c_fc"], nm_mask, magnitude_mask)

# %% [markdown]
# Plus les groupes sont petits, moins l'on choisit. Votre fonction ne sait pas ce que sont les nombres qu'on lui donne :
# avec les importances de Wanda à la place des poids, elle fait un Wanda 2:4.

# %%
ch5.nm_price(colibri, calibration, nm_mask, extract_tokens)

# %% [markdown]
# Voilà le prix. (Vos deux lignes de Wanda et celles de l'auteur n'ont pas lu les mêmes textes d'étalonnage, ni autant :
# l'écart entre elles dit ce que l'étalonnage change.) Et ce qu'il achète ? Le fabricant annonce, pour le produit seul,
# jusqu'à deux fois plus d'opérations par seconde (Mishra et al., 2021). À vérifier sur la carte, si vous en avez une :

# %%
ch5.nm_kernels(size=atelier.scale().pick(essai="small", cpu="small", gpu="xl"))

# %%
ch5.row_two_four(colibri, calibration, nm_mask)

# %% [markdown]
# ## 5.7 Ce que cela fait gagner : de la place ?
#
# Un Colibri à moitié nul, écrit comme d'habitude, occupe… autant qu'avant. Un zéro est un nombre comme un autre. Pour
# gagner, il faut ne pas l'écrire, et alors il faut dire où sont les autres.

# %% [markdown]
# ### ✎ sparse_bytes


# %% exercise="sparse_bytes"
def sparse_bytes(numel: int, amount: float, value_bytes: int = 2, index_bytes: int = 4) -> int:
    """Octets d'un tenseur élagué, rangé comme une liste des poids qui restent.

    numel : nombre d'éléments du tenseur entier (0 est permis) ; amount : part des poids retirés, entre 0 et 1 :
        round(amount · numel) d'entre eux ; value_bytes : octets d'une valeur ; index_bytes : octets de l'indice, un
        entier qui dit où la remettre dans le tenseur déroulé.
    Rend un int : les valeurs et les indices des éléments gardés, et rien d'autre.
    Lève ValueError si amount n'est pas entre 0 et 1, ou si numel est négatif.
    """
    ### BEGIN SOLUTION
    if numel < 0 or not 0 <= amount <= 1:
        raise ValueError(f"{numel} éléments, part retirée {amount}")
    kept = numel - round(amount * numel)
    return kept * (value_bytes + index_bytes)
    ### END SOLUTION


# %% [markdown]
# ??? q="list_pays"

# %% [markdown]
# D'autres rangements disent la même chose en moins de bits. **CSR** (*compressed sparse row*) note, ligne par ligne, la
# colonne de chaque valeur. Le **bitmap** écrit un bit par poids : gardé ou non. Et zip ne sait rien, mais voit les
# répétitions. Même couche, votre masque, six fichiers, pesés :

# %%
ch5.formats(layer_weights["0.mlp.c_fc"], magnitude_mask, sparse_bytes)

# %% [markdown]
# À 50 %, seuls le bitmap et zip font mieux que le dense, et ils approchent de la moitié sans l'atteindre. Huit bits par
# poids y arrivent tout juste, sans rien retirer : gardez cela en tête.
#
# ## 5.8 Ce que cela fait gagner : du temps ?
#
# ??? q="zeros_time"

# %% [markdown]
# Un produit dense ne gagne rien. Un produit CSR ne touche que les poids gardés, mais doit lire où ils vont.
# **Pariez :** à partir de quelle part de zéros va-t-il plus vite ?

# %%
ch5.products(
    size="small",
    tokens=atelier.scale().pick(essai=(1,), cpu=(1, 128), gpu=(1, 512)),
    amounts=atelier.scale().pick(essai=(0.5, 0.9, 0.99), cpu=ch5.TIMED, gpu=ch5.TIMED),
    repeats=atelier.scale().pick(essai=2, cpu=7, gpu=21),
)

# %% [markdown]
# Comparez cette part à celle où la perplexité s'envole, au paragraphe 5.4. Sans réapprentissage, un élagage libre ne
# fait gagner du temps que là où Colibri ne parle plus.
#
# C'est pourquoi la diapositive écrit de l'élagage « a lot of work is done solely for research ». Le jugement vaut ce
# que valent ces trois mesures : des zéros libres pèsent leurs indices ; ils ne font gagner du temps qu'en très grand
# nombre, ou avec le bon motif et la bonne carte ; et la quantification, à octets égaux, abîme moins.

# %%
ch5.same_bits()

# %% [markdown]
# Lisez la figure à la verticale, puis à l'horizontale : pour une même perplexité, combien de bits de plus faut-il à
# l'élagage ? Nous reviendrons aux deux ensemble. Mais il y a d'abord une autre façon de retirer, et celle-là rétrécit
# vraiment les matrices.
#
# ## 5.9 Retirer pour de bon
#
# Au lieu de poids isolés, retirons des morceaux entiers : une tête, un neurone, un bloc. C'est l'élagage **structuré**.
# Les matrices deviennent plus petites, et tout devient plus rapide sans noyau spécial. Mais quelles têtes ? On les fait
# taire une à une.

# %%
head_importances = ch5.head_scores(colibri, calibration[:4])

# %% [markdown]
# « Are Sixteen Heads Really Better than One? », demandaient Michel et al. (2019) : dans leurs modèles, beaucoup de
# têtes ne coûtent presque rien, prises une à une. Colibri n'en a que trente : voyez combien sont dans ce cas.
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
    """Retire pour de bon des têtes d'attention d'un bloc de GPT-2 : des matrices plus petites, sans zéros.

    c_attn_weight : (d, 3d) et c_attn_bias : (3d,), la couche qui fabrique Q, K et V ; c_proj_weight : (d, d), la
        projection de sortie. Ce sont des Conv1D : une couche calcule x @ poids + biais, ses poids sont (entrée,
        sortie).
    Les 3d sorties de c_attn sont rangées Q, puis K, puis V, d colonnes chacun ; avec D = d / n_head, la tête h occupe
        les composantes h·D à (h + 1)·D − 1 de chacun des trois, et les mêmes à l'entrée de c_proj.
    heads : numéros des têtes à retirer, de 0 à n_head − 1, sans répétition, dans un ordre quelconque (vide : aucune).
    Rend (c_attn_weight, c_attn_bias, c_proj_weight) sans ces têtes, de formes (d, 3d′), (3d′,) et (d′, d), où d′ vaut D
    fois le nombre de têtes gardées ; les têtes gardées restent dans le même ordre. Les arguments ne changent pas.

    Source : Michel et al., « Are Sixteen Heads Really Better than One? », NeurIPS 2019.
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
# L'épreuve : faire taire des têtes (leurs poids mis à zéro) et les retirer doivent donner les mêmes logits.

# %%
ch5.silenced_or_removed(colibri, calibration[:2], prune_heads, ch5.least_useful(head_importances, 6))

# %% [markdown]
# Mêmes réponses, moins de paramètres. Allons plus loin, les moins utiles d'abord. **Attention :** leurs coûts ont été
# mesurés une à une. S'additionnent-ils ?

# %%
ch5.head_curve(
    colibri,
    head_importances,
    prune_heads,
    counts=atelier.scale().pick(essai=(0, 6), cpu=(0, 3, 6, 10, 15), gpu=(0, 3, 6, 10, 15, 20)),
    tokens=short_extract,
)

# %% [markdown]
# Paramètres, octets et temps baissent pour de bon, et la perplexité monte plus vite que si les coûts s'ajoutaient
# (dernière colonne) : deux têtes qui font le même travail, par exemple, ne coûtent presque rien chacune, et beaucoup
# ensemble. Et les neurones du MLP, ou un bloc entier ? Les neurones sont classés comme par Wanda (taille de leurs poids
# de sortie, fois la norme de leur activation), et le bloc retiré est celui qui coûte le moins. À nombre de paramètres
# égal :

# %%
headless_colibri = ch5.three_ways(colibri, calibration, head_importances, prune_heads, tokens=short_extract)

# %%
ch5.rows_structure(headless_colibri, prune_heads)

# %% [markdown]
# Pour choisir le bloc à retirer, nous les avons tous essayés. ShortGPT (Men et al., 2024) propose de ne rien essayer :
# un bloc qui ne fait presque pas tourner les vecteurs qui le traversent serait un bloc dont on peut se passer.

# %% [markdown]
# ### ✎ block_influence


# %% exercise="block_influence"
def block_influence(hidden_in: torch.Tensor, hidden_out: torch.Tensor) -> float:
    """Influence d'un bloc : combien il change la direction de ce qui le traverse.

    hidden_in, hidden_out : (…, d) flottants de même forme, les vecteurs des mêmes jetons, à l'entrée et à la sortie du
    bloc ; aucun n'est nul.
    Rend un flottant Python, de 0 (aucun vecteur ne tourne) à 2 (tous sont retournés) : 1 moins la moyenne, sur les
    jetons, du cosinus entre les deux vecteurs d'un jeton.

    Source : Men et al., « ShortGPT », 2024, arXiv 2403.03853, équation (1), *Block Influence*.
    """
    ### BEGIN SOLUTION
    return 1 - F.cosine_similarity(hidden_in, hidden_out, dim=-1).mean().item()
    ### END SOLUTION


# %% [markdown]
# ??? q="reload"

# %% [markdown]
# Ces modèles sont-ils encore des GPT-2 ordinaires ? On les écrit par `save_pretrained`, on les relit par
# `from_pretrained`, et l'on compare les logits.

# %%
ch5.save_and_reload(colibri, calibration, head_importances, prune_heads, tokens=short_extract)

# %% [markdown]
# Neurones et blocs ont leur mot dans la configuration (`n_inner`, `n_layer`) : n'importe qui peut relire le fichier, à
# condition que **tous les blocs se ressemblent**. Les têtes, non, même une par bloc : `n_head` fixe aussi la taille
# d'une tête, `n_embd / n_head`. La bibliothèque avait autrefois une méthode `prune_heads` et un champ `pruned_heads`
# dans la configuration ; sa version 5 les a retirés (demande 41417 de son dépôt). Il faut donc, comme dans la dernière
# colonne, quelques lignes de code à joindre au fichier : c'est un coût, lui aussi.

# %% [markdown]
# ## 5.10 Réapprendre
#
# Un modèle élagué n'est pas perdu : on peut reprendre l'apprentissage (*recovery*), en gardant les zéros.
#
# ??? q="mask_or_not"

# %%
sample_text = atelier.corpus_tokens("a_train", atelier.scale().pick(essai=20_000, cpu=None, gpu=None))
ch5.forgotten(colibri, sample_text, magnitude_mask, steps=atelier.scale().pick(essai=1, cpu=4, gpu=10))

# %% [markdown]
# On repose donc le masque après chaque pas. (Sans lui, la perplexité est meilleure que celle que vous verrez plus bas,
# et pour cause : ce n'est plus un modèle élagué.) Et faut-il tout retirer d'un coup ? Zhu et Gupta (2017) retirent
# **peu à peu**, pendant l'apprentissage, pour que les poids qui restent aient le temps de s'y faire.

# %% [markdown]
# ### ✎ cubic_schedule


# %% exercise="cubic_schedule"
def cubic_schedule(step: int, start: int, end: int, final_sparsity: float, initial_sparsity: float = 0.0) -> float:
    """Part des poids retirés à un pas de l'apprentissage : vite d'abord, doucement ensuite.

    step : pas courant ; start, end : pas où l'élagage commence et finit.
    final_sparsity, initial_sparsity : parts retirées à la fin et au début, entre 0 et 1, notées s_f et s_i.
    Rend un float : s_f + (s_i − s_f)·(1 − (step − start)/(end − start))³ entre start et end ; s_i avant, s_f après.
    Lève ValueError si start ≥ end, ou si l'une des deux parts n'est pas entre 0 et 1.

    Source : Zhu et Gupta, « To prune, or not to prune », 2017, équation (1).
    """
    ### BEGIN SOLUTION
    if start >= end:
        raise ValueError(f"l'élagage finit au pas {end}, il ne peut pas commencer au pas {start}")
    if not (0 <= final_sparsity <= 1 and 0 <= initial_sparsity <= 1):
        raise ValueError(f"parts retirées hors de [0, 1] : {initial_sparsity}, {final_sparsity}")
    progress = min(max((step - start) / (end - start), 0.0), 1.0)
    return final_sparsity + (initial_sparsity - final_sparsity) * (1 - progress) ** 3
    ### END SOLUTION


# %%
ch5.schedule_plot(cubic_schedule)

# %% [markdown]
# Beaucoup au début, quand il y a de quoi ; peu à la fin, quand chaque poids compte. À vous : 80 % des poids de Colibri,
# retirés d'un coup puis, sur les mêmes jetons et en autant de pas, peu à peu. **Pariez** sur le gagnant.

# %%
recovery_results = ch5.recover(
    colibri,
    sample_text,
    magnitude_mask,
    cubic_schedule,
    steps=atelier.scale().pick(essai=4, cpu=100, gpu=100),
    tokens=extract_tokens,
)

# %%
ch5.recovery_table()

# %% [markdown]
# Trois choses à lire. La reprise répare énormément : comparez avec « avant la reprise ». Un modèle entier entraîné
# d'autant est la bonne référence, pas le modèle de départ. Et « peu à peu » ne bat pas « d'un coup » ici : à nombre de
# pas égal, il n'a que les derniers pas pour se remettre de la dernière coupe. Zhu et Gupta élaguent sur des milliers de
# pas ; regardez si l'écart se referme quand on en donne trois fois plus (dernière colonne).

# %% [markdown]
# Le témoin (première ligne) surprend : entraîner Colibri **sans rien lui retirer** lui a fait perdre quelque chose. Le
# **taux d'apprentissage** (*learning rate*), la taille de ses pas, a été choisi pour réparer de gros dégâts : il en
# fait de petits à qui n'en avait pas. Quel taux pour quel dégât ? **Pariez** sur la ligne 50 %, puis sur la ligne 90 %.

# %%
ch5.recovery_rates()

# %% [markdown]
# Cherchez le meilleur taux de chaque ligne. Plus on a retiré, plus il faut bouger les poids qui restent : le taux d'une
# reprise se règle sur l'étendue des dégâts.
#
# Deux réserves. Quand le meilleur taux est au bord du tableau, le vrai meilleur est peut-être au-delà. Et le match de
# tout à l'heure, « d'un coup » contre « peu à peu », s'est joué au même taux pour tous : à un autre, nous ne savons pas
# qui gagnerait.

# %%
ch5.row_recovered(recovery_results, magnitude_mask, cubic_schedule)

# %% [markdown]
# ## 5.11 Élaguer et quantifier
#
# La moitié des poids, sur 4 bits : dans quel ordre ? **Réfléchissez avant d'exécuter.** Si l'on arrondit d'abord, que
# devient le classement ? Si l'on élague d'abord, un zéro reste-t-il un zéro ? Et GPTQ, qui déplace les poids suivants,
# respecte-t-il les zéros ?

# %%
ch5.orders(colibri, calibration, wanda_mask, extract_tokens)

# %% [markdown]
# Quatre lectures :
#
# - **élaguer d'abord** fait mieux dans les deux couples : l'arrondi brouille le classement, et crée à lui seul bien des
#   zéros (deuxième colonne) ; l'élagage, lui, ne gêne pas l'arrondi, puisque zéro est sur la grille ;
# - GPTQ déplace les poids suivants, et pourrait réveiller ceux qu'on a retirés. Il le fait peu : une correction plus
#   petite qu'un demi-pas s'arrondit à zéro. Reposer le masque ne change donc presque rien ;
# - **SparseGPT** élague et arrondit en une passe, chaque erreur corrigée par les suivants : c'est de loin le meilleur
#   des mélanges, et les quatre bits ne lui coûtent rien de visible ;
# - moitié élaguée sur 4 bits, bitmap compris, fait trois bits par poids. À **bits égaux**, comparez donc aux lignes « 3
#   bits ».

# %%
ch5.row_both(colibri, calibration, wanda_mask)

# %% [markdown]
# ## 5.12 Où en est Colibri

# %%
atelier.board()

# %% [markdown]
# **Ce que vous savez maintenant.** Retirer les plus petits poids coûte peu d'abord, beaucoup ensuite ; regarder ce
# qu'ils multiplient coûte moins, et corriger ceux qui restent, moins encore. Des zéros libres ne font gagner ni temps,
# à moins d'être très nombreux, ni place, sans bon rangement ; une structure, si. Un élagage se répare en partie par un
# peu d'apprentissage, masque gardé. Et à octets égaux, sur un modèle de cette taille, mieux vaut d'abord quantifier.
#
# Il reste une chose que ni l'un ni l'autre ne fait : apprendre à Colibri ce qu'il ne sait pas. C'est le chapitre 6.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Han et al., *Learning both Weights and Connections for Efficient Neural Networks*, 2015, arXiv
# 1506.02626 · Zhu et Gupta, *To prune, or not to prune*, 2017, arXiv 1710.01878 · Michel et al., *Are Sixteen Heads
# Really Better than One?*, 2019, arXiv 1905.10650 · Sanh et al., *Movement Pruning*, 2020, arXiv 2005.07683 · Mishra et
# al., *Accelerating Sparse Deep Neural Networks*, 2021, arXiv 2104.08378 · Frantar et Alistarh, *SparseGPT*, 2023,
# arXiv 2301.00774 · Sun et al., *A Simple and Effective Pruning Approach for Large Language Models* (Wanda), 2023,
# arXiv 2306.11695, et dépôt `locuslab/wanda`, README (tableau LLaMA-2) · Frantar et al., *GPTQ*, ICLR 2023, arXiv
# 2210.17323 · Yao et al., *ZeroQuant*, 2022, arXiv 2206.01861
