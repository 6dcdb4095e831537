"""The augmentation that contrastive methods share, as settings: SimCLR's, and its variations."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from bench.api import DataInfo, MethodConfig, Op
from bench.data.ops import (
    ColorJitter,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Normalize,
    RandomResizedCrop,
    Solarize,
)

# SimCLR's appendix B.9 on CIFAR-10: half the colour strength and no blur; crops from a fifth, as
# most implementations take for 32 px.
SMALL_PICTURES: dict[str, Any] = {
    "crop": (0.2, 1.0),
    "jitter": (0.4, 0.4, 0.4, 0.1),
    "blur": 0.0,
}


class Augmented(MethodConfig):
    """Settings of SimCLR's augmentation (arXiv:2002.05709, A); the defaults are that paper's."""

    crop: tuple[float, float] = (0.08, 1.0)  # share of the picture's area
    flip: float = Field(0.5, ge=0, le=1)  # probabilities, here and below
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)  # brightness ... hue
    jitter_p: float = Field(0.8, ge=0, le=1)
    gray: float = Field(0.2, ge=0, le=1)
    blur: float = Field(0.5, ge=0, le=1)
    sigma: tuple[float, float] = (0.1, 2.0)  # of the blur, pixels
    solarize: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if self.batch_size < 2:
            raise ValueError("comparing pictures takes batches of at least 2 pictures")
        return self

    def ops(self, info: DataInfo, **changes: Any) -> tuple[Op, ...]:
        """Crop, flip, jitter, gray, blur, solarise and normalise, without those of probability 0.

        Args:
            info: whose mean and standard deviation normalise.
            **changes: settings of this one view, such as `blur=1.0` for BYOL's first.
        """
        s = self.model_copy(update=changes)
        brightness, contrast, saturation, hue = s.jitter
        steps: list[tuple[float, Op]] = [
            (1.0, RandomResizedCrop(scale=s.crop)),
            (s.flip, HorizontalFlip(p=s.flip)),
            (
                s.jitter_p,
                ColorJitter(
                    brightness=brightness,
                    contrast=contrast,
                    saturation=saturation,
                    hue=hue,
                    p=s.jitter_p,
                ),
            ),
            (s.gray, Grayscale(p=s.gray)),
            (s.blur, GaussianBlur(sigma=s.sigma, p=s.blur)),
            (s.solarize, Solarize(p=s.solarize)),
            (1.0, Normalize(mean=info.mean, std=info.std)),
        ]
        return tuple(op for probability, op in steps if probability > 0)
