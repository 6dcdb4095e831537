"""SimSiam against lightly's loss, its stopped gradient, and its two learning rates."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from torch import Tensor, nn

from bench import conformance, optim
from bench.api import Batch, Step
from bench.errors import BenchError
from bench.nn.joint_embedding import mean_cosine
from bench.resolve import method_config
from methods.simsiam import SimSiam


def method_and_batch() -> tuple[SimSiam, Batch]:
    """In float64."""
    method = conformance.build(SimSiam, "simsiam").double()
    assert isinstance(method, SimSiam)
    batch = conformance.memorised(method)
    batch.views = {name: [view.double() for view in views] for name, views in batch.views.items()}
    return method, batch


def test_loss_and_gradients_are_lightlys() -> None:
    method, batch = method_and_batch()
    loss = method.loss(batch, conformance.step_at("main", 0))
    trained = list(method.parameters())
    got = torch.autograd.grad(loss, trained)
    one, two = (method.projector(method.backbone(batch.view(name))) for name in ("one", "two"))
    criterion = NegativeCosineSimilarity()
    expected = 0.5 * (
        criterion(method.predictor(one), two.detach())
        + criterion(method.predictor(two), one.detach())
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    theirs = torch.autograd.grad(expected, trained)
    torch.testing.assert_close(got, theirs, rtol=1e-9, atol=1e-12)


def test_what_is_predicted_gets_no_gradient() -> None:
    """With a predictor that passes nothing back, nothing reaches the backbone."""

    class Opaque(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().requires_grad_()

    method, batch = method_and_batch()
    method.predictor = Opaque()  # type: ignore[assignment]
    method.loss(batch, conformance.step_at("main", 0)).backward()
    assert all(parameter.grad is None for parameter in method.parameters())


def test_heads_are_the_official_ones() -> None:
    """Batch norm after all three of the projector's layers, without affine after the last."""
    method, _ = method_and_batch()
    norms = [layer for layer in method.projector if isinstance(layer, nn.BatchNorm1d)]
    assert [norm.affine for norm in norms] == [True, True, False]
    assert method.projector[-1] is norms[-1]
    assert isinstance(method.predictor[-1], nn.Linear) and method.predictor[-1].bias is not None


def test_only_the_predictor_keeps_its_learning_rate() -> None:
    """Against SGD with two parameter groups, as in the official code."""
    method, batch = method_and_batch()
    theirs, _ = method_and_batch()
    theirs.load_state_dict(method.state_dict())
    method.cfg = method_config(SimSiam, "simsiam", "paper", {"lr": 1.0, "weight_decay": 0.1})
    spec, total = method.optim("main"), 5
    ours = optim.build(spec, method.parameters())
    rate = optim.peak_lr(spec, 16)
    encoder = [*theirs.backbone.parameters(), *theirs.projector.parameters()]
    predictor = list(theirs.predictor.parameters())
    official = torch.optim.SGD(
        [{"params": encoder}, {"params": predictor}],
        lr=rate,
        momentum=0.9,
        weight_decay=spec.weight_decay,
    )
    for index in range(total):
        step = conformance.step_at("main", index, total)
        ours.zero_grad()
        method.loss(batch, step).backward()
        method.after_backward(step)
        optim.schedule(ours, spec, index, total, total, 16)
        ours.step()
        method.after_step(step)
        official.zero_grad()
        theirs.loss(batch, step).backward()
        official.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * index / total)) / 2
        official.step()
    for name, value in method.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-8, atol=1e-10)


def test_with_the_gradient_not_stopped_it_collapses() -> None:
    """Figure 2 of the paper, on one batch: without the stop the watched spread falls.

    There is no batch norm on the output (Table 3, hidden-only), so that a few steps show it.
    """

    class Flowing(SimSiam):
        def loss(self, batch: Batch, step: Step) -> Tensor:
            one, two = self.embed(batch.view("one")), self.embed(batch.view("two"))
            self.watch(step, one, two)
            forth, back = (
                mean_cosine(self.predictor(one), two),
                mean_cosine(self.predictor(two), one),
            )
            return -(forth + back) / 2

    spread = {}
    for cls in (SimSiam, Flowing):
        method = conformance.build(cls, "simsiam").train()
        assert isinstance(method, SimSiam)
        method.projector[-1] = nn.Identity()
        batch = conformance.memorised(method)
        optimizer = torch.optim.SGD(method.parameters(), lr=1.0, momentum=0.9)
        for index in range(25):
            step = conformance.step_at("main", index, total=25)
            optimizer.zero_grad()
            method.loss(batch, step).backward()
            optimizer.step()
        spread[cls] = step.logged["embedding_std"].item()
    assert spread[Flowing] < 0.1
    assert spread[SimSiam] > 0.7


def test_a_batch_of_one_is_one_line() -> None:
    with pytest.raises(BenchError, match="batch_size") as caught:
        method_config(SimSiam, "simsiam", "paper", {"batch_size": 1})
    assert "\n" not in str(caught.value)
