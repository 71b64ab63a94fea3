"""Chapitre 4 : enseigner et noter. La même recette sert en direct et aux mesures enregistrées."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from atelier.hardware import beside
from atelier.models import load_tokenizer
from atelier.perplexity import encode_documents, evaluate_perplexity, extract
from atelier.training import Log, corpus_tokens, train, windows

LEARNING_RATE = 2e-3
"""Le meilleur, à 60 pas, de 1, 2 et 4·10⁻³ avec les étiquettes dures ; avec les douces, 2 et 4 se valent."""
BATCH, LENGTH = 8, 128
STEPS, SHORT = 150, 75
"""Pas d'un apprentissage, et d'un apprentissage court (carte, ensembles, témoins)."""
CURVE_TOKENS = 2048
"""Jetons évalués, au plus, pour un point d'une courbe d'apprentissage : le début du texte de validation."""
SPACED, FIRST = [0, 4], [0, 1]
"""Les blocs de Colibri donnés à un élève de deux blocs : espacés, ou les premiers."""
TEMPERATURE, ALPHA = 2.0, 0.5
OBJECTIVES = {"dures": 0.0, "douces": 1.0, "les deux": ALPHA}
"""Étiquettes → poids α du terme doux."""


def label(name: str) -> str:
    """Le nom d'une sorte d'étiquettes, dans une phrase."""
    return "les deux étiquettes" if name == "les deux" else f"étiquettes {name}"


Loss = Callable[[nn.Module, Tensor], Tensor]
Combined = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]


@functools.cache
def train_ids() -> Tensor:
    """Le texte d'apprentissage des élèves : l'extrait livré de ce que Colibri a lu."""
    return corpus_tokens("a_train")


@functools.cache
def held_out(tokens: int) -> Tensor:
    """Fenêtres (n, 256) d'un texte que personne n'a lu, pour la calibration."""
    ids = encode_documents(extract("a_validation"), load_tokenizer("colibri"), tokens)
    return ids[: len(ids) // 256 * 256].reshape(-1, 256)


class Ensemble(nn.Module):
    """Plusieurs modèles consultés ensemble ; se présente comme un modèle de langue ordinaire.

    combine : logits (M, B, T, V) → probabilités (B, T, V). Ses « logits » sont les logarithmes de ces probabilités.
    """

    def __init__(self, members: Sequence[nn.Module], combine: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.members, self.combine, self.config = nn.ModuleList(members), combine, members[0].config

    def forward(self, ids: Tensor, use_cache: bool = False) -> Any:
        logits = torch.stack([m(ids, use_cache=False).logits for m in self.members])
        return SimpleNamespace(logits=self.combine(logits).log())


def taught(teacher: nn.Module, combined: Combined, temperature: float, alpha: float) -> Loss:
    """La perte d'un élève devant un enseignant, qui relit chaque lot : combined(élève, enseignant, jetons, T, α)."""

    def loss(student: nn.Module, ids: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher(ids, use_cache=False).logits
        return combined(student(ids, use_cache=False).logits, target, ids, temperature, alpha)

    return loss


@dataclass
class Lesson:
    """Un apprentissage et sa note : courbe (pas, perplexité, CURVE_TOKENS jetons), perplexité finale, calibration."""

    log: Log
    curve: list[tuple[int, float]]
    perplexity: float
    calibration: Calibration

    def record(self) -> dict[str, Any]:
        """Ce qu'on en garde dans assets/results."""
        return {
            "courbe": [[i, round(p, 2)] for i, p in self.curve],
            "perplexité": round(self.perplexity, 3),
            "ece": round(self.calibration.gap, 4),
            "justesse": round(self.calibration.right, 4),
        }


def teach(
    student: nn.Module,
    loss: Loss,
    steps: int = STEPS,
    seed: int = 0,
    what: str = "élève",
    every: int = 15,
    lr: float = LEARNING_RATE,
    tokens: int = 8192,
) -> Lesson:
    """Entraîne `student` sur place (fenêtres tirées de `seed`) et le note sur l'extrait de validation.

    every : pas entre deux points de la courbe (0 : pas de courbe) ; tokens : jetons de la note finale.
    """
    curve: list[tuple[int, float]] = []

    def look(i: int) -> None:
        if every and (i + 1) % every == 0:
            curve.append((i + 1, evaluate_perplexity(student, max_tokens=min(CURVE_TOKENS, tokens)).perplexity))

    if every:
        look(-1)
    log = train(student, windows(train_ids(), BATCH, LENGTH, seed), steps, lr, loss, what, after_step=look)
    note = evaluate_perplexity(student, max_tokens=tokens).perplexity
    return Lesson(log, curve, note, calibration(student, tokens))


@dataclass
class Calibration:
    """Confiance et justesse du premier choix, par tranches de confiance. gap : l'ECE ; right : justesse moyenne."""

    gap: float
    right: float
    bins: list[tuple[float, float, float]] = field(default_factory=list)
    """(confiance moyenne, justesse, part des jetons) des tranches qui contiennent des jetons."""


@torch.inference_mode()
def calibration(model: nn.Module, tokens: int = 8192, n_bins: int = 10) -> Calibration:
    """Erreur de calibration (ECE, Guo et al., 2017) du jeton le plus probable, sur l'extrait de validation."""
    confidences, rights = [], []
    for ids in held_out(tokens).split(8):
        ids = beside(model, ids)
        probs = model(ids[:, :-1], use_cache=False).logits.softmax(-1)
        best, choice = probs.max(-1)
        confidences.append(best.flatten().cpu())
        rights.append((choice == ids[:, 1:]).flatten().cpu())
    confidence, right = torch.cat(confidences), torch.cat(rights).float()
    slot = (confidence * n_bins).long().clamp(max=n_bins - 1)
    bins = [
        (confidence[slot == k].mean().item(), right[slot == k].mean().item(), (slot == k).float().mean().item())
        for k in range(n_bins)
        if (slot == k).any()
    ]
    return Calibration(sum(n * abs(c - r) for c, r, n in bins), right.mean().item(), bins)
