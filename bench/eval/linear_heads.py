"""Many linear classifiers trained at once on cached features, as columns of one matrix product."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from bench.rng import generator

MOMENTUM = 0.9  # of every SGD linear probe since Zhang (arXiv:1603.08511)
ROUNDING = 1e-6  # a float32 std below this share of the mean is rounding, not signal
CHUNK = 2**24  # logits held at once when scoring: 64 MiB


class Standardizer:
    """Scales each dimension to mean 0 and std 1 by train statistics, and appends a 1 for the bias.

    As a BatchNorm without affine before the head (Zhang, arXiv:1603.08511; MAE, arXiv:2111.06377),
    so that one grid of learning rates fits every layer. A constant dimension becomes 0.
    """

    def __init__(self, features: Tensor) -> None:
        """Measure `features` `[N, D]`."""
        var, self.mean = torch.var_mean(features, dim=0, correction=0)
        std = var.sqrt()
        self.scale = torch.where(std > ROUNDING * self.mean.abs(), 1 / std, 0.0)

    def __call__(self, features: Tensor) -> Tensor:
        """Standardised `features` `[N, D]` with a last column of ones, `[N, D + 1]`."""
        out = features.new_ones(len(features), features.shape[1] + 1)
        out[:, :-1] = features
        out[:, :-1].sub_(self.mean).mul_(self.scale)
        return out


class LinearHeads:
    """S x H linear classifiers of C classes, trained by SGD with Nesterov momentum.

    The S seeds differ in the order of pictures; the H heads of one seed see the same batches and
    differ in learning rate and weight decay. Weights, so logits too, start at zero (SimCLR).

    Attributes:
        weight: `[S, D, C * H]`. Heads are innermost, as the softmax over a strided class dimension
            vectorises over heads: on a CPU 3 to 9 times faster than over 10 adjacent classes.
    """

    def __init__(self, seeds: int, dim: int, classes: int, lrs: Tensor, decays: Tensor) -> None:
        """Make heads with learning rates `lrs` and weight decays `decays`, `[H]` each."""
        self.shape = (classes, len(lrs))
        self.weight = lrs.new_zeros(seeds, dim, classes * len(lrs))
        self.velocity = torch.zeros_like(self.weight)
        self.lr, self.decay = lrs.repeat(classes), decays.repeat(classes)

    def step(self, x: Tensor, target: Tensor, lr_scale: float) -> None:
        """Take one step on the sum over heads of their mean cross-entropy.

        The gradient by the logits is written out (softmax - target); the rest is
        `torch.optim.SGD(lr * lr_scale, momentum=0.9, nesterov=True, weight_decay=decay)`.

        Args:
            x: `[S, B, D]` inputs.
            target: `[S, B, C]` one-hot labels.
            lr_scale: the schedule's factor on every learning rate.
        """
        error = torch.bmm(x, self.weight).view(*x.shape[:2], *self.shape).softmax(2)
        error -= target[..., None]
        decayed = self.weight * self.decay
        update = torch.baddbmm(decayed, x.mT, error.flatten(2), alpha=1 / x.shape[1])
        self.velocity.mul_(MOMENTUM).add_(update)
        update.add_(self.velocity, alpha=MOMENTUM).mul_(self.lr * lr_scale)
        self.weight -= update

    def logits(self, x: Tensor) -> Tensor:
        """Every head's logits `[S, N, C, H]` for `x` `[N, D]`."""
        return (x @ self.weight).view(len(self.weight), len(x), *self.shape)

    def hits(self, x: Tensor, labels: Tensor) -> Tensor:
        """How many rows of `x` `[N, D]` each head classifies as `labels` `[N]`, `[S, H]`."""
        rows = max(1, CHUNK // (self.weight.shape[0] * self.weight.shape[2]))
        chunks = zip(x.split(rows), labels.split(rows), strict=True)
        counts = [(self.logits(a).argmax(2) == b[:, None]).sum(1) for a, b in chunks]
        return torch.stack(counts).sum(0)


def fit_heads(
    x: Tensor,
    labels: Tensor,
    grid: Sequence[tuple[float, float]],
    *,
    classes: int,
    seeds: int,
    steps: int,
    batch_size: int,
    seed: int,
) -> LinearHeads:
    """Train linear classifiers for `steps` steps, their learning rates falling to 0 by a cosine.

    Args:
        x: `[N, D]` standardised features.
        labels: `[N]` class of each row.
        grid: (learning rate, weight decay) of each of the H heads.
        classes: The number of classes.
        seeds: How many orders of the rows to train every head with.
        steps: Optimiser steps.
        batch_size: Rows per step.
        seed: Names the orders: order s is the same whatever the number of seeds or heads.
    """
    lrs, decays = x.new_tensor(grid).unbind(1)
    heads = LinearHeads(seeds, x.shape[1], classes, lrs, decays)
    targets = one_hot(labels, classes).to(x)
    rngs = [generator(seed, "heads", s, device=x.device) for s in range(seeds)]
    orders = zip(*(_batches(len(x), batch_size, rng) for rng in rngs), strict=True)
    for step, rows in zip(range(steps), orders, strict=False):
        index = torch.stack(rows)
        heads.step(x[index], targets[index], (1 + math.cos(math.pi * step / steps)) / 2)
    return heads


def fit_probe(
    x: Tensor,
    labels: Tensor,
    grid: Sequence[tuple[float, float]],
    *,
    classes: int,
    cfg: Any,
    seed: int,
    copies: int = 1,
) -> tuple[Standardizer, LinearHeads]:
    """`fit_heads` on features as they are, with the scale that they are to be judged on.

    Args:
        x: `[copies * N, D]` features.
        labels: `[copies * N]` class of each row.
        grid: (learning rate, weight decay) of each head.
        classes: The number of classes.
        cfg: `epochs` over the N pictures, but at least `min_steps`; `batch_size`, `head_seeds`.
        seed: Names the orders.
        copies: How many rows stand for each picture.
    """
    scale, pictures = Standardizer(x), len(x) // copies
    heads = fit_heads(
        scale(x),
        labels,
        grid,
        classes=classes,
        seeds=cfg.head_seeds,
        steps=max(cfg.min_steps, cfg.epochs * math.ceil(pictures / cfg.batch_size)),
        batch_size=cfg.batch_size,
        seed=seed,
    )
    return scale, heads


def _batches(n: int, size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Batches of indices, one permutation of all `n` after another, without end."""
    while True:
        yield from torch.randperm(n, generator=rng, device=rng.device).split(size)
