"""What warns of a collapse, against numpy, and on representations whose collapse is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import rng, spread
from bench.api import Step


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng.generator("spread"), dtype=torch.double)


def step() -> Step:
    return Step("main", 0, 1, 0, 1, rng.generator("unused"))


def test_std_and_rank_are_numpys() -> None:
    x = draw(40, 7)
    unit = x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)
    assert spread.feature_std(x) == pytest.approx(unit.std(0).mean(), rel=1e-12)
    share = np.linalg.svd(unit, compute_uv=False)
    share = share / share.sum()
    assert spread.effective_rank(x) == pytest.approx(math.exp(-(share * np.log(share)).sum()))


@pytest.mark.parametrize("rank", [1, 3])
def test_the_effective_rank_of_as_many_equal_directions(rank: int) -> None:
    x = torch.eye(rank, 8, dtype=torch.double).repeat(5, 1)
    assert spread.effective_rank(x) == pytest.approx(rank)


def test_features_that_are_not_finite_have_no_rank() -> None:
    assert math.isnan(spread.effective_rank(torch.tensor([[1.0, float("nan")]])))


def test_embeddings_spread_evenly_have_std_one_and_a_point_has_none() -> None:
    watched = step()
    watched.watch(draw(4000, 64))
    assert watched.logged["embedding_std"].item() == pytest.approx(1, abs=0.01)
    watched.watch(draw(1, 64).expand(100, 64))
    assert watched.logged["embedding_std"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("teacher", "entropy", "information"),
    [
        (torch.full((8, 4), 0.25), math.log(4), 0.0),  # uniform
        (torch.eye(4)[[1] * 8], 0.0, 0.0),  # always the same
        (torch.eye(4).repeat(2, 1), 0.0, 1.0),  # each its own, evenly
    ],
)
def test_targets_tell_both_collapses(teacher: Tensor, entropy: float, information: float) -> None:
    watched = step()
    watched.watch_targets(teacher, draw(8, 4).log_softmax(1))
    assert watched.logged["teacher_entropy"].item() == pytest.approx(entropy, abs=1e-6)
    assert watched.logged["target_information"].item() == pytest.approx(information, abs=1e-6)


def test_the_divergence_is_torchs() -> None:
    teacher, student = draw(8, 4).softmax(1), draw(8, 4).add(draw(8, 4) ** 2).log_softmax(1)
    watched = step()
    watched.watch_targets(teacher, student)
    expected = F.kl_div(student, teacher, reduction="batchmean").item()
    assert watched.logged["teacher_kl"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("std", "logged", "says"),
    [
        (0.9, {}, None),
        (0.9, {"embedding_std": 0.9, "target_information": 0.3}, None),
        (0.01, {}, "representation"),
        (0.9, {"embedding_std": 0.01}, "embedding"),
        (0.9, {"target_information": 0.001}, "assignments"),
    ],
)
def test_the_verdict(std: float, logged: dict[str, float], says: str | None) -> None:
    verdict = spread.collapse(std, logged)
    assert verdict is None if says is None else verdict is not None and says in verdict
