"""The moving average of weights, and what is told of it."""

from __future__ import annotations

import torch

from bench import rng
from bench.kernels import dispatch, ema_update


def test_it_is_the_average_pair_by_pair_in_place() -> None:
    draw = rng.generator("ema")
    targets, sources = (
        [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((), (3,), (2, 5))]
        for _ in range(2)
    )
    expected = [0.9 * a + 0.1 * b for a, b in zip(targets, sources, strict=True)]
    where = [x.data_ptr() for x in targets]
    with dispatch.using("auto") as ran:
        ema_update(iter(targets), iter(sources), 0.9)
    torch.testing.assert_close(targets, expected, rtol=1e-14, atol=1e-15)
    assert [x.data_ptr() for x in targets] == where
    assert ran == {"ema_update": "foreach"}


def test_no_gradient_flows_and_the_ends_are_exact() -> None:
    source = torch.ones(3, requires_grad=True)
    for momentum, expected in ((1.0, 0.0), (0.0, 1.0)):
        target = torch.zeros(3)
        ema_update([target], [source], momentum)
        assert not target.requires_grad
        assert torch.equal(target, torch.full((3,), expected))
