"""Detection as on PASCAL VOC: Faster R-CNN on the encoder, fine-tuned or frozen; COCO's AP50."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt

from bench.api import Encoder, EvalData, Metric, Protocol, Scores
from bench.eval.detection import DetectionConfig, measure
from bench.eval.detectors import Detector, FasterRCNN, Neck, Pyramid


class VocDetection(Protocol):
    """AP50 of Faster R-CNN (arXiv:1506.01497) with the encoder as its backbone.

    The detector is torchvision's, on one map of a stride of at most 16 px (`neck` "c4") or on a
    pyramid of all ("fpn", arXiv:1612.03144); its heads are new, and a batch norm comes before them.
    The encoder is fine-tuned as a whole with its batch norm, as MoCo does (arXiv:1911.05722, A), or
    left as it is (`frozen`). Nothing is chosen, so train + val are trained on, by a fixed schedule
    of SGD; mirroring is the only augmentation. Difficult objects are not learnt (regions on them
    are ground), and in scores count neither way. Pictures are seen whole, squashed to a square.
    `AP`, `AP75` and VOC's own mAP (11 points as in 2007, and the area) are recorded too, all of
    them over objects of every size.
    """

    metric = Metric("AP50")
    requires = frozenset({"boxes"})
    toy = {"steps": 2, "batch_size": 4, "channels": 8, "width": 16, "proposals": 10, "rois": 8}

    class Config(DetectionConfig):
        """The constants: a budget for one CPU core.

        The published setting on VOC is size=800, steps=24000, channels=256, width=1024, rois=512,
        proposals=1000.
        """

        neck: Neck = "fpn"
        rois: PositiveInt = 32  # regions to learn from, per picture; time is linear in them
        proposals: PositiveInt = 100  # regions that the box head scores, per picture
        width: PositiveInt = 256  # of the box head's two layers

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`.

        Raises:
            BenchError: boxes are missing, the encoder has no maps or cannot take pictures of this
                size, or the loss is no longer finite.
        """

        def make(pyramid: Pyramid, size: int) -> Detector:
            regions = {"rois": cfg.rois, "proposals": cfg.proposals, "width": cfg.width}
            return FasterRCNN(pyramid, data.info.num_classes, size, **regions)

        return measure(make, encoder, data, cfg, cfg.neck, seed)
