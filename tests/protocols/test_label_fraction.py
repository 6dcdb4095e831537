"""Few labels: which are used, by which settings, and against scikit-learn and plain formulas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeEncoder, digits
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from bench import backbones, conformance, optim
from bench.api import Batches, Encoder, Scores
from bench.backbones.small import Small
from bench.data.dataset import DataSet, MemoryImages, Split, part
from bench.errors import BenchError
from bench.eval.few_label_recipes import RECIPES
from bench.features import Evaluation, FeatureStore
from bench.progress import Reporter
from protocols import label_fraction
from protocols.label_fraction import LabelFraction

CLASSES, SIZE = 4, 32
TOY = {"labels": 4, "min_steps": 4, "augment": False}


def colours(name: str, count: int, seed: int) -> Split:
    """Noise whose red, green or blue is brighter in classes 0 to 2."""
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 200, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=rng)
    labels = torch.arange(count) % CLASSES
    for label in range(3):
        pixels[labels == label, label] += 40
    return Split(name, MemoryImages(pixels), f"{name}{seed}", labels=labels)


def made(count: int = 100) -> DataSet:
    full = colours("full", count, 0)
    train, val = part(full, torch.arange(0, count, 5))
    return DataSet(conformance.toy_info(), full, train, val, colours("test", 60, 1))


def run(
    data: DataSet, folder: Path, encoder: Encoder | None = None, **settings: Any
) -> tuple[Scores, Evaluation]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = encoder or backbones.build("small", SIZE)
    encoder = encoder.requires_grad_(False).eval()
    store = FeatureStore(folder, encoder, "toy", torch.device("cpu"), Reporter(quiet=True))
    evaluation = Evaluation(data, store)
    del evaluation.val  # its labels are too many to look at
    cfg = LabelFraction.Config(**{**TOY, **settings})
    return LabelFraction().run(encoder, evaluation, cfg, 0), evaluation


@pytest.mark.parametrize("labels", [5, 0.3])
def test_the_linear_mode_agrees_with_scikit_learn(labels: float) -> None:
    data, (x, y, _, _, x_test, y_test) = digits()
    cfg = LabelFraction.Config(mode="linear", labels=labels)
    scores = LabelFraction().run(FakeEncoder(), data, cfg, seed=3)
    few = label_fraction.few_labels(data.train.split, labels, 3).numpy()
    assert scores.selected["labeled"] == len(few)
    scale = StandardScaler().fit(x)
    x, x_test = scale.transform(x[few]), scale.transform(x_test)
    c = 1 / (cfg.linear_decay * len(few))
    top1 = 100 * LogisticRegression(C=c).fit(x, y[few]).score(x_test, y_test)
    assert scores.metrics["top1"] == pytest.approx(top1, abs=1)

    # With a column of ones for an intercept, so that it is penalised too, and enough steps.
    x, x_test = (np.c_[a, np.ones(len(a))] for a in (x, x_test))
    model = LogisticRegression(C=c, fit_intercept=False, tol=1e-8, max_iter=5000).fit(x, y[few])
    more = cfg.model_copy(update={"linear_min_steps": 3000})
    predictions = LabelFraction().run(FakeEncoder(), digits()[0], more, seed=3).predictions
    assert predictions is not None
    assert np.mean(predictions.numpy() == model.predict(x_test)) > 0.995
    assert [name for name, _, _ in data.asked] == ["train", "read_test", "test"]


@pytest.mark.parametrize("settings", [{}, {"mode": "linear"}, {"distil": True}])
def test_no_other_label_is_used(tmp_path: Path, settings: dict[str, Any]) -> None:
    data, path = made(), tmp_path / "list.txt"
    path.write_text("\n".join(map(str, range(12))))
    assert data.train.labels is not None
    labels = data.train.labels.clone()
    labels[12:] = labels[12:].flip(0)
    other = replace(data, train=replace(data.train, labels=labels))
    settings = {"labels": str(path), "distil_epochs": 1, **settings}
    a, _ = run(data, tmp_path, **settings)
    b, _ = run(other, tmp_path, **settings)
    assert a.metrics == b.metrics
    assert a.selected["labeled"] == 12
    labels[:12] = (labels[:12] + 1) % CLASSES
    changed = replace(data, train=replace(data.train, labels=labels))
    assert run(changed, tmp_path, **settings)[0].metrics != a.metrics


class Recorded:
    """Stands for the training loop: notes what it is asked for, and trains nothing."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, split: object, loss: object, parts: Iterable[Any], **rest: Any) -> None:
        self.calls.append({"loss": loss, "parts": list(parts), **rest})


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    stand_in = Recorded()
    monkeypatch.setattr(label_fraction, "train", stand_in)
    return stand_in


@pytest.mark.parametrize(
    ("size", "labels", "recipe", "settings"),
    [
        (32, 0.1, "small", "10 %"),
        (32, 4, "small", "1 %"),
        (64, 8, "small", "1 %"),
        (65, 0.02, "simclr", "1 %"),
        (65, 0.05, "simclr", "10 %"),
    ],
)
def test_which_settings_are_used(
    tmp_path: Path, recorded: Recorded, size: int, labels: float, recipe: str, settings: str
) -> None:
    data = made(2000)
    data = replace(data, info=replace(data.info, size=size))
    encoder = Small(size)
    scores, _ = run(data, tmp_path, encoder, labels=labels, min_steps=1)
    assert (scores.selected["recipe"], scores.selected["settings"]) == (recipe, settings)
    (call,) = recorded.calls
    tuning = RECIPES[recipe][settings == "10 %"]
    count = len(call["positions"])
    assert count == scores.selected["labeled"]
    assert call["batch_size"] == min(count, tuning.batch_size)
    assert call["steps"] == tuning.epochs * -(-count // call["batch_size"])
    assert call["steps"] == scores.selected["steps"]
    head, trunk = call["parts"]
    assert (head.spec, trunk.spec) == (tuning.head, tuning.trunk)


def test_few_pictures_are_trained_on_for_the_least_number_of_steps(
    tmp_path: Path, recorded: Recorded
) -> None:
    run(made(), tmp_path, labels=1, min_steps=777)
    assert recorded.calls[0]["steps"] == 777
    assert recorded.calls[0]["batch_size"] == 4


def rates(name: str, one: bool, part: str, per_epoch: int, batch: int) -> list[float]:
    """The learning rate at the start of each epoch."""
    tuning = RECIPES[name][not one]
    spec, total = getattr(tuning, part), tuning.epochs * per_epoch
    steps = range(0, total, per_epoch)
    return [optim.lr_at(spec, step, per_epoch, total, batch) for step in steps]


@pytest.mark.parametrize(("one", "trunk", "head"), [(True, 0.02, 5.0), (False, 0.01, 0.2)])
def test_swavs_rates_are_torchs_multi_step_schedule(one: bool, trunk: float, head: float) -> None:
    for which, lr in (("trunk", trunk), ("head", head)):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [12, 16], gamma=0.2)
        expected = []
        for _ in range(20):
            expected += schedule.get_last_lr()
            optimizer.step()
            schedule.step()
        assert rates("swav", one, which, 51, 256) == pytest.approx(expected)


@pytest.mark.parametrize(("one", "trunk", "head"), [(True, 0.03, 0.08), (False, 0.01, 0.1)])
def test_vicregs_rates_are_torchs_cosine_schedule(one: bool, trunk: float, head: float) -> None:
    for which, lr in (("trunk", trunk), ("head", head)):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        expected = []
        for _ in range(20):
            expected += schedule.get_last_lr()
            optimizer.step()
            schedule.step()
        assert rates("vicreg", one, which, 51, 256) == pytest.approx(expected)


def test_simclrs_rate_is_proportional_to_the_batch() -> None:
    for batch, first in ((4096, 0.8), (256, 0.05), (64, 0.0125)):
        for one, epochs in ((True, 60), (False, 30)):
            found = rates("simclr", one, "trunk", 10, batch)
            assert len(found) == epochs
            assert found[0] == pytest.approx(first)
    for tuning in RECIPES["simclr"][:2]:
        assert tuning.trunk.nesterov
        assert tuning.trunk.weight_decay == 0


def test_the_student_learns_the_teachers_softened_predictions_of_all_pictures(
    tmp_path: Path, recorded: Recorded
) -> None:
    data = made()
    scores, _ = run(data, tmp_path, labels=2, distil=True, temperature=0.5, distil_epochs=3)
    lesson = recorded.calls[1]
    assert sorted(lesson["positions"].tolist()) == list(range(len(data.train)))
    assert {"top1", "teacher_top1", "ece", "teacher_ece"} == set(scores.metrics)

    # Both networks are given heads of known weights.
    rng = torch.Generator().manual_seed(2)
    weights = [torch.randn(CLASSES, 256, generator=rng) for _ in range(2)]
    for call, weight in zip(recorded.calls, weights, strict=True):
        linear = next(p for p in call["parts"][0].parameters if p.ndim == 2)
        linear.data.copy_(weight)
    x, index = torch.randn(6, 3, SIZE, SIZE, generator=rng), torch.arange(6)
    found = lesson["loss"](x, index, rng)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = backbones.build("small", SIZE).double().eval()(x.double())
    # Untrained batch norms: running mean 0 and variance 1.
    features = features / (1 + 1e-5) ** 0.5
    teacher, student = (features @ w.double().T / 0.5 for w in weights)
    p = teacher.exp() / teacher.exp().sum(1, keepdim=True)
    q = student.exp() / student.exp().sum(1, keepdim=True)
    expected = -(0.5**2) * (p * q.log()).sum(1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_distillation_trains_and_the_teacher_is_what_it_was_without(tmp_path: Path) -> None:
    alone, _ = run(made(), tmp_path, min_steps=20)
    both, _ = run(made(), tmp_path, min_steps=20, distil=True)
    assert both.metrics["teacher_top1"] == alone.metrics["top1"]
    assert both.metrics["top1"] > 100 / CLASSES + 10


class Half(MemoryImages):
    """Every other picture of a stream cannot be decoded."""

    def stream(self, batches: Iterable[Tensor]) -> Batches:
        return ((i[i % 2 == 0], x[i % 2 == 0]) for i, x in super().stream(batches))

    def take(self, index: Tensor) -> MemoryImages:
        return Half(self.pixels[index])


@pytest.mark.parametrize("mode", ["linear", "finetune"])
def test_broken_pictures_are_left_out(tmp_path: Path, mode: str) -> None:
    data, path, even = made(), tmp_path / "list.txt", torch.arange(0, 80, 2)
    assert isinstance(data.train.images, MemoryImages)
    broken = replace(data.train, images=Half(data.train.images.pixels), digest="broken")
    path.write_text("\n".join(map(str, range(16))))
    settings = {"mode": mode, "labels": str(path)}
    scores, _ = run(replace(data, train=broken), tmp_path, **settings)
    if mode == "linear":
        path.write_text("\n".join(map(str, range(8))))
        expected, _ = run(replace(data, train=data.train.take(even)), tmp_path, **settings)
        assert scores.metrics == pytest.approx(expected.metrics)
    assert scores.metrics["ece"] >= 0


@pytest.mark.parametrize("mode", ["linear", "finetune"])
def test_bad_labels_are_told_in_one_line(tmp_path: Path, mode: str) -> None:
    data = made()
    for labels, message in (
        (0.03, "2 labels, below one for each of the 4 classes"),
        (50, "50 labels of each class are asked for"),
        ("no/such/list.txt", "cannot be read"),
    ):
        with pytest.raises(BenchError, match=message):
            run(data, tmp_path, labels=labels, mode=mode)
    with pytest.raises(BenchError, match="no labels"):
        run(replace(data, train=replace(data.train, labels=None)), tmp_path, mode=mode)
    assert data.train.labels is not None
    two = data.train.take((data.train.labels < 2).nonzero().flatten())
    with pytest.raises(BenchError, match="class 'c', of which the train split has no picture"):
        run(replace(data, train=two), tmp_path, mode=mode)


def test_a_linear_head_cannot_be_distilled() -> None:
    with pytest.raises(ValidationError, match="distil needs mode=finetune"):
        LabelFraction.Config(mode="linear", distil=True)
