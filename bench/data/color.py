"""Colour spaces for batches of sRGB pictures `[B, 3, H, W]` in [0, 1], on any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Rows = Sequence[Sequence[float]]  # of a matrix, one weight per channel each

# IEC 61966-2-1: linear sRGB to CIE XYZ, and its white point D65 (2 degrees).
XYZ: Rows = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
RGB: Rows = (
    (3.2404813432, -1.5371515163, -0.4985363262),
    (-0.9692549500, 1.8759900015, 0.0415559266),
    (0.0556466391, -0.2040413384, 1.0573110696),
)
WHITE = (0.95047, 1.0, 1.08883)
KNEE = 6 / 29  # CIE Lab is linear for t <= KNEE^3, a cube root above
# ITU-R BT.601: analogue YUV; YCbCr scales the same differences to [0, 1].
YUV: Rows = ((0.299, 0.587, 0.114), (-0.147, -0.289, 0.436), (0.615, -0.515, -0.100))
CB, CR = 0.564, 0.713


def rgb_to_gray(x: Tensor) -> Tensor:
    """Luma `[B, 1, H, W]` in [0, 1], ITU-R BT.601."""
    return _mix(x, (YUV[0],))


def rgb_to_lab(x: Tensor) -> Tensor:
    """CIE Lab under D65: L in [0, 100], a and b about in [-128, 127]."""
    linear = torch.where(x > 0.04045, ((x.clamp(min=0) + 0.055) / 1.055) ** 2.4, x / 12.92)
    t = _mix(linear, [[v / white for v in row] for row, white in zip(XYZ, WHITE, strict=True)])
    root = t.clamp(min=KNEE**3).pow(1 / 3)
    fx, fy, fz = torch.where(t > KNEE**3, root, t / (3 * KNEE**2) + 4 / 29).unbind(1)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], 1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """RGB (sRGB) in [0, 1] of CIE Lab under D65; colours outside sRGB are clipped."""
    lightness, a, b = lab.unbind(1)
    fy = (lightness + 16) / 116
    f = torch.stack([fy + a / 500, fy, fy - b / 200], 1)
    t = torch.where(f > KNEE, f**3, 3 * KNEE**2 * (f - 4 / 29)).clamp(min=0)
    rows = [[v * white for v, white in zip(row, WHITE, strict=True)] for row in RGB]
    linear = _mix(t, rows).clamp(min=0)
    curve = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curve, 12.92 * linear).clamp(0, 1)


def rgb_to_hsv(x: Tensor) -> Tensor:
    """Hue in [0, 1) turns, saturation and value in [0, 1]; grey has hue 0."""
    red, green, blue = x.unbind(1)
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    scale = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(value == green, (blue - red) / scale + 2, (red - green) / scale + 4)
    hue = torch.where(value == red, (green - blue) / scale, hue)
    saturation = chroma / torch.where(value > 0, value, 1.0)
    return torch.stack([(hue / 6).remainder(1.0), saturation, value], 1)


def rgb_to_yuv(x: Tensor) -> Tensor:
    """Analogue YUV (ITU-R BT.601): Y in [0, 1], U in +-0.436, V in +-0.615."""
    return _mix(x, YUV)


def rgb_to_ycbcr(x: Tensor) -> Tensor:
    """Full-range YCbCr (ITU-R BT.601, as JPEG): all in [0, 1], grey at Cb = Cr = 0.5."""
    y = rgb_to_gray(x)
    return torch.cat([y, (x[:, 2:] - y) * CB + 0.5, (x[:, :1] - y) * CR + 0.5], 1)


def _mix(x: Tensor, rows: Rows) -> Tensor:
    """Weighted sums of the channels, one per row; plain numbers need no copy to the device."""
    red, green, blue = x.unbind(1)
    return torch.stack([red * r + green * g + blue * b for r, g, b in rows], 1)
