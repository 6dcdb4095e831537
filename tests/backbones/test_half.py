"""Half-width backbones, for methods that train two networks in the place of one."""

from __future__ import annotations

import pytest
import torch

from bench.api import Backbone
from bench.backbones import build
from bench.errors import BenchError


def shapes(backbone: Backbone, size: int) -> dict[str, torch.Size]:
    with torch.no_grad():
        return {k: v.shape for k, v in backbone.eval().maps(torch.zeros(2, 3, size, size)).items()}


@pytest.mark.parametrize(
    ("name", "size"),
    [("small", 33), ("nin3", 32), ("nin5", 32), ("alexnet", 64), ("vgg16", 32), ("vgg16_bn", 64)],
)
def test_a_half_has_half_the_channels_on_the_same_grids(name: str, size: int) -> None:
    with torch.device("meta"):
        whole = build(name, size)
        half = whole.half()
        found, full = shapes(half, size), shapes(whole, size)
        output = half(torch.zeros(2, 3, size, size))
    assert half.layers == whole.layers == tuple(found)
    assert output.shape == (2, half.dim) == (2, whole.dim // 2)
    for layer, (n, channels, *grid) in full.items():
        assert tuple(found[layer]) == (n, channels // 2, *grid)
    # Two halves share no connection: together about half the weights of one whole.
    counts = [sum(p.numel() for p in network.parameters()) for network in (half, whole)]
    assert 2 * counts[0] / counts[1] == pytest.approx(0.5, abs=0.02)


def test_a_half_draws_its_own_weights_and_keeps_the_options() -> None:
    whole = build("nin4", 32, pool_after_3=True)
    one, other = whole.half(), whole.half()
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    assert shapes(one, 32)["conv4"][2:] == shapes(whole, 32)["conv4"][2:] == (4, 4)


def test_the_width_is_an_option() -> None:
    assert build("small", 32, width=2).dim == 512
    with pytest.raises(BenchError, match="without channels"):
        build("small", 32, width=0.01)


def test_half_a_vgg_is_drawn_as_a_whole_one() -> None:
    """As timm does: He's rule for the fan-out, zero bias."""
    conv = build("vgg16", 32, width=0.25).model.features[2]
    assert conv.bias.abs().max() == 0
    assert conv.weight.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.1)


def test_timm_models_have_no_halves() -> None:
    with pytest.raises(BenchError, match=r"no TimmBackbone of half the width; use small"):
        build("test_resnet", 32).half()


def test_pretrained_weights_are_of_one_width() -> None:
    with pytest.raises(BenchError, match=r"no pretrained weights of width 0.5"):
        build("vgg16", 32, pretrained=True, width=0.5)
