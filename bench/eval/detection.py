"""How detection protocols train a detector and score what it finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from bench.api import Encoder, EvalData, EvalSplit, OptimSpec, Protocol, Scores, View
from bench.data.dataset import Boxes
from bench.eval.detection_metrics import Detections, detection_metrics
from bench.eval.detectors import (
    Detector,
    Neck,
    Pyramid,
    boxes_at,
    detection_view,
    flipped,
    picture_size,
    to_learn,
)
from bench.eval.training import Part, train, trainable
from bench.rng import fold

BATCH = 64  # pictures at once, in which objects are looked for


class DetectionConfig(Protocol.Config):
    """What all detection protocols set; MoCo's constants (arXiv:1911.05722) are of detectron2."""

    frozen: bool = False  # train the head alone
    size: PositiveInt | None = None  # px; by default 2 to 4 times what the encoder was made for
    channels: PositiveInt = 64  # of the pyramid; 256 in the papers
    steps: PositiveInt = 600
    batch_size: PositiveInt = 16  # MoCo's
    lr: PositiveFloat = 0.02  # MoCo's
    warmup_steps: NonNegativeInt = 100  # MoCo's


def measure(
    make: Callable[[Pyramid, int], Detector],
    encoder: Encoder,
    data: EvalData,
    cfg: Any,
    neck: Neck,
    seed: int,
) -> Scores:
    """Train a detector on train + val by a fixed schedule, then score what it finds on test.

    Args:
        make: (pyramid, side of the pictures) to the detector.
        encoder: what it stands on; a copy is trained unless `cfg.frozen`.
        data: pictures with boxes.
        cfg: a `DetectionConfig`.
        neck: which of the encoder's maps it sees.
        seed: names every draw.

    Raises:
        BenchError: boxes are missing, the encoder has no maps or cannot take pictures of this
            size, or the loss is no longer finite.
    """
    learnt = data.full
    size = cfg.size or picture_size(data.info, learnt.split.images.size[0])
    view, device = detection_view(data.info, size), learnt.device
    boxes = to_learn(boxes_at(learnt, size), device)
    # torchvision draws weights, anchors and regions from the global generator.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(fold(seed, "detection"))
        trunk = encoder if cfg.frozen else trainable(encoder)
        pyramid = Pyramid(trunk, neck, size, cfg.channels, frozen=cfg.frozen)
        detector = make(pyramid, size).to(device).train()

        def loss(x: Tensor, index: Tensor, rng: torch.Generator) -> Tensor:
            return detector.loss(*flipped(x, [boxes[i] for i in index.tolist()], rng))

        spec = OptimSpec(
            lr=cfg.lr,
            weight_decay=1e-4,
            decay_bias_and_norm=False,  # detectron2 has 1e-4 too, and spares the norms alone
            schedule="step",
            milestones=(0.75, 11 / 12),  # MoCo's: 18,000 and 22,000 of 24,000
            gammas=(0.1, 0.1),
            warmup_epochs=cfg.warmup_steps,
            clip_grad_norm=10.0,
        )
        train(
            learnt,
            loss,
            [Part(parameters, spec) for parameters in detector.parts() if parameters],
            steps=cfg.steps,
            batch_size=cfg.batch_size,
            seed=seed,
            view=view,
            epoch=1,  # warm-up is counted in steps
        )
    test = data.read_test()
    found, truth = find(detector.eval(), test, view, boxes_at(test, size))
    return Scores(
        metrics=detection_metrics(found, truth, data.info.num_classes),
        selected={
            "selected_on": "nothing: the schedule is fixed, and train + val are trained on",
            "size": size,
            "layers": pyramid.layers,
            "sides": pyramid.sides,
        },
    )


def find(
    detector: Detector, split: EvalSplit, view: View, boxes: list[Boxes]
) -> tuple[list[Detections], list[Boxes]]:
    """What `detector` finds in each picture that can be decoded, and the `boxes` it has."""
    found: list[Detections] = []
    truth: list[Boxes] = []
    for index, x in split.batches(torch.arange(len(boxes)).split(BATCH), view):
        found += detector.detect(x)
        truth += [boxes[i] for i in index.tolist()]
    return found, truth
