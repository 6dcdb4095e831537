"""Colour operations that a paper's list of views names: jitter, grayscale, solarise, normalise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from bench.api import Op
from bench.data.ops.adjust import blend, luma, shift_hue
from bench.data.ops.draw import Branching, chance, constant, on_chosen, uniform

Colour = tuple[float, float, float]
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # ColorJitter's parts, as torchvision counts


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


class ColorJitter(Branching):
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
        return {"applied": applied, "order": order, "factor": factor, "hue": hue}

    def branch(self, params: Mapping[str, Tensor]) -> Tensor:
        """The step at which hue is shifted, 4 where nothing is applied."""
        return torch.where(params["applied"], _hue_step(params["order"]), 4)

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Apply each picture's four parts in its own order, clamping after each.

        Hue, by far the dearest part, is shifted once for all pictures: what a picture has before it
        is blended in up to three steps first, the rest in up to three steps after.
        """
        applied, order = params["applied"], params["order"]
        hue_step = _hue_step(order)
        factor = torch.nn.functional.pad(params["factor"], (0, 1)).gather(1, order)
        mean, gray = order == CONTRAST, order == SATURATION

        def step(x: Tensor, number: int, chosen: Tensor) -> Tensor:
            drawn = (factor[:, number], mean[:, number], gray[:, number])
            return on_chosen(blend, x, applied & chosen, *drawn)

        for number in range(3):
            x = step(x, number, hue_step > number)
        x = on_chosen(shift_hue, x, applied, params["hue"])
        for number in range(1, 4):
            x = step(x, number, hue_step < number)
        return x


def _hue_step(order: Tensor) -> Tensor:
    return (order == HUE).int().argmax(1)


class Grayscale(Branching):
    """With probability `p`, replace the three channels by luma (ITU-R BT.601)."""

    p: float = Field(0.2, ge=0, le=1)

    def sample(
        self, n: int, rng: torch.Generator, size: tuple[int, int], aspect: Tensor | None
    ) -> dict[str, Tensor]:
        """Draw `applied` `[n]` bool."""
        return {"applied": chance(n, self.p, rng)}

    def apply(self, x: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """Grey the chosen pictures."""
        return on_chosen(lambda x: luma(x)[:, None].expand(x.shape), x, params["applied"])


class Solarize(Branching):
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
        return on_chosen(lambda x: F.solarize(x, self.threshold), x, params["applied"])


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
        return x.contiguous().sub_(mean).div_(std)


def _positive(std: Colour) -> Colour:
    if min(std) <= 0:
        raise ValueError(f"expected standard deviations above zero, got {std}")
    return std
