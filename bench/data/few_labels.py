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
            or the path of a text file with a position or a picture's file name in each line.
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
    try:
        lines = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"the list of labelled pictures {path} cannot be read: {error}") from error
    if not all(line.isdigit() for line in lines):
        raise BenchError(f"{path}: a line is no position of a picture")
    chosen = torch.tensor(sorted({int(line) for line in lines}), dtype=torch.int64)
    if not len(chosen) or int(chosen[-1]) >= len(split):
        raise BenchError(
            f"{path}: positions must lie below the {len(split):,} pictures of the split"
        )
    return chosen
