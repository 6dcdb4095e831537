"""What semi-supervised methods share: a classifier, its moving average, and views to train it on.

A method adds what the unlabelled pictures are good for. They are all training pictures, as in the
papers: `epochs` and `batch_size` count them, and each step has some labelled ones beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import (
    Batch,
    Classifier,
    LabeledConfig,
    Labels,
    Method,
    Op,
    OptimSpec,
    Panel,
    Step,
    View,
)
from bench.data.ops import Cutout, HorizontalFlip, Normalize, RandAugment, RandomCrop
from bench.nn.classifier import WithHead
from bench.nn.momentum import follow, momentum_copy

# 9,000 pictures of 32 px, a tenth of them labelled: about a minute on a CPU core. With 20 labels of
# each class guesses are mostly wrong: FixMatch, UDA and pseudo-labels fell below the labels alone.
SMALL: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 32,
    "labels": 0.1,
    "labeled_batch_size": 32,
    "optimizer": "adamw",
    "lr": 3e-3,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "final_lr": 0.0,
    "warmup_epochs": 0.5,
    "average_momentum": 0.99,
}
# Beside SMALL, for strong views: better than the papers' on held-out training pictures.
GENTLE: dict[str, Any] = {"magnitude": 5, "cutout": 0.25}
# The pictures that conformance trains on: 16 of each class.
TOY: dict[str, Any] = {"labels": 4, "labeled_batch_size": 8}

TILES = 8  # of a panel


class SemiSupervisedConfig(LabeledConfig):
    """The settings that FixMatch has on CIFAR-10 (arXiv:2001.07685), and USB for older methods."""

    labels: Labels = 25  # of each class, 250 of CIFAR-10
    labeled_batch_size: int = Field(64, gt=0)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(0.03, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # Nesterov
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    final_lr: float = Field(0.0, ge=0, le=1)  # at the cosine's end, share of lr
    warmup_epochs: float = Field(0.0, ge=0)
    average_momentum: float = Field(0.999, ge=0, lt=1)  # of the averaged weights; 0: none are kept


class StrongConfig(SemiSupervisedConfig):
    """Settings of a strong view: RandAugment, then a square cut out."""

    strong_ops: int = Field(2, ge=0)
    magnitude: int = Field(10, ge=0, le=30)  # of 30
    cutout: float = Field(0.5, gt=0, le=1)  # share of the side


class SemiSupervised(Method):
    """A classifier trained on few labels and all pictures; its average is what is evaluated."""

    needs = frozenset({"labeled"})
    # Where the "step" schedule drops, shares of training, and by what.
    milestones: tuple[float, ...] = ()
    gammas: tuple[float, ...] = ()

    def build(self) -> None:
        """A linear layer over the classes, and the average of the network and itself."""
        self.head = nn.Linear(self.backbone.dim, self.data.num_classes)
        self.average = momentum_copy(self.student) if self.cfg.average_momentum else None

    @property
    def student(self) -> WithHead:
        """The network that is trained; made anew at each call, and shared with the method."""
        return WithHead(self.backbone, self.head)

    def weak(self) -> tuple[Op, ...]:
        """Padding crop and flip."""
        info = self.data
        crop = RandomCrop(padding=info.size // 8)
        return (crop, HorizontalFlip(p=0.5), Normalize(mean=info.mean, std=info.std))

    def strong(self) -> tuple[Op, ...]:
        """The same with RandAugment before normalisation and a hole after it."""
        cfg, (crop, flip, normalize) = self.cfg, self.weak()
        randaugment = RandAugment(n=cfg.strong_ops, magnitude=cfg.magnitude)
        hole = Cutout(size=max(1, round(cfg.cutout * self.data.size)))
        return (crop, flip, randaugment, normalize, hole)

    def views(self) -> Sequence[View]:
        """A weak view of labelled and of unlabelled pictures."""
        return (View("labeled", self.weak(), labeled=True), View("weak", self.weak()))

    def logits(self, *pictures: Tensor) -> tuple[Tensor, ...]:
        """Logits `[n, C]` of each of `pictures`, at least float32.

        They go through the network in one pass, so that batch norm sees them together.
        """
        out = in_full(self.student.classify(torch.cat(pictures)))
        parts: tuple[Tensor, ...] = out.split([len(x) for x in pictures])
        return parts

    def supervised(self, batch: Batch, logits: Tensor, step: Step) -> Tensor:
        """Cross-entropy on the labelled pictures; logs `labeled_top1`, %.

        Args:
            batch: its `labeled` part has the labels.
            logits: `[n, C]` of those pictures.
            step: where values are logged.
        """
        label = labels_of(batch)
        step.log("labeled_top1", 100 * (logits.argmax(1) == label).float().mean())
        return F.cross_entropy(logits, label)

    def watch(self, step: Step, target: Tensor, logits: Tensor, mask: Tensor | None = None) -> None:
        """Log what the unlabelled pictures are taken for, and whether all are taken for the same.

        `confidence` is the mean of the largest probability, %; `mask` the share of the pictures
        that count, %. How many of the guesses are right nobody sees: their labels are hidden.

        Args:
            step: where values are logged.
            target: `[N, C]` probabilities that the network is taught.
            logits: `[N, C]` of the network for the same pictures.
            mask: `[N]` 1 where a picture counts, or a weight in [0, 1].
        """
        step.log("confidence", 100 * target.amax(1).mean())
        if mask is not None:
            step.log("mask", 100 * mask.float().mean())
        step.watch_targets(target.detach(), logits.detach().log_softmax(1))

    def average_share(self, step: Step) -> float:
        """The momentum of the average: a plain mean of all steps at first (Mean Teacher's code)."""
        return min(1 - 1 / (step.index + 1), float(self.cfg.average_momentum))

    def after_step(self, step: Step) -> None:
        """The average follows, the statistics of its batch norms too."""
        if self.average is not None:
            share = self.average_share(step)
            follow(self.average, self.student, share)
            follow_statistics(self.average, self.student, share)

    def optim(self, phase: str) -> OptimSpec:
        """The optimiser that the settings name; biases and batch norms are not decayed."""
        cfg = self.cfg
        return OptimSpec(
            name=cfg.optimizer,
            lr=cfg.lr,
            momentum=cfg.momentum,
            nesterov=cfg.optimizer == "sgd" and cfg.momentum > 0,
            weight_decay=cfg.weight_decay,
            decay_bias_and_norm=False,
            schedule=cfg.schedule,
            warmup_epochs=cfg.warmup_epochs,
            min_lr=cfg.final_lr * cfg.lr,
            milestones=self.milestones,
            gammas=self.gammas,
        )

    def encoder(self) -> Classifier:
        """The average with its classifier; the trained network where no average is kept."""
        return self.student if self.average is None else self.average

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """What labelled and unlabelled pictures are taken for, and how surely."""
        assert batch.labeled is not None
        right = labels_of(batch)[:TILES]
        panels = []
        for title, views in (("labelled", batch.labeled.views), ("unlabelled", batch.views)):
            for name, (x, *_) in views.items():
                tiles = x[:TILES]
                confidence, guess = self.encoder().classify(tiles).softmax(1).max(1)
                captions = tuple(
                    f"{self.data.classes[number]} {share:.0%}"
                    for number, share in zip(guess.tolist(), confidence.tolist(), strict=True)
                )
                good = tuple((guess == right).tolist()) if title == "labelled" else ()
                panels.append(Panel(f"{title}, {name}", self.data.rgb(tiles), captions, good))
        return panels


def labels_of(batch: Batch) -> Tensor:
    """The labels `[n]` of the step's labelled pictures."""
    assert batch.labeled is not None and batch.labeled.label is not None
    return batch.labeled.label


def labeled_view(batch: Batch, name: str = "labeled") -> Tensor:
    """View `name` of the step's labelled pictures, `[n, 3, s, s]`."""
    assert batch.labeled is not None
    return batch.labeled.view(name)


def in_full(logits: Tensor) -> Tensor:
    """`logits` in float32, or in float64 where they come so: bfloat16 has two digits."""
    return logits if logits.dtype == torch.float64 else logits.float()


def confident(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """What the network says of each picture, taken as a truth: nothing flows back through it.

    Args:
        logits: `[N, C]`.
        threshold: the probability that a guess must reach.

    Returns:
        probabilities `[N, C]`, the likeliest class `[N]`, and 1 where it is likely enough, `[N]`.
    """
    probabilities = logits.detach().softmax(1)
    confidence, label = probabilities.max(1)
    return probabilities, label, (confidence >= threshold).to(logits.dtype)


def divergence(target: Tensor, logits: Tensor) -> Tensor:
    """KL divergence `[N]`, nats, from the softmax of `logits` `[N, C]` to `target` `[N, C]`."""
    rows: Tensor = torch.special.xlogy(target, target) - target * logits.log_softmax(1)
    return rows.sum(1)


def ramp_up(position: float) -> float:
    """exp(-5 (1 - t)^2), from nearly 0 at t = 0 to 1 from t = 1 on (arXiv:1610.02242)."""
    t = min(max(position, 0.0), 1.0)
    return math.exp(-5 * (1 - t) ** 2)


@torch.no_grad()
def follow_statistics(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """Move the floating buffers of `target` as `follow` moves parameters."""
    pairs = zip(target.buffers(), source.buffers(), strict=True)
    for held, value in pairs:
        if held.is_floating_point():
            held.lerp_(value, 1 - momentum)
