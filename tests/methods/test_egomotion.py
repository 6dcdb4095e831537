"""Egomotion's bins, loss and encoder against numpy and a loop; what it must see and must not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bench import conformance, registry, rng
from bench.api import Batch
from bench.errors import BenchError
from bench.resolve import method_config
from methods.egomotion import Egomotion


def build(**settings: object) -> Egomotion:
    cfg = method_config(Egomotion, "egomotion", "small", {"batch_size": 16, **settings})
    plain = conformance.build(Egomotion, "egomotion")
    return registry.method("egomotion")(cfg, plain.backbone, conformance.toy_info())


def with_motion(batch: Batch, motion: Tensor) -> Batch:
    return replace(batch, motion=motion)


def edges(motions: np.ndarray, bins: int) -> list[np.ndarray]:
    """The inner edges of each component's bins, from the definition."""
    mean, std = motions.mean(0), motions.std(0)
    ends = zip(mean - math.sqrt(3) * std, mean + math.sqrt(3) * std, strict=True)
    return [np.linspace(low, high, bins + 1)[1:-1] for low, high in ends]


def test_the_loss_is_the_sum_of_a_cross_entropy_for_each_component() -> None:
    method = build(bins=5).double().eval()  # in eval mode nothing is counted
    batch = conformance.memorised(method)
    batch.views = {name: [view.double() for view in views] for name, views in batch.views.items()}
    assert batch.motion is not None
    motion = batch.motion.double()
    method.seen.copy_(torch.stack([torch.ones_like(motion), motion, motion**2]).sum(1))
    step = conformance.step_at("main", 0)
    loss = method.loss(with_motion(batch, motion), step)
    inner = edges(motion.numpy(), 5)
    bins = [np.digitize(motion[:, i].numpy(), inner[i]) for i in range(4)]
    frames = [batch.view("first"), batch.view("second")]
    maps = [method.backbone.maps(frame)["stage3"] for frame in frames]
    logits = method.head(method.top(torch.cat(maps, 1)))
    total, hits = 0.0, [0, 0, 0, 0]
    for row in range(16):
        for i in range(4):
            values = logits[row, 5 * i : 5 * i + 5].tolist()
            total += math.log(sum(map(math.exp, values))) - values[bins[i][row]]
            hits[i] += values.index(max(values)) == bins[i][row]
    assert loss.item() == pytest.approx(total / 16, rel=1e-6)  # logits are rounded to float32
    for i, name in enumerate(method.cfg.components):
        assert step.logged[f"top1_{name}"].item() == pytest.approx(100 * hits[i] / 16)
        most = np.bincount(bins[i]).max()
        assert step.logged[f"chance_{name}"].item() == pytest.approx(100 * most / 16)


def test_bins_follow_all_motions_that_training_has_seen() -> None:
    method = build(bins=7).train()
    batch = conformance.memorised(method)
    draw = rng.generator("motions")
    motions = [torch.randn(16, 4, generator=draw) * 3 + 5 for _ in range(3)]
    for motion in motions:
        method.loss(with_motion(batch, motion), conformance.step_at("main", 0))
    everything = torch.cat(motions)
    method.eval()
    method.loss(with_motion(batch, torch.full((16, 4), 1e6)), conformance.step_at("main", 0))
    inner = edges(everything.double().numpy(), 7)
    for i in range(4):
        expected = np.digitize(everything[:, i].numpy(), inner[i])
        assert method.bin_of(everything)[:, i].tolist() == expected.tolist()


def test_evenly_spread_motions_fill_all_bins_alike() -> None:
    method = build(bins=10).train()
    batch = conformance.memorised(method)
    motion = torch.linspace(-0.12, 0.12, 16)[:, None].expand(16, 4)
    method.loss(with_motion(batch, motion), conformance.step_at("main", 0))
    many = torch.linspace(-0.12, 0.12, 10_000)[:, None].expand(-1, 4)
    counts = torch.stack([method.bin_of(many)[:, i].bincount(minlength=10) for i in range(4)])
    assert counts.min() > 600 and counts.max() < 1400


def test_a_component_that_never_changes_has_one_bin() -> None:
    method = build().train()
    batch = conformance.memorised(method)
    assert batch.motion is not None
    motion = batch.motion.clone()
    motion[:, 2] = 1.0
    step = conformance.step_at("main", 0)
    assert method.loss(with_motion(batch, motion), step).isfinite()
    assert step.logged["chance_zoom"].item() == 100


def test_both_frames_go_through_one_backbone_and_both_count() -> None:
    method = build().eval()
    batch = conformance.memorised(method)
    for views in batch.views.values():
        views[0].requires_grad_()
    method.logits(batch).square().sum().backward()
    for views in batch.views.values():
        assert (views[0].grad.flatten(1).abs().amax(1) > 0).all()


def test_as_many_components_as_the_data_have() -> None:
    method = build(components=("x", "z", "yaw"))
    assert method.head.out_features == 3 * method.cfg.bins
    batch = conformance.memorised(method)
    with pytest.raises(BenchError, match=r"3 components, .* 4 numbers: .*method\.components"):
        method.loss(batch, conformance.step_at("main", 0))


def test_the_picture_says_what_was_predicted_and_what_is_true() -> None:
    method = build().eval()
    batch = conformance.memorised(method)
    _, second = method.picture(batch, conformance.step_at("main", 0))
    assert len(second.tiles) == len(second.captions) == len(second.good) == 8
    assert batch.motion is not None
    for row, caption in enumerate(second.captions):
        for i, line in enumerate(caption.split("\n")):
            assert line.startswith(method.cfg.components[i])
            assert line.endswith(f"({batch.motion[row, i]:+.2f})")
