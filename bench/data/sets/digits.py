"""Scans of 1,797 handwritten digits that scikit-learn bundles, 8 px shown at 32 (10 classes)."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from bench.data.assemble import in_memory, no_argument
from bench.data.dataset import DataOptions, DataSet, stratified

SCALE = 4  # of 8 px, by repeating pixels
TEST_SHARE = 0.2
_WHITE = 16


def load(arg: str | None, options: DataOptions) -> DataSet:
    """Grey digits as RGB; a fifth is the test split, stratified and seeded.

    Raises:
        BenchError: an argument was given.
    """
    no_argument("digits", arg)
    bunch = load_digits()
    grey = (torch.from_numpy(bunch.images) * (255 / _WHITE)).round().to(torch.uint8)
    pixels = grey.repeat_interleave(SCALE, 1).repeat_interleave(SCALE, 2)
    pixels = pixels[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(bunch.target).long()
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[stratified(labels, round(TEST_SHARE * len(labels)), "test", "digits")] = True
    classes = tuple(str(name) for name in bunch.target_names)
    return in_memory(
        "digits", classes, (pixels[~test], labels[~test]), (pixels[test], labels[test]), options
    )
