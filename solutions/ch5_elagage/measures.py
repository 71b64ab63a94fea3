"""Les longues mesures du chapitre 5, écrites dans assets/results/ch5_elagage.json.

    python cours.py mesures ch5_elagage                     tout ce qui manque
    python solutions/ch5_elagage/measures.py wanda reprise  ces expériences seulement
    … --redo                                             les refait

Chaque point est enregistré dès qu'il est mesuré : une interruption ne coûte que celui qui est en cours.
Les fonctions d'exercice employées sont celles du chapitre ; GPTQ est celui du chapitre 3 ; SparseGPT est écrit ici.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from atelier.figures.ch5.combined import round_to_grid
from atelier.figures.ch5.masks import by_blocks, linear_weights, magnitude_model, masked, random_model, wanda_model
from atelier.figures.ch5.papers import PATTERNS
from atelier.figures.ch5.recovery import LR, RAMP, STEPS, gradual, one_shot, unmasked, zero_share
from atelier.figures.common.layers import replace_weights
from atelier.measures import recorded_measures, save_measures
from atelier.models import load_model
from atelier.perplexity import evaluate_perplexity
from atelier.training import corpus_tokens, windows
from grader.authoring.chapters import load_chapter

CHAPTER = "ch5_elagage"
AMOUNTS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
SEEDS = [0, 1, 2]
TOKENS = 4096
CALIBRATION = 16
RECOVERED = [0.5, 0.8, 0.9]
RATES = [1e-4, 3e-4, 3e-3]
RECIPE = {
    "perplexité": f"protocole du cours, {TOKENS} premiers jetons de a_validation",
    "étalonnage": f"{CALIBRATION} fenêtres de 256 jetons de a_train, tirées avec la graine",
    "graines": SEEDS,
    "reprise": f"{STEPS} pas d'AdamW de 8 × 128 jetons de a_train, pas {LR}, tous les paramètres ; élagage progressif "
    f"jusqu'au pas {RAMP}",
}

model = load_model("colibri")
reference = load_chapter(CHAPTER).reference


def perplexity(pruned: Any) -> float:
    return round(evaluate_perplexity(pruned, max_tokens=TOKENS).perplexity, 4)


def calibration(seed: int) -> Tensor:
    return next(windows(corpus_tokens("a_train"), CALIBRATION, 256, seed))


# --- SparseGPT --------------------------------------------------------------------------------------------------------


def sparsegpt(
    w: Tensor,
    x: Tensor,
    amount: float | None = None,
    pattern: tuple[int, int] | None = None,
    bits: int | None = None,
    block: int = 64,
    damp: float = 0.01,
) -> Tensor:
    """Élagage, et arrondi si `bits` est donné, de w (out, in), chaque colonne corrigeant les suivantes.

    Frantar et Alistarh (2023), algorithme 1 : le masque est choisi bloc de colonnes par bloc de colonnes, d'après
    w² / [H⁻¹]ⱼⱼ ; pattern : (n, m), n poids gardés sur m voisins. x : (n, in) ; calcul en float64.
    """
    free, x = w.double().clone(), x.double()
    hessian = 2 * x.T @ x
    hessian.diagonal().add_(damp * hessian.diagonal().mean())
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    levels = 2 ** (bits - 1) - 1 if bits else 1
    scale = w.double().abs().amax(1).clamp(min=1e-12) / levels
    for start in range(0, w.shape[1], block):
        stop = min(start + block, w.shape[1])
        scores = (free[:, start:stop] / upper.diagonal()[start:stop]).abs()
        if pattern:
            keep = reference("nm_mask")(scores, *pattern)
        else:
            keep = reference("magnitude_mask")(scores, amount)
        for j in range(start, stop):
            column = free[:, j].clone()
            new = (column / scale).round().clamp(-levels - 1, levels) * scale if bits else column
            free[:, j] = new * keep[:, j - start]
            error = (column - free[:, j]) / upper[j, j]
            free[:, j + 1 :] -= torch.outer(error, upper[j, j + 1 :])
    return free.to(w.dtype)


# --- Les expériences --------------------------------------------------------------------------------------------------


class Results:
    """Les mesures déjà faites. Le fichier est relu avant chaque écriture : deux lancements peuvent se compléter."""

    def __init__(self, redo: set[str]) -> None:
        if redo:
            kept = {k: v for k, v in recorded_measures(CHAPTER).items() if k not in redo}
            save_measures(CHAPTER, RECIPE, **kept)

    def point(self, experiment: str, key: str, measure: Callable[[], Any]) -> None:
        """Mesure et enregistre un point, sauf s'il l'est déjà."""
        if key in recorded_measures(CHAPTER).get(experiment, {}):
            return
        value = measure()
        measures = recorded_measures(CHAPTER)
        measures.setdefault(experiment, {})[key] = value
        save_measures(CHAPTER, RECIPE, **measures)
        print(experiment, key, value, flush=True)


def dense(results: Results) -> None:
    results.point("dense", "perplexité", lambda: perplexity(model))


def random(results: Results) -> None:
    for amount in AMOUNTS:
        results.point("aleatoire", str(amount), lambda a=amount: [perplexity(random_model(model, a, s)) for s in SEEDS])


def magnitude(results: Results) -> None:
    for amount in AMOUNTS:
        results.point(
            "magnitude",
            str(amount),
            lambda a=amount: perplexity(magnitude_model(model, reference("magnitude_mask"), a)),
        )


def overall(results: Results) -> None:
    weights = linear_weights(model)
    for amount in AMOUNTS:
        results.point(
            "globale",
            str(amount),
            lambda a=amount: perplexity(masked(model, reference("global_magnitude_masks")(weights, a))),
        )


def wanda(results: Results) -> None:
    for amount in AMOUNTS:
        results.point(
            "wanda",
            str(amount),
            lambda a=amount: [
                perplexity(wanda_model(model, calibration(s), reference("wanda_mask"), a)) for s in SEEDS
            ],
        )


def optimal(results: Results) -> None:
    for amount in AMOUNTS:
        results.point(
            "sparsegpt",
            str(amount),
            lambda a=amount: perplexity(by_blocks(model, calibration(0), lambda _, w, x: sparsegpt(w, x, a))),
        )


def patterns(results: Results) -> None:
    nm, ids = reference("nm_mask"), calibration(0)
    for name, (n, m) in PATTERNS.items():
        changes: dict[str, Any] = {
            "magnitude": lambda _, w, x, n=n, m=m: w * nm(w, n, m),
            "Wanda": lambda _, w, x, n=n, m=m: w * nm(w * x.norm(dim=0), n, m),
            "SparseGPT": lambda _, w, x, n=n, m=m: sparsegpt(w, x, pattern=(n, m)),
        }
        for method, change in changes.items():
            results.point("motifs", f"{method} {name}", lambda c=change: perplexity(by_blocks(model, ids, c)))


def orders(results: Results) -> None:
    """Élaguer la moitié des poids et les écrire sur quatre bits, dans les deux ordres ; et trois bits sans élaguer."""
    ch3 = load_chapter("ch3_quantification")
    gptq, scale = ch3.reference("gptq_quantize"), ch3.reference("absmax_per_channel")
    wanda_mask, ids, amount = reference("wanda_mask"), calibration(0), 0.5

    def rounded(m: Any, bits: int) -> Any:
        return replace_weights(m, lambda _, w: round_to_grid(w, bits))

    def compensated(m: Any, bits: int, keep: bool = False) -> Any:
        return by_blocks(m, ids, lambda _, w, x: gptq(w, x, scale(w, bits), bits) * ((w != 0) if keep else 1.0))

    def pruned(m: Any) -> Any:
        return wanda_model(m, ids, wanda_mask, amount)

    recipes: dict[str, Callable[[], Any]] = {
        "4 bits": lambda: rounded(model, 4),
        "4 bits, GPTQ": lambda: compensated(model, 4),
        "3 bits": lambda: rounded(model, 3),
        "3 bits, GPTQ": lambda: compensated(model, 3),
        "Wanda": lambda: pruned(model),
        "Wanda puis 8 bits": lambda: rounded(pruned(model), 8),
        "Wanda puis 4 bits": lambda: rounded(pruned(model), 4),
        "4 bits puis Wanda": lambda: pruned(rounded(model, 4)),
        "Wanda puis GPTQ, masque perdu": lambda: compensated(pruned(model), 4),
        "Wanda puis GPTQ, masque reposé": lambda: compensated(pruned(model), 4, keep=True),
        "GPTQ puis Wanda": lambda: pruned(compensated(model, 4)),
        "SparseGPT": lambda: by_blocks(model, ids, lambda _, w, x: sparsegpt(w, x, amount)),
        "SparseGPT et 4 bits ensemble": lambda: by_blocks(model, ids, lambda _, w, x: sparsegpt(w, x, amount, bits=4)),
    }

    def both(make: Callable[[], Any]) -> dict[str, float]:
        made = make()
        return {"perplexité": perplexity(made), "zéros": round(zero_share(made), 4)}

    for name, make in recipes.items():
        results.point("ordres", name, lambda make=make: both(make))


def recovery(results: Results) -> None:
    ids, mask, schedule = corpus_tokens("a_train"), reference("magnitude_mask"), reference("cubic_schedule")
    for seed in SEEDS:
        for amount in RECOVERED:
            results.point(
                "reprise",
                f"d'un coup {amount} {seed}",
                lambda a=amount, s=seed: perplexity(one_shot(model, ids, mask, a, seed=s)[0]),
            )
            results.point(
                "reprise",
                f"peu à peu {amount} {seed}",
                lambda a=amount, s=seed: perplexity(gradual(model, ids, mask, schedule, a, seed=s)[0]),
            )


def longer(results: Results) -> None:
    """La même reprise, trois fois plus longue."""
    ids, mask, schedule = corpus_tokens("a_train"), reference("magnitude_mask"), reference("cubic_schedule")
    for seed in SEEDS:
        results.point(
            "reprise_longue",
            f"d'un coup 0.8 {seed}",
            lambda s=seed: perplexity(one_shot(model, ids, mask, 0.8, 3 * STEPS, s)[0]),
        )
        results.point(
            "reprise_longue",
            f"peu à peu 0.8 {seed}",
            lambda s=seed: perplexity(gradual(model, ids, mask, schedule, 0.8, 3 * STEPS, s)[0]),
        )


def rates(results: Results) -> None:
    """La reprise d'un coup, à d'autres taux d'apprentissage."""
    ids, mask = corpus_tokens("a_train"), reference("magnitude_mask")
    for amount in (0.0, *RECOVERED):
        for lr in RATES:
            results.point(
                "reprise_taux",
                f"{amount} {lr}",
                lambda a=amount, lr=lr: perplexity(one_shot(model, ids, mask, a, lr=lr)[0]),
            )


def control(results: Results) -> None:
    """Le même apprentissage sans rien élaguer : ce que les pas seuls apportent, ou coûtent."""
    ids, mask = corpus_tokens("a_train"), reference("magnitude_mask")
    for seed in SEEDS:
        results.point(
            "reprise", f"sans élagage 0 {seed}", lambda s=seed: perplexity(one_shot(model, ids, mask, 0.0, seed=s)[0])
        )


def forgotten(results: Results) -> None:
    def measure() -> dict[str, Any]:
        regrown, shares = unmasked(model, corpus_tokens("a_train"), reference("magnitude_mask"), 0.8, STEPS)
        return {"perplexité": perplexity(regrown), "zéros": shares[-1]}

    results.point("oubli", "0.8", measure)


EXPERIMENTS: dict[str, tuple[Callable[[Results], None], str]] = {
    "dense": (dense, "dense"),
    "aleatoire": (random, "aleatoire"),
    "magnitude": (magnitude, "magnitude"),
    "globale": (overall, "globale"),
    "wanda": (wanda, "wanda"),
    "sparsegpt": (optimal, "sparsegpt"),
    "motifs": (patterns, "motifs"),
    "ordres": (orders, "ordres"),
    "reprise": (recovery, "reprise"),
    "longue": (longer, "reprise_longue"),
    "temoin": (control, "reprise"),
    "taux": (rates, "reprise_taux"),
    "oubli": (forgotten, "oubli"),
}
"""Nom d'une expérience → ce qui la fait, et le nom sous lequel elle est enregistrée."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("noms", nargs="*", help="expériences à faire (toutes par défaut)")
    parser.add_argument("--redo", "--refaire", action="store_true", help="refait celles qui sont déjà enregistrées")
    options = parser.parse_args()
    wanted = options.noms or list(EXPERIMENTS)
    results = Results({EXPERIMENTS[name][1] for name in wanted} if options.redo else set())
    for name in wanted:
        EXPERIMENTS[name][0](results)


if __name__ == "__main__":
    main()
