"""Gaussian blur, each picture with its own width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from bench.data.ops.draw import Branching, chance, on_chosen, uniform
from bench.data.ops.resample import Taps, mirror, mix_rows


def _odd(kernel: int | None) -> int | None:
    if kernel is not None and kernel % 2 == 0:
        raise ValueError(f"expected an odd kernel, got {kernel}")
    return kernel


def _ordered(sigma: tuple[float, float]) -> tuple[float, float]:
    if not 0 < sigma[0] <= sigma[1]:
        raise ValueError(f"expected 0 < low <= high, got {sigma}")
    return sigma


class GaussianBlur(Branching):
    """With probability `p`, blur with a Gaussian of uniformly drawn `sigma` (pixels).

    `kernel` is its side in pixels, odd; None takes a tenth of the picture's shorter side, as
    SimCLR (arXiv:2002.05709). Borders are mirrored, as in torchvision.
    """

    kernel: Annotated[int | None, Field(ge=1), AfterValidator(_odd)] = None
    sigma: Annotated[tuple[float, float], AfterValidator(_ordered)] = (0.1, 2.0)
    p: float = Field(0.5, ge=0, le=1)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw `applied` `[n]` bool and `sigma` `[n]`."""
        return {"applied": chance(n, self.p, rng), "sigma": uniform(n, *self.sigma, rng)}

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Blur the chosen pictures."""
        height, width = x.shape[2:]
        tenth = min(height, width) // 10
        reach = (self.kernel or tenth + 1 - tenth % 2) // 2

        def blur(x: Tensor, sigma: Tensor) -> Tensor:
            across = mix_rows(x.mT, gaussian_taps(sigma, reach, width))
            return mix_rows(across.mT, gaussian_taps(sigma, reach, height))

        return on_chosen(blur, x, params["applied"], params["sigma"])


def gaussian_taps(sigma: Tensor, reach: int, size: int) -> Taps:
    """Taps that blur an axis of `size` pixels by each `sigma` `[n]`, `reach` pixels each way."""
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    weight = (offset / sigma[:, None]).square_().mul_(-0.5).softmax(1)
    index = mirror(torch.arange(size, device=sigma.device)[:, None] + offset, size, reach)
    return index[None], weight[:, None].expand(-1, size, -1)
