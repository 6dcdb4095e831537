"""NT-Xent against lightly, the paper's formula term by term, and itself in half precision."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor

from bench import rng
from bench.kernels import ntxent


def embeddings(count: int = 6, dim: int = 5) -> tuple[Tensor, Tensor]:
    draw = rng.generator("ntxent")
    one, two = torch.randn(2, count, dim, dtype=torch.float64, generator=draw)
    return one.requires_grad_(), two.requires_grad_()


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("count", [2, 6, 33])
def test_value_and_gradients_are_lightlys_to_rounding(count: int, temperature: float) -> None:
    pair = embeddings(count)
    ours, theirs = ntxent(*pair, temperature), NTXentLoss(temperature)(*pair)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)
    for got, expected in zip(
        torch.autograd.grad(ours, pair), torch.autograd.grad(theirs, pair), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-14)


def test_every_view_looks_for_its_pair_among_all_others() -> None:
    one, two = embeddings()
    rows: list[list[float]] = torch.cat([one, two]).tolist()
    total = 0.0
    for i, row in enumerate(rows):
        terms = {j: math.exp(cosine(row, rows[j]) / 0.2) for j in range(12) if j != i}
        total -= math.log(terms[(i + 6) % 12] / sum(terms.values()))
    assert ntxent(one, two, 0.2).item() == pytest.approx(total / 12, rel=1e-12)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_gradients_are_those_of_finite_differences_and_reach_the_temperature() -> None:
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ntxent, (*embeddings(3, 4), temperature))


def test_length_of_an_embedding_does_not_matter() -> None:
    one, two = embeddings()
    torch.testing.assert_close(ntxent(7 * one, two / 7, 0.1), ntxent(one, two, 0.1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_it_in_float32(dtype: torch.dtype) -> None:
    one, two = (value.detach().to(dtype) for value in embeddings(64, 32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ntxent(one, two, 0.1)
    assert inside.dtype == torch.float32
    expected = ntxent(one.double(), two.double(), 0.1)
    torch.testing.assert_close(inside.double(), expected, rtol=1e-6, atol=0)


def test_chance_is_the_logarithm_of_the_others() -> None:
    """Where all views are equally alike, each of the 2N - 1 others is as likely."""
    same = torch.ones(4, 3, dtype=torch.float64)
    assert ntxent(same, same, 0.1).item() == pytest.approx(math.log(7))
