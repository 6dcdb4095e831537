"""Where the class token of a vision transformer looks, head by head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api import Backbone, DataInfo, Panel

DIM = 0.15  # brightness of what is not attended


@torch.no_grad()
def class_attention(network: Backbone, x: Tensor) -> Tensor | None:
    """The attention of the class token to each patch in the last block (DINO, Figure 1).

    Args:
        network: a plain vision transformer of timm with a class token.
        x: normalised pictures `[B, 3, H, W]`.

    Returns:
        `[heads, B, h, w]`, above 0; a head's sum over patches and prefix tokens is 1. None where
        the network is no such transformer.
    """
    if not getattr(network, "prefix", 0):
        return None
    vit: Any = network
    attention = vit.model.blocks[-1].attn
    seen: list[Tensor] = []
    # timm's attention is fused and keeps no weights: they are made again from queries and keys.
    with attention.qkv.register_forward_hook(lambda _, inputs, output: seen.append(output)):
        network(x)
    query, key, _ = seen[0].float().unflatten(2, (3, attention.num_heads, -1)).unbind(2)
    query, key = attention.q_norm(query[:, 0]), attention.k_norm(key)
    weights = (torch.einsum("bhd,bnhd->hbn", query, key) * attention.scale).softmax(-1)
    patch = vit.model.patch_embed.patch_size
    grid = [side // length for side, length in zip(x.shape[2:], patch, strict=True)]
    patches: Tensor = weights[..., vit.prefix :].unflatten(-1, grid)
    return patches


def attention_panels(network: Backbone, x: Tensor, info: DataInfo) -> Sequence[Panel]:
    """The pictures `[B, 3, H, W]`, and under them what each head attends to; empty without heads.

    The brightest patch of a picture is the one that a head attends to most.
    """
    by_head = class_attention(network, x)
    if by_head is None:
        return ()
    rgb = info.rgb(x)
    panels = [Panel("a view", rgb)]
    for number, weights in enumerate(by_head, 1):
        light = weights / weights.amax((1, 2), keepdim=True)
        light = F.interpolate(light[:, None], x.shape[2:], mode="nearest")
        panels.append(Panel(f"class token, head {number}", rgb * (DIM + (1 - DIM) * light)))
    return panels
