"""Image gradients in place of colours, the input of NAT and DeepCluster."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Sobel(nn.Module):
    """Pictures `[B, 3, H, W]` to their gradients `[B, 3, H, W]`: along x, along y, and zeros.

    Channels are averaged to grey and filtered by the two unscaled 3 x 3 Sobel kernels, zeros
    around the picture, as in the official code of both papers (arXiv:1704.05310, 1807.05520).
    Their networks have two input channels; ours have three, so the third is always 0.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        dx = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        kernel = torch.stack([dx, dx.T, torch.zeros(3, 3)])[:, None]
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Gradients `[B, 3, H, W]`, in the units of `x` times 8 per pixel."""
        return nn.functional.conv2d(x.mean(1, keepdim=True), self.kernel, padding=1)
