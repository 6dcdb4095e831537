"""Mirroring left to right."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from bench.api import Op
from bench.data.ops.draw import chance


class HorizontalFlip(Op):
    """Mirror left to right with probability `p`; free after a crop, which flips as it resamples."""

    p: float = Field(0.5, ge=0, le=1)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw `flip` `[n]` bool."""
        return {"flip": chance(n, self.p, rng)}

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Mirror the chosen pictures."""
        return torch.where(params["flip"][:, None, None, None], x.flip(-1), x)
