"""Les longues mesures du chapitre 4 : `python cours.py mesures ch4_distillation`.

Chaque expérience est enregistrée dès qu'elle finit ; celles qui le sont déjà sont sautées. Des noms d'expériences en
argument n'en font que celles-là, et `--redo` recommence. Les pertes sont écrites ici avec les fonctions de torch,
que tests/test_oracles_ch4.py compare aux solutions des exercices.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from atelier.figures.ch4 import lowbit as low
from atelier.figures.ch4 import students as st
from atelier.hardware import median_seconds
from atelier.models import load_model
from atelier.perplexity import evaluate_perplexity
from atelier.training import lm_loss, windows
from grader.authoring.recording import run_measures

CHAPTER = "ch4_distillation"
SEEDS = (0, 1, 2)
LONG = 2 * st.STEPS
REPAIR_STEPS, REPAIR_RATES = 40, {3: 5e-4, 2: 1e-3}
TEMPERATURES, ALPHAS = (1.0, 2.0, 4.0, 8.0), (0.25, 0.5, 0.75, 1.0)


def combined(student: Tensor, teacher: Tensor, ids: Tensor, temperature: float, alpha: float) -> Tensor:
    """α·T²·KL(enseignant ‖ élève) + (1 − α)·entropie croisée, sans remplissage."""
    student, teacher = student[:, :-1].flatten(0, 1), teacher[:, :-1].flatten(0, 1)
    soft = F.kl_div(
        F.log_softmax(student / temperature, -1),
        F.log_softmax(teacher / temperature, -1),
        reduction="batchmean",
        log_target=True,
    )
    hard = F.cross_entropy(student, ids[:, 1:].flatten())
    return alpha * temperature**2 * soft + (1 - alpha) * hard


def mean_probs(logits: Tensor) -> Tensor:
    """Moyenne des lois."""
    return logits.softmax(-1).mean(0)


def mean_logits(logits: Tensor) -> Tensor:
    """Loi des logits moyens : la moyenne géométrique, normalisée."""
    return logits.mean(0).softmax(-1)


def empty(n_layer: int, seed: int) -> GPT2LMHeadModel:
    """Un GPT-2 de la largeur de Colibri, à n_layer blocs, aux poids tirés de `seed`."""
    config = copy.deepcopy(colibri().config)
    config.n_layer = n_layer
    torch.manual_seed(seed)
    return GPT2LMHeadModel(config).eval()


def from_layers(layers: list[int]) -> GPT2LMHeadModel:
    """L'élève fait de ces blocs de Colibri."""
    student = empty(len(layers), 0)
    weights = {k: v for k, v in colibri().state_dict().items() if ".h." not in k}
    for i, j in enumerate(layers):
        block = colibri().transformer.h[j].state_dict()
        weights |= {f"transformer.h.{i}.{k}": v for k, v in block.items()}
    student.load_state_dict(weights)
    return student


@functools.cache
def colibri() -> GPT2LMHeadModel:
    """L'enseignant."""
    return load_model("colibri").requires_grad_(False)


def objective(name: str, teacher: nn.Module | None = None) -> st.Loss:
    """La perte d'un objectif ; les étiquettes dures n'ont pas besoin d'enseignant."""
    alpha = st.OBJECTIVES[name]
    return lm_loss if alpha == 0 else st.taught(teacher or colibri(), combined, st.TEMPERATURE, alpha)


@functools.cache
def hard_student(seed: int, steps: int, from_scratch: bool = False) -> GPT2LMHeadModel:
    """Un élève d'étiquettes dures, gardé en mémoire pour les ensembles."""
    student = empty(2, seed) if from_scratch else from_layers(st.SPACED)
    st.teach(student, lm_loss, steps, seed, every=0)
    return student


def run(student: GPT2LMHeadModel, loss: st.Loss, **options: Any) -> dict[str, Any]:
    """Un apprentissage et sa note, prêts à enregistrer."""
    return st.teach(student, loss, **options).record()


# --- Expériences ----------------------------------------------------------------------------------------------------


def _objective_runs(name: str, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Plusieurs durées, trois graines (l'ordre des fenêtres) : pas → apprentissages."""
    return {
        str(steps): [run(from_layers(st.SPACED), objective(name), steps=steps, seed=s) for s in SEEDS]
        for steps in lengths
    }


def dures() -> dict[str, Any]:
    """Étiquettes dures seules ; une durée de plus, pour comparer à temps égal."""
    return _objective_runs("dures", (st.SHORT, st.STEPS, LONG))


def douces() -> dict[str, Any]:
    """Étiquettes douces seules."""
    return _objective_runs("douces", (st.SHORT, st.STEPS))


def melange() -> dict[str, Any]:
    """Les deux étiquettes."""
    return _objective_runs("les deux", (st.SHORT, st.STEPS))


def couches() -> dict[str, Any]:
    """Les dix paires de blocs avant apprentissage ; premiers contre espacés après, trois graines."""
    pairs = [list(p) for p in itertools.combinations(range(5), 2)]
    before = [{"couches": p, "perplexité": evaluate_perplexity(from_layers(p)).perplexity} for p in pairs]
    loss = objective("les deux")
    after = [run(from_layers(st.FIRST), loss, steps=st.SHORT, seed=s, every=0) for s in SEEDS]
    return {"avant": before, "premières": after}


def profondeur() -> dict[str, Any]:
    """Élèves de 1, 3 et 4 blocs, les deux étiquettes, une graine."""
    depths = {1: [0], 3: [0, 2, 4], 4: [0, 1, 3, 4]}
    return {
        str(n): run(from_layers(layers), objective("les deux"), steps=st.SHORT, every=0)
        | {"couches": layers, "paramètres": from_layers(layers).num_parameters()}
        for n, layers in depths.items()
    }


def hasard() -> dict[str, Any]:
    """Le témoin : un élève qui part de poids tirés au hasard, trois graines."""
    hard = [run(empty(2, s), objective("dures"), seed=s) for s in SEEDS]
    soft = [run(empty(2, s), objective("douces"), seed=s) for s in SEEDS]
    return {"dures": hard, "douces": soft}


def grille() -> dict[str, Any]:
    """Température et α, trois graines, apprentissages courts."""
    cells = []
    for t, a in itertools.product(TEMPERATURES, ALPHAS):
        loss = st.taught(colibri(), combined, t, a)
        runs = [run(from_layers(st.SPACED), loss, steps=st.SHORT, seed=s, every=0) for s in SEEDS]
        cells.append({"T": t, "alpha": a, "perplexités": [r["perplexité"] for r in runs]})
    return {"pas": st.SHORT, "cases": cells}


def ensemble() -> dict[str, Any]:
    """Trois élèves ensemble ; un élève qui apprend d'eux ; un élève qui apprend d'un seul de ses pareils."""
    result: dict[str, Any] = {}
    for name, scratch in (("couches", False), ("hasard", True)):
        members = [hard_student(s, st.SHORT, scratch) for s in SEEDS]
        alone = [evaluate_perplexity(m).perplexity for m in members]
        sets = [list(c) for k in (1, 2, 3) for c in itertools.combinations(members, k)]
        result[name] = {
            "seuls": alone,
            "ensembles": [
                {
                    "k": len(group),
                    "probabilités": evaluate_perplexity(st.Ensemble(group, mean_probs)).perplexity,
                    "logits": evaluate_perplexity(st.Ensemble(group, mean_logits)).perplexity,
                    "ece": st.calibration(st.Ensemble(group, mean_probs)).gap,
                }
                for group in sets
            ],
        }
    members = [hard_student(s, st.SHORT) for s in SEEDS]
    teachers = {"ensemble": st.Ensemble(members, mean_probs), "pareil": members[0]}
    for name, teacher in teachers.items():
        loss = st.taught(teacher, combined, st.TEMPERATURE, st.ALPHA)
        result[f"élève de {name}"] = [
            run(from_layers(st.SPACED), loss, steps=st.SHORT, seed=10 + s, every=0) for s in SEEDS
        ]
    return result


def _repair(bits: int) -> dict[str, Any]:
    """Colibri arrondi sur `bits` bits, puis réparé (estimateur direct), étiquettes dures et douces, trois graines."""
    start = evaluate_perplexity(low.rounded_copy(colibri(), bits)).perplexity
    found: dict[str, Any] = {"pas": REPAIR_STEPS, "taux": REPAIR_RATES[bits], "arrondi": start}
    for name in ("dures", "douces"):
        loss = lm_loss if name == "dures" else st.taught(colibri(), combined, 1.0, 1.0)
        found[name] = []
        for s in SEEDS:
            model = low.rounded_copy(colibri(), bits).requires_grad_(True)
            found[name].append(run(model, loss, steps=REPAIR_STEPS, seed=s, lr=REPAIR_RATES[bits], every=15))
    return found


def trois_bits() -> dict[str, Any]:
    """Réparation d'un Colibri sur 3 bits."""
    return _repair(3)


def deux_bits() -> dict[str, Any]:
    """Réparation d'un Colibri sur 2 bits."""
    return _repair(2)


def temps() -> dict[str, Any]:
    """Secondes d'un pas de chaque apprentissage, et d'un passage de l'enseignant et de l'élève, sur cette machine."""
    batch = next(windows(st.train_ids(), st.BATCH, st.LENGTH))
    student = from_layers(st.SPACED)
    losses = {name: objective(name) for name in st.OBJECTIVES}
    trio = st.Ensemble([from_layers(st.SPACED) for _ in SEEDS], mean_probs)
    losses["élève de ensemble"] = st.taught(trio, combined, st.TEMPERATURE, st.ALPHA)
    losses["élève de pareil"] = st.taught(trio.members[0], combined, st.TEMPERATURE, st.ALPHA)
    found = {}
    for name, loss in losses.items():
        learner = from_layers(st.SPACED)
        optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-5)

        def step(loss: st.Loss = loss, learner: nn.Module = learner, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            loss(learner, batch).backward()
            optimizer.step()

        found[name] = median_seconds(step, repeats=15)
    with torch.inference_mode():
        found["passage de l'enseignant"] = median_seconds(lambda: colibri()(batch), repeats=15)
        found["passage de l'élève"] = median_seconds(lambda: student(batch), repeats=15)
    return found


EXPERIMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    f.__name__: f
    for f in (dures, douces, melange, couches, profondeur, hasard, grille, ensemble, trois_bits, deux_bits, temps)
}


RECIPE = {
    "élève": f"deux blocs de Colibri, {st.SPACED}",
    "texte": "a_train",
    "pas": [st.SHORT, st.STEPS, LONG],
    "jetons par pas": st.BATCH * st.LENGTH,
    "taux": st.LEARNING_RATE,
    "T": st.TEMPERATURE,
    "alpha": st.ALPHA,
    "graines": list(SEEDS),
    "évaluation": "8 192 jetons de a_validation",
}

if __name__ == "__main__":
    run_measures(CHAPTER, RECIPE, EXPERIMENTS)
