"""Few-shot episodes, against scikit-learn's nearest neighbour and known accuracies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fakes import FakeData, FakeEncoder, digits, made
from sklearn.neighbors import KNeighborsClassifier

from bench.api import Scores
from bench.errors import BenchError
from protocols import fewshot
from protocols.fewshot import FewShot, accuracies, draw_episodes


def run(data: FakeData, seed: int = 0, **settings: int) -> Scores:
    return FewShot().run(FakeEncoder(), data, FewShot.Config(**settings), seed)


@pytest.mark.parametrize("shots", [1, 5, 20])
def test_accuracies_are_scikit_learns_nearest_neighbour(shots: int) -> None:
    _, (x, y, *_) = digits()
    labels = torch.from_numpy(y)
    rng = torch.Generator().manual_seed(0)
    pictures = draw_episodes(labels, 5, shots + 15, 20, rng)
    # Whole numbers would tie; far from zero, differences of squares lose their digits.
    x = x + np.float32(1000) + torch.rand(x.shape, generator=rng).numpy()
    ours = accuracies(torch.from_numpy(x)[pictures], shots)
    for episode, value in zip(pictures, ours, strict=True):
        support, query = episode[:, :shots].flatten(), episode[:, shots:].flatten()
        few, at = x[support].reshape(5, shots, -1).astype(float), y[support].reshape(5, shots)
        model = KNeighborsClassifier(1).fit(few.mean(1), at[:, 0])
        assert value == pytest.approx(model.score(x[query].astype(float), y[query]), abs=1e-12)


def test_episodes_are_of_distinct_pictures_of_their_classes() -> None:
    labels = torch.tensor([0] * 40 + [1] * 7 + [2] * 12 + [4] * 11 + [5] * 300)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    pictures = draw_episodes(labels, 3, 11, 2000, torch.Generator().manual_seed(2))
    assert pictures.shape == (2000, 3, 11)
    assert pictures.flatten(1).sort(1).values.diff(dim=1).min() > 0
    classes = labels[pictures]
    assert (classes == classes[..., :1]).all()
    drawn = classes[..., 0]
    assert (drawn.sort(1).values.diff(dim=1) > 0).all()
    # Class 1 is too small and class 3 empty; each other class is in three quarters of episodes.
    share = drawn.flatten().bincount() / 2000
    torch.testing.assert_close(share, torch.tensor([3, 0, 3, 0, 3, 3]) / 4, atol=0.05, rtol=0)
    # Each picture of a class is drawn as often as another.
    often = pictures.flatten().bincount(minlength=len(labels))[labels == 0]
    assert often.float().mean() == pytest.approx(2000 * 0.75 * 11 / 40, rel=0.05)
    assert often.min() > 0.7 * often.float().mean()


def test_mean_and_interval_over_episodes() -> None:
    data, (*_, x_test, y_test) = digits()
    scores = run(data, episodes=100)
    rng = fewshot.generator(0, "episodes", 5)
    pictures = draw_episodes(torch.from_numpy(y_test), 5, 20, 100, rng)
    each = 100 * accuracies(torch.from_numpy(x_test)[pictures], 5).numpy()
    assert scores.metrics["top1_5shot"] == pytest.approx(each.mean())
    expected = 1.96 * np.std(each, ddof=1) / math.sqrt(100)
    assert scores.metrics["top1_5shot_ci"] == pytest.approx(expected)
    order = [scores.metrics[f"top1_{shots}shot"] for shots in (1, 5, 20)]
    assert 60 < order[0] < order[1] < order[2] < 100


def test_constant_features_score_chance_and_leaked_labels_all() -> None:
    for kind, expected in (("constant", 20.0), ("leak", 100.0)):
        scores = run(made((10, 10, 400), 10, kind), episodes=50)
        for shots in (1, 5, 20):
            assert scores.metrics[f"top1_{shots}shot"] == pytest.approx(expected)
            assert scores.metrics[f"top1_{shots}shot_ci"] == pytest.approx(0)


def test_shuffled_labels_score_chance() -> None:
    data, (x, y, x_val, y_val, x_test, y_test) = digits()
    wrong = np.random.default_rng(0).permutation(y_test)
    parts = ((x, y), (x_val, y_val), (x_test, wrong))
    splits = [({"output": torch.from_numpy(a)}, torch.from_numpy(b)) for a, b in parts]
    top1 = run(FakeData(*splits, classes=10)).metrics["top1_5shot"]
    assert top1 == pytest.approx(20, abs=2)
    assert top1 < run(data).metrics["top1_5shot"] - 50


def test_only_test_is_looked_at_and_the_seed_draws() -> None:
    data, _ = digits()
    first = run(data, episodes=20)
    assert [name for name, _, _ in data.asked] == ["read_test", "test"]
    assert run(digits()[0], episodes=20).metrics == first.metrics
    assert run(digits()[0], seed=1, episodes=20).metrics != first.metrics


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(digits()[0], episodes=20).metrics
    monkeypatch.setattr(fewshot, "CHUNK", 1)
    assert run(digits()[0], episodes=20).metrics == pytest.approx(whole)


def test_too_few_pictures_leave_shots_out_or_are_refused() -> None:
    scores = run(made((10, 10, 300), 10, "leak"), episodes=5)  # 30 a class: 20 + 15 are too many
    assert scores.selected["left_out_shots"] == [20]
    assert "top1_20shot" not in scores.metrics
    assert scores.metrics["top1_5shot"] == 100.0
    with pytest.raises(BenchError, match=r"0 classes of fake have 20 test pictures.* needs 5"):
        run(made((10, 10, 190), 10, "leak"))
    with pytest.raises(BenchError, match=r"4 classes of fake have 20 test pictures.* needs 5"):
        run(made((10, 10, 400), 4, "leak"))


def test_a_test_split_without_labels_is_refused() -> None:
    x = {"output": torch.ones(20, 3)}
    with pytest.raises(BenchError, match="test split of fake has no labels"):
        run(FakeData((x, None), (x, None), (x, None), classes=3))
