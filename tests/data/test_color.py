"""Colour spaces against kornia's and the standard library's."""

import colorsys

import kornia.color
import pytest
import torch

from bench.data import color
from bench.rng import generator


@pytest.fixture(scope="module")
def pictures():
    x = torch.rand(4, 3, 9, 11, generator=generator("pictures"))
    x[0, :, 0] = torch.linspace(0, 1, 11)  # greys, with black and white
    x[0, :, 1] = torch.eye(3).repeat(1, 4)[:, :11]  # primaries
    x[0, :, 2] = 1 - torch.eye(3).repeat(1, 4)[:, :11]
    x[0, :, 3] /= 50  # the linear part of the curves
    return x


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"),
    [
        (color.rgb_to_lab, kornia.color.rgb_to_lab, 2e-3),
        (color.rgb_to_yuv, kornia.color.rgb_to_yuv, 1e-6),
        (color.rgb_to_ycbcr, kornia.color.rgb_to_ycbcr, 1e-6),
        (color.rgb_to_gray, kornia.color.rgb_to_grayscale, 1e-6),
    ],
)
def test_agrees_with_kornia(pictures, ours, theirs, tolerance):
    torch.testing.assert_close(ours(pictures), theirs(pictures), atol=tolerance, rtol=0)


def test_lab_returns_to_rgb(pictures):
    lab = color.rgb_to_lab(pictures)
    torch.testing.assert_close(color.lab_to_rgb(lab), pictures, atol=1e-4, rtol=0)
    strong = lab * torch.tensor([1.0, 1.15, 1.15])[:, None, None]  # partly outside sRGB
    expected = kornia.color.lab_to_rgb(strong, clip=True)
    torch.testing.assert_close(color.lab_to_rgb(strong), expected, atol=1e-4, rtol=0)


def test_lab_of_known_colours():
    red, white = torch.tensor([1.0, 0, 0]), torch.ones(3)
    lab = color.rgb_to_lab(torch.stack([red, white])[:, :, None, None])[:, :, 0, 0]
    expected = torch.tensor([[53.24, 80.09, 67.20], [100.0, 0.0, 0.0]])  # CIE, D65
    torch.testing.assert_close(lab, expected, atol=0.02, rtol=0)


def test_hsv_agrees_with_the_standard_library(pictures):
    pixels = pictures.movedim(1, -1).reshape(-1, 3).double()
    expected = torch.tensor([colorsys.rgb_to_hsv(*p) for p in pixels.tolist()])
    hsv = color.rgb_to_hsv(pictures).movedim(1, -1).reshape(-1, 3)
    torch.testing.assert_close(hsv, expected.float(), atol=1e-5, rtol=0)
