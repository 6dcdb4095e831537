"""All of CIFAR-10 as a JPEG quality-75 mirror (32 px, 10 classes), from the shared archives.

Median PSNR is 30.4 dB against the original pixels: not the set of the published tables.
"""

from __future__ import annotations

from dataclasses import replace

from bench.data.archive import unpacked
from bench.data.assemble import no_argument
from bench.data.class_folders import load_class_folders
from bench.data.dataset import DataOptions, DataSet
from bench.data.statistics import CIFAR10

SIZE = 32


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the archive.

    Raises:
        BenchError: it is absent or damaged.
    """
    no_argument("cifar10_jpeg75", arg)
    options = replace(options, size=options.size or SIZE)
    return load_class_folders(unpacked("cifar10-jpeg75.tar.xz"), "cifar10_jpeg75", options, CIFAR10)
