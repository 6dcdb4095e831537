"""What spoils a picture in the manner of ImageNet-C (arXiv:1903.12261): noise, coarse pixels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.api import Op


class GaussianNoise(Op):
    """Add normal noise of standard deviation `std`, then clamp to [0, 1]; before `Normalize`."""

    std: float = Field(0.1, ge=0)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw `noise` `[n, 3, h, w]` of standard deviation 1."""
        return {"noise": torch.randn((n, 3, *size), generator=rng, device=rng.device)}

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Add each picture's noise."""
        return x.add(params["noise"], alpha=self.std).clamp_(0, 1)


class Pixelate(Op):
    """Shrink to `fraction` of each side by averaging, and enlarge again without smoothing."""

    fraction: float = Field(0.5, gt=0, le=1)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Nothing is drawn."""
        return {}

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Pixelate every picture."""
        height, width = x.shape[2:]
        few = (max(1, round(self.fraction * height)), max(1, round(self.fraction * width)))
        return F.interpolate(F.adaptive_avg_pool2d(x, few), (height, width), mode="nearest-exact")
