"""Les longues mesures du chapitre 2 : une petite étude d'échelle, écrite dans assets/results/ch2_flops_6nd.json.

    python cours.py mesures ch2_flops_6nd                 tout ce qui manque
    python solutions/ch2_flops_6nd/measures.py c1 c2      ces expériences seulement
    … --redo                                           les refait
    … --one                                               s'arrête après un apprentissage

`COURS_GRAND_TEXTE` : dossier où `python -m grader colibri tokenizer` a écrit tokens.npy, le grand texte A. Sans lui,
l'étude lit l'extrait livré, dont les gros budgets font plusieurs passages ; la recette enregistrée le dit.
Chaque apprentissage est enregistré dès qu'il finit : une interruption ne coûte que celui qui est en cours.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atelier.figures.ch2.counts import terms_per_token
from atelier.figures.ch2.study import BATCH, CONTEXT, VALIDATION_TOKENS, learning_rate, steps_for, train_point
from atelier.figures.ch2.time import colibri_journal, speeds
from atelier.measures import recorded_measures, save_measures
from atelier.models import load_model
from atelier.perplexity import evaluate_perplexity
from atelier.text import number
from atelier.training import corpus_tokens

CHAPTER = "ch2_flops_6nd"
BUDGETS = {"c1": 5e11, "c2": 1.7e12, "c3": 6e12}
SIZES = {
    "c1": [(1, 8), (1, 16), (2, 32), (3, 48), (3, 64), (4, 128)],
    "c2": [(1, 16), (2, 32), (3, 48), (3, 64), (4, 96), (4, 128)],
    "c3": [(3, 64), (3, 48), (2, 32), (4, 96), (4, 128)],
}
SWEEP = {
    (2, 32): (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2),
    (3, 64): (2e-3, 4e-3, 8e-3, 1.6e-2),
    (4, 128): (1e-3, 2e-3, 4e-3, 8e-3),
}
FURTHER = {"size": (3, 64), "compute": 1.2e13}
EXTRACT = [(1, 8), (1, 16), (2, 32), (3, 48), (3, 64)]
SEEDS = {"sizes": [(1, 16), (2, 32), (3, 48)], "seeds": (1, 2)}


@cache
def large_text() -> tuple[str, Tensor]:
    """Le grand texte A s'il est là, sinon l'extrait livré : ce que c'est, et ses jetons (n,)."""
    folder = os.environ.get("COURS_GRAND_TEXTE")
    if folder:
        import numpy as np

        ids = torch.from_numpy(np.load(Path(folder) / "tokens.npy").astype("int64"))
        return f"grand texte A, {number(len(ids))} jetons", ids
    ids = corpus_tokens("a_train")
    return f"extrait a_train, {number(len(ids))} jetons", ids


def _matches(point: dict[str, Any], asked: dict[str, Any]) -> bool:
    return all(point[k] == v for k, v in asked.items())


class Results:
    """Les mesures déjà faites. Relues avant chaque écriture : deux expériences peuvent tourner en même temps."""

    def __init__(self, recipe: dict[str, Any], single: bool = False) -> None:
        self.recipe = recipe
        self.single = single

    def add(self, name: str, value: dict[str, Any]) -> None:
        """Ajoute une mesure à une expérience, et l'écrit."""
        measures = recorded_measures(CHAPTER)
        measures.setdefault(name, []).append(value)
        save_measures(CHAPTER, self.recipe, **measures)
        print(name, value, flush=True)

    def forget(self, name: str) -> None:
        """Oublie une expérience."""
        measures = recorded_measures(CHAPTER)
        measures.pop(name, None)
        save_measures(CHAPTER, self.recipe, **measures)

    def run(self, name: str, n_layer: int, d_model: int, compute: float, ids: Tensor, lr: float, seed: int = 0) -> None:
        """Un apprentissage, sauf s'il est déjà enregistré sous ce nom."""
        asked = {
            "n_layer": n_layer, "d_model": d_model, "steps": steps_for(n_layer, d_model, compute), "lr": lr,
            "seed": seed,
        }  # fmt: skip
        measures = recorded_measures(CHAPTER)
        if any(_matches(p, asked) for p in measures.get(name, [])):
            return
        known = [p for p in measures.get("taux", []) if _matches(p, asked)]
        if name in BUDGETS and known:  # la recherche du pas compte pour le plus petit budget
            self.add(name, known[0])
            return
        self.add(name, train_point(n_layer, d_model, compute, ids, lr, seed).record())
        if self.single:
            raise SystemExit(0)


def learning_rates(results: Results) -> None:
    """Le taux d'apprentissage, cherché sur trois tailles au plus petit budget."""
    for (n_layer, d_model), rates in SWEEP.items():
        for lr in rates:
            results.run("taux", n_layer, d_model, BUDGETS["c1"], large_text()[1], lr)


def budget(name: str) -> Callable[[Results], None]:
    """Toutes les tailles d'un budget, à une graine."""

    def measure(results: Results) -> None:
        for n_layer, d_model in SIZES[name]:
            results.run(name, n_layer, d_model, BUDGETS[name], large_text()[1], learning_rate(d_model))

    return measure


def seeds(results: Results) -> None:
    """Le plus petit budget à deux autres graines (poids de départ et fenêtres) : ce que vaut un écart."""
    for n_layer, d_model in SEEDS["sizes"]:
        for seed in SEEDS["seeds"]:
            results.run("graines", n_layer, d_model, BUDGETS["c1"], large_text()[1], learning_rate(d_model), seed)


def shipped_extract(results: Results) -> None:
    """Le plus petit budget, sur l'extrait livré au lieu du grand texte : ce que lira le point ajouté par le lecteur."""
    ids = corpus_tokens("a_train")
    for n_layer, d_model in EXTRACT:
        results.run("extrait", n_layer, d_model, BUDGETS["c1"], ids, learning_rate(d_model))


def further(results: Results) -> None:
    """Un budget plus grand, tenu à l'écart de l'ajustement, à la taille que les creux précédents font attendre."""
    results.run("plus_loin", *FURTHER["size"], FURTHER["compute"], large_text()[1], learning_rate(FURTHER["size"][1]))


def colibri(results: Results) -> None:
    """Colibri, noté selon le protocole de l'étude : une autre recette, bien plus loin."""
    if "colibri" in recorded_measures(CHAPTER):
        return
    model = load_model("colibri", on="cpu")
    c, (recipe, _) = model.config, colibri_journal()
    evaluation = evaluate_perplexity(model, max_tokens=VALIDATION_TOKENS, context=CONTEXT, stride=CONTEXT // 2)
    forward, backward = terms_per_token(c.n_layer, c.n_embd, c.n_positions, c.vocab_size)
    flops = (sum(forward.values()) + sum(backward.values())) * recipe["jetons"]
    results.add(
        "colibri",
        {
            "params": recipe["parametres"],
            "tokens": recipe["jetons"],
            "flops": round(flops),
            "loss": round(math.log(evaluation.perplexity), 4),
        },
    )


def timings(results: Results) -> None:
    """La pointe de la machine, sur un puis deux fils de calcul. À lancer seul, machine calme."""
    results.forget("temps")
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found = speeds(sizes=(512, 1024, 2048, 4096), repeats=5, budget=8.0)
        results.add("temps", {"fils": threads, "pointe": {name: max(by.values()) for name, by in found.items()}})
    torch.set_num_threads(before)


EXPERIMENTS = {
    "taux": learning_rates,
    **{name: budget(name) for name in BUDGETS},
    "graines": seeds,
    "extrait": shipped_extract,
    "plus_loin": further,
    "colibri": colibri,
    "temps": timings,
}


def main(argv: list[str] | None = None) -> int:
    """Lance les expériences nommées, ou toutes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="EXPÉRIENCE", help=", ".join(EXPERIMENTS))
    parser.add_argument(
        "--redo", "--refaire", action="store_true", help="oublie ce qui est enregistré pour ces expériences"
    )
    parser.add_argument("--one", action="store_true", help="s'arrête après un apprentissage")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(EXPERIMENTS):
        parser.error(f"expérience inconnue : {', '.join(sorted(unknown))} (il y a {', '.join(EXPERIMENTS)})")
    results = Results(
        {
            "texte": large_text()[0],
            "lot": f"{BATCH} fenêtres de {CONTEXT} jetons, tirées au hasard",
            "validation": f"a_validation, {number(VALIDATION_TOKENS)} jetons, contexte {CONTEXT}, pas {CONTEXT // 2}",
            "optimiseur": "AdamW, β = 0,9 et 0,95, sans décroissance des poids ; montée sur un dixième des pas (100 au "
            "plus), descente en cosinus jusqu'à 10 % ; norme du gradient bornée à 1 ; float32",
            "taux d'apprentissage": "0,256 / d, d'après l'expérience « taux » (trois largeurs, plus petit budget)",
            "calcul": "opérations comptées par FlopCounterMode, avant et arrière",
        },
        single=options.one,
    )
    names: Iterable[str] = options.names or EXPERIMENTS
    for name in names:
        if options.redo:
            results.forget(name)
        EXPERIMENTS[name](results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
