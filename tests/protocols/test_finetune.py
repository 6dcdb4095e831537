"""Fine-tuning, against a plain loop with torch.optim."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from pictures import Convolutions, Pixels, digit_pictures, evaluation, normalized, picture_set
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Encoder, Scores
from bench.data.dataset import DataSet
from bench.data.order import endless
from bench.errors import BenchError
from bench.rng import generator
from protocols.finetune import Finetune

PLAIN = {"epochs": 1, "min_steps": 60, "batch_size": 50, "augment": False}


def run(encoder: Encoder, data: DataSet, folder: Path, **settings: object) -> Scores:
    cfg = Finetune.Config.model_validate(PLAIN | settings)
    return Finetune().run(encoder, evaluation(data, folder), cfg, seed=0)


def plainly(encoder: Encoder, x: Tensor, y: Tensor, lr: float, steps: int) -> nn.Module:
    """The same in plain torch: two learning rates that fall by a half cosine."""
    trunk = copy.deepcopy(encoder).requires_grad_(True)
    linear = nn.Linear(encoder.dim, 10)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    network = nn.Sequential(trunk, nn.BatchNorm1d(encoder.dim, affine=False), linear).train()
    groups = [{"params": linear.parameters(), "lr": 0.1}, {"params": trunk.parameters(), "lr": lr}]
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = endless(len(x), 50, step, 0, "order")
        optimizer.zero_grad()
        F.cross_entropy(network(x[rows]), y[rows]).backward()
        optimizer.step()
        scheduler.step()
    return network.eval()


def test_it_is_a_plain_loop_at_the_rate_that_val_chooses(tmp_path: Path) -> None:
    data, encoder = digit_pictures(), Convolutions()
    before = copy.deepcopy(encoder.state_dict())
    scores = run(encoder, data, tmp_path, lrs=(1e-4, 0.05))
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())

    x = {name: normalized(getattr(data, name)) for name in ("train", "val", "full", "test")}
    y = {name: getattr(data, name).labels for name in x}
    expected = []
    for lr, found in zip((1e-4, 0.05), scores.selected["val_top1_by_lr"], strict=True):
        network = plainly(encoder, x["train"], y["train"], lr, 60)
        expected.append((network(x["val"]).argmax(1) == y["val"]).double().mean().item() * 100)
        assert found == pytest.approx(expected[-1], abs=1.01)
    assert expected[1] > expected[0] + 5, "the encoder's rate must matter here"
    assert scores.selected["lr"] == 0.05
    assert scores.selected["val_top1"] == scores.selected["val_top1_by_lr"][1]

    refit = plainly(encoder, x["full"], y["full"], 0.05, 60)
    assert scores.predictions is not None
    assert (refit(x["test"]).argmax(1) == scores.predictions).double().mean() > 0.98
    hits = (scores.predictions == y["test"]).double().mean().item()
    assert scores.metrics["top1"] == pytest.approx(100 * hits)


def test_without_parameters_the_head_alone_is_trained(tmp_path: Path) -> None:
    data = digit_pictures()
    scores = run(Pixels(), data, tmp_path)
    assert scores.selected["grid"] == {"lr": [0.01]}
    assert scores.metrics["top1"] > 85
    again = run(Pixels(), data, tmp_path, lrs=(0.7,))
    assert again.predictions is not None
    assert scores.predictions is not None
    assert torch.equal(again.predictions, scores.predictions)


def test_constant_features_score_chance(tmp_path: Path) -> None:
    class Constant(Convolutions):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * 0)

    labels = torch.arange(400) % 4
    noise = torch.randint(256, (400, 3, 8, 8), dtype=torch.uint8, generator=generator("noise"))
    scores = run(Constant(), picture_set(noise, labels, (200, 100, 100)), tmp_path)
    assert scores.metrics["top1"] == 25
    assert all(math.isfinite(value) for value in scores.metrics.values())


def test_crops_are_for_training_only(tmp_path: Path) -> None:
    """A class that the first column tells: it is easy, and harder where crops have moved it."""
    labels = torch.arange(600) % 2
    pixels = torch.zeros(600, 3, 8, 8, dtype=torch.uint8)
    pixels[labels == 1, :, :, 0] = 255
    data = picture_set(pixels, labels, (300, 100, 200))
    plain, cropped = (run(Pixels(), data, tmp_path, augment=a, min_steps=20) for a in (False, True))
    assert plain.metrics["top1"] == 100
    assert cropped.metrics["ece"] > plain.metrics["ece"]


def test_divergence_is_told(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"not finite after .* lower learning rate"):
        run(Convolutions(), digit_pictures(), tmp_path, lrs=(1e30,))
