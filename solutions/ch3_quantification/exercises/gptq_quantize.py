"""Exercice `gptq_quantize` du chapitre 3."""

from __future__ import annotations

import numpy as np
import torch

from atelier.judging.exercise import Draw, Exercise, Inputs, Tolerance


def _gptq_positions(
    w: torch.Tensor,
    x: torch.Tensor,
    scale: torch.Tensor,
    bits: int,
    damp: float,
    mistake: str = "",
    absolute: bool = False,
) -> np.ndarray:
    """Ce que chaque poids, corrigé, vaut en pas au moment d'être arrondi (mise à jour OBQ).

    mistake : « inverse » pour qui ne met pas H⁻¹ à jour, « erreur » pour qui mesure celle-ci sur w.
    En NumPy : sur d'aussi petites matrices, dix fois plus vite qu'en torch, et un tirage en demande des dizaines.
    """
    plain, q_max, step = w.double().numpy(), 2 ** (bits - 1) - 1, scale.double().numpy()
    rest = plain.copy()
    activations = x.double().numpy()
    hessian = 2 * activations.T @ activations
    hessian += damp * (1.0 if absolute else hessian.diagonal().mean()) * np.eye(len(hessian))
    inverse = np.linalg.inv(hessian if hessian.any() else np.eye(len(hessian)))
    for j in range(w.shape[1]):
        codes = np.clip(np.rint(rest[:, j] / step[:, 0]), -q_max - 1, q_max)
        error = (plain if mistake == "erreur" else rest)[:, j] - codes * step[:, 0]
        rest[:, j + 1 :] -= np.outer(error / inverse[j, j], inverse[j, j + 1 :])
        if mistake != "inverse":
            inverse = inverse - np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return rest / step


def _given_scale(d: Draw, w: torch.Tensor, q_max: int) -> torch.Tensor:
    """Le pas de chaque ligne : un peu plus long que max|ligne| / q_max, d'une part que rien ne laisse deviner."""
    peak = w.float().abs().amax(dim=1, keepdim=True)
    longer = torch.tensor([[d.uniform(1.02, 1.4)] for _ in range(len(w))])
    return torch.where(peak > 0, longer * peak / q_max, torch.ones_like(peak)).to(w.dtype)


def _correlated(d: Draw, n: int, width: int) -> torch.Tensor:
    """n activations dont les colonnes se ressemblent, d'amplitudes inégales."""
    mix = d.normal(width, width) + 1.5 * d.normal(width, 1)
    return d.normal(n, width) @ mix * torch.tensor([d.uniform(0.5, 2.0) for _ in range(width)])


def draw_gptq(d: Draw, group: str) -> Inputs:
    """Chaque groupe dit toujours la même chose d'une même faute : les bornes des codes ne comptent que sur deux bits,
    l'amortissement que s'il y a peu d'exemples.
    """
    few = group == "peu d'exemples"
    edge = d.turn(["x nul", "deux bits", "ligne et colonne nulles", "float16"]) if group == "bords" else ""
    for _ in range(1000):
        bits, damp, rows, width = d.turn([4, 3, 3, 4]), 0.01, d.integer(2, 3), d.integer(5, 6)
        x, w = _correlated(d, d.integer(2, width - 3) if few else 24, width), d.normal(rows, width)
        if few:
            x, damp = 4 * x, d.turn([0.01, 0.3, 0.1])
        elif edge:
            if edge == "ligne et colonne nulles":
                w[d.integer(0, rows - 1)] = 0.0
                x[:, d.integer(1, width - 2)] = 0.0
            if edge == "deux bits":  # de petits poids, arrondis à zéro, poussent le dernier hors des codes
                bits = 2
                for row, sign in ((0, 1.0), (1, -1.0)):
                    small = [d.uniform(0.3, 0.45) for _ in range(width - 1)]
                    w[row] = sign * d.uniform(0.5, 2.0) * torch.tensor([*small, 1.0])
            x = x * 0.0 if edge == "x nul" else x
            w = w.half() if edge == "float16" else d.strided(w)
        elif d.index % 2:
            w, x = w.double(), 0.02 * x.double()  # l'échelle de x ne change rien à ŵ, sauf à qui oublie un diviseur
        q_max = 2 ** (bits - 1) - 1
        scale = w.abs().amax(1, keepdim=True) / q_max if edge == "deux bits" else _given_scale(d, w, q_max)
        position = _gptq_positions(w, x, scale, bits, damp)
        if (np.abs(position - np.floor(position) - 0.5) <= 0.015).any():
            continue
        if _tells(w, x, scale, bits, damp, position, few, edge):
            break
    inputs = {"w": w, "x": x, "scale": scale, "bits": bits, "damp": damp}
    if damp == 0.01:
        del inputs["damp"]
        if group == "courant" and bits == 4:
            del inputs["bits"]
    return inputs


def _tells(
    w: torch.Tensor,
    x: torch.Tensor,
    scale: torch.Tensor,
    bits: int,
    damp: float,
    position: np.ndarray,
    few: bool,
    edge: str,
) -> bool:
    """Ce cas sépare-t-il les fautes que son groupe doit séparer, et elles seules ?"""
    q_max = 2 ** (bits - 1) - 1

    def same(other: np.ndarray) -> bool:
        return np.array_equal(*(np.rint(p).clip(-q_max - 1, q_max) for p in (position, other)))

    if edge == "deux bits" and not _leaves_grid(position):
        return False
    if edge != "deux bits" and not (np.abs(position) < q_max + 0.4).all():
        return False
    if not edge or edge == "float16":
        wrong = [w.double().numpy() / scale.double().numpy()]
        wrong += [_gptq_positions(w, x, scale, bits, damp, mistake) for mistake in ("inverse", "erreur")]
        if any(same(p) for p in wrong):
            return False
    if edge == "x nul":
        return True
    damped = [_gptq_positions(w, x, scale, bits, w.shape[1] * damp)]
    damped += [_gptq_positions(w, x, scale, bits, damp, absolute=True)]
    if few:
        damped += [_gptq_positions(w, x, scale, bits, 0.01)] if damp != 0.01 else []
        return not any(same(p) for p in damped)
    if edge != "ligne et colonne nulles":  # sans amortissement, H n'y est pas inversible
        damped.append(_gptq_positions(w, x, scale, bits, 0.0))
    return all(same(p) for p in damped)


def _leaves_grid(position: np.ndarray) -> bool:
    """Sur 2 bits : un poids corrigé sort au-dessus du plus grand code, un autre tombe sur le plus petit."""
    return bool((position > 1.5).any() and (position < -1.5).any())


exercise = Exercise(
    points=4,
    minutes=40,
    stars=3,
    hints=[
        "Un poids arrondi trop haut déplace la sortie. Quels poids pouvez-vous encore bouger pour la ramener ?",
        "Ce qui compte n'est pas l'erreur sur w mais l'erreur sur x·wᵀ : sa dérivée seconde par rapport aux poids "
        "d'une ligne est H, la même pour toutes les lignes.",
        "Avec H⁻¹ = UᵀU, la ligne j de U décrit l'inverse restreint aux colonnes encore libres : rien à recalculer.",
        "Reprenez δ, et mettez-y la ligne d'inverse que la cellule de vérification lit dans U : que reste-t-il ?",
    ],
    groups={"courant": 0.5, "peu d'exemples": 0.25, "bords": 0.25},
    draw=draw_gptq,
    visible=3,
    examples=[
        {
            "w": torch.tensor([[0.34, 0.32, 0.70], [-0.21, 0.70, 0.13]]),
            "x": torch.tensor([[1.0, 0.9, 0.2], [0.5, 0.6, -1.0], [-1.0, -1.1, 0.3], [0.2, 0.1, 0.8]]),
            "scale": torch.tensor([[0.125], [0.1]]),
        }
    ],
    tolerance=Tolerance(rtol=1e-5, atol=1e-6, why="chaque valeur est un entier exact fois une échelle de float32"),
)


misconceptions = """\
plain_rtn
    - w_hat[:, j + 1 :] -= torch.outer(error, upper[j, j + 1 :])
    Vous arrondissez chaque colonne sans que les suivantes en sachent rien.

hessian_not_updated   torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True) → torch.linalg.inv(hessian)
    Après la première colonne, l'inverse doit être celui des colonnes encore libres.

diagonal_of_hinv   / upper[j, j] → / torch.linalg.inv(hessian)[j, j]
    Le diviseur et la ligne que vous étalez ne viennent pas de la même matrice.

no_divisor   / upper[j, j] → ∅
    La correction doit être rapportée à ce que vaut, dans l'inverse, la colonne que vous venez d'arrondir.

cholesky_of_h   torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    → torch.linalg.cholesky(hessian, upper=True)
    Vous factorisez H : la correction des colonnes libres se lit dans son inverse.

sign   ] -= torch.outer → ] += torch.outer
    Vos colonnes suivantes aggravent l'erreur au lieu de la compenser.

spreads_everywhere
    - upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    + upper = torch.linalg.inv(hessian)
    - w_hat[:, j + 1 :] -= torch.outer(error, upper[j, j + 1 :])
    + others = [k for k in range(w.shape[1]) if k != j]
    + w_hat[:, others] -= torch.outer(error, upper[j, others])
    Vous corrigez aussi les colonnes déjà arrondies : restent-elles sur la grille ?

error_of_original   (column - w_hat[:, j]) → (w[:, j].double() - w_hat[:, j])
    L'erreur d'une colonne se mesure sur la colonne corrigée, pas sur celle du début.

right_to_left
    - upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    + upper = torch.linalg.cholesky(torch.linalg.inv(hessian.flip(0, 1)), upper=True).flip(0, 1)
    - for j in range(w.shape[1]):
    + for j in reversed(range(w.shape[1])):
    - w_hat[:, j + 1 :] -= torch.outer(error, upper[j, j + 1 :])
    + w_hat[:, :j] -= torch.outer(error, upper[j, :j])
    Vous parcourez les colonnes de droite à gauche : l'ordre change le résultat, et l'énoncé le fixe.

no_damp
    - hessian.diagonal().add_(damp * hessian.diagonal().mean())
    Avec moins d'exemples que d'entrées, votre matrice n'a pas d'inverse.

damp_absolute   damp * hessian.diagonal().mean() → damp
    Multipliez x par dix : l'effet de votre amortissement change. À quoi devait-il être proportionnel ?

damp_ignored   damp * hessian.diagonal().mean() → 0.01 * hessian.diagonal().mean()
    Changez `damp` : votre réponse ne bouge pas.

scale_recomputed
    - scale = scale.to(torch.float64)
    + scale = w_hat.abs().amax(dim=1, keepdim=True) / q_max
    Le pas vous est donné : vous en choisissez un autre, d'après les poids.

symmetric_clamp   clamp(-q_max - 1, q_max) → clamp(-q_max, q_max)
    Une valeur corrigée peut descendre sous −q_max : vous vous privez du plus petit code.

no_clamp   .clamp(-q_max - 1, q_max) → ∅
    Corrigé, un poids peut sortir de la grille : aucun code ne lui correspond plus.

truncation   torch.round(column / scale[:, 0]) → torch.trunc(column / scale[:, 0])
    Vous tirez chaque poids vers zéro : la correction se bat ensuite contre vous. Couper n'est pas arrondir.

zero_x
    - if not hessian.any():  # x nul : aucune erreur à compenser
    -     hessian = torch.eye(w.shape[1], dtype=torch.float64, device=w.device)
    Quand x est nul, H est nulle, amortissement compris : qu'y a-t-il à compenser dans ce cas ?
"""


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def gptq_reduced_hessians(w, x, scale, bits=4, damp=0.01):
    """OBQ : à chaque pas, l'inverse de la hessienne des colonnes encore libres, recalculé."""
    rest, x, top, scale = w.double().clone(), x.double(), 2 ** (bits - 1) - 1, scale.double()
    h = 2 * x.T @ x
    one = torch.eye(len(h)).to(h)
    h = h + damp * torch.diag(h).mean() * one
    done = []
    for j in range(w.shape[1]):
        inverse = torch.linalg.inv(h[j:, j:]) if x.any() else one[j:, j:]
        done.append((rest[:, :1] / scale).round().clamp(-top - 1, top) * scale)
        rest = rest[:, 1:] - (rest[:, :1] - done[-1]) * (inverse[:1, 1:] / inverse[0, 0])
    return torch.cat(done, dim=1).to(w.dtype)


def gptq_loops(w, x, scale, bits=4, damp=0.01):
    n_out, n_in = w.shape
    rows, samples, top = w.double().tolist(), x.double().tolist(), 2 ** (bits - 1) - 1
    h = [[sum(s[a] * s[b] for s in samples) for b in range(n_in)] for a in range(n_in)]
    mean = sum(h[a][a] for a in range(n_in)) / n_in
    for a in range(n_in):
        h[a][a] += damp * mean if mean else 1.0
    upper = torch.linalg.cholesky(torch.linalg.inv(torch.tensor(h, dtype=torch.float64))).T.tolist()
    for row, (step,) in zip(rows, scale.double().tolist(), strict=True):
        for j in range(n_in):
            rounded = step * max(-top - 1, min(top, round(row[j] / step)))
            error, row[j] = (row[j] - rounded) / upper[j][j], rounded
            for k in range(j + 1, n_in):
                row[k] -= error * upper[j][k]
    return torch.tensor(rows, dtype=torch.float64).to(w)


def gptq_elimination(w, x, scale, bits=4, damp=0.01):
    """L'inverse est réduit par élimination après chaque colonne, sans Cholesky ; H sans son facteur 2."""
    rest, top, step = w.to(torch.float64, copy=True), 2 ** (bits - 1) - 1, scale.double().flatten()
    h = x.double().T @ x.double()
    mean = h.diagonal().mean()
    one = torch.eye(len(h), dtype=h.dtype, device=h.device)
    inverse = torch.linalg.inv(h + damp * mean * one) if mean > 0 else one
    for j in range(len(h)):
        rounded = torch.clamp(torch.round(rest[:, j] / step), -top - 1, top) * step
        push = (rest[:, j] - rounded) / inverse[j, j]
        rest[:, j + 1 :] -= push[:, None] * inverse[j, j + 1 :]
        rest[:, j] = rounded
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return rest.to(w.dtype)


def gptq_numpy(w, x, scale, bits=4, damp=0.01):
    a, s, top = w.double().numpy().copy(), x.double().numpy(), 2 ** (bits - 1) - 1
    step = scale.double().numpy()[:, 0]
    h = 2 * s.T @ s
    if not s.any():
        return torch.tensor(np.rint(a / step[:, None]).clip(-top - 1, top) * step[:, None]).to(w.dtype)
    h += damp * np.trace(h) / len(h) * np.eye(len(h))
    upper = np.linalg.cholesky(np.linalg.solve(h, np.eye(len(h)))).T
    for j in range(len(h)):
        column = a[:, j].copy()
        a[:, j] = np.clip(np.rint(column / step), -top - 1, top) * step
        later = slice(j + 1, None)
        a[:, later] -= np.outer((column - a[:, j]) / upper[j, j], upper[j, later])
    return torch.tensor(a).to(w.dtype)


def gptq_lazy_blocks(w, x, scale, bits=4, damp=0.01):
    """L'algorithme 1 de l'article, ses blocs compris : les colonnes lointaines attendent la fin d'un bloc."""
    rest, x, step, top = w.double().clone(), x.double(), scale.double()[:, 0], 2 ** (bits - 1) - 1
    h = 2 * x.T @ x
    h = h + damp * h.diagonal().mean() * torch.eye(len(h)).to(h)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True) if h.any() else h
    for start in range(0, len(h), 2):
        stop = min(start + 2, len(h))
        errors = torch.zeros(len(w), stop - start).to(h)
        for j in range(start, stop):
            column = rest[:, j].clone()
            rest[:, j] = (column / step).round().clamp(-top - 1, top) * step
            errors[:, j - start] = (column - rest[:, j]) / upper[j, j] if h.any() else 0.0
            rest[:, j + 1 : stop] -= errors[:, j - start, None] * upper[j, j + 1 : stop]
        rest[:, stop:] -= errors @ upper[start:stop, stop:]
    return rest.to(w.dtype)


styles = [gptq_reduced_hessians, gptq_loops, gptq_elimination, gptq_numpy, gptq_lazy_blocks]
