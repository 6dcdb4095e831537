"""InfoNCE against a queue: lightly's loss with its memory bank, the formula term by term."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor
from torch.nn import functional as F

from bench import rng
from bench.kernels import queue_infonce


def inputs(count: int = 5, queued: int = 8, dim: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    draw = rng.generator("queue_infonce")
    every = torch.randn(2 * count + queued, dim, dtype=torch.float64, generator=draw)
    query, key, queue = every.split([count, count, queued])
    return query.requires_grad_(), key, F.normalize(queue, dim=1)


@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_value_and_gradients_are_lightlys_to_rounding(temperature: float) -> None:
    query, key, queue = inputs()
    theirs = NTXentLoss(temperature, memory_bank_size=(8, 4)).double()
    theirs.memory_bank.bank = queue.clone()
    ours, expected = queue_infonce(query, key, queue, temperature), theirs(query, key)
    torch.testing.assert_close(ours, expected, rtol=1e-13, atol=0)
    (got,), (want,) = torch.autograd.grad(ours, query), torch.autograd.grad(expected, query)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-14)


def test_every_query_looks_for_its_key_among_the_queue() -> None:
    query, key, queue = inputs()
    total = 0.0
    for own, partner in zip(query.tolist(), key.tolist(), strict=True):
        positive = math.exp(cosine(own, partner) / 0.1)
        negatives = [math.exp(cosine(own, other) / 0.1) for other in queue.tolist()]
        total -= math.log(positive / (positive + sum(negatives)))
    assert queue_infonce(query, key, queue, 0.1).item() == pytest.approx(total / 5, rel=1e-12)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_gradients_are_those_of_finite_differences_and_reach_the_temperature() -> None:
    query, key, queue = inputs()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda q, t: queue_infonce(q, key, queue, t), (query, temperature)
    )


def test_no_gradient_reaches_keys_or_queue() -> None:
    query, key, queue = inputs()
    key.requires_grad_(), queue.requires_grad_()
    queue_infonce(query, key, queue, 0.1).backward()
    assert query.grad is not None
    assert key.grad is None and queue.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_it_in_float32(dtype: torch.dtype) -> None:
    query, key, queue = (value.detach().to(dtype) for value in inputs(64, 256, 32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = queue_infonce(query, key, queue, 0.07)
    assert inside.dtype == torch.float32
    expected = queue_infonce(query.double(), key.double(), queue.double(), 0.07)
    torch.testing.assert_close(inside.double(), expected, rtol=1e-6, atol=0)
