"""What stands behind the objects: open country, a room, or a patterned surface seen close up."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.scenes import indoors, outdoors
from bench.data.scenes.camera import Camera
from bench.data.scenes.compose import OUTDOOR, PATTERN, ROOM, Scenes

_PAINTERS = {
    OUTDOOR: outdoors.paint,
    ROOM: indoors.paint_room,
    PATTERN: indoors.paint_surface,
}


def paint(scenes: Scenes, camera: Camera) -> Tensor:
    """The backdrops of a batch, `[n, 3, h, w]` in [0, 1]."""
    out = torch.empty(len(scenes), 3, camera.size, camera.size, dtype=torch.float64)
    for kind, painter in _PAINTERS.items():
        at = (scenes.kind == kind).nonzero().flatten()
        if len(at):
            out[at] = painter(scenes.take(at), camera.take(at))
    return out
