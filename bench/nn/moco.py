"""What MoCo's first two versions share: a queue of negatives, and a key encoder that moves slowly.

A key stays comparable with the queries while it waits in the queue only if its encoder has hardly
moved since; and queries and keys must not meet in one batch norm, whose statistics give them away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, OptimSpec, Panel, Step, View
from bench.data.augment import Augmented
from bench.kernels import queue_infonce
from bench.kernels.precision import in_full
from bench.nn import memory
from bench.nn.mlp import mlp
from bench.nn.momentum import follow, momentum_copy
from bench.nn.queue import Queue
from bench.nn.view_pairs import TILES, pair_panels


class MoCoConfig(Augmented):
    """Settings on ImageNet, arXiv:1911.05722, section 3.3; facebookresearch/moco, main_moco.py."""

    epochs: int = 200
    batch_size: int = Field(256, ge=2)  # batch norm needs two
    queue: int = Field(65536, ge=1)  # a multiple of the batch
    groups: int = Field(8, ge=1)  # GPUs of the paper, each with batch norms of its own
    crop: tuple[float, float] = (0.2, 1.0)
    hidden: int | None = Field(None, ge=1)  # of the head; None: it is one linear layer
    projection: int = Field(128, ge=1)
    temperature: float = Field(0.07, gt=0)
    teacher_momentum: float = Field(0.999, ge=0, le=1)  # of the key encoder, constant
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(0.03, ge=0)  # of 256 pictures
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["step", "cosine"] = "step"  # a tenth at epochs 120 and 160 of 200
    warmup_epochs: float = Field(0, ge=0)

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.batch_size % self.groups or self.batch_size < 2 * self.groups:
            raise ValueError(
                f"groups of at least two pictures must share the batch of {self.batch_size} "
                f"evenly, and {self.groups} do not"
            )
        return self


class MoCo(Method):
    """A query must find the key of the same picture's other view among those of the queue."""

    fresh: Tensor  # this step's keys, between the loss and the queue

    def build(self) -> None:
        """The head, the key encoder and the queue."""
        cfg, dim = self.cfg, self.backbone.dim
        hidden = [] if cfg.hidden is None else [cfg.hidden]
        self.projector = mlp(dim, *hidden, cfg.projection, norm=False)
        self.key_encoder = momentum_copy(self.query_encoder())
        self.queue = Queue(cfg.queue, cfg.projection, cfg.batch_size)

    def query_encoder(self) -> nn.Sequential:
        """Backbone and head, as the key encoder follows them."""
        return nn.Sequential(self.backbone, self.projector)

    def views(self) -> Sequence[View]:
        """Two views of the same distribution: the query's and the key's."""
        return (View("view", self.cfg.ops(self.data), count=2),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """InfoNCE of each query with its key against the queue."""
        for_query, for_key = batch.views["view"]
        query = in_groups(self.query_encoder(), for_query, self.cfg.groups)
        self.fresh = self.keys(for_key, step.rng)
        step.watch(query)
        step.log("match_top1", match_top1(query, self.fresh, self.queue.rows))
        return queue_infonce(query, self.fresh, self.queue.rows, self.cfg.temperature)

    @torch.no_grad()
    def keys(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Keys `[B, projection]` of `x`, without gradient, by shuffled batch norm.

        Each group meets other pictures here than in the query encoder, so its statistics do not
        tell which key belongs to which query.
        """
        order = torch.randperm(len(x), generator=rng, device=x.device)
        shuffled = in_groups(self.key_encoder, x[order], self.cfg.groups)
        return shuffled[order.argsort()]

    def after_step(self, step: Step) -> None:
        """The keys replace the oldest of the queue, and the key encoder follows."""
        self.queue.push(self.fresh)
        follow(self.key_encoder, self.query_encoder(), self.cfg.teacher_momentum)

    def optim(self, phase: str) -> OptimSpec:
        """SGD; two drops to a tenth, or a cosine."""
        cfg = self.cfg
        return OptimSpec(
            name=cfg.optimizer,
            lr=cfg.lr,
            base_batch=256,
            momentum=cfg.momentum,
            weight_decay=cfg.weight_decay,
            schedule=cfg.schedule,
            warmup_epochs=cfg.warmup_epochs,
            milestones=(0.6, 0.8),
            gammas=(0.1, 0.1),
        )

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Queries, their keys, and which key of all these pictures is nearest to each query."""
        for_query, for_key = batch.views["view"]
        query, keys = self.query_encoder()(for_query[:TILES]), self.key_encoder(for_key)
        rgb, names = self.data.rgb, ("query", "its key", "keys")
        return pair_panels(rgb(for_query), rgb(for_key), query, keys, names)


def in_groups(network: nn.Module, x: Tensor, groups: int) -> Tensor:
    """`network`'s output for `x`, whose batch norms see an equal share of it at a time."""
    return torch.cat([network(part) for part in x.chunk(groups)])


@torch.no_grad()
@in_full
def match_top1(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    """The share of queries, in %, nearer to their own key than to any in the queue.

    Chance is 100 / (K + 1). Of very large batches, some of the queries are asked.

    Args:
        query: `[N, D]` embeddings.
        key: `[N, D]` of the same pictures.
        queue: `[K, D]` unit vectors.
    """
    asked = memory.watched(len(queue))
    query, key = query[:asked], key[:asked]
    own = F.cosine_similarity(query, key, dim=1)
    others = F.normalize(query, dim=1) @ queue.to(query.dtype).T
    return 100 * (own > others.amax(1)).float().mean()
