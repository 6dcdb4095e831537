"""Oxford-IIIT Pets: 3,680 training and 3,669 test pictures of 37 breeds, in torchvision's form.

Published results are means of the classes' accuracies. Parkhi et al., CVPR 2012.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.assemble import no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.picture_lists import Rows, kit, lines, load_lists


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read `oxford-iiit-pet/` in the data root, by annotations/trainval.txt and test.txt.

    Raises:
        BenchError: it is absent or not whole.
    """
    no_argument("pets", arg)
    found = kit("Oxford-IIIT Pets", "oxford-iiit-pet", options)
    train, test = (found.read(f"annotations/{part}.txt", _rows) for part in ("trainval", "test"))
    # As "images/Abyssinian_100.jpg".
    names = {label: path[7:].rpartition("_")[0] for path, label in (*train, *test)}
    classes = tuple(names.get(label, str(label)) for label in range(max(names) + 1))
    return load_lists("pets", found, classes, train, test, options)


def _rows(path: Path) -> Rows:
    """Lines such as "Abyssinian_100 1 1 1": a picture, and its class from 1."""
    split = (line.split() for line in lines(path) if not line.startswith("#"))
    return [(f"images/{item}.jpg", int(label) - 1) for item, label, *_ in split]
