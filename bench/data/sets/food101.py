"""Food-101: 75,750 training and 25,250 test pictures of 101 dishes, in torchvision's form.

Training labels are noisy on purpose. Bossard et al., ECCV 2014.
"""

from __future__ import annotations

import json
from pathlib import Path

from bench.data.assemble import no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.picture_lists import Rows, kit, load_lists


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read `food-101/` in the data root, by meta/train.json and meta/test.json.

    Raises:
        BenchError: it is absent or not whole.
    """
    no_argument("food101", arg)
    found = kit("Food-101", "food-101", options)
    train, test = (found.read(f"meta/{part}.json", _by_class) for part in ("train", "test"))
    classes = tuple(sorted(train))

    def rows(part: dict[str, list[str]]) -> Rows:
        numbers = {name: number for number, name in enumerate(classes)}
        return [
            (f"images/{path}.jpg", numbers.get(name, -1))
            for name, paths in part.items()
            for path in paths
        ]

    return load_lists("food101", found, classes, rows(train), rows(test), options)


def _by_class(path: Path) -> dict[str, list[str]]:
    parsed = json.loads(path.read_text("utf-8"))
    return {str(name): [str(item) for item in items] for name, items in parsed.items()}
