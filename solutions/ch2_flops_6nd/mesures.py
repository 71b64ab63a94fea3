"""Les longues mesures du chapitre 2 : une petite étude d'échelle, écrite dans assets/mesures/ch2_flops_6nd.json.

    python cours.py mesures ch2_flops_6nd                 tout ce qui manque
    python solutions/ch2_flops_6nd/mesures.py c1 c2       ces expériences seulement
    … --refaire                                           les refait

`COURS_GRAND_TEXTE` : dossier où `python -m grader colibri tokenizer` a écrit tokens.npy, le grand texte A. Sans lui,
l'étude lit l'extrait livré, dont les gros budgets font plusieurs passages ; la recette enregistrée le dit.
Chaque apprentissage est enregistré dès qu'il finit : une interruption ne coûte que celui qui est en cours.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atelier.figures.ch2_study import BATCH, CONTEXT, VALIDATION_TOKENS, Point, learning_rate, steps_for, train_point
from atelier.measures import load_measures, save_measures
from atelier.training import corpus_tokens

CHAPTER = "ch2_flops_6nd"
BUDGETS = {"c1": 5e11, "c2": 1.7e12, "c3": 6e12}
SIZES = {
    "c1": [(1, 8), (1, 16), (2, 32), (3, 48), (3, 64), (4, 128)],
    "c2": [(1, 16), (2, 32), (3, 48), (3, 64), (4, 96), (4, 128)],
    "c3": [(2, 32), (3, 48), (3, 64), (4, 96), (4, 128), (1, 16)],
}
SWEEP = {
    (2, 32): (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2),
    (3, 64): (2e-3, 4e-3, 8e-3, 1.6e-2),
    (4, 128): (1e-3, 2e-3, 4e-3, 8e-3),
}
SEEDS = {"sizes": [(1, 16), (2, 32), (3, 48)], "seeds": (1, 2)}


@cache
def large_text() -> tuple[str, Tensor]:
    """Le grand texte A s'il est là, sinon l'extrait livré : ce que c'est, et ses jetons (n,)."""
    folder = os.environ.get("COURS_GRAND_TEXTE")
    if folder:
        import numpy as np

        ids = torch.from_numpy(np.load(Path(folder) / "tokens.npy").astype("int64"))
        return f"grand texte A, {len(ids)} jetons", ids
    ids = corpus_tokens("a_train")
    return f"extrait a_train, {len(ids)} jetons", ids


def _matches(point: dict[str, Any], asked: dict[str, Any]) -> bool:
    return all(point[k] == v for k, v in asked.items())


class Results:
    """Les mesures déjà faites, relues et réécrites après chacune."""

    def __init__(self) -> None:
        try:
            content = load_measures(CHAPTER)
        except FileNotFoundError:
            content = {}
        self.recipe: dict[str, Any] = content.get("recette", {})
        self.measures = {k: v for k, v in content.items() if k not in ("machine", "date", "recette")}

    def save(self) -> None:
        save_measures(CHAPTER, self.recipe, **self.measures)

    def points(self, name: str) -> list[dict[str, Any]]:
        return self.measures.setdefault(name, [])

    def run(self, name: str, n_layer: int, d_model: int, compute: float, ids: Tensor, lr: float, seed: int = 0) -> None:
        """Un apprentissage, sauf s'il est déjà enregistré sous ce nom."""
        asked = {
            "n_layer": n_layer, "d_model": d_model, "steps": steps_for(n_layer, d_model, compute), "lr": lr,
            "seed": seed,
        }  # fmt: skip
        if any(_matches(p, asked) for p in self.points(name)):
            return
        known = [p for points in self.measures.values() for p in points if _matches(p, asked)]
        if known:  # déjà fait sous un autre nom : la recherche du pas compte pour le plus petit budget
            self.points(name).append(known[0])
            self.save()
            return
        point: Point = train_point(n_layer, d_model, compute, ids, lr, seed)
        self.points(name).append(point.record())
        self.save()
        print(name, point.record(), flush=True)


def learning_rates(results: Results) -> None:
    """Le pas d'apprentissage, cherché sur trois tailles au plus petit budget."""
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


EXPERIMENTS = {"taux": learning_rates, **{name: budget(name) for name in BUDGETS}, "graines": seeds}


def main(argv: list[str] | None = None) -> int:
    """Lance les expériences nommées, ou toutes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="EXPÉRIENCE", help=", ".join(EXPERIMENTS))
    parser.add_argument("--refaire", action="store_true", help="oublie ce qui est enregistré pour ces expériences")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(EXPERIMENTS):
        parser.error(f"expérience inconnue : {', '.join(sorted(unknown))} (il y a {', '.join(EXPERIMENTS)})")
    results = Results()
    results.recipe |= {
        "texte": large_text()[0],
        "lot": f"{BATCH} fenêtres de {CONTEXT} jetons, tirées au hasard",
        "validation": f"a_validation, {VALIDATION_TOKENS} jetons, contexte {CONTEXT}, pas {CONTEXT // 2}",
        "optimiseur": "AdamW, β = 0,9 et 0,95, sans décroissance des poids ; montée sur un dixième des pas (100 au "
        "plus), descente en cosinus jusqu'à 10 % ; norme du gradient bornée à 1 ; float32",
        "calcul": "opérations comptées par FlopCounterMode, avant et arrière",
    }
    names: Iterable[str] = options.names or EXPERIMENTS
    for name in names:
        if options.refaire:
            results.measures.pop(name, None)
        EXPERIMENTS[name](results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
