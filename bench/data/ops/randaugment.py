"""RandAugment: a few operations per picture, drawn from a list, all of one magnitude."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from bench.api import Op
from bench.data.ops.adjust import blend, sharpen
from bench.data.ops.draw import on_chosen
from bench.data.ops.warp import warp

# Positions in the list are what `op` holds. Signed parts go either way with equal chance.
NAMES = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
SHEAR, TRANSLATE, ROTATE, BLEND = 0.3, 150 / 331, 30.0, 0.9  # at full magnitude; degrees, shares


class RandAugment(Op):
    """`n` operations for each picture from the standard list of 14 (arXiv:1909.13719).

    `magnitude` counts in `bins` steps from 0, as in torchvision; warps take the nearest pixel and
    fill with black.
    """

    n: int = Field(2, ge=0)
    magnitude: int = Field(9, ge=0)
    bins: int = Field(31, ge=2)

    @model_validator(mode="after")
    def _within_bins(self) -> Self:
        if self.magnitude >= self.bins:
            raise ValueError(f"expected a magnitude below {self.bins}, got {self.magnitude}")
        return self

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw `op` `[n, self.n]`, positions in `NAMES`, and `sign` `[n, self.n]`, -1 or 1."""
        shape = (n, self.n)
        op = torch.randint(len(NAMES), shape, generator=rng, device=rng.device)
        sign = torch.randint(2, shape, generator=rng, device=rng.device) * 2.0 - 1
        return {"op": op, "sign": sign}

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Apply each picture's operations in turn, one kind at a time."""
        for op, sign in zip(params["op"].unbind(1), params["sign"].unbind(1), strict=True):
            for names, function in self._kinds():
                numbers = [NAMES.index(name) for name in names]
                chosen = (op >= numbers[0]) & (op <= numbers[-1])
                x = on_chosen(function, x, chosen, op, sign)
        return x

    def _kinds(self) -> tuple[tuple[tuple[str, ...], Callable[..., Tensor]], ...]:
        """Runs of `NAMES` with what does them: (pictures, op, sign) -> pictures."""
        share = self.magnitude / (self.bins - 1)
        bits = 8 - round(4 * share)
        return (
            (NAMES[1:6], lambda x, op, sign: warp(x, self._matrix(x, op, sign * share))),
            (NAMES[6:9], lambda x, op, sign: self._blend(x, op, 1 + BLEND * share * sign)),
            (("Sharpness",), lambda x, op, sign: sharpen(x, 1 + BLEND * share * sign)),
            (("Posterize",), lambda x, op, sign: F.posterize(x, bits)),
            (("Solarize",), lambda x, op, sign: F.solarize(x, 1 - share)),
            (("AutoContrast",), lambda x, op, sign: F.autocontrast(x)),
            (("Equalize",), lambda x, op, sign: F.equalize(x)),
        )

    def _blend(self, x: Tensor, op: Tensor, factor: Tensor) -> Tensor:
        mean, gray = op == NAMES.index("Contrast"), op == NAMES.index("Color")
        return blend(x, factor, mean, gray)

    def _matrix(self, x: Tensor, op: Tensor, amount: Tensor) -> Tensor:
        """Where each result's pixel comes from, `[n, 2, 3]`: see `warp`. `amount` is in [-1, 1]."""
        height, width = x.shape[2:]
        shear_x, shear_y, right, down, angle = (
            torch.where(op == NAMES.index(name), amount * full, 0.0)
            for name, full in zip(
                NAMES[1:6],
                (SHEAR, SHEAR, TRANSLATE * width, TRANSLATE * height, ROTATE),
                strict=True,
            )
        )
        angle = angle.deg2rad()
        cos, sin = angle.cos(), angle.sin()
        # Shears keep the picture's corner in place, rotation its centre; shifts are whole pixels.
        x_row = (cos, shear_x - sin, shear_x * height / 2 - right.trunc())
        y_row = (shear_y + sin, cos, shear_y * width / 2 - down.trunc())
        return torch.stack([torch.stack(x_row, 1), torch.stack(y_row, 1)], 1)
