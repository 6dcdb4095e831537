"""CLIP: find each picture's caption among the batch's, and back (Radford 2021, arXiv:2103.00020).

`image_to_text_top1` and `text_to_image_top1` (%) tell how often that works; chance is
100 / batch_size. `scale` is the inverse temperature, learnt.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.api import Step
from bench.kernels import infonce
from bench.nn.image_text import SMALL, ImageText, ImageTextConfig


class CLIP(ImageText):
    """Symmetric cross-entropy over the cosines of a batch, at a learnt temperature."""

    deviations = (
        "the picture's tower pools as the backbone does; the paper's ResNets pool by attention",
        "a random crop of a share of the area, as in open_clip; the paper crops a square",
    )
    recipes = {
        "small": SMALL,
        # In ten epochs captions are told apart by colours and backdrops; what a thing is comes
        # later: zero-shot on held-out training pictures of `scenes` 21 %, with this recipe 29 %.
        "small_long": {**SMALL, "epochs": 30, "batch_size": 256, "lr": 3e-3},
    }

    class Config(ImageTextConfig):
        """The ResNet-50's, as the base has them."""

        largest_scale: float = 100.0  # of the inverse temperature (section 2.5)

    def match(self, image: Tensor, text: Tensor) -> Tensor:
        """Cross-entropy from pictures to captions and back, averaged."""
        return infonce(image, text, self.log_scale.exp())

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        """The temperature does not fall below 0.01: training would become unstable."""
        self.log_scale.clamp_(max=math.log(self.cfg.largest_scale))
