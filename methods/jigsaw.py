"""Jigsaw: tell the order in which 3 x 3 patches were shuffled (Noroozi 2016, arXiv:1603.09246)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Encoder, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import RandomResizedCrop
from bench.nn.patch_cutter import GRID, ColorDrop, PatchCutter
from bench.nn.patch_encoder import PatchEncoder, tiled
from bench.nn.permutations import permutation_set

TILES = GRID**2


class Jigsaw(Method):
    """A patch's features do not depend on where it is put, so features are shuffled, not patches.

    `pretext_top1` is the share of puzzles whose permutation is told, %; chance is 100 divided by
    `permutations`.
    """

    deviations = (
        "batch norm in place of dropout in the head, as VISSL's jigsaw",
        "the head on top of the backbone's pooled output stands for fc6 to fc8 of its AlexNet",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 32,
            "lr": 0.05,
            "schedule": "cosine",
            "size": 64,
            "crop": 0.6,
            "channel_shift": 0,
            "permutations": 100,
            "puzzles": 8,
            "tower": 64,
            "hidden": 256,
        },
    }

    class Config(MethodConfig):
        """Settings of the official code, MehdiNoroozi/JigsawPuzzleSolver, and of the paper."""

        epochs: int = 70  # 350,000 batches of 256 of ImageNet's pictures
        batch_size: int = 256
        lr: float = 0.01
        momentum: float = 0.9
        weight_decay: float = 5e-4
        schedule: Literal["step", "cosine"] = "step"  # a tenth after 100, 200 and 300 thousand
        size: int = Field(255, ge=1)  # px: patches of 64
        crop: float = Field(0.992, gt=0, le=1)  # least share of the area: 255 px of 256
        gap: float = Field(21 / 64, ge=0)  # between patches, in sides of a patch; 0: adjacent
        jitter: float = Field(21 / 64, ge=0)  # range of each patch's place: 64 px in a cell of 85
        color_drop: ColorDrop = "gray"
        color_drop_p: float = Field(0.3, ge=0, le=1)  # the paper, from memory; VISSL: 0.66
        channel_shift: int = Field(2, ge=0)  # px, either way; the paper, from memory
        normalize: bool = True  # mean and variance of each patch
        permutations: int = 1000  # the paper's best (from memory); its figure names 64
        puzzles: int = Field(1, ge=1)  # permutations that a picture's patches are put into, a step
        tower: int = Field(1024, ge=1)  # fc6, one for each patch
        hidden: int = Field(4096, ge=1)  # fc7

    orders: Tensor  # [permutations, 9]

    def build(self) -> None:
        """A cutter of patches, a layer for each patch, and a classifier of their sequence."""
        cfg = self.cfg
        self.register_buffer("orders", permutation_set(cfg.permutations, TILES))
        self.cutter = PatchCutter(
            self.data,
            cfg.size,
            gap=cfg.gap,
            jitter=cfg.jitter,
            normalize=cfg.normalize,
            color_drop=cfg.color_drop,
            color_drop_p=cfg.color_drop_p,
            channel_shift=cfg.channel_shift,
        )
        self.tower = nn.Sequential(
            nn.Linear(self.backbone.dim, cfg.tower), nn.BatchNorm1d(cfg.tower), nn.ReLU()
        )
        self.head = nn.Sequential(
            nn.Linear(TILES * cfg.tower, cfg.hidden),
            nn.BatchNorm1d(cfg.hidden),
            nn.ReLU(),
            nn.Linear(cfg.hidden, cfg.permutations),
        )

    def views(self) -> Sequence[View]:
        """A square crop, not normalised: patches are normalised one by one."""
        crop = RandomResizedCrop(scale=(self.cfg.crop, 1.0), ratio=(1.0, 1.0))
        return (View("crop", (crop,), self.cfg.size),)

    def logits(self, patches: Tensor, drawn: Tensor) -> Tensor:
        """Scores of the permutations `[n * B, P]` for `patches` `[B, 9, 3, s, s]` shuffled.

        `drawn` `[n, B]` says by which permutations, n for each picture. Place i of a puzzle holds
        patch `orders[drawn][i]`.
        """
        towers = self.tower(self.backbone(patches.flatten(0, 1)))
        first = TILES * torch.arange(len(patches), device=patches.device)[:, None]
        chosen = (first + self.orders[drawn]).flatten()
        # index_select, whose gradient is summed many times faster than that of indexing.
        puzzles = towers.index_select(0, chosen).unflatten(0, (drawn.numel(), TILES))
        logits: Tensor = self.head(puzzles.flatten(1))
        return logits

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy over the permutations."""
        patches = self.cutter(batch.view("crop"), step.rng)
        drawn = self.draw(len(batch), self.cfg.puzzles, step)
        logits = self.logits(patches, drawn)
        step.log("pretext_top1", 100 * (logits.argmax(1) == drawn.flatten()).float().mean())
        loss: Tensor = F.cross_entropy(logits, drawn.flatten())
        return loss

    def draw(self, pictures: int, puzzles: int, step: Step) -> Tensor:
        """Numbers of permutations, `[puzzles, pictures]`, uniform."""
        shape, rng = (puzzles, pictures), step.rng
        return torch.randint(len(self.orders), shape, generator=rng, device=rng.device)

    def optim(self, phase: str) -> OptimSpec:
        """SGD with momentum and three drops by ten."""
        return OptimSpec(
            lr=self.cfg.lr,
            momentum=self.cfg.momentum,
            weight_decay=self.cfg.weight_decay,
            schedule=self.cfg.schedule,
            milestones=(2 / 7, 4 / 7, 6 / 7),
            gammas=(0.1, 0.1, 0.1),
        )

    def encoder(self) -> Encoder:
        """The nine patches of the whole picture, unmoved, each as it was normalised.

        Their maps lie side by side, their outputs are averaged.
        """
        return PatchEncoder(self.cutter, self.backbone)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """The patches shuffled, as the network sees them, and put back as it thinks they were."""
        rgb = batch.view("crop")[:8]
        patches = self.cutter(rgb, step.rng)
        drawn = self.draw(len(rgb), 1, step)
        told = self.orders[self.logits(patches, drawn).argmax(1)]
        order, row = self.orders[drawn[0]], torch.arange(len(rgb), device=rgb.device)[:, None]
        shuffled = self.cutter.shown(patches)[row, order]
        # The patch in place i is taken for patch told[i]: there it goes.
        restored = torch.empty_like(shuffled)
        restored[row, told] = shuffled
        right = (told == order).sum(1).tolist()
        captions = tuple(f"{n} of {TILES} right" for n in right)
        return [
            Panel("picture", rgb),
            Panel("shuffled", tiled(shuffled)),
            Panel("restored", tiled(restored), captions, tuple(n == TILES for n in right)),
        ]
