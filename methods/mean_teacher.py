"""Mean Teacher: agree with one's own average on another view (Tarvainen 2017, arXiv:1703.01780)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from bench.api import Batch, Labels, Step, View
from bench.nn.momentum import follow
from bench.nn.semi_supervised import (
    SMALL,
    TOY,
    SemiSupervised,
    SemiSupervisedConfig,
    in_full,
    ramp_up,
)


class MeanTeacher(SemiSupervised):
    """The squared distance of the student's probabilities and its averaged weights', weighted.

    The teacher sees other crops and flips of the same pictures, labelled and unlabelled.
    """

    deviations = (
        "one classifier; the code's second one, tied by a logit distance cost of 0.01, is left out",
        "no noise but crops and flips, as in the code for residual networks",
    )
    # The weight was found on held-out training pictures.
    recipes = {"small": {**SMALL, "weight": 10.0}, "toy": {**SMALL, **TOY}}

    class Config(SemiSupervisedConfig):
        """Official PyTorch code, CIFAR-10 with 4,000 labels on one GPU; teacher of Shake-Shake."""

        epochs: int = 180
        batch_size: int = 97  # of 128, the rest labelled
        labels: Labels = 400
        labeled_batch_size: int = Field(31, gt=0)
        lr: float = Field(0.05, ge=0)
        weight_decay: float = Field(2e-4, ge=0)
        final_lr: float = Field(0.05, ge=0, le=1)  # the cosine would end at epoch 210
        average_momentum: float = Field(0.97, gt=0, lt=1)  # the teacher's
        weight: float = Field(100.0, ge=0)
        ramp_epochs: float = Field(5.0, ge=0)

    def views(self) -> Sequence[View]:
        """Two weak views of every picture: the student's and the teacher's."""
        return (
            View("labeled", self.weak(), count=2, labeled=True),
            View("weak", self.weak(), count=2),
        )

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy to labels, and the ramped consistency on all pictures."""
        assert batch.labeled is not None
        one, two = (
            torch.cat([labeled, weak])
            for labeled, weak in zip(
                batch.labeled.views["labeled"], batch.views["weak"], strict=True
            )
        )
        (logits,) = self.logits(one)
        with torch.no_grad():
            taught = in_full(self.encoder().classify(two)).softmax(1)
        self.watch(step, taught, logits)
        consistency = (logits.softmax(1) - taught).square().mean()
        epochs = step.index * step.epochs / max(step.total, 1)
        weight = self.cfg.weight * ramp_up(epochs / max(self.cfg.ramp_epochs, 1e-9))
        labeled = logits[: len(batch.labeled)]
        loss: Tensor = self.supervised(batch, labeled, step) + weight * consistency
        return loss

    def after_step(self, step: Step) -> None:
        """The teacher's weights follow; its batch norms have seen its own views."""
        assert self.average is not None
        follow(self.average, self.student, self.average_share(step))
