"""Barlow Twins: cross-correlation of two views -> identity (Zbontar 2021, arXiv:2103.03230).

`embedding_std` near 1 says that it has not collapsed, and `match_top1` (%; chance
100 / (2 batch - 1)) how often the other view is the nearest in the batch.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from bench.api import Batch, Step
from bench.kernels import barlow_twins
from bench.nn.joint_embedding import SMALL, JointEmbedding, JointEmbeddingConfig


class BarlowTwins(JointEmbedding):
    """Each dimension must agree between the views, and tell what no other dimension does."""

    recipes = {"small": {**SMALL, "bias_lr": SMALL["lr"]}}

    class Config(JointEmbeddingConfig):
        """Defaults of the official code, facebookresearch/barlowtwins."""

        epochs: int = 1000
        off_diagonal: float = Field(0.0051, ge=0)  # lambda
        bias_lr: float = Field(0.0048, ge=0)  # per 256, of biases and batch norms; not of AdamW
        final_lr: float = Field(0.001, ge=0, le=1)  # at the cosine's end, share of lr
        weight_decay: float = Field(1e-6, ge=0)  # the paper's text: 1.5e-6 (from memory)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Sum of (1 - C_ii)^2 + lambda * sum over i != j of C_ij^2."""
        one, two = self.embed(batch.view("one")), self.embed(batch.view("two"))
        self.watch(step, one, two)
        return barlow_twins(one, two, self.cfg.off_diagonal)

    def after_backward(self, step: Step) -> None:
        """Give biases and batch norms a learning rate of their own.

        LARS neither decays nor adapts them, so their step is proportional to gradient and rate.
        """
        if self.cfg.lr > 0:
            grads = [p.grad for p in self.parameters() if p.ndim == 1 and p.grad is not None]
            torch._foreach_mul_(grads, self.cfg.bias_lr / self.cfg.lr)
