"""UDA: strong views must be taken for what weak ones are (Xie 2019, arXiv:1904.12848)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.api import Batch, Labels, Step, View
from bench.nn.semi_supervised import (
    GENTLE,
    SMALL,
    TOY,
    SemiSupervised,
    StrongConfig,
    confident,
    divergence,
    labeled_view,
    labels_of,
)


class UDA(SemiSupervised):
    """KL divergence to the sharpened prediction of the weak view, where that is sure.

    Training signal annealing leaves out labelled pictures that are already learned; how surely
    they must be known for that rises over training.
    """

    deviations = (
        "RandAugment at one magnitude and a hole of one size; the paper draws the magnitude anew",
    )
    recipes = {"small": {**SMALL, **GENTLE}, "toy": {**SMALL, **TOY}}

    class Config(StrongConfig):
        """CIFAR-10 settings of the official code's run_cifar10_gpu.sh."""

        epochs: int = 4480  # 500,000 steps of 50,000 pictures
        batch_size: int = 448  # 7 times the labelled ones
        labels: Labels = 400  # of each class; 25, 50, 100 and 200 too
        final_lr: float = Field(0.004, ge=0, le=1)
        warmup_epochs: float = Field(179.0, ge=0)  # 20,000 steps
        average_momentum: float = Field(0.0, ge=0, lt=1)  # the code keeps no average
        threshold: float = Field(0.8, ge=0, lt=1)
        temperature: float = Field(0.4, gt=0)  # of the weak view's prediction
        weight: float = Field(1.0, ge=0)
        # Annealing; the script has none, the paper's ablation is best with "linear" (from memory).
        tsa: Literal["none", "linear", "log", "exp"] = "none"

    def views(self) -> Sequence[View]:
        """Also a strong view of unlabelled pictures."""
        return (*super().views(), View("strong", self.strong()))

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy to labels and consistency of the two views."""
        labeled, weak, strong = self.logits(
            labeled_view(batch), batch.view("weak"), batch.view("strong")
        )
        _, _, mask = confident(weak, self.cfg.threshold)
        target = (weak.detach() / self.cfg.temperature).softmax(1)
        self.watch(step, target, strong, mask)
        consistency = (mask * divergence(target, strong)).mean()
        loss: Tensor = self.supervised(batch, labeled, step) + self.cfg.weight * consistency
        return loss

    def supervised(self, batch: Batch, logits: Tensor, step: Step) -> Tensor:
        """Cross-entropy, the mean over labelled pictures that are not yet known too surely."""
        plain = super().supervised(batch, logits, step)
        if self.cfg.tsa == "none":
            return plain
        losses = F.cross_entropy(logits, labels_of(batch), reduction="none")
        limit = tsa_limit(self.cfg.tsa, step.progress, self.data.num_classes)
        kept = (losses.detach() >= -math.log(limit)).to(losses.dtype)
        step.log("kept", 100 * kept.mean())
        return (kept * losses).sum() / kept.sum().clamp_min(1)


def tsa_limit(schedule: str, progress: float, classes: int) -> float:
    """The probability of the right class above which a labelled picture is left out.

    It rises from 1 / `classes` at `progress` 0 to 1 at 1: evenly ("linear"), early ("log") or late
    ("exp").
    """
    share = {
        "linear": progress,
        "log": 1 - math.exp(-5 * progress),
        "exp": math.exp(5 * (progress - 1)),
    }[schedule]
    return 1 / classes + share * (1 - 1 / classes)
