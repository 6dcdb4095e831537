"""Batch norm replaced: what an output depends on, and what stays as it was."""

from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from bench import backbones, rng
from bench.errors import BenchError
from bench.nn.layer_norm import without_batch_norm

X = torch.randn(6, 3, 16, 16, generator=rng.generator("layer norm"))


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return backbones.build("small", 16).train()


def test_an_output_depends_on_its_own_input_only_bit_for_bit() -> None:
    changed = X.clone()
    changed[3] += 1
    others = [0, 1, 2, 4, 5]
    with_norm, without = network(), network()
    without_batch_norm(without)
    assert not torch.equal(with_norm(X)[others], with_norm(changed)[others]), "batch norm leaks"
    assert torch.equal(without(X)[others], without(changed)[others])
    assert not torch.equal(without(X)[3], without(changed)[3])


def test_training_and_evaluation_are_the_same() -> None:
    without = network()
    without_batch_norm(without)
    assert torch.equal(without.train()(X), without.eval()(X))


def test_all_weights_stay_and_only_statistics_go() -> None:
    old, new = network(), network()
    for module in (*old.modules(), *new.modules()):
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)
            nn.init.constant_(module.bias, 0.25)
    without_batch_norm(new)
    weights = new.state_dict()
    assert weights.keys() == {key for key, _ in old.named_parameters()}
    for key, value in old.named_parameters():
        assert torch.equal(weights[key], value), key


@pytest.mark.parametrize(
    ("norm", "shape"), [(nn.BatchNorm1d, (4, 5)), (nn.BatchNorm2d, (4, 5, 3, 3))]
)
def test_it_is_layer_norm_over_everything_but_the_batch(
    norm: type[nn.Module], shape: tuple[int, ...]
) -> None:
    parent = nn.Sequential(norm(5))
    without_batch_norm(parent)
    x = torch.randn(shape, generator=rng.generator("x"))
    expected = nn.functional.layer_norm(x, shape[1:], eps=1e-5)
    torch.testing.assert_close(parent(x), expected)


def test_a_batch_norm_that_also_activates_is_refused() -> None:
    with pytest.raises(BenchError, match="1 is a BatchNormAct2d"):
        without_batch_norm(nn.Sequential(nn.Identity(), BatchNormAct2d(4)))
