"""Layer probe: one linear classifier on a grid of each layer's maps, by Zhang's fixed recipe."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from bench.api import Encoder, EvalData, Metric, OptimSpec, Protocol, Scores
from bench.eval.grid_pool import Pool, grid_side, pool_to_grid
from bench.eval.layer_heads import Schedule, Shape, probe_layers


class Layers(Protocol):
    """Top-1 accuracy of a linear classifier on each layer; the layer that is best on val counts.

    Zhang et al., arXiv:1603.08511 (conv1 to conv5 of AlexNet): maps are resized to a k x k grid
    with C * k * k of about 9,000, so that no layer is ahead by its size; batch norm without scale
    and shift; one linear layer. All layers' heads train together on random crops and flips, with
    SGD whose learning rate falls by 10 at 2/7, 4/7 and 6/7 of training. Val chooses the layer,
    then the heads are trained again on train + val. `linear` differs: it averages a layer to 512
    numbers and searches for the best learning rate of each.

    The recipe's 140,000 steps of 256 pictures are 28 epochs of ImageNet, hence 28 epochs here.
    """

    metric = Metric("top1")
    toy = {"epochs": 1, "min_steps": 100, "batch_size": 32, "augment": False}

    class Config(Protocol.Config):
        """The constants: solver.prototxt of richzhang/colorization, where no other is named."""

        pool: Pool = "resize"  # "max": RotNet (arXiv:1803.07728) and CMC (arXiv:1906.05849)
        numbers: PositiveInt = 9000  # 9,216 to 9,600 in every layer of the paper
        epochs: PositiveInt = 28
        min_steps: PositiveInt = 1000  # of sets below 9,000 pictures, where 28 epochs are few
        batch_size: int = Field(256, ge=2)  # batch norm needs two
        lr: PositiveFloat = 0.01
        weight_decay: NonNegativeFloat = 5e-4  # not of biases
        augment: bool = True  # crop and mirror

    def run(self, encoder: Encoder, data: EvalData, cfg: Any, seed: int) -> Scores:
        """Measure `encoder` on `data`; one without layers has its output alone.

        Raises:
            BenchError: labels are missing, or features are not finite.
        """
        optim = OptimSpec(
            lr=cfg.lr,
            weight_decay=cfg.weight_decay,
            decay_bias_and_norm=False,
            schedule="step",
            milestones=(2 / 7, 4 / 7, 6 / 7),  # 40,000, 80,000 and 120,000 of 140,000 steps
            gammas=(0.1, 0.1, 0.1),
        )

        def head(shape: Shape, rng: torch.Generator) -> nn.Module:
            return GridLinear(shape, data.info.num_classes, cfg.numbers, cfg.pool)

        schedule = Schedule(optim, cfg.epochs, cfg.min_steps, cfg.batch_size, cfg.augment)
        return probe_layers(encoder, data, (*encoder.layers, "output"), head, schedule, seed)


class GridLinear(nn.Module):
    """Maps `[B, C, h, w]` -> grid -> batch norm without affine -> logits `[B, classes]`.

    Weights start at zero: the loss is convex.
    """

    def __init__(self, shape: Shape, classes: int, numbers: int, pool: Pool) -> None:
        super().__init__()
        channels, height, width = shape
        self.pool = partial(pool_to_grid, numbers=numbers, pool=pool)
        dim = channels * grid_side(channels, min(height, width), numbers) ** 2
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.linear = nn.Linear(dim, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Logits."""
        out: Tensor = self.linear(self.norm(self.pool(maps).flatten(1)))
        return out
