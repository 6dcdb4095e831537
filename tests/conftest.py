"""Fixtures that every test may use."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

import bench  # noqa: F401  # before torch: it sets how OpenMP waits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing a test does reaches the user's cache; all tests of a session share one."""
    shared = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("BENCH_CACHE", str(shared))


@pytest.fixture(autouse=True)
def _own_draws(request: pytest.FixtureRequest) -> None:
    """Torch's global generator is each test's own: neither order nor workers change its draws."""
    import torch

    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An empty results folder."""
    return tmp_path / "results"
