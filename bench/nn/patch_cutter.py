"""The 3 x 3 patches of pretext tasks about places, with what keeps shortcuts from solving them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import DataInfo
from bench.data.color import rgb_to_gray
from bench.data.patches import cut_patches, normalize_patches
from bench.errors import BenchError
from bench.nn.resizing import Resized, coarsen, coarsening

GRID = 3  # patches along either side
SMALLEST = 4  # px: the side of a patch, in the stored picture
NOISE = 0.01  # std of the noise in place of a dropped channel, per std of the one that is kept

ColorDrop = Literal["channel", "projection", "gray", "none"]


class PatchCutter(nn.Module):
    """Pictures to 3 x 3 patches, without what gives their places away.

    Neighbouring patches would be known by lines that continue over their border (a `gap` and
    `jitter` help), by their brightness (`normalize`), by the finest pixels (`rescale`), and by
    chromatic aberration: lenses shift colours away from the centre, so that a single patch tells
    where it was taken (`color_drop`, `channel_shift`). Every guard can be left out, to show what
    the shortcut does (arXiv:1505.05192 section 3.1, arXiv:1603.09246 section 4.2).

    Args:
        data: the pictures.
        size: side of the pictures that are cut, pixels; patches are as large as fit.
        gap: space between neighbouring patches where none has moved, in sides of a patch.
        jitter: the range over which each patch moves on its own, in sides of a patch.
        normalize: give every channel of every patch zero mean and unit deviation; else that of the
            data set.
        color_drop: "channel": each patch keeps one channel, drawn at random, the others are noise;
            "projection": the green-magenta axis, along which lenses err, is projected out; "gray":
            luma in all channels; "none".
        color_drop_p: the share of pictures whose colour is dropped.
        channel_shift: pixels by which each channel of each patch is moved, at most, either way.
        rescale: the share of patches that is shrunk and enlarged again.
        rescale_pixels: the fewest pixels that a patch is shrunk to.

    Raises:
        BenchError: patches would be smaller than 4 px of the stored picture.
    """

    coarse: Tensor

    def __init__(
        self,
        data: DataInfo,
        size: int,
        *,
        gap: float,
        jitter: float,
        normalize: bool,
        color_drop: ColorDrop,
        color_drop_p: float = 1.0,
        channel_shift: int = 0,
        rescale: float = 0.0,
        rescale_pixels: int = 100,
    ) -> None:
        super().__init__()

        def extent(side: int) -> int:
            return GRID * side + (GRID - 1) * round(gap * side) + round(jitter * side)

        self.side = max((s for s in range(1, size + 1) if extent(s) <= size), default=0)
        if self.side * min(1.0, data.size / size) < SMALLEST:
            raise BenchError(
                f"pictures of {data.name} are too small for a {GRID} x {GRID} grid of patches: cut "
                f"at {size} px, a patch covers {self.side * data.size / size:.1f} px of the stored "
                f"{data.size}, and at least {SMALLEST} are needed; use larger pictures, or a "
                "smaller method.gap or method.jitter"
            )
        self.data, self.resized = data, Resized(size)
        self.gap, self.jitter = round(gap * self.side), round(jitter * self.side)
        self.normalize, self.channel_shift = normalize, channel_shift
        self.color_drop, self.color_drop_p = color_drop, color_drop_p
        self.rescale, self.rescale_pixels = rescale, rescale_pixels
        self.register_buffer("coarse", coarsening(self.side), persistent=False)

    def forward(self, rgb: Tensor, rng: torch.Generator) -> Tensor:
        """Patches `[B, 9, 3, side, side]` as a network is trained on them, of RGB `[B, 3, s, s]`.

        They go from left to right, then from top to bottom; `rgb` is in [0, 1].
        """
        patches = self._cut(rgb, self.jitter, rng)
        if self.channel_shift:
            patches = shift_channels(patches, self.channel_shift, rng)
        if self.rescale:
            patches = coarsen(patches, self.coarse, self.rescale, self.rescale_pixels, rng)
        draw = torch.rand(len(rgb), 1, 1, 1, 1, generator=rng, device=rgb.device)
        drop = draw < self.color_drop_p
        if self.color_drop != "channel":
            return self._normalized(torch.where(drop, self._recolored(patches), patches))
        shape = (*patches.shape[:2], 1, 1, 1)
        kept = torch.randint(3, shape, generator=rng, device=rgb.device)
        patches = self._normalized(patches)
        noise = torch.randn(patches.shape, generator=rng, device=rgb.device)
        return torch.where(drop, keep_channel(patches, kept, noise), patches)

    def still(self, x: Tensor) -> tuple[Tensor, ...]:
        """What a trained network is shown of whole pictures `x` `[B, 3, H, W]`, normalised RGB.

        The patches `[B, 9, 3, side, side]` where they lie without jitter, as sharp as they are.
        Where it never saw colour they have none: of patches that kept one channel there are three
        renderings, one for each.
        """
        patches = self._cut(self.resized(self.data.rgb(x)), 0, None)
        if self.color_drop_p < 1:
            return (self._normalized(patches),)
        if self.color_drop != "channel":
            return (self._normalized(self._recolored(patches)),)
        patches = self._normalized(patches)
        return tuple(keep_channel(patches, torch.tensor(c, device=x.device)) for c in range(3))

    def shown(self, patches: Tensor) -> Tensor:
        """Patches as a network sees them as RGB about in [0, 1], for people."""
        return 0.5 + patches / 6 if self.normalize else self.data.rgb(patches)

    def _cut(self, rgb: Tensor, jitter: int, rng: torch.Generator | None) -> Tensor:
        cell, gap = self.side + jitter, self.gap - jitter
        return cut_patches(rgb, grid=GRID, cell=cell, gap=gap, jitter=jitter, rng=rng)

    def _recolored(self, patches: Tensor) -> Tensor:
        if self.color_drop == "gray":
            return rgb_to_gray(patches.flatten(0, 1)).view_as(patches[:, :, :1]).expand_as(patches)
        return project_green_magenta(patches) if self.color_drop == "projection" else patches

    def _normalized(self, patches: Tensor) -> Tensor:
        return normalize_patches(patches) if self.normalize else self.data.normalize(patches)


def keep_channel(patches: Tensor, kept: Tensor, noise: Tensor | None = None) -> Tensor:
    """Channel `kept` (broadcast to `[B, P, 1, 1, 1]`) of `patches` `[B, P, 3, s, s]`, else noise.

    The noise is a hundredth as strong as the channel that is kept (arXiv:1505.05192 section 3.1);
    `noise` is standard normal, of the shape of `patches`. Without it there are zeros.
    """
    keep = torch.arange(3, device=patches.device)[:, None, None] == kept
    if noise is None:
        return patches * keep
    spread = (patches.std((3, 4), correction=0, keepdim=True) * keep).sum(2, keepdim=True)
    return torch.where(keep, patches, noise * NOISE * spread)


def project_green_magenta(patches: Tensor) -> Tensor:
    """RGB `[..., 3, s, s]` without its component along green-magenta, a = (-1, 2, -1).

    Every pixel is multiplied by I - a a' / (a' a) (arXiv:1505.05192 section 3.1).
    """
    red, green, blue = patches.unbind(-3)
    along = (2 * green - red - blue) / 6
    return torch.stack([red + along, green - 2 * along, blue + along], -3)


def shift_channels(patches: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """Move each channel of each of `patches` `[B, P, C, s, s]` by up to `most` pixels either way.

    Pixels from beyond the border repeat it (arXiv:1603.09246: +-0, 1 or 2 px of 64).
    """
    side = patches.shape[-1]
    padded = F.pad(patches.flatten(0, 2)[:, None], (most,) * 4, mode="replicate")
    moved = cut_patches(padded, grid=1, cell=side + 2 * most, jitter=2 * most, rng=rng)
    return moved.view_as(patches)
