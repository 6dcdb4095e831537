"""Contractive autoencoder: a code that small changes of the picture do not move (Rifai 2011)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import Normalize
from bench.nn.bottleneck import Bottleneck, last_map
from bench.nn.decoder import Decoder


class ContractiveAutoencoder(Method):
    """Adds the squared Frobenius norm of the code's Jacobian by the picture to the squared error.

    The paper (Contractive Auto-Encoders, ICML 2011) has one layer, whose norm is a formula. Here it
    is estimated without bias: E ||v J||^2 = ||J||^2 for random signs v (Hutchinson 1990).

    Batch norm makes each code depend on all pictures of the batch. J is that of all codes by all
    pictures, so what passes from one picture to another is in the penalty too. The code itself is
    standardised before its sigmoid: a shrunken code would have a small Jacobian at no cost, as the
    decoder could enlarge it again (the paper ties the decoder's weights to the encoder's).

    `mse` is in units of the pixels' variance; `jacobian` is the mean squared norm for one picture.
    """

    deviations = (
        "a deep convolutional network with batch norm; the paper has one layer of tied weights",
        "the code is standardised over the batch before its sigmoid",
        "Adam and squared error of normalised pixels; the paper: SGD and cross-entropy",
    )
    # On `scenes`, seed 0 of tuning, a weight of 0.1 is 0.01% of the loss and leaves the Jacobian at
    # 0.73 (kNN 29.1); 100 lowers it to 0.15 at the cost of the features (kNN 21.0).
    recipes = {"small": {"epochs": 10, "batch_size": 64, "code_dim": 128, "contraction": 10.0}}

    class Config(MethodConfig):
        """The paper chooses on validation; these are its authors' at deeplearning.net (cA.py)."""

        epochs: int = 20
        batch_size: int = 10
        code_dim: int = Field(500, ge=1)
        contraction: float = Field(0.1, ge=0)  # weight of the penalty, lambda
        projections: int = Field(1, ge=1)  # random directions for the norm; ours
        width: int = Field(32, ge=1)  # channels of the decoder's last map; ours
        lr: float = 1e-3  # Adam's

    def build(self) -> None:
        """The bottleneck with its standardisation, and a decoder from its code."""
        self.bottleneck = Bottleneck(self.backbone, self.data.size, self.cfg.code_dim)
        self.norm = nn.BatchNorm1d(self.cfg.code_dim, affine=False)
        self.decoder = Decoder(self.cfg.code_dim, self.data.size, width=self.cfg.width)

    def views(self) -> Sequence[View]:
        """The picture as it is."""
        return (View("picture", (Normalize(mean=self.data.mean, std=self.data.std),)),)

    def encode(self, x: Tensor) -> Tensor:
        """Codes `[B, code_dim]` in [0, 1]."""
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            code: Tensor = self.norm(self.bottleneck(last_map(self.backbone, x)))
        return code.sigmoid()

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Squared error and penalty of a picture, each a sum over pixels and code."""
        x = batch.view("picture").detach().requires_grad_()
        code = self.encode(x)
        error = (self.decoder(code).to(x.dtype) - x.detach()).square().mean()
        jacobian = self.contraction(code, x, step.rng).sum() / len(x)
        step.log("mse", error)
        step.log("jacobian", jacobian)
        loss: Tensor = x[0].numel() * error + self.cfg.contraction * jacobian
        return loss

    def contraction(self, code: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """Squared derivatives of the codes by each pixel of `x`, estimated, in its shape."""
        shape = (self.cfg.projections, *code.shape)
        signs = 2 * torch.randint(2, shape, generator=rng, device=code.device).to(code.dtype) - 1
        return torch.stack([squared_projection(code, x, v) for v in signs]).mean(0)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures, reconstructions, and how much each pixel moves the code (white: most)."""
        x = batch.view("picture")[:8].detach().requires_grad_()
        with torch.enable_grad():
            code = self.encode(x)
            moved = self.contraction(code, x, step.rng).detach().sum(1, keepdim=True).sqrt()
        brightness = moved / moved.amax((2, 3), keepdim=True).clamp(min=1e-12)
        return [
            Panel("input", self.data.rgb(x.detach())),
            Panel("reconstruction", self.data.rgb(self.decoder(code.detach()).float())),
            Panel("what moves the code", brightness.expand_as(x)),
        ]

    def optim(self, phase: str) -> OptimSpec:
        """Adam, its rate falling to 0 by a cosine."""
        return OptimSpec(name="adam", lr=self.cfg.lr)


def squared_projection(code: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """(v J)^2 for the Jacobian J of all `code` `[B, D]` by all `x`; differentiable, shaped as `x`.

    Summed, its mean over random signs `v` `[B, D]` is the squared Frobenius norm of J.
    """
    (projected,) = torch.autograd.grad(code, x, v, create_graph=True)
    return projected.square()
