"""Small sets of picture files are decoded once, cached as one array and memory-mapped after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import Images, MemoryImages, digest_of
from bench.data.folder import FolderImages
from bench.data.statistics import Statistics, channel_statistics
from bench.errors import BenchError
from bench.files import cache_root, write_atomic
from bench.rng import generator

IN_MEMORY = 512 * 2**20  # bytes of pixels up to which a set is decoded once
VERSION = 1  # of decoding: bump when `read_rgb` gives other pixels
SAMPLE = 512  # pictures that a lazily decoded set's channel statistics are computed from
_BATCH = 256


@dataclass(frozen=True)
class Stored:
    """Pictures ready for use: decoded and cached, or lazy; `kept` are the positions in the files.

    `digest` is of the pixels where they are decoded, else of the files' paths and sizes in bytes
    and of the side they are stored at.
    """

    images: Images
    kept: Tensor
    digest: str
    statistics: Statistics


def store(files: FolderImages, listing: str) -> Stored:
    """Decode `files` once into the cache if their pixels are few, else leave them lazy.

    Args:
        files: The pictures.
        listing: A digest of their paths and sizes.

    Raises:
        BenchError: too many are broken, or the cache cannot be written or was damaged.
    """
    side = files.size[0]
    if len(files) * 3 * side * side > IN_MEMORY:
        return _lazy(files, listing)
    # A file edited in place to the same size would be missed without the times.
    times = [(files.root / path).stat().st_mtime_ns for path in files.paths]
    stem = f"{digest_of(listing, torch.tensor(times))}-{side}-v{VERSION}"
    pixel_file = cache_root() / "data" / "pixels" / f"{stem}.npy"
    about_file = pixel_file.with_suffix(".npz")  # written last: where it is, both are whole
    if not about_file.exists():
        _decode(files, pixel_file, about_file)
    with np.load(about_file) as about:
        for path, reason in zip(about["broken"].tolist(), about["reasons"].tolist(), strict=True):
            files.broken.add(path, reason)
        kept, aspect = torch.from_numpy(about["kept"]), torch.from_numpy(about["aspect"])
        statistics = Statistics(tuple(about["mean"].tolist()), tuple(about["std"].tolist()))
        digest = str(about["digest"])
    try:
        # Copy-on-write rather than read-only, which torch would warn about; nobody writes.
        pixels = torch.from_numpy(np.load(pixel_file, mmap_mode="c"))
    except (OSError, ValueError) as error:
        about_file.unlink()
        raise BenchError(f"{pixel_file} is damaged; run again, and it is decoded anew") from error
    square = bool((aspect == 1).all())
    return Stored(MemoryImages(pixels, None if square else aspect), kept, digest, statistics)


def _decode(files: FolderImages, pixel_file: Path, about_file: Path) -> None:
    before = set(files.broken.found)
    pixels = np.empty((len(files), 3, *files.size), np.uint8)
    kept = []
    count = 0
    for index, pictures in files.stream(torch.split(torch.arange(len(files)), _BATCH)):
        pixels[count : count + len(index)] = pictures.numpy()
        kept.append(index)
        count += len(index)
    pixels = pixels[:count]
    good = torch.cat(kept) if kept else torch.empty(0, dtype=torch.int64)
    broken = {path: why for path, why in files.broken.found.items() if path not in before}
    statistics = channel_statistics(torch.from_numpy(pixels))
    digest = digest_of(torch.from_numpy(pixels))
    write_atomic(pixel_file, lambda file: np.save(file, pixels, allow_pickle=False))
    write_atomic(
        about_file,
        lambda file: np.savez(
            file,
            kept=good.numpy(),
            aspect=files.aspect[good].numpy(),
            broken=np.array(list(broken), dtype=np.str_),
            reasons=np.array(list(broken.values()), dtype=np.str_),
            mean=np.array(statistics.mean),
            std=np.array(statistics.std),
            digest=np.array(digest),
        ),
    )


def _lazy(files: FolderImages, listing: str) -> Stored:
    """The files as they are, with the statistics of a sample, cached."""
    digest = digest_of(listing, f"{files.size[0]} px, v{VERSION}")
    cached = cache_root() / "data" / "statistics" / f"{digest}.npy"
    if not cached.exists():
        rng = generator("statistics", listing)
        sample = torch.randperm(len(files), generator=rng)[:SAMPLE].sort().values
        pictures = torch.cat([pixels for _, pixels in files.stream(torch.split(sample, _BATCH))])
        found = np.array(channel_statistics(pictures))
        write_atomic(cached, lambda file: np.save(file, found, allow_pickle=False))
    mean, std = np.load(cached).tolist()
    statistics = Statistics(tuple(mean), tuple(std))
    return Stored(files, torch.arange(len(files)), digest, statistics)
