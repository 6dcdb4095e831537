"""Where every pixel of a batch of pictures looks, before and after the camera moved."""

from __future__ import annotations

import torch
from torch import Tensor


class Camera:
    """A batch of cameras over `size` x `size` pixels; coordinates are shares of the side, y down.

    `motion` `[n, 4]` is (dx, dy, zoom, roll): a point at `p` of the main object's depth moves to
    `centre + zoom * R(roll) (p - centre) + (dx, dy)`, with R turning clockwise on the screen.
    Points at another depth move with that share of the translation and zoom, and the same roll.
    None: the camera did not move.
    """

    def __init__(self, count: int, size: int, motion: Tensor | None = None) -> None:
        self.size = size
        self.pixel = 1.0 / size
        line = (torch.arange(size, dtype=torch.float64) + 0.5) / size
        self._x = line.view(1, 1, size).expand(count, size, size)
        self._y = line.view(1, size, 1).expand(count, size, size)
        self._motion = motion

    def zoom(self, depth: Tensor) -> Tensor:
        """How much longer a length at `depth` is on the screen."""
        if self._motion is None:
            return torch.ones_like(depth)
        zoom = self._motion[:, 2].view(-1, *[1] * (depth.ndim - 1))
        return 1 + (zoom - 1) * depth

    def points(self, depth: Tensor) -> tuple[Tensor, Tensor]:
        """The unmoved place `[n, h, w]` (x, y) that each pixel shows at `depth` `[n, 1|h, 1|w]`."""
        if self._motion is None:
            return self._x, self._y
        dx, dy, _, roll = (column[:, None, None] for column in self._motion.unbind(1))
        zoom = self.zoom(depth)
        x = (self._x - 0.5 - dx * depth) / zoom
        y = (self._y - 0.5 - dy * depth) / zoom
        return x * roll.cos() + y * roll.sin() + 0.5, y * roll.cos() - x * roll.sin() + 0.5

    def project(self, x: Tensor, y: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Where on the screen points (x, y) at `depth` are seen, `[n, K]` each."""
        if self._motion is None:
            return x, y
        dx, dy, _, roll = (column[:, None] for column in self._motion.unbind(1))
        zoom = self.zoom(depth)
        x, y = x - 0.5, y - 0.5
        return (
            0.5 + zoom * (x * roll.cos() - y * roll.sin()) + dx * depth,
            0.5 + zoom * (x * roll.sin() + y * roll.cos()) + dy * depth,
        )

    def take(self, index: Tensor) -> Camera:
        """The cameras at `index`."""
        motion = None if self._motion is None else self._motion[index]
        return Camera(len(index), self.size, motion)
