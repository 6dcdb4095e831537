"""The sigmoid loss against open_clip's SigLipLoss and a loop over pairs, gradients included."""

from __future__ import annotations

import math

import torch
from open_clip.loss import SigLipLoss
from torch import Tensor
from torch.nn.functional import normalize

from bench import rng
from bench.kernels import siglip


def inputs(n: int = 7, d: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings of any length, the logarithm of the scale and the bias, float64 with gradients."""
    draw = rng.generator("siglip", n, d)
    one, two = (3 * torch.randn(n, d, dtype=torch.float64, generator=draw) for _ in range(2))
    learnt = (torch.tensor(value, dtype=torch.float64) for value in (math.log(10), -10.0))
    one, two, log_scale, bias = (value.requires_grad_() for value in (one, two, *learnt))
    return one, two, log_scale, bias


def check(ours: Tensor, expected: Tensor, wrt: tuple[Tensor, ...]) -> None:
    """The same value and the same gradients, to float64 rounding."""
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    gradients = zip(torch.autograd.grad(ours, wrt), torch.autograd.grad(expected, wrt), strict=True)
    for a, b in gradients:
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


def test_is_open_clips_loss_with_its_gradients() -> None:
    one, two, log_scale, bias = wrt = inputs()
    ours = siglip(one, two, log_scale.exp(), bias)
    images, texts = normalize(one, dim=1), normalize(two, dim=1)
    check(ours, SigLipLoss()(images, texts, log_scale.exp(), bias), wrt)


def test_is_a_loop_over_pairs_with_its_gradients() -> None:
    one, two, log_scale, bias = wrt = inputs(5, 4)
    total = one.new_zeros(())
    for i in range(5):
        for j in range(5):
            cosine = one[i] @ two[j] / (one[i].norm() * two[j].norm())
            probability = 1 / (1 + (-(log_scale.exp() * cosine + bias)).exp())
            total = total - (probability if i == j else 1 - probability).log()
    check(siglip(one, two, log_scale.exp(), bias), total / 5, wrt)


def test_the_bias_of_the_start_makes_the_loss_that_of_the_pairs_alone() -> None:
    """At b = -10 and orthogonal embeddings, N - 1 negatives cost nothing and the pair costs 10."""
    one = torch.eye(64, dtype=torch.float64)
    two = one.roll(1, 0)  # no pair has any similarity
    rows = siglip(one, two, 0.0, -10.0).item()
    assert math.isclose(rows, 10 + 64 * math.log1p(math.exp(-10)), rel_tol=1e-12)


def test_autocast_is_raised_to_float32() -> None:
    one, two = (value.detach().float() for value in inputs(64, 32)[:2])
    exact = siglip(one, two, 100.0, -10.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(siglip(one, two, 100.0, -10.0), exact)
        half = siglip(one.bfloat16(), two.bfloat16(), 100.0, -10.0)
    assert half.dtype == torch.float32
    expected = siglip(one.bfloat16().float(), two.bfloat16().float(), 100.0, -10.0)
    torch.testing.assert_close(half, expected)
