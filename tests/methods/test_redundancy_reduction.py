"""Barlow Twins and VICReg against lightly's losses, and what each term of them keeps apart."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import BarlowTwinsLoss, VICRegLoss
from torch import Tensor, nn

from bench import conformance, optim, rng, spread
from bench.api import Batch, Method
from bench.errors import BenchError
from bench.nn.joint_embedding import JointEmbedding
from bench.resolve import method_config
from methods.barlow_twins import BarlowTwins
from methods.vicreg import VICReg, missing_std

BOTH = [(BarlowTwins, "barlow_twins"), (VICReg, "vicreg")]


def method_and_batch(cls: type[JointEmbedding], name: str) -> tuple[JointEmbedding, Batch]:
    """In float64."""
    method = conformance.build(cls, name).double()
    assert isinstance(method, JointEmbedding)
    batch = conformance.memorised(method)
    batch.views = {name: [view.double() for view in views] for name, views in batch.views.items()}
    return method, batch


@pytest.mark.parametrize(
    ("cls", "name", "criterion"),
    [
        (BarlowTwins, "barlow_twins", BarlowTwinsLoss(lambda_param=0.0051)),
        (VICReg, "vicreg", VICRegLoss()),
    ],
)
def test_loss_and_gradients_are_lightlys(
    cls: type[JointEmbedding], name: str, criterion: nn.Module
) -> None:
    method, batch = method_and_batch(cls, name)
    loss = method.loss(batch, conformance.step_at("main", 0))
    trained = list(method.parameters())
    got = torch.autograd.grad(loss, trained)
    one, two = (method.projector(method.backbone(batch.view(name))) for name in ("one", "two"))
    expected = criterion(one, two)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-11)
    theirs = torch.autograd.grad(expected, trained)
    torch.testing.assert_close(got, theirs, rtol=1e-8, atol=1e-9)


def test_missing_std_has_a_finite_gradient_at_a_constant() -> None:
    """A constant dimension misses all but the 0.01 that epsilon gives; a wide one nothing."""
    constant = torch.zeros(8, 1, dtype=torch.float64, requires_grad=True)
    assert missing_std(constant).item() == pytest.approx(1 - 1e-4**0.5, rel=1e-12)
    missing_std(constant).backward()
    assert constant.grad is not None and constant.grad.isfinite().all()
    wide = torch.randn(8, 3, generator=rng.generator("wide"), dtype=torch.float64) * 9
    assert missing_std(wide).item() == 0


@pytest.mark.parametrize(
    ("cls", "name", "worst"), [(BarlowTwins, "barlow_twins", 256), (VICReg, "vicreg", 25 * 0.99)]
)
def test_a_collapsed_network_is_dear_and_seen(
    cls: type[JointEmbedding], name: str, worst: float
) -> None:
    """All pictures at one point: nothing correlates (1 a dimension), or every deviation is 0.01."""
    method, batch = method_and_batch(cls, name)
    last = method.projector[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    step = conformance.step_at("main", 0)
    assert method.loss(batch, step).item() == pytest.approx(worst, rel=1e-12)
    assert step.logged["embedding_std"].item() < spread.COLLAPSED_STD


def test_biases_have_a_learning_rate_of_their_own() -> None:
    """One LARS step from rest: 0.0048 / 0.2 of the gradient for biases, adapted for weights."""
    method = conformance.build(BarlowTwins, "barlow_twins").train()
    batch = conformance.memorised(method)
    cfg = method_config(BarlowTwins, "barlow_twins", "paper", {"batch_size": 256, "epochs": 20})
    method.cfg = cfg
    spec = method.optim("main")
    optimizer = optim.build(spec, method.parameters())
    optim.schedule(optimizer, spec, 10, 1, 20, 256)  # just after the warm-up: the peak
    step = conformance.step_at("main", 0)
    method.loss(batch, step).backward()
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    gradients = {
        name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None
    }
    method.after_backward(step)
    optimizer.step()
    for name, now in method.named_parameters():
        was, gradient = before[name], gradients[name]
        rate = 0.0048
        if now.ndim > 1:
            rate = 0.2 * 0.001 * float(was.norm() / (gradient + 1e-6 * was).norm())
            gradient = gradient + 1e-6 * was
        torch.testing.assert_close(now, was - rate * gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("cls", "name"), BOTH)
def test_the_schedule_ends_at_a_thousandth_of_the_rate(cls: type[Method], name: str) -> None:
    method = conformance.build(cls, name)
    method.cfg = method_config(cls, name, "paper", {})
    assert method.optim("main").min_lr == pytest.approx(0.001 * 0.2 * 2048 / 256)


@pytest.mark.parametrize(("cls", "name"), BOTH)
def test_a_batch_of_one_is_one_line(cls: type[Method], name: str) -> None:
    with pytest.raises(BenchError, match="batch_size") as caught:
        method_config(cls, name, "paper", {"batch_size": 1})
    assert "\n" not in str(caught.value)


def test_views_are_byols() -> None:
    """Blur always and seldom, solarisation in the second view alone."""
    method = conformance.build(VICReg, "vicreg")
    method.cfg = method_config(VICReg, "vicreg", "paper", {})
    blurs: list[float] = []
    solarized: list[float] = []
    for view in method.views():
        by_name = {type(op).__name__: op for op in view.ops}
        blurs.append(by_name["GaussianBlur"].model_dump()["p"])
        solarize = by_name.get("Solarize")
        solarized.append(solarize.model_dump()["p"] if solarize else 0.0)
    assert (blurs, solarized) == ([1.0, 0.1], [0.0, 0.2])


@pytest.mark.parametrize(("cls", "name"), BOTH)
def test_the_picture_marks_pairs_that_are_nearest(cls: type[Method], name: str) -> None:
    """Two equal views of each picture are each other's nearest; swapped ones are not."""
    method = conformance.build(cls, name).eval()
    batch = conformance.memorised(method)
    one = batch.view("one")

    def marks(second: Tensor) -> tuple[bool, ...]:
        batch.views = {"one": [one], "two": [second]}
        with torch.no_grad():
            return method.picture(batch, conformance.step_at("main", 0))[-1].good

    assert marks(one) == (True,) * 8
    assert marks(one.roll(1, 0)) == (False,) * 8
