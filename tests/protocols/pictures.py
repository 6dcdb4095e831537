"""Evaluation data of little pictures, for protocols that read pictures and not features."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bench.api import DataInfo, Encoder
from bench.data.dataset import DataSet, MemoryImages, Split, part
from bench.features import Evaluation, FeatureStore
from bench.progress import Reporter

MEAN, STD = 0.3, 0.4  # of the three equal channels


def digit_pictures(counts: tuple[int, int, int] = (600, 200, 400)) -> DataSet:
    """scikit-learn's digits as pictures of 8 x 8: train, val and test in the set's order."""
    bunch = load_digits()
    gray = torch.from_numpy(bunch.images * 15).to(torch.uint8)
    return picture_set(gray[:, None].expand(-1, 3, -1, -1), torch.from_numpy(bunch.target), counts)


def picture_set(
    pixels: Tensor, labels: Tensor | None, counts: tuple[int, int, int], size: int | None = None
) -> DataSet:
    """Full (train, then val) and test, of `pixels` `[N, 3, s, s]`; `size` is evaluation's."""
    parts = counts[0] + counts[1]

    def split(name: str, rows: slice) -> Split:
        own = None if labels is None else labels[rows].long()
        return Split(name, MemoryImages(pixels[rows].contiguous()), name, labels=own)

    full = split("full", slice(0, parts))
    train, val = part(full, torch.arange(counts[0], parts))
    classes = 2 if labels is None else int(labels.max()) + 1
    info = DataInfo(
        name="little",
        digest="little",
        size=size or pixels.shape[-1],
        classes=tuple(f"class{c}" for c in range(classes)),
        n_train=parts,
        mean=(MEAN, MEAN, MEAN),
        std=(STD, STD, STD),
        has=frozenset({"labels"}),
    )
    return DataSet(info, full, train, val, split("test", slice(parts, sum(counts))))


def evaluation(data: DataSet, folder: Path) -> Evaluation:
    """The data as a protocol sees them; features that it asks for are kept in `folder`."""
    store = FeatureStore(folder, Pixels(), "test", torch.device("cpu"), Reporter(quiet=True))
    return Evaluation(data, store)


def normalized(split: Split) -> Tensor:
    """The pictures of a split as evaluation renders them at their stored size."""
    assert isinstance(split.images, MemoryImages)
    return (split.images.pixels / 255 - MEAN) / STD


class Pixels(Encoder):
    """No layers and no parameters: the first channel, flattened."""

    dim = 64

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0].flatten(1)


class Convolutions(Encoder):
    """Two layers with batch norm, and their mean over space; weights are drawn by `seed`."""

    layers, dim = ("one", "two"), 12

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.one = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
            self.two = nn.Sequential(nn.Conv2d(6, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.requires_grad_(False).eval()

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        one = self.one(x)
        return {"one": one, "two": self.two(one)}

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)["two"].mean((2, 3))
