"""Exercice `dpo_loss` du chapitre 8."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance

NAMES = ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")


def _pairs(d: Draw, n: int, dtype: torch.dtype = torch.float32) -> Inputs:
    """Des log-probabilités de phrases : négatives, et l'écart de la politique loin de celui de la référence."""
    level = -20.0 - 30.0 * torch.rand(n, generator=d.generator, dtype=torch.float64)
    found = {name: level + 4.0 * d.normal(n, dtype=torch.float64) for name in NAMES}
    found["policy_chosen"] = found["policy_chosen"] + d.uniform(2.0, 5.0)
    return {name: values.to(dtype) for name, values in found.items()}


def draw_dpo(d: Draw, group: str) -> Inputs:
    n = d.turn([4, 3, 6, 5])
    if group == "courant":
        beta = d.turn([None, d.uniform(0.05, 0.5), d.uniform(0.3, 1.0), None])
        return _pairs(d, n) | ({} if beta is None else {"beta": beta})
    if group == "grands écarts":
        far = _pairs(d, n)
        sign = d.turn([-1.0, 1.0, -1.0, 1.0])
        far["policy_chosen"] = far["policy_chosen"] + sign * torch.tensor(
            [3000.0, 500.0, 900.0, 2000.0, 700.0, 40.0][:n]
        )
        return far | {"beta": d.turn([0.5, 0.5, 1.0, 0.2])}
    return d.turn(
        [
            _pairs(d, 1) | {"beta": 0.3},
            _pairs(d, n, torch.float64) | {"beta": 1},
            {name: d.strided(values) for name, values in _pairs(d, n).items()},
            {name: values.clone() for name in NAMES for values in [torch.full((n,), -12.5)]},
        ]
    )


exercise = Exercise(
    points=2,
    minutes=20,
    stars=2,
    hints=[
        "Qu'appellerait-on préférer une phrase à une autre, plus que ne le faisait le modèle de départ ?",
        "Deux écarts : celui de la politique entre les deux réponses, et celui de la référence. La marge est leur "
        "différence, "
        "multipliée par β ; la perte est celle d'une régression logistique sur cette marge, pair par pair.",
        "La moyenne vient après le logarithme. Pour une marge de −1 000, `log(sigmoid(x))` vaut −inf : PyTorch en "
        "a une "
        "version stable.",
    ],
    groups={"courant": 0.55, "grands écarts": 0.25, "formes et types": 0.2},
    draw=draw_dpo,
    visible=4,
    probe="loss_grads",
    examples=[
        {
            "policy_chosen": torch.tensor([-10.0, -12.0]),
            "policy_rejected": torch.tensor([-14.0, -11.0]),
            "ref_chosen": torch.tensor([-11.0, -12.0]),
            "ref_rejected": torch.tensor([-12.0, -12.0]),
            "beta": 0.5,
        }
    ],
    tolerance=Tolerance(rtol=1e-4, atol=1e-5, why="différences de log-probabilités en float32"),
)


misconceptions = """\
reference_forgotten   beta * (policy - reference) → beta * policy
    Une phrase probable pour tous n'est pas une phrase préférée : par rapport à quoi la politique a-t-elle changé ?

sign   -F.logsigmoid(beta * (policy - reference)) → -F.logsigmoid(-beta * (policy - reference))
    Votre perte baisse quand la réponse rejetée gagne : lequel des deux écarts doit grandir ?

positive_log   -F.logsigmoid(beta * (policy - reference)).mean() → F.logsigmoid(beta * (policy - reference)).mean()
    Votre perte est négative, et l'optimiseur la fera descendre sans fin : il manque un signe.

mean_inside   -F.logsigmoid(beta * (policy - reference)).mean() → -F.logsigmoid((beta * (policy - reference)).mean())
    Une marge énorme peut cacher dix paires perdues : la moyenne se prend sur les pertes, non sur les marges.

beta_outside   -F.logsigmoid(beta * (policy - reference)).mean() → -beta * F.logsigmoid(policy - reference).mean()
    β règle la pente de la préférence, à l'intérieur de σ ; dehors, il ne change que l'échelle de la perte.

beta_divides   beta * (policy - reference) → (policy - reference) / beta
    Un grand β doit retenir la politique près de la référence : chez vous il aplatit la marge.

overflow   -F.logsigmoid(beta * (policy - reference)).mean()
    → -torch.log(torch.sigmoid(beta * (policy - reference))).mean()
    Pour une marge très négative, σ vaut 0 et son logarithme l'infini : la perte, elle, reste finie.

reference_learns   (ref_chosen - ref_rejected).detach() → (ref_chosen - ref_rejected)
    Un gradient arrive à la référence : elle est gelée, et doit le rester.

chosen_against_reference   policy = policy_chosen - policy_rejected → policy = policy_chosen - ref_chosen
    Les deux écarts à comparer sont ceux de deux réponses sous un même modèle, ou de deux modèles sur une même réponse.

rejected_forgotten   policy_chosen - policy_rejected → policy_chosen
    La réponse rejetée ne compte plus chez la politique : contre quoi la choisie est-elle préférée ?

summed   -F.logsigmoid(beta * (policy - reference)).mean() → -F.logsigmoid(beta * (policy - reference)).sum()
    Un lot deux fois plus grand ferait des pas deux fois plus grands : l'énoncé demande la moyenne.

hinge   -F.logsigmoid(beta * (policy - reference)).mean() → F.relu(1 - beta * (policy - reference)).mean()
    C'est une perte à marge (celle de SLiC) : DPO emploie une logistique, qui ne s'annule jamais.
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def dpo_softplus(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta=0.1):
    margin = beta * ((policy_chosen - ref_chosen.detach()) - (policy_rejected - ref_rejected.detach()))
    return F.softplus(-margin).mean()


def dpo_no_grad(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta=0.1):
    with torch.no_grad():
        reference = ref_chosen - ref_rejected
    logits = beta * (policy_chosen - policy_rejected - reference)
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def dpo_logaddexp(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta=0.1):
    margin = beta * (policy_chosen - policy_rejected - ref_chosen.data + ref_rejected.data)
    return torch.logaddexp(torch.zeros_like(margin), -margin).sum() / len(margin)


def dpo_stable_by_hand(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta=0.1):
    margin = beta * ((policy_chosen - policy_rejected) - (ref_chosen - ref_rejected).detach())
    return (
        (torch.log1p(torch.exp(-margin.abs())) + (-margin).clamp(min=0)).mean()
        if margin.abs().min() > 1e-6
        else (F.softplus(-margin).mean())
    )


styles = [dpo_softplus, dpo_no_grad, dpo_logaddexp, dpo_stable_by_hand]
