"""What CLIP and SigLIP share: a picture's embedding and its caption's, made to meet.

A method adds its loss. The settings' defaults are CLIP's for its ResNet-50 (arXiv:2103.00020,
Tables 18 and 19, from memory).
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from textwrap import fill
from typing import Any, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.functional import normalize

from bench.api import (
    Backbone,
    Batch,
    Encoder,
    ImageTextEncoder,
    Method,
    OptimSpec,
    Panel,
    Step,
    View,
)
from bench.data.augment import Augmented
from bench.data.text import detokenize
from bench.kernels.precision import in_full
from bench.nn import memory
from bench.nn.text_tower import TextTower, named_text_tower

# 10,000 pictures and the small backbone: about two minutes on a CPU core. With a crop of 90 % and
# no flip, 85 % of training pairs were matched and 66 % of others; the flip costs left and right.
SMALL: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 128,
    "crop": (0.5, 1.0),
    "flip": 0.5,
    "projection": 128,
    "text_width": 64,
    "text_heads": 4,
    "text_layers": 2,
    "lr": 2e-3,
    "weight_decay": 0.5,
    "warmup_epochs": 1,
}


class ImageTextConfig(Augmented):
    """CLIP's settings for its ResNet-50; of the augmentation there is a crop alone."""

    epochs: int = 32
    batch_size: int = 32768
    crop: tuple[float, float] = (0.9, 1.0)  # share of the area; open_clip's
    flip: float = Field(0.0, ge=0, le=1)  # probabilities, here and below
    jitter_p: float = Field(0.0, ge=0, le=1)
    gray: float = Field(0.0, ge=0, le=1)
    blur: float = Field(0.0, ge=0, le=1)
    projection: int = Field(1024, ge=1)  # the joint embedding's width
    text_width: int = Field(512, ge=1)
    text_heads: int = Field(8, ge=1)
    text_layers: int = Field(12, ge=1)
    text_model: str | None = None  # takes the text tower of this open_clip model, untrained
    temperature: float = Field(0.07, gt=0)  # at the start; it is learnt
    lr: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.999)  # its ViTs: 0.98
    weight_decay: float = 0.2  # not of gains, biases and the temperature
    warmup_epochs: float = 0.16  # 2,000 steps of 32,768 pairs out of 400 million
    clip: float | None = None  # of the gradient's norm

    @field_validator("batch_size")
    @classmethod
    def _others(cls, batch_size: int) -> int:
        if batch_size < 2:
            raise ValueError("a batch of one has no other caption to choose from; use 2 or more")
        return batch_size

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.text_width % self.text_heads:
            raise ValueError(
                f"text_width {self.text_width} is no multiple of text_heads {self.text_heads}"
            )
        return self


class ImageText(Method):
    """Two towers, each with a linear layer into one space, in which a pair is to be near.

    Logs how often the nearest caption of the batch is the picture's own (`image_to_text_top1`, %;
    chance is 100 / batch_size), and the other way round.
    """

    needs = frozenset({"text"})

    def build(self) -> None:
        """The text tower, the picture's projection and the temperature."""
        cfg = self.cfg
        self.projector = nn.Linear(self.backbone.dim, cfg.projection, bias=False)
        nn.init.normal_(self.projector.weight, std=self.backbone.dim**-0.5)
        self.text = (
            named_text_tower(cfg.text_model, cfg.projection)
            if cfg.text_model
            else TextTower(cfg.text_width, cfg.text_heads, cfg.text_layers, cfg.projection)
        )
        # The logarithm is learnt, so that steps are in proportion and the scale stays positive.
        self.log_scale = nn.Parameter(torch.tensor(-math.log(cfg.temperature)))

    def views(self) -> Sequence[View]:
        """One view; the papers hardly augment, as captions tell colours, and left from right."""
        return (View("crop", self.cfg.ops(self.data)),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        """The loss of the pairs of a batch."""
        image, text = self.embed(batch)
        step.watch(image)
        step.log("image_to_text_top1", partner_top1(image, text))
        step.log("text_to_image_top1", partner_top1(text, image))
        step.log("scale", self.log_scale.exp())
        return self.match(image, text)

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The embeddings `[B, D]` of pictures and captions."""
        assert batch.text is not None, "declared in `needs`"
        return self.projector(self.backbone(batch.view("crop"))), self.text(batch.text)

    @abstractmethod
    def match(self, image: Tensor, text: Tensor) -> Tensor:
        """The loss of embeddings `[B, D]` of which equal rows are pairs."""

    def optim(self, phase: str) -> OptimSpec:
        """Adam with decoupled weight decay, along a cosine after a warm-up."""
        cfg = self.cfg
        return OptimSpec(
            name="adamw",
            lr=cfg.lr,
            betas=cfg.betas,
            weight_decay=cfg.weight_decay,
            decay_bias_and_norm=False,
            warmup_epochs=cfg.warmup_epochs,
            clip_grad_norm=cfg.clip,
        )

    def encoder(self) -> Encoder:
        """The backbone, as the paper probes it, with both embeddings beside it."""
        return TwoTowers(self.backbone, self.projector, self.text, self.log_scale)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures with the nearest of all captions of the batch."""
        assert batch.text is not None, "declared in `needs`"
        image, text = (normalize(rows, dim=1) for rows in self.embed(batch))
        nearest = detokenize(batch.text[(image[:16] @ text.T).argmax(1)])
        own = detokenize(batch.text[:16])
        rgb, title = self.data.rgb(batch.view("crop")[:16]), f"nearest of {len(text)} captions"
        return [
            Panel(
                title,
                rgb[row : row + 8],
                tuple(fill(typeset(caption), 19) for caption in nearest[row : row + 8]),
                tuple(a == b for a, b in zip(nearest, own, strict=True))[row : row + 8],
            )
            for row in range(0, len(rgb), 8)
        ]


class TwoTowers(ImageTextEncoder):
    """A backbone with what embeds its pictures and their captions in one space.

    Args:
        backbone: the picture's tower.
        projector: from its representation to the embedding.
        text: from tokens to the embedding.
        log_scale: the logarithm of the inverse temperature.
    """

    def __init__(
        self, backbone: Backbone, projector: nn.Module, text: nn.Module, log_scale: nn.Parameter
    ) -> None:
        super().__init__()
        self.backbone, self.projector, self.text = backbone, projector, text
        self.log_scale = log_scale
        self.dim, self.layers = backbone.dim, backbone.layers

    @property
    def scale(self) -> float:
        """The inverse temperature as learnt."""
        return float(self.log_scale.detach().exp())

    def forward(self, x: Tensor) -> Tensor:
        """The backbone's representation, `[B, dim]`."""
        out: Tensor = self.backbone(x)
        return out

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The backbone's maps."""
        return self.backbone.maps(x)

    def tap(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both, in one pass."""
        return self.backbone.tap(x)

    def embed_image(self, x: Tensor) -> Tensor:
        """Embeddings of normalised pictures, `[B, D]`."""
        out: Tensor = self.projector(self.backbone(x))
        return out

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Embeddings of tokens `[T, L]`, `[T, D]`."""
        out: Tensor = self.text(tokens)
        return out


@torch.no_grad()
@in_full
def partner_top1(one: Tensor, two: Tensor) -> Tensor:
    """The share, in %, of embeddings `one` whose nearest of `two`, `[N, D]` each, is their partner.

    Of very large batches, some are asked for theirs.
    """
    asked = normalize(one[: memory.watched(len(two))], dim=1)
    nearest = (asked @ normalize(two, dim=1).T).argmax(1)
    return 100 * (nearest == torch.arange(len(asked), device=one.device)).float().mean()


def typeset(caption: str) -> str:
    """`caption` without the spaces that tokens leave before punctuation."""
    return re.sub(r" (?=[.,;:!?])", "", caption)
