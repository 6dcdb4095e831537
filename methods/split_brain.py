"""Split-brain autoencoder: colour from lightness and back (Zhang 2017, arXiv:1611.09842)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.color import rgb_to_lab
from bench.data.ops import HorizontalFlip, RandomCrop
from bench.kernels import color_ce
from bench.nn import channels, color_bins
from bench.nn.dense_head import DenseHead
from bench.nn.two_halves import TwoHalves

LIGHTNESS_BINS = 100  # of one unit of CIE lightness each


class SplitBrain(Method):
    """Two networks of half the width: L sees lightness and predicts ab, AB the other way round.

    Neither half ever sees what it has to predict; side by side they see the whole picture, so that
    the representation has colour. Chance for `ab_top1` is 100 / 313 = 0.3 %, for `lightness_top1`
    1 %; errors are roots of mean squares in CIE Lab.
    """

    needs = frozenset({"color"})
    deviations = (
        "the heads are sums of projections of all maps: the paper predicts from fc7 alone",
        "a crop is resized to the whole picture's size: the paper's network sees 180 px of 256",
        "ab targets are soft and grey pictures count nothing, as in colorization (from memory)",
    )
    recipes = {
        # 10,000 pictures and the small backbone: about two minutes on one idle CPU core.
        "small": {
            "epochs": 10,
            "batch_size": 32,
            "optimizer": "adam",
            "lr": 2e-3,
            "weight_decay": 1e-4,
            "schedule": "cosine",
            "stride": 4,
            "crop": 0.875,
        },
    }

    class Config(MethodConfig):
        """Settings of the paper on ImageNet, from memory: its training code is not published."""

        target: Literal["classification", "regression"] = "classification"
        stride: int = Field(15, ge=1)  # pixels of the input to one of the prediction: 12 x 12
        crop: float = Field(0.703125, gt=0, le=1)  # 180 of 256 px
        epochs: int = 50
        batch_size: int = 256
        optimizer: Literal["sgd", "adam"] = "sgd"
        lr: float = 0.01
        weight_decay: float = 5e-4
        schedule: Literal["step", "cosine"] = "step"  # tenths at thirds of training

    def build(self) -> None:
        """Two halves in the place of the backbone, and a head for each."""
        self.backbone: TwoHalves = TwoHalves(self.backbone, self.data)
        classify, size = self.cfg.target == "classification", self.data.size
        self.side = max(size // self.cfg.stride, 1)
        self.bins = color_bins.ColorBins()
        ab, lightness = (len(self.bins), LIGHTNESS_BINS) if classify else (2, 1)
        self.head_l = DenseHead(self.backbone.half_l, size, self.side, ab)
        self.head_ab = DenseHead(self.backbone.half_ab, size, self.side, lightness)

    def views(self) -> Sequence[View]:
        """Crop and flip, RGB."""
        return (View("crop", (RandomCrop(padding=0, fraction=self.cfg.crop), HorizontalFlip())),)

    def predictions(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """What half L says of ab, and half AB of the lightness, of `lab` `[B, 3, H, W]`."""
        halves = self.backbone
        ab = self.head_l(halves.half_l.maps(channels.lightness_input(lab)))
        lightness = self.head_ab(halves.half_ab.maps(channels.chroma_input(lab)))
        return ab, lightness

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The sum of both halves' losses: cross-entropies, or half the squared errors."""
        lab = rgb_to_lab(batch.view("crop"))
        target = channels.on_grid(lab, self.side)
        ab, lightness = self.predictions(lab)
        for name, guess, truth in zip(
            ("ab", "lightness"),
            self.means(ab, lightness),
            target.split((1, 2), 1)[::-1],
            strict=True,
        ):
            step.log(f"{name}_rmse", channels.rmse(guess, truth))
        if self.cfg.target == "regression":
            ab_loss = (ab.float() - target[:, 1:] / channels.AB_STD).square().sum(1).mean() / 2
            standard = channels.lightness_input(target)[:, :1]
            return ab_loss + (lightness.float() - standard).square().mean() / 2
        level = target[:, 0].long().clamp(0, LIGHTNESS_BINS - 1)
        hits = ab.argmax(1) == self.bins.nearest(target[:, 1:])
        step.log("ab_top1", 100 * hits.float().mean())
        step.log("lightness_top1", 100 * (lightness.argmax(1) == level).float().mean())
        ab_loss = color_ce(ab, target[:, 1:], self.bins)
        return ab_loss + F.cross_entropy(lightness.float(), level)

    def means(self, ab: Tensor, lightness: Tensor) -> tuple[Tensor, Tensor]:
        """The heads' outputs as colours `[B, 2, h, w]` and lightness `[B, 1, h, w]` in Lab."""
        if self.cfg.target == "regression":
            level = lightness.float() * channels.LIGHTNESS_STD + channels.LIGHTNESS_MEAN
            return ab.float() * channels.AB_STD, level
        middles = torch.arange(LIGHTNESS_BINS, device=lightness.device) + 0.5
        level = (lightness.float().softmax(1) * middles[:, None, None]).sum(1, keepdim=True)
        return color_bins.annealed_mean(ab, self.bins, 1.0), level

    def optim(self, phase: str) -> OptimSpec:
        """The paper's SGD with two drops, or Adam."""
        return OptimSpec(
            name=self.cfg.optimizer,
            lr=self.cfg.lr,
            weight_decay=self.cfg.weight_decay,
            schedule=self.cfg.schedule,
            milestones=(1 / 3, 2 / 3),
            gammas=(0.1, 0.1),
        )

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """What either half sees, and the picture with its prediction in the place of the truth."""
        rgb = batch.view("crop")[:8]
        lab = rgb_to_lab(rgb)
        true_l, true_ab = lab[:, :1], lab[:, 1:]
        ab, lightness = self.means(*self.predictions(lab))
        lightness = F.interpolate(lightness, rgb.shape[2:], mode="bilinear")
        gray = torch.full_like(true_l, channels.LIGHTNESS_MEAN)
        return [
            Panel("half L sees lightness", channels.colorized(true_l, 0 * true_ab)),
            Panel("... and predicts colour", channels.colorized(true_l, ab)),
            Panel("half AB sees colour", channels.colorized(gray, true_ab)),
            Panel("... and predicts lightness", channels.colorized(lightness, true_ab)),
            Panel("the picture", rgb),
        ]
