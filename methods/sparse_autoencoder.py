"""Sparse autoencoder: a code of which few units are active at a time (Ng 2011, CS294A notes)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import Normalize
from bench.nn.bottleneck import Bottleneck, last_map
from bench.nn.decoder import Decoder

TINY = 1e-6  # keeps logarithms and quotients of silent units finite


class SparseAutoencoder(Method):
    """Half the squared error of a picture, plus beta times a penalty on the code's activity.

    kl: logistic units whose mean activation over the batch is to be `rho`. l1: rectified units
    whose activations are to be few. Both are summed over units.
    Logged: `mean_activation` (to be compared with rho), and `sparseness` in [0, 1], 0 where all
    pictures excite a unit alike and 1 where one does (Rolls and Tovee 1995, as Vinje 2000).
    `mse` is in units of the pixels' variance.
    """

    deviations = (
        "a deep convolutional encoder and decoder with batch norm; the notes have one layer each",
        "weight decay is on biases and batch norm too; the notes: on weights alone",
        "Adam on batches, which mean activations are taken over; the notes: L-BFGS on all pictures",
        "whole pictures, standardised; the exercise: 8 x 8 patches of whitened ones in [0.1, 0.9]",
        "l1 (not in the notes) is taken of units scaled to a mean square of 1 over the batch: the "
        "decoder's batch norm would undo a mere shrinking of the code",
    )
    recipes = {"small": {"epochs": 10, "batch_size": 64, "code_dim": 256}}

    class Config(MethodConfig):
        """The UFLDL exercise on natural images (Stanford), from memory."""

        epochs: int = 400  # iterations of L-BFGS, each over all pictures
        batch_size: int = 256  # ours: mean activations of rho need 1 / rho pictures and more
        code_dim: int = Field(25, ge=1)
        penalty: Literal["kl", "l1"] = "kl"
        beta: float = Field(3.0, ge=0)
        rho: float = Field(0.01, gt=0, lt=1)  # of kl
        weight_decay: float = 1e-4
        width: int = Field(32, ge=1)  # channels of the decoder's last map; ours
        lr: float = 1e-3  # Adam's; L-BFGS has none

    def build(self) -> None:
        """The bottleneck, and a decoder from its code."""
        self.bottleneck = Bottleneck(self.backbone, self.data.size, self.cfg.code_dim)
        self.decoder = Decoder(self.cfg.code_dim, self.data.size, width=self.cfg.width)

    def views(self) -> Sequence[View]:
        """The picture as it is."""
        return (View("picture", (Normalize(mean=self.data.mean, std=self.data.std),)),)

    def encode(self, x: Tensor) -> Tensor:
        """Activations `[B, code_dim]`, at least 0, in float32 at least."""
        code: Tensor = self.bottleneck(last_map(self.backbone, x))
        code = code.to(torch.promote_types(code.dtype, torch.float32))
        return code.sigmoid() if self.cfg.penalty == "kl" else code.relu()

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """1/2 ||x - x'||^2 + beta * penalty."""
        x = batch.view("picture")
        code = self.encode(x)
        mse = F.mse_loss(self.decoder(code).to(x.dtype), x)
        kl = self.cfg.penalty == "kl"
        penalty = kl_to_rate(code.mean(0), self.cfg.rho).sum() if kl else relative_l1(code).sum()
        step.log("mse", mse)
        step.log("penalty", penalty)
        step.log("mean_activation", code.mean())
        step.log("sparseness", sparseness(code).mean())
        loss: Tensor = x[0].numel() / 2 * mse + self.cfg.beta * penalty
        return loss

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures, reconstructions, and what is drawn where only the strongest units are left."""
        x = batch.view("picture")[:8]
        code = self.encode(x)
        panels = [
            Panel("input", self.data.rgb(x)),
            Panel("reconstruction", self.data.rgb(self.decoder(code).float())),
        ]
        count = max(self.cfg.code_dim // 10, 1)
        weakest = code.topk(self.cfg.code_dim - count, largest=False).indices
        left = self.data.rgb(self.decoder(code.scatter(1, weakest, 0.0)).float())
        return [*panels, Panel(f"from the {count} most active units alone", left)]

    def optim(self, phase: str) -> OptimSpec:
        """Adam, its rate falling to 0 by a cosine."""
        return OptimSpec(name="adam", lr=self.cfg.lr, weight_decay=self.cfg.weight_decay)


def kl_to_rate(mean: Tensor, rho: float) -> Tensor:
    """KL(Bernoulli(rho) || Bernoulli(mean)) in nats for each unit's mean activation in [0, 1]."""
    mean = mean.clamp(TINY, 1 - TINY)
    target = torch.full_like(mean, rho)
    return target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()


def relative_l1(code: Tensor) -> Tensor:
    """Mean absolute activation of each unit over its root mean square; 1: all alike, `[D]`."""
    return code.abs().mean(0) / (code.square().mean(0) + TINY**2).sqrt()


def sparseness(code: Tensor) -> Tensor:
    """(1 - mean^2 / mean square) / (1 - 1 / B) over the B pictures, for each unit, `[D]`."""
    ratio = code.mean(0).square() / code.square().mean(0).clamp(min=TINY**2)
    return (1 - ratio) / (1 - 1 / len(code))
