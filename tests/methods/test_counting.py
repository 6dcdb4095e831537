"""Counting: both terms of the loss by loops, its parts against slices, and what it is probed on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench import backbones, conformance
from bench.errors import BenchError
from bench.resolve import method_config
from methods.counting import Counting

INFO = conformance.toy_info()


def build(info=INFO, **settings):
    cfg = method_config(Counting, "counting", "small", {"batch_size": 16, "size": 32} | settings)
    return Counting(cfg, backbones.build("small", 32), info)


def step():
    return conformance.step_at("main", 0)


@pytest.mark.parametrize("margin", [0.01, 400.0])
def test_the_loss_is_the_papers(margin):
    method = build(margin=margin, counts=20, hidden=16).double().eval()
    batch = conformance.memorised(method)
    batch.views = {"crop": [batch.view("crop").double()]}
    method.head[-2].bias.data += torch.linspace(-0.1, 0.3, 20)  # so that other pictures differ
    method.head[-2].weight.data *= 20
    made = step()
    loss = method.loss(batch, made).item()
    parts = method.parts(batch.view("crop"), step())
    counts = [[method.head(method.backbone(p[None]))[0].tolist() for p in x] for x in parts]
    assert all(value >= 0 for x in counts for p in x for value in p)
    same, other, hits = 0.0, 0.0, 0
    for i, (whole, *quarters) in enumerate(counts):
        tiles = [sum(values) for values in zip(*quarters, strict=True)]
        far = [sum((a - b) ** 2 for a, b in zip(x[0], tiles, strict=True)) for x in counts]
        same += sum((a - b) ** 2 for a, b in zip(whole, tiles, strict=True)) / 16
        other += max(0.0, margin - far[i - 1]) / 16
        hits += far.index(min(far)) == i
    assert same > 0 and (other > 0) == (margin == 400.0), "both sides of the hinge are tried"
    assert loss == pytest.approx(same + other, rel=1e-5)
    assert made.logged["equality"].item() == pytest.approx(same, rel=1e-5)
    assert made.logged["contrast"].item() == pytest.approx(other, rel=1e-5)
    assert made.logged["pretext_top1"].item() == pytest.approx(100 * hits / 16)
    total = sum(sum(x[0]) for x in counts) / 16
    assert made.logged["count"].item() == pytest.approx(total, rel=1e-5)


def test_counts_of_zero_cost_the_margin():
    method = build()
    nn.init.constant_(method.head[-2].bias, -100)
    made = step()
    assert method.loss(conformance.memorised(method), made).item() == pytest.approx(10.0)
    assert made.logged["count"].item() == 0


def test_parts_are_the_half_and_the_quarters():
    method = build(kernels=("box",))
    rgb = torch.rand(4, 3, 32, 32)
    half, *quarters = INFO.rgb(method.parts(rgb, step())).unbind(1)
    torch.testing.assert_close(half, F.avg_pool2d(rgb, 2))
    for number, quarter in enumerate(quarters):
        top, left = (16 * k for k in divmod(number, 2))
        torch.testing.assert_close(quarter, rgb[:, :, top : top + 16, left : left + 16])


def test_each_picture_is_halved_by_a_kernel_of_its_own():
    method = build()
    rgb = torch.rand(1, 3, 32, 32).expand(64, 3, 32, 32)
    halves = method.parts(rgb, step())[:, 0]
    assert len(halves.flatten(1).unique(dim=0)) == 4
    assert len(method.parts(rgb, step())[:, 1:].flatten(1).unique(dim=0)) == 1


def test_channels_are_shifted_before_the_picture_is_cut():
    """Whole and quarters show the same shifted picture: no part could be known by its colours."""
    rgb = torch.rand(8, 3, 32, 32)
    parts = INFO.rgb(build(channel_shift=2, kernels=("box",)).parts(rgb, step()))
    rows = parts[:, 1:].unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2, 5)
    whole = rows.flatten(4, 5).flatten(2, 3)
    assert not torch.allclose(whole, rgb)
    torch.testing.assert_close(parts[:, 0], F.avg_pool2d(whole, 2))


def test_it_is_probed_with_whole_pictures_at_its_size():
    method = build(size=48).eval()
    x = torch.randn(2, 3, 32, 32)
    larger = F.interpolate(x, 48, mode="bilinear")
    with torch.no_grad():
        torch.testing.assert_close(method.encoder()(x), method.backbone(larger))
        torch.testing.assert_close(build(size=32).eval().encoder().inputs(x), x)


def test_the_picture_ranks_by_count():
    method = build().eval()
    batch = conformance.memorised(method)
    with torch.no_grad():
        half, quarters, most, least = method.picture(batch, step())
    ranked = [float(caption) for caption in most.captions + least.captions]
    assert ranked == sorted(ranked, reverse=True) and len(ranked) == 16
    assert half.tiles.shape == (8, 3, 16, 16) and quarters.tiles.shape == (8, 3, 32, 32)


@pytest.mark.parametrize(("size", "settings"), [(12, {}), (32, {"size": 33})])
def test_pictures_too_small_to_be_quartered_are_one_clear_line(size, settings):
    with pytest.raises(BenchError, match="quarters of") as error:
        build(replace(INFO, size=size), **settings)
    assert "\n" not in str(error.value)


def test_an_unknown_kernel_is_told():
    with pytest.raises(BenchError, match="kernels"):
        method_config(Counting, "counting", "small", {"kernels": ("nearest",)})
