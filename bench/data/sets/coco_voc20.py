"""274 COCO photographs with VOC's twenty classes, boxes and masks, from the shared archives.

Small: it shows that a pipeline is right and ranks frozen features roughly; it is not PASCAL VOC.
"""

from __future__ import annotations

from bench.data.archive import unpacked
from bench.data.assemble import no_argument
from bench.data.dataset import DataOptions, DataSet
from bench.data.voc import load_voc


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the archive; its val list is the test split.

    Raises:
        BenchError: it is absent or damaged.
    """
    no_argument("coco_voc20", arg)
    return load_voc(unpacked("coco-voc20.tar.xz"), "coco_voc20", options)
