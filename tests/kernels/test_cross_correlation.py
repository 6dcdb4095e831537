"""Barlow Twins' and VICReg's correlation losses against lightly's and loops, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightly.loss import BarlowTwinsLoss
from lightly.loss.vicreg_loss import covariance_loss
from torch import Tensor

from bench import rng
from bench.kernels import barlow_twins, covariance_penalty
from bench.kernels.cross_correlation import reference

SHAPES = [(2, 3), (5, 7), (6, 8), (7, 8), (8, 8), (9, 8), (33, 5), (4, 1), (16, 64)]


def embeddings(count: int, rows: int, dims: int) -> list[Tensor]:
    """Correlated pairs, off centre and of uneven scale."""
    draw = rng.generator("cross", rows, dims)
    shared = torch.randn(rows, dims, dtype=torch.float64, generator=draw)
    scale = torch.rand(dims, dtype=torch.float64, generator=draw) * 3 + 0.1
    noise = torch.randn(count, rows, dims, dtype=torch.float64, generator=draw)
    return [((shared + 0.5 * each) * scale + 2).requires_grad_() for each in noise]


def value_and_gradients(loss: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    value = loss(*inputs)
    return [value, *torch.autograd.grad(value, inputs)]


@pytest.mark.parametrize(("rows", "dims"), SHAPES)
def test_barlow_twins_is_lightlys(rows: int, dims: int) -> None:
    inputs = embeddings(2, rows, dims)
    got = value_and_gradients(lambda a, b: barlow_twins(a, b, 0.0051), inputs)
    theirs = value_and_gradients(BarlowTwinsLoss(lambda_param=0.0051), inputs)
    torch.testing.assert_close(got, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("rows", "dims"), [(3, 6), (6, 3)])
def test_barlow_twins_is_the_papers_sum(rows: int, dims: int) -> None:
    one, two = embeddings(2, rows, dims)
    a, b = (
        (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
        for x in (one.detach(), two.detach())
    )
    total = 0.0
    for i in range(dims):
        for j in range(dims):
            c = sum(float(a[n, i] * b[n, j]) for n in range(rows)) / rows
            total += (1 - c) ** 2 if i == j else 0.3 * c**2
    assert barlow_twins(one, two, 0.3).item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(("rows", "dims"), SHAPES)
def test_covariance_penalty_is_lightlys(rows: int, dims: int) -> None:
    inputs = embeddings(1, rows, dims)
    got = value_and_gradients(covariance_penalty, inputs)
    theirs = value_and_gradients(covariance_loss, inputs)
    torch.testing.assert_close(got, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("rows", "dims"), [(3, 6), (6, 3)])
def test_covariance_penalty_is_the_papers_sum(rows: int, dims: int) -> None:
    (x,) = embeddings(1, rows, dims)
    covariances = torch.cov(x.detach().T)
    total = sum(float(covariances[i, j]) ** 2 for i in range(dims) for j in range(dims) if i != j)
    assert covariance_penalty(x).item() == pytest.approx(total / dims, rel=1e-12)


def test_the_rows_side_is_the_dimensions_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same inputs through both forms, whichever of them is the cheaper."""
    for rows, dims in SHAPES:
        inputs = embeddings(2, rows, dims)
        both = []
        for threshold in (0.0, float("inf")):
            monkeypatch.setattr(reference, "ROWS_BELOW", threshold)
            both.append(value_and_gradients(lambda a, b: barlow_twins(a, b, 0.7), inputs))
        torch.testing.assert_close(*both, rtol=1e-11, atol=1e-13)


def test_the_large_matrix_is_never_made() -> None:
    """With 8 rows of 4096 dimensions no tensor of D x D is among what a step allocates."""
    one, two = (torch.randn(8, 4096, generator=rng.generator(name)) for name in "ab")
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        barlow_twins(one.requires_grad_(), two, 0.005).backward()
        covariance_penalty(one).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events() or ())
    assert 0 < largest < 4 * 4096**2 / 10


def test_half_precision_is_raised() -> None:
    one, two = (torch.randn(32, 16, generator=rng.generator(name)).bfloat16() for name in "ab")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = barlow_twins(one, two, 0.1), covariance_penalty(one)
    expected = barlow_twins(one.double(), two.double(), 0.1), covariance_penalty(one.double())
    for ours, exact in zip(got, expected, strict=True):
        assert ours.dtype == torch.float32
        assert ours.item() == pytest.approx(exact.item(), rel=1e-5)


def test_one_row_has_no_variance() -> None:
    with pytest.raises(ValueError, match="more than 1 value"):
        barlow_twins(torch.ones(1, 4), torch.ones(1, 4), 0.1)
