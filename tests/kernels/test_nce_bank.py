"""Noise-contrastive estimation over a bank: the official formula by loops, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import rng
from bench.kernels import bank_logits, dispatch, log_partition, nce_bank

TEMPERATURE = 0.07
DRAW = rng.generator("nce")


def inputs(count: int, size: int, dim: int, negatives: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = rng.generator("nce", count, size, dim)
    query = 3 * torch.randn(count, dim, generator=draw, dtype=torch.float64)
    bank = F.normalize(torch.randn(size, dim, generator=draw, dtype=torch.float64), dim=1)
    at = torch.randint(size, (count, 1 + negatives), generator=draw)
    return query.requires_grad_(), bank, at


def official(query: Tensor, bank: Tensor, at: Tensor, z: float | None) -> tuple[Tensor, float]:
    """NCEAverage and NCECriterion of zhirongw/lemniscate.pytorch, without its 1e-7."""
    size, negatives = len(bank), at.shape[1] - 1
    unit = query / query.norm(dim=1, keepdim=True)
    outs = [
        [torch.exp(torch.dot(unit[i], bank[j]) / TEMPERATURE) for j in row]
        for i, row in enumerate(at.tolist())
    ]
    if z is None:
        z = sum(out.item() for row in outs for out in row) / at.numel() * size
    noise, total = negatives / size, query.new_zeros(())
    for row in outs:
        for place, out in enumerate(row):
            p = out / z
            total = total - torch.log((noise if place else p) / (p + noise))
    return total / len(query), z


# Banks larger and smaller than what `bank_logits` gathers: both of its ways.
SHAPES = [(4, 7, 3, 5), (3, 100, 4, 6), (1, 2, 5, 1), (5, 64, 2, 9)]


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradient_are_those_of_the_official_formula(
    shape: tuple[int, int, int, int],
) -> None:
    query, bank, at = inputs(*shape)
    logits = bank_logits(query, bank, TEMPERATURE, at)
    log_z = log_partition(logits, len(bank))
    loss = nce_bank(logits, log_z, len(bank))
    (gradient,) = torch.autograd.grad(loss, query)
    expected, z = official(query, bank, at, None)
    (expected_gradient,) = torch.autograd.grad(expected, query)
    assert log_z.item() == pytest.approx(math.log(z), rel=1e-12)
    assert not log_z.requires_grad
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


def test_z_is_a_constant_that_later_batches_do_not_touch() -> None:
    query, bank, at = inputs(4, 50, 3, 6)
    loss = nce_bank(bank_logits(query, bank, TEMPERATURE, at), query.new_tensor(7.0), len(bank))
    expected, _ = official(query, bank, at, math.exp(7.0))
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_cosines_over_the_temperature_both_ways(
    shape: tuple[int, int, int, int],
) -> None:
    query, bank, at = inputs(*shape)
    every = F.cosine_similarity(query[:, None], bank[None], dim=2) / TEMPERATURE
    torch.testing.assert_close(bank_logits(query, bank, TEMPERATURE), every)
    torch.testing.assert_close(bank_logits(query, bank, TEMPERATURE, at), every.gather(1, at))


def test_all_rows_are_compared_by_the_reference_and_it_says_so() -> None:
    query, bank, _ = inputs(3, 100, 4, 6)
    with dispatch.using("triton") as ran:
        bank_logits(query, bank, TEMPERATURE)
    assert ran == {"nce_bank": "reference"}


def test_the_bank_gets_no_gradient() -> None:
    query, bank, at = inputs(3, 100, 4, 6)
    bank.requires_grad_()
    for rows in (None, at, at.repeat(1, 9)):
        bank_logits(query, bank, TEMPERATURE, rows).sum().backward()
    assert bank.grad is None
    assert query.grad is not None


def test_logits_that_overflow_an_exponential_keep_loss_and_gradient_finite() -> None:
    logits = torch.tensor([[500.0, -500.0, 500.0], [-500.0, 0.0, 1e4]], requires_grad=True)
    loss = nce_bank(logits, log_partition(logits, 10), 10)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_half_precision_is_raised_to_float32_inside_autocast() -> None:
    query, bank, at = inputs(8, 60, 16, 20)
    half = query.detach().to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        logits = bank_logits(half, bank.float(), TEMPERATURE, at)
        loss = nce_bank(logits, log_partition(logits, 60), 60)
    assert logits.dtype == loss.dtype == torch.float32
    expected = bank_logits(half.double(), bank, TEMPERATURE, at)
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)
