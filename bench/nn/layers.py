"""The convolutions and linear layers of any network: in which order, and how fast each learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

ROUNDS, TOLERANCE = 10, 0.01  # at most, and of the log ratio, as in philkr/magic_init

Layer = nn.Conv2d | nn.Linear


def in_order(network: nn.Module, x: Tensor, action: Callable[[Layer, Tensor], None]) -> list[Layer]:
    """Run `network` on `x`, with `action(layer, input)` before each layer's first call.

    What `action` does to a layer is felt by those after it.

    Returns:
        The convolutions and linear layers that were called, in that order.
    """
    seen: list[Layer] = []

    def before(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        if layer not in seen:
            seen.append(layer)
            action(layer, inputs[0])

    with ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, Layer):
                hooks.callback(module.register_forward_pre_hook(before).remove)
        network(x)
    return seen


def balance(network: nn.Module, layers: Sequence[Layer], x: Tensor) -> None:
    """Rescale layers until their gradient-to-weight ratios are one, the geometric mean of all.

    The ratio is sqrt(mean gradient^2 / mean weight^2) for a random gradient at the output. If each
    layer's output scales with its input, the network's output stays: the scales multiply to 1.

    Args:
        network: what `layers` are part of.
        layers: what is rescaled; a bias is scaled as its layer's output is.
        x: normalised pictures `[B, 3, H, W]`.
    """
    magnitude: dict[Layer, Tensor] = {}
    with torch.no_grad():
        noise = torch.randn_like(network(x))
        in_order(network, x, lambda layer, value: magnitude.update({layer: value.abs().mean()}))
    for _ in range(ROUNDS):
        ratio = gradient_ratios(network, layers, x, noise)
        # Where no gradient arrives (behind a zero-initialised scale) there is nothing to balance.
        logs = {layer: value.log() for layer, value in ratio.items() if value > 0}
        target = torch.stack(list(logs.values())).mean()
        apart = {layer: value - target for layer, value in logs.items()}
        if max(value.abs() for value in apart.values()) < TOLERANCE:
            break

        def rescale(layer: Layer, value: Tensor, apart: dict[Layer, Tensor] = apart) -> None:
            scale = (apart.get(layer, value.new_zeros(())) / 2).exp()
            layer.weight.mul_(scale)
            if layer.bias is not None:
                layer.bias.mul_(scale * value.abs().mean() / magnitude[layer])
            magnitude[layer] = value.abs().mean()

        with torch.no_grad():
            in_order(network, x, rescale)


def gradient_ratios(
    network: nn.Module, layers: Sequence[Layer], x: Tensor, noise: Tensor
) -> dict[Layer, Tensor]:
    """sqrt(mean gradient^2 / mean weight^2) by layer; `noise` is the gradient at the output."""
    weights = [layer.weight for layer in layers]
    with torch.enable_grad():
        gradients = torch.autograd.grad(network(x), weights, noise)
    pairs = zip(layers, weights, gradients, strict=True)
    return {
        layer: (grad.square().mean() / weight.detach().square().mean()).sqrt()
        for layer, weight, grad in pairs
    }
