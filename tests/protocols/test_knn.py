"""The nearest-neighbour protocol, against scikit-learn and a float64 loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fakes import FakeData, FakeEncoder, digits, made
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import normalize

from bench.errors import BenchError
from bench.kernels import knn_topk
from protocols.knn import Knn, vote


def sklearn_knn(x: object, y: object, k: int, temperature: float) -> KNeighborsClassifier:
    def weights(distance: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.exp((1 - distance) / temperature)

    classifier = KNeighborsClassifier(k, metric="cosine", weights=weights, algorithm="brute")
    return classifier.fit(x, y)


def test_agrees_with_scikit_learn_on_digits() -> None:
    data, (x_train, y_train, x_val, y_val, x_test, y_test) = digits()
    scores = Knn().run(FakeEncoder(), data, Knn.Config(), seed=0)

    # The choice, made again by scikit-learn: k before T, the first of equals.
    cfg, best, chosen = Knn.Config(), -1.0, (0, 0.0)
    x_train, x_val, x_test = (a.astype(np.float64) for a in (x_train, x_val, x_test))
    for k in cfg.ks:
        for temperature in cfg.temperatures:
            share = sklearn_knn(x_train, y_train, k, temperature).score(x_val, y_val)
            if share > best:
                best, chosen = share, (k, temperature)
    assert (scores.selected["k"], scores.selected["temperature"]) == chosen
    assert scores.selected["val_top1"] == pytest.approx(100 * best)

    x, y = np.concatenate([x_train, x_val]), np.concatenate([y_train, y_val])
    expected = sklearn_knn(x, y, *chosen)
    assert scores.predictions is not None
    assert np.array_equal(scores.predictions.numpy(), expected.predict(x_test))
    assert scores.metrics["top1"] == pytest.approx(100 * expected.score(x_test, y_test))
    default = sklearn_knn(x, y, 20, 0.07).score(x_test, y_test)
    assert scores.metrics["top1_default"] == pytest.approx(100 * default)


def test_votes_are_a_float64_loops() -> None:
    rng = torch.Generator().manual_seed(0)
    queries, bank = (normalize(torch.randn(n, 6, generator=rng)) for n in (9, 40))
    labels = torch.randint(4, (40,), generator=rng)
    near, index = knn_topk(queries, bank, 5)
    votes = vote(near, labels[index], 0.07, 4)
    for q, row in zip(queries.double().tolist(), votes, strict=True):
        similar = [sum(a * b for a, b in zip(q, r, strict=True)) for r in bank.double().tolist()]
        first = sorted(range(40), key=lambda i: -similar[i])[:5]
        weight = [0.0] * 4
        for i in first:
            weight[int(labels[i])] += math.exp(similar[i] / 0.07)
        expected = torch.tensor(weight) / sum(weight)
        assert torch.allclose(row, expected, atol=1e-5)


def test_constant_features_score_chance_and_leaked_labels_all() -> None:
    for kind, expected in (("constant", 10.0), ("leak", 100.0)):
        scores = Knn().run(FakeEncoder(), made((300, 100, 200), 10, kind), Knn.Config(), seed=0)
        assert scores.metrics["top1"] == pytest.approx(expected)
        assert all(math.isfinite(value) for value in scores.metrics.values())


def test_zero_features_score_chance() -> None:
    data = made((300, 100, 200), 10, "constant")
    for split in (data.train, data.val, data._test):
        assert split is not None
        split._features["output"].zero_()  # type: ignore[union-attr]
    assert Knn().run(FakeEncoder(), data, Knn.Config(), seed=0).metrics["top1"] == 10.0


def test_k_beyond_the_bank_is_left_out() -> None:
    data = made((30, 20, 20), 10, "leak")
    scores = Knn().run(FakeEncoder(), data, Knn.Config(), seed=0)
    assert scores.selected["grid"]["k"] == [10, 20]
    with pytest.raises(BenchError, match="smallest k is 10 but fake has 6 train"):
        Knn().run(FakeEncoder(), made((6, 6, 6), 3, "leak"), Knn.Config(), seed=0)


def test_test_is_read_once_after_the_choice() -> None:
    data, _ = digits()
    Knn().run(FakeEncoder(), data, Knn.Config(), seed=0)
    assert [name for name, _, _ in data.asked] == ["train", "val", "read_test", "test"]


def test_what_test_holds_does_not_move_the_choice() -> None:
    data, (x_train, y_train, x_val, y_val, x_test, _) = digits()
    shuffled = np.random.default_rng(0).permutation(x_test)
    split = [
        ({"output": torch.from_numpy(x)}, torch.from_numpy(y))
        for x, y in ((x_train, y_train), (x_val, y_val), (shuffled, np.zeros(len(x_test), int)))
    ]
    other = FakeData(*split, classes=10)
    a, b = (Knn().run(FakeEncoder(), d, Knn.Config(), seed=0) for d in (data, other))
    assert a.selected == b.selected
    assert a.metrics["top1"] != b.metrics["top1"]


def test_unlearnable_labels_are_refused() -> None:
    good = {"output": torch.ones(20, 3)}
    two, three = torch.arange(20) % 2, torch.arange(20) % 3
    cases = {
        r"val split of fake has class 'class2'": FakeData(
            (good, two), (good, three), (good, two), 3
        ),
        r"test split of fake has class 'class2'": FakeData(
            (good, two), (good, two), (good, three), 3
        ),
        r"train split of fake has no labels": FakeData((good, None), (good, two), (good, two), 3),
    }
    for message, data in cases.items():
        with pytest.raises(BenchError, match=message):
            Knn().run(FakeEncoder(), data, Knn.Config(), seed=0)
