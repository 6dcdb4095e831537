"""Which pictures may be used with their labels, where few may be (semi-supervised learning)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bench.api import Labels
from bench.data.dataset import Split, stratified
from bench.errors import BenchError
from bench.rng import generator


def few_labels(split: Split, labels: Labels, draw: int = 0) -> Tensor:
    """Positions in `split` of the pictures whose labels may be used, `[n]`, sorted.

    Args:
        split: labelled pictures.
        labels: so many of each class (an int), a share of all with each class in its own (a float),
            or the path of a text file with a position in `split` or a picture's file name in each
            line, such as the lists of SimCLR (imagenet_subsets/1percent.txt).
        draw: names the draw of the first two; the same pictures are drawn for every method.

    Raises:
        BenchError: a class is left without a label, or the list does not fit the split.
    """
    assert split.labels is not None
    if isinstance(labels, str):
        return _listed(split, Path(labels))
    classes = split.labels.unique()
    if isinstance(labels, float):
        count = round(labels * len(split))
        if count < len(classes):
            raise BenchError(
                f"{labels:g} of the {len(split):,} pictures are {count} labels, below one for each "
                f"of the {len(classes)} classes; use a larger share"
            )
        return stratified(split.labels, count, "few_labels", split.digest, draw)
    order = torch.randperm(len(split), generator=generator("few_labels", split.digest, draw))
    chosen = []
    for value in classes.tolist():
        members = order[split.labels[order] == value]
        if len(members) < labels:
            raise BenchError(
                f"{labels} labels of each class are asked for, but the {split.name} split has "
                f"{len(members)} pictures of class {value}; use fewer"
            )
        chosen.append(members[:labels])
    return torch.cat(chosen).sort().values


def _listed(split: Split, path: Path) -> Tensor:
    """The positions that the file `path` lists, of every class at least one."""
    assert split.labels is not None
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"the list of labelled pictures {path} cannot be read: {error}") from error
    positions = {int(line) for line in lines if line.isdecimal()}
    if positions and max(positions) >= len(split):
        raise BenchError(
            f"{path}: positions must lie below the {len(split):,} pictures of the split"
        )
    names = {line for line in lines if line and not line.isdecimal()}
    chosen = torch.tensor(sorted(positions | _named(split, names, path)), dtype=torch.int64)
    classes = split.labels.unique()
    without = classes[~torch.isin(classes, split.labels[chosen])].tolist()
    if without:
        raise BenchError(
            f"{path} lists no picture of class {without[0]} of the {split.name} split; "
            "list at least one of each class"
        )
    return chosen


def _named(split: Split, wanted: set[str], path: Path) -> set[int]:
    """Positions of pictures by the ends of their paths, such as NAME.JPEG or CLASS/NAME.JPEG.

    A name that the split lacks is left out, as official lists also hold pictures that are held out
    for validation here; where that are most of them, the list is of other data.
    """
    if not wanted:
        return set()
    if split.names is None:
        raise BenchError(
            f"{path}: {min(wanted)!r} is no position of a picture, and the pictures of the "
            f"{split.name} split have no file names; list positions"
        )
    depths = sorted({name.count("/") + 1 for name in wanted})
    found: dict[str, int] = {}
    for position, name in enumerate(split.names):
        parts = name.split("/")
        for end in {"/".join(parts[-depth:]) for depth in depths} & wanted:
            if end in found:
                raise BenchError(
                    f"{path}: {end!r} may be {split.names[found[end]]} or {name}; "
                    "write more of its path"
                )
            found[end] = position
    missing = wanted - set(found)
    if len(missing) > len(found):
        raise BenchError(
            f"{path}: {len(missing):,} of {len(wanted):,} names, such as {min(missing)!r}, are no "
            f"pictures of the {split.name} split; is the list of other data?"
        )
    return set(found.values())
