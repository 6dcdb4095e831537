"""Hypercolumn colorization: hue and chroma from all layers (Larsson 2016, arXiv:1603.06668)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Encoder, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import HorizontalFlip, RandomCrop
from bench.nn import channels
from bench.nn.dense_head import map_channels
from bench.nn.hue_chroma import bin_of, decode, hue_and_chroma, local_histogram
from bench.nn.wrap import Rewired

DRAWN = 32  # px: pictures are coloured on a grid of at most this side, then enlarged


class HypercolumnColorization(Method):
    """The network sees the mean of R, G and B, and so does whoever probes it: no colour.

    A few pixels of each picture are drawn; all maps, sampled there bilinearly and laid end to end,
    are the pixel's hypercolumn, from which a small network predicts the histograms of hue and of
    chroma around it. The paper's backbone is VGG-16: `--backbone vgg16`.

    `hue_top1` is how often the likeliest hue bin is the pixel's own, pixels counting by their
    chroma; chance is 100 / 32 = 3.1 %.
    """

    needs = frozenset({"color"})
    deviations = (
        "training starts from random weights; the paper's main results start from ImageNet's",
        "hypercolumns have one map a stage (VGG-16: 5 of 13 convolutions, fc6, fc7), batch-normed",
    )
    recipes = {
        # 10,000 pictures and the small backbone: about a minute on two CPU cores.
        "small": {
            "epochs": 10,
            "batch_size": 32,
            "points": 16,
            "hidden": 256,
            "window": 3,
            "optimizer": "adam",
            "lr": 2e-3,
            "weight_decay": 1e-4,
            "schedule": "cosine",
            "crop": 0.875,
        },
    }

    class Config(MethodConfig):
        """Settings of the paper, from memory where it is not explicit: no training code is out."""

        bins: int = Field(32, ge=2)  # of hue, and of chroma
        window: int = Field(7, ge=1)  # px: side of the square whose colours make a histogram
        hue_weight: float = Field(5.0, ge=0)  # lambda_H
        points: int = Field(128, ge=1)  # pixels drawn of each picture
        hidden: int = Field(1024, ge=1)
        crop: float = Field(0.875, gt=0, le=1)  # 224 of 256 px
        epochs: int = 10
        batch_size: int = 10
        optimizer: Literal["sgd", "adam"] = "sgd"
        lr: float = 1e-3
        weight_decay: float = 5e-4
        schedule: Literal["step", "cosine"] = "step"  # a tenth for the last third

    def build(self) -> None:
        """One hidden layer on the hypercolumn, and two histograms."""
        width = sum(map_channels(self.backbone, self.data.size).values())
        self.head = nn.Sequential(
            nn.BatchNorm1d(width),
            nn.Linear(width, self.cfg.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(self.cfg.hidden, 2 * self.cfg.bins),
        )

    def views(self) -> Sequence[View]:
        """Crop and flip, RGB."""
        return (View("crop", (RandomCrop(padding=0, fraction=self.cfg.crop), HorizontalFlip())),)

    def log_histograms(self, rgb: Tensor, rows: Tensor, cols: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of hue and of chroma, `[B, P, bins]` each, at pixels `[B, P]`."""
        maps = self.backbone.maps(channels.intensity_input(rgb))
        columns = hypercolumns(list(maps.values()), rows, cols, rgb.shape[2])
        out = self.head(columns.flatten(0, 1)).float().unflatten(0, rows.shape)
        hue, chroma = out.chunk(2, -1)
        return hue.log_softmax(-1), chroma.log_softmax(-1)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """KL(chroma) + lambda_H * chroma * KL(hue), averaged over the drawn pixels."""
        rgb, cfg = batch.view("crop"), self.cfg
        side, shape = rgb.shape[2], (len(rgb), cfg.points)
        rows, cols = torch.randint(side, (2, *shape), generator=step.rng, device=rgb.device).unbind(
            0
        )
        log_hue, log_chroma = self.log_histograms(rgb, rows, cols)
        hue, chroma = hue_and_chroma(rgb)
        true_hue = local_histogram(hue, rows, cols, cfg.bins, cfg.window)
        true_chroma = local_histogram(chroma, rows, cols, cfg.bins, cfg.window)
        at = rows * side + cols
        own_hue, own_chroma = (x.flatten(1).gather(1, at) for x in (hue, chroma))
        hue_kl = F.kl_div(log_hue, true_hue, reduction="none").sum(-1) * own_chroma
        chroma_kl = F.kl_div(log_chroma, true_chroma, reduction="none").sum(-1)
        hits = (log_hue.argmax(-1) == bin_of(own_hue, cfg.bins)) * own_chroma
        step.log("hue_top1", 100 * hits.sum() / own_chroma.sum().clamp(min=1e-6))
        step.log("hue_kl", hue_kl.mean())
        step.log("chroma_kl", chroma_kl.mean())
        loss: Tensor = (chroma_kl + cfg.hue_weight * hue_kl).mean()
        return loss

    def optim(self, phase: str) -> OptimSpec:
        """SGD with momentum and a drop, or Adam."""
        return OptimSpec(
            name=self.cfg.optimizer,
            lr=self.cfg.lr,
            weight_decay=self.cfg.weight_decay,
            schedule=self.cfg.schedule,
            milestones=(2 / 3,),
            gammas=(0.1,),
        )

    def encoder(self) -> Encoder:
        """The backbone behind RGB to the mean of R, G, B: three equal channels, as in training."""
        return Rewired(channels.Intensity(self.data), self.backbone)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """What the network sees, its colours, and the true ones."""
        rgb = batch.view("crop")[:8]
        side = rgb.shape[2]
        drawn = min(side, DRAWN)
        grid = ((torch.arange(drawn, device=rgb.device) + 0.5) * side / drawn).long()
        rows, cols = grid.repeat_interleave(drawn), grid.repeat(drawn)
        log_hue, log_chroma = self.log_histograms(
            rgb, rows.expand(len(rgb), -1), cols.expand(len(rgb), -1)
        )
        color = decode(log_hue.exp(), log_chroma.exp()).unflatten(2, (drawn, drawn))
        gray = rgb.mean(1, keepdim=True)
        color = F.interpolate(color - color.mean(1, keepdim=True), (side, side), mode="bilinear")
        return [
            Panel("what the network sees", gray.expand(-1, 3, -1, -1)),
            Panel("median chroma, mean hue", gray + color),
            Panel("true colours", rgb),
        ]


def hypercolumns(maps: Sequence[Tensor], rows: Tensor, cols: Tensor, side: int) -> Tensor:
    """All maps `[B, C, h, w]` at pixels `[B, P]` of pictures of `side`, `[B, P, sum of C]`."""
    # Half precision would place a pixel of a large picture beside itself.
    dtype = torch.promote_types(maps[0].dtype, torch.float32)
    at = (torch.stack([cols, rows], -1).to(dtype) * 2 + 1) / side - 1
    sampled = [
        F.grid_sample(x.to(dtype), at[:, :, None], padding_mode="border", align_corners=False)
        for x in maps
    ]
    return torch.cat([x.squeeze(-1) for x in sampled], 1).transpose(1, 2)
