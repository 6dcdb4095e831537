"""Benchmarks are run by `make bench`, on an idle machine, and not among the tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _only_when_asked(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("benchmark_only"):
        pytest.skip("a benchmark: run `make bench` on an idle machine")
