"""Views of test pictures that leave the label what it is: noise, blur, light, colour, hidden parts.

After ImageNet-C and CIFAR-10-C (Hendrycks & Dietterich, arXiv:1903.12261), one severity each, with
lengths as shares of the picture's side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from bench.api import DataInfo, Op, View
from bench.data.ops import ColorJitter, Cutout, GaussianBlur, Grayscale
from bench.data.ops.corrupt import GaussianNoise, Pixelate
from bench.data.views import eval_view

NOISE = 0.1  # standard deviation of noise, of the range of values; CIFAR-10-C's strongest
BLUR = 1 / 32  # standard deviation of the blur; CIFAR-10-C's strongest
BRIGHT, DARK = 1.5, 0.5  # factors; ours, as CIFAR-10-C adds to the HSV value
CONTRAST = 0.3  # CIFAR-10-C's second strongest
COARSE = 0.5  # ImageNet-C's second of five; twice as coarse as CIFAR-10-C's
HIDDEN = 0.5  # a square of this side is hidden, as in Cutout (arXiv:1708.04552)
REACH = 4  # standard deviations of the blur to either side


def shifts(info: DataInfo) -> Mapping[str, View]:
    """The shifted views by name: the view of evaluation with one thing changed."""
    plain = eval_view(info)
    side = plain.size or info.size
    crop, normalize = plain.ops
    blur = BLUR * side
    kernel = 2 * min(math.ceil(REACH * blur), side - 1) + 1
    before: dict[str, Op] = {
        "noise": GaussianNoise(std=NOISE),
        "blur": GaussianBlur(kernel=kernel, sigma=(blur, blur), p=1),
        "bright": ColorJitter(brightness=(BRIGHT, BRIGHT)),
        "dark": ColorJitter(brightness=(DARK, DARK)),
        "contrast": ColorJitter(contrast=(CONTRAST, CONTRAST)),
        "grey": Grayscale(p=1),
        "pixelate": Pixelate(fraction=COARSE),
    }
    views = {name: View(name, (crop, op, normalize), side) for name, op in before.items()}
    # After normalisation, so that what is hidden is of the mean colour.
    hide = Cutout(size=max(1, round(HIDDEN * side)))
    return views | {"occlusion": View("occlusion", (crop, normalize, hide), side)}
