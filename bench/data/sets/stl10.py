"""STL-10: 5,000 training and 8,000 test pictures of 96 px in 10 classes, in torchvision's form.

Its 100,000 unlabelled pictures are not read. Coates et al., AISTATS 2011.
"""

from __future__ import annotations

from functools import partial

from torchvision.datasets import STL10

from bench.data.assemble import in_memory, no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.torchvision_sets import fetch, tensors


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the set's own labelled training and test pictures.

    Raises:
        BenchError: it is absent and cannot be downloaded.
    """
    no_argument("stl10", arg)
    train, test = (
        fetch(
            "STL-10",
            partial(STL10, split=split),
            "stl10_binary",
            "stl10_binary.tar.gz",
            options,
        )
        for split in ("train", "test")
    )
    return in_memory(
        "stl10",
        tuple(train.classes),
        tensors(train.data, train.labels),
        tensors(test.data, test.labels),
        options,
    )
