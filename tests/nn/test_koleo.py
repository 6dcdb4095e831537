"""KoLeo against lightly's and a loop, with its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.loss import KoLeoLoss
from torch import Tensor

from bench import rng
from bench.nn.koleo import koleo


def rows(n: int, dim: int) -> Tensor:
    source = rng.generator("koleo", n, dim)
    return torch.randn(n, dim, generator=source, dtype=torch.float64)


def test_it_is_lightlys_and_so_is_its_gradient() -> None:
    ours = rows(12, 5).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    one, two = koleo(ours), KoLeoLoss()(theirs)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=0)
    one.backward()
    two.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


def test_it_is_a_loop_over_nearest_neighbours() -> None:
    x = rows(9, 4)
    unit = [[v / math.sqrt(sum(u * u for u in row)) for v in row] for row in x.tolist()]
    logs = [
        math.log(min(math.dist(a, b) for j, b in enumerate(unit) if j != i))
        for i, a in enumerate(unit)
    ]
    assert koleo(x).item() == pytest.approx(-sum(logs) / len(logs), rel=1e-6)


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.autograd.gradcheck(koleo, rows(6, 3).requires_grad_())


def test_descent_spreads_a_cluster_over_the_sphere() -> None:
    x = (1 + 0.1 * rows(16, 3)).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        koleo(x).backward()
        optimizer.step()
    assert torch.nn.functional.normalize(x.detach()).mean(0).norm() < 0.1


def test_equal_rows_and_half_precision_stay_finite() -> None:
    x = rows(8, 4).bfloat16()
    x[1] = x[0]
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = koleo(x)
    loss.backward()
    assert loss.dtype == torch.float32
    assert x.grad is not None and loss.isfinite() and x.grad.isfinite().all()
