"""Supervised training on few labels: the baseline that semi-supervised methods are held against."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bench.api import Batch, Labels, Step, View
from bench.nn.semi_supervised import SMALL, TOY, SemiSupervised, SemiSupervisedConfig, labeled_view


class SupervisedFewLabels(SemiSupervised):
    """Cross-entropy on the labelled pictures, and nothing else: all other pictures go unseen.

    Settings, steps and averaged weights are those of the semi-supervised methods, so that what they
    gain is due to the unlabelled pictures.
    """

    deviations = ("the averaged weights take plain means of all steps at first",)
    recipes = {"small": SMALL, "toy": {**SMALL, **TOY}}

    class Config(SemiSupervisedConfig):
        """USB's CIFAR-10 settings, in which `epochs` and `batch_size` set the number of steps."""

        epochs: int = 1342  # 2^20 steps of 50,000 pictures
        batch_size: int = 64
        labels: Labels = 25

    def views(self) -> Sequence[View]:
        """A weak view of labelled pictures."""
        return (View("labeled", self.weak(), labeled=True),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy to the labels."""
        (logits,) = self.logits(labeled_view(batch))
        return self.supervised(batch, logits, step)
