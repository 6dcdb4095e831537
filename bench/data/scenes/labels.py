"""Labels read off rendered pictures: masks, boxes and which classes are there."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.scenes.catalog import CLASSES
from bench.data.scenes.compose import Scenes
from bench.data.scenes.render import Rendered

_HIDDEN = 0.5  # an object of which less than this share is seen is difficult
_TINY = 0.012  # and so is one that covers less than this share of the picture


def annotate(scenes: Scenes, rendered: Rendered) -> dict[str, Tensor]:
    """Every label of a batch. Objects are numbered main first, then front to back.

    Returns:
        `instances` and `semantic` `[n, h, w]` uint8, `boxes` `[n, K, 4]` int16 (x0, y0, x1, y1;
        pixels, ends excluded), `box_label` `[n, K]` int8 (-1: no object), `difficult` `[n, K]`
        bool, `multilabel` `[n, C]` int8 (-1: difficult objects only), `slot` `[n, K]` int8 (where
        each object stands in `scenes`; -1: no object).
    """
    slots = scenes.object.shape[1]
    own = rendered.owner[:, None] == torch.arange(slots).view(1, slots, 1, 1)
    seen = own.sum((2, 3))
    key = torch.arange(slots, 0, -1).expand_as(seen).clone()
    key[scenes.main[:, None] == torch.arange(slots)] = 0
    key[seen == 0] = slots + 1
    slot = key.argsort(dim=1, stable=True)
    number = slot.argsort(dim=1)  # of the object in each slot
    seen, area = seen.gather(1, slot), rendered.area.gather(1, slot)
    label = torch.where(seen > 0, scenes.object.gather(1, slot), -1)

    lookup = torch.cat([torch.zeros_like(number[:, :1]), number + 1], 1)
    instances = lookup.gather(1, (rendered.owner.flatten(1) + 1).long()).to(torch.uint8)
    classes = torch.cat([torch.zeros_like(label[:, :1]), label + 1], 1)
    semantic = classes.gather(1, instances.long()).to(torch.uint8)

    own = own.gather(1, slot[:, :, None, None].expand_as(own))
    x0, x1 = _extent(own.any(2))
    y0, y1 = _extent(own.any(3))
    boxes = torch.stack([x0, y0, x1, y1], 2) * (seen > 0)[:, :, None]
    size = rendered.owner.shape[1] * rendered.owner.shape[2]
    difficult = ((seen < _HIDDEN * area) | (seen < _TINY * size)) & (seen > 0)

    multilabel = torch.zeros(len(label), len(CLASSES), dtype=torch.int8)
    for hard, value in ((True, -1), (False, 1)):  # an object in plain view outweighs a hidden one
        row, at = ((label >= 0) & (difficult == hard)).nonzero(as_tuple=True)
        multilabel[row, label[row, at]] = value
    return {
        "instances": instances.view_as(rendered.owner),
        "semantic": semantic.view_as(rendered.owner),
        "boxes": boxes.to(torch.int16),
        "box_label": label.to(torch.int8),
        "difficult": difficult,
        "multilabel": multilabel,
        "slot": torch.where(seen > 0, slot, -1).to(torch.int8),
    }


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """The first and one past the last True along the last axis."""
    places = torch.arange(occupied.shape[-1])
    first = torch.where(occupied, places, occupied.shape[-1]).amin(-1)
    return first, torch.where(occupied, places + 1, 0).amax(-1)
