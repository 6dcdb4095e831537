"""The linear probe, against torch.optim, scikit-learn and encoders whose score is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fakes import FakeData, FakeEncoder, digits, made
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from bench.data.ops import RandomCrop, RandomResizedCrop
from bench.errors import BenchError
from bench.eval.crop_flip import crop_and_flip
from bench.eval.linear_heads import LinearHeads, Standardizer, fit_heads
from protocols.linear import Linear

QUICK = Linear.Config(lrs=(0.03, 0.3), weight_decays=(1e-3, 1e-2), head_seeds=2)


def randn(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def test_heads_step_as_separate_sgd_models_do() -> None:
    seeds, n, dim, classes, steps = 2, 12, 5, 3, 6
    lrs, decays = randn(4, seed=1).abs(), randn(4, seed=2).abs() / 10
    heads = LinearHeads(seeds, dim, classes, lrs, decays)
    xs = randn(steps, seeds, n, dim)
    labels = torch.randint(classes, (steps, seeds, n), generator=torch.Generator().manual_seed(3))
    for step in range(steps):
        target = nn.functional.one_hot(labels[step], classes).double()
        heads.step(xs[step], target, 1 - step / steps)

    probe = randn(7, dim, seed=4)
    logits = heads.logits(probe)
    for s in range(seeds):
        for h in range(len(lrs)):
            model = nn.Linear(dim, classes, bias=False, dtype=torch.float64)
            nn.init.zeros_(model.weight)
            sgd = torch.optim.SGD(
                model.parameters(),
                lr=lrs[h].item(),
                momentum=0.9,
                nesterov=True,
                weight_decay=decays[h].item(),
            )
            for step in range(steps):
                sgd.param_groups[0]["lr"] = lrs[h].item() * (1 - step / steps)
                sgd.zero_grad()
                nn.functional.cross_entropy(model(xs[step, s]), labels[step, s]).backward()
                sgd.step()
            torch.testing.assert_close(logits[s, :, :, h], model(probe), rtol=1e-12, atol=1e-12)


def test_hits_count_what_argmax_gets_right(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = LinearHeads(2, 5, 3, torch.ones(4).double(), torch.zeros(4).double())
    heads.weight = randn(2, 5, 12)
    x, labels = randn(50, 5, seed=1), torch.arange(50) % 3
    expected = (heads.logits(x).argmax(2) == labels[:, None]).sum(1)
    for chunk in (1, 100, 2**24):
        monkeypatch.setattr("bench.eval.linear_heads.CHUNK", chunk)
        assert torch.equal(heads.hits(x, labels), expected)


def test_an_order_does_not_depend_on_the_other_heads() -> None:
    x, labels = randn(70, 4), torch.arange(70) % 3
    kwargs = {"classes": 3, "steps": 9, "batch_size": 32, "seed": 5}
    many = fit_heads(x, labels, [(0.1, 0.0), (0.5, 0.1)], seeds=3, **kwargs)
    one = fit_heads(x, labels, [(0.5, 0.1)], seeds=1, **kwargs)
    torch.testing.assert_close(many.logits(x)[0, :, :, 1], one.logits(x)[0, :, :, 0])
    assert not torch.equal(many.weight[0], many.weight[1])


def test_standardizer_is_scikit_learns_with_a_column_for_the_bias() -> None:
    x = (5 + 3 * randn(40, 6)).float()
    x[:, 2] = 0.1  # constant: its float32 mean need not be exactly 0.1
    out = Standardizer(x)(x)
    varying = [0, 1, 3, 4, 5]
    expected = StandardScaler().fit_transform(x[:, varying].double().numpy())
    np.testing.assert_allclose(out[:, varying].numpy(), expected, atol=1e-5)
    assert (out[:, 2] == 0).all()
    assert (out[:, 6] == 1).all()


def test_agrees_with_scikit_learns_tuned_logistic_regression_on_digits() -> None:
    data, (x_train, y_train, x_val, y_val, x_test, y_test) = digits()
    scores = Linear().run(FakeEncoder(), data, Linear.Config(), seed=0)

    scale = StandardScaler().fit(x_train)
    models = [
        LogisticRegression(C=c, max_iter=500).fit(scale.transform(x_train), y_train)
        for c in (1e-3, 1e-2, 1e-1, 1.0)
    ]
    c = max(models, key=lambda m: m.score(scale.transform(x_val), y_val)).C
    x, y = np.concatenate([x_train, x_val]), np.concatenate([y_train, y_val])
    scale = StandardScaler().fit(x)
    expected = LogisticRegression(C=c, max_iter=500).fit(scale.transform(x), y)
    top1 = 100 * expected.score(scale.transform(x_test), y_test)
    # Half a point is 3.6 of the 719 test pictures.
    assert scores.metrics["top1"] == pytest.approx(top1, abs=0.5)


def test_converges_to_scikit_learns_optimum_at_the_same_regularisation() -> None:
    _, (x_train, y_train, _, _, x_test, _) = digits()
    decay, n = 1e-2, len(x_train)
    x, y = torch.from_numpy(x_train), torch.from_numpy(y_train)
    scale = Standardizer(x)
    heads = fit_heads(
        scale(x), y, [(0.1, decay)], classes=10, seeds=1, steps=2000, batch_size=n, seed=0
    )
    ours = heads.logits(scale(torch.from_numpy(x_test)))[0, :, :, 0].softmax(1).numpy()
    # The column of ones takes the place of an intercept, so that both penalise the bias.
    model = LogisticRegression(C=1 / (decay * n), fit_intercept=False, tol=1e-8, max_iter=5000)
    model.fit(scale(x).numpy(), y_train)
    expected = model.predict_proba(scale(torch.from_numpy(x_test)).numpy())
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_constant_features_score_chance() -> None:
    scores = Linear().run(FakeEncoder(), made((300, 100, 200), 10, "constant"), QUICK, seed=0)
    assert scores.metrics["top1"] == pytest.approx(10.0)
    assert all(math.isfinite(value) for value in scores.metrics.values())


def test_leaked_labels_score_all() -> None:
    data = made((300, 100, 200), 10, "leak")
    scores = Linear().run(FakeEncoder(), data, Linear.Config(), seed=0)
    assert scores.metrics["top1"] == scores.metrics["top5"] == 100.0


def layered(shuffled_test: bool = False) -> FakeData:
    """Digits with a bad "first" and a good "second" layer; the output is as bad as the first."""
    _, arrays = digits()
    splits = []
    for i, (x, y) in enumerate(zip(arrays[::2], arrays[1::2], strict=True)):
        labels = torch.from_numpy(y)
        if shuffled_test and i == 2:
            labels = labels.flip(0)
        good = torch.from_numpy(x)
        splits.append(({"first": good[:, :12], "second": good, "output": good[:, :12]}, labels))
    return FakeData(*splits, classes=10)


def test_the_best_layer_is_named_and_is_the_score() -> None:
    scores = Linear().run(FakeEncoder(("first", "second")), layered(), QUICK, seed=0)
    selected = scores.selected
    assert selected["layer"] == "second"
    assert selected["selected_on"] == "val"
    assert set(scores.per_layer) == {"first", "second", "output"}
    assert scores.per_layer["second"] == {k: scores.metrics[k] for k in ("top1", "top5")}
    assert scores.per_layer["first"] == scores.per_layer["output"]
    assert scores.per_layer["first"]["top1"] < scores.metrics["top1"]
    assert selected["val_top1"] == selected["per_layer"]["second"]["val_top1"]
    assert set(selected["edge"]) == {"lr", "weight_decay"}  # two values each: both are edges


def test_test_is_read_once_and_does_not_move_the_choice() -> None:
    data, other = layered(), layered(shuffled_test=True)
    encoder = FakeEncoder(("first", "second"))
    a, b = (Linear().run(encoder, d, QUICK, seed=0) for d in (data, other))
    assert [name for name, _, _ in data.asked] == ["train", "val", "read_test", "test"]
    assert a.selected == b.selected
    assert b.metrics["top1"] < 30 < a.metrics["top1"]


def test_a_run_repeats_exactly() -> None:
    a, b, c = (
        Linear().run(FakeEncoder(), digits()[0], QUICK, seed=seed).metrics for seed in (0, 0, 1)
    )
    assert a == b
    assert a["ece"] != c["ece"]


def test_augmented_training_renders_train_and_val_and_judges_on_plain_pictures() -> None:
    data, _ = digits()
    cfg = QUICK.model_copy(update={"augment": True, "copies": 3})
    scores = Linear().run(FakeEncoder(), data, cfg, seed=0)
    view = crop_and_flip(data.info)
    assert data.asked == [
        ("train", view, 3),
        ("val", None, 1),
        ("val", view, 3),
        ("read_test", None, 1),
        ("test", None, 1),
    ]
    assert scores.metrics["top1"] > 93


@pytest.mark.parametrize(("size", "out"), [(32, 32), (96, 96), (256, 224)])
def test_the_augmented_view_suits_the_size(size: int, out: int) -> None:
    data = FakeData(*[({"output": torch.ones(2, 1)}, torch.arange(2))] * 3, classes=2, size=size)
    view = crop_and_flip(data.info)
    crop = RandomCrop(padding=size // 8) if size <= 96 else RandomResizedCrop()
    assert view.ops[0] == crop
    assert view.size == out


def test_unlearnable_labels_are_refused() -> None:
    good = {"output": torch.ones(20, 3)}
    two, three = torch.arange(20) % 2, torch.arange(20) % 3
    for val, test in ((three, two), (two, three)):
        data = FakeData((good, two), (good, val), (good, test), classes=3)
        with pytest.raises(BenchError, match=r"class 'class2', of which the train split has no"):
            Linear().run(FakeEncoder(), data, QUICK, seed=0)
    with pytest.raises(BenchError, match=r"train split of fake has no labels"):
        Linear().run(
            FakeEncoder(), FakeData((good, None), (good, two), (good, two), classes=3), QUICK, 0
        )
