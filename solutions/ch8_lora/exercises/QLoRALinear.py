"""Exercice `QLoRALinear` du chapitre 8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

from .nf4_quantize import _near_levels, nf4_nearest

NF4_LEVELS = ...  # donnés par une cellule de préparation, comme à l'étudiant


def draw_qlora(d: Draw, group: str) -> Inputs:
    n_in, n_out, block = d.turn([(64, 16, 64), (16, 64, 32), (32, 32, 128), (64, 32, 64)])
    if group == "blocs par défaut":
        block = 64
    rank, alpha = d.turn([(2, d.uniform(5, 9)), (3, 8), (1, 1.5), (4, d.uniform(0.4, 0.9))])
    sizes = torch.tensor([d.uniform(0.5, 2.0) for _ in range(n_in * n_out // block)], dtype=torch.float64)
    weight = (_near_levels(d, len(sizes), block) * sizes[:, None]).reshape(n_out, n_in).float()
    bias = d.index % 4 != 1
    rows = d.turn([(3,), (2, 3), (1,), (4,)])
    layer = {"module": "Linear", "args": [n_in, n_out, bias]}
    base = layer | {"weights": {"weight": weight} | ({"bias": d.normal(n_out)} if bias else {})}
    other = layer | {"weights": {"weight": weight.flip(0) / 3} | ({"bias": d.normal(n_out)} if bias else {})}
    options = {} if group == "blocs par défaut" else {"block_size": block}
    return {
        "init": {"base": base, "rank": rank, "alpha": alpha} | options,
        "other": other,
        "x": d.normal(*rows, n_in),
        "weights": {"lora_A": d.normal(rank, n_in), "lora_B": d.normal(n_out, rank)},
        "out_grad": d.normal(*rows, n_out),
        "watch": ["lora_A", "lora_B"],
    }


exercise = Exercise(
    points=4,
    minutes=30,
    stars=3,
    hints=[
        "Ce qu'un module garde et écrit dans son fichier sans l'apprendre porte un nom dans PyTorch : ni paramètre, ni "
        "simple attribut. Que devient la base, une fois ses codes rangés ?",
        "Un code va de 0 à 15 : combien en tient un octet ? Un décalage de quatre bits et un « et » suffisent pour les "
        "ranger, puis pour les relire.",
        "À chaque passage, relisez le poids : les codes désignent des niveaux, chaque bloc a son échelle, et la "
        "matrice retrouve sa forme. Ne gardez pas ce poids : c'est lui qui pèserait.",
        "Le reste est votre LoRALinear : seule la base a changé de forme.",
    ],
    groups={"courant": 0.7, "blocs par défaut": 0.3},
    draw=draw_qlora,
    probe="packed_module",
    stand_ins={"nf4_quantize": "odd_codes"},
    cases=3,
    visible=1,
    tolerance=Tolerance(rtol=1e-3, atol=1e-4, why="des sommes de 64 produits en float32"),
)


misconceptions = """\
float_beside   self.scaling = alpha / rank → self.scaling, self.base = alpha / rank, base.requires_grad_(False)
    Vos codes sont là, mais la base aussi, en entier : combien d'octets votre module garde-t-il ?

byte_a_code   codes[0::2] * 16 + codes[1::2] → codes
    & torch.stack([self.packed >> 4, self.packed & 15], dim=1) → self.packed
    Un code n'a que seize valeurs : un octet peut en tenir deux.

decoded_kept
    - codes, absmax = nf4_quantize(base.weight.detach(), block_size)
    - self.register_buffer("packed", codes[0::2] * 16 + codes[1::2])
    - self.register_buffer("absmax", absmax)
    + codes, absmax = nf4_quantize(base.weight.detach(), block_size)
    + weight = NF4_LEVELS.to(absmax)[codes.long()].reshape(len(absmax), -1) * absmax[:, None]
    + self.register_buffer("weight", weight.reshape(base.weight.shape))
    & codes = torch.stack([self.packed >> 4, self.packed & 15], dim=1).reshape(len(self.absmax), -1) → pass
    & (NF4_LEVELS.to(x)[codes.long()] * self.absmax[:, None]).reshape(self.size) → self.weight
    Vous gardez le poids relu : il a bien seize niveaux, mais chacun de ses nombres occupe quatre octets.

base_learns   requires_grad=False → requires_grad=True
    Comptez ce qui s'entraîne : une partie de la base en fait encore partie.

absmax_lost   self.register_buffer("absmax", absmax) → self.register_buffer("absmax", absmax, persistent=False)
    Écrivez votre couche dans un fichier, relisez-le dans une autre : les échelles des blocs n'y sont plus.

absmax_forgotten   NF4_LEVELS.to(x)[codes.long()] * self.absmax[:, None] → NF4_LEVELS.to(x)[codes.long()]
    Tous vos blocs ont la même échelle : par quoi chaque niveau doit-il être multiplié ?

uniform_levels   NF4_LEVELS.to(x)[codes.long()] → (codes.to(x) / 7.5 - 1)
    Vous relisez les codes sur une grille régulière : les niveaux de NF4 n'en forment pas une.

nibbles_swapped   torch.stack([self.packed >> 4, self.packed & 15], dim=1)
    → torch.stack([self.packed & 15, self.packed >> 4], dim=1)
    Vos codes reviennent deux à deux dans l'autre ordre : de quel côté de l'octet aviez-vous mis le premier ?

not_interleaved   codes = torch.stack([self.packed >> 4, self.packed & 15], dim=1).reshape
    → codes = torch.cat([self.packed >> 4, self.packed & 15]).reshape
    Deux codes voisins partagent un octet : relus, ils doivent redevenir voisins.

bias_forgotten   F.linear(x, w, self.bias) → F.linear(x, w)
    Votre écart est une constante par sortie : où est passé le biais de la base ?

no_scaling   self.scaling = alpha / rank → self.scaling = 1.0
    α ne change rien.

alpha_only   self.scaling = alpha / rank → self.scaling = alpha
    Sans diviser par r, doubler r sans toucher α double l'effet d'un pas sur la perte, et grandit ΔW de √2.

b_random   nn.Parameter(torch.zeros(d_out, rank).to(base.weight))
    → nn.Parameter(torch.randn(d_out, rank).to(base.weight))
    Avant tout pas, votre couche ne répond déjà plus comme sa base.

a_zero_too   nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
    → nn.Parameter(torch.zeros(rank, d_in).to(base.weight))
    Deux zéros : quel gradient reçoit chacun ?

base_forgotten   F.linear(x, w, self.bias) + self.scaling → self.scaling
    Au départ votre couche rend zéro : la mise à jour s'ajoute à quelque chose.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


class QLoRALowFirst(nn.Module):
    """Le premier code dans la moitié basse, les niveaux en tampon, l'arrondi refait ici."""

    def __init__(self, base, rank, alpha, block_size=64):
        super().__init__()
        codes, absmax = nf4_nearest(base.weight.data, block_size)
        low, high = codes.view(-1, 2).unbind(1)
        self.register_buffer("codes", low | (high << 4))
        self.register_buffer("scales", absmax.unsqueeze(1))
        self.register_buffer("levels", NF4_LEVELS.to(base.weight))
        self.register_buffer("bias", None if base.bias is None else base.bias.data.clone())
        self.n_out, self.n_in = base.weight.shape
        self.s = alpha / rank
        self.lora_A = nn.Parameter(0.02 * torch.randn(rank, self.n_in))
        self.lora_B = nn.Parameter(torch.zeros(self.n_out, rank))

    def forward(self, x):
        pairs = torch.stack((self.codes % 16, self.codes // 16), -1)
        weight = self.levels[pairs.long()].view(len(self.scales), -1) * self.scales
        out = x @ weight.view(self.n_out, self.n_in).T
        out = out if self.bias is None else out + self.bias
        return out + F.linear(F.linear(x, self.lora_A), self.lora_B) * self.s


class QLoRAHalves(nn.Module):
    """La première moitié des codes dans les bits hauts, la seconde dans les bits bas ; le biais reste un paramètre."""

    def __init__(self, base, rank, alpha, block_size=64):
        super().__init__()
        codes, self.absmax = nf4_nearest(base.weight.detach(), block_size)
        self.absmax = nn.Parameter(self.absmax, requires_grad=False)
        first, second = codes.chunk(2)
        self.packed = nn.Parameter((first << 4) + second, requires_grad=False)
        self.bias = base.bias
        if self.bias is not None:
            self.bias = nn.Parameter(base.bias.detach().clone()).requires_grad_(False)
        self.shape, self.alpha = tuple(base.weight.shape), alpha
        self.lora_A = nn.Parameter(torch.randn(rank, self.shape[1]) / rank)
        self.lora_B = nn.Parameter(torch.zeros(self.shape[0], rank))

    def forward(self, x):
        codes = torch.cat((self.packed >> 4, self.packed & 0x0F)).int()
        levels = NF4_LEVELS.to(self.absmax)
        weight = levels[codes] * self.absmax.repeat_interleave(len(codes) // len(self.absmax))
        low = torch.einsum("...i,ri->...r", x, self.lora_A)
        return F.linear(x, weight.reshape(self.shape), self.bias) + low @ self.lora_B.mT * self.alpha / len(self.lora_A)


class QLoRABags(nn.Module):
    """Un tampon pour tout : les codes, puis les octets des échelles."""

    def __init__(self, base, rank, alpha, block_size=64):
        super().__init__()
        d_out, d_in = base.weight.shape
        codes, absmax = nf4_nearest(base.weight.detach(), block_size)
        self.half, self.block, self.scaling = len(codes) // 2, block_size, alpha / rank
        self.register_buffer("bytes", torch.cat([codes[::2] * 16 + codes[1::2], absmax.float().view(torch.uint8)]))
        if base.bias is not None:
            self.register_buffer("bias", base.bias.detach().clone())
        self.lora_A = nn.Parameter(torch.randn(rank, d_in))
        self.lora_B = nn.Parameter(torch.zeros(d_out, rank))

    def forward(self, x):
        packed, absmax = self.bytes[: self.half], self.bytes[self.half :].clone().view(torch.float32)
        codes = torch.stack([packed.div(16, rounding_mode="floor"), packed.remainder(16)], 1).reshape(-1, self.block)
        weight = NF4_LEVELS.to(x)[codes.long()] * absmax[:, None]
        out = x @ weight.reshape(len(self.lora_B), -1).T
        update = (x @ self.lora_A.T) @ self.lora_B.T
        return out + getattr(self, "bias", 0) + self.scaling * update


styles = [QLoRALowFirst, QLoRAHalves, QLoRABags]
