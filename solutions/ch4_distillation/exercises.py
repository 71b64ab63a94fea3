"""Déclarations du chapitre 4 : points, indices, tirage des cas, tolérances, idées fausses, quiz.

Règle des tirages : les scores des pertes restent modérés (écarts sous 15), pour qu'une réponse qui enchaîne un softmax
et un logarithme soit aussi juste que celle qui emploie log_softmax ; seul `softmax_temperature` promet de tenir de
grands scores. Dans `student_layers`, un rang à mi-chemin tombe exactement sur un demi, quel que soit l'ordre du calcul.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.exercise import Choice, Draw, Exercise, Inputs, Misconception, Quiz, Swap, Tolerance, swap

# --- softmax_temperature --------------------------------------------------------------------------------------------


def draw_softmax(d: Draw, group: str) -> Inputs:
    shape = d.turn([(2, 5), (3, 2, 4), (2, 7), (2, 3, 2, 5)])
    if group == "refus":
        return {"logits": d.normal(2, 4), "temperature": d.turn([0.0, -1.0, -0.5, 0])}
    if group == "bords":
        kind = d.turn(["grands", "très négatifs", "un seul score", "basse température"])
        if kind == "un seul score":
            return {"logits": d.normal(3, 1), "temperature": d.uniform(0.5, 3.0)}
        if kind == "basse température":
            return {"logits": d.normal(2, 6), "temperature": 0.01}
        level = 1000.0 if kind == "grands" else -1000.0
        return {"logits": level + 3 * d.normal(2, 5), "temperature": d.uniform(1.2, 4.0)}
    temperature = d.uniform(1.5, 6.0) if d.index % 2 else d.uniform(0.3, 0.8)
    logits = 2 * d.normal(*shape)
    if group == "courant":
        return {"logits": logits, "temperature": temperature}
    return d.turn(
        [
            {"logits": d.strided(logits), "temperature": 2},
            {"logits": logits.double().transpose(0, 1), "temperature": temperature},
            {"logits": d.normal(6), "temperature": 2.5},
            {"logits": d.normal(3, 4).clamp(-2, 2).half(), "temperature": 2.0},
        ]
    )


_SCALED = "torch.softmax(logits / temperature, dim=-1)"

softmax_temperature = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Une température haute doit rapprocher les probabilités les unes des autres : que faut-il faire aux écarts "
        "entre les scores ?",
        "La température agit sur les scores, avant l'exponentielle, et la somme reste 1 sur le dernier axe.",
        "softmax(z / T), en laissant la bibliothèque retrancher le plus grand score.",
    ],
    groups={"courant": 0.5, "bords": 0.2, "formes et types": 0.15, "refus": 0.15},
    draw=draw_softmax,
    examples=[{"logits": torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 4.0]]), "temperature": 2.0}],
    tolerance=Tolerance(rtol=1e-4, atol=1e-6, why="exponentielles en float32, scores jusqu'à 1 000"),
    misconceptions=[
        Misconception(
            "multiplies",
            swap(("logits / temperature", "logits * temperature")),
            "Quand T monte, votre distribution devient plus pointue : est-ce ce qu'une température fait ?",
        ),
        Misconception(
            "after_softmax",
            swap((_SCALED, "torch.softmax(logits, dim=-1) / temperature")),
            "Vos probabilités ne somment plus à 1 : la température doit agir avant qu'on ne les normalise.",
        ),
        Misconception(
            "power_not_normalised",
            swap((_SCALED, "torch.softmax(logits, dim=-1) ** (1 / temperature)")),
            "Vous adoucissez bien chaque probabilité, mais leur somme n'est plus 1.",
        ),
        Misconception(
            "overflow",
            swap(
                (
                    "return " + _SCALED,
                    "exp = torch.exp(logits / temperature)\n    return exp / exp.sum(dim=-1, keepdim=True)",
                )
            ),
            "De grands scores donnent nan : qu'est-ce qui ne change pas quand on retranche une constante à tous ?",
        ),
        Misconception(
            "axis",
            swap(("dim=-1", "dim=0")),
            "Quelles valeurs doivent sommer à 1 : celles d'une même position.",
        ),
        Misconception(
            "no_temperature",
            swap(("logits / temperature", "logits")),
            "Votre réponse est la même à toutes les températures.",
        ),
        Misconception(
            "squared",
            swap(("logits / temperature", "logits / temperature**2")),
            "Le carré de la température viendra plus tard, dans la perte : ici, par quoi divise-t-on les scores ?",
        ),
        Misconception(
            "log_probs",
            swap((_SCALED, "torch.log_softmax(logits / temperature, dim=-1)")),
            "Vous rendez des logarithmes : une probabilité est positive.",
        ),
        Misconception(
            "negative_accepted",
            swap(("if temperature <= 0:", "if temperature == 0:")),
            "Une température négative renverserait l'ordre des mots : l'énoncé demande de la refuser aussi.",
        ),
        Misconception(
            "zero_accepted",
            swap(("if temperature <= 0:", "if temperature < 0:")),
            "Que vaut un score divisé par une température nulle ? L'énoncé demande de la refuser.",
        ),
        Misconception(
            "no_check",
            swap(("if temperature <= 0:", "if False:")),
            "L'énoncé annonce des températures interdites : votre fonction répond quand même, au lieu de les refuser.",
        ),
    ],
)


# --- kl_divergence --------------------------------------------------------------------------------------------------


def _law(d: Draw, *shape: int, sharp: float = 1.5) -> Tensor:
    """Des lois strictement positives, bien distinctes les unes des autres."""
    return torch.softmax(sharp * d.normal(*shape, dtype=torch.float64), dim=-1).float()


def _with_zero(law: Tensor, *columns: int) -> Tensor:
    """Les mêmes lois, des événements devenus impossibles."""
    law = law.clone()
    law[..., list(columns)] = 0.0
    return law / law.sum(-1, keepdim=True)


def draw_kl(d: Draw, group: str) -> Inputs:
    shape = d.turn([(2, 4), (2, 3, 5), (3, 6), (4,)])
    p, q = _law(d, *shape), _law(d, *shape)
    if group == "courant":
        return {"p": p, "q": q}
    if group == "zéros":
        p, q = _law(d, 3, 5), _law(d, 3, 5)
        return d.turn(
            [
                {"p": _with_zero(p, 1), "q": q},
                {"p": p, "q": torch.cat([q[:1], _with_zero(q[1:], 2)])},
                {"p": _with_zero(p, 0, 3), "q": _with_zero(q, 0)},
                {"p": torch.eye(5)[[d.integer(0, 1), 2, 3]], "q": torch.cat([q[:2], torch.eye(5)[4:]])},
            ]
        )
    wide = torch.softmax(1.5 * d.normal(4, 3, dtype=torch.float64), dim=-1)
    return d.turn(
        [
            {"p": d.strided(p), "q": d.strided(q)},
            {"p": wide, "q": torch.softmax(d.normal(4, 3, dtype=torch.float64), dim=-1)},
            {"p": p, "q": p.clone()},
            {"p": _law(d, 5, 3).T.contiguous().T, "q": _law(d, 5, 3)},
        ]
    )


_TERMS = "torch.where(p > 0, p * (torch.log(p) - torch.log(q)), torch.zeros_like(p))"

kl_divergence = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "La formule est une moyenne : de quelle quantité, et avec quels poids ?",
        "Chaque terme vaut P(x)·(ln P(x) − ln Q(x)). Que doit-il valoir quand P(x) = 0 ? Et que vaut-il, calculé tel "
        "quel ?",
        "Calculez tous les termes, remplacez par 0 ceux où p est nul, puis sommez sur le dernier axe. L'infini, lui, "
        "vient tout seul.",
    ],
    groups={"courant": 0.5, "zéros": 0.35, "formes et types": 0.15},
    draw=draw_kl,
    visible=4,
    examples=[
        {"p": torch.tensor([0.5, 0.25, 0.25]), "q": torch.tensor([0.25, 0.5, 0.25])},
        {"p": torch.tensor([[1.0, 0.0], [0.5, 0.5]]), "q": torch.tensor([[0.5, 0.5], [0.125, 0.875]])},
    ],
    tolerance=Tolerance(rtol=2e-4, atol=2e-6, why="logarithmes et sommes en float32, des termes se compensent"),
    misconceptions=[
        Misconception(
            "exchanged",
            swap(
                (
                    "terms = " + _TERMS,
                    "terms = torch.where(q > 0, q * (torch.log(q) - torch.log(p)), torch.zeros_like(q))",
                )
            ),
            "La divergence n'est pas symétrique : laquelle des deux lois pondère la somme ?",
        ),
        Misconception(
            "log_exchanged",
            swap(("(torch.log(p) - torch.log(q))", "(torch.log(q) - torch.log(p))")),
            "Vos divergences sont négatives : regardez quelle loi est au numérateur du rapport.",
        ),
        Misconception(
            "nan_on_zeros",
            swap((_TERMS, "p * (torch.log(p) - torch.log(q))")),
            "Un événement impossible pour P ne doit rien coûter.",
        ),
        Misconception(
            "epsilon_hides_inf",
            swap((_TERMS, "p * (torch.log(p + 1e-9) - torch.log(q + 1e-9))")),
            "Votre petite constante cache un vrai infini.",
        ),
        Misconception(
            "inf_ignored",
            swap(("torch.where(p > 0,", "torch.where((p > 0) & (q > 0),")),
            "Vous sautez les événements que Q croit impossibles : ce sont pourtant eux qui coûtent le plus.",
        ),
        Misconception(
            "base2",
            swap(("torch.log(p) - torch.log(q)", "torch.log2(p) - torch.log2(q)")),
            "Le résultat est juste en bits ; le cours compte en nats.",
        ),
        Misconception(
            "absolute",
            swap(("p * (torch.log(p) - torch.log(q))", "p * (torch.log(p) - torch.log(q)).abs()")),
            "Des termes ont le droit d'être négatifs ; c'est la somme qui ne l'est jamais.",
        ),
        Misconception(
            "clamped_terms",
            swap(("p * (torch.log(p) - torch.log(q))", "(p * (torch.log(p) - torch.log(q))).clamp(min=0)")),
            "Vous effacez les termes négatifs : seule la somme est assurée de ne pas l'être.",
        ),
        Misconception(
            "mean_over_classes",
            swap(("terms.sum(dim=-1)", "terms.mean(dim=-1)")),
            "Vous divisez par le nombre de classes : la définition est une espérance sous P.",
        ),
        Misconception(
            "cross_entropy",
            swap(("p * (torch.log(p) - torch.log(q))", "p * -torch.log(q)")),
            "C'est l'entropie croisée : une loi comparée à elle-même devrait donner zéro.",
        ),
        Misconception(
            "unweighted",
            swap(("p * (torch.log(p) - torch.log(q))", "(torch.log(p) - torch.log(q))")),
            "Un événement rare pour P compte chez vous autant qu'un événement fréquent.",
        ),
        Misconception(
            "symmetrised",
            swap(("p * (torch.log(p) - torch.log(q))", "(p - q) * (torch.log(p) - torch.log(q)) / 2")),
            "Vous avez rendu la divergence symétrique : la formule, elle, ne moyenne que sous P.",
        ),
        Misconception(
            "all_rows",
            swap(("terms.sum(dim=-1)", "terms.sum()")),
            "Vous additionnez toutes les lignes : on attend une divergence par loi.",
        ),
        Misconception(
            "mean_of_rows",
            swap(("terms.sum(dim=-1)", "terms.sum(dim=-1).mean()")),
            "Vous faites la moyenne des lignes : on attend une divergence par loi.",
        ),
        Misconception(
            "first_axis",
            swap(("terms.sum(dim=-1)", "terms.sum(dim=0)")),
            "Une loi occupe le dernier axe ; vous sommez le long du premier.",
        ),
    ],
)


# --- distillation_loss ----------------------------------------------------------------------------------------------


def draw_distillation(d: Draw, group: str) -> Inputs:
    shape = d.turn([(2, 3, 5), (4, 6), (3, 2, 4), (2, 5, 7)])
    if group == "refus":
        bad = d.turn([0.0, -2.0, -0.5, 0])
        return {"student_logits": d.normal(2, 3, 4), "teacher_logits": d.normal(2, 3, 4), "temperature": bad}
    logits = {"student_logits": 1.5 * d.normal(*shape), "teacher_logits": 2 * d.normal(*shape)}
    if group == "courant":
        temperature = d.turn([{}, {"temperature": d.uniform(2.5, 5.0)}, {"temperature": d.uniform(0.5, 0.8)}, {}])
        return logits | temperature
    if group == "bords":
        same = d.normal(2, 3, 4)
        return d.turn(
            [
                {"student_logits": same + 3.0, "teacher_logits": same, "temperature": 3.0},
                {k: 1.5 * d.normal(1, 1, 6) for k in logits} | {"temperature": 1.0},
                {"student_logits": d.normal(3, 5), "teacher_logits": 5 * torch.eye(5)[:3], "temperature": 4.0},
                {k: d.normal(2, 6, 3) for k in logits} | {"temperature": 20.0},
            ]
        )
    kind = d.turn(["float64", "non contigu", "quatre axes", "transposé"])
    if kind == "quatre axes":
        return {k: d.normal(2, 2, 3, 4) for k in logits} | {"temperature": 3.0}
    if kind == "non contigu":
        return {k: d.strided(v) for k, v in logits.items()} | {"temperature": 2}
    if kind == "float64":
        return {k: v.double() for k, v in logits.items()} | {"temperature": 1.5}
    return {k: d.normal(3, 2, 5).transpose(0, 1) for k in logits}


_SOFT_TEACHER = "torch.log_softmax(teacher_logits.detach() / temperature, dim=-1)"
_SOFT_STUDENT = "torch.log_softmax(student_logits / temperature, dim=-1)"
_DIVERGENCE = "(teacher.exp() * (teacher - student)).sum(dim=-1)"

distillation_loss = Exercise(
    points=3,
    minutes=20,
    stars=2,
    hints=[
        "Deux lois adoucies à la même température, une divergence par position : laquelle des deux pondère la somme ?",
        "Travaillez avec les logarithmes des probabilités (log_softmax) : leur différence ne perd rien.",
        "Une somme sur le dernier axe donne une divergence par position ; il reste à faire la moyenne de toutes.",
        "T²·moyenne(KL(softmax(enseignant / T) ‖ softmax(élève / T))), l'enseignant étant détaché du graphe.",
    ],
    groups={"courant": 0.5, "bords": 0.2, "formes et types": 0.15, "refus": 0.15},
    draw=draw_distillation,
    probe="loss_grads",
    visible=3,
    examples=[
        {
            "student_logits": torch.tensor([[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]]),
            "teacher_logits": torch.tensor([[[2.0, 1.0, 0.0], [0.0, 1.0, 1.0]]]),
        }
    ],
    tolerance=Tolerance(rtol=5e-4, atol=2e-5, why="arrondis en float32, multipliés par T², T jusqu'à 20"),
    misconceptions=[
        Misconception(
            "no_t2",
            swap(("temperature**2 * divergence", "divergence")),
            "Doublez T : vos gradients fondent. Qu'est-ce qui doit les compenser ?",
        ),
        Misconception(
            "t_not_t2",
            swap(("temperature**2 * divergence", "temperature * divergence")),
            "Deux divisions par T se cachent dans ce gradient.",
        ),
        Misconception(
            "divided_by_t2",
            swap(("temperature**2 * divergence.mean()", "divergence.mean() / temperature**2")),
            "Le gradient fond déjà comme 1/T² : votre facteur le fait fondre deux fois.",
        ),
        Misconception(
            "kl_reversed",
            swap((_DIVERGENCE, "(student.exp() * (student - teacher)).sum(dim=-1)")),
            "Votre élève évite les erreurs de l'enseignant au lieu de couvrir tout ce qu'il croit possible.",
        ),
        Misconception(
            "sign",
            swap(("(teacher - student)", "(student - teacher)")),
            "Votre perte est négative : elle pousserait l'élève à s'éloigner de l'enseignant.",
        ),
        Misconception(
            "cross_entropy",
            swap((_DIVERGENCE, "-(teacher.exp() * student).sum(dim=-1)")),
            "Vos gradients sont justes, mais un élève parfait n'aurait pas une perte nulle : il y manque l'entropie de "
            "l'enseignant.",
        ),
        Misconception(
            "batchmean_3d",
            swap(("divergence.mean()", "divergence.sum() / len(student_logits)")),
            "Votre perte grandit avec la longueur des phrases : que compte PyTorch comme un exemple ?",
        ),
        Misconception(
            "sum_over_positions",
            swap(("divergence.mean()", "divergence.sum()")),
            "Votre perte grandit avec le nombre de positions : on en demande la moyenne.",
        ),
        Misconception(
            "mean_over_classes",
            swap((_DIVERGENCE, "(teacher.exp() * (teacher - student)).mean(dim=-1)")),
            "Votre moyenne porte aussi sur le vocabulaire : une divergence est une somme sur les mots.",
        ),
        Misconception(
            "probs_given_to_kl_div",
            swap((_DIVERGENCE, "(teacher.exp() * (teacher - student.exp())).sum(dim=-1)")),
            "Relisez ce que cette fonction attend pour l'élève : une probabilité ou son logarithme ?",
        ),
        Misconception(
            "log_target_forgotten",
            swap((_DIVERGENCE, "F.kl_div(student, teacher, reduction='none').sum(dim=-1)")),
            "Vous donnez à cette fonction le logarithme de l'enseignant : l'avez-vous prévenue ?",
        ),
        Misconception(
            "teacher_not_detached",
            swap((".detach()", "")),
            "L'enseignant reçoit un gradient : qui apprend de qui ?",
        ),
        Misconception(
            "student_detached",
            swap(("student_logits / temperature", "student_logits.detach() / temperature")),
            "La valeur est bonne, mais aucun gradient n'arrive à l'élève : il n'apprendra rien.",
        ),
        Misconception(
            "temperature_teacher_only",
            swap((_SOFT_STUDENT, "torch.log_softmax(student_logits, dim=-1)")),
            "Une loi adoucie comparée à une loi qui ne l'est pas : même à la perfection, l'écart reste.",
        ),
        Misconception(
            "temperature_student_only",
            swap((_SOFT_TEACHER, "torch.log_softmax(teacher_logits.detach(), dim=-1)")),
            "Vous n'adoucissez que l'élève : l'enseignant doit parler à la même température.",
        ),
        Misconception(
            "temperature_multiplied",
            swap(
                ("student_logits / temperature", "student_logits * temperature"),
                ("teacher_logits.detach() / temperature", "teacher_logits.detach() * temperature"),
            ),
            "Vos deux lois deviennent plus pointues quand T monte : une température fait l'inverse.",
        ),
        Misconception(
            "squared_error",
            swap((_DIVERGENCE, "(teacher.exp() - student.exp()).square().sum(dim=-1)")),
            "C'est un écart quadratique entre probabilités ; on demande une divergence.",
        ),
        Misconception(
            "logit_matching",
            swap((_DIVERGENCE, "(teacher_logits.detach() - student_logits).square().mean(dim=-1)")),
            "Vous comparez les scores eux-mêmes : ajouter 3 à tous les scores de l'élève ne change pas ce qu'il dit.",
        ),
        Misconception(
            "hard_teacher",
            swap((_DIVERGENCE, "-student.gather(-1, teacher.argmax(dim=-1, keepdim=True))[..., 0]")),
            "Vous ne gardez de l'enseignant que son mot préféré : tout le reste de ce qu'il sait est perdu.",
        ),
        Misconception(
            "no_check",
            swap(("if temperature <= 0:", "if False:")),
            "L'énoncé annonce des températures interdites : votre fonction répond quand même, au lieu de les refuser.",
        ),
        Misconception(
            "negative_accepted",
            swap(("if temperature <= 0:", "if temperature == 0:")),
            "Une température négative n'a pas de sens : l'énoncé demande de la refuser aussi.",
        ),
    ],
)


# --- combined_loss --------------------------------------------------------------------------------------------------


def _labels(d: Draw, batch: int, length: int, vocabulary: int, ignored: int) -> Tensor:
    """Des étiquettes dont `ignored` par ligne sont à −100, ni la première ni toutes (la ligne 0 en a une de plus)."""
    labels = d.integers(0, vocabulary - 1, batch, length)
    for row in range(batch):
        count = ignored + (row == 0) * (ignored > 0)
        places = d.random.sample(range(1, length), min(count, length - 2))
        labels[row, places] = -100
    return labels


def draw_combined(d: Draw, group: str) -> Inputs:
    batch, length, size = d.turn([(2, 6, 5), (3, 5, 4), (2, 7, 6), (2, 5, 7)])

    def logits(spread: float) -> Tensor:
        return spread * d.normal(batch, length, size)

    inputs = {
        "student_logits": logits(1.5),
        "teacher_logits": logits(2.0),
        "labels": _labels(d, batch, length, size, 0 if d.index == 1 else 1 + d.index % 2),
    }
    if group == "courant":
        settings = [
            {},
            {"temperature": d.uniform(2.5, 4.0), "alpha": d.uniform(0.2, 0.4)},
            {"temperature": d.uniform(1.3, 1.8), "alpha": d.uniform(0.6, 0.8)},
            {"temperature": 3.0, "alpha": 0.3},
        ]
        return inputs | d.turn(settings)
    if group == "bords":
        kind = d.turn(["dur", "doux", "première étiquette", "une seule cible"])
        if kind == "dur":
            return inputs | {"temperature": 3.0, "alpha": 0.0}
        if kind == "doux":
            return inputs | {"temperature": 3.0, "alpha": 1.0}
        if kind == "une seule cible":
            inputs["labels"][:] = -100
            inputs["labels"][1, d.integer(1, length - 1)] = 2
            return inputs | {"temperature": 1.5, "alpha": 0.25}
        inputs["labels"][:, 0] = -100  # une première étiquette n'est jamais une cible : elle ne change rien
        return inputs | {"temperature": 2.0, "alpha": 0.4}
    if group == "refus":
        return inputs | {"temperature": d.turn([0.0, -2.0, -0.5, 0]), "alpha": 0.5}
    if d.index % 2:
        wide = {k: v.double() for k, v in inputs.items() if k != "labels"}
        return wide | {"labels": inputs["labels"], "temperature": 1.7, "alpha": 0.6}
    thin = {k: d.strided(v) for k, v in inputs.items() if k != "labels"}
    return thin | {"labels": inputs["labels"].T.contiguous().T, "temperature": 2, "alpha": 0.75}


_KEPT = "kept = targets != -100"
_BLEND = "return alpha * soft + (1 - alpha) * hard"
_SOFT_LINE = "soft = distillation_loss(student[kept], teacher[kept], temperature)"
_HARD_LINE = "hard = F.cross_entropy(student[kept], targets[kept])"
_SHIFT_STUDENT, _SHIFT_TEACHER = "student_logits[:, :-1]", "teacher_logits[:, :-1]"
_RAW_KL = (
    "(torch.softmax(teacher[kept].detach() / temperature, -1) * ("
    "torch.log_softmax(teacher[kept].detach() / temperature, -1) - torch.log_softmax(student[kept] / temperature, -1)"
    ")).sum(-1).mean()"
)


def _per_sentence(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 2.0, alpha: float = 0.5
) -> Tensor:
    """La moyenne de chaque phrase, puis la moyenne des phrases qui ont une cible."""
    if temperature <= 0:
        raise ValueError
    losses = []
    for s, t, y in zip(student_logits[:, :-1], teacher_logits.detach()[:, :-1], labels[:, 1:], strict=True):
        kept = y != -100
        if not kept.any():
            continue
        log_s, log_t = (torch.log_softmax(z[kept] / temperature, -1) for z in (s, t))
        soft = temperature**2 * (log_t.exp() * (log_t - log_s)).sum(-1).mean()
        losses.append(alpha * soft + (1 - alpha) * F.cross_entropy(s[kept], y[kept]))
    return torch.stack(losses).mean()


combined_loss = Exercise(
    points=3,
    minutes=25,
    stars=3,
    hints=[
        "Quelle est la dernière position dont on peut noter la prédiction ? Et la première étiquette, qui la prédit ?",
        "Décalez une fois pour toutes : les scores sans leur dernière position, les étiquettes sans la première. Les "
        "deux termes portent sur les mêmes positions.",
        "Les étiquettes à −100 désignent des positions à retirer, pour l'élève comme pour l'enseignant, avant toute "
        "moyenne.",
        "α·distillation_loss(…) + (1 − α)·entropie croisée, chacun étant une moyenne sur les cibles gardées.",
    ],
    groups={"courant": 0.5, "bords": 0.25, "formes et types": 0.1, "refus": 0.15},
    draw=draw_combined,
    probe="loss_grads",
    visible=4,
    examples=[
        {
            "student_logits": torch.tensor([[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0], [3.0, 0.0, 0.0]]]),
            "teacher_logits": torch.tensor([[[2.0, 1.0, 0.0], [0.0, 1.0, 1.0], [4.0, 0.0, 0.0], [0.0, 3.0, 0.0]]]),
            "labels": torch.tensor([[0, 1, 2, -100]]),
        }
    ],
    tolerance=Tolerance(rtol=5e-4, atol=1e-5, why="arrondis en float32, multipliés par T²"),
    misconceptions=[
        Misconception(
            "alpha_exchanged",
            swap((_BLEND, "return (1 - alpha) * soft + alpha * hard")),
            "Avec α = 1, que devrait-il rester ?",
        ),
        Misconception(
            "soft_full_weight",
            swap((_BLEND, "return soft + (1 - alpha) * hard")),
            "Le terme doux n'est pas pondéré : avec α = 0, il devrait disparaître.",
        ),
        Misconception(
            "hard_full_weight",
            swap((_BLEND, "return alpha * soft + hard")),
            "Le terme dur n'est pas pondéré : avec α = 1, il devrait disparaître.",
        ),
        Misconception(
            "no_shift",
            swap((_SHIFT_STUDENT, "student_logits"), (_SHIFT_TEACHER, "teacher_logits"), ("labels[:, 1:]", "labels")),
            "La position t prédit t + 1.",
        ),
        Misconception(
            "shift_backwards",
            swap(
                (_SHIFT_STUDENT, "student_logits[:, 1:]"),
                (_SHIFT_TEACHER, "teacher_logits[:, 1:]"),
                ("labels[:, 1:]", "labels[:, :-1]"),
            ),
            "Vous demandez à chaque position le jeton qui la précède, et qu'elle a déjà lu.",
        ),
        Misconception(
            "soft_on_ignored",
            swap((_SOFT_LINE, "soft = distillation_loss(student, teacher, temperature)")),
            "L'élève imite l'enseignant jusque dans le remplissage.",
        ),
        Misconception(
            "soft_on_everything",
            swap((_SOFT_LINE, "soft = distillation_loss(student_logits, teacher_logits, temperature)")),
            "Votre terme doux compte toutes les positions : la dernière ne prédit rien, et d'autres sont à ignorer.",
        ),
        Misconception(
            "soft_not_shifted",
            swap(
                (
                    _SOFT_LINE,
                    "real = labels != -100\n"
                    "    soft = distillation_loss(student_logits[real], teacher_logits[real], temperature)",
                )
            ),
            "Vos deux termes ne portent pas sur les mêmes positions.",
        ),
        Misconception(
            "hard_not_shifted",
            swap(
                (
                    _HARD_LINE,
                    "hard = F.cross_entropy(student_logits.flatten(0, 1), labels.flatten())",
                )
            ),
            "Votre terme dur demande à chaque position le jeton qu'elle vient de lire.",
        ),
        Misconception(
            "hard_at_temperature",
            swap((_HARD_LINE, "hard = F.cross_entropy(student[kept] / temperature, targets[kept])")),
            "Face à la vraie étiquette, l'élève doit répondre sans adoucissement.",
        ),
        Misconception(
            "t2_on_both",
            swap((_BLEND, "return alpha * soft + (1 - alpha) * temperature**2 * hard")),
            "Ce facteur compense la température : y en a-t-il une dans ce terme ?",
        ),
        Misconception(
            "t2_forgotten",
            swap((_SOFT_LINE, "soft = " + _RAW_KL)),
            "Votre terme doux pèse T² fois trop peu face à l'autre.",
        ),
        Misconception(
            "t2_twice",
            swap((_BLEND, "return alpha * temperature**2 * soft + (1 - alpha) * hard")),
            "Le facteur T² est déjà dans la perte de distillation : le voici deux fois.",
        ),
        Misconception(
            "kl_reversed",
            swap((_SOFT_LINE, "soft = distillation_loss(teacher[kept], student[kept].detach(), temperature)")),
            "Dans votre terme doux, les deux rôles sont échangés : qui imite qui ?",
        ),
        Misconception(
            "teacher_not_detached",
            swap((_SOFT_LINE, "soft = temperature**2 * " + _RAW_KL.replace(".detach()", ""))),
            "L'enseignant reçoit un gradient : qui apprend de qui ?",
        ),
        Misconception(
            "soft_only",
            swap((_BLEND, "return soft")),
            "La vraie étiquette n'entre pas dans votre perte.",
        ),
        Misconception(
            "hard_only",
            swap((_BLEND, "return hard")),
            "L'enseignant n'entre pas dans votre perte.",
        ),
        Misconception(
            "sum_of_targets",
            swap((_BLEND, "return (alpha * soft + (1 - alpha) * hard) * kept.sum()")),
            "Votre perte grandit avec le nombre de cibles : chaque terme est une moyenne.",
        ),
        Misconception(
            "divides_by_all",
            swap((_BLEND, "return (alpha * soft + (1 - alpha) * hard) * kept.sum() / kept.numel()")),
            "Vous divisez par toutes les positions, celles à ignorer comprises.",
        ),
        Misconception(
            "no_check",
            swap((_SOFT_LINE, "soft = temperature**2 * " + _RAW_KL)),
            "Une température nulle ou négative n'a pas de sens : l'énoncé demande de la refuser.",
        ),
        Misconception(
            "per_sentence",
            _per_sentence,
            "Une phrase qui garde peu de cibles pèse autant qu'une autre : la moyenne se fait sur les jetons.",
        ),
    ],
)


# --- student_layers -------------------------------------------------------------------------------------------------


def _is_tie(n_teacher: int, n_student: int) -> bool:
    """Un rang tombe-t-il juste à mi-chemin de deux couches ?"""
    return any((2 * i * (n_teacher - 1)) % (2 * (n_student - 1)) == n_student - 1 for i in range(n_student))


def draw_layers(d: Draw, group: str) -> Inputs:
    if group == "refus":
        n = d.integer(3, 12)
        return d.turn(
            [
                {"n_teacher": n, "n_student": n + d.integer(1, 3)},
                {"n_teacher": n, "n_student": 0},
                {"n_teacher": n, "n_student": -d.integer(1, 3)},
                {"n_teacher": 4, "n_student": 5},
            ]
        )
    if group == "bords":
        n = d.integer(4, 24)
        pairs = [(n, 1), (n, 2), (n, n), (1, 1)]
        return dict(zip(("n_teacher", "n_student"), d.turn(pairs), strict=True))
    if group == "mi-chemin":  # un pas de k/2 ou k/4, exact en binaire
        pairs = [(6, 3), (4 * d.integer(2, 5) + 2, 3), (4 * d.integer(2, 5) + 3, 5), (4 * d.integer(2, 6), 3)]
        return dict(zip(("n_teacher", "n_student"), d.turn(pairs), strict=True))
    while True:
        n_teacher = d.integer(8, 48)
        n_student = d.integer(3, n_teacher // 2)
        uneven = (n_teacher - 1) % (n_student - 1)
        if uneven and not _is_tie(n_teacher, n_student):
            return {"n_teacher": n_teacher, "n_student": n_student}


_EVEN = "[round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]"
_RANGE = "if not 1 <= n_student <= n_teacher:"

student_layers = Exercise(
    points=1,
    minutes=10,
    stars=1,
    hints=[
        "Entre la première et la dernière couche, combien d'intervalles un élève de n couches laisse-t-il ?",
        "La couche i de l'élève vient du point i / (n_élève − 1) du chemin qui va de 0 à n_enseignant − 1, arrondi.",
        "round(i·(n_enseignant − 1) / (n_élève − 1)) ; round de Python va au pair quand on est à mi-chemin. Et s'il "
        "n'y a qu'une couche ?",
    ],
    groups={"courant": 0.5, "bords": 0.2, "mi-chemin": 0.15, "refus": 0.15},
    draw=draw_layers,
    visible=3,
    examples=[{"n_teacher": 12, "n_student": 6}, {"n_teacher": 5, "n_student": 2}],
    misconceptions=[
        Misconception(
            "first_n",
            swap((_EVEN, "list(range(n_student))")),
            "La fin du réseau n'a aucun héritier.",
        ),
        Misconception(
            "last_n",
            swap((_EVEN, "list(range(n_teacher - n_student, n_teacher))")),
            "Le début du réseau n'a aucun héritier.",
        ),
        Misconception(
            "stride_misses_last",
            swap((_EVEN, "[i * (n_teacher // n_student) for i in range(n_student)]")),
            "Première et dernière couches sont demandées.",
        ),
        Misconception(
            "even_misses_last",
            swap((_EVEN, "[round(i * n_teacher / n_student) for i in range(n_student)]")),
            "Vous partagez en autant de morceaux que l'élève a de couches : la dernière couche n'est jamais atteinte.",
        ),
        Misconception(
            "truncated",
            swap((_EVEN, "[i * (n_teacher - 1) // (n_student - 1) for i in range(n_student)]")),
            "Vos couches glissent toutes vers le début.",
        ),
        Misconception(
            "rounded_up",
            swap((_EVEN, "[-(-i * (n_teacher - 1) // (n_student - 1)) for i in range(n_student)]")),
            "Vos couches glissent toutes vers la fin.",
        ),
        Misconception(
            "half_up",
            swap((_EVEN, "[int(i * (n_teacher - 1) / (n_student - 1) + 0.5) for i in range(n_student)]")),
            "À mi-chemin de deux couches, l'énoncé demande la paire ; vous montez toujours.",
        ),
        Misconception(
            "half_down",
            swap((_EVEN, "[-int(0.5 - i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]")),
            "À mi-chemin de deux couches, l'énoncé demande la paire ; vous descendez toujours.",
        ),
        Misconception(
            "one_based",
            swap((_EVEN, "[1 + round(i * (n_teacher - 1) / (n_student - 1)) for i in range(n_student)]")),
            "Vos numéros commencent à 1 : la première couche porte le numéro 0.",
        ),
        Misconception(
            "division_by_zero",
            swap(("if n_student == 1:", "if False:")),
            "Et pour un élève d'une seule couche ?",
        ),
        Misconception(
            "single_is_last",
            swap(("return [0]", "return [n_teacher - 1]")),
            "Un élève d'une seule couche hérite, dans cet énoncé, de la première.",
        ),
        Misconception(
            "no_upper_check",
            swap((_RANGE, "if n_student < 1:")),
            "Un élève plus profond que son enseignant recevrait deux fois la même couche : il faut le refuser.",
        ),
        Misconception(
            "no_lower_check",
            swap((_RANGE, "if n_student > n_teacher:")),
            "Un élève sans couche, ou qui en a moins que zéro, n'existe pas : l'énoncé demande de le refuser.",
        ),
        Misconception(
            "same_depth_refused",
            swap((_RANGE, "if not 1 <= n_student < n_teacher:")),
            "Un élève aussi profond que son enseignant est permis : il en reprend toutes les couches.",
        ),
    ],
)


# --- build_student --------------------------------------------------------------------------------------------------


def draw_student(d: Draw, group: str) -> Inputs:
    n_layer, width = d.turn([(4, 8), (5, 12), (6, 8), (4, 16)])
    config = {"n_layer": n_layer, "n_head": 2 if width != 12 else 3, "n_embd": width, "vocab_size": d.integer(19, 29)}
    if group == "courant":
        middle = d.integer(1, n_layer - 2)
        layers = d.turn([[0, middle, n_layer - 1], [0, n_layer - 1], [middle, n_layer - 1], [0, middle, n_layer - 1]])
    else:
        layers = d.turn([[n_layer - 1, 1], list(range(n_layer)), [n_layer - 1], [d.integer(1, n_layer - 2)]])
    ids = d.integers(0, config["vocab_size"] - 1, 2, 2 * d.integer(3, 5))
    return {"config": config, "seed": d.integer(0, 2**31), "args": {"layers": layers}, "input_ids": ids}


_NEW = "student = GPT2LMHeadModel(config).to(teacher.device, teacher.dtype).eval()"
_COPY = "student.load_state_dict(weights)"
_BLOCKS = "enumerate(layers)"


def _without(part: str) -> Swap:
    """L'élève sans les poids dont le nom contient `part`."""
    kept = f"{{k: v for k, v in weights.items() if {part!r} not in k}}"
    return swap((_COPY, f"student.load_state_dict({kept}, strict=False)"))


def _kept_blocks(teacher: Any, layers: list[int]) -> Any:
    """Une copie entière, dont on ne garde que ces blocs, sans renuméroter leur cache."""
    student = copy.deepcopy(teacher)
    student.transformer.h = torch.nn.ModuleList(student.transformer.h[i] for i in layers)
    return student


def _stale_layer_idx(teacher: Any, layers: list[int]) -> Any:
    student = _kept_blocks(teacher, layers)
    student.config.n_layer = len(layers)
    return student


def _config_kept(teacher: Any, layers: list[int]) -> Any:
    student = _kept_blocks(teacher, layers)
    for i, block in enumerate(student.transformer.h):
        block.attn.layer_idx = i
    return student


def _in_place(teacher: Any, layers: list[int]) -> Any:
    teacher.transformer.h = torch.nn.ModuleList(teacher.transformer.h[i] for i in layers)
    teacher.config.n_layer = len(layers)
    for i, block in enumerate(teacher.transformer.h):
        block.attn.layer_idx = i
    return teacher


build_student = Exercise(
    points=3,
    minutes=25,
    stars=3,
    hints=[
        "Un GPT-2 neuf se construit à partir d'une configuration : laquelle de ses valeurs change, et lesquelles non ?",
        "copy.deepcopy(teacher.config), où l'on change n_layer, puis GPT2LMHeadModel(config). Il reste à recopier des "
        "valeurs : quels modules de transformer faut-il visiter ?",
        "Chaque sous-module sait rendre ses poids (state_dict) et en recevoir (load_state_dict, qui copie) : wte, wpe, "
        "ln_f, et chaque bloc h[i] depuis le bloc choisi de l'enseignant.",
    ],
    groups={"courant": 0.7, "bords": 0.3},
    draw=draw_student,
    probe="gpt2_new_model",
    visible=2,
    cases=4,
    examples=[
        {
            "config": {"n_layer": 3, "vocab_size": 11},
            "seed": 5,
            "args": {"layers": [0, 2]},
            "input_ids": torch.tensor([[3, 1, 4, 1, 5, 9]]),
        }
    ],
    tolerance=Tolerance(rtol=1e-3, atol=2e-4, why="logits d'un petit GPT-2 en float32, avec et sans cache"),
    misconceptions=[
        Misconception(
            "shares_blocks",
            swap(
                (
                    _COPY,
                    _COPY + "\n    for i, j in enumerate(layers):\n"
                    "        for name, p in teacher.transformer.h[j].named_parameters():\n"
                    "            student.transformer.h[i].get_parameter(name).data = p.data",
                )
            ),
            "Entraînez l'élève : l'enseignant change aussi.",
        ),
        Misconception(
            "shares_embeddings",
            swap((_COPY, _COPY + "\n    student.transformer.wte.weight.data = teacher.transformer.wte.weight.data")),
            "Les blocs sont bien copiés, mais la table des jetons est celle de l'enseignant : elle apprendrait avec "
            "l'élève.",
        ),
        Misconception(
            "config_kept",
            _config_kept,
            "Le modèle a moins de blocs que ce que sa fiche annonce : que se passera-t-il au rechargement ?",
        ),
        Misconception(
            "edge_stale_layer_idx",
            _stale_layer_idx,
            "Sans cache tout va bien ; avec, un bloc cherche sa mémoire à son ancienne place.",
        ),
        Misconception(
            "in_place",
            _in_place,
            "Vous avez taillé dans l'enseignant lui-même : il n'en reste plus rien pour enseigner.",
        ),
        Misconception(
            "random_embeddings",
            swap(
                (
                    _COPY,
                    "student.transformer.h.load_state_dict("
                    "{k.removeprefix('transformer.h.'): v for k, v in weights.items() if '.h.' in k})",
                )
            ),
            "L'élève a les blocs de l'enseignant mais pas sa façon de lire les mots.",
        ),
        Misconception(
            "random_positions",
            _without("wpe"),
            "Votre élève reconnaît les mots, mais pas leur place dans la phrase.",
        ),
        Misconception(
            "final_norm_forgotten",
            _without("ln_f"),
            "Que se passe-t-il, chez l'enseignant, entre le dernier bloc et la tête ?",
        ),
        Misconception(
            "random_blocks",
            _without(".h."),
            "Vos blocs sont tirés au hasard : l'élève n'hérite que de la façon de lire les mots.",
        ),
        Misconception(
            "first_blocks",
            swap((_BLOCKS, "enumerate(range(len(layers)))")),
            "Vous prenez toujours les premiers blocs, quels que soient ceux qu'on demande.",
        ),
        Misconception(
            "sorted_blocks",
            swap((_BLOCKS, "enumerate(sorted(layers))")),
            "L'élève reçoit les blocs dans l'ordre demandé, qui n'est pas toujours croissant.",
        ),
        Misconception(
            "head_untied",
            swap((_NEW, "config.tie_word_embeddings = False\n    " + _NEW)),
            "Votre élève a plus de paramètres que prévu : la tête et la table d'entrée devaient être le même tenseur.",
        ),
    ],
)


# --- ensemble_probs -------------------------------------------------------------------------------------------------


def draw_ensemble(d: Draw, group: str) -> Inputs:
    shape = d.turn([(3, 2, 5), (2, 2, 3, 4), (4, 3, 6), (3, 4)])
    logits = 2 * d.normal(*shape)
    if group == "courant":
        return {"logits": logits}
    if group == "bords":
        sure = torch.zeros(3, 2, 4)
        sure[0, :, d.integer(0, 3)] = 30.0
        return d.turn(
            [
                {"logits": sure + d.normal(3, 2, 4)},
                {"logits": 1000.0 + 3 * d.normal(2, 3, 4)},
                {"logits": d.normal(1, 3, 5)},
                {"logits": d.normal(5, 2, 1, 3)},
            ]
        )
    return d.turn(
        [
            {"logits": d.strided(logits)},
            {"logits": logits.double().transpose(0, 1)},
            {"logits": d.normal(4, 5)},
            {"logits": d.normal(3, 2, 4).clamp(-2, 2).half()},
        ]
    )


_MEAN_OF_PROBS = "torch.softmax(logits, dim=-1).mean(dim=0)"

ensemble_probs = Exercise(
    points=1,
    minutes=5,
    stars=1,
    hints=[
        "Chaque modèle donne son avis sous forme de scores : à partir de quand ces avis sont-ils comparables ?",
        "D'abord des probabilités, modèle par modèle ; ensuite seulement, une moyenne.",
        "(1/M)·Σ softmax(scores du modèle m), l'axe 0 étant celui des modèles.",
    ],
    groups={"courant": 0.6, "bords": 0.25, "formes et types": 0.15},
    draw=draw_ensemble,
    examples=[{"logits": torch.tensor([[[4.0, 0.0, 0.0]], [[0.0, 1.0, 1.0]]])}],
    tolerance=Tolerance(rtol=1e-4, atol=1e-6, why="exponentielles et moyenne en float32"),
    misconceptions=[
        Misconception(
            "mean_of_logits",
            swap((_MEAN_OF_PROBS, "torch.softmax(logits.mean(dim=0), dim=-1)")),
            "Un modèle très sûr de lui pèse alors bien plus qu'une voix.",
        ),
        Misconception(
            "geometric_mean",
            swap((_MEAN_OF_PROBS, "torch.log_softmax(logits, dim=-1).mean(dim=0).exp()")),
            "Vos lignes ne somment pas à 1.",
        ),
        Misconception(
            "raw_mean",
            swap((_MEAN_OF_PROBS, "logits.mean(dim=0)")),
            "Vous rendez une moyenne de scores : on attend des probabilités.",
        ),
        Misconception(
            "softmax_over_models",
            swap((_MEAN_OF_PROBS, "torch.softmax(logits, dim=0).mean(dim=0)")),
            "Vous faites concourir les modèles entre eux et non les mots.",
        ),
        Misconception(
            "vote",
            swap(
                (
                    _MEAN_OF_PROBS,
                    "torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype).mean(dim=0)",
                )
            ),
            "Un vote jette l'incertitude de chacun.",
        ),
        Misconception(
            "sum_not_mean",
            swap((".mean(dim=0)", ".sum(dim=0)")),
            "Vous additionnez les lois : à trois modèles, vos lignes somment à 3.",
        ),
        Misconception(
            "softmax_twice",
            swap((_MEAN_OF_PROBS, "torch.softmax(torch.softmax(logits, dim=-1).mean(dim=0), dim=-1)")),
            "La moyenne de plusieurs lois est déjà une loi : votre second softmax l'écrase presque à plat.",
        ),
        Misconception(
            "most_confident",
            swap((".mean(dim=0)", ".amax(dim=0)")),
            "Vous gardez pour chaque mot l'avis le plus favorable : vos lignes dépassent 1.",
        ),
        Misconception(
            "mean_over_words",
            swap((".mean(dim=0)", ".mean(dim=-1)")),
            "Vous faites la moyenne sur les mots : elle vaut toujours 1/V. Sur quel axe sont les modèles ?",
        ),
        Misconception(
            "overflow",
            swap(
                (
                    "return " + _MEAN_OF_PROBS,
                    "exp = torch.exp(logits)\n    return (exp / exp.sum(dim=-1, keepdim=True)).mean(dim=0)",
                )
            ),
            "De grands scores donnent nan : qu'est-ce qui ne change pas quand on retranche une constante à tous ?",
        ),
    ],
)


# --- Quiz -----------------------------------------------------------------------------------------------------------

soft_label = Quiz(
    "Que contient une étiquette douce qu'une étiquette dure ne contient pas ?",
    (
        Choice(
            "Le bon mot, avec davantage de précision",
            "Le bon mot n'y est même pas garanti : l'enseignant peut se tromper de premier choix.",
        ),
        Choice(
            "Les autres suites que l'enseignant juge possibles, et à quel point",
            "Souvent plusieurs mots plausibles à une position, là où le texte n'en montre qu'un.",
            correct=True,
        ),
        Choice(
            "Les poids de l'enseignant, sous une autre forme, plus facile à transmettre",
            "Aucun poids ne passe : un élève d'une tout autre architecture peut apprendre d'une étiquette douce.",
        ),
        Choice(
            "Du hasard, qui évite le surapprentissage",
            "Lisser une étiquette au hasard est une autre méthode (label smoothing) : elle ne dit rien du contexte.",
        ),
    ),
)

temperature_limits = Quiz(
    "Vers quoi tend softmax(z / T) quand T tend vers 0, puis vers l'infini ?",
    (
        Choice(
            "Vers la loi uniforme, puis vers le seul premier choix",
            "C'est l'inverse : diviser par un grand T efface les écarts entre les scores.",
        ),
        Choice(
            "Vers des zéros partout, puis vers la loi de départ, inchangée",
            "Une loi somme toujours à 1, et la loi de départ correspond à T = 1.",
        ),
        Choice(
            "Vers le seul premier choix, puis vers la loi uniforme",
            "Tout ou rien d'un côté, ignorance complète de l'autre. L'entropie va de 0 à ln V.",
            correct=True,
        ),
    ),
)

kl_infinite = Quiz(
    "P donne 1 % de chances à un mot, Q aucune. Que vaut la divergence de P à Q ?",
    (
        Choice(
            "Presque rien : 1 % compte peu",
            "Le poids est petit, mais le rapport P/Q qu'il pondère est infini.",
        ),
        Choice(
            "L'infini, dans ce sens-là ; l'autre sens peut rester fini",
            "Q s'est interdit ce qui arrive. Dans l'autre sens, ce mot n'arrive jamais et ne coûte rien.",
            correct=True,
        ),
        Choice(
            "L'infini, dans les deux sens",
            "Sous Q, le terme de ce mot vaut 0·ln(0/0,01), c'est-à-dire 0.",
        ),
        Choice(
            "Elle n'est pas définie",
            "Elle l'est : c'est une somme dont un terme vaut plus l'infini.",
        ),
    ),
)

cover_or_seek = Quiz(
    "Un élève trop simple minimise la divergence de l'enseignant à l'élève. Quel défaut aura-t-il ?",
    (
        Choice(
            "Il étale ses probabilités sur tout ce que l'enseignant croit possible",
            "Oublier un mot que l'enseignant juge possible coûte très cher, en inventer un coûte peu.",
            correct=True,
        ),
        Choice(
            "Il choisit une des manières de parler de l'enseignant, et oublie les autres",
            "C'est ce que fait l'autre sens, de l'élève à l'enseignant.",
        ),
        Choice(
            "Aucun : à l'optimum, l'élève égale l'enseignant",
            "Ce serait vrai d'un élève assez grand pour l'égaler ; celui-ci est trop simple.",
        ),
    ),
)

t_squared = Quiz(
    "Vous passez de T = 8 à T = 16 en oubliant le facteur T². Que devient la part du terme doux dans le gradient ?",
    (
        Choice(
            "Elle ne change pas : la divergence est une moyenne",
            "La moyenne porte sur les positions ; la température, elle, divise les scores.",
        ),
        Choice(
            "Elle double",
            "Une température plus haute rapproche les deux lois : l'écart à corriger diminue.",
        ),
        Choice(
            "Elle est divisée par deux environ",
            "Il y a deux divisions par T : l'une quand on dérive le score, l'autre car les deux lois se rapprochent.",
        ),
        Choice(
            "Elle est divisée par quatre environ",
            "Ce gradient décroît à peu près comme 1/T², et le réglage d'α ne voudrait plus dire la même chose.",
            correct=True,
        ),
    ),
)

random_start = Quiz(
    "L'élève part de poids tirés au hasard, pour un apprentissage très court. Que peut-on dire de ses étiquettes ?",
    (
        Choice(
            "Les douces sont toujours meilleures : elles contiennent plus d'information",
            "Contenir plus d'information ne dit pas à quelle vitesse un élève qui ne sait rien l'apprend : regardez.",
        ),
        Choice(
            "Elles ne peuvent rien lui apprendre : il faut hériter des couches",
            "La perplexité part de plusieurs milliers et descend : il apprend bel et bien.",
        ),
        Choice(
            "Rien d'avance : il faut le mesurer, avec plusieurs graines",
            "L'avantage vu sur un élève qui hérite ne se transporte pas à celui qui commence.",
            correct=True,
        ),
    ),
)

ensemble_claim = Quiz(
    "La diapositive dit que la distillation est un ensemble de modèles. Que peut-on en garder ?",
    (
        Choice(
            "Tout : les deux sont la même chose",
            "Un élève distillé d'un seul modèle n'a qu'un maître ; un ensemble garde tous ses membres à l'usage.",
        ),
        Choice(
            "Que distiller met dans un seul modèle une part du gain d'un ensemble",
            "C'est ainsi que Hinton et al. l'ont présenté. Le signe « égale » va plus loin que les mesures.",
            correct=True,
        ),
        Choice(
            "Rien : les deux n'ont aucun rapport",
            "L'article de 2015 distille justement un ensemble, et l'analyse d'Allen-Zhu et Li relie les deux.",
        ),
        Choice(
            "Qu'un élève distillé de lui-même, plusieurs fois de suite, progresse sans limite",
            "Aucun des articles cités ne le prétend, et rien ici ne le montre.",
        ),
    ),
)

straight_through = Quiz(
    "Pourquoi ne peut-on pas apprendre directement à travers un arrondi ?",
    (
        Choice(
            "Parce que PyTorch refuse de dériver round",
            "Il le dérive sans se plaindre : essayez. C'est la valeur qu'il rend qui pose problème.",
        ),
        Choice(
            "Parce que la dérivée d'un escalier est nulle presque partout",
            "Aucun poids ne recevrait de gradient. L'estimateur direct fait comme si l'escalier était une pente.",
            correct=True,
        ),
        Choice(
            "Parce que les poids ne sont plus des nombres à virgule",
            "Dans cet apprentissage, ils le restent : on garde une copie en FP32, arrondie à chaque passage.",
        ),
    ),
)
