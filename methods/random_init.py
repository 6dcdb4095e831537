"""Random initialisation: the backbone as it was drawn; the floor under every trained method."""

from __future__ import annotations

from bench.api import Untrained


class RandomInit(Untrained):
    """BatchNorm keeps its initial running statistics (mean 0, variance 1)."""
