"""How papers fine-tune a network on few labels, as constants with their sources."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from bench.api import OptimSpec

FEW = 0.03  # share of labels, halfway from 1 % to 10 % on a log scale, that parts the settings


class Tuning(NamedTuple):
    """How a network is fine-tuned; learning rates fall in proportion where batches are smaller."""

    epochs: int  # over the pictures that are trained on
    batch_size: int
    trunk: OptimSpec
    head: OptimSpec


class Recipe(NamedTuple):
    """A paper's settings for 1 % and for 10 % of the labels."""

    one: Tuning
    ten: Tuning
    standardize: bool = False  # the representation, before the head


def _tuning(epochs: int, batch_size: int, trunk: float, head: float, **more: Any) -> Tuning:
    """SGD with momentum 0.9, cosine schedule, without warm-up or weight decay unless told."""
    spec = partial(OptimSpec, base_batch=batch_size, **more)
    return Tuning(epochs, batch_size, spec(lr=trunk), spec(lr=head))


_simclr = partial(_tuning, batch_size=4096, trunk=0.8, head=0.8, nesterov=True)
_swav = partial(_tuning, 20, 256, schedule="step", milestones=(0.6, 0.8), gammas=(0.2, 0.2))
_vicreg = partial(_tuning, 20, 256)
_small = partial(_tuning, 40, 64, nesterov=True, weight_decay=5e-4)
RECIPES = {
    # arXiv:2002.05709, B.5: 0.05 * batch / 256; the cosine as in google-research/simclr.
    "simclr": Recipe(_simclr(60), _simclr(30)),
    # facebookresearch/swav, eval_semisup.py: drops after 12 and 16 of 20 epochs.
    "swav": Recipe(_swav(trunk=0.02, head=5.0), _swav(trunk=0.01, head=0.2)),
    # facebookresearch/vicreg, evaluate.py
    "vicreg": Recipe(_vicreg(trunk=0.03, head=0.08), _vicreg(trunk=0.01, head=0.1)),
    # Measured on val of 10,000 `scenes`: after rotnet, 300 steps with head rates 0.01 | 0.1 | 0.5
    # come to 28 | 24 | 21 % top-1 with 1 % and to 58 | 59 | 9 % with 10 % of the labels.
    "small": Recipe(_small(trunk=0.03, head=0.01), _small(trunk=0.03, head=0.1), True),
}
