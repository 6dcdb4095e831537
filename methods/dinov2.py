"""DINOv2: DINO + iBOT, heads untied, Sinkhorn and KoLeo (Oquab 2023, arXiv:2304.07193).

`patch_top1`: for how many masked patches, in %, student and teacher choose the same prototype;
`koleo`: minus the mean log distance of a class token to its nearest in the batch. DINO's
`teacher_entropy`, `teacher_kl` and `target_information` are those of the class token.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from bench.api import Batch, OptimSpec, Step
from bench.nn.koleo import koleo
from bench.nn.masked_distillation import SMALL, MaskedDistillation, MaskedDistillationConfig
from bench.nn.patch_masks import ROUNDING, block_masks, spread_ratios


class DINOv2(MaskedDistillation):
    """iBOT with a head for patches of its own, balanced targets, and class tokens kept apart."""

    deviations = (
        "one resolution: no last stage at 518 px",
        "crops are resampled bilinearly, not bicubically; the mask token does not decay",
        "an epoch is a pass over the pictures; officially it is 1,250 steps",
        "no drop path of 0.3 and no LayerScale, unless the backbone brings its own",
        "one learning rate: no decay of 0.9 by layer, no factor of 0.2 for the patch embedding",
        "gradients are clipped parameter by parameter, as in DINO; officially network by network",
        "masks have exactly the drawn number of patches; BEiT's blocks may fall short of it",
        "Sinkhorn balances the masked patches and a few others, so that shapes stay the same",
    )
    recipes = {
        "small": SMALL,
        "toy": {"local_crops": 1, "prototypes": 64, "hidden": 32, "bottleneck": 16},
    }

    class Config(MaskedDistillationConfig):
        """Settings of the official ssl_default_config.yaml (ViT-L/16), but where noted."""

        epochs: int = 100
        batch_size: int = 2048  # 32 GPUs of 64 (official README)
        crop: tuple[float, float] = (0.32, 1.0)
        local_crop: tuple[float, float] = (0.05, 0.32)
        teacher_temperature: float = 0.07
        temperature_epochs: int = 30
        momentum: float = 0.992
        targets: Literal["center", "sinkhorn"] = "sinkhorn"  # paper, and configs/train/vitl14.yaml
        shared_head: bool = False  # paper, and configs/train/vitl14.yaml
        lr: float = 4e-3  # per 1,024 pictures, by the root
        masked_views: float = Field(0.5, gt=0, le=1)  # the share of views that have masks
        mask_ratio: tuple[float, float] = (0.1, 0.5)  # of their patches
        koleo_weight: float = Field(0.1, ge=0)

        @field_validator("mask_ratio")
        @classmethod
        def _some_masked(cls, ratio: tuple[float, float]) -> tuple[float, float]:
            if not 0 <= ratio[0] <= ratio[1] < 1 or ratio[1] == 0:
                raise ValueError("give the least and the greatest share, below 1, not both 0")
            return ratio

    def masks(self, n: int, rng: torch.Generator) -> Tensor:
        """Blocks on half of the views; their shares are spread evenly over the batch."""
        ratios = spread_ratios(n, self.cfg.masked_views, self.cfg.mask_ratio, rng)
        return block_masks(ratios, self.grid, rng)

    def most_masked(self, n: int) -> int:
        """Where each masked view draws the greatest share of its part of the interval."""
        low, high = self.cfg.mask_ratio
        views, patches = int(n * self.cfg.masked_views), self.grid[0] * self.grid[1]
        tops = (low + (high - low) * (part + 1) / views for part in range(views))
        return sum(int(top * patches + ROUNDING) for top in tops)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The loss of iBOT, and KoLeo within each of the two global views."""
        loss, classes = self.match(batch, step)
        if not self.cfg.koleo_weight:
            return loss
        one, two = (koleo(view) for view in classes)
        step.log("koleo", (one + two) / 2)
        weight: float = self.cfg.koleo_weight
        return loss + weight * (one + two)

    def optim(self, phase: str) -> OptimSpec:
        """DINO's, the learning rate scaled by the root of the batch."""
        scaled = {"base_batch": 1024, "scaling": "sqrt"}
        return super().optim(phase).model_copy(update=scaled)
