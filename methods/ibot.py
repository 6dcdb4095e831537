"""iBOT: DINO, and masked patches filled in as the teacher sees them (Zhou 2021, arXiv:2111.07832).

`patch_top1`: for how many masked patches, in %, student and teacher choose the same prototype.
DINO's `teacher_entropy`, `teacher_kl` and `target_information` are those of the class token.
"""

from __future__ import annotations

import torch
from pydantic import model_validator
from torch import Tensor

from bench.api import Batch, Step
from bench.nn.masked_distillation import SMALL, MaskedDistillation, MaskedDistillationConfig
from bench.nn.patch_masks import ROUNDING, block_masks, chosen_ratios


class IBOT(MaskedDistillation):
    """One head for class tokens and patches; half of the views have masks, of any size."""

    deviations = (
        "prototypes have unit norm; the official run of ViT-S learns their norms",
        "masks have exactly the drawn number of patches; BEiT's blocks may fall short of it",
        "the patches' centre moves by, and Sinkhorn balances, the masked patches and some others, "
        "up to three times as many, so that shapes stay the same",
        "crops are resampled bilinearly, not bicubically; the mask token does not decay",
        "no drop path, unless the backbone brings its own",
    )
    recipes = {
        "small": {
            **SMALL,
            "targets": "sinkhorn",  # with centres kNN was no better than with random weights
        },
        "toy": {
            "local_crops": 1,
            "prototypes": 64,
            "hidden": 32,
            "bottleneck": 16,
            # As the centre leaves 0, targets become even: the loss would rise at first.
            "center_momentum": 0.999,
        },
    }

    class Config(MaskedDistillationConfig):
        """Settings of the official README's run of ViT-S/16; the rest is main_ibot.py's."""

        epochs: int = 800
        batch_size: int = 1024  # 16 GPUs of 64
        crop: tuple[float, float] = (0.25, 1.0)
        local_crops: int = 10
        local_crop: tuple[float, float] = (0.05, 0.25)
        prototypes: int = 8192
        teacher_temperature: float = 0.07  # of class token and patches
        temperature_epochs: int = 30
        mask_ratios: tuple[float, ...] = (0.0, 0.3)  # one is chosen for each view,
        mask_spreads: tuple[float, ...] = (0.0, 0.2)  # and moved by up to this

        @model_validator(mode="after")
        def _some_masked(self) -> IBOT.Config:
            pairs = list(zip(self.mask_ratios, self.mask_spreads, strict=False))
            if len(self.mask_ratios) != len(self.mask_spreads):
                raise ValueError("give as many mask_spreads as mask_ratios")
            if any(not 0 <= s <= m <= m + s < 1 for m, s in pairs) or max(sum(pairs, ())) == 0:
                raise ValueError("mask_ratios are at least their spread; sums are below 1, one > 0")
            return self

    def masks(self, n: int, rng: torch.Generator) -> Tensor:
        """Blocks on a share of each view that is drawn from the ratios."""
        ratios = chosen_ratios(n, self.cfg.mask_ratios, self.cfg.mask_spreads, rng)
        return block_masks(ratios, self.grid, rng)

    def most_masked(self, n: int) -> int:
        """Where each view draws the greatest share."""
        most = max(map(sum, zip(self.cfg.mask_ratios, self.cfg.mask_spreads, strict=True)))
        return n * int(most * self.grid[0] * self.grid[1] + ROUNDING)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """DINO's cross-entropy between crops, plus that of masked patches."""
        loss, _ = self.match(batch, step)
        return loss
