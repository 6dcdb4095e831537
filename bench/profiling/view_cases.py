"""What renders views here and elsewhere: each operation alone, and SimCLR's whole augmentation.

A case holds the same work as ours, torchvision (v2) and kornia express it. torchvision draws once
for all that it is given, so what is random goes through it picture by picture.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torchvision.transforms import InterpolationMode, v2

from bench.api import Op
from bench.data.ops import (
    CenterCrop,
    ColorJitter,
    Cutout,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Normalize,
    RandAugment,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    Solarize,
)
from bench.data.ops.corrupt import GaussianNoise, Pixelate

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KERNEL, SIGMA = 9, (0.1, 2.0)  # pixels, of the blur
Jitter = tuple[float, float, float, float]
MILD: Jitter = (0.4, 0.4, 0.4, 0.1)
STRONG: Jitter = (0.8, 0.8, 0.8, 0.2)
FLOAT = v2.ToDtype(torch.float32, scale=True)
ORDER = "kornia draws one order of the jitter's parts for a batch"


@dataclass(frozen=True)
class Case:
    """One piece of work, as each library does it; empty where a library has no such thing."""

    name: str
    ours: tuple[Op, ...]
    torchvision: tuple[v2.Transform, ...] = ()
    kornia: tuple[nn.Module, ...] = ()
    lightly: dict[str, Any] = field(default_factory=dict)  # settings of its SimCLR views
    random: bool = True  # whether each picture has draws of its own
    copies: int = 1  # views of each picture
    size: int | None = None  # px of the views; None: the pictures' own
    notes: tuple[tuple[str, str], ...] = ()  # (library, how it differs)

    def notes_of(self, library: str) -> tuple[str, ...]:
        """How a library's work differs from ours."""
        return tuple(note for of, note in self.notes if of == library)


def cases(size: int) -> list[Case]:
    """SimCLR's augmentation at `size` px, and then every operation alone."""
    return [simclr(size), *_crops(size), *_colors(), *_blurs(), *_others(size)]


def simclr(size: int) -> Case:
    """SimCLR's augmentation: up to 64 px as for CIFAR-10, milder and without blur."""
    jitter, blur = (MILD, False) if size <= 64 else (STRONG, True)
    kornia = _kornia()
    parts: tuple[nn.Module, ...] = ()
    if kornia is not None:
        parts = (
            kornia.RandomResizedCrop((size, size), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
            kornia.RandomHorizontalFlip(p=0.5),
            kornia.ColorJitter(*jitter, p=0.8),
            kornia.RandomGrayscale(p=0.2),
            *([kornia.RandomGaussianBlur((KERNEL, KERNEL), SIGMA, p=0.5)] if blur else []),
            kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        )
    return Case(
        "SimCLR",
        (
            RandomResizedCrop(scale=(0.08, 1.0)),
            HorizontalFlip(),
            _jitter(jitter),
            Grayscale(p=0.2),
            *([GaussianBlur(kernel=KERNEL, sigma=SIGMA)] if blur else []),
            Normalize(mean=MEAN, std=STD),
        ),
        (
            v2.RandomResizedCrop(size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*jitter)], 0.8),
            v2.RandomGrayscale(0.2),
            *([v2.RandomApply([v2.GaussianBlur(KERNEL, SIGMA)], 0.5)] if blur else []),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ),
        parts,
        {
            "input_size": size,
            **dict(zip(("cj_bright", "cj_contrast", "cj_sat", "cj_hue"), jitter, strict=True)),
            "gaussian_blur": 0.5 if blur else 0.0,
            "sigmas": SIGMA,
            "normalize": {"mean": MEAN, "std": STD},
        },
        copies=2,
        notes=(("kornia", ORDER),),
    )


def _crops(size: int) -> list[Case]:
    kornia = _kornia()
    side = round(0.875 * size)
    return [
        Case(
            "RandomResizedCrop",
            (RandomResizedCrop(scale=(0.08, 1.0)),),
            (v2.RandomResizedCrop(size, antialias=True), FLOAT),
            (kornia.RandomResizedCrop((size, size), scale=(0.08, 1.0)),) if kornia else (),
            notes=(("kornia", "without antialiasing where it shrinks"),),
        ),
        Case(
            "RandomCrop",
            (RandomCrop(padding=4),),
            (v2.RandomCrop(size, padding=4), FLOAT),
            (kornia.RandomCrop((size, size), padding=4),) if kornia else (),
        ),
        Case(
            "CenterCrop",
            (CenterCrop(fraction=0.875),),
            (v2.CenterCrop(side), v2.Resize(size, antialias=True), FLOAT),
            (kornia.CenterCrop(side), kornia.Resize((size, size))) if kornia else (),
            random=False,
            notes=(
                ("torchvision", "two operations"),
                ("kornia", "two operations, no antialiasing"),
            ),
        ),
        Case(
            "Resize",
            (Resize(),),
            (v2.Resize(side, antialias=True), FLOAT),
            (kornia.Resize((side, side)),) if kornia else (),
            random=False,
            size=side,
            notes=(("kornia", "without antialiasing"),),
        ),
        Case(
            "HorizontalFlip",
            (HorizontalFlip(),),
            (v2.RandomHorizontalFlip(), FLOAT),
            (kornia.RandomHorizontalFlip(p=0.5),) if kornia else (),
        ),
    ]


def _colors() -> list[Case]:
    kornia = _kornia()
    return [
        Case(
            "ColorJitter",
            (_jitter(STRONG),),
            (v2.RandomApply([v2.ColorJitter(*STRONG)], 0.8), FLOAT),
            (kornia.ColorJitter(*STRONG, p=0.8),) if kornia else (),
            notes=(("kornia", ORDER),),
        ),
        Case(
            "Grayscale",
            (Grayscale(p=0.2),),
            (v2.RandomGrayscale(0.2), FLOAT),
            (kornia.RandomGrayscale(p=0.2),) if kornia else (),
        ),
        Case(
            "Solarize",
            (Solarize(p=0.2),),
            (v2.RandomSolarize(128, 0.2), FLOAT),
            (kornia.RandomSolarize((0.5, 0.5), (0.0, 0.0), p=0.2),) if kornia else (),
        ),
        Case(
            "Normalize",
            (Normalize(mean=MEAN, std=STD),),
            (FLOAT, v2.Normalize(MEAN, STD)),
            (kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD)),) if kornia else (),
            random=False,
        ),
    ]


def _blurs() -> list[Case]:
    kornia = _kornia()
    return [
        Case(
            "GaussianBlur",
            (GaussianBlur(kernel=KERNEL, sigma=SIGMA, p=0.5),),
            (v2.RandomApply([v2.GaussianBlur(KERNEL, SIGMA)], 0.5), FLOAT),
            (kornia.RandomGaussianBlur((KERNEL, KERNEL), SIGMA, p=0.5),) if kornia else (),
        ),
        Case(
            "GaussianNoise",
            (GaussianNoise(std=0.1),),
            (FLOAT, v2.GaussianNoise(0.0, 0.1)),
            (kornia.RandomGaussianNoise(0.0, 0.1, p=1.0),) if kornia else (),
            random=False,  # torchvision's noise is each value's own anyway
            notes=(("kornia", "without clamping to [0, 1]"),),
        ),
        Case("Pixelate", (Pixelate(fraction=0.5),), random=False),
    ]


def _others(size: int) -> list[Case]:
    kornia = _kornia()
    square = min(16, size // 2)
    share = (square / size) ** 2
    within = "a square that lies within the picture"
    return [
        Case(
            "Cutout",
            (Cutout(size=square),),
            (v2.RandomErasing(1.0, (share, share), (1.0, 1.0)), FLOAT),
            (kornia.RandomErasing((share, share), (1.0, 1.0), p=1.0),) if kornia else (),
            notes=(("torchvision", within), ("kornia", within)),
        ),
        Case(
            "RandAugment",
            (RandAugment(n=2, magnitude=9),),
            (v2.RandAugment(2, 9, interpolation=InterpolationMode.BILINEAR), FLOAT),
            (_kornia_randaugment(),) if kornia else (),
            notes=(("kornia", "other operations and strengths, drawn once for a batch"),),
        ),
    ]


def _jitter(strength: Jitter) -> ColorJitter:
    brightness, contrast, saturation, hue = strength
    return ColorJitter(
        brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, p=0.8
    )


def _kornia() -> Any:
    """Kornia's augmentations; None where it is not installed."""
    if find_spec("kornia") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, which it scripts with
        import kornia.augmentation
    return kornia.augmentation


def _kornia_randaugment() -> nn.Module:
    from kornia.augmentation.auto import RandAugment as KorniaRandAugment

    made: nn.Module = KorniaRandAugment(2, 9)
    return made
