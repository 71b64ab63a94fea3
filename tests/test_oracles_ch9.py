"""Les références du chapitre 9, contre ce qui ne leur doit rien : énumération exacte, nombres complexes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

CHAPTER = "ch9_exposes"


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
