"""ImageNet-1k or a subset: imagenet:PATH with PATH/train and PATH/val, in class folders.

Published results are on the validation pictures (`val/`), which are the test split here; choices
are made on training pictures that are held out. Pictures are stored squashed to 256 x 256 px by
default, beside their true aspect. Russakovsky et al., arXiv:1409.0575.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.data.class_folders import load_class_folders
from bench.data.dataset import DataOptions, DataSet
from bench.data.statistics import IMAGENET
from bench.errors import AbsentError, BenchError

SIZE = 256


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the folder `arg`.

    Raises:
        BenchError: `train/` or `val/` is missing, or too many pictures are broken.
    """
    if not arg:
        raise BenchError("imagenet needs a folder: write --data imagenet:PATH")
    root = Path(arg).expanduser()
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise AbsentError(f"imagenet:{arg} needs the folder {root / part}, in class folders")
    options = replace(options, size=options.size or SIZE)
    return load_class_folders(root, "imagenet", options, IMAGENET, test_folders=("val",))
