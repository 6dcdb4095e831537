"""S4L: labels for few pictures, rotations for all (Zhai 2019, arXiv:1905.03670)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Labels, Step
from bench.nn.rotations import rotations
from bench.nn.semi_supervised import (
    SMALL,
    TOY,
    SemiSupervised,
    SemiSupervisedConfig,
    in_full,
    labeled_view,
    labels_of,
)
from bench.nn.virtual_adversarial import entropy, virtual_adversarial

ANGLES = (0, 90, 180, 270)


class S4L(SemiSupervised):
    """Every picture is seen at four angles; one classifier tells the angle, one the class.

    Labelled pictures keep their class at every angle. The "moam" recipe is the first step of the
    paper's Mix Of All Models: VAT and entropy on the unturned pictures in addition.
    """

    deviations = (
        "crops are padded by an eighth of the side; the paper's are Inception crops of 224 px",
        "no steps 2 and 3 of MOAM, which retrain on pseudo-labels and fine-tune",
    )
    milestones, gammas = (0.7, 0.8, 0.9), (0.1, 0.1, 0.1)
    recipes = {
        "moam": {
            "batch_size": 128,
            "labeled_batch_size": 128,
            "lr": 0.1,
            "weight_decay": 2e-4,
            "supervised_weight": 0.3,
            "vat_weight": 0.3,
            "entropy_weight": 0.3,
            "epsilon": 32 * 32 / 224,
            "average_momentum": 0.9999,
        },
        "small": {**SMALL, "batch_size": 64},  # four angles of each
        "toy": {**SMALL, **TOY, "vat_weight": 0.3, "entropy_weight": 0.3},
    }

    class Config(SemiSupervisedConfig):
        """S4L-Rotation on a tenth of ImageNet, official code, config/s4l_rotation.sh."""

        epochs: int = 200
        batch_size: int = 256
        labels: Labels = 0.1
        labeled_batch_size: int = Field(256, gt=0)
        weight_decay: float = Field(1e-3, ge=0)
        schedule: Literal["cosine", "step", "constant"] = "step"
        warmup_epochs: float = Field(5.0, ge=0)
        average_momentum: float = Field(0.0, ge=0, lt=1)
        supervised_weight: float = Field(1.0, ge=0)
        rotation_weight: float = Field(1.0, ge=0)
        vat_weight: float = Field(0.0, ge=0)  # 0.5 with epsilon 40 in config/vat.sh
        entropy_weight: float = Field(0.0, ge=0)
        epsilon: float = Field(40 * 32 / 224, gt=0)  # L2 norm at 32 px: 40 at 224
        xi: float = Field(1.0, gt=0)

    def build(self) -> None:
        """Also a linear layer over the angles."""
        super().build()
        self.rotation_head = nn.Linear(self.backbone.dim, len(ANGLES))

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The weighted sum of the class's, the angle's and, if asked for, VAT's losses."""
        cfg, label = self.cfg, labels_of(batch)
        x = torch.cat([labeled_view(batch), batch.view("weak")])
        features = self.backbone(rotations(x, ANGLES))
        angle = torch.arange(len(ANGLES), device=x.device).repeat_interleave(len(x))
        turned = in_full(self.rotation_head(features))
        step.log("pretext_top1", 100 * (turned.argmax(1) == angle).float().mean())
        logits = in_full(self.head(features)).view(len(ANGLES), len(x), -1)
        of_labeled = logits[:, : len(label)].flatten(0, 1)
        upright, unlabeled = logits[0], logits[0, len(label) :]
        self.watch(step, unlabeled.detach().softmax(1), unlabeled)
        step.log("labeled_top1", 100 * (upright[: len(label)].argmax(1) == label).float().mean())
        loss: Tensor = cfg.supervised_weight * F.cross_entropy(
            of_labeled, label.repeat(len(ANGLES))
        )
        loss = loss + cfg.rotation_weight * F.cross_entropy(turned, angle)
        if cfg.vat_weight:
            lengths = {"epsilon": cfg.epsilon, "xi": cfg.xi}
            adversarial = virtual_adversarial(self.student, x, step.rng, **lengths)
            loss = loss + cfg.vat_weight * adversarial
        if cfg.entropy_weight:
            loss = loss + cfg.entropy_weight * entropy(unlabeled)
        return loss
