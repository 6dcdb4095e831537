"""Test sets made anew: other pictures of the same classes, or other labels of the same pictures."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.api import EvalSplit
from bench.data.class_folders import scan
from bench.data.dataset import Split, digest_of
from bench.data.folder import Broken, FolderImages
from bench.data.stored import store
from bench.errors import BenchError

BROKEN = 10  # undecodable pictures that are left out before it is an error


def recollected(folder: Path, like: EvalSplit) -> EvalSplit:
    """The pictures of `folder/<class>/*` as a split, stored and rendered as those of `like`.

    Folders are called as the classes are, or all by their numbers, as in ImageNet-V2
    (arXiv:1902.10811). Some classes may have none.

    Raises:
        BenchError: it is no such folder, has a class that is not known, or too many pictures are
            broken.
    """
    classes, workers = like.info.classes, os.cpu_count() or 1
    numbers = tuple(str(number) for number in range(len(classes)))
    names = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    numbered = bool(names) and names <= set(numbers) and not names <= set(classes)
    listing = scan(folder, "", workers, numbers if numbered else classes)
    side = like.split.images.size[0]
    files = FolderImages(listing.root, listing.paths, side, Broken(BROKEN, []), workers)
    stored = store(files, listing.digest)
    labels = listing.labels[stored.kept]
    digest = digest_of(stored.digest, labels)
    return _on(like, Split("folder", stored.images, digest, labels=labels))


def valid_labels(path: Path, classes: tuple[str, ...]) -> Tensor:
    """Which classes are right for each test picture, `[N, C]` bool; a row without any is skipped.

    ReaL's labels (Beyer et al., arXiv:2006.07159) are such: none, one or several for a picture.

    Args:
        path: a .json file with a list, or a text file with a line, for each test picture in its
            order, of any number of classes (in text parted by blanks or commas), by number from 0
            or by name.
        classes: their names.

    Raises:
        BenchError: the file cannot be read, or names what is no class.
    """
    try:
        text = path.read_text("utf-8")
        rows = json.loads(text) if path.suffix == ".json" else _lines(text)
    except (OSError, ValueError) as error:
        raise BenchError(f"the labels {path} cannot be read: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise BenchError(f"{path}: expected a list with an entry for each test picture")
    number = {str(at): at for at in range(len(classes))}
    number |= {name: at for at, name in enumerate(classes)}  # a name that is a number is a name
    valid = torch.zeros(len(rows), len(classes), dtype=torch.bool)
    for at, row in enumerate(rows):
        for entry in _entries(row):
            if str(entry) not in number:
                raise BenchError(
                    f"{path}: entry {at} has {entry!r}, which is neither a class nor its number "
                    f"(0 to {len(classes) - 1})"
                )
            valid[at, number[str(entry)]] = True
    if not valid.any():
        raise BenchError(f"{path}: no test picture has a label")
    return valid


def relabelled_top1(predicted: Tensor, valid: Tensor) -> float:
    """The share of pictures whose predicted class is among the valid ones, in percent.

    Pictures without a valid class do not count (arXiv:2006.07159).

    Args:
        predicted: `[..., N]` int64.
        valid: `[N, C]` bool, with a true value.
    """
    rows = torch.arange(len(valid), device=valid.device)
    hits = valid[rows, predicted]
    return 100 * hits[..., valid.any(1)].double().mean().item()


def decoded(split: EvalSplit) -> Tensor:
    """Positions in `split`, on the CPU, of the pictures that features have a row for.

    Ask for features of `split` first, as for its labels.
    """
    numbered = copy.copy(split)  # which knows what could be decoded
    numbered.split = replace(split.split, labels=torch.arange(len(split.split)))
    return numbered.labels.cpu()


def _on(like: EvalSplit, other: Split) -> EvalSplit:
    """`other` as a protocol sees it, with features kept where those of `like` are."""
    split = copy.copy(like)
    split.split = other
    return split


def _lines(text: str) -> list[list[str]]:
    return [line.replace(",", " ").split() for line in text.splitlines()]


def _entries(row: Any) -> Iterable[Any]:
    return row if isinstance(row, list) else [row]
