"""L'étude d'échelle du chapitre 2 : de petits GPT-2, à trois budgets de calcul, sur le grand texte de Colibri.

    python -m grader etude TOKENS.npy [SÉRIE…]

TOKENS.npy : le grand texte A découpé, tel que `python -m grader colibri tokenizer` l'écrit. Chaque apprentissage
s'ajoute à assets/etude/points.csv dès qu'il finit ; ceux qui y sont déjà ne sont pas refaits.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from atelier.figures.ch2.study import (
    BATCH,
    CONTEXT,
    VALIDATION_TOKENS,
    study_model,
    training_flops_per_token,
)
from atelier.paths import asset
from atelier.perplexity import evaluate_perplexity
from atelier.training import train, windows

BUDGETS = {"c1": 5e11, "c2": 1.7e12, "c3": 6e12}
Planned = tuple[int, int, float, float, int]
"""Blocs, dimension, budget, taux d'apprentissage, graine."""


def learning_rate(d_model: int) -> float:
    """Inversement proportionnel à la largeur : ce qu'a rendu la recherche « taux »."""
    return 0.256 / d_model


def _budget(name: str, sizes: list[tuple[int, int]], seeds: tuple[int, ...] = (0,)) -> list[Planned]:
    return [(layers, d, BUDGETS[name], learning_rate(d), seed) for layers, d in sizes for seed in seeds]


_RATES = {
    (2, 32): (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2),
    (3, 64): (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2),
    (4, 128): (1e-3, 2e-3, 4e-3, 8e-3),
}
SERIES: dict[str, list[Planned]] = {
    "taux": [(layers, d, BUDGETS["c1"], lr, 0) for (layers, d), rates in _RATES.items() for lr in rates],
    "c1": _budget("c1", [(1, 8), (1, 16), (2, 32), (3, 48), (3, 64), (4, 128)]),
    "c2": _budget("c2", [(1, 16), (2, 32), (3, 48), (3, 64), (4, 96), (4, 128)]),
    "c3": _budget("c3", [(3, 64), (3, 48), (2, 32), (4, 96), (4, 128)]),
    "graines": _budget("c1", [(1, 16), (2, 32), (3, 48)], seeds=(1, 2)),
}


def train_point(n_layer: int, d_model: int, compute: float, ids: Tensor, lr: float, seed: int) -> dict[str, float]:
    """Entraîne un modèle neuf jusqu'à épuiser `compute` opérations, et le note sur la validation de A.

    ids (n,) : jetons d'apprentissage, dont on tire des fenêtres au hasard.
    """
    began, per_token = time.perf_counter(), training_flops_per_token(n_layer, d_model)
    steps = max(2, round(compute / per_token / (BATCH * CONTEXT)))
    model = study_model(n_layer, d_model, seed)
    train(model, windows(ids, BATCH, CONTEXT, seed), steps, lr=lr, warmup=max(2, min(100, steps // 10)))
    tokens = steps * BATCH * CONTEXT
    found = evaluate_perplexity(model, max_tokens=VALIDATION_TOKENS, context=CONTEXT, stride=CONTEXT // 2)
    return {
        "n_layer": n_layer, "d_model": d_model, "params": model.num_parameters(), "tokens": tokens, "steps": steps,
        "flops": round(tokens * per_token), "lr": lr, "seed": seed, "loss": round(math.log(found.perplexity), 4),
        "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def _done(path: Path) -> set[tuple[str, ...]]:
    if not path.is_file():
        return set()
    with path.open(encoding="utf-8", newline="") as file:
        return {(p["serie"], p["n_layer"], p["d_model"], p["lr"], p["seed"]) for p in csv.DictReader(file)}


def main(argv: list[str] | None = None) -> int:
    """Entraîne ce qui manque aux séries nommées, ou à toutes."""
    import numpy as np

    parser = argparse.ArgumentParser(prog="grader etude", description=__doc__.partition("\n")[0])
    parser.add_argument("tokens", type=Path, help="le grand texte, en jetons")
    parser.add_argument("series", nargs="*", metavar="SÉRIE", choices=[*SERIES, []], help=", ".join(SERIES))
    options = parser.parse_args(argv)
    ids = torch.from_numpy(np.load(options.tokens).astype("int64"))
    path = asset("etude", "points.csv")
    known = _done(path)
    for name in options.series or SERIES:
        for layers, d, compute, lr, seed in SERIES[name]:
            if (name, str(layers), str(d), str(lr), str(seed)) in known:
                continue
            point = {"serie": name} | train_point(layers, d, compute, ids, lr, seed)
            with path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, list(point), lineterminator="\n").writerow(point)
            print(point, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
