"""Logistic regression by L-BFGS, against scikit-learn's and the optimum's own conditions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import digits
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from torch import Tensor
from torch.nn.functional import one_hot

from bench.eval.logistic import TOLERANCE, LogisticModel, fit_path, search


def fitted(
    x: Tensor, y: Tensor, strength: float, classes: int = 10, tolerance: float = TOLERANCE
) -> LogisticModel:
    (model,) = fit_path(x, y, [strength], classes=classes, tolerance=tolerance)
    return model


def scikit_learn(x: Tensor, y: Tensor, strength: float) -> LogisticRegression:
    model = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=20_000)
    return model.fit(x.double().numpy(), y.numpy())


def train_and_test() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, (x, y, _, _, x_test, y_test) = digits()
    return tuple(torch.from_numpy(a) for a in (x, y, x_test, y_test))


@pytest.mark.parametrize(("strength", "tolerance"), [(1e4, TOLERANCE), (1e2, TOLERANCE), (1, 1e-6)])
def test_agrees_with_scikit_learn_on_digits_as_they_are(strength: float, tolerance: float) -> None:
    x, y, x_test, y_test = train_and_test()
    expected = scikit_learn(x, y, strength)
    model = fitted(x, y, strength, tolerance=tolerance)
    assert model.converged
    logits = model.logits(x_test)
    np.testing.assert_allclose(
        logits.softmax(1).numpy(), expected.predict_proba(x_test.double().numpy()), atol=1e-3
    )
    accuracy = 100 * (logits.argmax(1) == y_test).double().mean().item()
    assert accuracy == pytest.approx(100 * expected.score(x_test, y_test), abs=0.5)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_badly_scaled_features_converge_all_the_same(shift: float) -> None:
    """Standard deviations from 1e-2 to 1e2 along skew axes, 1000 away from zero."""
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(4, (400,), generator=rng)
    mixed = torch.randn(20, 20, generator=rng) * torch.logspace(2, -2, 20)[:, None]
    noise = torch.randn(400, 20, generator=rng)
    x = (one_hot(y, 20) + noise) @ mixed + shift
    model = fitted(x, y, 1.0, 4)
    assert model.converged
    assert_optimal(model, x.double(), y, atol=2e-3)


def assert_optimal(model: LogisticModel, x: Tensor, y: Tensor, atol: float) -> None:
    """The gradient of scikit-learn's objective is zero, beside that of any one class's rows."""
    weight = model.weight.double().requires_grad_(True)
    bias = model.bias.double().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(x @ weight + bias, y, reduction="sum")
    (loss + model.strength / 2 * weight.square().sum()).backward()
    scale = x.square().sum(0).sqrt()[:, None] * len(x) ** 0.5
    assert (weight.grad / scale).abs().max() < atol
    assert bias.grad.abs().max() / len(x) < atol


def test_a_path_ends_where_separate_fits_do() -> None:
    x, y, x_test, _ = train_and_test()
    strengths = [1e4, 1e2, 1e1]
    for model in fit_path(x, y, strengths, classes=10):
        alone = fitted(x, y, model.strength)
        assert model.converged and alone.converged
        difference = model.logits(x_test).softmax(1) - alone.logits(x_test).softmax(1)
        assert difference.abs().max() < 2e-3


def test_one_against_the_rest_agrees_with_scikit_learn() -> None:
    x, y, x_test, _ = train_and_test()
    model = fitted(x, one_hot(y, 10).to(torch.int8), 10.0)
    expected = OneVsRestClassifier(LogisticRegression(C=0.1, tol=1e-8, max_iter=20_000))
    expected.fit(x.double().numpy(), y.numpy())
    np.testing.assert_allclose(
        model.logits(x_test).numpy(), expected.decision_function(x_test.numpy()), atol=0.05
    )


def test_what_is_left_out_of_a_class_does_not_enter_it() -> None:
    x, y, x_test, _ = train_and_test()
    present = one_hot(y, 10).to(torch.int8)
    present[:100, 3] = -1
    model = fitted(x, present, 10.0)
    kept = fitted(x[100:], present[100:], 10.0)
    whole = fitted(x, one_hot(y, 10).to(torch.int8), 10.0)
    scores = [m.logits(x_test) for m in (model, kept, whole)]
    assert (scores[0][:, 3] - scores[1][:, 3]).abs().max() < 0.05
    assert (scores[0][:, 4] - scores[2][:, 4]).abs().max() < 0.05
    assert (scores[0][:, 3] - scores[2][:, 3]).abs().max() > 0.2


def test_fewer_rows_than_dimensions_and_doubled_columns() -> None:
    x, y, x_test, _ = train_and_test()
    few = torch.cat([x, x], dim=1)[:60]
    model = fitted(few, y[:60], 10.0)
    expected = scikit_learn(few, y[:60], 10.0)
    assert model.converged
    x_test = torch.cat([x_test, x_test], dim=1)
    np.testing.assert_allclose(
        model.logits(x_test).softmax(1).numpy(),
        expected.predict_proba(x_test.double().numpy()),
        atol=1e-3,
    )


def test_constant_features_give_the_shares_of_the_classes() -> None:
    y = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    model = fitted(torch.full((100, 7), 0.3), y, 1e-3, 3)
    assert model.converged
    share = model.logits(torch.full((1, 7), 0.3)).softmax(1)[0]
    torch.testing.assert_close(share, torch.tensor([0.5, 0.3, 0.2]), atol=1e-4, rtol=0)


def test_a_class_without_rows_is_not_predicted() -> None:
    x, y, x_test, _ = train_and_test()
    few = y < 8
    model = fitted(x[few], y[few], 1.0)
    assert model.logits(x_test).argmax(1).max() == 7


def test_too_few_steps_are_told() -> None:
    x, y, _, _ = train_and_test()
    (model,) = fit_path(x, y, [1e-3], classes=10, max_steps=3)
    assert not model.converged


def test_the_search_takes_the_likelier_of_equals_and_names_the_edge() -> None:
    """A leaked label is read at any strength; the weakest is the surest."""
    y = torch.arange(200) % 4
    x = one_hot(y, 4).float()
    best, told = search((x, y), (x, y), [1e-3, 1.0, 1e3], classes=4)
    assert best == told["lambda"] == 1e-3
    assert told["val_top1"] == 100.0
    assert told["edge"] == ["lambda"]
    assert told["not_converged"] == []


def test_the_search_is_scikit_learns() -> None:
    _, (x, y, x_val, y_val, _, _) = digits()
    strengths = [1e5, 1e3, 1e1]
    pairs = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in ((x, y), (x_val, y_val))]
    _, told = search(*pairs, strengths, classes=10)
    models = {s: scikit_learn(*pairs[0], s) for s in strengths}
    scores = {s: model.score(x_val, y_val) for s, model in models.items()}
    assert told["val_top1"] == pytest.approx(100 * max(scores.values()), abs=0.3)
    assert scores[told["lambda"]] == max(scores.values())
