"""Exercice `prune_heads` du chapitre 5."""

from __future__ import annotations

import torch
from torch import Tensor

from atelier.judging.exercise import Draw, Exercise, Inputs


def _attention(d: Draw, n_head: int, size: int, heads: list[int]) -> Inputs:
    width = n_head * size
    return {
        "c_attn_weight": d.normal(width, 3 * width),
        "c_attn_bias": d.normal(3 * width),
        "c_proj_weight": d.normal(width, width),
        "heads": heads,
        "n_head": n_head,
    }


def draw_heads(d: Draw, group: str) -> Inputs:
    n_head, size = d.turn([(4, 2), (5, 3), (6, 2), (4, 3)])
    heads = d.random.sample(range(n_head - 1), d.turn([2, 3, 1, 2]))
    heads.sort(reverse=d.index % 2 == 0)  # croissantes, qui les retire une à une sans renuméroter se trompe toujours
    if group == "bords":
        return d.turn(
            [
                _attention(d, n_head, size, []),
                _attention(d, n_head, size, list(range(n_head))),
                _attention(d, 3, 1, [d.integer(0, 2)]),
                _attention(d, 1, 4, []),
            ]
        )
    inputs = _attention(d, n_head, size, heads)
    if group == "courant":
        return inputs
    change = d.turn(
        [d.strided, lambda t: t.double(), lambda t: t.half(), lambda t: t.T.contiguous().T if t.ndim == 2 else t]
    )
    return {k: change(v) if isinstance(v, Tensor) else v for k, v in inputs.items()}


exercise = Exercise(
    points=4,
    minutes=30,
    stars=3,
    hints=[
        "Dessinez c_attn avec ses 3d colonnes : où sont les requêtes de la tête 1 ? Et ses clés, et ses valeurs ?",
        "Une tête occupe D colonnes dans chacun des trois tiers de c_attn, et autant d'éléments du biais. De quel côté "
        "de c_proj ses D sorties entrent-elles ?",
        "Faites la liste des composantes gardées, de 0 à d − 1. Décalée de d, puis de 2d, elle sert aussi aux clés et "
        "aux valeurs ; telle quelle, elle sert aux lignes de c_proj.",
    ],
    groups={"courant": 0.6, "bords": 0.2, "formes et types": 0.2},
    draw=draw_heads,
    examples=[
        {
            "c_attn_weight": torch.arange(12.0).reshape(2, 6),
            "c_attn_bias": torch.arange(6.0),
            "c_proj_weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
            "heads": [0],
            "n_head": 2,
        }
    ],
)


misconceptions = """\
q_only   torch.cat([columns, width + columns, 2 * width + columns])
    → torch.cat([columns, torch.arange(width, 3 * width)])
    Une tête a une requête, mais aussi deux autres parts.

proj_axis   c_proj_weight[columns] → c_proj_weight[:, columns]
    La projection reçoit les têtes : de quel côté d'une matrice (entrée, sortie) les retirer ?

as_linear   = _as_linear
    Conv1D range ses poids à l'envers de nn.Linear.

qkv_per_head   = _per_head
    Les colonnes sont rangées Q, puis K, puis V, et non tête par tête.

zeroed_not_removed   = _zeroed
    Des zéros prennent autant de place.

keeps_instead   if h not in heads → if h in heads
    heads sont les têtes qui partent : vous gardez celles-là.

interleaved   [h * size + i for h in range(n_head) if h not in heads for i in range(size)]
    → [i for i in range(width) if i % n_head not in heads]
    Les composantes d'une tête sont voisines ; chez vous, elles sont distribuées comme des cartes.

one_column   [h * size + i for h in range(n_head) if h not in heads for i in range(size)]
    → [i for i in range(width) if i not in heads]
    Vous retirez une composante par tête : combien une tête en a-t-elle ?

indices_shift   = _one_by_one
    Après un premier retrait, les têtes suivantes ont changé de place : leurs numéros aussi.

first_head_only   not in heads → not in heads[:1]
    Vous ne retirez que la première tête de la liste.

bias_forgotten   c_attn_bias[qkv] → c_attn_bias
    Une sortie retirée emporte aussi son biais.

proj_forgotten   c_proj_weight[columns] → c_proj_weight
    La projection attend encore les sorties des têtes retirées : qui les lui donnera ?
"""


Parts = tuple[Tensor, Tensor, Tensor]


def _as_linear(c_attn: Tensor, bias: Tensor, c_proj: Tensor, heads: list[int], n_head: int) -> Parts:
    """(sortie, entrée) : Q, K et V sont cherchés le long des lignes de c_attn, les têtes sur les colonnes de c_proj."""
    width = c_proj.shape[0]
    size = width // n_head
    kept = [h for h in range(n_head) if h not in heads]
    rows = c_attn.reshape(3, n_head, size, width)[:, kept].reshape(-1, width)
    short = bias.reshape(3, n_head, size)[:, kept].reshape(-1)
    return rows, short, c_proj.reshape(width, n_head, size)[:, kept].reshape(width, -1)


def _per_head(c_attn: Tensor, bias: Tensor, c_proj: Tensor, heads: list[int], n_head: int) -> Parts:
    """Comme si les colonnes étaient rangées tête par tête : (q, k, v) de la première, puis de la deuxième…"""
    size = c_proj.shape[0] // n_head
    kept = [h for h in range(n_head) if h not in heads]
    qkv = [h * 3 * size + i for h in kept for i in range(3 * size)]
    return c_attn[:, qkv], bias[qkv], c_proj[[h * size + i for h in kept for i in range(size)]]


def _zeroed(c_attn: Tensor, bias: Tensor, c_proj: Tensor, heads: list[int], n_head: int) -> Parts:
    size = c_proj.shape[0] // n_head
    gone = torch.tensor([h in heads for h in range(n_head)]).repeat_interleave(size)
    wide = gone.repeat(3)
    return c_attn.masked_fill(wide, 0), bias.masked_fill(wide, 0), c_proj.masked_fill(gone[:, None], 0)


def _one_by_one(c_attn: Tensor, bias: Tensor, c_proj: Tensor, heads: list[int], n_head: int) -> Parts:
    size = c_proj.shape[0] // n_head
    for h in heads:
        width = c_proj.shape[0]
        kept = [i for i in range(width) if not h * size <= i < (h + 1) * size]
        qkv = [part * width + i for part in range(3) for i in kept]
        c_attn, bias, c_proj = c_attn[:, qkv], bias[qkv], c_proj[kept]
    return c_attn, bias, c_proj


# --- Autres réponses justes -------------------------------------------------------------------------------------------


def heads_reshape(c_attn_weight, c_attn_bias, c_proj_weight, heads, n_head):
    d = c_attn_weight.shape[0]
    size = d // n_head
    keep = [h for h in range(n_head) if h not in set(heads)]
    attn = c_attn_weight.reshape(d, 3, n_head, size)[:, :, keep].reshape(d, -1)
    bias = c_attn_bias.reshape(3, n_head, size)[:, keep].reshape(-1)
    proj = c_proj_weight.reshape(n_head, size, -1)[keep].reshape(-1, c_proj_weight.shape[1])
    return attn, bias, proj


def heads_mask(c_attn_weight, c_attn_bias, c_proj_weight, heads, n_head):
    keep = torch.ones(n_head, dtype=torch.bool)
    if heads:
        keep[torch.tensor(heads)] = False
    rows = keep.repeat_interleave(len(c_proj_weight) // n_head)
    return c_attn_weight[:, rows.repeat(3)], c_attn_bias[rows.repeat(3)], c_proj_weight[rows]


def heads_split(c_attn_weight, c_attn_bias, c_proj_weight, heads, n_head):
    d = c_proj_weight.shape[1]
    size = d // n_head
    keep = torch.tensor([i for i in range(d) if i // size not in heads], dtype=torch.long, device=c_attn_bias.device)
    parts = [part.index_select(1, keep) for part in c_attn_weight.split(d, dim=1)]
    biases = [part.index_select(0, keep) for part in c_attn_bias.chunk(3)]
    return [torch.cat(parts, 1), torch.cat(biases), c_proj_weight.index_select(0, keep)]


def heads_slices(c_attn_weight, c_attn_bias, c_proj_weight, heads, n_head):
    d = c_attn_weight.size(0)
    size = d // n_head
    keep = sorted(set(range(n_head)) - set(heads))
    empty = c_attn_weight[:, :0]
    columns = [c_attn_weight[:, p * d + h * size : p * d + (h + 1) * size] for p in range(3) for h in keep]
    biases = [c_attn_bias[p * d + h * size : p * d + (h + 1) * size] for p in range(3) for h in keep]
    rows = [c_proj_weight[h * size : (h + 1) * size] for h in keep]
    return (
        torch.cat([empty, *columns], dim=1),
        torch.cat([c_attn_bias[:0], *biases]),
        torch.cat([c_proj_weight[:0], *rows]),
    )


def heads_one_at_a_time(c_attn_weight, c_attn_bias, c_proj_weight, heads, n_head):
    """De la dernière à la première : les numéros de celles qui restent ne bougent pas."""
    size = c_proj_weight.shape[0] // n_head
    for h in sorted(heads, reverse=True):
        width = c_proj_weight.shape[0]
        for part in (2, 1, 0):
            a = part * width + h * size
            c_attn_weight = torch.cat([c_attn_weight[:, :a], c_attn_weight[:, a + size :]], 1)
            c_attn_bias = torch.cat([c_attn_bias[:a], c_attn_bias[a + size :]])
        c_proj_weight = torch.cat([c_proj_weight[: h * size], c_proj_weight[(h + 1) * size :]])
    return c_attn_weight, c_attn_bias, c_proj_weight


styles = [heads_reshape, heads_mask, heads_split, heads_slices, heads_one_at_a_time]
