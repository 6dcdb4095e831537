"""Pseudo-Label: train on one's own sure guesses as on labels (Lee 2013, ICML workshop)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.api import Batch, Labels, Step
from bench.nn.semi_supervised import (
    SMALL,
    TOY,
    SemiSupervised,
    SemiSupervisedConfig,
    confident,
    labeled_view,
)


class PseudoLabel(SemiSupervised):
    """Cross-entropy to the likeliest class, where it is likely enough; its weight ramps up.

    The guess and the loss are of the same view: what is learned is to be surer still.
    """

    deviations = (
        "unlabelled pictures count in batch norm, where USB leaves them out of its statistics",
        "the averaged weights take plain means of all steps at first",
    )
    recipes = {"small": SMALL, "toy": {**SMALL, **TOY}}

    class Config(SemiSupervisedConfig):
        """USB's CIFAR-10 settings: Lee has no threshold, and a perceptron for MNIST."""

        epochs: int = 1342  # 2^20 steps of 50,000 pictures
        batch_size: int = 64
        labels: Labels = 25
        threshold: float = Field(0.95, ge=0, lt=1)
        weight: float = Field(1.0, ge=0)
        ramp: float = Field(0.4, ge=0, le=1)  # share of training until the weight is full

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy to labels and, weighted, to sure guesses."""
        labeled, weak = self.logits(labeled_view(batch), batch.view("weak"))
        probabilities, guess, mask = confident(weak, self.cfg.threshold)
        self.watch(step, probabilities, weak, mask)
        own = (mask * F.cross_entropy(weak, guess, reduction="none")).mean()
        weight = self.cfg.weight * min(1.0, step.progress / max(self.cfg.ramp, 1e-9))
        loss: Tensor = self.supervised(batch, labeled, step) + weight * own
        return loss
