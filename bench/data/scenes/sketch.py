"""A drawing in the making: the shaded parts of n objects of one class, back to front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.data.scenes import shapes
from bench.data.scenes.draws import Draws

Number = Tensor | float


@dataclass(frozen=True)
class Part:
    """One shape of n objects, in object units: upright, y up, base at y = 0, about 1 high."""

    distance: Callable[[Tensor, Tensor], Tensor]  # x, y [n, h, w] -> signed distance [n, h, w]
    centre: tuple[Tensor, Tensor]  # [n, 1, 1] each: where light falls evenly
    radius: tuple[Tensor, Tensor]  # [n, 1, 1] each: half the extent that light changes over
    colour: Tensor  # [n, 3]
    present: Tensor | None = None  # [n] bool; None: in all n


class Sketch:
    """Collects the parts of n objects of one class.

    `draws` decides their proportions; `main` and `accent` `[n, 3]` are the objects' two colours.
    Every number is a float or `[n]`.
    """

    def __init__(self, draws: Draws, main: Tensor, accent: Tensor) -> None:
        self.draws = draws
        self.main = main
        self.accent = accent
        self.parts: list[Part] = []

    def flat(self, r: float, g: float, b: float) -> Tensor:
        """One colour for all n, `[n, 3]`."""
        return torch.tensor([r, g, b], dtype=self.main.dtype).expand_as(self.main)

    def ellipse(
        self,
        cx: Number,
        cy: Number,
        rx: Number,
        ry: Number,
        colour: Tensor,
        present: Tensor | None = None,
        inside: Part | None = None,
    ) -> Part:
        """Draw an ellipse; `inside` cuts it off at the border of another part."""
        a = self._numbers(cx, cy, rx, ry)
        return self._add(
            lambda x, y: shapes.ellipse(x, y, *a), a[0], a[1], a[2], a[3], colour, present, inside
        )

    def box(
        self,
        cx: Number,
        cy: Number,
        rx: Number,
        ry: Number,
        colour: Tensor,
        present: Tensor | None = None,
        inside: Part | None = None,
        corner: Number = 0.01,
    ) -> Part:
        """Draw a box of half-sides `rx`, `ry` with rounded corners."""
        a = self._numbers(cx, cy, rx, ry, corner)
        return self._add(
            lambda x, y: shapes.box(x, y, *a), a[0], a[1], a[2], a[3], colour, present, inside
        )

    def line(
        self,
        start: tuple[Number, Number],
        end: tuple[Number, Number],
        radius: Number,
        colour: Tensor,
        present: Tensor | None = None,
        inside: Part | None = None,
    ) -> Part:
        """Draw a line with round ends and half-width `radius`."""
        a = self._numbers(*start, *end, radius)
        cx, cy = (a[0] + a[2]) / 2, (a[1] + a[3]) / 2
        rx, ry = (a[2] - a[0]).abs() / 2 + a[4], (a[3] - a[1]).abs() / 2 + a[4]
        return self._add(
            lambda x, y: shapes.segment(x, y, *a), cx, cy, rx, ry, colour, present, inside
        )

    def polygon(
        self,
        corners: Sequence[tuple[Number, Number]],
        colour: Tensor,
        present: Tensor | None = None,
        inside: Part | None = None,
    ) -> Part:
        """Draw a convex polygon."""
        xs = self._numbers(*[x for x, _ in corners])
        ys = self._numbers(*[y for _, y in corners])
        points = list(zip(xs, ys, strict=True))
        x, y = (
            torch.cat(torch.broadcast_tensors(*xs), 1),
            torch.cat(torch.broadcast_tensors(*ys), 1),
        )
        left, right = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
        low, high = y.amin(1, keepdim=True), y.amax(1, keepdim=True)
        return self._add(
            lambda x, y: shapes.polygon(x, y, points),
            (left + right) / 2,
            (low + high) / 2,
            (right - left) / 2,
            (high - low) / 2,
            colour,
            present,
            inside,
        )

    def ring(
        self,
        cx: Number,
        cy: Number,
        rx: Number,
        ry: Number,
        width: Number,
        colour: Tensor,
        present: Tensor | None = None,
    ) -> Part:
        """Draw an ellipse's outline of half-width `width`."""
        a = self._numbers(cx, cy, rx, ry, width)
        return self._add(
            lambda x, y: shapes.ring(x, y, *a), a[0], a[1], a[2], a[3], colour, present, None
        )

    def _numbers(self, *values: Number) -> list[Tensor]:
        """Each value as `[n, 1, 1]`."""
        n, dtype = len(self.main), self.main.dtype
        return [torch.as_tensor(v, dtype=dtype).expand(n)[:, None, None] for v in values]

    def _add(
        self,
        distance: Callable[[Tensor, Tensor], Tensor],
        cx: Tensor,
        cy: Tensor,
        rx: Tensor,
        ry: Tensor,
        colour: Tensor,
        present: Tensor | None,
        inside: Part | None,
    ) -> Part:
        if inside is not None:
            plain, other = distance, inside.distance

            def distance(x: Tensor, y: Tensor) -> Tensor:
                return torch.maximum(plain(x, y), other(x, y))

        part = Part(distance, (cx, cy), (rx, ry), colour, present)
        self.parts.append(part)
        return part
