"""Temperature scaling (Guo et al., arXiv:1706.04599): one number that makes confidences honest."""

from __future__ import annotations

import math

from torch import Tensor

LOWEST, HIGHEST = 0.01, 100.0  # temperatures; beyond, predictions are one-hot or uniform
HALVINGS = 60  # of the range of log T: float64 knows no more


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T that minimises the negative log-likelihood of softmax(logits / T), in [0.01, 100].

    The loss is convex in 1 / T, so that T is found by bisection on the sign of its slope. T is at
    the range's low end where every row is classified rightly with a margin, and 1 where T changes
    nothing, as every row's logits are equal.

    Args:
        logits: `[N, C]`.
        labels: `[N]` int64.
    """
    logits = logits.double()
    logits = logits - logits.amax(1, keepdim=True)
    own = logits.gather(1, labels[:, None])[:, 0]
    if not logits.any():
        return 1.0

    def slope(temperature: float) -> float:
        """Of the mean loss, by 1 / T: the expected logit less the label's own."""
        expected = ((logits / temperature).softmax(1) * logits).sum(1)
        return (expected - own).mean().item()

    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # A rising loss asks for a smaller 1 / T.
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return math.exp((low + high) / 2)
