"""Gaussian blur, each picture with its own width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from bench.api import Op
from bench.data.ops.draw import chance, on_chosen, uniform
from bench.data.ops.resample import fold_border


def _odd(kernel: int | None) -> int | None:
    if kernel is not None and kernel % 2 == 0:
        raise ValueError(f"expected an odd kernel, got {kernel}")
    return kernel


def _ordered(sigma: tuple[float, float]) -> tuple[float, float]:
    if not 0 < sigma[0] <= sigma[1]:
        raise ValueError(f"expected 0 < low <= high, got {sigma}")
    return sigma


class GaussianBlur(Op):
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
            rows = blur_weights(sigma, reach, height)
            cols = rows if height == width else blur_weights(sigma, reach, width)
            across = torch.bmm(x.flatten(1, 2), cols.mT).view_as(x)
            return torch.matmul(rows[:, None], across)

        return on_chosen(blur, x, params["applied"], params["sigma"])


def blur_weights(sigma: Tensor, reach: int, size: int) -> Tensor:
    """Banded matrices `[n, size, size]` that blur an axis of `size` pixels by `sigma` `[n]`.

    Weights further than `reach` from the diagonal are zero; those beyond an end are mirrored in.
    """
    offset = torch.arange(-reach, reach + 1, device=sigma.device) / sigma[:, None]
    kernel = offset.square_().mul_(-0.5).softmax(1)
    padded = kernel.new_zeros(len(sigma), size, size + 2 * reach)
    # Row i holds the kernel in columns i ... i + 2 * reach: a diagonal band is a strided view.
    n_stride, row_stride, _ = padded.stride()
    band = padded.as_strided((len(sigma), size, 2 * reach + 1), (n_stride, row_stride + 1, 1))
    band.copy_(kernel[:, None])
    return fold_border(padded, reach, "reflect").contiguous()
