"""Second frames that cost nothing until one is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bench.api import Batches
from bench.data.dataset import Images
from bench.data.scenes import store


@dataclass
class FrameFile:
    """All second frames of a split, rendered or read from the cache upon first access."""

    split: str
    count: int
    size: int

    @cached_property
    def pixels(self) -> Tensor:
        """`[count, 3, size, size]` uint8."""
        return store.frames(self.split, self.count, self.size)


class Frames(Images):
    """The second frames at `index` of a split."""

    def __init__(self, file: FrameFile, index: Tensor | None = None) -> None:
        self.file = file
        self.size = (file.size, file.size)
        self._index = torch.arange(file.count) if index is None else index

    def __len__(self) -> int:
        return len(self._index)

    def stream(self, batches: Iterable[Tensor]) -> Batches:
        """Yield (index, frames); nothing here can be broken."""
        for index in batches:
            yield index, self.file.pixels[self._index[index.to(self._index.device)]]

    def take(self, index: Tensor) -> Frames:
        """The frames at `index`, still not rendered."""
        return Frames(self.file, self._index[index])
