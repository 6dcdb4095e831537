"""Turns, warm-up, quantiles and failures of timed calls; nothing is asserted about speed."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from bench.profiling import timing

CPU = torch.device("cpu")


def test_calls_take_turns_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []
    times = timing.alternate(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, CPU, seconds=0.0
    )
    rounds = timing.WARMUP + timing.ROUNDS
    assert order == ["a", "b"] * rounds
    assert [len(t.samples) for t in times.values()] == [timing.ROUNDS] * 2
    assert all(t.clock == "wall" and t.failed is None for t in times.values())
    assert all(sample >= 0 for t in times.values() for sample in t.samples)


def test_a_call_that_runs_out_of_memory_is_left_out_from_then_on() -> None:
    tried: list[int] = []

    def large() -> None:
        tried.append(1)
        torch.empty(2**60, dtype=torch.int8)

    times = timing.alternate({"large": large, "small": lambda: None}, CPU, seconds=0.0)
    assert len(tried) == 1
    assert times["large"].median is None
    assert "out of memory" in str(times["large"].failed)
    assert times["small"].median is not None


def test_another_error_is_raised() -> None:
    def wrong() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        timing.alternate({"wrong": wrong}, CPU, seconds=0.0)


def test_quantiles_are_interpolated() -> None:
    times = timing.Times(tuple(float(n) for n in range(11)), "wall")
    assert (times.p10, times.median, times.p90) == (1.0, 5.0, 9.0)
    assert timing.Times((1.0, 2.0), "wall").p90 == pytest.approx(1.9)
    assert timing.Times((), "wall", "out of memory").p10 is None


class Launches(timing._CudaTimer):
    """A GPU on which every call takes 0.02 ms, but for the launches of those not replayed."""

    def __init__(self, device: torch.device) -> None:
        self._graphs = {}

    def time(self, call: timing.Call) -> float:
        value = call()
        assert isinstance(value, float)
        return 0.02 if call in self._graphs else value

    def _captured(self, call: timing.Call, pool: Any) -> Any:
        if call() == WAITS:
            raise RuntimeError("called a synchronizing CUDA operation")
        return call


WAITS, LONG = 0.04, 2.0


@pytest.mark.parametrize(
    ("launched", "clock"),
    [
        ((0.03, 0.3), "graph"),  # one that only its launches make slow
        ((0.03, LONG), "graph"),
        ((0.03, WAITS), "events"),
        ((LONG, LONG), "events"),
    ],
)
def test_all_that_take_turns_have_one_clock(
    launched: tuple[float, float], clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_CudaTimer", Launches)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    calls = {name: partial(float, ms) for name, ms in zip(("ours", "other"), launched, strict=True)}
    times = timing.alternate(calls, torch.device("cuda"), seconds=0.0)
    assert [found.clock for found in times.values()] == [clock] * 2
    expected = [0.02, 0.02] if clock == "graph" else list(launched)
    assert [found.median for found in times.values()] == expected


@pytest.mark.gpu
@pytest.mark.parametrize("waits", [False, True])
def test_short_calls_are_replayed_unless_one_waits(waits: bool) -> None:
    device = torch.device("cuda")
    x = torch.ones(64, 64, device=device)
    calls = {"short": lambda: x @ x, "sum": lambda: x.sum().item() if waits else x.sum()}
    times = timing.alternate(calls, device, seconds=0.2)
    assert {found.clock for found in times.values()} == {"events" if waits else "graph"}
    assert all(sample > 0 for found in times.values() for sample in found.samples)
    assert torch.cuda.get_sync_debug_mode() == 0
    assert (x @ x).sum().item() == 64**3  # the device works as before


@pytest.mark.gpu
def test_a_long_call_is_timed_as_it_is() -> None:
    x = torch.ones(8192, 8192, device="cuda")
    times = timing.alternate({"long": lambda: x @ x}, x.device, seconds=0.1)
    assert times["long"].clock == "events"
