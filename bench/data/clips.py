"""Clips: folders of video frames, one folder to a video, and the pairs of frames in them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.data.dataset import stratified
from bench.data.decode import is_picture
from bench.errors import BenchError

MOTION = "motion.csv"


@dataclass(frozen=True)
class Clip:
    """A video: `frames` are paths relative to `root`, in their order; `label` -1 if it has none.

    `motion` `[pairs, k]` is the camera's between each frame and its second frame.
    """

    root: Path
    name: str
    label: int
    frames: tuple[str, ...]
    motion: Tensor | None


def scan_clips(
    root: Path, part: str, stride: int, log: list[str], classes: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], list[Clip]]:
    """List the clips in `root/part`, or, where that holds folders of clips, in its class folders.

    Frames are in the order of their names, numbers by value (2.jpg before 10.jpg). Clips without
    a pair of frames `stride` apart are left out, which is logged.

    Args:
        root: the folder that paths are relative to.
        part: "" or a folder in it.
        stride: from a frame to its second frame.
        log: lines for the user.
        classes: those to expect; by default what is there. Empty: clips without class folders.

    Returns:
        The classes, none without class folders, and the clips sorted by name.

    Raises:
        BenchError: there is no such folder, no clip or another class in it, or a motion is amiss.
    """
    folder = root / part
    if not folder.is_dir():
        raise BenchError(f"{folder} is not a folder; give the folder that holds the clips")
    outer = _folders(folder)
    flat = [sub for sub in outer if _frames(sub)]
    nested = [clip for sub in outer for clip in _folders(sub) if _frames(clip)]
    if flat and nested:
        raise BenchError(
            f"{folder} holds clips ({flat[0].name}) beside folders of clips "
            f"({nested[0].parent.name}); put each clip into a class folder, or none"
        )
    if not flat and not nested:
        raise BenchError(
            f"{folder} holds no clips: put the frames of each into a folder "
            f"({folder}/<clip>/*.jpg or {folder}/<class>/<clip>/*.jpg)"
        )
    found = tuple(sorted({clip.parent.name for clip in nested}))
    classes = found if classes is None else classes
    if strange := sorted(set(found) - set(classes)) or (flat and classes):
        what = "no class folders" if flat else f"the class folder {strange[0]!r}"
        raise BenchError(f"{folder} has {what}, unlike {root / 'train'}")
    clips, short = [], []
    for path in flat or nested:
        frames = _frames(path)
        name = path.relative_to(root).as_posix()
        if len(frames) <= stride:
            short.append(name)
            continue
        motion = _motion(path / MOTION, len(frames) - stride)
        label = classes.index(path.parent.name) if nested else -1
        clips.append(Clip(root, name, label, tuple(f"{name}/{f}" for f in frames), motion))
    if not clips:
        raise BenchError(f"{folder} has no clip of more than {stride} frames, so no pair of frames")
    if short:
        log.append(
            f"left out {len(short)} clips of at most {stride} frames, which have no pair at "
            f"stride {stride}, the first being {short[0]}"
        )
    return classes, clips


def held_out(clips: Sequence[Clip], share: float, *name: str) -> Tensor:
    """The positions of the clips to hold out, each class in its share, seeded by `name`, sorted.

    Raises:
        BenchError: the only clip of a class would have to be held out.
    """
    if not clips:
        return torch.empty(0, dtype=torch.int64)
    labels = torch.tensor([clip.label for clip in clips])
    classes, counts = labels.unique(return_counts=True)
    if counts.min() < 2:
        alone = int((labels == classes[counts.argmin()]).nonzero()[0])
        raise BenchError(
            f"{clips[alone].root / clips[alone].name} is the only clip left to train on, in all or "
            "in its class; training, validation and test need a clip each of every class"
        )
    return stratified(labels, max(round(len(clips) * share), len(classes)), "clips", *name)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise BenchError(f"{folder} cannot be read: {error.strerror}") from error


def _frames(folder: Path) -> list[str]:
    try:
        names = [path.name for path in folder.iterdir() if is_picture(path.name)]
    except OSError as error:
        raise BenchError(f"{folder} cannot be read: {error.strerror}") from error
    return sorted(names, key=lambda name: (_numbered(name), name))


def _numbered(name: str) -> list[int | str]:
    return [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", name)]


def _motion(path: Path, pairs: int) -> Tensor | None:
    """The numbers in `path`, `[pairs, k]` float32; None where there is no such file."""
    if not path.exists():
        return None
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        rows = [[float(value) for value in line.split(",")] for line in lines]
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: {error}; give numbers only, without a heading") from error
    if len(rows) != pairs:
        raise BenchError(f"{path} has {len(rows)} rows, but its clip {pairs} pairs of frames")
    if len({len(row) for row in rows}) > 1:
        raise BenchError(f"{path} has rows of different lengths")
    if not all(math.isfinite(value) for row in rows for value in row):
        raise BenchError(f"{path} has a number that is not finite")
    return torch.tensor(rows)
