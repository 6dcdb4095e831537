"""What a view is made of: batched, per-picture random operations, after torchvision's definitions.

Each is a frozen, validated, JSON-serialisable setting that draws its parameters for a whole batch
and applies them without leaving the device. `bench.data.views.render` runs a sequence of them.
"""

from bench.data.ops.blur import GaussianBlur
from bench.data.ops.color import ColorJitter, Grayscale, Normalize, Solarize
from bench.data.ops.crop import CenterCrop, RandomCrop, RandomResizedCrop, Resize
from bench.data.ops.cutout import Cutout
from bench.data.ops.flip import HorizontalFlip
from bench.data.ops.randaugment import RandAugment

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Cutout",
    "GaussianBlur",
    "Grayscale",
    "HorizontalFlip",
    "Normalize",
    "RandAugment",
    "RandomCrop",
    "RandomResizedCrop",
    "Resize",
    "Solarize",
]
