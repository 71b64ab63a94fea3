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
# # Chapitre 3 · Quantification
#
# Chacun des paramètres de Colibri est écrit sur 32 bits. Combien en faut-il vraiment pour que ses phrases restent les
# mêmes ?
#
# Dans ce chapitre, vous écrivez de quoi répondre, puis vous mesurez. À la fin, vous savez prendre un modèle que
# personne ne vous a préparé, et le quantifier.
#
# Comptez deux heures pour l'essentiel : les sections 3.1 à 3.10, l'idée de GPTQ (3.13) et l'assemblage (3.15). Les
# exercices marqués « approfondissement » sont un bonus : leurs points s'ajoutent, sans dépasser le maximum. Ce
# chapitre a plus d'exercices que les deux premiers, donc plus de points ; ce qu'il pèse dans une note finale, c'est
# votre enseignant qui en décide.
#
# Rien ne vous arrête : tant qu'un exercice n'est pas fait, les expériences qui en dépendent montrent le résultat de
# l'auteur et le disent.

# %%
from fractions import Fraction

import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch3

atelier.describe_machine()

# %% tags=["setup"]
import copy
import math
from collections.abc import Callable

import torch
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

# %%
atelier.bet(
    "same_sentence",
    "Sur combien de bits par poids, au moins, Colibri écrit-il encore exactement la même phrase ?",
    options=("seize", "huit", "quatre", "deux"),
)

# %% [markdown]
# Voici Colibri, et quelques fenêtres de texte pour regarder ce qui circule dans ses couches. Elles viennent de son
# texte d'apprentissage ; la perplexité, elle, sera toujours mesurée sur un extrait qu'il n'a jamais lu.

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
calibration = ch3.calibration_ids(colibri, tokenizer, atelier.scale().pick(essai=4, cpu=8, gpu=64))
linear_layers = {name: module for name, module in colibri.named_modules() if isinstance(module, Conv1D)}
linear_size = sum(layer.weight.numel() for layer in linear_layers.values())
ch3.portrait(colibri.config, colibri.num_parameters(), linear_size)

# %% [markdown]
# Un mot sur les noms, que les cellules emploient. Un bloc de GPT-2 fait deux choses : une **attention**, où chaque
# jeton regarde les précédents, et un **MLP** (*multi-layer perceptron*), deux couches linéaires séparées par une
# fonction courbe, la **GELU**. Avant chacune, un **LayerNorm** ramène le vecteur d'un jeton à une longueur fixe. D'où
# quatre couches linéaires par bloc, dont voici les chemins.

# %%
layer_weights = {name: atelier.for_float64(layer.weight.detach()).T for name, layer in linear_layers.items()}
ch3.layers_table({name: tuple(w.shape) for name, w in layer_weights.items()})

# %% [markdown]
# `Conv1D` n'a de convolution que le nom : c'est la couche linéaire de GPT-2 dans transformers, qui calcule $y = xW +
# b$ et range donc $W$ en (entrée, sortie). D'où le `.T` de la cellule : dans tout le chapitre, une matrice de poids
# est en (sortie, entrée), comme dans `nn.Linear`, et une de ses lignes calcule une sortie.

# %% [markdown]
# ## 3.1 Trois façons de réduire un modèle
#
# La **quantification** garde tous les poids et les écrit sur moins de bits. La **distillation** entraîne un petit
# modèle à imiter un grand. L'**élagage** supprime des poids. Elles ne s'excluent pas.

# %%
ch3.three_compressions()

# %% [markdown]
# Les diapositives disent deux choses de la quantification. Elle « *stores or performs computation on 4/8 bit
# integers* » : garder des entiers et calculer avec des entiers sont deux affaires, la première de mémoire (3.12), la
# seconde de temps (3.11), et l'on peut faire l'une sans l'autre. Et elle serait « the most effective and practical
# way » d'utiliser un grand modèle. C'est une affirmation : il faut la mesurer, et mesurer de même les deux autres
# façons de réduire. D'où un tableau unique pour tout le cours, trois colonnes par variante : sa **perplexité** (entre
# combien de jetons, en moyenne, le modèle hésite), les **octets** de son fichier, le **temps** d'une fenêtre. Première
# ligne, le point de départ.


# %% experiment="row_fp32"
@atelier.experiment()
def row_fp32():
    """Colibri tel que livré, au tableau."""
    size = ch3.file_bytes(ch3.plain_tensors(colibri, torch.float32))
    return atelier.save_variant("fp32", colibri, size, "ch3_quantification", "tel que livré")


# %%
ch3.announce(row_fp32())

# %% [markdown]
# ## 3.2 Un nombre à virgule, bit par bit

# %%
atelier.bet("one_tenth", "0,1 s'écrit-il exactement en binaire, sur assez de bits ?", options=("oui", "non"))

# %% [markdown]
# Si vous changez le dernier bit, de combien le nombre bouge-t-il ? Cliquez sur les bits, changez de format, tapez un
# autre nombre.

# %%
ch3.explore_bits(0.1, "FP16")
atelier.settle("one_tenth", "oui" if Fraction(0.1) == Fraction(1, 10) else "non")

# %% [markdown]
# Trois champs : le **signe** S, l'**exposant** E qui dit où est la virgule, la **fraction** F qui dit quoi écrire
# derrière. La diapositive donne
#
# $$ (-1)^{S} \times (1 + F) \times 2^{E - 127}, $$
#
# où $F$ est la fraction lue entre 0 et 1. Essayez-la sur un FP16 : elle tombe à côté. Pourquoi 127 ?
#
# <details><summary>Réponse</summary>
#
# Parce qu'elle ne décrit que FP32, et que 127 est le milieu des exposants que l'on écrit sur 8 bits.
#
# </details>

# %% [markdown]
# Pour lire tous les formats, il manque trois choses à cette formule :
#
# - le décalage est toujours le milieu des exposants que l'on écrit : 127 avec 8 bits, 15 avec 5, 7 avec 4 ;
# - un exposant écrit tout en 0 annonce un **sous-normal** : il n'y a plus de 1 caché devant la fraction, et l'exposant
#   reste celui du plus petit nombre normal ; sans eux, il y aurait un trou autour de zéro ;
# - un exposant tout en 1 est réservé à $\pm\infty$ et à nan. **E4M3**, lui, ne peut pas se priver d'autant de motifs :
#   il n'a pas d'infini, et seul le motif tout en 1 est un nan.

# %% [markdown]
# ### ✎ decode_float


# %% exercise="decode_float"
def decode_float(bits: int, exponent_bits: int, fraction_bits: int) -> float:
    """Valeur réelle du nombre à virgule flottante dont le motif de bits est `bits`.

    bits : entier positif ou nul ; de gauche à droite, 1 bit de signe, exponent_bits bits
        d'exposant, fraction_bits bits de fraction. Exemple : 0x3C00 en FP16, soit (5, 10), vaut
        1,0.
    exponent_bits, fraction_bits : (8, 23) pour FP32, (5, 10) pour FP16, (8, 7) pour BF16, (4, 3)
        pour E4M3 ; toute autre paire avec exponent_bits ≥ 2 est permise.
    Rend un float de Python, d'après les règles de l'IEEE 754 : décalage d'exposant
    2^(exponent_bits−1) − 1, sous-normaux quand l'exposant écrit est nul, zéros signés
    (0,0 et −0,0) ; l'exposant écrit tout en 1 donne ±inf si la fraction est nulle, nan sinon.
    Exception : (4, 3) suit la règle d'E4M3, sans infini ; seuls les deux motifs S.1111.111 y sont
    des nan, tous les autres sont des nombres ordinaires (le plus grand vaut 448).

    Source : IEEE 754-2019, § 3.4 ; Micikevicius et al., « FP8 Formats for Deep Learning », 2022,
    § 3.
    """
    ### BEGIN SOLUTION
    sign = -1.0 if (bits >> (exponent_bits + fraction_bits)) & 1 else 1.0
    exponent = (bits >> fraction_bits) & (2**exponent_bits - 1)
    fraction = bits & (2**fraction_bits - 1)
    bias = 2 ** (exponent_bits - 1) - 1

    if exponent == 2**exponent_bits - 1:
        if (exponent_bits, fraction_bits) != (4, 3):
            return math.nan if fraction else sign * math.inf
        if fraction == 2**fraction_bits - 1:
            return math.nan
    if exponent == 0:
        return sign * fraction / 2**fraction_bits * 2.0 ** (1 - bias)
    return sign * (1 + fraction / 2**fraction_bits) * 2.0 ** (exponent - bias)
    ### END SOLUTION


# %% [markdown]
# Ce que vous venez d'écrire tient en deux formules, où le décalage vaut $2^{e-1} - 1$ pour $e$ bits d'exposant :
#
# $$ \underbrace{(-1)^S \times (1 + F) \times 2^{E - \text{décalage}}}_{\text{normal}}, \qquad
# \underbrace{(-1)^S \times F \times 2^{1 - \text{décalage}}}_{\text{sous-normal, } E = 0}. $$
#
# Elles se raccordent : du plus grand sous-normal au plus petit normal, l'écart est celui de tous leurs voisins.

# %% [markdown]
# Tous les nombres d'E4M3, lus par votre fonction : où sont-ils serrés, où sont-ils rares ?


# %% experiment="numbers_read"
@atelier.experiment(needs=[decode_float])
def numbers_read(step=7):
    """Les 256 motifs d'E4M3, et un motif de FP16 sur sept, lus par votre fonction et par torch."""
    patterns = {"E4M3": range(2**8), "FP16": range(0, 2**16, step)}
    sizes = {"E4M3": (4, 3), "FP16": (5, 10)}
    return {
        name: {
            "vous": torch.tensor([decode_float(p, *sizes[name]) for p in patterns[name]]),
            "torch": torch.tensor([ch3.FORMATS[name].value(p) for p in patterns[name]]),
        }
        for name in patterns
    }


# %%
ch3.number_rulers(numbers_read())

# %% [markdown]
# ## 3.3 Étendue ou précision
#
# Un bit d'exposant de plus double l'étendue des exposants ; un bit de fraction de plus divise l'écart entre voisins
# par deux. Avec 16 bits, il faut choisir.
#
# ??? q="formats"

# %%
ch3.formats_table()

# %%
ch3.range_and_precision(torch.cat([w.flatten() for w in layer_weights.values()]))

# %% [markdown]
# Plus une ligne est basse, plus le format est précis ; plus elle est longue, plus il va loin. À gauche, chaque ligne
# remonte : ce sont les sous-normaux, de moins en moins précis. Les poids de Colibri tiennent dans une bande étroite.

# %%
seen_values = ch3.collect(colibri, calibration[:2])
atelier.bet("overflows", "Qu'est-ce qui approche le plus du plafond de FP16 ?", options=list(seen_values))
atelier.bet("vanishes", "De quoi FP16 arrondit-il la plus grande part à zéro ?", options=list(seen_values))


# %% experiment="half_census"
@atelier.experiment()
def half_census():
    """Ce que seize bits font à chaque espèce de valeurs : la plus grande, ce qui déborde, s'annule, s'arrondit."""
    found = {}
    for kind, v in seen_values.items():
        half, brain = v.half().float(), v.bfloat16().float()
        finite = half.isfinite()
        found[kind] = {
            "plus grande": v.abs().max().item(),
            "débordent": (~finite).float().mean().item(),
            "annulées": (half == 0).float().mean().item(),
            "sous-normales": (v.abs() < ch3.FORMATS["FP16"].smallest_normal).float().mean().item(),
            "erreur FP16": ((half - v).abs() / v.abs())[finite].median().item(),
            "erreur BF16": ((brain - v).abs() / v.abs()).median().item(),
        }
    return found


# %%
census = half_census()
ch3.census_table(census)
atelier.settle("overflows", max(census, key=lambda kind: census[kind]["plus grande"]))
atelier.settle("vanishes", max(census, key=lambda kind: census[kind]["annulées"]))

# %% [markdown]
# Les poids et les activations tiennent à l'aise. Ce qui approche du plafond de FP16, ce sont les calculs
# intermédiaires : un LayerNorm a besoin d'une somme de carrés, qui grandit avec la dimension.
# <!-- claim: sums_come_closest_to_overflow -->
# Colibri est étroit ; dans un grand modèle, chaque somme a bien plus de termes. Voilà pourquoi on accumule les sommes
# en FP32, même dans un modèle « en FP16 ». BF16 ne connaît pas ce plafond, mais se trompe huit fois plus.
# <!-- claim: bf16_errs_eight_times_more -->

# %%
ch3.magnitudes(seen_values, ("poids", "entrées des couches", "gradients des poids"))

# %% [markdown]
# Autre danger, à gauche : les gradients sont petits, et FP16 en arrondit une part à zéro.
# <!-- claim: fp16_zeroes_some_gradients -->
# On les multiplie donc avant de les ranger (*loss scaling*, Micikevicius et al., 2018, arXiv 1710.03740), ou l'on
# prend BF16, dont l'exposant est celui de FP32 (Kalamkar et al., 2019, arXiv 1905.12322).
#
# Et la perplexité ? Pour le savoir, il faut un Colibri dont toutes les couches linéaires ont d'autres poids. C'est le
# geste de tout ce chapitre ; écrivons-le une fois pour toutes.
#
# Un modèle de PyTorch est un arbre de modules ; `named_modules()` le parcourt et donne à chacun son chemin. C'est
# ainsi que `linear_layers` a été fait, au début du chapitre.

# %% [markdown]
# ### ✎ quantize_linears


# %% exercise="quantize_linears"
def quantize_linears(
    model: GPT2LMHeadModel, round_weight: Callable[[str, torch.Tensor], torch.Tensor]
) -> GPT2LMHeadModel:
    """Une copie d'un GPT-2 dont les poids des couches linéaires des blocs sont passés par
    round_weight.

    round_weight : (name, w) → le poids à mettre à la place. name est le chemin du module, par
        exemple « transformer.h.0.attn.c_attn » ; w est un tenseur (sortie, entrée), et ce qui est
        rendu aussi.
    Sont concernés les Conv1D, et eux seuls : tables, LayerNorms, biais et tête gardent leurs
    valeurs, et la tête reste le même tenseur que la table des jetons.
    Rend un nouveau modèle, qui ne partage aucun tenseur avec `model` ; `model` n'est pas modifié.
    """
    ### BEGIN SOLUTION
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for name, layer in rounded.named_modules():
            if isinstance(layer, Conv1D):
                layer.weight.copy_(round_weight(name, layer.weight.T).T)
    return rounded
    ### END SOLUTION


# %% [markdown]
# Reste à comparer deux versions. On les fait lire le même extrait, coupé en seize parts : ce qui compte est l'écart,
# part à part, et l'intervalle où sa moyenne se tient.

# %%
extract_tokens = atelier.scale().pick(essai=512, cpu=1024, gpu=65536)
long_extract = {"tokens": max(extract_tokens, 8192)}


def losses_of(version, tokens):
    """La perte d'une version de Colibri, part à part, sur les premiers jetons de l'extrait de validation."""
    return atelier.evaluate_perplexity(version, max_tokens=tokens).losses


# %% experiment="float_formats"
@atelier.experiment(needs=[quantize_linears], full=long_extract)
def float_formats(tokens=extract_tokens):
    """Perte de Colibri, part à part, quand poids et entrées des couches linéaires sont arrondis à chaque format."""
    casts = {
        "FP32": lambda x: x,
        "FP16": lambda x: x.half().float(),
        "BF16": lambda x: x.bfloat16().float(),
        "E4M3, tel quel": lambda x: ch3.to_e4m3(x),
        "E4M3, étiré à 448": lambda x: ch3.to_e4m3(x, scaled=True),
    }
    found = {}
    for name, cast in casts.items():
        rounded = quantize_linears(colibri, lambda _, w: cast(w))
        for name_of_layer in linear_layers:
            layer = rounded.get_submodule(name_of_layer)
            layer.register_forward_pre_hook(lambda _, inputs: (cast(inputs[0]),))
        found[name] = losses_of(rounded, tokens)
    return {"jetons": tokens, "pertes": found}


# %%
ch3.formats_losses(float_formats())

# %% [markdown]
# Pour **utiliser** Colibri, seize bits suffisent donc : l'écart est plus petit qu'un pour mille, ou se confond avec
# zéro.
# <!-- claim: sixteen_bits_are_enough -->
# Avec huit bits flottants, la perplexité monte de quelques pour cent.
# <!-- claim: eight_float_bits_cost_a_few_percent -->
#
# « Étiré à 448 » veut dire que chaque tenseur est d'abord mis à l'échelle, pour que son plus grand élément tombe sur
# le plus grand nombre d'E4M3. Un format flottant a déjà de l'étendue : sur cet extrait, on ne peut pas départager les
# deux versions.
# <!-- claim: stretching_e4m3_cannot_be_told_apart -->
# Des entiers, eux, n'ont aucune étendue, et cette idée, **une échelle par tenseur**, devient tout le sujet.


# %% experiment="row_fp16"
@atelier.experiment()
def row_fp16():
    """Colibri, tous ses poids arrondis en FP16, au tableau (le calcul reste en FP32)."""
    rounded = copy.deepcopy(colibri).half().float()
    size = ch3.file_bytes(ch3.plain_tensors(colibri, torch.float16))
    return atelier.save_variant("fp16", rounded, size, "ch3_quantification", "tous les poids arrondis en FP16")


# %%
ch3.announce(row_fp16())

# %% [markdown]
# ## 3.4 Quantifier
#
# **Quantifier**, c'est remplacer chaque valeur d'un grand ensemble, souvent continu, par un élément d'un ensemble
# fini : le plus proche, en général. FP16 était déjà une quantification, à grille irrégulière. Ici, la grille est
# régulière, et un code entier suffit à dire où l'on est.
#
# Bougez le nombre de bits : que devient l'erreur entre deux marches ? Et au-delà de la dernière ?

# %%
ch3.staircase(bits=3)

# %% [markdown]
# Deux erreurs, donc : l'**arrondi**, borné par un demi-pas, et l'**écrêtage**, sans borne, pour ce qui sort de la
# grille. Choisir une grille, c'est arbitrer entre les deux.
#
# Les méthodes publiées se distinguent par trois questions, indépendantes les unes des autres.

# %%
ch3.methods_map()

# %% [markdown]
# ## 3.5 L'application affine
#
# On veut ranger l'intervalle $[-0{,}8 ; 2]$ sur 16 codes, de −8 à 7. Deux réglages : $S$, la longueur d'un pas, et
# $Z$, le code du réel 0. **Cherchez à la main :** rien ne doit dépasser, et aucun code ne doit se perdre.

# %%
ch3.place_by_hand(r_min=-0.8, r_max=2.0, bits=4)

# %% [markdown]
# Écrivons ce que vous venez de chercher. La grille est régulière et passe par zéro :
#
# $$ r = S\,(q - Z). $$
#
# Deux inconnues, deux conditions : $r_{\min}$ doit tomber sur $q_{\min}$ et $r_{\max}$ sur $q_{\max}$.
#
# $$ r_{\min} = S\,(q_{\min} - Z), \qquad r_{\max} = S\,(q_{\max} - Z). $$
#
# Le papier et le crayon suffisent. **Quelle opération entre les deux lignes fait disparaître $Z$ ?** Trouvez $S$, puis
# $Z$ : la suite les demande.

# %% [markdown]
# Rien ne dit que $Z$ tombe sur un entier ; on l'arrondit, et toute la grille glisse d'une fraction de pas. Pourquoi
# cette contrainte ?
#
# ??? q="zero_point"

# %% [markdown]
# Pour que 0 soit sur la grille, encore faut-il que l'intervalle le contienne : on l'**élargit** d'abord jusqu'à lui.
# Sans cela, $Z$ sortirait de l'ensemble des codes. Jacob et al. (CVPR 2018, § 3.1), que cite la diapositive, veulent
# que 0 soit un code ; élargir l'intervalle est ce que fait leur bibliothèque, gemmlowp.

# %% [markdown]
# ### ✎ affine_qparams


# %% exercise="affine_qparams"
def affine_qparams(
    r_min: float,
    r_max: float,
    bits: int = 8,
    signed: bool = True,
) -> tuple[float, int]:
    """Échelle S et zéro entier Z de la quantification affine r = S·(q − Z).

    r_min, r_max : bornes des réels à représenter (float), dans l'unité de r. Zéro est toujours
        représenté, même quand l'intervalle ne le contient pas.
    bits : nombre de bits d'un code ; les codes vont de −2^(bits−1) à 2^(bits−1) − 1 si signed, de 0
        à 2^bits − 1 sinon, et tous servent.
    Rend (S, Z) : S est un float, dans l'unité de r ; Z est un int, le code du réel 0, au plus
    proche.
    Un intervalle réduit à zéro rend (1.0, 0).
    Lève ValueError si r_min > r_max, si une borne est infinie ou nan, ou si bits < 2.

    Source : Jacob et al., « Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference », CVPR 2018, § 2.1 et 3.1 ; gemmlowp,
    doc/quantization_example.cc.
    """
    ### BEGIN SOLUTION
    if bits < 2:
        raise ValueError(f"il faut au moins 2 bits, pas {bits}")
    if not (math.isfinite(r_min) and math.isfinite(r_max)):
        raise ValueError(f"bornes non finies : [{r_min}, {r_max}]")
    if r_min > r_max:
        raise ValueError(f"intervalle à l'envers : {r_min} > {r_max}")

    q_min, q_max = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    r_min, r_max = min(r_min, 0.0), max(r_max, 0.0)
    if r_min == r_max:
        return 1.0, 0
    scale = (r_max - r_min) / (q_max - q_min)
    zero_point = round(q_min - r_min / scale)
    return scale, max(q_min, min(q_max, zero_point))
    ### END SOLUTION


# %% [markdown]
# Vos deux formules, une fois démêlées. Soustraire les deux lignes fait disparaître $Z$ :
#
# $$ r_{\max} - r_{\min} = S\,(q_{\max} - q_{\min}) \quad\Longrightarrow\quad S = \frac{r_{\max} - r_{\min}}{q_{\max} - q_{\min}}, $$
#
# où $q_{\max} - q_{\min} = 2^b - 1$ est le nombre de pas, et non celui des codes. La première ligne donne ensuite le
# zéro, $Z = q_{\min} - r_{\min}/S$, que l'on arrondit.

# %% [markdown]
# Votre grille, posée toute seule. Essayez un intervalle tout positif, puis des codes sans signe, puis 2 bits.


# %% experiment="fitted_grid"
@atelier.experiment(needs=[affine_qparams])
def fitted_grid(r_min=-0.8, r_max=2.0, bits=4, signed=True):
    """La grille que pose votre fonction sur un intervalle."""
    step, zero_code = affine_qparams(r_min, r_max, bits, signed)
    return {"r_min": r_min, "r_max": r_max, "bits": bits, "signed": signed, "S": step, "Z": zero_code}


# %%
ch3.number_line(fitted_grid(), affine_qparams)

# %% [markdown]
# Il reste à passer des réels aux codes. Retournez l'égalité $r = S\,(q - Z)$ : ce qu'elle rend n'est pas entier, et
# peut sortir de la grille. Il faudra donc **arrondir**, **décaler** de $Z$, **ramener** dans les bornes, **changer de
# type** : dans quel ordre ? Que se passerait-il, par exemple, si l'on changeait de type avant de ramener dans les
# bornes ?

# %% [markdown]
# ### ✎ quantize_affine


# %% exercise="quantize_affine"
def quantize_affine(
    r: torch.Tensor,
    scale: float,
    zero_point: int,
    bits: int = 8,
    signed: bool = True,
) -> torch.Tensor:
    """Codes entiers des réels de r, sur la grille de pas scale où le réel 0 a le code zero_point.

    r : tenseur flottant de forme quelconque, même à 0 dimension.
    scale : float > 0, la longueur d'un pas ; zero_point : le code du réel 0.
    bits, signed : les codes vont de −2^(bits−1) à 2^(bits−1) − 1 si signed, de 0 à 2^bits − 1
    sinon.
    Rend un tenseur d'entiers de la forme de r : int8 (signed) ou uint8 (non signé) si bits ≤ 8,
    int32 au-delà.
    Un réel à mi-chemin de deux pas va vers le multiple pair de scale ; un réel hors de la grille
    prend le code du bord.

    Source : Jacob et al., CVPR 2018, § 2.1, équation (1).
    """
    ### BEGIN SOLUTION
    q_min, q_max = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if bits > 8:
        dtype = torch.int32
    else:
        dtype = torch.int8 if signed else torch.uint8
    codes = torch.round(r / scale) + zero_point
    return codes.clamp(q_min, q_max).to(dtype)
    ### END SOLUTION


# %% [markdown]
# Et le chemin inverse, qui ne défait pas tout : l'arrondi est perdu.

# %% [markdown]
# ### ✎ dequantize_affine


# %% exercise="dequantize_affine"
def dequantize_affine(q: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    """Réels que représentent les codes q.

    q : tenseur d'entiers (int8, uint8 ou int32) de forme quelconque.
    scale : float > 0, la longueur d'un pas ; zero_point : le code du réel 0.
    Rend un tenseur float32 de la forme de q, dans l'unité de scale ; le code zero_point donne 0.

    Source : Jacob et al., CVPR 2018, § 2.1, équation (1).
    """
    ### BEGIN SOLUTION
    return scale * (q.to(torch.float32) - zero_point)
    ### END SOLUTION


# %% [markdown]
# Combien a-t-on perdu ? On compare l'énergie des valeurs, la somme de leurs carrés, à celle de l'erreur : c'est le
# **rapport signal sur bruit de quantification** (SQNR), en décibels, soit dix fois le logarithme décimal du rapport.
# 20 dB : l'erreur a une énergie cent fois plus petite. 40 dB : dix mille fois.

# %% [markdown]
# ### ✎ sqnr_db


# %% exercise="sqnr_db"
def sqnr_db(r: torch.Tensor, r_hat: torch.Tensor) -> float:
    """Rapport signal sur bruit de quantification, en décibels.

    r : tenseur flottant, les valeurs d'origine ; r_hat : tenseur de même forme, les valeurs
    retrouvées.
    Rend un float, en dB, pour le tenseur entier ; math.inf quand r̂ est exactement r.

    Source : Bennett, « Spectra of Quantized Signals », Bell System Technical Journal, 1948.
    """
    ### BEGIN SOLUTION
    r, r_hat = r.double(), r_hat.double()
    noise = (r - r_hat).square().sum()
    if noise == 0:
        return math.inf
    return (10 * torch.log10(r.square().sum() / noise)).item()
    ### END SOLUTION


# %% [markdown]
# Les poids se lisent dans le modèle. Les activations, non : elles n'existent que pendant un calcul. Pour les voir
# passer, PyTorch a les **crochets** (*hooks*) : `module.register_forward_pre_hook(f)` appelle `f(module, entrées)`
# avant chaque passage, `entrées` étant le n-uplet des arguments, et rend un objet dont `remove()` ôte le crochet. Un
# crochet oublié reste sur le modèle, et parle à chaque appel.

# %% [markdown]
# ### ✎ layer_inputs


# %% exercise="layer_inputs"
def layer_inputs(
    model: GPT2LMHeadModel,
    input_ids: torch.Tensor,
    names: list[str],
) -> dict[str, torch.Tensor]:
    """Ce qui entre dans les couches nommées quand le modèle lit input_ids.

    input_ids : (B, T) entiers, sur l'appareil du modèle ; names : des chemins de modules, par
        exemple « transformer.h.0.attn.c_attn ».
    Rend un dictionnaire : nom → (B·T, in), un jeton par ligne, suite après suite, sans graphe de
    gradient.
    Le modèle est lu dans le mode où il est, et n'en change pas. Aucun crochet n'y reste, quoi qu'il
    arrive : un nom qui n'existe pas lève KeyError ou AttributeError, et ne laisse rien derrière
    lui.
    """
    ### BEGIN SOLUTION
    seen: dict[str, torch.Tensor] = {}
    hooks = []

    def keep(name):
        def hook(module, inputs):
            seen[name] = inputs[0].flatten(0, -2)

        return hook

    try:
        for name in names:
            hooks.append(model.get_submodule(name).register_forward_pre_hook(keep(name)))
        with torch.no_grad():
            model(input_ids)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
    ### END SOLUTION


# %% [markdown]
# Quand l'intervalle n'est pas centré sur zéro, la grille ajustée le suit, là où une grille symétrique gaspille des
# codes. La sortie d'une GELU ne descend guère sous zéro : c'est le cas d'école.

# %%
atelier.bet("gelu_gain", "Sur 8 bits, combien de décibels la grille ajustée gagne-t-elle à la sortie de la GELU ?")


def inputs_of(ids, names=tuple(linear_layers), model=colibri):
    """Ce qui entre dans ces couches quand le modèle lit ids, par votre `layer_inputs` : nom → (jetons, entrée)."""
    return {name: atelier.for_float64(x) for name, x in layer_inputs(model, ids, list(names)).items()}


# %% experiment="fitted_or_symmetric"
@atelier.experiment(needs=[layer_inputs, affine_qparams, quantize_affine, dequantize_affine, sqnr_db])
def fitted_or_symmetric(bits=8):
    """SQNR, bloc par bloc, avec la grille ajustée à [min, max] et avec la grille symétrique."""
    found, seen = {}, inputs_of(calibration)
    for block in range(len(colibri.transformer.h)):
        gelu, qkv = f"transformer.h.{block}.mlp.c_proj", f"transformer.h.{block}.attn.c_attn"
        values = {"sortie de la GELU": seen[gelu], "entrée de Q, K, V": seen[qkv]}
        for what, x in (values | {"poids de Q, K, V": layer_weights[qkv]}).items():
            low, high, peak = x.min().item(), x.max().item(), x.abs().max().item()
            for grid, interval in {"ajustée": (low, high), "symétrique": (-peak, peak)}.items():
                scale, zero = affine_qparams(*interval, bits)
                back = dequantize_affine(quantize_affine(x, scale, zero, bits), scale, zero)
                found.setdefault(f"{what}, grille {grid}", []).append(sqnr_db(x, back))
    return found


# %%
fitted_gains = ch3.grid_gains(fitted_or_symmetric())
atelier.settle("gelu_gain", fitted_gains["sortie de la GELU"])

# %% [markdown]
# Un bit vaudra 6 dB, vous le verrez bientôt. Ajuster la grille fait gagner à peu près un bit à la sortie de la GELU ;
# sur les deux autres, à peu près centrées, le gain est bien plus petit.
# <!-- claim: fitting_pays_off_center -->
# C'est pourquoi l'on se contente souvent, pour les poids, d'une grille symétrique.

# %% [markdown]
# ## 3.6 Un seul pas pour toute une couche
#
# La diapositive montre les poids de la première couche de ResNet-50, un réseau de vision, centrés sur zéro. Ce cours
# suit Colibri : voici les siens, à la place. Ils sont à peu près centrés, eux aussi. **Avant d'exécuter :** si un seul
# nombre devait décider du pas de toute la couche, lequel prendriez-vous ?

# %%
first_mlp = layer_weights["transformer.h.0.mlp.c_fc"]
atelier.show(
    ch3.histogram(first_mlp, "Poids de la première couche MLP"),
    alt=ch3.spread_alt(first_mlp, "poids de la première couche MLP"),
)

# %% [markdown]
# L'échelle verticale est logarithmique : presque tout est au centre, et quelques poids sont loin. Ce sont eux qui vont
# décider pour tous. Si zéro doit tomber sur le code 0, la grille est symétrique et il ne reste qu'une inconnue :
#
# $$ r \approx S\,q, \qquad q \in \{-q_{\max}, \dots, q_{\max}\}. $$

# %% [markdown]
# La diapositive « Absmax » enchaîne trois expressions :
#
# $$ S = \frac{r_{\max} - r_{\min}}{q_{\max} - q_{\min}} = \frac{r_{\min}}{q_{\min} - Z} = \frac{-|r|_{\max}}{q_{\min}}. $$
#
# Calculez-les sur 8 bits avec $Z = 0$, $r_{\min} = -|r|_{\max}$ et $r_{\max} = |r|_{\max}$. Trouvez-vous trois fois
# la même chose ?
#
# <details><summary>Réponse</summary>
#
# Non : la première vaut $|r|_{\max}/127{,}5$, les deux autres $|r|_{\max}/128$, parce que les codes de −128 à 127 ne
# sont pas symétriques.
#
# </details>

# %% [markdown]
# On peut faire tomber $-|r|_{\max}$ sur le code −128 : c'est la forme de la **diapositive**. On peut aussi se priver de
# −128, comme le font Jacob et al. (2018, § 3.1) pour les poids, et faire tomber $|r|_{\max}$ sur 127 : c'est la forme
# **restreinte**. Vous écrirez les deux, et nous mesurerons ce qui les sépare.

# %% [markdown]
# ### ✎ absmax_scale


# %% exercise="absmax_scale"
def absmax_scale(r: torch.Tensor, bits: int = 8, full_range: bool = False) -> torch.Tensor:
    """Échelle d'une quantification symétrique de r, où le réel 0 a le code 0.

    r : tenseur flottant de forme quelconque, même à 0 dimension.
    bits : nombre de bits d'un code signé, de −2^(bits−1) à 2^(bits−1) − 1.
    Rend un tenseur à 0 dimension, du type de r et dans son unité : le pas qui met l'élément le plus
    éloigné de zéro, au signe près, sur le plus grand code, ou, si full_range, sur l'opposé du plus
    petit. Un tenseur nul rend 1.

    Source : Jacob et al., CVPR 2018, § 3.1 (codes de −127 à 127) ; la diapositive « Absmax » donne
    la forme full_range.
    """
    ### BEGIN SOLUTION
    levels = 2 ** (bits - 1) if full_range else 2 ** (bits - 1) - 1
    peak = r.abs().max()
    return torch.where(peak > 0, peak / levels, torch.ones_like(peak))
    ### END SOLUTION


# %% [markdown]
# Combien coûte le poids le plus extrême ? Écartez les $k$ plus grands, et regardez l'échelle de tous les autres.


# %% experiment="outlier_cost"
@atelier.experiment(needs=[absmax_scale])
def outlier_cost(removed=(0, 1, 10, 100, 1000)):
    """L'échelle de la première couche MLP, sur 8 bits, quand on écarte ses k plus grands poids."""
    flat = first_mlp.flatten()
    order = flat.abs().argsort(descending=True)
    found = {}
    for k in removed:
        rest = flat.clone()
        rest[order[:k]] = 0
        found[k] = absmax_scale(rest).item()
    return {"échelles": found, "poids": flat.numel(), "écart-type": flat.std().item()}


# %%
ch3.outlier_table(outlier_cost())

# %% [markdown]
# ??? q="outliers"

# %% [markdown]
# **Diapositive ou forme restreinte ?** Diviser par 128 donne un pas plus fin, mais le plus grand poids, s'il est
# positif, ne tombe plus sur la grille : il est écrêté. Pour arrondir des poids avec vos fonctions, on les divise
# d'abord par leur échelle : il ne reste qu'un pas de 1 et un zéro de code 0.


# %%
def nearest(w, scale, bits):
    """w arrondi au plus proche, sur la grille de pas `scale` (un nombre, ou un par ligne)."""
    return dequantize_affine(quantize_affine(w / scale, 1.0, 0, bits), 1.0, 0) * scale


# %%
atelier.bet(
    "full_range",
    "Sur 2 bits, où l'on choisit entre trois codes et quatre, laquelle des deux formes a le meilleur SQNR ?",
    options=("la forme restreinte", "la forme de la diapositive", "on ne peut pas les départager"),
)


# %% experiment="full_range_or_not"
@atelier.experiment(needs=[absmax_scale, quantize_affine, dequantize_affine, sqnr_db])
def full_range_or_not(bits=(8, 4, 3, 2)):
    """SQNR de chaque couche linéaire, avec l'échelle de la forme restreinte et avec celle de la diapositive."""
    found = {}
    for b in bits:
        for form in ("restreinte", "diapositive"):
            found[form, b] = []
            for w in layer_weights.values():
                scale = absmax_scale(w, b, full_range=form == "diapositive")
                found[form, b].append(sqnr_db(w, nearest(w, scale, b)))
    return found


# %%
two_forms = full_range_or_not()
ch3.forms_table(two_forms)
gap = atelier.paired(two_forms["diapositive", 2], two_forms["restreinte", 2])
winner = "la forme de la diapositive" if gap.mean > 0 else "la forme restreinte"
atelier.settle("full_range", winner if gap.told_apart else "on ne peut pas les départager")

# %% [markdown]
# Sur 8 bits, la différence est infime ; sur 4, 3 et 2 bits, la forme de la diapositive gagne un à deux décibels :
# <!-- claim: full_range_pays_when_codes_are_few -->
# écrêter un seul poids coûte moins cher que d'élargir le pas de tous. Retenez l'idée : le meilleur pas n'est pas
# toujours celui qui n'écrête rien.

# %% [markdown]
# Un bit de plus divise le pas par deux, donc l'énergie de l'erreur par quatre : la théorie promet
# $10 \log_{10} 4 \approx 6$ dB. Elle suppose que l'erreur est n'importe où dans son pas, d'énergie $S^2/12$ en moyenne.
# Sur peu de bits, le pas est plus large que la cloche des poids, et presque tous s'arrondissent à zéro.

# %%
atelier.bet(
    "below_six_db",
    "Sur 2 bits, où le pas dépasse la cloche, l'erreur vraie est…",
    options=("plus grande que S²/12", "plus petite que S²/12"),
)


# %% experiment="six_db_per_bit"
@atelier.experiment(needs=[absmax_scale, quantize_affine, dequantize_affine, sqnr_db])
def six_db_per_bit(bits=tuple(range(2, 13))):
    """SQNR de chaque couche, selon la forme ; et, forme restreinte, ce qu'annonce S²/12, et le pas en écarts-types."""
    found = {}
    for b, w in ((b, w) for b in bits for w in layer_weights.values()):
        scale = absmax_scale(w, b)
        promised = 10 * math.log10(w.square().mean().item() / (scale.item() ** 2 / 12))
        values = {"restreinte": sqnr_db(w, nearest(w, scale, b)), "S²/12": promised}
        wide = absmax_scale(w, b, full_range=True)
        values |= {"diapositive": sqnr_db(w, nearest(w, wide, b)), "pas / écart-type": (scale / w.std()).item()}
        for what, value in values.items():
            found.setdefault((what, b), []).append(value)
    return found


# %%
decibels = six_db_per_bit()
ch3.plot_bits_and_decibels(decibels)
smaller = sum(decibels["restreinte", 2]) > sum(decibels["S²/12", 2])
atelier.settle("below_six_db", "plus petite que S²/12" if smaller else "plus grande que S²/12")

# %% [markdown]
# Avec la forme de la diapositive, la règle des 6 dB tient jusqu'à 4 bits, à moins d'un dixième de décibel, et encore
# à 3 bits, à moins d'un demi, quand le pas dépasse deux écarts-types.
# <!-- claim: six_decibels_a_bit_down_to_3 -->
# La forme restreinte, elle, descend sous la droite à 4 et 3 bits : ce qui lui manque est à peu près le code dont elle
# se prive, $20\log_{10}(8/7)$ puis $20\log_{10}(4/3)$ décibels.
# <!-- claim: the_missing_code_costs_the_gap -->
# Et sur 2 bits, l'erreur vraie est bien plus petite que $S^2/12$ : arrondir un poids à zéro ne coûte jamais plus que
# le poids lui-même, si grand que soit le pas.
# <!-- claim: error_is_bounded_by_the_signal -->

# %% [markdown]
# **Et les activations ?** Regardez, composante par composante, la plus grande valeur rencontrée.


# %% experiment="component_peaks"
@atelier.experiment(needs=[layer_inputs])
def component_peaks():
    """Le plus grand |x| de chaque composante, en entrée de trois couches."""
    last = len(colibri.transformer.h) - 1
    names = [f"transformer.h.{layer}" for layer in ("0.attn.c_attn", "0.mlp.c_fc", f"{last}.mlp.c_proj")]
    return {name: x.abs().amax(0).sort(descending=True).values for name, x in inputs_of(calibration, names).items()}


# %%
ch3.plot_component_peaks(component_peaks())

# %% [markdown]
# Quelques composantes dépassent les autres, et une seule échelle se règle sur elles.
# <!-- claim: some_components_stand_out -->
# Dans les très grands modèles, c'est bien pire : LLM.int8() (Dettmers et al., 2022, arXiv 2208.07339) décrit des
# composantes « aberrantes », présentes dans toutes les couches à partir de 6,7 milliards de paramètres, et les calcule
# à part, en 16 bits.

# %% [markdown]
# ## 3.7 Une échelle par canal
#
# Un poids extrême ne devrait punir que ses voisins. Une ligne de la matrice calcule une sortie, un **canal** :
# donnons à chacune son échelle. Le produit reste le même, l'échelle sort de la somme.
#
# ??? q="per_channel"

# %% [markdown]
# ### ✎ absmax_per_channel


# %% exercise="absmax_per_channel"
def absmax_per_channel(w: torch.Tensor, bits: int = 8, axis: int = 0) -> torch.Tensor:
    """Échelles symétriques de w, une par tranche le long de `axis`.

    w : tenseur flottant à deux dimensions ou plus.
    bits : nombre de bits d'un code signé ; axis : l'axe des tranches, éventuellement compté depuis
    la fin (−1).
    Rend un tenseur du type de w, de même nombre de dimensions : la taille de w sur `axis`, 1 sur
    tous les autres axes, si bien que w / échelles se calcule directement. Chaque échelle est celle
    d'`absmax_scale` pour sa tranche, forme restreinte.

    Source : Krishnamoorthi, « Quantizing deep convolutional networks for efficient inference »,
    2018, § 2.
    """
    ### BEGIN SOLUTION
    others = [d for d in range(w.ndim) if d != axis % w.ndim]
    peak = w.abs().amax(dim=others, keepdim=True)
    return torch.where(peak > 0, peak / (2 ** (bits - 1) - 1), torch.ones_like(peak))
    ### END SOLUTION


# %% experiment="channel_scales"
@atelier.experiment(needs=[absmax_scale, absmax_per_channel])
def channel_scales():
    """Sur 8 bits, l'échelle de chaque canal de la première couche MLP, et l'échelle de toute la couche."""
    return {"canaux": absmax_per_channel(first_mlp).flatten(), "couche": absmax_scale(first_mlp).item()}


# %%
ch3.plot_channel_scales(channel_scales(), "Première couche MLP, 8 bits")

# %% [markdown]
# Le pas unique est celui du canal le plus étendu ; presque tous les autres se contenteraient d'un pas deux fois plus
# petit.
# <!-- claim: most_channels_need_a_smaller_step -->

# %% [markdown]
# Rien n'oblige à s'arrêter là : on peut donner une échelle à chaque **groupe** de 64 poids d'une ligne. Cela coûte
# $16/64 = 0{,}25$ bit de plus par poids, si l'échelle est en FP16. Cela en vaut-il la peine ? Avant de le mesurer, il
# reste à bien choisir l'échelle elle-même.

# %% [markdown]
# ## 3.8 Un pas qui écrête
#
# Sur 3 bits, une ligne n'a que huit codes. Choisir le pas qui n'écrête personne, ou presque, c'est laisser le poids le
# plus extrême décider pour tous les autres.

# %%
atelier.bet(
    "clipping",
    "Si l'on raccourcit le pas jusqu'à écrêter quelques poids, la perplexité de Colibri arrondi sur 3 bits…",
    options=("monte", "ne bouge pas", "baisse"),
)

# %% [markdown]
# Regardons une ligne, et raccourcissons son pas peu à peu, à partir de celui de la diapositive.


# %% experiment="clipping"
@atelier.experiment()
def clipping(row=12, bits=3):
    """L'erreur d'une ligne selon son pas : celle des poids que l'on écrête, celle de tous les autres."""
    w, levels, found = first_mlp[row].double(), 2 ** (bits - 1), {}
    for ratio in torch.linspace(0.3, 1, 71).tolist():
        step = ratio * w.abs().max() / levels
        codes = (w / step).round()
        cut = (codes < -levels) | (codes > levels - 1)
        error = (codes.clamp(-levels, levels - 1) * step - w).square()
        found[round(ratio, 2)] = {"écrêtés": error[cut].sum().item(), "autres": error[~cut].sum().item()}
    return found


# %%
ch3.plot_clipping(clipping())

# %% [markdown]
# La somme des deux erreurs a un creux, et il n'est pas au bout : le meilleur pas est plus court que le plus prudent.
# <!-- claim: the_best_step_clips -->
# Il reste à le trouver, ligne par ligne, parmi quelques candidats.

# %% [markdown]
# ### ✎ mse_scale


# %% exercise="mse_scale"
def mse_scale(w: torch.Tensor, bits: int, ratios: torch.Tensor) -> torch.Tensor:
    """Pas de chaque ligne de w dont l'arrondi fait la plus petite erreur quadratique.

    w : (out, in) flottant ; bits : nombre de bits d'un code signé, de −2^(bits−1) à 2^(bits−1) − 1.
    ratios : (R,) réels de ]0, 1], dans un ordre quelconque : les candidats, en parts du pas de la
        forme full_range d'`absmax_scale` pour cette ligne.
    Rend (out, 1), du type de w. L'erreur est celle des valeurs que rendent les codes, bornes
    comprises. À erreur égale, le plus grand candidat ; une ligne nulle reçoit 1.

    Source : Nagel et al., « A White Paper on Neural Network Quantization », 2021, § 3.1.
    """
    ### BEGIN SOLUTION
    levels = 2 ** (bits - 1)
    ratios = ratios.sort(descending=True).values.to(w)
    widest = w.abs().amax(dim=1, keepdim=True) / levels
    steps = torch.where(widest > 0, widest * ratios, torch.ones_like(widest))  # (out, R)
    codes = (w[:, :, None] / steps[:, None]).round().clamp(-levels, levels - 1)
    errors = (codes * steps[:, None] - w[:, :, None]).square().sum(dim=1)  # (out, R)
    return steps.gather(1, errors.argmin(dim=1, keepdim=True))
    ### END SOLUTION


# %% [markdown]
# Nous avons maintenant quatre grilles pour les poids d'une ligne, et une seule doit servir à la suite : la
# restreinte, celle de la diapositive, celle au pas choisi, et l'affine, la seule qui ne soit pas centrée. C'est la
# dernière qu'emploie l'article de GPTQ, que l'on retrouvera. Votre `affine_qparams` la donne ligne par ligne, et un
# zéro de code
# $Z$ n'est qu'un décalage de $S Z$ : on décale les poids, on les arrondit comme les autres, on les redécale.


# %%
bit_widths = atelier.scale().pick(essai=(4,), cpu=(8, 4, 3, 2), gpu=(8, 4, 3, 2))
few_bits = tuple(b for b in bit_widths if b < 8)
candidates = torch.linspace(0.3, 1, 29)


def grid_of(w, grid, bits):
    """Le pas de chaque ligne de w, et le décalage qui met son zéro sur le code 0."""
    if grid == "affine":
        ends = zip(w.amin(1).tolist(), w.amax(1).tolist(), strict=True)
        scale, zero = torch.tensor([affine_qparams(low, high, bits) for low, high in ends]).to(w)[:, :, None].unbind(1)
        return scale, scale * zero
    if grid == "restreinte":
        return absmax_per_channel(w, bits), 0.0
    return mse_scale(w, bits, {"diapositive": candidates[-1:], "choisie": candidates}[grid]), 0.0


def rounded_on(w, grid, bits):
    """w arrondi au plus proche, une grille par ligne."""
    scale, shift = grid_of(w, grid, bits)
    return nearest(w + shift, scale, bits) - shift


# %% [markdown]
# Maintenant Colibri entier, avec votre `quantize_linears` : arrondissons toutes les couches linéaires, chaque poids
# au plus proche (*round to nearest*, **RTN**). Changez ce que vous voulez dans cette cellule : les grilles, les
# candidats, les couches.


# %% experiment="rtn_grids"
@atelier.experiment(
    needs=[quantize_linears, mse_scale, absmax_per_channel, affine_qparams, quantize_affine, dequantize_affine],
    full=long_extract,
)
def rtn_grids(bits=few_bits, tokens=extract_tokens):
    """Perte de Colibri, part à part, arrondi au plus proche par canal, sur quatre grilles."""
    found = {"FP32": losses_of(colibri, tokens)}
    for b in ch3.progress_bar(bits, "grilles"):
        for grid in ("restreinte", "diapositive", "affine", "choisie"):
            rounded = quantize_linears(colibri, lambda _, w: rounded_on(w, grid, b))
            found[grid, b] = losses_of(rounded, tokens)
    return {"jetons": tokens, "pertes": found}


# %%
on_grids = rtn_grids()
ch3.grids_table(on_grids, "choisie")
chosen, widest = (
    on_grids["pertes"][grid, min(few_bits, key=lambda b: abs(b - 3))] for grid in ("choisie", "diapositive")
)
gap = atelier.paired(chosen, widest)
atelier.settle("clipping", "ne bouge pas" if not gap.told_apart else "baisse" if gap.mean < 0 else "monte")

# %% [markdown]
# La forme restreinte est la pire des quatre, à chaque nombre de bits.
# <!-- claim: the_restricted_grid_is_the_worst -->
# À 4 bits, on ne peut pas départager le pas choisi de celui de la diapositive, ni de la grille affine.
# <!-- claim: grids_tie_at_4_bits -->
# À 3 et à 2 bits, le pas choisi l'emporte nettement sur les trois autres.
# <!-- claim: the_chosen_step_wins_below_4_bits -->

# %% [markdown]
# C'est donc lui que nous gardons. Dans tout le reste du chapitre, un poids s'arrondit au pas que choisit votre
# `mse_scale`, sur tous les codes de $-2^{b-1}$ à $2^{b-1}-1$ ; l'affine ne reviendra qu'à côté de l'article.

# %% [markdown]
# Un nombre du tableau devrait vous arrêter : sur 2 bits, la grille restreinte dépasse 4 096.
# <!-- claim: worse_than_chance -->
# La perplexité disait « entre combien de jetons le modèle hésite », et Colibri n'en connaît que 4 096. Comment hésiter
# entre plus de jetons qu'il n'y en a ?
#
# <details><summary>Réponse</summary>
#
# Il n'hésite pas : il se trompe avec assurance. Qui ne sait rien donne $1/4096$ à chaque jeton, et sa perplexité vaut
# 4 096. Pour faire pire, il faut donner au bon jeton une probabilité plus petite encore, c'est-à-dire miser sur les
# autres. Au-delà de la taille du vocabulaire, mieux vaudrait tirer au sort.
#
# </details>

# %% [markdown]
# ## 3.9 Combien de poids pour une échelle
#
# La grille est choisie ; reste le grain. Arrondissons encore toutes les couches, avec un pas pour tout le tenseur, un
# par canal, ou un par groupe.


# %%
def in_pieces(w, grain):
    """Les poids de w, une ligne par pas : le tenseur entier, un canal, ou un groupe de 64 poids d'un canal."""
    return w.reshape({"tenseur": (1, -1), "canal": w.shape, "groupe": (-1, ch3.GROUP)}[grain])


def round_to_nearest(w, grain, bits):
    """w arrondi au plus proche, un pas choisi pour chaque morceau."""
    return rounded_on(in_pieces(w, grain), "choisie", bits).reshape(w.shape)


# %% experiment="rtn_sweep"
@atelier.experiment(needs=[quantize_linears, mse_scale, quantize_affine, dequantize_affine], full=long_extract)
def rtn_sweep(bits=bit_widths, tokens=extract_tokens):
    """Perte de Colibri, part à part, ses couches linéaires arrondies au plus proche, à trois grains."""
    found = {"FP32": losses_of(colibri, tokens)}
    for grain in ("tenseur", "canal", "groupe"):
        for b in ch3.progress_bar(bits, f"RTN, {grain}"):
            rounded = quantize_linears(colibri, lambda _, w: round_to_nearest(w, grain, b))
            found["RTN", grain, b] = losses_of(rounded, tokens)
    return {"jetons": tokens, "pertes": found}


# %%
rtn_results = rtn_sweep()
ch3.sweep_table(rtn_results)

# %% [markdown]
# Lisez le tableau par colonne. À 8 bits, l'écart au FP32 est plus petit que 1 %, même avec un seul pas par tenseur.
# <!-- claim: eight_bits_cost_less_than_one_percent -->
# À 4, 3 et 2 bits, plus le grain est fin, plus la perte est basse ; et passer d'un pas par tenseur à un par canal
# rapporte d'autant plus que les bits sont rares.
# <!-- claim: grain_matters_when_bits_are_few -->

# %% [markdown]
# Une perplexité est un nombre ; lisez aussi les phrases.


# %% experiment="sentences"
@atelier.experiment(needs=[quantize_linears, mse_scale, quantize_affine, dequantize_affine])
def sentences(prompt="Le salarié peut demander", bits=bit_widths, n_new=24):
    """La suite la plus probable que Colibri donne à `prompt`, arrondi au plus proche, un pas par canal."""
    found = {"FP32": ch3.continuation(colibri, tokenizer, prompt, n_new)}
    for b in bits:
        rounded = quantize_linears(colibri, lambda _, w: round_to_nearest(w, "canal", b))
        found[f"{b} bits"] = ch3.continuation(rounded, tokenizer, prompt, n_new)
    return {"début": prompt, "suites": found}


# %%
continuations = sentences()
ch3.sentences_table(continuations)
atelier.settle("same_sentence", ch3.fewest_bits(continuations))

# %% [markdown]
# ## 3.10 Ce que font PyTorch et ONNX
#
# La diapositive dit : « Used in PyTorch, ONNX ». Prenons-la au mot. Dans PyTorch, on quantifie aujourd'hui par
# `torchao.quantize_`, qui remplace sur place le poids de chaque `nn.Linear` d'un modèle. (Les `Conv1D` de GPT-2 n'en
# sont pas ; on y reviendra.)

# %%
from torchao.quantization import Int8WeightOnlyConfig, quantize_

library_model = torch.nn.Sequential(torch.nn.Linear(*first_mlp.T.shape, bias=False))
library_model[0].weight.data.copy_(first_mlp)
quantize_(library_model, Int8WeightOnlyConfig())
by_torchao = library_model[0].weight
print(type(by_torchao).__name__, by_torchao.qdata.dtype, tuple(by_torchao.qdata.shape), tuple(by_torchao.scale.shape))

# %% [markdown]
# Des codes int8, une échelle par canal : ce que vous venez d'écrire. Mais quelle échelle ? Les mêmes poids passent
# par vos fonctions, par `torchao`, par le quantificateur d'`onnxruntime`, et par l'ancien `torch.ao`. Celui-ci est en
# voie de suppression ; il le dit lui-même, sous le tableau. Vous le rencontrerez dans des tutoriels : n'en partez
# plus.

# %%
atelier.bet("library_scales", "Combien d'échelles différentes ?")


# %% experiment="library_scales"
@atelier.experiment(needs=[absmax_scale, quantize_affine])
def library_scales():
    """Les mêmes poids sur 8 bits symétriques, une échelle par couche : vos fonctions, et trois bibliothèques."""
    all_codes = {}
    for name, full in (("vous, forme restreinte", False), ("vous, forme de la diapositive", True)):
        scale = absmax_scale(first_mlp, 8, full).item()
        all_codes[name] = scale, quantize_affine(first_mlp, scale, 0).cpu()
    all_codes |= ch3.library_codes(first_mlp)
    extreme, own = first_mlp.abs().argmax().item(), all_codes["vous, forme restreinte"][1]
    return {
        name: {
            "S": scale,
            "max|w| / S": first_mlp.abs().max().item() / scale,
            "codes": codes.flatten()[[extreme, 0, 1, 2, 3, 4, 5]].tolist(),
            "autres codes que la forme restreinte": (codes.int() != own.int()).sum().item(),
        }
        for name, (scale, codes) in all_codes.items()
    }


# %%
scales_found = library_scales()
ch3.library_table(scales_found)
atelier.settle("library_scales", len({round(row["max|w| / S"], 1) for row in scales_found.values()}))

# %% [markdown]
# Trois échelles : $|r|_{\max}$ divisé par 127, par 127,5 ou par 128. L'écart est de moins d'un pour cent, mais il
# change des codes : deux bibliothèques « symétriques sur 8 bits » ne rendent pas le même fichier.
# <!-- claim: libraries_use_three_scales -->
# Quand vous comparez deux implémentations, comparez d'abord leurs échelles. (`SYMMETRIC_NO_CLIPPING_ERR` calcule deux
# pas, celui du poids le plus négatif, sur 128, et celui du plus grand, sur 127 ; pour n'écrêter personne, il garde le
# plus long.)

# %% [markdown]
# ## 3.11 Pour aller plus loin : un produit entre entiers
#
# Jusqu'ici, seuls les poids étaient quantifiés, et le calcul restait en FP32. Si les activations le sont aussi, le
# produit lui-même peut se faire entre entiers : c'est **W8A8**, huit bits pour les poids (*weights*), huit pour les
# activations. Chaque jeton a son échelle, chaque sortie la sienne. **Laquelle des deux sort de la somme ?**
#
# Un produit de deux int8 tient tout juste sur 16 bits ; leur somme, non. Sur combien de bits faut-il l'accumuler ?

# %% [markdown]
# L'échelle d'un jeton se calcule au passage (**dynamique**) ou se fixe d'avance sur des textes (**statique**).
#
# ??? q="static_dynamic"

# %% [markdown]
# ### ✎ int8_linear


# %% exercise="int8_linear"
def int8_linear(
    x: torch.Tensor, w_q: torch.Tensor, w_scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Couche linéaire dont le produit se fait entre entiers de 8 bits (W8A8), activations
    quantifiées à la volée.

    x : (N, in) flottant, les activations ; w_q : (out, in) int8, les poids déjà quantifiés ;
    w_scale : (out, 1) flottant, l'échelle de chaque ligne de w_q ; bias : (out,) flottant, ou None.
    Rend (N, out), du type de x : ce que donne la couche linéaire de poids w_scale·w_q et de biais
    bias.
    Chaque ligne de x a son échelle, celle d'`absmax_scale` sur 8 bits, forme restreinte. La somme
    des produits de codes est exacte.
    Sur CUDA, qui ne multiplie pas de matrices d'int32, torch._int_mm ou un produit en float64
    restent exacts ; float32 ne l'est plus au-delà de 2²⁴.

    Source : Dettmers et al., « LLM.int8() », NeurIPS 2022, § 3 (« vector-wise quantization »).
    """
    ### BEGIN SOLUTION
    real = x.to(torch.promote_types(x.dtype, torch.float32))  # en float16, l'accumulateur dépasserait 65 504
    peak = real.abs().amax(dim=1, keepdim=True)
    x_scale = torch.where(peak > 0, peak / 127, torch.ones_like(peak))
    x_q = torch.round(real / x_scale).to(torch.int8)

    wide = torch.int32 if x.device.type == "cpu" else torch.float64
    accumulator = x_q.to(wide) @ w_q.to(wide).T

    y = accumulator * x_scale * w_scale.T
    if bias is not None:
        y = y + bias
    return y.to(x.dtype)
    ### END SOLUTION


# %% [markdown]
# Les deux sortent, et ce qui reste dans la somme est entier :
#
# $$ y_{ij} = \sum_k x_{ik}\, w_{jk} \;\approx\; s^x_i\, s^w_j \underbrace{\sum_k q^x_{ik}\, q^w_{jk}}_{\text{des entiers}} . $$
#
# Votre produit, maintenant, dans chaque couche de Colibri.

# %%
atelier.bet("worst_layers", "Quelles couches ce produit abîme-t-il le plus ?", options=list(ch3.KINDS.values()))


# %% experiment="w8a8_errors"
@atelier.experiment(needs=[layer_inputs, int8_linear, absmax_per_channel, quantize_affine, sqnr_db])
def w8a8_errors():
    """SQNR de la sortie de chaque couche ; la première moitié des fenêtres règle les échelles statiques."""
    half = len(calibration) // 2
    known, fresh = inputs_of(calibration[:half]), inputs_of(calibration[half:])
    found = {}
    for name, layer in linear_layers.items():
        w, x, bias = layer_weights[name], fresh[name], atelier.for_float64(layer.bias.detach())
        scales = absmax_per_channel(w)
        codes = quantize_affine(w / scales, 1.0, 0)
        one, back, exact = known[name].abs().max() / 127, (codes.float() * scales).T, x @ w.T + bias
        static = quantize_affine(x / one, 1.0, 0).float() * one
        dynamic = int8_linear(x, codes, scales, bias)
        outputs = {"poids seuls": x @ back + bias, "dynamique": dynamic, "statique": static @ back + bias}
        found[name] = {how: sqnr_db(exact, y) for how, y in outputs.items()}
    return found


# %%
atelier.settle("worst_layers", ch3.plot_w8a8_errors(w8a8_errors()))

# %% [markdown]
# Quantifier aussi les activations abîme plus chaque couche que quantifier les seuls poids, et la version statique,
# d'ordinaire, plus que la dynamique.
# <!-- claim: activations_cost_more_than_weights -->
# Reste à savoir si le modèle entier s'en aperçoit. Voici Colibri, où chaque couche passe par votre fonction.


# %%
class Int8Layer(torch.nn.Module):
    """Une couche linéaire de Colibri, dont le produit passe par votre fonction."""

    def __init__(self, layer):
        super().__init__()
        w = atelier.for_float64(layer.weight.detach()).T
        self.scales = absmax_per_channel(w)
        self.codes = quantize_affine(w / self.scales, 1.0, 0)
        self.bias = atelier.for_float64(layer.bias.detach())

    def forward(self, x):
        y = int8_linear(atelier.for_float64(x.flatten(0, -2)), self.codes, self.scales, self.bias)
        return y.to(x.device).reshape(*x.shape[:-1], -1)


# %% experiment="row_int8"
@atelier.experiment(needs=[int8_linear, absmax_per_channel, quantize_affine])
def row_int8():
    """Colibri en W8A8, au tableau : chaque couche linéaire est remplacée par la vôtre."""
    whole, ours = copy.deepcopy(colibri), {name: Int8Layer(layer) for name, layer in linear_layers.items()}
    for name, layer in ours.items():
        whole.set_submodule(name, layer)
    stored = ch3.code_tensors(colibri, lambda name, _: (ours[name].codes, ours[name].scales))
    what = "W8A8, une échelle par canal et par jeton, produit écrit en Python"
    return atelier.save_variant("int8", whole, ch3.file_bytes(stored), "ch3_quantification", what)


# %%
ch3.announce(row_int8())

# %% [markdown]
# La perplexité bouge de moins d'un pour cent.
# <!-- claim: w8a8_hardly_moves_perplexity -->
# Et le temps ? Comparez-le à celui de la ligne « fp32 », plus haut : les entiers sont pourtant quatre fois plus
# petits.
#
# ??? q="int8_speed"


# %% experiment="own_product"
@atelier.experiment(needs=[int8_linear, absmax_per_channel, quantize_affine])
def own_product(tokens=512, width=768):
    """Durées, en secondes, de sept appels de votre int8_linear et de la couche en fp32, à la taille de GPT-2 small."""
    layer = torch.nn.Linear(width, 4 * width, device=first_mlp.device)
    x = torch.randn(tokens, width, device=first_mlp.device)
    with torch.inference_mode():
        scales = absmax_per_channel(layer.weight)
        codes = quantize_affine(layer.weight / scales, 1.0, 0)
        own = atelier.call_seconds(lambda: int8_linear(x, codes, scales, layer.bias))
        return {"jetons": tokens, "vous": own, "fp32": atelier.call_seconds(lambda: layer(x))}


# %%
ch3.own_product_time(own_product())

# %% [markdown]
# Élargis avant d'être multipliés, des codes plus petits ne suffisent pas : le produit de l'auteur est plus lent que
# fp32. Pour gagner, il faut un **noyau**, un programme écrit pour les instructions int8 de la machine.
# <!-- claim: own_product_is_slower_than_fp32 -->

# %% [markdown]
# Deux régimes à distinguer. Avec **un jeton**, quand on génère, chaque poids lu ne sert qu'à une multiplication : on
# attend surtout des octets, et int8 en lit un quart. Ce n'est qu'une promesse : encore faut-il un noyau qui lise ces
# octets sans les convertir un à un. Avec **des centaines de jetons**, chaque poids lu sert des centaines de fois : on
# attend surtout des multiplications, et la puce a, ou n'a pas, d'instructions int8.
#
# Voici des noyaux, sur les vraies tailles d'une couche de GPT-2, avec des poids au hasard : le temps n'en dépend pas.

# %%
gpt2_widths = atelier.scale().pick(essai={"small": 768}, cpu={"small": 768}, gpu={"small": 768, "xl": 1600})


# %% experiment="kernel_times"
@atelier.experiment(full={"widths": {"small": 768, "xl": 1600}})
def kernel_times(widths=gpt2_widths, tokens=(1, 512)):
    """Durées, en secondes, de sept appels d'une couche MLP de GPT-2 par chaque noyau de cette machine."""
    found = {}
    with torch.inference_mode():
        for size, n in ch3.progress_bar([(size, n) for size in widths for n in tokens], "chronomètre"):
            width = widths[size]
            layer = torch.nn.Linear(width, 4 * width, device=colibri.device)
            x = torch.randn(n, width, device=colibri.device)
            for name, run in ch3.kernels(layer, x).items():
                found[size, n, name] = atelier.call_seconds(run)
    return found


# %%
ch3.plot_kernel_times(kernel_times())

# %% [markdown]
# ## 3.12 Pour aller plus loin : quatre bits, pour de bon
#
# ??? q="packing"

# %% [markdown]
# PyTorch a bien un type `torch.int4`, mais ne sait encore ni y ranger une valeur ni l'y relire : à nous d'en mettre
# deux par octet. Un entier de −8 à 7 s'écrit sur 4 bits en **complément à deux** : les négatifs sont décalés de 16, si
# bien que −1 s'écrit 1111. Le premier va dans la moitié basse de l'octet, le second dans la moitié haute.

# %% [markdown]
# ### ✎ pack_int4


# %% exercise="pack_int4"
def pack_int4(q: torch.Tensor) -> torch.Tensor:
    """Range deux entiers de 4 bits par octet, le long du dernier axe.

    q : (…, n) entiers (int8, int32 ou int64) de −8 à 7.
    Rend (…, ⌈n/2⌉) uint8 : dans chaque octet, la première valeur occupe les 4 bits de poids faible,
    la suivante les 4 bits de poids fort, chacune en complément à deux (−1 s'écrit 1111, −8 s'écrit
    1000).
    Si n est impair, les 4 derniers bits de poids fort sont nuls.
    Lève ValueError si une valeur sort de [−8, 7].
    """
    ### BEGIN SOLUTION
    if ((q < -8) | (q > 7)).any():
        raise ValueError("pack_int4 n'accepte que des entiers de −8 à 7")
    nibbles = (q & 0xF).to(torch.uint8)
    if q.shape[-1] % 2:
        nibbles = torch.nn.functional.pad(nibbles, (0, 1))
    return nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
    ### END SOLUTION


# %% [markdown]
# Pour relire, une difficulté : comment savoir que 1111 valait −1, et non 15 ?

# %% [markdown]
# ### ✎ unpack_int4


# %% exercise="unpack_int4"
def unpack_int4(p: torch.Tensor, n: int) -> torch.Tensor:
    """Retrouve les entiers de 4 bits rangés par `pack_int4`.

    p : (…, ⌈n/2⌉) uint8, deux valeurs par octet, la première dans les 4 bits de poids faible, en
    complément à deux.
    n : nombre de valeurs sur le dernier axe ; s'il est impair, les 4 derniers bits de poids fort
    sont ignorés.
    Rend (…, n) int8, de −8 à 7.
    """
    ### BEGIN SOLUTION
    nibbles = torch.stack([p & 0xF, p >> 4], dim=-1).flatten(-2)[..., :n].to(torch.int8)
    return torch.where(nibbles >= 8, nibbles - 16, nibbles)
    ### END SOLUTION


# %% [markdown]
# Le même Colibri, dans plusieurs fichiers écrits, puis pesés.

# %%
atelier.bet("file_ratio", "De 32 à 4 bits par poids linéaire, combien de fois le fichier est-il plus petit ?")


def codes_and_scales(w, bits, grain="canal"):
    """Ce que l'on écrit d'une couche : ses codes, de la forme de w, et un pas par canal ou par groupe de poids."""
    pieces = in_pieces(w, grain)
    scales = mse_scale(pieces, bits, candidates)
    return quantize_affine(pieces / scales, 1.0, 0, bits).reshape(w.shape), scales


def packed(w, grain="canal"):
    """Les mêmes, sur 4 bits, deux codes par octet."""
    codes, scales = codes_and_scales(w, 4, grain)
    return pack_int4(codes), scales


def unpacked(codes, scales):
    """Les poids que l'on relit."""
    return dequantize_affine(unpack_int4(codes, 2 * codes.shape[1]), 1.0, 0) * scales


# %% experiment="file_sizes"
@atelier.experiment(needs=[mse_scale, quantize_affine, pack_int4, unpack_int4])
def file_sizes():
    """Octets de Colibri, dans plusieurs fichiers ; celui de 4 bits est relu, et ses codes comparés."""
    files = {
        "FP32": ch3.plain_tensors(colibri, torch.float32),
        "FP16": ch3.plain_tensors(colibri, torch.float16),
        "codes 8 bits": ch3.code_tensors(colibri, lambda _, w: codes_and_scales(w, 8)),
        "codes 4 bits, un par octet": ch3.code_tensors(colibri, lambda _, w: codes_and_scales(w, 4)),
        "codes 4 bits, deux par octet": ch3.code_tensors(colibri, lambda _, w: packed(w)),
        f"… et une échelle par groupe de {ch3.GROUP}": ch3.code_tensors(colibri, lambda _, w: packed(w, "groupe")),
    }
    plain, again = files["codes 4 bits, un par octet"], ch3.reread(files["codes 4 bits, deux par octet"])
    same = all(torch.equal(unpack_int4(again[k], q.shape[1]), q) for k, q in plain.items() if k.endswith(".q"))
    sizes = {name: {"octets": ch3.file_bytes(f), "linéaires": ch3.linear_bytes(f)} for name, f in files.items()}
    return {"fichiers": sizes, "poids linéaires": linear_size, "relu à l'identique": same}


# %%
weighed = file_sizes()
ch3.files_table(weighed)
in_bytes = {name: file["octets"] for name, file in weighed["fichiers"].items()}
atelier.settle("file_ratio", in_bytes["FP32"] / in_bytes["codes 4 bits, deux par octet"])

# %% [markdown]
# Moins de huit fois, et la dernière colonne dit pourquoi : la table des jetons, les positions et les biais restent en
# FP16.
# <!-- claim: the_file_is_less_than_eight_times_smaller -->
# Dans un petit modèle, ils pèsent lourd ; dans GPT-3, presque rien.
# <!-- claim: tables_weigh_little_in_gpt3 -->
# C'est l'usage : GPTQ aussi laisse la table et la tête en 16 bits.


# %% experiment="row_int4"
@atelier.experiment(needs=[mse_scale, quantize_affine, dequantize_affine, pack_int4, unpack_int4])
def row_int4():
    """Colibri sur 4 bits, au plus proche, par canal, relu de son fichier : une ligne du tableau."""
    stored = ch3.code_tensors(colibri, lambda _, w: packed(w))
    rounded = ch3.from_codes(colibri, stored, unpacked)
    what = "poids sur 4 bits au plus proche, par canal, calcul en FP32"
    return atelier.save_variant("int4", rounded, ch3.file_bytes(stored), "ch3_quantification", what)


# %%
ch3.announce(row_int4())

# %% [markdown]
# ## 3.13 GPTQ : arrondir en sachant ce que font les autres
#
# RTN approche chaque **poids** au mieux. Est-ce ce que l'on veut ? Ce qui compte, c'est la **sortie** de la couche,
# $\lVert XW^\top - X\widehat{W}^\top\rVert^2$. Voici de vrais poids de Colibri, deux par ligne : ceux des deux entrées
# les plus liées de la première couche MLP.


# %% experiment="two_weights"
@atelier.experiment(needs=[layer_inputs, mse_scale])
def two_weights(bits=3, name="transformer.h.0.mlp.c_fc"):
    """Arrondir deux poids : chacun au plus proche, ou le second après avoir rattrapé l'erreur du premier."""
    x, w, levels = (
        inputs_of(calibration, [name])[name].double().cpu(),
        layer_weights[name].double().cpu(),
        2 ** (bits - 1),
    )
    links = torch.corrcoef(x.T).nan_to_num().fill_diagonal_(0)
    i, j = divmod(links.abs().argmax().item(), len(links))
    hessian = x[:, [i, j]].T @ x[:, [i, j]]
    pairs = w[:, [i, j]] / mse_scale(w, bits, candidates)
    near = pairs.round().clamp(-levels, levels - 1)
    moved = pairs[:, 1] + (pairs[:, 0] - near[:, 0]) * hessian[0, 1] / hessian[1, 1]
    chosen = torch.stack([near[:, 0], moved.round().clamp(-levels, levels - 1)], 1)
    errors = {name: ((p - pairs) @ hessian * (p - pairs)).sum(1) for name, p in (("près", near), ("rattrapé", chosen))}
    about = {"entrées": (i, j), "corrélation": links[i, j].item(), "hessienne": hessian}
    return about | {"poids": pairs, "près": near, "déplacé": moved, "rattrapé": chosen, "erreurs": errors}


# %%
ch3.plot_two_weights(two_weights())

# %% [markdown]
# L'erreur de sortie est une vallée en biais. On arrondit le premier poids (flèche pleine), on **déplace le second**
# au fond de la vallée (flèche en tirets), puis on l'arrondit. Dans quel sens ? Celui qui annule : quand deux entrées
# s'opposent, comme ici, les deux poids bougent du même côté ; quand elles vont ensemble, ils bougent en sens
# contraires.
# <!-- claim: opposed_inputs_move_together -->
# La ligne dessinée est celle du gain médian, parmi celles où l'arrondi change, une sur cinq à peu près. À droite,
# toutes ces lignes : le gain est très inégal, et la meilleure ne dit rien des autres.
# <!-- claim: the_gain_is_very_uneven -->
# Sur toute la matrice, l'erreur de ces deux poids diminue.
# <!-- claim: the_second_weight_makes_up -->

# %% [markdown]
# Avec tous les poids d'une ligne, l'erreur est $\tfrac12\,\delta H \delta^\top$, où $\delta$ est la modification de
# la ligne et $H = 2X^\top X$ la **hessienne**, le tableau des dérivées secondes de l'erreur, la même pour toutes les
# lignes. Si l'on fixe le poids $j$, la meilleure correction des poids encore libres est (Hassibi et Stork, 1993)
#
# $$ \delta = -\frac{w_j - \widehat{w}_j}{[H^{-1}]_{jj}}\;[H^{-1}]_{j,:}\,, $$
#
# où $H$ ne porte que sur les poids libres : son inverse change donc à chaque colonne.

# %% [markdown]
# GPTQ (Frantar et al., ICLR 2023, § 4) rend ce calcul praticable par trois idées.
#
# 1. Un **ordre arbitraire**, le même pour toutes les lignes, ici de gauche à droite : une seule suite d'inverses sert
#    à toutes.
# 2. Des **mises à jour différées** (*lazy batch updates*) : les colonnes d'un bloc de 128 se corrigent entre elles,
#    et les suivantes ne reçoivent la somme des corrections qu'à la fin du bloc, d'un seul produit. Le résultat est le
#    même ; c'est une affaire de lectures en mémoire, qui rend la méthode rapide sur une carte. Vous pourrez vous en
#    passer.
# 3. Le **facteur de Cholesky**, qui écrit une matrice symétrique comme un produit $U^\top U$, $U$ triangulaire. Celui
#    de $H^{-1}$ contient d'avance tous les inverses de la suite : à l'étape $j$, la ligne utile est $U_{j,j:}$, à un
#    facteur près. Un **amortissement**, ajouté à la diagonale, garantit que $H$ s'inverse, même avec moins d'exemples
#    que d'entrées.
#
# La troisième idée a de quoi surprendre. Une ligne de torch la vérifie :

# %%
samples = torch.randn(200, 12, dtype=torch.float64) @ torch.randn(12, 12, dtype=torch.float64)
h = 2 * samples.T @ samples
u = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
for j in range(12):
    torch.testing.assert_close(torch.linalg.inv(h[j:, j:])[0], u[j, j] * u[j, j:])
print("Les douze inverses sont dans U.")

# %% [markdown]
# ??? q="gptq"

# %% [markdown]
# ### ✎ gptq_quantize


# %% exercise="gptq_quantize"
def gptq_quantize(
    w: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, bits: int = 4, damp: float = 0.01
) -> torch.Tensor:
    """Quantification de w par GPTQ, pour les activations x, sur une grille donnée.

    w : (out, in) flottant, les poids ; x : (n, in) flottant, les activations d'étalonnage, n
    quelconque.
    scale : (out, 1), le pas de chaque ligne ; bits : nombre de bits d'un code, de −2^(bits−1) à
    2^(bits−1) − 1.
    damp : ce que l'on ajoute à la diagonale de H = 2·xᵀx avant de l'inverser, en part de sa
    moyenne.
    Rend ŵ, (out, in) du type de w : des réels, chacun un code fois le pas de sa ligne. Les colonnes
    sont arrondies de gauche à droite, et tous les calculs se font en float64. Si x est entièrement
    nul, chaque poids est simplement arrondi. Ni w ni x n'est modifié.

    Source : Frantar et al., « GPTQ », ICLR 2023, algorithme 1 (sans les blocs).
    """
    ### BEGIN SOLUTION
    q_max = 2 ** (bits - 1) - 1
    w_hat, x = w.to(torch.float64, copy=True), x.to(torch.float64)
    scale = scale.to(torch.float64)

    hessian = 2 * x.T @ x
    hessian.diagonal().add_(damp * hessian.diagonal().mean())
    if not hessian.any():  # x nul : aucune erreur à compenser
        hessian = torch.eye(w.shape[1], dtype=torch.float64, device=w.device)
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)

    for j in range(w.shape[1]):
        column = w_hat[:, j].clone()
        w_hat[:, j] = torch.round(column / scale[:, 0]).clamp(-q_max - 1, q_max) * scale[:, 0]
        error = (column - w_hat[:, j]) / upper[j, j]
        w_hat[:, j + 1 :] -= torch.outer(error, upper[j, j + 1 :])
    return w_hat.to(w.dtype)
    ### END SOLUTION


# %% [markdown]
# Première vérification, couche par couche, sur un texte qui n'a pas servi à régler. Attendez-vous à une surprise dans
# les deux premières colonnes.


# %%
shown_blocks = atelier.scale().pick(essai=(0,), cpu=(0, 2, 4), gpu=(0, 1, 2, 3, 4))


def compensated_on(w, x, grid, bits):
    """w arrondi par GPTQ sur l'une de nos grilles, pour ces activations."""
    scale, shift = grid_of(w, grid, bits)
    with ch3.one_thread():
        return gptq_quantize(w + shift, x, scale, bits) - shift


# %% experiment="gptq_layer_errors"
@atelier.experiment(needs=[layer_inputs, gptq_quantize, mse_scale, quantize_affine], full={"blocks": (0, 1, 2, 3, 4)})
def gptq_layer_errors(bits=3, blocks=shown_blocks):
    """Erreurs relatives de RTN et de GPTQ, sur les poids puis sur la sortie ; la moitié des fenêtres règle GPTQ."""
    half, found = len(calibration) // 2, {}
    seen, fresh = inputs_of(calibration[:half]), inputs_of(calibration[half:])
    for name in (f"transformer.h.{block}.{kind}" for block in blocks for kind in ch3.KINDS):
        w, x = layer_weights[name], fresh[name]
        versions = {"RTN": rounded_on(w, "choisie", bits), "GPTQ": compensated_on(w, seen[name], "choisie", bits)}
        for method, v in versions.items():
            found[name, method, "poids"] = ((w - v).square().sum() / w.square().sum()).item()
            found[name, method, "sortie"] = ((x @ (w - v).T).square().sum() / (x @ w.T).square().sum()).item()
    return found


# %%
ch3.layer_errors_table(gptq_layer_errors())

# %% [markdown]
# GPTQ se trompe **davantage** sur les poids de chaque couche, et moins sur la sortie de presque toutes : c'est ce
# qu'on lui a demandé. Sur les cinq blocs, trois couches font exception, à la sortie d'un MLP, là où il y a le plus
# d'entrées, 768, pour un millier de jetons d'étalonnage.
# <!-- claim: gptq_trades_weights_for_outputs -->

# %% [markdown]
# Puis tout le modèle. C'est l'assemblage : vos crochets observent, votre remplacement range, votre arrondi décide.
# Comme dans l'article, chaque bloc est quantifié sur les activations du modèle déjà quantifié avant lui ; il faut
# donc observer de nouveau avant chaque bloc.


# %%
blocks_done = range(atelier.scale().pick(essai=1, cpu=5, gpu=5))  # tous, sauf pour un simple essai


def calibrated(model, round_weight):
    """Une copie de Colibri, quantifiée bloc après bloc. round_weight : (poids, ce qui entre dans la couche) → poids."""
    for block in blocks_done:
        names = [name for name in linear_layers if name.startswith(f"transformer.h.{block}.")]
        seen = inputs_of(calibration, names, model)
        model = quantize_linears(
            model, lambda name, w: round_weight(atelier.for_float64(w), seen[name]) if name in seen else w
        )
    return model


# %% [markdown]
# Les quatre grilles de tout à l'heure, avec la compensation en plus. Pour les groupes, votre fonction passe sur 64
# colonnes à la fois ; entre deux groupes, les colonnes suivantes rattrapent l'erreur, et le pas du groupe se choisit
# alors. Pour aller vite, la cellule ne fait que 3 bits, et deux grilles : la nôtre et celle de l'article. L'auteur a
# fait les quatre, à 4, 3 et 2 bits : c'est de là que viennent les phrases qui suivent. Refaites-en ce que vous voulez,
# par exemple `gptq_sweep(bits=(2,), grids=("restreinte",))`.


# %%
def in_groups(w, x, bits):
    """w arrondi par GPTQ, un pas choisi par groupe de 64 poids d'un canal."""
    with ch3.one_thread():
        return ch3.gptq_in_groups(w, x, bits, gptq_quantize, lambda part: mse_scale(part, bits, candidates))


# %% experiment="gptq_sweep"
@atelier.experiment(
    needs=[quantize_linears, layer_inputs, gptq_quantize, mse_scale, absmax_per_channel, affine_qparams],
    full=long_extract | {"bits": (4, 3, 2), "grids": ("restreinte", "diapositive", "affine", "choisie")},
)
def gptq_sweep(bits=few_bits[-2:-1] or few_bits, grids=("affine", "choisie"), tokens=extract_tokens):
    """Perte de Colibri, part à part, passé par GPTQ : des grilles par canal, puis un pas choisi par groupe."""
    found = {"FP32": losses_of(colibri, tokens)}
    for b in ch3.progress_bar(bits, "GPTQ"):
        for grid in grids:
            model = calibrated(colibri, lambda w, x: compensated_on(w, x, grid, b))
            found[grid, b] = losses_of(model, tokens)
        model = calibrated(colibri, lambda w, x: in_groups(w, x, b))
        found["choisie, par groupe", b] = losses_of(model, tokens)
    return {"jetons": tokens, "pertes": found}


# %%
compensated = gptq_sweep()
ch3.plot_methods(on_grids, rtn_results, compensated)

# %% [markdown]
# Sur chaque grille, à 4, 3 et 2 bits, compenser fait baisser la perplexité ; et les groupes y ajoutent leur gain.
# <!-- claim: gptq_beats_rtn_on_every_grid -->
# Mais de combien ? Sur la grille restreinte, GPTQ paraît diviser la perplexité à 3 bits par plus de trois ; au pas
# choisi, par moins d'un et demi. Comparer deux méthodes sur une mauvaise grille, c'est surtout mesurer la grille.
# <!-- claim: a_bad_grid_flatters_gptq -->

# %% [markdown]
# Et la grille, une fois les erreurs compensées ? À 4 et 3 bits, on ne peut plus départager le pas choisi, celui de la
# diapositive et la grille affine ; la restreinte, elle, reste derrière.
# <!-- claim: compensation_levels_the_grids -->
# À 2 bits, le pas qui fait la plus petite erreur sur les poids n'est même plus le meilleur : celui de la diapositive
# fait un peu mieux. Ce qui compte n'est pas l'erreur des poids.
# <!-- claim: weight_error_is_not_the_goal -->


# %% experiment="row_gptq"
@atelier.experiment(
    needs=[quantize_linears, layer_inputs, gptq_quantize, mse_scale, quantize_affine, pack_int4, unpack_int4]
)
def row_gptq():
    """Colibri passé par GPTQ sur 4 bits, relu de son fichier : une ligne du tableau, des poids gardés pour la suite."""
    model = calibrated(colibri, lambda w, x: compensated_on(w, x, "choisie", 4))
    scales = {name: mse_scale(w, 4, candidates) for name, w in layer_weights.items()}

    def codes(name, w):
        return pack_int4(quantize_affine(w / scales[name], 1.0, 0, 4)), scales[name]

    stored = ch3.code_tensors(model, codes)
    rounded, size = ch3.from_codes(colibri, stored, unpacked), ch3.file_bytes(stored)
    what = "poids sur 4 bits par GPTQ, par canal, calcul en FP32"
    return atelier.save_variant("int4-gptq", rounded, size, "ch3_quantification", what, keep_weights=True)


# %%
ch3.announce(row_gptq())

# %% [markdown]
# ## 3.14 À côté de l'article
#
# Les tableaux 3 et 4 de l'article, que montrent les diapositives. OPT et BLOOM y sont évalués sur WikiText2, en
# anglais. **Cherchez les cases bizarres** avant de descendre.

# %%
ch3.paper_tables()

# %% [markdown]
# L'article arrondit « per-row asymmetric […] on the min-max grid » (§ 5) : notre grille affine, et non celle que nous
# avons choisie. C'est donc elle que nous mettons à côté de ses résultats.

# %%
ch3.beside_the_paper(on_grids, compensated, colibri.num_parameters())

# %% [markdown]
# ??? q="rtn_66b"

# %% [markdown]
# La case « 110 » est bien dans l'article, et la case 48,17 à 1,3B lui ressemble : RTN n'a aucun garde-fou, et un
# modèle peut mal tomber. À 66B, les auteurs ont regardé : beaucoup d'unités des premières couches sont mortes,
# « which may make it harder to compress » (note 2) ; GPTQ à 3 bits y souffre aussi (14,16). Pour 1,3B, l'article ne
# dit rien, et nous ne savons pas. BLOOM 176B tombe de même, à 3 bits seulement : 571.
#
# Et chez nous ? Le tableau suivant prend les affirmations de l'article une à une, sur sa grille.

# %%
ch3.verdicts(on_grids, compensated)

# %% [markdown]
# L'effondrement de RTN à 3 bits est celui d'OPT. Chez BLOOM, sauf à 176B, la perplexité n'est multipliée que par
# quelques unités, comme chez Colibri.
# <!-- claim: rtn_collapses_in_opt_only -->
# Est-ce la famille, la taille ? Ces tableaux ne permettent pas de le dire.

# %% [markdown]
# Deux différences à garder en tête : leur étalonnage compte 128 extraits de 2 048 jetons, le nôtre quelques fenêtres ;
# leur plus petit modèle est des dizaines de fois plus grand que Colibri. Nous comparons donc des **rapports** de
# perplexité, jamais des perplexités.

# %% [markdown]
# ## 3.15 Un modèle que personne ne vous a préparé
#
# Tout ce qui précède portait sur Colibri. Prenons un modèle d'une autre famille, celle de Llama, tel que transformers
# l'écrit : ni biais ni `Conv1D`, des têtes de clés partagées, trois matrices par MLP. Nous l'entraînons un peu, le
# temps que ses poids ne soient plus du hasard, et le gardons dans un dossier. Ensuite, nous ne savons plus rien de
# lui.

# %%
import tempfile
from pathlib import Path

import safetensors.torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

llama_steps = atelier.scale().pick(essai=3, cpu=40, gpu=400)


def publish_llama(folder, steps, seed=0):
    """Un petit Llama, entraîné `steps` pas sur les textes de Colibri, puis écrit dans un dossier."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 96, "intermediate_size": 256, "max_position_embeddings": 256, "tie_word_embeddings": True}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads)).to(atelier.device())
    texts = atelier.corpus_tokens("a_train", 20_000 if steps < 10 else 200_000)
    atelier.train(llama, atelier.windows(texts, seed=seed), steps, lr=4e-3)
    llama.save_pretrained(folder)


# %% [markdown]
# De vos outils, lesquels servent encore ? `layer_inputs` ne connaît que des chemins, `mse_scale` et `gptq_quantize`
# que des matrices : les trois, tels quels. Ce qui change est le remplacement. Un `nn.Linear` range déjà son poids en
# (sortie, entrée). Et allons cette fois au bout : au lieu de poser un poids arrondi dans la couche, mettons à sa
# place une autre couche, qui garde des codes d'un octet et un pas par sortie.


# %%
class CodedLinear(torch.nn.Module):
    """Une couche linéaire sans biais, dont le poids est gardé en codes int8, un pas par sortie."""

    def __init__(self, codes, scale):
        super().__init__()
        self.register_buffer("codes", codes.to(torch.int8))
        self.register_buffer("scale", scale.to(torch.float32))

    def forward(self, x):
        return torch.nn.functional.linear(x, self.codes * self.scale)


def with_codes(model, codes):
    """Le même modèle, où ces couches gardent leurs codes. codes : chemin → (codes, pas)."""
    other = copy.deepcopy(model)
    for name, (q, scale) in codes.items():
        other.set_submodule(name, CodedLinear(q, scale))
    return other.to(atelier.device())


def codes_of(model, seen, bits, compensate):
    """Les codes et le pas de chaque couche observée, au plus proche ou par GPTQ. seen : chemin → ce qui y entre."""
    found = {}
    for name, x in seen.items():
        w = atelier.for_float64(model.get_submodule(name).weight.detach())
        scale = mse_scale(w, bits, candidates)
        rounded = gptq_quantize(w, x, scale, bits) if compensate else nearest(w, scale, bits)
        found[name] = (rounded / scale).round(), scale
    return found


def written_then_read(model, codes, path):
    """Le modèle à codes, écrit dans un fichier, puis relu par une copie qui n'en savait rien."""
    safetensors.torch.save_model(with_codes(model, codes).cpu(), path)
    again = with_codes(model, {name: (torch.zeros_like(q), torch.zeros_like(s)) for name, (q, s) in codes.items()})
    safetensors.torch.load_model(again, path)
    return again


# %% experiment="other_model"
@atelier.experiment(
    needs=[layer_inputs, gptq_quantize, mse_scale, quantize_affine, dequantize_affine],
    full=long_extract | {"steps": max(llama_steps, 400)},
)
def other_model(steps=llama_steps, bits=3, tokens=extract_tokens):
    """Perte d'un petit Llama lu dans un dossier, puis remplacé par ses codes, puis relu de son fichier de codes."""
    with tempfile.TemporaryDirectory() as folder:
        publish_llama(folder, steps)
        model = AutoModelForCausalLM.from_pretrained(folder).to(atelier.device())
        names = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
        seen, versions = inputs_of(calibration[:, :128], names, model), {"tel quel": model}
        for method in ("RTN", "GPTQ"):
            codes = codes_of(model, seen, bits, method == "GPTQ")
            versions[method] = with_codes(model, codes)
        versions["GPTQ, relu"] = written_then_read(model, codes, f"{folder}/codes.safetensors")
        sizes = {file.name: file.stat().st_size for file in Path(folder).glob("*.safetensors")}
    found = {n: atelier.evaluate_perplexity(m, max_tokens=tokens, context=128).losses for n, m in versions.items()}
    return {"jetons": tokens, "pertes": found, "octets": sizes, "couches": len(names)}


# %%
ch3.other_table(other_model())

# %% [markdown]
# Arrondi sur 3 bits au plus proche, ce modèle perd un peu ; par GPTQ, beaucoup moins. Relu de son fichier, il rend
# exactement les mêmes pertes.
# <!-- claim: the_same_gestures_serve_another_model -->

# %% [markdown]
# Le modèle est petit, et il a peu appris : la perplexité de départ le dit, et il ne faut pas comparer cette perte à
# celle de Colibri. Ce qui est acquis n'est pas le chiffre, c'est la suite de gestes : parcourir, observer, arrondir,
# remplacer, écrire, relire. Les codes y prennent encore un octet chacun ; la section 3.12 dit comment en mettre deux.

# %% [markdown]
# ## 3.16 ★ Ce qui se fait aujourd'hui
#
# L'essentiel est derrière vous. Ce qui suit est facultatif : les idées que l'on rencontre aujourd'hui dans un modèle
# téléchargé, dans un serveur, dans une puce. Chacune tient en une ou deux cellules, sur les mêmes poids et le même
# extrait. Prenez celles qui vous tentent, dans l'ordre que vous voulez.

# %% [markdown]
# ### Des flottants de quatre bits
#
# Un bit de signe, deux d'exposant, un de fraction : c'est **E2M1**. Écrivez ses huit nombres positifs avec la règle de
# la section 3.2, sans infini ni nan : un si petit format ne peut pas s'offrir de motif réservé. Vous devez en trouver
# deux sous 1 et deux au-dessus de 3.

# %% [markdown]
# Ces nombres si serrés n'ont presque pas d'étendue : il leur faut une échelle, et une par petit bloc. Le standard
# **MX** (*microscaling*) de l'Open Compute Project donne à 32 valeurs voisines une échelle commune, qui tient sur huit
# bits : un exposant seul, donc **une puissance de deux**. Multiplier par elle, c'est ajouter un entier à un exposant.
# MXFP4 coûte ainsi $4 + 8/32 = 4{,}25$ bits par poids.
#
# Quelle puissance de deux ? Celle qui amène la plus grande valeur du bloc dans le dernier intervalle d'E2M1, celui qui
# commence à 4, sa plus grande puissance de deux. Que devient alors une valeur qui tombe à 7 ?

# %% [markdown]
# ### ✎ mx_quantize


# %% exercise="mx_quantize"
def mx_quantize(x: torch.Tensor, block_size: int = 32) -> torch.Tensor:
    """Les valeurs de x, écrites en MXFP4 puis relues.

    x : (…, n) flottant ; les blocs sont formés de block_size voisins le long du dernier axe.
    Rend un tenseur de la forme et du type de x : dans chaque bloc, une valeur d'E2M1 multipliée par
    l'échelle du bloc.
    L'échelle est une puissance de deux : la plus grande qui ne dépasse pas max|bloc|, divisée par
        4 ; elle est juste même quand max|bloc| frôle la puissance suivante. Un bloc nul reste nul.
    Chaque valeur, divisée par l'échelle, va à la plus proche de 0, ±0,5, ±1, ±1,5, ±2, ±3, ±4, ±6 ;
        à mi-chemin, à celle dont le bit de fraction est nul (0, ±1, ±2 ou ±4) ; au-delà de 6, à 6.
    Lève ValueError si block_size ne divise pas n.

    Source : Open Compute Project, « Microscaling Formats (MX) Specification », version 1.0, 2023,
    § 5.3 et 6.3 ; Rouhani et al., « Microscaling Data Formats for Deep Learning », 2023, arXiv
    2310.10537, algorithme 1.
    """
    ### BEGIN SOLUTION
    if x.shape[-1] % block_size:
        raise ValueError(f"des blocs de {block_size} ne tiennent pas dans {x.shape[-1]} valeurs")
    blocks = x.reshape(*x.shape[:-1], x.shape[-1] // block_size, block_size)
    blocks = blocks.to(torch.promote_types(x.dtype, torch.float32))
    peak = blocks.abs().amax(dim=-1, keepdim=True)
    scale = torch.ldexp(torch.ones_like(peak), torch.frexp(peak).exponent - 3)  # mantisse de frexp : de 0,5 à 1
    size = (blocks / scale).abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    size = (torch.round(size / step) * step).clamp(max=6)
    return (size.copysign(blocks) * scale).reshape(x.shape).to(x.dtype)
    ### END SOLUTION


# %% [markdown]
# Int4 en groupes a lui aussi une échelle par bloc, mais en FP16, et seize codes à égale distance. **NVFP4**, le format
# de NVIDIA, garde E2M1, prend des blocs de 16 et une échelle E4M3, elle-même étirée par un nombre FP32 pour tout le
# tenseur. À $4 + 8/16$ bits, il coûte autant qu'int4 en groupes de 32 ; MXFP4, autant qu'int4 en groupes de 64.

# %%
ch3.four_bit_rulers()

# %%
atelier.bet(
    "four_bits",
    "À 4,25 bits par poids tout compris, lequel garde le mieux Colibri ?",
    options=("int4, groupes de 64", "MXFP4", "on ne peut pas les départager"),
)

# %% [markdown]
# Pour être juste, chacun a droit au pas qui lui va : int4, à votre `mse_scale` ; les deux autres, à quelques échelles
# essayées bloc par bloc, en plus de celle du standard.

# %%
shorter_steps = torch.linspace(0.6, 1, atelier.scale().pick(essai=3, cpu=9, gpu=9))


def by_groups(w, bits, size, ratios=shorter_steps):
    """w arrondi par groupes de `size` poids voisins, chacun au meilleur des pas proposés, gardé en FP16."""
    pieces = w.reshape(-1, size)
    return nearest(pieces, mse_scale(pieces, bits, ratios).half().float(), bits).reshape(w.shape)


def e2m1(x):
    """Les lignes de x aux valeurs d'E2M1 : un 6 glissé au bout de chacune donne à mx_quantize une échelle de 1."""
    longer = torch.nn.functional.pad(x.clamp(-7, 7), (0, 1), value=6.0)
    return mx_quantize(longer, longer.shape[-1])[:, :-1]


def best_blocks(w, size, shares):
    """w en blocs de `size` nombres E2M1 : de plusieurs échelles, chaque bloc garde celle qui le change le moins."""
    pieces = w.reshape(-1, size)
    versions = torch.stack([e2m1(pieces / s) * s for s in shares(pieces.abs().amax(1, keepdim=True))])
    closest = (versions - pieces).square().sum(-1, keepdim=True).argmin(0, keepdim=True)
    return versions.take_along_dim(closest, 0).reshape(w.shape)


def losses_by_recipe(recipes, tokens):
    """La perte de Colibri, part à part, tel quel puis arrondi. recipes : nom → (bits par poids, ce qui arrondit w)."""
    found = {"FP32": losses_of(colibri, tokens)}
    for name, (_, change) in recipes.items():
        found[name] = losses_of(quantize_linears(colibri, lambda _, w: change(w)), tokens)
    return {"jetons": tokens, "bits": {name: cost for name, (cost, _) in recipes.items()}, "pertes": found}


def powers_of_two(peaks):
    """Pour MXFP4 : l'échelle du standard, et la suivante."""
    low = torch.exp2(torch.log2(peaks).floor() - 2)
    return [low, 2 * low]


def fp8_shares(peaks, ratios=(1.5, 1.0, 0.9, 0.8)):
    """Pour NVFP4 : des échelles E4M3, à une échelle FP32 près, qui amènent le plus grand poids à 4, 6, un peu plus."""
    whole = peaks.max() / (6 * 448)
    return [ch3.to_e4m3(peaks * r / 6 / whole).clamp(min=2**-9) * whole for r in ratios]


# %% experiment="four_bit_formats"
@atelier.experiment(
    needs=[mx_quantize, mse_scale, quantize_linears, quantize_affine, dequantize_affine], full=long_extract
)
def four_bit_formats(tokens=extract_tokens):
    """Perte de Colibri, part à part, poids sur quatre bits ; et les bits par poids, échelles comptées."""
    formats = {
        "int4, groupes de 64": (4 + 16 / 64, lambda w: by_groups(w, 4, 64)),
        "int4, groupes de 32": (4 + 16 / 32, lambda w: by_groups(w, 4, 32)),
        "MXFP4": (4 + 8 / 32, mx_quantize),
        "MXFP4, échelle choisie": (4 + 8 / 32, lambda w: best_blocks(w, 32, powers_of_two)),
        "NVFP4": (4 + 8 / 16, lambda w: best_blocks(w, 16, lambda peaks: fp8_shares(peaks, [1.0]))),
        "NVFP4, échelle choisie": (4 + 8 / 16, lambda w: best_blocks(w, 16, fp8_shares)),
    }
    return losses_by_recipe(formats, tokens)


# %%
four_bits_found = four_bit_formats()
ch3.recipes_table(four_bits_found)
atelier.settle("four_bits", ch3.better_of(four_bits_found, "int4, groupes de 64", "MXFP4"))

# %% [markdown]
# À 4,25 bits, int4 garde mieux Colibri que MXFP4, même quand celui-ci choisit son exposant : une puissance de deux
# tombe parfois loin du meilleur pas.
# <!-- claim: int4_beats_mxfp4_at_equal_bits -->
# À 4,5 bits, NVFP4 vaut int4 ; quand il choisit son échelle, il passe devant.
# <!-- claim: nvfp4_with_its_scale_beats_int4 -->

# %% [markdown]
# Pourquoi donc MXFP4 ? Parce qu'un format n'est pas choisi pour la seule erreur. Les cartes Blackwell de NVIDIA
# multiplient directement des blocs MXFP4 et NVFP4, échelles comprises (documentation de Triton, `tcgen05_mma_scaled`) ;
# gpt-oss (OpenAI, 2025, arXiv 2508.10925) a été publié avec ses experts en MXFP4, ce qui fait tenir le grand modèle sur
# une carte de 80 Go. On commence même à *entraîner* ainsi : NVIDIA a préentraîné en NVFP4 un modèle de 12 milliards de
# paramètres (2025, arXiv 2509.25149).

# %% [markdown]
# ### E5M2, et apprendre sur huit bits
#
# E4M3 a un frère, **E5M2** : un bit de fraction de moins, un d'exposant de plus. Micikevicius et al. (2022, arXiv
# 2209.05433) le proposent pour les gradients, qui ont besoin d'étendue, et gardent E4M3 pour les poids et les
# activations. Voyons sur les gradients de Colibri, avec votre `decode_float` : tous les nombres d'un format font une
# table, et l'on prend le plus proche.


# %%
def to_table(x, table):
    """x, chaque valeur remplacée par la plus proche de la table ; au-delà du bout, le bout."""
    return table[torch.bucketize(x, (table[1:] + table[:-1]) / 2)]


# %% experiment="fp8_gradients"
@atelier.experiment(needs=[decode_float, sqnr_db])
def fp8_gradients():
    """Ce que E4M3 et E5M2 font des gradients de Colibri, tels quels puis étirés jusqu'au bout du format."""
    grads = seen_values["gradients des poids"].cpu()
    found = {}
    for name, sizes in {"E4M3": (4, 3), "E5M2": (5, 2)}.items():
        read = torch.tensor([decode_float(pattern, *sizes) for pattern in range(256)])
        table = read[read.isfinite()].unique()
        for how, stretch in {"tels quels": 1.0, "étirés": (table.max() / grads.abs().max()).item()}.items():
            back = to_table(grads * stretch, table) / stretch
            found[name, how] = {
                "annulés": (back == 0).float().mean().item(),
                "sqnr": sqnr_db(grads, back),
                "erreur": ((back - grads) / grads).abs().median().item(),
            }
    return found


# %%
ch3.fp8_table(fp8_gradients())

# %% [markdown]
# Tels quels, E4M3 annule la plupart des gradients, E5M2 bien moins. Étirés, presque plus aucun n'est annulé par E5M2,
# et c'est E4M3 qui écrit le plus juste.
# <!-- claim: e5m2_keeps_small_gradients_e4m3_writes_finer -->
# D'où l'usage d'aujourd'hui : des échelles fines plutôt qu'un format plus étendu. Pour tout ce qu'il calcule sur huit
# bits, gradients compris, DeepSeek-V3 (2024, arXiv 2412.19437, § 3.3) n'a que E4M3, avec une échelle par tuile de 128
# activations et par bloc de 128 × 128 poids ; plongements, tête, LayerNorms et attention gardent plus de bits.

# %% [markdown]
# ### Toutes les entrées ne se valent pas : AWQ et SmoothQuant
#
# Dans $y = Wx$, l'erreur sur une colonne de $W$ est multipliée par l'entrée qui la lit. Une entrée toujours grande
# mérite donc des poids plus justes. **AWQ** (Lin et al., 2024, arXiv 2306.00978) les lui donne sans un bit de plus :
# pour tout vecteur $s$ positif,
#
# $$ W x = \left(W \operatorname{diag}(s)\right)\left(\operatorname{diag}(s)^{-1} x\right). $$
#
# On arrondit $W \operatorname{diag}(s)$ : une colonne multipliée par 2 est arrondie deux fois plus finement, tant que
# le pas de son groupe ne grandit pas. Ensuite, $\operatorname{diag}(s)^{-1}$ se fond dans ce qui précède, un LayerNorm
# par exemple, et ne coûte rien. AWQ prend $s_j = m_j^{\alpha}$, où $m_j$ est la moyenne de $|x_j|$ sur un texte
# d'étalonnage, et cherche $\alpha$ couche par couche.

# %%
atelier.bet(
    "best_alpha",
    "Quel α, le même pour toutes les couches, abîme le moins leurs sorties (0 : AWQ ne fait rien) ?",
)


# %%
alphas_tried = atelier.scale().pick(
    essai=(0.0, 0.2), cpu=(-0.2, 0.0, 0.1, 0.2, 0.4, 0.6), gpu=(-0.2, 0.0, 0.1, 0.2, 0.4, 0.6)
)


def stretched(w, x, alpha, rounded):
    """w arrondi par `rounded` une fois ses colonnes étirées d'après ce qui y entre, x (jetons, entrée)."""
    sizes = x.abs().mean(0).clamp(min=1e-5) ** alpha
    sizes = sizes / (sizes.max() * sizes.min()).sqrt()
    return rounded(w * sizes) / sizes


# %% experiment="awq_search"
@atelier.experiment(
    needs=[mse_scale, layer_inputs, quantize_linears, quantize_affine, dequantize_affine], full=long_extract
)
def awq_search(bits=3, alphas=alphas_tried, tokens=extract_tokens):
    """Erreur en sortie selon α, sur l'étalonnage ; perte de Colibri, part à part, sans AWQ puis un α par couche."""
    entering, found, every = inputs_of(calibration), {}, {}
    for step, ratios in {"prudent": shorter_steps[-1:], "choisi": shorter_steps}.items():
        every[step] = errors = {}

        def best_stretch(name, w, ratios=ratios, errors=errors):
            x = entering[name].to(w.device)
            tried = [stretched(w, x, alpha, lambda v: by_groups(v, bits, 64, ratios)) for alpha in alphas]
            errors[name] = [(x @ (v - w).T).square().sum().item() for v in tried]
            return tried[errors[name].index(min(errors[name]))]

        found[step, "sans"] = losses_of(quantize_linears(colibri, lambda _, w: by_groups(w, bits, 64, ratios)), tokens)
        found[step, "AWQ"] = losses_of(quantize_linears(colibri, best_stretch), tokens)
    return {"jetons": tokens, "alphas": list(alphas), "erreurs": every, "pertes": found}


# %%
atelier.settle("best_alpha", ch3.plot_alphas(awq_search()))

# %% [markdown]
# Le meilleur $\alpha$ commun est un peu au-dessus de zéro ; dès 0,6, étirer est pire que ne rien faire.
# <!-- claim: the_best_alpha_is_small_and_inside -->
# Avec le pas prudent, AWQ baisse la perplexité. Avec le pas choisi, celui que vous auriez pris de toute façon, on ne
# peut plus les départager.
# <!-- claim: awq_pays_with_the_careful_step_only -->
# Un gain dépend de ce à quoi on le compare. AWQ a été écrit pour de grands modèles, où quelques entrées dépassent
# toutes les autres de très loin (section 3.6) ; Colibri n'en a pas de telles.

# %% [markdown]
# **SmoothQuant** (Xiao et al., 2023, arXiv 2211.10438) écrit la même identité, pour une autre raison. En W8A8, les
# poids sont faciles à quantifier, les activations difficiles : quelques composantes y écrasent les autres. On divise
# donc les activations par $s$ et l'on multiplie les poids : la difficulté passe de l'une aux autres, par moitié si $s_j
# = \sqrt{\max|x_j| / \max|w_j|}$. C'est ce qui rend possible une échelle **statique**, fixée d'avance pour toute la
# couche.


# %% experiment="smoothed_layers"
@atelier.experiment(needs=[layer_inputs, absmax_scale, absmax_per_channel, quantize_affine, dequantize_affine, sqnr_db])
def smoothed_layers():
    """SQNR des sorties en W8A8 statique, sans et avec SmoothQuant ; la moitié des fenêtres règle les échelles."""
    known, fresh = (inputs_of(ids) for ids in calibration.chunk(2))
    found = {"sans": [], "avec": []}
    for name in (name for name in known if not name.endswith("c_proj")):  # les couches qui suivent un LayerNorm
        w, x, seen = layer_weights[name], fresh[name], known[name]
        smooth = (seen.abs().amax(0) / w.abs().amax(0)).clamp(min=1e-5).sqrt()
        for how, s in {"sans": torch.ones_like(smooth), "avec": smooth}.items():
            rounded_x = nearest(x / s, absmax_scale(seen / s), 8)
            rounded_w = nearest(w * s, absmax_per_channel(w * s), 8)
            found[how].append(sqnr_db(x @ w.T, rounded_x @ rounded_w.T))
    return found


# %%
ch3.smoothing_note(smoothed_layers())

# %% [markdown]
# À bits égaux et texte d'étalonnage égal, répartir ainsi la difficulté rapporte plus d'un décibel.
# <!-- claim: smoothing_helps_static_activations -->

# %% [markdown]
# ### Tourner avant d'arrondir
#
# Un poids extrême décide du pas de tous les autres. Et si on le **répandait** sur ses voisins ? Une matrice orthogonale
# $R$ le fait sans rien changer au résultat, car $R R^\top = I$ :
#
# $$ x W^\top = (xR)\,(WR)^\top. $$
#
# Une matrice de **Hadamard** n'a que des $\pm 1$, à un facteur près : chaque composante de $xR$ est une somme et
# différence de toutes les autres, et se calcule vite. Les nôtres mélangent les entrées par paquets de 64.

# %%
hadamard = torch.ones(1, 1, device=colibri.device)
for _ in range(6):
    hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)]) / 2**0.5


def turned(x):
    """x, ses dernières composantes tournées par paquets de 64 ; deux fois de suite, on revient au départ."""
    return (x.reshape(-1, 64) @ hadamard.to(x.device)).reshape(x.shape)


def untouched(x):
    return x


wide_steps = torch.linspace(0.1, 1, atelier.scale().pick(essai=7, cpu=19, gpu=19))


# %%
atelier.bet(
    "who_turns",
    "Sur 4 bits, qui gagne le plus à être tourné avant d'être arrondi ?",
    options=("les poids, un pas par tenseur", "les poids, un pas par canal", "les activations, un pas par jeton"),
)


# %% experiment="rotations"
@atelier.experiment(
    needs=[mse_scale, quantize_linears, absmax_scale, quantize_affine, dequantize_affine], full=long_extract
)
def rotations(bits=4, tokens=extract_tokens):
    """Perte de Colibri, part à part : poids arrondis tels quels, ou tournés, arrondis, puis tournés en sens inverse."""
    grains = {
        "un pas par tenseur, prudent": lambda w: absmax_scale(w, bits, True),
        "un pas par tenseur, choisi": lambda w: mse_scale(w.reshape(1, -1), bits, wide_steps),
        "un pas par canal, choisi": lambda w: mse_scale(w, bits, wide_steps),
    }
    found = {"sans arrondi": losses_of(quantize_linears(colibri, lambda _, w: turned(turned(w))), tokens)}
    for grain, step in grains.items():
        for how, turn in {"tels quels": untouched, "tournés": turned}.items():
            changed = quantize_linears(colibri, lambda _, w: turn(nearest(turn(w), step(turn(w)), bits)))
            found[grain, how] = losses_of(changed, tokens)
    return {"jetons": tokens, "pertes": found}


# %% [markdown]
# Et les activations ? Cette fois la couche garde des poids tournés, et un crochet tourne ce qui y entre : la formule
# ci-dessus, pour de bon.


# %% experiment="turned_activations"
@atelier.experiment(
    needs=[mse_scale, quantize_linears, absmax_per_channel, quantize_affine, dequantize_affine], full=long_extract
)
def turned_activations(bits=4, tokens=extract_tokens):
    """Perte de Colibri en W4A4, part à part : poids par canal, activations par jeton, tels quels ou tournés."""
    found = {}
    for how, turn in {"tels quels": untouched, "tournés": turned}.items():

        def round_inputs(_, given, turn=turn):
            rows = turn(given[0]).flatten(0, -2)
            return (nearest(rows, absmax_per_channel(rows, bits), bits).reshape(given[0].shape),)

        changed = quantize_linears(colibri, lambda _, w: nearest(turn(w), mse_scale(turn(w), bits, wide_steps), bits))
        for name in linear_layers:
            changed.get_submodule(name).register_forward_pre_hook(round_inputs)
        found["W4A4", how] = losses_of(changed, tokens)
    return {"jetons": tokens, "pertes": found}


# %%
on_weights, on_inputs = rotations(), turned_activations()
atelier.settle("who_turns", ch3.turns_table(on_weights, on_inputs))

# %% [markdown]
# Sans arrondi, tourner ne change rien : c'est l'identité.
# <!-- claim: turning_alone_changes_nothing -->
# Un pas prudent par tenseur fait de la rotation un miracle ; mais presque tout ce qu'elle gagne alors, choisir le pas
# le donne aussi. Par canal, à 4 bits, on ne peut plus départager les deux.
# <!-- claim: most_of_the_miracle_was_the_step -->
# Sur les activations, en revanche, aucun pas n'y suffit : la rotation divise la perplexité par plus de deux.
# <!-- claim: activations_need_the_turn -->

# %% [markdown]
# Pourquoi ? Comparez l'extrême à l'ordinaire : le plus grand élément qui partage un pas, divisé par l'écart type.


# %% experiment="peaks_when_turned"
@atelier.experiment(needs=[layer_inputs])
def peaks_when_turned():
    """Le plus grand élément d'un tenseur, d'un canal, d'un jeton, en écarts types, avant et après rotation."""
    found, entering = {}, inputs_of(calibration)
    for name, w in layer_weights.items():
        for how, turn in {"tels quels": untouched, "tournés": turned}.items():
            flat, rows, tokens = turn(w).reshape(1, -1), turn(w), turn(entering[name])
            for what, v in {"un tenseur": flat, "un canal": rows, "un jeton": tokens}.items():
                height = v.abs().amax(1) / v.square().mean(1).sqrt().clamp(min=1e-12)
                found.setdefault(f"{what}, {how}", []).append(height.mean().item())
    return found


# %%
ch3.plot_peaks_when_turned(peaks_when_turned())

# %% [markdown]
# Un tenseur de cent mille poids a des extrêmes lointains, que la rotation rapproche. Une ligne de quelques centaines
# n'en a presque pas : son plus grand poids est déjà où l'attend une loi normale, et tourner n'y change rien. Un jeton,
# lui, a de vrais extrêmes.
# <!-- claim: rows_have_no_peak_to_spread -->
# QuaRot (Ashkboos et al., 2024, arXiv 2404.00456) tourne ainsi le flux résiduel, l'intérieur du MLP et de l'attention
# et le cache, pour tout mettre sur 4 bits, poids compris. D'une rotation tirée au hasard à l'autre, la qualité varie
# beaucoup : SpinQuant (Liu et al., ICLR 2025, arXiv 2405.16406) apprend donc la sienne.

# %% [markdown]
# ### Le cache aussi
#
# Au chapitre 1, vous avez compté les octets du cache K/V : à long contexte, il pèse plus que les poids. Peut-on
# l'arrondir ? Deux façons de partager un pas entre 32 nombres, au même prix : les 32 composantes d'**un jeton**, ou les
# 32 derniers jetons d'**un canal**. KIVI (Liu et al., ICML 2024, arXiv 2402.02750) recommande le canal pour les clés,
# le jeton pour les valeurs.
#
# Un vrai cache, celui de transformers, dont une couche n'oublie rien mais arrondit ce qu'elle garde : les 32 jetons en
# cours sont lus tels quels, puis rangés sur quelques bits.

# %%
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_outputs import CausalLMOutput


def between_ends(x, bits, axis):
    """x sur 2^bits valeurs à égale distance, du minimum au maximum le long de `axis`."""
    low, high = x.amin(axis, keepdim=True), x.amax(axis, keepdim=True)
    gap = ((high - low) / (2**bits - 1)).clamp(min=1e-8)
    return ((x - low) / gap).round() * gap + low


class RoundedLayer(DynamicLayer):
    """Le cache d'un bloc : (B, têtes, jetons, composantes), arrondi le long de l'axe −1 (jeton) ou −2 (canal)."""

    def __init__(self, bits, key_axis, value_axis):
        super().__init__()
        self.bits, self.key_axis, self.value_axis = bits, key_axis, value_axis

    def update(self, key_states, value_states, *others, **options):
        read = super().update(key_states, value_states, *others, **options)
        past = self.keys.shape[-2] - key_states.shape[-2]
        new_keys = between_ends(key_states, self.bits, self.key_axis)
        new_values = between_ends(value_states, self.bits, self.value_axis)
        self.keys = torch.cat([self.keys[..., :past, :], new_keys], -2)
        self.values = torch.cat([self.values[..., :past, :], new_values], -2)
        return read


# %%
class ReadsByPieces(torch.nn.Module):
    """Un modèle qui lit 32 jetons à la fois, et ne se souvient des précédents que par son cache."""

    def __init__(self, model, new_layer):
        super().__init__()
        self.model, self.config, self.new_layer = model, model.config, new_layer

    def forward(self, ids):
        memory = Cache(layers=[self.new_layer() for _ in self.model.transformer.h])
        pieces = [self.model(piece, memory).logits for piece in ids.split(32, dim=1)]
        return CausalLMOutput(logits=torch.cat(pieces, dim=1))


# %% experiment="rounded_cache"
@atelier.experiment(full=long_extract | {"bits": (4, 3, 2)})
def rounded_cache(bits=(4, 2), tokens=extract_tokens):
    """Perte de Colibri, part à part, quand son cache est gardé sur quelques bits ; les valeurs, toujours par jeton."""
    found = {"exact": losses_of(ReadsByPieces(colibri, DynamicLayer), tokens)}
    for b in bits:
        for keys, axis in {"par jeton": -1, "par canal": -2}.items():
            rounded = ReadsByPieces(colibri, lambda: RoundedLayer(b, axis, -1))
            found[keys, b] = losses_of(rounded, tokens)
    return {"jetons": tokens, "pertes": found}


# %%
ch3.plot_rounded_cache(rounded_cache())

# %% [markdown]
# À chaque nombre de bits, les clés par canal font mieux que les clés par jeton, pour le même nombre d'octets ; à 2
# bits, l'écart est énorme.
# <!-- claim: keys_are_better_per_channel -->
# Pourquoi ? Le pas est une étendue divisée par 2^bits − 1. Mesurons ces étendues.


# %% experiment="shared_ranges"
@atelier.experiment()
def shared_ranges():
    """L'étendue moyenne, du minimum au maximum, de 32 nombres qui partagent un pas, dans le cache de chaque bloc."""
    memory = Cache(layers=[DynamicLayer() for _ in colibri.transformer.h])
    with torch.inference_mode():
        colibri(calibration[:2, :32], memory)
    found = {}
    for what in ("keys", "values"):
        for how, axis in {"par jeton": -1, "par canal": -2}.items():
            kept = [getattr(block, what) for block in memory.layers]
            found[what, how] = [(x.amax(axis) - x.amin(axis)).mean().item() for x in kept]
    return found


# %%
ch3.ranges_table(shared_ranges())

# %% [markdown]
# D'un jeton à l'autre, une composante d'une clé varie bien moins que d'une composante à l'autre dans un même jeton :
# certaines sont grandes pour tous. Les valeurs n'ont pas ce relief.
# <!-- claim: key_channels_are_narrow -->
# KIVI décrit le même trait dans Llama-2-13B et Falcon-7B (figure 2).

# %% [markdown]
# ### Deux recettes que l'on télécharge : GGUF et les poids ternaires
#
# **Q4_K** est un des formats des fichiers GGUF de llama.cpp. Il range 256 poids en huit blocs de 32. Chaque bloc a un
# pas et un minimum, mais ces seize nombres-là sont eux-mêmes quantifiés, sur 6 bits, à deux échelles FP16 près. Soit
# $(256 \times 4 + 16 \times 6 + 2 \times 16) / 256 = 4{,}5$ bits par poids (`block_q4_K`, ggml-common.h).
#
# **BitNet b1.58** (Ma et al., 2024, arXiv 2402.17764) n'a que trois valeurs, $-1$, $0$ et $1$, fois la moyenne des
# $|w|$ : $\log_2 3 \approx 1{,}58$ bit.


# %%
def on_six_bits(x):
    """Les huit nombres positifs d'un super-bloc, sur 6 bits, à une échelle FP16 près."""
    top = (x.amax(1, keepdim=True) / 63).half().float()
    return (x / top).round().clamp(1, 63) * top


def q4_k(w, keep=on_six_bits):
    """w en Q4_K, sans la recherche de pas de llama.cpp ; keep : comment s'écrivent les seize pas et minimums."""
    pieces = w.reshape(-1, 8, 32)
    bottom = (-pieces.amin(2, keepdim=True)).clamp(min=0)
    gap, bottom = keep((pieces.amax(2, keepdim=True) + bottom) / 15), keep(bottom)
    return (((pieces + bottom) / gap).round().clamp(0, 15) * gap - bottom).reshape(w.shape)


def ternary(w):
    """La règle de BitNet b1.58, appliquée après coup à des poids qui n'ont rien vu venir."""
    ordinary = w.abs().mean()
    return (w / ordinary).round().clamp(-1, 1) * ordinary


# %% experiment="downloaded_recipes"
@atelier.experiment(needs=[mse_scale, quantize_linears, quantize_affine, dequantize_affine], full=long_extract)
def downloaded_recipes(tokens=extract_tokens):
    """Perte de Colibri, part à part : Q4_K, les mêmes blocs moins serrés, puis trois valeurs par poids."""
    recipes = {
        "int4, groupes de 32, un pas FP16": (4 + 16 / 32, lambda w: by_groups(w, 4, 32)),
        "int4, groupes de 32, pas et minimum FP16": (4 + 2 * 16 / 32, lambda w: q4_k(w, lambda x: x.half().float())),
        "Q4_K": ((256 * 4 + 16 * 6 + 2 * 16) / 256, q4_k),
        "ternaire, règle de BitNet": (math.log2(3), ternary),
    }
    return losses_by_recipe(recipes, tokens)


# %%
ch3.recipes_table(downloaded_recipes())

# %% [markdown]
# À bits égaux, un pas et un minimum font mieux qu'un pas seul ; les quantifier eux aussi gagne un demi-bit, et ne coûte
# rien que l'on puisse voir.
# <!-- claim: quantizing_the_scales_is_free -->
# Trois valeurs par poids, en revanche, détruisent Colibri.
# <!-- claim: ternary_after_training_collapses -->
# Ce n'est pas ainsi que BitNet s'obtient : il **apprend** avec ses trois valeurs, depuis le début. L'arrondi est dans
# chaque passage avant, et les poids réels que l'on met à jour s'y habituent.

# %% [markdown]
# ### Et la vitesse, avec un seul jeton ?
#
# Quand on génère, chaque poids lu ne sert qu'une fois : c'est la mémoire que l'on attend, et quatre ou huit fois moins
# d'octets devraient se voir. Encore faut-il chronométrer ce qui se passe vraiment. Une seule couche, appelée en boucle,
# tient dans le cache du processeur ; les 48 couches linéaires de GPT-2 small (85 millions de poids), non : à chaque
# jeton, leurs poids reviennent de la mémoire. Mesurons les deux, à nombre de poids égal.

# %%
one_token_blocks = atelier.scale().pick(essai=1, cpu=12, gpu=12)


# %% experiment="one_token"
@atelier.experiment()
def one_token(width=768, blocks=one_token_blocks):
    """Durées, en secondes, d'un jeton dans les couches linéaires de GPT-2 small, par chaque noyau de la machine."""
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)] * blocks
    several = [torch.nn.Linear(a, b, device=colibri.device) for a, b in shapes]
    same = [torch.nn.Linear(width, 4 * width, device=colibri.device)] * (3 * blocks)
    found = {}
    with torch.inference_mode():
        for where, layers in {"de la mémoire": several, "du cache du processeur": same}.items():
            for name, make in ch3.token_kernels().items():
                run = make(layers)
                found[where, name] = atelier.call_seconds(run)
    return found


# %%
ch3.plot_one_token(one_token())

# %% [markdown]
# Les noyaux, par leur nom, sur la machine de l'auteur : `fp32` est `SGEMM`, de MKL ; `bf16`, un produit de torch qui
# relit chaque poids en fp32, faute d'instruction bf16 ; `int4, torch` est `torch.ops.aten._weight_int4pack_mm_for_cpu`,
# qu'appelle torchao ; `int8` et `int4, onnxruntime` sont les opérateurs `DynamicQuantizeMatMul` et `MatMulNBits`. Les
# poids sont au hasard : le temps n'en dépend pas.

# %% [markdown]
# La section 3.11 chronométrait une seule couche : c'est le second cas, celui où les octets ne se voient plus guère, et
# où bf16, qui en lit moitié moins, peut aller plus lentement que fp32. Un chronomètre mesure toujours quelque chose ; à
# vous de savoir quoi.

# %% [markdown]
# ### Ce que l'industrie emploie
#
# L'état des lieux de la fin 2026, d'après la documentation de chaque outil. Cherchez les formats que vous avez écrits.

# %%
ch3.industry_table()

# %% [markdown]
# **Pour aller plus loin.** *HQQ* (Badri et Shaji, Mobius Labs, 2023) règle le zéro de chaque groupe sans aucun texte
# d'étalonnage, par une norme des erreurs qui pardonne les extrêmes. La *QAT* (quantification pendant l'apprentissage)
# met l'arrondi dans chaque pas, comme BitNet, et laisse le gradient le traverser comme s'il n'était pas là. Et GPTQ,
# parcouru de la dernière colonne à la première, est exactement un vieil algorithme de géométrie des nombres, le plan le
# plus proche de Babai : Chen et al., *The Geometry of LLM Quantization: GPTQ as Babai's Nearest Plane Algorithm*, 2025,
# arXiv 2507.18553.

# %% [markdown]
# ## 3.17 Où en est Colibri
#
# Perplexité, octets, temps : qui gagne, et à quel prix ?

# %%
atelier.board(until="ch3_quantification")

# %% [markdown]
# **Ce que vous savez maintenant.** Un format flottant partage ses bits entre étendue et précision. Une quantification
# affine est un pas et un code pour zéro. Le pas se choisit par l'erreur qu'il fait, non par le plus grand poids,
# <!-- claim: the_chosen_step_wins_below_4_bits -->
# et il en faut d'autant plus que les bits sont rares.
# <!-- claim: grain_matters_when_bits_are_few -->
# Le fichier rétrécit, le calcul n'accélère qu'avec le bon noyau.
# <!-- claim: own_product_is_slower_than_fp32 -->
# À 4 bits et au-dessous, mieux vaut demander aux poids voisins de compenser que d'arrondir chacun pour soi.
# <!-- claim: gptq_beats_rtn_on_every_grid -->
# Et vous savez le faire à un autre modèle : le parcourir, l'observer, remplacer ses poids, l'écrire et le relire.

# %%
atelier.progress()

# %% [markdown]
# **Références.** IEEE 754-2019 · Bennett, *Spectra of Quantized Signals*, Bell System Technical Journal, 1948 ·
# Micikevicius et al., *FP8 Formats for Deep Learning*, 2022, arXiv 2209.05433 · Jacob et al., CVPR 2018, arXiv
# 1712.05877 · Krishnamoorthi, *Quantizing deep convolutional networks for efficient inference*, 2018, arXiv
# 1806.08342 · Nagel et al., *A White Paper on Neural Network Quantization*, 2021, arXiv 2106.08295 · Dettmers et al.,
# *LLM.int8()*, 2022, arXiv 2208.07339 · Xiao et al., *SmoothQuant*, 2023, arXiv 2211.10438 · Yao et al., *ZeroQuant*,
# 2022, arXiv 2206.01861 · Hassibi et Stork, *Second Order Derivatives for Network Pruning: Optimal Brain Surgeon*,
# 1993 · Frantar et al., *GPTQ*, ICLR 2023, arXiv 2210.17323 · Frantar et Alistarh, *SparseGPT*, 2023, arXiv
# 2301.00774 · Sanh et al., *Movement Pruning*, 2020, arXiv 2005.07683 · Google, *gemmlowp*,
# doc/quantization_example.cc · Lei Mao, *Quantization for Neural Networks*, leimao.github.io (cité par la diapositive)
