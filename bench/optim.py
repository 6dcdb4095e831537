"""Optimisers and schedules from an `OptimSpec`; the schedule is a function of the step alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from timm.optim.lars import Lars
from torch import nn

from bench.api import OptimSpec


def build(spec: OptimSpec, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of one phase; 1-d parameters form a group of their own."""
    parameters = list(parameters)
    weights = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    decay = spec.weight_decay
    groups = [
        {"params": weights, "weight_decay": decay, "decays": True},
        {
            "params": vectors,
            "weight_decay": decay if spec.decay_bias_and_norm else 0.0,
            "decays": spec.decay_bias_and_norm,
        },
    ]
    groups = [group for group in groups if group["params"]]
    # Learning rates are set before every step by `schedule`; the value here is never used.
    if spec.name == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=spec.momentum, nesterov=spec.nesterov)
    if spec.name == "lars":
        # What may decay is adapted, also at a weight decay of 0. timm's ratio is LARC's,
        # trust |w| / (|g| + decay |w|); the papers' codes take the norm of the sum.
        for group in groups:
            group["always_adapt"] = group["decays"]
        return Lars(
            groups, lr=1.0, momentum=spec.momentum, nesterov=spec.nesterov, trust_coeff=spec.trust
        )
    cls = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
    return cls(groups, lr=1.0, betas=spec.betas)


def peak_lr(spec: OptimSpec, batch_size: int) -> float:
    """The learning rate after scaling by the batch."""
    if spec.base_batch is None:
        return spec.lr
    ratio = batch_size / spec.base_batch
    return spec.lr * (ratio if spec.scaling == "linear" else math.sqrt(ratio))


def lr_at(spec: OptimSpec, step: int, steps_per_epoch: int, total: int, batch_size: int) -> float:
    """The learning rate of optimiser step `step` (from 0) of `total`."""
    peak = peak_lr(spec, batch_size)
    warmup = round(spec.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return peak * (step + 1) / warmup
    if spec.schedule == "constant":
        return peak
    if spec.schedule == "step":
        share = step / max(total, 1)
        passed = zip(spec.milestones, spec.gammas, strict=True)
        return peak * math.prod(gamma for at, gamma in passed if share >= at)
    return _cosine(peak, spec.min_lr, step - warmup, total - warmup)


def schedule(
    optimizer: torch.optim.Optimizer,
    spec: OptimSpec,
    step: int,
    steps_per_epoch: int,
    total: int,
    batch_size: int,
) -> None:
    """Set the learning rate, and where it moves the weight decay, for optimiser step `step`."""
    lr = lr_at(spec, step, steps_per_epoch, total, batch_size)
    for group in optimizer.param_groups:
        group["lr"] = lr
        if spec.weight_decay_end is not None and group["decays"]:
            group["weight_decay"] = _cosine(spec.weight_decay, spec.weight_decay_end, step, total)


def _cosine(start: float, end: float, step: int, total: int) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / max(total, 1)))
