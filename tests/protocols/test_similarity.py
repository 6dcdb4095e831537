"""Dissimilarity matrices, rank correlation and CKA, against scipy and the papers' formulas."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from pictured import data
from scipy.spatial.distance import pdist
from scipy.stats import rankdata, spearmanr
from torch import Tensor

from bench.errors import BenchError
from bench.eval.sampling import balanced, kept, of_same_pictures, pictures
from bench.eval.similarity import (
    category_rdm,
    cosine,
    gram,
    linear_cka,
    mantel,
    ranks,
    rdm,
    spearman,
    u_centred,
    upper,
)
from bench.features import Evaluation, FeatureStore
from bench.progress import Reporter


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_dissimilarity_matrix_is_scipys() -> None:
    x = draw(30, 7) * draw(30, 1, seed=1) + 5
    matrix = rdm(x)
    assert np.allclose(upper(matrix).numpy(), pdist(x.double().numpy(), "correlation"), atol=1e-10)
    assert torch.equal(matrix, matrix.T) and not matrix.diagonal().any()


def test_rows_without_variance_and_equal_rows() -> None:
    x = torch.cat([torch.full((1, 9), 0.3), draw(1, 9).expand(3, 9)])
    matrix = rdm(x)
    assert torch.equal(matrix[0, 1:], torch.ones(3, dtype=torch.float64))  # not nan, as scipy's
    assert torch.equal(matrix[1:, 1:], torch.zeros(3, 3, dtype=torch.float64))
    # One number per picture: no row has any variance.
    assert torch.equal(upper(rdm(draw(5, 1))), torch.ones(10, dtype=torch.float64))


@pytest.mark.parametrize("values", [1, 2, 5, 10_000])
def test_ranks_and_spearman_are_scipys(values: int) -> None:
    rng = torch.Generator().manual_seed(values)
    one, other = (torch.randint(values, (200,), generator=rng).double() for _ in range(2))
    assert np.array_equal(ranks(one).numpy(), rankdata(one.numpy()))
    if values == 1:
        assert spearman(one, other) == 0.0  # scipy warns and gives nan
    else:
        expected = spearmanr(one.numpy(), other.numpy()).statistic
        assert spearman(one, other) == pytest.approx(expected, abs=1e-12)


def test_the_permutation_test_nears_the_exact_one() -> None:
    one, other = rdm(draw(5, 4)), rdm(draw(5, 4) + draw(5, 4, seed=3))
    exact = [
        spearmanr(upper(one).numpy(), upper(other[list(p)][:, list(p)]).numpy()).statistic
        for p in permutations(range(5))
    ]
    found, p = mantel(one, other, 4000, "a test")
    assert found == pytest.approx(exact[0], abs=1e-12)
    share = np.mean([value >= exact[0] - 1e-9 for value in exact])
    assert 0.005 < share < 0.9
    assert p == pytest.approx(share, abs=0.03)
    assert mantel(one, other, 4000, "a test")[1] == p


def test_the_permutation_test_of_equals_and_of_nothing() -> None:
    labels = torch.arange(40) % 4
    model = category_rdm(labels)
    assert mantel(model, model, 99, 0) == (pytest.approx(1.0), 0.01)
    assert mantel(torch.ones(40, 40), model, 99, 0) == (0.0, 1.0)


def hsic_unbiased(k: Tensor, l_: Tensor) -> float:
    """Song et al. 2012, equation 5, literally."""
    n, one = len(k), torch.ones(len(k), 1, dtype=torch.float64)
    k, l_ = (m - torch.diag(m.diagonal()) for m in (k, l_))
    total = torch.trace(k @ l_)
    total = total + (one.T @ k @ one) * (one.T @ l_ @ one) / ((n - 1) * (n - 2))
    total = total - 2 / (n - 2) * one.T @ k @ l_ @ one
    return float(total) / (n * (n - 3))


@pytest.mark.parametrize("n", [4, 5, 40])
def test_unbiased_cka_is_songs_formula(n: int) -> None:
    x, y = draw(n, 6).double() + 3, draw(n, 9, seed=1).double().exp()
    y[:, 0] += x[:, 0]
    k, l_ = x @ x.T, y @ y.T  # not centred: the estimate needs no centring
    inner = float(u_centred(k) @ u_centred(l_))
    assert 2 * inner / (n * (n - 3)) == pytest.approx(hsic_unbiased(k, l_), rel=1e-9)
    expected = hsic_unbiased(k, l_) / (hsic_unbiased(k, k) * hsic_unbiased(l_, l_)) ** 0.5
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_biased_cka_is_kornbliths_formula() -> None:
    x, y = draw(30, 6).double() + 3, draw(30, 9, seed=1).double()
    y[:, :6] += x
    xc, yc = x - x.mean(0), y - y.mean(0)
    below = torch.linalg.norm(xc.T @ xc) * torch.linalg.norm(yc.T @ yc)
    expected = float(torch.linalg.norm(yc.T @ xc) ** 2 / below)
    assert linear_cka(x, y, unbiased=False) == pytest.approx(expected, rel=1e-9)


def test_cka_sees_through_rotation_and_scale_but_not_bias() -> None:
    x = draw(50, 8).double()
    turn = torch.linalg.qr(draw(8, 8, seed=2).double()).Q
    assert linear_cka(x, 7 * x @ turn - 2) == pytest.approx(1.0)
    wide, other = draw(50, 2000), draw(50, 2000, seed=5)
    assert linear_cka(wide, other, unbiased=False) > 0.9  # unrelated, but wide
    assert abs(linear_cka(wide, other)) < 0.1


def test_what_does_not_vary_is_like_nothing() -> None:
    x, flat = draw(20, 5), torch.full((20, 5), 0.3) + 1e-9 * draw(20, 5)
    for unbiased in (True, False):
        assert linear_cka(x, flat, unbiased) == 0.0
    assert not gram(flat).any()
    assert cosine(torch.zeros(3), torch.ones(3)) == 0.0


def test_a_balanced_sample() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 50)[torch.randperm(103)]
    chosen = balanced(labels, 30, "a")
    assert labels[chosen].bincount().tolist() in ([13, 3, 14], [14, 3, 13])
    assert labels[chosen].equal(labels[chosen].sort().values) and len(chosen.unique()) == 30
    assert balanced(labels, 30, "a").equal(chosen) and not balanced(labels, 30, "b").equal(chosen)
    assert balanced(labels, 2, "a").shape == (2,)
    assert balanced(labels, 500, "a").sort().values.equal(torch.arange(103))


def test_rows_are_traced_to_pictures_where_some_are_broken() -> None:
    dataset = data(torch.zeros(5), torch.zeros(5), torch.arange(20) % 2, gaps=True)
    store = FeatureStore(None, torch.nn.Identity(), "", torch.device("cpu"), Reporter(quiet=True))  # type: ignore[arg-type]
    test = Evaluation(dataset, store).read_test()
    good = torch.tensor([i for i in range(20) if i % 7 != 3])
    assert kept(test, len(good)).equal(good)
    assert kept(test, 20).equal(torch.arange(20))
    images = dataset.test.images
    shown = pictures(test, torch.tensor([5, 2]))
    assert shown.mul(255).round().byte().equal(images.pixels[[5, 2]])  # type: ignore[attr-defined]


def test_encoders_of_other_pictures_are_not_compared() -> None:
    one = {"positions": np.arange(3), "x": np.ones(3, np.float16)}
    assert of_same_pictures("x", one, one)[1].dtype == torch.float64
    with pytest.raises(BenchError, match="different pictures"):
        of_same_pictures("x", one, one | {"positions": np.arange(1, 4)})
