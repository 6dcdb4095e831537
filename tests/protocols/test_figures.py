"""Figures: every input that a data set may bring gives a small PNG, the same each time."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from matplotlib import image
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from bench.api import Panel
from bench.eval.figures import HeatMap, contact_sheet, grid, heat_maps, scatters

NAMES = ("a name that is much too long for its tile", "costs $5 and $6", "x_y^z", "")


def pixels(png: bytes) -> NDArray[np.int64]:
    """`[h, w, 3]`, of a PNG that says nothing of what drew it."""
    assert not Image.open(BytesIO(png)).info.keys() - {"transparency"}
    return (255 * image.imread(BytesIO(png))[..., :3]).round().astype(np.int64)


def photographs(n: int, size: int) -> Tensor:
    """Crops of the two photographs that scikit-learn bundles."""
    rng, crops = np.random.default_rng(0), []
    both = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    for number in range(n):
        whole = both[number % 2]
        top, left = (rng.integers(side - size + 1) for side in whole.shape[:2])
        crops.append(torch.from_numpy(whole[top : top + size, left : left + size].copy()))
    return torch.stack(crops).permute(0, 3, 1, 2) / 255


def test_a_sheet_of_photographs_is_small() -> None:
    tiles = photographs(81, 224)
    rows = [Panel("class\n1 of 8", tiles[9 * i : 9 * i + 9], NAMES[:1] * 9) for i in range(8)]
    one, two = (contact_sheet(rows, "title", ("first", "others"), "a note") for _ in range(2))
    assert one == two and len(one) < 150_000


def test_tiles_come_out_as_they_are_and_what_is_not_finite_grey() -> None:
    red = torch.tensor([2.0, 0.0, 0.0])[None, :, None, None].expand(2, 3, 4, 4)  # 2 is clipped
    lost = torch.full((1, 3, 4, 4), float("nan"))
    seen = pixels(contact_sheet([Panel("a", torch.cat([red, lost]))], "t", ("b", "c")))
    for color, count in (((255, 0, 0), 2), ((128, 128, 128), 1)):
        area = (np.abs(seen - color) <= 2).all(2).sum()
        assert 0.99 < area / (count * 96 * 96) < 1.05


def test_names_of_any_kind_are_only_text() -> None:
    tiles = photographs(4, 8)
    assert contact_sheet([Panel("$a\n$b", tiles, NAMES)], "$t$", ("$", "$"), "$")
    matrix = torch.eye(4)
    assert heat_maps([HeatMap("$x", matrix, NAMES, numbers=True)], "$", "$s", (0.0, 1.0))
    points = torch.rand(8, 2)
    assert scatters([("$p", points)], torch.arange(8) % 4, NAMES, "$")


def test_a_heat_map_shows_its_matrix() -> None:
    matrix = torch.zeros(2, 2)
    matrix[0, 1] = 1.0
    seen = pixels(heat_maps([HeatMap("", matrix, ("a", "b"))], "t", "s", (0.0, 1.0)))
    cell = (330 / 2) ** 2
    for color, cells in (((68, 1, 84), 3), ((253, 231, 37), 1)):  # the ends of viridis
        area = (np.abs(seen - color) <= 4).all(2).sum()
        assert 0.97 < area / (cells * cell) < 1.03


def test_many_classes_are_drawn_without_a_legend_or_names() -> None:
    labels = torch.arange(300) % 100
    names = tuple(f"class {i}" for i in range(100))
    assert scatters([("a", torch.rand(300, 2)), ("b", torch.rand(300, 2))], labels, names, "t")
    assert heat_maps([HeatMap("", torch.rand(100, 100), names)], "t", "s", (0.0, 1.0))


def test_points_have_the_colour_of_their_class() -> None:
    place = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(40, 1)
    seen = pixels(scatters([("", place)], torch.tensor([0, 1]).repeat(40), ("a", "b"), "t"))
    blue, orange = ((np.abs(seen - c) <= 6).all(2) for c in ((31, 119, 180), (255, 127, 14)))
    inside = np.s_[84:480, 8:400]  # beside the legend
    rows = [np.nonzero(color[inside])[0].mean() for color in (blue, orange)]
    assert rows[0] > rows[1] + 200  # the second class lies above the first


def test_grids_of_one_and_of_many() -> None:
    for count in (1, 7, 256):
        assert len(grid(photographs(count, 16), f"{count} filters")) < 150_000
