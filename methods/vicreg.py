"""VICReg: variance, invariance and covariance, each a term (Bardes 2021, arXiv:2105.04906).

`variance`, by how much the standard deviation of a dimension falls short of 1, and `embedding_std`
tell of a collapse; `match_top1` (%; chance 100 / (2 batch - 1)) how often the other view is the
nearest in the batch.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.api import Batch, Step
from bench.kernels import covariance_penalty
from bench.kernels.precision import in_full
from bench.nn.joint_embedding import SMALL, JointEmbedding, JointEmbeddingConfig


class VICReg(JointEmbedding):
    """Views must agree, every dimension must vary over the batch, and no two do so together."""

    recipes = {"small": SMALL}

    class Config(JointEmbeddingConfig):
        """The paper's 1000 epochs; else defaults of the official code, facebookresearch/vicreg."""

        epochs: int = 1000
        invariance: float = Field(25.0, ge=0)  # weights of the terms: lambda,
        variance: float = Field(25.0, ge=0)  # mu
        covariance: float = Field(1.0, ge=0)  # and nu
        final_lr: float = Field(0.001, ge=0, le=1)  # at the cosine's end, share of lr

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The weighted sum of the three terms; only the invariance compares the views."""
        one, two = self.embed(batch.view("one")), self.embed(batch.view("two"))
        self.watch(step, one, two)
        cfg = self.cfg
        invariance = squared_distance(one, two)
        variance = (missing_std(one) + missing_std(two)) / 2
        covariance = covariance_penalty(one) + covariance_penalty(two)
        step.log("invariance", invariance)
        step.log("variance", variance)
        step.log("covariance", covariance)
        loss: Tensor = (
            cfg.invariance * invariance + cfg.variance * variance + cfg.covariance * covariance
        )
        return loss


@in_full
def squared_distance(one: Tensor, two: Tensor) -> Tensor:
    """Mean squared difference of `[N, D]` embeddings, over pictures and dimensions.

    The paper's equation 5 sums over the dimensions; the official code's weights are for the mean.
    """
    loss: Tensor = F.mse_loss(one, two)
    return loss


@in_full
def missing_std(x: Tensor) -> Tensor:
    """How much the standard deviation of a dimension of `[N, D]` falls short of 1, on average.

    The 1e-4 keeps the root's gradient finite; the variance is over N - 1.
    """
    loss: Tensor = F.relu(1 - (x.var(0) + 1e-4).sqrt()).mean()
    return loss
