"""PCA: pictures projected on their principal components, a linear baseline (Pearson 1901)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Batch, Encoder, Panel, Step, TrainSet, Untrained, View
from bench.data.ops import Normalize
from bench.errors import BenchError
from bench.nn.whiten import from_covariance

TILES = 8  # in a row of the picture


class PCA(Untrained):
    """Fitted on all training pictures in one pass; the backbone is not used."""

    recipes = {"toy": {"dim": 16}}

    class Config(Untrained.Config):
        """No paper: Turk & Pentland 1991 (eigenfaces) describe pictures by as few as 40."""

        dim: int = Field(256, ge=1)  # components kept, at most the values of a picture
        side: int = Field(32, ge=1)  # pixels; larger pictures are averaged down to it
        whiten: bool = False  # scale every component to variance 1

    def build(self) -> None:
        """Room for the projection.

        Raises:
            BenchError: fewer pictures than components.
        """
        if self.data.n_train < self.cfg.dim:
            raise BenchError(
                f"pca needs as many training pictures as components, {self.cfg.dim}, not "
                f"{self.data.n_train}; use fewer components, such as --set method.dim=16"
            )
        self.projection = Projection(min(self.cfg.side, self.data.size), self.cfg.dim)

    def initialize(self, train: TrainSet) -> None:
        """Fit the components."""
        sums = _Moments(self.projection)
        train.features(sums)
        mean = sums.first / sums.count
        covariance = sums.second / sums.count - mean.outer(mean)
        found = from_covariance(mean, covariance, self.projection.dim)
        self.projection.mean.copy_(found.mean)
        self.projection.axes.copy_(found.axes)
        self.projection.encode.copy_(found.whitening() if self.cfg.whiten else found.axes)

    def encoder(self) -> Encoder:
        """Normalised pictures, resized, flattened and centred, onto the components."""
        return self.projection

    def views(self) -> Sequence[View]:
        """The whole picture, for `picture`."""
        return (View("image", (Normalize(mean=self.data.mean, std=self.data.std),)),)

    def picture(self, batch: Batch, step: Step) -> Sequence[Panel]:
        """Pictures, what few and all components leave of them, and the mean with the first ones."""
        p, data = self.projection, self.data
        x = p.resize(batch.view("image")[:TILES])
        panels = [Panel("picture", data.rgb(x))]
        for count in sorted({min(TILES - 1, p.dim), min(32, p.dim), p.dim}):
            axes = p.axes[:count]
            again = (x.flatten(1) - p.mean) @ axes.T @ axes + p.mean
            panels.append(Panel(f"from {count} components", data.rgb(again.view_as(x))))
        axes = p.axes[: TILES - 1]
        shown = torch.cat(
            [data.rgb(p.mean.view(x[:1].shape)), _signed(axes).view(-1, *x.shape[1:])]
        )
        captions = ("mean", *(f"component {i + 1}" for i in range(len(axes))))
        return [*panels, Panel("mean and components", shown, captions)]


class Projection(Encoder):
    """Pictures `[B, 3, H, W]` to their coordinates `[B, dim]` on fixed axes.

    Args:
        side: to which pictures are resized, pixels.
        dim: axes, at most 3 * side^2.
    """

    mean: Tensor  # [D], D = 3 * side^2
    axes: Tensor  # [dim, D] orthonormal
    encode: Tensor  # [dim, D] the axes, scaled where the result is whitened

    def __init__(self, side: int, dim: int) -> None:
        super().__init__()
        self.side, values = side, 3 * side**2
        self.dim = min(dim, values)
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("axes", torch.zeros(self.dim, values))
        self.register_buffer("encode", torch.zeros(self.dim, values))

    def resize(self, x: Tensor) -> Tensor:
        """`[B, 3, side, side]`."""
        if x.shape[-1] == self.side:
            return x
        return F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Coordinates `[B, dim]`."""
        return F.linear(self.resize(x).flatten(1) - self.mean, self.encode)


class _Moments(nn.Module):
    """Sums over all pictures that pass, so that they need not be held at once."""

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.projection, self.count = projection, 0
        # In double precision, as the covariance is a small difference of large sums.
        self.first = projection.mean.double() * 0
        self.second = self.first.outer(self.first)

    def forward(self, x: Tensor) -> Tensor:
        """Nothing: `[B, 1]` zeros."""
        flat = self.projection.resize(x).flatten(1)
        self.count += len(flat)
        self.first += flat.double().sum(0)
        self.second += flat.T @ flat
        return flat.new_zeros(len(flat), 1)


def _signed(rows: Tensor) -> Tensor:
    """Each row `[K, D]` scaled so that 0 is mid grey and its largest entry black or white."""
    return 0.5 + 0.5 * rows / rows.abs().amax(1, keepdim=True).clamp(min=1e-12)
