"""The measured roof: every precision, positive, and torch's settings as they were."""

from __future__ import annotations

import pytest
import torch

from bench.profiling import roof
from bench.record.profile import RoofRecord


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roof, "SIDE", {"cpu": 32, "cuda": 1024})
    monkeypatch.setattr(roof, "COPIED", {"cpu": 2**12, "cuda": 2**20})
    monkeypatch.setattr(roof, "SECONDS", 0.0)


def test_products_and_copies_are_measured() -> None:
    before = torch.get_float32_matmul_precision()
    found = roof.measure(torch.device("cpu"))
    assert set(found.flops) == {"float32", "bfloat16"}
    assert min(*found.flops.values(), found.bytes_per_second) > 0
    assert torch.get_float32_matmul_precision() == before


def test_float32_may_be_three_tf32_products() -> None:
    found = RoofRecord(
        flops={"float32": 60.0, "tf32": 390.0, "bfloat16": 800.0}, bytes_per_second=1
    )
    assert roof.flops_of(found, "float32") == 130.0
    assert roof.flops_of(found, "bfloat16") == 800.0
    assert roof.flops_of(found, "float16") is None
    without = RoofRecord(flops={"float32": 60.0}, bytes_per_second=1)
    assert roof.flops_of(without, "float32") == 60.0


@pytest.mark.gpu
def test_a_gpu_has_tf32_and_float16_too() -> None:
    found = roof.measure(torch.device("cuda"))
    assert set(found.flops) == {"float32", "tf32", "bfloat16", "float16"}
