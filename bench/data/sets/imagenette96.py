"""Imagenette v2: ten ImageNet classes, centre crops of 96 px, from the shared archives."""

from __future__ import annotations

from dataclasses import replace

from bench.data.archive import unpacked
from bench.data.assemble import no_argument
from bench.data.class_folders import load_class_folders
from bench.data.dataset import DataOptions, DataSet
from bench.data.statistics import IMAGENET

SIZE = 96


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the archive; its `val/` is the test split.

    Raises:
        BenchError: it is absent or damaged.
    """
    no_argument("imagenette96", arg)
    options = replace(options, size=options.size or SIZE)
    return load_class_folders(unpacked("imagenette96.tar.xz"), "imagenette96", options, IMAGENET)
