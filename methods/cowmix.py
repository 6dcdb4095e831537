"""CowMix: mixtures of two pictures, taken for a mixture of both (French 2020, arXiv:2003.12022)."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bench.api import Batch, Labels, Step
from bench.nn.cow_mask import cow_masks
from bench.nn.semi_supervised import (
    SMALL,
    TOY,
    SemiSupervised,
    SemiSupervisedConfig,
    in_full,
    labeled_view,
)


class CowMix(SemiSupervised):
    """A Mean Teacher whose student sees two unlabelled pictures mixed by an irregular mask.

    It is taught the teacher's predictions for the two, mixed by the mask's share. The loss counts
    by how many of the batch's mixtures the teacher is sure of.
    """

    milestones, gammas = (0.4, 0.8), (0.2, 0.2)
    recipes = {"small": {**SMALL, "weight": 10.0}, "toy": {**SMALL, **TOY}}

    class Config(SemiSupervisedConfig):
        """CIFAR-10 with 1,000 labels: defaults of the official code, milking_cowmask."""

        epochs: int = 300
        batch_size: int = 256
        labels: Labels = 100
        labeled_batch_size: int = Field(256, gt=0)
        lr: float = Field(0.05, ge=0)
        schedule: Literal["cosine", "step", "constant"] = "step"
        average_momentum: float = Field(0.97, gt=0, lt=1)  # the teacher's
        weight: float = Field(30.0, ge=0)
        threshold: float = Field(0.6, ge=0, lt=1)
        sigma: tuple[float, float] = (4.0, 16.0)  # of the mask's blur, px of 32
        share: tuple[float, float] = (0.2, 0.8)  # of the second picture

        @model_validator(mode="after")
        def _ranges(self) -> Self:
            if not 0 < self.sigma[0] <= self.sigma[1]:
                raise ValueError("sigma is a range of lengths above 0, the shorter one first")
            if not 0 < self.share[0] <= self.share[1] < 1:
                raise ValueError("share is a range within (0, 1), the smaller one first")
            return self

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy to labels, and the squared distance to the mixed predictions."""
        cfg, x = self.cfg, batch.view("weak")
        mask = cow_masks(len(x), x.shape[-1], step.rng, sigma=cfg.sigma, share=cfg.share)
        share = mask.mean((1, 2, 3)).to(x.dtype)
        # In a pass each, as in the code: batch norm sees labelled pictures or mixtures.
        (labeled,) = self.logits(labeled_view(batch))
        (mixed,) = self.logits(torch.lerp(x, x.roll(-1, 0), mask.to(x.dtype)))
        with torch.no_grad():
            told = in_full(self.encoder().eval().classify(x)).softmax(1)
            taught = torch.lerp(told, told.roll(-1, 0), share[:, None])
            confidence = told.amax(1)
            sure = torch.lerp(confidence, confidence.roll(-1, 0), share) > cfg.threshold
        self.watch(step, taught, mixed, sure)
        distance = (mixed.softmax(1) - taught).square().sum(1).mean()
        consistency = sure.to(x.dtype).mean() * distance
        loss: Tensor = self.supervised(batch, labeled, step) + cfg.weight * consistency
        return loss
