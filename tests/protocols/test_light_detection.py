"""The light detection protocol: what a point learns, by explicit loops, and its sanity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detection_toys import Blind, Seeing, data, run
from torch import Tensor

from bench.data.dataset import Boxes
from bench.eval.detectors import Pyramid
from bench.eval.point_detector import PointDetector
from protocols.light_detection import LightDetection

SIZE, STRIDE = 32, 4


def detector(classes: int = 3) -> PointDetector:
    torch.manual_seed(0)
    pyramid = Pyramid(Seeing(), "fpn", SIZE, 8, frozen=True)
    return PointDetector(pyramid, classes, SIZE).eval()


def boxes(*xyxy: tuple[float, float, float, float], label: int = 1) -> Boxes:
    n = len(xyxy)
    return Boxes(
        torch.tensor(xyxy).float().view(n, 4),
        torch.full((n,), label),
        torch.zeros(n, dtype=torch.bool),
    )


# --------------------------------------------------------------------------------------- training
def owner_by_loops(x: float, y: float, things: list[list[float]]) -> int:
    best, smallest = -1, float("inf")
    for number, (x0, y0, x1, y1) in enumerate(things):
        away = max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2)) / STRIDE
        inside = x0 < x < x1 and y0 < y < y1
        area = (x1 - x0) * (y1 - y0)
        if (away <= 0.5 or (inside and away < 1.5)) and area < smallest:
            best, smallest = number, area
    return best


def test_points_stand_for_the_objects_that_loops_find() -> None:
    model, rng = detector(), torch.Generator().manual_seed(0)
    low = torch.rand(20, 5, 2, generator=rng) * 26
    high = low + 0.5 + torch.rand(20, 5, 2, generator=rng) ** 2 * (31.5 - low)
    xyxy, real = torch.cat([low, high], 2), torch.arange(5) < torch.arange(20)[:, None] % 6
    owners = model.owners(xyxy, real)
    for picture in range(20):
        things = xyxy[picture][real[picture]].tolist()
        for k, point in enumerate(owners[picture].tolist()):
            x, y = (k % 8 + 0.5) * STRIDE, (k // 8 + 0.5) * STRIDE
            assert point == owner_by_loops(x, y, things)
    assert {-1, 0, 1} <= set(owners.unique().tolist())
    for picture in range(1, 6):  # an object smaller than a cell has its point, unless hidden
        only = torch.tensor([[[picture * 5.0, 9.1, picture * 5.0 + 0.3, 9.3]]])
        assert (model.owners(only, torch.tensor([[True]])) == 0).sum() == 1


def test_the_loss_falls_to_nothing_for_perfect_outputs() -> None:
    model = detector()
    truth = [boxes((4, 4, 20, 24)), boxes()]
    x = torch.zeros(2, 3, SIZE, SIZE)

    def outputs(confidence: float) -> tuple[Tensor, Tensor]:
        logits, found = torch.full((2, 64, 3), -confidence), torch.zeros(2, 64, 4)
        owner = model.owners(truth[0].xyxy[None], torch.tensor([[True]]))[0]
        logits[0, owner == 0, 1] = confidence
        found[0, owner == 0] = truth[0].xyxy
        return logits, found

    losses = []
    for confidence in (-1.0, 1.0, 20.0):
        model.forward = lambda x, c=confidence: outputs(c)  # type: ignore[method-assign]
        losses.append(model.loss(x, truth).item())
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] == pytest.approx(0, abs=1e-6)


def test_pictures_without_objects_train_too() -> None:
    model = detector().train()
    loss = model.loss(torch.randn(2, 3, SIZE, SIZE), [boxes(), boxes()])
    loss.backward()
    assert loss.isfinite()


def test_detections_are_suppressed_by_class_and_picture() -> None:
    model = detector()
    logits, found = torch.full((2, 64, 3), -9.0), torch.zeros(2, 64, 4)
    found[:] = torch.tensor([2.0, 2.0, 12.0, 12.0])
    found[0, 3] = torch.tensor([-5.0, 20.0, 9.0, 40.0])  # sticks out: is clipped
    logits[0, 0, 1], logits[0, 1, 1], logits[0, 2, 2], logits[0, 3, 1] = 4.0, 3.0, 2.0, 1.0
    logits[1, 9, 1] = 0.0
    model.forward = lambda x: (logits, found)  # type: ignore[method-assign]
    first, second = model.detect(torch.zeros(2, 3, SIZE, SIZE))
    best = first.score > 0.5
    assert first.label[best].tolist() == [1, 2, 1]  # the second of class 1 overlaps the first
    assert first.score[best].tolist() == pytest.approx([0.982014, 0.880797, 0.731059], abs=1e-5)
    assert first.xyxy[best][2].tolist() == [0, 20, 9, 32]
    assert second.score.max() == 0.5, "another picture's box suppresses nothing here"


# ------------------------------------------------------------------------------------- the protocol
def test_what_can_be_seen_is_found_and_a_blind_encoder_scores_the_floor(tmp_path: Path) -> None:
    """Chance is near 0, as places are guessed too; not 1 / classes."""
    settings = {"steps": 150, "batch_size": 16, "channels": 16, "frozen": True, "warmup_steps": 10}
    seeing = run(LightDetection, Seeing(), tmp_path, size=SIZE, **settings)
    assert seeing.metrics["AP50"] > 50
    assert seeing.selected["sides"] == [8, 4]
    blind = run(LightDetection, Blind(), tmp_path, size=SIZE, **settings)
    assert blind.metrics["AP50"] < 5


def test_pictures_are_enlarged_and_boxes_with_them(tmp_path: Path) -> None:
    used = data(40, 20)
    assert run(LightDetection, Seeing(), tmp_path, used).selected["size"] == 2 * SIZE
