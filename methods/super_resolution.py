"""Super-resolution: enlarge a small picture, SRResNet and SRGAN (Ledig 2017, arXiv:1609.04802)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.api import Batch, Encoder, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import HorizontalFlip, RandomCrop
from bench.errors import BenchError
from bench.nn.dense_head import DenseHead
from bench.nn.discriminator import (
    Discriminator,
    discriminator_loss,
    discriminator_top1,
    frozen,
    generator_loss,
)
from bench.nn.perceptual import Degrade, Phi54
from bench.nn.wrap import Rewired

SMALLEST = 4  # px: side of the shrunken pictures


class SuperResolution(Method):
    """The generator: the backbone, then sub-pixel convolutions; it adds to the bicubic picture.

    Pictures are shrunk by `scale` and enlarged again (both bicubic), so that the backbone sees its
    usual size. Its maps meet at the size of the small picture, where SRResNet does its work, and
    sub-pixel convolutions (arXiv:1609.05158) enlarge them. `adversarial=false` is SRResNet.
    Else the first epochs train by pixels alone, as SRResNet; then the generator minimises content
    loss + 1e-3 * -log D(G(x)), and the discriminator plain binary cross-entropy.

    The encoder is fed pictures shrunk and enlarged as in training: it never saw fine detail.
    Logged: `psnr` beside `bicubic_psnr`, dB, of whole batches in RGB.
    """

    phases: tuple[str, ...] = ("discriminator", "generator")
    deviations = (
        "the backbone replaces SRResNet's 16 residual blocks, and sees the enlarged picture",
        "the network adds to the bicubic picture; SRResNet makes the picture itself",
        "the last sub-pixel convolution makes the pixels, without a 9 x 9 convolution after it",
        "the discriminator is DCGAN's",
        "random horizontal flips",
        "whole pictures at the stored size; the paper crops 96 px without resizing",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 64,
            "lr": 1e-3,
            "scale": 2,
            "adversarial": False,
            "content": "pixel",
            "width": 32,
            "crop": 1.0,
        },
        # Both players at work from the first step, for the conformance suite.
        "toy": {"content": "pixel", "pretrain_share": 0.0, "width": 16, "crop": 1.0},
    }

    class Config(MethodConfig):
        """SRGAN-VGG54, section 3.2 of the paper: 350,000 pictures, batches of 16."""

        epochs: int = 55  # 10^6 steps of SRResNet, then 2 * 10^5 of SRGAN
        batch_size: int = 16
        lr: float = 1e-4  # and a tenth of it in the second half of SRGAN
        beta1: float = 0.9
        scale: Literal[2, 4, 8] = 4
        adversarial: bool = True
        adversarial_weight: float = 1e-3
        pretrain_share: float = Field(5 / 6, ge=0, lt=1)  # of the epochs: by pixels alone
        content: Literal["pixel", "vgg"] = "vgg"  # vgg: phi_5,4; it imports ImageNet labels
        vgg_weights: str | None = None  # a local file; None: timm's vgg19
        vgg_scale: float = 1 / 12.75  # of VGG's features
        width: int = Field(64, ge=1)  # channels of the upsampling, and of the judge's first map
        crop: float = Field(1.0, gt=0, le=1)  # of the side; below 1 detail is lost beforehand

    def build(self) -> None:
        """The upsampling half of the generator; the discriminator and VGG where asked for."""
        cfg, size = self.cfg, self.data.size
        if size % cfg.scale or size < SMALLEST * cfg.scale:
            raise BenchError(
                f"super_resolution cannot shrink pictures of {size} px by {cfg.scale} to whole "
                f"pixels, at least {SMALLEST}; set method.scale or data.size"
            )
        side = size // cfg.scale  # of the small picture
        self.features = DenseHead(self.backbone, size, side, cfg.width, width=cfg.width)
        steps: list[nn.Module] = []
        for left in range(cfg.scale.bit_length() - 2, -1, -1):  # doublings after this one
            conv = nn.Conv2d(cfg.width, 4 * (cfg.width if left else 3), 3, padding=1)
            steps += [nn.PReLU(), conv, nn.PixelShuffle(2)]
        self.upsampling = nn.Sequential(*steps)
        self.degrade = Degrade(cfg.scale, self.data)
        if cfg.content == "vgg":
            self.phi = Phi54(size, cfg.vgg_weights)
            self.backbone.notes += ("the content loss is VGG-19's, trained on ImageNet labels",)
        if cfg.adversarial:
            self.discriminator = Discriminator(size, width=cfg.width)
        else:
            self.phases = ("generator",)  # SRResNet plays against nobody

    @property
    def uses_labels(self) -> bool:
        """VGG was trained on ImageNet's."""
        return bool(self.cfg.content == "vgg")

    def views(self) -> Sequence[View]:
        """A random crop, RGB in [0, 1]."""
        crop = RandomCrop(padding=0, fraction=self.cfg.crop)
        return (View("picture", (crop, HorizontalFlip(p=0.5))),)

    def parameters_for(self, phase: str) -> Iterable[nn.Parameter]:
        """The discriminator's, or all others but VGG's."""
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        wanted = phase == "discriminator"
        return (p for name, p in named if name.startswith("discriminator.") == wanted)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Binary cross-entropy of the discriminator; content and adversarial loss of the generator.

        While the generator trains by pixels alone the discriminator rests: its loss is a zero
        that reaches none of its parameters.
        """
        sharp = batch.view("picture")
        alone = not self.cfg.adversarial
        alone |= step.epoch < min(round(self.cfg.pretrain_share * step.epochs), step.epochs - 1)
        if step.phase == "discriminator":
            rest = sharp.new_zeros((), requires_grad=True)
            return rest if alone else self._judge(sharp, step)
        blurred = self.blur(sharp)
        made = self.enlarge(blurred)
        step.log("psnr", psnr(made, sharp))
        step.log("bicubic_psnr", psnr(self.data.rgb(blurred), sharp))
        by_pixels = self.cfg.content == "pixel" or (alone and self.cfg.adversarial)
        content = self._pixel(made, sharp) if by_pixels else self._vgg(made, sharp)
        if alone:
            return content
        with frozen(self.discriminator):
            adversarial = generator_loss(self.discriminator(2 * made - 1))
        step.log("content", content)
        step.log("adversarial", adversarial)
        total: Tensor = content + self.cfg.adversarial_weight * adversarial
        return total

    def _judge(self, sharp: Tensor, step: Step) -> Tensor:
        with torch.no_grad():
            made = self.enlarge(self.blur(sharp))
        real, fake = self.discriminator(2 * sharp - 1), self.discriminator(2 * made - 1)
        step.log("discriminator_top1", discriminator_top1(real, fake))
        return discriminator_loss(real, fake)

    def _pixel(self, made: Tensor, sharp: Tensor) -> Tensor:
        return (2 * made - 2 * sharp).square().mean()  # RGB in [-1, 1]

    def _vgg(self, made: Tensor, sharp: Tensor) -> Tensor:
        with torch.no_grad():
            truth = self.phi(sharp)
        difference: Tensor = self.cfg.vgg_scale * (self.phi(made) - truth)
        return difference.square().mean()

    def blur(self, sharp: Tensor) -> Tensor:
        """Pictures (RGB in [0, 1]) shrunk and enlarged again, normalised."""
        blurred: Tensor = self.degrade(self.data.normalize(sharp))
        return blurred

    def enlarge(self, blurred: Tensor) -> Tensor:
        """What the network makes of `blur`'s pictures, RGB."""
        detail = self.upsampling(self.features(self.backbone.maps(blurred)))
        made: Tensor = self.data.rgb(blurred + detail)
        return made

    def optim(self, phase: str) -> OptimSpec:
        """Adam; a tenth of the learning rate in the second half of SRGAN."""
        share = (1 + self.cfg.pretrain_share) / 2
        drops = {"milestones": (share,), "gammas": (0.1,)} if self.cfg.adversarial else {}
        betas = (self.cfg.beta1, 0.999)
        return OptimSpec(name="adam", lr=self.cfg.lr, betas=betas, schedule="step", **drops)

    def encoder(self) -> Encoder:
        """The backbone behind the degradation that it was trained on."""
        return Rewired(self.degrade, self.backbone)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Bicubic, the network's, and the original pictures."""
        sharp = batch.view("picture")[:8]
        blurred = self.blur(sharp)
        return [
            Panel(f"bicubic, x {self.cfg.scale}", self.data.rgb(blurred)),
            Panel(f"enlarged, x {self.cfg.scale}", self.enlarge(blurred)),
            Panel("originals", sharp),
        ]


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of RGB in [0, 1], dB: -10 log10 of the mean squared error."""
    return -10 * (x - truth).square().mean().log10()
