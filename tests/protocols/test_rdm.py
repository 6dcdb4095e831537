"""The dissimilarity matrix as a protocol, against scipy and scikit-learn."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from fakes import FakeData, FakeEncoder, digits, made
from matplotlib import image
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from bench.errors import BenchError
from protocols.rdm import Rdm, category_auc, percentiles

QUICK = Rdm.Config(pictures=60, permutations=99)


def test_agrees_with_scipy_on_digits() -> None:
    data, (*_, x_test, y_test) = digits()
    scores = Rdm().run(FakeEncoder(), data, QUICK, seed=0)
    places = scores.arrays["positions"].numpy()
    assert np.array_equal(np.bincount(y_test[places]), np.full(10, 6))
    expected = pdist(x_test[places].astype(np.float64), "correlation")
    across = pdist(y_test[places][:, None], "hamming") > 0
    assert scores.metrics["category_spearman"] == pytest.approx(
        spearmanr(expected, across).statistic, abs=1e-9
    )
    assert scores.metrics["category_auc"] == pytest.approx(100 * roc_auc_score(across, expected))
    assert scores.metrics["p"] == 0.01
    kept = scores.arrays["rdm"]
    assert kept.dtype == torch.float16
    assert np.allclose(kept.numpy(), expected, atol=1e-3)


def test_constant_features_are_at_the_floor_and_leaked_labels_at_the_top() -> None:
    for kind, rho, auc, p in (("constant", 0.0, 50.0, 1.0), ("leak", 1.0, 100.0, 0.01)):
        scores = Rdm().run(FakeEncoder(), made((30, 10, 100), 5, kind), QUICK, seed=0)
        assert scores.metrics["category_spearman"] == pytest.approx(rho)
        assert scores.metrics["category_auc"] == pytest.approx(auc)
        assert scores.metrics["p"] == p
        assert scores.figure is not None


def test_without_ties_the_ceiling_is_that_of_the_docstring() -> None:
    dissimilarity = torch.arange(28_680).double()
    across = (dissimilarity >= 12 * 190).double()
    share = 12 * 190 / 28_680
    ceiling = spearmanr(dissimilarity, across).statistic
    assert ceiling == pytest.approx((3 * share * (1 - share)) ** 0.5, abs=1e-3)
    assert round(float(ceiling), 2) == 0.47
    assert category_auc(dissimilarity, across) == 100


def test_features_that_ignore_the_class_are_not_significant() -> None:
    ps = []
    for seed in range(4):
        rng = torch.Generator().manual_seed(seed)
        rows = {"output": torch.randn(60, 5, generator=rng)}
        data = FakeData(*((rows, torch.arange(60) % 6) for _ in range(3)), classes=6)
        ps.append(Rdm().run(FakeEncoder(), data, QUICK, seed=0).metrics["p"])
    assert min(ps) > 0.01 and 0.1 < np.mean(ps) < 0.9


def two_layers() -> FakeData:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 4
    leak = torch.nn.functional.one_hot(labels, 4).float()
    rows = {"map": torch.randn(80, 6, generator=rng), "output": leak + torch.rand(80, 4)}
    return FakeData(*((rows, labels) for _ in range(3)), classes=4)


def test_encoders_are_compared_by_what_is_kept() -> None:
    data, (*_, x_test, _) = digits()
    noise = 4 * torch.randn(x_test.shape, generator=torch.Generator().manual_seed(0))
    other = digits()[0]
    assert data._test is not None and other._test is not None
    other._test._features = {"output": torch.from_numpy(x_test) + noise}
    one, two = (
        Rdm().run(FakeEncoder(), some, QUICK, seed=seed).arrays
        for seed, some in enumerate((data, other))
    )
    places = one["positions"].numpy()
    a, b = (pdist(x[places], "correlation") for x in (x_test, x_test + noise.numpy()))
    stored = [{name: array.numpy() for name, array in arrays.items()} for arrays in (one, two)]
    assert Rdm.compare(*stored) == pytest.approx(spearmanr(a, b).statistic, abs=2e-3)
    assert Rdm.compare(one, one) == pytest.approx(1.0)
    with pytest.raises(BenchError, match="different pictures"):
        Rdm.compare(one, two | {"positions": two["positions"] + 1})


def test_every_layer_is_measured_and_two_are_drawn() -> None:
    scores = Rdm().run(FakeEncoder(("map",)), two_layers(), QUICK, seed=0)
    assert scores.per_layer["output"] == scores.metrics
    assert scores.per_layer["map"]["category_auc"] < 60 < scores.metrics["category_auc"]
    again = Rdm().run(FakeEncoder(("map",)), two_layers(), QUICK, seed=1)
    assert again.per_layer["map"] == scores.per_layer["map"]
    assert scores.figure is not None and len(scores.figure) < 150_000
    pixels = image.imread(BytesIO(scores.figure))
    assert pixels.shape[1] > 1000 and np.ptp(pixels[..., :3]) > 0.9


def test_what_is_kept_of_the_default_size_is_small() -> None:
    rng = torch.Generator().manual_seed(0)
    rows, labels = {"output": torch.randn(300, 9, generator=rng)}, torch.arange(300) % 12
    data = FakeData(*((rows, labels) for _ in range(3)), classes=12)
    scores = Rdm().run(FakeEncoder(), data, Rdm.Config(permutations=9), seed=0)
    assert len(scores.arrays["rdm"]) == 240 * 239 / 2
    file = BytesIO()
    np.savez_compressed(file, **{k: v.numpy() for k, v in scores.arrays.items()})
    assert len(file.getvalue()) < 200_000
    assert scores.figure is not None and len(scores.figure) < 150_000


def test_percentiles_are_ranks() -> None:
    x = torch.randint(9, (12, 12), generator=torch.Generator().manual_seed(0))
    matrix: Tensor = (x + x.T).double().fill_diagonal_(0)
    expected = (rankdata(squareform(matrix.numpy())) - 1) / 65 * 100
    assert np.allclose(squareform(percentiles(matrix).numpy()), expected)


def test_what_cannot_be_compared_is_said() -> None:
    one_class = ({"output": torch.ones(9, 2)}, torch.zeros(9).long())
    with pytest.raises(BenchError, match="9 pictures of 1 classes in the test split of fake"):
        Rdm().run(FakeEncoder(), FakeData(one_class, one_class, one_class, 2), QUICK, seed=0)
    none = ({"output": torch.ones(9, 2)}, None)
    with pytest.raises(BenchError, match="test split of fake has no labels"):
        Rdm().run(FakeEncoder(), FakeData(one_class, one_class, none, 2), QUICK, seed=0)
