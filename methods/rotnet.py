"""RotNet: predict by which angle a picture was turned (Gidaris 2018, arXiv:1803.07728)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import HorizontalFlip, Normalize, RandomCrop
from bench.nn.rotations import rotations


class RotNet(Method):
    """Every picture is seen at all angles in one batch; the angles share its crop and flip."""

    deviations = (
        "the crop is padded by an eighth of the side (the paper's 4 at 32 px), at every size",
        "eight angles: one circular mask for all classes; the paper does not say how it fills",
    )
    recipes = {
        # 10,000 pictures and the small backbone: about a minute on two CPU cores.
        "small": {"epochs": 10, "batch_size": 32, "schedule": "cosine"},
    }

    class Config(MethodConfig):
        """CIFAR-10 settings of the official code, gidariss/FeatureLearningRotNet, NIN 4 blocks."""

        epochs: int = 200
        batch_size: int = 128  # pictures; times the angles is what the network sees
        lr: float = 0.1
        momentum: float = 0.9  # Nesterov
        weight_decay: float = 5e-4
        schedule: Literal["step", "cosine"] = (
            "step"  # 0.1 -> 0.02 -> 0.004 -> 0.0008 at epochs 60, 120, 160 of 200
        )
        angles: tuple[int, ...] = (0, 90, 180, 270)  # degrees counter-clockwise

        @field_validator("angles")
        @classmethod
        def _distinct(cls, angles: tuple[int, ...]) -> tuple[int, ...]:
            if len(angles) < 2 or len(set(angles)) < len(angles):
                raise ValueError("give at least two different angles")
            return angles

    def build(self) -> None:
        """One linear layer over the angles."""
        self.head = nn.Linear(self.backbone.dim, len(self.cfg.angles))

    def views(self) -> Sequence[View]:
        """Padding crop and flip, once per picture."""
        crop = RandomCrop(padding=self.data.size // 8)
        normalize = Normalize(mean=self.data.mean, std=self.data.std)
        return (View("crop", (crop, HorizontalFlip(p=0.5), normalize)),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy over the angles."""
        x = rotations(batch.view("crop"), self.cfg.angles)
        angle = torch.arange(len(self.cfg.angles), device=x.device).repeat_interleave(len(batch))
        logits = self.head(self.backbone(x))
        step.log("pretext_top1", 100 * (logits.argmax(1) == angle).float().mean())
        loss: Tensor = F.cross_entropy(logits, angle)
        return loss

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures at each angle, with the angle that the network predicts."""
        turned = rotations(batch.view("crop")[:8], self.cfg.angles)
        predicted = self.head(self.backbone(turned)).argmax(1).chunk(len(self.cfg.angles))
        return [
            Panel(
                f"turned by {angle}°",
                self.data.rgb(tiles),
                tuple(f"{self.cfg.angles[guess]}°" for guess in guesses.tolist()),
                tuple((guesses == number).tolist()),
            )
            for number, (angle, tiles, guesses) in enumerate(
                zip(self.cfg.angles, turned.chunk(len(self.cfg.angles)), predicted, strict=True)
            )
        ]

    def optim(self, phase: str) -> OptimSpec:
        """SGD with Nesterov momentum and three drops by five."""
        return OptimSpec(
            lr=self.cfg.lr,
            momentum=self.cfg.momentum,
            nesterov=True,
            weight_decay=self.cfg.weight_decay,
            schedule=self.cfg.schedule,
            milestones=(0.3, 0.6, 0.8),
            gammas=(0.2, 0.2, 0.2),
        )
