"""Which pictures a protocol looks at one by one, the same for every encoder, and those pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.api import Encoder, EvalSplit
from bench.errors import BenchError
from bench.eval.scoring import class_labels, require_finite
from bench.rng import generator

BATCH = 256
FEWEST = 4  # pictures from which there is an unbiased estimate of HSIC


def balanced(labels: Tensor, count: int, *name: str | int) -> Tensor:
    """`count` positions (at most all), each class as often as the others, drawn by the seed `name`.

    A class with too few pictures leaves its places to the others.

    Args:
        labels: `[N]` class of each picture.
        count: how many to draw; below the number of classes, so many classes have one each.
        *name: names the draw.

    Returns:
        Positions `[min(count, N)]`, class by class, on the labels' device.
    """
    classes = labels.cpu()
    order = torch.randperm(len(classes), generator=generator("balanced", *name))
    rank = torch.empty(len(classes), dtype=torch.int64)  # of a picture within its class
    for value in classes.unique():
        members = order[classes[order] == value]
        rank[members] = torch.arange(len(members))
    chosen = order[rank[order].argsort(stable=True)][:count].sort().values
    return chosen[classes[chosen].argsort(stable=True)].to(labels.device)


@dataclass(frozen=True)
class Compared:
    """Features of the n test pictures by which encoders are compared, class by class."""

    features: dict[str, Tensor]  # by layer, [n, D]
    labels: Tensor  # [n]
    positions: Tensor  # [n] in the split, on the CPU

    def arrays(self, name: str, values: Tensor) -> dict[str, Tensor]:
        """What is kept for comparing encoders: `values` as 16-bit floats, and of which pictures."""
        return {name: values.half(), "positions": self.positions.to(torch.int32)}


def compared(
    split: EvalSplit, encoder: Encoder, layers: Sequence[str], count: int, max_dim: int
) -> Compared:
    """The `layers` of a class-balanced sample of `count` pictures, the same for every encoder.

    Raises:
        BenchError: labels are missing or of one class only, there are fewer than 4 pictures or no
            two of one class, or features are not finite.
    """
    features = require_finite(split.features(encoder, layers, max_dim=max_dim))
    labels = class_labels(split)
    rows = balanced(labels, count, "compared")
    counts = labels[rows].unique(return_counts=True)[1]
    if len(rows) < FEWEST or len(counts) < 2 or counts.max() < 2:
        raise BenchError(
            f"{len(rows)} pictures of {len(counts)} classes in the {split.split.name} split of "
            f"{split.info.name} cannot be compared; it takes {FEWEST}, two classes, and two "
            "pictures of one of them"
        )
    positions = kept(split, len(labels))[rows.cpu()]
    return Compared({layer: x[rows] for layer, x in features.items()}, labels[rows], positions)


def of_same_pictures(
    name: str, one: Mapping[str, Any], other: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """The arrays `name` of two encoders, in float64; see `Compared.arrays`.

    Raises:
        BenchError: they are of other pictures.
    """
    places = (torch.as_tensor(arrays["positions"]) for arrays in (one, other))
    if not torch.equal(*places):
        raise BenchError("the two encoders were shown different pictures; measure both again")
    a, b = (torch.as_tensor(arrays[name]).double() for arrays in (one, other))
    return a, b


def kept(split: EvalSplit, rows: int) -> Tensor:
    """The position in `split` of each of the `rows` of its features, `[rows]`, on the CPU.

    They differ from 0, 1, ... only where pictures could not be decoded.
    """
    every = torch.arange(len(split.split))
    if rows == len(every):
        return every
    return torch.cat([index.cpu() for index, _ in split.batches(every.split(BATCH))])


def pictures(split: EvalSplit, positions: Tensor) -> Tensor:
    """The pictures at `positions` `[n]` as an encoder is shown them, RGB in [0, 1], on the CPU.

    Returns:
        `[n, 3, s, s]`, fewer where some cannot be decoded.
    """
    parts = [x for _, x in split.batches(positions.cpu().split(BATCH))]
    return split.info.rgb(torch.cat(parts)).clamp(0, 1).cpu()
