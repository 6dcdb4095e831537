"""The default backbone: a small residual network that two CPU cores train in minutes."""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Backbone

WIDTHS = (24, 48, 96, 192)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """A convolution without bias, then batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (ResNet's basic block, arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2 = conv_bn(outputs, outputs, 3, 1)
        self.shortcut = conv_bn(inputs, outputs, 1, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, h, w]` -> `[B, outputs, h / stride, w / stride]`."""
        y = self.conv2(self.relu(self.conv1(x)))
        out: Tensor = self.relu(y + self.shortcut(x))
        return out


class Small(Backbone):
    """Stem and three residual stages, then global average pooling."""

    layers = ("stem", "stage1", "stage2", "stage3")
    dim = WIDTHS[-1]

    def __init__(self, size: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, WIDTHS[0], 3, 2), nn.ReLU(inplace=True))
        self.stage1 = Residual(WIDTHS[0], WIDTHS[1], 2)
        self.stage2 = Residual(WIDTHS[1], WIDTHS[2], 2)
        self.stage3 = Residual(WIDTHS[2], WIDTHS[3], 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The stem's and each stage's output, after ReLU."""
        out = {}
        for layer in self.layers:
            x = getattr(self, layer)(x)
            out[layer] = x
        return out

    def forward(self, x: Tensor) -> Tensor:
        """The last stage, averaged over space."""
        return self.maps(x)["stage3"].mean(dim=(2, 3))
