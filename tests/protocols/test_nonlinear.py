"""The non-linear probe, against a plain network trained by torch.optim."""

from __future__ import annotations

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
from protocols.layers import Layers
from protocols.nonlinear import Nonlinear, conv_head, initialized, mlp_head

PLAIN = {"epochs": 1, "min_steps": 100, "batch_size": 50, "augment": False}


def run(encoder: Encoder, data: DataSet, folder: Path, **settings: object) -> Scores:
    cfg = Nonlinear.Config.model_validate(PLAIN | settings)
    return Nonlinear().run(encoder, evaluation(data, folder), cfg, seed=0)


def perceptron(x: Tensor, y: Tensor, weights: list[Tensor], batch: int, steps: int) -> nn.Module:
    """The paper's head in plain torch, from given weights of its three linear layers."""
    network = nn.Sequential(
        nn.Linear(x.shape[1], 200, bias=False),
        nn.BatchNorm1d(200),
        nn.ReLU(),
        nn.Linear(200, 200, bias=False),
        nn.BatchNorm1d(200),
        nn.ReLU(),
        nn.Linear(200, 10),
    )
    with torch.no_grad():
        for layer, weight in zip((network[0], network[3], network[6]), weights, strict=True):
            layer.weight.copy_(weight)
        network[6].bias.zero_()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    drops = [math.ceil(share * steps) for share in (0.35, 0.7, 0.85)]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, gamma=0.2)
    for step in range(steps):
        rows = endless(len(x), batch, step, 0, "order")
        optimizer.zero_grad()
        F.cross_entropy(network(x[rows]), y[rows]).backward()
        optimizer.step()
        scheduler.step()
    return network.eval()


def test_the_perceptron_is_a_plain_one(tmp_path: Path) -> None:
    data, encoder = digit_pictures(), Convolutions()
    scores = run(encoder, data, tmp_path, layer="two")

    def features(split: str) -> Tensor:
        with torch.no_grad():
            return encoder.maps(normalized(getattr(data, split)))["two"].flatten(1)

    head = initialized(mlp_head((12, 4, 4), 200, 10, 12_288), generator(0, "head", "two"))
    weights = [m.weight.detach().clone() for m in head.modules() if isinstance(m, nn.Linear)]
    labels = {name: getattr(data, name).labels for name in ("train", "val", "full", "test")}
    chosen = perceptron(features("train"), labels["train"], weights, 50, 100)
    val_top1 = (chosen(features("val")).argmax(1) == labels["val"]).double().mean() * 100
    assert scores.selected["val_top1"] == pytest.approx(val_top1.item(), abs=1.01)
    assert scores.selected["val_top1"] > 80
    refit = perceptron(features("full"), labels["full"], weights, 50, 100)
    assert scores.predictions is not None
    assert (refit(features("test")).argmax(1) == scores.predictions).double().mean() > 0.98
    assert list(scores.per_layer) == ["two"]


def test_the_convolutional_head_is_a_block_of_nin() -> None:
    head = initialized(conv_head(5, 7), generator("conv")).eval()
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert [tuple(m.weight.shape) for m in convs] == [
        (192, 5, 3, 3), (192, 192, 1, 1), (192, 192, 1, 1)
    ]  # fmt: skip
    x = torch.randn(2, 5, 4, 4, generator=generator("maps"))
    linear = next(m for m in head.modules() if isinstance(m, nn.Linear))
    h = x.double()
    for conv in convs:  # running statistics are still 0 and 1
        h = F.conv2d(h, conv.weight.double(), padding=conv.weight.shape[-1] // 2)
        h = (h / math.sqrt(1 + 1e-5)).relu()
    expected = h.mean((2, 3)) @ linear.weight.double().T
    assert torch.allclose(head(x).double(), expected, rtol=1e-4, atol=1e-4)


def test_weights_are_drawn_by_the_fan_out() -> None:
    head = initialized(conv_head(64, 400), generator("fan"))
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_out = module.weight[:, 0].numel()
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
            assert module.weight.mean().abs() < 0.05 * math.sqrt(2 / fan_out)


@pytest.mark.parametrize(
    ("shape", "inputs"),
    [
        ((192, 8, 8), 12_288),
        ((24, 16, 16), 6_144),
        ((256, 56, 56), 256 * 49),
        ((12_300, 2, 2), 12_300),
    ],
)
def test_large_maps_are_averaged_before_they_are_flattened(
    shape: tuple[int, int, int], inputs: int
) -> None:
    first = next(m for m in mlp_head(shape, 4, 2, 12_288).modules() if isinstance(m, nn.Linear))
    assert first.in_features == inputs


class Corners(Encoder):
    """The first layer is constant, the second tells two bits that only together tell the class."""

    layers, dim = ("constant", "bits"), 2

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        return {"constant": torch.ones(len(x), 2, 4, 4), "bits": x[:, :, ::7, ::7]}

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 2)


@pytest.mark.parametrize("head", ["mlp", "conv"])
def test_what_no_linear_head_can_tell_is_learnt(tmp_path: Path, head: str) -> None:
    bits = torch.randint(2, (600, 2), generator=generator("bits"))
    pixels = torch.zeros(600, 3, 8, 8, dtype=torch.uint8)
    pixels[:, 0, :4], pixels[:, 1, :4] = (200 * bits.T[:, :, None, None]).to(torch.uint8)
    data = picture_set(pixels, bits[:, 0] ^ bits[:, 1], (300, 100, 200))
    scores = run(Corners(), data, tmp_path, head=head, min_steps=40)
    assert scores.metrics["top1"] == 100
    assert scores.selected["layer"] == "bits"
    assert data.test.labels is not None
    share = 100 * data.test.labels.double().mean().item()
    constant = scores.per_layer["constant"]["top1"]  # one class for all
    assert constant in (pytest.approx(share), pytest.approx(100 - share))
    linear = Layers.Config.model_validate(PLAIN)
    assert Layers().run(Corners(), evaluation(data, tmp_path), linear, 0).metrics["top1"] < 80


def test_a_layer_that_is_not_there_is_told(tmp_path: Path) -> None:
    data = digit_pictures()
    with pytest.raises(BenchError, match=r"no layer 'three' .* to auto or one or two or output"):
        run(Convolutions(), data, tmp_path, layer="three")
    with pytest.raises(BenchError, match=r"no layer 'output' for a head of kind conv"):
        run(Convolutions(), data, tmp_path, layer="output", head="conv")
    with pytest.raises(BenchError, match=r"no maps for a conv head; set protocol.head=mlp"):
        run(Pixels(), data, tmp_path, head="conv")
