"""Diagnostics look at a bounded number of logits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.nn import image_text, memory, moco, view_pairs

EYE = torch.eye(6)


def shifted() -> Tensor:
    """Partners, those of rows 2 and 3 exchanged."""
    return EYE[[0, 1, 3, 2, 4, 5]]


CASES: dict[str, tuple[Callable[[], Tensor], int, float, float]] = {
    # what, columns, % of all asked, % of the first three asked
    "views": (lambda: view_pairs.match_top1(EYE, shifted()), 12, 100 * 8 / 12, 100 * 2 / 3),
    "captions": (lambda: image_text.partner_top1(EYE, shifted()), 6, 100 * 4 / 6, 100 * 2 / 3),
    "queries": (lambda: moco.match_top1(EYE, shifted(), EYE[2:3]), 1, 100 * 4 / 6, 100 * 2 / 3),
}


@pytest.mark.parametrize("name", list(CASES))
def test_of_very_large_batches_some_rows_are_asked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, columns, every, three = CASES[name]
    assert measure().item() == pytest.approx(every)
    monkeypatch.setattr(memory, "WATCHED", 3 * columns)
    assert measure().item() == pytest.approx(three)


def test_two_rows_are_asked_however_many_columns_there_are() -> None:
    assert memory.watched(2 * memory.WATCHED) == 2
    assert memory.watched(0) == memory.WATCHED
