"""CMC: a picture's lightness must find its colours, and back (Tian 2019, arXiv:1906.05849)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Method, MethodConfig, OptimSpec, Panel, Step, TrainSet, View
from bench.data.ops import HorizontalFlip, RandomResizedCrop
from bench.nn.memory_bank import Contrast, MemoryBank, match_top1
from bench.nn.two_halves import ColorSpace, TwoHalves, color_pair

TILES = 8  # of the picture


class CMC(Method):
    """Two networks of half the width, each with one view: L, say, and ab of the same crop.

    Either's embedding is compared with the bank of the other's, so that they keep what both views
    tell. `match_top1` is how often no other candidate is nearer than the own row, mean of both
    directions, %; chance is 100 / (1 + negatives).
    """

    needs = frozenset({"color"})
    deviations = (
        "a view's channels are repeated or filled with zeros to three, for networks that take RGB",
        "views are standardised by round numbers of photographs, not by their ranges",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 128,
            "schedule": "cosine",
            "lr": 0.1,
            "loss": "softmax",
            "negatives": 4096,
            "temperature": 0.1,
            "refresh": True,
            "crop": (0.5, 1.0),
        },
    }

    class Config(MethodConfig):
        """Settings of the official code, HobbitLong/CMC, train_CMC.py, which runs AlexNet."""

        views: ColorSpace = "lab"  # "ycbcr": the code's other pair, "about 0.5-1%" better
        epochs: int = 240
        batch_size: int = Field(128, ge=2)  # one picture has no spread that tells of a collapse
        lr: float = 0.03
        momentum: float = 0.9  # of SGD
        weight_decay: float = 1e-4
        schedule: Literal["step", "cosine"] = "step"  # tenths after 120, 160 and 200 epochs
        loss: Contrast = "nce"  # "softmax": the script's --softmax
        negatives: int = Field(16384, ge=1)  # the script's; the README says 4096
        temperature: float = Field(0.07, gt=0)
        bank_momentum: float = Field(0.5, ge=0, lt=1)
        refresh: bool = False  # make the bank anew before every epoch, and only then
        projection: int = Field(128, ge=1)
        crop: tuple[float, float] = (0.2, 1.0)  # of the area; the script's ResNets: 0.08

    def build(self) -> None:
        """Two halves in the place of the backbone, and a projection and a bank for each."""
        cfg, size = self.cfg, self.data.n_train
        self.backbone: TwoHalves = TwoHalves(self.backbone, self.data, cfg.views)
        self.projector_l = nn.Linear(self.backbone.half_l.dim, cfg.projection)
        self.projector_ab = nn.Linear(self.backbone.half_ab.dim, cfg.projection)
        self.bank_l = MemoryBank(size, cfg.projection, cfg.bank_momentum, cfg.temperature)
        self.bank_ab = MemoryBank(size, cfg.projection, cfg.bank_momentum, cfg.temperature)

    def before_epoch(self, epoch: int, train: TrainSet) -> None:
        """Few epochs move a network too far for rows of the last one: make all of them anew."""
        if self.cfg.refresh:
            both = train.features(_Both(self))
            for bank, rows in zip((self.bank_l, self.bank_ab), both.chunk(2, 1), strict=True):
                bank.fill(rows)

    def views(self) -> Sequence[View]:
        """One crop, RGB: both networks see parts of the same."""
        return (View("crop", (RandomResizedCrop(scale=self.cfg.crop), HorizontalFlip())),)

    def embed(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings `[B, projection]` of both views of RGB `[B, 3, H, W]` in [0, 1]."""
        seen_by_l, seen_by_ab = color_pair(rgb, self.cfg.views)
        one = self.projector_l(self.backbone.half_l(seen_by_l))
        return one, self.projector_ab(self.backbone.half_ab(seen_by_ab))

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """A contrast across the views, the sum of both directions."""
        one, other = self.embed(batch.view("crop"))
        step.watch(one)
        at = self.bank_l.candidates(batch.index, self.cfg.negatives, step.rng)
        from_l, from_ab = self.bank_ab.logits(one, at), self.bank_l.logits(other, at)
        step.log("match_top1", (match_top1(from_l) + match_top1(from_ab)) / 2)
        self.seen = batch.index, one.detach(), other.detach()
        loss = self.cfg.loss
        return self.bank_ab.contrast(from_l, loss) + self.bank_l.contrast(from_ab, loss)

    def after_step(self, step: Step) -> None:
        """Each bank takes in its view of the batch."""
        # Among rows of one age, a newer one would be known as no picture's own by its age alone.
        if not self.cfg.refresh:
            index, one, other = self.seen
            self.bank_l.update(one, index)
            self.bank_ab.update(other, index)

    def optim(self, phase: str) -> OptimSpec:
        """SGD with momentum and three drops by ten."""
        return OptimSpec(
            lr=self.cfg.lr,
            momentum=self.cfg.momentum,
            weight_decay=self.cfg.weight_decay,
            schedule=self.cfg.schedule,
            milestones=(1 / 2, 2 / 3, 5 / 6),
            gammas=(0.1, 0.1, 0.1),
        )

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Both views, and whose second view in the batch is nearest to the first, with cosines."""
        rgb = batch.view("crop")
        one, other = (F.normalize(x, dim=1) for x in self.embed(rgb))
        cosine, nearest = (one[:TILES] @ other.T).max(1)
        first, second = (0.5 + view[:TILES] / 6 for view in color_pair(rgb, self.cfg.views))
        good = tuple(found == place for place, found in enumerate(nearest.tolist()))
        captions = tuple(f"{value:.2f}" for value in cosine.tolist())
        return [
            Panel("picture", rgb[:TILES]),
            Panel("first view", first),
            Panel("second view", second),
            Panel(f"nearest of {len(rgb)} by it", rgb[nearest], captions, good),
        ]


class _Both(nn.Module):
    """Normalised RGB to both embeddings side by side."""

    def __init__(self, method: CMC) -> None:
        super().__init__()
        self.method = method

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.method.embed(self.method.data.rgb(x)), 1)
