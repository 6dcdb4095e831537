"""NAT's loss, swaps and gradients against loops, brute force and scipy."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from scipy.ndimage import sobel
from torch import Tensor

from bench import conformance, rng
from bench.api import Batch
from bench.nn.sobel import Sobel
from methods.nat import NAT, best_match


def built() -> tuple[NAT, Batch]:
    method = conformance.build(NAT, "nat")
    assert isinstance(method, NAT)
    return method, conformance.memorised(method)


def test_the_gradients_are_scipys_of_the_mean_of_the_channels() -> None:
    x = torch.rand(2, 3, 9, 7, generator=rng.generator("sobel"), dtype=torch.float64)
    got = Sobel().double()(x)
    for gray, gradients in zip(x.mean(1).numpy(), got, strict=True):
        for channel, axis in ((0, 1), (1, 0)):
            expected = torch.from_numpy(sobel(gray, axis=axis, mode="constant"))
            torch.testing.assert_close(gradients[channel], expected)
    assert (got[:, 2] == 0).all()


def test_the_best_match_is_that_of_all_permutations() -> None:
    score = torch.randn(6, 6, generator=rng.generator("match"))
    best = max(
        permutations(range(6)), key=lambda p: sum(score[i, j].item() for i, j in enumerate(p))
    )
    assert best_match(score).tolist() == list(best)
    assert sorted(best_match(score * float("nan")).tolist()) == list(range(6))


def loss_by_loops(method: NAT, batch: Batch, own: Tensor) -> float:
    out = method.head(method.backbone(method.inputs(batch.view("crop")))).tolist()
    total = 0.0
    for row, target in zip(out, method.targets[own].tolist(), strict=True):
        norm = sum(v * v for v in row) ** 0.5
        total += sum((v / norm - t) ** 2 for v, t in zip(row, target, strict=True))
    return total / len(out)


def test_the_loss_is_the_squared_distance_to_the_own_target() -> None:
    method, batch = built()
    method = method.double().eval()
    batch.views = {"crop": [batch.view("crop").double()]}
    step = conformance.step_at("main", 0)
    before = method.assignment.clone()
    swapped = method.loss(batch, step).item()
    assert swapped == pytest.approx(loss_by_loops(method, batch, method.assignment[batch.index]))
    assert step.logged["cosine"].item() == pytest.approx(1 - swapped / 2)
    assert swapped < loss_by_loops(method, batch, before[batch.index])


def test_a_batch_swaps_only_its_own_targets_and_only_in_its_epochs() -> None:
    method, batch = built()
    object.__setattr__(method, "cfg", method.cfg.model_copy(update={"every": 3}))
    before = method.assignment.clone()
    step = conformance.step_at("main", 0)
    for epoch in (1, 2, 4):
        step.epoch = epoch
        method.loss(batch, step)
        assert torch.equal(method.assignment, before)
    step.epoch = 3
    method.loss(batch, step)
    ours, theirs = method.assignment[batch.index], before[batch.index]
    assert sorted(ours.tolist()) == sorted(theirs.tolist())
    changed = (method.assignment != before).nonzero()[:, 0]
    assert len(changed) and torch.isin(changed, batch.index).all()
    assert step.logged["swapped"].item() == pytest.approx(100 * len(changed) / len(batch))


def test_targets_lie_on_the_sphere_and_each_picture_owns_one() -> None:
    method, _ = built()
    torch.testing.assert_close(method.targets.norm(dim=1), torch.ones(conformance.PICTURES))
    assert sorted(method.assignment.tolist()) == list(range(conformance.PICTURES))


def test_the_encoder_sees_no_colour_and_no_brightness() -> None:
    method, batch = built()
    encoder, x = method.encoder().eval(), batch.view("crop")
    inner = x[:, :, 2:-2, 2:-2]
    tinted = inner + torch.tensor([0.4, -0.3, -0.1])[:, None, None]
    torch.testing.assert_close(encoder(tinted), encoder(inner), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(encoder(inner.flip(3)), encoder(inner))
