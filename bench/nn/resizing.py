"""Resizing as matrices: with the usual kernels, many pictures in one product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn


def _box(x: Tensor) -> Tensor:
    return ((x > -0.5) & (x <= 0.5)).to(x)


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x**2 + 1
    far = -0.5 * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), 0.0)


Kernel = Literal["box", "bilinear", "bicubic", "lanczos"]

KERNELS: Mapping[Kernel, Callable[[Tensor], Tensor]] = {
    "box": _box,  # the mean of the pixels covered; OpenCV calls it area
    "bilinear": _bilinear,
    "bicubic": _bicubic,  # a = -0.5 (Keys 1981), as Pillow and torch with antialias
    "lanczos": _lanczos,  # three lobes
}


def resize_matrix(size: int, out: int, kernel: Kernel = "bilinear") -> Tensor:
    """The matrix `[out, size]` that resizes `size` pixels to `out`, widened to suppress aliasing.

    A picture `x` `[..., size, size]` is resized by `apply_matrix`. As Pillow's `resize`.
    """
    step = size / out
    centre = (torch.arange(out, dtype=torch.float64) + 0.5) * step
    pixel = torch.arange(size, dtype=torch.float64) + 0.5
    weight = KERNELS[kernel]((pixel[None] - centre[:, None]) / max(step, 1.0))
    return (weight / weight.sum(1, keepdim=True)).float()


def apply_matrix(matrix: Tensor, x: Tensor) -> Tensor:
    """Rows and columns of `x` `[..., h, h]` resized by `matrix` `[..., k, h]`: `[..., k, k]`.

    In the precision of `x` even under autocast: pixels are not rounded on the way.
    """
    with torch.autocast(x.device.type, enabled=False):
        return matrix @ x @ matrix.mT


class Resized(nn.Module):
    """Square pictures `[B, C, h, h]` to `[B, C, size, size]`, as they are where they have it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """The pictures, resized with `resize_matrix`."""
        side = x.shape[-1]
        return x if side == self.size else apply_matrix(resize_matrix(side, self.size).to(x), x)


def coarsening(side: int) -> Tensor:
    """Matrices `[side + 1, side, side]`: number k shrinks `side` pixels to k and back again.

    The last leaves all as it is; number 0 is not used.
    """
    there_and_back = [resize_matrix(k, side) @ resize_matrix(side, k) for k in range(1, side + 1)]
    return torch.stack([torch.zeros(side, side), *there_and_back])


def coarsen(x: Tensor, table: Tensor, p: float, pixels: int, rng: torch.Generator) -> Tensor:
    """Shrink a share `p` of the patches `x` `[B, P, C, s, s]` and enlarge them again.

    The number of pixels that is left is uniform between `pixels` and (s - 1)^2, as in relative
    patch location (arXiv:1505.05192): a network learns to do without the finest details.

    Args:
        x: the patches.
        table: what `coarsening(s)` gives, on the device of `x`.
        p: the probability that a patch is shrunk.
        pixels: the fewest pixels to shrink to.
        rng: the source of all randomness, on the same device.
    """
    side = x.shape[-1]
    most = (side - 1) ** 2
    least = min(pixels, most)
    draw = torch.rand((2, *x.shape[:2]), generator=rng, device=x.device)
    left = (least + draw[0] * (most - least)).sqrt().floor().clamp(1, side - 1)
    left = torch.where(draw[1] < p, left, side).long()
    return apply_matrix(table[left][:, :, None], x)
