"""Pictures in one folder per class, the layout of ImageNet and of torchvision's ImageFolder."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from bench.data.assemble import assemble, limit, limited_name
from bench.data.captions import caption_file, read_captions
from bench.data.dataset import DataOptions, DataSet, Split, digest_of, stratified
from bench.data.decode import header_size, is_picture
from bench.data.folder import Broken, FolderImages
from bench.data.statistics import Statistics
from bench.data.stored import store
from bench.errors import AbsentError, BenchError

LARGEST = 256  # pixels: pictures of unknown size are stored no larger by default
TEST_SHARE = 0.2  # of a folder that is not parted into training and test pictures
_HEADERS = 64  # pictures whose headers tell a set's own size


@dataclass(frozen=True)
class Listing:
    """Picture files by class, sorted: paths relative to `root`, labels and sizes in bytes."""

    root: Path
    classes: tuple[str, ...]
    paths: list[str]
    labels: Tensor  # [N] int64
    bytes: Tensor  # [N] int64
    captioned: bool  # whether beside each picture is a text of its name

    @property
    def digest(self) -> str:
        """A digest of every path, label and size."""
        return digest_of("\n".join(self.paths), self.labels, self.bytes)

    def take(self, index: Tensor) -> Listing:
        """The files at `index`."""
        paths = [self.paths[i] for i in index.tolist()]
        return replace(self, paths=paths, labels=self.labels[index], bytes=self.bytes[index])


def load_class_folders(
    root: Path,
    name: str,
    options: DataOptions,
    statistics: Statistics | None = None,
    test_folders: tuple[str, ...] = ("test", "val"),
    flat: bool = False,
) -> DataSet:
    """Read `root/train/<class>/*`, and the first of `test_folders` that is there as the test split.

    Class folders directly under `root` are parted into training and test pictures, seeded.
    Captions are read where every picture has one, NAME.txt beside NAME.jpg.
    Pictures whose pixels fit in memory are decoded once and cached, others as they are needed.
    With `flat`, folders are no classes, and there are no labels.

    Raises:
        BenchError: `root` is not such a folder, some captions are missing, or too many pictures
            are broken.
    """
    train, test = _train_and_test(root, name, options, test_folders, flat)
    size = options.size or own_size(train.root, train.paths)
    keep = limit(train.labels, name, options)
    if keep is not None:
        name, train = limited_name(name, options), train.take(keep)
    broken = Broken(options.broken, options.log)
    full, found = _split("full", train, size, broken, options.workers)
    held, _ = _split("test", test, size, broken, options.workers)
    return assemble(name, train.classes, full, held, statistics or found)


def scan(root: Path, part: str, workers: int, classes: tuple[str, ...] | None = None) -> Listing:
    """List the pictures of every class folder in `root/part`, those in sub-folders too.

    `classes` are the classes to expect; by default those that hold pictures.

    Raises:
        BenchError: there is no such folder, no picture in class folders, another class, or a
            caption to some pictures and not to others.
    """
    folder = _existing(root / part)
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    names = [name for name in names if not name.startswith(".")]
    with ThreadPoolExecutor(max(workers, 1)) as pool:  # asking for a million sizes takes a while
        listed = list(pool.map(lambda name: _files(root, folder / name), names))
    files = {name: found for name, found in zip(names, listed, strict=True) if found}
    if not files:
        raise BenchError(f"{folder} holds no pictures in class folders ({folder}/<class>/*.jpg)")
    classes = classes or tuple(files)
    if strange := sorted(set(files) - set(classes)):
        raise BenchError(f"{folder} has the class folder {strange[0]!r}, which train/ has not")
    rows = [(*row, label) for label, name in enumerate(classes) for row in files.get(name, [])]
    return _listing(root, classes, rows)


def _scan_flat(root: Path, part: str) -> Listing:
    """List all pictures in `root/part` and its sub-folders, without classes."""
    folder = _existing(root / part)
    rows = [(*row, 0) for row in _files(root, folder)]
    if not rows:
        raise BenchError(f"{folder} holds no pictures")
    return _listing(root, (), rows)


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise AbsentError(f"{folder} is not a folder; give the folder that holds the pictures")
    return folder


def _listing(
    root: Path, classes: tuple[str, ...], rows: list[tuple[str, int, bool, int]]
) -> Listing:
    paths, sizes, captioned, labels = zip(*rows, strict=True)
    # Files beside pictures in class folders may be anything; `captions:` has no other use for them.
    if not classes and any(captioned) and not all(captioned):
        bare = root / paths[captioned.index(False)]
        raise BenchError(
            f"{bare} has no caption, as {sum(captioned)} of {len(paths)} pictures have: write it "
            f"to {caption_file(bare).name} beside it, or remove the others"
        )
    return Listing(
        root, classes, list(paths), torch.tensor(labels), torch.tensor(sizes), all(captioned)
    )


def _files(root: Path, folder: Path) -> list[tuple[str, int, bool]]:
    """Each picture's path relative to `root`, its bytes, and whether it has a caption."""

    def fail(error: OSError) -> None:  # os.walk would pass over a folder that it may not read
        raise error

    found = []
    try:
        for where, _, names in os.walk(folder, onerror=fail, followlinks=True):
            texts = {name for name in names if name.endswith(".txt")}
            for name in filter(is_picture, names):
                path = Path(where, name)
                captioned = caption_file(path).name in texts
                found.append((path.relative_to(root).as_posix(), path.stat().st_size, captioned))
    except OSError as error:
        raise BenchError(f"{error.filename} cannot be read: {error.strerror}") from error
    return sorted(found)


def _train_and_test(
    root: Path, name: str, options: DataOptions, test_folders: tuple[str, ...], flat: bool
) -> tuple[Listing, Listing]:
    if not root.is_dir():
        raise AbsentError(f"data set {name}: there is no folder {root}")

    def listed(part: str, classes: tuple[str, ...] | None = None) -> Listing:
        return _scan_flat(root, part) if flat else scan(root, part, options.workers, classes)

    parted = (root / "train").is_dir()
    if not flat:  # it may also be a class that is called so
        parted = parted and any(p.is_dir() for p in (root / "train").iterdir())
    train = listed("train" if parted else "")
    there = [part for part in test_folders if parted and (root / part).is_dir()]
    if len(there) > 1:
        options.log.append(
            f"{root / there[1]} is not used: choices are made on held-out training pictures"
        )
    if there:
        return train, listed(there[0], train.classes)
    count = max(round(len(train.paths) * TEST_SHARE), len(train.classes))
    chosen = stratified(train.labels, count, "test", train.digest)
    rest = torch.ones(len(train.paths), dtype=torch.bool)
    rest[chosen] = False
    options.log.append(
        f"{root} has no test pictures of its own: {count} of {len(rest)} were set apart, seeded"
    )
    return train.take(rest.nonzero().flatten()), train.take(chosen)


def own_size(root: Path, paths: list[str]) -> int:
    """The pictures' usual shorter side, by the headers of some; at most `LARGEST`."""
    step = max(1, len(paths) // _HEADERS)
    headers = (header_size(root / path) for path in paths[::step])
    sides = [min(size) for size in headers if size]
    return min(LARGEST, int(median(sides))) if sides else LARGEST


def _split(
    name: str, listing: Listing, size: int, broken: Broken, workers: int
) -> tuple[Split, Statistics]:
    files = FolderImages(listing.root, listing.paths, size, broken, workers)
    stored = store(files, listing.digest)
    kept = listing.take(stored.kept)
    labels = kept.labels if kept.classes else None
    text = read_captions(kept.root, kept.paths, workers) if kept.captioned else None
    told = [] if text is None else ["\n".join(text)]
    digest = digest_of(stored.digest, kept.labels, *told)
    split = Split(name, stored.images, digest, labels, text=text, names=kept.paths)
    return split, stored.statistics
