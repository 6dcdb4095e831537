"""Maps of the plane, against scikit-learn's own measures of them."""

from __future__ import annotations

import sys
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeData, FakeEncoder, digits, made
from matplotlib import image
from sklearn import manifold
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from bench.errors import BenchError
from protocols.tsne import Tsne, plane, trustworthiness, vote_of_others

QUICK = Tsne.Config(pictures=150, steps=300)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("k", [1, 5, 10])
def test_trustworthiness_is_scikit_learns(k: int) -> None:
    x = draw(80, 12)
    for place in (x[:, :2], x[:, :2] + 0.3 * draw(80, 2, seed=1), draw(80, 2, seed=2)):
        expected = 100 * manifold.trustworthiness(x.numpy(), place.numpy(), n_neighbors=k)
        assert trustworthiness(x, place, k) == pytest.approx(expected, abs=1e-9)


def test_a_map_of_nothing_is_trusted_by_half() -> None:
    """With every picture the same, scikit-learn's ranks are the order of the rows; ours are not."""
    flat = torch.full((200, 7), 0.3).double()
    assert trustworthiness(flat, draw(200, 2), 10) == pytest.approx(50, abs=2)
    assert trustworthiness(draw(200, 7), draw(200, 2, seed=1), 10) == pytest.approx(50, abs=5)


def test_the_vote_is_scikit_learns_but_for_oneself() -> None:
    place, labels = draw(90, 2), torch.arange(90) % 3
    place[:, 0] += labels
    for k in (1, 10):
        expected = cross_val_score(
            KNeighborsClassifier(k), place.numpy(), labels.numpy(), cv=LeaveOneOut()
        )
        assert vote_of_others(place, labels, k) == pytest.approx(100 * expected.mean())


def test_digits_keep_their_neighbours_and_classes() -> None:
    data, _ = digits()
    scores = Tsne().run(FakeEncoder(), data, Tsne.Config(pictures=400, steps=500), seed=0)
    assert scores.metrics["trustworthiness"] > 95
    assert scores.metrics["top1_2d"] > 90
    again = Tsne().run(FakeEncoder(), digits()[0], Tsne.Config(pictures=400, steps=500), seed=1)
    assert again.metrics == scores.metrics and again.figure == scores.figure


def test_constant_features_are_at_the_floor_and_leaked_labels_keep_their_class() -> None:
    constant = Tsne().run(FakeEncoder(), made((30, 10, 150), 5, "constant"), QUICK, seed=0)
    assert constant.metrics["trustworthiness"] == pytest.approx(50, abs=5)
    # Of five classes: the order of the pictures tells nothing, though all distances are equal.
    assert 8 < constant.metrics["top1_2d"] < 32
    leak = Tsne().run(FakeEncoder(), made((30, 10, 150), 5, "leak"), QUICK, seed=0)
    assert leak.metrics["top1_2d"] == 100
    assert leak.metrics["trustworthiness"] > 90


def test_a_plane_is_mapped_to_itself_and_a_line_stays_one() -> None:
    labels = torch.arange(150) % 5
    for x in (draw(150, 2), torch.linspace(0, 1, 150)[:, None].double()):
        rows = {"output": x.float()}
        data = FakeData(*((rows, labels) for _ in range(3)), classes=5)
        scores = Tsne().run(FakeEncoder(), data, QUICK, seed=0)
        assert scores.metrics["trustworthiness"] > 95


def test_the_first_layer_stands_beside_the_output() -> None:
    labels = torch.arange(120) % 4
    leak = torch.nn.functional.one_hot(labels, 4).float()
    rows = {"conv1": draw(120, 6).float(), "conv2": leak, "output": leak}
    data = FakeData(*((rows, labels) for _ in range(3)), classes=4)
    scores = Tsne().run(FakeEncoder(("conv1", "conv2")), data, QUICK, seed=0)
    assert list(scores.per_layer) == ["conv1", "output"]
    assert scores.per_layer["output"] == scores.metrics
    assert scores.figure is not None and len(scores.figure) < 150_000
    pixels = image.imread(BytesIO(scores.figure))
    assert pixels.shape[1] > 900 and np.ptp(pixels[..., :3]) > 0.5


def test_umap_is_given_its_settings_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class FakeUmap:
        def __init__(self, **settings: Any) -> None:
            asked.update(settings)

        def fit_transform(self, x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            asked["shape"] = x.shape
            return x[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FakeUmap))  # type: ignore[arg-type]
    x = draw(40, 60)
    place = plane(x, Tsne.Config(method="umap", min_dist=0.3))
    assert place.shape == (40, 2)
    assert asked == {
        "n_neighbors": 15,
        "min_dist": 0.3,
        "random_state": 0,
        "n_jobs": 1,
        "shape": (40, 50),
    }


def test_what_cannot_be_drawn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(BenchError, match="UMAP is not installed; pip install umap-learn, or use"):
        plane(draw(40, 5), Tsne.Config(method="umap"))
    with pytest.raises(BenchError, match="takes 91 pictures and the test split of fake has 50"):
        Tsne().run(FakeEncoder(), made((30, 10, 50), 5, "leak"), QUICK, seed=0)
