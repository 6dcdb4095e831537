"""Weights from elsewhere, frozen: any pretrained timm model by name, or a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Backbone, Encoder, MethodConfig, Untrained
from bench.backbones import load_weights


class Pretrained(Untrained):
    """`--backbone NAME` is the model; timm's weights are used unless `weights` names a file."""

    needs = frozenset({"pretrained"})

    class Config(MethodConfig):
        """How the model wants its pictures; the defaults are those of ImageNet models."""

        epochs: Literal[0] = 0
        batch_size: int = 256
        weights: str | None = None  # a safetensors file, or a torch file of tensors alone
        input_size: int = 224  # pictures are resized to this side, pixels
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
        std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def build(self) -> None:
        """Load the local file, where there is one."""
        if self.cfg.weights is not None:
            load_weights(self.backbone, Path(self.cfg.weights))

    def encoder(self) -> Encoder:
        """The model behind its own normalisation and size."""
        return _Renormalised(self.backbone, self.data.mean, self.data.std, self.cfg)


class _Renormalised(Encoder):
    def __init__(
        self,
        backbone: Backbone,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        cfg: Pretrained.Config,
    ) -> None:
        super().__init__()
        self.backbone, self.dim, self.layers = backbone, backbone.dim, backbone.layers
        self.size = cfg.input_size
        data_mean, data_std, own_mean, own_std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std, cfg.mean, cfg.std)
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
