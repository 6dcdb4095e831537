"""CowMix's consistency against a loop over pictures, classes and pixels."""

from __future__ import annotations

import math

import pytest
import torch

from bench import conformance, rng
from bench.api import Step
from bench.nn.cow_mask import cow_masks
from bench.nn.semi_supervised import labeled_view, labels_of
from bench.nn.still_statistics import still_statistics
from methods.cowmix import CowMix


def step() -> Step:
    return Step("main", 0, 2, 3, 8, rng.generator("cowmix"))


@pytest.mark.parametrize("threshold", [0.0, 0.35, 0.999])
def test_mixtures_are_taught_the_mixed_predictions(threshold: float) -> None:
    method = conformance.build(CowMix, "cowmix").double().train()
    method.cfg = method.cfg.model_copy(update={"threshold": threshold, "weight": 3.0})
    batch = conformance.memorised(method)
    x, labeled = batch.view("weak").double(), labeled_view(batch).double()
    batch.views = {"weak": [x]}
    assert batch.labeled is not None
    batch.labeled.views = {"labeled": [labeled]}
    with torch.no_grad():
        method.average.head.weight.mul_(8)
    masks = cow_masks(16, 32, step().rng, sigma=(4.0, 16.0), share=(0.2, 0.8)).double()
    mixed = x.clone()
    for row in range(16):
        other = x[(row + 1) % 16]
        mixed[row] = torch.where(masks[row] > 0, other, x[row])
    with torch.no_grad(), still_statistics(method):
        supervised = torch.nn.functional.cross_entropy(
            method.head(method.backbone(labeled)), labels_of(batch)
        ).item()
        learned = method.head(method.backbone(mixed)).softmax(1).tolist()
        told = method.average.eval().classify(x).softmax(1).tolist()
    sure, distance = 0, 0.0
    for row in range(16):
        share = masks[row].mean().item()
        one, two = told[row], told[(row + 1) % 16]
        sure += (1 - share) * max(one) + share * max(two) > threshold
        distance += sum(
            (p - (1 - share) * a - share * b) ** 2
            for p, a, b in zip(learned[row], one, two, strict=True)
        )
    expected = supervised + 3.0 * (sure / 16) * (distance / 16)
    seen = step()
    assert method.loss(batch, seen).item() == pytest.approx(expected, rel=1e-9)
    assert seen.logged["mask"].item() == pytest.approx(100 * sure / 16)
    assert {0.0: sure == 16, 0.35: 0 < sure < 16, 0.999: sure == 0}[threshold]


def test_the_teacher_is_used_as_it_is_evaluated() -> None:
    """With running statistics, which follow the student's: its predictions do not mix pictures."""
    method = conformance.build(CowMix, "cowmix").train()
    batch = conformance.memorised(method)
    before = [buffer.clone() for buffer in method.average.buffers()]
    method.loss(batch, step())
    assert all(map(torch.equal, before, method.average.buffers()))
    method.after_step(step())
    student = method.backbone.stem[1].running_mean
    share = min(1 - 1 / 4, 0.99)
    expected = share * before[0] + (1 - share) * student
    torch.testing.assert_close(method.average.network.stem[1].running_mean, expected)
    assert not math.isclose(before[0].sum().item(), student.sum().item())
