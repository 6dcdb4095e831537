"""Counting: four quarters hold together as much as the whole (Noroozi 2017, arXiv:1708.06734)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Encoder, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import Grayscale, RandomResizedCrop
from bench.data.patches import cut_patches
from bench.errors import BenchError
from bench.nn.patch_cutter import shift_channels
from bench.nn.patch_encoder import tiled
from bench.nn.resizing import Kernel, Resized, apply_matrix, resize_matrix
from bench.nn.wrap import Rewired

SMALLEST = 8  # px: the side of a quarter, in the stored picture


class Counting(Method):
    """Counts of the whole picture at half its size equal the sum over its quarters.

    Counts of all zeros would do; that those of another picture differ forbids it. Logged: both
    terms of the loss, `count` (the mean sum of a picture's counts: zero is collapse), and
    `pretext_top1`, the share of pictures whose quarters' sum is closest to their own counts of all
    in the batch, %; chance is 100 divided by the batch size.
    """

    deviations = (
        "the head on top of the backbone's pooled output stands for fc6 to fc8 of its AlexNet",
        "the other picture is the next of the batch, whose order is random",
    )
    recipes = {
        "small": {
            "epochs": 10,
            "batch_size": 64,
            "optimizer": "adamw",
            "lr": 1e-3,
            "schedule": "cosine",
            "size": 48,
            "crop": 0.5,
            "channel_shift": 0,
            "hidden": 256,
        },
    }

    class Config(MethodConfig):
        """The paper's settings; those of optimisation from memory, as there is no official code."""

        epochs: int = 40  # 200,000 batches of ImageNet's pictures
        batch_size: int = 256
        optimizer: Literal["sgd", "adamw"] = "sgd"
        lr: float = 1e-4
        weight_decay: float = 5e-4  # Caffe's
        schedule: Literal["step", "cosine"] = "step"  # times 0.9 each 10,000 of 200,000 batches
        size: int = Field(228, ge=2)  # px: quarters of 114
        crop: float = Field(0.77, gt=0, le=1)  # least share of the area: 224 px of 256
        grayscale: float = Field(0.67, ge=0, le=1)  # share of pictures, from memory
        channel_shift: int = Field(2, ge=0)  # px, either way, as in jigsaw (arXiv:1603.09246)
        kernels: tuple[Kernel, ...] = Field(get_args(Kernel), min_length=1)  # drawn per picture
        counts: int = Field(1000, ge=1)  # fc8
        hidden: int = Field(4096, ge=1)  # fc6, fc7
        margin: float = 10.0  # M: as far at least are counts of other pictures, squared distance

    halving: Tensor  # [kernels, size / 2, size]

    def build(self) -> None:
        """A head that gives counts, which are never negative."""
        cfg = self.cfg
        quarter = cfg.size // 2 * min(1.0, self.data.size / cfg.size)
        if cfg.size % 2 or quarter < SMALLEST:
            raise BenchError(
                f"pictures of {self.data.name} at method.size={cfg.size} have quarters of "
                f"{quarter:g} px of the stored {self.data.size}; give an even method.size, and "
                f"pictures whose quarters have at least {SMALLEST} px"
            )
        self.head = nn.Sequential(
            nn.Linear(self.backbone.dim, cfg.hidden),
            nn.ReLU(),
            nn.Linear(cfg.hidden, cfg.hidden),
            nn.ReLU(),
            nn.Linear(cfg.hidden, cfg.counts),
            nn.ReLU(),
        )
        halving = [resize_matrix(cfg.size, cfg.size // 2, kernel) for kernel in cfg.kernels]
        self.register_buffer("halving", torch.stack(halving), persistent=False)

    def views(self) -> Sequence[View]:
        """A square crop, mostly grey."""
        crop = RandomResizedCrop(scale=(self.cfg.crop, 1.0), ratio=(1.0, 1.0))
        return (View("crop", (crop, Grayscale(p=self.cfg.grayscale)), self.cfg.size),)

    def parts(self, rgb: Tensor, step: Step) -> Tensor:
        """The whole at half its size, then its four quarters: `[B, 5, 3, size / 2, size / 2]`.

        Args:
            rgb: pictures `[B, 3, size, size]` in [0, 1].
            step: the source of all randomness.
        """
        if self.cfg.channel_shift:
            rgb = shift_channels(rgb[:, None], self.cfg.channel_shift, step.rng)[:, 0]
        drawn = torch.randint(len(self.halving), (len(rgb),), generator=step.rng, device=rgb.device)
        half = apply_matrix(self.halving[drawn][:, None], rgb)
        quarters = cut_patches(rgb, grid=2, cell=self.cfg.size // 2)
        return self.data.normalize(torch.cat([half[:, None], quarters], 1))

    def counts(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Counts `[B, counts]` of wholes, and the sums of their quarters', in float32."""
        counts = self.head(self.backbone(parts.flatten(0, 1))).float().unflatten(0, parts.shape[:2])
        return counts[:, 0], counts[:, 1:].sum(1)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """||D(x) - T(x)||^2 + max(0, M - ||D(y) - T(x)||^2), mean over pictures.

        D(x) are the counts of the whole, T(x) the sum of its quarters', y is another picture.
        """
        whole, quarters = self.counts(self.parts(batch.view("crop"), step))
        same = (whole - quarters).square().sum(1).mean()
        other = (whole.roll(1, 0) - quarters).square().sum(1)
        contrast = F.relu(self.cfg.margin - other).mean()
        with torch.no_grad():
            nearest = torch.cdist(quarters, whole).argmin(1)
            own = torch.arange(len(batch), device=nearest.device)
            step.log("pretext_top1", 100 * (nearest == own).float().mean())
            step.log("count", whole.sum(1).mean())
        step.log("equality", same)
        step.log("contrast", contrast)
        loss: Tensor = same + contrast
        return loss

    def optim(self, phase: str) -> OptimSpec:
        """SGD, or AdamW; nineteen drops by a tenth."""
        return OptimSpec(
            name=self.cfg.optimizer,
            lr=self.cfg.lr,
            weight_decay=self.cfg.weight_decay,
            schedule=self.cfg.schedule,
            milestones=tuple(i / 20 for i in range(1, 20)),
            gammas=(0.9,) * 19,
        )

    def encoder(self) -> Encoder:
        """The network on whole pictures, resized to `size`: details as large as in the quarters.

        So twice the side that it was trained at, as the paper, which counts at 114 px, transfers
        the convolutions to 227 px.
        """
        return Rewired(Resized(self.cfg.size), self.backbone)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Wholes and quarters with their counts; where most is counted, and where least."""
        rgb = batch.view("crop")
        parts = self.parts(rgb, step)
        whole, quarters = (counts.sum(1) for counts in self.counts(parts))
        ranked = whole.argsort(descending=True)
        most, least = ranked[:8], ranked[-8:]

        def said(counts: Tensor) -> tuple[str, ...]:
            return tuple(f"{count:.1f}" for count in counts.tolist())

        shown = self.data.rgb(parts[:8])
        return [
            Panel("half the size", shown[:, 0], said(whole[:8])),
            Panel("quarters", tiled(shown[:, 1:]), said(quarters[:8])),
            Panel("most counted", rgb[most], said(whole[most])),
            Panel("least counted", rgb[least], said(whole[least])),
        ]
