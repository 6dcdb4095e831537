"""In-batch InfoNCE against open_clip's ClipLoss and a loop over pairs, gradients included."""

from __future__ import annotations

import math

import pytest
import torch
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn.functional import normalize

from bench import rng
from bench.kernels import infonce


def pairs(n: int = 7, d: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of any length, and a logarithm of a scale, float64 with gradients."""
    draw = rng.generator("infonce", n, d)
    one, two = (3 * torch.randn(n, d, dtype=torch.float64, generator=draw) for _ in range(2))
    log_scale = torch.tensor(math.log(1 / 0.07), dtype=torch.float64)
    return one.requires_grad_(), two.requires_grad_(), log_scale.requires_grad_()


def by_loop(one: Tensor, two: Tensor, scale: Tensor) -> Tensor:
    """Mean over rows of `one` of -log of the partner's share, one pair at a time."""
    total = one.new_zeros(())
    for i in range(len(one)):
        cosines = [one[i] @ two[j] / (one[i].norm() * two[j].norm()) for j in range(len(two))]
        terms = [(scale * cosine).exp() for cosine in cosines]
        total = total - (terms[i] / sum(terms)).log()
    return total / len(one)


def check(ours: Tensor, expected: Tensor, wrt: tuple[Tensor, ...]) -> None:
    """The same value and the same gradients, to float64 rounding."""
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    gradients = zip(torch.autograd.grad(ours, wrt), torch.autograd.grad(expected, wrt), strict=True)
    for a, b in gradients:
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


def test_symmetric_is_open_clips_loss_with_its_gradients() -> None:
    one, two, log_scale = wrt = pairs()
    ours = infonce(one, two, log_scale.exp())
    check(ours, ClipLoss()(normalize(one, dim=1), normalize(two, dim=1), log_scale.exp()), wrt)


@pytest.mark.parametrize("symmetric", [True, False])
def test_is_a_loop_over_pairs_with_its_gradients(symmetric: bool) -> None:
    one, two, log_scale = wrt = pairs(5, 4)
    expected = by_loop(one, two, log_scale.exp())
    if symmetric:
        expected = (expected + by_loop(two, one, log_scale.exp())) / 2
    check(infonce(one, two, log_scale.exp(), symmetric=symmetric), expected, wrt)


def test_length_is_of_no_account_and_chance_is_log_n() -> None:
    one, two, _ = pairs()
    torch.testing.assert_close(infonce(5 * one, two, 10.0), infonce(one, two / 3, 10.0))
    same = torch.ones(8, 3)
    assert infonce(same, same, 20.0).item() == pytest.approx(math.log(8), rel=1e-6)


def test_autocast_is_raised_to_float32() -> None:
    one, two, _ = (value.detach().float() for value in pairs(64, 32))
    exact = infonce(one, two, 100.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(infonce(one, two, 100.0), exact)
        half = infonce(one.bfloat16(), two.bfloat16(), 100.0)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, infonce(one.bfloat16().float(), two.bfloat16().float(), 100.0))
