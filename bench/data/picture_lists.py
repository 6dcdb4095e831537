"""Sets whose own files list the training and the test pictures, as the fine-grained ones' do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor

from bench.data.assemble import assemble, limit, limited_name
from bench.data.dataset import DataOptions, DataSet, Split, digest_of
from bench.data.folder import Broken, FolderImages
from bench.data.statistics import IMAGENET
from bench.data.stored import store
from bench.data.torchvision_sets import folder
from bench.errors import AbsentError, BenchError

SIZE = 256  # px: stored squashed, beside the true aspect, as `imagenet` is
T = TypeVar("T")
Rows = list[tuple[str, int]]  # a picture's path below the set's folder, and its class


@dataclass(frozen=True)
class Kit:
    """A set's folder under the data root, of which parts are asked for as they are needed."""

    title: str  # the set's name for the user
    root: Path

    def part(self, name: str) -> Path:
        """The path of a file or folder of the set.

        Raises:
            BenchError: it is not there.
        """
        path = self.root / name
        if not path.exists():
            raise AbsentError(
                f"{self.title} is not (or not whole) in {self.root}: there is no {name}; unpack it "
                "there (nothing is downloaded), or name another place with --data-root or "
                "$BENCH_DATA"
            )
        return path

    def read(self, name: str, parse: Callable[[Path], T]) -> T:
        """What `parse` makes of a file of the set.

        Raises:
            BenchError: the file is not there, or not what it should be.
        """
        path = self.part(name)
        try:
            return parse(path)
        except (OSError, ValueError, AttributeError, IndexError, TypeError) as error:
            raise BenchError(f"{path} is damaged, or no list of {self.title}: {error}") from error


def kit(title: str, inside: str, options: DataOptions) -> Kit:
    """The set called `title`, in the folder `inside` of the data root."""
    return Kit(title, folder(options) / inside)


def lines(path: Path) -> list[str]:
    """The lines of a text that hold something."""
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]


def mat_column(path: Path, name: str) -> list[Any]:
    """The variable `name` of a MATLAB file, as a list.

    Raises:
        ValueError: it is no such file, or has no such variable.
    """
    try:
        return list(loadmat(path, squeeze_me=True)[name])
    except (MatReadError, NotImplementedError, KeyError) as error:
        raise ValueError(f"no variable {name} can be read ({error})") from error


def load_lists(
    name: str,
    found: Kit,
    classes: tuple[str, ...],
    train: Rows,
    test: Rows,
    options: DataOptions,
    val: Rows | None = None,
) -> DataSet:
    """The listed pictures, normalised as ImageNet's, decoded as needed where they are many.

    Args:
        name: The set's name.
        found: Where the pictures are.
        classes: The classes' names.
        train: Training pictures.
        test: Test pictures.
        options: Side, limit, and how many broken pictures are allowed.
        val: Pictures to make choices on, where the set has its own; by default, and where `limit`
            leaves pictures out, a tenth of the training pictures is held out.

    Raises:
        BenchError: a listed picture is not there, a class is none, or too many are broken.
    """
    rows = train + (val or [])
    keep = limit(torch.tensor([label for _, label in rows]), name, options)
    if keep is not None:
        name, val = limited_name(name, options), None
        rows = [rows[i] for i in keep.tolist()]
    broken = Broken(options.broken, options.log)
    full, kept = _split("full", found, classes, rows, options, broken)
    held, _ = _split("test", found, classes, test, options, broken)
    own = (kept >= len(train)).nonzero()[:, 0] if val else None
    return assemble(name, classes, full, held, IMAGENET, own)


def _split(
    name: str,
    found: Kit,
    classes: tuple[str, ...],
    rows: Rows,
    options: DataOptions,
    broken: Broken,
) -> tuple[Split, Tensor]:
    """A split, and the positions in `rows` of its pictures: those that could be decoded."""
    paths, labels = [path for path, _ in rows], torch.tensor([label for _, label in rows])
    strange = ((labels < 0) | (labels >= len(classes))).nonzero()[:, 0].tolist()
    if strange:
        raise BenchError(
            f"{found.title} lists {paths[strange[0]]} as class {int(labels[strange[0]])} from 0, "
            f"but has {len(classes)} classes"
        )
    sizes = torch.tensor([_bytes(found, path) for path in paths])
    files = FolderImages(found.root, paths, options.size or SIZE, broken, options.workers)
    stored = store(files, digest_of("\n".join(paths), labels, sizes))
    labels = labels[stored.kept]
    names = [paths[at] for at in stored.kept.tolist()]
    split = Split(name, stored.images, digest_of(stored.digest, labels), labels, names=names)
    return split, stored.kept


def _bytes(found: Kit, path: str) -> int:
    try:
        return (found.root / path).stat().st_size
    except OSError as error:
        raise BenchError(
            f"{found.title} lists {path}, which is not in {found.root}; unpack its pictures there"
        ) from error
