"""Fixed parts of super-resolution: the degradation, and the features its content is judged by."""

from __future__ import annotations

from pathlib import Path

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F

from bench import backbones
from bench.api import DataInfo
from bench.errors import BenchError

CONV5_4 = 36  # layers of VGG-19's `features`, up to the ReLU after its last convolution


class Degrade(nn.Module):
    """Normalised pictures `[B, 3, h, w]` shrunk by `scale` and enlarged again, both bicubic."""

    def __init__(self, scale: int, data: DataInfo) -> None:
        super().__init__()
        self.scale, self.data = scale, data

    def forward(self, x: Tensor) -> Tensor:
        """The same size, without fine detail; RGB is clipped as a stored small picture would be."""
        small = _bicubic(self.data.rgb(x), x.shape[-1] // self.scale).clamp(0, 1)
        large = _bicubic(small, x.shape[-1])
        return self.data.normalize(large.clamp(0, 1))


class Phi54(nn.Module):
    """VGG-19's last convolution after its ReLU, phi_5,4 of the paper; it is not trained.

    Args:
        size: side of the pictures, pixels.
        weights: a local file; None: timm's.

    Raises:
        BenchError: there are no weights to be had.
    """

    def __init__(self, size: int, weights: str | None) -> None:
        super().__init__()
        try:
            vgg = backbones.build("vgg19", size, pretrained=weights is None)
            if weights is not None:
                backbones.load_weights(vgg, Path(weights))
        except BenchError as error:
            raise BenchError(
                f"content=vgg needs VGG-19 trained on ImageNet ({error}); "
                "set method.vgg_weights to a file, or method.content=pixel"
            ) from error
        layers = list(vgg.get_submodule("model.features").children())[:CONV5_4]
        self.features = nn.Sequential(*layers).requires_grad_(False)
        self.mean = nn.Buffer(torch.tensor(IMAGENET_DEFAULT_MEAN)[:, None, None])
        self.std = nn.Buffer(torch.tensor(IMAGENET_DEFAULT_STD)[:, None, None])

    def forward(self, rgb: Tensor) -> Tensor:
        """Features `[B, 512, h / 16, w / 16]` of RGB in [0, 1]."""
        out: Tensor = self.features((rgb - self.mean) / self.std)
        return out.to(torch.promote_types(out.dtype, torch.float32))


def _bicubic(x: Tensor, size: int) -> Tensor:
    # With antialias the kernel is Pillow's and MATLAB's, a = -0.5, in both directions.
    return F.interpolate(x, (size, size), mode="bicubic", antialias=True)
