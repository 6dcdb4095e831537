"""Pictures with one coloured square each, and encoders that see all of it or nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import conformance
from bench.api import DataInfo, Encoder, Protocol, Scores
from bench.data.dataset import Boxes, DataSet, MemoryImages, Split, part
from bench.features import Evaluation, FeatureStore
from bench.progress import Reporter
from bench.rng import generator

SIZE, COLORS = 32, ((250, 0, 0), (0, 250, 0), (0, 0, 250))


def squares(name: str, count: int) -> Split:
    """A square of a class's colour anywhere on grey, as a picture whose box is the square."""
    rng = generator("squares", name)
    pixels = torch.full((count, 3, SIZE, SIZE), 100, dtype=torch.uint8)
    labels = torch.arange(count) % len(COLORS)
    boxes = []
    for i, label in enumerate(labels.tolist()):
        side = int(torch.randint(8, 17, (), generator=rng))
        x, y = torch.randint(0, SIZE - side + 1, (2,), generator=rng).tolist()
        pixels[i, :, y : y + side, x : x + side] = torch.tensor(COLORS[label])[:, None, None]
        xyxy = torch.tensor([[x, y, x + side, y + side]]).float()
        boxes.append(Boxes(xyxy, labels[i : i + 1], torch.tensor([False])))
    return Split(name, MemoryImages(pixels), f"squares-{name}", labels, boxes=tuple(boxes))


def info() -> DataInfo:
    toy = conformance.toy_info()
    return DataInfo(
        "squares",
        "0",
        SIZE,
        ("red", "green", "blue"),
        120,
        toy.mean,
        toy.std,
        frozenset({"labels", "boxes"}),
    )


def data(train: int = 120, test: int = 60) -> DataSet:
    full = squares("full", train)
    rest, val = part(full, torch.arange(0, train, 10))
    return DataSet(info(), full, rest, val, squares("test", test))


class Seeing(Encoder):
    """Average colours, and how they change, at strides of 4 and 8 px: nothing is to be learnt."""

    dim, layers = 3, ("fine", "coarse")

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        unfolded = F.pixel_unshuffle(F.avg_pool2d(x, 2), 2)
        return {"fine": unfolded, "coarse": F.avg_pool2d(unfolded, 2)}


class Blind(Encoder):
    """The same for every picture and place."""

    dim, layers = 8, ("map",)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), self.dim)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        return {"map": torch.ones(len(x), 8, x.shape[2] // 4, x.shape[3] // 4)}


class Mapless(Encoder):
    """Raw pixels."""

    dim = 3 * SIZE**2

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def evaluation(used: DataSet, encoder: Encoder, folder: Path) -> Evaluation:
    store = FeatureStore(folder, encoder, "toy", torch.device("cpu"), Reporter(quiet=True))
    return Evaluation(used, store)


def run(
    protocol: type[Protocol],
    encoder: Encoder,
    folder: Path,
    used: DataSet | None = None,
    **settings: object,
) -> Scores:
    cfg = protocol.Config(**{**protocol.toy, **settings})
    seen = evaluation(used or data(), encoder, folder)
    scores = protocol().run(encoder.eval(), seen, cfg, 0)
    assert seen.test_was_read
    return scores
