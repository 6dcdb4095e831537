"""The context encoder's holes and losses against the official code's geometry and plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from bench import backbones, conformance, rng
from bench.errors import BenchError
from bench.nn.holes import random_blocks, random_regions
from bench.resolve import method_config
from methods.context_encoder import ContextEncoder

MASKS = ("center", "random_block", "random_region")
LOSSES = ("l2", "adversarial", "joint")


def make(size: int = 32, **settings: object) -> ContextEncoder:
    small = {"epochs": 1, "batch_size": 16, "bottleneck": 32, "width": 8, "crop": 1.0}
    cfg = method_config(ContextEncoder, "context_encoder", "paper", small | settings)
    info = replace(conformance.toy_info(), size=size)
    return ContextEncoder(cfg, backbones.build("small", size), info)


def draw(phase: str) -> torch.Generator:
    return conformance.step_at(phase, 0).rng


@pytest.mark.parametrize(("mask", "seen"), [("center", 10.0), ("random_region", 1.0)])
def test_the_joint_loss_is_the_formula_written_out(mask: str, seen: float) -> None:
    method = make(mask=mask, loss="joint").double()
    batch = conformance.memorised(method)
    rgb = batch.view("picture").double()[:4]
    batch.views = {"picture": [rgb]}
    hole = method.holes(rgb, draw("generator"))
    fake = method.paint(rgb, hole)
    start, side = (8, 16) if mask == "center" else (0, 32)
    total = count = inside = area = 0.0
    for b, c, i, j in product(range(4), range(3), range(side), range(side)):
        error = (fake[b, c, i, j] - (2 * rgb[b, c, start + i, start + j] - 1)).item() ** 2
        cut = bool(hole[b, 0, start + i, start + j])
        total += error * (1.0 if cut else seen)
        count += 1
        inside, area = inside + error * cut, area + cut
    logits = method.discriminator(fake).tolist()
    adversarial = sum(-math.log(1 / (1 + math.exp(-v))) for v in logits) / 4
    step = conformance.step_at("generator", 0)
    loss = method.loss(batch, step).item()
    assert loss == pytest.approx(0.999 * total / count + 0.001 * adversarial, rel=1e-10)
    assert step.logged["hole_mse"].item() == pytest.approx(inside / area, rel=1e-6)


def test_the_discriminator_calls_real_windows_real_and_painted_ones_fake() -> None:
    method = make(mask="center", loss="adversarial").double()
    batch = conformance.memorised(method)
    rgb = batch.view("picture").double()
    batch.views = {"picture": [rgb]}
    fake = method.paint(rgb, method.holes(rgb, draw("discriminator")))
    real = method.discriminator(2 * rgb[:, :, 8:24, 8:24] - 1).sigmoid()
    made = method.discriminator(fake).sigmoid()
    expected = np.mean([-math.log(p) for p in real.tolist()])
    expected += np.mean([-math.log(1 - p) for p in made.tolist()])
    loss = method.loss(batch, conformance.step_at("discriminator", 0))
    assert loss.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("mask", "loss"), list(product(MASKS, LOSSES)))
def test_every_mask_trains_with_every_loss(mask: str, loss: str) -> None:
    method = make(mask=mask, loss=loss)
    batch = conformance.memorised(method)
    assert method.phases == (("generator",) if loss == "l2" else ("discriminator", "generator"))
    left = {name for name, _ in method.named_parameters()}
    for phase in method.phases:
        method.zero_grad(set_to_none=True)
        method.loss(batch, conformance.step_at(phase, 0)).backward()
        trained = {id(p) for p in method.parameters_for(phase)}
        touched = {name for name, p in method.named_parameters() if p.grad is not None}
        assert touched == {name for name, p in method.named_parameters() if id(p) in trained}
        left -= touched
    assert not left


@pytest.mark.parametrize("mask", MASKS)
def test_the_network_never_sees_what_is_in_the_hole(mask: str) -> None:
    method = make(mask=mask).eval()
    rgb = torch.rand(4, 3, 32, 32, generator=rng.generator("hole"), requires_grad=True)
    hole = method.holes(rgb, rng.generator("mask"))
    method.paint(rgb, hole).square().sum().backward()
    assert rgb.grad is not None
    cut = hole.expand_as(rgb)
    assert not rgb.grad[cut].any()
    assert rgb.grad[~cut].any()


def test_the_central_hole_is_the_official_one() -> None:
    """train.lua at 128 px with overlapPred=4: rows 1 + 32 + 4 to 96 - 4, counted from one."""
    method = make(size=128, mask="center")
    hole = method.holes(torch.zeros(1, 3, 128, 128), rng.generator("unused"))
    rows = hole[0, 0].any(1).nonzero()[:, 0] + 1
    assert (rows[0].item(), rows[-1].item(), len(rows)) == (1 + 32 + 4, 96 - 4, 56)
    assert torch.equal(hole[0, 0], hole[0, 0].T)
    assert hole.sum() == 56**2
    assert method.paint(torch.zeros(2, 3, 128, 128), hole).shape == (2, 3, 64, 64)


def test_random_blocks_are_filled_rectangles_on_at_most_a_quarter() -> None:
    holes = random_blocks(64, 32, rng.generator("blocks"))
    share = holes.float().mean((1, 2, 3))
    assert share.min() > 0 and share.max() <= 0.25
    assert share.mean() > 0.15
    assert len({tuple(hole.flatten().tolist()) for hole in holes}) == 64
    # A union of rectangles of at least 4 px is unchanged by removing what is thinner than that.
    for hole in holes[:, 0].numpy():
        assert np.array_equal(ndimage.binary_opening(hole, np.ones((4, 4))), hole)


@pytest.mark.parametrize("size", [32, 33, 128])
def test_random_regions_are_a_quarter_in_few_pieces(size: int) -> None:
    holes = random_regions(32, size, rng.generator("regions"))
    assert holes.shape == (32, 1, size, size)
    assert (holes.sum((1, 2, 3)) == int(0.25 * size**2)).all()
    pieces = [ndimage.label(hole[0].numpy())[1] for hole in holes]
    noise = torch.rand(size, size, generator=rng.generator("noise")) < 0.25
    assert max(pieces) <= 16 < ndimage.label(noise.numpy())[1]
    assert len({tuple(hole.flatten().tolist()) for hole in holes}) == 32


def test_masks_differ_between_steps_and_repeat_with_their_generator() -> None:
    method = make(mask="random_region")

    def holes(name: str) -> Tensor:
        return method.holes(torch.zeros(2, 3, 32, 32), rng.generator(name))

    assert torch.equal(holes("one"), holes("one"))
    assert not torch.equal(holes("one"), holes("other"))


def test_only_the_joint_generator_learns_ten_times_as_fast() -> None:
    rates = {
        (loss, phase): make(loss=loss).optim(phase).lr
        for loss in ("adversarial", "joint")
        for phase in ("discriminator", "generator")
    }
    assert rates.pop(("joint", "generator")) == pytest.approx(2e-3)
    assert set(rates.values()) == {2e-4}


def test_tiny_pictures_are_refused_in_one_line() -> None:
    with pytest.raises(BenchError, match=r"at least 16 px, toy has 8 px$"):
        make(size=8)
