"""BiGAN's losses against scikit-learn's log loss, and who learns from what."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from sklearn.metrics import log_loss

from bench import conformance, rng
from bench.nn.discriminator import (
    Discriminator,
    discriminator_loss,
    discriminator_top1,
    frozen,
    generator_loss,
)
from methods.bigan import BiGAN


def in_double() -> tuple[BiGAN, Any]:
    """A method in float64 and a batch for it."""
    method = conformance.build(BiGAN, "bigan").double()
    batch = conformance.memorised(method)
    batch.views = {"picture": [batch.view("picture").double()]}
    assert isinstance(method, BiGAN)
    return method, batch


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_the_losses_are_log_losses_of_pairs_with_labels_and_with_labels_swapped(phase: str) -> None:
    method, batch = in_double()
    rgb = batch.view("picture")
    step = conformance.step_at(phase, 0)
    loss = method.loss(batch, step).item()
    z = method.codes(rgb, conformance.step_at(phase, 0).rng)
    code = method.head(method.backbone.maps((rgb - 0.5) / 0.25)["stage3"])
    made = method.generator(z).tanh()
    real = method.discriminator(2 * rgb - 1, code).sigmoid().tolist()
    fake = method.discriminator(made, z).sigmoid().tolist()
    labels = [1] * len(real) + [0] * len(fake)
    if phase == "generator":
        labels = [1 - label for label in labels]
    # Two means, one of each kind of pair; log_loss is the mean of both.
    assert loss == pytest.approx(2 * log_loss(labels, real + fake), rel=1e-9)


def test_each_player_learns_in_its_own_phase_only() -> None:
    method, batch = in_double()
    for phase in method.phases:
        method.zero_grad(set_to_none=True)
        method.loss(batch, conformance.step_at(phase, 0)).backward()
        own = {id(p) for p in method.parameters_for(phase)}
        learns = {id(p) for p in method.parameters() if p.grad is not None}
        assert own == learns
    assert all(p.requires_grad for p in method.parameters())


def test_encoder_and_generator_share_one_gradient_step() -> None:
    """The swapped loss pulls on E by its own pairs, on G by its own: both are in the loss."""
    method, batch = in_double()
    rgb = batch.view("picture")
    z = method.codes(rgb, rng.generator("z"))
    code, made = method.encode(rgb), method.generate(z)
    real, fake = method.discriminator(2 * rgb - 1, code), method.discriminator(made, z)
    for loss, player, other in (
        (generator_loss(fake), "generator", "backbone"),
        (generator_loss(-real), "backbone", "generator"),
    ):
        method.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        assert all(p.grad is not None for p in method.get_submodule(player).parameters())
        assert all(p.grad is None for p in method.get_submodule(other).parameters())
    swapped = discriminator_loss(real=fake, fake=real)
    torch.testing.assert_close(swapped, generator_loss(fake) + generator_loss(-real))


def test_codes_are_uniform_between_minus_one_and_one() -> None:
    method = conformance.build(BiGAN, "bigan")
    assert isinstance(method, BiGAN)
    z = method.codes(torch.zeros(2000), rng.generator("codes"))
    assert z.shape == (2000, method.cfg.z_dim)
    assert stats.kstest(z.flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_the_rate_is_constant_for_half_of_training_and_ends_at_a_hundredth() -> None:
    spec = conformance.build(BiGAN, "bigan").optim("generator")
    assert min(spec.milestones) == 0.5 and max(spec.milestones) < 1
    assert math.prod(spec.gammas) == pytest.approx(0.01)


def test_the_judge_looks_at_picture_and_code() -> None:
    judge = Discriminator(32, width=8, code=5)
    x = torch.randn(4, 3, 32, 32, generator=rng.generator("x"), requires_grad=True)
    code = torch.randn(4, 5, generator=rng.generator("code"), requires_grad=True)
    with frozen(judge):
        logits = judge(x, code)
    logits.sum().backward()
    assert logits.shape == (4,)
    assert x.grad is not None and code.grad is not None
    assert x.grad.flatten(1).any(1).all() and code.grad.any(1).all()
    assert all(p.grad is None and p.requires_grad for p in judge.parameters())


def test_frozen_leaves_weights_trainable_after_an_error() -> None:
    judge = Discriminator(16, width=4)
    judge.head.weight.requires_grad_(False)  # was not trained before, and is not after
    with pytest.raises(ZeroDivisionError), frozen(judge):
        raise ZeroDivisionError
    left = [name for name, p in judge.named_parameters() if not p.requires_grad]
    assert left == ["head.weight"]


@pytest.mark.parametrize("size", [3, 16, 33, 64])
def test_a_judge_of_pictures_takes_every_size_and_answers_in_float32(size: int) -> None:
    judge = Discriminator(size, channels=1, width=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = judge(torch.rand(2, 1, size, size))
    assert logits.shape == (2,) and logits.dtype == torch.float32


def test_players_that_tie_and_the_share_that_the_judge_gets_right() -> None:
    zero = torch.zeros(8)
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    real, fake = torch.tensor([1.0, -1.0, 2.0, 3.0]), torch.tensor([-1.0, 1.0, 1.0, -2.0])
    assert discriminator_top1(real, fake).item() == pytest.approx(100 * 5 / 8)
