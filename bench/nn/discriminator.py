"""The judge of adversarial methods: is this picture real? And the losses of both players."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

END = 4  # px: the side at which convolutions stop halving
WIDEST = 512  # channels
SLOPE = 0.2  # of the leaky ReLU below zero
JOINT = 512  # units of the layer in which a picture meets its code
INIT_STD = 0.02  # of all weights, arXiv:1511.06434


class Discriminator(nn.Module):
    """Pictures `[B, channels, size, size]` to logits `[B]`, as in DCGAN (arXiv:1511.06434).

    4 x 4 convolutions of stride 2 with leaky ReLU, batch norm on all but the first, until the map
    is 4 x 4 or smaller; then one linear layer. With `code`, it judges pairs of a picture and a
    code vector (BiGAN, arXiv:1605.09782), which meet in one hidden layer after the convolutions.

    Args:
        size: side of the pictures, pixels.
        channels: of the pictures.
        width: channels of the first map; each further one has twice as many, at most 512.
        code: values of the code that comes with each picture; 0: pictures alone.
    """

    def __init__(self, size: int, channels: int = 3, width: int = 64, code: int = 0) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        inputs, outputs, side = channels, width, size
        while side > END:
            first = not steps
            steps.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=first))
            steps += [] if first else [nn.BatchNorm2d(outputs)]
            steps.append(nn.LeakyReLU(SLOPE))
            inputs, outputs, side = outputs, min(2 * outputs, WIDEST), side // 2
        self.features = nn.Sequential(*steps)
        self.dim = inputs * side**2  # values that the linear layer sees of a picture
        self.joint = nn.Linear(self.dim + code, JOINT) if code else None
        self.head = nn.Linear(JOINT if code else self.dim, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Logits `[B]`, float32 at least: above zero means real. `code` is `[B, code]`."""
        hidden = self.features(x).flatten(1)
        if self.joint is not None:
            assert code is not None, "this discriminator judges pairs: give the codes too"
            hidden = F.leaky_relu(self.joint(torch.cat([hidden, code], dim=1)), SLOPE)
        out: Tensor = self.head(hidden).squeeze(1)
        return out.to(torch.promote_types(out.dtype, torch.float32))


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross-entropy: the mean of -log D(real), plus that of -log(1 - D(fake)).

    2 log 2 = 1.39 where the discriminator cannot tell them apart (Goodfellow, arXiv:1406.2661).

    Args:
        real: logits `[B]` of what is to be called real.
        fake: logits `[B]` of what is to be called fake.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """The mean of -log D(fake), which does not saturate (arXiv:1406.2661), from logits `[B]`."""
    return F.softplus(-fake).mean()


def discriminator_top1(real: Tensor, fake: Tensor) -> Tensor:
    """How often the discriminator is right, in percent; chance is 50."""
    return 50 * ((real > 0).float().mean() + (fake <= 0).float().mean())


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within it, gradients flow through `module` to its input, but none is made for its weights.

    For the generator's phase: the discriminator's weights are not trained in it.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
