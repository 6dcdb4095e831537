"""One pass through any backbone for a picture's representation and for those of its regions.

A method that cannot do without a class token asks for it here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.api import Backbone
from bench.errors import BenchError


def regions(network: Backbone, x: Tensor) -> tuple[Tensor, Tensor]:
    """The picture as a whole `[B, D]`, and its T regions `[B, T, C]`, row after row.

    Of a vision transformer: the class token and the patches, normed (their mean, where there is no
    class token). Of other backbones: the pooled output and the places of the last map.

    Args:
        network: a backbone with tokens or maps.
        x: normalised pictures `[B, 3, H, W]`.
    """
    vit: Any = network
    if hasattr(network, "grid"):
        tokens = network.tokens(x)
        patches = tokens[:, vit.prefix :]
        return tokens[:, 0] if vit.prefix else patches.mean(1), patches
    pooled, maps = network.tap(x)
    return pooled, maps[network.layers[-1]].flatten(2).mT


def region_shape(network: Backbone, size: int) -> tuple[int, int]:
    """The number T and the channels C of `regions` at `size` px.

    Raises:
        BenchError: the backbone has neither tokens nor maps.
    """
    if not network.layers:
        raise BenchError(
            "this backbone gives no maps, hence no regions; use vit_nano_patch8, small, or another"
        )
    was_training = network.training
    with torch.no_grad():
        found = regions(network.eval(), torch.zeros(1, 3, size, size))[1]
    network.train(was_training)
    return found.shape[1], found.shape[2]


def require_class_token(network: Backbone, method: str) -> int:
    """The number of tokens before the patches, of which the class token is the first.

    Args:
        network: a backbone of any kind.
        method: the name of what needs the token, for the message.

    Raises:
        BenchError: the backbone has no patches or no class token.
    """
    prefix: int = getattr(network, "prefix", 0)
    if prefix < 1:
        raise BenchError(
            f"{method} needs a vision transformer with a class token: "
            "choose the backbone vit_nano_patch8 or vit_small_patch16_224, say"
        )
    return prefix
