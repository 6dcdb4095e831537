"""BiGAN: an encoder and a generator that invert each other (Donahue 2017, arXiv:1605.09782)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import HorizontalFlip, RandomCrop
from bench.nn.bottleneck import Bottleneck, last_map
from bench.nn.decoder import Decoder
from bench.nn.discriminator import (
    Discriminator,
    discriminator_loss,
    discriminator_top1,
    frozen,
)

DROPS = 10  # stairs of the exponential decay, down to a hundredth


class BiGAN(Method):
    """The encoder E makes codes of pictures, the generator G pictures of codes.

    The discriminator tells pairs (x, E(x)) from pairs (G(z), z), z uniform in [-1, 1]; E and G
    minimise its loss with the labels swapped, and at the optimum invert each other. The encoder
    fed to protocols is E's backbone, on whole pictures.
    Logged: both losses, 1.39 where D cannot tell the pairs apart, and its `discriminator_top1`
    (chance 50). The small recipe is short for a GAN: on scenes its best layer is a few points above
    `random_init` by linear probe (41.3 to 37.7 %, 3 seeds), and level with it by kNN (19.1, 18.1).
    """

    phases = ("discriminator", "generator")
    deviations = (
        "the discriminator steps before generator and encoder; the official code steps at once",
        "E and D see pictures of one size: the official E sees 112 px, D 64 px",
        "the learning rate decays in ten stairs",
        "random horizontal flips",
        "G upsamples and convolves instead of strided transposed convolutions; D joins x and z",
        "weight decay is on the gains of batch norm too",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 32,
            "lr": 1e-3,
            "discriminator_lr_factor": 0.25,
            "z_dim": 32,
            "width": 16,
            "crop": 1.0,
        },
    }

    class Config(MethodConfig):
        """Settings of jeffdonahue/bigan: train_gan.py, train_imagenet_highres_encoder.sh."""

        epochs: int = 100  # the learning rate is constant for half of them
        batch_size: int = 128
        lr: float = 2e-4
        discriminator_lr_factor: float = 1.0  # of lr; below 1 where the discriminator wins
        beta1: float = 0.5
        weight_decay: float = 2.5e-5
        z_dim: int = Field(200, ge=1)  # uniform
        width: int = Field(64, ge=1)  # channels of the outermost maps of G and D
        crop: float = 112 / 128  # random crops of this share of the side

    def build(self) -> None:
        """The encoder's head, the generator and the discriminator."""
        cfg, size = self.cfg, self.data.size
        self.head = Bottleneck(self.backbone, size, cfg.z_dim)
        self.generator = Decoder(cfg.z_dim, size, width=cfg.width)
        self.discriminator = Discriminator(size, width=cfg.width, code=cfg.z_dim)

    def views(self) -> Sequence[View]:
        """A random crop, mirrored or not, RGB in [0, 1]."""
        crop = RandomCrop(padding=0, fraction=self.cfg.crop)
        return (View("picture", (crop, HorizontalFlip(p=0.5))),)

    def parameters_for(self, phase: str) -> Iterable[nn.Parameter]:
        """The discriminator's, or those of encoder and generator."""
        wanted = phase == "discriminator"
        named = self.named_parameters()
        return (p for name, p in named if name.startswith("discriminator.") == wanted)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Binary cross-entropy on pairs; for encoder and generator with the labels swapped."""
        rgb = batch.view("picture")
        z = self.codes(rgb, step.rng)
        if step.phase == "discriminator":
            with torch.no_grad():
                code, made = self.encode(rgb), self.generate(z)
            real, fake = self.discriminator(2 * rgb - 1, code), self.discriminator(made, z)
            step.log("discriminator_top1", discriminator_top1(real, fake))
            return discriminator_loss(real, fake)
        code, made = self.encode(rgb), self.generate(z)
        with frozen(self.discriminator):
            real, fake = self.discriminator(2 * rgb - 1, code), self.discriminator(made, z)
        return discriminator_loss(real=fake, fake=real)  # the labels are swapped

    def encode(self, rgb: Tensor) -> Tensor:
        """E: codes `[B, z_dim]`, unbounded, of RGB in [0, 1]."""
        code: Tensor = self.head(last_map(self.backbone, self.data.normalize(rgb)))
        return code

    def generate(self, z: Tensor) -> Tensor:
        """G: pictures `[B, 3, s, s]`, RGB in [-1, 1], of codes `[B, z_dim]`."""
        return torch.tanh(self.generator(z))

    def codes(self, like: Tensor, rng: torch.Generator) -> Tensor:
        """A random code for each of the pictures `like`, `[B, z_dim]`, uniform in [-1, 1]."""
        z = torch.empty(len(like), self.cfg.z_dim, dtype=like.dtype, device=like.device)
        return z.uniform_(-1, 1, generator=rng)

    def optim(self, phase: str) -> OptimSpec:
        """Adam; from half of training on the learning rate decays exponentially to a hundredth."""
        factor = self.cfg.discriminator_lr_factor if phase == "discriminator" else 1.0
        return OptimSpec(
            name="adam",
            lr=factor * self.cfg.lr,
            betas=(self.cfg.beta1, 0.999),
            weight_decay=self.cfg.weight_decay,
            schedule="step",
            milestones=tuple(0.5 + 0.5 * drop / DROPS for drop in range(DROPS)),
            gammas=(0.01 ** (1 / DROPS),) * DROPS,
        )

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Inputs, what G makes of their codes, and what it makes of random ones."""
        rgb = batch.view("picture")[:8]
        z = self.codes(rgb, step.rng)
        return [
            Panel("inputs", rgb),
            Panel("reconstructions G(E(x))", (self.generate(self.encode(rgb)) + 1) / 2),
            Panel("samples G(z)", (self.generate(z) + 1) / 2),
        ]
