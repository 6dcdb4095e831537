"""The one face of every data set: uint8 pictures, in memory or decoded lazily, and their labels."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from bench.api import Batches, DataInfo
from bench.errors import BenchError
from bench.rng import generator

VAL_SHARE, VAL_CAP = 0.1, 5_000  # validation: a tenth of train, at most 5,000 pictures


class LazyMasks(Sequence[Tensor]):
    """Masks `[H, W]` of pictures of different sizes, read when they are asked for."""

    @abstractmethod
    def take(self, index: Tensor) -> LazyMasks:
        """The masks at `index`, in that order, still unread."""


Masks = Tensor | LazyMasks  # `[N, H, W]` uint8, or a mask each where sizes differ


class Images(ABC):
    """N pictures of one stored size, uint8 RGB `[3, H, W]` each."""

    size: tuple[int, int]  # stored (height, width), pixels
    aspect: Tensor | None = None  # [N] true width/height where pictures are stored squashed

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def stream(self, batches: Iterable[Tensor]) -> Batches:
        """Yield (index `[b]`, pictures `[b, 3, H, W]` uint8) for each index tensor of `batches`.

        Pictures that cannot be decoded are left out of their batch, named once and counted.

        Raises:
            BenchError: more pictures are broken than the set's stated limit.
        """

    @abstractmethod
    def take(self, index: Tensor) -> Images:
        """The pictures at `index`, in that order."""


class MemoryImages(Images):
    """Pictures held in one uint8 tensor `[N, 3, H, W]`, on any device (a memory map is fine)."""

    def __init__(self, pixels: Tensor, aspect: Tensor | None = None) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"expected uint8 [N, 3, H, W], got {pixels.dtype} {pixels.shape}")
        self.pixels = pixels
        self.aspect = aspect
        self.size = (pixels.shape[2], pixels.shape[3])

    def __len__(self) -> int:
        return len(self.pixels)

    def stream(self, batches: Iterable[Tensor]) -> Batches:
        """Yield (index, pictures); nothing here can be broken."""
        for index in batches:
            yield index, self.pixels[index.to(self.pixels.device)]

    def take(self, index: Tensor) -> MemoryImages:
        """The pictures at `index`, copied."""
        aspect = None if self.aspect is None else self.aspect[index]
        return MemoryImages(self.pixels[index], aspect)

    def to(self, device: torch.device) -> MemoryImages:
        """The same pictures on `device`."""
        return MemoryImages(self.pixels.to(device), self.aspect)


def resident(images: Images, device: torch.device) -> Images:
    """The pictures, moved to a GPU where they take at most a quarter of its free memory."""
    if device.type != "cuda" or not isinstance(images, MemoryImages):
        return images
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if images.pixels.nbytes < free / 4 else images


@dataclass(frozen=True)
class Boxes:
    """The objects of one picture: `xyxy` `[K, 4]` pixels, `label` `[K]`, `difficult` `[K]` bool."""

    xyxy: Tensor
    label: Tensor
    difficult: Tensor


@dataclass(frozen=True)
class Split:
    """One split: pictures, and every kind of label that the data have."""

    name: str
    images: Images
    digest: str  # of content: pictures and labels
    labels: Tensor | None = None  # [N] int64
    multilabel: Tensor | None = None  # [N, C] int8: 1 present, 0 absent, -1 difficult
    boxes: tuple[Boxes, ...] | None = None
    semantic: Masks | None = None  # N masks [H, W] uint8: 0 ground, class + 1, 255 void
    instances: Masks | None = None  # N masks [H, W] uint8: 0 ground, object + 1, 255
    text: tuple[str, ...] | None = None  # a caption each
    frames: Images | None = None  # the second frame of each picture
    motion: Tensor | None = None  # [N, k] camera motion between the two frames
    names: Sequence[str] | None = None  # each picture's file, below the folder of the data

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor, name: str | None = None) -> Split:
        """The pictures at `index` with all their labels, as a split called `name`."""
        at = index.tolist()

        def pick(masks: Masks | None) -> Masks | None:
            if masks is None:
                return None
            return masks[index] if isinstance(masks, Tensor) else masks.take(index)

        return replace(
            self,
            name=name or self.name,
            images=self.images.take(index),
            digest=digest_of(self.digest, index),
            labels=None if self.labels is None else self.labels[index],
            multilabel=None if self.multilabel is None else self.multilabel[index],
            boxes=None if self.boxes is None else tuple(self.boxes[i] for i in at),
            semantic=pick(self.semantic),
            instances=pick(self.instances),
            text=None if self.text is None else tuple(self.text[i] for i in at),
            frames=None if self.frames is None else self.frames.take(index),
            motion=None if self.motion is None else self.motion[index],
            names=None if self.names is None else [self.names[i] for i in at],
        )


@dataclass(frozen=True)
class DataSet:
    """A data set: `full` is all training pictures; `train` and `val` part it; `test` is apart."""

    info: DataInfo
    full: Split
    train: Split
    val: Split
    test: Split


@dataclass(frozen=True)
class DataOptions:
    """How to read a data set.

    `root` holds data sets in torchvision's on-disk form; `size` is the side to store pictures at
    (None: the set's own); `limit` keeps that many training pictures, class-balanced and seeded;
    `broken` is how many undecodable pictures are left out before it is an error; `workers` decode
    lazily read pictures.
    """

    root: Path | None = None
    size: int | None = None
    limit: int | None = None
    broken: int = 10
    workers: int = os.cpu_count() or 1
    log: list[str] = field(default_factory=list)  # lines for the user, such as broken pictures


def digest_of(*parts: str | bytes | Tensor) -> str:
    """A hexadecimal sha256 (first 16 digits) of names and tensors."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            state.update(f"{part.dtype}{tuple(part.shape)}".encode())
            state.update(part.contiguous().cpu().numpy().data)
        else:
            state.update(part if isinstance(part, bytes) else part.encode())
        state.update(b"\x1f")
    return state.hexdigest()[:16]


def stratified(labels: Tensor, count: int, *name: str | int) -> Tensor:
    """`count` positions, each class in its share (at least one), drawn by the seed `name`, sorted.

    Raises:
        BenchError: `count` is below the number of classes.
    """
    classes = labels.unique()
    if count < len(classes):
        raise BenchError(f"{count} pictures cannot hold {len(classes)} classes; ask for more")
    rng = generator("stratified", *name)
    order = torch.randperm(len(labels), generator=rng)
    # A picture's rank within its class over the class's size spreads every class evenly on [0, 1).
    place = torch.empty(len(labels), dtype=torch.float64)
    for value in classes:
        members = order[labels[order] == value]
        place[members] = torch.arange(len(members), dtype=torch.float64) / len(members)
    return place.argsort(stable=True)[:count].sort().values


def hold_out(full: Split) -> tuple[Split, Split]:
    """Part `full` into (train, val), seeded by the content's digest alone.

    Val holds each class in its share, unless it is too small to hold every class.
    """
    count = min(int(len(full) * VAL_SHARE), VAL_CAP)
    if full.labels is None or count < len(full.labels.unique()):
        order = torch.randperm(len(full), generator=generator("val", full.digest))
        return part(full, order[:count].sort().values)
    return part(full, stratified(full.labels, count, "val", full.digest))


def part(full: Split, chosen: Tensor) -> tuple[Split, Split]:
    """Part `full` into (train, val): the pictures at `chosen` are val's."""
    keep = torch.ones(len(full), dtype=torch.bool)
    keep[chosen] = False
    return full.take(keep.nonzero().flatten(), "train"), full.take(chosen, "val")
