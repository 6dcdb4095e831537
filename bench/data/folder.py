"""Pictures in files, decoded as they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.api import Batches
from bench.data.dataset import Images
from bench.data.decode import UndecodableError, read_rgb
from bench.errors import BenchError

AHEAD = 3  # batches that are decoded before they are asked for
CHUNK = 16  # pictures to a job: a job of one 32 px picture would be mostly overhead


class Broken:
    """The pictures of a data set that could not be decoded: named once each, and counted.

    One object is shared by all splits of a set, so that the limit is the set's.
    """

    def __init__(self, limit: int, log: list[str]) -> None:
        self.limit = limit
        self.log = log
        self.found: dict[str, str] = {}

    def add(self, path: str, reason: str) -> None:
        """Note that `path` is broken for `reason`.

        Raises:
            BenchError: there are now more than the limit.
        """
        if path in self.found:
            return
        self.found[path] = reason
        if len(self.found) > self.limit:
            first = ", ".join(f"{name} ({why})" for name, why in islice(self.found.items(), 3))
            raise BenchError(
                f"more than {self.limit} pictures cannot be decoded, the first being {first}; "
                f"repair or delete them, or allow more with --set data.broken=N"
            )
        self.log.append(f"left out a broken picture: {path} ({reason})")


class FolderImages(Images):
    """Picture files, decoded by threads ahead of their use and squashed to a square.

    `aspect` is NaN until a picture is first decoded: `stream` fills in a batch's rows before it
    yields the batch, because reading a million headers beforehand would take minutes.
    Pictures are the same for any number of `workers`.
    """

    aspect: Tensor

    def __init__(
        self, root: Path, paths: list[str], size: int, broken: Broken, workers: int
    ) -> None:
        self.root = root
        self.paths = paths  # relative to root
        self.size = (size, size)
        self.broken = broken
        self.workers = max(workers, 1)
        self.aspect = torch.full((len(paths),), torch.nan)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, index: Tensor) -> FolderImages:
        """The pictures at `index`, still undecoded."""
        paths = [self.paths[i] for i in index.tolist()]
        taken = FolderImages(self.root, paths, self.size[0], self.broken, self.workers)
        taken.aspect = self.aspect[index]
        return taken

    def stream(self, batches: Iterable[Tensor]) -> Batches:
        """Yield (index, pictures) for each of `batches`, without the broken pictures.

        A batch of nothing but broken pictures is yielded empty.

        Raises:
            BenchError: more pictures are broken than allowed.
        """
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        try:
            started = (_Decoding(self, index, pool) for index in batches)
            for decoding in _ahead(started, AHEAD):
                yield decoding.result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Decoding:
    """One batch on its way through the pool."""

    def __init__(self, images: FolderImages, index: Tensor, pool: ThreadPoolExecutor) -> None:
        self.images = images
        self.index = index.cpu()
        self.positions: list[int] = self.index.tolist()
        self.pixels: NDArray[np.uint8] = np.empty((len(index), 3, *images.size), np.uint8)
        self.aspect: NDArray[np.float32] = np.ones(len(index), np.float32)
        chunks = (slice(at, at + CHUNK) for at in range(0, len(index), CHUNK))
        self.jobs: list[Future[dict[int, str]]] = [pool.submit(self._read, c) for c in chunks]

    def _read(self, rows: slice) -> dict[int, str]:
        """Decode some rows in place; the reason for each row that cannot be."""
        failed = {}
        for row in range(len(self.positions))[rows]:
            path = self.images.root / self.images.paths[self.positions[row]]
            try:
                self.pixels[row], self.aspect[row] = read_rgb(path, self.images.size[0])
            except UndecodableError as error:
                failed[row] = str(error)
        return failed

    def result(self) -> tuple[Tensor, Tensor]:
        """The decoded pictures and their index, once all are done."""
        failed = {row: why for job in self.jobs for row, why in job.result().items()}
        for row, why in failed.items():
            self.images.broken.add(self.images.paths[self.positions[row]], why)
        index, pixels = self.index, torch.from_numpy(self.pixels)
        aspect = torch.from_numpy(self.aspect)
        if failed:
            good = torch.ones(len(index), dtype=torch.bool)
            good[list(failed)] = False
            index, pixels, aspect = index[good], pixels[good], aspect[good]
        self.images.aspect[index] = aspect
        return index, pixels


def _ahead(source: Iterator[_Decoding], count: int) -> Iterator[_Decoding]:
    """`source` in its order, always started `count` items early."""
    waiting: deque[_Decoding] = deque(islice(source, count))
    while waiting:
        yield waiting.popleft()
        waiting.extend(islice(source, 1))
