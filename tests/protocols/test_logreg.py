"""The logistic-regression protocol, against scikit-learn, torchmetrics and known scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import FakeData, FakeEncoder, digits, made
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, recall_score
from torch import Tensor
from torch.nn.functional import one_hot

from bench.api import Scores
from bench.data.dataset import MemoryImages
from bench.errors import BenchError
from bench.eval.average_precision import multilabel_average_precision
from bench.eval.logistic import LAMBDAS
from protocols.logreg import LogReg, mean_per_class

QUICK = LogReg.Config(lambdas=(1e1, 1e3, 1e5))


def run(data: FakeData, cfg: LogReg.Config = QUICK) -> Scores:
    return LogReg().run(FakeEncoder(), data, cfg, seed=0)


def test_the_grid_is_the_papers() -> None:
    np.testing.assert_allclose(LogReg.Config().lambdas, np.logspace(-6, 5, 45))
    assert LogReg.Config().lambdas == LAMBDAS


def test_agrees_with_scikit_learn_fitted_again_on_train_and_val() -> None:
    data, (x, y, x_val, y_val, x_test, y_test) = digits()
    scores = run(data)
    models = {
        s: LogisticRegression(C=1 / s, max_iter=20_000).fit(x.astype(float), y)
        for s in QUICK.lambdas
    }
    best = max(models, key=lambda s: models[s].score(x_val, y_val))
    assert scores.selected["lambda"] == best
    assert scores.selected["val_top1"] == pytest.approx(100 * models[best].score(x_val, y_val))
    model = LogisticRegression(C=1 / best, max_iter=20_000)
    model.fit(np.concatenate([x, x_val]).astype(float), np.concatenate([y, y_val]))
    assert scores.metrics["top1"] == pytest.approx(100 * model.score(x_test, y_test), abs=0.5)
    assert scores.predictions is not None
    balanced = balanced_accuracy_score(y_test, scores.predictions.numpy())
    assert scores.metrics["mean_per_class"] == pytest.approx(100 * balanced)
    assert scores.selected["not_converged"] == []
    assert scores.selected["refit_converged"]
    assert "mAP_11" not in scores.metrics


def test_the_mean_per_class_is_over_the_classes_there_are() -> None:
    labels = torch.tensor([0] * 8 + [3] * 2)
    predicted = torch.tensor([0] * 6 + [1, 3] + [3, 0])
    assert mean_per_class(predicted, labels) == pytest.approx(100 * (6 / 8 + 1 / 2) / 2)
    expected = recall_score(labels.numpy(), predicted.numpy(), labels=[0, 3], average="macro")
    assert mean_per_class(predicted, labels) == pytest.approx(100 * expected)


def test_constant_features_score_chance_and_leaked_labels_all() -> None:
    for kind, expected in (("constant", 10.0), ("leak", 100.0)):
        metrics = run(made((300, 100, 200), 10, kind), LogReg.Config()).metrics
        assert metrics["top1"] == metrics["mean_per_class"] == pytest.approx(expected)
        assert all(np.isfinite(value) for value in metrics.values())


def several(data: FakeData, present: list[Tensor]) -> FakeData:
    """`data` whose pictures show several classes."""
    assert data._test is not None
    for split, found in zip((data.train, data.val, data._test), present, strict=True):
        split.split = replace(split.split, multilabel=found)
        split.info = replace(split.info, has=split.info.has | {"multilabel"})
    data.info = data.train.info
    return data


def present(labels: np.ndarray, *, difficult: int = 0) -> Tensor:  # type: ignore[type-arg]
    """A digit, and whether it is even (class 0) or odd (class 1); the first ones are difficult."""
    y = torch.from_numpy(labels)
    found = one_hot(y, 10).to(torch.int8)
    found[torch.arange(len(y)), y % 2] = 1
    found[:difficult, :5] = -1
    return found


def test_several_labels_have_a_lambda_and_an_11_point_map_of_their_own() -> None:
    data, (x, y, x_val, y_val, x_test, y_test) = digits()
    targets = [present(y, difficult=30), present(y_val), present(y_test, difficult=30)]
    scores = run(several(data, targets))
    plain = run(digits()[0])
    assert {k: v for k, v in scores.metrics.items() if k != "mAP_11"} == plain.metrics
    chosen = scores.selected["multilabel"]["lambda"]

    def detect(strength: float, *parts: tuple[np.ndarray, Tensor]) -> Tensor:  # type: ignore[type-arg]
        fit_x, fit_y = (np.concatenate(both) for both in zip(*parts[:-1], strict=True))
        columns = []
        for c in range(10):
            known = fit_y[:, c] >= 0
            model = LogisticRegression(C=1 / strength, tol=1e-6, max_iter=20_000)
            model.fit(fit_x[known].astype(float), fit_y[known, c])
            columns.append(model.decision_function(parts[-1][0]))
        return torch.from_numpy(np.stack(columns, 1))

    def mean_ap(scores: Tensor, found: Tensor) -> float:
        return 100 * multilabel_average_precision(scores, found).eleven_point.mean().item()

    train, val, test = zip((x, x_val, x_test), targets, strict=True)
    on_val = {s: mean_ap(detect(s, train, val), val[1]) for s in QUICK.lambdas}
    assert chosen == max(on_val, key=lambda s: on_val[s])
    assert scores.selected["multilabel"]["val_mAP_11"] == pytest.approx(on_val[chosen], abs=0.2)
    expected = mean_ap(detect(chosen, train, val, test), test[1])
    assert scores.metrics["mAP_11"] == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("kind", ["constant", "leak"])
def test_map_of_constant_features_is_the_share_of_positives_and_of_leaks_all(kind: str) -> None:
    data = made((300, 100, 200), 10, kind)
    assert data._test is not None
    splits = (data.train, data.val, data._test)
    scores = run(several(data, [one_hot(s.labels, 10).to(torch.int8) for s in splits]))
    expected = {"constant": 10.0, "leak": 100.0}[kind]
    assert scores.metrics["mAP_11"] == pytest.approx(expected)


def test_several_labels_are_those_of_the_pictures_that_could_be_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, (_, y, _, y_val, _, y_test) = digits()
    whole = run(several(data, [present(y), present(y_val), present(y_test)]))
    data = several(digits()[0], [present(y), present(y_val), present(y_test)])
    found = data.train.split.multilabel
    assert found is not None
    one_more = torch.cat([found[:5], 1 - found[:1], found[5:]])  # the sixth cannot be decoded
    images = MemoryImages(torch.zeros(len(one_more), 3, 1, 1, dtype=torch.uint8))
    split = replace(data.train.split, images=images, multilabel=one_more)
    data.train.split = split
    rest = torch.cat([torch.arange(5), torch.arange(6, len(one_more))])
    monkeypatch.setattr(data.train, "batches", lambda order: iter([(rest, torch.empty(0))]))
    assert run(data).metrics == whole.metrics


def test_test_is_read_once_and_does_not_move_the_choice() -> None:
    data, (x, y, x_val, y_val, x_test, y_test) = digits()
    wrong = np.random.default_rng(0).permutation(y_test)
    parts = ((x, y), (x_val, y_val), (x_test, wrong))
    splits = [({"output": torch.from_numpy(a)}, torch.from_numpy(b)) for a, b in parts]
    a, b = run(data), run(FakeData(*splits, classes=10))
    assert [name for name, _, _ in data.asked] == ["train", "val", "read_test", "test"]
    assert a.selected == b.selected
    assert b.metrics["top1"] < 30 < a.metrics["top1"]


def test_unlearnable_labels_are_refused() -> None:
    good, two, three = {"output": torch.ones(20, 3)}, torch.arange(20) % 2, torch.arange(20) % 3
    for val, test in ((three, two), (two, three)):
        with pytest.raises(BenchError, match="class 'class2', of which the train split has no"):
            run(FakeData((good, two), (good, val), (good, test), classes=3))
    with pytest.raises(BenchError, match="train split of fake has no labels"):
        run(FakeData((good, None), (good, two), (good, two), classes=3))
