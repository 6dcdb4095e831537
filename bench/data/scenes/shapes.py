"""Signed distances to simple shapes, for a batch: negative inside, in the units of x and y.

Coordinates are `[n, h, w]`; every shape number is `[n, 1, 1]`. Distances are exact at the border,
which is all that anti-aliasing by coverage needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_EPS = 1e-9  # keeps the gradient of a distance finite at a shape's own centre


def ellipse(x: Tensor, y: Tensor, cx: Tensor, cy: Tensor, rx: Tensor, ry: Tensor) -> Tensor:
    """Distance to an axis-aligned ellipse, to first order around its border."""
    u, v = (x - cx) / rx, (y - cy) / ry
    square = u * u + v * v
    u, v = u / rx, v / ry
    return 0.5 * (square - 1) / (u * u + v * v + _EPS).sqrt()


def box(
    x: Tensor, y: Tensor, cx: Tensor, cy: Tensor, rx: Tensor, ry: Tensor, corner: Tensor
) -> Tensor:
    """Distance to a box of half-sides `rx`, `ry` whose corners are rounded by radius `corner`."""
    u = (x - cx).abs() - (rx - corner)
    v = (y - cy).abs() - (ry - corner)
    outside = (u.clamp(min=0).square() + v.clamp(min=0).square()).sqrt()
    return outside + torch.maximum(u, v).clamp(max=0) - corner


def segment(
    x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor, radius: Tensor
) -> Tensor:
    """Distance to a line with round ends, from (x0, y0) to (x1, y1), of half-width `radius`."""
    dx, dy = x1 - x0, y1 - y0
    u, v = x - x0, y - y0
    along = ((u * dx + v * dy) / (dx * dx + dy * dy + _EPS)).clamp(0, 1)
    return ((u - along * dx).square() + (v - along * dy).square()).sqrt() - radius


def polygon(x: Tensor, y: Tensor, corners: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Distance to a convex polygon, corners in either sense of turning."""
    (x0, y0), (x1, y1), (x2, y2) = corners[0], corners[1], corners[2]
    turn = torch.sign((x1 - x0) * (y2 - y1) - (y1 - y0) * (x2 - x1))
    distance: Tensor | None = None
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        ex, ey = bx - ax, by - ay
        scale = turn / (ex * ex + ey * ey + _EPS).sqrt()
        nx, ny = ey * scale, -ex * scale
        side = x * nx + (y * ny - (ax * nx + ay * ny))
        distance = side if distance is None else torch.maximum(distance, side)
    assert distance is not None
    return distance


def ring(
    x: Tensor, y: Tensor, cx: Tensor, cy: Tensor, rx: Tensor, ry: Tensor, width: Tensor
) -> Tensor:
    """Distance to an ellipse's outline of half-width `width`."""
    return ellipse(x, y, cx, cy, rx, ry).abs() - width
