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
# Dans ce chapitre, vous regardez ce qu'un fine-tuning change, vous écrivez LoRA, vous le posez dans Colibri, vous le
# refaites avec peft, la bibliothèque d'usage, et vous tranchez par la mesure une contradiction des diapositives.
#
# Comptez deux heures pour l'essentiel : les sections 8.1 à 8.8, et 8.12. Les exercices marqués « approfondissement »
# sont un bonus. Rien ne vous arrête : tant qu'un exercice n'est pas fait, les expériences qui en dépendent montrent le
# résultat de l'auteur et le disent.

# %%
import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch8

atelier.describe_machine()

# %% tags=["setup"]
import copy
import functools
import itertools
import math
import tempfile
import warnings
from pathlib import Path
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
fantasy = atelier.corpus_tokens("b_train")
extract_tokens = atelier.scale().pick(essai=256, cpu=2048, gpu=65536)
five_seeds = {"seeds": range(5)}


def losses_on(model, text="b_test", tokens=extract_tokens):
    """La perte d'un modèle, part à part, sur un extrait que rien n'a appris, et sur lequel rien n'a été réglé."""
    return atelier.evaluate_perplexity(model, text, max_tokens=tokens).losses


# %% experiment="before_lora"
@atelier.experiment()
def before_lora(tokens=extract_tokens):
    """Colibri devant ce qu'il connaît (A, l'administration) et ce qu'il n'a jamais lu (B, la fantasy)."""
    return {
        "jetons": tokens,
        "A": losses_on(colibri, "a_validation", tokens),
        "B": losses_on(colibri, "b_test", tokens),
    }


# %%
ch8.voices_note(before_lora())

# %% [markdown]
# Tout le chapitre tient dans l'écart de ces deux perplexités : le réduire, par le plus petit changement possible, sans
# abîmer la première.
# <!-- claim: fantasy_is_foreign -->

# %% [markdown]
# Les textes sont les mêmes d'un bout à l'autre : on apprend sur `b_train`, on règle les taux sur `b_validation`, on
# juge sur `b_test`, et l'oubli se lit sur `a_validation`. (Le tableau du cours lit un extrait quatre fois plus long :
# ses perplexités diffèrent un peu.)
#
# ## 8.1 Ce qu'un fine-tuning change
#
# Voici la boucle qui servira jusqu'à la fin. Rien de neuf depuis le chapitre 6 : un lot, une perte, un gradient borné,
# un pas. **AdamW** est Adam dont la décroissance des poids est à part (Loshchilov et Hutter, 2019) ; `fused=True` met à
# jour tous les poids d'un coup au lieu de les prendre l'un après l'autre, et vous verrez que cela change une
# conclusion.

# %%
lesson_steps = atelier.scale().pick(essai=2, cpu=40, gpu=200)


def adamw(model, lr):
    """AdamW fusionné, sur ce qui n'est pas gelé."""
    learning = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(learning, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


def learn(model, lr, seed=0, text=fantasy, steps=lesson_steps, optimizer_of=adamw, after=None):
    """Une leçon : `steps` lots de huit fenêtres de 64 jetons. Rend le modèle, en mode évaluation."""
    optimizer = optimizer_of(model, lr)
    ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min((i + 1) / 5, 1 - i / steps))
    model.train()
    for i, ids in enumerate(itertools.islice(atelier.windows(text, 8, 64, seed), steps)):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ramp.step()
        if after is not None:
            after(i + 1)
    return model.eval()


# %% [markdown]
# Pour que tout le changement soit dans des matrices, seules les quatre couches linéaires de chaque bloc apprennent
# d'abord ; tables, biais et LayerNorm restent gelés.


# %%
def linear_only(seed=0):
    """Une copie de Colibri dont seuls apprennent les poids des couches linéaires des blocs."""
    model = copy.deepcopy(colibri)
    for name, p in model.named_parameters():
        p.requires_grad_(".c_" in name and name.endswith("weight"))
    return model


@functools.cache
def linear_lesson(lr=1e-3):
    """Ce modèle, après une leçon ; gardé pour la suite."""
    return learn(linear_only(), lr)


def change_of(tuned, name):
    """ΔW d'une couche, (sortie, entrée) : ses poids après la leçon, moins ses poids avant."""
    after, before = (ch8.linear_layers(m)[name] for m in (tuned, colibri))
    return ch8.weight_of(after) - ch8.weight_of(before)


# %% experiment="what_moved"
@atelier.experiment()
def what_moved():
    """Valeurs singulières de ΔW et de W, couche par couche, après une leçon des seules couches linéaires."""
    found = {}
    for name, layer in ch8.linear_layers(colibri).items():
        change = change_of(linear_lesson(), name)
        both = {"ΔW": change, "W": ch8.weight_of(layer)}
        found[name] = {what: torch.linalg.svdvals(w.cpu()).cpu() for what, w in both.items()}
    return found


# %%
moved = what_moved()
ch8.moved_table(moved)

# %% [markdown]
# La dernière colonne dit la taille du changement.

# %% [markdown]
# Appelons $\Delta W$ ce changement, une matrice par couche. Est-il **riche**, ou
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
    """Meilleure approximation de w par une matrice de rang au plus `rank`, et l'erreur qu'elle
    commet.

    w : (d, k) flottant (float32 ou float64), non nul, de forme quelconque ; rank : entier.
    Rend (w_r, erreur) : w_r, (d, k) du type de w, la matrice de rang ≤ rank la plus proche de w
    pour la norme de Frobenius ; erreur, un float de Python sans unité : ‖w − w_r‖ / ‖w‖, entre 0
    et 1.

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
# produire, les $r$ directions les plus fortes, et l'on remet le tout dans Colibri. Une couche d'attention peut aller
# jusqu'à 192.

# %%
atelier.bet("rank_enough", "À partir de quel rang la perplexité revient-elle à 1 % de celle du ΔW entier ?",
            options=("4", "16", "64", "plus de 64"))  # fmt: skip


# %% experiment="truncated"
@atelier.experiment(needs=[low_rank], full={"ranks": (1, 4, 16, 64, 128), "of_weights": (32, 64, 128)})
def truncated(ranks=(4, 64), of_weights=(64,)):
    """Perte sur B quand on tronque ΔW au rang r, puis quand on tronque W lui-même : (quoi, r) → parts."""
    tuned, found = linear_lesson(), {("ΔW", 0): losses_on(colibri)}
    found["ΔW", 192] = losses_on(tuned)
    for r in ranks:
        cut = ch8.replace_weights(colibri, lambda name, w: w + low_rank(change_of(tuned, name), r)[0])
        found["ΔW", r] = losses_on(cut)
    for r in of_weights:
        found["W", r] = losses_on(ch8.replace_weights(colibri, lambda _, w: low_rank(w, r)[0]))
    return found


# %%
cut_here, cut_author = truncated(), truncated.authors()
atelier.settle("rank_enough", ch8.truncated_table(cut_here, cut_author))

# %% [markdown]
# Tronquer après coup n'a pas de palier : du rang 4 au rang plein, chaque direction de plus apporte encore quelque chose
# ; au rang 16, un tiers du gain manque.
# <!-- claim: every_direction_counts -->
# À notre échelle, $\Delta W$ **n'est pas** de rang très faible. Les poids $W$, eux, ne se tronquent pas du tout : au
# rang 128 sur 192, le modèle ne parle plus.
# <!-- claim: weights_do_not_truncate -->
#
# ??? q="full_rank"

# %% [markdown]
# Voici l'énergie gardée, la part de $\sum_i \sigma_i^2$, en fonction du rang, pour $\Delta W$ et pour $W$. Le trait
# pointillé est une matrice gaussienne de mêmes dimensions : ce que l'on verrait s'il n'y avait rien à voir. Le trait
# gris vertical est le rang 8.

# %%
ch8.plot_spectra(moved)

# %% [markdown]
# $\Delta W$ est plus concentré que $W$, qui, sauf à la sortie de l'attention, ressemble presque au hasard ; mais il
# faut encore des dizaines de directions pour 90 % de son énergie.
# <!-- claim: change_is_concentrated -->

# %% [markdown]
# La diapositive écrit « the intrinsic rank of the weight matrices in a large language model is low » ; l'article dit
# autre chose, « the change in weights during model adaptation also has a low "intrinsic rank" » (Hu et al., 2022, § 1).
# C'est une hypothèse sur le **changement**, non sur les poids. L'article trouve sur GPT-3 que $r = 1$ suffit déjà à
# $W_q$ et $W_v$ (§ 7.2). Gardez-la comme hypothèse : 8.6 dira ce que vaut, chez nous, un rang appris d'emblée.
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

    shapes : liste de formes (d, k), une par matrice adaptée, toutes différentes peut-être ; une
        liste vide est permise ; rank : le rang r, le même pour toutes.
    Rend un int : pour chaque matrice, les nombres de B, (d, r), et de A, (r, k).

    Source : Hu et al., « LoRA », ICLR 2022, § 4.2.
    """
    ### BEGIN SOLUTION
    return sum(rank * (d + k) for d, k in shapes)
    ### END SOLUTION


# %% [markdown]
# L'article adapte GPT-3, 175 milliards de paramètres. Sa phrase la plus citée promet **10 000 fois** moins de
# paramètres à entraîner. Votre formule, avec ses nombres à lui :


# %% experiment="gpt3_counts"
@atelier.experiment(needs=[lora_num_params])
def gpt3_counts(d=12288, blocks=96):
    """Paramètres de LoRA sur GPT-3 : (matrices par bloc, rang) → nombre."""
    return {(each, r): lora_num_params([(d, d)] * each * blocks, r) for each, r in ((2, 1), (2, 4), (2, 8), (4, 2))}


# %%
ch8.gpt3_table(gpt3_counts())

# %% [markdown]
# Le « 10 000 » est un arrondi : c'est la ligne $r = 4$. Une autre ligne ne tombe pas juste : l'annexe D.4 donne 37,7 M
# pour quatre matrices à $r = 2$, et la formule de l'article n'en donne que la moitié. Nous ne savons pas d'où vient
# l'écart.
# <!-- claim: ten_thousand_is_rank_four -->
#
# Les diapositives comptaient 34 To pour cent tâches d'un modèle de 170 milliards de paramètres, en FP16. **Refaites
# la division** avec des adaptateurs de Houlsby (deux par bloc, goulot de 64 : $2md + d + m$ nombres chacun), puis avec
# LoRA ($r = 4$, sur deux matrices par bloc), aux dimensions de GPT-3. Combien pour les cent, modèle compris ?

# %%
adapter_numbers = 2 * 96 * (2 * 64 * 12288 + 12288 + 64)
lora_numbers = 2 * 96 * 4 * (12288 + 12288)
ch8.hundred_tasks(170e9, {"adaptateurs, m = 64": adapter_numbers, "LoRA, r = 4": lora_numbers})

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

    base : nn.Linear, avec ou sans biais, ou Conv1D de transformers, qui range son poids en
        (entrée, sortie) ; elle est gelée ici, ses valeurs ne changent jamais.
    rank : le rang r ; alpha : nombre sans unité, la mise à jour est multipliée par alpha / rank.
    Les deux seuls paramètres qui apprennent sont lora_A, (r, entrée), tiré d'une loi normale
    centrée, et lora_B, (sortie, r), nul au départ : la couche répond alors exactement comme la
    base.
    forward(x) : x (…, entrée) → (…, sortie), soit base(x) + (alpha / rank) · B(A x), calculé sans
    jamais former la matrice B·A.
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
# Quatre départs de **votre** couche, sur la première attention de Colibri. Dans le tableau, $\partial A$ est le
# gradient de la perte par rapport à $A$.

# %%
first_layer = colibri.transformer.h[0].attn.c_attn
starts = {"A gaussienne, B = 0": (1.0, 0.0), "A = 0, B gaussienne": (0.0, 1.0),
          "A = 0, B = 0": (0.0, 0.0), "A et B gaussiennes": (1.0, 1.0)}  # fmt: skip


def start_from(layer, kind, seed=0):
    """Change, sur place, le départ d'une couche LoRA : chaque facteur est nul, ou gaussien d'écart-type 1/√colonnes."""
    draw = torch.Generator().manual_seed(seed)
    for p, size in zip((layer.lora_A, layer.lora_B), starts[kind], strict=True):
        p.data.copy_(size * torch.randn(p.shape, generator=draw) / p.shape[1] ** 0.5)


# %% experiment="four_starts"
@atelier.experiment(needs=[LoRALinear])
def four_starts(steps=3, lr=0.05):
    """Écart à la base avant tout pas, et normes des gradients de A et de B, pas après pas : départ → valeurs."""
    draw, found = torch.Generator().manual_seed(0), {}
    x, target = (torch.randn(32, n, generator=draw).to(colibri.device) for n in first_layer.weight.shape)
    for kind in starts:
        layer = LoRALinear(copy.deepcopy(first_layer), 8, 16.0).to(colibri.device)
        start_from(layer, kind)
        wanted, norms = first_layer(x).detach() + target, []
        moved_by = ((layer(x) - first_layer(x)).norm() / first_layer(x).norm()).item()
        for _ in range(steps):
            grads = torch.autograd.grad(F.mse_loss(layer(x), wanted), (layer.lora_A, layer.lora_B))
            norms.append(tuple(g.norm().item() for g in grads))
            for p, g in zip((layer.lora_A, layer.lora_B), grads, strict=True):
                p.data -= lr * g
        found[kind] = {"écart": moved_by, "gradients": norms}
    return found


# %%
ch8.starts_table(four_starts())

# %% [markdown]
# Deux zéros ne bougent jamais. Un seul zéro : l'un des deux facteurs bouge au premier pas, l'autre dès le deuxième.
# Deux gaussiennes : la couche ne répond déjà plus comme la base.
# <!-- claim: two_zeros_never_move -->

# %% [markdown]
# C'est que $\partial A = B^\top G$ et $\partial B = G A^\top$, à un facteur près, où $G$ est le gradient par rapport à
# $\Delta W$ : chacun des deux facteurs porte l'autre. Les deux départs légitimes se valent-ils ? Hayou et al. (2024)
# montrent sur de plus grands modèles que celui de la diapositive supporte de plus grands taux d'apprentissage. Il faut
# un modèle entier pour en juger : gardez la question.
#
# ## 8.4 Dans GPT-2
#
# Reste à poser votre `LoRALinear` dans un vrai modèle. Un piège attendait : les couches de GPT-2 sont des `Conv1D`, qui
# rangent leurs poids en (entrée, sortie), à l'envers de `nn.Linear`. Se tromper de sens ne lève une erreur que si la
# matrice n'est pas carrée ; votre couche, elle, connaît les deux.

# %% [markdown]
# ### ✎ inject_lora


# %% exercise="inject_lora"
def inject_lora(
    model: GPT2LMHeadModel,
    rank: int,
    alpha: float,
    target: str = "c_attn",
) -> GPT2LMHeadModel:
    """Pose votre LoRALinear, sur place, sur les couches d'un GPT-2 qui portent un certain nom.

    model : GPT-2 de transformers, dont les couches linéaires sont des Conv1D (poids rangé en
    (entrée, sortie)).
    rank, alpha : ceux de LoRALinear, les mêmes partout.
    target : le nom des couches à adapter dans leur module, « c_attn », « c_fc » ou « c_proj ».
        Chaque bloc contient deux « c_proj », celle de l'attention et celle du MLP : toutes deux
        sont adaptées.
    Rend le modèle reçu, modifié : chaque couche visée est enveloppée dans une LoRALinear à elle ;
    lora_A et lora_B seules apprennent, tout le reste du modèle est gelé. Au départ, les logits
    n'ont pas changé.

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
# Votre LoRA, dans Colibri, sur toutes les couches linéaires. C'est tout ce qu'il faut à la boucle de 8.1.


# %%
def with_lora(rank=16, alpha=32.0, seed=0, base=colibri):
    """Une copie de `base`, votre LoRA sur toutes ses couches linéaires ; elle seule apprend."""
    torch.manual_seed(seed)
    model = copy.deepcopy(base)
    for target in ("c_attn", "c_fc", "c_proj"):
        inject_lora(model, rank, alpha, target)
    for name, p in model.named_parameters():
        p.requires_grad_("lora_" in name)
    return model.to(base.device)


@functools.cache
def lora_of(seed=0):
    """Colibri et votre LoRA, après une leçon de fantasy ; gardé pour la suite."""
    return learn(with_lora(seed=seed), 4e-3, seed)


# %% experiment="lora_lesson"
@atelier.experiment(needs=[inject_lora])
def lora_lesson(rank=16, lr=4e-3):
    """Votre LoRA, avant et après une leçon : paramètres, plus grand écart de logits au départ, pertes sur B et A."""
    model, ids = with_lora(rank), next(atelier.windows(fantasy, 1, 64)).to(colibri.device)
    found = {"apprennent": ch8.learning_count(model), "en tout": colibri.num_parameters()}
    with torch.no_grad():
        found["écart"] = (model(ids).logits - colibri(ids).logits).abs().max().item()
    learn(model, lr)
    return found | {"B": losses_on(model), "A": losses_on(model, "a_validation")}


# %%
ch8.lesson_note(lora_lesson(), before_lora())

# %% [markdown]
# Entendez-vous la différence ? Les mêmes débuts, continués par les deux modèles. Ni l'un ni l'autre n'a beaucoup de
# sens, à trois millions de paramètres : cherchez de quel genre de livre chaque suite a l'air de sortir.

# %%
few_words = atelier.scale().pick(essai=3, cpu=24, gpu=48)


# %% experiment="two_sentences"
@atelier.experiment(needs=[inject_lora], full={"n_new": 24})
def two_sentences(prompts=("Le vieux mage leva", "La nuit tombait sur"), n_new=few_words):
    """Ce que Colibri, puis Colibri et votre LoRA, écrivent après un même début, par un même tirage."""
    found, lora = [], lora_of()
    for prompt, (name, writer) in itertools.product(prompts, {"Colibri": colibri, "avec LoRA": lora}.items()):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(colibri.device)
        torch.manual_seed(3)
        said = writer.generate(ids, do_sample=True, temperature=0.8, top_k=40, max_new_tokens=n_new, pad_token_id=0)
        text = tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)
        found.append((prompt, name, " ".join(text.split())))
    return found


# %%
ch8.sentences_table(two_sentences())

# %% [markdown]
# ## 8.5 α/r, ou α/√r ?
#
# Que fait ce facteur devant $BA$ ? Partons d'un facteur qui ne dépend pas de $r$ (c'est ce que donne l'usage courant de
# prendre $\alpha = 2r$), et faisons **un** pas d'AdamW. Deux mesures, de deux choses différentes : la **taille** de la
# mise à jour, $\lVert \Delta W \rVert$ ; et son **effet** sur la perte au premier ordre, le produit scalaire
# $\langle \Delta W, G \rangle$ avec le gradient.

# %%
atelier.bet("four_times_rank", "Rang quadruplé, même facteur : la taille de ΔW après un pas est multipliée par",
            options=("1", "2", "4", "16"))  # fmt: skip


# %%
def slopes(ids):
    """Le gradient de la perte de Colibri par rapport à chaque poids linéaire : chemin → (entrée, sortie)."""
    model = copy.deepcopy(colibri)
    model(ids, labels=ids).loss.backward()
    return {name: m.weight.grad for name, m in model.named_modules() if isinstance(m, Conv1D)}


def pairs_of(model):
    """Les couples (A, B) de votre LoRA dans un modèle : chemin de la couche → (A, B)."""
    found = {name: p.detach() for name, p in model.named_parameters() if "lora_" in name}
    return {
        name.removesuffix(".lora_A"): (a, found[name.replace("lora_A", "lora_B")])
        for name, a in found.items()
        if name.endswith("lora_A")
    }


# %% experiment="first_step"
@atelier.experiment(needs=[inject_lora], full=five_seeds)
def first_step(ranks=(4, 16, 64), factor=2.0, lr=3e-3, seeds=(0,)):
    """Un pas d'AdamW : rang → pour chaque graine, (taille de ΔW, effet sur la perte au premier ordre)."""
    found = {r: [] for r in ranks}
    for rank, seed in itertools.product(ranks, seeds):
        model, ids = with_lora(rank, factor * rank, seed), next(atelier.windows(fantasy, 8, 64, seed))
        optimizer, g = adamw(model, lr), slopes(ids)
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        moves = {name: factor * (b @ a) for name, (a, b) in pairs_of(model).items()}
        size = sum(d.square().sum() for d in moves.values()).sqrt()
        effect = sum((d.T * g[name]).sum() for name, d in moves.items())
        found[rank].append((size.item(), effect.item()))
    return found


# %%
step_here, step_author = first_step(), first_step.authors()
atelier.settle("four_times_rank", ch8.first_step_table(step_here, step_author))

# %% [markdown]
# Quatre fois plus de rang : $\Delta W$ **double**, et son effet **quadruple**.
# <!-- claim: size_grows_as_root_effect_as_rank -->
# Ce sont deux lois, de deux choses différentes.

# %% [markdown]
# D'où viennent-elles ? Au premier pas, les $r$ directions descendent toutes la pente : leurs effets s'ajoutent, d'où
# $r$. Mais elles ne se ressemblent pas, chaque ligne de $A$ étant tirée au hasard : leurs tailles s'ajoutent comme des
# vecteurs presque orthogonaux, d'où $\sqrt r$.
#
# Voilà tout le débat. Diviser par $r$, comme Hu et al. (2022, § 4.1), rend le **début** de l'apprentissage indépendant
# du rang : le taux (*learning rate*) réglé à un rang devrait servir aux autres. Diviser par $\sqrt r$ (**rsLoRA**,
# Kalajdzievski, 2023), c'est garder la **taille** : les grands rangs, à $1/r$, seraient écrasés, et n'apporteraient
# rien de plus. Laquelle croire ? Le taux est un réglage : essayons-les à cinq taux et à trois rangs. Les trois règles
# donnent le même facteur, 2, à $r = 16$. La grille entière est de l'auteur ; votre cellule n'en refait qu'un point :
# changez la règle, le rang, le taux.
#
# ??? q="alpha_role"

# %%
factor_rules = {"constant (α = 2r)": lambda r: 2.0, "α/r": lambda r: 32 / r, "α/√r": lambda r: 8 / r**0.5}
whole_grid = {"rates": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), "ranks": (4, 16, 64), "rules": tuple(factor_rules)}
grid_steps = atelier.scale().pick(essai=2, cpu=28, gpu=200)


def tuning_perplexity(model):
    """Perplexité sur le texte qui sert à régler les taux, et à rien d'autre."""
    return atelier.evaluate_perplexity(model, "b_validation", max_tokens=extract_tokens).perplexity


# %% experiment="rates_by_rank"
@atelier.experiment(needs=[inject_lora], full=whole_grid | {"seeds": (100, 101)})
def rates_by_rank(rates=(4e-3,), ranks=(64,), seeds=(100,), rules=("α/√r",), steps=grid_steps):
    """Perplexité sur le texte de réglage : (règle, rang, taux) → une valeur par graine."""
    found = {}
    for name, rank, lr in itertools.product(rules, ranks, rates):
        if rank == 16 and name != "α/r":
            continue  # même facteur pour les trois
        alpha = factor_rules[name](rank) * rank
        lessons = (learn(with_lora(rank, alpha, s), lr, s, steps=steps) for s in seeds)
        found[name, rank, lr] = [tuning_perplexity(lora) for lora in lessons]
    return found


# %%
grid_here, grid_author = rates_by_rank(), rates_by_rank.authors()
ch8.plot_rates_by_rank(grid_author or grid_here)
ch8.grid_note(grid_here)

# %% [markdown]
# Au facteur constant, le meilleur taux baisse de moitié chaque fois que le rang quadruple : comme $1/\sqrt r$, la loi
# de la **taille**. Et $\alpha/\sqrt r$ garde bien le même meilleur taux aux trois rangs.
# <!-- claim: size_sets_the_rate -->
# Avec $\alpha/r$, il est le même à 16 et à 64 ; au rang 4, où le facteur vaut 8, la courbe est plate et les deux
# graines ne choisissent pas le même.
# <!-- claim: one_over_r_keeps_it_from_16_to_64 -->
# Chacune à son meilleur taux, au rang 64, les trois règles se tiennent à 3 % : deux graines ne les départagent pas.
# <!-- claim: rules_tie_at_their_best -->
# Choisir une règle, c'est donc choisir à quel rang on aura à régler de nouveau, non ce que l'on atteindra. En
# vingt-huit pas sur Colibri, c'est la taille qui commande ; sur de grands modèles, *LoRA Without Regret* trouve que
# $\alpha/r$ suffit.
# <!-- claim: size_sets_the_rate -->

# %% [markdown]
# ## 8.6 À quel taux, et où ?
#
# Deux réglages restent. Pour comparer deux méthodes, il faut donner à chacune **son** taux, réglé sur un texte qui ne
# juge pas. Voici les méthodes de ce chapitre, chacune en une ligne.


# %%
def whole(seed=0):
    """Une copie de Colibri ; tout apprend."""
    return copy.deepcopy(colibri).requires_grad_(True)


def only(model, *parts):
    """N'y laisse apprendre que ce qui apprenait déjà et dont le chemin contient l'un de ces morceaux."""
    for name, p in model.named_parameters():
        p.requires_grad_(p.requires_grad and any(part in name for part in parts))
    return model


def with_table(model):
    """Laisse aussi apprendre la table des jetons, donc la tête de sortie, qui lui est liée."""
    model.transformer.wte.weight.requires_grad_(True)
    return model


learners = {
    "tout": whole,
    "couches linéaires": linear_only,
    "LoRA": lambda seed: with_lora(16, 32.0, seed),
    "LoRA, attention seule": lambda seed: only(with_lora(43, 32.0, seed), ".attn."),
    "LoRA, MLP seul": lambda seed: only(with_lora(26, 32.0, seed), ".mlp."),
    "LoRA en haut": lambda seed: only(with_lora(16, 32.0, seed), "h.3.", "h.4."),
    "table seule": lambda seed: only(whole(seed), "wte"),
    "LoRA et table": lambda seed: with_table(with_lora(16, 32.0, seed)),
}

# %% [markdown]
# Les deux rangs inégaux, 43 et 26, donnent à l'attention seule et au MLP seul autant de nombres qu'à LoRA partout, à
# 2 % près ; « en haut » veut dire : dans les deux derniers blocs. Chaque méthode essaie quatre taux.

# %%
full_rates = {name: (2e-3, 4e-3, 8e-3, 1.6e-2) for name in learners} | {
    "tout": (2.5e-4, 5e-4, 1e-3, 2e-3),
    "couches linéaires": (2.5e-4, 5e-4, 1e-3, 2e-3),
    "table seule": (1e-3, 2e-3, 4e-3, 8e-3),
    "LoRA et table": (1e-3, 2e-3, 4e-3, 8e-3),
}


# %% experiment="method_rates"
@atelier.experiment(needs=[inject_lora], full={"names": tuple(learners), "tries": 4})
def method_rates(names=("LoRA",), tries=1, seed=100):
    """Perplexité sur le texte de réglage, une graine : (méthode, taux) → perplexité."""
    found = {}
    for name in names:
        for lr in full_rates[name][:tries]:
            found[name, lr] = tuning_perplexity(learn(learners[name](seed), lr, seed))
    return found


# %%
ch8.rates_table(method_rates.authors() or method_rates())

# %%
best_rate = {
    "tout": 1e-3,
    "couches linéaires": 1e-3,
    "LoRA": 4e-3,
    "LoRA, attention seule": 4e-3,
    "LoRA, MLP seul": 8e-3,
    "LoRA en haut": 8e-3,
    "table seule": 4e-3,
    "LoRA et table": 2e-3,
}

# %% [markdown]
# Aucun de ces meilleurs taux n'est au bord de sa grille ; celui de LoRA est le quadruple de celui d'un fine-tuning
# complet.
# <!-- claim: lora_wants_a_larger_rate -->

# %% [markdown]
# **Où le poser ?** L'article n'adapte que $W_q$ et $W_v$ ; QLoRA trouve qu'il faut adapter toutes les couches
# (Dettmers et al., 2023, § 4). À nombre de paramètres égal, chacun à son taux, cinq graines :


# %% experiment="places"
@atelier.experiment(needs=[inject_lora], full=five_seeds | {"names": tuple(learners)[1:5]})
def places(names=("LoRA",), seeds=(0,)):
    """Perte sur B, part à part, après une leçon : méthode → une liste par graine ; et ce qui apprend."""
    found = {"apprennent": {name: ch8.learning_count(learners[name](0)) for name in names}}
    found["pertes"] = {name: [losses_on(learn(learners[name](s), best_rate[name], s)) for s in seeds] for name in names}
    return found


# %%
places_here, places_author = places(), places.authors()
ch8.places_table(places_here, places_author, against="LoRA")

# %% [markdown]
# À nombre de paramètres égal, l'attention seule est nettement en retrait ; le MLP seul fait même un peu mieux que LoRA
# partout.
# <!-- claim: attention_lags_mlp_leads -->
# Et la première ligne dit ce que coûte la contrainte : LoRA ne se départage pas d'un apprentissage entier des mêmes
# couches linéaires, avec neuf fois moins de nombres. Apprendre au rang 16 n'est donc pas tronquer au rang 16, qui
# coûtait un tiers du gain.
# <!-- claim: linear_layers_and_lora -->

# %% [markdown]
# Schulman et al. (*LoRA Without Regret*, Thinking Machines, 29 septembre 2025) ont fait ces mesures en grand. Ils
# trouvent : un taux optimal de LoRA presque indépendant du rang (avec $\alpha/r$, $\alpha = 32$), et d'environ dix fois
# celui d'un fine-tuning complet (quinze, quand l'apprentissage est très court) ; LoRA sur **toutes** les couches,
# surtout le MLP, l'attention seule étant en retrait même à nombre de paramètres égal ; une capacité qu'il faut tenir
# au-dessus de l'information des données ; une pénalité aux grands lots ; et les deux tiers des opérations d'un
# fine-tuning complet. Ce que vous venez d'en retrouver, et ce que vous n'en retrouvez pas :

# %%
ch8.without_regret_table(method_rates.authors(), rates_by_rank.authors(), places.authors())

# %% [markdown]
# ## 8.7 peft, en clair
#
# Hors de ce cours, personne n'écrit sa `LoRALinear` : on prend **peft** (Hugging Face). Voici tout ce qu'il faut en
# savoir. `fan_in_fan_out=True` lui dit que les couches rangent leur poids en (entrée, sortie), comme `Conv1D`.

# %%
from peft import LoraConfig, PeftModel, get_peft_model

everywhere = {"target_modules": ["c_attn", "c_fc", "c_proj"], "fan_in_fan_out": True}
config = LoraConfig(r=16, lora_alpha=32, **everywhere)
adapted = get_peft_model(copy.deepcopy(colibri), config)
adapted.print_trainable_parameters()

# %% [markdown]
# Il gèle, il remplace, il compte (en anglais : « trainable » est ce qui apprend). Votre boucle le prend tel quel. Puis
# `save_pretrained` n'écrit que l'adaptateur, et `PeftModel.from_pretrained` le repose sur une base neuve.


# %% experiment="saved_and_reloaded"
@atelier.experiment()
def saved_and_reloaded(lr=4e-3):
    """Une leçon par peft, écrite, relue sur une base neuve, puis fusionnée : octets, écarts de logits, pertes."""
    torch.manual_seed(0)
    model = learn(get_peft_model(copy.deepcopy(colibri), LoraConfig(r=16, lora_alpha=32, **everywhere)), lr)
    ids = next(atelier.windows(fantasy, 2, 64)).to(colibri.device)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(folder)
        files = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}
        again = PeftModel.from_pretrained(copy.deepcopy(colibri), folder).eval()
        found = {"fichiers": files, "relu": (again(ids).logits - model(ids).logits).abs().max().item()}
        with again.disable_adapter():
            found["débranché"] = (again(ids).logits - colibri(ids).logits).abs().max().item()
        fused = again.merge_and_unload()
        found["fusionné"] = (fused(ids).logits - model(ids).logits).abs().max().item()
    return found | {"B": losses_on(model), "base": ch8.file_bytes(ch8.plain_tensors(colibri, torch.float32))}


# %%
ch8.saved_table(saved_and_reloaded())

# %% [markdown]
# Relu, débranché, fusionné : tout se retrouve, à l'arrondi près. Et le fichier de l'adaptateur pèse bien moins que le
# modèle.
# <!-- claim: peft_gives_back -->

# %% [markdown]
# `disable_adapter` rend la base, le temps d'un bloc : retenez-le, il servira en 8.13. peft sait aussi tenir
# plusieurs adaptateurs, passer de l'un à l'autre sans recharger la base (`load_adapter`, `set_adapter`), et mettre un
# *dropout* devant $A$ (`lora_dropout`) quand les données manquent.
#
# Est-ce bien la même chose que la vôtre ? Mettons dans les deux les mêmes $A$ et $B$, et fusionnons les deux. Il faut
# pour cela fondre une mise à jour dans un poids.

# %% [markdown]
# ### ✎ merge_lora


# %% exercise="merge_lora"
def merge_lora(
    weight: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    alpha: float,
) -> torch.Tensor:
    """Poids qui donne à lui seul la même réponse que la couche et sa mise à jour.

    weight : (d, k) flottant, le poids W de la base ; A : (r, k) ; B : (d, r), du même type ;
    alpha : sans unité.
    Rend un nouveau tenseur (d, k), du type de weight ; r est le rang. Aucun argument n'est modifié.
    Lève ValueError si A et B n'ont pas le même rang.

    Source : Hu et al., « LoRA », ICLR 2022, équation (3) et § 4.1, « No Additional Inference
    Latency ».
    """
    ### BEGIN SOLUTION
    rank = A.shape[0]
    if B.shape[1] != rank:
        raise ValueError(f"A est de rang {rank} et B de rang {B.shape[1]}")
    return weight + (alpha / rank) * (B @ A)
    ### END SOLUTION


# %%
@torch.no_grad()
def merged(base, pairs, alpha=32.0):
    """Une copie de `base`, GPT-2 ordinaire, où chaque couple (A, B) est fondu dans le poids de sa couche."""
    model = copy.deepcopy(base)
    for path, (a, b) in pairs.items():
        layer = model.get_submodule(path)
        layer.weight.copy_(merge_lora(layer.weight.T, a, b, alpha).T)
    return model


# %% experiment="beside_peft"
@atelier.experiment(needs=[inject_lora, merge_lora])
def beside_peft(rank=16):
    """Votre LoRA et celui de peft, mêmes A et B, à part puis fusionnés : plus grands écarts de logits."""
    ids, draw = next(atelier.windows(fantasy, 2, 64)).to(colibri.device), torch.Generator().manual_seed(0)
    mine = with_lora(rank)
    theirs = get_peft_model(copy.deepcopy(colibri), LoraConfig(r=rank, lora_alpha=32, **everywhere))
    with torch.no_grad():
        for path, both in pairs_of(mine).items():
            layer = theirs.get_submodule(f"base_model.model.{path}")
            for p, part in zip(both, (layer.lora_A, layer.lora_B), strict=True):
                p.copy_(0.1 * torch.randn(p.shape, generator=draw).to(p.device))
                part["default"].weight.copy_(p)
        apart, fused = mine(ids).logits, merged(colibri, pairs_of(mine))(ids).logits
        found = {"apprennent": (ch8.learning_count(mine), ch8.learning_count(theirs)), "taille": apart.std().item()}
        found["à part"] = (apart - theirs(ids).logits).abs().max().item()
        found["fusionnés"] = (fused - theirs.merge_and_unload()(ids).logits).abs().max().item()
    return found


# %%
ch8.peft_note(beside_peft())

# %% [markdown]
# Mêmes nombres, mêmes logits, à part comme fusionnés : aux arrondis de FP32 près, c'est la même chose.
# <!-- claim: peft_says_the_same -->

# %% [markdown]
# ## 8.8 Fusionner, ou servir
#
# Un adaptateur du chapitre 7 reste à jamais dans le modèle, et chaque jeton le traverse. LoRA, fusionné, est un Colibri
# ordinaire : mêmes formes, mêmes opérations. **Que devient le temps d'une fenêtre, à part et fusionné ?**


# %% experiment="serving_times"
@atelier.experiment(needs=[inject_lora, merge_lora], full={"rounds": 15})
def serving_times(rounds=7, rank=16):
    """Durées, en secondes, tour à tour, d'une fenêtre de 256 jetons et d'un jeton seul : version → durées."""
    apart = with_lora(rank)
    versions = {"Colibri": colibri, "LoRA à part": apart, "LoRA fusionné": merged(colibri, pairs_of(apart))}
    ids = next(atelier.windows(fantasy, 1, 256)).to(colibri.device)
    runs = {}
    for name, version in versions.items():
        for what, given in {"fenêtre": ids, "jeton": ids[:, :1]}.items():
            runs[f"{name}, {what}"] = torch.inference_mode()(functools.partial(version, given, use_cache=False))
    with ch8.one_thread():
        return ch8.interleaved_seconds(runs, rounds)


# %%
ch8.serving_table(serving_times())

# %% [markdown]
# ??? q="merged_tasks"

# %% [markdown]
# La question se mesure. Deux voix, la fantasy et les vers (B′) : deux LoRA, $\Delta_B$ et $\Delta_{B'}$. Que donne leur
# **somme** ? Et leurs mélanges, $\lambda \Delta_B + (1 - \lambda) \Delta_{B'}$ ? C'est l'arithmétique des tâches (*task
# arithmetic*, Ilharco et al., 2023).

# %%
verses = atelier.corpus_tokens("bprime_train")


# %% experiment="mixed_voices"
@atelier.experiment(needs=[inject_lora, merge_lora], full={"shares": (0.0, 0.25, 0.5, 0.75, 1.0)})
def mixed_voices(shares=(0.0, 0.5, 1.0), lr=4e-3):
    """Pertes sur B, sur B′ et sur A de λΔ(B) + (1 − λ)Δ(B′), et de leur somme : mélange → texte → parts."""
    of_b, of_verses = (pairs_of(learn(with_lora(), lr, text=text)) for text in (fantasy, verses))
    mixes, found = {f"λ = {s}": (s, 1 - s) for s in shares} | {"somme": (1, 1), "rien": (0, 0)}, {}
    for name, (one, other) in mixes.items():
        mix = merged(merged(colibri, of_b, 32.0 * one), of_verses, 32.0 * other)
        found[name] = {text: losses_on(mix, text) for text in ("b_test", "bprime_test", "a_validation")}
    return found


# %%
ch8.plot_mixed(mixed_voices())

# %% [markdown]
# La somme n'est bien celle d'aucune tâche : sur chaque voix, elle fait moins bien que la mise à jour de cette voix ; et
# elle oublie l'administration plus que Colibri, plus que chacune des deux.
# <!-- claim: a_sum_is_nobody -->
# Un mélange à parts égales, en revanche, parle les deux langues : mieux que Colibri sur l'une et sur l'autre, moins
# bien que leurs spécialistes.
# <!-- claim: half_and_half_speaks_both -->

# %% [markdown]
# **Servir dix voix dans un lot.** Un serveur reçoit, dans le même lot, des demandes de tâches différentes. Il garde une
# seule base, et donne à chaque ligne sa propre mise à jour : c'est **Punica** (Chen et al., 2023), **S-LoRA** (Sheng et
# al., 2023), et l'option multi-LoRA de vLLM.

# %% [markdown]
# ### ✎ batched_lora


# %% exercise="batched_lora"
def batched_lora(
    x: torch.Tensor, A: torch.Tensor, B: torch.Tensor, tasks: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Mises à jour LoRA d'un lot dont chaque ligne a sa tâche.

    x : (n, T, in) flottant, n lignes de T jetons ; A : (K, r, in) et B : (K, out, r), une paire par
    tâche, du même type et sur le même appareil ; tasks : (n,) entiers de 0 à K − 1, la tâche de
    chaque ligne ; scaling : le facteur α / r.
    Rend (n, T, out), du type de x : pour chaque ligne, ce que sa paire, et elle seule, ajoute à la
    sortie de la couche.

    Source : Sheng et al., « S-LoRA: Serving Thousands of Concurrent LoRA Adapters », 2023, arXiv
    2311.03285.
    """
    ### BEGIN SOLUTION
    tasks = tasks.long()
    a, b = A[tasks], B[tasks]
    return scaling * (x @ a.transpose(1, 2) @ b.transpose(1, 2))
    ### END SOLUTION


# %% [markdown]
# Votre fonction, dans tout Colibri : dix demandes de dix voix, en un seul passage ; contre dix passages d'une ligne,
# chacun par son modèle fusionné. (Les dix mises à jour sont tirées au hasard : seuls comptent le temps et la place.)


# %%
class ManyVoices(nn.Module):
    """Une couche gelée et K mises à jour ; `tasks`, (n,), dit celle de chaque ligne du lot."""

    def __init__(self, base, pairs, scaling):
        super().__init__()
        self.base, self.scaling, self.tasks = base, scaling, None
        self.a, self.b = (torch.stack(parts) for parts in zip(*pairs, strict=True))

    def forward(self, x):
        return self.base(x) + batched_lora(x, self.a, self.b, self.tasks, self.scaling)


def many_voices(pairs_by_voice, tasks, scaling=2.0):
    """Une copie de Colibri où chaque couche linéaire porte toutes les voix."""
    model = copy.deepcopy(colibri)
    for path in pairs_by_voice[0]:
        parent, _, name = path.rpartition(".")
        layer = ManyVoices(model.get_submodule(path), [pairs[path] for pairs in pairs_by_voice], scaling)
        layer.tasks = tasks
        setattr(model.get_submodule(parent), name, layer)
    return model


def random_voice(seed, rank=16):
    """Des couples (A, B) tirés au hasard, un par couche linéaire de Colibri."""
    draw, found = torch.Generator().manual_seed(seed), {}
    for path, layer in ch8.conv_paths(colibri).items():
        n_in, n_out = layer.weight.shape
        both = (torch.randn(size, generator=draw) for size in ((rank, n_in), (n_out, rank)))
        found[path] = tuple(0.05 * factor.to(colibri.device) for factor in both)
    return found


# %% experiment="ten_voices"
@atelier.experiment(needs=[batched_lora, merge_lora], full={"rounds": 9})
def ten_voices(voices=10, rounds=5, rank=16):
    """Dix voix en un lot, ou en dix passages par dix modèles fusionnés : durées tour à tour, octets, écart."""
    pairs, ids = [random_voice(seed, rank) for seed in range(voices)], next(atelier.windows(fantasy, voices, 64))
    together = many_voices(pairs, torch.arange(voices).to(colibri.device))
    apart = [merged(colibri, own, 2.0 * rank) for own in pairs]
    runs = {
        "un lot": lambda: together(ids).logits,
        "dix passages": lambda: torch.cat([m(ids[i : i + 1]).logits for i, m in enumerate(apart)]),
    }
    base, each = ch8.held_bytes(colibri), sum(4 * t.numel() for both in pairs[0].values() for t in both)
    found = {"octets": {"un lot": base + voices * each, "dix passages": voices * base}}
    with torch.inference_mode(), ch8.one_thread():
        found["écart"] = (runs["un lot"]() - runs["dix passages"]()).abs().max().item()
        return found | {"durées": ch8.interleaved_seconds(runs, rounds)}


# %%
ch8.ten_voices_table(ten_voices())

# %% [markdown]
# Les réponses sont les mêmes, à l'arrondi près, et la base n'est tenue qu'une fois.
# <!-- claim: one_batch_answers_the_same -->

# %% [markdown]
# ## 8.9 Ce que LoRA n'atteint pas
#
# LoRA ne touche que les couches linéaires des blocs. Or un fine-tuning complet change aussi les tables, les biais, les
# LayerNorm. Où est ce qu'il apprend ? Reprenons Colibri fine-tuné en entier, et remettons à leur valeur de départ
# certains de ses poids.

# %%
atelier.bet("where_it_is", "Du gain d'un fine-tuning complet, que garde-t-on avec la seule table des jetons ?",
            options=("presque rien", "environ la moitié", "presque tout"))  # fmt: skip


# %%
@torch.no_grad()
def keeping(tuned, *parts):
    """Colibri, où les seuls paramètres dont le chemin contient l'un de ces morceaux sont ceux du modèle fine-tuné."""
    model, news = copy.deepcopy(colibri), dict(tuned.named_parameters())
    for name, p in model.named_parameters():
        if any(part in name for part in parts):
            p.copy_(news[name])
    return model


# %% experiment="where_it_is"
@atelier.experiment(full=five_seeds)
def where_it_is(seeds=(0,)):
    """Perte sur B de Colibri fine-tuné en entier, dont on ne garde qu'une partie : ce qu'on garde → par graine."""
    found = {"rien": [losses_on(colibri)] * len(seeds)}
    for seed in seeds:
        tuned = learn(whole(), best_rate["tout"], seed)
        kept = {"tout": [""], "les couches linéaires": [".c_"], "la table des jetons": ["wte"]}
        for name, parts in kept.items():
            found.setdefault(name, []).append(losses_on(keeping(tuned, *parts)))
    return found


# %%
kept_here, kept_author = where_it_is(), where_it_is.authors()
atelier.settle("where_it_is", ch8.kept_table(kept_here, kept_author))

# %% [markdown]
# Les couches linéaires gardent près des trois quarts du gain, la table des jetons quatre dixièmes : ensemble, plus que
# le tout. Ce que l'une a appris, l'autre le savait en partie.
# <!-- claim: much_is_in_the_table -->
# Mais ces quatre dixièmes sont **hors** des couches linéaires, donc hors de portée de LoRA.
# <!-- claim: much_is_in_the_table -->

# %% [markdown]
# Rien n'interdit de l'apprendre **avec** LoRA. C'est `with_table`, plus haut ; dans peft, `modules_to_save`, qui en
# apprend une copie entière. Dans GPT-2 la table et la tête sont une seule matrice : il faut nommer les deux, et
# demander qu'elles le restent, sans quoi la tête garde l'ancienne. (Quand quelques jetons suffisent :
# `trainable_token_indices`.)

# %%
both = LoraConfig(r=16, lora_alpha=32, modules_to_save=["wte", "lm_head"], ensure_weight_tying=True, **everywhere)
with_copy = get_peft_model(copy.deepcopy(colibri), both)
with_copy.print_trainable_parameters()
body = with_copy.base_model.model
print("La tête et la table apprise sont une même matrice :", body.lm_head.weight is body.transformer.wte.weight)

# %% [markdown]
# Cinq méthodes, chacune à son taux, cinq graines, du texte neuf à chaque pas. La perplexité sur B est relevée tous les
# huit pas : elle servira deux fois.

# %%
contenders = ("tout", "LoRA", "LoRA en haut", "table seule", "LoRA et table")


# %% experiment="descents"
@atelier.experiment(needs=[inject_lora], full=five_seeds | {"names": contenders, "steps": 40})
def descents(names=("LoRA et table",), seeds=(0,), steps=lesson_steps, every=8):
    """Perte sur B tous les huit pas, puis sur A à la fin : méthode → par graine, {pas: parts} et parts."""
    found = {"apprennent": {name: ch8.learning_count(learners[name](0)) for name in names}}
    for name, seed in itertools.product(names, seeds):
        model, curve = learners[name](seed), {0: losses_on(colibri)}

        def note(i, model=model, curve=curve):
            if i % every == 0 or i == steps:
                curve[i] = losses_on(model)

        learn(model, best_rate[name], seed, steps=steps, after=note)
        found.setdefault(name, []).append({"B": curve, "A": losses_on(model, "a_validation")})
    return found


# %%
falls_here, falls_author = descents(), descents.authors()
ch8.contenders_table(falls_here, falls_author, before_lora())
ch8.plot_contenders(falls_author or falls_here)

# %% [markdown]
# LoRA seule apprend moins que le fine-tuning complet, et oublie moins.
# <!-- claim: lora_learns_less_and_forgets_less -->
# La table à côté change la première moitié de la phrase, non la seconde : sur B, on ne peut plus départager « LoRA et
# table » de « tout », et elle devance LoRA seule ; sur A, elle oublie moins que « tout », et pas plus que LoRA seule,
# autant qu'on puisse le dire.
# <!-- claim: table_beside_lora -->
# La table seule fait aussi bien qu'elles sur B, à ce que l'on peut voir, mais elle oublie davantage.
# <!-- claim: the_table_alone_forgets_more -->
# Et posée dans les deux blocs du haut seulement, deux fois et demie moins de nombres, LoRA ne se départage pas de LoRA
# partout.
# <!-- claim: top_blocks_cannot_be_told_apart -->

# %% [markdown]
# Biderman et al. (2024) résument ainsi de plus grandes mesures : « LoRA learns less and forgets less ». Et pour LoRA,
# l'oubli s'en va quand on le débranche : la base n'a pas bougé d'un octet. La classification d'un texte est au
# chapitre 6 : il lui faut bien plus d'exemples que n'en lisent ces leçons, et un ordre des méthodes trouvé à un seul
# budget n'y dirait rien.

# %% [markdown]
# ## 8.10 « It is not faster! », « It is faster! »
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
# Sur la mémoire, elles sont d'accord ; sur la vitesse, elles se contredisent.

# %%
atelier.bet("how_much_of_a_step", "Un pas de LoRA partout, en opérations, c'est quelle part d'un pas complet (en %) ?")

# %% [markdown]
# ??? q="saved_flops"

# %% [markdown]
# Prévoyons. Un pas complet coûte $6N$ opérations par jeton (chapitre 2) : $2N$ au passage avant, $2N$ pour le gradient
# des activations, $2N$ pour celui des poids. LoRA partout garde les deux premiers : $4N$, les deux tiers. S'il n'est
# que dans les $k$ derniers blocs, le gradient s'arrête sous eux. Et ce que calculent les blocs du bas, **gelés et sous
# lesquels rien n'apprend**, ne change jamais : on peut le calculer une fois, le garder, et le relire.
#
# ??? q="where_to_cache"

# %% [markdown]
# Comptons pour de bon : tous les produits de matrices d'un pas, **tête de sortie comprise**, puisque le chronomètre la
# comprendra. Elle n'est pas négligeable : chez Colibri, un quart des produits.

# %%
timed_learners = ("tout", "LoRA", "LoRA en haut")
batch_shape = atelier.scale().pick(essai=(2, 16), cpu=(8, 64), gpu=(32, 128))


def steps_of(base, shape, top=2, names=timed_learners, cached=True):
    """Nom → (modèle, sa perte sur un lot tiré au sort) ; « en haut » : les `top` derniers blocs."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, base.config.vocab_size, shape, generator=draw).to(base.device)
    highest = [f"h.{i}." for i in range(len(base.transformer.h))][-top:]
    makers = {
        "tout": lambda: copy.deepcopy(base).requires_grad_(True),
        "LoRA": lambda: with_lora(base=base),
        "LoRA en haut": lambda: only(with_lora(base=base), *highest),
    }
    made = {name: makers[name]() for name in names}
    found = {name: (m, lambda m=m: m(ids, labels=ids).loss) for name, m in made.items()}
    if cached:
        last = made["LoRA en haut"]
        kept = ch8.hidden_before(last, ids, top)
        found["LoRA en haut, cache"] = (last, lambda: ch8.cached_loss(top)(last, (kept, ids)))
    return found


# %% experiment="counted_steps"
@atelier.experiment(needs=[inject_lora], full={"shape": (8, 64)})
def counted_steps(shape=batch_shape):
    """Opérations d'un pas de Colibri : méthode → (passage avant et arrière, nombres qui apprennent)."""
    steps = steps_of(colibri, shape)
    return {name: (ch8.counted_flops(loss), ch8.learning_count(model)) for name, (model, loss) in steps.items()}


# %%
counted = counted_steps()
ch8.counted_table(counted)
atelier.settle("how_much_of_a_step", 100 * counted["LoRA"][0] / counted["tout"][0])

# %% [markdown]
# La tête comprise, LoRA partout fait les deux tiers d'un pas complet, plus ses propres produits : un peu moins des
# trois quarts. Posé en haut, un peu plus de la moitié ; et le bas relu d'un cache, deux cinquièmes.
# <!-- claim: two_thirds_half_and_a_third -->
# Les deux diapositives se trompent donc à moitié. La première oublie le gradient des poids, un produit sur trois. La
# seconde, que les poids gelés travaillent encore.

# %% [markdown]
# Et sur une machine ? Chaque pas est coupé en trois : passage avant, passage arrière, optimiseur. L'optimiseur est
# fusionné, et ce n'est pas un détail : celui que PyTorch prend par défaut sur un processeur passe les poids l'un après
# l'autre, et ferait gagner à LoRA une course qu'il ne court pas.


# %% experiment="lora_step_times"
@atelier.experiment(needs=[inject_lora], full={"rounds": 15, "shape": (8, 64)})
def lora_step_times(rounds=7, shape=batch_shape):
    """Durées d'un pas de Colibri, tour à tour : méthode → partie du pas → une durée par tour ; celles d'AdamW seul."""
    model = whole()
    model(
        **{k: torch.zeros(1, 8, dtype=torch.long).to(colibri.device) for k in ("input_ids", "labels")}
    ).loss.backward()
    learning = list(model.parameters())
    plain, fused = torch.optim.AdamW(learning, lr=0.0), torch.optim.AdamW(learning, lr=0.0, fused=True)
    with ch8.one_thread():
        found = ch8.step_parts(steps_of(colibri, shape), rounds)
        alone = ch8.interleaved_seconds({"par défaut": plain.step, "fusionné": fused.step}, rounds)
    return {"pas": found, "AdamW": alone, "lot": shape}


# %%
ch8.step_times_table(lora_step_times(), counted)

# %% [markdown]
# Colibri est petit.

# %% [markdown]
# La question des diapositives vise de plus grands modèles : voici GPT-2 small, en vraie grandeur,
# aux poids tirés au hasard (ni le compte ni le temps n'en dépendent). « En haut » y veut dire : les trois derniers
# blocs sur douze. Ce sont les durées de l'auteur : l'expérience est longue ; pour la refaire, appelez
# `gpt2_step_times()`.

# %%
small_shape = atelier.scale().pick(essai=(1, 4), cpu=(1, 32), gpu=(8, 128))
small_blocks = atelier.scale().pick(essai=3, cpu=12, gpu=12)


# %% experiment="gpt2_step_times"
@atelier.experiment(needs=[inject_lora], full={"rounds": 7, "shapes": ((1, 128),)})
def gpt2_step_times(rounds=2, shapes=(small_shape,)):
    """De même à la taille de GPT-2 small : lot → méthode → durées, et opérations."""
    base, found = atelier.gpt2_shape("small", n_layer=small_blocks), {}
    for shape in shapes:
        steps = steps_of(base, shape, 3)
        counts = {name: (ch8.counted_flops(loss), ch8.learning_count(model)) for name, (model, loss) in steps.items()}
        with ch8.one_thread():
            found[shape] = {"pas": ch8.step_parts(steps, rounds), "comptés": counts}
    return found


# %%
gpt2_times = gpt2_step_times.authors() or gpt2_step_times()
for shape, measured in gpt2_times.items():
    ch8.step_times_table(measured | {"lot": shape}, measured["comptés"], "GPT-2 small")

# %% [markdown]
# Reste une autre comparaison.

# %% [markdown]
# Le temps pour atteindre une **qualité**. Reprenons les descentes de 8.9. Le
# seuil est la perplexité finale de LoRA, graine par graine ; on compte les pas jusqu'à ce qu'une méthode passe dessous
# **et y reste** ; on multiplie par la durée médiane d'un pas de Colibri, mesurée plus haut.

# %%
ch8.durable_table(descents.authors(), lora_step_times.authors())

# %% [markdown]
# À pas égaux, « tout » arrive le premier : il passe pour de bon, aux cinq graines, avant la fin de la leçon de LoRA. Un
# pas de LoRA coûte moins : en opérations, on ne peut plus les départager. LoRA en haut n'y arrive pas à toutes les
# graines.
# <!-- claim: same_quality_same_operations -->

# %% [markdown]
# Ce que chaque diapositive voulait dire, et ce qui est vrai :
#
# - « *not faster* » : l'avant et le gradient des activations restent entiers, c'est **vrai** ; mais le gradient des
#   poids et leur mise à jour disparaissent, un tiers des opérations ;
# - « *much less parameters* » : **faux** pour le calcul, puisque les poids gelés travaillent encore ; **vrai** pour
#   l'optimiseur ;
# - « *+ caching* » : **vrai** quand rien n'apprend en bas, donc pas avec LoRA posé partout, et à condition de relire
#   les mêmes phrases d'un passage à l'autre.
#
# Et la mémoire ? L'état de l'optimiseur fond, les activations presque pas ; 8.12 les pèsera. L'article, lui, annonce
# « a 25% speedup » sur GPT-3, et 10 000 fois moins de place. Refaisons ses divisions.

# %%
ch8.paper_arithmetic()

# %% [markdown]
# Vous savez maintenant lire ce 25 % : un gain de **temps**, soit un tiers de débit en plus, « as we do not need to
# calculate the gradient for the vast majority of the parameters » (§ 4.2). C'est bien l'argument du $4N/6N$, et un peu
# moins que lui.
#
# ## 8.11 ★ La carte des méthodes
#
# LoRA n'est qu'une façon d'apprendre peu. On range les autres en trois familles : celles qui **ajoutent** des modules
# ou des jetons (adaptateurs, chapitre 7 ; *prefix tuning*, Li et Liang, 2021 : des clés et des valeurs apprises devant
# le texte ; (IA)³, Liu et al., 2022 : un gain appris par composante) ; celles qui **choisissent** des poids (BitFit,
# Ben Zaken et al., 2022 : les seuls biais ; les LayerNorm) ; celles qui **réécrivent** la mise à jour : LoRA et ses
# variantes. LoRA+ (Hayou et al., 2024) donne à $B$ un taux plus grand qu'à $A$ ; PiSSA (Meng et al., 2024) part des
# premières directions de $W$ ; VeRA (Kopiczko et al., 2024) gèle deux matrices au hasard, communes à toutes les
# couches, et n'apprend que deux vecteurs ; DoRA (Liu et al., 2024) sépare longueur et direction.

# %% [markdown]
# ### ✎ dora_weight


# %% exercise="dora_weight"
def dora_weight(
    weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, magnitude: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Poids d'une couche DoRA : la direction d'un poids mis à jour par LoRA, des longueurs
    apprises.

    weight : (out, in) flottant, le poids W de la base ; A : (r, in) ; B : (out, r) ; magnitude :
    (out, 1), la longueur à donner à chaque ligne ; tous du même type ; scaling : le facteur α / r.
    Rend (out, in), du type de weight : chaque ligne a la direction de la même ligne de
    W + scaling·B·A, et pour longueur (euclidienne) son nombre de `magnitude`. Aucune ligne de
    W + scaling·B·A n'est nulle.

    Source : Liu et al., « DoRA: Weight-Decomposed Low-Rank Adaptation », ICML 2024, arXiv
    2402.09353, équation (5).
    """
    ### BEGIN SOLUTION
    v = weight + scaling * (B @ A)
    return magnitude * v / v.norm(dim=1, keepdim=True)
    ### END SOLUTION


# %% [markdown]
# Chacune, par peft. Lisez chaque ligne : c'est tout ce qu'il faut pour l'essayer ailleurs.

# %%
from peft import IA3Config, LNTuningConfig, PrefixTuningConfig, VeraConfig
from peft.optimizers import create_loraplus_optimizer

warnings.filterwarnings("ignore", "`past_key_values`", FutureWarning)  # le prefix de peft garde l'ancien nom
sixteen = {"r": 16, "lora_alpha": 32} | everywhere
some_peft = {
    "LayerNorm": LNTuningConfig(target_modules=["ln_1", "ln_2", "ln_f"]),
    "(IA)³": IA3Config(
        target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True
    ),
    "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=16),
    "VeRA": VeraConfig(r=64, **everywhere),
    "LoRA": LoraConfig(**sixteen),
    "LoRA+": LoraConfig(**sixteen),
    "rsLoRA": LoraConfig(**sixteen, use_rslora=True),
    "DoRA": LoraConfig(**sixteen, use_dora=True),
    "PiSSA": LoraConfig(**sixteen, init_lora_weights="pissa"),
}


def peft_model(name, seed=0):
    """Colibri et cette méthode ; « tout » et BitFit n'ont pas besoin de peft : tout apprend, ou les seuls biais."""
    torch.manual_seed(seed)
    if name in ("tout", "BitFit"):
        return whole() if name == "tout" else only(whole(), "bias")
    model = copy.deepcopy(colibri).cpu()  # PiSSA se prépare sur l'hôte
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(model, copy.deepcopy(some_peft[name])).to(colibri.device)


def plus(model, lr):
    """L'optimiseur de LoRA+ : un taux quatre fois plus grand pour B."""
    options = {"lr": lr, "loraplus_lr_ratio": 4, "betas": (0.9, 0.95), "weight_decay": 0.0, "fused": True}
    return create_loraplus_optimizer(model, torch.optim.AdamW, **options)


def peft_lesson(name, lr, seed, steps=lesson_steps):
    """Une leçon de fantasy par cette méthode."""
    return learn(peft_model(name, seed), lr, seed, steps=steps, optimizer_of=plus if name == "LoRA+" else adamw)


def short_windows(model, text, tokens=extract_tokens):
    """Un modèle jugé par fenêtres de 128 jetons : le prefix occupe seize des 256 places du contexte."""
    return atelier.evaluate_perplexity(model, text, max_tokens=tokens, context=128)


# %% [markdown]
# Laquelle apprend le mieux, et qu'oublie-t-elle ? Même règle qu'en 8.6 : le même budget de pas, cinq taux pour chacune,
# sur le texte de réglage. Un taux de LoRA ne vaut rien pour (IA)³ : les grilles ne se ressemblent pas. (peft
# tire $A$ d'une loi plus étroite que la vôtre : même pour LoRA, son taux n'a pas à être celui de 8.6.)

# %%
peft_rates = {
    "tout": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3),
    "BitFit": (2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2),
    "LayerNorm": (2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2),
    "(IA)³": (1e-2, 2e-2, 4e-2, 8e-2, 1.6e-1),
    "prefix": (4e-2, 8e-2, 1.6e-1, 3.2e-1, 6.4e-1),
    "VeRA": (2e-2, 4e-2, 8e-2, 1.6e-1, 3.2e-1),
    "LoRA": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "LoRA+": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    "rsLoRA": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    "DoRA": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "PiSSA": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3),
}


# %% experiment="peft_tuned"
@atelier.experiment(full={"names": tuple(peft_rates), "tries": 5, "steps": 40})
def peft_tuned(names=("BitFit",), tries=1, seed=100, steps=lesson_steps):
    """Perplexité sur le texte de réglage, une graine à part : (méthode, taux) → perplexité."""
    found = {}
    for name, lr in [(each, lr) for each in names for lr in peft_rates[each][:tries]]:
        found[name, lr] = short_windows(peft_lesson(name, lr, seed, steps), "b_validation").perplexity
    return found


# %%
ch8.rates_table(peft_tuned.authors() or peft_tuned())

# %%
peft_best = {"tout": 1e-3, "BitFit": 2e-2, "LayerNorm": 1e-2, "(IA)³": 2e-2, "prefix": 1.6e-1, "VeRA": 8e-2,
             "LoRA": 8e-3, "LoRA+": 4e-3, "rsLoRA": 4e-3, "DoRA": 8e-3, "PiSSA": 1e-3}  # fmt: skip
atelier.bet("best_of_the_map", "Laquelle de ces variantes fera nettement mieux que LoRA sur B, à leur meilleur taux ?",
            options=("DoRA", "rsLoRA", "LoRA+", "aucune"))  # fmt: skip


# %% experiment="peft_map"
@atelier.experiment(full=five_seeds | {"names": tuple(peft_best), "steps": 40})
def peft_map(names=("BitFit",), seeds=(0,), steps=lesson_steps):
    """Pertes sur B et sur A après une leçon de chaque méthode, à son taux : par graine ; nombres appris ; taux."""
    found = {"apprennent": {}, "taux": {}, "B": {}, "A": {}}
    for name in names:
        lessons = [peft_lesson(name, peft_best[name], seed, steps) for seed in seeds]
        found["apprennent"][name], found["taux"][name] = ch8.learning_count(lessons[0]), peft_best[name]
        for key, text in (("B", "b_test"), ("A", "a_validation")):
            found[key][name] = [short_windows(model, text).losses for model in lessons]
    return found | {"rien": {k: short_windows(colibri, t).losses for k, t in (("B", "b_test"), ("A", "a_validation"))}}


# %%
map_here, map_author = peft_map(), peft_map.authors()
atelier.settle("best_of_the_map", ch8.peft_map_table(map_here, map_author))
ch8.plot_peft_map(map_author or map_here)

# %% [markdown]
# Aucune variante de LoRA ne la devance nettement : DoRA gagne moins de 1 %, rsLoRA ne s'en départage pas, LoRA+ et
# PiSSA perdent un peu.
# <!-- claim: no_variant_clearly_beats_lora -->
# Le taux de PiSSA est le huitième de celui de LoRA : à un même taux pour toutes, c'est lui que l'on aurait jugé.
# <!-- claim: pissa_wants_a_smaller_rate -->
# Avec vingt fois moins de nombres au moins, BitFit, les LayerNorm, (IA)³ et VeRA font plus de la moitié du gain de
# LoRA.
# <!-- claim: small_ones_go_half_way -->
# Et l'oubli ne suit pas le nombre de paramètres : (IA)³ et VeRA oublient bien moins que LoRA, BitFit ne s'en départage
# pas, LoRA+ et rsLoRA, qui en apprennent autant, oublient plus.
# <!-- claim: forgetting_is_not_a_count -->
# Le *prefix*, parti de clés et de valeurs tirées au hasard, fait moins bien que Colibri sans rien : quarante pas ne lui
# suffisent pas.
# <!-- claim: a_prefix_needs_more_steps -->

# %% [markdown]
# ## 8.12 QLoRA : geler sur quatre bits
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

    w : flottant de forme quelconque, de n éléments, pas forcément contigu ; il est lu à plat, ligne
        après ligne, et coupé en blocs de block_size éléments voisins.
    Rend (codes, absmax). absmax, (n / block_size,) du type de w : le plus grand |w| de chaque bloc.
    codes, (n,) uint8 : pour chaque élément, l'indice, de 0 à 15, du niveau de NF4_LEVELS le plus
    proche de w / absmax du bloc ; à égalité, le niveau le plus bas. Un bloc entièrement nul a pour
    absmax 0 et pour codes 7, le niveau 0.
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


# %% [markdown]
# Colibri en NF4, à côté d'une grille régulière (int4), par blocs de 64 dans les deux cas.


# %%
def on_nf4(w):
    """w écrit en NF4 par votre fonction, puis relu."""
    return ch8.restore(*nf4_quantize(w), NF4_LEVELS, w)


def int4_codes(w):
    """Codes réguliers de −7 à 7, et le pas de chaque bloc de 64."""
    blocks = w.reshape(-1, 64)
    step = blocks.abs().amax(dim=1, keepdim=True) / 7
    return (blocks / step).round(), step


def on_int4(w):
    codes, step = int4_codes(w)
    return (codes * step).reshape(w.shape)


# %% experiment="four_bits"
@atelier.experiment(needs=[nf4_quantize])
def four_bits():
    """Colibri sur 4 bits : erreur relative de chaque couche, emploi des codes, perte sur A."""
    weights = {name: ch8.weight_of(layer) for name, layer in ch8.linear_layers(colibri).items()}
    found = {"pertes": {"FP32": losses_on(colibri, "a_validation")}, "erreurs": {}}
    for kind, rounding in {"NF4": on_nf4, "int4": on_int4}.items():
        found["erreurs"][kind] = {n: ((rounding(w) - w).norm() / w.norm()).item() for n, w in weights.items()}
        rounded = ch8.replace_weights(colibri, lambda _, w: rounding(w))
        found["pertes"][kind] = losses_on(rounded, "a_validation")
    nf4 = torch.cat([nf4_quantize(w)[0] for w in weights.values()])
    int4 = torch.cat([int4_codes(w)[0].flatten() + 7 for w in weights.values()])
    return found | {"codes": {"NF4": ch8.code_shares(nf4), "int4": ch8.code_shares(int4)}}


# %%
ch8.four_bits_table(four_bits())

# %% [markdown]
# NF4 fait une plus petite erreur que la grille régulière sur toutes les sortes de couches, et ses codes servent plus
# également.
# <!-- claim: nf4_serves_its_codes -->

# %% [markdown]
# (L'**entropie** des codes, en bits, est le nombre de bits qu'ils portent vraiment : quatre si les seize servent
# également, moins sinon.) Diviser par le plus grand poids du bloc n'est pas diviser par l'écart-type : Yoshida (2023)
# montre que les niveaux optimaux dépendent de la taille du bloc.
#
# Le fichier, lui, compte aussi les échelles : une par bloc de 64. **Calculez d'abord :** combien de bits de plus par
# poids, si elles sont en FP32 ? L'article les quantifie à leur tour : c'est la **double quantification**.

# %%
ch8.double_quantization()

# %% [markdown]
# L'article annonce 0,373 bit et « environ 3 Go pour un modèle de 65 milliards » (§ 1 et 3). Puis la question qui
# décide : LoRA, appris par-dessus, rattrape-t-il ce que l'arrondi a coûté ? Et, une fois appris, **dans quoi le
# fusionner** ? La base n'existe plus qu'en 4 bits. Trois réponses : dans la base **relue** ; dans la base d'origine,
# sur 16 ou 32 bits, qu'il n'a jamais vue ; dans la base relue, que l'on **requantifie** ensuite. C'est un piège bien
# vivant : peft en garde la trace (questions 2105 et 2321 de son dépôt).

# %%
atelier.bet("where_to_merge", "Laquelle des trois fusions aura la plus mauvaise perplexité ?",
            options=("dans la base relue", "dans la base d'origine", "relue, puis requantifiée"))  # fmt: skip


# %% experiment="onto_four_bits"
@atelier.experiment(needs=[nf4_quantize, inject_lora, merge_lora], full=five_seeds)
def onto_four_bits(seeds=(0,)):
    """LoRA appris sur une base NF4, puis trois fusions : version → perte sur B, part à part, par graine."""
    four = ch8.replace_weights(colibri, lambda _, w: on_nf4(w))
    found = {"NF4, sans LoRA": [losses_on(four)] * len(seeds)}
    for seed in seeds:
        lora = learn(with_lora(seed=seed, base=four), best_rate["LoRA"], seed)
        in_four = merged(four, pairs_of(lora))
        versions = {
            "à part": lora,
            "dans la base relue": in_four,
            "dans la base d'origine": merged(colibri, pairs_of(lora)),
            "relue, puis requantifiée": ch8.replace_weights(in_four, lambda _, w: on_nf4(w)),
        }
        for name, version in versions.items():
            found.setdefault(name, []).append(losses_on(version))
    return found


# %%
merges_here, merges_author = onto_four_bits(), onto_four_bits.authors()
atelier.settle("where_to_merge", ch8.merges_table(merges_here, merges_author, descents.authors()))

# %% [markdown]
# Requantifier après la fusion est la pire des trois : l'arrondi reprend une bonne part de ce que LoRA avait gagné.
# <!-- claim: requantizing_is_the_worst_merge -->
# Dans la base relue, la fusion rend exactement ce qu'on avait appris. Et dans la base d'origine, elle fait mieux encore
# : LoRA y trouve une base sans erreur d'arrondi, un peu meilleure que celle qu'il connaissait.
# <!-- claim: the_original_base_is_the_best_merge -->
# LoRA a-t-il rattrapé l'arrondi ? En partie : l'écart à une base FP32 est plus petit après qu'avant, mais il reste.
# <!-- claim: lora_mends_some_of_the_rounding -->

# %% [markdown]
# Ces modèles arrondissent le poids et le gardent en FP32 : ils mesurent la qualité, pas la place. Voici la couche que
# l'on mettrait dans un modèle : ses poids n'existent que le temps d'un passage.

# %% [markdown]
# ### ✎ QLoRALinear


# %% exercise="QLoRALinear"
class QLoRALinear(nn.Module):
    """Une couche linéaire gelée, gardée sur quatre bits, et sa mise à jour de rang faible.

    base : nn.Linear en float32, avec ou sans biais ; son nombre de poids est pair, et block_size le
        divise. La base n'est pas modifiée, et la couche n'en garde que ce qui suit.
    rank, alpha : ceux de LoRALinear ; block_size : la taille des blocs, celle de nf4_quantize.
    Le poids est gardé en codes NF4, deux par octet, avec un absmax par bloc : environ un demi-octet
    par poids en tout, que state_dict() écrit et que load_state_dict() rend à une autre couche de
    même forme. Le biais, s'il y en a un, est gardé, gelé. Seuls apprennent lora_A, (r, entrée),
    tiré d'une loi normale centrée, et lora_B, (sortie, r), nul au départ.
    forward(x) : x (…, entrée) → (…, sortie), la réponse du poids relu, plus le biais et la mise à
    jour de LoRA, sans jamais former B·A ni garder le poids relu.

    Source : Dettmers et al., « QLoRA », NeurIPS 2023, § 3, équation (5) ; sans la double
    quantification.
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


# %% [markdown]
# Tout Colibri sur votre couche. Que tient-il en mémoire, que garde-t-il pour le passage arrière, et apprend-il encore ?
# Une dernière version refait le passage avant de chaque bloc au moment du passage arrière, au lieu d'en garder les
# activations (*gradient checkpointing*, Chen et al., 2016) : elle échange du temps contre de la place.


# %%
def packed(rank=16, alpha=32.0, seed=0):
    """Colibri, dont chaque couche linéaire est devenue votre QLoRALinear ; A et B seules apprennent."""
    torch.manual_seed(seed)
    model = copy.deepcopy(colibri)
    for path, conv in ch8.conv_paths(model).items():
        linear = nn.Linear(*conv.weight.shape).to(colibri.device)
        linear.load_state_dict({"weight": conv.weight.T.contiguous(), "bias": conv.bias})
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, QLoRALinear(linear, rank, alpha))
    for name, p in model.named_parameters():
        p.requires_grad_("lora_" in name)
    return model.to(colibri.device)


def rereading(model):
    """Le même modèle, qui refait le passage avant de chaque bloc au passage arrière au lieu d'en garder le détail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers en changera bientôt le nom
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


# %% experiment="memory_held"
@atelier.experiment(needs=[QLoRALinear, inject_lora], full={"shape": (8, 64)})
def memory_held(shape=batch_shape):
    """Octets d'un pas : version → (ce que le modèle tient, gradients et Adam, gardé pour le passage arrière)."""
    ids = next(atelier.windows(fantasy, *shape)).to(colibri.device)
    versions = {
        "tout, FP32": whole,
        "LoRA, base FP32": with_lora,
        "LoRA, base BF16": lambda: with_lora(base=copy.deepcopy(colibri).bfloat16()),
        "LoRA, base NF4": packed,
        "LoRA, base NF4, activations refaites": lambda: rereading(packed()),
    }
    found = {}
    for name, make in versions.items():
        model = make()
        kept = ch8.saved_bytes(lambda: model(ids, labels=ids, use_cache=False).loss, model)
        found[name] = (ch8.held_bytes(model), ch8.state_bytes(model), kept)
    return found


# %%
ch8.memory_table(memory_held())

# %% [markdown]
# Trois choses à lire. L'état de l'optimiseur fond : LoRA en garde douze fois moins que le fine-tuning complet.
# <!-- claim: lora_melts_the_optimizer -->
# La base sur quatre bits tient moins de la moitié de la place de la base FP32, tables comprises, qui restent en FP32.
# <!-- claim: nf4_halves_the_base -->
# Mais le passage arrière garde autant d'activations avec LoRA que sans, et **plus** encore sur la base NF4 : écrite
# naïvement, elle garde chaque poids qu'elle vient de relire. Refaire les activations règle les deux.
# <!-- claim: naive_nf4_keeps_its_weights -->


# %% experiment="packed_lesson"
@atelier.experiment(needs=[QLoRALinear, inject_lora], full={"rounds": 9, "shape": (8, 64)})
def packed_lesson(rounds=3, shape=batch_shape):
    """Tout Colibri sur 4 bits, avant et après une leçon ; et la durée d'un pas, à côté d'une base FP32."""
    model, ids = packed(), next(atelier.windows(fantasy, *shape)).to(colibri.device)
    found = {"avant": losses_on(model)}
    found["après"] = losses_on(learn(model, best_rate["LoRA"]))
    steps = {"base FP32": with_lora(), "base NF4": packed(), "base NF4, activations refaites": rereading(packed())}
    with ch8.one_thread():
        parts = ch8.step_parts(
            {n: (m, lambda m=m: m(ids, labels=ids, use_cache=False).loss) for n, m in steps.items()}, rounds
        )
    return found | {"pas": parts}


# %%
ch8.packed_note(packed_lesson())

# %% [markdown]
# La base tient sur quatre bits, et le modèle apprend.
# <!-- claim: packed_colibri_still_learns -->

# %% [markdown]
# À plus grande échelle, la même place se gagne encore autrement : les moments d'Adam sur 8 bits (Dettmers et al., 2022)
# ou paginés hors de la carte (QLoRA, § 3), une base en MXFP4 ou NVFP4, que les cartes récentes multiplient sans la
# relire. D'après l'article, 65 milliards de paramètres tiennent ainsi sur une carte de 48 Go.
#
# ## 8.13 Apprendre une préférence
#
# On n'a pas toujours la bonne réponse ; on sait souvent laquelle de deux est meilleure. **DPO** (Rafailov et al., 2023)
# en fait une perte, sans modèle de récompense : la politique, le modèle qui apprend, doit préférer la réponse choisie
# **plus que ne le faisait** la référence, le modèle d'où elle est partie. Avec LoRA, la référence ne coûte rien : c'est
# la base, adaptateur débranché.

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

    policy_chosen, policy_rejected, ref_chosen, ref_rejected : (B,) flottants, la log-probabilité
    (en nats) de la réponse choisie, ou rejetée, de chaque paire, sous la politique et sous la
    référence. beta : sans unité, > 0.
    Rend un tenseur à 0 dimension : la moyenne, sur les paires, de −ln σ(β·marge), où la marge est
    ce que l'écart entre choisie et rejetée a gagné de la référence à la politique. Finie même pour
    de grands écarts ; aucun gradient ne va à la référence.

    Source : Rafailov et al., « Direct Preference Optimization », NeurIPS 2023, arXiv 2305.18290,
    équation (7).
    """
    ### BEGIN SOLUTION
    policy = policy_chosen - policy_rejected
    reference = (ref_chosen - ref_rejected).detach()
    return -F.logsigmoid(beta * (policy - reference)).mean()
    ### END SOLUTION


# %% [markdown]
# Douze pas. À chaque pas, quatre couples : une fenêtre de vers, choisie ; une fenêtre d'administration, rejetée.


# %%
administration = atelier.corpus_tokens("a_train")
preference_steps = atelier.scale().pick(essai=2, cpu=12, gpu=12)


def log_likelihood(model, ids):
    """Log-probabilité, en nats, de chaque ligne de jetons → (lignes,)."""
    logits = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
    return logits.gather(-1, ids[:, 1:, None]).sum((1, 2))


# %% experiment="preferences"
@atelier.experiment(needs=[dpo_loss], full=five_seeds)
def preferences(steps=preference_steps, lr=1e-3, beta=0.1, seeds=(0,)):
    """DPO par peft, vers contre administration : par graine, la perte pas à pas, ce que gagnent d'autres couples."""
    found = []
    for seed in seeds:
        torch.manual_seed(seed)
        policy = get_peft_model(copy.deepcopy(colibri), LoraConfig(r=16, lora_alpha=32, **everywhere))
        optimizer, losses = adamw(policy, lr), []
        sources = [atelier.windows(text, 4, 64, seed) for text in (verses, administration)]
        for pair in itertools.islice(zip(*sources, strict=True), steps):
            with torch.no_grad(), policy.disable_adapter():
                before = [log_likelihood(policy, ids) for ids in pair]
            loss = dpo_loss(*(log_likelihood(policy, ids) for ids in pair), *before, beta)
            optimizer.zero_grad(), loss.backward(), optimizer.step()
            losses.append(loss.item())
        found.append({"pertes": losses} | {t: losses_on(policy, t) for t in ("bprime_test", "a_validation")})
    return found


# %%
before_dpo = {text: losses_on(colibri, text) for text in ("bprime_test", "a_validation")}
ch8.preferences_table(preferences(), preferences.authors(), before_dpo)

# %% [markdown]
# En douze pas, la perte tombe de $\ln 2$ à presque rien : les couples étaient faciles, un vers ne ressemble pas à une
# fiche.
# <!-- claim: dpo_learns_the_preference -->
# Mais regardez ce qu'elle a appris. L'administration est devenue moins probable, c'est ce qu'on demandait ; et **les
# vers aussi**. La perte ne veut qu'un écart : il grandit dès que la réponse rejetée perd plus que la choisie.
# <!-- claim: chosen_answers_fall_too -->
# Une préférence ne remplace donc pas un fine-tuning : on la fait d'ordinaire suivre un apprentissage sur les réponses
# choisies.
# <!-- claim: chosen_answers_fall_too -->

# %% [markdown]
# ## 8.14 ★ Une récompense qu'un programme vérifie
#
# Parfois, nul besoin de préférences : un programme sait dire si la réponse est bonne. Une démonstration est juste, un
# test passe, un vers a douze syllabes. Ici, la réponse est un vers, écrit après un autre ; la récompense vaut 1 s'il
# est fini et si `ch8.syllables` y compte douze syllabes, 0 sinon. Ce programme se trompe parfois (il ignore les
# diérèses) : une récompense n'est jamais tout à fait ce que l'on voulait.

# %%
ch8.say_syllables(("Le jour n'est pas plus pur que le fond de mon cœur", "Un vers de plus"))
endings = [tokenizer.convert_tokens_to_ids("<|endoftext|>"), *tokenizer.encode("\n")]


@functools.cache
def verse_writer():
    """Colibri qui a lu des vers par votre LoRA, fusionné : la référence de cette section."""
    return merged(colibri, pairs_of(learn(with_lora(), best_rate["LoRA"], text=verses)))


def write(model, openings, n):
    """n vers tirés au hasard après chaque amorce : (amorces, T) → (amorces × n, 24 au plus), complétés de zéros."""
    rows = openings.to(model.device).repeat_interleave(n, 0)
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": 24, "eos_token_id": endings, "pad_token_id": 0}
    with torch.no_grad():
        return model.generate(input_ids=rows, attention_mask=torch.ones_like(rows), **options)[:, rows.shape[1] :]


def finished(new):
    """Les jetons qui terminent un vers : (lignes, T) → booléens."""
    return torch.isin(new, torch.tensor(endings).to(new.device))


def counted_syllables(new, n):
    """Les syllabes de chaque vers, 0 s'il n'est pas fini → (amorces, n)."""
    lines = [tokenizer.decode(row, skip_special_tokens=True).split("\n")[0] for row in new]
    return (torch.tensor([ch8.syllables(line) for line in lines]).to(new.device) * finished(new).any(1)).view(-1, n)


def twelve(new, n):
    """La récompense : 1 si le vers est fini et compte douze syllabes, 0 sinon → (amorces, n)."""
    return (counted_syllables(new, n) == 12).float()


def nearly(new, n):
    """La même, graduée : 1 à douze syllabes, un quart de moins par syllabe de trop ou trop peu, jamais moins que 0."""
    return (1 - (counted_syllables(new, n) - 12).abs() / 4).clamp(min=0)


# %% [markdown]
# Sans rien apprendre, on peut déjà écrire $n$ vers et garder le meilleur (*best-of-n*). Si chacun a une chance $p$
# d'être bon, l'un des $n$ l'est avec une chance $1 - (1 - p)^n$ : du temps de calcul, contre de la qualité.

# %%
atelier.bet(
    "best_of_sixteen", "Seize vers par amorce : dans quelle part des cas l'un d'eux au moins en a douze (en %) ?"
)


# %% experiment="best_of_n"
@atelier.experiment(needs=[inject_lora, merge_lora], full={"openings": 60, "n": 16})
def best_of_n(openings=3, n=4):
    """La récompense des vers de Colibri, et de Colibri qui a lu des vers : qui → par amorce neuve, n notes."""
    found = {}
    for name, writer in {"Colibri": colibri, "a lu des vers": verse_writer()}.items():
        torch.manual_seed(0)
        found[name] = twelve(write(writer, ch8.openings("bprime_test", openings), n), n).tolist()
    return found


# %%
best_here, best_author = best_of_n(), best_of_n.authors()
atelier.settle("best_of_sixteen", ch8.best_of_n_table(best_author or best_here))

# %% [markdown]
# Colibri n'écrit presque jamais de vers de douze syllabes ; après une leçon de vers, il en écrit un sur seize. Et parmi
# seize essais, plus d'une fois sur deux, il y en a un.
# <!-- claim: sixteen_tries_pay -->
# Mais il a fallu en écrire seize, et le modèle n'a rien appris.

# %% [markdown]
# Peut-on **apprendre** de cette récompense ? C'est ce que fait **GRPO** (Shao et al., 2024), qui entraîne les modèles
# de raisonnement d'aujourd'hui. À chaque amorce, un groupe de vers ; l'**avantage** d'un vers est sa récompense, moins
# la moyenne du groupe, en écarts-types : personne n'a eu à estimer ce que valait l'amorce. On rend plus probables les
# vers dont l'avantage est positif, moins probables les autres, sans s'éloigner trop de la référence : c'est le terme
# de Kullback et Leibler, le **KL**, qu'on estime jeton par jeton. La référence, là encore, est la base, adaptateur
# débranché.
#
# Un groupe où tous échouent n'apprend rien, et à un vers sur seize, un groupe de seize échoue en entier plus d'une
# fois sur trois. On apprend donc d'une récompense **graduée**, `nearly`, qui sait dire lequel de deux mauvais vers est
# le moins mauvais ; on juge sur l'autre, des amorces neuves. (Le taux, un millième, a été choisi entre deux, sur une
# graine et des amorces à part.)


# %%
def beside_reference(policy, openings, new):
    """Des vers, jeton par jeton : log-probabilité, KL estimé face à la référence, et ce qui compte (fin comprise)."""
    rows = torch.cat([openings.to(new.device).repeat_interleave(len(new) // len(openings), 0), new], 1)

    def log_probabilities():
        logits = policy(input_ids=rows).logits[:, openings.shape[1] - 1 : -1].log_softmax(-1)
        return logits.gather(-1, new[..., None])[..., 0]

    with torch.no_grad(), policy.disable_adapter():
        before = log_probabilities()
    now, ends = log_probabilities(), finished(new).long()
    return now, (before - now).exp() - (before - now) - 1, ends.cumsum(1) - ends == 0


def grpo_step(policy, optimizer, openings, n, beta):
    """Un pas de GRPO : n vers par amorce, jugés face à leur groupe. Rend leur récompense moyenne."""
    new = write(policy, openings, n)
    rewards = nearly(new, n)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    now, drift, counts = beside_reference(policy, openings, new)
    gain = (now - now.detach()).exp() * advantages.view(-1, 1)  # le rapport vaut 1 : seul compte son gradient
    loss = -((gain - beta * drift) * counts).sum() / counts.sum()
    optimizer.zero_grad(), loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    return rewards.mean().item()


def judged(policy, openings, n, seed):
    """Sur des amorces neuves : récompense moyenne par amorce, KL moyen par jeton, et les six premiers vers."""
    torch.manual_seed(1000 + seed)
    new = write(policy, openings, n)
    with torch.no_grad():
        _, drift, counts = beside_reference(policy, openings, new)
    lines = [tokenizer.decode(row, skip_special_tokens=True).split("\n")[0] for row in new[::n][:6]]
    return {"récompense": twelve(new, n).mean(1).tolist(), "KL": drift[counts].mean().item(), "vers": lines}


def reward_lesson(seed, steps, groups, n, beta, fresh, lr):
    """Une leçon : `groups` amorces par pas, n vers par amorce ; jugée avant et après sur les amorces `fresh`."""
    torch.manual_seed(seed)
    policy = get_peft_model(copy.deepcopy(verse_writer()), LoraConfig(r=16, lora_alpha=32, **everywhere)).eval()
    optimizer, read = adamw(policy, lr), ch8.openings("bprime_train", 400)
    before, found = judged(policy, fresh, min(n, 8), seed), {"pas": []}
    for _ in range(steps):
        some = read[torch.randint(len(read), (groups,))]
        found["pas"].append(grpo_step(policy, optimizer, some, n, beta))
    after = judged(policy, fresh, min(n, 8), seed)
    return found | {"avant": before, "après": after, "B′": losses_on(policy, "bprime_test")}


# %% experiment="twelve_lesson"
@atelier.experiment(
    needs=[inject_lora, merge_lora], full=five_seeds | {"steps": 16, "groups": 4, "n": 16, "openings": 60}
)
def twelve_lesson(steps=2, groups=2, n=4, openings=3, seeds=(0,), beta=0.02, lr=1e-3):
    """GRPO en LoRA, récompense graduée : par graine, pas à pas, puis les vers de douze syllabes, et la perte sur B′."""
    fresh = ch8.openings("bprime_test", openings)
    runs = [reward_lesson(seed, steps, groups, n, beta, fresh, lr) for seed in seeds]
    return {"B′ avant": losses_on(verse_writer(), "bprime_test"), "leçons": runs}


# %%
ch8.reward_table(twelve_lesson(), twelve_lesson.authors())

# %% [markdown]
# Seize pas, et la part des vers de douze syllabes monte un peu, de six à huit sur cent ; l'intervalle ne contient pas
# zéro.
# <!-- claim: a_graded_reward_teaches_a_little -->
# Le modèle s'est peu éloigné de sa référence, et pourtant, à chaque graine, il lit un peu moins bien les vers : une
# récompense ne demande que ce qu'elle compte.
# <!-- claim: a_reward_asks_only_what_it_counts -->
# Écrire seize fois, sans rien apprendre, trouvait un tel vers plus d'une fois sur deux : à ce budget, chercher paie
# plus qu'apprendre.
# <!-- claim: searching_pays_more_than_sixteen_steps -->

# %% [markdown]
# ## 8.15 Où en est Colibri
#
# Deux lignes de plus au tableau : Colibri en NF4, et votre LoRA fusionné, sur la langue générale : c'est son oubli que
# l'on y lit. Son fichier est celui d'un Colibri entier ; l'adaptateur seul est bien plus petit, et la ligne le dit.


# %% experiment="row_nf4"
@atelier.experiment(needs=[nf4_quantize])
def row_nf4():
    """Colibri en NF4, au tableau ; la taille est celle d'un fichier de codes serrés et d'échelles en FP32."""
    rounded = ch8.replace_weights(colibri, lambda _, w: on_nf4(w))
    size = ch8.nf4_file_bytes(colibri, nf4_quantize)
    return atelier.save_variant("nf4", rounded, size, "ch8_lora", "poids en NF4, par blocs de 64, calcul en FP32")


# %% experiment="row_lora"
@atelier.experiment(needs=[inject_lora, merge_lora])
def row_lora():
    """Colibri adapté à la fantasy par votre LoRA, fusionné, au tableau ; les octets sont ceux du fichier entier."""
    pairs = pairs_of(lora_of())
    fused, alone = (
        merged(colibri, pairs),
        ch8.file_bytes({f"{k}.{i}": t.cpu() for k, both in pairs.items() for i, t in enumerate(both)}),
    )
    size = ch8.file_bytes(ch8.plain_tensors(fused, torch.float32))
    what = f"adapté à la fantasy par LoRA, fusionné ; l'adaptateur seul : {round(alone / 1e3)} ko"
    return atelier.save_variant("lora-b", fused, size, "ch8_lora", what)


# %%
ch8.announce(row_nf4())
ch8.announce(row_lora())

# %%
atelier.board(until="ch8_lora")

# %% [markdown]
# **Ce que vous savez maintenant.** Un fine-tuning bouge toutes les directions, et à cette échelle on ne peut pas en
# jeter beaucoup.
# <!-- claim: every_direction_counts -->
# LoRA apprend d'emblée $r(d + k)$ nombres au lieu de $dk$ : zéro d'un côté pour partir de la base, hasard de l'autre
# pour pouvoir en partir. Son facteur décide de ce qui reste égal quand le rang change : $1/r$, l'effet du premier pas ;
# $1/\sqrt r$, sa taille.
# <!-- claim: size_grows_as_root_effect_as_rank -->
# Un pas coûte les deux tiers des opérations d'un pas complet, plus les siennes ; davantage d'économie demande que le
# bas du modèle ne change pas.
# <!-- claim: two_thirds_half_and_a_third -->
# Ce qu'il épargne à coup sûr, c'est l'optimiseur et le disque ; et sa base tient sur quatre bits.
# <!-- claim: lora_melts_the_optimizer -->
# Ce qu'il n'atteint pas, la table des jetons, se laisse apprendre à côté.
# <!-- claim: table_beside_lora -->
# Et vous savez le faire à un autre modèle : poser, apprendre, régler, écrire, relire, fusionner, servir.
#
# Il reste tout ce que ce cours n'a pas dit : c'est à vous de l'exposer, au chapitre 9.

# %%
atelier.progress()

# %% [markdown]
# **Références.** Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, ICLR 2022, arXiv 2106.09685 · Eckart
# et Young, *The approximation of one matrix by another of lower rank*, Psychometrika, 1936 · Loshchilov et Hutter,
# *Decoupled Weight Decay Regularization*, ICLR 2019, arXiv 1711.05101 · Hayou et al., *The Impact of Initialization on
# LoRA Finetuning Dynamics*, 2024, arXiv 2406.08447, et *LoRA+*, 2024, arXiv 2402.12354 · Kalajdzievski, *A Rank
# Stabilization Scaling Factor for Fine-Tuning with LoRA*, 2023, arXiv 2312.03732 · Schulman et Thinking Machines Lab,
# *LoRA Without Regret*, 29 septembre 2025 · Biderman et al., *LoRA Learns Less and Forgets Less*, 2024, arXiv
# 2405.09673 · Ilharco et al., *Editing Models with Task Arithmetic*, ICLR 2023, arXiv 2212.04089 · Chen et al.,
# *Punica: Multi-Tenant LoRA Serving*, 2023, arXiv 2310.18547 · Sheng et al., *S-LoRA*, 2023, arXiv 2311.03285 · Ben
# Zaken et al., *BitFit*, ACL 2022, arXiv 2106.10199 · Li et Liang, *Prefix-Tuning*, 2021, arXiv 2101.00190 · Liu et
# al., *Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning* ((IA)³), 2022, arXiv
# 2205.05638 · Liu et al., *DoRA*, ICML 2024, arXiv 2402.09353 · Meng et al., *PiSSA*, 2024, arXiv 2404.02948 · Kopiczko
# et al., *VeRA*, ICLR 2024, arXiv 2310.11454 · Dettmers et al., *QLoRA: Efficient Finetuning of Quantized LLMs*,
# NeurIPS 2023, arXiv 2305.14314, et *8-bit Optimizers via Block-wise Quantization*, ICLR 2022, arXiv 2110.02861 ·
# bibliothèque bitsandbytes, `functional.py`, `create_normal_map` · Yoshida, *NF4 Isn't Information Theoretically
# Optimal (and that's Good)*, 2023, arXiv 2306.06965 · Rafailov et al., *Direct Preference Optimization*, NeurIPS 2023,
# arXiv 2305.18290 · Shao et al., *DeepSeekMath* (GRPO, § 4.1), 2024, arXiv 2402.03300 · Chen et al., *Evaluating Large
# Language Models Trained on Code* (§ 2.1), 2021, arXiv 2107.03374 · bibliothèque peft, Hugging Face · Houlsby et al.,
# *Parameter-Efficient Transfer Learning for NLP*, ICML 2019, arXiv 1902.00751
