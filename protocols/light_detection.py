"""Detection by a light head: one-stage FCOS on one map of the encoder's pyramid; COCO's AP50."""

from __future__ import annotations

from typing import Any

from bench.api import Encoder, EvalData, Metric, Protocol, Scores
from bench.eval.detection import DetectionConfig, measure
from bench.eval.detectors import Detector, Pyramid
from bench.eval.point_detector import PointDetector


class LightDetection(Protocol):
    """AP50 of a small FCOS (arXiv:1904.01355), several times faster than Faster R-CNN on a CPU.

    Every point of the pyramid's finest map says which object's centre it is near, and that
    object's box: no anchors, no regions, no second stage. Everything else is as in `voc_detection`:
    the pyramid, the schedule, train + val, the scores. The two are never compared in one column.
    """

    metric = Metric("AP50")
    requires = frozenset({"boxes"})
    toy = {"steps": 2, "batch_size": 4, "channels": 8}

    class Config(DetectionConfig):
        """The constants."""

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`.

        Raises:
            BenchError: boxes are missing, the encoder has no maps or cannot take pictures of this
                size, or the loss is no longer finite.
        """

        def make(pyramid: Pyramid, size: int) -> Detector:
            return PointDetector(pyramid, data.info.num_classes, size)

        return measure(make, encoder, data, cfg, "fpn", seed)
