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
# On ne garde que deux des cinq blocs de Colibri. Pour remettre ce petit modèle d'aplomb, vaut-il mieux lui faire lire
# du texte, ou le laisser écouter Colibri ?
#
# Dans ce chapitre, un petit modèle, l'**élève** (*student*), en imite un grand, l'**enseignant** (*teacher*). Vous
# écrivez sa perte, vous le taillez, vous écrivez le pas qui le fait apprendre, et vous comparez ce qui doit l'être : à
# pas égaux, à durée égale, graine par graine.
#
# Comptez deux heures pour l'essentiel : les sections 4.1 à 4.11. Le reste est pour aller plus loin ; l'exercice marqué
# « approfondissement » est un bonus. Une leçon prend ici de dix à trente secondes ; chaque cellule qui en donne une le
# dit. Rien ne vous arrête : tant qu'un exercice n'est pas fait, les expériences qui en dépendent montrent le résultat
# de l'auteur et le disent.

# %%
import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch4

atelier.describe_machine()

# %% tags=["setup"]
import copy
import functools
import itertools

import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize
from transformers import GPT2LMHeadModel, get_cosine_schedule_with_warmup
from transformers.pytorch_utils import Conv1D

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
extract_tokens = atelier.scale().pick(essai=512, cpu=4096, gpu=65536)
unread_ids = ch4.unread_windows(extract_tokens)
training_text = atelier.corpus_tokens("a_train")
tuning_tokens = atelier.scale().pick(essai=1024, cpu=8192, gpu=8192)
train_ids = training_text[:-tuning_tokens]
tuning_ids = training_text[-tuning_tokens:].reshape(-1, 256).to(atelier.device())
whole_colibri = ch4.Remembering(colibri)  # relit l'extrait une fois pour toutes
five_seeds = {"seeds": range(5)}


def perplexity(model, tokens=extract_tokens):
    """Perplexité sur l'extrait du chapitre, que ni Colibri ni ses élèves n'ont lu."""
    return atelier.evaluate_perplexity(model, max_tokens=tokens).perplexity


# %%
atelier.bet(
    "who_teaches_best",
    "À pas égaux, d'où l'élève sortira-t-il le meilleur ?",
    options=("du texte seul", "de Colibri seul", "on ne pourra pas les départager"),
)

# %% [markdown]
# ## 4.1 Où nous en sommes
#
# Au chapitre 3, Colibri a gardé tous ses poids et perdu des bits. Ici, il perd des couches.

# %%
ch4.three_compressions(4)

# %% [markdown]
# Les trois se combinent. Avec la quantification, c'est ZeroQuant (Yao et al., 2022), que citent les diapositives : un
# modèle arrondi, réparé par l'original (4.13). Avec l'élagage, vous le ferez dès ce chapitre : retirer des blocs, puis
# laisser l'original enseigner ce qui reste, c'est élaguer puis distiller. Le chapitre 5 le fera poids par poids.
#
# ## 4.2 Ce qu'un texte ne dit pas
#
# « La demande doit être » : le texte continue par un mot, un seul (un jeton, en toute rigueur, parfois un simple
# début de mot). C'est l'**étiquette dure** (*hard label*) : 1 pour ce mot, 0 pour les autres. Colibri, lui, donne une
# probabilité à chacun : c'est l'**étiquette douce** (*soft label*). À quel endroit de la phrase les deux se
# ressemblent-elles le plus ? Bougez le curseur.

# %%
sentence = "La demande doit être adressée par lettre recommandée avec accusé de réception."
ch4.dark_knowledge(colibri, tokenizer, sentence, rank=4)

# %% [markdown]
# <details><summary>Réponse</summary>
#
# À la fin d'une formule toute faite, « accusé de », et au milieu d'un mot : là, l'étiquette douce n'hésite guère.
# Ailleurs, elle dit ce que le texte tait : que d'autres suites étaient possibles, lesquelles, et combien. Hinton
# appelle cela la **connaissance cachée** (*dark knowledge*).
#
# </details>

# %% [markdown]
# Une phrase n'est pas une preuve. Voici la moyenne sur des milliers de positions. La dernière ligne est l'**entropie**,
# $H(P) = -\sum_x P(x) \ln P(x)$, qui mesure l'hésitation : elle va de 0, une certitude, à $\ln V$ pour $V$ mots
# également probables. Elle se compte en **nats**, comme la perte.


# %% experiment="what_labels_say"
@atelier.experiment()
def what_labels_say():
    """Ce que dit une étiquette douce de Colibri, en moyenne, sur un texte qu'il n'a pas lu."""
    found = {"premier": [], "dix premiers": [], "mots": [], "entropie": []}
    with torch.no_grad():
        for ids in unread_ids.split(8):
            p = colibri(ids).logits[:, :-1].softmax(-1)
            rank = (p > p.gather(-1, ids[:, 1:, None])).sum(-1)
            found["premier"].append((rank == 0).float().mean())
            found["dix premiers"].append((rank < 10).float().mean())
            found["mots"].append((p > 0.01).sum(-1).float().mean())
            found["entropie"].append(-torch.xlogy(p, p).sum(-1).mean())
    return {name: torch.stack(values).mean().item() for name, values in found.items()}


# %%
ch4.labels_table(what_labels_say())

# %% [markdown]
# ??? q="soft_label"
#
# ## 4.3 La température
#
# Quand l'étiquette douce est presque dure, ce que l'enseignant pense des autres mots se joue à la troisième décimale.
# C'était le cas des réseaux de Hinton, qui reconnaissaient des chiffres presque sans hésiter : que ce 2 ressemble à un
# 3 plutôt qu'à un 7 se lisait entre $10^{-6}$ et $10^{-9}$. Pour l'entendre, il divise tous les logits par une
# **température** $T$ avant le softmax.

# %% [markdown]
# ??? q="temperature_limits"

# %% [markdown]
# ### ✎ softmax_temperature


# %% exercise="softmax_temperature"
def softmax_temperature(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Softmax adouci (ou durci) par une température, sur le dernier axe.

    logits : (…, V) flottant, un par mot, sans unité, éventuellement très grands (1 000 ou −1 000).
    temperature : T > 0, sans unité ; entière ou non.
    Rend (…, V), du type de logits : des probabilités, de somme 1 sur le dernier axe, sans nan.
    Lève ValueError si temperature ≤ 0.

    Source : Hinton, Vinyals et Dean, « Distilling the Knowledge in a Neural Network », 2015,
    équation (1).
    """
    ### BEGIN SOLUTION
    if temperature <= 0:
        raise ValueError(f"une température est strictement positive, pas {temperature}")
    return torch.softmax(logits / temperature, dim=-1)
    ### END SOLUTION


# %% [markdown]
# Voici la fin de la phrase : que reste-t-il des autres mots à $T = 1$ ? Et à $T = 3$ ?

# %%
ch4.temperature(
    colibri, tokenizer, "La demande doit être adressée par lettre recommandée avec accusé de", softmax_temperature
)

# %% [markdown]
# $$ p_i(T) = \frac{e^{z_i/T}}{\sum_j e^{z_j/T}} $$
#
# L'ordre des mots ne change pas, seulement leurs écarts : à droite, l'entropie passe de la certitude à l'ignorance
# complète. Au chapitre 1, la température servait à écrire ; ici, elle sert à écouter.
#
# Faut-il monter la température pour un modèle de langue ? Le tableau de 4.2 fait hésiter : les étiquettes douces de
# Colibri sont déjà très douces. Gardez la question ; $T$ sera un réglage partout, et 4.8 répondra.

# %%
atelier.bet(
    "does_heat_help",
    "Avec le même enseignant et le même nombre de pas, passer de T = 1 à T = 2 rendra l'élève…",
    options=("meilleur", "ni meilleur ni pire", "moins bon"),
)

# %% [markdown]
# ## 4.4 Comparer deux lois
#
# L'élève doit dire ce que dit l'enseignant. Il faut un nombre qui mesure leur désaccord. La diapositive prend la
# **divergence de Kullback-Leibler** de $P$ à $Q$ : le nombre moyen de nats que l'on perd à croire $Q$ quand $P$ est
# vraie. C'est une moyenne sous $P$, de ce que $Q$ donne en moins, compté en logarithme.
#
# ??? q="kl_infinite"

# %% [markdown]
# ### ✎ kl_divergence


# %% exercise="kl_divergence"
def kl_divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Divergence de Kullback-Leibler de P à Q, D(P ‖ Q), sur le dernier axe, en nats.

    p, q : (…, V) flottants de même forme, des probabilités (positives ou nulles, de somme 1 sur le
    dernier axe).
    Rend (…), du type de p, une valeur par loi. Un événement que P exclut ne coûte rien, même si Q
    l'exclut aussi ; un événement que P croit possible et que Q exclut coûte +inf.

    Source : Kullback et Leibler, « On Information and Sufficiency », 1951.
    """
    ### BEGIN SOLUTION
    terms = torch.xlogy(p, p) - torch.xlogy(p, q)
    return terms.sum(dim=-1)
    ### END SOLUTION


# %% [markdown]
# La diapositive l'écrit, et l'on peut développer son logarithme :
#
# $$ D_{\mathrm{KL}}(P \,\|\, Q) = \sum_{x} P(x) \ln \frac{P(x)}{Q(x)} = H(P, Q) - H(P) . $$
#
# $H(P, Q) = -\sum_x P(x) \ln Q(x)$ est l'**entropie croisée**, la perte que vous connaissez, où le mot du texte a cédé
# la place à une loi. $H(P)$ ne dépend pas de l'élève : faire baisser l'une ou l'autre, c'est la même chose.
#
# Et l'étiquette dure ? Si le texte avait été écrit par l'enseignant, son mot serait **un tirage de $P$**, et $-\ln Q$
# de ce mot, une estimation de $H(P, Q)$ par un seul tirage. L'étiquette douce en donne d'un coup la moyenne.
#
# Pour chaque couple, trouvez de tête le signe, et si c'est infini, avant d'exécuter.


# %% experiment="divergences"
@atelier.experiment(needs=[kl_divergence])
def divergences():
    """Quatre couples de lois, et leurs deux divergences."""
    couples = {
        "les mêmes": ([0.5, 0.25, 0.25], [0.5, 0.25, 0.25]),
        "un peu différentes": ([0.5, 0.25, 0.25], [0.4, 0.3, 0.3]),
        "P croit possible ce que Q exclut": ([0.98, 0.01, 0.01], [0.5, 0.5, 0.0]),
        "Q croit possible ce que P exclut": ([0.5, 0.5, 0.0], [0.98, 0.01, 0.01]),
    }
    pairs = {name: tuple(map(torch.tensor, couple)) for name, couple in couples.items()}
    return [(n, p, q, kl_divergence(p, q).item(), kl_divergence(q, p).item()) for n, (p, q) in pairs.items()]


# %%
ch4.divergences_table(divergences())

# %% [markdown]
# Jamais négative, nulle seulement entre deux lois égales, pas symétrique, et infinie quand $Q$ exclut ce que $P$ croit
# possible.
# <!-- claim: a_divergence_is_not_a_distance -->
# Un softmax ne donne jamais zéro tout à fait, mais un mot presque exclu coûte déjà très cher.

# %% [markdown]
# Le sens compte-t-il vraiment ? L'enseignant $P$ a deux façons de parler ; l'élève $Q$, trop simple, n'en peut avoir
# qu'une. Placez-le pour rendre la première divergence la plus petite possible, puis la seconde.

# %%
ch4.fit_by_hand(kl_divergence)


# %% experiment="two_directions"
@atelier.experiment(needs=[kl_divergence])
def two_directions():
    """La meilleure cloche dans chaque sens, cherchée sur une grille : sens → (centre, largeur, nats)."""
    centres, widths = [c / 10 for c in range(-40, 41)], [w / 10 for w in range(4, 41)]
    teacher, students = ch4.bells(centres, widths)
    settings, found = list(itertools.product(centres, widths)), {}
    for name, values in {
        "D(P ‖ Q)": kl_divergence(teacher.expand_as(students), students),
        "D(Q ‖ P)": kl_divergence(students, teacher.expand_as(students)),
    }.items():
        best = int(values.argmin())
        found[name] = (*settings[best], values[best].item())
    return found


# %%
ch4.plot_two_directions(two_directions())

# %% [markdown]
# Avec $D(P \,\|\, Q)$, l'élève **couvre** tout ce que l'enseignant croit possible (*mode covering*), quitte à croire
# aussi ce qui est entre les deux. Avec $D(Q \,\|\, P)$, il **choisit** une façon de parler et ignore l'autre (*mode
# seeking*).
# <!-- claim: one_direction_covers_the_other_chooses -->
# La distillation de Hinton prend la première. Pour un élève qui écrit, d'autres ont défendu la seconde (MiniLLM, Gu et
# al., 2024) : vous l'essaierez en 4.14.
#
# ??? q="cover_or_seek"
#
# ## 4.5 Tailler l'élève
#
# On pourrait partir de poids tirés au hasard. Plus économe : **hériter**. L'élève reçoit les tables de Colibri, sa
# dernière normalisation, et quelques-uns de ses blocs. DistilBERT (Sanh et al., 2019) prend un bloc sur deux.

# %%
atelier.bet("pair_kept", "S'il n'en faut garder que deux, sans rien apprendre, quels blocs de Colibri, 0 à 4 ?",
            options=("0 et 1", "0 et 2", "0 et 4", "3 et 4"))  # fmt: skip

# %% [markdown]
# ### ✎ student_layers


# %% exercise="student_layers"
def student_layers(n_teacher: int, n_student: int) -> list[int]:
    """Couches de l'enseignant données à l'élève : la première, la dernière, les autres
    régulièrement entre les deux.

    n_teacher, n_student : nombres de couches.
    Rend n_student numéros croissants, comptés à partir de 0, à égale distance les uns des autres à
    un arrondi près, au plus proche ; à mi-chemin exact entre deux couches, celle de numéro pair. Un
    élève d'une seule couche reçoit [0].
    Lève ValueError si n_student < 1 ou n_student > n_teacher.

    Source : Sanh et al., « DistilBERT », 2019, § 3 (une couche sur deux) ; la règle arrondie est
    celle du cours.
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

    teacher : GPT-2 de transformers, qui n'est pas modifié.
    layers : numéros (à partir de 0) des blocs à garder, tous différents, dans l'ordre où l'élève
    les aura.
    Rend un GPT2LMHeadModel en mode évaluation, à len(layers) blocs : ces blocs, les plongements des
    jetons et des positions et le dernier LayerNorm de l'enseignant, **copiés** (aucun tenseur n'est
    partagé avec lui) ; sa configuration annonce le bon nombre de blocs (n_layer) ; sa tête est liée
    à sa propre table des jetons, comme dans tout GPT-2 ; il sait se servir d'un cache K/V.

    Source : Sanh et al., « DistilBERT », 2019, § 3 (un élève initialisé avec les couches de son
    enseignant).
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


# %% experiment="depths_before"
@atelier.experiment(needs=[build_student, student_layers])
def depths_before():
    """Des élèves de toutes les profondeurs, sans leçon : blocs → lesquels, paramètres, perplexité."""
    found = {}
    for n in range(5, 0, -1):
        student = build_student(colibri, student_layers(5, n))
        found[n] = {
            "lesquels": student_layers(5, n),
            "paramètres": student.num_parameters(),
            "perplexité": perplexity(student),
        }
    return found


# %%
ch4.depths_table(depths_before(), extract_tokens)

# %% [markdown]
# Avec tous ses blocs, l'élève est Colibri : c'est votre vérification. Le nombre de paramètres baisse peu à peu, la
# perplexité s'envole.
# <!-- claim: perplexity_soars_as_blocks_go -->
# Les tables, elles, ne rétrécissent pas : dans un si petit modèle, elles pèsent lourd (chapitre 1).

# %% [markdown]
# La règle de `student_layers` est commode. Est-elle bonne ? Toutes les façons de garder deux blocs, puis quatre :


# %% experiment="choices_before"
@atelier.experiment(needs=[build_student], full={"tokens": extract_tokens})
def choices_before(sizes=(2, 4), tokens=extract_tokens // 4):
    """Perplexité, sans leçon, de tous les élèves de deux et de quatre blocs : blocs gardés → perplexité."""
    choices = [kept for size in sizes for kept in itertools.combinations(range(5), size)]
    found = {kept: perplexity(build_student(colibri, list(kept)), tokens) for kept in choices}
    return {"jetons": tokens, "perplexités": found}


# %%
by_choice = choices_before()
best_pair = ch4.plot_choices(by_choice, 2)
atelier.settle("pair_kept", f"{best_pair[0]} et {best_pair[1]}")
best_four = ch4.plot_choices(by_choice, 4)

# %% [markdown]
# Un bloc ne sert pas seul : il lit ce que les précédents ont écrit. Parmi les paires, le premier et le dernier
# l'emportent de loin.
# <!-- claim: the_first_and_the_last_are_the_best_pair -->
# Pour retirer un seul bloc, en revanche, la règle se trompe : elle retire le bloc 2, quand c'est le 3 qui coûte le
# moins.
# <!-- claim: block_3_costs_the_least -->
# Une règle de position ne connaît pas le modèle ; le chapitre 5 mesurera ce que vaut un bloc.

# %% [markdown]
# Et à l'oreille ? Un début de phrase, continué par Colibri, puis par l'élève des blocs 0 et 4.


# %% experiment="sentences_before"
@atelier.experiment(needs=[build_student])
def sentences_before(start="La demande doit être", n_new=24):
    """Une suite, chaque jeton tiré parmi les vingt plus probables."""
    pair = build_student(colibri, [0, 4])
    return {"Colibri": ch4.continuation(colibri, start, n_new), "l'élève": ch4.continuation(pair, start, n_new)}


# %%
said_before = sentences_before()
ch4.sentences_table("La demande doit être", said_before)

# %% [markdown]
# ## 4.6 La perte douce
#
# L'objectif de la diapositive, « minimizing KL divergence between teacher output and student output » : la divergence
# de l'enseignant à l'élève, l'un et l'autre adoucis à la même température $T$. Hinton la multiplie par $T^2$.
#
# D'où sort ce $T^2$ ? Sans lui, le gradient par rapport au logit $z_i$ de l'élève est $(q_i - p_i)/T$, où $p$ et $q$
# sont les lois adoucies de l'enseignant et de l'élève : une division par $T$. La seconde se cache dans $q_i - p_i$ :
# quand $T$ est grand, les deux lois se rapprochent de la loi uniforme, et leur écart devient proportionnel à $1/T$.

# %%
atelier.bet("gradient_shrinks", "Sans ce facteur, par combien le gradient est-il divisé entre T = 1 et T = 32 ?")

# %% [markdown]
# ### ✎ distillation_loss


# %% exercise="distillation_loss"
def distillation_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 2.0
) -> torch.Tensor:
    """Perte douce : T² fois la divergence de l'enseignant à l'élève, l'un et l'autre adoucis à la
    température T.

    student_logits, teacher_logits : (…, V) flottants de même forme, au moins deux axes ; pas encore
        des probabilités. temperature : T > 0, sans unité.
    Rend un tenseur à 0 dimension, en nats, T² compris : la moyenne sur **toutes** les positions
    (tous les axes sauf le dernier). Il se dérive par rapport à student_logits ; aucun gradient ne
    va à teacher_logits.

    Source : Hinton, Vinyals et Dean, « Distilling the Knowledge in a Neural Network », 2015, § 2.
    """
    ### BEGIN SOLUTION
    teacher = torch.log_softmax(teacher_logits.detach() / temperature, dim=-1)
    student = torch.log_softmax(student_logits / temperature, dim=-1)
    divergence = (teacher.exp() * (teacher - student)).sum(dim=-1)
    return temperature**2 * divergence.mean()
    ### END SOLUTION


# %% [markdown]
# $$ \mathcal L_{\text{doux}} = T^2 \cdot D_{\mathrm{KL}}\big(p^{\text{enseignant}}(T) \,\|\, p^{\text{élève}}(T)\big) $$
#
# Voici son gradient, sur du vrai texte, avec $T^2$ et sans lui.


# %% experiment="gradient_sizes"
@atelier.experiment(needs=[build_student, distillation_loss])
def gradient_sizes(temperatures=(0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)):
    """Le gradient de la perte douce, sur du vrai texte : T → (norme, cosinus avec l'écart des logits centrés)."""
    with torch.no_grad():
        given, target = (m(unread_ids[:4]).logits.flatten(0, 1) for m in (build_student(colibri, [0, 4]), colibri))
    gap = given - target
    gap, found = gap - gap.mean(-1, keepdim=True), {}
    for t in temperatures:
        z = given.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(distillation_loss(z, target, float(t)), z)
        cosine = F.cosine_similarity(gradient.flatten(), gap.flatten(), dim=0)
        found[t] = (gradient.norm().item(), cosine.item())
    return found


# %%
gradients_found = gradient_sizes()
ch4.plot_gradients(gradients_found)
atelier.settle("gradient_shrinks", gradients_found[1][0] / (gradients_found[32][0] / 32**2))

# %% [markdown]
# Jusqu'à T = 2, puis à partir de T = 8, la courbe bleue bouge peu : $T^2$ compense ce que la division avait pris. Entre
# les deux, elle descend une marche, d'un facteur dix environ : la probabilité quitte quelques mots pour s'étaler sur
# les 4 096, et le gradient avec elle. La courbe rouge, elle, tombe de plus de dix mille fois.
# <!-- claim: t_squared_keeps_the_order_of_magnitude -->
# À droite, une seconde chose : quand $T$ grandit, le gradient finit par pointer vers l'écart des **logits centrés**,
# leur moyenne ôtée. À haute température, distiller, c'est recopier les logits, à une constante près (Hinton et al.,
# 2015, § 2.1) ; à basse température, c'est écouter surtout les mots probables.
# <!-- claim: hot_gradients_match_logits -->

# %% [markdown]
# Faut-il donc absolument $T^2$ ? Adam divise chaque gradient par sa propre taille : il ne voit pas une perte multipliée
# par 16. Deux élèves, $T = 4$, l'un avec $T^2$, l'autre sans :


# %% experiment="adam_hides_it"
@atelier.experiment(needs=[build_student, distillation_loss])
def adam_hides_it(temperature=4.0, steps=10):
    """Perte, part à part, de deux élèves après dix pas d'Adam : avec T², et sans."""
    found = {}
    for name, factor in {"avec T²": 1.0, "sans T²": temperature**-2}.items():
        student = build_student(colibri, [0, 4])
        optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
        for ids in itertools.islice(atelier.windows(train_ids, 4, 128), steps):
            loss = factor * distillation_loss(student(ids).logits, whole_colibri(ids).logits, temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found[name] = atelier.evaluate_perplexity(student.eval(), max_tokens=extract_tokens).losses
    return found


# %%
adam_found = adam_hides_it()
ch4.adam_note(adam_found)

# %% [markdown]
# Avec Adam, une perte faite du seul terme doux apprend la même chose avec ou sans $T^2$.
# <!-- claim: adam_does_not_see_t_squared -->
# Le facteur sert à autre chose : à garder son sens au mélange avec le texte, et au seuil où l'on coupe un gradient trop
# grand.
#
# ??? q="t_squared"
#
# PyTorch a sa fonction, `F.kl_div`, et ses pièges. Elle veut d'abord l'**élève**, en log-probabilités ; l'enseignant
# ensuite. `reduction="mean"` divise aussi par $V$ ; `"batchmean"` divise par la taille du premier axe seulement.
# Laquelle retrouve votre perte, sur deux suites de trois positions ? (Pour la première, PyTorch prévient, en anglais.)


# %% experiment="torchs_own"
@atelier.experiment(needs=[distillation_loss])
def torchs_own(vocabulary=5):
    """La même divergence, par votre perte et par F.kl_div, de trois façons ; T = 1."""
    z = torch.randn(2, 2, 3, vocabulary, generator=torch.Generator().manual_seed(0))
    log_q, p = z[0].log_softmax(-1), z[1].softmax(-1)
    return {
        "votre perte": distillation_loss(z[0], z[1], 1.0).item(),
        'reduction="mean"': F.kl_div(log_q, p, reduction="mean").item(),
        'reduction="batchmean"': F.kl_div(log_q, p, reduction="batchmean").item(),
        'positions à la file, "batchmean"': F.kl_div(
            log_q.flatten(0, 1), p.flatten(0, 1), reduction="batchmean"
        ).item(),
    }


# %%
ch4.reductions_table(torchs_own())

# %% [markdown]
# On n'a pas à choisir entre le texte et l'enseignant : une part $\alpha$ de la perte va au terme doux, le reste au
# terme dur.
#
# Dans un modèle de langue, deux détails font échouer : le décalage d'un jeton, et les positions à ignorer, qui ne
# doivent compter ni pour l'un ni pour l'autre des deux termes.

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

    student_logits, teacher_logits : (B, T, V) flottants, un logit par mot après chaque jeton lu ;
    labels : (B, T) entiers, les jetons du texte, −100 là où il n'y a rien à prédire (une cible au
    moins est gardée).
        Les logits du rang t sont ceux du jeton t + 1 : la perte fait le décalage, pour ses deux
        termes.
    temperature : T > 0, sans unité ; alpha : part du terme doux, entre 0 et 1.
    Rend un tenseur à 0 dimension, en nats : alpha·doux + (1 − alpha)·dur, deux moyennes sur les
    mêmes positions, celles dont la cible labels[:, t + 1] n'est pas −100 ; doux est la perte de
    distillation (T² compris), dur l'entropie croisée, sans température. Aucun gradient ne va à
    teacher_logits.

    Source : Hinton, Vinyals et Dean, 2015, § 2 ; Sanh et al., « DistilBERT », 2019, § 2.
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
# $$ \mathcal L = \alpha\, \mathcal L_{\text{doux}} + (1 - \alpha)\, \mathcal L_{\text{dur}} $$
#
# ## 4.7 Un pas, puis une leçon
#
# Tout est là : un élève, un enseignant, une perte. Reste le pas d'apprentissage. Une question avant de l'écrire : dans
# quel mode l'enseignant doit-il lire, et que coûterait de l'oublier ?
#
# <details><summary>Réponse</summary>
#
# En mode évaluation et sans gradient. En mode apprentissage, son *dropout*, s'il en a un, lui ferait dire autre chose à
# chaque lecture ; avec un gradient, PyTorch garderait en mémoire tout ce qu'il calcule, pour rien.
#
# </details>

# %% [markdown]
# ### ✎ distill_step


# %% exercise="distill_step"
def distill_step(
    student: GPT2LMHeadModel,
    teacher: torch.nn.Module,
    input_ids: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    temperature: float = 1.0,
    alpha: float = 1.0,
) -> float:
    """Un pas d'apprentissage de l'élève devant son enseignant.

    student, teacher : modèles de langue de transformers ; input_ids : (B, T) entiers, du texte sans
    remplissage ;
    optimizer : celui des paramètres de l'élève ; temperature : T > 0 ; alpha : part du terme doux,
    entre 0 et 1.
    La perte est alpha·doux + (1 − alpha)·dur, où doux est T² fois la divergence de l'enseignant à
    l'élève, à la température T, et dur l'entropie croisée du jeton suivant ; deux moyennes sur
    toutes les positions, sauf la dernière de chaque suite, qui ne prédit rien.
    L'enseignant lit en mode évaluation, sans gradient, et aucun de ses poids ne change ; l'élève
    lit en mode apprentissage. Le gradient du pas est celui de ce lot, et de lui seul.
    Rend la perte d'avant le pas, un float, en nats.
    """
    ### BEGIN SOLUTION
    teacher.eval()
    student.train()
    with torch.no_grad():
        target = teacher(input_ids).logits
    loss = combined_loss(student(input_ids).logits, target, input_ids, temperature, alpha)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION


# %% [markdown]
# Une leçon, ce sont des pas. Lisez cette boucle, elle est à vous : le texte est celui de Colibri, dont la fin est
# gardée pour régler le taux d'apprentissage ; le taux monte sur les premiers pas, puis descend.

# %%
lesson_steps = atelier.scale().pick(essai=2, cpu=60, gpu=300)


def teach(student, step, steps, lr, seed=0, text=train_ids):
    """Une leçon : `steps` lots de quatre fenêtres de 128 jetons ; step(élève, lot, optimiseur) fait un pas."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, 1 + steps // 8, steps)
    for batch in itertools.islice(atelier.windows(text, 4, 128, seed), steps):
        step(student, batch, optimizer)
        schedule.step()
    return student.eval()


def soft_step(temperature=1.0, alpha=1.0, teacher=colibri):
    """Un pas devant un enseignant, avec votre distill_step."""
    return lambda student, ids, optimizer: distill_step(student, teacher, ids, optimizer, temperature, alpha)


@functools.cache
def kept_lesson(layers, lr, seed, steps):
    """Une leçon de Colibri, à T = 1 ; son élève est gardé : qui le redemande ne paie rien."""
    return teach(build_student(colibri, list(layers)), soft_step(), steps, lr, seed)


def soft_student(layers, lr, seed=0, steps=lesson_steps):
    """L'élève fait de ces blocs, après une leçon de Colibri."""
    return kept_lesson(layers, lr, seed, steps)


# %% [markdown]
# La première : soixante pas devant Colibri, $T = 1$. Comptez une vingtaine de secondes.


# %% experiment="first_lesson"
@atelier.experiment(needs=[build_student, distill_step])
def first_lesson(start="La demande doit être", n_new=24, lr=2e-3):
    """Ce qu'écrit l'élève des blocs 0 et 4 après sa leçon, et sa perplexité avant et après."""
    before, student = perplexity(build_student(colibri, [0, 4])), soft_student((0, 4), lr)
    return {"avant": before, "après": perplexity(student), "phrase": ch4.continuation(student, start, n_new)}


# %%
lesson = first_lesson()
ch4.sentences_table("La demande doit être", said_before | {"l'élève, après sa leçon": lesson["phrase"]})
ch4.lesson_note(lesson)

# %% [markdown]
# De plus d'une centaine à quelques dizaines.
# <!-- claim: one_lesson_changes_the_student -->
# Il reste loin de Colibri, mais il compose de nouveau. Le même élève aurait-il appris autant du texte seul ?

# %% [markdown]
# ## 4.8 Dures ou douces ?
#
# Pour comparer, il faut quatre précautions.
#
# - **Les mêmes fenêtres, les mêmes graines.** Deux élèves de même graine lisent les mêmes lots ; on regarde leurs
#   écarts, graine par graine, sur cinq graines.
# - **Un taux pour chacun.** Le meilleur taux des étiquettes dures n'est pas forcément celui des douces.
# - **Un seul changement à la fois.** $T$ est un réglage : une comparaison faite au seul $T = 2$ ne dit rien des
#   étiquettes.
# - **La bonne mesure.** La perplexité juge l'élève sur le texte. L'imitation se mesure contre l'enseignant : leur
#   divergence, et la part des positions où ils ont le même premier choix, sur un texte neuf.


# %%
def loss_step(loss_of):
    """Un pas qui fait baisser loss_of(élève, lot)."""

    def step(student, ids, optimizer):
        loss = loss_of(student.train(), ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def text_loss(student, ids):
    """Étiquettes dures : l'entropie croisée du jeton suivant."""
    return F.cross_entropy(student(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


hard_step = loss_step(text_loss)


def labels_step(labels, teacher):
    """Un pas d'étiquettes (T, α)."""
    temperature, alpha = labels
    return hard_step if alpha == 0 else soft_step(temperature, alpha, teacher)


@functools.lru_cache(maxsize=1)
def remembered(seed):
    """Colibri, qui se souvient de ce qu'il a répondu aux lots de cette graine."""
    return ch4.Remembering(colibri)


@functools.cache
def labelled_student(labels, seed):
    """L'élève de blocs 0 et 4 après une leçon d'étiquettes (T, α), à leur taux ; gardé pour la suite."""
    if labels == (1.0, 1.0):
        return soft_student((0, 4), label_rate[labels], seed)  # graine 0 : l'élève de la première leçon
    step = labels_step(labels, remembered(seed))
    return teach(build_student(colibri, [0, 4]), step, lesson_steps, label_rate[labels], seed)


@torch.no_grad()
def tuning_perplexity(student):
    """Perplexité sur le texte de réglage : ni lu par les élèves, ni employé pour les juger."""
    losses = [text_loss(student, ids) for ids in tuning_ids.split(8)]
    return torch.stack(losses).mean().exp().item()


# %% [markdown]
# D'abord les taux. (`Remembering` garde les réponses de Colibri : deux élèves qui lisent les mêmes lots ne le font lire
# qu'une fois.) Pour ne pas vous faire attendre, cette grille et les suivantes sont celles de l'auteur ; `label_rates()`
# en refait une colonne, en une minute.


# %% experiment="label_rates"
@atelier.experiment(needs=[build_student, distill_step], full={"rates": (5e-4, 1e-3, 2e-3, 4e-3)})
def label_rates(rates=(4e-3,), temperatures=(1.0, 2.0, 4.0), seed=100):
    """Perplexité sur le texte de réglage d'un élève de blocs 0 et 4 : (étiquettes, taux) → perplexité."""
    teacher, found = ch4.Remembering(colibri), {}
    every = [(1.0, 0.0), *((t, 1.0) for t in temperatures)]
    for labels, lr in itertools.product(every, rates):
        student = build_student(colibri, [0, 4])
        found[labels, lr] = tuning_perplexity(teach(student, labels_step(labels, teacher), lesson_steps, lr, seed))
    return found


# %%
ch4.rates_table(label_rates.authors() or label_rates(), None)

# %% [markdown]
# Sur cette grille, et pour cette graine, les douces veulent un taux deux fois plus grand que les dures, à toute
# température.
# <!-- claim: soft_labels_want_a_larger_rate -->
# Un seul taux pour tous en aurait désavantagé un. (Les mélanges, à α = 0,5, prendront le taux des douces : nous ne
# l'avons pas réglé pour eux.)

# %%
every_label = [(1.0, 0.0), *itertools.product((1.0, 2.0, 4.0), (0.5, 1.0))]
label_rate = {labels: 2e-3 for labels in every_label} | {(1.0, 0.0): 1e-3}

# %% [markdown]
# Les notes, maintenant. À la perplexité et à l'imitation s'ajoute la **calibration** : un modèle est bien calibré si,
# parmi les fois où il annonce 70 %, il a raison 70 fois sur 100. On range les positions par tranches de confiance, la
# probabilité du premier choix ; l'**ECE** (*expected calibration error*, Guo et al., 2017) est la moyenne, pondérée par
# le nombre de jetons de chaque tranche, de la valeur absolue de l'écart entre confiance et justesse.


# %%
@torch.no_grad()
def marks(student):
    """Un élève sur un texte que personne n'a lu : sa perplexité, ce qui le sépare de Colibri, sa calibration."""
    gaps, same, sure, right = [], [], [], []
    for ids in unread_ids.split(8):
        teacher, own = (model(ids).logits[:, :-1].log_softmax(-1) for model in (whole_colibri, student))
        confidence, choice = own.max(-1)
        gaps.append((teacher.exp() * (teacher - own)).sum(-1).flatten())
        same.append((choice == teacher.argmax(-1)).flatten())
        sure.append(confidence.exp().flatten())
        right.append((choice == ids[:, 1:]).flatten())
    bins = ch4.confidence_bins(torch.cat(sure), torch.cat(right).float())
    return {
        "perplexité": perplexity(student),
        "KL": torch.cat(gaps).mean().item(),
        "accord": torch.cat(same).float().mean().item(),
        "ECE": sum(share * abs(confidence - right) for confidence, right, share in bins),
        "tranches": bins,
    }


# %% experiment="labels_compared"
@atelier.experiment(needs=[build_student, distill_step], full=five_seeds | {"labels": every_label})
def labels_compared(labels=((1.0, 0.0), (1.0, 1.0)), seeds=(0,)):
    """Élèves de blocs 0 et 4, notés graine par graine : (T, α) → notes."""
    found = {setting: [] for setting in labels}
    for seed, setting in itertools.product(seeds, labels):
        found[setting].append(marks(labelled_student(setting, seed)))
    return {"pas": lesson_steps, "notes": found}


# %%
labels_here, labels_author = labels_compared(), labels_compared.authors()
notes_here, notes_author = (ch4.named(r["notes"]) for r in (labels_here, labels_author or labels_here))
ch4.notes_table(notes_here, notes_author, "dures", "Élèves de blocs 0 et 4, soixante pas")
atelier.settle("who_teaches_best", ch4.who_taught_best(labels_author or labels_here))
atelier.settle("does_heat_help", ch4.what_heat_did(labels_author or labels_here))

# %% [markdown]
# À pas égaux, Colibri enseigne mieux que le texte, à T = 1.
# <!-- claim: soft_beats_hard_at_equal_steps -->
# Il se fait aussi mieux imiter : la divergence est plus petite, et les premiers choix plus souvent les mêmes.
# <!-- claim: soft_imitates_better -->
# L'élève reste pourtant loin de son maître : plus d'un nat les sépare, et deux fois sur trois ils ne choisissent pas le
# même mot.
# <!-- claim: students_stay_far_from_their_teacher -->
#
# Quant à la température, sans étiquettes dures, elle nuit : T = 2 fait moins bien que T = 1.
# <!-- claim: heat_hurts -->
# On ne peut même plus l'y départager des étiquettes dures : qui n'aurait essayé que T = 2 aurait conclu que Colibri
# n'apprend rien de plus que le texte.
# <!-- claim: at_t_2_soft_and_hard_cannot_be_told_apart -->
# Pourquoi ? Les étiquettes de Colibri hésitent déjà ; les adoucir, c'est noter l'élève sur des milliers de mots qui
# n'arrivent pas. C'est notre lecture ; l'usage la suit : `generalized_jsd_loss`, la perte de `GKDTrainer` dans TRL,
# prend T = 1 d'office.

# %% [markdown]
# Et la calibration ? Un point sous la diagonale : le modèle se croyait plus sûr qu'il ne l'est ; au-dessus, il était
# trop modeste. Plus un disque est grand, plus de jetons y tombent.

# %%
shown = {"Colibri": marks(colibri)} | {name: notes[0] for name, notes in notes_author.items() if "les deux" not in name}
ch4.plot_calibration(shown)
ch4.plot_map((labels_author or labels_here)["notes"])

# %% [markdown]
# À T = 1, les étiquettes douces n'ont rien perdu en calibration : on ne peut pas départager leur ECE de celle des
# dures. À T = 2, elle fait plus que doubler.
# <!-- claim: heat_spoils_calibration -->
# L'élève y est noté sur des lois adoucies, et consulté à T = 1, où rien ne l'obligeait à être juste.
#
# Sur la carte, où la température nuit-elle à la perplexité, et où ne nuit-elle pas ?
#
# <details><summary>Réponse</summary>
#
# Sur la ligne du haut, sans étiquettes dures. À α = 0,5, ni T = 2 ni T = 4 ne font moins bien que T = 1 : le texte, qui
# n'a pas de température, retient l'élève.
# <!-- claim: heat_is_harmless_beside_text -->
#
# </details>

# %% [markdown]
# ### Pourquoi une étiquette douce enseigne plus vite
#
# Le texte ne donne qu'un mot. Si ce mot est un tirage, son gradient pointe en moyenne là où pointe celui de l'étiquette
# douce, mais en moyenne seulement. Vérifions : sur un lot, le gradient de l'étiquette douce, comparé à celui que
# donnent 1, 4, 16… mots tirés de Colibri à chaque position, et à celui du texte.


# %%
def towards(student, ids, targets):
    """Gradient, d'un seul tenant, de l'entropie croisée contre ces lois (positions, V)."""
    log_q = student(ids).logits[:, :-1].flatten(0, 1).log_softmax(-1)
    loss = -(targets * log_q).sum(-1).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(student.parameters()))])


# %% experiment="draws_from_teacher"
@atelier.experiment(needs=[build_student, distill_step])
def draws_from_teacher(draws=(1, 4, 16, 64), seed=0):
    """Cosinus avec le gradient de l'étiquette douce : (élève, mots tirés de Colibri, ou « texte ») → cosinus."""
    ids, generator, found = unread_ids[:4], torch.Generator().manual_seed(seed), {}
    with torch.no_grad():
        p = colibri(ids).logits[:, :-1].flatten(0, 1).softmax(-1)
    chosen = {n: torch.multinomial(p.cpu(), n, replacement=True, generator=generator) for n in draws}
    chosen["texte"] = ids[:, 1:].flatten()[:, None].cpu()
    for when, student in {"avant": build_student(colibri, [0, 4]), "après": soft_student((0, 4), 2e-3)}.items():
        soft = towards(student, ids, p)
        for what, words in chosen.items():
            share = torch.full(words.shape, 1 / words.shape[1], device=p.device)
            targets = torch.zeros_like(p).scatter_add(1, words.to(p.device), share)
            found[when, what] = F.cosine_similarity(soft, towards(student, ids, targets), dim=0).item()
    return found


# %%
ch4.draws_table(draws_from_teacher())

# %% [markdown]
# Au début, toute étiquette montre le chemin. Une fois le plus gros appris, un mot par position en dévie davantage ;
# plus on en tire, plus leur direction devient celle de l'étiquette douce.
# <!-- claim: hard_labels_are_noisy_soft_ones -->
# Et le mot du texte s'y comporte comme un tirage de Colibri, un seul.
# <!-- claim: a_word_of_the_text_is_like_one_draw -->

# %% [markdown]
# ### À durée égale
#
# À pas égaux, on fait cadeau du temps de Colibri, qui lit chaque lot lui aussi. D'après le chapitre 2, un pas de
# l'élève demande $6N_{\text{élève}}$ opérations par jeton, et une lecture de Colibri $2N$. Combien de pas d'étiquettes
# dures vaut donc un pas d'étiquettes douces ?


# %% experiment="step_times"
@atelier.experiment(needs=[build_student, distill_step])
def step_times(repeats=9):
    """Durées d'un pas, en secondes : du texte, devant Colibri, devant ses réponses gardées."""
    batch, found = next(atelier.windows(train_ids, 4, 128)), {}
    ways = {"dures": hard_step, "douces": soft_step(), "douces, gardées": soft_step(teacher=ch4.Remembering(colibri))}
    for name, step in ways.items():
        student = build_student(colibri, [0, 4])
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5)
        found[name] = atelier.call_seconds(lambda: step(student, batch, optimizer), repeats)
    return found


# %%
pair_size = ch4.fresh_student(colibri, 2, seed=0).num_parameters()  # ce que compte un élève de deux blocs
teaching_cost = ch4.step_cost(step_times(), student=pair_size, teacher=colibri.num_parameters())

# %% [markdown]
# Le compte oublie la perte elle-même, que l'on calcule sur 4 096 mots. Donnons aux étiquettes dures deux fois plus de
# pas : au chronomètre de l'auteur, c'est plus que leur part.
# <!-- claim: a_taught_step_costs_less_than_two -->
# (Ses résultats, encore ; `hard_for_longer()` en refait une graine.)


# %% experiment="hard_for_longer"
@atelier.experiment(needs=[build_student], full=five_seeds | {"times": (2.0,)})
def hard_for_longer(times=(2.0,), seeds=(0,)):
    """Perplexité d'élèves d'étiquettes dures à qui l'on donne plus de pas : combien de fois plus → une par graine."""
    found = {longer: [] for longer in times}
    for longer, seed in itertools.product(times, seeds):
        student = build_student(colibri, [0, 4])
        teach(student, hard_step, round(longer * lesson_steps), label_rate[1.0, 0.0], seed)
        found[longer].append(perplexity(student))
    return found


# %%
longer = hard_for_longer.authors() or hard_for_longer()
ch4.longer_table(longer, (labels_author or labels_here)["notes"])

# %% [markdown]
# Avec deux fois plus de pas, les étiquettes dures rattrapent les douces : on ne peut plus les départager.
# <!-- claim: twice_the_steps_catch_up -->
# L'avantage à pas égaux était net ; à durée égale, il n'en reste donc presque rien. C'est la question à poser à toute
# courbe de distillation : qu'est-ce qui est tenu égal ? Les pas, les jetons, la durée, ou rien ?

# %% [markdown]
# Sauf si l'enseignant ne travaille qu'une fois : c'est le « douces, gardées » du tableau, où ses réponses resservent à
# tous les élèves. Elles pèsent lourd : c'est le sujet de 4.12.
#
# ## 4.9 Et sans héritage ?
#
# L'élève a hérité de deux blocs et des tables. Et s'il part de poids tirés au hasard ?
#
# ??? q="random_start"

# %%
random_labels = {"dures": (1.0, 0.0), "douces, T = 1": (1.0, 1.0), "douces, T = 2": (2.0, 1.0)}


# %% experiment="random_rates"
@atelier.experiment(needs=[distill_step], full={"rates": (1e-3, 2e-3, 4e-3, 8e-3)})
def random_rates(rates=(4e-3,), seed=100):
    """Perplexité sur le texte de réglage d'un élève de deux blocs parti du hasard : (étiquettes, taux) → perplexité."""
    teacher, found = ch4.Remembering(colibri), {}
    for (name, labels), lr in itertools.product(random_labels.items(), rates):
        student = ch4.fresh_student(colibri, 2, seed)
        found[name, lr] = tuning_perplexity(teach(student, labels_step(labels, teacher), lesson_steps, lr, seed))
    return found


# %%
ch4.rates_table(random_rates.authors() or random_rates(), None)
random_rate = {"dures": 2e-3, "douces, T = 1": 2e-3, "douces, T = 2": 5e-4}

# %% [markdown]
# Voici leurs leçons (une seule ici, une quinzaine de secondes ; changez `names` pour les autres).


# %% experiment="random_start"
@atelier.experiment(needs=[distill_step], full=five_seeds | {"names": tuple(random_labels)})
def random_start(names=("douces, T = 1",), seeds=(0,)):
    """Perplexité d'élèves de deux blocs partis du hasard : étiquettes → une par graine."""
    found = {name: [] for name in names}
    for seed in seeds:
        teacher = ch4.Remembering(colibri)
        for name in names:
            student = ch4.fresh_student(colibri, 2, seed)
            teach(student, labels_step(random_labels[name], teacher), lesson_steps, random_rate[name], seed)
            found[name].append(perplexity(student))
    return {"pas": lesson_steps, "perplexités": found}


# %%
random_here, random_author = random_start(), random_start.authors()
ch4.seeds_table(
    random_here["perplexités"],
    random_author and random_author["perplexités"],
    "dures",
    "Élèves de deux blocs partis du hasard, soixante pas",
)

# %% [markdown]
# Sans héritage non plus, les étiquettes douces n'ont rien perdu : à T = 1, elles font mieux que les dures.
# <!-- claim: soft_wins_from_scratch_at_t_1 -->
# À T = 2, elles font moins bien : qui n'aurait essayé que celle-là aurait accusé l'étiquette, quand c'était la
# température.
# <!-- claim: t_2_was_the_culprit -->
# Ce cours s'y est d'ailleurs laissé prendre : une version passée de ce chapitre concluait que les étiquettes douces
# n'aidaient que les élèves qui héritent.
#
# Comparez aussi à 4.8 : en soixante pas, aucune étiquette ne rend ce que l'on perd à ne pas hériter.
# <!-- claim: inheriting_counts_more_than_labels -->

# %% [markdown]
# **Les blocs.** Après la leçon, le choix des deux blocs compte-t-il encore ?


# %% experiment="pairs_after"
@atelier.experiment(needs=[build_student, distill_step], full=five_seeds)
def pairs_after(seeds=(0,)):
    """Perplexité d'élèves des deux premiers blocs, après une leçon de Colibri : une par graine."""
    return [perplexity(soft_student((0, 1), label_rate[1.0, 1.0], seed)) for seed in seeds]


# %%
untaught = (choices_before.authors() or by_choice)["perplexités"]
ch4.pairs_table(pairs_after.authors() or pairs_after(), untaught, (labels_author or labels_here)["notes"])

# %% [markdown]
# L'écart de départ était immense ; soixante pas en effacent l'essentiel, pas tout.
# <!-- claim: a_better_start_still_shows -->

# %% [markdown]
# ### Et si la leçon dure ?
#
# Soixante pas, c'est court. En cent cinquante, la température nuit-elle encore, à la perplexité et à la calibration ?
# De nouveau, un taux réglé pour chacun, à cette durée. (C'est trop long pour vous faire attendre : voici les résultats
# de l'auteur, et `longer_lessons()` en refait une ligne, en une minute.)

# %%
long_steps = atelier.scale().pick(essai=2, cpu=150, gpu=600)
origins = {
    "hérité": lambda seed: build_student(colibri, [0, 4]),
    "hasard": lambda seed: ch4.fresh_student(colibri, 2, seed),
}
long_grids = {  # élargies jusqu'à ce que le meilleur taux ne soit plus au bord
    "hérité, dures": (5e-4, 1e-3, 2e-3),
    "hérité, douces, T = 1": (5e-4, 1e-3, 2e-3, 4e-3),
    "hérité, douces, T = 2": (5e-4, 1e-3, 2e-3, 4e-3),
    "hasard, dures": (5e-4, 1e-3, 2e-3, 4e-3),
    "hasard, douces, T = 1": (1e-3, 2e-3, 4e-3),
    "hasard, douces, T = 2": (1e-3, 2e-3, 4e-3),
}


def long_student(name, teacher, lr, seed, steps):
    """Un élève de deux blocs, de ce départ et de ces étiquettes, après une longue leçon."""
    origin, labels = name.split(", ", 1)
    return teach(origins[origin](seed), labels_step(random_labels[labels], teacher), steps, lr, seed)


# %% experiment="longer_rates"
@atelier.experiment(needs=[build_student, distill_step])
def longer_rates(names=tuple(long_grids), steps=long_steps, seed=100):
    """Perplexité sur le texte de réglage après une longue leçon : (départ et étiquettes, taux) → perplexité."""
    teacher, found = ch4.Remembering(colibri), {}
    for name in names:
        for lr in long_grids[name]:
            found[name, lr] = tuning_perplexity(long_student(name, teacher, lr, seed, steps))
    return found


# %%
ch4.rates_table(longer_rates.authors() or longer_rates(), None)
long_rate = dict(zip(long_grids, (1e-3, 2e-3, 2e-3, 1e-3, 2e-3, 2e-3), strict=True))


# %% experiment="longer_lessons"
@atelier.experiment(needs=[build_student, distill_step], full=five_seeds | {"names": tuple(long_grids)[3:]})
def longer_lessons(names=("hasard, douces, T = 1",), seeds=(0,), steps=long_steps):
    """Élèves de deux blocs après une longue leçon : départ et étiquettes → notes, une par graine."""
    found = {name: [] for name in names}
    for seed in seeds:
        teacher = ch4.Remembering(colibri)
        for name in names:
            found[name].append(marks(long_student(name, teacher, long_rate[name], seed, steps)))
    return {"pas": steps, "notes": found}


# %%
ch4.long_tables(longer_lessons.authors() or longer_lessons())

# %% [markdown]
# Parti du hasard, l'ordre est le même qu'en soixante pas : T = 1 devant les étiquettes dures, T = 2 derrière elles.
# <!-- claim: longer_lessons_keep_the_order -->
# Et la calibration dit comme en 4.8 : à T = 1, on ne peut pas la départager de celle des dures ; à T = 2, elle est
# plusieurs fois moins bonne.
# <!-- claim: longer_lessons_keep_the_calibration -->
# De l'élève qui hérite, nous n'avons à cette durée que la grille des taux, une graine : de quoi parier, pas conclure.

# %% [markdown]
# ## 4.10 À chaque taille son taux
#
# Un élève de quatre blocs est presque Colibri : il a moins à apprendre, et plus à perdre. Essayons plusieurs taux.

# %%
deeper = {"3 blocs": [0, 2, 4], "4 blocs": [0, 1, 2, 4]}


# %% experiment="size_rates"
@atelier.experiment(needs=[build_student, distill_step], full={"rates": (2.5e-4, 5e-4, 1e-3, 2e-3)})
def size_rates(rates=(1e-3,), seed=100):
    """Perplexité sur le texte de réglage : (blocs gardés, taux) → perplexité ; taux nul, avant la leçon."""
    teacher, found = ch4.Remembering(colibri), {}
    for name, layers in deeper.items():
        found[name, 0.0] = tuning_perplexity(build_student(colibri, layers))
        for lr in rates:
            student = teach(build_student(colibri, layers), soft_step(teacher=teacher), lesson_steps, lr, seed)
            found[name, lr] = tuning_perplexity(student)
    return found


# %%
ch4.rates_table(size_rates.authors() or size_rates(), None)
size_rate = {"3 blocs": 5e-4, "4 blocs": 5e-4}

# %% [markdown]
# Les deux grands élèves veulent ici un taux au moins deux fois plus petit que celui de deux blocs. À son taux à lui, la
# leçon n'apprend à peu près rien à celui de quatre.
# <!-- claim: larger_students_want_smaller_rates -->
# Sans cette ligne du tableau, on aurait conclu que distiller un grand élève ne sert à rien.


# %% experiment="sizes_compared"
@atelier.experiment(needs=[build_student, distill_step], full=five_seeds | {"names": tuple(deeper)})
def sizes_compared(names=("4 blocs",), seeds=(0,)):
    """De plus grands élèves : paramètres, perplexité avant la leçon, puis après, une par graine."""
    found = {}
    for name in names:
        student = build_student(colibri, deeper[name])
        found[name] = {"paramètres": student.num_parameters(), "avant": perplexity(student), "après": []}
        for seed in seeds:
            found[name]["après"].append(perplexity(soft_student(tuple(deeper[name]), size_rate[name], seed)))
    return {"Colibri": (colibri.num_parameters(), perplexity(colibri)), "élèves": found}


# %%
sizes_here, sizes_author = sizes_compared(), sizes_compared.authors()
two_blocks = (labels_author or labels_here)["notes"][1.0, 1.0]
ch4.sizes_table(sizes_here, sizes_author, two_blocks, pair_size)
ch4.plot_sizes(sizes_author or sizes_here, two_blocks, pair_size)

# %% [markdown]
# Quatre blocs sur cinq, choisis par leur effet et réglés pour eux : la leçon rend une part de ce que le bloc retiré
# avait pris, et l'élève s'approche de Colibri.
# <!-- claim: four_blocks_come_close -->
# Élaguer, puis distiller : c'est la recette des *Minitron* (Muralidharan et al., 2024), que le chapitre 5 reprend.

# %% [markdown]
# Ne comparez pas les rapports ligne à ligne : GLUE monte quand un modèle s'améliore, la perplexité descend ; DistilGPT2
# et son enseignant ont été fine-tunés sur WikiText-103 avant d'y être notés ; DistilBERT et DistilGPT2 ont appris des
# milliers de fois plus longtemps, d'enseignants de douze blocs, dont chacun pèse moins.

# %% [markdown]
# ## 4.11 « Distillation = model ensembling »
#
# La diapositive l'affirme, et en tire que l'on peut distiller vers un modèle de même architecture
# (*self-distillation*). Prenons l'affirmation au sérieux. Un **ensemble**, ce sont plusieurs modèles que l'on
# consulte tous, et dont on fait la moyenne. La moyenne de quoi ?

# %% [markdown]
# ### ✎ ensemble_probs


# %% exercise="ensemble_probs"
def ensemble_probs(logits: torch.Tensor) -> torch.Tensor:
    """Loi d'un ensemble de modèles : la moyenne de leurs probabilités.

    logits : (M, …, V) flottant, les logits de M modèles pour les mêmes positions, éventuellement
    très grands.
    Rend (…, V), du type de logits, de somme 1 sur le dernier axe, sans nan. Chaque modèle compte
    autant.

    Source : Hinton, Vinyals et Dean, 2015, § 1 ; Dietterich, « Ensemble Methods in Machine
    Learning », 2000.
    """
    ### BEGIN SOLUTION
    return torch.softmax(logits, dim=-1).mean(dim=0)
    ### END SOLUTION


# %%
atelier.bet(
    "together", "Cinq élèves consultés ensemble feront-ils mieux que le meilleur des cinq ?", options=("oui", "non")
)

# %% [markdown]
# Cinq élèves d'étiquettes dures, qui ne diffèrent que par l'ordre de leurs fenêtres (deux, ici). La moyenne des lois,
# et, pour comparer, celle des logits : une autre loi, la moyenne **géométrique** des leurs, normalisée.


# %%
def hard_student(seed):
    """Un élève d'étiquettes dures."""
    return labelled_student((1.0, 0.0), seed)


def geometric_mean(logits):
    """La loi des logits moyens : la moyenne géométrique des lois, normalisée."""
    return logits.mean(0).softmax(-1)


# %% experiment="consulted_together"
@atelier.experiment(needs=[build_student, ensemble_probs], full={"members": range(10, 15)})
def consulted_together(members=(0, 10)):
    """Des élèves qui ne diffèrent que par leur graine : notes de chacun, puis de l'ensemble."""
    students = [hard_student(seed) for seed in members]
    found = {"chacun": [marks(student) for student in students]}
    for name, combine in {"moyenne des lois": ensemble_probs, "moyenne des logits": geometric_mean}.items():
        found[name] = marks(ch4.Ensemble(students, combine))
    return found


# %%
together_here, together_author = consulted_together(), consulted_together.authors()
ch4.together_table(together_here, together_author)
atelier.settle("together", ch4.ensemble_wins(together_author or together_here))

# %% [markdown]
# L'ensemble fait mieux que le meilleur de ses membres.
# <!-- claim: an_ensemble_beats_its_best_member -->
# Ils ont pourtant la même architecture, le même départ et le même texte ; seul l'ordre des fenêtres les distingue.
# Notre lecture : après si peu de pas, une part de l'erreur d'un élève est le bruit de ses derniers lots, et une moyenne
# l'efface.

# %% [markdown]
# L'ensemble coûte cinq passages à chaque usage. D'où l'idée de 2015 : le **distiller** dans un seul élève. Et le cas
# extrême : un élève dont l'enseignant est son pareil, ni plus grand ni meilleur. Tous partent ici des blocs 0 et 4.


# %% experiment="who_teaches"
@atelier.experiment(
    needs=[build_student, distill_step, ensemble_probs], full=five_seeds | {"names": ("un pareil", "trois pareils")}
)
def who_teaches(names=("un pareil",), seeds=(0,)):
    """Perplexité d'un élève de blocs 0 et 4 à qui enseignent un élève pareil à lui, ou trois : une par graine."""
    peers = [hard_student(10 + i) for i in range(3 if "trois pareils" in names else 1)]
    teachers = {"un pareil": peers[0], "trois pareils": ch4.Ensemble(peers, ensemble_probs)}
    found = {name: [] for name in names}
    for name, seed in itertools.product(names, seeds):
        step = soft_step(teacher=teachers[name])
        student = teach(build_student(colibri, [0, 4]), step, lesson_steps, label_rate[1.0, 1.0], seed)
        found[name].append(perplexity(student))
    return found


# %%
teachers_here, teachers_author = who_teaches(), who_teaches.authors()
rows = {
    "personne (étiquettes dures)": [n["perplexité"] for n in (labels_author or labels_here)["notes"][1.0, 0.0]],
    "personne, deux fois plus de pas": longer[2.0],
    "un élève pareil à lui": (teachers_author or teachers_here)["un pareil"],
    "trois élèves pareils à lui": (teachers_author or teachers_here).get("trois pareils", []),
    "Colibri": [n["perplexité"] for n in two_blocks],
}
ch4.plot_teachers({name: values for name, values in rows.items() if values},
                  (together_author or together_here)["moyenne des lois"]["perplexité"])  # fmt: skip
ch4.seeds_table(rows, rows, "personne (étiquettes dures)", "Qui enseigne à un élève de blocs 0 et 4", "qui enseigne")

# %% [markdown]
# Un pareil enseigne moins bien que le texte.
# <!-- claim: a_peer_teaches_less_than_the_text -->
# Trois font mieux qu'un, sans dépasser le texte.
# <!-- claim: three_peers_beat_one_not_the_text -->
# Seul Colibri, qui en sait davantage, y parvient.
# <!-- claim: only_colibri_beats_the_text -->
# L'auto-distillation ne se voit donc pas chez nous, en soixante pas : un élève qui n'a pas fini d'apprendre transmet
# aussi ce qu'il ne sait pas.

# %% [markdown]
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
# Aucun ne dit « = ».
#
# ??? q="ensemble_claim"

# %% [markdown]
# **Fin de l'essentiel.** La suite est pour aller plus loin ; le tableau et le bilan sont en 4.16.
#
# ## 4.12 Garder moins de chaque réponse
#
# On pourrait ne calculer les étiquettes douces qu'une fois et les garder sur disque. Colibri donne 4 096 logits par
# jeton. Combien pèserait, en FP16, un texte d'un million de jetons ?

# %%
ch4.kept_bytes(colibri.config.vocab_size, 10**6, (64, 32, 4))

# %% [markdown]
# On n'en garde donc souvent que les plus probables ; c'est aussi ce que rend, au mieux, un enseignant que l'on
# interroge à distance. Que faire alors de tous les autres ? On ne sait plus ce que l'enseignant pensait de chacun, mais
# on sait ce qu'il leur donnait **ensemble** : ce qui manque à la somme. Cela fait $k + 1$ événements, les $k$ jetons
# gardés et « un autre », et l'élève en a autant. `DistillationTrainer`, dans TRL, a ces deux réglages : `loss_top_k`,
# et `loss_add_tail`.

# %% [markdown]
# ### ✎ topk_kl


# %% exercise="topk_kl"
def topk_kl(
    student_logits: torch.Tensor,
    top_log_probs: torch.Tensor,
    top_ids: torch.Tensor,
) -> torch.Tensor:
    """Divergence de l'enseignant à l'élève, quand on n'a gardé de l'enseignant que ses k jetons les
    plus probables.

    student_logits : (…, V) flottants, tous les logits de l'élève ;
    top_log_probs : (…, k) flottants, les log-probabilités (en nats) des k jetons gardés, k < V ;
    top_ids : (…, k) entiers, leurs numéros dans le vocabulaire.
    Les événements comparés sont ces k jetons et un dernier, « n'importe quel autre », des deux
    côtés.
    Rend un tenseur à 0 dimension, en nats, du type de student_logits : la moyenne sur toutes les
    positions (tous les axes sauf le dernier). Il se dérive par rapport à student_logits.
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
# Quatre log-probabilités par jeton, sur 4 096. Deux façons de s'en servir : avec le reste, par votre `topk_kl` ; ou
# renormalisés, comme si ces quatre jetons étaient les seuls. Pariez.

# %%
atelier.bet("rest_or_not", "Le reste oublié, l'élève sera…", options=("aussi bon", "moins bon", "meilleur"))


# %%
def best_of(teacher, ids, k):
    """Ce que l'on garde des réponses d'un enseignant : ses k meilleures log-probabilités, et leurs numéros."""
    return teacher(ids).logits.log_softmax(-1).topk(k)


def with_rest(student, ids, teacher, k):
    """La perte de votre topk_kl : k jetons, et tous les autres réunis."""
    kept = best_of(teacher, ids, k)
    return topk_kl(student(ids).logits[:, :-1], kept.values[:, :-1], kept.indices[:, :-1])


def renormalised(student, ids, teacher, k):
    """La même, le reste oublié : les k jetons gardés font toute la loi, des deux côtés."""
    kept = best_of(teacher, ids, k)
    own = student(ids).logits.gather(-1, kept.indices)
    return distillation_loss(own[:, :-1], kept.values[:, :-1], 1.0)


# %%
ways_of_keeping = {"4, et le reste": (4, with_rest), "4, renormalisés": (4, renormalised)}


# %% experiment="kept_scores"
@atelier.experiment(
    needs=[build_student, distillation_loss, topk_kl], full=five_seeds | {"ways": tuple(ways_of_keeping)}
)
def kept_scores(ways=("4, et le reste",), seeds=(0,)):
    """Élèves à qui l'on n'a gardé que quelques log-probabilités par jeton : façon de garder → notes, une par graine."""
    found = {way: [] for way in ways}
    for seed in seeds:
        teacher = ch4.Remembering(colibri)
        for way in ways:
            k, loss = ways_of_keeping[way]
            step = loss_step(lambda student, ids: loss(student, ids, teacher, k))
            student = teach(build_student(colibri, [0, 4]), step, lesson_steps, label_rate[1.0, 1.0], seed)
            found[way].append(marks(student))
    return found


# %%
kept_here, kept_author = kept_scores(), kept_scores.authors()
ch4.kept_table(kept_here, kept_author, two_blocks)
atelier.settle("rest_or_not", ch4.rest_verdict(kept_author or kept_here))

# %% [markdown]
# Quatre log-probabilités et le reste ne valent pas les 4 096 : l'élève perd tout l'avantage des étiquettes douces, et
# se retrouve au niveau des dures.
# <!-- claim: four_and_the_rest_are_worth_hard_labels -->
# Il doute aussi moins bien : son ECE est plus grande que celle de qui a tout reçu.
# <!-- claim: keeping_four_costs_calibration -->
# Mais renormaliser est bien pire : la perplexité est plusieurs fois plus haute.
# <!-- claim: forgetting_the_rest_is_far_worse -->
# Notre lecture : noté sur quatre jetons seulement, l'élève peut donner ce qu'il veut à tous les autres sans que rien ne
# le lui reproche. Le reste, lui, tient les comptes. Essayez 64 : c'est un nombre à changer dans `ways_of_keeping`.

# %% [markdown]
# ## 4.13 Réparer un Colibri trop arrondi
#
# À 3 bits par poids, l'arrondi du chapitre 3 abîme Colibri, même au pas choisi. L'enseignant est pourtant là, intact.
# ZeroQuant répare ainsi un modèle arrondi, bloc par bloc. Nous le ferons d'un coup, sur tout le modèle : à chaque
# passage, les poids sont arrondis ; à chaque pas, ce sont les poids gardés en FP32 qui bougent.
#
# ??? q="straight_through"

# %%
ch4.straight_through()

# %% [markdown]
# L'**estimateur direct** (*straight-through estimator*, Bengio et al., 2013) emploie l'escalier en avant et lui
# prête une pente de 1 en arrière. En PyTorch, une ligne : la dernière de `forward`.


# %%
class Rounding(torch.nn.Module):
    """Un poids (entrée, sortie) arrondi à chaque usage ; le pas de chaque sortie est choisi une fois pour toutes."""

    def __init__(self, weight, bits):
        super().__init__()
        self.top = 2 ** (bits - 1)
        self.register_buffer("step", ch4.chosen_step(weight.detach(), bits))

    def forward(self, w):
        rounded = (w / self.step).round().clamp(-self.top, self.top - 1) * self.step
        return w + (rounded - w).detach()  # la valeur de l'arrondi, le gradient de w


def with_rounding(model, bits):
    """Une copie dont les couches linéaires arrondissent leurs poids à chaque passage."""
    copied = copy.deepcopy(model)
    for layer in [layer for layer in copied.modules() if isinstance(layer, Conv1D)]:
        parametrize.register_parametrization(layer, "weight", Rounding(layer.weight, bits))
    return copied


# %%
atelier.bet("repair_wins", "Réparé en quarante pas, un Colibri sur 3 bits verra sa perplexité multipliée par combien ?")
repair_steps = atelier.scale().pick(essai=2, cpu=40, gpu=200)


# %% experiment="repair_rates"
@atelier.experiment(needs=[distill_step], full={"rates": (2.5e-4, 5e-4, 1e-3, 2e-3)})
def repair_rates(rates=(5e-4,), bits=3, seed=100):
    """Perplexité sur le texte de réglage d'un Colibri arrondi, puis réparé : (étiquettes, taux) → perplexité."""
    teacher, found = ch4.Remembering(colibri), {("avant", 0.0): tuning_perplexity(with_rounding(colibri, bits))}
    for name, step in {"dures": hard_step, "douces": soft_step(teacher=teacher)}.items():
        for lr in rates:
            found[name, lr] = tuning_perplexity(teach(with_rounding(colibri, bits), step, repair_steps, lr, seed))
    return found


# %%
ch4.rates_table(repair_rates.authors() or repair_rates(), None)
repair_rate = {"dures": 2.5e-4, "douces": 5e-4}


# %%
@functools.cache
def repaired_student(labels, bits, seed):
    """Colibri sur `bits` bits, réparé par des étiquettes dures ou douces ; gardé pour la suite."""
    step = {"dures": hard_step, "douces": soft_step()}[labels]
    return teach(with_rounding(colibri, bits), step, repair_steps, repair_rate[labels], seed)


# %% experiment="repaired"
@atelier.experiment(needs=[distill_step], full=five_seeds | {"names": ("dures", "douces")})
def repaired(names=("douces",), bits=3, seeds=(0,)):
    """Perte, part à part, de Colibri, de Colibri arrondi, et de Colibri réparé : version, ou (étiquettes, graine)."""
    versions = {"Colibri": colibri, "arrondi": with_rounding(colibri, bits)}
    versions |= {(name, seed): repaired_student(name, bits, seed) for name in names for seed in seeds}
    return {name: atelier.evaluate_perplexity(v, max_tokens=extract_tokens).losses for name, v in versions.items()}


# %%
repaired_here, repaired_author = repaired(), repaired.authors()
atelier.settle("repair_wins", ch4.repaired_table(repaired_here, repaired_author))

# %% [markdown]
# En quarante pas, l'enseignant rend environ quatre dixièmes de ce que l'arrondi avait pris.
# <!-- claim: a_repair_gives_back_some -->
# À pas égaux, chacun à son taux, les étiquettes douces réparent un peu mieux que les dures.
# <!-- claim: soft_repairs_better_than_hard -->
# GPTQ, au chapitre 3, faisait mieux à 3 bits par canal, et sans un seul pas : comparez les rapports à Colibri.
# <!-- claim: gptq_still_does_better -->
# Mieux arrondir et réparer ne s'excluent pas : partez d'un Colibri passé par GPTQ, et réparez-le.

# %% [markdown]
# ## 4.14 Quand l'enseignant écrit, quand l'élève écrit
#
# Jusqu'ici, enseignant et élève lisent un livre. Un modèle de langue sait aussi écrire. Deux idées en naissent.
#
# **L'enseignant écrit** (*sequence-level distillation*, Kim et Rush, 2016). On lui fait écrire des textes une
# fois pour toutes, et l'élève les apprend comme des étiquettes dures. Plus de probabilités : il suffit de lire ce
# qu'un modèle répond, fût-il derrière une porte close et découpé en d'autres jetons que les vôtres. C'est ainsi
# qu'Alpaca (Taori et al., 2023) a appris de 52 000 réponses d'un modèle d'OpenAI, et que les petits
# DeepSeek-R1-Distill (2025) ont appris de 800 000 exemples, pour la plupart écrits par le grand. Reste à en avoir
# le droit : bien des licences interdisent d'entraîner un concurrent sur ce que le modèle répond.


# %%
@torch.no_grad()
def written_by(model, starts, n_new, seed):
    """Ce que `model` écrit à la suite de ces débuts : chaque jeton est tiré selon sa loi, à température 1."""
    generator, written, cache = torch.Generator().manual_seed(seed), [starts], None
    for _ in range(n_new):
        logits, cache = model(written[-1], cache, use_cache=True)[:2]
        chances = logits[:, -1].softmax(-1).cpu()
        written.append(torch.multinomial(chances, 1, generator=generator).to(starts.device))
    return torch.cat(written, dim=1)


# %%
written_tokens = atelier.scale().pick(essai=600, cpu=12_000, gpu=24_000)


# %% experiment="colibris_own_text"
@atelier.experiment(needs=[build_student], full=five_seeds | {"sources": ("livre", "Colibri"), "tokens": 24_000})
def colibris_own_text(sources=("Colibri",), seeds=(0,), tokens=written_tokens):
    """Élèves d'étiquettes dures, sur du vrai texte ou sur celui que Colibri a écrit : source → notes, par graine."""
    starts = next(atelier.windows(train_ids, tokens // 240, 16, seed=7))
    written = written_by(colibri, starts, 240, seed=7)[:, 16:].flatten().cpu()
    texts = {"livre": train_ids[: len(written)], "Colibri": written}
    found = {source: [] for source in sources}
    for source, seed in itertools.product(sources, seeds):
        student = build_student(colibri, [0, 4])
        teach(student, hard_step, lesson_steps, label_rate[1.0, 0.0], seed, texts[source])
        found[source].append(marks(student))
    return found


# %%
own_text = colibris_own_text.authors() or colibris_own_text()
ch4.notes_table(own_text, None, "livre", "Élèves d'étiquettes dures, soixante pas sur…")

# %% [markdown]
# À pas égaux, on ne peut pas départager l'élève qui a lu Colibri de celui qui a lu le livre, ni par la perplexité, ni
# par l'imitation.
# <!-- claim: reading_colibri_or_the_book_cannot_be_told_apart -->
# C'est peu et beaucoup : sans une seule probabilité, et sans le livre, cent textes tirés de l'enseignant ont suffi.
# Mais écrire est lent, jeton par jeton, et l'on n'a gardé de chaque loi qu'un tirage.

# %% [markdown]
# **L'élève écrit** (*on-policy distillation*). Un élève qui n'a lu que de bons textes n'a jamais vu ses propres fautes
# ; à l'usage, il écrit pourtant à la suite d'elles. On le laisse donc écrire, et l'enseignant note chacun de **ses**
# jetons. C'est GKD (Agarwal et al., ICLR 2024), MiniLLM (Gu et al., 2024), une étape de Qwen3 (2025), et le billet
# *On-Policy Distillation* de Thinking Machines (octobre 2025) ; `DistillationTrainer` et `GKDTrainer`, dans TRL, en
# font profession. Le sens de la divergence revient alors : couvrir, ou choisir ?
#
# Quatre suites à une même leçon : le texte, comme avant ; ses phrases, en couvrant ; ses phrases, en choisissant ; un
# pas sur le texte, un pas sur ses phrases, tour à tour. La note est celle qu'il cherche à faire baisser : sur ce que
# l'élève écrit, la divergence de l'élève à Colibri, jeton par jeton.

# %%
on_policy_steps = atelier.scale().pick(essai=2, cpu=30, gpu=200)
every_way = ("le texte, couvrir", "ses phrases, couvrir", "ses phrases, choisir", "tour à tour, choisir")


# %%
def judged(student, text):
    """Ce que l'élève écrit, vu par Colibri : leur divergence, la perte de Colibri, l'entropie de l'élève."""
    starts = next(atelier.windows(text.flatten().cpu(), atelier.scale().pick(essai=8, cpu=128, gpu=512), 16, seed=5))
    written = written_by(student, starts, 48, seed=5)
    with torch.no_grad():
        teacher, own = (m(written).logits[:, 15:-1].log_softmax(-1) for m in (colibri, student))
    gap = (own.exp() * (own - teacher)).sum(-1).mean().item()
    loss = -teacher.gather(-1, written[:, 16:, None]).mean().item()
    entropy = -(own.exp() * own).sum(-1).mean().item()
    return {"divergence": gap, "perte de Colibri": loss, "entropie": entropy}


def own_sentences_step(direction, seed):
    """L'élève continue seize débuts de seize jetons ; chaque jeton est noté par une divergence à Colibri, d'un sens."""
    seeds = itertools.count(1000 * seed)

    def loss_of(student, ids):
        written = written_by(student.eval(), ids.reshape(-1, 32)[:, :16], 48, next(seeds))
        own = student.train()(written).logits[:, 15:-1].log_softmax(-1)
        with torch.no_grad():
            teacher = colibri(written).logits[:, 15:-1].log_softmax(-1)
        p, q = (teacher, own) if direction == "couvrir" else (own, teacher)
        return (p.exp() * (p - q)).sum(-1).mean()

    return loss_step(loss_of)


def carried_on(way, lr, seed):
    """L'élève distillé, après une suite de sa leçon : sur le texte, sur ses phrases, ou tour à tour."""
    source, direction = way.split(", ")
    text, own, turn = soft_step(), own_sentences_step(direction, seed), itertools.count()

    def step(student, ids, optimizer):
        reads = source == "le texte" or (source == "tour à tour" and next(turn) % 2 == 0)
        (text if reads else own)(student, ids, optimizer)

    return teach(copy.deepcopy(soft_student((0, 4), label_rate[1.0, 1.0])), step, on_policy_steps, lr, seed)


# %% experiment="own_rates"
@atelier.experiment(
    needs=[build_student, distill_step], full={"rates": (1e-4, 3e-4, 1e-3, 2e-3, 4e-3), "ways": every_way}
)
def own_rates(rates=(2e-4,), ways=("ses phrases, choisir",), seeds=(100,)):
    """Divergence de l'élève à Colibri, à la suite du texte de réglage : (façon, taux) → une par graine."""
    found = {}
    for way, lr in itertools.product(ways, rates):
        found[way, lr] = [judged(carried_on(way, lr, seed), tuning_ids)["divergence"] for seed in seeds]
    return found


# %%
ch4.rates_table(own_rates.authors() or own_rates(), None, "Divergence, en nats, à la suite du texte de réglage")
own_rate = dict(zip(every_way, (1e-3, 1e-3, 2e-3, 1e-3), strict=True))


# %% experiment="own_sentences"
@atelier.experiment(needs=[build_student, distill_step], full=five_seeds | {"ways": every_way})
def own_sentences(ways=("ses phrases, choisir",), seeds=(0,)):
    """Un élève déjà distillé continue d'apprendre : façon → ce que Colibri dit de ses phrases, et sa perplexité."""
    start = soft_student((0, 4), label_rate[1.0, 1.0])
    found = {"départ": [judged(start, unread_ids) | {"perplexité": perplexity(start)}]}
    for way, seed in itertools.product(ways, seeds):
        student = carried_on(way, own_rate[way], seed)
        found.setdefault(way, []).append(judged(student, unread_ids) | {"perplexité": perplexity(student)})
    return found


# %%
ch4.own_sentences_table(own_sentences.authors() or own_sentences())

# %% [markdown]
# Le gain se voit. Qui a appris de ses propres phrases se rapproche de Colibri, dans un sens comme dans l'autre, et bien
# plus que qui a continué de lire.
# <!-- claim: own_sentences_bring_the_student_closer -->
# Le sens décide du reste. En couvrant, l'élève hésite davantage, et Colibri trouve ses phrases moins crédibles ; en
# choisissant, c'est l'inverse.
# <!-- claim: the_direction_decides_on_own_sentences -->
# Mais ne s'exercer que sur ses phrases se paie : la perplexité sur le vrai texte monte, de près de moitié quand on
# choisit.
# <!-- claim: own_sentences_alone_cost_perplexity -->
# Tour à tour, on a presque tout : la divergence de qui n'a fait que choisir, à ce que l'on peut départager, et la
# perplexité de qui n'a fait que lire.
# <!-- claim: taking_turns_keeps_both -->
# Cette part est un réglage de GKD (son $\lambda$). Le taux en est un autre : voyez le premier tableau, à $10^{-4}$
# comme à $4 \cdot 10^{-3}$, il restait moins du tiers du gain. Une version passée de ce chapitre, sans taux réglé, et à
# quatre phrases par pas au lieu de seize, avait conclu qu'il n'y en avait pas.
# <!-- claim: a_wrong_rate_hides_the_gain -->

# %% [markdown]
# ## 4.15 Ce que l'on ne mesure pas ici
#
# **L'écart de capacité** (*capacity gap*). Un enseignant meilleur n'est pas toujours un meilleur enseignant : s'il est
# trop grand pour l'élève, un intermédiaire aide (Mirzadeh et al., 2020). Busbridge et al. (*Distillation Scaling Laws*,
# 2025) en font une loi : à budget donné, il y a une taille d'enseignant à ne pas dépasser, et distiller ne l'emporte
# sur apprendre seul que si l'enseignant existe déjà, ou sert à plusieurs élèves.
#
# **Les couches cachées.** Rien n'oblige à n'imiter que la sortie. DistilBERT ajoute à sa perte un cosinus entre les
# états cachés des deux modèles ; TinyBERT (Jiao et al., 2020) aligne les états et les attentions, couche à couche ;
# MiniLM (Wang et al., 2020), les seules relations de la dernière attention, ce qui laisse l'élève libre de sa largeur.
#
# **L'imitation fidèle.** Stanton et al. (*Does Knowledge Distillation Really Work?*, 2021) l'ont mesurée comme vous en
# 4.8 : un bon élève peut rester loin de son enseignant.

# %% [markdown]
# ## 4.16 Où en est Colibri
#
# Trois lignes de plus au tableau : l'élève de deux blocs, celui de quatre, et le Colibri réparé, dont le fichier serre
# ses codes de 3 bits les uns contre les autres. (Les vôtres ont suivi la leçon du chapitre ; l'auteur a donné aux siens
# trois cents et cent cinquante pas : la ligne le dit.)


# %% experiment="row_two_blocks"
@atelier.experiment(needs=[build_student, distill_step], full={"steps": 300})
def row_two_blocks(steps=lesson_steps):
    """L'élève de blocs 0 et 4, après une leçon de Colibri, en FP16, au tableau."""
    student, size = ch4.half_file(soft_student((0, 4), label_rate[1.0, 1.0], 0, steps))
    what = f"deux blocs, {steps} pas de distillation, FP16"
    return atelier.save_variant("eleve-2-blocs", student, size, "ch4_distillation", what)


# %% experiment="row_four_blocks"
@atelier.experiment(needs=[build_student, distill_step], full={"steps": 150})
def row_four_blocks(steps=lesson_steps):
    """L'élève sans le bloc 3, après une leçon de Colibri, en FP16, au tableau."""
    student, size = ch4.half_file(soft_student((0, 1, 2, 4), size_rate["4 blocs"], 0, steps))
    what = f"quatre blocs, {steps} pas de distillation, FP16"
    return atelier.save_variant("eleve-4-blocs", student, size, "ch4_distillation", what)


# %% experiment="row_repaired"
@atelier.experiment(needs=[distill_step])
def row_repaired(bits=3):
    """Colibri sur 3 bits, réparé, ses codes serrés bit à bit, au tableau (le calcul reste en FP32)."""
    student, size = ch4.low_bit_file(repaired_student("douces", bits, 0), bits)
    what = f"poids sur {bits} bits, par canal, réparés par distillation, calcul en FP32"
    return atelier.save_variant(f"int{bits}-distille", student, size, "ch4_distillation", what)


# %%
for row in (row_two_blocks(), row_four_blocks(), row_repaired()):
    ch4.announce(row)

# %%
atelier.board(until="ch4_distillation")

# %% [markdown]
# À octets comparables, qui l'emporte, des bits ou des blocs ? Et à quoi sert alors de retirer des blocs ?
#
# <details><summary>Réponse</summary>
#
# Les bits : cinq blocs arrondis (« int4-gptq ») valent bien mieux que deux blocs exacts (« eleve-2-blocs »), pour des
# fichiers de même taille.
# <!-- claim: bits_beat_blocks_at_equal_bytes -->
# Mais un poids arrondi, calculé en FP32, demande toujours une multiplication ; un bloc retiré n'en demande plus. Et
# rien n'empêche d'arrondir l'élève.
#
# </details>

# %% [markdown]
# **Ce que vous savez maintenant.** Une étiquette douce dit ce qu'un texte tait ; une étiquette dure en est une version
# bruitée.
# <!-- claim: hard_labels_are_noisy_soft_ones -->
# La température est un réglage, à essayer comme les autres ; pour nos élèves de deux blocs, T = 1 l'emporte.
# <!-- claim: heat_hurts -->
# Ne l'apprenez pas par cœur : le chapitre 5 trouvera l'inverse sur un élève à peine entamé.
# $T^2$ garde son sens au mélange. Le sens de la divergence décide entre couvrir et choisir. Hériter compte plus que les
# étiquettes,
# <!-- claim: inheriting_counts_more_than_labels -->
# dont l'avantage se juge à durée égale, chacune à son taux, sur plusieurs graines. Un ensemble fait mieux que ses
# membres ; pour enseigner, il faut d'abord en savoir plus que le texte. Et vous savez le faire à un autre modèle :
# tailler l'élève, écrire la perte et le pas, régler le taux, mesurer l'imitation.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Hinton, Vinyals et Dean, *Distilling the Knowledge in a Neural Network*, 2015, arXiv 1503.02531 ·
# Kullback et Leibler, *On Information and Sufficiency*, 1951 · Sanh et al., *DistilBERT*, 2019, arXiv 1910.01108, et
# fiche de `distilgpt2` · Gu et al., *MiniLLM*, 2024, arXiv 2306.08543 · Guo et al., *On Calibration of Modern Neural
# Networks*, 2017, arXiv 1706.04599 · Stanton et al., *Does Knowledge Distillation Really Work?*, 2021, arXiv 2106.05945
# · Dietterich, *Ensemble Methods in Machine Learning*, 2000 · Furlanello et al., *Born-Again Neural Networks*, 2018,
# arXiv 1805.04770 · Allen-Zhu et Li, *Towards Understanding Ensemble, Knowledge Distillation and Self-Distillation in
# Deep Learning*, 2023, arXiv 2012.09816 · Bengio et al., *Estimating or Propagating Gradients Through Stochastic
# Neurons*, 2013, arXiv 1308.3432 · Yao et al., *ZeroQuant*, 2022, arXiv 2206.01861 · Sanh et al., *Movement Pruning*,
# 2020, arXiv 2005.07683 · Frantar et Alistarh, *SparseGPT*, 2023, arXiv 2301.00774 · Kim et Rush, *Sequence-Level
# Knowledge Distillation*, 2016, arXiv 1606.07947 · Taori et al., *Stanford Alpaca*, 2023 · DeepSeek-AI, *DeepSeek-R1*,
# 2025, arXiv 2501.12948 · Agarwal et al., *On-Policy Distillation of Language Models*, ICLR 2024, arXiv 2306.13649 ·
# équipe Qwen, *Qwen3 Technical Report*, 2025, arXiv 2505.09388 · Lu et Thinking Machines Lab, *On-Policy Distillation*,
# 2025 · Mirzadeh et al., *Improved Knowledge Distillation via Teacher Assistant*, 2020, arXiv 1902.03393 · Busbridge et
# al., *Distillation Scaling Laws*, 2025, arXiv 2502.08606 · Jiao et al., *TinyBERT*, 2020, arXiv 1909.10351 · Wang et
# al., *MiniLM*, 2020, arXiv 2002.10957
