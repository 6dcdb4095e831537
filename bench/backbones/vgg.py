"""VGG-16 from timm, with the layer names of the literature (arXiv 1409.1556)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from bench.api import Backbone
from bench.backbones.timm_create import create
from bench.backbones.width import scaled
from bench.errors import BenchError

MIN_SIZE = 32  # five max-pools
HIDDEN = 4096
FC_INPUT = 7  # side of fc6's input; timm averages smaller pictures to it
LAYERS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3", "fc6", "fc7")


class VGG16(Backbone):
    """Thirteen convolutions and two fully connected layers; `forward` is fc7, `[B, 4096]`.

    Each convolutional map is a stage's last one, after ReLU and before the max-pool. fc6 and fc7
    are `[B, 4096, 1, 1]` up to 224 px; below that, pool5 is averaged to their 7 x 7 inputs.
    `width` multiplies the channels.
    """

    layers = LAYERS

    def __init__(
        self, size: int, batch_norm: bool = False, pretrained: bool = False, width: float = 1.0
    ) -> None:
        super().__init__()
        self.make_half = partial(VGG16, size, batch_norm, width=width / 2)
        (self.dim,) = scaled(width, HIDDEN)
        if size < MIN_SIZE:
            raise BenchError(f"vgg16 needs pictures of at least {MIN_SIZE} px, not {size}")
        if pretrained and width != 1:
            raise BenchError(f"there are no pretrained weights of width {width:g}; leave it out")
        name = "vgg16_bn" if batch_norm else "vgg16"
        self.model: Any = create(name, size, pretrained, {})
        if width != 1:
            _redraw(self.model, width)

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

    def half(self) -> VGG16:
        """The same at half the width, without pretrained weights."""
        return self.make_half()


def _redraw(model: Any, width: float) -> None:
    """Give timm's VGG `width` times the channels, initialised as timm does."""
    _resize(model, width)
    model._initialize_weights()


def _resize(module: nn.Module, width: float) -> None:
    """Replace convolutions and batch norms by those of `width` times the channels."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            outputs, hidden = scaled(width, child.out_channels, child.in_channels)
            inputs = 3 if child.in_channels == 3 else hidden
            conv = nn.Conv2d(inputs, outputs, child.kernel_size, padding=child.padding)  # type: ignore[arg-type]
            setattr(module, name, conv)
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.BatchNorm2d(scaled(width, child.num_features)[0]))
        else:
            _resize(child, width)
