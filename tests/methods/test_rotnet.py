"""RotNet's rotations and loss against torchvision, the official code's flips, and a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from bench import conformance, registry, rng
from bench.errors import BenchError
from bench.nn.rotations import rotations
from bench.resolve import method_config
from methods.rotnet import RotNet

PICTURES = torch.rand(3, 3, 8, 8, generator=rng.generator("rotnet"))


def test_right_angles_are_the_official_flips_and_transpositions() -> None:
    """gidariss/FeatureLearningRotNet: 90 = flipud(transpose), 270 = transpose(flipud)."""
    x = PICTURES.numpy()
    transpose = np.swapaxes(x, 2, 3)
    expected = [x, transpose[:, :, ::-1], x[:, :, ::-1, ::-1], np.swapaxes(x[:, :, ::-1], 2, 3)]
    got = rotations(PICTURES, (0, 90, 180, 270)).numpy()
    np.testing.assert_array_equal(got, np.concatenate(expected))


@pytest.mark.parametrize("side", [16, 33])
def test_eight_angles_match_torchvision_inside_one_common_circle(side: int) -> None:
    angles = tuple(range(0, 360, 45))
    x = torch.rand(2, 3, side, side, generator=rng.generator("eight"))
    got = rotations(x, angles).view(8, 2, 3, side, side)
    at = torch.arange(side) - (side - 1) / 2
    inside = (at[:, None] ** 2 + at[None, :] ** 2).sqrt() <= side / 2 - 1
    assert torch.equal((got != 0).any(2), inside.expand(8, 2, side, side))
    for turned, angle in zip(got, angles, strict=True):
        expected = tv.rotate(x, angle, InterpolationMode.BILINEAR)
        torch.testing.assert_close(turned * inside, expected * inside, rtol=0, atol=1e-5)


def test_the_loss_is_cross_entropy_over_the_angles_of_every_picture() -> None:
    method = conformance.build(RotNet, "rotnet").double()
    batch = conformance.memorised(method)
    batch.views = {"crop": [batch.view("crop").double()]}
    step = conformance.step_at("main", 0)
    loss = method.loss(batch, step)
    method.backbone.apply(lambda m: setattr(m, "momentum", 0.0) if hasattr(m, "momentum") else None)
    turned = [torch.rot90(batch.view("crop"), k, (2, 3)) for k in range(4)]
    logits = method.head(method.backbone(torch.cat(turned)))
    total, hits = 0.0, 0
    for row in range(4 * conformance.BATCH):
        values = logits[row].tolist()
        truth = row // conformance.BATCH
        total += math.log(sum(math.exp(v) for v in values)) - values[truth]
        hits += values.index(max(values)) == truth
    assert loss.item() == pytest.approx(total / (4 * conformance.BATCH), rel=1e-12)
    assert step.logged["pretext_top1"].item() == pytest.approx(100 * hits / (4 * conformance.BATCH))


@pytest.mark.parametrize("angles", [(0,), (0, 90, 90)])
def test_angles_must_be_distinct(angles: tuple[int, ...]) -> None:
    with pytest.raises(BenchError, match="two different angles"):
        method_config(RotNet, "rotnet", "paper", {"angles": angles})


@pytest.mark.parametrize("angles", [(0, 180), (90, 270), tuple(range(0, 360, 45))])
def test_any_list_of_angles_trains(angles: tuple[int, ...]) -> None:
    cls = registry.method("rotnet")
    cfg = method_config(cls, "rotnet", "small", {"angles": angles, "batch_size": 16})
    method = cls(cfg, conformance.build(RotNet, "rotnet").backbone, conformance.toy_info())
    loss = method.loss(conformance.memorised(method), conformance.step_at("main", 0))
    assert method.head.out_features == len(angles)
    assert 0 < loss.item() < 5 * math.log(len(angles))
