"""VGG-16 from timm, with the layer names of the literature (arXiv 1409.1556)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bench.api import Backbone
from bench.backbones.timm_create import create
from bench.errors import BenchError

MIN_SIZE = 32  # five max-pools
FC_INPUT = 7  # side of fc6's input; timm averages smaller pictures to it
LAYERS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3", "fc6", "fc7")


class VGG16(Backbone):
    """Thirteen convolutions and two fully connected layers; `forward` is fc7, `[B, 4096]`.

    Each convolutional map is a stage's last one, after ReLU and before the max-pool. fc6 and fc7
    are `[B, 4096, 1, 1]` up to 224 px; below that, pool5 is averaged to their 7 x 7 inputs.
    """

    layers = LAYERS
    dim = 4096

    def __init__(self, size: int, batch_norm: bool = False, pretrained: bool = False) -> None:
        super().__init__()
        if size < MIN_SIZE:
            raise BenchError(f"vgg16 needs pictures of at least {MIN_SIZE} px, not {size}")
        name = "vgg16_bn" if batch_norm else "vgg16"
        self.model: Any = create(name, size, pretrained, {})

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The five stages, fc6 and fc7."""
        taps = []
        for part in self.model.features:
            if isinstance(part, nn.MaxPool2d):
                taps.append(x)
            x = part(x)
        hidden = self.model.pre_logits
        if min(x.shape[2:]) < FC_INPUT:
            x = nn.functional.adaptive_avg_pool2d(x, FC_INPUT)
        fc6 = hidden.act1(hidden.fc1(x))
        fc7 = hidden.act2(hidden.fc2(hidden.drop(fc6)))
        return dict(zip(LAYERS, [*taps, fc6, fc7], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """fc7 after ReLU, averaged over space where a picture is above 224 px, `[B, 4096]`."""
        out: Tensor = self.model(x)
        return out
