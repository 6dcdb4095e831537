"""Fixtures that every test may use."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

import bench  # noqa: F401  # before torch: it sets how OpenMP waits

# isort: split
import torch

# Where there is no GPU, Triton kernels are interpreted. Triton decides when it is first imported,
# which much else may do: so it is told here, before any test is.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped without one: in Triton's interpreter they would take hours."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing a test does reaches the user's cache; all tests of a session share one."""
    shared = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("BENCH_CACHE", str(shared))


@pytest.fixture(autouse=True)
def _own_draws(request: pytest.FixtureRequest) -> None:
    """Torch's global generator is each test's own: neither order nor workers change its draws."""
    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An empty results folder."""
    return tmp_path / "results"
