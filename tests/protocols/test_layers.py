"""The layer probe, against scipy, explicit loops and heads trained apart by torch.optim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import Convolutions, Pixels, digit_pictures, evaluation, normalized, picture_set
from scipy.ndimage import map_coordinates
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Encoder, Scores
from bench.data.dataset import DataSet, MemoryImages
from bench.data.order import endless
from bench.errors import BenchError
from bench.eval.crop_flip import crop_and_flip
from bench.eval.grid_pool import grid_side, pool_to_grid
from protocols.layers import Layers

PLAIN = {"epochs": 1, "min_steps": 140, "batch_size": 50, "augment": False}


def run(encoder: Encoder, data: DataSet, folder: Path, **settings: object) -> Scores:
    cfg = Layers.Config.model_validate(PLAIN | settings)
    return Layers().run(encoder, evaluation(data, folder), cfg, seed=0)


@pytest.mark.parametrize(
    ("channels", "side", "expected"),
    [
        *zip((96, 256, 384, 384, 256), (27, 13, 13, 13, 6), (10, 6, 5, 5, 6), strict=True),  # Zhang
        *zip(
            (64, 192, 384, 256, 256), (55, 27, 13, 13, 13), (12, 7, 5, 6, 6), strict=True
        ),  # RotNet
        (24, 16, 16),  # never finer than the map
        (20_000, 7, 1),
    ],
)
def test_grids_are_those_of_the_papers(channels: int, side: int, expected: int) -> None:
    assert grid_side(channels, side, 9000) == expected


@pytest.mark.parametrize(("side", "grid"), [(13, 10), (13, 5), (7, 6), (4, 1)])
def test_resize_is_bilinear_between_the_centres_of_cells(side: int, grid: int) -> None:
    maps = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    at = (np.arange(grid) + 0.5) * side / grid - 0.5
    rows, columns = np.meshgrid(at, at, indexing="ij")
    found = pool_to_grid(maps, 3 * grid**2, "resize")
    for picture in range(2):
        for channel in range(3):
            plane = maps[picture, channel].double().numpy()
            expected = map_coordinates(plane, [rows, columns], order=1, mode="nearest")
            assert np.allclose(found[picture, channel].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("side", "grid"), [(13, 10), (8, 4), (7, 3)])
def test_max_and_mean_are_of_all_that_a_cell_touches(side: int, grid: int) -> None:
    maps = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    highest, mean = (pool_to_grid(maps, 3 * grid**2, pool) for pool in ("max", "avg"))
    spans = [slice(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)]
    for i, rows in enumerate(spans):
        for j, columns in enumerate(spans):
            cell = maps[:, :, rows, columns].double()
            assert torch.equal(highest[:, :, i, j].double(), cell.amax((2, 3)))
            assert torch.allclose(mean[:, :, i, j].double(), cell.mean((2, 3)), atol=1e-6)


def separately(x: Tensor, y: Tensor, batch: int, steps: int) -> nn.Module:
    """One layer's head, alone, by torch.optim: rates fall at 2/7, 4/7 and 6/7."""
    head = nn.Sequential(nn.BatchNorm1d(x.shape[1], affine=False), nn.Linear(x.shape[1], 10))
    nn.init.zeros_(head[1].weight)
    nn.init.zeros_(head[1].bias)
    groups = [{"params": [head[1].weight], "weight_decay": 5e-4}, {"params": [head[1].bias]}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    drops = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2 * steps // 7 * k for k in (1, 2, 3)])
    for step in range(steps):
        rows = endless(len(x), batch, step, 0, "order")
        optimizer.zero_grad()
        F.cross_entropy(head(x[rows]), y[rows]).backward()
        optimizer.step()
        drops.step()
    return head.eval()


def test_training_together_is_training_apart(tmp_path: Path) -> None:
    data, encoder = digit_pictures(), Convolutions()
    scores = run(encoder, data, tmp_path, numbers=150)

    grids = {"one": 5, "two": 4}  # of 8 x 8 and 4 x 4
    test_labels = data.test.labels
    assert test_labels is not None
    for layer in ("one", "two", "output"):

        def features(split: str, layer: str = layer) -> Tensor:
            with torch.no_grad():
                x = normalized(getattr(data, split))
                if layer == "output":
                    return encoder(x)
                maps = encoder.maps(x)[layer]
                return F.interpolate(maps, (grids[layer],) * 2, mode="bilinear").flatten(1)

        x, y = features("train"), data.train.labels
        val, val_labels = features("val"), data.val.labels
        assert y is not None and val_labels is not None
        top1 = 100 * (separately(x, y, 50, 140)(val).argmax(1) == val_labels).double().mean().item()
        assert scores.selected["per_layer"][layer]["val_top1"] == pytest.approx(top1, abs=0.51)

        refit = separately(torch.cat([x, val]), torch.cat([y, val_labels]), 50, 140)
        predicted = refit(features("test")).argmax(1)
        top1 = 100 * (predicted == test_labels).double().mean().item()
        assert scores.per_layer[layer]["top1"] == pytest.approx(top1, abs=0.26)
        if layer == scores.selected["layer"]:
            assert scores.predictions is not None
            assert (scores.predictions == predicted).double().mean() > 0.99
            assert scores.metrics["top1"] == scores.per_layer[layer]["top1"] > 80
    assert scores.selected["val_top1"] == max(
        value["val_top1"] for value in scores.selected["per_layer"].values()
    )


class TwoMaps(Encoder):
    """A constant layer, and one that is the picture; the output is constant."""

    layers, dim = ("constant", "picture"), 2

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        return {"constant": torch.ones(len(x), 2, 3, 3), "picture": x}

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 2)


@pytest.mark.parametrize("pool", ["resize", "max", "avg"])
def test_constant_features_score_chance_and_the_informed_layer_is_chosen(
    tmp_path: Path, pool: str
) -> None:
    labels = torch.arange(400) % 4
    pixels = torch.zeros(400, 3, 8, 8, dtype=torch.uint8)
    pixels[torch.arange(400), :, 2 * labels] = 255  # a row for each class
    scores = run(TwoMaps(), picture_set(pixels, labels, (200, 100, 100)), tmp_path, pool=pool)
    assert scores.selected["layer"] == "picture"
    assert scores.selected["grid"] == {"layer": ["constant", "picture", "output"]}
    assert scores.metrics["top1"] > 95
    assert scores.per_layer["constant"] == scores.per_layer["output"] == {"top1": 25.0}


class Watched(Encoder):
    """Keeps what it is shown."""

    dim = 64

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x[:, 0].flatten(1)[:, :64]


@pytest.mark.parametrize("augment", [False, True])
def test_other_data_come_at_the_encoders_size(tmp_path: Path, augment: bool) -> None:
    """As with --eval-data: stored at 12 px, evaluated at the 8 px of pretraining."""
    noise = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (120, 3, 12, 12), dtype=torch.uint8, generator=noise)
    data = picture_set(pixels, torch.arange(120) % 3, (60, 30, 30), size=8)
    encoder = Watched()
    run(encoder, data, tmp_path, augment=augment, min_steps=10)
    assert {tuple(x.shape[1:]) for x in encoder.seen} == {(3, 8, 8)}
    view = crop_and_flip(data.info)
    assert view.size == 8
    plain = encoder.seen[0].flatten(1)  # train, before anything is trained
    trained_on = torch.cat(encoder.seen[1:11]).flatten(1)
    known = ((trained_on[:, None] - plain).abs().amax(2) < 1e-4).any(1)
    assert known.all() if not augment else known.float().mean() < 0.2


def test_what_cannot_be_learnt_is_refused(tmp_path: Path) -> None:
    data = digit_pictures()
    assert isinstance(data.train.images, MemoryImages)
    bare = replace(data, train=replace(data.train, labels=None))
    with pytest.raises(BenchError, match="train split of little has no labels"):
        run(Pixels(), bare, tmp_path)
    assert data.train.labels is not None
    lacking = replace(data, train=replace(data.train, labels=data.train.labels % 9))
    with pytest.raises(BenchError, match="val split of little has class 'class9'"):
        run(Pixels(), lacking, tmp_path)
    broken = Convolutions()
    with torch.no_grad():
        broken.two[0].weight.fill_(torch.nan)
    with pytest.raises(BenchError, match="layer 'two' of the encoder gives NaN"):
        run(broken, data, tmp_path)
