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
# # Chapitre 1 · Rappel : GPT-2
#
# Colibri lit « Le salarié peut demander » et propose la suite. **Avant d'aller plus loin :** par combien de nombres
# cette phrase passe-t-elle avant de devenir un mot de plus ? Et combien de ces nombres le modèle a-t-il appris ?
#
# Dans ce chapitre, vous suivez la phrase pas à pas, vous écrivez l'attention et vous la mettez dans Colibri, vous
# comptez ses paramètres et ceux de GPT-2, puis vous le faites parler. Comptez deux heures. Tant qu'un exercice n'est
# pas fait, les figures qui en dépendent montrent le résultat de l'auteur et le disent : rien ne vous arrête.

# %%
import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch1
from atelier.text import plural

atelier.describe_machine()

# %% tags=["setup"]
import math

import torch
from transformers import GPT2LMHeadModel

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
example_sentence = "Le salarié peut demander à son employeur une réduction de son temps de travail."

print(plural(colibri.num_parameters(), "paramètre"))
print(atelier.evaluate_perplexity(colibri))

# %% [markdown]
# Colibri a exactement l'architecture de GPT-2, en petit, et n'a lu que du français : guides de l'administration,
# dictionnaire, manuels, un peu de droit. Les phrases de ce chapitre sont donc dans sa langue.
#
# ## 1.1 Des octets aux jetons
#
# Un ordinateur ne range pas des lettres mais des **octets** : « é » en prend deux. Un modèle ne lit pas des octets
# mais des **jetons** (*tokens*), des morceaux de texte fréquents. **Pariez :** combien de jetons pour la phrase
# ci-dessous ? Essayez ensuite un mot rare, une faute d'orthographe, une autre langue.

# %%
ch1.tokens_table(tokenizer, example_sentence)

# %% [markdown]
# Le découpage vient d'un algorithme simple, le **BPE** (*byte-pair encoding*, Sennrich et al., 2016) : on part des 256
# octets, et l'on fusionne, encore et encore, la paire de voisins la plus fréquente du corpus, jusqu'à la taille de
# vocabulaire voulue. L'espace fait partie du mot qui suit.
#
# ??? q="tokens"

# %% [markdown]
# Les fusions ont été choisies sur **un** corpus. Que deviennent-elles sur un autre ?

# %%
ch1.bytes_per_token(
    tokenizer,
    {
        "anglais": "The employee may ask the employer for a reduction of working hours, as provided by law. " * 20,
        "chiffres": "3,14159265358979 et 2,71828182845905 ; 01 23 45 67 89. " * 20,
        "Python": "def f(x: int) -> int:\n    return sum(i * x for i in range(10))\n" * 20,
    },
)

# %% [markdown]
# Un texte loin du corpus coûte plus de jetons : il remplit plus vite le contexte, et chaque jeton y porte moins.
# Retenez-le pour le jour où vous comparerez deux modèles.
#
# ## 1.2 Toutes les formes, une fois
#
# Voici les tenseurs que la phrase traverse. **Avant d'exécuter :** lequel grandit quand la phrase s'allonge ? Lequel
# grandit comme le **carré** de sa longueur ?

# %%
ch1.follow(colibri, tokenizer, example_sentence)

# %% [markdown]
# Les mêmes étapes, dessinées. Les données montent ; le trait épais est le **flux résiduel** : chaque branche y lit,
# puis y ajoute ce qu'elle a calculé. Rien n'y est jamais remplacé.

# %%
ch1.architecture(colibri, n_tokens=len(tokenizer(example_sentence)["input_ids"]))

# %% [markdown]
# En haut sort un score par entrée du vocabulaire, un **logit**, et cela après chaque jeton. Un softmax en fait des
# probabilités. Celles du dernier jeton disent comment la phrase pourrait continuer.

# %%
opening_words = "Le salarié peut demander à son"
ch1.next_token(colibri, tokenizer, opening_words)

# %% [markdown]
# Et avant le dernier bloc, que savait le modèle ? Rien n'empêche d'appliquer la tête plus tôt.

# %%
ch1.block_by_block(colibri, tokenizer, opening_words)

# %% [markdown]
# Le choix se fait peu à peu : le flux ne contient d'abord que le dernier jeton et son rang, et chaque bloc y ajoute ce
# qu'il a trouvé ailleurs dans la phrase. Ailleurs, c'est le travail de l'attention.
#
# ## 1.3 L'attention
#
# Dans un bloc, chaque jeton fabrique trois vecteurs : une **requête** $q$ (*query*), une **clé** $k$ (*key*), une
# **valeur** $v$ (*value*). Le jeton $t$ compare sa requête à toutes les clés qu'il a le droit de voir, et fait une
# moyenne des valeurs, pondérée par ces comparaisons :
#
# $$ y_t = \sum_{s \le t} a_{ts}\, v_s, \qquad a_{ts} = \frac{e^{q_t \cdot k_s / \sqrt D}}{\sum_{r \le t} e^{q_t \cdot k_r / \sqrt D}} . $$

# %% [markdown]
# Une seule moyenne serait pauvre. On coupe donc les $d$ composantes en $H$ **têtes** de $D = d/H$, qui font chacune
# la leur. Premier geste : passer de $(B, T, d)$ à $(B, H, T, D)$. **Attention :** avoir la bonne forme ne suffit pas.

# %% [markdown]
# ### ✎ split_heads


# %% exercise="split_heads"
def split_heads(x: torch.Tensor, n_head: int) -> torch.Tensor:
    """Découpe les composantes de chaque jeton en n_head têtes.

    x : (B, T, d) flottant, B phrases de T jetons à d composantes, pas forcément contigu en mémoire.
    Rend (B, n_head, T, d / n_head), du type de x. Avec D = d / n_head, la tête h reçoit les composantes voisines
    h·D, h·D + 1, …, (h + 1)·D − 1 de chaque jeton.
    Lève ValueError si n_head < 1 ou si n_head ne divise pas d.

    Source : Vaswani et al., « Attention Is All You Need », 2017, § 3.2.2.
    """
    ### BEGIN SOLUTION
    batch, length, width = x.shape
    if n_head < 1 or width % n_head:
        raise ValueError(f"{n_head} têtes ne se partagent pas {width} composantes")
    return x.reshape(batch, length, n_head, width // n_head).transpose(1, 2)
    ### END SOLUTION


# %% [markdown]
# Pourquoi diviser par $\sqrt D$ ? Si les composantes de $q$ et de $k$ ont pour variance 1, leur produit scalaire a pour
# variance $D$. Sans la division, plus une tête est large, plus son softmax se fige sur un seul jeton.
#
# Pourquoi $s \le t$ ?
#
# ??? q="causal_mask"

# %% [markdown]
# ### ✎ causal_attention


# %% exercise="causal_attention"
def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention causale : chaque jeton fait une moyenne des valeurs des jetons qui ne le suivent pas.

    q, k, v : (B, H, T, D) flottants chacun ; B phrases, H têtes, T jetons, D composantes par tête.
    Rend (B, H, T, D), du type de q : pour chaque jeton t, Σ_s a[t, s]·v[s], où les poids a[t, ·] sont le softmax
    sur s ≤ t des scores q[t]·k[s] / √D. Un jeton se voit lui-même ; les jetons s > t ont un poids exactement nul,
    même quand leurs scores sont immenses.

    Source : Vaswani et al., « Attention Is All You Need », 2017, équation (1) et § 3.2.3.
    """
    ### BEGIN SOLUTION
    length, width = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / math.sqrt(width)
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(diagonal=1)
    weights = torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
    return weights @ v
    ### END SOLUTION


# %% [markdown]
# `check` compare sur de petits tenseurs au hasard. Voici une épreuve plus sévère : **vos** deux fonctions prennent la
# place de l'attention de la bibliothèque, dans chaque bloc de Colibri, sur du vrai texte. Les logits sont-ils les
# mêmes ?

# %%
example_windows = ch1.calibration_ids(colibri, tokenizer, atelier.scale().pick(essai=2, cpu=8, gpu=64))
example_tokens = atelier.scale().pick(essai=512, cpu=2048, gpu=65536)

# %%
ch1.attention_inside(colibri, example_windows[:2], split_heads, causal_attention, max_tokens=example_tokens)

# %% [markdown]
# L'écart qui reste est celui des arrondis : les deux additionnent les mêmes nombres dans un autre ordre. Un modèle de
# langue n'a rien de plus caché que ces quelques lignes, répétées.
#
# **Que regardent les têtes ?** Choisissez un bloc et une tête. Cherchez-en une qui regarde le jeton précédent, une qui
# s'attarde sur le premier, une qui s'éparpille.

# %%
ch1.attention_map(colibri, tokenizer, example_sentence, layer=0, head=0)

# %% [markdown]
# Une carte, sur une phrase, se laisse raconter comme un dessin de nuage. Mesurons donc, sur du vrai texte : quelle
# part de son attention chaque tête donne-t-elle à tel ou tel jeton, et quelle part lui en donnerait-elle si elle
# regardait partout pareil ? Puis l'épreuve : on fait taire la tête, et l'on regarde la perplexité.

# %%
my_generation = ch1.what_heads_do(colibri, tokenizer, example_windows[:4], max_tokens=example_tokens)

# %% [markdown]
# Lisez les deux dernières colonnes ensemble. Une tête qui donne vingt fois plus que le hasard à un genre de jetons fait
# quelque chose ; cela ne dit pas encore que le modèle en dépend, et une tête très typée peut ne presque rien coûter
# quand elle se tait. La carte de celle qui regarde le plus le jeton précédent :

# %%
ch1.attention_map(colibri, tokenizer, example_sentence, **my_generation["le jeton précédent"])

# %% [markdown]
# La dernière mesure du tableau, « ce qui suivait le même jeton », a un nom : une **tête d'induction**, qui complète
# « A B … A » par B. Olsson et al. (2022, arXiv 2209.11895) en trouvent dans de petits modèles et leur prêtent une
# bonne part de l'apprentissage en contexte. Elle ne peut pas travailler seule : pour savoir ce qui suivait un jeton,
# il faut qu'une tête placée plus bas ait noté, sur chaque jeton, quel était le précédent. Comparez ci-dessus les
# numéros de bloc.
#
# ## 1.4 Compter
#
# Reprenez le dessin de l'architecture et comptez ce qui s'apprend : chaque boîte est une matrice, un vecteur, ou deux.
# **Devinez d'abord :** dans Colibri, qui l'emporte, la table des jetons ou les blocs ?

# %% [markdown]
# ### ✎ gpt2_num_params


# %% exercise="gpt2_num_params"
def gpt2_num_params(n_layer: int, d_model: int, n_vocab: int = 50257, n_ctx: int = 1024) -> int:
    """Nombre exact de paramètres d'un GPT-2.

    n_layer : nombre de blocs ; d_model : nombre de composantes d'un jeton ; n_vocab : taille du vocabulaire ;
    n_ctx : nombre de positions.
    Rend un int : plongements des jetons et des positions, blocs, dernier LayerNorm. Chaque couche linéaire a un
    biais, chaque LayerNorm un gain et un biais. Le MLP élargit d_model à 4·d_model. La tête de sortie est liée à
    la table des jetons : elle n'a aucun paramètre à elle.
    Lève ValueError si n_layer est négatif, ou si d_model, n_vocab ou n_ctx est inférieur à 1.

    Source : Radford et al., « Language Models are Unsupervised Multitask Learners », 2019, § 2.3 et tableau 2.
    """
    ### BEGIN SOLUTION
    if n_layer < 0 or min(d_model, n_vocab, n_ctx) < 1:
        raise ValueError("il faut des tailles d'au moins 1, et un nombre de blocs positif ou nul")
    tables = n_vocab * d_model + n_ctx * d_model
    attention = d_model * 3 * d_model + 3 * d_model + d_model * d_model + d_model
    mlp = d_model * 4 * d_model + 4 * d_model + 4 * d_model * d_model + d_model
    norm = 2 * d_model
    return tables + n_layer * (norm + attention + norm + mlp) + norm
    ### END SOLUTION


# %% [markdown]
# Votre formule, et ce que la bibliothèque trouve dans les vrais modèles :

# %%
ch1.count_models(colibri, gpt2_num_params)

# %% [markdown]
# Les diapositives donnent pour les quatre GPT-2 : 117M, 345M, 762M et 1542M. Vous venez de trouver autre chose. **Qui a
# raison ?**

# %%
ch1.deck_counts(gpt2_num_params)

# %% [markdown]
# Les nombres de la diapositive sont ceux de l'article (Radford et al., 2019, tableau 2). Le dépôt d'OpenAI les a
# corrigés ensuite : « our original parameter counts were wrong due to an error », et les modèles s'y appellent depuis
# 124M, 355M, 774M et 1558M. L'erreur n'y est pas expliquée. La dernière colonne est **notre déduction**, pas la leur
# : avec le vocabulaire de GPT-1, 40 478 entrées au lieu de 50 257, la même formule redonne les quatre nombres
# annoncés.

# %% [markdown]
# Ces paramètres, où sont-ils ?
#
# ??? q="where_parameters"

# %%
ch1.where_parameters(colibri)

# %% [markdown]
# Dans un petit modèle, la table des jetons et les positions pèsent lourd ; dans GPT-3, on ne les voit plus. Partout,
# le MLP compte deux fois plus que l'attention : $8d^2$ contre $4d^2$ par bloc. D'où l'approximation $12\,L\,d^2$ : il
# lui manque près d'un tiers du plus petit GPT-2, et presque rien de GPT-3.
#
# La diapositive « GPT-3 » résume : plus de couches, plus de données, un apprentissage plus long, une dimension et un
# contexte plus grands. En chiffres, avec votre formule :

# %%
ch1.gpt2_to_gpt3(gpt2_num_params)

# %% [markdown]
# ## 1.5 La perplexité
#
# Un modèle de langue n'a pas raison ou tort : il est plus ou moins **surpris**. La surprise d'un jeton est
# $-\log_2 p$, en bits : 1 bit pour une pièce de monnaie, 12 bits pour un tirage parmi 4 096. Changez la phrase,
# glissez-y un mot inattendu, et regardez aussi le jeton **d'après**.

# %%
ch1.surprise_text(colibri, tokenizer, example_sentence)

# %%
ch1.surprise_text(colibri, tokenizer, example_sentence.replace("employeur", "crocodile"))

# %% [markdown]
# La **perplexité** résume un texte : la moyenne des surprises, remise en « nombre de choix équiprobables ».
#
# $$ \mathrm{ppl} = \exp\Big(-\frac1N \sum_{t} \ln p(x_{t+1} \mid x_1, \dots, x_t)\Big) $$
#
# Deux pièges attendent qui l'écrit : le **décalage** (les logits du rang $t$ parlent du jeton $t + 1$) et le
# **remplissage** (*padding*), ces faux jetons qui complètent les phrases courtes d'un lot.

# %% [markdown]
# ### ✎ perplexity


# %% exercise="perplexity"
def perplexity(
    logits: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Perplexité d'un modèle de langue causal sur un lot de phrases.

    logits : (B, T, V) flottants, un score par mot du vocabulaire après chaque jeton lu ;
    input_ids : (B, T) entiers, les jetons lus ;
    attention_mask : (B, T) entiers, 1 sur un vrai jeton, 0 sur le remplissage, qui peut être à gauche ou à droite ;
        None s'il n'y a pas de remplissage.
    Rend un seul nombre (tenseur à 0 dimension, ou float) : l'exponentielle de la moyenne, sur toutes les paires
    (t, t + 1) du lot dont les deux jetons sont vrais, de −ln p(jeton t + 1 | jetons jusqu'à t). Chaque paire compte
    autant, quelle que soit la longueur de sa phrase. Des scores très grands ne doivent donner ni inf ni nan.

    Source : Jelinek et al., « Perplexity, a measure of the difficulty of speech recognition tasks », 1977.
    """
    ### BEGIN SOLUTION
    log_probs = torch.log_softmax(logits[:, :-1], dim=-1)
    surprise = -log_probs.gather(-1, input_ids[:, 1:, None])[..., 0]
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    pairs = (real[:, :-1] * real[:, 1:]).bool()
    return torch.exp(surprise[pairs].mean())
    ### END SOLUTION


# %% [markdown]
# Le premier jeton d'une fenêtre est deviné d'après rien ou presque. Combien faut-il en avoir lu pour ne plus être
# perdu ?

# %%
ch1.surprise_by_rank(colibri, tokenizer, n_windows=atelier.scale().pick(essai=4, cpu=64, gpu=512))

# %% [markdown]
# Voilà pourquoi une perplexité n'est rien sans son **protocole**. Avec des fenêtres séparées, les premiers jetons de
# chacune sont notés presque sans contexte. Le protocole du cours, `evaluate_perplexity`, fait avancer la fenêtre d'un
# **pas** (*stride*) plus court qu'elle et ne note que les jetons nouveaux : chacun a toujours du passé derrière lui.
# **Pariez :** de combien la perplexité du même modèle sur le même texte peut-elle changer ?

# %%
ch1.protocols(colibri, tokenizer, perplexity, max_tokens=atelier.scale().pick(essai=512, cpu=2048, gpu=65536))

# %% [markdown]
# Votre fonction et le protocole donnent presque la même chose quand le pas égale le contexte : ce sont alors les
# mêmes fenêtres, à un jeton près. Un pas plus court donne du passé à tous les jetons notés, et coûte du temps :
# chacun est relu plusieurs fois. Lisez la dernière ligne : diviser le pas par deux, puis encore par deux, n'apporte
# pas deux fois la même chose. Quand deux articles annoncent deux perplexités pour un même modèle, commencez par
# comparer leurs protocoles.
#
# ??? q="compare_perplexity"

# %% [markdown]
# ## 1.6 Le faire parler
#
# Pour générer, on lit, on choisit un jeton, on l'ajoute, et l'on recommence. Le choix le plus simple est **glouton**
# (*greedy*) : toujours le plus probable. À chaque tour, faut-il relire toute la phrase ? Regardez la formule de
# l'attention : du passé, il ne faut que les clés et les valeurs, et le futur n'y change rien. On les garde donc, dans
# un **cache K/V**.
#
# ??? q="cache_query"

# %% [markdown]
# ### ✎ greedy_generate


# %% exercise="greedy_generate"
def greedy_generate(model: GPT2LMHeadModel, input_ids: torch.Tensor, n_new: int) -> torch.Tensor:
    """Prolonge chaque phrase de n_new jetons, en prenant chaque fois le plus probable.

    model : GPT-2 de transformers, en mode évaluation ; input_ids : (B, T) entiers, T ≥ 1, sans remplissage.
    Rend (B, T + n_new) entiers : les jetons reçus, puis les nouveaux ; (B, T) si n_new vaut 0.
    Le cache K/V est employé : chaque jeton passe au plus une fois dans le modèle.
    Lève ValueError si n_new est négatif, ou si T + n_new dépasse model.config.n_positions.

    Emploi du cache : `out = model(ids, cache, use_cache=True)`, où ids ne contient que les jetons que le cache
    n'a pas encore vus, et où cache vaut None au premier appel. `out[0]` donne les scores, (B, jetons lus, V), et
    `out[1]` le cache à employer ensuite (son nom change avec les versions de transformers, pas sa place).
    """
    ### BEGIN SOLUTION
    length = input_ids.shape[1]
    if n_new < 0:
        raise ValueError(f"n_new vaut {n_new}")
    if length + n_new > model.config.n_positions:
        raise ValueError(f"{length} + {n_new} jetons ne tiennent pas dans {model.config.n_positions} positions")

    ids, unread, cache = input_ids, input_ids, None
    with torch.no_grad():
        for _ in range(n_new):
            out = model(unread, cache, use_cache=True)
            cache = out[1]
            unread = out[0][:, -1].argmax(dim=-1, keepdim=True)
            ids = torch.cat([ids, unread], dim=1)
    return ids
    ### END SOLUTION


# %%
prompts = ["Le salarié peut demander", "Le mot est employé", "Pour installer le paquet,"]
ch1.greedy_text(colibri, tokenizer, prompts, greedy_generate)

# %% [markdown]
# Le début se tient, puis le texte finit souvent par tourner en rond : prendre le plus probable à chaque pas ne fait
# pas un texte vraisemblable. Il faut un peu de hasard, mais pas n'importe lequel.
#
# - la **température** $T$ divise les logits avant le softmax : sous 1, les écarts se creusent ; au-dessus, ils
#   s'effacent ;
# - **top-k** ne garde que les $k$ jetons les plus probables (Fan et al., 2018) ;
# - **top-p**, ou *nucleus*, garde les plus probables jusqu'à réunir une probabilité $p$ (Holtzman et al., 2020).
#
# ??? q="sampling"

# %% [markdown]
# « Play with it here », dit la diapositive, avec un lien vers GPT-2. Ici aussi, et sans réseau : bougez les curseurs,
# changez l'amorce.

# %%
model_name = "colibri"  # avec un réseau, « gpt2 » fait jouer le vrai GPT-2 (environ 500 Mo la première fois)
player, player_tokenizer = atelier.load_model(model_name), atelier.load_tokenizer(model_name)
ch1.play(player, player_tokenizer, "Le salarié peut demander", temperature=0.8, top_k=40, top_p=0.95)

# %% [markdown]
# GPT-2 a appris sur de l'anglais : donnez-lui plutôt « The capital of France is ». Quatre réglages côte à côte, et deux
# nombres : ce que le modèle pense de ce qu'il a lui-même écrit, et à quel point il se répète.

# %%
ch1.settings_compared(
    colibri, tokenizer, "Le salarié peut demander", n_new=atelier.scale().pick(essai=12, cpu=24, gpu=60)
)

# %% [markdown]
# Le glouton s'accorde à lui-même la meilleure note et se répète le plus ; la température haute ne se répète pas et
# s'égare. Les réglages d'usage cherchent entre les deux : une perplexité voisine de celle d'un vrai texte.
#
# ## 1.7 Ce que coûte la mémoire du passé
#
# Sans cache, le jeton $n + 1$ demande de relire $n$ jetons ; avec, un seul. Mesuré :

# %%
ch1.cache_times(
    colibri,
    lengths=atelier.scale().pick(essai=(16, 128, 256), cpu=(16, 64, 128, 192, 256), gpu=(16, 64, 256, 512, 1024)),
    repeats=atelier.scale().pick(essai=3, cpu=21, gpu=21),
    size=atelier.scale().pick(essai=None, cpu=None, gpu="small"),
)

# %% [markdown]
# Avec le cache, le temps d'un jeton grandit peu avec la longueur ; sans lui, beaucoup. Ce temps gagné se paie en
# mémoire. **Combien d'octets faut-il garder par jeton lu ?**

# %% [markdown]
# ### ✎ kv_cache_bytes


# %% exercise="kv_cache_bytes"
def kv_cache_bytes(n_layer: int, d_model: int, n_tokens: int, batch_size: int = 1, bytes_per_value: int = 2) -> int:
    """Octets du cache K/V d'un GPT-2 qui a lu n_tokens jetons.

    n_layer : nombre de blocs ; d_model : composantes d'un jeton, toutes têtes réunies ;
    n_tokens : jetons lus, par phrase (0 est permis) ; batch_size : phrases lues en même temps, de même longueur ;
    bytes_per_value : octets d'un nombre, 2 en FP16, 4 en FP32.
    Rend un int.
    Lève ValueError si n_tokens ou batch_size est négatif.
    """
    ### BEGIN SOLUTION
    if n_tokens < 0 or batch_size < 0:
        raise ValueError("un nombre de jetons ou de phrases n'est pas négatif")
    keys_and_values = 2
    return keys_and_values * n_layer * d_model * n_tokens * batch_size * bytes_per_value
    ### END SOLUTION


# %%
ch1.cache_sizes(colibri, kv_cache_bytes)

# %% [markdown]
# Quelques kilooctets par jeton pour Colibri, quelques mégaoctets pour GPT-3. Le cache ne dépend ni du vocabulaire ni
# du MLP, seulement de $L$, de $d$ et de la longueur : servir beaucoup de longues conversations à la fois, c'est
# d'abord une affaire de mémoire. D'où les têtes qui partagent leurs clés et leurs valeurs (GQA, chapitre 9) et les
# caches quantifiés, avec les outils du chapitre 3.
#
# ## 1.8 Ce que vous savez maintenant
#
# Un texte devient des octets, puis des jetons, puis un flux de vecteurs que chaque bloc complète. L'attention est une
# moyenne, pondérée par des produits scalaires, où le futur est interdit. Les paramètres d'un GPT-2 se comptent
# exactement, à partir de quatre nombres, et les tailles de la diapositive étaient fausses. Une perplexité se lit avec
# son protocole. Et le cache K/V échange de la mémoire contre du temps.
#
# Il reste à savoir ce que **coûte** un passage dans le modèle, et son apprentissage : c'est le chapitre 2.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Radford et al., *Language Models are Unsupervised Multitask Learners*, 2019 · dépôt `openai/gpt-2`,
# README (comptes corrigés) · Radford et al., *Improving Language Understanding by Generative Pre-Training*, 2018 ·
# Brown et al., *Language Models are Few-Shot Learners*, 2020, arXiv 2005.14165 · Vaswani et al., *Attention Is All
# You Need*, 2017, arXiv 1706.03762 · Sennrich et al., *Neural Machine Translation of Rare Words with Subword Units*,
# 2016, arXiv 1508.07909 · nostalgebraist, *interpreting GPT: the logit lens*, 2020 · Olsson et al., *In-context
# Learning and Induction Heads*, 2022, arXiv 2209.11895 · Fan et al., *Hierarchical Neural Story Generation*, 2018,
# arXiv 1805.04833 · Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2020, arXiv 1904.09751 · Jelinek
# et al., *Perplexity*, 1977 · nanoGPT (Karpathy) et Hugging Face, *Perplexity of fixed-length models*, pour le
# protocole
