"""BYOL: predict a momentum network's embedding of the other view (Grill 2020, arXiv:2006.07733).

There are no negatives: the predictor and the slow target are what keeps it from collapsing.
`embedding_std` near 1 says that it has not, and `match_top1` (%; chance 100 / (2 batch - 1)) how
often online and target embedding of a picture's two views are nearest in the batch.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.api import Batch, Step
from bench.nn.joint_embedding import (
    SMALL,
    JointEmbedding,
    JointEmbeddingConfig,
    mean_cosine,
)
from bench.nn.mlp import mlp
from bench.nn.momentum import cosine, follow, momentum_copy


class BYOL(JointEmbedding):
    """An online network with a predictor, and a target network that follows it slowly."""

    recipes = {"small": {**SMALL, "teacher_momentum": 0.95}}

    class Config(JointEmbeddingConfig):
        """The paper's 1000 epochs of ImageNet, section 3.2.

        Its 300 epochs take lr 0.3, teacher_momentum 0.99 and weight_decay 1e-6 (from memory).
        """

        epochs: int = 1000
        batch_size: int = Field(4096, ge=2)
        hidden: int = Field(4096, ge=1)  # of projector and predictor
        projection: int = Field(256, ge=1)
        teacher_momentum: float = Field(0.996, ge=0, le=1)  # of the target, to 1 by a cosine
        weight_decay: float = Field(1.5e-6, ge=0)

    def build(self) -> None:
        """Projector and predictor, and the target network."""
        super().build()
        cfg = self.cfg
        self.predictor = mlp(cfg.projection, cfg.hidden, cfg.projection, bias=False)
        self.target = momentum_copy(nn.Sequential(self.backbone, self.projector))

    def new_projector(self) -> nn.Sequential:
        """Two layers; the last without bias or batch norm."""
        return mlp(self.backbone.dim, self.cfg.hidden, self.cfg.projection, bias=False)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """2 - 2 cos of prediction and target, each view predicting the other."""
        views = batch.view("one"), batch.view("two")
        one, two = (self.embed(view) for view in views)
        with torch.no_grad():
            target_one, target_two = (self.target(view) for view in views)
        self.watch(step, one, target_two)
        forth = mean_cosine(self.predictor(one), target_two)
        back = mean_cosine(self.predictor(two), target_one)
        return 4 - 2 * (forth + back)

    def after_step(self, step: Step) -> None:
        """The target follows, ever more slowly."""
        momentum = cosine(self.cfg.teacher_momentum, 1.0, step.progress)
        follow(self.target, nn.Sequential(self.backbone, self.projector), momentum)
