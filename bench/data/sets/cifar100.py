"""CIFAR-100: 60,000 pictures of 32 px in 100 fine classes, in torchvision's on-disk form.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

from functools import partial

from torchvision.datasets import CIFAR100

from bench.data import statistics
from bench.data.assemble import in_memory, no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.torchvision_sets import fetch, tensors


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the set's own training and test batches.

    Raises:
        BenchError: it is absent and cannot be downloaded.
    """
    no_argument("cifar100", arg)
    train, test = (
        fetch(
            "CIFAR-100",
            partial(CIFAR100, train=is_train),
            "cifar-100-python",
            "cifar-100-python.tar.gz",
            options,
        )
        for is_train in (True, False)
    )
    return in_memory(
        "cifar100",
        tuple(train.classes),
        tensors(train.data.transpose(0, 3, 1, 2), train.targets),
        tensors(test.data.transpose(0, 3, 1, 2), test.targets),
        options,
        statistics.CIFAR100,
    )
