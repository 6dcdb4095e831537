"""Rendered splits on disk: rendered once, checked whenever they are read, rendered again if bad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bench.data.dataset import digest_of
from bench.data.scenes.captions import describe
from bench.data.scenes.compose import Scenes, compose
from bench.data.scenes.labels import annotate
from bench.data.scenes.render import Rendered, render
from bench.data.statistics import channel_statistics
from bench.files import cache_root, write_atomic

VERSION = 1  # of the pictures: bump it with any change that alters a pixel or a label
_BATCH = 500  # pictures


@dataclass(frozen=True)
class Stored:
    """Tensors by name, and the digest of them all."""

    tensors: dict[str, Tensor]
    digest: str


def pictures(split: str, count: int, size: int, log: list[str]) -> Stored:
    """The first `count` pictures of `split` and all their labels, from the cache or rendered."""

    def make() -> dict[str, Tensor]:
        scenes = compose(split, count, VERSION)
        rendered = render(scenes, size)
        labels = _annotated(scenes, rendered)
        text = "\n".join(describe(scenes, labels.pop("slot")))
        return {
            "pixels": rendered.pixels,
            "statistics": torch.tensor(channel_statistics(rendered.pixels), dtype=torch.float64),
            "label": scenes.label,
            "motion": scenes.motion.float(),
            "text": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8),
            **labels,
        }

    return _cached(_path(split, count, size), make, log)


def frames(split: str, count: int, size: int) -> Tensor:
    """The second frames of those pictures, `[count, 3, size, size]` uint8."""

    def make() -> dict[str, Tensor]:
        return {"pixels": render(compose(split, count, VERSION), size, moved=True).pixels}

    return _cached(_path(f"{split}-frames", count, size), make, []).tensors["pixels"]


def _annotated(scenes: Scenes, rendered: Rendered) -> dict[str, Tensor]:
    """Every label, a few pictures at a time: the masks of all objects at once would not fit."""
    slices = [slice(i, i + _BATCH) for i in range(0, len(scenes), _BATCH)]
    parts = [annotate(scenes.take(some), rendered.take(some)) for some in slices]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _path(name: str, count: int, size: int) -> Path:
    return cache_root() / "data" / f"scenes-v{VERSION}" / f"{name}-{count}-{size}px.safetensors"


def _cached(path: Path, make: Callable[[], dict[str, Tensor]], log: list[str]) -> Stored:
    if path.exists():
        stored = _read(path)
        if stored is not None:
            return stored
        log.append(f"{path} was damaged; its pictures were rendered again")
    tensors = {name: tensor.contiguous() for name, tensor in make().items()}
    digest = _digest(tensors)
    write_atomic(path, lambda file: file.write(save(tensors, {"digest": digest})))
    return Stored(tensors, digest)


def _read(path: Path) -> Stored | None:
    """The memory-mapped tensors of a cache file; None where they are not what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get("digest", "")
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError):
        return None
    return Stored(tensors, digest) if _digest(tensors) == digest else None


def _digest(tensors: dict[str, Tensor]) -> str:
    parts = [part for name in sorted(tensors) for part in (name, tensors[name])]
    return digest_of("scenes", str(VERSION), *parts)
