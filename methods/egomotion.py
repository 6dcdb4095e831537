"""Egomotion: tell how the camera moved between two frames (Agrawal 2015, arXiv:1505.01596).

`top1_<component>` is each motion component's accuracy in %, `chance_<component>` that of always
naming the batch's most frequent bin; `pretext_top1` and `pretext_chance` are their means.

On `scenes` no frame alone gives the motion away, but for a little that the second frame's horizon
tells of dy (31 % of 5 bins) and roll (26 %): frames are rendered whole and have no borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import Normalize
from bench.errors import BenchError
from bench.nn.dense_head import map_channels

SPREAD = 3**0.5  # a uniform distribution ends this many standard deviations from its mean


class Egomotion(Method):
    """A Siamese network: both frames through one backbone, their last maps concatenated.

    Each motion component has its own softmax over evenly spaced bins. The bins follow the mean
    and deviation of all motions seen so far, as a method sees motions through its batches only.
    """

    needs = frozenset({"frames", "motion"})
    deviations = (
        "bins span the mean motion +- sqrt(3) standard deviations; the outer two hold the tails",
        "the top network's convolutions keep their map's size, and average pooling makes it 2 x 2",
        "frames are seen whole, at the stored size: no crop of 227 of 256 px",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 32,
            "optimizer": "adam",
            "lr": 1e-3,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "bins": 5,
            "batch_norm": True,  # without it, training often does not begin
            "dropout": 0.0,
        }
    }

    class Config(MethodConfig):
        """The KITTI network's settings, from memory, but where the official code is named."""

        epochs: int = 366  # 60,000 iterations of 125 pairs from 20,501 frames
        batch_size: int = 125
        optimizer: Literal["sgd", "adam"] = "sgd"
        lr: float = 1e-3  # halved after every third of training
        momentum: float = 0.9
        weight_decay: float = 5e-4
        schedule: Literal["step", "cosine"] = "step"
        # One softmax each. The paper has the two translations and the rotation that cars make;
        # here all that `scenes` has. Name your own: as many as the data's motions have numbers.
        components: tuple[str, ...] = Field(("dx", "dy", "zoom", "roll"), min_length=1)
        bins: int = Field(20, ge=2)
        batch_norm: bool = False  # in the top network
        dropout: float = Field(0.5, ge=0, lt=1)  # pulkitag/egomotion, kitti_siamese_*.prototxt

    def build(self) -> None:
        """The top network of the official code: 256 and 128 channels, 500 units, the softmaxes."""
        k, norm = len(self.cfg.components), self.cfg.batch_norm
        *_, channels = map_channels(self.backbone, self.data.size).values()
        self.top = nn.Sequential(
            nn.Conv2d(2 * channels, 256, 3, padding=1),
            nn.BatchNorm2d(256) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Conv2d(256, 128, 3, padding=1),
            nn.BatchNorm2d(128) if norm else nn.Identity(),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 500),
            nn.BatchNorm1d(500) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(self.cfg.dropout),
        )
        self.head = nn.Linear(500, k * self.cfg.bins)
        # Running sums over all motions seen: their number, sum and sum of squares.
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(3, k, dtype=torch.float64))

    def views(self) -> Sequence[View]:
        """Both frames as they are: a flip or crop would change what the motion is."""
        ops = (Normalize(mean=self.data.mean, std=self.data.std),)
        return (View("first", ops), View("second", ops, source="frame"))

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The sum over components of the cross-entropy to the true motion's bin."""
        motion = self._motion(batch)
        if self.training:
            ones = torch.ones_like(motion)
            self.seen += torch.stack([ones, motion, motion**2]).double().sum(1)
        target = self.bin_of(motion)
        logits = self.logits(batch)
        hits = 100 * (logits.argmax(2) == target).float().mean(0)
        chance = 100 * F.one_hot(target, self.cfg.bins).float().mean(0).amax(1)
        for i, name in enumerate(self.cfg.components):
            step.log(f"top1_{name}", hits[i])
            step.log(f"chance_{name}", chance[i])
        step.log("pretext_top1", hits.mean())
        step.log("pretext_chance", chance.mean())
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        return loss * len(self.cfg.components)

    def logits(self, batch: Batch) -> Tensor:
        """Scores of every bin of every component, `[B, k, bins]`."""
        frames = torch.cat([batch.view("first"), batch.view("second")])
        last = self.backbone.maps(frames)[self.backbone.layers[-1]]
        hidden = self.top(torch.cat(last.chunk(2), 1))
        out: Tensor = self.head(hidden).float().unflatten(1, (-1, self.cfg.bins))
        return out

    def bin_of(self, motion: Tensor) -> Tensor:
        """The bin of each component of `motion` `[B, k]`, int64."""
        low, width = self._bins()
        return ((motion - low) / width).floor().long().clamp(0, self.cfg.bins - 1)

    def _bins(self) -> tuple[Tensor, Tensor]:
        """Where each component's first bin begins and how wide its bins are, `[k]` each."""
        count, total, squares = self.seen
        mean = total / count.clamp(min=1)
        deviation = (squares / count.clamp(min=1) - mean**2).clamp(min=1e-12).sqrt()
        low = mean - SPREAD * deviation
        return low.float(), (2 * SPREAD * deviation / self.cfg.bins).float()

    def _motion(self, batch: Batch) -> Tensor:
        assert batch.motion is not None
        given, named = batch.motion.shape[1], len(self.cfg.components)
        if given != named:
            raise BenchError(
                f"method egomotion has {named} components, but the motions of {self.data.name} "
                f"have {given} numbers: name each by --set method.components"
            )
        return batch.motion

    def optim(self, phase: str) -> OptimSpec:
        """SGD with momentum, halved twice."""
        return OptimSpec(
            name=self.cfg.optimizer,
            lr=self.cfg.lr,
            momentum=self.cfg.momentum,
            weight_decay=self.cfg.weight_decay,
            schedule=self.cfg.schedule,
            milestones=(1 / 3, 2 / 3),
            gammas=(0.5, 0.5),
        )

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Both frames, with the motion that was predicted; green where most bins are right."""
        motion = self._motion(batch)[:8]
        found = self.logits(batch)[:8].argmax(2)
        low, width = self._bins()
        said = (low + (found + 0.5) * width).tolist()
        pairs = [
            zip(self.cfg.components, *row, strict=True)
            for row in zip(said, motion.tolist(), strict=True)
        ]
        captions = tuple(
            "\n".join(f"{name} {a:+.2f} ({b:+.2f})" for name, a, b in pair) for pair in pairs
        )
        good = tuple(((found == self.bin_of(motion)).float().mean(1) > 0.5).tolist())
        return [
            Panel("first frame", self.data.rgb(batch.view("first")[:8])),
            Panel(
                "second frame: predicted motion (true)",
                self.data.rgb(batch.view("second")[:8]),
                captions,
                good,
            ),
        ]
