"""k-means on the device that holds the data, in bounded memory, without empty clusters."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

CHUNK = 2**24  # distances held at once: 64 MiB


def kmeans(
    x: Tensor, k: int, iterations: int, init: Literal["k-means++", "random"] = "k-means++"
) -> tuple[Tensor, Tensor]:
    """Cluster the rows of `x` `[N, D]` (N >= k) by Lloyd's algorithm.

    Draws come from torch's global generator. k-means++ (Arthur & Vassilvitskii 2007) passes over
    the data once per centre; "random" takes k rows, as faiss does.

    Returns:
        The centres `[k, D]`, and the nearest one of each row, `[N]` int64.
    """
    random = torch.randperm(len(x), device=x.device)[:k]
    return lloyd(x, spread_centers(x, k) if init == "k-means++" else x[random], iterations)


def lloyd(x: Tensor, centers: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """At most `iterations` rounds of Lloyd's algorithm from `centers` `[k, D]`.

    After each round, empty clusters are refilled by splitting the largest: each takes over the
    member of one of them that lies farthest from its centre. A cluster can only be empty in the
    end if there are not k different rows, or rounds enough to refill it.

    Returns:
        The centres `[k, D]`, and the nearest one of each row, `[N]` int64.
    """
    labels, distance = nearest(x, centers)
    for _ in range(iterations):
        sizes = labels.bincount(minlength=len(centers))
        sums = torch.zeros_like(centers).index_add_(0, labels, x)
        centers = sums / sizes.clamp(min=1)[:, None]
        empty = (sizes == 0).nonzero()[:, 0]
        if len(empty):
            centers[empty] = _split(x, labels, distance, sizes, centers, empty)
        before = labels
        labels, distance = nearest(x, centers)
        if torch.equal(before, labels):
            break
    return centers, labels


def nearest(x: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of `centers` `[k, D]` to each row of `x` `[N, D]`: which, and how far squared.

    Returns:
        `[N]` int64 and `[N]`; of equally near centres the first counts.
    """
    # |x|^2 is the same for all centres, so it is left out of the comparison.
    norms = centers.square().sum(1)
    with torch.autocast(x.device.type, enabled=False):  # rounded distances tell wrong clusters
        parts = [
            torch.addmm(norms, part, centers.T, alpha=-2).min(1)
            for part in x.split(max(1, CHUNK // len(centers)))
        ]
    value = torch.cat([part.values for part in parts])
    return torch.cat([part.indices for part in parts]), (value + x.square().sum(1)).clamp(min=0)


def spread_centers(x: Tensor, k: int) -> Tensor:
    """K rows of `x` `[N, D]` by k-means++: each next one with probability ~ squared distance."""
    chosen = torch.randint(len(x), (1,), device=x.device)
    distance = (x - x[chosen]).square().sum(1)
    for _ in range(k - 1):
        # Where every row is a centre already, any row will do.
        weights = torch.where(distance.max() > 0, distance, torch.ones_like(distance))
        # Drawn by hand, as torch.multinomial takes at most 2^24 rows.
        total = weights.double().cumsum(0)
        draw = torch.rand(1, dtype=torch.float64, device=x.device) * total[-1]
        row = torch.searchsorted(total, draw, right=True).clamp(max=len(x) - 1)
        chosen = torch.cat([chosen, row])
        distance = torch.minimum(distance, (x - x[row]).square().sum(1))
    return x[chosen]


def normalized_mutual_information(one: Tensor, other: Tensor) -> Tensor:
    """How alike two clusterings `[N]` int64 are: 0 (independent) to 1 (the same but for names).

    Mutual information over the mean of both entropies, as scikit-learn has it; 1 if both have one
    cluster only.
    """
    pairs = one * (int(other.max()) + 1) + other
    entropies = torch.stack([_entropy(one), _entropy(other)])
    shared = entropies.sum() - _entropy(pairs)
    mean = entropies.mean()
    score: Tensor = torch.where(mean > 0, (shared / mean).clamp(0, 1), 1.0).float()
    return score


def _entropy(labels: Tensor) -> Tensor:
    _, counts = labels.unique(return_counts=True)
    share = counts.double() / len(labels)
    entropy: Tensor = (share * -share.log()).sum()
    return entropy


def _split(
    x: Tensor, labels: Tensor, distance: Tensor, sizes: Tensor, centers: Tensor, empty: Tensor
) -> Tensor:
    """A centre for each of the `empty` clusters: the farthest member of one of the largest."""
    farthest = distance.new_zeros(len(sizes)).scatter_reduce_(0, labels, distance, "amax")
    donors = sizes.topk(len(empty)).indices
    at_edge = (distance == farthest[labels]).nonzero()[:, 0]
    row = torch.zeros_like(sizes).scatter_(0, labels[at_edge], at_edge)
    # Fewer clusters with two members than empty ones: the rest wait for another round.
    return torch.where((sizes[donors] > 1)[:, None], x[row[donors]], centers[empty])
