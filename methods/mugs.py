"""Mugs: tells pictures apart, with their neighbours, and by groups (Zhou 2022, arXiv:2203.14415).

Logs each granularity's loss: log(queue + 1) is chance of `instance_loss` and `local_loss`, the log
of the prototypes that of `group_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Backbone, Batch, Panel, Step
from bench.errors import BenchError
from bench.nn.granularity import Projectors, contrast, group, perceptron
from bench.nn.momentum import momentum_copy
from bench.nn.prototypes import watch_targets
from bench.nn.queue import Queue
from bench.nn.regions import region_shape, regions
from bench.nn.self_distillation import SMALL, SelfDistillation, SelfDistillationConfig

SMALL_MUGS = {
    **SMALL,
    "prototypes": 512,
    "hidden": 128,
    "prediction_hidden": 128,
    "projection": 64,
    "queue": 2048,
}


class Mugs(SelfDistillation):
    """MoCo's loss on pictures, the same on pictures among their neighbours, and DINO's loss."""

    deviations = (
        "student and teacher see the same crops, augmented as DINO's; in the paper the student has "
        "crops of its own, half of them with RandAugment and erasing",
        "tokens are averaged over patches, after the last norm; the official query is the mean "
        "over all tokens before it",
        "prototypes have unit length; the official ViT-S learns it",
        "the patch embedding learns as fast as the rest; the official one at a fifth of the rate",
        "no stochastic depth",
        "crops are resampled bilinearly, not bicubically",
    )
    recipes = {"small": SMALL_MUGS, "toy": {**SMALL_MUGS, "queue": 64}}

    class Config(SelfDistillationConfig):
        """sail-sg/mugs: main.py, and pretraining.sh's 100 epochs of ViT-S; the rest is DINO's."""

        batch_size: int = 512  # 8 GPUs of 64
        crop: tuple[float, float] = (0.25, 1.0)
        local_crops: int = Field(10, ge=0)
        local_crop: tuple[float, float] = (0.05, 0.25)
        temperature: float = Field(0.2, gt=0)  # of both contrastive losses
        queue: int = 65536  # of their keys, and of the tokens that neighbours are looked up in
        neighbors: int = Field(8, ge=1)
        projection: int = Field(256, ge=1)
        prediction_hidden: int = Field(4096, ge=1)
        lr: float = 8e-4  # per 256 pictures
        weight_decay_end: float = 0.2

    def build(self) -> None:
        """DINO's parts; projectors and predictors, and the queues.

        Raises:
            BenchError: a queue shorter than the neighbours, or no multiple of two batches.
        """
        super().build()
        cfg = self.cfg
        _, dim = region_shape(self.backbone, self.data.size)
        if cfg.queue < cfg.neighbors:
            raise BenchError(f"no {cfg.neighbors} neighbors in a queue of {cfg.queue}: enlarge it")
        self.projectors = Projectors(
            self.backbone.dim, dim, cfg.hidden, cfg.projection, cfg.neighbors
        )
        self.teacher_projectors = momentum_copy(self.projectors)
        width = (cfg.projection, cfg.prediction_hidden, cfg.projection)
        self.instance_predictor, self.local_predictor = perceptron(*width), perceptron(*width)
        # Two views' keys enter those of the losses in each step, one view's tokens the others.
        self.instance_queue = Queue(cfg.queue, cfg.projection, 2 * cfg.batch_size)
        self.local_queue = Queue(cfg.queue, cfg.projection, 2 * cfg.batch_size)
        self.memory = Queue(cfg.queue, dim, cfg.batch_size)
        self.teacher_memory = Queue(cfg.queue, dim, cfg.batch_size)

    def pairs(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        """DINO's, and the projectors."""
        return (*super().pairs(), (self.teacher_projectors, self.projectors))

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The mean of the three granularities."""
        cfg = self.cfg
        shared = batch.views["global"] + batch.views["solarized"]
        looks = [look(self.backbone, shared)]
        if cfg.local_crops:
            looks.append(look(self.backbone, batch.views["local"]))
        views, tokens = (torch.cat(parts) for parts in zip(*looks, strict=True))
        with torch.no_grad():
            teacher_views, teacher_tokens = look(self.teacher, shared)
            keys = self.teacher_projectors(teacher_views, teacher_tokens, self.teacher_memory.rows)
            targets = self.assign(self.teacher_head(teacher_views), step)
        instance, local = self.projectors(views, tokens, self.memory.rows)
        query = self.instance_predictor(instance)
        logits = self.head(views)
        parts = {
            "instance": contrast(query, keys[0], self.instance_queue.rows, cfg.temperature),
            "local": contrast(
                self.local_predictor(local), keys[1], self.local_queue.rows, cfg.temperature
            ),
            "group": group(logits, targets, cfg.student_temperature),
        }
        self.fresh = (*(key.flatten(0, 1) for key in keys), tokens[0].detach(), teacher_tokens[0])
        for name, value in parts.items():
            step.log(f"{name}_loss", value)
        step.watch(query[0])
        watch_targets(step, targets.view(0), logits[0], cfg.student_temperature)
        return torch.stack(list(parts.values())).mean()

    def after_step(self, step: Step) -> None:
        """The teacher follows; keys and tokens of this step take the place of the oldest."""
        super().after_step(step)
        queues = (self.instance_queue, self.local_queue, self.memory, self.teacher_memory)
        for queue, rows in zip(queues, self.fresh, strict=True):
            queue.push(rows)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Views, and the views of other pictures that the teacher finds most like them."""
        x = batch.views["global"][0]
        rows = F.normalize(look(self.teacher, [x])[1][0], dim=1)
        closeness = (rows[:8] @ rows.T).fill_diagonal_(-1.0)
        near = closeness.topk(min(3, len(x) - 1), dim=1).indices
        panels = [Panel("a view", self.data.rgb(x[:8]))]
        for place, index in enumerate(near.unbind(1), 1):
            panels.append(Panel(f"neighbour {place} of {len(x) - 1}", self.data.rgb(x[index])))
        return panels


def look(network: Backbone, crops: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Of V crops `[N, 3, s, s]`: the views `[V, N, D]`, and the means of regions `[V, N, C]`."""
    views, found = regions(network, torch.cat(list(crops)))
    size = (len(crops), -1)
    return views.unflatten(0, size), found.mean(1).unflatten(0, size)
