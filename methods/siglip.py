"""SigLIP: does this caption belong to this picture, pair by pair (Zhai 2023, arXiv:2303.15343).

`image_to_text_top1` and `text_to_image_top1` (%) tell how often the nearest is the right one;
chance is 100 / batch_size. `scale` is the inverse temperature and `bias` the offset, both learnt.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.api import Batch, Step
from bench.kernels import siglip
from bench.nn.image_text import SMALL, ImageText, ImageTextConfig


class SigLIP(ImageText):
    """A sigmoid for every pair of picture and caption, without any softmax over the batch."""

    deviations = (
        "the picture's tower pools as the backbone does; the paper's ViTs pool by attention",
        "a random crop of a share of the area; the paper only resizes",
        "embeddings and positions decay as well; big_vision's decay kernels only",
        "CLIP's tokens and causal text tower; the paper's are SentencePiece and bidirectional",
    )
    recipes = {"small": SMALL}

    class Config(ImageTextConfig):
        """SigLIP B/16; "config": as in big_vision's siglip_lit_coco.py, the others from memory."""

        epochs: int = 32  # CLIP's; the paper counts pairs instead, 9 billion
        projection: int = 768
        text_width: int = 768
        text_heads: int = 12
        temperature: float = Field(0.1, gt=0)  # t' = log 10, as in config
        bias: float = -10.0  # at the start nearly every pair is a "no", as it should be
        lr: float = 1e-3  # config
        betas: tuple[float, float] = (0.9, 0.95)  # 0.95 for stability
        weight_decay: float = 1e-4
        warmup_epochs: float = 0.96  # config: 3 % of all steps
        clip: float | None = 1.0  # config

    def build(self) -> None:
        """The towers, and the offset."""
        super().build()
        self.bias = nn.Parameter(torch.tensor(self.cfg.bias))

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The loss of the pairs of a batch."""
        step.log("bias", self.bias)
        return super().loss(batch, step)

    def match(self, image: Tensor, text: Tensor) -> Tensor:
        """The sum over all pairs, by the number of pictures."""
        return siglip(image, text, self.log_scale.exp(), self.bias)
