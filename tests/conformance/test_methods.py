"""Every registered method goes through every check that applies to it."""

from __future__ import annotations

import pytest

from bench import conformance, registry
from bench.conformance import Check

CASES = [
    pytest.param(name, check, id=f"{name}-{check.__name__}")
    for name in registry.names("methods")
    for check in conformance.checks_for(registry.method(name))
]


@pytest.mark.parametrize(("name", "check"), CASES)
def test_method(name: str, check: Check) -> None:
    check(registry.method(name), name)
