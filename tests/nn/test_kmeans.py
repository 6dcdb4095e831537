"""k-means against scikit-learn's, and what happens to empty clusters."""

from __future__ import annotations

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from bench import rng
from bench.nn import kmeans as module
from bench.nn.kmeans import kmeans, lloyd, nearest, normalized_mutual_information, spread_centers


def blobs(count: int, each: int, spread: float) -> Tensor:
    draw = rng.generator("blobs", count)
    centers = 10 * torch.randn(count, 5, generator=draw, dtype=torch.float64)
    noise = torch.randn(count, each, 5, generator=draw, dtype=torch.float64)
    return (centers[:, None] + spread * noise).flatten(0, 1)


@pytest.mark.parametrize("spread", [1.0, 8.0])
def test_rounds_are_those_of_scikit_learn(spread: float) -> None:
    x = blobs(6, 40, spread)
    start = x[torch.randperm(len(x), generator=rng.generator("start"))[:6]]
    centers, labels = lloyd(x, start, 300)
    theirs = KMeans(6, init=start.numpy(), n_init=1, algorithm="lloyd", tol=0, max_iter=300)
    theirs.fit(x.numpy())
    assert labels.tolist() == theirs.labels_.tolist()
    torch.testing.assert_close(centers, torch.from_numpy(theirs.cluster_centers_))


@pytest.mark.parametrize("chunk", [1, 40, 2**24])
def test_the_nearest_centre_is_found_in_chunks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    x, centers = blobs(3, 7, 5.0), blobs(4, 1, 5.0)
    labels, distance = nearest(x, centers)
    for row, label, squared in zip(x, labels.tolist(), distance.tolist(), strict=True):
        each = [sum((a - b) ** 2 for a, b in zip(row, c, strict=True)).item() for c in centers]
        assert label == each.index(min(each))
        assert squared == pytest.approx(min(each))


def test_spread_centres_take_one_of_each_far_blob() -> None:
    x = blobs(8, 20, 1e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        chosen = spread_centers(x, 8)
    assert sorted(nearest(chosen, x[::20])[0].tolist()) == list(range(8))


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_far_blobs_are_told_apart(init: str) -> None:
    x = blobs(4, 30, 0.01)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        centers, labels = kmeans(x, 4, 50, init)  # type: ignore[arg-type]
    truth = torch.arange(4).repeat_interleave(30)
    assert normalized_mutual_information(labels, truth).item() == pytest.approx(1)
    assert centers.shape == (4, 5)


def test_empty_clusters_split_the_largest() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [7.0], [100.0]])
    away = torch.tensor([[1.0], [100.0], [1e4]])
    _, labels = lloyd(x, away, 1)
    # The third centre moves to the member of {0, 1, 2, 7} that is farthest from its centre.
    assert labels.tolist() == [0, 0, 0, 2, 1]
    many = torch.cat([torch.zeros(1, 5), torch.full((19, 5), 1e4)])
    _, labels = lloyd(blobs(5, 30, 3.0).float(), many, 20)
    assert labels.bincount(minlength=20).min() > 0


def test_fewer_different_rows_than_clusters_leave_some_empty() -> None:
    x = torch.tensor([[0.0], [1.0]]).repeat(10, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        centers, labels = kmeans(x, 5, 10)
    assert centers.isfinite().all()
    assert (labels.bincount(minlength=5) > 0).sum() == 2


def test_mutual_information_is_scikit_learns() -> None:
    draw = rng.generator("nmi")
    one = torch.randint(7, (300,), generator=draw)
    other = torch.where(torch.rand(300, generator=draw) < 0.5, one, one.flip(0)) % 5
    for a, b in ((one, other), (other, one), (one, (one + 3) % 7), (one, one * 0)):
        expected = normalized_mutual_info_score(a.numpy(), b.numpy())
        assert normalized_mutual_information(a, b).item() == pytest.approx(expected, abs=1e-6)
    assert normalized_mutual_information(one * 0, one * 0) == 1
