"""Relative patch: where does one patch lie, seen from another? (Doersch 2015, arXiv:1505.05192)."""

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

PLACES = ("NW", "N", "NE", "W", "E", "SW", "S", "SE")  # left to right, then top to bottom
CENTRE = GRID**2 // 2


class RelativePatch(Method):
    """Each of 3 x 3 patches goes through the network once, then pairs of neighbours are classified.

    `pretext_top1` is the share of pairs whose place is told, %; chance is 12.5.
    """

    deviations = (
        "one 3 x 3 grid of patches from a square crop, where the official code lays four grids of "
        "as many patches as fit over each picture",
        "the head on top of the backbone's pooled output stands for fc6 to fc9 of its AlexNet",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 32,
            "size": 64,
            "crop": 0.6,
            "rescale_pixels": 25,
            "hidden": 128,
            "lr": 0.1,
            "momentum": 0.9,
            "color_drop": "projection",
            "schedule": "cosine",
        },
    }

    class Config(MethodConfig):
        """Settings of the official code, cdoersch/deepcontext train.py, and of the paper."""

        epochs: int = 75  # 1.7 million batches of 512 patches, nine a picture of ImageNet's
        batch_size: int = 57  # pictures; nine patches each: 512
        lr: float = 0.025  # 1e-5 on the sum over the about 2,500 pairs of a batch
        momentum: float = 0.0
        weight_decay: float = 0.0
        schedule: Literal["constant", "cosine"] = "constant"
        size: int = Field(400, ge=1)  # px: patches of 96
        crop: float = Field(0.35, gt=0, le=1)  # least share of the area: 400 px in 150,000-450,000
        gap: float = Field(48 / 96, ge=0)  # between patches, in sides of a patch; 0: adjacent
        jitter: float = Field(14 / 96, ge=0)  # range of each patch's place: +-7 of 96 px; 0: none
        rescale: float = Field(0.33, ge=0, le=1)  # share of patches shrunk and enlarged; 0: none
        rescale_pixels: int = Field(100, ge=1)  # the fewest pixels to shrink to
        color_drop: ColorDrop = "channel"  # the paper's other option: "projection"
        normalize: bool = True  # mean and variance of each patch
        pairs: Literal["all", "centre"] = "all"  # 40 ordered pairs; or the centre with its eight
        hidden: int = Field(4096, ge=1)  # fc6, fc7, fc8

    pairs: Tensor  # [n, 3] first patch, second patch, place of the second seen from the first

    def build(self) -> None:
        """A cutter of patches, a layer for each patch, and a classifier of pairs."""
        cfg = self.cfg
        self.cutter = PatchCutter(
            self.data,
            cfg.size,
            gap=cfg.gap,
            jitter=cfg.jitter,
            normalize=cfg.normalize,
            color_drop=cfg.color_drop,
            rescale=cfg.rescale,
            rescale_pixels=cfg.rescale_pixels,
        )
        hidden = cfg.hidden
        self.tower = nn.Sequential(
            nn.Linear(self.backbone.dim, hidden), nn.BatchNorm1d(hidden), nn.ReLU()
        )
        self.head = nn.Sequential(
            nn.Linear(2 * hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, len(PLACES)),
        )
        pairs = torch.tensor(neighbours(centre_only=cfg.pairs == "centre"))
        self.register_buffer("pairs", pairs, persistent=False)

    def views(self) -> Sequence[View]:
        """A square crop, not normalised: patches are normalised one by one."""
        crop = RandomResizedCrop(scale=(self.cfg.crop, 1.0), ratio=(1.0, 1.0))
        return (View("crop", (crop,), self.cfg.size),)

    def logits(self, patches: Tensor) -> Tensor:
        """Scores of the eight places for each pair in `patches` `[B, 9, 3, s, s]`: `[B, n, 8]`."""
        towers = self.tower(self.backbone(patches.flatten(0, 1))).unflatten(0, patches.shape[:2])
        # index_select, whose gradient is summed many times faster than that of indexing.
        first, second = (towers.index_select(1, self.pairs[:, i]) for i in range(2))
        pairs = torch.cat([first, second], 2)
        logits: Tensor = self.head(pairs.flatten(0, 1)).unflatten(0, pairs.shape[:2])
        return logits

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy over the eight places, mean over all pairs of all pictures."""
        logits = self.logits(self.cutter(batch.view("crop"), step.rng)).flatten(0, 1)
        place = self.pairs[:, 2].repeat(len(batch))
        step.log("pretext_top1", 100 * (logits.argmax(1) == place).float().mean())
        loss: Tensor = F.cross_entropy(logits, place)
        return loss

    def optim(self, phase: str) -> OptimSpec:
        """SGD."""
        return OptimSpec(
            lr=self.cfg.lr,
            momentum=self.cfg.momentum,
            weight_decay=self.cfg.weight_decay,
            schedule=self.cfg.schedule,
        )

    def encoder(self) -> Encoder:
        """The nine patches of the whole picture, unmoved and sharp, each as it was normalised.

        Their maps lie side by side, their outputs are averaged. With the colour dropped, so are
        three renderings: that of each channel.
        """
        return PatchEncoder(self.cutter, self.backbone)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Of each picture the centre, one neighbour, and where the network puts it."""
        rgb = batch.view("crop")[: len(PLACES)]
        patches = self.cutter(rgb, step.rng)
        shown, scores = self.cutter.shown(patches), self.logits(patches)
        board = torch.ones_like(shown)
        board[:, CENTRE] = shown[:, CENTRE]
        neighbour, told = torch.empty_like(shown[:, 0]), list[int]()
        for at, (first, second, _) in enumerate(self.pairs.tolist()):
            place = len(told)  # the next picture is asked about the next place
            if first == CENTRE and place < len(rgb):
                guess = int(scores[place, at].argmax())
                neighbour[place] = board[place, _cell(guess)] = shown[place, second]
                told.append(guess)
        captions = tuple(f"is {PLACES[i]}, put {PLACES[guess]}" for i, guess in enumerate(told))
        right = tuple(i == guess for i, guess in enumerate(told))
        return [
            Panel("picture", rgb),
            Panel("centre", shown[:, CENTRE]),
            Panel("neighbour", neighbour),
            Panel("as the network puts it", tiled(board), captions, right),
        ]


def neighbours(centre_only: bool = False) -> list[tuple[int, int, int]]:
    """Every ordered pair of neighbouring patches of the grid: first, second, and place.

    The place is where the second lies, seen from the first: an index of `PLACES`.
    """
    cells = [divmod(cell, GRID) for cell in range(GRID**2)]
    return [
        (first, second, place)
        for first, (row, column) in enumerate(cells)
        for place, (down, right) in enumerate(divmod(_cell(p), GRID) for p in range(len(PLACES)))
        for second, cell in enumerate(cells)
        if cell == (row + down - 1, column + right - 1) and (first == CENTRE or not centre_only)
    ]


def _cell(place: int) -> int:
    """The patch of the grid that lies at `place`, seen from the centre."""
    return place + (place >= CENTRE)
