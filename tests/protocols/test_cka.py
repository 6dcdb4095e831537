"""Linear CKA as a protocol, against the formulas of the papers."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from fakes import FakeData, FakeEncoder, digits, made
from matplotlib import image
from torch import Tensor

from bench.errors import BenchError
from protocols.cka import Cka

QUICK = Cka.Config(pictures=60)


def unbiased(x: np.ndarray, y: np.ndarray) -> float:  # type: ignore[type-arg]
    """HSIC_1 of Song et al. 2012 by its definition: sums over distinct pictures, in float64."""
    k, l_ = (a.astype(np.float64) @ a.astype(np.float64).T for a in (x, y))

    def hsic(k: np.ndarray, l_: np.ndarray) -> float:  # type: ignore[type-arg]
        n = len(k)
        k, l_ = k - np.diag(np.diag(k)), l_ - np.diag(np.diag(l_))
        two = (k * l_).sum()
        three = (k.sum(1) * l_.sum(1)).sum() - two
        four = k.sum() * l_.sum() - 4 * three - 2 * two
        a, b, c = n * (n - 1), n * (n - 1) * (n - 2), n * (n - 1) * (n - 2) * (n - 3)
        return float(two / a - 2 * three / b + four / c)

    return hsic(k, l_) / (hsic(k, k) * hsic(l_, l_)) ** 0.5


def test_agrees_with_the_definition_on_digits() -> None:
    data, (*_, x_test, y_test) = digits()
    scores = Cka().run(FakeEncoder(), data, QUICK, seed=0)
    places = scores.arrays["positions"].numpy()
    x, y = x_test[places], np.eye(10)[y_test[places]]
    assert scores.metrics["label_cka"] == pytest.approx(unbiased(x, y), abs=1e-9)
    xc, yc = (a.astype(np.float64) - a.mean(0, dtype=np.float64) for a in (x, y))
    biased = np.linalg.norm(yc.T @ xc) ** 2 / (
        np.linalg.norm(xc.T @ xc) * np.linalg.norm(yc.T @ yc)
    )
    assert scores.metrics["label_cka_biased"] == pytest.approx(biased, abs=1e-9)
    assert 0.2 < scores.metrics["label_cka"] < 0.9


def test_constant_features_score_0_and_leaked_labels_1() -> None:
    for kind, expected in (("constant", 0.0), ("leak", 1.0)):
        scores = Cka().run(FakeEncoder(), made((30, 10, 100), 5, kind), QUICK, seed=0)
        assert scores.metrics["label_cka"] == pytest.approx(expected)
        assert scores.metrics["label_cka_biased"] == pytest.approx(expected)
        assert scores.arrays["gram"].isfinite().all()


def test_wide_features_of_nothing_score_0_unlike_the_biased_estimate() -> None:
    rng = torch.Generator().manual_seed(0)
    rows = {"output": torch.randn(60, 3000, generator=rng)}
    data = FakeData(*((rows, torch.arange(60) % 20) for _ in range(3)), classes=20)
    metrics = Cka().run(FakeEncoder(), data, QUICK, seed=0).metrics
    assert abs(metrics["label_cka"]) < 0.05
    assert metrics["label_cka_biased"] > 0.4


def layers(seed: int) -> FakeData:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(80, 12, generator=torch.Generator().manual_seed(9))
    rows = {"map": x, "output": x + torch.randn(80, 12, generator=rng)}
    return FakeData(*((rows, torch.arange(80) % 4) for _ in range(3)), classes=4)


def output(data: FakeData, places: Tensor) -> np.ndarray:  # type: ignore[type-arg]
    return data.train._features["output"][places.long()].numpy()  # type: ignore[attr-defined, no-any-return]


def test_encoders_are_compared_by_what_is_kept() -> None:
    one, two = (
        Cka().run(FakeEncoder(("map",)), layers(seed), QUICK, seed=seed).arrays for seed in (0, 1)
    )
    expected = unbiased(*(output(layers(s), one["positions"]) for s in (0, 1)))
    stored = [{name: array.numpy() for name, array in arrays.items()} for arrays in (one, two)]
    assert one["gram"].dtype == torch.float16
    assert Cka.compare(*stored) == pytest.approx(expected, abs=1e-3)
    assert 0.2 < expected < 0.9
    assert Cka.compare(one, one) == pytest.approx(1.0)
    with pytest.raises(BenchError, match="different pictures"):
        Cka.compare(one, two | {"positions": two["positions"][:-1]})


def test_huge_and_tiny_features_are_kept_alike() -> None:
    kept = []
    for scale in (1e-12, 1.0, 1e12):
        data = layers(0)
        assert data._test is not None
        for rows in data._test._features.values():
            rows *= scale
        kept.append(Cka().run(FakeEncoder(), data, QUICK, seed=0).arrays["gram"])
        assert kept[-1].isfinite().all()
    assert Cka.compare(*({"gram": g, "positions": torch.zeros(1)} for g in kept[::2])) > 0.9999


def test_every_layer_is_measured_and_drawn() -> None:
    scores = Cka().run(FakeEncoder(("map",)), layers(0), QUICK, seed=0)
    assert scores.per_layer["output"] == scores.metrics
    assert set(scores.per_layer) == {"map", "output"}
    again = Cka().run(FakeEncoder(("map",)), layers(0), QUICK, seed=3)
    assert scores.figure is not None and scores.figure == again.figure
    pixels = image.imread(BytesIO(scores.figure))
    assert pixels.shape[1] > 500 and np.ptp(pixels[..., :3]) > 0.9


def test_what_cannot_be_compared_is_said() -> None:
    rows, labels = {"output": torch.randn(3, 2)}, torch.tensor([0, 1, 1])
    with pytest.raises(BenchError, match=r"3 pictures of 2 classes .* it takes 4"):
        Cka().run(FakeEncoder(), FakeData(*((rows, labels),) * 3, 2), QUICK, seed=0)
