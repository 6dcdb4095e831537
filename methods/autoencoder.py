"""Autoencoder: redraw the picture from a short code (Hinton 2006, doi:10.1126/science.1127647)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import Normalize
from bench.nn.bottleneck import Bottleneck, last_map
from bench.nn.decoder import Decoder


class Autoencoder(Method):
    """Encoder, bottleneck and decoder are trained as one, on the squared error of every pixel.

    Without a bottleneck the identity would do: it is the code's shortness that makes it choose.
    `mse` is in units of the pixels' variance: always drawing the mean colour gives 1.
    """

    deviations = (
        "convolutional, with batch norm; the paper's layers are fully connected and logistic",
        "trained as a whole by Adam; the paper stacks RBMs, then uses conjugate gradients",
        "squared error of normalised pixels; the paper's is the cross-entropy of pixels in [0, 1]",
    )
    recipes = {"small": {"epochs": 10, "batch_size": 64, "code_dim": 128}}

    class Config(MethodConfig):
        """MNIST's in the paper and its code, from memory."""

        epochs: int = 200  # of fine-tuning, in the code
        batch_size: int = 1000
        code_dim: int = Field(30, ge=1)
        width: int = Field(32, ge=1)  # channels of the decoder's last map; ours
        lr: float = 1e-3  # Adam's; conjugate gradients have none

    def build(self) -> None:
        """The bottleneck, and a decoder from its code."""
        self.bottleneck = Bottleneck(self.backbone, self.data.size, self.cfg.code_dim)
        self.decoder = Decoder(self.cfg.code_dim, self.data.size, width=self.cfg.width)

    def views(self) -> Sequence[View]:
        """The picture as it is."""
        return (View("picture", (Normalize(mean=self.data.mean, std=self.data.std),)),)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Pictures `[B, 3, s, s]` through the code and back."""
        out: Tensor = self.decoder(self.bottleneck(last_map(self.backbone, x)))
        return out.float()

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The mean squared error of the normalised pixels."""
        x = batch.view("picture")
        loss = F.mse_loss(self.reconstruct(x), x)
        step.log("mse", loss)
        return loss

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures and what is left of them after the code."""
        x = batch.view("picture")[:8]
        return [
            Panel("input", self.data.rgb(x)),
            Panel("reconstruction", self.data.rgb(self.reconstruct(x))),
        ]

    def optim(self, phase: str) -> OptimSpec:
        """Adam, its rate falling to 0 by a cosine."""
        return OptimSpec(name="adam", lr=self.cfg.lr)
