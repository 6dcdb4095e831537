"""The default backbone: a small residual network that two CPU cores train in minutes."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from bench.api import Backbone
from bench.backbones.width import scaled

STEM, STAGE1, STAGE2, STAGE3 = 24, 48, 96, 256  # channels


def conv_bn_relu(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A 3x3 convolution without bias, batch norm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Stage(nn.Module):
    """A strided convolution, then one with a shortcut around it (arXiv 1512.03385).

    The shortcut never has to change shape, which spares the projections of ResNet's basic block.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = conv_bn_relu(inputs, outputs, stride=2)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, h, w]` -> `[B, outputs, h / 2, w / 2]`, odd sides rounded up."""
        x = self.down(x)
        return nn.functional.relu(self.norm(self.conv(x)) + x)


class Small(Backbone):
    """Six convolutions, then global average pooling: 10.1 MFLOP at 32 px, 256 values.

    On a CPU the high-resolution layers cost more in batch norm and ReLU than in multiplications,
    so every stage halves the picture and most of the work is done at 8 x 8 and below. `width`
    multiplies the channels.
    """

    layers = ("stem", "stage1", "stage2", "stage3")

    def __init__(self, size: int, width: float = 1.0) -> None:
        super().__init__()
        self.make_half = partial(Small, size, width / 2)
        stem, stage1, stage2, self.dim = scaled(width, STEM, STAGE1, STAGE2, STAGE3)
        self.stem = conv_bn_relu(3, stem, stride=2)
        self.stage1 = Stage(stem, stage1)
        self.stage2 = Stage(stage1, stage2)
        self.stage3 = conv_bn_relu(stage2, self.dim, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The stem's and each stage's output, after ReLU."""
        out = {}
        for layer in self.layers:
            out[layer] = x = self.get_submodule(layer)(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """The last stage averaged over space, `[B, 256]`."""
        return self.tap(x)[0]

    def tap(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both in one pass: `forward` needs no more than the maps."""
        maps = self.maps(x)
        return maps["stage3"].mean(dim=(2, 3)), maps

    def half(self) -> Small:
        """The same at half the width."""
        return self.make_half()
