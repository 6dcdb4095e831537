"""Semi-supervised losses against loops and official formulas, stop-gradients, and the average."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import conformance, engine, registry, rng
from bench.api import Batch, Step
from bench.data.few_labels import few_labels
from bench.engine import EngineConfig
from bench.errors import BenchError
from bench.nn.semi_supervised import (
    SemiSupervised,
    confident,
    divergence,
    follow_statistics,
    labeled_view,
    labels_of,
    ramp_up,
)
from bench.nn.still_statistics import still_statistics
from bench.progress import Reporter
from bench.resolve import method_config

NAMES = (
    "cowmix",
    "fixmatch",
    "mean_teacher",
    "mpl",
    "pseudo_label",
    "s4l",
    "uda",
    "vat_entmin",
)


def build(name: str, **settings: object) -> SemiSupervised:
    """The method with its toy recipe and 2 epochs of batches of 16."""
    cls = registry.method(name)
    cfg = method_config(cls, name, "toy", {"epochs": 2, "batch_size": 16, **settings})
    backbone = conformance.build(cls, name).backbone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold("semi_supervised"))
        method = cls(cfg, backbone, conformance.toy_info())
    assert isinstance(method, SemiSupervised)
    return method


def doubled(method: SemiSupervised) -> tuple[SemiSupervised, Batch]:
    """The method and a batch of it in float64; the classifier is made surer than a fresh one."""
    batch = conformance.memorised(method)
    assert batch.labeled is not None
    for part in (batch, batch.labeled):
        part.views = {name: [x.double() for x in views] for name, views in part.views.items()}
    method.double()
    with torch.no_grad():
        method.head.weight.mul_(10)
    return method.train(), batch


def step_at(index: int, total: int = 10, epochs: int = 2) -> Step:
    return Step("main", 0, epochs, index, total, rng.generator("semi"))


def softmax(row: Sequence[float]) -> list[float]:
    top = max(row)
    weights = [math.exp(value - top) for value in row]
    return [weight / sum(weights) for weight in weights]


def cross_entropies(logits: Tensor, labels: Sequence[int]) -> list[float]:
    rows = zip(logits.tolist(), labels, strict=True)
    return [-math.log(softmax(row)[label]) for row, label in rows]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def parts_of(method: SemiSupervised, batch: Batch, *names: str) -> list[Tensor]:
    """Logits of the labelled pictures and of each view, all in one pass, by the network's parts."""
    x = [labeled_view(batch), *(batch.view(name) for name in names)]
    with torch.no_grad(), still_statistics(method):
        return list(method.head(method.backbone(torch.cat(x))).split([len(part) for part in x]))


def threshold_in(method: SemiSupervised, weak: Tensor) -> float:
    """Set the threshold between the confidences of `weak`, so that about half reach it."""
    confidences = sorted(max(softmax(row)) for row in weak.tolist())
    threshold = (confidences[7] + confidences[8]) / 2
    method.cfg = method.cfg.model_copy(update={"threshold": threshold})
    return threshold


# ---------------------------------------------------------------------------- each method's loss
@pytest.mark.parametrize(("index", "share"), [(0, 0.0), (2, 0.5), (4, 1.0), (9, 1.0)])
def test_pseudo_label_ramps_up_the_cross_entropy_of_sure_guesses(index: int, share: float) -> None:
    method, batch = doubled(build("pseudo_label"))
    labeled, weak = parts_of(method, batch, "weak")
    threshold, own, sure = threshold_in(method, weak), [], 0
    for row in weak.tolist():
        best = max(softmax(row))
        sure += best >= threshold
        own.append(-math.log(best) if best >= threshold else 0.0)
    assert sure == 8
    expected = mean(cross_entropies(labeled, labels_of(batch).tolist())) + share * mean(own)
    step = step_at(index)
    assert method.loss(batch, step).item() == pytest.approx(expected, rel=1e-9)
    assert step.logged["mask"].item() == pytest.approx(100 * sure / 16)


def test_fixmatch_teaches_the_strong_view_the_weak_ones_sure_guess() -> None:
    method, batch = doubled(build("fixmatch", weight=0.7))
    labeled, weak, strong = parts_of(method, batch, "weak", "strong")
    threshold, terms, sure, confidence = threshold_in(method, weak), [], 0, []
    for told, learned in zip(weak.tolist(), strong.tolist(), strict=True):
        probabilities = softmax(told)
        best = max(probabilities)
        confidence.append(best)
        sure += best >= threshold
        guess = probabilities.index(best)
        terms.append(-math.log(softmax(learned)[guess]) if best >= threshold else 0.0)
    assert sure == 8
    expected = mean(cross_entropies(labeled, labels_of(batch).tolist())) + 0.7 * mean(terms)
    step = step_at(3)
    assert method.loss(batch, step).item() == pytest.approx(expected, rel=1e-9)
    assert step.logged["mask"].item() == pytest.approx(100 * sure / 16)
    assert step.logged["confidence"].item() == pytest.approx(100 * mean(confidence))


def test_uda_is_the_masked_divergence_from_the_sharpened_prediction() -> None:
    method, batch = doubled(build("uda", temperature=0.4))
    labeled, weak, strong = parts_of(method, batch, "weak", "strong")
    threshold, terms = threshold_in(method, weak), []
    for told, learned in zip(weak.tolist(), strong.tolist(), strict=True):
        p, q = softmax([value / 0.4 for value in told]), softmax(learned)
        kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        terms.append(kl if max(softmax(told)) >= threshold else 0.0)
    assert terms.count(0.0) == 8
    expected = mean(cross_entropies(labeled, labels_of(batch).tolist())) + mean(terms)
    assert method.loss(batch, step_at(3)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", ["linear", "log", "exp"])
@pytest.mark.parametrize("index", [0, 4, 9])
def test_udas_annealing_leaves_out_what_is_learned(schedule: str, index: int) -> None:
    """The official get_tsa_threshold and anneal_sup_loss, in a loop."""
    method, batch = doubled(build("uda", tsa=schedule, weight=0.0))
    labeled, *_ = parts_of(method, batch, "weak", "strong")
    ratio = index / 10
    coefficient = {
        "linear": ratio,
        "exp": math.exp((ratio - 1) * 5),
        "log": 1 - math.exp(-ratio * 5),
    }[schedule]
    limit = coefficient * (1 - 1 / 4) + 1 / 4
    losses = cross_entropies(labeled, labels_of(batch).tolist())
    kept = [loss for loss in losses if math.exp(-loss) <= limit]
    expected = sum(kept) / max(len(kept), 1)
    assert method.loss(batch, step_at(index)).item() == pytest.approx(expected, rel=1e-9)


def test_udas_annealing_may_leave_out_every_picture() -> None:
    method, batch = doubled(build("uda", tsa="linear", weight=0.0))
    assert batch.labeled is not None
    with torch.no_grad():
        method.head.weight.zero_()
        method.head.bias.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0]))
    batch.labeled.label = torch.zeros_like(labels_of(batch))
    assert method.loss(batch, step_at(0)).item() == 0.0


def test_mean_teacher_is_the_ramped_mean_squared_distance_to_the_teacher() -> None:
    method, batch = doubled(build("mean_teacher", weight=7.0, ramp_epochs=1.0))
    assert batch.labeled is not None and method.average is not None
    with torch.no_grad():
        for parameter in method.average.parameters():
            parameter.mul_(1.1)
    one, two = (
        torch.cat([batch.labeled.views["labeled"][which], batch.views["weak"][which]])
        for which in (0, 1)
    )
    assert not torch.equal(one, two)
    with torch.no_grad(), still_statistics(method):
        student = method.head(method.backbone(one))
        teacher = method.average.head(method.average.network(two))
    squares = [
        (p - q) ** 2
        for mine, its in zip(student.tolist(), teacher.tolist(), strict=True)
        for p, q in zip(softmax(mine), softmax(its), strict=True)
    ]
    # Step 3 of 10 in two epochs is at 0.6 of the one epoch of ramping.
    weight = 7.0 * math.exp(-5 * (1 - 0.6) ** 2)
    supervised = mean(cross_entropies(student[:8], labels_of(batch).tolist()))
    loss = method.loss(batch, step_at(3))
    assert loss.item() == pytest.approx(supervised + weight * mean(squares), rel=1e-9)


def test_the_mean_teachers_batch_norms_see_its_own_views() -> None:
    method, batch = doubled(build("mean_teacher"))
    assert method.average is not None
    before = copy.deepcopy(method.average.network.stem[1].running_mean)
    method.loss(batch, step_at(0))
    seen = method.average.network.stem[1].running_mean.clone()
    assert not torch.equal(before, seen)
    method.after_step(step_at(5))
    assert torch.equal(method.average.network.stem[1].running_mean, seen)


def test_s4l_tells_classes_and_angles_at_every_angle() -> None:
    settings = {"vat_weight": 0.0, "entropy_weight": 0.5, "rotation_weight": 0.7}
    method, batch = doubled(build("s4l", supervised_weight=0.3, **settings))
    x = torch.cat([labeled_view(batch), batch.view("weak")])
    turned = torch.cat([torch.rot90(x, k, (2, 3)) for k in range(4)])
    with torch.no_grad(), still_statistics(method):
        features = method.backbone(turned)
        classes, angles = method.head(features), method.rotation_head(features)
    labels = labels_of(batch).tolist()
    of_labeled = torch.cat([classes[24 * k : 24 * k + 8] for k in range(4)])
    uncertain = [-sum(p * math.log(p) for p in softmax(row)) for row in classes[8:24].tolist()]
    expected = (
        0.3 * mean(cross_entropies(of_labeled, labels * 4))
        + 0.7 * mean(cross_entropies(angles, [row // 24 for row in range(96)]))
        + 0.5 * mean(uncertain)
    )
    assert method.loss(batch, step_at(0)).item() == pytest.approx(expected, rel=1e-9)


def test_vats_loss_is_the_sum_of_its_parts() -> None:
    """Each weight scales its own part; the parts are tested in test_virtual_adversarial."""
    losses = []
    for weight, entropy_weight in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (2.0, 3.0)):
        method, batch = doubled(build("vat_entmin", weight=weight, entropy_weight=entropy_weight))
        losses.append(method.loss(batch, step_at(0)).item())
    plain, adversarial, uncertain, both = losses
    assert adversarial > plain and uncertain > plain
    assert both == pytest.approx(2 * adversarial + 3 * uncertain - 4 * plain, rel=1e-9)
    labeled, weak = parts_of(method, batch, "weak")
    assert plain == pytest.approx(mean(cross_entropies(labeled, labels_of(batch).tolist())))
    rows = [-sum(p * math.log(p) for p in softmax(row)) for row in weak.tolist()]
    assert uncertain - plain == pytest.approx(mean(rows), rel=1e-9)


# -------------------------------------------------------------------- what flows where, and resumes
def test_nothing_flows_back_through_the_guess() -> None:
    """The weak view's logits have no gradient but by the strong view's."""
    method, batch = doubled(build("fixmatch", threshold=0.0))
    weak, strong = batch.view("weak").requires_grad_(), batch.view("strong").requires_grad_()
    # In eval mode batch norm does not mix the views.
    method.eval()
    of_weak, of_strong = torch.autograd.grad(
        method.loss(batch, step_at(0)), [weak, strong], allow_unused=True
    )
    assert of_weak is None or not of_weak.any()
    assert of_strong is not None and of_strong.any()


@pytest.mark.parametrize("name", NAMES)
def test_the_average_has_no_gradient_and_follows(name: str) -> None:
    method = build(name, average_momentum=0.9)
    assert method.average is not None and method.encoder() is method.average
    assert not any(parameter.requires_grad for parameter in method.average.parameters())
    start = [p.clone() for p in method.average.parameters()]
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    phase = method.phases[0]
    method.after_step(replace(step_at(0), phase=phase))
    torch.testing.assert_close(list(method.average.parameters()), list(method.student.parameters()))
    with torch.no_grad():
        for held, parameter in zip(start, method.student.parameters(), strict=True):
            parameter.copy_(held - 1.0)
    method.after_step(replace(step_at(999, 2000), phase=phase))
    torch.testing.assert_close(list(method.average.parameters()), [p + 0.8 for p in start])


def test_without_an_average_the_trained_network_is_evaluated() -> None:
    method = build("uda", average_momentum=0.0)
    assert method.average is None
    method.after_step(step_at(0))
    x = torch.randn(2, 3, 32, 32, generator=rng.generator("x"))
    encoder = method.eval().encoder()
    torch.testing.assert_close(encoder.classify(x), method.head(method.backbone(x)))
    assert encoder.classify(x).shape == (2, conformance.CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_labels_of_the_listed_pictures_alone_have_an_effect(name: str, tmp_path: Path) -> None:
    split = conformance.toy_split()
    assert split.labels is not None
    listed = tmp_path / "listed.txt"
    listed.write_text("\n".join(str(position) for position in range(8)), "utf-8")
    chosen = few_labels(split, str(listed))
    other = (split.labels + 1) % conformance.CLASSES
    permuted = split.labels.index_copy(0, chosen, other[chosen])
    methods = []
    for number, labels in enumerate((split.labels, permuted)):
        method = build(name, labels=str(listed))
        cfg, quiet = EngineConfig(device="cpu", precision="32"), Reporter(quiet=True)
        folder = tmp_path / str(number)
        changed = replace(split, labels=labels)
        engine.fit(method, changed, cfg, seed=0, folder=folder, reporter=quiet, stop_after=1)
        methods.append(method)
    assert not conformance.same_state(*methods)


def test_a_collapsed_classifier_is_seen() -> None:
    """All pictures taken for one class: the targets tell nothing of a picture."""
    method, batch = doubled(build("fixmatch"))
    step = step_at(0)
    method.loss(batch, step)
    assert step.logged["target_information"] > 0.05
    with torch.no_grad():
        method.head.bias[2] = 1000.0
    method.loss(batch, step)
    assert step.logged["target_information"] < 0.01


# ------------------------------------------------------------------------------------ small parts
def test_confidence_reaches_the_threshold_itself() -> None:
    logits = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    probabilities, label, mask = confident(logits, 0.5)
    assert mask.tolist() == [1.0, 1.0] and label.tolist()[1] == 0
    torch.testing.assert_close(probabilities, logits.softmax(1))
    assert confident(logits, 0.6)[2].tolist() == [0.0, 1.0]


def test_divergence_is_torchs_and_allows_zeros() -> None:
    draw = rng.generator("divergence")
    target = torch.rand(5, 4, generator=draw, dtype=torch.float64)
    target[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    target = target / target.sum(1, keepdim=True)
    logits = torch.randn(5, 4, generator=draw, dtype=torch.float64)
    expected = F.kl_div(logits.log_softmax(1), target, reduction="none").sum(1)
    torch.testing.assert_close(divergence(target, logits), expected)


def test_the_ramp_is_that_of_temporal_ensembling() -> None:
    assert [ramp_up(t) for t in (-1.0, 0.0)] == [math.exp(-5)] * 2
    assert ramp_up(0.5) == pytest.approx(math.exp(-1.25))
    assert ramp_up(1.0) == ramp_up(9.0) == 1.0


def test_still_statistics_normalise_by_the_batch_and_forget_it() -> None:
    norm, x = nn.BatchNorm1d(3), torch.randn(8, 3, generator=rng.generator("norm")) * 5 + 2
    state = copy.deepcopy(norm.state_dict())
    with still_statistics(norm):
        out = norm(x)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm.state_dict(), state)
    with pytest.raises(ZeroDivisionError), still_statistics(norm):
        raise ZeroDivisionError
    norm(x)
    assert norm.num_batches_tracked == 1


def test_statistics_follow_as_weights_do() -> None:
    target, source = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    source.running_mean.fill_(2.0)
    follow_statistics(target, source, 0.75)
    assert target.running_mean.tolist() == [0.5, 0.5]
    assert target.num_batches_tracked == 0


# -------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("fixmatch", {"threshold": 1.0}, "threshold"),
        ("fixmatch", {"magnitude": 31}, "magnitude"),
        ("uda", {"temperature": 0.0}, "temperature"),
        ("vat_entmin", {"epsilon": 0.0}, "epsilon"),
        ("mean_teacher", {"average_momentum": 0.0}, "average_momentum"),
        ("mpl", {"finetune": 0.1, "epochs": 2}, "leaves a phase without any"),
        ("cowmix", {"share": (0.8, 0.2)}, "share"),
        ("cowmix", {"sigma": (0.0, 4.0)}, "sigma"),
        ("s4l", {"labels": 0}, "labels"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        build(name, **settings)


def test_more_labels_than_a_class_has_pictures_are_refused(tmp_path: Path) -> None:
    method = build("fixmatch", labels=17)
    with pytest.raises(BenchError, match="17 labels of each class"):
        conformance.fit(method, conformance.toy_split(), 1, tmp_path)
