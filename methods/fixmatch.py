"""FixMatch: a sure guess on a weak view labels the strong one (Sohn 2020, arXiv:2001.07685)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.api import Batch, Step, View
from bench.nn.semi_supervised import (
    GENTLE,
    SMALL,
    TOY,
    SemiSupervised,
    StrongConfig,
    confident,
    labeled_view,
)


class FixMatch(SemiSupervised):
    """Pseudo-labels from the weak view, where they are sure, for the strong view."""

    deviations = (
        "RandAugment at one magnitude and a hole of one size; the paper draws both anew each time",
        "the rate falls along half a cosine to the paper's last value, not along 7/16 of one",
        "the averaged weights take plain means of all steps at first",
    )
    recipes = {
        # The threshold was found on held-out training pictures.
        "small": {**SMALL, **GENTLE, "threshold": 0.8},
        "toy": {**SMALL, **TOY},
    }

    class Config(StrongConfig):
        """CIFAR-10 settings of the paper's Table 4."""

        epochs: int = 9447  # 2^20 steps of 50,000 pictures
        batch_size: int = 448  # mu = 7 times the labelled ones
        final_lr: float = Field(0.195, ge=0, le=1)  # cos(7 pi / 16)
        threshold: float = Field(0.95, ge=0, lt=1)
        weight: float = Field(1.0, ge=0)

    def views(self) -> Sequence[View]:
        """Also a strong view of unlabelled pictures."""
        return (*super().views(), View("strong", self.strong()))

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy to labels and, on the strong view, to sure guesses on the weak one."""
        labeled, weak, strong = self.logits(
            labeled_view(batch), batch.view("weak"), batch.view("strong")
        )
        probabilities, guess, mask = confident(weak, self.cfg.threshold)
        self.watch(step, probabilities, strong, mask)
        consistency = (mask * F.cross_entropy(strong, guess, reduction="none")).mean()
        loss: Tensor = self.supervised(batch, labeled, step) + self.cfg.weight * consistency
        return loss
