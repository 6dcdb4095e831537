"""MPL's feedback against gradients and finite differences, and what each phase sees and trains."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import conformance, engine, rng
from bench.api import Batch, Step
from bench.engine import EngineConfig
from bench.nn.semi_supervised import labeled_view, labels_of
from bench.nn.still_statistics import still_statistics
from bench.progress import Reporter
from methods.mpl import MPL


def build(**settings: object) -> tuple[MPL, Batch]:
    """The toy method in float64 with a batch, student and teacher apart."""
    method = conformance.build(MPL, "mpl")
    assert isinstance(method, MPL)
    method.cfg = method.cfg.model_copy(update=settings)
    batch = conformance.memorised(method)
    assert batch.labeled is not None
    for part in (batch, batch.labeled):
        part.views = {name: [x.double() for x in views] for name, views in part.views.items()}
    with torch.no_grad():
        method.teacher.head.weight.mul_(8)
    return method.double().train(), batch


def step_at(phase: str, index: int = 0) -> Step:
    return Step(phase, 0, 2, index, 8, rng.generator("mpl", phase))


def loss_on_labels(method: MPL, batch: Batch) -> Tensor:
    with still_statistics(method):
        logits = method.head(method.backbone(labeled_view(batch)))
    return F.cross_entropy(logits, labels_of(batch))


def descend(method: MPL, gradients: tuple[Tensor, ...], rate: float) -> None:
    with torch.no_grad():
        for parameter, gradient in zip(method.student.parameters(), gradients, strict=True):
            parameter.sub_(rate * gradient)


def test_the_feedback_is_the_product_of_the_students_gradients() -> None:
    """To first order in the learning rate (the paper's Equation 12)."""
    method, batch = build(baseline_momentum=0.0, label_smoothing=0.0)
    parameters = list(method.student.parameters())
    on_guesses = torch.autograd.grad(method.loss(batch, step_at("student")), parameters)
    on_labels = torch.autograd.grad(loss_on_labels(method, batch), parameters)
    product = sum((a * b).sum() for a, b in zip(on_guesses, on_labels, strict=True))
    rate = 1e-6
    descend(method, on_guesses, rate)
    method.cfg = method.cfg.model_copy(update={"baseline_momentum": 1 - 1e-12})
    feedback = method.feedback(batch)
    assert abs(product.item()) > 1e-3
    assert feedback.item() / rate == pytest.approx(product.item(), rel=1e-3)


def test_the_teachers_gradient_is_that_of_the_students_loss_after_its_step() -> None:
    """On expectation over guesses: for one picture, all guesses can be enumerated.

    J(teacher) = sum over guesses of p(guess) * student's loss on labels after learning it. Its
    gradient, by finite differences of p, is what MPL's term has when it is summed over guesses.
    """
    rate = 1e-4
    method, batch = build(label_smoothing=0.0, uda_weight=0.0, baseline_momentum=1 - 1e-12)
    method.eval()  # one picture has no batch statistics
    batch.views = {name: [x[:1] for x in views] for name, views in batch.views.items()}
    method.guess = method.guess[:1]
    student = list(method.student.parameters())
    start = copy.deepcopy(method.student.state_dict())
    after, terms = [], []
    x, bias = batch.view("strong"), method.teacher.head.bias
    told = method.teacher.classify(x).softmax(1)[0].detach()
    supervised = F.cross_entropy(method.teacher.classify(labeled_view(batch)), labels_of(batch))
    (of_labels,) = torch.autograd.grad(supervised, bias)
    for guess in range(conformance.CLASSES):
        method.student.load_state_dict(start)
        method.baseline.zero_()
        method.guess.fill_(guess)
        method.before.copy_(method.loss_on_labels(batch))
        loss = F.cross_entropy(method.student.classify(x), method.guess)
        descend(method, torch.autograd.grad(loss, student), rate)
        after.append(method.loss_on_labels(batch))
        (gradient,) = torch.autograd.grad(method.loss(batch, step_at("teacher")), bias)
        terms.append(told[guess] * (gradient - of_labels))
    method.student.load_state_dict(start)
    outcomes = torch.stack(after)
    numeric = torch.zeros_like(bias)
    for number in range(len(bias)):
        for sign in (1.0, -1.0):
            with torch.no_grad():
                bias[number] += sign * 1e-5
                moved = method.teacher.classify(x).softmax(1)[0]
                bias[number] -= sign * 1e-5
            numeric[number] += sign * (moved * outcomes).sum() / 2e-5
    assert numeric.abs().max() > 0
    torch.testing.assert_close(sum(terms), numeric, rtol=1e-4, atol=1e-12)


def test_the_usual_feedback_is_taken_off() -> None:
    method, batch = build(baseline_momentum=0.99)
    now = loss_on_labels(method, batch).item()
    method.before.fill_(now + 2.0)
    assert method.feedback(batch).item() == pytest.approx(0.99 * 2.0)
    assert method.baseline.item() == pytest.approx(0.02)


def test_the_teachers_own_losses_are_labels_and_consistency() -> None:
    method, batch = build(temperature=0.7, uda_weight=2.0, uda_ramp=0.5)
    method.before.copy_(method.loss_on_labels(batch))  # no change, no feedback
    x = [labeled_view(batch), batch.view("weak"), batch.view("strong")]
    with torch.no_grad(), still_statistics(method):
        labeled, weak, strong = method.teacher.classify(torch.cat(x)).split([8, 16, 16])
    smoothed = torch.full((8, 4), 0.15 / 4, dtype=torch.float64)
    smoothed[torch.arange(8), labels_of(batch)] += 0.85
    supervised = -(smoothed * labeled.log_softmax(1)).sum(1).mean()
    confidences = (weak / 0.7).softmax(1).amax(1).sort().values
    threshold = confidences[7:9].mean().item()
    method.cfg = method.cfg.model_copy(update={"threshold": threshold})
    terms = []
    for told, learned in zip(weak, strong, strict=True):
        target = (told / 0.7).softmax(0)
        kl = F.kl_div(learned.log_softmax(0), target, reduction="sum")
        terms.append(kl.item() if target.max() >= threshold else 0.0)
    assert terms.count(0.0) == 8
    # Step 2 of 8 is half of the ramp's half.
    expected = supervised.item() + 2.0 * 0.5 * sum(terms) / 16
    assert method.loss(batch, step_at("teacher", 2)).item() == pytest.approx(expected, rel=1e-9)


def test_guesses_are_drawn_from_the_teachers_probabilities() -> None:
    method, batch = build()
    told = torch.tensor([0.6, 0.3, 0.1, 1e-30], dtype=torch.float64)
    with torch.no_grad():
        method.teacher.head.weight.zero_()
        method.teacher.head.bias.copy_(told.log())
    counts = torch.zeros(4, dtype=torch.int64)
    for number in range(20):
        step = replace(step_at("student"), rng=rng.generator("guess", number))
        method.learn(batch, step)
        counts += method.guess.bincount(minlength=4)
    torch.testing.assert_close(counts / 320, told.float(), atol=0.08, rtol=0)
    assert counts[3] == 0


def test_student_and_teacher_train_each_its_own_part_then_the_student_alone(
    tmp_path: Path,
) -> None:
    method = conformance.build(MPL, "mpl")
    assert isinstance(method, MPL)
    split, quiet = conformance.toy_split(), Reporter(quiet=True)
    cfg = EngineConfig(device="cpu", precision="32")
    logged, moved = [], []
    for _ in range(2):
        before = [copy.deepcopy(net.state_dict()) for net in (method.student, method.teacher)]
        trained = engine.fit(
            method, split, cfg, seed=0, folder=tmp_path, reporter=quiet, stop_after=4
        )
        logged.append({key for key in trained.history[-1] if key.startswith("loss_")})
        after = [net.state_dict() for net in (method.student, method.teacher)]
        moved.append(
            [
                any(not torch.equal(old[key], new[key]) for key in old)
                for old, new in zip(before, after, strict=True)
            ]
        )
    assert logged == [{"loss_student", "loss_teacher"}, {"loss_finetune"}]
    assert moved == [[True, True], [True, False]]


def test_a_phases_gradient_stays_in_its_own_network() -> None:
    method, batch = build()
    student, teacher = list(method.student.parameters()), list(method.teacher.parameters())
    for phase, others in (("student", teacher), ("teacher", student), ("finetune", teacher)):
        loss = method.loss(batch, step_at(phase))
        assert set(torch.autograd.grad(loss, others, allow_unused=True)) == {None}
