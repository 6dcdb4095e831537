"""How detections score: COCO's average precisions, and the two of the PASCAL VOC kit."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.ops import box_iou

from bench.data.dataset import Boxes
from bench.errors import BenchError

LIMIT = 100  # detections of a class in a picture that COCO counts
OVERLAP = 0.5  # intersection over union from which on VOC calls an object found
RECALLS = 10  # VOC 2007 reads the precision at recalls of 0, 1/10, ..., 10/10


@dataclass(frozen=True)
class Detections:
    """What was found in one picture: `xyxy` `[K, 4]` pixels, `label` `[K]`, `score` `[K]`."""

    xyxy: Tensor
    label: Tensor
    score: Tensor


def detection_metrics(
    found: Sequence[Detections], truth: Sequence[Boxes], classes: int
) -> dict[str, float]:
    """`AP50`, `AP`, `AP75` (COCO's, over all areas), `mAP_voc11` and `mAP_voc`, in percent.

    Boxes of both are in pixels of the same picture. Squashing all pictures of a set to squares
    changes no intersection over union, so none of these numbers; COCO's ranges of area would
    change, which is why APs of small, medium and large objects are not among them.

    Args:
        found: detections, one for each picture.
        truth: objects of the same pictures.
        classes: the number of classes.

    Raises:
        BenchError: there is no object that counts.
    """
    return coco_metrics(found, truth, classes) | voc_metrics(found, truth, classes)


def coco_metrics(
    found: Sequence[Detections], truth: Sequence[Boxes], classes: int
) -> dict[str, float]:
    """`AP50`, `AP` and `AP75` as pycocotools has them: 101 recalls, the mean over classes present.

    `AP` is also the mean over overlaps of 0.5, 0.55, ..., 0.95. Difficult objects are COCO's crowd:
    detections that lie in them, by intersection over their own area, count neither way.

    Raises:
        BenchError: there is no object that counts.
    """
    _require_objects(truth)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        evaluation = COCOeval(_coco(truth, classes), _coco(found, classes), "bbox")
        evaluation.params.maxDets = [LIMIT]
        evaluation.params.areaRng = [[0, np.inf]]  # the squashed picture's areas mean nothing
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # [overlaps, recalls, classes]
    precision = 100 * precision[:, :, (precision > -1).all((0, 1))]  # of classes with objects
    overlaps = evaluation.params.iouThrs
    at = {name: np.isclose(overlaps, share) for name, share in (("AP50", 0.5), ("AP75", 0.75))}
    return {
        "AP50": float(precision[at["AP50"]].mean()),
        "AP": float(precision.mean()),
        "AP75": float(precision[at["AP75"]].mean()),
    }


def voc_metrics(
    found: Sequence[Detections], truth: Sequence[Boxes], classes: int
) -> dict[str, float]:
    """`mAP_voc11`, the 11-point mean of VOC 2007, and `mAP_voc`, the area of VOC 2010 and later.

    As in the kit, a detection goes to the object of its class that it overlaps most. From an
    overlap of 0.5 on the first by score is right, later ones are wrong, and those of a difficult
    object are skipped. Of equal scores the earlier picture's comes first. The mean is over classes
    with an object that is not difficult.

    Raises:
        BenchError: there is no object that counts.
    """
    _require_objects(truth)
    owner, overlap = _assigned(found, truth)
    score = torch.cat([x.score for x in found]).double()
    label = torch.cat([x.label for x in found])
    order = score.argsort(descending=True, stable=True)
    difficult = torch.cat([x.difficult for x in truth])
    positives = torch.cat([x.label for x in truth])[~difficult].bincount(minlength=classes)
    eleven, area = [], []
    for number in positives.nonzero().flatten().tolist():
        ranked = order[label[order] == number]
        hit, own = overlap[ranked] >= OVERLAP, owner[ranked]
        skipped = hit.clone()
        skipped[hit] = difficult[own[hit]]
        right = (hit & ~skipped & _first(own, hit))[~skipped]
        eleven.append(_eleven_points(right, int(positives[number])))
        area.append(_area(right, int(positives[number])))
    return {"mAP_voc11": 100 * float(np.mean(eleven)), "mAP_voc": 100 * float(np.mean(area))}


def _require_objects(truth: Sequence[Boxes]) -> None:
    if not any((~boxes.difficult).any() for boxes in truth):
        raise BenchError("no picture has an object that is not difficult; use other test pictures")


def _coco(pictures: Sequence[Boxes | Detections], classes: int) -> COCO:
    """Boxes as pycocotools keeps them, without the file that it would read them from."""
    notes: list[dict[str, Any]] = []
    for image, picture in enumerate(pictures):
        corners = picture.xyxy.double()
        boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
        nothing = torch.zeros(len(boxes))
        crowd = picture.difficult if isinstance(picture, Boxes) else nothing
        score = nothing if isinstance(picture, Boxes) else picture.score.double()
        columns = (boxes.tolist(), picture.label.tolist(), crowd.long().tolist(), score.tolist())
        for box, label, ignored, value in zip(*columns, strict=True):
            note = {"id": len(notes) + 1, "image_id": image}  # 0 would stand for "no match"
            note |= {"category_id": label, "iscrowd": ignored, "score": value}
            notes.append(note | {"bbox": box, "area": box[2] * box[3]})
    made = COCO()
    made.dataset = {
        "images": [{"id": image} for image in range(len(pictures))],
        "categories": [{"id": number} for number in range(classes)],
        "annotations": notes,
    }
    made.createIndex()
    return made


def _assigned(found: Sequence[Detections], truth: Sequence[Boxes]) -> tuple[Tensor, Tensor]:
    """The object (in the order of all) that each detection overlaps most, and by how much.

    Only objects of the detection's class; where the picture has none, the overlap is 0.
    """
    owners, overlaps, before = [], [], 0
    for detected, real in zip(found, truth, strict=True):
        shared = box_iou(detected.xyxy.double(), real.xyxy.double())
        shared = shared * (detected.label[:, None] == real.label)
        if len(real.label):
            most, owner = shared.max(1)
        else:
            most, owner = shared.sum(1), torch.zeros(len(shared), dtype=torch.int64)
        owners.append(owner + before)
        overlaps.append(most)
        before += len(real.label)
    return torch.cat(owners), torch.cat(overlaps)


def _first(owner: Tensor, hit: Tensor) -> Tensor:
    """Whether each of ranked detections is the first hit of its object, `[K]` bool."""
    ranks = hit.nonzero().flatten()
    _, first = np.unique(owner[ranks].numpy(), return_index=True)
    out = torch.zeros_like(hit)
    out[ranks[torch.from_numpy(first)]] = True
    return out


def _eleven_points(right: Tensor, positives: int) -> float:
    """The mean of the best precision at a recall of at least 0, 0.1, ..., 1."""
    hits, precision = _curve(right)
    # In whole numbers: 3 of 10 objects are a recall of 0.3, whatever 3 * 0.1 is in floating point.
    reached = (precision[RECALLS * hits >= k * positives] for k in range(RECALLS + 1))
    return float(sum(values.max() for values in reached if len(values))) / (RECALLS + 1)


def _area(right: Tensor, positives: int) -> float:
    """The area below precision by recall, each precision the best at that recall or above."""
    _, precision = _curve(right)
    best = precision.flip(0).cummax(0).values.flip(0)
    return float(best[right].sum()) / positives  # recall grows by 1 / positives at each hit


def _curve(right: Tensor) -> tuple[Tensor, Tensor]:
    hits = right.long().cumsum(0)
    return hits, hits.double() / torch.arange(1, len(right) + 1)
