"""BYOL against lightly's loss, its target network, and what keeps it from collapsing."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from torch import Tensor

from bench import conformance
from bench.api import Batch, Step
from bench.errors import BenchError
from bench.resolve import method_config
from methods.byol import BYOL


def method_and_batch() -> tuple[BYOL, Batch]:
    """In float64, with a target that has already fallen behind the online network."""
    method = conformance.build(BYOL, "byol").double()
    assert isinstance(method, BYOL)
    with torch.no_grad():
        for parameter in method.target.parameters():
            parameter.mul_(1.1)
    batch = conformance.memorised(method)
    batch.views = {name: [view.double() for view in views] for name, views in batch.views.items()}
    return method, batch


def test_loss_and_gradients_are_lightlys() -> None:
    method, batch = method_and_batch()
    loss = method.loss(batch, conformance.step_at("main", 0))
    trained = [p for p in method.parameters() if p.requires_grad]
    got = torch.autograd.grad(loss, trained)
    negative_cosine = NegativeCosineSimilarity()
    one, two = batch.view("one"), batch.view("two")
    expected = torch.zeros((), dtype=torch.float64)
    for this, other in ((one, two), (two, one)):
        prediction = method.predictor(method.projector(method.backbone(this)))
        expected = expected + 2 + 2 * negative_cosine(prediction, method.target(other).detach())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert 0 < loss.item() < 8
    theirs = torch.autograd.grad(expected, trained)
    torch.testing.assert_close(got, theirs, rtol=1e-9, atol=1e-12)


def test_no_gradient_reaches_the_target() -> None:
    method, batch = method_and_batch()
    for parameter in method.target.parameters():
        parameter.requires_grad_()  # even where it could
    method.loss(batch, conformance.step_at("main", 0)).backward()
    assert all(parameter.grad is None for parameter in method.target.parameters())


def test_the_target_follows_and_its_batch_norms_see_its_own_pictures() -> None:
    method, batch = method_and_batch()
    before = [parameter.clone() for parameter in method.target.parameters()]
    online = [*method.backbone.parameters(), *method.projector.parameters()]
    # Half of training: (1 + base) / 2 on the way from the base to 1.
    base = method.cfg.teacher_momentum
    method.after_step(conformance.step_at("main", 4, total=8))
    for now, was, source in zip(method.target.parameters(), before, online, strict=True):
        expected = (1 + base) / 2 * was + (1 - base) / 2 * source
        torch.testing.assert_close(now, expected, rtol=1e-12, atol=1e-14)
    method.loss(batch, conformance.step_at("main", 0))
    own = dict(method.target.named_buffers())
    theirs = dict(torch.nn.Sequential(method.backbone, method.projector).named_buffers())
    statistics = [name for name in own if name.endswith("running_mean")]
    assert statistics
    assert not any(torch.equal(own[name], theirs[name]) for name in statistics)


def test_without_predictor_and_slow_target_it_collapses() -> None:
    """The watched spread falls where the paper says so, and stays where it should."""

    class Naive(BYOL):
        def loss(self, batch: Batch, step: Step) -> Tensor:
            one, two = self.embed(batch.view("one")), self.embed(batch.view("two"))
            self.watch(step, one, two)
            return 2 - 2 * torch.cosine_similarity(one, two, dim=1).mean()

    spread = {}
    for cls in (BYOL, Naive):
        method = conformance.build(cls, "byol").train()
        batch = conformance.memorised(method)
        trained = [p for p in method.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.3, momentum=0.9)
        for index in range(25):
            step = conformance.step_at("main", index, total=25)
            optimizer.zero_grad()
            method.loss(batch, step).backward()
            optimizer.step()
            method.after_step(step)
        spread[cls] = step.logged["embedding_std"].item()
    assert spread[Naive] < 0.1
    assert spread[BYOL] > 0.7


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"teacher_momentum": 1.5}])
def test_bad_settings_are_one_line(settings: dict[str, float]) -> None:
    with pytest.raises(BenchError, match=next(iter(settings))) as caught:
        method_config(BYOL, "byol", "paper", settings)
    assert "\n" not in str(caught.value)
