"""Data sets in torchvision's on-disk form, downloaded where the network allows."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.datasets import VisionDataset

from bench.data.assemble import in_memory
from bench.data.dataset import DataOptions, DataSet
from bench.data.statistics import Statistics
from bench.errors import AbsentError
from bench.files import cache_root

TIMEOUT = 10.0  # seconds without an answer, after which the network counts as closed


def folder(options: DataOptions) -> Path:
    """Where sets are: `options.root`, else `$BENCH_DATA`, else the cache."""
    given = os.environ.get("BENCH_DATA")
    return options.root or (Path(given) if given else cache_root() / "data")


def fetch(
    title: str,
    opener: Callable[..., VisionDataset],
    inside: str,
    archive: str,
    options: DataOptions,
) -> VisionDataset:
    """A torchvision data set, read from disk, else unpacked or downloaded there.

    Args:
        title: The set's name for the user.
        opener: Called as `opener(root, download=...)`.
        inside: The folder that torchvision expects under its root.
        archive: The file that torchvision would unpack there.
        options: Where to look.

    Raises:
        BenchError: it is absent and cannot be downloaded.
    """
    root = folder(options)
    try:
        return opener(root, download=False)
    except RuntimeError:  # absent, or of other content than torchvision's checksums
        pass
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _timeout():
            return opener(root, download=True)
    except (OSError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AbsentError(
            f"{title} is not (or not whole) in {root}, and could not be downloaded ({reason}); put "
            f"the folder {inside} or the file {archive} there, or name another place with "
            "--data-root or $BENCH_DATA"
        ) from error


def tensors(pixels: NDArray[np.uint8], labels: object) -> tuple[Tensor, Tensor]:
    """Pictures `[N, 3, H, W]` and labels `[N]` int64 as tensors of their own."""
    return torch.from_numpy(pixels).contiguous(), torch.as_tensor(labels, dtype=torch.int64)


@contextmanager
def _timeout() -> Iterator[None]:
    """Downloads give up soon; torchvision has no setting for it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_cifar(
    name: str,
    kind: Any,  # torchvision is untyped
    title: str,
    options: DataOptions,
    statistics: Statistics,
) -> DataSet:
    """Torchvision's CIFAR10 or CIFAR100 (`kind`) as `name`: its own training and test batches.

    Raises:
        BenchError: it is absent and cannot be downloaded.
    """
    train, test = (
        fetch(title, partial(kind, train=is_train), kind.base_folder, kind.filename, options)
        for is_train in (True, False)
    )
    return in_memory(
        name,
        tuple(train.classes),
        tensors(train.data.transpose(0, 3, 1, 2), train.targets),
        tensors(test.data.transpose(0, 3, 1, 2), test.targets),
        options,
        statistics,
    )
