"""PASCAL VOC, or any set in its layout: voc:PATH with JPEGImages, Annotations and ImageSets.

Multi-labels, boxes, semantic and instance masks. Everingham et al., IJCV 2010.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.dataset import DataOptions, DataSet
from bench.data.voc import load_voc
from bench.errors import BenchError


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the kit in the folder `arg`, such as VOCdevkit/VOC2007.

    Raises:
        BenchError: the kit is not whole or contradicts itself.
    """
    if not arg:
        raise BenchError("voc needs a folder: write --data voc:PATH, such as VOCdevkit/VOC2007")
    root = Path(arg).expanduser()
    return load_voc(root, f"voc-{root.resolve().name}", options)
