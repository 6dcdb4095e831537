"""Patch grids against slices of the picture."""

import pytest
import torch

from bench.data.patches import cut_patches, normalize_patches
from bench.errors import BenchError
from bench.rng import generator


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(5, 3, 40, 52, generator=generator("pictures"))


@pytest.mark.parametrize(("grid", "cell", "gap"), [(3, 13, 0), (3, 9, 4), (7, 16, -12), (1, 40, 0)])
def test_cells_are_slices(pictures, grid, cell, gap):
    patches = cut_patches(pictures, grid=grid, cell=cell, gap=gap)
    extent = grid * cell + (grid - 1) * gap
    top, left = (40 - extent) // 2, (52 - extent) // 2
    assert patches.shape == (5, grid**2, 3, cell, cell)
    for i in range(grid):
        for j in range(grid):
            y, x = top + i * (cell + gap), left + j * (cell + gap)
            torch.testing.assert_close(
                patches[:, i * grid + j], pictures[:, :, y : y + cell, x : x + cell]
            )


def test_overlapping_cells_are_an_unfolding(pictures):
    square = pictures[:, :, :, :40]
    unfolded = square.unfold(2, 16, 4).unfold(3, 16, 4)  # [5, 3, 7, 7, 16, 16]
    expected = unfolded.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    torch.testing.assert_close(cut_patches(square, grid=7, cell=16, gap=-12), expected)


def test_jitter_moves_each_patch_within_its_cell():
    # Pixels that hold their own position tell where each patch was cut.
    rows, cols = torch.meshgrid(torch.arange(30.0), torch.arange(30.0), indexing="ij")
    x = torch.stack([rows, cols]).expand(400, 2, 30, 30)
    patches = cut_patches(x, grid=3, cell=10, jitter=3, rng=generator("jitter"))
    assert patches.shape == (400, 9, 2, 7, 7)
    corner = patches[..., 0, 0]
    torch.testing.assert_close(
        patches - corner[..., None, None], x[:1, None, :, :7, :7] + 0 * patches
    )
    cell = torch.stack([torch.arange(9) // 3, torch.arange(9) % 3], 1) * 10.0
    offset = corner - cell
    counts = torch.stack([(offset == k).sum((0, 1)) for k in range(4)])
    assert counts.sum() == offset.numel()  # only 0, 1, 2, 3
    assert (counts / 3600 - 0.25).abs().max() < 0.03
    assert offset[:, 0].ne(offset[:, 1]).any() and offset[:, 0, 0].ne(offset[:, 0, 1]).any()


def test_jitter_is_the_generators(pictures):
    first, second, other = (
        cut_patches(pictures, grid=2, cell=12, jitter=6, rng=generator(seed)) for seed in (1, 1, 2)
    )
    assert first.equal(second) and not first.equal(other)


def test_normalised_patches_have_zero_mean_and_unit_deviation(pictures):
    patches = cut_patches(pictures, grid=3, cell=13)
    pixels = patches.double().numpy()
    mean, std = pixels.mean((3, 4), keepdims=True), pixels.std((3, 4), keepdims=True)
    expected = torch.from_numpy((pixels - mean) / std).float()
    torch.testing.assert_close(normalize_patches(patches), expected, atol=1e-3, rtol=0)


def test_flat_patches_stay_finite():
    assert normalize_patches(torch.full((1, 4, 3, 5, 5), 0.7)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"grid": 3, "cell": 20}, "3 x 3 grid of 20 px cells, 0 px apart, needs 60 px"),
        ({"grid": 2, "cell": 10, "gap": -30}, "choose a smaller cell or gap"),
        ({"grid": 2, "cell": 10, "jitter": 10}, "jitter of 10 px"),
    ],
)
def test_a_grid_that_does_not_fit_is_one_clear_line(pictures, settings, said):
    with pytest.raises(BenchError, match=said) as error:
        cut_patches(pictures, **settings)
    assert "\n" not in str(error.value)
