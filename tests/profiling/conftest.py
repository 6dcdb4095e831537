"""What tests of profiles share."""

from __future__ import annotations

import pytest

from bench import environment


@pytest.fixture(autouse=True)
def _committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code is as committed, whatever it is: else no profile goes on."""
    monkeypatch.setattr(environment, "_git", lambda: ("0" * 40, False))
