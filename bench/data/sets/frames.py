"""Any folder of video frames: frames:PATH with PATH/<clip>/*.jpg, or PATH/<class>/<clip>/*.jpg.

A picture's second frame is the next of its clip, or with frames:PATH,stride=5 the fifth after it.
A clip may hold motion.csv, a row of numbers to each pair: the camera's motion. Clips come from
PATH/train and PATH/test (or val); without these, whole clips are held out for test.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bench.data.assemble import assemble, limit, limited_name
from bench.data.class_folders import TEST_SHARE, own_size
from bench.data.clips import MOTION, Clip, held_out, scan_clips
from bench.data.dataset import VAL_SHARE, DataOptions, DataSet, Split, digest_of
from bench.data.folder import Broken, FolderImages
from bench.data.statistics import Statistics
from bench.data.stored import store
from bench.errors import AbsentError, BenchError


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Read the folder `arg`.

    Neighbouring frames are nearly the same picture, so no clip gives pictures to two of training,
    validation and test. A pair is left out where either frame is broken.

    Raises:
        BenchError: it is no such folder, there are too few clips, or too many broken pictures.
    """
    root, stride = _parse(arg)
    name = f"frames-{root.resolve().name}" + (f"-stride{stride}" if stride > 1 else "")
    classes, train, test = _train_and_test(root, stride, options)
    columns = {0 if clip.motion is None else clip.motion.shape[1] for clip in (*train, *test)}
    if len(columns) > 1:
        raise BenchError(f"{root}: give every clip a {MOTION} of as many columns, or none")
    size = options.size or own_size(root, [path for clip in train for path in clip.frames])
    broken = Broken(options.broken, options.log)
    full, clip, statistics = _split("full", train, stride, size, broken, options.workers)
    held, _, _ = _split("test", test, stride, size, broken, options.workers)
    keep = limit(clip.new_zeros(len(clip)) if full.labels is None else full.labels, name, options)
    if keep is not None:
        name, full, clip = limited_name(name, options), full.take(keep, "full"), clip[keep]
    there = clip.unique()
    chosen = held_out([train[i] for i in there.tolist()], VAL_SHARE, "val", full.digest)
    in_val = torch.isin(clip, there[chosen]).nonzero().flatten()
    return assemble(name, classes, full, held, statistics, in_val)


class _Unpaired(Broken):
    """For frames that are decoded as they are needed: their pairs are already made."""

    def add(self, path: str, reason: str) -> None:
        """Refuse: the first and the second frames of a batch would no longer be pairs.

        Raises:
            BenchError: always.
        """
        raise BenchError(
            f"{path} cannot be decoded ({reason}), and sets of frames too large for memory cannot "
            "leave any out: repair it, or delete it"
        )


def _parse(arg: str | None) -> tuple[Path, int]:
    path, comma, stride = (arg or "").rpartition(",stride=")
    if not comma:
        path, stride = stride, "1"
    if not path:
        raise BenchError("frames needs a folder: write --data frames:PATH")
    if not stride.isdecimal() or int(stride) < 1:
        raise BenchError(f"frames:{arg}: the stride is a whole number from 1 on, not {stride!r}")
    return Path(path).expanduser(), int(stride)


def _train_and_test(
    root: Path, stride: int, options: DataOptions
) -> tuple[tuple[str, ...], list[Clip], list[Clip]]:
    if not root.is_dir():
        raise AbsentError(f"data set frames: there is no folder {root}")
    parted = (root / "train").is_dir() and any(p.is_dir() for p in (root / "train").iterdir())
    classes, clips = scan_clips(root, "train" if parted else "", stride, options.log)
    for part in ("test", "val"):
        if parted and (root / part).is_dir():
            return classes, clips, scan_clips(root, part, stride, options.log, classes)[1]
    chosen = set(held_out(clips, TEST_SHARE, "test").tolist())
    options.log.append(
        f"{root} has no test clips of its own: {len(chosen)} of {len(clips)} were set apart, seeded"
    )
    kept = [clip for i, clip in enumerate(clips) if i not in chosen]
    return classes, kept, [clips[i] for i in sorted(chosen)]


def _split(
    name: str, clips: list[Clip], stride: int, size: int, broken: Broken, workers: int
) -> tuple[Split, Tensor, Statistics]:
    """The pairs of some clips, and the position in `clips` of each pair's own, `[N]`."""
    paths = [path for clip in clips for path in clip.frames]
    root = clips[0].root
    sizes = torch.tensor([(root / path).stat().st_size for path in paths])
    files = FolderImages(root, paths, size, broken, workers)
    stored = store(files, digest_of("\n".join(paths), sizes))
    if isinstance(stored.images, FolderImages):
        stored.images.broken = _Unpaired(0, broken.log)
    counts = torch.tensor([len(clip.frames) - stride for clip in clips])
    clip = torch.arange(len(clips)).repeat_interleave(counts)
    first = torch.arange(len(clip)) + stride * clip  # every clip before it has as many more frames
    place = torch.full((len(paths),), -1)
    place[stored.kept] = torch.arange(len(stored.kept))
    pairs = torch.stack([place[first], place[first + stride]])
    good = (pairs >= 0).all(0)
    pairs, clip = pairs[:, good], clip[good]
    labels = torch.tensor([own.label for own in clips])[clip]
    motions = [own.motion for own in clips if own.motion is not None]
    motion = torch.cat(motions)[good] if motions else None
    parts = (labels, pairs) if motion is None else (labels, pairs, motion)
    split = Split(
        name,
        stored.images.take(pairs[0]),
        digest_of(stored.digest, *parts),
        labels=labels if (labels >= 0).all() else None,
        frames=stored.images.take(pairs[1]),
        motion=motion,
    )
    return split, clip, stored.statistics
