"""CIFAR-10: 60,000 pictures of 32 px in 10 classes, in torchvision's on-disk form.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

from torchvision.datasets import CIFAR10

from bench.data import statistics
from bench.data.assemble import no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.torchvision_sets import load_cifar


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the set's own training and test batches.

    Raises:
        BenchError: it is absent and cannot be downloaded.
    """
    no_argument("cifar10", arg)
    return load_cifar("cifar10", CIFAR10, "CIFAR-10", options, statistics.CIFAR10)
