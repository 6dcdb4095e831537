"""COCO, or any set in its layout: coco:PATH with annotations/instances_{train,val}*.json.

Pictures lie in the folders that these files are named after, such as PATH/train2017. Multi-labels,
boxes, semantic and instance masks; val is the test split. Lin et al., arXiv:1405.0312.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.coco import load_coco
from bench.data.dataset import DataOptions, DataSet
from bench.errors import BenchError


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the set in the folder `arg`.

    Raises:
        BenchError: the set is not whole or contradicts itself.
    """
    if not arg:
        raise BenchError("coco needs a folder: write --data coco:PATH, with PATH/annotations")
    root = Path(arg).expanduser()
    return load_coco(root, f"coco-{root.resolve().name}", options)
