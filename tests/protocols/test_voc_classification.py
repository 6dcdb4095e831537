"""VOC classification: SVMs against LinearSVC, trained networks, and encoders of known score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeData, FakeEncoder, FakeSplit
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from bench.api import Batches, DataInfo, Encoder, OptimSpec
from bench.data.dataset import DataSet, MemoryImages, Split
from bench.data.order import endless
from bench.errors import BenchError
from bench.eval.crop_flip import crop_and_flip
from bench.eval.linear_svm import EigenBasis, decide, fit_svms, rank_in_class, unit_rows
from bench.eval.multilabel_net import LastMap, fit_multilabel, score_crops
from bench.eval.svm_probe import cross_validate, few_positives
from bench.features import Evaluation, FeatureStore
from bench.progress import Reporter
from bench.rng import generator
from protocols.voc_classification import VocClassification

QUICK = VocClassification.Config(costs=(0.1, 1.0, 10.0))
CLASSES, SIZE = 3, 8


def svc(rows: Tensor, targets: Tensor, cost: float) -> LinearSVC:
    """scikit-learn's machine of one class, solved to the end."""
    used = targets != -1
    model = LinearSVC(C=cost, class_weight={1: 2, 0: 1}, dual=False, tol=1e-10, max_iter=100_000)
    return model.fit(rows[used, :-1].double().numpy(), (targets[used] == 1).long().numpy())


def digits() -> tuple[Tensor, Tensor]:
    """600 real pictures as unit rows; is it 0, ..., 5, and a tenth of the answers is difficult."""
    x, y = load_digits(return_X_y=True)
    rng = torch.Generator().manual_seed(0)
    targets = (torch.from_numpy(y[:600])[:, None] == torch.arange(6)).to(torch.int8)
    targets[torch.rand(targets.shape, generator=rng) < 0.1] = -1
    return unit_rows(torch.from_numpy(x[:600]).float()), targets


# ------------------------------------------------------------------------------ the machines
@pytest.mark.parametrize("cost", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("count", [40, 600])
def test_machines_are_those_of_linear_svc(cost: float, count: int) -> None:
    rows, targets = (part[:count] for part in digits())  # 40 rows have more dimensions than rows
    basis = EigenBasis(rows)
    weights = basis.axes @ fit_svms(basis, targets, cost)
    for c in range(6):
        expected = svc(rows, targets[:, c], cost).decision_function(rows[:, :-1].double().numpy())
        difference = (rows @ weights[:, c]).double().numpy() - expected
        assert np.abs(difference).max() < 0.02, "margins are at 1"
        assert np.sqrt((difference**2).mean()) < 0.01


def test_average_precision_is_within_a_tenth_of_linear_svcs() -> None:
    (rows, targets), held = digits(), torch.arange(600) >= 400
    basis = EigenBasis(rows[~held])
    for cost in (0.1, 10.0, 100.0):
        scores = rows[held] @ basis.axes @ fit_svms(basis, targets[~held], cost)
        for c in range(6):
            model = svc(rows[~held], targets[~held, c], cost)
            theirs = model.decision_function(rows[held, :-1].double().numpy())
            used = (targets[held, c] != -1).numpy()
            truth = (targets[held, c] == 1).numpy()[used]
            ours = average_precision_score(truth, scores[:, c].numpy()[used])
            assert ours == pytest.approx(average_precision_score(truth, theirs[used]), abs=1e-3)


def test_machines_side_by_side_are_what_they_are_alone() -> None:
    rows, targets = digits()
    basis, costs = EigenBasis(rows), torch.tensor([0.01, 0.1, 1.0, 2.0, 5.0, 50.0])
    together = basis.rows @ fit_svms(basis, targets, costs)
    warm = fit_svms(basis, targets, 0.1)
    for c, cost in enumerate(costs.tolist()):
        alone = fit_svms(basis, targets[:, c : c + 1], cost, start=warm[:, c : c + 1])
        assert (basis.rows @ alone - together[:, c : c + 1]).abs().max() < 0.02


def test_nothing_to_learn_gives_finite_machines() -> None:
    rows, targets = unit_rows(torch.ones(9, 4)), torch.zeros(9, 3, dtype=torch.int8)
    targets[:, 1], targets[:, 2] = -1, 1  # all negative, all left out, all positive
    basis = EigenBasis(rows)
    scores = rows @ basis.axes @ fit_svms(basis, targets, 1000.0)
    assert scores.isfinite().all()
    assert (scores[:, 0] < -0.99).all()
    assert (scores[:, 1] == 0).all()
    assert (scores[:, 2] > 0.99).all()


def test_equal_rows_have_equal_scores_wherever_they_stand() -> None:
    rng = torch.Generator().manual_seed(0)
    row, weights = torch.randn(1, 257, generator=rng), torch.randn(257, 5, generator=rng)
    scores = decide(row.repeat(61, 1), weights)
    assert (scores == scores[0]).all()
    torch.testing.assert_close(scores[:1], row @ weights, rtol=1e-4, atol=1e-4)


def test_ranks_are_a_random_order_within_each_class() -> None:
    _, targets = digits()
    rank = rank_in_class(targets, generator(0, device="cpu"))
    for c in range(6):
        for value in (1, 0, -1):
            own = rank[targets[:, c] == value, c]
            assert own.sort().values.tolist() == list(range(len(own)))
            assert own.tolist() != list(range(len(own)))
    assert not torch.equal(rank, rank_in_class(targets, generator(1)))


def test_cross_validation_is_scikit_learns_on_the_same_folds() -> None:
    rows, targets = digits()
    found = cross_validate(
        EigenBasis(rows), targets, (0.1, 10.0), folds=3, positive_weight=2.0, seed=5
    )
    fold = rank_in_class(targets, generator(5, "folds")) % 3
    for row, cost in zip(found, (0.1, 10.0), strict=True):
        for c in range(6):
            each = []
            for f in range(3):
                held = fold[:, c] == f
                model = svc(rows[~held], targets[~held, c], cost)
                used = held & (targets[:, c] != -1)
                scores = model.decision_function(rows[used, :-1].double().numpy())
                each.append(average_precision_score((targets[used, c] == 1).numpy(), scores))
            assert row[c].item() == pytest.approx(np.mean(each), abs=1e-3)


def test_few_positives_learn_from_as_many_as_they_say() -> None:
    rows, targets = digits()
    train, val = (rows[:400], targets[:400]), (rows[400:], targets[400:])
    found = few_positives(
        train, val, (0.1, 10.0), shots=(1, 8, 500), draws=2, positive_weight=2.0, seed=3
    )
    assert list(found) == [1, 8], "no class has 500 positives"
    twice = train[1].repeat(1, 2)
    rank = rank_in_class(twice, generator(3, "shots"))
    for k, of in found.items():
        for column in (0, 11):  # the first draw of class 0, the second of class 5
            target, place = twice[:, column], rank[:, column]
            drawn = ((target == 1) & (place < k)) | ((target == 0) & (place < 5 * k))
            assert int(drawn.sum()) == 6 * k
            theirs = svc(rows[:400][drawn], target[drawn], of.cost)
            expected = theirs.decision_function(val[0][:, :-1].double().numpy())
            ours = (val[0] @ of.weights[:, column]).numpy()
            assert np.abs(ours - expected).max() < 0.02
    assert found[8].val_ap > found[1].val_ap
    assert found[8].weights.shape == (65, 12)


# ------------------------------------------------------------------------------ the protocol
def labelled(kind: str, counts: tuple[int, int, int] = (90, 30, 60)) -> FakeData:
    """Fake data of three classes; features are the targets as +-1 ("leak") or all the same."""
    rng = torch.Generator().manual_seed(1)
    targets = [(torch.rand(n, CLASSES, generator=rng) < 0.3).to(torch.int8) for n in counts]
    parts = [
        ({"output": 2.0 * t - 1 if kind == "leak" else torch.full((len(t), 5), 0.3)}, None)
        for t in targets
    ]
    data = FakeData(*parts, classes=CLASSES)
    return relabel(data, *targets)


class Still(FakeSplit):
    """The whole picture is all that a view may show: features are the same in each."""

    def features(self, encoder: Encoder, *args: Any, **settings: Any) -> dict[str, Tensor]:
        settings["view"] = None
        return super().features(encoder, *args, **settings)


def relabel(data: FakeData, train: Tensor, val: Tensor, test: Tensor) -> FakeData:
    assert data._test is not None
    splits = (data.train, data.val, data.full, data._test)
    for split, targets in zip(splits, (train, val, torch.cat([train, val]), test), strict=True):
        split.split = replace(split.split, multilabel=targets)
        split.__class__ = Still
    return data


def targets_of(data: FakeData) -> list[Tensor]:
    assert data._test is not None
    found = [split.split.multilabel for split in (data.train, data.val, data._test)]
    return [targets.clone() for targets in found if targets is not None]


def run(data: FakeData, **changed: Any) -> Any:
    cfg = QUICK.model_copy(update=changed)
    return VocClassification().run(FakeEncoder(), data, cfg, seed=0)


def test_constant_features_score_the_share_of_positives_and_leaked_labels_all() -> None:
    data = labelled("constant")
    share = 100 * targets_of(data)[2].double().mean().item()
    metrics = run(data, low_shot=True, shots=(1, 4)).metrics
    assert list(metrics) == ["mAP", "mAP_area", "mAP_step", "mAP_k1", "mAP_k4"]
    assert all(value == pytest.approx(share) for value in metrics.values())
    metrics = run(labelled("leak"), low_shot=True, shots=(16,)).metrics
    assert all(value == pytest.approx(100) for value in metrics.values())


def test_difficult_pictures_do_not_count() -> None:
    data = labelled("leak")
    train, val, test = targets_of(data)
    test[test[:, 0] == 1, 1] = -1  # features still say whatever they said
    data = relabel(data, train, val, test)
    assert run(data).metrics["mAP"] == pytest.approx(100)
    everything = relabel(labelled("leak"), train, val, torch.full_like(test, -1))
    with pytest.raises(BenchError, match="no test picture of fake shows a class"):
        run(everything)


def test_classes_without_a_positive_are_skipped_by_name() -> None:
    train, val, test = targets_of(labelled("leak"))
    train[:, 0] = val[:, 0] = 0  # never learnt
    test[:, 2] = 0  # never judged
    scores = run(relabel(labelled("leak"), train, val, test))
    assert scores.selected["skipped"] == ["class0", "class2"]
    assert list(scores.selected["cost"]) == ["class1", "class2"]
    assert scores.arrays["AP"].isnan().tolist() == [True, False, True]
    assert scores.metrics["mAP"] == pytest.approx(100)


def test_one_test_picture_is_enough() -> None:
    data = labelled("leak", (60, 20, 1))
    train, val, _ = targets_of(data)
    scores = run(relabel(data, train, val, torch.tensor([[1, 0, -1]], dtype=torch.int8)))
    assert scores.metrics["mAP"] == 100
    assert scores.selected["skipped"] == ["class1", "class2"]


def test_test_is_read_once_and_moves_no_choice() -> None:
    data = labelled("leak")
    honest = run(data, low_shot=True, shots=(2,))
    assert [name for name, _, _ in data.asked] == ["full", "train", "val", "read_test", "test"]
    train, val, test = targets_of(labelled("leak"))
    noisy = run(relabel(labelled("leak"), train, val, test.flip(0)), low_shot=True, shots=(2,))
    assert noisy.selected == honest.selected
    assert noisy.metrics["mAP"] < 60 < honest.metrics["mAP"]


def test_the_cost_is_chosen_per_class_by_cross_validation() -> None:
    rows, targets = digits()
    ends = (350, 100, 150)
    parts = [({"output": x}, None) for x in rows[:, :-1].split(ends)]
    scores = run(relabel(FakeData(*parts, classes=6), *targets.split(ends)))
    full = EigenBasis(rows[:450])
    ap = cross_validate(full, targets[:450], QUICK.costs, folds=3, positive_weight=2.0, seed=0)
    best = [QUICK.costs[at] for at in ap.argmax(0).tolist()]
    assert list(scores.selected["cost"].values()) == best
    assert scores.selected["cv_mAP"] == pytest.approx(
        100 * ap.max(0).values.mean().item(), abs=0.05
    )
    assert set(scores.selected["edge"]) == {f"class{c}" for c in range(6) if best[c] != 1.0}


def test_data_that_cannot_be_learnt_are_refused() -> None:
    train, val, test = targets_of(labelled("leak"))
    for nothing in (labelled("leak"), relabel(labelled("leak"), 0 * train, 0 * val, test)):
        if nothing.full.split.multilabel is not None and nothing.full.split.multilabel.any():
            nothing.full.split = replace(nothing.full.split, multilabel=None)
        with pytest.raises(BenchError, match="no training picture of fake has a multi-label"):
            run(nothing)
    data = labelled("leak")
    data.full._features["output"][0] = torch.nan  # type: ignore[index]
    with pytest.raises(BenchError, match="NaN or infinity"):
        run(data)


# ------------------------------------------------------------------------------ trained networks
INFO = DataInfo(
    name="toy",
    digest="toy",
    size=SIZE,
    classes=tuple("abc"),
    n_train=128,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    has=frozenset({"multilabel"}),
)


class Holes(MemoryImages):
    """Every fifth picture cannot be decoded."""

    def stream(self, batches: Iterable[Tensor]) -> Batches:
        for index in batches:
            index = index[index % 5 != 2]
            yield index, self.pixels[index]


def pictures(name: str, count: int, images: type[MemoryImages] = MemoryImages) -> Split:
    """Each class that is there lights up one colour of the whole picture, which has some noise."""
    rng = generator("toy", name)
    targets = (torch.rand(count, CLASSES, generator=rng) < 0.4).to(torch.int8)
    noise = torch.randint(0, 50, (count, 3, SIZE, SIZE), generator=rng)
    pixels = (noise + 150 * targets[:, :, None, None]).to(torch.uint8)
    return Split(name, images(pixels), f"toy-{name}-{images.__name__}", multilabel=targets)


def toy(folder: Path, encoder: Encoder, images: type[MemoryImages] = MemoryImages) -> Evaluation:
    train, val, test = (
        pictures(name, n, images) for name, n in (("train", 96), ("val", 32), ("test", 60))
    )
    full = pictures("full", 128, images)
    store = FeatureStore(folder, encoder, "toy", torch.device("cpu"), Reporter(quiet=True))
    return Evaluation(DataSet(INFO, full, train, val, test), store)


class Colors(Encoder):
    """The picture by a learnable mixture of its colours; `seen` counts what batch norm saw."""

    dim, layers = 3, ("map",)

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        nn.init.dirac_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        return {"map": self.norm(self.mix(x))}

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)["map"].mean((2, 3))


class Blind(Colors):
    """Sees nothing, whatever is trained."""

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        return {"map": super().maps(0 * x)["map"]}


def frozen(encoder: Encoder) -> Encoder:
    return encoder.requires_grad_(False).eval()


@pytest.mark.parametrize("mode", ["svm", "fc6-8", "all"])
def test_colours_are_learnt_and_a_blind_network_scores_chance(mode: str, tmp_path: Path) -> None:
    cfg = VocClassification.Config(
        mode=mode, lrs=(0.1,), steps=30, hidden=16, crops=2, costs=(1.0,), max_dim=64
    )
    encoder = frozen(Colors())
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    scores = VocClassification().run(encoder, toy(tmp_path / "a", encoder), cfg, 0)
    assert scores.metrics["mAP"] == pytest.approx(100)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    again = VocClassification().run(encoder, toy(tmp_path / "a", encoder), cfg, 0)
    assert again.metrics == scores.metrics

    blind = frozen(Blind())
    scores = VocClassification().run(blind, toy(tmp_path / "b", blind), cfg, 0)
    targets = pictures("test", 60).multilabel
    assert targets is not None
    assert scores.metrics["mAP"] == pytest.approx(100 * targets.double().mean().item())


@pytest.mark.parametrize("mode", ["svm", "fc6-8"])
def test_pictures_that_do_not_decode_shift_no_label(mode: str, tmp_path: Path) -> None:
    cfg = VocClassification.Config(mode=mode, lrs=(0.1,), steps=30, hidden=16, crops=0)
    encoder = frozen(Colors())
    scores = VocClassification().run(encoder, toy(tmp_path, encoder, Holes), cfg, 0)
    assert scores.metrics["mAP"] == pytest.approx(100)


def test_the_learning_rate_is_chosen_on_val(tmp_path: Path) -> None:
    cfg = VocClassification.Config(mode="all", lrs=(1e-9, 0.1), steps=30, crops=0)
    encoder = frozen(Colors())
    selected = VocClassification().run(encoder, toy(tmp_path, encoder), cfg, 0).selected
    assert selected["lr"] == 0.1
    assert selected["val_mAP"] > 90
    assert selected["edge"] == ["lr"]
    assert selected["skipped"] == []


def test_a_step_is_on_the_cross_entropy_of_what_is_not_difficult(tmp_path: Path) -> None:
    data = toy(tmp_path, frozen(Colors()))
    targets = data.train.split.multilabel
    assert targets is not None
    targets[::3, 1] = -1
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES))
    start = network[2].weight.detach().clone().double()
    bias = network[2].bias.detach().clone().double()

    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    spec = OptimSpec(lr=0.5, momentum=0, schedule="constant")
    fit_multilabel(data.train, network, spec, steps=1, batch_size=96, seed=0)
    (x,) = seen
    colour = x.double().mean((2, 3))
    expected, order = start.clone(), endless(96, 96, 0, 0, "order")
    for row, at in zip(colour, order.tolist(), strict=True):
        for c in range(CLASSES):
            if targets[at, c] == -1:
                continue
            logit = row @ start[c] + bias[c]
            slope = logsigmoid(logit).exp() - (targets[at, c] == 1).double()
            expected[c] -= 0.5 * slope * row / len(x)
    torch.testing.assert_close(network[2].weight.double(), expected, rtol=0, atol=1e-5)
    assert not network.training


def test_scores_are_the_mean_over_random_crops(tmp_path: Path) -> None:
    data = toy(tmp_path, frozen(Colors()))
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, CLASSES)).requires_grad_(False)
    order = torch.arange(32).split(16)
    crops = [
        torch.cat(
            [network(x) for _, x in data.val.batches(order, crop_and_flip(INFO), 7, "crop", n)]
        )
        for n in range(3)
    ]
    assert (crops[0] - crops[1]).abs().max() > 0.01
    scores, targets = score_crops(data.val, network, 3, seed=7)
    whole, _ = score_crops(data.val, network, 0, seed=7)
    assert data.val.split.multilabel is not None
    assert torch.equal(targets, data.val.split.multilabel)
    plain = torch.cat([network(x) for _, x in data.val.batches(order)])
    torch.testing.assert_close(whole, plain)
    assert scores.shape == whole.shape
    assert (scores - whole).abs().max() > 0.01


class Maps(Encoder):
    """As AlexNet: convolutions, then layers that are fully connected."""

    dim, layers = 4, ("conv4", "conv5", "fc6")

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)["fc6"].flatten(1)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        conv5 = nn.functional.max_pool2d(x, 2)
        return {"conv4": x, "conv5": conv5, "fc6": x.mean((2, 3))[:, :, None, None]}


def test_new_layers_stand_on_the_last_map_in_space() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.adaptive_max_pool2d(Maps().maps(x)["conv5"], 2).flatten(1)
    assert torch.equal(LastMap(Maps(), 12)(x), expected)
    trunk = nn.Sequential(LastMap(Colors().eval(), 12), nn.Linear(12, 3)).train()
    assert trunk[1].training
    assert not any(module.training for module in trunk[0].modules())


def test_networks_that_cannot_be_trained_are_refused(tmp_path: Path) -> None:
    class Flat(Encoder):
        dim = 3

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    encoder = Flat()
    for mode, message in (("fc6-8", "no maps to put new layers on"), ("all", "no parameters")):
        cfg = VocClassification.Config(mode=mode)
        with pytest.raises(BenchError, match=message):
            VocClassification().run(encoder, toy(tmp_path, encoder), cfg, 0)
