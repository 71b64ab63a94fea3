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
# Dans ce chapitre, vous gelez le modèle entier, vous y branchez de petits modules, et vous n'apprenez qu'eux. Vous
# échangez deux voix dans un seul modèle, vous les pesez, vous cherchez ce qu'elles coûtent en qualité. Puis vous
# répondez à la question que posent les diapositives : est-ce que cela va plus vite ?
#
# Comptez deux heures pour l'essentiel ; ce qui porte une étoile, sections ou exercices, est un bonus et peut attendre.
# Une leçon prend ici moins de dix secondes. Rien ne vous arrête : tant qu'un exercice n'est pas fait, les expériences
# qui en dépendent montrent le résultat de l'auteur et le disent.

# %%
import atelier
from atelier import check, hint, quiz
from atelier.figures import ch7

atelier.describe_machine()

# %% tags=["setup"]
import copy
import functools
import itertools

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2LMHeadModel, get_cosine_schedule_with_warmup

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
extract_tokens = atelier.scale().pick(essai=512, cpu=4096, gpu=16384)
tuning_tokens = atelier.scale().pick(essai=512, cpu=2048, gpu=4096)
lesson_steps = atelier.scale().pick(essai=2, cpu=40, gpu=200)
five_seeds = {"seeds": range(5)}


def losses_of(model, text):
    """Perte, part à part, sur un extrait que Colibri n'a pas lu : « a », « b » (fantasy) ou « bprime » (vers)."""
    return atelier.evaluate_perplexity(model, f"{text}_validation", max_tokens=extract_tokens).losses


# %% [markdown]
# Toutes les perplexités du chapitre se lisent sur un même extrait de chaque texte, ses 4 096 premiers jetons. (Le
# tableau du cours, à la dernière section, en lit deux fois plus, et la suite est plus difficile : celle de Colibri y
# passe de 10,42 à 11,58.)
# <!-- claim: the_board_reads_further -->

# %%
atelier.bet(
    "are_they_faster",
    "Face à un pas complet, un pas qui n'apprend que des adaptateurs, 2 % des nombres, sera…",
    options=("cinquante fois plus rapide", "une fois et demie plus rapide", "aussi lent", "plus lent"),
)

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
# s'**ajoute** à ce qui entrait.
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
    """Adaptateur à goulot : rend ce qu'il reçoit, plus une correction qui a traversé le goulot.

    d_model : nombre de composantes d'un jeton ; bottleneck : largeur du goulot, au moins 1.
    Deux attributs, `down` (d_model → bottleneck) et `up` (bottleneck → d_model), des nn.Linear avec
    biais, et aucun autre paramètre. Entre les deux, une GELU, l'exacte ou son approximation par
    tanh.
    Au départ, `up` est entièrement nul, poids et biais : le module rend ce qu'il reçoit.
    `down.weight` n'est pas nul.
    forward(x) : x (…, d_model) flottant, avec un nombre quelconque d'axes ; rend la même forme et
    le même type.

    Source : Houlsby et al., « Parameter-Efficient Transfer Learning for NLP », 2019, § 2.1 et
    figure 2.
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
# $$ \mathrm{adapter}(x) = x + W_{\mathrm{up}}\,\mathrm{GELU}(W_{\mathrm{down}}\,x + b_{\mathrm{down}}) + b_{\mathrm{up}} $$
#
# Trois départs, après le MLP du bloc du milieu, sur le même lot de fantasy : le vôtre ; les deux matrices nulles ; les
# deux au hasard. La cellule note la perte et les gradients de chaque pas. **Avant d'exécuter :** lequel des trois
# n'apprendra presque rien, lequel a déjà abîmé le modèle ?

# %%
starting_steps = atelier.scale().pick(essai=3, cpu=21, gpu=21)
starts = {
    "remontée nulle (le vôtre)": lambda adapter: None,
    "les deux nulles": lambda adapter: [nn.init.zeros_(p) for p in adapter.parameters()],
    "les deux au hasard": lambda adapter: nn.init.normal_(adapter.up.weight, std=adapter.down.weight.std().item()),
}


def learn_one(adapter, ids, steps):
    """L'adaptateur, après le MLP du bloc 2 de Colibri gelé → à chaque pas, perte, normes des gradients (down, up)."""
    frozen, found = copy.deepcopy(colibri).requires_grad_(False), []
    frozen.transformer.h[2].mlp.register_forward_hook(lambda _mlp, _x, out: adapter(out))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-3)
    for _ in range(steps):
        loss = frozen(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        found.append((loss.item(), adapter.down.weight.grad.norm().item(), adapter.up.weight.grad.norm().item()))
        optimizer.step()
    return found


# %% experiment="three_starts"
@atelier.experiment(needs=[Adapter])
def three_starts(steps=starting_steps):
    """Départ → à chaque pas, perte, normes des gradients de la descente et de la remontée."""
    ids = next(atelier.windows(atelier.corpus_tokens("b_train"), 4, 64))
    found = {"sans adaptateur": colibri(ids, labels=ids).loss.item()}
    for name, prepare in starts.items():
        torch.manual_seed(0)
        adapter = Adapter(colibri.config.n_embd, 16).to(colibri.device)
        prepare(adapter)
        found[name] = learn_one(adapter, ids, steps)
    return found


# %%
ch7.starts_table(three_starts())

# %% [markdown]
# Le vôtre part de la perte de Colibri, au dernier chiffre près.
# <!-- claim: a_null_up_starts_from_colibri -->
# Si tout est nul, les gradients des deux matrices sont nuls, et le restent : chacune attend que l'autre cesse de
# l'être. La perte baisse un peu quand même, parce que le biais de la remontée, lui, bouge ;
# <!-- claim: two_null_matrices_never_learn -->
# elle baisse bien moins que la vôtre.
# <!-- claim: two_null_matrices_learn_less -->
# Au hasard, le modèle est un peu abîmé avant le premier pas.
# <!-- claim: a_random_start_harms -->
# Notez le prix du bon départ : au tout premier pas, seule la remontée reçoit un gradient ; la descente attend qu'elle
# ait bougé.
# <!-- claim: the_down_waits_one_step -->

# %% [markdown]
# L'article tire les deux matrices d'une gaussienne d'écart type 0,01 : presque l'identité (et au-delà de 0,01, dit le
# § 3.6, la qualité baisse). La remontée exactement nulle en est la limite, et c'est elle que LoRA reprendra au
# chapitre 8.
#
# ## 7.3 Compter ce qu'on ajoute
#
# Deux adaptateurs par bloc. Avec un goulot de 16, quelle part de Colibri va apprendre ?

# %%
atelier.bet("share_added", "Goulot de 16, deux adaptateurs par bloc : quelle part de Colibri apprendra, en pour cent ?")

# %% [markdown]
# ### ✎ adapter_num_params


# %% exercise="adapter_num_params"
def adapter_num_params(d_model: int, bottleneck: int, n_layer: int, per_layer: int = 2) -> int:
    """Nombre exact de paramètres qu'ajoutent des adaptateurs, biais compris.

    d_model : composantes d'un jeton ; bottleneck : largeur du goulot ; n_layer : nombre de blocs du
    modèle ;
    per_layer : adaptateurs par bloc.
    Rend un int.

    Source : Houlsby et al., 2019, § 2.1.
    """
    ### BEGIN SOLUTION
    down = d_model * bottleneck + bottleneck
    up = bottleneck * d_model + d_model
    return n_layer * per_layer * (down + up)
    ### END SOLUTION


# %% experiment="adapter_counts"
@atelier.experiment(needs=[adapter_num_params])
def adapter_counts():
    """(modèle, goulot) → composantes, paramètres du modèle, paramètres ajoutés."""
    found = {}
    for model, (n_layer, d_model, total) in ch7.model_shapes(colibri).items():
        for m in {"Colibri": (4, 16, 64), "BERT-large": (8, 64, 256)}.get(model, (64,)):
            found[model, m] = (d_model, total, adapter_num_params(d_model, m, n_layer))
    return found


# %%
counts = adapter_counts()
ch7.counts_table(counts)
atelier.settle("share_added", 100 * counts["Colibri", 16][2] / counts["Colibri", 16][1])

# %% [markdown]
# À goulot égal, la part baisse quand le modèle grandit : Colibri est un cas **défavorable** aux adaptateurs. Ce qui
# est presque rien chez GPT-2 XL se voit déjà chez lui.
# <!-- claim: the_share_falls_as_models_grow -->

# %% [markdown]
# La raison : un bloc a environ $12d^2$ poids, ses deux adaptateurs environ $4md$, d'où une part du bloc proche de
# $m/3d$ (les tables de plongements, qui ne reçoivent rien, la réduisent encore).
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

    model : GPT-2 de transformers ; bottleneck : largeur du goulot, au moins 1.
    Dans chaque bloc, un `Adapter` transforme la sortie de l'attention (après sa projection
    `attn.c_proj`), un autre celle du MLP, chaque fois avant l'addition au flux résiduel. Chacun a
    ses propres poids. Seuls les adaptateurs
    apprennent : tous les autres paramètres ont requires_grad=False, LayerNorm comprises.
    Rend `model` lui-même. Les logits n'ont pas bougé ; `model.parameters()` contient les
    adaptateurs.

    Source : Houlsby et al., 2019, figure 2 (l'article entraîne aussi les LayerNorm, pas nous).
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
# Pour apprendre, rien de neuf : c'est la boucle du chapitre 6. Une seule ligne y compte vraiment, la première, qui ne
# donne à l'optimiseur que ce qui a `requires_grad`. L'optimiseur est **AdamW** (Loshchilov et Hutter, 2019) : Adam, où
# la décroissance des poids (*weight decay*) est séparée du gradient ; elle est nulle ici, et AdamW n'est alors
# qu'Adam. Et `fused=True` ? Gardez la question pour 7.10.


# %%
def with_adapters(bottleneck=16, seed=0, base=colibri):
    """Une copie de `base` où vos adaptateurs sont branchés ; la graine fixe leur départ."""
    torch.manual_seed(seed)
    return insert_adapters(copy.deepcopy(base), bottleneck).to(base.device)


def text_loss(model, ids):
    """La perte du jeton suivant."""
    return model(ids, labels=ids).loss


def teach(model, text, lr, seed=0, steps=lesson_steps, loss_of=text_loss):
    """Une leçon : `steps` lots de quatre fenêtres de ce texte. Seul bouge ce qui a requires_grad."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 5, steps)
    batches = atelier.windows(atelier.corpus_tokens(f"{text}_train"), batch_size=4, seed=seed)
    model.train()
    for _ in range(steps):
        loss = loss_of(model, next(batches))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


# %% [markdown]
# Première épreuve : le modèle n'a pas changé. Deuxième : il peut apprendre. Troisième, et c'est elle qui compte :
# après quelques pas, **pas un octet** de la base n'a bougé. Une empreinte (*hash*) de tous les octets gelés le dit
# mieux qu'une promesse.


# %% experiment="same_start"
@atelier.experiment(needs=[insert_adapters])
def same_start(steps=3):
    """Étape → plus grand écart d'un logit à ceux de Colibri, paramètres qui apprennent, empreinte du reste."""
    ids, found = next(atelier.windows(atelier.corpus_tokens("b_train"), 2, 64)), {}
    with torch.no_grad():
        plain = colibri(ids).logits
    model = with_adapters()
    for name, more in {"adaptateurs branchés": 0, "après trois pas sur B": steps}.items():
        teach(model, "b", 2e-3, steps=more)
        with torch.no_grad():
            gap = (model(ids).logits - plain).abs().max().item()
        found[name] = (gap, sum(p.numel() for p in model.parameters() if p.requires_grad), ch7.frozen_hash(model))
    return {"Colibri seul": (0.0, 0, ch7.frozen_hash(colibri))} | found


# %%
ch7.start_table(same_start())

# %% [markdown]
# Brancher n'a rien changé, apprendre a changé les logits, et l'empreinte est restée celle de Colibri.
# <!-- claim: not_a_byte_of_the_base_moved -->

# %% [markdown]
# ## 7.5 Deux voix dans un seul modèle
#
# Deux textes que Colibri n'a jamais lus, ni rien de leur genre : **B**, la narration de fantasy du jeu *Battle for
# Wesnoth*, et **B′**, des vers de Corneille, Racine, Molière. Un jeu d'adaptateurs pour chacun, appris l'un après
# l'autre dans la même base.
#
# À quel taux d'apprentissage ? Chaque façon d'apprendre a le sien ; nous le cherchons sur un autre extrait que celui
# qui jugera, et la section 7.6 aura besoin de celui du fine-tuning complet : cherchons les deux.


# %%
ways = {
    "tous les poids": lambda seed: copy.deepcopy(colibri).requires_grad_(True),
    "adaptateurs, m = 16": lambda seed: with_adapters(16, seed),
}
rate_grid = {"tous les poids": (1e-3, 2.5e-4, 5e-4, 2e-3, 4e-3), "adaptateurs, m = 16": (4e-3, 1e-3, 2e-3, 8e-3)}


def tuning_perplexity(model, text):
    """Sur un autre extrait que celui qui juge : c'est là que les taux se choisissent."""
    return atelier.evaluate_perplexity(model, f"{text}_test", max_tokens=tuning_tokens).perplexity


def rates_tried(grid, names, texts, tried, seed=100):
    """(façon, texte, taux) → perplexité après une leçon, pour les `tried` premiers taux de chaque façon."""
    found = {}
    for name, text in itertools.product(names, texts):
        for lr in grid[name][:tried]:
            found[name, text, lr] = tuning_perplexity(teach(ways[name](seed), text, lr, seed), text)
    return found


# %% experiment="adapter_voice_rates"
@atelier.experiment(needs=[insert_adapters], full={"names": tuple(rate_grid), "texts": ("b", "bprime"), "tried": 5})
def adapter_voice_rates(names=("adaptateurs, m = 16",), texts=("b",), tried=1):
    """(façon, texte, taux) → perplexité sur l'extrait de réglage."""
    return rates_tried(rate_grid, names, texts, tried)


# %%
ch7.rates_table(adapter_voice_rates.authors() or adapter_voice_rates())


# %%
rate_of = {("tous les poids", text): 1e-3 for text in ("b", "bprime")}
rate_of |= {("adaptateurs, m = 16", text): 4e-3 for text in ("b", "bprime")}


@functools.cache
def learned(name, text, seed=0):
    """Colibri après une leçon, de cette façon, à son taux ; gardé pour la suite."""
    return teach(ways[name](seed), text, rate_of[name, text], seed)


# %% [markdown]
# Ce qu'il faut garder d'une voix, ce sont les seuls paramètres qui ont appris ; la poser dans le modèle, c'est les
# y recopier. `load_state_dict` sait ne charger qu'une partie d'un modèle : c'est `strict=False` (qui se tait aussi sur
# un nom de trop : vérifiez ce qu'il rend quand vous doutez).


# %%
def voice_of(model):
    """Tout ce qu'il faut garder d'une voix : les paramètres qui ont appris."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def wear(model, voice):
    """Pose une voix dans un modèle qui a les mêmes adaptateurs."""
    model.load_state_dict(voice, strict=False)
    return model


@functools.cache
def voice(text, seed=0):
    """La voix apprise sur ce texte ; gardée, pour ne pas la réapprendre à chaque cellule."""
    return voice_of(learned("adaptateurs, m = 16", text, seed))


# %% [markdown]
# **Avant d'exécuter :** quelles cases du tableau vont baisser, lesquelles vont monter, et que dira la dernière ligne ?
#
# ??? q="forgetting"


# %% experiment="voices_swapped"
@atelier.experiment(needs=[insert_adapters])
def voices_swapped(texts=("a", "b", "bprime")):
    """Voix branchée → texte → perte, part à part : un seul modèle, qui change de voix."""
    model = with_adapters()
    silent = voice_of(model)  # avant d'apprendre, les adaptateurs ne font rien
    found = {"Colibri": {text: losses_of(colibri, text) for text in texts}}
    for name, worn in {"voix B": voice("b"), "voix B′": voice("bprime"), "voix retirée": silent}.items():
        wear(model, worn)
        found[name] = {text: losses_of(model, text) for text in texts}
    return found


# %%
ch7.voices_table(voices_swapped())

# %% [markdown]
# Chaque voix améliore son texte et dégrade A, tant qu'elle est branchée.
# <!-- claim: each_voice_helps_its_text_and_harms_a -->
# Retirée, Colibri est intact, au dernier chiffre.
# <!-- claim: silenced_adapters_leave_colibri_intact -->
# Lisez aussi les deux cases croisées. La voix de la fantasy aide à lire les vers, dont elle n'a pas vu un seul ; celle
# des vers nuit à la fantasy. Le transfert n'est pas symétrique.
# <!-- claim: fantasy_helps_verse_and_verse_harms_fantasy -->

# %% [markdown]
# On change de voix sans rien recharger. La même amorce, le même tirage, trois fois :

# %%
openings = ("Seigneur, vous", "Les soldats")
written_tokens = atelier.scale().pick(essai=8, cpu=40, gpu=60)


def told(model, opening, seed=0):
    """Une suite tirée au hasard, toujours la même pour une même graine."""
    ids = tokenizer(opening, return_tensors="pt").input_ids.to(model.device)
    torch.manual_seed(seed)
    choices = {"do_sample": True, "temperature": 0.7, "top_k": 20, "pad_token_id": 0, "suppress_tokens": [0]}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=written_tokens, **choices)
    return tokenizer.decode(out[0], skip_special_tokens=True)


# %% experiment="voices_told"
@atelier.experiment(needs=[insert_adapters])
def voices_told(starts=openings):
    """Amorce → voix → texte et empreinte de la base ; et les durées, en secondes, d'un échange."""
    model = with_adapters()
    worn = {"Colibri": voice_of(model), "voix B": voice("b"), "voix B′": voice("bprime")}
    swaps = ch7.interleaved_seconds({n: functools.partial(wear, model, v) for n, v in worn.items()}, rounds=9)
    found = {"échanges": swaps, "nombres": sum(p.numel() for p in worn["Colibri"].values())}
    for opening in starts:
        found[opening] = {n: (told(wear(model, v), opening), ch7.frozen_hash(model)) for n, v in worn.items()}
    return found


# %%
ch7.told_tables(voices_told())

# %% [markdown]
# Trois millions de paramètres ne font pas un écrivain. Mais comparez, d'une ligne à l'autre, à qui ces phrases
# pourraient s'adresser, et où tombent les retours à la ligne. Lisez enfin la colonne des empreintes : c'est à chaque
# fois le même Colibri.
# <!-- claim: the_same_base_under_every_voice -->

# %% [markdown]
# Que garde-t-on sur le disque ?

# %%
atelier.bet("file_ratio", "Le fichier d'une voix, pour m = 16 : combien de fois plus petit que celui de Colibri ?")


# %% experiment="voice_files"
@atelier.experiment(needs=[insert_adapters])
def voice_files():
    """Octets d'un fichier safetensors, en FP32 et en FP16 : Colibri, une voix ; et si la voix relue est la même."""
    one, whole, found = voice("b"), dict(colibri.named_parameters()), {}
    for dtype in (torch.float32, torch.float16):
        for name, weights in {"Colibri": whole, "une voix": one}.items():
            tensors = {k: w.detach().to("cpu", dtype).contiguous() for k, w in weights.items()}
            found[name, str(dtype)] = len(save(tensors))
    reread = load(save({k: w.cpu().contiguous() for k, w in one.items()}))
    ids = torch.arange(64, device=colibri.device)[None]
    with torch.no_grad():
        first, second = (wear(with_adapters(seed=seed), w)(ids).logits for seed, w in enumerate((one, reread)))
    return found | {"relue": torch.equal(first, second)}


# %%
atelier.settle("file_ratio", ch7.files_table(voice_files()))

# %% [markdown]
# Relue du disque et posée dans une base fraîche, une voix donne exactement les mêmes logits.
# <!-- claim: a_reread_voice_is_the_same -->

# %% [markdown]
# Reprenons le compte du chapitre 6 : 170 milliards de paramètres, cent tâches, deux octets par nombre. Cent copies
# faisaient 34 To. Et avec vos adaptateurs, aux formes de GPT-3, dont le compte de la diapositive est tout proche ?


# %% experiment="hundred_adapters"
@atelier.experiment(needs=[adapter_num_params])
def hundred_adapters(bottlenecks=(8, 64, 256), tasks=100, n_params=170 * 10**9, n_bytes=2):
    """Goulot → octets de la base, et des cent jeux d'adaptateurs : 96 blocs, 12 288 composantes."""
    base = n_params * n_bytes
    return {m: (base, tasks * n_bytes * adapter_num_params(12288, m, 96)) for m in bottlenecks}


# %%
ch7.tasks_table(hundred_adapters())

# %% [markdown]
# Cent tâches, base comprise, tiennent dans la place de deux copies, même avec le plus large de ces goulots.
# <!-- claim: a_hundred_tasks_in_two_copies -->
# Voilà ce que les adaptateurs ont d'incontestable.

# %% [markdown]
# ## 7.6 Est-ce aussi bien ?
#
# Mêmes fenêtres, même nombre de pas, chaque façon au taux qui lui va, cinq graines.

# %%
atelier.bet(
    "as_good_as_full",
    "À pas égaux, sur la voix qu'ils apprennent, les adaptateurs feront…",
    options=("mieux", "aussi bien que tous les poids", "un peu moins bien", "nettement moins bien"),
)


# %% experiment="as_good"
@atelier.experiment(needs=[insert_adapters], full=five_seeds | {"names": tuple(ways)[:2], "texts": ("b", "bprime")})
def as_good(names=("adaptateurs, m = 16",), texts=("b",), seeds=(0,)):
    """(façon, texte) → pour chaque graine, la perte sur ce texte, puis sur A ; et celle de Colibri, avant."""
    found = {"avant": {text: losses_of(colibri, text) for text in ("a", *texts)}}
    for seed, text, name in itertools.product(seeds, texts, names):
        model = learned(name, text, seed)
        found.setdefault((name, text), []).append((losses_of(model, text), losses_of(model, "a")))
    return found


# %%
good_here, good_author = as_good(), as_good.authors()
ch7.plot_as_good(good_author or good_here)
ch7.as_good_table(good_author or good_here, good_here)
atelier.settle("as_good_as_full", ch7.as_good_verdict(good_author or good_here))

# %% [markdown]
# Sur les deux voix, les adaptateurs restent derrière, et l'intervalle ne contient pas zéro.
# <!-- claim: adapters_learn_less_at_equal_steps -->
# Comptée en nats, la part du chemin qu'ils font n'est pas la même : les deux tiers sur la fantasy, neuf dixièmes sur
# les vers.
# <!-- claim: two_thirds_of_the_way_then_nine_tenths -->
# Lisez aussi ce que devient A : le fine-tuning complet, qui a appris davantage, l'oublie davantage,
# <!-- claim: full_forgets_more -->
# et pour de bon, puisqu'il réécrit la base ; les adaptateurs, on les débranche.

# %% [markdown]
# À pas égaux, donc. Et à durée égale ? La section 7.9 montrera qu'un pas d'adaptateurs demande, compté, au plus une
# fois et demie moins d'opérations qu'un pas complet. Offrons-leur tout : une fois et demie plus de pas, au même taux.


# %% experiment="adapters_for_longer"
@atelier.experiment(needs=[insert_adapters], full=five_seeds | {"texts": ("b", "bprime")})
def adapters_for_longer(texts=("b",), seeds=(0,), longer=1.5):
    """Texte → pour chaque graine, la perte d'adaptateurs à qui l'on donne une fois et demie plus de pas."""
    found, name = {text: [] for text in texts}, "adaptateurs, m = 16"
    for seed, text in itertools.product(seeds, texts):
        model = teach(ways[name](seed), text, rate_of[name, text], seed, round(longer * lesson_steps))
        found[text].append(losses_of(model, text))
    return found


# %%
ch7.longer_table(adapters_for_longer.authors() or adapters_for_longer(), good_author or good_here)

# %% [markdown]
# Ils restent derrière, sur les deux voix.
# <!-- claim: more_steps_do_not_catch_up -->
# On ne peut même pas dire que ces pas leur aient servi : regardez l'étendue, sur la fantasy. Une graine s'est envolée :
# le taux réglé pour une leçon courte est trop fort pour une longue, et nous ne l'avons pas réglé de nouveau.
# <!-- claim: the_extra_steps_do_not_show -->

# %% [markdown]
# ### Leur manque-t-il de la largeur ?
#
# Chaque largeur a son taux, elle aussi.

# %%
tried_widths = (2, 8, 64)
ways |= {f"adaptateurs, m = {m}": functools.partial(with_adapters, m) for m in tried_widths}
width_grid = {f"adaptateurs, m = {m}": (8e-3, 4e-3, 2e-3, 1.6e-2) for m in tried_widths[:2]}
width_grid |= {"adaptateurs, m = 64": (4e-3, 2e-3, 1e-3, 8e-3)}


# %% experiment="width_rates"
@atelier.experiment(needs=[insert_adapters], full={"names": tuple(width_grid), "tried": 5})
def width_rates(names=("adaptateurs, m = 2",), tried=1):
    """(façon, texte, taux) → perplexité sur l'extrait de réglage de la fantasy."""
    return rates_tried(width_grid, names, ("b",), tried)


# %%
ch7.rates_table(width_rates.authors() or width_rates())
rate_of |= {("adaptateurs, m = 2", "b"): 8e-3, ("adaptateurs, m = 8", "b"): 4e-3, ("adaptateurs, m = 64", "b"): 4e-3}


# %% experiment="widths_compared"
@atelier.experiment(needs=[insert_adapters], full=five_seeds | {"chosen": tried_widths})
def widths_compared(chosen=(2,), seeds=(0,)):
    """Goulot → paramètres qui apprennent, et pour chaque graine la perte sur B, puis sur A."""
    found = {}
    for m in chosen:
        runs = [learned(f"adaptateurs, m = {m}", "b", seed) for seed in seeds]
        found[m] = {
            "paramètres": sum(p.numel() for p in runs[0].parameters() if p.requires_grad),
            "pertes": [(losses_of(model, "b"), losses_of(model, "a")) for model in runs],
        }
    return found


# %%
widths_seen = widths_compared.authors() or widths_compared()
parameter_counts = {"total": colibri.num_parameters(), "sixteen": counts["Colibri", 16][2]}
ch7.plot_widths(widths_seen, good_author or good_here, **parameter_counts)

# %% [markdown]
# De 2 à 16, chaque élargissement apprend un peu davantage.
# <!-- claim: wider_learns_more_up_to_sixteen -->
# De 16 à 64, on ne peut pas les départager sur la voix, et le plus large oublie bien plus.
# <!-- claim: sixty_four_is_not_told_apart_and_forgets_more -->
# Regardez l'étendue de ses graines, et sa ligne dans le tableau des taux : le meilleur, choisi sur une graine, y touche
# au taux qui fait tout exploser.
# <!-- claim: its_rate_is_next_to_the_cliff -->
# Aucune de ces largeurs ne rejoint le fine-tuning complet.
# <!-- claim: no_width_catches_up -->

# %% [markdown]
# À côté, ce qu'annonce l'article. **BERT** (Devlin et al., 2019) est un transformer qui lit le texte dans les deux
# sens, et que l'on fine-tune pour classer ; **GLUE** (Wang et al., 2019) réunit neuf épreuves de compréhension de
# l'anglais (une phrase en implique-t-elle une autre, deux phrases ont-elles le même sens, une critique est-elle
# favorable…) et fait la moyenne de leurs scores.

# %%
ch7.paper_table()

# %% [markdown]
# Le résumé d'arXiv dit « within 0.4% » ; celui des actes d'ICML, « within 0.8% », ce qui est l'écart de la troisième
# ligne du même tableau, où $m = 64$ partout.
#
# Pourquoi n'en sommes-nous pas là ? Trois différences, dont nous n'avons pas mesuré laquelle pèse le plus :
#
# - BERT-large a cent fois plus de paramètres, et sa base contient sans doute presque tout ce que la tâche demande ;
# - une classification ne choisit qu'entre quelques réponses ; ici, il faut toute une loi sur les jetons d'un texte
#   d'un autre genre, et la table de Colibri est gelée ;
# - nous comparons après bien peu de pas.
#
# Quant à la largeur, elle ne comptait presque pas chez eux non plus : en moyenne 86,2, 85,8 et 85,7 % d'exactitude pour
# $m$ = 8, 64 et 256 (§ 3.6).

# %% [markdown]
# ### ★ Qui travaille ?
#
# L'article retire des adaptateurs sans réentraîner (§ 3.6, figure 6 : BERT-base, $m$ = 64). Retirer ceux d'une seule
# couche coûte au plus 2 % d'exactitude, les retirer tous ramène au score de la classe majoritaire, et ceux du haut
# comptent plus que ceux du bas. Refaisons-le : un adaptateur dont la remontée est nulle se tait.


# %% experiment="silenced_adapters"
@atelier.experiment(needs=[insert_adapters], full={"texts": ("b", "bprime")})
def silenced_adapters(texts=("b",)):
    """Texte → adaptateurs réduits au silence → perte, part à part."""
    found = {}
    for text in texts:
        model = wear(with_adapters(), voice(text))
        adapters = ch7.adapters_of(model)  # dans l'ordre du calcul : attention, MLP, attention…
        groups = {"aucun": [], **{f"bloc {i}": adapters[2 * i : 2 * i + 2] for i in range(len(adapters) // 2)}}
        groups |= {"après l'attention": adapters[::2], "après le MLP": adapters[1::2], "tous": adapters}
        found[text] = {}
        for name, group in groups.items():
            wear(model, voice(text))
            for adapter in group:
                for p in adapter.up.parameters():
                    nn.init.zeros_(p)
            found[text][name] = losses_of(model, text)
    return found


# %%
ch7.silence_table(silenced_adapters.authors() or silenced_adapters())

# %% [markdown]
# Aucun bloc ne porte une voix à lui seul : en faire taire un coûte bien moins que les faire taire tous ;
# <!-- claim: no_block_holds_the_voice_alone -->
# sur la fantasy, le silence du premier ne se voit même pas.
# <!-- claim: the_first_block_is_not_missed_on_fantasy -->
# Sur les deux voix, le bloc du haut est celui dont le silence coûte le plus, et les adaptateurs du MLP comptent plus
# que ceux de l'attention.
# <!-- claim: the_top_and_the_mlp_work_most -->

# %% [markdown]
# ## 7.7 La famille
#
# Les adaptateurs ne sont pas seuls. Lialin et ses coauteurs (2023) rangent les méthodes PEFT selon ce qu'elles font
# des poids : **additives**, elles en ajoutent ; **sélectives**, elles en choisissent parmi ceux du modèle ;
# **reparamétrisées**, elles écrivent le changement d'une matrice avec moins de nombres. Où chacune pose-t-elle les
# siens ?

# %%
ch7.plot_family()
ch7.family_table()

# %% [markdown]
# Toutes promettent la même chose : une base intacte ou presque, un petit fichier par tâche. Ce qui les sépare se lit
# dans la dernière colonne. Le chapitre 8 en mesurera une dizaine, par la bibliothèque peft. Ici, les deux sélectives
# qui ne demandent rien à écrire : il suffit de choisir ce qui a `requires_grad`. **BitFit** (Ben Zaken et al., 2022)
# n'apprend que les biais ; l'autre, que les gains et les biais des LayerNorm. À côté, vos adaptateurs de largeur 2 :
# à peu près autant de nombres.

# %%
atelier.bet(
    "selective_wins",
    "À pas égaux, à paramètres presque égaux, qui apprendra le mieux la fantasy ?",
    options=("les adaptateurs, m = 2", "BitFit", "on ne pourra pas les départager"),
)


# %%
def only(pattern):
    """Une copie de Colibri où n'apprennent que les paramètres dont le nom contient ce motif."""
    model = copy.deepcopy(colibri)
    for name, p in model.named_parameters():
        p.requires_grad_(pattern in name)
    return model


ways |= {"BitFit": lambda seed: only(".bias"), "LayerNorm": lambda seed: only(".ln_")}
family_grid = {name: (8e-3, 4e-3, 1.6e-2, 3.2e-2) for name in ("BitFit", "LayerNorm")}


# %% experiment="family_rates"
@atelier.experiment(full={"names": tuple(family_grid), "tried": 5})
def family_rates(names=("BitFit",), tried=1):
    """(façon, texte, taux) → perplexité sur l'extrait de réglage de la fantasy."""
    return rates_tried(family_grid, names, ("b",), tried)


# %%
ch7.rates_table(family_rates.authors() or family_rates())
rate_of |= {("BitFit", "b"): 8e-3, ("LayerNorm", "b"): 8e-3}


# %% experiment="selective_ways"
@atelier.experiment(full=five_seeds | {"names": tuple(family_grid)})
def selective_ways(names=("BitFit",), seeds=(0,)):
    """Façon → paramètres qui apprennent, et pour chaque graine la perte sur B, puis sur A."""
    found = {}
    for name in names:
        runs = [learned(name, "b", seed) for seed in seeds]
        found[name] = {
            "paramètres": sum(p.numel() for p in runs[0].parameters() if p.requires_grad),
            "pertes": [(losses_of(model, "b"), losses_of(model, "a")) for model in runs],
        }
    return found


# %%
selected = selective_ways.authors() or selective_ways()
ch7.family_measured(selected, widths_seen, good_author or good_here, **parameter_counts)
atelier.settle("selective_wins", ch7.selective_verdict(selected, widths_seen))

# %% [markdown]
# Sur la voix, on ne peut départager ni BitFit, ni les LayerNorm, de vos adaptateurs de largeur 2 ; les LayerNorm n'ont
# pourtant que 4 224 nombres, moins de la moitié des leurs.
# <!-- claim: selective_ways_are_not_told_apart_from_m_2 -->
# BitFit oublie davantage A que les deux autres.
# <!-- claim: bitfit_forgets_more -->
# À seize de large, les adaptateurs font mieux que les sélectives, avec bien plus de nombres.
# <!-- claim: sixteen_beats_the_selective_ways -->
# Avant d'ajouter des modules, essayez donc ce qui ne demande qu'une ligne, et ne coûte rien à l'usage.

# %% [markdown]
# ## 7.8 Sur une base en 4 bits
#
# Puisque la base ne bouge pas, rien n'oblige à la garder en pleine précision. Reprenons votre Colibri en 4 bits du
# chapitre 3 (à défaut, celui de l'auteur) : poids sur une grille de seize valeurs. Tels quels, on ne les entraîne
# pas : un petit pas n'atteint pas la valeur suivante (au chapitre 4, il fallait garder à côté une copie en FP32). Les
# adaptateurs, eux, restent en virgule flottante. Une voix s'apprend-elle aussi bien sur cette base ? Et celle qui a été
# apprise sur la base exacte s'y pose-t-elle sans réapprendre ?

# %%
four_bits = atelier.load_variant("int4-gptq")


# %% experiment="four_bit_voices"
@atelier.experiment(needs=[insert_adapters], full=five_seeds)
def four_bit_voices(seeds=(0,)):
    """La voix B sur la base en 4 bits : apprise dessus, ou apprise ailleurs et posée là ; perte, graine par graine."""
    found = {"sans voix": losses_of(four_bits, "b"), "apprise dessus": [], "apprise en FP32, posée dessus": []}
    for seed in seeds:
        there = teach(with_adapters(16, seed, four_bits), "b", rate_of["adaptateurs, m = 16", "b"], seed)
        moved = wear(with_adapters(16, seed, four_bits), voice("b", seed))
        found["apprise dessus"].append(losses_of(there, "b"))
        found["apprise en FP32, posée dessus"].append(losses_of(moved, "b"))
    return found


# %%
ch7.four_bit_table(four_bit_voices.authors() or four_bit_voices(), good_author or good_here)

# %% [markdown]
# Une voix s'apprend sur la base en 4 bits : elle y perd quelques pour cent de perplexité, du même ordre que ce que
# l'arrondi coûte à la base sans voix.
# <!-- claim: a_voice_learns_on_four_bits -->
# Et celle qui a été apprise sur la base exacte s'y pose sans réapprendre : on ne peut pas départager les deux.
# <!-- claim: a_moved_voice_is_not_told_apart -->
# C'est l'idée de QLoRA (chapitre 8), avec un autre module.

# %% [markdown]
# Un adaptateur appris sur A peut-il réparer ce que l'arrondi a abîmé ? Deux façons : relire A, ou imiter sur A ce que
# dit Colibri en FP32 (la distillation du chapitre 4, à T = 1).


# %%
def imitation_loss(model, ids):
    """La divergence de Colibri, en FP32, à ce modèle, en moyenne par jeton."""
    with torch.no_grad():
        wanted = colibri(ids, use_cache=False).logits.flatten(0, 1).log_softmax(-1)
    given = model(ids, use_cache=False).logits.flatten(0, 1).log_softmax(-1)
    return F.kl_div(given, wanted, reduction="batchmean", log_target=True)


menders = {"relire A": text_loss, "imiter Colibri sur A": imitation_loss}
mending_grid = {name: (2e-3, 5e-4, 1e-3, 4e-3) for name in menders}


@functools.cache
def mended(name, lr, seed=0, steps=lesson_steps):
    """La base en 4 bits, et un adaptateur qui l'a réparée de cette façon."""
    return teach(with_adapters(16, seed, four_bits), "a", lr, seed, steps, menders[name])


# %% experiment="mending_rates"
@atelier.experiment(needs=[insert_adapters], full={"names": tuple(menders), "tried": 5})
def mending_rates(names=("imiter Colibri sur A",), tried=1, seed=100):
    """(façon, texte, taux) → perplexité sur l'extrait de réglage de A ; taux nul : avant."""
    found = {("sans réparer", "a", 0.0): tuning_perplexity(four_bits, "a")}
    for name in names:
        found |= {(name, "a", lr): tuning_perplexity(mended(name, lr, seed), "a") for lr in mending_grid[name][:tried]}
    return found


# %%
ch7.rates_table(mending_rates.authors() or mending_rates())

# %% [markdown]
# Relire A ne fait mieux que ne rien faire à aucun des quatre taux ; imiter, à peine.
# <!-- claim: forty_steps_mend_next_to_nothing -->
# Colibri a déjà appris A, et l'arrondi n'est qu'un petit bruit dans celui du texte : c'est notre lecture. Imiter
# l'original dit, à chaque jeton, ce que l'arrondi a changé ; il y faudrait davantage de pas, que nous n'avons pas
# faits. Au tableau du cours, base et adaptateur compris :


# %% experiment="row_adapter"
@atelier.experiment(needs=[insert_adapters])
def row_adapter(lr=1e-3):
    """La base en 4 bits et un adaptateur qui imite Colibri, au tableau : octets des deux, ensemble."""
    model = mended("imiter Colibri sur A", lr)
    size = len(save({name: w.half().cpu().contiguous() for name, w in voice_of(model).items()}))
    what = f"int4-gptq et un adaptateur (m = 16) qui imite le modèle FP32, {lesson_steps} pas"
    return atelier.save_variant("int4-adapter", model, ch7.four_bit_bytes() + size, "ch7_adapters", what)


# %%
ch7.announce(row_adapter())

# %% [markdown]
# ## 7.9 Est-ce plus rapide ? Compter
#
# L'apprentissage économe en paramètres est-il plus rapide que celui du modèle entier ? « It is not faster! You still
# need to do the entire forward and backward pass », répond la diapositive. Quelques pages plus loin, à la même
# question posée de LoRA, une autre dira : « It is faster! »
#
# ??? q="limit_of_speed"

# %% [markdown]
# Revenons au 6 de $6ND$ (chapitre 2). Pour une couche $Y = XW$, un pas fait trois produits de même taille : en avant,
# $XW$ ; en arrière, le gradient $G$ de $Y$ donne celui de l'entrée, $GW^\top$, et celui du poids, $X^\top G$.
#
# ??? q="which_product"

# %% [markdown]
# ### ✎ peft_training_flops


# %% exercise="peft_training_flops"
def peft_training_flops(n_frozen: int, n_trainable: int, n_tokens: int) -> int:
    """FLOP d'un apprentissage sur n_tokens jetons, dont une partie des paramètres est gelée.

    n_frozen, n_trainable : nombres de paramètres gelés et entraînés ; n_tokens : jetons lus.
    Rend un int : les opérations de tous les produits de matrices des passages avant et arrière, une
    multiplication et une addition par paramètre, par jeton et par produit. Le gradient traverse
    toutes les couches, gelées ou non, jusqu'en bas du modèle. L'attention, qui n'a pas de poids,
    est laissée de côté, comme dans 6ND.

    Source : Kaplan et al., « Scaling Laws for Neural Language Models », 2020, § 2.1, pour les
    termes en 2N.
    """
    ### BEGIN SOLUTION
    forward, through_activations, for_weights = 2, 2, 2
    crossed = forward + through_activations
    return n_tokens * (crossed * n_frozen + (crossed + for_weights) * n_trainable)
    ### END SOLUTION


# %%
ch7.three_products()

# %% [markdown]
# Comptons maintenant, sur un vrai passage avant et un vrai passage arrière, chaque produit que torch effectue, tête de
# sortie comprise. Trois façons d'apprendre ; la dernière n'entraîne que les adaptateurs du dernier tiers du modèle :
# **que devient alors votre formule ?**


# %%
def training_ways(base):
    """Trois façons d'apprendre : tous les poids ; vos adaptateurs, partout ; ceux du dernier tiers seulement."""
    everywhere, top = (with_adapters(16, base=base) for _ in range(2))
    adapters = ch7.adapters_of(top)
    for adapter in adapters[: 2 * (len(adapters) // 3)]:
        adapter.requires_grad_(False)
    whole = copy.deepcopy(base).requires_grad_(True)
    return {"tous les poids": whole, "adaptateurs partout": everywhere, "adaptateurs en haut": top}


def multiplied(model):
    """Paramètres gelés, paramètres qui apprennent. La table des positions, lue sans être multipliée, n'y est pas."""
    sizes = [(p.requires_grad, p.numel()) for name, p in model.named_parameters() if "wpe" not in name]
    return tuple(sum(n for learns, n in sizes if learns == wanted) for wanted in (False, True))


# %% experiment="counted_adapter_steps"
@atelier.experiment(needs=[insert_adapters, peft_training_flops], full={"shapes": ("Colibri", "GPT-2 small")})
def counted_adapter_steps(shapes=("Colibri",), length=128):
    """(modèle, façon) → opérations comptées en avant, en arrière ; les vôtres ; celles de l'attention ; N et jetons."""
    found = {}
    for shape in shapes:
        for name, model in training_ways(ch7.base_of(shape, colibri)).items():
            model.set_attn_implementation("eager")  # l'attention fusionnée du processeur échappe au compteur
            ids, config = ch7.some_ids(model, 1, length), model.config
            with FlopCounterMode(display=False) as counter:
                loss = model(ids, labels=ids).loss
                forward = counter.get_total_flops()
                loss.backward()
            backward, attention = counter.get_total_flops() - forward, 12 * length**2 * config.n_embd * config.n_layer
            yours, n_params = peft_training_flops(*multiplied(model), length), sum(multiplied(model))
            found[shape, name] = (forward, backward, yours, attention, n_params, length)
    return found


# %%
counted = counted_adapter_steps()
ch7.counted_table(counted)
counted |= counted_adapter_steps.authors() or {}

# %% [markdown]
# Le passage arrière n'est donc pas « entire ». Avec des adaptateurs partout, il coûte un passage avant et non deux :
# $4N$ au lieu de $6N$ (un peu moins, même : l'attention du premier bloc est sous son adaptateur, et n'a pas de passage
# arrière).
# <!-- claim: six_becomes_four -->
# L'attention, qui n'a pas de poids, ne gagne rien ; avec elle, le pas d'adaptateurs garde un peu plus des deux tiers
# des opérations du pas complet.
# <!-- claim: attention_gains_nothing -->
# Sous le premier adaptateur qui apprend, le gradient n'a plus aucune raison de descendre : ces couches ne coûtent que
# leur passage avant, et la formule, qui suppose qu'il va jusqu'en bas, compte trop.
# <!-- claim: the_formula_counts_too_much_at_the_top -->

# %% [markdown]
# Le gain possible est donc borné : au plus 1,5 quand on entraîne partout, au plus 3 quand on n'entraîne que tout en
# haut.
#
# ## 7.10 Est-ce plus rapide ? Mesurer
#
# Il reste l'optimiseur. Adam (Kingma et Ba, 2015) garde pour chaque poids entraîné deux moyennes, celle du gradient
# et celle de son carré : ses deux **moments**.

# %% [markdown]
# ### ✎ optimizer_state_bytes


# %% exercise="optimizer_state_bytes"
def optimizer_state_bytes(model: nn.Module, bytes_per_value: int = 4) -> int:
    """Octets qu'Adam retient pour entraîner ce modèle : ses deux moments, pour les seuls paramètres
    qui apprennent.

    model : module torch dont une partie des paramètres a requires_grad=True ; un tenseur partagé
    sous deux noms ne compte qu'une fois. bytes_per_value : octets d'un nombre (4 en FP32).
    Rend un int ; le compteur de pas d'Adam n'est pas compté. Le modèle n'est pas modifié.

    Source : Kingma et Ba, « Adam », 2015, algorithme 1.
    """
    ### BEGIN SOLUTION
    moments = 2
    return moments * bytes_per_value * sum(p.numel() for p in model.parameters() if p.requires_grad)
    ### END SOLUTION


# %% [markdown]
# D'abord les octets. Votre formule contre ce qu'Adam a vraiment gardé, et le pic de mémoire pendant un pas. **Les
# poids mis à part, qu'est-ce qui baissera le moins ?**


# %% experiment="adapter_memory"
@atelier.experiment(
    needs=[insert_adapters, optimizer_state_bytes], full={"cases": (("Colibri", 8), ("GPT-2 small", 1))}
)
def adapter_memory(cases=(("Colibri", 8),), length=128):
    """(modèle, façon) → octets des poids, des gradients, des moments, les vôtres, et pic au-dessus des poids."""
    found = {}
    for shape, batch in cases:
        for name, model in training_ways(ch7.countable(ch7.base_of(shape, colibri))).items():
            learning = [p for p in model.parameters() if p.requires_grad]
            optimizer, ids = torch.optim.AdamW(learning, lr=1e-6), ch7.some_ids(model, batch, length)
            peak = ch7.peak_bytes(lambda model=model, ids=ids: model(ids, labels=ids).loss.backward())
            gradients = sum(p.grad.nbytes for p in learning)
            optimizer.step()
            moments = sum(v.nbytes for state in optimizer.state.values() for k, v in state.items() if k != "step")
            weights = sum(p.nbytes for p in model.parameters())
            found[shape, name] = (weights, gradients, moments, optimizer_state_bytes(model), peak)
    return found


# %%
ch7.memory_table(adapter_memory.authors() or adapter_memory())

# %% [markdown]
# Gradients et moments fondent : « you only need to keep the optimizer state for parameters that you are
# fine-tuning », dit la diapositive, et c'est exact ; votre formule le compte à l'octet.
# <!-- claim: moments_melt_and_your_formula_is_exact -->
# Les **activations**, ce que chaque couche a calculé en avant et qui doit servir en arrière, restent pour la plupart :
# le gradient traverse aussi les couches gelées. Là où il ne descend pas, à la troisième ligne, il en reste à peu près
# la moitié, ou moins.
# <!-- claim: activations_stay_unless_the_gradient_stops -->
# Pour Colibri et son grand lot, ce sont elles qui dominent ; pour GPT-2 et son petit lot, ce sont les poids et leur
# suite. « Memory-efficient » dépend donc de qui remplit la mémoire.
# <!-- claim: who_fills_the_memory -->

# %% [markdown]
# Enfin, le chronomètre. Un pas, en trois morceaux ; les trois façons tour à tour, pour que ce qui ralentit la machine
# les ralentisse toutes. Regardez d'abord la colonne **sans optimiseur** : c'est elle que le compte prévoit.


# %%
def timed_parts(model, ids, optimizer):
    """Un pas, montre en main → secondes du passage avant, du passage arrière, de l'optimiseur."""
    marks = [ch7.now()]
    loss = model(ids, labels=ids).loss
    marks.append(ch7.now())
    loss.backward()
    marks.append(ch7.now())
    optimizer.step()
    marks.append(ch7.now())
    optimizer.zero_grad()
    return tuple(end - start for start, end in itertools.pairwise(marks))


timed_here = atelier.scale().pick(
    essai=(("Colibri", 1),),
    cpu=(("Colibri", 1), ("Colibri", 8)),
    gpu=(("Colibri", 8), ("GPT-2 small", 1), ("GPT-2 small", 8), ("GPT-2 medium", 8)),
)
timed_shapes = atelier.scale().pick(essai=("Colibri",), cpu=("Colibri",), gpu=("Colibri", "GPT-2 small"))
timed_rounds = atelier.scale().pick(essai=2, cpu=7, gpu=15)


# %% experiment="adapter_step_times"
@atelier.experiment(
    needs=[insert_adapters],
    full={"cases": (("Colibri", 1), ("Colibri", 8), ("GPT-2 small", 1), ("GPT-2 small", 2)), "rounds": 7},
)
def adapter_step_times(cases=timed_here, rounds=timed_rounds, length=128):
    """(modèle, fenêtres du lot) → façon → à chaque tour, les secondes des trois morceaux d'un pas."""
    found = {}
    for shape, batch in cases:
        models = training_ways(ch7.base_of(shape, colibri))
        learning = {name: [p for p in m.parameters() if p.requires_grad] for name, m in models.items()}
        optimizers = {name: torch.optim.AdamW(ps, lr=1e-6, fused=True) for name, ps in learning.items()}
        found[shape, batch] = {name: [] for name in models}
        for turn, (name, model) in itertools.product(range(rounds + 1), models.items()):
            parts = timed_parts(model.train(), ch7.some_ids(model, batch, length), optimizers[name])
            found[shape, batch][name] += [parts] * (turn > 0)  # le premier tour échauffe
    return found


# %%
steps_here, steps_author = adapter_step_times(), adapter_step_times.authors()
ch7.step_times_table(steps_here, "Ici", counted)
if steps_author:
    ch7.step_times_table(steps_author, ch7.recorded_on("adapter_step_times"), counted)
    ch7.plot_step_times(steps_author)
atelier.settle("are_they_faster", ch7.faster_verdict(steps_author or steps_here))

# %% [markdown]
# ### D'où venait « × 2,56 » ?
#
# Une version passée de ce chapitre annonçait, pour GPT-2, un pas complet 2,56 fois plus long qu'un pas d'adaptateurs :
# bien au-delà de la borne, et elle en tirait une loi, « Adam attend la mémoire ». La faute était dans l'optimiseur.
# Sans `fused=True`, `torch.optim.AdamW` fait sur un processeur une dizaine d'opérations par tenseur, l'une après
# l'autre, et reparcourt chaque fois la mémoire ; **fusionnée**, une mise à jour lit et écrit chaque nombre une fois.
# Chronométrons les deux, seules, puis refaisons le calcul de l'erreur.


# %% experiment="two_adams"
@atelier.experiment(full={"shapes": ("Colibri", "GPT-2 small"), "rounds": 7})
def two_adams(shapes=timed_shapes, rounds=timed_rounds):
    """Modèle → secondes d'une mise à jour de tous ses poids, par la boucle d'office et par la boucle fusionnée."""
    found = {}
    for shape in shapes:
        model = copy.deepcopy(ch7.base_of(shape, colibri)).requires_grad_(True)
        for p in model.parameters():
            p.grad = torch.full_like(p, 1e-3)
        loops = {"d'office": {}, "fusionnée": {"fused": True}}
        updates = {how: torch.optim.AdamW(model.parameters(), lr=1e-6, **choice).step for how, choice in loops.items()}
        found[shape] = ch7.interleaved_seconds(updates, rounds)
    return found


# %%
ch7.adams_table(two_adams.authors() or two_adams(), steps_author or steps_here)

# %% [markdown]
# ### Alors, « It is not faster » ?
#
# **Par pas**, le compte dit un tiers d'opérations en moins, jamais davantage quand on entraîne partout ; la diapositive
# a raison contre qui attendait cinquante fois plus vite, et tort si on la lit à la lettre. Le chronomètre, lui, dépend
# du modèle, du lot, de la machine et de l'optimiseur : c'est pourquoi ses phrases s'écrivent ici à mesure. Rücklé et
# ses coauteurs (*AdapterDrop*, 2021) trouvent sur carte des pas d'adaptateurs jusqu'à 60 % plus rapides que ceux du
# fine-tuning complet.
#
# **Par qualité atteinte**, la section 7.6 a répondu : à pas égaux, et même avec une fois et demie plus de pas, les
# adaptateurs sont derrière, à notre taille.
# <!-- claim: more_steps_do_not_catch_up -->
# Le chapitre 8 posera les mêmes questions à LoRA.
#
# ## 7.11 À l'usage, ils ne sont pas gratuits
#
# Une fois l'apprentissage fini, les adaptateurs sont toujours là : chaque jeton les traverse. Combien d'opérations de
# plus ?

# %% [markdown]
# ### ✎ adapter_overhead


# %% exercise="adapter_overhead"
def adapter_overhead(d_model: int, bottleneck: int, n_ctx: int, per_layer: int = 2) -> float:
    """Surcoût d'un passage avant : FLOP des adaptateurs d'un bloc ÷ FLOP de ce bloc de GPT-2 sans
    eux.

    d_model : composantes d'un jeton ; bottleneck : largeur du goulot ; n_ctx : jetons lus
    ensemble ;
    per_layer : adaptateurs par bloc.
    Rend un float, sans unité. On ne compte que les produits de matrices, une multiplication et une
    addition chacun : dans le bloc, les quatre couches linéaires et les deux produits de l'attention
    (QKᵀ, puis A·V), dense : tous les couples de jetons sont calculés, futur compris.
    """
    ### BEGIN SOLUTION
    linear = 2 * 12 * d_model**2
    attention = 2 * 2 * n_ctx * d_model
    adapters = per_layer * 2 * 2 * d_model * bottleneck
    return adapters / (linear + attention)
    ### END SOLUTION


# %% experiment="counted_overheads"
@atelier.experiment(needs=[insert_adapters, adapter_overhead])
def counted_overheads(length=128):
    """(modèle, goulot, contexte) → surcoût d'un bloc par votre formule ; et, pour Colibri, compté par torch."""
    forward = functools.partial(ch7.forward_flops, length=length)  # sans la tête de sortie : les blocs seuls
    base, found = forward(colibri), {}
    for m in (16, 64):
        more = forward(with_adapters(m))
        found["Colibri", m, length] = (adapter_overhead(colibri.config.n_embd, m, length), (more - base) / base)
    for shape, d_model, context in (("GPT-2 small", 768, 128), ("GPT-2 small", 768, 1024), ("GPT-2 XL", 1600, 1024)):
        found[shape, 64, context] = (adapter_overhead(d_model, 64, context), None)
    return found


# %%
ch7.overheads_table(counted_overheads())

# %% [markdown]
# Votre formule et le compteur disent le même nombre.
# <!-- claim: the_overhead_is_counted_exactly -->
# Quelques pour cent, davantage pour un goulot large dans un petit modèle.
# <!-- claim: the_overhead_is_a_few_percent -->

# %% [markdown]
# Dans l'article de LoRA (Hu et al., 2022, tableau 1 : GPT-2 medium, carte Quadro RTX 8000, une phrase de 128 jetons),
# un passage prend 19,8 ms sans adaptateurs, 23,9 ou 25,8 ms avec, selon le modèle d'adaptateur (11 M de paramètres).
# Voyons ce qu'en pense l'horloge ici, pour un jeton généré, puis pour une fenêtre entière.
#
# ??? q="serving"


# %% experiment="adapter_serving_times"
@atelier.experiment(needs=[insert_adapters], full={"shapes": ("Colibri", "GPT-2 small"), "rounds": 11})
def adapter_serving_times(shapes=timed_shapes, rounds=3 * timed_rounds):
    """Un jeton de plus, ou 128 jetons lus d'un coup : (modèle, quoi) → durées et opérations de chaque version."""
    found = {}
    for shape in shapes:
        base = ch7.base_of(shape, colibri)
        versions = {"sans adaptateur": base} | {f"m = {m}": with_adapters(m, base=base) for m in (16, 64)}
        for what, prepare in {"un jeton": ch7.one_more_token, "une fenêtre": ch7.one_window}.items():
            found[shape, what] = {
                "secondes": ch7.interleaved_seconds({name: prepare(m) for name, m in versions.items()}, rounds),
                "opérations": {name: ch7.call_flops(m, prepare) for name, m in versions.items()},
            }
    return found


# %%
serving_here, serving_author = adapter_serving_times(), adapter_serving_times.authors()
ch7.serving_table(serving_here, "Ici")
if serving_author:
    ch7.serving_table(serving_author, ch7.recorded_on("adapter_serving_times"))

# %% [markdown]
# ### Et si l'on pouvait le replier ?
#
# Un adaptateur ne se replie pas dans la couche qu'il suit : sa GELU l'interdit. Un module **linéaire**, lui, pourrait
# se fondre dans les poids et ne plus rien coûter. C'est toute l'idée de LoRA.
#
# ## 7.12 Où en est Colibri
#
# La ligne de ce chapitre est « int4-adapter ». Comparez-la à « int4-gptq », sa base : ce que l'adaptateur pèse, et ce
# qu'il rend en quarante pas.

# %%
atelier.board("ch7_adapters")

# %% [markdown]
# **Ce que vous savez maintenant.** Un adaptateur est une correction à travers un goulot, qui commence par ne rien
# faire. Il ne touche pas à la base : on l'ajoute, on l'échange, on le retire, et son fichier ne pèse presque rien.
# <!-- claim: silenced_adapters_leave_colibri_intact -->
# Il épargne les gradients et les moments d'Adam, un tiers des opérations au plus quand il est partout, et guère les
# activations.
# <!-- claim: activations_stay_unless_the_gradient_stops -->
# À la taille de Colibri, après si peu de pas, il n'égale pas le fine-tuning complet, et l'oublie moins.
# <!-- claim: adapters_learn_less_at_equal_steps -->
# Et vous savez le faire à un autre modèle : geler, brancher, apprendre, garder les seuls paramètres qui ont appris.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Houlsby et al., *Parameter-Efficient Transfer Learning for NLP*, ICML 2019, arXiv 1902.00751 · Lialin
# et al., *Scaling Down to Scale Up: A Guide to Parameter-Efficient Fine-Tuning*, 2023, arXiv 2303.15647 · Ben Zaken et
# al., *BitFit*, 2022, arXiv 2106.10199 · Li et Liang, *Prefix-Tuning*, 2021, arXiv 2101.00190 · Lester et al., *The
# Power of Scale for Parameter-Efficient Prompt Tuning*, 2021, arXiv 2104.08691 · Liu et al., *Few-Shot Parameter-
# Efficient Fine-Tuning is Better and Cheaper than In-Context Learning* ((IA)³), 2022, arXiv 2205.05638 · Rücklé et al.,
# *AdapterDrop: On the Efficiency of Adapters in Transformers*, EMNLP 2021, arXiv 2010.11918 · Hu et al., *LoRA*, ICLR
# 2022, arXiv 2106.09685 · Liu et al., *DoRA*, 2024, arXiv 2402.09353 · Kopiczko et al., *VeRA*, 2024, arXiv 2310.11454
# · Dettmers et al., *QLoRA*, 2023, arXiv 2305.14314 · Devlin et al., *BERT*, 2019, arXiv 1810.04805 · Wang et al.,
# *GLUE*, ICLR 2019, arXiv 1804.07461 · Kaplan et al., *Scaling Laws for Neural Language Models*, 2020, arXiv 2001.08361
# · Kingma et Ba, *Adam*, ICLR 2015, arXiv 1412.6980 · Loshchilov et Hutter, *Decoupled Weight Decay Regularization*
# (AdamW), ICLR 2019, arXiv 1711.05101 · Hendrycks et Gimpel, *Gaussian Error Linear Units*, 2016, arXiv 1606.08415
