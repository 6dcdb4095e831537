"""How long the two protocols take on features in memory, beside scikit-learn on the same ones.

2,000 + 500 rows of 128 numbers, 10 classes. scikit-learn fits one LogisticRegression per C of a
grid of three; ours trains 6 learning rates x 3 weight decays x 3 seeds.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn.functional import normalize

from bench.eval.linear_heads import Standardizer, fit_heads
from bench.kernels import knn_topk
from protocols.knn import vote

CLASSES, DIM, TRAIN, TEST = 10, 128, 2000, 500


@pytest.fixture(scope="module")
def blobs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Overlapping Gaussian classes: (train, labels, test, labels)."""
    rng = torch.Generator().manual_seed(0)
    centres = 0.25 * torch.randn(CLASSES, DIM, generator=rng)
    labels = torch.randint(CLASSES, (TRAIN + TEST,), generator=rng)
    x = centres[labels] + torch.randn(TRAIN + TEST, DIM, generator=rng)
    return x[:TRAIN], labels[:TRAIN], x[TRAIN:], labels[TRAIN:]


@pytest.mark.benchmark(group="linear probe")
def test_linear_ours(
    benchmark: BenchmarkFixture, blobs: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    x, y, x_test, y_test = blobs
    grid = [
        (lr, decay) for lr in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0) for decay in (1e-2, 1e-3, 1e-4)
    ]

    def fit() -> Tensor:
        scale = Standardizer(x)
        heads = fit_heads(
            scale(x), y, grid, classes=CLASSES, seeds=3, steps=500, batch_size=256, seed=0
        )
        return heads.hits(scale(x_test), y_test)

    hits = benchmark.pedantic(fit, rounds=2, warmup_rounds=1)
    assert hits.max() / TEST > 0.7


@pytest.mark.benchmark(group="linear probe")
def test_linear_scikit_learn(
    benchmark: BenchmarkFixture, blobs: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    x, y, x_test, y_test = (a.numpy() for a in blobs)

    def fit() -> float:
        models = [LogisticRegression(C=c, max_iter=1000).fit(x, y) for c in (1e-3, 1e-2, 1e-1)]
        return max(model.score(x_test, y_test) for model in models)

    assert benchmark.pedantic(fit, rounds=2, warmup_rounds=1) > 0.7


@pytest.mark.benchmark(group="k nearest neighbours")
def test_knn_ours(
    benchmark: BenchmarkFixture, blobs: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    x, y, x_test, y_test = blobs

    def fit() -> Tensor:
        near, index = knn_topk(normalize(x_test), normalize(x), 20)
        return vote(near, y[index], 0.07, CLASSES).argmax(1)

    predicted = benchmark.pedantic(fit, rounds=5, warmup_rounds=1)
    assert (predicted == y_test).float().mean() > 0.5


@pytest.mark.benchmark(group="k nearest neighbours")
def test_knn_scikit_learn(
    benchmark: BenchmarkFixture, blobs: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    x, y, x_test, y_test = (a.numpy() for a in blobs)

    def weights(distance: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.exp((1 - distance) / 0.07)

    def fit() -> float:
        return (
            KNeighborsClassifier(20, metric="cosine", weights=weights)
            .fit(x, y)
            .score(x_test, y_test)
        )

    assert benchmark.pedantic(fit, rounds=5, warmup_rounds=1) > 0.5
