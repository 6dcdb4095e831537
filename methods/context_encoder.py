"""Context encoder: paint what was cut out of a picture (Pathak 2016, arXiv:1604.07379)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import HorizontalFlip, RandomCrop
from bench.errors import BenchError
from bench.nn.bottleneck import Bottleneck, last_map
from bench.nn.decoder import Decoder
from bench.nn.discriminator import (
    Discriminator,
    discriminator_loss,
    discriminator_top1,
    frozen,
    generator_loss,
)
from bench.nn.holes import random_blocks, random_regions


class ContextEncoder(Method):
    """A hole is filled with the mean colour; the network sees the rest and predicts pixels.

    With the central mask it predicts the central square, whose rim it can see (`overlap`); with
    random masks the whole picture, as train_random.lua does: the discriminator then judges whole
    pictures. The paper learns features by random regions and the L2 loss alone, since the
    adversarial loss did not converge with AlexNet; it paints the centre with the joint loss.

    The encoder is fed whole pictures, without a hole, as in the paper's transfer experiments.
    Logged: `hole_mse` beside `fill_mse`, the error of the mean colour, both of RGB in [-1, 1].
    """

    phases: tuple[str, ...] = ("discriminator", "generator")
    deviations = (
        "the backbone replaces the encoder; its last map is averaged to 4 x 4 and fully connected",
        "the decoder upsamples and convolves instead of strided transposed convolutions",
        "random_region: smooth noise below a threshold, as in train_random.lua, not VOC shapes; "
        "every picture has its own, of exactly a quarter of the area",
        "random_block: up to 8 blocks of 1/8 to 3/8 of the side; the paper gives no sizes",
        "the same picture has other random holes in the two players' steps",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "lr": 1e-3,
            "generator_lr_factor": 1.0,
            "crop": 1.0,
            "bottleneck": 512,
            "width": 16,
        },
        # All parts at work, for the conformance suite.
        "toy": {"mask": "center", "loss": "joint", "crop": 1.0, "bottleneck": 64, "width": 16},
    }

    class Config(MethodConfig):
        """Features as in the paper, section 5.2; settings of pathak22/context-encoder."""

        epochs: int = 500  # README: niter
        batch_size: int = 64
        lr: float = 2e-4
        generator_lr_factor: float = 10.0  # joint loss only, train_random.lua
        beta1: float = 0.5
        mask: Literal["center", "random_block", "random_region"] = "random_region"
        loss: Literal["l2", "adversarial", "joint"] = "l2"
        l2_weight: float = Field(0.999, gt=0, lt=1)  # of the joint loss; the rest is adversarial
        overlap: float = Field(4 / 128, ge=0, lt=0.25)  # visible rim of the centre, of the side
        overlap_weight: float = 10.0  # of the rim in the L2 loss
        context_weight: float = 1.0  # same of all visible pixels with random masks: README
        bottleneck: int = Field(4000, ge=1)
        width: int = Field(64, ge=1)  # channels of the outermost maps of decoder and discriminator
        crop: float = 128 / 350  # random crops of this share of the side

    def build(self) -> None:
        """Bottleneck and decoder; a discriminator where the loss asks for one."""
        size, cfg = self.data.size, self.cfg
        if size < 16:
            raise BenchError(
                f"context_encoder needs pictures of at least 16 px, {self.data.name} has {size} px"
            )
        self.side = size // 2 if cfg.mask == "center" else size  # of what is predicted
        self.start = (size - self.side) // 2
        self.bottleneck = nn.Sequential(
            Bottleneck(self.backbone, size, cfg.bottleneck),
            nn.BatchNorm1d(cfg.bottleneck),
            nn.LeakyReLU(0.2),
        )
        self.decoder = Decoder(cfg.bottleneck, self.side, width=cfg.width)
        if cfg.loss == "l2":
            self.phases = ("generator",)  # there is nobody to play against
        else:
            self.discriminator = Discriminator(self.side, width=cfg.width)

    def views(self) -> Sequence[View]:
        """A random crop, RGB in [0, 1]."""
        crop = RandomCrop(padding=0, fraction=self.cfg.crop)
        return (View("picture", (crop, HorizontalFlip(p=0.5))),)

    def parameters_for(self, phase: str) -> Iterable[nn.Parameter]:
        """The discriminator's, or all others."""
        own = [name.startswith("discriminator.") for name, _ in self.named_parameters()]
        wanted = phase == "discriminator"
        return (p for p, is_d in zip(self.parameters(), own, strict=True) if is_d == wanted)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Binary cross-entropy of the discriminator; L2 and adversarial loss of the generator."""
        rgb = batch.view("picture")
        hole = self.holes(rgb, step.rng)
        real = self._window(2 * rgb - 1)
        if step.phase == "discriminator":
            with torch.no_grad():
                fake = self.paint(rgb, hole)
            says_real, says_fake = self.discriminator(real), self.discriminator(fake)
            step.log("discriminator_top1", discriminator_top1(says_real, says_fake))
            return discriminator_loss(says_real, says_fake)
        fake = self.paint(rgb, hole)
        inside = self._window(hole)
        l2 = self._l2(fake, real, inside, step)
        if self.cfg.loss == "l2":
            return l2
        with frozen(self.discriminator):
            adversarial = generator_loss(self.discriminator(fake))
        step.log("adversarial", adversarial)
        if self.cfg.loss == "adversarial":
            return adversarial
        total: Tensor = self.cfg.l2_weight * l2 + (1 - self.cfg.l2_weight) * adversarial
        return total

    def _l2(self, fake: Tensor, real: Tensor, inside: Tensor, step: Step) -> Tensor:
        """The mean of weighted squared errors; the weights of visible pixels are not 1."""
        error = (fake - real).square()
        mean = 2 * self.data.rgb(torch.zeros_like(real)) - 1
        share = inside.float().mean()
        step.log("hole_mse", (error * inside).mean() / share)
        step.log("fill_mse", ((mean - real).square() * inside).mean() / share)
        central = self.cfg.mask == "center"
        seen = self.cfg.overlap_weight if central else self.cfg.context_weight
        return (error * torch.where(inside, 1.0, seen)).mean()

    def paint(self, rgb: Tensor, hole: Tensor) -> Tensor:
        """What the network makes of pictures without their holes, `[B, 3, side, side]`, [-1, 1]."""
        seen = self.data.normalize(rgb) * ~hole  # the mean colour is 0
        code = self.bottleneck(last_map(self.backbone, seen))
        out: Tensor = torch.tanh(self.decoder(code))
        return out

    def holes(self, rgb: Tensor, rng: torch.Generator) -> Tensor:
        """True where a picture is cut out, `[B, 1, s, s]`."""
        if self.cfg.mask == "random_block":
            return random_blocks(len(rgb), self.data.size, rng)
        if self.cfg.mask == "random_region":
            return random_regions(len(rgb), self.data.size, rng)
        rim = max(1, round(self.cfg.overlap * self.data.size)) if self.cfg.overlap else 0
        hole = torch.zeros_like(rgb[:, :1], dtype=torch.bool)
        at = slice(self.start + rim, self.start + self.side - rim)
        hole[:, :, at, at] = True
        return hole

    def _window(self, x: Tensor) -> Tensor:
        at = slice(self.start, self.start + self.side)
        return x[..., at, at]

    def optim(self, phase: str) -> OptimSpec:
        """Adam; the generator of the joint loss learns ten times as fast."""
        faster = phase == "generator" and self.cfg.loss == "joint"
        factor = self.cfg.generator_lr_factor if faster else 1.0
        betas = (self.cfg.beta1, 0.999)
        return OptimSpec(name="adam", lr=factor * self.cfg.lr, betas=betas, schedule="constant")

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Inputs, what the network sees of them, and what it paints into the holes."""
        rgb = batch.view("picture")[:8]
        hole = self.holes(rgb, step.rng)
        painted = rgb.clone()
        self._window(painted).copy_((self.paint(rgb, hole) + 1) / 2)
        mean = self.data.rgb(torch.zeros_like(rgb))
        return [
            Panel("inputs", rgb),
            Panel("masked", torch.where(hole, mean, rgb)),
            Panel("inpainted", torch.where(hole, painted, rgb)),
        ]
