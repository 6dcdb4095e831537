"""Fixed positions against the formula, value by value."""

from __future__ import annotations

import math

import pytest
import torch

from bench import backbones
from bench.nn.positions import fix_positions, sincos


def test_each_value_is_the_wave_of_its_row_or_column() -> None:
    height, width, dim = 2, 3, 8
    got = sincos((height, width), dim)
    assert got.shape == (6, 8)
    for patch in range(6):
        row, column = divmod(patch, width)
        for k in range(2):
            rate = 1 / 10_000 ** (k / 2)
            waves = [math.sin(column * rate), math.cos(column * rate)]
            waves += [math.sin(row * rate), math.cos(row * rate)]
            assert got[patch, k::2].tolist() == pytest.approx(waves, rel=1e-6)


def test_a_transformer_gets_them_and_does_not_train_them() -> None:
    backbone = backbones.build("vit_nano_patch8", 32)
    fix_positions(backbone)
    (name, table), *more = [(n, p) for n, p in backbone.named_parameters() if not p.requires_grad]
    assert name.endswith("pos_embed") and not more
    assert (table[0, 0] == 0).all()
    assert torch.equal(table[0, 1:], sincos((4, 4), 96))


def test_other_networks_stay_as_they_are() -> None:
    backbone = backbones.build("small", 32)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    fix_positions(backbone)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert all(parameter.requires_grad for parameter in backbone.parameters())
