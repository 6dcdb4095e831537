"""A network trained to tell all classes in a picture: sigmoid cross-entropy, scored on crops."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.api import DataInfo, Encoder, EvalSplit, OptimSpec, View
from bench.data.ops import Normalize, Resize
from bench.data.views import eval_view
from bench.errors import BenchError
from bench.eval.crop_flip import crop_and_flip
from bench.eval.grid_pool import pool_to_grid
from bench.eval.training import Part, train, trainable
from bench.nn.mlp import mlp

BATCH = 256  # pictures scored at once


def whole_view(info: DataInfo) -> View:
    """The whole picture, squashed: an object at the margin counts as much as one in the middle."""
    ops = (Resize(), Normalize(mean=info.mean, std=info.std))
    return View("whole", ops, size=eval_view(info).size)


class LastMap(nn.Module):
    """A frozen encoder's last map with an extent in space, max-pooled and flattened.

    Of AlexNet that is pool5, below fc6. A network whose maps are all 1 x 1 gives its last.
    """

    def __init__(self, encoder: Encoder, numbers: int) -> None:
        """Pool `encoder`'s map to a grid of about `numbers` values."""
        super().__init__()
        self.encoder, self.numbers = encoder, numbers

    def train(self, mode: bool = True) -> Self:
        """Nothing changes: the encoder's batch norm stays as it is."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Pictures `[B, 3, H, W]` -> `[B, D]`, float32."""
        maps = list(self.encoder.maps(x).values())
        wide = [each for each in maps if max(each.shape[2:]) > 1]
        return pool_to_grid((wide or maps)[-1].float(), self.numbers, "max").flatten(1)


def fc6_to_8(encoder: Encoder, split: EvalSplit, numbers: int, hidden: int) -> nn.Sequential:
    """The frozen encoder's last map, then two new hidden layers and a linear one.

    AlexNet's head, whose layers are so called. Hidden layers have batch norm instead of dropout, as
    RotNet's (arXiv:1803.07728): new layers then learn at the same rate whatever the map's scale.

    Args:
        encoder: frozen, in eval mode.
        split: pictures by which the map's shape is known.
        numbers: of the map that the first layer sees, about.
        hidden: width of a hidden layer.

    Raises:
        BenchError: the encoder has no maps.
    """
    if not encoder.layers:
        raise BenchError("the encoder has no maps to put new layers on; set protocol.mode=svm")
    trunk = LastMap(encoder, numbers).to(split.device)
    _, example = next(split.batches([torch.arange(len(split.split))[:BATCH]]))
    width = trunk(example).shape[1]
    return nn.Sequential(trunk, *mlp(width, hidden, hidden, split.info.num_classes))


def fc8(encoder: Encoder, split: EvalSplit) -> nn.Sequential:
    """A copy of the encoder to train, then a new linear layer on its output.

    Raises:
        BenchError: the encoder has no parameters.
    """
    if not any(True for _ in encoder.parameters()):
        raise BenchError("the encoder has no parameters to train; set protocol.mode=svm")
    return nn.Sequential(trainable(encoder), nn.Linear(encoder.dim, split.info.num_classes))


def fit_multilabel(
    split: EvalSplit,
    network: nn.Module,
    optim: OptimSpec,
    *,
    steps: int,
    batch_size: int,
    seed: int,
) -> None:
    """Minimise sigmoid cross-entropy on random crops: its sum over classes, the mean over pictures.

    A class that is difficult in a picture does not count there.

    Args:
        split: pictures with multi-labels.
        network: `[B, 3, s, s]` -> logits `[B, C]`; left in eval mode.
        optim: optimiser and schedule.
        steps: optimiser steps.
        batch_size: pictures in a step.
        seed: names order and crops.

    Raises:
        BenchError: the loss is no longer finite.
    """
    assert split.split.multilabel is not None
    targets = split.split.multilabel.to(split.device)

    def loss(x: Tensor, index: Tensor, rng: torch.Generator) -> Tensor:
        logits, target = network(x), targets[index]
        present, counted = (target == 1).to(logits), (target != -1).to(logits)
        total = binary_cross_entropy_with_logits(logits, present, counted, reduction="sum")
        return total / len(x)

    network.train()
    train(
        split,
        loss,
        [Part((p for p in network.parameters() if p.requires_grad), optim)],
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        view=crop_and_flip(split.info),
    )
    network.eval()


@torch.no_grad()
def score_crops(
    split: EvalSplit, network: nn.Module, crops: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Mean logits over random crops, and the targets, `[N, C]` each, of pictures that decode.

    Args:
        split: pictures with multi-labels.
        network: `[B, 3, s, s]` -> logits `[B, C]`, in eval mode.
        crops: how many of each picture, drawn as in training; with 0 the whole picture is seen.
        seed: names the crops.
    """
    view = crop_and_flip(split.info) if crops else whole_view(split.info)
    order = torch.arange(len(split.split)).split(BATCH)
    passes = []
    for crop in range(max(crops, 1)):
        seen = [
            (at, network(x).float()) for at, x in split.batches(order, view, seed, "crop", crop)
        ]
        index, logits = (torch.cat(parts) for parts in zip(*seen, strict=True))
        passes.append(logits)
    assert split.split.multilabel is not None
    return torch.stack(passes).mean(0), split.split.multilabel.to(index.device)[index]
