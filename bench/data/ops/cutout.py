"""Masking out a square."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from bench.api import Op
from bench.data.ops.draw import chance, uniform


class Cutout(Op):
    """With probability `p`, set a square of `size` pixels to zero (arXiv:1708.04552).

    Its centre is any pixel, so that squares reach over the border; put it after `Normalize` to
    fill with the mean colour, as the paper does.
    """

    size: int = Field(16, ge=1)
    p: float = Field(1.0, ge=0, le=1)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw `applied` `[n]` bool and `top`, `left` `[n]`, the square's corner, pixels."""
        half = self.size // 2
        return {
            "applied": chance(n, self.p, rng),
            "top": uniform(n, 0, size[0], rng).floor_() - half,
            "left": uniform(n, 0, size[1], rng).floor_() - half,
        }

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Mask the chosen pictures."""
        rows = self._covers(params["top"], x.shape[2])[:, None, :, None]
        cols = self._covers(params["left"], x.shape[3])[:, None, None, :]
        hidden = rows & cols & params["applied"][:, None, None, None]
        return x.masked_fill(hidden, 0.0)

    def _covers(self, start: Tensor, side: int) -> Tensor:
        place = torch.arange(side, device=start.device) - start[:, None]
        return (place >= 0) & (place < self.size)
