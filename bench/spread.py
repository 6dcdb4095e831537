"""How far a representation spreads: the two numbers that warn of a collapse, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

COLLAPSED_STD = 0.05  # of the 1/sqrt(D) that features spread evenly over the sphere have
COLLAPSED_INFORMATION = 0.01  # share of log K that an assignment tells of a picture


def unit_std(features: Tensor) -> Tensor:
    """Mean standard deviation over the dimensions of L2-normalised `features` `[N, D]`, a scalar.

    Features that are spread evenly over the sphere have 1/sqrt(D).
    """
    return torch.nn.functional.normalize(features, dim=1).std(0, correction=0).mean()


def feature_std(features: Tensor) -> float:
    """`unit_std` in float64, as a number."""
    return float(unit_std(features.double()))


def effective_rank(features: Tensor) -> float:
    """RankMe (arXiv:2210.02885) of L2-normalised `features` `[N, D]`, in [1, min(N, D)].

    The exponential of the entropy of the normalised singular values. NaN where a feature is.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    if not unit.isfinite().all():
        return float("nan")
    share = torch.linalg.svdvals(unit)
    share = share / share.sum().clamp_min(1e-12)
    return float(torch.special.entr(share).sum().exp())


def of_assignments(teacher: Tensor, student: Tensor) -> dict[str, Tensor]:
    """What `Step.watch_targets` logs of a teacher's soft assignments, as scalars.

    Args:
        teacher: `[N, K]` probabilities.
        student: `[N, K]` log-probabilities of the student for the same pictures.
    """
    entropy = torch.special.entr(teacher).sum(1).mean()
    told = torch.special.entr(teacher.mean(0)).sum() - entropy
    return {
        "teacher_entropy": entropy,
        "teacher_kl": -(teacher * student).sum(1).mean() - entropy,
        "target_information": told / math.log(max(2, min(teacher.shape))),
    }


def collapse(scaled_std: float, logged: Mapping[str, float]) -> str | None:
    """One line that says why a run counts as collapsed, or None where it does not.

    Args:
        scaled_std: `feature_std` times sqrt(D) of the final representation.
        logged: The last epoch's logged values: `embedding_std` and `target_information` count.
    """
    if scaled_std < COLLAPSED_STD:
        return "every picture has nearly the same representation"
    if logged.get("embedding_std", 1.0) < COLLAPSED_STD:
        return "every picture has nearly the same embedding: the loss was solved by a constant"
    if logged.get("target_information", 1.0) < COLLAPSED_INFORMATION:
        return "the teacher's assignments are the same for every picture"
    return None
