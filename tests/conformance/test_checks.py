"""The checks themselves: each catches the fault that it is there for."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from bench import conformance
from bench.api import Batch, Method, MethodConfig, OptimSpec, Step, View
from bench.data.ops import Normalize


class Sound(Method):
    """Regresses the mean colour; the faulty methods below break one thing each."""

    class Config(MethodConfig):
        epochs: int = 1
        batch_size: int = 8

    def build(self) -> None:
        self.head = nn.Linear(self.backbone.dim, 3)

    def views(self) -> Sequence[View]:
        return (View("plain", (Normalize(mean=self.data.mean, std=self.data.std),)),)

    def loss(self, batch: Batch, step: Step) -> Tensor:
        x = batch.view("plain")
        return (self.head(self.backbone(x)) - x.mean((2, 3))).square().mean()

    def optim(self, phase: str) -> OptimSpec:
        return OptimSpec(lr=0.01)


class LeavesAParameterOut(Sound):
    """`unused` never gets a gradient."""

    def build(self) -> None:
        super().build()
        self.unused = nn.Parameter(torch.zeros(3))


class KeepsAPlainTensor(Sound):
    """Its running mean is no buffer, so a resume forgets it."""

    def build(self) -> None:
        super().build()
        self.mean = torch.zeros(())

    def loss(self, batch: Batch, step: Step) -> Tensor:
        value = super().loss(batch, step)
        self.mean = 0.5 * self.mean + 0.5 * value.detach()
        return value * (1 + self.mean)


class DrawsInSecret(Sound):
    """Draws from a source that the run's seed does not decide."""

    def loss(self, batch: Batch, step: Step) -> Tensor:
        return super().loss(batch, step) * (1 + random.random())


class IsNotFinite(Sound):
    """Its loss is NaN."""

    def loss(self, batch: Batch, step: Step) -> Tensor:
        return super().loss(batch, step) * float("nan")


class LiesAboutItsDim(Sound):
    """Its encoder gives fewer numbers than it says."""

    def encoder(self):
        encoder = super().encoder()
        encoder.dim += 1
        return encoder


@pytest.mark.parametrize("check", conformance.TRAINED, ids=lambda check: check.__name__)
def test_a_sound_method_passes(check: conformance.Check) -> None:
    check(Sound, "sound")


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (LeavesAParameterOut, conformance.every_parameter_gets_a_gradient),
        (KeepsAPlainTensor, conformance.resume_is_exact),
        (DrawsInSecret, conformance.global_seed_is_left_alone),
        (IsNotFinite, conformance.loss_falls_on_one_batch),
        (LiesAboutItsDim, conformance.encoder_keeps_its_shapes),
    ],
    ids=lambda value: value.__name__,
)
def test_a_faulty_method_is_caught(cls: type[Method], check: conformance.Check) -> None:
    with pytest.raises(AssertionError):
        check(cls, "faulty")
