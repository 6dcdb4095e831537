"""PASCAL VOC, or any set in its layout: voc:PATH with JPEGImages, Annotations and ImageSets.

Without a path it is VOCdevkit/VOC2007 in the folder of data sets. Multi-labels, boxes, semantic and
instance masks. Everingham et al., IJCV 2010.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.dataset import DataOptions, DataSet
from bench.data.voc import load_voc
from bench.errors import AbsentError


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the kit in the folder `arg`; by default VOCdevkit/VOC2007 in the folder of data sets.

    Raises:
        BenchError: the kit is not whole or contradicts itself.
    """
    if not arg and options.root is None:
        raise AbsentError("voc needs a folder: write --data voc:PATH, such as VOCdevkit/VOC2007")
    root = Path(arg).expanduser() if arg else (options.root or Path()) / "VOCdevkit" / "VOC2007"
    return load_voc(root, f"voc-{root.resolve().name}", options)
