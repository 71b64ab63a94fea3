"""Les références du chapitre 9 et ses outils, contre ce qui ne leur doit rien : énumération, complexes, Colibri."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from grader.authoring.chapters import load_chapter
from grader.authoring.recording import needed

CHAPTER = "ch9_exposes"
NAMES = "with_groups colibri closest_first Experts"


@pytest.fixture(scope="module")
def chapter() -> dict[str, Any]:
    """Ce que définissent les cellules ordinaires du chapitre."""
    read = load_chapter(CHAPTER)
    return read.execute(needed(read, lambda _: False, NAMES.split()))


def _laws(rows: int, v: int, seed: int) -> torch.Tensor:
    noise = torch.randn(rows, v, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.softmax(1.5 * noise, -1)


# --- speculative_accept -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_one_step_follows_the_law_of_the_target(reference: Any, seed: int) -> None:
    """K = 1, tous les jetons possibles, u intégré exactement : le mélange est la loi de la cible."""
    v = 5
    p, q = _laws(2, v, seed), _laws(1, v, seed + 100)
    mixed = torch.zeros(v, dtype=torch.float64)
    for token in range(v):
        edge = min(1.0, (p[0, token] / q[0, token]).item())  # u sous ce seuil : gardé
        for u, mass in ((edge / 2, edge), ((1 + edge) / 2, 1 - edge)):
            if mass <= 0:
                continue
            n, law = reference("speculative_accept")(p, q, torch.tensor([token]), torch.tensor([u]).double())
            first = torch.nn.functional.one_hot(torch.tensor(token), v).double() if n else law
            mixed += q[0, token] * mass * first
    assert torch.allclose(mixed, p[0], atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_two_steps_follow_the_law_of_the_target(reference: Any, seed: int) -> None:
    """K = 2 : la loi des deux premiers jetons écrits est celle de la cible, quel que soit ce que l'on a gardé."""
    v = 3
    p1, q1 = _laws(1, v, seed)[0], _laws(1, v, seed + 50)[0]
    p2, q2 = _laws(v, v, seed + 7), _laws(v, v, seed + 70)  # la deuxième loi dépend du premier jeton
    p3 = torch.full((v,), 1 / v, dtype=torch.float64)
    mixed = torch.zeros(v, v, dtype=torch.float64)
    for a, b in itertools.product(range(v), repeat=2):
        edges = [min(1.0, (p1[a] / q1[a]).item()), min(1.0, (p2[a, b] / q2[a, b]).item())]
        for sides in itertools.product((0, 1), repeat=2):
            mass = math.prod(1 - e if s else e for s, e in zip(sides, edges, strict=True))
            if mass <= 0:
                continue
            u = torch.tensor([(1 + e) / 2 if s else e / 2 for s, e in zip(sides, edges, strict=True)]).double()
            target, draft = torch.stack([p1, p2[a], p3]), torch.stack([q1, q2[a]])
            n, law = reference("speculative_accept")(target, draft, torch.tensor([a, b]), u)
            weight = q1[a] * q2[a, b] * mass
            if n == 0:  # un jeton écrit : le second viendra de la cible
                mixed += weight * law[:, None] * p2
            elif n == 1:
                mixed[a] += weight * law
            else:
                mixed[a, b] += weight
    assert torch.allclose(mixed, p1[:, None] * p2, atol=1e-12)


def test_the_inequality_is_strict_and_the_last_law_is_given(reference: Any) -> None:
    p = torch.tensor([[0.0, 1.0], [0.25, 0.75]])
    q = torch.tensor([[0.5, 0.5]])
    n, law = reference("speculative_accept")(p, q, torch.tensor([0]), torch.tensor([0.0]))
    assert n == 0 and type(n) is int and law.tolist() == [0.0, 1.0]
    n, law = reference("speculative_accept")(p, q, torch.tensor([1]), torch.tensor([0.99]))
    assert n == 1 and law.tolist() == [0.25, 0.75]


# --- rope -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "base"), [((4, 6), 10000.0), ((2, 3, 5, 8), 500.0), ((1, 2), 10.0)])
def test_rope_is_a_complex_product(reference: Any, shape: tuple[int, ...], base: float) -> None:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(shape[-2]) * 3 + 5
    d = shape[-1]
    turned = torch.view_as_complex(x.double().reshape(*shape[:-1], d // 2, 2))
    for t, m in enumerate(positions.tolist()):
        for i in range(d // 2):
            turned[..., t, i] *= complex(math.cos(m * base ** (-2 * i / d)), math.sin(m * base ** (-2 * i / d)))
    expected = torch.view_as_real(turned).reshape(shape)
    assert torch.allclose(reference("rope")(x, positions, base).double(), expected, atol=1e-5)


def test_rope_scores_depend_on_the_distance_alone(reference: Any) -> None:
    draw = torch.Generator().manual_seed(1)
    q, k = torch.randn(1, 16, generator=draw), torch.randn(1, 16, generator=draw)

    def score(m: int, n: int) -> float:
        return float((reference("rope")(q, torch.tensor([m])) * reference("rope")(k, torch.tensor([n]))).sum())

    for gap in (-7, 0, 1, 30):
        found = [score(n + gap, n) for n in (7, 8, 40, 100)]
        assert max(found) - min(found) < 1e-4
    assert abs(score(5, 5) - score(6, 5)) > 1e-3


def test_rope_keeps_lengths_and_refuses_odd_widths(reference: Any) -> None:
    x = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(reference("rope")(x, torch.arange(4)).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.equal(reference("rope")(x[:, :1], torch.tensor([0])), x[:, :1])
    with pytest.raises(ValueError):
        reference("rope")(x[..., :5], torch.arange(4))


# --- Ce que les cellules emploient ------------------------------------------------------------------------------------


@torch.no_grad()
def test_six_groups_are_colibri_with_and_without_cache(chapter: dict[str, Any]) -> None:
    colibri, same = chapter["colibri"], chapter["with_groups"](6)
    ids = torch.arange(40)[None] * 7 % 4096
    expected = colibri(ids, use_cache=False).logits
    assert torch.allclose(same(ids, use_cache=False).logits, expected, atol=1e-3)
    memory = DynamicCache()
    parts = [same(piece, memory, use_cache=True).logits for piece in ids.split((25, 1, 14), dim=1)]
    assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-3)


@torch.no_grad()
def test_fewer_groups_keep_the_mean_of_their_keys(chapter: dict[str, Any]) -> None:
    usual, fewer = chapter["colibri"].transformer.h[1].attn, chapter["with_groups"](2).transformer.h[1].attn
    keys = usual.c_attn.weight.T[192:384].view(6, 32, 192)
    assert torch.allclose(fewer.to_kv.weight[:32], keys[:3].mean(0), atol=1e-6)
    assert torch.allclose(fewer.to_kv.weight[32:64], keys[3:].mean(0), atol=1e-6)


@torch.no_grad()
def test_a_window_hides_what_is_behind_and_anchors_stay(chapter: dict[str, Any]) -> None:
    """Changer un jeton hors de portée d'un seul bloc ne change rien à sa sortie ; les premiers restent vus."""
    x = torch.randn(1, 20, 192, generator=torch.Generator().manual_seed(0))
    for anchors, moved in ((0, False), (1, True)):
        block = chapter["with_groups"](6, reach=4, anchors=anchors).transformer.h[0].attn
        other = x.clone()
        other[:, 0] += 1
        assert torch.equal(block(x)[0][:, 10], block(other)[0][:, 10]) is not moved


def test_greedy_matching_is_one_to_one_and_takes_the_smallest_first(chapter: dict[str, Any]) -> None:
    for seed in range(20):
        costs = torch.rand(6, 4, generator=torch.Generator().manual_seed(seed))
        rows, columns = chapter["closest_first"](costs)
        assert len(set(rows)) == 4 and sorted(columns) == [0, 1, 2, 3]
        first = divmod(int(costs.argmin()), 4)
        assert first in list(zip(rows, columns, strict=True))


@torch.no_grad()
def test_experts_are_their_mlps_weighted_by_the_router(chapter: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = chapter["Experts"](width=8, inner=16, count=4, chosen=2)
    x = torch.randn(3, 5, 8)
    odds = layer.route(x).softmax(-1)
    every = torch.stack([torch.nn.functional.gelu(x @ u) @ d for u, d in zip(layer.up, layer.down, strict=True)], -2)
    kept = odds * (odds >= odds.topk(2, -1).values[..., -1:])
    assert torch.allclose(layer(x), (every * kept[..., None]).sum(-2), atol=1e-5)
    assert abs(float(layer.load.sum()) - 1) < 1e-6
