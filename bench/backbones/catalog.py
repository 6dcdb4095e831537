"""The names of our own backbones, and where each is made; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ANY_TIMM = "any other timm model"


@dataclass(frozen=True)
class Entry:
    """One backbone of our own: `maker` is "module:class", called with `size` and options."""

    summary: str
    maker: str
    fixed: Mapping[str, Any] = field(default_factory=dict)  # what the name itself settles


CATALOG: Mapping[str, Entry] = {
    "small": Entry(
        "a residual network of about 10 MFLOP at 32 px, made for two CPU cores (the default)",
        "bench.backbones.small:Small",
    ),
    "vit_nano_patch8": Entry(
        "a vision transformer of 4 blocks of 96, patches of 8 px, made for two CPU cores",
        "bench.backbones.vit_nano:vit_nano",
    ),
    "nin3": Entry(
        "RotNet's Network in Network, 3 blocks", "bench.backbones.nin:NIN", {"blocks": 3}
    ),
    "nin4": Entry(
        "RotNet's Network in Network, 4 blocks", "bench.backbones.nin:NIN", {"blocks": 4}
    ),
    "nin5": Entry(
        "RotNet's Network in Network, 5 blocks", "bench.backbones.nin:NIN", {"blocks": 5}
    ),
    "alexnet": Entry(
        "AlexNet with batch norm, conv1-conv5 and fc6-fc7, from 64 px",
        "bench.backbones.alexnet:AlexNet",
    ),
    "vgg16": Entry(
        "VGG-16 without batch norm, conv1_2-conv5_3 and fc6-fc7, from 32 px",
        "bench.backbones.vgg:VGG16",
        {"batch_norm": False},
    ),
    "vgg16_bn": Entry(
        "VGG-16 with batch norm, conv1_2-conv5_3 and fc6-fc7, from 32 px",
        "bench.backbones.vgg:VGG16",
        {"batch_norm": True},
    ),
}


def names() -> dict[str, str]:
    """Our own backbones with a line each, and the line that says how timm's are named."""
    own = {name: entry.summary for name, entry in CATALOG.items()}
    return own | {ANY_TIMM: 'by its timm name, e.g. "resnet18" or "vit_tiny_patch16_224"'}
