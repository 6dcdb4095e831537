"""Colorization: predict a picture's colours from its lightness (Zhang 2016, arXiv:1603.08511)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.api import Batch, Encoder, Method, MethodConfig, OptimSpec, Panel, Step, TrainSet, View
from bench.data.color import rgb_to_lab
from bench.data.ops import HorizontalFlip, RandomCrop
from bench.kernels import color_ce
from bench.nn import channels, color_bins
from bench.nn.dense_head import DenseHead
from bench.nn.wrap import Rewired

PICTURES = 1000  # from which the colours' frequencies are counted


class Colorization(Method):
    """The network sees lightness alone, and so does whoever probes it: the probe has no colour.

    It predicts on a coarse grid, by regression (`target` l2), which gives washed-out means, or as
    a distribution over 313 bins of the ab plane, with rare colours weighted up.

    `pretext_top1` is how often the likeliest bin is the true colour's; chance is 100 / 313 = 0.3 %,
    and always naming the most frequent bin gives `majority_top1`. `ab_rmse` is the error of the
    mean prediction in CIE Lab, beside `gray_rmse`, that of leaving the picture grey.
    """

    needs = frozenset({"color"})
    deviations = (
        "the head is a sum of projections of all maps: the paper's dilated VGG has a decoder",
        "a crop is resized to the whole picture's size: the paper's network sees 176 px of 256",
        "bin frequencies are counted in 1,000 pictures of the training set, not in all",
    )
    recipes = {
        # 10,000 pictures and the small backbone: about two minutes on one idle CPU core.
        "small": {
            "epochs": 10,
            "batch_size": 32,
            "lr": 2e-3,
            "weight_decay": 1e-4,
            "schedule": "cosine",
            "crop": 0.875,
        },
    }

    class Config(MethodConfig):
        """Settings of the paper and richzhang/colorization; from memory where not in the code."""

        target: Literal["l2", "bins"] = "bins"
        gamma: float = Field(0.5, ge=0, le=1)  # of the bins' weights: share of uniform mixed in
        alpha: float = Field(1.0, ge=0)  # of the bins' weights: 0 is no rebalancing
        temperature: float = Field(0.38, gt=0)  # of the annealed mean, in pictures
        stride: int = Field(4, ge=1)  # pixels of the input to one of the prediction
        crop: float = Field(0.6875, gt=0, le=1)  # 176 of 256 px
        epochs: int = 14  # 450,000 iterations of 40 pictures
        batch_size: int = 40
        lr: float = 3e-5  # Adam
        betas: tuple[float, float] = (0.9, 0.99)
        weight_decay: float = 1e-3
        # 3e-5 -> 1e-5 -> 3e-6 at iterations 200,000 and 375,000 of 450,000
        schedule: Literal["step", "cosine"] = "step"

    def build(self) -> None:
        """The head, and the bins with their weights where they are predicted."""
        size, bins = self.data.size, self.cfg.target == "bins"
        self.side = max(size // self.cfg.stride, 1)
        self.bins = color_bins.ColorBins()
        self.head = DenseHead(self.backbone, size, self.side, len(self.bins) if bins else 2)
        if bins:
            self.shares = nn.Buffer(torch.full((len(self.bins),), 1 / len(self.bins)))

    def initialize(self, train: TrainSet) -> None:
        """Count how often each bin occurs, for its weight."""
        if self.cfg.target == "bins":
            lab = rgb_to_lab(self.data.rgb(train.sample(PICTURES)))
            ab = channels.on_grid(lab[:, 1:], self.side)
            # Part by part: every pixel is held against every bin.
            counts = [color_bins.bin_shares(x, self.bins) * len(x) for x in ab.split(16)]
            self.shares.copy_(torch.stack(counts).sum(0) / len(ab))

    def views(self) -> Sequence[View]:
        """Crop and flip, RGB."""
        return (View("crop", (RandomCrop(padding=0, fraction=self.cfg.crop), HorizontalFlip())),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Weighted cross-entropy over the bins, or half the squared error in units of AB_STD."""
        lab = rgb_to_lab(batch.view("crop"))
        ab = channels.on_grid(lab[:, 1:], self.side)
        out = self.head(self.backbone.maps(channels.lightness_input(lab)))
        step.log("ab_rmse", channels.rmse(self.mean_color(out, 1.0), ab))
        step.log("gray_rmse", channels.rmse(torch.zeros_like(ab), ab))
        if self.cfg.target == "l2":
            l2: Tensor = (out.float() - ab / channels.AB_STD).square().sum(1).mean() / 2
            return l2
        hits = out.argmax(1) == self.bins.nearest(ab)
        step.log("pretext_top1", 100 * hits.float().mean())
        step.log("majority_top1", 100 * self.shares.max())
        weights = color_bins.class_weights(self.shares, self.cfg.gamma, self.cfg.alpha)
        return color_ce(out, ab, self.bins, weights)

    def mean_color(self, out: Tensor, temperature: float) -> Tensor:
        """The head's output as colours `[B, 2, h, w]`; a regression has no temperature."""
        if self.cfg.target == "l2":
            return out.float() * channels.AB_STD
        return color_bins.annealed_mean(out, self.bins, temperature)

    def optim(self, phase: str) -> OptimSpec:
        """Adam with coupled weight decay and two drops."""
        return OptimSpec(
            name="adam",
            lr=self.cfg.lr,
            betas=self.cfg.betas,
            weight_decay=self.cfg.weight_decay,
            schedule=self.cfg.schedule,
            milestones=(200 / 450, 375 / 450),
            gammas=(1 / 3, 0.3),
        )

    def encoder(self) -> Encoder:
        """The backbone behind RGB to lightness: three equal channels, as in training."""
        return Rewired(channels.Lightness(self.data), self.backbone)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Lightness, true colours, and what the network makes of them."""
        rgb = batch.view("crop")[:8]
        lab = rgb_to_lab(rgb)
        lightness = lab[:, :1]
        out = self.head(self.backbone.maps(channels.lightness_input(lab)))
        rows = {"mean colour": self.mean_color(out, 1.0)}
        if self.cfg.target == "bins":
            annealed = f"annealed mean, T = {self.cfg.temperature:g}"
            rows[annealed] = self.mean_color(out, self.cfg.temperature)
        return [
            Panel("what the network sees", channels.colorized(lightness, 0 * lab[:, 1:])),
            *(Panel(title, channels.colorized(lightness, ab)) for title, ab in rows.items()),
            Panel("true colours", rgb),
        ]
