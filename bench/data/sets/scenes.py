"""Procedural pictures of 12 kinds of objects in lit scenes, rendered from a seed (the default)."""

from __future__ import annotations

from torch import Tensor

from bench.data.assemble import assemble, limit, limited_name
from bench.data.dataset import Boxes, DataOptions, DataSet, MemoryImages, Split
from bench.data.scenes import store
from bench.data.scenes.catalog import CLASSES
from bench.data.scenes.frames import FrameFile, Frames
from bench.data.statistics import Statistics
from bench.errors import BenchError

TRAIN, TEST = 10_000, 2_000
SIZE, SMALLEST, LARGEST = 32, 16, 128  # sides, pixels


def load(arg: str | None, options: DataOptions) -> DataSet:
    """The scenes at side `arg` (as in `--data scenes:64`) or `options.size`, 32 by default.

    Raises:
        BenchError: the side is not a whole number from 16 to 128, or is given twice, differently.
    """
    size = _side(arg, options.size)
    name = "scenes" if size == SIZE else f"scenes{size}"
    train = store.pictures("train", TRAIN, size, options.log)
    full = _split("full", train, FrameFile("train", TRAIN, size))
    keep = limit(train.tensors["label"], name, options)
    if keep is not None:
        name, full = limited_name(name, options), full.take(keep)
    test = store.pictures("test", TEST, size, options.log)
    held = _split("test", test, FrameFile("test", TEST, size))
    mean, std = train.tensors["statistics"].tolist()
    return assemble(name, CLASSES, full, held, Statistics(tuple(mean), tuple(std)))


def _side(arg: str | None, option: int | None) -> int:
    if arg is not None and not arg.isdecimal():
        raise BenchError(f"scenes:{arg}: after the colon comes a side in pixels, as in scenes:64")
    given = {int(side) for side in (arg, option) if side is not None} or {SIZE}
    if len(given) > 1:
        raise BenchError(f"scenes:{arg} and size {option} disagree; give the side once")
    (size,) = given
    if not SMALLEST <= size <= LARGEST:
        raise BenchError(f"scenes has sides from {SMALLEST} to {LARGEST} pixels, not {size}")
    return size


def _split(name: str, stored: store.Stored, frames: FrameFile) -> Split:
    data = stored.tensors
    return Split(
        name=name,
        images=MemoryImages(data["pixels"]),
        digest=stored.digest,
        labels=data["label"],
        multilabel=data["multilabel"],
        boxes=_boxes(data["boxes"].float(), data["box_label"].long(), data["difficult"]),
        semantic=data["semantic"],
        instances=data["instances"],
        text=tuple(data["text"].numpy().tobytes().decode().split("\n")),
        frames=Frames(frames),
        motion=data["motion"],
    )


def _boxes(xyxy: Tensor, label: Tensor, difficult: Tensor) -> tuple[Boxes, ...]:
    """Each picture's boxes, without the padding (label -1) that follows them."""
    counts = (label >= 0).sum(1).tolist()
    return tuple(
        Boxes(xyxy[i, :count], label[i, :count], difficult[i, :count])
        for i, count in enumerate(counts)
    )
