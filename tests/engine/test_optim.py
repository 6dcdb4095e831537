"""Schedules and optimisers against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench import optim
from bench.api import OptimSpec


def test_cosine_after_warmup_matches_torch() -> None:
    spec = OptimSpec(lr=0.4, base_batch=256, warmup_epochs=2, min_lr=0.01)
    steps, per_epoch, batch = 100, 10, 512
    peak, warmup = 0.8, 20
    parameter = nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([parameter], lr=peak)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, steps - warmup, eta_min=0.01)
    for step in range(warmup):
        ours = optim.lr_at(spec, step, per_epoch, steps, batch)
        assert ours == pytest.approx(peak * (step + 1) / warmup)
    for step in range(warmup, steps):
        assert optim.lr_at(spec, step, per_epoch, steps, batch) == pytest.approx(
            theirs.param_groups[0]["lr"]
        )
        theirs.step()
        cosine.step()


def test_step_schedule_matches_rotnets_table() -> None:
    spec = OptimSpec(lr=0.1, schedule="step", milestones=(0.3, 0.6, 0.8), gammas=(0.2, 0.2, 0.2))
    per_epoch = 7
    table = {0: 0.1, 59: 0.1, 60: 0.02, 119: 0.02, 120: 0.004, 159: 0.004, 160: 0.0008, 199: 0.0008}
    for epoch, lr in table.items():
        got = optim.lr_at(spec, epoch * per_epoch, per_epoch, 200 * per_epoch, 128)
        assert got == pytest.approx(lr)


def test_square_root_scaling() -> None:
    spec = OptimSpec(lr=0.075, base_batch=1, scaling="sqrt")
    assert optim.peak_lr(spec, 4096) == pytest.approx(4.8)  # SimCLR, appendix B.1


def test_weight_decay_moves_by_cosine_and_spares_vectors() -> None:
    module = nn.Linear(3, 2)
    spec = OptimSpec(
        name="adamw", lr=1.0, weight_decay=0.04, weight_decay_end=0.4, decay_bias_and_norm=False
    )
    optimizer = optim.build(spec, module.parameters())
    for step, expected in ((0, 0.04), (50, 0.22), (100, 0.4)):
        optim.schedule(optimizer, spec, step, 10, 100, 256)
        weights, vectors = optimizer.param_groups
        assert weights["weight_decay"] == pytest.approx(expected)
        assert vectors["weight_decay"] == 0.0
        assert [tuple(p.shape) for p in weights["params"]] == [(2, 3)]


def test_lars_step_is_the_papers() -> None:
    """You 2017 (arXiv:1708.03888): local rate = trust * |w| / (|g| + decay * |w|)."""
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    bias = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    spec = OptimSpec(
        name="lars", lr=0.5, weight_decay=0.1, decay_bias_and_norm=False, schedule="constant"
    )
    optimizer = optim.build(spec, [weight, bias])
    optim.schedule(optimizer, spec, 0, 1, 1, 1)
    start, start_bias = weight.detach().clone(), bias.detach().clone()
    weight.grad = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    bias.grad = torch.tensor([2.0], dtype=torch.float64)
    optimizer.step()
    local = 0.001 * 5.0 / (1.0 + 0.1 * 5.0)
    expected = start - 0.5 * local * (weight.grad + 0.1 * start)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(bias.detach(), start_bias - 0.5 * bias.grad)


@pytest.mark.parametrize("decay", [0.0, 1e-4])
def test_lars_adapts_weights_whether_they_decay_or_not_and_leaves_vectors_alone(
    decay: float,
) -> None:
    weight, bias = nn.Parameter(torch.full((2, 2), 3.0)), nn.Parameter(torch.full((2,), 3.0))
    spec = OptimSpec(
        name="lars", lr=1.0, momentum=0.0, weight_decay=decay, decay_bias_and_norm=False
    )
    optimizer = optim.build(spec, [weight, bias])
    weight.grad, bias.grad = torch.full((2, 2), 5.0), torch.full((2,), 5.0)
    optimizer.step()
    # trust * |w| / (|g| + decay |w|) * (g + decay w), with |w| = 6 and |g| = 10
    step = 0.001 * 6 / (10 + decay * 6) * (5 + decay * 3)
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 3.0 - step))
    torch.testing.assert_close(bias.detach(), torch.full((2,), -2.0))
