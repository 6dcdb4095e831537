"""VAT's perturbation against the Hessian that it is the power iteration of, and its loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import rng
from bench.api import Encoder
from bench.nn.classifier import WithHead
from bench.nn.virtual_adversarial import (
    adversarial_direction,
    entropy,
    unit,
    virtual_adversarial,
)


class Flat(Encoder):
    """Pixels through batch norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.norm = dim, nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.flatten(1))
        return out


def network(side: int = 2, classes: int = 3) -> WithHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold("vat"))
        return WithHead(Flat(3 * side**2), nn.Linear(3 * side**2, classes)).double()


def pictures(n: int = 4, side: int = 2) -> Tensor:
    return torch.randn(n, 3, side, side, generator=rng.generator("x"), dtype=torch.float64)


def test_the_direction_is_one_power_iteration_with_the_hessian() -> None:
    """Of KL(p(x) || p(x + r)) at r = 0, by autograd, picture by picture."""
    model, x = network().eval(), pictures()
    start = torch.randn(x.shape, generator=rng.generator("d"), dtype=torch.float64)
    target = model.classify(x).softmax(1).detach()
    got = adversarial_direction(model, x, target, start, xi=1e-4)
    for row in range(len(x)):

        def kl(r: Tensor, row: int = row) -> Tensor:
            logs = model.classify(x[row : row + 1] + r.view(1, 3, 2, 2)).log_softmax(1)
            return F.kl_div(logs, target[row : row + 1], reduction="sum")

        hessian = torch.autograd.functional.hessian(kl, torch.zeros(12, dtype=torch.float64))
        expected = hessian @ start[row].flatten()
        cosine = F.cosine_similarity(got[row].flatten(), expected, dim=0)
        assert cosine.item() == pytest.approx(1.0, abs=1e-6)
        assert got[row].norm().item() == pytest.approx(1.0)


def test_it_changes_a_prediction_more_than_other_directions() -> None:
    model, x = network().eval(), pictures(64)
    logits = model.classify(x).detach()
    worst = virtual_adversarial(model, x, rng.generator("r"), epsilon=16.0, xi=1e-3)
    random = unit(torch.randn(x.shape, generator=rng.generator("o"), dtype=torch.float64))
    moved = model.classify(x + random).log_softmax(1)
    any_way = F.kl_div(moved, logits.softmax(1), reduction="batchmean")
    assert worst > 2 * any_way > 0


def test_the_loss_is_the_divergence_at_epsilon_scaled_by_the_side() -> None:
    """At 2 px epsilon 32 is a length of 2."""
    model, x = network().eval(), pictures()
    logits = model.classify(x)
    start = torch.randn(x.shape, generator=rng.generator("r")).double()
    direction = adversarial_direction(model, x, logits.softmax(1).detach(), start, xi=0.5 / 16)
    moved = model.classify(x + 2.0 * direction).log_softmax(1)
    expected = F.kl_div(moved, logits.softmax(1).detach(), reduction="batchmean")
    got = virtual_adversarial(model, x, rng.generator("r"), epsilon=32.0, xi=0.5)
    torch.testing.assert_close(got, expected)
    weights = list(model.parameters())
    # Neither the target nor the choice of the neighbour has a gradient.
    torch.testing.assert_close(
        torch.autograd.grad(got, weights), torch.autograd.grad(expected, weights)
    )


def test_the_search_follows_the_curvature_in_training_too(monkeypatch) -> None:
    """Hessian times d: the opposite start gives the opposite direction, batch norms and all."""
    model, x = network().train(), pictures(16)
    start = torch.randn(x.shape, generator=rng.generator("d"), dtype=torch.float64)
    found = []
    for sign in (1, -1):
        monkeypatch.setattr(torch, "randn", lambda *a, sign=sign, **k: sign * start)
        monkeypatch.setattr(
            "bench.nn.virtual_adversarial.adversarial_direction",
            lambda *a: found.append(adversarial_direction(*a)) or found[-1],
        )
        virtual_adversarial(model, x, rng.generator("r"), epsilon=8.0, xi=1e-3)
    cosine = F.cosine_similarity(found[0].flatten(1), found[1].flatten(1))
    assert cosine.max() < -0.99


def test_batch_norms_remember_neither_pass_and_no_gradient_is_left() -> None:
    model, x = network().train(), pictures(8)
    before = model.network.norm.running_mean.clone()
    virtual_adversarial(model, x, rng.generator("r"), epsilon=8.0, xi=1.0)
    assert torch.equal(model.network.norm.running_mean, before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_unit_vectors_of_values_whose_squares_underflow() -> None:
    d = torch.zeros(3, 1, 2, 2)
    d[0, 0, 0, 0], d[1] = -1e-30, 1e-25
    got = unit(d)
    torch.testing.assert_close(got.flatten(1).norm(dim=1), torch.tensor([1.0, 1.0, 0.0]))
    assert got[0, 0, 0, 0] == -1


def test_entropy_is_torchs() -> None:
    logits = torch.randn(6, 5, generator=rng.generator("h"), dtype=torch.float64) * 3
    expected = torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(entropy(logits), expected)
    assert entropy(torch.tensor([[0.0, -1e4]])) == 0
