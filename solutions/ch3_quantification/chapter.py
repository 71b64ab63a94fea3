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

# %% tags=["setup"]
import math

import torch

# %% [markdown]
# ### ✎ Exercice : `decode_float` · 3 points · 20 minutes


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
# ### ✎ Exercice : `affine_qparams` · 3 points · 15 minutes


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
# ### ✎ Exercice : `quantize_affine` · 2 points · 10 minutes


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
# ### ✎ Exercice : `dequantize_affine` · 1 point · 5 minutes


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
# ### ✎ Exercice : `absmax_scale` · 2 points · 10 minutes


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
# ### ✎ Exercice : `absmax_per_channel` · 2 points · 10 minutes


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


# %% [markdown]
# ### ✎ Exercice : `sqnr_db` · 1 point · 5 minutes


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
# ### ✎ Exercice : `int8_linear` · 3 points · 25 minutes · approfondissement


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
# ### ✎ Exercice : `pack_int4` · 2 points · 15 minutes


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
# ### ✎ Exercice : `unpack_int4` · 2 points · 10 minutes


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
# ### ✎ Exercice : `gptq_quantize` · 4 points · 40 minutes · approfondissement


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
    if not hessian.any():  # x nul : aucune erreur à compenser
        hessian = torch.eye(w.shape[1], dtype=torch.float64, device=w.device)
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)

    for j in range(w.shape[1]):
        column = w_hat[:, j].clone()
        w_hat[:, j] = torch.round(column / scale).clamp(-q_max - 1, q_max) * scale
        error = (column - w_hat[:, j]) / upper[j, j]
        w_hat[:, j + 1 :] -= torch.outer(error, upper[j, j + 1 :])
    return w_hat.to(w.dtype)
    ### END SOLUTION
