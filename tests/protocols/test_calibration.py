"""Calibration and temperature scaling, against torchmetrics, scipy, and known miscalibration."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from fakes import FakeData, FakeEncoder, digits, made
from PIL import Image
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from bench.api import Scores
from bench.errors import BenchError
from bench.eval.reliability import reliability, reliability_diagram
from bench.eval.temperature import HIGHEST, LOWEST, fit_temperature
from protocols.calibration import Calibration, quality, scaled_by_folds

QUICK = Calibration.Config(lambdas=(1e-1, 1e1, 1e3))


def sampled(n: int = 4000, classes: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn from their softmax: the true temperature is 1."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=rng, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=rng)[:, 0]


def run(data: FakeData) -> Scores:
    return Calibration().run(FakeEncoder(), data, QUICK, seed=0)


# ------------------------------------------------------------------------------------- temperature
@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_the_temperature_is_scipys_minimum(factor: float) -> None:
    logits, labels = sampled()
    logits = logits * factor

    def loss(temperature: float) -> float:
        scaled = (logits / temperature).softmax(1).numpy()
        return float(log_loss(labels.numpy(), scaled))

    found = fit_temperature(logits, labels)
    expected = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert found == pytest.approx(expected.x, rel=1e-5)
    assert found == pytest.approx(factor, rel=0.1)


def test_the_temperature_where_there_is_no_minimum() -> None:
    labels = torch.tensor([0, 1, 2])
    right, even = torch.eye(3), torch.full((3, 3), 0.1)
    assert fit_temperature(right, labels) == pytest.approx(LOWEST)
    assert fit_temperature(-right, labels) == pytest.approx(HIGHEST)
    assert fit_temperature(even, labels) == 1.0
    # Of two classes in a row the same margin, right and wrong alike: as unsure as can be.
    coin = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert fit_temperature(coin, torch.tensor([0, 1])) == pytest.approx(HIGHEST)


def test_logits_that_overflow_float32_are_scaled_back() -> None:
    logits, labels = sampled()
    assert fit_temperature(50 * logits, labels) == pytest.approx(50, rel=0.1)
    assert fit_temperature(1e4 * logits, labels) == pytest.approx(HIGHEST)


# ----------------------------------------------------------------------------------------- metrics
def test_quality_is_torchmetrics_and_scikit_learns() -> None:
    logits, labels = sampled(501)
    logits = 3 * logits
    found = quality(logits, labels)
    error = MulticlassCalibrationError(6, n_bins=15, norm="l1")(logits.softmax(1), labels)
    assert found["ece"] / 100 == pytest.approx(error.item(), abs=1e-6)
    truth, probabilities = labels.numpy(), logits.softmax(1).numpy()
    assert found["nll"] == pytest.approx(log_loss(truth, probabilities))
    expected = brier_score_loss(truth, probabilities, scale_by_half=False, labels=range(6))
    assert found["brier"] == pytest.approx(expected)


def test_folds_are_fitted_on_a_fifth_and_judged_on_the_rest() -> None:
    logits, labels = sampled(2000)
    too_sure = scaled_by_folds(4 * logits, labels, seed=0)
    assert too_sure < 4 < quality(4 * logits, labels)["ece"]
    assert too_sure == scaled_by_folds(4 * logits, labels, seed=0)
    assert too_sure != scaled_by_folds(4 * logits, labels, seed=1)
    # One row whose label no temperature can mend sits in one fifth, and is judged in four.
    few, own = torch.tensor([[1.0, 0.0]] * 5, dtype=torch.float64), torch.tensor([0, 0, 0, 0, 1])
    found = scaled_by_folds(few, own, seed=0)
    lowest = torch.tensor([1 / LOWEST, 0.0]).double().softmax(0)[0].item()
    highest = torch.tensor([1 / HIGHEST, 0.0]).double().softmax(0)[0].item()
    assert found == pytest.approx(100 * (4 * abs(0.75 - lowest) + (1 - highest)) / 5)


def test_bins_of_the_diagram_add_up_to_the_error() -> None:
    logits, labels = sampled(700)
    share, confidence, accuracy = reliability((2 * logits).softmax(1), labels)
    assert share.sum() == pytest.approx(1)
    total = np.nansum(share * np.abs(confidence - accuracy))
    assert 100 * total == pytest.approx(quality(2 * logits, labels)["ece"])
    assert np.isnan(accuracy[0])  # six classes cannot all be below 1/15
    assert share[0] == 0


def test_the_diagram_is_a_small_picture_and_the_same_every_time() -> None:
    logits, labels = sampled(700)
    parts = {"as trained": logits.softmax(1), "temperature 2.00": (logits / 2).softmax(1)}
    first = reliability_diagram(parts, labels)
    assert first == reliability_diagram(parts, labels)
    assert len(first) < 60_000
    with Image.open(io.BytesIO(first)) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 300
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    only = reliability_diagram({"as trained": torch.eye(3)}, torch.arange(3))
    assert only != first


# ---------------------------------------------------------------------------------------- protocol
def test_digits_are_scikit_learns_scaled_on_val() -> None:
    data, (x, y, x_val, y_val, x_test, y_test) = digits()
    scores = run(data)
    chosen = scores.selected["lambda"]
    model = LogisticRegression(C=1 / chosen, tol=1e-8, max_iter=20_000).fit(x.astype(float), y)
    val, test = (torch.from_numpy(model.decision_function(a)) for a in (x_val, x_test))
    temperature = fit_temperature(val, torch.from_numpy(y_val))
    truth = torch.from_numpy(y_test)
    before, after = quality(test, truth), quality(test / temperature, truth)
    assert scores.selected["temperature"] == pytest.approx(temperature, rel=0.01)
    for name, expected in (before | {f"{k}_scaled": v for k, v in after.items()}).items():
        assert scores.metrics[name] == pytest.approx(expected, abs=0.1 if "ece" in name else 0.002)
    assert scores.metrics["top1"] == pytest.approx(100 * model.score(x_test, y_test), abs=0.5)
    assert scores.figure is not None
    assert scores.figure.startswith(b"\x89PNG")


def test_constant_features_are_calibrated_at_chance_and_leaked_labels_at_one() -> None:
    for kind, top1, brier in (("constant", 10.0, 0.9), ("leak", 100.0, 0.0)):
        scores = run(made((300, 100, 200), 10, kind))
        assert scores.metrics["top1"] == pytest.approx(top1)
        assert scores.metrics["ece_scaled"] == pytest.approx(0, abs=0.1)
        assert scores.metrics["brier_scaled"] == pytest.approx(brier, abs=0.01)
        assert all(np.isfinite(value) for value in scores.metrics.values())


def test_shuffled_test_labels_are_over_confident_and_move_no_choice() -> None:
    data, (x, y, x_val, y_val, x_test, y_test) = digits()
    wrong = np.random.default_rng(0).permutation(y_test)
    parts = ((x, y), (x_val, y_val), (x_test, wrong))
    other = FakeData(
        *[({"output": torch.from_numpy(a)}, torch.from_numpy(b)) for a, b in parts], classes=10
    )
    a, b = run(data), run(other)
    assert a.selected == b.selected
    assert b.metrics["top1"] < 20
    assert b.metrics["ece"] > 60 > 5 > a.metrics["ece"]
    # Only the number that is fitted on test labels is right about them.
    assert b.metrics["ece_scaled_test_folds"] < 10 < b.metrics["ece_scaled"]
    assert [name for name, _, _ in data.asked] == ["train", "val", "read_test", "test"]


def test_scaling_helps_a_classifier_that_is_too_sure() -> None:
    """Few pictures and no penalty: training accuracy is 100 %, and confidence with it."""
    rng = torch.Generator().manual_seed(0)

    def part(n: int) -> tuple[dict[str, Tensor], Tensor]:
        y = torch.arange(n) % 4
        x = torch.randn(n, 50, generator=rng)
        x[torch.arange(n), y] += 1.5
        return {"output": x}, y

    data = FakeData(part(200), part(200), part(2000), classes=4)
    cfg = Calibration.Config(lambdas=(1e-3,))
    scores = Calibration().run(FakeEncoder(), data, cfg, seed=0)
    assert scores.selected["temperature"] > 2
    for name in ("ece", "nll", "brier"):
        assert scores.metrics[f"{name}_scaled"] < scores.metrics[name]
    assert scores.metrics["ece_scaled"] < 6 < 20 < scores.metrics["ece"]
    assert scores.metrics["ece_scaled_test_folds"] < 6


def test_unlearnable_labels_are_refused() -> None:
    good, two, three = {"output": torch.ones(20, 3)}, torch.arange(20) % 2, torch.arange(20) % 3
    for val, test in ((three, two), (two, three)):
        with pytest.raises(BenchError, match="class 'class2', of which the train split has no"):
            run(FakeData((good, two), (good, val), (good, test), classes=3))
