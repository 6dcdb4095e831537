"""How long every probe takes on cached features of 12,000 pictures x 512, beside scikit-learn.

Made-up features of 12 overlapping classes: 9,000 for training, 1,000 for choices, 2,000 for test.
Each peer makes its choice on the same val, is fitted again on train and val, and has to reach the
same accuracy; `ratio` is its time by ours. The grids are ours, but that of `linear` is of C alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeData, FakeEncoder
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from bench.api import Protocol, Scores
from protocols.calibration import Calibration
from protocols.fewshot import FewShot
from protocols.knn import Knn
from protocols.label_fraction import LabelFraction
from protocols.linear import Linear
from protocols.logreg import LogReg

CLASSES, DIM = 12, 512
TRAIN, VAL, TEST = 9_000, 1_000, 2_000
Parts = tuple[tuple[Tensor, Tensor], ...]
Model = Callable[[Any, Any], Any]  # fits scikit-learn's model to features and labels


@pytest.fixture(scope="module")
def parts() -> Parts:
    """Features and labels of train, val and test."""
    rng = torch.Generator().manual_seed(0)
    centres = 0.13 * torch.randn(CLASSES, DIM, generator=rng)
    total = TRAIN + VAL + TEST
    labels = torch.arange(total) % CLASSES
    x = centres[labels] + torch.randn(total, DIM, generator=rng)
    sizes = (TRAIN, VAL, TEST)
    return tuple(zip(x.split(sizes), labels.split(sizes), strict=True))


def ours(protocol: Protocol, parts: Parts, **settings: Any) -> Scores:
    data = FakeData(*(({"output": x}, y) for x, y in parts), classes=CLASSES)
    return protocol.run(FakeEncoder(), data, type(protocol).Config(**settings), seed=0)


def best_of(models: list[Model], parts: Parts, by_loss: bool = True) -> float:
    """Test accuracy of the model that is best on val, fitted again on train and val.

    Of equals it is the likeliest, as ours, or the first.
    """
    (x, y), (x_val, y_val), (x_test, y_test) = ((a.numpy(), b.numpy()) for a, b in parts)

    def rank(fit: Model) -> tuple[float, float]:
        model = fit(x, y)
        loss = log_loss(y_val, model.predict_proba(x_val)) if by_loss else 0.0
        return model.score(x_val, y_val), -loss

    best = max(models, key=rank)
    fitted = best(np.concatenate([x, x_val]), np.concatenate([y, y_val]))
    return float(100 * fitted.score(x_test, y_test))


def scikit_learns_logreg(parts: Parts) -> float:
    """Each fit starts from the one before, as in ssl-transfer's linear.py."""
    path = LogisticRegression(max_iter=1000, warm_start=True)

    def fit(c: float, x: Any, y: Any) -> LogisticRegression:
        return path.set_params(C=c).fit(x, y)

    strengths = sorted(LogReg.Config().lambdas, reverse=True)
    return best_of([partial(fit, 1 / strength) for strength in strengths], parts)


def scikit_learns_linear(parts: Parts) -> float:
    """On standardised features. `linear` also regularises by its learning rate, so C goes lower."""
    scale = StandardScaler().fit(parts[0][0].numpy())
    scaled = tuple((torch.from_numpy(scale.transform(x.numpy())), y) for x, y in parts)

    def fit(c: float, x: Any, y: Any) -> LogisticRegression:
        return LogisticRegression(C=c, max_iter=1000).fit(x, y)

    return best_of([partial(fit, c) for c in (1e-4, 1e-3, 1e-2, 1e-1)], scaled)


def scikit_learns_knn(parts: Parts) -> float:
    def fit(k: int, temperature: float, x: Any, y: Any) -> KNeighborsClassifier:
        model = KNeighborsClassifier(
            k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / temperature)
        )
        return model.fit(x, y)

    cfg = Knn.Config()
    return best_of(
        [partial(fit, *pair) for pair in product(cfg.ks, cfg.temperatures)], parts, False
    )


@pytest.mark.parametrize(
    ("protocol", "peer"),
    [
        (Linear(), scikit_learns_linear),
        (Knn(), scikit_learns_knn),
        (LogReg(), scikit_learns_logreg),
    ],
    ids=["linear", "knn", "logreg"],
)
@pytest.mark.benchmark(group="probe suite")
def test_beside_scikit_learn(
    benchmark: BenchmarkFixture,
    parts: Parts,
    protocol: Protocol,
    peer: Callable[[Parts], float],
) -> None:
    scores = benchmark.pedantic(ours, (protocol, parts), rounds=1, warmup_rounds=1)
    started = time.perf_counter()
    theirs = peer(parts)
    seconds = time.perf_counter() - started
    top1 = scores.metrics["top1"]
    benchmark.extra_info |= {
        "top1": top1,
        "top1_scikit_learn": theirs,
        "seconds_scikit_learn": seconds,
        "ratio": seconds / benchmark.stats.stats.mean,
    }
    assert top1 == pytest.approx(theirs, abs=0.5)


@pytest.mark.parametrize(
    ("protocol", "settings", "metric"),
    [
        (FewShot(), {}, "top1_5shot"),
        (Calibration(), {}, "top1"),
        (LabelFraction(), {"labels": 0.01, "mode": "linear"}, "top1"),
        (LabelFraction(), {"labels": 0.1, "mode": "linear"}, "top1"),
    ],
    ids=["fewshot", "calibration", "label_fraction 1 %", "label_fraction 10 %"],
)
@pytest.mark.benchmark(group="probe suite")
def test_alone(
    benchmark: BenchmarkFixture,
    parts: Parts,
    protocol: Protocol,
    settings: dict[str, Any],
    metric: str,
) -> None:
    scores = benchmark.pedantic(ours, (protocol, parts), settings, rounds=1, warmup_rounds=1)
    benchmark.extra_info[metric] = scores.metrics[metric]
    assert scores.metrics[metric] > 3 * 100 / CLASSES
