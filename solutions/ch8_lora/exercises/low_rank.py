"""Exercice `low_rank` du chapitre 8."""

from __future__ import annotations

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def _spectrum(d: Draw, rows: int, columns: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Une matrice dont les valeurs singulières sont bien séparées : sa meilleure approximation est unique."""
    n = min(rows, columns)
    u, _ = torch.linalg.qr(d.normal(rows, n, dtype=torch.float64))
    v, _ = torch.linalg.qr(d.normal(columns, n, dtype=torch.float64))
    s = d.uniform(2.0, 5.0) * d.uniform(0.55, 0.75) ** torch.arange(n, dtype=torch.float64)
    return ((u * s) @ v.T).to(dtype)


def draw_low_rank(d: Draw, group: str) -> Inputs:
    rows, columns = d.turn([(7, 4), (4, 6), (5, 5), (3, 8)])
    n = min(rows, columns)
    if group == "courant":
        return {"w": _spectrum(d, rows, columns, torch.float32), "rank": d.integer(1, n - 2) if n > 3 else 2}
    if group == "bords":
        w = _spectrum(d, rows, columns, torch.float32)
        return {"w": w, "rank": d.turn([n, 1, n - 1, n])}
    return d.turn(
        [
            {"w": d.strided(_spectrum(d, rows, columns)), "rank": 2},
            {"w": _spectrum(d, rows, columns, torch.float32).T, "rank": n - 1},
        ]
    )


exercise = Exercise(
    points=2,
    minutes=15,
    stars=2,
    hints=[
        "La décomposition en valeurs singulières écrit w comme une somme de termes de rang 1, du plus fort au plus "
        "faible. Lesquels garder ?",
        "Dans w = U·diag(s)·Vᵀ, chaque valeur singulière multiplie une colonne de U et une ligne de Vᵀ. Que rend "
        "torch.linalg.svd à la troisième place ?",
        "Les termes sont orthogonaux : le carré de la norme de Frobenius est la somme des carrés de toutes les s. "
        "Celui de l'erreur est la somme des carrés des s abandonnées.",
    ],
    groups={"courant": 0.65, "bords": 0.2, "formes et types": 0.15},
    draw=draw_low_rank,
    examples=[
        {"w": torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]), "rank": 1},
        {"w": torch.tensor([[2.0, 4.0, 6.0], [1.0, 2.0, 3.0]]), "rank": 1},
    ],
    tolerance=Tolerance(rtol=1e-3, atol=3e-5, why="une décomposition en float32, et une racine près de zéro"),
)


misconceptions = """\
squared_s   (u[:, :rank] * s[:rank]) @ vt[:rank] → (u[:, :rank] * s[:rank] ** 2) @ vt[:rank]
    Reconstruisez à rang plein : retrouvez-vous w ?

no_s   (u[:, :rank] * s[:rank]) @ vt[:rank] → u[:, :rank] @ vt[:rank]
    Vos directions sont les bonnes, mais toutes ont la même force : qui dit combien chacune compte ?

smallest   (u[:, :rank] * s[:rank]) @ vt[:rank] → (u[:, -rank:] * s[-rank:]) @ vt[-rank:]
    & s[rank:]) / → s[:-rank]) /
    Vous gardez ce que la matrice a de moins important : dans quel ordre les valeurs singulières sont-elles rendues
    ?

one_less   (u[:, :rank] * s[:rank]) @ vt[:rank] → (u[:, : rank - 1] * s[: rank - 1]) @ vt[: rank - 1]
    & s[rank:]) / → s[rank - 1 :]) /
    Comptez les directions gardées : il en manque une.

absolute_error   torch.linalg.norm(s[rank:]) / torch.linalg.norm(s) → torch.linalg.norm(s[rank:])
    Multipliez w par dix : une erreur relative ne bouge pas.

squared_error   torch.linalg.norm(s[rank:]) / torch.linalg.norm(s)
    → (torch.linalg.norm(s[rank:]) / torch.linalg.norm(s)) ** 2
    C'est la part d'énergie perdue, un rapport de carrés : l'énoncé demande un rapport de normes.

nuclear_error   torch.linalg.norm(s[rank:]) / torch.linalg.norm(s) → s[rank:].sum() / s.sum()
    La norme de Frobenius n'additionne pas les valeurs singulières : des termes orthogonaux s'ajoutent comme les
    côtés d'un triangle rectangle.

kept_share   torch.linalg.norm(s[rank:]) / torch.linalg.norm(s) → torch.linalg.norm(s[:rank]) / torch.linalg.norm(s)
    C'est la part gardée ; plus le rang est grand, plus une erreur doit être petite.

error_over_kept   torch.linalg.norm(s[rank:]) / torch.linalg.norm(s)
    → torch.linalg.norm(s[rank:]) / torch.linalg.norm(s[:rank])
    Relative à quoi ? Vous divisez par la norme de l'approximation, pas par celle de w.

v_not_transposed *   (u[:, :rank] * s[:rank]) @ vt[:rank] → (u[:, :rank] * s[:rank]) @ vt.T[:rank]
    Relisez ce que rend la bibliothèque : V ou sa transposée ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def low_rank_difference(w, rank):
    u, s, v = torch.svd(w)
    best = u[:, :rank] @ torch.diag(s[:rank]) @ v[:, :rank].T
    return best, (torch.norm(w - best) / torch.norm(w)).item()


def low_rank_sum_of_ones(w, rank):
    u, s, vt = torch.linalg.svd(w)
    best = torch.zeros_like(w)
    for i in range(min(rank, len(s))):
        best += s[i] * torch.outer(u[:, i], vt[i])
    lost = sum(float(x) ** 2 for x in s[rank:])
    return best, (lost / sum(float(x) ** 2 for x in s)) ** 0.5


def low_rank_numpy(w, rank):
    u, s, vt = np.linalg.svd(w.double().numpy(), full_matrices=False)
    s_kept = np.where(np.arange(len(s)) < rank, s, 0.0)
    best = (u * s_kept) @ vt
    return torch.tensor(best).to(w.dtype), float(np.sqrt(((s - s_kept) ** 2).sum() / (s**2).sum()))


def low_rank_projection(w, rank):
    """Projeter les lignes sur les vecteurs propres dominants de wᵀw."""
    wide = w.double()
    _, vectors = torch.linalg.eigh(wide.T @ wide)
    kept = vectors.flip(1)[:, :rank]
    best = wide @ kept @ kept.T
    return best.to(w.dtype), float((wide - best).norm() / wide.norm())


styles = [low_rank_difference, low_rank_sum_of_ones, low_rank_numpy, low_rank_projection]
