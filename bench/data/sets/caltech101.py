"""Caltech-101: 30 training pictures of each of 102 classes, the others are test; 9,144 in all.

Torchvision's form, the background class included, as in SimCLR's transfer. Which 30 is drawn here,
once and seeded, for the authors name none. Published results are means of the classes' accuracies.
Fei-Fei et al., CVPRW 2004.
"""

from __future__ import annotations

import torch

from bench.data.assemble import no_argument
from bench.data.class_folders import scan
from bench.data.dataset import DataOptions, DataSet
from bench.data.picture_lists import kit, load_lists
from bench.errors import BenchError
from bench.rng import generator

PER_CLASS = 30
PICTURES = "101_ObjectCategories"


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read `caltech101/101_ObjectCategories/` in the data root.

    Raises:
        BenchError: it is absent or not whole.
    """
    no_argument("caltech101", arg)
    found = kit("Caltech-101", "caltech101", options)
    found.part(PICTURES)
    listing = scan(found.root, PICTURES, options.workers)
    few = (listing.labels.bincount() <= PER_CLASS).nonzero()[:, 0].tolist()
    if few:
        raise BenchError(
            f"Caltech-101 is not whole in {found.root}: {listing.classes[few[0]]} has no more than "
            f"{PER_CLASS} pictures, which all would be training pictures"
        )
    order = torch.randperm(len(listing.labels), generator=generator("caltech101"))
    chosen: set[int] = set()
    for label in range(len(listing.classes)):
        chosen.update(order[listing.labels[order] == label][:PER_CLASS].tolist())
    rows = list(zip(listing.paths, listing.labels.tolist(), strict=True))
    train = [row for i, row in enumerate(rows) if i in chosen]
    test = [row for i, row in enumerate(rows) if i not in chosen]
    return load_lists("caltech101", found, listing.classes, train, test, options)
