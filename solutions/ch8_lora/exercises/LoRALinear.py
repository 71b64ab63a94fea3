"""Exercice `LoRALinear` du chapitre 8."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from atelier.judging.exercise import Draw, Exercise, Inputs

from ._common import PRODUCTS


def _linear(d: Draw, n_in: int, n_out: int, bias: bool) -> dict[str, Any]:
    weights = {"weight": d.normal(n_out, n_in)} | ({"bias": d.normal(n_out)} if bias else {})
    return {"module": "Linear", "args": [n_in, n_out, bias], "weights": weights}


def _conv(d: Draw, n_in: int, n_out: int) -> dict[str, Any]:
    weights = {"weight": d.normal(n_in, n_out), "bias": d.normal(n_out)}
    return {"module": "Conv1D", "args": [n_out, n_in], "weights": weights}


def _lora_case(
    d: Draw, x: torch.Tensor, n_out: int, rank: int, alpha: float, bias: bool = True, conv: bool = False
) -> Inputs:
    n_in = x.shape[-1]
    base = _conv(d, n_in, n_out) if conv else _linear(d, n_in, n_out, bias)
    return {
        "init": {"base": base, "rank": rank, "alpha": alpha},
        "x": x,
        "weights": {"lora_A": d.normal(rank, n_in), "lora_B": d.normal(n_out, rank)},
        "out_grad": d.normal(*x.shape[:-1], n_out),
        "watch": ["lora_A", "lora_B"],
    }


def draw_linear(d: Draw, group: str) -> Inputs:
    n_in, n_out, rank = d.turn([(5, 7, 2), (6, 4, 3), (5, 5, 2), (4, 8, 3)])
    if group == "refus":
        too_much = min(n_in, n_out) + 1
        case = _lora_case(d, d.normal(2, n_in), n_out, 1, 4.0, conv=d.index % 2 == 1)
        case["init"]["rank"] = d.turn([too_much, 0, -1, too_much + d.integer(0, 2)])
        return case
    alpha = d.turn([d.uniform(5, 9), 8, 1, d.uniform(0.4, 0.9)])
    if group == "courant":
        return _lora_case(d, d.normal(3, n_in), n_out, rank, alpha, bias=d.index % 4 != 1)
    if group == "Conv1D":
        return _lora_case(d, d.normal(*d.turn([(3,), (2, 3), (1,), (4,)]), n_in), n_out, rank, alpha, conv=True)
    return d.turn(
        [
            lambda: _lora_case(d, d.normal(2, 3, n_in), n_out, rank, alpha),
            lambda: _lora_case(d, d.strided(d.normal(4, n_in)), n_out, min(n_in, n_out), alpha),
            lambda: _lora_case(d, d.normal(n_in), n_out, 1, alpha),
            lambda: _lora_case(d, d.normal(n_in, 3).T, n_out, 1, alpha, bias=False),
        ]
    )()


exercise = Exercise(
    points=3,
    minutes=25,
    stars=2,
    hints=[
        "Un tenseur ne s'entraîne que si l'optimiseur le trouve : sous quelle forme le ranger dans un module ?",
        "Geler la base, c'est dire de ses paramètres qu'ils n'ont pas besoin de gradient.",
        "Un Conv1D range son poids en (entrée, sortie), un nn.Linear en (sortie, entrée) : comment reconnaître l'un de "
        "l'autre, et qu'est-ce que cela change à A et à B ?",
        "Pour ne jamais former B·A, faites passer x par A, ce qui donne r nombres par exemple, puis par B. A et B "
        "sont rangées en (sortie, entrée) : il faut les transposer.",
    ],
    groups={"courant": 0.55, "Conv1D": 0.2, "formes": 0.15, "refus": 0.1},
    draw=draw_linear,
    probe="module",
    visible=2,
    examples=[
        {
            "init": {
                "base": {
                    "module": "Linear",
                    "args": [3, 2],
                    "weights": {
                        "weight": torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]),
                        "bias": torch.tensor([0.5, -0.5]),
                    },
                },
                "rank": 1,
                "alpha": 2.0,
            },
            "x": torch.tensor([[1.0, 2.0, 3.0]]),
            "weights": {"lora_A": torch.tensor([[1.0, 1.0, 0.0]]), "lora_B": torch.tensor([[1.0], [2.0]])},
            "out_grad": torch.tensor([[1.0, 1.0]]),
            "watch": ["lora_A", "lora_B"],
        }
    ],
    tolerance=PRODUCTS,
)


misconceptions = """\
conv_as_linear   if isinstance(base, Conv1D): → if False:
    Sur un Conv1D, vos deux matrices ont échangé l'entrée et la sortie : seule une couche carrée survivrait.

b_random   nn.Parameter(torch.zeros(d_out, rank).to(base.weight))
    → nn.Parameter(torch.randn(d_out, rank).to(base.weight))
    Avant tout pas, votre couche ne répond déjà plus comme la base.

a_zero_too   nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
    → nn.Parameter(torch.zeros(rank, d_in).to(base.weight))
    Deux zéros : quel gradient reçoit chacun ?

init_swapped   nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
    → nn.Parameter(torch.zeros(rank, d_in).to(base.weight))
    & nn.Parameter(torch.zeros(d_out, rank).to(base.weight))
    → nn.Parameter(torch.randn(d_out, rank).to(base.weight))
    Départ correct, mais la diapositive dit laquelle des deux est nulle.

no_scaling   self.scaling = alpha / rank → self.scaling = 1.0
    α ne change rien.

alpha_only   self.scaling = alpha / rank → self.scaling = alpha
    Sans diviser par r, doubler r sans toucher α double l'effet d'un pas sur la perte, et grandit ΔW de √2.

ratio_inverted   self.scaling = alpha / rank → self.scaling = rank / alpha
    Quand α grandit, votre mise à jour rétrécit : lequel des deux divise l'autre ?

square_root   self.scaling = alpha / rank → self.scaling = alpha / rank**0.5
    α/√r est la règle d'un autre article, rsLoRA ; celle de LoRA divise par r.

base_trainable   base.requires_grad_(False) → base
    Comptez ce qui s'entraîne : la base en fait encore partie.

a_frozen   nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
    → nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in), requires_grad=False)
    A part du hasard, mais elle ne doit pas y rester : comptez ce qui s'entraîne.

not_parameters   nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
    → (torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
    & nn.Parameter(torch.zeros(d_out, rank).to(base.weight)) → (torch.zeros(d_out, rank).to(base.weight))
    L'optimiseur ne verra jamais vos deux matrices : module.parameters() les trouve-t-il ?

bias_twice   (x @ self.lora_A.T @ self.lora_B.T)
    → (x @ self.lora_A.T @ self.lora_B.T) + (0 if self.base.bias is None else self.base.bias)
    Votre écart est une constante par sortie : qu'ajoutez-vous deux fois ?

base_forgotten   self.base(x) + self.scaling * (x @ self.lora_A.T @ self.lora_B.T)
    → self.scaling * (x @ self.lora_A.T @ self.lora_B.T)
    Au départ votre couche rend zéro : la mise à jour s'ajoute à quelque chose.

shapes_transposed   nn.Parameter(torch.randn(rank, d_in).to(base.weight) / math.sqrt(d_in))
    → nn.Parameter(torch.randn(d_in, rank) / math.sqrt(d_in))
    & nn.Parameter(torch.zeros(d_out, rank).to(base.weight)) → nn.Parameter(torch.zeros(rank, d_out))
    & self.base(x) + self.scaling * (x @ self.lora_A.T @ self.lora_B.T)
    → self.base(x) + self.scaling * (x @ self.lora_A @ self.lora_B)
    Vos deux matrices sont rangées en (entrée, sortie) ; l'énoncé les veut en (sortie, entrée), comme un nn.Linear.

no_check   if not 1 <= rank <= min(d_in, d_out): → if False:
    L'énoncé annonce des rangs interdits : votre couche les accepte, ou laisse torch s'en plaindre.

no_upper_check   if not 1 <= rank <= min(d_in, d_out): → if rank < 1:
    Un rang plus grand que la matrice ne décrit rien de plus : jusqu'où peut-il aller ?

no_lower_check   if not 1 <= rank <= min(d_in, d_out): → if rank > min(d_in, d_out):
    Que serait une mise à jour de rang nul, ou négatif ? Elle est à refuser elle aussi.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


class LoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        n_in, n_out = (base.nx, base.nf) if hasattr(base, "nf") else (base.in_features, base.out_features)
        if rank < 1 or rank > n_in or rank > n_out:
            raise ValueError("rang")
        self.linear = base
        for p in self.linear.parameters():
            p.requires_grad = False
        self.rank, self.alpha = rank, alpha
        self.lora_A = nn.Parameter(torch.empty(rank, n_in))
        self.lora_B = nn.Parameter(torch.empty(n_out, rank))
        nn.init.normal_(self.lora_A, std=0.02)
        nn.init.zeros_(self.lora_B)

    def forward(self, x):
        low = F.linear(x, self.lora_A)
        return self.linear(x) + F.linear(low, self.lora_B) * (self.alpha / self.rank)


class LinearBuffers(nn.Module):
    """Les poids de la base gardés comme tampons."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        weight = base.weight.detach() if isinstance(base, nn.Linear) else base.weight.detach().T
        out_features, in_features = weight.shape
        if not (0 < rank <= min(out_features, in_features)):
            raise ValueError("rang")
        base.weight.requires_grad = False
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if base.bias is None else base.bias.detach())
        self.register_parameter("lora_A", nn.Parameter(torch.randn((rank, in_features))))
        self.register_parameter("lora_B", nn.Parameter(torch.zeros((out_features, rank))))
        self.s = alpha / rank

    def forward(self, x):
        return (
            F.linear(x, self.weight, self.bias) + torch.einsum("...i,ri,or->...o", x, self.lora_A, self.lora_B) * self.s
        )


class LinearHandmade(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        if rank < 1:
            raise ValueError("rang trop petit")
        if rank > min(base.weight.shape):
            raise ValueError("rang trop grand")
        self.base = base
        self.base.requires_grad_(False)
        self.alpha = alpha
        with torch.no_grad():
            n_in = base.weight.shape[isinstance(base, nn.Linear)]
            n_out = base(torch.zeros(1, n_in, device=base.weight.device)).shape[-1]
        self.lora_A = nn.Parameter(torch.normal(0.0, 1 / rank, size=(rank, n_in)))
        self.lora_B = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, x):
        scaled = self.alpha * x / len(self.lora_A)
        return torch.matmul(torch.matmul(scaled, self.lora_A.mT), self.lora_B.mT) + self.base(x)


styles = [LoRALinear, LinearBuffers, LinearHandmade]
