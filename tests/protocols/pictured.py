"""Splits of tiny pictures that carry their number, and encoders that look features up by it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.api import Batches, DataInfo, Encoder, Protocol, Scores
from bench.data.dataset import DataSet, MemoryImages, Split
from bench.features import Evaluation, FeatureStore
from bench.progress import Reporter

SIZE = 8


class Gappy(MemoryImages):
    """Pictures of which every seventh cannot be decoded."""

    def stream(self, batches: Iterable[Tensor]) -> Batches:
        for index in batches:
            good = index[index % 7 != 3]
            yield good, self.pixels[good]


def data(train: Tensor, val: Tensor, test: Tensor, gaps: bool = False) -> DataSet:
    """Splits with these labels; pictures are numbered through, and are noise but for the number."""
    labels = {"train": train, "val": val, "test": test}
    number, splits = 0, {}
    for name, some in labels.items():
        rng = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (len(some), 3, SIZE, SIZE), generator=rng).to(torch.uint8)
        own = torch.arange(number, number + len(some))
        pixels[:, 0, 0, 0], pixels[:, 1, 0, 0] = own % 256, own // 256
        number += len(some)
        images = (Gappy if gaps else MemoryImages)(pixels)
        splits[name] = Split(name, images, digest=name, labels=some)
    classes = int(torch.cat([*labels.values()]).max()) + 1
    info = DataInfo(
        name="numbered",
        digest="0",
        size=SIZE,
        classes=tuple(f"class{c}" for c in range(classes)),
        n_train=len(train),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        has=frozenset({"labels"}),
    )
    return DataSet(info, splits["train"], splits["train"], splits["val"], splits["test"])


class Given(Encoder):
    """Features `[N, D]` of the pictures by number, and maps `[N, C, h, w]` if there are any."""

    def __init__(self, features: Tensor, maps: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("given", features)
        self.register_buffer("given_maps", maps)
        self.dim = features.shape[1]
        self.layers = () if maps is None else ("map",)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.given[_number(x)]
        return out

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        return {} if self.given_maps is None else {"map": self.given_maps[_number(x)]}


def _number(x: Tensor) -> Tensor:
    pixel = (255 * x[:, :2, 0, 0]).round().long()
    return pixel[:, 0] + 256 * pixel[:, 1]


def measure(
    cls: type[Protocol], encoder: Encoder, dataset: DataSet, folder: Path, **cfg: Any
) -> Scores:
    """What the protocol finds, over the real feature store."""
    store = FeatureStore(folder, encoder, "given", torch.device("cpu"), Reporter(quiet=True))
    return cls().run(encoder.eval(), Evaluation(dataset, store), cls.Config(**cfg), 0)
