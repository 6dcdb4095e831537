"""Denoising autoencoder: repair a corrupted picture (Vincent 2010, JMLR 11:3371)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.nn.bottleneck import Bottleneck, last_map
from bench.nn.decoder import Decoder

Corruption = Literal["gaussian", "masking", "salt_and_pepper"]


class DenoisingAutoencoder(Method):
    """The encoder sees the corrupted picture, the loss the clean one; protocols see no corruption.

    To repair a pixel the code must know what its surroundings imply, so it may be wide.
    `mse` is in units of the pixels' variance. It has to be below `mse_unrepaired`, that of the
    corrupted picture itself; `mse_corrupted` is over the corrupted pixels alone.
    """

    deviations = (
        "convolutional and trained as a whole; the paper stacks fully connected layers one by one",
        "Adam; the paper uses stochastic gradient descent, its rate chosen on validation",
        "a pixel is corrupted in all its channels: any left would give it away (paper: grayscale)",
        "squared error for every corruption; the paper takes cross-entropy for values in [0, 1]",
    )
    recipes = {"small": {"epochs": 10, "batch_size": 64, "code_dim": 128}}

    class Config(MethodConfig):
        """The stacked denoising autoencoders of section 6, from memory."""

        epochs: int = 300  # the most that validation may choose
        batch_size: int = 20  # not in the paper; deeplearning.net's dA
        corruption: Corruption = "masking"
        # A pixel's chance to be lost, {0.1, 0.25, 0.4}; gaussian: the deviation of RGB in [0, 1].
        level: float = Field(0.25, gt=0)
        loss_on: Literal["all", "corrupted"] = "all"  # corrupted: "full emphasis", section 4.2
        code_dim: int = Field(2000, ge=1)  # {1000, 2000}
        width: int = Field(32, ge=1)  # channels of the decoder's last map; ours
        lr: float = 1e-3  # Adam's

        @field_validator("level")
        @classmethod
        def _chance(cls, level: float, info: ValidationInfo) -> float:
            if level > 1 and info.data.get("corruption") != "gaussian":
                raise ValueError("it is the share of pixels to corrupt: give at most 1")
            return level

        @field_validator("loss_on")
        @classmethod
        def _some_are_left(cls, loss_on: str, info: ValidationInfo) -> str:
            if loss_on == "corrupted" and info.data.get("corruption") == "gaussian":
                raise ValueError(
                    "gaussian noise corrupts every pixel: there are no others; use all"
                )
            return loss_on

    def build(self) -> None:
        """The bottleneck, and a decoder from its code."""
        self.bottleneck = Bottleneck(self.backbone, self.data.size, self.cfg.code_dim)
        self.decoder = Decoder(self.cfg.code_dim, self.data.size, width=self.cfg.width)

    def views(self) -> Sequence[View]:
        """The picture as it is, in RGB, where corruption is defined."""
        return (View("picture", ()),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The mean squared error, over all pixels or over the corrupted ones."""
        corrupted, chosen = self.corrupt(batch.view("picture"), step.rng)
        clean = self.data.normalize(batch.view("picture"))
        noisy = self.data.normalize(corrupted)
        error = (self.reconstruct(noisy) - clean).square().mean(1, keepdim=True)
        everywhere, there = error.mean(), (error * chosen).sum() / chosen.sum().clamp(min=1)
        step.log("mse", everywhere)
        step.log("mse_corrupted", there)
        step.log("mse_unrepaired", (noisy - clean).square().mean())
        return everywhere if self.cfg.loss_on == "all" else there

    def corrupt(self, rgb: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Corrupt `rgb` `[B, 3, h, w]`; also says which pixels, bool `[B, 1, h, w]`."""
        return corrupt(rgb, self.cfg.corruption, self.cfg.level, rng)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Normalised pictures `[B, 3, s, s]` through the code and back."""
        out: Tensor = self.decoder(self.bottleneck(last_map(self.backbone, x)))
        return out.float()

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures, what the network was given of them, and what it made of that."""
        clean = batch.view("picture")[:8]
        corrupted, _ = self.corrupt(clean, step.rng)
        repaired = self.reconstruct(self.data.normalize(corrupted))
        return [
            Panel("input", clean),
            Panel(f"{self.cfg.corruption} {self.cfg.level:g}".replace("_", " "), corrupted),
            Panel("reconstruction", self.data.rgb(repaired)),
        ]

    def optim(self, phase: str) -> OptimSpec:
        """Adam, its rate falling to 0 by a cosine."""
        return OptimSpec(name="adam", lr=self.cfg.lr)


def corrupt(
    rgb: Tensor, corruption: Corruption, level: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Corrupt pictures as section 3.3 defines it; nothing is clipped.

    Args:
        rgb: pictures `[B, 3, h, w]` in [0, 1].
        corruption: gaussian adds N(0, level^2) to every value; masking sets a pixel to 0, and
            salt_and_pepper to 0 or 1 by a fair coin, each with probability `level`.
        level: see above.
        rng: the source of the corruption, on the device of `rgb`.

    Returns:
        The corrupted pictures, and the corrupted pixels, bool `[B, 1, h, w]`.
    """
    draw = {"generator": rng, "device": rgb.device, "dtype": rgb.dtype}
    if corruption == "gaussian":
        noise = torch.randn(rgb.shape, **draw)  # type: ignore[call-overload]
        return rgb + level * noise, torch.ones_like(rgb[:, :1], dtype=torch.bool)
    uniform = torch.rand(rgb[:, :1].shape, **draw)  # type: ignore[call-overload]
    chosen = uniform < level
    salt = (uniform < level / 2).to(rgb) if corruption == "salt_and_pepper" else rgb.new_zeros(())
    return torch.where(chosen, salt, rgb), chosen
