"""`bench profile data`: the libraries do comparable work, and what one lacks is a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from bench.errors import BenchError
from bench.profiling import data_run, data_table, view_makers
from bench.profiling.view_cases import Case, cases
from bench.profiling.view_makers import LIBRARIES, maker, pictures
from bench.record import profiles

CPU = torch.device("cpu")
SIZE, COUNT = 16, 6
CASES = {case.name: case for case in cases(SIZE)}
BOTH = [
    (name, library)
    for name, case in CASES.items()
    for library in LIBRARIES
    if library == "bench" or getattr(case, library)
]


def views(library: str, case: Case) -> list[Tensor]:
    """All views that a library makes, one tensor for each batch and copy."""
    made = maker(library, case, pictures(COUNT, SIZE))
    assert not isinstance(made, str)
    return list(_tensors(made()))


def _tensors(value: Any) -> Any:
    if isinstance(value, Tensor):
        yield value
        return
    for part in value:
        yield from _tensors(part)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(("name", "library"), BOTH)
def test_every_library_makes_as_many_views_of_the_same_size(name: str, library: str) -> None:
    case = CASES[name]
    made = views(library, case)
    side = case.size or SIZE
    assert sum(map(len, made)) == COUNT * case.copies
    assert {view.shape[1:] for view in made} == {(3, side, side)}
    assert all(view.dtype == torch.float32 for view in made)
    assert all(view.isfinite().all() for view in made)


@pytest.mark.parametrize(("count", "batch"), [(2, 1), (128, 8), (10_000, view_makers.BATCH)])
def test_every_process_of_a_loader_has_work(
    count: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def loader(copies: Any, batch: int, *, num_workers: int, **_: Any) -> list[Any]:
        asked.append((batch, num_workers))
        return []

    monkeypatch.setattr(view_makers, "DataLoader", loader)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    maker("torchvision", CASES["HorizontalFlip"], torch.zeros(count, 3, 1, 1, dtype=torch.uint8))
    assert asked == [(batch, 4)]


@pytest.mark.parametrize("name", ["Resize", "Normalize"])
def test_what_is_not_random_is_the_same(name: str) -> None:
    (ours,), (theirs,) = (views(library, CASES[name]) for library in ("bench", "torchvision"))
    torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0)  # torchvision rounds to uint8


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_rows_and_table(results: Path) -> None:
    told: list[str] = []
    profile, path = data_run.run(
        SIZE, ["HorizontalFlip", "Pixelate"], CPU, 0.0, results, told.append, count=COUNT
    )
    assert profile.complete
    assert profiles.load(results) == ([(path, profile)], [])
    rows = {(row.op, row.provider): row for row in profile.rows}
    assert len(rows) == 6  # lightly's transforms are whole pipelines
    assert [rows["HorizontalFlip", name].one_by_one for name in LIBRARIES[:3]] == [0, 1, 0]
    for row in rows.values():
        if row.reason is None:
            assert row.time is not None
            assert row.views_per_second == pytest.approx(COUNT * 1e3 / row.time.median)
    assert rows["Pixelate", "kornia"].reason == "kornia has no such operation"
    assert told[0].startswith("HorizontalFlip: bench")
    console = Console(width=160)
    with console.capture() as captured:
        console.print(data_table.table(profile))
    text = captured.get()
    assert "picture by picture" in text
    assert "Pixelate, kornia: kornia has no such operation" in text


def test_a_library_that_is_not_installed_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_makers, "find_spec", lambda name: None)
    assert maker("kornia", CASES["Resize"], pictures(2, SIZE)) == "not installed"


def test_an_unknown_operation_is_one_line(results: Path) -> None:
    with pytest.raises(BenchError, match="did you mean HorizontalFlip"):
        data_run.run(SIZE, ["HorizontalFlp"], CPU, 0.0, results, print)
