"""Exercice `Adapter` du chapitre 7."""

from __future__ import annotations

import math

import torch
from torch import nn

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

_WATCHED = ["down.weight", "up.weight", "up.bias"]


def _adapter_case(d: Draw, width: int, bottleneck: int, x: torch.Tensor) -> Inputs:
    weights = {
        "down.weight": 0.5 * d.normal(bottleneck, width),
        "down.bias": 0.5 * d.normal(bottleneck),
        "up.weight": 0.5 * d.normal(width, bottleneck),
        "up.bias": 0.5 * d.normal(width),
    }
    return {
        "init": {"d_model": width, "bottleneck": bottleneck},
        "x": x,
        "weights": weights,
        "out_grad": 0.5 * d.normal(*x.shape),
        "watch": _WATCHED,
    }


def draw_adapter(d: Draw, group: str) -> Inputs:
    width, bottleneck = d.turn([(6, 3), (5, 2), (8, 3), (7, 4)])
    if group == "courant":
        return _adapter_case(d, width, bottleneck, d.normal(2, 3, width))
    wide, low = d.turn([(4, 7), (6, 1), (5, 3), (3, 6)])
    x = d.turn(
        [
            d.normal(wide),
            d.strided(d.normal(2, wide)),
            d.normal(1, 2, 2, wide),
            d.normal(3, 2, wide).transpose(0, 1),
        ]
    )
    return _adapter_case(d, wide, low, x)


exercise = Exercise(
    points=3,
    minutes=20,
    stars=2,
    hints=[
        "Suivez un jeton dans le dessin : quelles formes a-t-il avant le goulot, dans le goulot, après ?",
        "La non-linéarité est là où le vecteur est étroit ; ce qui entre est ajouté à ce qui sort.",
        "Pour que le module ne change rien au départ, il suffit que la dernière application rende zéro. Combien de "
        "tenseurs cela concerne-t-il, et pourquoi pas la première aussi ?",
        "x + W_up · GELU(W_down · x + b_down) + b_up, avec W_up et b_up nuls au départ.",
    ],
    groups={"courant": 0.75, "formes": 0.25},
    draw=draw_adapter,
    probe="module",
    examples=[
        {
            "init": {"d_model": 2, "bottleneck": 1},
            "x": torch.tensor([[1.0, 2.0]]),
            "weights": {
                "down.weight": torch.tensor([[1.0, -1.0]]),
                "down.bias": torch.tensor([0.5]),
                "up.weight": torch.tensor([[2.0], [-2.0]]),
                "up.bias": torch.tensor([0.1, 0.2]),
            },
            "out_grad": torch.tensor([[1.0, 1.0]]),
            "watch": _WATCHED,
        }
    ],
    tolerance=Tolerance(rtol=1e-4, atol=2e-2, why="les deux formes usuelles de la GELU"),
)


misconceptions = """\
no_residual   return x + self.up(F.gelu(self.down(x))) → return self.up(F.gelu(self.down(x)))
    Au départ, votre module efface tout ce qui le traverse.

no_activation   return x + self.up(F.gelu(self.down(x))) → return x + self.up(self.down(x))
    Deux applications linéaires de suite n'en font qu'une : qu'y gagne-t-on ?

relu   return x + self.up(F.gelu(self.down(x))) → return x + self.up(F.relu(self.down(x)))
    Votre non-linéarité coupe net les valeurs négatives : l'énoncé en demande une autre, celle de GPT-2.

up_random   in self.up.parameters(): → in ():
    Avant tout apprentissage, le modèle a déjà changé.

bias_random   in self.up.parameters(): → in [self.up.weight]:
    La matrice de remontée part de zéro, mais la sortie de départ n'est pas encore l'entrée : que reste-t-il ?

weight_random   in self.up.parameters(): → in [self.up.bias]:
    Un biais nul ne suffit pas : que fait la matrice de remontée au premier passage ?

down_zero_too   in self.up.parameters(): → in [*self.up.parameters(), self.down.weight]:
    Faites un pas : quel gradient arrive jusqu'à chaque matrice ?

down_zero_instead   in self.up.parameters(): → in self.down.parameters():
    Vous avez mis à zéro la descente, et non la remontée : le biais de sortie est-il nul, lui aussi ?

gelu_after_up   return x + self.up(F.gelu(self.down(x))) → return x + F.gelu(self.up(self.down(x)))
    La non-linéarité est à l'étage large ; où est le goulot ?

gelu_before_down   return x + self.up(F.gelu(self.down(x))) → return x + self.up(self.down(F.gelu(x)))
    Vous déformez l'entrée avant de descendre : la non-linéarité se place entre les deux matrices.

gelu_on_sum   return x + self.up(F.gelu(self.down(x))) → return F.gelu(x + self.up(self.down(x)))
    Votre non-linéarité s'applique aussi au chemin direct : le module ne rend plus ce qu'il reçoit.

residual_twice   return x + self.up(F.gelu(self.down(x))) → return 2 * x + self.up(F.gelu(self.down(x)))
    Au départ, la sortie vaut deux fois l'entrée : combien de fois l'ajoutez-vous ?

no_bias   nn.Linear(d_model, bottleneck) → nn.Linear(d_model, bottleneck, bias=False)
    & nn.Linear(bottleneck, d_model) → nn.Linear(bottleneck, d_model, bias=False)
    Comptez les paramètres : chaque projection de l'article a aussi un vecteur.

extra_norm
    - self.down, self.up = nn.Linear(d_model, bottleneck), nn.Linear(bottleneck, d_model)
    + self.norm = nn.LayerNorm(d_model)
    + self.down, self.up = nn.Linear(d_model, bottleneck), nn.Linear(bottleneck, d_model)
    Votre module apprend autre chose que ses deux projections : l'énoncé n'en demande pas plus.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


class Adapter(nn.Module):
    """GELU par tanh, remplissages écrits à la main."""

    def __init__(self, d_model, bottleneck):
        super().__init__()
        self.down = nn.Linear(d_model, bottleneck)
        self.act = nn.GELU(approximate="tanh")
        self.up = nn.Linear(bottleneck, d_model)
        with torch.no_grad():
            self.up.weight.fill_(0.0)
            self.up.bias.fill_(0.0)

    def forward(self, x):
        return self.up(self.act(self.down(x))) + x


class AdapterSmallStart(nn.Module):
    """Départ de l'article pour la descente (petite gaussienne, biais nul) ; GELU écrite avec erf."""

    def __init__(self, d_model, bottleneck):
        super().__init__()
        self.up = nn.Linear(bottleneck, d_model)
        self.down = nn.Linear(d_model, bottleneck)
        nn.init.trunc_normal_(self.down.weight, std=1e-2)
        nn.init.zeros_(self.down.bias)
        for p in self.up.parameters():
            nn.init.zeros_(p)

    def forward(self, x):
        h = self.down(x)
        h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
        return torch.add(x, self.up(h))


class AdapterMatmul(nn.Module):
    """Les produits écrits à la main ; une image nulle obtenue en multipliant le tirage par zéro."""

    def __init__(self, d_model, bottleneck):
        nn.Module.__init__(self)
        self.down, self.up = nn.Linear(d_model, bottleneck), nn.Linear(bottleneck, d_model)
        self.up.weight.data *= 0
        self.up.bias.data = torch.zeros(d_model)

    def forward(self, x):
        low = x @ self.down.weight.T + self.down.bias
        cubic = math.sqrt(2 / math.pi) * (low + 0.044715 * low**3)
        return x + (0.5 * low * (1 + torch.tanh(cubic))) @ self.up.weight.mT + self.up.bias


class AdapterWide(nn.Module):
    """Une copie de l'entrée corrigée sur place, et un constructeur qui délègue."""

    def __init__(self, d_model, bottleneck):
        super().__init__()
        self.down = nn.Linear(d_model, bottleneck)
        self.up = self._silent(nn.Linear(bottleneck, d_model))

    @staticmethod
    def _silent(layer):
        layer.load_state_dict({k: torch.zeros_like(v) for k, v in layer.state_dict().items()})
        return layer

    def forward(self, x):
        out = x.clone()
        out += self.up(nn.functional.gelu(self.down(x), approximate="none"))
        return out


styles = [Adapter, AdapterSmallStart, AdapterMatmul, AdapterWide]
