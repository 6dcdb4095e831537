"""The cross-entropy of colours in plain torch, and what it shares with the kernel."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

NEAREST = 10  # bins that share a colour: the official code; the paper's text says 5
SIGMA = 5.0  # of the Gaussian that shares it out, in units of CIE Lab
GRAY = 5.0  # official code: a picture whose |a| and |b| stay below teaches nothing


class Bins(Protocol):
    """Points of the ab plane that colours are shared out to."""

    @property
    def centers(self) -> Tensor:
        """`[Q, 2]`, a and b."""

    @property
    def around(self) -> Tensor:
        """`[Q, K']`, in rising order: among them are the ten nearest of each colour of a bin."""

    def nearest(self, ab: Tensor) -> Tensor:
        """The bin `[B, ...]` of each colour of `ab` `[B, 2, ...]`."""


def color_ce(logits: Tensor, ab: Tensor, bins: Bins, weights: Tensor | None) -> Tensor:
    """`bench.kernels.color_ce`, with the ten labels of each pixel in memory."""
    index, share = soft_labels(ab, bins)
    logits = logits.to(share.dtype)
    # Shares sum to 1, so that only the neighbours' logits are needed beside the normaliser.
    entropy = logits.logsumexp(1) - (share * logits.gather(1, index)).sum(1)
    if weights is not None:
        entropy = entropy * weights[index[:, 0]]
    return (entropy * has_color(ab)[:, None, None]).mean()


def soft_labels(ab: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    """Share each colour out to its ten nearest bins by a Gaussian of the distance.

    Args:
        ab: colours of sRGB, `[B, 2, ...]`.
        bins: to which.

    Returns:
        The bins `[B, 10, ...]`, nearest first, and their shares `[B, 10, ...]`, sum 1.
    """
    around = bins.around[bins.nearest(ab)]  # [B, ..., K']
    squared = (bins.centers[around] - ab.movedim(1, -1).unsqueeze(-2)).square().sum(-1)
    # A stable sort, and not top-k: of bins as near, as a grey pixel has them, the first is taken.
    distance, order = squared.sort(stable=True, dim=-1)
    distance, order = distance[..., :NEAREST], order[..., :NEAREST]
    share = (-distance / (2 * SIGMA**2)).softmax(-1)
    return around.gather(-1, order).movedim(-1, 1), share.movedim(-1, 1)


def has_color(ab: Tensor) -> Tensor:
    """Whether any pixel of each picture `[B, 2, ...]` is not about grey, `[B]`."""
    return ab.abs().flatten(1).amax(1) > GRAY
