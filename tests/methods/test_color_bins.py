"""Colour bins against scikit-learn, SciPy, the official code's formulas, and loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from bench import rng
from bench.data.color import rgb_to_lab
from bench.kernels import color_ce
from bench.kernels.color_ce.reference import has_color, soft_labels
from bench.nn.color_bins import (
    ColorBins,
    annealed_mean,
    bin_shares,
    class_weights,
)

# The official pts_in_hull.npy: a, and the least and greatest b, of each of its columns.
OFFICIAL = {
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100), -40: (-40, 100),
    -30: (-50, 100), -20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90),
    30: (-90, 90), 40: (-100, 90), 50: (-100, 80), 60: (-110, 80), 70: (-110, 80), 80: (-110, 70),
    90: (-110, 70), 100: (-90, 0),
}  # fmt: skip


def colors(*shape: int) -> Tensor:
    """Colours of random sRGB pictures, a quarter of them from the surface of the gamut.

    None is grey: there the tenth nearest bin is one of four equals, and either would be right.
    """
    rgb = torch.rand(shape[0], 3, *shape[1:], generator=rng.generator("bins"), dtype=torch.float64)
    rgb[: shape[0] // 4, 0] = rgb[: shape[0] // 4, 0].round()
    rgb[: shape[0] // 4, 1] = 1 - rgb[: shape[0] // 4, 0]
    return rgb_to_lab(rgb)[:, 1:]


@pytest.fixture(scope="module")
def bins() -> ColorBins:
    return ColorBins().double()


def dense(ab: Tensor, bins: ColorBins) -> np.ndarray:
    """The official encoding `[N, 313]` of colours `[N, 2]`: 10 neighbours, sigma 5."""
    centers = bins.centers.numpy()
    search = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(centers)
    distance, index = search.kneighbors(ab.numpy())
    weight = np.exp(-(distance**2) / (2 * 5**2))
    full = np.zeros((len(ab), len(centers)))
    np.put_along_axis(full, index, weight / weight.sum(1, keepdims=True), 1)
    return full


def test_the_bins_are_the_official_313(bins: ColorBins) -> None:
    expected = [(a, b) for a, (low, high) in OFFICIAL.items() for b in range(low, high + 1, 10)]
    assert len(expected) == 313
    assert [tuple(center) for center in bins.centers.tolist()] == expected


def test_soft_labels_are_the_official_ones_at_any_colour(bins: ColorBins) -> None:
    ab = colors(8, 9, 9)
    index, share = soft_labels(ab, bins)
    ours = torch.zeros(8, 313, 9, 9, dtype=torch.float64).scatter(1, index, share)
    expected = dense(ab.movedim(1, -1).reshape(-1, 2), bins)
    # scikit-learn's squared distances cancel in their last digits.
    np.testing.assert_allclose(ours.movedim(1, -1).reshape(-1, 313), expected, atol=1e-9)
    assert torch.equal(index[:, 0], bins.nearest(ab))


def test_weights_make_rare_colours_count() -> None:
    p = torch.tensor([0.7, 0.2, 0.1, 0.0], dtype=torch.float64)
    raw = [1 / (0.5 * value + 0.5 / 4) for value in p.tolist()]
    mean = sum(value * weight for value, weight in zip(p.tolist(), raw, strict=True))
    got = class_weights(p, gamma=0.5, alpha=1.0)
    np.testing.assert_allclose(got, [weight / mean for weight in raw], rtol=1e-12)
    for gamma, alpha in ((0.5, 0.0), (1.0, 1.0)):
        assert torch.allclose(class_weights(p, gamma, alpha), torch.ones_like(p))


def test_shares_are_the_mean_of_the_soft_labels(bins: ColorBins) -> None:
    ab = colors(4, 5, 5)
    expected = dense(ab.movedim(1, -1).reshape(-1, 2), bins).mean(0)
    np.testing.assert_allclose(bin_shares(ab, bins), expected, atol=1e-10)


def test_cross_entropy_is_the_weighted_mean_over_pixels_by_loops(bins: ColorBins) -> None:
    ab = colors(4, 3, 2)
    ab[2] = torch.rand(2, 3, 2, generator=rng.generator("gray")) * 9 - 4.5  # a grey picture
    logits = torch.randn(4, 313, 3, 2, generator=rng.generator("logits"), dtype=torch.float64)
    weights = torch.rand(313, generator=rng.generator("weights"), dtype=torch.float64)
    total = 0.0
    for n in (0, 1, 3):
        for row in range(3):
            for col in range(2):
                (label,) = dense(ab[n : n + 1, :, row, col], bins)
                log_p = log_softmax(logits[n, :, row, col].numpy())
                total -= weights[label.argmax()].item() * float(label @ log_p)
    got = color_ce(logits, ab, bins, weights)
    assert got.item() == pytest.approx(total / (4 * 3 * 2), rel=1e-8)
    assert has_color(ab).tolist() == [True, True, False, True]


def test_gradients_are_right_and_grey_pictures_have_none(bins: ColorBins) -> None:
    ab = colors(2, 1, 2)
    ab[1] = 0
    logits = torch.randn(2, 313, 1, 2, generator=rng.generator("grad"), dtype=torch.float64)
    logits.requires_grad_()
    weights = torch.rand(313, generator=rng.generator("weights"), dtype=torch.float64)
    color_ce(logits, ab, bins, weights).backward()
    assert logits.grad is not None
    assert logits.grad[1].abs().max() == 0
    for col in range(2):
        (label,) = dense(ab[:1, :, 0, col], bins)
        error = softmax(logits[0, :, 0, col].detach().numpy()) - label
        expected = weights[label.argmax()].item() * error / 4
        np.testing.assert_allclose(logits.grad[0, :, 0, col], expected, atol=1e-10)


def test_annealed_mean_goes_from_mean_to_mode(bins: ColorBins) -> None:
    logits = torch.randn(1, 313, 1, 1, generator=rng.generator("mean"), dtype=torch.float64)
    z = softmax(logits.flatten().numpy())
    for temperature in (1.0, 0.38):
        powers = [math.exp(math.log(value) / temperature) for value in z]
        expected = sum(
            np.array(center) * power / sum(powers)
            for center, power in zip(bins.centers.tolist(), powers, strict=True)
        )
        got = annealed_mean(logits, bins, temperature).flatten()
        np.testing.assert_allclose(got, expected, rtol=1e-10)
    mode = annealed_mean(logits, bins, 1e-3).flatten()
    np.testing.assert_allclose(mode, bins.centers[logits.flatten().argmax()], atol=1e-6)
