"""SimSiam: a predictor and a stopped gradient suffice (Chen and He 2020, arXiv:2011.10566).

Neither negatives nor a momentum network: `embedding_std` near 1 says that it has not collapsed,
and `match_top1` (%; chance 100 / (2 batch - 1)) how often the other view is the nearest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from bench.api import Batch, OptimSpec, Step
from bench.kernels import ema_update
from bench.nn.joint_embedding import (
    SMALL,
    JointEmbedding,
    JointEmbeddingConfig,
    mean_cosine,
)
from bench.nn.mlp import mlp
from bench.nn.momentum import cosine


class SimSiam(JointEmbedding):
    """Each view predicts the other's embedding, which is held fixed meanwhile."""

    recipes = {"small": {**SMALL, "bottleneck": 64}}

    class Config(JointEmbeddingConfig):
        """Defaults of the official code, facebookresearch/simsiam, with --fix-pred-lr."""

        epochs: int = 100
        batch_size: int = Field(512, ge=2)
        crop: tuple[float, float] = (0.2, 1.0)
        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
        blur: float = Field(0.5, ge=0, le=1)
        second_blur: float = Field(0.5, ge=0, le=1)
        solarize: float = Field(0.0, ge=0, le=1)
        hidden: int = Field(2048, ge=1)
        projection: int = Field(2048, ge=1)
        bottleneck: int = Field(512, ge=1)  # of the predictor
        optimizer: Literal["lars", "sgd", "adamw"] = "sgd"
        lr: float = Field(0.05, ge=0)  # per 256 pictures; the predictor's has no schedule
        weight_decay: float = Field(1e-4, ge=0)
        warmup_epochs: float = Field(0, ge=0)

    def build(self) -> None:
        """Projector, and the predictor with its bottleneck."""
        super().build()
        cfg = self.cfg
        self.predictor = mlp(cfg.projection, cfg.bottleneck, cfg.projection)
        self.unmoved: list[Tensor] = []  # weights, from a backward pass to its optimiser step

    def new_projector(self) -> nn.Sequential:
        """Three layers with batch norm after each; the last one's without affine."""
        cfg = self.cfg
        dims = (self.backbone.dim, cfg.hidden, cfg.hidden, cfg.projection)
        return mlp(*dims, last="norm-free")

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Minus the cosine of prediction and embedding, each view predicting the other."""
        one, two = self.embed(batch.view("one")), self.embed(batch.view("two"))
        self.watch(step, one, two)
        forth = mean_cosine(self.predictor(one), two.detach())
        back = mean_cosine(self.predictor(two), one.detach())
        return -(forth + back) / 2

    def optim(self, phase: str) -> OptimSpec:
        """The predictor's: a constant rate, and weight decay on all parameters."""
        spec = super().optim(phase)
        return spec.model_copy(update={"schedule": "constant", "decay_bias_and_norm": True})

    def scheduled(self) -> Iterator[nn.Parameter]:
        """The parameters whose learning rate falls along a cosine: all but the predictor's."""
        yield from self.backbone.parameters()
        yield from self.projector.parameters()

    def after_backward(self, step: Step) -> None:
        """Remember where the step starts."""
        self.unmoved = [parameter.detach().clone() for parameter in self.scheduled()]

    def after_step(self, step: Step) -> None:
        """Shorten the step of all but the predictor to what the cosine leaves of the rate.

        An SGD step is proportional to its rate, so this is as good as a rate of their own. A
        warm-up multiplies it: the cosine runs over all of training.
        """
        share = cosine(1.0, self.cfg.final_lr, step.progress)
        ema_update(self.scheduled(), self.unmoved, share)
        self.unmoved = []
