"""Windows onto a picture, resized to the view's size: random, random and resized, central, whole.

Pictures may be stored squashed; `aspect` is then their true width/height, and windows are drawn in
the true picture (its shorter side as long as stored) and mapped to stored pixels.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from bench.api import Op
from bench.data.ops.draw import pick, uniform
from bench.data.ops.resample import Border, resample, window_taps

TRIES = 10  # as torchvision: draws before RandomResizedCrop falls back to the centre


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1]:
        raise ValueError(f"expected 0 < low <= high, got {pair}")
    return pair


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class Crop(Op):
    """A window of each picture. Draws `top`, `left`, `height`, `width`, stored pixels."""

    straightens: ClassVar[bool] = False  # whether its result has the true proportions

    @abstractmethod
    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw the windows, `[n]` float each."""

    def taps(
        self, params: Mapping[str, Tensor], stored: tuple[int, int], size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """What `resample` needs to show the windows at `size`; mirrored where params has `flip`."""
        return window_taps(params, stored, size)

    def cut(self, x: Tensor, params: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
        """Cut the windows out of `x` (float, or uint8) and resize them to `size`, float32."""
        return resample(x, self.taps(params, (x.shape[2], x.shape[3]), size))

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Cut the windows out and resize them to the size of `x`."""
        return self.cut(x, params, (x.shape[2], x.shape[3]))


class Resize(Crop):
    """The whole picture, squashed to the view's size."""

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """The whole picture's window; nothing is drawn."""
        zero = torch.zeros(n, device=rng.device)
        return {"top": zero, "left": zero, "height": zero + size[0], "width": zero + size[1]}


class CenterCrop(Crop):
    """The central square whose side is `fraction` of the shorter side."""

    straightens: ClassVar[bool] = True
    fraction: float = Field(0.875, gt=0, le=1)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """The central window, with fractions of a pixel; nothing is drawn."""
        height, width = true_size(n, size, aspect, rng.device)
        side = self.fraction * torch.minimum(height, width)
        window = ((height - side) / 2, (width - side) / 2, side, side)
        return stored_window(window, (height, width), size)


class RandomCrop(Crop):
    """A window of `fraction` of each side, anywhere in the picture padded by `padding` pixels.

    With the defaults: the padded crop of CIFAR training. Windows are drawn in stored pixels,
    whatever the true proportions.
    """

    padding: int = Field(4, ge=0)
    mode: Border = "zero"
    fraction: float = Field(1.0, gt=0, le=1)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw windows of whole pixels; `top` and `left` start at -padding."""
        sides = [max(1.0, round(self.fraction * side)) for side in size]
        height, width = (torch.full((n,), side, device=rng.device) for side in sides)
        top = pick(n, size[0] + 2 * self.padding - height + 1, rng) - self.padding
        left = pick(n, size[1] + 2 * self.padding - width + 1, rng) - self.padding
        return {"top": top, "left": left, "height": height, "width": width}

    def taps(
        self, params: Mapping[str, Tensor], stored: tuple[int, int], size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """As any crop's, reaching into the padding."""
        return window_taps(params, stored, size, self.padding, self.mode)


class RandomResizedCrop(Crop):
    """A window of random area and proportions (Inception's crop, arXiv:1409.4842).

    `scale` is the range of the window's share of the picture's area, `ratio` that of its
    width/height, drawn uniformly in the logarithm. As in torchvision, a window that does not fit is
    drawn again, and after ten such draws is the largest central one of permitted proportions.
    """

    straightens: ClassVar[bool] = True
    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw windows of whole pixels of the true picture."""
        full = true_size(n, size, aspect, rng.device)
        full_height, full_width = full
        area = uniform((n, TRIES), *self.scale, rng) * (full_height * full_width)[:, None]
        low, high = self.ratio
        ratio = uniform((n, TRIES), math.log(low), math.log(high), rng).exp_()
        widths, heights = (area * ratio).sqrt_().round_(), (area / ratio).sqrt_().round_()
        fits = (widths > 0) & (widths <= full_width[:, None])
        fits &= (heights > 0) & (heights <= full_height[:, None])
        first = fits.int().argmax(1, keepdim=True)  # all tries are drawn at once: no host sync
        found = fits.gather(1, first)[:, 0]
        in_ratio = full_width / full_height
        width = torch.where(in_ratio > high, (full_height * high).round(), full_width)
        height = torch.where(in_ratio < low, (full_width / low).round(), full_height)
        height = torch.where(found, heights.gather(1, first)[:, 0], height)
        width = torch.where(found, widths.gather(1, first)[:, 0], width)
        spare_height, spare_width = full_height - height, full_width - width
        top = torch.where(found, pick(n, spare_height + 1, rng), (spare_height / 2).floor())
        left = torch.where(found, pick(n, spare_width + 1, rng), (spare_width / 2).floor())
        return stored_window((top, left, height, width), full, size)


def true_size(
    n: int, size: tuple[int, int], aspect: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Each picture's true (height, width) `[n]`, whole pixels, the shorter side as stored."""
    height = torch.full((n,), float(size[0]), device=device)
    width = torch.full((n,), float(size[1]), device=device)
    if aspect is None:
        return height, width
    short, aspect = height.minimum(width), aspect.to(device, torch.float32)
    return (short / aspect.clamp(max=1)).round(), (short * aspect.clamp(min=1)).round()


def stored_window(
    window: tuple[Tensor, Tensor, Tensor, Tensor],
    true: tuple[Tensor, Tensor],
    size: tuple[int, int],
) -> dict[str, Tensor]:
    """A window (top, left, height, width) of the true pictures, in stored pixels."""
    top, left, height, width = window
    tall, wide = size[0] / true[0], size[1] / true[1]
    return {"top": top * tall, "left": left * wide, "height": height * tall, "width": width * wide}
