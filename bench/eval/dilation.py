"""A network at a finer stride with the weights it has: strides undone, filters dilated instead.

The hole algorithm of DeepLab (arXiv:1412.7062) and of dilated residual networks (arXiv:1705.09914).
"""

from __future__ import annotations

import copy
import math
from functools import partial

import torch
from torch import Tensor, nn

from bench.api import Encoder
from bench.errors import BenchError

FINER = 4  # the last map's stride is divided by this: 8 in place of 32 for a ResNet

Strided = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def dilated(encoder: Encoder, size: int, device: torch.device | str = "cpu") -> Encoder:
    """A copy of `encoder` whose last map is up to four times finer.

    Every filter sees what it saw before, now at all places: strides beyond the wanted one become 1,
    and what comes after is dilated by as much. Of timm's ResNets it makes `output_stride=8`.

    Args:
        encoder: a convolutional network, in eval mode.
        size: the side of its pictures, pixels.
        device: where it is.

    Raises:
        BenchError: it is no network of plain convolutions and pools that this works for.
    """
    network = copy.deepcopy(encoder)
    blank = torch.zeros(1, 3, size, size, device=device)
    sides: dict[Strided, int] = {}  # of what each convolution and pool sees
    hooks = [
        module.register_forward_pre_hook(partial(_note, sides))
        for module in network.modules()
        if isinstance(module, Strided)
    ]
    try:
        before = _last(network, blank)
        for hook in hooks:
            hook.remove()
        if next(iter(sides.values()), None) != size:  # patches, say: strides would be of those
            raise ValueError("the first convolution does not see the picture at its size")
        stride = _stride(size, before)
        for module, side in sides.items():
            _dilate(module, _stride(size, side), max(1, stride // FINER))
        after = _last(network, blank)
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        raise _refusal(encoder) from error
    if after <= before:
        raise _refusal(encoder)
    return network


def _note(sides: dict[Strided, int], module: Strided, inputs: tuple[Tensor, ...]) -> None:
    sides.setdefault(module, inputs[0].shape[-1])


@torch.no_grad()
def _last(network: Encoder, x: Tensor) -> int:
    return network.maps(x)[network.layers[-1]].shape[-1]


def _stride(size: int, side: int) -> int:
    """The power of two by which `size` pixels have become `side` places; borders round it."""
    return 1 << round(math.log2(size / side))


def _dilate(module: Strided, before: int, wanted: int) -> None:
    """Let `module`, whose inputs had the stride `before`, see those of the stride `wanted`.

    Raises:
        ValueError: it cannot.
    """
    stride, kernel, padding = (
        _one(value) for value in (module.stride, module.kernel_size, module.padding)
    )
    rate = max(1, before // wanted)
    if before * stride > wanted and stride > 1:
        if stride > 2:  # patches, whose places are as they were numbered in training
            raise ValueError("a stride of more than 2")
        module.stride = (1, 1) if isinstance(module, nn.Conv2d) else 1
    if rate == 1 or kernel == 1:
        return
    if isinstance(module, nn.AvgPool2d):
        raise ValueError("an average cannot be dilated")
    dilation = rate * _one(module.dilation)
    pair = isinstance(module, nn.Conv2d)
    module.dilation = (dilation, dilation) if pair else dilation
    module.padding = (padding * rate, padding * rate) if pair else padding * rate


def _one(value: object) -> int:
    """The one number of a square setting.

    Raises:
        ValueError: it is not square, or not a number.
    """
    found = set(value) if isinstance(value, tuple) else {value}
    number = found.pop()
    if found or not isinstance(number, int):
        raise ValueError("not square")
    return number


def _refusal(encoder: Encoder) -> BenchError:
    return BenchError(
        f"{type(encoder).__name__} cannot be dilated; choose a convolutional backbone such as "
        "resnet18 or small, or another protocol.head"
    )
