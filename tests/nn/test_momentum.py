"""Momentum networks, projectors and the memory that a method may ask for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bench.errors import BenchError
from bench.nn import memory
from bench.nn.mlp import mlp
from bench.nn.momentum import cosine, follow, momentum_copy


def test_a_momentum_network_moves_by_its_share_and_takes_no_gradient() -> None:
    source = nn.Linear(3, 2).double()
    target = momentum_copy(source)
    assert not any(p.requires_grad for p in target.parameters())
    start = [p.clone() for p in target.parameters()]
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(1.0)
    follow(target, source, 0.9)
    for before, after, ahead in zip(start, target.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(after, 0.9 * before + 0.1 * ahead, rtol=0, atol=1e-15)


def test_momentum_rises_along_half_a_cosine() -> None:
    assert cosine(0.9, 1.0, 0.0) == pytest.approx(0.9)
    assert cosine(0.9, 1.0, 0.5) == pytest.approx(0.95)
    assert cosine(0.9, 1.0, 1.0) == 1.0
    assert cosine(0.9, 1.0, 0.25) == pytest.approx(1 - 0.05 * (1 + math.cos(math.pi / 4)))


def test_a_projector_has_norms_where_they_were_asked_for() -> None:
    names = [type(layer).__name__ for layer in mlp(4, 8, 8, 2, last="norm-free")]
    hidden = ["Linear", "BatchNorm1d", "ReLU"]
    assert names == [*hidden, *hidden, "Linear", "BatchNorm1d"]
    last = mlp(4, 8, 2, last="norm-free")
    assert last[0].bias is None and last[-2].bias is None and last[-1].weight is None
    plain = mlp(4, 8, 2, norm=False)
    assert [type(layer).__name__ for layer in plain] == ["Linear", "ReLU", "Linear"]
    assert plain[0].bias is not None and plain[-1].bias is not None


def test_what_does_not_fit_in_memory_is_refused_in_one_line() -> None:
    memory.require(1, "a byte", "nothing")
    with pytest.raises(BenchError, match=r"a bank take about .* GiB, and .* set less") as error:
        memory.require(2.0**60, "a bank", "set less")
    assert "\n" not in str(error.value)
