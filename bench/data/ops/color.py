"""Colour operations that a paper's list of views names: jitter, grayscale, solarise, normalise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from bench.api import Op
from bench.data.ops.adjust import blend, shift_hue
from bench.data.ops.draw import chance, constant, uniform

Colour = tuple[float, float, float]
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # torchvision's numbering of ColorJitter's parts


def _strength(value: float | tuple[float, float]) -> float | tuple[float, float]:
    low, high = value if isinstance(value, tuple) else (0.0, value)
    if not 0 <= low <= high:
        raise ValueError(f"expected a number >= 0 or 0 <= low <= high, got {value}")
    return value


def _turn(value: float | tuple[float, float]) -> float | tuple[float, float]:
    low, high = value if isinstance(value, tuple) else (-value, value)
    if not -0.5 <= low <= high <= 0.5:
        raise ValueError(f"expected at most half a turn (0.5), got {value}")
    return value


Strength = Annotated[float | tuple[float, float], AfterValidator(_strength)]
Turn = Annotated[float | tuple[float, float], AfterValidator(_turn)]


class ColorJitter(Op):
    """With probability `p`, change brightness, contrast, saturation and hue, in random order.

    A strength `s` draws the factor from [max(0, 1 - s), 1 + s] (hue: the shift from [-s, s], turns
    of the colour circle); a pair gives the range itself. As torchvision's, but the order and
    factors are each picture's own.
    """

    brightness: Strength = 0.0
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    hue: Turn = 0.0
    p: float = Field(1.0, ge=0, le=1)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw `order` `[n, 4]` (parts, first to last), `factor` `[n, 3]` and `hue` `[n]`."""
        applied = chance(n, self.p, rng)
        order = torch.rand((n, 4), generator=rng, device=rng.device).argsort(1)
        strengths = (self.brightness, self.contrast, self.saturation)
        ranges = [s if isinstance(s, tuple) else (max(0.0, 1 - s), 1 + s) for s in strengths]
        factor = torch.stack([uniform(n, low, high, rng) for low, high in ranges], 1)
        low, high = self.hue if isinstance(self.hue, tuple) else (-self.hue, self.hue)
        hue = uniform(n, low, high, rng)
        # Factors of one and a shift of zero leave a picture as it is: no mask is needed to apply.
        return {
            "order": order,
            "factor": torch.where(applied[:, None], factor, 1.0),
            "hue": torch.where(applied, hue, 0.0),
        }

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Apply each picture's four parts in its own order, clamping after each.

        Hue, by far the dearest part, is shifted once for all pictures: what a picture has before it
        is blended in up to three steps first, the rest in up to three steps after.
        """
        order = params["order"]
        factor = torch.cat([params["factor"], torch.ones_like(params["hue"])[:, None]], 1)
        factor = factor.gather(1, order)  # step by step; hue's own step changes nothing here
        hue_step = (order == HUE).int().argmax(1)
        for step in range(3):
            amount = torch.where(hue_step > step, factor[:, step], 1.0)
            x = _blend_step(x, amount, order[:, step])
        x = shift_hue(x, params["hue"])
        for step in range(1, 4):
            amount = torch.where(hue_step < step, factor[:, step], 1.0)
            x = _blend_step(x, amount, order[:, step])
        return x


def _blend_step(x: Tensor, factor: Tensor, part: Tensor) -> Tensor:
    return blend(x, factor, mean=part == CONTRAST, gray=part == SATURATION)


class Grayscale(Op):
    """With probability `p`, replace the three channels by luma (ITU-R BT.601)."""

    p: float = Field(0.2, ge=0, le=1)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw `applied` `[n]` bool."""
        return {"applied": chance(n, self.p, rng)}

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Grey the chosen pictures: their saturation becomes zero."""
        applied = params["applied"]
        return blend(x, (~applied).float(), mean=torch.zeros_like(applied), gray=applied)


class Solarize(Op):
    """With probability `p`, invert values at or above `threshold`."""

    threshold: float = Field(0.5, ge=0, le=1)
    p: float = Field(0.2, ge=0, le=1)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw `applied` `[n]` bool."""
        return {"applied": chance(n, self.p, rng)}

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Solarise the chosen pictures."""
        inverted = (x >= self.threshold) & params["applied"][:, None, None, None]
        return torch.where(inverted, 1 - x, x)


class Normalize(Op):
    """Subtract `mean` and divide by `std`, channel by channel. Pixels leave [0, 1] here."""

    mean: Colour
    std: Annotated[Colour, AfterValidator(lambda std: _positive(std))]

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Nothing is drawn."""
        return {}

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Normalise every picture."""
        mean, std = (constant(v, x.device).view(3, 1, 1) for v in (self.mean, self.std))
        return (x - mean).div_(std)


def _positive(std: Colour) -> Colour:
    if min(std) <= 0:
        raise ValueError(f"expected standard deviations above zero, got {std}")
    return std
