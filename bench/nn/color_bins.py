"""Colour as a class: bins of the ab plane, in units of CIE Lab (arXiv:1603.08511)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.spatial import ConvexHull
from torch import Tensor, nn

from bench.data.color import rgb_to_lab
from bench.kernels.color_ce.reference import NEAREST, soft_labels

STEP = 10  # between neighbouring bins
LEVELS = 17  # samples of each of R, G and B from which the gamut's hull is made
FINE = 0.5  # spacing of the points that tell whether a cell reaches into the hull
ROUNDING = 1e-3  # of distances in float32
REACH = 130  # no colour of sRGB is further out along a or b


@lru_cache(maxsize=1)
def ab_bins() -> Tensor:
    """The bins' centres `[313, 2]`, a then b, in rising order; on the CPU.

    The corners of all 10 x 10 cells that the convex hull of sRGB reaches into: the very 313 points
    of the official `pts_in_hull.npy`, whose making is not published.
    """
    levels = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
    cube = torch.cartesian_prod(levels, levels, levels)
    hull = ConvexHull(rgb_to_lab(cube[:, :, None, None])[:, 1:, 0, 0].numpy())
    axis = np.arange(-REACH, REACH, FINE) + FINE / 2
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    inside = (points @ hull.equations[:, :2].T + hull.equations[:, 2] <= 0).all(1)
    cells = np.floor(points[inside] / STEP)
    corners = [cells + corner for corner in ((0, 0), (0, 1), (1, 0), (1, 1))]
    return torch.from_numpy(np.unique(np.concatenate(corners), axis=0) * STEP).float()


class ColorBins(nn.Module):
    """The bins with what finds a colour's neighbours among them without looking at all 313.

    Every colour of sRGB lies in a cell whose corners are bins, so that rounding finds the nearest
    one; the ten nearest are among the few dozen around that one.
    """

    centers: Tensor  # [Q, 2]
    lattice: Tensor  # [A, B] bin at each point of the 10-grid, from the least a and b on
    around: Tensor  # [Q, K'] the bins around each, K' of them, in rising order

    def __init__(self) -> None:
        super().__init__()
        centers = ab_bins()
        low, high = centers.amin(0), centers.amax(0)
        rows, columns = ((centers - low) / STEP).long().unbind(1)
        shape = ((high - low) / STEP + 1).long().tolist()
        lattice = torch.zeros(shape, dtype=torch.long)
        lattice[rows, columns] = torch.arange(len(centers))
        distance = torch.cdist(centers, centers)
        # A colour is at most half a diagonal from its nearest bin; its ten nearest bins are then
        # at most that bin's tenth distance and a whole diagonal from that bin.
        reach = distance.sort(1).values[:, NEAREST - 1] + STEP * 2**0.5 + ROUNDING
        count = int((distance <= reach[:, None]).sum(1).max())
        around = distance.topk(count, largest=False).indices.sort(1).values
        self.low = tuple(low.tolist())
        for name, value in {"centers": centers, "lattice": lattice, "around": around}.items():
            self.register_buffer(name, value, persistent=False)

    def __len__(self) -> int:
        return len(self.centers)

    def nearest(self, ab: Tensor) -> Tensor:
        """The bin nearest to each colour of `ab` `[B, 2, ...]`, `[B, ...]`; colours of sRGB."""
        row, column = (
            ((x - low) / STEP).round().long().clamp(0, size - 1)
            for x, low, size in zip(ab.unbind(1), self.low, self.lattice.shape, strict=True)
        )
        return self.lattice[row, column]


def bin_shares(ab: Tensor, bins: ColorBins) -> Tensor:
    """How often each bin occurs in `ab` `[B, 2, ...]`, `[Q]`, summing to 1.

    Soft labels smooth the counts: their Gaussian is the one by which the paper smooths them.
    """
    index, share = soft_labels(ab, bins)
    counts = share.new_zeros(len(bins)).index_add(0, index.flatten(), share.flatten())
    return counts / counts.sum()


def class_weights(shares: Tensor, gamma: float, alpha: float) -> Tensor:
    """Weights `[Q]` that make rare colours count: ((1 - gamma) p + gamma / Q)^-alpha, E_p[w] = 1.

    Args:
        shares: p, how often each bin occurs, `[Q]`.
        gamma: share of the uniform distribution mixed in; 1: no rebalancing.
        alpha: power; 0: no rebalancing.
    """
    weights = ((1 - gamma) * shares + gamma / len(shares)) ** -alpha
    return weights / (shares * weights).sum()


def annealed_mean(logits: Tensor, bins: ColorBins, temperature: float) -> Tensor:
    """Colours `[B, 2, h, w]`: the mean of softmax(logits / T) over bins, logits `[B, Q, h, w]`.

    T = 1 is the mean, safe and pale; towards 0 it becomes the mode, vivid and spotty.
    """
    shares = (logits.to(bins.centers.dtype) / temperature).softmax(1)
    return torch.einsum("bqhw,qc->bchw", shares, bins.centers)
