"""AlexNet with batch norm, as RotNet trains it on ImageNet (arXiv 1803.07728, 1404.5997)."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from bench.api import Backbone
from bench.backbones.width import scaled
from bench.errors import BenchError

MIN_SIZE = 64
# name: (kernel, stride, padding, outputs, whether a max-pool comes before it)
CONVS = {
    "conv1": (11, 4, 2, 64, False),
    "conv2": (5, 1, 2, 192, True),
    "conv3": (3, 1, 1, 384, True),
    "conv4": (3, 1, 1, 256, False),
    "conv5": (3, 1, 1, 256, False),
}
POOLED = 6  # pool5 gives 6 x 6 at 224 px; other sizes are averaged to it
HIDDEN = 4096


class AlexNet(Backbone):
    """Five convolutions and two fully connected layers; `forward` is fc7, `[B, 4096]`.

    Maps are after ReLU and before any pool, as RotNet and Zhang et al. (arXiv 1603.08511) probe
    them: conv1 is 64 x 55 x 55 at 224 px. fc6 and fc7 are `[B, 4096, 1, 1]`. Weights keep
    PyTorch's default initialisation, as in RotNet's code. `width` multiplies the channels.
    """

    layers = (*CONVS, "fc6", "fc7")

    def __init__(self, size: int, width: float = 1.0) -> None:
        super().__init__()
        if size < MIN_SIZE:
            raise BenchError(f"alexnet needs pictures of at least {MIN_SIZE} px, not {size}")
        self.make_half = partial(AlexNet, size, width / 2)
        inputs = 3
        for name, (kernel, stride, padding, full, pooled) in CONVS.items():
            (outputs,) = scaled(width, full)
            conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
            parts: list[nn.Module] = [nn.MaxPool2d(3, 2)] if pooled else []
            parts += [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            self.add_module(name, nn.Sequential(*parts))
            inputs = outputs
        self.pool5 = nn.Sequential(nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(POOLED), nn.Flatten())
        (self.dim,) = scaled(width, HIDDEN)
        self.fc6 = _fully_connected(inputs * POOLED**2, self.dim)
        self.fc7 = _fully_connected(self.dim, self.dim)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """conv1 to conv5, fc6 and fc7."""
        out = {}
        for layer in CONVS:
            out[layer] = x = self.get_submodule(layer)(x)
        fc6 = self.fc6(self.pool5(x))
        out["fc6"], out["fc7"] = fc6[:, :, None, None], self.fc7(fc6)[:, :, None, None]
        return out

    def forward(self, x: Tensor) -> Tensor:
        """fc7 after ReLU, `[B, 4096]`."""
        return self.tap(x)[0]

    def tap(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both in one pass: `forward` needs no more than the maps."""
        maps = self.maps(x)
        return maps["fc7"].flatten(1), maps

    def half(self) -> AlexNet:
        """The same at half the width."""
        return self.make_half()


def _fully_connected(inputs: int, outputs: int) -> nn.Sequential:
    linear = nn.Linear(inputs, outputs, bias=False)
    return nn.Sequential(linear, nn.BatchNorm1d(outputs), nn.ReLU(inplace=True))
