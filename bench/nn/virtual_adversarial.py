"""Virtual adversarial training: the small change of a picture that changes a prediction most.

Miyato 2017 (arXiv:1704.03976); its official code is takerum/vat_tf.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.api import Classifier
from bench.nn.semi_supervised import divergence, in_full
from bench.nn.still_statistics import still_statistics

SIDE = 32  # px, where a perturbation has the length that the settings name


def virtual_adversarial(
    network: Classifier,
    x: Tensor,
    rng: torch.Generator,
    *,
    epsilon: float,
    xi: float,
) -> Tensor:
    """Mean KL divergence, nats, of what is said of `x` and of its worst neighbour.

    Nothing flows back through what is said of `x`, nor through the choice of the neighbour; batch
    norms remember no pass. They normalise `x` alone in each: were what is said of `x` of a larger
    batch, it would differ from what is said of `x` a step of 0 away, and the search would follow
    that difference and not the curvature.

    Args:
        network: the classifier.
        x: `[N, 3, s, s]`.
        rng: where the search starts is drawn from it.
        epsilon: distance of the neighbour: an L2 norm at 32 px, which grows with the side, so that
            pixels change as much at any size.
        xi: distance at which the search looks, in the same measure.
    """
    scale = x.shape[-1] / SIDE
    with still_statistics(network):
        with torch.no_grad():
            target = in_full(network.classify(x)).softmax(1)
        start = torch.randn(x.shape, generator=rng, device=x.device).to(x.dtype)
        direction = adversarial_direction(network, x, target, start, xi * scale)
        moved = in_full(network.classify(x + epsilon * scale * direction))
    return divergence(target, moved).mean()


def adversarial_direction(
    network: Classifier, x: Tensor, target: Tensor, start: Tensor, xi: float
) -> Tensor:
    """Unit vectors `[N, 3, s, s]`: `start` after one power iteration with the KL's Hessian.

    The gradient of KL(target || p(x + d)) at the short vector d = xi * start / |start| is the
    Hessian times d, as value and gradient vanish at d = 0. No parameter's gradient is touched.

    Args:
        network: gives logits.
        x: `[N, 3, s, s]`.
        target: `[N, C]`, the network's probabilities for `x`.
        start: where to start from, of `x`'s shape.
        xi: the length of d.
    """
    with torch.enable_grad():
        d = (xi * unit(start)).requires_grad_()
        distance = divergence(target, in_full(network.classify(x.detach() + d))).sum()
        (gradient,) = torch.autograd.grad(distance, d)
    return unit(gradient)


def unit(d: Tensor) -> Tensor:
    """Each `[N, ...]` of `d` at an L2 norm of 1; zeros stay zeros."""
    # By the largest value first: squares of a gradient's small values would underflow.
    largest = d.abs().flatten(1).amax(1).clamp_min(torch.finfo(d.dtype).tiny)
    scaled: Tensor = d / largest.view(-1, *[1] * (d.ndim - 1))
    return nn.functional.normalize(scaled.flatten(1), dim=1).view_as(d)


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy, nats, of the softmax of `logits` `[N, C]` (Grandvalet 2005)."""
    logs = logits.log_softmax(1)
    return -(logs.exp() * logs).sum(1).mean()
