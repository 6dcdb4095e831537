"""Weights of one layer from the data that reaches it (Krähenbühl 2016, arXiv:1511.06856)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.nn.kmeans import kmeans
from bench.nn.layers import Layer
from bench.nn.whiten import principal_components

ITERATIONS = 20  # of k-means
RIDGE = 1e-3  # added in whitening to the squares summed over patches, as in the official code


def input_patches(layer: Layer, x: Tensor, count: int) -> Tensor:
    """At most `count` of the vectors that `layer` multiplies with its weights, drawn at random.

    Args:
        layer: a convolution of any stride, padding, dilation and groups, or a linear layer.
        x: its input, `[B, C, H, W]` or `[..., C]`.
        count: how many to draw, by torch's global generator.

    Returns:
        `[groups, count, D]`; D is the size of one row of the weights.
    """
    if isinstance(layer, nn.Linear):
        rows = x.flatten(0, -2)
        return rows[torch.randperm(len(rows), device=x.device)[:count]][None]
    x = F.pad(x, layer._reversed_padding_repeated_twice)  # the one place that knows "same"
    for axis in (0, 1):
        spread, kernel = layer.dilation[axis], layer.kernel_size[axis]
        x = x.unfold(2 + axis, spread * (kernel - 1) + 1, layer.stride[axis])[..., ::spread]
    x = x.permute(0, 2, 3, 1, 4, 5)  # still a view: [B, h, w, C, kernel, kernel]
    places = torch.randperm(x[..., 0, 0, 0].numel(), device=x.device)[:count]
    drawn = x[torch.unravel_index(places, x.shape[:3])]
    patches: Tensor = drawn.unflatten(1, (layer.groups, -1)).transpose(0, 1).flatten(2)
    return patches


def data_filters(patches: Tensor, count: int, kind: Literal["gaussian", "pca", "kmeans"]) -> Tensor:
    """`count` filters `[count, D]` for `patches` `[N, D]`, of arbitrary scale.

    "pca" whitens: the responses are decorrelated. "kmeans" takes centres of whitened patches of
    norm 1, mapped back. Where the data cannot give a filter (fewer than `count` patches, or fewer
    dimensions with variance than filters) it is Gaussian, as all are for "gaussian".
    """
    filters = torch.randn(count, patches.shape[1], device=patches.device)
    if kind == "gaussian" or len(patches) < count:
        return filters
    principal = principal_components(patches, count)
    ridge = RIDGE / len(patches)
    found = principal.whitening(ridge)
    if kind == "kmeans":
        whitened = F.normalize(principal.whiten(patches, ridge), dim=1)
        found = kmeans(whitened, count, ITERATIONS)[0] @ found
    live = found.abs().sum(1) > 0
    filters[: len(found)][live] = found[live]
    return filters
