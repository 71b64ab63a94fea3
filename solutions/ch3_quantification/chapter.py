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
# Chacun des paramètres de Colibri est écrit sur 32 bits. **Avant d'aller plus loin :** combien en faut-il
# vraiment pour que ses phrases restent les mêmes ? Seize ? Huit ? Deux ?
#
# Dans ce chapitre, vous écrivez de quoi répondre, puis vous mesurez. Comptez moins de deux heures pour l'essentiel ;
# les deux exercices marqués « approfondissement » peuvent attendre. Rien ne vous arrête : tant qu'un exercice n'est
# pas fait, les figures qui en dépendent montrent le résultat de l'auteur et le disent.

# %%
import atelier
from atelier import check, hint, progress, quiz
from atelier.figures import ch3

atelier.describe_machine()

# %% tags=["setup"]
import math

import torch

# %% [markdown]
# Voici Colibri, et quelques fenêtres de texte pour regarder ce qui circule dans ses couches. Elles viennent de son
# texte d'entraînement ; la perplexité, elle, sera toujours mesurée sur un extrait qu'il n'a jamais lu.

# %%
colibri = atelier.load_model("colibri")
tokenizer = atelier.load_tokenizer("colibri")
calibration = ch3.calibration_ids(colibri, tokenizer, atelier.scale().pick(essai=4, cpu=8, gpu=64))
ch3.portrait(colibri)

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

# %%
ch3.row_plain(colibri, "fp32", torch.float32, "tel que livré")

# %% [markdown]
# ## 3.2 Un nombre à virgule, bit par bit
#
# **Avant d'exécuter :** 0,1 s'écrit-il exactement en binaire ? Et si vous changez le dernier bit, de combien le nombre
# bouge-t-il ? Cliquez sur les bits, changez de format, tapez un autre nombre.

# %%
ch3.explore_bits(0.1, "FP16")

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

# %%
ch3.all_numbers(decode_float)

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
layer_weights = {name: ch3.weight_of(layer) for name, layer in ch3.linear_layers(colibri).items()}
ch3.range_and_precision(torch.cat([w.flatten() for w in layer_weights.values()]))

# %% [markdown]
# Plus une ligne est basse, plus le format est précis ; plus elle est longue, plus il va loin. À gauche, chaque ligne
# remonte : ce sont les sous-normaux, de moins en moins précis. Les poids de Colibri tiennent dans une bande étroite.
#
# **Et le reste ?** Poids, activations, sommes, gradients : lequel, selon vous, déborde en FP16 ? Lequel disparaît ?

# %%
seen_values = ch3.collect(colibri, calibration[:2])
ch3.half_census(seen_values)

# %% [markdown]
# Les poids et les activations tiennent à l'aise. Ce qui menace FP16, ce sont les calculs intermédiaires : un LayerNorm
# a besoin d'une somme de carrés, qui grandit avec la dimension. Colibri est étroit ; un grand GPT-2 en additionne
# bien plus. Voilà pourquoi on accumule les sommes en FP32, même dans un modèle « en FP16 ». BF16 ne connaît pas ce
# plafond, mais se trompe huit fois plus.

# %%
ch3.magnitudes(seen_values, ("poids", "entrées des couches", "gradients des poids"))

# %% [markdown]
# Autre danger, à gauche : les gradients sont petits, et FP16 en arrondit une part à zéro. On les multiplie donc
# avant de les ranger (*loss scaling*, Micikevicius et al., 2018, arXiv 1710.03740), ou l'on prend BF16, dont
# l'exposant est celui de FP32 (Kalamkar et al., 2019, arXiv 1905.12322).
#
# Et la perplexité ? On arrondit les poids et l'entrée de chaque couche linéaire, et l'on évalue.

# %%
extract_tokens = atelier.scale().pick(essai=1024, cpu=3072, gpu=65536)
ch3.formats_in_the_model(colibri, max_tokens=extract_tokens)

# %% [markdown]
# Pour **utiliser** Colibri, seize bits suffisent donc largement, et huit bits flottants presque. « Étiré à 448 » veut
# dire que chaque tenseur est d'abord mis à l'échelle, pour que son plus grand élément tombe sur le plus grand nombre
# d'E4M3. Colibri y gagne peu : un format flottant a déjà de l'étendue. Des entiers, eux, n'en ont aucune, et cette
# idée, **une échelle par tenseur**, devient tout le sujet.

# %%
ch3.row_plain(colibri, "fp16", torch.float16, "tous les poids arrondis en FP16")

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

# %%
ch3.number_line(affine_qparams, r_min=-0.8, r_max=2.0, bits=4, signed=True)

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
# Et le retour, qui n'est pas un inverse : l'arrondi est perdu.

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
# codes. La sortie d'une GELU ne descend guère sous zéro : c'est le cas d'école. **Combien de décibels pariez-vous ?**

# %%
inputs_by_layer = ch3.layer_inputs(colibri, calibration)
tensors = {
    "sortie de la GELU, bloc 0": inputs_by_layer["0.mlp.c_proj"],
    "entrée de Q, K, V, bloc 0": inputs_by_layer["0.attn.c_attn"],
    "poids de Q, K, V, bloc 0": layer_weights["0.attn.c_attn"],
}
ch3.affine_or_symmetric(tensors, affine_qparams, quantize_affine, dequantize_affine, sqnr_db)

# %% [markdown]
# Un bit vaudra 6 dB, vous le verrez bientôt : ajuster la grille fait gagner presque un bit sur la sortie de la GELU,
# bien moins sur des valeurs à peu près centrées. C'est pourquoi l'on se contente souvent, pour les poids, d'une
# grille symétrique.

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

# %%
ch3.explore_outliers(first_mlp, scale=absmax_scale, k=(0, 1, 10, 100, 1000))

# %% [markdown]
# ??? q="outliers"

# %% [markdown]
# **Diapositive ou forme restreinte ?** Diviser par 128 donne un pas plus fin, mais le plus grand poids, s'il est
# positif, ne tombe plus sur la grille : il est écrêté. Sur 8 bits, la différence est infime. Et sur 2 bits, où l'on
# choisit entre trois codes et quatre ?

# %%
ch3.full_range_or_not(layer_weights, absmax_scale, quantize_affine, dequantize_affine, sqnr_db)

# %% [markdown]
# Quand les codes sont rares, la forme de la diapositive rapporte nettement : écrêter un seul poids coûte moins cher que
# d'élargir le pas de tous. Retenez l'idée : le meilleur pas n'est pas celui qui n'écrête rien.
#
# Et combien rapporte un bit de plus ?

# %%
ch3.six_db_per_bit(layer_weights, absmax_scale, quantize_affine, dequantize_affine, sqnr_db)

# %% [markdown]
# Un bit de plus divise le pas par deux, donc l'énergie de l'erreur par quatre : $10 \log_{10} 4 \approx 6$ dB. La
# règle se voit dès que les codes sont assez nombreux ; avec 2 ou 3 bits, on tombe plus bas qu'elle, car le pas
# dépasse alors l'épaisseur de la cloche.
#
# **Et les activations ?** Regardez, composante par composante, la plus grande valeur rencontrée.

# %%
last = len(colibri.transformer.h) - 1
ch3.channel_peaks(inputs_by_layer, ["0.attn.c_attn", "0.mlp.c_fc", f"{last}.mlp.c_proj"])

# %% [markdown]
# Quelques composantes dépassent les autres, et une seule échelle se règle sur elles. Dans les très grands modèles,
# c'est bien pire : LLM.int8() (Dettmers et al., 2022, arXiv 2208.07339) décrit des composantes « aberrantes »,
# présentes dans toutes les couches à partir de 6,7 milliards de paramètres, et les calcule à part, en 16 bits.

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


# %%
ch3.channel_scales(first_mlp, absmax_scale, absmax_per_channel, "Première couche MLP, 8 bits")

# %% [markdown]
# Rien n'oblige à s'arrêter là : on peut donner une échelle à chaque **groupe** de 64 poids d'une ligne. Cela coûte
# $16/64 = 0{,}25$ bit de plus par poids, si l'échelle est en FP16. Est-ce que cela les vaut ?
#
# Arrondissons toutes les couches linéaires, chaque poids au plus proche (*round to nearest*, **RTN**), et mesurons.
# Pour appliquer une échelle par ligne avec vos fonctions, on divise d'abord : `quantize_affine(w / S, 1.0, 0, bits)`.

# %%
bit_widths = atelier.scale().pick(essai=(4,), cpu=(8, 4, 3, 2), gpu=(8, 4, 3, 2))
my_rounding = (absmax_scale, absmax_per_channel, quantize_affine, dequantize_affine)
rtn_results = ch3.rtn_sweep(colibri, *my_rounding, bits=bit_widths, max_tokens=extract_tokens)

# %% [markdown]
# Lisez le tableau par colonne. À 8 bits, tout se vaut ou presque. Plus les bits sont rares, plus le grain compte : à
# 4 bits, une seule échelle par tenseur ruine déjà le modèle. Une perplexité est un nombre ; lisez aussi les phrases.

# %%
ch3.sentences(colibri, tokenizer, "Le salarié peut demander", *my_rounding, bits=bit_widths)

# %% [markdown]
# ## 3.8 Ce que font PyTorch et ONNX
#
# La diapositive dit : « Used in PyTorch, ONNX ». Prenons-la au mot. Les mêmes poids passent par vos fonctions, par
# `torch.ao`, par `torchao` et par le quantificateur d'`onnxruntime`. **Pariez :** combien d'échelles différentes ?

# %%
ch3.library_scales(first_mlp, absmax_scale, quantize_affine)

# %% [markdown]
# Trois échelles : $|r|_{\max}$ divisé par 127, par 127,5 ou par 128. L'écart est de moins d'un pour cent, mais il
# change des codes : deux bibliothèques « symétriques sur 8 bits » ne rendent pas le même fichier. Quand vous comparez
# deux implémentations, comparez d'abord leurs échelles. (`SYMMETRIC_NO_CLIPPING_ERR` prend 127 ou 128, selon le signe
# du poids extrême, pour n'écrêter personne.)

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
# Votre produit, dans chaque couche de Colibri. Où l'erreur est-elle la plus forte ?

# %%
ch3.w8a8_errors(colibri, calibration, int8_linear, absmax_per_channel, quantize_affine, sqnr_db)

# %% [markdown]
# Quantifier les activations coûte plus que quantifier les poids, et la version statique paie de plus ses mauvaises
# surprises. Reste à savoir si le modèle entier s'en aperçoit. Voici Colibri, où chaque couche passe par votre fonction.

# %%
ch3.row_int8(colibri, int8_linear, absmax_per_channel, quantize_affine)

# %% [markdown]
# La perplexité n'a presque pas bougé. Et le temps ? Comparez-le à celui de la ligne « fp32 », plus haut : les entiers
# sont pourtant quatre fois plus petits.
#
# ??? q="int8_speed"

# %%
ch3.own_product_time(int8_linear, absmax_per_channel, quantize_affine)

# %% [markdown]
# Si vous élargissez les codes en int32 avant de les multiplier, le processeur n'y gagne rien, et le produit d'int32 de
# PyTorch est peu optimisé. Pour gagner, il faut un **noyau**, un programme écrit pour les instructions int8 de la
# machine. En voici, sur les vraies tailles d'une couche de GPT-2, avec des poids au hasard : le temps n'en dépend pas.

# %%
ch3.linear_times(sizes=atelier.scale().pick(essai=("small",), cpu=("small", "xl"), gpu=("small", "xl")))

# %% [markdown]
# Deux régimes. Avec **un jeton**, quand on génère, chaque poids n'est lu que pour une multiplication : on attend la
# mémoire, et quatre fois moins d'octets peuvent aller jusqu'à quatre fois plus vite. Avec **des centaines de
# jetons**, on attend les calculs : le gain dépend surtout des instructions int8 de la puce. Sans elles, il n'y en a
# guère.

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
# Au retour, une difficulté : comment savoir que 1111 valait −1, et non 15 ?

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
# Le même Colibri, dans plusieurs fichiers écrits, puis pesés. **Pariez :** de 32 à 4 bits par poids, le fichier
# est-il huit fois plus petit ?

# %%
ch3.weigh_files(colibri, absmax_per_channel, quantize_affine, pack_int4, unpack_int4)

# %% [markdown]
# Non, et la dernière colonne dit pourquoi : la table des jetons, les positions et les biais restent en FP16. Dans un
# petit modèle, ils pèsent lourd ; dans GPT-3, presque rien. C'est l'usage : GPTQ aussi laisse la table et la tête en
# 16 bits.

# %%
four_bits = (absmax_per_channel, quantize_affine, dequantize_affine, pack_int4, unpack_int4)
ch3.row_int4(colibri, *four_bits)

# %% [markdown]
# ## 3.11 GPTQ : arrondir en sachant ce que font les autres
#
# RTN approche chaque **poids** au mieux. Est-ce ce que l'on veut ? Ce qui compte, c'est la **sortie** de la couche,
# $\lVert XW^\top - X\widehat{W}^\top\rVert^2$. Voici deux vrais poids de Colibri, dont les entrées vont ensemble.

# %%
ch3.two_weights(layer_weights["0.mlp.c_fc"], inputs_by_layer["0.mlp.c_fc"], bits=3)

# %% [markdown]
# L'erreur est une vallée en biais : se tromper sur un poids se rattrape en se trompant sur l'autre, dans l'autre
# sens. On arrondit donc le premier (flèche pleine), on **déplace le second** au fond de la vallée (flèche en tirets),
# et on l'arrondit ensuite. Le second arrondi est moins proche, la sortie bien meilleure.

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
ch3.gptq_layer_errors(colibri, calibration, gptq_quantize, absmax_per_channel, quantize_affine, dequantize_affine)

# %% [markdown]
# GPTQ se trompe **davantage** sur les poids, et bien moins sur la sortie : c'est exactement ce qu'on lui a demandé.
#
# Puis tout le modèle. Comme dans l'article, chaque bloc est quantifié sur les activations du modèle déjà quantifié
# avant lui. Pour la version par groupes, nous enchaînons votre fonction sur des groupes de 64 colonnes, en laissant
# chaque fois les colonnes suivantes rattraper l'erreur.

# %%
gptq_results = ch3.gptq_sweep(
    colibri, calibration, gptq_quantize, rtn_results, bits=bit_widths, max_tokens=extract_tokens
)

# %%
ch3.row_gptq(colibri, calibration, gptq_quantize, *four_bits)

# %% [markdown]
# ## 3.12 À côté de l'article
#
# Les tableaux 3 et 4 de l'article, que montrent les diapositives. OPT et BLOOM y sont évalués sur WikiText2, en
# anglais. **Cherchez les cases bizarres** avant de descendre.

# %%
ch3.paper_tables()

# %%
ch3.beside_the_paper(gptq_results, colibri.num_parameters(), gptq_quantize)

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
ch3.verdicts(gptq_results, gptq_quantize)

# %% [markdown]
# L'effondrement de RTN à 3 bits est celui d'OPT. Chez BLOOM, sauf à 176B, la perplexité n'est multipliée que par
# quelques unités, comme chez Colibri : la famille compte autant que la taille.
#
# Trois différences à garder en tête : leur grille est asymétrique, min-max, une par ligne, la nôtre symétrique ; leur
# étalonnage compte 128 extraits de 2 048 jetons, le nôtre quelques fenêtres ; leur plus petit modèle est des dizaines
# de fois plus grand que Colibri. Nous comparons donc des **rapports** de perplexité, jamais des perplexités.

# %% [markdown]
# ## 3.13 Où en est Colibri
#
# Perplexité, octets, temps : qui gagne, et à quel prix ?

# %%
atelier.board()

# %% [markdown]
# **Ce que vous savez maintenant.** Un format flottant partage ses bits entre étendue et précision. Une quantification
# affine est un pas et un code pour zéro. Le plus grand poids d'un groupe décide pour tout le groupe, d'où l'intérêt
# des petits groupes. Le fichier rétrécit toujours, le calcul n'accélère qu'avec le bon noyau. Et en dessous de 4
# bits, mieux vaut demander aux poids voisins de compenser que d'arrondir chacun pour soi.

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
