"""Several crop sizes through one network: order, passes, and what batch norm sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench import rng
from bench.nn.multicrop import by_size

DRAW = rng.generator("multicrop")
VIEWS = [torch.randn(4, 3, side, side, generator=DRAW) for side in (8, 8, 5, 5, 5)]


class Watched(nn.Module):
    """The mean of each channel, and the shapes that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        return x.mean((2, 3))


def test_every_size_goes_through_once_and_views_keep_their_order() -> None:
    network = Watched()
    outputs = by_size(network, VIEWS)
    assert network.seen == [(8, 3, 8, 8), (12, 3, 5, 5)]
    assert len(outputs) == len(VIEWS)
    for out, view in zip(outputs, VIEWS, strict=True):
        torch.testing.assert_close(out, view.mean((2, 3)))


def test_batch_norm_sees_one_size_at_a_time() -> None:
    norm = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    outputs = by_size(norm, VIEWS)
    for group in (outputs[:2], outputs[2:]):
        torch.testing.assert_close(torch.cat(group).mean(0), torch.zeros(3), atol=1e-6, rtol=0)


def test_gradients_reach_every_view() -> None:
    views = [view.clone().requires_grad_() for view in VIEWS]
    outputs = by_size(Watched(), views)
    torch.stack([out.sum() * weight for weight, out in enumerate(outputs, 1)]).sum().backward()
    for weight, view in enumerate(views, 1):
        torch.testing.assert_close(view.grad, torch.full_like(view, weight / view[0, 0].numel()))
