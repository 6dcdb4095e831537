"""Tracking: a patch is close to itself one frame on, far from others (Wang 2015, arXiv:1505.00687).

`pretext_top1` is the share in % of patches whose tracked patch is nearer than every other patch of
the batch; chance is 100 / (2 * batch_size - 1). `shift` is how far patches were tracked, pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, MethodConfig, Op, OptimSpec, Panel, Step, View
from bench.data.ops import (
    ColorJitter,
    Grayscale,
    HorizontalFlip,
    Normalize,
    RandomResizedCrop,
)
from bench.data.views import render
from bench.errors import BenchError
from bench.nn.patch_tracker import most_moving, track, windows

SMALLEST = 8  # px: side of a patch
BARRED = 4.0  # added to a pair's own distances, which are at most 2


class Tracking(Method):
    """A Siamese triplet network on patches that are tracked from one frame to the next.

    Without `augment`, two frames of `scenes` are so alike that colours and edges solve the task
    (97 %), and probes find less than in an untrained network.
    """

    needs = frozenset({"frames"})
    deviations = (
        "a patch is where the two frames differ most, not where most SURF points move; none is "
        "dropped, though the paper drops still patches and moving cameras",
        "a patch is tracked over one frame, by normalised cross-correlation, not over 30 by KCF",
        "patches are cut from frames at their stored size and enlarged to it",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 32,
            "optimizer": "adam",
            "lr": 1e-3,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "margin": 0.1,  # with wider ones, mined negatives make all embeddings collapse
            "hard": 0.5,
            "random_until": 0.2,
            "hidden": 512,
            "embedding": 128,
            "patch": 0.75,
            "augment": True,
        }
    }

    class Config(MethodConfig):
        """Settings of the official code, xiaolonw/caffe-video_triplet, but where noted."""

        epochs: int = 4  # 400,000 iterations over 8 million patches
        batch_size: int = 40  # pairs: 80 patches
        optimizer: Literal["sgd", "adam"] = "sgd"
        lr: float = 1e-3  # a tenth after every quarter of training
        momentum: float = 0.9
        weight_decay: float = 5e-4
        schedule: Literal["step", "cosine"] = "step"
        margin: float = Field(0.5, gt=0)  # the paper's; the official code has 1
        negatives: int = Field(4, ge=1)  # for each patch
        hard: float = Field(1.0, ge=0, le=1)  # share mined, the rest random; official code: 0.5
        random_until: float = Field(0.5, ge=0, le=1)  # of training: then mined; from memory
        hidden: int = Field(4096, ge=1)
        embedding: int = Field(1024, ge=1)
        patch: float = Field(0.5, gt=0, le=1)  # of the side: 227 of 448 px, the paper's frames
        augment: bool = False  # crop and recolour patches; ours, for what 30 frames would change
        search: float = Field(0.15, ge=0, le=1)  # of the side, either way; ours

        @model_validator(mode="after")
        def _enough(self) -> Self:
            if 2 * (self.batch_size - 1) < self.negatives:
                raise ValueError(
                    f"{self.batch_size} pairs have fewer than {self.negatives} negatives for each"
                )
            return self

    def build(self) -> None:
        """The official fc6 and fc7: both end in a ReLU."""
        self.side = round(self.cfg.patch * self.data.size)
        if self.side < SMALLEST:
            raise BenchError(
                f"patches of {self.side} px are too small to track: {SMALLEST} px are needed; "
                "use larger pictures or a larger --set method.patch"
            )
        change: tuple[Op, ...] = (HorizontalFlip(p=0.5),)
        if self.cfg.augment:
            jitter = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
            change = (RandomResizedCrop(scale=(0.4, 1.0)), *change, jitter, Grayscale(p=0.2))
        self.ops = (*change, Normalize(mean=self.data.mean, std=self.data.std))
        self.projector = nn.Sequential(
            nn.Linear(self.backbone.dim, self.cfg.hidden),
            nn.ReLU(),
            nn.Linear(self.cfg.hidden, self.cfg.embedding),
            nn.ReLU(),
        )

    def views(self) -> Sequence[View]:
        """Both frames as they are, in RGB: tracking comes first."""
        return (View("first", ()), View("second", (), source="frame"))

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """max(0, D(q, p) - D(q, n) + margin), the mean over patches and their negatives."""
        query, tracked, shift = self.patches(batch)
        own, other = self._distances(query, tracked, step)
        negative = other.gather(1, self._negatives(other, step))
        loss = F.relu(own[:, None] - negative + self.cfg.margin)
        step.log("pretext_top1", 100 * (own < other.amin(1)).float().mean())
        step.log("shift", shift.norm(dim=1).mean())
        return loss.mean()

    def patches(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Each picture's patch `[B, 3, p, p]`, where it went, and by how many pixels (y, x)."""
        first, second = batch.view("first"), batch.view("second")
        top, left = most_moving(first, second, self.side)
        query = windows(first, top, left, self.side)
        y, x = track(query, second, top, left, round(self.cfg.search * self.data.size))
        shift = torch.stack([y - top, x - left], 1).float()
        return query, windows(second, y, x, self.side), shift

    def _distances(self, query: Tensor, tracked: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Cosine distances of each query to its tracked patch, `[B]`, and to all, `[B, 2B]`.

        A pair's own patches are put beyond all others.
        """
        view = View("patch", self.ops, self.data.size)
        (both,) = render(view, torch.cat([query, tracked]), step.rng)
        z = F.normalize(self.projector(self.backbone(both)).float(), dim=1)
        n = len(query)
        with torch.autocast(z.device.type, enabled=False):
            distance = 1 - z[:n] @ z.T
        barred = torch.eye(n, device=z.device).repeat(1, 2) * BARRED
        return distance[:, n:].diagonal(), distance + barred

    def _negatives(self, other: Tensor, step: Step) -> Tensor:
        """Which of the patches each query is compared with, `[B, negatives]`.

        Random ones at first; later the nearest, whose loss is the highest, and random others.
        """
        order = torch.rand(other.shape, generator=step.rng, device=other.device)
        order = order + BARRED * (other.detach() >= BARRED - 1)
        if step.progress >= self.cfg.random_until:
            hard = other.detach().topk(round(self.cfg.hard * self.cfg.negatives), largest=False)
            order = order.scatter(1, hard.indices, -1.0)
        return order.topk(self.cfg.negatives, largest=False).indices

    def optim(self, phase: str) -> OptimSpec:
        """SGD with momentum, three drops by ten."""
        return OptimSpec(
            name=self.cfg.optimizer,
            lr=self.cfg.lr,
            momentum=self.cfg.momentum,
            weight_decay=self.cfg.weight_decay,
            schedule=self.cfg.schedule,
            milestones=(0.25, 0.5, 0.75),
            gammas=(0.1, 0.1, 0.1),
        )

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Frames with the patch and where it was found, and the nearest patch of other pictures."""
        query, tracked, shift = self.patches(batch)
        own, other = self._distances(query, tracked, step)
        nearest, which = other.min(1)
        n = min(len(own), 8)
        found = tuple(
            f"moved {x:+.0f}, {y:+.0f} px\ndistance {value:.2f}"
            for (y, x), value in zip(shift[:n].tolist(), own[:n].tolist(), strict=True)
        )
        far = tuple(f"distance {value:.2f}" for value in nearest[:n].tolist())
        good = tuple((own < nearest)[:n].tolist())
        return [
            Panel("first frame", batch.view("first")[:n]),
            Panel("second frame", batch.view("second")[:n]),
            Panel("patch", query[:n]),
            Panel("tracked patch", tracked[:n], found, good),
            Panel("nearest patch of another picture", torch.cat([query, tracked])[which[:n]], far),
        ]
