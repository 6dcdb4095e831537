"""True CIFAR-10 pixels, the first 932 pictures of each batch, from the shared archives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.data.archive import find
from bench.data.assemble import in_memory, no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.statistics import CIFAR10

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the arrays.

    Raises:
        BenchError: the file is absent or damaged.
    """
    no_argument("cifar10_lossless", arg)
    with np.load(find("cifar10-lossless-subset.npz"), allow_pickle=False) as arrays:

        def part(name: str) -> tuple[Tensor, Tensor]:
            pixels = torch.from_numpy(arrays[f"x_{name}"]).permute(0, 3, 1, 2).contiguous()
            return pixels, torch.from_numpy(arrays[f"y_{name}"]).long()

        train, test = part("train"), part("test")
    return in_memory("cifar10_lossless", CLASSES, train, test, options, CIFAR10)
