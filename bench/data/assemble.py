"""What every data set does with its pictures: limit them, part them, describe them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bench.api import DataInfo
from bench.data.dataset import (
    DataOptions,
    DataSet,
    MemoryImages,
    Split,
    digest_of,
    hold_out,
    part,
    stratified,
)
from bench.data.statistics import Statistics, channel_statistics
from bench.errors import BenchError

FEWEST = 10  # training pictures, below which no tenth can be held out


def assemble(
    name: str,
    classes: tuple[str, ...],
    full: Split,
    test: Split,
    statistics: Statistics,
    val: Tensor | None = None,
) -> DataSet:
    """A data set from its training and test pictures; validation is held out of training.

    `val` are its positions in `full`; by default it is a tenth, drawn by `hold_out`.

    Raises:
        BenchError: there are too few training pictures, or none to test on.
    """
    if len(full) < FEWEST or not len(test):
        raise BenchError(
            f"{name} has {len(full)} training and {len(test)} test pictures that can be read; "
            f"at least {FEWEST} and 1 are needed"
        )
    train, held = hold_out(full) if val is None else part(full, val)
    mean, std = statistics
    info = DataInfo(
        name=name,
        digest=digest_of(full.digest, test.digest),
        size=full.images.size[0],
        classes=classes,
        n_train=len(full),
        mean=mean,
        std=std,
        has=_kinds(full) | _color(statistics),
    )
    return DataSet(info, full, train, held, test)


def in_memory(
    name: str,
    classes: tuple[str, ...],
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    options: DataOptions,
    statistics: Statistics | None = None,
) -> DataSet:
    """A data set of tensors: pixels `[N, 3, S, S]` uint8 and labels `[N]` int64, limited, resized.

    `statistics` are computed from the training pixels where none are given.
    """
    pixels, labels = train
    keep = limit(labels, name, options)
    if keep is not None:
        name = limited_name(name, options)
        pixels, labels = pixels[keep], labels[keep]
    pixels = at_size(pixels, options.size)
    full = _split("full", pixels, labels)
    held = _split("test", at_size(test[0], options.size), test[1])
    return assemble(name, classes, full, held, statistics or channel_statistics(pixels))


def limit(labels: Tensor, name: str, options: DataOptions) -> Tensor | None:
    """The positions that `options.limit` keeps, class-balanced; None where it keeps all.

    Raises:
        BenchError: the limit is below the number of classes.
    """
    if options.limit is None or options.limit >= len(labels):
        return None
    return stratified(labels, options.limit, "limit", name)


def limited_name(name: str, options: DataOptions) -> str:
    """The name of a set that was limited, such as `cifar10-limit5000`."""
    return f"{name}-limit{options.limit}"


def no_argument(name: str, arg: str | None) -> None:
    """Refuse an argument to a set that takes none.

    Raises:
        BenchError: there is one.
    """
    if arg is not None:
        raise BenchError(f"data set {name} takes no argument; write --data {name}, without :{arg}")


def at_size(pixels: Tensor, size: int | None) -> Tensor:
    """Pictures `[N, 3, S, S]` uint8 resampled to `size`, antialiased; None leaves them."""
    if size is None or size == pixels.shape[-1]:
        return pixels
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)


def _split(name: str, pixels: Tensor, labels: Tensor) -> Split:
    return Split(name, MemoryImages(pixels), digest_of(pixels, labels), labels)


def _kinds(split: Split) -> frozenset[str]:
    present = {
        "labels": split.labels,
        "multilabel": split.multilabel,
        "boxes": split.boxes,
        "masks": split.semantic,
        "text": split.text,
        "frames": split.frames,
        "motion": split.motion,
    }
    return frozenset(kind for kind, value in present.items() if value is not None)


def _color(statistics: Statistics) -> frozenset[str]:
    """{"color"}, unless the channels do not differ in mean or deviation: grey, stored as RGB."""
    grey = all(len({round(value, 6) for value in channel}) == 1 for channel in statistics)
    return frozenset() if grey else frozenset({"color"})
