"""Longues mesures du chapitre 7, gardées dans assets/results/ch7_adapters.json.

    python solutions/ch7_adapters/measures.py [EXPÉRIENCE…] [--redo]

Chaque expérience est enregistrée dès qu'elle finit ; celles qui le sont déjà sont sautées, sauf avec --redo.
`temps` ne mesure que des durées : à relancer seule, sur une machine calme.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import GPT2LMHeadModel

from atelier.figures.ch7 import cost, voices
from atelier.models import gpt2_shape, load_model
from atelier.perplexity import evaluate_perplexity
from atelier.variants import load_variant
from grader.authoring.chapters import load_chapter
from grader.authoring.recording import run_measures

CHAPTER = voices.CHAPTER
STEPS, EVERY, SEEDS = 150, 50, (0, 1, 2)
EVALUATED = 4096
RECIPE = {
    "pas": STEPS,
    "lot": "8 fenêtres de 128 jetons",
    "optimiseur": "AdamW, β = 0,9 et 0,95, sans décroissance des poids, montée sur 10 pas puis cosinus",
    "taux d'apprentissage": {
        "adaptateurs": voices.ADAPTER_LR,
        "complet": voices.FULL_LR,
        "réparation": voices.REPAIR_LR,
    },
    "graines": list(SEEDS),
    "évaluation": f"{EVALUATED} jetons de validation, protocole du cours",
    "goulot": voices.WIDTH,
}
insert = load_chapter(CHAPTER).reference("insert_adapters")


def perplexity(model: GPT2LMHeadModel, text: str, tokens: int = EVALUATED) -> float:
    """Perplexité sur les premiers jetons d'un extrait de validation."""
    return round(evaluate_perplexity(model, f"{text}_validation", max_tokens=tokens).perplexity, 3)


def curve(model: GPT2LMHeadModel, text: str, seed: int, lr: float, steps: int = STEPS) -> dict[str, Any]:
    """Apprentissage sur un extrait : perplexité de validation tous les EVERY pas, puis sur A à la fin."""
    points = {0: perplexity(model, text)}

    def look(i: int) -> None:
        if (i + 1) % EVERY == 0:
            points[i + 1] = perplexity(model, text)

    voices.teach(model, f"{text}_train", steps, seed, lr, after_step=look)
    return {"courbe": points, "final": points[max(points)], "A": perplexity(model, "a"), "graine": seed}


def rates() -> dict[str, Any]:
    """Sensibilité au pas d'apprentissage : perplexité sur B après 100 pas, une graine."""
    base = load_model("colibri")
    found: dict[str, Any] = {"adaptateurs": {}, "complet": {}}
    grid = [("adaptateurs", lr) for lr in (1e-3, 3e-3, 1e-2, 3e-2)] + [("complet", lr) for lr in (3e-4, 1e-3, 3e-3)]
    for kind, lr in grid:
        model = voices.adapted(base, insert) if kind == "adaptateurs" else voices.all_trained(base)
        voices.teach(model, "b_train", 100, lr=lr)
        found[kind][str(lr)] = perplexity(model, "b", 2 * EVALUATED)
        print(kind, lr, found[kind][str(lr)], flush=True)
    return found


def one_voice(text: str) -> Callable[[], dict[str, Any]]:
    """Adaptateurs et apprentissage complet sur un extrait, trois graines : courbes de validation, oubli de A."""

    def run() -> dict[str, Any]:
        base = load_model("colibri")
        found: dict[str, Any] = {
            "départ": {t: perplexity(base, t) for t in ("a", text)},
            "adaptateurs": [],
            "complet": [],
        }
        for s in SEEDS:
            model = voices.adapted(base, insert, seed=s)
            found["adaptateurs"].append(curve(model, text, s, voices.ADAPTER_LR))
            found["complet"].append(curve(voices.all_trained(base), text, s, voices.FULL_LR))
            print(text, s, {k: found[k][-1]["courbe"] for k in ("adaptateurs", "complet")}, flush=True)
        return found

    return run


def widths() -> dict[str, Any]:
    """Perplexité sur B selon la largeur du goulot, mêmes pas et mêmes fenêtres ; trois graines pour 2 et 64."""
    base = load_model("colibri")
    found: dict[str, Any] = {}
    for width, seed in [(1, 0), (2, 0), (4, 0), (8, 0), (32, 0), (64, 0), (128, 0), (2, 1), (64, 1), (2, 2), (64, 2)]:
        model = voices.adapted(base, insert, width, seed)
        n = sum(p.numel() for p in model.parameters() if p.requires_grad)
        row = found.setdefault(str(width), {"paramètres": n, "B": [], "A": []})
        log = voices.teach(model, "b_train", STEPS, seed, voices.ADAPTER_LR)
        row["B"].append(perplexity(model, "b"))
        row["A"].append(perplexity(model, "a"))
        print(width, seed, n, row["B"][-1], round(log.seconds), flush=True)
    return found


def quantized() -> dict[str, Any]:
    """Base en 4 bits (GPTQ, chapitre 3) : voix B apprise dessus, voix transplantée, réparation sur A."""
    base, four = load_model("colibri"), load_variant("int4-gptq")
    found: dict[str, Any] = {
        "départ": {
            "fp32": {t: perplexity(base, t) for t in ("a", "b")},
            "int4": {t: perplexity(four, t) for t in ("a", "b")},
        },
        "B": [],
        "B transplantée": [],
        "A": [],
    }
    for s in SEEDS:
        model = voices.adapted(four, insert, seed=s)
        voices.teach(model, "b_train", STEPS, s, voices.ADAPTER_LR)
        found["B"].append(perplexity(model, "b"))
        print("int4, B", found["B"][-1], flush=True)
    donor = voices.adapted(base, insert, seed=0)
    voices.teach(donor, "b_train", STEPS, 0, voices.ADAPTER_LR)
    receiver = voices.adapted(four, insert, seed=0)
    voices.put_back(receiver, voices.trained_tensors(donor))
    found["B transplantée"].append(perplexity(receiver, "b"))
    for s in SEEDS:
        model = voices.adapted(four, insert, seed=s)
        voices.teach(model, "a_train", STEPS, s, voices.REPAIR_LR)
        found["A"].append(perplexity(model, "a"))
        print("int4, A", found["A"][-1], flush=True)
    return found


def imitation() -> dict[str, Any]:
    """La base en 4 bits et un adaptateur qui imite, sur le texte de A, les prédictions de Colibri en FP32."""
    base, four = load_model("colibri"), load_variant("int4-gptq")
    found: dict[str, Any] = {"A": []}
    for s in SEEDS:
        model = voices.adapted(four, insert, seed=s)
        voices.teach(model, "a_train", STEPS, s, voices.REPAIR_LR, loss=voices.imitate(base))
        found["A"].append(perplexity(model, "a"))
        print("imitation", found["A"][-1], flush=True)
    return found


def memory() -> dict[str, Any]:
    """Octets d'un pas d'Adam à la taille de GPT-2 small (poids au hasard), 1 × 128 jetons."""
    shape = gpt2_shape("small")
    return {name: cost.step_memory(model, cost.token_ids(model, 1, 128)) for name, model in cost.cases(shape, insert)}


def times() -> dict[str, Any]:
    """Durées d'un pas et d'un jeton, Colibri (8 × 128 jetons) puis GPT-2 small (1 × 128, poids au hasard)."""
    colibri, shape = load_model("colibri"), gpt2_shape("small")
    steps = {
        "Colibri": cost.times_of(colibri, insert, 8, 128, repeats=15),
        "GPT-2 small": cost.times_of(shape, insert, 1, 128, repeats=5),
    }
    usage = {
        "Colibri": cost.inference_of(colibri, insert, repeats=60),
        "GPT-2 small": cost.inference_of(shape, insert, repeats=20),
    }
    return {"pas": steps, "usage": usage}


EXPERIMENTS: dict[str, Callable[[], Any]] = {
    "pas": rates,
    "fantasy": one_voice("b"),
    "vers": one_voice("bprime"),
    "largeur": widths,
    "quantifie": quantized,
    "imitation": imitation,
    "memoire": memory,
    "temps": times,
}


if __name__ == "__main__":
    run_measures(CHAPTER, RECIPE, EXPERIMENTS)
