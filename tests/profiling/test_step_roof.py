"""Which measured peak a step's products are held against."""

from __future__ import annotations

import pytest
import torch

from bench.profiling import roof, step_roof
from bench.record.profile import RoofRecord

PLAIN = RoofRecord(flops={"float32": 2.0, "bfloat16": 4.0}, bytes_per_second=1.0)
GPU = RoofRecord(flops={"float32": 2.0, "bfloat16": 9.0, "tf32": 6.0}, bytes_per_second=1.0)


def test_the_faster_of_products_and_convolutions_on_a_cpu() -> None:
    both = PLAIN.model_copy(update={"flops": PLAIN.flops | {"float32 convolution": 5.0}})
    assert step_roof.peak(both, "32") == 5.0
    assert step_roof.peak(both, "bf16") == 4.0


def test_tf32_where_convolutions_may_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert step_roof.peak(GPU, "32") == 6.0
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert step_roof.peak(GPU, "32") == 2.0
    assert step_roof.peak(GPU, "bf16") == 9.0


def test_convolutions_are_measured_beside_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roof, "measure", lambda device: PLAIN)
    monkeypatch.setattr(step_roof, "CHANNELS", 4)
    found = step_roof.measure(torch.device("cpu"))
    assert set(found.flops) == {*PLAIN.flops, "float32 convolution", "bfloat16 convolution"}
    assert all(value > 0 for value in found.flops.values())
