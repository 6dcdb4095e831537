"""Weights from elsewhere, frozen: any pretrained timm model by name, or a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Backbone, DataInfo, Encoder, MethodConfig, Untrained
from bench.backbones import load_weights

RGB = tuple[float, float, float]


class Pretrained(Untrained):
    """`--backbone NAME` is the model; timm's weights are used unless `weights` names a file."""

    needs = frozenset({"pretrained"})

    class Config(MethodConfig):
        """How the model wants its pictures."""

        epochs: Literal[0] = 0
        batch_size: int = 256
        weights: str | None = None  # a safetensors file, or a torch file of tensors alone
        input_size: int = 224  # pictures are resized to this side, pixels
        mean: RGB | None = None  # None: what timm says of the model, else ImageNet's
        std: RGB | None = None

    def build(self) -> None:
        """Load the local file, where there is one."""
        if self.cfg.weights is None:
            return
        missing = load_weights(self.backbone, Path(self.cfg.weights))
        if missing:
            self.backbone.notes += (f"not in the weights file: {', '.join(missing)}",)

    def encoder(self) -> Encoder:
        """The model behind its own normalisation and size."""
        timms = getattr(getattr(self.backbone, "model", None), "pretrained_cfg", {})
        mean = self.cfg.mean or timms.get("mean", IMAGENET_DEFAULT_MEAN)
        std = self.cfg.std or timms.get("std", IMAGENET_DEFAULT_STD)
        return _Renormalised(self.backbone, self.data, mean, std, self.cfg.input_size)


class _Renormalised(Encoder):
    def __init__(
        self,
        backbone: Backbone,
        data: DataInfo,
        mean: RGB,
        std: RGB,
        size: int,
    ) -> None:
        super().__init__()
        self.backbone, self.dim, self.layers = backbone, backbone.dim, backbone.layers
        self.size = size
        data_mean, data_std, own_mean, own_std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (data.mean, data.std, mean, std)
        )
        # (x * data_std + data_mean - own_mean) / own_std, as one multiplication and one addition.
        self.scale = nn.Buffer(data_std / own_std)
        self.shift = nn.Buffer((data_mean - own_mean) / own_std)

    def _prepare(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.size:
            x = F.interpolate(
                x, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False
            )
        return x * self.scale + self.shift

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.backbone(self._prepare(x))
        return out

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        return self.backbone.maps(self._prepare(x))

    def tap(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.backbone.tap(self._prepare(x))
