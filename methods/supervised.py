"""Supervised training on all labels: the ceiling that self-supervised methods are held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Classifier, Method, MethodConfig, OptimSpec, Step, View
from bench.data.ops import HorizontalFlip, Normalize, RandomCrop
from bench.nn.classifier import WithHead


class Supervised(Method):
    """Cross-entropy to the class labels, with RotNet's settings so that the two compare."""

    needs = frozenset({"labels"})
    deviations = ("trained without the validation pictures, on which protocols make their choices",)
    # 10,000 pictures and the small backbone: about a minute on two CPU cores.
    recipes = {"small": {"epochs": 40, "schedule": "cosine"}}

    class Config(MethodConfig):
        """The supervised NIN of Gidaris 2018 (arXiv:1803.07728), official code."""

        epochs: int = 200
        batch_size: int = 128
        lr: float = 0.1
        momentum: float = 0.9  # Nesterov
        weight_decay: float = 5e-4
        schedule: Literal["step", "cosine"] = (
            "step"  # 0.1 -> 0.02 -> 0.004 -> 0.0008 at epochs 60, 120, 160 of 200
        )

    def build(self) -> None:
        """One linear layer over the classes."""
        self.head = nn.Linear(self.backbone.dim, self.data.num_classes)

    def views(self) -> Sequence[View]:
        """Padding crop and flip."""
        crop = RandomCrop(padding=self.data.size // 8)
        normalize = Normalize(mean=self.data.mean, std=self.data.std)
        return (View("crop", (crop, HorizontalFlip(p=0.5), normalize)),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy over the classes."""
        assert batch.label is not None
        logits = self.head(self.backbone(batch.view("crop")))
        step.log("train_top1", 100 * (logits.argmax(1) == batch.label).float().mean())
        loss: Tensor = F.cross_entropy(logits, batch.label)
        return loss

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

    def encoder(self) -> Classifier:
        """The backbone, with the head for who asks for its classes."""
        return WithHead(self.backbone, self.head)
