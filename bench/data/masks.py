"""Masks in palette PNG files, read when they are asked for."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.data.dataset import LazyMasks, digest_of
from bench.data.decode import header_size
from bench.errors import BenchError

VOID = 255


class MaskFiles(LazyMasks):
    """Masks `[H, W]` uint8 at their pictures' own resolution; all void where there is no file."""

    def __init__(
        self,
        paths: list[Path | None],
        sizes: list[tuple[int, int]],
        largest: list[int],
        *,
        objects: bool,
    ) -> None:
        """Masks of pictures of `sizes` (width, height), whose values go to `largest`, or are void.

        `objects`: values are numbers of objects; gaps in them are closed, in order.

        Raises:
            BenchError: a file is no mask, or not of its picture's size.
        """
        for path, size in zip(paths, sizes, strict=True):
            if path is not None and (found := header_size(path)) != size:
                fault = f"is {found[0]} x {found[1]} px" if found else "is no picture"
                raise BenchError(f"{path}: the mask {fault}, its picture {size[0]} x {size[1]} px")
        self.paths = paths
        self.sizes = sizes
        self.largest = largest
        self.objects = objects

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def digest(self) -> str:
        """A digest of the files' names and sizes."""
        files = [path for path in self.paths if path is not None]
        sizes = torch.tensor([path.stat().st_size for path in files])
        return digest_of("\n".join(path.name for path in files), sizes)

    @overload
    def __getitem__(self, at: int) -> Tensor: ...
    @overload
    def __getitem__(self, at: slice) -> list[Tensor]: ...
    def __getitem__(self, at: int | slice) -> Tensor | list[Tensor]:
        """The mask of picture `at`.

        Raises:
            BenchError: the file is damaged, or holds a value that is neither known nor void.
        """
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        path, (width, height) = self.paths[at], self.sizes[at]
        if path is None:
            return torch.full((height, width), VOID, dtype=torch.uint8)
        try:
            with Image.open(path) as image:
                mode, mask = image.mode, np.array(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise BenchError(f"{path}: the mask cannot be read: {error}") from error
        if mode not in ("P", "L"):
            raise BenchError(f"{path}: the mask has colour mode {mode}, not palette or grey")
        return torch.from_numpy(self._numbered(path, mask, self.largest[at]))

    def _numbered(self, path: Path, mask: NDArray[np.uint8], largest: int) -> NDArray[np.uint8]:
        """`mask` with values up to `largest`."""
        present = np.setdiff1d(mask, [0, VOID])
        if not len(present) or present[-1] <= largest:
            return mask
        if self.objects and len(present) <= largest:
            renumber = np.arange(VOID + 1, dtype=np.uint8)
            renumber[present] = np.arange(1, len(present) + 1)
            return renumber[mask]
        what = f"{len(present)} objects" if self.objects else f"the class number {present[-1]}"
        raise BenchError(f"{path}: the mask holds {what}, the annotations know only {largest}")

    def take(self, index: Tensor) -> MaskFiles:
        """The masks at `index`, still unread."""
        taken = copy(self)  # not through __init__, which would read every header again
        taken.paths = [self.paths[i] for i in index.tolist()]
        taken.sizes = [self.sizes[i] for i in index.tolist()]
        taken.largest = [self.largest[i] for i in index.tolist()]
        return taken
