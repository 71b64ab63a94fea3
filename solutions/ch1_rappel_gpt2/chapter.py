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
# Colibri lit « Le salarié peut demander » et propose la suite. Par combien de nombres cette phrase passe-t-elle avant
# de devenir un mot de plus ? Et combien de ces nombres le modèle a-t-il appris ?
#
# Dans ce chapitre, vous suivez la phrase pas à pas, vous écrivez l'attention et refaites GPT-2 tout entier autour
# d'elle, vous comptez ses paramètres, puis vous le faites parler. Comptez deux heures, dont une heure et demie pour les
# sept exercices. Tant qu'un exercice n'est pas fait, les expériences qui en dépendent montrent le résultat de l'auteur
# et le disent : rien ne vous arrête. Un mot, une lettre qui vous échappe ? `atelier.glossary("requête")`,
# `atelier.notations()`.

# %%
import copy

import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch1
from atelier.text import plural

atelier.describe_machine()

# %% tags=["setup"]
import math

import torch
from transformers import GPT2Config, GPT2LMHeadModel

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
example_sentence = "Le salarié peut demander à son employeur une réduction de son temps de travail."
print(plural(colibri.num_parameters(), "paramètre"))

# %% [markdown]
# Colibri a exactement l'architecture de GPT-2, en petit, et n'a lu que du français : guides de l'administration,
# dictionnaire, manuels, un peu de droit. Les phrases de ce chapitre sont donc dans sa langue.
#
# ## 1.1 Des octets aux jetons
#
# Un ordinateur ne range pas des lettres mais des **octets** : « é » en prend deux. Un modèle ne lit pas des octets
# mais des **jetons** (*tokens*), des morceaux de texte fréquents, que lui donne un **découpeur** (*tokenizer*).

# %%
atelier.bet("how_many_tokens", f"Combien de jetons pour « {example_sentence} » ?")

# %%
ch1.tokens_table(tokenizer, example_sentence)
atelier.settle("how_many_tokens", len(tokenizer(example_sentence)["input_ids"]))

# %% [markdown]
# Essayez un mot rare, une faute d'orthographe, une autre langue.
#
# Le découpage vient d'un algorithme simple, le **BPE** (*byte-pair encoding*) : on fusionne, encore et encore, la paire
# de voisins la plus fréquente d'un corpus, jusqu'à la taille de vocabulaire voulue. Sennrich et al. (2016), qui l'ont
# apporté à la traduction automatique, partent des caractères de chaque mot. GPT-2 (Radford et al., 2019, § 2.2) part
# des 256 octets. Il coupe d'abord le texte en mots, en nombres et en signes, qu'aucune fusion n'enjambe ; l'espace y
# fait partie du mot qui suit. Colibri fait comme GPT-2. Ses premières fusions, dans l'ordre :

# %%
first_merges = [ch1.token_text(tokenizer, i) for i in range(257, 277)]
print(" · ".join(first_merges))

# %% [markdown]
# La deuxième est « é », dont il fallait d'abord recoller les deux octets.
#
# ??? q="tokens"

# %% [markdown]
# Les fusions ont été choisies sur **un** corpus. Que deviennent-elles sur un autre ?


# %% experiment="bytes_per_token"
@atelier.experiment()
def bytes_per_token(n_characters=40_000):
    """Octets et jetons de six textes, découpés par Colibri."""
    texts = {
        "prose d'apprentissage (A)": atelier.extract("a_validation"),
        "récit de fantasy (B)": atelier.extract("b_validation"),
        "vers classiques (B′)": atelier.extract("bprime_validation"),
        "anglais": "The employee may ask the employer for a reduction of working hours, as provided by law. " * 20,
        "chiffres": "3,14159265358979 et 2,71828182845905 ; 01 23 45 67 89. " * 20,
        "Python": "def f(x: int) -> int:\n    return sum(i * x for i in range(10))\n" * 20,
    }
    pieces = {name: text[:n_characters] for name, text in texts.items()}
    return {name: (len(t.encode()), len(tokenizer(t, verbose=False)["input_ids"])) for name, t in pieces.items()}


# %%
ch1.bytes_table(bytes_per_token())

# %% [markdown]
# Un jeton porte moins d'octets dès que l'on s'éloigne du corpus : une fois et demie moins en anglais, deux fois moins
# en Python, trois fois moins dans des chiffres.
# <!-- claim: tokens_are_shorter_far_from_the_corpus -->
# Un texte lointain coûte donc plus de jetons pour dire autant, et remplit plus vite le contexte. Retenez-le pour le
# jour où vous comparerez deux modèles.

# %% [markdown]
# ## 1.2 Toutes les formes, une fois
#
# Un **crochet** (*hook*) est une fonction que PyTorch appelle quand un module a fini son calcul. C'est ainsi que l'on
# regarde dans un modèle sans toucher à son code, et vous vous en servirez dans tout le cours.


# %%
def watch(model, names, ids):
    """Ce que rend chaque module nommé quand le modèle lit ids : nom → tenseur."""
    seen = {}

    def hook_for(name):
        def hook(module, inputs, output):
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(hook_for(name)) for name in names]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    return seen


# %% [markdown]
# Voici ce que la phrase traverse, avec les noms de la bibliothèque et leur traduction.

# %%
atelier.bet(
    "largest_tensor",
    "Pour cette phrase, quel est le plus gros tenseur ?",
    options=("les requêtes, clés et valeurs", "le milieu du MLP", "les logits"),
)

# %%
roles = {
    "transformer.wte": "table des jetons : un plongement par jeton",
    "transformer.wpe": "table des positions : un plongement par rang, ajouté au précédent",
    "transformer.h.0.ln_1": "LayerNorm, avant l'attention du bloc 0",
    "transformer.h.0.attn.c_attn": "couche linéaire d → 3d : requêtes, clés et valeurs, côte à côte",
    "transformer.h.0.attn.c_proj": "couche linéaire d → d : sortie de l'attention, ajoutée au flux",
    "transformer.h.0.ln_2": "LayerNorm, avant le MLP",
    "transformer.h.0.mlp.c_fc": "couche linéaire d → 4d, suivie de la GELU",
    "transformer.h.0.mlp.c_proj": "couche linéaire 4d → d : sortie du MLP, ajoutée au flux",
    "transformer.h.0": "sortie du bloc 0, entrée du bloc 1",
    "transformer.ln_f": "dernier LayerNorm",
    "lm_head": "tête de sortie : un logit par entrée du vocabulaire, après chaque jeton",
}
sentence_ids = tokenizer(example_sentence, return_tensors="pt")["input_ids"].to(colibri.device)
seen = watch(colibri, roles, sentence_ids)
atelier.table(
    [[name, " × ".join(map(str, seen[name].shape)), role] for name, role in roles.items()],
    header=["module", "forme", "ce que c'est"],
    caption="Formes B × T × …, pour B = 1 phrase de T jetons",
)
largest_name = max(seen, key=lambda name: seen[name].numel())
atelier.settle("largest_tensor", "les logits" if largest_name == "lm_head" else roles[largest_name])

# %% [markdown]
# Trois mots à connaître. Un **LayerNorm** recentre un vecteur, le divise par son écart type, puis applique un gain et
# un biais appris (Ba et al., 2016). Un **MLP** est fait de deux couches linéaires avec, entre les deux, une fonction
# courbe appliquée à chaque composante, sans laquelle deux couches n'en feraient qu'une. Cette fonction est ici la
# **GELU**, $x\,\Phi(x)$, où $\Phi(x)$ est la probabilité qu'une variable normale soit sous $x$ (Hendrycks et Gimpel,
# 2016) : elle laisse passer les grands positifs, efface les grands négatifs, et passe doucement de l'un à l'autre.
#
# Les mêmes étapes, dessinées. Les données montent ; le trait épais est le **flux résiduel** : chaque branche y lit,
# puis y ajoute ce qu'elle a calculé. Rien n'y est jamais remplacé.

# %%
ch1.architecture(colibri.config, n_tokens=sentence_ids.shape[1])

# %% [markdown]
# En haut sort un **logit** par entrée du vocabulaire, et cela après chaque jeton. Un softmax en fait des probabilités.
# Celles du dernier jeton disent comment la phrase pourrait continuer.

# %%
opening_words = "Le salarié peut demander à son"
opening_ids = tokenizer(opening_words, return_tensors="pt")["input_ids"].to(colibri.device)
with torch.no_grad():
    last_logits = colibri(opening_ids).logits[0, -1]
ch1.plot_next_token(torch.softmax(last_logits, dim=-1), tokenizer, opening_words)

# %% [markdown]
# Et avant le dernier bloc, que savait le modèle ? Rien n'empêche d'appliquer plus tôt le dernier LayerNorm et la tête :
# c'est la *logit lens* (nostalgebraist, 2020). Regardons aussi le vecteur lui-même.

# %%
atelier.bet(
    "stream_length",
    "De bloc en bloc, la longueur (la norme) du vecteur qui monte dans le flux…",
    options=("grandit", "reste la même", "rétrécit"),
)
stream_names = ["transformer.drop", *(f"transformer.h.{i}" for i in range(colibri.config.n_layer))]
example_windows = ch1.calibration_ids(colibri, tokenizer, atelier.scale().pick(essai=5, cpu=8, gpu=64))


# %% experiment="block_by_block"
@atelier.experiment()
def block_by_block():
    """Ce que dirait la tête si l'on s'arrêtait après chaque bloc, pour l'amorce ci-dessus."""
    found = {}
    for name, stream in watch(colibri, stream_names, opening_ids).items():
        last = stream[0, -1]
        logits = colibri.lm_head(colibri.transformer.ln_f(last))
        found[name] = {"probabilités": torch.softmax(logits, dim=-1).detach().cpu(), "longueur": last.norm().item()}
    return found


# %% experiment="stream_lengths"
@atelier.experiment()
def stream_lengths():
    """Longueur moyenne du vecteur d'un jeton, après chaque bloc, fenêtre par fenêtre (premier jeton mis à part)."""
    streams = watch(colibri, stream_names, example_windows)
    return {name: stream[:, 1:].norm(dim=-1).mean(dim=1).tolist() for name, stream in streams.items()}


# %%
ch1.lens_table(block_by_block(), tokenizer, opening_words)
lengths = stream_lengths()
ch1.lengths_note(lengths)
atelier.settle("stream_length", "grandit" if lengths[stream_names[-1]] > lengths[stream_names[0]] else "rétrécit")

# %% [markdown]
# Le choix se fait peu à peu, et la longueur grandit à chaque bloc : chacun **ajoute**.
# <!-- claim: each_block_lengthens_the_stream -->
# C'est le dernier LayerNorm qui ramène tout à une même échelle, juste avant la tête. Au départ, le flux ne contient que
# le dernier jeton et son rang ; ce qui vient ensuite a été trouvé ailleurs dans la phrase. L'y chercher, c'est le
# travail de l'attention.

# %% [markdown]
# ## 1.3 L'attention
#
# Dans un bloc, chaque jeton fabrique trois vecteurs : une **requête** $q$ (*query*), une **clé** $k$ (*key*), une
# **valeur** $v$ (*value*). Le jeton compare sa requête aux clés qu'il a le droit de voir : un produit scalaire par
# clé, son **score**. Un softmax fait de ces scores des **poids d'attention**, positifs et de somme 1. Le jeton reçoit
# enfin la moyenne des valeurs, pondérée par eux. Ce qu'il cherche, ce qu'on lui offre, ce qu'il emporte : il ne manque
# que deux réponses pour l'écrire, et elles viennent après un premier geste.

# %% [markdown]
# Une seule moyenne serait pauvre. On coupe donc les $d$ composantes en $H$ **têtes** de $D = d/H$, qui font chacune
# la leur. Premier geste : passer de $(B, T, d)$ à $(B, H, T, D)$. **Attention :** avoir la bonne forme ne suffit pas.

# %% [markdown]
# ### ✎ split_heads


# %% exercise="split_heads"
def split_heads(x: torch.Tensor, n_head: int) -> torch.Tensor:
    """Découpe les composantes de chaque jeton en n_head têtes.

    x : (B, T, d) flottant, B phrases de T jetons à d composantes, pas forcément contigu en mémoire.
    Rend (B, n_head, T, d / n_head), du type de x ; une tête reçoit des composantes voisines, la
    tête 0 les premières.
    Lève ValueError si n_head ne divise pas d.

    Source : Vaswani et al., « Attention Is All You Need », 2017, § 3.2.2.
    """
    ### BEGIN SOLUTION
    batch, length, width = x.shape
    if width % n_head:
        raise ValueError(f"{n_head} têtes ne se partagent pas {width} composantes")
    return x.reshape(batch, length, n_head, width // n_head).transpose(1, 2)
    ### END SOLUTION


# %% [markdown]
# **Un score est-il bon tel quel ?** Si les composantes de $q$ et de $k$ sont indépendantes et de variance 1, leur
# produit scalaire est une somme de $D$ termes : sa variance est $D$. Plus une tête est large, plus ses scores
# s'étalent. Par quoi les diviser pour que leur variance redevienne 1 ? Et qu'en dit le softmax ?

# %%
atelier.bet("divided_by_d", "Avec des têtes larges, si l'on divisait les scores par D, un jeton regarderait…",
            options=("un seul jeton", "quelques jetons", "tous les jetons pareillement"))  # fmt: skip


# %% experiment="frozen_softmax"
@atelier.experiment()
def frozen_softmax(widths=(4, 16, 64, 256, 1024), n_keys=32, n_queries=2000):
    """Le plus grand des 32 poids d'une requête, en moyenne, quand requêtes et clés sont tirées au hasard."""
    found, generator = {}, torch.Generator().manual_seed(0)
    for width in widths:
        query = torch.randn(n_queries, 1, width, generator=generator)
        keys = torch.randn(n_queries, n_keys, width, generator=generator)
        scores = (query * keys).sum(-1)
        for name, divisor in {"sans diviser": 1.0, "divisé par √D": math.sqrt(width), "divisé par D": width}.items():
            found[name, width] = torch.softmax(scores / divisor, dim=-1).amax(-1).mean().item()
    return found


# %%
largest = frozen_softmax()
ch1.plot_frozen_softmax(largest)
atelier.settle(
    "divided_by_d", "tous les jetons pareillement" if largest["divisé par D", 1024] < 0.1 else "un seul jeton"
)

# %% [markdown]
# Sans diviser, une tête large ne regarde plus qu'un jeton ; en divisant par $D$, elle ne distingue plus rien. Avec
# $\sqrt D$, la largeur ne change rien.
# <!-- claim: the_root_keeps_attention_alike -->

# %% [markdown]
# **Quelles clés un jeton a-t-il le droit de voir ?** La sienne, et celles des jetons qui le précèdent. Pourquoi pas les
# autres ?
#
# ??? q="causal_mask"

# %% [markdown]
# ### ✎ causal_attention


# %% exercise="causal_attention"
def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention causale : chaque jeton reçoit une moyenne des valeurs des jetons qui ne le suivent
    pas.

    q, k, v : (B, H, T, D) flottants chacun ; B phrases, H têtes, T jetons, D composantes par tête.
    Rend (B, H, T, D), du type de q. Un jeton se voit lui-même ; les jetons qui le suivent ont un
    poids exactement nul, même quand leurs scores sont immenses. Des q et k de variance 1 donnent
    des scores de variance 1, quelle que soit D.
    Aucune entrée, si grands que soient ses scores, ne donne nan.

    Source : Vaswani et al., « Attention Is All You Need », 2017, équation (1) et § 3.2.3.
    """
    ### BEGIN SOLUTION
    length, width = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / math.sqrt(width)
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(diagonal=1)
    weights = torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
    return weights @ v
    ### END SOLUTION


# %% [markdown]
# Ce que vous venez d'écrire, les articles l'écrivent ainsi, pour le jeton de rang $t$ :
#
# $$ y_t = \sum_{s \le t} a_{ts}\, v_s, \qquad a_{ts} = \frac{e^{q_t \cdot k_s / \sqrt D}}{\sum_{r \le t} e^{q_t \cdot k_r / \sqrt D}} . $$
#
# À gauche, la moyenne des valeurs ; à droite, le softmax des scores, où la somme s'arrête à $t$ : c'est votre masque.

# %% [markdown]
# ### GPT-2, refait avec votre attention
#
# `check` compare sur de petits tenseurs au hasard. Voici une épreuve plus sévère : GPT-2 entier, sans un appel aux
# modules de la bibliothèque, dont on ne garde que les poids. Une surprise vous attend dans la première fonction : les
# couches linéaires de GPT-2 sont des `Conv1D`, qui rangent leur poids à l'envers de `nn.Linear`.

# %%
first_fc = colibri.transformer.h[0].mlp.c_fc
print("mlp.c_fc, du MLP :", type(first_fc).__name__, tuple(first_fc.weight.shape), ": (entrée, sortie)")
print("nn.Linear         :", tuple(torch.nn.Linear(*first_fc.weight.shape).weight.shape), ": (sortie, entrée)")


# %%
def linear(x, layer):
    """Une couche linéaire de GPT-2 : le poids est en (entrée, sortie), rien à transposer."""
    return x @ layer.weight + layer.bias


def layer_norm(x, layer):
    """Recentrer, diviser par l'écart type, puis gain et biais."""
    centered = x - x.mean(dim=-1, keepdim=True)
    deviation = torch.sqrt(centered.square().mean(dim=-1, keepdim=True) + layer.eps)
    return centered / deviation * layer.weight + layer.bias


def gelu(x):
    """La GELU de GPT-2, qui approche Φ(x) par une tangente hyperbolique."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


# %%
def block_forward(x, block):
    """Un bloc, (B, T, d) → (B, T, d) : deux branches, et ce qu'elles ajoutent au flux."""
    normed, n_head = layer_norm(x, block.ln_1), block.attn.num_heads
    q, k, v = (split_heads(part, n_head) for part in linear(normed, block.attn.c_attn).chunk(3, dim=-1))
    heads = causal_attention(q, k, v)
    x = x + linear(heads.transpose(1, 2).flatten(2), block.attn.c_proj)
    return x + linear(gelu(linear(layer_norm(x, block.ln_2), block.mlp.c_fc)), block.mlp.c_proj)


def gpt2_forward(model, ids):
    """GPT-2, d'un bout à l'autre : (B, T) identifiants → (B, T, V) logits."""
    parts = model.transformer
    x = parts.wte.weight[ids] + parts.wpe.weight[: ids.shape[1]]
    for block in parts.h:
        x = block_forward(x, block)
    return layer_norm(x, parts.ln_f) @ parts.wte.weight.T


# %% [markdown]
# Suivez `block_forward` ligne à ligne sur le dessin : tout y est. Il reste à savoir si c'est bien Colibri. On donne à
# chacun de vos blocs ce que reçoit celui de la bibliothèque, puis on compare les logits.


# %% experiment="own_gpt2"
@atelier.experiment(needs=[split_heads, causal_attention])
def own_gpt2(n_windows=2):
    """Plus grand écart, rapporté à la plus grande valeur : chaque bloc, puis les logits ; jetons préférés en commun."""
    ids, found = example_windows[:n_windows], {}
    theirs = watch(colibri, [*stream_names, "lm_head"], ids)
    with torch.no_grad():
        for i, block in enumerate(colibri.transformer.h):
            mine, expected = block_forward(theirs[stream_names[i]], block), theirs[stream_names[i + 1]]
            found[f"bloc {i}"] = ((mine - expected).abs().max() / expected.abs().max()).item()
        mine, expected = gpt2_forward(colibri, ids), theirs["lm_head"]
        found["logits"] = ((mine - expected).abs().max() / expected.abs().max()).item()
        found["même jeton préféré"] = (mine.argmax(-1) == expected.argmax(-1)).float().mean().item()
    return found


# %%
ch1.own_table(own_gpt2())

# %% [markdown]
# L'écart qui reste, moins d'un cent millième, est celui des arrondis : les deux additionnent les mêmes nombres dans un
# autre ordre.
# <!-- claim: own_blocks_are_the_library_s -->
# Un modèle de langue n'a rien de plus caché que ces quelques lignes, répétées. Elles sont à vous : retirez une
# addition, un LayerNorm, la table des positions, et relancez.

# %% [markdown]
# **Que regardent les têtes ?** Les poids d'attention $a_{ts}$ sont une carte par tête. La bibliothèque ne les garde
# que si on lui demande de calculer l'attention en toutes lettres (*eager*), comme vous.


# %%
def attention_weights(ids):
    """Qui regarde qui : (blocs, B, H, T, T), une ligne par jeton qui regarde."""
    with ch1.eager(colibri), torch.no_grad():
        return torch.stack(colibri(ids, output_attentions=True).attentions).cpu()


sentence_tokens = [ch1.token_text(tokenizer, i) for i in sentence_ids[0].tolist()]
sentence_weights = attention_weights(sentence_ids)[:, 0]
ch1.attention_map(sentence_weights, sentence_tokens, layer=0, head=0)

# %% [markdown]
# Choisissez un bloc et une tête. Cherchez-en une qui regarde le jeton précédent, une qui s'attarde sur le premier, une
# qui s'éparpille. Une carte, sur une phrase, se laisse raconter comme un dessin de nuage : nous y reviendrons avec une
# mesure, en 1.6.

# %% [markdown]
# ## 1.4 Compter
#
# Reprenez le dessin de l'architecture et comptez ce qui s'apprend : chaque boîte est une matrice, un vecteur, ou deux.
# Chaque couche linéaire de GPT-2 a un biais, chaque LayerNorm un gain et un biais, et la tête de sortie est **liée** à
# la table des jetons : c'est la même matrice, lue dans l'autre sens.

# %%
atelier.bet("who_wins", "Dans Colibri, qui a le plus de paramètres ?", options=("la table des jetons", "les blocs"))

# %% [markdown]
# ### ✎ gpt2_num_params


# %% exercise="gpt2_num_params"
def gpt2_num_params(n_layer: int, d_model: int, n_vocab: int = 50257, n_ctx: int = 1024) -> int:
    """Nombre exact de paramètres d'un GPT-2.

    n_layer : nombre de blocs ; d_model : composantes d'un jeton, que le MLP élargit à 4·d_model ;
    n_vocab : taille du vocabulaire ; n_ctx : nombre de positions.
    Rend un int. Tout ce qui s'apprend compte, biais et LayerNorm compris, et une seule fois.

    Source : Radford et al., « Language Models are Unsupervised Multitask Learners », 2019, § 2.3 et
    tableau 2.
    """
    ### BEGIN SOLUTION
    tables = n_vocab * d_model + n_ctx * d_model
    attention = d_model * 3 * d_model + 3 * d_model + d_model * d_model + d_model
    mlp = d_model * 4 * d_model + 4 * d_model + 4 * d_model * d_model + d_model
    norm = 2 * d_model
    return tables + n_layer * (norm + attention + norm + mlp) + norm
    ### END SOLUTION


# %% [markdown]
# Votre formule, et ce que la bibliothèque trouve dans les vrais modèles. L'appareil « meta » de torch leur donne leurs
# formes sans leur donner un seul nombre : GPT-2 XL n'y prend aucune place.

# %%
model_sizes = {"Colibri": (colibri.config.n_layer, colibri.config.n_embd, colibri.config.vocab_size, 256)}
model_sizes |= {"GPT-2 small": (12, 768, 50257, 1024), "GPT-2 medium": (24, 1024, 50257, 1024)}
model_sizes |= {"GPT-2 large": (36, 1280, 50257, 1024), "GPT-2 xl": (48, 1600, 50257, 1024)}
gpt3_size = (96, 12288, 50257, 2048)


def empty_model(n_layer, d_model, n_vocab, n_ctx):
    """Un GPT-2 de cette taille, sans aucun nombre dedans."""
    config = GPT2Config(n_layer=n_layer, n_embd=d_model, n_head=1, vocab_size=n_vocab, n_positions=n_ctx,
                        bos_token_id=0, eos_token_id=0)  # fmt: skip
    with torch.device("meta"):
        return GPT2LMHeadModel(config)


# %% experiment="counted_models"
@atelier.experiment(needs=[gpt2_num_params])
def counted_models():
    """Votre compte, celui de la bibliothèque, et le vôtre avec le vocabulaire de GPT-1."""
    return {
        name: {
            "vous": gpt2_num_params(*size),
            "num_parameters()": empty_model(*size).num_parameters(),
            "avec 40 478 jetons": gpt2_num_params(*size[:2], 40478),
        }
        for name, size in model_sizes.items()
    }


# %%
model_counts = counted_models()
ch1.counts_table(model_sizes, model_counts)

# %% [markdown]
# Les diapositives donnent pour les quatre GPT-2 : 117M, 345M, 762M et 1542M. Vous venez de trouver autre chose. Qui a
# raison ?

# %%
ch1.deck_table(model_counts)

# %% [markdown]
# Les nombres de la diapositive sont ceux de l'article (Radford et al., 2019, tableau 2). Le dépôt d'OpenAI les a
# corrigés ensuite : « our original parameter counts were wrong due to an error », et les modèles s'y appellent depuis
# 124M, 355M, 774M et 1558M. L'erreur n'y est pas expliquée. La dernière colonne est **notre déduction**, pas la leur :
# avec le vocabulaire de GPT-1, 40 478 entrées au lieu de 50 257, la même formule redonne les quatre nombres annoncés.
# <!-- claim: first_vocabulary_gives_the_announced_sizes -->

# %% [markdown]
# Ces paramètres, où sont-ils ?
#
# ??? q="where_parameters"


# %%
def part_of(name):
    """La partie du modèle à laquelle appartient un paramètre, d'après son nom."""
    kinds = {".ln_": "LayerNorm", ".attn.": "attention", ".mlp.": "MLP", "wte": "table des jetons (et tête)"}
    return next((part for key, part in kinds.items() if key in name), "positions")


parameter_counts = {}
for name, size in (model_sizes | {"GPT-3": gpt3_size}).items():
    parts = dict.fromkeys(ch1.PARTS, 0)
    for parameter_name, parameter in empty_model(*size).named_parameters():
        parts[part_of(parameter_name)] += parameter.numel()
    parameter_counts[name] = parts

table, blocks = (sum(parameter_counts["Colibri"][p] for p in ps)
                 for ps in (["table des jetons (et tête)"], ["attention", "MLP", "LayerNorm"]))  # fmt: skip
ch1.plot_parts(parameter_counts)
atelier.settle("who_wins", "les blocs" if blocks > table else "la table des jetons")

# %% [markdown]
# Dans un petit modèle, la table des jetons et les positions pèsent lourd ; dans GPT-3, on ne les voit plus. Partout,
# le MLP compte deux fois plus que l'attention : $8d^2$ contre $4d^2$ par bloc. D'où l'approximation $12\,L\,d^2$ : il
# lui manque près d'un tiers du plus petit GPT-2, et presque rien de GPT-3.
#
# La diapositive « GPT-3 » résume : plus de couches, plus de données, un apprentissage plus long, une dimension et un
# contexte plus grands. En chiffres, avec votre formule :


# %% experiment="giant_count"
@atelier.experiment(needs=[gpt2_num_params])
def giant_count():
    """GPT-2 XL et GPT-3, comptés par votre formule."""
    return {"GPT-2 xl": gpt2_num_params(*model_sizes["GPT-2 xl"]), "GPT-3": gpt2_num_params(*gpt3_size)}


# %%
ch1.gpt2_to_gpt3(giant_count())

# %% [markdown]
# Une différence n'est pas dans le tableau. GPT-3 a l'architecture de GPT-2, dit l'article (Brown et al., 2020, § 2.1),
# **sauf** que ses couches d'attention sont tour à tour denses et locales (*locally banded sparse*). Cela ne change pas
# le nombre de paramètres ; cela change ce qu'il calcule, et nos comptes d'opérations et de cache, aux chapitres 1 et 2,
# sont ceux d'un GPT-3 qui serait dense partout.

# %% [markdown]
# ## 1.5 Perte et perplexité
#
# Un modèle de langue n'a pas raison ou tort : il est plus ou moins **surpris**. La surprise d'un jeton auquel il
# donnait la probabilité $p$ est $-\ln p$, en **nats** ; avec un logarithme en base 2, la même surprise s'écrit en bits,
# et un nat en vaut $1/\ln 2 \approx 1{,}44$. Un bit : une pièce de monnaie. Douze bits : un tirage parmi 4 096.
#
# Changez la phrase, glissez-y un mot inattendu, et regardez aussi le jeton **d'après**.

# %%
ch1.surprise_text(colibri, tokenizer, example_sentence)

# %%
ch1.surprise_text(colibri, tokenizer, example_sentence.replace("employeur", "crocodile"))

# %% [markdown]
# La surprise moyenne d'un jeton, en nats, est la **perte** (*loss*) du modèle sur ce texte. C'est elle que
# l'apprentissage fait baisser, et que montrent toutes les courbes du cours. La **perplexité** dit la même chose
# autrement : le nombre de jetons équiprobables entre lesquels il faudrait hésiter pour être aussi surpris.
#
# Un modèle jamais surpris a donc une perplexité de 1. Un modèle qui ne sait rien donne $1/V$ à chacune des $V$ entrées
# du vocabulaire, et sa perplexité est $V$. **Combien vaut alors sa perte ? Et par quelle opération, partant de cette
# perte, retrouver $V$ ?** C'est la même pour tous les modèles.
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

    logits : (B, T, V) flottants, ceux que le modèle rend après chaque jeton lu ;
    input_ids : (B, T) entiers, les jetons lus ;
    attention_mask : (B, T) entiers, 1 sur un vrai jeton, 0 sur le remplissage, qui peut être à
        gauche ou à droite ; None s'il n'y a pas de remplissage.
    Rend un seul nombre (tenseur à 0 dimension, ou float). Tous les jetons devinés du lot comptent
    autant, quelle que soit la longueur de leur phrase ; un jeton de remplissage n'est jamais
    deviné, ni ne sert à deviner. Des logits très grands ne donnent ni inf ni nan.

    Source : Jelinek et al., « Perplexity, a measure of the difficulty of speech recognition
    tasks », 1977.
    """
    ### BEGIN SOLUTION
    log_probs = torch.log_softmax(logits[:, :-1], dim=-1)
    surprise = -log_probs.gather(-1, input_ids[:, 1:, None])[..., 0]
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    pairs = (real[:, :-1] * real[:, 1:]).bool()
    return torch.exp(surprise[pairs].mean())
    ### END SOLUTION


# %% [markdown]
# La perte de qui ne sait rien est $\ln V$, et l'exponentielle défait le logarithme :
#
# $$ \text{perplexité} = e^{\,\text{perte}} . $$
#
# Être sûr de soi et se tromper est pire que ne rien savoir : une perplexité peut dépasser $V$. Et deux pertes se
# comparent par leur différence : 0,01 nat de plus, c'est une perplexité plus haute de 1 %.

# %% [markdown]
# Le premier jeton d'une fenêtre est deviné d'après rien ou presque. Combien faut-il en avoir lu pour ne plus être
# perdu ? Tout ce que le chapitre évalue l'est sur un même extrait, que Colibri n'a jamais lu.

# %%
extract_tokens = atelier.scale().pick(essai=512, cpu=2048, gpu=65536)
extract_ids = ch1.extract_ids(tokenizer, extract_tokens).to(colibri.device)
context = colibri.config.n_positions
rank_windows = atelier.scale().pick(essai=16, cpu=64, gpu=320)


# %% experiment="surprise_by_rank"
@atelier.experiment(needs=[perplexity], full={"n_windows": 320})
def surprise_by_rank(edges=(1, 2, 4, 8, 16, 32, 64, 128, 256), n_windows=rank_windows, n_groups=16):
    """Surprise moyenne, en bits, selon les jetons déjà lus : votre fonction, tranche par tranche, en seize groupes."""
    ids = ch1.extract_ids(tokenizer, n_windows * context).to(colibri.device)
    windows, found = ids[: len(ids) // context * context].reshape(-1, context), {}
    for group in windows.tensor_split(n_groups):
        with torch.no_grad():
            logits = colibri(group).logits.float()
        for low, high in zip(edges, edges[1:], strict=False):
            sliced = perplexity(logits[:, low - 1 : high], group[:, low - 1 : high])
            found.setdefault((low, high - 1), []).append(math.log2(float(sliced)))
    return found


# %%
ch1.plot_surprise_by_rank(surprise_by_rank())

# %% [markdown]
# Un seul jeton lu n'apprend presque rien ; une trentaine suffisent à gagner l'essentiel, et la suite ne rapporte plus
# que peu.
# <!-- claim: thirty_tokens_give_most_of_the_context -->

# %% [markdown]
# Voilà pourquoi une perplexité n'est rien sans son **protocole**. Avec des fenêtres séparées, les premiers jetons de
# chacune sont notés presque sans contexte. Le protocole du cours, `evaluate_perplexity`, fait avancer la fenêtre d'un
# **pas** (*stride*) plus court qu'elle et ne note que les jetons nouveaux : chacun a toujours du passé derrière lui.

# %%
atelier.bet("protocol_ratio", "Même modèle, même extrait : la plus grande perplexité, divisée par la plus petite ?")


# %% experiment="protocols"
@atelier.experiment(needs=[perplexity], full={"n_tokens": 8192})
def protocols(n_tokens=extract_tokens, contexts=(32, 64, 128, 256)):
    """Le même extrait : votre fonction, fenêtre par fenêtre, et le protocole, de pas en pas (pertes part à part)."""
    ids, found = ch1.extract_ids(tokenizer, n_tokens).to(colibri.device), {"jetons": n_tokens}
    for n in contexts:
        windows = ids[: len(ids) // n * n].reshape(-1, n)
        with torch.no_grad():
            found["vous", n, n] = float(perplexity(colibri(windows).logits.float(), windows))
        for stride in (n, n // 2, n // 4) if n == contexts[-1] else (n, n // 2):
            options = {"context": n, "stride": stride, "batch_size": 4096 // n}
            run = atelier.evaluate_perplexity(colibri, max_tokens=n_tokens, **options)
            found["protocole", n, stride] = {"pertes": run.losses, "secondes": run.seconds}
    return found


# %%
protocol_results = protocols()
atelier.settle("protocol_ratio", ch1.plot_protocols(protocol_results))

# %% [markdown]
# Votre fonction et le protocole donnent presque la même chose quand le pas égale le contexte : ce sont alors les
# mêmes fenêtres, à un jeton près.
# <!-- claim: own_perplexity_is_the_protocol_s -->
# Au contexte de 256, un pas deux fois plus court fait baisser la perplexité d'une dizaine de pour cent ; le diviser
# encore par deux double les lectures, et l'on ne peut plus départager les deux résultats.
# <!-- claim: a_shorter_stride_soon_pays_nothing -->
# Quand deux articles annoncent deux perplexités pour un même modèle, commencez par comparer leurs protocoles. Dans tout
# ce cours, sauf mention contraire, c'est celui-ci, avec un pas égal à la moitié du contexte.
#
# ??? q="compare_perplexity"

# %% [markdown]
# ## 1.6 Que font les têtes ?
#
# Retour aux cartes, avec de quoi mesurer. Quelle part de son attention chaque tête donne-t-elle à tel genre de jetons,
# et quelle part lui en donnerait-elle si elle regardait partout pareil ?


# %% experiment="head_habits"
@atelier.experiment()
def head_habits(n_windows=4):
    """Part de l'attention de chaque tête (blocs, têtes) que reçoit un genre de jetons, et part au hasard."""
    ids, found = example_windows[:n_windows], {}
    weights = attention_weights(ids).transpose(1, 2)  # (blocs, H, B, T, T)
    evenly = torch.ones(ids.shape[1], ids.shape[1]).tril()
    evenly = (evenly / evenly.sum(-1, keepdim=True)).expand_as(weights)
    for kind, aimed in ch1.kinds_of_tokens(tokenizer, ids.cpu()).items():
        asked = aimed.any(-1)  # (B, T) : les jetons qui ont quelque chose de ce genre à regarder
        shares = [(map_ * aimed).sum(-1)[..., asked].mean(-1) for map_ in (weights, evenly)]
        found[kind] = {"têtes": shares[0], "hasard": shares[1][0, 0].item()}
    return found


# %%
ch1.plot_habits(head_habits())

# %% [markdown]
# Chaque case est une tête. Où sont celles qui semblent avoir un métier ?

# %% [markdown]
# Une tête qui regarde beaucoup un genre de jetons fait quelque chose. Cela ne dit pas que le modèle
# en dépende. L'épreuve : on la fait taire, et l'on regarde la perte. Mais comment ? Mettre **zéro** à sa place
# donne au modèle un vecteur qu'il n'a jamais vu ; mettre sa **moyenne** ne lui retire que ce qui change d'un jeton à
# l'autre. Et que vaut un nombre seul ? Il faut un témoin : toutes les autres têtes, une à une.

# %%
atelier.bet(
    "silent_head", "On remplace une tête par sa moyenne : de combien de % la perplexité monte-t-elle, au pire ?"
)
head_width = colibri.config.n_embd // colibri.config.n_head
mixers = [f"{block}.attn.c_proj" for block in range(colibri.config.n_layer)]  # le nom, sans « transformer.h. »


def losses_without(block, head, value, n_tokens):
    """La perte de Colibri, part à part, quand la sortie d'une tête est remplacée par `value`."""

    def silence(module, inputs):
        changed = inputs[0].clone()
        changed[..., head * head_width : (head + 1) * head_width] = value
        return (changed,)

    handle = colibri.transformer.h[block].attn.c_proj.register_forward_pre_hook(silence)
    losses = atelier.evaluate_perplexity(colibri, max_tokens=n_tokens).losses
    handle.remove()
    return losses


# %% experiment="silent_heads"
@atelier.experiment(full={"kinds": ("moyenne", "zéro"), "n_tokens": 4096})
def silent_heads(kinds=("moyenne",), n_tokens=extract_tokens):
    """Perte de Colibri, part à part : entier, puis avec chaque tête remplacée par sa moyenne, ou par zéro."""
    whole = atelier.evaluate_perplexity(colibri, max_tokens=n_tokens)
    found = {"entier": whole.losses, "jetons": whole.tokens}
    for block, heads in enumerate(ch1.layer_inputs(colibri, example_windows, mixers).values()):
        usual = heads.to(colibri.device).mean(dim=0).split(head_width)
        for head, mean in enumerate(usual):
            for kind in kinds:
                found[kind, block, head] = losses_without(block, head, mean if kind == "moyenne" else 0.0, n_tokens)
    return found


# %%
habits, silences = head_habits(), silent_heads()
atelier.settle("silent_head", ch1.silence_table(habits, silences))

# %% [markdown]
# Lisez une ligne avec son témoin. Celle qui regarde le jeton précédent est la plus coûteuse des trente, trois fois plus
# que la moyenne : le modèle en dépend. Mais celle qui regarde la dernière fin de phrase, trente fois plus que le
# hasard, coûte moins que presque toutes les autres.
# <!-- claim: a_typed_head_may_cost_little -->
# Une tête très typée n'est donc pas toujours utile, et la carte seule ne dit pas laquelle l'est. La façon de taire
# compte aussi : mettre zéro plutôt que la moyenne renchérit de moitié, ou double, les deux têtes les plus chères du
# bloc 0.
# <!-- claim: zero_overstates_the_first_block -->

# %% [markdown]
# La dernière ligne, « ce qui suivait le même jeton », a un nom : une **tête d'induction**, qui complète « A B … A » par
# B. Olsson et al. (2022) en trouvent dans de petits modèles, et leur prêtent, sur des indices qu'ils disent indirects,
# l'essentiel de l'apprentissage en contexte des grands. Elle ne peut pas travailler seule : pour savoir ce qui suivait
# un jeton, il faut qu'une tête placée plus bas ait noté, sur chaque jeton, quel était le précédent. Ici, les deux sont
# bien dans cet ordre, aux blocs 2 et 3. Mais la faire taire, sur ce texte, ne coûte que ce que coûte une tête
# ordinaire.
# <!-- claim: induction_stands_above_and_costs_the_usual -->

# %% [markdown]
# ## 1.7 Le faire parler
#
# Pour générer, on lit, on choisit un jeton, on l'ajoute, et l'on recommence. Le choix le plus simple est **glouton**
# (*greedy*) : toujours le plus probable. À chaque tour, faut-il relire toute la phrase ? Regardez la formule de
# l'attention : du passé, il ne faut que les clés et les valeurs, et le futur n'y change rien. On les garde donc, dans
# un **cache K/V**.
#
# ??? q="cache_query"
#
# Voici comment s'en servir. `model(ids, cache, use_cache=True)` lit les seuls jetons que le cache n'a pas encore vus,
# et rend en premier les logits, en deuxième le cache à employer ensuite ; au premier appel, le cache vaut `None`.

# %%
chosen_next = tokenizer(" employeur", return_tensors="pt")["input_ids"].to(colibri.device)
with torch.no_grad():
    first_logits, cache = colibri(opening_ids, None, use_cache=True)[:2]
    next_logits, cache = colibri(chosen_next, cache, use_cache=True)[:2]
print("logits du premier appel :", tuple(first_logits.shape), "; du deuxième :", tuple(next_logits.shape))

# %% [markdown]
# ### ✎ greedy_generate


# %% exercise="greedy_generate"
def greedy_generate(model: GPT2LMHeadModel, input_ids: torch.Tensor, n_new: int) -> torch.Tensor:
    """Prolonge chaque phrase de n_new jetons, en prenant chaque fois le plus probable.

    model : GPT-2 de transformers, en mode évaluation ; input_ids : (B, T) entiers, T ≥ 1, sans
    remplissage.
    Rend (B, T + n_new) entiers : les jetons reçus, puis les nouveaux ; (B, T) si n_new vaut 0.
    Le cache K/V est employé : chaque jeton passe au plus une fois dans le modèle.
    Lève ValueError si T + n_new dépasse model.config.n_positions.
    """
    ### BEGIN SOLUTION
    length = input_ids.shape[1]
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


# %% experiment="greedy_texts"
@atelier.experiment(needs=[greedy_generate])
def greedy_texts(n_new=40):
    """Trois amorces prolongées par votre fonction, et par `generate` de la bibliothèque."""
    found = {}
    for prompt in ("Le salarié peut demander", "Le mot est employé", "Pour installer le paquet,"):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(colibri.device)
        options = {"do_sample": False, "max_new_tokens": n_new, "eos_token_id": None, "pad_token_id": 0}
        theirs = colibri.generate(ids, attention_mask=torch.ones_like(ids), **options)
        mine = greedy_generate(colibri, ids, n_new)
        found[prompt] = {"texte": tokenizer.decode(mine[0, ids.shape[1] :]), "le même": torch.equal(mine, theirs)}
    return found


# %%
ch1.texts_table(greedy_texts())

# %% [markdown]
# Jeton pour jeton, c'est le texte de `generate`.
# <!-- claim: own_greedy_is_the_library_s -->
# Le début se tient, puis le texte finit souvent par tourner en rond. Il faut un peu de hasard, mais pas n'importe
# lequel.

# %% [markdown]
# - La **température** divise les logits avant le softmax : sous 1, les écarts se creusent ; au-dessus, ils s'effacent.
# - **Top-k** ne garde que les $k$ jetons les plus probables (Fan et al., 2018).
# - **Top-p**, ou *nucleus*, garde les plus probables jusqu'à réunir une masse $p$ (Holtzman et al., 2020). Leur nombre
#   change donc d'un jeton à l'autre : peu quand le modèle est sûr, beaucoup quand il hésite.
#
# On peut tout employer à la fois, dans cet ordre : c'est celui de `generate`.
#
# ??? q="sampling"

# %% [markdown]
# ### ✎ sampling_probs


# %% exercise="sampling_probs"
def sampling_probs(
    logits: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> torch.Tensor:
    """Probabilités dont on tire le jeton suivant, après température, puis top-k, puis top-p.

    logits : (…, V) flottants ; temperature : réel strictement positif.
    top_k : entier ≥ 1, nombre de jetons gardés (tous s'il dépasse V) ; None, sans top-k.
    top_p : réel de ]0, 1], masse que doivent réunir les jetons gardés, comptée parmi ceux que top-k
        a laissés ; celui qui la fait atteindre est gardé, il en reste donc toujours un ; None, sans
        top-p.
    Rend (…, V), du type de logits, à la place de chaque jeton dans le vocabulaire : la somme vaut 1
    sur le dernier axe, les jetons écartés ont une probabilité nulle.
    Lève ValueError si temperature ≤ 0.

    Source : Holtzman et al., « The Curious Case of Neural Text Degeneration », 2020, § 3.
    """
    ### BEGIN SOLUTION
    if temperature <= 0:
        raise ValueError(f"une température est positive, pas {temperature}")
    probs = torch.softmax(logits / temperature, dim=-1)
    if top_k is not None:
        smallest = probs.topk(min(top_k, probs.shape[-1]), dim=-1).values[..., -1:]
        probs = torch.where(probs >= smallest, probs, 0.0)
        probs = probs / probs.sum(dim=-1, keepdim=True)
    if top_p is not None:
        ordered, order = probs.sort(dim=-1, descending=True)
        already = ordered.cumsum(dim=-1) - ordered
        kept = torch.where(already < top_p, ordered, 0.0)
        probs = torch.zeros_like(probs).scatter(-1, order, kept)
        probs = probs / probs.sum(dim=-1, keepdim=True)
    return probs
    ### END SOLUTION


# %% [markdown]
# Vos probabilités, sur de vraies distributions de Colibri. Le même réglage, après deux débuts : l'un où le modèle est
# presque sûr, l'autre où il hésite. Bougez les curseurs, regardez combien de jetons restent possibles.

# %%
openings = ["Le salarié peut demander à son", "Le chat de la voisine"]


# %% experiment="kept_tokens"
@atelier.experiment(needs=[sampling_probs])
def kept_tokens(temperature=0.8, top_k=40, top_p=0.9):
    """Les logits de Colibri après deux débuts, et ce que votre fonction garde de chacun."""
    found = {}
    for text in openings:
        ids = tokenizer(text, return_tensors="pt")["input_ids"].to(colibri.device)
        with torch.no_grad():
            logits = colibri(ids).logits[0, -1].float().cpu()
        found[text] = {"logits": logits, "probabilités": sampling_probs(logits, temperature, top_k, top_p)}
    return found | {"réglage": (temperature, top_k, top_p)}


# %%
ch1.explore_sampling(kept_tokens(), sampling_probs, tokenizer)

# %% [markdown]
# « Play with it here », dit la diapositive, avec un lien vers GPT-2. Ici aussi, et sans réseau : c'est votre fonction
# qui tire chaque jeton.


# %%
def write_on(model, ids, n_new, seed=0, **settings):
    """Prolonge chaque phrase de n_new jetons, tirés selon vos probabilités ; le cache évite de relire."""
    generator = torch.Generator().manual_seed(seed)
    unread, cache = ids, None
    for _ in range(n_new):
        with torch.no_grad():
            logits, cache = model(unread, cache, use_cache=True)[:2]
        probs = sampling_probs(logits[:, -1].float().cpu(), **settings)
        unread = torch.multinomial(probs, 1, generator=generator).to(ids.device)
        ids = torch.hstack([ids, unread])
    return ids


# %%
model_name = "colibri"  # avec un réseau, « gpt2 » fait jouer le vrai GPT-2 (environ 550 Mo la première fois)
player, player_tokenizer = atelier.load_model(model_name), atelier.load_tokenizer(model_name)
ch1.play(player, player_tokenizer, write_on, sampling_probs, "Le salarié peut demander")

# %% [markdown]
# GPT-2 a appris sur de l'anglais : donnez-lui plutôt « The capital of France is ».
#
# Quatre réglages, maintenant, sur les mêmes débuts de textes que Colibri n'a jamais lus, et ce qui les suivait
# vraiment. Deux nombres : la perplexité que Colibri donne à la suite, et la part des paires de jetons qui ne sont pas
# des répétitions.

# %%
atelier.bet("own_text", "À quel texte Colibri donne-t-il la plus petite perplexité ?",
            options=("au vrai texte", "à ce qu'il écrit en glouton", "à ce qu'il tire à la température 1"))  # fmt: skip
chosen_settings = {
    "glouton": {"top_k": 1},
    "température 0,7, top-p 0,9": {"temperature": 0.7, "top_p": 0.9},
    "température 1": {},
    "température 1,5": {"temperature": 1.5},
}


def variety(tokens):
    """Part des paires de jetons voisins qui sont différentes les unes des autres."""
    pairs = list(zip(tokens, tokens[1:], strict=False))
    return len(set(pairs)) / len(pairs)


# %% experiment="four_settings"
@atelier.experiment(needs=[perplexity, sampling_probs], full={"n_openings": 16})
def four_settings(n_openings=8, n_read=16, n_new=48):
    """Pour chaque début : perplexité de la suite, par Colibri, et part de paires distinctes ; la première suite."""
    windows = extract_ids[: len(extract_ids) // 128 * 128].reshape(-1, 128)[:n_openings, : n_read + n_new]
    mask = (torch.arange(n_read + n_new, device=windows.device) >= n_read - 1).long()[None]
    written = {name: write_on(colibri, windows[:, :n_read], n_new, **s) for name, s in chosen_settings.items()}
    found = {}
    for name, ids in ({"le vrai texte": windows} | written).items():
        with torch.no_grad():
            logits = colibri(ids).logits.float()
        scores = [float(perplexity(logits[i : i + 1], ids[i : i + 1], mask)) for i in range(len(ids))]
        varied = [variety(row) for row in ids[:, n_read:].tolist()]
        found[name] = {"perplexités": scores, "variété": varied, "texte": tokenizer.decode(ids[0, n_read:])}
    return found


# %%
own_texts = four_settings()
ch1.settings_table(own_texts)
atelier.settle("own_text", ch1.least_perplexing(own_texts))

# %% [markdown]
# Le glouton s'accorde à lui-même la meilleure note, bien meilleure qu'au vrai texte, et se répète le plus.
# <!-- claim: greedy_flatters_itself_and_repeats -->
# Une basse perplexité n'est donc pas la marque d'un bon texte : un vrai texte surprend. Un réglage d'usage, comme 0,7
# et top-p 0,9, se flatte encore.
# <!-- claim: usual_settings_flatter_too -->
# À la température 1, sans filtre, Colibri tire selon ses propres probabilités : on ne peut pas départager la note qu'il
# se donne de celle qu'il donne au vrai texte. À 1,5, il s'égare, et se surprend lui-même bien plus.
# <!-- claim: a_hot_model_surprises_itself -->

# %% [markdown]
# ## 1.8 Ce que coûte la mémoire du passé
#
# Sans cache, le jeton $n + 1$ demande de relire $n$ jetons ; avec, un seul. Chronométrons un jeton de plus, selon ce
# qui est déjà écrit.

# %%
atelier.bet("cache_speedup", "À 256 jetons, combien de fois plus vite avec le cache ?")


# %% experiment="cache_times"
@atelier.experiment(full={"repeats": 21})
def cache_times(lengths=(16, 64, 128, 192, 256), repeats=7):
    """Secondes d'un jeton de plus, après n jetons : avec le cache, sans lui (chaque durée)."""
    found = {}
    for n in lengths:
        ids = extract_ids[None, :n]
        with torch.no_grad():
            past = colibri(ids[:, :-1], use_cache=True)[1]
            caches = iter([copy.deepcopy(past) for _ in range(repeats + 2)])  # un cache grandit quand il sert
            with_it = atelier.call_seconds(lambda: colibri(ids[:, -1:], next(caches), use_cache=True), repeats)
            without = atelier.call_seconds(lambda: colibri(ids, use_cache=False, logits_to_keep=1), repeats)
        found[n] = {"avec": with_it, "sans": without}
    return found


# %%
step_durations = cache_times()
atelier.settle("cache_speedup", ch1.plot_cache_times(step_durations))

# %% [markdown]
# Ce temps gagné se paie en mémoire. Combien d'octets faut-il garder par jeton lu ?

# %% [markdown]
# ### ✎ kv_cache_bytes


# %% exercise="kv_cache_bytes"
def kv_cache_bytes(
    n_layer: int,
    d_model: int,
    n_tokens: int,
    batch_size: int = 1,
    bytes_per_value: int = 2,
) -> int:
    """Octets du cache K/V d'un GPT-2 qui a lu n_tokens jetons.

    n_layer : nombre de blocs ; d_model : composantes d'un jeton, toutes têtes réunies ;
    n_tokens : jetons lus, par phrase (0 est permis) ; batch_size : phrases lues en même temps, de
    même longueur ;
    bytes_per_value : octets d'un nombre, 2 en FP16, 4 en FP32.
    Rend un int.
    """
    ### BEGIN SOLUTION
    keys_and_values = 2
    return keys_and_values * n_layer * d_model * n_tokens * batch_size * bytes_per_value
    ### END SOLUTION


# %% [markdown]
# Votre compte, contre les octets d'un vrai cache ; puis, pour les grands modèles, ce qu'il prédit.


# %% experiment="cache_sizes"
@atelier.experiment(needs=[kv_cache_bytes])
def cache_sizes(lengths=(1, 64, 128, 256)):
    """Le cache de Colibri, compté et mesuré ; celui des GPT-2 et de GPT-3, compté en 16 bits."""
    found = {"Colibri": {}, "grands": {}}
    for n in lengths:
        with torch.no_grad():
            layers = colibri(extract_ids[None, :n], use_cache=True)[1].layers
        measured = sum(t.nbytes for layer in layers for t in (layer.keys, layer.values))
        counted = kv_cache_bytes(colibri.config.n_layer, colibri.config.n_embd, n, 1, layers[0].keys.element_size())
        found["Colibri"][n] = {"compté": counted, "mesuré": measured}
    for name, (blocks, d, _, n) in (model_sizes | {"GPT-3": gpt3_size}).items():
        counts = [kv_cache_bytes(blocks, d, tokens, batch) for tokens, batch in ((1, 1), (n, 1), (n, 32))]
        found["grands"][name] = {"contexte": n, "octets": counts}
    return found


# %%
ch1.cache_tables(cache_sizes())

# %% [markdown]
# Le compte est exact, et le cache de GPT-3 se chiffre en mégaoctets par jeton.
# <!-- claim: the_cache_is_counted_exactly -->
# Il ne dépend ni du vocabulaire ni du MLP, seulement du nombre de blocs, de $d$ et de la longueur : servir beaucoup de
# longues conversations à la fois, c'est d'abord une affaire de mémoire. D'où les têtes qui partagent leurs clés et
# leurs valeurs (*grouped-query attention*, Ainslie et al., 2023), et les caches quantifiés, avec les outils du chapitre
# 3.

# %% [markdown]
# ## 1.9 Ce que vous savez maintenant
#
# Un texte devient des octets, puis des jetons, puis un flux de vecteurs que chaque bloc complète. L'attention est une
# moyenne, pondérée par des produits scalaires, où le futur est interdit ; vous l'avez écrite, et GPT-2 entier tient
# autour d'elle en une page. Ses paramètres se comptent exactement, à partir de quatre nombres, et les tailles de la
# diapositive étaient fausses. La perte se lit en nats, la perplexité avec son protocole. Et le cache K/V échange de la
# mémoire contre du temps.
#
# Il reste à savoir ce que **coûte** un passage dans le modèle, et son apprentissage : c'est le chapitre 2.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Radford et al., *Language Models are Unsupervised Multitask Learners*, 2019 · dépôt `openai/gpt-2`,
# README (comptes corrigés) · Radford et al., *Improving Language Understanding by Generative Pre-Training*, 2018 ·
# Brown et al., *Language Models are Few-Shot Learners*, 2020, arXiv 2005.14165 · Vaswani et al., *Attention Is All You
# Need*, 2017, arXiv 1706.03762 · Ba et al., *Layer Normalization*, 2016, arXiv 1607.06450 · Hendrycks et Gimpel,
# *Gaussian Error Linear Units*, 2016, arXiv 1606.08415 · Sennrich et al., *Neural Machine Translation of Rare Words
# with Subword Units*, 2016, arXiv 1508.07909 · nostalgebraist, *interpreting GPT: the logit lens*, 2020 · Olsson et
# al., *In-context Learning and Induction Heads*, 2022, arXiv 2209.11895 · Fan et al., *Hierarchical Neural Story
# Generation*, 2018, arXiv 1805.04833 · Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2020, arXiv
# 1904.09751 · Ainslie et al., *GQA: Training Generalized Multi-Query Transformer Models*, 2023, arXiv 2305.13245 ·
# Jelinek et al., *Perplexity*, 1977 · nanoGPT (Karpathy) et Hugging Face, *Perplexity of fixed-length models*, pour le
# protocole
