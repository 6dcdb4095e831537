"""The training loop of protocols that train a network on pictures: fine-tuning, dense heads.

Draws are named by the seed and the step, so a protocol repeats itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench import optim
from bench.api import Encoder, EvalSplit, OptimSpec, View
from bench.data.order import endless
from bench.errors import BenchError
from bench.rng import generator


class DivergedError(BenchError):
    """The loss is no longer finite; a lower learning rate may do."""


Loss = Callable[[Tensor, Tensor, torch.Generator], Tensor]
CHECKED = 50  # steps between looks at whether the loss is finite, for which a GPU has to wait


@dataclass(frozen=True)
class Part:
    """Parameters with an optimiser of their own, such as the trunk and the head."""

    parameters: Iterable[nn.Parameter]
    spec: OptimSpec


def trainable(encoder: Encoder) -> Encoder:
    """A copy of a frozen encoder to train; the original stays what it was."""
    return copy.deepcopy(encoder).requires_grad_(True).train()


def train(
    split: EvalSplit,
    loss: Loss,
    parts: Iterable[Part],
    *,
    steps: int,
    batch_size: int,
    seed: int,
    view: View | None = None,
    positions: Tensor | None = None,
    epoch: int | None = None,
) -> None:
    """Minimise `loss` on pictures of `split` for `steps` steps, each on a full batch.

    Args:
        split: pictures with labels.
        loss: (pictures `[b, 3, s, s]`, their positions `[b]`, the step's generator) to a scalar.
        parts: what is trained, each with its learning rate and schedule.
        steps: optimiser steps.
        batch_size: pictures in a step.
        seed: names order and draws.
        view: how pictures are rendered; by default as in evaluation.
        positions: `[n]` of the pictures to train on; by default all of the split.
        epoch: steps in an epoch, for warm-ups; by default those that see each picture once.

    Raises:
        DivergedError: the loss is no longer finite.
    """
    parts = [Part(list(part.parameters), part.spec) for part in parts]
    optimizers = [optim.build(part.spec, part.parameters) for part in parts]
    among = torch.arange(len(split.split)) if positions is None else positions.cpu()
    epoch = epoch or max(1, len(among) // batch_size)

    def order() -> Iterator[Tensor]:
        for step in range(steps):
            yield among[endless(len(among), batch_size, step, seed, "order")]

    finite = torch.ones((), dtype=torch.bool, device=split.device)
    for step, (index, x) in enumerate(split.batches(order(), view, seed, "training")):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        value = loss(x, index, generator(seed, "loss", step, device=x.device))
        value.backward()
        for part, optimizer in zip(parts, optimizers, strict=True):
            if part.spec.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(part.parameters, part.spec.clip_grad_norm)
            optim.schedule(optimizer, part.spec, step, epoch, steps, batch_size)
            optimizer.step()
        finite &= value.detach().isfinite()
        if (step % CHECKED == 0 or step == steps - 1) and not finite.item():
            raise DivergedError(
                f"the loss is not finite after {step + 1} steps; set a lower learning rate"
            )
