"""Birdsnap: 500 kinds of birds, as class folders in birdsnap/train and birdsnap/test.

Its pictures have to be collected from the addresses that its authors list; many are gone, so that
numbers depend on the copy. Berg et al., CVPR 2014.
"""

from __future__ import annotations

from dataclasses import replace

from bench.data.assemble import no_argument
from bench.data.class_folders import load_class_folders
from bench.data.dataset import DataOptions, DataSet
from bench.data.picture_lists import SIZE, kit
from bench.data.statistics import IMAGENET


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the class folders.

    Raises:
        BenchError: it is absent or not whole.
    """
    no_argument("birdsnap", arg)
    found = kit("Birdsnap", "birdsnap", options)
    for part in ("train", "test"):
        found.part(part)
    options = replace(options, size=options.size or SIZE)
    return load_class_folders(found.root, "birdsnap", options, IMAGENET, test_folders=("test",))
