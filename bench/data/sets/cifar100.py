"""CIFAR-100: 60,000 pictures of 32 px in 100 fine classes, in torchvision's on-disk form.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

from torchvision.datasets import CIFAR100

from bench.data import statistics
from bench.data.assemble import no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.torchvision_sets import load_cifar


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the set's own training and test batches.

    Raises:
        BenchError: it is absent and cannot be downloaded.
    """
    no_argument("cifar100", arg)
    return load_cifar("cifar100", CIFAR100, "CIFAR-100", options, statistics.CIFAR100)
