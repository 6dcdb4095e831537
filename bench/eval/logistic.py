"""L2-regularised logistic regression by L-BFGS, at many strengths on the same features.

The objective is scikit-learn's, the sum of the losses + strength / 2 * |weight|^2 with a free bias,
so `strength` is 1 / C (1 / 2C for a softmax over two classes, where scikit-learn has one column).
It is convex and has one optimum, so that only time depends on how it is found: features are
centred and turned to their principal axes, and L-BFGS starts from the curvature that the loss has
along each axis at weight zero. What scikit-learn needs 10,000 steps for on badly scaled features
takes tens, so that nothing has to be standardised to converge.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, one_hot, softplus

from bench.eval.scoring import edges, top_k_accuracy

# Quarters of a decade from 1e-6 to 1e5 (Kornblith et al., arXiv:1805.08974).
LAMBDAS = tuple(10 ** (quarter / 4 - 6) for quarter in range(45))
TOLERANCE = 1e-5  # probabilities are then within 1e-3 of the optimum's (measured on digits)
SEARCHING = 1e-4  # of fits that are only compared: accuracies on val are the same (measured)
MAX_STEPS = 1000  # digits need at most a few hundred; scikit-learn's default of 100 is too few
MEMORY = 20  # past steps that tell the curvature
ROWS = 8192  # turned to the axes in float64 at once


@dataclass(frozen=True)
class LogisticModel:
    """A fitted classifier.

    Attributes:
        weight: `[D, C]` float32.
        bias: `[C]` float32.
        strength: of the regularisation.
        converged: whether the optimum was reached.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    converged: bool

    def logits(self, x: Tensor) -> Tensor:
        """Logits `[N, C]` of features `[N, D]`."""
        return x @ self.weight + self.bias


def fit_path(
    x: Tensor,
    labels: Tensor,
    strengths: Iterable[float],
    *,
    classes: int,
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
) -> Iterator[LogisticModel]:
    """Fit at each strength, starting from the solution and the curvature of the one before.

    Args:
        x: `[N, D]` float32 features as they are.
        labels: `[N]` int64, the class of each row (softmax); or `[N, C]` int8, each class present
            (1), absent (0) or to be left out (-1): C sigmoids, each class against the rest.
        strengths: of the regularisation, positive; strong ones first are fastest.
        classes: The number of classes C.
        tolerance: Length of the gradient, by the initial curvature, at which a fit has converged:
            its square is about twice what the mean loss is still above the optimum.
        max_steps: Steps of L-BFGS after which a fit is left as it is, not converged.
    """
    problem = _Problem(x, labels, classes)
    point = torch.zeros(classes, problem.z.shape[1], dtype=torch.float64, device=x.device)
    pairs: Pairs = deque(maxlen=MEMORY)
    before = 0.0
    for strength in strengths:
        # A step's change of gradient is known at the new strength too: the penalty is quadratic.
        pairs = deque(
            ((s, y + problem.penalized * s * (strength - before) / len(x)) for s, y in pairs),
            maxlen=MEMORY,
        )
        before = strength
        point, converged = _minimize(problem, strength, point, pairs, tolerance, max_steps)
        weight = problem.axes @ point[:, :-1].T
        bias = point[:, -1] - problem.mean @ weight
        yield LogisticModel(weight.float(), bias.float(), strength, converged)


def search(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    strengths: Sequence[float],
    *,
    classes: int,
) -> tuple[float, dict[str, Any]]:
    """The strength at which a fit on `train` is best on `val`, and what to say of the choice.

    The best has the highest top-1 accuracy; of equals, the lowest negative log-likelihood.

    Args:
        train: features `[N, D]` and labels `[N]`.
        val: features and labels likewise.
        strengths: to choose from, positive.
        classes: The number of classes.
    """
    best, rank, unfinished = 0.0, (-1.0, 0.0), []
    path = sorted(strengths, reverse=True)
    for model in fit_path(*train, path, classes=classes, tolerance=SEARCHING):
        logits, labels = model.logits(val[0]).double(), val[1]
        found = (top_k_accuracy(logits, labels, 1), -cross_entropy(logits, labels).item())
        if found > rank:
            best, rank = model.strength, found
        if not model.converged:
            unfinished.append(model.strength)
    return best, {
        "lambda": best,
        "val_top1": rank[0],
        "val_nll": -rank[1],
        "selected_on": "val",
        "edge": edges({"lambda": best}, **{"lambda": strengths}),
        "grid": {"lambda": list(strengths)},
        "not_converged": unfinished,
    }


Pairs = deque[tuple[Tensor, Tensor]]  # steps, and the changes of gradient along them


class _Problem:
    """The features along their axes, the targets, and the mean loss of weights for them.

    Attributes:
        z: `[N, K + 1]` float32 features, centred and turned, and a column of ones for the bias.
        target, known: `[C, N]` what is to be predicted, and whether it counts. Classes come first:
            a softmax over a few adjacent classes is 30 times slower on a CPU, products twice.
        axes: `[D, K]` float64, the principal axes, without those in which all is rounding.
        mean: `[D]` float64, of the features.
        curvature: `[K + 1]` the loss's along each axis at weight zero.
        penalized: `[K + 1]` 1, and 0 for the bias.
    """

    def __init__(self, x: Tensor, labels: Tensor, classes: int) -> None:
        self.softmax = labels.ndim == 1
        if self.softmax:
            self.target, self.known = one_hot(labels, classes).to(x).T.contiguous(), x.new_ones(1)
        else:
            present = labels.T.contiguous()
            self.target, self.known = (present == 1).to(x), (present >= 0).to(x)
        self.mean = x.double().mean(0)
        centred = [part.double() - self.mean for part in x.split(ROWS)]
        covariance = torch.stack([part.T @ part for part in centred]).sum(0) / len(x)
        variance, axes = torch.linalg.eigh(covariance)
        # What float32 features cannot tell from rounding; all of it where they are constant.
        least = torch.finfo(x.dtype).eps ** 2 * (self.mean.square().sum() + variance.sum())
        self.axes, variance = axes[:, variance > least], variance[variance > least]
        turned = torch.cat([(part @ self.axes).to(x) for part in centred])
        self.z = torch.cat([turned, x.new_ones(len(x), 1)], dim=1)
        # The second derivative of cross-entropy by a logit, where all classes are as likely.
        second = 1 / classes if self.softmax else 0.25
        self.curvature = second * torch.cat([variance, variance.new_ones(1)])
        self.penalized = torch.ones_like(self.curvature)
        self.penalized[-1] = 0

    def evaluate(self, point: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        """The objective by N at weights `point` `[C, K + 1]`, and its gradient, float64."""
        logits = point.to(self.z) @ self.z.T
        if self.softmax:
            log_p = log_softmax(logits, 0)
            losses, error = -log_p * self.target, log_p.exp() - self.target
        else:
            losses = (softplus(logits) - logits * self.target) * self.known
            error = (logits.sigmoid() - self.target) * self.known
        n = len(self.z)
        ridge = strength / n * self.penalized
        value = losses.sum(0).double().sum() / n + (ridge * point.square()).sum() / 2
        return value, (error @ self.z).double() / n + ridge * point


def _minimize(
    problem: _Problem,
    strength: float,
    point: Tensor,
    pairs: Pairs,
    tolerance: float,
    max_steps: int,
) -> tuple[Tensor, bool]:
    """L-BFGS from `point`; `pairs` are extended. Returns the solution, and whether it is one.

    As the objective is convex, a step that ends where the slope still falls has lowered it, so
    that differences of values, which rounding spoils near the optimum, are hardly needed.
    """
    start = 1 / (problem.curvature + strength / len(problem.z) * problem.penalized)
    value, gradient = problem.evaluate(point, strength)
    rounding = torch.finfo(problem.z.dtype).eps
    for _ in range(max_steps):
        if (gradient.square() * start).sum().sqrt().item() <= tolerance:
            return point, True
        direction = -_inverse_hessian(gradient, pairs, start)
        slope, length = (direction * gradient).sum().item(), 1.0
        while True:
            step = length * direction
            new_value, new_gradient = problem.evaluate(point + step, strength)
            new_slope = (direction * new_gradient).sum().item()
            if new_slope <= 0 or (new_value <= value * (1 + rounding)).item():
                break
            length *= max(0.1, slope / (slope - new_slope))  # where the slope would be 0
        change = new_gradient - gradient
        if (step * change).sum().item() > 0:  # but for rounding, always
            pairs.append((step, change))
        point, value, gradient = point + step, new_value, new_gradient
    return point, False


def _inverse_hessian(gradient: Tensor, pairs: Pairs, start: Tensor) -> Tensor:
    """The product with L-BFGS's inverse Hessian (Nocedal and Wright 2006, algorithm 7.4)."""
    out, shares = gradient, []
    for step, change in reversed(pairs):
        share = (step * out).sum() / (step * change).sum()
        out = out - share * change
        shares.append(share)
    out = out * start
    if pairs:
        step, change = pairs[-1]
        out = out * ((step * change).sum() / (change.square() * start).sum())
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        out = out + (share - (change * out).sum() / (step * change).sum()) * step
    return out
