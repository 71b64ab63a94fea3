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
# Dans ce chapitre, vous écrivez de quoi répondre, puis vous mesurez. Comptez moins de deux heures pour l'essentiel ;
# les deux exercices marqués « approfondissement » peuvent attendre. Rien ne vous arrête : tant qu'un exercice n'est
# pas fait, les expériences qui en dépendent montrent le résultat de l'auteur et le disent.

# %%
import copy
from fractions import Fraction

import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch3

atelier.describe_machine()

# %% tags=["setup"]
import math

import torch

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
linear_layers = ch3.linear_layers(colibri)
linear_size = sum(layer.weight.numel() for layer in linear_layers.values())
ch3.portrait(colibri.config, colibri.num_parameters(), linear_size)

# %% [markdown]
# ## 3.1 Trois façons de réduire un modèle
#
# La **quantification** garde tous les poids et les écrit sur moins de bits. La **distillation** entraîne un petit
# modèle à imiter un grand. L'**élagage** supprime des poids. Elles ne s'excluent pas.

# %%
ch3.three_compressions()

# %% [markdown]
# Les diapositives disent de la quantification qu'elle est « the most effective and practical way » d'utiliser un
# grand modèle. C'est une affirmation : il faut la mesurer, et mesurer les deux autres de la même façon. D'où un
# tableau unique pour tout le cours, trois colonnes par variante : sa **perplexité** (entre combien de
# jetons, en moyenne, le modèle hésite), les **octets** de son fichier, le **temps** d'une fenêtre. Première ligne, le
# point de départ.


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

# %% [markdown]
# Parce qu'elle ne décrit que FP32, et seulement ses nombres ordinaires. Il y manque trois choses :
#
# - le décalage vaut $2^{e-1} - 1$ pour $e$ bits d'exposant : 127 avec 8 bits, 15 avec 5, 7 avec 4 ;
# - un exposant écrit tout en 0 annonce un **sous-normal** : plus de 1 caché, et l'exposant reste celui du plus petit
#   nombre normal, $(-1)^S \times F \times 2^{2 - 2^{e-1}}$ ; sans eux, il y aurait un trou autour de zéro ;
# - un exposant tout en 1 est réservé à $\pm\infty$ et à nan. **E4M3**, lui, ne peut pas se priver d'autant de motifs :
#   il n'a pas d'infini, et seul le motif tout en 1 est un nan.

# %% [markdown]
# ### ✎ decode_float


# %% exercise="decode_float"
def decode_float(bits: int, exponent_bits: int, fraction_bits: int) -> float:
    """Valeur réelle du nombre à virgule flottante dont le motif de bits est `bits`.

    bits : entier positif ou nul ; de gauche à droite, 1 bit de signe, exponent_bits bits d'exposant,
        fraction_bits bits de fraction. Exemple : 0x3C00 en FP16, soit (5, 10), vaut 1,0.
    exponent_bits, fraction_bits : (8, 23) pour FP32, (5, 10) pour FP16, (8, 7) pour BF16, (4, 3) pour E4M3 ;
        toute autre paire avec exponent_bits ≥ 2 est permise.
    Rend un float de Python, d'après les règles de l'IEEE 754 : décalage d'exposant 2^(exponent_bits−1) − 1,
    sous-normaux quand l'exposant écrit est nul, zéros signés (0,0 et −0,0) ; l'exposant écrit tout en 1
    donne ±inf si la fraction est nulle, nan sinon.
    Exception : (4, 3) suit la règle d'E4M3, sans infini ; seuls les deux motifs S.1111.111 y sont des nan,
    tous les autres sont des nombres ordinaires (le plus grand vaut 448).

    Source : IEEE 754-2019, § 3.4 ; Micikevicius et al., « FP8 Formats for Deep Learning », 2022, § 3.
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
layer_weights = {name: ch3.weight_of(layer) for name, layer in linear_layers.items()}
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
# Et la perplexité ? On arrondit les poids et l'entrée de chaque couche linéaire, et l'on évalue. Pour comparer deux
# versions, on les fait lire le même extrait, coupé en seize parts : ce qui compte est l'écart, part à part, et
# l'intervalle où sa moyenne se tient.

# %%
extract_tokens = atelier.scale().pick(essai=512, cpu=8192, gpu=65536)


def losses_of(version):
    """La perte d'une version de Colibri, part à part, sur l'extrait du chapitre."""
    return atelier.evaluate_perplexity(version, max_tokens=extract_tokens).losses


# %% experiment="float_formats"
@atelier.experiment()
def float_formats():
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
        rounded = ch3.replace_weights(colibri, lambda _, w: cast(w))
        for layer in ch3.linear_layers(rounded).values():
            layer.register_forward_pre_hook(lambda _, inputs: (cast(inputs[0]),))
        found[name] = losses_of(rounded)
    return found


# %%
ch3.formats_losses(float_formats())

# %% [markdown]
# Pour **utiliser** Colibri, seize bits suffisent donc : l'écart est plus petit qu'un pour mille, ou se confond avec
# zéro.
# <!-- claim: sixteen_bits_are_enough -->
# Avec huit bits flottants, la perplexité monte de quelques pour cent.
# <!-- claim: eight_float_bits_cost_a_few_percent -->
#
# « Étiré à 448 » veut dire que chaque tenseur est d'abord mis à l'échelle, pour que son plus grand élément tombe sur le
# plus grand nombre d'E4M3. Un format flottant a déjà de l'étendue : sur cet extrait, on ne peut pas départager les deux
# versions.
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

# %% [markdown]
# **L'échelle.** Soustrayez les deux lignes : $Z$ disparaît.
#
# $$ r_{\max} - r_{\min} = S\,(q_{\max} - q_{\min}) \quad\Longrightarrow\quad S = \frac{r_{\max} - r_{\min}}{q_{\max} - q_{\min}}. $$
#
# Au dénominateur, $q_{\max} - q_{\min} = 2^b - 1$ : le nombre de pas, pas le nombre de codes.

# %% [markdown]
# **Le zéro.** Reprenez la première ligne : $Z = q_{\min} - r_{\min}/S$. Rien ne dit que ce soit un entier ; on
# l'arrondit, et toute la grille glisse d'une fraction de pas. Pourquoi cette contrainte ?
#
# ??? q="zero_point"

# %% [markdown]
# Pour que 0 soit sur la grille, encore faut-il que l'intervalle le contienne : on l'**élargit** d'abord jusqu'à lui.
# Sans cela, $Z$ sortirait de l'ensemble des codes. C'est la recette de Jacob et al. (CVPR 2018), celle de la
# diapositive.

# %% [markdown]
# ### ✎ affine_qparams


# %% exercise="affine_qparams"
def affine_qparams(r_min: float, r_max: float, bits: int = 8, signed: bool = True) -> tuple[float, int]:
    """Échelle S et zéro entier Z de la quantification affine r = S·(q − Z).

    r_min, r_max : bornes des réels à représenter (float), dans l'unité de r.
    bits : nombre de bits d'un code ; les codes vont de q_min à q_max, soit de −2^(bits−1) à 2^(bits−1) − 1 si
        signed, de 0 à 2^bits − 1 sinon.
    Rend (S, Z) : S est un float, dans l'unité de r ; Z est un int, c'est un code.
    L'intervalle est d'abord élargi, s'il le faut, pour contenir 0. Ensuite S = (r_max − r_min)/(q_max − q_min)
    et Z = q_min − r_min/S, arrondi à l'entier le plus proche puis ramené dans [q_min, q_max].
    Un intervalle réduit à zéro rend (1.0, 0).
    Lève ValueError si r_min > r_max, si une borne est infinie ou nan, ou si bits < 2.

    Source : Jacob et al., « Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference », CVPR 2018, § 2.1 et 3.
    """
    ### BEGIN SOLUTION
    if bits < 2:
        raise ValueError(f"il faut au moins 2 bits, pas {bits}")
    if not (math.isfinite(r_min) and math.isfinite(r_max)):
        raise ValueError(f"bornes non finies : [{r_min}, {r_max}]")
    if r_min > r_max:
        raise ValueError(f"intervalle à l'envers : {r_min} > {r_max}")

    q_min, q_max = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    r_min, r_max = min(r_min, 0.0), max(r_max, 0.0)
    if r_min == r_max:
        return 1.0, 0
    scale = (r_max - r_min) / (q_max - q_min)
    zero_point = round(q_min - r_min / scale)
    return scale, max(q_min, min(q_max, zero_point))
    ### END SOLUTION


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
# Il reste à passer des réels aux codes. Trois gestes, dans cet ordre : diviser par $S$ et **arrondir**, **décaler** de
# $Z$, **ramener** dans les bornes. Que se passerait-il si l'on changeait de type avant de ramener dans les bornes ?

# %% [markdown]
# ### ✎ quantize_affine


# %% exercise="quantize_affine"
def quantize_affine(r: torch.Tensor, scale: float, zero_point: int, bits: int = 8, signed: bool = True) -> torch.Tensor:
    """Codes entiers des réels de r : arrondis, décalés, puis ramenés dans les bornes du type.

    r : tenseur flottant de forme quelconque, même à 0 dimension.
    scale : float > 0, la longueur d'un pas ; zero_point : le code du réel 0.
    bits, signed : les codes vont de −2^(bits−1) à 2^(bits−1) − 1 si signed, de 0 à 2^bits − 1 sinon.
    Rend un tenseur d'entiers de la forme de r : int8 (signed) ou uint8 (non signé) si bits ≤ 8, int32 au-delà.
    r / scale est arrondi à l'entier le plus proche, un demi exact allant au pair le plus proche ; on ajoute
    ensuite zero_point ; ce qui sort des bornes prend la valeur de la borne.

    Source : Jacob et al., CVPR 2018, § 2.1, équation (1).
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
    """Réels représentés par les codes q : S·(q − Z).

    q : tenseur d'entiers (int8, uint8 ou int32) de forme quelconque.
    scale : float > 0, la longueur d'un pas ; zero_point : le code du réel 0.
    Rend un tenseur float32 de la forme de q, dans l'unité de scale ; le code zero_point donne 0.

    Source : Jacob et al., CVPR 2018, § 2.1, équation (1).
    """
    ### BEGIN SOLUTION
    return scale * (q.to(torch.float32) - zero_point)
    ### END SOLUTION


# %% [markdown]
# Combien a-t-on perdu ? On compare l'énergie des valeurs à celle de l'erreur : c'est le **rapport signal sur bruit de
# quantification** (SQNR), en décibels. 20 dB : l'erreur a une énergie cent fois plus petite. 40 dB : dix mille fois.

# %% [markdown]
# ### ✎ sqnr_db


# %% exercise="sqnr_db"
def sqnr_db(r: torch.Tensor, r_hat: torch.Tensor) -> float:
    """Rapport signal sur bruit de quantification, en décibels.

    r : tenseur flottant, les valeurs d'origine ; r_hat : tenseur de même forme, les valeurs retrouvées.
    Rend un float, en dB : 10·log10(Σ r² / Σ (r − r̂)²), les sommes portant sur tous les éléments ;
    math.inf quand r̂ est exactement r.

    Source : Bennett, « Spectra of Quantized Signals », Bell System Technical Journal, 1948.
    """
    ### BEGIN SOLUTION
    r, r_hat = r.double(), r_hat.double()
    noise = (r - r_hat).square().sum()
    if noise == 0:
        return math.inf
    return (10 * torch.log10(r.square().sum() / noise)).item()
    ### END SOLUTION


# %% [markdown]
# Quand l'intervalle n'est pas centré sur zéro, la grille ajustée le suit, là où une grille symétrique gaspille des
# codes. La sortie d'une GELU ne descend guère sous zéro : c'est le cas d'école.

# %%
atelier.bet("gelu_gain", "Sur 8 bits, combien de décibels la grille ajustée gagne-t-elle à la sortie de la GELU ?")
inputs_by_layer = ch3.layer_inputs(colibri, calibration)


# %% experiment="fitted_or_symmetric"
@atelier.experiment(needs=[affine_qparams, quantize_affine, dequantize_affine, sqnr_db])
def fitted_or_symmetric(bits=8):
    """SQNR, bloc par bloc, avec la grille ajustée à [min, max] et avec la grille symétrique."""
    found = {}
    for block in range(len(colibri.transformer.h)):
        gelu, qkv = f"{block}.mlp.c_proj", f"{block}.attn.c_attn"
        values = {"sortie de la GELU": inputs_by_layer[gelu], "entrée de Q, K, V": inputs_by_layer[qkv]}
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
# ## 3.6 Tous les poids d'une couche sur 255 crans
#
# Les poids de Colibri sont à peu près centrés sur zéro. **Avant d'exécuter la cellule :** si vous deviez choisir un
# seul nombre par couche pour décider de la taille d'un cran, lequel prendriez-vous ?

# %%
first_mlp = layer_weights["0.mlp.c_fc"]
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

# %% [markdown]
# Non : la première vaut $|r|_{\max}/127{,}5$, les deux autres $|r|_{\max}/128$, parce que les codes de −128 à 127 ne
# sont pas symétriques. D'autres se privent de −128 et divisent par 127. Les trois choix existent dans les
# bibliothèques. Vous écrirez le dernier (la forme **restreinte**) et celui de la diapositive, et nous mesurerons ce
# qui les sépare.

# %% [markdown]
# ### ✎ absmax_scale


# %% exercise="absmax_scale"
def absmax_scale(r: torch.Tensor, bits: int = 8, full_range: bool = False) -> torch.Tensor:
    """Échelle d'une quantification symétrique de r, où le réel 0 a le code 0.

    r : tenseur flottant de forme quelconque, même à 0 dimension.
    bits : nombre de bits d'un code signé, de −2^(bits−1) à 2^(bits−1) − 1.
    Rend un tenseur à 0 dimension, du type de r et dans son unité : max|r| / (2^(bits−1) − 1), ou
    max|r| / 2^(bits−1) si full_range. Un tenseur nul rend 1.

    Source : Jacob et al., CVPR 2018 ; la diapositive « Absmax » donne la forme full_range, −|r|max / q_min.
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

# %%
atelier.bet("one_more_bit", "Combien de décibels rapporte un bit de plus ?")


# %% experiment="six_db_per_bit"
@atelier.experiment(needs=[absmax_scale, quantize_affine, dequantize_affine, sqnr_db])
def six_db_per_bit(bits=tuple(range(2, 13))):
    """SQNR de chaque couche linéaire, de 2 à 12 bits, forme restreinte."""
    return {b: [sqnr_db(w, nearest(w, absmax_scale(w, b), b)) for w in layer_weights.values()] for b in bits}


# %%
atelier.settle("one_more_bit", ch3.plot_bits_and_decibels(six_db_per_bit()))

# %% [markdown]
# Un bit de plus divise le pas par deux, donc l'énergie de l'erreur par quatre : $10 \log_{10} 4 \approx 6$ dB. La
# règle se voit dès 5 bits ; avec 3 ou 4 bits, on tombe un peu plus bas qu'elle.
# <!-- claim: six_decibels_a_bit -->

# %% [markdown]
# **Et les activations ?** Regardez, composante par composante, la plus grande valeur rencontrée.


# %% experiment="component_peaks"
@atelier.experiment()
def component_peaks():
    """Le plus grand |x| de chaque composante, en entrée de trois couches."""
    last = len(colibri.transformer.h) - 1
    names = ("0.attn.c_attn", "0.mlp.c_fc", f"{last}.mlp.c_proj")
    return {name: inputs_by_layer[name].abs().amax(0).sort(descending=True).values for name in names}


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

    w : tenseur flottant à deux dimensions ou plus.
    bits : nombre de bits d'un code signé ; axis : l'axe des tranches, éventuellement compté depuis la fin (−1).
    Rend un tenseur du type de w, de même nombre de dimensions : la taille de w sur `axis`, 1 sur tous les autres
    axes, si bien que w / échelles se calcule directement. Chaque échelle vaut le max|w| de sa tranche, divisé par
    2^(bits−1) − 1 ; une tranche nulle reçoit 1.

    Source : Krishnamoorthi, « Quantizing deep convolutional networks for efficient inference », 2018, § 2.
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
# Rien n'oblige à s'arrêter là : on peut donner une échelle à chaque **groupe** de 64 poids d'une ligne. Cela coûte
# $16/64 = 0{,}25$ bit de plus par poids, si l'échelle est en FP16. Est-ce que cela les vaut ?

# %% [markdown]
# Arrondissons toutes les couches linéaires, chaque poids au plus proche (*round to nearest*, **RTN**), et mesurons.

# %%
bit_widths = atelier.scale().pick(essai=(4,), cpu=(8, 4, 3, 2), gpu=(8, 4, 3, 2))


def round_to_nearest(w, grain, bits):
    """w arrondi, une échelle pour tout le tenseur, une par canal, ou une par groupe de 64 poids d'un canal."""
    pieces = w.reshape(-1, ch3.GROUP) if grain == "groupe" else w
    scales = absmax_scale(w, bits) if grain == "tenseur" else absmax_per_channel(pieces, bits)
    return nearest(pieces, scales, bits).reshape(w.shape)


# %% experiment="rtn_sweep"
@atelier.experiment(needs=[absmax_scale, absmax_per_channel, quantize_affine, dequantize_affine])
def rtn_sweep(bits=bit_widths):
    """Perte de Colibri, part à part, ses couches linéaires arrondies au plus proche, à trois grains."""
    found = {"FP32": losses_of(colibri)}
    for grain in ("tenseur", "canal", "groupe"):
        for b in ch3.progress_bar(bits, f"RTN, {grain}"):
            rounded = ch3.replace_weights(colibri, lambda _, w: round_to_nearest(w, grain, b))
            found["RTN", grain, b] = losses_of(rounded)
    return found


# %%
rtn_results = rtn_sweep()
ch3.sweep_table(rtn_results)

# %% [markdown]
# Lisez le tableau par colonne. À 8 bits, l'écart au FP32 est plus petit que 1 %.
# <!-- claim: eight_bits_cost_less_than_one_percent -->
# Plus les bits sont rares, plus le grain compte : à 4 bits, une seule échelle par tenseur multiplie la perplexité par
# plus de dix.
# <!-- claim: grain_matters_when_bits_are_few -->
# Une perplexité est un nombre ; lisez aussi les phrases.


# %% experiment="sentences"
@atelier.experiment(needs=[absmax_per_channel, quantize_affine, dequantize_affine])
def sentences(prompt="Le salarié peut demander", bits=bit_widths, n_new=24):
    """La suite la plus probable que Colibri donne à `prompt`, arrondi au plus proche, une échelle par canal."""
    found = {"FP32": ch3.continuation(colibri, tokenizer, prompt, n_new)}
    for b in bits:
        rounded = ch3.replace_weights(colibri, lambda _, w: round_to_nearest(w, "canal", b))
        found[f"{b} bits"] = ch3.continuation(rounded, tokenizer, prompt, n_new)
    return {"début": prompt, "suites": found}


# %%
continuations = sentences()
ch3.sentences_table(continuations)
atelier.settle("same_sentence", ch3.fewest_bits(continuations))

# %% [markdown]
# ## 3.8 Ce que font PyTorch et ONNX
#
# La diapositive dit : « Used in PyTorch, ONNX ». Prenons-la au mot. Les mêmes poids passent par vos fonctions, par
# `torch.ao`, par `torchao` et par le quantificateur d'`onnxruntime`.

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
# Quand vous comparez deux implémentations, comparez d'abord leurs échelles. (`SYMMETRIC_NO_CLIPPING_ERR` prend 127 ou
# 128, selon le signe du poids extrême, pour n'écrêter personne.)

# %% [markdown]
# ## 3.9 Un produit entre entiers
#
# Jusqu'ici, seuls les poids étaient quantifiés, et le calcul restait en FP32. Si les activations le sont aussi, le
# produit lui-même peut se faire entre entiers : c'est **W8A8**, huit bits pour les poids (*weights*), huit pour les
# activations.
#
# $$ y_{ij} = \sum_k x_{ik}\, w_{jk} \;\approx\; s^x_i\, s^w_j \underbrace{\sum_k q^x_{ik}\, q^w_{jk}}_{\text{des entiers}} . $$
#
# Un produit de deux int8 tient tout juste sur 16 bits ; leur somme, non. Sur combien de bits faut-il l'accumuler ?

# %% [markdown]
# L'échelle $s^x_i$ d'un jeton se calcule au passage (**dynamique**) ou se fixe d'avance sur des textes (**statique**).
#
# ??? q="static_dynamic"

# %% [markdown]
# ### ✎ int8_linear


# %% exercise="int8_linear"
def int8_linear(
    x: torch.Tensor, w_q: torch.Tensor, w_scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Couche linéaire dont le produit se fait entre entiers de 8 bits (W8A8).

    x : (N, in) flottant, les activations ; w_q : (out, in) int8, les poids déjà quantifiés ;
    w_scale : (out, 1) flottant, l'échelle de chaque ligne de w_q ; bias : (out,) flottant, ou None.
    Rend (N, out), du type de x : x·Wᵀ + bias, où W = w_scale·w_q.
    Chaque ligne de x est quantifiée à la volée en int8, d'échelle max|ligne| / 127 (1 pour une ligne nulle) ;
    le produit des codes est accumulé exactement, en entiers de 32 bits ; le résultat est ramené dans
    l'unité d'origine par les deux échelles, et le biais vient en dernier.
    Sur CUDA, qui ne multiplie pas de matrices d'int32, torch._int_mm ou un produit en float64 restent exacts ;
    float32 ne l'est plus au-delà de 2²⁴.

    Source : Dettmers et al., « LLM.int8() », NeurIPS 2022, § 2 (quantification par vecteur).
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
# Votre produit, dans chaque couche de Colibri.

# %%
atelier.bet("worst_layers", "Quelles couches ce produit abîme-t-il le plus ?", options=list(ch3.KINDS.values()))


# %% experiment="w8a8_errors"
@atelier.experiment(needs=[int8_linear, absmax_per_channel, quantize_affine, sqnr_db])
def w8a8_errors():
    """SQNR de la sortie de chaque couche ; la première moitié des fenêtres règle les échelles statiques."""
    half = len(calibration) // 2
    known, fresh = (ch3.layer_inputs(colibri, ids) for ids in (calibration[:half], calibration[half:]))
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
        w = ch3.weight_of(layer)
        self.scales = absmax_per_channel(w)
        self.codes = quantize_affine(w / self.scales, 1.0, 0)
        self.bias = atelier.for_float64(layer.bias.detach())

    def forward(self, x):
        y = int8_linear(atelier.for_float64(x.flatten(0, -2)), self.codes, self.scales, self.bias)
        return y.to(x.device).reshape(*x.shape[:-1], -1)


def codes_and_scales(w, bits, grain="canal"):
    """Ce que l'on écrit d'une couche : ses codes, de la forme de w, et une échelle par canal ou par groupe de poids."""
    pieces = w.reshape(-1, ch3.GROUP) if grain == "groupe" else w
    scales = absmax_per_channel(pieces, bits)
    return quantize_affine(pieces / scales, 1.0, 0, bits).reshape(w.shape), scales


# %% experiment="row_int8"
@atelier.experiment(needs=[int8_linear, absmax_per_channel, quantize_affine])
def row_int8():
    """Colibri en W8A8, au tableau : chaque couche linéaire est remplacée par la vôtre."""
    whole = copy.deepcopy(colibri)
    for name, layer in linear_layers.items():
        whole.transformer.h.set_submodule(name, Int8Layer(layer))
    stored = ch3.code_tensors(colibri, lambda _, w: codes_and_scales(w, 8))
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
# attend surtout des octets, et int8 en lit un quart. Avec **des centaines de jetons**, chaque poids lu sert des
# centaines de fois : on attend surtout des multiplications, et la puce a, ou n'a pas, d'instructions int8.
#
# Voici des noyaux, sur les vraies tailles d'une couche de GPT-2, avec des poids au hasard : le temps n'en dépend pas.

# %%
gpt2_widths = atelier.scale().pick(essai={"small": 768}, cpu={"small": 768, "xl": 1600}, gpu={"small": 768, "xl": 1600})


# %% experiment="kernel_times"
@atelier.experiment()
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
# ## 3.10 Quatre bits, pour de bon
#
# ??? q="packing"

# %% [markdown]
# PyTorch n'a pas d'élément de 4 bits : à nous d'en ranger deux par octet. Un entier de −8 à 7 s'écrit sur 4 bits en
# **complément à deux** : les négatifs sont décalés de 16, si bien que −1 s'écrit 1111. Le premier va dans la moitié
# basse de l'octet, le second dans la moitié haute.

# %% [markdown]
# ### ✎ pack_int4


# %% exercise="pack_int4"
def pack_int4(q: torch.Tensor) -> torch.Tensor:
    """Range deux entiers de 4 bits par octet, le long du dernier axe.

    q : (…, n) entiers (int8, int32 ou int64) de −8 à 7.
    Rend (…, ⌈n/2⌉) uint8 : dans chaque octet, la première valeur occupe les 4 bits de poids faible, la suivante
    les 4 bits de poids fort, chacune en complément à deux (−1 s'écrit 1111, −8 s'écrit 1000).
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

    p : (…, ⌈n/2⌉) uint8, deux valeurs par octet, la première dans les 4 bits de poids faible, en complément à deux.
    n : nombre de valeurs sur le dernier axe ; s'il est impair, les 4 derniers bits de poids fort sont ignorés.
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


def packed(w, grain="canal"):
    """Les mêmes, sur 4 bits, deux codes par octet."""
    codes, scales = codes_and_scales(w, 4, grain)
    return pack_int4(codes), scales


def unpacked(codes, scales):
    """Les poids que l'on relit."""
    return dequantize_affine(unpack_int4(codes, 2 * codes.shape[1]), 1.0, 0) * scales


# %% experiment="file_sizes"
@atelier.experiment(needs=[absmax_per_channel, quantize_affine, pack_int4, unpack_int4])
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
@atelier.experiment(needs=[absmax_per_channel, quantize_affine, dequantize_affine, pack_int4, unpack_int4])
def row_int4():
    """Colibri sur 4 bits, au plus proche, par canal, relu de son fichier : une ligne du tableau."""
    stored = ch3.code_tensors(colibri, lambda _, w: packed(w))
    rounded = ch3.from_codes(colibri, stored, unpacked)
    what = "poids sur 4 bits au plus proche, par canal, calcul en FP32"
    return atelier.save_variant("int4", rounded, ch3.file_bytes(stored), "ch3_quantification", what)


# %%
ch3.announce(row_int4())

# %% [markdown]
# ## 3.11 GPTQ : arrondir en sachant ce que font les autres
#
# RTN approche chaque **poids** au mieux. Est-ce ce que l'on veut ? Ce qui compte, c'est la **sortie** de la couche,
# $\lVert XW^\top - X\widehat{W}^\top\rVert^2$. Voici deux vrais poids de Colibri, ceux dont les entrées sont le plus
# liées.


# %% experiment="two_weights"
@atelier.experiment()
def two_weights(bits=3):
    """Arrondir deux poids : chacun au plus proche, ou le second après avoir rattrapé l'erreur du premier."""
    x = inputs_by_layer["0.mlp.c_fc"].double().cpu()
    links = torch.corrcoef(x.T).nan_to_num().fill_diagonal_(0)
    i, j = divmod(links.abs().argmax().item(), len(links))
    hessian = x[:, [i, j]].T @ x[:, [i, j]]
    steps = first_mlp.double().cpu().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    pairs = first_mlp.double().cpu()[:, [i, j]] / steps
    near = pairs.round()
    moved = pairs[:, 1] + (pairs[:, 0] - near[:, 0]) * hessian[0, 1] / hessian[1, 1]
    chosen = torch.stack([near[:, 0], moved.round()], 1)
    errors = {name: ((p - pairs) @ hessian * (p - pairs)).sum(1) for name, p in (("près", near), ("rattrapé", chosen))}
    about = {"entrées": (i, j), "corrélation": links[i, j].item(), "hessienne": hessian}
    return about | {"poids": pairs, "près": near, "déplacé": moved, "rattrapé": chosen, "erreurs": errors}


# %%
ch3.plot_two_weights(two_weights())

# %% [markdown]
# L'erreur est une vallée en biais : se tromper sur un poids se rattrape en déplaçant l'autre. On arrondit donc le
# premier (flèche pleine), on **déplace le second** au fond de la vallée (flèche en tirets), et on l'arrondit ensuite.
# Le second arrondi peut être moins proche, la sortie y gagne : sur toute la matrice, l'erreur de ces deux poids
# diminue.
# <!-- claim: the_second_weight_makes_up -->

# %% [markdown]
# Avec tous les poids d'une ligne, l'erreur est $\tfrac12\,\delta H \delta^\top$, où $\delta$ est la modification de
# la ligne et $H = 2X^\top X$ la hessienne, la même pour toutes les lignes. Si l'on fixe le poids $j$, la meilleure
# correction des poids encore libres est (Hassibi et Stork, 1993)
#
# $$ \delta = -\frac{w_j - \widehat{w}_j}{[H^{-1}]_{jj}}\;[H^{-1}]_{j,:}\,, $$
#
# où $H$ ne porte que sur les poids libres : son inverse change donc à chaque colonne.

# %% [markdown]
# GPTQ (Frantar et al., ICLR 2023) y ajoute trois idées. Toutes les lignes se traitent dans le **même ordre**, de gauche
# à droite, si bien qu'une seule suite d'inverses sert à toutes. Cette suite se lit d'avance dans le **facteur de
# Cholesky** $U$ de $H^{-1}$ : à l'étape $j$, la ligne utile est $U_{j,j:}/U_{jj}$. Enfin, un **amortissement** ajouté
# à la diagonale garantit que $H$ s'inverse, même avec moins d'exemples que d'entrées.
#
# ??? q="gptq"

# %% [markdown]
# ### ✎ gptq_quantize


# %% exercise="gptq_quantize"
def gptq_quantize(w: torch.Tensor, x: torch.Tensor, bits: int = 4, damp: float = 0.01) -> torch.Tensor:
    """Quantification de w par GPTQ : chaque colonne arrondie, les suivantes corrigées de l'erreur commise.

    w : (out, in) flottant, les poids ; x : (n, in) flottant, les activations d'étalonnage, n quelconque.
    bits : nombre de bits d'un code signé, de −2^(bits−1) à 2^(bits−1) − 1 ; damp : amortissement, sans unité.
    Rend ŵ, (out, in) du type de w : des réels, tous multiples entiers de l'échelle de leur ligne. Ni w ni x
    n'est modifié. Tous les calculs se font en float64.
    1. L'échelle de chaque ligne est fixée d'avance : max|ligne| / (2^(bits−1) − 1), 1 pour une ligne nulle.
    2. H = 2·xᵀx + damp·m·I, où m est la moyenne de la diagonale de 2·xᵀx, et U est le facteur de Cholesky
       supérieur de H⁻¹ : H⁻¹ = UᵀU.
    3. De gauche à droite, la colonne j (déjà corrigée par les précédentes) est divisée par les échelles, arrondie,
       ramenée dans les bornes des codes et remultipliée ; l'erreur (colonne − colonne arrondie) / U[j, j], multipliée
       par U[j, k], est retranchée de chaque colonne k > j.
    Si x est entièrement nul, il n'y a rien à compenser : chaque poids est simplement arrondi.

    Source : Frantar et al., « GPTQ », ICLR 2023, algorithme 1 (sans les blocs).
    """
    ### BEGIN SOLUTION
    q_max = 2 ** (bits - 1) - 1
    w_hat, x = w.to(torch.float64, copy=True), x.to(torch.float64)
    peak = w_hat.abs().amax(dim=1)
    scale = torch.where(peak > 0, peak / q_max, torch.ones_like(peak))

    hessian = 2 * x.T @ x
    hessian.diagonal().add_(damp * hessian.diagonal().mean())
    if not hessian.any():  # x nul : aucune erreur à compenser
        hessian = torch.eye(w.shape[1], dtype=torch.float64, device=w.device)
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)

    for j in range(w.shape[1]):
        column = w_hat[:, j].clone()
        w_hat[:, j] = torch.round(column / scale).clamp(-q_max - 1, q_max) * scale
        error = (column - w_hat[:, j]) / upper[j, j]
        w_hat[:, j + 1 :] -= torch.outer(error, upper[j, j + 1 :])
    return w_hat.to(w.dtype)
    ### END SOLUTION


# %% [markdown]
# Première vérification, couche par couche, sur un texte qui n'a pas servi à régler. Attendez-vous à une surprise dans
# les deux premières colonnes.


# %%
shown_blocks = atelier.scale().pick(essai=(0,), cpu=(0, 1, 2, 3, 4), gpu=(0, 1, 2, 3, 4))


# %% experiment="gptq_layer_errors"
@atelier.experiment(needs=[gptq_quantize, absmax_per_channel, quantize_affine])
def gptq_layer_errors(bits=3, blocks=shown_blocks):
    """Erreurs relatives de RTN et de GPTQ, sur les poids puis sur la sortie ; la moitié des fenêtres règle GPTQ."""
    half = len(calibration) // 2
    seen, fresh = (ch3.layer_inputs(colibri, ids) for ids in (calibration[:half], calibration[half:]))
    found = {}
    for name in (f"{block}.{kind}" for block in blocks for kind in ch3.KINDS):
        w, x = layer_weights[name], fresh[name]
        versions = {"RTN": round_to_nearest(w, "canal", bits), "GPTQ": gptq_quantize(w, seen[name], bits)}
        for method, v in versions.items():
            found[name, method, "poids"] = ((w - v).square().sum() / w.square().sum()).item()
            found[name, method, "sortie"] = ((x @ (w - v).T).square().sum() / (x @ w.T).square().sum()).item()
    return found


# %%
ch3.layer_errors_table(gptq_layer_errors())

# %% [markdown]
# GPTQ se trompe **davantage** sur les poids de chaque couche, et moins sur la sortie de presque toutes : c'est ce qu'on
# lui a demandé. Quatre font exception, à la sortie d'un MLP, là où il y a le plus d'entrées, 768, pour un millier de
# jetons d'étalonnage.
# <!-- claim: gptq_trades_weights_for_outputs -->

# %% [markdown]
# Puis tout le modèle. Comme dans l'article, chaque bloc est quantifié sur les activations du modèle déjà quantifié
# avant lui. Pour la version par groupes, nous enchaînons votre fonction sur des groupes de 64 colonnes, en laissant
# chaque fois les colonnes suivantes rattraper l'erreur.


# %%
def gptq_model(grain, bits):
    """Une copie de Colibri, quantifiée bloc après bloc."""
    changed = copy.deepcopy(colibri)
    layers = ch3.linear_layers(changed)
    for block in range(len(changed.transformer.h)):
        names = [f"{block}.{kind}" for kind in ch3.KINDS]
        seen = ch3.layer_inputs(changed, calibration, names)
        for name in names:
            w, x = ch3.weight_of(layers[name]), seen[name]
            with torch.no_grad(), ch3.one_thread():
                in_groups = grain == "groupe"
                rounded = ch3.gptq_in_groups(w, x, bits, gptq_quantize) if in_groups else gptq_quantize(w, x, bits)
                layers[name].weight.copy_(rounded.T)
    return changed


# %% experiment="gptq_sweep"
@atelier.experiment(needs=[gptq_quantize])
def gptq_sweep(bits=bit_widths):
    """Perte de Colibri, part à part, passé par GPTQ : une échelle par canal, puis une par groupe."""
    found = {}
    for grain in ("canal", "groupe"):
        for b in ch3.progress_bar(bits, f"GPTQ, {grain}"):
            found["GPTQ", grain, b] = losses_of(gptq_model(grain, b))
    return found


# %%
all_results = rtn_results | gptq_sweep()
ch3.sweep_table(all_results)
ch3.plot_sweep(all_results)
ch3.gaps_table(all_results)

# %% [markdown]
# De 4 bits à 2 bits, GPTQ perd moins que l'arrondi au plus proche, à grain égal ; à 8 bits, il n'y a presque rien à
# gagner.
# <!-- claim: gptq_beats_rtn_below_8_bits -->


# %% experiment="row_gptq"
@atelier.experiment(needs=[gptq_quantize, absmax_per_channel, quantize_affine, pack_int4, unpack_int4])
def row_gptq():
    """Colibri passé par GPTQ sur 4 bits, relu de son fichier : une ligne du tableau, des poids gardés pour la suite."""
    scales = {name: absmax_per_channel(w, 4) for name, w in layer_weights.items()}

    def codes(name, w):
        return pack_int4(quantize_affine(w / scales[name], 1.0, 0, 4)), scales[name]

    stored = ch3.code_tensors(gptq_model("canal", 4), codes)
    rounded, size = ch3.from_codes(colibri, stored, unpacked), ch3.file_bytes(stored)
    what = "poids sur 4 bits par GPTQ, par canal, calcul en FP32"
    return atelier.save_variant("int4-gptq", rounded, size, "ch3_quantification", what, keep_weights=True)


# %%
ch3.announce(row_gptq())

# %% [markdown]
# ## 3.12 À côté de l'article
#
# Les tableaux 3 et 4 de l'article, que montrent les diapositives. OPT et BLOOM y sont évalués sur WikiText2, en
# anglais. **Cherchez les cases bizarres** avant de descendre.

# %%
ch3.paper_tables()

# %%
ch3.beside_the_paper(all_results, colibri.num_parameters())

# %% [markdown]
# ??? q="rtn_66b"

# %% [markdown]
# La case « 110 » est bien dans l'article, et la case 48,17 à 1,3B lui ressemble : RTN n'a aucun garde-fou, et un modèle
# peut mal tomber. À 66B, les auteurs ont regardé : beaucoup d'unités des premières couches sont mortes, « which may
# make it harder to compress » (note 2) ; GPTQ à 3 bits y souffre aussi (14,16). Pour 1,3B, l'article ne dit rien, et
# nous ne savons pas. BLOOM 176B tombe de même, à 3 bits seulement : 571.
#
# Et chez nous ? Le tableau suivant prend les affirmations de l'article une à une.

# %%
ch3.verdicts(all_results)

# %% [markdown]
# L'effondrement de RTN à 3 bits est celui d'OPT. Chez BLOOM, sauf à 176B, la perplexité n'est multipliée que par
# quelques unités, comme chez Colibri.
# <!-- claim: rtn_collapses_in_opt_only -->
# Est-ce la famille, la taille, ou la grille ? Ces tableaux ne permettent pas de le dire.

# %% [markdown]
# Trois différences à garder en tête : leur grille est asymétrique, min-max, une par ligne, la nôtre symétrique, et nous
# n'avons pas mesuré ce que ce choix change ; leur étalonnage compte 128 extraits de 2 048 jetons, le nôtre quelques
# fenêtres ; leur plus petit modèle est des dizaines de fois plus grand que Colibri. Nous comparons donc des
# **rapports** de perplexité, jamais des perplexités.

# %% [markdown]
# ## 3.13 ★ Ce qui se fait aujourd'hui
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
    Rend un tenseur de la forme et du type de x : dans chaque bloc, une valeur d'E2M1 multipliée par l'échelle du bloc.
    L'échelle est une puissance de deux : la plus grande qui ne dépasse pas max|bloc|, divisée par 4 ; elle est juste
        même quand max|bloc| frôle la puissance suivante. Un bloc nul reste nul.
    Chaque valeur, divisée par l'échelle, va à la plus proche de 0, ±0,5, ±1, ±1,5, ±2, ±3, ±4, ±6 ; à mi-chemin, à
        celle dont le bit de fraction est nul (0, ±1, ±2 ou ±4) ; au-delà de 6, à 6.
    Lève ValueError si block_size ne divise pas n.

    Source : Open Compute Project, « Microscaling Formats (MX) Specification », version 1.0, 2023, § 5.3 ; Rouhani et
    al., « Microscaling Data Formats for Deep Learning », 2023, arXiv 2310.10537.
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
# ## 3.14 Où en est Colibri
#
# Perplexité, octets, temps : qui gagne, et à quel prix ?

# %%
atelier.board()

# %% [markdown]
# **Ce que vous savez maintenant.** Un format flottant partage ses bits entre étendue et précision. Une quantification
# affine est un pas et un code pour zéro. Le plus grand poids d'un groupe décide pour tout le groupe, d'où l'intérêt
# des petits groupes.
# <!-- claim: grain_matters_when_bits_are_few -->
# Le fichier rétrécit, le calcul n'accélère qu'avec le bon noyau.
# <!-- claim: own_product_is_slower_than_fp32 -->
# Et à partir de 4 bits, mieux vaut demander aux poids voisins de compenser que d'arrondir chacun pour soi.
# <!-- claim: gptq_beats_rtn_below_8_bits -->

# %%
atelier.progress()

# %% [markdown]
# **Références.** IEEE 754-2019 · Micikevicius et al., *FP8 Formats for Deep Learning*, 2022, arXiv 2209.05433 · Jacob
# et al., CVPR 2018, arXiv 1712.05877 · Nagel et al., *A White Paper on Neural Network Quantization*, 2021, arXiv
# 2106.08295 · Dettmers et al., *LLM.int8()*, 2022, arXiv 2208.07339 · Xiao et al., *SmoothQuant*, 2023, arXiv
# 2211.10438 · Yao et al., *ZeroQuant*, 2022, arXiv 2206.01861 · Hassibi et Stork, *Optimal Brain Surgeon*, 1993 ·
# Frantar et al., *GPTQ*, ICLR 2023, arXiv 2210.17323 · Frantar et Alistarh, *SparseGPT*, 2023, arXiv 2301.00774 ·
# Sanh et al., *Movement Pruning*, 2020, arXiv 2005.07683 · Lei Mao, *Quantization for Neural Networks*,
# leimao.github.io (cité par la diapositive)
