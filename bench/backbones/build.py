"""Look-up by name: our own backbones first, then timm's."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.backbones.catalog import CATALOG
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.api import Backbone


def build(name: str, size: int, pretrained: bool = False, **options: Any) -> Backbone:
    """Build the backbone `name` for square pictures of side `size` pixels.

    Weights are drawn from torch's global generator: seed it inside `torch.random.fork_rng`.
    `options` go to the class of our own backbone, or to `timm.create_model`.

    Raises:
        BenchError: the name or an option is unknown, the size does not fit the network, or there
            are no pretrained weights to be had.
    """
    if size < 1:
        raise BenchError(f"a backbone needs a picture side of at least 1 pixel, not {size}")
    if name in CATALOG:
        return _own(name, size, pretrained, options)
    from bench.backbones.timm_wrap import TimmBackbone

    return TimmBackbone(name, size, pretrained, **options)


def _own(name: str, size: int, pretrained: bool, options: dict[str, Any]) -> Backbone:
    module, _, attribute = CATALOG[name].maker.partition(":")
    maker = getattr(import_module(module), attribute)
    known = set(inspect.signature(maker).parameters) - {"size", "pretrained"}
    free = sorted(known - CATALOG[name].fixed.keys())
    for option in options:
        if option not in free:
            raise BenchError(
                f"backbone {name} has no option {option!r}; it has {', '.join(free) or 'none'}"
            )
    if "pretrained" in inspect.signature(maker).parameters:
        options = {"pretrained": pretrained, **options}
    elif pretrained:
        raise BenchError(
            f"there are no pretrained weights of {name}; name a timm model, or give a local "
            "weights file"
        )
    backbone: Backbone = maker(size=size, **CATALOG[name].fixed, **options)
    return backbone
