"""Krähenbühl init: weights from data, equally fast layers, no training (2016, arXiv:1511.06856)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Panel, Step, TrainSet, Untrained, View
from bench.data.ops import Normalize
from bench.errors import BenchError
from bench.nn.filters import data_filters, input_patches
from bench.nn.layers import Layer, balance, in_order

PATCHES = 20_000  # of a layer's input that PCA and k-means see; officially 500 MB of them
BALANCED = 16  # pictures by which layers are balanced, as officially
TILES = 8  # in a row of the picture

Norm = nn.BatchNorm1d | nn.BatchNorm2d


class KrahenbuhlInit(Untrained):
    """Each convolution and linear layer is initialised from what reaches it, first to last.

    Weights are Gaussian, or principal components or k-means centres of whitened input patches.
    Every channel is then scaled to deviation 1 and mean `bias`, and layers are rescaled against
    each other until the gradient of each is the same share of its weights (`between_layers`).

    Batch norm undoes any scale before it, and the official code warns of it. Here its running
    statistics are set from the same pictures and its shift to `bias`, so that its channels have
    the mean and deviation that the paper asks for; rescaling layers then changes how fast each
    would learn, but not its features. Without batch norm, only layers with a bias are centred.
    """

    deviations = (
        "batch norm, which the paper does without: statistics from the data, its shift is `bias`",
        "20,000 patches of a layer's input, k-means on all of them at once",
        "a filter that data cannot give (fewer inputs than outputs) is Gaussian",
        "layers meet at the plain geometric mean of ratios, for one draw of the output's gradient",
    )

    class Config(Untrained.Config):
        """Settings of the official code, philkr/magic_init."""

        weights: Literal["gaussian", "pca", "kmeans"] = "kmeans"  # the best in the paper (memory)
        pictures: int = Field(160, ge=2)  # 10 batches of 16
        bias: float = 0.1  # the mean of every channel before its non-linearity
        between_layers: bool = True  # its option -cs

    def initialize(self, train: TrainSet) -> None:
        """Initialise the backbone.

        Raises:
            BenchError: it has no convolution or linear layer.
        """
        x = train.sample(self.cfg.pictures)
        self.backbone.eval()  # no dropout
        norms = [module for module in self.backbone.modules() if isinstance(module, Norm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train().momentum = 1.0  # each batch replaces the running statistics
            if norm.affine:
                nn.init.constant_(norm.bias, self.cfg.bias)
        with torch.no_grad():
            layers = in_order(self.backbone, x, self._fill)
        if not layers:
            raise BenchError("krahenbuhl_init: the backbone has no Conv2d or Linear; use another")
        if self.cfg.between_layers:
            balance(self.backbone, layers, x[:BALANCED])
            with torch.no_grad():
                self.backbone(x)  # the running statistics of all pictures again
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def _fill(self, layer: Layer, x: Tensor) -> None:
        """New weights for `layer`, whose input is `x`; its channels get deviation 1."""
        rows = layer.weight.flatten(1)
        patches = input_patches(layer, x, PATCHES)
        each = len(rows) // len(patches)
        filters = [data_filters(group, each, self.cfg.weights) for group in patches]
        layer.weight.copy_(torch.cat(filters).view_as(layer.weight))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        out = layer.forward(x)  # a call would come back to here
        channel = 1 if isinstance(layer, nn.Conv2d) else out.ndim - 1
        axes = [axis for axis in range(out.ndim) if axis != channel]
        std, mean = torch.std_mean(out, axes, correction=0)
        std = torch.where(std > 0, std, 1.0)
        layer.weight /= std.view(-1, *[1] * (layer.weight.ndim - 1))
        if layer.bias is not None:
            layer.bias.copy_(self.cfg.bias - mean / std)

    def views(self) -> Sequence[View]:
        """The whole picture, for `picture`."""
        return (View("image", (Normalize(mean=self.data.mean, std=self.data.std),)),)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures, the first layer's filters, and what each finds in the picture above it."""
        x = batch.view("image")[:TILES]
        panels = [Panel("picture", self.data.rgb(x))]
        convs = [m for m in self.backbone.modules() if isinstance(m, nn.Conv2d)]
        if convs and convs[0].in_channels == 3:
            found = torch.stack([convs[0](one[None])[0, i] for i, one in enumerate(x)])
            panels += [
                Panel("filter of the first layer", _tiles(convs[0].weight[: len(x)], x)),
                Panel("its response", _tiles(found[:, None].expand(-1, 3, -1, -1), x)),
            ]
        return panels


def _tiles(values: Tensor, like: Tensor) -> Tensor:
    """Maps `[n, 3, h, w]` with 0 as mid grey, enlarged without smoothing to the size of `like`."""
    shown = 0.5 + 0.5 * values / values.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    return F.interpolate(shown, like.shape[2:], mode="nearest")
