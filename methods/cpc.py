"""CPC: tell the patches below from those above (van den Oord 2018, arXiv:1807.03748).

With what v2 added (Hénaff 2019, arXiv:1905.09272): layer norm, four directions, colour dropping.
`pretext_top1` is how often the patch that is predicted is found among all patches of the batch, %;
chance is 100 / (batch * grid^2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Encoder, Method, MethodConfig, OptimSpec, Panel, Step, View
from bench.data.ops import HorizontalFlip, RandomResizedCrop
from bench.kernels.precision import in_full
from bench.nn.layer_norm import without_batch_norm
from bench.nn.patch_encoder import PatchEncoder
from bench.nn.patch_grid import Color, PatchGrid
from bench.nn.row_context import RowContext

TURNS = (0, 2, 1, 3)  # quarter turns of the grid: predict downwards, upwards, to either side
TILES = 8  # of the picture


class CPC(Method):
    """Patches are encoded one by one; contexts of the rows above predict the codes of rows below.

    No batch norm is left in the backbone, where it would tell a patch of all others. What is
    evaluated differs from `random_init` in that, and in that it sees patches.
    """

    deviations = (
        "layer norm for batch norm, as in v2; v1's network has no norm at all",
        "a patch is smaller than its cell by the jitter; v1 pads it with zeros to its cell again",
        "logits are divided by the root of their dimension; v2's pseudo-code multiplies by 0.1",
        "the loss is the mean over directions and rows ahead, where v2 adds them up (from memory)",
        "of v2's augmentation of patches only colour dropping (from memory)",
    )
    recipes = {
        "v2": {
            "size": 260,
            "grid": 6,
            "patch": 80,
            "stride": 36,
            "color": "drop",
            "directions": 4,
            "skip": 2,
            "steps": 5,
        },
        "small": {
            "epochs": 10,
            "batch_size": 64,
            "size": 32,
            "crop": 0.7,
            "grid": 3,
            "patch": 16,
            "stride": 8,
            "jitter": 2,
            "color": "drop",
            "directions": 2,
            "hidden": 64,
            "blocks": 1,
            "lr": 2e-3,
            "schedule": "cosine",
        },
    }

    class Config(MethodConfig):
        """v1's settings for ImageNet, section 3.3; v2's for what v1 leaves open, from memory."""

        epochs: int = 200  # v2's
        batch_size: int = 512  # 32 GPUs of 16
        lr: float = 2e-4  # Adam
        schedule: Literal["constant", "cosine"] = "constant"
        size: int = Field(256, ge=1)  # px that are cut into patches
        crop: float = Field(0.73, gt=0, le=1)  # of the area: 256 px of 300 either way
        grid: int = Field(7, ge=2)  # patches along either side
        patch: int = Field(64, ge=1)  # px; v2: 80
        stride: int = Field(32, ge=1)  # px: they overlap by half
        jitter: int = Field(4, ge=0)  # px: of a patch, 60 are shown
        color: Color = "gray"  # v2: "drop"
        drop: float = Field(0.8, ge=0, le=1)  # the share of patches that "drop" applies to, v2
        directions: int = Field(1, ge=1, le=4)  # downwards; 2: upwards; 4: to either side, v2
        steps: int = Field(5, ge=1)  # rows ahead, at most
        skip: int = Field(0, ge=0)  # rows ahead that are not predicted, since they overlap
        hidden: int = Field(256, ge=1)  # of the context network, v2
        blocks: int = Field(5, ge=1)  # of the context network, v2
        projection: int = Field(64, ge=1)  # dimensions in which codes and predictions meet, v2

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if (extent := (self.grid - 1) * self.stride + self.patch) > self.size:
                raise ValueError(
                    f"{self.grid} patches of {self.patch} px at a stride of {self.stride} cover "
                    f"{extent} px, more than size={self.size}"
                )
            if self.jitter >= self.patch:
                raise ValueError("jitter is smaller than the patch")
            if self.skip >= min(self.steps, self.grid - 1):
                raise ValueError("skip leaves no row to predict: it is below steps and grid - 1")
            return self

    def build(self) -> None:
        """The grid, and for each direction a context network and linear predictions."""
        cfg, dim = self.cfg, self.backbone.dim
        without_batch_norm(self.backbone)
        self.grid = PatchGrid(
            self.data,
            cfg.size,
            grid=cfg.grid,
            patch=cfg.patch,
            stride=cfg.stride,
            jitter=cfg.jitter,
            color=cfg.color,
            drop=cfg.drop,
        )
        self.ahead = range(cfg.skip + 1, min(cfg.steps, cfg.grid - 1) + 1)
        width, count = cfg.projection, len(self.ahead)
        turns = range(cfg.directions)
        self.contexts = nn.ModuleList(RowContext(dim, cfg.hidden, cfg.blocks) for _ in turns)
        self.predictors = nn.ModuleList(nn.Linear(dim, count * width) for _ in turns)
        self.targets = nn.ModuleList(nn.Linear(dim, width) for _ in turns)

    def views(self) -> Sequence[View]:
        """A square crop of fixed size and a flip, not normalised: patches are."""
        share = (self.cfg.crop, self.cfg.crop)
        crop = RandomResizedCrop(scale=share, ratio=(1.0, 1.0))
        return (View("crop", (crop, HorizontalFlip(p=0.5)), self.cfg.size),)

    def codes(self, patches: Tensor) -> Tensor:
        """Patches `[B, grid^2, 3, s, s]` to codes `[B, grid, grid, D]`."""
        grid = (self.cfg.grid, self.cfg.grid)
        codes: Tensor = self.backbone(patches.flatten(0, 1)).unflatten(0, (len(patches), *grid))
        return codes

    def predict(self, codes: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each direction and number of rows ahead, logits and where the truth is.

        Logits are z' W_k c over all patches of the batch: `[B (grid - k) grid, B grid^2]`.
        """
        out = []
        for turn, context, predictor, target in zip(
            TURNS, self.contexts, self.predictors, self.targets, strict=False
        ):
            turned = codes.rot90(turn, (1, 2))
            seen = context(turned.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            predicted = predictor(seen).unflatten(-1, (len(self.ahead), -1))
            keys = target(turned).flatten(0, 2)
            place = torch.arange(len(keys), device=keys.device).view(codes.shape[:3])
            for number, k in enumerate(self.ahead):
                queries = predicted[:, :-k, :, number].flatten(0, 2)
                out.append((scaled_product(queries, keys), place[:, k:].flatten()))
        return out

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """InfoNCE over all patches of the batch, mean over directions and rows ahead."""
        codes = self.codes(self.grid(batch.view("crop"), step.rng))
        step.watch(codes.flatten(0, 2))
        predictions = self.predict(codes)
        hits = [(logits.argmax(1) == place).float().mean() for logits, place in predictions]
        step.log("pretext_top1", 100 * torch.stack(hits).mean())
        return torch.stack([F.cross_entropy(*each) for each in predictions]).mean()

    def optim(self, phase: str) -> OptimSpec:
        """Adam."""
        return OptimSpec(name="adam", lr=self.cfg.lr, schedule=self.cfg.schedule)

    def encoder(self) -> Encoder:
        """The mean code of a whole picture's patches, as the paper; maps lie side by side."""
        return PatchEncoder(self.grid, self.backbone)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """A patch in the last row, and the one that the rows above it predict, of all shown."""
        rgb = batch.view("crop")[:TILES]
        patches = self.grid(rgb, step.rng)
        logits, place = self.predict(self.codes(patches))[0]
        # The last row's middle patch of each picture.
        asked = place.view(len(rgb), -1, self.cfg.grid)[:, -1, self.cfg.grid // 2]
        guess = logits.argmax(1).view(len(rgb), -1, self.cfg.grid)[:, -1, self.cfg.grid // 2]
        shown = self.data.rgb(patches).flatten(0, 1)
        names = tuple("right" if hit else "wrong" for hit in (guess == asked).tolist())
        good = tuple((guess == asked).tolist())
        return [
            Panel("picture", rgb),
            Panel("patch below", shown[asked]),
            Panel("as predicted from above", shown[guess], names, good),
        ]


@in_full
def scaled_product(queries: Tensor, keys: Tensor) -> Tensor:
    """`[M, D]` queries by `[N, D]` keys, over the root of D: `[M, N]`."""
    product: Tensor = queries @ keys.T
    return product / math.sqrt(keys.shape[1])
