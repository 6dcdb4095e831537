"""A grid of overlapping patches as CPC takes it from a picture, with its guards."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.api import DataInfo
from bench.data.color import rgb_to_gray
from bench.data.patches import cut_patches
from bench.nn.patch_cutter import keep_channel
from bench.nn.resizing import Resized

Color = Literal["gray", "drop", "rgb"]


class PatchGrid(nn.Module):
    """Pictures to `grid` x `grid` patches that overlap, row by row.

    Args:
        data: the pictures.
        size: side of the pictures that are cut, pixels.
        grid: patches along either side.
        patch: side of the cells that patches are cut from, pixels.
        stride: from one cell to the next, pixels.
        jitter: pixels by which each patch is smaller than its cell, and moves within it.
        color: "gray": no colour; "drop": patches keep one channel, drawn for each, the others are
            zero (v2's colour dropping); "rgb".
        drop: the share of patches that "drop" applies to.
    """

    def __init__(
        self,
        data: DataInfo,
        size: int,
        *,
        grid: int,
        patch: int,
        stride: int,
        jitter: int,
        color: Color,
        drop: float,
    ) -> None:
        super().__init__()
        self.data, self.resized = data, Resized(size)
        self.grid, self.patch, self.stride = grid, patch, stride
        self.jitter, self.color, self.drop = jitter, color, drop

    def forward(self, rgb: Tensor, rng: torch.Generator) -> Tensor:
        """Patches `[B, grid^2, 3, s, s]` as trained on, normalised, of RGB `[B, 3, size, size]`."""
        patches = self._cut(rgb, self.jitter, rng)
        if self.color != "drop":
            return patches
        shape = (*patches.shape[:2], 1, 1, 1)
        kept = torch.randint(3, shape, generator=rng, device=rgb.device)
        drop = torch.rand(shape, generator=rng, device=rgb.device) < self.drop
        return torch.where(drop, keep_channel(patches, kept), patches)

    def still(self, x: Tensor) -> tuple[Tensor, ...]:
        """What a trained network is shown of normalised pictures `[B, 3, H, W]`: patches unmoved.

        Those that always lost two channels are shown once with each: three renderings.
        """
        patches = self._cut(self.resized(self.data.rgb(x)), 0, None)
        if self.color == "drop" and self.drop == 1:
            return tuple(keep_channel(patches, torch.tensor(c, device=x.device)) for c in range(3))
        return (patches,)

    def _cut(self, rgb: Tensor, jitter: int, rng: torch.Generator | None) -> Tensor:
        if self.color == "gray":
            rgb = rgb_to_gray(rgb).expand(-1, 3, -1, -1)
        cell = self.patch - self.jitter + jitter
        patches = cut_patches(
            rgb, grid=self.grid, cell=cell, gap=self.stride - cell, jitter=jitter, rng=rng
        )
        return self.data.normalize(patches)
