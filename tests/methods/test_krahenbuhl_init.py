"""Data-dependent initialisation: channel statistics, patches, and the balance between layers."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from bench import backbones, conformance, rng
from bench.api import Backbone, TrainSet
from bench.errors import BenchError
from bench.loader import Loader
from bench.nn.filters import data_filters, input_patches
from bench.nn.layers import balance, gradient_ratios, in_order
from methods.krahenbuhl_init import KrahenbuhlInit

KINDS: tuple[Literal["gaussian", "pca", "kmeans"], ...] = ("gaussian", "pca", "kmeans")


class Plain(Backbone):
    """Two convolutions and a linear layer, without batch norm; a third is never called."""

    dim = 6

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.last = nn.Linear(8, 6, bias=bias)
        self.first = nn.Conv2d(3, 8, 5, stride=2, padding=1, bias=bias)
        self.second = nn.Conv2d(8, 8, 3, groups=2, padding="same", bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu()
        out: Tensor = self.last(x.mean((2, 3)))
        return out


def initialised(backbone: Backbone, **settings: object) -> tuple[KrahenbuhlInit, TrainSet]:
    cfg = KrahenbuhlInit.Config.model_validate(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = KrahenbuhlInit(cfg, backbone, conformance.toy_info())
        train = Loader(method, conformance.toy_split(), 0, torch.device("cpu")).pictures()
        method.initialize(train)
    return method, train


def outputs(network: nn.Module, x: Tensor, kind: type[nn.Module]) -> dict[str, Tensor]:
    """What each module of `kind` gives, `[positions, channels]`."""
    found: dict[str, Tensor] = {}

    def keep(name: str, out: Tensor) -> None:
        found[name] = out.movedim(1, -1).flatten(0, -2) if out.ndim == 4 else out

    handles = [
        module.register_forward_hook(lambda _m, _x, out, name=name: keep(name, out.detach()))
        for name, module in network.named_modules()
        if isinstance(module, kind)
    ]
    network(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("weights", KINDS)
def test_every_channel_has_unit_deviation_and_the_asked_mean(weights: str) -> None:
    method, train = initialised(Plain(), weights=weights, between_layers=False)
    x = train.sample(64)
    found = outputs(method.backbone, x, nn.Conv2d) | outputs(method.backbone, x, nn.Linear)
    assert set(found) == {"first", "second", "last"}
    for values in found.values():
        torch.testing.assert_close(
            values.std(0, correction=0), torch.ones(values.shape[1]), rtol=1e-3, atol=0
        )
        torch.testing.assert_close(
            values.mean(0), torch.full((values.shape[1],), 0.1), rtol=0, atol=1e-3
        )


@pytest.mark.parametrize("weights", KINDS)
def test_batch_norm_gives_the_same_in_eval_mode(weights: str) -> None:
    method, train = initialised(backbones.build("small", 32), weights=weights)
    found = outputs(method.backbone.eval(), train.sample(64), nn.BatchNorm2d)
    assert len(found) == 6
    for values in found.values():
        torch.testing.assert_close(values.std(0), torch.ones(values.shape[1]), rtol=0, atol=0.02)
        torch.testing.assert_close(
            values.mean(0), torch.full((values.shape[1],), 0.1), rtol=0, atol=0.01
        )
    assert {m.momentum for m in method.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_principal_components_decorrelate_the_responses() -> None:
    correlations = {}
    for weights in ("gaussian", "pca"):
        method, train = initialised(backbones.build("small", 32), weights=weights)
        (stem, *_) = outputs(method.backbone.eval(), train.sample(64), nn.Conv2d).values()
        correlation = torch.corrcoef(stem.T.double())
        correlations[weights] = (correlation - torch.eye(len(correlation))).abs().max().item()
    assert correlations["pca"] < 0.01 < 0.5 < correlations["gaussian"]


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(4, 6, (1, 3), padding="same", bias=False),
        nn.Conv2d(4, 6, 3, dilation=2, groups=2, bias=False),
        nn.Linear(4, 6, bias=False),
    ],
)
def test_patches_are_what_the_weights_are_multiplied_with(conv: nn.Conv2d | nn.Linear) -> None:
    x = torch.randn(2, 4, 9, 7, generator=rng.generator("patches"))
    x = x.movedim(1, -1) if isinstance(conv, nn.Linear) else x
    patches = input_patches(conv, x, 10**6)
    rows = conv.weight.detach().flatten(1).unflatten(0, (len(patches), -1))
    got = (patches @ rows.mT).transpose(0, 1).flatten(1)
    out = conv(x).detach()
    expected = (
        out.flatten(0, -2) if isinstance(conv, nn.Linear) else out.movedim(1, -1).flatten(0, 2)
    )
    torch.testing.assert_close(got.sort(0).values, expected.sort(0).values)
    assert input_patches(conv, x, 5).shape[1] == 5


@pytest.mark.parametrize("kind", ["pca", "kmeans"])
def test_filters_that_the_data_cannot_give_are_gaussian(
    kind: Literal["pca", "kmeans"],
) -> None:
    few = torch.randn(5, 4, generator=rng.generator("few"))
    many = torch.randn(200, 4, generator=rng.generator("many"))
    for patches, count in ((few, 8), (many, 8)):
        filters = data_filters(patches, count, kind)
        assert filters.shape == (count, 4)
        assert filters.isfinite().all() and (filters.abs().sum(1) > 0).all()


def test_kmeans_filters_answer_to_the_cluster_they_come_from() -> None:
    draw = rng.generator("clusters")
    modes = torch.eye(6)[:3] * 5
    patches = (modes[:, None] + 0.1 * torch.randn(3, 100, 6, generator=draw)).flatten(0, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        filters = data_filters(patches, 3, "kmeans")
    answers = ((patches - patches.mean(0)) @ filters.T).unflatten(0, (3, 100)).mean(1)
    assert sorted(answers.argmax(1).tolist()) == [0, 1, 2]


def test_layers_are_balanced_and_a_homogeneous_network_keeps_its_output() -> None:
    network = Plain(bias=False)
    x = torch.randn(8, 3, 16, 16, generator=rng.generator("balance"))
    with torch.no_grad():
        network.first.weight *= 7
        network.last.weight *= 0.1
        before = network(x)
        layers = in_order(network, x, lambda layer, value: None)
    assert layers == [network.first, network.second, network.last]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        noise = torch.randn_like(before)  # what `balance` will draw
        torch.manual_seed(0)
        unbalanced = ratios_by_hand(network, x, noise)
        got = gradient_ratios(network, layers, x, noise)
        assert [value.item() for value in got.values()] == pytest.approx(unbalanced, rel=1e-4)
        assert max(unbalanced) / min(unbalanced) > 10
        balance(network, layers, x)
    balanced = ratios_by_hand(network, x, noise)
    mean = math.exp(sum(map(math.log, unbalanced)) / 3)
    assert balanced == pytest.approx([mean] * 3, rel=0.02)
    torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-5)


def ratios_by_hand(network: Plain, x: Tensor, noise: Tensor) -> list[float]:
    """Gradient norm over weight norm, of the loss whose gradient at the output is `noise`."""
    network.zero_grad()
    (network(x) * noise).sum().backward()
    ratios = []
    for layer in (network.first, network.second, network.last):
        assert layer.weight.grad is not None
        ratios.append((layer.weight.grad.norm() / layer.weight.norm()).item())
    return ratios


def test_what_is_not_called_stays_as_it_was() -> None:
    network = Plain()
    unused = network.unused.weight.detach().clone()
    initialised(network)
    assert torch.equal(network.unused.weight, unused)


def test_a_network_without_layers_is_one_clear_line() -> None:
    class Pool(Backbone):
        dim = 3

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    with pytest.raises(BenchError, match="no Conv2d or Linear"):
        initialised(Pool())


def test_the_picture_shows_filters_below_pictures() -> None:
    method, _ = initialised(backbones.build("small", 32))
    with torch.no_grad():
        panels = method.picture(conformance.memorised(method), conformance.step_at("main", 0))
    assert [panel.tiles.shape for panel in panels] == [(8, 3, 32, 32)] * 3
    assert all(panel.tiles.isfinite().all() for panel in panels)
