"""Detection metrics, against pycocotools on files, torchmetrics, and the VOC kit's loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from bench.data.dataset import Boxes
from bench.errors import BenchError
from bench.eval.detection_metrics import (
    Detections,
    coco_metrics,
    detection_metrics,
    voc_metrics,
)
from bench.rng import generator

CLASSES = 4  # of which the made pictures show three: the last is empty
Case = tuple[list[Detections], list[Boxes]]


def made(seed: int, pictures: int = 40, difficult: float = 0.15, ties: bool = False) -> Case:
    """Crowded pictures; detections are jittered objects, duplicates, wrong classes and noise.

    Some pictures have no object, some no detection. Coordinates are dyadic, so areas are exact.
    """
    rng = generator("detections", seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng)

    def boxes(n: int) -> Tensor:
        corner = (draw(n, 2) * 200).round() / 4
        return torch.cat([corner, corner + 4 + (draw(n, 2) * 80).round() / 4], 1)

    found, truth = [], []
    for _ in range(pictures):
        k = int(draw(1) * 6)
        real = Boxes(boxes(k), (draw(k) * 3).long(), draw(k) < difficult)
        jitter = (draw(2 * k, 4) * 24 - 12).round() / 4 * (draw(2 * k, 1) < 0.8)
        noise = int(draw(1) * 4)
        xyxy = torch.cat([real.xyxy.repeat(2, 1) + jitter, boxes(noise)])
        xyxy[:, 2:] = torch.maximum(xyxy[:, 2:], xyxy[:, :2] + 1)
        label = torch.cat([real.label.repeat(2), (draw(noise) * CLASSES).long()])
        label = torch.where(draw(len(label)) < 0.15, (label + 1) % CLASSES, label)
        score = draw(len(label))
        score = (score * 4).round() / 4 if ties else score
        keep = draw(len(label)) < 0.8 if draw(1) < 0.9 else torch.zeros(len(label)) > 0
        found.append(Detections(xyxy[keep], label[keep], score[keep]))
        truth.append(real)
    return found, truth


def none() -> Detections:
    return Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))


def apart(case: Case) -> Case:
    """Only the first object and its detections of each picture, so that nothing competes."""
    found, truth = case
    truth = [Boxes(x.xyxy[:1], x.label[:1], x.difficult[:1]) for x in truth]
    return found, truth


# ------------------------------------------------------------------------------------------- COCO
def by_files(case: Case, folder: Path) -> dict[str, float]:
    """What pycocotools gives when used as it is meant to be, with its own defaults."""
    found, truth = case
    notes: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (detected, real) in enumerate(zip(found, truth, strict=True), 1):
        for (x0, y0, x1, y1), label, crowd in zip(
            real.xyxy.tolist(), real.label.tolist(), real.difficult.tolist(), strict=True
        ):
            box = [x0, y0, x1 - x0, y1 - y0]
            more = {"id": len(notes) + 1, "area": box[2] * box[3], "iscrowd": int(crowd)}
            notes.append({"image_id": image, "category_id": label + 1, "bbox": box, **more})
        for (x0, y0, x1, y1), label, score in zip(
            detected.xyxy.tolist(), detected.label.tolist(), detected.score.tolist(), strict=True
        ):
            box = [x0, y0, x1 - x0, y1 - y0]
            more = {"category_id": label + 1, "score": score}
            results.append({"image_id": image, "bbox": box, **more})
    images = [{"id": i + 1, "width": 80, "height": 80} for i in range(len(truth))]
    categories = [{"id": i + 1, "name": f"class{i}"} for i in range(CLASSES)]
    path = folder / "truth.json"
    path.write_text(
        json.dumps({"info": {}, "images": images, "categories": categories, "annotations": notes})
    )
    real_coco = COCO(path)
    evaluation = COCOeval(real_coco, real_coco.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(("AP", "AP50", "AP75"), (100 * evaluation.stats[:3]).tolist(), strict=True))


def torchmetrics_map(case: Case, **options: Any) -> dict[str, Tensor]:
    metric = MeanAveragePrecision(**options)
    found, truth = case
    metric.update(
        [{"boxes": x.xyxy, "labels": x.label, "scores": x.score} for x in found],
        [{"boxes": x.xyxy, "labels": x.label, "iscrowd": x.difficult.int()} for x in truth],
    )
    out: dict[str, Tensor] = metric.compute()
    return out


@pytest.mark.parametrize(
    "case", [made(0), made(1, ties=True), made(2, difficult=0.0), made(3, difficult=0.7, ties=True)]
)
def test_coco_is_pycocotools_and_torchmetrics(case: Case, tmp_path: Path) -> None:
    ours = coco_metrics(*case, CLASSES)
    assert 5 < ours["AP"] < ours["AP50"] < 95  # the case tells something
    assert ours == pytest.approx(by_files(case, tmp_path), abs=1e-6)
    # COCO's thresholds in double precision: torchmetrics' own are float32 and miss a recall of 0.7.
    overlaps, recalls = np.linspace(0.5, 0.95, 10).tolist(), np.linspace(0, 1, 101).tolist()
    theirs = torchmetrics_map(case, iou_thresholds=overlaps, rec_thresholds=recalls)
    for name, key in (("AP", "map"), ("AP50", "map_50"), ("AP75", "map_75")):
        assert ours[name] / 100 == pytest.approx(theirs[key].item(), abs=1e-6)


def test_nothing_is_printed_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    case = made(4)
    kept = [x.xyxy.clone() for x in case[0]]
    detection_metrics(*case, CLASSES)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(x.xyxy, before) for x, before in zip(case[0], kept, strict=True))


# -------------------------------------------------------------------------------------------- VOC
def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def kit(case: Case, label: int) -> tuple[float, float] | None:
    """(11-point AP, area AP) of a class by the kit's VOCevaldet and VOCap, loop by loop."""
    found, truth = case
    real = [
        [
            {"box": x.xyxy[i].tolist(), "difficult": bool(x.difficult[i]), "taken": False}
            for i in range(len(x.label))
            if x.label[i] == label
        ]
        for x in truth
    ]
    positives = sum(not thing["difficult"] for things in real for thing in things)
    if positives == 0:
        return None
    ranked = [
        (-x.score[i].item(), picture, i)
        for picture, x in enumerate(found)
        for i in range(len(x.label))
        if x.label[i] == label
    ]
    right = wrong = 0
    precision, recall = [], []
    for _, picture, i in sorted(ranked):
        best, most = None, -1.0
        for thing in real[picture]:
            shared = overlap(found[picture].xyxy[i].tolist(), thing["box"])
            if shared > most:
                best, most = thing, shared
        if best is not None and most >= 0.5:
            if best["difficult"]:
                continue
            right, wrong = (right, wrong + 1) if best["taken"] else (right + 1, wrong)
            best["taken"] = True
        else:
            wrong += 1
        precision.append(right / (right + wrong))
        recall.append(right / positives)
    eleven = 0.0
    for k in range(11):
        reached = [p for p, r in zip(precision, recall, strict=True) if r >= k / 10 - 1e-12]
        eleven += max(reached, default=0.0) / 11
    mrec, mpre = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in reversed(range(len(mpre) - 1)):
        mpre[i] = max(mpre[i], mpre[i + 1])
    area = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))
    return eleven, area


@pytest.mark.parametrize(
    "case", [made(0), made(1, ties=True), made(2, difficult=0.0), made(3, difficult=0.7, ties=True)]
)
def test_voc_is_the_kits_loop(case: Case) -> None:
    results = [both for label in range(CLASSES) if (both := kit(case, label)) is not None]
    ours = voc_metrics(*case, CLASSES)
    assert 5 < ours["mAP_voc"] < 95
    for place, name in enumerate(("mAP_voc11", "mAP_voc")):
        expected = 100 * sum(both[place] for both in results) / len(results)
        assert ours[name] == pytest.approx(expected, abs=1e-6)


def test_eleven_points_are_torchmetrics_where_nothing_competes() -> None:
    """COCO gives a detection a free object rather than the nearest; with one there is no choice."""
    case = apart(made(5, difficult=0.0))
    recalls = [k / 10 for k in range(11)]
    theirs = torchmetrics_map(case, iou_thresholds=[0.5], rec_thresholds=recalls)["map"]
    ours = voc_metrics(*case, CLASSES)["mAP_voc11"]
    assert ours / 100 == pytest.approx(theirs.item(), abs=1e-6)


# ----------------------------------------------------------------------------------------- by hand
ONE = Boxes(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([1]), torch.tensor([False]))


def detected(*boxes: tuple[float, float, float, float], label: int = 1) -> Detections:
    n = len(boxes)
    score = torch.linspace(0.9, 0.1, n)
    return Detections(torch.tensor(boxes).view(n, 4), torch.full((n,), label), score)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (detected((0, 0, 8, 8)), 100.0),
        (detected((0, 0, 8, 8), (0, 0, 8, 8)), 100.0),  # a duplicate, after all are found
        (detected((20, 20, 28, 28), (0, 0, 8, 8)), 50.0),  # wrong first
        (detected((0, 0, 8, 4)), 100.0),  # an overlap of exactly one half
        (detected((0, 0, 8, 3.75)), 0.0),
        (detected((0, 0, 8, 8), label=2), 0.0),
        (none(), 0.0),
    ],
)
def test_one_object(found: Detections, expected: float) -> None:
    metrics = detection_metrics([found], [ONE], CLASSES)
    for name in ("AP50", "mAP_voc11", "mAP_voc"):
        assert metrics[name] == pytest.approx(expected)


def test_duplicates_are_wrong() -> None:
    two = [ONE, ONE]
    found = [detected((0, 0, 8, 8), (0, 0, 8, 8)), detected((20, 20, 28, 28), (0, 0, 8, 8))]
    found[0].score[:] = torch.tensor([0.9, 0.8])
    found[1].score[:] = torch.tensor([0.2, 0.1])
    # Right, duplicate, wrong, right: precisions 1, 1/2, 1/3, 2/4 at recalls 1/2, 1/2, 1/2, 1.
    metrics = voc_metrics(found, two, CLASSES)
    assert metrics["mAP_voc"] == pytest.approx(100 * (1 + 0.5) / 2)
    assert metrics["mAP_voc11"] == pytest.approx(100 * (6 * 1 + 5 * 0.5) / 11)


def test_perfect_boxes_score_everything_and_difficult_ones_are_skipped() -> None:
    _, truth = made(6)
    perfect = [Detections(x.xyxy, x.label, torch.rand(len(x.label))) for x in truth]
    assert set(detection_metrics(perfect, truth, CLASSES).values()) == {100.0}
    missed = [
        Detections(
            x.xyxy[~x.difficult], x.label[~x.difficult], torch.rand(int((~x.difficult).sum()))
        )
        for x in truth
    ]
    assert sum(len(x.label) for x in missed) < sum(len(x.label) for x in perfect)
    assert set(detection_metrics(missed, truth, CLASSES).values()) == {100.0}


def test_the_same_pictures_squashed_score_the_same() -> None:
    found, truth = made(7)
    scale = torch.tensor([0.5, 2.0, 0.5, 2.0])
    squashed = (
        [Detections(x.xyxy * scale, x.label, x.score) for x in found],
        [Boxes(x.xyxy * scale, x.label, x.difficult) for x in truth],
    )
    assert detection_metrics(*squashed, CLASSES) == detection_metrics(found, truth, CLASSES)


def test_without_detections_everything_is_zero() -> None:
    _, truth = made(8)
    metrics = detection_metrics([none()] * len(truth), truth, CLASSES)
    assert set(metrics.values()) == {0.0}


@pytest.mark.parametrize("metrics", [coco_metrics, voc_metrics])
def test_no_object_that_counts_is_refused(metrics: Any) -> None:
    difficult = Boxes(ONE.xyxy, ONE.label, torch.tensor([True]))
    with pytest.raises(BenchError, match="no picture has an object"):
        metrics([detected((0, 0, 8, 8))], [difficult], CLASSES)
